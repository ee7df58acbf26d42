//! ICMP: echo requests, and errors about packets that servers sent in the VIP's name.

use ipc::counter::Counter as C;
use ipc::message::{Forward, UnknownToken};
use ipc::reason::Reason;
use packet::build::{CLIENT_MAC, PORT_MAC, PacketBuilder, packet};
use packet::{Address, Family, Flow, ethernet};

use super::frame::{exception, kernel};
use super::tunnel::{gue_of, outer_of, tunnelled, untagged};
use super::{KEY, Row, Scene, Step, TOKEN, connection, join, port, row, syn};
use crate::support::{PORT4, PORT6, client_address, of, vip_address, vip_with};

pub fn rows(s: &Scene) -> Vec<Row> {
    let mut rows = echoes(s);
    rows.extend(errors(s));
    rows.extend(unusable(s));
    rows
}

/// An echo request of a client, or the reply to it.
pub fn echo(s: &Scene, to: Address) -> PacketBuilder {
    let from = client_address(s.family, 700);
    packet()
        .ip(from, to, s.family)
        .icmp(s.by_family(8, 128), 0)
        .payload(b"\x12\x34\x00\x01how are you?")
        .ttl(7)
}

pub fn reply(s: &Scene, from: Address) -> PacketBuilder {
    let to = client_address(s.family, 700);
    echo(s, from).ip(from, to, s.family).ethernet(PORT_MAC, CLIENT_MAC).icmp(s.by_family(0, 129), 0).ttl(64)
}

fn echoes(s: &Scene) -> Vec<Row> {
    let vip = vip_address(s.family, 9);
    let own = s.by_family(Address::from_v4(PORT4), Address::from_v6(PORT6));
    let other = vip_address(s.family, 99);
    let answered = |what, packet: PacketBuilder, reply: PacketBuilder| {
        row(what, packet).answered(Reason::Echo, reply.build())
    };
    let damaged = {
        let mut frame = echo(s, vip).build();
        *frame.last_mut().unwrap() ^= 1;
        frame
    };
    vec![
        answered("an echo request to a VIP is answered", echo(s, vip), reply(s, vip)),
        answered("an echo is answered under a VLAN tag", echo(s, vip).vlan(5), reply(s, vip).vlan(5)),
        answered(
            "an echo is answered under two VLAN tags",
            echo(s, vip).qinq(7, 8),
            reply(s, vip).qinq(7, 8),
        ),
        answered("an echo keeps its padding", echo(s, vip).trailer(6), reply(s, vip).trailer(6)),
        answered(
            "an echo of 1400 bytes is answered",
            echo(s, vip).payload(&[0x5a; 1400]),
            reply(s, vip).payload(&[0x5a; 1400]),
        ),
        answered("an echo keeps DSCP and ECN", echo(s, vip).tos(0xbb), reply(s, vip).tos(0xbb)),
        answered("an echo request to a VIP where the kernel has the frame too", echo(s, vip), reply(s, vip))
            .on(kernel),
        answered("an echo request to a VIP beside an exception path", echo(s, vip), reply(s, vip))
            .on(exception),
        answered(
            "without a port's MAC address an echo's reply comes from the request's destination",
            echo(s, vip),
            reply(s, vip),
        )
        .on(|port| port.mac = None),
        answered("an echo request to the port is answered", echo(s, own), reply(s, own)),
        row("an echo request to the port where the kernel answers it", echo(s, own))
            .on(kernel)
            .punted(Reason::OtherProtocol),
        row("an echo request to the port where the kernel answers it by the exception path", echo(s, own))
            .on(exception)
            .punted(Reason::OtherProtocol),
        row("an echo request to nobody", echo(s, other)).dropped(Reason::OtherProtocol),
        row("an echo request to nobody by the exception path", echo(s, other))
            .on(exception)
            .punted(Reason::OtherProtocol),
        row("an echo reply to a VIP", echo(s, vip).icmp(s.by_family(0, 129), 0))
            .dropped(Reason::OtherProtocol),
        row("an echo reply to a VIP stays off the exception path", echo(s, vip).icmp(s.by_family(0, 129), 0))
            .on(exception)
            .dropped(Reason::OtherProtocol),
        row("an echo request with a wrong checksum", damaged).dropped(Reason::BadIcmp),
        row("an echo request to a group's MAC address", {
            echo(s, vip).ethernet(CLIENT_MAC, ethernet::BROADCAST)
        })
        .dropped(Reason::BadIcmp),
        row("an echo request to another's MAC address", {
            echo(s, vip).ethernet(CLIENT_MAC, [2, 0, 0, 0, 9, 9])
        })
        .dropped(Reason::NotOurMac),
        row("an echo request of a group", {
            let group = s.by_family(Address::from_v4([224, 0, 0, 1]), Address::from_v6([0xff; 16]));
            echo(s, vip).ip(group, vip, s.family)
        })
        .dropped(Reason::BadIcmp),
    ]
}

/// What a server sends to the client of a flow, as an ICMP error quotes it: the IP header and `more` bytes.
fn quote(flow: &Flow, more: usize) -> Vec<u8> {
    let back = Flow {
        source: flow.destination,
        destination: flow.source,
        source_port: flow.destination_port,
        destination_port: flow.source_port,
        ..*flow
    };
    let mut packet = of(&back).data(1, 1).payload(&[0x77; 600]).build_ip();
    packet.truncate(if flow.family == Family::V4 { 20 } else { 40 } + more);
    packet
}

/// A router's word that a server's packet was too big.
pub fn error_with(s: &Scene, to: Address, quote: &[u8]) -> PacketBuilder {
    let router = client_address(s.family, 9999);
    let (kind, code) = s.by_family((3, 4), (2, 0));
    let payload = [&[0, 0, 5, 0], quote].concat();
    packet().ip(router, to, s.family).icmp(kind, code).payload(&payload)
}

pub fn error(s: &Scene, flow: &Flow) -> PacketBuilder {
    error_with(s, flow.destination, &quote(flow, 8))
}

fn errors(s: &Scene) -> Vec<Row> {
    let (web, second) = (s.flow("b2", port::WEB), s.flow("b1", port::WEB));
    let joined = || connection(&web, KEY).into_iter().chain([join(&second, TOKEN).into()]);
    let udp = Flow { protocol: 17, destination_port: port::DNS, ..web };
    let udp = s.udp_flow("b3", &udp);
    let (tunnel, gue) = (s.flow("b2", port::TUNNEL), s.flow("b2", port::GUE));
    let to_tunnel = || {
        let drop = UnknownToken::Drop;
        Step::Commit(vec![vip_with("web", "web-servers", Forward::Ipip, true, drop)])
    };
    let related =
        |what, packet: PacketBuilder, vip, backend| row(what, packet).forward(Reason::Related, vip, backend);
    let kinds = [
        ("an error that says unreachable", s.by_family((3, 1), (1, 0))),
        ("an error that says the time was exceeded", s.by_family((11, 0), (3, 0))),
        ("an error that says a parameter is wrong", s.by_family((12, 0), (4, 1))),
    ];
    let mut rows: Vec<Row> = kinds
        .into_iter()
        .map(|(what, (kind, code))| related(what, error(s, &web).icmp(kind, code), "web", "b2"))
        .collect();
    rows.extend([
        related("an error about a known flow goes to its backend", error(s, &second), "web", "b2")
            .after(joined()),
        related(
            "an error about an unknown flow goes where Maglev sends the flow",
            error(s, &second),
            "web",
            "b1",
        ),
        related("an error about UDP", error(s, &udp), "dns", "b3"),
        related("an error that quotes much", error_with(s, web.destination, &quote(&web, 400)), "web", "b2"),
        related("an error under two VLAN tags", error(s, &web).qinq(7, 8), "web", "b2"),
        related("an error where the kernel has the frame too", error(s, &web), "web", "b2").on(kernel),
        related("an error beside an exception path", error(s, &web), "web", "b2").on(exception),
        related("an error through a tunnel", error(s, &tunnel), "tunnel", "b2").sent(tunnelled(
            untagged(s),
            &error(s, &tunnel).build_ip(),
            &outer_of(s, &tunnel, s.family, 12),
        )),
        related("an error through gue, by the port of the flow it is about", error(s, &gue), "gue", "b2")
            .sent(tunnelled(untagged(s), &error(s, &gue).build_ip(), &gue_of(s, &gue, s.family, 12))),
        row("an error about a flow that has no backend", error(s, &s.flow_of_nobody(port::EMPTY)))
            .dropped(Reason::NoBackend)
            .at("empty"),
        row("an error about a flow that has an entry leaves it as it was", syn(&web).seq(7))
            .after([syn(&web).into(), Step::Wait(60), error(s, &web).into(), Step::Wait(20)])
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted]),
        row("an error that is too big once encapsulated is not told", {
            error_with(s, web.destination, &quote(&web, 600)).trailer(0)
        })
        .after([to_tunnel()])
        .on(|port| port.mtu = Some(600))
        .dropped(Reason::TooBig)
        .at("web"),
    ]);
    rows
}

/// Errors that nobody can use.
fn unusable(s: &Scene) -> Vec<Row> {
    let web = s.flow("b2", port::WEB);
    let to = web.destination;
    let bad = |what, packet: PacketBuilder| row(what, packet).dropped(Reason::BadIcmp);
    let other = vip_address(s.family, 99);
    let elsewhere = Flow { destination: other, ..web };
    vec![
        bad("an error that quotes nothing", error_with(s, to, &[])),
        bad("an error that quotes no ports", error_with(s, to, &quote(&web, 7))),
        bad("an error about a packet of another address", error_with(s, to, &quote(&elsewhere, 8))),
        bad("an error about a port that is nobody's", error(s, &Flow { destination_port: 9999, ..web })),
        bad("an error about a packet that is neither TCP nor UDP", {
            let quote = packet().ip(to, web.source, s.family).protocol(132).payload(&[0; 16]).build_ip();
            error_with(s, to, &quote)
        }),
        bad("an error about a client's packet", error_with(s, to, &of(&web).data(1, 1).build_ip())),
        row("an error to nobody", error(s, &elsewhere)).dropped(Reason::OtherProtocol),
        row("an error to nobody by the exception path", error(s, &elsewhere))
            .on(exception)
            .punted(Reason::OtherProtocol),
        row("an error to a group's MAC address", {
            error(s, &web).ethernet(CLIENT_MAC, ethernet::BROADCAST)
        })
        .dropped(Reason::NotOurMac),
    ]
}
