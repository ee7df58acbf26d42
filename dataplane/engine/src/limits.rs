//! How much of both tables one source network, and one worker, may open.
//!
//! Why: only the client's packets pass, and sources can be forged, so a handshake is a claim. Without agents these bounds
//! are what keeps one network from filling the tables (docs/threat-model.md says what they do not do). A bound counts
//! within a tick of 16 seconds and for each worker, since no entry says which network opened it: the share of a table is
//! what fits into the ticks that an entry nobody confirms lives.

use packet::{Address, Family, Flow};

use crate::tick::Tick;
use crate::token_table::TOKEN_IDLE;

/// No bound.
pub const UNBOUNDED: u32 = u32::MAX;

/// The bounds of a data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bits of an IPv4 source that are one network.
    pub prefix4: u8,
    /// The same of IPv6, at most 64.
    pub prefix6: u8,
    /// New flows of one network within a tick, for each worker.
    pub flows_per_prefix: u32,
    /// The same, of flows that may teach a token.
    pub tokens_per_prefix: u32,
    /// New flows a second, for each worker.
    pub flows_per_second: u32,
    /// The same, of flows that may teach a token.
    pub tokens_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            prefix4: 24,
            prefix6: 48,
            flows_per_prefix: UNBOUNDED,
            tokens_per_prefix: UNBOUNDED,
            flows_per_second: UNBOUNDED,
            tokens_per_second: UNBOUNDED,
        }
    }
}

impl Limits {
    /// Whether anything is bounded.
    #[inline]
    pub const fn is_bounded(&self) -> bool {
        self.flows_per_prefix != UNBOUNDED
            || self.tokens_per_prefix != UNBOUNDED
            || self.flows_per_second != UNBOUNDED
            || self.tokens_per_second != UNBOUNDED
    }

    /// How many entries of a table of `entries` one network may make within a tick on one of `workers`, so that those
    /// which live for `idle` ticks take at most `percent` of it. At least one.
    pub fn share(entries: usize, percent: u8, idle: u16, workers: usize) -> u32 {
        if percent >= 100 {
            return UNBOUNDED;
        }
        let ticks = usize::from(idle).saturating_add(1);
        let share = entries.saturating_mul(usize::from(percent)) / 100 / ticks / workers.max(1);
        u32::try_from(share).unwrap_or(UNBOUNDED - 1).max(1)
    }

    /// The same for tokens.
    pub fn token_share(entries: usize, percent: u8, workers: usize) -> u32 {
        Self::share(entries, percent, TOKEN_IDLE, workers)
    }

    /// The network a flow comes from, as a number; those of both families differ.
    #[inline]
    pub fn network(&self, flow: &Flow) -> u128 {
        let Address(source) = flow.source;
        match flow.family {
            Family::V4 => source & u128::from(u32::MAX) & ones_from(32, self.prefix4),
            Family::V6 => 1 << 127 | (source >> 64) & ones_from(64, self.prefix6),
        }
    }
}

/// The upper `bits` of a number of `width` bits.
#[inline]
const fn ones_from(width: u32, bits: u8) -> u128 {
    let rest = width.saturating_sub(bits as u32);
    match u128::MAX.checked_shl(rest) {
        Some(mask) => mask,
        None => 0,
    }
}

/// What became of something that opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// An entry is made.
    Yes,
    /// An entry is made, and its key is not learned.
    WithoutKey,
    /// No entry is made.
    No,
}

/// So many a second, and no more at once than a second brings.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    /// Thousandths of one.
    left: u64,
    /// When something was last added; none was yet where this is 0.
    millis: u64,
}

impl Rate {
    /// Takes one if there is one.
    #[inline]
    pub(crate) fn take(&mut self, per_second: u32, millis: u64) -> bool {
        if per_second == UNBOUNDED {
            return true;
        }
        // A first second's worth is there from the start.
        let passed = millis.saturating_add(1000).saturating_sub(self.millis).min(1000);
        let most = u64::from(per_second).saturating_mul(1000);
        let added = u64::from(per_second).saturating_mul(passed);
        self.left = self.left.saturating_add(added).min(most);
        self.millis = self.millis.max(millis.saturating_add(1000));
        let Some(left) = self.left.checked_sub(1000) else { return false };
        self.left = left;
        true
    }
}

/// How often each of many things came within a tick: a count-min sketch under a secret hash, with conservative update
/// (Estan and Varghese, "New directions in traffic measurement and accounting", SIGCOMM 2002). A count is never too low,
/// and too high by what else shares all its counters.
///
/// **What it costs others.** Who makes `k` things come as often as they may fills up to `k` counters of each row, and
/// what else has such a one in every row is refused: `(1 - e^(-k / 16384))^4` of all, 0.1 % at 3,000, 0.9 % at 6,000.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    tick: Tick,
    /// How often something came that did not stand out from the others within the tick.
    common: u32,
    rows: Box<[[u32; COUNTERS]; ROWS]>,
}

/// Counters in a row, as bits; a row has its own part of the hash.
const COUNTER_BITS: u32 = 14;
const COUNTERS: usize = 1 << COUNTER_BITS;

/// Rows: 256 KiB together.
const ROWS: usize = 4;

/// Counters in all rows, as bits.
const ALL_BITS: u32 = COUNTER_BITS + ROWS.ilog2();

impl Default for Counts {
    fn default() -> Self {
        // Made on the heap: no stack is to hold so much.
        let rows = vec![[0; COUNTERS]; ROWS].into_boxed_slice().try_into();
        let rows = rows.unwrap_or_else(|_| Box::new([[0; COUNTERS]; ROWS]));
        Self { tick: Tick::default(), common: 0, rows }
    }
}

impl Counts {
    /// Counts one of the thing with this hash, unless there were `most` within this tick.
    ///
    /// What others left in its counters is held in its favour: where nothing comes often, all of them stand at twice the
    /// mean of all counters or a little below. So nothing that comes once is refused, however much comes once: else a flood of
    /// made-up tokens, where each is somebody's (`token-map`), would let nobody in. What stands out adds nothing to that mean, so
    /// flooding some things does not raise the bound.
    #[inline]
    pub(crate) fn admit(&mut self, hash: u64, most: u32, now: Tick) -> bool {
        if most == UNBOUNDED {
            return true;
        }
        if now != self.tick {
            self.begin(now);
        }
        let grace = (self.common >> ALL_BITS).saturating_mul(2);
        let most = most.saturating_add(grace);
        let held = self.rows.iter().zip(indices(hash)).filter_map(|(row, index)| row.get(index)).min();
        let count = held.copied().unwrap_or_default();
        if count >= most {
            return false;
        }
        // No higher than needed: a counter that others have raised further says nothing of this one.
        for counter in self.rows.iter_mut().zip(indices(hash)).filter_map(|(row, index)| row.get_mut(index)) {
            *counter = (*counter).max(count + 1);
        }
        // A quarter more, and some, is chance.
        let is_common = count <= grace.saturating_add(grace / 4).saturating_add(4);
        self.common = self.common.saturating_add(u32::from(is_common));
        true
    }

    #[inline(never)]
    fn begin(&mut self, now: Tick) {
        (self.tick, self.common) = (now, 0);
        self.rows.iter_mut().for_each(|row| row.fill(0));
    }
}

/// The counter of each row that a hash has.
#[inline]
const fn indices(hash: u64) -> [usize; ROWS] {
    const MASK: u64 = COUNTERS as u64 - 1;
    [
        (hash & MASK) as usize,
        (hash >> 16 & MASK) as usize,
        (hash >> 32 & MASK) as usize,
        (hash >> 48 & MASK) as usize,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        let x = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    #[test]
    fn a_thing_has_its_number_in_every_tick_and_no_more() {
        let mut counts = Counts::default();
        for tick in 5..8 {
            let now = Tick::from_seconds(tick * 16);
            assert_eq!((0..1000).filter(|_| counts.admit(hash(1), 32, now)).count(), 32);
            assert!(counts.admit(hash(2), 32, now), "another");
            let share = (0..300_000).filter(|_| counts.admit(hash(3), 200_000, now)).count();
            assert!((200_000..200_010).contains(&share), "{share} of a bound past 16 bits");
        }
    }

    #[test]
    fn what_comes_once_is_never_refused_however_much_comes() {
        let mut counts = Counts::default();
        let now = Tick::from_seconds(160);
        let most = if cfg!(debug_assertions) { 24_000_000 } else { 160_000_000 };
        let refused = (0..most).filter(|n| !counts.admit(hash(*n), 32, now)).count();
        assert_eq!(refused, 0);
        // A flood of one thing beside them is bounded all the same.
        let flood = (0..1_000_000).filter(|_| counts.admit(hash(1 << 50), 32, now)).count() as u64;
        assert!(flood < 32 + most / 30_000, "{flood}");
    }

    /// Of many that come ten times too often: how often each is let in, and of a thousand, others that come once how many
    /// are refused.
    fn beside(flooded: u32) -> (f64, f64) {
        let mut counts = Counts::default();
        let now = Tick::from_seconds(160);
        let (mut let_in, mut refused) = (0_u32, 0_u32);
        for round in 0..320 {
            let flood = (0..flooded).filter(|n| counts.admit(hash(u64::from(*n)), 32, now)).count();
            let_in += u32::try_from(flood).unwrap();
            let single = |n: &u64| !counts.admit(hash(1 << 40 | round << 20 | n), 32, now);
            refused += u32::try_from((0..100).filter(single).count()).unwrap();
        }
        (f64::from(let_in) / f64::from(flooded), f64::from(refused) / 32_000.0)
    }

    #[test]
    fn many_that_come_too_often_are_bounded_and_refuse_hardly_anybody_else() {
        for (flooded, most, others) in
            [(1000, 33.0, 0.001), (3000, 33.0, 0.002), (6000, 34.0, 0.02), (16_000, 40.0, 0.2)]
        {
            let (let_in, refused) = beside(flooded);
            println!("| {flooded} | {let_in:.1} | {:.2} % |", refused * 100.0);
            assert!(let_in > 31.5 && let_in < most, "{flooded}: {let_in}");
            assert!(refused < others, "{flooded}: {refused}");
        }
    }

    #[test]
    fn a_rate_gives_a_seconds_worth_at_once_and_then_so_many_a_second() {
        let mut rate = Rate::default();
        let mut taken = |millis| (0..1000).filter(|_| rate.take(100, millis)).count();
        assert_eq!((taken(0), taken(0), taken(10), taken(505), taken(100_000)), (100, 0, 1, 49, 100));
    }

    #[test]
    fn networks_are_the_upper_bits_of_a_source() {
        let flow = |family, source| Flow {
            source,
            destination: Address::from_v4([203, 0, 113, 1]),
            source_port: 1,
            destination_port: 443,
            protocol: 6,
            family,
        };
        let limits = Limits::default();
        let v4 = |d| limits.network(&flow(Family::V4, Address::from_v4(d)));
        assert_eq!(v4([10, 1, 2, 3]), v4([10, 1, 2, 250]));
        assert_ne!(v4([10, 1, 2, 3]), v4([10, 1, 3, 3]));
        let v6 = |site: u8, host: u8| {
            let mut octets = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host];
            (octets[5], octets[7]) = (site, host);
            limits.network(&flow(Family::V6, Address::from_v6(octets)))
        };
        assert_eq!(v6(1, 1), v6(1, 2));
        assert_ne!(v6(1, 1), v6(2, 1));
        let whole = Limits { prefix4: 0, prefix6: 0, ..limits };
        assert_eq!(whole.network(&flow(Family::V4, Address::from_v4([9; 4]))), 0);
    }

    #[test]
    fn a_share_is_what_fits_into_the_life_of_an_entry() {
        assert_eq!(Limits::share(1_000_000, 10, 4, 2), 10_000);
        assert_eq!(Limits::share(1_000_000, 100, 4, 2), UNBOUNDED);
        assert_eq!(Limits::share(100, 1, 4, 2), 1);
        assert!(!Limits::default().is_bounded());
    }
}
