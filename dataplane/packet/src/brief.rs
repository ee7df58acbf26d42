//! The headers of a TCP segment in the layout that nearly all have, read in one straight line: no VLAN tag, no IP
//! options or extension headers, no fragment, all of it in one buffer.
//!
//! Why it exists beside [`crate::parse`]: a packet of an established flow needs six fields of its headers, and the walk
//! that can read every packet costs more than all else that is done for it. For the same reason words stay as they lie in
//! the frame, read as little-endian numbers.
//!
//! **Invariant:** whatever is read here, [`crate::parse`] reads the same way; a frame it would refuse, or in which
//! anything is unusual, is left to it. A test holds one against the other.

use crate::flow::{Address, Family, Flow, Words};
use crate::parse::{Kind, Parsed};
use crate::tcp::{self, Flags, Tcp};
use crate::{ethernet, ipv4, ipv6};

/// Bytes of the shortest frame read here, IPv4: Ethernet, IPv4 and TCP headers.
pub const FRAME4: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN + tcp::HEADER_LEN;

/// The same, IPv6.
pub const FRAME6: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + tcp::HEADER_LEN;

/// Where the TCP header begins.
const TRANSPORT4: u16 = 34;

/// The same, IPv6.
const TRANSPORT6: u16 = 54;

const _: () = assert!(
    TRANSPORT4 as usize + tcp::HEADER_LEN == FRAME4 && TRANSPORT6 as usize + tcp::HEADER_LEN == FRAME6
);

/// A whole TCP segment over IPv4 that no router may fragment, as nearly all are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief4 {
    /// The eight bytes from the Ethernet type on: type, version and header length, type of service, total length,
    /// identification.
    pub head: u64,
    /// Both addresses, the source's in the lower half.
    pub addresses: u64,
    /// Both ports, the source's in the lower half.
    pub ports: u32,
    /// Bytes of the IP packet.
    pub len: u16,
    /// The TCP flags.
    pub flags: Flags,
}

/// A whole TCP segment over IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief6 {
    /// The first eight bytes of the IP header: version, traffic class, flow label, payload length, next header, hop
    /// limit.
    pub head: u64,
    /// The source address.
    pub source: u128,
    /// The destination address.
    pub destination: u128,
    /// Both ports, the source's in the lower half.
    pub ports: u32,
    /// Bytes of the IP packet, its header included.
    pub len: u16,
    /// The TCP flags.
    pub flags: Flags,
}

impl Brief4 {
    /// Reads a frame that is whole in `frame`.
    #[inline(always)]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let bytes: &[u8; FRAME4] = frame.first_chunk()?;
        let head = long(bytes, 12);
        // IPv4, a header of 20 bytes. Don't fragment, and no fragment; TCP.
        let usual = head & 0xff_ffff == 0x45_0008 && long(bytes, 20) & 0xff00_ff7f == 0x0600_0040;
        if !usual {
            return None;
        }
        let [_, _, _, _, high, low, ..] = head.to_le_bytes();
        let len = u16::from_be_bytes([high, low]);
        let (header_len, flags) = offset_and_flags(bytes[46], bytes[47]);
        // The TCP header is within the packet, the packet within the frame.
        if header_len < 20 || 20 + header_len > usize::from(len) || 14 + usize::from(len) > frame.len() {
            return None;
        }
        Some(Self { head, addresses: long(bytes, 26), ports: word(bytes, 34), len, flags })
    }

    /// What [`crate::parse`] gives for the frame this was read from.
    #[inline]
    pub(crate) fn parsed(&self, frame: &[u8]) -> Parsed {
        let [_, _, _, tos, ..] = self.head.to_le_bytes();
        let ttl = frame.get(22).copied().unwrap_or(0);
        Ip { flow: self.flow(), l4: TRANSPORT4, len: self.len, tos, ttl }.parsed(frame, self.flags)
    }

    /// The 5-tuple.
    #[inline]
    pub fn flow(&self) -> Flow {
        let [source, destination] = [self.addresses & 0xffff_ffff, self.addresses >> 32]
            .map(|address| Address::from_v4(low_half(address).to_le_bytes()));
        flow(source, destination, self.ports, Family::V4)
    }

    /// What [`crate::Flow::short_words`] gives for it.
    #[inline(always)]
    pub fn words(&self) -> Words {
        Words::v4(self.addresses, self.ports, tcp::PROTOCOL)
    }
}

impl Brief6 {
    /// Reads a frame that is whole in `frame`.
    #[inline(always)]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let bytes: &[u8; FRAME6] = frame.first_chunk()?;
        let head = long(bytes, 14);
        // IPv6, TCP behind its header.
        if word(bytes, 12) & 0xf0_ffff != 0x60_dd86 || head & 0xff_0000_0000_00f0 != 0x06_0000_0000_0060 {
            return None;
        }
        let [_, _, _, _, high, low, ..] = head.to_le_bytes();
        let payload_len = usize::from(u16::from_be_bytes([high, low]));
        let (header_len, flags) = offset_and_flags(bytes[66], bytes[67]);
        let is_whole = header_len >= 20
            && header_len <= payload_len
            && ipv6::HEADER_LEN + 14 + payload_len <= frame.len();
        if !is_whole {
            return None;
        }
        // What is longer with its header than 16 bits can say is left to the walk.
        let len = u16::try_from(ipv6::HEADER_LEN + payload_len).ok()?;
        let (source, destination) = (address(bytes, 22), address(bytes, 38));
        Some(Self { head, source, destination, ports: word(bytes, 54), len, flags })
    }

    /// What [`crate::parse`] gives for the frame this was read from.
    #[inline]
    pub(crate) fn parsed(&self, frame: &[u8]) -> Parsed {
        let [first, second, .., ttl] = self.head.to_le_bytes();
        let tos = first << 4 | second >> 4;
        Ip { flow: self.flow(), l4: TRANSPORT6, len: self.len, tos, ttl }.parsed(frame, self.flags)
    }

    /// The 5-tuple.
    #[inline]
    pub fn flow(&self) -> Flow {
        let [source, destination] =
            [self.source, self.destination].map(|address| Address(address.swap_bytes()));
        flow(source, destination, self.ports, Family::V6)
    }

    /// What [`crate::Flow::short_words`] gives for it.
    #[inline(always)]
    pub fn words(&self) -> Words {
        Words::v6(self.source, self.destination, self.ports, tcp::PROTOCOL)
    }
}

/// What the TCP header says of a frame that was read here, whose IP packet has `len` bytes: sequence number, flags,
/// options, whether data follows.
#[inline]
pub fn segment(frame: &[u8], family: Family, len: u16) -> Option<(u32, Flags, &[u8], bool)> {
    let l4 = usize::from(match family {
        Family::V4 => TRANSPORT4,
        Family::V6 => TRANSPORT6,
    });
    let (header, rest) = frame.get(l4..)?.split_first_chunk::<{ tcp::HEADER_LEN }>()?;
    let [_, _, _, _, a, b, c, d, _, _, _, _, offset, flags, ..] = *header;
    let header_len = usize::from(offset >> 4) * 4;
    let options = rest.get(..header_len.checked_sub(tcp::HEADER_LEN)?)?;
    let has_payload = ethernet::HEADER_LEN + usize::from(len) > l4 + header_len;
    Some((u32::from_be_bytes([a, b, c, d]), Flags(flags), options, has_payload))
}

/// A 5-tuple whose ports lie as in the header.
#[inline(always)]
fn flow(source: Address, destination: Address, ports: u32, family: Family) -> Flow {
    let [s0, s1, d0, d1] = ports.to_le_bytes();
    Flow {
        source,
        destination,
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
        protocol: tcp::PROTOCOL,
        family,
    }
}

/// What an IP header says, of either family, and the ports behind it.
struct Ip {
    flow: Flow,
    l4: u16,
    len: u16,
    tos: u8,
    ttl: u8,
}

impl Ip {
    /// With the TCP header behind it, which is known to be whole.
    #[inline(always)]
    fn parsed(&self, frame: &[u8], flags: Flags) -> Parsed {
        let l4 = usize::from(self.l4);
        let header: &[u8; tcp::HEADER_LEN] =
            frame.get(l4..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; 20]);
        let [_, _, _, _, a, b, c, d, e, f, g, h, offset, ..] = *header;
        let payload = self.l4 + u16::from(offset >> 4) * 4;
        Parsed {
            flow: self.flow,
            tcp: Tcp {
                seq: u32::from_be_bytes([a, b, c, d]),
                ack: u32::from_be_bytes([e, f, g, h]),
                flags,
                options: (self.l4 + 20, payload),
            },
            kind: Kind::Tcp,
            l3: 14,
            l4: self.l4,
            payload,
            end: self.len.saturating_add(14),
            tos: self.tos,
            ttl: self.ttl,
            dont_fragment: true,
        }
    }
}

/// Bytes of the TCP header, and its flags.
#[inline(always)]
fn offset_and_flags(offset: u8, flags: u8) -> (usize, Flags) {
    (usize::from(offset >> 4) * 4, Flags(flags))
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
const fn low_half(word: u64) -> u32 {
    word as u32
}

/// Four bytes at a constant place: the compiler sees that they are there.
#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |four| u32::from_le_bytes(*four))
}

/// The same, eight.
#[inline(always)]
fn long<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |eight| u64::from_le_bytes(*eight))
}

/// The same, sixteen.
#[inline(always)]
fn address<const N: usize>(bytes: &[u8; N], at: usize) -> u128 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |octets| u128::from_le_bytes(*octets))
}
