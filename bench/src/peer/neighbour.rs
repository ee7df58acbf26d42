//! The link: who is where. ARP (RFC 826) and neighbour discovery (RFC 4861), asked and answered, as far as a few hosts
//! on one network need it.

use std::net::IpAddr;
use std::str::FromStr;

use hashbrown::HashMap;
use packet::arp::{self, Arp};
use packet::icmp6::{NEIGHBOUR_ADVERTISEMENT, Solicitation};
use packet::{Family, Kind, answer, ethernet};

use super::segment::{self, Segment};

/// An address and the network it is on: `10.0.1.31/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnLink {
    /// The address.
    pub address: IpAddr,
    /// Bits of the network.
    pub prefix: u8,
}

impl FromStr for OnLink {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text} is no address with its network, such as 10.0.1.31/24 or fd00:1::31/64");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= most).ok_or_else(wrong)?;
        Ok(Self { address, prefix })
    }
}

impl OnLink {
    /// Whether an address is on the same network.
    pub fn reaches(self, other: IpAddr) -> bool {
        let differs = match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        differs >= u32::from(self.prefix)
    }
}

/// A station on the link.
#[derive(Debug)]
pub struct Station {
    mac: [u8; 6],
    own: Vec<OnLink>,
    gateways: Vec<IpAddr>,
    known: HashMap<IpAddr, [u8; 6]>,
    waiting: Vec<(IpAddr, Segment)>,
}

/// The last three bytes of a MAC address of a group of IPv6.
const GROUP: [u8; 2] = [0x33, 0x33];

impl Station {
    /// A station with these addresses, which reaches what is not on its networks by these gateways.
    pub fn new(mac: [u8; 6], own: Vec<OnLink>, gateways: Vec<IpAddr>) -> Self {
        Self { mac, own, gateways, known: HashMap::new(), waiting: Vec::new() }
    }

    /// Whether a frame is for this station, by its MAC address.
    pub fn is_for_us(&self, frame: &[u8]) -> bool {
        let to = segment::destination(frame);
        to == self.mac || to == ethernet::BROADCAST || to.starts_with(&GROUP)
    }

    /// Takes a frame of the link's own business in: what is to be sent now. `None`: it is other business.
    pub fn receive(&mut self, frame: &[u8]) -> Option<Vec<Vec<u8>>> {
        let parsed = packet::parse(frame, frame.len());
        if let Some(arp) = Arp::read(frame, &parsed) {
            let mut out = self.learn(IpAddr::from(arp.sender), arp.sender_mac);
            if arp.operation == arp::REQUEST && self.owns(IpAddr::from(arp.target)) {
                out.extend(answer::arp_reply(frame, &parsed, self.mac).map(|reply| reply.bytes().to_vec()));
            }
            return Some(out);
        }
        let Kind::Icmp6 { kind, .. } = parsed.kind else { return None };
        let source = ethernet::source(frame)?;
        if let Some(asked) = Solicitation::read(frame, &parsed) {
            let mut out = Vec::new();
            if asked.source.0 != 0 {
                out = self.learn(segment::ip(asked.source, Family::V6), source);
            }
            if self.owns(segment::ip(asked.target, Family::V6)) {
                let reply = answer::neighbour_advertisement(frame, &parsed, self.mac);
                out.extend(reply.map(|reply| reply.bytes().to_vec()));
            }
            return Some(out);
        }
        if kind == NEIGHBOUR_ADVERTISEMENT {
            // Type, code, checksum, flags, then the target.
            let target: [u8; 16] = frame.get(usize::from(parsed.l4) + 8..)?.first_chunk().copied()?;
            return Some(self.learn(IpAddr::from(target), source));
        }
        None
    }

    /// The frames that send a segment: itself, or the question where its next hop is.
    pub fn send(&mut self, segment: Segment) -> Vec<Vec<u8>> {
        let Some(hop) = self.hop(&segment) else {
            log::warn!("no way from {} to {}: give a gateway with --via", segment.from, segment.to);
            return Vec::new();
        };
        if let Some(mac) = self.known.get(&hop) {
            return vec![segment.frame(self.mac, *mac)];
        }
        let asked = self.waiting.iter().any(|(address, _)| *address == hop);
        self.waiting.push((hop, segment));
        if asked { Vec::new() } else { self.ask(hop).into_iter().collect() }
    }

    /// Asks again for whoever has not answered.
    pub fn ask_again(&self) -> Vec<Vec<u8>> {
        let mut hops: Vec<IpAddr> = self.waiting.iter().map(|(hop, _)| *hop).collect();
        hops.dedup();
        hops.into_iter().filter_map(|hop| self.ask(hop)).collect()
    }

    fn owns(&self, address: IpAddr) -> bool {
        self.own.iter().any(|own| own.address == address)
    }

    /// Notes where an address is, and sends what waited for it.
    fn learn(&mut self, address: IpAddr, mac: [u8; 6]) -> Vec<Vec<u8>> {
        if !self.own.iter().any(|own| own.reaches(address)) {
            return Vec::new();
        }
        self.known.insert(address, mac);
        let waiting = core::mem::take(&mut self.waiting);
        let (ready, rest) = waiting.into_iter().partition(|(hop, _)| *hop == address);
        self.waiting = rest;
        ready.into_iter().map(|(_, segment): (IpAddr, Segment)| segment.frame(self.mac, mac)).collect()
    }

    /// The next station to a segment's destination: itself where it is on one of our networks, else the gateway on the
    /// network of the address we send from.
    fn hop(&self, segment: &Segment) -> Option<IpAddr> {
        let to = segment.to.ip();
        if self.own.iter().any(|own| own.reaches(to)) {
            return Some(to);
        }
        let from = segment.from.ip();
        let near = self.own.iter().find(|own| own.address == from);
        let fits = |gateway: &&IpAddr| near.is_none_or(|near| near.reaches(**gateway));
        self.gateways.iter().filter(|gateway| gateway.is_ipv4() == to.is_ipv4()).find(fits).copied()
    }

    fn ask(&self, hop: IpAddr) -> Option<Vec<u8>> {
        let own = self.own.iter().find(|own| own.reaches(hop))?.address;
        let packet = packet::build::packet().ethernet(self.mac, ethernet::BROADCAST);
        match (own, hop) {
            (IpAddr::V4(own), IpAddr::V4(hop)) => {
                Some(packet.arp_request(own.octets(), hop.octets()).build())
            }
            (IpAddr::V6(own), IpAddr::V6(hop)) => {
                Some(packet.neighbour_solicitation(own.octets(), hop.octets()).build())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::Flags;

    fn station(number: u8) -> Station {
        let own = [format!("10.0.1.{number}/24"), format!("fd00:1::{number}/64")];
        let own = own.map(|text| text.parse().unwrap()).to_vec();
        Station::new(
            [2, 0, 0, 0, 0, number],
            own,
            vec!["10.0.1.9".parse().unwrap(), "fd00:1::9".parse().unwrap()],
        )
    }

    fn segment(from: &str, to: &str) -> Segment {
        let [from, to] = [from, to].map(|text| text.parse().unwrap());
        let options = super::super::option::Options::default();
        Segment { from, to, seq: 1, ack: 2, flags: Flags::ACK, options, payload: Vec::new() }
    }

    #[test]
    fn a_segment_waits_for_the_answer_to_who_has_its_next_hop() {
        for (from, to, hop) in [
            ("10.0.1.1:1", "10.0.1.2:2", 2),
            ("10.0.1.1:1", "192.0.2.1:2", 9),
            ("[fd00:1::1]:1", "[fd00:1::2]:2", 2),
            ("[fd00:1::1]:1", "[2001:db8::1]:2", 9),
        ] {
            let (mut us, mut them) = (station(1), station(hop));
            let question = us.send(segment(from, to));
            assert!(us.send(segment(from, to)).is_empty(), "asked once");
            assert_eq!(us.ask_again(), question);
            assert!(them.is_for_us(&question[0]));
            let reply = them.receive(&question[0]).unwrap();
            assert!(us.is_for_us(&reply[0]));
            let sent = us.receive(&reply[0]).unwrap();
            assert_eq!(sent.len(), 2, "{from} to {to}");
            assert_eq!(segment::destination(&sent[0]), [2, 0, 0, 0, 0, hop]);
            assert_eq!(us.send(segment(from, to)).len(), 1, "known from now on");
            assert!(us.ask_again().is_empty());
        }
    }

    #[test]
    fn nobody_answers_for_an_address_of_others() {
        let question = station(1).send(segment("10.0.1.1:1", "10.0.1.2:2"));
        assert_eq!(station(3).receive(&question[0]), Some(vec![]));
        assert_eq!(station(3).receive(&segment("10.0.1.1:1", "10.0.1.2:2").frame([1; 6], [2; 6])), None);
    }

    #[test]
    fn an_address_without_a_network_is_refused_with_an_example() {
        for text in ["10.0.1.1", "10.0.1.1/33", "x/24", "fd00::1/129"] {
            assert!(text.parse::<OnLink>().unwrap_err().contains("10.0.1.31/24"), "{text}");
        }
    }
}
