//! The flood of whole handshakes that takes joins where tokens are learned, against schemes that keep no token.

use ipc::message::{
    BackendState, Command, Forward, Handles, Protocol, Scheme, Secret, Steering, TokenMap, UnknownToken,
};
use packet::build::PacketBuilder;
use packet::{Flow, Key, Token, Version};
use steering::cipher::{Speck, seal};
use steering::key;

use crate::support::{CLIENT_KEY, Random, World, backend_address, backend_mac, name, of, services, site};
use crate::{ENTRIES, ISN, flow_of, token};

/// The key of even tokens, that of odd ones.
const KEYS: [[u8; 8]; 2] = [[2; 8], [3; 8]];

/// Honest connections that begin in the flood.
const NEW: u32 = 1024;

/// A VIP's only scheme, and what servers and clients do for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Learn,
    Endpoint,
    Cipher,
    ChosenKey,
}

/// A connection, as its two ends know it.
struct Connection {
    flow: Flow,
    home: u16,
    token: Token,
}

fn server(number: u8) -> Command {
    let own = u16::from(number);
    Command::PutBackend {
        pool: name("servers"),
        name: name(&format!("b{number}")),
        address4: Some([10, 0, 1, number].into()),
        address6: Some(backend_address(packet::Family::V6, number).v6_octets().into()),
        mac: Some(backend_mac(number)),
        weight: 100,
        state: BackendState::Active,
        handles: Handles { number: Some(own), endpoint_port: Some(20_000 + own), ..Handles::default() },
    }
}

impl By {
    fn steering(self) -> Steering {
        match self {
            Self::Learn => Steering::LEARN,
            Self::Endpoint => Steering::by([Scheme::Endpoint]),
            Self::Cipher => Steering {
                token_map: TokenMap::Cipher,
                cipher_keys: KEYS.map(|key| Some(Secret(key))),
                ..Steering::by([Scheme::TokenMap])
            },
            Self::ChosenKey => {
                Steering { key_secret: Some(Secret([0x5e; 16])), ..Steering::by([Scheme::ChosenKey]) }
            }
        }
    }

    fn world(self) -> World {
        let mut commands = vec![Command::PutPool { name: name("servers") }];
        commands.extend((1..=10).map(server));
        commands.push(Command::PutVip {
            name: name("web"),
            pool: name("servers"),
            protocol: Protocol::Tcp,
            forward: if self == Self::ChosenKey { Forward::Gue } else { Forward::L2dsr },
            steering: self.steering(),
            unknown_token: UnknownToken::Drop,
        });
        commands.extend(services("web", 9, 8000));
        let mut world = World::of_size(site(), ENTRIES, ENTRIES);
        world.commit(&commands);
        world
    }

    /// A handshake, and data. The server says its number in its timestamps where it is to.
    fn open(self, world: &mut World, flow: Flow, random: &mut Random) -> Connection {
        let opened = world.send(of(&flow).syn(ISN).mp_capable_syn_v1()).verdict;
        let home = number_of(world, opened.backend.unwrap());
        let key = Key(random.next().to_be_bytes());
        let token = match self {
            Self::Learn | Self::Endpoint => token(key),
            Self::Cipher => {
                let speck = KEYS.map(Speck::new);
                // An even token is one of the first key. No two connections have the same serial number.
                let mut serials = (random.word() >> 12..).map(|serial| seal(&speck[0], home, serial));
                Token(serials.find(|sealed| sealed % 2 == 0).unwrap())
            }
            Self::ChosenKey => opened.token.unwrap(),
        };
        let connection = Connection { flow, home, token };
        let third = connection.segment(&flow).mp_capable_ack(Version::V1, CLIENT_KEY, key);
        world.send(third);
        assert_eq!(connection.sends(world, &flow), home);
        connection
    }
}

fn number_of(world: &World, backend: ipc::id::BackendId) -> u16 {
    world.name_of(Some(backend)).unwrap().trim_start_matches('b').parse().unwrap()
}

impl Connection {
    fn segment(&self, flow: &Flow) -> PacketBuilder {
        of(flow).data(ISN + 1, 1).timestamps(9, key::timestamp(1, self.home))
    }

    /// Where data of one of its subflows goes.
    fn sends(&self, world: &mut World, flow: &Flow) -> u16 {
        let backend = world.send(self.segment(flow).dss_data(1, 1, 1, b"data")).verdict.backend;
        number_of(world, backend.unwrap())
    }

    /// Its other subflow.
    fn other(&self, by: By) -> Flow {
        let to = if by == By::Endpoint { 20_000 + self.home } else { self.flow.destination_port };
        Flow { source_port: 60_000, destination_port: to, ..self.flow }
    }

    /// Whether its join finds its server.
    fn joins(&self, world: &mut World, by: By) -> bool {
        let flow = self.other(by);
        let verdict = world.send(of(&flow).syn(ISN).mp_join_syn(self.token, 1, 1)).verdict;
        world.send(self.segment(&flow).mp_join_ack([7; 20]));
        verdict.backend.is_some_and(|to| number_of(world, to) == self.home)
    }
}

/// Of so many connections that begin in a flood: joins that find their server, and first and other subflows that go on to it when a
/// backend is added.
fn flooded(by: By) -> [usize; 3] {
    let mut world = by.world();
    let mut random = Random(8);
    let mut new = Vec::new();
    let all = 10 * u32::try_from(ENTRIES).unwrap();
    for number in 0..all {
        let flow = flow_of(1000 + u16::try_from(number % 4000).unwrap(), number / 4000);
        by.open(&mut world, flow, &mut random);
        if number % (all / NEW) == 0 {
            // Each of its own address.
            let nth = number / (all / NEW);
            new.push(by.open(&mut world, flow_of(200 + u16::try_from(nth / 254).unwrap(), nth), &mut random));
        }
        if number % (all / 32) == 0 {
            world.wait(1);
        }
    }
    let joined = new.iter().filter(|one| one.joins(&mut world, by)).count();
    world.commit(&[server(11)]);
    let first = new.iter().filter(|one| one.sends(&mut world, &one.flow) == one.home).count();
    let other = new.iter().filter(|one| one.sends(&mut world, &one.other(by)) == one.home).count();
    println!("| {by:?} | {joined} of {NEW} | {first} | {other} |");
    [joined, first, other]
}

#[test]
fn a_flood_takes_joins_where_tokens_are_learned_and_none_where_packets_say_whose_they_are() {
    let [joined, ..] = flooded(By::Learn);
    assert!(joined < 512, "{joined}");
    let all = NEW as usize;
    let [joined, _, other] = flooded(By::Endpoint);
    assert_eq!((joined, other), (all, all));
    let [joined, _, other] = flooded(By::Cipher);
    assert_eq!((joined, other), (all, all));
    assert_eq!(flooded(By::ChosenKey), [all; 3], "no entry is needed for any packet");
}
