//! Clients by the million, without a list of them: a client is a number, and its packets are written when they are due.
//!
//! Why it exists: ten million established flows in random order would be a capture of a gigabyte; as numbers they are 40
//! megabytes of permutation. A packet is a template that [`packet::build`] made once, in Linux's option order and sizes,
//! with the client's address, port, sequence number, key or token written into it and both checksums brought up to
//! date, so that what is measured is as valid as what a port receives.

use packet::build::{PORT_MAC, PacketBuilder, packet};
use packet::checksum::{fold, sum};
use packet::{Address, DataSequence, Dss, Family, Flags, Flow, Key, Mapping, Token, Version};

use crate::arena::{HELD, Held};

/// What stands in a template where a packet's own token or key will be.
const MARK: [u8; 8] = [0xa5, 0x3c, 0x96, 0xe1, 0x5b, 0xd2, 0x78, 0x0f];

/// A service as its clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The address of the VIP.
    pub address: Address,
    /// Its family.
    pub family: Family,
    /// Its port.
    pub port: u16,
    /// The MAC address its packets are sent to: that of the balancer's port.
    pub mac: [u8; 6],
}

impl Service {
    /// The service that the bench configures for itself, in this family.
    pub fn standard(family: Family) -> Self {
        let address = match family {
            Family::V4 => Address::from_v4([203, 0, 113, 1]),
            Family::V6 => Address(0x2001_0db8_00ff_0000_0000_0000_0000_0001),
        };
        Self { address, family, port: 443, mac: PORT_MAC }
    }
}

/// One client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub address: Address,
    /// Its port.
    pub port: u16,
    /// Its initial sequence number.
    pub isn: u32,
    /// The key its server gave it.
    pub key: Key,
}

/// Clients 0 to 2^39 - 1, no two with the same address and port.
#[derive(Clone, Copy, Debug)]
pub struct Clients {
    /// What they connect to.
    pub service: Service,
    /// Other seeds give others.
    pub seed: u64,
}

impl Clients {
    /// The client of a number.
    #[expect(clippy::cast_possible_truncation, reason = "each part is masked or cut on purpose")]
    pub fn get(&self, number: u64) -> Client {
        const BITS: u64 = (1 << 39) - 1;
        // Multiplication by an odd number is a bijection, so is addition: distinct numbers stay distinct.
        let place = number.wrapping_mul(0x1f3d_5b79_2c6b).wrapping_add(self.seed) & BITS;
        let (host, port) = ((place >> 14) as u32, (place & 0x3fff) as u16);
        let address = match self.service.family {
            // 64.0.0.0/7 and ports from 32768 on, as Linux gives them.
            Family::V4 => Address::from_v4((0x4000_0000 | host).to_be_bytes()),
            Family::V6 => Address(0x2001_0db8_u128 << 96 | u128::from(host) << 64 | u128::from(mix(place))),
        };
        let random = mix(number ^ self.seed.rotate_left(32));
        let key = Key(mix(random).to_be_bytes());
        Client { address, port: 32_768 + port, isn: random as u32, key }
    }

    /// The flow of a client.
    pub fn flow(&self, client: &Client) -> Flow {
        Flow {
            source: client.address,
            destination: self.service.address,
            source_port: client.port,
            destination_port: self.service.port,
            protocol: packet::tcp::PROTOCOL,
            family: self.service.family,
        }
    }
}

/// The token of a number: distinct ones for distinct numbers below 2^32.
pub const fn token(number: u32, seed: u64) -> Token {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is as good as any")]
    let seed = seed as u32;
    let mixed = number.wrapping_mul(0x9e37_79b1);
    Token((mixed ^ (mixed >> 15)).wrapping_mul(0x85eb_ca6b) ^ seed)
}

/// SplitMix64's finalizer: a bijection that looks random.
pub const fn mix(number: u64) -> u64 {
    let x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Every number below `count` once, in an order that only the seed knows.
pub fn shuffled(count: u32, seed: u64) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count).collect();
    let mut state = seed;
    for last in (1..numbers.len()).rev() {
        state = state.wrapping_add(1);
        let scaled = (u128::from(mix(state)) * (last as u128 + 1)) >> 64;
        numbers.swap(last, usize::try_from(scaled).unwrap_or(last));
    }
    numbers
}

/// A packet of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// A SYN with MP_CAPABLE version 1.
    CapableSyn,
    /// The ACK with both keys that ends its handshake: the third packet.
    CapableAck,
    /// A pure ACK with timestamps and a DSS of 12 bytes, which acknowledges 64 bits.
    DataAck,
    /// Timestamps and a DSS of 20 bytes: a mapping.
    DataMap,
    /// Timestamps and a DSS of 24 bytes: a mapping and an acknowledgment of 32 bits.
    DataMapAck,
    /// Timestamps and no MPTCP: 66 bytes over IPv4.
    Timestamps,
    /// No options at all, padded to the 60 bytes of the shortest frame.
    Bare,
    /// A SYN with MP_JOIN.
    JoinSyn,
    /// The ACK with an HMAC that ends a join's handshake.
    JoinAck,
    /// A SYN without MPTCP.
    PlainSyn,
}

impl Shape {
    /// The packets of an established MPTCP connection: acknowledgments and data.
    pub const DSS: [Self; 3] = [Self::DataAck, Self::DataMap, Self::DataMapAck];

    /// How many bytes after the client's initial sequence number its packet begins.
    const fn past_isn(self) -> u32 {
        match self {
            Self::CapableSyn | Self::JoinSyn | Self::PlainSyn => 0,
            Self::CapableAck | Self::JoinAck => 1,
            _ => 1001,
        }
    }

    /// The packet as the builder makes it.
    fn build(self, packet: PacketBuilder) -> PacketBuilder {
        let mapping = |len| {
            let sequence = DataSequence::Long(0x0123_4567_89ab_cdef);
            Some(Mapping { sequence, subflow_sequence: 1001, len, checksum: None })
        };
        let dss = |data_ack, mapping| Dss { data_fin: false, data_ack, mapping };
        match self {
            Self::CapableSyn => packet.syn(0).mp_capable_syn_v1(),
            Self::CapableAck => packet.data(0, 1).mp_capable_ack(Version::V1, Key(*b"a client"), Key(MARK)),
            Self::DataAck => packet.data(0, 1).dss_ack(0x0fed_cba9_8765_4321),
            Self::DataMap => packet.data(0, 1).dss(&dss(None, mapping(1400))),
            Self::DataMapAck => {
                packet.data(0, 1).dss(&dss(Some(DataSequence::Short(0x8765_4321)), mapping(1400)))
            }
            Self::Timestamps => packet.data(0, 1),
            Self::Bare => packet.flags(Flags::ACK).ack(1).trailer(6),
            Self::JoinSyn => {
                let [a, b, c, d, ..] = MARK;
                packet.syn(0).mp_join_syn(Token(u32::from_be_bytes([a, b, c, d])), 0x0e66_42a6, 1)
            }
            Self::JoinAck => packet.data(0, 1).mp_join_ack([0x5a; 20]),
            Self::PlainSyn => packet.syn(0),
        }
    }

    /// How much of [`MARK`] the packet holds.
    const fn marked(self) -> usize {
        match self {
            Self::CapableAck => 8,
            Self::JoinSyn => 4,
            _ => 0,
        }
    }
}

/// A packet but for what is a client's own.
#[derive(Clone, Debug)]
pub struct Template {
    frame: Held,
    len: usize,
    shape: Shape,
    family: Family,
    /// Where the key or token begins; the frame's end where there is none.
    option: usize,
    /// Partial sums over what stays, both checksums and all of a client's own fields being zero.
    network: u64,
    transport: u64,
}

/// Where the IP header begins.
const L3: usize = packet::ethernet::HEADER_LEN;

impl Template {
    /// The packet of this shape to a service.
    ///
    /// # Panics
    /// Never for the shapes there are: each fits [`HELD`].
    pub fn new(shape: Shape, service: &Service) -> Self {
        let to = service.address;
        let network = match service.family {
            Family::V4 => packet().ipv4([0; 4], to.v4_octets()),
            // Linux labels its flows.
            Family::V6 => packet().ipv6([0; 16], to.v6_octets()).flow_label(0x9_c2e1),
        };
        let [.., last] = PORT_MAC;
        let built =
            shape.build(network.ethernet([2, 0, 0, 0, 1, last], service.mac).tcp(0, service.port)).build();
        let mut frame = Held::default();
        for (to, from) in frame.0.iter_mut().zip(&built) {
            *to = *from;
        }
        let family = service.family;
        let option = zero_mark(&mut frame.0, shape.marked()).unwrap_or(built.len());
        let mut template = Self { frame, len: built.len(), shape, family, option, network: 0, transport: 0 };
        let (l4, end) = (template.l4(), template.packet_end());
        if family == Family::V4 {
            template.put(L3 + 10, &[0; 2]);
            template.network = sum(&template.frame.0[L3..l4]);
        }
        template.put(l4 + 16, &[0; 2]);
        let flow = Flow {
            destination: to,
            protocol: packet::tcp::PROTOCOL,
            family,
            ..Flow { source: Address(0), ..Flow::default() }
        };
        let segment = &template.frame.0[l4..end];
        template.transport = packet::checksum::pseudo_header(&flow, segment.len()) + sum(segment);
        template
    }

    const fn l4(&self) -> usize {
        match self.family {
            Family::V4 => L3 + packet::ipv4::HEADER_LEN,
            Family::V6 => L3 + packet::ipv6::HEADER_LEN,
        }
    }

    /// Past the IP packet, before any padding.
    fn packet_end(&self) -> usize {
        let [high, low] = match self.family {
            Family::V4 => [self.frame.0[L3 + 2], self.frame.0[L3 + 3]],
            Family::V6 => [self.frame.0[L3 + 4], self.frame.0[L3 + 5]],
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        match self.family {
            Family::V4 => L3 + len,
            Family::V6 => self.l4() + len,
        }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        put(&mut self.frame.0, at, bytes);
    }

    /// Bytes of the frame.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Never: a frame has a header.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes a client's packet; `token` is a join's. Gives the frame's length.
    pub fn write(&self, client: &Client, token: Token, frame: &mut Held) -> usize {
        let to = &mut frame.0;
        *to = self.frame.0;
        let l4 = self.l4();
        let seq = client.isn.wrapping_add(self.shape.past_isn()).to_be_bytes();
        let ports = client.port.to_be_bytes();
        put(to, l4, &ports);
        put(to, l4 + 4, &seq);
        let mut transport = self.transport + sum(&ports) + sum(&seq);
        match self.shape {
            Shape::CapableAck => {
                put(to, self.option, &client.key.0);
                transport += sum(&client.key.0);
            }
            Shape::JoinSyn => {
                put(to, self.option, &token.0.to_be_bytes());
                transport += sum(&token.0.to_be_bytes());
            }
            _ => {}
        }
        match self.family {
            Family::V4 => {
                let address = client.address.v4_octets();
                put(to, L3 + 12, &address);
                put(to, L3 + 10, &(!fold(self.network + sum(&address))).to_be_bytes());
                transport += sum(&address);
            }
            Family::V6 => {
                let address = client.address.v6_octets();
                put(to, L3 + 8, &address);
                transport += sum(&address);
            }
        }
        put(to, l4 + 16, &(!fold(transport)).to_be_bytes());
        self.len
    }
}

/// Finds as many bytes of [`MARK`], and makes them zero.
fn zero_mark(frame: &mut [u8; HELD], len: usize) -> Option<usize> {
    let mark = MARK.get(..len).filter(|mark| !mark.is_empty())?;
    let at = frame.windows(len).position(|window| window == mark)?;
    frame.get_mut(at..at + len)?.fill(0);
    Some(at)
}

fn put(frame: &mut [u8; HELD], at: usize, bytes: &[u8]) {
    if let Some(to) = frame.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::{Capable, Join, Kind};
    use std::collections::HashSet;

    const SHAPES: [Shape; 10] = [
        Shape::CapableSyn,
        Shape::CapableAck,
        Shape::DataAck,
        Shape::DataMap,
        Shape::DataMapAck,
        Shape::Timestamps,
        Shape::Bare,
        Shape::JoinSyn,
        Shape::JoinAck,
        Shape::PlainSyn,
    ];

    fn clients(family: Family) -> Clients {
        Clients { service: Service::standard(family), seed: 7 }
    }

    #[test]
    fn a_written_packet_is_its_clients_and_its_checksums_are_right() {
        for (family, shape) in [Family::V4, Family::V6].into_iter().flat_map(|f| SHAPES.map(|s| (f, s))) {
            let clients = clients(family);
            let template = Template::new(shape, &clients.service);
            for number in [0, 1, 77, 9_999_999, (1 << 39) - 1] {
                let client = clients.get(number);
                let mut held = Held::default();
                let len = template.write(&client, Token(0xdead_beef), &mut held);
                let frame = &held.0[..len];
                let parsed = packet::parse(frame, len);
                assert_eq!((parsed.kind, parsed.flow), (Kind::Tcp, clients.flow(&client)), "{shape:?}");
                assert_eq!(parsed.tcp.seq, client.isn.wrapping_add(shape.past_isn()));
                let segment = &frame[usize::from(parsed.l4)..usize::from(parsed.end)];
                assert_eq!(packet::checksum::transport(&parsed.flow, segment), 0, "{shape:?}");
                if family == Family::V4 {
                    assert_eq!(packet::checksum::ipv4_header(&frame[14..34]), 0);
                }
                let options = packet::options(parsed.tcp_options(frame), parsed.tcp.flags, false);
                assert_eq!(options.malformed, None);
                match shape {
                    Shape::CapableAck => assert!(
                        matches!(options.capable, Some(Capable::Ack { receiver, .. }) if receiver == client.key)
                    ),
                    Shape::JoinSyn => {
                        assert!(matches!(options.join, Some(Join::Syn { token: Token(0xdead_beef), .. })));
                    }
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn frames_have_the_sizes_that_linux_gives_them() {
        let len = |shape, family| Template::new(shape, &Service::standard(family)).len();
        assert_eq!(Shape::DSS.map(|shape| len(shape, Family::V4)), [78, 86, 90]);
        assert_eq!(Shape::DSS.map(|shape| len(shape, Family::V6)), [98, 106, 110]);
        assert_eq!([Shape::Bare, Shape::Timestamps].map(|shape| len(shape, Family::V4)), [60, 66]);
        assert_eq!(
            [Shape::CapableSyn, Shape::CapableAck, Shape::JoinSyn, Shape::PlainSyn]
                .map(|shape| len(shape, Family::V4)),
            [78, 86, 86, 74]
        );
    }

    #[test]
    fn no_two_clients_are_alike_and_no_two_tokens() {
        for family in [Family::V4, Family::V6] {
            let clients = clients(family);
            let met: HashSet<_> = (0..100_000)
                .map(|number| clients.get(number * 1_000_003))
                .map(|client| (client.address, client.port))
                .collect();
            assert_eq!(met.len(), 100_000);
        }
        let tokens: HashSet<_> =
            (0..100_000_u32).map(|number| token(number.wrapping_mul(65_537), 3)).collect();
        assert_eq!(tokens.len(), 100_000);
    }

    #[test]
    fn an_order_has_every_number_once_and_its_seed_alone_decides_it() {
        let order = shuffled(10_000, 1);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().zip(0..).all(|(number, place)| *number == place));
        assert_eq!(order, shuffled(10_000, 1));
        assert_ne!(order, shuffled(10_000, 2));
        let near = order.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 100).count();
        assert!(near < 400, "{near} neighbours stayed near");
    }
}
