//! SYNs: what opens a connection or a further subflow (docs/packet-path.md, "SYN"; RFC 8684 section 3.2).
//!
//! The rules for a 5-tuple that is known already keep two things apart. The same initial sequence number is a
//! retransmission: same backend, nothing new. Another one on a live, fresh entry is left to the server's
//! challenge ACK (RFC 5961 section 4): to its backend unchanged, nothing learned, so that a forged SYN moves
//! nobody's connection. Only an entry that is closing, idle, adopted, only reported
//! (by an agent) or whose backend is gone gives way.

use ipc::counter::Counter;
use ipc::message::UnknownToken;
use ipc::reason::Reason;
use packet::{ResetReason, TcpRst, Token, Version};

use super::decide::Look;
use super::guard::{self, Guard};
use super::{Class, Context, Slot, SynKind, chosen, decide, local, steer};
use crate::flow_entry::{FlowEntry, FlowState};
use crate::frames::{Frames, places};
use crate::limits::Admitted;
use crate::snapshot::Vip;
use crate::token_table::TokenLookup;

/// A live entry not seen for this many ticks no longer protects its 5-tuple from a new SYN: about a minute,
/// the time a server keeps a closed connection (TIME_WAIT).
const FRESH_TICKS: u16 = 4;

/// Asks for the lines a SYN will need besides its first: its flow is mostly new and a flood's token unknown, so
/// the first line rarely answers.
#[inline(never)]
pub(super) fn prefetch(slots: &[Slot], which: u64, cx: &Context<'_>) {
    for slot in places(which).filter_map(|index| slots.get(index)) {
        let Class::Syn(kind) = slot.class else { continue };
        cx.tables.flows.prefetch_rest(slot.hash);
        if let (SynKind::Join(token), Some((_, vip))) = (kind, slot.vip(cx)) {
            cx.tables.tokens.prefetch_rest(cx.tables.token_hash(token, vip.pool), token);
        }
    }
}

/// Decides a SYN.
#[inline(never)]
pub(super) fn decide<F: Frames>(
    slot: &mut Slot,
    kind: SynKind,
    frames: &mut F,
    index: usize,
    guard: &mut Guard,
    cx: &Context<'_>,
) {
    let kind = match cx.snapshot.chooses_keys() {
        true => chosen::decide(slot, kind, frames, index, guard, cx),
        false => Some(kind),
    };
    let Some(kind) = kind else { return };
    let look = decide::look(slot.hash, cx);
    if let Some(found) = look.live() {
        let entry = found.entry;
        let isn = slot.parsed.tcp.seq;
        if entry.is_opened_by(isn) && !contradicts(&entry, kind) {
            cx.counters.add(Counter::SynRetransmitted, 1);
            if entry.state.is_half_open() && entry.tick != cx.now {
                // Still being opened: a handshake may take longer than a half-open entry lives unseen.
                let next = decide::compare(slot, FlowEntry { tick: cx.now, ..entry }, cx);
                if cx.tables.flows.update(found, next) && next.moved && !entry.moved {
                    cx.counters.add(Counter::FlowMoved, 1);
                }
            }
            return slot.forward(reason_again(&entry, kind), entry.backend);
        }
        if !entry.state.gives_way_to_syn() && cx.now.age_of(entry.tick) < FRESH_TICKS {
            cx.counters.add(Counter::SynOnLiveFlow, 1);
            return slot.forward(Reason::Flow, entry.backend);
        }
    }
    let isn = slot.parsed.tcp.seq;
    let over = &look;
    let Some(kind) = admitted(slot, awaited(slot, kind, cx), &look, guard, cx) else {
        return decide::stateless(slot, Reason::Hash, cx);
    };
    match kind {
        SynKind::Plain => decide::open(slot, FlowState::SynPlain, isn, over, cx),
        SynKind::Capable(Version::V0) => decide::open(slot, FlowState::SynCapableV0, isn, over, cx),
        SynKind::Capable(Version::V1) => decide::open(slot, FlowState::SynCapableV1, isn, over, cx),
        SynKind::Explicit => decide::open(slot, FlowState::SynExplicit, isn, over, cx),
        SynKind::Join(token) => join(slot, token, over, frames, index, guard, cx),
    }
}

/// What a SYN opens as far as its VIP cares: where nothing is learned no key is awaited.
fn awaited(slot: &Slot, kind: SynKind, cx: &Context<'_>) -> SynKind {
    let learns = slot.vip(cx).is_some_and(|(_, vip)| vip.learn);
    match kind {
        SynKind::Capable(_) | SynKind::Explicit if !learns => SynKind::Plain,
        same => same,
    }
}

/// What a SYN opens, as far as the guard lets it. Joins are judged where it is known who answers for their token.
fn admitted(slot: &Slot, kind: SynKind, over: &Look, guard: &mut Guard, cx: &Context<'_>) -> Option<SynKind> {
    let capable = match kind {
        SynKind::Join(_) => return Some(kind),
        SynKind::Capable(_) | SynKind::Explicit => true,
        SynKind::Plain => false,
    };
    match take_place(slot, capable, over, guard, cx) {
        Admitted::Yes => Some(kind),
        Admitted::WithoutKey => Some(SynKind::Plain),
        Admitted::No => None,
    }
}

/// What the guard says of a flow that gets an entry, over the one that was found or a new one.
pub(super) fn take_place(
    slot: &Slot,
    capable: bool,
    over: &Look,
    guard: &mut Guard,
    cx: &Context<'_>,
) -> Admitted {
    let network = guard::network(&slot.parsed.flow, cx);
    match over.live() {
        Some(_) => guard.open_again(network, capable, cx),
        None => guard.open(network, capable, cx),
    }
}

/// Whether a join names another token than the entry holds. Such an entry keeps only half of its ISN, so an equal
/// one may be chance: it is no retransmission.
fn contradicts(entry: &FlowEntry, kind: SynKind) -> bool {
    matches!(kind, SynKind::Join(token) if entry.state.has_token() && entry.aux != token.0)
}

/// Why a retransmitted SYN goes where it goes: a join still follows its token.
fn reason_again(entry: &FlowEntry, kind: SynKind) -> Reason {
    match kind {
        SynKind::Join(token) if entry.joins() && entry.aux == token.0 => Reason::Token,
        _ => Reason::Flow,
    }
}

/// A SYN with MP_JOIN and a new 5-tuple: to the owner of its token, unless it had more joins than any connection has.
fn join<F: Frames>(
    slot: &mut Slot,
    token: Token,
    over: &Look,
    frames: &mut F,
    index: usize,
    guard: &mut Guard,
    cx: &Context<'_>,
) {
    let Some((_, vip)) = slot.vip(cx) else {
        return slot.refuse(Reason::NotVip);
    };
    if !vip.is_plain() {
        return steer::join(slot, token, Some(over), frames, index, guard, cx);
    }
    let hash = cx.tables.token_hash(token, vip.pool);
    let belongs = |backend| cx.snapshot.is_of_pool(backend, vip.pool);
    match cx.tables.tokens.find(hash, token, belongs) {
        TokenLookup::Owner { .. } if !guard.join(hash, cx.now) => slot.refuse(Reason::JoinRate),
        TokenLookup::Owner { backend, .. } => {
            let isn = slot.parsed.tcp.seq;
            let entry = FlowEntry::joining(cx.now, backend, isn, token.0, true);
            decide::place(slot, entry, Reason::Token, over, cx);
        }
        TokenLookup::Ambiguous => {
            orphan(slot, vip, Reason::AmbiguousToken, over, (frames, index), guard, cx);
        }
        TokenLookup::Unknown => orphan(slot, vip, Reason::UnknownToken, over, (frames, index), guard, cx),
    }
}

/// A join without an owner, by the VIP's policy. Dropping is the default: TCP sends the SYN again after about a
/// second, and by then the token may be known, while a wrong server would answer RST for good.
pub(super) fn orphan<F: Frames>(
    slot: &mut Slot,
    vip: &Vip,
    reason: Reason,
    over: &Look,
    (frames, index): (&mut F, usize),
    guard: &mut Guard,
    cx: &Context<'_>,
) {
    match vip.unknown_token {
        UnknownToken::Drop => slot.refuse(reason),
        UnknownToken::Hash => {
            cx.counters.add(Counter::JoinHashed, 1);
            if take_place(slot, false, over, guard, cx) == Admitted::No {
                return decide::stateless(slot, Reason::Hash, cx);
            }
            decide::open(slot, FlowState::SynPlain, slot.parsed.tcp.seq, over, cx);
        }
        UnknownToken::Reset => {
            slot.refuse(reason);
            // Transient: the token may be known a moment later.
            let told = Some(TcpRst { transient: true, reason: ResetReason::MPTCP });
            if local::answer_reset(&slot.parsed, told, frames, index, cx) {
                slot.answer(Reason::TokenReset);
            }
        }
    }
}
