//! Numbers that look random and are functions of the seed: nothing is remembered, so any packet of a file can be made
//! without those before it.

/// 2^64 over the golden ratio (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a number is for. Two purposes never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Purpose {
    Order = 1,
    Path,
    Family,
    Kind,
    Phase,
    ClientKey,
    ServerKey,
    UnknownKey,
    Collision,
    Nonce,
    Flood,
    Forged,
}

/// The number of this purpose at this place.
#[inline]
pub(super) fn number(seed: u64, purpose: Purpose, index: u64) -> u64 {
    let start = scramble(seed.wrapping_add((purpose as u64).wrapping_mul(STEP)));
    scramble(start.wrapping_add(index.wrapping_add(1).wrapping_mul(STEP)))
}

/// splitmix64's output function: a bijection whose every output bit depends on every input bit.
#[inline]
pub(crate) const fn scramble(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The low 16 bits.
#[inline]
pub(super) const fn low16(word: u64) -> u16 {
    let [a, b, ..] = word.to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// The low 32 bits.
#[inline]
pub(super) const fn low32(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// An order of the numbers below `len` in which each comes once, without a list of them: a Feistel network over the
/// next even power of two, walked on until it lands below `len` (Black, Rogaway: "Ciphers with arbitrary finite
/// domains", 2002). Neighbours are as far apart as in a shuffled list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permutation {
    len: u64,
    half: u32,
    key: u64,
}

impl Permutation {
    /// The order with this key.
    pub(super) const fn new(len: u64, key: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let half = if bits < 2 { 1 } else { bits.div_ceil(2) };
        Self { len, half, key }
    }

    /// The number at this place, for places below `len`.
    #[inline]
    pub(super) const fn at(&self, place: u64) -> u64 {
        let mut value = place;
        loop {
            value = self.round_trip(value);
            if value < self.len {
                return value;
            }
        }
    }

    #[inline]
    const fn round_trip(&self, value: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (value >> self.half, value & mask);
        let mut round = 0;
        while round < 4 {
            let key = self.key.wrapping_add(STEP.wrapping_mul(round));
            let next = left ^ (scramble(right.wrapping_add(key)) & mask);
            (left, right) = (right, next);
            round += 1;
        }
        (left << self.half) | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_has_every_number_once_whatever_its_length() {
        for len in [1, 2, 3, 4, 5, 63, 64, 65, 1000, 4096, 4097] {
            let order = Permutation::new(len, 7);
            let mut seen: Vec<u64> = (0..len).map(|place| order.at(place)).collect();
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..len), "{len}");
        }
    }

    #[test]
    fn neighbours_are_far_apart_and_keys_give_other_orders() {
        let order: Vec<u64> = (0..4096).map(|place| Permutation::new(4096, 1).at(place)).collect();
        let close = order.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 64).count();
        // Of random neighbours 3 % are so close: 127 of 4095, and twice that would be no chance.
        assert!(close < 254, "{close} of 4095");
        let other = Permutation::new(4096, 2);
        let same = (0..4096).zip(&order).filter(|(place, number)| other.at(*place) == **number).count();
        assert!(same < 20, "{same} places alike");
    }

    #[test]
    fn purposes_and_seeds_have_numbers_of_their_own() {
        let numbers = [
            number(1, Purpose::Order, 0),
            number(1, Purpose::Order, 1),
            number(1, Purpose::Nonce, 0),
            number(2, Purpose::Order, 0),
        ];
        for (at, one) in numbers.iter().enumerate() {
            assert!(!numbers[..at].contains(one));
        }
    }
}
