//! What agents on backends report: joins and subflows that this data plane saw nothing of reach their server, ends are
//! exact, and the worst report takes no token that another agent proved and no flow that a handshake opened here.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod support;

use engine::flow_entry::FlowState;
use engine::lifetimes::Class;
use engine::reported::Installed;
use engine::tables::Tables;
use engine::token_entry::{Rank, TokenEntry};
use engine::token_table::{Proof, TokenLookup, Vouched};
use ipc::counter::Counter;
use ipc::id::BackendId;
use ipc::message::{BackendState, Command, Forward, Protocol, Scheme, Steering, UnknownToken};
use ipc::reason::Reason;
use ipc::report::Subflow;
use packet::{Family, Flow, Key, Token, Version};
use support::{CLIENT_KEY, FAMILIES, World, backend, backend_in, flow, name, of, reports, services, vip};

const KEY: Key = Key([0x42; 8]);
const ISN: u32 = 77;

fn world() -> World {
    let mut commands =
        vec![Command::PutPool { name: name("servers") }, Command::PutPool { name: name("other") }];
    commands.extend((1..=4).map(|number| backend("servers", &format!("b{number}"), number)));
    commands.push(backend("other", "o1", 5));
    commands.push(vip("web", "servers"));
    commands.extend(services("web", 9, 8000));
    World::new(&commands)
}

fn token() -> Token {
    Token::from_key(Version::V1, &KEY)
}

fn subflow(flow: &Flow) -> Subflow {
    let client = (flow.source.to_ip(), flow.source_port).into();
    Subflow::new(client, (flow.destination.to_ip(), flow.destination_port).into()).unwrap()
}

/// Where a join of the token goes, from a port of its own.
fn join(world: &mut World, source_port: u16) -> (Reason, Option<String>) {
    let flow = flow(Family::V4, 99, source_port, 9, 8000);
    let verdict = world.send(of(&flow).syn(5).mp_join_syn(token(), 1, 1)).verdict;
    (verdict.reason, world.name_of(verdict.backend).map(str::to_owned))
}

/// A connection from its SYN to its key, as this data plane sees it.
fn connect(world: &mut World, to: &str, key: Key) -> Flow {
    let flow = world.flow_to(to, Family::V4, 9, 8000, 0);
    world.send(of(&flow).syn(ISN).mp_capable_syn_v1());
    world.send(of(&flow).data(ISN + 1, 1).mp_capable_ack(Version::V1, CLIENT_KEY, key));
    flow
}

fn owner(world: &World, backend: &str) -> TokenLookup {
    TokenLookup::Owner { backend: world.id_of(backend), rank: Rank::Proven }
}

fn find(world: &World) -> TokenLookup {
    let pool = world.snapshot.backend(world.id_of("b1")).unwrap().pool;
    let belongs = |id| world.snapshot.backend(id).is_some_and(|known| known.pool == pool);
    world.tables.tokens.find(world.tables.token_hash(token(), pool), token(), belongs)
}

#[test]
fn a_join_whose_handshake_passed_elsewhere_follows_the_proof() {
    let mut world = world();
    assert_eq!(join(&mut world, 1).0, Reason::UnknownToken);
    assert_eq!(reports(&world).token_lives(world.id_of("b3"), token()), Some(Proof::New));
    assert_eq!(join(&mut world, 2), (Reason::Token, Some("b3".to_owned())));
    assert_eq!(reports(&world).token_lives(world.id_of("b3"), token()), Some(Proof::Known));
}

#[test]
fn a_token_that_was_learned_is_raised_by_its_proof() {
    let mut world = world();
    connect(&mut world, "b2", KEY);
    assert_eq!(reports(&world).token_lives(world.id_of("b2"), token()), Some(Proof::Raised));
    assert_eq!(find(&world), owner(&world, "b2"));
}

#[test]
fn a_false_claim_is_outranked_whether_it_came_before_or_after_and_however_long_it_lived() {
    let mut world = world();
    // A client claims a key that is not its server's, and its connection lasts.
    let liar = connect(&mut world, "b1", KEY);
    for _ in 0..4 {
        world.wait(16);
        world.send(of(&liar).data(ISN + 1, 1).dss_data(1, 1, 1, b"data"));
    }
    assert_eq!(world.counters.reader().counter(Counter::TokenSeen), 1);
    assert_eq!(reports(&world).token_lives(world.id_of("b2"), token()), Some(Proof::New));
    assert_eq!(join(&mut world, 1).1, Some("b2".to_owned()));
    // And once more, after the proof.
    let again = world.flow_to("b3", Family::V4, 9, 8000, 0);
    world.send(of(&again).syn(ISN).mp_capable_syn_v1());
    world.send(of(&again).data(ISN + 1, 1).mp_capable_ack(Version::V1, CLIENT_KEY, KEY));
    assert_eq!(world.counters.reader().counter(Counter::TokenConflict), 1);
    assert_eq!(join(&mut world, 2).1, Some("b2".to_owned()));
}

#[test]
fn more_false_claims_than_are_kept_do_not_keep_a_proof_out() {
    let mut world = world();
    for backend in ["b1", "b3", "b4"] {
        connect(&mut world, backend, KEY);
    }
    assert_eq!(find(&world), TokenLookup::Ambiguous);
    assert_eq!(reports(&world).token_lives(world.id_of("b2"), token()), Some(Proof::New));
    assert_eq!(find(&world), owner(&world, "b2"));
}

#[test]
fn an_agent_takes_no_token_that_another_proved_and_gets_it_when_that_one_lets_go() {
    let world = world();
    let [mine, theirs] = ["b1", "b2"].map(|name| world.id_of(name));
    assert_eq!(reports(&world).token_lives(theirs, token()), Some(Proof::New));
    assert_eq!(reports(&world).token_lives(mine, token()), Some(Proof::Refused));
    assert!(!reports(&world).token_ended(mine, token()), "and closes none but its own");
    assert_eq!(find(&world), owner(&world, "b2"));
    assert!(reports(&world).token_ended(theirs, token()));
    assert_eq!(reports(&world).token_lives(mine, token()), Some(Proof::New));
}

#[test]
fn a_token_whose_connection_ended_is_gone_at_once() {
    let mut world = world();
    connect(&mut world, "b2", KEY);
    let b2 = world.id_of("b2");
    reports(&world).token_lives(b2, token());
    assert_eq!(join(&mut world, 1).0, Reason::Token);
    assert!(reports(&world).token_ended(b2, token()));
    assert_eq!(join(&mut world, 2).0, Reason::UnknownToken);
    assert!(!reports(&world).token_ended(b2, token()), "once");
}

/// A pass that renews what agents vouch for.
fn renew(world: &World, there: impl Fn(BackendId) -> bool) {
    let pool = |backend| world.snapshot.backend(backend).unwrap().pool;
    let judge = |entry: &TokenEntry| {
        if there(entry.backend) {
            Vouched::Renewed(world.tables.token_hash(entry.token, pool(entry.backend)))
        } else {
            Vouched::Left
        }
    };
    world.tables.tokens.renew(0, world.tables.tokens.lines(), world.now(), judge);
}

#[test]
fn nothing_that_packets_say_ends_a_proven_token() {
    let mut world = world();
    let flow = connect(&mut world, "b2", KEY);
    reports(&world).token_lives(world.id_of("b2"), token());
    world.send(of(&flow).data(ISN + 1, 1).fastclose(KEY));
    world.send(of(&flow).rst(ISN + 1, 1));
    renew(&world, |_| true);
    assert_eq!(world.counters.reader().counter(Counter::TokenClosing), 0);
    for _ in 0..20 {
        world.wait(32);
        renew(&world, |_| true);
    }
    assert_eq!(join(&mut world, 1).1, Some("b2".to_owned()));
}

#[test]
fn proven_tokens_live_as_long_as_their_agent_is_there_and_no_longer() {
    let mut world = world();
    let [b1, b2] = ["b1", "b2"].map(|name| world.id_of(name));
    let other = Token(0x1234_5678);
    reports(&world).token_lives(b1, token());
    reports(&world).token_lives(b2, other);
    for _ in 0..10 {
        world.wait(32);
        renew(&world, |backend| backend == b1);
    }
    assert_eq!(find(&world), owner(&world, "b1"));
    assert_eq!(reports(&world).token_lives(b1, other), Some(Proof::New), "the other's claim is gone");
}

#[test]
fn a_subflow_that_was_opened_elsewhere_reaches_its_server() {
    for family in FAMILIES {
        for joined in [true, false] {
            let mut world = world();
            let flow = world.flow_to("b1", family, 9, 8000, 0);
            let to = world.id_of("b4");
            let installed = reports(&world).subflow_lives(to, token(), &subflow(&flow), joined);
            assert_eq!(installed, Installed::New);
            let verdict = world.send(of(&flow).data(1000, 1)).verdict;
            assert_eq!((verdict.reason, verdict.backend), (Reason::Flow, Some(to)), "{family:?} {joined}");
            let again = reports(&world).subflow_lives(to, token(), &subflow(&flow), joined);
            assert_eq!(again, Installed::Known);
        }
    }
}

#[test]
fn a_first_subflow_that_maglev_sends_there_anyway_takes_no_room() {
    let world = world();
    let flow = world.flow_to("b1", Family::V4, 9, 8000, 0);
    let b1 = world.id_of("b1");
    assert_eq!(reports(&world).subflow_lives(b1, token(), &subflow(&flow), false), Installed::Known);
    assert_eq!(world.held_ids(), Vec::<BackendId>::new());
}

#[test]
fn packets_that_came_before_the_report_are_corrected_by_it() {
    let mut world = world();
    let flow = world.flow_to("b1", Family::V4, 9, 8000, 0);
    let verdict = world.send(of(&flow).data(1000, 1)).verdict;
    assert_eq!(world.name_of(verdict.backend), Some("b1"), "by Maglev: nothing is known");
    let to = world.id_of("b4");
    assert_eq!(reports(&world).subflow_lives(to, token(), &subflow(&flow), true), Installed::New);
    assert_eq!(world.send(of(&flow).data(1001, 1)).verdict.backend, Some(to));
}

#[test]
fn a_lying_agent_takes_no_flow_that_was_opened_here_and_ends_none() {
    let mut world = world();
    let b4 = world.id_of("b4");
    let victim = connect(&mut world, "b1", KEY);
    let plain = world.flow_to("b2", Family::V4, 9, 8000, 1);
    world.send(of(&plain).syn(ISN));
    for flow in [victim, plain] {
        let before = world.tables.flows.find(world.tables.flow_hash(&flow)).unwrap().entry;
        let reports = reports(&world);
        assert_eq!(reports.subflow_lives(b4, token(), &subflow(&flow), true), Installed::Refused);
        assert!(!reports.subflow_ended(b4, &subflow(&flow)));
        let after = world.tables.flows.find(world.tables.flow_hash(&flow)).unwrap().entry;
        assert_eq!(before, after);
    }
}

#[test]
fn a_flow_for_no_service_of_the_backends_pool_is_refused() {
    let world = world();
    let [o1, b1] = ["o1", "b1"].map(|name| world.id_of(name));
    let flow_to = |vip, port| subflow(&flow(Family::V4, 700, 5, vip, port));
    let reports = reports(&world);
    assert_eq!(reports.subflow_lives(o1, token(), &flow_to(9, 8000), true), Installed::Refused, "pool");
    assert_eq!(reports.subflow_lives(b1, token(), &flow_to(9, 8001), true), Installed::Refused, "port");
    assert_eq!(reports.subflow_lives(b1, token(), &flow_to(8, 8000), true), Installed::Refused, "address");
    let unknown = BackendId(99);
    assert_eq!(reports.subflow_lives(unknown, token(), &flow_to(9, 8000), true), Installed::Refused);
    assert_eq!(reports.token_lives(unknown, token()), None);
    assert!(!reports.token_ended(unknown, token()));
    assert_eq!(world.held_ids(), Vec::<BackendId>::new());
}

#[test]
fn a_report_reserves_no_5_tuple_that_a_client_has_yet_to_open() {
    for joined in [true, false] {
        let mut world = world();
        let flow = world.flow_to("b1", Family::V4, 9, 8000, 0);
        let liar = world.id_of("b4");
        assert_eq!(reports(&world).subflow_lives(liar, token(), &subflow(&flow), joined), Installed::New);
        let opened = world.send(of(&flow).syn(ISN).mp_capable_syn_v1()).verdict;
        assert_eq!(world.name_of(opened.backend), Some("b1"), "{joined}");
        let ack = world.send(of(&flow).data(ISN + 1, 1).mp_capable_ack(Version::V1, CLIENT_KEY, KEY)).verdict;
        assert_eq!(world.name_of(ack.backend), Some("b1"));
        assert_eq!(reports(&world).subflow_lives(liar, token(), &subflow(&flow), joined), Installed::Refused);
    }
}

#[test]
fn flows_that_are_only_reported_give_way_to_what_packets_open_and_not_to_packets_of_unknown_flows() {
    const FLOWS: u16 = 2000;
    let mut world = world();
    world.tables = Tables::on_heap(100, 1024, &[1; 32]);
    let b4 = world.id_of("b4");
    let mut over = 0;
    for port in 0..FLOWS {
        let flow = flow(Family::V4, 700, port, 9, 8000);
        let installed = reports(&world).subflow_lives(b4, token(), &subflow(&flow), true);
        over += u16::from(installed == Installed::Over);
    }
    assert!(over > FLOWS / 2, "the table is full of them: {over}");
    for port in 0..50 {
        let flow = flow(Family::V4, 900, port, 9, 8000);
        let adopted = world.send(of(&flow).data(1, 1)).verdict;
        assert_eq!(adopted.reason, Reason::Hash);
        let count = world.counters.reader().counter(Counter::FlowEvictedClosing);
        assert_eq!(count, u64::from(port), "an unknown flow's packet takes none of their places");
        let to = world.flow_to("b1", Family::V4, 9, 8000, usize::from(port));
        world.send(of(&to).syn(ISN));
        let count = world.counters.reader().counter(Counter::FlowEvictedClosing);
        assert_eq!(count, u64::from(port) + 1);
        assert!(world.tables.flows.find(world.tables.flow_hash(&to)).is_some());
        world.send(of(&to).data(ISN + 1, 1));
    }
}

#[test]
fn a_reported_flow_is_kept_as_any_from_its_first_packet_on() {
    for joined in [true, false] {
        let mut world = world();
        let flow = world.flow_to("b1", Family::V4, 9, 8000, 0);
        let b4 = world.id_of("b4");
        reports(&world).subflow_lives(b4, token(), &subflow(&flow), joined);
        let class = |world: &World| {
            let entry = world.tables.flows.find(world.tables.flow_hash(&flow)).unwrap().entry;
            (entry.state, entry.class())
        };
        assert_eq!(class(&world), (FlowState::Reported, Class::Closing));
        world.wait(40_000);
        assert_eq!(world.send(of(&flow).data(ISN + 1, 1)).verdict.backend, Some(b4), "however long it waits");
        let state = if joined { FlowState::Joined } else { FlowState::Mptcp };
        assert_eq!(class(&world), (state, Class::Kept));
        assert_eq!(world.send(of(&flow).syn(ISN)).verdict.backend, Some(b4), "a forged SYN moves it no more");
    }
}

#[test]
fn a_joined_flow_whose_end_was_reported_keeps_its_class_while_it_closes() {
    let mut world = world();
    let flow = world.flow_to("b1", Family::V4, 9, 8000, 0);
    let b4 = world.id_of("b4");
    reports(&world).subflow_lives(b4, token(), &subflow(&flow), true);
    world.send(of(&flow).data(ISN + 1, 1));
    assert!(reports(&world).subflow_ended(b4, &subflow(&flow)));
    let entry = world.tables.flows.find(world.tables.flow_hash(&flow)).unwrap().entry;
    assert_eq!((entry.state, entry.class()), (FlowState::ClosingToken, Class::Kept));
}

/// A flow that lasted and fell silent, then another table of Maglev's.
#[test]
fn a_report_takes_the_place_of_no_flow_of_which_nobody_knows_whether_it_moved() {
    for is_drained in [false, true] {
        let mut world = world();
        world.tables = Tables::on_heap(1, 1024, &[1; 32]);
        let mut silent = Vec::new();
        for nth in 0..2000 {
            let flow = world.flow_to("b1", Family::V4, 9, 8000, nth);
            world.send(of(&flow).syn(ISN));
            world.send(of(&flow).data(ISN + 1, 1));
            if world.tables.flows.find(world.tables.flow_hash(&flow)).is_some() {
                silent.push(flow);
            }
        }
        for _ in 0..3 {
            world.wait(32);
            silent.iter().for_each(|flow| drop(world.send(of(flow).data(ISN + 1, 1))));
        }
        if is_drained {
            world.commit(&[backend_in("servers", "b1", 1, 1, BackendState::Draining)]);
        }
        world.wait(600);
        let b4 = world.id_of("b4");
        let installed = |port| {
            let flow = flow(Family::V4, 700, port, 9, 8000);
            reports(&world).subflow_lives(b4, token(), &subflow(&flow), true)
        };
        let over = (0..2000).filter(|port| installed(*port) == Installed::Over).count();
        let is_there = |flow: &&Flow| {
            let found = world.tables.flows.find(world.tables.flow_hash(flow));
            found.is_some_and(|found| found.entry.backend == world.id_of("b1"))
        };
        let lost = silent.len() - silent.iter().filter(is_there).count();
        assert!(over >= lost, "each that gave way is told: {over} of {lost}");
        assert_eq!(lost > 0, !is_drained, "{lost} gave way");
    }
}

#[test]
fn a_proof_that_takes_another_tokens_place_says_so() {
    let mut world = world();
    world.tables = Tables::on_heap(1024, 0, &[1; 32]);
    for key in 0..2000_u64 {
        let flow = world.flow_to("b1", Family::V4, 9, 8000, usize::try_from(key).unwrap());
        world.send(of(&flow).syn(ISN).mp_capable_syn_v1());
        let key = Key(key.to_be_bytes());
        world.send(of(&flow).data(ISN + 1, 1).mp_capable_ack(Version::V1, CLIENT_KEY, key));
    }
    assert_eq!(reports(&world).token_lives(world.id_of("b2"), token()), Some(Proof::Over));
    assert_eq!(find(&world), owner(&world, "b2"));
}

#[test]
fn a_subflow_that_ended_closes_and_is_forgotten_soon() {
    let mut world = world();
    let flow = world.flow_to("b1", Family::V4, 9, 8000, 0);
    let to = world.id_of("b4");
    reports(&world).subflow_lives(to, token(), &subflow(&flow), true);
    assert!(reports(&world).subflow_ended(to, &subflow(&flow)));
    assert!(!reports(&world).subflow_ended(to, &subflow(&flow)), "once");
    assert_eq!(world.send(of(&flow).data(1000, 1)).verdict.backend, Some(to), "last packets still arrive");
    world.wait(300);
    assert_eq!(world.held_ids(), Vec::<BackendId>::new());
}

#[test]
fn a_join_that_is_half_open_here_is_established_by_the_report() {
    let mut world = world();
    let b3 = world.id_of("b3");
    reports(&world).token_lives(b3, token());
    let second = flow(Family::V4, 99, 7, 9, 8000);
    world.send(of(&second).syn(5).mp_join_syn(token(), 1, 1));
    assert_eq!(reports(&world).subflow_lives(b3, token(), &subflow(&second), true), Installed::Known);
    world.wait(3600);
    assert_eq!(world.send(of(&second).data(6, 1)).verdict.reason, Reason::Flow, "no longer half-open");
}

#[test]
fn a_vip_that_only_agents_steer_believes_no_handshake() {
    let mut world = world();
    world.commit(&[Command::PutVip {
        name: name("web"),
        pool: name("servers"),
        protocol: Protocol::Tcp,
        forward: Forward::L2dsr,
        steering: Steering::by([Scheme::Agent]),
        unknown_token: UnknownToken::Drop,
    }]);
    connect(&mut world, "b2", KEY);
    assert_eq!(world.counters.reader().counter(Counter::TokenLearned), 0);
    assert_eq!(join(&mut world, 1).0, Reason::UnknownToken);
    assert_eq!(reports(&world).token_lives(world.id_of("b2"), token()), Some(Proof::New));
    assert_eq!(join(&mut world, 2), (Reason::Token, Some("b2".to_owned())));
}
