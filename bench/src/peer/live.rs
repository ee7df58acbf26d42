//! Live: a client or servers on a DPDK port, against real endpoints or through a real Weft.
//!
//! The port is any of DPDK's; in the lab it is `net_af_packet` on a veth of a namespace whose kernel has no address
//! there. One thread polls it and sleeps when nothing comes: two cores are shared by everybody.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use capture::CaptureWriter;
use config::Config;
use dpdk::{BURST, Burst, Eal, EalConfig, Pool, PoolConfig, Port, PortConfig, RxQueue, TxQueue};

use super::Version;
use super::client::Client;
use super::connection::Signal;
use super::issuer::Issuer;
use super::neighbour::{OnLink, Station};
use super::plan::Plan;
use super::report::Report;
use super::scheme;
use super::segment::{self, Inner, NoSegment, Segment};
use super::server::Server;
use super::tls::Side;
use crate::{pages, world};

/// The longest frame.
const FRAME_ROOM: u16 = 2048;
/// How long to sleep when nothing came.
const PAUSE: Duration = Duration::from_micros(200);
/// How often to ask again where somebody is.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How long a client that is done stays to acknowledge what still comes.
const LINGER: Duration = Duration::from_millis(300);

/// Arguments that both roles have.
#[derive(Clone, Debug, clap::Args)]
pub struct Link {
    /// The port, as DPDK takes it: net_af_packet0,iface=p0 for instance. A kernel behind it must not have the addresses.
    #[arg(long, value_name = "DEVICE")]
    pub vdev: String,
    /// An address and its network, 10.0.1.31/24; may be given more than once.
    #[arg(long = "address", value_name = "ADDRESS/BITS", required = true)]
    pub addresses: Vec<OnLink>,
    /// A gateway to everywhere else; may be given once for each network.
    #[arg(long = "via", value_name = "ADDRESS")]
    pub gateways: Vec<IpAddr>,
    /// Where the service is.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub service: SocketAddr,
    /// Ends after so many seconds, done or not.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// The CPU to poll on; by default the last.
    #[arg(long, value_name = "CPU")]
    pub lcore: Option<u32>,
    /// Memory for packet buffers, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 32)]
    pub memory_mb: u32,
    /// Writes every frame that is ours to this capture.
    #[arg(long, value_name = "FILE.pcap")]
    pub capture: Option<PathBuf>,
    /// Prints one line of JSON when ready and one at the end.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `peer client`.
#[derive(Clone, Debug, clap::Args)]
pub struct ClientArguments {
    /// The port and where things are.
    #[command(flatten)]
    pub link: Link,
    /// The version asked for.
    #[arg(long, value_enum, default_value_t = Version::V1)]
    pub client_version: Version,
    /// How connections are named: by keys (RFC 8684), or by tokens with the G or E flag and keys from TLS 1.3.
    #[arg(long, value_enum, default_value_t = Signal::Keys)]
    pub signal: Signal,
    /// Connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    /// Connections at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub at_once: u32,
    /// Joins of each connection, from the further addresses in turn.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=7))]
    pub joins: u32,
    /// Bytes sent over each subflow.
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub bytes: u32,
    /// Ask for checksums of the data (flag A).
    #[arg(long)]
    pub checksums: bool,
    /// End connections by MP_FASTCLOSE, instead of DATA_FIN and FIN.
    #[arg(long)]
    pub fastclose: bool,
    /// Seconds for which a connection says nothing between its first data and its joins.
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub hold: u64,
    /// The server does not send back what it gets: its acknowledgment is enough.
    #[arg(long)]
    pub no_echo: bool,
}

/// Arguments of `peer server`.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArguments {
    /// The port and where things are. A tunnelled packet is for the server at its outer address; there is one server
    /// for each `--address`, with a configuration one for each backend. What comes without a tunnel is for the first.
    #[command(flatten)]
    pub link: Link,
    /// Weft's configuration: each server does what the steering of its pool asks of the backend at its address.
    #[arg(long, value_name = "weft.toml")]
    pub config: Option<PathBuf>,
    /// Further addresses of the host, at which there is no server.
    #[arg(long = "also", value_name = "ADDRESS/BITS")]
    pub also: Vec<OnLink>,
    /// The latest version spoken.
    #[arg(long, value_enum, default_value_t = Version::V1)]
    pub server_version: Version,
    /// Use checksums of the data whether a client asks for them or not.
    #[arg(long)]
    pub server_checksums: bool,
}

/// A port with its queues.
struct Wire {
    receive: RxQueue,
    transmit: TxQueue,
    pool: Pool,
    inbound: Burst,
    outbound: Burst,
    capture: Option<CaptureWriter>,
    start: Instant,
    /// Keeps the device running; ends before DPDK.
    port: Port,
    _eal: Eal,
}

impl Wire {
    fn start(link: &Link) -> anyhow::Result<Self> {
        let lcore = link.lcore.unwrap_or_else(last_cpu);
        let prefix = format!("weft-peer-{}", std::process::id());
        let eal = Eal::init(&EalConfig {
            lcores: &[lcore],
            main_lcore: lcore,
            memory_mb: link.memory_mb,
            huge_pages: pages::has_huge_pages(link.memory_mb),
            devices: std::slice::from_ref(&link.vdev),
            ..EalConfig::new(&prefix)
        })?;
        let pool =
            Pool::new(&eal, "packets", &PoolConfig { frame_room: FRAME_ROOM, ..PoolConfig::default() })?;
        let config = PortConfig { promiscuous: true, ..PortConfig::default() };
        let mut port = Port::configure(&eal, &link.vdev, &pool, &config)?;
        let (receive, transmit) = port.take_queues().pop().context("the device has no queue")?;
        let (inbound, outbound) = (Burst::new(&eal), Burst::new(&eal));
        let capture = link.capture.as_deref().map(CaptureWriter::create).transpose()?;
        let start = Instant::now();
        Ok(Self { receive, transmit, pool, inbound, outbound, capture, start, port, _eal: eal })
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn note(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        let now = self.now();
        self.capture.as_mut().map_or(Ok(()), |capture| capture.write(now, frame, 0))
    }

    /// What has arrived.
    fn take(&mut self) -> Vec<Vec<u8>> {
        self.receive.receive(&mut self.inbound);
        let frames = (0..self.inbound.len()).map(|index| self.inbound.bytes(index).to_vec()).collect();
        self.inbound.clear();
        frames
    }

    fn send(&mut self, frames: &[Vec<u8>]) -> anyhow::Result<()> {
        for frame in frames {
            self.note(frame)?;
        }
        for burst in frames.chunks(BURST) {
            for frame in burst {
                if !self.outbound.push(&self.pool, frame) {
                    bail!("the port takes no more packets: give it more memory with --memory-mb");
                }
            }
            let refused = self.transmit.transmit(&mut self.outbound, u64::MAX).refused;
            if refused > 0 {
                // They are sent again, after a second.
                log::warn!("the port had no room for {refused} packets");
            }
        }
        Ok(())
    }
}

/// The last CPU that this process may use.
fn last_cpu() -> u32 {
    crate::machine::cpus().last().and_then(|cpu| u32::try_from(*cpu).ok()).unwrap_or(0)
}

/// Whoever lives at the port.
trait Resident {
    fn receive(&mut self, inner: &Inner, segment: &Segment, now: Duration);
    fn damaged(&mut self, inner: &Inner);
    fn tick(&mut self, now: Duration);
    fn take_out(&mut self) -> Vec<Segment>;
    fn is_done(&self) -> bool;
}

impl Resident for Client {
    fn receive(&mut self, _: &Inner, segment: &Segment, now: Duration) {
        Self::receive(self, segment, now);
    }

    fn damaged(&mut self, _: &Inner) {
        Self::damaged(self);
    }

    fn tick(&mut self, now: Duration) {
        Self::tick(self, now);
    }

    fn take_out(&mut self) -> Vec<Segment> {
        Self::take_out(self)
    }

    fn is_done(&self) -> bool {
        Self::is_done(self)
    }
}

/// A server and the addresses at which its tunnels end.
struct Seat {
    name: String,
    addresses: Vec<IpAddr>,
    server: Server,
}

/// Servers by the address at which tunnels end.
struct Servers(Vec<Seat>);

impl Servers {
    fn of(&mut self, inner: &Inner) -> Option<&mut Server> {
        let at = match inner.tunnel {
            Some(address) => self.0.iter().position(|seat| seat.addresses.contains(&address))?,
            None => 0,
        };
        self.0.get_mut(at).map(|seat| &mut seat.server)
    }
}

impl Resident for Servers {
    fn receive(&mut self, inner: &Inner, segment: &Segment, now: Duration) {
        if let Some(server) = self.of(inner) {
            server.receive(segment, &inner.extra, now);
        }
    }

    fn damaged(&mut self, inner: &Inner) {
        if let Some(server) = self.of(inner) {
            server.damaged();
        }
    }

    fn tick(&mut self, now: Duration) {
        self.0.iter_mut().for_each(|seat| seat.server.tick(now));
    }

    fn take_out(&mut self) -> Vec<Segment> {
        self.0.iter_mut().flat_map(|seat| seat.server.take_out()).collect()
    }

    fn is_done(&self) -> bool {
        false
    }
}

/// Runs a client; its report.
///
/// # Errors
/// The port cannot be had, or a capture not be written.
pub fn client(arguments: &ClientArguments) -> anyhow::Result<Report> {
    let family = |address: &IpAddr| address.is_ipv4() == arguments.link.service.is_ipv4();
    let plan = Plan {
        service: arguments.link.service,
        addresses: arguments.link.addresses.iter().map(|own| own.address).filter(family).collect(),
        connections: arguments.connections,
        at_once: arguments.at_once,
        joins: arguments.joins,
        bytes: arguments.bytes,
        echo: !arguments.no_echo,
        version: arguments.client_version.number(),
        signal: arguments.signal,
        checksums: arguments.checksums,
        fastclose: arguments.fastclose,
        hold: Duration::from_secs(arguments.hold),
    };
    if plan.addresses.is_empty() {
        bail!("no --address is of the service's family");
    }
    let mut client = Client::new(seed()?, plan)?;
    live(&arguments.link, &mut client)?;
    Ok(Report::new(None, Some(&client), std::collections::BTreeMap::new()))
}

/// Runs servers until the time is over or a signal comes; their report.
///
/// # Errors
/// The port cannot be had, or a capture not be written.
pub fn server(arguments: &ServerArguments) -> anyhow::Result<Report> {
    let config = arguments.config.as_deref().map(world::load).transpose()?;
    let side = Side::server()?;
    let mut servers: Vec<Seat> = Vec::new();
    for own in &arguments.link.addresses {
        let (name, issuer) = match &config {
            Some(config) => seat(config, own.address)?,
            None => (own.address.to_string(), Issuer::Random),
        };
        if let Some(seat) = servers.iter_mut().find(|seat| seat.name == name) {
            seat.addresses.push(own.address);
            continue;
        }
        let server = Server::new(seed()?, arguments.server_version.number(), Some(side.clone()))
            .with_checksums(arguments.server_checksums);
        servers.push(Seat { name, addresses: vec![own.address], server: server.with(issuer) });
    }
    let mut servers = Servers(servers);
    let mut link = arguments.link.clone();
    link.addresses.extend(&arguments.also);
    live(&link, &mut servers)?;
    let tallies = servers.0.iter().map(|seat| (seat.name.clone(), seat.server.tally().clone())).collect();
    Ok(Report::new(None, None, tallies))
}

/// The backend of a configuration at an address: its name, and what its pool's steering asks of it.
fn seat(config: &Config, address: IpAddr) -> anyhow::Result<(String, Issuer)> {
    let members =
        config.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
    let found = members.into_iter().find(|(_, backend)| backend.addresses().any(|own| own == address));
    let Some((pool, backend)) = found else {
        bail!("no backend of the configuration is at {address}: give that with --also");
    };
    let name = backend.name.to_string();
    let issuer = scheme::issuers(config).remove(&(pool.name.to_string(), name.clone()));
    Ok((name, issuer.unwrap_or_default()))
}

/// A seed nobody knows.
fn seed() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .context("no random numbers")?;
    Ok(u64::from_be_bytes(bytes))
}

/// Lives at the port until done, a signal, or the end of time.
fn live(link: &Link, resident: &mut impl Resident) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot catch signals")?;
    }
    let mut wire = Wire::start(link)?;
    let mut station = Station::new(wire.port.mac(), link.addresses.clone(), link.gateways.clone());
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", if link.json { "{\"ready\": true}" } else { "ready" }).context("cannot write")?;
    out.flush().context("cannot write")?;
    drop(out);
    let limit = Duration::from_secs(link.seconds);
    let (mut asked, mut done) = (Duration::ZERO, None);
    while wire.now() < limit && !stop.load(Ordering::Relaxed) {
        let frames = wire.take();
        let idle = frames.is_empty();
        for frame in &frames {
            take(frame, link, &mut wire, &mut station, resident)?;
        }
        let now = wire.now();
        resident.tick(now);
        let frames: Vec<Vec<u8>> =
            resident.take_out().into_iter().flat_map(|segment| station.send(segment)).collect();
        wire.send(&frames)?;
        if now > asked + ASK_EVERY {
            asked = now;
            wire.send(&station.ask_again())?;
        }
        if resident.is_done() && now > *done.get_or_insert(now) + LINGER {
            break;
        }
        if idle && frames.is_empty() {
            std::thread::sleep(PAUSE);
        }
    }
    wire.capture.take().map_or(Ok(()), CaptureWriter::finish)
}

/// One frame that is for us.
fn take(
    frame: &[u8],
    link: &Link,
    wire: &mut Wire,
    station: &mut Station,
    resident: &mut impl Resident,
) -> anyhow::Result<()> {
    if !station.is_for_us(frame) {
        return Ok(());
    }
    if let Some(answers) = station.receive(frame) {
        return wire.send(&answers);
    }
    let inner = segment::decapsulate(frame);
    match Segment::read(&inner.frame) {
        // A bridge may flood what is between others.
        Ok(segment) if segment.from == link.service || segment.to == link.service => {
            wire.note(frame)?;
            let now = wire.now();
            resident.receive(&inner, &segment, now);
        }
        Ok(_) | Err(NoSegment::Other) => {}
        Err(NoSegment::Damaged) => resident.damaged(&inner),
    }
    Ok(())
}
