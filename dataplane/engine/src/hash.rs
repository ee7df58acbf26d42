//! The keyed 64-bit hash of flows and tokens.
//!
//! Two users with opposite needs share it. The tables use a **secret** key: whoever can predict where flows
//! land can fill one line of a table, or find two flows that Weft takes for one. Maglev uses a **public** key
//! made from the configured seed, so that two appliances agree on every stateless packet.
//!
//! How: the five words of a flow go through NH (the inner hash of UMAC, RFC 4418 section 5.2, with 64-bit
//! words and 128-bit sums). For Maglev its 128 bits go through a multilinear hash with 128-bit keys of which the upper
//! 64 bits are kept (Dietzfelbinger 1996; Lemire and Kaser, "Strongly universal string hashing is fast",
//! 2014, theorem 1); a fixed bijection then mixes the bits. In the tables they are scrambled instead ([`ipc::scramble`]),
//! and an IPv4 5-tuple is two words, NH one product of them, under a key of its own. A token is one word and is
//! scrambled as it is.
//!
//! Bound, over the choice of the key, for any two different inputs chosen without knowing it: NH maps both to
//! one 128-bit value with probability at most 2^-64, and what follows maps two different values to one as rarely as
//! random words are equal (proven for the multilinear part: 2^-64). So two flows share all 64 bits with probability
//! about 2^-63, two tokens with 2^-64, and a false match in a line of the flow table (47 bits of fingerprint of 16
//! candidates at most) is rarer than 2^-42 a new flow. The bijection and the scrambling are what spreads
//! regular inputs (a scan of ports, one /64) over the lines, where a linear hash alone would leave their
//! regularity.

use ipc::id::PoolId;
use ipc::scramble::{KEYS, multilinear, scramble};
use packet::{Flow, Token, Words};
use sha2::{Digest, Sha256};

/// A key of the hash. Debug output does not show it.
#[derive(Clone)]
pub struct HashKey {
    nh: [u64; 6],
    fold: [u128; 3],
    nh4: [u64; 2],
    flows: [u128; KEYS],
    tokens: [u128; KEYS],
}

impl core::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashKey(..)")
    }
}

impl HashKey {
    /// The secret key of the tables, from 32 random bytes that never leave the appliance.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self::expand(b"weft table key 1", seed)
    }

    /// The public key of Maglev, from the seed of the configuration. Every release must give the same.
    pub fn public(seed: u64) -> Self {
        Self::expand(b"weft maglev key 1", &seed.to_be_bytes())
    }

    /// The hash of a flow in the flow table. Every packet pays for it, so it is not that of [`HashKey::flow`], which
    /// other appliances must agree with.
    #[inline(always)]
    pub fn entry(&self, words: Words) -> u64 {
        let nh = match words {
            Words::V4([w0, w1]) => {
                let [k0, k1] = self.nh4;
                pair(w0, k0, w1, k1)
            }
            Words::V6(words) => self.nh(&words),
        };
        scramble(nh, &self.flows)
    }

    /// The hash of a flow: all bits of its 5-tuple and family. Stable for ever under one key: Maglev's.
    #[inline]
    pub fn flow(&self, flow: &Flow) -> u64 {
        self.words(&flow.words())
    }

    /// The hash of a token within a pool.
    #[inline]
    pub fn token(&self, token: Token, pool: PoolId) -> u64 {
        scramble(u128::from(pool.0) << 32 | u128::from(token.0), &self.tokens)
    }

    /// The hash of a source network. No input of [`HashKey::token`] is one of it: those have 48 bits.
    #[inline]
    pub fn network(&self, network: u128) -> u64 {
        scramble(1 << 126 | network, &self.tokens)
    }

    /// NH over five words and a zero.
    #[inline(always)]
    fn nh(&self, words: &[u64; 5]) -> u128 {
        let [w0, w1, w2, w3, w4] = *words;
        let [k0, k1, k2, k3, k4, k5] = self.nh;
        pair(w0, k0, w1, k1).wrapping_add(pair(w2, k2, w3, k3)).wrapping_add(pair(w4, k4, 0, k5))
    }

    /// NH, then the multilinear fold of its 128 bits, then the bijection.
    fn words(&self, words: &[u64; 5]) -> u64 {
        multilinear(self.nh(words), self.fold)
    }

    /// SHA-256 in counter mode: the key words are as good as random to whoever does not know the seed.
    fn expand(domain: &[u8], seed: &[u8]) -> Self {
        let mut counter = 0u32;
        let mut word = || {
            let mut hasher = Sha256::new();
            hasher.update(domain);
            hasher.update(seed);
            hasher.update(counter.to_be_bytes());
            counter += 1;
            let digest: [u8; 32] = hasher.finalize().into();
            digest.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes))
        };
        Self {
            nh: core::array::from_fn(|_| upper(word())),
            fold: core::array::from_fn(|_| word()),
            nh4: core::array::from_fn(|_| upper(word())),
            flows: core::array::from_fn(|_| word()),
            tokens: core::array::from_fn(|_| word()),
        }
    }
}

/// One term of NH.
#[inline]
fn pair(m0: u64, k0: u64, m1: u64, k1: u64) -> u128 {
    u128::from(m0.wrapping_add(k0)).wrapping_mul(u128::from(m1.wrapping_add(k1)))
}

/// The upper half.
#[inline]
const fn upper(x: u128) -> u64 {
    (x >> 64) as u64
}

/// `hash` scaled to `0..size` by a multiplication: needs no power of two and no division.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the result is below size")]
pub(crate) const fn scale(hash: u64, size: usize) -> usize {
    ((hash as u128 * size as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> HashKey {
        HashKey::from_seed(&[7; 32])
    }

    #[test]
    fn every_bit_of_every_word_moves_about_half_of_the_hash() {
        let key = key();
        let base = [1, 0xffff_0a00_0001, 2, 0xffff_0a09_0909, 0x1234_5678];
        let hash = key.words(&base);
        let mut moved = 0;
        for bit in 0..320 {
            let mut words = base;
            words[bit / 64] ^= 1 << (bit % 64);
            let flipped = (key.words(&words) ^ hash).count_ones();
            assert!((10..=54).contains(&flipped), "bit {bit} moved {flipped} bits");
            moved += flipped;
        }
        assert!((30 * 320..34 * 320).contains(&moved), "{moved} of {}", 320 * 64);
    }

    #[test]
    fn a_scan_of_all_ports_spreads_evenly_over_the_lines() {
        let key = key();
        let mut lines = vec![0u32; 4096];
        for port in 0..65_536u64 {
            lines[scale(key.words(&[0, 0xffff_0a00_0001, 0, 0xffff_0a09_0909, port << 16 | 443]), 4096)] += 1;
        }
        // 16 a line on average: a random spread has a chi-square of 4095 +- 90.
        let chi: f64 = lines.iter().map(|&n| (f64::from(n) - 16.0).powi(2) / 16.0).sum();
        assert!((3600.0..4600.0).contains(&chi), "chi-square {chi}");
    }

    #[test]
    fn a_token_hashes_apart_in_two_pools_and_under_two_keys() {
        let other = HashKey::from_seed(&[8; 32]);
        let token = Token(0x913e_6c21);
        assert_ne!(key().token(token, PoolId(0)), key().token(token, PoolId(1)));
        assert_ne!(key().token(token, PoolId(0)), other.token(token, PoolId(0)));
        assert_eq!(key().token(token, PoolId(3)), key().token(token, PoolId(3)));
    }

    #[test]
    fn the_public_hash_never_changes() {
        // Pinned: appliances of two releases behind one ECMP must agree. Computed apart from this code,
        // from the description in the header.
        let hash = HashKey::public(0).words(&[1, 2, 3, 4, 5]);
        assert_eq!(hash, PINNED);
    }

    const PINNED: u64 = 0x063a_7b26_1cc8_5fe1;

    #[test]
    fn debug_output_hides_the_key() {
        assert_eq!(format!("{:?}", key()), "HashKey(..)");
    }
}
