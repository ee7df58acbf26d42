//! The time workers go by: written by the manager, read by every worker as one load.
//!
//! CLOCK_BOOTTIME, so that a suspended machine ages its entries, in milliseconds. A worker never asks the
//! system for the time.

use crossbeam_utils::CachePadded;
use engine::tick::Tick;
use ipc::boot;
use ipc::sync::{AtomicU64, Ordering};

/// The time, as last written.
#[derive(Debug, Default)]
pub struct Clock {
    milliseconds: CachePadded<AtomicU64>,
}

/// A moment as a worker sees it.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    milliseconds: u64,
}

impl Clock {
    /// Reads the system's clock and lets the workers know. Only the manager calls this.
    pub fn update(&self) {
        // Nothing else is published by this store: a worker needs the number only.
        self.milliseconds.store(boot::now_ns() / 1_000_000, Ordering::Relaxed);
    }

    /// The time last written.
    #[inline]
    pub fn now(&self) -> Moment {
        Moment { milliseconds: self.milliseconds.load(Ordering::Relaxed) }
    }
}

impl Moment {
    /// The coarse time of table entries.
    #[inline]
    pub fn tick(self) -> Tick {
        Tick::from_seconds(self.milliseconds / 1000)
    }

    /// Milliseconds since the machine started.
    #[inline]
    pub fn millis(self) -> u64 {
        self.milliseconds
    }

    /// Seconds since the machine was started.
    pub fn seconds(self) -> u64 {
        self.milliseconds / 1000
    }

    /// Milliseconds since another moment; none if that one is later.
    #[inline]
    pub fn since(self, earlier: Moment) -> u64 {
        self.milliseconds.saturating_sub(earlier.milliseconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_updated_goes_on_and_never_back() {
        let clock = Clock::default();
        assert_eq!(clock.now().milliseconds, 0);
        clock.update();
        let first = clock.now();
        assert!(first.milliseconds > 0);
        clock.update();
        assert_eq!(first.since(clock.now()), 0);
        assert!(clock.now().milliseconds >= first.milliseconds);
    }

    #[test]
    fn a_moment_knows_its_tick_and_how_long_ago_another_was() {
        let at = |milliseconds| Moment { milliseconds };
        assert_eq!(at(15_999).tick(), Tick::from_seconds(0));
        assert_eq!((at(15_999).seconds(), at(16_000).seconds()), (15, 16));
        assert_eq!(at(16_000).tick(), Tick::from_seconds(16));
        assert_ne!(at(15_999).tick(), at(16_000).tick());
        assert_eq!(at(16_000).since(at(15_000)), 1000);
        assert_eq!(at(15_000).since(at(16_000)), 0, "an earlier moment is not long after a later one");
    }
}
