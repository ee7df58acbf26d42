//! The balancer: Weft's configuration for the lab, its two processes, and what they answer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{self, Task};
use crate::topology::{BALANCER_INTERFACE, BALANCER_MAC, Backend, Family, Lab, MTU, PORT};
use crate::{Error, Result, interrupt};

/// How the balancer hands a packet to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// The destination MAC address is rewritten.
    L2dsr,
    /// The packet travels in another IP packet.
    Ipip,
}

impl Forward {
    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L2dsr => "l2dsr",
            Self::Ipip => "ipip",
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

/// The configuration file.
pub fn configuration(options: &Options, runtime_dir: &Path) -> String {
    // The second core where there is one: the first serves the client and the backends.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let worker = usize::from(cores > 1);
    let mut text = format!(
        "[dataplane]\n\
         workers = [{worker}]\n\
         flows   = 1_000_000\n\
         tokens  = 1_000_000\n\
         runtime_dir = \"{}\"\n\n\
         [[dataplane.port]]\n\
         device  = \"net_af_packet0,iface={BALANCER_INTERFACE}\"\n\
         mac     = \"{BALANCER_MAC}\"\n\
         address = [\"10.0.1.254/24\", \"fd00:1::254/64\"]\n\
         mtu     = {MTU}\n\n\
         [[pool]]\n\
         name = \"web-servers\"\n\n",
        runtime_dir.display()
    );
    for number in 1..=options.backends {
        let (four, six) = Backend::addresses(number);
        // Writing to a String cannot fail.
        let _ =
            write!(text, "[[pool.backend]]\nname    = \"b{number}\"\naddress = [\"{four}\", \"{six}\"]\n");
        if !options.no_macs {
            let _ = writeln!(text, "mac     = \"{}\"", Backend::mac(number));
        }
        text.push('\n');
    }
    let steering = if options.no_steering { "" } else { "\"learn\"" };
    let _ = write!(
        text,
        "[[vip]]\n\
         name     = \"web\"\n\
         address  = [\"{}\", \"{}\"]\n\
         port     = {PORT}\n\
         protocol = \"tcp\"\n\
         pool     = \"web-servers\"\n\
         forward  = \"{}\"\n\n\
         [vip.mptcp]\n\
         steering = [{steering}]\n\
         unknown_token = \"drop\"\n",
        Family::V4.vip(),
        Family::V6.vip(),
        options.forward.name(),
    );
    text
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
}

impl Counted {
    /// Packets dropped for one reason.
    pub fn drop(&self, reason: &str) -> u64 {
        self.drops.get(reason).copied().unwrap_or(0)
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
}

impl Balancer {
    /// Starts both processes in the balancer's namespace and waits until the configuration is in force. `name` sets
    /// the files of this balancer apart from those of another one in the same lab.
    pub fn start(lab: &Lab, binaries: &Binaries, name: &str, options: &Options) -> Result<Self> {
        let runtime_dir = lab.file(name);
        let failed = |e| Error::io("cannot prepare the balancer's files", e);
        fs::create_dir(&runtime_dir).map_err(failed)?;
        let config = lab.file(&format!("{name}.toml"));
        fs::write(&config, configuration(options, &runtime_dir)).map_err(failed)?;
        let run = |program: &Path, role: &str| {
            let arguments = ["run".to_owned(), "--config".to_owned(), config.display().to_string()];
            let log = lab.file(&format!("{name}-{role}.log"));
            lab.balancer.task(&format!("weft-{role}"), &lab.helper, program, &arguments, &log)
        };
        let mut balancer = Self {
            dataplane: run(&binaries.dataplane, "dataplane")?,
            ctrlplane: run(&binaries.ctrlplane, "ctrlplane")?,
            config: config.clone(),
            binaries: binaries.clone(),
        };
        balancer.wait_until_ready(Duration::from_secs(20))?;
        Ok(balancer)
    }

    /// Starts `weft-ctrlplane` after it was killed, and waits until it has re-attached.
    pub fn start_ctrlplane(&mut self, lab: &Lab) -> Result<()> {
        let arguments = ["run".to_owned(), "--config".to_owned(), self.config.display().to_string()];
        let log = lab.file("restarted-ctrlplane.log");
        self.ctrlplane =
            lab.balancer.task("weft-ctrlplane", &lab.helper, &self.binaries.ctrlplane, &arguments, &log)?;
        self.wait_until_ready(Duration::from_secs(20))
    }

    fn wait_until_ready(&mut self, limit: Duration) -> Result<()> {
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

    /// The binary that reads captures with the same engine.
    pub fn dataplane_binary(&self) -> &Path {
        &self.binaries.dataplane
    }
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
