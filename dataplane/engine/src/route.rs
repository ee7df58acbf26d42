//! Routes: the finished headers that send a packet to a backend, made when a snapshot is built.
//!
//! Why: what [`crate::pipeline`] puts before the packets of a backend differs from packet to packet in a length, a type
//! of service and an identification. The rest is copied whole.
//!
//! **Invariant:** what a route makes is, byte for byte, what the general way makes ([`packet::tunnel`]). Where the
//! outer headers need more of a packet than that (a flow's hash, another Ethernet type), or the backend cannot be
//! reached, there is no route.

use std::net::IpAddr;

use ipc::id::{BackendId, PortId};
use ipc::message::Forward;
use packet::{Address, Family, ethernet, ipv4, ipv6};

use crate::snapshot::Backend;
use crate::way::{Port, family_of};

/// Bytes of the longest head: Ethernet and an outer IPv6 header.
pub(crate) const HEAD: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;

/// Bytes of a head with an outer IPv4 header.
pub(crate) const HEAD4: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;

/// How a packet leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not this way.
    #[default]
    None,
    /// With new MAC addresses.
    L2dsr,
    /// IPv4 in IPv4.
    V4OverV4,
    /// IPv6 in IPv4.
    V6OverV4,
    /// IPv6 in IPv6.
    V6OverV6,
}

/// How packets of one family reach one backend by one way of forwarding. One cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Route {
    /// What the frame begins with; its length, type of service, identification and checksum are zero.
    pub(crate) head: [u8; HEAD],
    pub(crate) kind: Kind,
    /// The port it leaves by.
    pub(crate) port: PortId,
    /// The longest IP packet that may leave this way.
    pub(crate) room: u16,
    /// The sum of the outer IPv4 header's words from the fourth on; those before are a packet's own.
    pub(crate) sum: u16,
}

const _: () = assert!(size_of::<Route>() == 64, "a route is one cache line");

impl Route {
    const NONE: Self = Self { head: [0; HEAD], kind: Kind::None, port: PortId(0), room: 0, sum: 0 };
}

/// Ways of forwarding that have routes, each for both families.
const SETS: [(Forward, Family); 4] = [
    (Forward::L2dsr, Family::V4),
    (Forward::L2dsr, Family::V6),
    (Forward::Ipip, Family::V4),
    (Forward::Ipip, Family::V6),
];

/// Which routes a VIP's packets of one family take: where they begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteSet(u16);

/// All routes of a snapshot: for each of [`SETS`] as many as there are places of backends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    all: Vec<Route>,
    backends: usize,
}

const _: () =
    assert!(SETS.len() * ipc::limits::MAX_BACKENDS <= u16::MAX as usize + 1, "a set begins within 16 bits");

impl Routes {
    /// The routes to these backends, which stand at the place of their id.
    pub(crate) fn new(backends: &[Option<Backend>], ports: &[Port], sources: [Option<IpAddr>; 2]) -> Self {
        let route = |backend: &Option<Backend>, forward, family| {
            let made = backend.as_ref().and_then(|backend| make(backend, forward, family, ports, sources));
            made.unwrap_or(Route::NONE)
        };
        let of_set = |(forward, family)| backends.iter().map(move |backend| route(backend, forward, family));
        Self { all: SETS.into_iter().flat_map(of_set).collect(), backends: backends.len() }
    }

    /// The routes of a way of forwarding; `None` where it has none.
    pub(crate) fn set(&self, forward: Forward, family: Family) -> Option<RouteSet> {
        let place = SETS.iter().position(|set| *set == (forward, family))?;
        u16::try_from(place * self.backends).ok().map(RouteSet)
    }

    /// The route to a backend, if there is one.
    #[inline(always)]
    pub(crate) fn get(&self, set: RouteSet, backend: BackendId) -> Option<&Route> {
        let backend = usize::from(backend.0);
        if backend >= self.backends {
            return None;
        }
        self.all.get(usize::from(set.0) + backend)
    }
}

/// A route, where everything it needs is known when the snapshot is made.
fn make(
    backend: &Backend,
    forward: Forward,
    family: Family,
    ports: &[Port],
    sources: [Option<IpAddr>; 2],
) -> Option<Route> {
    let tunnel = match forward {
        Forward::L2dsr => None,
        _ => Some(backend.tunnel(family)?),
    };
    let way = tunnel.map_or_else(|| backend.link(family), |tunnel| tunnel.port);
    // Out of the port the packet came from: known where there is only one.
    let only = (ports.len() == 1).then_some(PortId(0));
    let id = way.or(only)?;
    let port = ports.get(usize::from(id.0))?;
    let mtu = port.mtu.unwrap_or(u16::MAX);
    let (to, from) = (backend.mac?, port.mac?);
    let mut route = Route { port: id, kind: Kind::L2dsr, room: mtu, ..Route::NONE };
    let Some(tunnel) = tunnel else {
        put(&mut route.head, 0, &ethernet::header(to, from, 0));
        return Some(route);
    };
    let [source4, source6] = sources;
    let configured = if tunnel.family == Family::V4 { source4 } else { source6 };
    let source = configured
        .or_else(|| port.tunnel_source(tunnel.family))
        .filter(|a| family_of(*a) == tunnel.family)?;
    let (source, destination) = (Address::from(source), tunnel.destination);
    match (family, tunnel.family) {
        (inner, Family::V4) => {
            let outer = ipv4::Outer {
                source: source.v4_octets(),
                destination: destination.v4_octets(),
                protocol: if inner == Family::V4 { ipv4::IPV4_INSIDE } else { ipv4::IPV6_INSIDE },
                tos: 0,
                dont_fragment: true,
                identification: 0,
                payload_len: 0,
            };
            let mut header = outer.to_bytes()?;
            // What a packet adds to: length and checksum are zero.
            for at in [2, 3, 10, 11] {
                put(&mut header, at, &[0]);
            }
            route.sum = sum(header.get(6..)?);
            route.kind = if inner == Family::V4 { Kind::V4OverV4 } else { Kind::V6OverV4 };
            route.room = mtu.checked_sub(20)?;
            put(&mut route.head, 0, &ethernet::header(to, from, ethernet::IPV4));
            put(&mut route.head, ethernet::HEADER_LEN, &header);
        }
        (Family::V6, Family::V6) => {
            let outer = ipv6::Outer {
                source: source.v6_octets(),
                destination: destination.v6_octets(),
                next_header: ipv4::IPV6_INSIDE,
                traffic_class: 0,
                flow_label: 0,
                payload_len: 0,
            };
            route.kind = Kind::V6OverV6;
            route.room = mtu.checked_sub(40)?;
            put(&mut route.head, 0, &ethernet::header(to, from, ethernet::IPV6));
            put(&mut route.head, ethernet::HEADER_LEN, &outer.to_bytes());
        }
        // The flow label is made of the flow's hash.
        (Family::V4, Family::V6) => return None,
    }
    Some(route)
}

/// Copies `bytes` into the head at `at`, where there is room.
fn put(head: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(room) = head.get_mut(at..at + bytes.len()) {
        room.copy_from_slice(bytes);
    }
}

/// The ones' complement sum of words as they lie there (RFC 1071 section 2), folded.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_le_bytes(*word)));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}
