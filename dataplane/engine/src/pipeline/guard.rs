//! What a worker lets open: joins of one token, flows of one network, and how many of all of them.
//!
//! Who knows one valid token (its own connection's) can open joins by the million, and each that sends one forged ACK
//! has an entry of the last class, which gives way to nothing. No client has more than a handful of subflows, so
//! [`MOST_JOINS`] a tick, for each worker, is more than any honest connection needs and less than any table notices.
//!
//! A SYN beyond the bounds ([`crate::limits`]) goes to Maglev's backend and leaves no entry, or one that learns no key: its
//! connection works, its joins do not, unless the backend has an agent. Keys are bounded where the SYN comes: a key is
//! learned only on the entry of a SYN, once. A join counts as a flow where no token table knows its token, and is dropped
//! beyond the bounds: without an entry the packets after it would go astray.

use ipc::counter::Counter;
use packet::Flow;

use super::Context;
use crate::limits::{Admitted, Counts, Rate};
use crate::tick::Tick;

/// Joins of one token let in within a tick.
pub(super) const MOST_JOINS: u32 = 32;

/// One worker's counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    joins: Counts,
    flows: Counts,
    tokens: Counts,
    flow_rate: Rate,
    token_rate: Rate,
}

impl Guard {
    /// Counts a join of the token with this hash, unless there were enough within this tick.
    #[inline]
    pub(super) fn join(&mut self, hash: u64, now: Tick) -> bool {
        self.joins.admit(hash, MOST_JOINS, now)
    }

    /// Counts a SYN that opens a flow which is in no table; `network` is [`network`] of it.
    #[inline]
    pub(super) fn open(&mut self, network: u64, capable: bool, cx: &Context<'_>) -> Admitted {
        if cx.tables.lifetimes.limits.is_bounded() { self.weigh(network, capable, cx) } else { Admitted::Yes }
    }

    /// Counts a SYN that opens a flow over the entry it has: that takes no new place, and only its key counts.
    pub(super) fn open_again(&mut self, network: u64, capable: bool, cx: &Context<'_>) -> Admitted {
        let is_bounded = capable && cx.tables.lifetimes.limits.is_bounded();
        if is_bounded { self.weigh_key(network, cx) } else { Admitted::Yes }
    }

    #[inline(never)]
    fn weigh(&mut self, network: u64, capable: bool, cx: &Context<'_>) -> Admitted {
        let limits = &cx.tables.lifetimes.limits;
        // The share first, here and for keys: what a network sends beyond its own takes nothing from what all have.
        if !self.flows.admit(network, limits.flows_per_prefix, cx.now) {
            cx.counters.add(Counter::FlowOverShare, 1);
            return Admitted::No;
        }
        if !self.flow_rate.take(limits.flows_per_second, cx.millis) {
            cx.counters.add(Counter::FlowOverRate, 1);
            return Admitted::No;
        }
        if capable { self.weigh_key(network, cx) } else { Admitted::Yes }
    }

    fn weigh_key(&mut self, network: u64, cx: &Context<'_>) -> Admitted {
        let limits = &cx.tables.lifetimes.limits;
        if !self.tokens.admit(network, limits.tokens_per_prefix, cx.now) {
            cx.counters.add(Counter::TokenOverShare, 1);
            return Admitted::WithoutKey;
        }
        if !self.token_rate.take(limits.tokens_per_second, cx.millis) {
            cx.counters.add(Counter::TokenOverRate, 1);
            return Admitted::WithoutKey;
        }
        Admitted::Yes
    }
}

/// The secret hash of the network a flow comes from; 0 where nothing is bounded by it.
#[inline]
pub(super) fn network(flow: &Flow, cx: &Context<'_>) -> u64 {
    let limits = &cx.tables.lifetimes.limits;
    if limits.is_bounded() { cx.tables.network_hash(limits.network(flow)) } else { 0 }
}
