//! What a change of the whole configuration costs the packets that arrive meanwhile: a pool of a thousand backends, all of
//! which get another MAC address and another weight, by `weftctl reload`, in the middle of a trial at half the PDR.
//!
//! Beside each trial with a change there is one without, since on a machine that others use packets are held up anyway.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::lab::{Lab, PATIENCE, Site};
use super::process::Program;
use super::rows::{extra, row};
use super::search::median;
use super::sender::Outcome;
use super::traffic::{Files, Frame};
use super::vhost::{Pair, site};
use super::weft::text;
use super::{Args, Progress};
use crate::number::float;
use crate::report::Row;

/// How many backends change.
const BACKENDS: u32 = 1000;

/// Seconds of a trial; the change comes after the first.
const TRIAL: f64 = 3.0;

/// Measures it at so many packets a second.
///
/// # Errors
/// A program does not start, or a change is refused.
pub fn run(lab: &Lab, args: &Args, pps: f64, progress: &Progress) -> anyhow::Result<Vec<Row>> {
    progress.say("reload: 1,000 backends");
    let files = Files::make(lab, args.vhost_flows, Frame::Bytes(args.frame))?;
    let mut pair = Pair::weft(lab, &files, BACKENDS)?;
    let control = Control::start(lab, &mut pair, &files)?;
    let (mut still, mut changed, mut took) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..args.rounds.min(5) {
        progress.say(&format!("reload: 1,000 backends, round {}", round + 1));
        still.push(pair.sender.trial(Some(pps), TRIAL)?);
        pair.sender.begin(Some(pps), TRIAL)?;
        lab.stop.pause(Duration::from_secs(1))?;
        let began = Instant::now();
        control.change(lab, &files, &pair, round % 2 == 0)?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        changed.push(pair.sender.outcome(TRIAL)?);
    }
    control.program.end()?;
    pair.end()?;
    let rows = |case: &str, outcomes: &[Outcome], took: Value| -> Vec<Row> {
        let of = |what: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(what).collect::<Vec<f64>>();
        let lost = of(&|outcome| float(outcome.back.lost));
        let row = |figure: &str, values: &[f64], extra: serde_json::Map<String, Value>| Row {
            flows: Some(files.flows),
            frame_bytes: Some(files.frame_bytes),
            workers: Some(1),
            extra,
            ..row(figure, case, "us", values)
        };
        let losses = extra([
            ("packets_lost", json!(median(&lost))),
            ("packets_lost_each_round", json!(lost)),
            ("offered_mpps", json!(pps / 1e6)),
            ("reload_ms", took),
        ]);
        vec![
            row("blackout_silence", &of(&|outcome| outcome.back.longest_silence_us), losses),
            row("blackout_loss", &of(&|outcome| float(outcome.back.longest_loss) * 1e6 / pps), extra([])),
            row("blackout_gap", &of(&|outcome| outcome.back.longest_gap_us), extra([])),
            row("blackout_receiver", &of(&|outcome| outcome.back.longest_hold_us), extra([])),
        ]
    };
    let mut all = rows("no change", &still, Value::Null);
    all.extend(rows("1,000 backends changed", &changed, json!(median(&took))));
    Ok(all)
}

/// A control plane, and the file it goes by.
struct Control {
    program: Program,
    config: std::path::PathBuf,
}

impl Control {
    fn start(lab: &Lab, pair: &mut Pair, files: &Files) -> anyhow::Result<Self> {
        let devices = [pair.device.clone()];
        let config = lab.configure("reload.toml", &plain(lab, files, &devices, pair.huge_pages))?;
        pair.as_weft().context("a control plane is for Weft")?.leave();
        let words = ["run".to_owned(), "--config".to_owned(), text(&config)];
        let log = lab.path("weft-ctrlplane.log");
        let mut program = Program::start(&lab.programs.join("weft-ctrlplane"), &words, &log, &lab.stop)?;
        lab.stop.patiently("the control plane", PATIENCE, || {
            program.check()?;
            let status = weftctl(lab, &config, &["--json", "status"])?;
            let status: Value = serde_json::from_str(&status).unwrap_or_default();
            Ok((status["dataplane"]["in_sync"] == true).then_some(()))
        })?;
        Ok(Self { program, config })
    }

    /// Changes every backend, and waits until the data plane has it.
    fn change(&self, lab: &Lab, files: &Files, pair: &Pair, changed: bool) -> anyhow::Result<()> {
        let devices = [pair.device.clone()];
        let site = Site { changed, ..plain(lab, files, &devices, pair.huge_pages) };
        lab.configure("reload.toml", &site)?;
        let said = weftctl(lab, &self.config, &["reload"])?;
        ensure!(!said.is_empty(), "weftctl reload said nothing");
        Ok(())
    }
}

fn plain<'a>(lab: &'a Lab, files: &Files, devices: &'a [String], huge_pages: bool) -> Site<'a> {
    site(lab, files, devices, BACKENDS, huge_pages)
}

/// Runs weftctl and gives what it printed; nothing where the control plane does not answer yet.
fn weftctl(lab: &Lab, config: &std::path::Path, words: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(lab.programs.join("weftctl"));
    let output = command.arg("--config").arg(config).args(words).output().context("cannot start weftctl")?;
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Some(3 | 4) if words.contains(&"status") => Ok(String::new()),
        _ => bail!("weftctl {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()),
    }
}
