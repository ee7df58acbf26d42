//! The operator's tool.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use ctrlplane::cli::WeftctlCli;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    ctrlplane::ctl::main(WeftctlCli::parse()).await
}
