//! `weft-bench swap`: what a change of the configuration costs a worker that goes on working.
//!
//! A worker polls as in life: takes over a snapshot if there is one, judges a burst. Beside it, on another CPU, a manager
//! changes the weight of every backend, builds what follows (Maglev's tables too) and publishes it, as fast as it can;
//! or does nothing. Quiet and busy spells take turns, so that what else runs on the machine meets both. Two figures
//! come of it: what taking a snapshot over adds to a poll, whatever the number of backends, and how long a worker ever
//! was between two polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use config::Config;
use engine::model::Model;
use engine::pipeline::{Context, Pipeline};
use engine::snapshot::{Site, Snapshot};
use engine::tables::Tables;
use ipc::counters::WorkerCounters;
use ipc::id::PortId;
use ipc::message::Command;
use packet::{Family, Token};
use serde_json::json;
use site::publish::{Publisher, Subscriber};

use crate::arena::{Buffer, Burst, Held, Place, buffers};
use crate::engine_bench::{progress, record};
use crate::histogram::Histogram;
use crate::machine;
use crate::measure::Rounds;
use crate::number::float;
use crate::report::Row;
use crate::traffic::{Clients, Service, Shape, Template, mix};
use crate::world::{BEGIN_S, World, with_backends};

/// Packets of a poll.
const BURST: usize = 32;

/// Flows of the traffic, one after another in bursts.
const FLOWS: u64 = 4096;

/// The percentiles of the gaps that are reported.
const PERCENTILES: [f64; 5] = [50.0, 99.0, 99.9, 99.99, 100.0];

/// What to measure, and how.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How many backends change at once; may be given more than once.
    #[arg(long, default_values = ["10", "100", "1000"])]
    pub backends: Vec<u16>,
    /// Seconds of a spell.
    #[arg(long, default_value = "1.0", value_parser = seconds)]
    pub seconds: f64,
    /// Quiet and busy spells, of each number of backends.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// The worker's CPU. By default the last one; the manager stays off it.
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if (0.01..=600.0).contains(&number) { Ok(number) } else { Err("give 0.01 to 600 seconds".to_owned()) }
}

/// Runs `weft-bench swap`.
///
/// # Errors
/// There is no second CPU for the manager, or no such number of backends.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let run = record(measure(options)?);
    if options.json {
        print!("{}", run.to_json()?);
    } else {
        print!("{}", run.to_table());
    }
    Ok(())
}

/// The rows of all numbers of backends.
///
/// # Errors
/// As [`run`].
pub fn measure(options: &Options) -> anyhow::Result<Vec<Row>> {
    let cpus = machine::cpus();
    if cpus.len() < 2 {
        bail!("a worker and a manager need a CPU each, and this process may use one");
    }
    let cpu = options.cpu.or_else(|| cpus.last().copied()).unwrap_or(0);
    if !cpus.contains(&cpu) {
        bail!("this process may not use CPU {cpu}: choose one of {cpus:?} with --cpu");
    }
    let elsewhere = cpus.iter().copied().find(|other| *other != cpu).unwrap_or(0);
    let progress = progress(u64::from(options.rounds) * options.backends.len() as u64, "rounds");
    let mut rows = vec![handed_over([cpu, elsewhere], options.rounds)?];
    for backends in &options.backends {
        let config = with_backends(8192, 8192, *backends)?;
        let mut all = [Spell::default(), Spell::default()];
        let mut costs = [Rounds::default(), Rounds::default()];
        for round in 0..=options.rounds {
            for (busy, sum) in [false, true].into_iter().zip(&mut all) {
                let spell = spell(&config, busy, Duration::from_secs_f64(options.seconds), [cpu, elsewhere])?;
                if round == 0 {
                    continue;
                }
                if busy {
                    let [swap, after] = &mut costs;
                    swap.push(spell.swap_ns());
                    after.push(spell.after_ns());
                }
                sum.merge(spell);
            }
            if round > 0 {
                progress.inc(1);
            }
        }
        rows.extend(rows_of(*backends, &costs, &all));
    }
    progress.finish_and_clear();
    Ok(rows)
}

/// What it takes a cache line to get from one CPU to the other: the floor of everything that is handed over. A snapshot
/// needs several, one after another.
fn handed_over(cpus: [usize; 2], rounds: u32) -> anyhow::Result<Row> {
    // Few enough that neither side is interrupted in most of them.
    const TURNS: u32 = 1000;
    let ball = AtomicBool::new(false);
    let play = |cpu: usize, mine: bool| {
        machine::pin(cpu)?;
        let mut figures = Rounds::default();
        for _ in 0..rounds * 64 {
            let begin = Instant::now();
            for _ in 0..TURNS {
                while ball.load(Ordering::Acquire) != mine {
                    std::hint::spin_loop();
                }
                ball.store(!mine, Ordering::Release);
            }
            // There and back in each turn.
            figures.push(begin.elapsed().as_secs_f64() * 1e9 / f64::from(2 * TURNS));
        }
        anyhow::Ok(figures)
    };
    let [one, other] = cpus;
    let figures = std::thread::scope(|scope| {
        let partner = scope.spawn(move || play(other, true));
        let figures = scope.spawn(move || play(one, false)).join();
        let partner = partner.join();
        match (figures, partner) {
            (Ok(figures), Ok(Ok(_))) => figures,
            _ => bail!("a thread died"),
        }
    })?;
    Ok(Row {
        figure: "swap".to_owned(),
        case: "one cache line handed over".to_owned(),
        workers: Some(1),
        ..figures.row("ns")
    })
}

/// What a worker met in a spell, in cycles.
#[derive(Debug, Default)]
struct Spell {
    /// Looking for a snapshot where there was none, and taking one over.
    idle: Histogram,
    swap: Histogram,
    /// The burst after each.
    burst: Histogram,
    burst_after: Histogram,
    /// From one poll to the next.
    gaps: Histogram,
    cycles_per_ns: f64,
}

impl Spell {
    fn ns(&self, cycles: Option<u64>) -> f64 {
        if self.cycles_per_ns > 0.0 { float(cycles.unwrap_or(0)) / self.cycles_per_ns } else { 0.0 }
    }

    /// What taking a snapshot over adds to a poll, in the middle.
    fn swap_ns(&self) -> f64 {
        self.ns(self.swap.percentile(50.0)) - self.ns(self.idle.percentile(50.0))
    }

    /// What the first burst under a new snapshot takes longer than others, in the middle.
    fn after_ns(&self) -> f64 {
        self.ns(self.burst_after.percentile(50.0)) - self.ns(self.burst.percentile(50.0))
    }

    fn merge(&mut self, other: Self) {
        self.cycles_per_ns = other.cycles_per_ns;
        self.idle.merge(&other.idle);
        self.swap.merge(&other.swap);
        self.burst.merge(&other.burst);
        self.burst_after.merge(&other.burst_after);
        self.gaps.merge(&other.gaps);
    }
}

/// One spell of a worker, beside a manager that changes everything or sleeps.
fn spell(config: &Config, busy: bool, length: Duration, cpus: [usize; 2]) -> anyhow::Result<Spell> {
    let site = site::offline(config);
    let model = site::model(config)?;
    let world = World::new(config)?;
    let first = Arc::new(Snapshot::of_model(&model, &site, 1));
    let mut publisher = Publisher::default();
    let mut worker = Worker::new(publisher.subscribe(&first), &world.tables);
    let [cpu, elsewhere] = cpus;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let pinned = machine::pin(cpu);
            let spell = worker.work(length);
            stop.store(true, Ordering::Relaxed);
            pinned.map(|()| spell)
        });
        let managing = scope.spawn(|| {
            machine::pin(elsewhere)?;
            if busy { change(config, &model, &site, &first, &publisher, &stop) } else { Ok(()) }
        });
        let spell = working.join().unwrap_or_else(|_| bail!("the worker's thread died"))?;
        managing.join().unwrap_or_else(|_| bail!("the manager's thread died"))?;
        Ok(spell)
    })
}

/// Changes the weight of every backend and publishes what follows, again and again.
fn change(
    config: &Config,
    model: &Model,
    site: &Site,
    first: &Arc<Snapshot>,
    publisher: &Publisher,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut model = model.clone();
    let mut snapshot = Arc::clone(first);
    while !stop.load(Ordering::Relaxed) {
        let generation = snapshot.generation + 1;
        let commands: Vec<Command> =
            config.commands().into_iter().filter_map(|command| reweighted(command, generation)).collect();
        model = match model.apply(&commands) {
            Ok(next) => next,
            Err(refused) => bail!("a change of weights is refused at {}", refused.name),
        };
        snapshot = Arc::new(snapshot.following(&model, site, generation, BEGIN_S * 1000 + generation));
        while !publisher.publish(&snapshot) {
            std::thread::yield_now();
        }
        while !publisher.is_adopted(generation) && !stop.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        publisher.reclaim();
    }
    Ok(())
}

/// The command that gives a backend another weight; none for what is no backend.
fn reweighted(command: Command, generation: u64) -> Option<Command> {
    match command {
        Command::PutBackend { pool, name, address4, address6, mac, weight: _, state, handles } => {
            let of_name = name.as_str().bytes().fold(generation, |sum, byte| mix(sum ^ u64::from(byte)));
            let weight = 1 + u32::try_from(of_name % 100).unwrap_or(0);
            Some(Command::PutBackend { pool, name, address4, address6, mac, weight, state, handles })
        }
        _ => None,
    }
}

/// A worker without a port.
struct Worker<'a> {
    subscriber: Subscriber,
    tables: &'a Tables,
    counters: WorkerCounters,
    pipeline: Box<Pipeline>,
    memory: Box<[Buffer]>,
    held: Vec<Held>,
    places: Vec<Place>,
}

impl<'a> Worker<'a> {
    fn new(subscriber: Subscriber, tables: &'a Tables) -> Self {
        let clients = Clients { service: Service::standard(Family::V4), seed: 1 };
        let template = Template::new(Shape::DataAck, &clients.service);
        let mut held = vec![Held::default(); usize::try_from(FLOWS).unwrap_or(BURST)];
        let places = (0..)
            .zip(&mut held)
            .map(|(number, held)| Place::received(0, template.write(&clients.get(number), Token(0), held)))
            .collect();
        let counters = WorkerCounters::heap();
        Self { subscriber, tables, counters, pipeline: Box::default(), memory: buffers(BURST), held, places }
    }

    /// Polls for so long.
    fn work(&mut self, length: Duration) -> Spell {
        let mut spell = Spell::default();
        let (begin, first) = (Instant::now(), dpdk::cycles());
        let mut before = None;
        while begin.elapsed() < length {
            // The clock is asked once in so many polls: it would be most of a gap.
            for (held, places) in self.held.chunks(BURST).zip(self.places.chunks(BURST)) {
                let polled = dpdk::cycles();
                if let Some(before) = before {
                    spell.gaps.record(polled - before);
                }
                before = Some(polled);
                let swapped = self.subscriber.refresh();
                let refreshed = dpdk::cycles();
                let cx = Context {
                    snapshot: self.subscriber.snapshot(),
                    tables: self.tables,
                    counters: &self.counters,
                    now: engine::tick::Tick::from_seconds(BEGIN_S),
                    millis: BEGIN_S * 1000,
                    port: PortId(0),
                };
                let mut frames = Burst::new(&mut self.memory);
                frames.copy_in(held, places);
                std::hint::black_box(self.pipeline.process(&mut frames, &cx).leaving());
                let judged = dpdk::cycles();
                let (look, burst) = if swapped {
                    (&mut spell.swap, &mut spell.burst_after)
                } else {
                    (&mut spell.idle, &mut spell.burst)
                };
                look.record(refreshed - polled);
                burst.record(judged - refreshed);
            }
            before = None;
        }
        let passed = dpdk::cycles() - first;
        spell.cycles_per_ns = float(passed) / (begin.elapsed().as_secs_f64() * 1e9);
        spell
    }
}

/// The rows of one number of backends.
fn rows_of(backends: u16, costs: &[Rounds; 2], spells: &[Spell; 2]) -> Vec<Row> {
    let [swap, after] = costs;
    let [_, busy] = spells;
    let cost = |case: &str, rounds: &Rounds, goal| Row {
        figure: "swap".to_owned(),
        case: format!("{case}, {backends} backends"),
        burst: Some(BURST as u64),
        workers: Some(1),
        goal,
        extra: [
            ("backends".to_owned(), json!(backends)),
            ("swaps".to_owned(), json!(busy.swap.count())),
            ("p99_ns".to_owned(), json!(busy.ns(busy.swap.percentile(99.0)))),
        ]
        .into_iter()
        .collect(),
        ..rounds.row("ns")
    };
    let gap = |name: &str, spell: &Spell, percentile: f64| {
        let value = spell.ns(spell.gaps.percentile(percentile));
        Row {
            figure: "gap".to_owned(),
            case: format!("{name}, {backends} backends"),
            burst: Some(BURST as u64),
            workers: Some(1),
            unit: "ns".to_owned(),
            median: value,
            min: spell.ns(spell.gaps.least()),
            max: spell.ns(spell.gaps.greatest()),
            rounds: swap.len() as u64,
            percentile: Some(percentile),
            extra: [
                ("backends".to_owned(), json!(backends)),
                ("polls".to_owned(), json!(spell.gaps.count())),
                ("swaps".to_owned(), json!(spell.swap.count())),
            ]
            .into_iter()
            .collect(),
            ..Row::default()
        }
    };
    let mut rows =
        vec![cost("taken over", swap, Some(500.0)), cost("first burst after it, longer by", after, None)];
    for percentile in PERCENTILES {
        for (name, spell) in ["quiet", "all changing"].iter().zip(spells) {
            rows.push(gap(name, spell, percentile));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_spell_has_swaps_and_a_quiet_one_has_none() {
        let config = with_backends(1024, 1024, 20).unwrap();
        let cpus = machine::cpus();
        let pair = [*cpus.last().unwrap(), cpus[0]];
        let [quiet, busy] =
            [false, true].map(|busy| spell(&config, busy, Duration::from_millis(200), pair).unwrap());
        assert_eq!(quiet.swap.count(), 0);
        assert!(quiet.gaps.count() > 100 && busy.gaps.count() > 100);
        assert!(busy.swap.count() > 0, "the manager published nothing");
        let rows = rows_of(20, &[Rounds::default(), Rounds::default()], &[quiet, busy]);
        assert_eq!(rows.len(), 2 + 2 * PERCENTILES.len());
        assert!(rows.iter().all(|row| row.to_owned().median.is_finite()));
    }

    #[test]
    fn every_change_is_another_one() {
        let config = with_backends(1024, 1024, 3).unwrap();
        let weights = |generation| -> Vec<u32> {
            let changed = config.commands().into_iter().filter_map(|command| reweighted(command, generation));
            changed
                .map(|command| match command {
                    Command::PutBackend { weight, .. } => weight,
                    _ => panic!("only backends change"),
                })
                .collect()
        };
        assert_eq!(weights(1).len(), 3);
        assert_ne!(weights(1), weights(2));
    }
}
