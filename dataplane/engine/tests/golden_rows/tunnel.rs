//! Tunnels: the outer headers byte by byte, what they copy, where they leave, and what does not fit.

use engine::snapshot::Port;
use ipc::counter::Counter as C;
use ipc::reason::Reason;
use packet::build::{PORT_MAC, PacketBuilder};
use packet::{Address, Family, Flow};

use super::join::internet_checksum;
use super::{FAR4, FAR6, KEY, Row, Scene, TOKEN, connection, join, port, row, segment, syn};
use crate::support::{PORT4, PORT6, backend_address, backend_mac, of, port as support_port};

pub fn rows(s: &Scene) -> Vec<Row> {
    let mut rows = headers(s);
    rows.extend(mixes(s));
    rows.extend(ways(s));
    rows.extend(limits(s));
    rows
}

/// What an outer header says.
#[derive(Clone)]
pub struct Outer {
    to_mac: [u8; 6],
    from_mac: [u8; 6],
    source: Address,
    destination: Address,
    /// The family of the outer addresses.
    family: Family,
    /// The packet inside: 4 or 41.
    inside: u8,
    tos: u8,
    dont_fragment: bool,
    identification: u16,
    label: u32,
    /// The UDP source port where this is gue.
    gue: Option<u16>,
    /// What stands between gue's header and the packet, in whole words.
    private: Vec<u8>,
}

impl Outer {
    /// With this between gue's header and the packet.
    pub fn with_private(self, private: &[u8]) -> Self {
        Self { private: private.to_vec(), ..self }
    }
}

/// The frame that leaves: `link` is what stands between the MAC addresses and the packet, its type that of the packet
/// inside.
pub fn tunnelled(link: &[u8], inner: &[u8], outer: &Outer) -> Vec<u8> {
    let mut frame = [outer.to_mac, outer.from_mac].concat();
    frame.extend(&link[..link.len() - 2]);
    let mut body = Vec::new();
    let mut protocol = outer.inside;
    if let Some(source_port) = outer.gue {
        body.extend(source_port.to_be_bytes());
        body.extend([0x17, 0xc0]);
        body.extend(u16::try_from(inner.len() + 12 + outer.private.len()).unwrap().to_be_bytes());
        // No checksum; variant 0, the words behind the header, the protocol inside, no flags.
        let words = u8::try_from(outer.private.len() / 4).unwrap();
        body.extend([0, 0, words, outer.inside, 0, 0]);
        body.extend(&outer.private);
        protocol = 17;
    }
    body.extend(inner);
    match outer.family {
        Family::V4 => {
            frame.extend([0x08, 0x00]);
            let [total_high, total_low] = u16::try_from(body.len() + 20).unwrap().to_be_bytes();
            let mut header = vec![0x45, outer.tos, total_high, total_low];
            header.extend(outer.identification.to_be_bytes());
            header.extend([if outer.dont_fragment { 0x40 } else { 0 }, 0, 64, protocol, 0, 0]);
            header.extend(outer.source.v4_octets());
            header.extend(outer.destination.v4_octets());
            let sum = internet_checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend(header);
        }
        Family::V6 => {
            frame.extend([0x86, 0xdd]);
            let first = 6 << 28 | u32::from(outer.tos) << 20 | outer.label;
            frame.extend(first.to_be_bytes());
            frame.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(outer.source.v6_octets());
            frame.extend(outer.destination.v6_octets());
        }
    }
    frame.extend(body);
    frame
}

/// The outer header of the flow's packets to a backend, in a tunnel of this family: nothing special.
pub fn outer_of(s: &Scene, flow: &Flow, family: Family, number: u8) -> Outer {
    // Without a flow label inside the flow's hash makes one.
    let [_, _, high, low, ..] = s.public_hash(flow).to_be_bytes();
    let label = if family == Family::V6 { u32::from_be_bytes([0, 0, high, low]) << 4 } else { 0 };
    Outer {
        to_mac: backend_mac(number),
        from_mac: PORT_MAC,
        source: port_address(family),
        destination: backend_address(family, number),
        family,
        inside: s.by_family(4, 41),
        tos: 0,
        dont_fragment: true,
        identification: 0,
        label,
        gue: None,
        private: Vec::new(),
    }
}

/// The UDP source port of a flow in gue: a dynamic one, by the flow's public hash.
fn gue_port(s: &Scene, flow: &Flow) -> Option<u16> {
    u16::try_from(0xc000 | s.public_hash(flow) & 0xffff).ok()
}

/// What tells the fragments of an outer packet apart: its own number, and its flow's hash, so that clients who count
/// alike do not meet.
fn identification(s: &Scene, flow: &Flow, own: u16) -> u16 {
    let [_, _, _, _, high, low, ..] = s.public_hash(flow).to_be_bytes();
    own ^ u16::from_be_bytes([high, low])
}

/// The outer headers of the flow's packets in gue, whose identification is always made of the hash, since that is
/// there.
pub fn gue_of(s: &Scene, flow: &Flow, family: Family, number: u8) -> Outer {
    Outer {
        gue: gue_port(s, flow),
        identification: identification(s, flow, 0),
        ..outer_of(s, flow, family, number)
    }
}

/// The packet behind the Ethernet header.
fn inner(packet: &PacketBuilder) -> Vec<u8> {
    packet.build()[14..].to_vec()
}

/// An untagged link header's end: the type of the packet inside.
pub fn untagged(s: &Scene) -> &'static [u8] {
    s.by_family(&[0x08, 0x00], &[0x86, 0xdd])
}

fn headers(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::TUNNEL);
    let ethertype = untagged(s);
    let usual = || outer_of(s, &flow, s.family, 12);
    let forward = |what, packet: PacketBuilder, link: &[u8], inner: &[u8], outer: &Outer| {
        row(what, packet)
            .forward(Reason::Hash, "tunnel", "b2")
            .moves(&[C::FlowInserted])
            .sent(tunnelled(link, inner, outer))
    };
    let plain = || syn(&flow);
    let marked = || marked(&flow);
    let copied = || Outer {
        tos: 0xbb,
        dont_fragment: s.by_family(false, true),
        identification: s.by_family(identification(s, &flow, 0xbeef), 0),
        label: s.by_family(0, 0xf_1234),
        ..usual()
    };
    let one_tag = [&[0x81, 0, 0, 5], ethertype].concat();
    let two_tags = [&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8], ethertype].concat();
    let ack = || segment(&flow, 0);
    let web = s.flow("b2", port::WEB);
    let second = s.flow("b1", port::TUNNEL);
    let join_outer = outer_of(s, &second, s.family, 12);
    vec![
        forward("a tunnel puts one header before the packet", plain(), ethertype, &inner(&plain()), &usual()),
        forward(
            "DSCP, ECN, DF and flow label are copied, the TTL is not",
            marked(),
            ethertype,
            &inner(&marked()),
            &copied(),
        ),
        forward("a VLAN tag stays before a tunnel", plain().vlan(5), &one_tag, &inner(&plain()), &usual()),
        forward(
            "two VLAN tags stay before a tunnel",
            plain().qinq(7, 8),
            &two_tags,
            &inner(&plain()),
            &usual(),
        ),
        row("Ethernet padding stays out of a tunnel", ack().trailer(9))
            .forward(Reason::Hash, "tunnel", "b2")
            .moves(&[C::Adopted, C::FlowInserted])
            .sent(tunnelled(ethertype, &inner(&ack()), &usual())),
        row("a join through a tunnel", join(&second, TOKEN))
            .after(connection(&web, KEY))
            .forward(Reason::Token, "tunnel", "b2")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::FlowInserted])
            .sent(tunnelled(ethertype, &inner(&join(&second, TOKEN)), &join_outer)),
        {
            let mut row = forward(
                "a configured tunnel source",
                plain(),
                ethertype,
                &inner(&plain()),
                &Outer { source: backend_address(s.family, 200), ..usual() },
            );
            row.site.tunnel_sources =
                [Family::V4, Family::V6].map(|family| Some(backend_address(family, 200).to_ip()));
            row
        },
        forward(
            "without a port the VIP's address is the tunnel's source",
            plain(),
            ethertype,
            &inner(&plain()),
            &Outer { source: flow.destination, ..usual() },
        )
        .on(|port| *port = engine::snapshot::Port::default()),
    ]
}

/// A SYN in which all that an outer header may copy is something.
fn marked(flow: &Flow) -> PacketBuilder {
    let packet = of(flow).syn(super::ISN).tos(0xbb).identification(0xbeef).dont_fragment(false);
    packet.flow_label(0xf_1234).ttl(3)
}

/// Every family in every other, by both kinds of tunnel.
fn mixes(s: &Scene) -> Vec<Row> {
    let link = untagged(s);
    let kinds = [
        ("ipip in IPv4", "four", port::FOUR, Family::V4, 41, "f1"),
        ("ipip in IPv6", "six", port::SIX, Family::V6, 41, "s1"),
        ("gue in IPv4", "gue-four", port::GUE_FOUR, Family::V4, 41, "f1"),
        ("gue in IPv6", "gue-six", port::GUE_SIX, Family::V6, 41, "s1"),
        ("gue in the packet's own family where the backend has both", "gue", port::GUE, s.family, 12, "b2"),
    ];
    let mut rows = Vec::new();
    for (what, vip, port, family, number, backend) in kinds {
        let flow = s.flow(backend, port);
        let is_gue = vip.starts_with("gue");
        let outer =
            if is_gue { gue_of(s, &flow, family, number) } else { outer_of(s, &flow, family, number) };
        let forward =
            |row: Row, bytes| row.forward(Reason::Hash, vip, backend).moves(&[C::FlowInserted]).sent(bytes);
        let packet = marked(&flow);
        let marks = Outer {
            tos: 0xbb,
            dont_fragment: s.by_family(false, true),
            identification: s.by_family(identification(s, &flow, 0xbeef), outer.identification),
            label: match family {
                Family::V4 => 0,
                Family::V6 => s.by_family(outer.label, 0xf_1234),
            },
            ..outer.clone()
        };
        rows.push(forward(row(what, syn(&flow)), tunnelled(link, &inner(&syn(&flow)), &outer)));
        rows.push(forward(
            row(pick(what, " with DSCP, ECN and DF"), packet.clone()),
            tunnelled(link, &inner(&packet), &marks),
        ));
        let tags = [&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8], link].concat();
        rows.push(forward(
            row(pick(what, " under two VLAN tags"), syn(&flow).qinq(7, 8)),
            tunnelled(&tags, &inner(&syn(&flow)), &outer),
        ));
        for ttl in [1, 255] {
            let packet = syn(&flow).ttl(ttl);
            let more = if ttl == 1 { " with a hop limit of 1" } else { " with a hop limit of 255" };
            rows.push(forward(
                row(pick(what, more), packet.clone()),
                tunnelled(link, &inner(&packet), &outer),
            ));
        }
    }
    rows
}

/// A row's name made of two.
fn pick(what: &str, more: &str) -> &'static str {
    format!("{what}{more}").leak()
}

/// Backends that are not on link, and one that is on two ports.
fn ways(s: &Scene) -> Vec<Row> {
    let link = untagged(s);
    let (far, four, six) = (s.flow("r1", port::FAR), s.flow("f1", port::FOUR), s.flow("s1", port::SIX));
    // Where the port that a packet comes by has no gateway, and two others have one each.
    let gateways = |mut row: Row| {
        row.site.ports.push(other_port(1, |port| port.gateway4 = Some([10, 0, 21, 1].into())));
        row.site.ports.push(other_port(2, |port| port.gateway6 = Some([0xfd; 16].into())));
        row
    };
    // Where each family's network is on another port.
    let split = |mut row: Row| {
        row.site.ports[0].addresses.clear();
        let networks = support_port().addresses;
        row.site.ports.push(other_port(1, |port| port.addresses = networks[..1].to_vec()));
        row.site.ports.push(other_port(2, |port| port.addresses = networks[1..].to_vec()));
        row
    };
    let leaves = |what, flow: &Flow, vip, backend, port: u8, outer: &Outer| {
        row(what, syn(flow))
            .forward(Reason::Hash, vip, backend)
            .moves(&[C::FlowInserted])
            .by(port)
            .sent(tunnelled(link, &inner(&syn(flow)), outer))
    };
    let far_outer = |port: u8| Outer {
        from_mac: other_mac(port),
        source: other_address(s.family, port),
        destination: s.by_family(Address::from_v4(FAR4), Address::from_v6(FAR6)),
        ..outer_of(s, &far, s.family, 51)
    };
    let by = s.by_family(1, 2);
    let from = |outer: Outer, port| Outer { from_mac: other_mac(port), ..outer };
    vec![
        gateways(leaves(
            "a tunnel to a backend off link leaves by the port with a gateway of its family",
            &far,
            "far",
            "r1",
            by,
            &far_outer(by),
        )),
        leaves(
            "a tunnel to a backend off link leaves where it came from without any gateway",
            &far,
            "far",
            "r1",
            0,
            &Outer { from_mac: PORT_MAC, source: port_address(s.family), ..far_outer(0) },
        ),
        split(leaves(
            "a tunnel leaves by the port of its outer IPv4 network",
            &four,
            "four",
            "f1",
            1,
            &from(outer_of(s, &four, Family::V4, 41), 1),
        )),
        split(leaves(
            "a tunnel leaves by the port of its outer IPv6 network",
            &six,
            "six",
            "s1",
            2,
            &from(outer_of(s, &six, Family::V6, 41), 2),
        )),
        split(row("l2dsr leaves by the port of the packet's family", syn(&s.flow("b2", port::WEB))))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted])
            .by(by),
        gateways(row("l2dsr knows no gateway", syn(&s.flow("r1", port::FAR_L2))))
            .forward(Reason::Hash, "far-l2", "r1")
            .moves(&[C::FlowInserted]),
    ]
}

/// The MAC address of another port.
fn other_mac(port: u8) -> [u8; 6] {
    [2, 0, 0, 0, 2, 1 + port]
}

/// The addresses of another port: 10.0.20+N.254 and fd00:20+N::254.
fn other_address(family: Family, port: u8) -> Address {
    match family {
        Family::V4 => Address::from_v4([10, 0, 20 + port, 254]),
        Family::V6 => Address::from_v6([0xfd, 0, 0, 20 + port, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x54]),
    }
}

fn other_port(number: u8, change: impl FnOnce(&mut Port)) -> Port {
    let address = |family| other_address(family, number).to_ip();
    let mut port = Port {
        mac: Some(other_mac(number)),
        addresses: vec![(address(Family::V4), 24), (address(Family::V6), 64)],
        ..support_port()
    };
    change(&mut port);
    port
}

/// The port's own address.
fn port_address(family: Family) -> Address {
    match family {
        Family::V4 => Address::from_v4(PORT4),
        Family::V6 => Address::from_v6(PORT6),
    }
}

/// A SYN whose IP packet has exactly this length.
pub fn of_length(s: &Scene, flow: &Flow, length: usize) -> PacketBuilder {
    let headers = s.by_family(20, 40) + 40;
    syn(flow).payload(&vec![0x55; length - headers])
}

fn limits(s: &Scene) -> Vec<Row> {
    let (web, tunnel, gue) = (s.flow("b2", port::WEB), s.flow("b2", port::TUNNEL), s.flow("b2", port::GUE));
    let outer = s.by_family(20, 40);
    let full = of_length(s, &tunnel, 1600 - outer);
    let sent = { tunnelled(untagged(s), &inner(&full), &outer_of(s, &tunnel, s.family, 12)) };
    let mut tight = row("a tunnel without room in front of the frame", syn(&tunnel))
        .dropped(Reason::NoHeadroom)
        .at("tunnel")
        .moves(&[C::FlowInserted]);
    tight.headroom = outer - 1;
    let mut exact = row("a tunnel with exactly the room it needs", full.clone())
        .forward(Reason::Hash, "tunnel", "b2")
        .moves(&[C::FlowInserted])
        .sent(sent);
    exact.headroom = outer;
    vec![
        row("a packet of exactly the MTU", of_length(s, &web, 1600))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted]),
        row("padding does not count against the MTU", of_length(s, &web, 1600).trailer(4))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted]),
        exact,
        tight,
        row("a tunnel by a port without an address of the outer family", syn(&tunnel))
            .on(|port| port.addresses.retain(|(address, _)| address.is_ipv4() != (s.family == Family::V4)))
            .dropped(Reason::NoTunnelAddress)
            .at("tunnel")
            .moves(&[C::FlowInserted]),
        row("gue of exactly the MTU", of_length(s, &gue, 1600 - outer - 12))
            .forward(Reason::Hash, "gue", "b2")
            .moves(&[C::FlowInserted])
            .sent(tunnelled(
                untagged(s),
                &inner(&of_length(s, &gue, 1600 - outer - 12)),
                &gue_of(s, &gue, s.family, 12),
            )),
        {
            let mut row = row("gue without room in front of the frame", syn(&gue))
                .dropped(Reason::NoHeadroom)
                .at("gue")
                .moves(&[C::FlowInserted]);
            row.headroom = outer + 11;
            row
        },
    ]
}
