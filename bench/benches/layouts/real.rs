//! The tables that are in use.

use engine::flow_entry::{FlowEntry, FlowState};
use engine::flow_table::{FlowTable, Inserted};
use engine::lifetimes::Lifetimes;
use engine::tick::Tick;
use engine::token_table::{Learn, TokenLookup, TokenTable};
use ipc::id::BackendId;
use ipc::lines::Lines;
use packet::Token;

use crate::{BURST, Key, Layout};

/// The token table of `engine`.
pub struct Tokens(TokenTable);

impl Layout for Tokens {
    const NAME: &'static str = "in use";

    fn new(entries: usize) -> Self {
        Self(TokenTable::new(Lines::heap(TokenTable::lines_for(entries))))
    }

    fn insert(&mut self, key: Key, value: u16) -> bool {
        let now = Tick::from_seconds(0);
        self.0.learn(key.hash, Token(key.number), BackendId(value), now, |_| true) == Learn::New
    }

    fn find(&self, keys: &[Key], found: &mut [Option<u16>; BURST]) {
        keys.iter().for_each(|key| self.0.prefetch(key.hash));
        keys.iter().for_each(|key| self.0.prefetch_rest(key.hash, Token(key.number)));
        for (key, found) in keys.iter().zip(found) {
            *found = match self.0.find(key.hash, Token(key.number), |backend| backend.0 != 0) {
                TokenLookup::Owner { backend, .. } => Some(backend.0),
                _ => None,
            };
        }
    }
}

/// The flow table of `engine`.
pub struct Flows(FlowTable);

impl Layout for Flows {
    const NAME: &'static str = "in use";

    fn new(entries: usize) -> Self {
        Self(FlowTable::new(Lines::heap(FlowTable::lines_for(entries))))
    }

    fn insert(&mut self, key: Key, value: u16) -> bool {
        let tick = Tick::from_seconds(0);
        let entry = FlowEntry::opened(FlowState::Plain, tick, BackendId(value), 0, 0);
        let lifetimes = Lifetimes::default();
        let room = lifetimes.room(tick);
        matches!(self.0.insert(key.hash, entry, &room), Inserted::New(_))
    }

    fn find(&self, keys: &[Key], found: &mut [Option<u16>; BURST]) {
        keys.iter().for_each(|key| self.0.prefetch(key.hash));
        keys.iter().for_each(|key| self.0.prefetch_rest(key.hash));
        for (key, found) in keys.iter().zip(found) {
            *found = self.0.find(key.hash).map(|found| found.entry.backend.0);
        }
    }
}
