//! How long a silent flow is remembered, by where it stands, and which one gives way where there is no room.
//!
//! A flow in a full table gives way by its [`Class`]: how much is lost without its entry. What Maglev answers anyway
//! loses nothing but time; what it does not answer (a joined subflow, a flow that a change of its pool moved away from
//! Maglev's answer) loses its connection, and by default never gives way. docs/adr/0007-eviction.md has the reasons.
//!
//! Kept apart from [`crate::flow_entry`]: an entry knows when it was last seen, these know what follows from it. They
//! come from the configuration and hold for a data plane's whole life.

use crate::flow_entry::{FlowEntry, FlowState};
use crate::limits::Limits;
use crate::tick::{Absence, MAX_IDLE, Tick};

/// The times of a data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// How long an entry may be idle, by state.
    pub idle: IdleTimes,
    /// How long it must have been silent before it may give way, by class.
    pub evict: Evict,
    /// How much one network and one worker may open.
    pub limits: Limits,
}

impl Lifetimes {
    /// What an insert goes by where Maglev's answers never changed.
    pub const fn room(&self, now: Tick) -> Room<'_, fn(&FlowEntry) -> bool> {
        Room { now, lifetimes: self, unsure: |_| false }
    }
}

/// What an entry is worth when there is no room, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// A SYN was seen and nothing since, or nothing that shows more than a SYN does: a join that only its own token places
    /// (`FlowEntry::is_mere_claim`). Without its entry a key is not learned, a join is lost.
    HalfOpen,
    /// A packet in the middle of an unknown flow, or UDP: Maglev answers as it did.
    Adopted,
    /// FIN or RST was seen, or nothing at all: an agent reported the flow.
    Closing,
    /// Established, and Maglev answers as it did: without its entry its token is no longer refreshed. Or a join that only
    /// its own token placed, and that lasted.
    Own,
    /// Established, and Maglev would answer otherwise, or might: subflows that joined by a known token, flows of before a
    /// change of the pool.
    Kept,
}

impl Class {
    /// Every class, in the order in which they give way.
    pub const ALL: [Class; 5] = [Self::HalfOpen, Self::Adopted, Self::Closing, Self::Own, Self::Kept];
}

/// From which age on, in ticks, an entry of a class may give way; `None` is never.
///
/// An age of `limit + 1` ticks is a silence of at least `limit` times 16 seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evict([Option<u16>; 5]);

impl Evict {
    /// Nothing gives way.
    pub const fn never() -> Self {
        Self([None; 5])
    }

    /// Sets the limit of one class.
    #[must_use]
    pub fn with(mut self, class: Class, ticks: Option<u16>) -> Self {
        if let Some(limit) = self.0.get_mut(class as usize) {
            *limit = ticks;
        }
        self
    }

    /// The limit of a class.
    #[inline]
    pub fn of(&self, class: Class) -> Option<u16> {
        self.0.get(class as usize).copied().flatten()
    }
}

impl Default for Evict {
    /// Half-open, adopted and closing at once, own after 64 s, kept never.
    fn default() -> Self {
        Self([Some(0), Some(0), Some(0), Some(5), None])
    }
}

/// For so long an established flow that was never seen to last counts as kept after a change of its pool (one hour):
/// nobody knows whether it moved, but whoever opens connections by the million must not fill the table for hours by it.
const UNSURE_TICKS: u16 = 225;

/// A half-open join does not give way before this age in ticks: 16 seconds at least, for its handshake. How many there
/// can be is limited where they come in.
const JOIN_TICKS: u16 = 2;

/// How soon an entry gives way among others: the least does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Worth {
    pub(crate) class: Class,
    spared: bool,
    age: core::cmp::Reverse<u16>,
    /// It would give way to a join that only its own token places.
    to_claim: bool,
}

impl Worth {
    /// Whether this, the least of those that may give way, does so beside the others there.
    pub(crate) fn is_least_beside(&self, others: &Beside) -> bool {
        let waits = self.spared && (others.brief || others.claims > 0)
            || self.to_claim && others.claims > others.all / 2;
        !(self.class == Class::Own && waits)
    }
}

/// Who is there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Beside {
    /// Established flows that never lasted. What lasted waits for them: else a flood of whole handshakes would push out
    /// every connection that is silent for a minute.
    brief: bool,
    /// Joins that only their own tokens place and that never lasted. What lasted waits for them as well, and where they are
    /// most of all, one more of them pushes out no established flow at all: else a flood of made-up tokens would push out
    /// all that are young.
    claims: u16,
    /// Everybody.
    all: u16,
}

impl Beside {
    /// Notes one more.
    pub(crate) fn add(&mut self, entry: &FlowEntry) {
        self.brief |= entry.is_brief();
        self.claims = self.claims.saturating_add(u16::from(entry.is_mere_claim()));
        self.all = self.all.saturating_add(1);
    }
}

/// What an insert goes by when it looks for room.
#[derive(Clone, Copy, Debug)]
pub struct Room<'a, U> {
    /// The time.
    pub now: Tick,
    /// The limits.
    pub lifetimes: &'a Lifetimes,
    /// Whether an entry was last seen before Maglev's answers changed: nobody knows what it would answer now.
    pub unsure: U,
}

impl<U: Fn(&FlowEntry) -> bool> Room<'_, U> {
    /// Whether a word B is that of an expired entry.
    #[inline]
    pub(crate) fn is_over(&self, b: u64) -> bool {
        FlowEntry::from_words(0, b).is_some_and(|entry| self.lifetimes.idle.is_expired(&entry, self.now))
    }

    /// What an entry is worth against a newcomer; `None` if it does not give way to it.
    ///
    /// A newcomer that Maglev answers as well without an entry takes the place of its like only: a flood of packets of
    /// unknown flows touches nothing else. A join, which is lost without an entry, may also take that of a flow of its
    /// own class that never lasted; it has [`JOIN_TICKS`] for its handshake, and then is the last of the half-open
    /// ones to give way. One that only its own token places has so long to show that it lasts, and nothing of it is spared
    /// for a join whose token is known.
    pub(crate) fn worth(&self, entry: &FlowEntry, newcomer: &FlowEntry) -> Option<Worth> {
        let age = self.now.age_of(entry.tick);
        let is_join = |entry: &FlowEntry| entry.state == FlowState::SynJoin || entry.is_mere_claim();
        let mut class = entry.class();
        // A join is not Maglev's, whatever changes.
        let may_have_moved = !entry.joins() && (entry.lasting || (age < UNSURE_TICKS && !is_join(newcomer)));
        if class == Class::Own && may_have_moved && (self.unsure)(entry) {
            class = Class::Kept;
        }
        if newcomer.class() == Class::Adopted && class != Class::Adopted {
            return None;
        }
        let yields = entry.is_mere_claim() && newcomer.joins() && newcomer.moved;
        if is_join(entry) && age < JOIN_TICKS && !yields {
            return None;
        }
        let at_once = class == Class::Own && !entry.lasting && is_join(newcomer);
        let limit = if at_once { Some(0) } else { self.lifetimes.evict.of(class) };
        let spared = entry.lasting || is_join(entry);
        let to_claim = newcomer.is_mere_claim();
        let worth = Worth { class, spared, age: core::cmp::Reverse(age), to_claim };
        limit.filter(|limit| age >= *limit).map(|_| worth)
    }
}

/// How long a flow of each state may be silent, in ticks.
///
/// An entry whose age is *greater* than its limit is expired, so it is kept for at least `limit` times 16
/// seconds whatever the moment within a tick at which it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleTimes([u16; 16]);

impl IdleTimes {
    /// Sets the limit of one state. Limits above [`MAX_IDLE`] are cut to it.
    #[must_use]
    pub fn with(mut self, state: FlowState, ticks: u16) -> Self {
        if let Some(limit) = self.0.get_mut(state as usize) {
            // One at least: a young flow is not written in the tick after the one it was written in.
            *limit = ticks.clamp(1, MAX_IDLE);
        }
        self
    }

    /// The limit of a state.
    #[inline]
    pub fn of(&self, state: FlowState) -> u16 {
        self.0.get(state as usize).copied().unwrap_or(0)
    }

    /// Whether an entry was silent for longer than its state allows.
    #[inline]
    pub fn is_expired(&self, entry: &FlowEntry, now: Tick) -> bool {
        now.age_of(entry.tick) > self.of(entry.state)
    }

    /// The same at the end of a pause in which nobody looked at the entry, however long it was.
    pub fn is_expired_after(&self, entry: &FlowEntry, absence: &Absence) -> bool {
        absence.age_of(entry.tick) > u64::from(self.of(entry.state))
    }

    /// The longest limit of any state.
    pub fn longest(&self) -> u16 {
        self.0.iter().copied().max().unwrap_or(0)
    }
}

impl Default for IdleTimes {
    /// Half-open 64 s, established 17.7 h, adopted 320 s, closing 64 s (with a token 128 s), UDP 128 s.
    fn default() -> Self {
        use FlowState as S;
        FlowState::ALL.into_iter().fold(Self([0; 16]), |times, state| {
            let ticks = match state {
                S::SynPlain | S::SynCapableV0 | S::SynCapableV1 | S::SynExplicit | S::SynJoin => 4,
                S::Plain | S::Learned | S::Mptcp | S::Joined | S::Reported => MAX_IDLE,
                S::Adopted => 20,
                S::ClosingPlain => 4,
                S::ClosingToken | S::Udp => 8,
            };
            times.with(state, ticks)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::id::BackendId;

    fn entry(state: FlowState) -> FlowEntry {
        FlowEntry::opened(state, Tick::from_seconds(16 * 4095), BackendId(1), 0, 0)
    }

    #[test]
    fn an_entry_expires_only_past_its_limit_and_never_at_it() {
        let idle = IdleTimes::default();
        for state in FlowState::ALL {
            let entry = entry(state);
            let limit = idle.of(state);
            assert!(limit > 0, "{state:?} has a limit");
            assert!(!idle.is_expired(&entry, entry.tick.after(limit)));
            assert!(idle.is_expired(&entry, entry.tick.after(limit + 1)));
        }
    }

    #[test]
    fn a_limit_above_the_greatest_is_cut_to_it() {
        let idle = IdleTimes::default().with(FlowState::Plain, u16::MAX);
        assert_eq!(idle.of(FlowState::Plain), MAX_IDLE);
    }

    /// The order in which entries give way to a newcomer that begins with a SYN, 100 ticks after the first of them.
    fn worth(entry: &FlowEntry, newcomer: FlowState, unsure: bool) -> Option<Class> {
        let lifetimes = Lifetimes::default();
        let room = Room {
            now: Tick::from_seconds(16 * 4195),
            lifetimes: &lifetimes,
            unsure: |_: &FlowEntry| unsure,
        };
        room.worth(entry, &self::entry(newcomer)).map(|worth| worth.class)
    }

    #[test]
    fn the_least_class_gives_way_first_then_what_never_lasted_then_the_oldest() {
        let lifetimes = Lifetimes::default();
        let room = lifetimes.room(Tick::from_seconds(16 * 4295));
        let at = |state, lasting, age| FlowEntry { lasting, tick: room.now.before(age), ..entry(state) };
        use FlowState as S;
        let order = [
            at(S::SynPlain, false, 9),
            at(S::SynCapableV1, false, 0),
            at(S::SynJoin, false, 9),
            at(S::Adopted, false, 9),
            at(S::Udp, false, 1),
            at(S::ClosingToken, false, 9),
            at(S::ClosingPlain, false, 2),
            at(S::ClosingPlain, true, 8),
            at(S::Plain, false, 9),
            at(S::Mptcp, false, 6),
            at(S::Mptcp, true, 200),
            at(S::Plain, true, 5),
        ];
        let worth: Vec<_> = order.iter().map(|entry| room.worth(entry, &entry_of_syn()).unwrap()).collect();
        assert!(worth.is_sorted(), "{worth:?}");
        for young in [at(S::Plain, true, 4), at(S::Learned, false, 0)] {
            assert_eq!(room.worth(&young, &entry_of_syn()), None);
        }
        for kept in [at(S::Mptcp, false, 300), at(S::Joined, false, 4000)] {
            assert_eq!(room.worth(&FlowEntry { moved: true, ..kept }, &entry_of_syn()), None);
        }
    }

    #[test]
    fn a_join_that_only_its_token_places_gives_way_once_it_had_time_to_last_and_to_known_joins_at_once() {
        let lifetimes = Lifetimes::default();
        let room = lifetimes.room(Tick::from_seconds(16 * 4295));
        let join = |state, known, lasting, age| FlowEntry {
            state,
            lasting,
            tick: room.now.before(age),
            ..FlowEntry::joining(room.now, BackendId(1), 0, 7, known)
        };
        let [claim, known] = [false, true].map(|known| join(FlowState::SynJoin, known, false, 0));
        let worth = |entry, newcomer| room.worth(&entry, &newcomer).map(|worth| worth.class);
        for state in [FlowState::SynJoin, FlowState::Joined] {
            let held = |age| join(state, false, false, age);
            assert_eq!([held(1), held(2)].map(|held| worth(held, claim)), [None, Some(Class::HalfOpen)]);
            assert_eq!(
                [held(1), held(2)].map(|held| worth(held, entry_of_syn())),
                [None, Some(Class::HalfOpen)]
            );
            assert_eq!(worth(held(0), known), Some(Class::HalfOpen));
        }
        let lasting = |age| join(FlowState::Joined, false, true, age);
        assert_eq!([lasting(4), lasting(5)].map(|held| worth(held, known)), [None, Some(Class::Own)]);
        // Not Maglev's: a change of its answers is no reason to keep one.
        let unsure = Room { now: room.now, lifetimes: &lifetimes, unsure: |_: &FlowEntry| true };
        assert_eq!(unsure.worth(&lasting(5), &claim).map(|worth| worth.class), Some(Class::Own));
    }

    #[test]
    fn no_established_flow_gives_way_to_a_made_up_token_where_most_are_such_nor_one_that_lasted_to_anybody() {
        let lifetimes = Lifetimes::default();
        let room = lifetimes.room(Tick::from_seconds(16 * 4295));
        let own = |lasting| FlowEntry { lasting, tick: room.now.before(9), ..entry(FlowState::Mptcp) };
        let join = |known| FlowEntry::joining(room.now, BackendId(1), 0, 7, known);
        let beside = |others: &[FlowEntry]| {
            let mut beside = Beside::default();
            others.iter().for_each(|other| beside.add(other));
            beside
        };
        let gives_way = |lasting, newcomer: &FlowEntry, others: &[FlowEntry]| {
            room.worth(&own(lasting), newcomer).unwrap().is_least_beside(&beside(others))
        };
        for newcomer in [entry_of_syn(), join(true), join(false)] {
            let is_claim = newcomer.is_mere_claim();
            assert!(gives_way(true, &newcomer, &[]) && gives_way(false, &newcomer, &[]));
            assert!(!gives_way(true, &newcomer, &[join(false), own(true), own(true)]));
            assert_eq!(gives_way(false, &newcomer, &[join(false), join(false), own(false)]), !is_claim);
            assert!(gives_way(false, &newcomer, &[join(false), own(false)]));
            assert!(!gives_way(true, &newcomer, &[own(false)]));
            assert!(gives_way(true, &newcomer, &[join(true)]));
        }
    }

    fn entry_of_syn() -> FlowEntry {
        entry(FlowState::SynCapableV1)
    }

    #[test]
    fn a_flow_that_was_silent_while_the_pool_changed_is_kept_for_good_if_it_lasted_else_for_an_hour() {
        let lasting = FlowEntry { lasting: true, ..entry(FlowState::Mptcp) };
        assert_eq!(worth(&lasting, FlowState::SynPlain, true), None);
        assert_eq!(worth(&lasting, FlowState::SynPlain, false), Some(Class::Own));
        let mut brief = entry(FlowState::Mptcp);
        assert_eq!(worth(&brief, FlowState::SynPlain, true), None);
        brief.tick = brief.tick.before(125);
        assert_eq!(worth(&brief, FlowState::SynPlain, true), Some(Class::Own), "after 225 ticks");
    }

    #[test]
    fn a_packet_of_an_unknown_flow_takes_the_place_of_its_like_only() {
        for state in FlowState::ALL {
            let expected = matches!(state, FlowState::Adopted | FlowState::Udp).then_some(Class::Adopted);
            assert_eq!(worth(&entry(state), FlowState::Adopted, false), expected, "{state:?}");
            assert_eq!(worth(&entry(state), FlowState::Udp, false), expected, "{state:?}");
        }
    }

    #[test]
    fn a_join_takes_the_place_of_a_fresh_flow_that_loses_nothing_and_never_lasted() {
        let fresh = FlowEntry { tick: Tick::from_seconds(16 * 4195), ..entry(FlowState::Mptcp) };
        assert_eq!(worth(&fresh, FlowState::SynCapableV1, false), None);
        assert_eq!(worth(&fresh, FlowState::SynJoin, false), Some(Class::Own));
        assert_eq!(worth(&FlowEntry { lasting: true, ..fresh }, FlowState::SynJoin, false), None);
        assert_eq!(worth(&FlowEntry { moved: true, ..fresh }, FlowState::SynJoin, false), None);
    }
}
