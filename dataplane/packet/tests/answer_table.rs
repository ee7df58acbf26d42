//! Echo replies and word of the size that fits: whom Weft answers, what it says, and that the world's own dissector
//! finds every checksum right.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

#[path = "support/answers.rs"]
#[allow(dead_code, reason = "what holds for any bytes is tested elsewhere")]
mod answers;

use std::process::Command;

use answers::MAC;
use packet::answer::{echo_reply, too_big};
use packet::build::{CLIENT_MAC, PORT_MAC, PacketBuilder, packet};
use packet::{Address, Flags, Kind, ipv6, parse};
use pcap_file::pcap::{PcapPacket, PcapWriter};

const CLIENT: [u8; 4] = [192, 0, 2, 7];
const VIP: [u8; 4] = [203, 0, 113, 10];
const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const GROUP_MAC: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];

fn v4() -> PacketBuilder {
    packet().ipv4(CLIENT, VIP).ttl(7)
}

fn v6() -> PacketBuilder {
    packet().ipv6(CLIENT6, VIP6).ttl(7)
}

fn echo(frame: &[u8]) -> Option<Vec<u8>> {
    let mut reply = frame.to_vec();
    echo_reply(&mut reply, &parse(frame, frame.len()), MAC).then_some(reply)
}

fn told(packet: &PacketBuilder, mtu: u16) -> Option<Vec<u8>> {
    let frame = packet.build();
    too_big(&frame, &parse(&frame, frame.len()), MAC, mtu).map(|answer| answer.bytes().to_vec())
}

fn large(packet: PacketBuilder) -> PacketBuilder {
    packet.tcp(40_000, 443).data(7, 9).payload(&[0xa5; 1408])
}

#[test]
fn an_echo_request_becomes_the_reply_a_host_would_build() {
    for len in [0, 1, 56, 57, 1400] {
        let data = vec![0xc3; len];
        let back = |packet: PacketBuilder| packet.ethernet(MAC, CLIENT_MAC).ttl(64);
        let request = v4().vlan(5).tos(0xb9).identification(77).echo_request(0x1234, 9, &data);
        let reply = back(request.clone().ipv4(VIP, CLIENT)).icmp(0, 0);
        assert_eq!(echo(&request.build()), Some(reply.build()));
        let request = v6().qinq(1, 2).tos(0xb9).flow_label(0xbeef).echo_request(0x1234, 9, &data);
        let reply = back(request.clone().ipv6(VIP6, CLIENT6)).icmp(129, 0);
        assert_eq!(echo(&request.build()), Some(reply.build()));
    }
}

#[test]
fn an_echo_reply_that_is_all_zero_has_the_other_form_of_zero_as_its_checksum() {
    for data in [&[][..], &[0; 56]] {
        let request = v4().echo_request(0, 0, data);
        let reply = request.clone().ethernet(MAC, CLIENT_MAC).ttl(64).ipv4(VIP, CLIENT).icmp(0, 0);
        assert_eq!(reply.build()[36..38], [0xff, 0xff]);
        assert_eq!(echo(&request.build()), Some(reply.build()));
    }
}

#[test]
fn an_echo_request_with_a_wrong_checksum_is_not_answered() {
    for packet in [v4().echo_request(1, 2, b"some data"), v6().echo_request(1, 2, b"some data")] {
        let right = packet.build();
        assert!(echo(&right).is_some());
        let parsed = parse(&right, right.len());
        // Every byte of the message counts, and so do the addresses, over which the asker is reached.
        let message = usize::from(parsed.l4)..usize::from(parsed.end);
        for at in message.chain([usize::from(parsed.l4) - 1, usize::from(parsed.l4) - 6]) {
            let mut wrong = right.clone();
            wrong[at] ^= 0x40;
            assert_eq!(echo(&wrong), None, "byte {at}");
        }
    }
}

#[test]
fn only_one_host_that_asks_one_address_gets_an_echo() {
    let request = |packet: PacketBuilder| echo(&packet.echo_request(1, 2, b"x").build());
    assert!(request(v4()).is_some() && request(v6()).is_some());
    for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 5], [240, 0, 0, 1], [255; 4], VIP] {
        assert_eq!(request(packet().ipv4(source, VIP)), None, "from {source:?}");
    }
    for destination in [[224, 0, 0, 1], [255; 4], [127, 0, 0, 1]] {
        assert_eq!(request(packet().ipv4(CLIENT, destination)), None, "to {destination:?}");
    }
    let mut loopback = [0; 16];
    assert_eq!(request(packet().ipv6(loopback, VIP6)), None);
    loopback[15] = 1;
    assert_eq!(request(packet().ipv6(loopback, VIP6)), None);
    assert_eq!(request(packet().ipv6([0xff; 16], VIP6)), None);
    assert_eq!(request(packet().ipv6(CLIENT6, [0xff; 16])), None);
    assert_eq!(request(v4().ethernet(CLIENT_MAC, GROUP_MAC)), None);
    assert_eq!(request(v4().ethernet(GROUP_MAC, PORT_MAC)), None);
}

#[test]
fn what_is_no_whole_plain_echo_request_is_left_alone() {
    for packet in [
        v4().icmp(8, 1).payload(&[0; 8]),
        v4().icmp(8, 0).payload(&[0; 3]),
        v4().icmp(0, 0).payload(&[0; 8]),
        v4().icmp(13, 0).payload(&[0; 16]),
        v4().ipv4_options(&[7, 7, 4, 0, 0, 0, 0]).echo_request(1, 2, b"x"),
        v4().fragment(0, true).echo_request(1, 2, b"x"),
        v4().icmp(128, 0).payload(&[0; 8]),
        v6().icmp(128, 1).payload(&[0; 8]),
        v6().icmp(8, 0).payload(&[0; 8]),
        v6().icmp(129, 0).payload(&[0; 8]),
        v6().extension(ipv6::DESTINATION_OPTIONS, &[1, 4, 0, 0, 0, 0]).echo_request(1, 2, b"x"),
        v6().fragment(0, false).echo_request(1, 2, b"x"),
        v4().udp(7, 7),
    ] {
        assert_eq!(echo(&packet.build()), None, "{packet:?}");
    }
    // More of it than the buffer holds.
    let frame = v4().echo_request(1, 2, &[0; 500]).build();
    let mut first = frame[..100].to_vec();
    let parsed = parse(&first, frame.len());
    assert!(!echo_reply(&mut first, &parsed, MAC));
}

#[test]
fn a_sender_is_told_the_size_with_as_much_of_its_packet_as_fits() {
    let reply = told(&large(v4()), 1400).unwrap();
    let parsed = parse(&reply, reply.len());
    assert_eq!((parsed.kind, parsed.packet_len()), (Kind::Icmp4 { kind: 3, code: 4 }, 576));
    assert_eq!((parsed.tos, parsed.ttl, parsed.dont_fragment), (0xc0, 64, true));
    assert_eq!(
        (parsed.flow.source, parsed.flow.destination),
        (Address::from_v4(VIP), Address::from_v4(CLIENT))
    );
    assert_eq!(reply[..12], [CLIENT_MAC, MAC].concat());
    assert_eq!(reply[38..42], [0, 0, 0x05, 0x78]);
    assert_eq!(reply[42..], large(v4()).build_ip()[..548]);

    let reply = told(&large(v6()).vlan(9), 1400).unwrap();
    let parsed = parse(&reply, reply.len());
    assert_eq!((parsed.kind, parsed.packet_len()), (Kind::Icmp6 { kind: 2, code: 0 }, 1280));
    assert_eq!(
        (parsed.flow.source, parsed.flow.destination),
        (Address::from_v6(VIP6), Address::from_v6(CLIENT6))
    );
    assert_eq!(reply[12..18], [0x81, 0, 0, 9, 0x86, 0xdd]);
    assert_eq!(reply[62..66], [0, 0, 0x05, 0x78]);
    assert_eq!(reply[66..], large(v6()).build_ip()[..1232]);
}

#[test]
fn of_a_packet_that_is_not_all_at_hand_what_is_there_is_quoted() {
    for (packet, headers) in [(large(v4()), 14 + 20 + 32), (large(v6()), 14 + 40 + 32)] {
        let frame = packet.build();
        let answer = too_big(&frame[..headers], &parse(&frame[..headers], frame.len()), MAC, 1400).unwrap();
        assert!(answer.bytes().ends_with(&frame[14..headers]));
    }
}

#[test]
fn nothing_is_said_where_nothing_may_or_need_be() {
    let request = v4().echo_request(1, 2, &[0; 1450]).build();
    assert_eq!(too_big(&request, &parse(&request, request.len()), MAC, 1400), None, "an echo");
    let quote = large(v4()).build_ip();
    for (why, packet, mtu) in [
        ("it fits", large(v4()), 1460),
        ("an MTU no link has", large(v4()), 67),
        ("an MTU no link has", large(v6()), 1279),
        ("routers may fragment it", large(v4()).dont_fragment(false), 1400),
        ("an error", packet().ipv4(CLIENT, VIP).icmp_error(3, 4, 1400, &quote), 576),
        ("an error", packet().ipv6(CLIENT6, VIP6).icmp_error(1, 4, 0, &quote), 1280),
        ("a later fragment", v6().udp(1, 2).fragment(100, true).payload(&[0; 1400]), 1400),
        ("a fragment of TCP", large(v6()).fragment(0, true), 1400),
        ("another protocol", v4().protocol(47).payload(&[0; 1480]), 1400),
        ("a group's address", large(packet().ipv4(CLIENT, [224, 0, 0, 9])), 1400),
        ("a broadcast", large(packet().ipv4(CLIENT, [255; 4])), 1400),
        ("no host", large(packet().ipv4([0; 4], VIP)), 1400),
        ("a group's source", large(packet().ipv6([0xff; 16], VIP6)), 1400),
        ("sent to a group's MAC address", large(v4()).ethernet(CLIENT_MAC, GROUP_MAC), 1400),
        ("from a group's MAC address", large(v4()).ethernet(GROUP_MAC, PORT_MAC), 1400),
    ] {
        assert_eq!(told(&packet, mtu), None, "{why}");
    }
    let mut damaged = large(v4()).build();
    damaged[28] ^= 1;
    assert_eq!(too_big(&damaged, &parse(&damaged, damaged.len()), MAC, 1400), None, "a damaged source");
}

#[test]
fn the_sizes_at_the_limits_are_told() {
    assert!(told(&large(v4()), 1459).is_some());
    assert!(told(&large(v4()), 68).is_some());
    assert!(told(&large(v6()), 1479).is_some());
    assert_eq!(told(&large(v6()), 1480), None);
    assert!(told(&large(v6()), 1280).is_some());
    assert!(told(&v6().udp(1, 2).fragment(0, true).payload(&[0; 1400]), 1400).is_some());
    assert!(told(&v4().tcp(1, 2).flags(Flags::SYN).payload(&[0; 600]), 576).is_some());
    // Of a datagram with the longest IPv4 header all of the UDP header is quoted.
    let longest = v4().ipv4_options(&[1; 40]).udp(1, 2).payload(&[0; 600]).build();
    let first = &longest[..14 + 60 + 8];
    let answer = too_big(first, &parse(first, longest.len()), MAC, 576).unwrap();
    assert!(answer.bytes().ends_with(first.split_at(14).1));
    // A first fragment is parsed without its ports; without them nobody could tell what it is about.
    let fragment = v4().udp(1, 2).fragment(0, true).dont_fragment(true).payload(&[0; 600]).build();
    let told = |len: usize| too_big(&fragment[..len], &parse(&fragment[..len], fragment.len()), MAC, 576);
    assert!(told(14 + 20 + 8).is_some() && told(14 + 20 + 7).is_none());
}

/// All answers in a capture; what tshark says of each checksum there.
#[test]
fn tshark_finds_every_answers_checksums_right() {
    let mut answers = Vec::new();
    for packet in [v4(), v6(), v4().vlan(7), v6().qinq(7, 8)] {
        answers.push(echo(&packet.clone().echo_request(1, 2, b"odd number").build()).unwrap());
        answers.push(echo(&packet.clone().echo_request(1, 2, b"even").build()).unwrap());
        answers.push(told(&large(packet.clone()), 1400).unwrap());
        // An odd number of bytes quoted.
        answers.push(told(&packet.udp(1, 2).payload(&[0x55; 1301]), 1300).unwrap());
    }
    let file = std::env::temp_dir().join(format!("weft-answers-{}.pcap", std::process::id()));
    let mut writer = PcapWriter::new(std::fs::File::create(&file).unwrap()).unwrap();
    for frame in &answers {
        let len = u32::try_from(frame.len()).unwrap();
        writer.write_packet(&PcapPacket::new(std::time::Duration::ZERO, len, frame)).unwrap();
    }
    drop(writer);
    let mut tshark = Command::new("tshark");
    tshark.args(["-o", "ip.check_checksum:TRUE", "-T", "fields", "-E", "occurrence=f"]);
    for field in ["ip.checksum.status", "icmp.checksum.status", "icmpv6.checksum.status", "_ws.malformed"] {
        tshark.args(["-e", field]);
    }
    let output = tshark.arg("-r").arg(&file).output();
    std::fs::remove_file(&file).unwrap();
    let Ok(output) = output else {
        return skip::skip("tshark_finds_every_answers_checksums_right", "tshark is not installed");
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), answers.len(), "{}", String::from_utf8_lossy(&output.stderr));
    for (line, frame) in lines.iter().zip(&answers) {
        // 1 is good. An ICMP error over IPv4 quotes another IP header: the first is the outer one.
        let good = match parse(frame, frame.len()).kind {
            Kind::Icmp4 { .. } => "1\t1\t\t",
            _ => "\t\t1\t",
        };
        assert_eq!(*line, good, "{frame:02x?}");
    }
}
