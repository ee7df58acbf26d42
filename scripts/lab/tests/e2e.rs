//! End to end: kernel MPTCP clients and servers in network namespaces, and the shipped release programs between
//! them. What is asserted comes from the kernels' own counters, the digests at both ends, and Weft's counters.
//!
//! The tests share two cores and run one at a time. They need root, a kernel with MPTCP, and the release programs
//! in WEFT_BIN_DIR or the workspace's target/release; where one of these is missing a test says that it skipped,
//! and with WEFT_REQUIRE_ALL=1 it fails instead.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use weft_lab::balancer::{self, Balancer, Counted, Forward, Role};
use weft_lab::counters::Kernel;
use weft_lab::report::Run;
use weft_lab::stand::{LIMIT, Machine, Stand};
use weft_lab::topology::{BALANCER_MAC, Family};
use weft_lab::traffic::client::{Client, Options, Report};
use weft_lab::{demo, session, stand};

const CONNECTIONS: usize = 60;

/// The machine, or nothing after saying why this test cannot run here.
fn machine(test: &str) -> Option<Machine> {
    Machine::take(test, env!("CARGO_BIN_EXE_weft-lab"), env!("CARGO_TARGET_TMPDIR"))
}

fn helper() -> PathBuf {
    env!("CARGO_BIN_EXE_weft-lab").into()
}

fn usual(machine: &Machine) -> Stand {
    Stand::new(machine, 3, &balancer::Options::new(Forward::L2dsr, true)).unwrap()
}

fn owned_by(report: &Report, backend: &str) -> u64 {
    report.connections.iter().filter(|c| c.backend == backend).count() as u64
}

fn assert_whole(report: &Report) {
    assert_eq!(report.broken(), Vec::<String>::new());
    assert!(report.connections.iter().all(|c| c.rounds > 0));
    assert_eq!(report.joined(), report.connections.len());
}

#[test]
fn the_lab_carries_mptcp_without_a_balancer() {
    let Some(machine) = machine("the lab without a balancer") else {
        return;
    };
    for family in [Family::V4, Family::V6] {
        let lab = machine.lab(3, false).unwrap();
        lab.bypass(2).unwrap();
        let report = Client::start(&lab, &Options::new(family, 20)).unwrap().finish(LIMIT).unwrap();
        assert_whole(&report);
        assert_eq!(owned_by(&report, "b2"), 20);
        assert_eq!(Kernel::read(&lab.backends[1].namespace).unwrap().mptcp("MPJoinAckRx"), 20);
    }
}

fn pass(machine: &Machine, forward: Forward, ip: &str, steering: bool) -> Run {
    let options = demo::Options {
        forward,
        ip: ip.to_owned(),
        connections: u16::try_from(CONNECTIONS).unwrap(),
        steering: "learn".to_owned(),
        client_version: "v1".to_owned(),
        endpoint: None,
        report: None,
        faults: false,
        keep: false,
    };
    let lab = machine.lab(3, forward.is_tunnel()).unwrap();
    demo::pass(&lab, &machine.binaries, &options, steering, &|_| {}).unwrap()
}

fn every_join_reaches_its_owner(forward: Forward, ip: &str) {
    let Some(machine) = machine(&format!("{} over IPv{ip}", forward.name())) else {
        return;
    };
    let run = pass(&machine, forward, ip, true);
    let count = CONNECTIONS as u64;
    assert_whole(&run.client);
    assert_eq!(run.client.spread(), CONNECTIONS, "every subflow carries data both ways");
    assert_eq!(run.total("MPCapableACKRX"), count);
    assert_eq!(run.total("MPJoinAckRx"), count);
    assert_eq!(run.total("MPJoinNoTokenFound"), 0);
    for backend in &run.backends {
        assert_eq!(backend.kernel["MPJoinAckRx"], backend.connections as u64, "{}", backend.name);
    }
    assert!(run.weft.joins_by_token >= count);
    assert_eq!(run.weft.joins_astray(), 0);
    assert_eq!(run.weft.counter("token_learned"), count);
    assert_eq!((run.joins_captured, run.joins_misattributed), (CONNECTIONS, 0));
    assert!(run.joins_elsewhere_by_hash * 3 >= CONNECTIONS, "by luck the hash would have done as well");
}

#[test]
fn every_join_reaches_its_owner_with_l2dsr_over_ipv4() {
    every_join_reaches_its_owner(Forward::L2dsr, "4");
}

#[test]
fn every_join_reaches_its_owner_with_l2dsr_over_ipv6() {
    every_join_reaches_its_owner(Forward::L2dsr, "6");
}

#[test]
fn every_join_reaches_its_owner_with_ipip_over_ipv4() {
    every_join_reaches_its_owner(Forward::Ipip, "4");
}

#[test]
fn every_join_reaches_its_owner_with_ipip_over_ipv6() {
    every_join_reaches_its_owner(Forward::Ipip, "6");
}

#[test]
fn every_join_reaches_its_owner_with_gue_over_ipv4() {
    every_join_reaches_its_owner(Forward::Gue, "4");
}

#[test]
fn every_join_reaches_its_owner_with_gue_over_ipv6() {
    every_join_reaches_its_owner(Forward::Gue, "6");
}

#[test]
fn without_steering_the_joins_that_the_engine_says_go_elsewhere_are_refused() {
    let Some(machine) = machine("steering = []") else {
        return;
    };
    let run = pass(&machine, Forward::L2dsr, "4", false);
    assert_eq!(run.client.broken(), Vec::<String>::new());
    assert!(run.total("MPJoinNoTokenFound") * 3 >= CONNECTIONS as u64);
    assert_eq!(run.total("MPJoinNoTokenFound"), run.joins_elsewhere_by_hash as u64);
    assert_eq!(run.weft.joins_by_token, 0);
}

/// Packets that Weft did not deliver, by whatever name; frames for others are none of its business.
fn lost(counted: &Counted) -> u64 {
    let others = ["not_our_mac", "arp_not_ours", "not_vip", "other_protocol", "other_ethertype"];
    let ours = counted.drops.iter().filter(|(reason, _)| !others.contains(&reason.as_str()));
    let dropped: u64 = ours.map(|(_, packets)| packets).sum();
    dropped + counted.counter("tx_refused")
}

/// Traffic for some seconds, in which the control plane is killed and started again, or is left alone; returns the
/// packets lost meanwhile.
fn lost_in_traffic(stand: &mut Stand, kill: bool) -> u64 {
    let mut client = stand.endless(CONNECTIONS, 12).unwrap();
    assert_eq!(client.joined(LIMIT).unwrap(), CONNECTIONS);
    let before = stand.weft.counted().unwrap();
    if kill {
        stand.weft.kill(Role::Ctrlplane);
    }
    sleep(Duration::from_secs(2));
    if kill {
        stand.weft.start_again(Role::Ctrlplane).unwrap();
        stand.weft.wait_until_ready(LIMIT).unwrap();
    }
    sleep(Duration::from_secs(1));
    assert_whole(&client.finish(LIMIT).unwrap());
    lost(&stand.weft.counted().unwrap()) - lost(&before)
}

#[test]
fn killing_the_control_plane_under_traffic_loses_nothing_and_its_next_change_applies() {
    let Some(machine) = machine("kill -9 of weft-ctrlplane") else {
        return;
    };
    let mut stand = usual(&machine);
    let control = lost_in_traffic(&mut stand, false);
    let killed = lost_in_traffic(&mut stand, true);
    assert!(killed <= control, "{killed} packets lost with the kill, {control} without");
    assert_eq!(stand.backends("MPJoinNoTokenFound").unwrap(), [0, 0, 0]);

    stand.weft.weftctl(&["backend", "remove", "web-servers", "b3"]).unwrap();
    let report = stand.client(30).unwrap();
    assert_whole(&report);
    assert_eq!(owned_by(&report, "b3"), 0, "the change made after the restart applies");
    assert_eq!(stand.backends("MPJoinNoTokenFound").unwrap(), [0, 0, 0]);
}

#[test]
fn new_connections_work_while_the_control_plane_is_dead() {
    let Some(machine) = machine("connections without weft-ctrlplane") else {
        return;
    };
    let mut stand = usual(&machine);
    stand.weft.kill(Role::Ctrlplane);
    assert_whole(&stand.client(30).unwrap());
    assert_eq!(stand.backends("MPJoinNoTokenFound").unwrap(), [0, 0, 0]);
}

#[test]
fn backends_come_and_go_and_change_weight_without_breaking_a_connection() {
    let Some(machine) = machine("backends that come and go") else {
        return;
    };
    let stand = Stand::new(&machine, 4, &balancer::Options::new(Forward::L2dsr, true)).unwrap();
    // Their second subflows come only after everything has changed.
    stand.lab.remove_second_path().unwrap();
    let mut old = stand.endless(CONNECTIONS, 0).unwrap();
    old.joined(LIMIT).unwrap();
    let changes: [&[&str]; 5] = [
        &["backend", "weight", "web-servers", "b1", "1"],
        &[
            "backend",
            "add",
            "web-servers",
            "b4",
            "--address",
            "10.0.1.14",
            "--address",
            "fd00:1::14",
            "--mac",
            "02:00:00:00:03:04",
        ],
        &["backend", "remove", "web-servers", "b3"],
        &["backend", "weight", "web-servers", "b1", "100"],
        &["backend", "weight", "web-servers", "b2", "10"],
    ];
    for change in changes {
        // Handshakes are under way while the change applies.
        let young =
            Client::start(&stand.lab, &Options { join_wait: 0, ..Options::new(Family::V4, 20) }).unwrap();
        stand.weft.weftctl(change).unwrap();
        let young = young.finish(LIMIT).unwrap();
        assert_eq!(young.broken(), Vec::<String>::new(), "during {change:?}");
    }
    stand.lab.add_second_path().unwrap();
    for _ in 0..100 {
        if stand.backends("MPJoinAckRx").unwrap().iter().sum::<u64>() >= CONNECTIONS as u64 {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    let old = old.finish(LIMIT).unwrap();
    assert_whole(&old);
    assert_eq!(stand.backends("MPJoinNoTokenFound").unwrap(), [0, 0, 0, 0]);
    let owned = ["b1", "b2", "b3", "b4"].map(|b| owned_by(&old, b));
    assert_eq!(
        stand.backends("MPJoinAckRx").unwrap(),
        owned,
        "joins follow their connection, to a removed backend too"
    );
    assert!(owned[2] > 0, "some connections began on the backend that was removed");
    let new = stand.client(30).unwrap();
    assert_whole(&new);
    assert_eq!(owned_by(&new, "b3"), 0);
    assert!(owned_by(&new, "b4") > 0);
}

#[test]
fn backends_without_a_configured_mac_are_found_by_the_neighbour_table() {
    let Some(machine) = machine("backends without a MAC") else {
        return;
    };
    let options = balancer::Options { no_macs: true, ..balancer::Options::new(Forward::L2dsr, true) };
    let stand = Stand::new(&machine, 3, &options).unwrap();
    assert_whole(&stand.client(20).unwrap());
}

/// What Weft counted once closed connections have said their last word.
fn once_quiet(weft: &Balancer) -> Counted {
    let mut last = weft.counted().unwrap();
    loop {
        sleep(Duration::from_millis(500));
        let now = weft.counted().unwrap();
        if now.counter("tx_packets") == last.counter("tx_packets") {
            return now;
        }
        last = now;
    }
}

#[test]
fn the_balancer_answers_for_its_own_addresses_and_ignores_frames_for_others() {
    let Some(machine) = machine("ARP on af_packet") else {
        return;
    };
    let stand = usual(&machine);
    let client = &stand.lab.client;
    client.ip("neigh flush dev c0\nneigh add 10.0.1.77 lladdr 02:00:00:00:00:77 dev c0\n").unwrap();
    assert_whole(&stand.client(4).unwrap());
    let neighbour = client.run("ip", &["neigh", "show", "10.0.1.254", "dev", "c0"]).unwrap();
    assert!(neighbour.contains(BALANCER_MAC), "{neighbour}");
    // Nobody has that MAC: the bridge floods the frame, and the balancer's interface sees it.
    let before = once_quiet(&stand.weft);
    client.ip(&format!("route replace {} via 10.0.1.77 dev c0 metric 1\n", Family::V4.vip())).unwrap();
    client.run("bash", &["-c", "echo weft > /dev/udp/10.9.9.9/8000"]).unwrap();
    sleep(Duration::from_millis(500));
    let after = stand.weft.counted().unwrap();
    assert!(after.drop("not_our_mac") > before.drop("not_our_mac"));
    assert_eq!(after.counter("tx_packets"), before.counter("tx_packets"));
}

#[test]
fn two_labs_at_once_do_not_meet() {
    let Some(machine) = machine("two labs at once") else {
        return;
    };
    let stands = [usual(&machine), usual(&machine)];
    let clients = stands.each_ref().map(|s| Client::start(&s.lab, &Options::new(Family::V4, 30)).unwrap());
    for client in clients {
        assert_whole(&client.finish(LIMIT).unwrap());
    }
    for stand in &stands {
        assert_eq!(stand.backends("MPJoinAckRx").unwrap().iter().sum::<u64>(), 30);
        assert_eq!(stand.backends("MPJoinNoTokenFound").unwrap(), [0, 0, 0]);
    }
}

/// Starts the demo as a user does and waits until both of Weft's processes run.
fn started_demo() -> (Child, String) {
    let mut child = Command::new(helper())
        .arg("demo")
        .env("WEFT_BIN_DIR", stand::binary_dir(&helper()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("are ready")), "the demo ended early");
    // The rest must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    let run = format!("weft-{}-0", child.id());
    (child, run)
}

/// Processes whose arguments name the run: all that it started but those that have ended.
fn processes_of(run: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|e| std::fs::read_to_string(e.path().join("cmdline")).ok());
    lines.map(|l| l.replace('\0', " ")).filter(|l| l.contains(run)).collect()
}

/// Tables of data planes, dead or alive.
fn tables_on_hugetlbfs() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev/hugepages").into_iter().flatten().flatten();
    let named = entries.filter(|e| e.file_name().to_string_lossy().starts_with("weft-tables-"));
    named.map(|e| e.path()).collect()
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let Some(_machine) = machine("an interrupted demo") else {
        return;
    };
    for signal in [Signal::INT, Signal::TERM] {
        let (mut child, run) = started_demo();
        assert!(!session::leftovers(&run).is_empty());
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert!(!child.wait().unwrap().success());
        assert_eq!(session::leftovers(&run), Vec::<String>::new());
        assert_eq!(processes_of(&run), Vec::<String>::new());
    }
}

#[test]
fn what_a_killed_demo_leaves_goes_at_the_next_start() {
    let Some(machine) = machine("a killed demo") else {
        return;
    };
    let pages = tables_on_hugetlbfs();
    let (mut child, run) = started_demo();
    child.kill().unwrap();
    child.wait().unwrap();
    // A child that was being started in that instant may hold the run's lock until it has become its program.
    for _ in 0..50 {
        drop(machine.lab(1, false).unwrap());
        if session::leftovers(&run).is_empty() {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    assert_eq!(session::leftovers(&run), Vec::<String>::new());
    assert_eq!(processes_of(&run), Vec::<String>::new());
    let left: Vec<PathBuf> = tables_on_hugetlbfs().into_iter().filter(|file| !pages.contains(file)).collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "tables of the killed data plane would hold huge pages for good");
}
