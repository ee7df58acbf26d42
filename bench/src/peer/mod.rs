//! `weft-bench peer`: MPTCP endpoints in user space, which speak what no kernel speaks.
//!
//! A small handshake engine: enough of TCP and MPTCP to open connections, join them, send some kilobytes over every
//! subflow and close. It checks every HMAC, every echoed key and every TCP checksum, and reports each join that named
//! no connection of the server it reached: that is what a balancer must prevent.
//!
//! - `peer loop` puts clients, the engine and a server for each backend in one process, with simulated time
//!   ([`closed_loop`]).
//! - `peer client` and `peer server` are the two sides on a DPDK port ([`live`]): against a Linux server, against a
//!   Linux client, or both through a running Weft.
//!
//! Nothing here is shared with what it tests but the parser of packet headers: MPTCP options ([`option`]), tokens and
//! proofs ([`proof`]) are written from the RFCs and the drafts.

mod client;
mod closed_loop;
pub mod connection;
mod host;
pub mod issuer;
pub mod live;
pub mod neighbour;
pub mod option;
mod plan;
mod proof;
mod report;
pub mod scheme;
pub mod segment;
mod server;
pub mod subflow;
pub mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use config::Config;
use indicatif::{ProgressBar, ProgressStyle};
use packet::Family;

pub use self::report::Report;
pub use self::scheme::Steering;

pub use self::connection::Signal;
use self::plan::Plan;

use self::closed_loop::{ClosedLoop, Setup};
use crate::world;

/// `weft-bench peer`.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Clients, Weft's engine and a server for each backend, all in this process, with simulated time.
    Loop(Loop),
    /// A client on a port: connects to a service, sends, joins, sends on every subflow, closes.
    Client(live::ClientArguments),
    /// Servers on a port: each sends back what it gets.
    Server(live::ServerArguments),
}

/// Versions of MPTCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Version {
    /// RFC 6824.
    V0,
    /// RFC 8684.
    V1,
}

impl Version {
    const fn number(self) -> u8 {
        match self {
            Self::V0 => 0,
            Self::V1 => 1,
        }
    }
}

/// Arguments of `peer loop`.
#[derive(Clone, Debug, clap::Args)]
pub struct Loop {
    /// Weft's configuration; without one, a VIP of each family and as many backends as asked for.
    #[arg(long, value_name = "weft.toml")]
    pub config: Option<PathBuf>,
    /// How joins are steered, without a configuration: clients and servers do what that needs.
    #[arg(long, value_enum, default_value_t = Steering::Learn, conflicts_with = "config")]
    pub steering: Steering,
    /// Backends, without a configuration.
    #[arg(long, default_value_t = 8, conflicts_with = "config", value_parser = clap::value_parser!(u16).range(1..=4000))]
    pub backends: u16,
    /// The version the clients ask for.
    #[arg(long, value_enum, default_value_t = Version::V1)]
    pub client_version: Version,
    /// How connections are named: by keys (RFC 8684), or by tokens with the G or E flag and keys from TLS 1.3.
    /// By default keys, but where tokens are encrypted the E flag.
    #[arg(long, value_enum)]
    pub signal: Option<Signal>,
    /// Whether servers take tokens where clients offer them; keys: they do not.
    #[arg(long, value_enum, default_value_t = Signal::E)]
    pub server_signal: Signal,
    /// Servers draw keys as kernels do, whatever the steering asks of them: shows why it asks.
    #[arg(long)]
    pub kernel_keys: bool,
    /// The latest version the servers speak.
    #[arg(long, value_enum, default_value_t = Version::V1)]
    pub server_version: Version,
    /// IP version.
    #[arg(long, default_value = "4", value_parser = ["4", "6"])]
    pub ip: String,
    /// Connections.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// Connections at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub at_once: u32,
    /// Joins of each connection.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=7))]
    pub joins: u32,
    /// Bytes sent, and sent back, over each subflow.
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub bytes: u32,
    /// Clients ask for checksums of the data (flag A).
    #[arg(long)]
    pub checksums: bool,
    /// Servers use checksums whether a client asks for them or not.
    #[arg(long)]
    pub server_checksums: bool,
    /// Clients end connections by MP_FASTCLOSE, instead of DATA_FIN and FIN.
    #[arg(long)]
    pub fastclose: bool,
    /// Loses one packet in so many, by chance, on the way from clients and from servers; 0: none.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub lose: u64,
    /// Empties Weft's tables after every so many packets, as a restart does that finds none kept; 0: never.
    #[arg(long, value_name = "PACKETS", default_value_t = 0)]
    pub restart_after: u64,
    /// The number that keys, nonces and data follow from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Writes clients.pcap and backends.pcap there: what passed at the clients, and between Weft and the servers.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Prints the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// What kept it from running; or it ran, and a connection or a join failed.
pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Loop(arguments) => show(&run_loop(arguments)?, arguments.json),
        Command::Client(arguments) => show(&live::client(arguments)?, arguments.link.json),
        Command::Server(arguments) => show(&live::server(arguments)?, arguments.link.json),
    }
}

/// Runs the closed loop.
///
/// # Errors
/// The configuration will not do, or a capture cannot be written.
pub fn run_loop(arguments: &Loop) -> anyhow::Result<Report> {
    let config: Config = match &arguments.config {
        Some(path) => world::load(path)?,
        None => arguments.steering.configuration(arguments.backends, arguments.signal)?,
    };
    let family = if arguments.ip == "6" { Family::V6 } else { Family::V4 };
    let service = world::service(&config, family)?;
    let service = SocketAddr::new(segment::ip(service.address, service.family), service.port);
    let plan = Plan {
        service,
        addresses: closed_loop::addresses(service, arguments.joins + 1),
        connections: arguments.connections,
        at_once: arguments.at_once,
        joins: arguments.joins,
        bytes: arguments.bytes,
        echo: true,
        version: arguments.client_version.number(),
        signal: arguments.signal.unwrap_or_else(|| scheme::usual_signal(&config)),
        checksums: arguments.checksums,
        fastclose: arguments.fastclose,
        hold: Duration::ZERO,
    };
    let setup = Setup {
        config: &config,
        plan,
        version: arguments.server_version.number(),
        kernel_keys: arguments.kernel_keys,
        explicit: arguments.server_signal != Signal::Keys,
        checksums: arguments.server_checksums,
        lose: arguments.lose,
        restart: arguments.restart_after,
        seed: arguments.seed,
        out: arguments.out.as_deref(),
    };
    let bar = ProgressBar::new(u64::from(arguments.connections)).with_style(
        ProgressStyle::with_template("{bar:40} {pos} of {len} connections").context("the progress bar")?,
    );
    let report = ClosedLoop::new(&setup)?.run(|done| bar.set_position(done));
    bar.finish_and_clear();
    report
}

fn show(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        println!("{report}");
    }
    if !report.passed {
        bail!("not every connection was whole and not every join succeeded: see the report");
    }
    Ok(())
}
