//! Which backend a token's connection lives on: a lock-free table of one word a claim, shared by all workers.
//!
//! Why it is handwritten: a join carries nothing but the token, a flood of them must cost one cache line
//! each, and the table may outlive the process. Because a claim fits a word, every change is one
//! compare-exchange, nothing tears, and nothing has to be reclaimed.
//!
//! # Shape
//!
//! A line is 64 bytes: eight words ([`crate::token_entry`]). Where a token may live: [`crate::place`]. The
//! hash is that of token *and pool*, so the same token in two pools is two entries, nearly always in
//! different lines; where they do share a line, `belongs` (is this backend of the pool in question?) tells
//! them apart.
//!
//! # Where a look-up stops
//!
//! Most joins of a flood name tokens that nobody has. They must not cost more lines than joins that find
//! their token, though a claim may live in any of four. So a slot that is free tells whether it ever was in use: it
//! is **unused** (zero) or **vacated** (when?).
//!
//! **Invariant:** where a line of the main area has an unused slot, no claim that came to this line lives in a later
//! one of its candidates. A look-up that does not find its token there stops, as does a newcomer that finds a slot.
//!
//! How it is kept: a claim goes to a later line only where the earlier ones have no free slot, and a claim that goes
//! leaves its slot vacated. The sweep makes a slot unused again only [`VACATED`] ticks later. A claim in a later line
//! that lives longer than that is touched meanwhile, and every touch first marks the free slots of the earlier lines
//! as vacated now: the marks are younger than the claim's tick, so they outlast the claim. Where a touch finds an
//! unused slot, or its claim expired, a newcomer may have stopped short of it: it settles the claim anew.
//!
//! # Who owns a token
//!
//! A **claim** is (token, backend, rank). Two claims of one token and pool for different backends are
//! **rivals**.
//! - A higher rank wins. An established claim (seen, proven) refuses a newcomer: [`Learn::Conflict`].
//! - Provisional rivals are both kept, both marked ambiguous, and neither answers until one is raised or
//!   gone.
//! - An expired claim is no rival, whatever its rank; a newcomer takes its slot.
//! - A closing claim is a rival until it expires; nothing prolongs it.
//! - At most [`MAX_CLAIMS`] claims of one token and pool are kept. One more would change no answer, only
//!   fill lines.
//! - Where there is no room, the oldest provisional claim to another token gives way: by one compare-exchange of
//!   its word, so one that was raised or touched meanwhile stays. An established claim gives way to nothing.
//!
//! **Invariant:** when no call is under way, a claim without the ambiguous bit has no rival of equal or
//! higher rank, and so a look-up may stop at it. The bit may be set without need (a rival that expired,
//! another pool's claim in the same line): then a look-up reads on and decides by rank, and the next touch
//! clears it.
//!
//! How it is kept: whoever has added, raised or unmarked a claim fences (`SeqCst`) and then looks at all
//! claims of that token, and marks. Of two workers that do so, one is second in the order of the fences and
//! sees the other's word. A bit is cleared only by the touch of its own claim, which then fences and looks
//! once more. A raised claim marks rivals of equal rank and itself.

mod attach;
mod claim;
mod prove;

use ipc::id::BackendId;
use ipc::limits::MAX_CLAIMS;
use ipc::lines::{Line, Lines};
use ipc::sync::{AtomicU64, Ordering};
use packet::Token;

pub use self::attach::AttachedTokens;
use self::claim::{Claim, Held};
pub use self::prove::{Proof, Vouched};
use crate::place::Places;
use crate::tick::Tick;
use crate::token_entry::{Rank, TokenEntry, is_free, vacated, vacated_at};

/// Slots in a line.
pub const SLOTS: usize = 8;

/// A token nothing touched for this many ticks may be replaced by another claim. A pass of the sweep touches
/// the token of every live flow; six ticks are at least 60 s after the last one ended.
pub const TOKEN_IDLE: u16 = 6;

/// A slot that was vacated for more than this many ticks counts as unused again: longer than a claim lives that nothing
/// touched, and two ticks for workers whose clocks differ.
const VACATED: u16 = TOKEN_IDLE + 2;

/// How often a change starts again after it lost a race.
const ATTEMPTS: usize = if cfg!(loom) { 4 } else { 8 };

/// What is known of a token in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenLookup {
    /// One claim is better than all others.
    Owner {
        /// Where the token's connection lives.
        backend: BackendId,
        /// How well that is known.
        rank: Rank,
    },
    /// Claims of equal rank for several backends.
    Ambiguous,
    /// No claim.
    Unknown,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learn {
    /// The token is known now.
    New,
    /// The backend had it already.
    Repeated,
    /// An established owner on another backend has it: refused.
    Conflict,
    /// Another backend has as good a claim.
    Ambiguous,
    /// No place, or more lost races than are worth another attempt.
    Full,
}

/// The token table. Workers share it by reference.
#[derive(Debug)]
pub struct TokenTable {
    places: Places,
}

impl TokenTable {
    /// How many lines a table for `entries` tokens needs: 13 bytes a token, a load of 0.63.
    pub const fn lines_for(entries: usize) -> usize {
        entries.saturating_mul(13).div_ceil(64).saturating_add(16)
    }

    /// A table over lines that are all zero, or that another table shows in good order.
    pub fn new(lines: Lines) -> Self {
        let is_used = |word: &AtomicU64| u64::from(!is_free(word.load(Ordering::Relaxed)));
        let used = |line: &Line| line.0.iter().map(is_used).sum();
        Self { places: Places::new(lines, used) }
    }

    /// How many lines there are, for the sweep.
    #[inline]
    pub fn lines(&self) -> usize {
        self.places.len()
    }

    /// How many slots there are. A table is meant to be filled to about 0.6: [`TokenTable::lines_for`].
    pub fn capacity(&self) -> usize {
        self.places.len() * SLOTS
    }

    /// How many claims live in the overflow area.
    pub fn spilled(&self) -> u64 {
        self.places.spilled()
    }

    /// Starts to bring the first line of a hash near.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.places.prefetch_primary(hash);
    }

    /// Starts to bring the second line of a hash near, if its first line (prefetched before) does not hold the token
    /// and does not rule it out.
    #[inline]
    pub fn prefetch_rest(&self, hash: u64, token: Token) {
        let primary = self.places.primary(hash);
        let Some(line) = self.places.line(primary).filter(|line| matching(line, token) == 0) else {
            return;
        };
        // Without a branch: whether a line is full cannot be predicted.
        let next = core::hint::select_unpredictable(has_unused(line), primary, self.places.alternate(hash));
        self.places.prefetch(next);
    }

    /// The owner of a token among the backends that `belongs` accepts: those of the pool in question.
    #[inline]
    pub fn find(&self, hash: u64, token: Token, belongs: impl Fn(BackendId) -> bool) -> TokenLookup {
        let number = self.places.primary(hash);
        let Some(line) = self.places.line(number) else {
            return TokenLookup::Unknown;
        };
        let mask = matching(line, token);
        if mask == 0 {
            return if has_unused(line) {
                TokenLookup::Unknown
            } else {
                self.find_further(hash, token, &belongs)
            };
        }
        unmarked(held_in(line, number, mask, token), &belongs)
            .unwrap_or_else(|| self.find_by_rank(hash, token, &belongs))
    }

    /// Whether the first line of a hash answers alone, so that a look-up costs one cache miss.
    pub fn is_in_first_line(&self, hash: u64, token: Token) -> bool {
        unmarked(self.held(self.places.primary(hash), token), &|_| true).is_some()
    }

    /// Enters a backend's claim to a token.
    pub fn learn(
        &self,
        hash: u64,
        token: Token,
        backend: BackendId,
        now: Tick,
        belongs: impl Fn(BackendId) -> bool,
    ) -> Learn {
        self.enter(hash, token, backend, now, belongs).0
    }

    /// The same, and whether a claim to another token gave way: where there is no room, the oldest provisional one.
    pub fn enter(
        &self,
        hash: u64,
        token: Token,
        backend: BackendId,
        now: Tick,
        belongs: impl Fn(BackendId) -> bool,
    ) -> (Learn, bool) {
        let claim = Claim { hash, token, backend, now, belongs: &belongs };
        if let Some(learned) = self.enter_alone(&claim) {
            return (learned, false);
        }
        self.enter_among(&claim)
    }

    /// Enters a claim that may have rivals, or finds its first line full.
    #[inline(never)]
    fn enter_among<F: Fn(BackendId) -> bool>(&self, claim: &Claim<'_, F>) -> (Learn, bool) {
        for _ in 0..ATTEMPTS {
            let survey = self.survey(claim);
            if let Some(own) = survey.own {
                // A claim that is closing stays as it is.
                self.touch(claim.hash, claim.token, own.entry.backend, claim.now, false);
                return (Learn::Repeated, false);
            }
            if survey.established_rival {
                return (Learn::Conflict, false);
            }
            if survey.rivals >= MAX_CLAIMS {
                return (Learn::Ambiguous, false);
            }
            let free = self.free_slot(claim, &survey);
            let Some((place, held)) = free.or_else(|| self.least_slot(claim)) else {
                return (Learn::Full, false);
            };
            self.mark_passed(claim, place);
            if self.exchange(place, held, claim.word(survey.rivals > 0)) {
                return (self.settle_new(claim, place), free.is_none());
            }
        }
        (Learn::Full, false)
    }

    /// Writes that a subflow of the token was seen, unless the claim is closing; `promote` raises a
    /// provisional claim to seen. Says whether it was raised by this call.
    pub fn touch(&self, hash: u64, token: Token, backend: BackendId, now: Tick, promote: bool) -> bool {
        // No `belongs` here: what another pool's claim in the same lines can do is leave a bit set without
        // need.
        let claim = Claim { hash, token, backend, now, belongs: &|_: BackendId| true };
        let mut unseen = false;
        for _ in 0..ATTEMPTS {
            let Some(own) = self.own(&claim) else { return false };
            let raised = promote && !own.entry.is_established();
            if own.entry.is_ending() || (own.entry.tick == now && !raised) {
                if unseen {
                    self.settle_own(&claim, own.place);
                }
                return false;
            }
            unseen |= self.make_seen(&claim, &own);
            if self.refresh(&claim, &own, promote) {
                if raised || unseen || own.entry.ambiguous {
                    self.settle_own(&claim, own.place);
                }
                return raised;
            }
        }
        false
    }

    /// Starts the end of a token: from now on no touch prolongs it. Says whether it was started by this call. A proven
    /// claim does not end by what packets say.
    pub fn close(&self, hash: u64, token: Token, backend: BackendId, now: Tick) -> bool {
        let claim = Claim { hash, token, backend, now, belongs: &|_: BackendId| true };
        let mut unseen = false;
        for _ in 0..ATTEMPTS {
            let may_close = |own: &Held| !own.entry.closing && own.entry.rank < Rank::Proven;
            let Some(own) = self.own(&claim).filter(may_close) else {
                return false;
            };
            unseen |= self.make_seen(&claim, &own);
            let closing = TokenEntry { closing: true, tick: now, ..own.entry };
            if self.exchange(own.place, own.word, closing.word()) {
                if unseen {
                    self.settle_own(&claim, own.place);
                }
                return true;
            }
        }
        false
    }

    /// Removes the claims of `lines` lines from `from` on that were silent for more than `idle` ticks; says
    /// how many. Slots that were vacated long before become unused.
    pub fn sweep(&self, from: usize, lines: usize, now: Tick, idle: u16) -> usize {
        let mut expired = 0;
        for (number, line) in self.places.range(from, lines) {
            for (slot, word) in line.0.iter().enumerate() {
                let held = word.load(Ordering::Relaxed);
                let stale = TokenEntry::from_word(held).is_some_and(|entry| entry.is_expired(now, idle));
                // A lost race means the claim was just touched: it stays.
                if stale && self.exchange(number * SLOTS + slot, held, vacated(now)) {
                    expired += 1;
                }
                if vacated_at(held).is_some_and(|since| now.age_of(since) > VACATED) {
                    self.exchange(number * SLOTS + slot, held, 0);
                }
            }
        }
        expired
    }

    /// Shows `visit` every claim to a token, whatever its pool: for an operator's question, not for packets.
    pub fn claims(&self, hash: u64, token: Token, mut visit: impl FnMut(&TokenEntry)) {
        for held in self.all_held(hash, token) {
            visit(&held.entry);
        }
    }

    /// Shows `visit` all claims of `lines` lines from `from` on.
    pub fn for_each(&self, from: usize, lines: usize, mut visit: impl FnMut(&TokenEntry)) {
        for word in self.places.range(from, lines).flat_map(|(_, line)| &line.0) {
            if let Some(entry) = TokenEntry::from_word(word.load(Ordering::Acquire)) {
                visit(&entry);
            }
        }
    }

    /// The owner of a token that is not in its first line, which is full.
    #[inline(never)]
    fn find_further(&self, hash: u64, token: Token, belongs: &impl Fn(BackendId) -> bool) -> TokenLookup {
        match self.places.line(self.places.alternate(hash)) {
            Some(line) if matching(line, token) == 0 && has_unused(line) => TokenLookup::Unknown,
            _ => self.find_by_rank(hash, token, belongs),
        }
    }

    /// The better of all claims, if one is.
    #[inline(never)]
    fn find_by_rank(&self, hash: u64, token: Token, belongs: &impl Fn(BackendId) -> bool) -> TokenLookup {
        let mut best: Option<TokenEntry> = None;
        let mut tied = false;
        for number in self.places.candidates(hash, self.places.has_spilled()) {
            for entry in
                self.held(number, token).map(|held| held.entry).filter(|entry| belongs(entry.backend))
            {
                if !entry.ambiguous {
                    return TokenLookup::Owner { backend: entry.backend, rank: entry.rank };
                }
                match best {
                    Some(before) if before.rank > entry.rank || before.backend == entry.backend => {}
                    Some(before) if before.rank == entry.rank => tied = true,
                    _ => (best, tied) = (Some(entry), false),
                }
            }
            if !self.places.is_overflow(number) && self.places.line(number).is_some_and(has_unused) {
                break;
            }
        }
        match best {
            None => TokenLookup::Unknown,
            Some(_) if tied => TokenLookup::Ambiguous,
            Some(entry) => TokenLookup::Owner { backend: entry.backend, rank: entry.rank },
        }
    }

    /// The claims of a token in one line.
    #[inline]
    fn held(&self, number: usize, token: Token) -> impl Iterator<Item = Held> {
        let line = self.places.line(number);
        line.into_iter().flat_map(move |line| held_in(line, number, matching(line, token), token))
    }

    /// All claims of a token, in the order of search.
    fn all_held(&self, hash: u64, token: Token) -> impl Iterator<Item = Held> {
        let numbers = self.places.candidates(hash, self.places.has_spilled());
        numbers.flat_map(move |number| self.held(number, token))
    }

    /// Writes now as the time a claim was last seen, unless it is closing.
    fn refresh<F>(&self, claim: &Claim<'_, F>, own: &Held, promote: bool) -> bool {
        if own.entry.is_ending() {
            return false;
        }
        let rank = if promote { own.entry.rank.max(Rank::Seen) } else { own.entry.rank };
        let word = TokenEntry { tick: claim.now, rank, ..own.entry }.word();
        word == own.word || self.exchange(own.place, own.word, word)
    }

    /// The one way a word changes; keeps count of the overflow area.
    fn exchange(&self, place: usize, from: u64, to: u64) -> bool {
        let Some(word) = self.word(place) else {
            return false;
        };
        let (was_free, becomes_free) = (is_free(from), is_free(to));
        if was_free && !becomes_free {
            self.places.count_used(place / SLOTS);
        }
        let done = word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if was_free != becomes_free && done == becomes_free {
            self.places.count_free(place / SLOTS);
        }
        done
    }

    /// The word of a place.
    #[inline]
    fn word(&self, place: usize) -> Option<&AtomicU64> {
        self.places.line(place / SLOTS)?.0.get(place % SLOTS)
    }
}

/// The slots of a line whose token is this one, as bits. Without branches: which slot it is cannot be
/// predicted. A free slot may be among them.
#[inline(always)]
fn matching(line: &Line, token: Token) -> u32 {
    line.with_upper_half(token.0)
}

/// Whether a line has a slot that was not in use for long: nothing went on from here to a later line.
#[inline(always)]
fn has_unused(line: &Line) -> bool {
    line.alike(u64::MAX, 0) != 0
}

/// The claims of a token among the slots of `mask`.
#[inline]
fn held_in(line: &Line, number: usize, mut mask: u32, token: Token) -> impl Iterator<Item = Held> {
    core::iter::from_fn(move || {
        // Bounded by the bits of the mask: each turn clears one.
        while mask != 0 {
            let slot = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            // Loaded again after the comparison: the slot may have changed hands in between.
            let Some(word) = line.0.get(slot) else { continue };
            let word = word.load(Ordering::Acquire);
            match TokenEntry::from_word(word) {
                Some(entry) if entry.token == token => {
                    return Some(Held { place: number * SLOTS + slot, word, entry });
                }
                _ => {}
            }
        }
        None
    })
}

/// The first claim that needs no comparison with others.
#[inline]
fn unmarked(claims: impl Iterator<Item = Held>, belongs: &impl Fn(BackendId) -> bool) -> Option<TokenLookup> {
    claims
        .map(|held| held.entry)
        .filter(|entry| !entry.ambiguous && belongs(entry.backend))
        .map(|entry| TokenLookup::Owner { backend: entry.backend, rank: entry.rank })
        .next()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const HASH: u64 = 0x5555_6666_7777_8888;
    const TOKEN: Token = Token(0x913e_6c21);
    const A: BackendId = BackendId(1);
    const B: BackendId = BackendId(2);

    fn at(tick: u64) -> Tick {
        Tick::from_seconds(16 * tick)
    }

    fn table() -> TokenTable {
        TokenTable::new(Lines::heap(8))
    }

    fn learn(table: &TokenTable, backend: BackendId, now: Tick) -> Learn {
        table.learn(HASH, TOKEN, backend, now, |_| true)
    }

    fn find(table: &TokenTable) -> TokenLookup {
        table.find(HASH, TOKEN, |_| true)
    }

    #[test]
    fn a_learned_token_has_its_owner_and_a_repeat_changes_nothing() {
        let table = table();
        assert_eq!(find(&table), TokenLookup::Unknown);
        assert_eq!(learn(&table, A, at(0)), Learn::New);
        assert_eq!(learn(&table, A, at(0)), Learn::Repeated);
        assert_eq!(find(&table), TokenLookup::Owner { backend: A, rank: Rank::Provisional });
    }

    #[test]
    fn an_established_owner_is_neither_displaced_nor_made_ambiguous() {
        let table = table();
        learn(&table, A, at(0));
        assert!(table.touch(HASH, TOKEN, A, at(1), true));
        assert!(!table.touch(HASH, TOKEN, A, at(2), true), "raised once only");
        assert_eq!(learn(&table, B, at(2)), Learn::Conflict);
        assert!(table.is_in_first_line(HASH, TOKEN), "not even marked");
        assert_eq!(find(&table), TokenLookup::Owner { backend: A, rank: Rank::Seen });
    }

    #[test]
    fn two_provisional_claims_are_ambiguous_until_one_is_established() {
        let table = table();
        learn(&table, A, at(0));
        assert_eq!(learn(&table, B, at(0)), Learn::Ambiguous);
        assert_eq!(find(&table), TokenLookup::Ambiguous);
        table.touch(HASH, TOKEN, B, at(1), true);
        assert_eq!(find(&table), TokenLookup::Owner { backend: B, rank: Rank::Seen });
    }

    #[test]
    fn a_claim_that_is_alone_again_loses_its_mark_at_the_next_touch() {
        let table = table();
        learn(&table, A, at(0));
        learn(&table, B, at(0));
        table.touch(HASH, TOKEN, A, at(5), false);
        assert_eq!(table.sweep(0, 8, at(7), TOKEN_IDLE), 1);
        assert!(!table.is_in_first_line(HASH, TOKEN), "still marked");
        table.touch(HASH, TOKEN, A, at(8), false);
        assert!(table.is_in_first_line(HASH, TOKEN));
    }

    #[test]
    fn one_token_in_two_pools_is_two_entries_even_in_one_line() {
        let table = table();
        let first = |backend: BackendId| backend == A;
        let second = |backend: BackendId| backend == B;
        assert_eq!(table.learn(HASH, TOKEN, A, at(0), first), Learn::New);
        assert_eq!(table.learn(HASH, TOKEN, B, at(0), second), Learn::New);
        assert_eq!(
            table.find(HASH, TOKEN, first),
            TokenLookup::Owner { backend: A, rank: Rank::Provisional }
        );
        assert_eq!(
            table.find(HASH, TOKEN, second),
            TokenLookup::Owner { backend: B, rank: Rank::Provisional }
        );
        // A touch does not know pools: it may mark without need, and every answer stays what it was.
        table.touch(HASH, TOKEN, A, at(1), true);
        assert_eq!(
            table.find(HASH, TOKEN, second),
            TokenLookup::Owner { backend: B, rank: Rank::Provisional }
        );
        assert_eq!(table.find(HASH, TOKEN, first), TokenLookup::Owner { backend: A, rank: Rank::Seen });
    }

    #[test]
    fn a_closing_owner_holds_its_token_for_its_idle_time_and_no_longer() {
        let table = table();
        learn(&table, A, at(0));
        table.touch(HASH, TOKEN, A, at(1), true);
        assert!(table.close(HASH, TOKEN, A, at(2)));
        assert!(!table.close(HASH, TOKEN, A, at(4)), "closing twice does not prolong it");
        assert!(!table.touch(HASH, TOKEN, A, at(5), true), "nor does traffic");
        let last = 2 + u64::from(TOKEN_IDLE);
        assert_eq!(learn(&table, B, at(last)), Learn::Conflict);
        assert_eq!(learn(&table, B, at(last + 1)), Learn::New);
        assert_eq!(find(&table), TokenLookup::Owner { backend: B, rank: Rank::Provisional });
    }

    #[test]
    fn claims_beyond_the_kept_ones_are_answered_but_not_stored() {
        let table = table();
        for backend in 1..=10 {
            learn(&table, BackendId(backend), at(0));
        }
        let mut claims = 0;
        table.for_each(0, table.lines(), |claim| {
            assert!(claim.ambiguous);
            claims += 1;
        });
        assert_eq!(claims, MAX_CLAIMS);
    }

    #[test]
    fn a_token_of_zero_is_a_token_and_an_empty_slot_is_not() {
        let table = table();
        assert_eq!(table.find(HASH, Token(0), |_| true), TokenLookup::Unknown);
        assert_eq!(table.learn(HASH, Token(0), A, at(0), |_| true), Learn::New);
        assert!(matches!(table.find(HASH, Token(0), |_| true), TokenLookup::Owner { backend: A, .. }));
    }

    #[test]
    fn a_full_table_says_so_and_takes_the_place_of_expired_claims() {
        let table = TokenTable::new(Lines::heap(1));
        for n in 0..8 {
            assert_eq!(table.learn(HASH, Token(n), A, at(0), |_| true), Learn::New);
            assert!(table.touch(HASH, Token(n), A, at(0), true), "a provisional one would give way");
        }
        assert_eq!(table.learn(HASH, Token(8), A, at(0), |_| true), Learn::Full);
        let late = at(u64::from(TOKEN_IDLE) + 1);
        assert_eq!(table.learn(HASH, Token(8), A, late, |_| true), Learn::New);
        assert_eq!(table.sweep(0, 1, late, TOKEN_IDLE), 7);
    }

    #[test]
    fn a_new_table_over_used_lines_counts_what_lives_in_the_overflow_area() {
        let lines = Lines::heap(4);
        let table = TokenTable::new(lines.clone());
        for n in 0..20 {
            table.learn(HASH, Token(n), A, at(0), |_| true);
        }
        assert_eq!(table.spilled(), 4);
        let again = TokenTable::new(lines);
        assert_eq!(again.spilled(), 4);
        assert!(matches!(again.find(HASH, Token(19), |_| true), TokenLookup::Owner { backend: A, .. }));
        again.sweep(0, 4, at(100), TOKEN_IDLE);
        assert_eq!(again.spilled(), 0);
    }

    #[test]
    fn where_there_is_no_room_the_oldest_provisional_claim_gives_way_and_no_established_one() {
        let table = TokenTable::new(Lines::heap(1));
        for n in 1..=8 {
            assert_eq!(table.learn(HASH, Token(n), A, at(u64::from(n)), |_| true), Learn::New);
        }
        for n in [1, 2, 4, 5, 6, 7, 8] {
            assert!(table.touch(HASH, Token(n), A, at(8), true), "raised");
        }
        assert_eq!(table.enter(HASH, Token(9), A, at(8), |_| true), (Learn::New, true));
        assert_eq!(table.find(HASH, Token(3), |_| true), TokenLookup::Unknown);
        assert_eq!(
            table.enter(HASH, Token(10), A, at(9), |_| true),
            (Learn::New, true),
            "the newest if it must"
        );
        assert!(table.touch(HASH, Token(10), A, at(10), true));
        assert_eq!(table.enter(HASH, Token(11), A, at(10), |_| true), (Learn::Full, false));
        for n in [1, 2, 4, 5, 6, 7, 8, 10] {
            assert_ne!(table.find(HASH, Token(n), |_| true), TokenLookup::Unknown, "token {n}");
        }
    }

    #[test]
    fn a_claim_does_not_give_way_to_its_own_rival() {
        let table = TokenTable::new(Lines::heap(1));
        for n in 1..=8 {
            table.learn(HASH, Token(n), A, at(0), |_| true);
            table.touch(HASH, Token(n), A, at(0), n != 8);
        }
        assert_eq!(table.enter(HASH, Token(8), B, at(0), |_| true), (Learn::Full, false));
        assert_eq!(
            table.find(HASH, Token(8), |_| true),
            TokenLookup::Owner { backend: A, rank: Rank::Provisional }
        );
    }
}
