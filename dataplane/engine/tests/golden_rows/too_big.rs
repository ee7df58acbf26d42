//! Packets that do not fit the port they would leave by: whose sender is told what fits, and whose is not.
//!
//! The port's MTU is 1600.

use ipc::counter::Counter as C;
use ipc::message::{Forward, UnknownToken};
use ipc::reason::Reason;
use packet::build::{CLIENT_MAC, PORT_MAC, PacketBuilder, packet};
use packet::{Family, Flow};

use super::tunnel::of_length;
use super::{Row, Scene, Step, port, row, segment, syn};
use crate::support::{of, vip_with};

pub fn rows(s: &Scene) -> Vec<Row> {
    let mut rows = told(s);
    rows.extend(not_told(s));
    rows
}

/// The word to the packet's sender: `mtu` bytes would fit.
fn word(s: &Scene, packet: &PacketBuilder, flow: &Flow, mtu: u16) -> PacketBuilder {
    let mut quote = packet.build_ip();
    quote.truncate(s.by_family(576 - 28, 1280 - 48));
    let [high, low] = mtu.to_be_bytes();
    let payload = [&[0, 0, high, low], quote.as_slice()].concat();
    let (kind, code) = s.by_family((3, 4), (2, 0));
    self::packet()
        .ethernet(PORT_MAC, CLIENT_MAC)
        .ip(flow.destination, flow.source, s.family)
        .tos(s.by_family(0xc0, 0))
        .icmp(kind, code)
        .payload(&payload)
}

fn told(s: &Scene) -> Vec<Row> {
    let outer = s.by_family(20, 40);
    let (web, tunnel, gue) = (s.flow("b2", port::WEB), s.flow("b2", port::TUNNEL), s.flow("b2", port::GUE));
    let (four, six) = (s.flow("f1", port::FOUR), s.flow("s1", port::GUE_SIX));
    let udp = s.udp_flow("b3", &Flow { protocol: 17, destination_port: port::DNS, ..web });
    let tell = |what, vip, flow: &Flow, packet: PacketBuilder, mtu: u16| {
        row(what, packet.clone())
            .answered(Reason::TooBigTold, word(s, &packet, flow, mtu).build())
            .at(vip)
            .moves(&[C::FlowInserted])
    };
    let size = |flow: &Flow, mtu: u16| of_length(s, flow, usize::from(mtu) + 1);
    let full = size(&web, 1600);
    let tagged = size(&tunnel, 1600 - outer).qinq(7, 8);
    let datagram = of(&udp).payload(&[0; 1600]);
    // Two VLAN tags go back to the sender with the answer.
    let under_tags = word(s, &size(&tunnel, 1600 - outer), &tunnel, 1600 - outer).qinq(7, 8);
    let limit = (0..127).map(|_| Step::from(full.clone()));
    vec![
        tell("a packet above the MTU", "web", &web, full.clone(), 1600),
        tell(
            "a packet above the MTU once encapsulated",
            "tunnel",
            &tunnel,
            size(&tunnel, 1600 - outer),
            1600 - outer,
        ),
        tell("gue above the MTU", "gue", &gue, size(&gue, 1600 - outer - 12), 1600 - outer - 12),
        tell("a tunnel in IPv4 above the MTU", "four", &four, size(&four, 1580), 1580),
        tell("gue in IPv6 above the MTU", "gue-six", &six, size(&six, 1548), 1548),
        tell("a datagram above the MTU", "dns", &udp, datagram, 1600),
        row("word of the size that fits goes back under the VLAN tags", tagged)
            .answered(Reason::TooBigTold, under_tags.build())
            .at("tunnel")
            .moves(&[C::FlowInserted]),
        {
            let big = segment(&web, 0).payload(&[0; 1600]);
            row("a known flow's packet above the MTU", big.clone())
                .after([syn(&web).into(), tunnelled()])
                .answered(Reason::TooBigTold, word(s, &big, &web, 1600 - outer).build())
                .at("web")
        },
        row("without a port's MAC address word comes from the packet's destination", full.clone())
            .on(|port| port.mac = None)
            .answered(Reason::TooBigTold, word(s, &full, &web, 1600).build())
            .at("web")
            .moves(&[C::FlowInserted]),
        row("the last word that a worker has for one moment", full.clone())
            .after(limit.clone())
            .answered(Reason::TooBigTold, word(s, &full, &web, 1600).build())
            .at("web")
            .moves(&[C::SynRetransmitted]),
        row("a worker that told enough tells no more", full.clone())
            .after(limit.clone())
            .after([full.clone().into()])
            .dropped(Reason::TooBig)
            .at("web")
            .moves(&[C::SynRetransmitted, C::IcmpLimited]),
        row("a worker that told enough tells again a second later", full.clone())
            .after(limit)
            .after([full.clone().into(), Step::Wait(1)])
            .answered(Reason::TooBigTold, word(s, &full, &web, 1600).build())
            .at("web")
            .moves(&[C::SynRetransmitted]),
    ]
}

fn not_told(s: &Scene) -> Vec<Row> {
    let outer = s.by_family(20, 40);
    let (web, tunnel) = (s.flow("b2", port::WEB), s.flow("b2", port::TUNNEL));
    let udp = Flow { protocol: 17, destination_port: port::DNS, ..web };
    let home = s.fragment_home(&udp);
    let fragment = |flow: &Flow, offset| of(flow).payload(&[0; 1600]).fragment(offset, true);
    let dropped = |what, packet: PacketBuilder, vip| row(what, packet).dropped(Reason::TooBig).at(vip);
    let mut rows = vec![
        dropped("a later fragment above the MTU", fragment(&udp, 9), "dns"),
        dropped(
            "a packet above the MTU that came to a group's address",
            of_length(s, &web, 1601).ethernet([1, 0, 0, 0, 0, 1], PORT_MAC),
            "web",
        )
        .moves(&[C::FlowInserted]),
        row("a fragment of exactly the MTU", {
            let headers = s.by_family(28, 56);
            of(&udp).payload(&vec![0; 1600 - headers]).fragment(9, true)
        })
        .forward(Reason::Fragment, "dns", home),
    ];
    match s.family {
        Family::V4 => rows.extend([
            dropped(
                "a packet above the MTU that may be fragmented",
                of_length(s, &tunnel, 1601 - outer).dont_fragment(false),
                "tunnel",
            )
            .moves(&[C::FlowInserted]),
            dropped("the first fragment above the MTU, which may be cut again", fragment(&udp, 0), "dns"),
        ]),
        Family::V6 => {
            let first = fragment(&udp, 0);
            let from = Flow { source_port: 0, ..udp };
            rows.extend([
                row("the first fragment above the MTU", first.clone())
                    .answered(Reason::TooBigTold, word(s, &first, &from, 1600).build())
                    .at("dns"),
                dropped(
                    "a packet that nobody could make small enough: no IPv6 link is below 1280",
                    of_length(s, &tunnel, 1281),
                    "tunnel",
                )
                .on(|port| port.mtu = Some(1319))
                .moves(&[C::FlowInserted]),
            ]);
        }
    }
    rows
}

/// VIP web becomes a tunnel.
fn tunnelled() -> Step {
    Step::Commit(vec![vip_with("web", "web-servers", Forward::Ipip, true, UnknownToken::Drop)])
}
