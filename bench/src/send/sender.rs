//! The sending side: one trial on one lcore, or on two where the sink has its own.

use std::sync::atomic::{AtomicBool, Ordering};

use dpdk::{Burst, Eal, Pool, TxQueue, cycles};

use super::frames::Frames;
use super::rate::Pacer;
use super::sink::Sink;
use super::stamp::Stamp;

/// A sink that hears nothing for so long after the end has heard everything.
const QUIET_SECONDS: f64 = 0.02;
/// And for so long it listens at most.
const PATIENCE_SECONDS: f64 = 0.5;

/// What to send in one trial.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Packets a second; `None`: as many as the port takes.
    pub pps: Option<f64>,
    /// For how many cycles; `None`: until every frame was sent once.
    pub cycles: Option<u64>,
    /// The number in its stamps.
    pub trial: u32,
    /// Packets offered at once, at most.
    pub burst: u16,
    /// Whether stamps are written.
    pub stamps: bool,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Packets offered, those in `refused` included.
    pub offered: u64,
    /// Packets for which the ring had no room, where that is loss.
    pub refused: u64,
    /// Packets that were never offered, because the sender was held up.
    pub skipped: u64,
    /// From the first packet to the last.
    pub cycles: u64,
    /// When the last was offered.
    pub end: u64,
}

/// A queue with what it sends.
#[derive(Debug)]
pub struct Sender {
    queue: TxQueue,
    burst: Burst,
    pool: Pool,
    next: usize,
}

impl Sender {
    /// A sender at a queue.
    pub fn new(eal: &Eal, pool: &Pool, queue: TxQueue) -> Self {
        Self { queue, burst: Burst::new(eal), pool: pool.clone(), next: 0 }
    }

    /// Sends until the plan's end or `stop`; polls `sink` in between, where the sink is this lcore's too.
    pub fn run(
        &mut self,
        frames: &Frames,
        plan: &Plan,
        clock: Clock,
        mut sink: Option<&mut Sink>,
        stop: &AtomicBool,
    ) -> Sent {
        let began = cycles();
        let mut pacer = Pacer::new(plan.pps, clock.cycles_a_second, u64::from(plan.burst), began);
        let mut sent = Sent { end: began, ..Sent::default() };
        let mut left = if plan.cycles.is_some() { u64::MAX } else { frames.count() as u64 };
        let until = plan.cycles.map_or(u64::MAX, |cycles| began.saturating_add(cycles));
        self.next = 0;
        loop {
            let now = cycles();
            let over = left == 0 && self.burst.is_empty();
            if now >= until || over || stop.load(Ordering::Relaxed) {
                break;
            }
            let due = pacer.due(now).min(u64::from(plan.burst)).min(left);
            if due > 0 || !self.burst.is_empty() {
                let stamps = plan.stamps.then_some(plan.trial);
                let (offered, refused) =
                    self.offer(frames, due, stamps, plan.pps.is_some(), now, sent.offered);
                pacer.release(offered);
                left -= offered;
                sent.offered += offered;
                sent.refused += refused;
                sent.end = now;
            }
            if let Some(sink) = sink.as_deref_mut() {
                sink.poll(now);
            }
        }
        // At the rate "max" what the ring has not taken was not offered.
        sent.offered -= u64::from(self.burst.held().count_ones());
        self.burst.clear();
        let end = cycles();
        sent.skipped = if plan.cycles.is_some() { pacer.end(end) } else { 0 };
        sent.cycles = end.saturating_sub(began);
        sent
    }

    /// Offers up to `due` packets: how many were offered first, how many of these the ring refused for good. Where
    /// the rate is not given, what is refused is kept and goes before anything new.
    #[inline]
    fn offer(
        &mut self,
        frames: &Frames,
        due: u64,
        stamps: Option<u32>,
        paced: bool,
        now: u64,
        number: u64,
    ) -> (u64, u64) {
        let mut offered = 0;
        if self.burst.is_empty() && due > 0 {
            offered = self.fill(frames, due, stamps, now, number);
        }
        let all = self.burst.held();
        if paced {
            let done = self.queue.transmit(&mut self.burst, all);
            return (offered, u64::from(done.refused));
        }
        self.queue.offer(&mut self.burst, all);
        (offered, 0)
    }

    /// Makes packets of the next frames; how many: none where no packet buffer is free.
    #[inline]
    fn fill(&mut self, frames: &Frames, count: u64, stamps: Option<u32>, now: u64, number: u64) -> u64 {
        let places = usize::try_from(count).unwrap_or(0);
        if !self.burst.allocate(&self.pool, places, 0) {
            return 0;
        }
        for (place, number) in (0..places).zip(number..) {
            let (frame, stamped) = frames.get(self.next);
            self.next = if self.next + 1 < frames.count() { self.next + 1 } else { 0 };
            // It fits: frames are no longer than a buffer.
            let Some(bytes) = self.burst.resize(place, frame.len()) else { continue };
            bytes.copy_from_slice(frame);
            if let Some(trial) = stamps.filter(|_| stamped) {
                Stamp { cycles: now, trial, number }.write(bytes);
            }
        }
        count
    }
}

/// The rate of the time stamp counter.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Cycles in a second.
    pub cycles_a_second: u64,
}

impl Clock {
    /// A span in cycles.
    pub fn cycles(self, seconds: f64) -> u64 {
        crate::number::whole(seconds * crate::number::float(self.cycles_a_second))
    }

    /// A span in seconds.
    pub fn seconds(self, cycles: u64) -> f64 {
        crate::number::float(cycles) / crate::number::float(self.cycles_a_second)
    }
}

/// Receives what is still under way, until nothing comes any more.
pub fn drain(sink: &mut Sink, clock: Clock) {
    let began = cycles();
    let mut heard = began;
    loop {
        let now = cycles();
        if sink.poll(now) {
            heard = now;
        }
        if now - heard > clock.cycles(QUIET_SECONDS) || now - began > clock.cycles(PATIENCE_SECONDS) {
            return;
        }
    }
}

/// Receives until `done`, then what is still under way.
pub fn listen(sink: &mut Sink, clock: Clock, done: &AtomicBool) {
    while !done.load(Ordering::Acquire) {
        sink.poll(cycles());
    }
    drain(sink, clock);
}
