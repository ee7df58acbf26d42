//! The frames that are generated: read by a parser that is not ours, numbered as a client numbers them, and laid out as
//! Linux lays them out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod generate_support;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use capture::CaptureReader;
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use generate_support::{Generated, both, collect, with_udp};
use packet::{Address, Capable, DataSequence, Join, Key, Options, Parsed, Version};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use weft_bench::generate::{Families, FrameSize, Kind, Part, Plan, Profile, Stream, Versions};

fn plan(profile: Profile, connections: u64) -> Plan {
    let versions = if profile == Profile::Collide { Versions::V1 } else { Versions::Both };
    with_udp(Plan { versions, families: both(), ..Plan::new(profile, connections) })
}

/// Headers, lengths and checksums, by etherparse. The payload's length.
fn sound(frame: &[u8]) {
    let read = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let payload = read.payload.slice();
    match (read.net.as_ref().unwrap(), read.transport.as_ref().unwrap()) {
        (NetHeaders::Ipv4(ip, _), transport) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(usize::from(ip.total_len) + 14, frame.len());
            let sum = match transport {
                TransportHeader::Tcp(tcp) => (tcp.checksum, tcp.calc_checksum_ipv4(ip, payload).unwrap()),
                TransportHeader::Udp(udp) => (udp.checksum, udp.calc_checksum_ipv4(ip, payload).unwrap()),
                TransportHeader::Icmpv4(icmp) => (icmp.checksum, icmp.icmp_type.calc_checksum(payload)),
                other => panic!("{other:?}"),
            };
            assert_eq!(sum.0, sum.1);
        }
        (NetHeaders::Ipv6(ip, _), transport) => {
            assert_eq!(usize::from(ip.payload_length) + 54, frame.len());
            let sum = match transport {
                TransportHeader::Tcp(tcp) => (tcp.checksum, tcp.calc_checksum_ipv6(ip, payload).unwrap()),
                TransportHeader::Udp(udp) => (udp.checksum, udp.calc_checksum_ipv6(ip, payload).unwrap()),
                TransportHeader::Icmpv6(icmp) => {
                    let sum = icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload).unwrap();
                    (icmp.checksum, sum)
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(sum.0, sum.1);
        }
        (other, _) => panic!("{other:?}"),
    }
}

#[test]
fn every_frame_of_every_profile_is_sound() {
    for profile in Profile::ALL {
        for packet in collect(plan(profile, 60)) {
            assert!(packet.bytes.len() >= 60, "{profile}: shorter than Ethernet allows");
            sound(&packet.bytes);
        }
    }
}

#[test]
fn every_plan_gives_sound_frames_or_says_why_not() {
    let mut refused = BTreeSet::new();
    // Where keys are looked for, that is all that takes time; its packets are of no other kinds.
    for profile in Profile::ALL.into_iter().filter(|profile| *profile != Profile::Collide) {
        for (part, families, versions, size) in product() {
            // A steady part of unsaid length is a long one.
            let lengths = [Some(100), None];
            for packets in lengths.into_iter().take(if part == Part::Steady { 1 } else { 2 }) {
                let plan = Plan { part, families, versions, size, packets, ..Plan::new(profile, 13) };
                let plan = with_udp(Plan { dss_checksums: size == FrameSize::Min, ..plan });
                match Stream::new(plan.clone()) {
                    Ok(_) => collect(plan).iter().for_each(|packet| sound(&packet.bytes)),
                    Err(error) => {
                        let said = error.to_string();
                        assert!(said.contains(": ") || said.contains("--"), "{said}");
                        refused.insert(said.split_whitespace().take(5).collect::<Vec<_>>().join(" "));
                    }
                }
            }
        }
    }
    assert!(refused.len() > 10, "{refused:#?}");
}

/// Parts, families, versions and sizes, each with each.
fn product() -> Vec<(Part, Option<Families>, Versions, FrameSize)> {
    let mut all = Vec::new();
    for part in [Part::All, Part::Warm, Part::Steady] {
        for families in [None, Some(Families::V4), Some(Families::V6), both()] {
            for versions in [Versions::V0, Versions::V1, Versions::Both] {
                for size in [FrameSize::Imix, FrameSize::Min, FrameSize::Bytes(60), FrameSize::Bytes(9018)] {
                    all.push((part, families, versions, size));
                }
            }
        }
    }
    all
}

#[test]
fn what_an_error_quotes_was_sound_before_the_router_cut_it() {
    let mut whole = 0;
    for packet in collect(plan(Profile::Icmp, 60)) {
        let (ip, link) = if packet.bytes[12] == 0x08 { (20, 14) } else { (40, 14) };
        if !matches!(packet.kind, Kind::TooBig | Kind::Unreachable | Kind::TimeExceeded) {
            continue;
        }
        let quote = &packet.bytes[link + ip + 8..];
        let len = match ip {
            20 => usize::from(u16::from_be_bytes([quote[2], quote[3]])),
            _ => usize::from(u16::from_be_bytes([quote[4], quote[5]])) + 40,
        };
        assert!(len > quote.len() && quote.len() >= ip + 8);
        if quote.len() < ip + 60 {
            continue;
        }
        // The pattern of all payloads, from where it was cut.
        let mut frame = [&packet.bytes[..link], quote].concat();
        let header = usize::from(quote[ip + 12] >> 4) * 4;
        let data = frame.len() - link - ip - header;
        frame.extend((b' '..=b'~').cycle().take(1400).skip(data));
        sound(&frame);
        whole += 1;
    }
    assert!(whole > 50, "{whole} quotes with all of a TCP header");
}

/// The token of a key and the number of its first data byte, from the RFCs' text (RFC 8684 and RFC 6824 section 3.1).
fn digest(version: Version, key: &Key) -> (u32, u64) {
    let digest = match version {
        Version::V0 => Sha1::digest(key.0).to_vec(),
        Version::V1 => Sha256::digest(key.0).to_vec(),
    };
    let token = u32::from_be_bytes(digest[..4].try_into().unwrap());
    let last = u64::from_be_bytes(digest[digest.len() - 8..].try_into().unwrap());
    (token, last.wrapping_add(1))
}

fn read(packet: &Generated) -> (Parsed, Options) {
    let parsed = packet::parse(&packet.bytes, packet.bytes.len());
    let options =
        packet::options(parsed.tcp_options(&packet.bytes), parsed.tcp.flags, parsed.payload_len() > 0);
    (parsed, options)
}

/// What a connection has sent.
#[derive(Default)]
struct Sent {
    version: Option<Version>,
    keys: Option<(Key, Key)>,
    /// The next data sequence number, and the last acknowledged.
    data: Option<u64>,
    ack: u64,
    /// Next sequence number and ISN of each subflow.
    next: HashMap<(Address, u16), (u32, u32)>,
}

impl Sent {
    fn take(&mut self, packet: &Generated) {
        let (parsed, options) = read(packet);
        let what = packet.kind.name();
        let subflow = (parsed.flow.source, parsed.flow.source_port);
        let len = u32::from(parsed.payload_len());
        if parsed.tcp.flags.opens() {
            let isn = parsed.tcp.seq;
            let known = self.next.insert(subflow, (isn.wrapping_add(1), isn));
            assert!(known.is_none_or(|(_, known)| known == isn), "{what}: the same SYN again");
        } else {
            let (next, isn) = self.next[&subflow];
            assert_eq!(parsed.tcp.seq, next, "{what}");
            self.data(&parsed, &options, &packet.bytes, next.wrapping_sub(isn));
            let fin = u32::from(parsed.tcp.flags.fin());
            self.next.insert(subflow, (next.wrapping_add(len + fin), isn));
        }
        if let Some(Capable::Ack { version, sender, receiver, data_len, .. }) = &options.capable {
            let known = self.keys.replace((*sender, *receiver));
            assert!(known.is_none_or(|known| known == (*sender, *receiver)), "{what}: the same keys again");
            self.version = Some(*version);
            let first = self.data.get_or_insert(digest(*version, sender).1);
            assert_eq!(data_len.map(u32::from), (len > 0).then_some(len), "{what}");
            *first = first.wrapping_add(u64::from(len));
            self.ack = self.ack.max(digest(*version, receiver).1);
        }
        if let (Some(Join::Syn { token, .. }), Kind::JoinSyn) = (&options.join, packet.kind) {
            let (version, (_, server)) = (self.version.unwrap(), self.keys.as_ref().unwrap());
            assert_eq!(token.0, digest(version, server).0, "{what}");
        }
        if let Some(server) = &options.fastclose {
            assert_eq!(Some(server), self.keys.as_ref().map(|keys| &keys.1), "{what}");
        }
    }

    /// DSS: numbers follow each other, and checksums are right.
    fn data(&mut self, parsed: &Parsed, options: &Options, frame: &[u8], relative: u32) {
        let Some(dss) = options.dss else {
            return;
        };
        let at = self.data.unwrap();
        let same = |said: DataSequence, number: u64| match said {
            DataSequence::Short(said) => said == u32::try_from(number & 0xffff_ffff).unwrap(),
            DataSequence::Long(said) => said == number,
        };
        if let Some(DataSequence::Long(ack)) = dss.data_ack {
            // Two subflows may overtake each other, their acknowledgments do not here.
            assert!(ack.wrapping_sub(self.ack) < 1 << 40, "acknowledges {ack:x} after {:x}", self.ack);
            self.ack = ack;
        }
        let Some(mapping) = dss.mapping else { return };
        assert!(same(mapping.sequence, at), "data sequence {:?}, not {at:x}", mapping.sequence);
        let payload = &frame[frame.len() - usize::from(parsed.payload_len())..];
        if dss.data_fin {
            assert_eq!((mapping.len, mapping.subflow_sequence, payload.len()), (1, 0, 0));
        } else {
            assert_eq!((usize::from(mapping.len), mapping.subflow_sequence), (payload.len(), relative));
            self.data = Some(at.wrapping_add(u64::from(mapping.len)));
        }
        let v0 = self.version == Some(Version::V0);
        assert_eq!(mapping.checksum.is_some(), v0);
        if let Some(checksum) = mapping.checksum {
            let right = packet::build::dss_checksum(at, mapping.subflow_sequence, mapping.len, payload);
            assert_eq!(checksum, right);
        }
    }
}

#[test]
fn numbers_follow_each_other_as_a_clients_do() {
    let profiles = [
        Profile::Plain,
        Profile::Capable,
        Profile::Bulk,
        Profile::Join,
        Profile::Overtake,
        Profile::Signals,
        Profile::Fastclose,
        Profile::Icmp,
        Profile::Mix,
    ];
    for profile in profiles {
        let mut sent: HashMap<u64, Sent> = HashMap::new();
        let mut malformed = BTreeSet::new();
        for packet in collect(plan(profile, 120)) {
            let is_icmp = matches!(packet.kind, Kind::TooBig | Kind::Unreachable | Kind::TimeExceeded);
            if packet.kind == Kind::MalformedSyn {
                malformed.insert(packet.connection);
            }
            if !is_icmp && packet.kind != Kind::Datagram && !malformed.contains(&packet.connection) {
                sent.entry(packet.connection).or_default().take(&packet);
            }
        }
        assert!(sent.len() > 100, "{profile}: {} connections", sent.len());
    }
}

/// How a client's packet is laid out: IP's choices, TCP's flags, its options by kind, length and what is fixed in them.
fn shape(ip_packet: &[u8]) -> String {
    let v4 = ip_packet[0] >> 4 == 4;
    let (ip, tcp) = ip_packet.split_at(if v4 { usize::from(ip_packet[0] & 15) * 4 } else { 40 });
    let ip = if v4 {
        format!("v4 tos{} flags{:x} ttl{}", ip[1], ip[6] >> 5, ip[8])
    } else {
        format!("v6 class{} hops{}", u16::from_be_bytes([ip[0], ip[1]]) >> 4 & 0xff, ip[7])
    };
    let header = usize::from(tcp[12] >> 4) * 4;
    let flags = tcp[13];
    let syn = flags & 2 != 0;
    let window = u16::from_be_bytes([tcp[14], tcp[15]]);
    let window = if syn { window } else { 0 };
    let payload = if tcp.len() > header { "data" } else { "empty" };
    let mut said = format!("{ip} flags{flags:02x} window{window} {payload}:");
    let mut rest = &tcp[20..header];
    while let [kind, after @ ..] = rest {
        if *kind == 1 {
            said += " nop";
            rest = after;
            continue;
        }
        let (option, after) = rest.split_at(usize::from(after[0]));
        said += &format!(" {}:{}", kind, option.len());
        match kind {
            2 | 3 => said += &format!("={:02x?}", &option[2..]),
            30 if matches!(option[2] >> 4, 0 | 2) => said += &format!("={:02x}{:02x}", option[2], option[3]),
            30 => said += &format!("={:02x}", option[2]),
            _ => {}
        }
        rest = after;
    }
    said
}

/// The shapes of what the clients of a real capture sent, and of the ADD_ADDRs of servers: they look alike.
fn real(path: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let mut reader = CaptureReader::open(&path).unwrap();
    let mut shapes = BTreeSet::new();
    while let Some(record) = reader.read().unwrap() {
        let parsed = packet::parse(&record.bytes, record.bytes.len());
        let said = shape(&record.bytes[14..]);
        let announces = said.contains(" 30:16=30") || said.contains(" 30:28=30");
        if matches!(parsed.flow.destination_port, 5001 | 8000 | 8443) || announces {
            shapes.insert(said);
        }
    }
    assert!(shapes.len() > 5, "{}", path.display());
    shapes
}

/// Sessions of Linux 6.18 clients. The last one speaks first, announces an address, makes a subflow a backup, takes the
/// address back and ends with FASTCLOSE; it is there for IPv4 only.
fn linux() -> BTreeSet<String> {
    let sessions = "../dataplane/packet/tests/captures";
    let mut shapes = real(&format!("{sessions}/token_steered_join.pcap"));
    for name in ["v1_join_addaddr_data_fin.pcap", "ipv6_join_addaddr.pcap", "addaddr_with_port.pcap"] {
        shapes.extend(real(&format!("{sessions}/{name}")));
    }
    let signals = real("tests/captures/signals_fastclose.pcap");
    let v6 = |shape: &String| shape.replace("v4 tos0 flags2 ttl64", "v6 class0 hops64");
    // A SYN's window and MSS and an announced address are of the family; all else is not.
    let alike = signals.iter().filter(|shape| !shape.contains(" 2:4") && !shape.contains("=30")).map(v6);
    shapes.extend(alike.collect::<Vec<_>>());
    shapes.extend(signals);
    shapes
}

#[test]
fn version_1_is_laid_out_as_linux_lays_it_out() {
    let linux = linux();
    let mut compared = BTreeSet::new();
    for profile in [Profile::Capable, Profile::Join, Profile::Signals, Profile::Fastclose] {
        let plan = Plan { families: both(), ..Plan::new(profile, 100) };
        for packet in collect(plan) {
            let said = shape(&packet.bytes[14..]);
            // A full segment in the middle of a write has no PSH; no session has one.
            if packet.bytes.len() < 1514 {
                assert!(linux.contains(&said), "{}: {said}\nnot in\n{linux:#?}", packet.kind.name());
                compared.insert(said);
            }
        }
    }
    // SYN, third ACK, first data, data, ACK, join's SYN and ACK, ADD_ADDR, its echo, MP_PRIO, REMOVE_ADDR, DATA_FIN,
    // FIN, FASTCLOSE; each in two families.
    assert_eq!(compared.len(), 28, "{compared:#?}");
}

#[test]
fn dss_checksums_are_where_linux_has_them() {
    let linux = real("../dataplane/packet/tests/captures/dss_checksum.pcap");
    let plan = Plan { dss_checksums: true, families: Some(Families::V4), ..Plan::new(Profile::Join, 50) };
    let mut compared = BTreeSet::new();
    for packet in collect(plan).into_iter().filter(|packet| packet.bytes.len() < 1514) {
        let said = shape(&packet.bytes[14..]);
        assert!(linux.contains(&said), "{}: {said}\nnot in\n{linux:#?}", packet.kind.name());
        compared.insert(said);
    }
    assert_eq!(compared.len(), 8, "{compared:#?}");
}

#[test]
fn version_0_is_laid_out_as_the_kernels_of_rfc_6824_did() {
    // As tcpdump's own sample of an MPTCP session of that kernel shows it, with our window scale.
    let syn = "2:4=[05, b4] 4:2 8:10 nop 3:3=[0a]";
    let stamps = "nop nop 8:10";
    let expected = [
        (Kind::CapableSyn, format!("{syn} 30:12=0081")),
        (Kind::ThirdAck, format!("{stamps} 30:20=0081")),
        (Kind::JoinSyn, format!("{syn} 30:12=10")),
        (Kind::JoinAck, format!("{stamps} 30:24=10")),
        (Kind::Ack, format!("{stamps} 30:8=2001")),
        (Kind::Data, format!("{stamps} 30:20=2005")),
        (Kind::FirstData, format!("{stamps} 30:20=2005")),
        (Kind::Fin, format!("{stamps} 30:8=2001")),
        (Kind::DataFin, format!("{stamps} 30:20=2015")),
    ];
    let mut compared = BTreeSet::new();
    for profile in [Profile::Capable, Profile::Join] {
        let plan = Plan { versions: Versions::V0, families: Some(Families::V4), ..Plan::new(profile, 50) };
        for packet in collect(plan) {
            let said = shape(&packet.bytes[14..]);
            let options = said.split_once(": ").unwrap().1;
            let known = expected.iter().find(|(kind, _)| *kind == packet.kind);
            assert_eq!(known.map(|(_, options)| options.as_str()), Some(options), "{}", packet.kind.name());
            compared.insert(packet.kind);
        }
    }
    assert_eq!(compared.len(), expected.len());
}
