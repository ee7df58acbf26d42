//! The agent on a backend.

#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

use agent::cli::{Cli, Command};
use agent::kernel::dump::dump;
use agent::kernel::events::Events;
use agent::print::Printer;
use agent::session;
use agent::wire::Mark;
use anyhow::Context;
use clap::Parser;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let done = match cli.command {
        Command::Run(args) => session::run(&args).await,
        Command::Watch { json } => watch(Printer { json }),
        Command::Dump { json } => show(Printer { json }),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our lines has heard enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(is_closed) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Prints what is there.
fn show(printer: Printer) -> anyhow::Result<()> {
    printer.mark(Mark::Begin)?;
    let mut printed = Ok(());
    dump(|event| {
        printed = printer.event(&event);
        printed.is_ok()
    })?;
    printed?;
    Ok(printer.mark(Mark::End)?)
}

/// Prints what is there and what happens. Subscribed first: nothing falls between the two.
fn watch(printer: Printer) -> anyhow::Result<()> {
    let events = Events::subscribe().context("the kernel's MPTCP events cannot be listened to")?;
    show(printer)?;
    loop {
        let mut printed = Ok(());
        events.wait(|said| {
            if printed.is_ok() {
                printed = printer.said(&said);
            }
        })?;
        printed?;
    }
}
