//! Telling the sender of a packet that is too big what size fits (RFC 1191, RFC 8201), and how often that may be.
//!
//! A flood of packets that are too big must not become a flood of answers to whoever their source addresses name, so
//! each worker tells at most [`PER_MILLISECOND`] a millisecond, and [`SAVED`] at once after a silence. What is not
//! told is dropped all the same: TCP sends it again, and then it is told.

use ipc::counter::Counter;
use ipc::reason::Reason;
use packet::{Family, Kind, answer, ipv6};

use super::{Context, Slot, local};
use crate::frames::Frames;

/// Answers a worker may give in a millisecond: a thousand in a second.
const PER_MILLISECOND: u64 = 1;

/// Answers a worker that was silent may give at once.
const SAVED: u64 = 128;

/// How many senders a worker may still tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    left: u64,
    /// When something was last added.
    millis: u64,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { left: SAVED, millis: 0 }
    }
}

impl Allowance {
    /// Takes one if there is one.
    fn take(&mut self, millis: u64) -> bool {
        let passed = millis.saturating_sub(self.millis).min(SAVED);
        self.left = (self.left + passed * PER_MILLISECOND).min(SAVED);
        self.millis = self.millis.max(millis);
        let Some(left) = self.left.checked_sub(1) else {
            return false;
        };
        self.left = left;
        true
    }
}

/// Answers a packet that was refused as too big: `mtu` bytes would have fitted.
pub(super) fn tell<F: Frames>(
    slot: &mut Slot,
    frames: &mut F,
    index: usize,
    mtu: u16,
    allowance: &mut Allowance,
    cx: &Context<'_>,
) {
    if !listens(slot, mtu) {
        return;
    }
    if !allowance.take(cx.millis) {
        return cx.counters.add(Counter::IcmpLimited, 1);
    }
    let frame = frames.bytes(index);
    let Some(mac) = local::own_mac(frame, cx) else { return };
    let Some(answer) = answer::too_big(frame, &slot.parsed, mac, mtu) else { return };
    if frames.replace(index, answer.bytes()) {
        slot.answer(Reason::TooBigTold);
    }
}

/// Whether telling can help: the packet may not be fragmented, and its sender can make smaller ones. An IPv6 sender
/// goes by no size below 1280 (RFC 8201 section 4). Asked before an answer is taken from the allowance.
fn listens(slot: &Slot, mtu: u16) -> bool {
    let parsed = &slot.parsed;
    let is_first = matches!(parsed.kind, Kind::Tcp | Kind::Udp | Kind::UdpFragment { first: true });
    is_first && parsed.dont_fragment && (parsed.flow.family == Family::V4 || mtu >= ipv6::MTU_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_tells_a_thousand_a_second_and_a_few_at_once() {
        let mut allowance = Allowance::default();
        let mut told = |millis: u64| (0..1000).filter(|_| allowance.take(millis)).count();
        assert_eq!(told(5_000), 128, "after a silence");
        assert_eq!(told(5_000), 0);
        assert_eq!(told(5_001), 1);
        assert_eq!((5_002..6_002).map(&mut told).sum::<usize>(), 1000);
        assert_eq!(told(5_500), 0, "the clock of a burst does not run back, and gives nothing if it did");
        assert_eq!(told(60_000), 128);
    }
}
