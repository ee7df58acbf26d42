//! The ring under the loom model checker: every interleaving, every value a relaxed load may see.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test --release -p ipc --test loom_ring`
//!
//! Bound: two threads, a ring of two slots of two words, three or four records, at most three preemptions:
//! each slot is used twice. Weaken any one of the four FILLED and FREED orderings to relaxed and a model
//! fails within two preemptions; the third costs less than a second.
//!
//! Blind spots: a ring between threads stands for one between processes. loom does not explore load buffering,
//! which is what a lost FREED would do to the words of a slot; so the last model checks FREED by what it must
//! make visible. The ring uses no SeqCst. Longer runs and other sizes are the property test's.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ipc::lines::Lines;
use ipc::ring::{Consumer, Producer, PushError, lines_for};
use ipc::sync::Ordering;
use loom::thread;

const SLOTS: usize = 2;

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn ring() -> (Producer<2>, Consumer<2>) {
    let memory = Lines::heap(lines_for::<2>(SLOTS));
    (Producer::new(memory.clone()).unwrap(), Consumer::new(memory).unwrap())
}

fn push(producer: &mut Producer<2>, value: u64) {
    while let Err(error) = producer.push(&[value, !value]) {
        assert_eq!(error, PushError::Full, "an honest peer's cursor is never refused");
        thread::yield_now();
    }
}

fn pop(consumer: &mut Consumer<2>) -> u64 {
    loop {
        if let Some([value, check]) = consumer.pop().unwrap() {
            assert_eq!(check, !value, "the record is whole");
            return value;
        }
        thread::yield_now();
    }
}

#[test]
fn records_arrive_whole_in_order_and_once_when_slots_are_reused() {
    check(|| {
        let (mut producer, mut consumer) = ring();
        let writer = thread::spawn(move || {
            for value in 1..=3 {
                push(&mut producer, value);
                producer.publish();
            }
        });
        for value in 1..=3 {
            assert_eq!(pop(&mut consumer), value);
            consumer.release();
        }
        assert_eq!(consumer.pop(), Ok(None));
        writer.join().unwrap();
    });
}

#[test]
fn a_batch_published_with_one_store_is_seen_whole_or_not_at_all() {
    check(|| {
        let (mut producer, mut consumer) = ring();
        let writer = thread::spawn(move || {
            push(&mut producer, 1);
            push(&mut producer, 2);
            producer.publish();
        });
        if let Some([first, _]) = consumer.pop().unwrap() {
            assert_eq!(first, 1);
            assert_eq!(consumer.pop(), Ok(Some([2, !2])));
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_ring_given_back_late_holds_the_producer_up_but_loses_nothing() {
    check(|| {
        let (mut producer, mut consumer) = ring();
        let writer = thread::spawn(move || {
            for value in 1..=4 {
                push(&mut producer, value);
                if value % 2 == 0 {
                    producer.publish();
                }
            }
        });
        for value in 1..=4 {
            assert_eq!(pop(&mut consumer), value);
            if value % 2 == 0 {
                consumer.release();
            }
        }
        writer.join().unwrap();
    });
}

#[test]
fn what_the_consumer_did_before_a_release_is_seen_by_the_producer_that_reuses_the_slot() {
    check(|| {
        let (mut producer, mut consumer) = ring();
        let notes = Lines::heap(1);
        let read = notes.clone();
        let writer = thread::spawn(move || {
            for value in 1..=3_usize {
                push(&mut producer, u64::try_from(value).unwrap());
                producer.publish();
                if let Some(last_in_slot) = value.checked_sub(SLOTS) {
                    let note = read[0].0[value % SLOTS].load(Ordering::Relaxed);
                    assert!(note >= u64::try_from(last_in_slot).unwrap(), "the slot was still being read");
                }
            }
        });
        for value in 1..=3_usize {
            assert_eq!(pop(&mut consumer), u64::try_from(value).unwrap());
            notes[0].0[value % SLOTS].store(u64::try_from(value).unwrap(), Ordering::Relaxed);
            consumer.release();
        }
        writer.join().unwrap();
    });
}
