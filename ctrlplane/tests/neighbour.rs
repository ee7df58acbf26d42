//! MAC addresses from the kernel's neighbour table: real namespaces, a real kernel. Needs root.

#![cfg(test)]

mod support;

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
    fn new(test: &str) -> Self {
        let id = std::process::id();
        let network = Self { ours: format!("weft-{test}-{id}-a"), theirs: format!("weft-{test}-{id}-b") };
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

impl Network {
    /// A control plane in our namespace.
    fn ctrlplane(&self, place: &Place) -> support::Ctrlplane {
        let mut process = Process::new("ip");
        process.args(["netns", "exec", &self.ours, env!("CARGO_BIN_EXE_weft-ctrlplane")]);
        place.ctrlplane_by(process)
    }
}

fn may_make_namespaces() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip::skip("neighbours", "namespaces need root");
    }
    root
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in [&self.ours, &self.theirs] {
            let _removed = Process::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

/// The example without the backends' MAC addresses.
fn without_macs() -> String {
    EXAMPLE.replace("mac     = \"02:00:00:00:03:01\"", "").replace("mac     = \"02:00:00:00:03:02\"", "")
}

#[test]
fn backends_without_a_mac_get_the_kernels_and_its_news() {
    if !may_make_namespaces() {
        return;
    }
    let network = Network::new("nb");
    let place = Place::new();
    let text = without_macs().replace(r#"["10.0.1.12", "fd00:1::12"]"#, r#""fd00:1::12""#);
    place.write(&text);
    let dataplane = Dataplane::start(&place.runtime_dir());
    let _ctrlplane = network.ctrlplane(&place);
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
    // Fails without a word where an entry changes while the kernel lists them.
    let flush = ["-n", &network.ours, "neigh", "flush", "dev", "va"];
    wait_until("the kernel forgot", || Process::new("ip").args(flush).status().unwrap().success());
    place.wait_in_sync();
    assert_ne!(mac("b3"), None);
    let row = &place.json(&["backend", "list"])[0];
    assert_eq!(row["mac_resolved"], true);
}

/// The kernel sends nothing to backends itself, so nothing but our probes tells it that a MAC is no longer right.
#[test]
fn a_neighbour_that_takes_another_mac_without_a_word_is_followed() {
    if !may_make_namespaces() {
        return;
    }
    let network = Network::new("mv");
    let place = Place::new();
    place.write(&without_macs().replace(r#"["10.0.1.12", "fd00:1::12"]"#, r#""fd00:1::12""#));
    let dataplane = Dataplane::start(&place.runtime_dir());
    let _ctrlplane = network.ctrlplane(&place);
    let macs = || {
        let state = dataplane.state();
        let pool = state.pools.get(&name("web-servers")).cloned().unwrap_or_default();
        ["b1", "b2"].map(|backend| pool.get(&name(backend)).and_then(|backend| backend.mac))
    };
    wait_until("both are resolved", || macs() == [Some([2, 0, 0, 0, 9, 1]); 2]);
    ip(&format!("-n {} link set vb address 02:00:00:00:09:07", network.theirs));
    wait_until("both have moved, by IPv4 and IPv6", || macs() == [Some([2, 0, 0, 0, 9, 7]); 2]);
    assert_eq!(place.json(&["backend", "list"])[0]["mac"], "02:00:00:00:09:07");
}

#[test]
fn a_backend_behind_a_gateway_gets_the_gateways_mac_and_follows_it() {
    if !may_make_namespaces() {
        return;
    }
    let network = Network::new("gw");
    let place = Place::new();
    // 10.0.1.11 is a router here; both backends are far away, one by IPv6 only, which needs the IPv6 router.
    let text = without_macs()
        .replace(r#"["10.0.1.11", "fd00:1::11"]"#, r#""10.0.77.11""#)
        .replace(r#"["10.0.1.12", "fd00:1::12"]"#, r#""fd00:77::12""#)
        .replace("mtu     = 1600", "gateway = [\"10.0.1.11\", \"fd00:1::12\"]")
        .replace("l2dsr", "gue");
    place.write(&text);
    let dataplane = Dataplane::start(&place.runtime_dir());
    let _ctrlplane = network.ctrlplane(&place);
    let mac = |backend: &str| {
        let state = dataplane.state();
        state.pools.get(&name("web-servers"))?.get(&name(backend))?.mac
    };
    wait_until("both routers are resolved", || {
        mac("b1") == Some([2, 0, 0, 0, 9, 1]) && mac("b2") == Some([2, 0, 0, 0, 9, 1])
    });
    let rows = place.json(&["backend", "list"]);
    assert_eq!((&rows[0]["via"], &rows[1]["via"]), (&"10.0.1.11".into(), &"fd00:1::12".into()));
    let table = place.weftctl(&["backend", "list"]).out;
    assert!(table.contains("02:00:00:00:09:01 (via 10.0.1.11)"), "{table}");
    ip(&format!("-n {} link set vb address 02:00:00:00:09:08", network.theirs));
    wait_until("the routers' new MAC is known", || mac("b1") == Some([2, 0, 0, 0, 9, 8]));
}
