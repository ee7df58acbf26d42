//! A running `weft-dataplane` under traffic, and control planes that die after any message, read nothing, or say more
//! than fits: nothing is half applied, no packet is lost, and the next control plane works.
//!
//! With WEFT_SOAK set each test prints a row of the soak table.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod running;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ipc::control_link::{Answer, ControlLink, ControlLinkError, Dump};
use ipc::counter::Counter;
use ipc::counters::{CounterReader, LinkCounter};
use ipc::id::BackendId;
use ipc::layout::{COMMAND_SLOTS, EVENT_SLOTS};
use ipc::message::{
    BackendState, Command as Change, Event, Forward, Handles, MAX_BATCH, Protocol, Refusal, Steering,
    UnknownToken,
};
use ipc::reason::Reason;
use running::busy::{Busy, FLOWS, backends, name, put, remove};
use running::{DataPlane, PATIENCE, Place, Setup, assert_consistent, commit, is_root, soak_row, until};
use rustix::process::Signal;

const DIR: &str = "WEFT_PEERS_TEST_DIR";
const ROLE: &str = "WEFT_PEERS_TEST_ROLE";

// ---- a control plane that dies ---------------------------------------------------------------------------------

/// A batch of every kind of change, twenty of them.
fn mixed() -> Vec<Change> {
    let backend = |pool: &str, text: &str, last: u8, weight, state| Change::PutBackend {
        pool: name(pool),
        name: name(text),
        address4: Some([10, 0, 1, last].into()),
        address6: None,
        mac: Some([2, 0, 0, 0, 3, last]),
        weight,
        state,
        handles: Handles::default(),
    };
    let vip = |text: &str, pool: &str, unknown_token| Change::PutVip {
        name: name(text),
        pool: name(pool),
        protocol: Protocol::Tcp,
        forward: Forward::L2dsr,
        steering: Steering::LEARN,
        unknown_token,
    };
    let service = |vip: &str, address: &str, port| Change::PutService {
        vip: name(vip),
        address: address.parse().unwrap(),
        port,
    };
    let gone = |vip: &str, address: &str, port| Change::RemoveService {
        vip: name(vip),
        address: address.parse().unwrap(),
        port,
    };
    let (active, servers) = (BackendState::Active, "web-servers");
    vec![
        Change::PutPool { name: name("p2") },
        backend("p2", "x1", 21, 1, active),
        backend("p2", "x2", 22, 2, active),
        vip("api", "p2", UnknownToken::Drop),
        service("api", "10.9.9.10", 80),
        service("api", "fd99::10", 80),
        backend(servers, "b4", 14, 1, active),
        backend(servers, "b2", 12, 77, active),
        backend(servers, "b3", 13, 100, BackendState::Draining),
        remove("b1"),
        vip("web", servers, UnknownToken::Hash),
        service("web", "10.9.9.9", 8001),
        gone("web", "fd99::9", 8000),
        Change::PutPool { name: name("p3") },
        backend("p3", "y1", 31, 1, active),
        Change::RemoveBackend { pool: name("p3"), name: name("y1"), deadline: None },
        Change::RemovePool { name: name("p3") },
        backend(servers, "b4", 14, 5, active),
        vip("api", "p2", UnknownToken::Reset),
        gone("api", "fd99::10", 80),
    ]
}

/// The batch as it goes over the ring.
fn messages() -> Vec<Change> {
    let batch = 77;
    let changes = mixed();
    [&[Change::Begin { batch }][..], &changes, &[Change::Commit { batch }]].concat()
}

#[test]
#[ignore = "the control plane that other tests of this file start; it kills itself"]
fn a_short_life() {
    let (Some(dir), Ok(role)) = (std::env::var_os(DIR), std::env::var(ROLE)) else {
        panic!("only other tests of this file start this one");
    };
    let mut link = ControlLink::open(Path::new(&dir)).unwrap();
    link.attach(PATIENCE).unwrap();
    let (what, count) = role.split_once(' ').unwrap();
    let count: usize = count.parse().unwrap();
    if what == "dump" {
        link.send_raw(&Change::Dump, PATIENCE).unwrap();
        for _ in 0..count {
            link.event_raw(PATIENCE).unwrap();
        }
    } else {
        for message in &messages()[..count] {
            link.send_raw(message, PATIENCE).unwrap();
        }
    }
    rustix::process::kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
}

/// Makes room for a control plane that kills itself after so many messages, and waits until the data plane has
/// noticed its end, and so has taken all that it had sent.
fn live_and_die(link: ControlLink, place: &Place, role: &str) {
    let gauges = link.gauges().unwrap();
    let detached = gauges.link(LinkCounter::Detached);
    drop(link);
    until("the data plane sees the first one leave", || gauges.link(LinkCounter::Detached) == detached + 1);
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_short_life", "--ignored", "--nocapture"])
        .env(DIR, place.runtime_dir())
        .env(ROLE, role)
        .output()
        .unwrap();
    let killed = std::os::unix::process::ExitStatusExt::signal(&ended.status);
    assert_eq!(killed, Some(9), "{role}: {}", String::from_utf8_lossy(&ended.stderr));
    until("the data plane sees it die", || gauges.link(LinkCounter::Detached) == detached + 2);
}

/// What a dump says that a batch can change: everything but what the census counts.
fn configured(dump: &Dump) -> Vec<Event> {
    let mut records = dump.records.clone();
    for record in &mut records {
        if let Event::Backend { flows, tokens, deadline, .. } = record {
            (*flows, *tokens, *deadline) = (0, 0, None);
        }
    }
    records
}

fn successor(place: &Place) -> ControlLink {
    let mut link = ControlLink::open(&place.runtime_dir()).unwrap();
    link.attach(PATIENCE).unwrap();
    link
}

/// Every connection went on to its backend: nothing was dropped once there was a configuration.
fn assert_nothing_lost(running: DataPlane, counters: &CounterReader, fault: &str, count: usize) {
    running.stop(Signal::TERM);
    soak_row(fault, u32::try_from(count).unwrap(), counters);
    assert_consistent(counters);
    for reason in Reason::ALL.iter().filter(|reason| reason.is_drop() && **reason != Reason::NoConfig) {
        assert_eq!(counters.reason(*reason), 0, "{reason}");
    }
}

#[test]
fn a_control_plane_killed_after_any_message_of_a_batch_leaves_it_whole_or_not_at_all() {
    if !is_root("a_control_plane_killed_after_any_message_of_a_batch_leaves_it_whole_or_not_at_all") {
        return;
    }
    let Busy { place, running, mut link, counters, .. } = Busy::start(&Setup::default());
    let gauges = link.gauges().unwrap();
    let whole = messages().len();
    assert_eq!(whole, 22);
    let mut abandoned = 0;
    for count in 0..=whole {
        let before = link.dump(PATIENCE).unwrap();
        live_and_die(link, &place, &format!("batch {count}"));
        link = successor(&place);
        let after = link.dump(PATIENCE).unwrap();
        let names: Vec<String> = backends(&after).into_keys().collect();
        if count < whole {
            assert_eq!(configured(&after), configured(&before), "after {count} messages");
            abandoned += u64::from(count > 0);
            assert_eq!(gauges.link(LinkCounter::Abandoned), abandoned, "after {count} messages");
        } else {
            // It died before the answer, not before its last word.
            assert_eq!(names, ["b2", "b3", "b4", "x1", "x2"]);
        }
        // The successor works: one change, and all see it.
        let weight = 1 + u32::try_from(count).unwrap();
        commit(&mut link, &[put("b3", weight)]);
        let dump = link.dump(PATIENCE).unwrap();
        let has_it = |record: &Event| {
            matches!(record, Event::Backend { name: text, weight: w, .. }
                if *text == name("b3") && *w == weight)
        };
        assert!(dump.records.iter().any(has_it), "after {count} messages");
    }
    let received = counters.counter(Counter::RxPackets);
    until("traffic goes on", || counters.counter(Counter::RxPackets) > received + 1000);
    assert_nothing_lost(running, &counters, "control plane killed after each message of a batch", whole + 1);
}

#[test]
fn a_control_plane_killed_after_any_message_of_a_dump_changes_nothing() {
    if !is_root("a_control_plane_killed_after_any_message_of_a_dump_changes_nothing") {
        return;
    }
    let Busy { place, running, mut link, counters, .. } = Busy::start(&Setup::default());
    let before = link.dump(PATIENCE).unwrap();
    // Pool, three backends, VIP, two services, end.
    assert_eq!(before.records.len(), 7);
    for count in 0..=before.records.len() + 1 {
        live_and_die(link, &place, &format!("dump {count}"));
        link = successor(&place);
        let after = link.dump(PATIENCE).unwrap();
        assert_eq!(after.generation, before.generation);
        assert_eq!(configured(&after), configured(&before), "after {count} messages");
    }
    commit(&mut link, &[put("b4", 1)]);
    assert_nothing_lost(
        running,
        &counters,
        "control plane killed after each message of a dump",
        before.records.len() + 2,
    );
}

// ---- a peer that does not read, and more than fits -------------------------------------------------------------

#[test]
fn a_control_plane_that_reads_no_events_holds_up_nobody_but_itself() {
    if !is_root("a_control_plane_that_reads_no_events_holds_up_nobody_but_itself") {
        return;
    }
    let mut busy = Busy::start(&Setup::default());
    let before = busy.dump();
    // Each asks for eight events: at the latest when both rings are full nothing more is taken.
    let most = EVENT_SLOTS / 8 + COMMAND_SLOTS + 2;
    let stuck = (0..=most).find_map(|_| busy.link.send_raw(&Change::Dump, Duration::from_millis(300)).err());
    assert!(matches!(stuck, Some(ControlLinkError::Deadline(_))), "{stuck:?}");
    busy.advance(10 * u64::from(FLOWS));
    // It attaches anew, and everything is as it was.
    busy.link.attach(PATIENCE).unwrap();
    let after = busy.dump();
    assert_eq!((after.generation, configured(&after)), (before.generation, configured(&before)));
    commit(&mut busy.link, &[put("b4", 1)]);
    assert_nothing_lost(busy.running, &busy.counters, "control plane reads no events, both rings full", 1);
}

#[test]
fn a_data_plane_that_reads_no_commands_costs_the_deadline_and_keeps_what_it_had() {
    if !is_root("a_data_plane_that_reads_no_commands_costs_the_deadline_and_keeps_what_it_had") {
        return;
    }
    let mut busy = Busy::start(&Setup::default());
    let before = busy.dump();
    busy.running.signal(Signal::STOP);
    let batch: Vec<Change> = (0..COMMAND_SLOTS * 3).map(|n| put(&format!("c{n}"), 1)).collect();
    let stuck = busy.link.apply(&batch, Duration::from_millis(100)).unwrap_err();
    assert!(matches!(stuck, ControlLinkError::Deadline(_)), "{stuck}");
    busy.running.signal(Signal::CONT);
    busy.link.attach(PATIENCE).unwrap();
    let after = busy.dump();
    assert_eq!(configured(&after), configured(&before), "nothing of the half batch");
    commit(&mut busy.link, &batch);
    assert_eq!(backends(&busy.dump()).len(), 3 + batch.len());
    assert_nothing_lost(busy.running, &busy.counters, "data plane reads no commands, ring full", 1);
}

#[test]
fn a_batch_larger_than_the_ring_is_applied_whole_or_refused_whole() {
    if !is_root("a_batch_larger_than_the_ring_is_applied_whole_or_refused_whole") {
        return;
    }
    let mut busy = Busy::start(&Setup::default());
    let before = busy.dump();
    // One more than a batch may hold, each of which could be applied.
    let pair = [put("extra", 1), remove("extra")];
    let beyond: Vec<Change> = pair.iter().copied().cycle().take(MAX_BATCH + 1).collect();
    let refused = busy.link.apply(&beyond, PATIENCE).unwrap();
    let too_large = Refusal::BatchTooLarge;
    assert!(matches!(refused, Answer::Refused { refusal, .. } if refusal == too_large), "{refused:?}");
    assert_eq!(configured(&busy.dump()), configured(&before));
    // Four rings full, the last of which cannot hold.
    let mut batch: Vec<Change> = (0..COMMAND_SLOTS * 4).map(|n| put(&format!("c{n}"), 1)).collect();
    batch.push(remove("nobody"));
    let refused = busy.link.apply(&batch, PATIENCE).unwrap();
    let place = u32::try_from(batch.len() - 1).unwrap();
    let unknown = Refusal::UnknownBackend;
    let expected = Answer::Refused { command: place, refusal: unknown, name: Some(name("nobody")) };
    assert_eq!(refused, expected);
    assert_eq!(configured(&busy.dump()), configured(&before));
    batch.pop();
    commit(&mut busy.link, &batch);
    assert_eq!(backends(&busy.dump()).len(), 3 + batch.len());
    assert_nothing_lost(busy.running, &busy.counters, "batch larger than the ring, two of three refused", 3);
}

/// As many as nobody has in one pool, each with a MAC address of its own.
fn thousand() -> Vec<Change> {
    let one = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Change::PutBackend {
            pool: name("web-servers"),
            name: name(&format!("m{number}")),
            address4: Some([10, 1, high, low].into()),
            address6: None,
            mac: Some([2, 0, 0, 1, high, low]),
            weight: 100,
            state: BackendState::Active,
            handles: Handles::default(),
        }
    };
    (0..1000).map(one).collect()
}

#[test]
fn a_pool_of_a_thousand_backends_takes_connections_and_keeps_them_when_it_is_removed() {
    if !is_root("a_pool_of_a_thousand_backends_takes_connections_and_keeps_them_when_it_is_removed") {
        return;
    }
    let setup = Setup { flows: 100_000, ..Setup::default() };
    let mut busy = Busy::start_with(&setup, &thousand());
    let ids = backends(&busy.dump());
    assert_eq!(ids.len(), 1003);
    let serving = |counters: &CounterReader| -> Vec<BackendId> {
        ids.values().copied().filter(|id| counters.backend(*id).packets > 0).collect()
    };
    let chosen = serving(&busy.counters);
    // 512 connections by hash over 1,003 backends meet 401 of them on average.
    assert!((330..470).contains(&chosen.len()), "{} backends serve", chosen.len());
    let inserted = busy.counters.counter(Counter::FlowInserted);
    let gone: Vec<Change> = (0..1000).map(|number| remove(&format!("m{number}"))).collect();
    commit(&mut busy.link, &gone);
    assert!(backends(&busy.dump()).keys().eq(["b1", "b2", "b3"]));
    let before: Vec<u64> = chosen.iter().map(|id| busy.counters.backend(*id).packets).collect();
    busy.advance(4 * u64::from(FLOWS));
    for (id, before) in chosen.iter().zip(before) {
        assert!(busy.counters.backend(*id).packets > before, "{id:?} lost its connections");
    }
    assert_eq!(serving(&busy.counters), chosen, "no connection moved");
    assert_eq!(busy.counters.counter(Counter::FlowInserted), inserted);
    assert_nothing_lost(busy.running, &busy.counters, "1,000 backends with connections removed at once", 1);
}
