//! What Weft answers itself: ARP, neighbour discovery, echo requests, joins of unknown tokens, packets too big. Each
//! answer must belong to a question that went in, and its checksums must be right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::checksum::Sum16BitWords;
use hashbrown::HashMap;

use super::dissect::{ARP, FlowKey, Frame, Ip, TCP, Transport, UDP};

/// ICMP message types (RFC 792, RFC 4443, RFC 4861).
const ECHO: [u8; 2] = [8, 128];
const ECHO_REPLY: [u8; 2] = [0, 129];
const TOO_BIG: [[u8; 2]; 2] = [[3, 4], [2, 0]];
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ICMP6: u8 = 58;

/// What question and answer have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// ARP: who asks, for what.
    Arp(Ipv4Addr, Ipv4Addr),
    /// Neighbour discovery: for what.
    Neighbour(Ipv6Addr),
    /// Echo: from, to, identifier and number.
    Echo(IpAddr, IpAddr, [u8; 4]),
    /// A SYN answered with RST: what the RST acknowledges.
    Reset(FlowKey, u32),
    /// Too big: the start of the packet, as it is quoted.
    TooBig([u8; 28]),
}

/// Questions that went in, and where.
#[derive(Default)]
pub struct Questions {
    asked: HashMap<Exchange, Vec<u32>>,
}

impl Questions {
    /// Notes a question.
    pub fn ask(&mut self, exchange: Exchange, place: u32) {
        self.asked.entry(exchange).or_default().push(place);
    }

    /// Those who asked what this answers.
    pub fn asked(&self, exchange: &Exchange) -> &[u32] {
        self.asked.get(exchange).map_or(&[], Vec::as_slice)
    }
}

/// The question of a frame that is no TCP or UDP, if it is one that Weft may answer.
pub fn question(frame: &Frame<'_>, ip: Option<&Ip<'_>>) -> Option<Exchange> {
    let Some(ip) = ip else { return arp(frame, 1).map(|[asks, target]| Exchange::Arp(asks, target)) };
    let Transport::Icmp { kind: [kind, _], word, .. } = ip.transport else { return None };
    if kind == SOLICITATION && ip.protocol == ICMP6 {
        return target(ip).map(Exchange::Neighbour);
    }
    ECHO.contains(&kind).then_some(Exchange::Echo(ip.source, ip.destination, word))
}

/// What a frame answers, if it is an answer.
pub fn answer(frame: &Frame<'_>, ip: Option<&Ip<'_>>) -> Option<Exchange> {
    let Some(ip) = ip else { return arp(frame, 2).map(|[has, asked]| Exchange::Arp(asked, has)) };
    match &ip.transport {
        Transport::Tcp(tcp) if tcp.reset => {
            let [port, client_port] = tcp.ports;
            let flow = FlowKey {
                source: ip.destination,
                destination: ip.source,
                source_port: client_port,
                destination_port: port,
                protocol: TCP,
            };
            Some(Exchange::Reset(flow, tcp.acknowledgement))
        }
        Transport::Icmp { kind, payload, .. } if TOO_BIG.contains(kind) => {
            Some(Exchange::TooBig(*payload.first_chunk()?))
        }
        Transport::Icmp { kind: [ADVERTISEMENT, _], .. } if ip.protocol == ICMP6 => {
            target(ip).map(Exchange::Neighbour)
        }
        Transport::Icmp { kind: [kind, _], word, .. } if ECHO_REPLY.contains(kind) => {
            Some(Exchange::Echo(ip.destination, ip.source, *word))
        }
        _ => None,
    }
}

/// The target of a neighbour solicitation or advertisement: behind the second word.
fn target(ip: &Ip<'_>) -> Option<Ipv6Addr> {
    let bytes: &[u8; 16] = ip.payload.get(8..)?.first_chunk()?;
    Some(Ipv6Addr::from(*bytes))
}

/// Sender and target of an ARP message of Ethernet and IPv4 with this operation (RFC 826).
fn arp(frame: &Frame<'_>, operation: u8) -> Option<[Ipv4Addr; 2]> {
    let body: &[u8; 28] = frame.body.first_chunk()?;
    let [0, 1, 8, 0, 6, 4, 0, said, rest @ ..] = body else { return None };
    if frame.ether_type != ARP || *said != operation {
        return None;
    }
    let at = |from: usize| rest.get(from..)?.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes));
    Some([at(6)?, at(16)?])
}

/// Whether the checksums of a packet of Weft's own are right: IPv4's, and that of what is in it.
pub fn checksums_are_right(ip: &Ip<'_>) -> bool {
    let header = match ip.source {
        IpAddr::V4(_) => Sum16BitWords::new().add_slice(ip.bytes.get(..ip.header_len).unwrap_or_default()),
        IpAddr::V6(_) => Sum16BitWords::new().add_2bytes([0xff; 2]),
    };
    let length = u32::try_from(ip.payload.len()).unwrap_or_default().to_be_bytes();
    let mut sum = Sum16BitWords::new().add_slice(ip.payload);
    let pseudo = match (ip.source, ip.destination, ip.protocol) {
        (IpAddr::V4(from), IpAddr::V4(to), protocol @ (TCP | UDP)) => {
            sum.add_4bytes(from.octets()).add_4bytes(to.octets()).add_2bytes([0, protocol]).add_4bytes(length)
        }
        (IpAddr::V6(from), IpAddr::V6(to), protocol @ (TCP | UDP | ICMP6)) => {
            let sum = sum.add_16bytes(from.octets()).add_16bytes(to.octets());
            sum.add_2bytes([0, protocol]).add_4bytes(length)
        }
        _ => sum,
    };
    header.ones_complement() == 0 && pseudo.ones_complement() == 0
}
