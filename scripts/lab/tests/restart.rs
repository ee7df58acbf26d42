//! Processes that die under traffic: kernel MPTCP clients with joined subflows, a steady UDP stream beside them, and
//! the shipped programs, killed with SIGKILL and started again with another configuration file.
//!
//! What is asserted comes from the kernels: a packet that reaches a backend which does not hold its connection is
//! answered with RST (`TcpOutRsts`), a join that does with `MPJoinNoTokenFound`; digests show that data went on.
//! See tests/e2e.rs for what the tests need.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;
use weft_lab::balancer::{Forward, Options, Role};
use weft_lab::document::Document;
use weft_lab::faults::{self, Restart};
use weft_lab::stand::{self, LIMIT, Machine, Stand};
use weft_lab::topology::Family;
use weft_lab::traffic::client::Client;
use weft_lab::traffic::probe::{self, Probe, boot_millis};

const CONNECTIONS: usize = 40;

fn machine(test: &str) -> Option<Machine> {
    Machine::take(test, env!("CARGO_BIN_EXE_weft-lab"), env!("CARGO_TARGET_TMPDIR"))
}

/// Four servers; the configuration lists three of them, and a VIP for the probe.
fn prepared(machine: &Machine) -> (Stand, Document) {
    let options = Options::new(Forward::L2dsr, true);
    Stand::with(machine, 4, &options, |document| *document = document.clone().with_probe()).unwrap()
}

/// Asks twice: every connection is alive and has moved data in between.
fn assert_goes_on(client: &mut Client) {
    let (before, after) = (client.now(LIMIT).unwrap(), client.now(LIMIT).unwrap());
    assert_eq!(after.broken(), Vec::<String>::new());
    assert_eq!(stand::alive(&before, &after), after.connections.len());
}

/// Waits until the backends have accepted `count` joins in all; returns how many each has.
fn joins(stand: &Stand, count: u64) -> Vec<u64> {
    for _ in 0..600 {
        let joins = stand.backends("MPJoinAckRx").unwrap();
        if joins.iter().sum::<u64>() >= count {
            return joins;
        }
        sleep(Duration::from_millis(100));
    }
    stand.backends("MPJoinAckRx").unwrap()
}

/// Traffic, a restart of `roles` by `signal` with a changed configuration, and everything that must still hold.
fn survives(test: &str, roles: &[Role], signal: Signal) {
    let Some(machine) = machine(test) else {
        return;
    };
    let (mut stand, document) = prepared(&machine);
    let mut probe = Probe::start(&stand.lab, &probe::Options::new(Family::V4)).unwrap();
    let mut client = stand.endless(CONNECTIONS, 12).unwrap();
    assert_eq!(client.joined(LIMIT).unwrap(), CONNECTIONS);
    assert_goes_on(&mut client);
    let before = stand::kernels(&stand.lab).unwrap();

    let changed = document.reordered();
    let restart = Restart { roles, signal };
    let timing = restart.run(&mut stand.weft, &changed).unwrap();
    if roles == [Role::Dataplane] {
        // The control plane lived on with the old file.
        stand.weft.ctrlplane.signal(Signal::HUP);
    }
    faults::wait_for_backend(&stand.weft, "b4", LIMIT).unwrap();
    if roles.contains(&Role::Dataplane) {
        let gap = probe.gap(timing.killed, LIMIT).unwrap();
        println!("{test}: {}", timing.describe(&gap, &stand.weft));
    }
    assert_goes_on(&mut client);

    // Joins for tokens that were learned before the kill.
    stand.lab.add_late_path(Family::V4, 1).unwrap();
    let count = CONNECTIONS as u64;
    let joined = joins(&stand, 2 * count);
    let now = client.now(LIMIT).unwrap();
    let twice: Vec<u64> = stand::owned(&stand.lab, &now).iter().map(|n| 2 * n).collect();
    assert_eq!(
        joined, twice,
        "every join, before the kill and after it, reached the backend of its connection"
    );
    assert_eq!(stand::noise(&stand.lab, &before).unwrap(), Vec::<String>::new());

    let new = stand.client(30).unwrap();
    assert_eq!(new.broken(), Vec::<String>::new());
    assert_eq!(new.joined(), 30);
    assert!(stand::owned(&stand.lab, &new)[3] > 0, "the backend that was added gets its share");
    assert_eq!(stand.backends("MPJoinNoTokenFound").unwrap(), [0, 0, 0, 0]);

    let report = client.finish(LIMIT).unwrap();
    assert_eq!(report.broken(), Vec::<String>::new());
    assert!(report.connections.iter().all(|c| c.subflows == 3));
    let stream = probe.report().unwrap();
    assert_eq!(stream.moved(), Vec::<String>::new(), "a UDP flow stays where it was, too");
}

#[test]
fn nothing_breaks_when_the_data_plane_is_killed_and_the_file_has_changed() {
    survives("kill -9 of weft-dataplane", &[Role::Dataplane], Signal::KILL);
}

#[test]
fn nothing_breaks_when_the_control_plane_is_killed_and_the_file_has_changed() {
    survives("kill -9 of weft-ctrlplane, file changed", &[Role::Ctrlplane], Signal::KILL);
}

#[test]
fn nothing_breaks_when_both_processes_are_killed_and_the_file_has_changed() {
    survives("kill -9 of both", &[Role::Ctrlplane, Role::Dataplane], Signal::KILL);
}

#[test]
fn nothing_breaks_when_both_processes_are_restarted_in_good_order() {
    survives("SIGTERM of both", &[Role::Ctrlplane, Role::Dataplane], Signal::TERM);
}

#[test]
fn a_renamed_backend_is_another_one_and_keeps_its_old_connections_as_removed() {
    let Some(machine) = machine("a renamed backend") else {
        return;
    };
    let (mut stand, document) = prepared(&machine);
    let mut client = stand.endless(CONNECTIONS, 12).unwrap();
    assert_eq!(client.joined(LIMIT).unwrap(), CONNECTIONS);
    let before = stand::kernels(&stand.lab).unwrap();
    let mut changed = document.clone();
    let members = changed.members().unwrap();
    members.iter_mut().find(|m| m.name == "b3").unwrap().name = "b3-renamed".to_owned();
    members.reverse();
    let restart = Restart { roles: &[Role::Ctrlplane, Role::Dataplane], signal: Signal::KILL };
    restart.run(&mut stand.weft, &changed).unwrap();
    assert_goes_on(&mut client);
    stand.lab.add_late_path(Family::V4, 1).unwrap();
    let joined = joins(&stand, 2 * CONNECTIONS as u64);
    let now = client.now(LIMIT).unwrap();
    let twice: Vec<u64> = stand::owned(&stand.lab, &now).iter().map(|n| 2 * n).collect();
    assert!(twice[2] > 0, "some connections began on the backend that has another name now");
    assert_eq!(joined, twice);
    assert_eq!(stand::noise(&stand.lab, &before).unwrap(), Vec::<String>::new());
    let new = stand.client(30).unwrap();
    assert_eq!(new.broken(), Vec::<String>::new());
    assert!(stand::owned(&stand.lab, &new)[2] > 0, "under its new name it gets its share");
    assert_eq!(client.finish(LIMIT).unwrap().broken(), Vec::<String>::new());
}

#[test]
fn without_a_restart_the_same_traffic_makes_no_noise() {
    let Some(machine) = machine("the control run of the restarts") else {
        return;
    };
    let (stand, _) = prepared(&machine);
    let mut probe = Probe::start(&stand.lab, &probe::Options::new(Family::V4)).unwrap();
    let mut client = stand.endless(CONNECTIONS, 12).unwrap();
    assert_eq!(client.joined(LIMIT).unwrap(), CONNECTIONS);
    let (before, start) = (stand::kernels(&stand.lab).unwrap(), boot_millis());
    assert_goes_on(&mut client);
    stand.lab.add_late_path(Family::V4, 1).unwrap();
    assert_eq!(joins(&stand, 2 * CONNECTIONS as u64).iter().sum::<u64>(), 2 * CONNECTIONS as u64);
    assert_goes_on(&mut client);
    assert_eq!(stand::noise(&stand.lab, &before).unwrap(), Vec::<String>::new());
    let stream = probe.report().unwrap();
    let longest = stream.longest_since(start).map_or(0.0, |outage| outage.millis());
    println!(
        "without a restart: {} of {} packets, longest gap {longest:.0} ms",
        stream.answered, stream.sent
    );
    assert_eq!(stream.moved(), Vec::<String>::new());
    assert_eq!(client.finish(LIMIT).unwrap().broken(), Vec::<String>::new());
}
