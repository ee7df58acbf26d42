//! A running `weft-bench send`, which makes a trial for each rate it is told.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::lab::{Lab, PATIENCE};
use super::process::Program;
use super::weft::text;
use crate::send::{Back, Trial};

/// One that is connected and sends nothing yet.
#[derive(Debug)]
pub struct Sender {
    program: Program,
}

/// A trial of which what came back is known.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// All of it.
    pub trial: Trial,
    /// What came back.
    pub back: Back,
}

impl Sender {
    /// Starts one on the other side of a vhost-user socket; it sends `warm` once, then waits for rates.
    ///
    /// # Errors
    /// It does not start; says why.
    pub fn start(
        lab: &Lab,
        socket: &Path,
        capture: &Path,
        warm: Option<&Path>,
        workers: usize,
    ) -> anyhow::Result<Self> {
        let (sends, receives) = lab.senders(workers);
        let device = virtio_user(lab, socket);
        let mut words =
            vec!["send".to_owned(), "--capture".to_owned(), text(capture), "--vdev".to_owned(), device];
        words.extend(["--receive", "--json", "--rate", "-", "--lcore"].map(str::to_owned));
        words.push(sends.to_string());
        words.extend(["--ring".to_owned(), lab.ring.to_string()]);
        words
            .extend(receives.into_iter().flat_map(|lcore| ["--receive-lcore".to_owned(), lcore.to_string()]));
        words.extend(warm.into_iter().flat_map(|warm| ["--warm".to_owned(), text(warm)]));
        let this = std::env::current_exe().context("this program does not know its own path")?;
        let mut program = Program::start(&this, &words, &lab.path("send.log"), &lab.stop)?;
        program.hear(PATIENCE, |line| line.contains("\"ready\"").then_some(()))?;
        Ok(Self { program })
    }

    /// Begins a trial at a rate: packets a second, or as many as go.
    ///
    /// # Errors
    /// It has ended.
    pub fn begin(&mut self, pps: Option<f64>, seconds: f64) -> anyhow::Result<()> {
        let rate = pps.map_or_else(|| "max".to_owned(), |pps| format!("{:.0}", pps.max(1.0)));
        self.program.tell(&format!("{rate} {seconds}"))
    }

    /// Waits for the end of the trial that was begun.
    ///
    /// # Errors
    /// It has ended, or what it said is no trial.
    pub fn outcome(&mut self, seconds: f64) -> anyhow::Result<Outcome> {
        let patience = PATIENCE + Duration::from_secs_f64(seconds);
        let line = self.program.hear(patience, |line| line.starts_with('{').then(|| line.to_owned()))?;
        let trial: Trial = serde_json::from_str(&line).with_context(|| format!("no trial: {line}"))?;
        let back = trial.received.clone().context("the sender did not look at what came back")?;
        Ok(Outcome { trial, back })
    }

    /// A whole trial.
    ///
    /// # Errors
    /// As for its parts.
    pub fn trial(&mut self, pps: Option<f64>, seconds: f64) -> anyhow::Result<Outcome> {
        self.begin(pps, seconds)?;
        self.outcome(seconds)
    }

    /// Ends it.
    ///
    /// # Errors
    /// It has ended already.
    pub fn end(self) -> anyhow::Result<()> {
        self.program.end()
    }
}

/// The device at the other end of a vhost-user socket.
pub fn virtio_user(lab: &Lab, socket: &Path) -> String {
    format!(
        "net_virtio_user0,path={},queues=1,queue_size={},packed_vq=1,in_order=1,mrg_rxbuf=0",
        socket.display(),
        lab.ring
    )
}
