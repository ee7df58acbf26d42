//! `weft-bench send`: plays a capture into a port at a given rate, and looks at what comes back.
//!
//! Why it exists: testpmd and the null port have no rate, and pktgen has no latency of packets it reads from a file.
//! Here the time stamp counter says when a packet is due ([`rate`]), and a stamp at the end of its payload says, when
//! it comes back, how long it was away ([`stamp`]). The port is any of DPDK's: against Weft on `net_vhost` it is
//! `net_virtio_user`.
//!
//! One lcore sends and receives in turn; with `--receive-lcore` another one receives. Nothing is allocated, logged or
//! asked of the system between the first packet of a trial and the last.

mod frames;
mod port;
mod rate;
mod sender;
mod sink;
mod stamp;
mod trial;

use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};

pub use self::rate::Rate;
pub use self::trial::{Back, Latency, Setup, Trial};

use self::frames::Frames;
use self::port::Ports;
use crate::pages;

/// The longest frame a packet buffer takes.
const FRAME_ROOM: u16 = 2048;

/// Arguments of `send`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The capture to play, over and over: pcap or pcapng, Ethernet.
    #[arg(long, value_name = "FILE")]
    pub capture: PathBuf,
    /// The port to send on, as DPDK takes it: a PCI address, or for instance
    /// net_virtio_user0,path=/run/weft/v.sock,queue_size=1024,packed_vq=1.
    #[arg(long, value_name = "DEVICE")]
    pub vdev: String,
    /// Packets a second: max, 250k, 1.5M, or 50% of what is sent at max; - reads lines of RATE [SECONDS] from
    /// standard input, a trial each.
    #[arg(long, value_name = "RATE", default_value = "max")]
    pub rate: String,
    /// Seconds of a trial.
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    pub seconds: f64,
    /// Send every packet once, in place of seconds. At the rate max none is lost before the port.
    #[arg(long, conflicts_with = "seconds")]
    pub once: bool,
    /// A capture to send once before all else, at 500k packets a second: it makes the flows known.
    #[arg(long, value_name = "FILE")]
    pub warm: Option<PathBuf>,
    /// Look at what comes back: loss, the longest gap, latency.
    #[arg(long)]
    pub receive: bool,
    /// Receive on another port than the one that sends.
    #[arg(long, value_name = "DEVICE", requires = "receive")]
    pub receive_vdev: Option<String>,
    /// Leave packets as they are in the capture: no stamps, no latency.
    #[arg(long)]
    pub no_stamps: bool,
    /// The lcore that sends; by default the last CPU.
    #[arg(long, value_name = "CPU")]
    pub lcore: Option<u32>,
    /// An lcore of its own for what receives; by default that which sends does both.
    #[arg(long, value_name = "CPU", requires = "receive")]
    pub receive_lcore: Option<u32>,
    /// Packets offered at once, at most.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub burst: u16,
    /// Descriptors of each ring of the port, where the port has no size of its own.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub ring: u16,
    /// Memory for packet buffers, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 128)]
    pub memory_mb: u32,
    /// Print a line of JSON for each trial.
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// The lcore that sends, then the one that receives, where that is another.
    fn lcores(&self) -> Vec<u32> {
        let sends = self.lcore.unwrap_or_else(last_cpu);
        let receives = self.receive_lcore.filter(|receives| *receives != sends);
        core::iter::once(sends).chain(receives).collect()
    }
}

/// The last CPU that this process may use.
fn last_cpu() -> u32 {
    crate::machine::cpus().last().and_then(|cpu| u32::try_from(*cpu).ok()).unwrap_or(0)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 86_400.0 => Ok(seconds),
        _ => Err("not a number of seconds between 0 and a day".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// The capture, the rate or the port will not do; says why.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let rate = match args.rate.as_str() {
        "-" => None,
        text => Some(text.parse::<Rate>().map_err(anyhow::Error::msg)?),
    };
    let frames = Frames::read(&args.capture, FRAME_ROOM)?;
    let warm = args.warm.as_deref().map(|path| Frames::read(path, FRAME_ROOM)).transpose()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot catch signals")?;
    }
    let huge_pages = pages::has_huge_pages(args.memory_mb);
    if !huge_pages {
        log::warn!("no huge pages are free for packets: sending from ordinary ones, at about half the speed");
    }
    let mut ports = Ports::start(args, huge_pages)?;
    let lcores = args.lcores();
    let setup = Setup {
        packets: frames.count(),
        stamped_packets: if args.receive && !args.no_stamps { frames.stamped() } else { 0 },
        device: args.vdev.clone(),
        lcores: [lcores.first().copied().unwrap_or(0), lcores.last().copied().unwrap_or(0)],
        ring: args.ring,
        pages: pages::name(huge_pages).to_owned(),
    };
    if !args.json {
        println!("{}", describe(&setup, args));
    }
    if let Some(warm) = &warm {
        ports.once(warm, Rate::Pps(5e5), args, &stop)?;
    }
    let mut one = |rate, seconds: Option<f64>| -> anyhow::Result<()> {
        let trial = ports.trial(&frames, rate, seconds, args, &stop)?;
        if stop.load(Ordering::Relaxed) {
            bail!("stopped by a signal");
        }
        show(&setup, &trial, args.json)
    };
    let seconds = (!args.once).then_some(args.seconds);
    match rate {
        Some(rate) => one(rate, seconds),
        None => {
            // Tells a program that drives this one that the port is up.
            if args.json {
                println!("{{\"ready\": true}}");
            }
            by_lines(|rate, given| one(rate, given.or(seconds)))
        }
    }
}

/// A trial for each line of standard input.
fn by_lines(mut one: impl FnMut(Rate, Option<f64>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read standard input")?;
        let mut words = line.split_whitespace();
        let Some(rate) = words.next() else { continue };
        let rate = rate.parse().map_err(anyhow::Error::msg)?;
        let given = words.next().map(seconds).transpose().map_err(anyhow::Error::msg)?;
        one(rate, given)?;
    }
    Ok(())
}

fn describe(setup: &Setup, args: &Args) -> String {
    let [sends, receives] = setup.lcores;
    let who = match (args.receive, sends == receives) {
        (false, _) => format!("lcore {sends} sends"),
        (true, true) => format!("lcore {sends} sends and receives"),
        (true, false) => format!("lcore {sends} sends, lcore {receives} receives"),
    };
    format!(
        "{}: {} packets, {} with a stamp; {who}; rings of {}; {}",
        args.capture.display(),
        setup.packets,
        setup.stamped_packets,
        setup.ring,
        setup.pages
    )
}

/// One line of JSON.
#[derive(serde::Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    setup: &'a Setup,
    #[serde(flatten)]
    trial: &'a Trial,
}

fn show(setup: &Setup, trial: &Trial, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&Line { setup, trial })?)?;
    } else {
        writeln!(out, "{trial}")?;
    }
    out.flush().context("cannot write to standard output")
}
