//! What the engine is measured in: a configuration's snapshot, tables on the best pages there are, the time.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use config::Config;
use engine::flow_table::FlowTable;
use engine::pipeline::Context;
use engine::snapshot::Snapshot;
use engine::tables::Tables;
use engine::tick::Tick;
use engine::token_table::TokenTable;
use ipc::counters::WorkerCounters;
use ipc::id::{PoolId, PortId};
use ipc::lines::Lines;
use ipc::sync::Ordering;
use packet::{Address, Family};

use crate::traffic::Service;

/// The tables' key: a bench has nothing to hide, and should give every entry the same place every time.
pub const SECRET: [u8; 32] = *b"weft-bench: a key and no secret.";

/// When a measurement begins, in seconds of the data plane's clock: far enough from zero for ages.
pub const BEGIN_S: u64 = 1_000_000;

/// The backends of the bench's own configuration.
pub const BACKENDS: u16 = 100;

/// Lines of a huge page.
pub const HUGE_LINES: usize = (2 << 20) / ipc::lines::LINE;

/// The most it can have: their addresses are of one network.
pub const MOST_BACKENDS: u16 = 4000;

/// The port before that of the first backend's own.
const FIRST_ENDPOINT: u16 = 20_000;

/// Tables, what packets are looked up in, and the time.
#[derive(Debug)]
pub struct World {
    /// VIPs and backends.
    pub snapshot: Snapshot,
    /// Flows and tokens.
    pub tables: Tables,
    /// Lines of the flow table, for what is to have the same size.
    pub flow_lines: usize,
    /// Bytes of both tables, whole huge pages.
    pub bytes: usize,
    /// The time.
    pub now: Tick,
}

impl World {
    /// Empty tables for a configuration.
    ///
    /// # Errors
    /// The engine refuses what it says.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let snapshot = site::configured(config, &site::offline(config))?;
        let (flow_lines, token_lines) =
            (FlowTable::lines_for(config.dataplane.flows), TokenTable::lines_for(config.dataplane.tokens));
        let mut tables = Tables::new(touched(flow_lines), touched(token_lines), &SECRET);
        tables.lifetimes = site::lifetimes(&config.dataplane);
        let pages = flow_lines.div_ceil(HUGE_LINES) + token_lines.div_ceil(HUGE_LINES);
        let bytes = pages * HUGE_LINES * ipc::lines::LINE;
        Ok(Self { snapshot, tables, flow_lines, bytes, now: Tick::from_seconds(BEGIN_S) })
    }

    /// Empties both tables, as a restart does that finds none kept.
    pub fn forget(&mut self) {
        let lines = [self.tables.flows.lines(), self.tables.tokens.lines()].map(touched);
        let [flows, tokens] = lines;
        let lifetimes = self.tables.lifetimes.clone();
        self.tables = Tables::new(flows, tokens, &SECRET);
        self.tables.lifetimes = lifetimes;
    }

    /// What a burst is judged by.
    pub fn context<'a>(&'a self, counters: &'a WorkerCounters) -> Context<'a> {
        Context {
            snapshot: &self.snapshot,
            tables: &self.tables,
            counters,
            now: self.now,
            millis: BEGIN_S * 1000,
            port: PortId(0),
        }
    }

    /// The pool of the first VIP.
    pub fn pool(&self) -> PoolId {
        self.snapshot.vip(ipc::id::VipId(0)).map_or(PoolId(0), |vip| vip.pool)
    }
}

/// Zeroed lines whose pages are there: a page that was never written may be one page of zeros for all.
///
/// Whole huge pages are asked for, as a data plane has them: also a small table lies on one.
pub fn touched(count: usize) -> Lines {
    let whole = Lines::heap(count.next_multiple_of(HUGE_LINES).max(HUGE_LINES));
    let lines = whole.part(0..count).unwrap_or(whole);
    for word in lines.iter().filter_map(|line| line.0.first()) {
        word.store(0, Ordering::Relaxed);
    }
    lines
}

/// The configuration in a file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path) -> anyhow::Result<Config> {
    Config::load(path).map_err(|problems| {
        let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", list.join("\n"))
    })
}

/// The bench's own configuration: one VIP of each family, in a tunnel to [`BACKENDS`] backends, learning on.
///
/// # Errors
/// `flows` or `tokens` is out of range.
pub fn standard(flows: usize, tokens: usize) -> anyhow::Result<Config> {
    with_backends(flows, tokens, BACKENDS)
}

/// The same with another number of backends.
///
/// # Errors
/// `flows`, `tokens` or `backends` is out of range.
pub fn with_backends(flows: usize, tokens: usize, backends: u16) -> anyhow::Result<Config> {
    parsed(flows, tokens, backends, false)
}

/// The same, where each backend has a port of its own for joins: [`endpoint_ports`].
///
/// # Errors
/// `flows` or `tokens` is out of range.
pub fn with_endpoints(flows: usize, tokens: usize) -> anyhow::Result<Config> {
    parsed(flows, tokens, BACKENDS, true)
}

/// The ports of the backends of [`with_endpoints`], in their order.
pub fn endpoint_ports() -> impl Iterator<Item = u16> {
    (1..=BACKENDS).map(|n| FIRST_ENDPOINT + n)
}

fn parsed(flows: usize, tokens: usize, backends: u16, endpoints: bool) -> anyhow::Result<Config> {
    if !(1..=MOST_BACKENDS).contains(&backends) {
        bail!("{backends} backends: give 1 to {MOST_BACKENDS}");
    }
    let mut text = format!(
        "[dataplane]\nworkers = [0]\nflows = {flows}\ntokens = {tokens}\n\
         [[dataplane.port]]\ndevice = \"net_null0\"\nmac = \"{}\"\n\
         address = [\"10.0.0.1/16\", \"fd00::1/64\"]\nmtu = 1600\n\
         [[pool]]\nname = \"pool\"\n",
        config::format_mac(packet::build::PORT_MAC)
    );
    for n in 1..=backends {
        let [high, low] = n.to_be_bytes();
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "[[pool.backend]]\nname = \"backend-{n}\"\naddress = [\"10.0.{}.{low}\", \"fd00::1:{n:x}\"]\n\
             mac = \"02:00:00:01:{high:02x}:{low:02x}\"\n",
            1 + high
        );
        if endpoints {
            let _ = writeln!(text, "endpoint_port = {}", FIRST_ENDPOINT + n);
        }
    }
    let [v4, v6] = [Family::V4, Family::V6].map(Service::standard);
    let _ = write!(
        text,
        "[[vip]]\nname = \"vip\"\naddress = [\"{}\", \"{}\"]\nport = {}\nprotocol = \"tcp\"\npool = \"pool\"\n\
         forward = \"ipip\"\n[vip.mptcp]\nsteering = [{}\"learn\"]\nunknown_token = \"drop\"\n",
        v4.address,
        v6.address,
        v4.port,
        if endpoints { "\"endpoint\", " } else { "" },
    );
    Config::parse(&text, "the bench's own configuration").map_err(|problems| {
        let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", list.join("\n"))
    })
}

/// The first TCP service of a configuration in a family, as its clients see it.
///
/// # Errors
/// There is none.
pub fn service(config: &Config, family: Family) -> anyhow::Result<Service> {
    let of_family =
        |vip: &config::Vip| vip.addresses.iter().copied().map(Address::from).find(|a| a.family() == family);
    let found = config
        .vips
        .iter()
        .filter(|vip| vip.protocol == ipc::message::Protocol::Tcp)
        .find_map(|vip| Some((of_family(vip)?, vip.ports.numbers().first().copied()?)));
    let Some((address, port)) = found else {
        bail!("the configuration has no TCP VIP of this family: add one, or choose the other with --family");
    };
    let mac = config.dataplane.ports.first().map(|port| port.mac.context("the first port needs a mac"));
    let mac = mac.transpose()?.unwrap_or(packet::build::PORT_MAC);
    Ok(Service { address, family, port: if port == 0 { 443 } else { port }, mac })
}
