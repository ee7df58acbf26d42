//! What is the kernel's, on a port with an exception path.

use ipc::reason::Reason;
use packet::build::{CLIENT_MAC, PORT_MAC, PacketBuilder, packet};
use packet::{Address, Flow, ethernet};

use super::frame::{exception, kernel};
use super::{Row, Scene, port, row, segment, syn};
use crate::support::{PORT4, PORT6, of};

pub fn rows(s: &Scene) -> Vec<Row> {
    let vip = s.flow("b2", port::WEB);
    let own = Flow { destination: s.by_family(Address::from_v4(PORT4), Address::from_v6(PORT6)), ..vip };
    let mut rows = of_the_kernel(s, &own);
    rows.extend(of_nobody(s, &vip));
    rows
}

/// A group of all hosts, and a MAC address of a group.
fn to_group(s: &Scene, flow: &Flow) -> PacketBuilder {
    let (address, mac) = s.by_family(
        (Address::from_v4([224, 0, 0, 251]), [1, 0, 0x5e, 0, 0, 251]),
        (
            Address::from_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb]),
            [0x33, 0x33, 0, 0, 0, 0xfb],
        ),
    );
    of(&Flow { destination: address, protocol: 17, ..*flow }).ethernet(CLIENT_MAC, mac)
}

fn of_the_kernel(s: &Scene, own: &Flow) -> Vec<Row> {
    let bgp = Flow { destination_port: 179, ..*own };
    let udp = Flow { protocol: 17, ..*own };
    let elsewhere = Flow { destination: Address(own.destination.0 + 1), ..*own };
    let fragment = |flow: &Flow| of(flow).payload(&[0; 32]).fragment(0, true);
    let goes = |what, packet: PacketBuilder, reason| row(what, packet).on(exception).punted(reason);
    let before = |mut row: Row| {
        row.configured = false;
        row
    };
    vec![
        goes("BGP to the port", syn(&bgp), Reason::NotVip),
        goes("BGP to the port under a VLAN tag", syn(&bgp).vlan(5), Reason::NotVip),
        goes("a reply to what the kernel sent", segment(&bgp, 0), Reason::NotVip),
        goes("a packet for the kernel to route", syn(&elsewhere), Reason::NotVip),
        goes("UDP to the port", of(&udp), Reason::NotVip),
        goes("UDP to a group", to_group(s, own), Reason::NotVip),
        goes("OSPF", packet().flow(own).protocol(89).payload(&[0; 44]), Reason::OtherProtocol),
        goes("LLDP", packet().ethertype(0x88cc).payload(&[0; 46]), Reason::OtherEthertype),
        goes("a TCP fragment to the port", fragment(own), Reason::TcpFragment),
        goes("a UDP fragment to the port", fragment(&udp), Reason::OtherFragment),
        goes("a jumbo packet to the port", segment(&bgp, 0).payload(&[0; 2000]), Reason::NotVip),
        before(goes("SSH to the port before any configuration", syn(own), Reason::NotVip)),
        before(row("UDP to the port before any configuration, where the kernel has the frame too", of(&udp)))
            .on(kernel)
            .punted(Reason::NotVip),
    ]
}

fn of_nobody(s: &Scene, vip: &Flow) -> Vec<Row> {
    let other_port = Flow { destination_port: 9999, ..*vip };
    let udp = Flow { protocol: 17, ..*vip };
    let stays = |what, packet: PacketBuilder, reason| row(what, packet).on(exception).dropped(reason);
    let whole = syn(vip).build();
    let mut unconfigured = row("a VIP's packet before any configuration, beside an exception path", syn(vip))
        .on(exception)
        .dropped(Reason::NoConfig);
    unconfigured.configured = false;
    vec![
        unconfigured,
        stays(
            "another's MAC address beside an exception path",
            syn(vip).ethernet(CLIENT_MAC, [2, 0, 0, 0, 9, 9]),
            Reason::NotOurMac,
        ),
        stays(
            "a VIP's packet to a group's MAC address",
            syn(vip).ethernet(CLIENT_MAC, ethernet::BROADCAST),
            Reason::NotOurMac,
        ),
        row("UDP to a group where no kernel is", to_group(s, vip)).dropped(Reason::NotOurMac),
        stays("a VIP's address and nobody's port", syn(&other_port), Reason::NotVip),
        stays(
            "a VIP's address and nobody's protocol",
            packet().flow(vip).protocol(132).payload(&[0; 16]),
            Reason::OtherProtocol,
        ),
        stays(
            "a VIP's TCP fragment",
            segment(vip, 0).payload(&[0; 32]).fragment(0, true),
            Reason::TcpFragment,
        ),
        stays(
            "a VIP's ICMP fragment",
            packet().flow(&udp).icmp(s.by_family(8, 128), 0).fragment(0, true),
            Reason::OtherFragment,
        ),
        row("a damaged frame beside an exception path", whole[..whole.len() - 30].to_vec())
            .on(exception)
            .dropped(Reason::Truncated),
        row("a VIP that is the port's own address keeps what is for no service", {
            syn(&other_port).ethernet(CLIENT_MAC, PORT_MAC)
        })
        .on(exception)
        .on(|port| port.addresses.push((vip.destination.to_ip(), 24)))
        .punted(Reason::NotVip),
        row("an ICMP error about what the kernel sent from an address that is a VIP's too", {
            super::icmp::error(s, &other_port)
        })
        .on(exception)
        .on(|port| port.addresses.push((vip.destination.to_ip(), 24)))
        .punted(Reason::BadIcmp),
    ]
}
