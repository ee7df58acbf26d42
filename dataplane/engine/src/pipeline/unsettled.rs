//! Packets of known flows whose options matter: handshakes that are not over, FIN and RST.
//!
//! The learning rules (RFC 8684 section 3.1 as seen from the client's side only; the server never checks the key
//! its client echoes, so what is learned here is a claim):
//! 1. only on a flow that a MP_CAPABLE SYN opened, at its ISN+1 (up to [`TFO`] bytes further, for data in the
//!    SYN), with the exact length and flags of the SYN's version;
//! 2. one key a flow: the first claim wins, repeats change nothing;
//! 3. ranks: see [`crate::token_table`].
//!
//! FIN and RST demote a flow, they never remove a token: anybody can forge them.

use ipc::counter::Counter;
use ipc::reason::Reason;
use packet::{Capable, Join, Key, Options, Token, Version};

use super::classify::Held;
use super::fast::Fast;
use super::opening::{self, Opening};
use super::{Context, Slot, classify, decide, explicit};
use crate::flow_entry::{FlowEntry, FlowState};
use crate::flow_table::Found;
use crate::frames::{Frames, places};
use crate::token_table::Learn;

/// Most data a SYN may have carried (TCP Fast Open, RFC 7413: one segment).
const TFO: u32 = 1460;

/// Looks ahead at packets whose flow was not found settled, before any of the burst is decided: those of a flow that is
/// opening or ending do not go the fast way. Where one brings the key that its flow waits for, the key is hashed and the
/// token's lines are asked for, since each would otherwise be waited for.
///
/// What is seen here decides nothing: each packet is looked up again when its turn comes. Says which packets go which way
/// then.
#[inline(never)]
pub(super) fn foresee<F: Frames>(
    slots: &mut [Slot],
    fast: &mut [Fast],
    openings: &mut [Opening],
    mut held: Held,
    lost: u64,
    frames: &mut F,
    cx: &Context<'_>,
) -> Held {
    let (mut general, mut usual) = (0, 0);
    for index in places(lost) {
        let (Some(slot), Some(fast), Some(opening)) =
            (slots.get_mut(index), fast.get_mut(index), openings.get_mut(index))
        else {
            break;
        };
        let Some(found) = cx.tables.flows.find(fast.hash) else { continue };
        let state = found.entry.state;
        if state.is_settled() {
            continue;
        }
        fast.give_up();
        if state == FlowState::SynCapableV1 && opening.look_for_key(&found, frames.bytes(index), fast, cx) {
            usual |= 1 << index;
            continue;
        }
        classify::one(slot, frames, index, cx);
        general |= 1 << index;
        if matches!(state, FlowState::SynCapableV0 | FlowState::SynCapableV1) {
            foresee_key(slot, frames.bytes(index), cx);
        }
    }
    held.fast &= !(general | usual);
    held.opening |= usual;
    if usual != 0 {
        opening::prefetch_tokens(openings, usual, cx);
    }
    for index in places(general) {
        if let Some((token, hash)) = slots.get(index).and_then(|slot| foreseen(slot, cx)) {
            cx.tables.tokens.prefetch_rest(hash, token);
        }
    }
    held
}

/// Hashes the key that a packet brings, and asks for its token's line.
fn foresee_key(slot: &mut Slot, frame: &[u8], cx: &Context<'_>) {
    let options = classify::options_of(&slot.parsed, frame);
    let Some(Capable::Ack { version, receiver, .. }) = options.capable else { return };
    slot.foreseen = Some((receiver, Token::from_key(version, &receiver)));
    if let Some((_, hash)) = foreseen(slot, cx) {
        cx.tables.tokens.prefetch(hash);
    }
}

/// The token that was foreseen, and its hash in the VIP's pool.
fn foreseen(slot: &Slot, cx: &Context<'_>) -> Option<(Token, u64)> {
    let (_, token) = slot.foreseen?;
    let (_, vip) = slot.vip(cx)?;
    Some((token, cx.tables.token_hash(token, vip.pool)))
}

/// Decides a packet of a known flow that is not settled, or that ends it.
#[inline(never)]
pub(super) fn decide(slot: &mut Slot, found: &Found, frame: &[u8], cx: &Context<'_>) {
    let entry = found.entry;
    let mut next = match explicit::advance(slot, &entry, frame, cx) {
        Some(next) => next,
        None => after(slot, &entry, frame, cx),
    };
    next.tick = cx.now;
    // Also while it opens and ends: what is written as seen now counts as compared now.
    if entry.tick != cx.now {
        next = decide::compare(slot, next, cx);
    }
    // Where another worker changed the entry meanwhile, its change stands: the next packet sees it.
    if next != entry && cx.tables.flows.update(found, next) && next.moved && !entry.moved && !entry.joins() {
        cx.counters.add(Counter::FlowMoved, 1);
    }
    slot.forward(Reason::Flow, entry.backend);
}

/// The entry after a packet that is judged by the options of RFC 8684.
fn after(slot: &mut Slot, entry: &FlowEntry, frame: &[u8], cx: &Context<'_>) -> FlowEntry {
    let options = classify::options_of(&slot.parsed, frame);
    classify::count_malformed(options.malformed, cx);
    let flags = slot.parsed.tcp.flags;
    if flags.rst() || flags.fin() { close(entry, &options, cx) } else { advance(slot, entry, &options, cx) }
}

/// The entry after FIN or RST.
fn close(entry: &FlowEntry, options: &Options, cx: &Context<'_>) -> FlowEntry {
    let ending = entry.ending();
    if ending.state == FlowState::ClosingToken
        && ends_connection(entry, options)
        && let Some(backend) = cx.snapshot.backend(entry.backend)
    {
        let hash = cx.tables.token_hash(Token(entry.aux), backend.pool);
        if cx.tables.tokens.close(hash, Token(entry.aux), entry.backend, cx.now) {
            cx.counters.add(Counter::TokenClosing, 1);
        }
    }
    ending
}

/// Whether the options end the whole connection: DATA_FIN, or FASTCLOSE with the key the token came from
/// (RFC 8684 sections 3.3.3 and 3.5).
///
/// DATA_FIN counts on the connection's first subflow only. A join is not verified here (its HMAC is the
/// backend's to check), and who guessed a token must not be able to shorten its life.
fn ends_connection(entry: &FlowEntry, options: &Options) -> bool {
    let token = Token(entry.aux);
    let matches = |key: &Key| [Version::V1, Version::V0].iter().any(|v| Token::from_key(*v, key) == token);
    let is_first = matches!(entry.state, FlowState::Learned | FlowState::Mptcp);
    is_first && options.dss.is_some_and(|dss| dss.data_fin) || options.fastclose.as_ref().is_some_and(matches)
}

/// The entry after any other packet.
fn advance(slot: &mut Slot, entry: &FlowEntry, options: &Options, cx: &Context<'_>) -> FlowEntry {
    let state = match entry.state {
        FlowState::SynPlain => FlowState::Plain,
        FlowState::SynCapableV0 => return await_key(slot, entry, Version::V0, options, cx),
        FlowState::SynCapableV1 | FlowState::SynExplicit => {
            return await_key(slot, entry, Version::V1, options, cx);
        }
        FlowState::SynJoin if matches!(options.join, Some(Join::Ack { .. })) => {
            cx.counters.add(Counter::JoinEstablished, 1);
            FlowState::Joined
        }
        FlowState::Learned => confirm(slot, entry, options, cx),
        FlowState::Reported => return entry.confirmed(),
        FlowState::ClosingToken => {
            // Anybody can forge a FIN or RST. A packet that comes after it shows that the subflow lives.
            if entry.tick != cx.now {
                decide::touch(Token(entry.aux), entry.backend, false, cx);
            }
            FlowState::ClosingToken
        }
        same => same,
    };
    FlowEntry { state, ..*entry }
}

/// A flow that a MP_CAPABLE SYN opened and that has taught no key yet.
fn await_key(
    slot: &mut Slot,
    entry: &FlowEntry,
    version: Version,
    options: &Options,
    cx: &Context<'_>,
) -> FlowEntry {
    let Some(Capable::Ack { version: said, receiver, .. }) = &options.capable else {
        return keyless(slot, entry, options, cx);
    };
    let token = match slot.foreseen {
        Some((key, token)) if key == *receiver && *said == version => token,
        _ => Token::from_key(*said, receiver),
    };
    slot.verdict.token = Some(token);
    if *said != version || !is_in_place(slot.parsed.tcp.seq, entry) {
        cx.counters.add(Counter::KeyRefused, 1);
        return *entry;
    }
    let (next, is_new) = learn(entry, token, cx);
    slot.verdict.learned |= is_new;
    next
}

/// A flow that awaits its key, after a packet that brings none.
///
/// Data without any MPTCP option: the connection fell back to plain TCP (RFC 8684 section 3.7). A DSS says that the key was
/// lost on the way here, or found no room, and may come again; but not once data has flowed into a second tick, when the
/// client had its acknowledgment long ago: from then on the flow is as good as any, only that its joins are not known. A
/// bare ACK says nothing: anybody can forge one, and SACK blocks may have taken the option's room.
fn keyless(slot: &Slot, entry: &FlowEntry, options: &Options, cx: &Context<'_>) -> FlowEntry {
    let fell_back = !options.mptcp && options.malformed.is_none() && classify::has_payload(&slot.parsed);
    let goes_on = options.dss.is_some() && entry.tick != cx.now;
    if goes_on && entry.lasting {
        cx.counters.add(Counter::KeyMissed, 1);
    }
    let settles = fell_back || goes_on && entry.lasting;
    FlowEntry {
        state: if settles { FlowState::Plain } else { entry.state },
        lasting: entry.lasting || goes_on,
        ..*entry
    }
}

/// Whether a segment that begins at this sequence number may bring the key of a flow that awaits one.
pub(super) fn is_in_place(seq: u32, entry: &FlowEntry) -> bool {
    seq.wrapping_sub(entry.aux.wrapping_add(1)) <= TFO
}

/// Enters a claimed token: the flow's entry then, and whether the token is known now and was not before.
pub(super) fn learn(entry: &FlowEntry, token: Token, cx: &Context<'_>) -> (FlowEntry, bool) {
    let Some(outcome) = decide::enter(token, entry.backend, cx) else {
        return (*entry, false);
    };
    let (counter, state) = match outcome {
        Learn::New => (Counter::TokenLearned, FlowState::Learned),
        Learn::Repeated => (Counter::KeyRepeated, FlowState::Learned),
        Learn::Ambiguous => (Counter::TokenAmbiguous, FlowState::Learned),
        // The token is another connection's: this flow's joins cannot be told from that one's.
        Learn::Conflict => (Counter::TokenConflict, FlowState::Plain),
        // Still awaited: the key comes again with the first data, and by then there may be room.
        Learn::Full => (Counter::TokenTableFull, entry.state),
    };
    cx.counters.add(counter, 1);
    let aux = if state == FlowState::Learned { token.0 } else { entry.aux };
    // A token is provisional as long as its flow is not lasting, however long the key took.
    let lasting = entry.lasting && state != FlowState::Learned;
    (FlowEntry { state, aux, lasting, ..*entry }, outcome == Learn::New)
}

/// A flow that taught its key: confirmed by DSS traffic, fallen back by data without.
fn confirm(slot: &mut Slot, entry: &FlowEntry, options: &Options, cx: &Context<'_>) -> FlowState {
    if let Some(Capable::Ack { version, receiver, .. }) = &options.capable {
        let token = Token::from_key(*version, receiver);
        slot.verdict.token = Some(token);
        let same = token.0 == entry.aux;
        cx.counters.add(if same { Counter::KeyRepeated } else { Counter::KeyConflict }, 1);
        if same {
            decide::touch(token, entry.backend, false, cx);
        }
        return FlowState::Learned;
    }
    if options.dss.is_some() {
        return FlowState::Mptcp;
    }
    let fell_back = !options.mptcp && options.malformed.is_none() && classify::has_payload(&slot.parsed);
    if fell_back { FlowState::Plain } else { FlowState::Learned }
}
