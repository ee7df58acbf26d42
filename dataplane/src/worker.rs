//! The worker's loop: one lcore that polls its queues for ever.
//!
//! Invariants: nothing here waits, allocates, logs or calls the system; every frame received leaves by exactly
//! one door, a transmit queue or the burst's end; what a full transmit queue refuses is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dpdk::{Burst, RxQueue, TxQueue};
use engine::frames::places;
use engine::pipeline::{Context, Pipeline};
use engine::sweep::{LINES_PER_CALL, Sweeper};
use engine::tables::Tables;
use ipc::counter::Counter;
use ipc::counters::WorkerCounters;
use ipc::id::PortId;
use ipc::limits::{BURST, MAX_PORTS};

use crate::clock::{Clock, Moment};
use crate::exception::End;
use crate::port_frames::PortFrames;
use site::publish::Subscriber;

/// A worker's queues on one port.
#[derive(Debug)]
pub struct Queues {
    /// Where its packets come from.
    pub receive: RxQueue,
    /// Where they leave.
    pub transmit: TxQueue,
    /// The way to the kernel and back, where the port has one.
    pub exception: Option<End>,
}

/// One worker, with all it owns.
#[derive(Debug)]
pub struct Worker {
    /// Its queues on each port, in the ports' order.
    pub queues: Vec<Queues>,
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
    /// The mbufs of a burst from the kernel.
    pub from_kernel: Burst,
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
            self.poll_kernel(index);
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
        let Some(queues) = self.queues.get_mut(index) else { return };
        if queues.receive.receive(&mut self.burst) == 0 {
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
        let mut frames = PortFrames(&mut self.burst);
        let judged = self.pipeline.process(&mut frames, &cx);
        let (leaving, for_kernel) = (*judged.leaving(), judged.punted());
        self.send(&leaving);
        if for_kernel != 0 {
            self.hand_to_kernel(index, for_kernel);
        }
        self.burst.clear();
    }

    /// Hands frames to the kernel, where the port has a way to it; where it has none, the kernel has them already.
    #[inline(never)]
    fn hand_to_kernel(&mut self, index: usize, frames: u64) {
        let Some(End { transmit, longest, .. }) =
            self.queues.get_mut(index).and_then(|queues| queues.exception.as_mut())
        else {
            return;
        };
        // The TAP driver refuses a frame that is too long, and with it all that stand behind it.
        let fit = places(frames)
            .filter(|place| self.burst.wire_len(*place) <= *longest)
            .fold(0, |mask, place| mask | 1 << place);
        let done = transmit.transmit(&mut self.burst, fit);
        let refused = done.refused + (frames & !fit).count_ones();
        self.counters.add(Counter::ExceptionTx, u64::from(done.sent));
        if refused > 0 {
            self.counters.add(Counter::ExceptionRefused, u64::from(refused));
        }
    }

    /// Moves what the kernel sends through a port's exception path out of the port, unchanged and unjudged.
    #[inline]
    fn poll_kernel(&mut self, index: usize) {
        let Some(Queues { transmit, exception: Some(end), .. }) = self.queues.get_mut(index) else { return };
        if end.receive.receive(&mut self.from_kernel) == 0 {
            return;
        }
        let all = self.from_kernel.held();
        let done = transmit.transmit(&mut self.from_kernel, all);
        self.counters.add(Counter::ExceptionRx, u64::from(done.sent));
        if done.refused > 0 {
            self.counters.add(Counter::ExceptionRefused, u64::from(done.refused));
        }
    }

    /// Sends what leaves, port by port.
    #[inline]
    fn send(&mut self, leaving: &[u64; MAX_PORTS]) {
        for (Queues { transmit, .. }, mask) in self.queues.iter_mut().zip(leaving) {
            if *mask == 0 {
                continue;
            }
            // Lengths are gone with the frames, and only the first `sent` of them count.
            let mut lengths = [0_u64; BURST];
            for (length, place) in lengths.iter_mut().zip(places(*mask)) {
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
