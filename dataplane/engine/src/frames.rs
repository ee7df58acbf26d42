//! What the engine asks of a burst of frames: bytes, a little room in front, a shorter end, and a whole new content.
//!
//! A frame may lie in several segments, as jumbo frames do in mbufs: [`Frames::bytes`] is the first, which must hold
//! every header, and [`Frames::wire_len`] is the length of all. Whatever reads or changes more than headers must say
//! what it does when that is not at hand.
//!
//! `dataplane` implements this over mbufs, tests and `replay` over vectors, so the same pipeline runs on ports,
//! in tests and on capture files. Indices run from 0 to `len()`; past that every method is empty or does nothing,
//! so that no caller's mistake can panic a worker.

/// A burst of Ethernet frames, at most [`ipc::limits::BURST`].
pub trait Frames {
    /// How many frames the burst holds.
    fn len(&self) -> usize;

    /// Whether the burst is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame's bytes, from the Ethernet header on. Of a frame in several segments, the first: the rest cannot be
    /// read or written here, and goes along as it is.
    fn bytes(&self, index: usize) -> &[u8];

    /// The same, to be rewritten in place.
    fn bytes_mut(&mut self, index: usize) -> &mut [u8];

    /// Bytes of the whole frame on the wire, all segments.
    fn wire_len(&self, index: usize) -> usize;

    /// Grows the frame by `count` bytes in front and returns its bytes, as [`Self::bytes_mut`] does; `None` where there is no headroom,
    /// and then nothing changed. The new bytes hold anything.
    fn prepend(&mut self, index: usize, count: usize) -> Option<&mut [u8]>;

    /// Cuts the frame to its first `len` bytes; one that is not longer, or in several segments, stays as it is.
    fn truncate(&mut self, index: usize, len: usize);

    /// Puts these bytes in place of the whole frame, whose other segments go; `false`, and nothing changed, where
    /// they do not fit the first segment's buffer.
    fn replace(&mut self, index: usize, bytes: &[u8]) -> bool;

    /// Asks the CPU to have the frame's first cache lines at hand soon, and the one before them, where outer headers go.
    fn prefetch(&self, index: usize);
}

/// The places that a mask of a burst names, in order.
#[inline]
pub fn places(mut mask: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let place = mask.trailing_zeros() as usize;
        // Wraps where the mask is empty, and then nothing comes of it.
        let next = mask & mask.wrapping_sub(1);
        let is_there = mask != 0;
        mask = next;
        is_there.then_some(place)
    })
}

/// Frames in vectors: for `replay`, tests and benches that do not measure.
#[derive(Debug, Default)]
pub struct VecFrames {
    frames: Vec<VecFrame>,
}

/// One frame in a vector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VecFrame {
    /// The bytes at hand, from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// Bytes of the frame beyond those: a capture may have cut it.
    pub missing: usize,
}

impl VecFrames {
    /// A burst of whole frames.
    pub fn new(frames: Vec<Vec<u8>>) -> Self {
        frames.into_iter().map(|bytes| VecFrame { bytes, missing: 0 }).collect()
    }

    /// The frames as they are now.
    pub fn into_inner(self) -> Vec<VecFrame> {
        self.frames
    }
}

impl FromIterator<VecFrame> for VecFrames {
    fn from_iter<I: IntoIterator<Item = VecFrame>>(frames: I) -> Self {
        Self { frames: frames.into_iter().collect() }
    }
}

impl Frames for VecFrames {
    fn len(&self) -> usize {
        self.frames.len()
    }

    fn bytes(&self, index: usize) -> &[u8] {
        self.frames.get(index).map_or(&[], |frame| &frame.bytes)
    }

    fn bytes_mut(&mut self, index: usize) -> &mut [u8] {
        self.frames.get_mut(index).map_or(&mut [], |frame| &mut frame.bytes)
    }

    fn wire_len(&self, index: usize) -> usize {
        self.frames.get(index).map_or(0, |frame| frame.bytes.len() + frame.missing)
    }

    fn prepend(&mut self, index: usize, count: usize) -> Option<&mut [u8]> {
        let frame = self.frames.get_mut(index)?;
        frame.bytes.splice(0..0, core::iter::repeat_n(0, count));
        Some(&mut frame.bytes)
    }

    fn truncate(&mut self, index: usize, len: usize) {
        if let Some(frame) = self.frames.get_mut(index).filter(|frame| frame.missing == 0) {
            frame.bytes.truncate(len);
        }
    }

    fn replace(&mut self, index: usize, bytes: &[u8]) -> bool {
        let Some(frame) = self.frames.get_mut(index) else {
            return false;
        };
        *frame = VecFrame { bytes: bytes.to_vec(), missing: 0 };
        true
    }

    fn prefetch(&self, _index: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_grows_in_front_shrinks_behind_and_is_replaced_whole() {
        let mut frames = VecFrames::new(vec![vec![1, 2, 3, 4]]);
        let grown = frames.prepend(0, 2).unwrap();
        assert_eq!((grown.len(), &grown[2..]), (6, &[1, 2, 3, 4][..]));
        frames.truncate(0, 5);
        frames.truncate(0, 9);
        assert_eq!(frames.wire_len(0), 5);
        assert!(frames.replace(0, &[9]));
        assert_eq!(frames.into_inner(), [VecFrame { bytes: vec![9], missing: 0 }]);
    }

    #[test]
    fn a_frame_that_the_capture_cut_is_as_long_as_it_was_and_is_not_cut_again() {
        let mut frames: VecFrames = [VecFrame { bytes: vec![1, 2], missing: 8 }].into_iter().collect();
        assert_eq!((frames.bytes(0), frames.wire_len(0)), (&[1, 2][..], 10));
        frames.truncate(0, 1);
        assert_eq!(frames.wire_len(0), 10);
    }

    #[test]
    fn past_the_end_there_is_nothing() {
        let mut frames = VecFrames::new(vec![]);
        assert!(frames.is_empty() && frames.bytes(0).is_empty() && frames.bytes_mut(3).is_empty());
        assert!(frames.prepend(0, 1).is_none() && !frames.replace(0, &[1]));
        frames.truncate(0, 0);
        frames.prefetch(7);
        assert_eq!(frames.wire_len(0), 0);
    }
}
