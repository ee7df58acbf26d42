//! A frame taken apart by etherparse, as far as the verifier asks: link, IP packet, transport.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice};

use super::mptcp::{self, Carrier, Mptcp};

/// Ethernet types.
pub const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: [u16; 2] = [0x8100, 0x88a8];
/// VLAN tags that a packet to a VIP may have.
const MAX_TAGS: usize = 2;

/// IP protocols.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;

/// A frame: what is before the packet, and the packet.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// Destination MAC address.
    pub to: [u8; 6],
    /// Source MAC address.
    pub from: [u8; 6],
    /// VLAN tags, type and all.
    pub tags: &'a [u8],
    /// The Ethernet type behind the tags.
    pub ether_type: u16,
    /// Everything behind the Ethernet type.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The parts of a frame; `None` where it ends before they do.
    pub fn read(frame: &'a [u8]) -> Option<Self> {
        let (to, rest) = frame.split_first_chunk()?;
        let (from, rest) = rest.split_first_chunk()?;
        let type_at = |at: usize| Some(u16::from_be_bytes(*rest.get(at..)?.first_chunk()?));
        let mut len = 0;
        while VLAN.contains(&type_at(len)?) && len < 4 * MAX_TAGS {
            len += 4;
        }
        let ether_type = type_at(len)?;
        let (tags, body) = (rest.get(..len)?, rest.get(len + 2..)?);
        Some(Self { to: *to, from: *from, tags, ether_type, body })
    }

    /// The IP packet, if there is a whole one.
    pub fn ip(&self) -> Option<Ip<'a>> {
        let version = self.body.first()? >> 4;
        let expected = match self.ether_type {
            IPV4 => 4,
            IPV6 => 6,
            _ => return None,
        };
        if version == expected { Ip::read(self.body) } else { None }
    }
}

/// The IP packet that begins these bytes, as long as it says it is.
pub fn packet_bytes(bytes: &[u8]) -> Option<&[u8]> {
    let total = match bytes.first()? >> 4 {
        4 => usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        6 => 40 + usize::from(u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?])),
        _ => return None,
    };
    bytes.get(..total).filter(|packet| packet.len() >= 20)
}

/// A 5-tuple, seen from the client's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The client.
    pub source: IpAddr,
    /// The VIP.
    pub destination: IpAddr,
    /// The client's port; 0 for fragments, which have none.
    pub source_port: u16,
    /// The VIP's port; 0 for fragments.
    pub destination_port: u16,
    /// 6 or 17.
    pub protocol: u8,
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.protocol == TCP { "TCP" } else { "UDP" };
        let (from, to) = (self.source, self.destination);
        let [from, to] = [(from, self.source_port), (to, self.destination_port)].map(|(address, port)| {
            if address.is_ipv4() { format!("{address}:{port}") } else { format!("[{address}]:{port}") }
        });
        write!(f, "{protocol} {from} > {to}")
    }
}

/// An IP packet.
#[derive(Clone, Debug)]
pub struct Ip<'a> {
    /// The packet, as long as it says it is; what is behind it is left out.
    pub bytes: &'a [u8],
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// DSCP and ECN.
    pub tos: u8,
    /// IPv4: don't fragment.
    pub dont_fragment: bool,
    /// IPv4: identification.
    pub identification: u16,
    /// IPv6: flow label.
    pub label: u32,
    /// The protocol behind all extension headers.
    pub protocol: u8,
    /// Bytes before `payload`.
    pub header_len: usize,
    /// What that protocol brings.
    pub payload: &'a [u8],
    /// What it is.
    pub transport: Transport<'a>,
}

/// What an IP packet holds.
#[derive(Clone, Debug)]
pub enum Transport<'a> {
    /// A TCP packet.
    Tcp(Tcp<'a>),
    /// A UDP datagram.
    Udp {
        /// Source and destination port.
        ports: [u16; 2],
    },
    /// An ICMP or ICMPv6 message.
    Icmp {
        /// Type and code.
        kind: [u8; 2],
        /// The second word of the header.
        word: [u8; 4],
        /// Behind the header.
        payload: &'a [u8],
    },
    /// A piece of a larger packet.
    Fragment,
    /// Something else.
    Other,
}

/// A TCP packet's header.
#[derive(Clone, Debug)]
pub struct Tcp<'a> {
    /// Source and destination port.
    pub ports: [u16; 2],
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// SYN without ACK, FIN, RST.
    pub opens: bool,
    /// FIN or RST.
    pub ends: bool,
    /// RST.
    pub reset: bool,
    /// Bytes of data.
    pub data: usize,
    /// The options that steering depends on.
    pub mptcp: Mptcp,
    /// All options.
    pub options: &'a [u8],
}

impl<'a> Ip<'a> {
    /// The packet that begins these bytes, if it is whole and right.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let bytes = packet_bytes(bytes)?;
        let sliced = SlicedPacket::from_ip(bytes).ok()?;
        let net = sliced.net?;
        let payload = net.ip_payload_ref()?.clone();
        let transport = if payload.fragmented {
            Transport::Fragment
        } else {
            sliced.transport.map_or(Transport::Other, |transport| Transport::of(&transport))
        };
        let mut packet = Self {
            bytes,
            source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            tos: 0,
            dont_fragment: false,
            identification: 0,
            label: 0,
            protocol: payload.ip_number.0,
            header_len: bytes.len() - payload.payload.len(),
            payload: payload.payload,
            transport,
        };
        match net {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                packet.source = IpAddr::V4(header.source_addr());
                packet.destination = IpAddr::V4(header.destination_addr());
                packet.tos = header.dcp().value() << 2 | header.ecn().value();
                packet.dont_fragment = header.dont_fragment();
                packet.identification = header.identification();
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                packet.source = IpAddr::V6(header.source_addr());
                packet.destination = IpAddr::V6(header.destination_addr());
                packet.tos = header.traffic_class();
                packet.label = header.flow_label().value();
            }
            NetSlice::Arp(_) => return None,
        }
        Some(packet)
    }

    /// Whether it is IPv4.
    pub fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// Its 5-tuple. Fragments have no ports: theirs are 0.
    pub fn flow(&self) -> Option<FlowKey> {
        let ports = match &self.transport {
            Transport::Tcp(tcp) => tcp.ports,
            Transport::Udp { ports } => *ports,
            Transport::Fragment if self.protocol == UDP => [0; 2],
            _ => return None,
        };
        let [source_port, destination_port] = ports;
        let (source, destination, protocol) = (self.source, self.destination, self.protocol);
        Some(FlowKey { source, destination, source_port, destination_port, protocol })
    }
}

impl<'a> Transport<'a> {
    fn of(slice: &TransportSlice<'a>) -> Self {
        match slice {
            TransportSlice::Tcp(tcp) => Self::Tcp(Tcp::of(tcp)),
            TransportSlice::Udp(udp) => Self::Udp { ports: [udp.source_port(), udp.destination_port()] },
            TransportSlice::Icmpv4(icmp) => {
                let bytes = icmp.slice();
                let payload = bytes.get(8..).unwrap_or_default();
                Self::Icmp { kind: [icmp.type_u8(), icmp.code_u8()], word: icmp.bytes5to8(), payload }
            }
            TransportSlice::Icmpv6(icmp) => {
                let bytes = icmp.slice();
                let payload = bytes.get(8..).unwrap_or_default();
                Self::Icmp { kind: [icmp.type_u8(), icmp.code_u8()], word: icmp.bytes5to8(), payload }
            }
            TransportSlice::Igmp(_) => Self::Other,
        }
    }
}

impl<'a> Tcp<'a> {
    fn of(tcp: &TcpSlice<'a>) -> Self {
        let ends = tcp.fin() || tcp.rst();
        let opens = tcp.syn() && !tcp.ack() && !ends;
        let data = tcp.payload().len();
        let goes_on = tcp.ack() && !tcp.syn() && !tcp.rst();
        let bytes = tcp.slice();
        let options = bytes.get(20..bytes.len() - data).unwrap_or_default();
        Self {
            ports: [tcp.source_port(), tcp.destination_port()],
            sequence: tcp.sequence_number(),
            acknowledgement: tcp.acknowledgment_number(),
            opens,
            ends,
            reset: tcp.rst(),
            data,
            mptcp: mptcp::read(options, Carrier { opens, goes_on, payload: data > 0 }),
            options,
        }
    }
}
