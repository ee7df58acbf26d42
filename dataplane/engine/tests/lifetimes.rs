//! How long flows and tokens live, in simulated time with the sweep at its pace.
//!
//! The promise: a token lives while a known subflow of its connection does, however idle, and at least 60 seconds
//! after the last one ended. The bound on the other side: [`BOUND`] after that it is gone.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod support;

use engine::lifetimes::Class;
use engine::pipeline::Context;
use engine::sweep::{LINES_PER_CALL, PASS_MS, Sweeper};
use engine::tick::{TICK_SECONDS, Tick};
use engine::token_table::{TOKEN_IDLE, TokenLookup};
use ipc::counter::Counter;
use ipc::id::{BackendId, PoolId, PortId};
use ipc::message::{BackendState, Command};
use ipc::reason::Reason;
use packet::build::PacketBuilder;
use packet::{Family, Flow, Key, Token, Version};
use support::{CLIENT_KEY, FAMILIES, World, backend, backend_in, flow, name, of, services, vip};

const KEY: Key = Key([0x42; 8]);
/// A token is kept at least so long after its last subflow ended.
const KEPT: u64 = 60;
/// And at most so long: the idle ticks, the tick it was last seen in, and one pass of the sweep.
const BOUND: u64 = (TOKEN_IDLE as u64 + 1) * TICK_SECONDS + PASS_MS.div_ceil(1000) + 1;

const _: () = assert!(BOUND <= 130, "a closed connection's token is gone after about two minutes");

fn world() -> World {
    let mut commands = vec![Command::PutPool { name: name("servers") }];
    commands.extend([backend("servers", "b1", 1), backend("servers", "b2", 2), backend("servers", "b3", 3)]);
    commands.push(vip("web", "servers"));
    commands.extend(services("web", 9, 8000));
    World::new(&commands)
}

/// Where a token's joins would go now.
fn owner(world: &World) -> Option<BackendId> {
    let token = token();
    let hash = world.tables.token_hash(token, PoolId(0));
    match world.tables.tokens.find(hash, token, |_| true) {
        TokenLookup::Owner { backend, .. } => Some(backend),
        _ => None,
    }
}

fn token() -> Token {
    Token::from_key(Version::V1, &KEY)
}

fn segment(flow: &Flow) -> PacketBuilder {
    of(flow).data(1001, 1)
}

fn dss(flow: &Flow) -> PacketBuilder {
    segment(flow).dss_data(1, 1, 1, b"data")
}

fn fin(flow: &Flow) -> PacketBuilder {
    of(flow).fin(1001, 1)
}

fn rst(flow: &Flow) -> PacketBuilder {
    of(flow).rst(1001, 1)
}

/// Opens a connection and lets its key be learned.
fn connect(world: &mut World, flow: &Flow) {
    world.send(of(flow).syn(1000).mp_capable_syn_v1());
    let outcome = world.send(segment(flow).mp_capable_ack(Version::V1, CLIENT_KEY, KEY));
    assert!(outcome.verdict.learned);
}

/// Adds a subflow.
fn join(world: &mut World, flow: &Flow) {
    let outcome = world.send(of(flow).syn(1000).mp_join_syn(token(), 1, 1));
    assert_eq!(outcome.verdict.reason, Reason::Token);
    world.send(segment(flow).mp_join_ack([3; 20]));
}

/// A connection with DSS traffic and one join, in a family, begun at any moment of a tick.
fn two_subflows(family: packet::Family, begun: u64) -> (World, Flow, Flow) {
    let mut world = world();
    world.wait(begun);
    let (first, second) = (flow(family, 1, 1000, 9, 8000), flow(family, 2, 2000, 9, 8000));
    connect(&mut world, &first);
    world.send(dss(&first));
    join(&mut world, &second);
    (world, first, second)
}

/// Asserts that the token goes, now that its last subflow ended: not before [`KEPT`], and by [`BOUND`].
fn assert_goes(world: &mut World) {
    world.wait(KEPT);
    assert!(owner(world).is_some(), "gone within {KEPT} s");
    world.wait(BOUND - KEPT);
    assert!(owner(world).is_none(), "still there after {BOUND} s");
}

#[test]
fn a_token_lives_while_a_subflow_is_idle_for_twelve_hours() {
    for family in FAMILIES {
        for state in ["learned", "with traffic", "joined"] {
            let mut world = world();
            let (first, second) = (flow(family, 1, 1000, 9, 8000), flow(family, 2, 2000, 9, 8000));
            connect(&mut world, &first);
            if state != "learned" {
                world.send(dss(&first));
            }
            if state == "joined" {
                join(&mut world, &second);
                world.send(rst(&first));
            }
            let home = owner(&world);
            for _ in 0..12 {
                world.wait(3600);
                assert_eq!(owner(&world), home, "{family:?}, {state}");
            }
            let later = flow(family, 3, 3000, 9, 8000);
            let outcome = world.send(of(&later).syn(5).mp_join_syn(token(), 1, 1));
            assert_eq!((outcome.verdict.reason, outcome.verdict.backend), (Reason::Token, home));
        }
    }
}

#[test]
fn a_token_goes_some_time_after_its_last_subflow_closed_whatever_the_moment() {
    for family in FAMILIES {
        for begun in 0..33 {
            let (mut world, first, second) = two_subflows(family, 100);
            world.wait(begun);
            world.send(fin(&first));
            world.wait(200);
            assert!(owner(&world).is_some(), "the second subflow lives");
            world.wait(begun * 7 % 32);
            world.send(fin(&second));
            assert_goes(&mut world);
            let counted = world.counters.reader().counter(Counter::TokenExpired);
            assert_eq!(counted, 1);
        }
    }
}

#[test]
fn a_token_whose_subflows_were_all_reset_goes_some_time_after() {
    for family in FAMILIES {
        for begun in 0..33 {
            let (mut world, first, second) = two_subflows(family, begun);
            world.send(rst(&first));
            world.send(rst(&second));
            assert_goes(&mut world);
        }
    }
}

#[test]
fn a_join_within_a_minute_after_the_last_subflow_ended_brings_the_token_back_to_life() {
    for family in FAMILIES {
        let (mut world, first, second) = two_subflows(family, 5);
        let home = owner(&world);
        world.send(fin(&first));
        world.send(rst(&second));
        world.wait(KEPT);
        join(&mut world, &flow(family, 3, 3000, 9, 8000));
        world.wait(3600);
        assert_eq!(owner(&world), home);
    }
}

#[test]
fn data_fin_on_the_first_subflow_shortens_a_tokens_life_though_another_subflow_is_open() {
    for family in FAMILIES {
        for begun in 0..17 {
            let (mut world, first, second) = two_subflows(family, begun);
            world.wait(300);
            world.send(fin(&first).data_fin(1, 2));
            assert_eq!(world.counters.reader().counter(Counter::TokenClosing), 1);
            world.send(dss(&second));
            assert_goes(&mut world);
            let home = world.send(dss(&second)).verdict.backend;
            assert!(home.is_some(), "the subflow itself goes on");
        }
    }
}

#[test]
fn fastclose_with_the_right_key_shortens_a_tokens_life_on_any_subflow() {
    for family in FAMILIES {
        for on_second in [false, true] {
            let (mut world, first, second) = two_subflows(family, 3);
            let closed = if on_second { &second } else { &first };
            world.send(rst(closed).fastclose(KEY));
            assert_eq!(world.counters.reader().counter(Counter::TokenClosing), 1);
            assert_goes(&mut world);
        }
    }
}

/// The other subflow stays: what follows must not end the token.
fn assert_stays(shorten: impl Fn(&mut World, &Flow, &Flow)) {
    for family in FAMILIES {
        let (mut world, first, second) = two_subflows(family, 3);
        let home = owner(&world);
        shorten(&mut world, &first, &second);
        world.wait(3600);
        assert_eq!(owner(&world), home);
        assert_eq!(world.counters.reader().counter(Counter::TokenClosing), 0);
    }
}

#[test]
fn fastclose_with_a_wrong_key_shortens_nothing() {
    assert_stays(|world, first, _| drop(world.send(rst(first).fastclose(Key([0x43; 8])))));
    assert_stays(|world, first, _| drop(world.send(rst(first).fastclose(CLIENT_KEY))));
}

#[test]
fn a_fin_or_a_rst_alone_shortens_nothing() {
    assert_stays(|world, first, _| drop(world.send(fin(first))));
    assert_stays(|world, _, second| drop(world.send(rst(second))));
}

#[test]
fn who_guessed_a_token_cannot_end_it_with_a_join_and_data_fin() {
    assert_stays(|world, first, _| {
        let guess = flow(first.family, 66, 6666, 9, 8000);
        world.send(of(&guess).syn(1000).mp_join_syn(token(), 1, 1));
        world.send(fin(&guess).data_fin(1, 2));
        world.send(fin(&guess).data_fin(1, 2));
        let other = flow(first.family, 67, 6666, 9, 8000);
        join(world, &other);
        world.send(rst(&other).data_fin(1, 2));
    });
}

#[test]
fn a_forged_fin_or_rst_does_not_end_a_token_while_the_subflow_goes_on() {
    for family in FAMILIES {
        for forged in [fin as fn(&Flow) -> PacketBuilder, rst] {
            let (mut world, first, second) = two_subflows(family, 9);
            let home = owner(&world);
            world.send(rst(&second));
            world.send(forged(&first));
            for _ in 0..60 {
                world.wait(30);
                let outcome = world.send(dss(&first));
                assert_eq!(outcome.verdict.backend, home);
                assert_eq!(owner(&world), home);
            }
        }
    }
}

#[test]
fn a_half_open_flow_lives_a_minute_and_goes_within_two() {
    for family in FAMILIES {
        for begun in 0..17 {
            for kind in 0..3 {
                let mut world = world();
                world.wait(begun);
                let flow = flow(family, 1, 1000, 9, 8000);
                let syn = of(&flow).syn(1000);
                world.send(match kind {
                    0 => syn,
                    1 => syn.mp_capable_syn_v1(),
                    _ => syn.mp_capable_syn_v0(CLIENT_KEY),
                });
                world.wait(64);
                assert_eq!(world.held_ids().len(), 1, "gone within 64 s");
                world.wait(36);
                assert!(world.held_ids().is_empty(), "still there after 100 s");
                assert_eq!(world.counters.reader().counter(Counter::FlowExpired), 1);
            }
        }
    }
}

#[test]
fn a_half_open_join_goes_too_and_does_not_keep_its_token() {
    for family in FAMILIES {
        let (mut world, first, second) = two_subflows(family, 0);
        world.send(rst(&first));
        world.send(rst(&second));
        world.wait(50);
        let third = flow(family, 3, 3000, 9, 8000);
        world.send(of(&third).syn(1000).mp_join_syn(token(), 1, 1));
        world.wait(BOUND - 50);
        assert!(owner(&world).is_none());
        world.wait(100);
        assert!(world.held_ids().is_empty());
    }
}

#[test]
fn entries_of_every_kind_are_gone_after_a_day_and_none_comes_back_when_the_clock_wraps() {
    for family in FAMILIES {
        let (mut world, first, _) = two_subflows(family, 0);
        world.send(of(&flow(family, 5, 1, 9, 8000)).syn(1));
        world.send(of(&flow(family, 6, 1, 9, 8000)).data(1, 1));
        let plain = flow(family, 7, 1, 9, 8000);
        world.send(of(&plain).syn(1));
        world.send(of(&plain).data(2, 1));
        let mut before = world.held_ids().len();
        assert_eq!(before, 6, "five flows and a token");
        for _ in 0..40 {
            world.wait(3600);
            let now = world.held_ids().len();
            assert!(now <= before, "an entry came back");
            before = now;
        }
        assert_eq!(before, 0);
        assert_eq!(world.send(dss(&first)).verdict.reason, Reason::Hash, "the flow is unknown");
    }
}

#[test]
fn an_expired_flow_is_unknown_before_the_sweep_comes_by() {
    for family in FAMILIES {
        let mut world = world();
        let flow = flow(family, 1, 1000, 9, 8000);
        world.send(of(&flow).syn(1000).mp_capable_syn_v1());
        world.skip(100);
        let outcome = world.send(segment(&flow).mp_capable_ack(Version::V1, CLIENT_KEY, KEY));
        assert_eq!(outcome.verdict.reason, Reason::Hash);
        assert!(!outcome.verdict.learned);
    }
}

#[test]
fn after_a_sleep_of_the_machine_the_tokens_of_live_flows_are_there_and_those_of_ended_ones_go() {
    for family in FAMILIES {
        // Enough connections that the place of none of them in the tables decides.
        let mut world = world();
        let keys: Vec<Key> = (0..200_u64).map(|number| Key(number.to_be_bytes())).collect();
        for (key, source) in keys.iter().zip(1000..) {
            let flow = flow(family, 1, source, 9, 8000);
            world.send(of(&flow).syn(1000).mp_capable_syn_v1());
            world.send(segment(&flow).mp_capable_ack(Version::V1, CLIENT_KEY, *key));
            world.send(dss(&flow));
            if source % 2 == 0 {
                world.send(rst(&flow));
            }
        }
        world.wait(30);
        world.skip(900);
        world.wait(40);
        for (key, source) in keys.iter().zip(1000_u16..) {
            let token = Token::from_key(Version::V1, key);
            let hash = world.tables.token_hash(token, PoolId(0));
            let known = world.tables.tokens.find(hash, token, |_| true) != TokenLookup::Unknown;
            assert_eq!(known, source % 2 == 1, "{family:?}: connection {source}");
        }
    }
}

#[test]
fn after_a_pause_no_worker_judges_tokens_before_the_others_have_visited_their_flows() {
    let mut world = world();
    let keys: Vec<Key> = (0..200_u64).map(|number| Key(number.to_be_bytes())).collect();
    for (key, source) in keys.iter().zip(1000..) {
        let flow = flow(Family::V4, 1, source, 9, 8000);
        world.send(of(&flow).syn(1000).mp_capable_syn_v1());
        world.send(segment(&flow).mp_capable_ack(Version::V1, CLIENT_KEY, *key));
        world.send(dss(&flow));
    }
    // Two workers; the pause ends, and one of them does all its part before the other begins.
    let mut sweepers = [Sweeper::new(0, 2), Sweeper::new(1, 2)];
    let mut sweep = |world: &mut World, worker: usize| {
        let cx = Context {
            snapshot: &world.snapshot,
            tables: &world.tables,
            counters: &world.counters,
            now: Tick::from_seconds(world.seconds),
            millis: world.seconds * 1000,
            port: PortId(0),
        };
        while sweepers[worker].advance(world.seconds * 1000, LINES_PER_CALL, &cx) {}
    };
    for _ in 0..30 {
        world.skip(1);
        (0..2).for_each(|worker| sweep(&mut world, worker));
    }
    world.skip(900);
    sweep(&mut world, 1);
    sweep(&mut world, 0);
    for _ in 0..40 {
        world.skip(1);
        (0..2).for_each(|worker| sweep(&mut world, worker));
    }
    for key in &keys {
        let token = Token::from_key(Version::V1, key);
        let hash = world.tables.token_hash(token, PoolId(0));
        assert_ne!(world.tables.tokens.find(hash, token, |_| true), TokenLookup::Unknown);
    }
}

/// A world with this many connections with traffic, of which every second one is reset, and their keys.
fn crowd(count: u64) -> (World, Vec<Key>) {
    let mut world = world();
    world.wait(100);
    let keys: Vec<Key> = (0..count).map(|number| Key(number.to_be_bytes())).collect();
    for (key, source) in keys.iter().zip(1000..) {
        let flow = flow(Family::V4, 1, source, 9, 8000);
        world.send(of(&flow).syn(1000).mp_capable_syn_v1());
        world.send(segment(&flow).mp_capable_ack(Version::V1, CLIENT_KEY, *key));
        world.send(dss(&flow));
        if source % 2 == 0 {
            world.send(rst(&flow));
        }
    }
    world.wait(30);
    (world, keys)
}

/// Whether the token of a key is known.
fn is_known(world: &World, key: &Key) -> bool {
    let token = Token::from_key(Version::V1, key);
    let hash = world.tables.token_hash(token, PoolId(0));
    world.tables.tokens.find(hash, token, |_| true) != TokenLookup::Unknown
}

#[test]
fn after_a_restart_tokens_of_live_flows_stay_and_others_go_however_long_nobody_was_there() {
    for pause in [0, 1, 2, 15, 60, 97, 900, 3600, 12 * 3600, 17 * 3600] {
        let (mut world, keys) = crowd(200);
        let attached = world.restart(pause);
        // Closed 30 s before; such a flow is kept for 128 s, its token in any case.
        assert_eq!(attached.flows, if pause < 98 { 200 } else { 100 }, "after {pause} s");
        assert_eq!((attached.tokens, attached.busy_cleared), (200, 0), "after {pause} s");
        world.wait(BOUND + 20);
        for (key, source) in keys.iter().zip(1000_u16..) {
            assert_eq!(is_known(&world, key), source % 2 == 1, "connection {source} after {pause} s");
        }
    }
}

#[test]
fn after_a_pause_longer_than_any_flow_lives_nothing_is_left_whatever_the_ticks_wrap_to() {
    for pause in [18 * 3600, 65_536, 65_536 + 50, 2 * 65_536 + 130, 30 * 24 * 3600] {
        let (mut world, keys) = crowd(200);
        let attached = world.restart(pause);
        assert_eq!((attached.flows, attached.tokens, attached.expired), (0, 0, 400), "after {pause} s");
        assert!(!keys.iter().any(|key| is_known(&world, key)));
    }
}

#[test]
fn after_a_restart_no_worker_judges_tokens_before_all_have_visited_their_flows_however_late() {
    let (mut world, keys) = crowd(200);
    world.restart(900);
    let mut sweepers = [Sweeper::new(0, 2), Sweeper::new(1, 2)];
    let began = world.seconds;
    for second in 1..=400 {
        world.seconds += 1;
        for (worker, sweeper) in sweepers.iter_mut().enumerate() {
            // The second worker begins late, stops half way, and goes on.
            if worker == 1 && !(200..208).contains(&second) && second < 260 {
                continue;
            }
            let cx = world.context();
            while sweeper.advance((world.seconds - began) * 1000, LINES_PER_CALL, &cx) {}
        }
        let live = keys.iter().skip(1).step_by(2).filter(|key| is_known(&world, key)).count();
        assert_eq!(live, 100, "second {second}");
    }
    let ended = keys.iter().step_by(2).filter(|key| is_known(&world, key)).count();
    assert_eq!(ended, 0, "the sweep goes on once all was visited");
}

#[test]
fn before_the_first_configuration_a_restarted_data_plane_forgets_nothing_that_is_young() {
    let (mut world, keys) = crowd(200);
    let snapshot = world.snapshot.clone();
    world.restart(2);
    world.snapshot = engine::snapshot::Snapshot::unconfigured(&world.site);
    world.wait(300);
    world.snapshot = snapshot;
    world.wait(300);
    for (key, source) in keys.iter().zip(1000_u16..) {
        assert_eq!(is_known(&world, key), source % 2 == 1, "connection {source}");
    }
}

#[test]
fn handshake_and_data_in_a_second_and_twelve_hours_of_silence_leave_flow_and_token_alone() {
    for family in FAMILIES {
        for backup_only in [false, true] {
            let mut world = world();
            let (first, second) = (flow(family, 1, 1000, 9, 8000), flow(family, 2, 2000, 9, 8000));
            connect(&mut world, &first);
            let home = world.send(dss(&first)).verdict.backend;
            if backup_only {
                // A backup subflow: its handshake, and nothing ever after. The first one ends.
                join(&mut world, &second);
                world.send(rst(&first));
            }
            world.wait(12 * 3600);
            assert_eq!(owner(&world), home, "{family:?}");
            let live = if backup_only { &second } else { &first };
            let outcome = world.send(dss(live));
            assert_eq!((outcome.verdict.reason, outcome.verdict.backend), (Reason::Flow, home));
            world.send(fin(live));
            assert_goes(&mut world);
        }
    }
}

#[test]
fn an_idle_connection_and_a_silent_backup_subflow_keep_their_token_through_twelve_hours_of_syn_flood() {
    let mut world = World::of_size(support::site(), 256, 256);
    let mut commands = vec![Command::PutPool { name: name("servers") }];
    commands.extend([backend("servers", "b1", 1), backend("servers", "b2", 2)]);
    commands.push(vip("web", "servers"));
    commands.extend(services("web", 9, 8000));
    world.commit(&commands);
    let (first, second) = (flow(Family::V4, 1, 1000, 9, 8000), flow(Family::V6, 2, 2000, 9, 8000));
    connect(&mut world, &first);
    let home = world.send(dss(&first)).verdict.backend;
    world.wait(40);
    world.send(dss(&first));
    join(&mut world, &second);
    let slots = world.tables.flows.capacity();
    let mut number = 0_u32;
    for _ in 0..12 * 3600 / 64 {
        // The whole table anew before the last flood expires.
        for _ in 0..slots.div_ceil(32) {
            let syns = (0..32).map(|_| {
                number += 1;
                let port = 1024 + u16::try_from(number % 60_000).unwrap();
                let host = 100 + u16::try_from(number / 60_000).unwrap();
                of(&flow(Family::V4, host, port, 9, 8000)).syn(number).mp_capable_syn_v1().build()
            });
            let syns = syns.collect();
            world.burst(syns);
        }
        world.wait(64);
        assert_eq!(owner(&world), home);
    }
    let evicted = world.counters.reader().counter(Counter::FlowEvictedHalfOpen);
    assert!(evicted > 10 * slots as u64, "{evicted} of {slots} slots");
    for flow in [&first, &second] {
        let outcome = world.send(dss(flow));
        assert_eq!((outcome.verdict.reason, outcome.verdict.backend), (Reason::Flow, home));
    }
}

#[test]
fn a_flow_is_marked_as_moved_when_maglev_answers_otherwise_and_no_longer_when_it_answers_so_again() {
    for family in FAMILIES {
        let mut world = world();
        let flow = world.flow_to("b2", family, 9, 8000, 0);
        let is_moved = |world: &World| {
            world.tables.flows.find(world.tables.flow_hash(&flow)).map(|found| found.entry.moved).unwrap()
        };
        connect(&mut world, &flow);
        world.send(dss(&flow));
        for (state, moved, counted) in [
            (BackendState::Active, false, 0),
            (BackendState::Draining, true, 1),
            (BackendState::Draining, true, 1),
            (BackendState::Active, false, 1),
            (BackendState::Down, true, 2),
        ] {
            world.commit(&[support::backend_in("servers", "b2", 2, 100, state)]);
            world.wait(40);
            let outcome = world.send(dss(&flow));
            assert_eq!(world.name_of(outcome.verdict.backend), Some("b2"));
            assert_eq!(is_moved(&world), moved, "{state:?}");
            assert_eq!(world.counters.reader().counter(Counter::FlowMoved), counted, "{state:?}");
        }
    }
}

#[test]
fn a_flow_that_moves_while_it_opens_or_as_it_ends_is_of_the_last_class() {
    let again = |flow: &Flow| [of(flow).syn(1000), segment(flow).payload(b"data")];
    let key = |flow: &Flow| [segment(flow), segment(flow).mp_capable_ack(Version::V1, CLIENT_KEY, KEY)];
    type Packets = fn(&Flow) -> [PacketBuilder; 2];
    let cases: [(&str, Packets, Packets, Class); 3] = [
        ("a SYN sent again", |flow| [of(flow).syn(1000), of(flow).syn(1000)], again, Class::Own),
        (
            "a bare ACK, and then the key",
            |flow| [of(flow).syn(1000).mp_capable_syn_v1(), segment(flow)],
            key,
            Class::Own,
        ),
        (
            "a FIN",
            |flow| [of(flow).syn(1000), segment(flow).payload(b"data")],
            |flow| [fin(flow), segment(flow)],
            Class::Closing,
        ),
    ];
    for (family, (what, before, after, unmoved)) in FAMILIES.into_iter().flat_map(|f| cases.map(|c| (f, c))) {
        for moves in [false, true] {
            let mut world = world();
            let flow = world.flow_to("b1", family, 9, 8000, 0);
            for packet in before(&flow) {
                world.send(packet);
            }
            if moves {
                world.commit(&[backend_in("servers", "b1", 1, 100, BackendState::Draining)]);
            }
            world.wait(TICK_SECONDS);
            for packet in after(&flow) {
                assert_eq!(world.send(packet).verdict.backend, Some(world.id_of("b1")), "{what}");
            }
            let entry = world.tables.flows.find(world.tables.flow_hash(&flow)).unwrap().entry;
            let expected = if moves { Class::Kept } else { unmoved };
            assert_eq!(entry.class(), expected, "{family:?}: {what}, moved: {moves}");
            assert_eq!(world.counters.reader().counter(Counter::FlowMoved), u64::from(moves), "{what}");
        }
    }
}
