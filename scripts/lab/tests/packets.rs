//! What a real network brings besides TCP that fits: pings, paths with a small MTU, fragments, packets at the end of
//! their hops; with the kernels' own reactions as the evidence.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use weft_lab::balancer::{Balancer, Forward, Options};
use weft_lab::counters::Kernel;
use weft_lab::document::Document;
use weft_lab::namespace::Namespace;
use weft_lab::router::Router;
use weft_lab::stand::{LIMIT, Machine, Stand};
use weft_lab::topology::{Family, PROBE_PORT};
use weft_lab::traffic::client::{self, Client, Report};
use weft_lab::traffic::datagram;

/// The machine, or nothing after saying why this test cannot run here.
fn machine(test: &str) -> Option<Machine> {
    Machine::take(test, env!("CARGO_BIN_EXE_weft-lab"), env!("CARGO_TARGET_TMPDIR"))
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A client that waits at most so many seconds for second subflows.
fn client(stand: &Stand, family: Family, connections: usize, join_wait: u64) -> Report {
    let usual = client::Options::new(family, connections);
    let options = client::Options { join_wait, ..usual };
    Client::start(&stand.lab, &options).unwrap().finish(LIMIT).unwrap()
}

fn assert_unbroken(report: &Report) {
    assert_eq!(report.broken(), Vec::<String>::new());
    assert!(report.connections.iter().all(|c| c.rounds > 0));
}

/// The MTU that a kernel has learned for the path to an address, if it has.
fn learned_mtu(namespace: &Namespace, to: &str) -> Option<u32> {
    let route = namespace.run("ip", &["route", "get", to]).unwrap();
    let (_, rest) = route.split_once(" mtu ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[test]
fn a_ping_of_a_vip_is_answered_by_weft_itself() {
    let Some(machine) = machine("ping of a VIP") else {
        return;
    };
    let stand = Stand::new(&machine, 1, &Options::new(Forward::L2dsr, true)).unwrap();
    let echoes = || {
        let kernel = Kernel::read(&stand.lab.backends[0].namespace).unwrap();
        kernel.get("IcmpInEchos") + kernel.get("Icmp6InEchos")
    };
    let before = echoes();
    for family in FAMILIES {
        for size in ["0", "56", "1400"] {
            let vip = family.vip().to_string();
            let said = stand
                .lab
                .client
                .run("ping", &["-c", "3", "-i", "0.2", "-w", "30", "-s", size, &vip])
                .unwrap();
            assert!(said.contains("3 received"), "{said}");
        }
    }
    assert_eq!(echoes(), before, "no server was asked");
}

/// A tunnel port that carries no more than the client's own link does.
fn narrow_tunnel(forward: Forward, overhead: [u32; 2]) {
    let Some(machine) = machine(&format!("{} on an MTU of 1500", forward.name())) else {
        return;
    };
    let options = Options::new(forward, true);
    let (stand, _) = Stand::with(&machine, 3, &options, |document| document.port.mtu = 1500).unwrap();
    for (family, overhead) in FAMILIES.into_iter().zip(overhead) {
        let report = client(&stand, family, 6, 12);
        assert_unbroken(&report);
        assert_eq!(report.joined(), 6);
        let learned = learned_mtu(&stand.lab.client, &family.vip().to_string());
        assert_eq!(learned, Some(1500 - overhead), "{family}");
    }
    let kernel = Kernel::read(&stand.lab.client).unwrap();
    assert!(kernel.get("IcmpInDestUnreachs") > 0 && kernel.get("Icmp6InPktTooBigs") > 0);
}

#[test]
fn clients_learn_the_smaller_mtu_of_an_ipip_tunnel_and_go_on() {
    narrow_tunnel(Forward::Ipip, [20, 40]);
}

#[test]
fn clients_learn_the_smaller_mtu_of_a_gue_tunnel_and_go_on() {
    narrow_tunnel(Forward::Gue, [32, 52]);
}

/// A router in front of the client carries less than the server sends, and says so to the VIP.
fn narrow_path(forward: Forward) {
    let Some(machine) = machine(&format!("ICMP errors over {}", forward.name())) else {
        return;
    };
    let stand = Stand::new(&machine, 3, &Options::new(forward, true)).unwrap();
    let lab = &stand.lab;
    lab.remove_second_path().unwrap();
    let router = Router::new(lab).unwrap();
    router.connect_client(lab).unwrap();
    let (v4, v6) = (Family::V4.vip(), Family::V6.vip());
    router
        .namespace
        .ip(&format!(
            "route add {v4} via 10.0.1.254\nroute add {v6} via fd00:1::254\n\
             route add 10.0.50.1/32 dev r1 mtu lock 1400\nroute add fd00:50::1/128 dev r1 mtu lock 1400\n"
        ))
        .unwrap();
    lab.client
        .ip(&format!(
            "route add {v4} via 10.0.50.254 dev c2 src 10.0.50.1 metric 10\n\
             route add {v6} via fd00:50::254 dev c2 src fd00:50::1 metric 10\n"
        ))
        .unwrap();
    for backend in &lab.backends {
        backend
            .namespace
            .ip("route add 10.0.50.0/24 via 10.0.1.253\nroute add fd00:50::/64 via fd00:1::253\n")
            .unwrap();
    }
    for (family, client_address) in FAMILIES.into_iter().zip(["10.0.50.1", "fd00:50::1"]) {
        let mut served: BTreeSet<String> = BTreeSet::new();
        // One connection at a time, so that whoever learns something learns it from its own.
        for _ in 0..3 {
            let report = client(&stand, family, 1, 0);
            assert_unbroken(&report);
            served.insert(report.connections[0].backend.clone());
            for backend in &lab.backends {
                let expected = served.contains(&backend.name).then_some(1400);
                assert_eq!(learned_mtu(&backend.namespace, client_address), expected, "{}", backend.name);
            }
        }
    }
}

#[test]
fn a_routers_icmp_error_reaches_the_server_of_the_flow_with_l2dsr() {
    narrow_path(Forward::L2dsr);
}

#[test]
fn a_routers_icmp_error_reaches_the_server_of_the_flow_with_ipip() {
    narrow_path(Forward::Ipip);
}

#[test]
fn a_routers_icmp_error_reaches_the_server_of_the_flow_with_gue() {
    narrow_path(Forward::Gue);
}

fn datagrams(forward: Forward) {
    let Some(machine) = machine(&format!("UDP over {}", forward.name())) else {
        return;
    };
    // On AF_PACKET with a fan-out, as DPDK opens it, the kernel would put IPv4 fragments together first.
    let lab = machine.lab(3, forward.is_tunnel()).unwrap();
    lab.take_from_kernel().unwrap();
    let mut document = Document::new(&Options::new(forward, true), &lab.file("weft")).with_probe();
    document.port.take();
    let weft = Balancer::start_with(&lab, &lab.balancer, &machine.binaries, &document).unwrap();
    let stand = Stand { weft, lab };
    for backend in &stand.lab.backends {
        // The bridge, like any, does not tell them that the client's cable carries less than theirs.
        let routes = FAMILIES.map(|family| format!("route add {} dev e0 mtu 1500\n", family.client()[0]));
        backend.namespace.ip(&routes.concat()).unwrap();
    }
    for family in FAMILIES {
        let whole = datagram::Options {
            service: (family.vip(), PROBE_PORT).into(),
            bytes: 1000,
            ports: 16,
            rounds: 2,
        };
        let names = whole.send(&stand.lab, &stand.lab.client).unwrap();
        let (first, second) = names.split_at(16);
        assert_eq!(first, second, "a flow stays where it is");
        assert!(BTreeSet::from_iter(first).len() > 1, "ports tell flows apart");
        for bytes in [3000, 30_000] {
            let names =
                datagram::Options { bytes, ..whole.clone() }.send(&stand.lab, &stand.lab.client).unwrap();
            assert_eq!(names.len(), 32);
            assert_eq!(
                BTreeSet::from_iter(&names).len(),
                1,
                "the fragments of two addresses go to one server"
            );
        }
    }
}

#[test]
fn datagrams_and_their_fragments_are_answered_with_l2dsr() {
    datagrams(Forward::L2dsr);
}

#[test]
fn datagrams_and_their_fragments_are_answered_with_gue() {
    datagrams(Forward::Gue);
}

#[test]
fn packets_on_their_last_hop_are_served() {
    let Some(machine) = machine("a TTL of 1") else {
        return;
    };
    for forward in [Forward::L2dsr, Forward::Ipip, Forward::Gue] {
        let stand = Stand::new(&machine, 3, &Options::new(forward, true)).unwrap();
        stand.lab.remove_second_path().unwrap();
        for (family, via) in FAMILIES.into_iter().zip(["10.0.1.254", "fd00:1::254"]) {
            let vip = family.vip();
            stand.lab.client.ip(&format!("route add {vip} via {via} dev c0 metric 10 hoplimit 1\n")).unwrap();
            assert_unbroken(&client(&stand, family, 4, 0));
        }
    }
}
