//! Both tables against plain maps: whatever the order of commands, the answers are those of a `HashMap`.
//!
//! The tables are tiny, so that lines overflow, entries move, and slots change hands all the time.
#![cfg(not(loom))]

use std::collections::HashMap;

use engine::flow_entry::{FlowEntry, FlowState};
use engine::flow_table::{FlowTable, Inserted, Keep};
use engine::lifetimes::{Class, Evict, IdleTimes, Lifetimes};
use engine::tick::Tick;
use engine::token_entry::Rank;
use engine::token_table::{Learn, TOKEN_IDLE, TokenLookup, TokenTable};
use ipc::id::BackendId;
use ipc::limits::MAX_CLAIMS;
use ipc::lines::Lines;
use packet::Token;
use proptest::prelude::*;

fn tick(n: u64) -> Tick {
    Tick::from_seconds(n * 16)
}

/// A well mixed hash of a small number.
fn spread(n: u64) -> u64 {
    let x = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

#[derive(Clone, Debug)]
enum FlowCommand {
    Insert { flow: u64, entry: u16 },
    Update { flow: u64, entry: u16, reopened: bool },
    Remove { flow: u64 },
    Sweep { from: usize, lines: usize, backend: u16 },
    Wait { ticks: u64 },
}

fn flow_command() -> impl Strategy<Value = FlowCommand> {
    let flow = || 0..120u64;
    prop_oneof![
        6 => (flow(), any::<u16>()).prop_map(|(flow, entry)| FlowCommand::Insert { flow, entry }),
        3 => (flow(), any::<u16>(), any::<bool>())
            .prop_map(|(flow, entry, reopened)| FlowCommand::Update { flow, entry, reopened }),
        2 => flow().prop_map(|flow| FlowCommand::Remove { flow }),
        1 => (0..24usize, 0..24usize, 0..8u16)
            .prop_map(|(from, lines, backend)| FlowCommand::Sweep { from, lines, backend }),
        1 => (0..6u64).prop_map(|ticks| FlowCommand::Wait { ticks }),
    ]
}

/// An entry made of a number: half-open or established, on one of eight backends.
fn flow_entry(n: u16, now: Tick) -> FlowEntry {
    let state = if n & 1 == 0 { FlowState::Plain } else { FlowState::SynPlain };
    FlowEntry { isn_low: n, ..FlowEntry::opened(state, now, BackendId(1 + n % 8), 0, u32::from(n) << 8) }
}

/// An entry made of a number: any state and flags, of any age up to 20 ticks.
fn any_entry(n: u32, now: u64) -> FlowEntry {
    let index = |by: u32| usize::try_from(n / by).unwrap_or(0);
    let state = FlowState::ALL[index(1) % FlowState::ALL.len()];
    let tick = tick(now).before(u16::try_from(n / 16 % 21).unwrap_or(0));
    let flags = index(512);
    FlowEntry {
        lasting: flags & 1 != 0,
        moved: flags & 2 != 0,
        ..FlowEntry::opened(state, tick, BackendId(1), n, n)
    }
}

/// Inserts entries into a table that is soon full: what is missing after an insert is what it said gave way, or had
/// expired, and never one of the last class.
fn check_evictions(lines: usize, entries: &[u32]) {
    let table = FlowTable::new(Lines::heap(lines));
    let lifetimes = Lifetimes::default();
    let now = 1000;
    let room = lifetimes.room(tick(now));
    let mut oracle: HashMap<u64, FlowEntry> = HashMap::new();
    for (flow, n) in (0..).zip(entries) {
        let entry = any_entry(*n, now);
        let inserted = table.insert(spread(flow), entry, &room);
        let missing: Vec<u64> =
            oracle.keys().copied().filter(|flow| table.find(spread(*flow)).is_none()).collect();
        let gone: Vec<FlowEntry> = missing
            .iter()
            .filter_map(|flow| oracle.remove(flow))
            .filter(|entry| !lifetimes.idle.is_expired(entry, tick(now)))
            .collect();
        match inserted {
            Inserted::New(_) | Inserted::Full => assert_eq!(gone, [], "nothing was said to give way"),
            Inserted::Over(_, class) => {
                assert_eq!(gone.len(), 1);
                assert_eq!(gone[0].class(), class);
                assert_ne!(class, Class::Kept);
                let silence = tick(now).age_of(gone[0].tick);
                assert!(lifetimes.evict.of(class).is_some_and(|limit| silence >= limit) || entry.joins());
            }
            Inserted::Existing(found) => assert_eq!(found.entry.aux, u32::MAX, "each flow comes once"),
        }
        if !matches!(inserted, Inserted::Full) {
            oracle.insert(flow, entry);
        }
    }
}

/// Runs the commands on a table of `lines` lines and on a map.
fn check_flows(lines: usize, commands: &[FlowCommand]) {
    let table = FlowTable::new(Lines::heap(lines));
    let lifetimes = Lifetimes { idle: IdleTimes::default(), evict: Evict::never(), ..Lifetimes::default() };
    let idle = &lifetimes.idle;
    let mut oracle: HashMap<u64, FlowEntry> = HashMap::new();
    let mut now = 0;
    for command in commands {
        match *command {
            FlowCommand::Insert { flow, entry } => {
                let entry = flow_entry(entry, tick(now));
                let live = oracle.get(&flow).filter(|old| !idle.is_expired(old, tick(now)));
                match table.insert(spread(flow), entry, &lifetimes.room(tick(now))) {
                    Inserted::New(found) => {
                        assert_eq!((found.entry, live), (entry, None));
                        oracle.insert(flow, entry);
                    }
                    Inserted::Existing(found) => assert_eq!(Some(&found.entry), live),
                    Inserted::Over(found, _) => assert_eq!(Some(&found.entry), None, "nothing gives way"),
                    Inserted::Full => assert!(oracle.len() > lines * 2, "full with {} entries", oracle.len()),
                }
            }
            FlowCommand::Update { flow, entry, reopened } => {
                if let Some(found) = table.find(spread(flow)) {
                    let mut entry = flow_entry(entry, tick(now));
                    if !reopened {
                        entry.isn_low = found.entry.isn_low;
                    }
                    assert!(table.update(&found, entry));
                    assert!(
                        found.entry == entry || !table.update(&found, entry),
                        "a stale find changes nothing"
                    );
                    oracle.insert(flow, entry);
                }
            }
            FlowCommand::Remove { flow } => {
                if let Some(found) = table.find(spread(flow)) {
                    assert!(table.remove(&found));
                    assert!(!table.remove(&found));
                    oracle.remove(&flow);
                }
            }
            FlowCommand::Sweep { from, lines, backend } => {
                let mut removed = Vec::new();
                table.sweep(from, lines, |entry| {
                    if entry.backend.0 == backend {
                        removed.push(*entry);
                        return Keep::No;
                    }
                    Keep::Yes
                });
                oracle.retain(|flow, entry| {
                    let gone = table.find(spread(*flow)).is_none();
                    assert!(!gone || removed.contains(entry) || idle.is_expired(entry, tick(now)));
                    !gone
                });
            }
            FlowCommand::Wait { ticks } => now += ticks,
        }
        // An expired entry may have made place for another, nothing else may be missing, and nothing be
        // changed.
        oracle.retain(|flow, entry| match table.find(spread(*flow)) {
            Some(found) => {
                assert_eq!(found.entry, *entry);
                true
            }
            None => {
                assert!(idle.is_expired(entry, tick(now)), "lost flow {flow}: {entry:?}");
                false
            }
        });
        for flow in 0..120 {
            assert_eq!(table.find(spread(flow)).map(|found| found.entry), oracle.get(&flow).copied());
        }
    }
    let mut live = 0;
    table.sweep(0, table.lines(), |_| {
        live += 1;
        Keep::No
    });
    assert_eq!(live, oracle.len(), "no flow has two entries");
    assert_eq!(table.spilled(), 0);
}

#[derive(Clone, Debug)]
enum TokenCommand {
    Learn { token: u32, backend: u16 },
    Touch { token: u32, backend: u16, promote: bool },
    Close { token: u32, backend: u16 },
    Find { token: u32, pool: u16 },
    Wait { ticks: u64 },
}

fn token_command() -> impl Strategy<Value = TokenCommand> {
    let claim = || (0..2u32, 0..10u16);
    prop_oneof![
        4 => claim().prop_map(|(token, backend)| TokenCommand::Learn { token, backend }),
        3 => (claim(), any::<bool>())
            .prop_map(|((token, backend), promote)| TokenCommand::Touch { token, backend, promote }),
        1 => claim().prop_map(|(token, backend)| TokenCommand::Close { token, backend }),
        3 => (0..2u32, 0..2u16).prop_map(|(token, pool)| TokenCommand::Find { token, pool }),
        2 => (0..5u64).prop_map(|ticks| TokenCommand::Wait { ticks }),
    ]
}

/// A claim as the oracle has it.
#[derive(Clone, Copy, Debug)]
struct Claim {
    backend: u16,
    rank: Rank,
    tick: Tick,
    closing: bool,
}

/// Backends 0 to 4 belong to pool 0, 5 to 9 to pool 1. (Ids in the table are one higher.)
fn pool_of(backend: u16) -> u16 {
    backend / 5
}

/// The rules of ownership, said plainly.
#[derive(Default)]
struct Oracle(HashMap<(u32, u16), Vec<Claim>>);

impl Oracle {
    fn claims(&mut self, token: u32, pool: u16, now: Tick) -> &mut Vec<Claim> {
        let claims = self.0.entry((token, pool)).or_default();
        claims.retain(|claim| now.age_of(claim.tick) <= TOKEN_IDLE);
        claims
    }

    fn learn(&mut self, token: u32, backend: u16, now: Tick) -> Learn {
        let claims = self.claims(token, pool_of(backend), now);
        if let Some(own) = claims.iter_mut().find(|claim| claim.backend == backend) {
            if !own.closing {
                own.tick = now;
            }
            return Learn::Repeated;
        }
        if claims.iter().any(|claim| claim.rank > Rank::Provisional) {
            return Learn::Conflict;
        }
        let rivals = claims.len();
        if rivals < MAX_CLAIMS {
            claims.push(Claim { backend, rank: Rank::Provisional, tick: now, closing: false });
        }
        if rivals == 0 { Learn::New } else { Learn::Ambiguous }
    }

    fn touch(&mut self, token: u32, backend: u16, now: Tick, promote: bool) -> bool {
        let claims = self.claims(token, pool_of(backend), now);
        let Some(own) = claims.iter_mut().find(|claim| claim.backend == backend && !claim.closing) else {
            return false;
        };
        let raised = promote && own.rank == Rank::Provisional;
        (own.tick, own.rank) = (now, if raised { Rank::Seen } else { own.rank });
        raised
    }

    fn close(&mut self, token: u32, backend: u16, now: Tick) -> bool {
        let claims = self.claims(token, pool_of(backend), now);
        let Some(own) = claims.iter_mut().find(|claim| claim.backend == backend && !claim.closing) else {
            return false;
        };
        (own.tick, own.closing) = (now, true);
        true
    }

    fn find(&mut self, token: u32, pool: u16, now: Tick) -> TokenLookup {
        let claims = self.claims(token, pool, now);
        let Some(rank) = claims.iter().map(|claim| claim.rank).max() else {
            return TokenLookup::Unknown;
        };
        let best: Vec<_> = claims.iter().filter(|claim| claim.rank == rank).collect();
        match best[..] {
            [owner] => TokenLookup::Owner { backend: BackendId(owner.backend + 1), rank },
            _ => TokenLookup::Ambiguous,
        }
    }
}

/// Runs the commands on a table whose tokens all share their lines, and on the oracle.
fn check_tokens(commands: &[TokenCommand]) {
    const HASH: u64 = 0x0123_4567_89ab_cdef;
    let table = TokenTable::new(Lines::heap(8));
    let mut oracle = Oracle::default();
    let mut now = 0;
    for command in commands {
        let time = tick(now);
        // A touch or a look-up may meet a claim that expired and was not swept yet; a newcomer deals with it
        // itself.
        if !matches!(command, TokenCommand::Learn { .. }) {
            table.sweep(0, table.lines(), time, TOKEN_IDLE);
        }
        match *command {
            TokenCommand::Learn { token, backend } => {
                let belongs = |other: BackendId| pool_of(other.0 - 1) == pool_of(backend);
                let learned = table.learn(HASH, Token(token), BackendId(backend + 1), time, belongs);
                assert_eq!(learned, oracle.learn(token, backend, time));
            }
            TokenCommand::Touch { token, backend, promote } => {
                let raised = table.touch(HASH, Token(token), BackendId(backend + 1), time, promote);
                assert_eq!(raised, oracle.touch(token, backend, time, promote));
            }
            TokenCommand::Close { token, backend } => {
                let closed = table.close(HASH, Token(token), BackendId(backend + 1), time);
                assert_eq!(closed, oracle.close(token, backend, time));
            }
            TokenCommand::Find { token, pool } => {
                let found = table.find(HASH, Token(token), |other| pool_of(other.0 - 1) == pool);
                assert_eq!(found, oracle.find(token, pool, time));
            }
            TokenCommand::Wait { ticks } => now += ticks,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_flow_table_answers_as_a_map_does(
        lines in 8..24usize,
        commands in prop::collection::vec(flow_command(), 1..400),
    ) {
        check_flows(lines, &commands);
    }

    #[test]
    fn what_gives_way_in_a_full_flow_table_is_what_was_said_and_never_of_the_last_class(
        lines in 1..24usize,
        entries in prop::collection::vec(any::<u32>(), 1..300),
    ) {
        check_evictions(lines, &entries);
    }

    #[test]
    fn a_token_table_answers_as_the_plain_rules_do(commands in prop::collection::vec(token_command(), 1..200)) {
        check_tokens(&commands);
    }
}
