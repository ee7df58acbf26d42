//! A running `dpdk-testpmd`, DPDK's own forwarder: what a port costs by itself.

use std::time::Duration;

use anyhow::{Context as _, bail};

use super::lab::{Lab, PATIENCE};
use super::process::{Program, Thread};
use super::weft::is_dpdk_worker;

/// What it does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: they leave as they came.
    Io,
    /// The MAC addresses change places: the least that touches a packet.
    Macswap,
    /// They are counted and dropped.
    Rxonly,
}

impl Mode {
    /// As it calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Macswap => "macswap",
            Self::Rxonly => "rxonly",
        }
    }
}

/// One that was started and does not forward yet.
#[derive(Debug)]
pub struct Testpmd {
    program: Program,
    worker: Thread,
    mode: Option<Mode>,
}

/// What it did between a start and a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spell {
    /// Packets that left.
    pub forwarded: u64,
    /// Nanoseconds for which its worker ran.
    pub run_ns: u64,
}

impl Testpmd {
    /// Starts it on these devices with one worker. `mbufs` is how many its pool has.
    ///
    /// # Errors
    /// It is not installed, or does not start; says why.
    pub fn start(
        lab: &Lab,
        devices: &[String],
        worker: u32,
        mbufs: u64,
        huge_pages: bool,
    ) -> anyhow::Result<Self> {
        let program =
            lab.testpmd.as_deref().context("dpdk-testpmd is not installed: apt-get install dpdk")?;
        let main = lab.cpus.iter().find(|cpu| **cpu != worker).context("there is no second CPU")?;
        let mut words = vec![format!("-l{main},{worker}"), format!("--main-lcore={main}")];
        words.push(format!("--file-prefix={}", lab.prefix("testpmd")));
        words.push(format!("-m{}", Lab::memory_mb(mbufs, huge_pages)));
        words.extend(["--no-pci", "--no-telemetry", "--log-level=*:error"].map(str::to_owned));
        words.push(if huge_pages { "--in-memory" } else { "--no-huge" }.to_owned());
        let shares_memory = |device: &String| device.contains("vhost") || device.contains("virtio_user");
        if huge_pages && devices.iter().any(shares_memory) {
            words.push("--single-file-segments".to_owned());
        }
        if !huge_pages {
            words.push("--no-shconf".to_owned());
        }
        words.extend(devices.iter().map(|device| format!("--vdev={device}")));
        words.push("--".to_owned());
        words.extend(["-i", "--nb-cores=1", "--no-flush-rx", "--no-lsc-interrupt"].map(str::to_owned));
        words.push(format!("--total-num-mbufs={mbufs}"));
        if devices.len() == 1 {
            words.push("--port-topology=loop".to_owned());
        }
        // Its answers come line by line, so that they can be waited for.
        let words: Vec<String> =
            ["-oL".to_owned(), program.display().to_string()].into_iter().chain(words).collect();
        let stdbuf =
            super::process::on_path("stdbuf").context("there is no stdbuf: apt-get install coreutils")?;
        let mut program = Program::start(&stdbuf, &words, &lab.path("testpmd.log"), &lab.stop)?;
        program.tell("show config cores")?;
        program.hear(PATIENCE, |line| line.contains("List of forwarding lcores").then_some(()))?;
        let mut workers = Thread::of(program.pid(), |_, name| is_dpdk_worker(name));
        match (workers.pop(), workers.is_empty()) {
            (Some(worker), true) => Ok(Self { program, worker, mode: None }),
            _ => bail!("the worker of dpdk-testpmd was not found among its threads"),
        }
    }

    /// Begins to forward.
    ///
    /// # Errors
    /// It has ended.
    pub fn begin(&mut self, mode: Mode) -> anyhow::Result<()> {
        if self.mode.replace(mode) != Some(mode) {
            self.program.tell(&format!("set fwd {}", mode.name()))?;
            self.program.hear(PATIENCE, |line| line.contains("packet forwarding mode").then_some(()))?;
        }
        self.program.tell("start")?;
        self.program.hear(PATIENCE, |line| line.contains("packet forwarding - ports=").then_some(()))
    }

    /// Stops, and says how many packets came and how many left since it began.
    ///
    /// # Errors
    /// It has ended.
    pub fn stop(&mut self) -> anyhow::Result<(u64, u64)> {
        self.program.tell("stop")?;
        self.program.hear(PATIENCE, |line| line.contains("Accumulated forward statistics").then_some(()))?;
        let received = self.program.hear(PATIENCE, |line| count(line, "RX-packets:"))?;
        let forwarded = self.program.hear(PATIENCE, |line| count(line, "TX-packets:"))?;
        self.program.hear(PATIENCE, |line| line.contains("Done").then_some(()))?;
        Ok((received, forwarded))
    }

    /// Forwards for so long.
    ///
    /// # Errors
    /// It has ended.
    pub fn spell(&mut self, mode: Mode, span: Duration, lab: &Lab) -> anyhow::Result<Spell> {
        let before = self.worker.run_ns()?;
        self.begin(mode)?;
        lab.stop.pause(span)?;
        let (_, forwarded) = self.stop()?;
        Ok(Spell { forwarded, run_ns: self.worker.run_ns()?.saturating_sub(before) })
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It has ended already.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.program.tell("quit")?;
        self.program.hear(PATIENCE, |line| line.contains("Bye").then_some(()))
    }
}

/// The number behind a word of a line.
fn count(line: &str, word: &str) -> Option<u64> {
    let (_, rest) = line.split_once(word)?;
    rest.split_whitespace().next()?.parse().ok()
}
