//! criterion benches, weft-bench, recorded runs.
#![forbid(unsafe_code)]

fn main() {}
