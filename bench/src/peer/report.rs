//! What a run of the simulator found, as people and programs read it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::client::Client;
use super::host::Tally;
use super::plan::Outcome;

/// What the balancer between the two sides did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balancer {
    /// Packets it got.
    pub received: u64,
    /// Packets it sent.
    pub sent: u64,
    /// Packets of clients and servers that the run lost on purpose.
    pub lost: u64,
    /// How often its tables were emptied.
    pub restarts: u64,
    /// Packets by the reason of their verdict.
    pub reasons: BTreeMap<String, u64>,
    /// What else it counted, where it is not zero.
    pub counters: BTreeMap<String, u64>,
}

/// The client's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClientSide {
    /// What became of its connections.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What it has seen.
    pub seen: Tally,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Every connection was MPTCP, all data arrived, every join succeeded and no proof was wrong.
    pub passed: bool,
    /// The balancer's, where it ran in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balancer: Option<Balancer>,
    /// The client's side, where there was one here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientSide>,
    /// The servers, where there were some here, by name.
    pub servers: BTreeMap<String, Tally>,
    /// All servers together.
    pub all_servers: Tally,
}

impl Report {
    /// Of what ran here.
    pub fn new(
        balancer: Option<Balancer>,
        client: Option<&Client>,
        servers: BTreeMap<String, Tally>,
    ) -> Self {
        let mut all_servers = Tally::default();
        servers.values().for_each(|tally| all_servers.add(tally));
        let client =
            client.map(|client| ClientSide { outcome: client.outcome(), seen: client.tally().clone() });
        let proofs = |tally: &Tally| {
            let numbers = tally.given_wrong + tally.numbered_wrong;
            let said = tally.wrong_hmac + tally.wrong_echo + tally.wrong_checksum + tally.wrong_fastclose;
            said + tally.damaged + numbers == 0
        };
        let passed = proofs(&all_servers)
            && all_servers.unknown_tokens.is_empty()
            && client.as_ref().is_none_or(|client| {
                let outcome = &client.outcome;
                let all = [outcome.mptcp, outcome.whole].iter().all(|count| *count == outcome.asked);
                all && outcome.joined == outcome.joins && outcome.broken == 0 && proofs(&client.seen)
            });
        Self { passed, balancer, client, servers, all_servers }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ClientSide { outcome, seen }) = &self.client {
            writeln!(
                f,
                "client: {} connections asked for, {} MPTCP, {} with all data there and back",
                outcome.asked, outcome.mptcp, outcome.whole
            )?;
            writeln!(
                f,
                "        {} joins: {} joined, {} refused, {} unanswered, {} not decided, {} wrong HMAC, \
                 {} without MPTCP, {} broken later",
                outcome.joins,
                outcome.joined,
                outcome.refused,
                outcome.lost,
                outcome.pending,
                outcome.wrong_hmac,
                outcome.no_mptcp,
                outcome.broken
            )?;
            writeln!(f, "        {} segments sent again, {} resets received", seen.again, seen.resets)?;
        }
        if let Some(balancer) = &self.balancer {
            let reasons: Vec<String> =
                balancer.reasons.iter().map(|(name, count)| format!("{name} {count}")).collect();
            writeln!(
                f,
                "Weft:   {} packets in, {} out: {}",
                balancer.received,
                balancer.sent,
                reasons.join(", ")
            )?;
            let counter = |name| balancer.counters.get(name).copied().unwrap_or(0);
            writeln!(
                f,
                "        {} flow entries made, {} tokens learned, {} times with empty tables; {} packets lost on purpose",
                counter("flow_inserted"),
                counter("token_learned"),
                balancer.restarts,
                balancer.lost
            )?;
        }
        for (name, tally) in &self.servers {
            writeln!(
                f,
                "{name}: {} connections, {} plain, {} joined, {} unknown tokens, {} wrong HMACs, {} stray segments",
                tally.connections,
                tally.plain,
                tally.joined,
                tally.unknown_tokens.len(),
                tally.wrong_hmac,
                tally.stray
            )?;
            if tally.given + tally.numbered + tally.numbered_wrong + tally.given_wrong > 0 {
                writeln!(
                    f,
                    "    {} keys given, {} given again, {} wrong; {} timestamps named this server, {} another",
                    tally.given, tally.given_again, tally.given_wrong, tally.numbered, tally.numbered_wrong
                )?;
            }
            for unknown in &tally.unknown_tokens {
                writeln!(
                    f,
                    "    a join from {} named {}, which no connection here has",
                    unknown.from, unknown.token
                )?;
            }
        }
        write!(f, "{}", if self.passed { "PASS" } else { "FAIL" })
    }
}
