//! `hashbrown` under a lock that is taken once a burst. Lost: what one thread gains by the best hash map there is, two
//! lose at the lock; and it moves when it grows, and cannot outlive its process.

use std::sync::{PoisonError, RwLock};

use hashbrown::HashMap;
use packet::Flow;

use crate::{BURST, Key, Layout, flow};

/// Tokens.
pub struct Map(RwLock<HashMap<u32, u16>>);

impl Layout for Map {
    const NAME: &'static str = "hashbrown, locked";

    fn new(entries: usize) -> Self {
        Self(RwLock::new(HashMap::with_capacity(entries)))
    }

    fn insert(&mut self, key: Key, value: u16) -> bool {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key.number, value).is_none()
    }

    fn find(&self, keys: &[Key], found: &mut [Option<u16>; BURST]) {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for (key, found) in keys.iter().zip(found) {
            *found = map.get(&key.number).copied();
        }
    }
}

/// Flows, by their whole 5-tuple.
pub struct FlowMap(RwLock<HashMap<Flow, u16>>);

impl Layout for FlowMap {
    const NAME: &'static str = "hashbrown, locked";

    fn new(entries: usize) -> Self {
        Self(RwLock::new(HashMap::with_capacity(entries)))
    }

    fn insert(&mut self, key: Key, value: u16) -> bool {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(flow(key.number), value).is_none()
    }

    fn find(&self, keys: &[Key], found: &mut [Option<u16>; BURST]) {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for (key, found) in keys.iter().zip(found) {
            *found = map.get(&flow(key.number)).copied();
        }
    }
}
