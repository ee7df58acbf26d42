//! The packet path never allocates: counted by the allocator itself, over ten thousand bursts of every kind of
//! packet, the sweep included.
//!
//! The one place in the tests with `unsafe`: an allocator must be. It only counts and hands on.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use engine::frames::Frames;
use engine::pipeline::{Context, Pipeline};
use engine::sweep::{LINES_PER_CALL, Sweeper};
use engine::tick::Tick;
use ipc::counter::Counter;
use ipc::id::PortId;
use ipc::limits::BURST;
use ipc::reason::Reason;
use support::frames::FixedFrames;
use support::{Random, World, mixed};

thread_local! {
    /// Calls of this thread to the allocator. Per thread, so that the test harness does not count.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counted.
struct Counting;

fn count() {
    // Without a destructor the cell is there as long as its thread, so this never fails; where it did, a call
    // would go uncounted, not wrong.
    let _ = CALLS.try_with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: every call goes to `System` with the caller's own arguments, so what the caller promises holds there and
// what `System` promises holds here. Counting touches a thread-local without a destructor and never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is the one `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count();
        // SAFETY: `block` came from `System`, through this allocator, with this layout: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as for `dealloc`; the caller promises that `size` is not zero and fits.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bursts to be judged.
const BURSTS: usize = 10_000;
/// Different frames they are made of.
const FRAMES: usize = 8192;

/// Judges the bursts; gives how often the allocator was called meanwhile.
fn judge(world: &World, frames: &[Vec<u8>], random: &mut Random) -> u64 {
    let mut pipeline = Pipeline::default();
    let mut sweeper = Sweeper::new(0, 1);
    let mut burst = FixedFrames::new(128);
    let mut judged = 0;
    let before = CALLS.get();
    for number in 0..BURSTS {
        burst.clear();
        for _ in 0..=random.below(BURST - 1) {
            burst.push(&frames[random.below(frames.len())]);
        }
        let milliseconds = number as u64 * 50;
        let cx = Context {
            snapshot: &world.snapshot,
            tables: &world.tables,
            counters: &world.counters,
            now: Tick::from_seconds(milliseconds / 1000),
            millis: milliseconds,
            port: PortId(0),
        };
        judged += pipeline.process(&mut burst, &cx).verdicts().count();
        assert_eq!(burst.len(), burst.len().min(BURST));
        while sweeper.advance(milliseconds, LINES_PER_CALL, &cx) {}
    }
    let calls = CALLS.get() - before;
    assert!(judged > BURSTS, "{judged} packets judged");
    calls
}

#[test]
fn ten_thousand_bursts_of_every_kind_allocate_nothing() {
    let world = mixed::world();
    let mut random = Random(0xa110c);
    let frames: Vec<Vec<u8>> = (0..FRAMES).map(|_| mixed::frame(&mut random)).collect();
    assert_eq!(judge(&world, &frames, &mut random), 0, "calls to the allocator");

    let reader = world.counters.reader();
    let reasons =
        [Reason::Flow, Reason::Hash, Reason::Token, Reason::Arp, Reason::Neighbour, Reason::TokenReset];
    let rare = [Reason::Related, Reason::Fragment, Reason::Echo, Reason::TooBigTold, Reason::BadIcmp];
    for reason in reasons.into_iter().chain(rare) {
        assert!(reader.reason(reason) > 100, "{reason}: {}", reader.reason(reason));
    }
    for counter in
        [Counter::TokenLearned, Counter::JoinEstablished, Counter::FlowExpired, Counter::TokenClosing]
    {
        assert!(reader.counter(counter) > 0, "{counter} never moved");
    }
    for text in ["tunnel", "gue", "gue-four"] {
        let vip = world.model.vips().iter().find(|vip| vip.name.as_str() == text).map(|vip| vip.id).unwrap();
        assert!(reader.vip(vip).packets > 1000, "packets to {text}");
    }
}

/// What this file asserts is worth nothing if the allocator does not count.
#[test]
fn the_allocator_counts() {
    let before = CALLS.get();
    let some = std::hint::black_box(vec![1_u8; 100]);
    assert_eq!(some.len(), 100);
    assert!(CALLS.get() > before);
}
