//! Claims to a token among their rivals: what a newcomer finds, and how marks are kept right.
//!
//! The rules and the argument are in the header of [`crate::token_table`]; `tests/loom_token_table.rs` checks
//! them.

use ipc::id::BackendId;
use ipc::sync::{Ordering, fence};
use packet::Token;

use super::{ATTEMPTS, Learn, SLOTS, TOKEN_IDLE, TokenTable, has_unused, matching};
use crate::tick::Tick;
use crate::token_entry::{CLAIMED, Rank, TokenEntry, is_free, vacated, vacated_at};

/// A claim, where it was found, and the word it was found as.
#[derive(Clone, Copy)]
pub(super) struct Held {
    pub(super) place: usize,
    pub(super) word: u64,
    pub(super) entry: TokenEntry,
}

/// Whose claim is meant, and among whom: what all changes carry along.
pub(super) struct Claim<'a, F> {
    pub(super) hash: u64,
    pub(super) token: Token,
    pub(super) backend: BackendId,
    pub(super) now: Tick,
    pub(super) belongs: &'a F,
}

/// What a survey of the claims found.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) own: Option<Held>,
    /// A claim of the same token and pool that expired: its slot is the first to be taken.
    pub(super) expired: Option<Held>,
    pub(super) rivals: usize,
    pub(super) established_rival: bool,
}

impl<F> Claim<'_, F> {
    /// The claim's word when it is entered.
    pub(super) fn word(&self, ambiguous: bool) -> u64 {
        TokenEntry {
            token: self.token,
            backend: self.backend,
            tick: self.now,
            rank: Rank::Provisional,
            ambiguous,
            closing: false,
        }
        .word()
    }
}

impl TokenTable {
    /// The straight way of most claims: nobody has the token, which the first line alone tells (an unused slot), and
    /// there is room. `None`: no such case, or a lost race, and nothing was changed.
    #[inline]
    pub(super) fn enter_alone<F: Fn(BackendId) -> bool>(&self, claim: &Claim<'_, F>) -> Option<Learn> {
        let number = self.places.primary(claim.hash);
        let line = self.places.line(number)?;
        let free = line.alike(CLAIMED, 0);
        let unused = line.alike(u64::MAX, 0);
        if unused == 0 || matching(line, claim.token) != 0 {
            return None;
        }
        // Unused slots are what look-ups stop at: the others go first.
        let preferred = if free & !unused == 0 { unused } else { free & !unused };
        let slot = preferred.trailing_zeros() as usize;
        // Relaxed: the compare-exchange decides.
        let held = line.0.get(slot)?.load(Ordering::Relaxed);
        if !is_free(held) || !self.exchange(number * SLOTS + slot, held, claim.word(false)) {
            return None;
        }
        // Pairs with the fence of whoever adds, raises or unmarks a rival, and of whoever marks slots as passed: if
        // there still is an unused slot, that one looks at this line later than here, and sees this claim.
        fence(Ordering::SeqCst);
        if matching(line, claim.token) == 1 << slot && has_unused(line) {
            return Some(Learn::New);
        }
        Some(self.settle_new(claim, number * SLOTS + slot))
    }

    /// Before a claim is written to `place`: marks the free slots of the lines that come before it as vacated now, so
    /// that look-ups go on to it. Says whether one of them was unused.
    pub(super) fn mark_passed<F>(&self, claim: &Claim<'_, F>, place: usize) -> bool {
        // The overflow area is always looked at whole.
        let passed = self.places.candidates(claim.hash, false).take_while(|number| *number != place / SLOTS);
        let places = passed.flat_map(|number| number * SLOTS..(number + 1) * SLOTS);
        // All of them, not only as far as the first that was unused.
        places.filter(|place| self.mark_vacated(*place, claim.now)).count() != 0
    }

    /// Marks a slot as vacated now, if it is free. Says whether it was unused.
    fn mark_vacated(&self, place: usize, now: Tick) -> bool {
        let mut was_unused = false;
        for _ in 0..ATTEMPTS {
            let Some(held) = self.word(place).map(|word| word.load(Ordering::Acquire)) else { break };
            let is_marked = vacated_at(held).is_some_and(|since| now.age_of(since) == 0);
            if !is_free(held) || is_marked {
                break;
            }
            was_unused |= held == 0;
            if self.exchange(place, held, vacated(now)) {
                break;
            }
        }
        was_unused
    }

    /// Before an existing claim is written anew: look-ups shall find it, wherever it is. Says whether a newcomer may
    /// have missed it: it could not be seen, or had expired and so counted for nothing.
    pub(super) fn make_seen<F>(&self, claim: &Claim<'_, F>, own: &Held) -> bool {
        self.mark_passed(claim, own.place) || own.entry.is_expired(claim.now, TOKEN_IDLE)
    }

    /// The claim itself, if it is there.
    pub(super) fn own<F>(&self, claim: &Claim<'_, F>) -> Option<Held> {
        self.all_held(claim.hash, claim.token).find(|held| held.entry.backend == claim.backend)
    }

    /// What a newcomer must know of the claims there are. Leaves at most one expired one.
    pub(super) fn survey<F: Fn(BackendId) -> bool>(&self, claim: &Claim<'_, F>) -> Survey {
        let mut survey = Survey::default();
        for held in self.all_held(claim.hash, claim.token) {
            let is_own = held.entry.backend == claim.backend;
            if !is_own && !(claim.belongs)(held.entry.backend) {
                continue;
            }
            if held.entry.is_expired(claim.now, TOKEN_IDLE) {
                // More than one: the others go now, or a look-up could take one of them for the owner.
                if let Some(other) = survey.expired.replace(held) {
                    self.exchange(other.place, other.word, vacated(claim.now));
                }
            } else if is_own {
                survey.own = survey.own.or(Some(held));
            } else {
                survey.rivals += 1;
                survey.established_rival |= held.entry.is_established();
            }
        }
        survey
    }

    /// The slot a new claim takes, and what it holds now: an expired claim of the same token, else the first
    /// that is free or expired.
    pub(super) fn free_slot<F>(&self, claim: &Claim<'_, F>, survey: &Survey) -> Option<(usize, u64)> {
        if let Some(held) = survey.expired {
            return Some((held.place, held.word));
        }
        let is_expired =
            |word| TokenEntry::from_word(word).is_none_or(|entry| entry.is_expired(claim.now, TOKEN_IDLE));
        for number in self.places.candidates(claim.hash, true) {
            let Some(line) = self.places.line(number) else {
                continue;
            };
            // Relaxed: the compare-exchange decides.
            let words = || line.0.iter().map(|word| word.load(Ordering::Relaxed)).enumerate();
            let free = words()
                .find(|(_, word)| vacated_at(*word).is_some())
                .or_else(|| words().find(|(_, word)| *word == 0))
                .or_else(|| words().find(|(_, word)| is_expired(*word)));
            if let Some((slot, word)) = free {
                return Some((number * SLOTS + slot, word));
            }
        }
        None
    }

    /// The slot of the oldest provisional claim to another token in the candidate lines, and what it holds.
    pub(super) fn least_slot<F>(&self, claim: &Claim<'_, F>) -> Option<(usize, u64)> {
        let mut least: Option<(u16, usize, u64)> = None;
        for number in self.places.candidates(claim.hash, true) {
            for (slot, word) in self.places.line(number)?.0.iter().enumerate() {
                // Relaxed: the compare-exchange decides.
                let held = word.load(Ordering::Relaxed);
                let gives_way = |entry: &TokenEntry| !entry.is_established() && entry.token != claim.token;
                let Some(entry) = TokenEntry::from_word(held).filter(gives_way) else {
                    continue;
                };
                let age = claim.now.age_of(entry.tick);
                if least.is_none_or(|(oldest, ..)| age > oldest) {
                    least = Some((age, number * SLOTS + slot, held));
                }
            }
        }
        least.map(|(_, place, held)| (place, held))
    }

    /// After a new claim was entered at `place`: settles it with claims that came at the same time.
    pub(super) fn settle_new<F: Fn(BackendId) -> bool>(&self, claim: &Claim<'_, F>, place: usize) -> Learn {
        fence(Ordering::SeqCst);
        // Of two claims for one backend the first in the order of search stays.
        let mut twins =
            self.all_held(claim.hash, claim.token).filter(|held| held.entry.backend == claim.backend);
        if let Some(first) = twins.next() {
            twins.for_each(|twin| self.withdraw(claim, twin.place));
            if first.place != place {
                return Learn::Repeated;
            }
        }
        if self.survey(claim).established_rival {
            self.withdraw(claim, place);
            return Learn::Conflict;
        }
        if self.mark_rivals(claim, place) { Learn::Ambiguous } else { Learn::New }
    }

    /// After a claim was raised, or may be alone again: clears its bit if nothing contests it.
    pub(super) fn settle_own<F: Fn(BackendId) -> bool>(&self, claim: &Claim<'_, F>, place: usize) {
        if self.mark_rivals(claim, place) {
            return;
        }
        let Some(own) = self.own(claim).filter(|own| own.place == place && own.entry.ambiguous) else {
            return;
        };
        let clear = TokenEntry { ambiguous: false, ..own.entry };
        if self.exchange(place, own.word, clear.word()) {
            // A rival may have come between the look and the clearing.
            self.mark_rivals(claim, place);
        }
    }

    /// Marks what this claim makes ambiguous: rivals of its rank or lower, and itself if there is a rival of
    /// its rank or higher, which is the answer.
    fn mark_rivals<F: Fn(BackendId) -> bool>(&self, claim: &Claim<'_, F>, place: usize) -> bool {
        // Pairs with the same fence of whoever adds, raises or unmarks a rival: one of the two sees the
        // other's word.
        fence(Ordering::SeqCst);
        let Some(own) = self.own(claim) else { return false };
        let mut contested = false;
        for rival in self.all_held(claim.hash, claim.token) {
            let is_rival = rival.entry.backend != claim.backend
                && (claim.belongs)(rival.entry.backend)
                && !rival.entry.is_expired(claim.now, TOKEN_IDLE);
            if is_rival && rival.entry.rank <= own.entry.rank {
                self.mark(claim.token, rival.entry.backend, rival.place);
            }
            contested |= is_rival && rival.entry.rank >= own.entry.rank;
        }
        if contested {
            self.mark(claim.token, claim.backend, place);
        }
        contested
    }

    /// Sets the ambiguous bit of a claim as long as it is at `place`.
    fn mark(&self, token: Token, backend: BackendId, place: usize) {
        self.change(token, backend, place, |entry| TokenEntry { ambiguous: true, ..entry }.word());
    }

    /// Takes a claim back as long as it is at `place`.
    fn withdraw<F>(&self, claim: &Claim<'_, F>, place: usize) {
        self.change(claim.token, claim.backend, place, |_| vacated(claim.now));
    }

    /// Changes a claim that may be touched by others meanwhile.
    fn change(&self, token: Token, backend: BackendId, place: usize, to: impl Fn(TokenEntry) -> u64) {
        for _ in 0..ATTEMPTS {
            let Some(word) = self.word(place).map(|word| word.load(Ordering::Acquire)) else {
                return;
            };
            let entry = TokenEntry::from_word(word).filter(|e| e.token == token && e.backend == backend);
            let Some(entry) = entry else { return };
            if to(entry) == word || self.exchange(place, word, to(entry)) {
                return;
            }
        }
    }
}
