//! Headers, TCP and MPTCP options, checksums, tokens. Bytes in, facts out.
//!
//! Everything Weft knows about a packet is decided here, and nowhere else: [`parse`] walks the headers of a
//! frame once, [`options`] walks the TCP options once (only where they matter), [`Token::from_key`] turns a
//! key into the token a later MP_JOIN will carry, and [`icmp::quoted`] finds the flow that an ICMP error is
//! about. The rest of the crate writes headers: outer ones of a tunnel ([`tunnel`]) and the few frames Weft sends
//! in its own name ([`answer`]).
//!
//! **Invariants.** Every function is total: any bytes give an answer, no input makes one panic, and none
//! allocates (but the `build` feature, made for tests and generators). Offsets in a [`Parsed`] point into the
//! frame it came from and are ordered: `l3 <= l4 <= payload <= end`. What a packet means is taken from
//! RFC 8684 and RFC 6824 and, where both leave room, from what Linux does, because the backends are Linux.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

#[cfg(any(test, feature = "build"))]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod answer;
pub mod arp;
pub mod brief;
#[cfg(any(test, feature = "build"))]
pub mod build;
pub mod checksum;
pub mod ethernet;
mod explicit;
mod flow;
pub mod icmp;
pub mod icmp6;
pub mod ipv4;
pub mod ipv6;
pub mod mptcp;
mod opening;
mod parse;
pub mod tcp;
mod tcp_option;
mod timestamps;
mod token;
pub mod tunnel;
pub mod udp;

pub use explicit::{Drafts, Explicit, explicit};
pub use flow::{Address, Family, Flow, Words};
pub use mptcp::{
    AddAddr, Capable, CapableFlags, DataSequence, Dss, Join, Mapping, MpPrio, RemoveAddr, ResetReason, TcpRst,
};
pub use opening::{Opening, opening, usual_key, usual_opening};
pub use parse::{Kind, ParseError, Parsed, parse, walk};
pub use tcp::{Flags, Tcp};
pub use tcp_option::{Malformed, Options, options};
pub use timestamps::{Timestamps, timestamps};
pub use token::{Key, Token, Version, initial_data_sequence};
