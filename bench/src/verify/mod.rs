//! `weft-bench verify`: holds what came out of Weft to what went in.
//!
//! An oracle of its own: it reads packets by etherparse, makes tokens by `sha1` and `sha2`, and knows the rules from
//! docs/packet-path.md and the RFCs. It uses nothing of `packet` and `engine`, so a mistake in those is not made twice.
//!
//! 1. [`input`] reads what went in: every packet classified ([`index::Class`]), every flow and connection followed
//!    ([`flows`]), every packet known by a hash of its bytes ([`index`]).
//! 2. [`output`] reads what came out: each packet must be one that went in, unchanged, once; the headers in front of it
//!    must be right ([`outer`]); its backend must be that of its flow, and of its connection if it is a join.
//! 3. What is left: packets that never went in ([`nearest`] says what they were), packets that did not come out, and
//!    the spread of new connections over the backends ([`spread`]).
//!
//! Memory: about 30 bytes a packet that went in, 200 a flow.

pub mod answer;
pub mod dissect;
pub mod failure;
pub mod flows;
pub mod index;
pub mod input;
pub mod mptcp;
pub mod nearest;
pub mod outer;
pub mod output;
pub mod plan;
mod progress;
pub mod report;
pub mod spread;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use capture::{CaptureReader, Record};
use clap::Args;
use config::Config;

use self::failure::Failure;
use self::flows::Opening;
use self::index::Class;
use self::input::Input;
use self::output::Output;
use self::plan::Plan;
use self::progress::Progress;
use self::report::{Absent, Report};
use self::spread::Spread;

/// Numbers of packets that did not come out, of each kind, in the report.
const MAX_LISTED: usize = 10;

/// What `verify` is told.
#[derive(Clone, Debug, Args)]
pub struct Verify {
    /// What went into Weft: pcap or pcapng.
    #[arg(long = "in", value_name = "A.pcap")]
    pub input: PathBuf,
    /// What came out.
    #[arg(long = "out", value_name = "B.pcap")]
    pub output: PathBuf,
    /// The configuration Weft ran with.
    #[arg(long, value_name = "weft.toml")]
    pub config: PathBuf,
    /// What went in before, so that Weft knew its flows and tokens; none of it is expected to come out.
    #[arg(long, value_name = "FILE")]
    pub warm: Option<PathBuf>,
    /// Packets to VIPs may be lost: they are counted, and are no failure.
    #[arg(long)]
    pub allow_drops: bool,
    /// How many failures to print.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub show: usize,
    /// Prints the report as JSON.
    #[arg(long)]
    pub json: bool,
}

impl Verify {
    /// Runs the command: prints the report.
    ///
    /// # Errors
    /// A file cannot be read, or something does not hold.
    pub fn run(&self) -> anyhow::Result<()> {
        let report = self.report()?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{}", report.to_text());
        }
        if !report.verified {
            let (output, input) = (self.output.display(), self.input.display());
            bail!("{output} is not what Weft should make of {input}: {} failures", report.failures);
        }
        Ok(())
    }

    /// Verifies.
    ///
    /// # Errors
    /// A file cannot be read or cannot be verified at all; what does not hold is in the report.
    pub fn report(&self) -> anyhow::Result<Report> {
        let plan = Plan::new(load(&self.config)?)?;
        let mut input = Input::default();
        if let Some(warm) = &self.warm {
            each(warm, "warm-up", |record| {
                let _known = input.warm(&plan, record);
                Ok(())
            })?;
        }
        each(&self.input, "input", |record| input.take(&plan, record))?;
        let mut output = Output::new(&plan, input);
        each(&self.output, "output", |record| {
            output.take(record);
            Ok(())
        })?;
        output.check_connections();
        let unknown = std::mem::take(&mut output.unknown);
        nearest::explain(&self.input, &mut output.input.index, &unknown, &mut output.failures)?;
        let absent = self.absent(&mut output);
        let spread = spreads(&plan, &mut output);
        Ok(self.conclude(output, absent, spread))
    }

    /// What did not come out. Where it must have, each packet is a failure.
    fn absent(&self, output: &mut Output<'_>) -> Vec<Absent> {
        let mut kinds: BTreeMap<Class, Absent> = BTreeMap::new();
        for (place, class) in output.input.index.absent() {
            let (what, lost) = (class.absent(), class.must_come_out());
            let absent =
                kinds.entry(class).or_insert_with(|| Absent { what, lost, packets: 0, first: Vec::new() });
            absent.packets += 1;
            let number = u64::from(place) + 1;
            if absent.first.len() < MAX_LISTED {
                absent.first.push(number);
            }
            if lost && !self.allow_drops {
                let flow = output.input.index.flow(place).and_then(|flow| output.input.flows.get(flow));
                let about = flow.map(|flow| flow.key.to_string()).unwrap_or_default();
                output.failures.note("packet missing", || Failure {
                    output: false,
                    packet: number,
                    time: 0.0,
                    what: "packet missing",
                    expected: "to come out".to_owned(),
                    found: "nothing".to_owned(),
                    about,
                });
            }
        }
        kinds.into_values().collect()
    }

    fn conclude(&self, output: Output<'_>, absent: Vec<Absent>, spread: Vec<Spread>) -> Report {
        let Output { input, failures, packets, answers, reordered, joins, .. } = output;
        Report {
            verified: failures.total() == 0,
            packets_in: input.index.count() as u64,
            packets_out: packets,
            answers,
            flows: input.flows.count() as u64,
            connections: input.flows.connections() as u64,
            joins,
            reordered,
            absent,
            spread,
            failures: failures.total(),
            kinds: failures.counts().clone(),
            first: failures.first(self.show),
        }
    }
}

/// How the flows of each pool were spread. A backend that is too far from its weight is a failure.
fn spreads(plan: &Plan, output: &mut Output<'_>) -> Vec<Spread> {
    let mut flows: BTreeMap<(usize, u16), u64> = BTreeMap::new();
    for (_, flow) in output.input.flows.iter() {
        let by_hash = matches!(flow.opening, Opening::Plain | Opening::Capable(_) | Opening::Datagram);
        if let (true, false, Some((backend, _))) = (by_hash, flow.again, flow.backend) {
            *flows.entry((plan.pool(flow.vip), backend)).or_default() += 1;
        }
    }
    let mut spreads = Vec::new();
    for (pool, (name, backends)) in plan.pools().enumerate() {
        let got: Vec<[u64; 3]> = (0..)
            .take(backends.len())
            .map(|backend| {
                let load = output.loads.get(&(pool, backend)).copied().unwrap_or_default();
                [flows.get(&(pool, backend)).copied().unwrap_or_default(), load.packets, load.bytes]
            })
            .collect();
        let spread = Spread::new(name, backends, &got);
        for share in spread.backends.iter().filter(|share| !share.holds()) {
            output.failures.note("spread by weight", || Failure {
                output: true,
                packet: 0,
                time: 0.0,
                what: "spread by weight",
                expected: format!("{:.1} flows, give or take {:.1}", share.expected, share.bound),
                found: share.flows.to_string(),
                about: format!("backend {} of pool {name}, weight {}", share.backend, share.weight),
            });
        }
        spreads.push(spread);
    }
    spreads
}

/// Reads a configuration.
fn load(path: &Path) -> anyhow::Result<Config> {
    Config::load(path).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })
}

/// Shows `take` every packet of a capture.
fn each(path: &Path, what: &str, mut take: impl FnMut(&Record) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut reader = CaptureReader::open(path)?;
    let progress = Progress::counting(what);
    let mut number = 0_u64;
    while let Some(record) = reader.read()? {
        number += 1;
        if record.missing > 0 {
            bail!(
                "packet {number} of {} was cut by the capture, {} bytes are missing: capture whole packets \
                 (tcpdump -s 0)",
                path.display(),
                record.missing
            );
        }
        take(&record).with_context(|| format!("packet {number} of {}", path.display()))?;
        progress.set(number);
    }
    Ok(())
}
