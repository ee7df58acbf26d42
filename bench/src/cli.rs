//! The command line of `weft-bench`. What a command does is in the module of its name.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::report::Run;

/// Makes traffic for Weft, measures Weft on it, checks what comes out and draws what was measured.
#[derive(Debug, Parser)]
#[command(name = "weft-bench", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints a recorded run as a table.
    Show {
        /// The run's JSON file.
        #[arg(value_name = "RUN.json")]
        run: PathBuf,
        /// As CSV instead.
        #[arg(long)]
        csv: bool,
    },
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever kept it from being done, in one sentence.
    pub fn run(&self) -> anyhow::Result<()> {
        match &self.command {
            Command::Show { run, csv } => {
                let run = Run::read(run)?;
                print!("{}", if *csv { run.to_csv() } else { run.to_table() });
                Ok(())
            }
        }
    }
}
