//! One measurement: tables that were filled, traffic, and the paths that are compared on it.

use std::path::Path as FilePath;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use ipc::counter::Counter;
use packet::Family;

use super::{Capture, CaseName, Established, Opening, Options, Reasons, Worker, path};
use crate::floor::{Floor, FloorPath, HASH, LINE, REWRITE};
use crate::machine;
use crate::measure::{Feed, Pass, Receive, Rounds, Traffic};
use crate::number::float;
use crate::traffic::{Clients, Service, Shape, shuffled};
use crate::world::{self, World};

/// Clients whose connections are opened together, so that their table lines are still near.
const TOGETHER: u64 = 1024;

/// Packets in a round unless told otherwise.
const PACKETS: usize = 1_000_000;

/// What is measured: paths, side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Receiving alone.
    Receive,
    /// The engine.
    Engine,
    /// The floor, to this depth.
    Floor(u8),
}

impl Subject {
    /// The figure's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Engine => "engine",
            Self::Floor(HASH) => "floor_hash",
            Self::Floor(LINE) => "floor_line",
            Self::Floor(_) => "floor",
        }
    }
}

/// What was measured of a subject.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Of what.
    pub subject: Subject,
    /// Nanoseconds a packet beyond receiving it, of each round.
    pub rounds: Rounds,
    /// Nanoseconds a packet of receiving alone, of each round.
    pub receive: Rounds,
    /// All its passes, receiving included.
    pub total: Pass,
}

/// Everything a measurement needs.
pub struct Bench {
    world: World,
    worker: Worker,
    floor: Floor,
    feed: Feed,
    traffic: Box<dyn Traffic>,
    packets: usize,
    case: String,
    frame_bytes: u64,
    entries: [u64; 2],
    first_line: f64,
    pages: &'static str,
    reasons: Reasons,
}

impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bench").field("case", &self.case).finish_non_exhaustive()
    }
}

/// What a measurement is made of before it is ready.
struct Parts {
    world: World,
    worker: Worker,
    floor: Floor,
    traffic: Box<dyn Traffic>,
    packets: usize,
    case: String,
    frame_bytes: u64,
}

impl Bench {
    /// Fills the tables.
    ///
    /// # Errors
    /// A file cannot be read, the configuration is refused, the tables did not take what they should.
    pub fn new(options: &Options) -> anyhow::Result<Self> {
        let parts = match &options.pcap {
            Some(pcap) => of_capture(options, pcap),
            None if options.case == CaseName::Endpoint => to_endpoints(options),
            None => of_clients(options),
        }?;
        let Parts { world, worker, floor, traffic, packets, case, frame_bytes } = parts;
        let pages = machine::table_pages(world.bytes);
        let burst = usize::from(options.burst);
        let feed = if options.cold { Feed::cold(burst, options.seed) } else { Feed::copied(burst) };
        let entries = [path::flows(&world), path::tokens(&world)];
        let reasons = Reasons::default();
        let mut bench = Self {
            world,
            worker,
            floor,
            feed,
            traffic,
            packets,
            case,
            frame_bytes,
            entries,
            first_line: 0.0,
            pages,
            reasons,
        };
        bench.first_line = bench.in_first_line();
        Ok(bench)
    }

    /// The same tables and traffic, received in other bursts, or otherwise.
    pub fn receive_in(&mut self, burst: u8, cold: bool) {
        let burst = usize::from(burst);
        if (self.feed.burst(), self.feed.is_cold()) != (burst, cold) {
            self.feed = if cold { Feed::cold(burst, 1) } else { Feed::copied(burst) };
        }
    }

    /// The traffic's name.
    pub fn case(&self) -> &str {
        &self.case
    }

    /// The mean length of its frames.
    pub const fn frame_bytes(&self) -> u64 {
        self.frame_bytes
    }

    /// Entries in the flow table before the first round.
    pub const fn flows(&self) -> u64 {
        let [flows, _] = self.entries;
        flows
    }

    /// Entries in the token table before the first round.
    pub const fn tokens(&self) -> u64 {
        let [_, tokens] = self.entries;
        tokens
    }

    /// What pages the tables lie on.
    pub const fn pages(&self) -> &'static str {
        self.pages
    }

    /// How full the flow table is.
    pub fn load(&self) -> f64 {
        float(self.flows()) / float(self.world.tables.flows.capacity().max(1) as u64)
    }

    /// The share of packets whose flow is found in the first line that is looked at.
    pub const fn first_line(&self) -> f64 {
        self.first_line
    }

    /// Verdicts of the measured rounds.
    pub const fn reasons(&self) -> &Reasons {
        &self.reasons
    }

    /// The share of the packets whose flow the floor's table holds.
    pub fn floor_hit_rate(&self) -> f64 {
        self.floor.hit_rate()
    }

    /// The conditions of the tables and what became of the packets, in words.
    pub fn summary(&self) -> String {
        let all: u64 = self.reasons.occurred().iter().map(|(_, count)| count).sum();
        let share = |count: u64| float(count) * 100.0 / float(all.max(1));
        let reasons: Vec<String> = self
            .reasons
            .occurred()
            .into_iter()
            .map(|(reason, count)| format!("{} {:.3} %", reason.name(), share(count)))
            .collect();
        format!(
            "{}: {} flows and {} tokens in tables of {} MiB on {}, flow table's load {:.2}, {:.1} % of packets in the \
             first line\nverdicts: {}",
            self.case,
            self.flows(),
            self.tokens(),
            self.world.bytes >> 20,
            self.pages,
            self.load(),
            self.first_line * 100.0,
            if reasons.is_empty() { "none".to_owned() } else { reasons.join(", ") },
        )
    }

    /// Looks as many packets up as make a good sample, and where.
    fn in_first_line(&mut self) -> f64 {
        let mut frame = crate::arena::Held::default();
        self.traffic.begin(0);
        let (mut found, mut first) = (0_u32, 0_u32);
        for _ in 0..self.packets.min(100_000) {
            let len = self.traffic.next(&mut frame);
            let parsed = packet::parse(frame.0.get(..len).unwrap_or(&frame.0), len);
            let flows = &self.world.tables.flows;
            if let Some(hit) = flows.find(self.world.tables.flow_hash(&parsed.flow)) {
                found += 1;
                first += u32::from(flows.is_in_first_line(&hit));
            }
        }
        f64::from(first) / f64::from(found.max(1))
    }

    /// One pass of one subject; `number` says where in the traffic it begins.
    fn pass(&mut self, subject: Subject, number: u64) -> Pass {
        self.traffic.begin(number);
        let (feed, traffic, packets) = (&mut self.feed, &mut *self.traffic, self.packets);
        match subject {
            Subject::Receive => feed.pass(traffic, &mut Receive, packets),
            Subject::Engine => {
                let reader = self.worker.reader();
                let before = Reasons::of(&reader);
                let pass = feed.pass(traffic, &mut self.worker.path(&self.world), packets);
                self.reasons.add(&Reasons::of(&reader).since(&before));
                pass
            }
            Subject::Floor(depth) => floor_pass(feed, traffic, &self.floor, depth, packets),
        }
    }

    /// All rounds, of some subjects side by side, after one that does not count.
    pub fn measure(&mut self, subjects: &[Subject], rounds: u32) -> Vec<Measured> {
        let new = |subject: &Subject| Measured {
            subject: *subject,
            rounds: Rounds::default(),
            receive: Rounds::default(),
            total: Pass::default(),
        };
        let mut measured: Vec<Measured> = subjects.iter().map(new).collect();
        let all: Vec<Subject> = core::iter::once(Subject::Receive).chain(subjects.iter().copied()).collect();
        let progress = progress(u64::from(rounds) + 1, "rounds");
        for round in 0..=u64::from(rounds) {
            // Another one first in each round: to be first is an advantage, or its opposite.
            let turn = usize::try_from(round).unwrap_or(0) % all.len();
            let order = all.iter().cycle().skip(turn).take(all.len());
            let passes: Vec<(Subject, Pass)> =
                order.map(|subject| (*subject, self.pass(*subject, round))).collect();
            progress.inc(1);
            if round == 0 {
                // Caches and predictors first.
                self.reasons = Reasons::default();
                continue;
            }
            let of = |wanted| passes.iter().find(|(subject, _)| *subject == wanted).map(|(_, pass)| *pass);
            let receive = of(Subject::Receive).unwrap_or_default();
            for one in &mut measured {
                let pass = of(one.subject).unwrap_or_default();
                one.rounds.push(net(&pass, &receive));
                one.receive.push(receive.ns());
                one.total = one.total.and(pass);
            }
        }
        progress.finish_and_clear();
        measured
    }
}

/// What a packet costs beyond its receiving, in nanoseconds.
pub fn net(pass: &Pass, receive: &Pass) -> f64 {
    pass.ns() - receive.ns()
}

/// A capture, after another one that establishes its flows.
fn of_capture(options: &Options, pcap: &FilePath) -> anyhow::Result<Parts> {
    let config = world::load(options.config.as_deref().context("--pcap needs --config")?)?;
    let world = World::new(&config)?;
    let mut capture = Capture::read(pcap)?;
    let mut worker = Worker::default();
    if let Some(path) = &options.warm {
        let mut warm = Capture::read(path)?;
        let count = warm.len();
        Feed::copied(32).pass(&mut warm, &mut worker.path(&world), count);
    }
    let mut floor = Floor::new(world.flow_lines, capture.family().unwrap_or(Family::V4));
    let count = capture.len();
    floor.learn(&mut capture, count);
    let packets = options.packets.map_or(PACKETS.div_ceil(count) * count, |packets| packets as usize);
    let case = pcap.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let frame_bytes = capture.frame_bytes();
    Ok(Parts { world, worker, floor, traffic: Box::new(capture), packets, case, frame_bytes })
}

/// Established connections.
fn of_clients(options: &Options) -> anyhow::Result<Parts> {
    let flows = options.flows as usize;
    let config = match &options.config {
        Some(path) => world::load(path)?,
        None => world::standard(flows.max(1024), flows.max(1024))?,
    };
    let family = options.family.family();
    let clients = Clients { service: world::service(&config, family)?, seed: options.seed };
    let world = World::new(&config)?;
    let mut worker = Worker::default();
    establish(&world, &mut worker, clients, u64::from(options.flows))?;
    let packets = options.packets.map_or(PACKETS, |packets| packets as usize);
    let order = shuffled(options.flows, options.seed);
    let mut traffic = Established::new(clients, options.frames.shapes(), order, packets);
    let mut floor = Floor::new(world.flow_lines, family);
    floor.learn(&mut traffic, flows);
    let case = format!("{}_v{}", options.frames.case(), family as u8);
    let frame_bytes = traffic.frame_bytes();
    Ok(Parts { world, worker, floor, traffic: Box::new(traffic), packets, case, frame_bytes })
}

/// Packets of as many joined subflows, each to a port of one backend's own; nothing is established, since nothing is
/// remembered of them.
fn to_endpoints(options: &Options) -> anyhow::Result<Parts> {
    if options.config.is_some() {
        bail!("--case endpoint brings its own configuration: leave --config out");
    }
    let flows = options.flows as usize;
    let family = options.family.family();
    let world = World::new(&world::with_endpoints(flows.max(1024), flows.max(1024))?)?;
    let clients = Clients { service: Service::standard(family), seed: options.seed };
    let services: Vec<Service> =
        world::endpoint_ports().map(|port| Service { port, ..clients.service }).collect();
    let packets = options.packets.map_or(PACKETS, |packets| packets as usize);
    let order = shuffled(options.flows, options.seed);
    let mut traffic = Established::to(&services, clients, options.frames.shapes(), order, packets);
    let mut floor = Floor::new(world.flow_lines, family);
    floor.learn(&mut traffic, flows);
    let case = format!("endpoint_v{}", family as u8);
    let frame_bytes = traffic.frame_bytes();
    Ok(Parts {
        world,
        worker: Worker::default(),
        floor,
        traffic: Box::new(traffic),
        packets,
        case,
        frame_bytes,
    })
}

/// Opens the connections of clients 0 to `count`: SYN, third ACK, first acknowledgment, by the engine itself.
fn establish(world: &World, worker: &mut Worker, clients: Clients, count: u64) -> anyhow::Result<()> {
    let mut feed = Feed::copied(32);
    let shapes = [Shape::CapableSyn, Shape::CapableAck, Shape::DataAck];
    let mut steps = shapes.map(|shape| Opening::new(clients, shape));
    let progress = progress(count, "connections opened");
    let mut first = 0;
    while first < count {
        let some = TOGETHER.min(count - first);
        for step in &mut steps {
            step.begin(first);
            feed.pass(step, &mut worker.path(world), usize::try_from(some)?);
        }
        first += some;
        progress.set_position(first);
    }
    progress.finish_and_clear();
    let learned = worker.reader().counter(Counter::TokenLearned);
    // A few collide, honestly: n^2 / 2^33 pairs, one in a thousand of ten million.
    if learned < count - count / 100 {
        bail!(
            "only {learned} of {count} connections taught a token: is the table too small, or learning off?"
        );
    }
    Ok(())
}

/// A bar on standard error, where that is a terminal.
pub fn progress(steps: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(steps).with_style(style).with_message(what)
}

/// One pass of the floor.
fn floor_pass(feed: &mut Feed, traffic: &mut dyn Traffic, floor: &Floor, depth: u8, packets: usize) -> Pass {
    fn go<const D: u8, const V6: bool, const COLD: bool>(
        feed: &mut Feed,
        traffic: &mut dyn Traffic,
        floor: &Floor,
        packets: usize,
    ) -> Pass {
        feed.pass(traffic, &mut FloorPath::<D, V6, COLD>::new(floor), packets)
    }
    let run = match (depth, floor.family(), feed.is_cold()) {
        (HASH, Family::V4, false) => go::<HASH, false, false>,
        (HASH, Family::V4, true) => go::<HASH, false, true>,
        (HASH, Family::V6, false) => go::<HASH, true, false>,
        (HASH, Family::V6, true) => go::<HASH, true, true>,
        (LINE, Family::V4, false) => go::<LINE, false, false>,
        (LINE, Family::V4, true) => go::<LINE, false, true>,
        (LINE, Family::V6, false) => go::<LINE, true, false>,
        (LINE, Family::V6, true) => go::<LINE, true, true>,
        (_, Family::V4, false) => go::<REWRITE, false, false>,
        (_, Family::V4, true) => go::<REWRITE, false, true>,
        (_, Family::V6, false) => go::<REWRITE, true, false>,
        (_, Family::V6, true) => go::<REWRITE, true, true>,
    };
    run(feed, traffic, floor, packets)
}
