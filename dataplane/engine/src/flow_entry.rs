//! What the flow table remembers of a flow, and how it fits two 64-bit words.
//!
//! ```text
//! word A   isn_low 16 | in-alternate 1 | fingerprint 47
//! word B   state 4 | tick 12 | lasting 1 | moved 1 | backend 14 | aux 32
//! ```
//!
//! Everything that changes while a flow lives is in word B, so an ordinary update is one compare-exchange.
//! Word A changes only when the slot gets another flow, or when a SYN with another ISN reopens the same flow;
//! both go through the busy state ([`crate::flow_table`] has the protocol). The in-alternate bit says that
//! the entry is not in its primary line; with the fingerprint it tells where that is.
//!
//! Invariants:
//! - A word B of zero is an empty slot; state 1 is a slot whose word A is being written.
//! - `aux` holds the ISN until the flow's key is learned, and the token from then on. The low half of the ISN
//!   stays in word A, so that a retransmitted SYN is told from a new one after the token has taken its place.

use ipc::id::BackendId;
use ipc::limits::MAX_BACKENDS;

use crate::tick::Tick;

/// Bits of word A that tell one flow from another.
pub(crate) const FINGERPRINT: u64 = (1 << 47) - 1;

/// The bit of word A that says the entry is in its alternate line.
pub(crate) const IN_ALTERNATE: u64 = 1 << 47;

/// Word B of a slot that nobody uses.
pub(crate) const EMPTY: u64 = 0;

/// Word B of a slot whose word A is being written.
pub(crate) const BUSY: u64 = 1 << 60;

/// The bit of word B that says the flow outlived its beginning.
const LASTING: u64 = 1 << 47;

/// The bit of word B that says Maglev would not choose the flow's backend.
const MOVED: u64 = 1 << 46;

/// The bits of a backend.
const BACKEND: u64 = (1 << 14) - 1;

const _: () = assert!(MAX_BACKENDS <= 1 << 14, "a backend's id is 14 bits in the flow table");

/// Where a flow stands. The order is that of the words, not one of worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FlowState {
    /// Half-open: a SYN without MPTCP passed.
    SynPlain = 2,
    /// Half-open: a SYN with MP_CAPABLE version 0 passed; a key is awaited.
    SynCapableV0 = 3,
    /// Half-open: a SYN with MP_CAPABLE version 1 passed; a key is awaited.
    SynCapableV1 = 4,
    /// Half-open: a SYN with MP_JOIN passed, `aux` is its token already.
    SynJoin = 5,
    /// Established, without a token.
    Plain = 6,
    /// Established, its key was learned, `aux` is the token; no DSS was followed yet.
    Learned = 7,
    /// Established, first subflow of a connection whose DSS traffic was followed.
    Mptcp = 8,
    /// Established, a further subflow, sent where its token lives.
    Joined = 9,
    /// A packet of an unknown flow that Maglev placed.
    Adopted = 10,
    /// Ending (FIN or RST seen), without a token.
    ClosingPlain = 11,
    /// Ending, `aux` is the token.
    ClosingToken = 12,
    /// UDP.
    Udp = 13,
    /// Half-open: a SYN passed that offers explicit tokens; tokens, or a key of version 1, are awaited.
    SynExplicit = 14,
    /// An agent says that it is established, `aux` is its token; no packet of it was seen. `moved` tells a first subflow
    /// that Maglev would send elsewhere from one that joined.
    Reported = 15,
}

impl FlowState {
    /// Every state, for settings and tests that go through all of them.
    pub const ALL: [FlowState; 14] = [
        Self::SynPlain,
        Self::SynCapableV0,
        Self::SynCapableV1,
        Self::SynJoin,
        Self::Plain,
        Self::Learned,
        Self::Mptcp,
        Self::Joined,
        Self::Adopted,
        Self::ClosingPlain,
        Self::ClosingToken,
        Self::Udp,
        Self::SynExplicit,
        Self::Reported,
    ];

    /// A SYN was seen and nothing since.
    #[inline]
    pub const fn is_half_open(self) -> bool {
        matches!(
            self,
            Self::SynPlain | Self::SynCapableV0 | Self::SynCapableV1 | Self::SynExplicit | Self::SynJoin
        )
    }

    /// A FIN or RST was seen.
    #[inline]
    pub const fn is_closing(self) -> bool {
        matches!(self, Self::ClosingPlain | Self::ClosingToken)
    }

    /// `aux` is a token, not an ISN.
    #[inline]
    pub const fn has_token(self) -> bool {
        matches!(
            self,
            Self::SynJoin | Self::Learned | Self::Mptcp | Self::Joined | Self::ClosingToken | Self::Reported
        )
    }

    /// The state of four bits, unless they say empty, busy or nothing.
    #[inline]
    const fn from_bits(bits: u64) -> Option<Self> {
        Some(match bits {
            2 => Self::SynPlain,
            3 => Self::SynCapableV0,
            4 => Self::SynCapableV1,
            5 => Self::SynJoin,
            6 => Self::Plain,
            7 => Self::Learned,
            8 => Self::Mptcp,
            9 => Self::Joined,
            10 => Self::Adopted,
            11 => Self::ClosingPlain,
            12 => Self::ClosingToken,
            13 => Self::Udp,
            14 => Self::SynExplicit,
            15 => Self::Reported,
            _ => return None,
        })
    }
}

/// What is remembered of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEntry {
    /// Where the flow stands.
    pub state: FlowState,
    /// When it was last seen.
    pub tick: Tick,
    /// It had traffic over two whole ticks since it was established: the moment at which a first subflow's token
    /// rises to rank seen.
    pub lasting: bool,
    /// Its backend is not Maglev's own answer, as far as was known when it was last seen. Of a join, whose backend is its
    /// token's, this is not asked; it says that the token was somebody's in the token table, or an agent's word.
    pub moved: bool,
    /// Where its packets go.
    pub backend: BackendId,
    /// The low half of its ISN.
    pub isn_low: u16,
    /// The ISN until a key is learned, then the token ([`FlowState::has_token`]).
    pub aux: u32,
}

impl FlowEntry {
    /// Word A of this entry in the primary line of `hash`.
    #[inline]
    pub(crate) const fn word_a(&self, hash: u64) -> u64 {
        (self.isn_low as u64) << 48 | hash & FINGERPRINT
    }

    /// Word B of this entry.
    #[inline]
    pub(crate) const fn word_b(&self) -> u64 {
        (self.state as u64) << 60
            | self.tick.bits() << 48
            | if self.lasting { LASTING } else { 0 }
            | if self.moved { MOVED } else { 0 }
            | (self.backend.0 as u64 & BACKEND) << 32
            | self.aux as u64
    }

    /// The entry of two words, unless they are those of an empty or busy slot.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each field is shifted to the bottom and cut to its width"
    )]
    pub(crate) const fn from_words(a: u64, b: u64) -> Option<Self> {
        let Some(state) = FlowState::from_bits(b >> 60) else {
            return None;
        };
        Some(Self {
            state,
            tick: Tick::from_bits(b >> 48),
            lasting: b & LASTING != 0,
            moved: b & MOVED != 0,
            backend: BackendId((b >> 32 & BACKEND) as u16),
            isn_low: (a >> 48) as u16,
            aux: b as u32,
        })
    }
}

/// States in which packets of a flow ask for nothing but its backend, as bits: [`FlowState::is_settled`].
const SETTLED: u16 = 1 << FlowState::Plain as u16
    | 1 << FlowState::Mptcp as u16
    | 1 << FlowState::Joined as u16
    | 1 << FlowState::Adopted as u16
    | 1 << FlowState::Udp as u16;

/// Settled states whose entry is not written in the tick after the one it was written in, until it lasts: the once-a-tick
/// part of the packet path waits two ticks for that.
const WAITING: u16 =
    1 << FlowState::Plain as u16 | 1 << FlowState::Mptcp as u16 | 1 << FlowState::Joined as u16;

/// The backend of a word B, if its flow is settled and nothing is to be written of it now.
#[inline]
pub(crate) const fn settled_backend(b: u64, now: Tick) -> Option<BackendId> {
    // An empty slot and a busy one are in no settled state.
    let state = b >> 60;
    let age = now.bits().wrapping_sub(b >> 48) & 0xfff;
    let is_quiet = age == 0 || age == 1 && b & LASTING == 0 && WAITING >> state & 1 == 1;
    if SETTLED >> state & 1 == 1 && is_quiet { Some(BackendId((b >> 32 & BACKEND) as u16)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(state: FlowState) -> FlowEntry {
        FlowEntry {
            state,
            tick: Tick::from_seconds(16 * 4095),
            lasting: false,
            moved: false,
            backend: BackendId(0x2bcd),
            isn_low: 0x1234,
            aux: 0xdead_beef,
        }
    }

    #[test]
    fn an_entry_comes_back_from_its_words() {
        let hash = 0xffff_1111_2222_3333;
        let flags = [(false, false), (false, true), (true, false), (true, true)];
        for (state, (lasting, moved)) in FlowState::ALL.into_iter().flat_map(|s| flags.map(|f| (s, f))) {
            let entry = FlowEntry { lasting, moved, ..entry(state) };
            let (a, b) = (entry.word_a(hash), entry.word_b());
            assert_eq!(a & FINGERPRINT, hash & FINGERPRINT);
            assert_eq!(FlowEntry::from_words(a, b), Some(entry));
        }
    }

    #[test]
    fn the_backend_of_a_settled_flow_of_which_nothing_is_to_be_written_is_read_from_one_word() {
        let now = Tick::from_seconds(16 * 4095);
        for (state, lasting) in FlowState::ALL.into_iter().flat_map(|state| [(state, false), (state, true)]) {
            let held = FlowEntry { lasting, ..entry(state) };
            let backend = |ticks| settled_backend(held.word_b(), now.after(ticks));
            let settled = state.is_settled().then_some(held.backend);
            let waits = !lasting && matches!(state, FlowState::Plain | FlowState::Mptcp | FlowState::Joined);
            assert_eq!(backend(0), settled, "{state:?}, seen in this tick");
            assert_eq!(backend(1), settled.filter(|_| waits), "{state:?} {lasting}, in the tick before");
            assert_eq!(backend(2), None, "{state:?}, to be refreshed");
        }
        assert_eq!((settled_backend(EMPTY, Tick::from_seconds(0)), settled_backend(BUSY, now)), (None, None));
    }

    #[test]
    fn an_empty_and_a_busy_slot_hold_no_entry() {
        let a = entry(FlowState::Plain).word_a(7);
        assert_eq!(FlowEntry::from_words(a, EMPTY), None);
        assert_eq!(FlowEntry::from_words(a, BUSY), None);
    }
}
