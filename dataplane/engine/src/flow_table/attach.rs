//! Taking over a flow table that another process left behind, at whatever moment it died.
//!
//! What a death can leave, by the protocol in the header of [`crate::flow_table`]:
//! - a slot that is busy: the entry it was to hold is lost, as if its packet had come later;
//! - two entries of one flow: a move whose copy was there and whose original was not gone yet, or two inserters of
//!   which none had looked again. The one that was seen or changed last stays; between equals the one that every
//!   search finds first.
//!
//! Nobody else may use the lines meanwhile, so there are plain stores here.

use hashbrown::HashMap;
use ipc::lines::Lines;
use ipc::sync::Ordering;

use super::FlowTable;
use super::slot::{SLOTS, slots};
use crate::flow_entry::{EMPTY, FINGERPRINT, FlowEntry, IN_ALTERNATE};
use crate::lifetimes::IdleTimes;
use crate::tick::Absence;

/// What was found in a table that was taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachedFlows {
    /// Entries that stay.
    pub kept: u64,
    /// Slots that nobody finished, now empty.
    pub busy: u64,
    /// Entries whose idle time had passed, now gone.
    pub expired: u64,
    /// Second entries of one flow, now gone.
    pub doubled: u64,
}

impl FlowTable {
    /// A table over lines that a table left behind, perhaps in the middle of an insert or a move. Nobody else may use
    /// them yet.
    pub fn attach(lines: Lines, absence: &Absence, idle: &IdleTimes) -> (Self, AttachedFlows) {
        let mut attached = AttachedFlows::default();
        for (_, b) in lines.iter().flat_map(slots) {
            let held = b.load(Ordering::Relaxed);
            let count = match FlowEntry::from_words(0, held) {
                None if held == EMPTY => continue,
                None => &mut attached.busy,
                Some(entry) if idle.is_expired_after(&entry, absence) => &mut attached.expired,
                Some(_) => {
                    attached.kept += 1;
                    continue;
                }
            };
            *count += 1;
            b.store(EMPTY, Ordering::Relaxed);
        }
        let table = Self::new(lines);
        let overflow = table.overflow_entries();
        for number in 0..table.lines() {
            for slot in 0..SLOTS {
                attached.doubled += table.drop_others(number, slot, &overflow, absence);
            }
        }
        attached.kept = attached.kept.saturating_sub(attached.doubled);
        (table, attached)
    }

    /// The places of the entries in the overflow area, by fingerprint.
    fn overflow_entries(&self) -> HashMap<u64, Vec<usize>> {
        let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
        let first = (0..self.lines()).find(|number| self.places.is_overflow(*number));
        for place in first.map_or(0..0, |first| first * SLOTS..self.lines() * SLOTS) {
            if let Some((a, _)) = self.at(place) {
                places.entry(a & FINGERPRINT).or_default().push(place);
            }
        }
        places
    }

    /// Of the entry at this slot and others of its flow that are found later than it, leaves one; how many went.
    ///
    /// The word A names an entry's other main line, but not all of its hash, so a flow in the overflow area is found
    /// from its other entry only: by its fingerprint, in the lines that fit it.
    fn drop_others(
        &self,
        number: usize,
        slot: usize,
        overflow: &HashMap<u64, Vec<usize>>,
        absence: &Absence,
    ) -> u64 {
        let place = number * SLOTS + slot;
        let Some((a, _)) = self.at(place) else {
            return 0;
        };
        let holds =
            |place: usize, low: u64| self.at(place).is_some_and(|(theirs, _)| theirs << 16 == low << 16);
        // Pairs, in the order of search.
        let mut pairs: Vec<(usize, usize)> = Vec::new();
        let same_line = (slot + 1..SLOTS).map(|slot| number * SLOTS + slot);
        pairs.extend(same_line.filter(|other| holds(*other, a)).map(|other| (place, other)));
        let is_overflow = self.places.is_overflow(number);
        if !is_overflow && a & IN_ALTERNATE != 0 {
            let home = self.places.home(number, a) * SLOTS;
            let at_home = (home..home + SLOTS).filter(|other| holds(*other, a ^ IN_ALTERNATE));
            pairs.extend(at_home.map(|other| (other, place)));
        }
        let spilled = overflow.get(&(a & FINGERPRINT)).into_iter().flatten();
        let fits = |line: usize| line != number && (is_overflow || self.places.may_spill_to(a, line));
        pairs.extend(
            spilled.filter(|other| **other > place && fits(*other / SLOTS)).map(|other| (place, *other)),
        );
        let mut dropped = 0;
        for (first, second) in pairs {
            let (Some((_, one)), Some((_, two))) = (self.at(first), self.at(second)) else {
                continue;
            };
            let (place, held) = if is_later(two, one, absence) { (first, one) } else { (second, two) };
            dropped += u64::from(self.release(place, held));
        }
        dropped
    }

    /// Both words of a place that holds an entry.
    fn at(&self, place: usize) -> Option<(u64, u64)> {
        let (a, b) = self.slot(place)?;
        let (a, b) = (a.load(Ordering::Relaxed), b.load(Ordering::Relaxed));
        (b != EMPTY).then_some((a, b))
    }
}

/// Whether one word B of a flow was written after another: seen later, or in the same tick and further on.
fn is_later(one: u64, other: u64, absence: &Absence) -> bool {
    let known = |b| {
        let entry = FlowEntry::from_words(0, b)?;
        Some((core::cmp::Reverse(absence.age_of(entry.tick)), entry.state as u8))
    };
    known(one) > known(other)
}

#[cfg(all(test, not(loom)))]
#[expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
mod tests {
    use super::*;
    use crate::flow_entry::FlowState;
    use crate::flow_table::{Inserted, Keep};
    use crate::lifetimes::Lifetimes;
    use crate::tick::Tick;
    use ipc::id::BackendId;

    const NOW: u64 = 16 * 1000;

    fn entry(n: u16) -> FlowEntry {
        let (tick, aux) = (Tick::from_seconds(NOW), u32::from(n) << 16);
        FlowEntry { aux, ..FlowEntry::opened(FlowState::Plain, tick, BackendId(n), u32::from(n), 0) }
    }

    fn insert(table: &FlowTable, hash: u64, entry: FlowEntry) -> Inserted {
        {
            let lifetimes = Lifetimes::default();
            table.insert(hash, entry, &lifetimes.room(entry.tick))
        }
    }

    fn attach(lines: Lines, pause: u64) -> (FlowTable, AttachedFlows) {
        FlowTable::attach(lines, &Absence::new(NOW, NOW + pause), &IdleTimes::default())
    }

    fn hash(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn an_attached_table_keeps_its_entries_and_clears_what_a_crash_left_busy() {
        let lines = Lines::heap(8);
        let table = FlowTable::new(lines.clone());
        for n in 0..40 {
            insert(&table, u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15), entry(n));
        }
        let spilled = table.spilled();
        assert!(spilled > 0);
        let victim = table.find(0).unwrap();
        assert!(table.claim_slot(victim.place, victim.b), "an insert that never ends");

        let (again, attached) = attach(lines, 0);
        assert_eq!(attached.busy, 1);
        assert_eq!(again.spilled(), spilled);
        assert_eq!(again.find(0), None);
        assert!(matches!(insert(&again, 0, entry(0)), Inserted::New(_)));
        assert_eq!(again.find(0x9e37_79b9_7f4a_7c15).unwrap().entry, entry(1));
    }

    #[test]
    fn an_attached_table_drops_the_copy_of_a_move_that_never_ended() {
        let lines = Lines::heap(2);
        let table = FlowTable::new(lines.clone());
        for hash in 1..=5 {
            insert(&table, hash, entry(1));
        }
        let away = table.find(5).unwrap();
        let freed = table.find(2).unwrap();
        table.remove(&freed);
        let (home_a, home_b) = table.slot(freed.place).unwrap();
        home_a.store(away.a & !IN_ALTERNATE, Ordering::Relaxed);
        home_b.store(away.b, Ordering::Relaxed);

        let (again, attached) = attach(lines, 0);
        assert_eq!((attached.doubled, attached.kept), (1, 4));
        assert!(again.is_in_first_line(&again.find(5).unwrap()));
        let mut live = 0;
        again.sweep(0, 2, |_| {
            live += 1;
            Keep::Yes
        });
        assert_eq!(live, 4);
    }

    /// Writes an entry of a flow to a place, as a death in the middle of an insert or a move leaves it.
    fn write(table: &FlowTable, flow: u64, place: usize, state: FlowState) {
        let number = place / SLOTS;
        let is_away = number != table.places.primary(flow) && !table.places.is_overflow(number);
        let entry = FlowEntry { state, ..entry(7) };
        let (a, b) = table.slot(place).unwrap();
        a.store(entry.word_a(flow) | if is_away { IN_ALTERNATE } else { 0 }, Ordering::Relaxed);
        b.store(entry.word_b(), Ordering::Relaxed);
    }

    #[test]
    fn of_two_entries_of_one_flow_the_one_that_went_on_stays_wherever_they_are() {
        for flow in (1..40).map(hash) {
            let numbers: Vec<usize> =
                FlowTable::new(Lines::heap(130)).places.candidates(flow, true).collect();
            assert_eq!(numbers.len(), 4);
            let places = || numbers.iter().flat_map(|number| [number * SLOTS, number * SLOTS + 1]);
            let pairs = places().flat_map(|first| places().map(move |second| (first, second)));
            for (first, second) in pairs.filter(|(first, second)| first != second) {
                let lines = Lines::heap(130);
                let table = FlowTable::new(lines.clone());
                write(&table, flow, first, FlowState::SynPlain);
                write(&table, flow, second, FlowState::ClosingPlain);
                let (again, attached) = attach(lines, 0);
                assert_eq!((attached.doubled, attached.kept), (1, 1), "{first} {second} of {numbers:?}");
                assert_eq!(again.find(flow).unwrap().entry.state, FlowState::ClosingPlain);
            }
        }
    }

    #[test]
    fn flows_that_share_a_line_are_not_taken_for_one() {
        let lines = Lines::heap(130);
        let table = FlowTable::new(lines.clone());
        let inserted =
            (0..400).filter(|n| matches!(insert(&table, hash(*n), entry(1)), Inserted::New(_))).count();
        let (_, attached) = attach(lines, 0);
        assert_eq!(attached, AttachedFlows { kept: inserted as u64, ..AttachedFlows::default() });
    }

    #[test]
    fn an_entry_is_as_old_after_a_pause_as_the_clock_says_even_past_its_wrap() {
        for (pause, kept) in
            [(0, true), (64_000, true), (64_016, false), (65_536, false), (65_536 * 3, false)]
        {
            let lines = Lines::heap(8);
            insert(&FlowTable::new(lines.clone()), 1, entry(1));
            let (table, attached) = attach(lines, pause);
            assert_eq!((table.find(1).is_some(), attached.kept == 1), (kept, kept), "after {pause} s");
            assert_eq!(attached.expired, u64::from(!kept));
        }
    }
}
