//! A running `weft-dataplane` under traffic that does not end: the configuration changes two hundred times, a control
//! plane is killed in the middle of a batch, and workers are watched for system calls.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ipc::control_link::{ControlLink, Dump};
use ipc::counter::Counter;
use ipc::counters::{CounterReader, Gauge, LinkCounter};
use ipc::id::{BackendId, WorkerId};
use ipc::message::{BackendState, Command as Change, Event, Name};
use ipc::reason::Reason;
use running::packets::{ack, write_pcap};
use running::{
    DataPlane, PATIENCE, Place, Setup, assert_consistent, commands, commit, is_root, skip, until, workers,
};
use rustix::process::Signal;

/// Connections of the endless traffic.
const FLOWS: u16 = 512;

/// A data plane whose every worker receives the same packets over and over: the middle of [`FLOWS`] connections.
/// What it sends, net_pcap counts and drops.
struct Busy {
    place: Place,
    running: DataPlane,
    link: ControlLink,
    counters: CounterReader,
    workers: Vec<WorkerId>,
    generation: u64,
}

impl Busy {
    /// Configured, and with every connection in the flow table.
    fn start(setup: &Setup<'_>) -> Self {
        let place = Place::new();
        let input = place.path("in.pcap");
        let flows: Vec<Vec<u8>> = (0..FLOWS).map(|flow| ack(10_000 + flow)).collect();
        write_pcap(&input, &flows);
        let cpus = workers(2);
        let queues = format!(",rx_pcap={}", input.display()).repeat(cpus.len());
        let device = format!("net_pcap0{queues},infinite_rx=1");
        let config = place.configure(&Setup { workers: &cpus, devices: &[&device], ..*setup });
        let mut running = DataPlane::start(&place, &config);
        let mut link = running.control(&place);
        let generation = commit(&mut link, &commands(&config));
        let workers = (0..u16::try_from(cpus.len()).unwrap()).map(WorkerId).collect();
        let busy = Self { place, running, counters: link.counters(), link, workers, generation };
        busy.advance(u64::from(FLOWS) + 64);
        busy
    }

    fn received(&self, worker: WorkerId) -> u64 {
        self.counters.worker(worker).unwrap().counter(Counter::RxPackets)
    }

    /// Waits until every worker has received so many packets more.
    fn advance(&self, packets: u64) {
        let before: Vec<u64> = self.workers.iter().map(|worker| self.received(*worker)).collect();
        until("every worker goes on", || {
            self.workers
                .iter()
                .zip(&before)
                .all(|(worker, before)| self.received(*worker) >= before + packets)
        });
    }

    fn dump(&mut self) -> Dump {
        self.link.dump(PATIENCE).unwrap()
    }
}

/// Names and ids of a dump's backends.
fn backends(dump: &Dump) -> BTreeMap<String, BackendId> {
    let backends = dump.records.iter().filter_map(|record| match record {
        Event::Backend { name, id, .. } => Some((name.to_string(), *id)),
        _ => None,
    });
    backends.collect()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn put(backend: &str, weight: u32) -> Change {
    Change::PutBackend {
        pool: name("web-servers"),
        name: name(backend),
        address4: Some([10, 0, 1, 77].into()),
        address6: None,
        mac: Some([2, 0, 0, 0, 3, 77]),
        weight,
        state: BackendState::Active,
    }
}

fn remove(backend: &str) -> Change {
    Change::RemoveBackend { pool: name("web-servers"), name: name(backend), deadline: None }
}

#[test]
fn backends_come_and_go_two_hundred_times_under_traffic() {
    if !is_root("backends_come_and_go_two_hundred_times_under_traffic") {
        return;
    }
    let mut busy = Busy::start(&Setup { flows: 200_000, tokens: 200_000, ..Setup::default() });
    let base = backends(&busy.dump());
    let base_ids: BTreeSet<BackendId> = base.values().copied().collect();
    // Both workers read the same file: two that meet a connection at the same moment may both count its entry, of
    // which one stays (the census below). From here on no connection is entered again.
    let inserted = busy.counters.counter(Counter::FlowInserted);
    let most = u64::from(FLOWS) * u64::try_from(busy.workers.len()).unwrap();
    assert!((u64::from(FLOWS)..=most).contains(&inserted), "{inserted} entries for {FLOWS} connections");

    let mut churn = Churn { present: base.keys().cloned().collect(), base, ..Churn::default() };
    for round in 0..200 {
        churn.round(&mut busy, round);
    }
    assert!(churn.kept > 0, "no id was ever waiting for the census: the test shows nothing");
    assert!(churn.reused > 0, "no id was ever given again: the test shows nothing");

    let extra: Vec<Change> =
        churn.present.iter().filter(|name| !churn.base.contains_key(*name)).map(|n| remove(n)).collect();
    let generation = commit(&mut busy.link, &extra);
    until("removed backends are forgotten", || busy.dump().generation > generation);
    commit(&mut busy.link, &[put("late", 1)]);
    let late = backends(&busy.dump())["late"];
    let lowest = (1..).map(BackendId).find(|id| !base_ids.contains(id)).unwrap();
    assert_eq!(late, lowest, "all removed ones are forgotten, so the lowest free id is given");

    busy.advance(u64::from(FLOWS));
    let gauges = busy.link.gauges().unwrap();
    until("the census counts every flow", || gauges.get(Gauge::Flows) == u64::from(FLOWS));
    let Busy { running, counters, workers, place, mut link, .. } = busy;
    let last = link.dump(PATIENCE).unwrap().generation;
    running.stop(Signal::TERM);
    assert_consistent(&counters);
    assert_eq!(counters.counter(Counter::FlowInserted), inserted, "no connection moved");
    // Once for each worker at most: two may meet a connection at the same time, and then agree.
    assert!(
        (u64::from(FLOWS)..=most).contains(&counters.reason(Reason::Hash)),
        "each was chosen a backend for once"
    );
    for reason in Reason::ALL.iter().filter(|reason| reason.is_drop() && **reason != Reason::NoConfig) {
        assert_eq!(counters.reason(*reason), 0, "{reason}");
    }
    let others = (1..4096).map(BackendId).filter(|id| !base_ids.contains(id));
    assert_eq!(
        others.map(|id| counters.backend(id).packets).sum::<u64>(),
        0,
        "no backend but the first three got any"
    );
    for worker in workers {
        let swaps = counters.worker(worker).unwrap().counter(Counter::SnapshotSwaps);
        assert!(swaps >= last, "worker {worker:?} took over {swaps} of {last} snapshots");
    }
    assert_eq!(gauges.link(LinkCounter::Refused), 0);
    assert_eq!(gauges.link(LinkCounter::Committed), 1 + 200 + 2);
    assert_eq!(place.leftovers(), [""; 0]);
}

/// The state of the test above, from batch to batch.
#[derive(Default)]
struct Churn {
    /// Names and ids of the backends that hold the connections.
    base: BTreeMap<String, BackendId>,
    present: BTreeSet<String>,
    ids: BTreeMap<String, BackendId>,
    /// Ids of removed backends that the data plane may not have forgotten yet.
    waiting: BTreeSet<BackendId>,
    ever: BTreeSet<BackendId>,
    /// New ids that had to pass by waiting ones.
    kept: usize,
    /// New ids that another backend had before.
    reused: usize,
}

impl Churn {
    /// One batch: a backend comes, one goes, one of the first three gets another weight. From time to time b1, which
    /// holds connections, is removed, and comes back five batches later.
    fn round(&mut self, busy: &mut Busy, round: u32) {
        let new = format!("c{round}");
        let mut batch = vec![put(&new, 1 + round % 7), put(&format!("b{}", 2 + round % 2), 1 + round)];
        self.present.insert(new.clone());
        let mut gone = Vec::new();
        if let Some(old) = round.checked_sub(3).map(|old| format!("c{old}")) {
            gone.push(old);
        }
        match round % 20 {
            10 => gone.push("b1".to_owned()),
            15 => {
                batch.push(put("b1", 100));
                self.present.insert("b1".to_owned());
                self.waiting.remove(&self.base["b1"]);
            }
            _ => {}
        }
        batch.extend(gone.iter().map(|name| remove(name)));

        let generation = commit(&mut busy.link, &batch);
        // A batch with new backends takes two snapshots. More than that: removed ones were forgotten before it.
        let forgets = generation.checked_sub(busy.generation + 2).expect("a snapshot is missing");
        busy.generation = generation;
        if forgets > 0 {
            let b1 = self.base["b1"];
            self.waiting.retain(|id| *id == b1);
        }
        let now = backends(&busy.dump());
        for name in &gone {
            self.present.remove(name);
            self.waiting.insert(self.ids.get(name).or(self.base.get(name)).copied().unwrap());
        }
        assert!(now.keys().eq(&self.present), "batch {round}: {:?} and not {:?}", now.keys(), self.present);
        let distinct: BTreeSet<_> = now.values().collect();
        assert_eq!(distinct.len(), now.len(), "two backends have one id");
        for (name, id) in &self.base {
            assert!(now.get(name).is_none_or(|now| now == id), "{name} has connections and keeps its id");
        }
        let id = now[&new];
        // Those of this batch were still there when it got its id.
        assert!(!self.waiting.contains(&id), "batch {round}: {id:?} was given before it was forgotten");
        self.kept += usize::from(self.waiting.iter().any(|waiting| *waiting < id));
        self.reused += usize::from(!self.ever.insert(id));
        self.ids.insert(new, id);

        // In round 12 of 40 b1 is among the removed: it must not be forgotten with those that hold nothing.
        if matches!(round % 40, 12 | 39) {
            until("what holds nothing is forgotten", || busy.dump().generation > generation);
        }
        if round % 20 == 12 {
            let b1 = self.base["b1"];
            let before = busy.counters.backend(b1).packets;
            until("a removed backend keeps its connections", || busy.counters.backend(b1).packets > before);
        }
    }
}

// ---- what a worker may not do ----------------------------------------------------------------------------------

/// Threads of a process by name.
fn threads(pid: u32) -> Vec<(u32, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let thread = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap();
        (task.file_name().to_str().unwrap().parse().unwrap(), name.trim().to_owned())
    };
    tasks.map(|task| thread(task.unwrap())).collect()
}

#[test]
fn a_worker_makes_no_system_call() {
    const NAME: &str = "a_worker_makes_no_system_call";
    if !is_root(NAME) {
        return;
    }
    let mut busy = Busy::start(&Setup::default());
    let threads = threads(busy.running.pid());
    // The first worker runs on the thread that started the process, the others on DPDK's own: rte-worker-0, or
    // lcore-worker-0, or dpdk-worker0, by its version.
    let is_worker = |(tid, name): &(u32, String)| *tid == busy.running.pid() || name.contains("-worker");
    let watched: Vec<u32> = threads.iter().filter(|thread| is_worker(thread)).map(|(tid, _)| *tid).collect();
    assert_eq!(watched.len(), busy.workers.len(), "{threads:?}");
    let (manager, _) = threads.iter().find(|(_, name)| name == "manager").unwrap();

    let trace = busy.place.path("trace");
    let mut strace = Command::new("strace");
    strace.arg("-o").arg(&trace).stderr(Stdio::piped());
    for tid in watched.iter().chain([manager]) {
        strace.arg("-p").arg(tid.to_string());
    }
    let Ok(mut strace) = strace.spawn() else {
        return skip(NAME, "there is no strace: scripts/install installs it");
    };
    let mut said = BufReader::new(strace.stderr.take().unwrap());
    for _ in 0..=watched.len() {
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        if !line.contains("attached") {
            let _killed = strace.kill();
            strace.wait().unwrap();
            return skip(NAME, &format!("strace may not attach to a process here: {line}"));
        }
    }

    // About a second of packets, snapshots and sweep.
    let before: Vec<u64> = busy.workers.iter().map(|worker| busy.received(*worker)).collect();
    let swaps = busy.counters.counter(Counter::SnapshotSwaps);
    let since = Instant::now();
    let mut rounds = 0;
    while rounds < 20 || since.elapsed() < Duration::from_secs(1) {
        commit(&mut busy.link, &[put("extra", 1 + rounds % 100)]);
        commit(&mut busy.link, &[remove("extra")]);
        rounds += 1;
    }
    busy.advance(u64::from(FLOWS));
    let received: u64 =
        busy.workers.iter().zip(before).map(|(worker, before)| busy.received(*worker) - before).sum();
    let swaps = busy.counters.counter(Counter::SnapshotSwaps) - swaps;
    rustix::process::kill_process(rustix::process::Pid::from_child(&strace), Signal::INT).unwrap();
    strace.wait().unwrap();
    let _rest = said.read_to_end(&mut Vec::new());

    assert!(swaps >= u64::from(rounds), "snapshots were swapped meanwhile");
    let mut calls: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for line in fs::read_to_string(trace).unwrap().lines() {
        let (tid, call) = line.split_once(' ').unwrap();
        calls.entry(tid.parse().unwrap()).or_default().push(call.trim().to_owned());
    }
    assert!(
        calls.get(manager).is_some_and(|calls| calls.len() > 20),
        "strace sees the manager's system calls"
    );
    for tid in watched {
        assert_eq!(calls.get(&tid).map_or(&[] as &[String], Vec::as_slice), [""; 0], "of {received} packets");
    }
    busy.running.stop(Signal::TERM);
}

// ---- killed ----------------------------------------------------------------------------------------------------

const CHILD: &str = "WEFT_RUN_TEST_DIR";
const READY: &str = "the batch is half sent";

#[test]
#[ignore = "the control plane that a_control_plane_killed_in_a_batch_leaves_nothing_of_it starts and kills"]
fn half_a_batch() {
    let Some(dir) = std::env::var_os(CHILD) else { panic!("only another test of this file starts this one") };
    let mut link = ControlLink::open(Path::new(&dir)).unwrap();
    link.attach(PATIENCE).unwrap();
    link.send_raw(&Change::Begin { batch: 1 }, PATIENCE).unwrap();
    for number in 0..100 {
        link.send_raw(&put(&format!("half{number}"), 1), PATIENCE).unwrap();
    }
    println!("{READY}");
    sleep(PATIENCE);
}

#[test]
fn a_control_plane_killed_in_a_batch_leaves_nothing_of_it() {
    if !is_root("a_control_plane_killed_in_a_batch_leaves_nothing_of_it") {
        return;
    }
    let Busy { place, running, link, counters, .. } = Busy::start(&Setup::default());
    let gauges = link.gauges().unwrap();
    let generation = gauges.get(Gauge::Generation);
    // There is one control plane at a time: this one makes room.
    drop(link);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "half_a_batch", "--ignored", "--nocapture"])
        .env(CHILD, place.runtime_dir())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ready =
        BufReader::new(child.stdout.take().unwrap()).lines().any(|line| line.unwrap().contains(READY));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ready, "it ended before it was killed");

    until("the half batch is abandoned", || gauges.link(LinkCounter::Abandoned) == 1);
    let mut link = ControlLink::open(&place.runtime_dir()).unwrap();
    link.attach(PATIENCE).unwrap();
    let dump = link.dump(PATIENCE).unwrap();
    assert_eq!(dump.generation, generation);
    assert!(backends(&dump).keys().eq(["b1", "b2", "b3"]));
    assert_eq!(commit(&mut link, &[put("b4", 1)]), generation + 2);
    running.stop(Signal::TERM);
    assert_consistent(&counters);
    let expected = [Reason::NoConfig, Reason::Hash, Reason::Flow];
    for reason in Reason::ALL.iter().filter(|reason| !expected.contains(reason)) {
        assert_eq!(counters.reason(*reason), 0, "{reason}");
    }
}
