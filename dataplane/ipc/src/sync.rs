//! The loom facade: the only importer of atomics in Weft.
//!
//! In production these are `core`'s atomics; under `--cfg loom` they are loom's, so that the rings and both
//! tables are model-checked from the code that ships.
//!
//! What loom does not model: `SeqCst` is treated as `AcqRel` plus a fence, load buffering is not explored, and
//! nothing that crosses a process. A loom pass is evidence, not proof.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
