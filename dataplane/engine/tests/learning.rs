//! How keys are learned over whole connections: the eight ways in which a balancer on the client's side can see a
//! server's key (measured on Linux), full tables, and claims that compete.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod support;

use engine::lifetimes::Evict;
use engine::tables::Tables;
use ipc::counter::Counter;
use ipc::message::{Command, UnknownToken};
use ipc::reason::Reason;
use packet::build::PacketBuilder;
use packet::{Family, Flow, Key, Token, Version};
use support::{CLIENT_KEY, FAMILIES, World, backend, flow, name, of, services, vip};

const KEY: Key = Key([0x42; 8]);
const ISN: u32 = 0xffff_fffe;

fn world() -> World {
    let mut commands = vec![Command::PutPool { name: name("servers") }];
    commands.extend((1..=4).map(|number| backend("servers", &format!("b{number}"), number)));
    commands.push(vip("web", "servers"));
    commands.extend(services("web", 9, 8000));
    World::new(&commands)
}

fn token_of(key: Key) -> Token {
    Token::from_key(Version::V1, &key)
}

fn syn(flow: &Flow) -> PacketBuilder {
    of(flow).syn(ISN).mp_capable_syn_v1()
}

fn segment(flow: &Flow, offset: u32) -> PacketBuilder {
    of(flow).data(ISN.wrapping_add(1).wrapping_add(offset), 1)
}

fn third(flow: &Flow, key: Key) -> PacketBuilder {
    segment(flow, 0).mp_capable_ack(Version::V1, CLIENT_KEY, key)
}

fn first_data(flow: &Flow, key: Key) -> PacketBuilder {
    segment(flow, 0).mp_capable_data(CLIENT_KEY, key, b"GET / HTTP/1.1")
}

fn dss(flow: &Flow, offset: u32) -> PacketBuilder {
    segment(flow, offset).dss_data(1, 1, 1, b"data")
}

/// What becomes of a join of this key, from a port that nobody used yet.
fn joined(world: &mut World, family: Family, key: Key) -> (Reason, Option<String>) {
    let used = world.counters.reader().counter(Counter::JoinSyn);
    let flow = flow(family, 99, 10_000 + u16::try_from(used).unwrap(), 9, 8000);
    let verdict = world.send(of(&flow).syn(5).mp_join_syn(token_of(key), 1, 1)).verdict;
    (verdict.reason, world.name_of(verdict.backend).map(str::to_owned))
}

/// Sends these packets behind a SYN; says which of them taught the token, and that joins follow it or not.
fn taught(packets: impl Fn(&Flow) -> Vec<PacketBuilder>) -> (Vec<bool>, bool) {
    let mut results = FAMILIES.map(|family| {
        let mut world = world();
        let flow = world.flow_to("b2", family, 9, 8000, 0);
        world.send(syn(&flow));
        let outcomes: Vec<_> = packets(&flow).into_iter().map(|packet| world.send(packet)).collect();
        assert!(outcomes.iter().all(|outcome| outcome.verdict.reason == Reason::Flow));
        let learned = outcomes.iter().map(|outcome| outcome.verdict.learned).collect();
        let joins = match joined(&mut world, family, KEY) {
            (Reason::Token, Some(home)) => home == "b2",
            (Reason::UnknownToken, None) => false,
            other => panic!("{other:?}"),
        };
        (learned, joins)
    });
    assert_eq!(results[0], results[1], "both families alike");
    std::mem::take(&mut results[0])
}

#[test]
fn a_client_that_speaks_first_is_learned_from_its_third_ack_and_seen_again() {
    let (learned, joins) = taught(|flow| vec![third(flow, KEY), first_data(flow, KEY), dss(flow, 14)]);
    assert_eq!((learned, joins), (vec![true, false, false], true));
}

#[test]
fn a_server_that_speaks_first_leaves_one_sighting() {
    let (learned, joins) = taught(|flow| vec![third(flow, KEY), segment(flow, 0).dss_ack(1), dss(flow, 0)]);
    assert_eq!((learned, joins), (vec![true, false, false], true));
}

#[test]
fn a_lost_third_ack_is_made_up_by_the_first_data() {
    let (learned, joins) = taught(|flow| vec![first_data(flow, KEY), dss(flow, 14)]);
    assert_eq!((learned, joins), (vec![true, false], true));
}

#[test]
fn a_third_ack_that_is_sent_again_and_again_is_learned_once() {
    let (learned, joins) = taught(|flow| vec![third(flow, KEY), third(flow, KEY), third(flow, KEY)]);
    assert_eq!((learned, joins), (vec![true, false, false], true));
}

#[test]
fn a_second_segment_that_overtakes_the_key_does_not_end_the_wait_for_it() {
    let (learned, joins) = taught(|flow| vec![dss(flow, 14), first_data(flow, KEY)]);
    assert_eq!((learned, joins), (vec![false, true], true));
}

#[test]
fn a_large_first_write_repeats_the_key_on_every_segment_and_is_learned_once() {
    let (learned, joins) = taught(|flow| {
        let segment = |index: u32| segment(flow, index * 1000).mp_capable_data(CLIENT_KEY, KEY, &[0; 1000]);
        (0..5).map(segment).collect()
    });
    assert_eq!((learned, joins), (vec![true, false, false, false, false], true));
}

#[test]
fn data_without_any_mptcp_option_after_the_third_ack_lets_the_token_go() {
    for family in FAMILIES {
        let mut world = world();
        let flow = world.flow_to("b2", family, 9, 8000, 0);
        world.send(syn(&flow));
        world.send(third(&flow, KEY));
        world.send(segment(&flow, 0).payload(b"plain"));
        assert_eq!(joined(&mut world, family, KEY).0, Reason::Token, "not at once");
        world.wait(600);
        assert_eq!(joined(&mut world, family, KEY).0, Reason::UnknownToken);
        let outcome = world.send(segment(&flow, 5).payload(b"plain"));
        assert_eq!(outcome.verdict.reason, Reason::Flow, "the flow goes on");
    }
}

#[test]
fn a_connection_that_fell_back_at_once_teaches_nothing() {
    let (learned, joins) = taught(|flow| vec![segment(flow, 0), segment(flow, 0).payload(b"plain")]);
    assert_eq!((learned, joins), (vec![false, false], false));
}

#[test]
fn one_key_is_two_tokens_in_two_versions() {
    for family in FAMILIES {
        let mut world = world();
        let (one, zero) = (flow(family, 1, 1, 9, 8000), flow(family, 1, 2, 9, 8000));
        world.send(syn(&one));
        assert!(world.send(third(&one, KEY)).verdict.learned);
        world.send(of(&zero).syn(ISN).mp_capable_syn_v0(CLIENT_KEY));
        let outcome = world.send(segment(&zero, 0).mp_capable_ack(Version::V0, CLIENT_KEY, KEY));
        assert!(outcome.verdict.learned);
        assert_eq!(outcome.verdict.token, Some(Token::from_key(Version::V0, &KEY)));
    }
}

#[test]
fn of_two_claims_the_one_with_traffic_wins_and_then_refuses_all_others() {
    for family in FAMILIES {
        let mut world = world();
        let [one, two, three] = ["b1", "b2", "b3"].map(|text| world.flow_to(text, family, 9, 8000, 0));
        for flow in [&one, &two] {
            world.send(syn(flow));
            world.send(third(flow, KEY));
        }
        assert_eq!(joined(&mut world, family, KEY).0, Reason::AmbiguousToken);
        world.send(dss(&two, 0));
        world.wait(40);
        world.send(dss(&two, 4));
        assert_eq!(joined(&mut world, family, KEY), (Reason::Token, Some("b2".into())));
        world.send(syn(&three));
        assert!(!world.send(third(&three, KEY)).verdict.learned);
        assert_eq!(world.counters.reader().counter(Counter::TokenConflict), 1);
        assert_eq!(joined(&mut world, family, KEY), (Reason::Token, Some("b2".into())));
        // Seen again on the rival's flow, which fell out: it stays as it is.
        world.send(third(&three, KEY));
        assert_eq!(joined(&mut world, family, KEY), (Reason::Token, Some("b2".into())));
    }
}

#[test]
fn two_claims_with_traffic_stay_ambiguous_until_one_is_gone() {
    for family in FAMILIES {
        let mut world = world();
        let [one, two] = ["b1", "b2"].map(|text| world.flow_to(text, family, 9, 8000, 0));
        for flow in [&one, &two] {
            world.send(syn(flow));
            world.send(third(flow, KEY));
            world.send(dss(flow, 0));
        }
        world.wait(40);
        world.send(dss(&one, 4));
        world.send(dss(&two, 4));
        assert_eq!(joined(&mut world, family, KEY).0, Reason::AmbiguousToken);
        world.send(of(&one).rst(ISN.wrapping_add(9), 1));
        world.wait(300);
        world.send(dss(&two, 8));
        assert_eq!(joined(&mut world, family, KEY), (Reason::Token, Some("b2".into())));
    }
}

#[test]
fn a_full_flow_table_forwards_without_an_entry_and_says_so() {
    for family in FAMILIES {
        let mut world = world();
        world.tables = Tables::on_heap(0, 1024, &[1; 32]);
        world.tables.lifetimes.evict = Evict::never();
        let capacity = world.tables.flows.capacity() as u64;
        for number in 0..200 {
            let flow = flow(family, 1, 1000 + number, 9, 8000);
            assert_eq!(world.send(syn(&flow)).verdict.reason, Reason::Hash);
        }
        let reader = world.counters.reader();
        let (made, full) = (reader.counter(Counter::FlowInserted), reader.counter(Counter::FlowTableFull));
        assert_eq!(made + full, 200);
        assert!(made <= capacity && full >= 200 - capacity, "{made} made, {full} refused");
        // Maglev alone gives each of them the same backend again.
        for number in 0..200 {
            let flow = flow(family, 1, 1000 + number, 9, 8000);
            let home = world.hashed(&flow);
            assert_eq!(world.send(segment(&flow, 0).payload(b"x")).verdict.backend, home);
        }
    }
}

/// Connections that go on for more than two ticks fill the token table, until a key of one more finds no place.
fn full_of_seen(family: packet::Family) -> (World, Vec<(Flow, Key)>) {
    let mut world = world();
    world.tables = Tables::on_heap(4096, 0, &[1; 32]);
    let mut all = Vec::new();
    for round in 0..8_u16 {
        for number in 0..100 {
            let number = round * 100 + number;
            let (flow, key) = (flow(family, 1, 1000 + number, 9, 8000), Key(u64::from(number).to_be_bytes()));
            world.send(syn(&flow));
            world.send(third(&flow, key));
            world.send(dss(&flow, 0));
            all.push((flow, key));
        }
        world.wait(40);
        for (flow, _) in &all {
            world.send(dss(flow, 4));
        }
    }
    assert!(world.counters.reader().counter(Counter::TokenEvicted) > 0);
    assert!(world.counters.reader().counter(Counter::TokenTableFull) > 0);
    (world, all)
}

#[test]
fn a_key_that_found_no_place_is_learned_when_there_is_room_again() {
    for family in FAMILIES {
        let (mut world, others) = full_of_seen(family);
        let (flow, key) = (0..200)
            .map(|n| (flow(family, 2, 1000 + n, 9, 8000), Key((u64::from(n) | 1 << 32).to_be_bytes())))
            .find(|(flow, key)| {
                world.send(syn(flow));
                !world.send(third(flow, *key)).verdict.learned
            })
            .unwrap();
        // All others end; their tokens go, and the key comes again with the first data.
        for (flow, _) in &others {
            world.send(of(flow).rst(ISN.wrapping_add(1), 1));
        }
        for _ in 0..4 {
            world.wait(40);
            world.send(segment(&flow, 0));
        }
        assert!(world.send(first_data(&flow, key)).verdict.learned);
        assert_eq!(joined(&mut world, family, key).0, Reason::Token);
    }
}

#[test]
fn a_connection_whose_key_was_missed_is_established_like_any_other_once_its_data_goes_on() {
    for family in FAMILIES {
        let mut world = world();
        let (flow, key) = (flow(family, 1, 1000, 9, 8000), Key([7; 8]));
        let home = world.send(syn(&flow)).verdict.backend;
        let missed = |world: &World| world.counters.reader().counter(Counter::KeyMissed);
        // The third packet and the first data took another way. Within a tick, and in the next, the key may come again.
        for seconds in [0, 1, 15, 1] {
            world.wait(seconds);
            world.send(dss(&flow, 20));
            assert_eq!(missed(&world), 0);
        }
        world.wait(16);
        world.send(dss(&flow, 40));
        assert_eq!(missed(&world), 1);
        assert!(!world.send(first_data(&flow, key)).verdict.learned, "too late");
        assert_eq!(joined(&mut world, family, key).0, Reason::UnknownToken);
        // It outlives what a half-open flow does not: minutes of silence, and a pool in which Maglev says otherwise.
        world.commit(&(11..=30).map(|n| backend("servers", &format!("c{n}"), n)).collect::<Vec<_>>());
        world.wait(300);
        let later = world.send(dss(&flow, 60)).verdict;
        assert_eq!((later.reason, later.backend), (Reason::Flow, home));
        assert_eq!(missed(&world), 1);
    }
}

#[test]
fn a_provisional_token_gives_way_and_comes_back_when_its_connection_lasts_and_no_seen_one_does() {
    for family in FAMILIES {
        let mut world = world();
        world.tables = Tables::on_heap(65_536, 0, &[1; 32]);
        let slots = u16::try_from(world.tables.tokens.capacity()).unwrap();
        let of_number = |n: u16| (flow(family, 1, 1000 + n, 9, 8000), Key(u64::from(n).to_be_bytes()));
        let begin = |world: &mut World, n: u16| {
            let (flow, key) = of_number(n);
            world.send(syn(&flow));
            assert!(world.send(third(&flow, key)).verdict.learned);
            world.send(dss(&flow, 0));
        };
        // Some that last, a few that are new, and then a flood.
        (0..40).for_each(|n| begin(&mut world, n));
        world.wait(40);
        (0..40).for_each(|n| drop(world.send(dss(&of_number(n).0, 4))));
        (40..80).for_each(|n| begin(&mut world, n));
        (100..100 + 10 * slots).for_each(|n| begin(&mut world, n));
        let reader = world.counters.reader();
        assert!(reader.counter(Counter::TokenEvicted) >= u64::from(9 * slots));
        for n in 0..40 {
            assert_eq!(joined(&mut world, family, of_number(n).1).0, Reason::Token, "connection {n}");
        }
        // The flood is over and its flows are reset; what went on all the time is known again.
        (100..100 + 10 * slots)
            .for_each(|n| drop(world.send(of(&of_number(n).0).rst(ISN.wrapping_add(1), 1))));
        world.wait(130);
        for n in 40..80 {
            world.send(dss(&of_number(n).0, 4));
            assert_eq!(joined(&mut world, family, of_number(n).1).0, Reason::Token, "connection {n}");
        }
    }
}

#[test]
fn a_vip_that_stops_learning_lets_its_connections_go_on() {
    for family in FAMILIES {
        let mut world = world();
        let flow = world.flow_to("b2", family, 9, 8000, 0);
        world.send(syn(&flow));
        world.send(third(&flow, KEY));
        let off = ipc::message::Forward::L2dsr;
        world.commit(&[support::vip_with("web", "servers", off, false, UnknownToken::Drop)]);
        assert_eq!(joined(&mut world, family, KEY).0, Reason::Hash, "steering is off");
        assert_eq!(world.send(dss(&flow, 0)).verdict.reason, Reason::Flow);
        world.commit(&[vip("web", "servers")]);
        assert_eq!(joined(&mut world, family, KEY), (Reason::Token, Some("b2".into())));
    }
}
