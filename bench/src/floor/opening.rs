//! The floor of what opens something: the same loop, and what no design can do without that keeps flows and tokens where
//! several workers find them.
//!
//! A SYN takes a slot of its flow's line: one compare-exchange, two stores, and the fence without which two workers could
//! enter one flow twice. A join reads its token's line first; one whose token nobody knows reads it and is dropped. A third
//! ACK is hashed (SHA-256, RFC 8684 section 3.1), finds its flow, enters its token by a compare-exchange and a fence, and
//! writes so into its flow's slot. Left out is all that makes it right: options are read at fixed places, the slot is
//! taken whatever it holds, no other line is looked at, nothing is counted, limited or aged, and the hash is the one of
//! [`super`].

use std::hint::black_box;

use ipc::limits::BURST;
use ipc::lines::{Line, Lines, prefetch_read};
use ipc::sync::{AtomicU64, Ordering, fence};
use packet::{Family, Key, Token, Version, ethernet, ipv4, ipv6, tcp};

use super::{BACKENDS, OUTERS, Outer, folded, frame_of, hash_v4, hash_v6, outers, scale, send};
use crate::arena::{Burst, HELD};
use crate::measure::Path;
use crate::world::touched;

/// A SYN.
const SYN: u8 = 1;
/// A join of a known token.
const JOIN: u8 = 2;
/// A join of a token that nobody knows.
const UNKNOWN: u8 = 3;
/// A third ACK.
const KEY: u8 = 4;

/// Where a join's token begins in Linux's options, and where the server's key does.
const TOKEN_AT: usize = 24;
const KEY_AT: usize = 24;

/// A slot that somebody is writing.
const BUSY: u64 = 1;

/// Tables as large as the engine's, and the outer headers.
#[derive(Debug)]
pub struct OpeningFloor {
    flows: Lines,
    tokens: Lines,
    outers: Box<[Outer; OUTERS]>,
    family: Family,
    hashes: [(u64, u64, u32); BURST],
    what: u8,
}

impl OpeningFloor {
    /// For SYNs; with so many lines of flows and of tokens.
    pub fn new(flows: usize, tokens: usize, family: Family) -> Self {
        let hashes = [(0, 0, 0); BURST];
        Self {
            flows: touched(flows),
            tokens: touched(tokens),
            outers: outers(family),
            family,
            hashes,
            what: SYN,
        }
    }

    /// For joins, of known tokens or not.
    #[must_use]
    pub fn of_joins(self, known: bool) -> Self {
        Self { what: if known { JOIN } else { UNKNOWN }, ..self }
    }

    /// For third ACKs.
    #[must_use]
    pub fn of_keys(self) -> Self {
        Self { what: KEY, ..self }
    }

    #[inline]
    fn run<const WHAT: u8, const V6: bool>(&mut self, frames: &mut Burst<'_>) {
        let Self { flows, tokens, outers, hashes, .. } = self;
        let places = frames.places.get_mut(..frames.count).unwrap_or_default();
        for (seen, place) in hashes.iter_mut().zip(&*places) {
            let Some(buffer) = frames.buffers.get(place.buffer as usize) else { continue };
            *seen = see::<WHAT, V6>(frame_of(&buffer.0));
            if WHAT != UNKNOWN {
                ask(flows, seen.0);
            }
            if WHAT != SYN {
                ask(tokens, seen.1);
            }
        }
        for (seen, place) in hashes.iter_mut().zip(places) {
            let (hash, token_hash, token) = *seen;
            let mut backend = scale(hash.rotate_left(32), BACKENDS);
            if WHAT == JOIN || WHAT == UNKNOWN {
                backend = at(tokens, token_hash).map_or(0, |line| owner(line, token));
            }
            if WHAT == UNKNOWN {
                seen.2 = u32::from(backend != 0);
                continue;
            }
            if WHAT == KEY {
                enter_token(at(tokens, token_hash), token_hash, token, backend);
            }
            enter_flow(at(flows, hash), hash, backend, WHAT == KEY);
            send::<V6>(frames.buffers, place, &outers[backend % OUTERS]);
        }
        black_box(&*hashes);
    }
}

impl Path for OpeningFloor {
    #[inline]
    fn burst(&mut self, frames: &mut Burst<'_>) {
        match (self.what, self.family) {
            (SYN, Family::V4) => self.run::<SYN, false>(frames),
            (SYN, Family::V6) => self.run::<SYN, true>(frames),
            (JOIN, Family::V4) => self.run::<JOIN, false>(frames),
            (JOIN, Family::V6) => self.run::<JOIN, true>(frames),
            (UNKNOWN, Family::V4) => self.run::<UNKNOWN, false>(frames),
            (UNKNOWN, Family::V6) => self.run::<UNKNOWN, true>(frames),
            (_, Family::V4) => self.run::<KEY, false>(frames),
            (_, Family::V6) => self.run::<KEY, true>(frames),
        }
    }
}

/// The hash of a frame's flow, that of its token, and the token.
#[inline(always)]
fn see<const WHAT: u8, const V6: bool>(frame: &[u8; HELD]) -> (u64, u64, u32) {
    let hash = if V6 { hash_v6(frame) } else { hash_v4(frame) };
    let ip = if V6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
    let options = ethernet::HEADER_LEN + ip + tcp::HEADER_LEN;
    let token = match WHAT {
        SYN => return (hash, 0, 0),
        KEY => {
            let key = frame[options + KEY_AT..].first_chunk().copied().unwrap_or_default();
            Token::from_key(Version::V1, &Key(key)).0
        }
        _ => u32::from_be_bytes(frame[options + TOKEN_AT..].first_chunk().copied().unwrap_or_default()),
    };
    (hash, folded(u64::from(token) ^ super::KEYS[0], super::KEYS[2]), token)
}

/// The line of a hash.
#[inline(always)]
fn at(lines: &Lines, hash: u64) -> Option<&Line> {
    lines.get(scale(hash, lines.len()))
}

#[inline(always)]
fn ask(lines: &Lines, hash: u64) {
    if let Some(line) = at(lines, hash) {
        prefetch_read(line);
    }
}

/// The backend of a token in its line, or one that its slot number stands for. Without branches.
#[inline(always)]
fn owner(line: &Line, token: u32) -> usize {
    let found = line.0.iter().enumerate().fold(0, |found, (slot, word)| {
        let matches = word.load(Ordering::Acquire) >> 32 == u64::from(token);
        if matches { slot } else { found }
    });
    found % BACKENDS
}

/// Takes one of a line's slots for a flow; of a known one, writes its second word only.
#[inline(always)]
fn enter_flow(line: Option<&Line>, hash: u64, backend: usize, is_known: bool) {
    let pairs = line.map_or(&[][..], |line| line.0.as_chunks::<2>().0);
    let Some([a, b]) = pairs.get((hash & 3) as usize) else { return };
    let value = (backend as u64) << 32 | hash >> 40 << 8;
    if is_known {
        exchange(b, value);
        return;
    }
    if exchange(b, BUSY) {
        a.store(hash, Ordering::Release);
        b.store(value, Ordering::Release);
        fence(Ordering::SeqCst);
    }
}

/// Takes one of a line's slots for a token.
#[inline(always)]
fn enter_token(line: Option<&Line>, hash: u64, token: u32, backend: usize) {
    let Some(word) = line.and_then(|line| line.0.get((hash & 7) as usize)) else { return };
    exchange(word, u64::from(token) << 32 | (backend as u64) << 16);
    fence(Ordering::SeqCst);
}

/// One compare-exchange from what the word holds.
#[inline(always)]
fn exchange(word: &AtomicU64, to: u64) -> bool {
    let held = word.load(Ordering::Relaxed);
    word.compare_exchange(held, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}
