//! The agent on a backend: what the kernel knows of MPTCP, told to Weft.
//!
//! A balancer that sees the client's packets only must guess which tokens are true and how long they live. The backend's
//! kernel knows. `weft-agent` listens to the kernel's path-manager events ([`kernel::events`]), reads what was there before
//! it ([`kernel::dump`]), and says both to one or several control planes ([`session`]) in lines of JSON ([`wire`]), over
//! mutual TLS ([`tls`]). The control plane's end of it uses the same words and the same TLS.
//!
//! Invariants: the agent changes nothing in the kernel; its memory is bounded whatever happens (a listener that falls
//! behind, here or in the kernel, gets a new dump in place of what it missed); nothing it sends names a key.
#![forbid(unsafe_code)]

pub mod cli;
pub mod kernel;
pub mod print;
pub mod session;
pub mod silence;
pub mod tls;
pub mod wire;
