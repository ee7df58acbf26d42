//! Backends that leave, under traffic: drained, removed with a deadline, and what survives a kill of the control
//! plane. Kernel MPTCP at both ends; see tests/e2e.rs for what the tests need.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use weft_lab::balancer::{Forward, Options, Role};
use weft_lab::stand::{self, LIMIT, Machine, Stand};
use weft_lab::topology::Family;

const CONNECTIONS: usize = 30;
/// Tokens outlive their last subflow by a minute, ticks are 16 s, and a sweep must have seen it.
const LAST_WORD: Duration = Duration::from_secs(300);

fn machine(test: &str) -> Option<Machine> {
    Machine::take(test, env!("CARGO_BIN_EXE_weft-lab"), env!("CARGO_TARGET_TMPDIR"))
}

/// Three backends, and closed connections forgotten as soon as may be.
fn prepared(machine: &Machine) -> Stand {
    let options = Options::new(Forward::L2dsr, true);
    let short = "\n[dataplane.idle]\nhalf_open = 1\nclosing = 1\nclosing_mptcp = 60\n";
    Stand::with(machine, 3, &options, |document| document.dataplane.push_str(short)).unwrap().0
}

/// A backend as `weftctl backend list` shows it.
fn listed(stand: &Stand, name: &str) -> Option<Value> {
    let list = stand.weft.ask(&["backend", "list"]).unwrap();
    list.as_array().unwrap().iter().find(|b| b["name"] == name).cloned()
}

fn state(stand: &Stand, name: &str) -> String {
    listed(stand, name)
        .map_or("not listed".to_owned(), |b| b["state"].as_str().unwrap_or_default().to_owned())
}

/// Waits until a backend's state is one of these.
fn wait_for_state(stand: &Stand, name: &str, states: &[&str]) {
    for _ in 0..1200 {
        if states.contains(&state(stand, name).as_str()) {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("{name} is {} and should be {states:?}", state(stand, name));
}

/// A later subflow for every connection of `owned`, at its backend.
fn assert_joins_arrive(stand: &Stand, owned: &[u64], path: u8) {
    let before = stand.backends("MPJoinAckRx").unwrap();
    stand.lab.add_late_path(Family::V4, path).unwrap();
    let wanted: Vec<u64> = before.iter().zip(owned).map(|(before, owned)| before + owned).collect();
    for _ in 0..600 {
        if stand.backends("MPJoinAckRx").unwrap().iter().sum::<u64>() >= wanted.iter().sum() {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    assert_eq!(stand.backends("MPJoinAckRx").unwrap(), wanted);
}

#[test]
fn a_draining_backend_gets_joins_but_no_new_connection_and_the_wait_ends_with_its_connections() {
    let Some(machine) = machine("a drain under traffic") else {
        return;
    };
    let stand = prepared(&machine);
    let mut client = stand.endless(CONNECTIONS, 12).unwrap();
    assert_eq!(client.joined(LIMIT).unwrap(), CONNECTIONS);
    let owned = stand::owned(&stand.lab, &client.now(LIMIT).unwrap());
    assert!(owned[0] > 0, "some connections began on b1");
    let quiet = stand::kernels(&stand.lab).unwrap();

    let mut wait = stand.weft.start_weftctl(&["backend", "drain", "b1", "--wait"]).unwrap();
    wait_for_state(&stand, "b1", &["draining"]);
    assert_joins_arrive(&stand, &owned, 1);
    assert_eq!(stand::noise(&stand.lab, &quiet).unwrap(), Vec::<String>::new());
    let new = stand.client(30).unwrap();
    assert_eq!(new.broken(), Vec::<String>::new());
    assert_eq!(stand::owned(&stand.lab, &new)[0], 0, "no new connection lands on a draining backend");
    wait.check().unwrap();

    assert_eq!(client.finish(LIMIT).unwrap().broken(), Vec::<String>::new());
    assert_eq!(wait.wait(LAST_WORD).unwrap(), Some(0), "the wait ends once nothing holds the backend");
    let b1 = listed(&stand, "b1").unwrap();
    assert_eq!((b1["flows"].as_u64(), b1["tokens"].as_u64()), (Some(0), Some(0)), "{b1}");

    stand.weft.weftctl(&["backend", "undrain", "b1"]).unwrap();
    wait_for_state(&stand, "b1", &["active"]);
    let new = stand.client(30).unwrap();
    assert!(stand::owned(&stand.lab, &new)[0] > 0, "it takes part again");
}

#[test]
fn drains_and_removals_survive_a_kill_of_the_control_plane() {
    let Some(machine) = machine("overrides after kill -9") else {
        return;
    };
    let mut stand = prepared(&machine);
    let mut client = stand.endless(CONNECTIONS, 12).unwrap();
    assert_eq!(client.joined(LIMIT).unwrap(), CONNECTIONS);
    let owned = stand::owned(&stand.lab, &client.now(LIMIT).unwrap());
    let quiet = stand::kernels(&stand.lab).unwrap();
    stand.weft.weftctl(&["backend", "drain", "b2"]).unwrap();
    stand.weft.weftctl(&["backend", "remove", "b3", "--deadline", "1h"]).unwrap();
    stand.weft.kill(Role::Ctrlplane);
    stand.weft.start_again(Role::Ctrlplane).unwrap();
    stand.weft.wait_until_ready(LIMIT).unwrap();
    wait_for_state(&stand, "b2", &["draining"]);
    wait_for_state(&stand, "b3", &["removed"]);
    assert_joins_arrive(&stand, &owned, 1);
    assert_eq!(stand::noise(&stand.lab, &quiet).unwrap(), Vec::<String>::new());
    let new = stand.client(20).unwrap();
    assert_eq!(new.broken(), Vec::<String>::new());
    assert_eq!(stand::owned(&stand.lab, &new), [20, 0, 0]);
    assert_eq!(client.finish(LIMIT).unwrap().broken(), Vec::<String>::new());
}

#[test]
fn a_removed_backend_serves_its_connections_until_the_deadline_and_not_after() {
    let Some(machine) = machine("a removal with a deadline") else {
        return;
    };
    let stand = prepared(&machine);
    let mut client = stand.endless(CONNECTIONS, 12).unwrap();
    assert_eq!(client.joined(LIMIT).unwrap(), CONNECTIONS);
    let owned = stand::owned(&stand.lab, &client.now(LIMIT).unwrap());
    assert!(owned[2] > 0, "some connections began on b3");
    stand.weft.weftctl(&["backend", "remove", "b3", "--deadline", "20s"]).unwrap();
    assert_eq!(state(&stand, "b3"), "removed");
    assert_joins_arrive(&stand, &owned, 1);
    assert_eq!(client.now(LIMIT).unwrap().broken(), Vec::<String>::new());
    wait_for_state(&stand, "b3", &["deleted", "not listed"]);
    // Every connection tries a round after the deletion; one whose subflows were all reset ends it in half a minute.
    client.now(LIMIT).unwrap();
    client.now(LIMIT).unwrap();
    let report = client.finish(LIMIT).unwrap();
    let broken = report.connections.iter().filter(|c| c.error.is_some());
    let elsewhere = broken.clone().filter(|c| c.backend != "b3").count();
    assert_eq!(elsewhere, 0, "only connections of the deleted backend end");
    assert_eq!(broken.count() as u64, owned[2], "and all of those do");
}
