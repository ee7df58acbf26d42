//! Buckets of one cache line, with one alternative: eight tokens of a word, or four flows of two words (all four hashes,
//! then all four values). First-fit: the second line is used where the first is full.
//!
//! - [`EarlyExit`] compares slot after slot and stops. Lost: where in the line an entry lies no predictor knows.
//! - [`Mask`] compares all slots without a branch, and goes to the second line at once. Lost to the next at high load:
//!   the second line is a miss that nothing hides.
//! - [`Deferred`] keeps second lines for a pass of their own, prefetched. What is in use is this, and a place for what
//!   both lines cannot hold.
//! - [`TwoChoices`] puts an entry into the emptier of its lines and always reads both. Lost: two misses a look-up.

use ipc::lines::{Line, Lines, WORDS, prefetch_read};
use ipc::sync::Ordering;

use crate::linear::{scale, value_of, word};
use crate::{BURST, Key, Layout};

/// How far an alternate line is from the first at most.
const WINDOW: usize = 4096;

/// Lines of buckets: 8 tokens or 4 flows each.
struct Buckets<const SLOTS: usize> {
    lines: Lines,
}

impl<const SLOTS: usize> Buckets<SLOTS> {
    /// As many lines as the real table of so many entries has.
    fn new(entries: usize) -> Self {
        let bytes = if SLOTS == WORDS { 13 } else { 27 };
        Self { lines: Lines::heap((entries * bytes).div_ceil(64) + 16) }
    }

    fn places(&self, hash: u64) -> [usize; 2] {
        let count = self.lines.len();
        let first = scale(hash, count);
        let second = first + 1 + scale(hash << 32, WINDOW.min(count - 1));
        [first, if second >= count { second - count } else { second }]
    }

    fn prefetch(&self, place: usize) {
        if let Some(line) = self.lines.get(place) {
            prefetch_read(line);
        }
    }

    /// What a slot holds for this key.
    fn wanted(key: Key) -> u64 {
        if SLOTS == WORDS { u64::from(key.number) } else { key.hash | 1 }
    }

    fn same(held: u64, wanted: u64) -> bool {
        if SLOTS == WORDS { held & 0xffff_ffff == wanted && held != 0 } else { held == wanted }
    }

    fn used(line: &Line) -> usize {
        line.0.iter().take(SLOTS).filter(|word| word.load(Ordering::Relaxed) != 0).count()
    }

    fn value(line: &Line, slot: usize) -> Option<u16> {
        if SLOTS == WORDS {
            return line.0.get(slot).map(|word| value_of(word.load(Ordering::Acquire)));
        }
        line.0.get(SLOTS + slot).and_then(|word| u16::try_from(word.load(Ordering::Acquire)).ok())
    }

    /// Puts an entry into the first free slot of a line.
    fn put(&self, place: usize, key: Key, value: u16) -> bool {
        let Some(line) = self.lines.get(place) else { return false };
        let free = line.0.iter().take(SLOTS).position(|word| word.load(Ordering::Relaxed) == 0);
        let Some((slot, word_at)) = free.and_then(|slot| Some((slot, line.0.get(slot)?))) else {
            return false;
        };
        if SLOTS == WORDS {
            word_at.store(word(key.number, value), Ordering::Release);
            return true;
        }
        if let Some(place) = line.0.get(SLOTS + slot) {
            place.store(u64::from(value), Ordering::Relaxed);
        }
        word_at.store(Self::wanted(key), Ordering::Release);
        true
    }

    fn first_fit(&self, key: Key, value: u16) -> bool {
        self.places(key.hash).into_iter().any(|place| self.put(place, key, value))
    }

    /// All slots compared, without a branch: the value, and whether an entry may be elsewhere.
    fn masked(&self, place: usize, key: Key) -> (Option<u16>, bool) {
        let Some(line) = self.lines.get(place) else { return (None, false) };
        let wanted = Self::wanted(key);
        let (mut mask, mut full) = (0_u32, true);
        for (slot, word) in line.0.iter().enumerate().take(SLOTS) {
            let held = word.load(Ordering::Acquire);
            mask |= u32::from(Self::same(held, wanted)) << slot;
            full &= held != 0;
        }
        if mask == 0 { (None, full) } else { (Self::value(line, mask.trailing_zeros() as usize), false) }
    }

    /// Slot after slot.
    fn scanned(&self, place: usize, key: Key) -> (Option<u16>, bool) {
        let Some(line) = self.lines.get(place) else { return (None, false) };
        let wanted = Self::wanted(key);
        for (slot, word) in line.0.iter().enumerate().take(SLOTS) {
            let held = word.load(Ordering::Acquire);
            if held == 0 {
                return (None, false);
            }
            if Self::same(held, wanted) {
                return (Self::value(line, slot), false);
            }
        }
        (None, true)
    }

    /// Both lines of each, the second at once if it may hold the entry.
    fn at_once(
        &self,
        keys: &[Key],
        found: &mut [Option<u16>; BURST],
        look: impl Fn(usize, Key) -> (Option<u16>, bool),
    ) {
        keys.iter().for_each(|key| self.prefetch(scale(key.hash, self.lines.len())));
        for (key, found) in keys.iter().zip(found) {
            let [first, second] = self.places(key.hash);
            let (value, elsewhere) = look(first, *key);
            *found = if elsewhere { look(second, *key).0 } else { value };
        }
    }
}

/// Slot after slot, and stop.
pub struct EarlyExit<const SLOTS: usize>(Buckets<SLOTS>);

impl<const SLOTS: usize> Layout for EarlyExit<SLOTS> {
    const NAME: &'static str = "buckets, early exit";

    fn new(entries: usize) -> Self {
        Self(Buckets::new(entries))
    }

    fn insert(&mut self, key: Key, value: u16) -> bool {
        self.0.first_fit(key, value)
    }

    fn find(&self, keys: &[Key], found: &mut [Option<u16>; BURST]) {
        self.0.at_once(keys, found, |place, key| self.0.scanned(place, key));
    }
}

/// All slots at once.
pub struct Mask<const SLOTS: usize>(Buckets<SLOTS>);

impl<const SLOTS: usize> Layout for Mask<SLOTS> {
    const NAME: &'static str = "buckets, mask";

    fn new(entries: usize) -> Self {
        Self(Buckets::new(entries))
    }

    fn insert(&mut self, key: Key, value: u16) -> bool {
        self.0.first_fit(key, value)
    }

    fn find(&self, keys: &[Key], found: &mut [Option<u16>; BURST]) {
        self.0.at_once(keys, found, |place, key| self.0.masked(place, key));
    }
}

/// The same, second lines in a pass of their own.
pub struct Deferred<const SLOTS: usize>(Buckets<SLOTS>);

impl<const SLOTS: usize> Layout for Deferred<SLOTS> {
    const NAME: &'static str = "buckets, mask, second lines deferred";

    fn new(entries: usize) -> Self {
        Self(Buckets::new(entries))
    }

    fn insert(&mut self, key: Key, value: u16) -> bool {
        self.0.first_fit(key, value)
    }

    fn find(&self, keys: &[Key], found: &mut [Option<u16>; BURST]) {
        let buckets = &self.0;
        keys.iter().for_each(|key| buckets.prefetch(scale(key.hash, buckets.lines.len())));
        let (mut later, mut count) = ([0_u8; BURST], 0);
        for (number, (key, found)) in (0..).zip(keys.iter().zip(&mut *found)) {
            let [first, second] = buckets.places(key.hash);
            let (value, elsewhere) = buckets.masked(first, *key);
            *found = value;
            if let Some(later) = later.get_mut(count) {
                *later = number;
            }
            if elsewhere {
                buckets.prefetch(second);
                count += 1;
            }
        }
        for number in later.iter().take(count).map(|number| usize::from(*number)) {
            if let (Some(key), Some(found)) = (keys.get(number), found.get_mut(number)) {
                let [_, second] = buckets.places(key.hash);
                *found = buckets.masked(second, *key).0;
            }
        }
    }
}

/// Into the emptier of two lines; both are read.
pub struct TwoChoices<const SLOTS: usize>(Buckets<SLOTS>);

impl<const SLOTS: usize> Layout for TwoChoices<SLOTS> {
    const NAME: &'static str = "buckets, two choices";

    fn new(entries: usize) -> Self {
        Self(Buckets::new(entries))
    }

    fn insert(&mut self, key: Key, value: u16) -> bool {
        let [first, second] = self.0.places(key.hash);
        let used = |place: usize| self.0.lines.get(place).map_or(SLOTS, Buckets::<SLOTS>::used);
        let emptier = if used(second) < used(first) { second } else { first };
        self.0.put(emptier, key, value)
    }

    fn find(&self, keys: &[Key], found: &mut [Option<u16>; BURST]) {
        for place in keys.iter().flat_map(|key| self.0.places(key.hash)) {
            self.0.prefetch(place);
        }
        for (key, found) in keys.iter().zip(found) {
            let [first, second] = self.0.places(key.hash).map(|place| self.0.masked(place, *key).0);
            *found = first.or(second);
        }
    }
}
