//! Subflows and connections, as the packets that went in tell of them: who opened what, which token a third ACK
//! taught, which connection a join names.
//!
//! A connection is known by (pool, token). A flow that a SYN with MP_CAPABLE opened teaches a token with the first key
//! at its ISN+1 (up to 1,460 bytes further, for data in the SYN) in the SYN's version. A 5-tuple that is used again
//! is another flow: where the old one had ended, was silent for most of a minute, or was never opened by a SYN that
//! Weft let through.

use std::time::Duration;

use hashbrown::HashMap;

use super::dissect::{FlowKey, TCP, Tcp};
use super::mptcp::Version;
use super::outer::Entropy;
use super::plan::VipId;

/// Most data a SYN may have carried (RFC 7413: one segment).
const TFO: u32 = 1460;
/// After so long a silence a SYN with another ISN may open another connection; before, it changes nothing.
const FRESH: Duration = Duration::from_secs(32);
/// A token lives at least so long after its last subflow ended.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// More joins of a token than this, in the time below, are more subflows than a connection has: they may be dropped.
const MAX_JOINS: u8 = 32;
const JOIN_TIME: Duration = Duration::from_secs(32);

/// A flow's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowId(pub u32);

/// How a flow began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A SYN without MPTCP.
    Plain,
    /// A SYN with MP_CAPABLE.
    Capable(Version),
    /// A SYN with MP_JOIN whose token this flow, or one of several, had taught.
    Join(FlowId),
    /// A SYN with MP_JOIN of an unknown token, where the VIP hashes such or does not steer.
    HashedJoin,
    /// A packet in the middle.
    Adopted,
    /// A datagram or a fragment.
    Datagram,
}

/// What came out of what must have: only then the connection's home is certain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The SYN that opened the flow.
    pub syn: bool,
    /// The packet that taught its token.
    pub key: bool,
}

/// One flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Whose it is.
    pub key: FlowKey,
    /// The VIP.
    pub vip: VipId,
    /// How it began.
    pub opening: Opening,
    /// Initial sequence number, of a flow that a SYN opened.
    isn: u32,
    /// Whether it waits for its key.
    awaits: bool,
    ended: bool,
    last_seen: Duration,
    /// The backend its packets go to, once one came out, and the number of that packet.
    pub backend: Option<(u16, u32)>,
    /// When that was.
    pub first_out: Duration,
    /// The place among what went in of the last of its packets that came out.
    pub last_place: u32,
    /// What came out.
    pub passed: Passed,
    /// Whether its 5-tuple was another flow's before.
    pub again: bool,
    /// What its tunnel shows, once seen.
    pub entropy: Entropy,
}

/// A token that a flow taught.
#[derive(Clone, Debug)]
struct Claim {
    pool: usize,
    token: u32,
    /// The time of the last packet of any subflow.
    seen: Duration,
    /// Subflows that have not ended.
    live: u32,
    /// Joins since then.
    joins: u8,
    since: Duration,
}

/// What a packet is to the flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its flow; `None` for a join that Weft will not know.
    pub flow: Option<FlowId>,
    /// A join of a known token.
    pub join: Option<Certainty>,
    /// A join of an unknown one.
    pub unknown_join: bool,
}

/// Whether a join of a known token must get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// It must.
    Certain,
    /// Two claim the token, or its life may be over, or there were too many joins.
    Doubtful,
}

/// What the configuration says about joins of a VIP.
#[derive(Clone, Copy, Debug)]
pub struct Steering {
    /// The VIP.
    pub vip: VipId,
    /// The pool whose tokens count.
    pub pool: usize,
    /// Whether joins follow tokens.
    pub learn: bool,
    /// Whether joins of unknown tokens are hashed, not dropped or reset.
    pub hash_unknown: bool,
}

/// All flows of a capture.
#[derive(Default)]
pub struct Flows {
    current: HashMap<FlowKey, u32>,
    flows: Vec<Flow>,
    owners: HashMap<(usize, u32), u32>,
    /// Of tokens that more than one flow taught, all who did after the first.
    rivals: HashMap<(usize, u32), Vec<FlowId>>,
    /// What each flow taught that taught one.
    claims: HashMap<FlowId, Claim>,
}

impl Flows {
    /// How many flows there are.
    pub fn count(&self) -> usize {
        self.flows.len()
    }

    /// A flow.
    pub fn get(&self, id: FlowId) -> Option<&Flow> {
        self.flows.get(id.0 as usize)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.flows.get_mut(id.0 as usize)
    }

    /// All of them, in the order in which they began.
    pub fn iter(&self) -> impl Iterator<Item = (FlowId, &Flow)> {
        (0..).map(FlowId).zip(&self.flows)
    }

    /// The flow that a 5-tuple is now.
    pub fn now(&self, key: &FlowKey) -> Option<FlowId> {
        self.current.get(key).copied().map(FlowId)
    }

    /// Who taught a token, the first first.
    pub fn owners(&self, pool: usize, token: u32) -> impl Iterator<Item = FlowId> {
        let first = self.owners.get(&(pool, token)).copied().map(FlowId);
        let rest = self.rivals.get(&(pool, token)).map_or(&[][..], Vec::as_slice);
        first.into_iter().chain(rest.iter().copied())
    }

    /// All who taught the token that this flow taught.
    pub fn claimants(&self, owner: FlowId) -> Vec<FlowId> {
        match self.claims.get(&owner) {
            Some(claim) => self.owners(claim.pool, claim.token).collect(),
            None => vec![owner],
        }
    }

    /// The token a flow taught.
    pub fn token(&self, id: FlowId) -> Option<u32> {
        self.claims.get(&id).map(|claim| claim.token)
    }

    /// How many tokens were taught.
    pub fn connections(&self) -> usize {
        self.owners.len()
    }

    /// Takes a datagram in, or a fragment of one.
    pub fn datagram(&mut self, key: FlowKey, vip: VipId, time: Duration) -> Option<FlowId> {
        let id = match self.now(&key) {
            Some(id) => id,
            None => self.begin(key, vip, Opening::Datagram, 0, time)?,
        };
        self.see(id, time);
        Some(id)
    }

    /// Takes a TCP packet in.
    pub fn tcp(&mut self, key: FlowKey, tcp: &Tcp<'_>, by: Steering, time: Duration) -> Option<Step> {
        if tcp.opens {
            return self.syn(key, tcp, by, time);
        }
        let id = match self.now(&key) {
            Some(id) => id,
            None => self.begin(key, by.vip, Opening::Adopted, 0, time)?,
        };
        self.learn(id, tcp, by.pool, time);
        self.see(id, time);
        if tcp.ends {
            self.end(id);
        }
        Some(Step { flow: Some(id), join: None, unknown_join: false })
    }

    fn syn(&mut self, key: FlowKey, tcp: &Tcp<'_>, by: Steering, time: Duration) -> Option<Step> {
        let join = tcp.mptcp.join.filter(|_| by.learn);
        if let Some(id) = self.now(&key)
            && let Some(flow) = self.get(id)
        {
            let opened = !matches!(flow.opening, Opening::Adopted | Opening::Datagram);
            let live = !flow.ended && time.saturating_sub(flow.last_seen) < FRESH;
            // A SYN sent again; or another on a live flow, which is sent along and changes nothing.
            if opened && (flow.isn == tcp.sequence || live) {
                let certainty = match flow.opening {
                    Opening::Join(owner) => Some(self.join(owner, false, time)),
                    _ => None,
                };
                self.see(id, time);
                return Some(Step { flow: Some(id), join: certainty, unknown_join: false });
            }
        }
        let opening = match join {
            Some(token) => match self.owners(by.pool, token).next() {
                Some(owner) => Opening::Join(owner),
                None if by.hash_unknown => Opening::HashedJoin,
                None => return Some(Step { flow: None, join: None, unknown_join: true }),
            },
            None if tcp.mptcp.join.is_some() => Opening::HashedJoin,
            None => match tcp.mptcp.capable.filter(|_| by.learn) {
                Some(version) => Opening::Capable(version),
                None => Opening::Plain,
            },
        };
        let id = self.begin(key, by.vip, opening, tcp.sequence, time)?;
        let certainty = match opening {
            Opening::Join(owner) => Some(self.join(owner, true, time)),
            _ => None,
        };
        self.see(id, time);
        Some(Step { flow: Some(id), join: certainty, unknown_join: false })
    }

    fn begin(
        &mut self,
        key: FlowKey,
        vip: VipId,
        opening: Opening,
        isn: u32,
        time: Duration,
    ) -> Option<FlowId> {
        let id = FlowId(u32::try_from(self.flows.len()).ok()?);
        self.flows.push(Flow {
            key,
            vip,
            opening,
            isn,
            awaits: matches!(opening, Opening::Capable(_)),
            ended: false,
            last_seen: time,
            backend: None,
            first_out: time,
            last_place: 0,
            passed: Passed::default(),
            again: self.current.contains_key(&key),
            entropy: Entropy::default(),
        });
        self.current.insert(key, id.0);
        Some(id)
    }

    /// Whether a packet is the one that teaches its flow's token, or one that would.
    pub fn teaches(&self, id: FlowId, tcp: &Tcp<'_>) -> bool {
        self.get(id).is_some_and(|flow| taught_by(flow, tcp).is_some())
    }

    fn learn(&mut self, id: FlowId, tcp: &Tcp<'_>, pool: usize, time: Duration) {
        let Some(flow) = self.flows.get_mut(id.0 as usize).filter(|flow| flow.awaits) else {
            return;
        };
        let Some(token) = taught_by(flow, tcp) else {
            // Data without MPTCP, or an end: the connection has become plain TCP (RFC 8684 section 3.7).
            let fell_back = tcp.data > 0 && !tcp.mptcp.any && !tcp.mptcp.malformed;
            flow.awaits &= !tcp.ends && !fell_back;
            return;
        };
        flow.awaits = false;
        self.claims.insert(id, Claim { pool, token, seen: time, live: 1, joins: 0, since: time });
        if self.owners.contains_key(&(pool, token)) {
            self.rivals.entry((pool, token)).or_default().push(id);
        } else {
            self.owners.insert((pool, token), id.0);
        }
    }

    fn see(&mut self, id: FlowId, time: Duration) {
        let Some(flow) = self.flows.get_mut(id.0 as usize) else { return };
        flow.last_seen = flow.last_seen.max(time);
        let first = flow.first_subflow(id);
        if let Some(claim) = self.claims.get_mut(&first) {
            claim.seen = claim.seen.max(time);
        }
    }

    fn end(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get_mut(id.0 as usize).filter(|flow| !flow.ended) else {
            return;
        };
        flow.ended = true;
        let first = flow.first_subflow(id);
        if let Some(claim) = self.claims.get_mut(&first) {
            claim.live = claim.live.saturating_sub(1);
        }
    }

    /// Counts a join's SYN; the first of a subflow is one subflow more.
    fn join(&mut self, owner: FlowId, first: bool, time: Duration) -> Certainty {
        let alone = self.claimants(owner).len() == 1;
        let Some(claim) = self.claims.get_mut(&owner) else {
            return Certainty::Doubtful;
        };
        if time.saturating_sub(claim.since) >= JOIN_TIME {
            (claim.joins, claim.since) = (0, time);
        }
        claim.joins = claim.joins.saturating_add(1);
        let lives = claim.live > 0 || time.saturating_sub(claim.seen) < TOKEN_LIFE;
        claim.live += u32::from(first);
        if alone && lives && claim.joins <= MAX_JOINS { Certainty::Certain } else { Certainty::Doubtful }
    }
}

impl Flow {
    /// The flow that taught the token of this one's connection.
    fn first_subflow(&self, id: FlowId) -> FlowId {
        if let Opening::Join(owner) = self.opening { owner } else { id }
    }
}

/// The token a packet teaches a flow, if it does.
fn taught_by(flow: &Flow, tcp: &Tcp<'_>) -> Option<u32> {
    let Opening::Capable(opened) = flow.opening else { return None };
    let (version, key) = tcp.mptcp.key.filter(|_| !tcp.ends)?;
    let in_place = tcp.sequence.wrapping_sub(flow.isn.wrapping_add(1)) <= TFO;
    (version == opened && in_place && flow.key.protocol == TCP).then(|| version.token(key))
}
