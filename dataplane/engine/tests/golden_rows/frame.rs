//! Frames before any VIP is known: whose they are, whether they can be parsed, ARP and neighbour discovery.

use engine::snapshot::Port;
use ipc::counter::Counter as C;
use ipc::reason::Reason;
use packet::arp::{self, Arp};
use packet::build::{CLIENT_MAC, PORT_MAC, packet};
use packet::{Address, Family, Flow, ethernet};

use super::join::internet_checksum;
use super::{Row, Scene, port, row, segment, syn};
use crate::support::{PORT4, PORT6, of};

pub fn rows(s: &Scene) -> Vec<Row> {
    let mut rows = whose(s);
    rows.extend(malformed(s));
    rows.extend(other_kinds(s));
    rows.extend(match s.family {
        Family::V4 => arp_rows(),
        Family::V6 => neighbour_rows(),
    });
    rows
}

/// The port has every frame's twin in the kernel, as with net_af_packet.
fn kernel(port: &mut Port) {
    port.kernel_sees_frames = true;
}

fn whose(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::WEB);
    let other_mac = || syn(&flow).ethernet(CLIENT_MAC, [2, 0, 0, 0, 9, 9]);
    let elsewhere = Flow { destination: Address(flow.destination.0 + 100), ..flow };
    let other_port = Flow { destination_port: 9999, ..flow };
    let udp = Flow { protocol: 17, ..flow };
    // The VIP's IPv4 address in an IPv6 header, v4-mapped; over IPv4, the last four bytes of its IPv6 address.
    let other_family = match s.family {
        Family::V4 => Flow { family: Family::V6, source: Address(1 << 100), ..flow },
        Family::V6 => Flow { family: Family::V4, ..flow },
    };
    let mut unconfigured = row("before any configuration", syn(&flow)).dropped(Reason::NoConfig);
    unconfigured.configured = false;
    vec![
        unconfigured,
        row("another's MAC address", other_mac()).dropped(Reason::NotOurMac),
        row("another's MAC address, where the kernel has the frame too", other_mac())
            .on(kernel)
            .dropped(Reason::NotOurMac),
        row("a group's MAC address on TCP", syn(&flow).ethernet(CLIENT_MAC, ethernet::BROADCAST))
            .dropped(Reason::NotOurMac),
        row("another's MAC address on something that is not TCP", {
            packet().flow(&flow).icmp(8, 0).ethernet(CLIENT_MAC, [2, 0, 0, 0, 9, 9])
        })
        .dropped(Reason::NotOurMac),
        row("without a port any MAC address is ours, and stays the source", other_mac())
            .on(|port| *port = Port::default())
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted]),
        row("nobody's address", syn(&elsewhere)).dropped(Reason::NotVip),
        row("nobody's port", syn(&other_port)).dropped(Reason::NotVip),
        row("a VIP's address in the other family's form", syn(&other_family)).dropped(Reason::NotVip),
        row("the wrong protocol", of(&udp)).dropped(Reason::NotVip),
        row("nobody's port, where the kernel has the frame too", syn(&other_port))
            .on(kernel)
            .punted(Reason::NotVip),
        row("a VIP's packet, where the kernel has the frame too", syn(&flow))
            .on(kernel)
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted]),
        row("a VLAN tag stays", syn(&flow).vlan(5))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted]),
        row("two VLAN tags stay", syn(&flow).qinq(7, 8))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted]),
        row("Ethernet padding stays in l2dsr", segment(&flow, 0).trailer(6))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::Adopted, C::FlowInserted]),
    ]
}

fn malformed(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::WEB);
    let whole = syn(&flow).build();
    let (l3, l4) = (14, s.by_family(34, 54));
    let changed = |at: usize, to: u8| {
        let mut frame = whole.clone();
        frame[at] = to;
        frame
    };
    let short_udp = {
        let mut frame = of(&Flow { protocol: 17, ..flow }).payload(b"12345678").build();
        frame[l4 + 5] = 7;
        frame
    };
    let bad_ip = s.by_family(Reason::BadIpv4, Reason::BadIpv6);
    let tcp = || segment(&flow, 0).payload(&[0; 32]);
    let udp = || of(&Flow { protocol: 17, ..flow }).payload(&[0; 32]);
    let mut rows = vec![
        row("an empty frame", Vec::new()).on(|port| port.mac = None).dropped(Reason::Truncated),
        row("a frame that ends in the IP header", whole[..l3 + 19].to_vec()).dropped(Reason::Truncated),
        row("a frame that ends in the TCP header", whole[..l4 + 19].to_vec()).dropped(Reason::Truncated),
        row(
            "a frame that ends in the TCP header is a drop where the kernel has it too",
            whole[..l4 + 19].to_vec(),
        )
        .on(kernel)
        .dropped(Reason::Truncated),
        row("an Ethernet type nobody speaks", packet().ethertype(0x88cc).payload(&[0; 46]))
            .dropped(Reason::OtherEthertype),
        row("an IP version that contradicts the Ethernet type", changed(l3, s.by_family(0x65, 0x45)))
            .dropped(bad_ip),
        row("a TCP data offset below 5", changed(l4 + 12, 0x40)).dropped(Reason::BadTcp),
        row("a TCP data offset past the packet", changed(l4 + 12, 0xf0)).dropped(Reason::BadTcp),
        row("a UDP length below 8", short_udp).dropped(Reason::BadUdp),
        row("the first fragment of a TCP packet", tcp().fragment(0, true)).dropped(Reason::TcpFragment),
        row("a later fragment of a TCP packet", tcp().fragment(9, false)).dropped(Reason::TcpFragment),
        row("the first fragment of a UDP packet", udp().fragment(0, true)).dropped(Reason::OtherFragment),
        row("a later fragment of a UDP packet", udp().fragment(9, true)).dropped(Reason::OtherFragment),
    ];
    match s.family {
        Family::V4 => rows.extend([
            row("an IPv4 header below 20 bytes", changed(l3, 0x44)).dropped(Reason::BadIpv4),
            row("IPv4 options are skipped", syn(&flow).ipv4_options(&[7, 7, 4, 0, 0, 0, 0]))
                .forward(Reason::Hash, "web", "b2")
                .moves(&[C::FlowInserted]),
        ]),
        Family::V6 => {
            let long = (0..9).fold(syn(&flow), |packet, _| packet.extension(60, &[]));
            rows.extend([
                row("nine extension headers", long).dropped(Reason::BadIpv6),
                row("extension headers are skipped", syn(&flow).extension(0, &[]).extension(60, &[]))
                    .forward(Reason::Hash, "web", "b2")
                    .moves(&[C::FlowInserted]),
                row("an atomic fragment is a whole packet", syn(&flow).fragment(0, false))
                    .forward(Reason::Hash, "web", "b2")
                    .moves(&[C::FlowInserted]),
            ]);
        }
    }
    rows
}

fn other_kinds(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::WEB);
    let echo = || packet().flow(&flow).icmp(s.by_family(8, 128), 0).payload(&[0; 8]);
    vec![
        row("SCTP", packet().flow(&flow).protocol(132).payload(&[0; 16])).dropped(Reason::OtherProtocol),
        row("an echo request to a VIP", echo()).dropped(Reason::OtherProtocol),
        row("an echo request, where the kernel has the frame too", echo())
            .on(kernel)
            .punted(Reason::OtherProtocol),
    ]
}

const ASKER4: [u8; 4] = [10, 0, 1, 1];

fn arp_rows() -> Vec<Row> {
    let request = |target| packet().arp_request(ASKER4, target);
    let mut reply = [CLIENT_MAC, PORT_MAC].concat();
    reply.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    reply.extend(PORT_MAC);
    reply.extend(PORT4);
    reply.extend(CLIENT_MAC);
    reply.extend(ASKER4);
    reply.resize(60, 0);
    let announced = Arp {
        operation: arp::REPLY,
        sender_mac: CLIENT_MAC,
        sender: ASKER4,
        target_mac: PORT_MAC,
        target: PORT4,
    };
    let mut unconfigured =
        row("ARP is answered before any configuration", request(PORT4)).answered(Reason::Arp, reply.clone());
    unconfigured.configured = false;
    vec![
        row("ARP for the port's address is answered", request(PORT4)).answered(Reason::Arp, reply),
        unconfigured,
        row("ARP for another address", request([10, 0, 1, 7])).dropped(Reason::ArpNotOurs),
        row("ARP for a VIP is not answered", request([10, 9, 9, 9])).dropped(Reason::ArpNotOurs),
        row("an ARP reply", packet().arp(announced)).dropped(Reason::ArpNotOurs),
        row("ARP without a port", request(PORT4))
            .on(|port| *port = Port::default())
            .dropped(Reason::ArpNotOurs),
        row("ARP where the kernel answers it", request(PORT4)).on(kernel).punted(Reason::ArpNotOurs),
    ]
}

const ASKER6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn neighbour_rows() -> Vec<Row> {
    let question = |target| packet().neighbour_solicitation(ASKER6, target);
    let elsewhere = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77];
    vec![
        row("a solicitation for the port's address is answered", question(PORT6))
            .answered(Reason::Neighbour, advertisement(CLIENT_MAC, ASKER6, 0x60)),
        row(
            "a search for duplicates of the port's address is answered to all",
            packet().neighbour_solicitation([0; 16], PORT6),
        )
        .answered(Reason::Neighbour, {
            let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
            advertisement([0x33, 0x33, 0, 0, 0, 1], all_nodes, 0x20)
        }),
        row("a solicitation for another address", question(elsewhere)).dropped(Reason::OtherProtocol),
        row("a solicitation from behind a router", question(PORT6).ttl(254)).dropped(Reason::OtherProtocol),
        row("a solicitation without a port", question(PORT6))
            .on(|port| *port = Port::default())
            .dropped(Reason::OtherProtocol),
        row("a solicitation where the kernel answers it", question(PORT6))
            .on(kernel)
            .punted(Reason::OtherProtocol),
    ]
}

/// A neighbour advertisement of the port, byte by byte.
fn advertisement(to_mac: [u8; 6], to: [u8; 16], flags: u8) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, flags, 0, 0, 0];
    message.extend(PORT6);
    message.extend([2, 1]);
    message.extend(PORT_MAC);
    let mut pseudo = [PORT6, to].concat();
    pseudo.extend([0, 0, 0, 32, 0, 0, 0, 58]);
    pseudo.extend(&message);
    let sum = internet_checksum(&pseudo);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [to_mac, PORT_MAC].concat();
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame.extend(PORT6);
    frame.extend(to);
    frame.extend(message);
    frame
}
