//! What measures Weft: makes traffic, runs the engine on it, checks what came out, draws what was measured.
//!
//! One module for each command of `weft-bench`; start at [`cli`]. What they measure has one form, [`report`]. The
//! criterion benches and the tests use the same modules.
#![forbid(unsafe_code)]

pub mod cli;
pub mod histogram;
pub mod number;
pub mod pages;
pub mod plot;
pub mod report;
pub mod send;
