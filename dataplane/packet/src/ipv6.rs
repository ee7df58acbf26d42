//! The IPv6 header and its extension headers (RFC 8200): constants for the parser and the outer header of a
//! tunnel (RFC 2473).

/// The header without extension headers.
pub const HEADER_LEN: usize = 40;
/// Options for every hop; only directly behind the IPv6 header.
pub const HOP_BY_HOP: u8 = 0;
/// Routing.
pub const ROUTING: u8 = 43;
/// Fragment.
pub const FRAGMENT: u8 = 44;
/// Authentication (RFC 4302): its length counts in 4 bytes.
pub const AUTHENTICATION: u8 = 51;
/// Options for the destination.
pub const DESTINATION_OPTIONS: u8 = 60;
/// Mobility (RFC 6275).
pub const MOBILITY: u8 = 135;
/// Host Identity Protocol (RFC 7401).
pub const HIP: u8 = 139;
/// Shim6 (RFC 5533).
pub const SHIM6: u8 = 140;
/// Nothing follows.
pub const NO_NEXT_HEADER: u8 = 59;
/// In a fragment header's offset field: the bits that make it a real fragment. All zero is an atomic fragment,
/// which is a whole packet (RFC 6946).
pub const FRAGMENTED: u16 = 0xfff9;
/// In a fragment header's offset field: where the fragment belongs, in bytes.
pub const FRAGMENT_OFFSET: u16 = 0xfff8;
/// The smallest MTU a link may have (RFC 8200 section 5).
pub const MTU_MIN: u16 = 1280;
/// The hop limit of packets Weft sends in its own name, and of its tunnels.
pub const HOP_LIMIT: u8 = 64;

/// Whether this next-header value names an extension header that another header follows.
#[inline]
pub const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6
    )
}

/// An IPv6 header that Weft puts before a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// The tunnel's source.
    pub source: [u8; 16],
    /// The backend.
    pub destination: [u8; 16],
    /// What follows: [`crate::ipv4::IPV4_INSIDE`], [`crate::ipv4::IPV6_INSIDE`], or a transport protocol.
    pub next_header: u8,
    /// The inner packet's DSCP and ECN, copied whole: RFC 6040 section 4.1, normal mode.
    pub traffic_class: u8,
    /// Lower 20 bits: spreads flows over paths and queues behind the tunnel (RFC 6438).
    pub flow_label: u32,
    /// How many bytes follow this header.
    pub payload_len: u16,
}

impl Outer {
    /// The header as bytes.
    #[inline]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let first = (6 << 28) | (u32::from(self.traffic_class) << 20) | (self.flow_label & 0x000f_ffff);
        let [a, b, c, d] = first.to_be_bytes();
        let [len_high, len_low] = self.payload_len.to_be_bytes();
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&[a, b, c, d, len_high, len_low, self.next_header, HOP_LIMIT]);
        bytes[8..24].copy_from_slice(&self.source);
        bytes[24..].copy_from_slice(&self.destination);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outer_header_has_the_inner_class_and_twenty_bits_of_label() {
        let outer = Outer {
            source: [1; 16],
            destination: [2; 16],
            next_header: 41,
            traffic_class: 0xb9,
            flow_label: 0xfff1_2345,
            payload_len: 0x1234,
        };
        let bytes = outer.to_bytes();
        assert_eq!(bytes[..8], [0x6b, 0x91, 0x23, 0x45, 0x12, 0x34, 41, 64]);
        assert_eq!(bytes[8..24], [1; 16]);
        assert_eq!(bytes[24..], [2; 16]);
    }
}
