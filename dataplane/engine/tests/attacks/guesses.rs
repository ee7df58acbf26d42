//! Joins whose tokens are made up, where more than the token table has a say: tokens that name a backend by themselves, and a
//! VIP that hashes what it does not know.

use engine::limits::Limits;
use ipc::counter::Counter;
use ipc::message::{Command, Forward, Protocol, Scheme, Steering, UnknownToken};
use ipc::reason::Reason;
use packet::Token;

use crate::support::{Random, World, backend, name, of, services, site};
use crate::{ENTRIES, flow_of};

/// Guesses of one network.
const GUESSES: u32 = 1000;

fn world(steering: Steering, unknown_token: UnknownToken, limits: Limits) -> World {
    let mut commands = vec![Command::PutPool { name: name("servers") }];
    commands.extend((1..=4).map(|number| backend("servers", &format!("b{number}"), number)));
    commands.push(Command::PutVip {
        name: name("web"),
        pool: name("servers"),
        protocol: Protocol::Tcp,
        forward: Forward::L2dsr,
        steering,
        unknown_token,
    });
    commands.extend(services("web", 9, 8000));
    let mut world = World::of_size(site(), ENTRIES, ENTRIES);
    world.tables.lifetimes.limits = limits;
    world.commit(&commands);
    world
}

/// What became of the guesses of two networks, the second's ten: how many SYNs went to a backend for this reason. Each is
/// followed by a forged third ACK.
fn guess(world: &mut World, reason: Reason) -> [usize; 2] {
    let mut random = Random(11);
    [(1, GUESSES), (2, 10)].map(|(network, guesses)| {
        let one = |number: &u32| {
            let (flow, token) = (flow_of(network, *number), Token(random.word()));
            let verdict = world.send(of(&flow).syn(7).mp_join_syn(token, 1, 1)).verdict;
            if verdict.reason == reason {
                world.send(of(&flow).data(8, 1).mp_join_ack([7; 20]));
            }
            verdict.reason == reason
        };
        (0..guesses).filter(one).count()
    })
}

#[test]
fn guesses_where_every_token_names_a_backend_take_no_more_than_their_networks_share() {
    let limits = Limits { flows_per_prefix: 20, ..Limits::default() };
    let mut world = world(Steering::by([Scheme::TokenMap]), UnknownToken::Drop, limits);
    assert_eq!(guess(&mut world, Reason::TokenMap), [20, 10]);
    let reader = world.counters.reader();
    assert_eq!(reader.reason(Reason::JoinRate), u64::from(GUESSES) - 20);
    assert_eq!(reader.counter(Counter::FlowOverShare), u64::from(GUESSES) - 20);
    assert_eq!(reader.counter(Counter::FlowInserted), 30);
}

#[test]
fn guesses_that_are_hashed_take_no_more_than_their_networks_share_and_go_on_without_an_entry() {
    let limits = Limits { flows_per_prefix: 20, ..Limits::default() };
    let mut world = world(Steering::LEARN, UnknownToken::Hash, limits);
    let mut random = Random(11);
    for number in 0..GUESSES {
        let flow = flow_of(1, number);
        let verdict = world.send(of(&flow).syn(7).mp_join_syn(Token(random.word()), 1, 1)).verdict;
        assert_eq!((verdict.reason, verdict.backend), (Reason::Hash, world.hashed(&flow)));
    }
    let reader = world.counters.reader();
    assert_eq!(reader.counter(Counter::FlowInserted), 20);
    assert_eq!(reader.counter(Counter::FlowOverShare), u64::from(GUESSES) - 20);
    assert_eq!(reader.counter(Counter::JoinHashed), u64::from(GUESSES));
}

#[test]
fn offers_of_tokens_that_nobody_learns_take_nothing_from_those_who_learn() {
    let limits = Limits { tokens_per_prefix: 1, tokens_per_second: 1, ..Limits::default() };
    let steering = Steering { external_tokens: true, ..Steering::by([Scheme::TokenMap]) };
    let mut world = world(steering, UnknownToken::Drop, limits);
    for number in 0..20 {
        let flow = flow_of(1, number);
        world.send(of(&flow).syn(7).option(&[30, 4, 1, 9]));
        world.send(of(&flow).syn(7).mp_capable_syn_v1());
    }
    let reader = world.counters.reader();
    assert_eq!((reader.counter(Counter::TokenOverShare), reader.counter(Counter::TokenOverRate)), (0, 0));
    assert_eq!(reader.counter(Counter::ExplicitSyn), 20);
}
