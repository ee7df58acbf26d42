//! How anything is measured here: the same frames, received the same way, through one path after the other.
//!
//! What a path costs is the time of receiving and judging less the time of receiving alone, both measured in the same
//! round on the same frames. Frames are written in pieces, outside the time that counts, so that no traffic needs to be
//! in memory as a whole. Rounds are interleaved: a slow spell of the machine meets all paths alike, and what is of
//! record is the ratio of two paths in one round.
//!
//! What counts is the interquartile mean: of the pieces of a pass, each some 30 microseconds, the quickest and the
//! slowest quarter are left out. A piece in which the kernel ran something else says nothing about the path.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ipc::limits::BURST;

use crate::alloc;
use crate::arena::{Buffer, Burst, HEADROOM, Held, Place, buffers};
use crate::number::float;
use crate::report::Row;
use crate::traffic::shuffled;

/// Frames that are timed together, and where they are copied in, written together: few enough to stay in the
/// second-level cache, enough to hide what reading the clock costs.
pub const PIECE: usize = 1024;

/// Buffers of the arena whose frames are cold: 300 MB, of which 24 MB are headers.
const ARENA: u32 = 1 << 17;

/// What frames are read from.
pub trait Traffic {
    /// Goes to where a pass begins, the same place for every path of a round.
    fn begin(&mut self, pass: u64);

    /// Writes the next frame and gives its length.
    fn next(&mut self, frame: &mut Held) -> usize;
}

/// What is done with a burst.
pub trait Path {
    /// Does it.
    fn burst(&mut self, frames: &mut Burst<'_>);
}

/// Nothing is done: what receiving costs by itself.
#[derive(Clone, Copy, Debug)]
pub struct Receive;

impl Path for Receive {
    #[inline]
    fn burst(&mut self, frames: &mut Burst<'_>) {
        black_box(frames);
    }
}

/// What a pass took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Time on the measured path, as if every piece had taken as long as the middle half of them did on average.
    pub time: Duration,
    /// Time on the measured path, whatever else happened in it.
    pub wall: Duration,
    /// Packets judged in it.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Allocations within the measured time.
    pub allocations: u64,
}

impl Pass {
    /// Nanoseconds a packet.
    pub fn ns(&self) -> f64 {
        if self.packets == 0 { 0.0 } else { self.time.as_secs_f64() * 1e9 / float(self.packets) }
    }

    /// This and another pass together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            time: self.time + other.time,
            wall: self.wall + other.wall,
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            allocations: self.allocations + other.allocations,
        }
    }
}

/// How frames reach a path.
#[derive(Debug)]
pub struct Feed {
    memory: Box<[Buffer]>,
    /// Frames written and not yet received; empty where they are written where they will be read.
    held: Vec<Held>,
    /// Of every frame of a piece, in the order in which they are received.
    places: Vec<Place>,
    /// The buffers in the order in which frames are received from them; empty where frames are copied in.
    order: Vec<u32>,
    /// Nanoseconds a packet of every piece of a pass.
    times: Vec<f64>,
    burst: usize,
}

impl Feed {
    /// Frames that are copied into the buffers of one burst, again and again: their headers are in the first-level
    /// cache when they are judged.
    pub fn copied(burst: usize) -> Self {
        Self {
            memory: buffers(BURST),
            held: vec![Held::default(); PIECE],
            places: Vec::with_capacity(PIECE),
            order: Vec::new(),
            times: Vec::new(),
            burst: burst.clamp(1, BURST),
        }
    }

    /// Frames that lie in an arena larger than the second-level cache, in random order, and are not copied.
    pub fn cold(burst: usize, seed: u64) -> Self {
        Self {
            memory: buffers(ARENA as usize),
            held: Vec::new(),
            places: Vec::with_capacity(ARENA as usize),
            order: shuffled(ARENA, seed),
            times: Vec::new(),
            burst: burst.clamp(1, BURST),
        }
    }

    /// Whether frames are read from a buffer larger than the second-level cache.
    pub fn is_cold(&self) -> bool {
        !self.order.is_empty()
    }

    /// Frames of a burst.
    pub fn burst(&self) -> usize {
        self.burst
    }

    /// Frames that are written at once.
    fn written(&self) -> usize {
        if self.is_cold() { self.order.len() } else { self.held.len() }
    }

    /// Frames that are copied in, and so many of them written beforehand: for threads that are to be measured at once.
    pub fn written_ahead(burst: usize, packets: usize) -> Self {
        Self { held: vec![Held::default(); packets], ..Self::copied(burst) }
    }

    /// Sends so many frames of a traffic through a path.
    pub fn pass<P: Path>(&mut self, traffic: &mut dyn Traffic, path: &mut P, packets: usize) -> Pass {
        let mut pass = Pass::default();
        self.times.clear();
        let mut left = packets;
        while left > 0 {
            let count = left.min(self.written());
            self.write(traffic, count);
            self.timed(path, &mut pass);
            left -= count;
        }
        self.settle(pass)
    }

    /// Sends what was written through a path.
    pub fn run<P: Path>(&mut self, path: &mut P) -> Pass {
        let mut pass = Pass::default();
        self.times.clear();
        self.timed(path, &mut pass);
        self.settle(pass)
    }

    /// What was written, piece by piece.
    fn timed<P: Path>(&mut self, path: &mut P, pass: &mut Pass) {
        let count = self.places.len();
        pass.packets += count as u64;
        pass.bytes += self.places.iter().map(|place| u64::from(place.wire)).sum::<u64>();
        for first in (0..count).step_by(PIECE) {
            let allocated = alloc::count();
            let begin = Instant::now();
            self.piece(path, first);
            let time = begin.elapsed();
            pass.allocations += alloc::count() - allocated;
            pass.wall += time;
            self.times.push(per_packet(time, PIECE.min(count - first)));
        }
    }

    /// The pass with the time that counts.
    fn settle(&mut self, pass: Pass) -> Pass {
        let seconds = middle_mean(&mut self.times) * float(pass.packets) / 1e9;
        Pass { time: Duration::from_secs_f64(seconds), ..pass }
    }

    /// Writes the next frames, in the order in which they will be received: then those received first were written
    /// first, and have left the caches again.
    pub fn write(&mut self, traffic: &mut dyn Traffic, count: usize) {
        self.places.clear();
        if self.order.is_empty() {
            for frame in self.held.iter_mut().take(count) {
                self.places.push(Place::received(0, traffic.next(frame)));
            }
            return;
        }
        let mut frame = Held::default();
        for number in self.order.iter().take(count) {
            let len = traffic.next(&mut frame);
            if let Some(buffer) = self.memory.get_mut(*number as usize) {
                let to = &mut buffer.0[HEADROOM..HEADROOM + frame.0.len()];
                for (to, from) in to.iter_mut().zip(&frame.0).take(len) {
                    *to = *from;
                }
            }
            self.places.push(Place::received(*number, len));
        }
    }

    /// The measured part: the piece that begins at this frame.
    #[inline(never)]
    fn piece<P: Path>(&mut self, path: &mut P, first: usize) {
        let mut burst = Burst::new(&mut self.memory);
        let places = self.places.get(first..).unwrap_or_default();
        let places = places.get(..PIECE).unwrap_or(places);
        if self.order.is_empty() {
            // Of frames written ahead, these; else there are no others.
            let held = self.held.get(first % self.held.len().max(1)..).unwrap_or_default();
            for (held, places) in held.chunks(self.burst).zip(places.chunks(self.burst)) {
                burst.copy_in(held, places);
                path.burst(&mut burst);
            }
        } else {
            for places in places.chunks(self.burst) {
                burst.take(places);
                path.burst(&mut burst);
            }
        }
    }
}

/// Nanoseconds a packet.
pub fn per_packet(time: Duration, packets: usize) -> f64 {
    time.as_secs_f64() * 1e9 / float(packets.max(1) as u64)
}

/// The mean of the middle half; zero of none.
pub fn middle_mean(figures: &mut [f64]) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    let quarter = figures.len() / 4;
    let middle = figures.get(quarter..figures.len() - quarter).unwrap_or_default();
    middle.iter().sum::<f64>() / float(middle.len().max(1) as u64)
}

/// The figures of several rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    /// One round's figure more.
    pub fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// As a row without a name.
    pub fn row(&self, unit: &str) -> Row {
        Row {
            unit: unit.to_owned(),
            median: self.median(),
            min: self.min(),
            max: self.max(),
            rounds: self.len() as u64,
            ..Row::default()
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The middle one, or the mean of the two in the middle; zero of none.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        if sorted.len() % 2 == 1 { at(half) } else { f64::midpoint(at(half.saturating_sub(1)), at(half)) }
    }

    /// The least; zero of none.
    pub fn min(&self) -> f64 {
        self.0.iter().copied().min_by(f64::total_cmp).unwrap_or_default()
    }

    /// The greatest; zero of none.
    pub fn max(&self) -> f64 {
        self.0.iter().copied().max_by(f64::total_cmp).unwrap_or_default()
    }

    /// Round by round, this divided by another.
    #[must_use]
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one / other).collect())
    }
}

impl FromIterator<f64> for Rounds {
    fn from_iter<I: IntoIterator<Item = f64>>(figures: I) -> Self {
        Self(figures.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::frames::Frames as _;

    /// Frames that are their own number.
    struct Numbers(u64);

    impl Traffic for Numbers {
        fn begin(&mut self, pass: u64) {
            self.0 = pass * 1000;
        }

        fn next(&mut self, frame: &mut Held) -> usize {
            frame.0[..8].copy_from_slice(&self.0.to_be_bytes());
            self.0 += 1;
            60
        }
    }

    /// Notes what it is shown, and spoils it.
    #[derive(Default)]
    struct Note {
        seen: Vec<u64>,
        bursts: Vec<usize>,
    }

    impl Path for Note {
        fn burst(&mut self, frames: &mut Burst<'_>) {
            self.bursts.push(frames.len());
            for index in 0..frames.len() {
                self.seen.push(u64::from_be_bytes(*frames.bytes(index).first_chunk().unwrap()));
                frames.prepend(index, 20).unwrap().fill(0xff);
            }
        }
    }

    #[test]
    fn every_frame_is_shown_once_in_order_however_it_is_received() {
        for mut feed in [Feed::copied(32), Feed::copied(1), Feed::cold(64, 1)] {
            let mut numbers = Numbers(0);
            for pass in [0, 3] {
                let mut note = Note::default();
                numbers.begin(pass);
                let done = feed.pass(&mut numbers, &mut note, 2500);
                assert_eq!((done.packets, done.bytes), (2500, 2500 * 60));
                assert!(note.seen.iter().copied().eq(pass * 1000..pass * 1000 + 2500));
                assert!(note.bursts.iter().all(|count| *count <= feed.burst()));
            }
        }
    }

    #[test]
    fn a_path_that_allocates_is_found_out_and_receiving_does_not() {
        let mut feed = Feed::copied(32);
        let done = feed.pass(&mut Numbers(0), &mut Note::default(), 1024);
        assert!(done.allocations > 0);
        assert_eq!(feed.pass(&mut Numbers(0), &mut Receive, 2000).allocations, 0);
    }

    #[test]
    fn pieces_in_which_something_else_ran_do_not_count() {
        assert!((middle_mean(&mut [30.0, 900.0, 31.0, 2.0, 29.0]) - 30.0).abs() < 1e-9);
        assert!((middle_mean(&mut [1.0, 3.0]) - 2.0).abs() < 1e-9);
        assert!(middle_mean(&mut []) == 0.0);
    }

    #[test]
    fn rounds_have_a_middle_and_ends_and_are_compared_one_by_one() {
        let rounds: Rounds = [3.0, 1.0, 2.0].into_iter().collect();
        assert_eq!((rounds.median(), rounds.min(), rounds.max()), (2.0, 1.0, 3.0));
        let even: Rounds = [4.0, 1.0, 2.0, 3.0].into_iter().collect();
        assert!((even.median() - 2.5).abs() < 1e-9);
        let ratio = rounds.over(&[1.5, 1.0, 4.0].into_iter().collect());
        assert_eq!(ratio, [2.0, 1.0, 0.5].into_iter().collect());
        assert!(Rounds::default().is_empty() && Rounds::default().median() == 0.0);
    }

    #[test]
    fn a_packets_share_of_a_pass_is_its_time_over_its_packets() {
        let pass = Pass { time: Duration::from_nanos(600), packets: 20, ..Pass::default() };
        assert!((pass.ns() - 30.0).abs() < 1e-9);
        assert!((pass.and(pass).ns() - 30.0).abs() < 1e-9 && pass.and(pass).packets == 40);
        assert!(Pass::default().ns() == 0.0);
    }
}
