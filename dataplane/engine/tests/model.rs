//! The engine against a balancer that anybody can check by reading: two `HashMap`s, one from 5-tuple and one from
//! (pool, token) to backend.
//!
//! Simulated clients open connections (plain, MPTCP of both versions), add subflows on other VIPs of the pool and
//! in the other family, send data, retransmit, close, and reuse ports; the network reorders and cuts into bursts;
//! an operator adds, removes, re-weights, drains and forgets backends meanwhile, in two phases, with traffic in
//! between. **What must hold:** every packet of a connection, all its subflows included, goes to one backend.
//! Tables are never full here. New connections may go to any backend that is selectable, and to no other.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod support;

use std::collections::{HashMap, HashSet};

use engine::snapshot::Snapshot;
use engine::tables::Tables;
use engine::verdict::Action;
use ipc::id::PoolId;
use ipc::message::{BackendState, Command, Forward, UnknownToken};
use ipc::reason::Reason;
use packet::build::PacketBuilder;
use packet::{Family, Flow, Key, Token, Version};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use support::{
    CLIENT_KEY, Outcome, Random, World, backend, backend_in, flow, name, of, services, vip, vip_with,
};

/// Backends by name and number; how many are configured changes all the time.
const BACKENDS: u8 = 8;
/// The VIPs of the pool that connections are opened and joined on: web, tls.
const PORTS: [u16; 2] = [8000, 443];
/// A half-open subflow not heard of for so long is given up: its entry lives 64 s at least.
const HALF_OPEN: u64 = 48;
/// A token is promised for so long after the last subflow closed.
const TOKEN_AFTER_CLOSE: u64 = 60;
/// An established subflow is promised to be known after so long a silence.
const ESTABLISHED: u64 = 12 * 3600;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    SynSent,
    Open,
    Closed,
    /// Given up, or its 5-tuple is another's now: nothing of it is promised or sent any more.
    Gone,
}

/// One subflow of a client.
#[derive(Clone, Debug)]
struct Subflow {
    flow: Flow,
    isn: u32,
    joins: bool,
    stage: Stage,
    heard: u64,
    sent: Vec<Packet>,
}

/// One connection of a client.
#[derive(Clone, Debug)]
struct Connection {
    mptcp: Option<Version>,
    key: Key,
    token: Token,
    subflows: Vec<Subflow>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A SYN, with the ISN that tells a retransmission from a new one.
    Syn(u32),
    Join(u32),
    Key,
    Other,
}

/// A packet on its way.
#[derive(Clone, Debug)]
struct Packet {
    connection: usize,
    subflow: usize,
    kind: Kind,
    frame: Vec<u8>,
}

/// The balancer that anybody can check.
#[derive(Debug, Default)]
struct Oracle {
    /// Where a 5-tuple goes, and the ISN that opened it.
    flows: HashMap<Flow, (u32, String)>,
    /// Where a token's connection lives.
    tokens: HashMap<(PoolId, Token), String>,
}

struct Simulation {
    world: World,
    oracle: Oracle,
    random: Random,
    connections: Vec<Connection>,
    wire: Vec<Packet>,
    /// Who may get new connections, by the snapshot in force.
    selectable: HashSet<String>,
    policy: UnknownToken,
    next_port: u16,
    /// How often each kind of thing was checked: a simulation that checks nothing must fail.
    checked: [u64; 4],
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut commands = vec![Command::PutPool { name: name("servers") }];
        commands.extend((1..=3).map(put));
        commands.extend([vip("web", "servers"), vip("tls", "servers")]);
        commands.extend(services("web", 9, PORTS[0]));
        commands.extend(services("tls", 9, PORTS[1]));
        let mut simulation = Self {
            world: World::new(&commands),
            oracle: Oracle::default(),
            random: Random(seed),
            connections: Vec::new(),
            wire: Vec::new(),
            selectable: HashSet::new(),
            policy: UnknownToken::Drop,
            next_port: 1024,
            checked: [0; 4],
        };
        simulation.world.tables = Tables::on_heap(1024, 1024, &[9; 32]);
        simulation.selectable = simulation.selectable_now();
        simulation
    }

    /// The backends of the model that may get new connections.
    fn selectable_now(&self) -> HashSet<String> {
        let all = self.world.model.pools().iter().flat_map(|pool| &pool.backends);
        let chosen =
            |b: &&engine::model::Backend| b.is_present() && b.state == BackendState::Active && b.weight > 0;
        all.filter(chosen).map(|backend| backend.name.to_string()).collect()
    }

    fn act(&mut self, what: u8, with: u64) {
        self.random.0 ^= with;
        match what % 16 {
            0..=1 => self.open(),
            2..=4 => self.join(),
            5..=8 => self.data(),
            9 => self.retransmit(),
            10 => self.close(),
            11 => self.reopen(),
            12..=13 => self.operate(),
            14 => self.wait(with),
            _ => self.deliver(),
        }
    }

    fn some_family(&mut self) -> Family {
        if self.random.percent(50) { Family::V4 } else { Family::V6 }
    }

    fn fresh_flow(&mut self) -> Flow {
        self.next_port = self.next_port.checked_add(1).unwrap_or(1024);
        let (family, host) = (self.some_family(), self.random.below(64));
        let port = PORTS[self.random.below(2)];
        flow(family, u16::try_from(host).unwrap(), self.next_port, 9, port)
    }

    fn push(&mut self, connection: usize, subflow: usize, kind: Kind, packet: PacketBuilder) {
        let packet = Packet { connection, subflow, kind, frame: packet.build() };
        let (heard, sent) = {
            let it = &mut self.connections[connection].subflows[subflow];
            (&mut it.heard, &mut it.sent)
        };
        *heard = self.world.seconds;
        sent.push(packet.clone());
        self.wire.push(packet);
    }

    fn send_syn(&mut self, connection: usize, subflow: usize) {
        let it = &self.connections[connection];
        let this = &it.subflows[subflow];
        let syn = of(&this.flow).syn(this.isn);
        let (kind, packet) = match (this.joins, it.mptcp) {
            (true, _) => (Kind::Join(this.isn), syn.mp_join_syn(it.token, 7, 1)),
            (_, Some(Version::V1)) => (Kind::Syn(this.isn), syn.mp_capable_syn_v1()),
            (_, Some(Version::V0)) => (Kind::Syn(this.isn), syn.mp_capable_syn_v0(CLIENT_KEY)),
            (_, None) => (Kind::Syn(this.isn), syn),
        };
        self.push(connection, subflow, kind, packet);
    }

    fn open(&mut self) {
        let flow = self.fresh_flow();
        let isn = self.random.word();
        self.open_on(flow, isn);
    }

    fn open_on(&mut self, flow: Flow, isn: u32) {
        let key = Key(self.random.next().to_be_bytes());
        let mptcp = [Some(Version::V1), Some(Version::V1), Some(Version::V0), None][self.random.below(4)];
        let token = Token::from_key(mptcp.unwrap_or(Version::V1), &key);
        self.connections.push(Connection { mptcp, key, token, subflows: Vec::new() });
        self.add_subflow(self.connections.len() - 1, flow, isn, false);
    }

    fn add_subflow(&mut self, connection: usize, flow: Flow, isn: u32, joins: bool) {
        let heard = self.world.seconds;
        let subflow = Subflow { flow, isn, joins, stage: Stage::SynSent, heard, sent: Vec::new() };
        self.connections[connection].subflows.push(subflow);
        self.send_syn(connection, self.connections[connection].subflows.len() - 1);
    }

    /// Whether a connection's token is promised to be known: a subflow is open, or closed a short time ago.
    fn is_joinable(&self, connection: &Connection) -> bool {
        connection.mptcp.is_some()
            && connection.subflows.iter().any(|subflow| match subflow.stage {
                Stage::SynSent | Stage::Gone => false,
                Stage::Open => true,
                Stage::Closed => self.world.seconds - subflow.heard < TOKEN_AFTER_CLOSE,
            })
    }

    fn join(&mut self) {
        if self.random.percent(60) {
            self.deliver();
        }
        let Some(connection) = self.pick_connection() else {
            return;
        };
        let it = &self.connections[connection];
        let known = self.oracle.tokens.contains_key(&(PoolId(0), it.token));
        // An unknown token under policy `hash` goes anywhere: that is what the operator asked for.
        if !self.is_joinable(it) || (!known && self.policy == UnknownToken::Hash) || it.subflows.len() > 6 {
            return;
        }
        let flow = self.fresh_flow();
        let isn = self.random.word();
        self.add_subflow(connection, flow, isn, true);
    }

    fn pick_connection(&mut self) -> Option<usize> {
        let count = self.connections.len();
        // Mostly recent ones, so that small simulations do something.
        match count {
            0 => None,
            _ if self.random.percent(70) => Some(count - 1 - self.random.below(count.min(4))),
            _ => Some(self.random.below(count)),
        }
    }

    /// A subflow of a stage that is promised to be known still.
    fn pick(&mut self, stage: Stage) -> Option<(usize, usize)> {
        (0..4).find_map(|_| self.pick_once(stage))
    }

    fn pick_once(&mut self, stage: Stage) -> Option<(usize, usize)> {
        let connection = self.pick_connection()?;
        let subflow = self.random.below(self.connections[connection].subflows.len());
        let subflows = &self.connections[connection].subflows;
        let it = &subflows[subflow];
        let limit = if it.settled() { ESTABLISHED } else { HALF_OPEN };
        let known = it.stage == stage && self.world.seconds - it.heard <= limit;
        known.then_some((connection, subflow))
    }

    fn data(&mut self) {
        let Some((connection, subflow)) = self.pick(Stage::Open) else {
            return;
        };
        let it = &self.connections[connection];
        let this = &it.subflows[subflow];
        let (next, key) = (this.isn.wrapping_add(1), it.key);
        let segment = of(&this.flow).data(next, 1);
        let (mptcp, joins, told) = (it.mptcp, this.joins, this.told());
        match (mptcp, joins) {
            (None, _) => self.push(connection, subflow, Kind::Other, segment.payload(b"plain")),
            (_, true) if told => {
                self.push(connection, subflow, Kind::Other, segment.dss_data(1, 1, 1, b"joined"));
            }
            (_, true) => self.push(connection, subflow, Kind::Other, segment.mp_join_ack([9; 20])),
            (Some(_), false) if told && self.random.percent(80) => {
                self.push(connection, subflow, Kind::Other, segment.dss_data(1, 1, 1, b"data"));
            }
            (Some(Version::V1), false) => {
                if self.random.percent(50) {
                    let ack = segment.clone().mp_capable_ack(Version::V1, CLIENT_KEY, key);
                    self.push(connection, subflow, Kind::Key, ack);
                }
                // The first data and more behind it, which the network may swap.
                let first = segment.clone().mp_capable_data(CLIENT_KEY, key, b"first");
                self.push(connection, subflow, Kind::Key, first);
                self.push(connection, subflow, Kind::Other, segment.dss_data(1, 1, 1, b"more"));
            }
            (Some(Version::V0), false) => {
                let ack = segment.mp_capable_ack(Version::V0, CLIENT_KEY, key);
                self.push(connection, subflow, Kind::Key, ack);
            }
        }
    }

    fn retransmit(&mut self) {
        let stage = [Stage::SynSent, Stage::Open][self.random.below(2)];
        let Some((connection, subflow)) = self.pick(stage) else {
            return;
        };
        let sent = &self.connections[connection].subflows[subflow].sent;
        let again = sent[self.random.clone().below(sent.len())].clone();
        let known = self.oracle.tokens.contains_key(&(PoolId(0), self.connections[connection].token));
        if matches!(again.kind, Kind::Join(_)) && !known && self.policy == UnknownToken::Hash {
            return;
        }
        self.wire.push(again);
    }

    fn close(&mut self) {
        let Some((connection, subflow)) = self.pick(Stage::Open) else {
            return;
        };
        self.deliver();
        let this = &self.connections[connection].subflows[subflow];
        let (next, flow) = (this.isn.wrapping_add(1), this.flow);
        let reset = self.random.percent(40);
        let last = if reset { of(&flow).rst(next, 1) } else { of(&flow).fin(next, 1) };
        self.push(connection, subflow, Kind::Other, last);
        self.deliver();
        if !reset {
            self.push(connection, subflow, Kind::Other, of(&flow).data(next, 2));
            self.deliver();
        }
        self.connections[connection].subflows[subflow].stage = Stage::Closed;
    }

    /// A client uses the port of a closed subflow again.
    fn reopen(&mut self) {
        let Some((connection, subflow)) = self.pick(Stage::Closed) else {
            return;
        };
        let this = &mut self.connections[connection].subflows[subflow];
        this.stage = Stage::Gone;
        let (flow, isn) = (this.flow, this.isn.wrapping_add(123_457));
        self.deliver();
        self.oracle.flows.remove(&flow);
        self.open_on(flow, isn);
    }

    /// The operator changes something, in two phases with traffic before, between and after.
    fn operate(&mut self) {
        self.deliver();
        let number = 1 + u8::try_from(self.random.below(usize::from(BACKENDS))).unwrap();
        let text = format!("b{number}");
        let weight = [0, 1, 50, 100, 300][self.random.below(5)];
        let state = [BackendState::Active, BackendState::Active, BackendState::Draining, BackendState::Down];
        let forward = Forward::ALL[self.random.below(3)];
        let commands = match self.random.below(8) {
            0 | 1 => vec![put(number)],
            2 | 3 => {
                vec![Command::RemoveBackend { pool: name("servers"), name: name(&text), deadline: None }]
            }
            4 => vec![backend_in("servers", &text, number, weight, state[self.random.below(4)])],
            5 => {
                self.policy = UnknownToken::ALL[self.random.below(3)];
                vec![vip_with("web", "servers", forward, true, self.policy), {
                    vip_with("tls", "servers", Forward::L2dsr, true, self.policy)
                }]
            }
            6 => [vip("extra", "servers")].into_iter().chain(services("extra", 9, 9999)).collect(),
            _ => {
                self.world.forget_unused();
                return;
            }
        };
        let Ok(next) = self.world.model.apply(&commands) else {
            return;
        };
        if next.has_new_backends(&self.world.model) {
            let world = &mut self.world;
            world.snapshot = world.snapshot.knowing(&next, &world.site, world.snapshot.generation + 1);
            self.open();
            self.deliver();
        }
        self.world.model = next;
        let world = &mut self.world;
        world.snapshot = Snapshot::of_model(&world.model, &world.site, world.snapshot.generation + 1);
        self.selectable = self.selectable_now();
        self.deliver();
    }

    fn wait(&mut self, with: u64) {
        self.deliver();
        let seconds = [1, 5, 17, 40, 90, 400, 3 * 3600][usize::try_from(with % 7).unwrap()];
        self.world.wait(seconds);
        let now = self.world.seconds;
        // A connection is forgotten by its client when nothing of it is promised any more.
        for connection in &mut self.connections {
            for subflow in &mut connection.subflows {
                let limit = if subflow.settled() { ESTABLISHED } else { HALF_OPEN };
                if subflow.stage != Stage::Closed && now - subflow.heard > limit {
                    subflow.stage = Stage::Gone;
                }
            }
        }
    }

    /// The network delivers what is on the wire: somewhat out of order, in bursts.
    fn deliver(&mut self) {
        let mut wire = std::mem::take(&mut self.wire);
        for index in 1..wire.len() {
            if self.random.percent(30) {
                wire.swap(index - 1, index);
            }
        }
        let size = 1 + self.random.below(64);
        for burst in wire.chunks(size) {
            let frames = burst.iter().map(|packet| packet.frame.clone()).collect();
            let outcomes = self.world.burst(frames);
            for (packet, outcome) in burst.iter().zip(outcomes) {
                self.check(packet, &outcome);
            }
        }
    }

    fn check(&mut self, packet: &Packet, outcome: &Outcome) {
        let connection = &self.connections[packet.connection];
        let (flow, token) = (connection.subflows[packet.subflow].flow, connection.token);
        let verdict = outcome.verdict;
        let went = self.world.name_of(verdict.backend).map(str::to_owned);
        if let Some(text) = &went {
            let number: u8 = text[1..].parse().unwrap();
            assert_eq!(outcome.bytes[..6], support::backend_mac(number), "the frame leaves to its backend");
        }
        let known = self.oracle.flows.get(&flow).cloned();
        match (packet.kind, known) {
            (Kind::Syn(isn), Some((opened, home))) | (Kind::Join(isn), Some((opened, home))) => {
                assert_eq!(isn, opened, "the simulation never sends two ISNs on one live 5-tuple");
                assert_eq!(went, Some(home), "a SYN sent again");
            }
            (Kind::Syn(isn), None) => self.check_new(packet, isn, flow, outcome, went),
            (Kind::Join(isn), None) => match self.oracle.tokens.get(&(PoolId(0), token)).cloned() {
                Some(home) => {
                    assert_eq!((verdict.reason, went), (Reason::Token, Some(home.clone())), "a join");
                    self.oracle.flows.insert(flow, (isn, home));
                    self.connections[packet.connection].subflows[packet.subflow].stage = Stage::Open;
                    self.checked[1] += 1;
                }
                None => {
                    assert!(
                        matches!(verdict.reason, Reason::UnknownToken | Reason::TokenReset),
                        "a join of an unknown token: {verdict:?}"
                    );
                    self.checked[2] += 1;
                }
            },
            (kind, known) => {
                let (_, home) = known.expect("the simulation sends nothing on a flow that was never opened");
                assert_eq!(went.as_ref(), Some(&home), "{kind:?} of {connection:?}");
                assert_eq!(verdict.reason, Reason::Flow);
                if kind == Kind::Key && !connection.subflows[packet.subflow].joins {
                    let first = !self.oracle.tokens.contains_key(&(PoolId(0), token));
                    assert_eq!(verdict.learned, first, "a key is learned once");
                    self.oracle.tokens.insert((PoolId(0), token), home);
                }
                self.checked[3] += 1;
            }
        }
    }

    /// The first SYN of a connection.
    fn check_new(&mut self, packet: &Packet, isn: u32, flow: Flow, outcome: &Outcome, went: Option<String>) {
        let subflow = &mut self.connections[packet.connection].subflows[packet.subflow];
        match went {
            Some(home) => {
                // By the entry where the 5-tuple was used before, which the oracle has forgotten.
                assert!(matches!(outcome.verdict.reason, Reason::Hash | Reason::Flow));
                assert!(self.selectable.contains(&home), "{home} is not of {:?}", self.selectable);
                self.oracle.flows.insert(flow, (isn, home));
                subflow.stage = Stage::Open;
                self.checked[0] += 1;
            }
            None => {
                assert_eq!(
                    (outcome.verdict.action, outcome.verdict.reason),
                    (Action::Drop, Reason::NoBackend)
                );
                assert!(self.selectable.is_empty(), "one of {:?} could have it", self.selectable);
                subflow.stage = Stage::Gone;
            }
        }
    }
}

impl Subflow {
    /// The packet that ends the handshake was sent: a key, a join's HMAC, or plain data.
    fn told(&self) -> bool {
        self.sent.iter().any(|packet| matches!(packet.kind, Kind::Key | Kind::Other))
    }

    /// What was sent makes its entry an established one.
    fn settled(&self) -> bool {
        self.stage != Stage::SynSent && self.told()
    }
}

/// An active backend by its number.
fn put(number: u8) -> Command {
    backend("servers", &format!("b{number}"), number)
}

/// Runs one simulation; says how often each kind of thing was checked.
fn simulate(seed: u64, actions: &[(u8, u64)]) -> [u64; 4] {
    let mut simulation = Simulation::new(seed);
    for (what, with) in actions {
        simulation.act(*what, *with);
    }
    simulation.deliver();
    simulation.checked
}

#[test]
fn every_packet_of_a_connection_and_of_its_subflows_goes_to_one_backend() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[0x57; 32]);
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let actions = proptest::collection::vec((any::<u8>(), any::<u64>()), 50..600);
    let totals = std::cell::Cell::new([0; 4]);
    runner
        .run(&(any::<u64>(), actions), |(seed, actions)| {
            let checked = simulate(seed, &actions);
            let sum: [u64; 4] = std::array::from_fn(|index| totals.get()[index] + checked[index]);
            totals.set(sum);
            Ok(())
        })
        .unwrap();
    let [opened, joined, refused, followed] = totals.get();
    println!(
        "{opened} connections opened, {joined} joins, {refused} joins too early, {followed} packets after"
    );
    assert!(opened > 1000 && joined > 500 && refused > 10 && followed > 5000, "{:?}", totals.get());
}
