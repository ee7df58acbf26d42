//! 128 bits scrambled into 64 under a secret key: the last step of the tables' hash.
//!
//! Why it is here: `engine` forbids unsafe code, and in Rust an AES instruction is a call that the type system cannot
//! see to be allowed. Every packet takes this step; four AES rounds are eight instructions, a multilinear hash and a
//! finalizer with as good a bound are thirty.
//!
//! **What is promised.** Four rounds of AES under independent keys are a permutation of 128 bits whose differentials all
//! have an expected probability below 2^-110 (Keliher and Sui, "Exact maximum expected differential and linear
//! probability for two-round Advanced Encryption Standard", 2007, with the four-round bound that follows from it). Half
//! of the result is taken. That two different inputs, chosen without knowledge of the keys, then share it no more often than
//! random words do is the conventional belief about AES, not a theorem.
//!
//! Where the build has no AES instructions the same function is a multilinear hash and a fixed bijection: slower, other
//! values, the same promise, proven ([`IS_AES`] tells which it is, and the tables' layout goes by it).

/// Round keys.
pub const KEYS: usize = 5;

/// Whether this build scrambles with AES instructions.
pub const IS_AES: bool = cfg!(all(target_arch = "x86_64", target_feature = "aes"));

/// 64 bits of the scrambled word.
#[cfg(all(target_arch = "x86_64", target_feature = "aes"))]
#[inline(always)]
#[expect(unsafe_code, reason = "an AES instruction is a call that the compiler cannot see to be allowed")]
pub fn scramble(word: u128, keys: &[u128; KEYS]) -> u64 {
    // SAFETY: the function needs SSE2, which is part of x86-64, and AES, without which this is not compiled: the whole
    // program is built for CPUs that have it.
    unsafe { rounds(word, keys) }
}

#[cfg(all(target_arch = "x86_64", target_feature = "aes"))]
#[inline]
#[target_feature(enable = "sse2,aes")]
#[expect(clippy::cast_possible_truncation, reason = "words are cut into registers and read back")]
fn rounds(word: u128, keys: &[u128; KEYS]) -> u64 {
    use core::arch::x86_64::{_mm_aesenc_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_xor_si128};
    let [k0, k1, k2, k3, k4] = keys.map(|key| _mm_set_epi64x((key >> 64) as i64, key as i64));
    let mut state = _mm_xor_si128(_mm_set_epi64x((word >> 64) as i64, word as i64), k0);
    state = _mm_aesenc_si128(state, k1);
    state = _mm_aesenc_si128(state, k2);
    state = _mm_aesenc_si128(state, k3);
    state = _mm_aesenc_si128(state, k4);
    _mm_cvtsi128_si64(state).cast_unsigned()
}

/// 64 bits of the scrambled word.
#[cfg(not(all(target_arch = "x86_64", target_feature = "aes")))]
#[inline]
pub fn scramble(word: u128, keys: &[u128; KEYS]) -> u64 {
    portable(word, keys)
}

/// The portable way, which takes fewer keys.
#[cfg(any(test, not(all(target_arch = "x86_64", target_feature = "aes"))))]
fn portable(word: u128, [high, low, plus, ..]: &[u128; KEYS]) -> u64 {
    multilinear(word, [*high, *low, *plus])
}

/// The same promise without AES: a multilinear hash with 128-bit keys of which the upper 64 bits are kept (Lemire and
/// Kaser, "Strongly universal string hashing is fast", 2014, theorem 1), then a bijection in which every input bit
/// moves every output bit about half of the time (Stafford's thirteenth variant of MurmurHash3's finalizer), which
/// spreads regular inputs where a linear hash alone would leave their regularity.
///
/// The same everywhere and for ever: Maglev's public hash ends with it, too.
#[inline]
pub fn multilinear(word: u128, [high, low, plus]: [u128; 3]) -> u64 {
    let fold = high
        .wrapping_mul(word >> 64)
        .wrapping_add(low.wrapping_mul(word & u128::from(u64::MAX)))
        .wrapping_add(plus);
    let mut x = (fold >> 64) as u64;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u128; KEYS] = [
        0x243f_6a88_85a3_08d3_1319_8a2e_0370_7344,
        0xa409_3822_299f_31d0_082e_fa98_ec4e_6c89,
        0x4528_21e6_38d0_1377_be54_66cf_34e9_0c6c,
        0xc0ac_29b7_c97c_50dd_3f84_d5b5_b547_0917,
        0x9216_d5d9_8979_fb1b_d131_0ba6_98df_b5ac,
    ];

    /// Both ways of scrambling.
    const WAYS: [fn(u128, &[u128; KEYS]) -> u64; 2] = [scramble, portable];

    #[test]
    fn every_input_bit_moves_about_half_of_the_output() {
        for way in WAYS {
            let base = way(0x1234_5678, &SECRET);
            let moved: u32 =
                (0..128).map(|bit| (way(0x1234_5678 ^ 1 << bit, &SECRET) ^ base).count_ones()).sum();
            assert!((30 * 128..34 * 128).contains(&moved), "{moved} of {}", 64 * 128);
        }
    }

    #[test]
    fn words_in_a_row_spread_as_random_ones_do() {
        for way in WAYS {
            let mut lines = [0_u32; 4096];
            for word in 0..65_536 {
                let place = (u128::from(way(word, &SECRET)) * 4096) >> 64;
                lines[usize::try_from(place).unwrap()] += 1;
            }
            // 16 a line on average: a random spread has a chi-square of 4095 +- 90.
            let chi: f64 = lines.iter().map(|&n| (f64::from(n) - 16.0).powi(2) / 16.0).sum();
            assert!((3700.0..4500.0).contains(&chi), "chi-square {chi}");
        }
    }

    #[test]
    fn another_key_gives_another_word() {
        for way in WAYS {
            // The portable way has fewer keys than rounds of AES.
            for at in 0..3 {
                let mut other = SECRET;
                other[at] = !other[at];
                assert_ne!(way(7 << 64 | 9, &other), way(7 << 64 | 9, &SECRET), "key {at}");
            }
        }
    }
}
