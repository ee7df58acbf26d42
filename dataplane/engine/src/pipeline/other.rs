//! Stage 1 for what is neither a whole TCP segment nor a whole UDP datagram: ARP, ICMP, fragments, other protocols.
//! All of it is rare, and none of it is inlined into the burst loop.
//!
//! What is for a VIP is forwarded or answered here; what is for a port's own addresses is answered here where no
//! kernel does; the rest is the kernel's where there is one, else a drop with its reason.

use core::net::IpAddr;

use ipc::reason::Reason;
use packet::arp::Arp;
use packet::icmp::{self, Message};
use packet::icmp6::Solicitation;
use packet::{Address, Family, Flow, Kind, ParseError};

use super::classify::{is_group, is_ours};
use super::{Class, Context, Slot, chosen, endpoint, local};
use crate::frames::Frames;
use crate::snapshot::Port;
use crate::way::family_of;

/// Classifies a frame that is no whole TCP segment or UDP datagram.
#[inline(never)]
pub(super) fn classify<F: Frames>(slot: &mut Slot, frames: &mut F, index: usize, cx: &Context<'_>) {
    let Some(port) = cx.snapshot.port(cx.port) else {
        return;
    };
    let frame = frames.bytes(index);
    if !is_ours(port, frame) && !is_group(frame) {
        return slot.refuse(Reason::NotOurMac);
    }
    match slot.parsed.kind {
        Kind::Arp => arp(slot, frames, index, port, cx),
        Kind::Icmp4 { .. } | Kind::Icmp6 { .. } => message(slot, frames, index, port, cx),
        Kind::UdpFragment { .. } => fragment(slot, frame, port, cx),
        Kind::Error(error) => damaged(slot, error, port, cx),
        Kind::Tcp | Kind::Udp | Kind::OtherIp => leave_to_kernel(slot, port, Reason::OtherProtocol, cx),
    }
}

/// A TCP or UDP packet whose destination MAC address is not the port's. The kernel has groups of its own.
#[inline(never)]
pub(super) fn not_our_mac(slot: &mut Slot, frame: &[u8], port: &Port, cx: &Context<'_>) {
    if is_group(frame) && port.has_kernel() && !cx.snapshot.is_vip_address(&slot.parsed.flow) {
        return leave_to_kernel(slot, port, Reason::NotVip, cx);
    }
    slot.refuse(Reason::NotOurMac);
}

/// A TCP or UDP packet before any configuration: it may be a VIP's, and the kernel would answer it with RST. Only
/// the port's own addresses are certain.
#[inline(never)]
pub(super) fn unconfigured(slot: &mut Slot, port: &Port, cx: &Context<'_>) {
    if port.has_kernel() && port.owns(destination(&slot.parsed.flow)) {
        return leave_to_kernel(slot, port, Reason::NotVip, cx);
    }
    slot.refuse(Reason::NoConfig);
}

/// Not ours to forward or to answer: the kernel's where it has the frame already or gets it through the exception
/// path, else a drop with its reason.
///
/// The kernel does not own a VIP: what is for one and for no service of it goes nowhere by the exception path, since a
/// kernel that routes would send it round and round.
#[inline(never)]
pub(super) fn leave_to_kernel(slot: &mut Slot, port: &Port, reason: Reason, cx: &Context<'_>) {
    slot.refuse(reason);
    let flow = &slot.parsed.flow;
    let is_a_vips = || cx.snapshot.is_vip_address(flow) && !port.owns(destination(flow));
    if port.kernel_sees_frames || (port.exception && !is_a_vips()) {
        slot.punt();
    }
}

/// Whether Weft answers who asks for the MAC address of this IP address: a port's own where no kernel does, and a
/// VIP's in one of the port's prefixes, which no kernel has.
fn answers_for(address: IpAddr, port: &Port, cx: &Context<'_>) -> bool {
    if port.owns(address) {
        return !port.has_kernel();
    }
    cx.snapshot.has_vip_address(Address::from(address), family_of(address)) && port.is_on_link(address)
}

/// ARP. Who announces an address of its own (RFC 5227 section 3) asks nothing.
fn arp<F: Frames>(slot: &mut Slot, frames: &mut F, index: usize, port: &Port, cx: &Context<'_>) {
    let asked = Arp::read(frames.bytes(index), &slot.parsed)
        .filter(|request| request.sender != request.target)
        .is_some_and(|request| answers_for(IpAddr::V4(request.target.into()), port, cx));
    if asked && local::answer_arp(&slot.parsed, frames, index, port) {
        return slot.answer(Reason::Arp);
    }
    leave_to_kernel(slot, port, Reason::ArpNotOurs, cx);
}

/// An ICMP or ICMPv6 message.
fn message<F: Frames>(slot: &mut Slot, frames: &mut F, index: usize, port: &Port, cx: &Context<'_>) {
    let is_a_vips = cx.snapshot.is_vip_address(&slot.parsed.flow);
    let is_own = || port.owns(destination(&slot.parsed.flow)) && !port.has_kernel();
    match icmp::message(slot.parsed.kind) {
        Message::EchoRequest if is_a_vips || is_own() => {
            if local::answer_echo(&slot.parsed, frames, index, cx) {
                slot.answer(Reason::Echo);
            } else {
                slot.refuse(Reason::BadIcmp);
            }
        }
        Message::Error if is_a_vips => related(slot, frames.bytes(index), port, cx),
        _ => {
            let asked = Solicitation::read(frames.bytes(index), &slot.parsed)
                .is_some_and(|question| answers_for(v6(question.target), port, cx));
            if asked && local::answer_solicitation(&slot.parsed, frames, index, port) {
                return slot.answer(Reason::Neighbour);
            }
            leave_to_kernel(slot, port, Reason::OtherProtocol, cx);
        }
    }
}

/// Where a packet goes, by its own family: a v4-mapped IPv6 address is no IPv4 address.
fn destination(flow: &Flow) -> IpAddr {
    match flow.family {
        Family::V4 => IpAddr::V4(flow.destination.v4_octets().into()),
        Family::V6 => v6(flow.destination),
    }
}

/// An address out of an IPv6 packet.
fn v6(address: Address) -> IpAddr {
    IpAddr::V6(address.0.into())
}

/// An ICMP error to a VIP: the server that sent the quoted packet must have it, or it would go on sending what does not
/// arrive. From here on the flow is that of the quoted packet. What is about no flow of a service may be the kernel's,
/// where the address is the port's own too.
fn related(slot: &mut Slot, frame: &[u8], port: &Port, cx: &Context<'_>) {
    if is_group(frame) {
        return slot.refuse(Reason::NotOurMac);
    }
    let quoted = icmp::quoted(frame, &slot.parsed);
    let Some((flow, vip)) = quoted.and_then(|flow| Some((flow, cx.snapshot.service(&flow)?))) else {
        if quoted.is_some_and(|flow| endpoint::related(slot, &flow, cx)) {
            return;
        }
        if port.owns(destination(&slot.parsed.flow)) {
            return leave_to_kernel(slot, port, Reason::BadIcmp, cx);
        }
        return slot.refuse(Reason::BadIcmp);
    };
    slot.verdict.vip = Some(vip);
    if cx.snapshot.chooses_keys() && chosen::related(slot, vip, frame, cx) {
        slot.parsed.flow = flow;
        return;
    }
    slot.parsed.flow = flow;
    slot.hash = cx.tables.flow_hash(&flow);
    cx.tables.flows.prefetch(slot.hash);
    slot.class = Class::Related;
}

/// A fragment of a UDP datagram. All of them, the first one too, go by addresses and protocol, so that they meet.
fn fragment(slot: &mut Slot, frame: &[u8], port: &Port, cx: &Context<'_>) {
    if !cx.snapshot.is_vip_address(&slot.parsed.flow) {
        return leave_to_kernel(slot, port, Reason::OtherFragment, cx);
    }
    if is_group(frame) {
        return slot.refuse(Reason::NotOurMac);
    }
    let Some(vip) = cx.snapshot.fragment_service(&slot.parsed.flow) else {
        return slot.refuse(Reason::OtherFragment);
    };
    slot.verdict.vip = Some(vip);
    slot.class = Class::Fragment;
}

/// What could not be parsed. Damaged packets are drops on every port, and so are fragments to a VIP.
fn damaged(slot: &mut Slot, error: ParseError, port: &Port, cx: &Context<'_>) {
    let reason = drop_reason(error);
    let is_fragment = matches!(error, ParseError::TcpFragment | ParseError::OtherFragment);
    let is_foreign = is_fragment && !cx.snapshot.is_vip_address(&slot.parsed.flow);
    if is_foreign || error == ParseError::OtherEthertype {
        return leave_to_kernel(slot, port, reason, cx);
    }
    slot.refuse(reason);
}

/// A parse error's name among the reasons.
const fn drop_reason(error: ParseError) -> Reason {
    match error {
        ParseError::Truncated => Reason::Truncated,
        ParseError::OtherEthertype => Reason::OtherEthertype,
        ParseError::BadIpv4 => Reason::BadIpv4,
        ParseError::BadIpv6 => Reason::BadIpv6,
        ParseError::BadTcp => Reason::BadTcp,
        ParseError::BadUdp => Reason::BadUdp,
        ParseError::BadIcmp => Reason::BadIcmp,
        ParseError::TcpFragment => Reason::TcpFragment,
        ParseError::OtherFragment => Reason::OtherFragment,
    }
}
