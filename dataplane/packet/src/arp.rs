//! ARP for IPv4 over Ethernet (RFC 826): who has this address?

use crate::parse::{Kind, Parsed};

/// An ARP packet for IPv4 over Ethernet.
pub const PACKET_LEN: usize = 28;
/// The operation of a question.
pub const REQUEST: u16 = 1;
/// The operation of an answer.
pub const REPLY: u16 = 2;

/// Hardware type Ethernet, protocol type IPv4, their address lengths.
pub(crate) const PREFIX: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// The fields of an ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// [`REQUEST`], [`REPLY`] or another.
    pub operation: u16,
    /// The sender's MAC address.
    pub sender_mac: [u8; 6],
    /// The sender's IPv4 address; 0.0.0.0 in a probe (RFC 5227).
    pub sender: [u8; 4],
    /// The MAC address asked about: meaningless in a question.
    pub target_mac: [u8; 6],
    /// The IPv4 address asked about.
    pub target: [u8; 4],
}

impl Arp {
    /// The fields of a frame that was parsed as [`Kind::Arp`]; `None` for anything but IPv4 over Ethernet.
    pub fn read(frame: &[u8], parsed: &Parsed) -> Option<Self> {
        if parsed.kind != Kind::Arp {
            return None;
        }
        let bytes: &[u8; PACKET_LEN] = frame.get(usize::from(parsed.l3)..)?.first_chunk()?;
        let (prefix, rest) = bytes.split_first_chunk()?;
        if *prefix != PREFIX {
            return None;
        }
        let (operation, rest) = rest.split_first_chunk()?;
        let (sender_mac, rest) = rest.split_first_chunk()?;
        let (sender, rest) = rest.split_first_chunk()?;
        let (target_mac, rest) = rest.split_first_chunk()?;
        Some(Self {
            operation: u16::from_be_bytes(*operation),
            sender_mac: *sender_mac,
            sender: *sender,
            target_mac: *target_mac,
            target: *rest.first_chunk()?,
        })
    }

    /// The packet as bytes, without an Ethernet header.
    pub fn to_bytes(&self) -> [u8; PACKET_LEN] {
        let mut bytes = [0; PACKET_LEN];
        bytes[..6].copy_from_slice(&PREFIX);
        bytes[6..8].copy_from_slice(&self.operation.to_be_bytes());
        bytes[8..14].copy_from_slice(&self.sender_mac);
        bytes[14..18].copy_from_slice(&self.sender);
        bytes[18..24].copy_from_slice(&self.target_mac);
        bytes[24..].copy_from_slice(&self.target);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{CLIENT_MAC, packet};
    use crate::parse;

    #[test]
    fn a_request_is_read_back() {
        let frame = packet().vlan(3).arp_request([10, 0, 1, 1], [10, 0, 1, 254]).trailer(14).build();
        let arp = Arp::read(&frame, &parse(&frame, frame.len())).unwrap();
        assert_eq!(arp.operation, REQUEST);
        assert_eq!((arp.sender_mac, arp.sender), (CLIENT_MAC, [10, 0, 1, 1]));
        assert_eq!((arp.target_mac, arp.target), ([0; 6], [10, 0, 1, 254]));
    }

    #[test]
    fn arp_for_another_network_is_not_read() {
        let frame = packet().arp_request([10, 0, 1, 1], [10, 0, 1, 254]).build();
        for at in 14..20 {
            let mut other = frame.clone();
            other[at] ^= 1;
            assert_eq!(Arp::read(&other, &parse(&other, other.len())), None);
        }
        let tcp = packet().tcp(1, 2).syn(1).build();
        assert_eq!(Arp::read(&tcp, &parse(&tcp, tcp.len())), None);
    }
}
