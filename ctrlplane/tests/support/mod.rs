//! A runtime directory with a real control plane process in it, and the data plane's end of a real segment.
//!
//! The data plane here is the smallest that speaks the link: it applies batches to a [`State`] by the rules, keeps
//! removed backends until their deadline or until nothing holds them, and dumps it all. Packets are the lab's business.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ctrlplane::state::{Backend, State};
use ipc::counter::Counter;
use ipc::counters::{Gauge, LinkCounter, PortGauge};
use ipc::data_link::{DataLink, Request};
use ipc::id::{BackendId, PortId, VipId, WorkerId};
use ipc::message::{Command, Event, Name, Presence, Refusal, TokenRank};
use ipc::reason::Reason;
use ipc::report::Report;
use serde_json::Value;

pub const EXAMPLE: &str = include_str!("../../../docs/weft.example.toml");

/// The token the data plane of these tests knows; backend `b1` of every pool owns it.
pub const TOKEN: u32 = 0x913e_6c21;

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Waits for something that other processes bring about.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(20), "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A runtime directory and a configuration file that names it.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.write(EXAMPLE);
        place
    }

    pub fn runtime_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("weft.toml")
    }

    pub fn socket(&self) -> PathBuf {
        self.runtime_dir().join("ctrlplane.sock")
    }

    /// Writes the configuration file; whatever runtime_dir it names becomes this place's.
    pub fn write(&self, text: &str) {
        let ours = format!("\"{}\"", self.runtime_dir().display());
        std::fs::write(self.config(), text.replace("\"/run/weft\"", &ours)).unwrap();
    }

    /// A data plane and a control plane, once they agree.
    pub fn both(&self) -> (Dataplane, Ctrlplane) {
        let both = (Dataplane::start(&self.runtime_dir()), self.ctrlplane());
        self.wait_in_sync();
        both
    }

    pub fn ctrlplane(&self) -> Ctrlplane {
        self.ctrlplane_by(Process::new(env!("CARGO_BIN_EXE_weft-ctrlplane")))
    }

    /// Starts the control plane through another program (`ip netns exec …`).
    pub fn ctrlplane_by(&self, mut process: Process) -> Ctrlplane {
        let child = process
            .args(["run", "--config"])
            .arg(self.config())
            .stderr(std::fs::File::create(self.dir.path().join("ctrlplane.log")).unwrap())
            .spawn()
            .unwrap();
        Ctrlplane { child }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("ctrlplane.log")).unwrap()
    }

    /// Runs weftctl; with `--config`, so that finding the socket is part of every test.
    pub fn weftctl(&self, arguments: &[&str]) -> Said {
        let output = Process::new(env!("CARGO_BIN_EXE_weftctl"))
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Said::of(output)
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let said = self.weftctl(&[&["--json"], arguments].concat());
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }

    /// The data plane has what it should have.
    pub fn wait_in_sync(&self) {
        wait_until("the data plane is in sync", || {
            let said = self.weftctl(&["--json", "status"]);
            said.code == 0
                && serde_json::from_str::<Value>(&said.out).unwrap()["dataplane"]["in_sync"] == true
        });
    }
}

/// What a program said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A running control plane; killed when dropped.
pub struct Ctrlplane {
    pub child: Child,
}

impl Ctrlplane {
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Ctrlplane {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The data plane's end of the link, on a thread.
pub struct Dataplane {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    held: Arc<Mutex<Held>>,
}

/// What the data plane has.
#[derive(Default)]
pub struct Held {
    pub state: State,
    pub generation: u64,
    /// The backends removed, and when each is deleted.
    pub removed: BTreeMap<(Name, Name), (Backend, Option<Instant>)>,
    /// Flows and tokens by backend, where they are not [`COUNTS`].
    pub counts: BTreeMap<(Name, Name), (u64, u64)>,
    /// What the worker is to count before the next request.
    pub count: Vec<(Counter, u64)>,
    /// What packets are to have been kept or dropped for.
    pub reasons: Vec<(Reason, u64)>,
    /// What the manager is to count.
    pub links: Vec<LinkCounter>,
    /// What the gauges are to say.
    pub gauges: Vec<(Gauge, u64)>,
    /// What agents reported, in order; leases left out.
    pub reports: Vec<(BackendId, Report)>,
    /// Backends whose agents vouched for them.
    pub leases: Vec<BackendId>,
}

/// Flows and tokens of a backend.
pub const COUNTS: (u64, u64) = (11, 4);

impl Dataplane {
    pub fn start(runtime_dir: &Path) -> Self {
        Self::start_with(runtime_dir, Held::default())
    }

    /// Starts one that has something already, as after a restart that kept the tables.
    pub fn start_with(runtime_dir: &Path, held: Held) -> Self {
        let link = DataLink::create(runtime_dir).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let held = Arc::new(Mutex::new(held));
        let thread = std::thread::spawn({
            let (stop, held) = (stop.clone(), held.clone());
            move || serve(link, &stop, &held)
        });
        Self { stop, thread: Some(thread), held }
    }

    pub fn state(&self) -> State {
        self.held.lock().unwrap().state.clone()
    }

    pub fn generation(&self) -> u64 {
        self.held.lock().unwrap().generation
    }

    pub fn change(&self, change: impl FnOnce(&mut Held)) {
        change(&mut self.held.lock().unwrap());
    }

    /// What agents reported so far.
    pub fn reports(&self) -> Vec<(BackendId, Report)> {
        self.held.lock().unwrap().reports.clone()
    }

    /// Seconds until a removed backend is deleted; `None` if it is not removed.
    pub fn deadline(&self, pool: &str, backend: &str) -> Option<Option<u64>> {
        let held = self.held.lock().unwrap();
        let (_, deadline) = held.removed.get(&(name(pool), name(backend)))?;
        Some(deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_secs()))
    }

    /// Ends it and gives what it had.
    pub fn stop(mut self) -> Held {
        self.end();
        std::mem::take(&mut *self.held.lock().unwrap())
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.end();
    }
}

fn serve(mut link: DataLink, stop: &AtomicBool, shared: &Mutex<Held>) {
    let worker = link.worker(WorkerId(0)).unwrap();
    worker.reason(Reason::UnknownToken, 7);
    worker.reason(Reason::NotVip, 9);
    worker.reason(Reason::Token, 5);
    worker.add(Counter::TokenLearned, 3);
    worker.vip(VipId(0), 100, 6000);
    worker.backend(BackendId(1), 40, 2400);
    link.gauges().set(Gauge::Workers, 1);
    link.gauges().set(Gauge::Tokens, 2);
    link.gauges().set(Gauge::TokenCapacity, 1000);
    link.gauges().set(Gauge::Ports, 1);
    link.gauges().set_port_name(PortId(0), "net_null0");
    for gauge in PortGauge::ALL {
        link.gauges().set_port(PortId(0), *gauge, 100 + u64::try_from(gauge.index()).unwrap());
    }
    while !stop.load(Ordering::Relaxed) {
        let mut held = shared.lock().unwrap();
        for (counter, amount) in held.count.drain(..) {
            worker.add(counter, amount);
        }
        for (reason, packets) in held.reasons.drain(..) {
            worker.reason(reason, packets);
        }
        held.links.drain(..).for_each(|counter| link.gauges().count(counter));
        for (gauge, value) in held.gauges.drain(..) {
            link.gauges().set(gauge, value);
        }
        let counts = held.counts.clone();
        held.removed.retain(|key, _| counts.get(key) != Some(&(0, 0)));
        match link.poll() {
            Some(Request::Batch(batch)) => match apply(&held.state, &batch.commands) {
                Ok(state) => {
                    remove(&mut held, &batch.commands);
                    held.state = state;
                    held.generation += 1;
                    link.send(Event::Committed { batch: batch.number, generation: held.generation });
                }
                Err((command, refusal)) => {
                    link.send(Event::Refused { batch: batch.number, command, refusal, name: None });
                }
            },
            Some(Request::Dump) => {
                dump(&mut link, &held);
                link.send(Event::DumpEnd { generation: held.generation });
            }
            Some(Request::FindToken { token }) => {
                for pool in held.state.pools.keys().filter(|_| token == TOKEN) {
                    link.send(Event::TokenFound {
                        token,
                        pool: *pool,
                        backend: name("b1"),
                        rank: TokenRank::Seen,
                        ambiguous: false,
                        age_seconds: 16,
                    });
                }
                link.send(Event::TokenEnd { token });
            }
            Some(Request::Report { backend, report: Report::Lease { .. } }) => held.leases.push(backend),
            Some(Request::Report { backend, report }) => held.reports.push((backend, report)),
            Some(_) => {}
            None => {
                drop(held);
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }
}

/// Keeps what a batch removes, and drops what it brings back.
fn remove(held: &mut Held, commands: &[Command]) {
    let mut state = held.state.clone();
    for command in commands {
        match *command {
            Command::PutBackend { pool, name, .. } => drop(held.removed.remove(&(pool, name))),
            Command::RemoveBackend { pool, name, deadline } => {
                let backend = state.pools[&pool][&name];
                let deadline =
                    deadline.map(|seconds| Instant::now() + Duration::from_secs(u64::from(seconds)));
                held.removed.insert((pool, name), (backend, deadline));
            }
            _ => {}
        }
        // The batch holds as a whole, so a part of it may fail only where it says nothing of backends.
        state = state.apply(std::slice::from_ref(command)).unwrap_or(state);
    }
}

/// Whole or not at all. A backend called `refuse-me` stands for whatever a data plane may refuse.
fn apply(state: &State, commands: &[Command]) -> Result<State, (u32, Refusal)> {
    for (place, command) in (0..).zip(commands) {
        if matches!(command, Command::PutBackend { name, .. } if name.as_str() == "refuse-me") {
            return Err((place, Refusal::TooManyBackends));
        }
    }
    state.apply(commands)
}

fn dump(link: &mut DataLink, held: &Held) {
    let mut id = 0;
    let mut backend =
        |link: &mut DataLink, (pool, name): (Name, Name), backend: &Backend, presence, deadline| {
            id += 1;
            let (flows, tokens) = held.counts.get(&(pool, name)).copied().unwrap_or(COUNTS);
            link.send(Event::Backend {
                id: BackendId(id),
                pool,
                name,
                address4: backend.address4,
                address6: backend.address6,
                mac: backend.mac,
                weight: backend.weight,
                state: backend.state,
                handles: backend.handles,
                flows,
                tokens,
                presence,
                deadline,
            });
        };
    let state = &held.state;
    for (pool, backends) in &state.pools {
        link.send(Event::Pool { name: *pool });
        for (name, known) in backends {
            backend(link, (*pool, *name), known, Presence::Present, None);
        }
    }
    for (key, (known, deadline)) in &held.removed {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let presence = if left == Some(Duration::ZERO) { Presence::Deleted } else { Presence::Removed };
        let seconds = left.map(|left| u32::try_from(left.as_secs()).unwrap());
        backend(link, *key, known, presence, seconds);
    }
    for (id, (name, vip)) in (0..).zip(&state.vips) {
        link.send(Event::Vip {
            id: VipId(id),
            name: *name,
            pool: vip.pool,
            protocol: vip.protocol,
            forward: vip.forward,
            steering: vip.steering,
            unknown_token: vip.unknown_token,
        });
        for (address, port) in &vip.services {
            link.send(Event::Service { vip: *name, address: *address, port: *port });
        }
    }
}
