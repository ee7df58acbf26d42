//! Keys and tokens: how a later MP_JOIN names the connection it belongs to (RFC 8684 section 3.1 and 3.2).
//!
//! The token is the first 32 bits of a digest over the eight key bytes in wire order: SHA-256 in version 1,
//! SHA-1 in version 0 (RFC 6824). The last 64 bits are the initial data sequence number.
//!
//! Who holds both keys of a connection can forge its HMACs, so keys are never printed and never kept.

use core::fmt;

/// The MPTCP version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Version {
    /// RFC 6824, SHA-1.
    V0 = 0,
    /// RFC 8684, SHA-256.
    V1 = 1,
}

/// A key as an MP_CAPABLE carries it, in wire order. A secret: its `Debug` shows no byte of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Key(pub [u8; 8]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// The 32 bits by which an MP_JOIN SYN names a connection of the host it is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Token(pub u32);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// The length of a key in bits, as both digests end their padding with it.
const KEY_BITS: u8 = 64;

/// FIPS 180-4 section 5.3.3.
const SHA256_START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// FIPS 180-4 section 5.3.1.
const SHA1_START: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

impl Token {
    /// The token that a host with this key is joined by.
    ///
    /// Never inlined: SHA instructions have no VEX form, and inside code that uses the wide vector registers
    /// each one pays a state transition (5 µs a digest instead of 31 ns); inlined, the digest's stack frame
    /// also costs every packet of the loop around it.
    #[inline(never)]
    pub fn from_key(version: Version, key: &Key) -> Self {
        match version {
            Version::V0 => Self(sha1(key)[0]),
            Version::V1 => Self(sha256(key)[0]),
        }
    }
}

/// The initial data sequence number of the host with this key: its first data byte has this number plus one.
#[inline(never)]
pub fn initial_data_sequence(version: Version, key: &Key) -> u64 {
    let [high, low] = match version {
        Version::V0 => {
            let [.., high, low] = sha1(key);
            [high, low]
        }
        Version::V1 => {
            let [.., high, low] = sha256(key);
            [high, low]
        }
    };
    (u64::from(high) << 32) | u64::from(low)
}

fn sha256(key: &Key) -> [u32; 8] {
    let mut state = SHA256_START;
    sha2::block_api::compress256(&mut state, &[padded(key)]);
    state
}

fn sha1(key: &Key) -> [u32; 5] {
    let mut state = SHA1_START;
    sha1::block_api::compress(&mut state, &[padded(key)]);
    state
}

/// The whole padded message (FIPS 180-4 section 5.1.1): a key always fills exactly one block of either digest,
/// so neither buffering nor finalization is needed.
fn padded(key: &Key) -> [u8; 64] {
    let mut block = [0; 64];
    if let Some(start) = block.first_chunk_mut() {
        *start = key.0;
    }
    if let Some(end) = block.get_mut(8) {
        *end = 0x80;
    }
    if let Some(bits) = block.last_mut() {
        *bits = KEY_BITS;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::Digest;
    use std::format;
    use std::vec::Vec;

    /// key, v1 token, v1 IDSN, v0 token, v0 IDSN.
    const TABLE: [(u64, u32, u64, u32, u64); 6] = [
        (0x0102_0304_0506_0708, 0x6684_0dda, 0xf5a1_01d3_d29d_6f72, 0xdd57_83bc, 0x3a95_ed6e_4ebb_4ad5),
        (0x0000_0000_0000_0000, 0xaf55_70f5, 0xe5b2_328d_e0e8_3dfc, 0x05fe_4057, 0xac55_8654_f107_c7e9),
        (0x0000_0000_0000_0001, 0xcd26_6215, 0x19ec_5090_83d0_0a50, 0xcb47_3678, 0x38f1_1011_007a_d27d),
        (0xffff_ffff_ffff_ffff, 0x12a3_ae44, 0x57fb_595b_bbac_f0ca, 0xbe67_3e8a, 0x8667_01c1_1ef8_e089),
        (0xdead_beef_cafe_babe, 0x3f8a_286a, 0x33a8_062a_61d4_17f8, 0x9f48_de0e, 0xac7a_6783_e39e_d492),
        (0x1122_3344_5566_7788, 0x1dce_6604, 0x6281_5714_b76a_e9a5, 0xbdc0_4c09, 0xd054_9cc0_4058_11d5),
    ];

    #[test]
    fn the_worked_examples_give_their_tokens_and_first_numbers() {
        for (key, token1, idsn1, token0, idsn0) in TABLE {
            let key = Key(key.to_be_bytes());
            assert_eq!(Token::from_key(Version::V1, &key), Token(token1));
            assert_eq!(Token::from_key(Version::V0, &key), Token(token0));
            assert_eq!(initial_data_sequence(Version::V1, &key), idsn1);
            assert_eq!(initial_data_sequence(Version::V0, &key), idsn0);
        }
    }

    #[test]
    fn keys_seen_in_real_traffic_give_the_tokens_of_the_joins_that_followed() {
        for (key, token) in [
            (0xd1fc_9be2_b87d_2fa3_u64, 0x913e_6c21),
            (0xb9b3_ff8e_1110_9e23, 0xd9d4_d294),
            (0xc9da_887e_261c_902f, 0xf568_5e7b),
            (0x8044_8399_4944_c494, 0x6bbb_a32e),
            (0x54f0_4ad5_bd2d_9f42, 0xeef7_df2f),
        ] {
            assert_eq!(Token::from_key(Version::V1, &Key(key.to_be_bytes())), Token(token));
        }
        let key = Key(0x6e79_797c_c1a3_8e30_u64.to_be_bytes());
        assert_eq!(initial_data_sequence(Version::V1, &key), 0x46a4_c849_40b6_161f);
    }

    #[test]
    fn a_token_shows_eight_digits_and_a_key_none() {
        assert_eq!(format!("{}", Token(0xabc)), "00000abc");
        assert_eq!(format!("{:?}", Key([0xab; 8])), "Key(..)");
    }

    proptest! {
        #[test]
        fn the_single_block_equals_the_whole_digest(key: [u8; 8]) {
            let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
            prop_assert_eq!(bytes(&sha256(&Key(key))), sha2::Sha256::digest(key).to_vec());
            prop_assert_eq!(bytes(&sha1(&Key(key))), sha1::Sha1::digest(key).to_vec());
        }
    }
}
