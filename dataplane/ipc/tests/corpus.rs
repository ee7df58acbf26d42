//! The fuzz targets' corpora, replayed, and the same checks on generated input.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use std::path::Path;

fn replay(target: &str, check: fn(&[u8])) -> usize {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        check(&std::fs::read(&path).unwrap());
        files += 1;
    }
    files
}

#[test]
fn the_message_corpus_holds() {
    assert!(replay("message", ipc::fuzzing::message) >= 5);
}

#[test]
fn the_hostile_peer_corpus_holds() {
    assert!(replay("hostile_peer", ipc::fuzzing::hostile_peer) >= 8);
}

/// Steps that get somewhere: mostly honest ones, small values, and the targets' words.
fn step() -> impl Strategy<Value = [u8; ipc::fuzzing::STEP]> {
    let value =
        prop_oneof![0..8_u64, Just(u64::MAX), Just(u64::MAX - 1), 250..260_u64, 1020..1030_u64, any::<u64>()];
    let what = prop_oneof![3 => Just(2_u8), 1 => Just(3), 4 => Just(4), 2 => Just(5), 2 => 0..8_u8];
    (what, any::<u8>(), any::<u32>(), value).prop_map(|(what, small, index, value)| {
        let mut step = [0; ipc::fuzzing::STEP];
        step[0] = what;
        step[1] = small;
        step[4..8].copy_from_slice(&index.to_le_bytes());
        step[8..].copy_from_slice(&value.to_le_bytes());
        step
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn any_program_of_a_hostile_peer_is_survived(steps in prop::collection::vec(step(), 0..300)) {
        ipc::fuzzing::hostile_peer(&steps.concat());
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(number in 0..20_u8, rest in prop::collection::vec(any::<u8>(), 0..300)) {
        ipc::fuzzing::message(&[&[number][..], &rest].concat());
    }
}
