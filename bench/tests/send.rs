//! `weft-bench send`, the real program, on a real DPDK ring that gives back what it takes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use capture::CaptureWriter;
use packet::build::packet;
use serde_json::Value;

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip::skip(test, "not root");
    }
    root
}

/// A capture of so many packets, every other one with a payload that has room for a stamp.
fn capture(folder: &Path, packets: u16) -> PathBuf {
    let path = folder.join("in.pcap");
    let mut writer = CaptureWriter::create(&path).unwrap();
    for number in 0..packets {
        let payload = vec![7; if number % 2 == 0 { 100 } else { 3 }];
        let frame = packet().ipv4([192, 0, 2, 1], [10, 9, 9, 9]).tcp(1000 + number, 8000).data(1, 1);
        writer.write(Duration::ZERO, &frame.payload(&payload).build(), 0).unwrap();
    }
    writer.finish().unwrap();
    path
}

/// Runs it with these words; a line of JSON for each trial.
fn send(words: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weft-bench"))
        .arg("send")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn what_a_ring_gives_back_is_counted_and_timed() {
    if !is_root("what_a_ring_gives_back_is_counted_and_timed") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = capture(folder.path(), 300);
    let words = ["--capture", file.to_str().unwrap(), "--vdev", "net_ring0", "--receive", "--json"];

    let all = lines(&send(&[&words[..], &["--once"]].concat(), ""));
    let [trial] = &all[..] else { panic!("{all:?}") };
    assert_eq!((&trial["packets"], &trial["stamped_packets"]), (&300.into(), &150.into()));
    assert_eq!((&trial["offered"], &trial["refused"]), (&300.into(), &0.into()));
    let back = &trial["received"];
    assert_eq!((&back["packets"], &back["lost"], &back["reordered"]), (&300.into(), &0.into(), &0.into()));
    assert_eq!(back["latency"]["packets"], 150);
    assert!(back["latency"]["p50_us"].as_f64().unwrap() <= back["latency"]["max_us"].as_f64().unwrap());

    let paced =
        lines(&send(&[&words[..], &["--rate", "-", "--seconds", "0.2"]].concat(), "20k\n\n10k 0.1\nmax\n"));
    assert_eq!(paced[0]["ready"], true);
    let offered: Vec<u64> = paced[1..].iter().map(|trial| trial["offered"].as_u64().unwrap()).collect();
    // What was due while the sender was held up is left out, and counted.
    let due: Vec<u64> = paced[1..3]
        .iter()
        .map(|trial| trial["offered"].as_u64().unwrap() + trial["skipped"].as_u64().unwrap())
        .collect();
    assert!((3_990..=4_010).contains(&due[0]) && (990..=1_010).contains(&due[1]), "{due:?}");
    assert!(offered[2] > 300, "the capture is played over and over");
    for trial in &paced[1..] {
        assert_eq!(trial["received"]["packets"], trial["offered"], "the ring loses nothing");
        assert_eq!(trial["received"]["stale"], 0);
    }
}

#[test]
fn what_nobody_takes_is_lost_and_said_to_be() {
    if !is_root("what_nobody_takes_is_lost_and_said_to_be") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = capture(folder.path(), 10);
    let words =
        ["--capture", file.to_str().unwrap(), "--vdev", "net_null0,no-rx=1", "--receive", "--rate", "1k"];
    let output = send(&[&words[..], &["--seconds", "0.1"]].concat(), "");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(
        said.contains("lost, which is 100.0000 %") && said.contains("no stamped packet came back"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_sent_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, long) = (folder.path().join("empty.pcap"), folder.path().join("long.pcap"));
    CaptureWriter::create(&empty).unwrap().finish().unwrap();
    let mut writer = CaptureWriter::create(&long).unwrap();
    writer.write(Duration::ZERO, &[0; 60], 0).unwrap();
    writer.write(Duration::ZERO, &[0; 3000], 0).unwrap();
    writer.finish().unwrap();
    let cases = [
        (vec!["--capture", "nosuch.pcap"], "cannot read nosuch.pcap"),
        (vec!["--capture", empty.to_str().unwrap()], "holds no packet"),
        (vec!["--capture", long.to_str().unwrap()], "packet 2 of"),
        (vec!["--capture", "nosuch.pcap", "--rate", "fast"], "\"fast\" is no rate: write max"),
    ];
    for (words, sentence) in cases {
        let output = send(&[&words[..], &["--vdev", "net_null0"]].concat(), "");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(sentence), "{said}");
    }
}
