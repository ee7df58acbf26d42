//! The demo: the same clients twice, with token steering and without, and the kernel's word on where their second
//! subflows went.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::balancer::{self, Balancer, Binaries, Forward};
use crate::counters::Kernel;
use crate::endpoints::Endpoint;
use crate::replay::{self, Capture};
use crate::report::{self, BackendRow, Report, Run};
use crate::topology::{Family, Lab, Plan};
use crate::traffic::client::{self, Client};
use crate::{Error, Result, agents_demo, endpoint_demo, faults_demo, interrupt, simulator_demo, stand};

/// Where the shipped programs are, when not beside `weft-lab`.
const BINARIES: &str = "WEFT_BIN_DIR";
/// Bytes that all connections together move in one direction in one round, so that many take no longer than few.
const ROUND: u64 = 16 << 20;
/// How many seconds a second subflow may take when nothing steers it: refused ones never come.
const REFUSED_WAIT: u64 = 3;

/// What the demo can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How the balancer hands packets to backends.
    #[arg(long, value_enum, default_value_t = Forward::L2dsr)]
    pub forward: Forward,
    /// IP version of the client's connections.
    #[arg(long, default_value = "4", value_parser = ["4", "6"])]
    pub ip: String,
    /// How many MPTCP connections; with very few, luck may fail the demo.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub connections: u16,
    /// How joins are steered: by tokens that are learned, by ports or addresses of the servers' own, or, through two
    /// appliances, by what agents on the backends report; or with simulated clients and servers by tokens that say whose
    /// they are, by keys that Weft chooses (over GUE), or by tokens that stand in the handshake.
    #[arg(long, default_value = "learn",
          value_parser = ["learn", "endpoint", "agent", "ranges", "cipher", "chosen-key", "explicit-g", "explicit-e"])]
    pub steering: String,
    /// The version of MPTCP that simulated clients speak.
    #[arg(long, default_value = "v1", value_parser = ["v0", "v1"], requires = "steering")]
    pub client_version: String,
    /// What servers announce with `--steering endpoint`; without it a port over IPv4, an address over IPv6.
    #[arg(long, value_enum, requires = "steering")]
    pub endpoint: Option<Endpoint>,
    /// Write everything that was measured to this file, as JSON.
    #[arg(long, value_name = "FILE.json")]
    pub report: Option<PathBuf>,
    /// Kill, drain and flood under the connections instead.
    #[arg(long, conflicts_with_all = ["keep", "steering"])]
    pub faults: bool,
    /// Leave the lab up until Ctrl-C, and say how to enter it.
    #[arg(long, conflicts_with = "steering")]
    pub keep: bool,
}

impl Options {
    /// The family asked for.
    pub fn family(&self) -> Family {
        if self.ip == "6" { Family::V6 } else { Family::V4 }
    }

    fn balancer(&self, steering: bool) -> balancer::Options {
        balancer::Options::new(self.forward, steering)
    }
}

/// The body of `weft-lab demo`.
pub fn run(options: &Options) -> Result<ExitCode> {
    if options.faults {
        return faults_demo::run(options);
    }
    let simulated = simulator_demo::NAMES.contains(&options.steering.as_str());
    if options.client_version == "v0" && !simulated {
        return Err(Error::other("Linux clients speak version 1: --client-version v0 is for simulated ones"));
    }
    match options.steering.as_str() {
        "endpoint" => return endpoint_demo::run(options),
        _ if simulated => return simulator_demo::run(options),
        "agent" => return agents_demo::run(options),
        _ => {}
    }
    interrupt::catch()?;
    let start = Instant::now();
    let report = measure(options, start).inspect_err(|_| println!("FAIL"))?;
    print!("{}", report::summary(&report));
    report::conclude(&report, report.passed, options.report.as_deref())
}

/// The shipped programs, beside `helper` unless WEFT_BIN_DIR says where.
pub fn binaries(helper: &std::path::Path) -> Result<Binaries> {
    let beside = helper.parent().map(PathBuf::from).unwrap_or_default();
    Binaries::find(&std::env::var_os(BINARIES).map_or(beside, PathBuf::from))
}

/// Builds the lab, runs both passes and takes it down again.
fn measure(options: &Options, start: Instant) -> Result<Report> {
    let progress = |what: &str| {
        // Progress that nobody can read is no reason to stop.
        let _ = writeln!(std::io::stderr(), "[{:5.1} s] {what}", start.elapsed().as_secs_f64());
    };
    let helper = std::env::current_exe().map_err(|e| Error::io("cannot find this program", e))?;
    let binaries = binaries(&helper)?;
    let plan = Plan { backends: 3, decapsulate: options.forward.is_tunnel(), helper };

    progress("network namespaces: a client with two paths, the balancer, three backends");
    let lab = Lab::new(&plan)?;
    progress("first pass: steering = [\"learn\"]");
    let learn = pass(&lab, &binaries, options, true, &progress)?;
    progress("second pass: steering = []");
    let hash = pass(&lab, &binaries, options, false, &progress)?;
    let report = report::assemble(options, learn, hash, start.elapsed());
    if options.keep {
        keep(&lab, &binaries, options, &progress)?;
    }
    lab.take_down()?;
    progress("cleaned up: no namespace, process or file is left");
    Ok(report)
}

/// One pass: a fresh balancer, the clients, and what everybody counted.
pub fn pass(
    lab: &Lab,
    binaries: &Binaries,
    options: &Options,
    steering: bool,
    progress: &impl Fn(&str),
) -> Result<Run> {
    let name = if steering { "learn" } else { "hash" };
    let weft = Balancer::start(lab, binaries, name, &options.balancer(steering))?;
    progress("weft-dataplane and weft-ctrlplane are ready");
    let capture = Capture::start(lab, name, options.family())?;
    let before = stand::kernels(lab)?;
    let mut asked = client::Options::new(options.family(), usize::from(options.connections));
    asked.bytes = (ROUND / u64::from(options.connections)).clamp(16_384, 262_144);
    if !steering {
        asked.join_wait = REFUSED_WAIT;
    }
    let mut client = Client::start(lab, &asked)?;
    let joined = client.joined(Duration::from_secs(60))?;
    progress(&format!("{} connections, {joined} with a second subflow; data over both", options.connections));
    let traffic = client.finish(Duration::from_secs(120))?;
    let after = stand::kernels(lab)?;
    let counted = weft.counted()?;
    let capture = capture.finish();
    let joins = replay::joins(
        &replay::verdicts(lab, &weft, &options.balancer(true), &capture)?,
        &replay::verdicts(lab, &weft, &options.balancer(false), &capture)?,
    );
    let moved: Vec<Kernel> = after.iter().zip(&before).map(|(after, before)| after.since(before)).collect();
    let rows = lab.backends.iter().zip(&moved).map(|(backend, kernel)| {
        let of = traffic.connections.iter().filter(|c| c.backend == backend.name);
        BackendRow {
            name: backend.name.clone(),
            connections: of.clone().count(),
            joined: of.filter(|c| c.subflows > 1).count(),
            kernel: kernel.watched(),
        }
    });
    let client_kernel = moved.last().cloned().unwrap_or_default();
    Ok(Run::new(steering, rows.collect(), traffic, &client_kernel, counted, &joins))
}

/// Leaves the lab up, with steering on, until a signal comes.
fn keep(lab: &Lab, binaries: &Binaries, options: &Options, progress: &impl Fn(&str)) -> Result<()> {
    let mut weft = Balancer::start(lab, binaries, "keep", &options.balancer(true))?;
    let mut text = String::from("the lab stays up; press Ctrl-C to remove it. Enter it with:\n");
    for (role, namespace) in lab.namespaces() {
        text.push_str(&format!("    ip netns exec {} bash    # {role}\n", namespace.name()));
    }
    text.push_str(&format!(
        "  connect:  ip netns exec {} {} client --service {}\n  ask Weft: {} --config {} status",
        lab.client.name(),
        lab.helper.display(),
        options.family().service(),
        binaries.weftctl.display(),
        weft.config.display(),
    ));
    progress(&text);
    let hour = Duration::from_secs(3600);
    loop {
        match interrupt::poll(hour, Duration::from_millis(200), || {
            weft.dataplane.check()?;
            weft.ctrlplane.check()?;
            Ok(None::<()>)
        }) {
            Ok(_) => {}
            Err(Error::Interrupted) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
