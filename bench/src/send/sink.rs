//! The receiving side: counts what comes back, how long it was under way, and the longest silence.

use dpdk::{Burst, Eal, RxQueue};

use super::stamp::Stamp;
use crate::histogram::Histogram;

/// What was received in one trial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Packets, those of earlier trials left out.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packets of earlier trials.
    pub stale: u64,
    /// Stamped packets that came after a later one.
    pub reordered: u64,
    /// Cycles between two bursts, or the last one and the end.
    pub longest_gap: u64,
    /// The same, without the time in which the sink itself did not run.
    pub longest_silence: u64,
    /// Cycles between two polls of the sink: for so long it was held up.
    pub longest_hold: u64,
    /// Packets with successive numbers, none of which came.
    pub longest_loss: u64,
    /// Cycles from stamp to reception.
    pub latency: Histogram,
    /// When something came last.
    heard: Option<u64>,
    /// Of the time since, what the sink did not run.
    held: u64,
    /// When the sink polled last.
    polled: Option<u64>,
    next: u64,
}

/// Between two polls of a sink that runs there are fewer cycles: about 10 µs. A full burst takes less.
const RUNNING: u64 = 25_000;

impl Received {
    /// Counts a frame received at `now` in the trial `trial`.
    #[inline]
    fn count(&mut self, frame: &[u8], length: usize, stamps: Option<u32>, now: u64) {
        if let (Some(trial), Some(stamp)) = (stamps, Stamp::read(frame)) {
            if stamp.trial == trial {
                self.latency.record(now.saturating_sub(stamp.cycles));
                self.reordered += u64::from(stamp.number < self.next);
                self.longest_loss = self.longest_loss.max(stamp.number.saturating_sub(self.next));
                self.next = self.next.max(stamp.number + 1);
            } else if is_ours(stamp.trial, trial) {
                self.stale += 1;
                return;
            }
        }
        self.packets += 1;
        self.bytes += length as u64;
    }

    /// Notes a poll at `now`, and whether it brought anything.
    #[inline]
    fn polled(&mut self, now: u64, heard: bool) {
        if let Some(polled) = self.polled.replace(now) {
            let since = now.saturating_sub(polled);
            if since > RUNNING {
                self.held += since;
                self.longest_hold = self.longest_hold.max(since);
            }
        }
        if heard {
            self.gap(now);
            self.heard = Some(now);
            self.held = 0;
        }
    }

    fn gap(&mut self, now: u64) {
        if let Some(heard) = self.heard {
            let gap = now.saturating_sub(heard);
            self.longest_gap = self.longest_gap.max(gap);
            self.longest_silence = self.longest_silence.max(gap.saturating_sub(self.held));
        }
    }

    /// Ends the trial whose last packet was offered at `end`, as number `offered - 1`.
    pub fn close(&mut self, end: u64, offered: u64) {
        self.gap(end);
        if self.next > 0 {
            self.longest_loss = self.longest_loss.max(offered.saturating_sub(self.next));
        }
    }
}

/// Whether a stamp of another trial is of the same sender: its upper half is the same.
fn is_ours(found: u32, current: u32) -> bool {
    found >> 12 == current >> 12
}

/// A queue with what it brought.
#[derive(Debug)]
pub struct Sink {
    queue: RxQueue,
    burst: Burst,
    /// The trial whose stamps count; `None` where stamps are not read.
    pub stamps: Option<u32>,
    /// What was received since it was last emptied.
    pub received: Received,
}

impl Sink {
    /// A sink at a queue.
    pub fn new(eal: &Eal, queue: RxQueue) -> Self {
        Self { queue, burst: Burst::new(eal), stamps: None, received: Received::default() }
    }

    /// Polls once at `now`, the time the packets are taken to have come. Whether any came.
    #[inline]
    pub fn poll(&mut self, now: u64) -> bool {
        if self.queue.receive(&mut self.burst) == 0 {
            self.received.polled(now, false);
            return false;
        }
        for place in 0..self.burst.len() {
            // Of a packet in several pieces the end is not at hand: it counts without its stamp.
            let stamps = self.stamps.filter(|_| self.burst.segments(place) == 1);
            let frame = self.burst.bytes(place);
            self.received.count(frame, self.burst.wire_len(place), stamps, now);
        }
        self.received.polled(now, true);
        self.burst.clear();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(trial: u32, number: u64, cycles: u64) -> [u8; 32] {
        let mut frame = [0; 32];
        Stamp { cycles, trial, number }.write(&mut frame);
        frame
    }

    #[test]
    fn packets_are_counted_by_trial_order_and_age() {
        let mut received = Received::default();
        let trial = 0xaaa_003;
        for (number, sent, now) in [(0, 100, 150), (2, 110, 170), (1, 105, 180)] {
            received.count(&frame(trial, number, sent), 32, Some(trial), now);
            received.polled(now, true);
        }
        received.count(&frame(trial - 1, 9, 1), 32, Some(trial), 190);
        // What bears no stamp of ours is a packet like any other.
        received.count(&[0xff; 40], 40, Some(trial), 200);
        received.count(&frame(trial, 3, 1), 32, None, 200);
        assert_eq!((received.packets, received.bytes), (5, 96 + 40 + 32));
        assert_eq!((received.stale, received.reordered, received.latency.count()), (1, 1, 3));
        assert_eq!((received.latency.least(), received.latency.greatest()), (Some(50), Some(75)));
        assert_eq!((received.longest_gap, received.longest_loss), (20, 1));
        received.close(1000, 13);
        assert_eq!((received.longest_gap, received.longest_loss), (820, 10));
    }

    #[test]
    fn a_silence_does_not_count_the_time_for_which_the_sink_was_held_up() {
        let mut received = Received::default();
        for (now, heard) in [(0, true), (900_000, false), (910_000, false), (920_000, true), (940_000, true)]
        {
            received.polled(now, heard);
        }
        assert_eq!((received.longest_gap, received.longest_hold), (920_000, 900_000));
        assert_eq!(received.longest_silence, 20_000);
    }
}
