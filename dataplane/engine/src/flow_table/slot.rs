//! One slot of the flow table: how its two words are read together.
//!
//! The proof that no reader sees a torn entry is in the header of [`crate::flow_table`].

use core::hint::spin_loop;

use ipc::lines::Line;
use ipc::sync::{AtomicU64, Ordering};

use crate::flow_entry::{BUSY, EMPTY, FINGERPRINT};

/// Slots in a line.
pub const SLOTS: usize = 4;

/// How often a reader looks at a slot that changes under it.
const READS: usize = if cfg!(loom) { 2 } else { 16 };

/// The slots of a line, each as (A, B).
#[inline]
pub(super) fn slots(line: &Line) -> [(&AtomicU64, &AtomicU64); SLOTS] {
    let [a0, b0, a1, b1, a2, b2, a3, b3] = &line.0;
    [(a0, b0), (a1, b1), (a2, b2), (a3, b3)]
}

/// The slots of a line whose fingerprint is that of `hash`, as bits. Without branches: which slot it is
/// cannot be predicted.
#[inline]
pub(super) fn matching(line: &Line, hash: u64) -> u32 {
    let [m0, m1, m2, m3] =
        slots(line).map(|(a, _)| u32::from((a.load(Ordering::Acquire) ^ hash) & FINGERPRINT == 0));
    m0 | m1 << 1 | m2 << 2 | m3 << 3
}

/// The same by the lowest 32 bits, for a look that compares the rest afterwards.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "only the lowest bits are compared")]
pub(super) fn resembling(line: &Line, hash: u64) -> u32 {
    let [m0, m1, m2, m3] =
        slots(line).map(|(a, _)| u32::from(a.load(Ordering::Acquire) as u32 == hash as u32));
    m0 | m1 << 1 | m2 << 2 | m3 << 3
}

/// Both words of a slot as they stood together, unless they change meanwhile.
#[inline(always)]
pub(super) fn read_once(slot_a: &AtomicU64, slot_b: &AtomicU64) -> Option<(u64, u64)> {
    let a = slot_a.load(Ordering::Acquire);
    let b = slot_b.load(Ordering::Acquire);
    let is_whole = slot_a.load(Ordering::Acquire) == a && slot_b.load(Ordering::Acquire) == b;
    is_whole.then_some((a, b))
}

/// Both words of a slot as they stood together, if A is `wanted` and B holds an entry.
#[inline]
pub(super) fn read(
    slot_a: &AtomicU64,
    slot_b: &AtomicU64,
    wanted: impl Fn(u64) -> bool,
) -> Option<(u64, u64)> {
    for _ in 0..READS {
        let a = slot_a.load(Ordering::Acquire);
        if !wanted(a) {
            return None;
        }
        let b = slot_b.load(Ordering::Acquire);
        if b == EMPTY {
            return None;
        }
        if slot_a.load(Ordering::Acquire) == a && slot_b.load(Ordering::Acquire) == b && b != BUSY {
            return Some((a, b));
        }
        spin_loop();
    }
    None
}
