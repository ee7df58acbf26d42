//! Any bytes in a slot are a message or an error.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ipc::fuzzing::message(data));
