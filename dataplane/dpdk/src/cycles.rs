//! The CPU's time stamp counter: the clock of what is paced or timed burst by burst.
//!
//! Reading it costs about 8 ns, so it is for bursts, not for packets. On the machines DPDK is for it runs at one
//! constant rate and reads alike on every core.

use dpdk_sys as sys;

use crate::eal::Eal;

/// The counter now.
#[inline(always)]
pub fn cycles() -> u64 {
    // SAFETY: reads a register; takes nothing.
    unsafe { sys::weft_cycles() }
}

impl Eal {
    /// Cycles of the counter in a second, as EAL found at its start.
    pub fn cycles_per_second(&self) -> u64 {
        // SAFETY: EAL runs (`self` lives), so the rate is known.
        unsafe { sys::rte_get_tsc_hz() }
    }
}
