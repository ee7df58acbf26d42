//! A balancer without ports for generated traffic: the configuration, snapshot, tables and pipeline of the process.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its own part of these helpers of tests"
)]

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use config::Config;
use engine::frames::VecFrames;
use engine::pipeline::{Context, Pipeline};
use engine::snapshot::Snapshot;
use engine::tables::Tables;
use engine::tick::Tick;
use engine::verdict::Verdict;
use ipc::counter::Counter;
use ipc::counters::WorkerCounters;
use ipc::id::PortId;
use packet::Flow;
use weft_bench::generate::{Families, Kind, Plan, Stream, Vip};

/// Eight backends behind a TCP and a UDP VIP of both families.
pub fn config() -> Config {
    let mut text = String::from(
        "[dataplane]\nworkers = [0]\nflows = 65536\ntokens = 65536\n\n[[dataplane.port]]\ndevice = \"net_null0\"\n\
         mac = \"02:00:00:00:02:01\"\naddress = [\"10.0.1.254/24\", \"fd00:1::254/64\"]\nmtu = 9100\n\n\
         [[pool]]\nname = \"servers\"\n",
    );
    for number in 1..=8 {
        text += &format!(
            "[[pool.backend]]\nname = \"b{number}\"\naddress = [\"10.0.1.{number}\", \"fd00:1::{number}\"]\n\
             mac = \"02:00:00:00:03:{number:02x}\"\n"
        );
    }
    for protocol in ["tcp", "udp"] {
        text += &format!(
            "[[vip]]\nname = \"{protocol}\"\naddress = [\"10.9.9.9\", \"fd99::9\"]\nport = 8000\n\
             protocol = \"{protocol}\"\npool = \"servers\"\nforward = \"l2dsr\"\n"
        );
    }
    Config::parse(&text, "weft.toml").unwrap()
}

/// Both families.
pub fn both() -> Option<Families> {
    Some(Families::Both)
}

/// The plan to TCP and UDP VIPs.
pub fn with_udp(plan: Plan) -> Plan {
    let mut vips: Vec<Vip> = plan.vips.iter().map(|vip| Vip { udp: true, ..*vip }).collect();
    vips.extend(plan.vips.iter().map(|vip| Vip { udp: false, ..*vip }).collect::<Vec<_>>());
    if plan.vips.is_empty() { plan } else { Plan { vips, ..plan } }
}

/// A generated packet.
#[derive(Clone, Debug)]
pub struct Generated {
    pub time: Duration,
    pub kind: Kind,
    pub connection: u64,
    pub bytes: Vec<u8>,
}

/// All packets of a plan.
pub fn collect(plan: Plan) -> Vec<Generated> {
    let mut stream = Stream::new(plan).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = stream.next() {
        packets.push(Generated {
            time: packet.time,
            kind: packet.kind,
            connection: packet.connection,
            bytes: packet.bytes.to_vec(),
        });
    }
    assert_eq!(packets.len() as u64, stream.packets());
    packets
}

/// A packet and what the engine made of it.
#[derive(Clone, Debug)]
pub struct Judged {
    pub time: Duration,
    pub kind: Kind,
    pub connection: u64,
    pub verdict: Verdict,
    pub flow: Flow,
    pub first_of_its_flow: bool,
    seq: u32,
}

impl Judged {
    /// The sequence number of a TCP packet.
    pub fn seq(&self) -> u32 {
        self.seq
    }
}

/// Packets by kind.
pub fn names(judged: &[Judged]) -> BTreeMap<&'static str, u64> {
    let mut names = BTreeMap::new();
    for packet in judged {
        *names.entry(packet.kind.name()).or_default() += 1;
    }
    names
}

/// See the module's header.
pub struct World {
    snapshot: Snapshot,
    tables: Tables,
    counters: WorkerCounters,
    pipeline: Pipeline,
    flows: HashSet<Flow>,
}

impl World {
    pub fn new() -> Self {
        let config = config();
        let site = site::offline(&config);
        Self {
            snapshot: site::configured(&config, &site).unwrap(),
            tables: Tables::on_heap(config.dataplane.flows, config.dataplane.tokens, &[7; 32]),
            counters: WorkerCounters::heap(),
            pipeline: Pipeline::default(),
            flows: HashSet::new(),
        }
    }

    /// Judges a plan's packets in bursts of 32. All of it happens within one tick.
    pub fn judge(&mut self, plan: Plan) -> Vec<Judged> {
        let mut judged = Vec::new();
        for burst in collect(with_udp(plan)).chunks(32) {
            let mut frames = VecFrames::new(burst.iter().map(|packet| packet.bytes.clone()).collect());
            let cx = Context {
                snapshot: &self.snapshot,
                tables: &self.tables,
                counters: &self.counters,
                now: Tick::from_seconds(1000),
                millis: 1_000_000,
                port: PortId(0),
            };
            let verdicts: Vec<Verdict> = self.pipeline.process(&mut frames, &cx).verdicts().collect();
            assert_eq!(verdicts.len(), burst.len());
            for (packet, verdict) in burst.iter().zip(verdicts) {
                let parsed = packet::parse(&packet.bytes, packet.bytes.len());
                judged.push(Judged {
                    time: packet.time,
                    kind: packet.kind,
                    connection: packet.connection,
                    verdict,
                    flow: parsed.flow,
                    first_of_its_flow: self.flows.insert(parsed.flow),
                    seq: parsed.tcp.seq,
                });
            }
        }
        judged
    }

    /// A counter.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters.reader().counter(counter)
    }
}
