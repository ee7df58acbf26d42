//! What a look-up, an insert and a token cost, in bursts as the pipeline does them: prefetch all, then look.
//!
//! Run: `cargo bench -p weft-bench --bench tables`. Times are per burst of 32.
//!
//! Tables are filled to the advised load. "Small" fits the second-level cache; "large" does not.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use engine::flow_entry::{FlowEntry, FlowState};
use engine::flow_table::FlowTable;
use engine::hash::HashKey;
use engine::lifetimes::Lifetimes;
use engine::maglev::Maglev;
use engine::tick::Tick;
use engine::token_table::TokenTable;
use ipc::id::{BackendId, PoolId};
use ipc::lines::Lines;
use packet::{Address, Family, Flow, Token};
use std::hint::black_box;

const BURST: usize = 32;
/// The same, to count numbers of flows by.
const STEP: u32 = 32;
const SIZES: [u32; 2] = [10_000, 1_000_000];

fn flow(n: u32) -> Flow {
    Flow {
        source: Address::from_v4(n.wrapping_mul(0x9e37_79b9).to_be_bytes()),
        destination: Address::from_v4([203, 0, 113, 1]),
        source_port: 40_000,
        destination_port: 443,
        protocol: 6,
        family: Family::V4,
    }
}

/// Every number below `size` once, in an order the hardware cannot guess.
fn shuffled(size: u32) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..size).collect();
    numbers.sort_by_key(|n| n.wrapping_mul(0x85eb_ca6b).rotate_left(13).wrapping_mul(0xc2b2_ae35));
    numbers
}

fn hashes(c: &mut Criterion) {
    let key = HashKey::from_seed(&[1; 32]);
    let flows: Vec<Flow> = (0..STEP).map(flow).collect();
    let mut group = c.benchmark_group("hash");
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function("flow", |b| {
        b.iter(|| flows.iter().fold(0, |sum, flow| sum ^ key.flow(black_box(flow))));
    });
    group.bench_function("token", |b| {
        b.iter(|| (0..STEP).fold(0, |sum, n| sum ^ key.token(Token(black_box(n)), PoolId(1))));
    });
    group.finish();
}

fn flows(c: &mut Criterion) {
    let key = HashKey::from_seed(&[1; 32]);
    let (tick, lifetimes) = (Tick::from_seconds(0), Lifetimes::default());
    let room = lifetimes.room(tick);
    let entry = FlowEntry::opened(FlowState::Plain, tick, BackendId(1), 0, 0);
    let mut group = c.benchmark_group("flows");
    group.throughput(Throughput::Elements(BURST as u64));
    for size in SIZES {
        let table = FlowTable::new(Lines::heap(FlowTable::lines_for(size as usize)));
        for n in 0..size {
            table.insert(key.flow(&flow(n)), entry, &room);
        }
        let known: Vec<u64> = shuffled(size).into_iter().map(|n| key.flow(&flow(n))).collect();
        let unknown: Vec<u64> = shuffled(size).into_iter().map(|n| key.flow(&flow(n + size))).collect();
        for (what, hashes) in [("hit", known), ("miss", unknown)] {
            let mut bursts = hashes.chunks_exact(BURST).cycle();
            group.bench_function(BenchmarkId::new(what, size), |b| {
                b.iter(|| {
                    let Some(burst) = bursts.next() else { return 0 };
                    burst.iter().for_each(|hash| table.prefetch(*hash));
                    burst.iter().for_each(|hash| table.prefetch_rest(*hash));
                    burst.iter().filter_map(|hash| table.find(*hash)).count()
                });
            });
        }
        let mut next = size;
        group.bench_function(BenchmarkId::new("insert and remove", size), |b| {
            b.iter_batched(
                || {
                    next = next.wrapping_add(STEP);
                    (next..next.wrapping_add(STEP)).map(|n| key.flow(&flow(n))).collect::<Vec<_>>()
                },
                |burst| {
                    burst.iter().for_each(|hash| table.prefetch(*hash));
                    burst.iter().for_each(|hash| table.prefetch_rest(*hash));
                    for hash in &burst {
                        black_box(table.insert(*hash, entry, &room));
                    }
                    for found in burst.iter().filter_map(|hash| table.find(*hash)) {
                        table.remove(&found);
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn tokens(c: &mut Criterion) {
    let key = HashKey::from_seed(&[1; 32]);
    let tick = Tick::from_seconds(0);
    let hashed = |n: u32| {
        let token = Token(n.wrapping_mul(0x9e37_79b9));
        (key.token(token, PoolId(1)), token)
    };
    let mut group = c.benchmark_group("tokens");
    group.throughput(Throughput::Elements(BURST as u64));
    for size in SIZES {
        let table = TokenTable::new(Lines::heap(TokenTable::lines_for(size as usize)));
        for n in 0..size {
            let (hash, token) = hashed(n);
            table.learn(hash, token, BackendId(1), tick, |_| true);
        }
        let known: Vec<_> = shuffled(size).into_iter().map(hashed).collect();
        let unknown: Vec<_> = shuffled(size).into_iter().map(|n| hashed(n + size)).collect();
        for (what, keys) in [("hit", known), ("miss", unknown)] {
            let mut bursts = keys.chunks_exact(BURST).cycle();
            group.bench_function(BenchmarkId::new(what, size), |b| {
                b.iter(|| {
                    let Some(burst) = bursts.next() else { return };
                    burst.iter().for_each(|(hash, _)| table.prefetch(*hash));
                    burst.iter().for_each(|(hash, token)| table.prefetch_rest(*hash, *token));
                    for (hash, token) in burst {
                        black_box(table.find(*hash, *token, |backend| backend.0 != 0));
                    }
                });
            });
        }
    }
    group.finish();
}

fn maglev(c: &mut Criterion) {
    let names: Vec<String> = (0..100).map(|n| format!("backend-{n}")).collect();
    let pool: Vec<_> = names.iter().zip(1..).map(|(name, id)| (name.as_str(), BackendId(id), 100)).collect();
    c.bench_function("maglev/build 100 backends", |b| b.iter(|| Maglev::build(black_box(&pool), 1)));
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = hashes, flows, tokens, maglev
}
criterion_main!(benches);
