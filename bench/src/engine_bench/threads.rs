//! Several workers on the same tables: what one costs the other.
//!
//! Each thread has its own pipeline, counters and part of the flows, as workers have; they share the tables. Their
//! traffic is mixed: of twenty packets seventeen of established connections, a SYN with MP_CAPABLE, the third ACK of one
//! that came some bursts before, a join of a known token. So they read the same table, insert flows and learn tokens
//! side by side. The ratio is how much more they do together than one of them alone, in the same round.

use std::sync::Barrier;

use anyhow::bail;
use serde_json::json;

use super::bench::{net, progress};
use super::{Established, Opening, Options, Reasons, Worker, fill};
use crate::arena::Held;
use crate::machine;
use crate::measure::{Feed, Pass, Receive, Rounds, Traffic};
use crate::number::float;
use crate::report::Row;
use crate::traffic::{Clients, Shape, shuffled};
use crate::world::{self, World};

/// Packets after which the mixture begins anew.
const CYCLE: u64 = 20;

/// So many cycles after its SYN comes a client's third ACK.
const LAG: u64 = 8;

/// Packets of a pass of each thread: written before they are measured, so that all threads are measured at once.
const PACKETS: usize = 200_000;

/// What one thread is fed.
#[derive(Debug)]
struct Mixed {
    established: Established,
    syn: Opening,
    ack: Opening,
    join: Opening,
    /// The first client of its own that is new.
    own: u64,
    at: u64,
    first: u64,
}

impl Traffic for Mixed {
    fn begin(&mut self, pass: u64) {
        self.at = 0;
        self.first = self.own + pass * (PACKETS as u64 / CYCLE) * 2;
        self.established.begin(pass);
        self.syn.begin(self.first);
        self.ack.begin(self.first);
        self.join.begin(self.first + PACKETS as u64 / CYCLE);
    }

    fn next(&mut self, frame: &mut Held) -> usize {
        let (cycle, place) = (self.at / CYCLE, self.at % CYCLE);
        self.at += 1;
        match place {
            3 => self.syn.next(frame),
            9 if cycle >= LAG => self.ack.next(frame),
            15 => self.join.next(frame),
            _ => self.established.next(frame),
        }
    }
}

/// One thread's own.
#[derive(Debug)]
struct Thread {
    cpu: usize,
    worker: Worker,
    feed: Feed,
    mixed: Mixed,
}

impl Thread {
    /// One pass: received, then received and judged, each when all threads are ready.
    fn pass(&mut self, world: &World, number: u64, ready: &Barrier) -> f64 {
        // A thread that may not have its CPU is measured where it is.
        let _ = machine::pin(self.cpu);
        let mut both = [Pass::default(); 2];
        for (pass, judged) in both.iter_mut().zip([false, true]) {
            self.mixed.begin(number);
            self.feed.write(&mut self.mixed, PACKETS);
            ready.wait();
            *pass = if judged {
                self.feed.run(&mut self.worker.path(world))
            } else {
                self.feed.run(&mut Receive)
            };
        }
        let [receive, engine] = both;
        net(&engine, &receive)
    }
}

/// Measures several threads against one: rows of nanoseconds, and one of the ratio.
///
/// # Errors
/// There are fewer CPUs than threads.
pub fn measure(options: &Options, threads: usize) -> anyhow::Result<Vec<Row>> {
    let cpus = machine::cpus();
    if threads > cpus.len() {
        bail!("{threads} threads need as many CPUs, and this process may use {}", cpus.len());
    }
    // What a pass opens is a tenth of them at most.
    let flows = options.flows.max(u32::try_from(threads * PACKETS)?);
    let kept = flows / 10 * 9;
    let config = world::standard(flows as usize, flows as usize)?;
    let clients = Clients { service: world::service(&config, options.family.family())?, seed: options.seed };
    let mut world = World::new(&config)?;
    fill::flows(&world, &clients, kept);
    let tick = fill::tick_of_kept(&world);
    fill::tokens(&world, kept, options.seed, tick);
    let mut all: Vec<Thread> = (0..threads)
        .map(|thread| {
            let mine = |number: &u32| *number as usize % threads == thread;
            let order: Vec<u32> = shuffled(kept, options.seed).into_iter().filter(mine).collect();
            let opening = |shape| Opening::new(clients, shape);
            let mixed = Mixed {
                established: Established::new(clients, &Shape::DSS, order, PACKETS),
                syn: opening(Shape::CapableSyn),
                ack: opening(Shape::CapableAck),
                join: opening(Shape::JoinSyn).joining(0..kept),
                own: (thread as u64 + 1) << 33,
                at: 0,
                first: 0,
            };
            let cpu = cpus.get(thread).copied().unwrap_or(0);
            let feed = Feed::written_ahead(usize::from(options.burst), PACKETS);
            Thread { cpu, worker: Worker::default(), feed, mixed }
        })
        .collect();
    let mut figures = [Rounds::default(), Rounds::default(), Rounds::default()];
    let progress = progress(u64::from(options.rounds) + 1, "rounds");
    for round in 0..=u64::from(options.rounds) {
        let alone = pass(all.get_mut(..1).unwrap_or_default(), &world, 2 * round);
        restore(&mut world);
        let together = pass(&mut all, &world, 2 * round + 1);
        restore(&mut world);
        progress.inc(1);
        if round > 0 {
            let [one, many, ratio] = &mut figures;
            one.push(alone);
            many.push(together);
            ratio.push(float(threads as u64) * alone / together);
        }
    }
    progress.finish_and_clear();
    Ok(rows(options, threads, u64::from(kept), &figures, &all))
}

/// One pass of all these threads at once: nanoseconds a packet of each, on average.
fn pass(threads: &mut [Thread], world: &World, number: u64) -> f64 {
    let ready = &Barrier::new(threads.len());
    let figures: Vec<f64> = std::thread::scope(|scope| {
        let running: Vec<_> =
            threads.iter_mut().map(|thread| scope.spawn(move || thread.pass(world, number, ready))).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    figures.iter().sum::<f64>() / float(figures.len().max(1) as u64)
}

/// The tables as before. Joins of the next pass come in another tick: a worker lets in so many a tick.
fn restore(world: &mut World) {
    fill::forget_opened(world);
    fill::forget_learned(world);
}

fn rows(options: &Options, threads: usize, kept: u64, figures: &[Rounds; 3], all: &[Thread]) -> Vec<Row> {
    let mut reasons = Reasons::default();
    for thread in all {
        reasons.add(&Reasons::of(&thread.worker.reader()));
    }
    let [one, many, ratio] = figures;
    let row = |rounds: &Rounds, workers: usize, unit: &str| Row {
        figure: if unit == "ratio" { "threads" } else { "engine" }.to_owned(),
        case: format!("mixed_v{}", options.family.family() as u8),
        flows: Some(kept),
        tokens: Some(kept),
        burst: Some(u64::from(options.burst)),
        workers: Some(workers as u64),
        extra: reasons.extra(),
        ..rounds.row(unit)
    };
    let mut rows = vec![row(one, 1, "ns"), row(many, threads, "ns"), row(ratio, threads, "ratio")];
    for row in &mut rows {
        row.extra.insert("packets_a_pass".to_owned(), json!(PACKETS));
    }
    rows
}
