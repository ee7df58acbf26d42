//! What must hold for everything Weft answers to any bytes whatever, with checksums by a second method.

use std::net::IpAddr;

use packet::icmp::{self, Message};
use packet::{Family, Flow, Kind, Parsed, ResetReason, TcpRst, answer, parse};

pub const MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
const TRANSIENT: TcpRst = TcpRst { transient: true, reason: ResetReason::MPTCP };
const MTUS: [u16; 7] = [67, 68, 576, 1279, 1280, 1400, 9000];

/// RFC 1071 as its words say it: one word at a time, and a carry goes round at once.
pub fn naive_sum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for pair in parts.concat().chunks(2) {
        sum += u32::from(pair[0]) * 256 + pair.get(1).map_or(0, |low| u32::from(*low));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    u16::try_from(sum).unwrap()
}

/// The IP header and the message, segment or datagram of a frame sum up to all ones.
pub fn sums_up(frame: &[u8], parsed: &Parsed) {
    let (l3, l4, end) = (usize::from(parsed.l3), usize::from(parsed.l4), usize::from(parsed.end));
    let message = &frame[l4..end];
    let (source, destination) = (parsed.flow.source, parsed.flow.destination);
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    let protocol = [0, parsed.flow.protocol];
    let sum = match (parsed.flow.family, parsed.kind) {
        (Family::V4, Kind::Icmp4 { .. }) => naive_sum(&[message]),
        (Family::V4, _) => {
            let (source, destination) = (source.v4_octets(), destination.v4_octets());
            naive_sum(&[&source, &destination, &protocol, &len, message])
        }
        (Family::V6, _) => {
            let (source, destination) = (source.v6_octets(), destination.v6_octets());
            naive_sum(&[&source, &destination, &len, &protocol, message])
        }
    };
    assert_eq!(sum, 0xffff, "{parsed:?}");
    if parsed.flow.family == Family::V4 {
        assert_eq!(naive_sum(&[&frame[l3..l4]]), 0xffff);
    }
}

/// All answers to one frame.
pub fn check(bytes: &[u8], parsed: &Parsed) {
    small(bytes, parsed);
    echo(bytes, parsed);
    for mtu in MTUS {
        too_big(bytes, parsed, mtu);
    }
}

/// ARP replies, advertisements and resets.
fn small(bytes: &[u8], parsed: &Parsed) {
    let advertisement = Kind::Icmp6 { kind: 136, code: 0 };
    let answers = [
        (Kind::Arp, Kind::Arp, answer::arp_reply(bytes, parsed, MAC)),
        (
            Kind::Icmp6 { kind: 135, code: 0 },
            advertisement,
            answer::neighbour_advertisement(bytes, parsed, MAC),
        ),
        (Kind::Tcp, Kind::Tcp, answer::tcp_reset(bytes, parsed, MAC, Some(TRANSIENT))),
        (Kind::Tcp, Kind::Tcp, answer::tcp_reset(bytes, parsed, MAC, None)),
    ];
    for (asked, kind, answer) in answers {
        let Some(answer) = answer else { continue };
        assert_eq!(parsed.kind, asked);
        let reply = answer.bytes();
        let read = parse(reply, reply.len());
        assert_eq!(read.kind, kind);
        assert_eq!(reply[0] & 1 == 1, kind == advertisement && parsed.flow.source.0 == 0);
        if kind != Kind::Arp {
            sums_up(reply, &read);
        }
        leaves_well(bytes, parsed, reply, &read);
    }
}

/// From the port's MAC address, under the same VLAN tags, and nothing that makes another Weft answer.
fn leaves_well(bytes: &[u8], parsed: &Parsed, reply: &[u8], read: &Parsed) {
    assert_eq!(reply[6..12], MAC);
    assert_eq!(read.l3, parsed.l3);
    assert_eq!(reply[12..usize::from(read.l3) - 2], bytes[12..usize::from(parsed.l3) - 2]);
    assert!(reply.len() >= 60);
    assert_eq!(answer::arp_reply(reply, read, MAC), None);
    assert_eq!(answer::neighbour_advertisement(reply, read, MAC), None);
    assert_eq!(answer::tcp_reset(reply, read, MAC, Some(TRANSIENT)), None);
    assert_eq!(answer::tcp_reset(reply, read, MAC, None), None);
    assert!(!answer::echo_reply(&mut reply.to_vec(), read, MAC));
    assert_eq!(answer::too_big(reply, read, MAC, 68), None);
}

fn echo(bytes: &[u8], parsed: &Parsed) {
    let mut frame = bytes.to_vec();
    if !answer::echo_reply(&mut frame, parsed, MAC) {
        assert_eq!(frame, bytes);
        return;
    }
    assert_eq!(icmp::message(parsed.kind), Message::EchoRequest);
    one_host_to_one(bytes, parsed);
    let read = parse(&frame, frame.len());
    let kind = match parsed.flow.family {
        Family::V4 => Kind::Icmp4 { kind: 0, code: 0 },
        Family::V6 => Kind::Icmp6 { kind: 129, code: 0 },
    };
    let back = reversed(&parsed.flow);
    assert_eq!(read, Parsed { kind, flow: back, ttl: 64, ..*parsed });
    sums_up(&frame, &read);
    assert_eq!(frame[..6], bytes[6..12]);
    // Identifier, sequence number and data come back, and so does what follows the packet.
    assert_eq!(frame.len(), bytes.len());
    let data = usize::from(parsed.l4) + 4;
    assert_eq!(frame[data..], bytes[data..]);
    let mut padded = frame.clone();
    padded.resize(frame.len().max(60), 0);
    leaves_well(bytes, parsed, &padded, &read);
}

fn too_big(bytes: &[u8], parsed: &Parsed, mtu: u16) {
    let Some(answer) = answer::too_big(bytes, parsed, MAC, mtu) else { return };
    let reply = answer.bytes();
    assert!(matches!(parsed.kind, Kind::Tcp | Kind::Udp | Kind::UdpFragment { first: true }));
    assert!(parsed.dont_fragment && parsed.packet_len() > mtu);
    one_host_to_one(bytes, parsed);
    let read = parse(reply, reply.len());
    let (kind, floor, most, least) = match parsed.flow.family {
        Family::V4 => (Kind::Icmp4 { kind: 3, code: 4 }, 68, 576, 56),
        Family::V6 => (Kind::Icmp6 { kind: 2, code: 0 }, 1280, 1280, 88),
    };
    assert_eq!((read.kind, read.ttl), (kind, 64));
    assert!(mtu >= floor);
    let (len, packet_len) = (usize::from(read.packet_len()), usize::from(parsed.packet_len()));
    assert!((least..=most).contains(&len), "{len}");
    let quote = &reply[usize::from(read.l4) + 8..usize::from(read.end)];
    let packet = &bytes[usize::from(parsed.l3)..];
    assert!(packet.starts_with(quote));
    // As much as there is or fits.
    assert!(quote.len() == packet_len.min(packet.len()) || len == most);
    let said = &reply[usize::from(read.l4) + 4..][..4];
    assert_eq!(said, u32::from(mtu).to_be_bytes());
    assert_eq!(read.flow.source, parsed.flow.destination);
    assert_eq!(read.flow.destination, parsed.flow.source);
    sums_up(reply, &read);
    assert_eq!(reply[..6], bytes[6..12]);
    leaves_well(bytes, parsed, reply, &read);
    // Its receiver finds the flow it is about.
    if !matches!(parsed.kind, Kind::UdpFragment { .. }) && usize::from(parsed.l4) + 8 <= bytes.len() {
        assert_eq!(icmp::quoted(reply, &read), Some(reversed(&parsed.flow)));
    }
}

pub fn reversed(flow: &Flow) -> Flow {
    Flow {
        source: flow.destination,
        destination: flow.source,
        source_port: flow.destination_port,
        destination_port: flow.source_port,
        ..*flow
    }
}

/// RFC 1122 section 3.2.2 and RFC 4443 section 2.4(e), with the standard library's words for addresses.
fn one_host_to_one(bytes: &[u8], parsed: &Parsed) {
    assert_eq!((bytes[0] & 1, bytes[6] & 1), (0, 0));
    for address in [parsed.flow.source, parsed.flow.destination] {
        match (parsed.flow.family, address.to_ip()) {
            (Family::V4, IpAddr::V4(address)) => {
                let [first, ..] = address.octets();
                assert!(!address.is_loopback() && !address.is_multicast() && !address.is_broadcast());
                assert!(!address.is_unspecified() && first < 240);
            }
            (Family::V6, IpAddr::V6(address)) => {
                assert!(!address.is_loopback() && !address.is_multicast() && !address.is_unspecified());
            }
            // A v4-mapped address in an IPv6 header is a unicast address there.
            (Family::V6, IpAddr::V4(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}
