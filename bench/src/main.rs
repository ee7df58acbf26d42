//! `weft-bench`: traffic, measurements and plots. The commands are in [`weft_bench::cli`].
#![deny(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use weft_bench::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
