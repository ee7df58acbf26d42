//! The closed loop: clients, the engine, servers, and back, in one process and one thread.
//!
//! Time is simulated: it moves by a round's [`HOP`] while packets are under way, and to the next timer when none are,
//! so every run with one seed is the same, packet for packet. The servers answer clients directly, as with any
//! forwarding mode of Weft.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use capture::CaptureWriter;
use config::Config;
use engine::frames::VecFrames;
use engine::pipeline::{Context, Pipeline};
use engine::tick::Tick;
use hashbrown::HashMap;
use ipc::counter::Counter;
use ipc::counters::WorkerCounters;
use ipc::id::PortId;
use ipc::limits::BURST;
use packet::build::CLIENT_MAC;

use super::client::Client;
use super::host::Random;
use super::plan::Plan;
use super::report::{Balancer, Report};
use super::scheme;
use super::segment::{self, NoSegment, Segment};
use super::server::Server;
use super::tls::Side;
use crate::engine_bench::Reasons;
use crate::world::{BEGIN_S, World};

/// What a packet takes from one station to the next.
const HOP: Duration = Duration::from_micros(100);
/// So much simulated time, and whoever is not done never will be.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A backend's server.
struct Seat {
    name: String,
    mac: [u8; 6],
    server: Server,
}

/// The captures of a run: what passes at the clients, and what between Weft and the servers.
struct Captures {
    clients: CaptureWriter,
    backends: CaptureWriter,
}

impl Captures {
    fn create(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self {
            clients: CaptureWriter::create(&directory.join("clients.pcap"))?,
            backends: CaptureWriter::create(&directory.join("backends.pcap"))?,
        })
    }
}

/// All of it.
pub struct ClosedLoop {
    world: World,
    counters: WorkerCounters,
    pipeline: Box<Pipeline>,
    client: Client,
    seats: Vec<Seat>,
    by_address: HashMap<IpAddr, usize>,
    by_mac: HashMap<[u8; 6], usize>,
    port_mac: [u8; 6],
    captures: Option<Captures>,
    /// Which packets are lost.
    luck: Random,
    lose: u64,
    /// Packets after which Weft has empty tables again; 0: never.
    restart: u64,
    now: Duration,
    sent: u64,
    forwarded: u64,
    lost: u64,
    restarts: u64,
}

/// What a run is made of.
#[derive(Debug)]
pub struct Setup<'a> {
    /// Weft's configuration.
    pub config: &'a Config,
    /// What the clients do.
    pub plan: Plan,
    /// The latest version the servers speak.
    pub version: u8,
    /// Whether they draw keys as kernels do, whatever the steering asks of them.
    pub kernel_keys: bool,
    /// Whether they take explicit tokens.
    pub explicit: bool,
    /// Whether they use checksums, asked or not.
    pub checksums: bool,
    /// One packet in so many is lost on its way from a client or from a server; 0: none.
    pub lose: u64,
    /// Weft's tables are empty again after so many packets; 0: never.
    pub restart: u64,
    /// The numbers everything follows from.
    pub seed: u64,
    /// Where captures go.
    pub out: Option<&'a Path>,
}

impl ClosedLoop {
    /// Everybody at their place.
    ///
    /// # Errors
    /// The engine refuses the configuration, or a capture cannot be written.
    pub fn new(setup: &Setup<'_>) -> anyhow::Result<Self> {
        let world = World::new(setup.config)?;
        let port = setup.config.dataplane.ports.first().context("the configuration has no port")?;
        let side = Side::server()?;
        let (mut seats, mut by_address, mut by_mac) = (Vec::new(), HashMap::new(), HashMap::new());
        let mut issuers = if setup.kernel_keys { HashMap::new() } else { scheme::issuers(setup.config) };
        let members = setup.config.pools.iter().flat_map(|pool| pool.backends.iter().map(move |b| (pool, b)));
        for (pool, backend) in members {
            let number = seats.len();
            backend.addresses().for_each(|address| {
                by_address.insert(address, number);
            });
            let mac = backend.mac.unwrap_or_default();
            by_mac.insert(mac, number);
            let seed = setup.seed.wrapping_mul(31).wrapping_add(number as u64 + 1);
            let issuer =
                issuers.remove(&(pool.name.to_string(), backend.name.to_string())).unwrap_or_default();
            let server = Server::new(seed, setup.version, setup.explicit.then(|| side.clone()))
                .with(issuer)
                .with_checksums(setup.checksums);
            seats.push(Seat { name: backend.name.to_string(), mac, server });
        }
        Ok(Self {
            world,
            counters: WorkerCounters::heap(),
            pipeline: Box::default(),
            client: Client::new(setup.seed, setup.plan.clone())?,
            seats,
            by_address,
            by_mac,
            port_mac: port.mac.unwrap_or(packet::build::PORT_MAC),
            captures: setup.out.map(Captures::create).transpose()?,
            luck: Random::new(setup.seed.wrapping_add(0x105e)),
            lose: setup.lose,
            restart: setup.restart,
            now: Duration::ZERO,
            sent: 0,
            forwarded: 0,
            lost: 0,
            restarts: 0,
        })
    }

    /// Whether the next packet gets lost.
    fn is_lost(&mut self) -> bool {
        let lost = self.lose > 0 && self.luck.long().is_multiple_of(self.lose);
        self.lost += u64::from(lost);
        lost
    }

    /// Runs until every connection is over; `progress` hears how many are.
    ///
    /// # Errors
    /// A capture cannot be written.
    pub fn run(mut self, mut progress: impl FnMut(u64)) -> anyhow::Result<Report> {
        while !self.client.is_done() && self.now < PATIENCE {
            self.client.tick(self.now);
            self.seats.iter_mut().for_each(|seat| seat.server.tick(self.now));
            let moved = self.send_up()? + self.send_down()?;
            if moved == 0 {
                self.skip();
            }
            progress(self.client.done());
        }
        // What the last acknowledgments are for.
        while self.send_up()? + self.send_down()? > 0 {}
        self.finish()
    }

    /// To the next timer, where nothing is under way.
    fn skip(&mut self) {
        let due = self.seats.iter().filter_map(|seat| seat.server.due()).chain(self.client.due()).min();
        self.now = due.unwrap_or(PATIENCE).max(self.now + HOP);
    }

    /// What clients have to say goes through Weft; how many packets.
    fn send_up(&mut self) -> anyhow::Result<usize> {
        self.now += HOP;
        let segments = self.client.take_out();
        let count = segments.len();
        let mut frames = Vec::with_capacity(count);
        for segment in segments {
            let frame = segment.frame(CLIENT_MAC, self.port_mac);
            if let Some(captures) = &mut self.captures {
                captures.clients.write(self.now, &frame, 0)?;
            }
            if !self.is_lost() {
                frames.push(frame);
            }
        }
        for burst in frames.chunks(BURST) {
            let restarts = (self.sent + burst.len() as u64).checked_div(self.restart).unwrap_or(0);
            if restarts > self.restarts {
                self.restarts = restarts;
                self.world.forget();
            }
            self.sent += burst.len() as u64;
            self.balance(burst.to_vec())?;
        }
        Ok(count)
    }

    /// One burst through the engine, and what leaves it to the servers.
    fn balance(&mut self, burst: Vec<Vec<u8>>) -> anyhow::Result<()> {
        let seconds = BEGIN_S + self.now.as_secs();
        let cx = Context {
            snapshot: &self.world.snapshot,
            tables: &self.world.tables,
            counters: &self.counters,
            now: Tick::from_seconds(seconds),
            millis: BEGIN_S * 1000 + u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX),
            port: PortId(0),
        };
        let mut frames = VecFrames::new(burst);
        let sent: Vec<bool> = self
            .pipeline
            .process(&mut frames, &cx)
            .verdicts()
            .map(|verdict| verdict.action.is_sent())
            .collect();
        for (frame, _) in frames.into_inner().into_iter().zip(sent).filter(|(_, sent)| *sent) {
            self.forwarded += 1;
            self.arrive(&frame.bytes)?;
        }
        Ok(())
    }

    /// A frame that Weft sent reaches a server, or, where it is Weft's own answer, the client.
    fn arrive(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        if segment::destination(frame) == CLIENT_MAC {
            return self.reach_client(frame);
        }
        if let Some(captures) = &mut self.captures {
            captures.backends.write(self.now, frame, 0)?;
        }
        let inner = segment::decapsulate(frame);
        let seat = match inner.tunnel {
            Some(address) => self.by_address.get(&address),
            None => self.by_mac.get(&segment::destination(frame)),
        };
        let Some(seat) = seat.and_then(|seat| self.seats.get_mut(*seat)) else { return Ok(()) };
        match Segment::read(&inner.frame) {
            Ok(segment) => seat.server.receive(&segment, &inner.extra, self.now),
            Err(NoSegment::Damaged) => seat.server.damaged(),
            Err(NoSegment::Other) => {}
        }
        Ok(())
    }

    fn reach_client(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        if let Some(captures) = &mut self.captures {
            captures.clients.write(self.now, frame, 0)?;
        }
        match Segment::read(frame) {
            Ok(segment) => self.client.receive(&segment, self.now),
            Err(NoSegment::Damaged) => self.client.damaged(),
            Err(NoSegment::Other) => {}
        }
        Ok(())
    }

    /// What servers answer goes to the clients directly; how many packets.
    fn send_down(&mut self) -> anyhow::Result<usize> {
        self.now += HOP;
        let mut count = 0;
        for index in 0..self.seats.len() {
            let Some(seat) = self.seats.get_mut(index) else { break };
            let mac = seat.mac;
            for segment in seat.server.take_out() {
                count += 1;
                let frame = segment.frame(mac, CLIENT_MAC);
                if let Some(captures) = &mut self.captures {
                    captures.backends.write(self.now, &frame, 0)?;
                }
                if !self.is_lost() {
                    self.reach_client(&frame)?;
                }
            }
        }
        Ok(count)
    }

    fn finish(self) -> anyhow::Result<Report> {
        if let Some(captures) = self.captures {
            captures.clients.finish()?;
            captures.backends.finish()?;
        }
        let reader = self.counters.reader();
        let reasons = Reasons::of(&reader).occurred();
        let reasons = reasons.into_iter().map(|(reason, count)| (reason.name().to_owned(), count)).collect();
        let counters =
            Counter::ALL.iter().map(|counter| (counter.name().to_owned(), reader.counter(*counter)));
        let balancer = Balancer {
            received: self.sent,
            sent: self.forwarded,
            lost: self.lost,
            restarts: self.restarts,
            reasons,
            counters: counters.filter(|(_, count)| *count > 0).collect(),
        };
        let servers =
            self.seats.iter().map(|seat| (seat.name.clone(), seat.server.tally().clone())).collect();
        Ok(Report::new(Some(balancer), Some(&self.client), servers))
    }
}

/// The addresses clients come from: one for each path.
pub fn addresses(service: SocketAddr, paths: u32) -> Vec<IpAddr> {
    (0..paths.max(1))
        .map(|path| {
            let [.., low] = path.to_be_bytes();
            match service.ip() {
                IpAddr::V4(_) => IpAddr::from([198, 18, low, 1]),
                IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0, u16::from(low), 0, 0, 0, 1]),
            }
        })
        .collect()
}
