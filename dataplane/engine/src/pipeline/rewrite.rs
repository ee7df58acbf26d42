//! Stage 3: the frames that go to a backend get their new Ethernet addresses and, in a tunnel, an outer header.
//!
//! TCP and UDP bytes are never touched. l2dsr changes the MAC addresses only. ipip puts an IP header of the
//! packet's own family before it (RFC 2003, RFC 2473), with DSCP and ECN copied (RFC 6040 section 4.1) and the
//! inner packet's don't-fragment flag, so that nothing the network says about the path is hidden.

use ipc::message::Forward;
use ipc::reason::Reason;
use packet::{Family, ethernet, ipv4, ipv6};

use super::{Context, Slot};
use crate::frames::Frames;
use crate::snapshot::Backend;
use crate::verdict::Action;

/// Rewrites what leaves to a backend; what cannot leave becomes a drop.
pub(super) fn burst<F: Frames>(slots: &mut [Slot], frames: &mut F, cx: &Context<'_>) {
    for (index, slot) in slots.iter_mut().enumerate() {
        if slot.verdict.action == Action::Forward
            && let Err(reason) = rewrite(slot, frames, index, cx)
        {
            slot.refuse(reason);
            slot.verdict.port = cx.port;
        }
    }
}

#[inline]
fn rewrite<F: Frames>(slot: &mut Slot, frames: &mut F, index: usize, cx: &Context<'_>) -> Result<(), Reason> {
    let backend = slot.verdict.backend.and_then(|id| cx.snapshot.backend(id)).ok_or(Reason::NoBackend)?;
    let (_, vip) = slot.vip(cx).ok_or(Reason::NotVip)?;
    let destination = backend.mac.ok_or(Reason::NoNeighbour)?;
    slot.verdict.port = backend.port.unwrap_or(cx.port);
    let port = cx.snapshot.port(slot.verdict.port).ok_or(Reason::NoNeighbour)?;

    let packet_len = frames.wire_len(index).saturating_sub(usize::from(slot.parsed.l3));
    let inner_len = packet_len.min(usize::from(slot.parsed.packet_len()));
    let outer_len = match vip.forward {
        Forward::L2dsr => 0,
        Forward::Ipip | Forward::Gue => header_len(slot.parsed.flow.family),
    };
    if port.mtu.is_some_and(|mtu| inner_len + outer_len > usize::from(mtu)) {
        return Err(Reason::TooBig);
    }
    if outer_len > 0 {
        encapsulate(slot, frames, index, backend, inner_len, cx)?;
    }
    let frame = frames.bytes_mut(index);
    let [dst @ .., _, _] = frame.first_chunk_mut::<14>().ok_or(Reason::Truncated)?;
    let (to, from) = dst.split_at_mut(ethernet::SOURCE);
    match port.mac {
        Some(mac) => from.copy_from_slice(&mac),
        None => from.copy_from_slice(to),
    }
    to.copy_from_slice(&destination);
    Ok(())
}

/// Bytes an outer header of a family adds.
const fn header_len(family: Family) -> usize {
    match family {
        Family::V4 => ipv4::HEADER_LEN,
        Family::V6 => ipv6::HEADER_LEN,
    }
}

/// Puts the outer header between the Ethernet header (with its VLAN tags) and the packet.
#[inline]
fn encapsulate<F: Frames>(
    slot: &Slot,
    frames: &mut F,
    index: usize,
    backend: &Backend,
    inner_len: usize,
    cx: &Context<'_>,
) -> Result<(), Reason> {
    let family = slot.parsed.flow.family;
    let source = match cx.snapshot.tunnel_source(slot.verdict.port, family) {
        Some(source) => source,
        // Without a port there is no address of ours: the VIP's own serves (`replay`).
        None if !cx.snapshot.has_port(slot.verdict.port) => slot.parsed.flow.destination,
        None => return Err(Reason::NoTunnelAddress),
    };
    let destination = backend.address(family).ok_or(Reason::NoTunnelAddress)?;
    let payload_len = u16::try_from(inner_len).map_err(|_| Reason::TooBig)?;
    let link_len = usize::from(slot.parsed.l3);

    // Ethernet padding would become bytes behind the outer packet: it stays behind.
    frames.truncate(index, link_len + inner_len);
    let packet = frames.bytes(index).get(link_len..).unwrap_or_default();
    match family {
        Family::V4 => {
            let outer = ipv4::Outer {
                source: source.v4_octets(),
                destination: destination.v4_octets(),
                protocol: ipv4::IPV4_INSIDE,
                tos: slot.parsed.tos,
                dont_fragment: slot.parsed.dont_fragment,
                identification: identification(packet),
                payload_len,
            };
            put(frames, index, link_len, &outer.to_bytes().ok_or(Reason::TooBig)?)
        }
        Family::V6 => {
            let outer = ipv6::Outer {
                source: source.v6_octets(),
                destination: destination.v6_octets(),
                next_header: ipv4::IPV6_INSIDE,
                traffic_class: slot.parsed.tos,
                flow_label: flow_label(packet),
                payload_len,
            };
            put(frames, index, link_len, &outer.to_bytes())
        }
    }
}

/// The inner IPv4 packet's identification, kept in the outer header: whoever sent the packet already tells the
/// fragments of one stream apart by it.
fn identification(packet: &[u8]) -> u16 {
    packet.get(4..6).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

/// The inner IPv6 packet's flow label, kept in the outer header, so that paths and queues behind the tunnel
/// still spread flows (RFC 6438).
fn flow_label(packet: &[u8]) -> u32 {
    packet.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes) & 0x000f_ffff)
}

/// Makes room for `outer` in front, moves the link header there and writes `outer` behind it.
#[inline]
fn put<F: Frames, const N: usize>(
    frames: &mut F,
    index: usize,
    link_len: usize,
    outer: &[u8; N],
) -> Result<(), Reason> {
    let frame = frames.prepend(index, N).ok_or(Reason::NoHeadroom)?;
    let from = N..N + link_len;
    if frame.len() < N + link_len {
        return Err(Reason::Truncated);
    }
    frame.copy_within(from, 0);
    let room = frame.get_mut(link_len..link_len + N).ok_or(Reason::Truncated)?;
    room.copy_from_slice(outer);
    Ok(())
}
