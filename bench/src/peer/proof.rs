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

/// What MP_FASTCLOSE proves with where keys are external: the low-order 64 bits of an HMAC. The draft does not say over
/// what; our own choice is the option's third and fourth byte, so that it is no NEW_KEY's, and both tokens, the sender's first.
pub fn fastclose(keys: [&[u8]; 2], tokens: [u32; 2], slot: u8) -> [u8; 8] {
    let message = [vec![0x70 | slot & 1, 0], tokens.map(u32::to_be_bytes).concat()].concat();
    keyed(1, keys, &message).last_chunk().copied().unwrap_or_default()
}

/// The checksum of a mapping (RFC 8684 section 3.3.1): the ones' complement sum over its data number, its place in the
/// subflow, its length, zero, and the data, complemented.
pub fn checksum(sequence: u64, place: u32, len: u16, data: &[u8]) -> u16 {
    let mut bytes = sequence.to_be_bytes().to_vec();
    bytes.extend(place.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u64::from);
    // A word is below 2^16, and a packet has few: the sum fits.
    let mut sum: u64 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or(0)
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
    fn a_checksum_is_what_linux_sent_and_notices_an_odd_byte() {
        // 20 times 'C', from a Linux 6.18 server with checksums.
        assert_eq!(checksum(0x70e0_67f3_9f06_4a91, 1, 20, &[b'C'; 20]), 0x9cde);
        assert_ne!(checksum(1, 1, 3, b"abc"), checksum(1, 1, 3, b"abd"));
        assert_eq!(checksum(0, 0, 1, &[]), !1, "DATA_FIN alone");
    }

    #[test]
    fn the_proofs_of_new_key_and_fastclose_are_different_for_each_key_and_sender() {
        let (keys, tokens) = ([&A[..], &B[..]], [1, 2]);
        let all = [
            new_key(keys, tokens),
            new_key([&B, &A], [2, 1]),
            fastclose(keys, tokens, 0),
            fastclose(keys, tokens, 1),
            fastclose([&B, &A], [2, 1], 0),
        ];
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
        // As Python's hmac has them.
        let tokens = [0x0a0b_0c0d, 0x0102_0304];
        assert_eq!(hex(&new_key(keys, tokens)), "3ab9d4e6a8b30935");
        assert_eq!(hex(&fastclose(keys, tokens, 0)), "ea5d563157349310");
        assert_eq!(hex(&fastclose(keys, tokens, 1)), "0b25d937513d095b");
        assert_eq!(hex(&fastclose([&B, &A], [tokens[1], tokens[0]], 1)), "489bfe3f1b4aa597");
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
