//! MP_CAPABLE whose handshake carries tokens instead of keys, as two drafts have it:
//! - flag G, keys from the application (Ford and Paasch, draft-paasch-mptcp-application-authentication-00, 2016: SYN with
//!   G, SYN/ACK with the server's token, ACK with both tokens);
//! - flag E, external keys (Baerts and Bonaventure, draft-baerts-tcpm-mptcpext-00, 2025, which suggests the bit: the same
//!   tokens, on the first data followed by length and checksum).
//!
//! Neither is in RFC 8684, where such a flag makes the option invalid (section 3.1): so nothing here is asked unless a VIP
//! says so, and [`crate::options`] knows none of it. Where the drafts are silent, our choice: version 1 only; a SYN may
//! offer H beside the flag, for servers that know only keys; whoever answers has exactly one; lengths as the drafts'
//! figures add up to, 4, 8, and 12 (14 and 16 with the first data).
//!
//! MP_JOIN is that of RFC 8684 but for flag K of the second draft, which key it goes by; [`crate::options`] reads it as it
//! stands. MP_FASTCLOSE carries a HMAC there, no key, so nobody on the way can tell a true one.

use crate::mptcp::{KIND, subtype};
use crate::tcp::Flags;
use crate::tcp_option;
use crate::token::Token;

/// G: the keys are the application's.
const APPLICATION: u8 = 0x02;
/// E: the keys are external.
const EXTERNAL: u8 = 0x08;
/// H: HMAC-SHA256, the usual handshake.
const HMAC: u8 = 0x01;
/// B: an extension nobody defined yet.
const EXTENSIBILITY: u8 = 0x40;
/// The bits that name algorithms.
const CRYPTO: u8 = 0x1f;

/// Which drafts are understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drafts(u8);

impl Drafts {
    /// Flag G, flag E, both or none.
    pub const fn new(application: bool, external: bool) -> Self {
        let application = if application { APPLICATION } else { 0 };
        let external = if external { EXTERNAL } else { 0 };
        Self(application | external)
    }

    /// Whether any is.
    #[inline]
    pub const fn any(self) -> bool {
        self.0 != 0
    }

    /// Whether the bits of a SYN offer one, and nothing beside it that is not understood.
    const fn are_offered(self, bits: u8) -> bool {
        bits & self.0 != 0 && bits & !(self.0 | HMAC) == 0
    }

    /// Whether the bits of an answer are those of one.
    const fn agreed(self, bits: u8) -> bool {
        bits & self.0 == bits && bits.count_ones() == 1
    }
}

/// An MP_CAPABLE with explicit tokens, or the offer of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Explicit {
    /// On a SYN.
    Offer,
    /// On a SYN/ACK.
    Answer {
        /// The server's token.
        token: Token,
    },
    /// On a later packet of the client.
    Tokens {
        /// The client's token.
        sender: Token,
        /// The server's token, as the client repeats it.
        receiver: Token,
    },
}

/// What the first MP_CAPABLE among a packet's options says in the terms of these drafts; `None` for a usual one, for one
/// that does not fit, and where an MP_JOIN stands beside it. The walk ends where [`crate::options`]' does.
#[inline(never)]
pub fn explicit(bytes: &[u8], flags: Flags, payload: bool, drafts: Drafts) -> Option<Explicit> {
    let mut found = None;
    for option in tcp_option::each(bytes).map_while(Result::ok) {
        let [KIND, _, third, ..] = option else { continue };
        match third >> 4 {
            subtype::CAPABLE if found.is_none() => found = Some(option),
            subtype::JOIN => return None,
            _ => {}
        }
    }
    read(found?, flags, payload, drafts)
}

fn read(option: &[u8], flags: Flags, payload: bool, drafts: Drafts) -> Option<Explicit> {
    let [_, _, 0x01, bits, body @ ..] = option else { return None };
    if flags.rst() || bits & EXTENSIBILITY != 0 {
        return None;
    }
    let crypto = bits & CRYPTO;
    match (flags.syn(), flags.ack(), body) {
        (true, false, []) => drafts.are_offered(crypto).then_some(Explicit::Offer),
        _ if !drafts.agreed(crypto) => None,
        (true, true, &[a, b, c, d]) => Some(Explicit::Answer { token: token([a, b, c, d]) }),
        (false, true, &[a, b, c, d, e, f, g, h, ref mapping @ ..])
            if matches!((payload, mapping.len()), (false, 0) | (true, 2 | 4)) =>
        {
            Some(Explicit::Tokens { sender: token([a, b, c, d]), receiver: token([e, f, g, h]) })
        }
        _ => None,
    }
}

const fn token(bytes: [u8; 4]) -> Token {
    Token(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const BOTH: Drafts = Drafts::new(true, true);
    const TOKENS: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

    fn option(flags: u8, body: &[u8]) -> Vec<u8> {
        let len = u8::try_from(4 + body.len()).unwrap();
        [&[KIND, len, 0x01, flags], body].concat()
    }

    fn of(bytes: &[u8], flags: Flags, payload: bool) -> Option<Explicit> {
        explicit(bytes, flags, payload, BOTH)
    }

    #[test]
    fn an_offer_names_a_draft_and_nothing_unknown() {
        let offers = |drafts, flags| explicit(&option(flags, &[]), Flags::SYN, false, drafts).is_some();
        // G, G and H, E, E and H, all three, with checksums, with C.
        for flags in [0x02, 0x03, 0x08, 0x09, 0x0b, 0x83, 0x29] {
            assert!(offers(BOTH, flags), "{flags:#x}");
        }
        // None, H alone, D, F, B.
        for flags in [0x00, 0x01, 0x13, 0x07, 0x43] {
            assert!(!offers(BOTH, flags), "{flags:#x}");
        }
        let (application, external) = (Drafts::new(true, false), Drafts::new(false, true));
        assert!(offers(application, 0x03) && !offers(application, 0x09) && !offers(application, 0x0b));
        assert!(offers(external, 0x09) && !offers(external, 0x03));
        assert!((0..=255).all(|flags| !offers(Drafts::default(), flags)));
    }

    #[test]
    fn tokens_have_the_lengths_of_their_packets() {
        let tokens = Some(Explicit::Tokens { sender: Token(0x0102_0304), receiver: Token(0x0506_0708) });
        let ack = |more: &[u8], payload| of(&option(0x02, &[&TOKENS, more].concat()), Flags::ACK, payload);
        assert_eq!(ack(&[], false), tokens);
        assert_eq!(ack(&[0, 20], true), tokens);
        assert_eq!(ack(&[0, 20, 9, 9], true), tokens);
        assert_eq!(
            (ack(&[], true), ack(&[0, 20], false), ack(&[0], true), ack(&[0; 6], true)),
            (None, None, None, None)
        );
        let answer = Some(Explicit::Answer { token: Token(0x0102_0304) });
        assert_eq!(of(&option(0x08, &TOKENS[..4]), Flags::SYN.with(Flags::ACK), false), answer);
        assert_eq!(of(&option(0x08, &TOKENS), Flags::SYN.with(Flags::ACK), false), None);
    }

    #[test]
    fn an_answer_has_one_flag_and_it_is_not_the_usual_one() {
        for (flags, fits) in [
            (0x02, true),
            (0x08, true),
            (0x82, true),
            (0x0a, false),
            (0x03, false),
            (0x01, false),
            (0x42, false),
        ] {
            let read = of(&option(flags, &TOKENS), Flags::ACK, false);
            assert_eq!(read.is_some(), fits, "{flags:#x}");
            let reset = of(&option(flags, &TOKENS), Flags::ACK.with(Flags::RST), false);
            assert_eq!(reset, None);
        }
    }

    #[test]
    fn a_join_beside_it_and_another_version_make_it_nothing() {
        let offer = option(0x03, &[]);
        let join = [KIND, 12, 0x10, 1, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(of(&[&offer[..], &join].concat(), Flags::SYN, false), None);
        assert_eq!(of(&[&join, &offer[..]].concat(), Flags::SYN, false), None);
        let mut other = offer.clone();
        other[2] = 0x00;
        assert_eq!(of(&other, Flags::SYN, false), None);
        assert_eq!(
            of(&[&[1, 1, 0], &offer[..]].concat(), Flags::SYN, false),
            None,
            "behind the end of the list"
        );
        assert_eq!(
            of(&[&[1, 1, 254, 1], &offer[..]].concat(), Flags::SYN, false),
            None,
            "behind a cut option"
        );
        assert_eq!(of(&[&[1, 1, 254, 2], &offer[..]].concat(), Flags::SYN, false), Some(Explicit::Offer));
    }

    proptest! {
        #[test]
        fn what_rfc_8684_understands_is_never_explicit(bytes in proptest::collection::vec(any::<u8>(), 0..44), syn: bool, ack: bool, payload: bool) {
            let flags = [(syn, Flags::SYN), (ack, Flags::ACK)].into_iter().filter(|(set, _)| *set);
            let flags = flags.fold(Flags::default(), |all, (_, flag)| all.with(flag));
            if of(&bytes, flags, payload).is_some() {
                prop_assert_eq!(crate::options(&bytes, flags, payload).join, None);
            }
        }
    }
}
