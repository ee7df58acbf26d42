//! Neighbour discovery in ICMPv6 (RFC 4861): which link-layer address has this IPv6 address?

use crate::checksum;
use crate::flow::Address;
use crate::parse::{Kind, Parsed};

/// The next-header value of ICMPv6.
pub const PROTOCOL: u8 = 58;
/// The type of a neighbour solicitation.
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// The type of a neighbour advertisement.
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// The hop limit of every neighbour discovery packet: no router forwarded it.
pub const HOP_LIMIT: u8 = 255;
/// A neighbour message without options.
pub const MESSAGE_LEN: usize = 24;
/// The option with the sender's link-layer address.
pub const SOURCE_LINK_LAYER: u8 = 1;
/// The option with the link-layer address asked for.
pub const TARGET_LINK_LAYER: u8 = 2;

/// A valid neighbour solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// The IPv6 address asked about.
    pub target: Address,
    /// Who asks; the unspecified address when it looks for duplicates.
    pub source: Address,
}

impl Solicitation {
    /// The question in a frame that was parsed as [`Kind::Icmp6`], if it is one and passes every check of
    /// RFC 4861 section 7.1.1.
    pub fn read(frame: &[u8], parsed: &Parsed) -> Option<Self> {
        if !matches!(parsed.kind, Kind::Icmp6 { .. }) || parsed.ttl != HOP_LIMIT {
            return None;
        }
        let message = frame.get(usize::from(parsed.l4)..usize::from(parsed.end))?;
        let [NEIGHBOUR_SOLICITATION, 0, _, _, ..] = message else {
            return None;
        };
        let (header, options) = message.split_first_chunk::<MESSAGE_LEN>()?;
        if checksum::transport(&parsed.flow, message) != 0 {
            return None;
        }
        let target: &[u8; 16] = header.last_chunk()?;
        let (source, destination) = (parsed.flow.source, parsed.flow.destination);
        let source_link = source_link(options)?;
        // A search for duplicates goes to the solicited-node address and says nothing about the asker.
        let search = source.0 == 0;
        if target[0] == 0xff || search && (source_link || !is_solicited_node(destination)) {
            return None;
        }
        Some(Self { target: Address::from_v6(*target), source })
    }
}

/// Whether a source link-layer option is there; `None` if an option has length zero or runs past the end.
fn source_link(mut options: &[u8]) -> Option<bool> {
    let mut found = false;
    // Each turn takes at least 8 bytes off.
    while let [kind, units, ..] = *options {
        if units == 0 {
            return None;
        }
        found |= kind == SOURCE_LINK_LAYER;
        options = options.get(usize::from(units) * 8..)?;
    }
    options.is_empty().then_some(found)
}

/// `ff02::1:ff00:0/104` (RFC 4291 section 2.7.1).
const fn is_solicited_node(address: Address) -> bool {
    address.0 >> 24 == 0xff02_0000_0000_0000_0000_0001_ff00_0000 >> 24
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{PacketBuilder, packet};
    use crate::parse;

    const ASKER: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const PORT: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x54];

    fn read(packet: &PacketBuilder) -> Option<Solicitation> {
        let frame = packet.build();
        Solicitation::read(&frame, &parse(&frame, frame.len()))
    }

    #[test]
    fn a_solicitation_gives_its_question() {
        let solicitation = read(&packet().neighbour_solicitation(ASKER, PORT)).unwrap();
        assert_eq!(solicitation.target, Address::from_v6(PORT));
        assert_eq!(solicitation.source, Address::from_v6(ASKER));
    }

    #[test]
    fn a_search_for_duplicates_goes_to_the_solicited_node_without_a_link_address() {
        let search = packet().neighbour_solicitation([0; 16], PORT);
        assert_eq!(read(&search).unwrap().source, Address(0));
        let group = packet().ipv6([0; 16], [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let mut body = [0; 28];
        body[4..20].copy_from_slice(&PORT);
        body[20..].copy_from_slice(&[1, 1, 2, 0, 0, 0, 1, 1]);
        let solicit = |packet: PacketBuilder, body: &[u8]| {
            packet.ttl(255).icmp(NEIGHBOUR_SOLICITATION, 0).payload(body)
        };
        assert_eq!(read(&solicit(group, &body[..20])), None);
        let node = packet().ipv6([0; 16], [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 2, 0x54]);
        assert!(read(&solicit(node.clone(), &body[..20])).is_some());
        assert_eq!(read(&solicit(node, &body)), None);
    }

    #[test]
    fn a_solicitation_that_breaks_a_rule_is_none() {
        let good = packet().neighbour_solicitation(ASKER, PORT);
        assert_eq!(read(&good.clone().ttl(254)), None);
        assert_eq!(read(&good.clone().icmp(NEIGHBOUR_ADVERTISEMENT, 0)), None);
        assert_eq!(read(&good.clone().icmp(NEIGHBOUR_SOLICITATION, 1)), None);
        assert_eq!(read(&packet().neighbour_solicitation(ASKER, [0xff; 16])), None);
        // Options of length zero, past the end, and a message without a whole target.
        let mut body = [0; 28];
        body[4..20].copy_from_slice(&PORT);
        for options in [[1, 0, 0, 0, 0, 0, 0, 0], [1, 2, 0, 0, 0, 0, 0, 0]] {
            body[20..].copy_from_slice(&options);
            assert_eq!(read(&good.clone().payload(&body)), None);
        }
        assert_eq!(read(&good.clone().payload(&body[..19])), None);
        assert!(read(&good.clone().payload(&body[..20])).is_some());
    }

    #[test]
    fn a_solicitation_with_a_wrong_checksum_is_none() {
        let mut frame = packet().neighbour_solicitation(ASKER, PORT).build();
        frame[56] ^= 1;
        assert_eq!(Solicitation::read(&frame, &parse(&frame, frame.len())), None);
    }
}
