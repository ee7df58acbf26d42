//! Joins whose token itself names the backend: by the range it lies in, or by the number encrypted in it.
//!
//! The tokens were computed by another implementation of the split and of the cipher, not by the crate under test.

use ipc::counter::Counter as C;
use ipc::message::{Command, Forward, Protocol, Scheme, Secret, Steering, TokenMap, UnknownToken};
use ipc::reason::Reason;

use super::{
    KEY, Row, Scene, Step, TOKEN, capable, connection, dss, join, port, remove, row, segment, third,
};
use crate::support::{backend, name, numbered};

/// Tokens in ranges of b1, b2 and b3; [`TOKEN`] lies in one of b1's.
pub const OF: [u32; 3] = [0x9130_0001, 0x9160_ffff, 0x91df_fffe];

/// Number 2 under the key of even tokens, 3 under that of odd ones, and 9, which nobody has.
const SEALED: [u32; 3] = [0x0094_aff4, 0x2e79_360d, 0xe126_59ec];

/// The keys: that of the cipher's published vector, and another.
const KEYS: [Secret<8>; 2] =
    [Secret([0x19, 0x18, 0x11, 0x10, 9, 8, 1, 0]), Secret([1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef])];

/// The VIPs of these rows.
pub fn vips() -> [Command; 3] {
    let vip = |text: &str, steering, unknown_token| Command::PutVip {
        name: name(text),
        pool: name("web-servers"),
        protocol: Protocol::Tcp,
        forward: Forward::L2dsr,
        steering,
        unknown_token,
    };
    let cipher = Steering {
        token_map: TokenMap::Cipher,
        cipher_keys: KEYS.map(Some),
        ..Steering::by([Scheme::TokenMap])
    };
    [
        vip("map", Steering::by([Scheme::TokenMap]), UnknownToken::Drop),
        vip("cipher", cipher, UnknownToken::Hash),
        vip("both", Steering::by([Scheme::Learn, Scheme::TokenMap]), UnknownToken::Drop),
    ]
}

pub fn rows(s: &Scene) -> Vec<Row> {
    let mut rows = ranges(s);
    rows.extend(cipher(s));
    rows.extend(order(s));
    rows
}

fn ranges(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b3", port::MAP);
    let to = |what, token, backend| {
        row(what, join(&flow, token))
            .forward(Reason::TokenMap, "map", backend)
            .token(token)
            .moves(&[C::JoinSyn, C::FlowInserted])
    };
    let ack = || segment(&flow, 0).mp_join_ack([7; 20]);
    vec![
        to("a join whose token lies in a range of the first backend's", OF[0], "b1"),
        to("a join whose token lies in a range of the second's", OF[1], "b2"),
        to("a join whose token lies in a range of the third's", OF[2], "b3"),
        to("a range is kept by a backend that was removed and is still known", OF[1], "b2")
            .after([remove("b2")]),
        to("a range goes to another when its backend is forgotten", OF[1], "b1")
            .after([remove("b2"), Step::Forget]),
        row("the subflow goes on where its join went", dss(&flow))
            .after([join(&flow, OF[1]).into(), ack().into()])
            .forward(Reason::Flow, "map", "b2"),
        row("tokens are not learned where they are not asked for", third(&flow, KEY))
            .after([capable(&flow).into()])
            .forward(Reason::Flow, "map", "b3"),
    ]
}

fn cipher(s: &Scene) -> Vec<Row> {
    let flow = s.flow("b1", port::CIPHER);
    let to = |what, token, backend| {
        row(what, join(&flow, token))
            .forward(Reason::TokenMap, "cipher", backend)
            .token(token)
            .moves(&[C::JoinSyn, C::FlowInserted])
    };
    let miss = |what, token| {
        row(what, join(&flow, token)).forward(Reason::Hash, "cipher", "b1").token(token).moves(&[
            C::JoinSyn,
            C::TokenMapMiss,
            C::JoinHashed,
            C::FlowInserted,
        ])
    };
    vec![
        to("an even token is read with the key of even tokens", SEALED[0], "b2"),
        to("an odd token is read with the key of odd tokens", SEALED[1], "b3"),
        to("an odd token outlives the key of even ones", SEALED[1], "b3").after([without_even()]),
        to("another backend takes a removed one's number over", SEALED[0], "b9")
            .after([remove("b2"), Step::Commit(vec![numbered(backend("web-servers", "b9", 19), 2)])]),
        miss("a number that nobody has is no answer", SEALED[2]),
        miss("a number without its key is no answer", SEALED[0]).after([without_even()]),
    ]
}

/// The key of even tokens is no more.
fn without_even() -> Step {
    let change = |command| match command {
        Command::PutVip { name, pool, protocol, forward, mut steering, unknown_token } => {
            steering.cipher_keys[0] = None;
            Command::PutVip { name, pool, protocol, forward, steering, unknown_token }
        }
        other => other,
    };
    Step::Commit(vips().map(change).to_vec())
}

/// The first scheme that knows has it.
fn order(s: &Scene) -> Vec<Row> {
    let (first, second) = (s.flow("b2", port::BOTH), s.flow("b3", port::BOTH));
    let join = || join(&second, TOKEN);
    let moves = [C::JoinSyn, C::FlowInserted];
    vec![
        row("a learned token goes before the range it lies in", join())
            .after(connection(&first, KEY))
            .forward(Reason::Token, "both", "b2")
            .token(TOKEN)
            .moves(&moves),
        row("what was not learned goes by its range", join())
            .forward(Reason::TokenMap, "both", "b1")
            .token(TOKEN)
            .moves(&moves),
    ]
}
