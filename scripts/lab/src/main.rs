//! `weft-lab`: the demo, and the programs that run inside its namespaces.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use weft_lab::{Error, Result, balancer, demo, knock, session, traffic};

#[derive(Debug, Parser)]
#[command(name = "weft-lab", about = "Real MPTCP through Weft, in network namespaces of this machine.")]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show that every subflow reaches the backend that holds its connection, and what happens without steering.
    Demo(demo::Options),
    /// Print the configuration file that the demo gives to Weft.
    Config(balancer::Options),
    /// Remove what killed runs left behind.
    Sweep,
    /// Serve the VIP; runs inside a backend's namespace.
    #[command(hide = true)]
    Serve {
        #[arg(long)]
        name: String,
        /// Ports to listen on, in place of those of the VIP.
        #[arg(long)]
        port: Vec<u16>,
    },
    /// Connect to the VIP; runs inside the client's namespace.
    #[command(hide = true)]
    Client(traffic::client::Options),
    /// Ask the server behind the VIP to send a large datagram back; runs inside the client's namespace.
    #[command(hide = true)]
    Datagram(traffic::datagram::Options),
    /// Send to a server that sends back what it gets; runs inside the client's namespace.
    #[command(hide = true)]
    Echo(traffic::echo::Options),
    /// Ping the VIP through a hand-made tunnel packet; runs inside the client's namespace.
    #[command(hide = true)]
    Knock(knock::Options),
    /// Send a steady stream that backends answer; runs inside the client's namespace.
    #[command(hide = true)]
    Probe(traffic::probe::Options),
    /// Flood the VIP from addresses that do not exist; runs inside the client's namespace.
    #[command(hide = true)]
    Flood(traffic::flood::Options),
    /// Become another program that is killed when the parent is.
    #[command(hide = true)]
    Child {
        #[arg(long)]
        parent: i32,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weft-lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> Result<ExitCode> {
    match action {
        Action::Demo(options) => return demo::run(&options),
        Action::Config(options) => print!("{}", balancer::configuration(&options, "/run/weft".as_ref())),
        Action::Sweep => session::sweep()?.iter().for_each(|run| println!("removed {run}")),
        Action::Serve { name, port } => traffic::serve::serve(&name, &port)?,
        Action::Client(options) => traffic::client::run(&options)?,
        Action::Datagram(options) => traffic::datagram::run(&options)?,
        Action::Echo(options) => traffic::echo::run(&options)?,
        Action::Knock(options) => knock::knock(&options)?,
        Action::Probe(options) => traffic::probe::run(&options)?,
        Action::Flood(options) => traffic::flood::run(&options)?,
        Action::Child { parent, command } => return Err(become_child(parent, &command)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces this process; returns only when that fails.
fn become_child(parent: i32, command: &[OsString]) -> Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return Error::io("cannot follow the parent", error.into());
    }
    // The parent may have died before the call above.
    if getppid() != Pid::from_raw(parent) {
        return Error::other("the parent is gone");
    }
    let Some((program, arguments)) = command.split_first() else {
        return Error::other("no program named");
    };
    Error::io(format!("cannot run {}", program.display()), Command::new(program).args(arguments).exec())
}
