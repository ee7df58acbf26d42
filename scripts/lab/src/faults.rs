//! Faults: processes that are killed and come back, and what that cost.

use std::fmt::Write as _;
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;
use serde_json::Value;

use crate::balancer::{Balancer, Role};
use crate::document::Document;
use crate::traffic::probe::{Outage, boot_millis};
use crate::{Error, Result, interrupt};

/// The end of some processes and their new start.
#[derive(Debug, Clone, Copy)]
pub struct Restart<'a> {
    /// Which, in the order in which they end.
    pub roles: &'a [Role],
    /// By which signal.
    pub signal: Signal,
}

/// When things happened in a restart: milliseconds of CLOCK_BOOTTIME.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Timing {
    /// Just before the signal.
    pub killed: f64,
    /// All processes were gone.
    pub gone: f64,
    /// The new ones were started.
    pub started: f64,
    /// The whole configuration was in force.
    pub ready: f64,
}

impl Restart<'_> {
    /// Ends the processes, writes the new configuration, starts them again at once and waits until it is in force.
    pub fn run(&self, weft: &mut Balancer, document: &Document) -> Result<Timing> {
        weft.rewrite(document)?;
        let killed = boot_millis();
        for role in self.roles {
            weft.end(*role, self.signal);
        }
        let gone = boot_millis();
        for role in self.roles.iter().rev() {
            weft.start_again(*role)?;
        }
        let started = boot_millis();
        weft.wait_until_ready(Duration::from_secs(60))?;
        Ok(Timing { killed, gone, started, ready: boot_millis() })
    }
}

impl Timing {
    /// The gap in words, by phase.
    pub fn describe(&self, gap: &Outage, weft: &Balancer) -> String {
        let mut text = format!(
            "{:.0} ms without an answer ({} packets lost): {:.0} ms until the process was gone, {:.0} ms from its new \
             start to the first packet forwarded",
            gap.millis(),
            gap.lost,
            self.gone - self.killed,
            gap.to - self.gone,
        );
        if let Some(phases) = phases(&weft.log(Role::Dataplane)) {
            let _ = write!(text, "; {phases}");
        }
        text
    }
}

/// What the data plane last said about the phases of its start.
pub fn phases(log: &str) -> Option<&str> {
    let lines = log.lines().rev();
    let mut said = lines.filter_map(|line| line.split_once("started in ").map(|(_, phases)| phases.trim()));
    said.next()
}

/// Waits until `weftctl backend list` names a backend.
pub fn wait_for_backend(weft: &Balancer, name: &str, limit: Duration) -> Result<()> {
    let listed = || -> Result<Option<()>> {
        let list = weft.ask(&["backend", "list"])?;
        let names =
            list.as_array().into_iter().flatten().filter_map(|b| b.get("name").and_then(Value::as_str));
        let mut names = names.map(|n| n == name);
        Ok(names.any(|found| found).then_some(()))
    };
    interrupt::poll(limit, Duration::from_millis(50), listed)?.ok_or(Error::Timeout {
        what: format!("{name} did not appear"),
        seconds: limit.as_secs(),
        detail: String::new(),
    })
}
