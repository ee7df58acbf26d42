//! The committed fuzz corpora, replayed: what a fuzz target once found interesting stays checked.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

#[path = "support/check.rs"]
mod check;

use std::fs;
use std::path::Path;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        check(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 10, "{target}: only {count} files");
}

#[test]
fn every_frame_of_the_corpus_passes_the_checks() {
    replay("frame", check::frame);
}

#[test]
fn every_option_list_of_the_corpus_passes_the_checks() {
    replay("tcp_options", check::tcp_options);
}

#[test]
fn every_handshake_with_tokens_of_the_corpus_passes_the_checks() {
    replay("explicit", check::explicit);
}
