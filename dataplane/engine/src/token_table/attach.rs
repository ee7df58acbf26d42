//! Taking over a token table that another process left behind, at whatever moment it died.
//!
//! Words are whole, so no claim is damaged. But a death between the entering of a claim and the marking of its rivals
//! leaves rivals without the mark, against the invariant of [`crate::token_table`]. So every token that has more than
//! one claim, in whatever pool, is marked: without need in most cases, which the next touch repairs.
//!
//! While nobody was there, nobody touched the tokens of live flows. So the pause counts for no claim, except for one
//! that is closing: the others are as old now as they were when the pause began, and what prolongs the life of a token
//! decides about it as before. [`crate::sweep`] judges none before it has visited all flows once.

use hashbrown::HashSet;
use ipc::lines::{Line, Lines};
use ipc::sync::{AtomicU64, Ordering};

use super::{TOKEN_IDLE, TokenTable};
use crate::tick::Absence;
use crate::token_entry::{TokenEntry, vacated};

/// What was found in a table that was taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachedTokens {
    /// Claims that stay.
    pub kept: u64,
    /// Claims whose time had passed, now gone.
    pub expired: u64,
}

impl TokenTable {
    /// A table over lines that a table left behind. Nobody else may use them yet. A pause of more than `longest` ticks
    /// is one that no flow outlives, and so no token.
    pub fn attach(lines: Lines, absence: &Absence, longest: u16) -> (Self, AttachedTokens) {
        let mut attached = AttachedTokens::default();
        let mut met = Met::new(lines.len());
        for word in words(&lines) {
            let held = word.load(Ordering::Relaxed);
            let Some(entry) = TokenEntry::from_word(held) else {
                // Whatever it was: vacated at the worst time for claims in later lines, which is now.
                word.store(if held == 0 { 0 } else { vacated(absence.ended()) }, Ordering::Relaxed);
                continue;
            };
            let Some(entry) = aged(entry, absence, longest) else {
                attached.expired += 1;
                word.store(vacated(absence.ended()), Ordering::Relaxed);
                continue;
            };
            attached.kept += 1;
            met.meet(entry.token.0);
            if entry.word() != held {
                word.store(entry.word(), Ordering::Relaxed);
            }
        }
        for word in words(&lines) {
            let entry = TokenEntry::from_word(word.load(Ordering::Relaxed));
            if let Some(entry) = entry.filter(|entry| met.again.contains(&entry.token.0)) {
                word.store(TokenEntry { ambiguous: true, ..entry }.word(), Ordering::Relaxed);
            }
        }
        (Self::new(lines), attached)
    }
}

/// The claim as it stands after a pause, unless its time has passed.
fn aged(entry: TokenEntry, absence: &Absence, longest: u16) -> Option<TokenEntry> {
    if entry.is_ending() {
        return (absence.age_of(entry.tick) <= u64::from(TOKEN_IDLE)).then_some(entry);
    }
    // Of within the pause: by one who took the table over and died before it said that it lived. No claim is as old as
    // this would be if it were of before: the sweep clears those.
    let within = u64::from(absence.ended().age_of(entry.tick)) <= absence.ticks();
    let age = if within { 0 } else { absence.age_before(entry.tick) };
    let lives = age <= TOKEN_IDLE && absence.ticks() <= u64::from(longest);
    // Rounds of agents begin anew.
    lives.then(|| TokenEntry { tick: absence.ended().before(age), closing: false, ..entry })
}

/// All words of a table.
fn words(lines: &Lines) -> impl Iterator<Item = &AtomicU64> {
    lines.iter().flat_map(|line: &Line| &line.0)
}

/// Which tokens were met more than once: none of them is missing, a few that were not are there.
struct Met {
    /// One bit for each of many tokens, eight times as many as there are slots.
    bits: Vec<u64>,
    again: HashSet<u32>,
}

impl Met {
    fn new(lines: usize) -> Self {
        Self { bits: vec![0; lines.max(1)], again: HashSet::new() }
    }

    fn meet(&mut self, token: u32) {
        // Tokens are as good as random; the multiplication is for those that are not.
        let hash = u64::from(token).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bit = crate::hash::scale(hash, self.bits.len() * 64);
        let Some(word) = self.bits.get_mut(bit / 64) else { return };
        if *word & 1 << (bit % 64) != 0 {
            self.again.insert(token);
        }
        *word |= 1 << (bit % 64);
    }
}

#[cfg(all(test, not(loom)))]
#[expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
mod tests {
    use super::*;
    use crate::lifetimes::IdleTimes;
    use crate::tick::Tick;
    use crate::token_entry::Rank;
    use crate::token_table::TokenLookup;
    use ipc::id::BackendId;
    use packet::Token;

    const NOW: u64 = 16 * 1000;
    const TOKEN: Token = Token(0x913e_6c21);

    fn claim(backend: u16, rank: Rank) -> TokenEntry {
        let tick = Tick::from_seconds(NOW);
        TokenEntry { token: TOKEN, backend: BackendId(backend), tick, rank, ambiguous: false, closing: false }
    }

    const HASH: u64 = 0x5555_6666_7777_8888;

    /// A table whose lines hold these claims of one hash, and that hash.
    fn left(claims: &[TokenEntry]) -> (Lines, u64) {
        let lines = Lines::heap(8);
        let table = TokenTable::new(lines.clone());
        let line = table.places.line(table.places.primary(HASH)).unwrap();
        for (claim, word) in claims.iter().zip(&line.0) {
            word.store(claim.word(), Ordering::Relaxed);
        }
        (lines, HASH)
    }

    fn attach(lines: Lines, pause: u64) -> (TokenTable, AttachedTokens) {
        TokenTable::attach(lines, &Absence::new(NOW, NOW + pause), IdleTimes::default().longest())
    }

    #[test]
    fn rivals_that_nobody_marked_any_more_are_marked() {
        let (lines, hash) = left(&[claim(1, Rank::Provisional), claim(2, Rank::Provisional)]);
        assert!(matches!(
            TokenTable::new(lines.clone()).find(hash, TOKEN, |_| true),
            TokenLookup::Owner { .. }
        ));
        let (table, attached) = attach(lines, 0);
        assert_eq!(table.find(hash, TOKEN, |_| true), TokenLookup::Ambiguous);
        assert_eq!(attached, AttachedTokens { kept: 2, expired: 0 });
    }

    #[test]
    fn a_newcomer_that_was_not_withdrawn_any_more_answers_for_nobody() {
        let (lines, hash) = left(&[claim(1, Rank::Provisional), claim(2, Rank::Seen)]);
        let (table, _) = attach(lines, 0);
        let owner = TokenLookup::Owner { backend: BackendId(2), rank: Rank::Seen };
        assert_eq!(table.find(hash, TOKEN, |_| true), owner);
    }

    #[test]
    fn a_pause_does_not_age_a_token_unless_it_is_longer_than_any_flow_lives() {
        for (pause, kept) in [(0, true), (300, true), (40_000, true), (64_000, true), (64_016, false)] {
            let (lines, hash) = left(&[claim(1, Rank::Seen)]);
            let (table, attached) = attach(lines, pause);
            assert_eq!(table.find(hash, TOKEN, |_| true) != TokenLookup::Unknown, kept, "after {pause} s");
            assert_eq!((attached.kept, attached.expired), (u64::from(kept), u64::from(!kept)));
            let soon = Tick::from_seconds(NOW + pause).after(TOKEN_IDLE);
            assert_eq!(table.sweep(0, 8, soon, TOKEN_IDLE), 0, "not older than it was");
            assert_eq!(table.sweep(0, 8, soon.after(1), TOKEN_IDLE), usize::from(kept));
        }
    }

    #[test]
    fn a_death_while_the_table_is_taken_over_costs_no_token_whatever_the_pauses() {
        for (first, second) in [(0, 0), (100, 0), (600, 0), (600, 600), (40_000, 5), (30_000, 30_000)] {
            let (lines, hash) = left(&[claim(1, Rank::Seen)]);
            attach(lines.clone(), first);
            // Nobody beat: the second one reckons from the same last sign of life.
            let (table, attached) = attach(lines, first + second);
            assert_eq!(attached, AttachedTokens { kept: 1, expired: 0 }, "{first} s, then {second} s");
            let soon = Tick::from_seconds(NOW + first + second).after(TOKEN_IDLE);
            assert_eq!(table.sweep(0, 8, soon, TOKEN_IDLE), 0);
            assert_ne!(table.find(hash, TOKEN, |_| true), TokenLookup::Unknown);
        }
    }

    #[test]
    fn a_closing_token_goes_on_ageing_in_a_pause() {
        for (pause, kept) in [(96, true), (112, false), (70_000, false)] {
            let (lines, hash) = left(&[TokenEntry { closing: true, ..claim(1, Rank::Seen) }]);
            let (table, _) = attach(lines, pause);
            assert_eq!(table.find(hash, TOKEN, |_| true) != TokenLookup::Unknown, kept, "after {pause} s");
        }
    }

    #[test]
    fn a_claim_behind_slots_that_were_vacated_or_expired_is_found_after_a_pause() {
        let lines = Lines::heap(8);
        let (table, tick) = (TokenTable::new(lines.clone()), Tick::from_seconds(NOW));
        for token in 0..=8 {
            table.learn(HASH, Token(token), BackendId(1), tick, |_| true);
        }
        let owner = TokenLookup::Owner { backend: BackendId(1), rank: Rank::Provisional };
        assert_eq!(table.find(HASH, Token(8), |_| true), owner);
        assert!(!table.is_in_first_line(HASH, Token(8)));
        let line = table.places.line(table.places.primary(HASH)).unwrap();
        line.0[0].store(vacated(tick), Ordering::Relaxed);
        line.0[1].store(TokenEntry { closing: true, ..claim(1, Rank::Seen) }.word(), Ordering::Relaxed);

        let pause = 400;
        let (table, attached) = attach(lines, pause);
        assert_eq!(attached, AttachedTokens { kept: 7, expired: 1 });
        assert_eq!(table.find(HASH, Token(8), |_| true), owner);
        // It lives on as long as it is touched, and whatever becomes of the others the look-up does not stop short.
        let mut now = Tick::from_seconds(NOW + pause);
        for _ in 0..10 {
            now = now.after(TOKEN_IDLE);
            table.touch(HASH, Token(8), BackendId(1), now, false);
            table.sweep(0, 8, now, TOKEN_IDLE);
            assert_eq!(table.find(HASH, Token(8), |_| true), owner);
        }
        table.for_each(0, 8, |entry| assert_eq!(entry.token, Token(8)));
    }

    #[test]
    fn every_token_met_twice_is_known_and_few_others_are() {
        let mut met = Met::new(1000);
        for n in 0..5000_u32 {
            met.meet(n.wrapping_mul(0x9e37_79b9));
        }
        let by_chance = met.again.len();
        assert!(by_chance < 300, "{by_chance} of 5,000");
        (0..100_u32).for_each(|n| met.meet(n.wrapping_mul(0x9e37_79b9)));
        assert!((0..100_u32).all(|n| met.again.contains(&n.wrapping_mul(0x9e37_79b9))));
    }
}
