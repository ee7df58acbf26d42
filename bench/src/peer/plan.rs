//! What a client is to do, and what became of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use super::connection::Signal;

/// What a client does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom it connects to.
    pub service: SocketAddr,
    /// Where it connects from, and joins from: the first, then one for each join.
    pub addresses: Vec<IpAddr>,
    /// How many connections.
    pub connections: u32,
    /// How many of them at once.
    pub at_once: u32,
    /// Joins of each connection.
    pub joins: u32,
    /// Bytes sent over each subflow.
    pub bytes: u32,
    /// Whether the server sends back what it gets.
    pub echo: bool,
    /// The version asked for.
    pub version: u8,
    /// How ends are to be named; by tokens only in version 1.
    pub signal: Signal,
    /// Whether checksums are asked for.
    pub checksums: bool,
    /// Whether connections end by a FASTCLOSE.
    pub fastclose: bool,
    /// How long a connection says nothing between its first data and its joins.
    pub hold: Duration,
}

/// What became of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Connections asked for.
    pub asked: u64,
    /// Connections that are MPTCP.
    pub mptcp: u64,
    /// Connections whose data all arrived, and all came back where it should.
    pub whole: u64,
    /// Joins asked for.
    pub joins: u64,
    /// Joins that succeeded: the server took our proof, and we its.
    pub joined: u64,
    /// Of these, subflows that did not end as they should.
    pub broken: u64,
    /// Joins that were answered with RST.
    pub refused: u64,
    /// Joins that nobody answered.
    pub lost: u64,
    /// Joins that the run ended too early to know of.
    pub pending: u64,
    /// Joins whose answer had a wrong HMAC.
    pub wrong_hmac: u64,
    /// Joins answered without MPTCP.
    pub no_mptcp: u64,
}
