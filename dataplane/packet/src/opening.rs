//! What a SYN opens and which key a third ACK brings, by their options: the straight way to the answers that matter.
//!
//! Why it exists beside [`crate::options`]: a flood of SYNs must cost little, and a client's SYN has nearly always the
//! options that Linux sends, in Linux's order: MSS, SACK permitted, timestamps, no-operation, window scale, and behind
//! them MP_CAPABLE of version 1 or MP_JOIN (RFC 8684 sections 3.1 and 3.2), or nothing. Its third ACK has timestamps and
//! MP_CAPABLE with both keys.
//!
//! **Invariant:** for such packets the answer is that of [`crate::options`]; for any other SYN the answer of [`opening`]
//! is [`crate::options`]' own, and the others have none. A test holds one against the other.

use crate::mptcp::{self, Capable, CapableFlags, Join};
use crate::tcp::Flags;
use crate::tcp_option::{self, Malformed};
use crate::token::{Key, Token, Version};

/// What a SYN opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A connection without MPTCP.
    Plain,
    /// An MPTCP connection.
    Capable(Version),
    /// A further subflow of the connection with this token.
    Join(Token),
}

/// Bytes of the options that Linux sends with every SYN.
const COMMON: usize = 20;

/// What a SYN opens, and what was wrong with its options.
#[inline]
pub fn opening(bytes: &[u8], flags: Flags, payload: bool) -> (Opening, Option<Malformed>) {
    match usual_opening(bytes) {
        Some(opening) => (opening, None),
        None => unusual(bytes, flags, payload),
    }
}

/// The answer for options as Linux sends them, whatever the payload.
#[inline]
pub fn usual_opening(bytes: &[u8]) -> Option<Opening> {
    let (common, rest) = bytes.split_first_chunk::<COMMON>()?;
    let is_common = matches!(common, [2, 4, _, _, 4, 2, 8, 10, _, _, _, _, _, _, _, _, 1, 3, 3, _]);
    if !is_common {
        return None;
    }
    match *rest {
        [] => Some(Opening::Plain),
        [mptcp::KIND, 4, 0x01, flags] if CapableFlags(flags).valid(Version::V1) => {
            Some(Opening::Capable(Version::V1))
        }
        // Subtype MP_JOIN, with the backup flag or without.
        [mptcp::KIND, 12, 0x10 | 0x11, _, a, b, c, d, _, _, _, _] => {
            Some(Opening::Join(Token(u32::from_be_bytes([a, b, c, d]))))
        }
        _ => None,
    }
}

/// The server's key in the third ACK of version 1 as Linux sends it: no payload, timestamps, MP_CAPABLE with both keys. None
/// but an ACK: a server drops whatever else comes without one (RFC 9293 section 3.10.7.4).
#[inline]
pub fn usual_key(bytes: &[u8], flags: Flags) -> Option<Key> {
    if !flags.ack() || flags.any(Flags::SYN.with(Flags::RST)) {
        return None;
    }
    let (bytes, []) = bytes.split_first_chunk::<32>()? else { return None };
    let [1, 1, 8, 10, _, _, _, _, _, _, _, _, mptcp::KIND, 20, 0x01, flags, ..] = *bytes else { return None };
    if !CapableFlags(flags).valid(Version::V1) {
        return None;
    }
    bytes.last_chunk().copied().map(Key)
}

/// The answer for any options.
#[inline(never)]
fn unusual(bytes: &[u8], flags: Flags, payload: bool) -> (Opening, Option<Malformed>) {
    let options = tcp_option::options(bytes, flags, payload);
    let opening = match (options.capable, options.join) {
        (_, Some(Join::Syn { token, .. })) => Opening::Join(token),
        (Some(Capable::Syn { version, .. }), _) => Opening::Capable(version),
        _ => Opening::Plain,
    };
    (opening, options.malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp_option::Options;
    use std::vec::Vec;

    const LINUX: [u8; COMMON] = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];

    fn with(rest: &[u8]) -> Vec<u8> {
        [&LINUX, rest].concat()
    }

    #[test]
    fn every_changed_byte_of_a_usual_syn_is_read_as_the_walk_reads_it() {
        let capable = with(&[30, 4, 0x01, 0x81]);
        let join = with(&[30, 12, 0x10, 2, 1, 2, 3, 4, 5, 6, 7, 8]);
        for whole in [with(&[]), capable, join] {
            assert!(usual_opening(&whole).is_some());
            for at in 0..whole.len() {
                for byte in 0..=255 {
                    let mut changed = whole.clone();
                    changed[at] = byte;
                    for payload in [false, true] {
                        let walked = unusual(&changed, Flags::SYN, payload);
                        assert_eq!(opening(&changed, Flags::SYN, payload), walked, "{changed:?}");
                    }
                }
                let cut = &whole[..at];
                assert_eq!(opening(cut, Flags::SYN, false), unusual(cut, Flags::SYN, false));
            }
        }
    }

    #[test]
    fn every_changed_byte_of_a_usual_third_ack_is_read_as_the_walk_reads_it() {
        let mut whole = std::vec![1, 1, 8, 10, 0, 0, 0, 3, 0, 0, 0, 1, 30, 20, 0x01, 0x81];
        whole.extend(*b"a clienta server");
        let walk = |bytes: &[u8], flags| match tcp_option::options(bytes, flags, false) {
            Options {
                capable: Some(Capable::Ack { version: Version::V1, receiver, .. }),
                join: None,
                ..
            } => Some(receiver),
            _ => None,
        };
        for flags in (0..=255).map(Flags) {
            let key = Some(Key(*b"a server")).filter(|_| flags.ack() && !flags.syn() && !flags.rst());
            assert_eq!((usual_key(&whole, flags), walk(&whole, flags)), (key, key), "{flags:?}");
        }
        let (usual_key, walked) =
            (|bytes: &[u8]| usual_key(bytes, Flags::ACK), |bytes: &[u8]| walk(bytes, Flags::ACK));
        for at in 0..whole.len() {
            for byte in 0..=255 {
                let mut changed = whole.clone();
                changed[at] = byte;
                if let Some(key) = usual_key(&changed) {
                    assert_eq!(Some(key), walked(&changed), "{changed:?}");
                    assert_eq!(tcp_option::options(&changed, Flags::ACK, false).malformed, None);
                }
            }
            assert_eq!(usual_key(&whole[..at]), None);
        }
    }

    #[test]
    fn what_opens_what() {
        let of = |rest: &[u8]| opening(&with(rest), Flags::SYN, false).0;
        assert_eq!(of(&[]), Opening::Plain);
        assert_eq!(of(&[30, 4, 0x01, 0x01]), Opening::Capable(Version::V1));
        assert_eq!(of(&[30, 12, 0x11, 2, 1, 2, 3, 4, 5, 6, 7, 8]), Opening::Join(Token(0x0102_0304)));
        let v0 = [30, 12, 0x00, 0x81, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(of(&v0), Opening::Capable(Version::V0));
    }
}
