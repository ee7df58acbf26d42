//! A running `weft-dataplane`, seen through its shared segment.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use config::Config;
use ipc::control_link::{Answer, ControlLink};
use ipc::counter::Counter;
use ipc::counters::CounterReader;
use ipc::reason::Reason;
use rustix::process::Signal;

use super::lab::{Lab, PATIENCE};
use super::process::{Program, Thread};
use crate::number::float;

/// What the workers have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets received.
    pub received: u64,
    /// Packets handed to a transmit queue.
    pub forwarded: u64,
    /// Packets that a full transmit queue refused.
    pub refused: u64,
    /// Packets that were not to be forwarded.
    pub dropped: u64,
    /// Packets that were, by the flow they belong to.
    pub by_flow: u64,
    /// Polls that brought nothing, and all polls.
    pub polls: (u64, u64),
}

impl Counts {
    /// What was counted since.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            received: self.received - before.received,
            forwarded: self.forwarded - before.forwarded,
            refused: self.refused - before.refused,
            dropped: self.dropped - before.dropped,
            by_flow: self.by_flow - before.by_flow,
            polls: (self.polls.0 - before.polls.0, self.polls.1 - before.polls.1),
        }
    }

    /// The share of polls that brought nothing: near 1 where the workers could do more.
    pub fn idle(&self) -> f64 {
        float(self.polls.0) / float(self.polls.1.max(1))
    }
}

/// A running data plane.
pub struct Weft {
    program: Program,
    /// Until a control plane takes its place.
    link: Option<ControlLink>,
    counters: CounterReader,
    workers: Vec<Thread>,
    pages: String,
    tables: PathBuf,
}

impl Weft {
    /// Starts one by a configuration file and waits until its workers poll.
    ///
    /// # Errors
    /// It does not start; says why.
    pub fn start(lab: &Lab, config: &Path) -> anyhow::Result<Self> {
        let words = ["run", "--config"].map(str::to_owned).into_iter().chain([text(config)]);
        let words: Vec<String> = words.collect();
        let log = lab.path("weft-dataplane.log");
        let mut program = Program::start(&lab.programs.join("weft-dataplane"), &words, &log, &lab.stop)?;
        let run = lab.path("run");
        let link = lab.stop.patiently("weft-dataplane", PATIENCE, || {
            program.check()?;
            let Ok(mut link) = ControlLink::open(&run) else { return Ok(None) };
            Ok(link.attach(PATIENCE).is_ok().then_some(link))
        })?;
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let pages =
            said.lines().find_map(|line| line.split_once(" MiB on ").map(|(_, rest)| rest.to_owned()));
        let pages = pages.map(|rest| rest.split(" in ").next().unwrap_or_default().to_owned());
        let count = Config::load(config).map_or(1, |config| config.dataplane.workers.len());
        let pid = program.pid();
        // The first worker runs on the thread that started the program, the others on DPDK's own.
        let workers = Thread::of(pid, |thread, name| thread == pid || is_dpdk_worker(name));
        if workers.len() != count {
            bail!("{} of {count} workers were found among the threads of weft-dataplane", workers.len());
        }
        let counters = link.counters();
        let tables = config.to_owned();
        Ok(Self { program, link: Some(link), counters, workers, pages: pages.unwrap_or_default(), tables })
    }

    /// Applies all that a configuration file says.
    ///
    /// # Errors
    /// It is refused.
    pub fn commit(&mut self, config: &Path) -> anyhow::Result<()> {
        let config = Config::load(config).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", lines.join("\n"))
        })?;
        let link = self.link.as_mut().context("a control plane has the link")?;
        match link.apply(&config.commands(), PATIENCE)? {
            Answer::Committed { .. } => Ok(()),
            Answer::Refused { refusal, .. } => bail!("the configuration is refused: {}", refusal.meaning()),
        }
    }

    /// Leaves the link to a control plane.
    pub fn leave(&mut self) {
        self.link = None;
    }

    /// What all workers have counted.
    pub fn counts(&self) -> Counts {
        let counter = |counter| self.counters.counter(counter);
        let idle = counter(Counter::IdlePolls);
        let drops = Reason::ALL.iter().filter(|reason| reason.is_drop());
        Counts {
            received: counter(Counter::RxPackets),
            forwarded: counter(Counter::TxPackets),
            refused: counter(Counter::TxRefused),
            dropped: drops.map(|reason| self.counters.reason(*reason)).sum(),
            by_flow: self.counters.reason(Reason::Flow),
            polls: (idle, idle + counter(Counter::BusyPolls)),
        }
    }

    /// Nanoseconds for which each worker has run.
    ///
    /// # Errors
    /// It has ended.
    pub fn run_ns(&self) -> anyhow::Result<Vec<u64>> {
        self.workers.iter().map(Thread::run_ns).collect()
    }

    /// What its tables lie on.
    pub fn pages(&self) -> &str {
        &self.pages
    }

    /// Halts it between two instructions, or lets it go on.
    ///
    /// # Errors
    /// It has ended.
    pub fn halt(&mut self, lab: &Lab, halted: bool) -> anyhow::Result<()> {
        self.program.signal(if halted { Signal::STOP } else { Signal::CONT })?;
        let workers = &self.workers;
        let as_told = || Ok(workers.iter().all(|worker| worker.is_halted() == halted).then_some(()));
        lab.stop.patiently("weft-dataplane to halt", Duration::from_secs(5), as_told)
    }

    /// Fails where it has ended.
    ///
    /// # Errors
    /// It has; says what it said.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.program.check()
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It does not.
    pub fn end(self) -> anyhow::Result<()> {
        self.program.end()
    }

    /// The configuration it was started by.
    pub fn config(&self) -> &Path {
        &self.tables
    }
}

/// Removes tables that were kept.
pub fn forget(lab: &Lab, config: &Path) {
    let mut command = Command::new(lab.programs.join("weft-dataplane"));
    // What it says of it is of no interest; where there is nothing to forget, nothing is.
    let _ = command.arg("forget").arg("--config").arg(config).output();
}

/// Whether a thread of that name is one of DPDK's workers: rte-worker-0, or lcore-worker-0, or dpdk-worker0, by its
/// version.
pub fn is_dpdk_worker(name: &str) -> bool {
    name.contains("-worker")
}

/// A path as a word of a command line.
pub fn text(path: &Path) -> String {
    path.display().to_string()
}
