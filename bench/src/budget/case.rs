//! Fixed traffic for counting: a few thousand packets of one kind, each sent once, in frames that lie ready, so that
//! what is counted is the engine and nothing of what feeds it.

use std::io::Write as _;

use anyhow::bail;
use clap::{Args, ValueEnum};
use ipc::limits::BURST;
use ipc::reason::Reason;
use packet::{Family, Token, Version};

use crate::alloc;
use crate::arena::{Buffer, Burst, HEADROOM, Held, Place, buffers};
use crate::engine_bench::{EnginePath, Reasons, Worker};
use crate::measure::Path as _;
use crate::traffic::{Clients, Shape, Template, mix, shuffled, token};
use crate::world::{self, World};

/// Packets of a case.
pub const PACKETS: u32 = 8192;
/// Packets judged at once, as a worker does under load.
const JUDGED: usize = 32;
/// Clients that are not established begin here.
const OTHERS: u64 = 1 << 32;
/// Seed of the clients.
const SEED: u64 = 7;

/// What is written, to standard error and at once, before and after the part that counts: system calls in between are
/// counted by whoever traces.
pub const BEGIN: &str = "weft-bench count: begin\n";
/// The same, after.
pub const END: &str = "weft-bench count: end\n";

/// A kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Case {
    /// Established flows over IPv4, timestamps and DSS, in an IPIP tunnel.
    EstablishedV4,
    /// The same over IPv6.
    EstablishedV6,
    /// SYNs with MP_CAPABLE of new flows.
    CapableSyn,
    /// Third ACKs: a token is learned by each.
    ThirdAck,
    /// SYNs with MP_JOIN of known tokens, new flows.
    Join,
    /// SYNs with MP_JOIN of unknown tokens.
    UnknownJoin,
}

impl Case {
    /// Its name on the command line and in the budget.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    const fn family(self) -> Family {
        if matches!(self, Self::EstablishedV6) { Family::V6 } else { Family::V4 }
    }

    /// What the engine must say of every packet, or the case is not what its name says.
    const fn reason(self) -> Reason {
        match self {
            Self::EstablishedV4 | Self::EstablishedV6 | Self::ThirdAck => Reason::Flow,
            Self::CapableSyn => Reason::Hash,
            Self::Join => Reason::Token,
            Self::UnknownJoin => Reason::UnknownToken,
        }
    }
}

/// What `count` is told.
#[derive(Clone, Copy, Debug, Args)]
pub struct Count {
    /// The kind of packets.
    #[arg(value_enum)]
    pub case: Case,
    /// How many of them are judged; all are made, so that runs of different lengths differ by nothing else.
    #[arg(long, default_value_t = PACKETS, value_parser = clap::value_parser!(u32).range(1..=i64::from(PACKETS)))]
    pub packets: u32,
}

impl Count {
    /// Judges the packets and prints how many allocations that took.
    ///
    /// # Errors
    /// The engine did something else with them than the case is named for.
    pub fn run(&self) -> anyhow::Result<()> {
        let mut prepared = Prepared::new(self.case)?;
        let before = Reasons::of(&prepared.worker.reader());
        let allocated = alloc::count();
        // Standard error is not buffered: each is one system call, which a trace shows.
        std::io::stderr().write_all(BEGIN.as_bytes())?;
        prepared.judge(self.packets as usize);
        std::io::stderr().write_all(END.as_bytes())?;
        let allocations = alloc::count() - allocated;
        let reasons = Reasons::of(&prepared.worker.reader()).since(&before);
        // Honest collisions of tokens and full lines happen; more than one in a hundred is another case.
        let said = reasons.get(self.case.reason());
        if said < u64::from(self.packets) * 99 / 100 {
            bail!(
                "{} of {} packets are {}: {:?}",
                said,
                self.packets,
                self.case.reason(),
                reasons.occurred()
            );
        }
        println!("{allocations}");
        Ok(())
    }
}

/// A case, ready to be judged.
#[derive(Debug)]
pub struct Prepared {
    world: World,
    worker: Worker,
    memory: Box<[Buffer]>,
    places: Vec<Place>,
}

impl Prepared {
    /// Makes the packets, and what the engine must know before it meets them.
    ///
    /// # Errors
    /// The engine refuses the bench's own configuration.
    pub fn new(case: Case) -> anyhow::Result<Self> {
        let room = 8 * PACKETS as usize;
        let config = world::standard(room, room)?;
        let service = world::service(&config, case.family())?;
        let (world, clients) = (World::new(&config)?, Clients { service, seed: SEED });
        let mut prepared = Self {
            world,
            worker: Worker::default(),
            memory: buffers(PACKETS as usize),
            places: Vec::with_capacity(PACKETS as usize),
        };
        let established = || (0..u64::from(PACKETS)).map(|number| (number, Token(0)));
        for shape in [Shape::CapableSyn, Shape::CapableAck, Shape::DataAck] {
            prepared.fill(&clients, &[shape], established());
            prepared.judge(PACKETS as usize);
        }
        let others = || (0..u64::from(PACKETS)).map(|number| OTHERS + number);
        match case {
            Case::EstablishedV4 | Case::EstablishedV6 => {
                let order = shuffled(PACKETS, SEED);
                let packets = order.into_iter().map(|number| (u64::from(number), Token(0)));
                prepared.fill(&clients, &Shape::DSS, packets);
            }
            Case::CapableSyn => {
                prepared.fill(&clients, &[Shape::CapableSyn], others().map(|number| (number, Token(0))));
            }
            Case::ThirdAck => {
                prepared.fill(&clients, &[Shape::CapableSyn], others().map(|number| (number, Token(0))));
                prepared.judge(PACKETS as usize);
                prepared.fill(&clients, &[Shape::CapableAck], others().map(|number| (number, Token(0))));
            }
            Case::Join => {
                let order = shuffled(PACKETS, SEED);
                let known = order.into_iter().map(|number| {
                    let key = clients.get(u64::from(number)).key;
                    (OTHERS + u64::from(number), Token::from_key(Version::V1, &key))
                });
                prepared.fill(&clients, &[Shape::JoinSyn], known);
            }
            Case::UnknownJoin => {
                let unknown = (0..PACKETS).map(|number| (OTHERS + u64::from(number), token(number, 99)));
                prepared.fill(&clients, &[Shape::JoinSyn], unknown);
            }
        }
        Ok(prepared)
    }

    /// Lays a packet of each of these clients ready, of these shapes by chance; the token is a join's.
    fn fill(&mut self, clients: &Clients, shapes: &[Shape], packets: impl Iterator<Item = (u64, Token)>) {
        let templates: Vec<Template> =
            shapes.iter().map(|shape| Template::new(*shape, &clients.service)).collect();
        self.places.clear();
        let mut held = Held::default();
        for ((buffer, memory), (number, token)) in (0..).zip(&mut self.memory).zip(packets) {
            let drawn = u128::from(mix(number)) * templates.len() as u128;
            let kind = usize::try_from(drawn >> 64).unwrap_or(0);
            let Some(template) = templates.get(kind) else { continue };
            let len = template.write(&clients.get(number), token, &mut held);
            for (to, from) in memory.0.iter_mut().skip(HEADROOM).zip(&held.0) {
                *to = *from;
            }
            self.places.push(Place::received(buffer, len));
        }
    }

    /// Judges the first packets.
    pub fn judge(&mut self, packets: usize) {
        let places = self.places.get(..packets).unwrap_or(&self.places);
        let mut burst = Burst::new(&mut self.memory);
        run(&mut self.worker.path(&self.world), &mut burst, places);
    }
}

const _: () = assert!(JUDGED <= BURST);

/// The part that counts.
#[inline(never)]
fn run(path: &mut EnginePath<'_>, burst: &mut Burst<'_>, places: &[Place]) {
    for places in places.chunks(JUDGED) {
        burst.take(places);
        path.burst(burst);
    }
}
