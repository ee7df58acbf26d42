//! What measures Weft: makes traffic, runs the engine on it, checks what came out, draws what was measured.
//!
//! One module for each command of `weft-bench`; start at [`cli`]. What they measure has one form, [`report`]. The
//! criterion benches and the tests use the same modules.
#![deny(unsafe_code)]

pub mod alloc;
pub mod arena;
pub mod budget;
pub mod cli;
pub mod compare;
pub mod engine_bench;
pub mod floor;
pub mod generate;
pub mod goals;
pub mod histogram;
pub mod machine;
pub mod measure;
pub mod merge;
pub mod number;
pub mod page;
pub mod pages;
pub mod peer;
pub mod plot;
pub mod report;
pub mod send;
pub mod swap;
pub mod traffic;
pub mod verify;
pub mod world;
