//! The two tables all workers share, and the key and idle times they share with them.

use ipc::id::PoolId;
use ipc::lines::Lines;
use packet::{Flow, Token, Words};

use ipc::sync::{AtomicU64, Ordering};

use crate::flow_table::FlowTable;
use crate::hash::HashKey;
use crate::lifetimes::Lifetimes;
use crate::tick::Absence;
use crate::token_table::TokenTable;

/// Both tables of a data plane. Shared by reference between workers; everything in it is lock-free.
#[derive(Debug)]
pub struct Tables {
    /// 5-tuple to backend.
    pub flows: FlowTable,
    /// Token to backend, within a pool.
    pub tokens: TokenTable,
    /// How long entries live.
    pub lifetimes: Lifetimes,
    key: HashKey,
    /// The workers, as bits, that have not visited all their flows yet since the tables were taken over.
    unvisited: AtomicU64,
}

/// What was found in tables that were taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Flow entries that stay.
    pub flows: u64,
    /// Claims to tokens that stay.
    pub tokens: u64,
    /// What nobody finished: slots left busy, and second entries of one flow. Now empty.
    pub busy_cleared: u64,
    /// Entries of both tables whose time had passed, now gone.
    pub expired: u64,
}

const _: () = assert!(ipc::limits::MAX_WORKERS <= 64, "a worker is a bit of `Tables::unvisited`");

impl Tables {
    /// Empty tables over the given lines, hashed under a secret seed.
    pub fn new(flows: Lines, tokens: Lines, secret: &[u8; 32]) -> Self {
        Self {
            flows: FlowTable::new(flows),
            tokens: TokenTable::new(tokens),
            lifetimes: Lifetimes::default(),
            key: HashKey::from_seed(secret),
            unvisited: AtomicU64::new(0),
        }
    }

    /// The tables that another process left in these lines, whatever it was doing when it died; lines that are all
    /// zero are empty tables. Nobody else may use the lines yet.
    ///
    /// `secret` is the seed under which they were filled. `last_alive_s` and `now_s` are in seconds of the clock whose
    /// ticks the entries carry: when that process last gave a sign of life, and now. What it wrote after that counts
    /// as written then, or up to 32 ticks later.
    pub fn attach(
        flows: Lines,
        tokens: Lines,
        secret: &[u8; 32],
        lifetimes: Lifetimes,
        last_alive_s: u64,
        now_s: u64,
    ) -> (Self, Attached) {
        let absence = Absence::new(last_alive_s, now_s);
        let (flows, of_flows) = FlowTable::attach(flows, &absence, &lifetimes.idle);
        let (tokens, of_tokens) = TokenTable::attach(tokens, &absence, lifetimes.idle.longest());
        let attached = Attached {
            flows: of_flows.kept,
            tokens: of_tokens.kept,
            busy_cleared: of_flows.busy + of_flows.doubled,
            expired: of_flows.expired + of_tokens.expired,
        };
        let unvisited = AtomicU64::new(if attached.tokens > 0 { u64::MAX } else { 0 });
        (Self { flows, tokens, lifetimes, key: HashKey::from_seed(secret), unvisited }, attached)
    }

    /// Tables on the heap for this many entries: for `replay`, tests and benches.
    pub fn on_heap(flows: usize, tokens: usize, secret: &[u8; 32]) -> Self {
        let flows = Lines::heap(FlowTable::lines_for(flows));
        let tokens = Lines::heap(TokenTable::lines_for(tokens));
        Self::new(flows, tokens, secret)
    }

    /// Whether one of these many workers has not visited all its flows yet since the tables were taken over: until
    /// then a token may look old only because nobody was there to touch it.
    #[inline]
    pub(crate) fn is_unvisited(&self, workers: usize) -> bool {
        let unvisited = self.unvisited.load(Ordering::Acquire);
        unvisited != 0 && (0..workers).any(|worker| unvisited >> (worker % 64) & 1 == 1)
    }

    /// Notes that a worker has visited all its flows, and touched their tokens.
    pub(crate) fn visited(&self, worker: usize) {
        // Release: who finds the bit gone sees the touches that came before.
        self.unvisited.fetch_and(!(1 << (worker % 64)), Ordering::Release);
    }

    /// The secret hash of a 5-tuple: its place and fingerprint in the flow table.
    #[inline]
    pub fn flow_hash(&self, flow: &Flow) -> u64 {
        self.entry_hash(flow.short_words())
    }

    /// The same, of a 5-tuple in words.
    #[inline]
    pub fn entry_hash(&self, words: Words) -> u64 {
        self.key.entry(words)
    }

    /// The secret hash of a token within a pool: its place in the token table.
    #[inline]
    pub fn token_hash(&self, token: Token, pool: PoolId) -> u64 {
        self.key.token(token, pool)
    }

    /// The secret hash of a source network ([`crate::limits::Limits::network`]).
    #[inline]
    pub(crate) fn network_hash(&self, network: u128) -> u64 {
        self.key.network(network)
    }
}
