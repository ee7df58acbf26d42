//! The command line, raw. Nothing but `main` sees clap.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The agent on a backend: tells Weft which MPTCP connections and subflows live here.
///
/// It needs CAP_NET_ADMIN in the network namespace of the server, and nothing else. Exit codes: 0 ended by SIGTERM or
/// SIGINT, or all was printed; 1 could not start or go on, the sentence says why; 2 bad command line.
#[derive(Debug, Parser)]
#[command(name = "weft-agent", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the agent does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Report to control planes until SIGTERM. One that cannot be reached is tried again for ever.
    Run(RunArgs),
    /// Print what `run` would report: all that is there, then what happens, until SIGINT. Connects to nobody.
    Watch {
        /// Print JSON lines, the very ones a control plane gets.
        #[arg(long)]
        json: bool,
    },
    /// Print what is there, and end.
    Dump {
        /// Print JSON lines, the very ones a control plane gets.
        #[arg(long)]
        json: bool,
    },
}

/// Where to report to, and as whom.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A control plane, HOST or HOST:PORT (7443); once for each appliance.
    #[arg(long, value_name = "HOST[:PORT]", required = true)]
    pub connect: Vec<String>,
    /// Certificates (PEM) of the authorities that a control plane's certificate must come from.
    #[arg(long, value_name = "FILE", requires_all = ["certificate", "key"])]
    pub authority: Option<PathBuf>,
    /// This agent's certificate (PEM): a DNS name in it is the backend's name.
    #[arg(long, value_name = "FILE", requires_all = ["authority", "key"])]
    pub certificate: Option<PathBuf>,
    /// The certificate's key (PEM).
    #[arg(long, value_name = "FILE", requires_all = ["authority", "certificate"])]
    pub key: Option<PathBuf>,
    /// The backend this is, in place of a certificate; to a control plane on this host's loopback only.
    #[arg(
        long,
        value_name = "BACKEND",
        required_unless_present = "certificate",
        conflicts_with = "certificate"
    )]
    pub plain: Option<String>,
}
