//! Draining, removing, deadlines: what weftctl says, what the data plane is told, what a restart keeps.

#![cfg(test)]

mod support;

use std::io::Read as _;
use std::process::{Command as Process, Stdio};

use ctrlplane::state::State;
use ipc::message::BackendState;
use serde_json::{Value, json};
use support::{Ctrlplane, Dataplane, Place, name, wait_until};

const POOL: &str = "web-servers";

fn running(place: &Place) -> (Dataplane, Ctrlplane) {
    let pair = (Dataplane::start(&place.runtime_dir()), place.ctrlplane());
    place.wait_in_sync();
    pair
}

fn state_of(dataplane: &Dataplane, backend: &str) -> Option<BackendState> {
    Some(dataplane.state().pools[&name(POOL)].get(&name(backend))?.state)
}

fn hold(dataplane: &Dataplane, backend: &str, counts: (u64, u64)) {
    dataplane.change(|held| {
        held.counts.insert((name(POOL), name(backend)), counts);
    });
}

fn row(place: &Place, backend: &str) -> Value {
    let rows = place.json(&["backend", "list"]);
    rows.as_array().unwrap().iter().find(|row| row["name"] == backend).cloned().unwrap_or_default()
}

#[test]
fn a_draining_backend_stays_so_across_kill_9_and_shows_as_drift_until_it_is_undrained() {
    let place = Place::new();
    let (dataplane, ctrlplane) = running(&place);
    let said = place.weftctl(&["backend", "drain", "b1"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "backend `b1` drains: it keeps its connections and gets no new ones (generation 2)\n")
    );
    assert_eq!(state_of(&dataplane, "b1"), Some(BackendState::Draining));
    assert_eq!(place.weftctl(&["backend", "weight", "b1", "7"]).code, 0);
    ctrlplane.kill();
    let _ctrlplane = place.ctrlplane();
    place.wait_in_sync();
    assert_eq!(state_of(&dataplane, "b1"), Some(BackendState::Draining));
    assert_eq!(row(&place, "b1")["state"], "draining");
    assert_eq!(
        place.json(&["status"])["drift"],
        json!([
            "backend b1 of pool web-servers has weight 7 since a change at run time",
            "backend b1 of pool web-servers drains since a change at run time",
        ])
    );
    assert_eq!(place.weftctl(&["backend", "undrain", "b1", "--pool", POOL]).code, 0);
    assert_eq!(state_of(&dataplane, "b1"), Some(BackendState::Active));
    assert_eq!(dataplane.state().pools[&name(POOL)][&name("b1")].weight, 7, "the weight is another change");
    assert_eq!(place.weftctl(&["backend", "weight", "b1", "100"]).code, 0);
    assert_eq!(place.json(&["status"])["drift"], json!([]));
}

#[test]
fn the_last_backend_that_drains_is_said_to_leave_nobody() {
    let place = Place::new();
    let (_dataplane, _ctrlplane) = running(&place);
    assert!(!place.weftctl(&["backend", "drain", "b1"]).out.contains("no backend of pool"));
    let said = place.weftctl(&["backend", "drain", "b2"]);
    assert!(
        said.out.contains("no backend of pool `web-servers` is left to take new connections"),
        "{said:?}"
    );
    let problems = place.json(&["status"])["problems"].to_string();
    assert!(problems.contains("no backend of pool web-servers takes new connections"), "{problems}");
    assert!(
        place.weftctl(&["status"]).out.contains("\nproblem        no backend of pool"),
        "in the text, too"
    );
    assert_eq!(place.weftctl(&["backend", "undrain", "b1"]).code, 0);
    assert_eq!(place.json(&["status"])["problems"], json!([]));
}

#[test]
fn a_backend_of_weight_0_is_not_said_to_take_connections() {
    let place = Place::new();
    let (_dataplane, _ctrlplane) = running(&place);
    assert_eq!(place.weftctl(&["backend", "drain", "b2"]).code, 0);
    let said = place.weftctl(&["backend", "weight", "b1", "0"]);
    assert!(said.out.starts_with("backend `b1` has weight 0; no backend of pool"), "{said:?}");
    assert_eq!(place.weftctl(&["backend", "drain", "b1"]).code, 0);
    let said = place.weftctl(&["backend", "undrain", "b1"]);
    assert!(said.out.starts_with("backend `b1` drains no more, but gets no new connections"), "{said:?}");
    let said = place.weftctl(&["backend", "undrain", "b2"]);
    assert!(said.out.starts_with("backend `b2` takes new connections"), "{said:?}");
}

/// weftctl in the background, waiting.
fn waiting(place: &Place, arguments: &[&str]) -> std::process::Child {
    Process::new(env!("CARGO_BIN_EXE_weftctl"))
        .arg("--config")
        .arg(place.config())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_control_plane_that_hangs_holds_up_no_deadline() {
    let place = Place::new();
    let (dataplane, ctrlplane) = running(&place);
    hold(&dataplane, "b1", (2, 1));
    let mut wait = waiting(&place, &["backend", "drain", "b1", "--deadline", "3s"]);
    wait_until("it drains", || state_of(&dataplane, "b1") == Some(BackendState::Draining));
    std::thread::sleep(std::time::Duration::from_secs(1));
    ctrlplane.signal(rustix::process::Signal::STOP);
    let mut ended = None;
    wait_until("the deadline", || {
        ended = wait.try_wait().unwrap();
        ended.is_some()
    });
    ctrlplane.signal(rustix::process::Signal::CONT);
    assert_eq!(ended.and_then(|status| status.code()), Some(5));
}

#[test]
fn drain_waits_for_the_last_flow_and_the_last_token_and_through_a_restart_of_the_control_plane() {
    let place = Place::new();
    let (dataplane, ctrlplane) = running(&place);
    hold(&dataplane, "b1", (2, 1));
    let mut wait = waiting(&place, &["--json", "backend", "drain", "b1", "--wait"]);
    wait_until("it drains", || state_of(&dataplane, "b1") == Some(BackendState::Draining));
    hold(&dataplane, "b1", (0, 1));
    ctrlplane.kill();
    let _ctrlplane = place.ctrlplane();
    place.wait_in_sync();
    assert!(wait.try_wait().unwrap().is_none(), "a token is left");
    hold(&dataplane, "b1", (0, 0));
    assert_eq!(wait.wait().unwrap().code(), Some(0));
    let mut out = String::new();
    wait.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["applied"], true, "{out}");
    assert_eq!(
        (&lines[1]["flows"], &lines[1]["tokens"], &lines[1]["end"]),
        (&json!(2), &json!(1), &json!(null))
    );
    let last = lines.last().unwrap();
    assert_eq!((&last["end"], &last["flows"], &last["tokens"]), (&json!("done"), &json!(0), &json!(0)));
}

#[test]
fn at_the_deadline_drain_says_what_is_left_and_goes_on_draining() {
    let place = Place::new();
    let (dataplane, _ctrlplane) = running(&place);
    hold(&dataplane, "b1", (5, 2));
    let said = place.weftctl(&["backend", "drain", "b1", "--deadline", "1s"]);
    assert_eq!(said.code, 5, "{said:?}");
    assert!(
        said.err.ends_with("the deadline came: 5 flows and 2 tokens left; backend `b1` goes on draining\n"),
        "{said:?}"
    );
    assert!(said.err.starts_with("b1: 5 flows and 2 tokens left\n"), "a line now and then: {said:?}");
    assert_eq!(state_of(&dataplane, "b1"), Some(BackendState::Draining));
    assert_eq!(place.weftctl(&["backend", "drain", "b1", "--deadline", "soon"]).code, 2);
}

#[test]
fn undrained_by_somebody_else_the_wait_ends_and_says_so() {
    let place = Place::new();
    let (dataplane, _ctrlplane) = running(&place);
    let wait = waiting(&place, &["backend", "drain", "b1", "--wait"]);
    wait_until("it drains", || state_of(&dataplane, "b1") == Some(BackendState::Draining));
    assert_eq!(place.weftctl(&["backend", "undrain", "b1"]).code, 0);
    let said = support::Said::of(wait.wait_with_output().unwrap());
    assert_eq!(said.code, 1);
    assert!(said.err.contains("backend `b1` was changed meanwhile"), "{said:?}");
}

#[test]
fn a_removed_backend_is_listed_until_the_data_plane_forgets_it() {
    let place = Place::new();
    let (dataplane, _ctrlplane) = running(&place);
    let said = place.weftctl(&["backend", "remove", "b1", "--deadline", "10m"]);
    assert!(
        said.out.starts_with("backend `b1` removed; its connections keep it for 10m at most"),
        "{said:?}"
    );
    assert!(dataplane.deadline(POOL, "b1").flatten().is_some_and(|left| (590..=600).contains(&left)));
    let listed = row(&place, "b1");
    assert_eq!(
        (&listed["state"], &listed["flows"], &listed["tokens"]),
        (&json!("removed"), &json!(11), &json!(4))
    );
    assert!(listed["deadline_seconds"].as_u64().unwrap() > 590, "{listed}");
    let table = place.weftctl(&["backend", "list"]).out;
    let line = table.lines().find(|line| line.contains(" b1 ")).unwrap();
    assert!(line.contains("removed, 9m 59s left") || line.contains("removed, 10m left"), "{line}");
    hold(&dataplane, "b1", (0, 0));
    wait_until("it is forgotten", || row(&place, "b1") == Value::Null);
}

#[test]
fn removed_now_it_is_deleted_and_the_wait_ends() {
    let place = Place::new();
    let (dataplane, _ctrlplane) = running(&place);
    let said = place.weftctl(&["backend", "remove", POOL, "b1", "--now", "--wait"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.starts_with("backend `b1` removed; its connections end now"), "{said:?}");
    assert!(said.out.contains("backend `b1` is gone after "), "{said:?}");
    assert_eq!(row(&place, "b1")["state"], "deleted");
    assert_eq!(dataplane.deadline(POOL, "b1"), Some(Some(0)));
    assert_eq!(place.weftctl(&["backend", "remove", "b2", "--now", "--deadline", "1s"]).code, 2);
}

#[test]
fn one_that_was_removed_may_get_a_deadline_later() {
    let place = Place::new();
    let (dataplane, _ctrlplane) = running(&place);
    assert_eq!(place.weftctl(&["backend", "remove", "b1"]).code, 0);
    assert_eq!(dataplane.deadline(POOL, "b1"), Some(None));
    let again = place.weftctl(&["backend", "remove", "b1"]);
    assert_eq!(again.code, 0, "{again:?}");
    assert!(again.out.starts_with("backend `b1` is removed already; --deadline or --now would"), "{again:?}");
    assert_eq!(dataplane.deadline(POOL, "b1"), Some(None), "nothing changed");
    let said = place.weftctl(&["backend", "remove", "b1", "--deadline", "1h"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(dataplane.deadline(POOL, "b1").flatten().is_some_and(|left| left > 3500), "{said:?}");
    assert_eq!(place.weftctl(&["backend", "remove", "b1", "--now"]).code, 0);
    assert_eq!(dataplane.deadline(POOL, "b1"), Some(Some(0)));
    assert_eq!(state_of(&dataplane, "b1"), None, "it did not come back on the way");
}

#[test]
fn a_removal_and_its_deadline_wait_for_a_data_plane_that_is_away() {
    let place = Place::new();
    let (dataplane, ctrlplane) = running(&place);
    let held = dataplane.stop();
    let said = place.weftctl(&["backend", "remove", "b1", "--deadline", "1h"]);
    assert!(said.out.contains("kept, and applied as soon as there is a data plane"), "{said:?}");
    ctrlplane.kill();
    let _ctrlplane = place.ctrlplane();
    let dataplane = Dataplane::start_with(&place.runtime_dir(), held);
    place.wait_in_sync();
    assert!(dataplane.deadline(POOL, "b1").flatten().is_some_and(|left| (3500..=3600).contains(&left)));
    let wait = place.weftctl(&["backend", "list"]);
    assert_eq!(wait.code, 0);
}

#[test]
fn a_removed_backend_that_is_added_again_is_the_same_one() {
    let place = Place::new();
    let (dataplane, _ctrlplane) = running(&place);
    let before: State = dataplane.state();
    assert_eq!(place.weftctl(&["backend", "remove", "b1", "--deadline", "1h"]).code, 0);
    let back = ["backend", "add", "b1", "--address", "10.0.1.11", "--address", "fd00:1::11"];
    assert_eq!(place.weftctl(&[&back[..], &["--mac", "02:00:00:00:03:01"]].concat()).code, 0);
    assert_eq!(dataplane.state(), before);
    assert_eq!(dataplane.deadline(POOL, "b1"), None, "and its deadline is gone");
    assert_eq!(place.json(&["status"])["drift"], json!([]));
}

#[test]
fn waiting_without_a_data_plane_is_refused_and_the_change_is_kept() {
    let place = Place::new();
    let _ctrlplane = place.ctrlplane();
    wait_until("the socket is there", || place.socket().exists());
    let said = place.weftctl(&["backend", "drain", "b1", "--wait"]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.err.contains("kept, and applied as soon as there is a data plane"), "{said:?}");
    let dataplane = Dataplane::start(&place.runtime_dir());
    place.wait_in_sync();
    assert_eq!(state_of(&dataplane, "b1"), Some(BackendState::Draining));
}

#[test]
fn changes_written_by_the_version_before_are_read() {
    let place = Place::new();
    std::fs::create_dir(place.runtime_dir()).unwrap();
    let old = r#"{"version": 1, "backends": [
        {"pool": "web-servers", "name": "b1", "change": "weight", "weight": 7},
        {"pool": "web-servers", "name": "b2", "change": "removed"},
        {"pool": "web-servers", "name": "b3", "change": "added", "address": ["10.0.1.13"], "mac": null, "weight": 1}
    ]}"#;
    std::fs::write(place.runtime_dir().join("overrides.json"), old).unwrap();
    let (dataplane, _ctrlplane) = running(&place);
    let state = dataplane.state();
    let pool = &state.pools[&name(POOL)];
    assert_eq!(pool.keys().map(ToString::to_string).collect::<Vec<_>>(), ["b1", "b3"]);
    assert_eq!(pool[&name("b1")].weight, 7);
}

#[test]
fn a_deadline_is_told_even_of_a_backend_that_the_file_never_had() {
    let place = Place::new();
    let (dataplane, ctrlplane) = running(&place);
    assert_eq!(place.weftctl(&["backend", "add", "b3", "--address", "10.0.1.13"]).code, 0);
    let held = dataplane.stop();
    assert_eq!(place.weftctl(&["backend", "remove", "b3", "--deadline", "1h"]).code, 0);
    ctrlplane.kill();
    let _ctrlplane = place.ctrlplane();
    let dataplane = Dataplane::start_with(&place.runtime_dir(), held);
    place.wait_in_sync();
    assert!(dataplane.deadline(POOL, "b3").flatten().is_some_and(|left| (3500..=3600).contains(&left)));
    assert_eq!(place.json(&["status"])["drift"], json!([]), "the file says the same");
}

#[test]
fn what_a_kill_leaves_half_written_beside_the_changes_does_no_harm() {
    let place = Place::new();
    let (_dataplane, ctrlplane) = running(&place);
    assert_eq!(place.weftctl(&["backend", "drain", "b1"]).code, 0);
    ctrlplane.kill();
    std::fs::write(place.runtime_dir().join("overrides.json.new"), b"{\"version\": 2, \"backe").unwrap();
    let _ctrlplane = place.ctrlplane();
    place.wait_in_sync();
    assert_eq!(row(&place, "b1")["state"], "draining");
    assert_eq!(place.weftctl(&["backend", "drain", "b2"]).code, 0, "and the next change replaces it");
    assert!(!place.runtime_dir().join("overrides.json.new").exists());
}
