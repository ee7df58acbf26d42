//! `weft-dataplane run`: what is set up, in which order, and taken down.
//!
//! The order is such that nothing is half started: the lock of the runtime directory first (a second instance
//! ends here, before it touched a device), then memory for the tables, then DPDK and the ports, then the manager
//! and the workers. Whatever fails drops what came before it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use config::{Config, HugePages};
use dpdk::{Affinity, Burst, Eal, EalConfig, Pool, PoolConfig, Port, PortConfig};
use engine::flow_table::FlowTable;
use engine::model::Model;
use engine::pipeline::Pipeline;
use engine::snapshot::Snapshot;
use engine::sweep::Sweeper;
use engine::tables::Tables;
use engine::token_table::TokenTable;
use ipc::counters::{Gauge, PortGauge};
use ipc::data_link::DataLink;
use ipc::id::{PortId, WorkerId};
use ipc::limits::BURST;
use ipc::lines::HugePages as TablePages;
use ipc::mapping::Mapping;

use crate::census::Census;
use crate::clock::Clock;
use crate::manager::Manager;
use crate::publish::Publisher;
use crate::site;
use crate::worker::Worker;

/// Packets a worker receives at once. 64 gains little below a million flows and costs latency.
const RECEIVE: usize = 32;

/// mbufs each lcore keeps in its cache.
const MBUF_CACHE: u32 = 256;

/// Room for a frame in one mbuf: a full Ethernet frame of 1,500 bytes and more. Longer ones come in segments.
const FRAME_ROOM: u16 = 2048;

/// Runs the data plane until SIGTERM or SIGINT.
///
/// # Errors
/// Whatever keeps it from starting, in one sentence; nothing is left running then.
pub fn run(path: &Path) -> anyhow::Result<()> {
    let config = crate::load(path)?;
    if config.dataplane.ports.is_empty() {
        bail!("{} has no [[dataplane.port]]: name at least one device to run on", path.display());
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot catch signals")?;
    }

    let (mut link, tables, _mapping) = memory(&config)?;
    let clock = Arc::new(Clock::default());
    clock.update();
    let devices = Devices::start(&config)?;
    show_ports(&link, &devices.ports, &config);
    let site = site::of_ports(&config, devices.describe(&config));
    let snapshot = Arc::new(Snapshot::unconfigured(&site));
    let mut publisher = Publisher::default();
    let mut crew = Crew { tables: &tables, clock: &clock, publisher: &mut publisher, snapshot: &snapshot };
    let (eal, workers, ports) = devices.into_workers(&mut crew, &mut link)?;
    let manager = Manager {
        link,
        publisher,
        model: Model::default(),
        snapshot,
        site,
        tables,
        clock,
        ports,
        census: Census::default(),
    };
    log::info!("{} worker(s) poll {} port(s)", workers.len(), config.dataplane.ports.len());
    work(&eal, workers, manager, &stop)
}

/// The link to the control plane and the tables.
fn memory(config: &Config) -> anyhow::Result<(DataLink, Arc<Tables>, Mapping)> {
    let dataplane = &config.dataplane;
    let link = DataLink::create(&dataplane.runtime_dir)?;
    let (flow_lines, token_lines) =
        (FlowTable::lines_for(dataplane.flows), TokenTable::lines_for(dataplane.tokens));
    let best = match dataplane.huge_pages {
        HugePages::Off => TablePages::Small,
        HugePages::Auto | HugePages::On => TablePages::Hugetlbfs,
    };
    let mut mapping = Mapping::create(link.lock(), flow_lines + token_lines, best)?;
    if dataplane.huge_pages == HugePages::On && mapping.pages() == TablePages::Small {
        bail!(
            "huge_pages = \"on\" and there are none for {} MiB of tables: mount -t hugetlbfs hugetlbfs /dev/hugepages \
             where none is mounted, raise /proc/sys/vm/nr_hugepages, or set huge_pages = \"auto\"",
            mapping.bytes().div_ceil(1 << 20)
        );
    }
    log::info!("tables for {} flows and {} tokens: {mapping}", dataplane.flows, dataplane.tokens);
    let flows = mapping.take(flow_lines)?;
    let tokens = mapping.take(token_lines)?;
    let tables = Arc::new(Tables::new(flows, tokens, &secret()?));

    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let gauges = link.gauges();
    gauges.set(Gauge::Workers, count(dataplane.workers.len()));
    gauges.set(Gauge::FlowCapacity, count(dataplane.flows));
    gauges.set(Gauge::TokenCapacity, count(dataplane.tokens));
    gauges.set(Gauge::TableBytes, count(mapping.bytes()));
    gauges.set(Gauge::TablePages, count(mapping.pages().index()));
    Ok((link, tables, mapping))
}

/// The tables' secret key: from the system, new with every start.
fn secret() -> anyhow::Result<[u8; 32]> {
    let mut secret = [0; 32];
    let mut filled = 0;
    while let Some(rest) = secret.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())
            .context("the system gives no random numbers for the tables' key")?;
    }
    Ok(secret)
}

/// DPDK and its ports.
struct Devices {
    eal: Eal,
    ports: Vec<Port>,
}

impl Devices {
    fn start(config: &Config) -> anyhow::Result<Self> {
        let dataplane = &config.dataplane;
        let devices: Vec<String> = dataplane.ports.iter().map(|port| port.device.clone()).collect();
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
        let pool = Pool::new(&eal, "frames", &pool_config(config))?;
        let mut ports = Vec::new();
        for port in &dataplane.ports {
            ports.push(configure(&eal, &pool, port, dataplane.workers.len())?);
        }
        Ok(Self { eal, ports })
    }

    /// The ports as the engine sees them.
    fn describe(&self, config: &Config) -> Vec<engine::snapshot::Port> {
        let known = self.ports.iter().zip(&config.dataplane.ports);
        known
            .map(|(port, configured)| {
                let mac = configured.mac.unwrap_or_else(|| port.mac());
                site::port(configured, Some(mac), port.driver() == "net_af_packet")
            })
            .collect()
    }

    /// Gives each worker a queue of every port and all else it owns.
    fn into_workers(
        mut self,
        crew: &mut Crew<'_>,
        link: &mut DataLink,
    ) -> anyhow::Result<(Eal, Vec<Worker>, Vec<Port>)> {
        let count = self.eal.lcores().len();
        let mut shares: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        for port in &mut self.ports {
            for (share, queues) in shares.iter_mut().zip(port.take_queues()) {
                share.push(queues);
            }
        }
        let mut workers = Vec::new();
        for (index, queues) in shares.into_iter().enumerate() {
            let id = WorkerId(u16::try_from(index).unwrap_or(u16::MAX));
            workers.push(Worker {
                queues,
                pipeline: Pipeline::default(),
                sweeper: Sweeper::new(index, count),
                subscriber: crew.publisher.subscribe(crew.snapshot),
                tables: Arc::clone(crew.tables),
                counters: link.worker(id).context("there are more workers than counters")?,
                clock: Arc::clone(crew.clock),
                began: crew.clock.now(),
                burst: Burst::with_limit(&self.eal, RECEIVE),
            });
        }
        Ok((self.eal, workers, self.ports))
    }
}

/// What all workers share.
struct Crew<'a> {
    tables: &'a Arc<Tables>,
    clock: &'a Arc<Clock>,
    publisher: &'a mut Publisher,
    snapshot: &'a Arc<Snapshot>,
}

/// Whether DPDK shall use huge pages: as configured, or where enough are free.
fn has_huge_pages(config: &Config) -> anyhow::Result<bool> {
    let dataplane = &config.dataplane;
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let needed = u64::from(dataplane.memory_mb);
    if dataplane.huge_pages == HugePages::Off {
        return has_memory(&meminfo, needed).map(|()| false);
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
        has_memory(&meminfo, needed)?;
    }
    Ok(enough)
}

/// Whether the machine has as much ordinary memory as DPDK is to take at once. Asked first, because DPDK would
/// fill the machine and hear no signal meanwhile.
fn has_memory(meminfo: &str, needed_mb: u64) -> anyhow::Result<()> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes: Option<u64> = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    match kilobytes.map(|kilobytes| kilobytes / 1024) {
        Some(available) if available < needed_mb => {
            bail!("memory_mb = {needed_mb} and {available} MiB are available: make memory_mb smaller")
        }
        _ => Ok(()),
    }
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

/// mbufs for every descriptor of every queue, every cache and every burst.
fn pool_config(config: &Config) -> PoolConfig {
    let workers = u32::try_from(config.dataplane.workers.len()).unwrap_or(u32::MAX);
    let descriptors: u32 = config
        .dataplane
        .ports
        .iter()
        .map(|port| u32::from(port.rx_descriptors) + u32::from(port.tx_descriptors))
        .sum();
    let burst = u32::try_from(2 * BURST).unwrap_or(0);
    let needed = workers * (descriptors + 2 * MBUF_CACHE + burst);
    PoolConfig {
        mbufs: (needed + 1).next_power_of_two() - 1,
        frame_room: FRAME_ROOM,
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
            // A MAC address of our own needs the frames the device would otherwise leave out.
            promiscuous: port.promiscuous || port.mac.is_some(),
        },
    )?;
    log::info!("port {}: driver {}, MTU {}", started.name(), started.driver(), started.mtu());
    Ok(started)
}

/// Tells the ports' facts to whoever reads the gauges.
fn show_ports(link: &DataLink, ports: &[Port], config: &Config) {
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

/// Manager and workers, until told to stop.
fn work(eal: &Eal, mut workers: Vec<Worker>, mut manager: Manager, stop: &AtomicBool) -> anyhow::Result<()> {
    // The manager must not share a worker's CPU where there is another.
    let elsewhere: Affinity = eal.affinity().without(eal.lcores());
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("manager".to_owned());
        let managing = thread.spawn_scoped(scope, || {
            if let Err(error) = elsewhere.apply() {
                log::warn!("the manager stays on the first worker's CPU: {error}");
            }
            manager.show_model();
            manager.run(stop);
        });
        managing.context("cannot start the manager's thread")?;
        let jobs: Vec<_> = workers.iter_mut().map(|worker| || worker.run(stop)).collect();
        let result = eal.run(jobs).context("cannot start the workers");
        stop.store(true, Ordering::Relaxed);
        result.map(|_| ())
    })?;
    log::info!("stopped");
    Ok(())
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
