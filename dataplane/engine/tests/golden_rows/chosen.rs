//! Connections whose server's key Weft chooses, and packets that say in their timestamps where they belong.
//!
//! Keys, tokens and lots were computed by another implementation of SHA-256's compression and of the split, not by the
//! crate under test.

use ipc::counter::Counter as C;
use ipc::message::{BackendState, Command, Forward, Protocol, Scheme, Secret, Steering, UnknownToken};
use ipc::reason::Reason;
use packet::build::PacketBuilder;
use packet::{Flags, Flow};

use super::map::OF;
use super::tunnel::{gue_of, tunnelled, untagged};
use super::{ACK, ISN, KEY, Row, Scene, Step, capable, icmp, join, port, remove, row, segment, syn, third};
use crate::support::{CLIENT_KEY, backend_in, name, numbered, of};

/// The VIPs of these rows.
pub fn vips() -> [Command; 2] {
    let secret = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    let steering = Steering { key_secret: Some(Secret(secret)), ..Steering::by([Scheme::ChosenKey]) };
    [("chosen", Forward::Gue), ("chosen-l2", Forward::L2dsr)].map(|(text, forward)| Command::PutVip {
        name: name(text),
        pool: name("web-servers"),
        protocol: Protocol::Tcp,
        forward,
        steering,
        unknown_token: UnknownToken::Drop,
    })
}

pub fn rows(s: &Scene) -> Vec<Row> {
    let mut rows = keys(s);
    rows.extend(usual(s));
    rows.extend(stamps(s));
    rows.extend(joins(s));
    rows
}

/// What is drawn for the flow of a family: the key, its token, the number of the backend in whose range it lies.
struct Drawn {
    key: [u8; 8],
    token: u32,
    number: u8,
}

/// The first client's flow.
fn flow(s: &Scene) -> Flow {
    crate::support::flow(s.family, 700, 40_000, 9, port::CHOSEN)
}

/// The packet in gue, on its way to a backend.
fn in_gue(s: &Scene, packet: &PacketBuilder, flow: &Flow, number: u8, private: &[u8]) -> Vec<u8> {
    let outer = gue_of(s, flow, s.family, 10 + number).with_private(private);
    tunnelled(untagged(s), &packet.build()[14..], &outer)
}

fn backend_name(number: u8) -> &'static str {
    ["b1", "b2", "b3"][usize::from(number) - 1]
}

/// A row whose SYN gets this key.
fn gets(s: &Scene, what: &'static str, syn: PacketBuilder, drawn: &Drawn) -> Row {
    let private = [&[1, 0, 0, drawn.number], &drawn.key[..]].concat();
    let sent = in_gue(s, &syn, &flow(s), drawn.number, &private);
    row(what, syn)
        .forward(Reason::ChosenKey, "chosen", backend_name(drawn.number))
        .token(drawn.token)
        .moves(&[C::CapableSyn])
        .sent(sent)
}

fn keys(s: &Scene) -> Vec<Row> {
    let key4 = [0xf2, 0xd0, 0xf5, 0x2f, 0xf3, 0x39, 0x8b, 0xf8];
    let key6 = [0x2e, 0x14, 0x65, 0x82, 0x24, 0xea, 0xf1, 0xfe];
    let first = s.by_family(
        Drawn { key: key4, token: 0x18c0_05cb, number: 3 },
        Drawn { key: key6, token: 0xc596_c7c8, number: 3 },
    );
    let first_v0 = s.by_family(
        Drawn { key: key4, token: 0x46e9_b918, number: 3 },
        Drawn { key: key6, token: 0x3cc8_9914, number: 3 },
    );
    // The second key for IPv4 is another of b3's.
    let next = s.by_family(
        Drawn { key: [0xb4, 0x40, 0x7b, 0xe8, 0x3f, 0xe4, 0xbc, 0x74], token: 0xfaf1_4603, number: 1 },
        Drawn { key: [0xc6, 0xbf, 0xef, 0x94, 0x73, 0xc4, 0x5f, 0x7d], token: 0xc912_4c3e, number: 2 },
    );
    let flow = flow(s);
    let syn = || capable(&flow);
    let change = |weight, state| Step::Commit(vec![numbered(in_pool("b3", 13, weight, state), 3)]);
    let (draining, light) = (change(100, BackendState::Draining), change(1, BackendState::Active));
    let none = (1..=3).map(|n| numbered(in_pool(backend_name(n), 10 + n, 100, BackendState::Draining), n));
    vec![
        gets(s, "a SYN goes where its key's token says, and the key goes with it", syn(), &first),
        gets(s, "a SYN sent again gets the same key", syn(), &first).after([syn().into()]),
        gets(s, "a SYN sent again after everything was forgotten gets the same key", syn(), &first)
            .after([syn().into(), Step::Wait(4000)]),
        gets(
            s,
            "the token of version 0 is another digest's of the same key",
            super::syn(&flow).mp_capable_syn_v0(CLIENT_KEY),
            &first_v0,
        ),
        gets(s, "no key names a backend that is draining", syn(), &next).after([draining]),
        gets(s, "few keys name a backend of little weight", syn(), &next).after([light]),
        row("where nobody takes new connections no key is found", syn())
            .after([Step::Commit(none.collect())])
            .at("chosen")
            .dropped(Reason::NoBackend)
            .moves(&[C::CapableSyn, C::ChosenKeyUnplaced]),
    ]
}

fn in_pool(text: &str, number: u8, weight: u32, state: BackendState) -> Command {
    backend_in("web-servers", text, number, weight, state)
}

/// What no key is chosen for.
fn usual(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b1", port::CHOSEN);
    let bare = || of(&flow).flags(Flags::SYN).seq(ISN).mp_capable_syn_v1();
    let (bare_third, data) =
        (of(&flow).flags(Flags::ACK).seq(ISN.wrapping_add(1)).ack(ACK), segment(&flow, 0));
    let unnumbered = (1..=3).map(|n| in_pool(backend_name(n), 10 + n, 100, BackendState::Active));
    let l2 = s.flow("b2", port::CHOSEN_L2);
    vec![
        row("a SYN that is no MPTCP's goes by its hash", syn(&flow))
            .forward(Reason::Hash, "chosen", "b1")
            .sent(in_gue(s, &syn(&flow), &flow, 1, &[]))
            .moves(&[C::FlowInserted]),
        row("a SYN without timestamps goes by its hash", bare())
            .forward(Reason::Hash, "chosen", "b1")
            .sent(in_gue(s, &bare(), &flow, 1, &[]))
            .moves(&[C::CapableSyn, C::ChosenKeyUnstamped, C::FlowInserted]),
        row("what follows a SYN without timestamps goes by the flow table", bare_third.clone())
            .after([bare().into()])
            .forward(Reason::Flow, "chosen", "b1")
            .sent(in_gue(s, &bare_third, &flow, 1, &[]))
            .moves(&[]),
        row("a key that Weft did not choose is not learned where nobody asks for it", {
            bare_third.clone().mp_capable_ack(packet::Version::V1, CLIENT_KEY, KEY)
        })
        .after([bare().into()])
        .forward(Reason::Flow, "chosen", "b1")
        .sent(in_gue(
            s,
            &bare_third.mp_capable_ack(packet::Version::V1, CLIENT_KEY, KEY),
            &flow,
            1,
            &[],
        )),
        row("no key names a backend without a number", capable(&flow))
            .after([Step::Commit(unnumbered.collect())])
            .forward(Reason::Hash, "chosen", "b1")
            .sent(in_gue(s, &capable(&flow), &flow, 1, &[]))
            .moves(&[C::CapableSyn, C::ChosenKeyUnplaced, C::FlowInserted]),
        row("where keys have no place in the header none are chosen", capable(&l2))
            .forward(Reason::Hash, "chosen-l2", "b2")
            .moves(&[C::CapableSyn, C::FlowInserted]),
        row("and no timestamp is looked at", data.flow(&l2).timestamps(9, 3))
            .after([capable(&l2).into()])
            .forward(Reason::Flow, "chosen-l2", "b2"),
    ]
}

/// Later packets.
fn stamps(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b1", port::CHOSEN);
    let echoing = |stamp| segment(&flow, 0).timestamps(77, stamp).payload(b"data");
    let to = |what, packet: PacketBuilder, number| {
        let sent = in_gue(s, &packet, &flow, number, &[]);
        row(what, packet).forward(Reason::Timestamp, "chosen", backend_name(number)).sent(sent)
    };
    let third = || third(&flow, KEY).timestamps(77, 0x0102_3002);
    let hashed = |what, packet: PacketBuilder| {
        let sent = in_gue(s, &packet, &flow, 1, &[]);
        row(what, packet).forward(Reason::Hash, "chosen", "b1").sent(sent)
    };
    let rst = || of(&flow).rst(ISN, ACK);
    let forged = [syn(&flow).into(), segment(&flow, 0).timestamps(1, 0).into()];
    let quote = |stamp| {
        let back = of(&Flow {
            source: flow.destination,
            destination: flow.source,
            source_port: flow.destination_port,
            destination_port: flow.source_port,
            ..flow
        });
        back.data(5, 6).timestamps(stamp, 1).payload(&[7; 200]).build_ip()
    };
    let error = |quote: &[u8]| icmp::error_with(s, flow.destination, quote);
    let related = |what, quote: &[u8], number| {
        let sent = in_gue(s, &error(quote), &flow, number, &[]);
        row(what, error(quote)).forward(Reason::Related, "chosen", backend_name(number)).sent(sent)
    };
    let short = quote(0x0102_3002)[..s.by_family(28, 48)].to_vec();
    vec![
        to("the third packet goes by the number it echoes, and teaches nothing", third(), 2)
            .after([capable(&flow).into()]),
        to("data goes by the number it echoes, whatever happened before", echoing(0xffff_f003), 3),
        to("what somebody forged into the flow table turns nobody away", echoing(0x3003), 3).after(forged),
        to("FIN goes by the number it echoes", of(&flow).fin(ISN, ACK).timestamps(1, 0x2002), 2),
        to("a removed backend keeps its number while it is known", echoing(0x1002), 2).after([remove("b2")]),
        hashed("the number of nobody says nothing", echoing(0x1009)).moves(&[
            C::TimestampUnknown,
            C::FlowInserted,
            C::Adopted,
        ]),
        hashed("a timestamp that is not echoed yet says nothing", echoing(0)).moves(&[
            C::TimestampUnknown,
            C::FlowInserted,
            C::Adopted,
        ]),
        hashed("without ACK nothing is echoed", echoing(0x3003).flags(Flags::PSH))
            .moves(&[C::FlowInserted, C::Adopted]),
        hashed("a RST without timestamps goes by its hash", rst()).moves(&[C::FlowInserted, C::Adopted]),
        related("an ICMP error goes by the number in the packet it quotes", &quote(0x0102_3003), 3),
        related("an ICMP error that quotes too little goes by the hash", &short, 1),
    ]
}

fn joins(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b3", port::CHOSEN);
    let to = |what, packet: PacketBuilder, token, number| {
        let sent = in_gue(s, &packet, &flow, number, &[]);
        row(what, packet)
            .forward(Reason::TokenMap, "chosen", backend_name(number))
            .token(token)
            .moves(&[C::JoinSyn])
            .sent(sent)
    };
    let bare = of(&flow).flags(Flags::SYN).seq(ISN).mp_join_syn(packet::Token(OF[0]), 1, 1);
    let forged = [syn(&flow).into(), segment(&flow, 0).timestamps(1, 0).into()];
    vec![
        to(
            "a join goes by the range its token lies in, and nothing is kept of it",
            join(&flow, OF[1]),
            OF[1],
            2,
        ),
        to("what somebody forged into the flow table turns no join away", join(&flow, OF[0]), OF[0], 1)
            .after(forged),
        to("a join without timestamps leaves an entry", bare, OF[0], 1).moves(&[
            C::JoinSyn,
            C::ChosenKeyUnstamped,
            C::FlowInserted,
        ]),
    ]
}
