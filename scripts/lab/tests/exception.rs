//! The exception path: a balancer whose port the kernel sees nothing of, as with a NIC that DPDK has taken, and what
//! needs a kernel all the same: BGP by a real BIRD on either side, ping, TCP to the balancer's own addresses.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use skip::skip;
use weft_lab::balancer::{Balancer, Forward, Options};
use weft_lab::bird::Bird;
use weft_lab::counters::Kernel;
use weft_lab::document::Document;
use weft_lab::interrupt;
use weft_lab::router::Router;
use weft_lab::stand::{LIMIT, Machine};
use weft_lab::topology::{BALANCER_MAC, Family, Lab, PORT};
use weft_lab::traffic::client::{self, Client, Report};

/// The machine, or nothing after saying why this test cannot run here.
fn machine(test: &str) -> Option<Machine> {
    Machine::take(test, env!("CARGO_BIN_EXE_weft-lab"), env!("CARGO_TARGET_TMPDIR"))
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const CONNECTIONS: usize = 10;
/// The balancer's own addresses.
const OWN: [&str; 2] = ["10.0.1.254", "fd00:1::254"];

fn assert_whole(report: &Report) {
    assert_eq!(report.broken(), Vec::<String>::new());
    assert!(report.connections.iter().all(|c| c.rounds > 0));
    assert_eq!(report.joined(), report.connections.len());
}

/// A lab whose balancer has its port to itself and the kernel behind `weft0`.
struct Stand {
    _weft: Balancer,
    lab: Lab,
}

fn stand(machine: &Machine) -> Stand {
    let lab = machine.lab(3, false).unwrap();
    lab.take_from_kernel().unwrap();
    let mut document = Document::new(&Options::new(Forward::L2dsr, true), &lab.file("weft"));
    document.port.take();
    document.port.further = "exception = \"weft0\"\n".to_owned();
    let weft = Balancer::start_with(&lab, &lab.balancer, &machine.binaries, &document).unwrap();
    // From here on the kernel answers for them.
    for address in &document.port.addresses {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        lab.balancer.ip(&format!("addr add {address} dev weft0 {nodad}\n")).unwrap();
    }
    lab.balancer.ip("link set weft0 up\n").unwrap();
    Stand { _weft: weft, lab }
}

fn client(lab: &Lab, family: Family) -> Report {
    Client::start(lab, &client::Options::new(family, CONNECTIONS)).unwrap().finish(LIMIT).unwrap()
}

/// Waits until `done`; panics with `what` where that takes too long.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let pause = Duration::from_millis(200);
    let answer = interrupt::poll(LIMIT, pause, || Ok(done().then_some(()))).unwrap();
    assert!(answer.is_some(), "{what}");
}

/// The first part of docs/operating.md in the language `bird`, so that what stands there works.
fn documented_configuration() -> &'static str {
    let page = include_str!("../../../docs/operating.md");
    let (_, rest) = page.split_once("```bird\n").unwrap();
    rest.split_once("```").unwrap().0
}

/// What an operator of the router would write.
const ROUTER: &str = "\
log stderr all;
router id 10.0.1.253;
protocol device {}
protocol kernel { ipv4 { import none; export all; }; }
protocol kernel { ipv6 { import none; export all; }; }
protocol bgp weft4 {
  local 10.0.1.253 as 65000;
  neighbor 10.0.1.254 as 65001;
  connect delay time 1;
  connect retry time 2;
  error wait time 1, 2;
  ipv4 { import all; export none; };
}
protocol bgp weft6 {
  local fd00:1::253 as 65000;
  neighbor fd00:1::254 as 65001;
  connect delay time 1;
  connect retry time 2;
  error wait time 1, 2;
  ipv6 { import all; export none; };
}
";

/// Whether the router has a route to the VIP; over IPv6 it may be by way of a link-local address.
fn routed(router: &Router, family: Family) -> bool {
    let version = if family == Family::V4 { "-4" } else { "-6" };
    let vip = family.vip().to_string();
    let route = router.namespace.run("ip", &[version, "route", "show", &vip]).unwrap();
    route.contains(" via ")
}

#[test]
fn bird_announces_the_vips_over_the_exception_path_and_withdraws_them() {
    let test = "BGP over the exception path";
    let Some(machine) = machine(test) else {
        return;
    };
    if let Some(why) = Bird::missing() {
        return skip(test, why);
    }
    let stand = stand(&machine);
    let router = Router::new(&stand.lab).unwrap();
    // The client knows the router only; nobody tells it of the balancer.
    stand.lab.route_by(253).unwrap();
    let mut upstream = Bird::start(&stand.lab, &router.namespace, "router-bird", ROUTER).unwrap();
    let mut speaker =
        Bird::start(&stand.lab, &stand.lab.balancer, "weft-bird", documented_configuration()).unwrap();
    for family in FAMILIES {
        wait_until(&format!("the router has a route to {}", family.vip()), || routed(&router, family));
        let before = router.forwarded().unwrap();
        assert_whole(&client(&stand.lab, family));
        assert!(router.forwarded().unwrap() > before, "the router was on the way");
    }
    let sessions = upstream.ask(&["show", "protocols"]).unwrap();
    assert_eq!(sessions.matches("Established").count(), 2, "{sessions}");
    // The VIPs are nothing to the balancer's own kernel.
    assert_eq!(Kernel::read(&stand.lab.balancer).unwrap().get("TcpOutRsts"), 0);

    assert!(speaker.ask(&["show", "protocols"]).unwrap().contains("Established"));
    speaker.stop();
    for family in FAMILIES {
        wait_until(&format!("the router forgot {}", family.vip()), || !routed(&router, family));
    }
    let refused = client(&stand.lab, Family::V4);
    assert_eq!(refused.broken().len(), CONNECTIONS, "without a route nobody is reached");
}

#[test]
fn ping_arp_and_tcp_reach_the_kernel_over_the_exception_path() {
    let Some(machine) = machine("the kernel behind the exception path") else {
        return;
    };
    let stand = stand(&machine);
    let lab = &stand.lab;
    // An ssh server would stand here.
    let mut server = lab
        .balancer
        .task(
            "a server on the balancer",
            &lab.helper,
            &lab.helper,
            &["serve", "--name", "own", "--port", &PORT.to_string()].map(str::to_owned),
            &lab.file("own.log"),
        )
        .unwrap();
    server.next_line(LIMIT).unwrap();
    lab.client.ip("neigh flush dev c0\nneigh flush dev c1\n").unwrap();
    for own in OWN {
        lab.client.run("ping", &["-c", "3", "-i", "0.2", "-w", "30", own]).unwrap();
        let neighbour = lab.client.run("ip", &["neigh", "show", own]).unwrap();
        assert!(neighbour.contains(BALANCER_MAC), "{neighbour}");
        // Large segments both ways: checksums and segmentation are the kernel's own.
        let options = client::Options {
            service: (own.parse::<std::net::IpAddr>().unwrap(), PORT).into(),
            join_wait: 0,
            ..client::Options::new(Family::V4, 4)
        };
        let report = Client::start(lab, &options).unwrap().finish(LIMIT).unwrap();
        assert_eq!(report.broken(), Vec::<String>::new());
        assert!(report.connections.iter().all(|c| c.backend == "own" && c.rounds > 0), "{report:?}");
    }
    // The other way: the balancer's kernel resolves the client by itself.
    lab.balancer.ip("neigh flush dev weft0\n").unwrap();
    for peer in ["10.0.1.1", "fd00:1::1"] {
        lab.balancer.run("ping", &["-c", "1", "-w", "30", peer]).unwrap();
        let neighbour = lab.balancer.run("ip", &["neigh", "show", peer, "dev", "weft0"]).unwrap();
        assert!(neighbour.contains("lladdr"), "{neighbour}");
    }
    // And clients are served beside all this.
    for family in FAMILIES {
        assert_whole(&client(lab, family));
    }
}
