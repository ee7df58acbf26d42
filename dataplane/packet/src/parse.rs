//! One pass over a frame's headers: Ethernet with up to two VLAN tags, IPv4 with options (RFC 791), IPv6 with
//! extension headers (RFC 8200), TCP (RFC 9293) and UDP (RFC 768).
//!
//! **Invariants.** [`parse`] is total. It reads a header only when the buffer holds all of it, and nothing past
//! the end that the IP header declares, so Ethernet padding is never taken for payload. A fragment is named as
//! such before its ports are read: they may be missing, or a lie that another fragment overwrites. All fragments
//! of a UDP datagram, the first one too, have one flow, whose ports are zero, so that they stay together. An IPv6
//! fragment header that fragments nothing (RFC 6946) is passed over. The walk over IPv6 extension headers takes
//! at most [`EXTENSIONS_MAX`] steps.

use crate::brief::{Brief4, Brief6};
use crate::flow::{Address, Family, Flow};
use crate::tcp::{self, Flags, Tcp};
use crate::{arp, ethernet, icmp6, ipv4, ipv6, udp};

/// How many IPv6 extension headers are followed. Honest packets have one or two; a longer chain makes the
/// packet [`ParseError::BadIpv6`].
pub const EXTENSIONS_MAX: usize = 8;

/// Type, code and checksum, which every ICMP message begins with.
const ICMP_FIXED_LEN: usize = 4;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole TCP segment.
    Tcp,
    /// A whole UDP datagram.
    Udp,
    /// A fragment of a UDP datagram. Addresses and protocol in the flow are right, ports are zero, and what `l4`
    /// points at is a UDP header only in the first.
    UdpFragment {
        /// Whether it is the one at offset 0.
        first: bool,
    },
    /// A whole ICMP message over IPv4 (RFC 792). What it says: [`crate::icmp`].
    Icmp4 {
        /// The message's type.
        kind: u8,
        /// The type's code.
        code: u8,
    },
    /// A whole ICMPv6 message over IPv6 (RFC 4443).
    Icmp6 {
        /// The message's type.
        kind: u8,
        /// The type's code.
        code: u8,
    },
    /// ARP.
    Arp,
    /// IP with another protocol.
    OtherIp,
    /// None that can be worked with, and why.
    Error(ParseError),
}

/// Why a frame could not be parsed. Each is a drop reason of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseError {
    /// The frame ends before the header, or the IP packet, that it announces.
    Truncated,
    /// The Ethernet type is neither IPv4, IPv6 nor ARP, or stands behind more than two VLAN tags.
    OtherEthertype,
    /// The IPv4 header contradicts itself: version, header length or total length.
    BadIpv4,
    /// The IPv6 header or its chain of extension headers contradicts itself or is too long to follow.
    BadIpv6,
    /// The TCP data offset is below 5 or points past the packet.
    BadTcp,
    /// The UDP length is shorter than its header or longer than the packet.
    BadUdp,
    /// An ICMP or ICMPv6 message shorter than type, code and checksum.
    BadIcmp,
    /// A fragment of a TCP packet. Addresses and protocol in the flow are right, ports are zero.
    TcpFragment,
    /// A fragment of any packet but TCP and UDP. Addresses and protocol in the flow are right, ports are zero.
    OtherFragment,
}

/// What one pass over the headers found. Fields that the kind does not have are zero; offsets of headers not
/// reached equal the last one reached, so that `l3 <= l4 <= payload <= end` always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The 5-tuple.
    pub flow: Flow,
    /// The TCP header's fields.
    pub tcp: Tcp,
    /// What the frame is.
    pub kind: Kind,
    /// Where the IP or ARP header begins.
    pub l3: u16,
    /// Where the transport header begins.
    pub l4: u16,
    /// Where the TCP or UDP payload begins.
    pub payload: u16,
    /// Just past the IP packet (what follows is Ethernet padding), 65535 if that lies farther.
    pub end: u16,
    /// The IPv4 TOS byte or IPv6 traffic class: DSCP and ECN.
    pub tos: u8,
    /// IPv4 TTL or IPv6 hop limit.
    pub ttl: u8,
    /// IPv4's flag; always set for IPv6, which no router fragments.
    pub dont_fragment: bool,
}

impl Parsed {
    const EMPTY: Self = Self {
        flow: Flow {
            source: Address(0),
            destination: Address(0),
            source_port: 0,
            destination_port: 0,
            protocol: 0,
            family: Family::V4,
        },
        tcp: Tcp { seq: 0, ack: 0, flags: Flags(0), options: (0, 0) },
        kind: Kind::Error(ParseError::Truncated),
        l3: 0,
        l4: 0,
        payload: 0,
        end: 0,
        tos: 0,
        ttl: 0,
        dont_fragment: false,
    };

    /// How many payload bytes the TCP segment or UDP datagram carries.
    #[inline]
    pub const fn payload_len(&self) -> u16 {
        self.end.saturating_sub(self.payload)
    }

    /// How long the IP packet is, its header included.
    #[inline]
    pub const fn packet_len(&self) -> u16 {
        self.end.saturating_sub(self.l3)
    }

    /// The TCP options of the frame this was parsed from; empty for any other frame.
    #[inline]
    pub fn tcp_options<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let (start, end) = self.tcp.options;
        frame.get(usize::from(start)..usize::from(end)).unwrap_or(&[])
    }

    fn place(&mut self, l3: usize, l4: usize, payload: usize, end: usize) {
        self.l3 = offset(l3);
        self.l4 = offset(l4);
        self.payload = offset(payload);
        self.end = offset(end);
    }
}

/// Parses a frame. `frame` is the part of it in the buffer, `wire_len` how long it was on the wire; they differ
/// when the buffer is the first segment of a longer frame, and only headers need to be in the buffer.
#[inline]
pub fn parse(frame: &[u8], wire_len: usize) -> Parsed {
    if frame.len() == wire_len {
        if let Some(brief) = Brief4::read(frame) {
            return brief.parsed(frame);
        }
        if let Some(brief) = Brief6::read(frame) {
            return brief.parsed(frame);
        }
    }
    walk(frame, wire_len)
}

/// The same, header by header, whatever the frame is: what [`parse`] falls back to, and is tested against.
#[inline(never)]
pub fn walk(frame: &[u8], wire_len: usize) -> Parsed {
    let mut parsed = Parsed::EMPTY;
    let frame = frame.get(..wire_len).unwrap_or(frame);
    let input = Input { frame, wire_len };
    parsed.kind = match ethernet(input, &mut parsed) {
        Ok(kind) => kind,
        Err(error) => Kind::Error(error),
    };
    parsed
}

/// The bytes at hand, and how many there were on the wire.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) frame: &'a [u8],
    pub(crate) wire_len: usize,
}

impl<'a> Input<'a> {
    #[inline]
    pub(crate) fn at<const N: usize>(self, offset: usize) -> Result<&'a [u8; N], ParseError> {
        self.frame.get(offset..).and_then(<[u8]>::first_chunk).ok_or(ParseError::Truncated)
    }

    /// The buffer holds the frame at least as far as `end`.
    #[inline]
    fn holds(self, end: usize) -> Result<(), ParseError> {
        if end <= self.frame.len() { Ok(()) } else { Err(ParseError::Truncated) }
    }
}

/// A saturated offset can only be that of the packet's end: headers end well below 20 000.
#[inline]
fn offset(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

#[inline]
fn ethernet(input: Input<'_>, parsed: &mut Parsed) -> Result<Kind, ParseError> {
    let header: &[u8; ethernet::HEADER_LEN] = input.at(0)?;
    let mut ethertype = u16::from_be_bytes([header[12], header[13]]);
    let mut l3 = ethernet::HEADER_LEN;
    for _ in 0..ethernet::TAGS_MAX {
        if ethertype != ethernet::VLAN && ethertype != ethernet::QINQ {
            break;
        }
        let [_, _, high, low]: [u8; ethernet::TAG_LEN] = *input.at(l3)?;
        ethertype = u16::from_be_bytes([high, low]);
        l3 += ethernet::TAG_LEN;
    }
    parsed.place(l3, l3, l3, l3);
    match ethertype {
        ethernet::IPV4 => ipv4(input, l3, parsed),
        ethernet::IPV6 => ipv6(input, l3, parsed),
        ethernet::ARP => {
            let end = l3 + arp::PACKET_LEN;
            input.holds(end)?;
            parsed.place(l3, l3, l3, end);
            Ok(Kind::Arp)
        }
        _ => Err(ParseError::OtherEthertype),
    }
}

#[inline]
fn ipv4(input: Input<'_>, l3: usize, parsed: &mut Parsed) -> Result<Kind, ParseError> {
    let header: &[u8; ipv4::HEADER_LEN] = input.at(l3)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_len < ipv4::HEADER_LEN || total_len < header_len {
        return Err(ParseError::BadIpv4);
    }
    let (l4, end) = (l3 + header_len, l3 + total_len);
    if end > input.wire_len {
        return Err(ParseError::Truncated);
    }
    input.holds(l4)?;
    parsed.place(l3, l4, l4, end);

    let [.., a, b, c, d, e, f, g, h] = *header;
    let protocol = header[9];
    parsed.flow.source = Address::from_v4([a, b, c, d]);
    parsed.flow.destination = Address::from_v4([e, f, g, h]);
    parsed.flow.protocol = protocol;
    parsed.tos = header[1];
    parsed.ttl = header[8];
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    parsed.dont_fragment = fragment & ipv4::DONT_FRAGMENT != 0;
    if fragment & (ipv4::MORE_FRAGMENTS | ipv4::FRAGMENT_OFFSET) != 0 {
        return fragment_of(protocol, fragment & ipv4::FRAGMENT_OFFSET == 0);
    }
    match protocol {
        ipv4::ICMP => icmp(input, l4, end).map(|[kind, code]| Kind::Icmp4 { kind, code }),
        _ => transport(input, protocol, l4, end, parsed),
    }
}

#[inline]
fn ipv6(input: Input<'_>, l3: usize, parsed: &mut Parsed) -> Result<Kind, ParseError> {
    let header: &[u8; ipv6::HEADER_LEN] = input.at(l3)?;
    if header[0] >> 4 != 6 {
        return Err(ParseError::BadIpv6);
    }
    let l4 = l3 + ipv6::HEADER_LEN;
    let end = l4 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    if end > input.wire_len {
        return Err(ParseError::Truncated);
    }
    parsed.place(l3, l4, l4, end);

    let (addresses, _) = header[8..].as_chunks::<16>();
    if let [source, destination] = addresses {
        parsed.flow.source = Address::from_v6(*source);
        parsed.flow.destination = Address::from_v6(*destination);
    }
    parsed.flow.family = Family::V6;
    parsed.tos = (header[0] << 4) | (header[1] >> 4);
    parsed.ttl = header[7];
    parsed.dont_fragment = true;
    let (protocol, l4) = if ipv6::is_extension(header[6]) {
        let chain = extensions(input, header[6], l4, end)?;
        parsed.flow.protocol = chain.protocol;
        parsed.place(l3, chain.at, chain.at, end);
        if let Some(offset) = chain.fragment {
            return fragment_of(chain.protocol, offset == 0);
        }
        (chain.protocol, chain.at)
    } else {
        (header[6], l4)
    };
    parsed.place(l3, l4, l4, end);
    parsed.flow.protocol = protocol;
    match protocol {
        icmp6::PROTOCOL => icmp(input, l4, end).map(|[kind, code]| Kind::Icmp6 { kind, code }),
        _ => transport(input, protocol, l4, end, parsed),
    }
}

/// Where a chain of extension headers leads.
pub(crate) struct Chain {
    /// The protocol behind it. In a fragment: what the fragment header names, which may be an extension header.
    pub(crate) protocol: u8,
    /// Where that protocol's header, or the fragment's part of the packet, begins.
    pub(crate) at: usize,
    /// The fragment's offset in bytes, where a fragment header (but an atomic one) ended the walk.
    pub(crate) fragment: Option<u16>,
}

/// Follows the chain of extension headers to the protocol and where its header begins, or to a fragment header:
/// what is behind that one is not in every fragment.
///
/// Kept out of line: hardly any packet has extension headers.
#[inline(never)]
pub(crate) fn extensions(input: Input<'_>, first: u8, start: usize, end: usize) -> Result<Chain, ParseError> {
    let (mut next, mut at) = (first, start);
    for _ in 0..EXTENSIONS_MAX {
        if !ipv6::is_extension(next) {
            break;
        }
        // RFC 8200 section 4.1: only the first may be the one for every hop.
        if next == ipv6::HOP_BY_HOP && at != start {
            return Err(ParseError::BadIpv6);
        }
        // The shortest of them takes 8 bytes.
        if at + 8 > end {
            return Err(ParseError::BadIpv6);
        }
        let header: &[u8; 8] = input.at(at)?;
        let len = match next {
            ipv6::FRAGMENT => {
                let [protocol, _, high, low, ..] = *header;
                let field = u16::from_be_bytes([high, low]);
                if field & ipv6::FRAGMENTED != 0 {
                    // Every fragment of a packet names this protocol, so all of them get one answer.
                    let fragment = Some(field & ipv6::FRAGMENT_OFFSET);
                    return Ok(Chain { protocol, at: at + 8, fragment });
                }
                8
            }
            // RFC 4302 section 2: its fixed fields alone take 12 bytes.
            ipv6::AUTHENTICATION if header[1] == 0 => return Err(ParseError::BadIpv6),
            ipv6::AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        next = header[0];
        at += len;
        if at > end {
            return Err(ParseError::BadIpv6);
        }
        input.holds(at)?;
    }
    if ipv6::is_extension(next) {
        return Err(ParseError::BadIpv6);
    }
    Ok(Chain { protocol: next, at, fragment: None })
}

#[inline]
fn transport(
    input: Input<'_>,
    protocol: u8,
    l4: usize,
    end: usize,
    parsed: &mut Parsed,
) -> Result<Kind, ParseError> {
    match protocol {
        tcp::PROTOCOL => segment(input, l4, end, parsed),
        udp::PROTOCOL => datagram(input, l4, end, parsed),
        _ => Ok(Kind::OtherIp),
    }
}

#[inline]
fn segment(input: Input<'_>, l4: usize, end: usize, parsed: &mut Parsed) -> Result<Kind, ParseError> {
    if l4 + tcp::HEADER_LEN > end {
        return Err(ParseError::BadTcp);
    }
    let header: &[u8; tcp::HEADER_LEN] = input.at(l4)?;
    let header_len = usize::from(header[12] >> 4) * 4;
    let payload = l4 + header_len;
    if header_len < tcp::HEADER_LEN || payload > end {
        return Err(ParseError::BadTcp);
    }
    input.holds(payload)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, _, flags, ..] = *header;
    parsed.flow.source_port = u16::from_be_bytes([a, b]);
    parsed.flow.destination_port = u16::from_be_bytes([c, d]);
    parsed.tcp = Tcp {
        seq: u32::from_be_bytes([e, f, g, h]),
        ack: u32::from_be_bytes([i, j, k, l]),
        flags: Flags(flags),
        options: (offset(l4 + tcp::HEADER_LEN), offset(payload)),
    };
    parsed.payload = offset(payload);
    Ok(Kind::Tcp)
}

#[inline]
fn datagram(input: Input<'_>, l4: usize, end: usize, parsed: &mut Parsed) -> Result<Kind, ParseError> {
    let payload = l4 + udp::HEADER_LEN;
    if payload > end {
        return Err(ParseError::BadUdp);
    }
    let [a, b, c, d, high, low, ..]: [u8; udp::HEADER_LEN] = *input.at(l4)?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len < udp::HEADER_LEN || l4 + len > end {
        return Err(ParseError::BadUdp);
    }
    parsed.flow.source_port = u16::from_be_bytes([a, b]);
    parsed.flow.destination_port = u16::from_be_bytes([c, d]);
    parsed.payload = offset(payload);
    Ok(Kind::Udp)
}

/// An ICMP message's type and code.
fn icmp(input: Input<'_>, l4: usize, end: usize) -> Result<[u8; 2], ParseError> {
    if l4 + ICMP_FIXED_LEN > end {
        return Err(ParseError::BadIcmp);
    }
    let [kind, code, ..]: [u8; ICMP_FIXED_LEN] = *input.at(l4)?;
    Ok([kind, code])
}

const fn fragment_of(protocol: u8, first: bool) -> Result<Kind, ParseError> {
    match protocol {
        tcp::PROTOCOL => Err(ParseError::TcpFragment),
        udp::PROTOCOL => Ok(Kind::UdpFragment { first }),
        _ => Err(ParseError::OtherFragment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{PacketBuilder, packet};
    use std::vec::Vec;

    const A6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const B6: [u8; 16] = [0xfd, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

    fn whole(frame: &[u8]) -> Parsed {
        parse(frame, frame.len())
    }

    fn kind_of(packet: &PacketBuilder) -> Kind {
        whole(&packet.build()).kind
    }

    fn v4() -> PacketBuilder {
        packet().ipv4([192, 0, 2, 7], [10, 9, 9, 9])
    }

    fn v6() -> PacketBuilder {
        packet().ipv6(A6, B6)
    }

    fn patched(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
        frame[at] = byte;
        frame
    }

    #[test]
    fn an_ipv4_segment_gives_all_its_fields() {
        let frame = v4().tos(0xb9).ttl(17).tcp(40_000, 8000).data(7, 9).payload(b"hello").build();
        let parsed = whole(&frame);
        assert_eq!(parsed.kind, Kind::Tcp);
        assert_eq!((parsed.l3, parsed.l4, parsed.payload, parsed.end), (14, 34, 66, 71));
        assert_eq!(parsed.payload_len(), 5);
        assert_eq!(parsed.packet_len(), 57);
        assert_eq!(
            parsed.flow,
            Flow {
                source: Address::from_v4([192, 0, 2, 7]),
                destination: Address::from_v4([10, 9, 9, 9]),
                source_port: 40_000,
                destination_port: 8000,
                protocol: 6,
                family: Family::V4,
            }
        );
        assert_eq!((parsed.tcp.seq, parsed.tcp.ack, parsed.tcp.flags), (7, 9, Flags::ACK));
        assert_eq!(parsed.tcp.options, (54, 66));
        assert_eq!(parsed.tcp_options(&frame), &frame[54..66]);
        assert_eq!((parsed.tos, parsed.ttl, parsed.dont_fragment), (0xb9, 17, true));
    }

    #[test]
    fn an_ipv6_segment_gives_all_its_fields() {
        let frame = v6().tos(0xb9).ttl(17).tcp(40_000, 8000).syn(7).build();
        let parsed = whole(&frame);
        assert_eq!(parsed.kind, Kind::Tcp);
        assert_eq!((parsed.l3, parsed.l4, parsed.payload, parsed.end), (14, 54, 94, 94));
        assert_eq!(parsed.flow.source, Address::from_v6(A6));
        assert_eq!(parsed.flow.destination, Address::from_v6(B6));
        assert_eq!((parsed.flow.family, parsed.flow.protocol), (Family::V6, 6));
        assert_eq!((parsed.tos, parsed.ttl, parsed.dont_fragment), (0xb9, 17, true));
        assert!(parsed.tcp.flags.opens());
    }

    #[test]
    fn up_to_two_vlan_tags_are_passed_over_and_three_are_not() {
        for (frame, l3) in [
            (v4().vlan(7).udp(1, 2), 18),
            (v4().qinq(7, 8).udp(1, 2), 22),
            (v4().vlan(7).vlan(8).udp(1, 2), 22),
            (v6().qinq(7, 8).udp(1, 2), 22),
        ] {
            let parsed = whole(&frame.build());
            assert_eq!((parsed.kind, parsed.l3), (Kind::Udp, l3));
        }
        let three = v4().vlan(1).vlan(2).vlan(3).udp(1, 2);
        assert_eq!(kind_of(&three), Kind::Error(ParseError::OtherEthertype));
    }

    #[test]
    fn ipv4_options_move_the_transport_header() {
        let parsed = whole(&v4().ipv4_options(&[7, 7, 4, 0, 0, 0, 0]).udp(1, 2).payload(&[1]).build());
        assert_eq!((parsed.kind, parsed.l4, parsed.payload, parsed.end), (Kind::Udp, 42, 50, 51));
        let most = whole(&v4().ipv4_options(&[1; 40]).tcp(1, 2).build());
        assert_eq!((most.kind, most.l4), (Kind::Tcp, 74));
    }

    #[test]
    fn ipv6_extension_headers_are_followed_to_the_transport_header() {
        let parsed = whole(
            &v6()
                .extension(ipv6::HOP_BY_HOP, &[5, 2, 0, 0])
                .extension(ipv6::DESTINATION_OPTIONS, &[1; 14])
                .extension(ipv6::ROUTING, &[0; 6])
                .extension(ipv6::AUTHENTICATION, &[0; 14])
                .extension(ipv6::MOBILITY, &[0; 6])
                .fragment(0, false)
                .tcp(1, 2)
                .build(),
        );
        assert_eq!((parsed.kind, parsed.l4), (Kind::Tcp, 14 + 40 + 8 + 16 + 8 + 16 + 8 + 8));
    }

    #[test]
    fn eight_extension_headers_are_followed_and_a_ninth_is_not() {
        let mut packet = v6().udp(1, 2);
        for _ in 0..EXTENSIONS_MAX {
            packet = packet.extension(ipv6::DESTINATION_OPTIONS, &[]);
        }
        assert_eq!(kind_of(&packet), Kind::Udp);
        packet = packet.extension(ipv6::DESTINATION_OPTIONS, &[]);
        assert_eq!(kind_of(&packet), Kind::Error(ParseError::BadIpv6));
    }

    #[test]
    fn an_extension_header_out_of_place_or_past_the_packet_is_bad() {
        let late = v6().extension(ipv6::DESTINATION_OPTIONS, &[]).extension(ipv6::HOP_BY_HOP, &[]).udp(1, 2);
        assert_eq!(kind_of(&late), Kind::Error(ParseError::BadIpv6));
        let long = patched(v6().extension(ipv6::ROUTING, &[]).udp(1, 2).build(), 55, 200);
        assert_eq!(whole(&long).kind, Kind::Error(ParseError::BadIpv6));
        let none = v6().protocol(ipv6::ROUTING).build();
        assert_eq!(whole(&none).kind, Kind::Error(ParseError::BadIpv6));
        let short = v6().extension(ipv6::AUTHENTICATION, &[]).udp(1, 2).build();
        assert_eq!(short[55], 0);
        assert_eq!(whole(&short).kind, Kind::Error(ParseError::BadIpv6));
    }

    #[test]
    fn every_fragment_is_named_by_its_protocol_and_keeps_its_ports_to_itself() {
        for (offset, more) in [(0, true), (1, true), (185, false)] {
            for packet in [v4(), v6()] {
                let packet = packet.fragment(offset, more);
                let first = offset == 0;
                for (packet, kind) in [
                    (packet.clone().tcp(1, 2), Kind::Error(ParseError::TcpFragment)),
                    (packet.clone().udp(1, 2), Kind::UdpFragment { first }),
                    (packet.clone().icmp(8, 0), Kind::Error(ParseError::OtherFragment)),
                ] {
                    let parsed = whole(&packet.build());
                    assert_eq!(parsed.kind, kind);
                    assert_eq!((parsed.flow.source_port, parsed.flow.destination_port), (0, 0));
                    assert_ne!(parsed.flow.protocol, 0);
                    assert_ne!(parsed.flow.source, Address(0));
                }
            }
        }
    }

    #[test]
    fn a_fragment_too_short_for_a_transport_header_is_still_a_fragment() {
        assert_eq!(
            kind_of(&v4().protocol(6).fragment(0, true).payload(&[0; 8])),
            Kind::Error(ParseError::TcpFragment)
        );
        assert_eq!(
            kind_of(&v6().protocol(6).fragment(100, false).payload(&[0; 1])),
            Kind::Error(ParseError::TcpFragment)
        );
    }

    #[test]
    fn an_atomic_fragment_is_a_whole_packet() {
        let parsed = whole(&v6().fragment(0, false).tcp(1, 2).build());
        assert_eq!((parsed.kind, parsed.l4), (Kind::Tcp, 62));
    }

    #[test]
    fn other_kinds_are_told_apart() {
        for (packet, kind) in [
            (v4().icmp(8, 3), Kind::Icmp4 { kind: 8, code: 3 }),
            (v6().icmp(128, 9), Kind::Icmp6 { kind: 128, code: 9 }),
            (v4().protocol(58), Kind::OtherIp),
            (v6().protocol(1), Kind::OtherIp),
            (v4().protocol(47), Kind::OtherIp),
            (v6().protocol(ipv6::NO_NEXT_HEADER), Kind::OtherIp),
            (v6().protocol(50), Kind::OtherIp),
            (packet().arp_request([10, 0, 0, 1], [10, 0, 0, 2]), Kind::Arp),
            (packet().ethertype(0x88cc), Kind::Error(ParseError::OtherEthertype)),
            (packet().ethertype(46), Kind::Error(ParseError::OtherEthertype)),
        ] {
            assert_eq!(kind_of(&packet), kind);
        }
    }

    #[test]
    fn padding_behind_the_packet_is_not_payload() {
        let frame = v4().tcp(1, 2).data(1, 1).trailer(30).build();
        let parsed = whole(&frame);
        assert_eq!(parsed.payload_len(), 0);
        assert_eq!(usize::from(parsed.end) + 30, frame.len());
    }

    #[test]
    fn a_frame_cut_short_anywhere_is_truncated() {
        for packet in
            [v4().tcp(1, 2).syn(1), v6().extension(60, &[]).tcp(1, 2).syn(1), v4().qinq(1, 2).udp(1, 2)]
        {
            let frame = packet.payload(&[0; 9]).build();
            for len in 0..frame.len() {
                assert_eq!(whole(&frame[..len]).kind, Kind::Error(ParseError::Truncated), "{len}");
            }
        }
        let arp = packet().arp_request([10, 0, 0, 1], [10, 0, 0, 2]).build();
        assert_eq!(whole(&arp[..41]).kind, Kind::Error(ParseError::Truncated));
    }

    #[test]
    fn headers_in_the_buffer_are_enough_when_the_frame_goes_on() {
        for packet in
            [v4().tcp(1, 2).data(1, 1), v6().extension(60, &[]).tcp(1, 2).data(1, 1), v4().udp(1, 2)]
        {
            let frame = packet.payload(&[7; 500]).build();
            let all = whole(&frame);
            let headers = usize::from(all.payload);
            assert_eq!(parse(&frame[..headers], frame.len()), all);
            let short = parse(&frame[..headers - 1], frame.len());
            assert_eq!(short.kind, Kind::Error(ParseError::Truncated));
        }
    }

    #[test]
    fn a_buffer_longer_than_the_wire_is_cut_to_it() {
        let frame = v4().udp(1, 2).payload(&[7; 50]).build();
        assert_eq!(parse(&frame, 60).kind, Kind::Error(ParseError::Truncated));
    }

    #[test]
    fn a_packet_past_65535_has_its_end_there() {
        let mut frame = v4().tcp(1, 2).data(1, 1).build();
        frame[16..18].copy_from_slice(&u16::MAX.to_be_bytes());
        let parsed = parse(&frame, 65_549);
        assert_eq!((parsed.kind, parsed.end), (Kind::Tcp, u16::MAX));
    }

    #[test]
    fn an_ip_header_that_contradicts_itself_is_bad() {
        let v4 = v4().tcp(1, 2).build();
        // Version 5, header of 4 words, total length 19.
        for (at, byte) in [(14, 0x55), (14, 0x44), (17, 19)] {
            assert_eq!(whole(&patched(v4.clone(), at, byte)).kind, Kind::Error(ParseError::BadIpv4));
        }
        let v6 = v6().tcp(1, 2).build();
        assert_eq!(whole(&patched(v6, 14, 0x45)).kind, Kind::Error(ParseError::BadIpv6));
    }

    #[test]
    fn a_tcp_header_that_does_not_fit_the_packet_is_bad() {
        let frame = v4().tcp(1, 2).payload(&[0; 3]).build();
        // Data offset 4, then 6 with 3 bytes behind the header.
        for offset in [0x40, 0x60, 0xf0] {
            assert_eq!(whole(&patched(frame.clone(), 46, offset)).kind, Kind::Error(ParseError::BadTcp));
        }
        assert_eq!(kind_of(&v6().protocol(6).payload(&[0; 19])), Kind::Error(ParseError::BadTcp));
    }

    #[test]
    fn an_icmp_message_has_type_code_and_checksum() {
        for (packet, protocol) in [(v4(), 1), (v6(), 58)] {
            let of = |len| whole(&packet.clone().protocol(protocol).payload(&[9; 4][..len]).build());
            for len in 0..4 {
                assert_eq!(of(len).kind, Kind::Error(ParseError::BadIcmp));
            }
            let kind = match protocol {
                1 => Kind::Icmp4 { kind: 9, code: 9 },
                _ => Kind::Icmp6 { kind: 9, code: 9 },
            };
            assert_eq!(of(4).kind, kind);
        }
    }

    #[test]
    fn a_udp_length_that_does_not_fit_the_packet_is_bad() {
        let frame = v6().udp(1, 2).payload(&[0; 3]).build();
        for len in [0, 7, 12] {
            assert_eq!(whole(&patched(frame.clone(), 59, len)).kind, Kind::Error(ParseError::BadUdp));
        }
        assert_eq!(whole(&patched(frame.clone(), 59, 8)).kind, Kind::Udp);
        assert_eq!(kind_of(&v4().protocol(17).payload(&[0; 7])), Kind::Error(ParseError::BadUdp));
    }
}
