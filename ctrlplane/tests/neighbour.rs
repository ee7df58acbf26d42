//! MAC addresses from the kernel's neighbour table: real namespaces, a real kernel. Needs root.

#![cfg(test)]

mod support;

use std::io::Write;
use std::process::Command as Process;

use support::{Dataplane, EXAMPLE, Place, name, wait_until};

/// Two namespaces joined by a veth pair, removed when dropped.
struct Network {
    ours: String,
    theirs: String,
}

fn ip(arguments: &str) {
    let output = Process::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Network {
    fn new() -> Self {
        let id = std::process::id();
        let network = Self { ours: format!("weft-nb-{id}-a"), theirs: format!("weft-nb-{id}-b") };
        let Self { ours, theirs } = &network;
        for namespace in [ours, theirs] {
            ip(&format!("netns add {namespace}"));
        }
        ip(&format!("link add va netns {ours} type veth peer name vb netns {theirs}"));
        ip(&format!("-n {theirs} link set vb address 02:00:00:00:09:01"));
        ip(&format!("-n {ours} addr add 10.0.1.1/24 dev va"));
        ip(&format!("-n {ours} addr add fd00:1::1/64 dev va nodad"));
        for last in [11, 13] {
            ip(&format!("-n {theirs} addr add 10.0.1.{last}/24 dev vb"));
        }
        ip(&format!("-n {theirs} addr add fd00:1::12/64 dev vb nodad"));
        ip(&format!("-n {ours} link set va up"));
        ip(&format!("-n {theirs} link set vb up"));
        network
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in [&self.ours, &self.theirs] {
            let _removed = Process::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

#[test]
fn backends_without_a_mac_get_the_kernels_and_its_news() {
    if !rustix::process::geteuid().is_root() {
        assert!(
            std::env::var_os("WEFT_REQUIRE_ALL").is_none_or(|value| value != "1"),
            "namespaces need root"
        );
        // Not `eprintln!`, which the test harness keeps to itself when a test passes.
        std::io::stderr().write_all(b"skipped: backends_without_a_mac: namespaces need root\n").unwrap();
        return;
    }
    let network = Network::new();
    let place = Place::new();
    let text = EXAMPLE
        .replace("mac     = \"02:00:00:00:03:01\"", "")
        .replace("mac     = \"02:00:00:00:03:02\"", "")
        .replace(r#"["10.0.1.12", "fd00:1::12"]"#, r#""fd00:1::12""#);
    place.write(&text);
    let dataplane = Dataplane::start(&place.runtime_dir());
    let mut process = Process::new("ip");
    process.args(["netns", "exec", &network.ours, env!("CARGO_BIN_EXE_weft-ctrlplane")]);
    let _ctrlplane = place.ctrlplane_by(process);
    let mac = |backend: &str| {
        let state = dataplane.state();
        state.pools.get(&name("web-servers"))?.get(&name(backend))?.mac
    };
    let first = Some([2, 0, 0, 0, 9, 1]);
    wait_until("b1 is resolved by IPv4", || mac("b1") == first);
    wait_until("b2 is resolved by IPv6", || mac("b2") == first);

    // A backend that comes at run time, without one that answers.
    assert_eq!(place.weftctl(&["backend", "add", "b3", "--address", "10.0.1.13"]).code, 0);
    wait_until("b3 is resolved", || mac("b3") == first);
    assert_eq!(place.weftctl(&["backend", "add", "b4", "--address", "10.0.1.14"]).code, 0);
    assert!(dataplane.state().pools[&name("web-servers")].contains_key(&name("b4")), "pushed without a MAC");
    assert_eq!(mac("b4"), None);
    assert_eq!(place.json(&["status"])["unresolved"], serde_json::json!(["web-servers/b4"]));

    // News of a neighbour that is known already.
    ip(&format!("-n {} neigh replace 10.0.1.11 lladdr 02:00:00:00:09:02 dev va nud reachable", network.ours));
    wait_until("b1 moved", || mac("b1") == Some([2, 0, 0, 0, 9, 2]));
    // What the kernel forgets is kept: a stale MAC serves better than none.
    ip(&format!("-n {} neigh flush dev va", network.ours));
    place.wait_in_sync();
    assert_ne!(mac("b3"), None);
    let row = &place.json(&["backend", "list"])[0];
    assert_eq!(row["mac_resolved"], true);
}
