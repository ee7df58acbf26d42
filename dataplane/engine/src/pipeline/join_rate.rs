//! How many joins of one token a worker lets in within a tick.
//!
//! Why: who knows one valid token (its own connection's) can open joins by the million, and each that sends one forged
//! ACK has an entry of the last class, which gives way to nothing. No client has more than a handful of subflows, so
//! [`MOST`] a tick, for each worker, is more than any honest connection needs and less than any table notices.
//!
//! The joins of a tick are counted in a count-min sketch of two rows under the tables' secret hash: a token's count is
//! never too low, and too high only where it shares both its counters with tokens that were joined often. With 100,000
//! joins of as many tokens within a tick (6,000 a second) a counter stands at 6 on average, and none is refused.

use crate::tick::Tick;

/// Joins of one token let in within a tick.
pub(super) const MOST: u8 = 32;

/// Counters in a row: 16 KiB.
const COUNTERS: usize = 1 << 14;

/// One worker's counts.
#[derive(Clone, Debug)]
pub(super) struct JoinRate {
    tick: Tick,
    rows: [[u8; COUNTERS]; 2],
}

impl Default for JoinRate {
    fn default() -> Self {
        Self { tick: Tick::default(), rows: [[0; COUNTERS]; 2] }
    }
}

impl JoinRate {
    /// Counts a join of the token with this hash, unless there were enough within this tick.
    pub(super) fn admit(&mut self, hash: u64, now: Tick) -> bool {
        if now != self.tick {
            *self = Self { tick: now, ..Self::default() };
        }
        let [first, second] = &mut self.rows;
        let (Some(first), Some(second)) = (first.get_mut(index(hash)), second.get_mut(index(hash >> 32)))
        else {
            return true;
        };
        if *first.min(second) >= MOST {
            return false;
        }
        (*first, *second) = (first.saturating_add(1), second.saturating_add(1));
        true
    }
}

/// The counter of some bits of a hash.
#[expect(clippy::cast_possible_truncation, reason = "cut to the counters of a row first")]
const fn index(hash: u64) -> usize {
    (hash & (COUNTERS as u64 - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        let x = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    #[test]
    fn a_token_has_its_joins_in_every_tick_and_no_more() {
        let mut rate = Box::new(JoinRate::default());
        for tick in 5..8 {
            let now = Tick::from_seconds(tick * 16);
            let admitted = (0..1000).filter(|_| rate.admit(hash(1), now)).count();
            assert_eq!(admitted, usize::from(MOST));
            assert!(rate.admit(hash(2), now), "another token");
        }
    }

    #[test]
    fn a_hundred_thousand_tokens_joined_in_a_tick_are_all_let_in_beside_a_flood_of_one() {
        let mut rate = Box::new(JoinRate::default());
        let now = Tick::from_seconds(160);
        for n in 0..100_000 {
            assert!(rate.admit(hash(n), now), "token {n}");
            rate.admit(hash(1_000_000), now);
        }
        let again = (0..1000).filter(|_| rate.admit(hash(1_000_000), now)).count();
        assert_eq!(again, 0);
    }
}
