//! The command line, raw. What it means is decided where it is used.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Weft's data plane: a layer-4 load balancer that keeps the subflows of a Multipath TCP connection together.
#[derive(Debug, Parser)]
#[command(name = "weft-dataplane", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Forwards on the ports of the configuration file until SIGTERM or SIGINT.
    ///
    /// Takes over the flows, tokens and configuration of a data plane before it, however that one ended. Where there
    /// are none, VIPs and backends come from weft-ctrlplane, and until it has committed them packets are dropped as
    /// no_config.
    Run {
        /// The configuration file; only its [dataplane] part is used here.
        #[arg(long, value_name = "FILE", default_value = "weft.toml")]
        config: PathBuf,
    },
    /// Judges the packets of a capture file with the real engine; needs no DPDK port and no root.
    ///
    /// VIPs and backends of the configuration apply at once; the capture's timestamps are the clock.
    Replay(Replay),
    /// Removes the flows, tokens and configuration that a data plane left, so that the next one starts empty.
    ///
    /// Only while none runs: what a running one holds cannot be forgotten.
    Forget {
        /// The configuration file; only its runtime_dir is used here.
        #[arg(long, value_name = "FILE", default_value = "weft.toml")]
        config: PathBuf,
    },
}

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
pub struct Replay {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The capture to read: pcap or pcapng, Ethernet.
    #[arg(long = "in", value_name = "A.pcap")]
    pub input: PathBuf,
    /// Where to write what would be sent, in order (pcap).
    #[arg(long = "out", value_name = "B.pcap")]
    pub output: Option<PathBuf>,
    /// Where to write one line of JSON for each packet; - for standard output.
    #[arg(long, value_name = "V.jsonl")]
    pub verdicts: Option<PathBuf>,
    /// Packets judged at once. Verdicts do not depend on it.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub burst: u8,
}
