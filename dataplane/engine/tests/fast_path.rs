//! The fast path judges, writes and counts as the general way does.
//!
//! The oracle is the general way itself, reached by a trick: a VLAN tag keeps a frame off the fast path and changes
//! nothing else. So two data planes get the same traffic, one with tags and one without, and must agree on everything
//! but the tag.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod support;

use engine::frames::Frames;
use engine::verdict::{Action, Verdict};
use ipc::counter::Counter;
use ipc::limits::BURST;
use ipc::reason::Reason;
use packet::Family;
use support::frames::FixedFrames;
use support::{Counts, Random, World, mixed};

/// The tag's bytes.
const TAG: [u8; 4] = [0x81, 0, 0, 7];

/// The frame with a tag, if it is IP without one.
fn tagged(frame: &[u8]) -> Vec<u8> {
    let mut tagged = frame.to_vec();
    if is_ip(frame, 12) {
        tagged.splice(12..12, TAG);
    }
    tagged
}

/// The frame without the tag that was put in.
fn untagged(frame: &[u8]) -> Vec<u8> {
    let mut untagged = frame.to_vec();
    if frame.get(12..16) == Some(&TAG) && is_ip(frame, 16) {
        untagged.drain(12..16);
    }
    untagged
}

fn is_ip(frame: &[u8], at: usize) -> bool {
    matches!(frame.get(at..at + 2), Some([0x08, 0] | [0x86, 0xdd]))
}

/// Judges a burst in a data plane; verdicts, frames afterwards, how many went the fast way.
fn judge(world: &mut World, burst: &[Vec<u8>]) -> (Vec<Verdict>, Vec<Vec<u8>>, u32) {
    let mut frames = FixedFrames::new(128);
    burst.iter().for_each(|frame| frames.push(frame));
    let mut pipeline = core::mem::take(&mut world.pipeline);
    let (verdicts, fast) = {
        let cx = world.context();
        let judged = pipeline.process(&mut frames, &cx);
        (judged.verdicts().collect(), judged.fast().count_ones())
    };
    world.pipeline = pipeline;
    let bytes = (0..burst.len()).map(|index| frames.bytes(index).to_vec()).collect();
    (verdicts, bytes, fast)
}

/// Counters and reasons, and by how much they moved.
type Moved = (Vec<(Counter, u64)>, Vec<(Reason, u64)>);

/// Counters and reasons that moved; bytes differ by the tags.
fn counted(world: &World, before: &Counts) -> Moved {
    let reader = world.counters.reader();
    let now = Counts::of(&reader);
    let mut counters = now.moved_since(before);
    counters.retain(|(counter, _)| *counter != Counter::RxBytes);
    (counters, now.reasons_since(before))
}

/// Sends both data planes the same bursts and compares all that can be seen; how many packets went the fast way.
fn compare(seed: u64, sizes: impl Fn(&mut Random) -> usize, rounds: usize) -> u64 {
    let (mut plain, mut slow) = (mixed::world(), mixed::world());
    let mut random = Random(seed);
    let mut fast = 0;
    let mut recent: Vec<Vec<u8>> = Vec::new();
    for round in 0..rounds {
        let count = sizes(&mut random);
        let burst: Vec<Vec<u8>> = (0..count)
            .map(|_| {
                // Flows need more than one packet to settle.
                let again = !recent.is_empty() && random.percent(60);
                let frame = if again {
                    recent[random.below(recent.len())].clone()
                } else {
                    mixed::frame(&mut random)
                };
                recent.push(frame.clone());
                if recent.len() > 400 {
                    recent.remove(0);
                }
                frame
            })
            .collect();
        let with_tags: Vec<Vec<u8>> = burst.iter().map(|frame| tagged(frame)).collect();
        let before = [&plain, &slow].map(|world| Counts::of(&world.counters.reader()));
        let (verdicts, bytes, went_fast) = judge(&mut plain, &burst);
        let (expected, tagged_bytes, none) = judge(&mut slow, &with_tags);
        assert_eq!(none, 0, "a tag keeps a frame off the fast path");
        fast += u64::from(went_fast);
        for (index, (verdict, wanted)) in verdicts.iter().zip(&expected).enumerate() {
            // Frames that were cut or changed can mean something else behind a tag.
            if is_ip(&burst[index], 12) {
                assert_eq!(verdict, wanted, "round {round}, packet {index}: {:02x?}", burst[index]);
                let wanted = untagged(&tagged_bytes[index]);
                // An answer of Weft's is padded to 60 bytes, with or without a tag.
                let len = if verdict.action == Action::Local { wanted.len() } else { bytes[index].len() };
                assert_eq!(bytes[index][..len], wanted, "round {round}, packet {index}");
            }
        }
        assert_eq!(counted(&plain, &before[0]), counted(&slow, &before[1]), "round {round}");
        if random.percent(3) {
            let seconds = 1 + random.below(40) as u64;
            plain.wait(seconds);
            slow.wait(seconds);
        }
    }
    assert_eq!(backends(&plain), backends(&slow), "packets by backend");
    fast
}

/// Packets by backend and by VIP.
fn backends(world: &World) -> Vec<u64> {
    let reader = world.counters.reader();
    let of_backends = (0..64).map(|id| reader.backend(ipc::id::BackendId(id)).packets);
    of_backends.chain((0..16).map(|id| reader.vip(ipc::id::VipId(id)).packets)).collect()
}

#[test]
fn the_fast_path_and_the_general_way_agree_on_traffic_of_every_kind() {
    let fast: u64 = (1..=8).map(|seed| compare(seed, |random| 1 + random.below(BURST), 600)).sum();
    assert!(fast > 5_000, "{fast} packets went the fast way: too few to compare");
}

#[test]
fn they_agree_packet_by_packet() {
    let fast: u64 = (11..=13).map(|seed| compare(seed, |_| 1, 20_000)).sum();
    assert!(fast > 500, "{fast} packets went the fast way: too few to compare");
}

#[test]
fn a_settled_flow_goes_the_fast_way_over_every_forwarding_mode_that_has_routes() {
    let mut world = mixed::world();
    for (port, family) in [(8000, Family::V4), (8000, Family::V6), (8004, Family::V4), (8004, Family::V6)] {
        let flow = support::flow(family, 3, 4000 + port, 9, port);
        let label = |packet: packet::build::PacketBuilder| packet.flow_label(0x12345).build();
        let opening = [support::of(&flow).syn(100), support::of(&flow).data(101, 1)];
        for packet in opening {
            judge(&mut world, &[label(packet)]);
        }
        let data = label(support::of(&flow).data(101, 1).payload(b"data"));
        let (verdicts, _, fast) = judge(&mut world, &vec![data; 5]);
        assert_eq!(fast, 5, "{family:?} to port {port}");
        assert!(verdicts.iter().all(|verdict| verdict.reason == Reason::Flow));
    }
}
