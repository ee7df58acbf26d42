//! Outer headers of either family around either, read back by another parser and by hand.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

#[path = "support/answers.rs"]
#[allow(dead_code, reason = "only its sums are used here")]
mod answers;
#[path = "support/strategy.rs"]
mod strategy;

use answers::naive_sum;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use packet::build::packet;
use packet::tunnel::{self, Inner};
use packet::{Family, parse};
use proptest::prelude::*;

const A4: [u8; 4] = [10, 0, 1, 254];
const B4: [u8; 4] = [10, 0, 1, 11];
const A6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x54];
const B6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11];

/// The four forms, each with its outer family and whether it is GUE.
fn forms(inner: &Inner) -> [(Vec<u8>, Family, bool); 4] {
    [
        (inner.ip_over_v4(A4, B4).unwrap().to_vec(), Family::V4, false),
        (inner.ip_over_v6(A6, B6).to_vec(), Family::V6, false),
        (inner.gue_over_v4(A4, B4).unwrap().to_vec(), Family::V4, true),
        (inner.gue_over_v6(A6, B6).unwrap().to_vec(), Family::V6, true),
    ]
}

fn inner_of(frame: &[u8], hash: u64) -> (Inner, Vec<u8>) {
    let parsed = parse(frame, frame.len());
    let packet = frame[usize::from(parsed.l3)..usize::from(parsed.end)].to_vec();
    (Inner::new(frame, &parsed, parsed.packet_len(), hash), packet)
}

#[test]
fn the_forms_have_the_lengths_that_are_said() {
    let (inner, _) = inner_of(&packet().udp(1, 2).build(), 0);
    let lengths = forms(&inner).map(|(bytes, ..)| bytes.len());
    assert_eq!(lengths, [20, 40, 32, 52]);
    let said = [tunnel::IP_OVER_V4, tunnel::IP_OVER_V6, tunnel::GUE_OVER_V4, tunnel::GUE_OVER_V6];
    assert_eq!(lengths, said);
}

#[test]
fn a_gue_header_is_version_0_data_and_the_inner_protocol() {
    let (v4, _) = inner_of(&packet().udp(1, 2).payload(b"1234").build(), 0x0000_0000_0000_ffff);
    let v4 = v4.gue_over_v4(A4, B4).unwrap();
    // Port 65535 to 6080, 8 + 4 + 32 bytes, no checksum.
    assert_eq!(v4[20..], [0xff, 0xff, 0x17, 0xc0, 0, 44, 0, 0, 0, 4, 0, 0]);
    assert_eq!((v4[9], v4[8]), (17, 64));
    let (v6, _) = inner_of(&packet().ipv6(A6, B6).udp(1, 2).payload(b"1234").build(), 0);
    let v6 = v6.gue_over_v6(A6, B6).unwrap();
    assert_eq!(v6[40..], [0xc0, 0, 0x17, 0xc0, 0, 64, 0, 0, 0, 41, 0, 0]);
    assert_eq!((v6[6], v6[7]), (17, 64));
}

#[test]
fn private_data_lengthens_the_gue_header_and_nothing_else_does() {
    let (inner, _) = inner_of(&packet().udp(1, 2).payload(b"1234").build(), 0x0000_0000_0000_ffff);
    let longer = inner.with_private(3).gue_over_v4(A4, B4).unwrap();
    // Hlen 3, and 12 bytes more in UDP's length and in IP's.
    assert_eq!(longer[20..], [0xff, 0xff, 0x17, 0xc0, 0, 56, 0, 0, 3, 4, 0, 0]);
    let total = |bytes: &[u8]| u16::from_be_bytes([bytes[2], bytes[3]]);
    assert_eq!(total(&longer), total(&inner.gue_over_v4(A4, B4).unwrap()) + 12);
    let v6 = inner.with_private(3).gue_over_v6(A6, B6).unwrap();
    assert_eq!((&v6[4..6], &v6[44..46], v6[48]), (&[0, 56][..], &[0, 56][..], 3));
    // More than the field can say is cut, never a flag or a version.
    assert_eq!(inner.with_private(0xff).gue_over_v6(A6, B6).unwrap()[48], 31);
}

#[test]
fn a_packet_too_long_for_the_outer_header_gets_none() {
    let frame = packet().udp(1, 2).build();
    let parsed = parse(&frame, frame.len());
    let of = |len| Inner::new(&frame, &parsed, len, 0);
    assert!(of(65_515).ip_over_v4(A4, B4).is_some() && of(65_516).ip_over_v4(A4, B4).is_none());
    assert!(of(65_503).gue_over_v4(A4, B4).is_some() && of(65_504).gue_over_v4(A4, B4).is_none());
    assert!(of(65_523).gue_over_v6(A6, B6).is_some() && of(65_524).gue_over_v6(A6, B6).is_none());
    let private = |len| of(len).with_private(3).gue_over_v4(A4, B4);
    assert!(private(65_491).is_some() && private(65_492).is_none());
    assert_eq!(of(u16::MAX).ip_over_v6(A6, B6)[4..6], [0xff, 0xff]);
}

#[test]
fn dont_fragment_is_the_inner_ipv4_packets_and_always_set_around_ipv6() {
    let flag = |frame: &[u8]| inner_of(frame, 7).0.ip_over_v4(A4, B4).unwrap()[6];
    assert_eq!(flag(&packet().udp(1, 2).build()), 0x40);
    assert_eq!(flag(&packet().udp(1, 2).dont_fragment(false).build()), 0);
    assert_eq!(flag(&packet().ipv6(A6, B6).udp(1, 2).build()), 0x40);
}

#[test]
fn numbers_of_one_flow_stay_apart_and_so_do_fragments_of_one_datagram() {
    let number = |identification: u16, offset: u16, hash: u64| {
        let frame = packet().udp(1, 2).identification(identification).fragment(offset, true).build();
        let outer = inner_of(&frame, hash).0.ip_over_v4(A4, B4).unwrap();
        u16::from_be_bytes([outer[4], outer[5]])
    };
    let hash = 0x0123_4567_89ab_cdef;
    let mut seen: Vec<u16> = (0..=u16::MAX).map(|identification| number(identification, 0, hash)).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 1 << 16);
    // A datagram of 64 KiB over a link of 1500, beside its fifty successors.
    let mut seen: Vec<u16> = (0..50)
        .flat_map(|next| (0..45).map(move |index| (1000 + next, index * 185)))
        .map(|(identification, offset)| number(identification, offset, hash))
        .collect();
    let all = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() * 100 > all * 95, "{} of {all}", seen.len());
    assert_ne!(number(1, 0, hash), number(1, 0, !hash));
}

#[test]
fn a_flow_label_is_the_inner_one_or_the_flows_hash() {
    let label = |frame: &[u8], hash| {
        let bytes = inner_of(frame, hash).0.ip_over_v6(A6, B6);
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) & 0x000f_ffff
    };
    let v6 = packet().ipv6(A6, B6).udp(1, 2);
    assert_eq!(label(&v6.clone().flow_label(0xabcde).build(), 9), 0xabcde);
    assert_ne!(label(&v6.build(), 0x1234_5678_9abc_def0), 0);
    let v4 = packet().udp(1, 2).build();
    assert_ne!(label(&v4, 0x1234_5678_9abc_def0), label(&v4, 0x1234_8765_9abc_def0));
}

#[test]
fn source_ports_are_ephemeral_and_spread() {
    let mut seen = vec![0_u32; 1 << 14];
    for flow in 0..1_u64 << 17 {
        // Any well mixed 64 bits: a flow's hash is one.
        let mut hash = flow.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let port = tunnel::gue_source_port(hash);
        assert!(port >= 49_152);
        seen[usize::from(port) - 49_152] += 1;
    }
    let most = seen.iter().max().unwrap();
    assert!(*most < 40, "{most} flows on one of 16384 ports, 8 on average");
}

#[test]
fn source_ports_spread_among_flows_whose_hashes_begin_alike() {
    // A backend has some of Maglev's 65,537 places, each of them the flows whose hash begins with the same 16 bits.
    let ports: std::collections::BTreeSet<u16> = (0..1000_u64)
        .map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16)
        .map(tunnel::gue_source_port)
        .collect();
    assert!(ports.len() > 900, "{} ports for 1000 flows", ports.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_form_carries_the_packet_whole_with_its_class_and_reads_back(
        packet in strategy::packet(), hash: u64,
    ) {
        let frame = packet.build();
        let parsed = parse(&frame, frame.len());
        let (inner, bytes) = inner_of(&frame, hash);
        for (headers, family, gue) in forms(&inner) {
            let whole = [&headers[..], &bytes].concat();
            let oracle = SlicedPacket::from_ip(&whole).unwrap();
            let inside = if parsed.flow.family == Family::V4 { 4 } else { 41 };
            let (protocol, payload) = match oracle.net.as_ref().unwrap() {
                NetSlice::Ipv4(ip) => {
                    prop_assert_eq!(family, Family::V4);
                    let header = ip.header();
                    prop_assert_eq!(naive_sum(&[header.slice()]), 0xffff);
                    prop_assert_eq!((header.dcp().value() << 2) | header.ecn().value(), parsed.tos);
                    prop_assert_eq!((header.ttl(), header.source(), header.destination()), (64, A4, B4));
                    prop_assert_eq!(header.dont_fragment(), parsed.dont_fragment);
                    (header.protocol().0, ip.payload().payload)
                }
                NetSlice::Ipv6(ip) => {
                    prop_assert_eq!(family, Family::V6);
                    let header = ip.header();
                    prop_assert_eq!(header.traffic_class(), parsed.tos);
                    prop_assert_eq!((header.hop_limit(), header.source(), header.destination()), (64, A6, B6));
                    (header.next_header().0, ip.payload().payload)
                }
                NetSlice::Arp(_) => unreachable!(),
            };
            if !gue {
                prop_assert_eq!((protocol, payload), (inside, &bytes[..]));
                continue;
            }
            let Some(TransportSlice::Udp(udp)) = &oracle.transport else {
                return Err(TestCaseError::fail("no UDP"));
            };
            prop_assert_eq!((udp.destination_port(), udp.checksum()), (6080, 0));
            prop_assert_eq!(usize::from(udp.length()), 12 + bytes.len());
            prop_assert!(udp.source_port() >= 49_152);
            prop_assert_eq!(&udp.payload()[..4], &[0, inside, 0, 0]);
            prop_assert_eq!(&udp.payload()[4..], &bytes[..]);
        }
    }
}
