//! Joins: to the owner of their token, or by the VIP's policy.

use ipc::counter::Counter as C;
use ipc::message::{BackendState, Command, Forward, UnknownToken};
use ipc::reason::Reason;
use packet::build::{CLIENT_MAC, PORT_MAC, PacketBuilder};
use packet::{Family, Flow, ethernet};

use super::{
    ISN, KEY, OTHER_KEY, OTHER_TOKEN, Row, Scene, Step, TOKEN, capable, connection, dss, join, port, remove,
    row, seen_connection, segment, set_state, syn, third,
};
use crate::support::{name, of, vip_with};

pub fn rows(s: &Scene) -> Vec<Row> {
    let mut rows = known(s);
    rows.extend(unknown(s));
    rows.extend(ambiguous(s));
    rows.extend(pools(s));
    rows.extend(states(s));
    rows.push(too_many(s));
    rows
}

/// A join of a connection on b2, from a 5-tuple that Maglev would give to b1.
fn known(s: &Scene) -> Vec<Row> {
    let (first, second) = (s.flow("b2", port::WEB), s.flow("b1", port::WEB));
    let joined = |what, steps: Vec<Step>, packet: PacketBuilder| {
        row(what, packet).after(connection(&first, KEY)).after(steps)
    };
    let syn_again = |what, steps: Vec<Step>| {
        joined(what, steps, join(&second, TOKEN))
            .forward(Reason::Token, "web", "b2")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::SynRetransmitted])
    };
    let ack = || segment(&second, 0).mp_join_ack([7; 20]);
    let in_use = |what, steps: Vec<Step>| {
        joined(what, steps, of(&second).syn(7).mp_join_syn(packet::Token(TOKEN), 1, 2))
            .at("web")
            .token(TOKEN)
            .dropped(Reason::FlowInUse)
            .moves(&[C::JoinSyn])
    };
    vec![
        joined("a join follows its token", vec![], join(&second, TOKEN))
            .forward(Reason::Token, "web", "b2")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::FlowInserted]),
        syn_again("a join sent again follows its token", vec![join(&second, TOKEN).into()]),
        syn_again(
            "a join sent again after it was established",
            vec![join(&second, TOKEN).into(), ack().into()],
        ),
        joined("the join's third packet", vec![join(&second, TOKEN).into()], ack())
            .forward(Reason::Flow, "web", "b2")
            .moves(&[C::JoinEstablished]),
        joined("the join's third packet, seen again", vec![join(&second, TOKEN).into(), ack().into()], ack())
            .forward(Reason::Flow, "web", "b2"),
        joined("a join's data", vec![join(&second, TOKEN).into(), ack().into()], dss(&second)).forward(
            Reason::Flow,
            "web",
            "b2",
        ),
        joined("a join's FIN", vec![join(&second, TOKEN).into(), ack().into()], of(&second).fin(ISN, 1))
            .forward(Reason::Flow, "web", "b2"),
        joined(
            "another join on a live join is the server's to judge",
            vec![join(&second, TOKEN).into()],
            of(&second).syn(7).mp_join_syn(packet::Token(TOKEN), 1, 2),
        )
        .forward(Reason::Flow, "web", "b2")
        .token(TOKEN)
        .moves(&[C::JoinSyn, C::SynOnLiveFlow]),
        joined(
            "a join on a 5-tuple that was closed on its token's backend follows its token",
            vec![join(&second, TOKEN).into(), ack().into(), rst(&second)],
            of(&second).syn(7).mp_join_syn(packet::Token(TOKEN), 1, 2),
        )
        .forward(Reason::Token, "web", "b2")
        .token(TOKEN)
        .moves(&[C::JoinSyn, C::FlowInserted]),
        joined(
            "a join on a 5-tuple that was closed elsewhere, and silent since, follows its token",
            vec![syn(&second).into(), rst(&second), Step::Wait(32)],
            of(&second).syn(7).mp_join_syn(packet::Token(TOKEN), 1, 2),
        )
        .forward(Reason::Token, "web", "b2")
        .token(TOKEN)
        .moves(&[C::JoinSyn, C::FlowInserted]),
        in_use("a join takes no flow whose end may be forged", vec![syn(&second).into(), rst(&second)]),
        in_use("a join takes no flow that was met in its middle", vec![segment(&second, 0).into()]),
        row("a join that came before its key is let in when it is sent again", join(&second, TOKEN))
            .after([capable(&first).into(), join(&second, TOKEN).into(), third(&first, KEY).into()])
            .forward(Reason::Token, "web", "b2")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::FlowInserted]),
        joined("a join whose connection's first subflow was reset", vec![rst(&first)], join(&second, TOKEN))
            .forward(Reason::Token, "web", "b2")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::FlowInserted]),
        joined("MP_CAPABLE and MP_JOIN in one SYN are plain TCP", vec![], {
            capable(&second).mp_join_syn(packet::Token(TOKEN), 1, 2)
        })
        .forward(Reason::Hash, "web", "b1")
        .moves(&[C::MptcpCapableAndJoin, C::FlowInserted]),
        joined("an MP_JOIN of a wrong length is plain TCP", vec![], {
            syn(&second).option(&[0x1e, 11, 0x10, 1, 0x66, 0x84, 0x0d, 0xda, 0, 0, 0])
        })
        .forward(Reason::Hash, "web", "b1")
        .moves(&[C::MptcpBadLength, C::FlowInserted]),
        joined("an MP_JOIN behind a cut option is plain TCP", vec![], {
            syn(&second).option(&[0xfd, 1]).mp_join_syn(packet::Token(TOKEN), 1, 2)
        })
        .forward(Reason::Hash, "web", "b1")
        .moves(&[C::OptionMalformed, C::FlowInserted]),
    ]
}

/// As many joins of one token within a tick as are let in, and one more.
fn too_many(s: &Scene) -> Row {
    let (first, second) = (s.flow("b2", port::WEB), s.flow("b1", port::WEB));
    let more = (0..32).map(|n| join(&Flow { source_port: 2000 + n, ..second }, TOKEN).into());
    row("more joins of one token within a tick than any connection has subflows", join(&second, TOKEN))
        .after(connection(&first, KEY))
        .after(more)
        .dropped(Reason::JoinRate)
        .at("web")
        .token(TOKEN)
        .moves(&[C::JoinSyn])
}

fn rst(flow: &Flow) -> Step {
    of(flow).rst(ISN.wrapping_add(1), 1).into()
}

fn unknown(s: &Scene) -> Vec<Row> {
    let (web, plain) = (s.flow("b1", port::WEB), s.flow("b1", port::PLAIN));
    let (reset, hash) = (s.flow("b1", port::RESET), s.flow("b3", port::HASH));
    let no_choice = Step::Commit(vec![
        Command::RemoveService { vip: name("hash"), address: hash.destination.to_ip(), port: port::HASH },
        Command::PutService { vip: name("empty"), address: hash.destination.to_ip(), port: port::HASH },
        vip_with("empty", "idle", Forward::L2dsr, true, UnknownToken::Hash),
    ]);
    vec![
        row("a join of an unknown token is dropped", join(&web, TOKEN))
            .dropped(Reason::UnknownToken)
            .at("web")
            .token(TOKEN)
            .moves(&[C::JoinSyn]),
        row("a dropped join leaves no trace: it is dropped again", join(&web, TOKEN))
            .after([join(&web, TOKEN).into()])
            .dropped(Reason::UnknownToken)
            .at("web")
            .token(TOKEN)
            .moves(&[C::JoinSyn]),
        row("a join of an unknown token is reset", join(&reset, TOKEN))
            .answered(Reason::TokenReset, reset_of(&reset, &[]))
            .at("reset")
            .token(TOKEN)
            .moves(&[C::JoinSyn]),
        row("a reset goes back under the VLAN tags of its join", join(&reset, TOKEN).qinq(7, 8))
            .answered(Reason::TokenReset, reset_of(&reset, &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8]))
            .at("reset")
            .token(TOKEN)
            .moves(&[C::JoinSyn]),
        row("a join of an unknown token is reset on a VIP that tunnels too", join(&reset, TOKEN).vlan(5))
            .after([Step::Commit(vec![vip_with(
                "reset",
                "web-servers",
                Forward::Ipip,
                true,
                UnknownToken::Reset,
            )])])
            .answered(Reason::TokenReset, reset_of(&reset, &[0x81, 0, 0, 5]))
            .at("reset")
            .token(TOKEN)
            .moves(&[C::JoinSyn]),
        row("a join of an unknown token is reset beside an exception path", join(&reset, TOKEN).ttl(1))
            .on(super::frame::exception)
            .answered(Reason::TokenReset, reset_of(&reset, &[]))
            .at("reset")
            .token(TOKEN)
            .moves(&[C::JoinSyn]),
        row("without a port's MAC address a reset comes from the join's destination", join(&reset, TOKEN))
            .on(|port| *port = engine::snapshot::Port::default())
            .answered(Reason::TokenReset, reset_of(&reset, &[]))
            .at("reset")
            .token(TOKEN)
            .moves(&[C::JoinSyn]),
        row("a join to be reset from a group's MAC address is dropped", {
            join(&reset, TOKEN).ethernet([1, 0, 0, 0, 0, 1], PORT_MAC)
        })
        .dropped(Reason::UnknownToken)
        .at("reset")
        .token(TOKEN)
        .moves(&[C::JoinSyn]),
        row("a join of an unknown token is hashed", join(&hash, TOKEN))
            .forward(Reason::Hash, "hash", "b3")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::JoinHashed, C::FlowInserted]),
        row("a hashed join sent again goes where it went", join(&hash, TOKEN))
            .after([join(&hash, TOKEN).into()])
            .forward(Reason::Flow, "hash", "b3")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::SynRetransmitted]),
        row("a join to be hashed when no backend may be chosen", join(&hash, TOKEN))
            .after([no_choice])
            .dropped(Reason::NoBackend)
            .at("empty")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::JoinHashed]),
        row("without steering a join is hashed", join(&plain, TOKEN))
            .after(connection(&s.flow("b2", port::WEB), KEY))
            .forward(Reason::Hash, "plain", "b1")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::FlowInserted]),
    ]
}

/// The RST that answers a join of an unknown token: MP_TCPRST, transient, reason 1.
fn reset_of(flow: &Flow, tags: &[u8]) -> Vec<u8> {
    reset_with(flow, tags, &[0x1e, 0x04, 0x81, 0x01])
}

/// The RST that answers a SYN, byte by byte, with these options; it is padded to 60 bytes as every short frame is.
pub fn reset_with(flow: &Flow, tags: &[u8], options: &[u8]) -> Vec<u8> {
    let len = u8::try_from(20 + options.len()).unwrap();
    let mut frame = [CLIENT_MAC, PORT_MAC].concat();
    frame.extend(tags);
    let mut segment = Vec::new();
    segment.extend(flow.destination_port.to_be_bytes());
    segment.extend(flow.source_port.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(ISN.wrapping_add(1).to_be_bytes());
    segment.extend([(len / 4) << 4, 0x14, 0, 0, 0, 0, 0, 0]);
    segment.extend(options);
    let mut pseudo = Vec::new();
    match flow.family {
        Family::V4 => {
            frame.extend(ethernet::IPV4.to_be_bytes());
            let mut header = vec![0x45, 0, 0, 20 + len, 0, 0, 0x40, 0, 64, 6, 0, 0];
            header.extend(flow.destination.v4_octets());
            header.extend(flow.source.v4_octets());
            let sum = internet_checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend(header);
            pseudo.extend(flow.destination.v4_octets());
            pseudo.extend(flow.source.v4_octets());
        }
        Family::V6 => {
            frame.extend(ethernet::IPV6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0, 0, len, 6, 64]);
            frame.extend(flow.destination.v6_octets());
            frame.extend(flow.source.v6_octets());
            pseudo.extend(flow.destination.v6_octets());
            pseudo.extend(flow.source.v6_octets());
        }
    }
    pseudo.extend([0, 6, 0, len]);
    pseudo.extend(&segment);
    let sum = internet_checksum(&pseudo);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    frame.extend(segment);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// RFC 1071, written down once more so that it is not our own code that says what is right.
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// Two connections of equal right to one token.
fn ambiguous(s: &Scene) -> Vec<Row> {
    let (first, rival) = (s.flow("b2", port::WEB), s.flow("b3", port::WEB));
    let both = || connection(&first, KEY).into_iter().chain(connection(&rival, KEY));
    let (web, reset, hash) = (s.flow("b1", port::WEB), s.flow("b1", port::RESET), s.flow("b1", port::HASH));
    vec![
        row("a join of an ambiguous token is dropped", join(&web, TOKEN))
            .after(both())
            .dropped(Reason::AmbiguousToken)
            .at("web")
            .token(TOKEN)
            .moves(&[C::JoinSyn]),
        row("a join of an ambiguous token is reset", join(&reset, TOKEN))
            .after(both())
            .answered(Reason::TokenReset, reset_of(&reset, &[]))
            .at("reset")
            .token(TOKEN)
            .moves(&[C::JoinSyn]),
        row("a join of an ambiguous token is hashed", join(&hash, TOKEN))
            .after(both())
            .forward(Reason::Hash, "hash", "b1")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::JoinHashed, C::FlowInserted]),
        row("an ambiguous token is its survivor's once the other is gone", join(&web, TOKEN))
            .after(both())
            .after([dss(&first).into(), rst(&rival), Step::Wait(200), dss(&first).into()])
            .forward(Reason::Token, "web", "b2")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::FlowInserted]),
        row("a join of a token whose owner refused a newcomer", join(&web, TOKEN))
            .after(seen_connection(&first, KEY))
            .after(connection(&rival, KEY))
            .forward(Reason::Token, "web", "b2")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::FlowInserted]),
        row("a second key of a flow is no token", join(&web, OTHER_TOKEN))
            .after(connection(&first, KEY))
            .after([third(&first, OTHER_KEY).into()])
            .dropped(Reason::UnknownToken)
            .at("web")
            .token(OTHER_TOKEN)
            .moves(&[C::JoinSyn]),
    ]
}

/// A token belongs to a pool.
fn pools(s: &Scene) -> Vec<Row> {
    let first = s.flow("b2", port::WEB);
    let any = s.flow_to_any("o1", 9000);
    let other_any = s.flow_to_any("o2", 9001);
    let both = || connection(&first, KEY).into_iter().chain(connection(&any, KEY));
    let to_owner = |what, flow: &Flow, vip| {
        row(what, join(flow, TOKEN))
            .after(connection(&first, KEY))
            .forward(Reason::Token, vip, "b2")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::FlowInserted])
    };
    vec![
        to_owner("a join on another VIP of the pool", &s.flow("b1", port::TLS), "tls"),
        to_owner("a join of the other family", &s.flow_of_other_family("b3", port::WEB), "web"),
        row("a join on a VIP of another pool is unknown there", join(&any, TOKEN))
            .after(connection(&first, KEY))
            .dropped(Reason::UnknownToken)
            .at("any")
            .token(TOKEN)
            .moves(&[C::JoinSyn]),
        row("the same token in two pools: the first pool's", join(&s.flow("b3", port::WEB), TOKEN))
            .after(both())
            .forward(Reason::Token, "web", "b2")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::FlowInserted]),
        row("the same token in two pools: the second pool's", join(&other_any, TOKEN))
            .after(both())
            .forward(Reason::Token, "any", "o1")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::FlowInserted]),
        row("learning a token that another pool has", third(&any, KEY))
            .after(connection(&first, KEY))
            .after([capable(&any).into()])
            .forward(Reason::Flow, "any", "o1")
            .learned(TOKEN)
            .moves(&[C::TokenLearned]),
    ]
}

/// What the owner's state changes: nothing, until it is forgotten.
fn states(s: &Scene) -> Vec<Row> {
    let (first, second) = (s.flow("b2", port::WEB), s.flow("b1", port::WEB));
    let joins = |what, change: Step| {
        row(what, join(&second, TOKEN))
            .after(connection(&first, KEY))
            .after([change])
            .forward(Reason::Token, "web", "b2")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::FlowInserted])
    };
    vec![
        joins("a draining backend gets its joins", set_state("b2", 12, BackendState::Draining)),
        joins("a backend that is down gets its joins", set_state("b2", 12, BackendState::Down)),
        joins("a removed backend gets its joins", remove("b2")),
        row("a forgotten backend's token is unknown", join(&second, TOKEN))
            .after(connection(&first, KEY))
            .after([remove("b2"), Step::Delete])
            .dropped(Reason::UnknownToken)
            .at("web")
            .token(TOKEN)
            .moves(&[C::JoinSyn]),
    ]
}
