//! What Weft answers itself: ARP and neighbour solicitations for the port's own addresses, and, where a VIP asks
//! for it, joins of unknown tokens.
//!
//! Each answer replaces the frame it answers and leaves by the port the frame came from.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipc::reason::Reason;
use packet::arp::Arp;
use packet::icmp6::Solicitation;
use packet::{Kind, Parsed, ResetReason, answer, ethernet};

use super::Context;
use crate::frames::Frames;
use crate::snapshot::Port;

/// Answers who asks for one of the port's addresses.
///
/// # Errors
/// The reason why the frame is not answered; it is as it was.
pub(super) fn answer_neighbour<F: Frames>(
    parsed: &Parsed,
    frames: &mut F,
    index: usize,
    port: &Port,
) -> Result<Reason, Reason> {
    let frame = frames.bytes(index);
    let own = |target: IpAddr| port.addresses.iter().any(|(address, _)| *address == target);
    // Without a MAC address of its own (`replay` without a port) Weft has nothing to tell.
    let (mac, refusal) = match (port.mac, parsed.kind) {
        (Some(mac), Kind::Arp) => (mac, Reason::ArpNotOurs),
        (Some(mac), _) => (mac, Reason::OtherProtocol),
        (None, Kind::Arp) => return Err(Reason::ArpNotOurs),
        (None, _) => return Err(Reason::OtherProtocol),
    };
    let (reply, reason) = match parsed.kind {
        Kind::Arp => {
            let request = Arp::read(frame, parsed).ok_or(refusal)?;
            let asked = own(IpAddr::V4(Ipv4Addr::from(request.target)));
            (asked.then(|| answer::arp_reply(frame, parsed, mac)).flatten(), Reason::Arp)
        }
        _ => {
            let question = Solicitation::read(frame, parsed).ok_or(refusal)?;
            let asked = own(IpAddr::V6(Ipv6Addr::from_bits(question.target.0)));
            (asked.then(|| answer::neighbour_advertisement(frame, parsed, mac)).flatten(), Reason::Neighbour)
        }
    };
    let reply = reply.ok_or(refusal)?;
    if frames.replace(index, reply.bytes()) { Ok(reason) } else { Err(refusal) }
}

/// Answers a join of an unknown token with RST and MP_TCPRST: reason 1 (MPTCP-specific), transient, since the
/// token may be known a moment later (RFC 8684 sections 3.2 and 3.6). `false` where there is nothing to answer;
/// the frame is as it was then.
pub(super) fn answer_reset<F: Frames>(
    parsed: &Parsed,
    frames: &mut F,
    index: usize,
    cx: &Context<'_>,
) -> bool {
    let frame = frames.bytes(index);
    let Some(mac) =
        cx.snapshot.port(cx.port).and_then(|port| port.mac).or_else(|| ethernet::destination(frame))
    else {
        return false;
    };
    let Some(reset) = answer::tcp_reset(frame, parsed, mac, true, ResetReason::MPTCP) else {
        return false;
    };
    frames.replace(index, reset.bytes())
}
