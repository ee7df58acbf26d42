//! Both tables at their advised load: practically nothing is homeless, and nine hits in ten cost one line.
//!
//! Why: these are the properties the layout was chosen for (first-fit, one alternate, an overflow area), and
//! they hold for millions of entries or not at all. Figures are printed: `cargo test -p engine --release
//! --test placement -- --nocapture`.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "helpers of tests, with small numbers"
)]

use engine::flow_entry::{FlowEntry, FlowState};
use engine::flow_table::{FlowTable, Found, Inserted, Keep};
use engine::hash::HashKey;
use engine::lifetimes::{IdleTimes, Lifetimes};
use engine::tick::Tick;
use engine::token_entry::Rank;
use engine::token_table::{Learn, TokenLookup, TokenTable};
use ipc::id::{BackendId, PoolId};
use ipc::lines::{LINE, Lines};
use packet::{Address, Family, Flow, Token};

/// Entries in a table, and how many whole generations of them come and go.
const ENTRIES: usize = if cfg!(debug_assertions) { 300_000 } else { 2_000_000 };
const GENERATIONS: usize = 4;

/// SplitMix64: seeded, so that a failure comes again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// How inserts and hits went.
#[derive(Debug, Default)]
struct Tally {
    inserts: usize,
    homeless: usize,
    hits: usize,
    first_line: usize,
}

impl Tally {
    fn check(&self, what: &str, spilled: u64) {
        println!(
            "{what}: {} inserts, {} homeless, {:.2} % of hits in the first line, {spilled} in the overflow area",
            self.inserts,
            self.homeless,
            self.first_line as f64 * 100.0 / self.hits as f64,
        );
        assert!(
            self.homeless * 1_000_000 < self.inserts.max(1_000_001),
            "{what}: {} homeless",
            self.homeless
        );
        assert!(self.first_line * 10 >= self.hits * 9, "{what}: {} of {}", self.first_line, self.hits);
    }
}

/// The flow of a number: ports, addresses and families as a busy day brings them, all different.
fn flow(number: usize) -> Flow {
    let n = u32::try_from(number).unwrap();
    let [a, b, c, d] = (n / 50_000).to_be_bytes();
    let v6 = n % 4 == 3;
    let source = if v6 {
        Address::from_v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d])
    } else {
        Address::from_v4([10, b, c, d])
    };
    Flow {
        source,
        destination: Address::from_v4([203, 0, 113, 1]),
        source_port: u16::try_from(10_000 + n % 50_000).unwrap(),
        destination_port: 443,
        protocol: 6,
        family: if v6 { Family::V6 } else { Family::V4 },
    }
}

fn flow_entry(tick: Tick, number: usize) -> FlowEntry {
    let aux = u32::try_from(number).unwrap();
    FlowEntry::opened(FlowState::Plain, tick, BackendId(1 + (aux % 100) as u16), aux, aux)
}

fn insert_flow(
    table: &FlowTable,
    key: &HashKey,
    number: usize,
    tick: Tick,
    lifetimes: &Lifetimes,
    tally: &mut Tally,
) {
    tally.inserts += 1;
    match table.insert(key.flow(&flow(number)), flow_entry(tick, number), &lifetimes.room(tick)) {
        Inserted::New(_) => {}
        Inserted::Over(_, class) => panic!("a flow of class {class:?} gave way to {number}"),
        Inserted::Full => tally.homeless += 1,
        Inserted::Existing(found) => panic!("flow {number} was taken for {found:?}"),
    }
}

fn count_flow_hits(table: &FlowTable, key: &HashKey, tick: Tick, numbers: &[usize], tally: &mut Tally) {
    for &number in numbers {
        let found: Option<Found> = table.find(key.flow(&flow(number)));
        if let Some(found) = found {
            assert_eq!(found.entry, flow_entry(tick, number));
            tally.hits += 1;
            tally.first_line += usize::from(table.is_in_first_line(&found));
        }
    }
    assert!(tally.hits + tally.homeless >= numbers.len(), "an entry was lost");
}

#[test]
fn flows_find_a_place_and_most_hits_cost_one_line() {
    let key = HashKey::from_seed(&[0x11; 32]);
    let (lifetimes, tick) = (Lifetimes::default(), Tick::from_seconds(1_000_000));
    let lines = FlowTable::lines_for(ENTRIES);
    assert!(lines * LINE <= ENTRIES * 30 + 2048, "{} bytes a flow", lines * LINE / ENTRIES);
    let table = FlowTable::new(Lines::heap(lines));

    let mut tally = Tally::default();
    let mut live: Vec<usize> = (0..ENTRIES).collect();
    for &number in &live {
        insert_flow(&table, &key, number, tick, &lifetimes, &mut tally);
    }
    count_flow_hits(&table, &key, tick, &live, &mut tally);
    tally.check("flows, filled", table.spilled());

    // Churn: at a constant load, random flows end and new ones come. A pass of the sweep takes 16 seconds and
    // an ended flow keeps its entry for 64 at least, so that a pass comes at least four times a generation.
    let mut random = Random(42);
    let mut churned = Tally::default();
    for number in ENTRIES..ENTRIES * (1 + GENERATIONS) {
        let at = random.below(ENTRIES);
        if let Some(found) = table.find(key.flow(&flow(live[at]))) {
            assert!(table.remove(&found));
        }
        live[at] = number;
        insert_flow(&table, &key, number, tick, &lifetimes, &mut churned);
        if number % (ENTRIES / 4) == 0 {
            table.sweep(0, table.lines(), |_| Keep::Yes);
        }
    }
    count_flow_hits(&table, &key, tick, &live, &mut churned);
    churned.check("flows, churned", table.spilled());

    table.sweep(0, table.lines(), |_| Keep::No);
    assert_eq!(table.spilled(), 0, "an empty table has an empty overflow area");
}

#[test]
fn flows_that_expired_make_room_without_any_sweep() {
    let key = HashKey::from_seed(&[0x12; 32]);
    let idle = IdleTimes::default().with(FlowState::Plain, 4);
    let lifetimes = Lifetimes { idle, ..Lifetimes::default() };
    let table = FlowTable::new(Lines::heap(FlowTable::lines_for(ENTRIES)));
    for generation in 0..3u64 {
        let tick = Tick::from_seconds(generation * 160);
        let mut tally = Tally::default();
        let numbers: Vec<usize> = (0..ENTRIES).map(|n| n + ENTRIES * generation as usize).collect();
        for &number in &numbers {
            insert_flow(&table, &key, number, tick, &lifetimes, &mut tally);
        }
        count_flow_hits(&table, &key, tick, &numbers, &mut tally);
        tally.check(&format!("flows, generation {generation} over expired ones"), table.spilled());
    }
}

/// The token of a number: a bijection, so that no two are equal (honest collisions have their own tests).
fn token(number: usize) -> Token {
    let mut x = u32::try_from(number).unwrap();
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    Token(x ^ (x >> 16))
}

fn owner(number: usize) -> BackendId {
    BackendId(1 + u16::try_from(number % 50).unwrap())
}

fn learn_token(table: &TokenTable, key: &HashKey, number: usize, tick: Tick, tally: &mut Tally) {
    tally.inserts += 1;
    match table.enter(key.token(token(number), PoolId(1)), token(number), owner(number), tick, |_| true) {
        (Learn::New, false) => {}
        (Learn::New, true) | (Learn::Full, _) => tally.homeless += 1,
        other => panic!("token {number}: {other:?}"),
    }
}

fn count_token_hits(table: &TokenTable, key: &HashKey, numbers: &[usize], tally: &mut Tally) {
    for &number in numbers {
        let hash = key.token(token(number), PoolId(1));
        match table.find(hash, token(number), |_| true) {
            TokenLookup::Owner { backend, rank } => {
                assert_eq!((backend, rank), (owner(number), Rank::Provisional));
                tally.hits += 1;
                tally.first_line += usize::from(table.is_in_first_line(hash, token(number)));
            }
            TokenLookup::Unknown => {}
            TokenLookup::Ambiguous => panic!("token {number} is ambiguous"),
        }
    }
    assert!(tally.hits + tally.homeless >= numbers.len(), "a token was lost");
}

#[test]
fn tokens_find_a_place_and_most_hits_cost_one_line() {
    let key = HashKey::from_seed(&[0x13; 32]);
    let lines = TokenTable::lines_for(ENTRIES);
    assert!(lines * LINE <= ENTRIES * 13 + 2048, "{} bytes a token", lines * LINE / ENTRIES);
    let table = TokenTable::new(Lines::heap(lines));

    let tick = Tick::from_seconds(0);
    let mut tally = Tally::default();
    let mut live: Vec<usize> = (0..ENTRIES).collect();
    for &number in &live {
        learn_token(&table, &key, number, tick, &mut tally);
    }
    count_token_hits(&table, &key, &live, &mut tally);
    tally.check("tokens, filled", table.spilled());

    // Churn: one token of a random tenth stops being touched, expires, and another connection's comes.
    let mut random = Random(43);
    let mut churned = Tally::default();
    let mut next = ENTRIES;
    for round in 1..=(10 * GENERATIONS as u64) {
        let now = Tick::from_seconds(round * 16 * 10);
        let tenth = random.below(10);
        for &number in &live {
            if (number ^ (number >> 7)) % 10 != tenth {
                table.touch(key.token(token(number), PoolId(1)), token(number), owner(number), now, false);
            }
        }
        table.sweep(0, table.lines(), now, 6);
        for number in &mut live {
            if (*number ^ (*number >> 7)) % 10 == tenth {
                *number = next;
                learn_token(&table, &key, next, now, &mut churned);
                next += 1;
            }
        }
    }
    count_token_hits(&table, &key, &live, &mut churned);
    churned.check("tokens, churned", table.spilled());

    assert_eq!(table.sweep(0, table.lines(), Tick::from_seconds(16 * 1000), 6), churned.hits);
    assert_eq!(table.spilled(), 0, "an empty table has an empty overflow area");
}
