//! `weft-bench compare`: Weft as it runs, with ports, beside DPDK's own forwarder and against a sender.
//!
//! Why it exists: the engine's nanoseconds are of no use to somebody who cannot see them in packets a second. Three runs
//! show them, on virtual devices that any machine has: [`pcap`] (what a packet costs, beside testpmd on the same file),
//! [`vhost`] (two processes: loss and latency against the rate), [`blackout`] (what a reload costs under load). Every
//! program is the real one, started here, ended here, also when a run fails or is interrupted.

mod blackout;
mod lab;
mod pcap;
mod process;
mod rows;
mod search;
mod sender;
mod testpmd;
mod traffic;
mod vhost;
mod weft;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::lab::{Forward, Lab};
use self::process::Stop;
use crate::machine;
use crate::report::{Row, Run};

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// From net_pcap to net_null, beside testpmd.
    Pcap,
    /// Over vhost-user, against a sender: PDR, NDR, latency, frame sizes.
    Vhost,
    /// A reload of 1,000 backends under load.
    Blackout,
}

/// Arguments of `compare`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only these runs; may be given more than once.
    #[arg(long, value_enum, value_name = "RUN")]
    pub only: Vec<Part>,
    /// Fewer rounds, trials and sizes: two to three minutes in all.
    #[arg(long)]
    pub quick: bool,
    /// Rounds of each figure.
    #[arg(long, value_name = "N", default_value_t = 9, default_value_if("quick", "true", "3"))]
    pub rounds: usize,
    /// Seconds of a spell of one program in a round.
    #[arg(long, value_name = "S", default_value_t = 1.0, default_value_if("quick", "true", "0.4"))]
    pub spell: f64,
    /// Flows of the runs from net_pcap to net_null.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [1000, 65_536, 1_000_000],
          default_value_if("quick", "true", "1000,65536"))]
    pub flows: Vec<u64>,
    /// Workers at most, of the runs from net_pcap to net_null; no more than there are CPUs.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub workers: usize,
    /// Flows of the runs over vhost-user.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub vhost_flows: u64,
    /// Bytes of a frame in the runs over vhost-user, without its check sequence.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub frame: usize,
    /// Bytes of frames whose rate is measured over vhost-user.
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [128, 256, 512, 1024, 1280, 1514],
          default_value_if("quick", "true", "128,512,1514"))]
    pub frames: Vec<usize>,
    /// Searches for PDR and for NDR.
    #[arg(long, value_name = "N", default_value_t = 3, default_value_if("quick", "true", "1"))]
    pub searches: usize,
    /// One-second trials at each rate of a search.
    #[arg(long, value_name = "N", default_value_t = 3, default_value_if("quick", "true", "1"))]
    pub trials: usize,
    /// How many of them must lose nothing, for NDR.
    #[arg(long, value_name = "K", default_value_t = 2, default_value_if("quick", "true", "1"))]
    pub clean: usize,
    /// How close a search comes, as a share of the highest rate.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, default_value_if("quick", "true", "0.05"))]
    pub precision: f64,
    /// Seconds of a trial for latency.
    #[arg(long, value_name = "S", default_value_t = 5.0, default_value_if("quick", "true", "1"))]
    pub latency_seconds: f64,
    /// Packets a second while 1,000 backends change; by default half of the PDR that was found.
    #[arg(long, value_name = "PPS")]
    pub reload_pps: Option<f64>,
    /// Search also with dpdk-testpmd as the sink, behind a second port of Weft's. Where there is a third CPU this is done
    /// anyway; on two it shares the sender's.
    #[arg(long)]
    pub testpmd_sink: bool,
    /// How Weft hands packets on.
    #[arg(long, value_enum, default_value_t)]
    pub forward: Forward,
    /// Descriptors of the vhost-user rings.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub ring: u16,
    /// Where weft-dataplane, weft-ctrlplane and weftctl are; by default beside this program.
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// Write the run to this file, as JSON.
    #[arg(long, value_name = "RUN.json")]
    pub out: Option<PathBuf>,
    /// Print the run as JSON in place of a table.
    #[arg(long)]
    pub json: bool,
}

impl Args {
    fn spell(&self) -> Duration {
        Duration::from_secs_f64(self.spell.clamp(0.01, 3600.0))
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// Tells what is being done, on a terminal.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    fn start() -> Self {
        let bar = ProgressBar::new_spinner();
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template("[{elapsed_precise}] {msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Says what is being done now.
    pub fn say(&self, what: &str) {
        log::debug!("{what}");
        self.0.set_message(what.to_owned());
        self.0.tick();
    }
}

/// Runs the command.
///
/// # Errors
/// A program is missing or does not do what it should; says what to do.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let stop = Stop::on_signals()?;
    let this = std::env::current_exe().context("this program does not know its own path")?;
    let beside = this.parent().map(PathBuf::from).unwrap_or_default();
    let programs = args.programs.clone().unwrap_or(beside);
    let lab = Lab::new(&programs, args.forward, args.ring, stop)?;
    if lab.testpmd.is_none() {
        log::warn!("dpdk-testpmd is not installed (apt-get install dpdk): its figures are left out");
    }
    let (sends, receives) = lab.senders(1);
    log::info!(
        "worker on CPU {:?}; sender on CPU {sends}; {}",
        lab.workers(1),
        match receives {
            Some(cpu) => format!("receiver on CPU {cpu}"),
            None => "no CPU is left for a receiver: the sender receives in turn".to_owned(),
        }
    );
    let progress = Progress::start();
    let mut series: Vec<Row> = Vec::new();
    if args.wants(Part::Pcap) {
        series.extend(pcap::run(&lab, args, &progress)?);
    }
    if args.wants(Part::Vhost) {
        series.extend(vhost::run(&lab, args, &progress)?);
    }
    if args.wants(Part::Blackout) {
        let pdr = series.iter().find(|row| row.figure == "vhost_pdr").map(|row| row.median * 1e6);
        let pps = args.reload_pps.or(pdr.map(|pdr| pdr / 2.0)).filter(|pps| *pps >= 1.0).unwrap_or(5e5);
        series.extend(blackout::run(&lab, args, pps, &progress)?);
    }
    progress.0.finish_and_clear();
    let mut conditions = machine::conditions(&pages(&series));
    conditions.dpdk = dpdk::Eal::version().trim_start_matches("DPDK ").to_owned();
    let run = Run {
        weft_bench: env!("CARGO_PKG_VERSION").to_owned(),
        date: machine::today(),
        command: machine::command(),
        conditions,
        series,
    };
    if let Some(out) = &args.out {
        let text = run.to_json()?;
        let whole = out.with_extension("json.part");
        std::fs::write(&whole, text)
            .and_then(|()| std::fs::rename(&whole, out))
            .with_context(|| format!("cannot write {}", out.display()))?;
    }
    print!("{}", if args.json { run.to_json()? } else { run.to_table() });
    Ok(())
}

/// What tables and packets of the runs lay on, as the runs say it.
fn pages(series: &[Row]) -> String {
    let said = |name: &str| {
        let mut kinds: Vec<&str> = series.iter().filter_map(|row| row.extra.get(name)?.as_str()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds.join(" or ")
    };
    match (said("table_pages"), said("packet_pages")) {
        (tables, packets) if tables.is_empty() || packets.is_empty() => tables + &packets,
        (tables, packets) => format!("tables on {tables}, packets on {packets}"),
    }
}
