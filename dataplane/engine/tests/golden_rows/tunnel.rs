//! ipip: the outer header byte by byte, what it copies, and what does not fit.

use ipc::counter::Counter as C;
use ipc::message::{Forward, UnknownToken};
use ipc::reason::Reason;
use packet::build::{PORT_MAC, PacketBuilder};
use packet::{Family, Flow};

use super::join::internet_checksum;
use super::{KEY, Row, Scene, Step, TOKEN, connection, join, port, row, segment, syn};
use crate::support::{PORT4, PORT6, backend_address, backend_mac, of, vip_with};

pub fn rows(s: &Scene) -> Vec<Row> {
    let mut rows = headers(s);
    rows.extend(limits(s));
    rows
}

/// The frame that leaves for b2 (number 12): `link` is what stands between the MAC addresses and the packet.
fn tunnelled(s: &Scene, link: &[u8], inner: &[u8], outer: &Outer) -> Vec<u8> {
    let mut frame = [backend_mac(12), PORT_MAC].concat();
    frame.extend(link);
    let [high, low] = u16::try_from(inner.len()).unwrap().to_be_bytes();
    match s.family {
        Family::V4 => {
            let [total_high, total_low] = u16::try_from(inner.len() + 20).unwrap().to_be_bytes();
            let mut header = vec![0x45, outer.tos, total_high, total_low];
            header.extend(outer.identification.to_be_bytes());
            header.extend([if outer.dont_fragment { 0x40 } else { 0 }, 0, 64, 4, 0, 0]);
            header.extend(outer.source.v4_octets());
            header.extend(backend_address(Family::V4, 12).v4_octets());
            let sum = internet_checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend(header);
        }
        Family::V6 => {
            let [label_high, label_middle, label_low] = outer.label;
            let class = outer.tos;
            frame.extend([
                0x60 | class >> 4,
                class << 4 | label_high,
                label_middle,
                label_low,
                high,
                low,
                41,
                64,
            ]);
            frame.extend(outer.source.v6_octets());
            frame.extend(backend_address(Family::V6, 12).v6_octets());
        }
    }
    frame.extend(inner);
    frame
}

/// What an outer header copies.
struct Outer {
    source: packet::Address,
    tos: u8,
    dont_fragment: bool,
    identification: u16,
    label: [u8; 3],
}

fn headers(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::TUNNEL);
    let ethertype: &[u8] = s.by_family(&[0x08, 0x00], &[0x86, 0xdd]);
    let usual = || Outer {
        source: port_address(s.family),
        tos: 0,
        dont_fragment: true,
        identification: 0,
        label: [0; 3],
    };
    let inner = |packet: &PacketBuilder| packet.build()[14..].to_vec();
    let forward = |what, packet: PacketBuilder, link: &[u8], inner: &[u8], outer: &Outer| {
        row(what, packet)
            .forward(Reason::Hash, "tunnel", "b2")
            .moves(&[C::FlowInserted])
            .sent(tunnelled(s, link, inner, outer))
    };
    let plain = || syn(&flow);
    let marked = || {
        let packet = of(&flow).syn(super::ISN).tos(0xbb).identification(0xbeef).dont_fragment(false);
        packet.flow_label(0xf_1234).ttl(3)
    };
    let copied = || Outer {
        tos: 0xbb,
        dont_fragment: false,
        identification: 0xbeef,
        label: [0x0f, 0x12, 0x34],
        ..usual()
    };
    let one_tag = [&[0x81, 0, 0, 5], ethertype].concat();
    let two_tags = [&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8], ethertype].concat();
    let ack = || segment(&flow, 0);
    let web = s.flow("b2", port::WEB);
    let second = s.flow("b1", port::TUNNEL);
    vec![
        forward("a tunnel puts one header before the packet", plain(), ethertype, &inner(&plain()), &usual()),
        forward(
            "DSCP, ECN, DF, identification and flow label are copied, the TTL is not",
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
            .sent(tunnelled(s, ethertype, &inner(&ack()), &usual())),
        row("a join through a tunnel", join(&second, TOKEN))
            .after(connection(&web, KEY))
            .forward(Reason::Token, "tunnel", "b2")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::FlowInserted])
            .sent(tunnelled(s, ethertype, &inner(&join(&second, TOKEN)), &usual())),
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

/// The port's own address.
fn port_address(family: Family) -> packet::Address {
    match family {
        Family::V4 => packet::Address::from_v4(PORT4),
        Family::V6 => packet::Address::from_v6(PORT6),
    }
}

/// A SYN whose IP packet has exactly this length.
fn of_length(s: &Scene, flow: &Flow, length: usize) -> PacketBuilder {
    let headers = s.by_family(20, 40) + 40;
    syn(flow).payload(&vec![0x55; length - headers])
}

fn limits(s: &Scene) -> Vec<Row> {
    let (web, tunnel) = (s.flow("b2", port::WEB), s.flow("b2", port::TUNNEL));
    let outer = s.by_family(20, 40);
    // The family that the backend has no address of.
    let (vip, lone) = s.by_family(("six", port::SIX), ("four", port::FOUR));
    let unreachable = Flow { destination_port: lone, ..web };
    let full = of_length(s, &tunnel, 1600 - outer);
    let sent = {
        let ethertype: &[u8] = s.by_family(&[0x08, 0x00], &[0x86, 0xdd]);
        let source = port_address(s.family);
        let usual = Outer { source, tos: 0, dont_fragment: true, identification: 0, label: [0; 3] };
        tunnelled(s, ethertype, &full.build()[14..], &usual)
    };
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
    let to_tunnel =
        Step::Commit(vec![vip_with("web", "web-servers", Forward::Ipip, true, UnknownToken::Drop)]);
    vec![
        row("a packet of exactly the MTU", of_length(s, &web, 1600))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted]),
        row("a packet above the MTU", of_length(s, &web, 1601))
            .dropped(Reason::TooBig)
            .at("web")
            .moves(&[C::FlowInserted]),
        row("padding does not count against the MTU", of_length(s, &web, 1600).trailer(4))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted]),
        exact,
        row("a packet above the MTU once encapsulated", of_length(s, &tunnel, 1601 - outer))
            .dropped(Reason::TooBig)
            .at("tunnel")
            .moves(&[C::FlowInserted]),
        row("the same without DF", of_length(s, &tunnel, 1601 - outer).dont_fragment(false))
            .dropped(Reason::TooBig)
            .at("tunnel")
            .moves(&[C::FlowInserted]),
        row("a known flow's packet above the MTU", {
            segment(&web, 0).payload(&vec![0; 1600 - s.by_family(20, 40) - 32])
        })
        .after([syn(&web).into(), to_tunnel])
        .dropped(Reason::TooBig)
        .at("web"),
        tight,
        row("a backend without an address of the packet's family", syn(&unreachable))
            .dropped(Reason::NoTunnelAddress)
            .at(vip)
            .moves(&[C::FlowInserted]),
    ]
}
