//! The floor: what a packet costs when almost nothing is done with it, as fast as safe code can be made to do it.
//!
//! Why it exists: nanoseconds are those of one machine on one day. The distance to this loop, measured in the same
//! rounds on the same frames, says how much of the engine's time is the engine's own doing. So it must be as fast as it
//! can be made, and honest about what it leaves out: it takes every packet for one of its one service, reads fixed
//! offsets (Ethernet, IPv4 or IPv6 without options, TCP), walks no options, counts nothing, forgets nothing, learns
//! nothing, and looks into one line of its table, whatever that holds.
//!
//! What opens something has a floor of its own: [`opening`].
//!
//! Three depths: parse and hash; one 64-byte line of a table as large as the engine's, prefetched for the whole burst;
//! and the rewrite, IP in IP to one of as many backends.

pub mod opening;

use std::hint::black_box;

use ipc::limits::BURST;
use ipc::lines::prefetch_bytes;
use packet::{Family, checksum, ethernet, ipv4, ipv6};

use crate::arena::{BUFFER, Burst, HEADROOM, HELD, Held, Place};
use crate::measure::{Path, Traffic};
use crate::number::float;
use crate::world::HUGE_LINES;

/// Parse and hash.
pub const HASH: u8 = 1;
/// And one line of the table.
pub const LINE: u8 = 2;
/// And the rewrite.
pub const REWRITE: u8 = 3;

/// Entries in a line: a word that is the flow's hash, a word that says where it goes.
const SLOTS: usize = 4;

/// Backends.
const BACKENDS: usize = 100;

/// Room for the outer headers of all backends, so that an index needs no check.
const OUTERS: usize = 128;

/// How many frames ahead a cold one is asked for.
const AHEAD: usize = 12;

/// The keys of the hash: any odd numbers.
const KEYS: [u64; 5] = [
    0x9e37_79b9_7f4a_7c15,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0x27d4_eb2f_1656_67c5,
    0x85eb_ca77_c2b2_ae63,
];

/// A line of the table: four hashes, then four backends.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Line {
    #[inline(always)]
    fn words(&self) -> [u64; 8] {
        let words = self.0.as_chunks::<8>().0;
        core::array::from_fn(|index| words.get(index).map_or(0, |word| u64::from_le_bytes(*word)))
    }

    fn put(&mut self, word: usize, value: u64) {
        if let Some(to) = self.0.as_chunks_mut::<8>().0.get_mut(word) {
            *to = value.to_le_bytes();
        }
    }
}

/// What is put before a packet to a backend: the Ethernet header and the outer IP header.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Outer {
    bytes: [u8; 60],
    /// Partial sum of the IPv4 header without its length.
    sum: u32,
}

/// The table and the outer headers.
#[derive(Debug)]
pub struct Floor {
    lines: Vec<Line>,
    outers: Box<[Outer; OUTERS]>,
    family: Family,
    learned: u64,
    placed: u64,
}

impl Floor {
    /// An empty table of so many lines, for packets of one family.
    pub fn new(lines: usize, family: Family) -> Self {
        // As the engine's, a small table lies on a huge page too.
        let mut table = Vec::with_capacity(lines.max(HUGE_LINES));
        table.resize(lines.max(1), Line([0; 64]));
        Self { lines: table, outers: outers(family), family, learned: 0, placed: 0 }
    }

    /// Enters the flows of so many packets. One whose line is full stays out: its packets cost as much and go to a
    /// backend that the hash alone decides.
    pub fn learn(&mut self, traffic: &mut dyn Traffic, packets: usize) {
        let mut frame = Held::default();
        for _ in 0..packets {
            traffic.next(&mut frame);
            let hash = match self.family {
                Family::V4 => hash_v4(&frame.0),
                Family::V6 => hash_v6(&frame.0),
            };
            self.enter(hash);
        }
    }

    fn enter(&mut self, hash: u64) {
        self.learned += 1;
        let index = scale(hash, self.lines.len());
        let Some(line) = self.lines.get_mut(index) else { return };
        let words = line.words();
        let Some(slot) =
            (0..SLOTS).find(|slot| words.get(*slot).is_some_and(|held| *held == hash || *held == 0))
        else {
            return;
        };
        line.put(slot, hash);
        line.put(SLOTS + slot, scale(hash.rotate_left(32), BACKENDS) as u64);
        self.placed += 1;
    }

    /// The share of the packets learned from whose flows are in the table.
    pub fn hit_rate(&self) -> f64 {
        float(self.placed) / float(self.learned.max(1))
    }

    /// The family its packets are of.
    pub const fn family(&self) -> Family {
        self.family
    }
}

/// What is put before a packet to each backend.
fn outers(family: Family) -> Box<[Outer; OUTERS]> {
    Box::new(core::array::from_fn(|backend| Outer::new(backend % BACKENDS, family)))
}

impl Outer {
    fn new(backend: usize, family: Family) -> Self {
        let number = u8::try_from(backend).unwrap_or(0);
        let mut bytes = [0; 60];
        bytes[..12].copy_from_slice(&[2, 0, 0, 1, 0, number, 2, 0, 0, 0, 2, 1]);
        let ethertype = match family {
            Family::V4 => ethernet::IPV4,
            Family::V6 => ethernet::IPV6,
        };
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        let mut sum = 0;
        match family {
            Family::V4 => {
                let header = [
                    0x45,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0x40,
                    0,
                    64,
                    ipv4::IPV4_INSIDE,
                    0,
                    0,
                    10,
                    0,
                    0,
                    1,
                    10,
                    0,
                    1,
                    number,
                ];
                bytes[14..34].copy_from_slice(&header);
                sum = u32::try_from(checksum::sum(&header)).unwrap_or(0);
            }
            Family::V6 => {
                bytes[14] = 0x60;
                (bytes[20], bytes[21]) = (ipv4::IPV6_INSIDE, 64);
                (bytes[22], bytes[37]) = (0xfd, 1);
                (bytes[38], bytes[53]) = (0xfd, number);
            }
        }
        Self { bytes, sum }
    }
}

/// One depth of the floor, for one family, on frames that are cold or not.
#[derive(Debug)]
pub struct FloorPath<'a, const DEPTH: u8, const V6: bool, const COLD: bool> {
    floor: &'a Floor,
    hashes: [u64; BURST],
}

impl<'a, const DEPTH: u8, const V6: bool, const COLD: bool> FloorPath<'a, DEPTH, V6, COLD> {
    /// Ready to run.
    pub const fn new(floor: &'a Floor) -> Self {
        Self { floor, hashes: [0; BURST] }
    }
}

impl<const DEPTH: u8, const V6: bool, const COLD: bool> Path for FloorPath<'_, DEPTH, V6, COLD> {
    #[inline]
    fn burst(&mut self, frames: &mut Burst<'_>) {
        let Self { floor, hashes } = self;
        let lines = floor.lines.as_slice();
        let places = frames.places.get_mut(..frames.count).unwrap_or_default();
        if COLD {
            places.iter().take(AHEAD).for_each(|place| ask::<DEPTH>(frames.buffers, place));
        }
        for (index, hash) in hashes.iter_mut().enumerate().take(places.len()) {
            if COLD && let Some(place) = places.get(index + AHEAD) {
                ask::<DEPTH>(frames.buffers, place);
            }
            let buffer = places.get(index).and_then(|place| frames.buffers.get(place.buffer as usize));
            let Some(buffer) = buffer else { continue };
            let frame = frame_of(&buffer.0);
            *hash = if V6 { hash_v6(frame) } else { hash_v4(frame) };
            if DEPTH >= LINE
                && let Some(line) = lines.get(scale(*hash, lines.len()))
            {
                prefetch_bytes(&line.0);
            }
        }
        if DEPTH == HASH {
            black_box(&*hashes);
            return;
        }
        for (hash, place) in hashes.iter_mut().zip(places) {
            let Some(line) = lines.get(scale(*hash, lines.len())) else { continue };
            let backend = find(line, *hash);
            if DEPTH == LINE {
                *hash = backend as u64;
                continue;
            }
            send::<V6>(frames.buffers, place, &floor.outers[backend % OUTERS]);
        }
        black_box(&*hashes);
    }
}

/// Puts the outer headers before a frame.
#[inline(always)]
fn send<const V6: bool>(buffers: &mut [crate::arena::Buffer], place: &mut Place, outer: &Outer) {
    let Some(buffer) = buffers.get_mut(place.buffer as usize) else { return };
    let overhead = if V6 { rewrite_v6(&mut buffer.0, outer) } else { rewrite_v4(&mut buffer.0, outer) };
    *place = Place {
        buffer: place.buffer,
        start: place.start - overhead,
        len: place.len + overhead,
        wire: place.wire + u32::from(overhead),
    };
}

/// Asks for the lines of a frame that will be read or written.
#[inline(always)]
fn ask<const DEPTH: u8>(buffers: &[crate::arena::Buffer], place: &Place) {
    let Some(buffer) = buffers.get(place.buffer as usize) else { return };
    prefetch_bytes(&buffer.0[HEADROOM..]);
    if DEPTH == REWRITE {
        prefetch_bytes(&buffer.0[HEADROOM - 64..]);
    }
}

/// A received frame's first bytes.
#[inline(always)]
fn frame_of(buffer: &[u8; BUFFER]) -> &[u8; HELD] {
    let frame = buffer[HEADROOM..].first_chunk();
    frame.unwrap_or(&[0; HELD])
}

/// Eight bytes at a constant place.
#[inline(always)]
fn word<const AT: usize>(frame: &[u8; HELD]) -> u64 {
    frame[AT..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Four bytes at a constant place.
#[inline(always)]
fn half<const AT: usize>(frame: &[u8; HELD]) -> u64 {
    frame[AT..].first_chunk().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)))
}

/// Whole TCP over IPv4 without options, or zero; else the hash of addresses and ports.
#[inline(always)]
fn hash_v4(frame: &[u8; HELD]) -> u64 {
    // Ethernet type 0x0800, version 4 and five words; no fragment, protocol 6.
    let odd =
        ((word::<12>(frame) & 0xff_ffff) ^ 0x45_0008) | ((half::<20>(frame) & 0xff00_ff3f) ^ 0x0600_0000);
    if odd != 0 {
        return 0;
    }
    folded(word::<26>(frame) ^ KEYS[0], half::<34>(frame) ^ KEYS[1])
}

/// TCP over IPv6 without extension headers, or zero; else the hash of addresses and ports.
#[inline(always)]
fn hash_v6(frame: &[u8; HELD]) -> u64 {
    // Ethernet type 0x86dd and version 6; next header 6.
    let odd = ((half::<12>(frame) & 0xf0_ffff) ^ 0x60_dd86) | u64::from(frame[20] ^ 6);
    if odd != 0 {
        return 0;
    }
    let source = folded(word::<22>(frame) ^ KEYS[0], word::<30>(frame) ^ KEYS[1]);
    let destination = folded(word::<38>(frame) ^ KEYS[2], word::<46>(frame) ^ KEYS[3]);
    folded(source ^ destination ^ half::<54>(frame), KEYS[4])
}

/// Both halves of a product, folded into one.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
const fn folded(one: u64, other: u64) -> u64 {
    let product = one as u128 * other as u128;
    (product >> 64) as u64 ^ product as u64
}

/// A hash scaled to `0..size`.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the result is below size")]
const fn scale(hash: u64, size: usize) -> usize {
    ((hash as u128 * size as u128) >> 64) as usize
}

/// The backend of a flow, or of its hash where the line does not know it. Without branches.
#[inline(always)]
fn find(line: &Line, hash: u64) -> usize {
    let [h0, h1, h2, h3, b0, b1, b2, b3] = line.words();
    let mut backend = scale(hash.rotate_left(32), BACKENDS) as u64;
    backend = if h0 == hash { b0 } else { backend };
    backend = if h1 == hash { b1 } else { backend };
    backend = if h2 == hash { b2 } else { backend };
    backend = if h3 == hash { b3 } else { backend };
    usize::try_from(backend).unwrap_or(0)
}

/// Puts Ethernet and outer IPv4 headers before the packet; says by how much it has grown.
#[inline(always)]
fn rewrite_v4(buffer: &mut [u8; BUFFER], outer: &Outer) -> u16 {
    const GROWN: usize = ipv4::HEADER_LEN;
    let frame = frame_of(buffer);
    let len = u16::from_be_bytes([frame[16], frame[17]]).wrapping_add(20);
    let sum = !checksum::fold(u64::from(outer.sum) + u64::from(len));
    if let Some(to) = buffer[HEADROOM - GROWN..].first_chunk_mut::<34>() {
        to.copy_from_slice(&outer.bytes[..34]);
        to[16..18].copy_from_slice(&len.to_be_bytes());
        to[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    20
}

/// Puts Ethernet and outer IPv6 headers before the packet; says by how much it has grown.
#[inline(always)]
fn rewrite_v6(buffer: &mut [u8; BUFFER], outer: &Outer) -> u16 {
    const GROWN: usize = ipv6::HEADER_LEN;
    let frame = frame_of(buffer);
    let first = [frame[14], frame[15], frame[16], frame[17]];
    let len = u16::from_be_bytes([frame[18], frame[19]]).wrapping_add(40);
    if let Some(to) = buffer[HEADROOM - GROWN..].first_chunk_mut::<54>() {
        to.copy_from_slice(&outer.bytes[..54]);
        to[14..18].copy_from_slice(&first);
        to[18..20].copy_from_slice(&len.to_be_bytes());
    }
    40
}
