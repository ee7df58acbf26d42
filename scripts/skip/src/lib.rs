//! How a test says that it cannot run where it is: one way for all, so that `scripts/test` counts every one.
//!
//! Invariant: with `WEFT_REQUIRE_ALL=1`, as the checks of a change run, nothing is skipped: what cannot run fails.
#![forbid(unsafe_code)]

use std::io::Write as _;

/// Says that a test is skipped, and why, in a line `skipped: TEST: WHY` that `scripts/test` counts.
///
/// # Panics
/// Where `WEFT_REQUIRE_ALL=1` says that everything has to run.
pub fn skip(test: &str, why: &str) {
    let required = std::env::var_os("WEFT_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(!required, "{test} cannot run here: {why}");
    // Not `eprintln!`, which the test harness keeps to itself when a test passes. What cannot be said is not said.
    let line = format!("skipped: {test}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
