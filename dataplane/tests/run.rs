//! `weft-dataplane run`, the real program, from its start to its end: what it forwards is compared byte for byte with
//! what `replay` says of the same capture; it is ended by signals, and killed and started again.
//!
//! Changes and watching while packets come are in `under_traffic.rs`; where it cannot start, in `bad_ends.rs`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod running;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use ipc::control_link::Peer;
use ipc::counter::Counter;
use ipc::reason::Reason;
use running::packets::{capture, frames};
use running::wire::Wire;
use running::{
    DataPlane, PATIENCE, Place, Setup, assert_consistent, commands, commit, is_root, patiently, program,
    until, workers,
};
use rustix::process::Signal;

// ---- what is forwarded -----------------------------------------------------------------------------------------

/// What `replay` says of a capture: the frames that leave, and how many packets have each reason.
fn replayed(place: &Place, config: &Path, capture: &Path) -> (Vec<Vec<u8>>, BTreeMap<String, u64>) {
    let (sent, verdicts) = (place.path("replayed.pcap"), place.path("verdicts.jsonl"));
    let mut replay = Command::new(program());
    replay.arg("replay").arg("--config").arg(config).arg("--in").arg(capture);
    replay.arg("--out").arg(&sent).arg("--verdicts").arg(&verdicts);
    assert!(replay.status().unwrap().success());
    let mut reasons = BTreeMap::new();
    for line in fs::read_to_string(verdicts).unwrap().lines() {
        let verdict: serde_json::Value = serde_json::from_str(line).unwrap();
        *reasons.entry(verdict["reason"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    (frames(&sent), reasons)
}

fn forwards_as_replayed(name: &str, huge_pages: &str) {
    let place = Place::new();
    let wire = Wire::new(&place);
    let (device, workers) = (wire.device("out.pcap"), workers(1));
    let config =
        place.configure(&Setup { workers: &workers, huge_pages, devices: &[&device], ..Setup::default() });
    let (expected, mut reasons) = replayed(&place, &config, &capture(name));
    assert!(!expected.is_empty());

    let mut running = DataPlane::start(&place, &config);
    let mut link = running.control(&place);
    wire.fill_while(|| commit(&mut link, &commands(&config)));
    let real = frames(&capture(name));
    wire.send(&real);
    let fillers = wire.fillers();
    // The end of the file: the worker polls on and gets nothing.
    wire.end();
    let all = fillers + u64::try_from(real.len()).unwrap();
    let counters = link.counters();
    until("every packet is received", || counters.counter(Counter::RxPackets) == all);
    running.stop(Signal::TERM);

    assert_eq!(frames(&place.path("out.pcap")), expected, "{name}");
    assert_eq!(counters.counter(Counter::TxPackets), u64::try_from(expected.len()).unwrap());
    let not_ours = reasons.entry(Reason::NotOurMac.name().to_owned()).or_default();
    *not_ours += fillers - counters.reason(Reason::NoConfig);
    reasons.insert(Reason::NoConfig.name().to_owned(), counters.reason(Reason::NoConfig));
    for reason in Reason::ALL {
        let expected = reasons.get(reason.name()).copied().unwrap_or(0);
        assert_eq!(counters.reason(*reason), expected, "{name}: {reason}");
    }
    assert_eq!(place.leftovers(), [""; 0]);
}

const CAPTURES: [&str; 3] =
    ["token_steered_join.lbview.pcap", "v1_join_addaddr_data_fin.lbview.pcap", "ipv6_join_addaddr.pcap"];

#[test]
fn a_capture_is_forwarded_as_replay_says_without_huge_pages() {
    if is_root("a_capture_is_forwarded_as_replay_says_without_huge_pages") {
        CAPTURES.iter().for_each(|name| forwards_as_replayed(name, "off"));
    }
}

#[test]
fn a_capture_is_forwarded_as_replay_says_on_huge_pages() {
    const NAME: &str = "a_capture_is_forwarded_as_replay_says_on_huge_pages";
    if !is_root(NAME) {
        return;
    }
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let free = meminfo.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    // 64 MiB for packets, the tables, and something for tests beside this one.
    if free.is_none_or(|count| count.trim().parse::<u32>().unwrap() < 64) {
        return skip::skip(NAME, "fewer than 64 huge pages are free: echo 512 > /proc/sys/vm/nr_hugepages");
    }
    CAPTURES.iter().for_each(|name| forwards_as_replayed(name, "on"));
}

// ---- killed and ended -------------------------------------------------------------------------------------------

#[test]
fn a_killed_data_plane_leaves_nothing_that_its_successor_does_not_clear_away() {
    if !is_root("a_killed_data_plane_leaves_nothing_that_its_successor_does_not_clear_away") {
        return;
    }
    for huge_pages in ["off", "auto"] {
        let place = Place::new();
        let config = place.configure(&Setup { workers: &workers(1), huge_pages, ..Setup::default() });
        let mut first = DataPlane::start(&place, &config);
        let mut old = first.control(&place);
        commit(&mut old, &commands(&config));
        first.kill();
        assert_eq!(old.peer(), Peer::Gone);
        let left = place.leftovers();
        assert!(left.contains(&"segment".to_owned()), "{left:?}");
        assert!(left.iter().any(|path| path.contains("tables")), "{left:?}");
        let huge = place.huge_files();

        let mut second = DataPlane::start(&place, &config);
        until("the second one runs", || second.said().contains("worker(s) poll"));
        // The same control plane goes on with the new one, as it would after a restart.
        old.attach(PATIENCE).unwrap();
        assert!(old.dump(PATIENCE).unwrap().records.is_empty(), "it begins with nothing");
        commit(&mut old, &commands(&config));
        drop(old);
        drop(second.control(&place));
        assert_eq!(
            place.huge_files().len(),
            2 * huge.len(),
            "the second one's tables lie where the first one's lay"
        );
        second.stop(Signal::TERM);
        assert_eq!(place.leftovers(), [""; 0]);
    }
}

#[test]
fn sigterm_and_sigint_end_it_in_order() {
    if !is_root("sigterm_and_sigint_end_it_in_order") {
        return;
    }
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let config = place.configure(&Setup { workers: &workers(2), huge_pages: "auto", ..Setup::default() });
        let mut running = DataPlane::start(&place, &config);
        let link = running.control(&place);
        let counters = link.counters();
        // net_null brings packets without end: a worker that is busy ends as well.
        until("packets come", || counters.counter(Counter::RxPackets) > 0);
        let said = running.stop(signal);
        assert!(said.trim_end().ends_with("stopped"), "{said}");
        assert_eq!(place.leftovers(), [""; 0]);
        assert_consistent(&counters);
    }
}

#[test]
fn a_signal_during_the_start_ends_it_in_order() {
    if !is_root("a_signal_during_the_start_ends_it_in_order") {
        return;
    }
    let place = Place::new();
    let config = place.configure(&Setup { workers: &workers(1), ..Setup::default() });
    let running = DataPlane::start(&place, &config);
    // As soon as there is a lock file, its signals are caught.
    let dir = place.runtime_dir();
    patiently(PATIENCE, || dir.join("dataplane.lock").exists().then_some(())).unwrap();
    running.stop(Signal::TERM);
    assert_eq!(place.leftovers(), [""; 0]);
}
