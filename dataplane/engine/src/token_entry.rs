//! Who owns a token, in one 64-bit word.
//!
//! ```text
//! token 32 | backend 16 | tick 12 | closing 1 | ambiguous 1 | rank 2
//! ```
//!
//! Because the whole claim fits a word there is nothing to tear and nothing to reclaim: every change is one
//! compare-exchange.
//!
//! Invariants:
//! - A word without a rank holds no claim: it is a free slot. A live word's rank is 1 or more.
//! - A free slot is *unused* (a word of zero) or *vacated*: the closing bit and the tick of when it was vacated, or
//!   marked so. What that tells a look-up: [`crate::token_table`].
//! - The ambiguous bit says only "look at all claims of this token before you answer". It may be set without
//!   need, never missing where two claims of one pool are of equal rank ([`crate::token_table`] keeps that).

use ipc::id::BackendId;
use packet::Token;

use crate::tick::Tick;

const RANK: u64 = 0b0011;
const AMBIGUOUS: u64 = 0b0100;
const CLOSING: u64 = 0b1000;

/// The bits of a word that are all zero where it holds no claim.
pub(crate) const CLAIMED: u64 = RANK;

/// The word of a slot that was vacated, or passed on the way to another line, at `tick`.
#[inline]
pub(crate) const fn vacated(tick: Tick) -> u64 {
    tick.bits() << 4 | CLOSING
}

/// Whether a word holds no claim.
#[inline]
pub(crate) const fn is_free(word: u64) -> bool {
    word & CLAIMED == 0
}

/// When a slot was vacated; `None` if it is unused or holds a claim.
#[inline]
pub(crate) const fn vacated_at(word: u64) -> Option<Tick> {
    if is_free(word) && word != 0 { Some(Tick::from_bits(word >> 4)) } else { None }
}

/// How well a claim is known. A higher one wins over a lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Rank {
    /// A handshake was seen.
    Provisional = 1,
    /// DSS traffic was followed for some seconds: proves life, not truth.
    Seen = 2,
    /// The backend's own agent said so.
    Proven = 3,
}

/// One claim: this token's connection lives on this backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenEntry {
    /// The token.
    pub token: Token,
    /// Where its connection lives.
    pub backend: BackendId,
    /// When a subflow of it was last seen.
    pub tick: Tick,
    /// How well it is known.
    pub rank: Rank,
    /// Another claim may be as good.
    pub ambiguous: bool,
    /// The connection said it ends; nothing prolongs its life any more. Of a proven claim, which ends by its agent's word
    /// only: in which of two rounds the agent last said it ([`crate::reported::Reports::round`]).
    pub closing: bool,
}

impl TokenEntry {
    /// An established owner: newcomers neither displace it nor make it ambiguous.
    #[inline]
    pub const fn is_established(&self) -> bool {
        matches!(self.rank, Rank::Seen | Rank::Proven)
    }

    /// Whether nothing prolongs its life any more.
    #[inline]
    pub const fn is_ending(&self) -> bool {
        self.closing && !matches!(self.rank, Rank::Proven)
    }

    /// Whether it was silent (or closing) for longer than `idle` ticks.
    #[inline]
    pub const fn is_expired(&self, now: Tick, idle: u16) -> bool {
        now.age_of(self.tick) > idle
    }

    /// The word of this entry.
    #[inline]
    pub(crate) const fn word(&self) -> u64 {
        (self.token.0 as u64) << 32
            | (self.backend.0 as u64) << 16
            | self.tick.bits() << 4
            | if self.closing { CLOSING } else { 0 }
            | if self.ambiguous { AMBIGUOUS } else { 0 }
            | self.rank as u64
    }

    /// The entry of a word, unless the slot is empty.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each field is shifted to the bottom and cut to its width"
    )]
    pub(crate) const fn from_word(word: u64) -> Option<Self> {
        let rank = match word & RANK {
            1 => Rank::Provisional,
            2 => Rank::Seen,
            3 => Rank::Proven,
            _ => return None,
        };
        Some(Self {
            token: Token((word >> 32) as u32),
            backend: BackendId((word >> 16) as u16),
            tick: Tick::from_bits(word >> 4),
            rank,
            ambiguous: word & AMBIGUOUS != 0,
            closing: word & CLOSING != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_back_from_its_word_and_is_never_zero() {
        for rank in [Rank::Provisional, Rank::Seen, Rank::Proven] {
            for bits in 0..4 {
                let entry = TokenEntry {
                    token: Token(0),
                    backend: BackendId(0xfedc),
                    tick: Tick::from_seconds(16 * 0xabc),
                    rank,
                    ambiguous: bits & 1 != 0,
                    closing: bits & 2 != 0,
                };
                assert_ne!(entry.word(), 0);
                assert_eq!(TokenEntry::from_word(entry.word()), Some(entry));
                let named = TokenEntry { token: Token(0xffff_ffff), ..entry };
                assert_eq!(TokenEntry::from_word(named.word()), Some(named));
            }
        }
    }

    #[test]
    fn a_zero_word_and_a_word_without_rank_hold_no_claim() {
        assert_eq!(TokenEntry::from_word(0), None);
        assert_eq!(TokenEntry::from_word(0xffff_ffff_ffff_fff0 | AMBIGUOUS | CLOSING), None);
    }

    #[test]
    fn a_vacated_slot_is_free_and_tells_since_when() {
        let tick = Tick::from_seconds(16 * 0xabc);
        assert_eq!(vacated_at(vacated(tick)), Some(tick));
        assert_ne!(vacated(Tick::from_seconds(0)), 0, "told from an unused one at every time");
        assert!(is_free(vacated(tick)) && is_free(0) && !is_free(1));
        assert_eq!((vacated_at(0), vacated_at(1)), (None, None));
        assert_eq!(TokenEntry::from_word(vacated(tick)), None);
    }

    #[test]
    fn ranks_are_ordered_and_only_a_provisional_claim_is_not_established() {
        assert!(Rank::Provisional < Rank::Seen && Rank::Seen < Rank::Proven);
        let entry = TokenEntry::from_word(0x1_0001_0001).unwrap();
        assert!(!entry.is_established());
        assert!(TokenEntry { rank: Rank::Seen, ..entry }.is_established());
        assert!(TokenEntry { rank: Rank::Proven, ..entry }.is_established());
    }
}
