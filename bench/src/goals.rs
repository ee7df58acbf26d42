//! `weft-bench goals`: every figure that was aimed at and needs no port, one after the other, each beside its goal.
//!
//! Of record is the ratio to the floor of the same rounds; the nanoseconds are those of the machine at hand.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use engine::flow_table::FlowTable;
use engine::token_table::TokenTable;
use ipc::lines::LINE;

use crate::engine_bench::{
    self, Bench, CaseName, FamilyName, FramesName, Lookups, Options as EngineOptions, Subject, record,
};
use crate::floor::REWRITE;
use crate::machine;
use crate::number::float;
use crate::report::{Row, Run};
use crate::swap;

/// How far from the floor the engine may be.
const MOST_RATIO: f64 = 1.25;

/// Established flows: how many, and what a packet may cost over IPv4 and IPv6 in bursts of 32.
const ESTABLISHED: [(u32, [f64; 2]); 4] =
    [(1_000, [16.0, 18.0]), (64_000, [20.0, 23.0]), (1_000_000, [26.0, 29.0]), (10_000_000, [35.0, 39.0])];

/// Two thirds of what Katran costs, one packet at a time, where it was measured.
const ALONE: [(u32, f64); 3] = [(1_000, 68.0), (64_000, 198.0), (1_000_000, 251.0)];

/// Bursts of 64.
const LONG: [(u32, f64); 2] = [(1_000_000, 24.0), (10_000_000, 32.0)];

/// What opens something, with as many tokens, and what it may cost.
const OPENINGS: [(CaseName, u32, f64); 8] = [
    (CaseName::CapableSyn, 1_000_000, 40.0),
    (CaseName::JoinUnknown, 1_000_000, 60.0),
    (CaseName::Join, 1_000_000, 50.0),
    (CaseName::Join, 10_000_000, 57.0),
    (CaseName::Join, 100_000_000, 70.0),
    (CaseName::ThirdAck, 1_000_000, 82.0),
    (CaseName::ThirdAck, 10_000_000, 105.0),
    (CaseName::ThirdAck, 100_000_000, 140.0),
];

/// Tokens; a hit and a miss in bursts of 32, a hit in bursts of 64.
const LOOKUPS: [(u32, [f64; 3]); 2] = [(10_000_000, [19.0, 24.0, 13.0]), (100_000_000, [25.0, 32.0, 20.0])];

/// What to measure, and where to.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Fewer rounds, and nothing that needs a gigabyte: some two minutes.
    #[arg(long)]
    pub quick: bool,
    /// Only figures whose case or name holds this word; may be given more than once.
    #[arg(long, value_name = "WORD")]
    pub only: Vec<String>,
    /// Rounds of each figure. By default 9, and 3 of the quick ones.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,
    /// The CPU to run on. By default the last one.
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Write the run here too, as JSON.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs `weft-bench goals`.
///
/// # Errors
/// Something could not be measured.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let run = record(measure(options)?);
    if let Some(path) = &options.out {
        let unfinished = path.with_extension("tmp");
        std::fs::write(&unfinished, run.to_json()?)
            .and_then(|()| std::fs::rename(&unfinished, path))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if options.json {
        print!("{}", run.to_json()?);
    } else {
        print!("{}", run.to_table());
        println!("\n{}", verdict(&run));
    }
    Ok(())
}

/// All rows.
///
/// # Errors
/// Something could not be measured.
pub fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let goals = Goals { options };
    let mut rows = Vec::new();
    // First, while this process may use all CPUs.
    goals.threads(&mut rows)?;
    goals.swap(&mut rows)?;
    machine::pin(options.cpu.or_else(|| machine::cpus().last().copied()).unwrap_or(0))?;
    goals.memory(&mut rows);
    goals.established(&mut rows)?;
    goals.openings(&mut rows)?;
    goals.lookups(&mut rows)?;
    Ok(rows)
}

/// Which goals were met, in one sentence.
pub fn verdict(run: &Run) -> String {
    let with_goal: Vec<&Row> = run.series.iter().filter(|row| row.goal.is_some()).collect();
    let missed: Vec<String> = with_goal
        .iter()
        .filter(|row| !is_met(row))
        .map(|row| format!("{} {}", row.figure, row.describe()))
        .collect();
    let far: Vec<&&Row> =
        with_goal.iter().filter(|row| row.floor_ratio.is_some_and(|ratio| ratio > MOST_RATIO)).collect();
    format!(
        "{} of {} goals met on this machine{}{}; {} figures are further than {MOST_RATIO} times from the floor",
        with_goal.len() - missed.len(),
        with_goal.len(),
        if missed.is_empty() { "" } else { "; missed: " },
        missed.join(", "),
        far.len()
    )
}

/// Whether a row's figure is as good as was aimed at.
pub fn is_met(row: &Row) -> bool {
    // More is better of a ratio of throughputs, less of all else. A part in a thousand is nothing: the sixteen lines
    // that every table has more are for small ones.
    let within = |goal: f64| {
        if row.unit == "ratio" { row.median >= goal * 0.999 } else { row.median <= goal * 1.001 }
    };
    row.goal.is_none_or(within)
}

struct Goals<'a> {
    options: &'a Options,
}

impl Goals<'_> {
    fn rounds(&self) -> u32 {
        self.options.rounds.unwrap_or(if self.options.quick { 3 } else { 9 })
    }

    /// Whether a figure of this name is wanted at all.
    fn wants(&self, name: &str) -> bool {
        self.options.only.is_empty() || self.options.only.iter().any(|word| name.contains(word.as_str()))
    }

    /// Whether tables of so many entries are wanted.
    fn has_time_for(&self, entries: u32) -> bool {
        !self.options.quick || entries <= 10_000_000
    }

    fn engine(&self, case: CaseName, family: FamilyName, flows: u32, tokens: Option<u32>) -> EngineOptions {
        EngineOptions {
            config: None,
            pcap: None,
            warm: None,
            flows,
            case,
            tokens,
            threads: None,
            family,
            frames: FramesName::Dss,
            burst: 32,
            rounds: self.rounds(),
            packets: self.options.quick.then_some(300_000),
            cold: false,
            seed: 1,
            cpu: self.options.cpu,
            json: false,
        }
    }

    fn established(&self, rows: &mut Vec<Row>) -> anyhow::Result<()> {
        for (flows, goals) in ESTABLISHED {
            for (family, goal) in [FamilyName::V4, FamilyName::V6].into_iter().zip(goals) {
                let name = format!("established_v{}", family.family() as u8);
                if !self.wants(&name)
                    || (self.options.quick && flows == 10_000_000 && family == FamilyName::V6)
                {
                    continue;
                }
                eprintln!("{name}, {flows} flows");
                let mut bench = Bench::new(&self.engine(CaseName::Established, family, flows, None))?;
                let find = |goals: &[(u32, f64)]| {
                    let found = goals.iter().find(|(of, _)| *of == flows && family == FamilyName::V4);
                    found.map(|(_, goal)| *goal)
                };
                for (burst, cold, goal) in [
                    (32, false, Some(goal)),
                    (32, true, Some(goal)),
                    (1, false, find(&ALONE)),
                    (64, false, find(&LONG)),
                ] {
                    bench.receive_in(burst, cold);
                    let measured = bench.measure(&[Subject::Engine, Subject::Floor(REWRITE)], self.rounds());
                    let some = engine_bench::rows(&bench, u64::from(burst), cold, &measured);
                    rows.extend(some.into_iter().map(|row| {
                        let goal = goal.filter(|_| row.figure == "engine");
                        Row { goal, ..row }
                    }));
                }
            }
        }
        Ok(())
    }

    fn openings(&self, rows: &mut Vec<Row>) -> anyhow::Result<()> {
        for (case, tokens, goal) in OPENINGS {
            let Some(kind) = case.opening() else { continue };
            if !self.wants(kind.case()) || !self.has_time_for(tokens) {
                continue;
            }
            eprintln!("{}, {tokens} tokens", kind.case());
            let options = self.engine(case, FamilyName::V4, 1_000_000, Some(tokens));
            let [engine, floor] = engine_bench::open(kind, &options)?;
            rows.extend([Row { goal: Some(goal), ..engine }, floor]);
        }
        Ok(())
    }

    fn lookups(&self, rows: &mut Vec<Row>) -> anyhow::Result<()> {
        for (tokens, [hit32, miss32, hit64]) in LOOKUPS {
            if !self.wants("token") || !self.has_time_for(tokens) {
                continue;
            }
            eprintln!("look-ups, {tokens} tokens");
            let lookups = Lookups::new(&self.engine(CaseName::TokenHit, FamilyName::V4, 1024, Some(tokens)))?;
            for (hit, goals) in [(true, [Some(hit32), Some(hit64)]), (false, [Some(miss32), None])] {
                let rounds = lookups.measure(hit, &[32, 64], self.rounds());
                for ((burst, rounds), goal) in [32, 64].into_iter().zip(&rounds).zip(goals) {
                    rows.push(Row { goal, ..engine_bench::look(&lookups, hit, burst, rounds) });
                }
            }
        }
        Ok(())
    }

    /// Bytes of an entry at the advised size: what the tables take, not what a figure says.
    fn memory(&self, rows: &mut Vec<Row>) {
        if !self.wants("memory") {
            return;
        }
        let of = |case: &str, lines: usize, entries: usize, goal| {
            let bytes = float((lines * LINE) as u64) / float(entries as u64);
            Row {
                figure: "memory".to_owned(),
                case: case.to_owned(),
                unit: "bytes".to_owned(),
                median: bytes,
                min: bytes,
                max: bytes,
                rounds: 1,
                goal: Some(goal),
                ..Row::default()
            }
        };
        let (flows, tokens) = (10_000_000, 100_000_000);
        let (flow_lines, token_lines) = (FlowTable::lines_for(flows), TokenTable::lines_for(tokens));
        rows.push(of("a flow", flow_lines, flows, 30.0));
        rows.push(of("a token", token_lines, tokens, 13.0));
        let gib = 1.6 * f64::from(1 << 30);
        rows.push(of("10 M flows and 100 M tokens", flow_lines + token_lines, 1, gib));
    }

    fn threads(&self, rows: &mut Vec<Row>) -> anyhow::Result<()> {
        if !self.wants("threads") {
            return Ok(());
        }
        if machine::cpus().len() < 2 {
            eprintln!("two threads are not measured: this process may use one CPU");
            return Ok(());
        }
        eprintln!("two threads");
        let options = self.engine(CaseName::Established, FamilyName::V4, 1_000_000, None);
        let some = engine_bench::measure_threads(&options, 2)?;
        rows.extend(some.into_iter().map(|row| {
            let goal = (row.unit == "ratio").then_some(1.85);
            Row { goal, ..row }
        }));
        Ok(())
    }

    fn swap(&self, rows: &mut Vec<Row>) -> anyhow::Result<()> {
        if !self.wants("swap") || machine::cpus().len() < 2 {
            return Ok(());
        }
        eprintln!("swaps");
        let options = swap::Options {
            backends: vec![10, 100, 1000],
            seconds: if self.options.quick { 0.5 } else { 2.0 },
            rounds: self.rounds().min(5),
            cpu: self.options.cpu,
            json: false,
        };
        rows.extend(swap::measure(&options)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(figure: f64, goal: Option<f64>, unit: &str) -> Row {
        Row { median: figure, goal, unit: unit.to_owned(), case: "x".to_owned(), ..Row::default() }
    }

    #[test]
    fn less_is_better_but_of_a_ratio() {
        assert!(is_met(&row(10.0, Some(10.0), "ns")) && !is_met(&row(10.1, Some(10.0), "ns")));
        assert!(is_met(&row(1.9, Some(1.85), "ratio")) && !is_met(&row(1.8, Some(1.85), "ratio")));
        assert!(is_met(&row(1e9, None, "ns")));
    }

    #[test]
    fn the_verdict_names_what_was_missed() {
        let missed =
            Row { floor_ratio: Some(1.4), figure: "engine".to_owned(), ..row(12.0, Some(10.0), "ns") };
        let run = record(vec![row(9.0, Some(10.0), "ns"), missed, row(1.0, None, "ns")]);
        let verdict = verdict(&run);
        assert!(verdict.starts_with("1 of 2 goals met on this machine; missed: engine x;"), "{verdict}");
        assert!(verdict.contains("1 figures"), "{verdict}");
    }

    #[test]
    fn tables_of_the_advised_size_are_within_their_memory() {
        let options = Options {
            quick: true,
            only: vec!["memory".to_owned()],
            rounds: None,
            cpu: None,
            out: None,
            json: false,
        };
        let mut rows = Vec::new();
        Goals { options: &options }.memory(&mut rows);
        assert_eq!(rows.len(), 3);
        assert!(rows.iter().all(is_met), "{rows:?}");
    }
}
