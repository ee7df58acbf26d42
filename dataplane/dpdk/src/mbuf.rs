//! The fields of an mbuf, read in Rust.
//!
//! Why it exists: DPDK's accessors are inline C functions; a call to a wrapper for every packet costs more
//! than the field. The offsets are computed by the C compiler that compiled the shim, from the headers of the
//! DPDK that is linked, and this is the only file that uses them.
//!
//! Invariant: a `Mbuf` exists only while somebody (a `Burst`) owns the mbuf behind it. It is borrowed from
//! the owner, so that what is written through it cannot be seen elsewhere.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::slice;

use dpdk_sys as sys;

const BUF_ADDR: usize = sys::WEFT_MBUF_BUF_ADDR as usize;
const DATA_OFF: usize = sys::WEFT_MBUF_DATA_OFF as usize;
const NB_SEGS: usize = sys::WEFT_MBUF_NB_SEGS as usize;
const PKT_LEN: usize = sys::WEFT_MBUF_PKT_LEN as usize;
const DATA_LEN: usize = sys::WEFT_MBUF_DATA_LEN as usize;
const BUF_LEN: usize = sys::WEFT_MBUF_BUF_LEN as usize;

/// One mbuf, seen by its owner's borrower for `'a`.
#[derive(Clone, Copy)]
pub(crate) struct Mbuf<'a> {
    pointer: NonNull<sys::rte_mbuf>,
    owner: PhantomData<&'a ()>,
}

impl<'a> Mbuf<'a> {
    /// A view of `pointer`.
    ///
    /// # Safety
    /// `pointer` is the first segment of a live mbuf that the caller owns alone for `'a`: it came from an
    /// allocation or a receive call and has been neither freed nor sent.
    #[inline(always)]
    pub(crate) unsafe fn new(pointer: NonNull<sys::rte_mbuf>) -> Self {
        Self { pointer, owner: PhantomData }
    }

    /// The mbuf itself, for DPDK's own functions.
    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *mut sys::rte_mbuf {
        self.pointer.as_ptr()
    }

    #[inline(always)]
    fn read<T: Copy>(self, offset: usize) -> T {
        // SAFETY: `offset` is one of the constants above, which lie inside an rte_mbuf.
        let field = unsafe { self.pointer.as_ptr().byte_add(offset) };
        // SAFETY: by `new`'s contract the mbuf is live; the field at each offset has the width asked for
        // (asserted in wrapper.h), is aligned as C laid it out, and is initialised by allocation.
        unsafe { field.cast::<T>().read() }
    }

    #[inline(always)]
    fn write<T: Copy>(self, offset: usize, value: T) {
        // SAFETY: as in `read`.
        let field = unsafe { self.pointer.as_ptr().byte_add(offset) };
        // SAFETY: as in `read`; the owner is alone, so nobody reads the field meanwhile.
        unsafe { field.cast::<T>().write(value) };
    }

    #[inline(always)]
    fn headroom(self) -> u16 {
        self.read(DATA_OFF)
    }

    #[inline(always)]
    fn data_len(self) -> u16 {
        self.read(DATA_LEN)
    }

    /// Length of the packet over all its segments.
    #[inline(always)]
    pub(crate) fn wire_len(self) -> u32 {
        self.read(PKT_LEN)
    }

    /// How many segments the packet has.
    #[inline(always)]
    pub(crate) fn segments(self) -> u16 {
        self.read(NB_SEGS)
    }

    /// Where the packet's bytes begin.
    #[inline(always)]
    pub(crate) fn data(self) -> *mut u8 {
        let buffer: *mut u8 = self.read(BUF_ADDR);
        // SAFETY: DPDK keeps data_off within the buffer of the mbuf (data_off + data_len <= buf_len), and so
        // do `prepend` and `resize` below.
        unsafe { buffer.add(usize::from(self.headroom())) }
    }

    /// The bytes of the first segment.
    #[inline(always)]
    pub(crate) fn bytes(self) -> &'a [u8] {
        // SAFETY: data_len bytes from `data` lie in the mbuf's buffer, which lives as long as the mbuf; the
        // buffer is memory that the pool wrote when it was made; the owner is borrowed for 'a, so nobody writes.
        unsafe { slice::from_raw_parts(self.data(), usize::from(self.data_len())) }
    }

    /// The bytes of the first segment, to be changed.
    ///
    /// # Safety
    /// The caller borrows the owner mutably for `'a` and makes no second view of this mbuf meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn bytes_mut(self) -> &'a mut [u8] {
        // SAFETY: as in `bytes`; by this function's contract no other reference to these bytes exists. A received
        // packet's buffer is not shared with another mbuf: this crate never clones or attaches one.
        unsafe { slice::from_raw_parts_mut(self.data(), usize::from(self.data_len())) }
    }

    /// Moves the packet's start `count` bytes forward into the headroom. False: there is no room, unchanged.
    #[inline(always)]
    pub(crate) fn prepend(self, count: u16) -> bool {
        let Some(headroom) = self.headroom().checked_sub(count) else {
            return false;
        };
        let Some(data_len) = self.data_len().checked_add(count) else {
            return false;
        };
        let Some(wire_len) = self.wire_len().checked_add(u32::from(count)) else {
            return false;
        };
        self.write(DATA_OFF, headroom);
        self.write(DATA_LEN, data_len);
        self.write(PKT_LEN, wire_len);
        true
    }

    /// Whether the first segment's buffer has room for `length` bytes from the packet's start.
    #[inline(always)]
    pub(crate) fn fits(self, length: u16) -> bool {
        let buffer: u16 = self.read(BUF_LEN);
        buffer.checked_sub(self.headroom()).is_some_and(|room| room >= length)
    }

    /// Makes a packet of one segment `length` bytes long. False: it has several, or there is no room, unchanged.
    #[inline(always)]
    pub(crate) fn resize(self, length: u16) -> bool {
        if self.segments() != 1 || !self.fits(length) {
            return false;
        }
        self.write(DATA_LEN, length);
        self.write(PKT_LEN, u32::from(length));
        true
    }
}
