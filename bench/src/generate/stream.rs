//! The packets of a plan, one after the other.

use std::time::Duration;

use super::frame::Buffer;
use super::kind::Kind;
use super::plan::{Checked, Part, Plan};
use super::progress::{At, Progress};
use super::random::{Permutation, Purpose, low32, number};
use super::script::{Flavour, Run, Step, Turn};
use super::segment::Sender;
use super::size::CarrierKind;

/// Connections that are under way at once, from opening to closing.
const WAVE: u64 = 4096;
/// When files begin: 2026-01-01, 00:00 UTC.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// One packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Since the epoch.
    pub time: Duration,
    /// What it is.
    pub kind: Kind,
    /// The number of its connection.
    pub connection: u64,
    /// The frame, without frame check sequence.
    pub bytes: &'a [u8],
}

/// The packets of a plan. What is kept from one to the next is a place; each is made from the plan alone.
#[derive(Debug)]
pub struct Stream {
    checked: Checked,
    order: Order,
    written: u64,
    out: Buffer,
}

impl Stream {
    /// The packets of this plan.
    ///
    /// # Errors
    /// The plan contradicts itself, in a sentence that says what to change.
    pub fn new(plan: Plan) -> anyhow::Result<Self> {
        let out = Buffer::new(plan.link);
        let checked = Checked::new(plan)?;
        let order = Order::new(&checked);
        Ok(Self { checked, order, written: 0, out })
    }

    /// Packets in all.
    pub fn packets(&self) -> u64 {
        self.checked.packets
    }

    /// The next packet.
    #[expect(
        clippy::should_implement_trait,
        reason = "each packet borrows the stream's buffer: no Iterator can"
    )]
    pub fn next(&mut self) -> Option<Packet<'_>> {
        if self.written >= self.checked.packets {
            return None;
        }
        loop {
            let (index, at) = self.order.next()?;
            let flavour = self.checked.flavour(index);
            let nanos = u128::from(self.checked.packets_before + self.written) * 1_000_000_000
                / u128::from(self.checked.plan.rate);
            let passed = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            if let Some(kind) = write(&self.checked, &mut self.out, index, flavour, at, passed) {
                self.written += 1;
                return Some(Packet {
                    time: EPOCH + passed,
                    kind,
                    connection: index,
                    bytes: self.out.frame(),
                });
            }
        }
    }
}

/// Writes the packet at this place of a connection's script, if there is one.
fn write(
    checked: &Checked,
    out: &mut Buffer,
    index: u64,
    flavour: Flavour,
    at: At,
    passed: Duration,
) -> Option<Kind> {
    let script = flavour.script();
    // Below any overflow of a sum with rounds.
    let phase = number(checked.plan.seed, Purpose::Phase, index) % 12;
    let (path, what) = match at {
        At::Open(place) => script.open.get(place).map(|(path, step)| (*path, What::Step(*step)))?,
        At::Close(place) => script.close.get(place).map(|(path, step)| (*path, What::Step(*step)))?,
        At::Run(_) if !script.runs() => return None,
        At::Run(round) => match script.turn(phase, round) {
            Turn::Data { path, round } => (path, What::Run(round)),
            Turn::Error { path } => (path, What::Error(round)),
        },
    };
    let connection = checked.connection(index, flavour);
    let kind = match flavour {
        Flavour::Udp => CarrierKind::Udp,
        _ if flavour.is_mptcp() => CarrierKind::Mptcp(connection.version),
        _ => CarrierKind::Plain,
    };
    let sizes = checked.size(kind, connection.family);
    let (tuple, place) = match (script.run, what) {
        (Run::Joins, What::Run(round)) => {
            let tuple = index + round * checked.plan.connections;
            (tuple, connection.path(1, tuple))
        }
        (Run::Syns | Run::CapableSyns | Run::UnknownSyns, What::Run(round)) => {
            let tuple = index + round * checked.plan.connections;
            (tuple, connection.stranger(tuple))
        }
        _ => (index, connection.path(path, index)),
    };
    let progress = Progress::at(flavour, at, checked.rounds, sizes, phase);
    // Timestamps wrap, as a host's do.
    let millis = low32(u64::try_from(passed.as_millis()).unwrap_or_default());
    let sender =
        Sender { connection: &connection, flavour, path, tuple, place, progress, sizes, phase, millis };
    Some(match what {
        What::Step(step) => sender.step(step, out),
        What::Run(round) => run(&sender, script.run, round, out),
        What::Error(round) => sender.error(round, out),
    })
}

/// What a connection sends.
#[derive(Clone, Copy)]
enum What {
    Step(Step),
    /// In this round of its data.
    Run(u64),
    /// In this round of all.
    Error(u64),
}

/// Writes a packet of the running part.
fn run(sender: &Sender<'_>, run: Run, round: u64, out: &mut Buffer) -> Kind {
    match run {
        Run::Nothing | Run::Data | Run::DataAndErrors => sender.data(round, out),
        Run::Joins => sender.step(Step::JoinSyn { early: false }, out),
        Run::ThirdAck => sender.step(Step::CapableAck, out),
        Run::Datagrams => sender.datagram(round, out),
        Run::Syns => sender.step(Step::Syn, out),
        Run::CapableSyns => sender.step(Step::CapableSyn, out),
        Run::UnknownSyns => sender.step(Step::UnknownSyn, out),
    }
}

/// Which connection sends next, and what: in a wave of connections every one takes its first step, in an order that
/// looks random, then every one its second in another order, and so on.
#[derive(Debug)]
struct Order {
    connections: u64,
    part: Part,
    seed: u64,
    /// Connections of a wave.
    wave: u64,
    /// Steps of a wave: opening, running, closing.
    steps: (u64, u64, u64),
    first: u64,
    step: u64,
    place: u64,
    permutation: Permutation,
}

impl Order {
    fn new(checked: &Checked) -> Self {
        let Plan { connections, part, seed, .. } = checked.plan;
        let (open, close) = checked.longest;
        let steps = match part {
            Part::All => (open, checked.rounds, close),
            Part::Warm => (open, 0, 0),
            Part::Steady => (0, checked.rounds, 0),
        };
        let wave = if part == Part::Steady { connections } else { WAVE };
        let permutation = Permutation::new(1, 0);
        let mut order =
            Self { connections, part, seed, wave, steps, first: 0, step: 0, place: 0, permutation };
        order.shuffle();
        order
    }

    fn shuffle(&mut self) {
        let len = self.wave.min(self.connections - self.first);
        let key = number(self.seed, Purpose::Order, self.first.wrapping_mul(0x1_0000_0001) ^ self.step << 40);
        self.permutation = Permutation::new(len, key ^ self.part as u64);
    }

    fn next(&mut self) -> Option<(u64, At)> {
        let (open, run, close) = self.steps;
        if self.place >= self.wave.min(self.connections - self.first) {
            self.place = 0;
            self.step += 1;
            if self.step >= open + run + close {
                self.step = 0;
                self.first += self.wave;
                if self.first >= self.connections {
                    self.first = self.connections;
                    return None;
                }
            }
            self.shuffle();
        }
        let index = self.first + self.permutation.at(self.place);
        self.place += 1;
        let at = match self.step {
            step if step < open => At::Open(usize::try_from(step).ok()?),
            step if step < open + run => At::Run(step - open),
            step => At::Close(usize::try_from(step - open - run).ok()?),
        };
        Some((index, at))
    }
}
