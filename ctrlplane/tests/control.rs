//! The control plane as a process, over a real socket and a real segment.

#![cfg(test)]

mod support;

use std::os::unix::fs::PermissionsExt;

use config::Config;
use ctrlplane::state::State;
use rustix::process::Signal;
use support::{Dataplane, EXAMPLE, Place, name, wait_until};

/// What the data plane should have, by the file alone.
fn of_file(place: &Place) -> State {
    State::of(Config::load(place.config()).unwrap().commands()).unwrap()
}

#[test]
fn it_waits_for_the_data_plane_and_tells_it_everything_once_it_comes() {
    let place = Place::new();
    let _ctrlplane = place.ctrlplane();
    wait_until("the socket is there", || place.socket().exists());
    let status = place.weftctl(&["status"]);
    assert_eq!(status.code, 4, "{status:?}");
    assert!(status.out.contains("weft-dataplane is not running in "), "{status:?}");
    assert_eq!(place.weftctl(&["drops"]).code, 4);
    let list = place.weftctl(&["vip", "list"]);
    assert_eq!((list.code, list.out.lines().count()), (0, 2), "what should be is known without a data plane");

    let dataplane = Dataplane::start(&place.runtime_dir());
    place.wait_in_sync();
    assert_eq!(dataplane.state(), of_file(&place));
    assert_eq!(dataplane.generation(), 1, "one batch was enough");
}

#[test]
fn a_data_plane_that_was_replaced_gets_everything_again() {
    let place = Place::new();
    let first = Dataplane::start(&place.runtime_dir());
    let _ctrlplane = place.ctrlplane();
    wait_until("the first has all", || first.state() == of_file(&place));
    drop(first);
    let second = Dataplane::start(&place.runtime_dir());
    wait_until("the second has all", || second.state() == of_file(&place));
    place.wait_in_sync();
}

#[test]
fn an_empty_configuration_is_committed_too() {
    let place = Place::new();
    place.write("[dataplane]\nworkers = [1]\nruntime_dir = \"/run/weft\"\n");
    let dataplane = Dataplane::start(&place.runtime_dir());
    let _ctrlplane = place.ctrlplane();
    wait_until("there is a generation", || dataplane.generation() == 1);
    place.wait_in_sync();
}

#[test]
fn changes_at_run_time_apply_show_as_drift_and_survive_kill_9() {
    let place = Place::new();
    let dataplane = Dataplane::start(&place.runtime_dir());
    let ctrlplane = place.ctrlplane();
    wait_until("the data plane has all", || dataplane.state() == of_file(&place));

    let add = ["backend", "add", "web-servers", "b3", "--address", "10.0.1.13", "--address", "fd00:1::13"];
    let added = place.weftctl(&[&add[..], &["--mac", "02:00:00:00:03:03", "--weight", "50"]].concat());
    assert_eq!((added.code, added.out.as_str()), (0, "backend `b3` added (generation 2)\n"), "{added:?}");
    let b3 = dataplane.state().pools[&name("web-servers")][&name("b3")];
    assert_eq!((b3.weight, b3.mac), (50, Some([2, 0, 0, 0, 3, 3])));
    assert_eq!(place.weftctl(&["backend", "weight", "b1", "7"]).code, 0);
    let removed = place.weftctl(&["backend", "remove", "web-servers", "b2"]);
    assert_eq!(removed.code, 0, "{removed:?}");
    let changed = dataplane.state();
    let pool = &changed.pools[&name("web-servers")];
    assert_eq!(pool.keys().map(ToString::to_string).collect::<Vec<_>>(), ["b1", "b3"]);
    assert_eq!(pool[&name("b1")].weight, 7);

    ctrlplane.kill();
    let generation = dataplane.generation();
    let _ctrlplane = place.ctrlplane();
    place.wait_in_sync();
    assert_eq!(dataplane.state(), changed);
    assert_eq!(dataplane.generation(), generation, "there was nothing to say");
    let drift = place.json(&["status"])["drift"].clone();
    assert_eq!(
        drift,
        serde_json::json!([
            "backend b1 of pool web-servers has weight 7 since a change at run time",
            "backend b2 of pool web-servers was removed at run time",
            "backend b3 of pool web-servers was added at run time",
        ])
    );

    // Back to the file, step by step: no drift is left.
    assert_eq!(place.weftctl(&["backend", "weight", "b1", "100"]).code, 0);
    assert_eq!(place.weftctl(&["backend", "remove", "b3"]).code, 0);
    let back = ["backend", "add", "b2", "--address", "10.0.1.12", "--address", "fd00:1::12"];
    assert_eq!(place.weftctl(&[&back[..], &["--mac", "02:00:00:00:03:02"]].concat()).code, 0);
    assert_eq!(place.json(&["status"])["drift"], serde_json::json!([]));
    assert_eq!(dataplane.state(), of_file(&place));
}

#[test]
fn killed_again_and_again_amid_changes_it_always_comes_back_to_what_was_acknowledged() {
    let place = Place::new();
    let dataplane = Dataplane::start(&place.runtime_dir());
    let mut acknowledged = 100;
    for round in 1..=5 {
        let ctrlplane = place.ctrlplane();
        place.wait_in_sync();
        assert_eq!(
            dataplane.state().pools[&name("web-servers")][&name("b1")].weight,
            acknowledged,
            "round {round}"
        );
        let weight = 100 + round;
        assert_eq!(place.weftctl(&["backend", "weight", "b1", &weight.to_string()]).code, 0);
        // One more change under way when the kill comes: it is made or not, never half.
        let late = std::thread::scope(|scope| {
            let late = scope.spawn(|| place.weftctl(&["backend", "weight", "b1", "900"]));
            ctrlplane.kill();
            late.join().unwrap()
        });
        if late.code == 0 {
            acknowledged = 900;
        } else {
            let _ctrlplane = place.ctrlplane();
            place.wait_in_sync();
            let found = dataplane.state().pools[&name("web-servers")][&name("b1")].weight;
            assert!(found == weight || found == 900, "{found}");
            acknowledged = found;
        }
    }
}

#[test]
fn what_the_data_plane_refuses_is_taken_back() {
    let place = Place::new();
    let (dataplane, _ctrlplane) = place.both();
    let said = place.weftctl(&["backend", "add", "refuse-me", "--address", "10.0.1.14"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.starts_with(
            "weft-dataplane refused to add or change a backend (too_many_backends): There are as many"
        ),
        "{said:?}"
    );
    assert_eq!(dataplane.state(), of_file(&place));
    let status = place.json(&["status"]);
    assert_eq!((&status["drift"], &status["dataplane"]["in_sync"]), (&serde_json::json!([]), &true.into()));
}

#[test]
fn changes_without_a_data_plane_are_kept_for_it() {
    let place = Place::new();
    let _ctrlplane = place.ctrlplane();
    wait_until("the socket is there", || place.socket().exists());
    let said = place.weftctl(&["backend", "weight", "b2", "0"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("kept, and applied as soon as there is a data plane"), "{said:?}");
    let dataplane = Dataplane::start(&place.runtime_dir());
    place.wait_in_sync();
    assert_eq!(dataplane.state().pools[&name("web-servers")][&name("b2")].weight, 0);
}

#[test]
fn sighup_reloads_whole_or_not_at_all() {
    let place = Place::new();
    let (dataplane, ctrlplane) = place.both();
    place.write(
        &EXAMPLE.replace("port     = 8000", "port = [8000, 8443]").replace("weight  = 100", "weight = 3"),
    );
    ctrlplane.signal(Signal::HUP);
    wait_until("the new file is applied", || dataplane.state() == of_file(&place));
    assert_eq!(dataplane.state().vips[&name("web")].services.len(), 4);
    let good = dataplane.state();

    place.write(&EXAMPLE.replace("port     = 8000", "port = 0").replace("weight  = 100", "weight = 4"));
    ctrlplane.signal(Signal::HUP);
    wait_until("the refusal is logged", || place.log().contains("the configuration was not reloaded"));
    assert!(place.log().contains("weft.toml:30:8: 0 is no port number"), "{}", place.log());
    // weftctl would read the bad file to find the socket, so it is given the socket.
    let socket = place.socket().display().to_string();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_weftctl"))
        .args(["--socket", &socket, "status"])
        .output()
        .unwrap();
    let status = support::Said::of(output);
    assert!(status.out.contains("reload failed"), "{status:?}");
    assert_eq!(dataplane.state(), good);
}

#[test]
fn a_second_instance_is_refused_in_one_sentence() {
    let place = Place::new();
    let _first = place.ctrlplane();
    wait_until("the socket is there", || place.socket().exists());
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_weft-ctrlplane"))
        .args(["run", "--config"])
        .arg(place.config())
        .output()
        .unwrap();
    let said = support::Said::of(output);
    assert_eq!(said.code, 1);
    assert_eq!(said.err.lines().count(), 1, "{said:?}");
    assert!(said.err.starts_with("weft-ctrlplane is already running in "), "{said:?}");
    assert!(place.socket().exists(), "the first's socket is left alone");
    assert_eq!(place.weftctl(&["status"]).code, 4, "and the first still answers");
}

#[test]
fn sigterm_ends_it_cleanly() {
    let place = Place::new();
    let (dataplane, mut ctrlplane) = place.both();
    let mode = std::fs::metadata(place.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    ctrlplane.signal(Signal::TERM);
    assert_eq!(ctrlplane.child.wait().unwrap().code(), Some(0));
    assert!(!place.socket().exists());
    assert_eq!(dataplane.state(), of_file(&place), "the data plane goes on as it is");
    let said = place.weftctl(&["status"]);
    assert_eq!(said.code, 3);
    assert!(said.err.starts_with("weft-ctrlplane is not running"), "{said:?}");
}

#[test]
fn a_bad_file_at_the_start_is_refused_with_all_its_problems() {
    let place = Place::new();
    place.write(&EXAMPLE.replace("mtu     = 1600", "mtu = 1").replace("port     = 8000", "port = 0"));
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_weft-ctrlplane"))
        .args(["run", "--config"])
        .arg(place.config())
        .output()
        .unwrap();
    let said = support::Said::of(output);
    assert_eq!((said.code, said.err.lines().count()), (1, 2), "{said:?}");
    assert!(!place.runtime_dir().exists(), "nothing is half-started");
}

#[test]
fn damaged_run_time_changes_are_refused_in_one_sentence() {
    let place = Place::new();
    std::fs::create_dir(place.runtime_dir()).unwrap();
    std::fs::write(place.runtime_dir().join("overrides.json"), "{").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_weft-ctrlplane"))
        .args(["run", "--config"])
        .arg(place.config())
        .output()
        .unwrap();
    let said = support::Said::of(output);
    assert_eq!((said.code, said.err.lines().count()), (1, 1), "{said:?}");
    assert!(said.err.contains("holds no run-time changes of Weft"), "{said:?}");
    let left = std::fs::read(place.runtime_dir().join("overrides.json")).unwrap();
    assert_eq!(left, b"{", "whatever can be saved of it is still there");
}

#[test]
fn a_renamed_backend_is_another_one_and_the_reload_says_so() {
    let place = Place::new();
    let (dataplane, _ctrlplane) = place.both();
    place.write(&EXAMPLE.replace("name    = \"b2\"", "name    = \"b9\""));
    let said = place.weftctl(&["reload"]);
    assert!(
        said.out.starts_with(
            "configuration reloaded; backend `b9` of pool `web-servers` has the addresses that `b2` had: a renamed \
             backend is another one, `b2` keeps its connections until their end and `b9` gets new ones"
        ),
        "{said:?}"
    );
    assert_eq!(dataplane.state(), of_file(&place));
    assert_eq!(dataplane.deadline("web-servers", "b2"), Some(None), "removed, without a deadline");
}

#[test]
fn a_reload_says_which_connections_cannot_be_joined_any_more() {
    let place = Place::new();
    let (_dataplane, _ctrlplane) = place.both();
    let other = EXAMPLE.replace("\"web-servers\"", "\"servers\"").replace("\"10.0.1.11\"", "\"10.0.1.13\"");
    place.write(&other);
    let said = place.weftctl(&["reload"]);
    assert!(
        said.out.starts_with(
            "configuration reloaded; VIP `web` went from pool `web-servers` to pool `servers`: its connections go on \
             where they are, but are joined through it no more (generation"
        ),
        "{said:?}"
    );
}

#[test]
fn a_pool_that_only_has_another_name_stays_the_same_pool() {
    let place = Place::new();
    let (dataplane, ctrlplane) = place.both();
    place.write(&EXAMPLE.replace("\"web-servers\"", "\"servers\""));
    let said = place.weftctl(&["reload"]);
    assert!(
        said.out.starts_with(
            "configuration reloaded; pool `web-servers` is called `servers` now: it keeps its connections and their \
             tokens (generation"
        ),
        "{said:?}"
    );
    assert_eq!(dataplane.state(), of_file(&place));
    assert_eq!(dataplane.deadline("web-servers", "b1"), None, "nothing was removed");

    // Renamed while no control plane runs, too.
    drop(ctrlplane);
    place.write(EXAMPLE);
    let _again = place.ctrlplane();
    place.wait_in_sync();
    assert_eq!(dataplane.state(), of_file(&place));
    assert_eq!(dataplane.deadline("servers", "b1"), None, "nothing was removed");
}

/// More commands than a ring has slots, in one batch, and a dump longer than the other ring.
#[test]
fn thousands_of_backends_are_told_reconciled_and_taken_away() {
    use std::fmt::Write as _;
    let place = Place::new();
    let mut text = String::from("[dataplane]\nruntime_dir = \"/run/weft\"\n");
    for pool in 0..20 {
        let vip = format!("[[vip]]\nname = \"v{pool}\"\naddress = \"10.9.9.{pool}\"\nport = \"any\"\n");
        text.push_str(&vip);
        for backend in 0..200 {
            let address = format!("10.1.{pool}.{backend}");
            let mac = format!("02:00:00:01:{pool:02x}:{backend:02x}");
            write!(
                text,
                "[[vip.backend]]\nname = \"b{backend}\"\naddress = \"{address}\"\nmac = \"{mac}\"\n"
            )
            .unwrap();
        }
    }
    place.write(&text);
    let (dataplane, ctrlplane) = place.both();
    assert_eq!(dataplane.state(), of_file(&place));
    assert_eq!(dataplane.generation(), 1, "one batch");
    assert_eq!(dataplane.state().pools.values().map(|pool| pool.len()).sum::<usize>(), 4000);

    place.write(&text.replace("address = \"10.1.", "weight = 3\naddress = \"10.1."));
    assert_eq!(place.weftctl(&["reload"]).code, 0);
    assert_eq!(dataplane.state(), of_file(&place), "every one of them changed");
    assert_eq!(dataplane.generation(), 2);

    ctrlplane.kill();
    let _ctrlplane = place.ctrlplane();
    place.wait_in_sync();
    assert_eq!(dataplane.generation(), 2, "there was nothing to say");

    place.write("[dataplane]\nruntime_dir = \"/run/weft\"\n");
    assert_eq!(place.weftctl(&["reload"]).code, 0);
    assert_eq!(dataplane.state(), State::default());
}

#[test]
fn status_tells_what_happened_of_late_and_what_is_so_now() {
    use ipc::counter::Counter;
    use ipc::counters::Gauge;
    let place = Place::new();
    let (dataplane, _ctrlplane) = place.both();
    assert_eq!(place.json(&["status"])["problems"], serde_json::json!([]));
    dataplane.change(|held| {
        held.count.push((Counter::TxRefused, 12));
        held.gauges.extend([(Gauge::FlowCapacity, 100), (Gauge::Flows, 97), (Gauge::TablesKept, 1)]);
    });
    let problems = || place.json(&["status"])["problems"].as_array().unwrap().clone();
    wait_until("both are told", || problems().len() == 2);
    let told = problems();
    assert_eq!(told[0], "the flow table is 97 % full (97 of 100): raise `flows` in [dataplane]");
    assert!(told[1].as_str().unwrap().starts_with("12 packets dropped in the last "), "{told:?}");
    assert_eq!(place.json(&["status"])["dataplane"]["tables"]["kept"], true);
}

#[test]
fn a_data_plane_that_comes_back_with_empty_tables_is_a_problem() {
    let place = Place::new();
    let first = Dataplane::start(&place.runtime_dir());
    let _ctrlplane = place.ctrlplane();
    place.wait_in_sync();
    let mut held = first.stop();
    wait_until("it is missed", || place.weftctl(&["status"]).code == 4);
    held.gauges.push((ipc::counters::Gauge::TablesKept, 0));
    let _second = Dataplane::start_with(&place.runtime_dir(), held);
    place.wait_in_sync();
    let problems = place.json(&["status"])["problems"].to_string();
    assert!(problems.contains("its tables began empty"), "{problems}");
}

#[test]
fn a_secret_in_a_file_of_its_own_is_read_again_with_every_reload() {
    use ipc::message::Secret;
    let place = Place::new();
    let key = place.dir.path().join("odd.key");
    let put = |digits: &str, mode| {
        std::fs::write(&key, digits).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    put("0123456789abcdef\n", 0o600);
    let steering = "steering = [\"token-map\"]\ntoken_map = \"cipher\"\ncipher_key_odd_file = \"odd.key\"";
    let text = EXAMPLE.replace("steering = [\"learn\"]", steering);
    place.write(
        &text.replace("weight  = 100", "number = 1").replace("name    = \"b2\"", "name = \"b2\"\nnumber = 2"),
    );
    let (dataplane, _ctrlplane) = place.both();
    let odd = || dataplane.state().vips[&name("web")].steering.cipher_keys[1];
    assert_eq!(odd(), Some(Secret([1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef])));
    assert!(
        !place.weftctl(&["status"]).out.contains("problem"),
        "a file that only names a secret may be read by all"
    );

    put("fedcba9876543210", 0o640);
    assert_eq!(place.weftctl(&["reload"]).code, 0);
    assert_eq!(odd(), Some(Secret([0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10])));

    put("0000111122223333", 0o644);
    let config = place.config().display().to_string();
    for arguments in [&["reload"][..], &["check", &config]] {
        let said = place.weftctl(arguments);
        assert_eq!(said.code, 1, "{said:?}");
        assert!(
            said.err.contains("odd.key holds a secret, and its mode 0644 lets others at it; run chmod 600"),
            "{said:?}"
        );
        assert!(!said.err.contains("00001111"), "no byte of it: {said:?}");
    }
    assert_eq!(odd(), Some(Secret([0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10])), "nothing changed");
    put("no secret", 0o600);
    assert!(
        place.weftctl(&["reload"]).err.contains("odd.key holds is no secret of the right length; write 16")
    );
    std::fs::remove_file(&key).unwrap();
    assert!(place.weftctl(&["reload"]).err.contains("No such file"));
    assert_eq!(place.weftctl(&["vip", "list"]).code, 0, "weftctl finds its socket without the secrets");
}

#[test]
fn a_file_with_a_secret_inside_that_all_may_read_is_a_problem_of_the_status() {
    let place = Place::new();
    let steering = "steering = [\"learn\"]\nkey_secret = \"00112233445566778899aabbccddeeff\"";
    place.write(&EXAMPLE.replace("steering = [\"learn\"]", steering));
    let mode =
        |mode| std::fs::set_permissions(place.config(), std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    let _both = place.both();
    let told = "weft.toml holds a secret, and its mode 0644 lets everybody read it: run chmod o-rwx on it";
    assert!(place.weftctl(&["status"]).out.contains(told), "{}", place.weftctl(&["status"]).out);
    let check = place.weftctl(&["check", &place.config().display().to_string()]);
    assert!(check.code == 0 && check.err.contains(told), "{check:?}");
    mode(0o640);
    assert!(!place.weftctl(&["status"]).out.contains("holds a secret"));
}
