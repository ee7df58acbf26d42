//! Moves of entries between their primary and their alternate line: to make room, and home again.
//!
//! Why both are needed: [`crate::place`]. Why no reader misses an entry that moves, and no update is lost: the
//! header of [`crate::flow_table`], and `tests/loom_flow_table.rs`.

use ipc::sync::Ordering;

use super::slot::{SLOTS, read, slots};
use super::{ATTEMPTS, FlowTable};
use crate::flow_entry::{BUSY, EMPTY, FINGERPRINT, FlowEntry, IN_ALTERNATE};
use crate::lifetimes::Room;

impl FlowTable {
    /// Moves an entry out of one of the two full lines of `hash`; its old slot is ours then.
    #[inline(never)]
    pub(super) fn make_room<U>(&self, hash: u64, room: &Room<'_, U>) -> Option<usize>
    where
        U: Fn(&FlowEntry) -> bool,
    {
        for number in self.places.candidates(hash, false) {
            for (slot, (a, b)) in slots(self.places.line(number)?).into_iter().enumerate() {
                let Some((a, b)) = read(a, b, |a| a & IN_ALTERNATE == 0) else {
                    continue;
                };
                let Some((to, held)) = self.free_slot(self.places.alternate_of(number, a), room) else {
                    continue;
                };
                let from = number * SLOTS + slot;
                if self.move_entry(from, (a, b), to, held, BUSY) {
                    return Some(from);
                }
            }
        }
        None
    }

    /// Moves an entry from its alternate line to its primary line, if there is an empty slot.
    pub(super) fn bring_home(&self, from: usize, words: (u64, u64)) {
        let home = self.places.home(from / SLOTS, words.0);
        let Some(line) = self.places.line(home) else {
            return;
        };
        let empty = slots(line).iter().position(|(_, b)| b.load(Ordering::Relaxed) == EMPTY);
        if let Some(slot) = empty {
            self.move_entry(from, words, home * SLOTS + slot, EMPTY, EMPTY);
        }
    }

    /// Moves an entry between its primary and its alternate line: to the slot `to`, whose word B is `held`.
    /// What is left at `from` is `after`: an empty slot, or one that is ours. Says whether that was done.
    fn move_entry(&self, from: usize, (a, mut b): (u64, u64), to: usize, held: u64, after: u64) -> bool {
        let (Some((from_a, from_b)), Some((to_a, to_b))) = (self.slot(from), self.slot(to)) else {
            return false;
        };
        if !self.claim_slot(to, held) {
            return false;
        }
        to_a.store(a ^ IN_ALTERNATE, Ordering::Release);
        to_b.store(b, Ordering::Release);
        for _ in 0..ATTEMPTS {
            if from_b.compare_exchange(b, after, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return true;
            }
            // Changed meanwhile. Gone or opened anew: then it decides, and the copy goes. Else the copy
            // follows, unless it was found and changed itself: then one of the two goes, as after two
            // inserts. Where the copy gave way to another flow meanwhile, the entry stays where it was.
            let Some((_, newer)) = read(from_a, from_b, |now| now == a) else {
                break;
            };
            if to_b.compare_exchange(b, newer, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                if read(to_a, to_b, |now| (now ^ a) & FINGERPRINT == 0).is_some() {
                    self.drop_duplicate(if a & IN_ALTERNATE == 0 { to } else { from }, a);
                }
                return false;
            }
            b = newer;
        }
        self.release(to, b);
        false
    }
}
