//! Frames before any VIP is known: whose they are, whether they can be parsed, ARP and neighbour discovery.

use engine::snapshot::Port;
use ipc::counter::Counter as C;
use ipc::message::{Command, Forward, Protocol, Steering, UnknownToken};
use ipc::reason::Reason;
use packet::arp::{self, Arp};
use packet::build::{CLIENT_MAC, PORT_MAC, PacketBuilder, packet};
use packet::{Address, Family, Flow, ethernet};

use super::join::internet_checksum;
use super::{Row, Scene, Step, port, row, segment, syn};
use crate::support::{PORT4, PORT6, name, of, services, vip_address};

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
pub fn kernel(port: &mut Port) {
    port.kernel_sees_frames = true;
}

/// The port has an exception path to the kernel.
pub fn exception(port: &mut Port) {
    port.exception = true;
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
        row("a hop limit of 1 stays: Weft is no hop", syn(&flow).ttl(1))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::FlowInserted]),
        row("a hop limit of 255 stays", syn(&flow).ttl(255))
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
        row(
            "a fragment of an ICMP message",
            packet().flow(&flow).icmp(s.by_family(8, 128), 0).fragment(0, true),
        )
        .dropped(Reason::OtherFragment),
        row("an ICMP message of three bytes", {
            packet().flow(&flow).protocol(s.by_family(1, 58)).payload(&[8, 0, 0])
        })
        .dropped(Reason::BadIcmp),
    ];
    rows.extend(udp_fragments(s));
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

/// All fragments of a datagram go one way, which its ports have no part in.
fn udp_fragments(s: &Scene) -> Vec<Row> {
    let flow = Flow { protocol: 17, destination_port: port::DNS, ..s.flow("b2", port::WEB) };
    let home = s.fragment_home(&flow);
    let udp = || of(&flow).payload(&[0; 32]);
    let forward = |what, packet: PacketBuilder| row(what, packet).forward(Reason::Fragment, "dns", home);
    let another = |pool| {
        let put = Command::PutVip {
            name: name("more-dns"),
            pool: name(pool),
            protocol: Protocol::Udp,
            forward: Forward::L2dsr,
            steering: Steering::NONE,
            unknown_token: UnknownToken::Drop,
        };
        Step::Commit([put].into_iter().chain(services("more-dns", 9, 5353)).collect())
    };
    let nowhere = Flow { destination: vip_address(s.family, 10), ..flow };
    vec![
        forward("the first fragment of a UDP packet", udp().fragment(0, true)),
        forward("a later fragment of a UDP packet", udp().fragment(9, true)),
        forward("the last fragment of a UDP packet", udp().fragment(18, false)),
        forward("a fragment to a port that is nobody's", {
            of(&Flow { destination_port: 9999, ..flow }).payload(&[0; 32]).fragment(0, true)
        }),
        forward("a fragment of a flow that has an entry", udp().fragment(9, true)).after([of(&flow).into()]),
        forward("a fragment under two VLAN tags", udp().fragment(9, true).qinq(7, 8)),
        // It counts for the first of them by name.
        forward("a fragment where two UDP VIPs of the address send alike", udp().fragment(9, true))
            .after([another("web-servers")]),
        row("a fragment where two UDP VIPs of the address have other pools", udp().fragment(9, true))
            .after([another("others")])
            .dropped(Reason::OtherFragment),
        row("a fragment to an address without a UDP VIP", of(&nowhere).fragment(0, true))
            .dropped(Reason::OtherFragment),
        row("a fragment to a group's MAC address", {
            udp().fragment(9, true).ethernet(CLIENT_MAC, ethernet::BROADCAST)
        })
        .dropped(Reason::NotOurMac),
    ]
}

fn other_kinds(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::WEB);
    vec![row("SCTP", packet().flow(&flow).protocol(132).payload(&[0; 16])).dropped(Reason::OtherProtocol)]
}

const ASKER4: [u8; 4] = [10, 0, 1, 1];

fn arp_rows() -> Vec<Row> {
    let request = |target| packet().arp_request(ASKER4, target);
    let announced = Arp {
        operation: arp::REPLY,
        sender_mac: CLIENT_MAC,
        sender: ASKER4,
        target_mac: PORT_MAC,
        target: PORT4,
    };
    let mut unconfigured = row("ARP is answered before any configuration", request(PORT4))
        .answered(Reason::Arp, arp_reply(PORT4, &[]));
    unconfigured.configured = false;
    let on_link = |port: &mut Port| port.addresses.push(("10.9.9.254".parse().unwrap(), 24));
    let vip = [10, 9, 9, 9];
    vec![
        row("ARP for the port's address is answered", request(PORT4))
            .answered(Reason::Arp, arp_reply(PORT4, &[])),
        row("ARP is answered under two VLAN tags", request(PORT4).qinq(7, 8))
            .answered(Reason::Arp, arp_reply(PORT4, &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8])),
        unconfigured,
        row("ARP for another address", request([10, 0, 1, 7])).dropped(Reason::ArpNotOurs),
        row("ARP for a VIP that is not on link is not answered", request(vip)).dropped(Reason::ArpNotOurs),
        row("ARP for a VIP on link is answered", request(vip))
            .on(on_link)
            .answered(Reason::Arp, arp_reply(vip, &[])),
        row("ARP for a VIP on link is answered where the kernel answers for the port", request(vip))
            .on(on_link)
            .on(kernel)
            .answered(Reason::Arp, arp_reply(vip, &[])),
        row("ARP for a VIP on link is answered beside an exception path", request(vip).vlan(5))
            .on(on_link)
            .on(exception)
            .answered(Reason::Arp, arp_reply(vip, &[0x81, 0, 0, 5])),
        row("ARP for nobody's address beside a VIP's", request([10, 9, 9, 200]))
            .on(on_link)
            .dropped(Reason::ArpNotOurs),
        row("who announces a VIP's address asks nothing", packet().arp_request(vip, vip))
            .on(on_link)
            .dropped(Reason::ArpNotOurs),
        row("an ARP reply", packet().arp(announced)).dropped(Reason::ArpNotOurs),
        row("an ARP reply is the kernel's by the exception path", packet().arp(announced))
            .on(exception)
            .punted(Reason::ArpNotOurs),
        row("ARP without a port", request(PORT4))
            .on(|port| *port = Port::default())
            .dropped(Reason::ArpNotOurs),
        row("ARP where the kernel answers it", request(PORT4)).on(kernel).punted(Reason::ArpNotOurs),
        row("ARP where the kernel answers it by the exception path", request(PORT4))
            .on(exception)
            .punted(Reason::ArpNotOurs),
    ]
}

/// The reply to ASKER4, byte by byte.
fn arp_reply(address: [u8; 4], tags: &[u8]) -> Vec<u8> {
    let mut reply = [CLIENT_MAC, PORT_MAC].concat();
    reply.extend(tags);
    reply.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    reply.extend(PORT_MAC);
    reply.extend(address);
    reply.extend(CLIENT_MAC);
    reply.extend(ASKER4);
    reply.resize(reply.len().max(60), 0);
    reply
}

const ASKER6: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// All nodes, and the MAC address of their group.
const ALL_NODES: ([u8; 6], [u8; 16]) =
    ([0x33, 0x33, 0, 0, 0, 1], [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

fn neighbour_rows() -> Vec<Row> {
    let question = |target| packet().neighbour_solicitation(ASKER6, target);
    let search = |target| packet().neighbour_solicitation([0; 16], target);
    let elsewhere = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77];
    let on_link = |port: &mut Port| port.addresses.push(("fd99::254".parse().unwrap(), 64));
    let vip = vip_address(Family::V6, 9).v6_octets();
    let to_asker = |target, tags: &[u8]| advertisement(target, CLIENT_MAC, ASKER6, 0x60, tags);
    let to_all = |target| advertisement(target, ALL_NODES.0, ALL_NODES.1, 0x20, &[]);
    let unsolicited = || {
        let mut body = vec![0x20, 0, 0, 0];
        body.extend(ASKER6);
        body.extend([2, 1, 2, 0, 0, 0, 1, 1]);
        packet()
            .ipv6(ASKER6, ALL_NODES.1)
            .ttl(255)
            .icmp(136, 0)
            .payload(&body)
            .ethernet(CLIENT_MAC, ALL_NODES.0)
    };
    vec![
        row("a solicitation for the port's address is answered", question(PORT6))
            .answered(Reason::Neighbour, to_asker(PORT6, &[])),
        row("a solicitation is answered under two VLAN tags", question(PORT6).qinq(7, 8))
            .answered(Reason::Neighbour, to_asker(PORT6, &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8])),
        row("a search for duplicates of the port's address is answered to all", search(PORT6))
            .answered(Reason::Neighbour, to_all(PORT6)),
        row("a solicitation for a VIP that is not on link", question(vip)).dropped(Reason::OtherProtocol),
        row("a solicitation for a VIP on link is answered", question(vip))
            .on(on_link)
            .answered(Reason::Neighbour, to_asker(vip, &[])),
        row(
            "a solicitation for a VIP on link is answered where the kernel answers for the port",
            question(vip),
        )
        .on(on_link)
        .on(kernel)
        .answered(Reason::Neighbour, to_asker(vip, &[])),
        row("a solicitation for a VIP on link is answered beside an exception path", question(vip).vlan(5))
            .on(on_link)
            .on(exception)
            .answered(Reason::Neighbour, to_asker(vip, &[0x81, 0, 0, 5])),
        row("a search for duplicates of a VIP is answered to all", search(vip))
            .on(on_link)
            .answered(Reason::Neighbour, to_all(vip)),
        row("an unsolicited advertisement", unsolicited()).dropped(Reason::OtherProtocol),
        row("an unsolicited advertisement is the kernel's by the exception path", unsolicited())
            .on(exception)
            .punted(Reason::OtherProtocol),
        row("a solicitation for another address", question(elsewhere)).dropped(Reason::OtherProtocol),
        row("a solicitation from behind a router", question(PORT6).ttl(254)).dropped(Reason::OtherProtocol),
        row("a solicitation without a port", question(PORT6))
            .on(|port| *port = Port::default())
            .dropped(Reason::OtherProtocol),
        row("a solicitation where the kernel answers it", question(PORT6))
            .on(kernel)
            .punted(Reason::OtherProtocol),
        row("a solicitation where the kernel answers it by the exception path", question(PORT6))
            .on(exception)
            .punted(Reason::OtherProtocol),
    ]
}

/// A neighbour advertisement of an address that is the port's, byte by byte.
fn advertisement(target: [u8; 16], to_mac: [u8; 6], to: [u8; 16], flags: u8, tags: &[u8]) -> Vec<u8> {
    let mut message = vec![136, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target);
    message.extend([2, 1]);
    message.extend(PORT_MAC);
    let mut pseudo = [target, to].concat();
    pseudo.extend([0, 0, 0, 32, 0, 0, 0, 58]);
    pseudo.extend(&message);
    let sum = internet_checksum(&pseudo);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [to_mac, PORT_MAC].concat();
    frame.extend(tags);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame.extend(target);
    frame.extend(to);
    frame.extend(message);
    frame
}
