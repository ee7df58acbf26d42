//! The fast process: ports, workers, tables, and replay of captures.
//!
//! Start at [`launch`] (what is set up, in which order) and [`devices`] (DPDK and its ports), then [`worker`] (the
//! loop) and [`manager`] (commands in, snapshots out). [`replay`] runs the same engine on a capture file.
#![forbid(unsafe_code)]

mod agents;
mod census;
mod cli;
mod clock;
mod cpu;
mod devices;
mod directory;
mod dump;
mod exception;
mod forget;
mod kept;
mod launch;
mod manager;
mod phases;
mod port_frames;
mod port_watch;
mod replay;
mod worker;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use config::Config;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    if let Some(feature) = cpu::missing_feature() {
        eprintln!(
            "weft-dataplane: this CPU lacks {feature}: Weft needs an x86-64-v3 CPU with AES (2013 or later)"
        );
        return ExitCode::FAILURE;
    }
    let result = match &cli.command {
        Command::Run { config } => launch::run(config),
        Command::Replay(args) => replay::run(args),
        Command::Forget { config } => forget::run(config),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-dataplane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Reads and checks the configuration file.
fn load(path: &Path) -> anyhow::Result<Config> {
    Config::load(path).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        match lines.as_slice() {
            // Each problem is a sentence of its own.
            [line] => anyhow::anyhow!("{line}"),
            _ => anyhow::anyhow!("the configuration has {} problems:\n{}", lines.len(), lines.join("\n")),
        }
    })
}
