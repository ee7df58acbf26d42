//! Frames in memory as a port's are: buffers of the size of an mbuf, with headroom, on huge pages.
//!
//! Why it exists: the engine is measured through its own [`Frames`], and what a frame costs to reach is part of what it
//! costs. [`Burst`] is to the bench what `dpdk::Burst` is to a worker: places that name buffers, a start that moves into
//! the headroom, a length. Two ways to fill one: frames copied into the same few buffers again and again, whose headers
//! are then in the first-level cache ([`Burst::copy_in`]), and frames that lie about in an arena larger than the
//! second-level cache ([`Burst::take`]).

use engine::frames::Frames;
use ipc::limits::BURST;
use ipc::lines::prefetch_bytes;

/// Bytes before a received frame, as DPDK's `RTE_PKTMBUF_HEADROOM`.
pub const HEADROOM: usize = 128;

/// Bytes of a buffer: headroom and 2048 for the frame, as `RTE_MBUF_DEFAULT_BUF_SIZE`, and 128 for what in DPDK is the
/// mbuf itself, so that the same lines of two buffers fall into the same sets of a cache as there.
pub const BUFFER: usize = HEADROOM + 2048 + 128;

/// Bytes of a frame that are kept of it at most: its headers. Nothing the engine does reads further.
pub const HELD: usize = 256;

/// Where a frame's buffer ends.
const END: usize = HEADROOM + 2048;

/// The room of one frame.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Buffer(pub [u8; BUFFER]);

impl Default for Buffer {
    fn default() -> Self {
        Self([0; BUFFER])
    }
}

/// Many buffers.
pub fn buffers(count: usize) -> Box<[Buffer]> {
    vec![Buffer::default(); count].into_boxed_slice()
}

/// The beginning of a frame that waits to be received.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Held(pub [u8; HELD]);

impl Default for Held {
    fn default() -> Self {
        Self([0; HELD])
    }
}

/// Where a frame of a burst is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Which buffer.
    pub buffer: u32,
    /// Where in it the frame begins.
    pub start: u16,
    /// Its bytes in the buffer.
    pub len: u16,
    /// Its bytes on the wire.
    pub wire: u32,
}

impl Place {
    /// A frame of this length, fresh from a port.
    #[expect(clippy::cast_possible_truncation, reason = "cut to the buffer first; frames are below 64 KiB")]
    pub fn received(buffer: u32, len: usize) -> Self {
        Self { buffer, start: HEADROOM as u16, len: len.min(END - HEADROOM) as u16, wire: len as u32 }
    }
}

/// A burst of frames in buffers.
#[derive(Debug)]
pub struct Burst<'a> {
    /// The buffers that places name.
    pub buffers: &'a mut [Buffer],
    /// The frames.
    pub places: [Place; BURST],
    /// How many.
    pub count: usize,
}

impl<'a> Burst<'a> {
    /// A burst without frames over these buffers.
    pub fn new(buffers: &'a mut [Buffer]) -> Self {
        Self { buffers, places: [Place::default(); BURST], count: 0 }
    }

    /// Receives frames by copying their beginnings into the first buffers. Their places say nothing else but their
    /// lengths.
    #[inline]
    pub fn copy_in(&mut self, frames: &[Held], places: &[Place]) {
        let room = self.buffers.iter_mut().zip(&mut self.places);
        let mut count = 0;
        for (number, ((buffer, place), (frame, from))) in (0..).zip(room.zip(frames.iter().zip(places))) {
            let lines = usize::from(from.len).min(HELD).div_ceil(64);
            let to = buffer.0[HEADROOM..HEADROOM + HELD].as_chunks_mut::<64>().0;
            for (to, from) in to.iter_mut().zip(frame.0.as_chunks::<64>().0).take(lines) {
                *to = *from;
            }
            *place = Place { buffer: number, ..*from };
            count += 1;
        }
        self.count = count;
    }

    /// Receives frames that lie in the buffers already.
    #[inline]
    pub fn take(&mut self, places: &[Place]) {
        self.count = places.len().min(BURST);
        for (place, from) in self.places.iter_mut().zip(places) {
            *place = *from;
        }
    }

    #[inline]
    fn place(&self, index: usize) -> Option<&Place> {
        self.places.get(..self.count)?.get(index)
    }
}

impl Frames for Burst<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.count
    }

    #[inline]
    fn bytes(&self, index: usize) -> &[u8] {
        let bytes = || {
            let place = self.place(index)?;
            let start = usize::from(place.start);
            self.buffers.get(place.buffer as usize)?.0.get(start..start + usize::from(place.len))
        };
        bytes().unwrap_or(&[])
    }

    #[inline]
    fn bytes_mut(&mut self, index: usize) -> &mut [u8] {
        let Some(place) = self.place(index) else { return &mut [] };
        let (start, len) = (usize::from(place.start), usize::from(place.len));
        let buffer = self.buffers.get_mut(place.buffer as usize);
        buffer.and_then(|buffer| buffer.0.get_mut(start..start + len)).unwrap_or(&mut [])
    }

    #[inline]
    fn wire_len(&self, index: usize) -> usize {
        self.place(index).map_or(0, |place| place.wire as usize)
    }

    #[inline]
    fn prepend(&mut self, index: usize, count: usize) -> Option<&mut [u8]> {
        let more = u16::try_from(count).ok()?;
        let place = self.places.get_mut(..self.count)?.get_mut(index)?;
        place.start = place.start.checked_sub(more)?;
        place.len += more;
        place.wire += u32::from(more);
        Some(self.bytes_mut(index))
    }

    #[inline]
    fn truncate(&mut self, index: usize, len: usize) {
        let Some(place) = self.places.get_mut(..self.count).and_then(|places| places.get_mut(index)) else {
            return;
        };
        if let Ok(len) = u16::try_from(len)
            && len < place.len
            && place.wire == u32::from(place.len)
        {
            place.len = len;
            place.wire = u32::from(len);
        }
    }

    #[inline]
    fn replace(&mut self, index: usize, bytes: &[u8]) -> bool {
        let Some(place) = self.places.get_mut(..self.count).and_then(|places| places.get_mut(index)) else {
            return false;
        };
        let Ok(len) = u16::try_from(bytes.len()) else { return false };
        if usize::from(place.start) + bytes.len() > END {
            return false;
        }
        (place.len, place.wire) = (len, u32::from(len));
        self.bytes_mut(index).copy_from_slice(bytes);
        true
    }

    #[inline]
    fn prefetch(&self, index: usize) {
        let Some(place) = self.place(index) else { return };
        let Some(buffer) = self.buffers.get(place.buffer as usize) else { return };
        // As `dpdk::Burst`: the line before the frame, where outer headers go, and its first two.
        let start = usize::from(place.start);
        for line in [start.saturating_sub(64), start, start + 64] {
            prefetch_bytes(buffer.0.get(line..).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy_in(burst: &mut Burst<'_>, frames: &[(usize, u8)]) {
        let held: Vec<Held> = frames.iter().map(|(_, byte)| Held([*byte; HELD])).collect();
        let places: Vec<Place> = frames.iter().map(|(len, _)| Place::received(77, *len)).collect();
        burst.copy_in(&held, &places);
    }

    #[test]
    fn a_frame_that_was_copied_in_grows_into_the_headroom_and_is_cut_and_replaced() {
        let mut memory = buffers(2);
        let mut burst = Burst::new(&mut memory);
        copy_in(&mut burst, &[(60, 1), (100, 2), (9, 3)]);
        assert_eq!(burst.len(), 2, "there are two buffers");
        assert_eq!((burst.bytes(0), burst.bytes(1)), (&[1; 60][..], &[2; 100][..]));
        let grown = burst.prepend(1, 20).unwrap();
        assert_eq!((grown.len(), &grown[20..]), (120, &[2; 100][..]));
        burst.truncate(1, 30);
        assert_eq!((burst.bytes(1).len(), burst.wire_len(1)), (30, 30));
        assert!(burst.prepend(1, 109).is_none() && burst.prepend(1, 108).is_some());
        assert!(burst.replace(0, &[9; 40]) && burst.bytes(0) == [9; 40]);
        assert!(!burst.replace(0, &[9; 2049]));
    }

    #[test]
    fn a_frame_longer_than_a_buffer_is_its_beginning_and_its_whole_length() {
        let mut memory = buffers(1);
        let mut burst = Burst::new(&mut memory);
        copy_in(&mut burst, &[(9000, 1)]);
        assert_eq!((burst.bytes(0).len(), burst.wire_len(0)), (2048, 9000));
        burst.truncate(0, 100);
        assert_eq!(burst.wire_len(0), 9000, "of several segments");
    }

    #[test]
    fn frames_that_lie_about_are_found_by_their_places_and_past_the_end_is_nothing() {
        let mut memory = buffers(3);
        memory[2].0[HEADROOM] = 7;
        let mut burst = Burst::new(&mut memory);
        burst.take(&[Place::received(2, 1), Place::received(5, 1)]);
        assert_eq!((burst.bytes(0), burst.bytes(1), burst.bytes(2)), (&[7][..], &[][..], &[][..]));
        assert!(burst.prepend(2, 1).is_none() && !burst.replace(2, &[1]) && burst.bytes_mut(2).is_empty());
        assert_eq!(burst.wire_len(2), 0);
        burst.truncate(2, 0);
        burst.prefetch(9);
    }
}
