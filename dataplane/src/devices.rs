//! DPDK and its ports: huge pages, the pool of mbufs, the devices of the configuration file.
//!
//! Everything DPDK is told at start is decided here; what the ports do afterwards is `worker`'s.

use anyhow::bail;
use config::{Config, HugePages};
use dpdk::{Eal, EalConfig, Limits, Pool, PoolConfig, Port, PortConfig};
use ipc::counters::{Gauge, PortGauge};
use ipc::data_link::DataLink;
use ipc::id::PortId;
use ipc::limits::BURST;
use ipc::mapping::available_memory;

use crate::exception::{self, Exception};
use crate::phases::Phases;
use crate::port_watch::PortWatch;
use crate::worker::Queues;

/// mbufs each lcore keeps in its cache.
const MBUF_CACHE: u32 = 256;

/// Room for a frame in one mbuf: a full Ethernet frame of 1,500 bytes and more. Longer ones come in segments.
const FRAME_ROOM: u16 = 2048;

/// What a frame is longer than its MTU: Ethernet header, two VLAN tags, check sequence.
const FRAME_OVERHEAD: u16 = 14 + 8 + 4;

/// DPDK and its ports.
pub struct Devices {
    /// The environment; its lcores are the workers'.
    pub eal: Eal,
    /// The ports, started, in the configuration's order.
    pub ports: Vec<Port>,
    /// Their exception paths, where they have one.
    exceptions: Vec<Option<Exception>>,
    pool: Pool,
}

impl Devices {
    /// Starts DPDK and every port of the configuration.
    ///
    /// # Errors
    /// The first thing that is missing, in one sentence; nothing is left running then.
    pub fn start(config: &Config, phases: &mut Phases) -> anyhow::Result<Self> {
        let dataplane = &config.dataplane;
        let mut devices: Vec<String> = dataplane.ports.iter().map(|port| port.device.clone()).collect();
        devices.extend(exception::devices(config)?);
        let main_lcore = dataplane.workers.first().copied().unwrap_or(0);
        let huge_pages = has_huge_pages(config)?;
        let eal = Eal::init(&EalConfig {
            lcores: &dataplane.workers,
            main_lcore,
            memory_mb: dataplane.memory_mb,
            huge_pages,
            devices: &devices,
            ..EalConfig::new(&dataplane.file_prefix)
        })?;
        phases.end("EAL");
        let ports = dataplane.ports.iter();
        let limits: Vec<Limits> =
            ports.map(|port| Port::limits(&eal, &port.device)).collect::<Result<_, _>>()?;
        let pool = Pool::new(&eal, "frames", &pool_config(config, &limits))?;
        let (mut ports, mut exceptions) = (Vec::new(), Vec::new());
        for (index, configured) in dataplane.ports.iter().enumerate() {
            let port = configure(&eal, &pool, configured, dataplane.workers.len())?;
            exceptions.push(Exception::start(&eal, &pool, index, configured, &port)?);
            ports.push(port);
        }
        Ok(Self { eal, ports, exceptions, pool })
    }

    /// The ports as the engine sees them.
    pub fn describe(&self, config: &Config) -> Vec<engine::snapshot::Port> {
        let known = self.ports.iter().zip(&config.dataplane.ports);
        known
            .map(|(port, configured)| {
                let mac = configured.mac.unwrap_or_else(|| port.mac());
                let kernel_sees_frames = port.driver() == "net_af_packet" && configured.exception.is_none();
                site::port(configured, Some(mac), kernel_sees_frames)
            })
            .collect()
    }

    /// Takes the ports' queues apart: one share for each worker.
    pub fn take_queues(&mut self) -> Vec<Vec<Queues>> {
        let count = self.eal.lcores().len();
        let mut shares: Vec<Vec<Queues>> = (0..count).map(|_| Vec::new()).collect();
        for (port, exception) in self.ports.iter_mut().zip(&mut self.exceptions) {
            let mut ends = exception.as_mut().map(Exception::take_ends).unwrap_or_default().into_iter();
            for (share, (receive, transmit)) in shares.iter_mut().zip(port.take_queues()) {
                share.push(Queues { receive, transmit, exception: ends.next() });
            }
        }
        shares
    }

    /// The environment, and all that the manager watches.
    pub fn into_watch(self) -> (Eal, PortWatch) {
        (self.eal, PortWatch::new(self.ports, self.pool))
    }
}

/// Room for a frame in one mbuf. Where a device receives long frames in one piece only, or cannot send pieces that
/// another received, it is the longest frame's.
fn frame_room(config: &Config, limits: &[Limits]) -> u16 {
    let ports = &config.dataplane.ports;
    let longest = ports.iter().map(|port| port.mtu.saturating_add(FRAME_OVERHEAD)).max().unwrap_or(0);
    let in_one_piece = limits.iter().any(|port| !port.receives_segments || !port.sends_segments);
    let least = limits.iter().map(|port| port.least_room).max().unwrap_or(0);
    FRAME_ROOM.max(least).max(if in_one_piece { longest } else { 0 })
}

/// Whether DPDK shall use huge pages: as configured, or where enough are free.
fn has_huge_pages(config: &Config) -> anyhow::Result<bool> {
    let dataplane = &config.dataplane;
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let needed = u64::from(dataplane.memory_mb);
    if dataplane.huge_pages == HugePages::Off {
        return has_memory(needed).map(|()| false);
    }
    let pages = PagePool::of(&meminfo);
    let enough = pages.free_mb() >= needed;
    if !enough && dataplane.huge_pages == HugePages::On {
        bail!(
            "huge_pages = \"on\" and {free} of {needed} MiB are free: echo {all} > /proc/sys/vm/nr_hugepages, or set \
             huge_pages = \"auto\"",
            free = pages.free_mb(),
            all = pages.total_for(needed)
        );
    }
    if !enough {
        log::warn!(
            "no huge pages for packets ({} MiB free): running without, at about half the speed",
            pages.free_mb()
        );
        has_memory(needed)?;
    }
    Ok(enough)
}

/// Whether the machine has as much ordinary memory as DPDK is to take at once. Asked first, because DPDK would
/// fill the machine and hear no signal meanwhile.
fn has_memory(needed_mb: u64) -> anyhow::Result<()> {
    let available = available_memory() >> 20;
    if available < needed_mb {
        bail!("memory_mb = {needed_mb} and {available} MiB are available: make memory_mb smaller");
    }
    Ok(())
}

/// The kernel's huge pages of the default size.
#[derive(Debug, PartialEq, Eq)]
struct PagePool {
    total: u64,
    free: u64,
    kib: u64,
}

impl PagePool {
    /// As /proc/meminfo tells.
    fn of(meminfo: &str) -> Self {
        let field = |name: &str| -> u64 {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Self {
            total: field("HugePages_Total:"),
            free: field("HugePages_Free:"),
            kib: field("Hugepagesize:").max(1),
        }
    }

    fn free_mb(&self) -> u64 {
        self.free * self.kib / 1024
    }

    /// How many there must be in all, so that this much is free: what is used now, by our own tables among
    /// others, stays used.
    fn total_for(&self, free_mb: u64) -> u64 {
        self.total.saturating_sub(self.free) + (free_mb * 1024).div_ceil(self.kib)
    }
}

/// mbufs for every descriptor of every queue, every cache and every burst, or more where more are asked for.
fn pool_config(config: &Config, limits: &[Limits]) -> PoolConfig {
    let workers = u32::try_from(config.dataplane.workers.len()).unwrap_or(u32::MAX);
    let descriptors: u32 = config
        .dataplane
        .ports
        .iter()
        .zip(limits)
        .map(|(port, limits)| {
            let exception = port.exception.as_ref().map_or(0, |_| exception::MBUFS_A_QUEUE);
            u32::from(port.rx_descriptors.max(limits.least_mbufs))
                + u32::from(port.tx_descriptors.max(limits.least_mbufs))
                + exception
        })
        .sum();
    let burst = u32::try_from(2 * BURST).unwrap_or(0);
    let needed = workers * (descriptors + 2 * MBUF_CACHE + burst);
    PoolConfig {
        mbufs: ((needed + 1).next_power_of_two() - 1).max(config.dataplane.mbufs),
        frame_room: frame_room(config, limits),
        cache: MBUF_CACHE,
        ..PoolConfig::default()
    }
}

/// One port, started.
fn configure(eal: &Eal, pool: &Pool, port: &config::Port, workers: usize) -> anyhow::Result<Port> {
    let queues = u16::try_from(workers).unwrap_or(u16::MAX);
    let started = Port::configure(
        eal,
        &port.device,
        pool,
        &PortConfig {
            rx_queues: queues,
            tx_queues: queues,
            rx_descriptors: port.rx_descriptors,
            tx_descriptors: port.tx_descriptors,
            mtu: Some(port.mtu),
            mac: None,
            // A MAC address of our own needs the frames the device would otherwise leave out.
            promiscuous: port.promiscuous || port.mac.is_some(),
        },
    )?;
    log::info!("port {}: driver {}, MTU {}", started.name(), started.driver(), started.mtu());
    Ok(started)
}

/// Tells the ports' facts to whoever reads the gauges.
pub fn show_ports(link: &DataLink, ports: &[Port], config: &Config) {
    let gauges = link.gauges();
    gauges.set(Gauge::Ports, u64::try_from(ports.len()).unwrap_or(u64::MAX));
    for (index, (port, configured)) in ports.iter().zip(&config.dataplane.ports).enumerate() {
        let Ok(id) = u8::try_from(index).map(PortId) else { continue };
        let [a, b, c, d, e, f] = configured.mac.unwrap_or_else(|| port.mac());
        gauges.set_port_name(id, port.name());
        gauges.set_port(id, PortGauge::Mac, u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
        gauges.set_port(id, PortGauge::Mtu, u64::from(port.mtu()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_huge_pages_to_ask_for_counts_those_in_use() {
        let meminfo = "MemTotal: 24000000 kB\nHugePages_Total:     512\nHugePages_Free:      500\n\
                       HugePages_Rsvd:        0\nHugepagesize:       2048 kB\n";
        let pages = PagePool::of(meminfo);
        assert_eq!(pages, PagePool { total: 512, free: 500, kib: 2048 });
        assert_eq!(pages.free_mb(), 1000);
        assert_eq!(pages.total_for(1001), 12 + 501);
    }

    #[test]
    fn a_kernel_without_huge_pages_has_none_free() {
        assert_eq!(PagePool::of("MemTotal: 24000000 kB\n").free_mb(), 0);
        assert_eq!(PagePool::of("").total_for(0), 0);
    }
}
