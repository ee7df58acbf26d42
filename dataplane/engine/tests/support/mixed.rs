//! Traffic of every kind from a small universe, so that everything meets everything: few clients, few ports, few
//! keys, all kinds of VIPs, and frames that are broken in any place.

use ipc::message::{
    BackendState, Command, Forward, Handles, Protocol, Scheme, Secret, Steering, UnknownToken,
};
use packet::build::{PORT_MAC, PacketBuilder, packet};
use packet::{Address, Family, Flags, Flow, Key, Token, Version};

use super::{
    CLIENT_KEY, PORT4, PORT6, Random, World, backend, backend_in, backend_mac, client_address, name,
    numbered, of, services, site, vip_address, vip_with,
};

/// The VIPs' ports, and one that is a backend's own.
const PORTS: [u16; 16] =
    [8000, 443, 8000, 443, 8000, 443, 8001, 8002, 8003, 8004, 8005, 8006, 8007, 8008, 53, ENDPOINT];

/// The port at which one backend alone is joined.
const ENDPOINT: u16 = 9001;

/// A data plane with VIPs of every kind.
pub fn world() -> World {
    let mut commands: Vec<Command> =
        ["one", "two", "four", "none"].iter().map(|pool| Command::PutPool { name: name(pool) }).collect();
    commands.extend((1..=5).map(|n| backend("one", &format!("b{n}"), n)));
    commands.extend((11..=13).map(|n| numbered(backend("two", &format!("c{n}"), n), n - 10)));
    commands.extend((31..=32).map(|n| four_only("four", &format!("f{n}"), n)));
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
        ("gue", "two", Forward::Gue, true, drop, 8006),
        ("gue-four", "four", Forward::Gue, true, UnknownToken::Reset, 8007),
        ("any", "two", ipip, true, UnknownToken::Reset, 0),
    ];
    for (text, pool, forward, learn, unknown, port) in kinds {
        commands.push(vip_with(text, pool, forward, learn, unknown));
        commands.extend(services(text, if port == 0 { 10 } else { 9 }, port));
    }
    // One that goes by more than learned tokens.
    commands.push(Command::PutVip {
        name: name("hash"),
        pool: name("one"),
        protocol: Protocol::Tcp,
        forward: dsr,
        steering: Steering {
            external_tokens: true,
            ..Steering::by([Scheme::Endpoint, Scheme::Learn, Scheme::TokenMap])
        },
        unknown_token: UnknownToken::Hash,
    });
    commands.push(with_endpoint("one", "b1", 1));
    commands.push(Command::PutVip {
        name: name("chosen"),
        pool: name("two"),
        protocol: Protocol::Tcp,
        forward: Forward::Gue,
        steering: Steering { key_secret: Some(Secret([7; 16])), ..Steering::by([Scheme::ChosenKey]) },
        unknown_token: UnknownToken::Hash,
    });
    commands.extend(services("chosen", 9, 8008));
    commands.push(Command::PutVip {
        name: name("dns"),
        pool: name("two"),
        protocol: Protocol::Udp,
        forward: dsr,
        steering: Steering::LEARN,
        unknown_token: drop,
    });
    commands.extend(services("dns", 9, 53));
    commands.push(Command::PutVip {
        name: name("dns-tunnel"),
        pool: name("one"),
        protocol: Protocol::Udp,
        forward: ipip,
        steering: Steering::LEARN,
        unknown_token: drop,
    });
    commands.extend(services("dns-tunnel", 10, 53));
    let mut site = site();
    // The VIPs are on link.
    site.ports[0].addresses.extend([("10.9.9.1".parse().unwrap(), 24), ("fd99::1".parse().unwrap(), 64)]);
    let mut world = World::unconfigured(site);
    world.commit(&commands);
    world
}

/// A backend that is joined at a port of its own.
fn with_endpoint(pool: &str, text: &str, number: u8) -> Command {
    match backend(pool, text, number) {
        Command::PutBackend { name, pool, address4, address6, mac, weight, state, .. } => {
            let handles = Handles { endpoint_port: Some(ENDPOINT), ..Handles::default() };
            Command::PutBackend { name, pool, address4, address6, mac, weight, state, handles }
        }
        other => other,
    }
}

/// A backend that has only an IPv4 address.
fn four_only(pool: &str, text: &str, number: u8) -> Command {
    Command::PutBackend {
        pool: name(pool),
        name: name(text),
        address4: Some([10, 0, 1, number].into()),
        address6: None,
        mac: Some(backend_mac(number)),
        weight: 1,
        state: BackendState::Active,
        handles: Handles::default(),
    }
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
    let vip = |family| vip_address(family, 9);
    let udp = Flow { protocol: 17, ..flow };
    let packet = match random.below(48) {
        0 => packet().arp_request([10, 0, 1, 1], if random.percent(50) { PORT4 } else { [10, 0, 1, 9] }),
        1 => packet().neighbour_solicitation([0xfd; 16], PORT6),
        2 => packet().flow(&flow).icmp(by(&flow, 8, 128), 0).payload(b"echoes so loud"),
        40 => packet().arp_request([10, 9, 9, 77], vip(Family::V4).v4_octets()),
        41 => packet().neighbour_solicitation([0; 16], vip(Family::V6).v6_octets()),
        42..=43 => error(random, &flow),
        44 => error(random, &udp),
        45 => of(&udp).payload(&[0x66; 64]).fragment(u16::from(random.percent(50)) * 8, true),
        46 => of(&flow).data(1001, 77).payload(&vec![0x55; 1500 + random.below(100)]),
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
        4..=6 => packet.flow_label(0x4_2042),
        7 => packet.ipv4_options(&[7, 7, 4, 0, 0, 0, 0]),
        3 => packet.tos(0x2b).dont_fragment(false).identification(77),
        _ => packet,
    };
    packet.build()
}

/// One of two values, by the flow's family.
fn by<T>(flow: &Flow, v4: T, v6: T) -> T {
    if flow.family == Family::V4 { v4 } else { v6 }
}

/// An ICMP error about a packet that went back along a flow; one in four quotes too little.
fn error(random: &mut Random, flow: &Flow) -> PacketBuilder {
    let back = Flow {
        source: flow.destination,
        destination: flow.source,
        source_port: flow.destination_port,
        destination_port: flow.source_port,
        ..*flow
    };
    let mut quote = of(&back).build_ip();
    if random.percent(25) {
        quote.truncate(random.below(quote.len()));
    }
    let payload = [&[0; 4], quote.as_slice()].concat();
    let (kind, code) = by(flow, (3, 4), (2, 0));
    packet()
        .ip(client_address(flow.family, 9), flow.destination, flow.family)
        .icmp(kind, code)
        .payload(&payload)
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
    let echoed = u32::try_from(random.below(6)).unwrap() | 0x7000;
    let segment = of(flow).data(next, 77).timestamps(2, echoed);
    let server = key(random);
    let token = Token::from_key(Version::V1, &server);
    match random.below(21) {
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
        19 => segment.mp_capable_ack(Version::V1, CLIENT_KEY, server).flags(Flags::PSH),
        _ => segment.option(&[0x1e, u8::try_from(random.below(40)).unwrap(), 0x01]),
    }
    .ethernet(packet::build::CLIENT_MAC, PORT_MAC)
}
