//! A backend that is a whole machine: a stock Debian kernel in a virtual machine under software emulation, where the
//! kernel of this machine has no tunnel modules of its own.
//!
//! What a tunnelled packet must look like is decided by the modules that take it apart in production: `ipip`, `sit`,
//! `ip6_tunnel` and `fou`. The guest has those, its kernel's MPTCP, `ip`, busybox and `weft-lab serve`; it boots from
//! memory into one shell that reads commands from a serial line, one a line, and answers each with what it printed
//! and its exit status.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::time::Duration;

use crate::process::Task;
use crate::topology::Lab;
use crate::vm_image::{self, Parts};
use crate::{Error, Result};

/// How long the guest may take to boot: 4 s on an idle core.
const BOOT: Duration = Duration::from_secs(120);
/// How long a command in it may take.
const COMMAND: Duration = Duration::from_secs(180);
/// How every line begins with which the guest itself says something.
const MARK: &str = "guest: ";
/// The MAC address of its interface.
pub const MAC: &str = "02:00:00:00:04:01";

/// A running guest. Dropping it ends it.
#[derive(Debug)]
pub struct Guest {
    task: Task,
    commands: ChildStdin,
    console: PathBuf,
}

impl Guest {
    /// Boots a guest whose only interface, `eth0`, is a port of the lab's bridge; returns once it takes commands.
    pub fn boot(lab: &Lab, parts: &Parts) -> Result<Self> {
        let image = vm_image::build(lab.session.dir(), parts, &lab.helper)?;
        let console = lab.file("guest-console.log");
        lab.switch.ip("tuntap add dev p-vm mode tap\nlink set p-vm master br0 mtu 1600 up\n")?;
        let mut task = lab.switch.task(
            "the virtual machine",
            &lab.helper,
            "qemu-system-x86_64".as_ref(),
            &arguments(parts, &image, &console),
            &lab.file("guest-qemu.log"),
        )?;
        let commands = task.take_stdin().ok_or_else(|| Error::other("the guest has no serial line"))?;
        let mut guest = Self { task, commands, console };
        let greeting = guest.answer(BOOT)?;
        if greeting.status != "ready" {
            return Err(Error::other(format!("the guest said `{}`{}", greeting.status, guest.last_words())));
        }
        Ok(guest)
    }

    /// Runs a shell command in the guest; an error when it fails, with all it said.
    pub fn run(&mut self, command: &str) -> Result<String> {
        let failed = |e| Error::io("cannot talk to the guest", e);
        writeln!(self.commands, "{command}").map_err(failed)?;
        self.commands.flush().map_err(failed)?;
        let answer = self.answer(COMMAND)?;
        if answer.status == "0" {
            return Ok(answer.text);
        }
        let reason = format!("exit status {}: {}", answer.status, answer.text.trim());
        Err(Error::Tool { command: format!("in the guest: {command}"), reason })
    }

    /// A counter of the guest's kernel by the name that `nstat` gives it.
    pub fn counter(&mut self, name: &str) -> Result<u64> {
        let text = self.run("cat /proc/net/netstat /proc/net/snmp")?;
        counter(&text, name).ok_or_else(|| Error::other(format!("the guest does not count {name}")))
    }

    /// The lines up to and without the next one that the guest marks, and what that says.
    fn answer(&mut self, limit: Duration) -> Result<Answer> {
        let mut text = String::new();
        loop {
            let line =
                self.task.next_line(limit).map_err(|e| Error::other(format!("{e}{}", self.last_words())))?;
            let line = line.trim_end_matches('\r');
            if let Some(status) = line.strip_prefix(MARK) {
                return Ok(Answer { text, status: status.to_owned() });
            }
            text.push_str(line);
            text.push('\n');
        }
    }

    /// The end of the guest's console.
    fn last_words(&self) -> String {
        let text = fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        format!("; the end of its console:\n  {}", lines[lines.len().saturating_sub(15)..].join("\n  "))
    }
}

#[derive(Debug)]
struct Answer {
    text: String,
    status: String,
}

/// No acceleration: nested virtualisation cannot be counted on. No checksum left to hardware that does not exist.
fn arguments(parts: &Parts, image: &Path, console: &Path) -> Vec<String> {
    let (kernel, image) = (parts.kernel.display(), image.display());
    let words = format!(
        "-accel tcg -cpu max -m 256 -display none -no-reboot -nodefaults \
         -kernel {kernel} -initrd {image} -serial file:{} -serial stdio \
         -netdev tap,id=n0,ifname=p-vm,script=no,downscript=no \
         -device virtio-net-pci,netdev=n0,mac={MAC},romfile=,csum=off,guest_csum=off,gso=off,host_mtu=1600",
        console.display()
    );
    let mut arguments: Vec<String> = words.split(' ').map(str::to_owned).collect();
    arguments.extend(["-append".to_owned(), "console=ttyS0 loglevel=4 panic=-1 mitigations=off".to_owned()]);
    arguments
}

/// `/proc/net/netstat` and its like: a line of names, a line of values, both beginning with the same word.
fn counter(text: &str, name: &str) -> Option<u64> {
    let lines: Vec<&str> = text.lines().collect();
    lines.windows(2).find_map(|pair| {
        let (names, values) = (pair[0].split_whitespace(), pair[1].split_whitespace());
        let group = pair[0].split(':').next().filter(|group| pair[1].starts_with(*group))?;
        let wanted = name.strip_prefix(group)?;
        let value = names.zip(values).find(|(column, _)| *column == wanted)?.1;
        value.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_group_and_column() {
        let text = "TcpExt: SyncookiesSent Other\nTcpExt: 3 4\nMPTcpExt: MPCapableSYNRX MPJoinAckRx\nMPTcpExt: 5 6\n";
        assert_eq!(counter(text, "MPTcpExtMPJoinAckRx"), Some(6));
        assert_eq!(counter(text, "TcpExtSyncookiesSent"), Some(3));
        assert_eq!(counter(text, "TcpExtMPJoinAckRx"), None);
    }
}
