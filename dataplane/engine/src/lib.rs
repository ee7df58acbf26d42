//! The balancer: bytes, a snapshot, two tables and a tick in; verdicts and rewritten frames out.
//!
//! `engine` never sees an mbuf, a shared segment, a socket or a clock, so the same code judges packets on ports,
//! in `weft-dataplane replay` and in tests. Start at [`pipeline`]; what it looks packets up in are the immutable
//! [`snapshot`], built by the manager from the [`model`], and the two lock-free [`tables`].
//!
//! **Invariant:** nothing in [`pipeline`], [`flow_table`], [`token_table`], [`maglev`] (but its building) and
//! [`sweep`] allocates, locks, logs, calls the system or panics.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod endpoint;
pub mod flow_entry;
mod flow_rules;
pub mod flow_table;
pub mod frames;
pub mod hash;
pub mod lifetimes;
pub mod limits;
pub mod maglev;
pub mod model;
pub mod pipeline;
mod place;
mod pool;
pub mod reported;
mod route;
mod service;
pub mod snapshot;
pub mod sweep;
pub mod tables;
pub mod tick;
pub mod token_entry;
mod token_map;
pub mod token_table;
pub mod verdict;
mod way;

pub use packet::Token;
