//! Everything the two processes say to each other, and the primitives `engine` needs.
//!
//! Vocabulary ([`limits`], [`id`], [`reason`], [`counter`], [`message`]) has one definition here, said by both
//! processes. `engine` takes from this crate its words, the loom facade ([`sync`]), memory with prefetch
//! ([`lines`]), and the last step of its tables' hash ([`scramble`]).
//!
//! The rest is the shared segment. Start at [`link`], which has the rules; [`layout`] is the map of the
//! memory, [`ring`] carries records, [`data_link`] and [`control_link`] are the ends that the two processes
//! hold, [`counters`] is what may be read without asking, [`liveness`] tells who runs. [`mapping`] is the
//! memory of the tables.
//!
//! Invariants: unsafe code is in [`lines`] and [`scramble`] alone. Nothing read from shared memory is used before it is copied
//! and checked. Nothing here waits for the peer but calls that take a deadline.
#![deny(unsafe_code)]
#![cfg_attr(loom, expect(dead_code, reason = "the ends of the link are not there under loom"))]

pub mod counter;
pub mod counters;
mod field;
pub mod id;
pub mod layout;
pub mod limits;
pub mod lines;
pub mod link;
pub mod message;
pub mod name;
pub mod reason;
pub mod report;
pub mod ring;
pub mod scramble;
pub mod sync;

// What loom cannot model, and no model needs: files, locks, clocks.
#[cfg(not(loom))]
pub mod boot;
#[cfg(not(loom))]
pub mod control_link;
#[cfg(not(loom))]
pub mod data_link;
#[cfg(not(loom))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(not(loom))]
pub mod liveness;
#[cfg(not(loom))]
pub mod mapping;
#[cfg(not(loom))]
pub mod segment;
