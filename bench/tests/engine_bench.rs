//! What the bench says of the engine is true of the engine: the packets are what they are called, the tables are as
//! full as they are said to be, nothing is allocated, and what opens something leaves the tables as they were.
//!
//! No figure of time is held to anything here.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use clap::Parser;
use ipc::reason::Reason;
use packet::Family;
use weft_bench::engine_bench::{
    Bench, CaseName, Kind, Lookups, Openings, Options, Subject, flows, measure_threads, open, rows, tokens,
};
use weft_bench::floor::{HASH, LINE, REWRITE};
use weft_bench::world::{World, standard};

/// The options of a command line.
fn options(words: &str) -> Options {
    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }
    Line::try_parse_from(core::iter::once("engine").chain(words.split_whitespace())).unwrap().options
}

#[test]
fn every_measured_packet_of_an_established_connection_is_its_flows_and_nothing_is_allocated() {
    for words in [
        "--flows 2k --rounds 2 --packets 20k",
        "--flows 2k --rounds 1 --packets 20k --family 6 --burst 64",
        "--flows 2k --rounds 1 --packets 5k --burst 1 --frames bare",
        "--flows 2k --rounds 1 --packets 5k --frames timestamps",
        "--flows 2k --rounds 1 --packets 140k --cold",
    ] {
        let options = options(words);
        let mut bench = Bench::new(&options).unwrap();
        assert_eq!((bench.flows(), bench.tokens()), (2000, 2000), "{words}");
        let measured = bench.measure(&[Subject::Engine, Subject::Floor(REWRITE)], options.rounds);
        let judged = u64::from(options.packets.unwrap()) * u64::from(options.rounds);
        assert_eq!(bench.reasons().occurred(), [(Reason::Flow, judged)], "{words}");
        for one in &measured {
            assert_eq!((one.total.allocations, one.total.packets), (0, judged), "{words}: {:?}", one.subject);
            assert_eq!(one.rounds.len(), options.rounds as usize);
        }
        assert_eq!(bench.flows(), 2000, "no flow was added");
        let rows = rows(&bench, u64::from(options.burst), options.cold, &measured);
        assert_eq!(rows[0].floor_ratio.map(f64::is_finite), Some(true));
        assert_eq!((rows[0].cold, rows[0].burst), (options.cold, Some(u64::from(options.burst))));
    }
}

#[test]
fn packets_to_endpoints_are_measured_without_any_entry() {
    for words in [
        "--case endpoint --flows 2k --rounds 1 --packets 20k",
        "--case endpoint --flows 2k --rounds 1 --packets 5k --family 6",
    ] {
        let options = options(words);
        let mut bench = Bench::new(&options).unwrap();
        let measured = bench.measure(&[Subject::Engine], 1);
        let judged = u64::from(options.packets.unwrap());
        assert_eq!(bench.reasons().occurred(), [(Reason::Endpoint, judged)], "{words}");
        assert_eq!((measured[0].total.allocations, bench.flows(), bench.tokens()), (0, 0, 0));
    }
    assert!(Bench::new(&options("--case endpoint --config weft.toml")).is_err());
}

#[test]
fn tables_stand_at_the_load_they_are_advised_for() {
    let bench = Bench::new(&options("--flows 30k --packets 1k")).unwrap();
    assert!((0.52..0.55).contains(&bench.load()), "{}", bench.load());
    assert!((0.90..0.99).contains(&bench.first_line()), "{}", bench.first_line());
    assert!((0.93..0.98).contains(&bench.floor_hit_rate()), "{}", bench.floor_hit_rate());
    assert!(bench.summary().contains("30000 flows and 30000 tokens"), "{}", bench.summary());
}

#[test]
fn the_floor_has_three_depths_on_both_families() {
    for family in ["4", "6"] {
        let options = options(&format!("--flows 2k --packets 4k --rounds 1 --family {family}"));
        let mut bench = Bench::new(&options).unwrap();
        let subjects = [HASH, LINE, REWRITE].map(Subject::Floor);
        let measured = bench.measure(&subjects, 1);
        let names: Vec<&str> = measured.iter().map(|one| one.subject.name()).collect();
        assert_eq!(names, ["floor_hash", "floor_line", "floor"]);
        assert!(measured.iter().all(|one| one.total.packets == 4000 && one.total.allocations == 0));
        assert!(bench.reasons().occurred().is_empty(), "the engine judged nothing");
    }
}

#[test]
fn what_opens_something_is_judged_as_what_it_is_and_leaves_the_tables_as_they_were() {
    for (kind, reason, learned) in [
        (Kind::CapableSyn, Reason::Hash, 0),
        (Kind::Join, Reason::Token, 0),
        (Kind::JoinUnknown, Reason::UnknownToken, 0),
        (Kind::ThirdAck, Reason::Flow, 8_192),
    ] {
        let options = options("--flows 20480 --tokens 20k --packets 4k --rounds 3");
        let mut openings = Openings::new(kind, &options).unwrap();
        let before = openings.entries();
        let opened = openings.measure(3);
        // Two parts of 2,048 a round, and one round that does not count.
        assert_eq!(openings.reasons.occurred(), [(reason, 3 * 4096)], "{kind:?}");
        assert_eq!((opened.total.packets, opened.total.allocations), (3 * 4096, 0), "{kind:?}");
        assert_eq!(opened.rounds.len(), 3);
        let [flows, tokens] = openings.entries();
        assert_eq!(flows, before[0], "{kind:?}");
        assert!(tokens - before[1] < 2048 + learned / 4, "{kind:?}: {tokens} tokens, {before:?} before");
    }
}

#[test]
fn a_row_of_what_opens_something_says_what_it_was() {
    let [row, floor] =
        open(Kind::Join, &options("--flows 20480 --tokens 10k --packets 2k --rounds 1 --family 6")).unwrap();
    assert_eq!((row.figure.as_str(), row.case.as_str()), ("engine", "join_known_v6"));
    assert_eq!((floor.figure.as_str(), floor.case.as_str()), ("floor", "join_known_v6"));
    assert!(row.floor_ratio.is_some() && floor.floor_ratio.is_none());
    assert_eq!((row.tokens, row.extra["reasons"]["token"].as_u64()), (Some(10_000), Some(2048)));
    assert_eq!(row.extra["homeless"].as_u64(), Some(0));
}

#[test]
fn look_ups_find_what_is_there_and_nothing_else() {
    let options = options("--case token-hit --tokens 20k --packets 4k");
    assert_eq!(options.case, CaseName::TokenHit);
    let lookups = Lookups::new(&options).unwrap();
    assert_eq!((lookups.found(true, 10_000), lookups.found(false, 10_000)), (10_000, 0));
    let rounds = lookups.measure(true, &[32, 64], 2);
    assert_eq!(rounds.iter().map(weft_bench::measure::Rounds::len).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn two_threads_share_the_tables_and_learn() {
    let rows = measure_threads(&options("--flows 20k --rounds 1"), 2);
    let cpus = weft_bench::machine::cpus().len();
    if cpus < 2 {
        assert!(rows.is_err());
        return;
    }
    let rows = rows.unwrap();
    let units: Vec<_> = rows.iter().map(|row| (row.unit.as_str(), row.workers)).collect();
    assert_eq!(units, [("ns", Some(1)), ("ns", Some(2)), ("ratio", Some(2))]);
    let reasons = &rows[2].extra["reasons"];
    let share = |name: &str| reasons[name].as_u64().unwrap_or(0);
    assert!(share("flow") > 0 && share("hash") > 0 && share("token") > 0, "{reasons}");
    assert_eq!(share("unknown_token") + share("join_rate") + share("no_backend"), 0, "{reasons}");
    assert!(measure_threads(&options("--rounds 1"), 4096).is_err());
}

#[test]
fn an_empty_world_holds_nothing_and_serves_both_families() {
    let config = standard(2000, 3000).unwrap();
    let world = World::new(&config).unwrap();
    assert_eq!((flows(&world), tokens(&world)), (0, 0));
    assert!(world.tables.flows.capacity() > 2000 && world.tables.tokens.capacity() > 3000);
    for family in [Family::V4, Family::V6] {
        let service = weft_bench::world::service(&config, family).unwrap();
        assert_eq!(service, weft_bench::traffic::Service::standard(family));
    }
}

/// A configuration file and two captures: one that opens connections, one of their traffic.
fn captures(folder: &std::path::Path) -> [std::path::PathBuf; 3] {
    use packet::Token;
    use weft_bench::arena::Held;
    use weft_bench::traffic::{Clients, Service, Shape, Template};

    let config = folder.join("weft.toml");
    let text = "[dataplane]\nworkers = [0]\nflows = 2000\ntokens = 2000\n\
        [[dataplane.port]]\ndevice = \"net_null0\"\nmac = \"02:00:00:00:02:01\"\naddress = [\"10.0.0.1/16\"]\n\
        [[pool]]\nname = \"pool\"\n\
        [[pool.backend]]\nname = \"b\"\naddress = [\"10.0.1.1\"]\nmac = \"02:00:00:00:03:01\"\n\
        [[vip]]\nname = \"vip\"\naddress = [\"203.0.113.1\"]\nport = 443\nprotocol = \"tcp\"\npool = \"pool\"\n\
        forward = \"ipip\"\n";
    std::fs::write(&config, text).unwrap();
    let clients = Clients { service: Service::standard(Family::V4), seed: 5 };
    let write = |name: &str, shapes: &[Shape]| {
        let path = folder.join(name);
        let mut writer = capture::CaptureWriter::create(&path).unwrap();
        let mut held = Held::default();
        for (shape, number) in shapes.iter().flat_map(|shape| (0..50).map(move |number| (shape, number))) {
            let template = Template::new(*shape, &clients.service);
            let len = template.write(&clients.get(number), Token(0), &mut held);
            writer.write(std::time::Duration::ZERO, &held.0[..len], 0).unwrap();
        }
        writer.finish().unwrap();
        path
    };
    let warm = write("warm.pcap", &[Shape::CapableSyn, Shape::CapableAck, Shape::DataAck]);
    [config, warm, write("steady.pcap", &Shape::DSS)]
}

#[test]
fn a_capture_is_replayed_after_the_one_that_establishes_its_flows() {
    let folder = tempfile::tempdir().unwrap();
    let [config, warm, steady] = captures(folder.path()).map(|path| path.display().to_string());
    let warmed =
        options(&format!("--config {config} --pcap {steady} --warm {warm} --packets 300 --rounds 2"));
    let mut bench = Bench::new(&warmed).unwrap();
    let measured = bench.measure(&[Subject::Engine, Subject::Floor(REWRITE)], 2);
    assert_eq!((bench.case(), bench.flows(), bench.tokens(), bench.frame_bytes()), ("steady", 50, 50, 84));
    assert_eq!(bench.reasons().occurred(), [(Reason::Flow, 600)]);
    assert_eq!(measured[0].total.allocations, 0);
    assert!(bench.floor_hit_rate() > 0.99);

    // Without it the flows are adopted, once, in the round that does not count.
    let cold = options(&format!("--config {config} --pcap {steady} --rounds 1"));
    let mut bench = Bench::new(&cold).unwrap();
    assert_eq!(bench.tokens(), 0);
    let measured = bench.measure(&[Subject::Engine], 1);
    // Whole turns of 150 packets, as many as make a million.
    assert_eq!(measured[0].total.packets, 1_000_050);
}

#[test]
fn what_is_missing_or_contradicts_itself_is_refused_in_words() {
    let missing = options("--config /nonexistent/weft.toml --pcap /nonexistent/a.pcap");
    let said = format!("{:#}", Bench::new(&missing).unwrap_err());
    assert!(said.contains("/nonexistent/weft.toml"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let [config, ..] = captures(folder.path());
    let empty = folder.path().join("empty.pcap");
    capture::CaptureWriter::create(&empty).unwrap().finish().unwrap();
    let words = format!("--config {} --pcap {}", config.display(), empty.display());
    let said = format!("{:#}", Bench::new(&options(&words)).unwrap_err());
    assert!(said.contains("has no packet"), "{said}");
    let six = options(&format!("--config {} --family 6 --flows 1k", config.display()));
    let said = format!("{:#}", Bench::new(&six).unwrap_err());
    assert!(said.contains("no TCP VIP of this family"), "{said}");
}
