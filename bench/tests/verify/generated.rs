//! Everything `weft-bench gen` makes, through the engine, and verified: what one side misunderstood of MPTCP, the other
//! would have to misunderstand in the same way.

use std::net::SocketAddr;

use weft_bench::generate::{Families, Part, Plan, Profile, Stream, Versions, Vip};

use super::support::{Case, PORT, Seen, Weft, config};

/// The packets of a plan.
fn packets(plan: Plan) -> Vec<Seen> {
    let mut stream = Stream::new(plan).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = stream.next() {
        packets.push((packet.time, packet.bytes.to_vec()));
    }
    packets
}

/// So many connections of a profile to the VIPs of the case.
fn plan(profile: Profile, connections: u64) -> Plan {
    let vip = |address: &str, udp: bool| {
        let port = if udp { 53 } else { 443 };
        Vip { address: SocketAddr::new(address.parse().unwrap(), port), udp }
    };
    let vips = [false, true].into_iter().flat_map(|udp| [vip("10.9.9.9", udp), vip("fd99::9", udp)]);
    let vips = vips.filter(|vip| vip.udp == (profile == Profile::Udp) || profile == Profile::Mix).collect();
    let versions = if profile == Profile::Collide { Versions::V1 } else { Versions::Both };
    Plan { vips, versions, families: Some(Families::Both), ..Plan::new(profile, connections) }
}

#[test]
fn every_profile_verifies() {
    let ways = [("l2dsr", "both"), ("ipip", "both"), ("gue", "both"), ("ipip", "four"), ("gue", "six")];
    for (profile, (forward, pool)) in Profile::ALL.into_iter().zip(ways.into_iter().cycle()) {
        let config = config(PORT, pool, forward);
        let input = packets(plan(profile, 200));
        let output = Weft::new(&config).run(&input);
        let report = Case::new(&config).verify(&input, &output);
        let name = profile.name();
        assert!(report.verified, "{name} by {forward} to {pool}:\n{}", report.to_text());
        let steered = [
            Profile::Join,
            Profile::Overtake,
            Profile::Signals,
            Profile::Fastclose,
            Profile::Icmp,
            Profile::Mix,
        ];
        assert!(report.joins > 0 || !steered.contains(&profile), "{name}:\n{}", report.to_text());
    }
}

#[test]
fn steady_traffic_verifies_with_its_warm_up() {
    let config = config(PORT, "both", "ipip");
    for profile in [Profile::Bulk, Profile::JoinSyn, Profile::ThirdAck] {
        let part = |part, packets| Plan { part, packets, ..plan(profile, 300) };
        let (warm, input) = (packets(part(Part::Warm, None)), packets(part(Part::Steady, Some(2000))));
        let mut weft = Weft::new(&config);
        weft.run(&warm);
        let output = weft.run(&input);
        let mut case = Case::new(&config);
        case.options.warm = Some(case.write("warm.pcap", &warm));
        let report = case.verify(&input, &output);
        assert!(report.verified, "{}:\n{}", profile.name(), report.to_text());
    }
}
