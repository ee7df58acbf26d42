//! What the data plane counted a while ago, so that what happens now can be told from what happened once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ipc::counter::Counter;
use ipc::counters::{CounterReader, GaugeReader, PortGauge};
use ipc::reason::Reason;

/// Pause between two samples.
const EVERY: Duration = Duration::from_secs(10);
/// How far back the oldest sample lies once there are enough.
const SPAN: Duration = Duration::from_secs(60);

/// What was counted at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    taken: Instant,
    counters: Vec<u64>,
    reasons: Vec<u64>,
    ports: Vec<Vec<u64>>,
}

impl Sample {
    /// What is counted now.
    pub fn new(counters: &CounterReader, gauges: Option<&GaugeReader>) -> Self {
        let of_port = |gauges: &GaugeReader| -> Vec<Vec<u64>> {
            let values = |port| PortGauge::ALL.iter().map(|gauge| gauges.port(port, *gauge)).collect();
            gauges.ports().map(values).collect()
        };
        Self {
            taken: Instant::now(),
            counters: Counter::ALL.iter().map(|counter| counters.counter(*counter)).collect(),
            reasons: Reason::ALL.iter().map(|reason| counters.reason(*reason)).collect(),
            ports: gauges.map(of_port).unwrap_or_default(),
        }
    }

    /// How long ago it was taken.
    pub fn age(&self) -> Duration {
        self.taken.elapsed()
    }

    /// How much a counter grew from `before` to this sample.
    pub fn grown(&self, before: &Sample, counter: Counter) -> u64 {
        let value = |sample: &Sample| sample.counters.get(counter.index()).copied().unwrap_or_default();
        value(self).saturating_sub(value(before))
    }

    /// How many more packets had a reason.
    pub fn reason_grown(&self, before: &Sample, reason: Reason) -> u64 {
        let value = |sample: &Sample| sample.reasons.get(reason.index()).copied().unwrap_or_default();
        value(self).saturating_sub(value(before))
    }

    /// How much what a port counts grew.
    pub fn port_grown(&self, before: &Sample, port: usize, gauge: PortGauge) -> u64 {
        let value = |sample: &Sample| {
            sample.ports.get(port).and_then(|port| port.get(gauge.index())).copied().unwrap_or_default()
        };
        value(self).saturating_sub(value(before))
    }
}

/// The samples of the last minute.
#[derive(Debug, Default)]
pub(crate) struct Samples(VecDeque<Sample>);

impl Samples {
    /// Takes one if it is time.
    pub fn take(&mut self, counters: CounterReader, gauges: Option<GaugeReader>) {
        if self.0.back().is_some_and(|last| last.age() < EVERY) {
            return;
        }
        self.0.push_back(Sample::new(&counters, gauges.as_ref()));
        // The oldest stays until the next is old enough to take its place.
        while self.0.get(1).is_some_and(|second| second.age() >= SPAN) {
            self.0.pop_front();
        }
    }

    pub fn oldest(&self) -> Option<Sample> {
        self.0.front().cloned()
    }

    /// Another data plane counts from zero.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
