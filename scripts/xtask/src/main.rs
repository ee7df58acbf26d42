//! Checks of the tree that are code: tidy, docs, panics.
//!
//! Why it exists: a rule that only a document states is broken within a month. Each rule of docs/architecture.md
//! that a program can decide is decided here, with the same answer on every machine and no tool to install.
//! Every complaint reads `FILE:LINE: what is wrong; what to do`.

#![forbid(unsafe_code)]

mod docs;
mod finding;
mod panics;
mod source;
mod tidy;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::finding::Finding;

/// Checks of the tree that are code.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The shape of the tree: lengths, unsafe, arrows between crates, headers, words, scripts.
    Tidy,
    /// Documents that are generated from code: docs/configuration.md and the lists of docs/packet-path.md.
    Docs {
        /// Write them instead of comparing.
        #[arg(long)]
        write: bool,
    },
    /// The machine code of the packet path: no way to a panic, an allocation or the system.
    Panics {
        /// The release binary; without it, it is built.
        binary: Option<PathBuf>,
        /// A function to start from; may be given more than once. Each must exist in the binary.
        #[arg(long = "root", value_name = "PATH")]
        roots: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(findings) if findings.is_empty() => ExitCode::SUCCESS,
        Ok(findings) => {
            for finding in &findings {
                eprintln!("{finding}");
            }
            eprintln!("{} to mend", findings.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<Vec<Finding>> {
    let root = std::path::absolute(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .and_then(|path| path.canonicalize())
        .context("the root of the checkout")?;
    match command {
        Command::Tidy => tidy::run(&root),
        Command::Docs { write } => docs::run(&root, write),
        Command::Panics { binary, roots } => panics::run(&root, binary, &roots),
    }
}
