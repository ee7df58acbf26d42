//! A client whose third ACK claims a key that is not its server's, searched so that its token is a chosen victim's.
//!
//! Nobody on the way can tell such a key from the server's own. To find one takes 2^32 hashes: [`FOUND`] was found so. What it
//! gains at which moment is counted over many victims, in a token space of [`BITS`]; there both handshakes state their
//! tokens (explicit tokens, flag G), since Weft would read 32 bits of a key.

use std::collections::HashMap;

use engine::token_table::Proof;
use ipc::counter::Counter;
use ipc::id::BackendId;
use ipc::message::{Command, Forward, Protocol, Steering, UnknownToken};
use ipc::reason::Reason;
use packet::{Flow, Key, Token};

use crate::support::{Random, World, backend, name, of, services, site};
use crate::{ENTRIES, ISN, connect_to, flow_of, join, last, reports, send_data, token, world};

/// A server's key, and another with its token: the 6,772,066,979th that was tried, after six minutes of one core.
const VICTIMS: Key = Key([0x42; 8]);
const FOUND: Key = Key(0x0001_93a5_8aa3_u64.to_be_bytes());

/// Bits of a token in the shortened space.
const BITS: u32 = 20;

/// How many victims are attacked, each with a key of its own.
const MANY: usize = 200;

/// The token in the shortened space.
fn short(key: Key) -> Token {
    Token(token(key).0 >> (32 - BITS))
}

/// Keys of victims, for each one with its token, and how many were tried for it.
fn searched() -> Vec<(Key, Key, u64)> {
    let mut random = Random(21);
    let mut wanted = HashMap::new();
    while wanted.len() < MANY {
        let key = Key(random.next().to_be_bytes());
        wanted.entry(short(key)).or_insert(key);
    }
    let mut found = Vec::new();
    for tried in 1.. {
        let key = Key(random.next().to_be_bytes());
        if let Some(victims) = wanted.remove(&short(key)) {
            found.push((victims, key, tried));
        }
        if wanted.is_empty() {
            break;
        }
    }
    found
}

/// When a key is claimed, and who goes on sending then.
#[derive(Clone, Copy, Debug)]
struct Claim {
    /// Seconds after the victim's handshake; the victim sends data every 40.
    after: u64,
    victim_sends: bool,
    attacker_sends: bool,
}

/// Joins of the victims' tokens: to their own server, dropped as ambiguous, to the attacker's server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Joins {
    own: usize,
    ambiguous: usize,
    astray: usize,
}

/// A victim and its attacker.
struct Pair {
    token: Token,
    victim: Flow,
    attacker: Flow,
    home: BackendId,
}

fn shortened() -> World {
    let mut commands = vec![Command::PutPool { name: name("servers") }];
    commands.extend((1..=4).map(|number| backend("servers", &format!("b{number}"), number)));
    commands.push(Command::PutVip {
        name: name("web"),
        pool: name("servers"),
        protocol: Protocol::Tcp,
        forward: Forward::L2dsr,
        steering: Steering { application_tokens: true, ..Steering::LEARN },
        unknown_token: UnknownToken::Drop,
    });
    commands.extend(services("web", 9, 8000));
    let mut world = World::of_size(site(), ENTRIES, ENTRIES);
    world.commit(&commands);
    world
}

/// A handshake that states its server's token, and some data.
fn state(world: &mut World, flow: &Flow, token: Token) {
    world.send(of(flow).syn(ISN).option(&[30, 4, 1, 3]));
    let stated = [&[30, 12, 1, 2, 0, 0, 0, 7], &token.0.to_be_bytes()[..]].concat();
    world.send(of(flow).data(ISN + 1, 1).option(&stated));
    send_data(world, flow);
}

impl Claim {
    fn run(self, keys: &[(Key, Key, u64)], agents: bool) -> [Joins; 2] {
        let mut world = shortened();
        let pair = |(number, (victims, found, _)): (u32, &(Key, Key, u64))| {
            assert_eq!(short(*victims), short(*found));
            let victim = flow_of(1, number);
            let home = world.hashed(&victim).unwrap();
            // Whoever looks for another server needs a few ports.
            let other = |flow: &Flow| world.hashed(flow) != Some(home);
            let attacker = (0..99).map(|port| flow_of(2 + port, number)).find(other).unwrap();
            Pair { token: short(*victims), victim, attacker, home }
        };
        let pairs: Vec<Pair> = (0..).zip(keys).map(pair).collect();
        pairs.iter().for_each(|pair| state(&mut world, &pair.victim, pair.token));
        for _ in 0..self.after / 40 {
            world.wait(40);
            pairs.iter().for_each(|pair| assert_eq!(send_data(&mut world, &pair.victim), Some(pair.home)));
        }
        world.wait(self.after % 40);
        for pair in &pairs {
            state(&mut world, &pair.attacker, pair.token);
            if agents {
                let proof = reports(&world).token_lives(pair.home, pair.token);
                assert!(matches!(proof, Some(Proof::Raised)), "{proof:?}");
            }
        }
        let at_once = joins(&mut world, &pairs, 0);
        for _ in 0..3 {
            world.wait(40);
            for pair in &pairs {
                if self.victim_sends {
                    send_data(&mut world, &pair.victim);
                }
                if self.attacker_sends {
                    send_data(&mut world, &pair.attacker);
                }
            }
        }
        [at_once, joins(&mut world, &pairs, 1000)]
    }
}

fn joins(world: &mut World, pairs: &[Pair], base: u32) -> Joins {
    let mut joins = Joins::default();
    for (number, pair) in (base..).zip(pairs) {
        let flow = flow_of(0x5000, number);
        let verdict = world.send(of(&flow).syn(7).mp_join_syn(pair.token, 1, 1)).verdict;
        match (verdict.reason, verdict.backend) {
            (Reason::Token, Some(to)) if to == pair.home => joins.own += 1,
            (Reason::Token, _) => joins.astray += 1,
            (Reason::AmbiguousToken, _) => joins.ambiguous += 1,
            other => panic!("{other:?}"),
        }
    }
    joins
}

#[test]
fn what_a_searched_key_gains_depends_on_who_lasted_and_nothing_against_agents() {
    let keys = searched();
    let tried = keys.iter().map(|(.., tried)| *tried as f64).sum::<f64>() / keys.len() as f64;
    println!("| {MANY} victims, {BITS} bits | {tried:.0} keys tried for each, 2^{BITS} is {} |", 1 << BITS);
    // The mean of 200 waits that forget is within a third of what is expected, four standard deviations and more.
    assert!((tried / f64::from(1 << BITS) - 1.0).abs() < 0.33, "{tried}");
    let all = |own, ambiguous, astray| Joins { own, ambiguous, astray };
    let claim = |after, victim_sends, attacker_sends| Claim { after, victim_sends, attacker_sends };
    let (own, ambiguous, astray) = (all(MANY, 0, 0), all(0, MANY, 0), all(0, 0, MANY));
    for (claim, expected) in [
        (claim(0, true, true), [ambiguous, ambiguous]),
        (claim(0, true, false), [ambiguous, own]),
        (claim(0, false, true), [ambiguous, astray]),
        (claim(20, true, true), [ambiguous, ambiguous]),
        (claim(20, false, true), [ambiguous, astray]),
        (claim(120, true, true), [own, own]),
        (claim(120, false, true), [own, own]),
    ] {
        let (without, with) = (claim.run(&keys, false), claim.run(&keys, true));
        println!("| {claim:?} | {without:?} | {with:?} |");
        assert_eq!((without, with), (expected, [own, own]), "{claim:?}");
    }
}

#[test]
fn a_key_found_for_a_victims_whole_token_takes_no_connection_that_lasted_or_was_proven() {
    assert_eq!((token(FOUND), FOUND == VICTIMS), (token(VICTIMS), false));
    // Within the same moment: nobody knows whose it is.
    let mut at_once = world(4, ENTRIES);
    connect_to(&mut at_once, "b1", VICTIMS, 0);
    connect_to(&mut at_once, "b2", FOUND, 1);
    assert_eq!(join(&mut at_once, VICTIMS, 1), (Reason::AmbiguousToken, None));
    // An agent settles it.
    let b1 = at_once.id_of("b1");
    reports(&at_once).token_lives(b1, token(VICTIMS));
    assert_eq!(join(&mut at_once, VICTIMS, 2), (Reason::Token, Some(b1)));

    let mut lasted = world(4, ENTRIES);
    let flow = connect_to(&mut lasted, "b1", VICTIMS, 0);
    last(&mut lasted, &flow);
    connect_to(&mut lasted, "b2", FOUND, 1);
    let b1 = lasted.id_of("b1");
    assert_eq!(join(&mut lasted, VICTIMS, 1), (Reason::Token, Some(b1)));
    assert_eq!(lasted.counters.reader().counter(Counter::TokenConflict), 1);
}
