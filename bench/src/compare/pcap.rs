//! `weft-dataplane` and testpmd on the same capture, from `net_pcap` to `net_null`: what a packet costs with receive and
//! transmit, less what a wire would add.
//!
//! Both programs are there all the time, each halted while the other runs, on the same CPU: what disturbs the machine
//! meets both alike, and what is of record is their ratio in one round. Time is that which the worker's thread had the
//! CPU, so that other programs on a shared machine cost neither of them anything but caches. Flows are established
//! before: one start of Weft reads their handshakes, and the next one takes its tables over.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use super::lab::{Lab, Site};
use super::rows::{extra, row};
use super::testpmd::{Mode, Testpmd};
use super::traffic::{Files, Frame};
use super::weft::{Weft, forget};
use super::{Args, Progress};
use crate::number::float;
use crate::report::Row;

/// The port packets leave by: they go nowhere.
const OUT: &str = "net_null0,no-rx=1";

/// What is measured at one number of flows.
struct Bed<'a> {
    lab: &'a Lab,
    files: &'a Files,
    flows: u64,
    huge_pages: bool,
}

/// Measures at each number of flows, and with two workers where there are CPUs.
///
/// # Errors
/// A program does not start, or does not do what it should.
pub fn run(lab: &Lab, args: &Args, progress: &Progress) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for flows in &args.flows {
        progress.say(&format!("net_pcap to net_null, {flows} flows"));
        let files = Files::make(lab, *flows, Frame::Smallest)?;
        // Two programs, each with an mbuf for every packet.
        let huge_pages = Lab::has_huge_pages(&[files.packets + 16_384; 2]);
        let bed = Bed { lab, files: &files, flows: *flows, huge_pages };
        rows.extend(bed.run(args, progress)?);
        for workers in 2..=lab.cpus.len().min(args.workers) {
            progress.say(&format!("net_pcap to net_null, {flows} flows, {workers} workers"));
            rows.push(bed.workers(workers, args)?);
        }
    }
    Ok(rows)
}

/// One round: nanoseconds a packet of each, and Mpps of Weft's worker.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    weft: f64,
    macswap: f64,
    io: f64,
}

impl Bed<'_> {
    fn site<'s>(&self, devices: &'s [String], workers: &'s [u32], mbufs: u64) -> Site<'s> {
        Site {
            workers,
            // A table at the advised load of the flows there are.
            flows: self.flows.max(1024),
            devices,
            mbufs,
            backends: 100,
            changed: false,
            keep_tables: true,
            huge_pages: self.huge_pages,
        }
    }

    /// Weft with all flows established, on the steady file, halted.
    fn established(&self, workers: &[u32]) -> anyhow::Result<Weft> {
        let lab = self.lab;
        let queues = |file: &str| format!("net_pcap0{}", format!(",rx_pcap={file}").repeat(workers.len()));
        // Configured before a packet comes: without, the first packets would be dropped.
        let nothing = ["net_null1,no-rx=1".to_owned(), OUT.to_owned()];
        let config = lab.configure("weft.toml", &self.site(&nothing, workers, 0))?;
        forget(lab, &config);
        let mut weft = Weft::start(lab, &config)?;
        weft.commit(&config)?;
        weft.end()?;
        // Each worker reads the file: the second finds every flow there.
        let warm = [queues(&self.files.warm.display().to_string()), OUT.to_owned()];
        let config = lab.configure("weft.toml", &self.site(&warm, workers, 0))?;
        let mut weft = Weft::start(lab, &config)?;
        let all = self.files.warm_packets * workers.len() as u64;
        lab.stop.patiently("the handshakes to be read", Duration::from_secs(120), || {
            weft.check()?;
            Ok((weft.counts().received >= all).then_some(()))
        })?;
        weft.end()?;
        let steady = queues(&self.files.steady.display().to_string()) + ",infinite_rx=1";
        let steady = [steady, OUT.to_owned()];
        let mbufs = self.files.packets * workers.len() as u64;
        let config = lab.configure("weft.toml", &self.site(&steady, workers, mbufs))?;
        let mut weft = Weft::start(lab, &config)?;
        lab.stop.patiently("packets", Duration::from_secs(10), || {
            Ok((weft.counts().received > self.files.packets).then_some(()))
        })?;
        weft.halt(lab, true)?;
        Ok(weft)
    }

    fn run(&self, args: &Args, progress: &Progress) -> anyhow::Result<Vec<Row>> {
        let lab = self.lab;
        let workers = lab.workers(1);
        let mut weft = self.established(workers)?;
        let devices =
            [format!("net_pcap0,rx_pcap={},infinite_rx=1", self.files.steady.display()), OUT.to_owned()];
        let worker = workers.first().copied().unwrap_or(0);
        let mut testpmd = match &lab.testpmd {
            Some(_) => {
                Some(Testpmd::start(lab, &devices, worker, self.files.packets + 16_384, self.huge_pages)?)
            }
            None => None,
        };
        let mut rounds = Vec::new();
        let mut by_flow = 0.0_f64;
        for number in 0..args.rounds {
            progress.say(&format!(
                "net_pcap to net_null, {} flows, round {} of {}",
                self.flows,
                number + 1,
                args.rounds
            ));
            let mut round = Round::default();
            let (ns, share) = self.weft(&mut weft, args.spell())?;
            round.weft = ns;
            by_flow = share;
            if let Some(testpmd) = &mut testpmd {
                let macswap = testpmd.spell(Mode::Macswap, args.spell(), lab)?;
                let io = testpmd.spell(Mode::Io, args.spell(), lab)?;
                round.macswap = float(macswap.run_ns) / float(macswap.forwarded.max(1));
                round.io = float(io.run_ns) / float(io.forwarded.max(1));
            }
            rounds.push(round);
        }
        let pages = weft.pages().to_owned();
        weft.halt(lab, false)?;
        let config = weft.config().to_owned();
        weft.end()?;
        forget(lab, &config);
        if let Some(testpmd) = testpmd {
            testpmd.end()?;
        }
        Ok(self.rows(&rounds, lab.testpmd.is_some(), by_flow, &pages))
    }

    /// One spell of Weft: nanoseconds a packet of a worker's time, and the share of packets that found their flow.
    fn weft(&self, weft: &mut Weft, span: Duration) -> anyhow::Result<(f64, f64)> {
        let (counts, ran) = (weft.counts(), weft.run_ns()?);
        weft.halt(self.lab, false)?;
        self.lab.stop.pause(span)?;
        weft.halt(self.lab, true)?;
        let counts = weft.counts().since(counts);
        let ran: u64 = weft.run_ns()?.iter().zip(ran).map(|(now, before)| now.saturating_sub(before)).sum();
        ensure!(counts.forwarded > 0, "weft-dataplane forwarded nothing in {span:?}");
        ensure!(
            counts.dropped == 0,
            "weft-dataplane dropped {} of {} packets",
            counts.dropped,
            counts.received
        );
        Ok((float(ran) / float(counts.forwarded), float(counts.by_flow) / float(counts.received)))
    }

    /// Mpps of several workers, each with a queue of its own that plays the same file.
    fn workers(&self, count: usize, args: &Args) -> anyhow::Result<Row> {
        let mut weft = self.established(self.lab.workers(count))?;
        let mut rates = Vec::new();
        for _ in 0..args.rounds {
            let (ns, _) = self.weft(&mut weft, args.spell())?;
            rates.push(float(count as u64) * 1e3 / ns);
        }
        weft.halt(self.lab, false)?;
        let config = weft.config().to_owned();
        weft.end()?;
        forget(self.lab, &config);
        Ok(Row { workers: Some(count as u64), ..self.row("weft_pcap", "mpps", &rates) })
    }

    fn row(&self, figure: &str, unit: &str, values: &[f64]) -> Row {
        let case = format!("established_v4 {} net_pcap to net_null", self.lab.forward.name());
        Row {
            flows: Some(self.flows),
            frame_bytes: Some(self.files.frame_bytes),
            burst: Some(32),
            workers: Some(1),
            ..row(figure, &case, unit, values)
        }
    }

    fn rows(&self, rounds: &[Round], has_testpmd: bool, by_flow: f64, pages: &str) -> Vec<Row> {
        let of = |what: fn(&Round) -> f64| rounds.iter().map(what).collect::<Vec<f64>>();
        let clock = "time of the worker's thread on its CPU";
        let extra = extra([
            ("clock", json!(clock)),
            ("packet_pages", json!(crate::pages::name(self.huge_pages))),
            ("table_pages", json!(pages)),
            ("packets_of_the_file", json!(self.files.packets)),
            ("found_their_flow", json!(by_flow)),
        ]);
        let mut rows = vec![
            Row { extra: extra.clone(), ..self.row("weft_pcap", "ns", &of(|round| round.weft)) },
            Row { extra, ..self.row("weft_pcap", "mpps", &of(|round| 1e3 / round.weft)) },
        ];
        if !has_testpmd {
            return rows;
        }
        let goal = match self.flows {
            0..=1024 => Some(2.0),
            1_000_000.. => Some(2.8),
            _ => None,
        };
        let over_macswap = of(|round| round.weft / round.macswap);
        rows.push(self.row("testpmd_macswap", "ns", &of(|round| round.macswap)));
        rows.push(self.row("testpmd_io", "ns", &of(|round| round.io)));
        rows.push(Row { goal, ..self.row("weft_over_macswap", "ratio", &over_macswap) });
        rows
    }
}
