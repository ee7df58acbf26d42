//! Network namespaces of a test: made by it, named after its process, removed with the value.

use std::fs::File;
use std::process::Command;
// A number for each namespace; loom has nothing to explore in it.
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static MADE: AtomicU32 = AtomicU32::new(0);

/// A network namespace with nothing in it but its loopback.
pub struct Namespace(String);

impl Namespace {
    pub fn new() -> Self {
        let name = format!("weft-p{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let made = Self(name);
        run(Command::new("ip").args(["netns", "add", &made.0]));
        made.ip("link set dev lo up");
        // What is not asked for shall not be sent: neither router solicitations nor MLD reports of temporary addresses.
        made.sh("sysctl -q -w net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0");
        made
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    /// The command, in this namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    /// `ip` with these words.
    #[track_caller]
    pub fn ip(&self, words: &str) {
        run(Command::new("ip").args(["-n", &self.0]).args(words.split(' ')));
    }

    /// Whether `ip` with these words does it.
    pub fn tries_ip(&self, words: &str) -> bool {
        Command::new("ip").args(["-n", &self.0]).args(words.split(' ')).output().unwrap().status.success()
    }

    /// A program with arguments.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let mut words = line.split(' ');
        run(self.command(words.next().unwrap()).args(words))
    }

    /// Runs something on a thread of its own that is in this namespace.
    pub fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let namespace = File::open(format!("/run/netns/{}", self.0)).unwrap();
        std::thread::spawn(move || {
            use std::os::fd::AsFd as _;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        })
    }

    /// Joins two namespaces by a wire. Every frame on it has its whole checksum and is no longer than the MTU.
    pub fn wire(&self, own: &str, other: &Self, others: &str, mtu: u16) {
        let (a, b) = (&self.0, &other.0);
        self.ip(&format!(
            "link add {own} netns {a} mtu {mtu} type veth peer name {others} netns {b} mtu {mtu}"
        ));
        for (namespace, interface) in [(self, own), (other, others)] {
            namespace
                .sh(&format!("ethtool -K {interface} tx off gso off tso off gro off txvlan off rxvlan off"));
            namespace.ip(&format!("link set dev {interface} up"));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

/// Runs a command that must succeed; gives what it prints.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
