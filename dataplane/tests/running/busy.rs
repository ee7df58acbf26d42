//! A running `weft-dataplane` under traffic that does not end, and the changes that its tests make.

use std::collections::BTreeMap;

use ipc::control_link::{ControlLink, Dump};
use ipc::counter::Counter;
use ipc::counters::CounterReader;
use ipc::id::{BackendId, WorkerId};
use ipc::message::{BackendState, Command as Change, Event, Handles, Name, Presence};

use super::packets::{ack, write_pcap};
use super::{DataPlane, PATIENCE, Place, Setup, commands, commit, until, workers};

/// Connections of the endless traffic.
pub const FLOWS: u16 = 512;

/// A data plane whose every worker receives the same packets over and over: the middle of [`FLOWS`] connections.
/// What it sends, net_pcap counts and drops.
pub struct Busy {
    pub place: Place,
    pub running: DataPlane,
    pub link: ControlLink,
    pub counters: CounterReader,
    pub workers: Vec<WorkerId>,
    pub generation: u64,
}

impl Busy {
    /// Configured, and with every connection in the flow table.
    pub fn start(setup: &Setup<'_>) -> Self {
        Self::start_with(setup, &[])
    }

    /// The same, with these changes in the first batch, behind the configuration's own.
    pub fn start_with(setup: &Setup<'_>, changes: &[Change]) -> Self {
        let place = Place::new();
        let input = place.path("in.pcap");
        let flows: Vec<Vec<u8>> = (0..FLOWS).map(|flow| ack(10_000 + flow)).collect();
        write_pcap(&input, &flows);
        let cpus = workers(2);
        let queues = format!(",rx_pcap={}", input.display()).repeat(cpus.len());
        let device = format!("net_pcap0{queues},infinite_rx=1");
        let config = place.configure(&Setup { workers: &cpus, devices: &[&device], ..*setup });
        let mut running = DataPlane::start(&place, &config);
        let mut link = running.control(&place);
        let generation = commit(&mut link, &[&commands(&config), changes].concat());
        let workers = (0..u16::try_from(cpus.len()).unwrap()).map(WorkerId).collect();
        let busy = Self { place, running, counters: link.counters(), link, workers, generation };
        busy.advance(u64::from(FLOWS) + 64);
        busy
    }

    pub fn received(&self, worker: WorkerId) -> u64 {
        self.counters.worker(worker).unwrap().counter(Counter::RxPackets)
    }

    /// Waits until every worker has received so many packets more.
    pub fn advance(&self, packets: u64) {
        let before: Vec<u64> = self.workers.iter().map(|worker| self.received(*worker)).collect();
        until("every worker goes on", || {
            self.workers
                .iter()
                .zip(&before)
                .all(|(worker, before)| self.received(*worker) >= before + packets)
        });
    }

    pub fn dump(&mut self) -> Dump {
        self.link.dump(PATIENCE).unwrap()
    }
}

/// Names and ids of a dump's backends, those left out that are removed.
pub fn backends(dump: &Dump) -> BTreeMap<String, BackendId> {
    let backends = dump.records.iter().filter_map(|record| match record {
        Event::Backend { name, id, presence: Presence::Present, .. } => Some((name.to_string(), *id)),
        _ => None,
    });
    backends.collect()
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn put(backend: &str, weight: u32) -> Change {
    Change::PutBackend {
        pool: name("web-servers"),
        name: name(backend),
        address4: Some([10, 0, 1, 77].into()),
        address6: None,
        mac: Some([2, 0, 0, 0, 3, 77]),
        weight,
        state: BackendState::Active,
        handles: Handles::default(),
    }
}

pub fn remove(backend: &str) -> Change {
    Change::RemoveBackend { pool: name("web-servers"), name: name(backend), deadline: None }
}
