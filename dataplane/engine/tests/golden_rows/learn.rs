//! The learning rules: where a key counts, which form it must have, and what a second claim does.

use ipc::counter::Counter as C;
use ipc::reason::Reason;
use packet::build::PacketBuilder;
use packet::{Capable, CapableFlags, Flags, Flow, Key, Version};

use super::{
    ACK, ISN, KEY, OTHER_KEY, OTHER_TOKEN, Row, Scene, Step, TOKEN, TOKEN_V0, capable, connection, dss, port,
    row, seen_connection, segment, syn, third,
};
use crate::support::{CLIENT_KEY, of};

pub fn rows(s: &Scene) -> Vec<Row> {
    let mut rows = places(s);
    rows.extend(forms(s));
    rows.extend(flows(s));
    rows.extend(claims(s));
    rows
}

/// A row on a flow that an MP_CAPABLE SYN opened.
fn on_capable(what: &'static str, flow: &Flow, packet: PacketBuilder) -> Row {
    row(what, packet).after([capable(flow).into()]).forward(Reason::Flow, "web", "b2")
}

/// Rule 1: at ISN+1, to ISN+1+1460.
fn places(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::WEB);
    let at = |offset: u32| segment(&flow, offset).mp_capable_ack(Version::V1, CLIENT_KEY, KEY);
    let learned = |row: Row| row.learned(TOKEN).moves(&[C::TokenLearned]);
    let refused = |row: Row| row.token(TOKEN).moves(&[C::KeyRefused]);
    let tfo = || -> Step { capable(&flow).payload(b"fifteen of them").into() };
    vec![
        learned(on_capable("the key in the third ACK is learned", &flow, third(&flow, KEY))),
        learned(row("the key behind data in the SYN (TFO) is learned", at(15)).after([tfo()]).forward(
            Reason::Flow,
            "web",
            "b2",
        )),
        learned(on_capable("a key 1460 bytes on is learned", &flow, at(1460))),
        refused(on_capable("a key 1461 bytes on is refused", &flow, at(1461))),
        refused(on_capable("a key at the ISN is refused", &flow, at(u32::MAX))),
        refused(on_capable("a key anywhere else is refused", &flow, at(0x8000_0000))),
        on_capable(
            "a key in a segment without ACK is no key",
            &flow,
            third(&flow, KEY).flags(Flags::default()),
        )
        .moves(&[C::MptcpBadFlags]),
        on_capable("nor is one with PSH alone", &flow, third(&flow, KEY).flags(Flags::PSH))
            .moves(&[C::MptcpBadFlags]),
        learned(
            row("a refused key spoils nothing", third(&flow, KEY))
                .after([capable(&flow).into(), at(1461).into()])
                .forward(Reason::Flow, "web", "b2"),
        ),
    ]
}

/// Rule 1: lengths, flags and versions.
fn forms(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::WEB);
    let with_flags = |version, flags| {
        let form = Capable::Ack {
            version,
            flags: CapableFlags(flags),
            sender: CLIENT_KEY,
            receiver: KEY,
            data_len: None,
            checksum: None,
        };
        segment(&flow, 0).mp_capable(&form)
    };
    let v0 = || segment(&flow, 0).mp_capable_ack(Version::V0, CLIENT_KEY, KEY);
    let opened_v0 = |what, packet: PacketBuilder| {
        row(what, packet).after([syn(&flow).mp_capable_syn_v0(CLIENT_KEY).into()]).forward(
            Reason::Flow,
            "web",
            "b2",
        )
    };
    let on = |what, packet| on_capable(what, &flow, packet);
    vec![
        on("the key in the first data (22 bytes) is learned", {
            segment(&flow, 0).mp_capable_data(CLIENT_KEY, KEY, b"GET /")
        })
        .learned(TOKEN)
        .moves(&[C::TokenLearned]),
        on("the key in the first data with checksum (24 bytes) is learned", {
            segment(&flow, 0).mp_capable_data_checksum(CLIENT_KEY, KEY, b"GET /")
        })
        .learned(TOKEN)
        .moves(&[C::TokenLearned]),
        on("the C flag changes nothing", with_flags(Version::V1, 0x21))
            .learned(TOKEN)
            .moves(&[C::TokenLearned]),
        opened_v0("the key in a v0 third ACK is learned with SHA-1", v0())
            .learned(TOKEN_V0)
            .moves(&[C::TokenLearned]),
        opened_v0("a v0 key with data is learned", v0().payload(b"x"))
            .learned(TOKEN_V0)
            .moves(&[C::TokenLearned]),
        on("a v0 key on a v1 flow is refused", v0()).token(TOKEN_V0).moves(&[C::KeyRefused]),
        opened_v0("a v1 key on a v0 flow is refused", third(&flow, KEY)).token(TOKEN).moves(&[C::KeyRefused]),
        on("a v1 key of 20 bytes with data is no key", third(&flow, KEY).payload(b"x"))
            .moves(&[C::MptcpBadLength]),
        on("a v1 key of 22 bytes without data is no key", {
            segment(&flow, 0).mp_capable_data(CLIENT_KEY, KEY, b"")
        })
        .moves(&[C::MptcpBadLength]),
        on("a key of 21 bytes is no key", {
            let mut option = vec![0x1e, 21, 0x01, 0x01];
            option.resize(21, 7);
            segment(&flow, 0).option(&option)
        })
        .moves(&[C::MptcpBadLength]),
        on("a key without the H flag is no key", with_flags(Version::V1, 0x00)).moves(&[C::MptcpBadFlags]),
        on("a key with the B flag is no key", with_flags(Version::V1, 0x41)).moves(&[C::MptcpBadFlags]),
        on("a key with an unknown algorithm is no key", with_flags(Version::V1, 0x03))
            .moves(&[C::MptcpBadFlags]),
        on("a key of version 2 is no key", {
            let mut option = vec![0x1e, 20, 0x02, 0x01];
            option.resize(20, 7);
            segment(&flow, 0).option(&option)
        })
        .moves(&[C::MptcpBadFlags]),
        row("a malformed key does not end the wait for a good one", third(&flow, KEY))
            .after([capable(&flow).into(), with_flags(Version::V1, 0x41).into()])
            .forward(Reason::Flow, "web", "b2")
            .learned(TOKEN)
            .moves(&[C::TokenLearned]),
    ]
}

/// Rule 1: only on flows that an MP_CAPABLE SYN opened, and not on what ends them.
fn flows(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::WEB);
    let keyed = |packet: PacketBuilder| packet.mp_capable_ack(Version::V1, CLIENT_KEY, KEY);
    let ignored =
        |what, steps: Vec<Step>| row(what, third(&flow, KEY)).after(steps).forward(Reason::Flow, "web", "b2");
    let plain = s.flow("b1", port::PLAIN);
    vec![
        on_capable("a key on a RST is not learned", &flow, keyed(of(&flow).rst(ISN.wrapping_add(1), ACK)))
            .moves(&[C::MptcpBadFlags]),
        on_capable("a key on a FIN is not learned", &flow, keyed(of(&flow).fin(ISN.wrapping_add(1), ACK))),
        ignored("a key on a flow that a plain SYN opened is not learned", vec![syn(&flow).into()]),
        ignored("a key on an adopted flow is not learned", vec![segment(&flow, 9).into()]),
        ignored(
            "a key on a flow that fell back is not learned",
            vec![capable(&flow).into(), segment(&flow, 0).payload(b"data").into()],
        ),
        ignored(
            "a key on a flow that MP_CAPABLE and MP_JOIN opened is not learned",
            vec![capable(&flow).mp_join_syn(packet::Token(1), 2, 3).into()],
        ),
        row("a key on a VIP without steering is not learned", third(&plain, KEY))
            .after([capable(&plain).into()])
            .forward(Reason::Flow, "plain", "b1"),
        row("a key of nobody's flow is not learned", third(&flow, KEY))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::Adopted, C::FlowInserted]),
        row("the key that comes after a bare ACK, which anybody can forge, is learned", third(&flow, KEY))
            .after([capable(&flow).into(), segment(&flow, 0).into()])
            .forward(Reason::Flow, "web", "b2")
            .learned(TOKEN)
            .moves(&[C::TokenLearned]),
        row("the key that comes after a DSS is learned", third(&flow, KEY))
            .after([capable(&flow).into(), segment(&flow, 0).dss_ack(1).into()])
            .forward(Reason::Flow, "web", "b2")
            .learned(TOKEN)
            .moves(&[C::TokenLearned]),
    ]
}

/// Rules 2 and 3: one key a flow, one owner a token.
fn claims(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::WEB);
    let (rival, twin) = (s.flow("b3", port::WEB), s.nth_flow("b2", port::WEB, 1));
    let again = |what, packet: PacketBuilder| {
        row(what, packet).after(connection(&flow, KEY)).forward(Reason::Flow, "web", "b2")
    };
    let claim = |what, flow: &Flow, backend, before: Vec<Step>, key: Key| {
        row(what, third(flow, key))
            .after(before)
            .after([capable(flow).into()])
            .forward(Reason::Flow, "web", backend)
            .token(TOKEN)
    };
    vec![
        again("a key seen again changes nothing", third(&flow, KEY)).token(TOKEN).moves(&[C::KeyRepeated]),
        again("the key seen again in the first data", {
            segment(&flow, 0).mp_capable_data(CLIENT_KEY, KEY, b"GET /")
        })
        .token(TOKEN)
        .moves(&[C::KeyRepeated]),
        again("a second, different key is ignored", third(&flow, OTHER_KEY))
            .token(OTHER_TOKEN)
            .moves(&[C::KeyConflict]),
        again("a connection's later key is not looked at", third(&flow, OTHER_KEY))
            .after([dss(&flow).into()]),
        row("a connection that outlived two ticks has a seen token", dss(&flow))
            .after(connection(&flow, KEY))
            .after([dss(&flow).into(), Step::Wait(40)])
            .forward(Reason::Flow, "web", "b2")
            .moves(&[C::TokenSeen]),
        claim("the same token on the same backend is a repeat", &twin, "b2", connection(&flow, KEY), KEY)
            .moves(&[C::KeyRepeated]),
        claim("the same token on another backend is ambiguous", &rival, "b3", connection(&flow, KEY), KEY)
            .moves(&[C::TokenAmbiguous]),
        claim("an established owner refuses a newcomer", &rival, "b3", seen_connection(&flow, KEY), KEY)
            .moves(&[C::TokenConflict]),
    ]
}
