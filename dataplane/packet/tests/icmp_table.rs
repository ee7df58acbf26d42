//! ICMP errors, row by row: which flow is meant, as the client's own packets have it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use packet::build::{PacketBuilder, packet};
use packet::icmp::{Message, message, quoted, quoted_timestamp};
use packet::{Address, Family, Flow, ipv6, parse};
use proptest::prelude::*;

const CLIENT: [u8; 4] = [192, 0, 2, 7];
const ROUTER: [u8; 4] = [198, 51, 100, 1];
const VIP: [u8; 4] = [203, 0, 113, 10];
const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const ROUTER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];

fn asked(packet: &PacketBuilder) -> Option<Flow> {
    let frame = packet.build();
    quoted(&frame, &parse(&frame, frame.len()))
}

/// What the client sent from port 40000 to port 443.
fn flow(protocol: u8, family: Family) -> Flow {
    let (source, destination) = match family {
        Family::V4 => (Address::from_v4(CLIENT), Address::from_v4(VIP)),
        Family::V6 => (Address::from_v6(CLIENT6), Address::from_v6(VIP6)),
    };
    Flow { source, destination, source_port: 40_000, destination_port: 443, protocol, family }
}

/// What the server sent back, whose loss is told.
fn sent() -> PacketBuilder {
    packet().ipv4(VIP, CLIENT).tcp(443, 40_000).data(7, 9).payload(&[7; 100])
}

fn sent6() -> PacketBuilder {
    packet().ipv6(VIP6, CLIENT6).tcp(443, 40_000).data(7, 9).payload(&[7; 100])
}

fn error(quote: &[u8]) -> PacketBuilder {
    packet().ipv4(ROUTER, VIP).icmp_error(3, 4, 1400, quote)
}

fn error6(quote: &[u8]) -> PacketBuilder {
    packet().ipv6(ROUTER6, VIP6).icmp_error(2, 0, 1400, quote)
}

#[test]
fn every_error_type_gives_the_flow_the_client_sent_in() {
    let (tcp, udp) = (flow(6, Family::V4), flow(17, Family::V4));
    for (kind, code) in [(3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (11, 0), (11, 1), (12, 0), (12, 2)] {
        let from = packet().ipv4(ROUTER, VIP);
        let error = from.clone().icmp_error(kind, code, 0, &sent().build_ip());
        assert_eq!(asked(&error), Some(tcp), "{kind}/{code}");
        let datagram = packet().ipv4(VIP, CLIENT).udp(443, 40_000).payload(&[1]).build_ip();
        assert_eq!(asked(&from.icmp_error(kind, code, 0, &datagram)), Some(udp), "{kind}/{code}");
    }
    let (tcp, udp) = (flow(6, Family::V6), flow(17, Family::V6));
    for (kind, code) in [(1, 0), (1, 4), (2, 0), (3, 0), (3, 1), (4, 0), (4, 2)] {
        let from = packet().ipv6(ROUTER6, VIP6);
        let error = from.clone().icmp_error(kind, code, 0, &sent6().build_ip());
        assert_eq!(asked(&error), Some(tcp), "{kind}/{code}");
        let datagram = packet().ipv6(VIP6, CLIENT6).udp(443, 40_000).payload(&[1]).build_ip();
        assert_eq!(asked(&from.icmp_error(kind, code, 0, &datagram)), Some(udp), "{kind}/{code}");
    }
}

#[test]
fn quench_redirect_and_what_is_no_error_give_none() {
    // Source quench and redirect of IPv4; of IPv6 redirect, reserved numbers and the private experiments.
    for kind in [0, 4, 5, 8, 9, 10, 13, 30, 40, 255] {
        let other = packet().ipv4(ROUTER, VIP).icmp_error(kind, 0, 0, &sent().build_ip());
        assert_eq!(asked(&other), None, "{kind}");
    }
    for kind in [0, 5, 100, 101, 127, 128, 129, 137, 255] {
        let other = packet().ipv6(ROUTER6, VIP6).icmp_error(kind, 0, 0, &sent6().build_ip());
        assert_eq!(asked(&other), None, "{kind}");
    }
    assert_eq!(asked(&sent()), None);
}

#[test]
fn messages_are_told_apart_by_family_type_and_code() {
    let said = |packet: PacketBuilder| {
        let frame = packet.build();
        message(parse(&frame, frame.len()).kind)
    };
    let (v4, v6) = (packet().ipv4(ROUTER, VIP), packet().ipv6(ROUTER6, VIP6));
    assert_eq!(said(v4.clone().echo_request(1, 2, b"x")), Message::EchoRequest);
    assert_eq!(said(v6.clone().echo_request(1, 2, b"x")), Message::EchoRequest);
    assert_eq!(said(v4.clone().icmp(8, 1)), Message::Other);
    assert_eq!(said(v6.clone().icmp(8, 0)), Message::Other);
    assert_eq!(said(v4.clone().icmp(128, 0)), Message::Other);
    assert_eq!(said(v4.clone().icmp(3, 3)), Message::Error);
    assert_eq!(said(v6.clone().icmp(3, 0)), Message::Error);
    assert_eq!(said(v4.icmp(2, 0)), Message::Other);
    assert_eq!(said(v6.icmp(11, 0)), Message::Other);
    assert_eq!(said(packet().udp(1, 2)), Message::Other);
}

#[test]
fn eight_bytes_behind_the_quoted_headers_are_enough_and_seven_are_not() {
    for (packet, headers) in
        [(sent(), 20), (sent().ipv4_options(&[7, 7, 4, 0, 0, 0, 0]), 28), (sent().ipv4_options(&[1; 40]), 60)]
    {
        let quote = packet.build_ip();
        assert_eq!(asked(&error(&quote[..headers + 8])), Some(flow(6, Family::V4)));
        assert_eq!(asked(&error(&quote[..headers + 7])), None);
    }
    let options = [0; 6];
    for (packet, headers) in [
        (sent6(), 40),
        (sent6().extension(ipv6::HOP_BY_HOP, &options).extension(ipv6::ROUTING, &[0; 14]), 64),
        (sent6().extension(ipv6::DESTINATION_OPTIONS, &options).fragment(0, false), 56),
        (sent6().fragment(0, true), 48),
    ] {
        let quote = packet.build_ip();
        assert_eq!(asked(&error6(&quote[..headers + 8])), Some(flow(6, Family::V6)));
        for short in [headers + 7, headers, headers - 1, 40, 39, 0] {
            assert_eq!(asked(&error6(&quote[..short])), None, "{short} of {headers}");
        }
    }
}

#[test]
fn a_quoted_fragment_counts_only_if_it_is_the_first() {
    for (offset, more, is_first) in [(0, true, true), (1, true, false), (185, false, false)] {
        let expected = |family| is_first.then(|| flow(6, family));
        assert_eq!(asked(&error(&sent().fragment(offset, more).build_ip())), expected(Family::V4));
        assert_eq!(asked(&error6(&sent6().fragment(offset, more).build_ip())), expected(Family::V6));
    }
}

#[test]
fn extension_headers_behind_a_first_fragments_header_are_followed() {
    // Destination options stand behind the fragment header when they are for the last destination only.
    let options = packet().ipv6(VIP6, CLIENT6).protocol(ipv6::DESTINATION_OPTIONS).fragment(0, true);
    let ports = [443_u16.to_be_bytes(), 40_000_u16.to_be_bytes()].concat();
    let body = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &ports, &[0, 8, 0, 0]].concat();
    assert_eq!(asked(&error6(&options.payload(&body).build_ip())), Some(flow(17, Family::V6)));
}

#[test]
fn a_quote_from_another_address_than_the_error_went_to_gives_none() {
    let other = packet().ipv4([203, 0, 113, 11], CLIENT).tcp(443, 40_000).data(1, 1);
    assert_eq!(asked(&error(&other.build_ip())), None);
    // The client's own packet: only a router between Weft and the server can have seen it.
    assert_eq!(asked(&error(&packet().ipv4(CLIENT, VIP).tcp(40_000, 443).syn(1).build_ip())), None);
    let other = packet().ipv6(ROUTER6, CLIENT6).tcp(443, 40_000).data(1, 1);
    assert_eq!(asked(&error6(&other.build_ip())), None);
}

#[test]
fn a_quote_that_is_no_tcp_or_udp_packet_gives_none() {
    assert_eq!(asked(&error(&sent().icmp(0, 0).build_ip())), None);
    assert_eq!(asked(&error(&sent().protocol(50).build_ip())), None);
    assert_eq!(asked(&error(&sent6().build_ip())), None);
    assert_eq!(asked(&error6(&sent().build_ip())), None);
    assert_eq!(asked(&error6(&sent6().icmp(129, 0).build_ip())), None);
    assert_eq!(asked(&error6(&sent6().protocol(ipv6::NO_NEXT_HEADER).build_ip())), None);
    let mut quote = sent().build_ip();
    for first in [0x44, 0x05, 0x65, 0x4f] {
        quote[0] = first;
        quote.truncate(52);
        assert_eq!(asked(&error(&quote)), None, "{first:#x}");
    }
}

#[test]
fn more_extension_headers_than_are_followed_give_none() {
    let mut quoted = sent6();
    for _ in 0..8 {
        quoted = quoted.extension(ipv6::DESTINATION_OPTIONS, &[]);
    }
    assert_eq!(asked(&error6(&quoted.build_ip())), Some(flow(6, Family::V6)));
    quoted = quoted.extension(ipv6::DESTINATION_OPTIONS, &[]);
    assert_eq!(asked(&error6(&quoted.build_ip())), None);
}

#[test]
fn lengths_and_checksums_of_the_quoted_packet_are_not_looked_at() {
    let mut quote = sent().build_ip();
    quote[2..4].fill(0xff);
    quote[10..12].fill(0x55);
    assert_eq!(asked(&error(&quote)), Some(flow(6, Family::V4)));
    let mut quote = sent6().build_ip();
    quote[4..6].fill(0);
    assert_eq!(asked(&error6(&quote)), Some(flow(6, Family::V6)));
}

#[test]
fn the_errors_own_tags_options_and_extension_headers_are_passed_over() {
    let quote = sent().build_ip();
    assert_eq!(asked(&error(&quote).qinq(3, 4)), Some(flow(6, Family::V4)));
    assert_eq!(asked(&error(&quote).ipv4_options(&[7, 7, 4, 0, 0, 0, 0])), Some(flow(6, Family::V4)));
    assert_eq!(asked(&error(&quote).trailer(9)), Some(flow(6, Family::V4)));
    let quote = sent6().build_ip();
    let tagged = error6(&quote).vlan(3).extension(ipv6::HOP_BY_HOP, &[5, 2, 0, 0]);
    assert_eq!(asked(&tagged), Some(flow(6, Family::V6)));
}

#[test]
fn ethernet_padding_is_no_quote_and_a_buffer_with_the_ports_is_enough() {
    let quote = sent().build_ip();
    assert_eq!(asked(&error(&quote[..27]).trailer(40)), None);
    let frame = error(&quote).build();
    let parsed = parse(&frame[..70], frame.len());
    assert_eq!(quoted(&frame[..70], &parsed), Some(flow(6, Family::V4)));
    assert_eq!(quoted(&frame[..69], &parse(&frame[..69], frame.len())), None);
}

fn any_flow() -> impl Strategy<Value = Flow> {
    (any::<u128>(), any::<u128>(), any::<(u16, u16)>(), any::<bool>(), any::<bool>()).prop_map(
        |(source, destination, ports, udp, v6)| {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let address =
                |bits: u128| if v6 { Address(bits) } else { Address::from_v4(Address(bits).v4_octets()) };
            Flow {
                source: address(source),
                destination: address(destination),
                source_port: ports.0,
                destination_port: ports.1,
                protocol: if udp { 17 } else { 6 },
                family,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_flow_of_an_error_about_an_answer_is_the_flow_that_was_answered(
        flow in any_flow(), router: u128, kind in 0..4_usize, len in 0..100_usize, cut in 8..60_usize, tag: bool,
    ) {
        let back = Flow {
            source: flow.destination,
            destination: flow.source,
            source_port: flow.destination_port,
            destination_port: flow.source_port,
            ..flow
        };
        let mut quote = packet().flow(&back).payload(&vec![0; len]).build_ip();
        let headers = if flow.family == Family::V4 { 20 } else { 40 };
        quote.truncate(headers + cut);
        let (from, kind) = match flow.family {
            Family::V4 => (Address::from_v4(Address(router).v4_octets()), [3, 11, 12, 3][kind]),
            Family::V6 => (Address(router), [1, 2, 3, 4][kind]),
        };
        let mut error = packet().ip(from, flow.destination, flow.family).icmp_error(kind, 0, 0, &quote);
        if tag {
            error = error.vlan(7);
        }
        prop_assert_eq!(asked(&error), Some(flow));
    }
}

#[test]
fn the_servers_timestamp_is_read_from_a_quote_that_goes_far_enough() {
    let stamped = |error: &PacketBuilder| {
        let frame = error.build();
        quoted_timestamp(&frame, &parse(&frame, frame.len()))
    };
    for (quote, error, headers) in [
        (sent(), error as fn(&[u8]) -> PacketBuilder, 20),
        (sent6(), error6 as fn(&[u8]) -> PacketBuilder, 40),
    ] {
        let quote = quote.timestamps(0x0102_3007, 5).build_ip();
        assert_eq!(stamped(&error(&quote)), Some(0x0102_3007));
        // No-operation, no-operation, timestamps: 12 bytes behind the TCP header.
        assert_eq!(stamped(&error(&quote[..headers + 32])), Some(0x0102_3007));
        assert_eq!(stamped(&error(&quote[..headers + 31])), None);
        assert_eq!(stamped(&error(&quote[..headers + 8])), None, "what RFC 792 asks for");
    }
    let datagram = packet().ipv4(VIP, CLIENT).udp(443, 40_000).payload(&[8; 64]).build_ip();
    assert_eq!(stamped(&error(&datagram)), None);
    let elsewhere = packet().ipv4(ROUTER, CLIENT).tcp(443, 40_000).data(7, 9).build_ip();
    assert_eq!(stamped(&error(&elsewhere)), None);
}
