//! How a flow gets into the table: which slot it takes, and what makes sure that it has one entry only.
//!
//! The protocol, and why live entries may give way under readers, are in the header of [`crate::flow_table`];
//! `tests/loom_flow_table.rs` checks it.

use ipc::sync::{Ordering, fence};

use super::slot::{SLOTS, matching, read, slots};
use super::{ATTEMPTS, FlowTable, Found, Inserted};
use crate::flow_entry::{BUSY, EMPTY, FINGERPRINT, FlowEntry, IN_ALTERNATE};
use crate::lifetimes::{Beside, Class, Room, Worth};
use crate::place::Spot;

/// What became of the search for a free slot.
enum Claim {
    /// The slot at this place is ours, and busy.
    Ours(usize),
    /// The same, and what gave way was of this class.
    Taken(usize, Class),
    /// Somebody else was faster.
    Lost,
    /// Every candidate line is full.
    Full,
}

impl FlowTable {
    /// Enters a flow, over an expired entry where need be, or over one that gives way to it where there is no room.
    pub fn insert<U>(&self, hash: u64, entry: FlowEntry, room: &Room<'_, U>) -> Inserted
    where
        U: Fn(&FlowEntry) -> bool,
    {
        for _ in 0..ATTEMPTS {
            if let Some(found) = self.find(hash) {
                if !room.is_over(found.b) {
                    return Inserted::Existing(found);
                }
                if self.claim_slot(found.place, found.b) {
                    return self.publish(found.place, hash, entry);
                }
                continue;
            }
            if let Some(inserted) = self.claim_and_publish(hash, entry, room) {
                return inserted;
            }
        }
        Inserted::Full
    }

    /// The same for a flow that was looked for a moment ago and not found, without looking again before. If another
    /// worker entered it since, one of the two entries goes, as always: the one that comes later in the order of search.
    pub fn insert_absent<U>(&self, hash: u64, entry: FlowEntry, room: &Room<'_, U>) -> Inserted
    where
        U: Fn(&FlowEntry) -> bool,
    {
        let first = self.enter_first_line(&self.places.spot(hash), entry);
        first.unwrap_or_else(|| self.insert_elsewhere(hash, entry, room))
    }

    /// The same where the first line has no empty slot.
    pub(crate) fn insert_elsewhere<U>(&self, hash: u64, entry: FlowEntry, room: &Room<'_, U>) -> Inserted
    where
        U: Fn(&FlowEntry) -> bool,
    {
        let inserted = self.claim_and_publish(hash, entry, room);
        inserted.unwrap_or_else(|| self.insert(hash, entry, room))
    }

    /// Fills an empty slot of a flow's first line, as nearly every insert does. `None`: there is none, or it was lost to
    /// somebody else.
    #[inline(always)]
    pub(crate) fn enter_first_line(&self, spot: &Spot, entry: FlowEntry) -> Option<Inserted> {
        let pairs = self.places.line(spot.primary)?.0.as_chunks::<2>().0;
        // Relaxed: the compare-exchange that follows decides.
        let slot = pairs.iter().position(|[_, b]| b.load(Ordering::Relaxed) == EMPTY)?;
        let [slot_a, slot_b] = pairs.get(slot)?;
        // Without `claim_slot`: the first line is none of the overflow area, whose slots are counted.
        slot_b.compare_exchange(EMPTY, BUSY, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        let (a, b) = (entry.word_a(spot.hash), entry.word_b());
        slot_a.store(a, Ordering::Release);
        slot_b.store(b, Ordering::Release);
        let new = Found { place: spot.primary * SLOTS + slot, entry, hash: spot.hash, a, b };
        // Pairs with the same fence of another inserter of this flow: one of the two sees the other's entry.
        fence(Ordering::SeqCst);
        let others = self.resembling_in(spot.primary, spot.hash) & !(1 << slot);
        Some(if others | self.resembling_in_others(spot) == 0 {
            Inserted::New(new)
        } else {
            self.settle(new)
        })
    }

    /// Takes a place for a flow and fills it. `None`: lost a race for the place.
    fn claim_and_publish<U>(&self, hash: u64, entry: FlowEntry, room: &Room<'_, U>) -> Option<Inserted>
    where
        U: Fn(&FlowEntry) -> bool,
    {
        match self.claim(hash, &entry, room) {
            Claim::Ours(place) => Some(self.publish(place, hash, entry)),
            Claim::Taken(place, class) => Some(match self.publish(place, hash, entry) {
                Inserted::New(found) => Inserted::Over(found, class),
                other => other,
            }),
            Claim::Lost => None,
            Claim::Full => Some(Inserted::Full),
        }
    }

    /// Makes the first slot that is free (or expired) ours; where there is none, that of the entry worth least.
    fn claim<U>(&self, hash: u64, entry: &FlowEntry, room: &Room<'_, U>) -> Claim
    where
        U: Fn(&FlowEntry) -> bool,
    {
        let claim_in = |number| {
            let (place, held) = self.free_slot(number, room)?;
            Some(if self.claim_slot(place, held) { Claim::Ours(place) } else { Claim::Lost })
        };
        let main = self.places.candidates(hash, false).find_map(claim_in);
        main.or_else(|| self.make_room(hash, room).map(Claim::Ours))
            .or_else(|| self.places.candidates(hash, true).find_map(claim_in))
            .or_else(|| self.evict(hash, entry, room))
            .unwrap_or(Claim::Full)
    }

    /// Makes the slot ours whose live entry, of all where `hash` may live, is worth least, if one gives way.
    #[inline(never)]
    fn evict<U>(&self, hash: u64, newcomer: &FlowEntry, room: &Room<'_, U>) -> Option<Claim>
    where
        U: Fn(&FlowEntry) -> bool,
    {
        let mut least: Option<(Worth, usize, u64)> = None;
        let mut beside = Beside::default();
        for number in self.places.candidates(hash, true) {
            for (slot, (_, b)) in slots(self.places.line(number)?).into_iter().enumerate() {
                // Relaxed: the compare-exchange that follows decides.
                let held = b.load(Ordering::Relaxed);
                let Some(entry) = FlowEntry::from_words(0, held) else {
                    continue;
                };
                beside.add(&entry);
                let Some(worth) = room.worth(&entry, newcomer) else {
                    continue;
                };
                if least.is_none_or(|(before, ..)| worth < before) {
                    least = Some((worth, number * SLOTS + slot, held));
                }
            }
        }
        let (worth, place, held) = least.filter(|(worth, ..)| worth.is_least_beside(&beside))?;
        Some(if self.claim_slot(place, held) { Claim::Taken(place, worth.class) } else { Claim::Lost })
    }

    /// The first empty slot of a line, else its first expired one, and its word B.
    pub(super) fn free_slot<U>(&self, number: usize, room: &Room<'_, U>) -> Option<(usize, u64)>
    where
        U: Fn(&FlowEntry) -> bool,
    {
        // Relaxed: the compare-exchange that follows decides.
        let held = slots(self.places.line(number)?).map(|(_, b)| b.load(Ordering::Relaxed));
        let slot =
            held.iter().position(|b| *b == EMPTY).or_else(|| held.iter().position(|b| room.is_over(*b)))?;
        Some((number * SLOTS + slot, *held.get(slot)?))
    }

    /// Fills a slot that is ours, and makes sure that its flow has no second entry.
    pub(super) fn publish(&self, place: usize, hash: u64, entry: FlowEntry) -> Inserted {
        let Some((slot_a, slot_b)) = self.slot(place) else {
            return Inserted::Full;
        };
        let number = place / SLOTS;
        let in_alternate = number != self.places.primary(hash) && !self.places.is_overflow(number);
        let a = entry.word_a(hash) | if in_alternate { IN_ALTERNATE } else { 0 };
        let b = entry.word_b();
        slot_a.store(a, Ordering::Release);
        slot_b.store(b, Ordering::Release);
        // Pairs with the same fence of another inserter of this flow: one of the two sees the other's entry.
        fence(Ordering::SeqCst);
        self.settle(Found { place, entry, hash, a, b })
    }

    /// Of the entries of a flow the first in the order of search stays: the one that was just entered, or another's.
    #[inline(never)]
    fn settle(&self, new: Found) -> Inserted {
        let Found { place, hash, .. } = new;
        let mut ours = false;
        for number in self.places.candidates(hash, self.places.has_spilled()) {
            let mask = self.places.line(number).map_or(0, |line| matching(line, hash));
            for slot in (0..SLOTS).filter(|slot| mask & 1 << slot != 0) {
                let at = number * SLOTS + slot;
                if at == place {
                    ours = true;
                } else if ours {
                    self.drop_duplicate(at, hash);
                } else if let Some(first) = self.find_in(number, hash).filter(|found| found.place == at) {
                    self.drop_duplicate(place, hash);
                    return Inserted::Existing(first);
                }
            }
        }
        Inserted::New(new)
    }

    /// Empties a slot as long as it holds this flow, also when others change it meanwhile.
    pub(super) fn drop_duplicate(&self, place: usize, hash: u64) {
        let Some((slot_a, slot_b)) = self.slot(place) else {
            return;
        };
        for _ in 0..ATTEMPTS {
            let Some((_, b)) = read(slot_a, slot_b, |a| (a ^ hash) & FINGERPRINT == 0) else {
                return;
            };
            if self.release(place, b) {
                return;
            }
        }
    }
}
