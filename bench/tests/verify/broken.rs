//! One thing broken at a time.

use std::path::PathBuf;
use std::process::Command;

use weft_bench::verify::report::Report;

use super::support::{Case, PORT, Seen, Weft, config, traffic};

/// Bytes of Ethernet.
const LINK: usize = 14;
/// The packet of the output that is broken: of the first connection, v4, its join's data.
const BROKEN: usize = 5;

/// What went in, what came out, and the case they belong to.
struct Run {
    case: Case,
    input: Vec<Seen>,
    output: Vec<Seen>,
}

impl Run {
    fn new(forward: &str, pool: &str) -> Self {
        let text = config(PORT, pool, forward);
        let input = traffic(40);
        let output = Weft::new(&text).run(&input);
        Self { case: Case::new(&text), input, output }
    }

    fn verify(&self) -> Report {
        self.case.verify(&self.input, &self.output)
    }

    /// Changes one frame of the output; gives what `verify` says.
    fn broken(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Report {
        change(&mut self.output[BROKEN].1);
        self.verify()
    }

    /// Flips one bit of a frame, the IPv4 checksum of the outer header made right again.
    fn flipped(self, at: usize, bit: u8) -> Report {
        self.broken(|frame| {
            frame[LINK + at] ^= bit;
            mend(frame);
        })
    }
}

/// Makes the checksum of a frame's first IPv4 header right.
fn mend(frame: &mut [u8]) {
    frame[LINK + 10..LINK + 12].fill(0);
    let words = frame[LINK..LINK + 20].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    frame[LINK + 10..LINK + 12].copy_from_slice(&checksum.to_be_bytes());
}

/// Holds a report to one kind of failure, of the broken packet.
fn names(report: &Report, what: &str) {
    let text = report.to_text();
    assert!(!report.verified, "{what}: {text}");
    assert_eq!(report.kinds.keys().copied().collect::<Vec<_>>(), [what], "{text}");
    assert_eq!((report.failures, report.first[0].packet), (1, BROKEN as u64 + 1), "{text}");
    assert!(text.contains(&format!("packet {} of the output (1700000000.", BROKEN + 1)), "{text}");
}

#[test]
fn every_field_of_an_outer_ipv4_header_is_checked() {
    let fields = [
        (1, 0x04, "outer DSCP"),
        (1, 0x01, "outer ECN"),
        (3, 0x01, "outer length"),
        (6, 0x40, "outer don't-fragment"),
        (7, 0x01, "outer fragment offset"),
        (8, 0x01, "outer TTL"),
        (9, 0x01, "outer protocol"),
        (12, 0x01, "outer source"),
    ];
    for forward in ["ipip", "gue"] {
        for (at, bit, what) in fields {
            names(&Run::new(forward, "both").flipped(at, bit), what);
        }
        let report = Run::new(forward, "both").broken(|frame| frame[LINK + 11] ^= 1);
        names(&report, "outer checksum");
        assert!(report.first[0].expected.starts_with("0x"), "{report:?}");
        // 10.0.1.11 becomes 10.0.1.15, nobody's, or the like.
        let report = Run::new(forward, "both").flipped(19, 0x04);
        names(&report, "outer destination");
    }
    names(&Run::new("ipip", "both").flipped(4, 0x01), "outer identification");
}

#[test]
fn every_field_of_an_outer_ipv6_header_is_checked() {
    let fields = [
        (1, 0x40, "outer DSCP"),
        (1, 0x10, "outer ECN"),
        (3, 0x01, "outer flow label"),
        (5, 0x01, "outer length"),
        (6, 0x01, "outer protocol"),
        (7, 0x01, "outer hop limit"),
        (23, 0x01, "outer source"),
        (39, 0x40, "outer destination"),
    ];
    for forward in ["ipip", "gue"] {
        for (at, bit, what) in fields {
            names(&Run::new(forward, "six").broken(|frame| frame[LINK + at] ^= bit), what);
        }
    }
}

#[test]
fn every_field_of_udp_and_gue_is_checked() {
    let fields = [
        (0, 0x80, "GUE source port"),
        (1, 0x01, "GUE source port"),
        (3, 0x01, "GUE port"),
        (5, 0x01, "UDP length"),
        (7, 0x01, "UDP checksum"),
        (8, 0x40, "GUE version and length"),
        (9, 0x01, "GUE protocol"),
        (11, 0x01, "GUE flags"),
    ];
    for (at, bit, what) in fields {
        for (pool, ip) in [("both", 20), ("six", 40)] {
            let report = Run::new("gue", pool).broken(|frame| frame[LINK + ip + at] ^= bit);
            if at == 0 {
                // Below the range, and another than the flow's.
                assert_eq!((report.failures, report.kinds.len()), (2, 1), "{}", report.to_text());
            } else {
                names(&report, what);
            }
        }
    }
}

#[test]
fn mac_addresses_and_the_ethernet_type_are_checked() {
    for forward in ["l2dsr", "ipip"] {
        names(&Run::new(forward, "both").broken(|frame| frame[2] ^= 1), "destination MAC address");
        names(&Run::new(forward, "both").broken(|frame| frame[11] ^= 1), "source MAC address");
    }
    names(&Run::new("ipip", "both").broken(|frame| frame[12] = 0x86), "Ethernet type");
}

#[test]
fn a_changed_byte_is_named_by_its_place_and_what_stands_there() {
    // Behind IPv4 in front: an IP header of 20, a TCP header of 20, options.
    let places = [
        (8, "byte 8 (IP header) is 0x41, was 0x40"),
        (24, "byte 24 (TCP header)"),
        (45, "byte 45 (TCP option of kind 8)"),
        (60, "byte 60 (TCP option of kind 30)"),
        (200, "byte 200 (payload) is 0x32, was 0x33"),
    ];
    for (forward, before) in [("l2dsr", 0), ("ipip", 20), ("gue", 32)] {
        for (at, found) in places {
            let report = Run::new(forward, "both").broken(|frame| frame[LINK + before + at] ^= 1);
            names(&report, "packet changed");
            let failure = &report.first[0];
            assert_eq!(failure.expected, "packet 6 of the input, unchanged");
            let kind = found.split(')').next().unwrap();
            assert!(failure.found.starts_with(kind), "{failure:?}");
        }
        let report = Run::new(forward, "both").broken(|frame| {
            frame[LINK + before + 60] ^= 1;
            frame[LINK + before + 61] ^= 1;
        });
        assert!(report.first[0].found.ends_with("and 1 more"), "{report:?}");
    }
}

#[test]
fn a_packet_that_is_cut_or_has_bytes_behind_it_is_named() {
    names(&Run::new("ipip", "both").broken(|frame| frame.truncate(frame.len() - 1)), "packet changed");
    names(&Run::new("ipip", "both").broken(|frame| frame.push(0)), "bytes behind the outer packet");
}

#[test]
fn a_missing_packet_is_named_by_its_number_unless_drops_are_allowed() {
    let mut run = Run::new("ipip", "both");
    run.output.remove(BROKEN);
    let report = run.verify();
    let text = report.to_text();
    assert_eq!(report.kinds.keys().copied().collect::<Vec<_>>(), ["packet missing"], "{text}");
    assert_eq!((report.failures, report.first[0].packet, report.first[0].output), (1, 6, false), "{text}");
    assert!(text.contains("did not come out: 1 to a VIP, lost: packets 6\n"), "{text}");
    run.case.options.allow_drops = true;
    let report = run.verify();
    assert!(report.verified, "{}", report.to_text());
    assert_eq!(report.absent[0].first, [6]);
}

#[test]
fn a_packet_that_comes_out_twice_or_was_never_sent_is_named() {
    let mut run = Run::new("ipip", "both");
    let copy = run.output[2].clone();
    run.output.insert(BROKEN, copy);
    let report = run.verify();
    names(&report, "packet came out twice");
    assert_eq!(report.first[0].found, "as packet 3 before");

    let mut run = Run::new("ipip", "both");
    let mut other = run.output[2].clone();
    other.1[LINK + 20..].fill(0x77);
    run.output.insert(BROKEN, other);
    names(&run.verify(), "packet invented");
}

/// Gives a packet the address of another backend of its pool: b1 is 10.0.1.11 and 02:00:00:00:03:01, and so on.
fn move_on(frame: &mut [u8]) {
    let next = frame[LINK + 19] - 10;
    let next = next % 3 + 1;
    frame[LINK + 19] = 10 + next;
    frame[5] = next;
    mend(frame);
}

#[test]
fn a_packet_on_another_backend_than_its_flow_is_named() {
    let report = Run::new("ipip", "both").broken(|frame| move_on(frame));
    names(&report, "backend of the flow");
    assert!(report.first[0].expected.ends_with("as packet 4"), "{report:?}");
    // l2dsr: by the MAC address.
    let report = Run::new("l2dsr", "both").broken(|frame| frame[5] = frame[5] % 3 + 1);
    names(&report, "backend of the flow");
}

#[test]
fn a_subflow_on_another_backend_than_its_connection_is_named_with_its_token() {
    let mut run = Run::new("ipip", "both");
    // All packets of the first connection's second subflow.
    for at in 3..6 {
        move_on(&mut run.output[at].1);
    }
    let report = run.verify();
    let text = report.to_text();
    assert_eq!(report.kinds.keys().copied().collect::<Vec<_>>(), ["backend of the join"], "{text}");
    let failure = &report.first[0];
    assert_eq!(failure.packet, 4, "{text}");
    let token = format!("taught token {}", super::key(0).1);
    assert!(failure.expected.contains(&token), "{failure:?}");
}

#[test]
fn a_join_of_an_unknown_token_that_was_let_through_is_named() {
    let mut run = Run::new("ipip", "both");
    let join =
        run.input.iter().position(|(_, frame)| frame.windows(4).any(|w| w == [0x0b, 0xad, 0x0b, 0xad]));
    let (time, frame) = run.input[join.unwrap()].clone();
    // As the SYN before it left, which is as long: its outer header, with the join behind.
    let sent = run.output.iter().find(|(_, sent)| sent.len() == frame.len() + 20).unwrap();
    let mut forged = sent.1[..LINK + 20].to_vec();
    forged.extend(&frame[LINK..]);
    run.output.insert(BROKEN, (time, forged));
    let report = run.verify();
    assert!(report.kinds.contains_key("join of an unknown token"), "{}", report.to_text());
    assert!(report.first.iter().any(|failure| failure.expected.contains("0bad0bad")), "{}", report.to_text());
}

#[test]
fn what_no_vip_is_for_must_not_come_out() {
    let mut run = Run::new("l2dsr", "both");
    // To port 444.
    let foreign =
        run.input.iter().find(|(_, frame)| frame[LINK + 22..LINK + 24] == [1, 0xbc]).unwrap().clone();
    run.output.insert(BROKEN, foreign);
    names(&run.verify(), "packet forwarded");
}

#[test]
fn another_way_of_forwarding_is_named() {
    let run = Run::new("ipip", "both");
    let case = Case::new(&config(PORT, "both", "gue"));
    let report = case.verify(&run.input, &run.output);
    let text = report.to_text();
    assert!(report.kinds.contains_key("way of forwarding") && report.kinds.len() == 1, "{text}");
    assert!(text.contains("expected gue, found ipip"), "{text}");
}

#[test]
fn an_answer_with_a_wrong_checksum_is_named() {
    let mut run = Run::new("ipip", "both");
    // The echo reply: ICMP type 0 in IPv4.
    let reply = run.output.iter_mut().find(|(_, frame)| frame[LINK + 9] == 1 && frame[LINK + 20] == 0);
    reply.unwrap().1[LINK + 30] ^= 1;
    let report = run.verify();
    assert_eq!(
        report.kinds.keys().copied().collect::<Vec<_>>(),
        ["checksum of an answer"],
        "{}",
        report.to_text()
    );
}

#[test]
fn connections_that_all_go_to_one_backend_are_no_spread_by_weight() {
    // A configuration of one backend made this; the one it is held to has three.
    let three = config(PORT, "both", "l2dsr");
    let one = three.replacen("name    = \"b2\"", "weight = 0\nname    = \"b2\"", 1);
    let one = one.replacen("name    = \"b3\"", "weight = 0\nname    = \"b3\"", 1);
    let input = traffic(200);
    let output = Weft::new(&one).run(&input);
    let report = Case::new(&three).verify(&input, &output);
    let text = report.to_text();
    assert_eq!(report.kinds.keys().copied().collect::<Vec<_>>(), ["spread by weight"], "{text}");
    assert!(text.contains("backend b2 of pool both"), "{text}");
    let report = Case::new(&one).verify(&input, &output);
    assert!(report.verified, "{}", report.to_text());
}

/// The program itself, as users run it.
#[test]
fn the_program_ends_with_1_and_names_the_packet_or_with_0() {
    let mut run = Run::new("ipip", "both");
    for broken in [false, true] {
        if broken {
            run.output[BROKEN].1[LINK + 8] = 63;
            mend(&mut run.output[BROKEN].1);
        }
        let (input, output) =
            (run.case.write("in.pcap", &run.input), run.case.write("out.pcap", &run.output));
        let config: PathBuf = run.case.options.config.clone();
        let verify = |json: bool| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_weft-bench"));
            command
                .arg("verify")
                .arg("--in")
                .arg(&input)
                .arg("--out")
                .arg(&output)
                .arg("--config")
                .arg(&config);
            let done = if json { command.arg("--json") } else { &mut command }.output().unwrap();
            assert_eq!(done.status.code(), Some(i32::from(broken)));
            (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
        };
        let (text, error) = verify(false);
        let line = "outer TTL: expected 64, found 63 [TCP 192.0.128.0:50000 > ";
        assert_eq!(
            text.contains(line) || text.contains("outer TTL: expected 64, found 63 [TCP ["),
            broken,
            "{text}"
        );
        assert_eq!(error.lines().count(), usize::from(broken), "{error}");
        let (json, _) = verify(true);
        let report: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(report["verified"], !broken);
        if broken {
            assert_eq!(report["first"][0]["packet"], BROKEN + 1);
            assert_eq!(report["first"][0]["what"], "outer TTL");
        }
    }
}

#[test]
fn captures_that_cannot_be_verified_are_refused_in_one_sentence() {
    let run = Run::new("l2dsr", "both");
    run.case.write("out.pcap", &run.output);
    let error = run.case.options.report().unwrap_err().to_string();
    assert!(error.contains("in.pcap"), "{error}");

    let text = config(PORT, "both", "l2dsr").replacen("mac     = \"02:00:00:00:03:01\"\n", "", 1);
    let error = Case::new(&text).options.report().unwrap_err().to_string();
    assert!(error.contains("backend b1 has no `mac`"), "{error}");
}
