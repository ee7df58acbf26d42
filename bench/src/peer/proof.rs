//! Tokens, first data sequence numbers and HMACs of both versions, by the libraries alone.
//!
//! RFC 8684 sections 3.1 and 3.2 (SHA-256), RFC 6824 (SHA-1). A key is as long as it is: RFC keys have 8 bytes, those
//! an application gives may have any number.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// The digest of a version over some bytes.
fn digest(version: u8, bytes: &[u8]) -> Vec<u8> {
    if version == 0 { Sha1::digest(bytes).to_vec() } else { Sha256::digest(bytes).to_vec() }
}

/// The token of a key.
pub fn token(version: u8, key: &[u8; 8]) -> u32 {
    digest(version, key).first_chunk().copied().map_or(0, u32::from_be_bytes)
}

/// The initial data sequence number of a key. Where there is none at first, explicit tokens take its place: the sources
/// do not say, so this is our own choice.
pub fn first_sequence(version: u8, name: &[u8]) -> u64 {
    digest(version, name).last_chunk().copied().map_or(0, u64::from_be_bytes)
}

/// HMAC with two keys, one after the other, over a message; all of it.
fn keyed(version: u8, keys: [&[u8]; 2], message: &[u8]) -> Vec<u8> {
    let key = keys.concat();
    if version == 0 {
        Hmac::<Sha1>::new_from_slice(&key)
            .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec())
            .unwrap_or_default()
    } else {
        Hmac::<Sha256>::new_from_slice(&key)
            .map(|mac| mac.chain_update(message).finalize().into_bytes().to_vec())
            .unwrap_or_default()
    }
}

/// The HMAC a host proves with that it holds both keys, its own given first, as its own nonce: the leftmost 160 bits.
pub fn join(version: u8, keys: [&[u8]; 2], nonces: [u32; 2]) -> [u8; 20] {
    let message = nonces.map(u32::to_be_bytes).concat();
    keyed(version, keys, &message).first_chunk().copied().unwrap_or_default()
}

/// What NEW_KEY proves a key with: the low-order 64 bits of an HMAC. The draft does not say over what, as far as it could
/// be read; both tokens, the sender's first, is our own choice.
pub fn new_key(keys: [&[u8]; 2], tokens: [u32; 2]) -> [u8; 8] {
    keyed(1, keys, &tokens.map(u32::to_be_bytes).concat()).last_chunk().copied().unwrap_or_default()
}

/// The leftmost 64 bits of [`join`]: what a SYN/ACK has room for.
pub fn join_short(version: u8, keys: [&[u8]; 2], nonces: [u32; 2]) -> [u8; 8] {
    join(version, keys, nonces).first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
    const B: [u8; 8] = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn tokens_and_first_numbers_are_those_of_the_vectors() {
        assert_eq!((token(1, &A), token(0, &A)), (0x6684_0dda, 0xdd57_83bc));
        assert_eq!((token(1, &B), token(0, &B)), (0x1dce_6604, 0xbdc0_4c09));
        assert_eq!(first_sequence(1, &A), 0xf5a1_01d3_d29d_6f72);
        assert_eq!(first_sequence(0, &A), 0x3a95_ed6e_4ebb_4ad5);
    }

    #[test]
    fn hmacs_are_those_of_the_vectors_and_of_a_real_session() {
        let nonces = [0xaabb_ccdd, 0x0123_4567];
        assert_eq!(hex(&join(1, [&A, &B], nonces)), "c03f011e6f17c9142d3491516b819753c6f341a4");
        assert_eq!(hex(&join(0, [&A, &B], nonces)), "f8a9066d1eb8b54a46db083aa868b9fb33870b9c");
        let back = [nonces[1], nonces[0]];
        assert_eq!(hex(&join_short(1, [&B, &A], back)), "83773e0cc2b219c3");
        assert_eq!(hex(&join_short(0, [&B, &A], back)), "5a4798b2d35467fb");
        // Linux 6.18.
        let a = 0xb713_e0cc_8e25_56a5_u64.to_be_bytes();
        let b = 0xd1fc_9be2_b87d_2fa3_u64.to_be_bytes();
        let nonces = [0x0e66_42a6, 0xbc2c_ccb5];
        assert_eq!(hex(&join(1, [&a, &b], nonces)), "e05fb0e763ce8619e136df8a405112c804e3f74d");
        assert_eq!(hex(&join_short(1, [&b, &a], [nonces[1], nonces[0]])), "2ed4467f41dee4eb");
    }
}
