//! The steps that make a device a running port, and what they refuse.
//!
//! Why it exists: apart from [`Port`](crate::Port), which is what callers keep; this is over once it runs.
//! DPDK's order is kept: configure, MTU, queues, start, promiscuous mode, multicast.

use std::ffi::CStr;

use dpdk_sys as sys;

use crate::device::{Device, interface_mtu};
use crate::error::{Error, reason};
use crate::pool::Pool;
use crate::port::{Limits, PortConfig};

/// The Ethernet header, a VLAN tag and the check sequence: what a frame is longer than its MTU.
const FRAME_OVERHEAD: u32 = 14 + VLAN_TAG + 4;
const VLAN_TAG: u32 = 4;

/// What the kernel keeps beside each frame in the ring of `net_af_packet` (TPACKET2_HDRLEN, aligned).
const RING_FRAME_OVERHEAD: u32 = 80;

/// Drivers that cut a long frame into segments without being asked, and say nothing of it.
const CUT_THEMSELVES: &[&str] = &["net_pcap", "net_memif"];

/// A device on its way to a `Port`.
pub(crate) struct Setup {
    pub(crate) device: Device,
    pub(crate) driver: String,
    pub(crate) port: u16,
    pub(crate) info: sys::rte_eth_dev_info,
}

impl Setup {
    pub(crate) fn new(device: Device, port: u16) -> Result<Self, Error> {
        let info =
            info(port).map_err(|errno| Error::NoSuchPort(format!("{} ({})", device.name, reason(errno))))?;
        Ok(Self { driver: driver_of(&info), device, port, info })
    }

    fn error(&self, step: &'static str, errno: i32) -> Error {
        Error::of_step(&self.device.name, &self.driver, step, errno)
    }

    fn done(&self, step: &'static str, errno: i32) -> Result<(), Error> {
        if errno == 0 { Ok(()) } else { Err(self.error(step, errno)) }
    }

    pub(crate) fn check_queues(&self, config: &PortConfig) -> Result<(), Error> {
        let receive = ("receive", self.info.max_rx_queues, config.rx_queues);
        let transmit = ("transmit", self.info.max_tx_queues, config.tx_queues);
        for (direction, has, wanted) in [receive, transmit] {
            if has < wanted || wanted == 0 {
                return Err(Error::TooFewQueues {
                    device: self.device.name.clone(),
                    driver: self.driver.clone(),
                    direction,
                    has,
                    wanted,
                    hint: self.device.queues_hint(&self.driver, wanted.max(1)),
                });
            }
        }
        Ok(())
    }

    pub(crate) fn configure(&self, pool: &Pool, config: &PortConfig) -> Result<(), Error> {
        let mut conf = sys::rte_eth_conf::default();
        let flows = self.info.flow_type_rss_offloads & sys::WEFT_RSS_FLOWS;
        if config.rx_queues > 1 && flows != 0 {
            conf.rxmode.mq_mode = sys::RTE_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = flows;
        }
        // A driver on a kernel interface says 1500 whatever the interface does: it is not told.
        let told = config.mtu.filter(|_| self.device.interface().is_none());
        if let Some(mtu) = told {
            if !self.mtus().contains(&mtu) {
                return Err(self.mtu_error(mtu, self.mtu_range()));
            }
            conf.rxmode.mtu = u32::from(mtu);
        }
        let needed = u32::from(config.mtu.unwrap_or(0)) + FRAME_OVERHEAD;
        if needed > u32::from(pool.room()) {
            if !self.limits().receives_segments {
                let hint = format!("it puts a frame into one mbuf, of {needed} bytes or more here");
                return Err(self.mtu_error(config.mtu.unwrap_or(0), hint));
            }
            conf.rxmode.offloads |= self.info.rx_offload_capa & sys::WEFT_RX_SCATTER;
        }
        conf.txmode.offloads |= self.info.tx_offload_capa & sys::WEFT_TX_MULTI_SEGS;
        // SAFETY: EAL runs and the port is one of its own; `conf` is copied.
        let errno = unsafe {
            sys::rte_eth_dev_configure(self.port, config.rx_queues, config.tx_queues, &raw const conf)
        };
        self.done("take its configuration", errno)
    }

    /// Sets the MTU where one is wanted, and gives the one it has.
    pub(crate) fn set_mtu(&self, wanted: Option<u16>) -> Result<u16, Error> {
        let mut mtu = 0;
        // SAFETY: the port is EAL's own; `mtu` is written by the call.
        let errno = unsafe { sys::rte_eth_dev_get_mtu(self.port, &raw mut mtu) };
        self.done("tell its MTU", errno)?;
        if let Some(interface) = self.device.interface() {
            return self.kernel_mtu(interface, wanted, mtu);
        }
        let Some(wanted) = wanted else { return Ok(mtu) };
        // SAFETY: as above.
        let errno = unsafe { sys::rte_eth_dev_set_mtu(self.port, wanted) };
        // ENOTSUP: a virtual device with no MTU of its own. `configure` has checked the range.
        if errno == 0 || errno == -95 { Ok(wanted) } else { Err(self.mtu_error(wanted, reason(errno))) }
    }

    /// The MTU of a driver on a kernel interface: it sends and receives what the interface does.
    fn kernel_mtu(&self, interface: &str, wanted: Option<u16>, driver_says: u16) -> Result<u16, Error> {
        let kernel = interface_mtu(interface).unwrap_or(driver_says);
        let mtu = wanted.unwrap_or(kernel);
        if self.driver == "net_af_xdp" && !self.mtus().contains(&mtu) {
            return Err(self.mtu_error(mtu, self.mtu_range()));
        }
        if kernel < mtu {
            return Err(self.mtu_error(mtu, format!("run `ip link set dev {interface} mtu {mtu}` first")));
        }
        let ring = u32::from(self.ring_frame());
        if self.driver == "net_af_packet" && u32::from(mtu) + FRAME_OVERHEAD + RING_FRAME_OVERHEAD > ring {
            if wanted.is_none() {
                return Ok(
                    u16::try_from(ring.saturating_sub(FRAME_OVERHEAD + RING_FRAME_OVERHEAD)).unwrap_or(mtu)
                );
            }
            let name = &self.device.name;
            let hint = format!("write {name},...,framesz=16384,blocksz=65536, so that a frame fits its ring");
            return Err(self.mtu_error(mtu, hint));
        }
        Ok(mtu)
    }

    /// The size of a frame in the ring of `net_af_packet`.
    fn ring_frame(&self) -> u16 {
        self.device.argument("framesz").and_then(|size| size.parse().ok()).unwrap_or(2048)
    }

    /// What the device can do.
    pub(crate) fn limits(&self) -> Limits {
        let least_room = match self.driver.as_str() {
            "net_af_packet" => self.ring_frame(),
            "net_null" => self.device.argument("size").and_then(|size| size.parse().ok()).unwrap_or(0),
            _ => 0,
        };
        Limits {
            mtu: *self.mtus().end(),
            sends_segments: self.info.tx_offload_capa & sys::WEFT_TX_MULTI_SEGS != 0,
            receives_segments: self.info.rx_offload_capa & sys::WEFT_RX_SCATTER != 0
                || CUT_THEMSELVES.contains(&self.driver.as_str()),
            least_room,
            // The size of its rings is fixed in the driver (ETH_AF_XDP_DFLT_NUM_DESCS).
            least_mbufs: if self.driver == "net_af_xdp" { 2048 } else { 0 },
        }
    }

    /// Gives it another MAC address, where one is wanted; before it starts.
    pub(crate) fn set_mac(&self, wanted: Option<[u8; 6]>) -> Result<(), Error> {
        let Some(mac) = wanted else { return Ok(()) };
        let mut address = sys::rte_ether_addr { addr_bytes: mac };
        // SAFETY: the port is EAL's own; the address is copied.
        let errno = unsafe { sys::rte_eth_dev_default_mac_addr_set(self.port, &raw mut address) };
        self.done("take another MAC address", errno)
    }

    /// The MTUs that the device does. DPDK's own rule: where the device gives no largest one, its longest frame does.
    fn mtus(&self) -> core::ops::RangeInclusive<u16> {
        let by_frame = self.info.max_rx_pktlen.saturating_sub(FRAME_OVERHEAD - VLAN_TAG);
        let by_frame = u16::try_from(by_frame).unwrap_or(u16::MAX);
        let most = if self.info.max_mtu == u16::MAX { by_frame } else { self.info.max_mtu };
        self.info.min_mtu..=most
    }

    fn mtu_range(&self) -> String {
        format!("it does {} to {}", self.mtus().start(), self.mtus().end())
    }

    fn mtu_error(&self, mtu: u16, hint: String) -> Error {
        Error::Mtu { device: self.device.name.clone(), driver: self.driver.clone(), mtu, hint }
    }

    /// Sets the queues up and starts the device.
    pub(crate) fn start(&self, pool: &Pool, config: &PortConfig) -> Result<(), Error> {
        let (mut rx, mut tx) = (config.rx_descriptors, config.tx_descriptors);
        // SAFETY: the port is configured; both numbers are adjusted in place.
        let errno = unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.port, &raw mut rx, &raw mut tx) };
        self.done("tell how many descriptors it can do", errno)?;
        // SAFETY: the port is EAL's own. A virtual device is on no node: -1, which is SOCKET_ID_ANY.
        let socket = unsafe { sys::rte_eth_dev_socket_id(self.port) };
        let socket = socket.cast_unsigned();
        for queue in 0..config.rx_queues {
            // SAFETY: configured with that many queues; no settings means the driver's; the pool outlives the port.
            let errno = unsafe {
                sys::rte_eth_rx_queue_setup(self.port, queue, rx, socket, std::ptr::null(), pool.as_ptr())
            };
            self.done(self.receive_step(), errno)?;
        }
        for queue in 0..config.tx_queues {
            // SAFETY: as for the receive queues.
            let errno =
                unsafe { sys::rte_eth_tx_queue_setup(self.port, queue, tx, socket, std::ptr::null()) };
            self.done("set up a transmit queue", errno)?;
        }
        // SAFETY: configured, and every queue is set up.
        let errno = unsafe { sys::rte_eth_dev_start(self.port) };
        self.done("start", errno)
    }

    /// What fails when a receive queue cannot be set up, and what to do where that is known.
    fn receive_step(&self) -> &'static str {
        if self.device.argument("infinite_rx").is_some_and(|value| value != "0") {
            "set up a receive queue (infinite_rx holds the whole file in mbufs of one pool: raise mbufs above the \
             number of its packets, or cut the file; none may be longer than an mbuf)"
        } else {
            "set up a receive queue"
        }
    }

    pub(crate) fn set_promiscuous(&self, wanted: bool) -> Result<(), Error> {
        // SAFETY: the port runs.
        let is = unsafe { sys::rte_eth_promiscuous_get(self.port) } == 1;
        if is == wanted {
            return Ok(());
        }
        let call = if wanted { sys::rte_eth_promiscuous_enable } else { sys::rte_eth_promiscuous_disable };
        // SAFETY: the port runs.
        let errno = unsafe { call(self.port) };
        // ENOTSUP: a virtual device that receives everything anyhow.
        if errno == -95 { Ok(()) } else { self.done("change promiscuous mode", errno) }
    }

    /// Receives every multicast frame: neighbour solicitations go to groups (RFC 4861 section 4.3).
    pub(crate) fn set_all_multicast(&self) -> Result<(), Error> {
        // SAFETY: the port runs.
        let errno = unsafe { sys::rte_eth_allmulticast_enable(self.port) };
        // ENOTSUP: a virtual device that receives everything anyhow.
        if errno == -95 { Ok(()) } else { self.done("receive multicast frames", errno) }
    }

    pub(crate) fn mac(&self) -> Result<[u8; 6], Error> {
        let mut mac = sys::rte_ether_addr::default();
        // SAFETY: the port is EAL's own; `mac` is written by the call.
        let errno = unsafe { sys::rte_eth_macaddr_get(self.port, &raw mut mac) };
        self.done("tell its MAC address", errno)?;
        Ok(mac.addr_bytes)
    }
}

fn info(port: u16) -> Result<sys::rte_eth_dev_info, i32> {
    let mut info = sys::rte_eth_dev_info::default();
    // SAFETY: the number is a port's of EAL; `info` is written by the call.
    let errno = unsafe { sys::rte_eth_dev_info_get(port, &raw mut info) };
    if errno == 0 { Ok(info) } else { Err(errno) }
}

fn driver_of(info: &sys::rte_eth_dev_info) -> String {
    if info.driver_name.is_null() {
        return "unknown driver".to_owned();
    }
    // SAFETY: not null; DPDK points it at the driver's own name, a constant.
    unsafe { CStr::from_ptr(info.driver_name) }.to_string_lossy().into_owned()
}
