//! What the verifier knows of MPTCP, written from RFC 8684 and RFC 6824 alone: options by kind and length, and tokens
//! by SHA-256 and SHA-1. None of it comes from the code that is verified.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// TCP option kind of MPTCP (RFC 8684 section 3).
const KIND: u8 = 30;

/// Versions of the protocol that have a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 6824: SHA-1.
    V0,
    /// RFC 8684: SHA-256.
    V1,
}

impl Version {
    /// The token of a key: the first 32 bits of its digest (RFC 8684 section 3.2, RFC 6824 section 3.2).
    pub fn token(self, key: [u8; 8]) -> u32 {
        let first = match self {
            Self::V0 => <[u8]>::first_chunk(&Sha1::digest(key)).copied(),
            Self::V1 => <[u8]>::first_chunk(&Sha256::digest(key)).copied(),
        };
        u32::from_be_bytes(first.unwrap_or_default())
    }
}

/// What the MPTCP options of a packet say that steering depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mptcp {
    /// There is an option of kind 30, right or wrong.
    pub any: bool,
    /// An option's length is wrong: the walk ended there, or the option was passed over.
    pub malformed: bool,
    /// MP_CAPABLE on a SYN.
    pub capable: Option<Version>,
    /// MP_JOIN on a SYN: the token.
    pub join: Option<u32>,
    /// MP_CAPABLE after the handshake: the server's key.
    pub key: Option<(Version, [u8; 8])>,
    /// MP_TCPRST.
    pub reset: bool,
}

/// TCP flags that decide what an option means (RFC 8684 section 3.1).
#[derive(Clone, Copy, Debug)]
pub struct Carrier {
    /// SYN without ACK, FIN and RST.
    pub opens: bool,
    /// ACK without SYN and RST.
    pub goes_on: bool,
    /// Data comes with it.
    pub payload: bool,
}

/// Reads the options of a packet. The walk is Linux's (mptcp_get_options): it ends at the first length that is
/// below 2 or past the end.
pub fn read(options: &[u8], carrier: Carrier) -> Mptcp {
    let mut found = Mptcp::default();
    let mut rest = options;
    loop {
        rest = match *rest {
            [] | [0, ..] => break,
            [1, ..] => rest.get(1..).unwrap_or_default(),
            [kind, len, ..] if len >= 2 && usize::from(len) <= rest.len() => {
                let (option, after) = rest.split_at(usize::from(len));
                if kind == KIND {
                    found.any = true;
                    one(option, carrier, &mut found);
                }
                after
            }
            _ => {
                found.malformed = true;
                break;
            }
        };
    }
    if found.capable.is_some() && found.join.is_some() {
        // Both at once contradict each other: plain TCP (what Linux answers to it).
        found.capable = None;
        found.join = None;
        found.malformed = true;
    }
    found
}

/// Takes one option in. The first of two equal options counts.
fn one(option: &[u8], carrier: Carrier, found: &mut Mptcp) {
    match option {
        [_, _, head, flags, ..] if head >> 4 == 0 => capable(option, head & 0x0f, *flags, carrier, found),
        [_, 12, head, _, token @ ..] if head >> 4 == 1 && carrier.opens => {
            if let Some(token) = token.first_chunk() {
                found.join.get_or_insert(u32::from_be_bytes(*token));
            }
        }
        [_, len, head, ..] if head >> 4 == 1 && (carrier.opens || *len != 24) => found.malformed = true,
        [_, 4, head, _] if head >> 4 == 8 => found.reset = true,
        [_, _] => found.malformed = true,
        _ => {}
    }
}

fn capable(option: &[u8], version: u8, flags: u8, carrier: Carrier, found: &mut Mptcp) {
    // The extensibility bit must be 0; of the algorithms only H is known: to version 1 any other bit with it is a
    // choice nobody can follow (what Linux answers as plain TCP), to version 0 they are unassigned.
    let usable = flags & 0x40 == 0 && if version == 0 { flags & 0x01 != 0 } else { flags & 0x1f == 0x01 };
    if !usable {
        found.malformed = true;
        return;
    }
    let len = option.len();
    if carrier.opens {
        // A SYN of a later version is answered in version 1.
        let opened = match (version, len) {
            (0, 12) => Some(Version::V0),
            (1.., 4) => Some(Version::V1),
            _ => None,
        };
        found.malformed |= opened.is_none();
        found.capable = found.capable.or(opened);
    } else if carrier.goes_on {
        let version = match (version, len, carrier.payload) {
            (0, 20, _) => Version::V0,
            (1, 20, false) | (1, 22 | 24, true) => Version::V1,
            _ => {
                found.malformed = true;
                return;
            }
        };
        if let Some(key) = option.get(12..).and_then(<[u8]>::first_chunk) {
            found.key.get_or_insert((version, *key));
        }
    } else {
        found.malformed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: Carrier = Carrier { opens: true, goes_on: false, payload: false };
    const ACK: Carrier = Carrier { opens: false, goes_on: true, payload: false };

    #[test]
    fn tokens_are_those_of_published_and_recorded_keys() {
        let key = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(Version::V1.token(key), 0x6684_0dda);
        assert_eq!(Version::V0.token(key), 0xdd57_83bc);
        // From a Linux client's third ACK and the join that followed.
        assert_eq!(Version::V1.token([0xd1, 0xfc, 0x9b, 0xe2, 0xb8, 0x7d, 0x2f, 0xa3]), 0x913e_6c21);
    }

    #[test]
    fn the_handshakes_of_both_versions_are_read() {
        let v1 = [2, 4, 5, 0xb4, 30, 4, 1, 1];
        assert_eq!(read(&v1, SYN).capable, Some(Version::V1));
        let v0 = [1, 1, 30, 12, 0, 0x81, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(read(&v0, SYN).capable, Some(Version::V0));
        let mut third = [9; 24];
        third[..8].copy_from_slice(&[1, 1, 1, 1, 30, 20, 1, 1]);
        assert_eq!(read(&third, ACK).key, Some((Version::V1, [9; 8])));
        let data = Carrier { payload: true, ..ACK };
        assert_eq!(read(&third, data).key, None, "20 bytes come without data");
        third[6] = 0;
        assert_eq!(read(&third, data).key, Some((Version::V0, [9; 8])));
    }

    #[test]
    fn a_join_has_twelve_bytes_and_its_token_in_the_middle() {
        let join = [30, 12, 0x10, 2, 0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 0, 1];
        assert_eq!(read(&join, SYN).join, Some(0xaabb_ccdd));
        let long = [30, 16, 0x10, 2, 0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(read(&long, SYN), Mptcp { any: true, malformed: true, ..Mptcp::default() });
        let both = [[30, 4, 1, 1].as_slice(), &join].concat();
        assert_eq!((read(&both, SYN).capable, read(&both, SYN).join), (None, None));
    }

    #[test]
    fn the_walk_ends_at_a_length_that_cannot_be() {
        for damaged in [&[30, 0, 1, 1][..], &[30, 1, 1, 1], &[30, 200, 1, 1], &[8]] {
            let found = read(damaged, SYN);
            assert!(found.malformed && found.capable.is_none(), "{damaged:?}");
        }
        assert_eq!(
            read(&[0, 30, 4, 1, 1], SYN),
            Mptcp::default(),
            "behind the end of the list there is nothing"
        );
    }

    #[test]
    fn flags_nobody_can_follow_open_no_mptcp_connection() {
        for flags in [0x00, 0x41, 0x03, 0x02] {
            assert_eq!(read(&[30, 4, 1, flags], SYN).capable, None, "{flags:#04x}");
        }
        assert_eq!(read(&[30, 4, 1, 0xa1], SYN).capable, Some(Version::V1));
        assert_eq!(read(&[30, 4, 2, 0x01], SYN).capable, Some(Version::V1), "a later version");
    }
}
