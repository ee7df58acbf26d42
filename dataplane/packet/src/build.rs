//! Packets for tests and generators, as Linux would send them: its option order, its padding, right lengths and
//! checksums. Behind the `build` feature, because it allocates.
//!
//! Each MPTCP option is written from the type the parser gives back, so a written packet parsed again must be
//! equal to what it was made of. What must be wrong on purpose is changed in the bytes afterwards, or given with
//! [`PacketBuilder::option`].
//!
//! ```
//! use packet::build::packet;
//! use packet::{Kind, Token, parse};
//!
//! let frame = packet()
//!     .ipv4([192, 0, 2, 7], [10, 9, 9, 9])
//!     .tcp(40_000, 8000)
//!     .syn(1000)
//!     .mp_join_syn(Token(0x913e_6c21), 0x0e66_42a6, 1)
//!     .build();
//! assert_eq!(parse(&frame, frame.len()).kind, Kind::Tcp);
//! ```

mod option;
mod write;

use alloc::vec::Vec;

use crate::arp::{self, Arp};
use crate::flow::{Address, Family, Flow};
use crate::icmp6;
use crate::mptcp::KIND;
use crate::tcp::{self, Flags};
use crate::{ethernet, icmp, ipv6, udp};

pub use option::dss_checksum;

/// The source MAC address of a packet that does not name one.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// The destination MAC address of a packet that does not name one.
pub const PORT_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];

const NO_OPERATION: u8 = 1;

/// A packet to be filled in. Until a network layer is named it is IPv4 from 192.0.2.1 to 192.0.2.2.
pub fn packet() -> PacketBuilder {
    PacketBuilder {
        source_mac: CLIENT_MAC,
        destination_mac: PORT_MAC,
        tags: Vec::new(),
        network: Network::Ip {
            source: Address::from_v4([192, 0, 2, 1]),
            destination: Address::from_v4([192, 0, 2, 2]),
            family: Family::V4,
        },
        tos: 0,
        ttl: 64,
        dont_fragment: true,
        identification: 0,
        flow_label: 0,
        fragment: None,
        ipv4_options: Vec::new(),
        extensions: Vec::new(),
        transport: Transport::Raw(ipv6::NO_NEXT_HEADER),
        ports: (0, 0),
        seq: 0,
        ack: 0,
        flags: Flags::default(),
        timestamps: None,
        options: Vec::new(),
        payload: Vec::new(),
        trailer: 0,
    }
}

/// A packet being made. Each method fills in one thing and hands the packet on.
#[derive(Clone, Debug)]
#[must_use]
pub struct PacketBuilder {
    source_mac: [u8; 6],
    destination_mac: [u8; 6],
    tags: Vec<(u16, u16)>,
    network: Network,
    tos: u8,
    ttl: u8,
    dont_fragment: bool,
    identification: u16,
    flow_label: u32,
    fragment: Option<(u16, bool)>,
    ipv4_options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    transport: Transport,
    ports: (u16, u16),
    seq: u32,
    ack: u32,
    flags: Flags,
    timestamps: Option<(u32, u32)>,
    options: Vec<u8>,
    payload: Vec<u8>,
    trailer: usize,
}

#[derive(Clone, Copy, Debug)]
enum Network {
    Ip { source: Address, destination: Address, family: Family },
    Arp(Arp),
    Raw(u16),
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    Tcp,
    Udp,
    Icmp { kind: u8, code: u8 },
    Raw(u8),
}

/// Ethernet and IP.
impl PacketBuilder {
    /// The MAC addresses.
    pub fn ethernet(mut self, source: [u8; 6], destination: [u8; 6]) -> Self {
        self.source_mac = source;
        self.destination_mac = destination;
        self
    }

    /// One customer VLAN tag more.
    pub fn vlan(mut self, id: u16) -> Self {
        self.tags.push((ethernet::VLAN, id));
        self
    }

    /// A service VLAN tag and a customer VLAN tag.
    pub fn qinq(mut self, service: u16, customer: u16) -> Self {
        self.tags.push((ethernet::QINQ, service));
        self.vlan(customer)
    }

    /// Nothing but a payload behind this Ethernet type.
    pub fn ethertype(mut self, ethertype: u16) -> Self {
        self.network = Network::Raw(ethertype);
        self
    }

    /// Zero bytes behind the packet, as switches and drivers pad it.
    pub fn trailer(mut self, len: usize) -> Self {
        self.trailer = len;
        self
    }

    /// IPv4 from one address to another.
    pub fn ipv4(self, source: [u8; 4], destination: [u8; 4]) -> Self {
        self.ip(Address::from_v4(source), Address::from_v4(destination), Family::V4)
    }

    /// IPv6 from one address to another.
    pub fn ipv6(self, source: [u8; 16], destination: [u8; 16]) -> Self {
        self.ip(Address::from_v6(source), Address::from_v6(destination), Family::V6)
    }

    /// IP of either family.
    pub fn ip(mut self, source: Address, destination: Address, family: Family) -> Self {
        self.network = Network::Ip { source, destination, family };
        self
    }

    /// Addresses, ports and TCP or UDP, all from a flow.
    pub fn flow(self, flow: &Flow) -> Self {
        let packet = self.ip(flow.source, flow.destination, flow.family);
        match flow.protocol {
            tcp::PROTOCOL => packet.tcp(flow.source_port, flow.destination_port),
            udp::PROTOCOL => packet.udp(flow.source_port, flow.destination_port),
            other => packet.protocol(other),
        }
    }

    /// The TOS byte or traffic class.
    pub fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    /// The TTL or hop limit.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// IPv4's flag; set unless said otherwise.
    pub fn dont_fragment(mut self, dont_fragment: bool) -> Self {
        self.dont_fragment = dont_fragment;
        self
    }

    /// The identification of an IPv4 packet or an IPv6 fragment.
    pub fn identification(mut self, identification: u16) -> Self {
        self.identification = identification;
        self
    }

    /// IPv6's flow label.
    pub fn flow_label(mut self, label: u32) -> Self {
        self.flow_label = label;
        self
    }

    /// A fragment: its offset in units of 8 bytes, and whether more follow. In IPv6 it gets a fragment header, an
    /// atomic one for `(0, false)`. What follows the IP header is the whole transport packet all the same.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = Some((offset, more));
        self.dont_fragment = false;
        self
    }

    /// IPv4 options, padded with end-of-list to a multiple of 4.
    pub fn ipv4_options(mut self, options: &[u8]) -> Self {
        self.ipv4_options = options.to_vec();
        self.ipv4_options.resize(options.len().next_multiple_of(4), 0);
        self
    }

    /// One IPv6 extension header more: what follows its first two bytes, padded with zeros to fill it.
    pub fn extension(mut self, kind: u8, body: &[u8]) -> Self {
        let mut body = body.to_vec();
        body.resize((body.len() + 2).next_multiple_of(8) - 2, 0);
        self.extensions.push((kind, body));
        self
    }
}

/// What IP carries, and what else a frame may be.
impl PacketBuilder {
    /// TCP. Without flags yet: see [`Self::syn`], [`Self::data`], [`Self::flags`].
    pub fn tcp(mut self, source: u16, destination: u16) -> Self {
        self.transport = Transport::Tcp;
        self.ports = (source, destination);
        self
    }

    /// UDP.
    pub fn udp(mut self, source: u16, destination: u16) -> Self {
        self.transport = Transport::Udp;
        self.ports = (source, destination);
        self
    }

    /// ICMP of the packet's family; the payload follows its first 4 bytes.
    pub fn icmp(mut self, kind: u8, code: u8) -> Self {
        self.transport = Transport::Icmp { kind, code };
        self
    }

    /// An ICMP error of the packet's family: type, code, the 4 bytes behind the checksum (an MTU, say), and what
    /// it quotes, as [`Self::build_ip`] makes it.
    pub fn icmp_error(self, kind: u8, code: u8, rest: u32, quoted: &[u8]) -> Self {
        self.icmp(kind, code).payload(&[&rest.to_be_bytes(), quoted].concat())
    }

    /// An echo request of the packet's family.
    pub fn echo_request(self, identifier: u16, sequence: u16, data: &[u8]) -> Self {
        let kind = match self.network {
            Network::Ip { family: Family::V6, .. } => icmp::V6_ECHO_REQUEST,
            _ => icmp::ECHO_REQUEST,
        };
        self.icmp(kind, 0).payload(&[&identifier.to_be_bytes(), &sequence.to_be_bytes(), data].concat())
    }

    /// Another protocol, with nothing but the payload.
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.transport = Transport::Raw(protocol);
        self
    }

    /// What the transport header is followed by.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// An ARP request, broadcast by the source MAC address: who has `target`? Tell `sender`.
    pub fn arp_request(mut self, sender: [u8; 4], target: [u8; 4]) -> Self {
        self.destination_mac = ethernet::BROADCAST;
        let sender_mac = self.source_mac;
        let operation = arp::REQUEST;
        self.network = Network::Arp(Arp { operation, sender_mac, sender, target_mac: [0; 6], target });
        self
    }

    /// Any ARP packet.
    pub fn arp(mut self, arp: Arp) -> Self {
        self.network = Network::Arp(arp);
        self
    }

    /// A neighbour solicitation, multicast to the target's group. From the unspecified address (a search for
    /// duplicates) it carries no source link-layer option, else the source MAC address.
    pub fn neighbour_solicitation(mut self, sender: [u8; 16], target: [u8; 16]) -> Self {
        let [.., a, b, c] = target;
        self.destination_mac = [0x33, 0x33, 0xff, a, b, c];
        let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c];
        self.payload = [0; 4].to_vec();
        self.payload.extend(target);
        if sender != [0; 16] {
            self.payload.extend([icmp6::SOURCE_LINK_LAYER, 1]);
            self.payload.extend(self.source_mac);
        }
        self.ipv6(sender, group).ttl(icmp6::HOP_LIMIT).icmp(icmp6::NEIGHBOUR_SOLICITATION, 0)
    }
}

/// The TCP header.
impl PacketBuilder {
    /// The flags.
    pub fn flags(mut self, flags: Flags) -> Self {
        self.flags = flags;
        self
    }

    /// The sequence number.
    pub fn seq(mut self, seq: u32) -> Self {
        self.seq = seq;
        self
    }

    /// The acknowledgment number.
    pub fn ack(mut self, ack: u32) -> Self {
        self.ack = ack;
        self
    }

    /// A timestamps option with its value and echo; Linux puts it before MPTCP options.
    pub fn timestamps(mut self, value: u32, echo: u32) -> Self {
        self.timestamps = Some((value, echo));
        self
    }

    /// A client's SYN with the options Linux sends: MSS, SACK permitted, timestamps, window scale.
    pub fn syn(self, seq: u32) -> Self {
        self.flags(Flags::SYN).seq(seq).timestamps(1, 0)
    }

    /// A SYN/ACK with the same options.
    pub fn syn_ack(self, seq: u32, ack: u32) -> Self {
        self.flags(Flags::SYN.with(Flags::ACK)).seq(seq).ack(ack).timestamps(1, 1)
    }

    /// A segment of an established connection with timestamps: a pure ACK, or data once it has a payload.
    pub fn data(self, seq: u32, ack: u32) -> Self {
        self.flags(Flags::ACK).seq(seq).ack(ack).timestamps(2, 1)
    }

    /// A FIN with timestamps.
    pub fn fin(self, seq: u32, ack: u32) -> Self {
        self.data(seq, ack).flags(Flags::FIN.with(Flags::ACK))
    }

    /// A RST that acknowledges, without timestamps.
    pub fn rst(mut self, seq: u32, ack: u32) -> Self {
        self.timestamps = None;
        self.flags(Flags::RST.with(Flags::ACK)).seq(seq).ack(ack)
    }

    /// Any option, as bytes; not checked.
    pub fn option(mut self, bytes: &[u8]) -> Self {
        self.options.extend_from_slice(bytes);
        self
    }

    fn mptcp(mut self, subtype: u8, nibble: u8, body: &[&[u8]]) -> Self {
        let len = 3 + body.iter().map(|part| part.len()).sum::<usize>();
        assert!(len <= tcp::OPTIONS_MAX, "an MPTCP option of {len} bytes");
        self.options.extend([KIND, u8::try_from(len).unwrap_or(u8::MAX), (subtype << 4) | nibble]);
        for part in body {
            self.options.extend_from_slice(part);
        }
        self
    }
}
