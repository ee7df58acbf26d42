//! Joins of VIPs that are steered by more than learned tokens: one scheme after the other is asked, in the VIP's order.
//!
//! What a scheme does not know goes to the next; what none knows is an orphan and follows the VIP's policy. A token that
//! two backends claim counts as not known here too: the next scheme may know better.
//!
//! Out of the way of VIPs that are steered by learned tokens alone (`Vip::is_plain`), which never come here.

use ipc::counter::Counter;
use ipc::id::BackendId;
use ipc::message::{Scheme, TokenMap};
use ipc::reason::Reason;
use packet::Token;

use super::decide::Look;
use super::guard::Guard;
use super::{Context, Slot, decide, syn};
use crate::flow_entry::FlowEntry;
use crate::frames::Frames;
use crate::limits::Admitted;
use crate::snapshot::Vip;
use crate::token_table::TokenLookup;

/// What a scheme says about a token.
enum Answer {
    /// Its connection is this backend's.
    Backend(BackendId, Reason),
    /// Nothing, and this is why.
    Nothing(Reason),
}

/// A SYN with MP_JOIN and a new 5-tuple: to the backend that the first scheme names which names one. `over` is what the
/// flow table has for it; `None` keeps nothing of a join that was placed, since its later packets say where they belong.
#[inline(never)]
pub(super) fn join<F: Frames>(
    slot: &mut Slot,
    token: Token,
    over: Option<&Look>,
    frames: &mut F,
    index: usize,
    guard: &mut Guard,
    cx: &Context<'_>,
) {
    let Some((_, vip)) = slot.vip(cx) else {
        return slot.refuse(Reason::NotVip);
    };
    let mut reason = Reason::UnknownToken;
    for scheme in vip.steering.schemes.iter() {
        match ask(scheme, token, vip, cx) {
            Answer::Backend(backend, by) => return follow(slot, vip, token, (backend, by), over, guard, cx),
            Answer::Nothing(Reason::AmbiguousToken) => reason = Reason::AmbiguousToken,
            Answer::Nothing(_) => {}
        }
    }
    let look = || decide::look(slot.hash, cx);
    let over = over.copied().unwrap_or_else(look);
    syn::orphan(slot, vip, reason, &over, (frames, index), guard, cx);
}

/// What one scheme says.
fn ask(scheme: Scheme, token: Token, vip: &Vip, cx: &Context<'_>) -> Answer {
    match scheme {
        Scheme::Learn | Scheme::Agent => of_table(token, vip, cx),
        Scheme::TokenMap | Scheme::ChosenKey => {
            let named = of_map(token, vip, cx);
            if named.is_none() {
                cx.counters.add(Counter::TokenMapMiss, 1);
            }
            named.map_or(Answer::Nothing(Reason::UnknownToken), |id| Answer::Backend(id, Reason::TokenMap))
        }
        // By where the SYN goes. It came to the address that all backends share, against their servers' wish.
        Scheme::Endpoint => {
            cx.counters.add(Counter::EndpointIgnored, 1);
            Answer::Nothing(Reason::UnknownToken)
        }
    }
}

/// What the token table says, whoever filled it.
fn of_table(token: Token, vip: &Vip, cx: &Context<'_>) -> Answer {
    let hash = cx.tables.token_hash(token, vip.pool);
    let belongs = |backend| cx.snapshot.is_of_pool(backend, vip.pool);
    match cx.tables.tokens.find(hash, token, belongs) {
        TokenLookup::Owner { backend, .. } => Answer::Backend(backend, Reason::Token),
        TokenLookup::Ambiguous => Answer::Nothing(Reason::AmbiguousToken),
        TokenLookup::Unknown => Answer::Nothing(Reason::UnknownToken),
    }
}

/// Whether the token table knows the token as this backend's, where anybody fills it for the VIP.
fn is_in_table(token: Token, backend: BackendId, vip: &Vip, cx: &Context<'_>) -> bool {
    let fills = vip.learn || vip.steering.has(Scheme::Agent);
    fills && matches!(of_table(token, vip, cx), Answer::Backend(owner, _) if owner == backend)
}

/// The backend that the token itself names.
fn of_map(token: Token, vip: &Vip, cx: &Context<'_>) -> Option<BackendId> {
    let map = cx.snapshot.token_map(vip.pool)?;
    let backend = match vip.steering.token_map {
        TokenMap::Ranges => map.ranges().owner(token.0)?,
        TokenMap::Cipher => map.numbers().backend(vip.ciphers().number(token.0)?)?,
    };
    cx.snapshot.backend(backend).map(|_| backend)
}

/// To the backend, with an entry of its own unless nothing is kept: the subflow's later packets carry no token.
fn follow(
    slot: &mut Slot,
    vip: &Vip,
    token: Token,
    (backend, reason): (BackendId, Reason),
    over: Option<&Look>,
    guard: &mut Guard,
    cx: &Context<'_>,
) {
    let pool = cx.snapshot.backend(backend).map(|known| known.pool);
    if pool.is_some_and(|pool| !guard.join(cx.tables.token_hash(token, pool), cx.now)) {
        return slot.refuse(Reason::JoinRate);
    }
    let Some(over) = over else {
        return slot.forward(reason, backend);
    };
    // A token that is in the table has its own bound. Of made-up ones each comes once, and each takes a place.
    let is_known = reason == Reason::Token || is_in_table(token, backend, vip, cx);
    if !is_known && syn::take_place(slot, false, over, guard, cx) == Admitted::No {
        return slot.refuse(Reason::JoinRate);
    }
    let isn = slot.parsed.tcp.seq;
    let entry = FlowEntry::joining(cx.now, backend, isn, token.0, is_known);
    decide::place(slot, entry, reason, over, cx);
}
