//! What the lab's tests share: the machine, one at a time, a lab with a balancer in it, and what must be silent.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::balancer::{Balancer, Binaries, Options};
use crate::counters::Kernel;
use crate::document::Document;
use crate::topology::{Family, Lab, Plan};
use crate::traffic::client::{self, Client, Report};
use crate::{Error, Result, interrupt};

/// How long anything may take that a test waits for.
pub const LIMIT: Duration = Duration::from_secs(90);

/// What a test needs from the machine; holding it keeps other tests waiting.
#[derive(Debug)]
pub struct Machine {
    /// The shipped programs.
    pub binaries: Binaries,
    helper: PathBuf,
    _turn: File,
}

impl Machine {
    /// The machine, or nothing after saying why `test` cannot run here. `helper` is the `weft-lab` binary and
    /// `scratch` a directory that all tests share.
    pub fn take(test: &str, helper: &str, scratch: &str) -> Option<Self> {
        let helper = PathBuf::from(helper);
        // A run that is interrupted takes its lab down, as one that fails does.
        let ready = binaries(&helper).and_then(|binaries| {
            interrupt::catch()?;
            Ok((binaries, turn(Path::new(scratch))?))
        });
        match ready {
            Ok((binaries, turn)) => Some(Self { binaries, helper, _turn: turn }),
            Err(why) => {
                skip::skip(test, &why.to_string());
                None
            }
        }
    }

    /// A lab of its own.
    pub fn lab(&self, backends: u8, decapsulate: bool) -> Result<Lab> {
        Lab::new(&Plan { backends, decapsulate, helper: self.helper.clone() })
    }
}

fn binaries(helper: &Path) -> Result<Binaries> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::other("network namespaces need root"));
    }
    if !Path::new("/proc/sys/net/mptcp/enabled").exists() {
        return Err(Error::other("this kernel has no MPTCP"));
    }
    Binaries::find(&binary_dir(helper))
}

/// Where the shipped programs are: WEFT_BIN_DIR, else the release build beside the build of `helper`.
pub fn binary_dir(helper: &Path) -> PathBuf {
    let target = helper.parent().and_then(Path::parent).unwrap_or(Path::new("target"));
    std::env::var_os("WEFT_BIN_DIR").map_or_else(|| target.join("release"), PathBuf::from)
}

fn turn(scratch: &Path) -> Result<File> {
    let failed = |e| Error::io("cannot wait for other tests", e);
    let turn = File::create(scratch.join("e2e.lock")).map_err(failed)?;
    flock(&turn, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
    Ok(turn)
}

/// A lab with a balancer in it; the balancer ends first.
#[derive(Debug)]
pub struct Stand {
    /// The balancer.
    pub weft: Balancer,
    /// The lab.
    pub lab: Lab,
}

impl Stand {
    /// A lab with `backends` servers and a balancer with these options.
    pub fn new(machine: &Machine, backends: u8, options: &Options) -> Result<Self> {
        let lab = machine.lab(backends, options.forward.is_tunnel())?;
        let weft = Balancer::start(&lab, &machine.binaries, "weft", options)?;
        Ok(Self { weft, lab })
    }

    /// A lab with `backends` servers and a balancer whose configuration `change` has edited.
    pub fn with(
        machine: &Machine,
        backends: u8,
        options: &Options,
        change: impl FnOnce(&mut Document),
    ) -> Result<(Self, Document)> {
        let lab = machine.lab(backends, options.forward.is_tunnel())?;
        let mut document = Document::new(options, &lab.file("weft"));
        change(&mut document);
        let weft = Balancer::start_with(&lab, &lab.balancer, &machine.binaries, &document)?;
        Ok((Self { weft, lab }, document))
    }

    /// A client that moves data until it is told to finish.
    pub fn endless(&self, connections: usize, join_wait: u64) -> Result<Client> {
        let usual = client::Options::new(Family::V4, connections);
        let options = client::Options { join_wait, until_eof: true, bytes: 65_536, ..usual };
        Client::start(&self.lab, &options)
    }

    /// A client that opens connections, moves data over all subflows and ends.
    pub fn client(&self, connections: usize) -> Result<Report> {
        Client::start(&self.lab, &client::Options::new(Family::V4, connections))?.finish(LIMIT)
    }

    /// A kernel counter of every backend, by its full name.
    pub fn kernels(&self, counter: &str) -> Result<Vec<u64>> {
        self.lab.backends.iter().map(|b| Ok(Kernel::read(&b.namespace)?.get(counter))).collect()
    }

    /// An MPTCP counter of every backend, by its name without the prefix.
    pub fn backends(&self, counter: &str) -> Result<Vec<u64>> {
        self.kernels(&format!("MPTcpExt{counter}"))
    }
}

/// Counters that do not move where every packet reaches the backend of its connection.
const SILENT: [&str; 6] = [
    "TcpOutRsts",
    "TcpEstabResets",
    "TcpExtTCPAbortOnData",
    "TcpExtTCPAbortOnTimeout",
    "MPTcpExtMPJoinNoTokenFound",
    "MPTcpExtMPJoinAckHMacFailure",
];

/// The kernel counters of every backend and, last, of the client.
pub fn kernels(lab: &Lab) -> Result<Vec<Kernel>> {
    let namespaces = lab.backends.iter().map(|b| &b.namespace).chain([&lab.client]);
    namespaces.map(Kernel::read).collect()
}

/// What was misdirected or given up since `before`, by the word of every backend's kernel and the client's, as
/// sentences: a packet that reaches a backend which does not hold its connection is answered with RST.
pub fn noise(lab: &Lab, before: &[Kernel]) -> Result<Vec<String>> {
    let after = kernels(lab)?;
    let names = lab.backends.iter().map(|b| b.name.as_str()).chain(["client"]);
    let mut lines = Vec::new();
    for (name, (after, before)) in names.zip(after.iter().zip(before)) {
        let moved = after.since(before);
        let loud = SILENT.into_iter().filter(|counter| moved.get(counter) > 0);
        lines.extend(loud.map(|counter| format!("{name}: {counter} {}", moved.get(counter))));
    }
    Ok(lines)
}

/// How many of a client's connections each backend of the lab answered.
pub fn owned(lab: &Lab, report: &Report) -> Vec<u64> {
    let by = |name: &str| report.connections.iter().filter(|c| c.backend == name).count() as u64;
    lab.backends.iter().map(|b| by(&b.name)).collect()
}

/// Connections that are alive and moved data between two reports.
pub fn alive(before: &Report, after: &Report) -> usize {
    let pairs = before.connections.iter().zip(&after.connections);
    pairs.filter(|(before, after)| after.error.is_none() && after.rounds > before.rounds).count()
}
