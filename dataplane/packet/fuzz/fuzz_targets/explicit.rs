//! Any bytes as options that may state tokens: see `tests/support/check.rs` for what must hold.
#![no_main]

#[allow(dead_code, reason = "each target calls one of the checks")]
#[path = "../../tests/support/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::explicit(bytes));
