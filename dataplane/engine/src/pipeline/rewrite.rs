//! Stage 3: the frames that go to a backend get their new Ethernet addresses and, in a tunnel, an outer header.
//!
//! The packet itself is never touched, its TTL or hop limit included: to the client Weft is the VIP, not a hop.
//! l2dsr changes the MAC addresses only. ipip and gue put outer headers before the packet ([`packet::tunnel`]), of the
//! family of the backend's address: any family in any.

use ipc::message::Forward;
use ipc::reason::Reason;
use packet::tunnel::{self, Inner};
use packet::{Address, Family, Flow, ethernet};
use steering::key::{PRIVATE_LEN, PRIVATE_WORDS};

use super::too_big::{self, Allowance};
use super::{Context, Slot, fast};
use crate::frames::{Frames, places};
use crate::snapshot::Tunnel;
use crate::verdict::Action;

/// Rewrites what leaves to a backend, of the packets at these places; what cannot leave becomes a drop.
pub(super) fn burst<F: Frames>(
    slots: &mut [Slot],
    which: u64,
    frames: &mut F,
    allowance: &mut Allowance,
    cx: &Context<'_>,
) {
    for index in places(which) {
        let Some(slot) = slots.get_mut(index) else { return };
        if slot.verdict.action == Action::Forward
            && let Err(reason) = rewrite(slot, frames, index, cx)
        {
            give_up(slot, frames, index, reason, allowance, cx);
        }
    }
}

/// What cannot leave is dropped, and the sender of what is too big is told if it may be.
#[inline(never)]
fn give_up<F: Frames>(
    slot: &mut Slot,
    frames: &mut F,
    index: usize,
    reason: Reason,
    allowance: &mut Allowance,
    cx: &Context<'_>,
) {
    let fits = if reason == Reason::TooBig { fitting(slot, cx) } else { None };
    slot.refuse(reason);
    slot.verdict.port = cx.port;
    if let Some(mtu) = fits {
        too_big::tell(slot, frames, index, mtu, allowance, cx);
    }
}

/// The largest packet that would have left the way this one could not: the MTU less what a tunnel puts before it.
fn fitting(slot: &Slot, cx: &Context<'_>) -> Option<u16> {
    let (_, vip) = slot.vip(cx)?;
    let backend = cx.snapshot.backend(slot.verdict.backend?)?;
    let mtu = cx.snapshot.port(slot.verdict.port)?.mtu?;
    let overhead = match vip.forward {
        Forward::L2dsr => 0,
        forward => overhead(slot, forward, backend.tunnel(slot.parsed.flow.family)?.family),
    };
    mtu.checked_sub(u16::try_from(overhead).ok()?)
}

#[inline]
fn rewrite<F: Frames>(slot: &mut Slot, frames: &mut F, index: usize, cx: &Context<'_>) -> Result<(), Reason> {
    let backend = slot.verdict.backend.and_then(|id| cx.snapshot.backend(id)).ok_or(Reason::NoBackend)?;
    let (_, vip) = slot.vip(cx).ok_or(Reason::NotVip)?;
    let destination = backend.mac.ok_or(Reason::NoNeighbour)?;
    let family = slot.parsed.flow.family;
    if let Some(port) = fast::by_route(slot, vip, frames, index, cx) {
        slot.verdict.port = port;
        return Ok(());
    }
    let tunnel = match vip.forward {
        Forward::L2dsr => None,
        Forward::Ipip | Forward::Gue => Some(backend.tunnel(family).ok_or(Reason::NoTunnelAddress)?),
    };
    let way = tunnel.map_or_else(|| backend.link(family), |tunnel| tunnel.port);
    slot.verdict.port = way.unwrap_or(cx.port);
    let port = cx.snapshot.port(slot.verdict.port).ok_or(Reason::NoNeighbour)?;

    let inner_len = inner_len(slot, frames, index);
    let overhead = tunnel.map_or(0, |tunnel| overhead(slot, vip.forward, tunnel.family));
    if port.mtu.is_some_and(|mtu| inner_len + overhead > usize::from(mtu)) {
        return Err(Reason::TooBig);
    }
    if let Some(tunnel) = tunnel {
        encapsulate(slot, frames, index, inner_len, vip.forward, tunnel, cx)?;
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

/// Bytes of the IP packet, without Ethernet padding.
#[inline]
fn inner_len<F: Frames>(slot: &Slot, frames: &F, index: usize) -> usize {
    let there = frames.wire_len(index).saturating_sub(usize::from(slot.parsed.l3));
    there.min(usize::from(slot.parsed.packet_len()))
}

/// Bytes that a way of forwarding puts before a packet, in an outer header of this family.
const fn overhead(slot: &Slot, forward: Forward, outer: Family) -> usize {
    let private = if slot.private.is_some() { PRIVATE_LEN } else { 0 };
    match (forward, outer) {
        (Forward::L2dsr, _) => 0,
        (Forward::Ipip, Family::V4) => tunnel::IP_OVER_V4,
        (Forward::Ipip, Family::V6) => tunnel::IP_OVER_V6,
        (Forward::Gue, Family::V4) => tunnel::GUE_OVER_V4 + private,
        (Forward::Gue, Family::V6) => tunnel::GUE_OVER_V6 + private,
    }
}

/// Puts the outer headers between the Ethernet header (with its VLAN tags) and the packet.
#[inline]
fn encapsulate<F: Frames>(
    slot: &Slot,
    frames: &mut F,
    index: usize,
    inner_len: usize,
    forward: Forward,
    tunnel: Tunnel,
    cx: &Context<'_>,
) -> Result<(), Reason> {
    let source = match cx.snapshot.tunnel_source(slot.verdict.port, tunnel.family) {
        Some(source) => source,
        None => stand_in(slot, tunnel, cx).ok_or(Reason::NoTunnelAddress)?,
    };
    let len = u16::try_from(inner_len).map_err(|_| Reason::TooBig)?;
    let link_len = usize::from(slot.parsed.l3);
    // Ethernet padding would become bytes behind the outer packet: it stays behind.
    frames.truncate(index, link_len + inner_len);
    if tunnel.family != slot.parsed.flow.family {
        change_type(frames, index, link_len, tunnel.family)?;
    }
    let frame = frames.bytes(index);
    let hash = if needs_hash(slot, frame, forward, tunnel) { hash(&slot.parsed.flow, cx) } else { 0 };
    let mut inner = Inner::new(frame, &slot.parsed, len, hash);
    if let (Some(private), Forward::Gue) = (&slot.private, forward) {
        put(frames, index, link_len, private)?;
        inner = inner.with_private(PRIVATE_WORDS);
    }
    let destination = tunnel.destination;
    match (forward, tunnel.family) {
        (Forward::Gue, _) => gue(frames, index, link_len, &inner, [source, destination], tunnel.family),
        (_, Family::V4) => {
            let outer = inner.ip_over_v4(source.v4_octets(), destination.v4_octets());
            put(frames, index, link_len, &outer.ok_or(Reason::TooBig)?)
        }
        (_, Family::V6) => {
            let outer = inner.ip_over_v6(source.v6_octets(), destination.v6_octets());
            put(frames, index, link_len, &outer)
        }
    }
}

/// Whether anything in the outer headers is made of the flow's hash: GUE's source port, the flow label where the
/// packet has none, the identification of a packet that may be fragmented. Most packets of ipip do without.
#[inline]
fn needs_hash(slot: &Slot, frame: &[u8], forward: Forward, tunnel: Tunnel) -> bool {
    let parsed = &slot.parsed;
    let has_label = || match frame.get(usize::from(parsed.l3)..).and_then(<[u8]>::first_chunk) {
        Some(first) => u32::from_be_bytes(*first) & 0x000f_ffff != 0,
        None => false,
    };
    forward == Forward::Gue
        || match tunnel.family {
            Family::V4 => !parsed.dont_fragment,
            Family::V6 => parsed.flow.family == Family::V4 || !has_label(),
        }
}

/// The flow's public hash.
#[inline(never)]
fn hash(flow: &Flow, cx: &Context<'_>) -> u64 {
    cx.snapshot.public_key().flow(flow)
}

/// GUE's headers.
#[inline(never)]
fn gue<F: Frames>(
    frames: &mut F,
    index: usize,
    link_len: usize,
    inner: &Inner,
    [source, destination]: [Address; 2],
    family: Family,
) -> Result<(), Reason> {
    match family {
        Family::V4 => {
            let outer = inner.gue_over_v4(source.v4_octets(), destination.v4_octets());
            put(frames, index, link_len, &outer.ok_or(Reason::TooBig)?)
        }
        Family::V6 => {
            let outer = inner.gue_over_v6(source.v6_octets(), destination.v6_octets());
            put(frames, index, link_len, &outer.ok_or(Reason::TooBig)?)
        }
    }
}

/// Writes the outer family's Ethernet type: the last two bytes before the packet, behind any VLAN tags.
#[inline(never)]
fn change_type<F: Frames>(frames: &mut F, index: usize, link_len: usize, to: Family) -> Result<(), Reason> {
    let ethertype = match to {
        Family::V4 => ethernet::IPV4,
        Family::V6 => ethernet::IPV6,
    };
    let link = frames.bytes_mut(index).get_mut(..link_len).ok_or(Reason::Truncated)?;
    *link.last_chunk_mut().ok_or(Reason::Truncated)? = ethertype.to_be_bytes();
    Ok(())
}

/// Without a port there is no address of ours: the VIP's own serves (`replay`).
fn stand_in(slot: &Slot, tunnel: Tunnel, cx: &Context<'_>) -> Option<Address> {
    let flow = &slot.parsed.flow;
    (!cx.snapshot.has_port(slot.verdict.port) && flow.family == tunnel.family).then_some(flow.destination)
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
