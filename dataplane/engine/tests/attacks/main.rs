//! What strangers can do to tokens and flows, counted: docs/threat-model.md has the rows these tests print
//! (`cargo test -p engine --release --test attacks -- --nocapture`).
//!
//! Every test drives whole packets through the pipeline in simulated time. Keys are hashed as servers hash them.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "helpers of tests, with small numbers"
)]

mod agents;
mod floods;
mod fragments;
mod guesses;
mod keys;
mod schemes;
#[path = "../support/mod.rs"]
mod support;

use std::io::Write as _;

use engine::flow_entry::FlowState;
use engine::token_table::Proof;
use ipc::counter::Counter;
use ipc::id::BackendId;
use ipc::message::Command;
use ipc::reason::Reason;
use ipc::report::Subflow;
use packet::{Address, Family, Flow, Key, Token, Version};
use support::{CLIENT_KEY, Random, World, backend, flow, name, of, reports, services, site, vip};

const ISN: u32 = 1000;

/// Entries of each table.
const ENTRIES: usize = 16_384;

fn world(backends: u8, entries: usize) -> World {
    let mut commands = vec![Command::PutPool { name: name("servers") }];
    commands.extend((1..=backends).map(|number| backend("servers", &format!("b{number}"), number)));
    commands.push(vip("web", "servers"));
    commands.extend(services("web", 9, 8000));
    let mut world = World::of_size(site(), entries, entries);
    world.commit(&commands);
    world
}

/// Flow `number` of the network 10.`network`.0/24: 254 hosts, then ports.
fn flow_of(network: u16, number: u32) -> Flow {
    let [high, low] = network.to_be_bytes();
    let host = u8::try_from(1 + number % 254).unwrap();
    let source = Address::from_v4([10 + high, low, 0, host]);
    Flow {
        source,
        source_port: u16::try_from(1024 + number / 254).unwrap(),
        ..flow(Family::V4, 1, 1, 9, 8000)
    }
}

/// A handshake up to its third ACK, and some data if it `lasts`. Where it went, and whether its key was learned.
fn connect(world: &mut World, flow: &Flow, key: Key, data: bool) -> (Option<BackendId>, bool) {
    let home = world.send(of(flow).syn(ISN).mp_capable_syn_v1()).verdict.backend;
    let ack = world.send(of(flow).data(ISN + 1, 1).mp_capable_ack(Version::V1, CLIENT_KEY, key)).verdict;
    assert_eq!(ack.backend, home, "a connection stays where its SYN went");
    if data {
        send_data(world, flow);
    }
    (home, ack.learned)
}

fn send_data(world: &mut World, flow: &Flow) -> Option<BackendId> {
    world.send(of(flow).data(ISN + 1, 1).dss_data(1, 1, 1, b"data")).verdict.backend
}

fn token(key: Key) -> Token {
    Token::from_key(Version::V1, &key)
}

/// Where a join of the key's token goes.
fn join(world: &mut World, key: Key, number: u32) -> (Reason, Option<BackendId>) {
    let flow = flow_of(0x5000, number);
    let verdict = world.send(of(&flow).syn(7).mp_join_syn(token(key), 1, 1)).verdict;
    (verdict.reason, verdict.backend)
}

/// Opens a connection with this key on this backend.
fn connect_to(world: &mut World, to: &str, key: Key, nth: usize) -> Flow {
    let flow = world.flow_to(to, Family::V4, 9, 8000, nth);
    connect(world, &flow, key, true);
    flow
}

/// A connection long enough for rank seen.
fn last(world: &mut World, flow: &Flow) {
    for _ in 0..3 {
        world.wait(40);
        send_data(world, flow);
    }
}

/// How many connections the larger tests open: as many as WEFT_ATTACK says.
fn connections() -> u32 {
    let entered = std::env::var("WEFT_ATTACK").ok().and_then(|number| number.parse().ok());
    entered.unwrap_or(if cfg!(debug_assertions) { 200_000 } else { 1_000_000 })
}

/// Says at once how far a long test is; `scripts/test --soak` shows it.
fn progress(text: &str) {
    // Who cannot write there needs no progress.
    let _ = writeln!(std::io::stderr(), "progress: {text}");
}

#[test]
fn guessed_joins_hit_as_many_tokens_as_chance_says() {
    let mut world = world(10, ENTRIES);
    let mut random = Random(3);
    let tokens = 4096;
    for number in 0..tokens {
        connect(&mut world, &flow_of(number as u16 % 300, number), Key(random.next().to_be_bytes()), true);
    }
    let guesses = 4 * connections();
    let mut hits = 0;
    for number in 0..guesses {
        if number % 10_000_000 == 0 && number > 0 {
            progress(&format!("{number} guessed joins of {guesses}"));
        }
        let flow = flow_of(600 + (number / 100_000) as u16, number % 100_000);
        let guess = Token(random.word());
        let verdict = world.send(of(&flow).syn(7).mp_join_syn(guess, 1, 1)).verdict;
        hits += u32::from(verdict.reason == Reason::Token);
    }
    let expected = f64::from(guesses) * f64::from(tokens) / 2f64.powi(32);
    println!("| {guesses} guessed joins against {tokens} tokens | {hits} hit, {expected:.1} expected |");
    assert!((f64::from(hits) - expected).abs() <= 5.0 * expected.sqrt() + 3.0, "{hits} hits");
    let inserted = world.counters.reader().counter(Counter::FlowInserted);
    assert_eq!(inserted, u64::from(tokens + hits), "a guess that misses leaves nothing");
}

#[test]
fn a_flood_of_joins_with_one_valid_token_gets_thirty_two_entries_a_tick() {
    let mut world = world(4, ENTRIES);
    let key = Key([0x42; 8]);
    let flow = connect_to(&mut world, "b1", key, 0);
    last(&mut world, &flow);
    world.wait(16);
    let let_in = (0..20_000).filter(|number| join(&mut world, key, *number).0 == Reason::Token).count();
    assert_eq!(let_in, 32);
    assert_eq!(world.counters.reader().reason(Reason::JoinRate), 20_000 - 32);
}

#[test]
fn five_tuples_chosen_without_the_secret_fill_no_line() {
    // Whoever knows the public hash (its seed is in every configuration) picks 5-tuples that share its upper bits, which would be one
    // line of a table under that hash.
    let mut world = world(10, ENTRIES);
    let key = world.snapshot.public_key().clone();
    let candidates = (0..65u16).flat_map(|network| (0..60_000).map(move |number| flow_of(network, number)));
    let chosen: Vec<Flow> =
        candidates.filter(|flow| key.flow(flow) >> 56 == 0x5a).take(ENTRIES / 4).collect();
    assert!(chosen.len() >= 8000.min(ENTRIES / 4), "{}", chosen.len());
    for flow in &chosen {
        world.send(of(flow).syn(ISN));
    }
    let count = |counter| world.counters.reader().counter(counter);
    assert_eq!(count(Counter::FlowInserted), chosen.len() as u64);
    assert_eq!((count(Counter::FlowTableFull), count(Counter::FlowEvictedHalfOpen)), (0, 0));
}

/// Joins of which nobody said where to, for two reasons, and those that went to another server than their own.
#[derive(Clone, Copy, Debug, Default)]
struct Joins {
    ambiguous: u32,
    astray: u32,
    unknown: u32,
}

#[test]
fn a_hostile_agent_takes_no_connection_before_it_is_opened_and_fills_no_table() {
    let mut world = world(10, ENTRIES);
    let liar = world.id_of("b1");
    let victims: Vec<Flow> = (0..1000).map(|number| flow_of(0x6000, number)).collect();
    for flow in &victims {
        let subflow = Subflow::new(
            (flow.source.to_ip(), flow.source_port).into(),
            (flow.destination.to_ip(), flow.destination_port).into(),
        );
        reports(&world).subflow_lives(liar, Token(7), &subflow.unwrap(), true);
    }
    let reported = |world: &World, flow: &Flow| {
        let found = world.tables.flows.find(world.tables.flow_hash(flow));
        found.is_some_and(|found| found.entry.state == FlowState::Reported)
    };
    assert_eq!(victims.iter().filter(|flow| reported(&world, flow)).count(), 1000, "all are entered");
    let mut astray = 0;
    for (number, flow) in victims.iter().enumerate() {
        let by_maglev = world.hashed(flow);
        let (home, _) = connect(&mut world, flow, Key((number as u64).to_be_bytes()), true);
        astray += usize::from(home != by_maglev);
    }
    assert_eq!(astray, 0);
}

#[test]
fn collisions_of_honest_tokens_are_as_many_as_chance_says_and_no_join_goes_astray() {
    let connections = connections();
    let mut world = world(100, connections as usize);
    let key_of = |number: u32| {
        let mut random = Random(u64::from(number) << 8 | 0x77);
        Key(random.next().to_be_bytes())
    };
    let at = |number: u32| flow_of((number / 60_000) as u16, number % 60_000);
    for number in 0..connections {
        let flow = at(number);
        world.send(of(&flow).syn(ISN).mp_capable_syn_v1());
        world.send(of(&flow).data(ISN + 1, 1).mp_capable_ack(Version::V1, CLIENT_KEY, key_of(number)));
        if number % 1_000_000 == 0 && number > 0 {
            progress(&format!("{number} connections of {connections}"));
        }
    }
    // The joins of 16 seconds, and not one flow entry is needed for the next.
    let joins = |world: &mut World, port: u16| {
        let mut joins = Joins::default();
        for number in 0..connections {
            let home = world.hashed(&at(number));
            let join = Flow { source_port: port + at(number).source_port, ..at(number) };
            let verdict = world.send(of(&join).syn(7).mp_join_syn(token(key_of(number)), 1, 1)).verdict;
            match verdict.reason {
                Reason::Token => joins.astray += u32::from(verdict.backend != home),
                Reason::AmbiguousToken => joins.ambiguous += 1,
                _ => joins.unknown += 1,
            }
        }
        joins
    };
    let Joins { ambiguous, astray, unknown } = joins(&mut world, 30_000);
    // Then the agents of all backends report: whose proof comes second is refused, and its joins go where the first one's go.
    let refused = |number: &u32| {
        let home = world.hashed(&at(*number)).unwrap();
        reports(&world).token_lives(home, token(key_of(*number))) == Some(Proof::Refused)
    };
    let refused = (0..connections).filter(refused).count();
    let reported = joins(&mut world, 40_000);
    println!("| the same with agents | {refused} proofs refused | {reported:?} |");
    assert_eq!((reported.ambiguous, reported.astray as usize), (0, refused));
    // One of each two, but for the few tokens that three share.
    assert!((2 * refused as u32).abs_diff(ambiguous) <= 1 + ambiguous / 500, "{refused} of {ambiguous}");
    let n = f64::from(connections);
    let expected = n * n / 2f64.powi(33);
    // Of two that collide, both are ambiguous, unless they live on the same of the 100 backends.
    let pairs = f64::from(ambiguous) / 2.0 / 0.99;
    println!(
        "| {connections} connections, 100 backends | {pairs:.1} pairs of one token, {expected:.1} expected | \
         {astray} joins astray, {unknown} unknown |"
    );
    assert!((pairs - expected).abs() <= 5.0 * expected.sqrt() + 2.0, "{pairs} pairs, {expected} expected");
    assert_eq!(astray, 0);
    assert!(f64::from(unknown) <= n / 1e6 + 3.0, "{unknown} unknown");
}
