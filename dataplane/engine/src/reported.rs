//! What agents on backends report, applied to the tables: by the manager, while workers forward.
//!
//! A report comes from a machine that may have been taken over. So each changes entries of its own backend only, with two
//! exceptions that are the point of having agents: a proven token outranks what was merely seen to be claimed by others,
//! and a flow nobody's handshake was seen for (adopted) goes where it lives. A flow that was opened here on another backend
//! is never taken from it, nor is a token that another agent proved first. How many reports a backend may make is the
//! control plane's to limit.
//!
//! A flow that is only reported ([`FlowState::Reported`]) becomes an established one with its first packet. Until then any
//! SYN takes its place, and so does whatever a SYN opens in a full table: a report reserves no 5-tuple and fills no table.

use ipc::id::{BackendId, PoolId};
use ipc::report::Subflow;
use packet::{Address, Family, Flow, Token};

use crate::flow_entry::{FlowEntry, FlowState};
use crate::flow_table::{Found, Inserted};
use crate::lifetimes::Room;
use crate::snapshot::Snapshot;
use crate::tables::Tables;
use crate::tick::Tick;
use crate::token_table::Proof;

/// The protocol number of TCP.
const TCP: u8 = 6;

/// How often a change starts again after a worker changed the flow meanwhile.
const ATTEMPTS: usize = 4;

/// What became of a flow that an agent said is established on its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// Its packets go to the backend from now on; before, they might not have.
    New,
    /// The same, and another flow's entry gave way.
    Over,
    /// They went there already, or Maglev sends them there.
    Known,
    /// It is for no service of the backend's pool, or was opened here on another backend.
    Refused,
    /// No place.
    Full,
}

/// The tables, as an agent's reports reach them.
#[derive(Clone, Copy, Debug)]
pub struct Reports<'a> {
    /// The tables.
    pub tables: &'a Tables,
    /// What workers go by.
    pub snapshot: &'a Snapshot,
    /// Now.
    pub now: Tick,
    /// The same time, in milliseconds.
    pub millis: u64,
    /// What tokens that live are marked with: when an agent tells all there is, the other mark says what it did not tell.
    pub round: bool,
}

impl Reports<'_> {
    /// Whether a backend is known.
    pub fn knows(&self, backend: BackendId) -> bool {
        self.snapshot.backend(backend).is_some()
    }

    /// The token's connection lives on the backend. `None` if that is not known.
    pub fn token_lives(&self, backend: BackendId, token: Token) -> Option<Proof> {
        let pool = self.snapshot.backend(backend)?.pool;
        let belongs = |other| self.snapshot.is_of_pool(other, pool);
        let hash = self.tables.token_hash(token, pool);
        Some(self.tables.tokens.prove(hash, token, backend, (self.now, self.round), belongs))
    }

    /// The token's connection is no more. Says whether the backend had claimed it.
    pub fn token_ended(&self, backend: BackendId, token: Token) -> bool {
        let Some(known) = self.snapshot.backend(backend) else { return false };
        let hash = self.tables.token_hash(token, known.pool);
        self.tables.tokens.withdraw_claim(hash, token, backend, self.now)
    }

    /// The subflow is established on the backend.
    ///
    /// A connection's first subflow that Maglev sends there anyway needs no entry. One that joined gets one always.
    pub fn subflow_lives(
        &self,
        backend: BackendId,
        token: Token,
        subflow: &Subflow,
        joined: bool,
    ) -> Installed {
        let flow = flow_of(subflow);
        let Some(pool) = self.pool_of(&flow).filter(|pool| self.snapshot.is_of_pool(backend, *pool)) else {
            return Installed::Refused;
        };
        let by_maglev = self.snapshot.choose(pool, self.snapshot.public_key().flow(&flow)) == Some(backend);
        let hash = self.tables.flow_hash(&flow);
        for _ in 0..ATTEMPTS {
            let live = self.tables.flows.find(hash).filter(|found| self.is_live(&found.entry));
            let Some(found) = live else {
                if by_maglev && !joined {
                    return Installed::Known;
                }
                match self.insert(hash, reported(backend, token, joined, self.now)) {
                    Some(installed) => return installed,
                    None => continue,
                }
            };
            let entry = found.entry;
            if entry.backend == backend && !is_raised(&entry, joined) {
                return Installed::Known;
            }
            if entry.backend != backend && entry.state != FlowState::Adopted {
                return Installed::Refused;
            }
            let raised = FlowEntry {
                isn_low: entry.isn_low,
                ..established(backend, token, joined, !by_maglev, self.now)
            };
            if self.tables.flows.update(&found, raised) {
                return if entry.backend == backend { Installed::Known } else { Installed::New };
            }
        }
        Installed::Full
    }

    /// The subflow has ended. Says whether it begins to close by that.
    pub fn subflow_ended(&self, backend: BackendId, subflow: &Subflow) -> bool {
        let hash = self.tables.flow_hash(&flow_of(subflow));
        for _ in 0..ATTEMPTS {
            let own = |found: &Found| found.entry.backend == backend && may_close(&found.entry);
            let Some(found) = self.tables.flows.find(hash).filter(own) else { return false };
            let entry = FlowEntry { tick: self.now, ..found.entry.ending() };
            if self.tables.flows.update(&found, entry) {
                return true;
            }
        }
        false
    }

    /// Enters a flow that has no entry; `None` if it has one by now.
    fn insert(&self, hash: u64, entry: FlowEntry) -> Option<Installed> {
        let unsure = |other: &FlowEntry| other.is_unsure(self.snapshot, self.now, self.millis);
        let room = Room { now: self.now, lifetimes: &self.tables.lifetimes, unsure };
        match self.tables.flows.insert(hash, entry, &room) {
            Inserted::New(_) => Some(Installed::New),
            Inserted::Over(..) => Some(Installed::Over),
            // One whose backend is not known any more is in the way: it is nobody's.
            Inserted::Existing(found) if !self.is_live(&found.entry) => {
                self.tables.flows.update(&found, entry).then_some(Installed::New)
            }
            Inserted::Existing(_) => None,
            Inserted::Full => Some(Installed::Full),
        }
    }

    /// Whether an entry counts: its backend is known and its idle time has not passed.
    fn is_live(&self, entry: &FlowEntry) -> bool {
        self.knows(entry.backend) && !self.tables.lifetimes.idle.is_expired(entry, self.now)
    }

    /// The pool of the VIP a flow is for.
    fn pool_of(&self, flow: &Flow) -> Option<PoolId> {
        Some(self.snapshot.vip(self.snapshot.service(flow)?)?.pool)
    }
}

/// The entry of a subflow of which no packet was seen: `moved` says that it is its connection's first, which has an entry
/// only where Maglev would send it elsewhere.
fn reported(backend: BackendId, token: Token, joined: bool, now: Tick) -> FlowEntry {
    FlowEntry { moved: !joined, ..FlowEntry::opened(FlowState::Reported, now, backend, 0, token.0) }
}

/// The entry of an established subflow. A first subflow's class does not go before it lasts: `moved` says that Maglev
/// would send it elsewhere.
fn established(backend: BackendId, token: Token, joined: bool, moved: bool, now: Tick) -> FlowEntry {
    let state = if joined { FlowState::Joined } else { FlowState::Mptcp };
    FlowEntry { moved: moved || joined, ..FlowEntry::opened(state, now, backend, 0, token.0) }
}

/// Whether an entry on the right backend learns something: what opened here and awaits its key goes on as it does, since
/// its own packets say more.
fn is_raised(entry: &FlowEntry, joined: bool) -> bool {
    match entry.state {
        FlowState::Adopted => true,
        FlowState::SynJoin => joined,
        // Until now only its own token said where it belongs.
        FlowState::Joined => joined && !entry.moved,
        _ => false,
    }
}

/// Whether a flow may begin to close by a report. UDP has no subflows.
fn may_close(entry: &FlowEntry) -> bool {
    !entry.state.is_closing() && entry.state != FlowState::Udp
}

/// The flow of the packets that a subflow's client sends.
fn flow_of(subflow: &Subflow) -> Flow {
    let (client, service) = (subflow.client(), subflow.service());
    Flow {
        source: Address::from(client.ip()),
        destination: Address::from(service.ip()),
        source_port: client.port(),
        destination_port: service.port(),
        protocol: TCP,
        family: if service.is_ipv4() { Family::V4 } else { Family::V6 },
    }
}
