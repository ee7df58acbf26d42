//! The simulator in its closed loop: clients, the engine, a server for each backend, in one process.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use capture::CaptureReader;
use clap::Parser as _;
use weft_bench::cli::{Cli, Command};
use weft_bench::peer::{self, Report};
use weft_bench::verify::mptcp::Version;

/// Runs `weft-bench peer loop` with these arguments.
fn run(arguments: &str) -> Report {
    let words = ["weft-bench", "peer", "loop"].into_iter().chain(arguments.split_whitespace());
    let Command::Peer(peer::Command::Loop(arguments)) = Cli::try_parse_from(words).unwrap().command else {
        panic!("another command");
    };
    peer::run_loop(&arguments).unwrap()
}

/// Runs with a configuration of three backends.
fn run_with(steering: &str, forward: &str, arguments: &str) -> Report {
    run_before(3, steering, forward, arguments)
}

/// The same with so many backends.
fn run_before(backends: u8, steering: &str, forward: &str, arguments: &str) -> Report {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("weft.toml");
    std::fs::write(&file, configuration(backends, steering, forward)).unwrap();
    run(&format!("--config {} {arguments}", file.display()))
}

fn configuration(backends: u8, steering: &str, forward: &str) -> String {
    let backend = |n: u8| {
        format!(
            "[[pool.backend]]\nname = \"b{n}\"\naddress = [\"10.0.0.{n}\", \"fd00::{n}\"]\n\
             mac = \"02:00:00:00:00:0{n}\"\n"
        )
    };
    format!(
        "[dataplane]\nworkers = [0]\nflows = 100000\ntokens = 100000\n\
         [[dataplane.port]]\ndevice = \"net_null0\"\nmac = \"02:00:00:00:01:01\"\n\
         address = [\"10.0.0.100/24\", \"fd00::100/64\"]\nmtu = 1600\n\
         [[pool]]\nname = \"web\"\n{}\
         [[vip]]\nname = \"vip\"\naddress = [\"203.0.113.1\", \"2001:db8::1\"]\nport = 443\nprotocol = \"tcp\"\n\
         pool = \"web\"\nforward = \"{forward}\"\n\
         [vip.mptcp]\nsteering = [{steering}]\nunknown_token = \"drop\"\n",
        (1..=backends).map(backend).collect::<String>()
    )
}

/// Every connection was spread over the servers, and each join reached the server of its connection.
fn assert_whole(report: &Report, connections: u64, joins: u64) {
    assert!(report.passed, "{report}");
    let client = report.client.as_ref().unwrap();
    assert_eq!((client.outcome.mptcp, client.outcome.whole), (connections, connections));
    assert_eq!((client.outcome.joins, client.outcome.joined), (joins, joins));
    assert_eq!((report.all_servers.connections, report.all_servers.joined), (connections, joins));
    assert_eq!((report.all_servers.stray, report.all_servers.plain), (0, 0));
    let busy = report.servers.values().filter(|server| server.connections > 0).count();
    assert!(busy > 1, "one server alone shows nothing");
}

#[test]
fn learned_tokens_bring_every_join_of_version_1_home_in_every_forwarding_mode_and_family() {
    for forward in ["l2dsr", "ipip", "gue"] {
        for ip in ["4", "6"] {
            let report = run_with("\"learn\"", forward, &format!("--ip {ip} --connections 50 --joins 2"));
            assert_whole(&report, 50, 100);
        }
    }
}

#[test]
fn learned_tokens_bring_every_join_of_version_0_home() {
    let report = run("--client-version v0 --connections 100 --joins 2");
    assert_whole(&report, 100, 200);
}

#[test]
fn a_server_of_version_0_gets_no_mptcp_connection_from_a_client_of_version_1() {
    let report = run("--server-version v0 --connections 10");
    let client = report.client.as_ref().unwrap();
    assert_eq!((client.outcome.mptcp, client.outcome.whole, report.all_servers.plain), (0, 10, 10));
    assert!(!report.passed);
}

#[test]
fn without_steering_the_servers_report_each_join_that_named_no_connection_of_theirs() {
    let report = run_with("", "ipip", "--connections 60 --joins 1");
    let client = report.client.as_ref().unwrap();
    let unknown = &report.all_servers.unknown_tokens;
    assert!(unknown.len() > 20, "{} of 60 went astray", unknown.len());
    assert_eq!(client.outcome.refused, unknown.len() as u64);
    assert_eq!(client.outcome.joined + client.outcome.refused, 60);
    assert!(unknown.iter().all(|join| join.token.len() == 8 && join.from.ip().to_string() == "198.18.1.1"));
    assert!(!report.passed);
}

#[test]
fn joins_of_explicit_tokens_are_proved_with_keys_of_a_tls_session_that_both_ends_exported() {
    // With one backend there is nothing to steer: this is about the endpoints.
    for signal in ["g", "e"] {
        let report = run_before(1, "", "gue", &format!("--signal {signal} --connections 20 --joins 2"));
        assert!(report.passed, "{report}");
        let client = report.client.as_ref().unwrap();
        assert_eq!((client.seen.keyed, report.all_servers.keyed), (20, 20));
        assert_eq!((client.outcome.joined, report.all_servers.joined), (40, 40));
        assert_eq!(report.all_servers.early, 0);
    }
}

#[test]
fn a_server_without_explicit_tokens_names_itself_by_a_key_as_ever() {
    let report = run_before(1, "", "gue", "--signal e --server-signal keys --connections 10 --joins 1");
    assert!(report.passed, "{report}");
    assert_eq!((report.all_servers.keyed, report.all_servers.joined), (0, 10));
}

#[test]
fn a_server_that_searches_its_key_is_found_by_the_range_of_its_token() {
    for (version, ip) in [("v1", "4"), ("v1", "6"), ("v0", "4")] {
        let report = run(&format!("--steering ranges --client-version {version} --ip {ip} --joins 2"));
        assert_whole(&report, 100, 200);
    }
}

#[test]
fn a_server_that_encrypts_its_number_is_found_by_decrypting_the_token() {
    for signal in ["g", "e"] {
        for ip in ["4", "6"] {
            let report = run(&format!("--steering cipher --signal {signal} --ip {ip} --joins 2"));
            assert_whole(&report, 100, 200);
        }
    }
}

#[test]
fn without_help_of_the_servers_the_joins_of_a_token_map_go_astray() {
    // Kernels draw keys at random: as many joins as there are backends, but one, go to another's.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("weft.toml");
    std::fs::write(&file, configuration(3, "\"token-map\"", "ipip")).unwrap();
    let words = format!("--config {} --kernel-keys --connections 60 --joins 1", file.display());
    let report = run(&words);
    assert!(!report.passed && report.all_servers.unknown_tokens.len() > 20, "{report}");
}

/// Speck32/64 as Beaulieu et al. print it (2013, appendix C), for keys as the configuration has them.
fn speck_decrypt(key: [u16; 4], word: u32) -> u32 {
    let round = |x: u16, y: u16, k: u16| {
        let x = x.rotate_right(7).wrapping_add(y) ^ k;
        (x, y.rotate_left(2) ^ x)
    };
    let [l2, l1, l0, k0] = key;
    let (mut keys, mut l, mut k) = (vec![], vec![l0, l1, l2], k0);
    for i in 0..22_u16 {
        keys.push(k);
        let (next, following) = round(l[usize::from(i)], k, i);
        l.push(next);
        k = following;
    }
    let [mut x, mut y] = [16, 0].map(|shift| u16::try_from(word >> shift & 0xffff).unwrap());
    for k in keys.into_iter().rev() {
        y = (y ^ x).rotate_right(2);
        x = (x ^ k).wrapping_sub(y).rotate_left(7);
    }
    u32::from(x) << 16 | u32::from(y)
}

#[test]
fn the_tokens_on_the_wire_decrypt_to_the_number_of_the_server_they_were_sent_to() {
    assert_eq!(
        speck_decrypt([0x1918, 0x1110, 0x0908, 0x0100], 0xa868_42f2),
        0x6574_694c,
        "the paper's vector"
    );
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    run(&format!("--steering cipher --connections 40 --joins 1 --out {}", out.display()));
    let keys = [[0x0011, 0x2233, 0x4455, 0x6677], [0x8899, 0xaabb, 0xccdd, 0xeeff]];
    let (mut joins, mut parities) = (0, [0, 0]);
    for frame in frames(&out.join("backends.pcap")) {
        // Ethernet, IPv4, UDP, GUE, IPv4, TCP: a SYN from a client's second address.
        let tunnelled = frame.get(23) == Some(&17) && frame.get(20 + 14 + 8 + 4 + 13 + 20) == Some(&2);
        let option = frame.windows(12).find(|part| part.starts_with(&[30, 12]) && part[2] & 0xfd == 0x10);
        let (true, Some(option)) = (tunnelled, option) else { continue };
        let token = u32::from_be_bytes(option[4..8].try_into().unwrap());
        let odd = usize::from(token % 2 == 1);
        // Backend N is at 10.0.1.N.
        assert_eq!(speck_decrypt(keys[odd], token) >> 20, u32::from(frame[33]));
        joins += 1;
        parities[odd] += 1;
    }
    assert_eq!(joins, 40);
    assert!(parities.iter().all(|count| *count > 5), "both keys are in use: {parities:?}");
}

/// Frames of a capture.
fn frames(file: &Path) -> Vec<Vec<u8>> {
    let mut reader = CaptureReader::open(file).unwrap();
    core::iter::from_fn(|| reader.read().unwrap()).map(|record| record.bytes).collect()
}

#[test]
fn two_runs_of_one_seed_are_the_same_packet_for_packet_and_of_another_seed_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let of = |name: &str, seed: u64| {
        let out = directory.path().join(name);
        let report = run(&format!("--connections 20 --seed {seed} --out {}", out.display()));
        (report, frames(&out.join("clients.pcap")), frames(&out.join("backends.pcap")))
    };
    let (first, again, other) = (of("first", 7), of("again", 7), of("other", 8));
    assert_eq!(first, again);
    assert_ne!(first.1, other.1);
    assert!(first.1.len() > 200 && first.2.len() > 200);
}

#[test]
fn the_joins_of_a_capture_name_tokens_of_the_keys_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    run(&format!("--connections 20 --joins 1 --out {}", out.display()));
    let (mut tokens, mut joins) = (Vec::new(), Vec::new());
    for frame in frames(&out.join("clients.pcap")) {
        // By hand: Ethernet, IPv4 and TCP without IP options.
        let option = |kind: u8, len: usize| {
            let options = frame.get(54..34 + 4 * usize::from(frame[46] >> 4)).unwrap_or_default();
            options.windows(len).find(|part| part.starts_with(&[30, kind])).map(<[u8]>::to_vec)
        };
        let syn = frame[47] & 0x12;
        if let (0x10, Some(third)) = (syn, option(20, 20)) {
            tokens.push(Version::V1.token(third[12..20].try_into().unwrap()));
        }
        if let (0x02, Some(join)) = (syn, option(12, 12)) {
            joins.push(u32::from_be_bytes(join[4..8].try_into().unwrap()));
        }
    }
    assert_eq!(joins.len(), 20);
    assert!(joins.iter().all(|join| tokens.contains(join)));
}

#[test]
fn explicit_tokens_are_learned_where_they_are_offered_without_a_configuration() {
    for signal in ["g", "e"] {
        let report = run(&format!("--steering learn --signal {signal} --connections 40 --joins 2"));
        assert_whole(&report, 40, 80);
        let counters = &report.balancer.as_ref().unwrap().counters;
        assert_eq!((counters["explicit_token"], counters["token_learned"]), (40, 40));
    }
}

#[test]
fn packets_that_are_lost_are_sent_again_and_everything_arrives() {
    for ip in ["4", "6"] {
        let report = run(&format!("--ip {ip} --connections 100 --joins 2 --lose 20"));
        assert_whole(&report, 100, 200);
        assert!(report.balancer.as_ref().unwrap().lost > 100, "{report}");
    }
}

#[test]
fn tables_that_are_emptied_lose_joins_where_tokens_are_learned() {
    let learned = run("--connections 60 --joins 1 --at-once 60 --restart-after 150");
    let client = learned.client.as_ref().unwrap();
    assert!(!learned.passed && client.outcome.joined < 60, "{learned}");
    assert!(learned.balancer.as_ref().unwrap().restarts > 1);
}

#[test]
fn checksums_are_used_if_either_side_asks_and_all_are_right() {
    for words in [
        "--checksums",
        "--server-checksums",
        "--checksums --client-version v0",
        "--checksums --signal g --ip 6",
    ] {
        let report = run(&format!("{words} --connections 20 --joins 1 --bytes 9000"));
        assert_whole(&report, 20, 20);
        let client = report.client.as_ref().unwrap();
        assert!(client.seen.checksums > 100 && report.all_servers.checksums > 100, "{report}");
        assert_eq!(client.seen.wrong_checksum + report.all_servers.wrong_checksum, 0);
    }
    assert_eq!(run("--connections 5").all_servers.checksums, 0);
}

#[test]
fn data_of_any_length_goes_there_and_back_under_tls() {
    // More than the 64 KiB that the library buffers by itself.
    assert_whole(&run("--signal g --connections 3 --joins 1 --bytes 150000"), 3, 3);
}

#[test]
fn joins_are_proved_by_either_of_two_keys_that_bit_k_names() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let report = run(&format!("--signal e --connections 10 --joins 4 --out {}", out.display()));
    assert_whole(&report, 10, 40);
    // By hand: Ethernet, IPv4, TCP up to its data offset, since encrypted data holds any bytes; the third byte of the option.
    let byte = |frame: &Vec<u8>, start: &[u8]| {
        let options = frame.get(54..34 + 4 * usize::from(frame[46] >> 4)).unwrap_or_default();
        options.windows(12).find(|part| part.starts_with(start)).map(|part| part[2])
    };
    let (mut joins, mut proofs) = ([0, 0], [0, 0]);
    for frame in frames(&out.join("clients.pcap")) {
        if let (0x02, Some(head @ (0x10 | 0x12))) = (frame[47] & 0x12, byte(&frame, &[30, 12])) {
            joins[usize::from(head >> 1 & 1)] += 1;
        }
        for slot in [0, 1] {
            proofs[slot] += i32::from(byte(&frame, &[30, 12, 0x90 | u8::try_from(slot).unwrap()]).is_some());
        }
    }
    assert_eq!((joins, proofs), ([20, 20], [20, 20]));
}

#[test]
fn a_fastclose_ends_a_connection_and_with_external_keys_carries_a_proof_instead_of_one() {
    for (words, head) in
        [("", 0x70), ("--client-version v0", 0x70), ("--signal g", 0x70), ("--signal e", 0x71)]
    {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        let report = run(&format!("{words} --connections 20 --joins 2 --fastclose --out {}", out.display()));
        assert_whole(&report, 20, 40);
        assert_eq!((report.all_servers.fastclosed, report.all_servers.wrong_fastclose), (20, 0));
        let closes = frames(&out.join("clients.pcap"))
            .into_iter()
            .filter(|frame| frame[47] & 0x04 != 0 && frame.windows(4).any(|part| part == [30, 12, head, 0]));
        assert_eq!(closes.count(), 60, "one on each subflow");
        // Only the flow's own key is a sign for Weft that the connection ended.
        let closing = report.balancer.as_ref().unwrap().counters.get("token_closing").copied().unwrap_or(0);
        assert_eq!(closing, if words.starts_with("--signal") { 0 } else { 20 });
    }
}

/// What Weft did, by reasons, and the servers: every key given, every timestamp theirs.
fn assert_nothing_is_kept(report: &Report, connections: u64, joins: u64) {
    let weft = report.balancer.as_ref().unwrap();
    let [keys, maps, stamps] = ["chosen_key", "token_map", "timestamp"].map(|reason| weft.reasons[reason]);
    assert_eq!(keys + maps + stamps, weft.received, "nothing went any other way: {report}");
    assert!(keys >= connections && maps >= joins && stamps > 10 * connections, "{report}");
    for counter in ["flow_inserted", "token_learned", "adopted", "chosen_key_unplaced", "timestamp_unknown"] {
        assert_eq!(weft.counters.get(counter), None, "{report}");
    }
    let servers = &report.all_servers;
    assert_eq!((servers.given, servers.given_wrong, servers.numbered_wrong), (connections, 0, 0));
    assert!(servers.numbered >= stamps * 9 / 10, "{report}");
}

#[test]
fn chosen_keys_bring_every_join_home_and_every_packet_while_weft_keeps_nothing() {
    for words in ["--ip 4", "--ip 6", "--client-version v0", "--ip 6 --client-version v0", "--fastclose"] {
        let report = run(&format!("--steering chosen-key {words} --connections 100 --joins 2"));
        assert_whole(&report, 100, 200);
        assert_nothing_is_kept(&report, 100, 200);
        assert_eq!(report.all_servers.fastclosed, if words == "--fastclose" { 100 } else { 0 });
    }
}

#[test]
fn with_chosen_keys_a_syn_that_comes_again_gets_the_same_key_although_weft_forgot_everything() {
    let words = "--steering chosen-key --connections 200 --joins 2 --lose 5 --restart-after 100";
    let report = run(words);
    assert_whole(&report, 200, 400);
    assert_nothing_is_kept(&report, 200, 400);
    assert!(report.all_servers.given_again > 5, "{report}");
    assert!(report.balancer.as_ref().unwrap().restarts > 50, "{report}");
}

#[test]
fn servers_that_take_no_key_and_stamp_no_number_lose_their_connections_under_chosen_keys() {
    let report = run("--steering chosen-key --kernel-keys --connections 60 --joins 1");
    let client = report.client.as_ref().unwrap();
    assert!(client.outcome.whole < 30 && report.all_servers.stray > 30, "{report}");
}

#[test]
fn what_goes_to_a_server_says_so_itself_by_key_token_and_timestamp() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let report = run(&format!("--steering chosen-key --connections 40 --joins 1 --out {}", out.display()));
    assert_whole(&report, 40, 40);
    let (mut owners, mut keys, mut joins, mut later) = (std::collections::BTreeMap::new(), 0, 0, 0);
    for frame in frames(&out.join("backends.pcap")) {
        // By hand: Ethernet, IPv4 to 10.0.1.N, UDP to port 6080, GUE, IPv4, TCP. What servers send is no tunnel.
        if frame[23] != 17 || frame[36..38] != 6080_u16.to_be_bytes() {
            continue;
        }
        let (number, private) = (frame[33], usize::from(frame[42] & 0x1f) * 4);
        let tcp = 46 + private + 20;
        let options = &frame[tcp + 20..tcp + usize::from(frame[tcp + 12] >> 4) * 4];
        let option = |start: &[u8], len: usize| options.windows(len).find(|part| part.starts_with(start));
        match (frame[tcp + 13] & 0x12, private, option(&[30, 12, 0x10], 12)) {
            (0x02, 12, None) => {
                assert_eq!(frame[46..50], [1, 0, 0, number]);
                owners.insert(Version::V1.token(frame[50..58].try_into().unwrap()), number);
                keys += 1;
            }
            (0x02, 0, Some(join)) => {
                let token = u32::from_be_bytes(join[4..8].try_into().unwrap());
                assert_eq!(owners.get(&token), Some(&number), "{token:08x}");
                joins += 1;
            }
            (0x10, 0, _) => {
                let stamps = option(&[8, 10], 10).unwrap();
                assert_eq!([stamps[8] & 0x0f, stamps[9]], [0, number]);
                later += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((keys, joins) == (40, 40) && later > 400, "{keys} {joins} {later}");
}

/// What tshark says of a capture: a row for each frame, with these fields.
fn tshark(file: &Path, fields: &[&str]) -> Option<Vec<Vec<String>>> {
    let mut command = std::process::Command::new("tshark");
    command.args(["-o", "tcp.check_checksum:TRUE", "-T", "fields", "-E", "occurrence=f", "-r"]).arg(file);
    fields.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let text = String::from_utf8(command.output().ok()?.stdout).unwrap();
    Some(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

#[test]
fn tshark_expects_every_joins_token_and_finds_nothing_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let v6 = "--steering chosen-key --client-version v0 --ip 6";
    for words in ["--checksums --fastclose", "--steering ranges", "--steering chosen-key --checksums", v6] {
        let out = directory.path().join("out");
        let report = run(&format!("{words} --connections 20 --joins 2 --out {}", out.display()));
        assert_whole(&report, 20, 40);
        let fields =
            ["tcp.checksum.status", "_ws.malformed", "mptcp.expected_token", "tcp.options.mptcp.recvtok"];
        let Some(rows) = tshark(&out.join("clients.pcap"), &fields) else {
            return skip::skip(
                "tshark_expects_every_joins_token_and_finds_nothing_damaged",
                "tshark is not installed",
            );
        };
        assert!(rows.len() > 500 && rows.iter().all(|row| row[0] == "1" && row[1].is_empty()), "{words}");
        // What tshark hashes from the keys in the handshakes, and what joins name.
        let of = |column: usize| -> std::collections::BTreeSet<&str> {
            rows.iter().map(|row| row[column].as_str()).filter(|token| !token.is_empty()).collect()
        };
        let (expected, named) = (of(2), of(3));
        assert!(named.len() == 20 && named.is_subset(&expected), "{words}: {named:?} of {expected:?}");
    }
}
