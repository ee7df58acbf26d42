//! The packet path: bytes of a burst in, a verdict for each packet and rewritten frames out.
//!
//! Most packets are usual ones of established flows and go through `fast` alone; SYNs and third ACKs as Linux sends them
//! go through `opening`. For the others, four stages over the whole burst, in this order:
//! 1. `classify`: parse, find the VIP, hash, prefetch the table lines (no look-up yet);
//! 2. `decide`: look-ups, inserts and learning, *in packet order*, because a SYN, its third ACK and a join may
//!    share a burst. What is rare (`syn`, `unsettled`) lives in functions of its own that are not inlined;
//! 3. `rewrite`: Ethernet addresses, tunnel headers;
//! 4. counting.
//!
//! Invariants: no allocation, lock, log, system call, panic or unbounded loop; verdicts do not depend on how
//! packets are cut into bursts; TCP bytes leave unchanged. The decisions are those of the table in
//! docs/packet-path.md; the learning rules are RFC 8684 sections 3.1 and 3.2 as a balancer sees them that
//! watches the client's packets only.

mod chosen;
mod classify;
mod count;
mod decide;
mod endpoint;
mod explicit;
mod fast;
mod guard;
mod local;
mod opening;
mod other;
mod rewrite;
mod steer;
mod syn;
mod tally;
mod too_big;
mod unsettled;

use ipc::counters::WorkerCounters;
use ipc::id::{BackendId, PortId, VipId};
use ipc::limits::{BURST, MAX_PORTS};
use ipc::reason::Reason;
use packet::{Key, Parsed, Token, Version};
use steering::key::PRIVATE_LEN;

use self::fast::Fast;
use self::guard::Guard;
use self::opening::Opening;
use self::too_big::Allowance;
use crate::frames::{Frames, places};
use crate::snapshot::Snapshot;
use crate::tables::Tables;
use crate::tick::Tick;
use crate::verdict::{Action, Verdict};

/// What a burst is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// VIPs, pools, backends and ports.
    pub snapshot: &'a Snapshot,
    /// Flows and tokens.
    pub tables: &'a Tables,
    /// Where the worker counts.
    pub counters: &'a WorkerCounters,
    /// The time.
    pub now: Tick,
    /// The same time, finer: in milliseconds of the same clock, never backwards. Rates are measured by it.
    pub millis: u64,
    /// The port the burst came from.
    pub port: PortId,
}

/// What a packet is, once classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// The verdict stands already: dropped, punted or answered.
    Decided,
    /// A SYN to a VIP.
    Syn(SynKind),
    /// A SYN to a port or address that belongs to this backend alone.
    Endpoint(BackendId, SynKind),
    /// Any other TCP packet to a VIP.
    Tcp,
    /// A UDP packet to a VIP.
    Udp,
    /// A fragment of a UDP datagram to a VIP.
    Fragment,
    /// An ICMP error about a packet of a VIP's flow; the flow and its hash are those of the quoted packet.
    Related,
}

/// What a SYN says it opens, whatever its VIP does with that; a join counts as one only where joins are steered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SynKind {
    /// A connection without MPTCP, or whose MPTCP options contradict each other.
    Plain,
    /// An MPTCP connection.
    Capable(Version),
    /// An MPTCP connection that offers explicit tokens.
    Explicit,
    /// A further subflow of the connection with this token.
    Join(Token),
}

/// One packet's place in the scratch memory.
#[derive(Clone, Copy, Debug)]
struct Slot {
    parsed: Parsed,
    hash: u64,
    class: Class,
    verdict: Verdict,
    /// Bytes received: what leaves may be longer.
    received: usize,
    /// A key that was seen ahead, and its token, whose line was asked for.
    foreseen: Option<(Key, Token)>,
    /// What the backend is told beside the packet, in GUE's private data.
    private: Option<[u8; PRIVATE_LEN]>,
}

/// One worker's pipeline: scratch memory for a burst. Kept for life, so that nothing is initialised per burst.
#[derive(Debug)]
pub struct Pipeline {
    slots: [Slot; BURST],
    fast: [Fast; BURST],
    openings: [Opening; BURST],
    guard: Guard,
    allowance: Allowance,
}

impl Default for Pipeline {
    fn default() -> Self {
        let slot = Slot {
            parsed: packet::parse(&[], 0),
            hash: 0,
            class: Class::Decided,
            verdict: Verdict::drop(Reason::NoConfig, PortId(0)),
            received: 0,
            foreseen: None,
            private: None,
        };
        Self {
            slots: [slot; BURST],
            fast: [Fast::default(); BURST],
            openings: [Opening::default(); BURST],
            guard: Guard::default(),
            allowance: Allowance::default(),
        }
    }
}

impl Pipeline {
    /// Judges a burst and rewrites the frames that leave. Frames past [`BURST`] get no verdict: the caller
    /// never offers more.
    pub fn process<'a, F: Frames>(&'a mut self, frames: &mut F, cx: &'a Context<'_>) -> Judged<'a> {
        let count = frames.len().min(BURST);
        let slots = self.slots.get_mut(..count).unwrap_or_default();
        let fast = self.fast.get_mut(..count).unwrap_or_default();
        let openings = self.openings.get_mut(..count).unwrap_or_default();
        let mut held = classify::burst(slots, fast, openings, frames, cx);
        if held.syn {
            syn::prefetch(slots, ones(count) & !held.fast & !held.opening, cx);
        }
        if held.opening != 0 {
            opening::prefetch(fast, openings, held.opening, cx);
        }
        let lost = fast::find(fast, held.fast, cx);
        if lost != 0 {
            held = unsettled::foresee(slots, fast, openings, held, lost, frames, cx);
        }
        let mut leaving = [0; MAX_PORTS];
        let decided = decide::burst(slots, (fast, openings), held, frames, &mut self.guard, &mut leaving, cx);
        let others = ones(count) & !decided.fast & !decided.opened;
        let mut punted = 0;
        if others != 0 {
            rewrite::burst(slots, others, frames, &mut self.allowance, cx);
            count::burst(slots, others, frames, cx);
            punted = sort(slots, others, &mut leaving);
        }
        Judged { slots, fast, done: decided.fast, leaving, punted, cx }
    }
}

/// Notes by which ports packets leave; says which are for the kernel.
#[inline(never)]
fn sort(slots: &[Slot], which: u64, leaving: &mut [u64; MAX_PORTS]) -> u64 {
    let mut punted = 0;
    for index in places(which) {
        let Some(verdict) = slots.get(index).map(|slot| &slot.verdict) else { break };
        if let (true, Some(mask)) = (verdict.action.is_sent(), leaving.get_mut(usize::from(verdict.port.0))) {
            *mask |= 1 << index;
        }
        punted |= u64::from(verdict.action == Action::Punt) << index;
    }
    punted
}

/// A burst that was judged.
#[derive(Debug)]
pub struct Judged<'a> {
    slots: &'a [Slot],
    fast: &'a [Fast],
    done: u64,
    leaving: [u64; MAX_PORTS],
    punted: u64,
    cx: &'a Context<'a>,
}

impl Judged<'_> {
    /// The frames that leave, by port: the places of a burst as bits.
    #[inline]
    pub fn leaving(&self) -> &[u64; MAX_PORTS] {
        &self.leaving
    }

    /// The frames that went the fast path to its end, as bits: for those who measure.
    #[inline]
    pub fn fast(&self) -> u64 {
        self.done
    }

    /// The frames that are for the kernel.
    #[inline]
    pub fn punted(&self) -> u64 {
        self.punted
    }

    /// The verdict on each frame, in order.
    pub fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        self.slots.iter().zip(self.fast).enumerate().map(|(index, (slot, fast))| {
            if self.done >> index & 1 == 1 { fast.verdict(self.cx) } else { slot.verdict }
        })
    }
}

/// The lowest `count` bits.
#[inline]
const fn ones(count: usize) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

impl Slot {
    /// To a backend.
    fn forward(&mut self, reason: Reason, backend: BackendId) {
        self.verdict.action = Action::Forward;
        self.verdict.reason = reason;
        self.verdict.backend = Some(backend);
    }

    /// Answered: the frame holds the answer now.
    fn answer(&mut self, reason: Reason) {
        self.verdict.action = Action::Local;
        self.verdict.reason = reason;
    }

    /// The kernel's, which would otherwise have been dropped for the reason that stands.
    fn punt(&mut self) {
        self.verdict.action = Action::Punt;
    }

    /// Dropped.
    fn refuse(&mut self, reason: Reason) {
        self.verdict.action = Action::Drop;
        self.verdict.reason = reason;
        self.verdict.backend = None;
    }

    /// The VIP it is addressed to; set for every class but [`Class::Decided`].
    fn vip<'a>(&self, cx: &Context<'a>) -> Option<(VipId, &'a crate::snapshot::Vip)> {
        let id = self.verdict.vip?;
        Some((id, cx.snapshot.vip(id)?))
    }
}
