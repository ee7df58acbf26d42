//! Stage 1: what a packet is, before any table is read.
//!
//! Parses every header once, keeps what is not for a VIP out of the way, hashes what is, and asks for the table
//! lines that stage 2 will read.

use ipc::counter::Counter;
use ipc::id::VipId;
use ipc::reason::Reason;
use packet::{Flags, Kind, Malformed, Opening, Options, Parsed};

use super::fast::{self, Fast};
use super::opening::Opening as Opens;
use super::{Class, Context, Slot, SynKind, chosen, endpoint, explicit, other};
use crate::frames::{Frames, places};
use crate::snapshot::Port;
use crate::verdict::Verdict;

/// What a burst holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    /// The packets that may go the fast way, as bits.
    pub(super) fast: u64,
    /// Those that may go the way of what opens.
    pub(super) opening: u64,
    /// A SYN to a VIP is among the others.
    pub(super) syn: bool,
}

/// Classifies a whole burst.
pub(super) fn burst<F: Frames>(
    slots: &mut [Slot],
    fast: &mut [Fast],
    openings: &mut [Opens],
    frames: &mut F,
    cx: &Context<'_>,
) -> Held {
    let seen = fast::look(fast, frames, cx);
    let mut held = Held { fast: seen.fast, ..Held::default() };
    for index in places(seen.others) {
        let may_open = seen.opening >> index & 1 == 1;
        let (Some(slot), Some(opening), Some(fast)) =
            (slots.get_mut(index), openings.get_mut(index), fast.get(index))
        else {
            break;
        };
        if may_open && opening.look(frames.bytes(index), fast, cx) {
            held.opening |= 1 << index;
        } else {
            one(slot, frames, index, cx);
            held.syn |= matches!(slot.class, Class::Syn(_));
        }
    }
    held
}

/// Classifies one frame.
#[inline(never)]
pub(super) fn one<F: Frames>(slot: &mut Slot, frames: &mut F, index: usize, cx: &Context<'_>) {
    slot.received = frames.wire_len(index);
    slot.parsed = packet::parse(frames.bytes(index), slot.received);
    slot.verdict = Verdict::drop(Reason::NotVip, cx.port);
    slot.class = Class::Decided;
    slot.foreseen = None;
    slot.private = None;
    match slot.parsed.kind {
        Kind::Tcp | Kind::Udp => service(slot, frames.bytes(index), cx),
        _ => other::classify(slot, frames, index, cx),
    }
}

/// A TCP or UDP packet: for a VIP, or not.
#[inline]
fn service(slot: &mut Slot, frame: &[u8], cx: &Context<'_>) {
    let Some(port) = cx.snapshot.port(cx.port) else {
        return;
    };
    if !is_ours(port, frame) {
        return other::not_our_mac(slot, frame, port, cx);
    }
    if !cx.snapshot.is_configured() {
        return other::unconfigured(slot, port, cx);
    }
    let flow = &slot.parsed.flow;
    let Some(vip) = cx.snapshot.service(flow) else {
        if endpoint::find(slot, frame, cx) {
            return;
        }
        return other::leave_to_kernel(slot, port, Reason::NotVip, cx);
    };
    slot.verdict.vip = Some(vip);
    slot.hash = cx.tables.flow_hash(flow);
    cx.tables.flows.prefetch(slot.hash);
    slot.class = match slot.parsed.kind {
        Kind::Udp => Class::Udp,
        _ if opens(slot.parsed.tcp.flags) => Class::Syn(syn(slot, frame, cx)),
        _ => later(slot, vip, frame, cx),
    };
}

/// A TCP packet that opens nothing.
#[inline]
fn later(slot: &mut Slot, vip: VipId, frame: &[u8], cx: &Context<'_>) -> Class {
    let is_decided = cx.snapshot.chooses_keys() && chosen::later(slot, vip, frame, cx);
    if is_decided { Class::Decided } else { Class::Tcp }
}

/// What a SYN opens, by its options. Asks for the token's line where it joins.
#[inline(never)]
pub(super) fn syn(slot: &mut Slot, frame: &[u8], cx: &Context<'_>) -> SynKind {
    let bytes = slot.parsed.tcp_options(frame);
    if explicit::is_offered(slot, bytes, cx) {
        return SynKind::Explicit;
    }
    let (opening, malformed) = packet::opening(bytes, slot.parsed.tcp.flags, has_payload(&slot.parsed));
    count_malformed(malformed, cx);
    let Some((_, vip)) = slot.vip(cx) else {
        return SynKind::Plain;
    };
    match opening {
        Opening::Join(token) => {
            cx.counters.add(Counter::JoinSyn, 1);
            slot.verdict.token = Some(token);
            if !vip.steers() {
                return SynKind::Plain;
            }
            cx.tables.tokens.prefetch(cx.tables.token_hash(token, vip.pool));
            SynKind::Join(token)
        }
        Opening::Capable(version) => {
            cx.counters.add(Counter::CapableSyn, 1);
            SynKind::Capable(version)
        }
        Opening::Plain => SynKind::Plain,
    }
}

/// Whether the destination MAC address is the port's, or the port takes any (`replay` without a port).
#[inline]
pub(super) fn is_ours(port: &Port, frame: &[u8]) -> bool {
    port.mac.is_none_or(|mac| frame.first_chunk() == Some(&mac))
}

/// Whether the destination MAC address is a group's: broadcast or multicast.
pub(super) fn is_group(frame: &[u8]) -> bool {
    frame.first().is_some_and(|first| first & 1 == 1)
}

/// The options of a TCP packet, walked once.
pub(super) fn options_of(parsed: &Parsed, frame: &[u8]) -> Options {
    packet::options(parsed.tcp_options(frame), parsed.tcp.flags, has_payload(parsed))
}

/// Whether a TCP packet carries data.
pub(super) fn has_payload(parsed: &Parsed) -> bool {
    parsed.payload_len() > 0
}

/// Counts what the option walk could not accept. The packet goes on as plain TCP.
pub(super) fn count_malformed(malformed: Option<Malformed>, cx: &Context<'_>) {
    let Some(malformed) = malformed else {
        return;
    };
    let counter = match malformed {
        Malformed::Option => Counter::OptionMalformed,
        Malformed::MptcpLength => Counter::MptcpBadLength,
        Malformed::MptcpFlags => Counter::MptcpBadFlags,
        Malformed::CapableAndJoin => Counter::MptcpCapableAndJoin,
    };
    cx.counters.add(counter, 1);
}

/// Whether a packet opens something: SYN alone among SYN, ACK, RST and FIN (RFC 8684 section 3.1). A SYN with
/// FIN or RST opens nothing anywhere.
#[inline]
pub(super) const fn opens(flags: Flags) -> bool {
    flags.opens() && !flags.any(Flags::RST.with(Flags::FIN))
}
