//! A runtime directory with a real control plane process in it, and the data plane's end of a real segment.
//!
//! The data plane here is the smallest that speaks the link: it applies batches to a [`State`] by the rules, and
//! dumps it. Packets are the lab's business.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ctrlplane::state::State;
use ipc::counter::Counter;
use ipc::counters::Gauge;
use ipc::data_link::{DataLink, Request};
use ipc::id::{BackendId, VipId, WorkerId};
use ipc::message::{Command, Event, Name, Presence, Refusal, TokenRank};
use ipc::reason::Reason;
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
    state: Arc<Mutex<(State, u64)>>,
}

impl Dataplane {
    pub fn start(runtime_dir: &Path) -> Self {
        let link = DataLink::create(runtime_dir).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let state = Arc::new(Mutex::new((State::default(), 0)));
        let thread = std::thread::spawn({
            let (stop, state) = (stop.clone(), state.clone());
            move || serve(link, &stop, &state)
        });
        Self { stop, thread: Some(thread), state }
    }

    pub fn state(&self) -> State {
        self.state.lock().unwrap().0.clone()
    }

    pub fn generation(&self) -> u64 {
        self.state.lock().unwrap().1
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(mut link: DataLink, stop: &AtomicBool, shared: &Mutex<(State, u64)>) {
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
    while !stop.load(Ordering::Relaxed) {
        match link.poll() {
            Some(Request::Batch(batch)) => {
                let mut shared = shared.lock().unwrap();
                match apply(&shared.0, &batch.commands) {
                    Ok(state) => {
                        *shared = (state, shared.1 + 1);
                        link.send(Event::Committed { batch: batch.number, generation: shared.1 });
                    }
                    Err((command, refusal)) => {
                        let event = Event::Refused { batch: batch.number, command, refusal, name: None };
                        link.send(event);
                    }
                }
            }
            Some(Request::Dump) => {
                let shared = shared.lock().unwrap();
                dump(&mut link, &shared.0);
                link.send(Event::DumpEnd { generation: shared.1 });
            }
            Some(Request::FindToken { token }) => {
                let shared = shared.lock().unwrap();
                for pool in shared.0.pools.keys().filter(|_| token == TOKEN) {
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
            Some(_) => {}
            None => std::thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// Whole or not at all. A backend called `refuse-me` stands for whatever a data plane may refuse.
fn apply(state: &State, commands: &[Command]) -> Result<State, (u32, Refusal)> {
    let mut state = state.clone();
    for (place, command) in (0..).zip(commands) {
        if matches!(command, Command::PutBackend { name, .. } if name.as_str() == "refuse-me") {
            return Err((place, Refusal::TooManyBackends));
        }
        state.apply(*command).map_err(|refusal| (place, refusal))?;
    }
    Ok(state)
}

fn dump(link: &mut DataLink, state: &State) {
    let mut id = 0;
    for (pool, backends) in &state.pools {
        link.send(Event::Pool { name: *pool });
        for (name, backend) in backends {
            id += 1;
            link.send(Event::Backend {
                id: BackendId(id),
                pool: *pool,
                name: *name,
                address4: backend.address4,
                address6: backend.address6,
                mac: backend.mac,
                weight: backend.weight,
                state: backend.state,
                flows: 11,
                tokens: 4,
                presence: Presence::Present,
                deadline: None,
            });
        }
    }
    for (id, (name, vip)) in (0..).zip(&state.vips) {
        link.send(Event::Vip {
            id: VipId(id),
            name: *name,
            pool: vip.pool,
            protocol: vip.protocol,
            forward: vip.forward,
            learn: vip.learn,
            unknown_token: vip.unknown_token,
        });
        for (address, port) in &vip.services {
            link.send(Event::Service { vip: *name, address: *address, port: *port });
        }
    }
}
