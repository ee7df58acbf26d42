//! Layouts of the two tables, the losers too: whoever has a better idea adds it here and has to beat them all.
//!
//! Run: `cargo bench -p weft-bench --bench layouts`; `WEFT_BENCH_ENTRIES=10000000` for tables that are far larger than
//! any cache (a million entries by default). Times are per burst of 32 look-ups, all hits or all misses, in random
//! order, tables at the load that the real ones are advised for, on transparent huge pages.
//!
//! Before a layout is measured it is filled and asked: every entry it took is found with its value, nothing else is.
//! What it could not place is printed: a layout that is fast because it loses entries has not won.

mod bucket;
mod linear;
mod locked;
mod real;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::hash::HashKey;
use ipc::id::PoolId;
use packet::{Address, Family, Flow, Token};
use weft_bench::alloc;
use weft_bench::traffic::{shuffled, token};

/// Look-ups at once.
pub const BURST: usize = 32;
/// Entries of a table, unless the environment says another number.
const ENTRIES: u32 = 1_000_000;
/// Misses that every layout is asked for before it is measured.
const ASKED: u32 = 100_000;

/// What is looked up.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Where it belongs.
    pub hash: u64,
    /// A token, or a number that makes a flow.
    pub number: u32,
}

/// A table of one layout.
pub trait Layout: Sized {
    /// Its name in the report.
    const NAME: &'static str;

    /// An empty table for so many entries.
    fn new(entries: usize) -> Self;

    /// Adds an entry; false where there is no room.
    fn insert(&mut self, key: Key, value: u16) -> bool;

    /// Looks a burst up: a value for each that is known.
    fn find(&self, keys: &[Key], found: &mut [Option<u16>; BURST]);
}

/// The value of an entry.
fn value(key: Key) -> u16 {
    let [a, b, ..] = key.number.to_be_bytes();
    u16::from_be_bytes([a, b]) | 1
}

/// How a number becomes a key.
type MakeKey = fn(&HashKey, u32) -> Key;

fn token_key(key: &HashKey, number: u32) -> Key {
    let token = token(number, 3);
    Key { hash: key.token(token, PoolId(1)), number: token.0 }
}

/// The flow of a number: for layouts that keep the whole 5-tuple.
pub fn flow(number: u32) -> Flow {
    Flow {
        source: Address::from_v4(number.wrapping_mul(0x9e37_79b1).to_be_bytes()),
        destination: Address::from_v4([203, 0, 113, 1]),
        source_port: 40_000,
        destination_port: 443,
        protocol: 6,
        family: Family::V4,
    }
}

fn flow_key(key: &HashKey, number: u32) -> Key {
    Key { hash: key.flow(&flow(number)), number }
}

/// Fills a table and asks it; panics where an answer is wrong.
fn filled<L: Layout>(known: &[Key], unknown: &[Key]) -> L {
    let mut table = L::new(known.len());
    let mut homeless = std::collections::HashSet::new();
    for key in known {
        if !table.insert(*key, value(*key)) {
            homeless.insert(key.number);
        }
    }
    let mut found = [None; BURST];
    for keys in known.chunks(BURST) {
        table.find(keys, &mut found);
        for (key, found) in keys.iter().zip(found) {
            let expected = (!homeless.contains(&key.number)).then(|| value(*key));
            assert_eq!(found, expected, "{}: {key:?}", L::NAME);
        }
    }
    for keys in unknown.chunks(BURST) {
        table.find(keys, &mut found);
        assert!(found.iter().take(keys.len()).all(Option::is_none), "{}: found what is not there", L::NAME);
    }
    let before = alloc::count();
    table.find(known.get(..BURST).unwrap_or(known), &mut found);
    assert_eq!(alloc::count(), before, "{}: a look-up allocates", L::NAME);
    eprintln!("{}: {} of {} entries found no place", L::NAME, homeless.len(), known.len());
    table
}

/// Keys by the million, in an order nobody can guess.
struct Keys {
    known: Vec<Key>,
    unknown: Vec<Key>,
}

impl Keys {
    fn new(make: MakeKey) -> Self {
        let entries = std::env::var("WEFT_BENCH_ENTRIES").ok().and_then(|text| text.parse().ok());
        let entries: u32 = entries.unwrap_or(ENTRIES);
        let key = HashKey::from_seed(&[1; 32]);
        let order = shuffled(entries, 1);
        let keys = |add: u32| order.iter().map(|number| make(&key, number + add)).collect();
        Self { known: keys(0), unknown: keys(entries) }
    }

    /// Measures one layout.
    fn measure<L: Layout>(&self, c: &mut Criterion, table: &str) {
        let asked = self.unknown.get(..ASKED as usize).unwrap_or(&self.unknown);
        let layout = filled::<L>(&self.known, asked);
        let mut group = c.benchmark_group(table);
        group.throughput(Throughput::Elements(BURST as u64));
        for (what, keys) in [("hit", &self.known), ("miss", &self.unknown)] {
            let mut bursts = keys.chunks_exact(BURST).cycle();
            group.bench_function(BenchmarkId::new(L::NAME, what), |b| {
                let mut found = [None; BURST];
                b.iter(|| {
                    let Some(burst) = bursts.next() else { return };
                    layout.find(burst, &mut found);
                    black_box(&found);
                });
            });
        }
        group.finish();
    }
}

fn tokens(c: &mut Criterion) {
    assert_eq!(Token(token_key(&HashKey::public(1), 5).number), token(5, 3));
    let keys = Keys::new(token_key);
    keys.measure::<real::Tokens>(c, "tokens");
    keys.measure::<bucket::Deferred<8>>(c, "tokens");
    keys.measure::<bucket::Mask<8>>(c, "tokens");
    keys.measure::<bucket::EarlyExit<8>>(c, "tokens");
    keys.measure::<bucket::TwoChoices<8>>(c, "tokens");
    keys.measure::<linear::Words>(c, "tokens");
    keys.measure::<locked::Map>(c, "tokens");
}

fn flows(c: &mut Criterion) {
    let keys = Keys::new(flow_key);
    keys.measure::<real::Flows>(c, "flows");
    keys.measure::<bucket::Deferred<4>>(c, "flows");
    keys.measure::<bucket::Mask<4>>(c, "flows");
    keys.measure::<bucket::EarlyExit<4>>(c, "flows");
    keys.measure::<bucket::TwoChoices<4>>(c, "flows");
    keys.measure::<linear::Pairs>(c, "flows");
    keys.measure::<locked::FlowMap>(c, "flows");
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = tokens, flows
}
criterion_main!(benches);
