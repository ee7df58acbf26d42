//! Where a hash may live: the four candidate lines of an entry, the same for both tables.
//!
//! Why apart: placement is arithmetic on a hash and two sizes, and both tables stand on it.
//!
//! A table's lines are a main area and, behind it, an overflow area of 1/64 of all lines. A hash has, in this
//! order: its **primary** line (the hash scaled to the main area, so no power of two is needed), its
//! **alternate** (1 to 4096 lines further, round the end), and two neighbouring lines of the overflow area,
//! which is small enough to stay in a cache.
//!
//! First-fit alone is not enough: measured (`tests/placement.rs`), a table at its advised load whose flows
//! come and go ends with 15 % of its hits in the second line and one insert in 500 homeless. So the flow
//! table moves entries, one step and only where it must: an insert that finds both lines full moves one entry
//! of them to *its* alternate, and the sweep brings entries home to their primary where there is room again.
//! Lines of tokens have eight slots and do without.
//!
//! Which bits choose what: the primary takes the top bits, the alternate's distance the low 32, the overflow
//! line the middle ones. The flow table's fingerprint is the low 47 bits; entries of one line differ in it as
//! random words do.

use ipc::lines::{Line, Lines, prefetch_read};
use ipc::sync::{AtomicU64, Ordering};

use crate::hash::scale;

/// How far an alternate line is from its primary, in lines: 256 KiB.
const WINDOW: usize = 4096;

/// One line in so many is part of the overflow area.
const OVERFLOW_SHARE: usize = 64;

/// The memory of a table, its two areas, and how much lives in the second.
#[derive(Debug)]
pub(crate) struct Places {
    lines: Lines,
    main: usize,
    overflow: Spilled,
}

/// A hash and its lines in the main area: made by the table they are of, and good as long as that lives.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spot {
    pub(crate) hash: u64,
    pub(crate) primary: usize,
    pub(crate) alternate: usize,
}

/// How many slots of the overflow area are in use. Alone in its cache lines: every miss of every worker reads
/// it.
#[derive(Debug)]
#[repr(align(128))]
struct Spilled(AtomicU64);

impl Places {
    /// The areas of a table over `lines`; `used` counts the slots in use of one line.
    pub(crate) fn new(lines: Lines, used: impl Fn(&Line) -> u64) -> Self {
        let overflow = match lines.len() {
            0..=3 => 0,
            few if few < OVERFLOW_SHARE => 1,
            many => many / OVERFLOW_SHARE,
        };
        let main = lines.len() - overflow;
        let spilled = lines.iter().skip(main).map(used).sum();
        Self { lines, main, overflow: Spilled(AtomicU64::new(spilled)) }
    }

    /// How many lines there are in both areas.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// All lines from `from` on, at most `count`, with their numbers.
    pub(crate) fn range(&self, from: usize, count: usize) -> impl Iterator<Item = (usize, &Line)> {
        self.lines.iter().enumerate().skip(from).take(count)
    }

    /// The line of this number.
    #[inline]
    pub(crate) fn line(&self, number: usize) -> Option<&Line> {
        self.lines.get(number)
    }

    /// The number of the primary line.
    #[inline]
    pub(crate) fn primary(&self, hash: u64) -> usize {
        scale(hash, self.main)
    }

    /// The number of the alternate line: another one than the primary wherever there are two.
    #[inline]
    pub(crate) fn alternate(&self, hash: u64) -> usize {
        self.alternate_of(self.primary(hash), hash)
    }

    /// The primary line of an entry that is in its alternate line `number`; needs the low 32 bits of the hash
    /// only.
    pub(crate) fn home(&self, number: usize, hash: u64) -> usize {
        let distance = self.distance(hash);
        if number >= distance { number - distance } else { number + self.main - distance }
    }

    /// The alternate line of an entry that is in its primary line `number`; needs the low 32 bits of the hash
    /// only.
    #[inline(always)]
    pub(crate) fn alternate_of(&self, number: usize, hash: u64) -> usize {
        let line = number + self.distance(hash);
        if line >= self.main { line - self.main } else { line }
    }

    /// How far the alternate is from the primary.
    #[inline(always)]
    fn distance(&self, hash: u64) -> usize {
        1 + scale(hash << 32, WINDOW.min(self.main.saturating_sub(1)))
    }

    /// The numbers of the candidate lines in the order of search; without the overflow area's unless `all`.
    /// Lines a small table does not have are left out, so a line comes once at most.
    #[inline]
    pub(crate) fn candidates(&self, hash: u64, all: bool) -> impl Iterator<Item = usize> {
        let [first, second] = if all { self.spill_lines(hash) } else { [0, 0] };
        let numbers = [self.primary(hash), self.alternate(hash), first, second];
        // A table that lacks one of them lacks all that come behind it: only one of three lines or fewer has no
        // overflow area.
        let overflow = if all { self.lines.len() - self.main } else { 0 };
        numbers.into_iter().take(self.main.min(2) + overflow.min(2))
    }

    /// The numbers of the two lines of the overflow area, where there is one.
    #[inline]
    pub(crate) fn spill_lines(&self, hash: u64) -> [usize; 2] {
        let overflow = self.lines.len() - self.main;
        let first = scale(hash << 16, overflow);
        let second = if first + 1 < overflow { first + 1 } else { 0 };
        [self.main + first, self.main + second]
    }

    /// Whether a hash of which only the low 47 bits are known may live in line `number` of the overflow area.
    pub(crate) fn may_spill_to(&self, low: u64, number: usize) -> bool {
        // The 48th bit is the last one that counts here.
        let hashes = [low & !(1 << 47), low | 1 << 47];
        hashes.into_iter().any(|hash| self.spill_lines(hash).contains(&number))
    }

    /// Whether a line belongs to the overflow area.
    #[inline]
    pub(crate) fn is_overflow(&self, number: usize) -> bool {
        number >= self.main
    }

    /// Whether anything lives in the overflow area, and so a miss must look there.
    ///
    /// Relaxed: a reader that just misses the first spilled entry is a reader that came before it.
    #[inline]
    pub(crate) fn has_spilled(&self) -> bool {
        self.overflow.0.load(Ordering::Relaxed) != 0
    }

    /// How many slots of the overflow area are in use.
    pub(crate) fn spilled(&self) -> u64 {
        self.overflow.0.load(Ordering::Relaxed)
    }

    /// Counts a slot of line `number` as used, before its claim: so the count is never below the truth.
    #[inline]
    pub(crate) fn count_used(&self, number: usize) {
        if self.is_overflow(number) {
            self.overflow.0.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Counts a slot of line `number` as free again, after its release.
    #[inline]
    pub(crate) fn count_free(&self, number: usize) {
        if self.is_overflow(number) {
            self.overflow.0.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// The numbers of a hash's lines in the main area, for whoever needs them more than once.
    #[inline(always)]
    pub(crate) fn spot(&self, hash: u64) -> Spot {
        let primary = self.primary(hash);
        Spot { hash, primary, alternate: self.alternate_of(primary, hash) }
    }

    /// Starts to bring the primary line near.
    #[inline]
    pub(crate) fn prefetch_primary(&self, hash: u64) {
        self.prefetch(self.primary(hash));
    }

    /// Starts to bring a line near.
    #[inline]
    pub(crate) fn prefetch(&self, number: usize) {
        if let Some(line) = self.line(number) {
            prefetch_read(line);
        }
    }

    /// Starts to bring the other candidate lines near.
    #[inline]
    pub(crate) fn prefetch_others(&self, hash: u64) {
        self.prefetch_behind(self.alternate(hash), hash);
    }

    /// The same, where the alternate line's number is known.
    #[inline]
    pub(crate) fn prefetch_behind(&self, alternate: usize, hash: u64) {
        self.prefetch(alternate);
        if self.has_spilled() {
            self.spill_lines(hash).into_iter().filter_map(|number| self.line(number)).for_each(prefetch_read);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn places(lines: usize) -> Places {
        Places::new(Lines::heap(lines), |_| 0)
    }

    fn hashes() -> impl Iterator<Item = u64> {
        (1..5000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    #[test]
    fn the_candidates_of_a_hash_are_different_lines_of_the_table() {
        for lines in [1, 2, 3, 4, 5, 63, 64, 127, 128, 20_000] {
            let places = places(lines);
            for hash in hashes() {
                let mut numbers: Vec<_> = places.candidates(hash, true).collect();
                assert!(!numbers.is_empty() && numbers.iter().all(|number| *number < lines));
                assert!(numbers.len() >= lines.min(2));
                numbers.sort_unstable();
                numbers.dedup();
                assert_eq!(numbers.len(), places.candidates(hash, true).count(), "{lines} lines, {hash:x}");
            }
        }
    }

    #[test]
    fn an_alternate_lies_within_the_window_and_leads_home() {
        for lines in [2, 3, 100, 5000, 20_000] {
            let places = places(lines);
            for hash in hashes() {
                let (primary, alternate) = (places.primary(hash), places.alternate(hash));
                let main = lines - if lines < 4 { 0 } else { (lines / OVERFLOW_SHARE).max(1) };
                assert!((1..=WINDOW).contains(&((alternate + main - primary) % main)));
                let low = hash & 0xffff_ffff;
                assert_eq!(places.home(alternate, low), primary, "the low 32 bits are enough");
                assert_eq!(places.alternate_of(primary, low), alternate);
            }
        }
    }

    #[test]
    fn a_table_without_lines_has_no_candidates() {
        assert_eq!(places(0).candidates(7, true).count(), 0);
    }

    #[test]
    fn only_slots_of_the_overflow_area_are_counted() {
        let places = places(128);
        assert!(!places.is_overflow(125) && places.is_overflow(126));
        places.count_used(125);
        assert!(!places.has_spilled());
        places.count_used(126);
        assert!(places.has_spilled());
        places.count_free(126);
        assert_eq!(places.spilled(), 0);
    }
}
