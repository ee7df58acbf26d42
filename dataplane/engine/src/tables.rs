//! The two tables all workers share, and the key and idle times they share with them.

use ipc::id::PoolId;
use ipc::lines::Lines;
use packet::{Flow, Token};

use crate::flow_entry::IdleTimes;
use crate::flow_table::FlowTable;
use crate::hash::HashKey;
use crate::token_table::TokenTable;

/// Both tables of a data plane. Shared by reference between workers; everything in it is lock-free.
#[derive(Debug)]
pub struct Tables {
    /// 5-tuple to backend.
    pub flows: FlowTable,
    /// Token to backend, within a pool.
    pub tokens: TokenTable,
    /// How long an entry may be idle, by state.
    pub idle: IdleTimes,
    key: HashKey,
}

impl Tables {
    /// Empty tables over the given lines, hashed under a secret seed.
    pub fn new(flows: Lines, tokens: Lines, secret: &[u8; 32]) -> Self {
        Self {
            flows: FlowTable::new(flows),
            tokens: TokenTable::new(tokens),
            idle: IdleTimes::default(),
            key: HashKey::from_seed(secret),
        }
    }

    /// Tables on the heap for this many entries: for `replay`, tests and benches.
    pub fn on_heap(flows: usize, tokens: usize, secret: &[u8; 32]) -> Self {
        let flows = Lines::heap(FlowTable::lines_for(flows));
        let tokens = Lines::heap(TokenTable::lines_for(tokens));
        Self::new(flows, tokens, secret)
    }

    /// The secret hash of a 5-tuple: its place and fingerprint in the flow table.
    #[inline]
    pub fn flow_hash(&self, flow: &Flow) -> u64 {
        self.key.flow(flow)
    }

    /// The secret hash of a token within a pool: its place in the token table.
    #[inline]
    pub fn token_hash(&self, token: Token, pool: PoolId) -> u64 {
        self.key.token(token, pool)
    }
}
