//! One packet of a connection, written: from its place in the script to the bytes of a frame.

use packet::{Address, Family, Flags, Key, Token, Version, checksum, icmp, tcp};

use super::connection::{Connection, Path};
use super::frame::{Buffer, Ip, Tcp};
use super::hmac;
use super::kind::Kind;
use super::malformed;
use super::option::{Dss, Map, Options, data_flags};
use super::progress::{Progress, REQUEST};
use super::random::{Purpose, low16, low32, number};
use super::script::{Flavour, Forgery, PathIndex, Step};
use super::size::Sizes;

/// MP_CAPABLE's flag for the HMAC of its version.
const HMAC: u8 = 0x01;
/// MP_CAPABLE's flag for DSS checksums.
const CHECKSUM: u8 = 0x80;
/// The id of the address a join comes from.
const JOIN_ADDRESS: u8 = 1;
/// The ids of the client's further address and of the server's.
const FURTHER_ADDRESS: u8 = 2;
const SERVER_ADDRESS: u8 = 5;
/// What a router says a link takes.
const SMALL_MTU: u32 = 1400;
/// Data of the server's packet that it does not take.
const QUOTED_DATA: u32 = 1400;

/// A connection about to send.
pub(super) struct Sender<'a> {
    pub connection: &'a Connection,
    pub flavour: Flavour,
    pub path: PathIndex,
    /// The subflow's number: the connection's own but for joins that come again and again.
    pub tuple: u64,
    pub place: Path,
    pub progress: Progress,
    pub sizes: Option<&'a Sizes>,
    pub phase: u64,
    /// The time, in milliseconds since the file began.
    pub millis: u32,
}

impl Sender<'_> {
    /// Writes a step's packet.
    pub(super) fn step(&self, step: Step, out: &mut Buffer) -> Kind {
        match step {
            Step::Syn => self.syn(out, Kind::Syn, |_| ()),
            Step::CapableSyn => self.capable_syn(out),
            Step::JoinSyn { early: true } => self.join_syn(out, self.connection.token(), Kind::EarlyJoinSyn),
            Step::JoinSyn { early: false } => self.join_syn(out, self.connection.token(), Kind::JoinSyn),
            Step::UnknownSyn => self.join_syn(out, self.unknown_token(), Kind::UnknownJoinSyn),
            Step::ForgedJoin(forgery) => {
                let (version, _, server) = self.forged(forgery);
                self.join_syn(out, Token::from_key(version, &server), Kind::ForgedJoinSyn)
            }
            Step::MalformedSyn => match self.case().syn {
                Some(bytes) => self.syn(out, Kind::MalformedSyn, |options| options.raw(bytes)),
                None => self.capable_syn(out),
            },
            Step::Datagram => self.datagram(0, out),
            Step::Request => self.request(out),
            Step::Fin => self.acknowledge(out, Flags::FIN.with(Flags::ACK), Kind::Fin),
            Step::Reply | Step::LastAck => self.acknowledge(out, Flags::ACK, Kind::Ack),
            _ => self.bare(step, out),
        }
    }

    /// A packet of the running part that carries data, or an acknowledgment where this round has none.
    pub(super) fn data(&self, round: u64, out: &mut Buffer) -> Kind {
        let Some(sizes) = self.sizes else { return Kind::Ack };
        let data = sizes.of(self.phase, round);
        if data == 0 {
            return self.acknowledge(out, Flags::ACK, Kind::Ack);
        }
        let mut options = self.options();
        self.map(&mut options, data, out);
        self.send(out, data_flags(data, sizes.is_full(data)), data, &options);
        Kind::Data
    }

    /// A datagram.
    pub(super) fn datagram(&self, round: u64, out: &mut Buffer) -> Kind {
        let data = self.sizes.map_or(18, |sizes| sizes.of(self.phase, round));
        out.udp(&self.ip(), self.ports(), wide(data));
        Kind::Datagram
    }

    /// An ICMP error from a router between server and client, about data the server sent on this subflow.
    pub(super) fn error(&self, round: u64, out: &mut Buffer) -> Kind {
        let (connection, place) = (self.connection, &self.place);
        let v4 = connection.family == Family::V4;
        let router = match connection.family {
            Family::V4 => Address::from_v4([198, 19, 255, 254]),
            Family::V6 => Address::from_v6([0x20, 1, 0, 2, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xfe]),
        };
        let service = connection.service;
        let [id, .., ttl] = number(connection.seed, Purpose::Path, round ^ self.tuple).to_be_bytes();
        let ip = Ip {
            source: router,
            destination: service.address,
            id: u16::from(id),
            label: 0,
            ttl: 64,
            ..self.ip()
        };
        let quoted =
            Ip { source: service.address, destination: place.address, ttl: 1 + ttl % 60, ..self.ip() };
        let segment = Tcp {
            ports: (service.port, place.port),
            seq: place.server_isn.wrapping_add(1).wrapping_add(low32(self.progress.received[self.path])),
            ack: place.isn.wrapping_add(1).wrapping_add(low32(self.progress.sent[self.path])),
            flags: Flags::ACK,
            data: wide(QUOTED_DATA),
        };
        let mut options = Options::segment(Some(self.timestamps_of_server()));
        let (client, server) = connection.first_data();
        let sequence = server.wrapping_add(self.progress.data_received);
        let subflow_sequence = low32(self.progress.received[self.path]).wrapping_add(1);
        let checksum =
            connection.checksums.then(|| dss_checksum(sequence, subflow_sequence, QUOTED_DATA, out));
        let map = Map { sequence, subflow_sequence, len: low16(u64::from(QUOTED_DATA)), checksum };
        let ack = client.wrapping_add(self.progress.data_sent);
        options.dss(connection.version, &Dss { ack, map: Some(map), data_fin: false });
        // In turn, and not the same for all connections of a round.
        let turn = round / 3 + self.tuple;
        let (says, kind) = match (turn % 3, v4) {
            (0, true) => (([icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED], SMALL_MTU), Kind::TooBig),
            (0, false) => (([icmp::V6_PACKET_TOO_BIG, 0], SMALL_MTU), Kind::TooBig),
            (1, true) => (([icmp::UNREACHABLE, 1], 0), Kind::Unreachable),
            (1, false) => (([icmp::V6_UNREACHABLE, 3], 0), Kind::Unreachable),
            (_, true) => (([icmp::TIME_EXCEEDED, 0], 0), Kind::TimeExceeded),
            (_, false) => (([icmp::V6_TIME_EXCEEDED, 0], 0), Kind::TimeExceeded),
        };
        // Old routers quote 8 bytes behind the IP header (RFC 792), new ones up to 576 in all (RFC 1812), IPv6's up to
        // 1280 (RFC 4443).
        let quote = match (v4, turn % 2) {
            (true, 1) => 28,
            (true, _) => 576 - 28,
            (false, _) => 1280 - 48,
        };
        out.icmp(&ip, says, (&quoted, &segment, &options), quote);
        kind
    }

    /// A SYN with MP_CAPABLE.
    fn capable_syn(&self, out: &mut Buffer) -> Kind {
        let connection = self.connection;
        self.syn(out, Kind::CapableSyn, |options| {
            options.capable_syn(connection.version, self.capable_flags(), &connection.client);
        })
    }

    fn join_syn(&self, out: &mut Buffer, token: Token, kind: Kind) -> Kind {
        let (nonce, _) = self.connection.nonces(self.tuple);
        self.syn(out, kind, |options| options.join_syn(JOIN_ADDRESS, token, nonce))
    }

    fn syn(&self, out: &mut Buffer, kind: Kind, more: impl FnOnce(&mut Options)) -> Kind {
        let with = self.sizes.is_none_or(|sizes| sizes.timestamps);
        let timestamps = with.then(|| (self.place.clocks.0.wrapping_add(self.millis), 0));
        let mut options = Options::syn(self.connection.family, timestamps);
        more(&mut options);
        let segment = Tcp { ports: self.ports(), seq: self.place.isn, ack: 0, flags: Flags::SYN, data: 0 };
        out.tcp(&self.ip(), &segment, &options);
        kind
    }

    /// The client's first data: in version 1 with both keys once more (RFC 8684 section 3.1).
    fn request(&self, out: &mut Buffer) -> Kind {
        let mut options = self.options();
        let connection = self.connection;
        if self.flavour.is_mptcp() && connection.version == Version::V1 {
            let (first, _) = connection.first_data();
            let checksum = connection.checksums.then(|| dss_checksum(first, 1, REQUEST, out));
            options.capable_data(
                self.capable_flags(),
                connection.keys(),
                low16(u64::from(REQUEST)),
                checksum,
            );
        } else {
            self.map(&mut options, REQUEST, out);
        }
        self.send(out, data_flags(REQUEST, false), REQUEST, &options);
        Kind::FirstData
    }

    /// An acknowledgment of all that came, with a DSS where the connection has them.
    fn acknowledge(&self, out: &mut Buffer, flags: Flags, kind: Kind) -> Kind {
        let mut options = self.options();
        self.data_ack(&mut options);
        self.send(out, flags, 0, &options);
        kind
    }

    /// A step without data.
    fn bare(&self, step: Step, out: &mut Buffer) -> Kind {
        let connection = self.connection;
        let mut options = self.options();
        let mut flags = Flags::ACK;
        let kind = match step {
            Step::CapableAck => {
                options.capable_ack(connection.version, self.capable_flags(), connection.keys());
                Kind::ThirdAck
            }
            Step::ForgedAck(forgery) => return self.forged_ack(forgery, out),
            Step::JoinAck => {
                let nonces = connection.nonces(self.tuple);
                options.join_ack(hmac::join(connection.version, connection.keys(), nonces));
                Kind::JoinAck
            }
            Step::ForgedHmac => {
                let (one, other) = connection.nonces(!self.tuple);
                options.join_ack(hmac::join(connection.version, connection.keys(), (one, other)));
                Kind::ForgedJoinAck
            }
            Step::AddAddr => {
                self.add_addr(&mut options);
                Kind::AddAddr
            }
            Step::AddAddrEcho => {
                self.add_addr_echo(&mut options);
                if connection.version == Version::V0 { Kind::Ack } else { Kind::AddAddrEcho }
            }
            Step::Prio => {
                self.data_ack(&mut options);
                options.prio(true);
                Kind::Prio
            }
            Step::RemoveAddr => {
                self.data_ack(&mut options);
                options.remove_addr(FURTHER_ADDRESS);
                Kind::RemoveAddr
            }
            Step::DataFin => {
                self.data_fin(&mut options, out);
                Kind::DataFin
            }
            Step::Fastclose => {
                let (rst, kind) = self.fastclose(&mut options);
                flags = if rst { Flags::RST.with(Flags::ACK) } else { Flags::ACK };
                kind
            }
            Step::MalformedAck => match self.case().ack {
                Some(bytes) => {
                    options.raw(bytes);
                    Kind::MalformedAck
                }
                None => Kind::HandshakeAck,
            },
            Step::MalformedData => {
                self.send(out, data_flags(REQUEST, false), REQUEST, &options);
                return Kind::Data;
            }
            _ => Kind::HandshakeAck,
        };
        self.send(out, flags, 0, &options);
        kind
    }

    /// A third packet that claims what the server never gave.
    fn forged_ack(&self, forgery: Forgery, out: &mut Buffer) -> Kind {
        let (version, client, server) = self.forged(forgery);
        let mut options = self.options();
        options.capable_ack(
            version,
            if version == Version::V0 { HMAC | CHECKSUM } else { HMAC },
            (&client, &server),
        );
        // Behind any data a SYN may carry: one segment.
        let ahead = if forgery == Forgery::Place { 100_000 } else { 0 };
        let segment = self.segment(Flags::ACK, 0);
        let segment = Tcp { seq: segment.seq.wrapping_add(ahead), ..segment };
        out.tcp(&self.ip(), &segment, &options);
        Kind::ForgedAck
    }

    /// What a forged third packet says: its version, and both keys.
    fn forged(&self, forgery: Forgery) -> (Version, Key, Key) {
        let connection = self.connection;
        let other = Key(number(connection.seed, Purpose::Forged, connection.index).to_be_bytes());
        match (forgery, connection.version) {
            (Forgery::Version, Version::V0) => (Version::V1, connection.client, connection.server),
            (Forgery::Version, Version::V1) => (Version::V0, connection.client, connection.server),
            (Forgery::Again, version) => (version, connection.client, other),
            (_, version) => (version, connection.client, connection.server),
        }
    }

    fn unknown_token(&self) -> Token {
        let key = Key(number(self.connection.seed, Purpose::UnknownKey, self.tuple).to_be_bytes());
        Token::from_key(self.connection.version, &key)
    }

    fn case(&self) -> &'static malformed::Case {
        let place = match self.flavour {
            Flavour::Malformed(place) => place,
            _ => 0,
        };
        &malformed::CASES[place % malformed::CASES.len()]
    }

    fn capable_flags(&self) -> u8 {
        if self.connection.checksums { HMAC | CHECKSUM } else { HMAC }
    }

    /// ADD_ADDR of the client's further address.
    fn add_addr(&self, options: &mut Options) {
        let connection = self.connection;
        let (v4, v6) = both_forms(connection.further_address());
        let address: &[u8] = if connection.family == Family::V4 { &v4 } else { &v6 };
        let hmac = (connection.version == Version::V1)
            .then(|| hmac::add_addr(connection.keys(), FURTHER_ADDRESS, address));
        options.add_addr(connection.version, FURTHER_ADDRESS, address, hmac);
    }

    /// The echo of an ADD_ADDR in which the server announced the VIP's address. Version 0 knows no echo.
    fn add_addr_echo(&self, options: &mut Options) {
        let connection = self.connection;
        let (v4, v6) = both_forms(connection.service.address);
        let address: &[u8] = if connection.family == Family::V4 { &v4 } else { &v6 };
        match connection.version {
            Version::V0 => self.data_ack(options),
            Version::V1 => options.add_addr(Version::V1, SERVER_ADDRESS, address, None),
        }
    }

    /// Linux, version 1: RST with MP_FASTCLOSE and MP_TCPRST on every subflow. Version 0: MP_FASTCLOSE on an ACK of the
    /// first, RST on the others. Whether it is a RST, and what it is.
    fn fastclose(&self, options: &mut Options) -> (bool, Kind) {
        match (self.connection.version, self.path) {
            (Version::V1, _) => {
                options.fastclose(&self.connection.server);
                options.tcprst(false, 0);
                (true, Kind::Fastclose)
            }
            (Version::V0, 0) => {
                options.fastclose(&self.connection.server);
                (false, Kind::Fastclose)
            }
            (Version::V0, _) => (true, Kind::Rst),
        }
    }

    fn data_fin(&self, options: &mut Options, out: &Buffer) {
        let (client, server) = self.connection.first_data();
        let sequence = client.wrapping_add(self.progress.data_sent);
        let checksum = self.connection.checksums.then(|| {
            let sum = checksum::sum(&sequence.to_be_bytes()) + 1 + out.payload_sum(0);
            !checksum::fold(sum)
        });
        let map = Map { sequence, subflow_sequence: 0, len: 1, checksum };
        let ack = server.wrapping_add(self.progress.data_received);
        options.dss(self.connection.version, &Dss { ack, map: Some(map), data_fin: true });
    }

    /// A DSS that acknowledges.
    fn data_ack(&self, options: &mut Options) {
        if self.flavour.is_mptcp() {
            let (_, server) = self.connection.first_data();
            let ack = server.wrapping_add(self.progress.data_received);
            options.dss(self.connection.version, &Dss { ack, map: None, data_fin: false });
        }
    }

    /// A DSS that maps so much data.
    fn map(&self, options: &mut Options, data: u32, out: &Buffer) {
        if !self.flavour.is_mptcp() {
            return;
        }
        let (client, server) = self.connection.first_data();
        let sequence = client.wrapping_add(self.progress.data_sent);
        let subflow_sequence = low32(self.progress.sent[self.path]).wrapping_add(1);
        let checksum = self.connection.checksums.then(|| dss_checksum(sequence, subflow_sequence, data, out));
        let map = Map { sequence, subflow_sequence, len: low16(u64::from(data)), checksum };
        let ack = server.wrapping_add(self.progress.data_received);
        options.dss(self.connection.version, &Dss { ack, map: Some(map), data_fin: false });
    }

    fn send(&self, out: &mut Buffer, flags: Flags, data: u32, options: &Options) {
        out.tcp(&self.ip(), &self.segment(flags, data), options);
    }

    fn segment(&self, flags: Flags, data: u32) -> Tcp {
        let (place, progress, path) = (&self.place, &self.progress, self.path);
        Tcp {
            ports: self.ports(),
            seq: place.isn.wrapping_add(1).wrapping_add(low32(progress.sent[path])),
            ack: place.server_isn.wrapping_add(1).wrapping_add(low32(progress.received[path])),
            flags,
            data: wide(data),
        }
    }

    fn options(&self) -> Options {
        let with = self.sizes.is_none_or(|sizes| sizes.timestamps);
        let (client, server) = self.place.clocks;
        Options::segment(with.then(|| (client.wrapping_add(self.millis), server.wrapping_add(self.millis))))
    }

    fn timestamps_of_server(&self) -> (u32, u32) {
        let (client, server) = self.place.clocks;
        (server.wrapping_add(self.millis), client.wrapping_add(self.millis))
    }

    fn ip(&self) -> Ip {
        Ip {
            family: self.connection.family,
            source: self.place.address,
            destination: self.connection.service.address,
            id: self.place.id.wrapping_add(low16(self.progress.packets[self.path])),
            label: self.place.label,
            ttl: 64,
        }
    }

    fn ports(&self) -> (u16, u16) {
        (self.place.port, self.connection.service.port)
    }
}

/// The checksum of a mapping (RFC 8684 section 3.3.1): over the whole data sequence number, the subflow's, the length and
/// the data.
fn dss_checksum(sequence: u64, subflow_sequence: u32, data: u32, out: &Buffer) -> u16 {
    let header = checksum::sum(&sequence.to_be_bytes()) + checksum::sum(&subflow_sequence.to_be_bytes());
    !checksum::fold(header + u64::from(data) + out.payload_sum(wide(data)))
}

fn both_forms(address: Address) -> ([u8; 4], [u8; 16]) {
    (address.v4_octets(), address.v6_octets())
}

fn wide(data: u32) -> usize {
    usize::try_from(data).unwrap_or(usize::MAX)
}

const _: () = assert!(tcp::OPTIONS_MAX == 40, "what a client writes fits 40 bytes");
