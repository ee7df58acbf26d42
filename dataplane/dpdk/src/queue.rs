//! `RxQueue` and `TxQueue`: one worker's ends of a port.
//!
//! Why it exists: a DPDK queue must not be polled by two threads. A queue here is made once, by
//! `Port::take_queues`, cannot be cloned, is `Send` but not `Sync`, and works by `&mut self`: it is moved into one
//! worker for life. `transmit` never waits for the device: what the device refuses is freed and counted.

use core::cell::Cell;
use core::marker::PhantomData;
use std::sync::Arc;

use dpdk_sys as sys;

use crate::burst::{self, BURST, Burst};
use crate::port::Running;

/// Makes a type `Send` and not `Sync`.
type NotSync = PhantomData<Cell<()>>;

/// The receiving end: one worker polls it.
///
/// Two threads cannot share one:
/// ```compile_fail
/// fn is_sync<T: Sync>() {}
/// is_sync::<dpdk::RxQueue>();
/// ```
/// It can be moved into a worker:
/// ```
/// fn is_send<T: Send>() {}
/// is_send::<dpdk::RxQueue>();
/// is_send::<dpdk::TxQueue>();
/// ```
#[derive(Debug)]
pub struct RxQueue {
    port: u16,
    queue: u16,
    /// The port stops when its last queue is gone.
    _running: Arc<Running>,
    _not_sync: NotSync,
}

/// The transmitting end: one worker fills it.
///
/// ```compile_fail
/// fn is_sync<T: Sync>() {}
/// is_sync::<dpdk::TxQueue>();
/// ```
#[derive(Debug)]
pub struct TxQueue {
    port: u16,
    queue: u16,
    _running: Arc<Running>,
    _not_sync: NotSync,
}

/// What became of the packets given to [`TxQueue::transmit`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "refused packets are to be counted"]
pub struct Transmitted {
    /// Packets the device took.
    pub sent: u32,
    /// Packets the device had no room for: freed.
    pub refused: u32,
}

impl RxQueue {
    pub(crate) fn new(running: &Arc<Running>, queue: u16) -> Self {
        Self { port: running.port, queue, _running: Arc::clone(running), _not_sync: PhantomData }
    }

    /// Polls once: appends what has arrived to the burst, up to its limit, and says how many. Never waits.
    #[inline]
    pub fn receive(&mut self, burst: &mut Burst) -> usize {
        let room = burst.room();
        // At most BURST places: the conversion cannot fail.
        let count = u16::try_from(room.len()).unwrap_or(0);
        // SAFETY: the port is started and the queue set up (`Running` lives); `&mut self` is the only poller; `room`
        // takes `count` pointers.
        let got = unsafe { sys::weft_rx_burst(self.port, self.queue, room.as_mut_ptr(), count) };
        burst.hold(usize::from(got));
        usize::from(got)
    }

    /// The queue's number on its port.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// The port's number.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl TxQueue {
    pub(crate) fn new(running: &Arc<Running>, queue: u16) -> Self {
        Self { port: running.port, queue, _running: Arc::clone(running), _not_sync: PhantomData }
    }

    /// Sends the packets at the places `mask` names, in order, and takes them out of the burst: what the device
    /// refuses is freed. The others keep their places, for another queue or [`Burst::clear`]. Never waits.
    #[inline]
    pub fn transmit(&mut self, burst: &mut Burst, mask: u64) -> Transmitted {
        let mut taken = [core::ptr::null_mut(); BURST];
        let count = burst.take(mask, &mut taken);
        if count == 0 {
            return Transmitted::default();
        }
        // At most BURST packets: the conversion cannot fail.
        let offered = u16::try_from(count).unwrap_or(0);
        // SAFETY: the port is started and the queue set up (`Running` lives); `&mut self` is the only user; the
        // first `offered` pointers are mbufs that `take` made ours; those the device accepts are its own from here.
        let sent = unsafe { sys::weft_tx_burst(self.port, self.queue, taken.as_mut_ptr(), offered) };
        burst::free(&mut taken, usize::from(sent), count);
        Transmitted { sent: u32::from(sent), refused: u32::from(offered.saturating_sub(sent)) }
    }

    /// As [`TxQueue::transmit`], but what the device refuses keeps its place in the burst, to be offered again: for a
    /// sender that may wait. How many were sent.
    #[inline]
    pub fn offer(&mut self, burst: &mut Burst, mask: u64) -> u32 {
        let mut taken = [core::ptr::null_mut(); BURST];
        let before = burst.held();
        let (chosen, len) = (mask & before, burst.len());
        let count = burst.take(mask, &mut taken);
        if count == 0 {
            return 0;
        }
        // At most BURST packets: the conversion cannot fail.
        let offered = u16::try_from(count).unwrap_or(0);
        // SAFETY: as in `transmit`.
        let sent = unsafe { sys::weft_tx_burst(self.port, self.queue, taken.as_mut_ptr(), offered) };
        burst.give_back(chosen, len, usize::from(sent));
        u32::from(sent)
    }

    /// The queue's number on its port.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// The port's number.
    pub fn port(&self) -> u16 {
        self.port
    }
}
