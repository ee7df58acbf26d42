//! Floods of ten times the flow table, in simulated time, against a population of honest connections.
//!
//! What must hold whatever comes: joined and moved flows lose nothing, honest new connections go where Maglev says all
//! the time, tokens of connections that lasted stay, and within a stated time after the flood keys are learned and
//! joins reach their owner as before. What a flood may cost is counted, and printed as a row of a table:
//! `WEFT_SOAK=262144 cargo test -p engine --release --test floods soak -- --nocapture` prints it for tables of so many
//! entries.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod support;

use std::collections::VecDeque;
use std::fmt;

use engine::flow_table::FlowTable;
use engine::lifetimes::Class;
use ipc::counter::Counter;
use ipc::counters::CounterReader;
use ipc::id::BackendId;
use ipc::message::{BackendState, Command, Forward, Protocol, Scheme, Steering, UnknownToken};
use ipc::reason::Reason;
use packet::{Flow, Key, Token, Version};
use support::{CLIENT_KEY, FAMILIES, Random, World, backend, backend_in, flow, name, of, services, site};

/// Entries of each table in the ordinary tests.
const SMALL: usize = 4096;

/// How long a flood lasts, in seconds: longer than any class must be silent before it may give way.
const LASTS: u64 = 120;

/// What floods the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// SYNs, half of them with MP_CAPABLE.
    Syn,
    /// ACKs of unknown flows.
    Ack,
    /// SYNs with MP_JOIN and one valid token.
    Join,
    /// The same, each followed by a forged ACK with 24 bytes of MP_JOIN.
    JoinAck,
    /// SYNs with MP_JOIN whose tokens are made up, where every token names a backend, each followed by such an ACK.
    Guess,
    /// Whole forged handshakes that teach a key, with DSS traffic following.
    Learn,
    /// The same, and a backend starts to drain when half of it is over.
    LearnAndDrain,
}

impl Fault {
    const ALL: [Fault; 7] =
        [Self::Syn, Self::Ack, Self::Join, Self::JoinAck, Self::Guess, Self::Learn, Self::LearnAndDrain];

    /// What it is called in the table.
    const fn name(self) -> &'static str {
        match self {
            Self::Syn => "SYN flood",
            Self::Ack => "ACK flood",
            Self::Join => "JOIN flood, one valid token",
            Self::JoinAck => "JOIN flood with forged third ACKs",
            Self::Guess => "JOIN flood, tokens made up, forged third ACKs",
            Self::Learn => "third-ACK flood with DSS",
            Self::LearnAndDrain => "third-ACK flood with DSS, a backend drains in it",
        }
    }

    /// Within how many seconds after it keys are learned and joined as before.
    const fn recovers(self) -> u64 {
        match self {
            // Nothing it left is worth more than a newcomer.
            Self::Syn | Self::Ack | Self::Join | Self::JoinAck => 0,
            // Time for a handshake and a first look at what comes then, in ticks.
            Self::Guess => 32,
            // Its flows look established: 64 s of silence, in ticks.
            Self::Learn => 96,
            // Nobody knows whether they moved: an hour for flows that never lasted.
            Self::LearnAndDrain => 3600 + 96,
        }
    }
}

/// The frames of a flood, one flow after the other.
struct Flood {
    fault: Fault,
    token: Token,
    flows: u64,
    waiting: VecDeque<Vec<u8>>,
    random: Random,
}

impl Flood {
    fn next(&mut self) -> Vec<u8> {
        if let Some(frame) = self.waiting.pop_front() {
            return frame;
        }
        let number = self.flows;
        self.flows += 1;
        let family = FAMILIES[usize::try_from(number % 2).unwrap()];
        let host = 2000 + u16::try_from(number / 2 / 60_000).unwrap();
        let flow = flow(family, host, 1024 + u16::try_from(number / 2 % 60_000).unwrap(), 9, 8000);
        let isn = self.random.word();
        let syn = || of(&flow).syn(isn);
        let segment = || of(&flow).data(isn.wrapping_add(1), 1);
        match self.fault {
            Fault::Syn if self.random.percent(50) => syn().build(),
            Fault::Syn => syn().mp_capable_syn_v1().build(),
            Fault::Ack => segment().build(),
            Fault::Join => syn().mp_join_syn(self.token, 1, 1).build(),
            Fault::JoinAck | Fault::Guess => {
                self.waiting.push_back(segment().mp_join_ack([7; 20]).build());
                let guess = Token(self.random.word());
                syn().mp_join_syn(if self.fault == Fault::Guess { guess } else { self.token }, 1, 1).build()
            }
            Fault::Learn | Fault::LearnAndDrain => {
                let key = Key(self.random.next().to_be_bytes());
                self.waiting.push_back(segment().mp_capable_ack(Version::V1, CLIENT_KEY, key).build());
                self.waiting.push_back(segment().dss_data(1, 1, 1, b"data").build());
                syn().mp_capable_syn_v1().build()
            }
        }
    }
}

/// An honest connection or subflow, and where it lives.
#[derive(Clone, Copy, Debug)]
struct Honest {
    flow: Flow,
    key: Key,
    home: BackendId,
}

impl Honest {
    fn token(&self) -> Token {
        Token::from_key(Version::V1, &self.key)
    }

    /// Sends some data; whether it went home.
    fn sends(&self, world: &mut World) -> bool {
        world.send(of(&self.flow).data(1001, 1).dss_data(1, 1, 1, b"data")).verdict.backend == Some(self.home)
    }
}

/// Honest traffic before, during and after a flood.
struct Scene {
    world: World,
    /// Connections that lasted, their first subflows.
    lasting: Vec<Honest>,
    /// Connections that exchanged data for a second and were silent ever since.
    brief: Vec<Honest>,
    /// Further subflows that send now and then.
    joined: Vec<Honest>,
    /// Backup subflows: nothing after their handshake.
    backup: Vec<Honest>,
    /// Connections whose backend drains by now: of every second one nothing was seen since.
    moved: Vec<Honest>,
    /// Honest flows opened so far, so that no two are alike.
    opened: u32,
}

impl Scene {
    /// A population of about a third of the table's entries, its tables' entries as given.
    fn new(entries: usize, schemes: &[Scheme]) -> Self {
        let mut commands = vec![Command::PutPool { name: name("servers") }];
        commands.extend((1..=4).map(|n| backend("servers", &format!("b{n}"), n)));
        commands.push(Command::PutVip {
            name: name("web"),
            pool: name("servers"),
            protocol: Protocol::Tcp,
            forward: Forward::L2dsr,
            steering: Steering::by(schemes.iter().copied()),
            unknown_token: UnknownToken::Drop,
        });
        commands.extend(services("web", 9, 8000));
        let mut world = World::of_size(site(), entries, entries);
        world.commit(&commands);
        let none = Vec::new;
        let mut scene = Self {
            world,
            lasting: none(),
            brief: none(),
            joined: none(),
            backup: none(),
            moved: none(),
            opened: 0,
        };
        let all: Vec<Honest> = (0..entries / 6).map(|_| scene.connect().unwrap()).collect();
        scene.world.wait(40);
        all.iter().for_each(|honest| assert!(honest.sends(&mut scene.world)));
        for honest in all.iter().step_by(3) {
            let joined = scene.join(honest).unwrap();
            scene.joined.push(joined);
            let silent = scene.join(honest).unwrap();
            scene.backup.push(silent);
        }
        scene.world.wait(40);
        scene.joined.iter().for_each(|joined| assert!(joined.sends(&mut scene.world)));
        scene.drain("b1", 1);
        scene.world.wait(40);
        // Every second connection shows after that whether it moved; of the others nobody knows.
        all.iter().step_by(2).for_each(|honest| assert!(honest.sends(&mut scene.world)));
        let is_moved = |honest: &&Honest| scene.world.hashed(&honest.flow) != Some(honest.home);
        scene.moved = all.iter().filter(is_moved).copied().collect();
        scene.lasting = all;
        scene.brief = (0..entries / 40).map(|_| scene.connect().unwrap()).collect();
        // All are silent for longer than flows of their own class must be before they may give way.
        scene.world.wait(100);
        assert!(scene.moved.len() > entries / 40, "{} moved", scene.moved.len());
        scene
    }

    fn drain(&mut self, text: &str, number: u8) {
        self.world.commit(&[backend_in("servers", text, number, 100, BackendState::Draining)]);
    }

    /// A flow no other has.
    fn flow(&mut self) -> Flow {
        let number = self.opened;
        self.opened += 1;
        let family = FAMILIES[usize::try_from(number % 2).unwrap()];
        let host = 1 + u16::try_from(number / 50_000).unwrap();
        flow(family, host, 1024 + u16::try_from(number % 50_000).unwrap(), 9, 8000)
    }

    /// A whole connection at once, if its key was learned; asserts that Maglev serves it.
    fn connect(&mut self) -> Option<Honest> {
        let mut newcomer = Newcomer::new(self);
        let learned = (0..3).map(|step| newcomer.step(&mut self.world, step)).fold(false, |a, b| a | b);
        assert_eq!(newcomer.astray, 0);
        learned.then_some(newcomer.honest)
    }

    /// A further subflow at once, if all its packets reach the connection's home.
    fn join(&mut self, of_connection: &Honest) -> Option<Honest> {
        let joined = Honest { flow: self.flow(), ..*of_connection };
        (0..3).all(|step| join_step(&mut self.world, &joined, step)).then_some(joined)
    }

    fn count(&self, counter: Counter) -> u64 {
        self.world.counters.reader().counter(counter)
    }
}

/// One packet of a join's handshake, or its data; whether it went home.
fn join_step(world: &mut World, joined: &Honest, step: u32) -> bool {
    let segment = of(&joined.flow).data(1001, 1);
    let outcome = world.send(match step {
        0 => of(&joined.flow).syn(1000).mp_join_syn(joined.token(), 1, 1),
        1 => segment.mp_join_ack([3; 20]),
        _ => segment.dss_data(1, 1, 1, b"data"),
    });
    outcome.verdict.backend == Some(joined.home)
}

/// A honest connection while it is opened.
struct Newcomer {
    honest: Honest,
    astray: u64,
}

impl Newcomer {
    fn new(scene: &mut Scene) -> Self {
        let flow = scene.flow();
        let key = Key((0xfeed_0000_0000_0000 | u64::from(scene.opened)).to_be_bytes());
        let home = scene.world.hashed(&flow).unwrap();
        Self { honest: Honest { flow, key, home }, astray: 0 }
    }

    /// Its SYN, its third ACK with the key, its first data; whether its key was learned.
    fn step(&mut self, world: &mut World, step: u32) -> bool {
        let segment = of(&self.honest.flow).data(1001, 1);
        let outcome = world.send(match step {
            0 => of(&self.honest.flow).syn(1000).mp_capable_syn_v1(),
            1 => segment.mp_capable_ack(Version::V1, CLIENT_KEY, self.honest.key),
            _ => segment.dss_data(1, 1, 1, b"data"),
        });
        self.astray += u64::from(outcome.verdict.backend != Some(self.honest.home));
        outcome.verdict.learned
    }
}

/// What a flood did: a row of the table.
#[derive(Clone, Debug, Default)]
struct Row {
    fault: &'static str,
    packets: u64,
    evicted: [u64; 5],
    full: u64,
    tokens_evicted: u64,
    /// Honest connections begun in it, those that Maglev did not serve, and those whose key was learned.
    begun: u64,
    astray: u64,
    learned: u64,
    /// Joins dropped because their token had enough within the tick.
    refused: u64,
    /// Joins of honest connections begun in it, and those that did not reach their owner.
    joins: u64,
    joins_lost: u64,
    /// Joined and moved flows, and those that lost their backend.
    kept: u64,
    kept_lost: u64,
    /// Tokens of connections that lasted, and those that were lost; the same of brief ones.
    tokens: u64,
    tokens_lost: u64,
    brief: u64,
    brief_lost: u64,
    /// Seconds after its end until ten connections in turn were learned and joined.
    recovered: u64,
}

impl Row {
    const HEAD: &'static str = "| fault | packets | flows evicted: half-open, adopted, closing, own, kept | no place | \
        joins refused | tokens evicted | honest connections: begun, astray, learned | honest joins: begun, lost | joined and \
        moved flows: all, lost | tokens that lasted: all, lost | brief tokens: all, lost | as before after |\n| --- | --- | \
        --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half_open, adopted, closing, own, kept] = self.evicted;
        write!(f, "| {} | {} | {half_open}, {adopted}, {closing}, {own}, {kept} ", self.fault, self.packets)?;
        write!(f, "| {} | {} | {} ", self.full, self.refused, self.tokens_evicted)?;
        write!(
            f,
            "| {}, {}, {} | {}, {} ",
            self.begun, self.astray, self.learned, self.joins, self.joins_lost
        )?;
        write!(f, "| {}, {} | {}, {} ", self.kept, self.kept_lost, self.tokens, self.tokens_lost)?;
        write!(f, "| {}, {} | {} s |", self.brief, self.brief_lost, self.recovered)
    }
}

/// The counters of the classes, in their order.
fn evictions(reader: &CounterReader) -> [u64; 5] {
    Class::ALL.map(|class| {
        reader.counter(match class {
            Class::HalfOpen => Counter::FlowEvictedHalfOpen,
            Class::Adopted => Counter::FlowEvictedAdopted,
            Class::Closing => Counter::FlowEvictedClosing,
            Class::Own => Counter::FlowEvictedOwn,
            Class::Kept => Counter::FlowEvictedKept,
        })
    })
}

/// A flood of ten times as many flows as the flow table has slots, and what became of everybody.
fn flood(fault: Fault, entries: usize) -> Row {
    let schemes = [Scheme::Learn, Scheme::TokenMap];
    let mut scene = Scene::new(entries, if fault == Fault::Guess { &schemes } else { &schemes[..1] });
    let attacker = scene.lasting[0];
    let mut flood =
        Flood { fault, token: attacker.token(), flows: 0, waiting: VecDeque::new(), random: Random(7) };
    let flows = 10 * u64::try_from(scene.world.tables.flows.capacity()).unwrap();
    let before = evictions(&scene.world.counters.reader());
    let (full, tokens) = (scene.count(Counter::FlowTableFull), scene.count(Counter::TokenEvicted));
    let mut row = Row { fault: fault.name(), ..Row::default() };
    for second in 0..LASTS {
        if fault == Fault::LearnAndDrain && second == LASTS / 2 {
            scene.drain("b2", 2);
        }
        rush(&mut scene, &mut flood, flows * (second + 1) / LASTS, second, &mut row);
        scene.world.wait(1);
    }
    let after = evictions(&scene.world.counters.reader());
    row.evicted = std::array::from_fn(|class| after[class] - before[class]);
    row.full = scene.count(Counter::FlowTableFull) - full;
    row.tokens_evicted = scene.count(Counter::TokenEvicted) - tokens;
    row.refused = scene.world.counters.reader().reason(Reason::JoinRate);
    recover(&mut scene, &mut row);
    look_back(&mut scene, &mut row);
    println!("{row}");
    row
}

/// One second of a flood, up to so many of its flows. In four parts: between them an honest connection is opened, a join
/// begun, and joined flows send.
fn rush(scene: &mut Scene, flood: &mut Flood, flows: u64, second: u64, row: &mut Row) {
    let began = flood.flows;
    let mut newcomer = Newcomer::new(scene);
    // The first is the attacker's, whose token has too many joins.
    let index = 1 + usize::try_from(second).unwrap() % (scene.lasting.len() - 1);
    let joined = Honest { flow: scene.flow(), ..scene.lasting[index] };
    let mut reached = true;
    row.begun += 1;
    row.joins += 1;
    for part in 0..4 {
        let until = began + (flows - began) * u64::from(part + 1) / 4;
        while flood.flows < until || !flood.waiting.is_empty() {
            let frames: Vec<_> = (0..32).map(|_| flood.next()).collect();
            row.packets += 32;
            scene.world.burst(frames);
        }
        if part < 3 {
            row.learned += u64::from(newcomer.step(&mut scene.world, part));
            reached &= join_step(&mut scene.world, &joined, part);
        }
    }
    row.astray += newcomer.astray;
    row.joins_lost += u64::from(!reached);
    let sending = scene.joined.iter().skip(usize::try_from(second % 20).unwrap()).step_by(20);
    row.kept_lost += sending.filter(|joined| !joined.sends(&mut scene.world)).count() as u64;
}

/// Tries every second until ten connections in turn are learned and joined.
fn recover(scene: &mut Scene, row: &mut Row) {
    let mut in_turn = 0;
    for second in 0.. {
        assert!(second < 2 * 3600, "{}: no recovery", row.fault);
        let learned = scene.connect();
        in_turn = if learned.is_some_and(|honest| scene.join(&honest).is_some()) { in_turn + 1 } else { 0 };
        if in_turn == 10 {
            row.recovered = second - 9;
            return;
        }
        scene.world.wait(1);
    }
}

/// What is left of the population.
fn look_back(scene: &mut Scene, row: &mut Row) {
    let kept: Vec<Honest> =
        [&scene.joined, &scene.backup, &scene.moved].into_iter().flatten().copied().collect();
    row.kept = kept.len() as u64;
    row.kept_lost += kept.iter().filter(|kept| !kept.sends(&mut scene.world)).count() as u64;
    for (connections, is_brief) in [(scene.lasting.clone(), false), (scene.brief.clone(), true)] {
        // The first is the attacker's, whose token has had its joins.
        let lost = connections.iter().skip(1).filter(|honest| !finds_owner(scene, honest)).count() as u64;
        let all = connections.len() as u64 - 1;
        if is_brief {
            (row.brief, row.brief_lost) = (all, lost)
        } else {
            (row.tokens, row.tokens_lost) = (all, lost)
        }
    }
}

/// Whether a join of a connection follows its token home.
fn finds_owner(scene: &mut Scene, honest: &Honest) -> bool {
    let flow = scene.flow();
    let outcome = scene.world.send(of(&flow).syn(1000).mp_join_syn(honest.token(), 1, 1));
    (outcome.verdict.reason, outcome.verdict.backend) == (Reason::Token, Some(honest.home))
}

/// What must hold after any flood.
fn assert_nothing_is_lost(fault: Fault, entries: usize) -> Row {
    let row = flood(fault, entries);
    assert_eq!(row.kept_lost, 0, "joined and moved flows lose nothing");
    assert_eq!(row.evicted[Class::Kept as usize], 0, "the last class gives way to nothing");
    assert_eq!(row.astray, 0, "honest new connections are served by Maglev throughout");
    assert_eq!(row.tokens_lost, 0, "tokens of connections that lasted stay");
    assert!(row.recovered <= fault.recovers(), "as before after {} s", row.recovered);
    row
}

/// Of ten times the table, at least nine tenths found it full.
const MOST_EVICT: u64 = 9;

/// Slots of the table in the ordinary tests.
fn slots() -> u64 {
    u64::try_from(FlowTable::lines_for(SMALL) * engine::flow_table::SLOTS).unwrap()
}

#[test]
fn a_syn_flood_costs_nobody_anything() {
    let row = assert_nothing_is_lost(Fault::Syn, SMALL);
    let [half_open, rest @ ..] = row.evicted;
    assert!(half_open > MOST_EVICT * slots() && rest == [0; 4], "{row:?}");
    assert_eq!((row.joins_lost, row.brief_lost, row.tokens_evicted), (0, 0, 0), "{row:?}");
    // A quarter of a second is time enough for a handshake, but for a few.
    assert!(row.learned * 20 >= row.begun * 19, "{row:?}");
}

#[test]
fn an_ack_flood_costs_nobody_anything_and_touches_its_like_only() {
    let row = assert_nothing_is_lost(Fault::Ack, SMALL);
    let [half_open, adopted, rest @ ..] = row.evicted;
    assert!(adopted > MOST_EVICT * slots() && half_open <= 2 && rest == [0; 3], "{row:?}");
    assert_eq!((row.joins_lost, row.brief_lost, row.full), (0, 0, 0), "{row:?}");
    assert!(row.learned + 2 >= row.begun, "{row:?}");
}

#[test]
fn a_join_flood_with_one_valid_token_is_dropped_but_for_a_few_joins_a_tick() {
    let row = assert_nothing_is_lost(Fault::Join, SMALL);
    // Ticks that the flood touches, and 32 joins in each.
    assert!(row.packets - row.refused <= (LASTS / 16 + 2) * 32, "{row:?}");
    assert_eq!((row.joins_lost, row.brief_lost, row.full, row.evicted), (0, 0, 0, [0; 5]), "{row:?}");
    assert_eq!(row.learned, row.begun, "{row:?}");
}

#[test]
fn a_join_flood_with_forged_third_acks_costs_nobody_anything() {
    let row = assert_nothing_is_lost(Fault::JoinAck, SMALL);
    let [half_open, adopted, rest @ ..] = row.evicted;
    // The forged ACKs of joins that were not let in are packets of unknown flows.
    assert!(row.packets / 2 - row.refused <= (LASTS / 16 + 2) * 32, "{row:?}");
    assert!(adopted > MOST_EVICT * slots() && half_open <= 2 && rest == [0; 3], "{row:?}");
    assert_eq!((row.joins_lost, row.brief_lost, row.full), (0, 0, 0), "{row:?}");
    assert!(row.learned + 2 >= row.begun, "{row:?}");
}

#[test]
fn a_join_flood_with_tokens_made_up_costs_only_tokens_of_connections_that_begin_in_it() {
    let row = assert_nothing_is_lost(Fault::Guess, SMALL);
    let [half_open, adopted, closing, own, _] = row.evicted;
    // Its own flows, once they had time to show that they last.
    assert!(half_open > slots() && row.full > slots(), "{row:?}");
    assert!((adopted, closing, row.refused) == (0, 0, 0) && own < 200, "{row:?}");
    assert!(row.brief_lost < 5, "those that joins of connections that lasted took the place of: {row:?}");
    assert_eq!((row.joins_lost, row.tokens_evicted), (0, 0), "{row:?}");
}

#[test]
fn a_third_ack_flood_with_dss_costs_only_tokens_of_connections_that_never_lasted() {
    let row = assert_nothing_is_lost(Fault::Learn, SMALL);
    assert!(row.evicted[Class::Own as usize] > 0 && row.full > 0 && row.tokens_evicted > 0, "{row:?}");
    assert_eq!(row.joins_lost, 0, "joins of connections that lasted find a place: {row:?}");
    assert!(row.brief_lost > 0, "this is what it costs, and the documents say so: {row:?}");
}

#[test]
fn a_third_ack_flood_while_a_backend_drains_is_over_an_hour_later() {
    let row = assert_nothing_is_lost(Fault::LearnAndDrain, SMALL);
    assert_eq!(row.joins_lost, 0, "{row:?}");
    assert!(row.recovered > Fault::Learn.recovers(), "or the hour is not needed: {row:?}");
}

#[test]
fn soak_prints_a_row_for_each_flood() {
    let entries = std::env::var("WEFT_SOAK").ok().and_then(|text| text.parse().ok()).unwrap_or(1024);
    println!("{}", Row::HEAD);
    for fault in Fault::ALL {
        assert_nothing_is_lost(fault, entries);
    }
}
