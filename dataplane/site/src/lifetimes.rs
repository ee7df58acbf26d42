//! The configured times of flows, in the ticks the engine counts in.
//!
//! Seconds are rounded up, so that nothing goes earlier than the configuration says: a tick is 16 seconds, and an entry
//! does not know when in its tick it was last seen. An established flow has one tick more: until it lasts, what is seen
//! of it in the tick after the one that was written is not written.

use config::{Evict as ConfiguredEvict, Idle};
use engine::flow_entry::FlowState;
use engine::lifetimes::{Class, Evict, IdleTimes, Lifetimes};
use engine::limits::{Limits, UNBOUNDED};
use engine::tick::TICK_SECONDS;

/// The lifetimes of a configuration.
pub fn of(dataplane: &config::Dataplane) -> Lifetimes {
    Lifetimes { idle: idle(&dataplane.idle), evict: evict(&dataplane.evict), limits: limits(dataplane) }
}

/// What one network and one worker may open.
fn limits(dataplane: &config::Dataplane) -> Limits {
    let guard = &dataplane.guard;
    let workers = dataplane.workers.len();
    let half_open = ticks(dataplane.idle.half_open);
    let rate = |per_second| if per_second == 0 { UNBOUNDED } else { per_second };
    Limits {
        prefix4: guard.prefix4,
        prefix6: guard.prefix6,
        flows_per_prefix: Limits::share(dataplane.flows, guard.flow_share, half_open, workers),
        tokens_per_prefix: Limits::token_share(dataplane.tokens, guard.token_share, workers),
        flows_per_second: rate(guard.new_flows),
        tokens_per_second: rate(guard.new_tokens),
    }
}

fn idle(idle: &Idle) -> IdleTimes {
    FlowState::ALL.into_iter().fold(IdleTimes::default(), |times, state| {
        let ticks = match state {
            FlowState::SynPlain
            | FlowState::SynCapableV0
            | FlowState::SynCapableV1
            | FlowState::SynExplicit
            | FlowState::SynJoin => ticks(idle.half_open),
            FlowState::Plain
            | FlowState::Learned
            | FlowState::Mptcp
            | FlowState::Joined
            | FlowState::Reported => ticks(idle.established).saturating_add(1),
            FlowState::ClosingPlain => ticks(idle.closing),
            FlowState::ClosingToken => ticks(idle.closing_mptcp),
            FlowState::Adopted => ticks(idle.adopted),
            FlowState::Udp => ticks(idle.udp),
        };
        times.with(state, ticks)
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
        assert_eq!(ticks, [1, 1, 1, 1, 3, 3, 3, 3, 5, 3, 4, 6, 1, 3]);

        let given = [Some(16), Some(17), None, Some(0), Some(3600)];
        let [half_open, adopted, closing, own, kept] = given;
        let limits = evict(&ConfiguredEvict { half_open, adopted, closing, own, kept });
        assert_eq!(Class::ALL.map(|class| limits.of(class)), [Some(2), Some(3), None, Some(0), Some(226)]);
    }

    #[test]
    fn a_connection_that_is_never_silent_for_its_idle_time_is_never_forgotten() {
        use engine::model::Model;
        use engine::pipeline::{Context, Pipeline};
        use engine::snapshot::{Port, Site, Snapshot};
        use engine::tick::Tick;
        use ipc::message::{BackendState, Command, Forward, Handles, Protocol, Steering, UnknownToken};

        let name = |text: &str| text.parse().unwrap();
        let commands = [
            Command::PutPool { name: name("p") },
            Command::PutBackend {
                pool: name("p"),
                name: name("b"),
                address4: Some([10, 0, 1, 11].into()),
                address6: None,
                mac: Some([2, 0, 0, 0, 3, 1]),
                weight: 1,
                state: BackendState::Active,
                handles: Handles::default(),
            },
            Command::PutVip {
                name: name("v"),
                pool: name("p"),
                protocol: Protocol::Tcp,
                forward: Forward::L2dsr,
                steering: Steering::LEARN,
                unknown_token: UnknownToken::Drop,
            },
            Command::PutService { vip: name("v"), address: [10, 9, 9, 9].into(), port: 80 },
        ];
        let model = Model::default().apply(&commands).unwrap();
        let site = Site { ports: vec![Port::default()], tunnel_sources: [None, None], maglev_seed: 0 };
        let snapshot = Snapshot::of_model(&model, &site, 1);
        for (established, silences) in [(1, 1..=1_u64), (16, 1..=16), (30, 25..=30), (100, 90..=100)] {
            for (silence, begun) in silences.flat_map(|silence| (0..32).map(move |begun| (silence, begun))) {
                let mut tables = engine::tables::Tables::on_heap(100, 100, &[7; 32]);
                let text = format!("[dataplane]\nworkers = [0]\nidle.established = {established}\n");
                tables.lifetimes = of(&config::Config::parse(&text, "weft.toml").unwrap().dataplane);
                let counters = ipc::counters::WorkerCounters::heap();
                let mut pipeline = Pipeline::default();
                let flow = packet::build::packet().ipv4([192, 0, 2, 1], [10, 9, 9, 9]).tcp(1000, 80);
                let packets =
                    core::iter::once(flow.clone().syn(1)).chain(core::iter::repeat_n(flow.data(2, 1), 9));
                for (nth, frame) in (0_u64..).zip(packets) {
                    // The handshake takes no time: a half-open flow has another.
                    let seconds = 160_000 + begun + nth.saturating_sub(1) * silence;
                    let mut frames = engine::frames::VecFrames::new(vec![frame.build()]);
                    let cx = Context {
                        snapshot: &snapshot,
                        tables: &tables,
                        counters: &counters,
                        now: Tick::from_seconds(seconds),
                        millis: seconds * 1000,
                        port: ipc::id::PortId(0),
                    };
                    let reason = pipeline.process(&mut frames, &cx).verdicts().next().unwrap().reason;
                    let expected =
                        if nth == 0 { ipc::reason::Reason::Hash } else { ipc::reason::Reason::Flow };
                    assert_eq!(
                        reason, expected,
                        "{established} s, silent for {silence} s, from {begun} s on"
                    );
                }
            }
        }
    }
}
