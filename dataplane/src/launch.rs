//! `weft-dataplane run`: what is set up, in which order, and taken down.
//!
//! The order is such that nothing is half started: the lock of the runtime directory first (a second instance
//! ends here, before it touched a device), then the tables, taken over from a data plane before this one where it left
//! any, then DPDK and the ports, then the manager and the workers, whose first snapshot is the last configuration.
//! Whatever fails drops what came before it; tables that were taken over stay for the next try.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use dpdk::{Affinity, Burst, Eal};
use engine::model::Model;
use engine::pipeline::Pipeline;
use engine::snapshot::Snapshot;
use engine::sweep::Sweeper;
use engine::tables::Tables;
use ipc::data_link::DataLink;
use ipc::id::WorkerId;

use crate::agents::Agents;
use crate::census::Census;
use crate::clock::Clock;
use crate::devices::{self, Devices};
use crate::kept::{self, Beginning};
use crate::manager::Manager;
use crate::phases::Phases;
use crate::worker::Worker;
use site::publish::Publisher;

/// Packets a worker receives at once. 64 gains little below a million flows and costs latency.
const RECEIVE: usize = 32;

/// Packets of the kernel that a worker moves at once: each is a system call of the TAP driver.
const FROM_KERNEL: usize = 8;

/// Runs the data plane until SIGTERM or SIGINT.
///
/// # Errors
/// Whatever keeps it from starting, in one sentence; nothing is left running then.
pub fn run(path: &Path) -> anyhow::Result<()> {
    let config = crate::load(path)?;
    if config.dataplane.ports.is_empty() {
        bail!("{} has no [[dataplane.port]]: name at least one device to run on", path.display());
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot catch signals")?;
    }

    let mut phases = Phases::begin();
    let mut link = DataLink::create(&config.dataplane.runtime_dir)?;
    phases.end("lock and segment");
    let clock = Arc::new(Clock::default());
    clock.update();
    let beginning =
        kept::begin(&config, link.lock(), site::lifetimes(&config.dataplane), clock.now().seconds())?;
    beginning.show(&config, link.gauges());
    let Beginning { kept, tables, configured } = beginning;
    let tables = Arc::new(tables);
    phases.end("tables");
    let mut devices = Devices::start(&config, &mut phases)?;
    devices::show_ports(&link, &devices.ports, &config);
    phases.end("ports");
    let site = site::of_ports(&config, devices.describe(&config));
    let (model, snapshot) = match configured {
        Some((model, generation)) => {
            // As if it had been made now: since when Maglev answers as it does, nobody knows any more.
            let unconfigured = Snapshot::unconfigured(&site);
            let snapshot = unconfigured.following(&model, &site, generation, clock.now().millis());
            (model, snapshot)
        }
        None => (Model::default(), Snapshot::unconfigured(&site)),
    };
    let snapshot = Arc::new(snapshot);
    clock.update();
    let mut publisher = Publisher::default();
    let mut crew = Crew { tables: &tables, clock: &clock, publisher: &mut publisher, snapshot: &snapshot };
    let workers = crew.workers(&mut devices, &mut link)?;
    let (eal, ports) = devices.into_watch();
    let manager = Manager {
        link,
        publisher,
        model,
        snapshot,
        site,
        tables,
        clock,
        ports,
        census: Census::default(),
        agents: Agents::default(),
        kept,
    };
    phases.end("workers");
    log::info!("started in {phases}");
    log::info!("{} worker(s) poll {} port(s)", workers.len(), config.dataplane.ports.len());
    work(&eal, workers, manager, &stop)
}

/// What all workers share.
struct Crew<'a> {
    tables: &'a Arc<Tables>,
    clock: &'a Arc<Clock>,
    publisher: &'a mut Publisher,
    snapshot: &'a Arc<Snapshot>,
}

impl Crew<'_> {
    /// The workers: each with a queue of every port and all else it owns.
    fn workers(&mut self, devices: &mut Devices, link: &mut DataLink) -> anyhow::Result<Vec<Worker>> {
        let shares = devices.take_queues();
        let count = shares.len();
        let mut workers = Vec::new();
        for (index, queues) in shares.into_iter().enumerate() {
            let id = WorkerId(u16::try_from(index).unwrap_or(u16::MAX));
            workers.push(Worker {
                queues,
                pipeline: Pipeline::default(),
                sweeper: Sweeper::new(index, count),
                subscriber: self.publisher.subscribe(self.snapshot),
                tables: Arc::clone(self.tables),
                counters: link.worker(id).context("there are more workers than counters")?,
                clock: Arc::clone(self.clock),
                began: self.clock.now(),
                burst: Burst::with_limit(&devices.eal, RECEIVE),
                from_kernel: Burst::with_limit(&devices.eal, FROM_KERNEL),
            });
        }
        Ok(workers)
    }
}

/// Manager and workers, until told to stop.
fn work(eal: &Eal, mut workers: Vec<Worker>, mut manager: Manager, stop: &AtomicBool) -> anyhow::Result<()> {
    // The manager must not share a worker's CPU where there is another.
    let elsewhere: Affinity = eal.affinity().without(eal.lcores());
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("manager".to_owned());
        let managing = thread.spawn_scoped(scope, || {
            if let Err(error) = elsewhere.apply() {
                log::warn!("the manager stays on the first worker's CPU: {error}");
            }
            manager.show_model();
            manager.run(stop);
        });
        managing.context("cannot start the manager's thread")?;
        let jobs: Vec<_> = workers.iter_mut().map(|worker| || worker.run(stop)).collect();
        let result = eal.run(jobs).context("cannot start the workers");
        stop.store(true, Ordering::Relaxed);
        result.map(|_| ())
    })?;
    log::info!("stopped");
    Ok(())
}
