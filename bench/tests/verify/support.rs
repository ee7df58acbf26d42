//! Traffic, a Weft in process, and captures of what went in and came out.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use capture::CaptureWriter;
use config::Config;
use engine::frames::VecFrames;
use engine::pipeline::{Context, Pipeline};
use engine::snapshot::Snapshot;
use engine::tables::Tables;
use engine::tick::Tick;
use ipc::counters::WorkerCounters;
use ipc::id::PortId;
use packet::build::{PacketBuilder, packet};
use packet::{Address, Family, Flow, Key, Token, Version};
use tempfile::TempDir;
use weft_bench::verify::Verify;
use weft_bench::verify::report::Report;

/// A frame and when it was seen.
pub type Seen = (Duration, Vec<u8>);

/// The port every frame goes to.
pub const PORT: &str = r#"
[[dataplane.port]]
device  = "net_null0"
mac     = "02:00:00:00:02:01"
address = ["10.0.1.254/24", "fd00:1::254/64"]
mtu     = 1600
"#;

/// Backends of both families, and of one.
const POOLS: &str = r#"
[[pool]]
name = "both"
[[pool.backend]]
name    = "b1"
address = ["10.0.1.11", "fd00:1::11"]
mac     = "02:00:00:00:03:01"
[[pool.backend]]
name    = "b2"
address = ["10.0.1.12", "fd00:1::12"]
mac     = "02:00:00:00:03:02"
[[pool.backend]]
name    = "b3"
address = ["10.0.1.13", "fd00:1::13"]
mac     = "02:00:00:00:03:03"

[[pool]]
name = "four"
[[pool.backend]]
name    = "f1"
address = ["10.0.1.21"]
mac     = "02:00:00:00:03:11"
[[pool.backend]]
name    = "f2"
address = ["10.0.1.22"]
mac     = "02:00:00:00:03:12"

[[pool]]
name = "six"
[[pool.backend]]
name    = "s1"
address = ["fd00:1::31"]
mac     = "02:00:00:00:03:21"
[[pool.backend]]
name    = "s2"
address = ["fd00:1::32"]
mac     = "02:00:00:00:03:22"
"#;

/// A configuration whose TCP and UDP VIPs forward this way to this pool.
pub fn config(port: &str, pool: &str, forward: &str) -> String {
    let head = "[dataplane]\nworkers = [1]\nflows = 100_000\ntokens = 100_000\n";
    let vip = |name: &str, number: u16, protocol: &str| {
        format!(
            "[[vip]]\nname = \"{name}\"\naddress = [\"10.9.9.9\", \"fd99::9\"]\nport = {number}\n\
             protocol = \"{protocol}\"\npool = \"{pool}\"\nforward = \"{forward}\"\n"
        )
    };
    [head, port, POOLS, &vip("web", 443, "tcp"), &vip("dns", 53, "udp")].concat()
}

/// The engine with empty tables, configured by a file.
pub struct Weft {
    snapshot: Snapshot,
    tables: Tables,
    counters: WorkerCounters,
    pipeline: Pipeline,
}

impl Weft {
    pub fn new(text: &str) -> Self {
        let config = Config::parse(text, "weft.toml").unwrap();
        let site = site::offline(&config);
        Self {
            snapshot: site::configured(&config, &site).unwrap(),
            tables: Tables::on_heap(config.dataplane.flows, config.dataplane.tokens, &[7; 32]),
            counters: WorkerCounters::heap(),
            pipeline: Pipeline::default(),
        }
    }

    /// What comes out, in bursts of 32.
    pub fn run(&mut self, input: &[Seen]) -> Vec<Seen> {
        let mut output = Vec::new();
        for burst in input.chunks(32) {
            let mut frames = VecFrames::new(burst.iter().map(|(_, bytes)| bytes.clone()).collect());
            let cx = Context {
                snapshot: &self.snapshot,
                tables: &self.tables,
                counters: &self.counters,
                now: Tick::from_seconds(burst[0].0.as_secs()),
                millis: u64::try_from(burst[0].0.as_millis()).unwrap(),
                port: PortId(0),
            };
            let sent: Vec<bool> = self
                .pipeline
                .process(&mut frames, &cx)
                .verdicts()
                .map(|verdict| verdict.action.is_sent())
                .collect();
            for ((sent, (time, _)), frame) in sent.into_iter().zip(burst).zip(frames.into_inner()) {
                if sent {
                    output.push((*time, frame.bytes));
                }
            }
        }
        output
    }
}

/// Captures in a folder of their own, and what `verify` says of them.
pub struct Case {
    folder: TempDir,
    pub options: Verify,
}

impl Case {
    pub fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("weft.toml"), config).unwrap();
        let options = Verify {
            input: path("in.pcap"),
            output: path("out.pcap"),
            config: path("weft.toml"),
            warm: None,
            allow_drops: false,
            show: 20,
            json: false,
        };
        Self { folder, options }
    }

    /// Writes a capture and gives its path.
    pub fn write(&self, name: &str, packets: &[Seen]) -> PathBuf {
        let path = self.folder.path().join(name);
        let mut writer = CaptureWriter::create(&path).unwrap();
        for (time, bytes) in packets {
            writer.write(*time, bytes, 0).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    /// What `verify` says of these.
    pub fn verify(&self, input: &[Seen], output: &[Seen]) -> Report {
        self.write("in.pcap", input);
        self.write("out.pcap", output);
        self.options.report().unwrap()
    }
}

/// A client's flow to the VIP.
pub fn flow(family: Family, host: u16, port: u16, vip_port: u16) -> Flow {
    let [high, low] = host.to_be_bytes();
    let (source, destination) = match family {
        Family::V4 => (Address::from_v4([192, 0, high, low]), Address::from_v4([10, 9, 9, 9])),
        Family::V6 => {
            let mut client = [0; 16];
            client[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
            client[14..].copy_from_slice(&[high, low]);
            let mut vip = [0; 16];
            (vip[0], vip[1], vip[15]) = (0xfd, 0x99, 9);
            (Address::from_v6(client), Address::from_v6(vip))
        }
    };
    let protocol = if vip_port == 53 { 17 } else { 6 };
    Flow { source, destination, source_port: port, destination_port: vip_port, protocol, family }
}

/// The server's key of a connection, and the token it gives.
pub fn key(number: u16) -> (Key, Token) {
    let [high, low] = number.to_be_bytes();
    let key = Key([0x5e, 1, 2, 3, 4, 5, high, low]);
    (key, Token::from_key(Version::V1, &key))
}

/// A connection of two subflows: the second comes from another address, and finds its server by the token alone.
pub fn connection(family: Family, number: u16) -> Vec<PacketBuilder> {
    let other = if number % 3 == 2 { opposite(family) } else { family };
    let (first, second) =
        (flow(family, number, 40_000, 443), flow(other, number | 0x8000, 50_000 + number % 1000, 443));
    let (client, (server, token)) = (Key([0xc1; 8]), key(number));
    let of = |flow: &Flow| packet().flow(flow).identification(number);
    vec![
        of(&first).syn(1000).mp_capable_syn_v1(),
        of(&first).data(1001, 77).mp_capable_ack(Version::V1, client, server),
        of(&first).data(1001, 77).mp_capable_data(client, server, b"GET / HTTP/1.1"),
        of(&second).syn(9000).mp_join_syn(token, 0x0e66_42a6, 1),
        of(&second).data(9001, 5).mp_join_ack([0xab; 20]),
        of(&second).data(9001, 5).dss_data(1, 2, 1, &[0x33; 200]).payload(&[0x33; 200]).tos(0xb9),
        of(&first).data(1015, 99).dss_ack(7).tos(0x02).flow_label(0x12345),
    ]
}

fn opposite(family: Family) -> Family {
    if family == Family::V4 { Family::V6 } else { Family::V4 }
}

/// Everything a VIP gets: connections of both families, joins of unknown tokens, plain TCP, UDP, fragments, ICMP
/// errors, and what Weft answers or drops.
pub fn traffic(connections: u16) -> Vec<Seen> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for number in 0..connections {
        let family = if number % 2 == 0 { Family::V4 } else { Family::V6 };
        frames.extend(connection(family, number).iter().map(PacketBuilder::build));
    }
    for (family, port) in [(Family::V4, 1), (Family::V6, 2)] {
        frames.extend(odd(family, port));
    }
    let step = Duration::from_micros(250);
    (0..).zip(frames).map(|(n, frame)| (Duration::from_secs(1_700_000_000) + step * n, frame)).collect()
}

/// Packets of which one is enough.
fn odd(family: Family, host: u16) -> Vec<Vec<u8>> {
    let web = flow(family, 0x4000 + host, 1234, 443);
    let dns = flow(family, 0x4000 + host, 1235, 53);
    let back = Flow {
        source: web.destination,
        destination: web.source,
        source_port: web.destination_port,
        destination_port: web.source_port,
        ..web
    };
    let quote = [&[0; 4], packet().flow(&back).data(5, 6).build_ip().as_slice()].concat();
    let (kind, code) = if family == Family::V4 { (3, 1) } else { (1, 0) };
    let icmp = packet().ip(flow(family, 77, 0, 0).source, web.destination, family).icmp(kind, code);
    let echo = if family == Family::V4 { 8 } else { 128 };
    let elsewhere = Flow { destination_port: 444, ..web };
    let mut frames: Vec<Vec<u8>> = [
        packet().flow(&web).syn(5),
        packet().flow(&web).data(6, 7).payload(&[0x44; 1000]).vlan(7).dont_fragment(false).identification(9),
        packet().flow(&web).data(1006, 7).payload(&[0x45; 10]).qinq(7, 8).trailer(6),
        icmp.payload(&quote),
        packet().flow(&dns).payload(&[0x66; 60]),
        packet().flow(&dns).payload(&[0x67; 61]),
        packet().flow(&Flow { source_port: 99, ..web }).syn(6).mp_join_syn(Token(0x0bad_0bad), 1, 1),
        packet().flow(&Flow { source_port: 98, ..web }).data(1, 2).payload(b"from the middle"),
        packet().flow(&elsewhere).syn(5),
        packet().flow(&web).icmp(echo, 0).payload(b"to be answered"),
    ]
    .iter()
    .map(PacketBuilder::build)
    .collect();
    frames.extend(packet().flow(&dns).payload(&[0x68; 2000]).dont_fragment(false).build_fragments(1300));
    frames
}
