//! The lab: a client with two paths, a bridge, a balancer and its backends, each in a network namespace of its
//! own on one Linux machine, with kernel MPTCP sockets at both ends.
//!
//! It exists because only the kernel's own counters prove that a subflow reached the backend that holds its
//! connection (RFC 8684 section 3.2). Nothing here stands in for a real part: the namespaces run the shipped
//! `weft-dataplane`, `weft-ctrlplane` and `weftctl`, and the capture of the joins is read by the shipped engine.
//!
//! Invariants:
//! - Every namespace, process and file of a run carries the run's name, so two runs never meet ([`session`]).
//! - Only processes that a run started are ended, by their pid ([`process`]).
//! - Whatever way a run ends, the next start removes what it left ([`session::sweep`]).
#![forbid(unsafe_code)]

pub mod agents;
pub mod agents_demo;
pub mod balancer;
pub mod bird;
pub mod counters;
pub mod demo;
pub mod document;
pub mod ecmp;
pub mod endpoint_demo;
pub mod endpoints;
pub mod error;
pub mod faults;
pub mod faults_demo;
pub mod interrupt;
pub mod knock;
pub mod namespace;
pub mod process;
pub mod replay;
pub mod report;
pub mod router;
pub mod session;
pub mod simulator;
pub mod simulator_demo;
pub mod stand;
pub mod topology;
pub mod traffic;
pub mod vm;
pub mod vm_image;

pub use error::{Error, Result};
