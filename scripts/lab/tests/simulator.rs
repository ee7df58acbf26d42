//! The simulator is no echo of itself: its client joins a Linux server, and its server is joined by a Linux client.
//! No balancer stands between them, but in the demo's simulated schemes. See tests/e2e.rs for what the tests need; and `weft-bench`, beside the shipped
//! programs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use weft_lab::counters::Kernel;
use weft_lab::simulator::{self, Simulator};
use weft_lab::simulator_demo;
use weft_lab::stand::{self, LIMIT, Machine};
use weft_lab::topology::Family;
use weft_lab::traffic::echo;

/// The last number of the simulated host's addresses.
const HOST: u8 = 31;

/// `--address` and its value, for all of the simulated host's.
fn own() -> Vec<String> {
    let all = [Family::V4, Family::V6].map(|family| simulator::addresses(family, HOST));
    all.concat().into_iter().flat_map(|address| ["--address".to_owned(), address]).collect()
}

/// The machine and the simulator, or nothing after saying why this test cannot run here.
fn machine(test: &str) -> Option<(Machine, PathBuf)> {
    let machine = Machine::take(test, env!("CARGO_BIN_EXE_weft-lab"), env!("CARGO_TARGET_TMPDIR"))?;
    match simulator::program(&stand::binary_dir(Path::new(env!("CARGO_BIN_EXE_weft-lab")))) {
        Ok(program) => Some((machine, program)),
        Err(why) => {
            skip::skip(test, &why.to_string());
            None
        }
    }
}

fn number(report: &Value, pointer: &str) -> u64 {
    report
        .pointer(pointer)
        .and_then(Value::as_u64)
        .ok_or_else(|| format!("no {pointer} in {report}"))
        .unwrap()
}

#[test]
fn a_simulated_client_joins_a_linux_server_and_both_hmacs_are_right() {
    let Some((machine, program)) = machine("a simulated client and a Linux server") else {
        return;
    };
    for family in [Family::V4, Family::V6] {
        let lab = machine.lab(1, false).unwrap();
        // The simulator reads the wire, where a checksum left to the hardware would be missing.
        let offloads = ["-K", "e0", "tx", "off", "gso", "off", "tso", "off", "gro", "off"];
        lab.backends[0].namespace.run("ethtool", &offloads).unwrap();
        // Over IPv4 the kernel wants checksums of the data, over IPv6 the simulator does.
        let wants = if family == Family::V4 { "1" } else { "0" };
        lab.backends[0].namespace.sysctl(&[&format!("net.mptcp.checksum_enabled={wants}")]).unwrap();
        let via = |net: u8| match family {
            Family::V4 => format!("10.0.{net}.11"),
            Family::V6 => format!("fd00:{net}::11"),
        };
        let (service, via) = (family.service().to_string(), [via(1), via(2)]);
        let own = own();
        let mut words = vec!["--service", &service, "--via", &via[0], "--via", &via[1]];
        words.extend([
            "--connections",
            "10",
            "--joins",
            "2",
            "--bytes",
            "4000",
            "--no-echo",
            "--seconds",
            "60",
        ]);
        if family == Family::V6 {
            words.extend(["--checksums", "--fastclose"]);
        }
        words.extend(own.iter().map(String::as_str));
        let client = Simulator::start(&lab, &program, "client", HOST, &words).unwrap();
        let report = client.report(LIMIT).unwrap();
        assert_eq!(report["passed"], true, "{report}");
        let of = |name: &str| number(&report, &format!("/client/{name}"));
        assert_eq!((of("mptcp"), of("whole"), of("joined")), (10, 10, 20), "{family}");
        let kernel = Kernel::read(&lab.backends[0].namespace).unwrap();
        assert_eq!((kernel.mptcp("MPCapableACKRX"), kernel.mptcp("MPJoinAckRx")), (10, 20), "{family}");
        assert_eq!(kernel.mptcp("MPJoinAckHMacFailure") + kernel.mptcp("MPJoinNoTokenFound"), 0);
        // One on each subflow.
        let closed = if family == Family::V6 { 30 } else { 0 };
        assert_eq!((kernel.mptcp("DataCsumErr"), kernel.mptcp("MPFailRx")), (0, 0), "{family}");
        assert_eq!(kernel.mptcp("MPFastcloseRx"), closed, "{family}");
        assert_eq!(of("seen/wrong_checksum"), 0, "{family}: {report}");
        // What the kernel took over the joined subflows, it took as data of the connection.
        assert_eq!(of("seen/wrong_hmac") + of("seen/again"), 0, "{report}");
    }
}

#[test]
fn a_linux_client_joins_a_simulated_server_and_moves_data_over_both_subflows() {
    let Some((machine, program)) = machine("a Linux client and a simulated server") else {
        return;
    };
    for family in [Family::V4, Family::V6] {
        let lab = machine.lab(1, false).unwrap();
        lab.route_by(HOST).unwrap();
        let service = family.service();
        let (own, service_text) = (own(), service.to_string());
        let mut words = vec!["--service", &service_text, "--seconds", "120"];
        // Over IPv4 the simulator wants checksums of the data, over IPv6 the kernel does.
        if family == Family::V4 {
            words.push("--server-checksums");
        } else {
            lab.client.sysctl(&["net.mptcp.checksum_enabled=1"]).unwrap();
        }
        words.extend(own.iter().map(String::as_str));
        let server = Simulator::start(&lab, &program, "server", HOST, &words).unwrap();
        let before = Kernel::read(&lab.client).unwrap();
        let asked = echo::Options { service, connections: 5, join_wait: 10 };
        let echoed = asked.run(&lab).unwrap();
        assert!(echoed.iter().all(|one| (one.subflows, one.heard) == (2, 2)), "{family}: {echoed:?}");
        let kernel = Kernel::read(&lab.client).unwrap().since(&before);
        assert_eq!((kernel.mptcp("MPCapableSYNACKRX"), kernel.mptcp("MPJoinSynAckRx")), (5, 5));
        assert_eq!(kernel.mptcp("MPJoinSynAckHMacFailure"), 0);
        let report = server.stop(LIMIT).unwrap();
        assert_eq!(report["passed"], true, "{report}");
        let of = |name: &str| number(&report, &format!("/all_servers/{name}"));
        assert_eq!((of("connections"), of("joined"), of("wrong_hmac"), of("wrong_echo")), (5, 5, 0, 0));
        assert_eq!((kernel.mptcp("DataCsumErr"), of("wrong_checksum")), (0, 0), "{family}");
        assert!(of("checksums") >= 5, "{family}: {report}");
        assert_eq!(of("bytes"), echoed.iter().map(|one| one.bytes as u64).sum::<u64>());
    }
}

#[test]
fn simulated_schemes_bring_every_join_home_through_the_shipped_weft() {
    let Some((machine, program)) = machine("the demo's simulated schemes") else {
        return;
    };
    let directory = program.parent().unwrap();
    let runs = [
        ("ranges", "4", "l2dsr", "v1"),
        ("cipher", "6", "gue", "v1"),
        ("chosen-key", "4", "gue", "v1"),
        ("chosen-key", "6", "gue", "v0"),
        ("explicit-g", "4", "ipip", "v1"),
        ("explicit-e", "6", "l2dsr", "v1"),
    ];
    assert!(simulator_demo::NAMES.iter().all(|name| runs.iter().any(|(steering, ..)| steering == name)));
    for (steering, ip, forward, version) in runs {
        let mut words = vec!["demo", "--steering", steering, "--ip", ip, "--forward", forward];
        words.extend(["--client-version", version, "--connections", "30"]);
        let mut demo = Command::new(env!("CARGO_BIN_EXE_weft-lab"));
        let output = demo.args(words).env("WEFT_BIN_DIR", directory).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.ends_with("PASS\n"), "{steering}: {said}");
    }
    drop(machine);
}
