//! The balancer: Weft's configuration for the lab, its two processes, and what they answer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::document::Document;
use crate::namespace::{Entrance, Namespace};
use crate::process::{self, Task};
use crate::topology::Lab;
use crate::{Error, Result, interrupt};

/// How the balancer hands a packet to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// The destination MAC address is rewritten.
    L2dsr,
    /// The packet travels in another IP packet.
    Ipip,
    /// The packet travels in a UDP datagram.
    Gue,
}

impl Forward {
    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L2dsr => "l2dsr",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
        }
    }

    /// Whether the backends have an outer header to take off.
    pub const fn is_tunnel(self) -> bool {
        match self {
            Self::L2dsr => false,
            Self::Ipip | Self::Gue => true,
        }
    }
}

/// What varies in the configuration.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Forwarding mode.
    #[arg(long, value_enum, default_value_t = Forward::L2dsr)]
    pub forward: Forward,
    /// Turn token steering off: joins go by hash.
    #[arg(long)]
    pub no_steering: bool,
    /// Backends.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub backends: u8,
    /// Leave the backends' MAC addresses to the kernel's neighbour table.
    #[arg(long)]
    pub no_macs: bool,
}

impl Options {
    /// Three backends, with their MAC addresses.
    pub const fn new(forward: Forward, steering: bool) -> Self {
        Self { forward, no_steering: !steering, backends: 3, no_macs: false }
    }
}

/// The configuration file that `options` ask for.
pub fn configuration(options: &Options, runtime_dir: &Path) -> String {
    Document::new(options, runtime_dir).text()
}

/// The shipped programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `weft-dataplane`.
    pub dataplane: PathBuf,
    /// `weft-ctrlplane`.
    pub ctrlplane: PathBuf,
    /// `weftctl`.
    pub weftctl: PathBuf,
}

impl Binaries {
    /// Those in `directory`; an error names the first that is missing.
    pub fn find(directory: &Path) -> Result<Self> {
        let find = |name: &str| {
            let path = directory.join(name);
            if path.is_file() {
                return Ok(path);
            }
            Err(Error::other(format!(
                "{} is missing: build it with `cargo build --release -p weft-dataplane -p weft-ctrlplane`",
                path.display()
            )))
        };
        Ok(Self {
            dataplane: find("weft-dataplane")?,
            ctrlplane: find("weft-ctrlplane")?,
            weftctl: find("weftctl")?,
        })
    }
}

/// What Weft counted since its data plane started.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counted {
    /// SYNs with MP_JOIN that followed their token.
    pub joins_by_token: u64,
    /// Dropped packets by reason.
    pub drops: BTreeMap<String, u64>,
    /// Everything else that is not zero, by name.
    pub counters: BTreeMap<String, u64>,
    /// What each rule of steering came to, where it is not zero: packets by reason among it.
    pub rules: BTreeMap<String, u64>,
}

impl Counted {
    /// Packets dropped for one reason.
    pub fn drop(&self, reason: &str) -> u64 {
        self.drops.get(reason).copied().unwrap_or(0)
    }

    /// What a rule of steering came to.
    pub fn rule(&self, name: &str) -> u64 {
        self.rules.get(name).copied().unwrap_or(0)
    }

    /// Together with what another balancer counted.
    pub fn and(mut self, other: Self) -> Self {
        self.joins_by_token += other.joins_by_token;
        let pairs = [
            (&mut self.drops, other.drops),
            (&mut self.counters, other.counters),
            (&mut self.rules, other.rules),
        ];
        for (own, others) in pairs {
            others.into_iter().for_each(|(name, more)| *own.entry(name).or_default() += more);
        }
        self
    }

    /// A counter.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// Joins that did not follow a token, whatever became of them.
    pub fn joins_astray(&self) -> u64 {
        self.drop("unknown_token") + self.drop("ambiguous_token") + self.counter("join_hashed")
    }
}

/// One of the balancer's two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `weft-dataplane`.
    Dataplane,
    /// `weft-ctrlplane`.
    Ctrlplane,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Dataplane => "dataplane",
            Self::Ctrlplane => "ctrlplane",
        }
    }
}

/// A running balancer. Dropping it ends both processes.
#[derive(Debug)]
pub struct Balancer {
    /// The slow process; ended first.
    pub ctrlplane: Task,
    /// The fast process.
    pub dataplane: Task,
    /// Its configuration file.
    pub config: PathBuf,
    binaries: Binaries,
    entrance: Entrance,
}

impl Balancer {
    /// Starts both processes in the balancer's namespace and waits until the configuration is in force. `name` sets
    /// the files of this balancer apart from those of another one in the same lab.
    pub fn start(lab: &Lab, binaries: &Binaries, name: &str, options: &Options) -> Result<Self> {
        let document = Document::new(options, &lab.file(name));
        Self::start_with(lab, &lab.balancer, binaries, &document)
    }

    /// Starts a balancer with a configuration of the caller's making, in a namespace of the caller's choice. Its
    /// files are named after the runtime directory.
    pub fn start_with(
        lab: &Lab,
        namespace: &Namespace,
        binaries: &Binaries,
        document: &Document,
    ) -> Result<Self> {
        Self::start_text(lab, namespace, binaries, &document.runtime_dir, &document.text())
    }

    /// The same from the file's text alone, which names the same runtime directory.
    pub fn start_text(
        lab: &Lab,
        namespace: &Namespace,
        binaries: &Binaries,
        runtime_dir: &Path,
        text: &str,
    ) -> Result<Self> {
        let failed = |e| Error::io("cannot prepare the balancer's files", e);
        fs::create_dir(runtime_dir).map_err(failed)?;
        let config = runtime_dir.with_extension("toml");
        fs::write(&config, text).map_err(failed)?;
        let entrance = namespace.entrance(&lab.helper);
        let mut balancer = Self {
            dataplane: launch(&entrance, binaries, &config, Role::Dataplane)?,
            ctrlplane: launch(&entrance, binaries, &config, Role::Ctrlplane)?,
            config,
            binaries: binaries.clone(),
            entrance,
        };
        balancer.wait_until_ready(Duration::from_secs(20))?;
        Ok(balancer)
    }

    /// Replaces the configuration file; no process is told.
    pub fn rewrite(&self, document: &Document) -> Result<()> {
        fs::write(&self.config, document.text()).map_err(|e| Error::io("cannot rewrite the configuration", e))
    }

    /// SIGKILL to one process, and waits until it is gone.
    pub fn kill(&mut self, role: Role) {
        self.task(role).kill();
    }

    /// Ends one process by `signal`, SIGTERM or SIGKILL, and waits until it is gone.
    pub fn end(&mut self, role: Role, signal: Signal) {
        match signal {
            Signal::KILL => self.task(role).kill(),
            _ => {
                let _ = self.task(role).stop();
            }
        }
    }

    /// Starts a process that has ended; does not wait for anything. See [`Balancer::wait_until_ready`].
    pub fn start_again(&mut self, role: Role) -> Result<()> {
        *self.task(role) = launch(&self.entrance, &self.binaries, &self.config, role)?;
        Ok(())
    }

    fn task(&mut self, role: Role) -> &mut Task {
        match role {
            Role::Dataplane => &mut self.dataplane,
            Role::Ctrlplane => &mut self.ctrlplane,
        }
    }

    /// Everything a process has logged, over all its lives.
    pub fn log(&self, role: Role) -> String {
        fs::read_to_string(log_file(&self.config, role)).unwrap_or_default()
    }

    /// Waits until both processes run and the whole configuration is in force.
    pub fn wait_until_ready(&mut self, limit: Duration) -> Result<()> {
        let mut last = String::new();
        let ready = interrupt::poll(limit, Duration::from_millis(100), || {
            self.dataplane.check()?;
            self.ctrlplane.check()?;
            match self.status() {
                Ok(status) if in_force(&status) => Ok(Some(())),
                Ok(status) => {
                    let message =
                        status.pointer("/dataplane/message").and_then(Value::as_str).unwrap_or_default();
                    last = format!("; weft-ctrlplane says: {message}{}", self.dataplane.last_words());
                    Ok(None)
                }
                Err(error) => {
                    last = format!("; {error}");
                    Ok(None)
                }
            }
        })?;
        ready.ok_or(Error::Timeout {
            what: "the configuration was not in force".to_owned(),
            seconds: limit.as_secs(),
            detail: last,
        })
    }

    /// `weftctl status --json`.
    pub fn status(&self) -> Result<Value> {
        self.ask(&["status"])
    }

    /// What it counted since it started.
    pub fn counted(&self) -> Result<Counted> {
        let (status, drops, tokens) = (self.status()?, self.ask(&["drops"])?, self.ask(&["tokens"])?);
        Ok(Counted {
            joins_by_token: tokens.get("joins_steered").and_then(Value::as_u64).unwrap_or(0),
            drops: figures(Some(&drops), "reason", "packets"),
            counters: figures(status.pointer("/dataplane/counters"), "name", "count"),
            rules: figures(Some(&self.ask(&["steering"])?), "rule", "count")
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .collect(),
        })
    }

    /// Runs `weftctl` with `--json` and reads its answer.
    pub fn ask(&self, words: &[&str]) -> Result<Value> {
        let text = self.weftctl(&[words, &["--json"]].concat())?;
        serde_json::from_str(&text).map_err(|e| {
            Error::other(format!("`weftctl {}` answered no JSON ({e}): {text}", words.join(" ")))
        })
    }

    /// Runs `weftctl` and returns what it prints.
    pub fn weftctl(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binaries.weftctl);
        command.arg("--config").arg(&self.config).args(words);
        process::run(&mut command)
    }

    /// Starts `weftctl` and does not wait for its end.
    pub fn start_weftctl(&self, words: &[&str]) -> Result<Task> {
        let mut command = Command::new(&self.binaries.weftctl);
        command.arg("--config").arg(&self.config).args(words);
        Task::start(
            &format!("weftctl {}", words.join(" ")),
            command,
            &self.config.with_file_name("weftctl.log"),
        )
    }

    /// The binary that reads captures with the same engine.
    pub fn dataplane_binary(&self) -> &Path {
        &self.binaries.dataplane
    }
}

fn launch(entrance: &Entrance, binaries: &Binaries, config: &Path, role: Role) -> Result<Task> {
    let program = match role {
        Role::Dataplane => &binaries.dataplane,
        Role::Ctrlplane => &binaries.ctrlplane,
    };
    let arguments = ["run".to_owned(), "--config".to_owned(), config.display().to_string()];
    entrance.task(&format!("weft-{}", role.name()), program, &arguments, &log_file(config, role))
}

/// `NAME-ROLE.log` beside the configuration.
fn log_file(config: &Path, role: Role) -> PathBuf {
    let name = config.file_stem().unwrap_or_default().to_string_lossy();
    config.with_file_name(format!("{name}-{}.log", role.name()))
}

/// Rows of an answer as a map.
fn figures(rows: Option<&Value>, name: &str, figure: &str) -> BTreeMap<String, u64> {
    let rows = rows.and_then(Value::as_array).into_iter().flatten();
    let pairs =
        rows.filter_map(|row| Some((row.get(name)?.as_str()?.to_owned(), row.get(figure)?.as_u64()?)));
    pairs.collect()
}

/// Whether a status says that the whole configuration is in force and every backend can be reached.
fn in_force(status: &Value) -> bool {
    let says = |path: &str| status.pointer(path).and_then(Value::as_bool).unwrap_or(false);
    let resolved = status.get("unresolved").and_then(Value::as_array).is_some_and(Vec::is_empty);
    let generation = status.pointer("/dataplane/generation").and_then(Value::as_u64).unwrap_or(0);
    says("/dataplane/attached") && says("/dataplane/in_sync") && resolved && generation > 0
}
