//! The network around Weft: neighbours that change their MAC address, links that go down, servers behind a router,
//! VIPs on a network of the port's own, tagged ports.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use weft_lab::balancer::{Balancer, Forward, Options};
use weft_lab::document::Document;
use weft_lab::interrupt;
use weft_lab::router::{HOST, Router};
use weft_lab::stand::{LIMIT, Machine, Stand};
use weft_lab::topology::{BALANCER_MAC, Backend, Family, PORT};
use weft_lab::traffic::client::{self, Client, Report};
use weft_lab::traffic::probe::{self, Probe};

/// The machine, or nothing after saying why this test cannot run here.
fn machine(test: &str) -> Option<Machine> {
    Machine::take(test, env!("CARGO_BIN_EXE_weft-lab"), env!("CARGO_TARGET_TMPDIR"))
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const CONNECTIONS: usize = 12;

fn assert_whole(report: &Report) {
    assert_eq!(report.broken(), Vec::<String>::new());
    assert!(report.connections.iter().all(|c| c.rounds > 0));
    assert_eq!(report.joined(), report.connections.len());
}

/// A client of a VIP at `vip`, with a second subflow on every connection.
fn client(stand: &Stand, family: Family, vip: IpAddr) -> Report {
    let options = client::Options {
        service: (vip, PORT).into(),
        bytes: 65_536,
        ..client::Options::new(family, CONNECTIONS)
    };
    Client::start(&stand.lab, &options).unwrap().finish(LIMIT).unwrap()
}

/// Waits until `done`; panics with `what` where that takes too long.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let pause = Duration::from_millis(200);
    let answer = interrupt::poll(LIMIT, pause, || Ok(done().then_some(()))).unwrap();
    assert!(answer.is_some(), "{what}");
}

/// Waits until the probe loses nothing any more: of what was sent since the last look, all was answered.
fn wait_until_whole(probe: &mut Probe) {
    let mut before = probe.report().unwrap();
    wait_until("the probe is answered again", || {
        std::thread::sleep(Duration::from_millis(800));
        let now = probe.report().unwrap();
        let (sent, answered) = (now.sent - before.sent, now.answered - before.answered);
        before = now;
        sent > 100 && answered >= sent
    });
}

fn without_macs() -> Options {
    Options { no_macs: true, ..Options::new(Forward::L2dsr, true) }
}

/// The MAC address that Weft has for a backend.
fn mac(weft: &Balancer, backend: &str) -> String {
    let rows = weft.ask(&["backend", "list"]).unwrap();
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == backend).unwrap();
    row["mac"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_backend_that_changes_its_mac_address_under_traffic_is_followed() {
    let Some(machine) = machine("a backend's other MAC address") else {
        return;
    };
    let change = |document: &mut Document| *document = document.clone().with_probe();
    let (stand, _) = Stand::with(&machine, 3, &without_macs(), change).unwrap();
    let mut client = stand.endless(CONNECTIONS, 12).unwrap();
    client.joined(LIMIT).unwrap();
    let mut probe = Probe::start(&stand.lab, &probe::Options::new(Family::V4)).unwrap();
    let new = "02:00:00:00:03:a1";
    assert_eq!(mac(&stand.weft, "b1"), Backend::mac(1));
    stand.lab.backends[0].namespace.ip(&format!("link set e0 address {new}\n")).unwrap();
    wait_until("weftctl shows the new MAC address", || mac(&stand.weft, "b1") == new);
    wait_until_whole(&mut probe);
    assert_eq!(probe.report().unwrap().moved(), Vec::<String>::new(), "no flow went to another backend");
    assert_whole(&client.finish(LIMIT).unwrap());
    assert_eq!(stand.backends("MPJoinNoTokenFound").unwrap(), [0, 0, 0]);
}

/// The first port in `weftctl status`.
fn port(weft: &Balancer) -> Value {
    weft.status().unwrap().pointer("/dataplane/ports/0").unwrap().clone()
}

#[test]
fn a_link_that_goes_down_and_comes_up_is_counted_and_told_and_traffic_goes_on() {
    let Some(machine) = machine("a link that goes down") else {
        return;
    };
    let change = |document: &mut Document| *document = document.clone().with_probe();
    let options = Options::new(Forward::L2dsr, true);
    let (stand, _) = Stand::with(&machine, 3, &options, change).unwrap();
    let mut client = stand.endless(CONNECTIONS, 12).unwrap();
    client.joined(LIMIT).unwrap();
    let mut probe = Probe::start(&stand.lab, &probe::Options::new(Family::V4)).unwrap();
    let before = port(&stand.weft);
    assert_eq!(before["link_up"], true);
    let downs = before["link_downs"].as_u64().unwrap();

    stand.lab.switch.ip("link set p-lb down\n").unwrap();
    wait_until("the status says that the link is down", || port(&stand.weft)["link_up"] == false);
    let problems = stand.weft.status().unwrap()["problems"].to_string();
    assert!(problems.contains("has no link"), "{problems}");
    stand.lab.switch.ip("link set p-lb up\n").unwrap();
    wait_until("the status says that the link is up", || port(&stand.weft)["link_up"] == true);
    assert_eq!(port(&stand.weft)["link_downs"].as_u64().unwrap(), downs + 1);

    wait_until_whole(&mut probe);
    assert_eq!(probe.report().unwrap().moved(), Vec::<String>::new());
    assert_whole(&client.finish(LIMIT).unwrap());
}

/// Servers whose addresses are on no network of the port's: behind a router, on 10.0.4.0/24 and fd00:4::/64.
fn off_link(number: u8) -> Vec<IpAddr> {
    vec![format!("10.0.4.1{number}").parse().unwrap(), format!("fd00:4::1{number}").parse().unwrap()]
}

fn servers_behind_a_router(forward: Forward) {
    let Some(machine) = machine(&format!("{} across a router", forward.name())) else {
        return;
    };
    let lab = machine.lab(3, true).unwrap();
    let router = Router::new(&lab).unwrap();
    for backend in &lab.backends {
        let n = backend.number;
        backend
            .namespace
            .ip(&format!("addr add 10.0.4.1{n}/32 dev lo\naddr add fd00:4::1{n}/128 dev lo nodad\n"))
            .unwrap();
        router
            .namespace
            .ip(&format!("route add 10.0.4.1{n} via 10.0.1.1{n}\nroute add fd00:4::1{n} via fd00:1::1{n}\n"))
            .unwrap();
    }
    let mut document = Document::new(&without_macs(), &lab.file("weft")).with_probe();
    document.port.further = format!("gateway = [\"10.0.1.{HOST}\", \"fd00:1::{HOST}\"]\n");
    document.vips.iter_mut().for_each(|vip| vip.forward = forward);
    for member in document.members().unwrap() {
        member.addresses = Some(off_link(member.number));
    }
    let weft = Balancer::start_with(&lab, &lab.balancer, &machine.binaries, &document).unwrap();
    let stand = Stand { weft, lab };
    for family in FAMILIES {
        let before = router.forwarded().unwrap();
        assert_whole(&client(&stand, family, family.vip()));
        assert!(router.forwarded().unwrap() > before, "the router was on the way");
    }
    // The next hop's MAC address is followed as a backend's is.
    let mut probe = Probe::start(&stand.lab, &probe::Options::new(Family::V4)).unwrap();
    let new = "02:00:00:00:05:a1";
    router.namespace.ip(&format!("link set r0 address {new}\n")).unwrap();
    wait_until("weftctl shows the gateway's new MAC address", || mac(&stand.weft, "b1") == new);
    wait_until_whole(&mut probe);
    for family in FAMILIES {
        assert_whole(&client(&stand, family, family.vip()));
    }
}

#[test]
fn ipip_reaches_servers_behind_a_gateway() {
    servers_behind_a_router(Forward::Ipip);
}

#[test]
fn gue_reaches_servers_behind_a_gateway() {
    servers_behind_a_router(Forward::Gue);
}

#[test]
fn a_vip_on_the_ports_own_network_is_found_by_arp_and_neighbour_discovery() {
    let Some(machine) = machine("on-link VIPs") else {
        return;
    };
    let vips: [IpAddr; 2] = ["10.0.1.99".parse().unwrap(), "fd00:1::99".parse().unwrap()];
    let options = Options::new(Forward::L2dsr, true);
    let change = |document: &mut Document| document.vips[0].addresses = vips.into();
    let (stand, _) = Stand::with(&machine, 3, &options, change).unwrap();
    for backend in &stand.lab.backends {
        backend
            .namespace
            .ip(&format!("addr add {}/32 dev lo\naddr add {}/128 dev lo nodad\n", vips[0], vips[1]))
            .unwrap();
    }
    // No router: the VIPs are neighbours, on both paths.
    let routes = format!(
        "route add {v4} dev c0 src 10.0.1.1 metric 100\nroute add {v4} dev c1 src 10.0.2.1 metric 200\n\
         route add {v6} dev c0 src fd00:1::1 metric 100\nroute add {v6} dev c1 src fd00:2::1 metric 200\n",
        v4 = vips[0],
        v6 = vips[1],
    );
    stand.lab.client.ip(&routes).unwrap();
    for (family, vip) in FAMILIES.into_iter().zip(vips) {
        assert_whole(&client(&stand, family, vip));
        let neighbours = stand.lab.client.run("ip", &["neigh", "show", &vip.to_string()]).unwrap();
        assert_eq!(neighbours.matches(BALANCER_MAC).count(), 2, "{neighbours}");
    }
}

/// The balancer's cable is a trunk, and what Weft sends must bear the tags that came, its answers to ARP and neighbour
/// solicitations included; servers and clients know of none.
fn tagged(tags: u8, forward: Forward) {
    let Some(machine) = machine(&format!("{tags} VLAN tags with {}", forward.name())) else {
        return;
    };
    let lab = machine.lab(3, forward.is_tunnel()).unwrap();
    lab.take_from_kernel().unwrap();
    lab.tag_balancer(tags).unwrap();
    let mut document = Document::new(&Options::new(forward, true), &lab.file("weft"));
    document.port.take();
    let weft = Balancer::start_with(&lab, &lab.balancer, &machine.binaries, &document).unwrap();
    let stand = Stand { weft, lab };
    for family in FAMILIES {
        assert_whole(&client(&stand, family, family.vip()));
    }
    assert_eq!(stand.backends("MPJoinNoTokenFound").unwrap(), [0, 0, 0]);
}

#[test]
fn a_port_with_a_vlan_tag_serves() {
    tagged(1, Forward::L2dsr);
}

#[test]
fn a_port_with_a_vlan_tag_serves_by_tunnel() {
    tagged(1, Forward::Gue);
}

#[test]
fn a_port_with_two_vlan_tags_serves() {
    tagged(2, Forward::L2dsr);
}
