//! Handshakes that carry tokens instead of keys, of both drafts, to a VIP that understands them and to one that does not.

use ipc::counter::Counter as C;
use ipc::message::{Command, Forward, Protocol, Scheme, Steering, UnknownToken};
use ipc::reason::Reason;
use packet::Flow;
use packet::build::PacketBuilder;

use super::{ISN, KEY, OTHER_TOKEN, Row, Scene, TOKEN, capable, join, port, row, segment, syn, third};
use crate::support::{name, of};

/// The VIPs of these rows: one that learns, one whose tokens name their backends.
pub fn vips() -> [Command; 2] {
    [("explicit", Steering::LEARN), ("stated", Steering::by([Scheme::TokenMap]))].map(|(text, steering)| {
        Command::PutVip {
            name: name(text),
            pool: name("web-servers"),
            protocol: Protocol::Tcp,
            forward: Forward::L2dsr,
            steering: Steering { application_tokens: true, external_tokens: true, ..steering },
            unknown_token: UnknownToken::Drop,
        }
    })
}

/// A SYN that offers these flags.
fn offer(flow: &Flow, flags: u8) -> PacketBuilder {
    syn(flow).option(&[30, 4, 1, flags])
}

/// MP_CAPABLE with the client's token, 7, and the server's, then what stands behind them.
fn tokens(flags: u8, token: u32, more: &[u8]) -> Vec<u8> {
    let len = u8::try_from(12 + more.len()).unwrap();
    [&[30, len, 1, flags, 0, 0, 0, 7], &token.to_be_bytes()[..], more].concat()
}

pub fn rows(s: &Scene) -> Vec<Row> {
    let mut rows = offers(s);
    rows.extend(handshakes(s));
    rows.extend(afterwards(s));
    rows.extend(unlearned(s));
    rows
}

/// Where nothing is learned an offer opens what any SYN does.
fn unlearned(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::STATED);
    let ack = || segment(&flow, 0).option(&tokens(0x08, TOKEN, &[]));
    vec![
        row("an offer to a VIP whose tokens name their backends", offer(&flow, 0x09))
            .forward(Reason::Hash, "stated", "b2")
            .moves(&[C::CapableSyn, C::ExplicitSyn, C::FlowInserted]),
        row("tokens that nobody needs to learn", ack())
            .after([offer(&flow, 0x09).into()])
            .forward(Reason::Flow, "stated", "b2")
            .token(TOKEN)
            .moves(&[C::ExplicitToken]),
    ]
}

fn offers(s: &Scene) -> Vec<Row> {
    let (flow, web) = (s.flow("b2", port::EXPLICIT), s.flow("b2", port::WEB));
    let taken = |what, flags| {
        row(what, offer(&flow, flags)).forward(Reason::Hash, "explicit", "b2").moves(&[
            C::CapableSyn,
            C::ExplicitSyn,
            C::FlowInserted,
        ])
    };
    let plain = |what, flags| {
        row(what, offer(&flow, flags))
            .forward(Reason::Hash, "explicit", "b2")
            .moves(&[C::MptcpBadFlags, C::FlowInserted])
    };
    vec![
        taken("a SYN that offers the application's keys, or usual ones", 0x03),
        taken("a SYN that offers external keys, or usual ones", 0x09),
        taken("a SYN that offers external keys alone", 0x08),
        plain("a SYN that offers what nobody understands beside it", 0x13),
        plain("a SYN that offers explicit tokens and an extension", 0x43),
        row("a VIP that does not ask for explicit tokens takes the SYN for plain TCP", offer(&web, 0x03))
            .forward(Reason::Hash, "web", "b2")
            .moves(&[C::MptcpBadFlags, C::FlowInserted]),
    ]
}

fn handshakes(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b2", port::EXPLICIT);
    let learned = |what, syn_flags, packet: PacketBuilder| {
        row(what, packet)
            .after([offer(&flow, syn_flags).into()])
            .forward(Reason::Flow, "explicit", "b2")
            .learned(TOKEN)
            .moves(&[C::ExplicitToken, C::TokenLearned])
    };
    let ack = |flags, more: &[u8]| segment(&flow, 0).option(&tokens(flags, TOKEN, more));
    let refused = |what, packet: PacketBuilder, counter| {
        row(what, packet)
            .after([offer(&flow, 0x03).into()])
            .forward(Reason::Flow, "explicit", "b2")
            .moves(&[counter])
    };
    vec![
        learned("a third packet with tokens, keys from the application", 0x03, ack(0x02, &[])),
        learned("a third packet with tokens, external keys", 0x09, ack(0x08, &[])),
        learned("the first data with tokens and length", 0x09, ack(0x08, &[0, 1]).payload(b"x")),
        learned(
            "the first data with tokens, length and checksum",
            0x89,
            ack(0x88, &[0, 1, 2, 3]).payload(b"x"),
        ),
        row("a server that answered with a usual key", third(&flow, KEY))
            .after([offer(&flow, 0x03).into()])
            .forward(Reason::Flow, "explicit", "b2")
            .learned(TOKEN)
            .moves(&[C::TokenLearned]),
        row(
            "tokens behind the place of the handshake",
            of(&flow).data(ISN.wrapping_add(4000), 1).option(&tokens(0x02, TOKEN, &[])),
        )
        .after([offer(&flow, 0x03).into()])
        .forward(Reason::Flow, "explicit", "b2")
        .token(TOKEN)
        .moves(&[C::KeyRefused]),
        refused("tokens with both flags", ack(0x0a, &[]), C::MptcpBadLength),
        refused("tokens with half a length", ack(0x02, &[0]).payload(b"x"), C::MptcpBadLength),
        refused("tokens and length without data", ack(0x02, &[0, 1]), C::MptcpBadLength),
        row("tokens on a flow whose SYN offered none", ack(0x02, &[]))
            .after([capable(&flow).into()])
            .forward(Reason::Flow, "explicit", "b2")
            .moves(&[C::MptcpBadLength]),
    ]
}

fn afterwards(s: &Scene) -> Vec<Row> {
    let (flow, second) = (s.flow("b2", port::EXPLICIT), s.flow("b1", port::EXPLICIT));
    let ack = |token| segment(&flow, 0).option(&tokens(0x08, token, &[]));
    let after =
        |what, packet: PacketBuilder| row(what, packet).after([offer(&flow, 0x09).into(), ack(TOKEN).into()]);
    // Flag K is the second of the four bits beside the subtype.
    let [a, b, c, d] = TOKEN.to_be_bytes();
    let second_key = syn(&second).option(&[30, 12, 0x12, 1, a, b, c, d, 1, 2, 3, 4]);
    let followed = |what, packet| {
        after(what, packet)
            .forward(Reason::Token, "explicit", "b2")
            .token(TOKEN)
            .moves(&[C::JoinSyn, C::FlowInserted])
    };
    vec![
        followed("a join of a token that was read", join(&second, TOKEN)),
        followed("a join by the second of the external keys", second_key),
        after("tokens seen again", ack(TOKEN))
            .forward(Reason::Flow, "explicit", "b2")
            .token(TOKEN)
            .moves(&[C::KeyRepeated]),
        after("another token on a flow that taught one", ack(OTHER_TOKEN))
            .forward(Reason::Flow, "explicit", "b2")
            .token(OTHER_TOKEN)
            .moves(&[C::KeyConflict]),
        after("a FASTCLOSE with a HMAC ends nothing but its flow", {
            of(&flow).rst(ISN.wrapping_add(1), 1).option(&[30, 12, 0x71, 0, 9, 2, 3, 4, 5, 6, 7, 8])
        })
        .forward(Reason::Flow, "explicit", "b2"),
    ]
}
