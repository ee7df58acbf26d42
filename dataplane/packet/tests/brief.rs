//! The straight-line reading of usual segments, held against the walk that reads every packet.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

#[path = "support/strategy.rs"]
mod strategy;

use packet::brief::{Brief4, Brief6};
use packet::build::packet;
use packet::{Family, Kind, Parsed, parse, walk};
use proptest::prelude::*;

/// What is read in one line is what the walk reads, and only of whole, usual segments.
fn agree(frame: &[u8]) {
    let parsed = walk(frame, frame.len());
    assert_eq!(parse(frame, frame.len()), parsed);
    if let Some(brief) = Brief4::read(frame) {
        usual(&parsed, Family::V4, brief.len);
        assert!(parsed.dont_fragment);
        assert_eq!((brief.flags, brief.words()), (parsed.tcp.flags, parsed.flow.short_words()));
        assert_eq!(brief.head.to_le_bytes(), frame[12..20]);
        assert_eq!(frame[15], parsed.tos);
    }
    if let Some(brief) = Brief6::read(frame) {
        usual(&parsed, Family::V6, brief.len);
        assert_eq!((brief.flags, brief.words()), (parsed.tcp.flags, parsed.flow.short_words()));
        assert_eq!(brief.destination.to_le_bytes(), parsed.flow.destination.v6_octets());
        assert_eq!(brief.head.to_le_bytes(), frame[14..22]);
    }
}

fn usual(parsed: &Parsed, family: Family, len: u16) {
    assert_eq!((parsed.kind, parsed.flow.family), (Kind::Tcp, family));
    assert_eq!((parsed.packet_len(), parsed.l3), (len, 14));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_segment_with_some_bytes_changed_or_cut_is_read_as_the_walk_reads_it(
        bytes in strategy::damaged(),
    ) {
        agree(&bytes);
    }
}

#[test]
fn every_single_changed_byte_and_every_cut_of_a_usual_segment_is_judged_alike() {
    let v4 = packet().ipv4([192, 0, 2, 1], [10, 9, 9, 9]).tcp(1025, 443).data(7, 8).payload(b"data").build();
    let (client, vip) = ([0x20; 16], [0xfd; 16]);
    let v6 = packet().ipv6(client, vip).tcp(1025, 443).data(7, 8).payload(b"data").build();
    assert!(Brief4::read(&v4).is_some() && Brief6::read(&v6).is_some());
    assert!(Brief4::read(&v6).is_none() && Brief6::read(&v4).is_none());
    for whole in [v4, v6] {
        for at in 0..whole.len() {
            agree(&whole[..at]);
            for byte in 0..=255 {
                let mut changed = whole.clone();
                changed[at] = byte;
                agree(&changed);
            }
        }
    }
}

#[test]
fn what_is_unusual_is_left_to_the_walk() {
    let of = || packet().ipv4([192, 0, 2, 1], [10, 9, 9, 9]).tcp(1025, 443).data(7, 8);
    assert!(Brief4::read(&of().build()).is_some());
    assert!(Brief4::read(&of().trailer(9).build()).is_some(), "Ethernet padding is usual");
    for unusual in [of().vlan(7), of().dont_fragment(false), of().fragment(0, true), of().fragment(8, false)]
    {
        assert!(Brief4::read(&unusual.build()).is_none());
    }
}
