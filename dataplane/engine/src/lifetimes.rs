//! How long a silent flow is remembered, by where it stands.
//!
//! Kept apart from [`crate::flow_entry`]: an entry knows when it was last seen, these know what follows from it. They
//! come from the configuration and hold for a data plane's whole life.

use crate::flow_entry::{FlowEntry, FlowState};
use crate::tick::{Absence, MAX_IDLE, Tick};

/// The times of a data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// How long an entry may be idle, by state.
    pub idle: IdleTimes,
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
            *limit = ticks.min(MAX_IDLE);
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
                S::SynPlain | S::SynCapableV0 | S::SynCapableV1 | S::SynJoin => 4,
                S::Plain | S::Learned | S::Mptcp | S::Joined | S::Moved => MAX_IDLE,
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
        FlowEntry { state, tick: Tick::from_seconds(16 * 4095), backend: BackendId(1), isn_low: 0, aux: 0 }
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
}
