//! VIPs whose servers' keys Weft chooses (Olteanu and Raiciu, "Datacenter scale load balancing for Multipath TCP",
//! HotMiddlebox 2016, solution 1): a connection is steered by what its packets say, and nothing is remembered of it.
//!
//! - A SYN with MP_CAPABLE gets a key ([`steering::key`]); the backend in whose range the key's token lies has it, and the
//!   key with it, in GUE's private data.
//! - A join goes by its token, as the VIP's schemes say ([`super::steer`]).
//! - Every later packet goes by the number in the timestamp that it echoes.
//!
//! **Invariants.** The number goes before the flow table, so that no forged packet that made an entry there can turn a
//! client's own packets away. No table is written for packets with timestamps, nor read but for schemes that the VIP lists
//! before this one. SYNs without timestamps go the usual way, with an entry, since nothing will say where the packets after
//! them belong.

use ipc::counter::Counter;
use ipc::id::{BackendId, VipId};
use ipc::reason::Reason;
use packet::{Token, Version};
use steering::key;

use super::guard::Guard;
use super::{Context, Slot, SynKind, steer};
use crate::frames::Frames;
use crate::snapshot::Vip;

/// Decides a SYN to a VIP whose keys are chosen, if it is this module's: `None`. Else what it opens in the usual way.
#[inline(never)]
pub(super) fn decide<F: Frames>(
    slot: &mut Slot,
    kind: SynKind,
    frames: &mut F,
    index: usize,
    guard: &mut Guard,
    cx: &Context<'_>,
) -> Option<SynKind> {
    let (_, vip) = slot.vip(cx)?;
    if !vip.chooses_keys() || kind == SynKind::Plain {
        return Some(kind);
    }
    let is_stamped = packet::timestamps(slot.parsed.tcp_options(frames.bytes(index))).is_some();
    match kind {
        SynKind::Capable(version) if is_stamped && open(slot, version, vip, cx) => return None,
        SynKind::Join(token) if is_stamped => {
            steer::join(slot, token, None, frames, index, guard, cx);
            return None;
        }
        _ if is_stamped => {}
        _ => cx.counters.add(Counter::ChosenKeyUnstamped, 1),
    }
    Some(kind)
}

/// Chooses a key for a connection, and with it the backend. `false`: none was found.
fn open(slot: &mut Slot, version: Version, vip: &Vip, cx: &Context<'_>) -> bool {
    let (Some(maker), Some(map)) = (vip.key_maker(), cx.snapshot.token_map(vip.pool)) else {
        return false;
    };
    for number in 0..key::DRAWS {
        let draw = maker.draw(&slot.parsed.flow, slot.parsed.tcp.seq, number);
        let token = Token::from_key(version, &draw.key);
        let Some(backend) = map.ranges().owner(token.0) else { break };
        let Some(named) = cx.snapshot.takes_new(vip.pool, backend) else { continue };
        // A number that is another's would send all later packets there.
        let own = named.number.filter(|number| map.numbers().backend(*number) == Some(backend));
        if let Some(own) = own.filter(|_| key::accepts(number, draw.lot, named.weight, named.most)) {
            slot.private = Some(key::private_data(own, draw.key));
            slot.verdict.token = Some(token);
            slot.forward(Reason::ChosenKey, backend);
            return true;
        }
    }
    cx.counters.add(Counter::ChosenKeyUnplaced, 1);
    false
}

/// Decides a TCP packet that opens nothing, if its VIP's keys are chosen and it echoes the number of a backend.
#[inline(never)]
pub(super) fn later(slot: &mut Slot, vip: VipId, frame: &[u8], cx: &Context<'_>) -> bool {
    let Some(vip) = cx.snapshot.vip(vip).filter(|vip| vip.chooses_keys()) else {
        return false;
    };
    // RFC 7323 section 3.2: what is echoed counts beside ACK.
    let said = packet::timestamps(slot.parsed.tcp_options(frame)).filter(|_| slot.parsed.tcp.flags.ack());
    let Some(backend) = said.and_then(|said| numbered(said.echoed, vip, cx)) else {
        cx.counters.add(Counter::TimestampUnknown, u64::from(said.is_some()));
        return false;
    };
    slot.forward(Reason::Timestamp, backend);
    true
}

/// Decides an ICMP error about a packet of a server whose number is in the packet's timestamp.
#[inline(never)]
pub(super) fn related(slot: &mut Slot, vip: VipId, frame: &[u8], cx: &Context<'_>) -> bool {
    let vip = cx.snapshot.vip(vip).filter(|vip| vip.chooses_keys());
    let stamp = packet::icmp::quoted_timestamp(frame, &slot.parsed);
    let Some(backend) = vip.zip(stamp).and_then(|(vip, stamp)| numbered(stamp, vip, cx)) else {
        return false;
    };
    slot.forward(Reason::Related, backend);
    true
}

/// The backend whose number is in a timestamp.
fn numbered(stamp: u32, vip: &Vip, cx: &Context<'_>) -> Option<BackendId> {
    let backend = cx.snapshot.token_map(vip.pool)?.numbers().backend(key::number_of(stamp)?)?;
    cx.snapshot.backend(backend).map(|_| backend)
}
