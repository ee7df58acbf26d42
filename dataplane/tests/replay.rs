//! `weft-dataplane replay` as users run it: the program, a configuration file, captures of real Linux clients.
//!
//! The captures are in `packet/tests/captures`. Nothing here needs root, DPDK ports or huge pages.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use packet::build::{PacketBuilder, packet};
use packet::{Address, Capable, Family, Join, Kind, Options, Parsed, Token, options, parse};
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter, RawPcapPacket};
use pcap_file::{DataLink, Endianness, TsResolution};
use serde_json::Value;
use tempfile::TempDir;

/// The VIPs and backends of the captures. `{forward}` and `{steering}` are filled in.
const CONFIG: &str = r#"
[dataplane]
workers = [1]
flows  = 10_000
tokens = 10_000

[[pool]]
name = "web-servers"

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

[[vip]]
name     = "web"
address  = ["10.9.9.9", "fd99::9"]
port     = 8000
protocol = "tcp"
pool     = "web-servers"
forward  = "{forward}"

[vip.mptcp]
steering = {steering}
unknown_token = "drop"
"#;

/// Captures, and how many joins in them go to the VIP.
const CAPTURES: [(&str, usize); 8] = [
    ("addaddr_with_port.pcap", 1),
    ("cflag_addaddr.pcap", 0),
    ("dss_checksum.pcap", 1),
    ("ipv6_join_addaddr.pcap", 1),
    ("token_steered_join.pcap", 1),
    ("token_steered_join.lbview.pcap", 1),
    ("v1_join_addaddr_data_fin.pcap", 1),
    ("v1_join_addaddr_data_fin.lbview.pcap", 1),
];

/// One packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Captured {
    time: Duration,
    bytes: Vec<u8>,
}

impl Captured {
    fn parsed(&self) -> (Parsed, Options) {
        let parsed = parse(&self.bytes, self.bytes.len());
        let options = options(parsed.tcp_options(&self.bytes), parsed.tcp.flags, parsed.payload_len() > 0);
        (parsed, options)
    }
}

fn capture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packet/tests/captures").join(name)
}

fn read(path: &Path) -> Vec<Captured> {
    let mut reader = PcapReader::new(File::open(path).unwrap()).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap();
        packets.push(Captured { time: packet.timestamp, bytes: packet.data.into_owned() });
    }
    packets
}

/// A folder for one run's files.
struct Run {
    folder: TempDir,
}

impl Run {
    fn new(forward: &str, steering: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = CONFIG.replace("{forward}", forward).replace("{steering}", steering);
        fs::write(folder.path().join("weft.toml"), text).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, input: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-dataplane"));
        command.arg("replay").arg("--config").arg(self.path("weft.toml")).arg("--in").arg(input);
        command.arg("--out").arg(self.path("out.pcap")).arg("--verdicts").arg(self.path("verdicts.jsonl"));
        command.env_remove("RUST_LOG");
        command
    }

    /// Replays a capture; gives the verdict lines as text, and what would be sent.
    fn replay(&self, input: &Path, more: &[&str]) -> (Vec<String>, Vec<Captured>) {
        let output = self.command(input).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = fs::read_to_string(self.path("verdicts.jsonl")).unwrap();
        (text.lines().map(str::to_owned).collect(), read(&self.path("out.pcap")))
    }

    /// Replays what cannot be replayed; gives the one sentence on standard error.
    fn refused(&self, input: &Path) -> String {
        one_sentence(&self.command(input).output().unwrap())
    }
}

/// The sentence of a run that failed as it should: exit code 1, one line.
fn one_sentence(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "one line: {text}");
    assert!(text.starts_with("weft-dataplane: "), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// One capture's verdict lines as values.
fn values(lines: &[String]) -> Vec<Value> {
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_lines_of_the_steered_join_are_exactly_these() {
    let run = Run::new("l2dsr", "[\"learn\"]");
    let (lines, _) = run.replay(&capture("token_steered_join.lbview.pcap"), &[]);
    assert_eq!(lines.len(), 22);
    let (token, home) = ("b0c1ac43", "b3");
    assert_eq!(
        lines[0],
        format!(
            r#"{{"packet":1,"verdict":"forward","reason":"hash","vip":"web","backend":"{home}","token":null,"learned":false}}"#
        )
    );
    assert_eq!(
        lines[1],
        format!(
            r#"{{"packet":2,"verdict":"forward","reason":"flow","vip":"web","backend":"{home}","token":"{token}","learned":true}}"#
        )
    );
    let join = lines.iter().find(|line| line.contains(r#""reason":"token""#)).unwrap();
    assert!(join.ends_with(&format!(
        r#""verdict":"forward","reason":"token","vip":"web","backend":"{home}","token":"{token}","learned":false}}"#
    )));
}

#[test]
fn what_is_not_for_a_vip_is_dropped_by_name() {
    let run = Run::new("l2dsr", "[\"learn\"]");
    let (lines, _) = run.replay(&capture("token_steered_join.pcap"), &[]);
    assert!(lines.contains(
        &r#"{"packet":2,"verdict":"drop","reason":"not_vip","vip":null,"backend":null,"token":null,"learned":false}"#
            .to_owned()
    ));
}

#[test]
fn every_join_of_every_capture_goes_to_the_backend_that_its_token_was_learned_on() {
    for forward in ["l2dsr", "ipip"] {
        for (name, joins) in CAPTURES {
            let run = Run::new(forward, "[\"learn\"]");
            let packets = read(&capture(name));
            let (lines, _) = run.replay(&capture(name), &[]);
            assert_eq!(lines.len(), packets.len(), "{name}");
            check_verdicts(name, joins, &packets, &values(&lines));
        }
    }
}

/// Holds every verdict to what the packet itself says.
fn check_verdicts(name: &str, joins: usize, packets: &[Captured], verdicts: &[Value]) {
    let mut owners: HashMap<String, Value> = HashMap::new();
    let mut homes = HashMap::new();
    let mut joined = 0;
    for (place, (packet, verdict)) in (1..).zip(packets.iter().zip(verdicts)) {
        let what = format!("{name}, packet {place}: {verdict}");
        let (parsed, options) = packet.parsed();
        assert_eq!(verdict["packet"], place, "{what}");
        if parsed.flow.destination_port != 8000 || !is_vip(&parsed) {
            assert_eq!(
                (&verdict["verdict"], &verdict["reason"]),
                (&"drop".into(), &"not_vip".into()),
                "{what}"
            );
            continue;
        }
        assert_eq!((&verdict["verdict"], &verdict["vip"]), (&"forward".into(), &"web".into()), "{what}");
        let home = homes.entry(parsed.flow).or_insert_with(|| verdict["backend"].clone());
        assert_eq!(*home, verdict["backend"], "{what}");
        match (options.capable, options.join) {
            (Some(Capable::Ack { version, receiver, .. }), _) => {
                let token = Token::from_key(version, &receiver).to_string();
                assert_eq!(verdict["token"], Value::from(token.clone()), "{what}");
                let first = owners.insert(token, verdict["backend"].clone()).is_none();
                assert_eq!(
                    (&verdict["learned"], &verdict["reason"]),
                    (&first.into(), &"flow".into()),
                    "{what}"
                );
            }
            (_, Some(Join::Syn { token, .. })) => {
                assert_eq!(verdict["token"], Value::from(token.to_string()), "{what}");
                assert_eq!(verdict["reason"], Value::from("token"), "{what}");
                assert_eq!(owners.get(&token.to_string()), Some(&verdict["backend"]), "{what}");
                joined += 1;
            }
            _ => {
                assert_eq!((&verdict["token"], &verdict["learned"]), (&Value::Null, &false.into()), "{what}")
            }
        }
    }
    assert_eq!(joined, joins, "{name}");
    assert!(!owners.is_empty(), "{name} teaches a token");
}

fn is_vip(parsed: &Parsed) -> bool {
    let vip = parsed.flow.destination.to_ip();
    parsed.kind == Kind::Tcp
        && ["10.9.9.9", "fd99::9"].iter().any(|text| vip == text.parse::<std::net::IpAddr>().unwrap())
}

#[test]
fn what_would_be_sent_is_the_input_with_other_mac_addresses_in_order_and_at_its_time() {
    for (name, _) in CAPTURES {
        let run = Run::new("l2dsr", "[\"learn\"]");
        let packets = read(&capture(name));
        let (lines, sent) = run.replay(&capture(name), &[]);
        let expected: Vec<Captured> = packets
            .into_iter()
            .zip(values(&lines))
            .filter(|(_, verdict)| verdict["verdict"] == "forward")
            .map(|(mut packet, verdict)| {
                let number: u8 = verdict["backend"].as_str().unwrap()[1..].parse().unwrap();
                // Without a port the source is the input's destination.
                packet.bytes.copy_within(0..6, 6);
                packet.bytes[..6].copy_from_slice(&[2, 0, 0, 0, 3, number]);
                packet
            })
            .collect();
        assert!(!expected.is_empty());
        assert_eq!(sent, expected, "{name}");
    }
}

#[test]
fn a_tunnel_holds_the_whole_packet_behind_one_header() {
    for (name, _) in CAPTURES {
        let run = Run::new("ipip", "[\"learn\"]");
        let packets = read(&capture(name));
        let (lines, sent) = run.replay(&capture(name), &[]);
        let forwarded: Vec<_> = packets
            .iter()
            .zip(values(&lines))
            .filter(|(_, verdict)| verdict["verdict"] == "forward")
            .collect();
        assert_eq!(sent.len(), forwarded.len());
        for ((packet, verdict), sent) in forwarded.iter().zip(&sent) {
            let number: u8 = verdict["backend"].as_str().unwrap()[1..].parse().unwrap();
            let (parsed, _) = packet.parsed();
            let inner = &packet.bytes[usize::from(parsed.l3)..usize::from(parsed.end)];
            let (outer_len, protocol_at, protocol, address) = match parsed.flow.family {
                Family::V4 => (20, 9, 4, vec![10, 0, 1, 10 + number]),
                Family::V6 => (40, 6, 41, [&[0xfd, 0, 0, 1], &[0; 11][..], &[0x10 + number][..]].concat()),
            };
            let outer = &sent.bytes[14..14 + outer_len];
            assert_eq!(&sent.bytes[14 + outer_len..], inner, "{name}");
            assert_eq!(outer[protocol_at], protocol);
            assert_eq!(outer[outer_len - address.len()..], address);
            assert_eq!(sent.bytes[..6], [2, 0, 0, 0, 3, number]);
        }
    }
}

#[test]
fn the_files_do_not_depend_on_the_burst_size() {
    for (name, _) in CAPTURES {
        let run = Run::new("ipip", "[\"learn\"]");
        let one = run.replay(&capture(name), &["--burst", "1"]);
        let bytes = fs::read(run.path("out.pcap")).unwrap();
        for burst in ["2", "32", "64"] {
            assert_eq!(run.replay(&capture(name), &["--burst", burst]), one, "{name}, bursts of {burst}");
            assert_eq!(fs::read(run.path("out.pcap")).unwrap(), bytes, "{name}, bursts of {burst}");
        }
    }
}

#[test]
fn without_steering_joins_are_hashed_and_nothing_is_learned() {
    for (name, joins) in CAPTURES {
        let run = Run::new("l2dsr", "[]");
        let (lines, _) = run.replay(&capture(name), &[]);
        let verdicts = values(&lines);
        assert!(verdicts.iter().all(|verdict| verdict["learned"] == false && verdict["reason"] != "token"));
        let to_vip = verdicts.iter().filter(|verdict| verdict["token"] != Value::Null);
        assert_eq!(to_vip.filter(|verdict| verdict["reason"] == "hash").count(), joins, "{name}");
    }
}

#[test]
fn without_out_and_verdicts_a_replay_writes_nothing_and_a_dash_is_standard_output() {
    let run = Run::new("l2dsr", "[\"learn\"]");
    let start = |verdicts: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-dataplane"));
        command.arg("replay").arg("--config").arg(run.path("weft.toml"));
        command.arg("--in").arg(capture("token_steered_join.lbview.pcap")).args(verdicts);
        command.output().unwrap()
    };
    let silent = start(&[]);
    assert!(silent.status.success() && silent.stdout.is_empty());
    let shown = start(&["--verdicts", "-"]);
    assert!(shown.status.success());
    assert_eq!(String::from_utf8(shown.stdout).unwrap().lines().count(), 22);
    assert_eq!(fs::read_dir(run.folder.path()).unwrap().count(), 1, "the configuration alone");
}

/// A configuration with a port, whose network a VIP is on, and with every way of forwarding.
const EVERY_KIND: &str = r#"
[dataplane]
workers = [1]
flows  = 10_000
tokens = 10_000

[[dataplane.port]]
device  = "net_null0"
mac     = "02:00:00:00:02:01"
address = ["10.0.1.254/24", "fd00:1::254/64", "10.9.9.254/24", "fd99::254/64"]
mtu     = 1500
{exception}

[[pool]]
name = "servers"

[[pool.backend]]
name    = "b1"
address = ["10.0.1.11"]
mac     = "02:00:00:00:03:01"

[[vip]]
name     = "web"
address  = ["10.9.9.9", "fd99::9"]
port     = 8000
protocol = "tcp"
pool     = "servers"
forward  = "ipip"

[[vip]]
name     = "dns"
address  = ["10.9.9.9", "fd99::9"]
port     = 53
protocol = "udp"
pool     = "servers"
forward  = "gue"
"#;

/// One packet of every kind that is no TCP segment of a connection, over both families.
fn packets_of_every_kind() -> Vec<PacketBuilder> {
    let mut packets = vec![
        packet().arp_request([10, 9, 9, 77], [10, 9, 9, 9]),
        packet().neighbour_solicitation([0xfd; 16], VIP6),
    ];
    for (client, vip, family, kinds) in [
        (Address::from_v4([192, 0, 2, 7]), Address::from_v4([10, 9, 9, 9]), Family::V4, [(8, 0), (3, 4)]),
        (Address::from_v6([0xfd; 16]), Address::from_v6(VIP6), Family::V6, [(128, 0), (2, 0)]),
    ] {
        let [echo, too_big] = kinds;
        let quote = packet().ip(vip, client, family).tcp(8000, 40_000).data(1, 1).build_ip();
        let error = [&[0, 0, 5, 0], quote.as_slice()].concat();
        let to_vip = || packet().ip(client, vip, family);
        packets.extend([
            to_vip().icmp(echo.0, echo.1).payload(b"echoes"),
            to_vip().icmp(too_big.0, too_big.1).payload(&error),
            to_vip().icmp(too_big.0, too_big.1).payload(&error[..8]),
            to_vip().udp(40_000, 53).payload(b"question"),
            to_vip().udp(40_000, 53).payload(&[0; 64]).fragment(8, true),
            to_vip().tcp(40_000, 8000).data(1, 1).payload(&[0; 1430]),
            packet().ip(client, Address::from_v4([10, 0, 1, 254]), Family::V4).tcp(40_000, 22).syn(1),
        ]);
    }
    packets
}

const VIP6: [u8; 16] = [0xfd, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

#[test]
fn every_kind_of_packet_has_its_reason() {
    let packets: Vec<Captured> = packets_of_every_kind()
        .iter()
        .map(|packet| Captured { time: Duration::from_secs(1), bytes: packet.build() })
        .collect();
    let of_a_family = |ssh| {
        [
            ("local", "echo"),
            ("forward", "related"),
            ("drop", "bad_icmp"),
            ("forward", "hash"),
            ("forward", "fragment"),
            ("local", "too_big_told"),
            (ssh, "not_vip"),
        ]
    };
    for (exception, ssh) in [("", "drop"), ("exception = \"weft0\"", "punt")] {
        let run = Run::new("l2dsr", "[]");
        fs::write(run.path("weft.toml"), EVERY_KIND.replace("{exception}", exception)).unwrap();
        pcap(&run.path("in.pcap"), &packets, DataLink::ETHERNET);
        let (lines, sent) = run.replay(&run.path("in.pcap"), &[]);
        let verdicts = values(&lines);
        let told: Vec<(&str, &str)> = verdicts
            .iter()
            .map(|verdict| (verdict["verdict"].as_str().unwrap(), verdict["reason"].as_str().unwrap()))
            .collect();
        let expected =
            [&[("local", "arp"), ("local", "neighbour")], &of_a_family(ssh)[..], &of_a_family(ssh)].concat();
        assert_eq!(told, expected);
        // All but the unusable error and the segment for port 22.
        assert_eq!(sent.len(), packets.len() - 4);
        let gue = sent.iter().filter(|sent| {
            let parsed = sent.parsed().0;
            (parsed.kind, parsed.flow.destination_port) == (Kind::Udp, 6080)
        });
        assert_eq!(gue.count(), 4, "a datagram and a fragment of each family, in IPv4");
    }
}

/// A block of a pcapng file.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let length = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
    [&kind.to_le_bytes()[..], &length, &body, &length].concat()
}

/// A pcapng file of these packets, by hand: its interface counts time in 2⁻²⁰ or 10⁻³ seconds, as said.
fn pcapng(packets: &[Captured], resolution: Option<u8>, units: impl Fn(Duration) -> u64) -> Vec<u8> {
    let mut file = block(
        0x0a0d_0d0a,
        &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    );
    let mut interface = vec![1, 0, 0, 0, 0, 0, 4, 0];
    if let Some(resolution) = resolution {
        interface.extend([9, 0, 1, 0, resolution, 0, 0, 0, 0, 0, 0, 0]);
    }
    file.extend(block(1, &interface));
    // A block that no packet is in: passed over.
    file.extend(block(5, &[0; 12]));
    for packet in packets {
        let [high, low] = {
            let units = units(packet.time);
            [u32::try_from(units >> 32).unwrap(), u32::try_from(units & 0xffff_ffff).unwrap()]
        };
        let length = u32::try_from(packet.bytes.len()).unwrap();
        let mut body = Vec::new();
        [0, high, low, length, length].iter().for_each(|word| body.extend(word.to_le_bytes()));
        body.extend(&packet.bytes);
        file.extend(block(6, &body));
    }
    file
}

#[test]
fn a_pcapng_file_is_read_in_its_own_unit_of_time() {
    let name = "token_steered_join.lbview.pcap";
    let run = Run::new("l2dsr", "[\"learn\"]");
    let packets = read(&capture(name));
    let (lines, _) = run.replay(&capture(name), &[]);
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap();
    let binary = |time: Duration| u64::try_from((time.as_nanos() << 20) / 1_000_000_000).unwrap();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap();
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap();
    let files = [
        (pcapng(&packets, None, micros), 1_000),
        (pcapng(&packets, Some(0x80 | 20), binary), 1_000),
        (pcapng(&packets, Some(3), millis), 1_000_000),
        (pcapng(&packets, Some(9), nanos), 1),
    ];
    for (bytes, nanoseconds) in files {
        let input = run.path("in.pcapng");
        fs::write(&input, bytes).unwrap();
        let (again, sent) = run.replay(&input, &[]);
        assert_eq!(again, lines);
        for (sent, packet) in sent.iter().zip(&packets) {
            let apart = packet.time.abs_diff(sent.time);
            assert!(apart < Duration::from_nanos(nanoseconds), "{apart:?}");
        }
        assert_eq!(sent.len(), packets.len());
    }
}

/// A pcap file of these packets, microseconds, on this link.
fn pcap(path: &Path, packets: &[Captured], datalink: DataLink) {
    let header = PcapHeader {
        datalink,
        ts_resolution: TsResolution::MicroSecond,
        endianness: Endianness::Big,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(File::create(path).unwrap(), header).unwrap();
    for packet in packets {
        let length = u32::try_from(packet.bytes.len()).unwrap();
        writer.write_packet(&PcapPacket::new(packet.time, length, &packet.bytes)).unwrap();
    }
}

#[test]
fn what_a_cut_off_file_holds_is_judged_whatever_the_burst() {
    let run = Run::new("l2dsr", "[\"learn\"]");
    let whole = fs::read(capture("token_steered_join.lbview.pcap")).unwrap();
    fs::write(run.path("in.pcap"), &whole[..400]).unwrap();
    for burst in ["1", "2", "32", "64"] {
        let output = run.command(&run.path("in.pcap")).args(["--burst", burst]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().contains("damaged or was cut off"));
        let lines = fs::read_to_string(run.path("verdicts.jsonl")).unwrap().lines().count();
        assert_eq!((lines, read(&run.path("out.pcap")).len()), (3, 3), "burst {burst}");
    }
}

#[test]
fn a_capture_that_cut_its_packets_is_judged_by_their_headers() {
    let run = Run::new("l2dsr", "[\"learn\"]");
    let name = "token_steered_join.lbview.pcap";
    let (lines, sent) = run.replay(&capture(name), &[]);
    // What `tcpdump -s 96` writes: long enough for every header, too short for the data.
    let header =
        PcapHeader { snaplen: 96, ts_resolution: TsResolution::MicroSecond, ..PcapHeader::default() };
    let input = run.path("in.pcap");
    let mut writer = PcapWriter::with_header(File::create(&input).unwrap(), header).unwrap();
    for packet in read(&capture(name)) {
        let kept = packet.bytes.len().min(96);
        writer
            .write_raw_packet(&RawPcapPacket {
                ts_sec: u32::try_from(packet.time.as_secs()).unwrap(),
                ts_frac: packet.time.subsec_micros(),
                incl_len: u32::try_from(kept).unwrap(),
                orig_len: u32::try_from(packet.bytes.len()).unwrap(),
                data: packet.bytes[..kept].into(),
            })
            .unwrap();
    }
    drop(writer);
    let output = run.command(&input).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_to_string(run.path("verdicts.jsonl")).unwrap().lines().collect::<Vec<_>>(), lines);
    let mut reader = PcapReader::new(File::open(run.path("out.pcap")).unwrap()).unwrap();
    for packet in sent {
        let again = reader.next_raw_packet().unwrap().unwrap();
        assert_eq!(
            usize::try_from(again.orig_len).unwrap(),
            packet.bytes.len(),
            "the length on the wire stays"
        );
        assert_eq!(again.data, &packet.bytes[..packet.bytes.len().min(96)]);
    }
}

#[test]
fn a_clock_that_runs_backwards_stands_still() {
    let run = Run::new("l2dsr", "[\"learn\"]");
    let name = "token_steered_join.lbview.pcap";
    let mut packets = read(&capture(name));
    let (lines, _) = run.replay(&capture(name), &[]);
    // A day in the past from the third packet on: were that taken for a day passed, flows would be forgotten.
    for packet in &mut packets[2..] {
        packet.time -= Duration::from_secs(86_400);
    }
    pcap(&run.path("in.pcap"), &packets, DataLink::ETHERNET);
    assert_eq!(run.replay(&run.path("in.pcap"), &[]).0, lines);
}

#[test]
fn the_captures_time_is_the_clock_by_which_tokens_go() {
    let run = Run::new("l2dsr", "[\"learn\"]");
    let mut packets = read(&capture("token_steered_join.lbview.pcap"));
    let join =
        packets.iter().position(|packet| matches!(packet.parsed().1.join, Some(Join::Syn { .. }))).unwrap();
    let home = |packets: &[Captured]| {
        pcap(&run.path("in.pcap"), packets, DataLink::ETHERNET);
        let (lines, _) = run.replay(&run.path("in.pcap"), &[]);
        values(&lines)[join]["reason"].clone()
    };
    // Silence in hours, and whether the token is known after it. Ticks wrap at 18.2 hours.
    let silences =
        [(1, true), (12, true), (17, true), (18, false), (19, false), (36, false), (24 * 365, false)];
    let mut passed = 0;
    for (hours, is_known) in silences {
        for packet in &mut packets[join..] {
            packet.time += Duration::from_secs((hours - passed) * 3600);
        }
        passed = hours;
        let reason = if is_known { "token" } else { "unknown_token" };
        assert_eq!(home(&packets), reason, "{hours} hours of silence");
    }
}

#[test]
fn what_is_no_capture_is_refused_in_one_sentence() {
    let run = Run::new("l2dsr", "[\"learn\"]");
    let whole = fs::read(capture("token_steered_join.lbview.pcap")).unwrap();
    let file = |bytes: &[u8]| {
        fs::write(run.path("in"), bytes).unwrap();
        run.path("in")
    };
    let sentence = run.refused(&run.path("missing.pcap"));
    assert!(sentence.contains("cannot read") && sentence.contains("missing.pcap"), "{sentence}");
    for bytes in [&b""[..], b"abc", b"this is a text file, not a capture of anything", &whole[..10]] {
        let sentence = run.refused(&file(bytes));
        assert!(sentence.contains("neither a pcap nor a pcapng file"), "{sentence}");
    }
    for end in [30, whole.len() - 1, whole.len() - 40] {
        let sentence = run.refused(&file(&whole[..end]));
        assert!(sentence.contains("damaged or was cut off"), "{end}: {sentence}");
    }
    let packets = read(&capture("token_steered_join.lbview.pcap"));
    let ng = pcapng(&packets, None, |time| u64::try_from(time.as_micros()).unwrap());
    let sentence = run.refused(&file(&ng[..ng.len() - 5]));
    assert!(sentence.contains("damaged or was cut off"), "{sentence}");
    pcap(&run.path("raw.pcap"), &packets, DataLink::RAW);
    let sentence = run.refused(&run.path("raw.pcap"));
    assert!(sentence.contains("not on Ethernet"), "{sentence}");
}

#[test]
fn an_output_that_cannot_be_written_is_refused_in_one_sentence() {
    let run = Run::new("l2dsr", "[\"learn\"]");
    for option in ["--out", "--verdicts"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-dataplane"));
        command.arg("replay").arg("--config").arg(run.path("weft.toml"));
        command.arg("--in").arg(capture("token_steered_join.lbview.pcap"));
        let sentence = one_sentence(&command.arg(option).arg(run.path("no/such/folder")).output().unwrap());
        assert!(sentence.contains("cannot write"), "{sentence}");
    }
}

#[test]
fn a_configuration_that_is_missing_or_wrong_is_refused_before_anything_is_written() {
    let run = Run::new("l2dsr", "[\"learn\"]");
    let input = capture("token_steered_join.lbview.pcap");
    fs::remove_file(run.path("weft.toml")).unwrap();
    let sentence = String::from_utf8(run.command(&input).output().unwrap().stderr).unwrap();
    assert!(sentence.contains("weft.toml"), "{sentence}");

    // Each: what is taken out, and what the problem names.
    let problems = [
        ("pool     = \"web-servers\"\n", "pool"),
        ("address  = [\"10.9.9.9\", \"fd99::9\"]\n", "address"),
        ("port     = 8000\n", "port"),
        ("name    = \"b2\"\n", "name"),
    ];
    let text = CONFIG.replace("{forward}", "l2dsr").replace("{steering}", "[\"learn\"]");
    for (line, named) in problems {
        assert!(text.contains(line));
        fs::write(run.path("weft.toml"), text.replacen(line, "", 1)).unwrap();
        let output = run.command(&input).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("weft.toml:") && said.contains(named), "{line}: {said}");
        assert!(!run.path("out.pcap").exists() && !run.path("verdicts.jsonl").exists());
    }
}

#[test]
fn a_burst_size_that_cannot_be_is_refused() {
    let run = Run::new("l2dsr", "[\"learn\"]");
    for burst in ["0", "65", "many"] {
        let input = capture("token_steered_join.lbview.pcap");
        let output = run.command(&input).args(["--burst", burst]).output().unwrap();
        assert!(!output.status.success());
        assert!(!run.path("out.pcap").exists());
    }
}
