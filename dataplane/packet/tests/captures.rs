//! Captures of real Linux clients and backends, read whole: nothing in them is malformed, every checksum is
//! right, and every join carries the token of a key that a third ACK showed.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::Path;

use packet::{Capable, Family, Join, Kind, Options, Parsed, Token, Version, checksum, options, parse};
use pcap_file::pcap::PcapReader;

fn read(name: &str) -> Vec<(Vec<u8>, Parsed, Options)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(name);
    let mut reader = PcapReader::new(File::open(path).unwrap()).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let frame = packet.unwrap().data.into_owned();
        let parsed = parse(&frame, frame.len());
        let options = options(parsed.tcp_options(&frame), parsed.tcp.flags, parsed.payload_len() > 0);
        packets.push((frame, parsed, options));
    }
    packets
}

/// File, packets, joins.
const CAPTURES: [(&str, usize, usize); 8] = [
    ("addaddr_with_port.pcap", 56, 2),
    ("cflag_addaddr.pcap", 44, 1),
    ("dss_checksum.pcap", 41, 1),
    ("ipv6_join_addaddr.pcap", 56, 2),
    ("token_steered_join.pcap", 41, 1),
    ("token_steered_join.lbview.pcap", 22, 1),
    ("v1_join_addaddr_data_fin.pcap", 56, 2),
    ("v1_join_addaddr_data_fin.lbview.pcap", 23, 1),
];

#[test]
fn every_join_carries_the_token_of_a_key_seen_before() {
    for (name, count, joins) in CAPTURES {
        let packets = read(name);
        assert_eq!(packets.len(), count, "{name}");
        let mut tokens = HashSet::new();
        let mut joined = 0;
        for (_, _, options) in &packets {
            if let Some(Capable::Ack { version, receiver, .. }) = options.capable {
                assert_eq!(version, Version::V1);
                tokens.insert(Token::from_key(version, &receiver));
            }
            if let Some(Join::Syn { token, .. }) = options.join {
                assert!(tokens.contains(&token), "{name}: {token} was not taught");
                joined += 1;
            }
        }
        assert_eq!(joined, joins, "{name}");
    }
}

#[test]
fn every_packet_is_well_formed_and_sums_up() {
    for (name, ..) in CAPTURES {
        for (frame, parsed, options) in read(name) {
            assert_eq!(parsed.kind, Kind::Tcp, "{name}");
            assert_eq!(options.malformed, None, "{name}: {options:?}");
            let (l3, l4, end) = (usize::from(parsed.l3), usize::from(parsed.l4), usize::from(parsed.end));
            if parsed.flow.family == Family::V4 {
                assert_eq!(checksum::ipv4_header(&frame[l3..l4]), 0, "{name}");
            }
            assert_eq!(checksum::transport(&parsed.flow, &frame[l4..end]), 0, "{name}");
        }
    }
}

#[test]
fn the_captures_hold_what_they_are_named_for() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut count = |what, is: bool| *seen.entry(what).or_default() += usize::from(is);
    for (name, ..) in CAPTURES {
        for (_, parsed, options) in read(name) {
            let add = options.add_addr;
            count("data_fin", options.dss.is_some_and(|dss| dss.data_fin));
            count(
                "checksum",
                options.dss.is_some_and(|dss| dss.mapping.is_some_and(|m| m.checksum.is_some())),
            );
            count("echo", add.is_some_and(|add| add.echo && add.hmac.is_none()));
            count("port", add.is_some_and(|add| add.port == Some(8443)));
            count("ipv6 address", add.is_some_and(|add| add.family == Family::V6));
            count("join answered", matches!(options.join, Some(Join::SynAck { .. })));
            count("join confirmed", matches!(options.join, Some(Join::Ack { .. })));
            count("over IPv6", parsed.kind == Kind::Tcp && parsed.flow.family == Family::V6);
            let capable = options.capable;
            let no_initial =
                matches!(capable, Some(Capable::SynAck { flags, .. }) if flags.no_initial_address());
            let checksums = matches!(capable, Some(Capable::Ack { flags, .. }) if flags.checksum());
            count("no initial address", no_initial);
            count("checksum agreed", checksums);
        }
    }
    for (what, times) in seen {
        assert!(times > 0, "{what}");
    }
}
