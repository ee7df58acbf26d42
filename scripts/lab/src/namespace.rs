//! A network namespace and the programs that run in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, Task};
use crate::{Result, session};

/// A named network namespace. Dropping it ends what still runs in it and removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace `RUN-ROLE`, with its loopback up.
    pub fn new(run: &str, role: &str) -> Result<Self> {
        let name = format!("{run}-{role}");
        process::run(Command::new("ip").args(["netns", "add", &name]))?;
        // From here on the name is ours to remove.
        let namespace = Self { name };
        namespace.ip("link set lo up\n")?;
        Ok(namespace)
    }

    /// The name under which `ip netns exec` enters it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` commands, one a line, inside.
    pub fn ip(&self, batch: &str) -> Result<()> {
        process::run_with_input(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), batch)?;
        Ok(())
    }

    /// Sets kernel parameters, `name=value`.
    pub fn sysctl(&self, settings: &[&str]) -> Result<()> {
        let mut command = self.command("sysctl");
        command.args(["-q", "-w"]).args(settings);
        process::run(&mut command)?;
        Ok(())
    }

    /// A command that will run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a program inside to its end and returns its standard output.
    pub fn run(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Result<String> {
        process::run(self.command(program).args(arguments))
    }

    /// Starts a program inside that dies with the lab: see [`Entrance::task`].
    pub fn task(
        &self,
        name: &str,
        helper: &Path,
        program: &Path,
        arguments: &[String],
        log: &Path,
    ) -> Result<Task> {
        self.entrance(helper).task(name, program, arguments, log)
    }

    /// A way in that does not keep the namespace: for programs that are started more than once.
    pub fn entrance(&self, helper: &Path) -> Entrance {
        Entrance { namespace: self.name.clone(), helper: helper.to_owned() }
    }
}

/// Starts programs in a namespace.
#[derive(Debug, Clone)]
pub struct Entrance {
    namespace: String,
    /// The `weft-lab` binary, which asks the kernel to be killed when its parent is, and then becomes a program.
    helper: PathBuf,
}

impl Entrance {
    /// Starts a program inside that dies with the lab.
    pub fn task(&self, name: &str, program: &Path, arguments: &[String], log: &Path) -> Result<Task> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(&self.helper);
        command.args(["child", "--parent", &std::process::id().to_string(), "--"]);
        command.arg(program).args(arguments);
        Task::start(name, command, log)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        session::remove_namespace(&self.name);
    }
}
