//! Many restarts in a row under one set of connections: three as an ordinary test, thirty with
//! WEFT_SOAK set. It prints rows for docs/reliability.md: `| fault | times | seen | lost |`.
//! See tests/e2e.rs for what the test needs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;
use weft_lab::balancer::{Forward, Options, Role};
use weft_lab::document::Document;
use weft_lab::faults::Restart;
use weft_lab::stand::{self, LIMIT, Machine, Stand};
use weft_lab::topology::Family;
use weft_lab::traffic::client::Client;
use weft_lab::traffic::probe::{self, Outage, Probe};

const CONNECTIONS: usize = 40;
const BOTH: [Role; 2] = [Role::Ctrlplane, Role::Dataplane];

/// What one kind of restart cost, all its times together.
#[derive(Default)]
struct Row {
    times: usize,
    gaps: Vec<Outage>,
    joins: u64,
    joins_lost: u64,
    noise: Vec<String>,
    dead: usize,
}

impl Row {
    fn show(&self, what: &str) -> String {
        let mut gaps: Vec<f64> = self.gaps.iter().map(Outage::millis).collect();
        gaps.sort_by(f64::total_cmp);
        let gap = match (gaps.first(), gaps.get(gaps.len() / 2), gaps.last()) {
            (Some(least), Some(median), Some(most)) => {
                format!("forwarding gap {least:.0} to {most:.0} ms, median {median:.0} ms; ")
            }
            _ => String::new(),
        };
        format!(
            "| {what} under {CONNECTIONS} MPTCP connections with joined subflows | {} | {gap}{} late joins at their \
             owner | {} connections, {} joins, {} resets or aborts |",
            self.times,
            self.joins,
            self.dead,
            self.joins_lost,
            self.noise.len()
        )
    }

    fn lost_nothing(&self) -> bool {
        (self.joins_lost, self.noise.len(), self.dead) == (0, 0, 0)
    }
}

/// Says how far it is, past the test harness.
fn progress(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Adds a path, waits for a join of every connection, takes the path away; joins that came and that did not.
fn late_joins(stand: &Stand, client: &mut Client) -> (u64, u64) {
    let owned = stand::owned(&stand.lab, &client.now(LIMIT).unwrap());
    let before = stand.backends("MPJoinAckRx").unwrap();
    let all: u64 = owned.iter().sum();
    let came = || -> Vec<u64> {
        let now = stand.backends("MPJoinAckRx").unwrap();
        now.iter().zip(&before).map(|(now, before)| now - before).collect()
    };
    stand.lab.add_late_path(Family::V4, 1).unwrap();
    for _ in 0..300 {
        if came().iter().sum::<u64>() >= all {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    let right: u64 = came().iter().zip(&owned).map(|(came, owned)| came.min(owned)).sum();
    (right, all - right)
}

/// Waits until the subflows that ended on purpose have said their last word, which may be a reset.
fn settle(stand: &Stand) {
    for _ in 0..20 {
        let quiet = stand::kernels(&stand.lab).unwrap();
        sleep(Duration::from_secs(1));
        if stand::noise(&stand.lab, &quiet).unwrap().is_empty() {
            return;
        }
    }
}

/// One restart under traffic; without roles, everything but the restart.
fn restart(
    stand: &mut Stand,
    client: &mut Client,
    probe: &mut Probe,
    document: &Document,
    roles: &[Role],
    row: &mut Row,
) {
    let quiet = stand::kernels(&stand.lab).unwrap();
    let restart = Restart { roles, signal: Signal::KILL };
    let timing = restart.run(&mut stand.weft, document).unwrap();
    if roles.contains(&Role::Dataplane) {
        row.gaps.push(probe.gap(timing.killed, LIMIT).unwrap());
    }
    let (before, after) = (client.now(LIMIT).unwrap(), client.now(LIMIT).unwrap());
    row.dead += CONNECTIONS - stand::alive(&before, &after);
    let (joins, lost) = late_joins(stand, client);
    row.times += 1;
    row.joins += joins;
    row.joins_lost += lost;
    row.noise.extend(stand::noise(&stand.lab, &quiet).unwrap());
    stand.lab.remove_late_path(1).unwrap();
    settle(stand);
}

#[test]
fn restarts_one_after_the_other_under_traffic_lose_nothing() {
    let test = "restarts in a row";
    let Some(machine) = Machine::take(test, env!("CARGO_BIN_EXE_weft-lab"), env!("CARGO_TARGET_TMPDIR"))
    else {
        return;
    };
    let soak = std::env::var_os("WEFT_SOAK").is_some();
    let options = Options::new(Forward::L2dsr, true);
    let (mut stand, document) =
        Stand::with(&machine, 4, &options, |document| *document = document.clone().with_probe()).unwrap();
    let mut probe = Probe::start(&stand.lab, &probe::Options::new(Family::V4)).unwrap();
    let mut client = stand.endless(CONNECTIONS, 12).unwrap();
    assert_eq!(client.joined(LIMIT).unwrap(), CONNECTIONS);
    let kinds: [(&str, &[Role]); 4] = [
        ("nothing: the control run", &[]),
        ("kill -9 of weft-ctrlplane", &[Role::Ctrlplane]),
        ("kill -9 of weft-dataplane", &[Role::Dataplane]),
        ("kill -9 of both", &BOTH),
    ];
    // The file is the first one and the reordered one by turns: a backend comes and goes.
    let files = [document.reordered(), document];
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let times = if soak { 40 } else { 4 };
    for (number, (what, roles)) in (0..times).zip(kinds.iter().cycle()) {
        if soak {
            progress(&format!("progress: restart {} of {times}: {what}", number + 1));
        }
        let row = rows.entry(what).or_default();
        restart(&mut stand, &mut client, &mut probe, &files[(number + number / kinds.len()) % 2], roles, row);
    }
    for (what, row) in &rows {
        println!("{}", row.show(what));
        row.noise.iter().for_each(|line| println!("    {what}: {line}"));
    }
    let report = client.finish(LIMIT).unwrap();
    assert_eq!(report.broken(), Vec::<String>::new());
    assert!(rows.values().all(Row::lost_nothing));
    assert_eq!(probe.report().unwrap().moved(), Vec::<String>::new());
}
