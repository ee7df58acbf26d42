//! What the packets of a burst that do not go the general way add to the counters, and by which ports they leave.
//!
//! Why apart from [`super::count`]: nearly every packet comes here, so what packets share is added up in registers and written
//! once a burst, or once a run of packets of one VIP and port.

use ipc::counter::Counter;
use ipc::id::{BackendId, PortId, VipId};
use ipc::limits::MAX_PORTS;
use ipc::reason::Reason;

use super::Context;
use super::fast::Fast;

/// What the packets of a burst that do not go the general way add to counters that they share, and which of them leave
/// by which port.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    /// The packets that were sent, as bits.
    done: u64,
    /// Those that went the way of what opens to its end, sent or dropped.
    opened: u64,
    /// How many of those Maglev chose the backend of, and how many a token.
    hashed: u64,
    joined: u64,
    /// How many of those were SYNs with MP_CAPABLE and with MP_JOIN.
    pub(super) capable: u64,
    pub(super) joins: u64,
    /// How many entries they made in the flow table.
    pub(super) inserted: u64,
    bytes: u64,
    /// VIP and port of the last of them: mostly those of the next.
    run: u32,
    /// What was counted before this run.
    before: (u64, u64),
    leaving: &'a mut [u64; MAX_PORTS],
}

impl<'a> Tally<'a> {
    /// Nothing yet; which packets leave by which port goes to `leaving`.
    #[inline]
    pub(super) const fn new(leaving: &'a mut [u64; MAX_PORTS]) -> Self {
        Self {
            done: 0,
            opened: 0,
            hashed: 0,
            joined: 0,
            capable: 0,
            joins: 0,
            inserted: 0,
            bytes: 0,
            run: 0,
            before: (0, 0),
            leaving,
        }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, index: usize, run: u32, bytes: u64, cx: &Context<'_>) {
        if run != self.run {
            self.next_run(run, cx);
        }
        self.done |= 1 << index;
        self.bytes += bytes;
    }

    #[inline(never)]
    #[expect(clippy::cast_possible_truncation, reason = "a run is a VIP and, below it, a port")]
    fn next_run(&mut self, run: u32, cx: &Context<'_>) {
        let (done, bytes) = self.before;
        let (vip, port) = (VipId((self.run >> 8) as u16), usize::from(self.run as u8));
        let of_run = self.done & !done;
        cx.counters.vip(vip, u64::from(of_run.count_ones()), self.bytes - bytes);
        if let Some(mask) = self.leaving.get_mut(port) {
            *mask |= of_run;
        }
        self.before = (self.done, self.bytes);
        self.run = run;
    }

    /// Counts a packet that went the way of what opens to its end: to a backend by a port, with so many bytes, or to nobody.
    #[inline(always)]
    pub(super) fn add_opened(
        &mut self,
        index: usize,
        fast: &Fast,
        reason: Reason,
        sent: Option<(BackendId, PortId, u64)>,
        cx: &Context<'_>,
    ) {
        self.opened |= 1 << index;
        let Some((backend, port, bytes)) = sent else {
            return self.add_dropped(fast, reason, cx);
        };
        self.hashed += u64::from(reason == Reason::Hash);
        self.joined += u64::from(reason == Reason::Token);
        cx.counters.backend(backend, 1, bytes);
        self.add(index, u32::from(fast.service.vip) << 8 | u32::from(port.0), u64::from(fast.received), cx);
    }

    #[inline(never)]
    fn add_dropped(&mut self, fast: &Fast, reason: Reason, cx: &Context<'_>) {
        let bytes = u64::from(fast.received);
        cx.counters.reason(reason, 1);
        cx.counters.vip(VipId(fast.service.vip), 1, bytes);
        cx.counters.add(Counter::RxPackets, 1);
        cx.counters.add(Counter::RxBytes, bytes);
    }

    /// Counts what is left. Which packets went the fast way to its end and which that of what opens.
    #[inline]
    pub(super) fn end(&mut self, cx: &Context<'_>) -> Decided {
        if self.done != 0 {
            self.next_run(0, cx);
            let packets = u64::from(self.done.count_ones());
            cx.counters.add(Counter::RxPackets, packets);
            cx.counters.add(Counter::RxBytes, self.bytes);
            cx.counters.reason(Reason::Flow, packets - self.hashed - self.joined);
        }
        // One whose entry was made may still have been handed over to be sent.
        if self.opened | self.inserted != 0 {
            self.count_openings(cx);
        }
        Decided { fast: self.done & !self.opened, opened: self.opened }
    }

    #[inline(never)]
    fn count_openings(&self, cx: &Context<'_>) {
        cx.counters.reason(Reason::Hash, self.hashed);
        cx.counters.reason(Reason::Token, self.joined);
        cx.counters.add(Counter::CapableSyn, self.capable);
        cx.counters.add(Counter::JoinSyn, self.joins);
        cx.counters.add(Counter::FlowInserted, self.inserted);
    }
}

/// The packets of a burst that need no further stage, as bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decided {
    /// Those that went the fast way to its end.
    pub(super) fast: u64,
    /// Those that went the way of what opens to its end: their verdicts are in their slots.
    pub(super) opened: u64,
}
