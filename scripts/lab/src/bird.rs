//! BIRD, a routing daemon, beside Weft and on the router.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::namespace::Namespace;
use crate::process::{self, Task};
use crate::topology::Lab;
use crate::{Error, Result};

const PROGRAM: &str = "/usr/sbin/bird";

/// A running BIRD. Dropping it ends it, which ends its sessions.
#[derive(Debug)]
pub struct Bird {
    task: Task,
    socket: PathBuf,
}

impl Bird {
    /// Why there is no BIRD here, if there is none.
    pub fn missing() -> Option<&'static str> {
        let here = Path::new(PROGRAM).is_file();
        (!here).then_some("no BIRD on this machine: scripts/install installs it")
    }

    /// Starts it in a namespace of the lab.
    pub fn start(lab: &Lab, namespace: &Namespace, name: &str, configuration: &str) -> Result<Self> {
        let (config, socket) = (lab.file(&format!("{name}.conf")), lab.file(&format!("{name}.ctl")));
        std::fs::write(&config, configuration).map_err(|e| Error::io("cannot write BIRD's file", e))?;
        let [config, control, pid] =
            [&config, &socket, &lab.file(&format!("{name}.pid"))].map(|p| p.display().to_string());
        let arguments = ["-f", "-c", &config, "-s", &control, "-P", &pid].map(str::to_owned);
        let log = lab.file(&format!("{name}.log"));
        let task = namespace.task(name, &lab.helper, PROGRAM.as_ref(), &arguments, &log)?;
        Ok(Self { task, socket })
    }

    /// Asks it something, as `birdc` does.
    pub fn ask(&mut self, words: &[&str]) -> Result<String> {
        self.task.check()?;
        process::run(Command::new("/usr/sbin/birdcl").arg("-s").arg(&self.socket).args(words))
    }

    /// Ends it as an operator does.
    pub fn stop(&mut self) {
        self.task.stop();
    }
}
