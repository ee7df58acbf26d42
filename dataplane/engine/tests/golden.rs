//! Golden packets: for every line of docs/packet-path.md, and for every reason, a packet, what came before it, and
//! all that must come of it: verdict, bytes that leave, and exactly the counters that move.
//!
//! The rows are in `golden_rows`, one file for each part of the table, and run for IPv4 and for IPv6. A row says
//! every counter it moves: one that moves beside those fails the row, so nothing is counted by accident.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod golden_rows;
mod support;

use engine::frames::Frames;
use engine::snapshot::Port;
use engine::verdict::{Action, Verdict};
use golden_rows::{Expected, Row, Scene, Sent, Step};
use ipc::counter::Counter;
use ipc::counters::{CounterReader, Traffic};
use ipc::reason::Reason;
use packet::{Token, ethernet};
use support::frames::FixedFrames;
use support::{Counts, FAMILIES, World, flow};

/// Runs a row's history and gives the data plane as the packet finds it.
fn history(row: &Row) -> World {
    let mut world = match row.configured {
        true => Scene::world(row.site.clone()),
        false => World::unconfigured(row.site.clone()),
    };
    for step in &row.before {
        match step {
            Step::Packet(frame) => drop(world.send(frame.clone())),
            Step::Wait(seconds) => world.wait(*seconds),
            Step::Commit(commands) => world.commit(commands),
            Step::Forget => drop(world.forget_unused()),
            Step::Delete => {
                world.forget(|_| true);
                world.publish();
            }
        }
    }
    world
}

/// The verdict a row expects, its names as ids.
fn verdict(expected: &Expected, world: &World) -> Verdict {
    let vips = world.model.vips();
    let vip = |text| vips.iter().find(|vip| vip.name.as_str() == text).map(|vip| vip.id).unwrap();
    Verdict {
        action: expected.action,
        reason: expected.reason,
        vip: expected.vip.map(vip),
        backend: expected.backend.map(|text| world.id_of(text)),
        token: expected.token.map(Token),
        learned: expected.learned,
        port: expected.port,
    }
}

/// The frame with other MAC addresses: all that l2dsr may change.
fn readdressed(frame: &[u8], destination: [u8; 6], port: &Port) -> Vec<u8> {
    let mut sent = frame.to_vec();
    let source = port.mac.unwrap_or_else(|| ethernet::destination(frame).unwrap());
    sent[..6].copy_from_slice(&destination);
    sent[6..12].copy_from_slice(&source);
    sent
}

/// What must leave, if anything.
fn sent(row: &Row, world: &World) -> Option<Vec<u8>> {
    match (&row.sent, row.expected.action) {
        (Sent::Bytes(bytes), _) => Some(bytes.clone()),
        (Sent::AsUsual, Action::Forward) => {
            let backend = world.snapshot.backend(world.id_of(row.expected.backend.unwrap())).unwrap();
            let port = &row.site.ports[usize::from(row.expected.port.0)];
            Some(readdressed(&row.packet, backend.mac.unwrap(), port))
        }
        (Sent::AsUsual, Action::Local) => panic!("a row with an answer must say its bytes"),
        (Sent::AsUsual, Action::Punt | Action::Drop) => None,
    }
}

/// Packets and bytes that came since.
fn traffic_since(now: Traffic, before: Traffic) -> (u64, u64) {
    (now.packets - before.packets, now.bytes - before.bytes)
}

fn check(row: &Row) {
    let mut world = history(row);
    let expected = verdict(&row.expected, &world);
    let leaves = sent(row, &world);
    let reader: CounterReader = world.counters.reader();
    let before = Counts::of(&reader);
    let vip_before = expected.vip.map(|vip| reader.vip(vip)).unwrap_or_default();
    let backend_before = expected.backend.map(|backend| reader.backend(backend)).unwrap_or_default();

    let mut frames = FixedFrames::new(row.headroom);
    frames.push(&row.packet);
    let verdicts = world.judge(&mut frames);

    assert_eq!(verdicts, [expected]);
    if let Some(leaves) = &leaves {
        assert_eq!(frames.bytes(0), leaves, "the bytes that leave");
    }
    let length = row.packet.len() as u64;
    let mut moved = row.moved.clone();
    moved.extend([(Counter::RxPackets, 1), (Counter::RxBytes, length)]);
    if expected.action == Action::Punt {
        moved.push((Counter::Punted, 1));
    }
    moved.retain(|(_, amount)| *amount > 0);
    moved.sort_unstable();
    let after = Counts::of(&reader);
    assert_eq!(after.moved_since(&before), moved, "the counters that moved");
    let reasons = if expected.action == Action::Punt { vec![] } else { vec![(expected.reason, 1)] };
    assert_eq!(after.reasons_since(&before), reasons, "the reasons that were counted");
    if let Some(vip) = expected.vip {
        assert_eq!(traffic_since(reader.vip(vip), vip_before), (1, length), "the VIP's traffic, as received");
    }
    if let (Some(backend), Some(leaves)) = (expected.backend, leaves) {
        let traffic = traffic_since(reader.backend(backend), backend_before);
        assert_eq!(traffic, (1, leaves.len() as u64), "the backend's traffic, as sent");
    }
}

#[test]
fn every_golden_packet_gets_its_verdict_its_bytes_and_its_counters() {
    let mut failed = Vec::new();
    for family in FAMILIES {
        for row in golden_rows::all(family) {
            let outcome = std::panic::catch_unwind(|| check(&row));
            if outcome.is_err() {
                failed.push(format!("{family:?}: {}", row.what));
            }
        }
    }
    assert!(failed.is_empty(), "{} rows failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn every_reason_has_a_golden_packet_in_each_family_that_can_have_it() {
    for family in FAMILIES {
        let rows = golden_rows::all(family);
        for reason in Reason::ALL {
            let mine = match reason {
                Reason::BadIpv4 | Reason::Arp | Reason::ArpNotOurs => family == packet::Family::V4,
                Reason::BadIpv6 | Reason::Neighbour => family == packet::Family::V6,
                _ => true,
            };
            let has_row = rows.iter().any(|row| {
                row.expected.reason == *reason && (row.expected.action == Action::Drop) == reason.is_drop()
            });
            assert_eq!(has_row, mine, "{family:?}: {reason}");
        }
    }
}

#[test]
fn no_two_golden_rows_have_one_name() {
    for family in FAMILIES {
        let mut names: Vec<_> = golden_rows::all(family).iter().map(|row| row.what).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}

/// The public hash and Maglev are what several appliances and several versions must agree on.
#[test]
fn the_public_choice_of_a_backend_never_changes() {
    let world = Scene::world(support::site());
    let chosen = |family, host, source| {
        let id = world.hashed(&flow(family, host, source, 9, 8000));
        world.name_of(id).unwrap().to_owned()
    };
    let mut all = String::new();
    for family in FAMILIES {
        for source in 40_000..40_016 {
            all.push_str(&chosen(family, 1, source)[1..]);
        }
    }
    assert_eq!(all, GOLDEN_CHOICES);
}

/// The backends (b1, b2, b3) of ports 40000 to 40015 of one client, first IPv4, then IPv6.
const GOLDEN_CHOICES: &str = "21111223211223312111233112112312";
