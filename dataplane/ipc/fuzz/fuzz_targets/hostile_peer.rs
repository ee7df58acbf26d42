//! A peer that scribbles over the segment costs a counter and a closed link.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ipc::fuzzing::hostile_peer(data));
