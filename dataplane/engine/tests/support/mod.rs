//! A whole data plane without ports, for the engine's tests: a model, its snapshot, tables, counters, a pipeline
//! and a clock that only tests move.
//!
//! Everything goes through the same doors as in the process: commands through [`Model::apply`], snapshots in two
//! phases, frames through [`Pipeline::process`].
#![allow(dead_code, reason = "each test file uses its own part of this module")]

pub mod frames;
pub mod mixed;

use engine::flow_table::FlowTable;
use engine::frames::{Frames, VecFrame, VecFrames};
use engine::model::{Model, Refused};
use engine::pipeline::{Context, Pipeline};
use engine::reported::Reports;
use engine::snapshot::{Port, Site, Snapshot};
use engine::sweep::{LINES_PER_CALL, Sweeper};
use engine::tables::{Attached, Tables};
use engine::tick::Tick;
use engine::token_table::TokenTable;
use engine::verdict::Verdict;
use ipc::counter::Counter;
use ipc::counters::{CounterReader, WorkerCounters};
use ipc::id::{BackendId, PortId};
use ipc::lines::Lines;
use ipc::message::{BackendState, Command, Forward, Handles, Name, Protocol, Steering, UnknownToken};
use ipc::reason::Reason;
use packet::build::{PORT_MAC, PacketBuilder, packet};
use packet::{Address, Family, Flow, Key};

/// The port's addresses.
pub const PORT4: [u8; 4] = [10, 0, 1, 254];
/// The same, IPv6: fd00:1::254.
pub const PORT6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x54];
/// Both families, for tests that treat them alike.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// The client's key.
pub const CLIENT_KEY: Key = Key([0xc1; 8]);

/// A name.
pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The MAC address of the backend with this number.
pub fn backend_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 3, number]
}

/// The addresses of the backend with this number: 10.0.1.N, fd00:1::N.
pub fn backend_address(family: Family, number: u8) -> Address {
    match family {
        Family::V4 => Address::from_v4([10, 0, 1, number]),
        Family::V6 => Address::from_v6([0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number]),
    }
}

/// The first address VIPs have: 10.9.9.9 and fd99::9; `last` instead of 9.
pub fn vip_address(family: Family, last: u8) -> Address {
    match family {
        Family::V4 => Address::from_v4([10, 9, 9, last]),
        Family::V6 => Address::from_v6([0xfd, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]),
    }
}

/// A client's address.
pub fn client_address(family: Family, host: u16) -> Address {
    let [high, low] = host.to_be_bytes();
    match family {
        Family::V4 => Address::from_v4([192, 0, high, low]),
        Family::V6 => Address::from_v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low]),
    }
}

/// A TCP flow of a client to a VIP.
pub fn flow(family: Family, host: u16, source_port: u16, vip: u8, port: u16) -> Flow {
    Flow {
        source: client_address(family, host),
        destination: vip_address(family, vip),
        source_port,
        destination_port: port,
        protocol: 6,
        family,
    }
}

/// A packet of a flow.
pub fn of(flow: &Flow) -> PacketBuilder {
    packet().flow(flow)
}

/// An active backend, `number` its address and MAC address, weight 100.
pub fn backend(pool: &str, text: &str, number: u8) -> Command {
    backend_in(pool, text, number, 100, BackendState::Active)
}

/// A backend with all that tests vary.
pub fn backend_in(pool: &str, text: &str, number: u8, weight: u32, state: BackendState) -> Command {
    Command::PutBackend {
        pool: name(pool),
        name: name(text),
        address4: Some([10, 0, 1, number].into()),
        address6: Some(backend_address(Family::V6, number).v6_octets().into()),
        mac: Some(backend_mac(number)),
        weight,
        state,
        handles: Handles::default(),
    }
}

/// A backend with a number.
pub fn numbered(mut command: Command, to: u8) -> Command {
    if let Command::PutBackend { handles, .. } = &mut command {
        handles.number = Some(to.into());
    }
    command
}

/// A TCP VIP that learns, drops unknown tokens and forwards by l2dsr.
pub fn vip(text: &str, pool: &str) -> Command {
    vip_with(text, pool, Forward::L2dsr, true, UnknownToken::Drop)
}

/// A TCP VIP with all that tests vary.
pub fn vip_with(
    text: &str,
    pool: &str,
    forward: Forward,
    learn: bool,
    unknown_token: UnknownToken,
) -> Command {
    Command::PutVip {
        name: name(text),
        pool: name(pool),
        protocol: Protocol::Tcp,
        forward,
        steering: Steering::learning(learn),
        unknown_token,
    }
}

/// A VIP's service on 10.9.9.`last` and fd99::`last`, both families.
pub fn services(text: &str, last: u8, port: u16) -> [Command; 2] {
    FAMILIES.map(|family| Command::PutService {
        vip: name(text),
        address: vip_address(family, last).to_ip(),
        port,
    })
}

/// The port of most tests: Weft answers ARP itself, 1600 bytes.
pub fn port() -> Port {
    Port {
        mac: Some(PORT_MAC),
        addresses: vec![(Address::from_v4(PORT4).to_ip(), 24), (Address::from_v6(PORT6).to_ip(), 64)],
        mtu: Some(1600),
        ..Port::default()
    }
}

/// The site of most tests.
pub fn site() -> Site {
    Site { ports: vec![port()], tunnel_sources: [None, None], maglev_seed: 0x5eed }
}

/// What became of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub bytes: Vec<u8>,
}

/// See the module's header.
#[derive(Debug)]
pub struct World {
    pub model: Model,
    pub site: Site,
    pub snapshot: Snapshot,
    pub tables: Tables,
    pub counters: WorkerCounters,
    pub pipeline: Pipeline,
    pub sweeper: Sweeper,
    /// The time, in seconds.
    pub seconds: u64,
    /// When the data plane began.
    pub began: u64,
    /// The tables' memory: flows, tokens.
    pub memory: [Lines; 2],
}

/// The tables' secret key in most tests.
const SECRET: [u8; 32] = [7; 32];

impl World {
    /// A data plane before any configuration, with small tables.
    pub fn unconfigured(site: Site) -> Self {
        Self::of_size(site, 4096, 4096)
    }

    /// A data plane before any configuration, with tables for so many entries.
    pub fn of_size(site: Site, flows: usize, tokens: usize) -> Self {
        let memory = [Lines::heap(FlowTable::lines_for(flows)), Lines::heap(TokenTable::lines_for(tokens))];
        Self {
            model: Model::default(),
            snapshot: Snapshot::unconfigured(&site),
            site,
            tables: Tables::new(memory[0].clone(), memory[1].clone(), &SECRET),
            counters: WorkerCounters::heap(),
            pipeline: Pipeline::default(),
            sweeper: Sweeper::new(0, 1),
            seconds: 0,
            began: 0,
            memory,
        }
    }

    /// The process dies and another one takes its tables over, this many seconds later; the configuration is loaded
    /// before the first packet.
    pub fn restart(&mut self, pause: u64) -> Attached {
        let last_alive = self.seconds;
        self.seconds += pause;
        self.began = self.seconds;
        let [flows, tokens] = self.memory.clone();
        let lifetimes = self.tables.lifetimes.clone();
        let (tables, attached) = Tables::attach(flows, tokens, &SECRET, lifetimes, last_alive, self.seconds);
        (self.tables, self.sweeper) = (tables, Sweeper::new(0, 1));
        attached
    }

    /// A configured data plane.
    pub fn new(commands: &[Command]) -> Self {
        let mut world = Self::unconfigured(site());
        world.commit(commands);
        world
    }

    /// The tick now.
    pub fn now(&self) -> Tick {
        Tick::from_seconds(self.seconds)
    }

    /// What bursts are judged by now.
    pub fn context(&self) -> Context<'_> {
        Context {
            snapshot: &self.snapshot,
            tables: &self.tables,
            counters: &self.counters,
            now: self.now(),
            millis: self.seconds * 1000,
            port: PortId(0),
        }
    }

    /// Applies a batch as the manager does: known first where anything is new, then selectable.
    pub fn commit(&mut self, commands: &[Command]) {
        self.try_commit(commands).unwrap();
    }

    /// The same; a refused batch changes nothing.
    pub fn try_commit(&mut self, commands: &[Command]) -> Result<(), Refused> {
        let next = self.model.apply(commands)?;
        if next.has_new_backends(&self.model) {
            self.snapshot = self.snapshot.knowing(&next, &self.site, self.snapshot.generation + 1);
        }
        self.model = next;
        self.publish();
        Ok(())
    }

    /// The second phase: the model as it is now.
    pub fn publish(&mut self) {
        let generation = self.snapshot.generation + 1;
        self.snapshot = self.snapshot.following(&self.model, &self.site, generation, self.seconds * 1000);
    }

    /// Forgets removed backends that no entry holds, as the manager does after one census and another.
    pub fn forget_unused(&mut self) -> usize {
        let held = self.held_ids();
        let forgotten = self.forget(|id| !held.contains(&id));
        self.publish();
        forgotten
    }

    /// Forgets these of the removed backends.
    pub fn forget(&mut self, which: impl Fn(BackendId) -> bool) -> usize {
        self.model.forget(&which) + self.model.forget(&which)
    }

    /// All backend ids that an entry of either table holds.
    pub fn held_ids(&self) -> Vec<BackendId> {
        let mut held = Vec::new();
        self.tables.flows.sweep(0, self.tables.flows.lines(), |entry| {
            held.push(entry.backend);
            engine::flow_table::Keep::Yes
        });
        self.tables.tokens.for_each(0, self.tables.tokens.lines(), |entry| held.push(entry.backend));
        held
    }

    /// Judges one frame.
    pub fn send(&mut self, frame: impl Into<Frame>) -> Outcome {
        let mut outcomes = self.burst(vec![frame.into().0]);
        outcomes.pop().unwrap()
    }

    /// Judges frames of one burst.
    pub fn burst(&mut self, frames: Vec<Vec<u8>>) -> Vec<Outcome> {
        let mut frames = VecFrames::new(frames);
        let verdicts = self.judge(&mut frames);
        let bytes = frames.into_inner().into_iter().map(|VecFrame { bytes, .. }| bytes);
        verdicts.into_iter().zip(bytes).map(|(verdict, bytes)| Outcome { verdict, bytes }).collect()
    }

    /// Judges any burst.
    pub fn judge<F: Frames>(&mut self, frames: &mut F) -> Vec<Verdict> {
        let cx = Context {
            snapshot: &self.snapshot,
            tables: &self.tables,
            counters: &self.counters,
            now: Tick::from_seconds(self.seconds),
            millis: self.seconds * 1000,
            port: PortId(0),
        };
        self.pipeline.process(frames, &cx).verdicts().collect()
    }

    /// Lets time pass, with the sweep at its pace: it does what is due every second, every eight in a long wait.
    pub fn wait(&mut self, seconds: u64) {
        let step = if seconds > 1000 { 8 } else { 1 };
        for _ in 0..seconds / step {
            self.seconds += step;
            let elapsed = (self.seconds - self.began) * 1000;
            let cx = Context {
                snapshot: &self.snapshot,
                tables: &self.tables,
                counters: &self.counters,
                now: Tick::from_seconds(self.seconds),
                millis: self.seconds * 1000,
                port: PortId(0),
            };
            while self.sweeper.advance(elapsed, LINES_PER_CALL, &cx) {}
        }
    }

    /// Lets time pass without any sweep.
    pub fn skip(&mut self, seconds: u64) {
        self.seconds += seconds;
    }

    /// The name of a backend.
    pub fn name_of(&self, id: Option<BackendId>) -> Option<&str> {
        self.snapshot.backend(id?).map(|backend| backend.name.as_str())
    }

    /// The id of a backend, removed ones included.
    pub fn id_of(&self, text: &str) -> BackendId {
        let all = self.model.pools().iter().flat_map(|pool| &pool.backends);
        all.filter(|backend| backend.name == name(text)).map(|backend| backend.id).next().unwrap()
    }

    /// The backend Maglev chooses for a flow.
    pub fn hashed(&self, flow: &Flow) -> Option<BackendId> {
        let vip = self.snapshot.service(flow)?;
        let pool = self.snapshot.vip(vip)?.pool;
        self.snapshot.choose(pool, self.snapshot.public_key().flow(flow))
    }

    /// The `nth` flow of a family to a VIP's port that Maglev gives to this backend.
    pub fn flow_to(&self, text: &str, family: Family, vip: u8, port: u16, nth: usize) -> Flow {
        let flows = (40_000..).map(|source| flow(family, 700, source, vip, port));
        let is_its = |flow: &Flow| self.name_of(self.hashed(flow)) == Some(text);
        flows.filter(is_its).nth(nth).unwrap()
    }
}

/// A frame, from a builder or from bytes.
#[derive(Clone, Debug)]
pub struct Frame(pub Vec<u8>);

impl From<PacketBuilder> for Frame {
    fn from(builder: PacketBuilder) -> Self {
        Self(builder.build())
    }
}

impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

/// All counters and reasons, to tell what moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    counters: Vec<u64>,
    reasons: Vec<u64>,
}

impl Counts {
    /// As they are now.
    pub fn of(reader: &CounterReader) -> Self {
        Self {
            counters: Counter::ALL.iter().map(|counter| reader.counter(*counter)).collect(),
            reasons: Reason::ALL.iter().map(|reason| reader.reason(*reason)).collect(),
        }
    }

    /// The counters that differ from an earlier look, and by how much.
    pub fn moved_since(&self, before: &Self) -> Vec<(Counter, u64)> {
        let pairs = self.counters.iter().zip(&before.counters).map(|(now, then)| now - then);
        Counter::ALL.iter().copied().zip(pairs).filter(|(_, moved)| *moved != 0).collect()
    }

    /// The reasons that differ from an earlier look, and by how much.
    pub fn reasons_since(&self, before: &Self) -> Vec<(Reason, u64)> {
        let pairs = self.reasons.iter().zip(&before.reasons).map(|(now, then)| now - then);
        Reason::ALL.iter().copied().zip(pairs).filter(|(_, moved)| *moved != 0).collect()
    }
}

/// What agents report to a data plane goes by this.
pub fn reports(world: &World) -> Reports<'_> {
    Reports {
        tables: &world.tables,
        snapshot: &world.snapshot,
        now: world.now(),
        millis: world.context().millis,
        round: false,
    }
}

/// A small generator of random numbers (SplitMix64): seeded, so that a failure comes again.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// The upper half of the next number.
    pub fn word(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).unwrap()
    }

    /// A number below a bound.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    /// Whether something of this chance (in percent) happens.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }
}
