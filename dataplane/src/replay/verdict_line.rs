//! One line of `--verdicts`: what became of one packet, as JSON.

use engine::snapshot::Snapshot;
use engine::verdict::Verdict;
use serde::Serialize;

/// The line. Field order is part of what users see.
#[derive(Debug, Serialize)]
pub struct VerdictLine<'a> {
    /// The packet's place in the capture, from 1.
    pub packet: u64,
    verdict: &'static str,
    reason: &'static str,
    vip: Option<&'a str>,
    backend: Option<&'a str>,
    token: Option<String>,
    learned: bool,
}

impl<'a> VerdictLine<'a> {
    /// The line of a verdict, with names from the snapshot it was reached by.
    pub fn new(packet: u64, verdict: &Verdict, snapshot: &'a Snapshot) -> Self {
        Self {
            packet,
            verdict: verdict.action.name(),
            reason: verdict.reason.name(),
            vip: verdict.vip.and_then(|id| snapshot.vip(id)).map(|vip| vip.name.as_str()),
            backend: verdict.backend.and_then(|id| snapshot.backend(id)).map(|backend| backend.name.as_str()),
            token: verdict.token.map(|token| token.to_string()),
            learned: verdict.learned,
        }
    }
}
