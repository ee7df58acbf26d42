//! `weft-bench verify` on what the engine really makes of traffic, and on the same with one thing broken at a time:
//! what is right passes, in every way of forwarding and every mix of families, and what is broken is named.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests are tests")]

mod broken;
mod generated;
mod support;

use std::time::Duration;

use packet::build::{PacketBuilder, packet};
use packet::{Family, Token};
use support::{Case, PORT, Seen, Weft, config, connection, flow, key, traffic};

/// Ways of forwarding and pools, as far as they go together: l2dsr needs an address of the packet's family only to
/// find the port.
const WAYS: [(&str, &str); 8] = [
    ("l2dsr", "both"),
    ("ipip", "both"),
    ("gue", "both"),
    ("ipip", "four"),
    ("gue", "four"),
    ("ipip", "six"),
    ("gue", "six"),
    ("l2dsr", "four"),
];

#[test]
fn what_the_engine_makes_of_traffic_verifies_in_every_way_of_forwarding_and_every_mix_of_families() {
    for port in [PORT, ""] {
        for (forward, pool) in WAYS {
            // Without a port there is no address to tunnel from but the VIP's own, of the packet's family.
            if port.is_empty() && pool != "both" {
                continue;
            }
            let config = config(port, pool, forward);
            let input = traffic(60);
            let output = Weft::new(&config).run(&input);
            let report = Case::new(&config).verify(&input, &output);
            assert!(report.verified, "{forward} to {pool}:\n{}", report.to_text());
            assert_eq!(report.joins, 60, "{}", report.to_text());
            assert_eq!(report.packets_out, output.len() as u64);
            assert!(report.answers >= 2, "{}", report.to_text());
            let dropped =
                |what: &str| report.absent.iter().find(|absent| absent.what.contains(what)).unwrap();
            assert_eq!(dropped("joins of unknown tokens").packets, 2);
            assert_eq!(dropped("nobody's service").packets, 2);
        }
    }
}

#[test]
fn a_tunnel_that_leaves_through_a_gateway_and_from_a_source_of_its_own_verifies() {
    let port = "tunnel_source = [\"10.0.1.200\", \"fd00:1::200\"]\n[[dataplane.port]]\ndevice = \"net_null0\"\n\
                address = [\"10.0.7.254/24\", \"fd00:7::254/64\"]\ngateway = [\"10.0.7.1\", \"fd00:7::1\"]\n";
    for forward in ["ipip", "gue"] {
        let config = config(port, "both", forward);
        let input = traffic(20);
        let output = Weft::new(&config).run(&input);
        let report = Case::new(&config).verify(&input, &output);
        assert!(report.verified, "{}", report.to_text());
    }
}

#[test]
fn a_join_of_a_connection_from_before_the_capture_is_known_by_the_warm_up() {
    let config = config(PORT, "both", "ipip");
    let mut weft = Weft::new(&config);
    let mut all = traffic(0);
    all.extend(
        connection(Family::V4, 1).iter().map(|packet| (Duration::from_secs(1_700_000_001), packet.build())),
    );
    let (warm, input) = all.split_at(all.len() - 4);
    weft.run(warm);
    let output = weft.run(input);
    let mut case = Case::new(&config);
    let report = case.verify(input, &output);
    assert_eq!(
        report.kinds.keys().copied().collect::<Vec<_>>(),
        ["join of an unknown token"],
        "{}",
        report.to_text()
    );

    case.options.warm = Some(case.write("warm.pcap", warm));
    let report = case.verify(input, &output);
    assert!(report.verified, "{}", report.to_text());
}

#[test]
fn joins_of_tokens_that_two_connections_claim_may_be_dropped_or_follow_either() {
    let config = config(PORT, "both", "gue");
    let mut packets: Vec<PacketBuilder> = Vec::new();
    // Twenty connections whose server gave one key: on three backends, so some are rivals.
    let (server, token) = key(7);
    for host in 0..20 {
        let first = flow(Family::V4, host, 40_000, 443);
        let of = || packet().flow(&first);
        packets.push(of().syn(1000).mp_capable_syn_v1());
        packets.push(of().data(1001, 77).mp_capable_ack(
            packet::Version::V1,
            packet::Key([u8::try_from(host).unwrap(); 8]),
            server,
        ));
    }
    for host in 100..110 {
        let join = flow(Family::V6, host, 50_000, 443);
        packets.push(packet().flow(&join).syn(1).mp_join_syn(token, 5, 1));
    }
    let at = Duration::from_secs(1_700_000_000);
    let input: Vec<Seen> = packets.iter().map(|packet| (at, packet.build())).collect();
    let output = Weft::new(&config).run(&input);
    let report = Case::new(&config).verify(&input, &output);
    assert!(report.verified, "{}", report.to_text());
    assert_eq!(report.absent.iter().map(|absent| absent.packets).sum::<u64>(), 10, "{}", report.to_text());
}

#[test]
fn a_join_that_overtakes_its_third_ack_is_dropped_and_comes_again() {
    let config = config(PORT, "both", "ipip");
    let mut packets: Vec<PacketBuilder> = connection(Family::V4, 2);
    let join = packets[3].clone();
    packets.insert(1, join);
    let at = Duration::from_secs(1_700_000_000);
    let input: Vec<Seen> = packets.iter().map(|packet| (at, packet.build())).collect();
    let output = Weft::new(&config).run(&input);
    assert_eq!(output.len(), input.len() - 1);
    let report = Case::new(&config).verify(&input, &output);
    assert!(report.verified && report.joins == 1, "{}", report.to_text());
    assert!(report.absent[0].what.contains("unknown tokens") && report.absent[0].first == [2]);
    assert_ne!(key(2).1, Token(0));
}

#[test]
fn captures_of_real_linux_clients_verify() {
    let captures =
        ["ipv6_join_addaddr", "token_steered_join.lbview", "v1_join_addaddr_data_fin.lbview", "dss_checksum"];
    for name in captures {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../dataplane/packet/tests/captures");
        let path = std::path::PathBuf::from(format!("{folder}/{name}.pcap"));
        let mut reader = capture::CaptureReader::open(&path).unwrap();
        let mut input: Vec<Seen> = Vec::new();
        while let Some(record) = reader.read().unwrap() {
            input.push((record.time, record.bytes));
        }
        // The VIPs of those captures listen on another port.
        let config = config("", "both", "ipip").replace("port = 443", "port = \"any\"");
        let output = Weft::new(&config).run(&input);
        assert!(!output.is_empty(), "{name}");
        let report = Case::new(&config).verify(&input, &output);
        assert!(report.verified && report.joins > 0, "{name}: {}", report.to_text());
    }
}

#[test]
fn the_verifier_uses_nothing_of_what_it_verifies() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/verify");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for of_weft in ["packet", "engine", "site", "dpdk"] {
            let used = format!("use {of_weft}::");
            assert!(!text.contains(&used), "{}: {used}", path.display());
        }
        files += 1;
    }
    assert!(files > 10);
}
