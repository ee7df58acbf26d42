//! MPTCP options, read and written from the RFCs and the drafts alone: nothing of it comes from the code under test.
//!
//! RFC 8684 section 3, RFC 6824 section 3. Where MP_CAPABLE names its ends by tokens instead of keys it is shorter:
//! the G flag of draft-paasch-mptcp-application-authentication and the E flag of draft-baerts-tcpm-mptcpext-00.

/// TCP option kind of MPTCP.
pub const KIND: u8 = 30;

/// MP_CAPABLE flag A: data carries checksums, if either side says so.
pub const FLAG_A: u8 = 0x80;
/// MP_CAPABLE flag H: HMAC-SHA256 in version 1, HMAC-SHA1 in version 0.
pub const FLAG_H: u8 = 0x01;
/// MP_CAPABLE flag G: keys come from the application, tokens are explicit.
pub const FLAG_G: u8 = 0x02;
/// MP_CAPABLE flag E: keys come from outside and are confirmed by NEW_KEY, tokens are explicit.
pub const FLAG_E: u8 = 0x08;
/// MP_CAPABLE flags that choose how a connection is secured.
const CRYPTO: u8 = 0x1f;

const CAPABLE: u8 = 0;
const JOIN: u8 = 1;
const DSS: u8 = 2;
const FAIL: u8 = 6;
const FASTCLOSE: u8 = 7;
const RESET: u8 = 8;
const NEW_KEY: u8 = 9;

/// How MP_CAPABLE names one end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// By a key, whose digest begins with the token.
    Key([u8; 8]),
    /// By the token itself.
    Token(u32),
}

impl Name {
    fn write(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Key(key) => bytes.extend(key),
            Self::Token(token) => bytes.extend(token.to_be_bytes()),
        }
    }
}

/// The mapping of a DSS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// The data sequence number of the first byte; its lower half alone where `short`.
    pub sequence: u64,
    /// Only the lower half was sent.
    pub short: bool,
    /// The subflow sequence number of the first byte, relative: the SYN is 0.
    pub subflow_sequence: u32,
    /// How many bytes.
    pub len: u16,
    /// The checksum, where there is one.
    pub checksum: Option<u16>,
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MpOption {
    /// MP_CAPABLE on a SYN; version 0 names the client.
    CapableSyn {
        /// The version asked for.
        version: u8,
        /// A to H.
        flags: u8,
        /// The client, in version 0.
        sender: Option<Name>,
    },
    /// MP_CAPABLE on a SYN/ACK.
    CapableSynAck {
        /// The version granted.
        version: u8,
        /// A to H.
        flags: u8,
        /// The server.
        sender: Name,
    },
    /// MP_CAPABLE on the third packet, or with the first data.
    CapableAck {
        /// The version agreed.
        version: u8,
        /// A to H.
        flags: u8,
        /// The client.
        sender: Name,
        /// The server.
        receiver: Name,
        /// Bytes of the first data.
        data_len: Option<u16>,
        /// Its checksum, where that was agreed on.
        checksum: Option<u16>,
    },
    /// MP_JOIN on a SYN.
    JoinSyn {
        /// The address ID.
        id: u8,
        /// The receiver's token.
        token: u32,
        /// The sender's nonce.
        nonce: u32,
        /// With E: which of two keys proves it (bit K). Nothing in RFC 8684.
        slot: u8,
    },
    /// MP_JOIN on a SYN/ACK.
    JoinSynAck {
        /// The address ID.
        id: u8,
        /// The leftmost 64 bits of the HMAC.
        hmac: [u8; 8],
        /// The sender's nonce.
        nonce: u32,
    },
    /// MP_JOIN on the third packet.
    JoinAck {
        /// The leftmost 160 bits of the HMAC.
        hmac: [u8; 20],
    },
    /// DSS.
    Dss {
        /// The data acknowledgment, and whether only its lower half was sent.
        ack: Option<(u64, bool)>,
        /// What the payload is.
        map: Option<Map>,
        /// The mapping ends the data.
        fin: bool,
    },
    /// MP_FAIL: a checksum was wrong.
    Fail {
        /// The data number from which on data is lost.
        sequence: u64,
    },
    /// MP_FASTCLOSE: the receiver's key, or with E an HMAC.
    Fastclose {
        /// What proves it.
        proof: [u8; 8],
        /// With E: by which of two keys (bit K). Nothing in RFC 8684.
        slot: u8,
    },
    /// MP_TCPRST.
    Reset {
        /// It may be tried again.
        transient: bool,
        /// Why.
        reason: u8,
    },
    /// NEW_KEY of the E variant: an external key is at hand.
    NewKey {
        /// Which of the two key slots.
        slot: u8,
        /// What proves it.
        proof: [u8; 8],
    },
    /// Any other subtype.
    Other(u8),
}

/// The whole option with its first two bytes, `None` where a length is wrong for the packet.
fn one(option: &[u8], syn: bool, ack: bool) -> Option<MpOption> {
    let [_, _, head, fourth, body @ ..] = option else {
        return option.get(2).map(|head| MpOption::Other(head >> 4));
    };
    match head >> 4 {
        CAPABLE => capable(head & 0x0f, *fourth, body, syn, ack),
        JOIN => join(head >> 1 & 1, *fourth, body, syn, ack),
        DSS => dss(*fourth, body),
        FAIL => Some(MpOption::Fail { sequence: u64::from_be_bytes(body.try_into().ok()?) }),
        FASTCLOSE => Some(MpOption::Fastclose { proof: body.try_into().ok()?, slot: head & 1 }),
        RESET => body.is_empty().then_some(MpOption::Reset { transient: head & 1 == 1, reason: *fourth }),
        NEW_KEY => Some(MpOption::NewKey { slot: head & 1, proof: body.try_into().ok()? }),
        other => Some(MpOption::Other(other)),
    }
}

/// Whether flags say that tokens are explicit.
pub const fn explicit(flags: u8) -> bool {
    flags & (FLAG_G | FLAG_E) != 0
}

fn capable(version: u8, flags: u8, body: &[u8], syn: bool, ack: bool) -> Option<MpOption> {
    // A SYN may offer more than one way; what follows has chosen one.
    let named = |bytes: &[u8]| -> Option<Name> {
        Some(if explicit(flags) {
            Name::Token(u32::from_be_bytes(bytes.try_into().ok()?))
        } else {
            Name::Key(bytes.try_into().ok()?)
        })
    };
    if flags & CRYPTO == 0 || flags & 0x40 != 0 {
        return None;
    }
    match (syn, ack, version, body.len()) {
        (true, false, 0, 8) => {
            Some(MpOption::CapableSyn { version, flags, sender: Some(Name::Key(body.try_into().ok()?)) })
        }
        (true, false, 1.., 0) => Some(MpOption::CapableSyn { version, flags, sender: None }),
        (true, true, 0 | 1, _) => Some(MpOption::CapableSynAck { version, flags, sender: named(body)? }),
        (false, true, 0 | 1, _) => {
            let width = if explicit(flags) { 4 } else { 8 };
            let (sender, rest) = body.split_at_checked(width)?;
            let (receiver, rest) = rest.split_at_checked(width)?;
            let (data_len, checksum) = match rest {
                [] => (None, None),
                [high, low] => (Some(u16::from_be_bytes([*high, *low])), None),
                [high, low, first, second] => {
                    let checksum = u16::from_be_bytes([*first, *second]);
                    (Some(u16::from_be_bytes([*high, *low])), Some(checksum))
                }
                _ => return None,
            };
            Some(MpOption::CapableAck {
                version,
                flags,
                sender: named(sender)?,
                receiver: named(receiver)?,
                data_len,
                checksum,
            })
        }
        _ => None,
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}

fn join(slot: u8, id: u8, body: &[u8], syn: bool, ack: bool) -> Option<MpOption> {
    match (syn, ack, body.len()) {
        (true, false, 8) => {
            let (token, nonce) = body.split_at(4);
            Some(MpOption::JoinSyn { id, token: word(token)?, nonce: word(nonce)?, slot })
        }
        (true, true, 12) => {
            let (hmac, nonce) = body.split_first_chunk()?;
            Some(MpOption::JoinSynAck { id, hmac: *hmac, nonce: word(nonce)? })
        }
        (false, true, 20) => Some(MpOption::JoinAck { hmac: body.try_into().ok()? }),
        _ => None,
    }
}

fn dss(flags: u8, body: &[u8]) -> Option<MpOption> {
    let mut rest = body;
    let mut take = |long: bool| -> Option<(u64, bool)> {
        let (field, after) = rest.split_at_checked(if long { 8 } else { 4 })?;
        rest = after;
        Some((field.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)), !long))
    };
    let ack = if flags & 0x01 != 0 { Some(take(flags & 0x02 != 0)?) } else { None };
    let sequence = if flags & 0x04 != 0 { Some(take(flags & 0x08 != 0)?) } else { None };
    let map = match (sequence, rest) {
        (None, []) => None,
        (Some((sequence, short)), [a, b, c, d, high, low, checksum @ ..]) => Some(Map {
            sequence,
            short,
            subflow_sequence: u32::from_be_bytes([*a, *b, *c, *d]),
            len: u16::from_be_bytes([*high, *low]),
            checksum: match checksum {
                [] => None,
                [first, second] => Some(u16::from_be_bytes([*first, *second])),
                _ => return None,
            },
        }),
        _ => return None,
    };
    Some(MpOption::Dss { ack, map, fin: flags & 0x10 != 0 })
}

/// What the options of a segment say that a peer asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Timestamps (RFC 7323): value, echo.
    pub timestamps: Option<(u32, u32)>,
    /// Every MPTCP option with a right length.
    pub mptcp: Vec<MpOption>,
}

/// Reads the options of a segment with these flags. The walk ends at the first length that cannot be.
pub fn read(options: &[u8], syn: bool, ack: bool) -> Options {
    let mut found = Options::default();
    let mut rest = options;
    while let [kind, after @ ..] = rest {
        rest = match (kind, after) {
            (0, _) => break,
            (1, after) => after,
            (_, [len, ..]) if *len >= 2 && usize::from(*len) <= rest.len() => {
                let (option, after) = rest.split_at(usize::from(*len));
                match option {
                    [8, 10, a, b, c, d, e, f, g, h] => {
                        let value = u32::from_be_bytes([*a, *b, *c, *d]);
                        found.timestamps = Some((value, u32::from_be_bytes([*e, *f, *g, *h])));
                    }
                    [KIND, ..] => found.mptcp.extend(one(option, syn, ack)),
                    _ => {}
                }
                after
            }
            _ => break,
        };
    }
    found
}

impl MpOption {
    /// Appends the option's bytes.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        // The length stands in once it is known.
        bytes.extend([KIND, 0]);
        match *self {
            Self::CapableSyn { version, flags, sender } => {
                bytes.extend([CAPABLE << 4 | version, flags]);
                if let Some(sender) = sender {
                    sender.write(bytes);
                }
            }
            Self::CapableSynAck { version, flags, sender } => {
                bytes.extend([CAPABLE << 4 | version, flags]);
                sender.write(bytes);
            }
            Self::CapableAck { version, flags, sender, receiver, data_len, checksum } => {
                bytes.extend([CAPABLE << 4 | version, flags]);
                sender.write(bytes);
                receiver.write(bytes);
                bytes.extend(data_len.map(u16::to_be_bytes).iter().flatten());
                bytes.extend(checksum.map(u16::to_be_bytes).iter().flatten());
            }
            Self::JoinSyn { id, token, nonce, slot } => {
                bytes.extend([JOIN << 4 | (slot & 1) << 1, id]);
                bytes.extend(token.to_be_bytes());
                bytes.extend(nonce.to_be_bytes());
            }
            Self::JoinSynAck { id, hmac, nonce } => {
                bytes.extend([JOIN << 4, id]);
                bytes.extend(hmac);
                bytes.extend(nonce.to_be_bytes());
            }
            Self::JoinAck { hmac } => {
                bytes.extend([JOIN << 4, 0]);
                bytes.extend(hmac);
            }
            Self::Dss { ack, map, fin } => write_dss(bytes, ack, map, fin),
            Self::Fail { sequence } => {
                bytes.extend([FAIL << 4, 0]);
                bytes.extend(sequence.to_be_bytes());
            }
            Self::Fastclose { proof, slot } => {
                bytes.extend([FASTCLOSE << 4 | slot & 1, 0]);
                bytes.extend(proof);
            }
            Self::Reset { transient, reason } => bytes.extend([RESET << 4 | u8::from(transient), reason]),
            Self::NewKey { slot, proof } => {
                bytes.extend([NEW_KEY << 4 | slot & 1, 0]);
                bytes.extend(proof);
            }
            Self::Other(subtype) => bytes.push(subtype << 4),
        }
        let len = u8::try_from(bytes.len() - start).unwrap_or(u8::MAX);
        if let Some(place) = bytes.get_mut(start + 1) {
            *place = len;
        }
    }
}

fn write_dss(bytes: &mut Vec<u8>, ack: Option<(u64, bool)>, map: Option<Map>, fin: bool) {
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    let long_ack = ack.is_some_and(|(_, short)| !short);
    let long_map = map.is_some_and(|map| !map.short);
    let flags = bit(fin, 0x10) | bit(ack.is_some(), 0x01) | bit(long_ack, 0x02);
    bytes.extend([DSS << 4, flags | bit(map.is_some(), 0x04) | bit(long_map, 0x08)]);
    let mut number = |number: u64, short: bool| {
        let all = number.to_be_bytes();
        bytes.extend(if short { &all[4..] } else { &all[..] });
    };
    if let Some((ack, short)) = ack {
        number(ack, short);
    }
    if let Some(map) = map {
        number(map.sequence, map.short);
        bytes.extend(map.subflow_sequence.to_be_bytes());
        bytes.extend(map.len.to_be_bytes());
        bytes.extend(map.checksum.map(u16::to_be_bytes).iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            hex.chars().map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap()).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// Options that Linux 6.18 sent: SYN, ACK, bytes.
    const REAL: [(bool, bool, &str); 15] = [
        (true, false, "1e040101"),
        (true, true, "1e0c0101d1fc9be2b87d2fa3"),
        // With checksums.
        (true, true, "1e0c0181c9da887e261c902f"),
        (false, true, "1e1401813f64e4ccdb1c1126c9da887e261c902f"),
        (false, true, "1e1801813f64e4ccdb1c1126c9da887e261c902f00149cde"),
        (false, true, "1e140101b713e0cc8e2556a5d1fc9be2b87d2fa3"),
        (false, true, "1e160101b713e0cc8e2556a5d1fc9be2b87d2fa30014"),
        (false, true, "1e0c200315f566e8ef5ac260"),
        (true, false, "1e0c1001913e6c210e6642a6"),
        (true, true, "1e1010002ed4467f41dee4ebbc2cccb5"),
        (false, true, "1e181000e05fb0e763ce8619e136df8a405112c804e3f74d"),
        (false, true, "1e0c7000d1fc9be2b87d2fa3"),
        (false, true, "1e048001"),
        (false, true, "1e1a201f0102030405060708a1a2a3a4a5a6a7a8000000000001"),
        (false, true, "1e16200de742cdb291a336cd810dedc7000000010014"),
    ];

    #[test]
    fn what_linux_sent_is_read_and_written_again_byte_for_byte() {
        for (syn, ack, hex) in REAL {
            let read = read(&bytes(hex), syn, ack);
            let [option] = read.mptcp[..] else { panic!("{hex}: {read:?}") };
            let mut written = Vec::new();
            option.write(&mut written);
            assert_eq!(written, bytes(hex), "{option:?}");
        }
    }

    #[test]
    fn explicit_tokens_stand_where_keys_would() {
        let ends = (Name::Token(0x0a0b_0c0d), Name::Token(0x0102_0304));
        for flags in [FLAG_G, FLAG_E] {
            let third = MpOption::CapableAck {
                version: 1,
                flags,
                sender: ends.0,
                receiver: ends.1,
                data_len: None,
                checksum: None,
            };
            let mut written = Vec::new();
            third.write(&mut written);
            assert_eq!(written[..2], [30, 12]);
            assert_eq!(written[8..], [1, 2, 3, 4]);
            assert_eq!(read(&written, false, true).mptcp, [third]);
        }
    }

    #[test]
    fn the_options_of_the_drafts_have_their_bytes() {
        let token = Name::Token(0x0a0b_0c0d);
        let receiver = Name::Token(0x0102_0304);
        let third = |data_len, checksum| MpOption::CapableAck {
            version: 1,
            flags: FLAG_E,
            sender: token,
            receiver,
            data_len,
            checksum,
        };
        let proof = [0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8];
        let all = [
            (MpOption::CapableSyn { version: 1, flags: FLAG_E, sender: None }, true, false, "1e040108"),
            (
                MpOption::CapableSynAck { version: 1, flags: FLAG_E, sender: token },
                true,
                true,
                "1e0801080a0b0c0d",
            ),
            (third(None, None), false, true, "1e0c01080a0b0c0d01020304"),
            (third(Some(20), None), false, true, "1e0e01080a0b0c0d010203040014"),
            (third(Some(20), Some(0x9cde)), false, true, "1e1001080a0b0c0d0102030400149cde"),
            (MpOption::NewKey { slot: 0, proof }, false, true, "1e0c9000a1a2a3a4a5a6a7a8"),
            (MpOption::NewKey { slot: 1, proof }, false, true, "1e0c9100a1a2a3a4a5a6a7a8"),
            (
                MpOption::JoinSyn { id: 2, token: 0x913e_6c21, nonce: 0x0e66_42a6, slot: 1 },
                true,
                false,
                "1e0c1202913e6c210e6642a6",
            ),
            (MpOption::Fastclose { proof, slot: 0 }, false, true, "1e0c7000a1a2a3a4a5a6a7a8"),
            (MpOption::Fastclose { proof, slot: 1 }, false, true, "1e0c7100a1a2a3a4a5a6a7a8"),
            (MpOption::Fail { sequence: 7 }, false, true, "1e0c60000000000000000007"),
        ];
        for (option, syn, ack, hex) in all {
            let mut written = Vec::new();
            option.write(&mut written);
            assert_eq!(written, bytes(hex), "{option:?}");
            assert_eq!(read(&bytes(hex), syn, ack).mptcp, [option]);
        }
    }

    #[test]
    fn an_option_that_fits_another_packet_is_not_read() {
        for (syn, ack, hex) in [(true, false, REAL[1].2), (true, true, REAL[5].2), (false, true, REAL[0].2)] {
            assert_eq!(read(&bytes(hex), syn, ack).mptcp, [], "{hex}");
        }
        assert_eq!(read(&bytes("1e04014101"), true, false).mptcp, [], "the extensibility bit");
        assert_eq!(read(&bytes("1e000101"), true, false).mptcp, [], "a length of nothing");
    }
}
