//! What `verify` says: one form for people, one for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::failure::Failure;
use super::spread::{Share, Spread};

/// Everything `verify` found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Whether everything held.
    pub verified: bool,
    /// Packets that went in.
    pub packets_in: u64,
    /// Packets that came out, answers and all.
    pub packets_out: u64,
    /// Those of them that are answers.
    pub answers: u64,
    /// Flows that went in.
    pub flows: u64,
    /// Tokens that third ACKs taught.
    pub connections: u64,
    /// Subflows that were held to the backend of their connection.
    pub joins: u64,
    /// Packets that came out after a later one of their flow.
    pub reordered: u64,
    /// What did not come out, and why that may be.
    pub absent: Vec<Absent>,
    /// How new connections were spread, by pool.
    pub spread: Vec<Spread>,
    /// How many failures there are.
    pub failures: u64,
    /// How many of each kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// The first of them.
    pub first: Vec<Failure>,
}

/// Packets of one kind that did not come out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Absent {
    /// What they are.
    pub what: &'static str,
    /// Whether they were lost: they should have come out.
    pub lost: bool,
    /// How many.
    pub packets: u64,
    /// The numbers of the first of them in the input.
    pub first: Vec<u64>,
}

impl Report {
    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{} packets in, {} out, {} of them answers; {} flows, {} tokens learned, {} joins held to their connection",
            self.packets_in, self.packets_out, self.answers, self.flows, self.connections, self.joins
        );
        if self.reordered > 0 {
            let _ = writeln!(text, "{} packets came out after a later one of their flow", self.reordered);
        }
        for absent in &self.absent {
            let numbers: Vec<String> = absent.first.iter().map(ToString::to_string).collect();
            let more = if absent.packets > absent.first.len() as u64 { ", ..." } else { "" };
            let _ = writeln!(
                text,
                "did not come out: {} {}: packets {}{more}",
                absent.packets,
                absent.what,
                numbers.join(", ")
            );
        }
        for spread in self.spread.iter().filter(|spread| spread.flows > 0) {
            spread_text(&mut text, spread);
        }
        for failure in &self.first {
            let _ = writeln!(text, "{failure}");
        }
        if self.failures > self.first.len() as u64 {
            let _ = writeln!(
                text,
                "and {} more; --show says how many to print",
                self.failures - self.first.len() as u64
            );
        }
        for (what, count) in &self.kinds {
            let _ = writeln!(text, "{count:>10}  {what}");
        }
        let _ = writeln!(text, "{}", if self.verified { "verified" } else { "NOT VERIFIED" });
        text
    }
}

/// Backends of a pool that are printed; the rest stands in the JSON.
const MAX_BACKENDS: usize = 12;

fn spread_text(text: &mut String, spread: &Spread) {
    let _ = writeln!(
        text,
        "pool {}: {} flows by weight on {} backends, chi-square {:.1} at {} degrees of freedom",
        spread.pool,
        spread.flows,
        spread.backends.len(),
        spread.chi_square,
        spread.degrees
    );
    let mut shares: Vec<&Share> = spread.backends.iter().collect();
    if shares.len() > MAX_BACKENDS {
        shares.sort_by(|a, b| off(b).total_cmp(&off(a)));
        let _ = writeln!(text, "  the {MAX_BACKENDS} that are furthest from their weight:");
    }
    for share in shares.into_iter().take(MAX_BACKENDS) {
        let _ = writeln!(
            text,
            "  {:<16} weight {:>5}  flows {:>9}, expected {:>11.1} +-{:.1}  packets {:>10}",
            share.backend, share.weight, share.flows, share.expected, share.bound, share.packets
        );
    }
}

/// How far a backend is from its weight, in bounds.
#[expect(clippy::cast_precision_loss, reason = "counts of packets are far below 2^52")]
fn off(share: &Share) -> f64 {
    (share.flows as f64 - share.expected).abs() / share.bound.max(1.0)
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { packet, time, what, expected, found, about, .. } = self;
        match (*packet, self.output) {
            (0, _) => write!(f, "{what}: expected {expected}, found {found}")?,
            (_, true) => write!(
                f,
                "packet {packet} of the output ({time:.6} s): {what}: expected {expected}, found {found}"
            )?,
            (_, false) => {
                write!(f, "packet {packet} of the input: {what}: expected {expected}, found {found}")?
            }
        }
        if about.is_empty() { Ok(()) } else { write!(f, " [{about}]") }
    }
}
