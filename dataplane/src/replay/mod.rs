//! `weft-dataplane replay`: the real engine on a capture file.
//!
//! The configuration becomes the same commands the control plane would send and goes through the same model and
//! snapshot. The clock is the capture's, and never runs backwards. The sweep makes one whole pass whenever the
//! tick changes, and bursts are cut there, so verdicts depend neither on the burst size nor on the machine.

mod verdict_line;

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use capture::{CaptureReader, CaptureWriter, Record};
use config::Config;
use engine::frames::{VecFrame, VecFrames};
use engine::pipeline::{Context, Pipeline};
use engine::snapshot::Snapshot;
use engine::sweep::{LINES_PER_CALL, PASS_MS, Sweeper};
use engine::tables::Tables;
use engine::tick::{MAX_AGE, MAX_IDLE, TICK_SECONDS, Tick};
use engine::verdict::Verdict;
use ipc::counters::WorkerCounters;
use ipc::id::PortId;

use crate::cli::Replay;
use verdict_line::VerdictLine;

/// The tables' secret key. A replay has nothing to hide and should give the same places every time.
const REPLAY_SECRET: [u8; 32] = *b"weft-dataplane replay: no secret";

/// A pause in a capture is passed in steps of so long: an entry that is past its idle time is met by the sweep
/// before its age wraps.
const PAUSE_STEP: Duration = Duration::from_secs((MAX_AGE - MAX_IDLE - 1) as u64 * TICK_SECONDS);

/// After so many steps nothing that was known before the pause can still be.
const PAUSE_STEPS: u64 = 2 + MAX_AGE as u64 * TICK_SECONDS / PAUSE_STEP.as_secs();

/// How often progress is shown on a terminal, in packets.
const PROGRESS_EVERY: u64 = 1 << 20;

/// Runs `replay`.
///
/// # Errors
/// Anything that keeps the whole capture from being judged, in one sentence.
pub fn run(args: &Replay) -> anyhow::Result<()> {
    let config = crate::load(&args.config)?;
    let mut reader = CaptureReader::open(&args.input)?;
    let mut outputs = Outputs::create(args)?;
    let mut replay = Session::new(&config)?;
    let burst = usize::from(args.burst);

    let mut records: Vec<Record> = Vec::with_capacity(burst);
    // What a damaged file holds before the damage is judged all the same.
    let mut damage = None;
    while let Some(record) = reader.read().unwrap_or_else(|error| {
        damage = Some(error);
        None
    }) {
        if replay.changes_tick(record.time) || records.len() == burst {
            replay.judge(&mut records, &mut outputs)?;
        }
        replay.advance(record.time);
        records.push(record);
    }
    replay.judge(&mut records, &mut outputs)?;
    outputs.finish()?;
    damage.map_or(Ok(()), Err)
}

/// The engine and all it works on.
struct Session {
    snapshot: Snapshot,
    tables: Tables,
    counters: WorkerCounters,
    pipeline: Pipeline,
    sweeper: Sweeper,
    clock: Duration,
    passes: u64,
    packets: u64,
}

impl Session {
    fn new(config: &Config) -> anyhow::Result<Self> {
        let site = site::offline(config);
        let mut tables = Tables::on_heap(config.dataplane.flows, config.dataplane.tokens, &REPLAY_SECRET);
        tables.lifetimes = site::lifetimes(&config.dataplane);
        Ok(Self {
            snapshot: site::configured(config, &site)?,
            tables,
            counters: WorkerCounters::heap(),
            pipeline: Pipeline::default(),
            sweeper: Sweeper::new(0, 1),
            clock: Duration::ZERO,
            passes: 0,
            packets: 0,
        })
    }

    /// The tick now.
    fn now(&self) -> Tick {
        Tick::from_seconds(self.clock.as_secs())
    }

    /// The clock in milliseconds.
    fn millis(&self) -> u64 {
        u64::try_from(self.clock.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the tick is another one once a packet of this time is judged: time never runs backwards.
    fn changes_tick(&self, time: Duration) -> bool {
        self.clock.max(time).as_secs() / TICK_SECONDS != self.clock.as_secs() / TICK_SECONDS
    }

    /// Moves the clock to a packet's time, with a pass of the sweep where the tick changes.
    ///
    /// A long pause is taken in steps in which ages can be told ([`engine::tick`]), until all that was known has
    /// expired.
    fn advance(&mut self, time: Duration) {
        let pause = if self.packets == 0 { 0 } else { PAUSE_STEPS };
        for _ in 0..pause {
            if time.saturating_sub(self.clock) <= PAUSE_STEP {
                break;
            }
            self.clock += PAUSE_STEP;
            self.sweep();
        }
        let tick_changes = self.changes_tick(time);
        self.clock = self.clock.max(time);
        if tick_changes {
            self.sweep();
        }
    }

    /// One whole pass of the sweep.
    fn sweep(&mut self) {
        self.passes += 1;
        let elapsed = self.passes * PASS_MS;
        let now = self.now();
        let (snapshot, tables, counters) = (&self.snapshot, &self.tables, &self.counters);
        let cx = Context { snapshot, tables, counters, now, millis: self.millis(), port: PortId(0) };
        while self.sweeper.advance(elapsed, LINES_PER_CALL, &cx) {}
    }

    /// Judges a burst of one tick and writes what came of it.
    fn judge(&mut self, records: &mut Vec<Record>, outputs: &mut Outputs) -> anyhow::Result<()> {
        let times: Vec<Duration> = records.iter().map(|record| record.time).collect();
        let mut frames: VecFrames = records
            .drain(..)
            .map(|record| VecFrame { bytes: record.bytes, missing: record.missing })
            .collect();
        let now = self.now();
        let (snapshot, tables, counters) = (&self.snapshot, &self.tables, &self.counters);
        let cx = Context { snapshot, tables, counters, now, millis: self.millis(), port: PortId(0) };
        let verdicts: Vec<Verdict> = self.pipeline.process(&mut frames, &cx).verdicts().collect();
        for ((verdict, time), frame) in verdicts.iter().zip(times).zip(frames.into_inner()) {
            self.packets += 1;
            outputs.write(VerdictLine::new(self.packets, verdict, &self.snapshot), verdict, time, &frame)?;
        }
        Ok(())
    }
}

/// The files a replay writes.
struct Outputs {
    sent: Option<CaptureWriter>,
    verdicts: Option<Box<dyn Write>>,
    progress: bool,
}

impl Outputs {
    fn create(args: &Replay) -> anyhow::Result<Self> {
        let sent = args.output.as_deref().map(CaptureWriter::create).transpose()?;
        let verdicts = args.verdicts.as_deref().map(open_verdicts).transpose()?;
        Ok(Self { sent, verdicts, progress: std::io::stderr().is_terminal() })
    }

    fn write(
        &mut self,
        line: VerdictLine<'_>,
        verdict: &Verdict,
        time: Duration,
        frame: &VecFrame,
    ) -> anyhow::Result<()> {
        let packet = line.packet;
        if let Some(verdicts) = &mut self.verdicts {
            serde_json::to_writer(&mut *verdicts, &line).context("writing the verdicts")?;
            verdicts.write_all(b"\n").context("writing the verdicts")?;
        }
        if let (Some(sent), true) = (&mut self.sent, verdict.action.is_sent()) {
            sent.write(time, &frame.bytes, frame.missing)?;
        }
        if self.progress && packet.is_multiple_of(PROGRESS_EVERY) {
            eprintln!("{packet} packets judged");
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        if let Some(sent) = self.sent {
            sent.finish()?;
        }
        if let Some(mut verdicts) = self.verdicts {
            verdicts.flush().context("writing the verdicts")?;
        }
        Ok(())
    }
}

fn open_verdicts(path: &Path) -> anyhow::Result<Box<dyn Write>> {
    if path == Path::new("-") {
        return Ok(Box::new(BufWriter::new(std::io::stdout())));
    }
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Box::new(BufWriter::new(file)))
}
