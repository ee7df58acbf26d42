//! `Port`: a device, configured and started once, with a pair of queues for each worker.
//!
//! Why it exists: a port's queues exist before it starts and end after it stops; workers must not poll outside of
//! that. So a `Port` is made by one call that does all of it, and what its queues need (`Running`) stops and
//! closes the device when the last of them is gone.
//!
//! Invariants: each device becomes at most one `Port`. `Port` is `Send` and not `Sync`: DPDK's control calls on one
//! port are not for two threads at a time; they may run beside the workers that poll its queues.

use core::cell::Cell;
use core::marker::PhantomData;
use std::sync::Arc;

use dpdk_sys as sys;

use crate::device::{Device, interface_is_up};
use crate::eal::{Eal, Inner, Log, port_of};
use crate::error::Error;
use crate::pool::Pool;
use crate::queue::{RxQueue, TxQueue};
use crate::setup::Setup;

/// How a port is configured.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// How many receive queues: one for each worker.
    pub rx_queues: u16,
    /// How many transmit queues: one for each worker.
    pub tx_queues: u16,
    /// Descriptors of each receive queue; the nearest number that the device can do is taken.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue, likewise.
    pub tx_descriptors: u16,
    /// The largest IP packet. `None`: what the device has.
    pub mtu: Option<u16>,
    /// Another MAC address than the device's own. `None`: as it is.
    pub mac: Option<[u8; 6]>,
    /// Receive frames for other MAC addresses as well.
    pub promiscuous: bool,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: None,
            mac: None,
            promiscuous: false,
        }
    }
}

/// The state of a port's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether there is one.
    pub up: bool,
    /// Its speed in Mbit/s; `None` where the device does not know.
    pub mbps: Option<u32>,
}

/// What a port has counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets dropped by the device because no descriptor was free: the workers are too slow.
    pub rx_missed: u64,
    /// Packets received with errors.
    pub rx_errors: u64,
    /// Times the pool had no mbuf for a packet: the pool is too small.
    pub rx_no_mbuf: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
}

/// What keeps a started device running. The last holder, port or queue, stops and closes it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) port: u16,
    /// The device's rings hold its mbufs.
    _pool: Pool,
    /// EAL must outlive the device.
    _eal: Arc<Inner>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: the last holder drops this, so no queue polls any more; stopping a port that did not start is
        // allowed and returns an error of no interest.
        let _ = unsafe { sys::rte_eth_dev_stop(self.port) };
        // SAFETY: stopped, and EAL still runs (`_eal` is dropped after this).
        let _ = unsafe { sys::rte_eth_dev_close(self.port) };
    }
}

/// A started port: its facts, its counters, and once its queues.
#[derive(Debug)]
pub struct Port {
    running: Arc<Running>,
    device: Device,
    driver: String,
    mac: [u8; 6],
    mtu: u16,
    max_rx_queues: u16,
    max_tx_queues: u16,
    queues: Vec<(RxQueue, TxQueue)>,
    _not_sync: PhantomData<Cell<()>>,
}

/// What a device can do, asked before it is configured: what its pool must be like depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest MTU it does.
    pub mtu: u16,
    /// Whether it sends frames in several segments.
    pub sends_segments: bool,
    /// Whether it receives frames longer than an mbuf, in several segments.
    pub receives_segments: bool,
    /// Bytes that an mbuf must have room for, whatever the MTU; 0 where there is no such thing.
    pub least_room: u16,
    /// mbufs that a queue may hold, in either direction, however few descriptors it has.
    pub least_mbufs: u16,
}

impl Port {
    /// What the device of that name can do.
    ///
    /// # Errors
    /// EAL was not started with a device of that name.
    pub fn limits(eal: &Eal, device: &str) -> Result<Limits, Error> {
        Ok(setup_of(eal, device)?.limits())
    }

    /// Configures and starts the device of that name, which EAL was started with: a PCI address, or a virtual
    /// device with or without its arguments. Received packets come from `pool`.
    pub fn configure(eal: &Eal, device: &str, pool: &Pool, config: &PortConfig) -> Result<Self, Error> {
        if !pool.is_of(eal) {
            return Err(Error::ForeignPool);
        }
        let setup = setup_of(eal, device)?;
        setup.check_queues(config)?;
        let log = Log::start();
        let outcome = Self::start(eal, setup, pool, config);
        let said = log.stop();
        outcome.map_err(|error| error.saying(&said))
    }

    fn start(eal: &Eal, setup: Setup, pool: &Pool, config: &PortConfig) -> Result<Self, Error> {
        let port = setup.port;
        // A device once configured is closed with its `Running`; DPDK cannot open it a second time.
        if !eal.inner().claim(port) {
            return Err(Error::PortInUse(setup.device.name));
        }
        let running = Arc::new(Running { port, _pool: pool.clone(), _eal: eal.inner() });
        setup.configure(pool, config)?;
        let mtu = setup.set_mtu(config.mtu)?;
        setup.set_mac(config.mac)?;
        setup.start(pool, config)?;
        setup.set_promiscuous(config.promiscuous)?;
        setup.set_all_multicast()?;
        let queues = (0..config.rx_queues.min(config.tx_queues))
            .map(|queue| (RxQueue::new(&running, queue), TxQueue::new(&running, queue)))
            .collect();
        Ok(Self {
            running,
            mac: setup.mac()?,
            mtu,
            max_rx_queues: setup.info.max_rx_queues,
            max_tx_queues: setup.info.max_tx_queues,
            queues,
            device: setup.device,
            driver: setup.driver,
            _not_sync: PhantomData,
        })
    }

    /// The queues, one pair for each worker. Once: a second call gives none.
    pub fn take_queues(&mut self) -> Vec<(RxQueue, TxQueue)> {
        std::mem::take(&mut self.queues)
    }

    /// The port's number.
    pub fn id(&self) -> u16 {
        self.running.port
    }

    /// The device's name: its PCI address, or what precedes its arguments.
    pub fn name(&self) -> &str {
        &self.device.name
    }

    /// DPDK's driver, such as `net_ixgbe`.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// The kernel's interface under `net_af_packet` and `net_af_xdp`. On the former the kernel sees every frame as well.
    pub fn interface(&self) -> Option<&str> {
        self.device.interface()
    }

    /// Its MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The largest IP packet it sends and receives.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The most receive queues and transmit queues it could have.
    pub fn max_queues(&self) -> (u16, u16) {
        (self.max_rx_queues, self.max_tx_queues)
    }

    /// The state of its link, as last told by the device; of a device on a kernel's interface, whose driver does not
    /// know, as told by the kernel. Does not wait.
    pub fn link(&self) -> Result<Link, Error> {
        let (mut mbps, mut up) = (0, 0);
        // SAFETY: the port runs; both numbers are written by the shim.
        let errno = unsafe { sys::weft_link(self.id(), &raw mut mbps, &raw mut up) };
        if errno != 0 {
            return Err(self.error("tell its link's state", errno));
        }
        let up = match self.device.interface() {
            Some(interface) => interface_is_up(interface).unwrap_or(up != 0),
            None => up != 0,
        };
        // DPDK says "no speed" by 0 and "unknown" by all ones.
        Ok(Link { up, mbps: Some(mbps).filter(|mbps| *mbps != 0 && *mbps != u32::MAX) })
    }

    /// What it has counted. May be asked beside the workers; not from the packet path.
    pub fn stats(&self) -> Result<Stats, Error> {
        let mut stats = sys::rte_eth_stats::default();
        // SAFETY: the port runs; `stats` is written by the call.
        let errno = unsafe { sys::rte_eth_stats_get(self.id(), &raw mut stats) };
        if errno != 0 {
            return Err(self.error("give its counters", errno));
        }
        Ok(Stats {
            rx_packets: stats.ipackets,
            rx_bytes: stats.ibytes,
            rx_missed: stats.imissed,
            rx_errors: stats.ierrors,
            rx_no_mbuf: stats.rx_nombuf,
            tx_packets: stats.opackets,
            tx_bytes: stats.obytes,
            tx_errors: stats.oerrors,
        })
    }

    fn error(&self, step: &'static str, errno: i32) -> Error {
        Error::of_step(&self.device.name, &self.driver, step, errno)
    }
}

/// The first steps of every question about a device that EAL was started with.
fn setup_of(eal: &Eal, device: &str) -> Result<Setup, Error> {
    let wanted = Device::parse(device)?;
    let known = eal.inner().devices.iter().find(|known| known.name == wanted.name).cloned();
    let device = known.ok_or_else(|| Error::NoSuchPort(wanted.name.clone()))?;
    let port = port_of(&device.name).ok_or_else(|| Error::NoSuchPort(device.name.clone()))?;
    Setup::new(device, port)
}
