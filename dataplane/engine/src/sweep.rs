//! The sweep: a bounded walk through both tables, a few lines a poll, that expires what is stale and keeps the
//! tokens of live subflows alive.
//!
//! A token entry has no list of its subflows. Instead every live flow entry that holds a token touches it when
//! the sweep comes by, and a token that nothing touched for [`TOKEN_IDLE`] goes. So a token lives exactly
//! as long as a known live subflow does, and at least 60 seconds after the last one ended; an idle connection
//! keeps its token as long as its flow entry (hours), a closed one gives it up soon.
//!
//! Workers divide the lines among themselves. The pace comes from the clock, never from the traffic: one pass in
//! [`PASS_MS`], however idle or busy the worker is, with at most [`LINES_PER_CALL`] lines at once.
//!
//! After a pause (a machine that slept, a gap in a capture) every token looks old, those of live flows too. So when
//! a whole pass is due at once, all flows come first, and only then are tokens judged by their age; and where there
//! are several workers, no token is judged for one more pass, in which the others visit their flows. In tables that
//! were taken over from another process ([`crate::tables::Tables::attach`]) no token is judged before every worker has
//! visited all its flows, however long one takes to begin.
//!
//! Before the first configuration no backend is known: then the idle times of flows count, and nothing else.

use core::num::NonZeroUsize;

use ipc::counter::Counter;
use packet::Token;

use crate::flow_entry::FlowState;
use crate::flow_table::Keep;
use crate::pipeline::Context;
use crate::token_table::TOKEN_IDLE;

/// One pass over both tables takes this long: one tick.
pub const PASS_MS: u64 = 16_384;

/// Lines of each table visited in one call at most.
pub const LINES_PER_CALL: usize = 8;

/// One worker's part of the sweep.
#[derive(Debug)]
pub struct Sweeper {
    worker: usize,
    workers: NonZeroUsize,
    flows: Cursor,
    tokens: Cursor,
    /// After a pause: lines of flows to visit before any of tokens.
    flows_first: usize,
    /// And lines of tokens to visit before flows may come first again, so that neither table starves the other.
    tokens_next: usize,
    /// The time of the last call: by it a pause is known.
    seen_ms: u64,
    /// After a pause, with other workers: no token is judged before this time.
    held_until_ms: u64,
    /// Lines of flows to visit before all are, for the first time; unknown before the first call.
    first_pass: Option<usize>,
}

/// A place in one table, and how much of it is done.
#[derive(Debug, Default)]
struct Cursor {
    /// Lines visited since the start.
    done: u64,
}

impl Cursor {
    /// How many lines of a part are to be visited by now, since the start.
    fn due(elapsed_ms: u64, part_lines: u64) -> u64 {
        let whole = u128::from(elapsed_ms) * u128::from(part_lines) / u128::from(PASS_MS);
        u64::try_from(whole).unwrap_or(u64::MAX)
    }

    /// Whether a whole pass over a part, or more, is due at once.
    fn is_a_pass_behind(&self, elapsed_ms: u64, part: usize) -> bool {
        let part_lines = u64::try_from(part).unwrap_or(u64::MAX);
        part > 0 && Self::due(elapsed_ms, part_lines).saturating_sub(self.done) >= part_lines
    }

    /// The lines to visit now: first line and count, within a part of `part` lines that begins at `from`.
    /// What is more than a pass behind is skipped: it is visited by the next pass anyway.
    fn next(&mut self, elapsed_ms: u64, from: usize, part: usize, most: usize) -> (usize, usize) {
        let Ok(part_lines) = u64::try_from(part) else {
            return (from, 0);
        };
        if part_lines == 0 {
            return (from, 0);
        }
        let due = Self::due(elapsed_ms, part_lines);
        self.done = self.done.max(due.saturating_sub(part_lines));
        let place = usize::try_from(self.done % part_lines).unwrap_or(0);
        let behind = usize::try_from(due - self.done.min(due)).unwrap_or(usize::MAX);
        let count = behind.min(most).min(part - place);
        self.done += count as u64;
        (from + place, count)
    }
}

impl Sweeper {
    /// The part of one worker among `workers`.
    pub fn new(worker: usize, workers: usize) -> Self {
        Self {
            worker,
            workers: NonZeroUsize::new(workers).unwrap_or(NonZeroUsize::MIN),
            flows: Cursor::default(),
            tokens: Cursor::default(),
            flows_first: 0,
            tokens_next: 0,
            seen_ms: 0,
            held_until_ms: 0,
            first_pass: None,
        }
    }

    /// Visits what is due, `elapsed_ms` after the data plane began, but at most `most` lines of each table.
    /// Returns whether anything is still due.
    pub fn advance(&mut self, elapsed_ms: u64, most: usize, cx: &Context<'_>) -> bool {
        let (flows_from, flows_part) = self.part(cx.tables.flows.lines());
        let (tokens_from, tokens_part) = self.part(cx.tables.tokens.lines());
        if elapsed_ms.saturating_sub(self.seen_ms) > PASS_MS && self.workers.get() > 1 {
            self.held_until_ms = elapsed_ms + PASS_MS;
        }
        self.seen_ms = elapsed_ms;
        let settled = self.flows_first == 0 && self.tokens_next == 0;
        let is_behind = self.flows.is_a_pass_behind(elapsed_ms, flows_part);
        if settled && is_behind {
            (self.flows_first, self.tokens_next) = (flows_part, tokens_part);
        }
        let (line, flow_lines) = self.flows.next(elapsed_ms, flows_from, flows_part, most);
        if flow_lines > 0 {
            sweep_flows(line, flow_lines, cx);
        }
        if cx.snapshot.is_configured() {
            self.count_first_pass(is_behind, flows_part, flow_lines, cx);
        }
        self.flows_first = if flow_lines > 0 { self.flows_first.saturating_sub(flow_lines) } else { 0 };
        if self.flows_first > 0 {
            return true;
        }
        if elapsed_ms < self.held_until_ms || cx.tables.is_unvisited(self.workers.get()) {
            return flow_lines > 0;
        }
        let (line, token_lines) = self.tokens.next(elapsed_ms, tokens_from, tokens_part, most);
        self.tokens_next = if token_lines > 0 { self.tokens_next.saturating_sub(token_lines) } else { 0 };
        if token_lines > 0 {
            let expired = cx.tables.tokens.sweep(line, token_lines, cx.now, TOKEN_IDLE);
            cx.counters.add(Counter::TokenExpired, expired as u64);
        }
        flow_lines > 0 || token_lines > 0
    }

    /// Counts the first visit of all flows, and notes when it is done. One that fell a pass behind begins again.
    fn count_first_pass(&mut self, is_behind: bool, part: usize, visited: usize, cx: &Context<'_>) {
        let left = match self.first_pass {
            Some(0) => return,
            Some(left) if !is_behind => left.saturating_sub(visited),
            _ => part.saturating_sub(visited),
        };
        self.first_pass = Some(left);
        if left == 0 {
            cx.tables.visited(self.worker);
        }
    }

    /// This worker's lines of a table: first line and count.
    fn part(&self, lines: usize) -> (usize, usize) {
        let from = lines * self.worker / self.workers;
        let to = lines * (self.worker + 1) / self.workers;
        (from, to.saturating_sub(from))
    }
}

/// Expires stale flows and touches the tokens of live ones.
fn sweep_flows(line: usize, lines: usize, cx: &Context<'_>) {
    let mut expired = 0;
    cx.tables.flows.sweep(line, lines, |entry| {
        let is_unknown = cx.snapshot.is_configured() && cx.snapshot.backend(entry.backend).is_none();
        if is_unknown || cx.tables.lifetimes.idle.is_expired(entry, cx.now) {
            expired += 1;
            return Keep::No;
        }
        let holds_token = matches!(
            entry.state,
            FlowState::Learned | FlowState::Mptcp | FlowState::Joined | FlowState::Reported
        );
        if holds_token && let Some(backend) = cx.snapshot.backend(entry.backend) {
            let token = Token(entry.aux);
            let hash = cx.tables.token_hash(token, backend.pool);
            let _ = cx.tables.tokens.touch(hash, token, entry.backend, cx.now, false);
        }
        Keep::Yes
    });
    cx.counters.add(Counter::FlowExpired, expired);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_visits_every_line_of_a_part_once() {
        let mut cursor = Cursor::default();
        let mut visited = vec![0; 100];
        let mut elapsed = 0;
        while elapsed < PASS_MS {
            elapsed += 64;
            let (line, count) = cursor.next(elapsed, 40, 60, LINES_PER_CALL);
            visited[line..line + count].iter_mut().for_each(|times| *times += 1);
        }
        assert!(visited[..40].iter().all(|times| *times == 0));
        assert!(visited[40..].iter().all(|times| *times == 1), "{visited:?}");
    }

    #[test]
    fn after_a_long_pause_one_pass_is_made_up_not_many() {
        let mut cursor = Cursor::default();
        let mut lines = 0;
        loop {
            let (_, count) = cursor.next(PASS_MS * 1000, 0, 64, LINES_PER_CALL);
            if count == 0 {
                break;
            }
            lines += count;
        }
        assert_eq!(lines, 64);
    }

    #[test]
    fn the_parts_of_all_workers_make_the_whole() {
        for workers in 1..=7 {
            let mut next = 0;
            for worker in 0..workers {
                let (from, count) = Sweeper::new(worker, workers).part(1000);
                assert_eq!(from, next);
                next = from + count;
            }
            assert_eq!(next, 1000);
        }
    }
}
