//! What a valid configuration says. Values of these types have passed every check of this crate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipc::message::{Forward, Handles, Name, Protocol, Scheme, Steering, UnknownToken};

/// weft.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[dataplane]`.
    pub dataplane: Dataplane,
    /// Every `[[pool]]`, then the pools of VIPs with backends of their own.
    pub pools: Vec<Pool>,
    /// Every `[[vip]]`.
    pub vips: Vec<Vip>,
    /// `[agents]`.
    pub agents: Option<Agents>,
    /// `[metrics]`.
    pub metrics: Option<Metrics>,
    /// Whether the file itself holds a secret, so that not everybody should read it.
    pub has_secret_inside: bool,
}

/// `[agents]`: read by weft-ctrlplane at its start; the files are read again with every reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agents {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Certificates; `None` only where `listen` is a loopback address.
    pub files: Option<AgentFiles>,
    /// Connections that one backend's agent may have reported at a time.
    pub tokens: usize,
    /// Reports taken from one agent in a second.
    pub reports_per_second: u32,
}

/// `[metrics]`: read once by weft-ctrlplane, at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where to listen.
    pub listen: SocketAddr,
}

/// The files of mutual TLS, in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFiles {
    /// Certificates of the agents' authorities.
    pub authority: PathBuf,
    /// The control plane's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Lists of revoked certificates.
    pub revoked: Option<PathBuf>,
}

/// `[dataplane]`: read once by weft-dataplane, at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataplane {
    /// The lcores that poll, at least one, no two alike.
    pub workers: Vec<u32>,
    /// Entries the flow table is made for.
    pub flows: usize,
    /// Entries the token table is made for.
    pub tokens: usize,
    /// Segment, tables, locks, sockets. Absolute.
    pub runtime_dir: PathBuf,
    /// Whether to ask for huge pages.
    pub huge_pages: HugePages,
    /// Packet buffers, in MiB.
    pub memory_mb: u32,
    /// Packet buffers at least; 0 where the rings' are enough.
    pub mbufs: u32,
    /// DPDK's file prefix.
    pub file_prefix: String,
    /// Seed of the public hash.
    pub maglev_seed: u64,
    /// Outer IPv4 source of tunnels, if not the port's.
    pub tunnel_source4: Option<Ipv4Addr>,
    /// Outer IPv6 source of tunnels, if not the port's.
    pub tunnel_source6: Option<Ipv6Addr>,
    /// Whether the tables stay, for the next start, when the data plane ends.
    pub keep_tables: bool,
    /// `[dataplane.idle]`.
    pub idle: Idle,
    /// `[dataplane.evict]`.
    pub evict: Evict,
    /// `[dataplane.guard]`.
    pub guard: Guard,
    /// `[[dataplane.port]]`. May be empty: `replay` needs none.
    pub ports: Vec<Port>,
}

/// How long a flow may be silent before it is forgotten, in seconds, by where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// A SYN was seen and nothing since.
    pub half_open: u32,
    /// Established.
    pub established: u32,
    /// FIN or RST was seen, without a token.
    pub closing: u32,
    /// FIN or RST was seen, with a token.
    pub closing_mptcp: u32,
    /// Adopted from a packet in the middle.
    pub adopted: u32,
    /// UDP.
    pub udp: u32,
}

/// How long a flow must have been silent, in seconds, before it may give way to a new one in a full table, by class.
/// `None` is never. Where several may, the first class in this order goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evict {
    /// Half-open.
    pub half_open: Option<u32>,
    /// Adopted, and UDP.
    pub adopted: Option<u32>,
    /// Closing.
    pub closing: Option<u32>,
    /// Established, the backend is Maglev's own answer.
    pub own: Option<u32>,
    /// Established, the backend is another: joined subflows, and flows from before a change of the pool.
    pub kept: Option<u32>,
}

/// What SYNs may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Bits of an IPv4 source that are one network.
    pub prefix4: u8,
    /// Bits of an IPv6 source that are one network.
    pub prefix6: u8,
    /// Percent of the flow table for the half-open flows of one network; 100 is no bound.
    pub flow_share: u8,
    /// Percent of the token table for the unconfirmed tokens of one network; 100 is no bound.
    pub token_share: u8,
    /// New flows a second for each worker; 0 is no bound.
    pub new_flows: u32,
    /// Learned tokens a second for each worker; 0 is no bound.
    pub new_tokens: u32,
}

/// Whether to ask for huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// Where there are any.
    Auto,
    /// Or do not start.
    On,
    /// Never.
    Off,
}

/// A DPDK port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// A PCI address, or a vdev string as DPDK takes it.
    pub device: String,
    /// The port's MAC, if not what the device reports.
    pub mac: Option<[u8; 6]>,
    /// The port's own addresses.
    pub address: Vec<Prefix>,
    /// Next hop for backends outside the port's networks, IPv4.
    pub gateway4: Option<Ipv4Addr>,
    /// The same, IPv6.
    pub gateway6: Option<Ipv6Addr>,
    /// Name of the kernel's interface that gets what is not Weft's, and whose packets leave by the port.
    pub exception: Option<String>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Whether the device takes frames to other MAC addresses.
    pub promiscuous: bool,
    /// Length of each receive queue.
    pub rx_descriptors: u16,
    /// Length of each transmit queue.
    pub tx_descriptors: u16,
}

/// An address and the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The host's address, not the network's.
    pub address: IpAddr,
    /// 1 to 32 or 1 to 128.
    pub length: u8,
}

impl Prefix {
    /// Whether an address lies in the prefix's network.
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32_u32.saturating_sub(u32::from(self.length));
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128_u32.saturating_sub(u32::from(self.length));
                own.to_bits().checked_shr(shift) == other.to_bits().checked_shr(shift)
            }
            _ => false,
        }
    }
}

/// A set of backends. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Unique among pools.
    pub name: Name,
    /// In the order of the file.
    pub backends: Vec<Backend>,
}

/// A machine that serves VIPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Unique in its pool.
    pub name: Name,
    /// Its IPv4 address. It has this or the other, or both.
    pub address4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub address6: Option<Ipv6Addr>,
    /// Where its frames go; resolved by the control plane where none is given.
    pub mac: Option<[u8; 6]>,
    /// Share of new connections, 0 to 1000.
    pub weight: u32,
    /// By what else it is found.
    pub handles: Handles,
}

impl Backend {
    /// Its addresses, one or two, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.address4.map(IpAddr::V4).into_iter().chain(self.address6.map(IpAddr::V6))
    }
}

/// What clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Unique among VIPs.
    pub name: Name,
    /// At least one, no two alike.
    pub addresses: Vec<IpAddr>,
    /// Which ports.
    pub ports: Ports,
    /// Which protocol.
    pub protocol: Protocol,
    /// Name of its pool; there is one of this name.
    pub pool: Name,
    /// How packets reach a backend.
    pub forward: Forward,
    /// How joins find the backend of their connection.
    pub steering: Steering,
    /// What becomes of a join whose token is unknown.
    pub unknown_token: UnknownToken,
}

impl Vip {
    /// Whether tokens are learned from the handshakes that pass by, and joins follow them.
    pub fn learns(&self) -> bool {
        self.steering.has(Scheme::Learn)
    }
}

/// The ports of a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Every port.
    Any,
    /// These, at least one, no two alike, none of them 0.
    List(Vec<u16>),
}

impl Ports {
    /// The ports as services say them: 0 stands for any.
    pub fn numbers(&self) -> &[u16] {
        match self {
            Self::Any => &[0],
            Self::List(ports) => ports,
        }
    }
}
