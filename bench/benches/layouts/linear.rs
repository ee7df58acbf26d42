//! Linear probing: one word after the other until the entry or an empty one. Lost: above half load a miss reads line
//! after line.

use ipc::lines::{Lines, WORDS, prefetch_read};
use ipc::sync::Ordering;

use crate::{BURST, Key, Layout};

/// Slots for so many entries, at the load the real table stands at: 8 words of 13 bytes each in 64.
fn slots(entries: usize, words: usize) -> usize {
    entries * 13 / 8 * words
}

/// Where a hash begins, of so many places.
pub fn scale(hash: u64, count: usize) -> usize {
    usize::try_from((u128::from(hash) * count as u128) >> 64).unwrap_or(0)
}

/// A word that holds a token and its value.
pub fn word(number: u32, value: u16) -> u64 {
    u64::from(value) << 32 | u64::from(number)
}

/// The value of a word.
pub fn value_of(word: u64) -> u16 {
    u16::try_from(word >> 32 & 0xffff).unwrap_or(0)
}

/// One word an entry: tokens.
pub struct Words {
    lines: Lines,
    slots: usize,
}

impl Words {
    fn load(&self, slot: usize) -> u64 {
        self.lines.word(slot).map_or(0, |word| word.load(Ordering::Acquire))
    }
}

impl Layout for Words {
    const NAME: &'static str = "linear probing";

    fn new(entries: usize) -> Self {
        let slots = slots(entries, 1);
        Self { lines: Lines::heap(slots.div_ceil(WORDS)), slots }
    }

    fn insert(&mut self, key: Key, value: u16) -> bool {
        let first = scale(key.hash, self.slots);
        let mut slot = (first..self.slots).chain(0..first).filter(|slot| self.load(*slot) == 0);
        let Some(free) = slot.next().and_then(|slot| self.lines.word(slot)) else { return false };
        free.store(word(key.number, value), Ordering::Release);
        true
    }

    fn find(&self, keys: &[Key], found: &mut [Option<u16>; BURST]) {
        for key in keys {
            if let Some(line) = self.lines.get(scale(key.hash, self.slots) / WORDS) {
                prefetch_read(line);
            }
        }
        for (key, found) in keys.iter().zip(found) {
            let first = scale(key.hash, self.slots);
            let words = (first..self.slots).chain(0..first).map(|slot| self.load(slot));
            let mut until = words.take_while(|word| *word != 0);
            *found = until.find(|word| word & 0xffff_ffff == u64::from(key.number)).map(value_of);
        }
    }
}

/// Two words an entry, the hash and the value: flows.
pub struct Pairs {
    lines: Lines,
    slots: usize,
}

impl Pairs {
    fn load(&self, slot: usize) -> u64 {
        self.lines.word(2 * slot).map_or(0, |word| word.load(Ordering::Acquire))
    }
}

impl Layout for Pairs {
    const NAME: &'static str = "linear probing";

    fn new(entries: usize) -> Self {
        let slots = entries * 5 / 3;
        Self { lines: Lines::heap((2 * slots).div_ceil(WORDS)), slots }
    }

    fn insert(&mut self, key: Key, value: u16) -> bool {
        let first = scale(key.hash, self.slots);
        let mut slot = (first..self.slots).chain(0..first).filter(|slot| self.load(*slot) == 0);
        let Some(slot) = slot.next() else { return false };
        let [Some(hash), Some(place)] = [2 * slot, 2 * slot + 1].map(|at| self.lines.word(at)) else {
            return false;
        };
        place.store(u64::from(value), Ordering::Relaxed);
        hash.store(key.hash | 1, Ordering::Release);
        true
    }

    fn find(&self, keys: &[Key], found: &mut [Option<u16>; BURST]) {
        for key in keys {
            if let Some(line) = self.lines.get(2 * scale(key.hash, self.slots) / WORDS) {
                prefetch_read(line);
            }
        }
        for (key, found) in keys.iter().zip(found) {
            let first = scale(key.hash, self.slots);
            let mut slots = (first..self.slots)
                .chain(0..first)
                .map(|slot| (slot, self.load(slot)))
                .take_while(|(_, hash)| *hash != 0);
            let slot = slots.find(|(_, hash)| *hash == key.hash | 1).map(|(slot, _)| slot);
            let value = slot.and_then(|slot| self.lines.word(2 * slot + 1));
            *found = value.and_then(|value| u16::try_from(value.load(Ordering::Acquire)).ok());
        }
    }
}
