//! The engine as a path that is measured: the pipeline, called as a worker calls it.

use engine::flow_table::Keep;
use engine::pipeline::{Context, Pipeline};
use ipc::counters::{CounterReader, WorkerCounters};
use ipc::reason::Reason;
use serde_json::{Map, Value, json};

use crate::arena::Burst;
use crate::measure::Path;
use crate::world::World;

/// One worker's own: its pipeline and its counters.
#[derive(Debug)]
pub struct Worker {
    pipeline: Box<Pipeline>,
    counters: WorkerCounters,
}

impl Default for Worker {
    fn default() -> Self {
        Self { pipeline: Box::default(), counters: WorkerCounters::heap() }
    }
}

impl Worker {
    /// The path of this worker's packets.
    pub fn path<'a>(&'a mut self, world: &'a World) -> EnginePath<'a> {
        EnginePath { pipeline: &mut self.pipeline, cx: world.context(&self.counters) }
    }

    /// A reader of what it counted.
    pub fn reader(&self) -> CounterReader {
        self.counters.reader()
    }
}

/// The engine.
#[derive(Debug)]
pub struct EnginePath<'a> {
    pipeline: &'a mut Pipeline,
    cx: Context<'a>,
}

impl Path for EnginePath<'_> {
    #[inline]
    fn burst(&mut self, frames: &mut Burst<'_>) {
        // What a worker reads before it sends.
        let judged = self.pipeline.process(frames, &self.cx);
        core::hint::black_box((judged.leaving(), judged.punted()));
    }
}

/// Verdicts by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reasons(Vec<(Reason, u64)>);

impl Reasons {
    /// As a worker has counted them until now.
    pub fn of(reader: &CounterReader) -> Self {
        Self(Reason::ALL.iter().map(|reason| (*reason, reader.reason(*reason))).collect())
    }

    /// Those that came since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let pairs = self.0.iter().zip(&before.0);
        Self(pairs.map(|((reason, now), (_, then))| (*reason, now - then)).collect())
    }

    /// And others.
    pub fn add(&mut self, other: &Self) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return;
        }
        for ((_, sum), (_, more)) in self.0.iter_mut().zip(&other.0) {
            *sum += more;
        }
    }

    /// How many there were for a reason.
    pub fn get(&self, reason: Reason) -> u64 {
        self.0.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| *count)
    }

    /// As what else belongs to a figure.
    pub fn extra(&self) -> Map<String, Value> {
        let counts =
            self.occurred().into_iter().map(|(reason, count)| (reason.name().to_owned(), json!(count)));
        let mut extra = Map::new();
        extra.insert("reasons".to_owned(), Value::Object(counts.collect()));
        extra
    }

    /// Those that occurred, the most frequent first.
    pub fn occurred(&self) -> Vec<(Reason, u64)> {
        let mut some: Vec<_> = self.0.iter().copied().filter(|(_, count)| *count > 0).collect();
        some.sort_by_key(|(_, count)| core::cmp::Reverse(*count));
        some
    }
}

/// Entries in the flow table.
///
/// A sweep brings entries home on its way and may meet one twice by that; the next one finds them there.
pub fn flows(world: &World) -> u64 {
    let count = || {
        let mut count = 0;
        world.tables.flows.sweep(0, world.tables.flows.lines(), |_| {
            count += 1;
            Keep::Yes
        });
        count
    };
    let mut last = count();
    for _ in 0..4 {
        let again = count();
        if again == last {
            break;
        }
        last = again;
    }
    last
}

/// Entries in the token table.
pub fn tokens(world: &World) -> u64 {
    let mut count = 0;
    world.tables.tokens.for_each(0, world.tables.tokens.lines(), |_| count += 1);
    count
}
