//! `Burst`: the packets a worker holds between receive and transmit.
//!
//! Why it exists: it is the only owner of mbufs, so that each is freed or handed to a device exactly once.
//!
//! Invariants: bit `i` of `held` is set exactly when `mbufs[i]` is a live mbuf that this burst alone owns.
//! Every way out (`take`, and through it `transmit`, `clear`, `discard`, `drop`) clears the bit before the pointer is
//! given to DPDK; `give_back` sets it again for what DPDK did not take. Places keep their index until the burst is
//! empty again, so that a verdict computed for place `i` still means packet `i` after others have been sent. Bits at
//! or above `len` are never set.

use core::ptr::{self, NonNull};
use std::sync::Arc;

use dpdk_sys as sys;

use crate::eal::{Eal, Inner};
use crate::mbuf::Mbuf;
use crate::pool::Pool;

/// How many packets a burst can hold; one bit of a `u64` names each.
pub const BURST: usize = 64;

/// Up to [`BURST`] packets, owned. See the crate's header for a whole worker.
pub struct Burst {
    mbufs: [*mut sys::rte_mbuf; BURST],
    held: u64,
    len: u8,
    limit: u8,
    /// The mbufs' memory goes when EAL does.
    _eal: Arc<Inner>,
}

// SAFETY: the pointers are to mbufs that this burst owns alone; an mbuf may be read, sent and freed by any
// thread (the pool's caches are chosen by the thread that frees, its ring takes many producers).
// JUSTIFICATION: a worker's burst is made before the worker starts, and moved into it.
unsafe impl Send for Burst {}

impl Burst {
    /// An empty burst that receives up to [`BURST`] packets at once.
    pub fn new(eal: &Eal) -> Self {
        Self::with_limit(eal, BURST)
    }

    /// An empty burst that receives up to `limit` packets at once: 1 to [`BURST`], others are cut to fit.
    pub fn with_limit(eal: &Eal, limit: usize) -> Self {
        let limit = u8::try_from(limit.clamp(1, BURST)).unwrap_or(u8::MAX);
        Self { mbufs: [ptr::null_mut(); BURST], held: 0, len: 0, limit, _eal: eal.inner() }
    }

    /// How many places are in use: packets are at `0..len()`, except those already taken out.
    #[inline(always)]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the burst holds no packet.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// The places that hold a packet, one bit each.
    #[inline(always)]
    pub fn held(&self) -> u64 {
        self.held
    }

    #[inline(always)]
    fn mbuf(&self, index: usize) -> Option<Mbuf<'_>> {
        if index >= BURST || self.held >> index & 1 == 0 {
            return None;
        }
        let pointer = NonNull::new(self.mbufs[index])?;
        // SAFETY: bit `index` of `held` is set: the mbuf is live and ours alone; the view borrows `self`.
        Some(unsafe { Mbuf::new(pointer) })
    }

    /// The bytes of packet `index`'s first segment. Empty where no packet is held.
    #[inline(always)]
    pub fn bytes(&self, index: usize) -> &[u8] {
        self.mbuf(index).map_or(&[], Mbuf::bytes)
    }

    /// The bytes of packet `index`'s first segment, to be changed. Empty where no packet is held.
    #[inline(always)]
    pub fn bytes_mut(&mut self, index: usize) -> &mut [u8] {
        match self.mbuf(index) {
            // SAFETY: the result borrows `self` mutably, and every view is made from a borrow of `self`.
            Some(mbuf) => unsafe { mbuf.bytes_mut() },
            None => &mut [],
        }
    }

    /// The whole length of packet `index`, over all its segments. 0 where no packet is held.
    #[inline(always)]
    pub fn wire_len(&self, index: usize) -> usize {
        // u32 to usize: this crate is for 64-bit machines only (DPDK's ports).
        self.mbuf(index).map_or(0, |mbuf| mbuf.wire_len() as usize)
    }

    /// How many segments packet `index` has; [`Burst::bytes`] is the first. 0 where no packet is held.
    #[inline(always)]
    pub fn segments(&self, index: usize) -> u16 {
        self.mbuf(index).map_or(0, Mbuf::segments)
    }

    /// Adds `count` bytes in front of packet `index`, within its headroom, and gives the first segment from its new
    /// start: `count` bytes with no defined content, then the bytes as they were. `None`: no room, unchanged.
    #[inline(always)]
    pub fn prepend(&mut self, index: usize, count: usize) -> Option<&mut [u8]> {
        let count = u16::try_from(count).ok()?;
        let mbuf = self.mbuf(index)?;
        if !mbuf.prepend(count) {
            return None;
        }
        // SAFETY: as in `bytes_mut`.
        Some(unsafe { mbuf.bytes_mut() })
    }

    /// Makes packet `index`, of one segment, `length` bytes long: for replies written over a request. Bytes added
    /// have no defined content. `None`: several segments, or no room in the buffer; unchanged.
    #[inline]
    pub fn resize(&mut self, index: usize, length: usize) -> Option<&mut [u8]> {
        let length = u16::try_from(length).ok()?;
        let mbuf = self.mbuf(index)?;
        if !mbuf.resize(length) {
            return None;
        }
        // SAFETY: as in `bytes_mut`.
        Some(unsafe { mbuf.bytes_mut() })
    }

    /// Puts `bytes` in the place of packet `index`, whose segments but the first are freed. False: the first one's
    /// buffer has no room, or no packet is held; unchanged.
    #[inline]
    pub fn replace(&mut self, index: usize, bytes: &[u8]) -> bool {
        let (Ok(length), Some(mbuf)) = (u16::try_from(bytes.len()), self.mbuf(index)) else {
            return false;
        };
        if !mbuf.fits(length) {
            return false;
        }
        if mbuf.segments() > 1 {
            // SAFETY: the mbuf is live and this burst's alone, and so are the segments behind it, which no view reaches:
            // they go back to their pool, and the mbuf is whole without them.
            unsafe { sys::weft_keep_first_segment(mbuf.as_ptr()) };
        }
        let Some(frame) = self.resize(index, bytes.len()).filter(|frame| frame.len() == bytes.len()) else {
            return false;
        };
        frame.copy_from_slice(bytes);
        true
    }

    /// Asks the CPU for the first 128 bytes of packet `index`, which a parser of headers reads, and for the 64 before
    /// them, where a tunnel's headers are written: nobody has touched those since the last packet in this buffer.
    #[inline(always)]
    pub fn prefetch(&self, index: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(mbuf) = self.mbuf(index) {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let data = mbuf.data().cast_const().cast::<i8>();
            // SAFETY: a prefetch reads nothing and cannot fault, whatever the address; SSE is part of x86-64.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(data) };
            // SAFETY: as above; `wrapping_add` makes no claim about the buffer's size.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(data.wrapping_add(64)) };
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(data.wrapping_sub(64)) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = index;
    }

    /// Appends `count` fresh packets of `length` bytes with no defined content. All or none: false when the burst
    /// has too few places left, the pool too few mbufs, or a packet does not fit its buffer.
    pub fn allocate(&mut self, pool: &Pool, count: usize, length: usize) -> bool {
        let start = self.len();
        let Some(end) = start.checked_add(count).filter(|end| *end <= BURST) else {
            return false;
        };
        let (Ok(bulk), Ok(length)) = (u32::try_from(count), u16::try_from(length)) else {
            return false;
        };
        let Some(places) = self.mbufs.get_mut(start..end) else {
            return false;
        };
        if length > pool.room() {
            return false;
        }
        // SAFETY: the pool is live (it keeps EAL); `places` has room for `bulk` pointers.
        if unsafe { sys::weft_alloc_bulk(pool.as_ptr(), places.as_mut_ptr(), bulk) } != 0 {
            return false;
        }
        self.hold(count);
        for index in start..end {
            // A fresh mbuf has one segment, and `length` fits its buffer: this cannot fail.
            self.mbuf(index).map(|mbuf| mbuf.resize(length));
        }
        true
    }

    /// Appends a fresh packet with these bytes. False: no place, no mbuf, or too long for one.
    pub fn push(&mut self, pool: &Pool, frame: &[u8]) -> bool {
        let index = self.len();
        if !self.allocate(pool, 1, frame.len()) {
            return false;
        }
        self.bytes_mut(index).copy_from_slice(frame);
        true
    }

    /// Frees every packet that is left.
    #[inline]
    pub fn clear(&mut self) {
        self.discard(u64::MAX);
    }

    /// Frees the packets at the places `mask` names, in bulk. The others keep their places.
    #[inline]
    pub fn discard(&mut self, mask: u64) {
        let mut taken = [ptr::null_mut(); BURST];
        let count = self.take(mask, &mut taken);
        free(&mut taken, 0, count);
    }

    /// The free places a receive call may fill.
    #[inline(always)]
    pub(crate) fn room(&mut self) -> &mut [*mut sys::rte_mbuf] {
        let end = usize::from(self.limit);
        let start = usize::from(self.len).min(end);
        self.mbufs.get_mut(start..end).unwrap_or_default()
    }

    /// Takes ownership of `count` mbufs that DPDK has just written to the places after `len`.
    #[inline(always)]
    pub(crate) fn hold(&mut self, count: usize) {
        let start = self.len();
        let end = start.saturating_add(count).min(BURST);
        self.held |= below(end) & !below(start);
        self.len = u8::try_from(end).unwrap_or(u8::MAX);
    }

    /// Moves the packets at the places `mask` names to the front of `into`, in order, and says how many. From
    /// then on they are the caller's: to be sent or freed.
    #[inline(always)]
    pub(crate) fn take(&mut self, mask: u64, into: &mut [*mut sys::rte_mbuf; BURST]) -> usize {
        let chosen = mask & self.held;
        let mut count = 0;
        let mut left = chosen;
        while left != 0 {
            // Both are below 64: `count` counts bits of a u64, and so does `trailing_zeros` of a non-zero one.
            into[count % BURST] = self.mbufs[left.trailing_zeros() as usize % BURST];
            left &= left - 1;
            count += 1;
        }
        self.held &= !chosen;
        if self.held == 0 {
            self.len = 0;
        }
        count
    }

    /// Takes back what `take` gave out of the places `chosen`, but the first `gone` of it, before anything else was done
    /// with the burst; `len` is what it was.
    #[inline(always)]
    pub(crate) fn give_back(&mut self, chosen: u64, len: usize, gone: usize) {
        let mut left = chosen;
        for _ in 0..gone {
            left &= left.wrapping_sub(1);
        }
        // `take` cleared the bits and left the pointers where they were.
        self.held |= left;
        if self.held != 0 {
            self.len = u8::try_from(len).unwrap_or(u8::MAX);
        }
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.clear();
    }
}

impl core::fmt::Debug for Burst {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Burst").field("len", &self.len).field("held", &self.held).finish_non_exhaustive()
    }
}

/// The bits below `end`, for `end` up to 64.
#[inline(always)]
fn below(end: usize) -> u64 {
    if end >= BURST { u64::MAX } else { (1 << end) - 1 }
}

/// Frees `taken[from..to]`, pointers that `take` gave out.
#[inline(always)]
pub(crate) fn free(taken: &mut [*mut sys::rte_mbuf; BURST], from: usize, to: usize) {
    let Some(rest) = taken.get_mut(from..to) else {
        return;
    };
    if rest.is_empty() {
        return;
    }
    // At most BURST pointers: the conversion cannot fail.
    let count = u32::try_from(rest.len()).unwrap_or(0);
    // SAFETY: `take` cleared their bits, so no burst owns these mbufs any more, and no device was given them;
    // each is a whole packet (a chain is freed with its first segment).
    unsafe { sys::rte_pktmbuf_free_bulk(rest.as_mut_ptr(), count) };
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn bits_below_an_end_are_as_many_as_the_end_says() {
        for end in 0..=64 {
            assert_eq!(below(end).count_ones() as usize, end);
            assert_eq!(below(end).trailing_ones() as usize, end);
        }
    }
}
