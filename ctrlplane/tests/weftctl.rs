//! weftctl as a process: what it prints and how it ends.

#![cfg(test)]

mod support;

use serde_json::json;
use support::{Dataplane, EXAMPLE, Place};

/// A second pool with backends of the same names, and its VIP.
const SECOND: &str = r#"
[[vip]]
name = "mail"
address = "10.9.9.10"
port = "any"
protocol = "udp"
[[vip.backend]]
name = "b1"
address = "10.0.1.21"
[[vip.backend]]
name = "m2"
address = "10.0.1.22"
"#;

fn running(place: &Place) -> (Dataplane, support::Ctrlplane) {
    let pair = (Dataplane::start(&place.runtime_dir()), place.ctrlplane());
    place.wait_in_sync();
    pair
}

#[test]
fn check_needs_no_daemon_and_reports_every_problem() {
    let place = Place::new();
    let file = place.config().display().to_string();
    let good = place.weftctl(&["check", &file]);
    assert_eq!((good.code, good.out), (0, format!("{file}: valid, 1 VIPs, 1 pools, 2 backends\n")));
    place.write(&EXAMPLE.replace("mtu     = 1600", "mtu = 1").replace("port     = 8000", "port = 0"));
    let bad = place.weftctl(&["check", &file]);
    assert_eq!((bad.code, bad.err.lines().count()), (1, 2));
    assert!(bad.err.starts_with(&format!("{file}:11:7: 1 is out of range for `mtu`")), "{bad:?}");
    let listed = place.weftctl(&["--json", "check", &file]);
    assert_eq!(listed.code, 1);
    let listed: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!((&listed["valid"], &listed["problems"][1]["line"]), (&json!(false), &json!(30)));
    assert_eq!(place.weftctl(&["check", "/nonexistent"]).code, 1);
}

#[test]
fn without_a_control_plane_it_says_so() {
    let place = Place::new();
    for arguments in [&["status"][..], &["drops"], &["backend", "weight", "b1", "3"]] {
        let said = place.weftctl(arguments);
        assert_eq!((said.code, said.err.lines().count()), (3, 1), "{said:?}");
        assert!(said.err.starts_with("weft-ctrlplane is not running"), "{said:?}");
    }
}

#[test]
fn lists_show_what_should_be_and_what_is_counted() {
    let place = Place::new();
    place.write(&format!("{EXAMPLE}{SECOND}"));
    let _running = running(&place);
    let vips = place.json(&["vip", "list"]);
    assert_eq!(vips[0]["name"], "web");
    assert_eq!(vips[0]["port"], json!([8000]));
    assert_eq!(vips[1]["port"], json!([0]));
    assert_eq!(vips[1]["steering"], json!([]));
    // The data plane of these tests numbers by name: "mail" is VIP 0 and its b1 is backend 1.
    assert_eq!((&vips[1]["packets"], &vips[0]["packets"]), (&json!(100), &json!(0)));
    let backends = place.json(&["backend", "list"]);
    let names: Vec<String> = (0..4)
        .map(|row| format!("{}/{}", backends[row]["pool"], backends[row]["name"]).replace('"', ""))
        .collect();
    assert_eq!(names, ["web-servers/b1", "web-servers/b2", "mail/b1", "mail/m2"]);
    assert_eq!(backends[2]["packets"], 40);
    assert_eq!((&backends[0]["flows"], &backends[0]["tokens"]), (&json!(11), &json!(4)));
    assert_eq!(backends[0]["mac"], "02:00:00:00:03:01");
    assert_eq!(backends[2]["mac"], json!(null));
    let table = place.weftctl(&["backend", "list"]);
    assert_eq!((table.code, table.out.lines().count()), (0, 5), "{table:?}");
    assert!(table.out.starts_with("POOL"), "{}", table.out);
    let table = place.weftctl(&["vip", "list"]);
    assert!(table.out.contains("any") && table.out.contains("off"), "{}", table.out);
    let status = place.json(&["status"]);
    assert_eq!(status["unresolved"], json!(["mail/b1", "mail/m2"]));
}

#[test]
fn drops_show_every_reason_those_that_happened_first() {
    let place = Place::new();
    let _running = running(&place);
    let drops = place.json(&["drops"]);
    assert_eq!(
        drops.as_array().unwrap().len(),
        ipc::reason::Reason::ALL.iter().filter(|r| r.is_drop()).count()
    );
    assert_eq!((&drops[0]["reason"], &drops[0]["packets"]), (&json!("not_vip"), &json!(9)));
    assert_eq!((&drops[1]["reason"], &drops[1]["packets"]), (&json!("unknown_token"), &json!(7)));
    assert_eq!(drops[2]["packets"], 0);
    assert!(drops[0]["meaning"].as_str().unwrap().starts_with("No VIP has"));
    assert!(place.weftctl(&["drops"]).out.contains("unknown_token"));
}

#[test]
fn tokens_are_counted_and_a_token_is_found_by_its_digits() {
    let place = Place::new();
    let _running = running(&place);
    let summary = place.json(&["tokens"]);
    assert_eq!((&summary["tokens"], &summary["token_capacity"]), (&json!(2), &json!(1000)));
    assert_eq!(summary["joins_steered"], 5);
    let owners = place.json(&["tokens", "913e6c21"]);
    assert_eq!((&owners[0]["backend"], &owners[0]["rank"]), (&json!("b1"), &json!("seen")));
    assert_eq!(owners[0]["token"], "913e6c21");
    assert_eq!(place.json(&["tokens", "00000001"]), json!([]));
    assert_eq!(place.weftctl(&["tokens", "1"]).out, "nobody owns token 1\n");
    assert_eq!(place.weftctl(&["tokens", "no"]).code, 2);
}

#[test]
fn a_pool_may_be_left_out_where_the_name_says_it() {
    let place = Place::new();
    place.write(&format!("{EXAMPLE}{SECOND}"));
    let _running = running(&place);
    assert_eq!(place.weftctl(&["backend", "weight", "m2", "5"]).code, 0);
    for (arguments, sentence) in [
        (
            &["backend", "weight", "b1", "5"][..],
            "several pools have a backend `b1`, name the pool, too: web-servers, mail",
        ),
        (
            &["backend", "remove", "none"],
            "there is no backend `none` in any pool; see `weftctl backend list`",
        ),
        (&["backend", "remove", "nope", "b1"], "there is no pool `nope`; there is web-servers, mail"),
        (
            &["backend", "remove", "mail", "b2"],
            "there is no backend `b2` in pool `mail`; see `weftctl backend list`",
        ),
        (&["backend", "add", "x", "--address", "10.0.1.30"], "name the pool, too: web-servers, mail"),
        (
            &["backend", "add", "mail", "x", "--address", "10.9.9.9"],
            "address 10.9.9.9 is VIP `web`'s; give the backend's own address",
        ),
        (
            &["backend", "add", "mail", "x", "--address", "fd00:1::30"],
            "the backend has no address of a family of VIP `mail`; add one",
        ),
        (
            &["backend", "add", "mail", "x", "--address", "10.0.1.30", "--mac", "1"],
            "\"1\" is not a MAC address; write six hexadecimal bytes with colons, as in 02:00:00:00:02:01",
        ),
        (&["backend", "weight", "m2", "1001"], "1001 is out of range for a weight; it goes from 0 to 1000"),
    ] {
        let said = place.weftctl(arguments);
        assert_eq!((said.code, said.err.trim_end()), (1, sentence), "{arguments:?}");
    }
    assert_eq!(place.weftctl(&["backend", "remove", "m2"]).code, 0);
    let said = place.weftctl(&["backend", "remove", "mail", "b1"]);
    assert!(said.err.starts_with("backend `b1` is the last of pool `mail`"), "{said:?}");
    assert_eq!(place.weftctl(&["backend", "weight", "m2", "heavy"]).code, 2);
}

#[test]
fn reload_by_weftctl_says_what_became_of_it() {
    let place = Place::new();
    let (dataplane, _ctrlplane) = running(&place);
    place.write(&EXAMPLE.replace("weight  = 100", "weight = 9"));
    let said = place.weftctl(&["reload"]);
    assert_eq!((said.code, said.out.as_str()), (0, "configuration reloaded (generation 2)\n"), "{said:?}");
    let weight = dataplane.state().pools[&support::name("web-servers")][&support::name("b1")].weight;
    assert_eq!(weight, 9);
}
