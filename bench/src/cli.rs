//! The command line of `weft-bench`. What a command does is in the module of its name.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::budget;
use crate::budget::case::Count;
use crate::compare;
use crate::engine_bench;
use crate::generate;
use crate::goals;
use crate::merge;
use crate::page;
use crate::peer;
use crate::plot;
use crate::report::Run;
use crate::send;
use crate::swap;
use crate::verify::Verify;

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
    /// Measures Weft as it runs, with ports: beside testpmd on the same file, and against a sender.
    Compare(Box<compare::Args>),
    /// Plays a capture into a DPDK port at a given rate, and looks at what comes back.
    Send(Box<send::Args>),
    /// Measures the engine: nanoseconds a packet through the real pipeline, from memory.
    Engine(engine_bench::Options),
    /// Measures the least a packet could cost on the same traffic: minimal loops, as fast as they can be made.
    Floor(engine_bench::Options),
    /// Measures every figure that was aimed at and needs no port, beside its goal.
    Goals(goals::Options),
    /// Measures what a change of the configuration costs a worker that goes on working.
    Swap(swap::Options),
    /// Writes a capture file of traffic as MPTCP clients make it.
    Gen(Box<generate::command::Args>),
    /// Prints a recorded run as a table.
    Show {
        /// The run's JSON file.
        #[arg(value_name = "RUN.json")]
        run: PathBuf,
        /// As CSV instead.
        #[arg(long)]
        csv: bool,
    },
    /// Makes one run of several, of one machine and one day, as JSON and CSV.
    Merge(merge::Args),
    /// Puts a recorded run's figures into the tables of a page of Markdown.
    Page(page::Args),
    /// Draws a recorded run: SVG and PNG of each plot it has rows for, with its conditions.
    Plot {
        /// The run's JSON file.
        #[arg(value_name = "RUN.json")]
        run: PathBuf,
        /// Where the pictures go; made if it is not there.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Names the files as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Speaks MPTCP, also what no kernel speaks, through Weft: checks every proof, names every join that went astray.
    #[command(subcommand)]
    Peer(peer::Command),
    /// Holds what came out of Weft to what went in: backends, headers, bytes, spread. Exit code 1 where it fails.
    Verify(Verify),
    /// Counts instructions, allocations and system calls a packet, and holds them to the committed budget.
    Budget(budget::Options),
    /// What `budget` counts in: judges packets of one kind.
    #[command(hide = true)]
    Count(Count),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever kept it from being done, in one sentence.
    pub fn run(&self) -> anyhow::Result<()> {
        match &self.command {
            Command::Compare(args) => compare::run(args),
            Command::Send(args) => send::run(args),
            Command::Merge(args) => merge::run(args),
            Command::Page(args) => page::run(args),
            Command::Engine(options) => engine_bench::run(options),
            Command::Floor(options) => engine_bench::run_floor(options),
            Command::Goals(options) => goals::run(options),
            Command::Swap(options) => swap::run(options),
            Command::Gen(args) => args.run(),
            Command::Show { run, csv } => {
                let run = Run::read(run)?;
                print!("{}", if *csv { run.to_csv() } else { run.to_table() });
                Ok(())
            }
            Command::Plot { run, out, json } => {
                let files = plot::draw(&Run::read(run)?, out)?;
                if *json {
                    println!("{}", serde_json::json!({ "files": files }));
                } else {
                    files.iter().for_each(|file| println!("{}", file.display()));
                }
                Ok(())
            }
            Command::Peer(command) => peer::run(command),
            Command::Verify(verify) => verify.run(),
            Command::Budget(options) => budget::run(options),
            Command::Count(count) => count.run(),
        }
    }
}
