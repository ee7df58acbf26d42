//! The loom facade: the only importer of atomics in Weft.
//!
//! In production these are `core`'s atomics; under `--cfg loom` they are loom's, so that the rings and both
//! tables are model-checked from the code that ships. Under `--cfg weft_kill` they are `core`'s, and one of the
//! stores into the tables' memory never comes, because the process is killed before it (module `kill`).
//!
//! What loom does not model: `SeqCst` is treated as `AcqRel` plus a fence, load buffering is not explored, and
//! nothing that crosses a process. A loom pass is evidence, not proof.

#[cfg(not(any(loom, weft_kill)))]
pub use core::sync::atomic::AtomicU64;
#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(all(weft_kill, not(loom)))]
pub use kill::AtomicU64;

/// Fault injection: kills the process between any two stores into a piece of memory.
///
/// What is not modelled: stores of several threads, and a processor that stops. A killed process has made every store
/// before the one it did not make, in the order of the program.
#[cfg(all(weft_kill, not(loom)))]
pub mod kill {
    use core::sync::atomic::AtomicU64 as Plain;

    use super::Ordering;
    use crate::lines::{LINE, Lines};

    static FROM: Plain = Plain::new(0);
    static TO: Plain = Plain::new(0);
    static STORES: Plain = Plain::new(0);
    static LAST: Plain = Plain::new(0);

    /// From now on stores into `memory` are counted, and the process is killed before the store `last + 1`.
    pub fn after(memory: &Lines, last: u64) {
        let from = memory.as_ptr().addr() as u64;
        STORES.store(0, Ordering::Relaxed);
        LAST.store(last, Ordering::Relaxed);
        FROM.store(from, Ordering::Relaxed);
        TO.store(from + (memory.len() * LINE) as u64, Ordering::Relaxed);
    }

    /// How many stores were made.
    pub fn stores() -> u64 {
        STORES.load(Ordering::Relaxed)
    }

    /// Counts a store that is about to be made at an address, unless it is the one that must not come.
    fn store_at(word: &AtomicU64) {
        let address = core::ptr::from_ref(word).addr() as u64;
        let is_inside = FROM.load(Ordering::Relaxed) <= address && address < TO.load(Ordering::Relaxed);
        if is_inside && STORES.fetch_add(1, Ordering::Relaxed) == LAST.load(Ordering::Relaxed) {
            // What the system says does not matter: nothing is left to hear it.
            let _sent =
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            loop {
                core::hint::spin_loop();
            }
        }
    }

    /// `core`'s, with a look before every store.
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub struct AtomicU64(Plain);

    #[allow(missing_docs, reason = "as in core")]
    impl AtomicU64 {
        pub const fn new(value: u64) -> Self {
            Self(Plain::new(value))
        }

        pub fn load(&self, order: Ordering) -> u64 {
            self.0.load(order)
        }

        pub fn store(&self, value: u64, order: Ordering) {
            store_at(self);
            self.0.store(value, order);
        }

        pub fn compare_exchange(
            &self,
            current: u64,
            new: u64,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u64, u64> {
            store_at(self);
            self.0.compare_exchange(current, new, success, failure)
        }

        pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            store_at(self);
            self.0.fetch_add(value, order)
        }

        pub fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
            store_at(self);
            self.0.fetch_sub(value, order)
        }

        pub fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
            store_at(self);
            self.0.fetch_and(value, order)
        }
    }
}
