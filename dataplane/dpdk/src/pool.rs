//! `Pool`: where packets' memory comes from.
//!
//! Invariant: a pool is never freed while the process runs EAL: its mbufs may be in bursts and in devices' rings,
//! and nobody could prove that they are not. Its memory goes when the last holder of EAL does.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys as sys;

use crate::eal::{Eal, Inner};
use crate::error::{Error, reason};

/// Room in front of a received packet, for the headers an encapsulation adds.
pub const HEADROOM: u16 = sys::WEFT_HEADROOM;

/// How a pool is made.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// How many packets it holds; a power of two less one wastes no memory. Every descriptor of every queue
    /// may hold one, every worker's bursts and cache a few hundred more.
    pub mbufs: u32,
    /// The longest frame one mbuf takes, its headroom apart. A longer one is received in several segments.
    pub frame_room: u16,
    /// How many mbufs each lcore keeps for itself, so that workers do not meet; at most 512.
    pub cache: u32,
    /// The NUMA node of the memory; `None` leaves it to DPDK.
    pub socket: Option<u32>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { mbufs: 16383, frame_room: 2048, cache: 256, socket: None }
    }
}

/// A pool of packets, shared by all lcores. Cloning gives another handle of the same pool.
#[derive(Clone)]
pub struct Pool {
    pool: NonNull<sys::rte_mempool>,
    mbufs: u32,
    frame_room: u16,
    eal: Arc<Inner>,
}

// SAFETY: a mempool made with default flags is for many producers and consumers: its ring is lock-free and its
// caches are per lcore, chosen by the calling thread's own lcore number, which no two threads share.
// JUSTIFICATION: workers on several lcores allocate from one pool.
unsafe impl Send for Pool {}
// SAFETY: as for Send: every function called through `&Pool` is one of those safe for many threads.
unsafe impl Sync for Pool {}

impl Pool {
    /// Makes a pool. `name` is unique in the process and at most 25 bytes long.
    pub fn new(eal: &Eal, name: &str, config: &PoolConfig) -> Result<Self, Error> {
        let c_name = CString::new(name).map_err(|_| Error::BadName(name.to_owned()))?;
        let buffer = config.frame_room.checked_add(HEADROOM).ok_or(Error::FrameRoom(config.frame_room))?;
        // DPDK wants 1.5 caches in the pool.
        let cache = config.cache.min(512).min(config.mbufs / 3 * 2);
        let socket = match config.socket {
            Some(socket) => {
                i32::try_from(socket).map_err(|_| Error::BadName(format!("NUMA node {socket}")))?
            }
            None => sys::WEFT_ANY_SOCKET,
        };
        // SAFETY: EAL runs (`eal` lives); the name is a C string that DPDK copies.
        let pool =
            unsafe { sys::rte_pktmbuf_pool_create(c_name.as_ptr(), config.mbufs, cache, 0, buffer, socket) };
        match NonNull::new(pool) {
            Some(pool) => {
                Ok(Self { pool, mbufs: config.mbufs, frame_room: config.frame_room, eal: eal.inner() })
            }
            None => Err(Error::Pool {
                name: name.to_owned(),
                mbufs: config.mbufs,
                megabytes: (u64::from(config.mbufs) * (u64::from(buffer) + 192)).div_ceil(1 << 20),
                reason: reason(crate::eal::errno()),
            }),
        }
    }

    /// How many packets it holds in all.
    pub fn capacity(&self) -> u32 {
        self.mbufs
    }

    /// How many packets are out: in bursts, in devices' rings. Not exact while workers run.
    pub fn in_use(&self) -> u32 {
        // SAFETY: the pool lives as long as EAL, which `self.eal` keeps.
        unsafe { sys::rte_mempool_in_use_count(self.pool.as_ptr()) }
    }

    /// How many packets are free. Not exact while workers run.
    pub fn available(&self) -> u32 {
        // SAFETY: as in `in_use`.
        unsafe { sys::rte_mempool_avail_count(self.pool.as_ptr()) }
    }

    /// The longest frame one of its mbufs takes.
    pub fn room(&self) -> u16 {
        self.frame_room
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.pool.as_ptr()
    }

    pub(crate) fn is_of(&self, eal: &Eal) -> bool {
        Arc::ptr_eq(&self.eal, &eal.inner())
    }
}

impl core::fmt::Debug for Pool {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pool").field("frame_room", &self.frame_room).finish_non_exhaustive()
    }
}
