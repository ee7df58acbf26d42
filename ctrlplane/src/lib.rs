//! The slow process: `weft-ctrlplane`, which owns intent, and `weftctl`, the operator's tool.
//!
//! `weft-ctrlplane` reads weft.toml, adds the changes made at run time ([`overrides`]) and the MAC addresses
//! the kernel knows ([`neighbour`]), and tells the data plane the difference between that and what it has
//! ([`reconcile`]), over the segment ([`session`]), and what agents on backends report ([`agents`]). It may be killed at any instant: all it knows is in the file,
//! in the overrides, or in the data plane. It serves `weftctl` over a Unix socket ([`api`]),
//! and what is counted to Prometheus.
//!
//! Invariants: the packet path never waits for this process; nothing here writes a table; a change is either
//! valid as a whole or not made.

#![forbid(unsafe_code)]

pub mod agents;
pub mod api;
pub mod cli;
pub mod client;
pub mod commands;
pub mod control;
pub mod ctl;
pub mod deadline;
mod doctor;
pub mod endpoint;
mod metrics;
pub mod neighbour;
pub mod overrides;
pub mod print;
mod problem;
pub mod reconcile;
mod rules;
pub mod run;
pub mod sample;
pub mod session;
pub mod state;
mod table;
pub mod view;
mod wait;
