//! The 5-tuple: who talks to whom. One form for IPv4 and IPv6, so that tables and maps need one only.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address of either family; IPv4 is held v4-mapped, `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2).
///
/// A v4-mapped address in a real IPv6 header has the same value, so a comparison across families needs
/// the [`Family`] too; [`Flow`] carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Address(pub u128);

const V4_MAPPED: u128 = 0xffff_0000_0000;

impl Address {
    /// The address of these IPv4 octets.
    #[inline]
    pub const fn from_v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self(u128::from_be_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]))
    }

    /// The address of these IPv6 octets.
    #[inline]
    pub const fn from_v6(octets: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(octets))
    }

    /// The last four octets: the IPv4 address where this is one.
    #[inline]
    pub const fn v4_octets(self) -> [u8; 4] {
        let [.., a, b, c, d] = self.0.to_be_bytes();
        [a, b, c, d]
    }

    /// All sixteen octets, as an IPv6 header holds them.
    #[inline]
    pub const fn v6_octets(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Its upper and its lower half.
    #[inline]
    pub const fn halves(self) -> [u64; 2] {
        halves(self.0)
    }

    /// Whether the address is v4-mapped.
    #[inline]
    pub const fn is_v4(self) -> bool {
        self.0 >> 32 == V4_MAPPED >> 32
    }

    /// The family this value is of, taking a v4-mapped one as IPv4.
    #[inline]
    pub const fn family(self) -> Family {
        if self.is_v4() { Family::V4 } else { Family::V6 }
    }

    /// The address as the standard library has it.
    pub const fn to_ip(self) -> IpAddr {
        if self.is_v4() {
            let [a, b, c, d] = self.v4_octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(self.0))
        }
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "cutting a 128-bit word into its halves is the purpose")]
const fn halves(word: u128) -> [u64; 2] {
    [(word >> 64) as u64, word as u64]
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_v4(address.octets())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        Self::from_v6(address.octets())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

/// The IP version of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    #[default]
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

/// The 5-tuple of a packet and its family. Ports are zero where the protocol has none or they were not read
/// (fragments).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Where the packet says it comes from.
    pub source: Address,
    /// Where it goes: for a client's packet, an address of a VIP.
    pub destination: Address,
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
    /// The transport protocol: 6 for TCP, 17 for UDP.
    pub protocol: u8,
    /// The IP version.
    pub family: Family,
}

/// A 5-tuple in words for hashing: two of a family are equal only if their words are.
///
/// The words are the headers' bytes as they lie there, read as little-endian numbers, so that nobody has to turn them
/// round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Source and destination; then ports and protocol.
    V4([u64; 2]),
    /// Halves of the source, halves of the destination; then ports and protocol.
    V6([u64; 5]),
}

impl Words {
    /// Those of two IPv4 addresses, which lie behind one another as the ports do.
    #[inline(always)]
    pub fn v4(addresses: u64, ports: u32, protocol: u8) -> Self {
        Self::V4([addresses, rest(ports, protocol)])
    }

    /// Those of two IPv6 addresses.
    #[inline(always)]
    pub fn v6(source: u128, destination: u128, ports: u32, protocol: u8) -> Self {
        let ([b, a], [d, c]) = (halves(source), halves(destination));
        Self::V6([a, b, c, d, rest(ports, protocol)])
    }
}

#[inline(always)]
fn rest(ports: u32, protocol: u8) -> u64 {
    u64::from(protocol) << 32 | u64::from(ports)
}

impl Flow {
    /// The shortest words that tell it from other flows of its family.
    #[inline]
    pub fn short_words(&self) -> Words {
        let [a, b] = self.source_port.to_be_bytes();
        let [c, d] = self.destination_port.to_be_bytes();
        let ports = u32::from_le_bytes([a, b, c, d]);
        match self.family {
            Family::V4 => {
                let [source, destination] = [self.source, self.destination]
                    .map(|address| u64::from(u32::from_le_bytes(address.v4_octets())));
                Words::v4(destination << 32 | source, ports, self.protocol)
            }
            Family::V6 => {
                Words::v6(self.source.0.swap_bytes(), self.destination.0.swap_bytes(), ports, self.protocol)
            }
        }
    }

    /// All that tells one flow from another, in a canonical form for hashing: two flows have equal words only
    /// if they are equal.
    #[inline]
    pub fn words(&self) -> [u64; 5] {
        let [source_high, source_low] = self.source.halves();
        let [destination_high, destination_low] = self.destination.halves();
        let ports = (u64::from(self.source_port) << 16) | u64::from(self.destination_port);
        let family = match self.family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        let rest = (family << 40) | (u64::from(self.protocol) << 32) | ports;
        [source_high, source_low, destination_high, destination_low, rest]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_ipv4_address_is_kept_v4_mapped() {
        let address = Address::from_v4([192, 0, 2, 1]);
        assert_eq!(address.0, 0xffff_c000_0201);
        assert!(address.is_v4());
        assert_eq!(address.family(), Family::V4);
        assert_eq!(address.v4_octets(), [192, 0, 2, 1]);
        assert_eq!(std::format!("{address}"), "192.0.2.1");
    }

    #[test]
    fn an_ipv6_address_keeps_its_octets() {
        let octets = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x99];
        let address = Address::from_v6(octets);
        assert_eq!(address.family(), Family::V6);
        assert_eq!(address.v6_octets(), octets);
        assert_eq!(std::format!("{address}"), "2001:db8::99");
        assert_eq!(Address::from(address.to_ip()), address);
    }

    #[test]
    fn a_mapped_address_over_ipv6_is_another_flow_than_the_ipv4_one() {
        let v4 = Flow { source: Address::from_v4([10, 0, 0, 1]), protocol: 6, ..Flow::default() };
        let v6 = Flow { family: Family::V6, ..v4 };
        assert_ne!(v4.words(), v6.words());
    }

    proptest! {
        #[test]
        fn the_words_give_the_flow_back(
            source: u128, destination: u128, source_port: u16, destination_port: u16, protocol: u8, v6: bool,
        ) {
            let flow = Flow {
                source: Address(source), destination: Address(destination), source_port, destination_port,
                protocol, family: if v6 { Family::V6 } else { Family::V4 },
            };
            let [a, b, c, d, rest] = flow.words();
            let bytes = rest.to_be_bytes();
            let back = Flow {
                source: Address((u128::from(a) << 64) | u128::from(b)),
                destination: Address((u128::from(c) << 64) | u128::from(d)),
                source_port: u16::from_be_bytes([bytes[4], bytes[5]]),
                destination_port: u16::from_be_bytes([bytes[6], bytes[7]]),
                protocol: bytes[3],
                family: if bytes[2] == 6 { Family::V6 } else { Family::V4 },
            };
            prop_assert_eq!(back, flow);
        }
    }
}
