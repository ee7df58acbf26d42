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
        let sums = (0..=bytes.len()).map(|len| checksum::sum(bytes.get(..len).unwrap_or_default())).collect();
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
