//! What packets carry: one pattern, whose partial checksums are kept for every length, so that a packet costs a copy
//! and no sum over its data.

use packet::checksum;

use super::MAX_FRAME;

/// The pattern and its sums.
#[derive(Debug)]
pub(super) struct Payload {
    bytes: Vec<u8>,
    sums: Vec<u64>,
}

impl Default for Payload {
    fn default() -> Self {
        // Printable, and never the same word twice in a row: what shifts or swaps bytes changes the checksum.
        let bytes: Vec<u8> = (b' '..=b'~').cycle().take(MAX_FRAME).collect();
        let mut whole = 0;
        let mut sums = vec![0];
        for pair in bytes.chunks(2) {
            sums.extend((1..=pair.len()).map(|len| whole + checksum::sum(pair.get(..len).unwrap_or(pair))));
            whole += checksum::sum(pair);
        }
        Self { bytes, sums }
    }
}

impl Payload {
    /// The first bytes of the pattern; shorter if there are not so many.
    #[inline]
    pub(super) fn bytes(&self, len: usize) -> &[u8] {
        self.bytes.get(..len).unwrap_or(&self.bytes)
    }

    /// Their partial checksum ([`checksum::sum`]).
    #[inline]
    pub(super) fn sum(&self, len: usize) -> u64 {
        self.sums.get(len).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_a_length_is_the_sum_of_its_bytes() {
        let payload = Payload::default();
        for len in [0, 1, 2, 3, 94, 95, 96, 1419, 1420, MAX_FRAME - 1, MAX_FRAME] {
            assert_eq!(payload.sum(len), checksum::sum(payload.bytes(len)), "{len}");
        }
        assert_eq!((payload.bytes(MAX_FRAME + 1).len(), payload.sum(MAX_FRAME + 1)), (MAX_FRAME, 0));
    }
}
