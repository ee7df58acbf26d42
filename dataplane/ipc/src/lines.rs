//! Memory as cache lines of atomic words, and the prefetches that hide its latency.
//!
//! Why it exists: both tables of `engine` are arrays of 64-byte lines that all workers read and write without
//! locks, at sizes where the page size matters; rings, counters and the header of the shared segment are such
//! lines too. `engine` forbids unsafe code, so the memory comes from here.
//!
//! Invariants:
//! - a [`Lines`] never moves, grows or shrinks, and its memory lives as long as any clone or part of it;
//! - every word is an atomic, so another thread or a hostile process may write it at any time and a reader
//!   still sees some value, never undefined behaviour;
//! - words of fresh memory are zero.
//!
//! A look-up in a table compares all words of a line ([`Line::alike`]); where there is AVX, two at a time.
//!
//! Under `--cfg loom` the atomics are loom's and lines are an ordinary slice. Miri cannot map memory; there
//! everything is on the heap: `cargo +nightly miri test -p ipc --lib -- lines:: ring::`.

use core::fmt;
use core::ops::{Deref, Range};

use crate::names;
use crate::sync::AtomicU64;

names! {
    /// The kind of pages under a piece of memory.
    pub enum HugePages {
        /// Pages of a hugetlbfs mount: 2 MiB or 1 GiB.
        Hugetlbfs = "hugetlbfs",
        /// Transparent huge pages: the kernel joins small ones.
        Transparent = "transparent",
        /// Pages of 4 KiB.
        Small = "small",
    }
}

/// Bytes of a cache line, and of a [`Line`] in production.
pub const LINE: usize = 64;

/// Words in a [`Line`].
pub const WORDS: usize = 8;

/// One cache line: eight atomic words.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Line(pub [AtomicU64; WORDS]);

#[cfg(not(loom))]
const _: () = assert!(size_of::<Line>() == LINE);
#[cfg(not(loom))]
const _: () = assert!(align_of::<Line>() == LINE);

impl Default for Line {
    fn default() -> Self {
        Line(core::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Line {
    /// The words whose upper half is this one, as bits: word 0 is the lowest. Each word is read whole and as with
    /// `Acquire`, but not all of them at one moment.
    #[inline(always)]
    pub fn with_upper_half(&self, half: u32) -> u32 {
        compare::with_upper_half(self, half)
    }

    /// The words that equal `value` in the bits of `mask`, as bits; read in the same way.
    #[inline(always)]
    pub fn alike(&self, mask: u64, value: u64) -> u32 {
        compare::alike(self, mask, value)
    }
}

/// Comparing all words of a line at once, for which a CPU has instructions and Rust's atomics have no way.
#[cfg(all(target_arch = "x86_64", target_feature = "avx", not(miri), not(loom)))]
mod compare {
    #![expect(
        unsafe_code,
        reason = "two atomic words in one load are an instruction that Rust has no call for"
    )]

    use super::Line;
    use core::arch::asm;
    use core::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_castps_si128, _mm_castsi128_ps, _mm_cmpeq_epi32, _mm_movemask_epi8,
        _mm_packs_epi16, _mm_packs_epi32, _mm_set1_epi32, _mm_set1_epi64x, _mm_shuffle_ps,
    };

    /// The eight words, in order.
    #[inline(always)]
    fn load(line: &Line) -> [__m128i; 4] {
        let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
        // SAFETY: four loads of 16 bytes from a line that is borrowed, 64 bytes long and aligned to 64; nothing is
        // written, no stack used, no flag changed. Others may write the words meanwhile: a CPU with AVX carries out an
        // aligned 16-byte load as one (Intel SDM volume 3A, 9.1.1; AMD APM volume 2, 7.3.2), so no word tears, and
        // loads are not reordered with later ones. For the compiler the assembly may touch any memory, so it moves no
        // access of its own across.
        unsafe {
            asm!(
                "vmovdqa {a}, [{line}]",
                "vmovdqa {b}, [{line} + 16]",
                "vmovdqa {c}, [{line} + 32]",
                "vmovdqa {d}, [{line} + 48]",
                line = in(reg) core::ptr::from_ref(line),
                a = out(xmm_reg) a,
                b = out(xmm_reg) b,
                c = out(xmm_reg) c,
                d = lateout(xmm_reg) d,
                options(nostack, preserves_flags),
            );
        }
        [a, b, c, d]
    }

    #[inline(always)]
    pub(super) fn with_upper_half(line: &Line, half: u32) -> u32 {
        // SAFETY: the function needs SSE2, which is part of x86-64.
        unsafe { upper_halves(load(line), half) }
    }

    #[inline(always)]
    pub(super) fn alike(line: &Line, mask: u64, value: u64) -> u32 {
        // SAFETY: the function needs SSE2, which is part of x86-64.
        unsafe { masked(load(line), mask, value) }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn upper_halves(words: [__m128i; 4], half: u32) -> u32 {
        let wanted = _mm_set1_epi32(half.cast_signed());
        let [low, high] = split::<UPPER>(words).map(|halves| _mm_cmpeq_epi32(halves, wanted));
        bits(low, high)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn masked(words: [__m128i; 4], mask: u64, value: u64) -> u32 {
        let (mask, value) = (_mm_set1_epi64x(mask.cast_signed()), _mm_set1_epi64x(value.cast_signed()));
        // SSE2 compares no 64 bits at once: both halves must be equal.
        let equal = words.map(|pair| _mm_cmpeq_epi32(_mm_and_si128(pair, mask), value));
        let ([a, b], [c, d]) = (split::<UPPER>(equal), split::<LOWER>(equal));
        bits(_mm_and_si128(a, c), _mm_and_si128(b, d))
    }

    /// Which 32 bits of each 64: two of the first register, two of the second.
    const UPPER: i32 = 0b11_01_11_01;
    const LOWER: i32 = 0b10_00_10_00;

    /// One half of each word.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn split<const HALF: i32>(words: [__m128i; 4]) -> [__m128i; 2] {
        let [a, b, c, d] = words.map(|pair| _mm_castsi128_ps(pair));
        [_mm_castps_si128(_mm_shuffle_ps::<HALF>(a, b)), _mm_castps_si128(_mm_shuffle_ps::<HALF>(c, d))]
    }

    /// One bit for each of eight values that are all ones or all zeros.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn bits(low: __m128i, high: __m128i) -> u32 {
        let shorts = _mm_packs_epi32(low, high);
        _mm_movemask_epi8(_mm_packs_epi16(shorts, shorts)).cast_unsigned() & 0xff
    }
}

/// The portable way.
#[cfg(not(all(target_arch = "x86_64", target_feature = "avx", not(miri), not(loom))))]
mod compare {
    use super::Line;
    use crate::sync::Ordering;

    pub(super) fn with_upper_half(line: &Line, half: u32) -> u32 {
        alike(line, 0xffff_ffff << 32, u64::from(half) << 32)
    }

    pub(super) fn alike(line: &Line, mask: u64, value: u64) -> u32 {
        let mut bits = 0;
        for (place, word) in line.0.iter().enumerate() {
            bits |= u32::from(word.load(Ordering::Acquire) & mask == value) << place;
        }
        bits
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lines({})", self.len())
    }
}

impl Lines {
    /// The word `index` of the whole, counted over lines; `None` past the end.
    #[inline]
    pub fn word(&self, index: usize) -> Option<&AtomicU64> {
        self.get(index / WORDS)?.0.get(index % WORDS)
    }
}

#[cfg(not(loom))]
pub(crate) use memory::Region;
#[cfg(not(loom))]
pub use memory::{Lines, prefetch_bytes, prefetch_read};

#[cfg(not(loom))]
mod memory {
    #![expect(unsafe_code, reason = "mapped memory becomes a slice of atomics here, and nowhere else")]

    use super::{Deref, LINE, Line, Range};
    use core::ptr::NonNull;
    use rustix::mm::{Advice, MapFlags, ProtFlags};
    use std::os::fd::BorrowedFd;
    use std::sync::Arc;

    /// From this size on, heap lines are mapped (zeroed lazily by the kernel) and huge pages asked for.
    const MAP_FROM: usize = 2 << 20;

    /// A mapping of its own, page aligned, readable and writable, unmapped on drop.
    #[derive(Debug)]
    pub(crate) struct Region {
        start: NonNull<u8>,
        bytes: usize,
    }

    // SAFETY: a Region owns its mapping as a Box owns its heap; unmapping works from any thread.
    unsafe impl Send for Region {}
    // SAFETY: a shared Region gives out only its length and address, which never change. The memory itself is
    // reached through `Lines`, whose words are atomics.
    unsafe impl Sync for Region {}

    impl Region {
        /// Private zeroed memory.
        fn anonymous(bytes: usize) -> rustix::io::Result<Region> {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a null hint lets the kernel choose an unused range, so no existing mapping is replaced.
            let start = unsafe {
                rustix::mm::mmap_anonymous(core::ptr::null_mut(), bytes, protection, MapFlags::PRIVATE)
            }?;
            Region::own(start, bytes)
        }

        /// The first `bytes` of a file, shared with every other process that maps it. With `populate` the
        /// kernel provides every page now rather than at the first touch. The caller has made sure that the
        /// file is at least this long; shortened later, a touch past its end ends the process with SIGBUS
        /// (who could do that, and why it is no new power: module `segment`).
        pub(crate) fn shared(fd: BorrowedFd<'_>, bytes: usize, populate: bool) -> rustix::io::Result<Region> {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            let flags = if populate { MapFlags::SHARED | MapFlags::POPULATE } else { MapFlags::SHARED };
            // SAFETY: a null hint lets the kernel choose an unused range, so no existing mapping is replaced.
            let start = unsafe { rustix::mm::mmap(core::ptr::null_mut(), bytes, protection, flags, fd, 0) }?;
            Region::own(start, bytes)
        }

        fn own(start: *mut core::ffi::c_void, bytes: usize) -> rustix::io::Result<Region> {
            let start = NonNull::new(start.cast()).ok_or(rustix::io::Errno::NOMEM)?;
            Ok(Region { start, bytes })
        }

        /// Asks for transparent huge pages; says whether the kernel took the advice (not whether it will act).
        pub(crate) fn advise_huge(&self) -> bool {
            // SAFETY: start and length are exactly a live mapping of ours, and this advice changes only which
            // pages back it, never its contents.
            unsafe { rustix::mm::madvise(self.start.as_ptr().cast(), self.bytes, Advice::LinuxHugepage) }
                .is_ok()
        }

        /// Provides every page now; false where the kernel (before 5.14) or the file system cannot.
        pub(crate) fn populate(&self) -> bool {
            // SAFETY: start and length are exactly a live mapping of ours, writable; the advice faults pages in
            // as a write would, but changes no contents, and reports what a touch would punish with SIGBUS.
            unsafe { rustix::mm::madvise(self.start.as_ptr().cast(), self.bytes, Advice::LinuxPopulateWrite) }
                .is_ok()
        }

        /// Where it begins, to find it in `/proc/self/smaps`.
        pub(crate) fn address(&self) -> usize {
            self.start.as_ptr().addr()
        }
    }

    impl Drop for Region {
        fn drop(&mut self) {
            // SAFETY: start and length are exactly the mapping that `own` took over, unmapped once, here.
            // Every `Lines` into it holds the Arc that owns this Region, so no reference is left.
            let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
            debug_assert!(unmapped.is_ok(), "a mapping of ours could not be unmapped");
        }
    }

    /// What keeps the memory alive.
    #[derive(Debug)]
    enum Owner {
        Heap(Box<[Line]>),
        Region(#[expect(dead_code, reason = "held for its drop")] Region),
    }

    /// Lines of shared memory, as a slice. Clones and parts share the memory and keep it alive.
    #[derive(Clone)]
    pub struct Lines {
        start: NonNull<Line>,
        len: usize,
        owner: Arc<Owner>,
    }

    // SAFETY: `start` points into memory that `owner` keeps alive and at one place; `Line` is atomics only,
    // which any thread may use.
    unsafe impl Send for Lines {}
    // SAFETY: as for Send: a shared `Lines` gives out `&[Line]`, and `Line` is Sync.
    unsafe impl Sync for Lines {}

    impl Lines {
        /// `count` zeroed lines of private memory: for tests, replay and loom. Large ones ask for transparent
        /// huge pages.
        pub fn heap(count: usize) -> Lines {
            let bytes = count.saturating_mul(LINE);
            if bytes >= MAP_FROM
                && !cfg!(miri)
                && let Ok(region) = Region::anonymous(bytes)
            {
                // Refused advice costs speed only.
                let _taken = region.advise_huge();
                return Lines::from_region(region);
            }
            let lines: Box<[Line]> = (0..count).map(|_| Line::default()).collect();
            let owner = Arc::new(Owner::Heap(lines));
            let start = match &*owner {
                Owner::Heap(lines) => NonNull::from(&**lines).cast(),
                Owner::Region(_) => NonNull::dangling(),
            };
            Lines { start, len: count, owner }
        }

        /// All whole lines of a mapping.
        pub(crate) fn from_region(region: Region) -> Lines {
            let start = region.start.cast();
            let len = region.bytes / LINE;
            Lines { start, len, owner: Arc::new(Owner::Region(region)) }
        }

        /// The lines of `range`, sharing this memory; `None` when it does not lie inside.
        pub fn part(&self, range: Range<usize>) -> Option<Lines> {
            let lines = self.get(range)?;
            Some(Lines {
                start: NonNull::from(lines).cast(),
                len: lines.len(),
                owner: Arc::clone(&self.owner),
            })
        }
    }

    impl Deref for Lines {
        type Target = [Line];

        #[inline]
        fn deref(&self) -> &[Line] {
            // SAFETY: requirements of `from_raw_parts`:
            // - non-null, aligned: a boxed slice of `Line`, a page of a mapping, or an element of either;
            // - one allocation of `len` lines, readable: `heap`, `from_region` and `part` set both together;
            // - initialised: the box is built of values; mapped memory is bytes the kernel gave, and every bit
            //   pattern is an `AtomicU64`;
            // - not mutated while borrowed but inside UnsafeCell: `Line` is atomics only, and no `&mut` to the
            //   memory is ever made. Another process writes the same atomics;
            // - no larger than isize::MAX bytes: it is an allocation;
            // - lives for the borrow: `owner` is held by `self` and never replaced.
            unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
        }
    }

    /// Starts to bring near the cache line in which these bytes begin: for frames in memory that is no device's.
    #[inline(always)]
    pub fn prefetch_bytes(bytes: &[u8]) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch is a hint: it never faults and never changes memory, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().cast()) };
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = bytes;
    }

    /// Starts to bring a line near, to be read.
    #[inline(always)]
    pub fn prefetch_read(line: &Line) {
        // The portable path gives no hint.
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch is a hint: it never faults and never changes memory, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(line).cast()) };
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = line;
    }
}

#[cfg(loom)]
pub use model::{Lines, prefetch_read};

#[cfg(loom)]
mod model {
    use super::{Deref, Line, Range};
    use std::sync::Arc;

    /// Lines for the model checker: the same interface, ordinary memory.
    #[derive(Clone)]
    pub struct Lines {
        all: Arc<[Line]>,
        range: Range<usize>,
    }

    impl Lines {
        /// `count` zeroed lines. Must be called inside a model.
        pub fn heap(count: usize) -> Lines {
            Lines { all: (0..count).map(|_| Line::default()).collect(), range: 0..count }
        }

        /// The lines of `range`, sharing this memory; `None` when it does not lie inside.
        pub fn part(&self, range: Range<usize>) -> Option<Lines> {
            self.get(range.clone())?;
            let range = self.range.start + range.start..self.range.start + range.end;
            Some(Lines { all: Arc::clone(&self.all), range })
        }
    }

    impl Deref for Lines {
        type Target = [Line];

        fn deref(&self) -> &[Line] {
            self.all.get(self.range.clone()).unwrap_or(&[])
        }
    }

    /// No hint under loom.
    pub fn prefetch_read(_line: &Line) {}
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::sync::Ordering;

    #[test]
    fn heap_lines_are_zero_aligned_and_as_many_as_asked() {
        for count in [0, 1, 3, if cfg!(miri) { 7 } else { 100_000 }] {
            let lines = Lines::heap(count);
            assert_eq!(lines.len(), count);
            assert!(lines.iter().all(|line| line.0.iter().all(|word| word.load(Ordering::Relaxed) == 0)));
            assert_eq!(lines.as_ptr().addr() % LINE, 0);
        }
    }

    #[test]
    fn a_part_shares_the_memory_and_keeps_it_alive() {
        let part = {
            let lines = Lines::heap(10);
            let part = lines.part(4..6).unwrap();
            lines[5].0[3].store(7, Ordering::Relaxed);
            part
        };
        assert_eq!(part.len(), 2);
        assert_eq!(part[1].0[3].load(Ordering::Relaxed), 7);
        assert_eq!(part.word(WORDS + 3).unwrap().load(Ordering::Relaxed), 7);
        assert!(part.word(2 * WORDS).is_none());
    }

    #[test]
    fn a_part_outside_does_not_exist() {
        let lines = Lines::heap(4);
        assert!(lines.part(0..5).is_none());
        assert!(lines.part(5..5).is_none());
        assert!(lines.part(0..2).unwrap().part(1..3).is_none());
    }

    #[test]
    fn threads_see_each_others_words() {
        let lines = Lines::heap(2);
        let writer = lines.clone();
        std::thread::spawn(move || writer[1].0[0].store(9, Ordering::Release)).join().unwrap();
        assert_eq!(lines[1].0[0].load(Ordering::Acquire), 9);
    }

    #[test]
    fn a_line_is_compared_word_by_word() {
        let line = Line::default();
        let words = [0, 7 << 32, 7 << 32 | 9, 9, u64::MAX, 0xffff_ffff << 32, 0, 1 << 63];
        for (place, word) in line.0.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        let expected = |is: &dyn Fn(u64) -> bool| -> u32 {
            words.iter().enumerate().map(|(place, word)| u32::from(is(*word)) << place).sum()
        };
        for half in [0, 7, 9, u32::MAX, 1 << 31] {
            assert_eq!(
                line.with_upper_half(half),
                expected(&|word| word >> 32 == u64::from(half)),
                "{half:x}"
            );
        }
        let masks = [0, 3, u64::MAX, 0xffff_ffff, 0xffff_ffff << 32, 1 << 63 | 1];
        for (mask, value) in masks.iter().flat_map(|mask| words.iter().map(move |word| (*mask, word & mask)))
        {
            assert_eq!(line.alike(mask, value), expected(&|word| word & mask == value), "{mask:x} {value:x}");
        }
        assert_eq!(line.alike(3, 4), 0, "what the mask hides is never equal");
    }

    #[test]
    fn prefetching_changes_nothing() {
        let lines = Lines::heap(1);
        prefetch_read(&lines[0]);
        prefetch_bytes(&[]);
        assert_eq!(lines[0].0[0].load(Ordering::Relaxed), 0);
    }
}
