//! Random but right: packets and MPTCP options for property tests.

#![allow(dead_code, reason = "each test takes what it needs")]

use packet::build::{PacketBuilder, packet as new_packet};
use packet::{
    AddAddr, Address, Capable, CapableFlags, DataSequence, Dss, Family, Flags, Join, Key, Mapping, MpPrio,
    RemoveAddr, ResetReason, TcpRst, Token, Version, ipv6,
};
use proptest::prelude::*;

/// Addresses, VLAN tags, IP header fields, IPv4 options or IPv6 extension headers.
fn network() -> impl Strategy<Value = PacketBuilder> {
    let link = (0..4_u8, any::<[u8; 6]>(), any::<[u8; 6]>(), 0..4096_u16, 0..20_usize);
    let ip = (any::<bool>(), any::<[u8; 16]>(), any::<[u8; 16]>(), any::<u8>(), any::<u8>(), any::<bool>());
    let options = prop::collection::vec(Just(1_u8), 0..=40);
    let extension = (
        prop::sample::select(vec![ipv6::ROUTING, ipv6::AUTHENTICATION, ipv6::DESTINATION_OPTIONS]),
        prop::collection::vec(any::<u8>(), 10..40),
    );
    let extensions = (any::<bool>(), prop::collection::vec(extension, 0..5), any::<bool>());
    (link, ip, options, extensions).prop_map(|(link, ip, options, (hop, extensions, atomic))| {
        let (tags, source_mac, destination_mac, id, trailer) = link;
        let (is_v6, source, destination, tos, ttl, dont_fragment) = ip;
        let mut packet =
            new_packet().ethernet(source_mac, destination_mac).tos(tos).ttl(ttl).trailer(trailer);
        packet = match tags {
            0 => packet,
            1 => packet.vlan(id),
            2 => packet.qinq(id, 7),
            _ => packet.vlan(id).vlan(9),
        };
        if !is_v6 {
            let ([a, b, c, d, ..], [e, f, g, h, ..]) = (source, destination);
            return packet
                .ipv4([a, b, c, d], [e, f, g, h])
                .ipv4_options(&options)
                .dont_fragment(dont_fragment);
        }
        packet = packet.ipv6(source, destination);
        if hop {
            packet = packet.extension(ipv6::HOP_BY_HOP, &[1, 4, 0, 0, 0, 0]);
        }
        for (kind, body) in extensions {
            packet = packet.extension(kind, &body);
        }
        if atomic { packet.fragment(0, false) } else { packet }
    })
}

/// A whole packet of any kind that the parser names.
pub fn packet() -> impl Strategy<Value = PacketBuilder> {
    let payload = prop::collection::vec(any::<u8>(), 0..100);
    let tcp = (any::<u8>(), any::<u32>(), any::<u32>(), any::<bool>(), prop::option::of(option()));
    (network(), 0..4_u8, any::<(u16, u16)>(), tcp, payload).prop_map(|(packet, kind, ports, tcp, payload)| {
        let (source, destination) = ports;
        let (flags, seq, ack, timestamps, option) = tcp;
        match kind {
            0 => packet.udp(source, destination).payload(&payload),
            // Every ICMP message has 4 bytes of its own behind the checksum.
            1 => packet.icmp(8, 0).payload(&[&[0; 4], &payload[..]].concat()),
            _ => {
                let mut packet = packet.tcp(source, destination).payload(&payload).flags(Flags(flags));
                packet = packet.seq(seq).ack(ack);
                match option {
                    Some(option) => option.put(packet),
                    None if timestamps => packet.timestamps(1, 2),
                    None => packet,
                }
            }
        }
    })
}

/// A fragment of any packet.
pub fn fragment() -> impl Strategy<Value = PacketBuilder> {
    (packet(), 0..8192_u16, any::<bool>())
        .prop_filter("an atomic fragment is none", |(_, offset, more)| *offset != 0 || *more)
        .prop_map(|(packet, offset, more)| packet.fragment(offset, more))
}

/// Any MPTCP option, with the packet it is right on.
#[derive(Clone, Debug)]
pub enum MptcpOption {
    Capable(Capable),
    Join(Join),
    Dss(Dss),
    AddAddr(AddAddr),
    RemoveAddr(RemoveAddr),
    MpPrio(MpPrio),
    MpFail(u64),
    Fastclose(Key),
    TcpRst(TcpRst),
}

impl MptcpOption {
    pub fn put(&self, packet: PacketBuilder) -> PacketBuilder {
        match self {
            Self::Capable(capable) => packet.mp_capable(capable),
            Self::Join(join) => packet.mp_join(join),
            Self::Dss(dss) => packet.dss(dss),
            Self::AddAddr(add) => packet.add_addr(add),
            Self::RemoveAddr(remove) => packet.remove_addr(remove),
            Self::MpPrio(prio) => packet.mp_prio(prio),
            Self::MpFail(sequence) => packet.mp_fail(*sequence),
            Self::Fastclose(key) => packet.fastclose(*key),
            Self::TcpRst(reset) => packet.tcprst(reset.transient, reset.reason),
        }
    }

    /// The flags of a packet this is right on, and whether that has payload.
    pub fn context(&self) -> (Flags, bool) {
        let ack = Flags::ACK;
        match self {
            Self::Capable(Capable::Syn { .. }) | Self::Join(Join::Syn { .. }) => (Flags::SYN, false),
            Self::Capable(Capable::SynAck { .. }) | Self::Join(Join::SynAck { .. }) => {
                (Flags::SYN.with(ack), false)
            }
            Self::Capable(Capable::Ack { data_len, .. }) => (ack, data_len.is_some()),
            Self::Dss(dss) => (ack, dss.mapping.is_some() && !dss.data_fin),
            Self::TcpRst(_) => (Flags::RST.with(ack), false),
            _ => (ack, false),
        }
    }
}

fn sequence() -> impl Strategy<Value = DataSequence> {
    prop_oneof![any::<u32>().prop_map(DataSequence::Short), any::<u64>().prop_map(DataSequence::Long)]
}

fn capable() -> impl Strategy<Value = Capable> {
    let keys = (any::<[u8; 8]>(), any::<[u8; 8]>());
    let flags = prop::sample::select(vec![0x01_u8, 0x81, 0x21, 0xa1]);
    (0..3_u8, any::<bool>(), flags, keys, any::<u16>(), prop::option::of(any::<u16>()), any::<bool>())
        .prop_map(|(form, old, flags, (a, b), len, checksum, data)| {
            let flags = CapableFlags(flags);
            let version = if old { Version::V0 } else { Version::V1 };
            let data = data && !old;
            match form {
                0 => Capable::Syn { version, flags, sender: old.then_some(Key(a)) },
                1 => Capable::SynAck { version, flags, sender: Key(a) },
                _ => Capable::Ack {
                    version,
                    flags,
                    sender: Key(a),
                    receiver: Key(b),
                    data_len: data.then_some(len),
                    checksum: checksum.filter(|_| data),
                },
            }
        })
}

fn join() -> impl Strategy<Value = Join> {
    let syn = (any::<u32>(), any::<u32>(), any::<u8>(), any::<bool>());
    (0..3_u8, syn, any::<[u8; 20]>()).prop_map(
        |(form, (token, nonce, address_id, backup), hmac)| match form {
            0 => Join::Syn { token: Token(token), nonce, address_id, backup },
            1 => Join::SynAck { hmac: *hmac.first_chunk().unwrap(), nonce, address_id, backup },
            _ => Join::Ack { hmac },
        },
    )
}

fn dss() -> impl Strategy<Value = Dss> {
    let mapping = (sequence(), any::<u32>(), any::<u16>(), prop::option::of(any::<u16>())).prop_map(
        |(sequence, subflow_sequence, len, checksum)| Mapping { sequence, subflow_sequence, len, checksum },
    );
    (any::<bool>(), prop::option::of(sequence()), prop::option::of(mapping)).prop_map(
        |(data_fin, data_ack, mapping)| Dss { data_fin: data_fin && mapping.is_some(), data_ack, mapping },
    )
}

fn add_addr() -> impl Strategy<Value = AddAddr> {
    let form = (any::<bool>(), any::<bool>(), any::<bool>());
    (form, any::<u8>(), any::<[u8; 16]>(), prop::option::of(any::<u16>()), any::<[u8; 8]>()).prop_map(
        |((old, echo, is_v6), address_id, octets, port, hmac)| {
            let echo = echo && !old;
            let [a, b, c, d, ..] = octets;
            AddAddr {
                version: if old { Version::V0 } else { Version::V1 },
                echo,
                address_id,
                address: if is_v6 { Address::from_v6(octets) } else { Address::from_v4([a, b, c, d]) },
                family: if is_v6 { Family::V6 } else { Family::V4 },
                port,
                hmac: (!old && !echo).then_some(hmac),
            }
        },
    )
}

/// Any MPTCP option.
pub fn option() -> impl Strategy<Value = MptcpOption> {
    prop_oneof![
        capable().prop_map(MptcpOption::Capable),
        join().prop_map(MptcpOption::Join),
        dss().prop_map(MptcpOption::Dss),
        add_addr().prop_map(MptcpOption::AddAddr),
        prop::collection::vec(any::<u8>(), 1..=8)
            .prop_map(|ids| MptcpOption::RemoveAddr(RemoveAddr::new(&ids).unwrap())),
        (any::<bool>(), prop::option::of(any::<u8>()))
            .prop_map(|(backup, address_id)| MptcpOption::MpPrio(MpPrio { backup, address_id })),
        any::<u64>().prop_map(MptcpOption::MpFail),
        any::<[u8; 8]>().prop_map(|key| MptcpOption::Fastclose(Key(key))),
        (any::<bool>(), any::<u8>()).prop_map(|(transient, reason)| MptcpOption::TcpRst(TcpRst {
            transient,
            reason: ResetReason(reason)
        })),
    ]
}

/// A packet's frame with some bytes changed, and perhaps cut.
pub fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let cut = prop::option::of(any::<prop::sample::Index>());
    (packet(), changes, cut).prop_map(|(packet, changes, cut)| {
        let mut bytes = packet.build();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes
    })
}
