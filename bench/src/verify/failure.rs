//! What did not hold: which packet, when, what was expected and what was found.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::outer::Wrong;

/// Failures that are kept with all they say; of the others only the number is.
const KEPT: usize = 10_000;

/// One failure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// Whether the packet is one of the output; else of the input.
    pub output: bool,
    /// The packet's number in its capture, from 1 as capture tools count; 0 for the whole.
    pub packet: u64,
    /// Its time there, in seconds since the epoch.
    pub time: f64,
    /// What is wrong.
    pub what: &'static str,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Which packet it is, in words.
    pub about: String,
}

/// Where a failure was found.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The packet's number in the output.
    pub packet: u64,
    /// Its time.
    pub time: Duration,
}

/// All failures.
#[derive(Debug, Default)]
pub struct Failures {
    kept: Vec<Failure>,
    counts: BTreeMap<&'static str, u64>,
    total: u64,
}

impl Failures {
    /// Notes a failure of a packet of the output.
    pub fn add(&mut self, at: At, wrong: Wrong, about: impl FnOnce() -> String) {
        let Wrong { what, expected, found } = wrong;
        let time = at.time.as_secs_f64();
        self.note(what, || Failure {
            output: true,
            packet: at.packet,
            time,
            what,
            expected,
            found,
            about: about(),
        });
    }

    /// Notes a failure of any kind.
    pub fn note(&mut self, what: &'static str, failure: impl FnOnce() -> Failure) {
        self.total += 1;
        *self.counts.entry(what).or_default() += 1;
        if self.kept.len() < KEPT {
            self.kept.push(failure());
        }
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many of each kind.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// The first of them in the order of the captures: of the output, then of the input, then of the whole.
    pub fn first(mut self, most: usize) -> Vec<Failure> {
        self.kept.sort_by_key(|failure| (failure.packet == 0, !failure.output, failure.packet));
        self.kept.truncate(most);
        self.kept
    }
}
