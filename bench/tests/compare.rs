//! `weft-bench compare`, with the real programs: small runs, and what is left of one that is interrupted.
//!
//! What is measured here means nothing; that it is measured does: every packet of Weft's finds its flow, every figure
//! has a row, and no program outlives the run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use weft_bench::report::{Row, Run};

/// The devices and CPUs are for one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Where the programs are; nothing where they are not, or cannot run.
fn programs(test: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_BIN_EXE_weft-bench")).parent().unwrap();
    let cpus = weft_bench::machine::cpus().len();
    let missing = ["weft-dataplane", "weft-ctrlplane", "weftctl"]
        .iter()
        .find(|name| !folder.join(name).is_file())
        .map(|name| format!("{name} is not built"));
    let why = match missing {
        Some(why) => why,
        None if !rustix::process::geteuid().is_root() => "not root".to_owned(),
        None if cpus < 2 => "one CPU".to_owned(),
        None => return Some(folder.to_owned()),
    };
    // Built alone, the tests of this package are without the programs of others.
    skip::skip(test, &why);
    None
}

/// A temporary folder that all files of a run go to.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn start(&self, programs: &Path, words: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-bench"));
        command.arg("compare").args(words).arg("--programs").arg(programs);
        command.arg("--out").arg(self.0.path().join("run.json")).env("TMPDIR", self.0.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn run(&self, programs: &Path, words: &[&str]) -> Vec<Row> {
        let output: Output = self.start(programs, words).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Run::read(&self.0.path().join("run.json")).unwrap().series
    }

    /// Programs whose command line names a file of this place, and folders that are left in it.
    fn leftovers(&self) -> Vec<String> {
        let mark = self.0.path().to_str().unwrap();
        let mut left: Vec<String> = fs::read_dir(mark)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .map(|path| path.display().to_string())
            .collect();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(mark) {
                left.push(line);
            }
        }
        left
    }
}

fn figures(rows: &[Row]) -> BTreeSet<&str> {
    rows.iter().map(|row| row.figure.as_str()).collect()
}

fn has_testpmd() -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|folder| folder.join("dpdk-testpmd").is_file())
}

#[test]
fn weft_is_measured_from_a_file_with_every_flow_established() {
    const NAME: &str = "weft_is_measured_from_a_file_with_every_flow_established";
    let Some(programs) = programs(NAME) else { return };
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = Place::new();
    let words =
        ["--only", "pcap", "--rounds", "2", "--spell", "0.05", "--flows", "1000,3000", "--workers", "1"];
    let rows = place.run(&programs, &words);
    for flows in [1000, 3000] {
        let row = rows.iter().find(|row| row.figure == "weft_pcap" && row.flows == Some(flows)).unwrap();
        assert_eq!((row.unit.as_str(), row.rounds, row.frame_bytes), ("ns", 2, Some(78)));
        assert!(row.min > 0.0 && row.min <= row.median && row.median <= row.max, "{row:?}");
        assert_eq!(row.extra["found_their_flow"], 1.0, "all were established, and taken over");
        assert_eq!(row.extra["packets_of_the_file"], flows.max(1024));
    }
    if figures(&rows).contains("testpmd_macswap") {
        let ratio = rows.iter().find(|row| row.figure == "weft_over_macswap").unwrap();
        assert_eq!((ratio.goal, ratio.rounds), (Some(2.0), 2));
    }
    assert_eq!(place.leftovers(), [""; 0]);
}

#[test]
fn weft_is_measured_against_a_sender_and_under_a_reload() {
    const NAME: &str = "weft_is_measured_against_a_sender_and_under_a_reload";
    let Some(programs) = programs(NAME) else { return };
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = Place::new();
    let words = [
        "--only",
        "vhost",
        "--only",
        "blackout",
        "--quick",
        "--rounds",
        "1",
        "--precision",
        "0.9",
        "--frames",
        "128,1514",
        "--latency-seconds",
        "0.2",
        "--testpmd-sink",
        "--reload-pps",
        "20000",
    ];
    let rows = place.run(&programs, &words);
    let expected =
        ["blackout_gap", "blackout_loss", "blackout_receiver", "blackout_silence", "vhost_most", "vhost_ndr"];
    let found = figures(&rows);
    assert!(expected.iter().all(|figure| found.contains(figure)), "{found:?}");
    let percentiles: Vec<f64> = rows.iter().filter_map(|row| row.percentile).collect();
    let search = rows.iter().find(|row| row.figure == "vhost_pdr").unwrap();
    // Where others have the CPUs there may be no rate at which hardly anything is lost, and no latency below it.
    let loads = if search.median > 0.0 { 3 } else { 0 };
    assert_eq!(percentiles, [50.0, 90.0, 99.0, 99.9, 100.0].repeat(loads));
    let frames: Vec<_> =
        rows.iter().filter(|row| row.figure == "vhost_most").map(|row| row.frame_bytes.unwrap()).collect();
    assert_eq!(frames, [128, 1514]);
    if has_testpmd() {
        let row = rows.iter().find(|row| row.case.ends_with("testpmd as sink")).unwrap();
        assert!(row.extra["last_trial"]["received"]["packets"].as_u64() > Some(0), "{row:?}");
    }
    assert_eq!(search.extra["weft_dropped_in_all"], 0, "whatever was lost was lost in a ring");
    let reload = rows.iter().find(|row| row.case == "1,000 backends changed").unwrap();
    assert!(reload.extra["reload_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(place.leftovers(), [""; 0]);
}

#[test]
fn an_interrupted_comparison_ends_all_it_started() {
    const NAME: &str = "an_interrupted_comparison_ends_all_it_started";
    let Some(programs) = programs(NAME) else { return };
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = Place::new();
    let mut child = place.start(&programs, &["--only", "vhost", "--frames", "128"]);
    // The sender is the last program to start.
    let since = Instant::now();
    while !place.leftovers().iter().any(|line| line.contains("net_virtio_user0")) {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        assert!(since.elapsed() < Duration::from_secs(120), "no sender");
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("stopped by a signal") || said.contains("has ended"), "{said}");
    assert_eq!(place.leftovers(), [""; 0]);
    assert!(!place.0.path().join("run.json").exists());
}

#[test]
fn what_is_missing_is_said_before_anything_starts() {
    let place = Place::new();
    let output = place.start(place.0.path(), &["--only", "pcap"]).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(
        said.contains("there is no weft-dataplane in") && said.contains("cargo build --release"),
        "{said}"
    );
}
