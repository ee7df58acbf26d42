//! The census: how many flows and tokens each backend holds, counted a little at a time by the manager.
//!
//! It decides when a removed backend may be forgotten and its id given again: only after two whole counts in a
//! row, begun after the removal was adopted by every worker, found no entry of it. Two, because tables move
//! entries: one that is moved from a line ahead of the count to a line behind it is missed once.

use engine::flow_table::Keep;
use engine::tables::Tables;
use ipc::id::BackendId;
use ipc::limits::MAX_BACKENDS;

/// Lines of each table counted in one turn: a turn takes well below a millisecond.
const LINES_PER_TURN: usize = 4096;

/// Turns between the end of a count and the beginning of the next: about half a second.
const REST_TURNS: u32 = 250;

/// A finished count.
#[derive(Clone, Debug)]
pub struct Count {
    by_backend: Vec<(u64, u64)>,
    /// Who held something in the count before this one; all, if there was none since the last change.
    before: Vec<bool>,
}

impl Default for Count {
    fn default() -> Self {
        Self { by_backend: vec![(0, 0); MAX_BACKENDS], before: vec![true; MAX_BACKENDS] }
    }
}

impl Count {
    /// Flows and tokens of a backend.
    pub fn of(&self, id: BackendId) -> (u64, u64) {
        self.by_backend.get(usize::from(id.0)).copied().unwrap_or_default()
    }

    /// Whether a backend held nothing in this count and in the one before it.
    pub fn is_unused(&self, id: BackendId) -> bool {
        self.of(id) == (0, 0) && self.before.get(usize::from(id.0)) == Some(&false)
    }

    /// All flows.
    pub fn flows(&self) -> u64 {
        self.by_backend.iter().map(|(flows, _)| flows).sum()
    }

    /// All tokens.
    pub fn tokens(&self) -> u64 {
        self.by_backend.iter().map(|(_, tokens)| tokens).sum()
    }

    fn entry(&mut self, id: BackendId) -> Option<&mut (u64, u64)> {
        self.by_backend.get_mut(usize::from(id.0))
    }
}

/// A count under way.
#[derive(Debug, Default)]
pub struct Census {
    flow_line: usize,
    token_line: usize,
    rest: u32,
    count: Count,
}

impl Census {
    /// Begins anew: what was counted before a change says nothing about the time after it.
    pub fn restart(&mut self) {
        *self = Self::default();
    }

    /// Counts on; gives the count when both tables are through.
    pub fn advance(&mut self, tables: &Tables) -> Option<Count> {
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        let count = &mut self.count;
        tables.flows.sweep(self.flow_line, LINES_PER_TURN, |entry| {
            if let Some((flows, _)) = count.entry(entry.backend) {
                *flows += 1;
            }
            Keep::Yes
        });
        tables.tokens.for_each(self.token_line, LINES_PER_TURN, |entry| {
            if let Some((_, tokens)) = count.entry(entry.backend) {
                *tokens += 1;
            }
        });
        self.flow_line += LINES_PER_TURN;
        self.token_line += LINES_PER_TURN;
        if self.flow_line < tables.flows.lines() || self.token_line < tables.tokens.lines() {
            return None;
        }
        let count = core::mem::take(&mut self.count);
        *self = Self { rest: REST_TURNS, ..Self::default() };
        self.count.before = count.by_backend.iter().map(|held| *held != (0, 0)).collect();
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use engine::Token;
    use engine::flow_entry::{FlowEntry, FlowState};
    use engine::tick::Tick;
    use ipc::id::PoolId;

    use super::*;

    const NOW: Tick = Tick::from_seconds(1600);

    /// Tables of several turns.
    fn tables() -> Tables {
        let tables = Tables::on_heap(100_000, 200_000, &[7; 32]);
        assert!(tables.flows.lines() > 2 * LINES_PER_TURN);
        tables
    }

    fn add_flow(tables: &Tables, hash: u64, backend: u16) -> engine::flow_table::Inserted {
        let backend = BackendId(backend);
        let entry = FlowEntry::opened(FlowState::Plain, NOW, backend, 0, 0);
        tables.flows.insert(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15), entry, &tables.lifetimes.room(NOW))
    }

    fn add_token(tables: &Tables, token: u32, backend: u16) {
        let hash = tables.token_hash(Token(token), PoolId(0));
        tables.tokens.learn(hash, Token(token), BackendId(backend), NOW, |_| true);
    }

    /// Turns until a count is finished.
    fn count(census: &mut Census, tables: &Tables) -> (Count, u32) {
        for turn in 1.. {
            if let Some(count) = census.advance(tables) {
                return (count, turn);
            }
        }
        unreachable!()
    }

    #[test]
    fn every_flow_and_token_is_counted_once_for_its_backend() {
        let tables = tables();
        for number in 1..=3000 {
            add_flow(&tables, number, if number <= 1000 { 1 } else { 4095 });
        }
        for token in 1..=500 {
            add_token(&tables, token, 1);
        }
        let mut census = Census::default();
        for _ in 0..2 {
            let (count, turns) = count(&mut census, &tables);
            assert!(turns > 1, "no turn counts all of a table");
            assert_eq!(count.of(BackendId(1)), (1000, 500));
            assert_eq!(count.of(BackendId(4095)), (2000, 0));
            assert_eq!(count.of(BackendId(2)), (0, 0));
            assert_eq!((count.flows(), count.tokens()), (3000, 500));
        }
    }

    #[test]
    fn the_manager_rests_between_two_counts() {
        let tables = tables();
        let mut census = Census::default();
        let (_, first) = count(&mut census, &tables);
        let (_, second) = count(&mut census, &tables);
        assert_eq!(second, first + REST_TURNS);
    }

    #[test]
    fn a_backend_is_unused_only_after_two_counts_without_it() {
        let tables = tables();
        let inserted = add_flow(&tables, 1, 1);
        let engine::flow_table::Inserted::New(flow) = inserted else { panic!("{inserted:?}") };
        add_token(&tables, 1, 2);
        let mut census = Census::default();
        let (first, _) = count(&mut census, &tables);
        assert!(!first.is_unused(BackendId(3)), "once is not enough");
        let (second, _) = count(&mut census, &tables);
        assert!(second.is_unused(BackendId(3)));
        assert!(!second.is_unused(BackendId(1)) && !second.is_unused(BackendId(2)));

        assert!(tables.flows.remove(&flow));
        assert!(!count(&mut census, &tables).0.is_unused(BackendId(1)));
        assert!(count(&mut census, &tables).0.is_unused(BackendId(1)));
    }

    #[test]
    fn what_was_counted_before_a_change_says_nothing_after_it() {
        let tables = tables();
        add_flow(&tables, 1, 1);
        let mut census = Census::default();
        count(&mut census, &tables);
        census.restart();
        let (again, _) = count(&mut census, &tables);
        assert!(!again.is_unused(BackendId(3)), "the count before the change does not count");
        assert!(census.advance(&tables).is_none());
        // In the middle of a count, too.
        for _ in 0..=REST_TURNS {
            assert!(census.advance(&tables).is_none());
        }
        census.restart();
        assert_eq!(count(&mut census, &tables).0.of(BackendId(1)), (1, 0));
    }

    #[test]
    fn an_id_that_cannot_be_is_never_unused() {
        let mut census = Census::default();
        let tables = tables();
        count(&mut census, &tables);
        assert!(!count(&mut census, &tables).0.is_unused(BackendId(u16::MAX)));
    }
}
