//! Packets that open something: SYNs of connections and of joins, and the third ACK that teaches a token.
//!
//! Each makes an entry, so no packet can be sent twice. A pass is cut into parts of a tenth of the flow table; before
//! each the table stands at nine tenths of its advised load, after it at all of it, and what came is taken out again,
//! unmeasured. The tick changes with every part of joins: a worker lets in so many joins of a tick that no more than that
//! can be measured in one.

use ipc::counter::Counter;
use serde_json::{Map, Value, json};

use super::bench::{net, progress};
use super::{Opening, Options, Reasons, Worker, fill, path};
use crate::floor::opening::OpeningFloor;
use crate::machine;
use crate::measure::{Feed, Pass, Receive, Rounds, Traffic as _};
use crate::traffic::{Clients, Shape};
use crate::world::{self, World};

/// What is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection, by a SYN with MP_CAPABLE: Maglev, a flow.
    CapableSyn,
    /// A subflow of a known connection: its token is looked up, a flow made.
    Join,
    /// A subflow of a connection that nobody knows: a flood.
    JoinUnknown,
    /// The third ACK of a connection that a SYN has opened: SHA-256, a token.
    ThirdAck,
}

impl Kind {
    /// What its figure is called.
    pub const fn case(self) -> &'static str {
        match self {
            Self::CapableSyn => "capable_syn",
            Self::Join => "join_known",
            Self::JoinUnknown => "join_unknown",
            Self::ThirdAck => "third_ack",
        }
    }

    const fn shape(self) -> Shape {
        match self {
            Self::CapableSyn => Shape::CapableSyn,
            Self::Join | Self::JoinUnknown => Shape::JoinSyn,
            Self::ThirdAck => Shape::CapableAck,
        }
    }
}

/// Tables, and clients that come to them.
#[derive(Debug)]
pub struct Openings {
    kind: Kind,
    world: World,
    worker: Worker,
    floor: OpeningFloor,
    feed: Feed,
    opening: Opening,
    /// Before a third ACK.
    syn: Opening,
    /// The first client that has not come yet.
    next: u64,
    /// Clients of a part.
    part: u32,
    /// Parts of a round.
    parts: u32,
    /// Tokens learned since others were taken out, and how many may be.
    learned: u32,
    most_learned: u32,
    homeless: u64,
    counts: [u64; 2],
    /// Verdicts of the measured rounds.
    pub reasons: Reasons,
}

/// The figures of one kind.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Nanoseconds a packet beyond receiving it.
    pub rounds: Rounds,
    /// Those of the floor, in the same rounds on the same frames.
    pub floor: Rounds,
    /// All passes.
    pub total: Pass,
}

impl Openings {
    /// Fills the tables.
    ///
    /// # Errors
    /// The configuration is refused.
    pub fn new(kind: Kind, options: &Options) -> anyhow::Result<Self> {
        let flows = options.flows.max(10_240);
        let count = options.tokens.unwrap_or(options.flows).max(1024);
        let config = world::standard(flows as usize, count as usize)?;
        let clients =
            Clients { service: world::service(&config, options.family.family())?, seed: options.seed };
        let world = World::new(&config)?;
        let part = flows / 10;
        let kept = flows - part;
        let (most_learned, tokens) = match kind {
            // One in twenty more is within the load of the figure.
            Kind::ThirdAck => ((count / 20).max(part), count - (count / 20).max(part).min(count)),
            _ => (u32::MAX, count),
        };
        let tick = if kind == Kind::ThirdAck { fill::tick_of_kept(&world) } else { world.now };
        let homeless = fill::flows(&world, &clients, kept) + fill::tokens(&world, tokens, options.seed, tick);
        let opening = match kind {
            Kind::Join => Opening::new(clients, kind.shape()).joining(0..count),
            Kind::JoinUnknown => Opening::new(clients, kind.shape()).joining(count..u32::MAX),
            _ => Opening::new(clients, kind.shape()),
        };
        let packets = options.packets.unwrap_or(1_000_000);
        let floor = OpeningFloor::new(
            world.flow_lines,
            engine::token_table::TokenTable::lines_for(count as usize),
            options.family.family(),
        );
        let floor = match kind {
            Kind::CapableSyn => floor,
            Kind::Join => floor.of_joins(true),
            Kind::JoinUnknown => floor.of_joins(false),
            Kind::ThirdAck => floor.of_keys(),
        };
        Ok(Self {
            kind,
            world,
            worker: Worker::default(),
            floor,
            feed: Feed::copied(usize::from(options.burst)),
            opening,
            syn: Opening::new(clients, Shape::CapableSyn),
            next: u64::from(kept),
            part,
            parts: packets.div_ceil(part),
            learned: 0,
            most_learned,
            homeless,
            counts: [u64::from(kept), u64::from(tokens)],
            reasons: Reasons::default(),
        })
    }

    /// Flows and tokens before a part.
    pub const fn counts(&self) -> [u64; 2] {
        self.counts
    }

    /// Flows and tokens in the tables now.
    pub fn entries(&self) -> [u64; 2] {
        [path::flows(&self.world), path::tokens(&self.world)]
    }

    /// What pages the tables lie on.
    pub fn pages(&self) -> &'static str {
        machine::table_pages(self.world.bytes)
    }

    /// What else belongs to the figure.
    pub fn extra(&self, total: &Pass) -> Map<String, Value> {
        let mut extra = self.reasons.extra();
        extra.insert("pages".to_owned(), json!(self.pages()));
        extra.insert("allocations".to_owned(), json!(total.allocations));
        extra.insert("homeless".to_owned(), json!(self.homeless));
        extra.insert("tokens_learned".to_owned(), json!(self.worker.reader().counter(Counter::TokenLearned)));
        extra
    }

    /// All rounds, after one that does not count.
    pub fn measure(&mut self, rounds: u32) -> Opened {
        let mut opened =
            Opened { rounds: Rounds::default(), floor: Rounds::default(), total: Pass::default() };
        let progress = progress(u64::from(rounds) + 1, self.kind.case());
        for round in 0..=rounds {
            let [mut receive, mut floor, mut engine] = [Pass::default(); 3];
            for _ in 0..self.parts {
                let part = self.part();
                receive = receive.and(part[0]);
                floor = floor.and(part[1]);
                engine = engine.and(part[2]);
            }
            progress.inc(1);
            if round == 0 {
                self.reasons = Reasons::default();
                continue;
            }
            opened.rounds.push(net(&engine, &receive));
            opened.floor.push(net(&floor, &receive));
            opened.total = opened.total.and(engine);
        }
        progress.finish_and_clear();
        opened
    }

    /// One part: received; received and sent through the floor; received and judged.
    fn part(&mut self) -> [Pass; 3] {
        let packets = self.part as usize;
        if self.kind == Kind::ThirdAck {
            self.syn.begin(self.next);
            self.feed.pass(&mut self.syn, &mut self.worker.path(&self.world), packets);
        }
        self.opening.begin(self.next);
        let receive = self.feed.pass(&mut self.opening, &mut Receive, packets);
        self.opening.begin(self.next);
        let floor = self.feed.pass(&mut self.opening, &mut self.floor, packets);
        self.opening.begin(self.next);
        let reader = self.worker.reader();
        let before = Reasons::of(&reader);
        let engine = self.feed.pass(&mut self.opening, &mut self.worker.path(&self.world), packets);
        self.reasons.add(&Reasons::of(&reader).since(&before));
        self.next += u64::from(self.part);
        self.restore();
        [receive, floor, engine]
    }

    /// The tables as before.
    fn restore(&mut self) {
        fill::forget_opened(&self.world);
        match self.kind {
            Kind::ThirdAck => {
                self.learned += self.part;
                if self.learned >= self.most_learned {
                    fill::forget_learned(&self.world);
                    self.learned = 0;
                }
            }
            Kind::Join | Kind::JoinUnknown => self.world.now = self.world.now.after(1),
            Kind::CapableSyn => {}
        }
    }
}
