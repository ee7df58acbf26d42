//! The first page of the tables' file: what it is, the secret key, and the heartbeat.
//!
//! Line 0 and half of line 1 are written once, their checksum last, and read from the file before anything is
//! mapped. The heartbeat and the number of the record that counts have lines of their own: each is one word, so a
//! kill leaves it as it was or as it is to be.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Shape, TABLE_LAYOUT, TABLE_MAGIC, Unkept};
use crate::boot;
use crate::lines::{LINE, Lines, WORDS};
use crate::sync::Ordering;

/// Lines of the header's page.
pub(super) const LINES: usize = 4096 / LINE;

/// Words under the checksum, which follows them.
const FIELDS: usize = 12;

/// The heartbeat's word: seconds of CLOCK_BOOTTIME.
const ALIVE: usize = 2 * WORDS;

/// The word that says which record counts.
pub(super) const RECORD: usize = 3 * WORDS;

/// The key both tables are hashed under. Whoever knows it can aim at one line of a table, so it is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u64; 4]);

impl Secret {
    /// A new one, from the system.
    pub(super) fn random() -> rustix::io::Result<Secret> {
        let mut words = [0; 4];
        for word in &mut words {
            let mut bytes = [0; 8];
            let mut filled = 0;
            while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
            }
            *word = u64::from_le_bytes(bytes);
        }
        Ok(Secret(words))
    }

    /// Its bytes, for the tables.
    pub fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *to = word.to_le_bytes();
        }
        bytes
    }
}

/// Not the key: what is printed by accident shows nothing.
impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret")
    }
}

/// What a header says, once it is believed.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) bytes: u64,
    pub(super) flow_lines: usize,
    pub(super) token_lines: usize,
    pub(super) created_ns: u64,
    pub(super) secret: Secret,
}

/// Writes the header of new memory, checksum last, and the first heartbeat.
pub(super) fn write(lines: &Lines, shape: &Shape, secret: &Secret, now_ns: u64) {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let ([boot0, boot1], [key0, key1, key2, key3]) = (boot::id(), secret.0);
    let bytes = count(lines.len() * LINE);
    let fields: [u64; FIELDS] = [
        TABLE_MAGIC,
        TABLE_LAYOUT,
        bytes,
        count(shape.flow_lines),
        count(shape.token_lines),
        now_ns,
        boot0,
        boot1,
        key0,
        key1,
        key2,
        key3,
    ];
    beat(lines, now_ns / super::SECOND);
    for (index, value) in fields.into_iter().chain([checksum(&fields)]).enumerate() {
        if let Some(word) = lines.word(index) {
            // Release: whoever finds the checksum finds what it is of.
            word.store(value, Ordering::Release);
        }
    }
}

/// Reads a header from its file, once, and says what is wrong with it.
pub(super) fn read(file: &File, path: &Path) -> Result<Known, Unkept> {
    let mut page = [0; 8 * (FIELDS + 1)];
    let damaged = || Unkept::Header { path: path.to_owned() };
    if file.read_exact_at(&mut page, 0).is_err() {
        let found = file.metadata().map_or(0, |metadata| metadata.len());
        let expected = u64::try_from(LINES * LINE).unwrap_or(u64::MAX);
        return Err(Unkept::Size { path: path.to_owned(), found, expected });
    }
    let mut words = [0; FIELDS + 1];
    for (word, bytes) in words.iter_mut().zip(page.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let [fields @ .., sum] = words;
    let [magic, layout, bytes, flow_lines, token_lines, created_ns, boot0, boot1, key @ ..] = fields;
    if magic != TABLE_MAGIC {
        return Err(damaged());
    }
    // Before the checksum, which another layout may have elsewhere.
    if layout != TABLE_LAYOUT {
        return Err(Unkept::Layout { path: path.to_owned(), theirs: layout });
    }
    if sum != checksum(&fields) {
        return Err(damaged());
    }
    if [boot0, boot1] != boot::id() {
        return Err(Unkept::Boot { path: path.to_owned() });
    }
    let lines = |number: u64| usize::try_from(number).map_err(|_| damaged());
    let (flow_lines, token_lines) = (lines(flow_lines)?, lines(token_lines)?);
    Ok(Known { bytes, flow_lines, token_lines, created_ns, secret: Secret(key) })
}

/// Writes the heartbeat.
pub(super) fn beat(lines: &Lines, now: u64) {
    if let Some(word) = lines.word(ALIVE) {
        word.store(now, Ordering::Relaxed);
    }
}

/// The last heartbeat.
pub(super) fn last_alive(lines: &Lines) -> u64 {
    lines.word(ALIVE).map_or(0, |word| word.load(Ordering::Relaxed))
}

/// Of the header's words: against a header half written, not against an adversary.
pub(super) fn checksum(words: &[u64]) -> u64 {
    fnv(words.iter().flat_map(|word| word.to_le_bytes()))
}

/// FNV-1a.
pub(super) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
