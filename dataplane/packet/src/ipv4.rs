//! The IPv4 header (RFC 791): constants for the parser and the outer header of a tunnel (RFC 2003).

use crate::checksum;

/// The shortest header: no options.
pub const HEADER_LEN: usize = 20;
/// ICMP's protocol number.
pub const ICMP: u8 = 1;
/// The protocol number of an IPv4 packet inside an IP packet.
pub const IPV4_INSIDE: u8 = 4;
/// The protocol number of an IPv6 packet inside an IP packet.
pub const IPV6_INSIDE: u8 = 41;
/// In the fragment field: no router may fragment.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// In the fragment field: not the last one.
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// In the fragment field: where the fragment belongs, in units of 8 bytes.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;
/// The smallest MTU a link may have (RFC 791 section 3.2).
pub const MTU_MIN: u16 = 68;
/// The TTL of packets Weft sends in its own name, and of its tunnels (RFC 2003 section 3.1 leaves it to us).
pub const TTL: u8 = 64;

/// An IPv4 header without options that Weft puts before a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// The tunnel's source.
    pub source: [u8; 4],
    /// The backend.
    pub destination: [u8; 4],
    /// What follows: [`IPV4_INSIDE`], [`IPV6_INSIDE`], or a transport protocol.
    pub protocol: u8,
    /// The inner packet's DSCP and ECN, copied whole: RFC 6040 section 4.1, normal mode.
    pub tos: u8,
    /// The inner packet's flag (RFC 2003 section 3.1), so that path MTU discovery sees through the tunnel.
    pub dont_fragment: bool,
    /// Tells fragments apart where they are allowed.
    pub identification: u16,
    /// How many bytes follow this header.
    pub payload_len: u16,
}

impl Outer {
    /// The header as bytes, with its checksum; `None` if the packet would be longer than IPv4 can say.
    #[inline]
    pub fn to_bytes(&self) -> Option<[u8; HEADER_LEN]> {
        let [len_high, len_low] = self.payload_len.checked_add(20)?.to_be_bytes();
        let [id_high, id_low] = self.identification.to_be_bytes();
        let [flags_high, flags_low] = if self.dont_fragment { DONT_FRAGMENT } else { 0 }.to_be_bytes();
        let [s0, s1, s2, s3] = self.source;
        let [d0, d1, d2, d3] = self.destination;
        let mut bytes = [
            0x45,
            self.tos,
            len_high,
            len_low,
            id_high,
            id_low,
            flags_high,
            flags_low,
            TTL,
            self.protocol,
            0,
            0,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ];
        let [high, low] = checksum::ipv4_header(&bytes).to_be_bytes();
        bytes[10] = high;
        bytes[11] = low;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outer_header_has_the_inner_tos_and_a_right_checksum() {
        let outer = Outer {
            source: [10, 0, 1, 254],
            destination: [10, 0, 1, 11],
            protocol: IPV4_INSIDE,
            tos: 0xbb,
            dont_fragment: true,
            identification: 0x1234,
            payload_len: 60,
        };
        let bytes = outer.to_bytes().unwrap();
        assert_eq!(bytes[..10], [0x45, 0xbb, 0, 80, 0x12, 0x34, 0x40, 0, 64, 4],);
        assert_eq!(bytes[12..], [10, 0, 1, 254, 10, 0, 1, 11]);
        assert_eq!(checksum::ipv4_header(&bytes), 0);
    }

    #[test]
    fn a_packet_too_long_for_an_outer_header_gets_none() {
        let outer = Outer {
            source: [0; 4],
            destination: [0; 4],
            protocol: IPV6_INSIDE,
            tos: 0,
            dont_fragment: false,
            identification: 0,
            payload_len: 65_515,
        };
        assert_eq!(outer.to_bytes().map(|bytes| [bytes[2], bytes[3]]), Some([0xff, 0xff]));
        assert_eq!(Outer { payload_len: 65_516, ..outer }.to_bytes(), None);
    }
}
