//! Verdicts, bytes and counters do not depend on how packets are cut into bursts.
//!
//! One trace of packets of every kind, broken ones among them, goes through four data planes, in bursts of 1, 2, 32
//! and 64. Whatever the pipeline looked up ahead for a whole burst and did not look at again would show here.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod support;

use std::cell::Cell;

use ipc::reason::Reason;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use support::{Counts, Outcome, Random, mixed};

/// Packets between two moves of the clock: every burst size divides it.
const SEGMENT: usize = 128;

/// Judges a trace in bursts of one size.
fn judged(trace: &[Vec<u8>], waits: &[u64], burst: usize) -> (Vec<Outcome>, Counts) {
    let mut world = mixed::world();
    let mut outcomes = Vec::new();
    for (segment, wait) in trace.chunks(SEGMENT).zip(waits) {
        world.wait(*wait);
        for frames in segment.chunks(burst) {
            outcomes.extend(world.burst(frames.to_vec()));
        }
    }
    (outcomes, Counts::of(&world.counters.reader()))
}

#[test]
fn verdicts_bytes_and_counters_are_the_same_for_bursts_of_1_2_32_and_64() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[0xb5; 32]);
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let waits = proptest::collection::vec(0..200_u64, 8);
    let met = Cell::new([0_u64; Reason::COUNT]);
    let learned = Cell::new(0);
    runner
        .run(&(any::<u64>(), waits), |(seed, waits)| {
            let mut random = Random(seed);
            let trace: Vec<_> = (0..SEGMENT * waits.len()).map(|_| mixed::frame(&mut random)).collect();
            let (one, counted) = judged(&trace, &waits, 1);
            for burst in [2, 32, 64] {
                let (many, counted_many) = judged(&trace, &waits, burst);
                for (index, (left, right)) in one.iter().zip(&many).enumerate() {
                    prop_assert_eq!(left, right, "packet {} in bursts of {}", index, burst);
                }
                prop_assert_eq!(&counted, &counted_many, "counters in bursts of {}", burst);
            }
            let mut all = met.get();
            for outcome in &one {
                all[outcome.verdict.reason.index()] += 1;
            }
            met.set(all);
            learned.set(learned.get() + one.iter().filter(|outcome| outcome.verdict.learned).count());
            Ok(())
        })
        .unwrap();
    // What never occurs in the traces is not tested by them.
    let never: Vec<_> = Reason::ALL.iter().filter(|reason| met.get()[reason.index()] == 0).collect();
    let cannot = [
        Reason::NoConfig,
        Reason::NoNeighbour,
        Reason::NoTunnelAddress,
        Reason::NoHeadroom,
        Reason::JoinRate,
        // The endpoint's VIP answers instead.
        Reason::WrongEndpoint,
    ];
    assert!(never.iter().all(|reason| cannot.contains(reason)), "never met: {never:?}");
    assert!(learned.get() > 100, "{} tokens learned", learned.get());
}

#[test]
fn a_syn_its_key_and_a_join_may_share_a_burst() {
    use packet::{Family, Key, Token, Version};
    use support::{CLIENT_KEY, flow, of};
    let key = Key([5; 8]);
    for family in [Family::V4, Family::V6] {
        let mut world = mixed::world();
        let (first, second) = (flow(family, 1, 1000, 9, 8000), flow(family, 2, 2000, 9, 443));
        let outcomes = world.burst(vec![
            of(&first).syn(10).mp_capable_syn_v1().build(),
            of(&first).data(11, 1).mp_capable_ack(Version::V1, CLIENT_KEY, key).build(),
            of(&second).syn(20).mp_join_syn(Token::from_key(Version::V1, &key), 1, 1).build(),
            of(&second).data(21, 1).mp_join_ack([1; 20]).build(),
        ]);
        let reasons: Vec<_> = outcomes.iter().map(|outcome| outcome.verdict.reason).collect();
        assert_eq!(reasons, [Reason::Hash, Reason::Flow, Reason::Token, Reason::Flow]);
        let home = outcomes[0].verdict.backend;
        assert!(home.is_some() && outcomes.iter().all(|outcome| outcome.verdict.backend == home));
    }
}

#[test]
fn joins_past_their_rate_are_the_same_ones_in_bursts_of_any_size() {
    use packet::{Family, Key, Token, Version};
    use support::{CLIENT_KEY, flow, of};
    let key = Key([5; 8]);
    for burst in [1, 2, 32, 64] {
        let mut world = mixed::world();
        let first = flow(Family::V4, 1, 1000, 9, 8000);
        world.send(of(&first).syn(10).mp_capable_syn_v1());
        world.send(of(&first).data(11, 1).mp_capable_ack(Version::V1, CLIENT_KEY, key));
        let join = |n: u16| {
            let flow = flow(Family::V4, 2, 2000 + n, 9, 443);
            of(&flow).syn(20).mp_join_syn(Token::from_key(Version::V1, &key), 1, 1).build()
        };
        let frames: Vec<_> = (0..64).map(join).collect();
        let outcomes = frames.chunks(burst).flat_map(|frames| world.burst(frames.to_vec()));
        let refused: Vec<_> = outcomes.map(|outcome| outcome.verdict.reason == Reason::JoinRate).collect();
        assert_eq!(refused, (0..64).map(|n| n >= 32).collect::<Vec<_>>(), "bursts of {burst}");
    }
}
