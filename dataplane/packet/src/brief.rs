//! The headers of a TCP segment in the layout that nearly all have, read in one straight line: no VLAN tag, no IP
//! options or extension headers, no fragment, all of it in one buffer.
//!
//! Why it exists beside [`crate::parse`]: a packet of an established flow needs six fields of its headers, and the walk
//! that can read every packet costs more than all else that is done for it.
//!
//! **Invariant:** whatever is read here, [`crate::parse`] reads the same way; a frame it would refuse, or in which
//! anything is unusual, is left to it. A test holds one against the other.

use crate::flow::Words;
use crate::tcp::{self, Flags};
use crate::{ethernet, ipv4, ipv6};

/// Bytes of the shortest frame read here, IPv4: Ethernet, IPv4 and TCP headers.
pub const FRAME4: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN + tcp::HEADER_LEN;

/// The same, IPv6.
pub const FRAME6: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + tcp::HEADER_LEN;

/// A whole TCP segment over IPv4 that no router may fragment, as nearly all are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief4 {
    /// The source address, its first octet the most significant.
    pub source: u32,
    /// The destination address.
    pub destination: u32,
    /// The source port and, below it, the destination port.
    pub ports: u32,
    /// Bytes of the IP packet.
    pub len: u16,
    /// The TCP flags.
    pub flags: Flags,
    own: u32,
}

/// A whole TCP segment over IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief6 {
    /// The source address.
    pub source: u128,
    /// The destination address.
    pub destination: u128,
    /// The source port and, below it, the destination port.
    pub ports: u32,
    /// Bytes of the IP packet, its header included.
    pub len: u16,
    /// The TCP flags.
    pub flags: Flags,
    own: u32,
}

impl Brief4 {
    /// Reads a frame that is whole in `frame`.
    #[inline(always)]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let bytes: &[u8; FRAME4] = frame.first_chunk()?;
        // Ethernet type, version 4, a header of 20 bytes, any type of service.
        let first = word(bytes, 12);
        // Don't fragment, and no fragment; any TTL; TCP.
        let third = word(bytes, 20);
        if first >> 8 != 0x0008_0045 || third & 0x7fff_00ff != 0x4000_0006 {
            return None;
        }
        let second = word(bytes, 16);
        let [len, offset] = [second >> 16, word(bytes, 46)];
        let header_len = (offset >> 28) * 4;
        // The TCP header is within the packet, the packet within the frame.
        if header_len < 20 || 20 + header_len > len || 14 + len as usize > frame.len() {
            return None;
        }
        Some(Self {
            source: word(bytes, 26),
            destination: word(bytes, 30),
            ports: word(bytes, 34),
            len: low(len),
            flags: Flags(byte(offset >> 16)),
            own: (first & 0xff) << 16 | second & 0xffff,
        })
    }

    /// What [`crate::Flow::short_words`] gives for it.
    #[inline]
    pub fn words(&self) -> Words {
        Words::v4(self.source, self.destination, tcp::PROTOCOL, self.ports)
    }

    /// What an outer header takes from it: the type of service in the upper half, the identification in the lower.
    #[inline]
    pub const fn own(&self) -> u32 {
        self.own
    }
}

impl Brief6 {
    /// Reads a frame that is whole in `frame`.
    #[inline(always)]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let bytes: &[u8; FRAME6] = frame.first_chunk()?;
        // Ethernet type and version 6; then payload length and TCP.
        let second = word(bytes, 18);
        if word(bytes, 12) >> 12 != 0x8_6dd6 || second >> 8 & 0xff != 6 {
            return None;
        }
        let [payload_len, offset] = [second >> 16, word(bytes, 66)];
        let header_len = (offset >> 28) * 4;
        // What is longer with its header than 16 bits can say is left to the walk.
        let is_within = header_len >= 20 && header_len <= payload_len && payload_len <= 0xffff - 40;
        if !is_within || 54 + payload_len as usize > frame.len() {
            return None;
        }
        Some(Self {
            source: address(bytes, 22),
            destination: address(bytes, 38),
            ports: word(bytes, 54),
            len: low(40 + payload_len),
            flags: Flags(byte(offset >> 16)),
            own: word(bytes, 14),
        })
    }

    /// What [`crate::Flow::short_words`] gives for it.
    #[inline]
    pub fn words(&self) -> Words {
        Words::v6(self.source, self.destination, tcp::PROTOCOL, self.ports)
    }

    /// What an outer header takes from it: the first word, which is version, traffic class and flow label.
    #[inline]
    pub const fn own(&self) -> u32 {
        self.own
    }
}

/// Four bytes of a header, at a constant place: the compiler sees that they are there.
#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |four| u32::from_be_bytes(*four))
}

/// The same, sixteen.
#[inline(always)]
fn address<const N: usize>(bytes: &[u8; N], at: usize) -> u128 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |octets| u128::from_be_bytes(*octets))
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
const fn low(word: u32) -> u16 {
    word as u16
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the lowest byte is what is asked for")]
const fn byte(word: u32) -> u8 {
    word as u8
}
