//! `weft-bench peer` in the lab: MPTCP endpoints in user space, in a namespace whose kernel has no address, so that
//! nobody else answers for theirs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::namespace::Namespace;
use crate::process::Task;
use crate::topology::{Family, Lab};
use crate::{Error, Result};

/// How long it may take to have its port.
const START: Duration = Duration::from_secs(20);

/// The program, beside the shipped ones.
pub fn program(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("weft-bench");
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::other(format!(
        "{} is missing: build it with `cargo build --release -p weft-bench`",
        path.display()
    )))
}

/// A simulated host on both of the client's networks.
#[derive(Debug)]
pub struct Simulator {
    task: Task,
    _namespace: Namespace,
}

/// The addresses of the simulated host that ends so, on both networks, with their prefixes.
pub fn addresses(family: Family, host: u8) -> [String; 2] {
    [1, 2].map(|net| match family {
        Family::V4 => format!("10.0.{net}.{host}/24"),
        Family::V6 => format!("fd00:{net}::{host}/64"),
    })
}

impl Simulator {
    /// Starts `weft-bench peer ROLE` on an interface of the host that ends so. `words` are its further arguments, its
    /// addresses among them. It polls the first CPU: the balancer has the last.
    pub fn start(lab: &Lab, program: &Path, role: &str, host: u8, words: &[&str]) -> Result<Self> {
        let interface = format!("q{host}");
        let namespace = lab.add_namespace(&format!("sim{host}"), &interface)?;
        namespace.sysctl(&["net.ipv6.conf.all.disable_ipv6=1"])?;
        let device = format!("net_af_packet0,iface={interface}");
        let mut arguments: Vec<String> =
            ["peer", role, "--json", "--lcore", "0", "--vdev", &device].map(str::to_owned).into();
        arguments.extend(words.iter().map(|word| (*word).to_owned()));
        let log = lab.file(&format!("sim{host}.log"));
        let mut task =
            namespace.task(&format!("the simulated {role}"), &lab.helper, program, &arguments, &log)?;
        task.next_line(START)?;
        Ok(Self { task, _namespace: namespace })
    }

    /// What it reports when it is done by itself.
    pub fn report(mut self, limit: Duration) -> Result<Value> {
        read(&self.task.next_line(limit)?)
    }

    /// Ends it; what it reports.
    pub fn stop(mut self, limit: Duration) -> Result<Value> {
        self.task.signal(Signal::TERM);
        read(&self.task.next_line(limit)?)
    }
}

fn read(line: &str) -> Result<Value> {
    serde_json::from_str(line).map_err(|e| Error::other(format!("the simulator said `{line}`: {e}")))
}
