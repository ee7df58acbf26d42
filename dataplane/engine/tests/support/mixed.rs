//! Traffic of every kind from a small universe, so that everything meets everything: few clients, few ports, few
//! keys, all kinds of VIPs, and frames that are broken in any place.

use ipc::message::{BackendState, Command, Forward, Protocol, UnknownToken};
use packet::build::{PORT_MAC, PacketBuilder, packet};
use packet::{Address, Family, Flow, Key, Token, Version};

use super::{
    CLIENT_KEY, PORT4, PORT6, Random, World, backend, backend_in, client_address, name, of, services,
    vip_address, vip_with,
};

/// The VIPs' ports.
const PORTS: [u16; 8] = [8000, 443, 8001, 8002, 8003, 8004, 8005, 53];

/// A data plane with VIPs of every kind.
pub fn world() -> World {
    let mut commands: Vec<Command> =
        ["one", "two", "none"].iter().map(|pool| Command::PutPool { name: name(pool) }).collect();
    commands.extend((1..=5).map(|n| backend("one", &format!("b{n}"), n)));
    commands.extend((11..=13).map(|n| backend("two", &format!("c{n}"), n)));
    commands.push(backend_in("none", "d", 20, 100, BackendState::Down));
    let (dsr, ipip, drop) = (Forward::L2dsr, Forward::Ipip, UnknownToken::Drop);
    let kinds = [
        ("web", "one", dsr, true, drop, 8000),
        ("tls", "one", dsr, true, drop, 443),
        ("reset", "one", dsr, true, UnknownToken::Reset, 8001),
        ("hash", "one", dsr, true, UnknownToken::Hash, 8002),
        ("plain", "one", dsr, false, drop, 8003),
        ("tunnel", "one", ipip, true, drop, 8004),
        ("empty", "none", dsr, true, drop, 8005),
        ("any", "two", ipip, true, UnknownToken::Reset, 0),
    ];
    for (text, pool, forward, learn, unknown, port) in kinds {
        commands.push(vip_with(text, pool, forward, learn, unknown));
        commands.extend(services(text, if port == 0 { 10 } else { 9 }, port));
    }
    commands.push(Command::PutVip {
        name: name("dns"),
        pool: name("two"),
        protocol: Protocol::Udp,
        forward: dsr,
        learn: true,
        unknown_token: drop,
    });
    commands.extend(services("dns", 9, 53));
    World::new(&commands)
}

/// A frame of any kind; one in eight is broken somewhere.
pub fn frame(random: &mut Random) -> Vec<u8> {
    let mut frame = whole(random);
    match random.below(24) {
        0 => frame.truncate(random.below(frame.len() + 1)),
        1 => {
            let at = random.below(frame.len());
            frame[at] ^= 1 << random.below(8);
        }
        2 => {
            // Anywhere in the headers, anything.
            let at = random.below(frame.len().min(80));
            frame[at] = u8::try_from(random.below(256)).unwrap();
        }
        _ => {}
    }
    frame
}

fn whole(random: &mut Random) -> Vec<u8> {
    let flow = flow(random);
    let packet = match random.below(40) {
        0 => packet().arp_request([10, 0, 1, 1], if random.percent(50) { PORT4 } else { [10, 0, 1, 9] }),
        1 => packet().neighbour_solicitation([0xfd; 16], PORT6),
        2 => packet().flow(&flow).icmp(8, 0).payload(b"echo"),
        3 => of(&flow).data(1, 1).payload(&[0; 32]).fragment(0, true),
        4 => packet().ethertype(0x1234).payload(&[0; 50]),
        5 => of(&Flow { protocol: 17, ..flow }).payload(b"datagram"),
        6 => of(&flow).syn(1).ethernet([2; 6], [2, 9, 9, 9, 9, 9]),
        _ => tcp(random, &flow),
    };
    let packet = match random.below(12) {
        0 => packet.vlan(7),
        1 => packet.qinq(7, 8),
        2 => packet.trailer(random.below(20)),
        3 => packet.tos(0x2b).dont_fragment(false).identification(77),
        _ => packet,
    };
    packet.build()
}

fn flow(random: &mut Random) -> Flow {
    let family = if random.percent(50) { Family::V4 } else { Family::V6 };
    let last = if random.percent(80) { 9 } else { 10 };
    Flow {
        source: client_address(family, u16::try_from(random.below(3)).unwrap()),
        destination: match random.below(30) {
            0 => Address(vip_address(family, last).0 + 50),
            _ => vip_address(family, last),
        },
        source_port: u16::try_from(5000 + random.below(3)).unwrap(),
        destination_port: PORTS[random.below(PORTS.len())],
        protocol: 6,
        family,
    }
}

/// One of few server keys.
fn key(random: &mut Random) -> Key {
    Key([u8::try_from(random.below(12)).unwrap(); 8])
}

fn tcp(random: &mut Random, flow: &Flow) -> PacketBuilder {
    let isn = [1000, 0xffff_ffff][usize::from(random.percent(20))];
    let (syn, next) = (of(flow).syn(isn), isn.wrapping_add(1));
    let segment = of(flow).data(next, 77);
    let server = key(random);
    let token = Token::from_key(Version::V1, &server);
    match random.below(20) {
        0 => syn,
        1..=3 => syn.mp_capable_syn_v1(),
        4 => syn.mp_capable_syn_v0(CLIENT_KEY),
        5..=7 => syn.mp_join_syn(token, 3, 1),
        8 => syn.mp_capable_syn_v1().mp_join_syn(token, 3, 1),
        9..=10 => segment.mp_capable_ack(Version::V1, CLIENT_KEY, server),
        11 => segment.mp_capable_ack(Version::V0, CLIENT_KEY, server),
        12 => segment.mp_capable_data(CLIENT_KEY, server, b"first"),
        13 => segment.mp_join_ack([4; 20]),
        14 => segment.dss_data(1, 1, 1, b"data"),
        15 => segment.payload(&vec![0x77; random.below(1500)]),
        16 => of(flow).fin(next, 77).data_fin(1, 2),
        17 => of(flow).rst(next, 77).fastclose(server),
        18 => of(flow).fin(next, 77),
        _ => segment.option(&[0x1e, u8::try_from(random.below(40)).unwrap(), 0x01]),
    }
    .ethernet(packet::build::CLIENT_MAC, PORT_MAC)
}
