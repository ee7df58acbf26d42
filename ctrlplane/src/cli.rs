//! The command lines, raw. Nothing but the two `main`s sees clap.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::deadline::parse_span;

/// The slow process of Weft: reads weft.toml, tells the data plane, serves weftctl.
///
/// Exit codes: 0 ended by SIGTERM or SIGINT; 1 could not start, the sentence says why; 2 bad command line.
#[derive(Debug, Parser)]
#[command(name = "weft-ctrlplane", version)]
pub struct CtrlplaneCli {
    /// What to do.
    #[command(subcommand)]
    pub command: CtrlplaneCommand,
}

/// What weft-ctrlplane does.
#[derive(Debug, Subcommand)]
pub enum CtrlplaneCommand {
    /// Run until SIGTERM. SIGHUP reads the configuration again.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The socket to serve weftctl on, in place of ctrlplane.sock in runtime_dir.
        #[arg(long, value_name = "SOCKET")]
        api: Option<PathBuf>,
    },
}

/// The operator's tool of Weft.
///
/// Exit codes: 0 done; 1 refused, or the checked file has problems; 2 bad command line; 3 weft-ctrlplane is not
/// running or does not answer; 4 weft-ctrlplane runs, but weft-dataplane does not; 5 the deadline came before the last connection ended.
#[derive(Debug, Parser)]
#[command(name = "weftctl", version)]
pub struct WeftctlCli {
    /// Print JSON in place of tables.
    #[arg(long, global = true)]
    pub json: bool,
    /// The control plane's socket, or the runtime_dir it is in.
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,
    /// The configuration file, to find the socket by its runtime_dir.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: WeftctlCommand,
}

/// What weftctl does.
#[derive(Debug, Subcommand)]
pub enum WeftctlCommand {
    /// How control plane and data plane are, and what differs from the file.
    Status,
    /// VIPs.
    #[command(subcommand)]
    Vip(VipCommand),
    /// Backends.
    #[command(subcommand)]
    Backend(BackendCommand),
    /// What is known about tokens, or who owns one.
    Tokens {
        /// A token, 8 hexadecimal digits.
        token: Option<String>,
    },
    /// What each rule of steering came to: joins, tokens, endpoints, agents, bounds, by scheme.
    Steering,
    /// Every reason to drop a packet, and how often it came up.
    Drops,
    /// Agents on backends: who is connected, what they report, what became of it.
    Agents,
    /// Look for what is wrong, or will be, and say what to do about it. Exit code 1 where there is something.
    Doctor,
    /// Check a configuration file: all its problems, with line and column. Needs no running Weft.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Read the configuration file again, as SIGHUP does, and say what became of it.
    Reload,
}

/// What weftctl does about VIPs.
#[derive(Debug, Subcommand)]
pub enum VipCommand {
    /// List them.
    List,
}

/// What weftctl does about backends.
#[derive(Debug, Subcommand)]
pub enum BackendCommand {
    /// List them.
    List,
    /// Add one.
    #[command(
        override_usage = "weftctl backend add [POOL] NAME --address ADDRESS [--address ADDRESS] [--mac MAC] [--weight WEIGHT] [--number NUMBER] [--endpoint-port PORT] [--endpoint-address ADDRESS]..."
    )]
    Add(AddArgs),
    /// Give one no new connections; those it has go on, joins included.
    #[command(override_usage = "weftctl backend drain [POOL] NAME [--pool POOL] [--wait] [--deadline SPAN]")]
    Drain {
        /// Which.
        #[command(flatten)]
        backend: BackendName,
        /// Wait until it has no flows and no tokens left.
        #[arg(long)]
        wait: bool,
        /// Wait so long at most, like 90s, 10m or 2h; then exit with code 5, the backend goes on draining.
        #[arg(long, value_name = "SPAN", value_parser = parse_span)]
        deadline: Option<Duration>,
    },
    /// Give a draining one new connections again.
    #[command(override_usage = "weftctl backend undrain [POOL] NAME [--pool POOL]")]
    Undrain {
        /// Which.
        #[command(flatten)]
        backend: BackendName,
    },
    /// Remove one. Its connections keep it until their end, or the deadline.
    #[command(
        override_usage = "weftctl backend remove [POOL] NAME [--pool POOL] [--deadline SPAN | --now] [--wait]"
    )]
    Remove {
        /// Which.
        #[command(flatten)]
        backend: BackendName,
        /// End its connections after this time, like 90s, 10m or 2h.
        #[arg(long, value_name = "SPAN", value_parser = parse_span, conflicts_with = "now")]
        deadline: Option<Duration>,
        /// End its connections at once.
        #[arg(long)]
        now: bool,
        /// Wait until nothing of it is left.
        #[arg(long)]
        wait: bool,
    },
    /// Print what its server is to be told so that joins find it.
    ///
    /// Under `endpoint`: sysctl and `ip mptcp` lines. Under `token-map` and `chosen-key`: its number and its part of the
    /// token space, as assignments. The rest are comments: the output may be piped to a shell on the server, and without
    /// commands in it is an EnvironmentFile for systemd. No secret is printed.
    #[command(override_usage = "weftctl backend commands [POOL] NAME [--pool POOL]")]
    Commands {
        /// Which.
        #[command(flatten)]
        backend: BackendName,
    },
    /// Give one another weight, 0 to 1000. 0 takes no new connections.
    #[command(override_usage = "weftctl backend weight [POOL] NAME WEIGHT")]
    Weight {
        /// The pool, unless NAME is unique among pools; then the backend; then the weight.
        #[arg(value_name = "[POOL] NAME WEIGHT", num_args = 2..=3, required = true)]
        names: Vec<String>,
    },
}

/// Which backend.
#[derive(Debug, Args)]
pub struct BackendName {
    /// The pool, unless NAME is unique among pools; then the backend.
    #[arg(value_name = "[POOL] NAME", num_args = 1..=2, required = true)]
    pub names: Vec<String>,
    /// The pool, in place of a first name.
    #[arg(long)]
    pub pool: Option<String>,
}

/// A backend to add.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The pool, unless there is only one; then the backend's name.
    #[arg(value_name = "[POOL] NAME", num_args = 1..=2, required = true)]
    pub names: Vec<String>,
    /// An address; twice for one of each family.
    #[arg(long, value_name = "ADDRESS", required = true)]
    pub address: Vec<IpAddr>,
    /// Its MAC address, in place of asking the kernel.
    #[arg(long)]
    pub mac: Option<String>,
    /// Its share of new connections, 0 to 1000.
    #[arg(long, default_value_t = 100)]
    pub weight: u32,
    /// Its number in tokens or timestamps, 1 to 4095, where a VIP of the pool steers by token-map with a cipher, or by
    /// chosen-key.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=i64::from(ipc::limits::MAX_NUMBER)))]
    pub number: Option<u16>,
    /// Its own port on the VIPs' addresses, for joins, where a VIP of the pool steers by endpoint.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub endpoint_port: Option<u16>,
    /// Its own address towards clients, for joins; twice for one of each family.
    #[arg(long, value_name = "ADDRESS")]
    pub endpoint_address: Vec<IpAddr>,
}
