//! The fast path: packets of established flows in the layout nearly all have, which is most of all packets.
//!
//! Everything about such a packet is known to be usual: TCP without SYN, FIN or RST, no VLAN tag, no IP options, no
//! fragment, in one buffer ([`packet::brief`]); to a VIP; of a flow whose entry is settled and of which nothing is to be
//! written now; to a backend whose headers are finished ([`crate::route`]). Whatever is not goes the general way, through
//! [`super::classify`], [`super::decide`] and [`super::rewrite`], which takes from here only how a route is written
//! ([`by_route`]).
//!
//! **Invariants.**
//! - The verdict, the bytes and the counts are those of the general way. Nothing is written before the last question is
//!   answered, so a packet can be handed over at any point.
//! - Verdicts do not depend on how packets are cut into bursts: what was looked up ahead counts only as long as every
//!   packet before it in the burst went the fast way, which changes no table.
//!
//! Why it is worth a second way: a general look at every packet costs four times as much (docs/performance.md).
//! Three passes, so that the memory each needs was asked for in the one before: headers and hash; the look-up in the
//! flow's line; the headers written, and counted.

use ipc::id::{BackendId, PortId, VipId};
use ipc::reason::Reason;
use packet::brief::{Brief4, Brief6};
use packet::{Address, Family, Flags, Words, ethernet, ipv4, ipv6, tcp};

use super::tally::Tally;
use super::{Context, Slot};
use crate::frames::Frames;
use crate::route::{HEAD, HEAD4, Kind, Route, RouteSet};
use crate::snapshot::{ServiceKey, Vip};
use crate::verdict::{Action, Verdict};

/// What is remembered of a packet between the passes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fast {
    pub(super) hash: u64,
    /// What an outer header takes from the inner one: [`Brief4::head`] or [`Brief6::head`].
    head: u64,
    pub(super) service: Service,
    /// Bytes of the IP packet.
    pub(super) len: u16,
    /// Bytes of the frame as received.
    pub(super) received: u16,
    /// Its backend, or nobody.
    backend: u16,
}

/// In the place of a backend: not found yet.
const LOST: u16 = u16::MAX;

/// In the place of a backend: the packet goes the general way.
const NOT_FAST: u16 = u16::MAX - 1;

const _: () = assert!(ipc::limits::MAX_BACKENDS < NOT_FAST as usize, "ids that no backend has");

/// A frame's destination MAC address among its first eight bytes.
const MAC: u64 = u64::from_be_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);

/// TCP flags of packets that are not the established flow's usual ones.
const UNUSUAL: Flags = Flags::SYN.with(Flags::FIN).with(Flags::RST);

/// The flow label in [`Brief6::head`].
const FLOW_LABEL: u64 = u64::from_le_bytes([0, 0x0f, 0xff, 0xff, 0, 0, 0, 0]);

/// What one burst's packets are compared with.
struct Scene {
    /// A frame is for this port if its first eight bytes are this under the mask; never, if nothing is under it.
    mac: u64,
    mask: u64,
    /// The IPv4 service of the packet before, which is mostly that of this one: address and port as one number.
    last4: (u64, Service),
    /// The same, IPv6.
    last6: (u128, u32, Service),
}

/// A VIP, and the routes that its packets of one family take.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(4))]
pub(super) struct Service {
    pub(super) vip: u16,
    routes: RouteSet,
}

/// What the first pass saw, as bits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// The frames that may go the fast way.
    pub(super) fast: u64,
    /// All others.
    pub(super) others: u64,
    /// Those of them that are in the usual layout and for a VIP, with flags that are not usual: they may go the way of what
    /// opens, [`super::opening`].
    pub(super) opening: u64,
}

/// How many frames ahead their bytes are asked for: many, since one frame is looked at in far less time than memory
/// takes.
const AHEAD: usize = 32;

/// The first pass: looks at every frame, and remembers those in the usual layout.
///
/// A loop of its own, so that what it needs stays in registers.
#[inline(never)]
pub(super) fn look<F: Frames>(fast: &mut [Fast], frames: &F, cx: &Context<'_>) -> Seen {
    let mut seen = Seen::default();
    let mut scene = Scene::new(cx);
    for index in 0..fast.len().min(AHEAD) {
        frames.prefetch(index);
    }
    for (index, fast) in fast.iter_mut().enumerate() {
        frames.prefetch(index + AHEAD);
        match scene.look(frames.bytes(index), frames.wire_len(index), fast, cx) {
            Some(flags) if !flags.any(UNUSUAL) => seen.fast |= 1 << index,
            Some(_) => (seen.others, seen.opening) = (seen.others | 1 << index, seen.opening | 1 << index),
            None => seen.others |= 1 << index,
        }
    }
    seen
}

impl Scene {
    /// For packets of the context's port.
    fn new(cx: &Context<'_>) -> Self {
        let port = cx.snapshot.port(cx.port).filter(|_| cx.snapshot.is_configured());
        let (mac, mask) = match port.map(|port| port.mac) {
            Some(Some([a, b, c, d, e, f])) => (u64::from_be_bytes([a, b, c, d, e, f, 0, 0]), MAC),
            // The port takes any.
            Some(None) => (0, 0),
            None => (1, 0),
        };
        let nothing = Service::default();
        Self { mac, mask, last4: (u64::MAX, nothing), last6: (0, u32::MAX, nothing) }
    }

    /// Looks at a frame, and remembers it if it is in the usual layout and for a VIP: its flags.
    #[inline(always)]
    fn look(&mut self, frame: &[u8], wire_len: usize, fast: &mut Fast, cx: &Context<'_>) -> Option<Flags> {
        let first = frame.first_chunk().map(|eight| u64::from_be_bytes(*eight))?;
        // Of a frame in several segments only the first is here.
        if first & self.mask != self.mac || frame.len() != wire_len || wire_len > 0xffff {
            return None;
        }
        if let Some(brief) = Brief4::read(frame) {
            return self.look4(&brief, wire_len, fast, cx).then_some(brief.flags);
        }
        let brief = Brief6::read(frame)?;
        self.look6(&brief, wire_len, fast, cx).then_some(brief.flags)
    }

    #[inline(always)]
    fn look4(&mut self, brief: &Brief4, wire_len: usize, fast: &mut Fast, cx: &Context<'_>) -> bool {
        let key = brief.addresses >> 32 << 16 | u64::from(brief.ports >> 16);
        if key != self.last4.0 {
            let [.., a, b, c, d] = brief.addresses.to_le_bytes();
            let Some(service) = ask(Address::from_v4([a, b, c, d]), brief.ports, Family::V4, cx) else {
                return false;
            };
            self.last4 = (key, service);
        }
        remember(fast, self.last4.1, brief.words(), wire_len, brief.len, cx);
        fast.head = brief.head;
        true
    }

    #[inline(always)]
    fn look6(&mut self, brief: &Brief6, wire_len: usize, fast: &mut Fast, cx: &Context<'_>) -> bool {
        let port = brief.ports >> 16;
        if (brief.destination, port) != (self.last6.0, self.last6.1) {
            let Some(service) = ask(Address(brief.destination.swap_bytes()), brief.ports, Family::V6, cx)
            else {
                return false;
            };
            self.last6 = (brief.destination, port, service);
        }
        remember(fast, self.last6.2, brief.words(), wire_len, brief.len, cx);
        fast.head = brief.head;
        true
    }
}

/// Notes what both families have, and asks for the flow's line.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "longer frames do not come here")]
fn remember(fast: &mut Fast, service: Service, words: Words, received: usize, len: u16, cx: &Context<'_>) {
    fast.hash = cx.tables.entry_hash(words);
    cx.tables.flows.prefetch(fast.hash);
    fast.len = len;
    fast.received = received as u16;
    fast.service = service;
}

/// The service of an address and port.
#[inline(never)]
fn ask(address: Address, ports: u32, family: Family, cx: &Context<'_>) -> Option<Service> {
    let [_, _, high, low] = ports.to_le_bytes();
    let port = u16::from_be_bytes([high, low]);
    let id = cx.snapshot.service_at(&ServiceKey { address, port, protocol: tcp::PROTOCOL, family })?;
    let routes = cx.snapshot.vip(id)?.routes(family)?;
    Some(Service { vip: id.0, routes })
}

/// The second pass: looks up the flows of these packets, of which it gives back those that it did not find settled. The
/// others will not go the fast way.
///
/// A loop of its own, as the first is.
#[inline(never)]
pub(super) fn find(fast: &mut [Fast], which: u64, cx: &Context<'_>) -> u64 {
    let mut lost = 0;
    for (index, fast) in fast.iter_mut().enumerate() {
        if which >> index & 1 == 1 {
            lost |= u64::from(!fast.find(cx)) << index;
        } else {
            fast.give_up();
        }
    }
    lost
}

/// Sends packets the fast way from place `from` on, as far as they may go: where it ends.
///
/// A loop of its own, so that what it needs stays in registers.
#[inline(never)]
pub(super) fn run<F: Frames>(
    fast: &mut [Fast],
    from: usize,
    frames: &mut F,
    tally: &mut Tally<'_>,
    cx: &Context<'_>,
) -> usize {
    for (index, fast) in fast.iter_mut().enumerate().skip(from) {
        if fast.backend == LOST {
            fast.find_anywhere(cx);
        }
        if !fast.forward(frames, index, tally, cx) {
            return index;
        }
    }
    fast.len()
}

impl Fast {
    /// Looks the flow up, in the line that was asked for. Where it is not, asks for the others.
    /// Says whether it is there and settled.
    #[inline(always)]
    pub(super) fn find(&mut self, cx: &Context<'_>) -> bool {
        self.backend = cx.tables.flows.settled(self.hash, cx.now).map_or(LOST, |backend| backend.0);
        self.backend != LOST
    }

    /// Whether it is an IPv6 packet: its head begins with the version.
    pub(super) const fn is_v6(&self) -> bool {
        self.head & 0xf0 == 0x60
    }

    /// What was found counts no more: it is looked up again when its turn comes.
    pub(super) fn lose(&mut self) {
        self.backend = if self.backend == NOT_FAST { NOT_FAST } else { LOST };
    }

    /// It goes the general way.
    pub(super) fn give_up(&mut self) {
        self.backend = NOT_FAST;
    }

    /// Looks the flow up in all of its lines.
    #[inline(never)]
    fn find_anywhere(&mut self, cx: &Context<'_>) {
        self.backend = cx.tables.flows.settled_anywhere(self.hash, cx.now).map_or(LOST, |backend| backend.0);
    }

    /// The third pass: writes the headers and counts. `false`: nothing was done, and the packet goes the general way.
    #[inline(always)]
    fn forward<F: Frames>(
        &self,
        frames: &mut F,
        index: usize,
        tally: &mut Tally<'_>,
        cx: &Context<'_>,
    ) -> bool {
        let backend = BackendId(self.backend);
        let Some(route) = cx.snapshot.routes().get(self.service.routes, backend) else { return false };
        if self.len > route.room {
            return false;
        }
        let Some(sent) = self.rewrite(route, frames, index) else { return false };
        cx.counters.backend(backend, 1, sent);
        let run = u32::from(self.service.vip) << 8 | u32::from(route.port.0);
        tally.add(index, run, u64::from(self.received), cx);
        true
    }

    /// Writes the headers that send it to a backend: the port it leaves by, and how long the frame is then. `None`: nothing
    /// was done, and the general way says what comes of it.
    #[inline]
    pub(super) fn send<F: Frames>(
        &self,
        backend: BackendId,
        frames: &mut F,
        index: usize,
        cx: &Context<'_>,
    ) -> Option<(PortId, u64)> {
        let route = cx.snapshot.routes().get(self.service.routes, backend)?;
        if self.len > route.room {
            return None;
        }
        Some((route.port, self.rewrite(route, frames, index)?))
    }

    /// Writes the headers; how long the frame is then.
    #[inline(always)]
    fn rewrite<F: Frames>(&self, route: &Route, frames: &mut F, index: usize) -> Option<u64> {
        let frame_len = ethernet::HEADER_LEN as u64 + u64::from(self.len);
        if route.kind == Kind::V4OverV4 {
            over_v4(self.grow(frames, index, HEAD4 - 14)?.first_chunk_mut()?, route, self.len, self.head);
            return Some(frame_len + 20);
        }
        match route.kind {
            Kind::V6OverV4 => {
                let [first, second, ..] = self.head.to_le_bytes();
                let head = u64::from_le_bytes([0x08, 0, 0x45, first << 4 | second >> 4, 0, 0, 0, 0]);
                over_v4(self.grow(frames, index, HEAD4 - 14)?.first_chunk_mut()?, route, self.len, head);
                Some(frame_len + 20)
            }
            // Without a flow label of its own it gets one of the flow's hash.
            Kind::V6OverV6 if self.head & FLOW_LABEL != 0 => {
                over_v6(self.grow(frames, index, HEAD - 14)?.first_chunk_mut()?, route, self.len, self.head);
                Some(frame_len + 40)
            }
            Kind::L2dsr => {
                let bytes: &mut [u8; 12] = frames.bytes_mut(index).first_chunk_mut()?;
                bytes.copy_from_slice(route.head.first_chunk::<12>()?);
                Some(u64::from(self.received))
            }
            _ => None,
        }
    }

    /// Makes room for an outer header. Ethernet padding would become bytes behind the outer packet: it stays behind.
    #[inline(always)]
    fn grow<'f, F: Frames>(&self, frames: &'f mut F, index: usize, count: usize) -> Option<&'f mut [u8]> {
        let end = ethernet::HEADER_LEN + usize::from(self.len);
        if usize::from(self.received) == end {
            return frames.prepend(index, count);
        }
        // Cut only once there is room: where there is none, nothing was done.
        frames.prepend(index, count)?;
        frames.truncate(index, end + count);
        Some(frames.bytes_mut(index))
    }

    /// The verdict of a packet that went the fast way.
    pub(super) fn verdict(&self, cx: &Context<'_>) -> Verdict {
        let backend = BackendId(self.backend);
        Verdict {
            action: Action::Forward,
            reason: Reason::Flow,
            vip: Some(VipId(self.service.vip)),
            backend: Some(backend),
            token: None,
            learned: false,
            port: cx.snapshot.routes().get(self.service.routes, backend).map_or(cx.port, |route| route.port),
        }
    }
}

/// Writes the headers of a packet that was decided in the general way, if it has a route and the plain layout that
/// routes are made for; the port it leaves by. `None`: the general way writes them.
///
/// That layout is not certain here as it is behind [`Brief4`]: the outer header takes version and header length from the
/// packet, so an IPv4 header with options has no route.
#[inline]
pub(super) fn by_route<F: Frames>(
    slot: &Slot,
    vip: &Vip,
    frames: &mut F,
    index: usize,
    cx: &Context<'_>,
) -> Option<PortId> {
    let parsed = &slot.parsed;
    let routes = vip.routes(parsed.flow.family)?;
    let frame = frames.bytes(index);
    // A later fragment's outer identification is made of its offset, too.
    let is_whole = !matches!(parsed.kind, packet::Kind::UdpFragment { .. });
    if usize::from(parsed.l3) != ethernet::HEADER_LEN || !parsed.dont_fragment || !is_whole {
        return None;
    }
    let (at, mask, start) = match parsed.flow.family {
        Family::V4 => (12, 0xff_ffff, 0x45_0008),
        Family::V6 => (14, 0xf0, 0x60),
    };
    let head = u64::from_le_bytes(*frame.get(at..)?.first_chunk()?);
    let received = u16::try_from(slot.received).ok()?;
    if head & mask != start || frame.len() != slot.received {
        return None;
    }
    let backend = slot.verdict.backend?;
    let route = cx.snapshot.routes().get(routes, backend)?;
    let (service, len) = (Service { vip: 0, routes }, parsed.packet_len());
    let fast = Fast { hash: 0, head, service, len, received, backend: backend.0 };
    if len > route.room {
        return None;
    }
    fast.rewrite(route, frames, index)?;
    Some(route.port)
}

/// Ethernet and outer IPv4 headers: the route's, with what is the packet's own. `head` is as [`Brief4::head`] says.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a sum of 16-bit words, folded")]
fn over_v4(bytes: &mut [u8; HEAD4], route: &Route, len: u16, head: u64) {
    let outer_len = u64::from(len.wrapping_add(20).swap_bytes());
    // The sum of the header's words does not depend on the order of bytes (RFC 1071 section 2).
    let sum = u64::from(route.sum) + (head >> 16 & 0xffff) + outer_len + (head >> 48);
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    if let Some(template) = route.head.first_chunk() {
        *bytes = *template;
    }
    let own = head & 0xffff_0000_ffff_ffff | outer_len << 32;
    [bytes[12], bytes[13], bytes[14], bytes[15], bytes[16], bytes[17], bytes[18], bytes[19]] =
        own.to_le_bytes();
    [bytes[24], bytes[25]] = checksum.to_le_bytes();
}

/// Ethernet and outer IPv6 headers before an IPv6 packet, whose version, traffic class and flow label they take.
/// `head` is as [`Brief6::head`] says.
#[inline(always)]
fn over_v6(bytes: &mut [u8; HEAD], route: &Route, len: u16, head: u64) {
    *bytes = route.head;
    let next = u64::from(ipv4::IPV6_INSIDE) << 48 | u64::from(ipv6::HOP_LIMIT) << 56;
    let own = head & 0xffff_ffff | u64::from(len.swap_bytes()) << 32 | next;
    [bytes[14], bytes[15], bytes[16], bytes[17], bytes[18], bytes[19], bytes[20], bytes[21]] =
        own.to_le_bytes();
}
