//! Which backend a flow belongs to: a lock-free table of two words an entry, shared by all workers.
//!
//! Why it is handwritten: every packet looks here, so a look-up must cost one cache line in nine of ten
//! cases; memory is fixed at start and may outlive the process, so there are no pointers and nothing to
//! reclaim.
//!
//! # Shape
//!
//! A line is 64 bytes: four slots of words A and B ([`crate::flow_entry`]). A flow may live in its primary
//! line, its alternate, and two lines of a small overflow area ([`crate::place`]). An insert takes the first
//! free slot in that order; readers search in the same order, the overflow area only while something lives
//! there.
//!
//! An insert that finds its two main lines full **makes room**: it moves one entry that is in its primary
//! line to that entry's alternate. With flows coming and going, ever more entries would then sit in their
//! alternate while there is room in their primary again; so the sweep brings them **home**. [`crate::place`]
//! has the reasons.
//!
//! # Protocol
//!
//! Word B is the slot's lock, its publication and its value.
//! - **Claim**: compare-exchange B from an empty or expired value to [`BUSY`] (acquire), or from that of a live
//!   entry that gives way. Only the claimer writes A.
//! - **Fill**: store A (release), store B (release). A's release is what lets a reader that saw the new A see
//!   `BUSY` or later in B.
//! - **Read**: A, B, A, B, each an acquire load that orders the later ones; accepted only if both A are
//!   equal, both B are equal, and B is live. Else again, a bounded number of times.
//! - **Update**: one compare-exchange of B where A stays; a claim and a fill where the ISN in A changes.
//! - **Remove**: compare-exchange B to [`EMPTY`]. A stays as it was, and means nothing.
//! - **Move**: claim the new slot, fill it with a copy, then remove the old entry (or claim its slot, to make
//!   room). There is always one to be found, also after a crash. If the old one changed in between, the copy
//!   is brought up to date first.
//!
//! *No torn read.* Let a reader see A1 = A2 = a and B1 = B2 = b. If a slot has one tenant during the read,
//! (a, b) is its value. Suppose b was stored by a later tenant than the a of A1: then loading b (acquire, its
//! store is a release) makes A2 see that tenant's A or a later one; equal to a only if the flow of A1 came
//! back into the same slot. Suppose b is older than the a of A2: then loading A2 makes B2 see that tenant's
//! `BUSY` or later, which equals b only if a tenant after it stored the very same 64 bits. So a wrong pair
//! needs the slot to go a -> x -> a -> y between four loads of one line, with b(x) = b(y) in state, flags, tick,
//! backend and 32 bits of ISN or token, and x, a, y all fresh. Whoever floods chooses ISNs and can make b(x) = b(y);
//! but three inserts into one slot, of hashes it cannot compute, between loads that are nanoseconds apart it cannot.
//! It costs one packet if it ever happens.
//!
//! *No miss by a move.* From primary to alternate: whoever no longer finds the old entry has seen its removal
//! (acquire), which came after the copy, and looks into the alternate later. From alternate to primary:
//! whoever passed the primary before the copy was there, and the alternate after the old entry was gone,
//! finds the copy by looking into the primary once more, which every search does that found nothing. Both in
//! turn within one search would still hide the entry: the sweep must bring it home between the reader's first
//! two loads and an insert push it out again between the next two. Then the reader's insert searches
//! again; that of a SYN does not ([`FlowTable::insert_absent`]), and may put its entry before the hidden one, which then
//! goes: a SYN on a live flow, or two workers with one 5-tuple, within those four loads.
//!
//! *An update of the wrong flow* needs another tenant with 64 equal bits in B after a removal within the same
//! tick; it would then change state and token of a flow with the same backend. Accepted, for the same reason.
//!
//! *A live entry gives way* by the same claim as an expired one: the compare-exchange of B from the value by which
//! it was judged. So it was not touched since, and nothing newer is lost:
//! - an update that comes first changes B, and the claim fails; the insert starts again and judges anew;
//! - an update that comes later finds `BUSY` or another B, fails, and says so: its flow is unknown from then on;
//! - a reader sees the entry, or `BUSY` and then the new tenant (acquire), and never a mixture (above);
//! - an inserter of the same flow that found the entry is told "existing" and has been right when it looked; one
//!   that comes later enters it anew, elsewhere, and the look after the fence sees every other entry as before;
//! - the sweep's removal and a mover's removal of the original are compare-exchanges of the same word: one wins.
//!   If the original gives way, the mover takes its copy back, unless somebody has found and changed that: then it
//!   stays, and the flow has gained. If the copy gives way, the original was either removed already (the flow gave
//!   way), or has changed in between and stays.
//!
//! Nothing is claimed whose class may not go, so no interleaving moves an entry of the last class out.
//!
//! *Two inserters of one flow* publish, fence (`SeqCst`), and look again. In the total order of the fences
//! one is second, and it sees the other's entry; whoever sees two removes the later one in the order of
//! search, so the first place wins and everybody finds the same.
//!
//! A `BUSY` slot is that of an inserter between two stores. A reader of the same flow tries again a bounded
//! number of times and then takes the flow for unknown. A crash can leave one behind: [`FlowTable::attach`]
//! clears them.

mod attach;
mod insert;
mod moves;
mod slot;

use ipc::id::BackendId;
use ipc::lines::{Line, Lines};
use ipc::sync::{AtomicU64, Ordering};

pub use self::attach::AttachedFlows;
pub use self::slot::SLOTS;
use self::slot::{matching, read, read_once, resembling, slots};
use crate::flow_entry::{BUSY, EMPTY, FINGERPRINT, FlowEntry, IN_ALTERNATE, settled_backend};
use crate::lifetimes::Class;
use crate::place::{Places, Spot};
use crate::tick::Tick;

/// How often an inserter starts again after it lost a race.
const ATTEMPTS: usize = if cfg!(loom) { 3 } else { 8 };

/// An entry, where it was found, and what its slot held then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The slot, counted over all lines: names the entry as long as it lives.
    pub place: usize,
    /// What was found.
    pub entry: FlowEntry,
    hash: u64,
    a: u64,
    b: u64,
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The entry is in the table now.
    New(Found),
    /// The entry is in the table now, in the place of a live one of this class.
    Over(Found, Class),
    /// The flow was there already; this is its entry, unchanged.
    Existing(Found),
    /// No place, or more lost races than are worth another attempt.
    Full,
}

/// What a sweep shall do with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Leave it.
    Yes,
    /// Remove it, unless it changes in between.
    No,
}

/// The flow table. Workers share it by reference.
#[derive(Debug)]
pub struct FlowTable {
    places: Places,
}

impl FlowTable {
    /// How many lines a table for `entries` flows needs: 30 bytes a flow, a load of 0.54.
    pub const fn lines_for(entries: usize) -> usize {
        entries.saturating_mul(7).div_ceil(15).saturating_add(16)
    }

    /// A table over lines that are all zero, or that another table shows in good order.
    pub fn new(lines: Lines) -> Self {
        let used = |line: &Line| {
            slots(line).iter().map(|(_, b)| u64::from(b.load(Ordering::Relaxed) != EMPTY)).sum()
        };
        Self { places: Places::new(lines, used) }
    }

    /// How many lines there are, for the sweep.
    #[inline]
    pub fn lines(&self) -> usize {
        self.places.len()
    }

    /// How many slots there are. A table is meant to be filled to about half: [`FlowTable::lines_for`].
    pub fn capacity(&self) -> usize {
        self.places.len() * SLOTS
    }

    /// How many entries live in the overflow area.
    pub fn spilled(&self) -> u64 {
        self.places.spilled()
    }

    /// Whether an entry lives in the first line its hash names, where a look-up costs one cache miss.
    pub fn is_in_first_line(&self, found: &Found) -> bool {
        found.place / SLOTS == self.places.primary(found.hash)
    }

    /// Starts to bring the first line of a hash near.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.places.prefetch_primary(hash);
    }

    /// Starts to bring the other lines of a hash near, if its first line (prefetched before) does not hold
    /// it.
    ///
    /// For a second pass over a burst, between [`FlowTable::prefetch`] and [`FlowTable::find`].
    #[inline]
    pub fn prefetch_rest(&self, hash: u64) {
        self.seek(hash);
    }

    /// The same for a flow that is to be entered: its lines, if its first does not hold it.
    #[inline(always)]
    pub(crate) fn seek(&self, hash: u64) -> Option<Spot> {
        let spot = self.places.spot(hash);
        if self.resembling_in(spot.primary, hash) != 0 {
            return None;
        }
        self.places.prefetch_behind(spot.alternate, hash);
        Some(spot)
    }

    /// Whether a flow that was not in its first line a moment ago ([`FlowTable::seek`]) is in no line at all. Goes by part
    /// of the fingerprints, also those that removed flows left behind: `false` may be wrong, `true` is not.
    #[inline(always)]
    pub(crate) fn is_absent(&self, spot: &Spot) -> bool {
        // The first once more, and last: the entry may have come home meanwhile.
        self.resembling_in_others(spot) | self.resembling_in(spot.primary, spot.hash) == 0
    }

    /// The slots of a line that may be of the flow with this hash, as bits; none where there is no such line.
    #[inline(always)]
    fn resembling_in(&self, number: usize, hash: u64) -> u32 {
        self.places.line(number).map_or(0, |line| resembling(line, hash))
    }

    /// The same of all candidate lines behind the primary one together.
    #[inline(always)]
    fn resembling_in_others(&self, spot: &Spot) -> u32 {
        let mut found = self.resembling_in(spot.alternate, spot.hash);
        if self.places.has_spilled() {
            found |= self.resembling_in_overflow(spot.hash);
        }
        found
    }

    #[inline(never)]
    fn resembling_in_overflow(&self, hash: u64) -> u32 {
        self.places
            .spill_lines(hash)
            .into_iter()
            .fold(0, |found, line| found | self.resembling_in(line, hash))
    }

    /// The backend of a flow whose entry is in its first line (prefetched before) and asks for nothing: settled, and
    /// seen in this tick. `None` says that it must be looked up and looked at; where it is not in the line, starts to
    /// bring the others near.
    #[inline]
    pub(crate) fn settled(&self, hash: u64, now: Tick) -> Option<BackendId> {
        let line = self.places.line(self.places.primary(hash))?;
        let matches = resembling(line, hash);
        if matches == 0 {
            self.places.prefetch_others(hash);
            return None;
        }
        // Below the number of slots: one of the lowest four bits is set.
        let slot = matches.trailing_zeros() as usize % SLOTS;
        let (a, b) = read_once(line.0.get(2 * slot)?, line.0.get(2 * slot + 1)?)?;
        if (a ^ hash) & FINGERPRINT != 0 {
            return None;
        }
        settled_backend(b, now)
    }

    /// The same, wherever the entry is.
    pub(crate) fn settled_anywhere(&self, hash: u64, now: Tick) -> Option<BackendId> {
        settled_backend(self.find(hash)?.b, now)
    }

    /// The entry of a flow. Also an expired one: the caller knows what time it is.
    #[inline]
    pub fn find(&self, hash: u64) -> Option<Found> {
        match self.find_in(self.places.primary(hash), hash) {
            None => self.find_in_others(hash),
            found => found,
        }
    }

    /// Whether what was found stands where it was found, unchanged.
    #[inline]
    pub fn stands(&self, found: &Found) -> bool {
        self.slot(found.place).and_then(|(a, b)| read_once(a, b)) == Some((found.a, found.b))
    }

    /// Replaces what was found. `false` when it changed in between: look again.
    pub fn update(&self, found: &Found, entry: FlowEntry) -> bool {
        if self.update_at(found, entry) {
            return true;
        }
        // The sweep may have brought it home: the same entry at another place is what was found.
        match self.find(found.hash) {
            Some(moved) if moved.place != found.place && moved.b == found.b => self.update_at(&moved, entry),
            _ => false,
        }
    }

    /// Replaces what was found, where it was found.
    fn update_at(&self, found: &Found, entry: FlowEntry) -> bool {
        let Some((slot_a, slot_b)) = self.slot(found.place) else {
            return false;
        };
        if entry.word_a(found.hash) == found.a & !IN_ALTERNATE {
            return slot_b
                .compare_exchange(found.b, entry.word_b(), Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        }
        if !self.claim_slot(found.place, found.b) {
            return false;
        }
        // The slot is ours now. If it had gone to another flow with an equal word B, it is given back as it
        // was.
        if slot_a.load(Ordering::Relaxed) != found.a {
            slot_b.store(found.b, Ordering::Release);
            return false;
        }
        matches!(self.publish(found.place, found.hash, entry), Inserted::New(_))
    }

    /// Removes what was found. `false` when it changed in between.
    pub fn remove(&self, found: &Found) -> bool {
        self.release(found.place, found.b)
    }

    /// Shows `visit` all live entries of `lines` lines from `from` on, removes those it does not keep, and
    /// brings the others home where there is room.
    pub fn sweep(&self, from: usize, lines: usize, mut visit: impl FnMut(&FlowEntry) -> Keep) {
        for (number, line) in self.places.range(from, lines) {
            for (slot, (a, b)) in slots(line).into_iter().enumerate() {
                let Some((a, b)) = read(a, b, |_| true) else {
                    continue;
                };
                let Some(entry) = FlowEntry::from_words(a, b) else {
                    continue;
                };
                let place = number * SLOTS + slot;
                match visit(&entry) {
                    // A lost race means the entry was just used: it stays.
                    Keep::No => _ = self.release(place, b),
                    Keep::Yes if a & IN_ALTERNATE != 0 => self.bring_home(place, (a, b)),
                    Keep::Yes => {}
                }
            }
        }
    }

    /// Searches the candidate lines after the first.
    #[inline(never)]
    fn find_in_others(&self, hash: u64) -> Option<Found> {
        let mut others = self.places.candidates(hash, self.places.has_spilled()).skip(1);
        // Once more the first: the entry may have come home meanwhile.
        others
            .find_map(|number| self.find_in(number, hash))
            .or_else(|| self.find_in(self.places.primary(hash), hash))
    }

    /// Searches one line.
    #[inline]
    fn find_in(&self, number: usize, hash: u64) -> Option<Found> {
        let line = self.places.line(number)?;
        let mask = matching(line, hash);
        if mask == 0 {
            return None;
        }
        let is_flow = |a: u64| (a ^ hash) & FINGERPRINT == 0;
        for (slot, (a, b)) in slots(line).into_iter().enumerate() {
            if mask & 1 << slot == 0 {
                continue;
            }
            let Some((a, b)) = read(a, b, is_flow) else {
                continue;
            };
            if let Some(entry) = FlowEntry::from_words(a, b) {
                return Some(Found { place: number * SLOTS + slot, entry, hash, a, b });
            }
        }
        None
    }

    /// Makes one slot ours and busy, if its word B is still `held`.
    fn claim_slot(&self, place: usize, held: u64) -> bool {
        let Some((_, b)) = self.slot(place) else {
            return false;
        };
        if held == EMPTY {
            self.places.count_used(place / SLOTS);
        }
        let ours = b.compare_exchange(held, BUSY, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if !ours && held == EMPTY {
            self.places.count_free(place / SLOTS);
        }
        ours
    }

    /// Empties a slot, if its word B is still `held`.
    fn release(&self, place: usize, held: u64) -> bool {
        let Some((_, b)) = self.slot(place) else {
            return false;
        };
        let released = b.compare_exchange(held, EMPTY, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if released {
            self.places.count_free(place / SLOTS);
        }
        released
    }

    /// The two words of a place.
    #[inline]
    fn slot(&self, place: usize) -> Option<(&AtomicU64, &AtomicU64)> {
        let [a, b] = self.places.line(place / SLOTS)?.0.as_chunks::<2>().0.get(place % SLOTS)?;
        Some((a, b))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::flow_entry::FlowState;
    use crate::lifetimes::Lifetimes;
    use crate::tick::Tick;
    use ipc::id::BackendId;

    fn now() -> Tick {
        Tick::from_seconds(16 * 1000)
    }

    fn entry(n: u16) -> FlowEntry {
        FlowEntry {
            state: FlowState::Plain,
            tick: now(),
            lasting: false,
            moved: false,
            backend: BackendId(n),
            isn_low: n,
            aux: u32::from(n) << 16,
        }
    }

    fn insert_at(table: &FlowTable, hash: u64, entry: FlowEntry, now: Tick) -> Inserted {
        let lifetimes = Lifetimes::default();
        table.insert(hash, entry, &lifetimes.room(now))
    }

    fn insert(table: &FlowTable, hash: u64, entry: FlowEntry) -> Inserted {
        insert_at(table, hash, entry, now())
    }

    #[test]
    fn what_was_inserted_is_found_with_every_field() {
        let table = FlowTable::new(Lines::heap(16));
        let Inserted::New(new) = insert(&table, 0xabcd_ef01, entry(7)) else { panic!("there was room") };
        assert_eq!(table.find(0xabcd_ef01), Some(new));
        assert_eq!(new.entry, entry(7));
        assert_eq!(table.find(0xabcd_ef02), None);
    }

    #[test]
    fn a_flow_that_is_there_already_is_shown_unchanged() {
        let table = FlowTable::new(Lines::heap(16));
        insert(&table, 1, entry(7));
        let Inserted::Existing(found) = insert(&table, 1, entry(8)) else { panic!("it was there") };
        assert_eq!(found.entry, entry(7));
    }

    #[test]
    fn an_expired_entry_of_the_same_flow_is_replaced_in_place() {
        let table = FlowTable::new(Lines::heap(16));
        let old = FlowEntry { state: FlowState::SynPlain, tick: Tick::from_seconds(0), ..entry(7) };
        let Inserted::New(before) = insert_at(&table, 1, old, old.tick) else { panic!() };
        let Inserted::New(after) = insert(&table, 1, entry(8)) else { panic!("the old one expired") };
        assert_eq!(after.place, before.place);
        assert_eq!(table.find(1).unwrap().entry, entry(8));
    }

    #[test]
    fn an_update_with_another_isn_opens_the_flow_anew() {
        let table = FlowTable::new(Lines::heap(16));
        insert(&table, 1, entry(7));
        let found = table.find(1).unwrap();
        assert!(table.update(&found, entry(9)));
        assert_eq!(table.find(1).unwrap().entry, entry(9));
        assert!(!table.update(&found, entry(10)), "what was found is no longer there");
        assert!(!table.remove(&found));
    }

    #[test]
    fn a_table_without_lines_is_full_and_knows_nothing() {
        let table = FlowTable::new(Lines::heap(0));
        assert_eq!(insert(&table, 1, entry(7)), Inserted::Full);
        assert_eq!(table.find(1), None);
        table.prefetch(1);
        table.prefetch_rest(1);
        table.sweep(0, 10, |_| panic!("nothing to visit"));
    }

    #[test]
    fn a_small_table_fills_its_overflow_area_and_then_says_full() {
        let table = FlowTable::new(Lines::heap(8));
        let mut inserted = 0;
        for n in 0..200 {
            let hash = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            inserted += usize::from(matches!(insert(&table, hash, entry(n)), Inserted::New(_)));
        }
        assert!(inserted >= 28, "{inserted} of 32");
        assert_eq!(table.spilled(), 4);
        let mut visited = 0;
        table.sweep(0, table.lines(), |_| {
            visited += 1;
            Keep::No
        });
        assert_eq!(visited, inserted);
        assert_eq!(table.spilled(), 0);
    }

    #[test]
    fn a_sweep_brings_an_entry_home_when_there_is_room() {
        let table = FlowTable::new(Lines::heap(2));
        for hash in 1..=5 {
            insert(&table, hash, entry(1));
        }
        let away = table.find(5).unwrap();
        assert!(!table.is_in_first_line(&away));
        assert!(table.remove(&table.find(2).unwrap()));
        table.sweep(0, 2, |_| Keep::Yes);
        assert!(table.is_in_first_line(&table.find(5).unwrap()));
        assert!(table.update(&away, entry(1)), "what was found is the same entry at another place");
    }
}
