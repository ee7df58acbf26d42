//! A ring of fixed-size records from one process to another: single producer, single consumer.
//!
//! Why it exists: commands and events cross a process boundary without a system call, and the other side may
//! be corrupt or hostile. Ready-made rings live on one process's heap and trust both sides.
//!
//! Memory, in lines of 64 bytes: line 0 belongs to the producer (word 0: `filled`), line 1 to the consumer
//! (word 0: `freed`), lines 2 and on are slots of whole lines. Cursors count records from the ring's reset and
//! never wrap in practice (64 bits); slot = cursor modulo the number of slots, a power of two.
//!
//! Who may do what (anything else by a peer is an error, [`BadCursor`], and the end of the link):
//!
//! | cursor   | moved by      | from, to                        | never                                        |
//! |----------|---------------|---------------------------------|----------------------------------------------|
//! | `filled` | the producer  | forward, at most `freed + slots` | backward: it would take records back         |
//! | `freed`  | the consumer  | forward, at most `filled`        | past `filled`: it would free unwritten slots |
//! | both     | the data plane | to 0, when it grants an attach  | while the peer holds the grant               |
//!
//! Each side keeps its own cursor in its own memory and never reads it back from the ring, reads the peer's
//! cursor once into a local, checks the distance, and uses the local (the cached remote cursor of MCRingBuffer:
//! Lee, Bu, Chandranmenon, "A lock-free, cache-efficient multi-core synchronization mechanism", 2010). A record
//! is copied out before it is looked at.
//!
//! Orderings, by name: `FILLED` (Release in [`Producer::publish`], Acquire in [`Consumer::pop`]) makes the
//! words of records visible before the cursor that announces them. `FREED` (Release in [`Consumer::release`],
//! Acquire in [`Producer::push`]) makes the consumer's reads happen before the words are overwritten. The
//! words themselves are relaxed atomics: a peer that breaks the rules gives wrong values, which the decoder
//! refuses, and not undefined behaviour. So this file needs no unsafe code.

use crate::lines::{Lines, WORDS};
use crate::sync::{AtomicU64, Ordering};

/// Lines in front of the slots.
pub const HEAD_LINES: usize = 2;

/// Word of the producer's cursor.
const FILLED: usize = 0;
/// Word of the consumer's cursor.
const FREED: usize = WORDS;

/// The peer's cursor is somewhere no honest peer could have moved it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's ring cursor is impossible")]
pub struct BadCursor;

/// Why a record was not pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The consumer has not freed a slot yet: try again later.
    #[error("the ring is full")]
    Full,
    /// The consumer is corrupt.
    #[error(transparent)]
    Peer(#[from] BadCursor),
}

/// Lines that a ring of `slots` records of `W` words takes.
pub const fn lines_for<const W: usize>(slots: usize) -> usize {
    HEAD_LINES + slots * W.div_ceil(WORDS)
}

/// Memory, cut to slots.
#[derive(Debug)]
struct Slots<const W: usize> {
    memory: Lines,
    /// Number of slots minus one; the number is a power of two.
    mask: u64,
}

impl<const W: usize> Slots<W> {
    /// All of `memory` as a ring; `None` unless it has exactly a power of two of slots.
    fn new(memory: Lines) -> Option<Self> {
        let slots = memory.len().checked_sub(HEAD_LINES)? / W.div_ceil(WORDS);
        let mask = u64::try_from(slots).ok()?.checked_sub(1)?;
        (slots.is_power_of_two() && memory.len() == lines_for::<W>(slots)).then_some(Slots { memory, mask })
    }

    fn capacity(&self) -> u64 {
        self.mask + 1
    }

    fn cursor(&self, word: usize) -> Option<&AtomicU64> {
        self.memory.word(word)
    }

    /// The words of the slot that `cursor` falls into.
    fn words(&self, cursor: u64) -> impl Iterator<Item = &AtomicU64> {
        // The mask came from a usize, so the slot fits one.
        let slot = usize::try_from(cursor & self.mask).unwrap_or_default();
        let first = HEAD_LINES + slot * W.div_ceil(WORDS);
        self.memory.iter().skip(first).flat_map(|line| line.0.iter()).take(W)
    }
}

/// Takes both cursors back to the start. Only for the owner of the ring, while no peer holds it.
pub fn reset(memory: &Lines) {
    for word in [FILLED, FREED] {
        if let Some(cursor) = memory.word(word) {
            cursor.store(0, Ordering::Release);
        }
    }
}

/// The side that writes.
#[derive(Debug)]
pub struct Producer<const W: usize> {
    slots: Slots<W>,
    /// Records pushed, published or not.
    filled: u64,
    /// Records published.
    published: u64,
    /// The peer's cursor as last seen and checked; it is never behind this.
    freed: u64,
}

impl<const W: usize> Producer<W> {
    /// The producer of a ring that was just reset; `None` when the memory is no ring of such records.
    pub fn new(memory: Lines) -> Option<Self> {
        Some(Producer { slots: Slots::new(memory)?, filled: 0, published: 0, freed: 0 })
    }

    /// Writes a record where the consumer does not look yet.
    pub fn push(&mut self, record: &[u64; W]) -> Result<(), PushError> {
        if self.filled - self.freed >= self.slots.capacity() {
            self.freed = self.look()?;
            if self.filled - self.freed >= self.slots.capacity() {
                return Err(PushError::Full);
            }
        }
        for (to, &from) in self.slots.words(self.filled).zip(record) {
            to.store(from, Ordering::Relaxed);
        }
        self.filled += 1;
        Ok(())
    }

    /// Makes all pushed records visible, with one store.
    pub fn publish(&mut self) {
        if self.published != self.filled {
            self.published = self.filled;
            if let Some(cursor) = self.slots.cursor(FILLED) {
                // FILLED: the records' words are visible to the consumer that loads this value.
                cursor.store(self.filled, Ordering::Release);
            }
        }
    }

    /// The consumer's cursor, checked: between what was seen before and what was published.
    fn look(&self) -> Result<u64, BadCursor> {
        // FREED: the consumer has read the slots before this value, so they may be written.
        let freed = self.slots.cursor(FREED).ok_or(BadCursor)?.load(Ordering::Acquire);
        if freed >= self.freed && freed <= self.published { Ok(freed) } else { Err(BadCursor) }
    }
}

/// The side that reads.
#[derive(Debug)]
pub struct Consumer<const W: usize> {
    slots: Slots<W>,
    /// Records popped, released or not.
    freed: u64,
    /// Records released.
    released: u64,
    /// The peer's cursor as last seen and checked.
    filled: u64,
}

impl<const W: usize> Consumer<W> {
    /// The consumer of a ring that was just reset; `None` when the memory is no ring of such records.
    pub fn new(memory: Lines) -> Option<Self> {
        Some(Consumer { slots: Slots::new(memory)?, freed: 0, released: 0, filled: 0 })
    }

    /// Copies the next record out, if there is one.
    pub fn pop(&mut self) -> Result<Option<[u64; W]>, BadCursor> {
        if self.freed == self.filled {
            self.filled = self.look()?;
            if self.freed == self.filled {
                return Ok(None);
            }
        }
        let mut record = [0; W];
        for (to, from) in record.iter_mut().zip(self.slots.words(self.freed)) {
            *to = from.load(Ordering::Relaxed);
        }
        self.freed += 1;
        Ok(Some(record))
    }

    /// Gives the slots of all popped records back, with one store.
    pub fn release(&mut self) {
        if self.released != self.freed {
            self.released = self.freed;
            if let Some(cursor) = self.slots.cursor(FREED) {
                // FREED: our reads of the slots happen before the producer that loads this value writes them.
                cursor.store(self.freed, Ordering::Release);
            }
        }
    }

    /// The producer's cursor, checked: not behind what was seen, not further than the slots we gave it.
    fn look(&self) -> Result<u64, BadCursor> {
        // FILLED: the words of every record before this value are visible.
        let filled = self.slots.cursor(FILLED).ok_or(BadCursor)?.load(Ordering::Acquire);
        if filled >= self.filled && filled - self.released <= self.slots.capacity() {
            Ok(filled)
        } else {
            Err(BadCursor)
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn ring(slots: usize) -> (Producer<3>, Consumer<3>, Lines) {
        let memory = Lines::heap(lines_for::<3>(slots));
        (Producer::new(memory.clone()).unwrap(), Consumer::new(memory.clone()).unwrap(), memory)
    }

    #[test]
    fn memory_of_another_size_is_no_ring() {
        for lines in [0, 1, HEAD_LINES, lines_for::<32>(4) + 1, lines_for::<32>(3)] {
            assert!(Producer::<32>::new(Lines::heap(lines)).is_none(), "{lines}");
            assert!(Consumer::<32>::new(Lines::heap(lines)).is_none(), "{lines}");
        }
        assert!(Producer::<32>::new(Lines::heap(lines_for::<32>(4))).is_some());
    }

    #[test]
    fn what_is_pushed_is_seen_only_once_published() {
        let (mut producer, mut consumer, _) = ring(4);
        producer.push(&[1, 2, 3]).unwrap();
        assert_eq!(consumer.pop(), Ok(None));
        producer.publish();
        assert_eq!(consumer.pop(), Ok(Some([1, 2, 3])));
        assert_eq!(consumer.pop(), Ok(None));
    }

    #[test]
    fn a_full_ring_takes_no_more_until_slots_are_released() {
        let (mut producer, mut consumer, _) = ring(2);
        producer.push(&[1; 3]).unwrap();
        producer.push(&[2; 3]).unwrap();
        assert_eq!(producer.push(&[3; 3]), Err(PushError::Full));
        producer.publish();
        assert_eq!(consumer.pop(), Ok(Some([1; 3])));
        assert_eq!(producer.push(&[3; 3]), Err(PushError::Full), "popped, but not released");
        consumer.release();
        producer.push(&[3; 3]).unwrap();
        producer.publish();
        assert_eq!(consumer.pop(), Ok(Some([2; 3])));
        assert_eq!(consumer.pop(), Ok(Some([3; 3])));
    }

    #[test]
    fn a_producer_that_claims_more_than_the_ring_holds_is_found_out() {
        let (_, mut consumer, memory) = ring(4);
        memory.word(FILLED).unwrap().store(5, Ordering::Relaxed);
        assert_eq!(consumer.pop(), Err(BadCursor));
    }

    #[test]
    fn a_producer_that_takes_records_back_is_found_out() {
        let (mut producer, mut consumer, memory) = ring(4);
        for _ in 0..2 {
            producer.push(&[0; 3]).unwrap();
        }
        producer.publish();
        assert!(consumer.pop().unwrap().is_some());
        assert!(consumer.pop().unwrap().is_some());
        memory.word(FILLED).unwrap().store(1, Ordering::Relaxed);
        assert_eq!(consumer.pop(), Err(BadCursor));
    }

    #[test]
    fn a_consumer_that_frees_unpublished_slots_is_found_out() {
        let (mut producer, _, memory) = ring(2);
        producer.push(&[0; 3]).unwrap();
        producer.publish();
        producer.push(&[0; 3]).unwrap();
        memory.word(FREED).unwrap().store(2, Ordering::Relaxed);
        assert_eq!(producer.push(&[0; 3]), Err(PushError::Peer(BadCursor)));
    }

    #[test]
    fn a_consumer_that_goes_backward_is_found_out() {
        let (mut producer, mut consumer, memory) = ring(2);
        for _ in 0..3 {
            producer.push(&[0; 3]).unwrap();
            producer.publish();
            consumer.pop().unwrap();
            consumer.release();
        }
        producer.push(&[0; 3]).unwrap();
        memory.word(FREED).unwrap().store(0, Ordering::Relaxed);
        assert_eq!(producer.push(&[0; 3]), Err(PushError::Peer(BadCursor)));
    }

    #[test]
    fn a_reset_ring_starts_over() {
        let (mut producer, _, memory) = ring(2);
        producer.push(&[7; 3]).unwrap();
        producer.publish();
        reset(&memory);
        let mut consumer = Consumer::<3>::new(memory.clone()).unwrap();
        assert_eq!(consumer.pop(), Ok(None));
        let mut producer = Producer::<3>::new(memory).unwrap();
        producer.push(&[8; 3]).unwrap();
        producer.publish();
        assert_eq!(consumer.pop(), Ok(Some([8; 3])));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None,
            cases: if cfg!(miri) { 8 } else { 256 }, ..ProptestConfig::default() })]

        #[test]
        fn it_behaves_like_a_queue(steps in prop::collection::vec(0..4_u8, 0..200)) {
            let (mut producer, mut consumer, _) = ring(4);
            let (mut pushed, mut visible) = (VecDeque::new(), VecDeque::new());
            let (mut next, mut unreleased) = (0_u64, 0);
            for step in steps {
                match step {
                    0 => {
                        let fits = pushed.len() + visible.len() + unreleased < 4;
                        prop_assert_eq!(producer.push(&[next; 3]).is_ok(), fits);
                        if fits { pushed.push_back(next); next += 1; }
                    }
                    1 => { producer.publish(); visible.append(&mut pushed); }
                    2 => {
                        let expected = visible.pop_front();
                        unreleased += usize::from(expected.is_some());
                        prop_assert_eq!(consumer.pop(), Ok(expected.map(|value| [value; 3])));
                    }
                    _ => { consumer.release(); unreleased = 0; }
                }
            }
        }
    }
}
