//! The slow process.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use ctrlplane::cli::{CtrlplaneCli, CtrlplaneCommand};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let CtrlplaneCommand::Run { config, api } = CtrlplaneCli::parse().command;
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match ctrlplane::run::run(&config, api).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One sentence, its causes behind it; no backtrace, no log prefix.
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
