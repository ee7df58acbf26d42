//! Jumbo frames: a frame whose first segment holds its headers gets the verdict of the same frame in one piece, and
//! what leaves is the same, byte by byte.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod support;

use engine::frames::Frames;
use engine::verdict::{Action, Verdict};
use ipc::counter::Counter;
use ipc::reason::Reason;
use packet::Family;
use support::frames::SegmentedFrames;
use support::{Counts, FAMILIES, Random, World, flow, mixed, of};

/// Bytes of a first segment: all headers, of the longest kind there is in the traffic, and hardly more.
const FIRST: usize = 200;

/// Judges a burst in one piece and in segments; gives both verdicts and both outcomes.
fn both(
    whole: &mut World,
    cut: &mut World,
    burst: &[Vec<u8>],
    first: usize,
) -> [(Vec<Verdict>, Vec<Vec<u8>>); 2] {
    let one_piece = usize::MAX;
    [(whole, one_piece), (cut, first)].map(|(world, first)| {
        let mut frames = SegmentedFrames::new(burst, first);
        let verdicts = world.judge(&mut frames);
        (verdicts, (0..burst.len()).map(|index| frames.whole(index)).collect())
    })
}

#[test]
fn a_frame_in_segments_gets_the_verdict_and_the_bytes_of_the_same_frame_in_one_piece() {
    let (mut whole, mut cut) = (mixed::world(), mixed::world());
    let mut random = Random(0x5e6);
    let mut forwarded = 0;
    for _ in 0..600 {
        let burst: Vec<_> = (0..32).map(|_| mixed::frame(&mut random)).collect();
        let [(verdicts, left), (cut_verdicts, cut_left)] = both(&mut whole, &mut cut, &burst, FIRST);
        assert_eq!(verdicts, cut_verdicts);
        for ((verdict, left), (cut_left, frame)) in
            verdicts.iter().zip(left).zip(cut_left.into_iter().zip(&burst))
        {
            // What is told about a packet that is too big quotes what is at hand; what lies behind a packet in a tunnel
            // (Ethernet padding, or anything where the packet's length is damaged) stays where it is in another segment.
            let same = cut_left.strip_prefix(&left[..]).is_some_and(|behind| frame.ends_with(behind));
            assert!(same || verdict.reason == Reason::TooBigTold, "{verdict:?} of {frame:02x?}");
            forwarded += usize::from(verdict.action == Action::Forward && frame.len() > FIRST);
        }
        whole.wait(1);
        cut.wait(1);
    }
    assert!(forwarded > 500, "{forwarded} frames of several segments were forwarded");
    assert_eq!(Counts::of(&whole.counters.reader()), Counts::of(&cut.counters.reader()));
}

#[test]
fn a_jumbo_frame_goes_through_every_way_of_forwarding() {
    for family in FAMILIES {
        let (mut whole, mut cut) = (mixed::world(), mixed::world());
        for world in [&mut whole, &mut cut] {
            world.site.ports[0].mtu = Some(9000);
            world.publish();
        }
        // l2dsr, ipip, gue, and gue in the other family.
        for port in [8000, 8004, 8006, 8007] {
            let jumbo = of(&flow(family, 1, 1000, 9, port)).data(1, 1).payload(&vec![0x77; 8800]).qinq(7, 8);
            let frame = jumbo.build();
            let burst = std::slice::from_ref(&frame);
            let [(verdicts, left), (cut_verdicts, cut_left)] = both(&mut whole, &mut cut, burst, 2048);
            assert_eq!(verdicts[0].action, Action::Forward);
            assert_eq!((&verdicts, &left), (&cut_verdicts, &cut_left), "{family:?}, port {port}");
            let inner = &frame[22..];
            assert!(left[0].ends_with(inner), "the packet is in what leaves");
        }
    }
}

#[test]
fn a_jumbo_frame_that_does_not_fit_is_told_and_its_segments_go() {
    for family in FAMILIES {
        let mut world = mixed::world();
        let frame = of(&flow(family, 1, 1000, 9, 8004)).data(1, 1).payload(&vec![0x77; 8000]).build();
        let mut frames = SegmentedFrames::new(&[frame], 2048);
        let verdicts = world.judge(&mut frames);
        assert_eq!((verdicts[0].action, verdicts[0].reason), (Action::Local, Reason::TooBigTold));
        let expected = if family == Family::V4 { 14 + 576 } else { 14 + 1280 };
        assert_eq!((frames.wire_len(0), frames.bytes(0).len()), (expected, expected));
    }
}

#[test]
fn headers_that_are_not_in_the_first_segment_are_a_drop_by_name() {
    let mut world = mixed::world();
    for family in FAMILIES {
        let frame = of(&flow(family, 1, 1000, 9, 8000)).syn(1).mp_capable_syn_v1().build();
        for first in 0..frame.len() {
            let mut frames = SegmentedFrames::new(std::slice::from_ref(&frame), first);
            let verdict = world.judge(&mut frames)[0];
            let expected = if first < 6 { Reason::NotOurMac } else { Reason::Truncated };
            assert_eq!((verdict.action, verdict.reason), (Action::Drop, expected), "{first} bytes at hand");
        }
    }
    assert_eq!(world.counters.reader().counter(Counter::FlowInserted), 0);
}

#[test]
fn all_fragments_of_a_datagram_go_to_one_backend() {
    let mut world = mixed::world();
    for family in FAMILIES {
        for source in 0..50 {
            let datagram = packet::Flow { protocol: 17, ..flow(family, 1, 1000 + source, 9, 53) };
            let frames = of(&datagram).payload(&[0x44; 5000]).build_fragments(1400);
            assert!(frames.len() > 3);
            let outcomes = world.burst(frames);
            let home = outcomes[0].verdict.backend;
            assert!(home.is_some());
            for outcome in outcomes {
                assert_eq!((outcome.verdict.reason, outcome.verdict.backend), (Reason::Fragment, home));
            }
        }
    }
}
