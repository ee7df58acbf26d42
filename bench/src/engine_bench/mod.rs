//! `weft-bench engine` and `weft-bench floor`: what a packet costs on its way through the real engine, and how far that
//! is from the least it could cost.
//!
//! The engine is [`engine::pipeline::Pipeline::process`], with the same snapshot, tables and counters that a worker
//! gives it. Tables stand at the load they are advised to be used at; flows come in random order.

mod bench;
mod fill;
mod lookups;
mod openings;
mod options;
mod path;
mod threads;
mod traffic;

use serde_json::{Map, Value, json};

pub use self::bench::{Bench, Measured, Subject, progress};
pub use self::lookups::Lookups;
pub use self::openings::{Kind, Opened, Openings};
pub use self::options::{CaseName, FamilyName, FramesName, Options, count};
pub use self::path::{EnginePath, Reasons, Worker, flows, tokens};
pub use self::threads::measure as measure_threads;
pub use self::traffic::{Capture, Established, Opening};
use crate::floor::{HASH, LINE, REWRITE};
use crate::machine;
use crate::measure::Rounds;
use crate::report::{Row, Run};

/// Runs `weft-bench engine`.
///
/// # Errors
/// What it is to measure on is not there, or the engine refuses it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(threads) = options.threads {
        let rows = measure_threads(options, threads)?;
        return show(options, None, rows);
    }
    pin(options)?;
    if let Some(kind) = options.case.opening() {
        return show(options, None, open(kind, options)?.into());
    }
    let hit = match options.case {
        CaseName::TokenHit => true,
        CaseName::TokenMiss => false,
        _ => return compare(options, &[Subject::Engine, Subject::Floor(REWRITE)]),
    };
    let lookups = Lookups::new(options)?;
    let rounds = lookups.measure(hit, &[usize::from(options.burst)], options.rounds);
    let rows = rounds.iter().map(|rounds| look(&lookups, hit, u64::from(options.burst), rounds));
    show(options, None, rows.collect())
}

/// Runs `weft-bench floor`.
///
/// # Errors
/// What it is to measure on is not there, or the engine refuses it.
pub fn run_floor(options: &Options) -> anyhow::Result<()> {
    if options.case != CaseName::Established || options.threads.is_some() {
        anyhow::bail!("the floor is that of established connections: leave --case and --threads out");
    }
    pin(options)?;
    compare(options, &[Subject::Floor(HASH), Subject::Floor(LINE), Subject::Floor(REWRITE)])
}

fn pin(options: &Options) -> anyhow::Result<()> {
    machine::pin(options.cpu.or_else(|| machine::cpus().last().copied()).unwrap_or(0))
}

fn compare(options: &Options, subjects: &[Subject]) -> anyhow::Result<()> {
    let mut bench = Bench::new(options)?;
    let measured = bench.measure(subjects, options.rounds);
    let rows = rows(&bench, u64::from(options.burst), options.cold, &measured);
    let mut summary = bench.summary();
    for Measured { subject, total, .. } in &measured {
        let (allocations, packets) = (total.allocations, total.packets);
        summary += &format!("\n{}: {allocations} allocations in {packets} packets", subject.name());
    }
    show(options, Some(&summary), rows)
}

/// Prints a run.
fn show(options: &Options, summary: Option<&str>, series: Vec<Row>) -> anyhow::Result<()> {
    let run = record(series);
    if options.json {
        print!("{}", run.to_json()?);
        return Ok(());
    }
    if let Some(summary) = summary {
        println!("{summary}\n");
    }
    print!("{}", run.to_table());
    Ok(())
}

/// The rows as a run of this machine, today.
pub fn record(series: Vec<Row>) -> Run {
    let mut pages: Vec<&str> =
        series.iter().filter_map(|row| row.extra.get("pages").and_then(Value::as_str)).collect();
    pages.sort_unstable();
    pages.dedup();
    Run {
        weft_bench: env!("CARGO_PKG_VERSION").to_owned(),
        date: machine::today(),
        command: machine::command(),
        conditions: machine::conditions(&pages.join(", ")),
        series,
    }
}

/// A row of figures in nanoseconds.
fn nanoseconds(figure: &str, rounds: &Rounds) -> Row {
    Row { figure: figure.to_owned(), workers: Some(1), ..rounds.row("ns") }
}

/// A row for each subject. The engine's has its ratio to the whole floor.
pub fn rows(bench: &Bench, burst: u64, cold: bool, measured: &[Measured]) -> Vec<Row> {
    let floor = measured.iter().find(|one| one.subject == Subject::Floor(REWRITE)).map(|one| &one.rounds);
    let ratio = |one: &Measured| {
        let floor = floor.filter(|_| one.subject == Subject::Engine)?;
        Some(one.rounds.over(floor).median())
    };
    let row = |one: &Measured| Row {
        case: bench.case().to_owned(),
        flows: Some(bench.flows()),
        tokens: Some(bench.tokens()),
        frame_bytes: Some(bench.frame_bytes()),
        burst: Some(burst),
        cold,
        floor_ratio: ratio(one),
        extra: extra(bench, one),
        ..nanoseconds(one.subject.name(), &one.rounds)
    };
    measured.iter().map(row).collect()
}

/// What else belongs to a subject's figure.
fn extra(bench: &Bench, one: &Measured) -> Map<String, Value> {
    let mut extra = if one.subject == Subject::Engine { bench.reasons().extra() } else { Map::new() };
    extra.insert("pages".to_owned(), json!(bench.pages()));
    extra.insert("packets_a_round".to_owned(), json!(one.total.packets / one.rounds.len().max(1) as u64));
    extra.insert("allocations".to_owned(), json!(one.total.allocations));
    extra.insert("receive_ns".to_owned(), json!(one.receive.median()));
    if one.subject == Subject::Engine {
        extra.insert("load".to_owned(), json!(bench.load()));
        extra.insert("first_line".to_owned(), json!(bench.first_line()));
    } else {
        extra.insert("hit_rate".to_owned(), json!(bench.floor_hit_rate()));
    }
    extra
}

/// The row of what opens something.
///
/// # Errors
/// The configuration is refused.
pub fn open(kind: Kind, options: &Options) -> anyhow::Result<[Row; 2]> {
    let mut openings = Openings::new(kind, options)?;
    let opened = openings.measure(options.rounds);
    let [flows, tokens] = openings.counts();
    let row = |figure, rounds| Row {
        case: format!("{}_v{}", kind.case(), options.family.family() as u8),
        flows: Some(flows),
        tokens: Some(tokens),
        burst: Some(u64::from(options.burst)),
        ..nanoseconds(figure, rounds)
    };
    Ok([
        Row {
            floor_ratio: Some(opened.rounds.over(&opened.floor).median()),
            extra: openings.extra(&opened.total),
            ..row("engine", &opened.rounds)
        },
        row("floor", &opened.floor),
    ])
}

/// The row of look-ups in the token table.
pub fn look(lookups: &Lookups, hit: bool, burst: u64, rounds: &Rounds) -> Row {
    Row {
        case: if hit { "hit" } else { "miss" }.to_owned(),
        tokens: Some(u64::from(lookups.tokens())),
        burst: Some(burst),
        extra: lookups.extra(),
        ..nanoseconds("token", rounds)
    }
}
