//! Every limit of Weft, in one place, related by constant assertions.
//!
//! A limit is a promise to the packet path (no loop without a bound) and to the operator (no surprise at the
//! next backend). Raising one is a change of the segment's layout where [`crate::layout`] says so.

/// Frames in one burst at most. Scratch arrays of the pipeline have this length.
pub const BURST: usize = 64;

/// Workers (polling lcores) of one data plane at most.
pub const MAX_WORKERS: usize = 32;

/// Ports of one data plane at most.
pub const MAX_PORTS: usize = 16;

/// Backend ids: 1 to `MAX_BACKENDS - 1`. Id 0 is never given: a zero word in a table is an empty slot.
pub const MAX_BACKENDS: usize = 4096;

/// The largest number of a backend in encrypted tokens and in timestamps, where it has twelve bits. 0 is nobody's.
pub const MAX_NUMBER: u16 = 4095;

/// Pairs of address and port that belong to one backend alone, at most: more endpoints than that are nobody's.
pub const MAX_ENDPOINTS: usize = 65_536;

/// Pools at most.
pub const MAX_POOLS: usize = 256;

/// VIPs (named) at most.
pub const MAX_VIPS: usize = 256;

/// Services at most: one for each address and port of each VIP.
pub const MAX_SERVICES: usize = 4096;

/// Largest weight of a backend. Weights are relative to their pool; the ratio of two is what Maglev honours.
pub const MAX_WEIGHT: u32 = 1000;

/// Claims kept for one token in one pool. One more would change no answer, only fill lines.
pub const MAX_CLAIMS: usize = 3;

/// Longest name of a VIP, pool or backend, in bytes of UTF-8.
pub const MAX_NAME: usize = 63;

const _: () = assert!(MAX_BACKENDS <= 1 << 16, "a backend id is 16 bits in both tables");
const _: () = assert!(BURST <= 64, "side lists of the pipeline are 64-bit sets");
