//! `weft-bench engine` and `weft-bench floor`: what a packet costs on its way through the real engine, and how far that
//! is from the least it could cost.
//!
//! The engine is [`engine::pipeline::Pipeline::process`], with the same snapshot, tables and counters that a worker
//! gives it. Tables stand at the load they are advised to be used at; flows come in random order.

mod bench;
mod options;
mod path;
mod traffic;

use serde_json::{Map, Value, json};

pub use self::bench::{Bench, Measured, Subject};
pub use self::options::{FamilyName, FramesName, Options, count};
pub use self::path::{EnginePath, Reasons, Worker, flows, tokens};
pub use self::traffic::{Capture, Established, Opening};
use crate::floor::{HASH, LINE, REWRITE};
use crate::machine;
use crate::report::{Row, Run};

/// Runs `weft-bench engine`.
///
/// # Errors
/// What it is to measure on is not there, or the engine refuses it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    measure(options, &[Subject::Engine, Subject::Floor(REWRITE)])
}

/// Runs `weft-bench floor`.
///
/// # Errors
/// What it is to measure on is not there, or the engine refuses it.
pub fn run_floor(options: &Options) -> anyhow::Result<()> {
    measure(options, &[Subject::Floor(HASH), Subject::Floor(LINE), Subject::Floor(REWRITE)])
}

fn measure(options: &Options, subjects: &[Subject]) -> anyhow::Result<()> {
    let cpus = machine::cpus();
    machine::pin(options.cpu.or_else(|| cpus.last().copied()).unwrap_or(0))?;
    let mut bench = Bench::new(options)?;
    let measured = bench.measure(subjects, options.rounds);
    let run = Run {
        weft_bench: env!("CARGO_PKG_VERSION").to_owned(),
        date: machine::today(),
        command: machine::command(),
        conditions: machine::conditions(bench.pages()),
        series: rows(&bench, options, &measured),
    };
    if options.json {
        print!("{}", run.to_json()?);
        return Ok(());
    }
    println!("{}", bench.summary());
    for Measured { subject, total, .. } in &measured {
        println!("{}: {} allocations in {} packets", subject.name(), total.allocations, total.packets);
    }
    println!();
    print!("{}", run.to_table());
    Ok(())
}

/// A row for each subject. The engine's has its ratio to the whole floor.
pub fn rows(bench: &Bench, options: &Options, measured: &[Measured]) -> Vec<Row> {
    let floor = measured.iter().find(|one| one.subject == Subject::Floor(REWRITE)).map(|one| &one.rounds);
    let row = |one: &Measured| Row {
        figure: one.subject.name().to_owned(),
        case: bench.case().to_owned(),
        flows: Some(bench.flows()),
        tokens: Some(bench.tokens()),
        frame_bytes: Some(bench.frame_bytes()),
        burst: Some(u64::from(options.burst)),
        workers: Some(1),
        cold: options.cold,
        unit: "ns".to_owned(),
        median: one.rounds.median(),
        min: one.rounds.min(),
        max: one.rounds.max(),
        rounds: one.rounds.len() as u64,
        floor_ratio: floor
            .filter(|_| one.subject == Subject::Engine)
            .map(|floor| one.rounds.over(floor).median()),
        extra: extra(bench, one),
        ..Row::default()
    };
    measured.iter().map(row).collect()
}

/// What else belongs to a subject's figure.
fn extra(bench: &Bench, one: &Measured) -> Map<String, Value> {
    let mut extra = Map::new();
    extra.insert("pages".to_owned(), json!(bench.pages()));
    extra.insert("packets_a_round".to_owned(), json!(one.total.packets / one.rounds.len().max(1) as u64));
    extra.insert("allocations".to_owned(), json!(one.total.allocations));
    extra.insert("receive_ns".to_owned(), json!(one.receive.median()));
    if one.subject == Subject::Engine {
        extra.insert("load".to_owned(), json!(bench.load()));
        extra.insert("first_line".to_owned(), json!(bench.first_line()));
        let reasons: Map<String, Value> = bench
            .reasons()
            .occurred()
            .into_iter()
            .map(|(reason, count)| (reason.name().to_owned(), json!(count)))
            .collect();
        extra.insert("reasons".to_owned(), Value::Object(reasons));
    } else {
        extra.insert("hit_rate".to_owned(), json!(bench.floor_hit_rate()));
    }
    extra
}
