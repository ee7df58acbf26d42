//! The worker's loop: one lcore that polls its queues for ever.
//!
//! Invariants: nothing here waits, allocates, logs or calls the system; every frame received leaves by exactly
//! one door, a transmit queue or the burst's end; what a full transmit queue refuses is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dpdk::{Burst, RxQueue, TxQueue};
use engine::pipeline::{Context, Pipeline};
use engine::sweep::{LINES_PER_CALL, Sweeper};
use engine::tables::Tables;
use ipc::counter::Counter;
use ipc::counters::WorkerCounters;
use ipc::id::PortId;
use ipc::limits::{BURST, MAX_PORTS};

use crate::clock::{Clock, Moment};
use crate::port_frames::PortFrames;
use crate::publish::Subscriber;

/// One worker, with all it owns.
#[derive(Debug)]
pub struct Worker {
    /// Its queues: one pair on each port, in the ports' order.
    pub queues: Vec<(RxQueue, TxQueue)>,
    /// Where its packets are judged.
    pub pipeline: Pipeline,
    /// Its part of the sweep.
    pub sweeper: Sweeper,
    /// Where its snapshots come from.
    pub subscriber: Subscriber,
    /// The tables it shares.
    pub tables: Arc<Tables>,
    /// Where it counts.
    pub counters: WorkerCounters,
    /// The time.
    pub clock: Arc<Clock>,
    /// When the data plane began.
    pub began: Moment,
    /// A burst's mbufs.
    pub burst: Burst,
}

impl Worker {
    /// Polls until told to stop.
    pub fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.poll();
        }
    }

    /// One turn: a snapshot if there is a new one, a burst from each port, a little of the sweep.
    #[inline(never)]
    pub fn poll(&mut self) {
        if self.subscriber.refresh() {
            self.counters.add(Counter::SnapshotSwaps, 1);
        }
        let moment = self.clock.now();
        for index in 0..self.queues.len() {
            self.poll_port(index, moment);
        }
        let cx = Context {
            snapshot: self.subscriber.snapshot(),
            tables: &self.tables,
            counters: &self.counters,
            now: moment.tick(),
            millis: moment.millis(),
            port: PortId(0),
        };
        self.sweeper.advance(moment.since(self.began), LINES_PER_CALL, &cx);
    }

    /// Receives, judges and sends one burst of one port.
    #[inline]
    fn poll_port(&mut self, index: usize, moment: Moment) {
        let Some((receive, _)) = self.queues.get_mut(index) else { return };
        if receive.receive(&mut self.burst) == 0 {
            self.counters.add(Counter::IdlePolls, 1);
            return;
        }
        self.counters.add(Counter::BusyPolls, 1);
        let cx = Context {
            snapshot: self.subscriber.snapshot(),
            tables: &self.tables,
            counters: &self.counters,
            now: moment.tick(),
            millis: moment.millis(),
            port: PortId(u8::try_from(index).unwrap_or(u8::MAX)),
        };
        let mut leaving = [0_u64; MAX_PORTS];
        let mut frames = PortFrames(&mut self.burst);
        for (place, verdict) in self.pipeline.process(&mut frames, &cx).enumerate() {
            if let (true, Some(mask)) =
                (verdict.action.is_sent(), leaving.get_mut(usize::from(verdict.port.0)))
            {
                *mask |= 1 << place;
            }
        }
        self.send(&leaving);
        self.burst.clear();
    }

    /// Sends what leaves, port by port.
    #[inline]
    fn send(&mut self, leaving: &[u64; MAX_PORTS]) {
        for ((_, transmit), mask) in self.queues.iter_mut().zip(leaving) {
            if *mask == 0 {
                continue;
            }
            // Lengths are gone with the frames, and only the first `sent` of them count.
            let mut lengths = [0_u64; BURST];
            for (length, place) in lengths.iter_mut().zip(ones(*mask)) {
                *length = self.burst.wire_len(place) as u64;
            }
            let done = transmit.transmit(&mut self.burst, *mask);
            let sent = usize::try_from(done.sent).unwrap_or(BURST);
            self.counters.add(Counter::TxPackets, u64::from(done.sent));
            self.counters.add(Counter::TxBytes, lengths.iter().take(sent).sum());
            if done.refused > 0 {
                self.counters.add(Counter::TxRefused, u64::from(done.refused));
            }
        }
    }
}

/// The places of the ones in a mask.
fn ones(mut mask: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let place = usize::try_from(mask.trailing_zeros()).unwrap_or(0);
        (mask != 0).then(|| {
            mask &= mask - 1;
            place
        })
    })
}
