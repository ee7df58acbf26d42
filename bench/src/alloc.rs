//! The allocator of the bench: counts, and puts what is large on huge pages.
//!
//! Why it exists: "no allocation on the packet path" is a figure like any other, so it is counted where it is measured.
//! And frames that lie on small pages would measure the TLB: a port's mbufs lie on huge pages, so buffers of the bench
//! are given to the kernel for transparent ones.
//!
//! The count is each thread's own, so that a test that allocates does not disturb another.
#![expect(
    unsafe_code,
    reason = "an allocator is unsafe by its nature, and this is the bench's only unsafe file"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use rustix::mm::Advice;

/// Bytes of a huge page, and the size from which an allocation asks for them.
const HUGE: usize = 2 << 20;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has allocated, or changed the size of an allocation.
pub fn count() -> u64 {
    // A thread that is ending has no count any more, and nobody asks.
    COUNT.try_with(Cell::get).unwrap_or(0)
}

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn note() {
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

/// How this allocation is asked of the system: a large one begins at a huge page.
fn asked(layout: Layout) -> Layout {
    if layout.size() < HUGE {
        return layout;
    }
    layout.align_to(HUGE).unwrap_or(layout)
}

/// Asks for transparent huge pages under the whole huge pages of a large allocation.
fn advise(start: *mut u8, layout: Layout) {
    if layout.align() < HUGE || start.is_null() {
        return;
    }
    let bytes = layout.size() / HUGE * HUGE;
    // SAFETY: the range lies within the allocation just made, begins at a page (its alignment), and this advice
    // changes which pages back it, never its contents. Refused advice costs speed only.
    let _ = unsafe { rustix::mm::madvise(start.cast(), bytes, Advice::LinuxHugepage) };
}

// SAFETY: every call goes to `System` with one layout for each allocation's whole life: `asked` gives the same for the
// same argument, at least as much and as aligned as the caller asked for. Counting neither allocates (the cell is
// initialised by a constant and has no destructor) nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        let layout = asked(layout);
        // SAFETY: the layout has a size above zero by this function's contract.
        let start = unsafe { System.alloc(layout) };
        advise(start, layout);
        start
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let layout = asked(layout);
        if layout.align() < HUGE {
            note();
            // SAFETY: as in `alloc`.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // The advice must come before the first touch.
        // SAFETY: as in `alloc`.
        let start = unsafe { self.alloc(layout) };
        if !start.is_null() {
            // SAFETY: `start` is the beginning of at least `layout.size()` writable bytes.
            unsafe { start.write_bytes(0, layout.size()) };
        }
        start
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: by this function's contract `start` came from this allocator with this layout, so from `System` with
        // what `asked` makes of it.
        unsafe { System.dealloc(start, asked(layout)) };
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (before, after) = (asked(layout), Layout::from_size_align(size, layout.align()));
        let Ok(wanted) = after else { return core::ptr::null_mut() };
        if before.align() < HUGE && asked(wanted).align() < HUGE {
            note();
            // SAFETY: `System` gave this allocation with `layout` unchanged, and the new size fits a layout.
            return unsafe { System.realloc(start, layout, size) };
        }
        // SAFETY: the wanted layout has a size above zero by this function's contract.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both allocations are live, apart, and hold at least the smaller of the two sizes.
            unsafe { moved.copy_from_nonoverlapping(start, layout.size().min(size)) };
            // SAFETY: by this function's contract, `start` came from this allocator with this layout.
            unsafe { self.dealloc(start, layout) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_counts_and_arithmetic_does_not() {
        let before = count();
        let sum: u64 = (0..std::hint::black_box(1000)).sum();
        assert_eq!(count(), before, "{sum}");
        let mut numbers = std::hint::black_box(vec![0_u64]);
        assert_eq!(count(), before + 1);
        numbers.reserve_exact(1 << 20);
        assert_eq!(count(), before + 2);
    }

    #[test]
    fn what_is_large_begins_at_a_huge_page_and_keeps_its_bytes_when_it_grows() {
        let mut bytes = vec![0_u8; HUGE];
        assert_eq!(bytes.as_ptr().addr() % HUGE, 0);
        bytes.iter_mut().zip((0..=250).cycle()).for_each(|(byte, value)| *byte = value);
        bytes.resize(3 * HUGE, 7);
        assert_eq!(bytes.as_ptr().addr() % HUGE, 0);
        assert!(bytes.iter().zip((0..=250).cycle()).take(HUGE).all(|(byte, value)| *byte == value));
        assert!(bytes.iter().skip(HUGE).all(|byte| *byte == 7));
        bytes.truncate(10);
        bytes.shrink_to_fit();
        assert_eq!(bytes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}
