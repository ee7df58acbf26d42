//! The golden table: what a row is, and the configuration all rows share.

mod chosen;
mod endpoint;
mod explicit;
mod frame;
mod icmp;
mod join;
mod kernel;
mod learn;
mod map;
mod syn;
mod too_big;
mod tunnel;

use engine::snapshot::Site;
use engine::verdict::Action;
use ipc::counter::Counter;
use ipc::id::PortId;
use ipc::message::{BackendState, Command, Forward, Handles, Protocol, Steering, UnknownToken};
use ipc::reason::Reason;
use packet::build::PacketBuilder;
use packet::{Family, Flow, Key, Token, Version};

use crate::support::{
    self, CLIENT_KEY, Frame, World, backend, backend_address, backend_in, backend_mac, name, of, services,
    vip, vip_with,
};

/// The ISN of every SYN in the table.
pub const ISN: u32 = 0xffff_fff0;
/// What the client acknowledges; nobody looks at it.
pub const ACK: u32 = 5000;
/// A server's key; its tokens are from the protocol's own digests, not from our code.
pub const KEY: Key = Key([1, 2, 3, 4, 5, 6, 7, 8]);
/// SHA-256 of [`KEY`].
pub const TOKEN: u32 = 0x6684_0dda;
/// SHA-1 of [`KEY`].
pub const TOKEN_V0: u32 = 0xdd57_83bc;
/// Another server's key.
pub const OTHER_KEY: Key = Key([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
/// SHA-256 of [`OTHER_KEY`].
pub const OTHER_TOKEN: u32 = 0xccad_45ac;

/// The addresses of the backend behind a router.
pub const FAR4: [u8; 4] = [198, 51, 100, 51];
/// The same, IPv6: 2001:db8:51::51.
pub const FAR6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0x51, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x51];

/// The VIPs' ports on 10.9.9.9 and fd99::9.
pub mod port {
    /// VIP web: pool web-servers, l2dsr, unknown tokens dropped.
    pub const WEB: u16 = 8000;
    /// VIP tls: the same pool.
    pub const TLS: u16 = 443;
    /// VIP reset: the same pool, unknown tokens answered with RST.
    pub const RESET: u16 = 8001;
    /// VIP hash: the same pool, unknown tokens hashed.
    pub const HASH: u16 = 8002;
    /// VIP plain: the same pool, steering off.
    pub const PLAIN: u16 = 8003;
    /// VIP tunnel: the same pool, ipip.
    pub const TUNNEL: u16 = 8004;
    /// VIP empty: a pool whose one backend is draining.
    pub const EMPTY: u16 = 8005;
    /// VIP four: ipip to a backend that has only an IPv4 address.
    pub const FOUR: u16 = 8006;
    /// VIP six: ipip to a backend that has only an IPv6 address.
    pub const SIX: u16 = 8007;
    /// VIP gue: the pool of tunnel, gue.
    pub const GUE: u16 = 8008;
    /// VIP gue-four: gue to the backend of four.
    pub const GUE_FOUR: u16 = 8009;
    /// VIP gue-six: gue to the backend of six.
    pub const GUE_SIX: u16 = 8010;
    /// VIP far: ipip to a backend behind a router, with both addresses.
    pub const FAR: u16 = 8011;
    /// VIP far-l2: l2dsr to it.
    pub const FAR_L2: u16 = 8012;
    /// VIP map: pool web-servers, by the ranges of tokens.
    pub const MAP: u16 = 8013;
    /// VIP cipher: the same pool, by tokens that are encrypted, unknown ones by the hash.
    pub const CIPHER: u16 = 8014;
    /// VIP both: the same pool, by learned tokens, then by ranges.
    pub const BOTH: u16 = 8015;
    /// VIP explicit: the same pool, learning, both kinds of explicit tokens understood.
    pub const EXPLICIT: u16 = 8016;
    /// VIP chosen: the pool of gue, gue, its servers' keys chosen.
    pub const CHOSEN: u16 = 8017;
    /// VIP chosen-l2: the same, l2dsr, which has no place for keys.
    pub const CHOSEN_L2: u16 = 8018;
    /// VIP stated: the same pool, by the ranges of tokens, both kinds of explicit tokens understood.
    pub const STATED: u16 = 8019;
    /// VIP dns: UDP, pool web-servers.
    pub const DNS: u16 = 53;
}

/// Something that happened before.
pub enum Step {
    /// A frame came.
    Packet(Vec<u8>),
    /// Seconds passed, the sweep at work.
    Wait(u64),
    /// The control plane committed a batch.
    Commit(Vec<Command>),
    /// Removed backends that no entry holds were forgotten.
    Forget,
    /// Removed backends were forgotten although entries hold them: what the tables meet after a deadline.
    Delete,
}

impl From<PacketBuilder> for Step {
    fn from(builder: PacketBuilder) -> Self {
        Self::Packet(builder.build())
    }
}

/// What a row expects of the verdict.
pub struct Expected {
    pub action: Action,
    pub reason: Reason,
    pub vip: Option<&'static str>,
    pub backend: Option<&'static str>,
    pub token: Option<u32>,
    pub learned: bool,
    pub port: PortId,
}

/// What leaves.
pub enum Sent {
    /// To a backend: the frame with other MAC addresses. Else nothing.
    AsUsual,
    /// Exactly this.
    Bytes(Vec<u8>),
}

/// One line of the table.
pub struct Row {
    pub what: &'static str,
    pub site: Site,
    pub configured: bool,
    pub headroom: usize,
    pub before: Vec<Step>,
    pub packet: Vec<u8>,
    pub expected: Expected,
    pub moved: Vec<(Counter, u64)>,
    pub sent: Sent,
}

/// A row: this packet, on the usual port. Without more it expects a drop as `not_vip`.
pub fn row(what: &'static str, packet: impl Into<Frame>) -> Row {
    let expected = Expected {
        action: Action::Drop,
        reason: Reason::NotVip,
        vip: None,
        backend: None,
        token: None,
        learned: false,
        port: PortId(0),
    };
    Row {
        what,
        site: support::site(),
        configured: true,
        headroom: 128,
        before: Vec::new(),
        packet: packet.into().0,
        expected,
        moved: Vec::new(),
        sent: Sent::AsUsual,
    }
}

impl Row {
    /// What came before.
    pub fn after(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.before.extend(steps);
        self
    }

    /// It goes to a backend of a VIP.
    pub fn forward(mut self, reason: Reason, vip: &'static str, backend: &'static str) -> Self {
        (self.expected.action, self.expected.reason) = (Action::Forward, reason);
        (self.expected.vip, self.expected.backend) = (Some(vip), Some(backend));
        self
    }

    /// By another port than it came from.
    pub fn by(mut self, port: u8) -> Self {
        self.expected.port = PortId(port);
        self
    }

    /// It is dropped, not yet known to be for a VIP.
    pub fn dropped(mut self, reason: Reason) -> Self {
        (self.expected.action, self.expected.reason) = (Action::Drop, reason);
        self
    }

    /// It is the kernel's.
    pub fn punted(mut self, reason: Reason) -> Self {
        (self.expected.action, self.expected.reason) = (Action::Punt, reason);
        self
    }

    /// It is answered with these bytes.
    pub fn answered(mut self, reason: Reason, bytes: Vec<u8>) -> Self {
        (self.expected.action, self.expected.reason) = (Action::Local, reason);
        self.sent(bytes)
    }

    /// The VIP it is addressed to, where it goes to no backend.
    pub fn at(mut self, vip: &'static str) -> Self {
        self.expected.vip = Some(vip);
        self
    }

    /// The verdict names this token.
    pub fn token(mut self, token: u32) -> Self {
        self.expected.token = Some(token);
        self
    }

    /// The packet created the token's entry.
    pub fn learned(mut self, token: u32) -> Self {
        self.expected.learned = true;
        self.token(token)
    }

    /// The counters that move, each by one, besides what was received.
    pub fn moves(mut self, counters: &[Counter]) -> Self {
        self.moved = counters.iter().map(|counter| (*counter, 1)).collect();
        self
    }

    /// Exactly these bytes leave.
    pub fn sent(mut self, bytes: Vec<u8>) -> Self {
        self.sent = Sent::Bytes(bytes);
        self
    }

    /// On another port than the usual one.
    pub fn on(mut self, change: impl FnOnce(&mut engine::snapshot::Port)) -> Self {
        change(&mut self.site.ports[0]);
        self
    }
}

/// All rows of a family.
pub fn all(family: Family) -> Vec<Row> {
    let scene = Scene { family, world: Scene::world(support::site()) };
    let parts = [
        syn::rows,
        learn::rows,
        join::rows,
        map::rows,
        chosen::rows,
        explicit::rows,
        endpoint::rows,
        frame::rows,
        icmp::rows,
        kernel::rows,
        tunnel::rows,
        too_big::rows,
    ];
    parts.into_iter().flat_map(|rows| rows(&scene)).collect()
}

/// What rows are written with: a family and the configuration.
pub struct Scene {
    pub family: Family,
    world: World,
}

impl Scene {
    /// The configuration of all rows.
    pub fn world(site: Site) -> World {
        let mut world = World::unconfigured(site);
        let pools = ["web-servers", "others", "idle", "four", "six", "far"];
        let mut commands: Vec<Command> =
            pools.iter().map(|pool| Command::PutPool { name: name(pool) }).collect();
        commands
            .extend((1..=3).map(|n| support::numbered(backend("web-servers", &format!("b{n}"), 10 + n), n)));
        commands.extend([backend("others", "o1", 21), backend("others", "o2", 22)]);
        commands.push(backend_in("idle", "d1", 31, 100, BackendState::Draining));
        commands.extend([Self::one_address("four", Family::V4), Self::one_address("six", Family::V6)]);
        commands.push(Command::PutBackend {
            pool: name("far"),
            name: name("r1"),
            address4: Some(FAR4.into()),
            address6: Some(FAR6.into()),
            mac: Some(backend_mac(51)),
            weight: 1,
            state: BackendState::Active,
            handles: Handles::default(),
        });
        let (dsr, drop) = (Forward::L2dsr, UnknownToken::Drop);
        commands.extend([
            vip("web", "web-servers"),
            vip("tls", "web-servers"),
            vip_with("reset", "web-servers", dsr, true, UnknownToken::Reset),
            vip_with("hash", "web-servers", dsr, true, UnknownToken::Hash),
            vip_with("plain", "web-servers", dsr, false, drop),
            vip_with("tunnel", "web-servers", Forward::Ipip, true, drop),
            vip("empty", "idle"),
            vip_with("four", "four", Forward::Ipip, true, drop),
            vip_with("six", "six", Forward::Ipip, true, drop),
            vip_with("gue", "web-servers", Forward::Gue, true, drop),
            vip_with("gue-four", "four", Forward::Gue, true, drop),
            vip_with("gue-six", "six", Forward::Gue, true, drop),
            vip_with("far", "far", Forward::Ipip, true, drop),
            vip("far-l2", "far"),
            vip("any", "others"),
            Command::PutVip {
                name: name("dns"),
                pool: name("web-servers"),
                protocol: Protocol::Udp,
                forward: dsr,
                steering: Steering::LEARN,
                unknown_token: drop,
            },
        ]);
        commands.extend(map::vips());
        commands.extend(explicit::vips());
        commands.extend(chosen::vips());
        let ports = [
            ("web", port::WEB),
            ("tls", port::TLS),
            ("reset", port::RESET),
            ("hash", port::HASH),
            ("plain", port::PLAIN),
            ("tunnel", port::TUNNEL),
            ("empty", port::EMPTY),
            ("four", port::FOUR),
            ("six", port::SIX),
            ("gue", port::GUE),
            ("gue-four", port::GUE_FOUR),
            ("gue-six", port::GUE_SIX),
            ("far", port::FAR),
            ("far-l2", port::FAR_L2),
            ("map", port::MAP),
            ("cipher", port::CIPHER),
            ("both", port::BOTH),
            ("explicit", port::EXPLICIT),
            ("stated", port::STATED),
            ("chosen", port::CHOSEN),
            ("chosen-l2", port::CHOSEN_L2),
            ("dns", port::DNS),
        ];
        commands.extend(ports.iter().flat_map(|(vip, port)| services(vip, 9, *port)));
        commands.extend(services("any", 10, 0));
        world.commit(&commands);
        world
    }

    fn one_address(pool: &str, family: Family) -> Command {
        let has = |wanted| family == wanted;
        let v6 = backend_address(Family::V6, 41).v6_octets();
        Command::PutBackend {
            pool: name(pool),
            name: name(if family == Family::V4 { "f1" } else { "s1" }),
            address4: has(Family::V4).then_some([10, 0, 1, 41].into()),
            address6: has(Family::V6).then_some(v6.into()),
            mac: Some(backend_mac(41)),
            weight: 1,
            state: BackendState::Active,
            handles: Handles::default(),
        }
    }

    /// A flow to VIP address 9 that Maglev gives to this backend.
    pub fn flow(&self, backend: &str, port: u16) -> Flow {
        self.nth_flow(backend, port, 0)
    }

    /// Another such flow.
    pub fn nth_flow(&self, backend: &str, port: u16, nth: usize) -> Flow {
        self.world.flow_to(backend, self.family, 9, port, nth)
    }

    /// A flow of the other family.
    pub fn flow_of_other_family(&self, backend: &str, port: u16) -> Flow {
        let other = if self.family == Family::V4 { Family::V6 } else { Family::V4 };
        self.world.flow_to(backend, other, 9, port, 0)
    }

    /// The name of the backend that Maglev gives a fragment of a datagram to VIP dns.
    pub fn fragment_home(&self, flow: &Flow) -> &'static str {
        let whole = Flow { source_port: 0, destination_port: 0, protocol: 17, ..*flow };
        let snapshot = &self.world.snapshot;
        let vip = snapshot.service(&Flow { destination_port: port::DNS, ..whole }).unwrap();
        let chosen = snapshot.choose(snapshot.vip(vip).unwrap().pool, self.public_hash(&whole));
        self.world.name_of(chosen).unwrap().to_owned().leak()
    }

    /// The public hash of a flow: what GUE's source port and IPv6 flow labels are made of.
    pub fn public_hash(&self, flow: &Flow) -> u64 {
        self.world.snapshot.public_key().flow(flow)
    }

    /// The first UDP flow like this one that Maglev gives to this backend.
    pub fn udp_flow(&self, backend: &str, like: &Flow) -> Flow {
        let flows = (40_000..).map(|source_port| Flow { source_port, ..*like });
        let is_its = |flow: &Flow| self.world.name_of(self.world.hashed(flow)) == Some(backend);
        flows.into_iter().find(is_its).unwrap()
    }

    /// A flow to a port whose VIP has no backend to choose.
    pub fn flow_of_nobody(&self, port: u16) -> Flow {
        support::flow(self.family, 700, 40_000, 9, port)
    }

    /// A flow to VIP any, on any port.
    pub fn flow_to_any(&self, backend: &str, port: u16) -> Flow {
        self.world.flow_to(backend, self.family, 10, port, 0)
    }

    /// One of two values, by family.
    pub fn by_family<T>(&self, v4: T, v6: T) -> T {
        if self.family == Family::V4 { v4 } else { v6 }
    }
}

/// A plain SYN.
pub fn syn(flow: &Flow) -> PacketBuilder {
    of(flow).syn(ISN)
}

/// A SYN with MP_CAPABLE version 1.
pub fn capable(flow: &Flow) -> PacketBuilder {
    syn(flow).mp_capable_syn_v1()
}

/// A SYN with MP_JOIN.
pub fn join(flow: &Flow, token: u32) -> PacketBuilder {
    syn(flow).mp_join_syn(Token(token), 0x0e66_42a6, 1)
}

/// A segment `offset` bytes behind the SYN.
pub fn segment(flow: &Flow, offset: u32) -> PacketBuilder {
    of(flow).data(ISN.wrapping_add(1).wrapping_add(offset), ACK)
}

/// The third packet of a version 1 handshake.
pub fn third(flow: &Flow, key: Key) -> PacketBuilder {
    segment(flow, 0).mp_capable_ack(Version::V1, CLIENT_KEY, key)
}

/// Data with a DSS.
pub fn dss(flow: &Flow) -> PacketBuilder {
    segment(flow, 0).dss_data(1, 1, 1, b"some data")
}

/// An MPTCP connection whose key was seen.
pub fn connection(flow: &Flow, key: Key) -> Vec<Step> {
    vec![capable(flow).into(), third(flow, key).into()]
}

/// A connection whose token has rank seen: it outlived two ticks with DSS traffic.
pub fn seen_connection(flow: &Flow, key: Key) -> Vec<Step> {
    let mut steps = connection(flow, key);
    steps.extend([dss(flow).into(), Step::Wait(40), dss(flow).into()]);
    steps
}

/// The command that removes a backend of pool web-servers.
pub fn remove(text: &str) -> Step {
    Step::Commit(vec![Command::RemoveBackend { pool: name("web-servers"), name: name(text), deadline: None }])
}

/// The command that gives a backend of pool web-servers another state; `number` is that of its addresses.
pub fn set_state(text: &str, number: u8, state: BackendState) -> Step {
    Step::Commit(vec![backend_in("web-servers", text, number, 100, state)])
}
