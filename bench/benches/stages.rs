//! What each step of a packet's way costs by itself, and the whole of it by kind of packet.
//!
//! Run: `cargo bench -p weft-bench --bench stages`. Times are per burst of 32, tables small and everything in cache: what
//! memory costs is measured by `weft-bench engine`, what a step costs in instructions by `weft-bench budget`.
//!
//! Every step is first run with the allocator counted: one allocation and the bench ends.

#![expect(clippy::panic, reason = "a bench that cannot run ends")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::hash::HashKey;
use engine::maglev::Maglev;
use ipc::id::{BackendId, PoolId};
use packet::tunnel::Inner;
use packet::{Family, Flow, Key, Parsed, Token, Version, options, parse};
use weft_bench::alloc;
use weft_bench::arena::Held;
use weft_bench::budget::case::{Case, PACKETS, Prepared};
use weft_bench::traffic::{Clients, Service, Shape, Template};

const BURST: usize = 32;
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// The shapes whose options differ.
const SHAPES: [(&str, Shape); 6] = [
    ("capable_syn", Shape::CapableSyn),
    ("third_ack", Shape::CapableAck),
    ("join_syn", Shape::JoinSyn),
    ("data_map_ack", Shape::DataMapAck),
    ("timestamps", Shape::Timestamps),
    ("bare", Shape::Bare),
];

/// A burst of one shape, of as many clients.
fn frames(shape: Shape, family: Family) -> Vec<Vec<u8>> {
    let clients = Clients { service: Service::standard(family), seed: 3 };
    let template = Template::new(shape, &clients.service);
    let mut held = Held::default();
    let write = |number| {
        let len = template.write(&clients.get(number), Token(7), &mut held);
        held.0.iter().take(len).copied().collect()
    };
    (0..BURST as u64).map(write).collect()
}

fn parsed(frames: &[Vec<u8>]) -> Vec<Parsed> {
    frames.iter().map(|frame| parse(frame, frame.len())).collect()
}

/// Measures a step that must not allocate.
fn step<T>(c: &mut Criterion, group: &str, name: &str, mut run: impl FnMut() -> T) {
    let before = alloc::count();
    for _ in 0..100 {
        black_box(run());
    }
    assert_eq!(alloc::count(), before, "{group}/{name} allocates");
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function(name, |b| b.iter(&mut run));
    group.finish();
}

fn parsing(c: &mut Criterion) {
    for family in FAMILIES {
        for (name, shape) in SHAPES {
            let frames = frames(shape, family);
            let name = format!("{name} v{}", family as u8);
            step(c, "parse", &name, || {
                frames.iter().fold(0, |sum, frame| sum ^ parse(black_box(frame), frame.len()).tcp.seq)
            });
        }
    }
    for (name, shape) in SHAPES {
        let frames = frames(shape, Family::V4);
        let parsed = parsed(&frames);
        step(c, "options", name, || {
            for (frame, parsed) in frames.iter().zip(&parsed) {
                black_box(options(black_box(parsed.tcp_options(frame)), parsed.tcp.flags, false));
            }
        });
    }
}

fn hashing(c: &mut Criterion) {
    let key = HashKey::from_seed(&[1; 32]);
    for family in FAMILIES {
        let flows: Vec<Flow> =
            parsed(&frames(Shape::Bare, family)).iter().map(|parsed| parsed.flow).collect();
        step(c, "hash", &format!("flow v{}", family as u8), || {
            flows.iter().fold(0, |sum, flow| sum ^ key.flow(black_box(flow)))
        });
    }
    step(c, "hash", "token", || {
        (0..32_u32).fold(0, |sum, number| sum ^ key.token(Token(black_box(number)), PoolId(1)))
    });
    for version in [Version::V0, Version::V1] {
        step(c, "token_of_key", &format!("{version:?}"), || {
            (0..32_u8).fold(0, |sum, byte| sum ^ Token::from_key(version, &Key([black_box(byte); 8])).0)
        });
    }
    let names: Vec<String> = (0..100).map(|n| format!("backend-{n}")).collect();
    let pool: Vec<_> = names.iter().zip(1..).map(|(name, id)| (name.as_str(), BackendId(id), 100)).collect();
    if let Some(maglev) = Maglev::build(&pool, 1) {
        step(c, "maglev", "choose", || {
            (0..32_u64)
                .fold(0, |sum, n| sum ^ maglev.choose(black_box(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).0)
        });
    }
}

fn tunnels(c: &mut Criterion) {
    for family in FAMILIES {
        let frames = frames(Shape::DataMapAck, family);
        let parsed = parsed(&frames);
        let inner =
            |frame: &[u8], parsed: &Parsed| Inner::new(frame, parsed, parsed.packet_len(), 0x1234_5678);
        let name = |outer: &str| format!("v{} in {outer}", family as u8);
        step(c, "tunnel", &name("ipip v4"), || {
            for (frame, parsed) in frames.iter().zip(&parsed) {
                black_box(inner(black_box(frame), parsed).ip_over_v4([10, 0, 0, 1], [10, 0, 0, 2]));
            }
        });
        step(c, "tunnel", &name("ipip v6"), || {
            for (frame, parsed) in frames.iter().zip(&parsed) {
                black_box(inner(black_box(frame), parsed).ip_over_v6([1; 16], [2; 16]));
            }
        });
        step(c, "tunnel", &name("gue v4"), || {
            for (frame, parsed) in frames.iter().zip(&parsed) {
                black_box(inner(black_box(frame), parsed).gue_over_v4([10, 0, 0, 1], [10, 0, 0, 2]));
            }
        });
        step(c, "tunnel", &name("gue v6"), || {
            for (frame, parsed) in frames.iter().zip(&parsed) {
                black_box(inner(black_box(frame), parsed).gue_over_v6([1; 16], [2; 16]));
            }
        });
    }
}

/// The whole pipeline, by kind of packet: those of the budget. Preparing does not count; each packet is met once.
fn pipeline(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(BURST as u64));
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200));
    for case in Case::value_variants() {
        group.bench_function(case.name(), |b| {
            b.iter_custom(|bursts| {
                let (mut time, mut left) = (Duration::ZERO, bursts);
                while left > 0 {
                    let count = left.min(u64::from(PACKETS) / BURST as u64);
                    time += once(*case, count);
                    left -= count;
                }
                time
            });
        });
    }
    group.finish();
}

/// What so many bursts take of a case that is made anew.
fn once(case: Case, bursts: u64) -> Duration {
    let packets = usize::try_from(bursts).unwrap_or(0) * BURST;
    let mut prepared = Prepared::new(case).unwrap_or_else(|error| panic!("{}: {error:#}", case.name()));
    let before = alloc::count();
    let begin = Instant::now();
    prepared.judge(packets);
    let time = begin.elapsed();
    assert_eq!(alloc::count(), before, "{} allocates", case.name());
    time
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(2));
    targets = parsing, hashing, tunnels, pipeline
}
criterion_main!(benches);
