//! `weft-bench gen` as a program: the files it writes, what it says of them, and what is left when it fails.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use capture::CaptureReader;
use serde_json::Value;
use sha2::{Digest, Sha256};
use weft_bench::generate::{self, Part, Plan, Profile, Versions};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weft-bench")).arg("gen").args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn sha256(path: &Path) -> String {
    Sha256::digest(std::fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The first 16 digits of the SHA-256 of 16 connections of each profile, seed 1, both families, both versions.
const DIGESTS: &[(Profile, &str)] = &[
    (Profile::Plain, "db98b516df0c7b41"),
    (Profile::Capable, "a97f72d612c0e604"),
    (Profile::Bulk, "f76f56a16dfa1286"),
    (Profile::Join, "30c0d38167a693f9"),
    (Profile::JoinSyn, "a1ff92cb82990a77"),
    (Profile::ThirdAck, "955871c17d53342a"),
    (Profile::Unknown, "3ca1c2260b191135"),
    (Profile::Forged, "db60599bcc7f5889"),
    (Profile::Collide, "fc037299658f8bd4"),
    (Profile::Overtake, "d240026d6c30105b"),
    (Profile::Signals, "3d788515d56e7f22"),
    (Profile::Fastclose, "53ef577c591fec89"),
    (Profile::Malformed, "472e3b8bc0046f53"),
    (Profile::Icmp, "529f04870e444426"),
    (Profile::Mix, "6a998d21d4d48c0c"),
    (Profile::SynFlood, "cbab74b2dd897570"),
    (Profile::CapableFlood, "e548f49714613b39"),
    (Profile::JoinFlood, "ff688de4b5c17aa3"),
    (Profile::Udp, "40157a335db88279"),
];

#[test]
fn the_same_plan_gives_the_same_bytes_on_every_machine() {
    let directory = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for profile in Profile::ALL {
        let versions = if profile == Profile::Collide { Versions::V1 } else { Versions::Both };
        let path = directory.path().join(profile.name());
        let summary = generate::write(Plan { versions, ..Plan::new(profile, 16) }, &path).unwrap();
        assert_eq!(summary.sha256, sha256(&path), "{profile}");
        let pinned = DIGESTS.iter().find(|(known, _)| *known == profile).map(|(_, digest)| *digest);
        if pinned != Some(&summary.sha256[..16]) {
            wrong.push(format!("(Profile::{profile:?}, \"{}\"),", &summary.sha256[..16]));
        }
    }
    assert!(wrong.is_empty(), "what is written has changed; if it was meant to:\n{}", wrong.join("\n"));
}

#[test]
fn another_seed_gives_other_bytes_and_the_parts_are_not_the_whole() {
    let directory = tempfile::tempdir().unwrap();
    let digest = |name: &str, seed, part| {
        let plan = Plan { seed, part, ..Plan::new(Profile::Join, 16) };
        generate::write(plan, &directory.path().join(name)).unwrap().sha256
    };
    let all = [
        digest("a", 1, Part::All),
        digest("b", 2, Part::All),
        digest("c", 1, Part::Warm),
        digest("d", 1, Part::Steady),
    ];
    for (at, one) in all.iter().enumerate() {
        assert!(!all[..at].contains(one));
    }
    assert_eq!(digest("e", 1, Part::All), all[0]);
}

#[test]
fn the_summary_says_what_the_file_holds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("join.pcap");
    std::fs::write(&path, "what was there before").unwrap();
    let file = path.to_str().unwrap();
    let output = run(&["--profile", "join", "--connections", "10", "--seed", "7", "--out", file, "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();

    let mut reader = CaptureReader::open(&path).unwrap();
    let (mut packets, mut bytes) = (0, 0);
    let (mut first, mut last) = (None, Duration::ZERO);
    while let Some(record) = reader.read().unwrap() {
        packets += 1;
        bytes += record.bytes.len();
        first.get_or_insert(record.time);
        assert!(record.time > last || packets == 1, "time goes on");
        last = record.time;
    }
    assert_eq!(summary["packets"], packets);
    assert_eq!(summary["frame_bytes"], bytes);
    assert_eq!(summary["file_bytes"], std::fs::metadata(&path).unwrap().len());
    assert_eq!(summary["sha256"], sha256(&path));
    assert_eq!(summary["tokens"]["taught"], 10);
    assert_eq!(summary["tokens"]["joins_known"], 10);
    assert_eq!(summary["tokens"]["joins_unknown"], 0);
    // A microsecond from packet to packet, unless another rate is asked for.
    let passed = last - first.unwrap();
    assert_eq!(passed, Duration::from_micros(packets - 1));
    let kinds: u64 =
        summary["kinds"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(kinds, packets);
    assert_eq!(names(directory.path()), ["join.pcap"]);
}

#[test]
fn time_stamps_are_in_microseconds_where_they_must_be() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcap");
    let file = path.to_str().unwrap();
    let output = run(&[
        "--profile",
        "syn-flood",
        "--connections",
        "9",
        "--rate",
        "500000",
        "--microseconds",
        "--out",
        file,
    ]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(std::fs::read(&path).unwrap()[..4], 0xa1b2_c3d4_u32.to_le_bytes());
    let mut reader = CaptureReader::open(&path).unwrap();
    let times = [(); 2].map(|()| reader.read().unwrap().unwrap().time);
    assert_eq!(times[1] - times[0], Duration::from_micros(2));
}

#[test]
fn a_configuration_says_where_to() {
    let directory = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/weft.example.toml");
    let path = directory.path().join("a.pcap");
    let (example, file) = (example.to_str().unwrap(), path.to_str().unwrap());
    let output = run(&["--profile", "plain", "--connections", "4", "--config", example, "--out", file]);
    assert!(output.status.success(), "{}", said(&output));
    let mut reader = CaptureReader::open(&path).unwrap();
    while let Some(record) = reader.read().unwrap() {
        let parsed = packet::parse(&record.bytes, record.bytes.len());
        let to = parsed.flow.destination.to_ip().to_string();
        assert!(["10.9.9.9", "fd99::9"].contains(&to.as_str()), "{to}");
        assert_eq!((parsed.flow.destination_port, &record.bytes[..6]), (8000, &[2, 0, 0, 0, 2, 1][..]));
    }
    // The example has no UDP VIP.
    let output = run(&["--profile", "udp", "--config", example, "--out", file]);
    assert!(!output.status.success() && said(&output).contains("--vip udp/"), "{}", said(&output));
}

#[test]
fn every_profile_is_listed_with_a_sentence() {
    let listed = String::from_utf8(run(&["--list"]).stdout).unwrap();
    assert_eq!(listed.lines().count(), Profile::ALL.len());
    let json: Value = serde_json::from_slice(&run(&["--list", "--json"]).stdout).unwrap();
    for (line, profile) in listed.lines().zip(Profile::ALL) {
        assert!(line.starts_with(profile.name()) && line.ends_with(profile.sentence()), "{line}");
    }
    let bulk = json.as_array().unwrap().iter().find(|entry| entry["profile"] == "bulk").unwrap();
    assert_eq!((&bulk["warm"], &bulk["steady"]), (&Value::Bool(true), &Value::Bool(true)));
}

#[test]
fn what_cannot_be_written_leaves_nothing_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kept.pcap");
    std::fs::write(&path, "kept").unwrap();
    let file = path.to_str().unwrap();
    for (arguments, expected) in [
        (vec!["--profile", "nonsense", "--out", file], "--list"),
        (vec!["--profile", "bulk", "--frame-size", "90", "--out", file], "--frame-size"),
        (vec!["--profile", "unknown", "--part", "steady", "--out", file], "no steady part"),
        (vec!["--profile", "plain", "--vip", "10.9.9.9", "--out", file], "10.9.9.9:80"),
        (vec!["--profile", "plain", "--family", "6", "--vip", "10.9.9.9:80", "--out", file], "--vip tcp/"),
        (vec!["--profile", "plain", "--dst-mac", "nowhere", "--out", file], "02:00:00:00:02:01"),
        (vec!["--profile", "plain", "--config", "/nowhere/weft.toml", "--out", file], "/nowhere/weft.toml"),
        (vec!["--profile", "plain", "--out", "/nowhere/a.pcap"], "/nowhere/a.pcap"),
        (vec!["--profile", "plain"], "--out"),
    ] {
        let output = run(&arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(said(&output).contains(expected), "{arguments:?}: {}", said(&output));
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    assert_eq!(names(directory.path()), ["kept.pcap"]);
}

#[test]
fn who_interrupts_it_finds_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.pcap");
    // As many packets as no machine writes before it is stopped.
    let mut child = Command::new(env!("CARGO_BIN_EXE_weft-bench"))
        .args([
            "gen",
            "--profile",
            "bulk",
            "--part",
            "steady",
            "--packets",
            "4000000000",
            "--frame-size",
            "78",
        ])
        .args(["--family", "4", "--connections", "1000", "--out", path.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while names(directory.path()).is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(names(directory.path()).is_empty(), "{:?}", names(directory.path()));
}
