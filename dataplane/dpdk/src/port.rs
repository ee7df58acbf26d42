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

use crate::device::Device;
use crate::eal::{Eal, Inner, port_of};
use crate::error::{Error, reason};
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

impl Port {
    /// Configures and starts the device of that name, which EAL was started with: a PCI address, or a virtual
    /// device with or without its arguments. Received packets come from `pool`.
    pub fn configure(eal: &Eal, device: &str, pool: &Pool, config: &PortConfig) -> Result<Self, Error> {
        let wanted = Device::parse(device)?;
        let known = eal.inner().devices.iter().find(|known| known.name == wanted.name).cloned();
        let device = known.ok_or_else(|| Error::NoSuchPort(wanted.name.clone()))?;
        if !pool.is_of(eal) {
            return Err(Error::ForeignPool);
        }
        let port = port_of(&device.name).ok_or_else(|| Error::NoSuchPort(device.name.clone()))?;
        let setup = Setup::new(device, port)?;
        setup.check_queues(config)?;
        // A device once configured is closed with its `Running`; DPDK cannot open it a second time.
        if !eal.inner().claim(port) {
            return Err(Error::PortInUse(setup.device.name));
        }
        let running = Arc::new(Running { port, _pool: pool.clone(), _eal: eal.inner() });
        setup.configure(pool, config)?;
        let mtu = setup.set_mtu(config.mtu)?;
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

    /// Gives it another MAC address.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> Result<(), Error> {
        let mut address = sys::rte_ether_addr { addr_bytes: mac };
        // SAFETY: the port runs; the address is copied.
        let errno = unsafe { sys::rte_eth_dev_default_mac_addr_set(self.id(), &raw mut address) };
        if errno != 0 {
            return Err(self.error("take another MAC address", errno));
        }
        self.mac = mac;
        Ok(())
    }

    /// The largest IP packet it sends and receives.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The most receive queues and transmit queues it could have.
    pub fn max_queues(&self) -> (u16, u16) {
        (self.max_rx_queues, self.max_tx_queues)
    }

    /// The state of its link, as last told by the device. Does not wait.
    pub fn link(&self) -> Result<Link, Error> {
        let (mut mbps, mut up) = (0, 0);
        // SAFETY: the port runs; both numbers are written by the shim.
        let errno = unsafe { sys::weft_link(self.id(), &raw mut mbps, &raw mut up) };
        if errno != 0 {
            return Err(self.error("tell its link's state", errno));
        }
        // DPDK says "no speed" by 0 and "unknown" by all ones.
        Ok(Link { up: up != 0, mbps: Some(mbps).filter(|mbps| *mbps != 0 && *mbps != u32::MAX) })
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

    /// Every counter the device has, by the driver's own names.
    pub fn extended_stats(&self) -> Result<Vec<(String, u64)>, Error> {
        // SAFETY: the port runs; a null array of no length asks for the number.
        let count = unsafe { sys::rte_eth_xstats_get_names(self.id(), std::ptr::null_mut(), 0) };
        let length = usize::try_from(count).map_err(|_| self.error("give its counters", count))?;
        let mut names = vec![sys::rte_eth_xstat_name { name: [0; 64] }; length];
        let mut values = vec![sys::rte_eth_xstat::default(); length];
        let size = u32::try_from(length).unwrap_or(0);
        // SAFETY: the port runs; `names` has room for `size`.
        let named = unsafe { sys::rte_eth_xstats_get_names(self.id(), names.as_mut_ptr(), size) };
        // SAFETY: the port runs; `values` has room for `size`.
        let valued = unsafe { sys::rte_eth_xstats_get(self.id(), values.as_mut_ptr(), size) };
        for count in [named, valued] {
            // More than there is room for: the number of counters changed meanwhile, nothing was written.
            if count < 0 || usize::try_from(count).is_ok_and(|count| count > length) {
                return Err(self.error("give its counters", count));
            }
        }
        values.truncate(usize::try_from(valued).unwrap_or(0));
        let name = |id: u64| names.get(usize::try_from(id).ok()?).map(|name| text(&name.name));
        Ok(values.iter().filter_map(|value| Some((name(value.id)?, value.value))).collect())
    }

    fn error(&self, step: &'static str, errno: i32) -> Error {
        Error::Port {
            device: self.device.name.clone(),
            driver: self.driver.clone(),
            step,
            reason: reason(errno),
        }
    }
}

/// A C array of characters, up to its zero.
fn text(characters: &[core::ffi::c_char]) -> String {
    let bytes: Vec<u8> =
        characters.iter().map(|c| c.to_ne_bytes()[0]).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
