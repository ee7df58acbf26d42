//! What comes to a backend's own port or address ([`crate::endpoint`]): to that backend, and nothing is remembered.
//!
//! Only joins belong there. A server's kernel refuses whoever opens a connection at an endpoint, as Linux does
//! (MPCapableEndpAttempt), so Weft refuses it first: it would be a way past weights and draining to a server of the
//! stranger's choice. A join goes to its backend whatever its token, since that server alone can judge it (its HMAC),
//! unless the token is known to be another backend's: an owner of rank *seen* or *proven*. A provisional claim refuses
//! nobody, or whoever forged one could keep an honest client from its own server.

use ipc::counter::Counter;
use ipc::id::BackendId;
use ipc::message::{Scheme, WrongEndpoint};
use ipc::reason::Reason;
use packet::{Flow, Kind, ResetReason, TcpRst, Token};

use super::{Class, Context, Slot, SynKind, classify, local};
use crate::frames::Frames;
use crate::snapshot::Vip;
use crate::token_entry::Rank;
use crate::token_table::TokenLookup;

/// Classifies a TCP packet that is for no service. Says whether it is for an endpoint.
#[inline(never)]
pub(super) fn find(slot: &mut Slot, frame: &[u8], cx: &Context<'_>) -> bool {
    let Some(endpoint) = cx.snapshot.endpoint(&slot.parsed.flow) else {
        return false;
    };
    slot.verdict.vip = Some(endpoint.vip);
    if slot.parsed.kind == Kind::Tcp && classify::opens(slot.parsed.tcp.flags) {
        slot.class = Class::Endpoint(endpoint.backend, classify::syn(slot, frame, cx));
    } else {
        slot.forward(Reason::Endpoint, endpoint.backend);
    }
    true
}

/// Decides a SYN to a backend's endpoint.
#[inline(never)]
pub(super) fn decide<F: Frames>(
    slot: &mut Slot,
    backend: BackendId,
    kind: SynKind,
    frames: &mut F,
    index: usize,
    cx: &Context<'_>,
) {
    let Some((_, vip)) = slot.vip(cx) else {
        return slot.refuse(Reason::NotVip);
    };
    let wrong = match kind {
        SynKind::Join(token) if !is_known_elsewhere(token, backend, vip, cx) => {
            cx.counters.add(Counter::EndpointJoin, 1);
            return slot.forward(Reason::Endpoint, backend);
        }
        SynKind::Join(_) => Counter::EndpointTokenElsewhere,
        SynKind::Plain | SynKind::Capable(_) | SynKind::Explicit => Counter::EndpointNoJoin,
    };
    cx.counters.add(wrong, 1);
    match vip.steering.wrong_endpoint {
        WrongEndpoint::Forward => slot.forward(Reason::Endpoint, backend),
        WrongEndpoint::Drop => slot.refuse(Reason::WrongEndpoint),
        WrongEndpoint::Reset => {
            slot.refuse(Reason::WrongEndpoint);
            // An end that speaks no MPTCP is told in plain TCP.
            let told = TcpRst { transient: false, reason: ResetReason::PROHIBITED };
            let told = Some(told).filter(|_| kind != SynKind::Plain);
            if local::answer_reset(&slot.parsed, told, frames, index, cx) {
                slot.answer(Reason::EndpointReset);
            }
        }
    }
}

/// Whether a token's connection is known to live on another backend.
fn is_known_elsewhere(token: Token, backend: BackendId, vip: &Vip, cx: &Context<'_>) -> bool {
    if !vip.learn && !vip.steering.has(Scheme::Agent) {
        return false;
    }
    let hash = cx.tables.token_hash(token, vip.pool);
    let belongs = |id| cx.snapshot.is_of_pool(id, vip.pool);
    match cx.tables.tokens.find(hash, token, belongs) {
        TokenLookup::Owner { backend: owner, rank } => owner != backend && rank != Rank::Provisional,
        TokenLookup::Ambiguous | TokenLookup::Unknown => false,
    }
}

/// An ICMP error that quotes a packet which a server sent from its own endpoint: to that server. Says whether it is one.
pub(super) fn related(slot: &mut Slot, flow: &Flow, cx: &Context<'_>) -> bool {
    let Some(endpoint) = cx.snapshot.endpoint(flow) else {
        return false;
    };
    slot.parsed.flow = *flow;
    slot.verdict.vip = Some(endpoint.vip);
    slot.forward(Reason::Related, endpoint.backend);
    true
}
