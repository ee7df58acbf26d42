//! Connections whose server's key Weft chooses, whole: servers that do as they are told, many clients, and no state
//! (Olteanu and Raiciu, "Datacenter scale load balancing for Multipath TCP", HotMiddlebox 2016, solution 1).
//!
//! The server's side is told nothing but the frames that reach it: it takes key and number out of the bytes behind GUE's
//! header by itself.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod support;

use std::collections::BTreeMap;

use engine::snapshot::Snapshot;
use engine::verdict::Action;
use ipc::counter::Counter;
use ipc::message::{BackendState, Command, Forward, Protocol, Scheme, Secret, Steering, UnknownToken};
use ipc::reason::Reason;
use packet::build::PacketBuilder;
use packet::{Family, Flow, Key, Token, Version};
use support::{CLIENT_KEY, FAMILIES, World, backend_in, flow, name, numbered, of, services, site};

const PORT: u16 = 8000;
/// Frame, outer headers and GUE's own four bytes.
const BEHIND_GUE: [usize; 2] = [14 + 20 + 8 + 4, 14 + 40 + 8 + 4];

fn server(number: u8, weight: u32, state: BackendState) -> Command {
    numbered(backend_in("servers", &format!("b{number}"), number, weight, state), number)
}

fn active(number: u8) -> Command {
    server(number, 100, BackendState::Active)
}

/// An appliance with this many servers.
fn world(servers: u8) -> World {
    let steering = Steering { key_secret: Some(Secret([0x5e; 16])), ..Steering::by([Scheme::ChosenKey]) };
    let mut commands = vec![Command::PutPool { name: name("servers") }];
    commands.extend((1..=servers).map(active));
    commands.push(Command::PutVip {
        name: name("web"),
        pool: name("servers"),
        protocol: Protocol::Tcp,
        forward: Forward::Gue,
        steering,
        unknown_token: UnknownToken::Drop,
    });
    commands.extend(services("web", 9, PORT));
    World::new(&commands)
}

/// What a server reads of a SYN that reached it: its number and its key.
fn told(family: Family, frame: &[u8]) -> (u16, Key) {
    let at = BEHIND_GUE[usize::from(family == Family::V6)];
    // Three words behind the header, and in them type 1.
    assert_eq!((frame[at - 4], &frame[at..at + 2]), (3, &[1, 0][..]));
    let number = u16::from_be_bytes([frame[at + 2], frame[at + 3]]);
    (number, Key(frame[at + 4..at + 12].try_into().unwrap()))
}

/// A connection, as its two ends know it.
struct Connection {
    flow: Flow,
    version: Version,
    server: String,
    number: u16,
    key: Key,
}

fn syn(flow: &Flow, version: Version) -> PacketBuilder {
    match version {
        Version::V1 => of(flow).syn(1000).mp_capable_syn_v1(),
        Version::V0 => of(flow).syn(1000).mp_capable_syn_v0(CLIENT_KEY),
    }
}

/// Opens a connection from a client.
fn open(world: &mut World, client: u16) -> Connection {
    let family = FAMILIES[usize::from(client % 2)];
    let version = [Version::V0, Version::V1][usize::from(client / 2 % 2)];
    let flow = flow(family, client, 40_000, 9, PORT);
    let opened = world.send(syn(&flow, version));
    assert_eq!(opened.verdict.reason, Reason::ChosenKey);
    let (number, key) = told(family, &opened.bytes);
    let server = world.name_of(opened.verdict.backend).unwrap().to_owned();
    assert_eq!(server, format!("b{number}"), "the number is the server's own");
    Connection { flow, version, server, number, key }
}

impl Connection {
    /// Where a packet goes that echoes what the server sends: its clock, and its number in the twelve last bits.
    fn later(&self, world: &mut World, clock: u32) -> (Reason, Option<String>) {
        let stamp = clock << 12 | u32::from(self.number);
        let data = of(&self.flow).data(1001, 5).timestamps(clock, stamp).payload(b"data");
        let verdict = world.send(data).verdict;
        (verdict.reason, world.name_of(verdict.backend).map(str::to_owned))
    }

    /// Where a join from another of its client's addresses goes.
    fn join(&self, world: &mut World) -> Option<String> {
        let flow = Flow { source_port: 50_000, ..self.flow };
        let token = Token::from_key(self.version, &self.key);
        let verdict = world.send(of(&flow).syn(7).mp_join_syn(token, 1, 1)).verdict;
        world.name_of(verdict.backend).map(str::to_owned)
    }

    fn at_home(&self) -> (Reason, Option<String>) {
        (Reason::Timestamp, Some(self.server.clone()))
    }
}

#[test]
fn every_packet_and_every_join_finds_its_server_and_nothing_is_kept() {
    let mut world = world(16);
    let connections: Vec<Connection> = (0..8000).map(|client| open(&mut world, client)).collect();
    // Another appliance, told the same, which saw none of it; and one that has just been started again.
    let mut other = self::world(16);
    for (clock, connection) in (0..).zip(&connections) {
        assert_eq!(connection.later(&mut world, clock), connection.at_home());
        assert_eq!(connection.later(&mut other, clock), connection.at_home());
        assert_eq!(connection.join(&mut other), Some(connection.server.clone()));
        let again = other.send(syn(&connection.flow, connection.version));
        assert_eq!(told(connection.flow.family, &again.bytes), (connection.number, connection.key));
    }
    for world in [&world, &other] {
        assert_eq!(world.held_ids(), [], "no entry in either table");
        assert_eq!(world.counters.reader().counter(Counter::FlowInserted), 0);
    }
}

#[test]
fn connections_spread_over_the_servers_by_their_weights() {
    let mut world = world(4);
    world.commit(&[server(4, 50, BackendState::Active)]);
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for client in 0..14_000 {
        *counts.entry(open(&mut world, client).server).or_default() += 1;
    }
    // The split is even to some percent, and the weights 2:2:2:1: about 4000 each, and 2000.
    let of = |server: &str| counts[server];
    for server in ["b1", "b2", "b3"] {
        assert!((3500..4500).contains(&of(server)), "{counts:?}");
    }
    assert!((1600..2400).contains(&of("b4")), "{counts:?}");
}

#[test]
fn who_drains_gets_nothing_new_and_keeps_what_it_has() {
    let mut world = world(4);
    let connections: Vec<Connection> = (0..400).map(|client| open(&mut world, client)).collect();
    world.commit(&[server(2, 100, BackendState::Draining)]);
    for connection in &connections {
        assert_eq!(connection.later(&mut world, 9), connection.at_home());
        assert_eq!(connection.join(&mut world), Some(connection.server.clone()));
    }
    assert!(connections.iter().any(|connection| connection.server == "b2"));
    assert!((400..800).all(|client| open(&mut world, client).server != "b2"));
}

#[test]
fn a_newcomer_moves_no_subflow_and_only_the_joins_of_what_it_took() {
    let mut world = world(4);
    let connections: Vec<Connection> = (0..2000).map(|client| open(&mut world, client)).collect();
    world.commit(&[active(5)]);
    let mut moved = 0_u32;
    for connection in &connections {
        assert_eq!(connection.later(&mut world, 9), connection.at_home());
        let joined = connection.join(&mut world).unwrap();
        assert!(joined == connection.server || joined == "b5");
        moved += u32::from(joined == "b5");
    }
    assert!((300..500).contains(&moved), "a fifth of 2000, not {moved}");
}

#[test]
fn a_worker_one_snapshot_behind_knows_the_newcomers_number() {
    let mut world = world(4);
    let next = world.model.apply(&[active(5)]).unwrap();
    assert!(next.has_new_backends(&world.model));
    // The first phase: known, and not chosen yet.
    let generation = world.snapshot.generation + 1;
    let knowing: Snapshot = world.snapshot.knowing(&next, &site(), generation);
    world.snapshot = knowing;
    assert!((0..500).all(|client| open(&mut world, client).server != "b5"));
    let stray = Connection {
        flow: flow(Family::V4, 9, 40_000, 9, PORT),
        version: Version::V1,
        server: "b5".to_owned(),
        number: 5,
        key: Key([0; 8]),
    };
    assert_eq!(stray.later(&mut world, 3), stray.at_home());
}

#[test]
fn a_new_number_is_news_to_the_workers() {
    let world = world(2);
    let renumbered = numbered(backend_in("servers", "b2", 2, 100, BackendState::Active), 77);
    let next = world.model.apply(&[renumbered]).unwrap();
    assert!(next.has_new_backends(&world.model));
}

#[test]
fn a_syn_that_fits_without_its_key_and_not_with_it_is_told_so() {
    let mut world = world(2);
    for family in FAMILIES {
        let flow = flow(family, 1, 40_000, 9, PORT);
        let outer = if family == Family::V4 { 32 } else { 52 };
        // With data in the SYN, as TCP Fast Open has it. The port's MTU is 1600.
        let of_length = |len: usize| {
            let headers = syn(&flow, Version::V1).build_ip().len();
            syn(&flow, Version::V1).payload(&vec![7; len - headers])
        };
        assert_eq!(world.send(of_length(1600 - outer - 12)).verdict.reason, Reason::ChosenKey);
        let refused = world.send(of_length(1600 - outer - 11));
        assert_eq!((refused.verdict.action, refused.verdict.reason), (Action::Local, Reason::TooBigTold));
        // The size that fits is told: behind the IP header and four bytes of ICMP.
        let at = 14 + if family == Family::V4 { 20 } else { 40 } + 4;
        let fits = u32::from_be_bytes(refused.bytes[at..at + 4].try_into().unwrap());
        assert_eq!(usize::try_from(fits).unwrap(), 1600 - outer - 12);
    }
}
