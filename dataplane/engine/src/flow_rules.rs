//! What a flow's state means to the packet path: which packets need a second look, and which SYN opened it.
//!
//! Kept apart from [`crate::flow_entry`], which only knows how an entry is stored.

use ipc::id::BackendId;

use crate::flow_entry::{FlowEntry, FlowState};
use crate::lifetimes::Class;
use crate::snapshot::Snapshot;
use crate::tick::Tick;

impl FlowState {
    /// The flow's packets need no look at their options: established, adopted, or not TCP.
    #[inline]
    pub const fn is_settled(self) -> bool {
        matches!(
            self,
            FlowState::Plain | FlowState::Mptcp | FlowState::Joined | FlowState::Adopted | FlowState::Udp
        )
    }

    /// A SYN takes the flow's place at once: it ends, or no SYN of it was seen and nobody's handshake vouches for it.
    #[inline]
    pub const fn gives_way_to_syn(self) -> bool {
        self.is_closing() || matches!(self, FlowState::Adopted | FlowState::Reported)
    }
}

impl FlowEntry {
    /// The entry of a flow that a packet with this initial sequence number opens now.
    pub fn opened(state: FlowState, now: Tick, backend: BackendId, isn: u32, aux: u32) -> Self {
        let [_, _, high, low] = isn.to_be_bytes();
        let isn_low = u16::from_be_bytes([high, low]);
        Self { state, tick: now, lasting: false, moved: false, backend, isn_low, aux }
    }

    /// The entry of a join that opens now. `known` says that its token is somebody's in the token table; else only the token
    /// itself names the backend, and anybody can make such tokens up.
    #[inline]
    pub fn joining(now: Tick, backend: BackendId, isn: u32, token: u32, known: bool) -> Self {
        Self { moved: known, ..Self::opened(FlowState::SynJoin, now, backend, isn, token) }
    }

    /// Whether a SYN with this ISN is the one that opened the flow, seen again. All 32 bits are compared while
    /// they are known, 16 once the token took their place; an adopted or reported flow was opened by none that we saw.
    pub fn is_opened_by(&self, isn: u32) -> bool {
        let [_, _, high, low] = isn.to_be_bytes();
        let same_low = self.isn_low == u16::from_be_bytes([high, low]);
        match self.state {
            FlowState::Adopted | FlowState::Reported | FlowState::Udp => false,
            FlowState::SynPlain
            | FlowState::SynCapableV0
            | FlowState::SynCapableV1
            | FlowState::SynExplicit => self.aux == isn,
            _ => same_low,
        }
    }

    /// How much is lost if the entry gives way to another.
    ///
    /// A join whose token nobody is known to have is worth no more for its third packet, which anybody can send.
    pub const fn class(&self) -> Class {
        match self.state {
            state if state.is_half_open() || self.is_mere_claim() => Class::HalfOpen,
            // Before `moved`: what only a report made gives way to what packets open.
            FlowState::Reported => Class::Closing,
            _ if self.moved => Class::Kept,
            FlowState::Adopted | FlowState::Udp => Class::Adopted,
            FlowState::ClosingPlain | FlowState::ClosingToken => Class::Closing,
            _ => Class::Own,
        }
    }

    /// An established flow that loses nothing without its entry and never lasted.
    pub const fn is_brief(&self) -> bool {
        matches!(self.class(), Class::Own) && !self.lasting
    }

    /// A join that only its own token places, and that never lasted: no packet of it needed to know anything.
    pub const fn is_mere_claim(&self) -> bool {
        self.joins() && !self.moved && !self.lasting
    }

    /// Whether it was last seen before its pool's Maglev table changed, so that nobody knows whether it moved.
    pub fn is_unsure(&self, snapshot: &Snapshot, now: Tick, now_ms: u64) -> bool {
        let known = snapshot.backend(self.backend);
        known.is_some_and(|known| snapshot.has_changed_since(known.pool, now.age_of(self.tick), now_ms))
    }

    /// The entry once a first packet of a flow that was only reported has come.
    #[must_use]
    pub const fn confirmed(self) -> Self {
        Self { state: if self.moved { FlowState::Mptcp } else { FlowState::Joined }, moved: true, ..self }
    }

    /// The entry after its end was seen or reported. A joined flow that counts as moved stays where its token was until it is
    /// over; a join that was never established has no such claim.
    #[must_use]
    pub const fn ending(self) -> Self {
        let state = if self.state.has_token() { FlowState::ClosingToken } else { FlowState::ClosingPlain };
        let moved = matches!(self.state, FlowState::Reported)
            || self.moved && !matches!(self.state, FlowState::SynJoin);
        Self { state, moved, ..self }
    }

    /// Whether the flow is a further subflow: it was opened by MP_JOIN.
    pub const fn joins(&self) -> bool {
        matches!(self.state, FlowState::SynJoin | FlowState::Joined)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(state: FlowState, isn: u32, aux: u32) -> FlowEntry {
        FlowEntry::opened(state, Tick::from_seconds(0), BackendId(1), isn, aux)
    }

    #[test]
    fn a_half_open_flow_knows_all_of_its_isn() {
        let half_open = FlowState::ALL.into_iter().filter(|state| state.is_half_open());
        for state in half_open.filter(|state| !state.has_token()) {
            let entry = opened(state, 0x1234_5678, 0x1234_5678);
            assert!(entry.is_opened_by(0x1234_5678));
            assert!(!entry.is_opened_by(0x1235_5678), "{state:?}: the high half counts");
        }
    }

    #[test]
    fn a_flow_that_holds_a_token_knows_the_low_half_of_its_isn() {
        for state in [FlowState::SynJoin, FlowState::Learned, FlowState::Mptcp, FlowState::Joined] {
            let entry = opened(state, 0x1234_5678, 0xdead_beef);
            assert!(entry.is_opened_by(0x1234_5678) && !entry.is_opened_by(0x1234_5679), "{state:?}");
        }
    }

    #[test]
    fn no_syn_that_we_saw_opened_an_adopted_flow() {
        assert!(!opened(FlowState::Adopted, 0, 0).is_opened_by(0));
        assert!(!opened(FlowState::Udp, 0, 0).is_opened_by(0));
        assert!(!opened(FlowState::Reported, 0, 0).is_opened_by(0));
    }

    #[test]
    fn an_entry_that_no_other_can_replace_is_in_the_last_class_whatever_it_is() {
        let class = |state, moved| FlowEntry { moved, ..opened(state, 1, 2) }.class();
        for state in FlowState::ALL {
            let half_open = state.is_half_open();
            let moved = match state {
                _ if half_open => Class::HalfOpen,
                FlowState::Reported => Class::Closing,
                _ => Class::Kept,
            };
            assert_eq!(class(state, true), moved);
            assert_ne!(class(state, false), Class::Kept);
            assert_eq!(class(state, false) == Class::HalfOpen, half_open || state == FlowState::Joined);
            let is_closing = state.is_closing() || state == FlowState::Reported;
            assert_eq!(class(state, false) == Class::Closing, is_closing);
        }
        assert_eq!(class(FlowState::Adopted, false), Class::Adopted);
        assert_eq!(class(FlowState::Udp, false), Class::Adopted);
        assert_eq!(class(FlowState::Mptcp, false), Class::Own);
    }

    #[test]
    fn a_join_that_only_its_token_places_is_half_open_until_it_lasts() {
        let joined = |known, lasting| {
            let entry = FlowEntry::joining(Tick::from_seconds(0), BackendId(1), 1, 2, known);
            FlowEntry { state: FlowState::Joined, lasting, ..entry }.class()
        };
        assert_eq!([joined(false, false), joined(false, true)], [Class::HalfOpen, Class::Own]);
        assert_eq!([joined(true, false), joined(true, true)], [Class::Kept; 2]);
    }

    #[test]
    fn options_are_walked_only_on_flows_that_are_opening_or_not_confirmed_or_closing() {
        let walked: Vec<_> = FlowState::ALL.into_iter().filter(|state| !state.is_settled()).collect();
        let expected = [
            FlowState::SynPlain,
            FlowState::SynCapableV0,
            FlowState::SynCapableV1,
            FlowState::SynJoin,
            FlowState::Learned,
            FlowState::ClosingPlain,
            FlowState::ClosingToken,
            FlowState::SynExplicit,
            FlowState::Reported,
        ];
        assert_eq!(walked, expected);
    }
}
