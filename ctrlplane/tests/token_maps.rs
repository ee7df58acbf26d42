//! Schemes whose tokens or timestamps name a backend, by weftctl: what a server is told, and backends that bring a number
//! at run time.

#![cfg(test)]

mod support;

use serde_json::json;
use support::{Dataplane, EXAMPLE, Place, name};

/// The example, steered so; its backends have the numbers 1 and 2.
fn example(steering: &str) -> String {
    EXAMPLE
        .replace("forward  = \"l2dsr\"", "forward = \"gue\"")
        .replace("weight  = 100", "number = 1")
        .replace("name    = \"b2\"", "name = \"b2\"\nnumber = 2")
        .replace("steering = [\"learn\"]", steering)
}

const CHOSEN: &str = "steering = [\"chosen-key\"]\nkey_secret = \"00112233445566778899aabbccddeeff\"";
const CIPHER: &str =
    "steering = [\"token-map\"]\ntoken_map = \"cipher\"\ncipher_key_even = \"0123456789abcdef\"";

#[test]
fn a_backend_added_at_run_time_brings_its_number_and_keeps_it_over_a_restart() {
    let place = Place::new();
    place.write(&example(CHOSEN));
    let dataplane = Dataplane::start(&place.runtime_dir());
    let ctrlplane = place.ctrlplane();
    place.wait_in_sync();
    let add = |further: &[&str]| {
        place.weftctl(&[&["backend", "add", "b3", "--address", "10.0.1.13"][..], further].concat())
    };
    for (further, sentence) in [
        (
            &[][..],
            "the backend has no number, which the VIP's timestamps under \"chosen-key\" need (VIP `web`)",
        ),
        (&["--number", "2"], "number 2 is that of backend `b2` already; give each its own"),
    ] {
        let said = add(further);
        assert!(said.code == 1 && said.err.starts_with(sentence), "{said:?}");
    }
    for wrong in ["0", "4096", "x"] {
        assert_eq!(add(&["--number", wrong]).code, 2);
    }
    let said = add(&["--number", "4095"]);
    assert_eq!(said.code, 0, "{said:?}");
    let number = || dataplane.state().pools[&name("web-servers")][&name("b3")].handles.number;
    assert_eq!(number(), Some(4095));
    ctrlplane.kill();
    let _ctrlplane = place.ctrlplane();
    place.wait_in_sync();
    assert_eq!(number(), Some(4095));
    let rows = place.json(&["backend", "list"]);
    assert_eq!([&rows[0]["number"], &rows[2]["number"]], [&json!(1), &json!(4095)]);
    let table = place.weftctl(&["backend", "list"]).out;
    assert!(table.lines().next().unwrap().ends_with("NUMBER") && table.contains(" 4095\n"), "{table}");

    let told = place.json(&["backend", "commands", "b3"]);
    assert_eq!((&told["number"], &told["token_maps"]), (&json!(4095), &json!(["chosen-key"])));
    assert_eq!(told["commands"], json!([]));
}

#[test]
fn what_a_server_program_is_told_is_no_secret_and_splits_the_token_space() {
    let place = Place::new();
    place.write(&example("steering = [\"token-map\"]"));
    let _both = place.both();
    let mut ends: Vec<(u32, u32)> = Vec::new();
    for backend in ["b1", "b2"] {
        let told = place.json(&["backend", "commands", backend]);
        let hex = |value: &serde_json::Value| u32::from_str_radix(value.as_str().unwrap(), 16).unwrap();
        let ranges = told["token_ranges"].as_array().unwrap();
        ends.extend(ranges.iter().map(|range| (hex(&range["first"]), hex(&range["last"]))));
    }
    // Both together are the whole space, and nothing of it is both's.
    ends.sort_unstable();
    assert_eq!((ends[0].0, ends.last().unwrap().1), (0, u32::MAX));
    assert!(ends.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0));

    place.write(&example(CIPHER));
    assert_eq!(place.weftctl(&["reload"]).code, 0);
    let said = place.weftctl(&["backend", "commands", "b2"]);
    let assigned: Vec<&str> = said.out.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(assigned, ["WEFT_NUMBER=\"2\"", "WEFT_TOKEN_MAP=\"cipher\"", "WEFT_CIPHER_KEYS=\"even\""]);
    assert!(!said.out.contains("0123456789abcdef"), "{said:?}");
}
