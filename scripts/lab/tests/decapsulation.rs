//! Tunnels, against what takes them apart: the XDP program of the lab's backends, and the modules of a stock Debian
//! kernel in a virtual machine.
//!
//! Where root, the shipped programs or the guest's kernel are missing a test says that it skipped; with WEFT_REQUIRE_ALL=1 it fails instead.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use skip::skip;
use weft_lab::balancer::{Balancer, Forward};
use weft_lab::interrupt;
use weft_lab::knock::{self, Form};
use weft_lab::process::Task;
use weft_lab::stand::Machine;
use weft_lab::topology::{BALANCER_INTERFACE, BALANCER_MAC, Backend, Family, Lab, MTU};
use weft_lab::traffic::client::{Client, Options};
use weft_lab::vm::{self, Guest};
use weft_lab::vm_image::Parts;

fn helper() -> PathBuf {
    env!("CARGO_BIN_EXE_weft-lab").into()
}

/// The machine, or nothing after saying why this test cannot run here.
fn machine(test: &str) -> Option<Machine> {
    Machine::take(test, env!("CARGO_BIN_EXE_weft-lab"), env!("CARGO_TARGET_TMPDIR"))
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn address(number: u8, family: Family) -> IpAddr {
    let (four, six) = Backend::addresses(number);
    if family == Family::V4 { four.into() } else { six.into() }
}

/// A packet to server `number` in one form.
fn knock(lab: &Lab, number: u8, form: Form, outer: Family, inner: Family, tries: u16) -> Result<(), String> {
    let options = knock::Options {
        form,
        door: address(number, outer),
        outer_source: outer.client()[0],
        vip: inner.vip(),
        source: inner.client()[0],
        tries,
    };
    let arguments = options.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    lab.client.run(helper(), &arguments).map(drop).map_err(|error| error.to_string())
}

/// Knocks at server `number` in every form and mix of families; what was refused, as sentences.
fn refused(lab: &Lab, number: u8) -> Vec<String> {
    let mixes = FAMILIES.into_iter().flat_map(|outer| FAMILIES.map(|inner| (outer, inner)));
    let all = mixes.flat_map(|(outer, inner)| Form::ALL.map(|form| (form, outer, inner)));
    all.filter_map(|(form, outer, inner)| knock(lab, number, form, outer, inner, 10).err()).collect()
}

#[test]
fn the_xdp_program_takes_every_form_apart() {
    let Some(machine) = machine("the XDP decapsulator") else {
        return;
    };
    let lab = machine.lab(1, true).unwrap();
    assert_eq!(refused(&lab, 1), Vec::<String>::new());
}

/// Number of the guest among the servers.
const GUEST: u8 = 9;

/// Makes the guest a backend: addresses, the VIP, and a tunnel for every mix of families.
const BACKEND: [&str; 5] = [
    // A tunnelled packet comes in on the tunnel, and its source's route leads out of eth0.
    "sysctl -q -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0",
    "ip link set eth0 up && ip addr add 10.0.1.19/24 dev eth0 && ip addr add 10.0.2.19/24 dev eth0",
    "ip addr add fd00:1::19/64 dev eth0 nodad && ip addr add fd00:2::19/64 dev eth0 nodad",
    "ip addr add 10.9.9.9/32 dev lo && ip addr add fd99::9/128 dev lo nodad",
    "ip -6 tunnel change ip6tnl0 mode any",
];
const TUNNELS: &str = "for t in tunl0 sit0 ip6tnl0; do ip link set $t up; done";
const GUE: &str = "ip fou add port 6080 gue && ip -6 fou add port 6080 gue";

/// A lab with the guest in it as server 9, or nothing after saying why there is none.
fn guest(test: &str) -> Option<(Guest, Lab, Machine)> {
    let machine = machine(test)?;
    let parts = match Parts::find(&helper()) {
        Ok(parts) => parts,
        Err(why) => {
            skip(test, &why.to_string());
            return None;
        }
    };
    let lab = machine.lab(0, false).unwrap();
    let mut guest = Guest::boot(&lab, &parts).unwrap();
    for line in BACKEND {
        guest.run(line).unwrap();
    }
    Some((guest, lab, machine))
}

#[test]
fn a_stock_kernel_takes_every_form_apart() {
    let Some((mut guest, lab, _machine)) = guest("the stock kernel's decapsulators") else {
        return;
    };
    let early = knock(&lab, GUEST, Form::Ipip, Family::V4, Family::V4, 2);
    assert!(early.is_err(), "without a tunnel nobody answers");
    guest.run(TUNNELS).unwrap();
    let early = knock(&lab, GUEST, Form::Gue, Family::V4, Family::V4, 2);
    assert!(early.is_err(), "without a GUE port nobody answers");
    guest.run(GUE).unwrap();
    assert_eq!(refused(&lab, GUEST), Vec::<String>::new());
}

/// A way to the guest: the VIP's port for it, the mode, the outer family, and what tcpdump calls its packets.
struct Way {
    port: u16,
    forward: Forward,
    outer: Family,
    filter: &'static str,
}

const WAYS: [Way; 4] = [
    Way { port: 8001, forward: Forward::Ipip, outer: Family::V4, filter: "ip proto 4 or ip proto 41" },
    Way { port: 8002, forward: Forward::Ipip, outer: Family::V6, filter: "ip6 proto 4 or ip6 proto 41" },
    Way { port: 8003, forward: Forward::Gue, outer: Family::V4, filter: "ip and udp dst port 6080" },
    Way { port: 8004, forward: Forward::Gue, outer: Family::V6, filter: "ip6 and udp dst port 6080" },
];

/// A VIP of both families for each way; each has a pool whose one backend has an address of the outer family only.
fn configuration(lab: &Lab) -> String {
    let mut text = format!(
        "[dataplane]\nworkers = [1]\nflows = 100_000\ntokens = 100_000\nruntime_dir = \"{}\"\n\
         [[dataplane.port]]\ndevice = \"net_af_packet0,iface={BALANCER_INTERFACE}\"\nmac = \"{BALANCER_MAC}\"\n\
         address = [\"10.0.1.254/24\", \"fd00:1::254/64\"]\nmtu = {MTU}\n",
        lab.file("weft").display()
    );
    for way in &WAYS {
        let name = format!("{}-{}", way.forward.name(), way.port);
        text += &format!(
            "[[vip]]\nname = \"{name}\"\naddress = [\"{}\", \"{}\"]\nport = {}\nforward = \"{}\"\n\
             [[vip.backend]]\nname = \"guest\"\naddress = \"{}\"\nmac = \"{}\"\n",
            Family::V4.vip(),
            Family::V6.vip(),
            way.port,
            way.forward.name(),
            address(GUEST, way.outer),
            vm::MAC,
        );
    }
    text
}

/// Waits for one packet on the guest's cable.
fn watch(lab: &Lab, way: &Way) -> Task {
    let log = lab.file(&format!("tcpdump-{}.log", way.port));
    let words = ["-n", "-l", "-c", "1", "-Z", "root", "-i", "p-vm", way.filter];
    let task = lab.switch.task("tcpdump", &helper(), "tcpdump".as_ref(), &words.map(str::to_owned), &log);
    interrupt::poll(PATIENCE, Duration::from_millis(20), || {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        Ok(said.contains("listening on").then_some(()))
    })
    .unwrap()
    .unwrap();
    task.unwrap()
}

const PATIENCE: Duration = Duration::from_secs(90);
const CONNECTIONS: usize = 4;

#[test]
fn joins_reach_a_stock_kernel_in_every_form() {
    let Some((mut guest, lab, machine)) = guest("MPTCP to a stock kernel") else {
        return;
    };
    guest.run(TUNNELS).unwrap();
    guest.run(GUE).unwrap();
    guest.run("sysctl -q -w net.mptcp.enabled=1 && ip mptcp limits set subflow 8").unwrap();
    let ports: String = WAYS.iter().map(|way| format!(" --port {}", way.port)).collect();
    guest.run(&format!("weft-lab serve --name guest{ports} >/run/serve.log 2>&1 &")).unwrap();
    guest.run("for i in $(seq 300); do grep -q listening /run/serve.log && break; sleep 0.1; done; cat /run/serve.log; grep -q listening /run/serve.log").unwrap();
    let _weft =
        Balancer::start_text(&lab, &lab.balancer, &machine.binaries, &lab.file("weft"), &configuration(&lab))
            .unwrap();
    for way in &WAYS {
        for inner in FAMILIES {
            let what = format!("{} of {inner} in {}", way.forward.name(), way.outer);
            let mut seen = watch(&lab, way);
            let before = joins(&mut guest);
            let options = Options {
                service: (inner.vip(), way.port).into(),
                bytes: 16_384,
                ..Options::new(inner, CONNECTIONS)
            };
            let report = Client::start(&lab, &options).unwrap().finish(PATIENCE).unwrap();
            assert_eq!(report.broken(), Vec::<String>::new(), "{what}");
            assert_eq!(report.spread(), CONNECTIONS, "{what}: both subflows carry data both ways");
            assert!(report.connections.iter().all(|c| c.backend == "guest" && c.rounds > 0), "{what}");
            assert_eq!(joins(&mut guest), before + CONNECTIONS as u64, "{what}");
            assert!(seen.next_line(PATIENCE).is_ok(), "{what}: on the wire");
        }
    }
    assert_eq!(guest.counter("MPTcpExtMPJoinNoTokenFound").unwrap(), 0);
}

fn joins(guest: &mut Guest) -> u64 {
    guest.counter("MPTcpExtMPJoinAckRx").unwrap()
}
