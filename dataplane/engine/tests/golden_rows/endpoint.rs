//! What comes to a port or an address of one backend's own.

use ipc::counter::Counter as C;
use ipc::message::{
    BackendState, Command, Forward, Handles, Protocol, Scheme, Steering, UnknownToken, WrongEndpoint,
};
use ipc::reason::Reason;
use packet::build::PacketBuilder;
use packet::{Address, Family, Flow};

use super::join::reset_with;
use super::tunnel::{outer_of, tunnelled, untagged};
use super::{
    KEY, OTHER_KEY, Row, Scene, Step, TOKEN, capable, connection, dss, icmp, join, port, remove, row,
    seen_connection, segment, syn, third,
};
use crate::support::{self, backend_address, backend_mac, name, of, services};

/// The VIPs' last byte of their address, and their port.
mod at {
    /// VIP endpoints: by endpoint alone; what is wrong there is reset.
    pub const ENDPOINTS: (u8, u16) = (20, 8000);
    /// VIP joined: by endpoint, then by learned tokens; the same.
    pub const BOTH: (u8, u16) = (21, 8001);
    /// VIP strict: by endpoint; what is wrong there is dropped.
    pub const STRICT: (u8, u16) = (22, 8002);
    /// VIP lax: by endpoint, through a tunnel; nothing is wrong there.
    pub const LAX: (u8, u16) = (23, 8003);
}

pub fn rows(s: &Scene) -> Vec<Row> {
    let parts = [own, strangers, elsewhere, shared, backends, others];
    let with_endpoints = |mut row: Row| {
        row.before.insert(0, configured());
        row
    };
    parts.into_iter().flat_map(|part| part(s)).map(with_endpoints).collect()
}

/// A backend of pool web-servers with endpoints: b1 has port 20001 and the addresses 10.9.10.1 and fd99::a:1.
fn member(number: u8, state: BackendState) -> Command {
    with_handles(&format!("b{number}"), number, state, handles(number))
}

fn handles(number: u8) -> Handles {
    Handles {
        endpoint_port: Some(20_000 + u16::from(number)),
        endpoint4: Some([10, 9, 10, number].into()),
        endpoint6: Some(own6(number).into()),
        ..Handles::default()
    }
}

fn own6(number: u8) -> [u8; 16] {
    [0xfd, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa, 0, number]
}

fn with_handles(text: &str, number: u8, state: BackendState, handles: Handles) -> Command {
    Command::PutBackend {
        pool: name("web-servers"),
        name: name(text),
        address4: Some([10, 0, 1, 10 + number].into()),
        address6: Some(backend_address(Family::V6, 10 + number).v6_octets().into()),
        mac: Some(backend_mac(10 + number)),
        weight: 100,
        state,
        handles,
    }
}

fn configured() -> Step {
    let by = [Scheme::Endpoint];
    let strict = Steering { wrong_endpoint: WrongEndpoint::Drop, ..Steering::by(by) };
    let lax = Steering { wrong_endpoint: WrongEndpoint::Forward, ..Steering::by(by) };
    let vips = [
        ("endpoints", at::ENDPOINTS, Forward::L2dsr, Steering::by(by)),
        ("joined", at::BOTH, Forward::L2dsr, Steering::by([Scheme::Endpoint, Scheme::Learn])),
        ("strict", at::STRICT, Forward::L2dsr, strict),
        ("lax", at::LAX, Forward::Ipip, lax),
    ];
    let mut commands: Vec<Command> = (1..=3).map(|number| member(number, BackendState::Active)).collect();
    for (text, (last, port), forward, steering) in vips {
        commands.push(Command::PutVip {
            name: name(text),
            pool: name("web-servers"),
            protocol: Protocol::Tcp,
            forward,
            steering,
            unknown_token: UnknownToken::Drop,
        });
        commands.extend(services(text, last, port));
    }
    Step::Commit(commands)
}

/// To a backend's port on a VIP's address.
fn to_port(s: &Scene, (last, _): (u8, u16), number: u8) -> Flow {
    support::flow(s.family, 300, 41_000, last, 20_000 + u16::from(number))
}

/// To a backend's address, at a VIP's port.
fn to_address(s: &Scene, (_, port): (u8, u16), number: u8) -> Flow {
    let destination = s.by_family(Address::from_v4([10, 9, 10, number]), Address::from_v6(own6(number)));
    Flow { destination, ..support::flow(s.family, 300, 41_000, 0, port) }
}

/// A join and everything after it, by where they go.
fn own(s: &Scene) -> Vec<Row> {
    let (by_port, by_address) = (to_port(s, at::ENDPOINTS, 2), to_address(s, at::ENDPOINTS, 3));
    let joins = |what, packet: PacketBuilder, backend| {
        row(what, packet)
            .forward(Reason::Endpoint, "endpoints", backend)
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::EndpointJoin])
    };
    let goes = |what, packet: PacketBuilder| row(what, packet).forward(Reason::Endpoint, "endpoints", "b2");
    let lax = to_port(s, at::LAX, 2);
    vec![
        joins("a join to a backend's port", join(&by_port, TOKEN), "b2"),
        joins("a join to a backend's address", join(&by_address, TOKEN), "b3"),
        joins("a join to a backend's port, sent again", join(&by_port, TOKEN), "b2")
            .after([join(&by_port, TOKEN).into()]),
        joins("a join to a backend's port under a VLAN tag", join(&by_port, TOKEN).vlan(7), "b2"),
        goes("the third packet of a join to an endpoint", segment(&by_port, 0).mp_join_ack([7; 20])),
        goes("data to an endpoint", dss(&by_port)),
        goes("a FIN to an endpoint", of(&by_port).fin(9, 1)),
        goes("a RST to an endpoint", of(&by_port).rst(9, 1)),
        row("data to an address", dss(&by_address)).forward(Reason::Endpoint, "endpoints", "b3"),
        row("data to an endpoint through a tunnel", dss(&lax))
            .forward(Reason::Endpoint, "lax", "b2")
            .sent(tunnelled(untagged(s), &dss(&lax).build_ip(), &outer_of(s, &lax, s.family, 12))),
    ]
}

/// SYNs that are no joins.
fn strangers(s: &Scene) -> Vec<Row> {
    let (plain, both) = (to_port(s, at::ENDPOINTS, 2), to_port(s, at::BOTH, 2));
    let (address, strict, lax) =
        (to_address(s, at::ENDPOINTS, 1), to_port(s, at::STRICT, 2), to_port(s, at::LAX, 2));
    let prohibited = [0x1e, 0x04, 0x80, 0x03];
    vec![
        row("a plain SYN to a backend's port", syn(&plain))
            .answered(Reason::EndpointReset, reset_with(&plain, &[], &[]))
            .at("endpoints")
            .moves(&[C::EndpointNoJoin]),
        row("a plain SYN to a backend's address", syn(&address))
            .answered(Reason::EndpointReset, reset_with(&address, &[], &[]))
            .at("endpoints")
            .moves(&[C::EndpointNoJoin]),
        row("MP_CAPABLE at a backend's port", capable(&both))
            .answered(Reason::EndpointReset, reset_with(&both, &[], &prohibited))
            .at("joined")
            .moves(&[C::CapableSyn, C::EndpointNoJoin]),
        row("MP_CAPABLE at a backend's port where the VIP does not learn", capable(&plain))
            .answered(Reason::EndpointReset, reset_with(&plain, &[], &prohibited))
            .at("endpoints")
            .moves(&[C::CapableSyn, C::EndpointNoJoin]),
        row("a SYN to a backend's port from a group's MAC address is dropped", {
            syn(&plain).ethernet([1, 0, 0, 0, 0, 1], packet::build::PORT_MAC)
        })
        .dropped(Reason::WrongEndpoint)
        .at("endpoints")
        .moves(&[C::EndpointNoJoin]),
        row("a plain SYN to a backend's port where the VIP drops it", syn(&strict))
            .dropped(Reason::WrongEndpoint)
            .at("strict")
            .moves(&[C::EndpointNoJoin]),
        row("a plain SYN to a backend's port where the VIP lets the backend judge", syn(&lax))
            .forward(Reason::Endpoint, "lax", "b2")
            .moves(&[C::EndpointNoJoin])
            .sent(tunnelled(untagged(s), &syn(&lax).build_ip(), &outer_of(s, &lax, s.family, 12))),
    ]
}

/// Joins whose token is known.
fn elsewhere(s: &Scene) -> Vec<Row> {
    let (b1, b2) = (s.flow("b1", port::WEB), s.flow("b2", port::WEB));
    let both = to_port(s, at::BOTH, 2);
    let forwarded = |what, steps: Vec<Step>| {
        row(what, join(&both, TOKEN))
            .after(steps)
            .forward(Reason::Endpoint, "joined", "b2")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::EndpointJoin])
    };
    let ambiguous =
        || connection(&b1, KEY).into_iter().chain(connection(&s.flow("b3", port::WEB), KEY)).collect();
    let unaware = to_port(s, at::ENDPOINTS, 2);
    vec![
        forwarded("a join to the backend that owns its token", seen_connection(&b2, KEY)),
        forwarded("a join whose token nobody is known to own", seen_connection(&b1, OTHER_KEY)),
        forwarded("a provisional claim elsewhere refuses no join", connection(&b1, KEY)),
        forwarded("an ambiguous token refuses no join at an endpoint", ambiguous()),
        row("a join whose connection is known to live elsewhere", join(&both, TOKEN))
            .after(seen_connection(&b1, KEY))
            .answered(Reason::EndpointReset, reset_with(&both, &[], &[0x1e, 0x04, 0x80, 0x03]))
            .at("joined")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::EndpointTokenElsewhere]),
        row("where nothing is learned no join is known to be elsewhere", join(&unaware, TOKEN))
            .after(seen_connection(&b1, KEY))
            .forward(Reason::Endpoint, "endpoints", "b2")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::EndpointJoin]),
    ]
}

/// Joins that ignore what the servers ask for.
fn shared(s: &Scene) -> Vec<Row> {
    let to = |(last, port)| support::flow(s.family, 301, 41_000, last, port);
    let (alone, both) = (to(at::ENDPOINTS), to(at::BOTH));
    let web = s.flow("b1", port::WEB);
    let snapshot = &s.world.snapshot;
    let pool = snapshot.service(&web).and_then(|vip| snapshot.vip(vip)).unwrap().pool;
    let home = snapshot.choose(pool, s.public_hash(&web));
    let mut flows = (40_000..).map(|source_port| Flow { source_port, ..alone });
    let first = flows.find(|flow| snapshot.choose(pool, s.public_hash(flow)) == home).unwrap();
    vec![
        row("a join to the address that all share, where nothing else steers", join(&alone, TOKEN))
            .after(connection(&s.flow("b2", port::WEB), OTHER_KEY))
            .dropped(Reason::UnknownToken)
            .at("endpoints")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::EndpointIgnored]),
        row("a join to the address that all share follows its token", join(&both, TOKEN))
            .after(connection(&s.flow("b2", port::WEB), KEY))
            .forward(Reason::Token, "joined", "b2")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::EndpointIgnored, C::FlowInserted]),
        row("a first subflow goes by hash", capable(&first))
            .forward(Reason::Hash, "endpoints", "b1")
            .moves(&[C::CapableSyn, C::FlowInserted]),
        row("where nothing is learned a key is nobody's business", third(&first, KEY))
            .after([capable(&first).into()])
            .forward(Reason::Flow, "endpoints", "b1"),
    ]
}

/// Backends that come, go and change.
fn backends(s: &Scene) -> Vec<Row> {
    let flow = to_port(s, at::ENDPOINTS, 2);
    let goes = |what, steps: Vec<Step>, backend| {
        row(what, dss(&flow)).after(steps).forward(Reason::Endpoint, "endpoints", backend)
    };
    let newcomer = || with_handles("b4", 4, BackendState::Active, handles(2));
    let own_address = |number: u8| {
        let handles = Handles {
            endpoint4: Some([10, 0, 1, 10 + number].into()),
            endpoint6: Some(backend_address(Family::V6, 10 + number).v6_octets().into()),
            ..Handles::default()
        };
        Step::Commit(vec![with_handles("b1", number, BackendState::Active, handles)])
    };
    let past = Flow { destination: backend_address(s.family, 11), ..to_address(s, at::ENDPOINTS, 1) };
    vec![
        goes(
            "a draining backend keeps its endpoint",
            vec![Step::Commit(vec![member(2, BackendState::Draining)])],
            "b2",
        ),
        goes("a removed backend keeps its endpoint", vec![remove("b2")], "b2"),
        goes(
            "another backend takes a removed one's endpoint over",
            vec![remove("b2"), Step::Commit(vec![newcomer()])],
            "b4",
        ),
        row("a deleted backend has no endpoint", dss(&flow)).after([remove("b2"), Step::Delete]),
        row("an endpoint that was taken away is nobody's", dss(&flow))
            .after([Step::Commit(vec![with_handles("b2", 2, BackendState::Active, Handles::default())])]),
        row("what goes to the server's own address is none of Weft's business", dss(&past))
            .after([own_address(1)]),
    ]
}

/// What is neither a join nor a stranger.
fn others(s: &Scene) -> Vec<Row> {
    let flow = to_port(s, at::ENDPOINTS, 2);
    let address = to_address(s, at::ENDPOINTS, 3);
    vec![
        row("a port of the VIP that is no backend's", dss(&Flow { destination_port: 20_009, ..flow })),
        row(
            "a port of a VIP that does not steer by endpoint",
            dss(&support::flow(s.family, 300, 1, 9, 20_002)),
        ),
        row("another port of a backend's address", dss(&Flow { destination_port: 22, ..address })),
        row("UDP to a backend's port", of(&Flow { protocol: 17, ..flow }).udp(41_000, 20_002)),
        row("an ICMP error about a packet that a server sent from its port", icmp::error(s, &flow)).forward(
            Reason::Related,
            "endpoints",
            "b2",
        ),
        row("an ICMP error about a packet that a server sent from its address", icmp::error(s, &address))
            .forward(Reason::Related, "endpoints", "b3"),
        row("an echo request to a backend's address", icmp::echo(s, address.destination))
            .answered(Reason::Echo, icmp::reply(s, address.destination).build()),
    ]
}
