//! A burst of mbufs as the engine sees it.

use dpdk::Burst;
use engine::frames::Frames;

/// The adapter: every method is the burst's own.
#[derive(Debug)]
pub struct PortFrames<'a>(pub &'a mut Burst);

impl Frames for PortFrames<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn bytes(&self, index: usize) -> &[u8] {
        self.0.bytes(index)
    }

    #[inline]
    fn bytes_mut(&mut self, index: usize) -> &mut [u8] {
        self.0.bytes_mut(index)
    }

    #[inline]
    fn wire_len(&self, index: usize) -> usize {
        self.0.wire_len(index)
    }

    #[inline]
    fn prepend(&mut self, index: usize, count: usize) -> Option<&mut [u8]> {
        self.0.prepend(index, count)
    }

    #[inline]
    fn truncate(&mut self, index: usize, len: usize) {
        if self.0.bytes(index).len() > len {
            // Refused for a frame in several segments, which stays as it is.
            let _ = self.0.resize(index, len);
        }
    }

    #[inline]
    fn replace(&mut self, index: usize, bytes: &[u8]) -> bool {
        self.0.replace(index, bytes)
    }

    #[inline]
    fn prefetch(&self, index: usize) {
        self.0.prefetch(index);
    }
}
