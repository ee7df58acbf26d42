//! What Weft answers itself: ARP, neighbour solicitations, echo requests, and, where a VIP asks for it, joins of
//! unknown tokens and SYNs that are wrong at a backend's endpoint. Whether to answer is decided elsewhere.
//!
//! Each answer replaces the frame it answers and leaves by the port the frame came from, under the same VLAN tags.
//! Every function says whether it answered; where it did not, the frame is as it was.

use packet::{Parsed, TcpRst, answer, ethernet};

use super::Context;
use crate::frames::Frames;
use crate::snapshot::Port;

/// The MAC address that an answer comes from: the port's, or without a port (`replay`) the one that was written to.
pub(super) fn own_mac(frame: &[u8], cx: &Context<'_>) -> Option<[u8; 6]> {
    let port = cx.snapshot.port(cx.port)?;
    port.mac.or_else(|| ethernet::destination(frame))
}

/// Tells who asks which MAC address an IPv4 address has. Without a MAC address of its own (`replay` without a port)
/// Weft has nothing to tell.
pub(super) fn answer_arp<F: Frames>(parsed: &Parsed, frames: &mut F, index: usize, port: &Port) -> bool {
    let reply = port.mac.and_then(|mac| answer::arp_reply(frames.bytes(index), parsed, mac));
    reply.is_some_and(|reply| frames.replace(index, reply.bytes()))
}

/// The same for an IPv6 address; to all nodes where the question was a search for duplicates (RFC 4862 section
/// 5.4.3, RFC 4861 section 7.2.4).
pub(super) fn answer_solicitation<F: Frames>(
    parsed: &Parsed,
    frames: &mut F,
    index: usize,
    port: &Port,
) -> bool {
    let reply = port.mac.and_then(|mac| answer::neighbour_advertisement(frames.bytes(index), parsed, mac));
    reply.is_some_and(|reply| frames.replace(index, reply.bytes()))
}

/// Turns an echo request into its reply, in place: as long as it is in the buffer as a whole.
pub(super) fn answer_echo<F: Frames>(
    parsed: &Parsed,
    frames: &mut F,
    index: usize,
    cx: &Context<'_>,
) -> bool {
    let Some(mac) = own_mac(frames.bytes(index), cx) else {
        return false;
    };
    answer::echo_reply(frames.bytes_mut(index), parsed, mac)
}

/// Answers a SYN with RST and, where its sender speaks MPTCP, MP_TCPRST (RFC 8684 sections 3.2 and 3.6).
pub(super) fn answer_reset<F: Frames>(
    parsed: &Parsed,
    told: Option<TcpRst>,
    frames: &mut F,
    index: usize,
    cx: &Context<'_>,
) -> bool {
    let frame = frames.bytes(index);
    let reset = own_mac(frame, cx).and_then(|mac| answer::tcp_reset(frame, parsed, mac, told));
    reset.is_some_and(|reset| frames.replace(index, reset.bytes()))
}
