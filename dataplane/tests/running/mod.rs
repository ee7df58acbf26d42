//! What the tests of a running `weft-dataplane` share: a folder for each, the process, and its end.
//!
//! Every data plane is the real program in a process of its own, with a runtime directory, and so a DPDK file prefix,
//! that no other has. It is ended by its pid, first politely; also when the test panics.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking")]

pub mod busy;
pub mod net;
pub mod packets;
pub mod wire;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ipc::control_link::{Answer, ControlLink};
use ipc::counter::Counter;
use ipc::counters::CounterReader;
use ipc::id::{BackendId, VipId, WorkerId};
use ipc::liveness::{Role, Watch};
use ipc::message::Command as Change;
use ipc::reason::Reason;
use rustix::process::{Pid, Signal, kill_process};

/// Far above what anything here takes: only a hang meets it.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that is waited for.
pub const LOOK: Duration = Duration::from_millis(5);

/// The port's MAC address in every configuration of these tests: that of the captures.
pub const PORT_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];

/// Whether this is root; if not, says that the test is skipped.
pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip::skip(test, "not root");
    }
    root
}

/// Whether the long run was asked for, whose results go into docs/reliability.md.
pub fn is_soak() -> bool {
    std::env::var_os("WEFT_SOAK").is_some()
}

/// Prints a row of the soak table, where one was asked for: what went wrong, how often, and of how many packets how
/// many went to no backend, but those received before the first configuration.
pub fn soak_row(fault: &str, count: u32, counters: &CounterReader) {
    if is_soak() {
        let drops = Reason::ALL.iter().filter(|reason| reason.is_drop() && **reason != Reason::NoConfig);
        let dropped: u64 = drops.map(|reason| counters.reason(*reason)).sum();
        let lost = dropped + counters.counter(Counter::TxRefused);
        println!("| {fault} | {count} | {} | {lost} |", counters.counter(Counter::RxPackets));
    }
}

/// The CPUs this test may use, the last first: the first ones are busiest elsewhere.
pub fn cpus() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    (0..rustix::thread::CpuSet::MAX_CPU).rev().filter(|cpu| set.is_set(*cpu)).collect()
}

/// As many workers as asked for, where there are CPUs for them; at least one.
pub fn workers(count: usize) -> Vec<usize> {
    cpus().into_iter().take(count).collect()
}

/// What a configuration says that differs from test to test.
pub struct Setup<'a> {
    pub workers: &'a [usize],
    pub huge_pages: &'a str,
    pub flows: usize,
    pub tokens: usize,
    pub memory_mb: u32,
    /// Whether tables stay at the end; mostly they must not, or tests would fill the huge pages.
    pub keep_tables: bool,
    /// Device strings, and keys of the first port.
    pub devices: &'a [&'a str],
    pub port_keys: &'a str,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            workers: &[0],
            huge_pages: "off",
            flows: 10_000,
            tokens: 10_000,
            memory_mb: 64,
            keep_tables: false,
            devices: &["net_null0"],
            port_keys: "",
        }
    }
}

/// Three backends and a VIP of both families, as in the captures.
const BALANCING: &str = r#"
[[pool]]
name = "web-servers"
backend = [
    { name = "b1", address = ["10.0.1.11", "fd00:1::11"], mac = "02:00:00:00:03:01" },
    { name = "b2", address = ["10.0.1.12", "fd00:1::12"], mac = "02:00:00:00:03:02" },
    { name = "b3", address = ["10.0.1.13", "fd00:1::13"], mac = "02:00:00:00:03:03" },
]

[[vip]]
name = "web"
address = ["10.9.9.9", "fd99::9"]
port = 8000
pool = "web-servers"
"#;

/// A test's folder, and what its data planes may leave elsewhere. All of it goes with the value.
pub struct Place {
    folder: tempfile::TempDir,
    started: RefCell<usize>,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), started: RefCell::new(0) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn runtime_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// DPDK's file prefix of this place.
    pub fn prefix(&self) -> String {
        let name = self.folder.path().file_name().unwrap().to_string_lossy();
        format!("weft-test-{}", name.trim_start_matches('.'))
    }

    /// Writes weft.toml.
    pub fn configure(&self, setup: &Setup<'_>) -> PathBuf {
        self.configure_in(setup, &self.runtime_dir())
    }

    pub fn configure_in(&self, setup: &Setup<'_>, runtime_dir: &Path) -> PathBuf {
        let Setup { workers, huge_pages, flows, tokens, memory_mb, keep_tables, .. } = setup;
        let [a, b, c, d, e, f] = PORT_MAC;
        let mut text = format!(
            "[dataplane]\nruntime_dir = {runtime_dir:?}\nfile_prefix = {prefix:?}\nworkers = {workers:?}\n\
             huge_pages = {huge_pages:?}\nflows = {flows}\ntokens = {tokens}\nmemory_mb = {memory_mb}\n\
             keep_tables = {keep_tables}\n",
            prefix = self.prefix(),
        );
        for (index, device) in setup.devices.iter().enumerate() {
            write!(text, "[[dataplane.port]]\ndevice = {device:?}\n").unwrap();
            if index == 0 {
                write!(
                    text,
                    "mac = \"{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}\"\n\
                     address = [\"10.0.1.254/24\", \"fd00:1::254/64\"]\n{}\n",
                    setup.port_keys
                )
                .unwrap();
            }
        }
        text.push_str(BALANCING);
        let path = self.path("weft.toml");
        fs::write(&path, text).unwrap();
        path
    }

    /// What is left of a data plane: files in the runtime directory but the lock files, which stay on purpose, a held
    /// lock, tables on huge pages, DPDK's folder.
    pub fn leftovers(&self) -> Vec<String> {
        let dir = self.runtime_dir();
        let mut left: Vec<String> = fs::read_dir(&dir)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".lock"))
            .collect();
        if dir.is_dir() && Watch::new(&dir, Role::DataPlane).unwrap().is_held() {
            left.push("the lock".to_owned());
        }
        let dpdk = Path::new("/var/run/dpdk").join(self.prefix());
        left.extend(self.huge_files().into_iter().chain([dpdk]).filter(|path| path.exists()).map(text));
        left
    }

    /// The tables' files on huge pages that the logs of this place's data planes name.
    pub fn huge_files(&self) -> Vec<PathBuf> {
        let logs = (0..*self.started.borrow()).map(|number| self.log_of(number));
        logs.filter_map(|log| {
            let log = fs::read_to_string(log).ok()?;
            let line = log
                .lines()
                .find(|line| line.contains("tables for") && line.contains(" on huge pages of "))?;
            Some(PathBuf::from(line.rsplit_once(" in ")?.1))
        })
        .collect()
    }

    fn log_of(&self, number: usize) -> PathBuf {
        self.path(&format!("stderr-{number}"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Mostly there are none: a data plane that ended in order removed its own.
        for path in self.huge_files() {
            let _removed = fs::remove_file(path);
        }
        let _removed = fs::remove_dir_all(Path::new("/var/run/dpdk").join(self.prefix()));
    }
}

fn text(path: PathBuf) -> String {
    path.display().to_string()
}

/// The program under test.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_weft-dataplane"))
}

/// A data plane, ended with the value.
pub struct DataPlane {
    child: Child,
    log: PathBuf,
}

impl DataPlane {
    /// Starts one; does not wait for it.
    pub fn start(place: &Place, config: &Path) -> Self {
        Self::spawn(place, Command::new(program()).arg("run").arg("--config").arg(config))
    }

    /// Starts the command; what it says goes to a file.
    pub fn spawn(place: &Place, command: &mut Command) -> Self {
        let number = place.started.replace_with(|count| *count + 1);
        let log = place.log_of(number);
        let child = command
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let ended = patiently(PATIENCE, || self.child.try_wait().unwrap());
        ended.unwrap_or_else(|| panic!("it does not end; it said:\n{}", self.said()))
    }

    /// Ends it with a signal, in order.
    pub fn stop(mut self, signal: Signal) -> String {
        self.signal(signal);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{}", self.said());
        self.said()
    }

    /// Ends it at once.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A control plane's end of its link, attached, once it runs.
    pub fn control(&mut self, place: &Place) -> ControlLink {
        let opened = patiently(PATIENCE, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("it ended ({status}): {}", self.said());
            }
            // Until it has made its segment, there may be that of one that was killed.
            let mut link = ControlLink::open(&place.runtime_dir()).ok()?;
            link.attach(PATIENCE).ok().map(|()| link)
        });
        opened.unwrap_or_else(|| panic!("no link; it said:\n{}", self.said()))
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        let _told = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let ended = patiently(Duration::from_secs(10), || self.child.try_wait().ok().flatten());
        if ended.is_none() {
            let _killed = self.child.kill();
            let _ended = self.child.wait();
        }
    }
}

/// Looks until there is something, or patience ends.
pub fn patiently<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let since = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if since.elapsed() > patience {
            return None;
        }
        sleep(LOOK);
    }
}

/// Waits until something holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    assert!(patiently(PATIENCE, || holds().then_some(())).is_some(), "never: {what}");
}

/// Applies a batch that must be taken; gives its generation.
#[track_caller]
pub fn commit(link: &mut ControlLink, changes: &[Change]) -> u64 {
    match link.apply(changes, PATIENCE).unwrap() {
        Answer::Committed { generation } => generation,
        refused => panic!("{refused:?}"),
    }
}

/// The commands of a configuration file, as the control plane would send them.
pub fn commands(config: &Path) -> Vec<Change> {
    config::Config::load(config).unwrap().commands()
}

/// What must hold of the counters of a data plane that has ended.
#[track_caller]
pub fn assert_consistent(counters: &CounterReader) {
    let reasons = |wanted: fn(Reason) -> bool| -> u64 {
        Reason::ALL.iter().filter(|reason| wanted(**reason)).map(|reason| counters.reason(*reason)).sum()
    };
    let judged = reasons(|_| true) + counters.counter(Counter::Punted);
    assert_eq!(counters.counter(Counter::RxPackets), judged, "each packet has one reason or is the kernel's");
    let left = counters.counter(Counter::TxPackets) + counters.counter(Counter::TxRefused);
    assert_eq!(left, reasons(|reason| !reason.is_drop()), "each packet leaves by one door");
    let balanced = reasons(|reason| matches!(reason, Reason::Flow | Reason::Hash | Reason::Token));
    // Worker by worker: there, what was counted under an id before it was its present owner's is not left out.
    let workers: Vec<CounterReader> = (0..).map_while(|id| counters.worker(WorkerId(id))).collect();
    let sum = |count: &dyn Fn(&CounterReader) -> u64| -> u64 { workers.iter().map(count).sum() };
    let of_backends: u64 = (1..4096).map(|id| sum(&|worker| worker.backend(BackendId(id)).packets)).sum();
    let of_vips: u64 = (0..256).map(|id| sum(&|worker| worker.vip(VipId(id)).packets)).sum();
    assert_eq!(of_backends, balanced);
    assert_eq!(of_vips, balanced);
}
