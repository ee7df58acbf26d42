//! Claims that the agent on a backend makes: proven at once, and gone the moment it says so.
//!
//! The rules of ownership are in the header of [`crate::token_table`]. A proven claim outranks what handshakes and
//! traffic taught; of two backends' agents the first holds the token until it lets go, so a lying agent takes no token
//! that another agent has proven. Nothing that packets say closes a proven claim. One thread calls what is here: the
//! manager; workers learn, touch and look up meanwhile (`tests/loom_token_table.rs`).

use ipc::id::BackendId;
use ipc::limits::MAX_CLAIMS;
use ipc::sync::{Ordering, fence};
use packet::Token;

use super::claim::{Claim, Held};
use super::{ATTEMPTS, SLOTS, TOKEN_IDLE, TokenTable};
use crate::tick::Tick;
use crate::token_entry::{Rank, TokenEntry, vacated};

/// From which age on, in ticks, a proven claim is renewed: not sooner than needed, since renewing is a write.
const RENEW_AGE: u16 = TOKEN_IDLE / 3;

/// What became of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The token is known now, and proven.
    New,
    /// The same, and a provisional claim to another token gave way.
    Over,
    /// The backend had claimed it already; it is proven now.
    Raised,
    /// It was proven already.
    Known,
    /// Another backend's agent proved it before, and has not let go.
    Refused,
    /// No place, or more lost races than are worth another attempt.
    Full,
}

/// What becomes of a proven claim when a pass comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vouched {
    /// Its agent is there: it lives on. The claim's hash.
    Renewed(u64),
    /// Its agent has told all there is, and not this.
    Withdrawn,
    /// It expires as others do.
    Left,
}

impl TokenTable {
    /// Enters a backend's claim to a token as proven, or raises the one it has. A closing one lives again. `round` is
    /// kept with it.
    pub fn prove(
        &self,
        hash: u64,
        token: Token,
        backend: BackendId,
        (now, round): (Tick, bool),
        belongs: impl Fn(BackendId) -> bool,
    ) -> Proof {
        let claim = Claim { hash, token, backend, now, belongs: &belongs };
        let mut entered = None;
        for _ in 0..ATTEMPTS {
            if self.all_held(hash, token).any(|held| is_proven_rival(&held, &claim)) {
                return Proof::Refused;
            }
            if let Some(own) = self.own(&claim) {
                let proven = TokenEntry { tick: now, rank: Rank::Proven, closing: round, ..own.entry };
                self.mark_passed(&claim, own.place);
                if proven.word() == own.word || self.exchange(own.place, own.word, proven.word()) {
                    self.settle_own(&claim, own.place);
                    let was_proven = own.entry.rank == Rank::Proven;
                    let raised = if was_proven { Proof::Known } else { Proof::Raised };
                    return entered.unwrap_or(raised);
                }
                continue;
            }
            let Some((place, held)) = self.place_of_proof(&claim) else { return Proof::Full };
            self.mark_passed(&claim, place);
            if self.exchange(place, held, proven_word(&claim, round)) {
                entered = Some(Self::room_of_proof(&claim, held));
                fence(Ordering::SeqCst);
                // A worker may have entered the same claim meanwhile. The next turn finds the first of the two, which
                // stays, and raises it.
                self.drop_twins(&claim);
            }
        }
        let Some((own, proof)) = self.own(&claim).zip(entered) else { return Proof::Full };
        self.settle_own(&claim, own.place);
        proof
    }

    /// Removes a backend's claim to a token, whatever its rank. Says whether there was one.
    pub fn withdraw_claim(&self, hash: u64, token: Token, backend: BackendId, now: Tick) -> bool {
        let claim = Claim { hash, token, backend, now, belongs: &|_: BackendId| true };
        for _ in 0..ATTEMPTS {
            let Some(own) = self.own(&claim) else { return false };
            if self.exchange(own.place, own.word, vacated(now)) {
                return true;
            }
        }
        false
    }

    /// Goes through the proven claims of `lines` lines from `from` on: writes now as the time at which those were last
    /// seen that are renewed, and removes those that are withdrawn. Says how many went.
    pub fn renew(&self, from: usize, lines: usize, now: Tick, judge: impl Fn(&TokenEntry) -> Vouched) -> u64 {
        let mut withdrawn = 0;
        for (number, line) in self.places.range(from, lines) {
            for (slot, word) in line.0.iter().enumerate() {
                let held = word.load(Ordering::Relaxed);
                let Some(entry) = TokenEntry::from_word(held) else { continue };
                if entry.rank != Rank::Proven {
                    continue;
                }
                let hash = match judge(&entry) {
                    Vouched::Renewed(hash) if now.age_of(entry.tick) >= RENEW_AGE => hash,
                    Vouched::Renewed(_) | Vouched::Left => continue,
                    Vouched::Withdrawn => {
                        // A lost race means it was just said again, or touched: the next pass sees it.
                        withdrawn += u64::from(self.exchange(number * SLOTS + slot, held, vacated(now)));
                        continue;
                    }
                };
                let (token, backend) = (entry.token, entry.backend);
                let claim = Claim { hash, token, backend, now, belongs: &|_: BackendId| true };
                let own = Held { place: number * SLOTS + slot, word: held, entry };
                let unseen = self.make_seen(&claim, &own);
                // A lost race means it was just touched, or closed.
                self.exchange(own.place, held, TokenEntry { tick: now, ..entry }.word());
                if unseen {
                    self.settle_own(&claim, own.place);
                }
            }
        }
        withdrawn
    }

    /// The slot a proven claim takes, and what it holds now. Where there are as many rivals as are kept, that of the
    /// least of them: it would never answer again.
    fn place_of_proof<F: Fn(BackendId) -> bool>(&self, claim: &Claim<'_, F>) -> Option<(usize, u64)> {
        let survey = self.survey(claim);
        if survey.rivals >= MAX_CLAIMS {
            let rivals = self.all_held(claim.hash, claim.token);
            let least = rivals.filter(|held| (claim.belongs)(held.entry.backend));
            return least.min_by_key(|held| held.entry.rank).map(|held| (held.place, held.word));
        }
        self.free_slot(claim, &survey).or_else(|| self.least_slot(claim))
    }

    /// What a proof that took the place of this word came to.
    fn room_of_proof<F>(claim: &Claim<'_, F>, held: u64) -> Proof {
        let other = TokenEntry::from_word(held).filter(|entry| !entry.is_expired(claim.now, TOKEN_IDLE));
        if other.is_some_and(|entry| entry.token != claim.token) { Proof::Over } else { Proof::New }
    }

    /// Of several claims for one backend, the first in the order of search stays.
    fn drop_twins<F>(&self, claim: &Claim<'_, F>) {
        let own = self.all_held(claim.hash, claim.token).filter(|held| held.entry.backend == claim.backend);
        for twin in own.skip(1) {
            self.exchange(twin.place, twin.word, vacated(claim.now));
        }
    }
}

/// Whether another backend of the pool holds the token by proof.
fn is_proven_rival<F: Fn(BackendId) -> bool>(held: &Held, claim: &Claim<'_, F>) -> bool {
    held.entry.rank == Rank::Proven
        && held.entry.backend != claim.backend
        && !held.entry.is_expired(claim.now, TOKEN_IDLE)
        && (claim.belongs)(held.entry.backend)
}

/// The word of a new proven claim. It outranks all others, so nothing makes it ambiguous.
fn proven_word<F>(claim: &Claim<'_, F>, round: bool) -> u64 {
    TokenEntry {
        token: claim.token,
        backend: claim.backend,
        tick: claim.now,
        rank: Rank::Proven,
        ambiguous: false,
        closing: round,
    }
    .word()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::token_table::TokenLookup;
    use ipc::lines::Lines;

    #[test]
    fn a_proven_claim_in_a_later_line_is_found_as_long_as_it_is_renewed() {
        const HASH: u64 = 0x5555_6666_7777_8888;
        let (table, mut now) = (TokenTable::new(Lines::heap(8)), Tick::from_seconds(0));
        for token in 0..8 {
            table.learn(HASH, Token(token), BackendId(1), now, |_| true);
        }
        table.prove(HASH, Token(8), BackendId(1), (now, false), |_| true);
        assert!(!table.is_in_first_line(HASH, Token(8)));
        let owner = TokenLookup::Owner { backend: BackendId(1), rank: Rank::Proven };
        for _ in 0..20 {
            now = now.after(2);
            table.renew(0, 8, now, |_| Vouched::Renewed(HASH));
            table.sweep(0, 8, now, TOKEN_IDLE);
            assert_eq!(table.find(HASH, Token(8), |_| true), owner);
        }
        table.for_each(0, 8, |entry| assert_eq!(entry.token, Token(8)));
    }
}
