//! Frames as mbufs have them: in fixed buffers with headroom, where nothing allocates, and in several segments.

use engine::frames::Frames;
use ipc::limits::BURST;

/// Bytes of a buffer, headroom included.
const BUFFER: usize = 2304;

/// A burst of frames in fixed buffers.
#[derive(Debug)]
pub struct FixedFrames {
    buffers: Vec<[u8; BUFFER]>,
    starts: [usize; BURST],
    ends: [usize; BURST],
    count: usize,
    headroom: usize,
}

impl FixedFrames {
    /// An empty burst whose frames will have this much room in front.
    pub fn new(headroom: usize) -> Self {
        Self { buffers: vec![[0; BUFFER]; BURST], starts: [0; BURST], ends: [0; BURST], count: 0, headroom }
    }

    /// Empties the burst.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Puts a frame behind the others.
    pub fn push(&mut self, frame: &[u8]) {
        let (start, end) = (self.headroom, self.headroom + frame.len());
        self.buffers[self.count][start..end].copy_from_slice(frame);
        (self.starts[self.count], self.ends[self.count]) = (start, end);
        self.count += 1;
    }
}

impl Frames for FixedFrames {
    fn len(&self) -> usize {
        self.count
    }

    fn bytes(&self, index: usize) -> &[u8] {
        if index < self.count { &self.buffers[index][self.starts[index]..self.ends[index]] } else { &[] }
    }

    fn bytes_mut(&mut self, index: usize) -> &mut [u8] {
        if index < self.count {
            &mut self.buffers[index][self.starts[index]..self.ends[index]]
        } else {
            &mut []
        }
    }

    fn wire_len(&self, index: usize) -> usize {
        self.bytes(index).len()
    }

    fn prepend(&mut self, index: usize, count: usize) -> Option<&mut [u8]> {
        let start = self.starts.get_mut(index)?;
        *start = start.checked_sub(count)?;
        Some(self.bytes_mut(index))
    }

    fn truncate(&mut self, index: usize, len: usize) {
        let end = self.starts[index] + len;
        self.ends[index] = self.ends[index].min(end);
    }

    fn replace(&mut self, index: usize, bytes: &[u8]) -> bool {
        let (start, end) = (self.headroom, self.headroom + bytes.len());
        let Some(room) = self.buffers[index].get_mut(start..end) else {
            return false;
        };
        room.copy_from_slice(bytes);
        (self.starts[index], self.ends[index]) = (start, end);
        true
    }

    fn prefetch(&self, _index: usize) {}
}

/// A burst of frames of which only the first bytes are at hand, as in mbufs of several segments.
#[derive(Debug)]
pub struct SegmentedFrames {
    frames: Vec<Segmented>,
}

#[derive(Debug)]
struct Segmented {
    first: Vec<u8>,
    rest: Vec<u8>,
}

impl SegmentedFrames {
    /// Frames whose first segment holds at most this many bytes.
    pub fn new(frames: &[Vec<u8>], first: usize) -> Self {
        let cut = |frame: &Vec<u8>| {
            let (first, rest) = frame.split_at(first.min(frame.len()));
            Segmented { first: first.to_vec(), rest: rest.to_vec() }
        };
        Self { frames: frames.iter().map(cut).collect() }
    }

    /// All bytes of a frame.
    pub fn whole(&self, index: usize) -> Vec<u8> {
        let frame = &self.frames[index];
        [frame.first.as_slice(), &frame.rest].concat()
    }
}

impl Frames for SegmentedFrames {
    fn len(&self) -> usize {
        self.frames.len()
    }

    fn bytes(&self, index: usize) -> &[u8] {
        self.frames.get(index).map_or(&[], |frame| &frame.first)
    }

    fn bytes_mut(&mut self, index: usize) -> &mut [u8] {
        self.frames.get_mut(index).map_or(&mut [], |frame| &mut frame.first)
    }

    fn wire_len(&self, index: usize) -> usize {
        self.frames.get(index).map_or(0, |frame| frame.first.len() + frame.rest.len())
    }

    fn prepend(&mut self, index: usize, count: usize) -> Option<&mut [u8]> {
        let first = &mut self.frames.get_mut(index)?.first;
        first.splice(0..0, std::iter::repeat_n(0xee, count));
        Some(first)
    }

    fn truncate(&mut self, index: usize, len: usize) {
        if let Some(frame) = self.frames.get_mut(index).filter(|frame| frame.rest.is_empty()) {
            frame.first.truncate(len);
        }
    }

    fn replace(&mut self, index: usize, bytes: &[u8]) -> bool {
        let Some(frame) = self.frames.get_mut(index) else {
            return false;
        };
        *frame = Segmented { first: bytes.to_vec(), rest: Vec::new() };
        true
    }

    fn prefetch(&self, _index: usize) {}
}
