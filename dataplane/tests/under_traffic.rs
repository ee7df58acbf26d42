//! A running `weft-dataplane` under traffic that does not end: the configuration changes many times, and workers are
//! watched for system calls.
//!
//! With WEFT_SOAK set the configuration changes 1,000 times, and the test prints a row of the soak table.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ipc::counter::Counter;
use ipc::counters::{Gauge, LinkCounter};
use ipc::id::BackendId;
use ipc::message::Command as Change;
use ipc::reason::Reason;
use running::busy::{Busy, FLOWS, backends, put, remove};
use running::{PATIENCE, Setup, assert_consistent, commit, is_root, is_soak, soak_row, until};
use rustix::process::Signal;

/// How often the configuration changes: as often as takes some seconds, and in a soak 1,000 times.
fn reloads() -> u32 {
    if is_soak() { 1000 } else { 200 }
}

#[test]
fn backends_come_and_go_many_times_under_traffic() {
    if !is_root("backends_come_and_go_many_times_under_traffic") {
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
    for round in 0..reloads() {
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
    assert_eq!(gauges.link(LinkCounter::Committed), 1 + u64::from(reloads()) + 2);
    assert_eq!(place.leftovers(), [""; 0]);
    soak_row("reloads under traffic", reloads(), &counters);
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
        return skip::skip(NAME, "there is no strace: scripts/install installs it");
    };
    let mut said = BufReader::new(strace.stderr.take().unwrap());
    for _ in 0..=watched.len() {
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        if !line.contains("attached") {
            let _killed = strace.kill();
            strace.wait().unwrap();
            return skip::skip(NAME, &format!("strace may not attach to a process here: {line}"));
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
