//! The way of what opens: SYNs and third ACKs in the layout in which Linux sends them, which is most of them.
//!
//! Why it is worth a way of its own: a flood is made of them, and the general look at one costs twice as much
//! (docs/performance.md). As on the fast path ([`super::fast`], which reads the headers for both) there are three passes,
//! so that the memory each needs was asked for in the one before: headers, options, hashes; the other lines, where the
//! first does not hold what is looked for; the decision, in packet order.
//!
//! **Invariants.** The verdict, the bytes and the counts are those of the general way, which has the rules ([`super::syn`],
//! [`super::unsettled`]). Here go only: a SYN of a flow that is in no line; a join whose token has an owner, or none
//! while that means a drop; the key that a flow waits for, within the tick of its SYN. Nothing is written before that is
//! certain, so whatever else comes is handed over untouched.

use ipc::id::{BackendId, VipId};
use ipc::message::UnknownToken;
use ipc::reason::Reason;
use packet::brief::{self, Brief4, Brief6};
use packet::{Family, Flags, Flow, Opening as Opens, Token, Version};

use super::decide;
use super::fast::Fast;
use super::guard::{self, Guard};
use super::tally::Tally;
use super::{Context, Slot, classify, unsettled};
use crate::flow_entry::{FlowEntry, FlowState};
use crate::flow_table::{Found, Inserted};
use crate::frames::{Frames, places};
use crate::limits::Admitted;
use crate::place::Spot;
use crate::snapshot::Vip;
use crate::token_table::TokenLookup;
use crate::verdict::{Action, Verdict};

/// What is remembered of a packet between the passes, beside what [`Fast`] has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Opening {
    what: What,
    /// Of a SYN, the lines of its flow, which was not in the first, and the others were asked for.
    spot: Option<Spot>,
    /// Of a key, the flow that waits for it.
    found: Option<Found>,
    /// Maglev's answer to a SYN.
    chosen: u16,
    /// The network it comes from, where that is bounded.
    network: u64,
    /// The sequence number.
    seq: u32,
    /// The token of a join, or of the key.
    token: u32,
    /// Its hash in the VIP's pool.
    token_hash: u64,
}

/// What a packet is to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum What {
    /// A connection without MPTCP.
    #[default]
    Plain,
    /// An MPTCP connection of version 1.
    Capable,
    /// A further subflow.
    Join,
    /// The tokens of a connection: its third ACK.
    Key,
}

impl Opening {
    /// Looks at a frame that [`Fast`] remembers and that has unusual flags; asks for the line of a join's token. Says whether
    /// it goes this way.
    #[inline(never)]
    pub(super) fn look(&mut self, frame: &[u8], fast: &Fast, cx: &Context<'_>) -> bool {
        // Read once more here, so that what only SYNs need burdens nobody else's registers.
        let read = if fast.is_v6() {
            Brief6::read(frame).map(|brief| (brief.flags, brief.flow()))
        } else {
            Brief4::read(frame).map(|brief| (brief.flags, brief.flow()))
        };
        read.is_some_and(|(flags, flow)| self.read_syn(frame, flags, &flow, fast, cx).is_some())
    }

    #[inline(always)]
    fn read_syn(
        &mut self,
        frame: &[u8],
        flags: Flags,
        flow: &Flow,
        fast: &Fast,
        cx: &Context<'_>,
    ) -> Option<()> {
        if !classify::opens(flags) {
            return None;
        }
        let (seq, _, options, _) = brief::segment(frame, flow.family, fast.len)?;
        let vip = plain_vip(fast, cx)?;
        self.seq = seq;
        self.what = match packet::usual_opening(options)? {
            Opens::Join(token) if vip.learn => {
                self.ask_for(token, vip, cx);
                What::Join
            }
            Opens::Capable(Version::V1) if vip.learn => What::Capable,
            Opens::Plain => What::Plain,
            _ => return None,
        };
        if self.what != What::Join {
            self.chosen = cx.snapshot.choose(vip.pool, cx.snapshot.public_key().flow(flow))?.0;
            self.network = guard::network(flow, cx);
        }
        Some(())
    }

    /// Looks for the key of version 1 that a flow waits for in a frame that [`Fast`] remembers, and asks for the line of its
    /// token.
    pub(super) fn look_for_key(
        &mut self,
        found: &Found,
        frame: &[u8],
        fast: &Fast,
        cx: &Context<'_>,
    ) -> bool {
        self.found = Some(*found);
        self.read_key(frame, fast, cx).is_some()
    }

    #[inline]
    fn read_key(&mut self, frame: &[u8], fast: &Fast, cx: &Context<'_>) -> Option<()> {
        let family = if fast.is_v6() { Family::V6 } else { Family::V4 };
        let (seq, flags, options, has_payload) = brief::segment(frame, family, fast.len)?;
        let key = packet::usual_key(options, flags).filter(|_| !has_payload)?;
        let vip = plain_vip(fast, cx)?;
        (self.what, self.seq) = (What::Key, seq);
        self.ask_for(Token::from_key(Version::V1, &key), vip, cx);
        Some(())
    }

    /// Notes a token, and asks for its first line.
    #[inline]
    fn ask_for(&mut self, token: Token, vip: &Vip, cx: &Context<'_>) {
        self.token = token.0;
        self.token_hash = cx.tables.token_hash(token, vip.pool);
        cx.tables.tokens.prefetch(self.token_hash);
    }
}

/// The VIP of a packet, if no other scheme has a say in its joins: those go the general way.
#[inline]
fn plain_vip<'a>(fast: &Fast, cx: &Context<'a>) -> Option<&'a Vip> {
    cx.snapshot.vip(VipId(fast.service.vip)).filter(|vip| vip.is_plain())
}

/// The second pass over SYNs: a new flow is in no line, so the others are asked for, and those of a token that is not in
/// its first.
#[inline(never)]
pub(super) fn prefetch(fast: &[Fast], openings: &mut [Opening], which: u64, cx: &Context<'_>) {
    for index in places(which) {
        let (Some(fast), Some(opening)) = (fast.get(index), openings.get_mut(index)) else { return };
        opening.spot = cx.tables.flows.seek(fast.hash);
        if opening.what == What::Join {
            cx.tables.tokens.prefetch_rest(opening.token_hash, Token(opening.token));
        }
    }
}

/// The second pass over keys.
pub(super) fn prefetch_tokens(openings: &[Opening], which: u64, cx: &Context<'_>) {
    for opening in places(which).filter_map(|index| openings.get(index)) {
        cx.tables.tokens.prefetch_rest(opening.token_hash, Token(opening.token));
    }
}

/// How far a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// To the end: sent or dropped, and counted.
    Done,
    /// It is decided, and the general way has to send it.
    Decided,
    /// Nothing was done: the general way has to decide it.
    Nowhere,
}

/// To which backend or to nobody, and why.
struct Outcome {
    backend: Option<BackendId>,
    reason: Reason,
    learned: bool,
}

impl Outcome {
    const fn sent((reason, backend): (Reason, BackendId)) -> Self {
        Self { backend: Some(backend), reason, learned: false }
    }

    const fn dropped(reason: Reason) -> Self {
        Self { backend: None, reason, learned: false }
    }
}

/// The third pass: decides a packet, sends it and counts it.
#[inline(never)]
pub(super) fn decide<F: Frames>(
    (opening, fast): (&Opening, &Fast),
    slot: &mut Slot,
    frames: &mut F,
    index: usize,
    guard: &mut Guard,
    tally: &mut Tally<'_>,
    cx: &Context<'_>,
) -> Came {
    let outcome = match opening.what {
        What::Plain => opening.enter(FlowState::SynPlain, guard, tally, cx),
        What::Capable => opening.enter(FlowState::SynCapableV1, guard, tally, cx),
        What::Join => opening.join(fast, guard, tally, cx),
        What::Key => opening.key(cx),
    };
    let Some(outcome) = outcome else { return Came::Nowhere };
    slot.verdict = Verdict {
        action: Action::Drop,
        reason: outcome.reason,
        vip: Some(VipId(fast.service.vip)),
        backend: outcome.backend,
        token: matches!(opening.what, What::Join | What::Key).then_some(Token(opening.token)),
        learned: outcome.learned,
        port: cx.port,
    };
    let mut sent = None;
    if let Some(backend) = outcome.backend {
        let Some((port, bytes)) = fast.send(backend, frames, index, cx) else {
            return hand_over(slot, frames, index, cx);
        };
        (slot.verdict.action, slot.verdict.port) = (Action::Forward, port);
        sent = Some((backend, port, bytes));
    }
    tally.capable += u64::from(opening.what == What::Capable);
    tally.joins += u64::from(opening.what == What::Join);
    tally.add_opened(index, fast, outcome.reason, sent, cx);
    Came::Done
}

/// To be sent by the general way, which has what is rare: an MTU, a backend without a route.
#[inline(never)]
fn hand_over<F: Frames>(slot: &mut Slot, frames: &mut F, index: usize, cx: &Context<'_>) -> Came {
    let verdict = Verdict { action: Action::Forward, ..slot.verdict };
    classify::one(slot, frames, index, cx);
    slot.verdict = verdict;
    Came::Decided
}

impl Opening {
    /// A SYN of a flow that is in no line: to Maglev's choice.
    #[inline(always)]
    fn enter(
        &self,
        state: FlowState,
        guard: &mut Guard,
        tally: &mut Tally<'_>,
        cx: &Context<'_>,
    ) -> Option<Outcome> {
        let spot = self.spot.as_ref().filter(|spot| cx.tables.flows.is_absent(spot))?;
        let state = match guard.open(self.network, state == FlowState::SynCapableV1, cx) {
            Admitted::Yes => state,
            Admitted::WithoutKey => FlowState::SynPlain,
            Admitted::No => return Some(Outcome::sent((Reason::Hash, BackendId(self.chosen)))),
        };
        let entry = FlowEntry::opened(state, cx.now, BackendId(self.chosen), self.seq, self.seq);
        Some(enter(spot, entry, Reason::Hash, tally, cx))
    }

    /// A join of a flow that is in no line: to the owner of its token.
    #[inline]
    fn join(
        &self,
        fast: &Fast,
        guard: &mut Guard,
        tally: &mut Tally<'_>,
        cx: &Context<'_>,
    ) -> Option<Outcome> {
        let spot = self.spot.as_ref().filter(|spot| cx.tables.flows.is_absent(spot))?;
        let vip = cx.snapshot.vip(VipId(fast.service.vip))?;
        let belongs = |backend| cx.snapshot.is_of_pool(backend, vip.pool);
        match cx.tables.tokens.find(self.token_hash, Token(self.token), belongs) {
            TokenLookup::Owner { .. } if !guard.join(self.token_hash, cx.now) => {
                Some(Outcome::dropped(Reason::JoinRate))
            }
            TokenLookup::Owner { backend, .. } => {
                let entry = FlowEntry::joining(cx.now, backend, self.seq, self.token, true);
                Some(enter(spot, entry, Reason::Token, tally, cx))
            }
            _ if vip.unknown_token != UnknownToken::Drop => None,
            TokenLookup::Ambiguous => Some(Outcome::dropped(Reason::AmbiguousToken)),
            TokenLookup::Unknown => Some(Outcome::dropped(Reason::UnknownToken)),
        }
    }

    /// The key that a flow waits for, within the tick of its SYN.
    #[inline]
    fn key(&self, cx: &Context<'_>) -> Option<Outcome> {
        // As good as looking it up again.
        let found = self.found.as_ref().filter(|found| cx.tables.flows.stands(found))?;
        let entry = found.entry;
        let is_known = cx.snapshot.backend(entry.backend).is_some();
        let is_awaited = entry.state == FlowState::SynCapableV1 && entry.tick == cx.now;
        if !is_known || !is_awaited || !unsettled::is_in_place(self.seq, &entry) {
            return None;
        }
        let (next, learned) = unsettled::learn(&entry, Token(self.token), cx);
        if next != entry {
            // Where another worker changed the entry meanwhile, its change stands: the next packet sees it.
            cx.tables.flows.update(found, next);
        }
        Some(Outcome { learned, ..Outcome::sent((Reason::Flow, entry.backend)) })
    }
}

/// Enters a flow that is in no line.
#[inline(always)]
fn enter(spot: &Spot, entry: FlowEntry, reason: Reason, tally: &mut Tally<'_>, cx: &Context<'_>) -> Outcome {
    Outcome::sent(match cx.tables.flows.enter_first_line(spot, entry) {
        Some(Inserted::New(_)) => {
            tally.inserted += 1;
            (reason, entry.backend)
        }
        Some(other) => decide::entered(other, entry, reason, cx),
        None => decide::enter_elsewhere(spot.hash, entry, reason, cx),
    })
}
