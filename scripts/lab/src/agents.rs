//! Agents on the lab's backends, with certificates from `scripts/certificates`, and the balancers that listen to them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::balancer::{Balancer, Binaries};
use crate::document::Document;
use crate::namespace::Namespace;
use crate::process::{self, Task};
use crate::topology::{Appliance, Lab};
use crate::{Error, Result};

/// Makes what is needed: an authority, and certificates by the names that agents and appliances have.
const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../certificates");

/// The certificates of a lab, in its directory.
#[derive(Debug)]
pub struct Certificates(PathBuf);

impl Certificates {
    /// For these appliances and every backend.
    pub fn make(lab: &Lab, appliances: &[Appliance]) -> Result<Self> {
        let dir = lab.file("certificates");
        let mut command = Command::new(CERTIFICATES);
        command.arg(&dir);
        for appliance in appliances {
            command.args(["--control", &appliance.four(1)]);
        }
        for backend in &lab.backends {
            command.args(["--agent", &backend.name]);
        }
        process::run(&mut command)?;
        Ok(Self(dir))
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Starts a balancer whose TCP VIPs are steered by tokens that it learns or that agents prove.
    pub fn balancer(
        &self,
        lab: &Lab,
        namespace: &Namespace,
        binaries: &Binaries,
        document: &Document,
    ) -> Result<Balancer> {
        let own = document.appliance.four(1);
        let text = document.text().replace("steering = [\"learn\"]", "steering = [\"learn\", \"agent\"]");
        let text = format!(
            "{text}\n[agents]\nlisten = \"{own}:7443\"\nauthority = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n\
             revoked = \"{}\"\n",
            self.file("authority.pem"),
            self.file(&format!("{own}.pem")),
            self.file(&format!("{own}.key")),
            self.file("revoked.pem"),
        );
        Balancer::start_text(lab, namespace, binaries, &document.runtime_dir, &text)
    }

    /// Starts an agent on every backend, with one capability, that reports to these appliances.
    pub fn agents(&self, lab: &Lab, binaries: &Binaries, appliances: &[Appliance]) -> Result<Vec<Task>> {
        let program = binaries.dataplane.with_file_name("weft-agent");
        if !program.is_file() {
            return Err(Error::other(format!(
                "{} is missing: build it with -p weft-agent",
                program.display()
            )));
        }
        lab.backends
            .iter()
            .map(|backend| self.agent(lab, &backend.name, &backend.namespace, &program, appliances))
            .collect()
    }

    fn agent(
        &self,
        lab: &Lab,
        backend: &str,
        namespace: &Namespace,
        program: &Path,
        appliances: &[Appliance],
    ) -> Result<Task> {
        // Root by name, so that it may read its files, and of root's rights this one: what it needs, and no more.
        let mut arguments: Vec<String> =
            ["--inh-caps", "--bounding-set"].map(|of| format!("{of}=-all,+net_admin")).into();
        arguments.extend([program.display().to_string(), "run".to_owned()]);
        for appliance in appliances {
            arguments.extend(["--connect".to_owned(), appliance.four(1)]);
        }
        arguments.extend(["--authority".to_owned(), self.file("authority.pem")]);
        arguments.extend(["--certificate".to_owned(), self.file(&format!("{backend}.pem"))]);
        arguments.extend(["--key".to_owned(), self.file(&format!("{backend}.key"))]);
        let log = lab.file(&format!("agent-{backend}.log"));
        namespace.task(
            &format!("weft-agent on {backend}"),
            &lab.helper,
            Path::new("/usr/bin/setpriv"),
            &arguments,
            &log,
        )
    }
}
