//! `weft-dataplane` on `net_vhost` against `weft-bench send` on `net_virtio_user`, as two processes: the rate at which at
//! most one packet in 200 is lost (PDR), the rate at which none is (NDR), latency below them.
//!
//! The rings are the queue between the two, as a NIC's would be: a packet that finds them full is lost. With a CPU for
//! each of worker, sender and receiver the receiver has its own; on two the sender receives in turn, and the rate that the
//! two can do together may be theirs and not Weft's. The share of Weft's polls that brought nothing tells which.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::lab::{Lab, Site};
use super::rows::{extra, row};
use super::search::{Verdict, highest, median};
use super::sender::{Outcome, Sender, virtio_user};
use super::testpmd::{Mode, Testpmd};
use super::traffic::{Files, Frame};
use super::weft::Weft;
use super::{Args, Progress};
use crate::report::Row;

/// The loss that PDR allows.
const PARTIAL_LOSS: f64 = 0.005;

/// Seconds of a trial of a search.
const TRIAL: f64 = 1.0;

/// For so long packets may be under way after the last was sent.
const SETTLE: Duration = Duration::from_millis(50);

/// What forwards.
enum Forwarder {
    Weft(Box<Weft>),
    Testpmd(Box<Testpmd>),
}

/// A forwarder with a sender connected to it.
pub struct Pair {
    forwarder: Forwarder,
    /// The sender.
    pub sender: Sender,
    /// What counts packets behind Weft's second port, in the sender's place.
    sink: Option<Testpmd>,
    /// The device of the forwarder.
    pub device: String,
    /// Whether packets lie on huge pages.
    pub huge_pages: bool,
}

impl Pair {
    /// Weft, with so many backends, and its sender.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn weft(lab: &Lab, files: &Files, backends: u32) -> anyhow::Result<Self> {
        let huge_pages = Lab::has_huge_pages(&[16_384; 2]);
        let socket = Self::socket(lab, 0);
        let device = device(&socket, 0);
        let devices = [device.clone()];
        let config = lab.configure("weft.toml", &site(lab, files, &devices, backends, huge_pages))?;
        let mut weft = Weft::start(lab, &config)?;
        weft.commit(&config)?;
        let sender = Sender::start(lab, &socket, &files.steady, Some(&files.warm), 1)?;
        Ok(Self { forwarder: Forwarder::Weft(Box::new(weft)), sender, sink: None, device, huge_pages })
    }

    /// Weft with two ports, its sender at the first, and testpmd as the sink at the second.
    fn with_sink(lab: &Lab, files: &Files) -> anyhow::Result<Self> {
        let huge_pages = Lab::has_huge_pages(&[16_384; 3]);
        let sockets = [0, 1].map(|port| Self::socket(lab, port));
        let [first, second] = &sockets;
        let devices = [device(first, 0), device(second, 1)];
        let config = lab.configure("weft.toml", &site(lab, files, &devices, 100, huge_pages))?;
        let mut weft = Weft::start(lab, &config)?;
        weft.commit(&config)?;
        let mut sink = Testpmd::start(lab, &[virtio_user(lab, second)], lab.sink().0, 16_384, huge_pages)?;
        let sender = Sender::start(lab, first, &files.steady, Some(&files.warm), 1)?;
        // What came of the handshakes is none of the first trial's.
        sink.begin(Mode::Rxonly)?;
        lab.stop.pause(SETTLE)?;
        sink.stop()?;
        let [device, _] = devices;
        let forwarder = Forwarder::Weft(Box::new(weft));
        Ok(Self { forwarder, sender, sink: Some(sink), device, huge_pages })
    }

    /// A trial, counted by the sink.
    fn trial(&mut self, lab: &Lab, pps: Option<f64>) -> anyhow::Result<Outcome> {
        let Some(sink) = &mut self.sink else { return self.sender.trial(pps, TRIAL) };
        sink.begin(Mode::Rxonly)?;
        let mut outcome = self.sender.trial(pps, TRIAL)?;
        lab.stop.pause(SETTLE)?;
        let (received, _) = sink.stop()?;
        outcome.back.counted(received, &outcome.trial);
        outcome.trial.received = Some(outcome.back.clone());
        Ok(outcome)
    }

    /// testpmd, and its sender.
    fn testpmd(lab: &Lab, files: &Files, mode: Mode) -> anyhow::Result<Self> {
        let huge_pages = Lab::has_huge_pages(&[16_384; 2]);
        let socket = Self::socket(lab, 0);
        let worker = lab.workers(1).first().copied().unwrap_or(0);
        let device = device(&socket, 0);
        let mut testpmd = Testpmd::start(lab, core::slice::from_ref(&device), worker, 16_384, huge_pages)?;
        testpmd.begin(mode)?;
        let sender = Sender::start(lab, &socket, &files.steady, None, 1)?;
        Ok(Self { forwarder: Forwarder::Testpmd(Box::new(testpmd)), sender, sink: None, device, huge_pages })
    }

    /// A socket where none is.
    fn socket(lab: &Lab, port: usize) -> PathBuf {
        let socket = lab.path(&format!("vhost{port}.sock"));
        // One that ended in order has removed it.
        let _ = std::fs::remove_file(&socket);
        socket
    }

    /// Weft, where it is that.
    pub fn as_weft(&mut self) -> Option<&mut Weft> {
        match &mut self.forwarder {
            Forwarder::Weft(weft) => Some(weft),
            Forwarder::Testpmd(_) => None,
        }
    }

    /// Ends both in order.
    ///
    /// # Errors
    /// One of them has ended already.
    pub fn end(self) -> anyhow::Result<()> {
        self.sender.end()?;
        self.sink.map(Testpmd::end).transpose()?;
        match self.forwarder {
            Forwarder::Weft(weft) => weft.end(),
            Forwarder::Testpmd(mut testpmd) => testpmd.stop().and_then(|_| testpmd.end()),
        }
    }
}

fn device(socket: &std::path::Path, port: usize) -> String {
    format!("net_vhost{port},iface={},queues=1", socket.display())
}

/// The site of a Weft with these ports.
pub fn site<'a>(
    lab: &'a Lab,
    files: &Files,
    devices: &'a [String],
    backends: u32,
    huge_pages: bool,
) -> Site<'a> {
    let (workers, flows) = (lab.workers(1), files.flows.max(1024));
    Site { workers, flows, devices, mbufs: 0, backends, changed: false, keep_tables: false, huge_pages }
}

/// All that is measured over vhost-user but the blackout; gives the PDR of Weft at the usual frame as well.
///
/// # Errors
/// A program does not start, or ends.
pub fn run(lab: &Lab, args: &Args, progress: &Progress) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let files = Files::make(lab, args.vhost_flows, Frame::Bytes(args.frame))?;
    let bed = Bed { lab, args, files: &files, progress };
    progress.say("vhost-user: Weft");
    let mut pair = Pair::weft(lab, &files, 100)?;
    let pdr = bed.search(&mut pair, "weft", &mut rows)?;
    if pdr == 0.0 {
        log::warn!(
            "more than 0.5 % were lost at every rate, so there is no PDR and no latency below it: is the machine busy?"
        );
    }
    for percent in [10.0, 50.0, 90.0].into_iter().filter(|_| pdr > 0.0) {
        progress.say(&format!("vhost-user: latency at {percent} % of PDR"));
        rows.extend(bed.latency(&mut pair, pdr, percent)?);
    }
    pair.end()?;
    if lab.testpmd.is_some() {
        progress.say("vhost-user: testpmd macswap");
        let mut pair = Pair::testpmd(lab, &files, Mode::Macswap)?;
        bed.search(&mut pair, "testpmd_macswap", &mut rows)?;
        pair.end()?;
    }
    if lab.testpmd.is_some() && (lab.sink().1 || args.testpmd_sink) {
        progress.say("vhost-user: Weft, with testpmd as sink");
        let mut pair = Pair::with_sink(lab, &files)?;
        bed.search(&mut pair, "weft", &mut rows)?;
        pair.end()?;
    }
    for bytes in &args.frames {
        progress.say(&format!("vhost-user: frames of {bytes} bytes"));
        let files = Files::make(lab, args.vhost_flows, Frame::Bytes(*bytes))?;
        let bed = Bed { lab, args, files: &files, progress };
        let mut pair = Pair::weft(lab, &files, 100)?;
        rows.push(bed.most(&mut pair)?);
        pair.end()?;
    }
    Ok(rows)
}

struct Bed<'a> {
    lab: &'a Lab,
    args: &'a Args,
    files: &'a Files,
    progress: &'a Progress,
}

impl Bed<'_> {
    fn row(&self, figure: &str, case: &str, unit: &str, values: &[f64]) -> Row {
        Row {
            flows: Some(self.files.flows),
            frame_bytes: Some(self.files.frame_bytes),
            burst: Some(32),
            workers: Some(1),
            ..row(figure, case, unit, values)
        }
    }

    fn case(&self, who: &str) -> String {
        let forward = if who == "weft" { format!(" {}", self.lab.forward.name()) } else { String::new() };
        format!("{who} vhost-user{forward}")
    }

    /// PDR, then NDR; gives the PDR in packets a second.
    fn search(&self, pair: &mut Pair, who: &str, rows: &mut Vec<Row>) -> anyhow::Result<f64> {
        let case = self.case(who) + if pair.sink.is_some() { ", testpmd as sink" } else { "" };
        let before = pair.as_weft().map(|weft| weft.counts());
        let most = pair.trial(self.lab, None)?;
        let idle = pair.as_weft().zip(before).map(|(weft, before)| weft.counts().since(before).idle());
        // Beyond what goes with waiting, nothing goes without.
        let top = most.trial.offered_pps * 1.1;
        let Args { trials, clean, .. } = *self.args;
        let (pdrs, mut last) = self.rounds(pair, top, |outcomes| {
            let losses: Vec<f64> = outcomes.iter().map(|outcome| outcome.back.loss).collect();
            median(&losses) <= PARTIAL_LOSS
        })?;
        let rule =
            format!("at most 0.5 % lost (median of {trials} one-second trials), rings of {}", self.lab.ring);
        rows.push(Row {
            loss_rule: Some(rule),
            extra: self.extra(pair, &most, idle, last.take()),
            ..self.row("vhost_pdr", &case, "mpps", &pdrs)
        });
        let pdr = median(&pdrs) * 1e6;
        let (ndrs, last) = self.rounds(pair, pdr, |outcomes| {
            outcomes.iter().filter(|outcome| outcome.back.lost == 0).count() >= clean
        })?;
        let rule = format!("none lost in {clean} of {trials} one-second trials, rings of {}", self.lab.ring);
        rows.push(Row {
            loss_rule: Some(rule),
            extra: self.extra(pair, &most, idle, last),
            ..self.row("vhost_ndr", &case, "mpps", &ndrs)
        });
        Ok(pdr)
    }

    /// Searches as often as asked for: Mpps of each, and the last trial that was made.
    fn rounds(
        &self,
        pair: &mut Pair,
        top: f64,
        passed: impl Fn(&[Outcome]) -> bool,
    ) -> anyhow::Result<(Vec<f64>, Option<Outcome>)> {
        let (mut found, mut last) = (Vec::new(), None);
        for round in 0..self.args.searches {
            let best = highest(top, self.args.precision, |pps| {
                self.progress.say(&format!(
                    "vhost-user: search {} of {}, trying {:.3} Mpps",
                    round + 1,
                    self.args.searches,
                    pps / 1e6
                ));
                let trials = (0..self.args.trials).map(|_| pair.trial(self.lab, Some(pps)));
                let outcomes = trials.collect::<anyhow::Result<Vec<Outcome>>>()?;
                let offered: Vec<f64> = outcomes.iter().map(|outcome| outcome.trial.offered_pps).collect();
                let verdict = Verdict { passed: passed(&outcomes), offered_pps: median(&offered) };
                last = outcomes.into_iter().last();
                anyhow::Ok(verdict)
            })?;
            found.push(best / 1e6);
        }
        Ok((found, last))
    }

    /// Who the limit was, as far as can be told, and what was measured beside the rate.
    fn extra(
        &self,
        pair: &mut Pair,
        most: &Outcome,
        idle: Option<f64>,
        last: Option<Outcome>,
    ) -> serde_json::Map<String, Value> {
        let (sends, receives) = self.lab.senders(1);
        let tables = pair.as_weft().map(|weft| weft.pages().to_owned());
        let counts = pair.as_weft().map(|weft| weft.counts());
        extra([
            ("sender_lcore", json!(sends)),
            ("receiver_lcore", json!(receives.unwrap_or(sends))),
            ("packet_pages", json!(crate::pages::name(pair.huge_pages))),
            ("table_pages", json!(tables)),
            ("most_with_waiting_mpps", json!(most.trial.offered_pps / 1e6)),
            ("weft_idle_polls_at_most", json!(idle)),
            ("last_trial", json!(last.map(|outcome| outcome.trial))),
            ("weft_forwarded_in_all", json!(counts.map(|counts| counts.forwarded))),
            ("weft_dropped_in_all", json!(counts.map(|counts| counts.dropped))),
            ("weft_transmit_refused_in_all", json!(counts.map(|counts| counts.refused))),
        ])
    }

    /// The rate of what comes back when the sender sends all it can and waits where the ring is full.
    fn most(&self, pair: &mut Pair) -> anyhow::Result<Row> {
        let trials = (0..self.args.rounds.min(5)).map(|_| pair.sender.trial(None, TRIAL));
        let outcomes = trials.collect::<anyhow::Result<Vec<Outcome>>>()?;
        let rates: Vec<f64> = outcomes.iter().map(|outcome| outcome.back.pps / 1e6).collect();
        let losses: Vec<f64> = outcomes.iter().map(|outcome| outcome.back.loss).collect();
        Ok(Row {
            loss_rule: Some("as many as come back; the sender waits where the ring is full".to_owned()),
            extra: extra([
                ("loss", json!(median(&losses))),
                ("pages", json!(crate::pages::name(pair.huge_pages))),
            ]),
            ..self.row("vhost_most", &self.case("weft"), "mpps", &rates)
        })
    }

    /// A row for each percentile of the latency at a share of the PDR.
    fn latency(&self, pair: &mut Pair, pdr: f64, percent: f64) -> anyhow::Result<Vec<Row>> {
        let outcomes = (0..self.args.rounds.min(5))
            .map(|_| pair.sender.trial(Some(pdr * percent / 100.0), self.args.latency_seconds))
            .collect::<anyhow::Result<Vec<Outcome>>>()?;
        let measured: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.back.latency).collect();
        let losses: Vec<f64> = outcomes.iter().map(|outcome| outcome.back.loss).collect();
        let case = format!("{} {percent} % of PDR", self.case("weft"));
        let row = |percentile: f64, of: fn(&crate::send::Latency) -> f64| {
            let values: Vec<f64> = measured.iter().map(of).collect();
            Row {
                percentile: Some(percentile),
                extra: extra([
                    ("offered_mpps", json!(pdr * percent / 1e8)),
                    ("loss", json!(median(&losses))),
                    ("packets", json!(measured.iter().map(|latency| latency.packets).sum::<u64>())),
                ]),
                ..self.row("latency", &case, "us", &values)
            }
        };
        if measured.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![
            row(50.0, |latency| latency.p50_us),
            row(90.0, |latency| latency.p90_us),
            row(99.0, |latency| latency.p99_us),
            row(99.9, |latency| latency.p999_us),
            row(100.0, |latency| latency.max_us),
        ])
    }
}
