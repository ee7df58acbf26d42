//! What the demo says: a summary to read, the same as data, and the checks that decide PASS or FAIL.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use crate::balancer::{Counted, Forward};
use crate::counters::Kernel;
use crate::demo::Options;
use crate::replay::Join;
use crate::topology::Family;
use crate::traffic::client;
use crate::{Error, Result};

/// The end of every demo: its report into the file that was asked for, and PASS or FAIL as the last line and exit code.
///
/// # Errors
/// The file cannot be written.
pub fn conclude(report: &impl Serialize, passed: bool, file: Option<&Path>) -> Result<ExitCode> {
    if let Some(file) = file {
        let text = serde_json::to_string_pretty(report).map_err(|e| Error::other(e.to_string()))?;
        fs::write(file, text + "\n").map_err(|e| Error::io(format!("cannot write {}", file.display()), e))?;
    }
    println!("{}", if passed { "PASS" } else { "FAIL" });
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One backend in one pass.
#[derive(Debug, Clone, Serialize)]
pub struct BackendRow {
    /// Its name.
    pub name: String,
    /// Connections it answered.
    pub connections: usize,
    /// Those of them that got a second subflow.
    pub joined: usize,
    /// What its kernel counted.
    pub kernel: BTreeMap<&'static str, u64>,
}

/// One pass of the demo.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// The VIP's `steering`.
    pub steering: &'static [&'static str],
    /// Every backend.
    pub backends: Vec<BackendRow>,
    /// What the client saw.
    pub client: client::Report,
    /// MP_JOIN SYNs that the client's kernel sent, retransmissions not counted.
    pub joins_sent: u64,
    /// What Weft counted.
    pub weft: Counted,
    /// Joins of the capture, as the engine reads it.
    pub joins_captured: usize,
    /// Those of them whose hash leads to another backend than their token.
    pub joins_elsewhere_by_hash: usize,
    /// Joins of the capture whose token, says the engine, leads to another backend than the one that answered.
    pub joins_misattributed: usize,
}

impl Run {
    /// Puts together what was measured.
    pub fn new(
        steering: bool,
        backends: Vec<BackendRow>,
        client: client::Report,
        client_kernel: &Kernel,
        weft: Counted,
        joins: &BTreeMap<String, Join>,
    ) -> Self {
        let owner =
            |token: &str| client.connections.iter().find(|c| c.join_token == token).map(|c| &c.backend);
        let wrong = joins.iter().filter(|(token, join)| owner(token).is_some_and(|b| *b != join.by_token));
        Self {
            steering: if steering { &["learn"] } else { &[] },
            joins_misattributed: wrong.count(),
            joins_captured: joins.len(),
            joins_elsewhere_by_hash: joins.values().filter(|j| j.by_hash != j.by_token).count(),
            joins_sent: client_kernel.mptcp("MPJoinSynTx"),
            backends,
            client,
            weft,
        }
    }

    /// A kernel counter summed over the backends.
    pub fn total(&self, counter: &str) -> u64 {
        self.backends.iter().filter_map(|b| b.kernel.get(counter)).sum()
    }

    fn intact(&self) -> bool {
        self.client.connections.iter().all(|c| c.error.is_none() && c.rounds > 0)
    }
}

/// One condition of PASS.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What must hold.
    pub what: &'static str,
    /// Whether it does.
    pub holds: bool,
    /// The figures it was decided by.
    pub figures: String,
}

/// Everything the demo found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether every check holds.
    pub passed: bool,
    /// The forwarding mode.
    pub forward: Forward,
    /// The IP version.
    pub ip: Family,
    /// Connections asked for.
    pub connections: u16,
    /// How long both passes took, the lab's construction included.
    pub seconds: f64,
    /// What must hold.
    pub checks: Vec<Check>,
    /// With token steering.
    pub with_steering: Run,
    /// Without.
    pub without_steering: Run,
}

/// Judges two passes.
pub fn assemble(options: &Options, learn: Run, hash: Run, took: Duration) -> Report {
    let checks = checks(u64::from(options.connections), &learn, &hash);
    Report {
        passed: checks.iter().all(|c| c.holds),
        forward: options.forward,
        ip: options.family(),
        connections: options.connections,
        seconds: took.as_secs_f64(),
        checks,
        with_steering: learn,
        without_steering: hash,
    }
}

fn checks(connections: u64, learn: &Run, hash: &Run) -> Vec<Check> {
    let (joined, accepted) = (learn.client.joined() as u64, learn.total("MPJoinAckRx"));
    let (lost, by_token) = (learn.total("MPJoinNoTokenFound"), learn.weft.joins_by_token);
    let astray = learn.weft.joins_astray();
    let elsewhere = learn.joins_elsewhere_by_hash as u64;
    let check = |what, holds, figures| Check { what, holds, figures };
    vec![
        check(
            "every connection opened as MPTCP and moved its bytes intact",
            learn.intact() && hash.intact() && learn.total("MPCapableACKRX") == connections,
            format!("{} of {connections} MP_CAPABLE", learn.total("MPCapableACKRX")),
        ),
        check(
            "every connection got its second subflow, and both carried data",
            joined == connections && learn.client.spread() as u64 == connections,
            format!("{joined} joined, {} carried data on all subflows", learn.client.spread()),
        ),
        check(
            "no join reached a backend that does not know its token",
            lost == 0 && accepted == joined,
            format!("MPJoinNoTokenFound {lost}, MPJoinAckRx {accepted}"),
        ),
        check(
            "every join went by its token",
            by_token >= joined && astray == 0 && learn.joins_misattributed == 0,
            format!("reason token {by_token}, any other {astray}"),
        ),
        check(
            "a third of the joins or more would have gone elsewhere by hash",
            learn.joins_captured as u64 == joined && elsewhere * 3 >= joined,
            format!("{elsewhere} of {}", learn.joins_captured),
        ),
        check(
            "without steering a third of the joins or more are refused",
            hash.total("MPJoinNoTokenFound") * 3 >= connections,
            format!("{} of {}", hash.total("MPJoinNoTokenFound"), hash.total("MPJoinSynRx")),
        ),
    ]
}

/// The summary as text, without the last line.
pub fn summary(report: &Report) -> String {
    let (learn, hash) = (&report.with_steering, &report.without_steering);
    let mut text = format!(
        "\nWeft: {} MPTCP connections over {}, each with a second subflow from another address; 3 backends, {}\n\n",
        report.connections,
        report.ip,
        report.forward.name(),
    );
    let mut row = |name: &str, left: String, right: String| {
        let _ = writeln!(text, "{name:<48} {left:>20} {right:>20}");
    };
    row("", "steering = [\"learn\"]".to_owned(), "steering = []".to_owned());
    let mut both = |name: &str, figure: &dyn Fn(&Run) -> String| row(name, figure(learn), figure(hash));
    both("connections opened (MPCapableACKRX)", &|r| r.total("MPCapableACKRX").to_string());
    both("subflows at the end", &|r| {
        r.client.connections.iter().map(|c| c.subflows).sum::<usize>().to_string()
    });
    both("joins that reached their owner (MPJoinAckRx)", &|r| r.total("MPJoinAckRx").to_string());
    both("joins refused (MPJoinNoTokenFound)", &|r| r.total("MPJoinNoTokenFound").to_string());
    both("joins whose hash leads elsewhere (engine replay)", &|r| {
        format!("{} of {}", r.joins_elsewhere_by_hash, r.joins_captured)
    });
    both("tokens learned by Weft", &|r| r.weft.counter("token_learned").to_string());
    both("joins that Weft steered by token", &|r| r.weft.joins_by_token.to_string());
    both("MB up / down, SHA-256 equal at both ends", &|r| {
        format!("{} / {}", r.client.bytes_up / 1_000_000, r.client.bytes_down / 1_000_000)
    });
    for path in [0, 1] {
        both(&format!("  of which MB over path {}", path + 1), &|r| {
            let path = r.client.paths.get(path);
            path.map_or("-".to_owned(), |p| format!("{} / {}", p.sent / 1_000_000, p.received / 1_000_000))
        });
    }
    text.push_str("\nWhat each backend's kernel counted, with steering / without:\n");
    text.push_str(&backend_table(learn, hash));
    text.push('\n');
    for check in &report.checks {
        let mark = if check.holds { "  ok " } else { "FAIL " };
        let _ = writeln!(text, "{mark} {} ({})", check.what, check.figures);
    }
    for broken in learn.client.broken().iter().chain(&hash.client.broken()).take(10) {
        let _ = writeln!(text, "      {broken}");
    }
    let _ = writeln!(text, "{:.0} s", report.seconds);
    text
}

fn backend_table(learn: &Run, hash: &Run) -> String {
    const COLUMNS: [&str; 5] =
        ["MPCapableSYNRX", "MPCapableACKRX", "MPJoinSynRx", "MPJoinAckRx", "MPJoinNoTokenFound"];
    let mut text = format!("{:<8}", "backend");
    for column in COLUMNS {
        let _ = write!(text, " {column:>18}");
    }
    text.push('\n');
    for (with, without) in learn.backends.iter().zip(&hash.backends) {
        let _ = write!(text, "{:<8}", with.name);
        for column in COLUMNS {
            let figure = |row: &BackendRow| row.kernel.get(column).copied().unwrap_or(0);
            let _ = write!(text, " {:>18}", format!("{} / {}", figure(with), figure(without)));
        }
        text.push('\n');
    }
    text
}
