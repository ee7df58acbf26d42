//! Each profile is what it says: judged by the real engine, read by a parser that is not ours, and compared with what
//! Linux sent.

mod generate_support;

use std::collections::{BTreeMap, HashMap, HashSet};

use generate_support::{Judged, World, both, collect, names};
use ipc::counter::Counter;
use ipc::id::BackendId;
use ipc::reason::Reason;
use weft_bench::generate::{CASES, FrameSize, Kind, Part, Plan, Profile, Versions};

/// What the engine must say of a packet of this kind.
fn expected(kind: Kind) -> Reason {
    match kind {
        Kind::Syn | Kind::CapableSyn | Kind::MalformedSyn => Reason::Hash,
        Kind::JoinSyn => Reason::Token,
        Kind::EarlyJoinSyn | Kind::UnknownJoinSyn | Kind::ForgedJoinSyn => Reason::UnknownToken,
        Kind::TooBig | Kind::Unreachable | Kind::TimeExceeded => Reason::Related,
        _ => Reason::Flow,
    }
}

fn plan(profile: Profile, connections: u64) -> Plan {
    let versions = if profile == Profile::Collide { Versions::V1 } else { Versions::Both };
    Plan { versions, families: both(), ..Plan::new(profile, connections) }
}

/// Every packet of a kind must get the kind's reason, but for those the closure knows better.
fn each_gets_its_reason(judged: &[Judged], but: impl Fn(&Judged) -> Option<Reason>) {
    for (place, packet) in judged.iter().enumerate() {
        let reason = but(packet).unwrap_or_else(|| expected(packet.kind));
        assert_eq!(packet.verdict.reason, reason, "packet {place}, {}", packet.kind.name());
    }
}

/// All that is forwarded of a connection reaches one backend.
fn connections_stay_together(judged: &[Judged]) {
    let mut backends: HashMap<u64, BackendId> = HashMap::new();
    for packet in judged {
        if let Some(backend) = packet.verdict.backend {
            let first = backends.entry(packet.connection).or_insert(backend);
            assert_eq!(*first, backend, "connection {}, {}", packet.connection, packet.kind.name());
        }
    }
    assert!(!backends.is_empty());
}

/// Nothing in it counts as malformed.
fn nothing_is_malformed(world: &World) {
    let counters = [
        Counter::OptionMalformed,
        Counter::MptcpBadLength,
        Counter::MptcpBadFlags,
        Counter::MptcpCapableAndJoin,
        Counter::KeyRefused,
        Counter::KeyConflict,
        Counter::SynOnLiveFlow,
    ];
    for counter in counters {
        assert_eq!(world.count(counter), 0, "{}", counter.name());
    }
}

#[test]
fn honest_connections_follow_their_flows_and_their_joins_follow_them() {
    for profile in [
        Profile::Plain,
        Profile::Capable,
        Profile::Bulk,
        Profile::Join,
        Profile::Signals,
        Profile::Fastclose,
        Profile::Icmp,
        Profile::Overtake,
    ] {
        let mut world = World::new();
        let judged = world.judge(plan(profile, 300));
        each_gets_its_reason(&judged, |_| None);
        connections_stay_together(&judged);
        nothing_is_malformed(&world);
        let kinds = names(&judged);
        let of = |kind: Kind| kinds.get(kind.name()).copied().unwrap_or(0);
        assert_eq!(world.count(Counter::TokenLearned), of(Kind::ThirdAck), "{profile}");
        assert_eq!(world.count(Counter::JoinEstablished), of(Kind::JoinAck), "{profile}");
        assert_eq!(world.count(Counter::CapableSyn), of(Kind::CapableSyn), "{profile}");
        let joins = of(Kind::JoinSyn) + of(Kind::EarlyJoinSyn);
        assert_eq!(world.count(Counter::JoinSyn), joins, "{profile}");
        assert_eq!(of(Kind::JoinSyn) > 0, world.count(Counter::JoinEstablished) > 0, "{profile}");
        assert_eq!(world.count(Counter::Adopted), 0, "{profile}: every flow was opened");
    }
}

#[test]
fn a_client_that_speaks_first_shows_its_key_twice() {
    let mut world = World::new();
    let judged = world.judge(Plan { versions: Versions::V1, ..plan(Profile::Capable, 400) });
    let first_data = names(&judged)["first_data"];
    assert_eq!(world.count(Counter::KeyRepeated), first_data);
    // Three in four, more or less.
    assert!((260..=340).contains(&first_data), "{first_data} of 400");
}

#[test]
fn a_fastclose_ends_the_token_of_its_connection() {
    let mut world = World::new();
    let judged = world.judge(Plan { versions: Versions::V1, ..plan(Profile::Fastclose, 100) });
    assert_eq!(names(&judged)["fastclose"], 200);
    // It comes on both subflows, and ends once.
    assert_eq!(world.count(Counter::TokenClosing), 100);
}

#[test]
fn an_early_join_is_dropped_once_and_its_retransmission_joins() {
    let mut world = World::new();
    let judged = world.judge(plan(Profile::Overtake, 100));
    let kinds = names(&judged);
    assert_eq!((kinds["early_join_syn"], kinds["join_syn"], kinds["join_ack"]), (100, 100, 100));
    // The second is the first again: same sequence number, same nonce.
    let mut early: HashMap<u64, &Judged> = HashMap::new();
    for packet in &judged {
        match packet.kind {
            Kind::EarlyJoinSyn => assert!(early.insert(packet.connection, packet).is_none()),
            Kind::JoinSyn => assert_eq!(early[&packet.connection].seq(), packet.seq()),
            _ => {}
        }
    }
}

#[test]
fn a_warm_part_establishes_what_the_steady_part_goes_on_with() {
    for profile in
        [Profile::Plain, Profile::Capable, Profile::Bulk, Profile::Join, Profile::Icmp, Profile::Udp]
    {
        let mut world = World::new();
        let warm = world.judge(Plan { part: Part::Warm, ..plan(profile, 500) });
        let steady = Plan { part: Part::Steady, packets: Some(1500), ..plan(profile, 500) };
        let steady = world.judge(steady);
        each_gets_its_reason(&steady, |_| None);
        assert_eq!(steady.len(), 1500);
        assert_eq!(world.count(Counter::Adopted), 0, "{profile}: every flow is known");
        connections_stay_together(&[warm.as_slice(), steady.as_slice()].concat());
        assert!(steady[0].time > warm.last().unwrap().time, "{profile}: time goes on");
        if profile == Profile::Join {
            let second = warm.iter().filter(|packet| packet.kind == Kind::JoinSyn).map(|packet| packet.flow);
            let second: HashSet<_> = second.collect();
            let joined = steady[..500].iter().filter(|packet| second.contains(&packet.flow)).count();
            assert!((200..=300).contains(&joined), "{joined} of 500 begin on the second subflow");
        }
        // Each connection comes once a round, and not in the order of the warm part.
        let order: Vec<u64> = steady[..500].iter().map(|packet| packet.connection).collect();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..500), "{profile}");
        assert_ne!(order, sorted, "{profile}");
    }
}

#[test]
fn what_is_measured_alone_is_alone_in_its_steady_part() {
    for (profile, kind, reason) in [
        (Profile::JoinSyn, Kind::JoinSyn, Reason::Token),
        (Profile::ThirdAck, Kind::ThirdAck, Reason::Flow),
        (Profile::SynFlood, Kind::Syn, Reason::Hash),
        (Profile::CapableFlood, Kind::CapableSyn, Reason::Hash),
        (Profile::JoinFlood, Kind::UnknownJoinSyn, Reason::UnknownToken),
    ] {
        let mut world = World::new();
        if profile.has_warm_part() {
            world.judge(Plan { part: Part::Warm, ..plan(profile, 400) });
        }
        let before = world.count(Counter::FlowInserted);
        let steady = world.judge(Plan { part: Part::Steady, packets: Some(800), ..plan(profile, 400) });
        assert!(
            steady.iter().all(|packet| packet.kind == kind && packet.verdict.reason == reason),
            "{profile}"
        );
        let inserted = world.count(Counter::FlowInserted) - before;
        match profile {
            // Every SYN has a 5-tuple of its own.
            Profile::JoinSyn | Profile::SynFlood | Profile::CapableFlood => {
                assert_eq!(inserted, 800, "{profile}")
            }
            _ => assert_eq!(inserted, 0, "{profile}"),
        }
        if profile == Profile::ThirdAck {
            assert_eq!((world.count(Counter::TokenLearned), world.count(Counter::KeyRepeated)), (400, 400));
        }
    }
}

#[test]
fn unknown_joins_come_twice_and_are_dropped_twice() {
    let mut world = World::new();
    let judged = world.judge(plan(Profile::Unknown, 100));
    each_gets_its_reason(&judged, |_| None);
    assert_eq!((judged.len(), world.count(Counter::FlowInserted)), (200, 0));
}

#[test]
fn forged_keys_teach_nothing_and_forged_hmacs_are_the_backends_to_find() {
    let mut world = World::new();
    let judged = world.judge(plan(Profile::Forged, 500));
    // Of five kinds the first has no SYN: its third packet is adopted.
    each_gets_its_reason(&judged, |packet| {
        (packet.kind == Kind::ForgedAck && packet.connection % 5 == 0).then_some(Reason::Hash)
    });
    assert_eq!(world.count(Counter::Adopted), 100);
    assert_eq!(world.count(Counter::KeyRefused), 200);
    assert_eq!(world.count(Counter::KeyConflict), 100);
    // Only the honest first claims of the last two kinds were learned.
    assert_eq!(world.count(Counter::TokenLearned), 200);
    let kinds = names(&judged);
    assert_eq!((kinds["forged_join_syn"], kinds["forged_join_ack"]), (400, 100));
}

#[test]
fn tokens_that_collide_on_two_backends_are_ambiguous_and_on_one_are_not() {
    let mut world = World::new();
    let judged = world.judge(plan(Profile::Collide, 200));
    let opened = |connection: u64| {
        let syn = |packet: &&Judged| packet.connection == connection && packet.kind == Kind::CapableSyn;
        judged.iter().find(syn).and_then(|packet| packet.verdict.backend).unwrap()
    };
    let apart: Vec<bool> = (0..100).map(|pair| opened(2 * pair) != opened(2 * pair + 1)).collect();
    let pair = |packet: &Judged| apart[usize::try_from(packet.connection / 2).unwrap()];
    each_gets_its_reason(&judged, |packet| {
        (packet.kind == Kind::JoinSyn && pair(packet)).then_some(Reason::AmbiguousToken)
    });
    let apart = apart.iter().filter(|apart| **apart).count() as u64;
    assert!(apart > 50, "{apart} of 100 pairs on two of eight backends");
    assert_eq!(world.count(Counter::TokenAmbiguous), apart);
    assert_eq!(world.count(Counter::TokenLearned), 100);
}

#[test]
fn every_malformed_case_moves_its_counter_and_no_packet_is_lost() {
    let mut world = World::new();
    let cases = CASES.len() as u64;
    let judged = world.judge(Plan { versions: Versions::V1, ..plan(Profile::Malformed, 10 * cases) });
    each_gets_its_reason(&judged, |_| None);
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    for case in CASES {
        *expected.entry(case.counter).or_default() += 10;
    }
    for (name, count) in expected {
        let counter = Counter::ALL.iter().find(|counter| counter.name() == name).unwrap();
        assert_eq!(world.count(*counter), count, "{name}");
    }
    assert_eq!(world.count(Counter::TokenLearned), 0);
}

#[test]
fn a_mix_has_everything_and_every_packet_gets_what_its_kind_gets() {
    let mut world = World::new();
    let mut opened = HashMap::new();
    let judged = world.judge(plan(Profile::Mix, 3000));
    each_gets_its_reason(&judged, |packet| {
        (packet.kind == Kind::Datagram).then_some(if packet.first_of_its_flow {
            Reason::Hash
        } else {
            Reason::Flow
        })
    });
    for packet in &judged {
        *opened.entry(packet.kind).or_insert(0_u64) += 1;
    }
    connections_stay_together(&judged);
    let absent = [Kind::ForgedAck, Kind::ForgedJoinSyn, Kind::ForgedJoinAck];
    for kind in Kind::ALL {
        assert_eq!(opened.contains_key(&kind), !absent.contains(&kind), "{}", kind.name());
    }
}

#[test]
fn datagrams_open_a_flow_and_follow_it() {
    let mut world = World::new();
    let judged = world.judge(plan(Profile::Udp, 100));
    each_gets_its_reason(&judged, |packet| packet.first_of_its_flow.then_some(Reason::Hash));
    assert_eq!((judged.len(), world.count(Counter::FlowInserted)), (900, 100));
}

#[test]
fn a_file_has_as_many_packets_as_asked_for_and_the_sizes_asked_for() {
    for (size, bytes) in [("min", 78), ("512", 512), ("78", 78), ("9000", 9000)] {
        let size: FrameSize = size.parse().unwrap();
        let families = Some(weft_bench::generate::Families::V4);
        let steady =
            Plan { part: Part::Steady, packets: Some(77), size, families, ..Plan::new(Profile::Bulk, 50) };
        let packets = collect(steady);
        assert_eq!(packets.len(), 77);
        assert!(packets.iter().all(|packet| packet.bytes.len() == bytes), "{size}");
    }
    let sixty = Plan {
        size: FrameSize::Bytes(60),
        families: Some(weft_bench::generate::Families::V4),
        ..Plan::new(Profile::Plain, 3)
    };
    let data: Vec<_> = collect(sixty).into_iter().filter(|packet| packet.kind == Kind::Data).collect();
    assert!(data.len() == 24 && data.iter().all(|packet| packet.bytes.len() == 60));
}

#[test]
fn a_plan_that_contradicts_itself_says_what_to_change() {
    let refused = |plan: Plan| weft_bench::generate::Stream::new(plan).unwrap_err().to_string();
    let said = refused(Plan { part: Part::Warm, ..plan(Profile::SynFlood, 10) });
    assert!(said.contains("no warm part"), "{said}");
    let said = refused(Plan { part: Part::Steady, ..plan(Profile::Unknown, 10) });
    assert!(said.contains("no steady part"), "{said}");
    let said = refused(Plan { packets: Some(100), ..plan(Profile::Unknown, 10) });
    assert!(said.contains("--connections"), "{said}");
    let said = refused(Plan { vips: Vec::new(), ..plan(Profile::Join, 10) });
    assert!(said.contains("--vip tcp/"), "{said}");
    let said = refused(plan(Profile::Join, 0));
    assert!(said.contains("connections"), "{said}");
    let said = refused(Plan { versions: Versions::Both, ..Plan::new(Profile::Collide, 10) });
    assert!(said.contains("--version"), "{said}");
}

#[test]
fn no_packet_costs_an_allocation() {
    for profile in Profile::ALL {
        let mut stream = weft_bench::generate::Stream::new(plan(profile, 64)).unwrap();
        let before = weft_bench::alloc::count();
        while stream.next().is_some() {}
        assert_eq!(weft_bench::alloc::count() - before, 0, "{profile}");
    }
}
