//! Another parser as the oracle: on right packets etherparse and ours see the same headers in the same places.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

#[path = "support/strategy.rs"]
mod strategy;

use etherparse::{Ipv6ExtensionSlice, NetSlice, SlicedPacket, TransportSlice};
use packet::{Address, Family, Kind, ParseError, Parsed, ipv6, parse};
use proptest::prelude::*;

fn place(frame: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - frame.as_ptr().addr()
}

fn agrees(frame: &[u8], parsed: &Parsed) {
    let oracle = SlicedPacket::from_ethernet(frame).unwrap();
    let net = oracle.net.as_ref().unwrap();
    let l3 = usize::from(parsed.l3);
    match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(place(frame, header.slice()), l3);
            assert_eq!(parsed.flow.family, Family::V4);
            assert_eq!(parsed.flow.source, Address::from_v4(header.source()));
            assert_eq!(parsed.flow.destination, Address::from_v4(header.destination()));
            assert_eq!(parsed.tos, frame[l3 + 1]);
            assert_eq!(parsed.ttl, header.ttl());
            assert_eq!(parsed.dont_fragment, header.dont_fragment());
            assert_eq!(usize::from(parsed.packet_len()), usize::from(header.total_len()));
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            assert_eq!(place(frame, header.slice()), l3);
            assert_eq!(parsed.flow.family, Family::V6);
            assert_eq!(parsed.flow.source, Address::from_v6(header.source()));
            assert_eq!(parsed.flow.destination, Address::from_v6(header.destination()));
            assert_eq!(parsed.tos, header.traffic_class());
            assert_eq!(parsed.ttl, header.hop_limit());
            assert_eq!(usize::from(parsed.packet_len()), 40 + usize::from(header.payload_length()));
        }
        NetSlice::Arp(_) => panic!("no ARP was made"),
    }
    let payload = oracle.ip_payload().unwrap();
    assert_eq!(parsed.flow.protocol, payload.ip_number.0);
    if payload.fragmented {
        let first = match net {
            NetSlice::Ipv4(ip) => ip.header().fragments_offset().value() == 0,
            NetSlice::Ipv6(ip) => ip.extensions().clone().into_iter().any(|extension| {
                matches!(extension, Ipv6ExtensionSlice::Fragment(f) if f.fragment_offset().value() == 0)
            }),
            NetSlice::Arp(_) => false,
        };
        let kind = match payload.ip_number.0 {
            6 => Kind::Error(ParseError::TcpFragment),
            17 => Kind::UdpFragment { first },
            _ => Kind::Error(ParseError::OtherFragment),
        };
        assert_eq!(parsed.kind, kind);
        return;
    }
    assert_eq!(place(frame, payload.payload), usize::from(parsed.l4));
    assert_eq!(place(frame, payload.payload) + payload.payload.len(), usize::from(parsed.end));
    transport_agrees(frame, parsed, oracle.transport.as_ref().unwrap());
}

fn transport_agrees(frame: &[u8], parsed: &Parsed, transport: &TransportSlice<'_>) {
    match transport {
        TransportSlice::Tcp(tcp) => {
            assert_eq!(parsed.kind, Kind::Tcp);
            assert_eq!(parsed.flow.source_port, tcp.source_port());
            assert_eq!(parsed.flow.destination_port, tcp.destination_port());
            assert_eq!(parsed.tcp.seq, tcp.sequence_number());
            assert_eq!(parsed.tcp.ack, tcp.acknowledgment_number());
            let flags = parsed.tcp.flags;
            let bits =
                [tcp.fin(), tcp.syn(), tcp.rst(), tcp.psh(), tcp.ack(), tcp.urg(), tcp.ece(), tcp.cwr()];
            let byte = bits.iter().rev().fold(0, |byte, bit| (byte << 1) | u8::from(*bit));
            assert_eq!(flags.0, byte);
            assert_eq!(
                (flags.fin(), flags.syn(), flags.rst(), flags.ack()),
                (tcp.fin(), tcp.syn(), tcp.rst(), tcp.ack())
            );
            assert_eq!(parsed.tcp_options(frame), tcp.options());
            assert_eq!(frame[usize::from(parsed.payload)..usize::from(parsed.end)], *tcp.payload());
        }
        TransportSlice::Udp(udp) => {
            assert_eq!(parsed.kind, Kind::Udp);
            assert_eq!(parsed.flow.source_port, udp.source_port());
            assert_eq!(parsed.flow.destination_port, udp.destination_port());
            // A damaged length may leave bytes between the datagram's end and the packet's.
            let rest = &frame[usize::from(parsed.payload)..usize::from(parsed.end)];
            assert!(rest.starts_with(udp.payload()));
        }
        TransportSlice::Icmpv4(icmp) => {
            assert_eq!(parsed.kind, Kind::Icmp4 { kind: icmp.type_u8(), code: icmp.code_u8() });
        }
        TransportSlice::Icmpv6(icmp) => {
            assert_eq!(parsed.kind, Kind::Icmp6 { kind: icmp.type_u8(), code: icmp.code_u8() });
        }
        other => panic!("no {other:?} was made"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

    #[test]
    fn a_right_packet_is_seen_as_etherparse_sees_it(packet in strategy::packet()) {
        let frame = packet.build();
        let parsed = parse(&frame, frame.len());
        prop_assert!(!matches!(parsed.kind, Kind::Error(_)), "{:?}", parsed);
        agrees(&frame, &parsed);
    }

    #[test]
    fn a_fragment_is_seen_as_etherparse_sees_it(packet in strategy::fragment()) {
        let frame = packet.build();
        agrees(&frame, &parse(&frame, frame.len()));
    }

    #[test]
    fn what_ours_takes_of_a_damaged_packet_etherparse_takes_too(
        packet in strategy::packet(),
        at in any::<prop::sample::Index>(),
        byte: u8,
    ) {
        let mut frame = packet.build();
        // Behind the Ethernet header and its tags; a changed type would only change the subject.
        let l3 = usize::from(parse(&frame, frame.len()).l3);
        let at = l3 + at.index(frame.len() - l3);
        frame[at] = byte;
        let parsed = parse(&frame, frame.len());
        if matches!(parsed.kind, Kind::Tcp | Kind::Udp) {
            let oracle = SlicedPacket::from_ethernet(&frame);
            prop_assert!(oracle.is_ok(), "{:?}", oracle);
            // Extension headers that etherparse does not follow.
            let protocol = oracle.ok().and_then(|oracle| Some(oracle.ip_payload()?.ip_number.0));
            if !matches!(protocol, Some(ipv6::MOBILITY | ipv6::HIP | ipv6::SHIM6)) {
                agrees(&frame, &parsed);
            }
        }
    }
}
