//! Frames in fixed buffers with headroom, as mbufs have them: nothing here allocates once it is made.

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
