//! The configured times of flows, in the ticks the engine counts in.
//!
//! Seconds are rounded up, so that nothing goes earlier than the configuration says: a tick is 16 seconds, and an entry
//! does not know when in its tick it was last seen.

use config::{Evict as ConfiguredEvict, Idle};
use engine::flow_entry::FlowState;
use engine::lifetimes::{Class, Evict, IdleTimes, Lifetimes};
use engine::tick::TICK_SECONDS;

/// The lifetimes of a configuration.
pub fn of(dataplane: &config::Dataplane) -> Lifetimes {
    Lifetimes { idle: idle(&dataplane.idle), evict: evict(&dataplane.evict) }
}

fn idle(idle: &Idle) -> IdleTimes {
    FlowState::ALL.into_iter().fold(IdleTimes::default(), |times, state| {
        let seconds = match state {
            FlowState::SynPlain | FlowState::SynCapableV0 | FlowState::SynCapableV1 | FlowState::SynJoin => {
                idle.half_open
            }
            FlowState::Plain | FlowState::Learned | FlowState::Mptcp | FlowState::Joined => idle.established,
            FlowState::ClosingPlain => idle.closing,
            FlowState::ClosingToken => idle.closing_mptcp,
            FlowState::Adopted => idle.adopted,
            FlowState::Udp => idle.udp,
        };
        times.with(state, ticks(seconds))
    })
}

fn evict(evict: &ConfiguredEvict) -> Evict {
    let limits = [
        (Class::HalfOpen, evict.half_open),
        (Class::Adopted, evict.adopted),
        (Class::Closing, evict.closing),
        (Class::Own, evict.own),
        (Class::Kept, evict.kept),
    ];
    limits.into_iter().fold(Evict::never(), |limits, (class, seconds)| {
        // An age of n ticks is a silence of more than n - 1.
        let age = |seconds| if seconds == 0 { 0 } else { ticks(seconds).saturating_add(1) };
        limits.with(class, seconds.map(age))
    })
}

/// Seconds in ticks, rounded up.
fn ticks(seconds: u32) -> u16 {
    u16::try_from(u64::from(seconds).div_ceil(TICK_SECONDS)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_ticks_that_are_never_shorter() {
        assert_eq!([0, 1, 15, 16, 17, 64, 64_000].map(ticks), [0, 1, 1, 1, 2, 4, 4000]);
        assert_eq!(ticks(u32::MAX), u16::MAX);
    }

    #[test]
    fn what_is_configured_by_default_is_what_the_engine_has_by_default() {
        let text = "[dataplane]\nworkers = [0]\n";
        let config = config::Config::parse(text, "weft.toml").unwrap();
        assert_eq!(of(&config.dataplane), Lifetimes::default());
    }

    #[test]
    fn every_key_reaches_its_states_and_its_class() {
        let [half_open, established, closing, closing_mptcp, adopted, udp] = [16, 32, 48, 64, 80, 96];
        let times = idle(&Idle { half_open, established, closing, closing_mptcp, adopted, udp });
        let ticks = FlowState::ALL.map(|state| times.of(state));
        assert_eq!(ticks, [1, 1, 1, 1, 2, 2, 2, 2, 5, 3, 4, 6]);

        let given = [Some(16), Some(17), None, Some(0), Some(3600)];
        let [half_open, adopted, closing, own, kept] = given;
        let limits = evict(&ConfiguredEvict { half_open, adopted, closing, own, kept });
        assert_eq!(Class::ALL.map(|class| limits.of(class)), [Some(2), Some(3), None, Some(0), Some(226)]);
    }
}
