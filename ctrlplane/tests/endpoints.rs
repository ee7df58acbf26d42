//! Endpoints by weftctl: what a server is to be told, and backends that bring an endpoint at run time.

#![cfg(test)]

mod support;

use serde_json::json;
use support::{Dataplane, EXAMPLE, Place, name};

/// The example, steered by endpoint: b1 has a port, b2 a port and an IPv6 address.
fn example() -> String {
    EXAMPLE
        .replace("weight  = 100", "endpoint_port = 20001")
        .replace(
            "mac     = \"02:00:00:00:03:02\"",
            "mac     = \"02:00:00:00:03:02\"\nendpoint_port = 20002\nendpoint_address = \"fd99::a2\"",
        )
        .replace("steering = [\"learn\"]", "steering = [\"endpoint\", \"learn\"]")
}

#[test]
fn commands_for_a_server_are_a_shell_script_and_json() {
    let place = Place::new();
    place.write(&example());
    let _running = (Dataplane::start(&place.runtime_dir()), place.ctrlplane());
    place.wait_in_sync();
    let said = place.weftctl(&["backend", "commands", "b2"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (
            0,
            "# Backend b2 of pool web-servers: run this on the server, as root, before clients connect.\n\
             sysctl -w net.mptcp.enabled=1\n\
             sysctl -w net.mptcp.allow_join_initial_addr_port=0\n\
             ip address replace fd99::a2/128 dev lo nodad\n\
             ip mptcp endpoint add fd99::a2 signal\n\
             ip mptcp endpoint add 10.9.9.9 port 20002 signal\n"
        )
    );
    let listed = place.json(&["backend", "commands", "web-servers", "b1"]);
    assert_eq!((&listed["pool"], &listed["backend"]), (&json!("web-servers"), &json!("b1")));
    assert_eq!(listed["commands"][2], "ip mptcp endpoint add 10.9.9.9 port 20001 signal");
    assert_eq!(listed["notes"].as_array().unwrap().len(), 1, "IPv6 has a port only");
    let unknown = place.weftctl(&["backend", "commands", "b9"]);
    assert_eq!(
        (unknown.code, unknown.err.trim_end()),
        (1, "there is no backend `b9` in any pool; see `weftctl backend list`")
    );
    let rows = place.json(&["backend", "list"]);
    assert_eq!(
        (&rows[1]["endpoint_port"], &rows[1]["endpoint_address"]),
        (&json!(20_002), &json!(["fd99::a2"]))
    );
    let table = place.weftctl(&["backend", "list"]).out;
    assert!(table.contains("ENDPOINT") && table.contains(":20002,fd99::a2"), "{table}");
}

#[test]
fn a_backend_added_at_run_time_brings_its_endpoint_and_keeps_it_over_a_restart() {
    let place = Place::new();
    place.write(&example());
    let dataplane = Dataplane::start(&place.runtime_dir());
    let ctrlplane = place.ctrlplane();
    place.wait_in_sync();
    let add = |further: &[&str]| {
        let usual = ["backend", "add", "b3", "--address", "10.0.1.13", "--address", "fd00:1::13"];
        place.weftctl(&[&usual, further].concat())
    };
    for (further, sentence) in [
        (&[][..], "the backend has no endpoint, but VIP `web` steers by \"endpoint\""),
        (&["--endpoint-port", "20001"], "the backend has the `endpoint_port` of backend `b1`"),
        (
            &["--endpoint-address", "10.9.9.9"],
            "the backend has `endpoint_address` 10.9.9.9, which is VIP `web`'s",
        ),
        (
            &["--endpoint-address", "10.9.10.3", "--endpoint-address", "10.9.10.4"],
            "two endpoint addresses of one family",
        ),
    ] {
        let said = add(further);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.starts_with(sentence), "{said:?}");
    }
    assert_eq!(add(&["--endpoint-port", "0"]).code, 2);
    let said = add(&["--endpoint-port", "20003", "--endpoint-address", "10.9.10.3"]);
    assert_eq!(said.code, 0, "{said:?}");
    let handles = || dataplane.state().pools[&name("web-servers")][&name("b3")].handles;
    assert_eq!((handles().endpoint_port, handles().endpoint4), (Some(20_003), Some([10, 9, 10, 3].into())));
    ctrlplane.kill();
    let _ctrlplane = place.ctrlplane();
    place.wait_in_sync();
    assert_eq!(handles().endpoint_port, Some(20_003));
    let commands = place.json(&["backend", "commands", "b3"]);
    assert_eq!(commands["commands"][3], "ip mptcp endpoint add 10.9.10.3 signal");
}
