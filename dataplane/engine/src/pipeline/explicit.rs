//! Handshakes whose tokens are read instead of hashed, for VIPs that ask for them (RFC 8684 knows none of it; see
//! [`packet::explicit`]).
//!
//! The rules are those of learning: only on a flow whose SYN offered explicit tokens, at its ISN+1, with exact flags and
//! lengths, the first claim wins. Nobody needs to search a key for a token that he claims so, which makes claims cheap:
//! what holds against false ones is the rank of who was there first ([`crate::token_table`]), and agents.

use ipc::counter::Counter;
use packet::{Explicit, Token};

use super::{Context, Slot, classify, decide, unsettled};
use crate::flow_entry::{FlowEntry, FlowState};

/// Whether a SYN offers explicit tokens to a VIP that asks for them. Counts it then.
#[inline]
pub(super) fn is_offered(slot: &Slot, options: &[u8], cx: &Context<'_>) -> bool {
    let Some((_, vip)) = slot.vip(cx).filter(|(_, vip)| vip.drafts().any()) else { return false };
    let (flags, payload) = (slot.parsed.tcp.flags, classify::has_payload(&slot.parsed));
    let offers = packet::explicit(options, flags, payload, vip.drafts()).is_some();
    if offers {
        cx.counters.add(Counter::CapableSyn, 1);
        cx.counters.add(Counter::ExplicitSyn, 1);
    }
    offers
}

/// The entry after a packet that carries explicit tokens where they may stand; `None` for any other packet.
#[inline]
pub(super) fn advance(
    slot: &mut Slot,
    entry: &FlowEntry,
    frame: &[u8],
    cx: &Context<'_>,
) -> Option<FlowEntry> {
    let (_, vip) = slot.vip(cx).filter(|(_, vip)| vip.drafts().any())?;
    // Where nothing is learned, an offer opened what any SYN does.
    let is_opened = matches!(entry.state, FlowState::SynExplicit | FlowState::Learned)
        || !vip.learn && entry.state == FlowState::SynPlain;
    if !is_opened || slot.parsed.tcp.flags.fin() {
        return None;
    }
    let (flags, payload) = (slot.parsed.tcp.flags, classify::has_payload(&slot.parsed));
    let options = slot.parsed.tcp_options(frame);
    let Explicit::Tokens { receiver, .. } = packet::explicit(options, flags, payload, vip.drafts())? else {
        return None;
    };
    slot.verdict.token = Some(receiver);
    Some(match entry.state {
        FlowState::Learned => again(entry, receiver, cx),
        _ if !vip.learn => {
            cx.counters.add(Counter::ExplicitToken, 1);
            FlowEntry { state: FlowState::Plain, ..*entry }
        }
        _ if !unsettled::is_in_place(slot.parsed.tcp.seq, entry) => {
            cx.counters.add(Counter::KeyRefused, 1);
            *entry
        }
        _ => {
            cx.counters.add(Counter::ExplicitToken, 1);
            let (next, is_new) = unsettled::learn(entry, receiver, cx);
            slot.verdict.learned |= is_new;
            next
        }
    })
}

/// The entry after tokens on a flow that taught one.
fn again(entry: &FlowEntry, token: Token, cx: &Context<'_>) -> FlowEntry {
    let same = token.0 == entry.aux;
    cx.counters.add(if same { Counter::KeyRepeated } else { Counter::KeyConflict }, 1);
    if same {
        decide::touch(token, entry.backend, false, cx);
    }
    *entry
}
