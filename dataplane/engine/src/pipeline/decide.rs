//! Stage 2: the decision about each packet, in packet order.
//!
//! Packets that may go the fast path do ([`super::fast`]). For the others: find the flow, check that its backend is
//! known, and, once a tick, write that it was seen. Whatever else can happen has a function of its own.

use ipc::counter::Counter;
use ipc::id::BackendId;
use ipc::limits::{BURST, MAX_PORTS};
use ipc::reason::Reason;
use packet::{Flow, Token};

use super::classify::Held;
use super::fast::{self, Fast};
use super::guard::Guard;
use super::opening::{self, Came, Opening};
use super::tally::{Decided, Tally};
use super::{Class, Context, Slot, classify, endpoint, syn, unsettled};
use crate::flow_entry::{FlowEntry, FlowState};
use crate::flow_table::{Found, Inserted};
use crate::frames::Frames;
use crate::lifetimes::{Class as EvictClass, Room};
use crate::token_table::Learn;
use crate::verdict::Action;

/// A flow without a packet for more than a tick leaves its 5-tuple to a join.
const SILENT_TICKS: u16 = 2;

/// Decides a whole burst: which packets need no further stage, and by which ports those leave.
pub(super) fn burst<F: Frames>(
    slots: &mut [Slot],
    (fast, openings): (&mut [Fast], &[Opening]),
    held: Held,
    frames: &mut F,
    guard: &mut Guard,
    leaving: &mut [u64; MAX_PORTS],
    cx: &Context<'_>,
) -> Decided {
    let mut tally = Tally::new(leaving);
    let mut index = fast::run(fast, 0, frames, &mut tally, cx);
    // What comes next may change what was looked up ahead.
    fast.iter_mut().skip(index + 1).for_each(Fast::lose);
    let opens = |index: usize| index < BURST && held.opening >> index & 1 == 1;
    // Bounded by the burst: `run` does not end before where it begins.
    while let Some(slot) = slots.get_mut(index) {
        let opening = openings.get(index).zip(fast.get(index)).filter(|_| opens(index));
        let came =
            opening.map(|opening| opening::decide(opening, slot, frames, index, guard, &mut tally, cx));
        if came == Some(Came::Nowhere) || held.fast >> index & 1 == 1 {
            classify::one(slot, frames, index, cx);
        }
        if matches!(came, None | Some(Came::Nowhere)) {
            one(slot, frames, index, guard, cx);
        }
        index += 1;
        if !opens(index) {
            index = fast::run(fast, index, frames, &mut tally, cx);
        }
    }
    tally.end(cx)
}

/// Decides one packet.
#[inline(never)]
fn one<F: Frames>(slot: &mut Slot, frames: &mut F, index: usize, guard: &mut Guard, cx: &Context<'_>) {
    match slot.class {
        Class::Decided => {}
        Class::Tcp => tcp(slot, frames.bytes(index), cx),
        Class::Syn(kind) => syn::decide(slot, kind, frames, index, guard, cx),
        Class::Endpoint(backend, kind) => endpoint::decide(slot, backend, kind, frames, index, cx),
        Class::Udp => udp(slot, cx),
        Class::Fragment => fragment(slot, cx),
        Class::Related => related(slot, cx),
    }
}

/// A TCP packet that opens nothing.
#[inline]
fn tcp(slot: &mut Slot, frame: &[u8], cx: &Context<'_>) {
    let look = look(slot.hash, cx);
    let Some(found) = look.live() else {
        return adopt(slot, &look, cx);
    };
    let flags = slot.parsed.tcp.flags;
    if !found.entry.state.is_settled() || flags.fin() || flags.rst() {
        return unsettled::decide(slot, found, frame, cx);
    }
    seen(slot, found, cx);
    slot.forward(Reason::Flow, found.entry.backend);
}

/// What the table holds for a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    found: Option<Found>,
    is_stale: bool,
}

impl Look {
    /// The flow's entry, if it has one, its backend is still known and its idle time has not passed. What is stale
    /// counts as absent whether or not the sweep came by yet, so that verdicts do not depend on the sweep's place.
    #[inline]
    pub(super) fn live(&self) -> Option<&Found> {
        self.found.as_ref().filter(|_| !self.is_stale)
    }
}

/// Looks a flow up.
#[inline]
pub(super) fn look(hash: u64, cx: &Context<'_>) -> Look {
    let found = cx.tables.flows.find(hash);
    Look { found, is_stale: found.is_some_and(|found| is_stale(&found.entry, cx)) }
}

/// Whether an entry counts as absent: its backend is gone or its idle time has passed.
#[inline]
fn is_stale(entry: &FlowEntry, cx: &Context<'_>) -> bool {
    cx.snapshot.backend(entry.backend).is_none()
        || (entry.tick != cx.now && cx.tables.lifetimes.idle.is_expired(entry, cx.now))
}

/// Writes that a settled flow was seen, at most once a tick, and with it that its token lives.
#[inline]
fn seen(slot: &Slot, found: &Found, cx: &Context<'_>) {
    if found.entry.tick != cx.now {
        refresh(slot, found, cx);
    }
}

/// The once-a-tick part of [`seen`].
///
/// An established flow first waits two ticks: when it is written then, it has outlived at least one whole tick with
/// traffic. It is lasting from then on, and the token of a first subflow rises to rank seen.
#[inline(never)]
fn refresh(slot: &Slot, found: &Found, cx: &Context<'_>) {
    let entry = found.entry;
    let may_last = !matches!(entry.state, FlowState::Adopted | FlowState::Udp);
    if may_last && !entry.lasting && cx.now.age_of(entry.tick) < 2 {
        return;
    }
    let next = compare(slot, FlowEntry { tick: cx.now, lasting: may_last, ..entry }, cx);
    // A lost race means another worker wrote the same entry now: it was seen either way.
    if cx.tables.flows.update(found, next) && next.moved && !entry.moved {
        cx.counters.add(Counter::FlowMoved, 1);
    }
    if !entry.state.has_token() {
        return;
    }
    let is_first = entry.state == FlowState::Mptcp;
    if is_first && !entry.lasting && enter(Token(entry.aux), entry.backend, cx) == Some(Learn::New) {
        // Its claim had given way to another's while it was provisional.
        cx.counters.add(Counter::TokenLearned, 1);
    }
    touch(Token(entry.aux), entry.backend, is_first, cx);
}

/// Enters a backend's claim to a token, counting one that gave way; `None` if the backend is unknown.
pub(super) fn enter(token: Token, backend: BackendId, cx: &Context<'_>) -> Option<Learn> {
    let pool = cx.snapshot.backend(backend)?.pool;
    let belongs = |other| cx.snapshot.is_of_pool(other, pool);
    let hash = cx.tables.token_hash(token, pool);
    let (learned, gave_way) = cx.tables.tokens.enter(hash, token, backend, cx.now, belongs);
    if gave_way {
        cx.counters.add(Counter::TokenEvicted, 1);
    }
    Some(learned)
}

/// The entry with what Maglev says now: whether its backend is another. A join was never Maglev's to answer.
pub(super) fn compare(slot: &Slot, entry: FlowEntry, cx: &Context<'_>) -> FlowEntry {
    if entry.joins() {
        return entry;
    }
    let moved = maglev(slot, &slot.parsed.flow, cx) != Some(entry.backend);
    FlowEntry { moved, ..entry }
}

/// Refreshes a token's entry; `promote` raises it to rank seen.
pub(super) fn touch(token: Token, backend: BackendId, promote: bool, cx: &Context<'_>) {
    let Some(known) = cx.snapshot.backend(backend) else {
        return;
    };
    let hash = cx.tables.token_hash(token, known.pool);
    if cx.tables.tokens.touch(hash, token, backend, cx.now, promote) {
        cx.counters.add(Counter::TokenSeen, 1);
    }
}

/// A TCP packet of no known flow: Maglev decides, and its entry goes first when room is needed.
#[inline(never)]
fn adopt(slot: &mut Slot, look: &Look, cx: &Context<'_>) {
    open(slot, FlowState::Adopted, 0, look, cx);
    if slot.verdict.action == Action::Forward {
        cx.counters.add(Counter::Adopted, 1);
    }
}

/// A UDP packet.
#[inline(never)]
fn udp(slot: &mut Slot, cx: &Context<'_>) {
    let look = look(slot.hash, cx);
    match look.live() {
        Some(found) => {
            seen(slot, found, cx);
            slot.forward(Reason::Flow, found.entry.backend);
        }
        None => open(slot, FlowState::Udp, 0, &look, cx),
    }
}

/// A fragment of a UDP datagram: by Maglev, without an entry.
#[inline(never)]
fn fragment(slot: &mut Slot, cx: &Context<'_>) {
    stateless(slot, Reason::Fragment, cx);
}

/// An ICMP error about a flow: to its backend. It does not count as traffic of the flow, since anybody can send one,
/// and of an unknown flow it makes no entry.
#[inline(never)]
fn related(slot: &mut Slot, cx: &Context<'_>) {
    match look(slot.hash, cx).live() {
        Some(found) => slot.forward(Reason::Related, found.entry.backend),
        None => stateless(slot, Reason::Related, cx),
    }
}

/// To the backend Maglev gives the packet's flow, which leaves no trace.
pub(super) fn stateless(slot: &mut Slot, reason: Reason, cx: &Context<'_>) {
    match maglev(slot, &slot.parsed.flow, cx) {
        Some(backend) => slot.forward(reason, backend),
        None => slot.refuse(Reason::NoBackend),
    }
}

/// The backend Maglev gives a flow in its VIP's pool. Stateless: appliances with one seed agree on it.
pub(super) fn maglev(slot: &Slot, flow: &Flow, cx: &Context<'_>) -> Option<BackendId> {
    let (_, vip) = slot.vip(cx)?;
    cx.snapshot.choose(vip.pool, cx.snapshot.public_key().flow(flow))
}

/// Opens a flow on the backend Maglev chooses, over the entry that was found, which is stale or gives way to it.
pub(super) fn open(slot: &mut Slot, state: FlowState, isn: u32, over: &Look, cx: &Context<'_>) {
    if let Some(backend) = stays(slot, over, cx) {
        let entry = compare(slot, FlowEntry::opened(state, cx.now, backend, isn, isn), cx);
        return place(slot, entry, if entry.moved { Reason::Flow } else { Reason::Hash }, over, cx);
    }
    match maglev(slot, &slot.parsed.flow, cx) {
        Some(backend) => {
            let entry = FlowEntry::opened(state, cx.now, backend, isn, isn);
            place(slot, entry, Reason::Hash, over, cx);
        }
        None => slot.refuse(Reason::NoBackend),
    }
}

/// The backend that a flow had whose entry gives way, if packets brought it there and it takes new connections: any of
/// those will do for a new one, and a client whose end somebody forged, and then its beginning, keeps its server.
fn stays(slot: &Slot, over: &Look, cx: &Context<'_>) -> Option<BackendId> {
    let entry = over.live().filter(|found| found.entry.state != FlowState::Reported)?.entry;
    let (_, vip) = slot.vip(cx)?;
    cx.snapshot.takes_new(vip.pool, entry.backend).map(|_| entry.backend)
}

/// Whether a flow of which packets came lately stands in the way of a join that would take it to another backend.
/// Whoever has a token of his own could take any flow there else, by a forged RST and a forged join.
fn stands_in_the_way(entry: &FlowEntry, over: &Look, cx: &Context<'_>) -> bool {
    let is_in_use = |held: &FlowEntry| {
        held.state != FlowState::Reported
            && held.backend != entry.backend
            && cx.now.age_of(held.tick) < SILENT_TICKS
    };
    entry.joins() && over.live().is_some_and(|found| is_in_use(&found.entry))
}

/// Makes the flow's entry, over the one that gives way or is stale where there is one, and forwards.
///
/// Where another worker made it first, its backend holds: a live entry other than the one that was judged is
/// never written over. Where the table is full the packet goes on without an entry, counted.
pub(super) fn place(slot: &mut Slot, entry: FlowEntry, reason: Reason, over: &Look, cx: &Context<'_>) {
    if stands_in_the_way(&entry, over, cx) {
        return slot.refuse(Reason::FlowInUse);
    }
    let (reason, backend) = enter_flow(slot.hash, entry, reason, over, cx);
    slot.forward(reason, backend);
}

/// The same, without the forwarding: to whom, and why.
fn enter_flow(
    hash: u64,
    entry: FlowEntry,
    reason: Reason,
    over: &Look,
    cx: &Context<'_>,
) -> (Reason, BackendId) {
    let flows = &cx.tables.flows;
    if over.found.is_some_and(|old| flows.update(&old, entry)) {
        cx.counters.add(Counter::FlowInserted, 1);
        return (reason, entry.backend);
    }
    let unsure = |other: &FlowEntry| is_unsure(other, cx);
    let room = Room { now: cx.now, lifetimes: &cx.tables.lifetimes, unsure };
    // A SYN's flow was looked for a moment ago, and `insert_absent` looks once more when it is done. Packets in the
    // middle of a flow are the ones that a look may have missed while its entry moved.
    let inserted = if entry.state.is_half_open() && over.found.is_none() {
        flows.insert_absent(hash, entry, &room)
    } else {
        flows.insert(hash, entry, &room)
    };
    entered(inserted, entry, reason, cx)
}

/// Makes the entry of a flow that is in no line and whose first line has no empty slot: to whom the packet goes, and why.
#[inline(never)]
pub(super) fn enter_elsewhere(
    hash: u64,
    entry: FlowEntry,
    reason: Reason,
    cx: &Context<'_>,
) -> (Reason, BackendId) {
    let unsure = |other: &FlowEntry| is_unsure(other, cx);
    let room = Room { now: cx.now, lifetimes: &cx.tables.lifetimes, unsure };
    entered(cx.tables.flows.insert_elsewhere(hash, entry, &room), entry, reason, cx)
}

/// Counts what became of an insert: to whom the packet goes, and why.
pub(super) fn entered(
    inserted: Inserted,
    entry: FlowEntry,
    reason: Reason,
    cx: &Context<'_>,
) -> (Reason, BackendId) {
    match inserted {
        Inserted::New(_) => cx.counters.add(Counter::FlowInserted, 1),
        Inserted::Over(_, class) => {
            cx.counters.add(Counter::FlowInserted, 1);
            cx.counters.add(evicted(class), 1);
        }
        Inserted::Existing(found) => return (Reason::Flow, found.entry.backend),
        Inserted::Full => cx.counters.add(Counter::FlowTableFull, 1),
    }
    (reason, entry.backend)
}

/// Whether an entry was last seen before its pool's Maglev table changed, so that nobody knows whether it moved.
fn is_unsure(entry: &FlowEntry, cx: &Context<'_>) -> bool {
    entry.is_unsure(cx.snapshot, cx.now, cx.millis)
}

/// What counts an entry of a class that gave way.
const fn evicted(class: EvictClass) -> Counter {
    match class {
        EvictClass::HalfOpen => Counter::FlowEvictedHalfOpen,
        EvictClass::Adopted => Counter::FlowEvictedAdopted,
        EvictClass::Closing => Counter::FlowEvictedClosing,
        EvictClass::Own => Counter::FlowEvictedOwn,
        EvictClass::Kept => Counter::FlowEvictedKept,
    }
}
