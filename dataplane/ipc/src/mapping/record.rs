//! The directory's two records, of which one counts.
//!
//! A record is its length, a checksum, and bytes this module does not read. A new one goes into the place that does
//! not count, and only then one word, the number of the record, is stored: a process killed at any store before it
//! leaves the record before, whole. The number's parity says which place it is in; zero says that there is none.

use super::header::{self, fnv};
use crate::lines::{LINE, Lines, WORDS};
use crate::sync::Ordering;

/// Lines of one record: 3 MiB. A directory at every limit of [`crate::limits`] needs 2.3 MiB.
pub(super) const RECORD_LINES: usize = (3 << 20) / LINE;

/// Bytes of a record's content at most.
pub const MAX_BYTES: usize = RECORD_LINES * LINE - LINE;

/// Why there is no directory. A clause: "the directory in FILE …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Nothing was saved.
    #[error("was never written: nothing had been configured")]
    None,
    /// Its length or checksum is wrong.
    #[error("is damaged")]
    Damaged,
    /// It does not fit.
    #[error("would need {0} bytes, more than the {MAX_BYTES} there are")]
    TooLarge(usize),
}

/// First word of the place of the record with this number.
fn place(number: u64) -> usize {
    let second = usize::from(number.is_multiple_of(2));
    (header::LINES + second * RECORD_LINES) * WORDS
}

/// Saves a record.
pub(super) fn save(lines: &Lines, bytes: &[u8]) -> Result<(), RecordError> {
    let counts = lines.word(header::RECORD).ok_or(RecordError::Damaged)?;
    if bytes.len() > MAX_BYTES {
        // What cannot be written down must not be read as what was before.
        counts.store(0, Ordering::Release);
        return Err(RecordError::TooLarge(bytes.len()));
    }
    let number = counts.load(Ordering::Relaxed).wrapping_add(1);
    let first = place(number);
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let head = [length, checksum(number, bytes)];
    let (whole, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let last = (!rest.is_empty()).then_some(&last);
    let content = whole.iter().chain(last).map(|bytes| u64::from_le_bytes(*bytes));
    let indices = (first..first + 2).chain(first + WORDS..);
    for (index, value) in indices.zip(head.into_iter().chain(content)) {
        if let Some(word) = lines.word(index) {
            word.store(value, Ordering::Relaxed);
        }
    }
    // Release: whoever finds the number finds the record.
    counts.store(number, Ordering::Release);
    Ok(())
}

/// The record that counts.
pub(super) fn load(lines: &Lines) -> Result<Vec<u8>, RecordError> {
    let word = |index: usize| lines.word(index).map(|word| word.load(Ordering::Acquire));
    let number = word(header::RECORD).ok_or(RecordError::Damaged)?;
    if number == 0 {
        return Err(RecordError::None);
    }
    let first = place(number);
    let (length, sum) = word(first).zip(word(first + 1)).ok_or(RecordError::Damaged)?;
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_BYTES);
    let length = length.ok_or(RecordError::Damaged)?;
    let content = (0..length.div_ceil(8)).filter_map(|index| word(first + WORDS + index));
    let mut bytes: Vec<u8> = content.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(length);
    if checksum(number, &bytes) == sum { Ok(bytes) } else { Err(RecordError::Damaged) }
}

/// Over number, length and content.
fn checksum(number: u64, bytes: &[u8]) -> u64 {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    fnv([number, length].into_iter().flat_map(u64::to_le_bytes).chain(bytes.iter().copied()))
}
