//! Counters and gauges in shared memory: what the data plane writes and anybody may read.
//!
//! Why it exists: the packet path counts with plain stores (one writer a block, no locked instruction, no
//! system call), and the control plane reads them without asking. Invariants: every word has one writer;
//! counters only grow; a reader may see a burst half counted, never a torn word.
//!
//! The reader must not believe in sums that add up: the data plane may be corrupt, and a count is a number to
//! show, never an index.

use core::cell::Cell;
use core::marker::PhantomData;

use crate::counter::Counter;
use crate::id::{BackendId, PortId, VipId, WorkerId};
use crate::layout::{GAUGES, WORKER_LINES, gauge_words, worker, worker_words};
use crate::limits::{MAX_BACKENDS, MAX_NAME, MAX_PORTS, MAX_VIPS, MAX_WORKERS};
use crate::lines::{HugePages, Lines, WORDS};
use crate::names;
use crate::reason::Reason;
use crate::sync::Ordering;

names! {
    /// A value the manager writes now and then.
    pub enum Gauge {
        /// Generation of the configuration in force; 0 before the first.
        Generation = "generation",
        /// Workers that poll.
        Workers = "workers",
        /// Ports in use.
        Ports = "ports",
        /// Pools configured.
        Pools = "pools",
        /// Backends configured.
        Backends = "backends",
        /// VIPs configured.
        Vips = "vips",
        /// Services configured.
        Services = "services",
        /// Entries the flow table was made for.
        FlowCapacity = "flow_capacity",
        /// Live entries of the flow table, at the last sweep.
        Flows = "flows",
        /// Entries the token table was made for.
        TokenCapacity = "token_capacity",
        /// Live entries of the token table, at the last sweep.
        Tokens = "tokens",
        /// Bytes of both tables.
        TableBytes = "table_bytes",
        /// Pages under the tables: the index of a kind of page.
        TablePages = "table_pages",
        /// 1 when the tables are those of the data plane before, 0 when they began empty.
        TablesKept = "tables_kept",
        /// Packet buffers (mbufs) there are.
        MbufCapacity = "mbuf_capacity",
        /// Packet buffers in use.
        MbufsInUse = "mbufs_in_use",
    }
}

names! {
    /// A value the manager writes for each port.
    pub enum PortGauge {
        /// MAC address, its first byte the most significant of six.
        Mac = "mac",
        /// Largest IP packet.
        Mtu = "mtu",
        /// 1 when the link is up.
        LinkUp = "link_up",
        /// How often the link went down.
        LinkDowns = "link_downs",
        /// Packets the device dropped because no worker took them.
        RxMissed = "rx_missed",
        /// Packets the device received with an error.
        RxErrors = "rx_errors",
        /// Packets lost because no mbuf was free.
        RxNoMbuf = "rx_no_mbuf",
        /// Packets the device failed to send.
        TxErrors = "tx_errors",
    }
}

names! {
    /// What the manager counts about its peer, the control plane, and about what agents report through it.
    pub enum LinkCounter {
        /// Attaches granted.
        Attached = "attached",
        /// Peers that died or left.
        Detached = "detached",
        /// Batches applied.
        Committed = "committed",
        /// Batches refused.
        Refused = "refused",
        /// Batches forgotten: given up by the peer, or the peer died or attached anew.
        Abandoned = "abandoned",
        /// Links closed because a ring cursor was impossible.
        BadCursor = "bad_cursor",
        /// Links closed because a slot held no message.
        BadMessage = "bad_message",
        /// Links closed because a message came where it makes no sense.
        OutOfOrder = "out_of_order",
        /// Links closed because the peer does not take its events.
        NotReading = "not_reading",
        /// Tokens that an agent proved, and that were not proven before.
        AgentProven = "agent_proven",
        /// Tokens that an agent claimed, refused: another backend's agent proved them first, or there was no place.
        AgentRefused = "agent_refused",
        /// Tokens that went because their agent said that the connection ended.
        AgentClosed = "agent_closed",
        /// Flows entered, or sent to another backend than Maglev's, because an agent said that they live there.
        AgentInstalled = "agent_installed",
        /// Flows that an agent claimed, refused: for no service of its pool, on another backend, or there was no place.
        AgentFlowRefused = "agent_flow_refused",
        /// Flows that began to close because an agent said that they ended.
        AgentEnded = "agent_ended",
        /// Tokens known by their handshakes alone that gave way to ones that agents proved.
        AgentTokenEvicted = "agent_token_evicted",
        /// Flows whose entries gave way to ones that agents reported.
        AgentFlowEvicted = "agent_flow_evicted",
        /// Reports about a backend that is not known (any more).
        AgentUnknown = "agent_unknown",
    }
}

/// Adds to a word that has one writer: two plain moves, no locked instruction. Past the end: nothing.
#[inline]
fn add(block: &Lines, index: usize, amount: u64) {
    if let Some(word) = block.word(index) {
        word.store(word.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }
}

/// Adds to two neighbouring words of one line, of which the first has an even number.
#[inline]
fn add_pair(block: &Lines, index: usize, first: u64, second: u64) {
    if let Some(line) = block.get(index / WORDS) {
        let pair = line.0.as_chunks::<2>().0.get(index / 2 % (WORDS / 2));
        if let Some([one, other]) = pair {
            one.store(one.load(Ordering::Relaxed).wrapping_add(first), Ordering::Relaxed);
            other.store(other.load(Ordering::Relaxed).wrapping_add(second), Ordering::Relaxed);
        }
    }
}

#[inline]
fn load(block: &Lines, index: usize) -> u64 {
    block.word(index).map_or(0, |word| word.load(Ordering::Relaxed))
}

#[inline]
fn store(block: &Lines, index: usize, value: u64) {
    if let Some(word) = block.word(index) {
        word.store(value, Ordering::Relaxed);
    }
}

/// The block of one worker, in the hands of that worker: may move to its thread, may not be shared.
#[derive(Debug)]
pub struct WorkerCounters {
    block: Lines,
    /// Cell is not Sync: two threads cannot add through one handle.
    single_writer: PhantomData<Cell<()>>,
}

impl WorkerCounters {
    /// A block of its own, for tests and replay.
    pub fn heap() -> WorkerCounters {
        WorkerCounters { block: Lines::heap(WORKER_LINES), single_writer: PhantomData }
    }

    /// The block of `worker` in a segment; `None` when there is no such worker. The caller takes each once.
    pub(crate) fn of(segment: &Lines, id: WorkerId) -> Option<WorkerCounters> {
        Some(WorkerCounters { block: worker_block(segment, id)?, single_writer: PhantomData })
    }

    /// Adds to a counter.
    #[inline]
    pub fn add(&self, counter: Counter, amount: u64) {
        add(&self.block, worker_words::COUNTERS + counter.index(), amount);
    }

    /// Counts packets with this reason.
    #[inline]
    pub fn reason(&self, reason: Reason, packets: u64) {
        add(&self.block, worker_words::REASONS + reason.index(), packets);
    }

    /// Counts packets and bytes of a VIP.
    #[inline]
    pub fn vip(&self, vip: VipId, packets: u64, bytes: u64) {
        let index = usize::from(vip.0);
        if index < MAX_VIPS {
            add(&self.block, worker_words::VIPS + 2 * index, packets);
            add(&self.block, worker_words::VIPS + 2 * index + 1, bytes);
        }
    }

    /// Counts packets and bytes forwarded to a backend.
    #[inline]
    pub fn backend(&self, backend: BackendId, packets: u64, bytes: u64) {
        let index = usize::from(backend.0);
        if index < MAX_BACKENDS {
            add_pair(&self.block, worker_words::BACKENDS + 2 * index, packets, bytes);
        }
    }

    /// A reader of this block.
    pub fn reader(&self) -> CounterReader {
        CounterReader { blocks: vec![self.block.clone()], bases: None }
    }
}

fn worker_block(segment: &Lines, id: WorkerId) -> Option<Lines> {
    let index = usize::from(id.0);
    if index < MAX_WORKERS { segment.part(worker(index)) } else { None }
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many packets.
    pub packets: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Reads counters: of one worker, or the sums over all.
#[derive(Clone, Debug)]
pub struct CounterReader {
    blocks: Vec<Lines>,
    /// The gauges, which say what was counted under an id before it was its present owner's.
    bases: Option<Lines>,
}

impl CounterReader {
    /// The sums over all workers of a segment.
    pub(crate) fn of(segment: &Lines) -> CounterReader {
        let blocks = (0..MAX_WORKERS).filter_map(|index| segment.part(worker(index))).collect();
        CounterReader { blocks, bases: segment.part(GAUGES) }
    }

    /// One worker alone; `None` when there is no such worker. What it counted under an id that had another owner
    /// before counts as its present owner's: only for the sums is it known how much that was.
    pub fn worker(&self, id: WorkerId) -> Option<CounterReader> {
        Some(CounterReader { blocks: vec![self.blocks.get(usize::from(id.0))?.clone()], bases: None })
    }

    /// The sums under every id since the start, whoever had it.
    pub(crate) fn with_former_owners(&self) -> CounterReader {
        CounterReader { blocks: self.blocks.clone(), bases: None }
    }

    /// A counter.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.sum(worker_words::COUNTERS + counter.index())
    }

    /// Packets with this reason.
    pub fn reason(&self, reason: Reason) -> u64 {
        self.sum(worker_words::REASONS + reason.index())
    }

    /// Traffic of a VIP since it has this id; none for an id that cannot be.
    pub fn vip(&self, vip: VipId) -> Traffic {
        self.traffic(worker_words::VIPS, gauge_words::VIP_BASES, usize::from(vip.0), MAX_VIPS)
    }

    /// Traffic forwarded to a backend since it has this id; none for an id that cannot be.
    pub fn backend(&self, backend: BackendId) -> Traffic {
        let (first, base) = (worker_words::BACKENDS, gauge_words::BACKEND_BASES);
        self.traffic(first, base, usize::from(backend.0), MAX_BACKENDS)
    }

    fn traffic(&self, first: usize, base: usize, index: usize, end: usize) -> Traffic {
        if index >= end {
            return Traffic::default();
        }
        // A base may be set between the two loads: then it is larger, for a moment.
        let since = |word: usize| {
            let before = self.bases.as_ref().map_or(0, |gauges| load(gauges, base + 2 * index + word));
            self.sum(first + 2 * index + word).saturating_sub(before)
        };
        Traffic { packets: since(0), bytes: since(1) }
    }

    fn sum(&self, index: usize) -> u64 {
        self.blocks.iter().fold(0, |sum, block| sum.wrapping_add(load(block, index)))
    }
}

/// The gauges, in the hands of the manager.
#[derive(Debug)]
pub struct GaugeWriter {
    block: Lines,
    single_writer: PhantomData<Cell<()>>,
}

impl GaugeWriter {
    /// Gauges of its own, for tests and replay.
    pub fn heap() -> GaugeWriter {
        GaugeWriter { block: Lines::heap(GAUGES.len()), single_writer: PhantomData }
    }

    pub(crate) fn of(segment: &Lines) -> Option<GaugeWriter> {
        Some(GaugeWriter { block: segment.part(GAUGES)?, single_writer: PhantomData })
    }

    /// Sets a gauge.
    pub fn set(&self, gauge: Gauge, value: u64) {
        store(&self.block, gauge_words::VALUES + gauge.index(), value);
    }

    /// Sets what a backend holds.
    pub fn set_backend(&self, backend: BackendId, flows: u64, tokens: u64) {
        let index = usize::from(backend.0);
        if index < MAX_BACKENDS {
            store(&self.block, gauge_words::BACKEND_FLOWS + index, flows);
            store(&self.block, gauge_words::BACKEND_TOKENS + index, tokens);
        }
    }

    /// Sets what was counted under a VIP's id before it was this VIP's.
    pub(crate) fn set_vip_base(&self, vip: VipId, before: Traffic) {
        if usize::from(vip.0) < MAX_VIPS {
            self.set_base(gauge_words::VIP_BASES + 2 * usize::from(vip.0), before);
        }
    }

    /// Sets what was counted under a backend's id before it was this backend's.
    pub(crate) fn set_backend_base(&self, backend: BackendId, before: Traffic) {
        if usize::from(backend.0) < MAX_BACKENDS {
            self.set_base(gauge_words::BACKEND_BASES + 2 * usize::from(backend.0), before);
        }
    }

    fn set_base(&self, first: usize, before: Traffic) {
        store(&self.block, first, before.packets);
        store(&self.block, first + 1, before.bytes);
    }

    /// Sets a port's device name; what does not fit is cut off.
    pub fn set_port_name(&self, port: PortId, name: &str) {
        let Some(first) = port_word(port) else { return };
        let mut bytes = [0; MAX_NAME + 1];
        for (to, from) in bytes.iter_mut().zip(name.bytes().take(MAX_NAME)) {
            *to = from;
        }
        for (index, word) in bytes.as_chunks::<8>().0.iter().enumerate() {
            store(&self.block, first + index, u64::from_le_bytes(*word));
        }
    }

    /// Sets a value of a port.
    pub fn set_port(&self, port: PortId, gauge: PortGauge, value: u64) {
        if let Some(first) = port_word(port) {
            store(&self.block, first + gauge_words::PORT_VALUES + gauge.index(), value);
        }
    }

    /// Counts an event of the link.
    pub fn count(&self, counter: LinkCounter) {
        self.count_more(counter, 1);
    }

    /// Counts several events of the link.
    pub fn count_more(&self, counter: LinkCounter, events: u64) {
        add(&self.block, gauge_words::LINK + counter.index(), events);
    }

    /// A reader of these gauges.
    pub fn reader(&self) -> GaugeReader {
        GaugeReader { block: self.block.clone() }
    }
}

/// First word of a port, within the gauges.
fn port_word(port: PortId) -> Option<usize> {
    let index = usize::from(port.0);
    (index < MAX_PORTS).then_some(gauge_words::PORTS + index * gauge_words::PORT)
}

/// Reads the gauges.
#[derive(Clone, Debug)]
pub struct GaugeReader {
    block: Lines,
}

impl GaugeReader {
    pub(crate) fn of(segment: &Lines) -> Option<GaugeReader> {
        Some(GaugeReader { block: segment.part(GAUGES)? })
    }

    /// A gauge.
    pub fn get(&self, gauge: Gauge) -> u64 {
        load(&self.block, gauge_words::VALUES + gauge.index())
    }

    /// What kind of pages the tables lie on, if the data plane has said so.
    pub fn table_pages(&self) -> Option<HugePages> {
        // Zero bytes: nothing was said yet.
        let index = usize::try_from(self.get(Gauge::TablePages)).ok()?;
        if self.get(Gauge::TableBytes) == 0 { None } else { HugePages::from_index(index) }
    }

    /// Flow and token entries of a backend, at the last sweep; zero for an id that cannot be.
    pub fn backend(&self, backend: BackendId) -> (u64, u64) {
        let index = usize::from(backend.0);
        if index >= MAX_BACKENDS {
            return (0, 0);
        }
        (
            load(&self.block, gauge_words::BACKEND_FLOWS + index),
            load(&self.block, gauge_words::BACKEND_TOKENS + index),
        )
    }

    /// The ports that have a name, in order.
    pub fn ports(&self) -> impl Iterator<Item = PortId> {
        (0..u8::MAX).map(PortId).take(MAX_PORTS).filter(|port| !self.port_name(*port).is_empty())
    }

    /// A port's device name; empty when there is no such port.
    pub fn port_name(&self, port: PortId) -> String {
        let Some(first) = port_word(port) else {
            return String::new();
        };
        let words = (first..first + (MAX_NAME + 1) / 8).map(|index| load(&self.block, index).to_le_bytes());
        let bytes: Vec<u8> = words.flatten().take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A value of a port.
    pub fn port(&self, port: PortId, gauge: PortGauge) -> u64 {
        port_word(port).map_or(0, |first| load(&self.block, first + gauge_words::PORT_VALUES + gauge.index()))
    }

    /// What the manager counted about the control plane.
    pub fn link(&self, counter: LinkCounter) -> u64 {
        load(&self.block, gauge_words::LINK + counter.index())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::layout::SEGMENT_LINES;

    #[test]
    fn every_counter_has_a_place_of_its_own() {
        let counters = WorkerCounters::heap();
        let reader = counters.reader();
        let mut next = 1;
        for counter in Counter::ALL {
            counters.add(*counter, next);
            next += 1;
        }
        for reason in Reason::ALL {
            counters.reason(*reason, next);
            next += 1;
        }
        counters.vip(VipId(0), 1000, 1001);
        counters.vip(VipId(255), 1002, 1003);
        counters.backend(BackendId(1), 1004, 1005);
        counters.backend(BackendId(4095), 1006, 1007);
        let mut expected = 1;
        for counter in Counter::ALL {
            assert_eq!(reader.counter(*counter), expected);
            expected += 1;
        }
        for reason in Reason::ALL {
            assert_eq!(reader.reason(*reason), expected);
            expected += 1;
        }
        assert_eq!(reader.vip(VipId(0)), Traffic { packets: 1000, bytes: 1001 });
        assert_eq!(reader.vip(VipId(255)), Traffic { packets: 1002, bytes: 1003 });
        assert_eq!(reader.backend(BackendId(1)), Traffic { packets: 1004, bytes: 1005 });
        assert_eq!(reader.backend(BackendId(4095)), Traffic { packets: 1006, bytes: 1007 });
    }

    #[test]
    fn ids_out_of_range_count_nothing_and_read_as_nothing() {
        let counters = WorkerCounters::heap();
        counters.vip(VipId(256), 1, 1);
        counters.backend(BackendId(4096), 1, 1);
        let reader = counters.reader();
        assert_eq!(reader.vip(VipId(256)), Traffic::default());
        assert_eq!(reader.backend(BackendId(0)), Traffic::default(), "the VIP did not run over");
        assert_eq!(reader.backend(BackendId(u16::MAX)), Traffic::default());
    }

    #[test]
    fn the_reader_sums_over_workers_and_shows_each_alone() {
        let segment = Lines::heap(SEGMENT_LINES);
        let last = u16::try_from(MAX_WORKERS - 1).unwrap();
        for (worker, amount) in [(0, 5), (last, 7)] {
            WorkerCounters::of(&segment, WorkerId(worker)).unwrap().add(Counter::RxPackets, amount);
        }
        assert!(WorkerCounters::of(&segment, WorkerId(last + 1)).is_none());
        let reader = CounterReader::of(&segment);
        assert_eq!(reader.counter(Counter::RxPackets), 12);
        assert_eq!(reader.worker(WorkerId(last)).unwrap().counter(Counter::RxPackets), 7);
        assert_eq!(reader.worker(WorkerId(1)).unwrap().counter(Counter::RxPackets), 0);
        assert!(reader.worker(WorkerId(last + 1)).is_none());
    }

    #[test]
    fn gauges_read_as_they_were_set() {
        let gauges = GaugeWriter::heap();
        let reader = gauges.reader();
        assert_eq!(reader.table_pages(), None);
        gauges.set(Gauge::TableBytes, 4096);
        gauges.set(Gauge::TablePages, u64::try_from(HugePages::Small.index()).unwrap());
        gauges.set_backend(BackendId(4095), 3, 4);
        gauges.set_port_name(PortId(15), "net_af_packet0,iface=lb0");
        gauges.set_port(PortId(15), PortGauge::Mtu, 1600);
        gauges.count(LinkCounter::Attached);
        assert_eq!(reader.table_pages(), Some(HugePages::Small));
        assert_eq!(reader.backend(BackendId(4095)), (3, 4));
        assert_eq!(reader.backend(BackendId(4096)), (0, 0));
        assert_eq!(reader.ports().collect::<Vec<_>>(), [PortId(15)]);
        assert_eq!(reader.port_name(PortId(15)), "net_af_packet0,iface=lb0");
        assert_eq!(reader.port(PortId(15), PortGauge::Mtu), 1600);
        assert_eq!(reader.port(PortId(16), PortGauge::Mtu), 0);
        assert_eq!(reader.link(LinkCounter::Attached), 1);
    }

    #[test]
    fn a_long_port_name_is_cut_not_refused() {
        let gauges = GaugeWriter::heap();
        gauges.set_port_name(PortId(0), &"x".repeat(200));
        assert_eq!(gauges.reader().port_name(PortId(0)), "x".repeat(MAX_NAME));
    }
}
