//! `scripts/demo --faults`: processes are killed, a backend is drained, the tables are flooded, all under the same
//! MPTCP connections, with a line for each event and what the kernels saw of it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Serialize;

use crate::balancer::{self, Balancer, Counted, Role};
use crate::counters::Kernel;
use crate::demo::{self, Options};
use crate::document::Document;
use crate::faults::{Restart, Timing};
use crate::stand::{self, LIMIT};
use crate::topology::{Family, Lab, Plan};
use crate::traffic::client::{self, Client};
use crate::traffic::flood::{self, Kind};
use crate::traffic::probe::{self, Outage, Probe};
use crate::{Error, Result, interrupt, report};

/// Entries of each table: small, so that a flood of seconds is ten times as large.
const ENTRIES: u32 = 16_384;
/// Packets of a flood.
const FLOOD: u64 = 10 * ENTRIES as u64;
/// New connections that are opened under a drain or a flood.
const NEWCOMERS: usize = 12;

/// What happened to the balancer and what was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// What happened.
    pub what: String,
    /// Whether nothing was lost by it.
    pub holds: bool,
    /// Connections that moved data afterwards.
    pub alive: usize,
    /// Subflows that joined afterwards, for tokens that were learned before, at the backend of their connection.
    pub joins: u64,
    /// Joins that went elsewhere or nowhere.
    pub joins_lost: u64,
    /// The time in which nothing was forwarded, where the event is one that stops the data plane.
    pub gap: Option<Outage>,
    /// When which process ended and started, where the event is a restart.
    pub timing: Option<Timing>,
    /// What else is worth saying.
    pub seen: String,
    /// What went wrong, as sentences.
    pub wrong: Vec<String>,
}

/// Everything that was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Faults {
    /// Whether every event holds.
    pub passed: bool,
    /// MPTCP connections that live through all of it.
    pub connections: usize,
    /// How long it took, the lab's construction included.
    pub seconds: f64,
    /// Every event.
    pub events: Vec<Event>,
}

/// The body of `weft-lab demo --faults`.
pub fn run(options: &Options) -> Result<ExitCode> {
    interrupt::catch()?;
    let start = Instant::now();
    let events = play(options, start).inspect_err(|_| println!("FAIL"))?;
    let passed = events.iter().all(|e| e.holds);
    let (connections, seconds) = (usize::from(options.connections), start.elapsed().as_secs_f64());
    let report = Faults { passed, connections, seconds, events };
    println!("{:.0} s", report.seconds);
    report::conclude(&report, passed, options.report.as_deref())
}

/// The lab under way. Fields are dropped in this order: processes before namespaces.
struct Scene {
    client: Client,
    probe: Probe,
    weft: Balancer,
    document: Document,
    lab: Lab,
    family: Family,
    connections: usize,
    /// The kernels once all connections were joined.
    quiet: Vec<Kernel>,
    /// Late paths in use.
    paths: u8,
    events: Vec<Event>,
}

fn play(options: &Options, start: Instant) -> Result<Vec<Event>> {
    let progress = |what: &str| {
        // Progress that nobody can read is no reason to stop.
        let _ = writeln!(std::io::stderr(), "[{:5.1} s] {what}", start.elapsed().as_secs_f64());
    };
    progress("network namespaces: a client with two paths, the balancer, four backends");
    let mut scene = Scene::open(options)?;
    progress("weft-dataplane and weft-ctrlplane are ready");
    println!(
        "\nWeft: {} MPTCP connections over {}, each with a second subflow, tables of {ENTRIES} entries; \
         after each event every connection\nmoves data, and a further subflow joins each of them\n",
        scene.connections, scene.family
    );
    scene.restart("kill -9 of weft-ctrlplane", &[Role::Ctrlplane], false)?;
    scene.restart("kill -9 of weft-dataplane", &[Role::Dataplane], false)?;
    scene.restart(
        "kill -9 of both, the file reordered, a VIP and its pool renamed, a backend added",
        &[Role::Ctrlplane, Role::Dataplane],
        true,
    )?;
    scene.drain("b1")?;
    scene.flood("SYN flood", Kind::Syn)?;
    scene.flood("JOIN flood with a valid token", Kind::Join)?;
    scene.close(&progress)
}

impl Scene {
    fn open(options: &Options) -> Result<Self> {
        let helper = std::env::current_exe().map_err(|e| Error::io("cannot find this program", e))?;
        let binaries = demo::binaries(&helper)?;
        let lab = Lab::new(&Plan { backends: 4, decapsulate: options.forward.is_tunnel(), helper })?;
        let shape = balancer::Options::new(options.forward, true);
        let usual = Document::new(&shape, &lab.file("weft")).with_probe();
        let document = Document { flows: ENTRIES, tokens: ENTRIES, ..usual };
        let weft = Balancer::start_with(&lab, &lab.balancer, &binaries, &document)?;
        let (family, connections) = (options.family(), usize::from(options.connections));
        let probe = Probe::start(&lab, &probe::Options::new(family))?;
        let asked =
            client::Options { until_eof: true, bytes: 32_768, ..client::Options::new(family, connections) };
        let mut client = Client::start(&lab, &asked)?;
        let joined = client.joined(LIMIT)?;
        if joined < connections {
            return Err(Error::other(format!(
                "only {joined} of {connections} connections got a second subflow"
            )));
        }
        let quiet = stand::kernels(&lab)?;
        let (paths, events) = (0, Vec::new());
        Ok(Self { client, probe, weft, document, lab, family, connections, quiet, paths, events })
    }

    fn restart(&mut self, what: &str, roles: &[Role], reorder: bool) -> Result<()> {
        if reorder {
            self.document = self.document.reordered();
        }
        let restart = Restart { roles, signal: Signal::KILL };
        let timing = restart.run(&mut self.weft, &self.document)?;
        let forwards = !roles.contains(&Role::Dataplane);
        let gap = if forwards { None } else { Some(self.probe.gap(timing.killed, LIMIT)?) };
        let seen = match &gap {
            Some(gap) => timing.describe(gap, &self.weft),
            None => {
                let lost = self.probe.report()?.longest_since(timing.killed).map_or(0, |outage| outage.lost);
                format!("{lost} packet(s) in a row lost while it was away")
            }
        };
        self.record(what, gap, Some(timing), seen, None)
    }

    fn drain(&mut self, backend: &str) -> Result<()> {
        self.weft.weftctl(&["backend", "drain", self.document.pool_name(), backend])?;
        let mut young = self.newcomers()?;
        young.joined(LIMIT)?;
        let there = young.now(LIMIT)?.connections.iter().filter(|c| c.backend == backend).count();
        let seen = format!("{there} of {NEWCOMERS} new connections on it");
        self.record(&format!("{backend} drained"), None, None, seen, Some(young))?;
        if there > 0 {
            self.wrong(format!("{there} new connections on a draining backend"));
        }
        self.weft.weftctl(&["backend", "undrain", self.document.pool_name(), backend])?;
        Ok(())
    }

    fn flood(&mut self, what: &str, kind: Kind) -> Result<()> {
        let token =
            self.client.now(LIMIT)?.connections.first().map(|c| c.join_token.clone()).unwrap_or_default();
        let (before, mut seconds) = (self.weft.counted()?, 0.0);
        // Honest clients come while the flood runs.
        let mut young = self.newcomers()?;
        for seed in 1..=2 {
            seconds += flood::send(&self.lab, kind, FLOOD / 2, &token, seed)?.seconds;
        }
        young.joined(LIMIT)?;
        let served = NEWCOMERS - young.now(LIMIT)?.broken().len();
        let after = self.weft.counted()?;
        let seen = format!(
            "{FLOOD} packets in {seconds:.1} s; {}; {served} of {NEWCOMERS} new connections served meanwhile",
            evictions(&before, &after),
        );
        self.record(what, None, None, seen, Some(young))?;
        if after.counter("flow_evicted_kept") > before.counter("flow_evicted_kept") {
            self.wrong("joined flows were pushed out".to_owned());
        }
        Ok(())
    }

    /// New connections, which stay.
    fn newcomers(&self) -> Result<Client> {
        let usual = client::Options::new(self.family, NEWCOMERS);
        Client::start(&self.lab, &client::Options { until_eof: true, bytes: 32_768, ..usual })
    }

    /// Looks at what an event left, and says it. Newcomers close their connections afterwards.
    fn record(
        &mut self,
        what: &str,
        gap: Option<Outage>,
        timing: Option<Timing>,
        seen: String,
        newcomers: Option<Client>,
    ) -> Result<()> {
        let mut wrong = Vec::new();
        let (before, after) = (self.client.now(LIMIT)?, self.client.now(LIMIT)?);
        let alive = stand::alive(&before, &after);
        wrong.extend(after.broken());
        if alive < self.connections {
            wrong.push(format!("{} connections did not go on", self.connections - alive));
        }
        let mut owned = stand::owned(&self.lab, &after);
        let mut newcomers = newcomers;
        if let Some(young) = &mut newcomers {
            let young = young.now(LIMIT)?;
            wrong.extend(young.broken().into_iter().map(|line| format!("a new connection: {line}")));
            owned.iter_mut().zip(stand::owned(&self.lab, &young)).for_each(|(all, young)| *all += young);
        }
        let (joins, joins_lost) = self.late_joins(&owned)?;
        if joins_lost > 0 {
            wrong.push(format!("{joins_lost} joins did not reach the backend of their connection"));
        }
        wrong.extend(stand::noise(&self.lab, &self.quiet)?);
        wrong.extend(self.probe.report()?.moved());
        let holds = wrong.is_empty();
        self.events.push(Event {
            what: what.to_owned(),
            holds,
            alive,
            joins,
            joins_lost,
            gap,
            timing,
            seen,
            wrong,
        });
        if let Some(event) = self.events.last() {
            print!("{}", line(event, self.connections));
        }
        if let Some(young) = newcomers {
            // What connections that close say is no noise of the event.
            young.finish(LIMIT)?;
            self.quiet = stand::kernels(&self.lab)?;
        }
        Ok(())
    }

    /// Adds something wrong to the event that was recorded last.
    fn wrong(&mut self, sentence: String) {
        println!("          {sentence}");
        if let Some(event) = self.events.last_mut() {
            event.holds = false;
            event.wrong.push(sentence);
        }
    }

    /// One more subflow for every connection, so many at each backend; how many came, and how many did not.
    fn late_joins(&mut self, owned: &[u64]) -> Result<(u64, u64)> {
        self.paths += 1;
        let accepted = self.accepted()?;
        self.lab.add_late_path(self.family, self.paths)?;
        let all: u64 = owned.iter().sum();
        let count = |now: &[u64]| -> u64 { now.iter().sum::<u64>() - accepted.iter().sum::<u64>() };
        interrupt::poll(Duration::from_secs(20), Duration::from_millis(50), || {
            Ok((count(&self.accepted()?) >= all).then_some(()))
        })?;
        let by_backend = self.accepted()?.into_iter().zip(&accepted).map(|(now, before)| now - before);
        let right: u64 = by_backend.zip(owned).map(|(joins, owned)| joins.min(*owned)).sum();
        Ok((right, all - right))
    }

    /// Joins that each backend has accepted.
    fn accepted(&self) -> Result<Vec<u64>> {
        let kernels = stand::kernels(&self.lab)?;
        Ok(kernels.iter().take(self.lab.backends.len()).map(|k| k.mptcp("MPJoinAckRx")).collect())
    }

    fn close(self, progress: &impl Fn(&str)) -> Result<Vec<Event>> {
        let Self { client, probe, weft, lab, mut events, .. } = self;
        let report = client.finish(LIMIT)?;
        let broken = report.broken();
        let rounds: u32 = report.connections.iter().map(|c| c.rounds).sum();
        println!(
            "\n{} of {} connections lived through all of it: {rounds} rounds, {} MB up and {} MB down, every SHA-256 \
             equal at both ends",
            report.connections.len() - broken.len(),
            report.connections.len(),
            report.bytes_up / 1_000_000,
            report.bytes_down / 1_000_000,
        );
        if let Some(event) = events.last_mut() {
            event.holds &= broken.is_empty();
            event.wrong.extend(broken);
        }
        drop((probe, weft));
        lab.take_down()?;
        progress("cleaned up: no namespace, process or file is left");
        Ok(events)
    }
}

fn evictions(before: &Counted, after: &Counted) -> String {
    let classes = ["half_open", "adopted", "closing", "own", "kept"];
    let moved = classes.map(|class| {
        let name = format!("flow_evicted_{class}");
        format!("{} {}", after.counter(&name) - before.counter(&name), class.replace('_', "-"))
    });
    let limited = after.drop("join_rate") - before.drop("join_rate");
    let mut text = format!("evicted: {}", moved.join(", "));
    if limited > 0 {
        let _ = write!(text, "; {limited} joins beyond the rate of one token");
    }
    text
}

fn line(event: &Event, connections: usize) -> String {
    let mark = if event.holds { "  ok " } else { "FAIL " };
    let mut text = format!(
        "{mark} {}\n          {}/{connections} connections alive, {}/{} joins at their owner; {}\n",
        event.what,
        event.alive,
        event.joins,
        event.joins + event.joins_lost,
        event.seen
    );
    for wrong in event.wrong.iter().take(8) {
        let _ = writeln!(text, "          {wrong}");
    }
    text
}
