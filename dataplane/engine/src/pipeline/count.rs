//! Stage 4: one pass over the verdicts, adding to the worker's counters.

use ipc::counter::Counter;

use super::{Context, Slot};
use crate::frames::{Frames, places};
use crate::verdict::Action;

/// Counts a judged burst by reason, VIP (bytes as received) and backend (bytes as sent).
pub(super) fn burst<F: Frames>(slots: &[Slot], which: u64, frames: &F, cx: &Context<'_>) {
    let mut bytes_all = 0;
    for index in places(which) {
        let Some(slot) = slots.get(index) else { return };
        let verdict = &slot.verdict;
        let bytes = slot.received as u64;
        bytes_all += bytes;
        match verdict.action {
            Action::Punt => cx.counters.add(Counter::Punted, 1),
            _ => cx.counters.reason(verdict.reason, 1),
        }
        if let Some(vip) = verdict.vip {
            cx.counters.vip(vip, 1, bytes);
        }
        if let Some(backend) = verdict.backend {
            cx.counters.backend(backend, 1, frames.wire_len(index) as u64);
        }
    }
    cx.counters.add(Counter::RxPackets, u64::from(which.count_ones()));
    cx.counters.add(Counter::RxBytes, bytes_all);
}
