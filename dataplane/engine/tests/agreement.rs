//! Two data planes that were told the same in another order, after another past, judge alike every packet that Maglev
//! alone decides: appliances behind ECMP need not talk about those.
//!
//! Alike: the same action, reason, VIP and backend, each by its name (ids may differ, and mostly do), and the same
//! destination MAC address on the frame.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use engine::verdict::Action;
use ipc::message::{BackendState, Command, Forward, Name, Protocol, Steering, UnknownToken};
use ipc::reason::Reason;
use packet::build::{PacketBuilder, packet};
use packet::{Address, Family, Flags, Flow, Key, Version};
use proptest::prelude::*;
use support::{CLIENT_KEY, FAMILIES, Random, World, backend_in, name, of, site, vip_address};

/// TCP services by l2dsr, ipip and GUE, one of them of any port, and UDP ones: two of one address, whose fragments
/// are forwarded only where both are of one pool, and one that has its address for itself. The last byte of each
/// VIP's addresses, then its port.
const VIPS: [(&str, Protocol, Forward, u8, u16); 7] = [
    ("web", Protocol::Tcp, Forward::L2dsr, 9, 8000),
    ("tunnel", Protocol::Tcp, Forward::Ipip, 9, 8001),
    ("gue", Protocol::Tcp, Forward::Gue, 9, 8002),
    ("any", Protocol::Tcp, Forward::L2dsr, 10, 0),
    ("dns", Protocol::Udp, Forward::L2dsr, 9, 53),
    ("quic", Protocol::Udp, Forward::L2dsr, 9, 443),
    ("time", Protocol::Udp, Forward::Ipip, 11, 123),
];
const POOLS: [&str; 3] = ["one", "two", "three"];

/// What both are to be like in the end.
struct Wanted {
    pools: Vec<Command>,
    backends: Vec<Command>,
    vips: Vec<Command>,
    services: Vec<Command>,
}

impl Wanted {
    fn any(random: &mut Random) -> Self {
        let pools: Vec<_> = POOLS.iter().map(|pool| Command::PutPool { name: name(pool) }).collect();
        let mut backends = Vec::new();
        for pool in POOLS {
            for _ in 0..2 + random.below(5) {
                let number = u8::try_from(1 + backends.len()).unwrap();
                let weight = [1, 50, 100, 100, 100, 1000][random.below(6)];
                let state = match random.below(10) {
                    0 => BackendState::Draining,
                    1 => BackendState::Down,
                    _ => BackendState::Active,
                };
                backends.push(backend_in(pool, &format!("b{number}"), number, weight, state));
            }
        }
        let (mut vips, mut services) = (Vec::new(), Vec::new());
        for (vip, protocol, forward, last, port) in VIPS {
            let (pool, steering) = (name(POOLS[random.below(3)]), Steering::learning(random.percent(80)));
            let unknown_token = UnknownToken::Drop;
            vips.push(Command::PutVip { name: name(vip), pool, protocol, forward, steering, unknown_token });
            services.extend(support::services(vip, last, port));
        }
        Self { pools, backends, vips, services }
    }

    /// All of it, in any order that holds: pools, then backends and VIPs, then services.
    fn shuffled(&self, random: &mut Random) -> Vec<Command> {
        let mut middle: Vec<Command> = self.backends.iter().chain(&self.vips).copied().collect();
        let (mut first, mut last) = (self.pools.clone(), self.services.clone());
        for part in [&mut first, &mut middle, &mut last] {
            shuffle(part, random);
        }
        first.into_iter().chain(middle).chain(last).collect()
    }
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for index in (1..items.len()).rev() {
        items.swap(index, random.below(index + 1));
    }
}

/// A data plane that has seen other days: what it was told on the way to what is wanted.
fn after_a_past(wanted: &Wanted, random: &mut Random) -> World {
    let mut world = World::unconfigured(site());
    let mut extras = BTreeSet::new();
    let commands = wanted.shuffled(random);
    // The wanted things in several batches, and between them what will not last.
    let mut at = 0;
    while at < commands.len() {
        let next = (at + 1 + random.below(12)).min(commands.len());
        let pools = wanted.pools.len();
        let until = if next < pools { pools } else { next };
        // A batch that ends before a VIP's services is as good as one that ends behind them.
        world.commit(&commands[at..until]);
        at = until;
        for _ in 0..random.below(4) {
            stray(&mut world, wanted, &mut extras, random);
        }
    }
    for (pool, extra) in extras {
        let _gone = world.try_commit(&[Command::RemoveBackend { pool, name: extra, deadline: None }]);
    }
    // Back to what is wanted, in yet another order; of some only now the last word.
    world.commit(&wanted.shuffled(random));
    world
}

/// One thing that will be taken back: a stranger in a pool, another weight or state, a removal, or traffic.
fn stray(world: &mut World, wanted: &Wanted, extras: &mut BTreeSet<(Name, Name)>, random: &mut Random) {
    let known = wanted.backends[random.below(wanted.backends.len())];
    let Command::PutBackend { pool, name: text, weight, state, handles, .. } = known else {
        panic!("{known:?}")
    };
    let number = u8::try_from(1 + random.below(200)).unwrap();
    let another = |weight, state| {
        let Command::PutBackend { pool, name, address4, address6, mac, .. } = known else { panic!() };
        Command::PutBackend { pool, name, address4, address6, mac, weight, state, handles }
    };
    match random.below(8) {
        0 | 1 => {
            let extra = name(&format!("x{}", random.below(6)));
            world.commit(&[backend_in(pool.as_str(), extra.as_str(), number, 300, BackendState::Active)]);
            extras.insert((pool, extra));
        }
        2 => world.commit(&[another(1 + weight % 1000, state)]),
        3 => world.commit(&[another(weight, BackendState::Draining)]),
        4 => world.commit(&[another(weight, BackendState::Down)]),
        5 => {
            let _removed = world.try_commit(&[Command::RemoveBackend { pool, name: text, deadline: None }]);
        }
        6 => drop(world.forget_unused()),
        _ => {
            for family in FAMILIES {
                for source in 0..20 {
                    let port = 60_000 + source;
                    let old = support::flow(family, u16::from(number), port, 9, 8000);
                    world.send(of(&old).syn(1).mp_capable_syn_v1());
                }
            }
            let minutes = u64::from(number % 3);
            world.wait(60 * minutes);
        }
    }
}

/// The kinds of packets that Maglev alone decides.
const KINDS: [&str; 9] = [
    "plain SYN",
    "MP_CAPABLE SYN",
    "MP_CAPABLE SYN of version 0",
    "non-SYN of an unknown flow",
    "third ACK of an unknown flow",
    "UDP",
    "UDP fragment",
    "ICMP error about an unknown flow",
    "FIN or RST of an unknown flow",
];

/// A packet of a flow that was never seen before, and its kind.
fn fresh(random: &mut Random, nth: usize) -> (usize, Vec<Vec<u8>>) {
    let kind = random.below(KINDS.len());
    let family = FAMILIES[random.below(2)];
    let (protocol, last, port) = match kind {
        5 | 6 => [(17, 9, 53), (17, 9, 443), (17, 11, 123)][random.below(3)],
        7 if random.percent(30) => (17, 9, 53),
        _ => [(6, 9, 8000), (6, 9, 8001), (6, 9, 8002), (6, 10, 4711)][random.below(4)],
    };
    let host = random.word();
    let source = match family {
        Family::V4 => Address::from_v4((0x6440_0000 | (host & 0x003f_ffff)).to_be_bytes()),
        Family::V6 => Address(0x2001_0db8_0000_0000_u128 << 64 | u128::from(host)),
    };
    let flow = Flow {
        source,
        destination: vip_address(family, last),
        source_port: u16::try_from(1024 + nth % 60_000).unwrap(),
        destination_port: port,
        protocol,
        family,
    };
    (kind, packets(kind, &flow, random))
}

fn packets(kind: usize, flow: &Flow, random: &mut Random) -> Vec<Vec<u8>> {
    let (seq, key) = (random.word(), Key(random.next().to_be_bytes()));
    let packet = match kind {
        0 => of(flow).syn(seq),
        1 => of(flow).syn(seq).mp_capable_syn_v1(),
        2 => of(flow).syn(seq).mp_capable_syn_v0(key),
        3 => of(flow).data(seq, 1).payload(b"data"),
        4 => of(flow).data(seq, 1).mp_capable_ack(Version::V1, CLIENT_KEY, key),
        5 => of(flow).payload(&vec![7; random.below(600)]),
        6 => {
            let whole = of(flow).payload(&vec![7; 700 + random.below(2000)]).identification(9);
            return whole.build_fragments(600);
        }
        7 => return vec![error(flow, random).build()],
        _ if random.percent(50) => of(flow).fin(seq, 1),
        _ => of(flow).flags(Flags::RST).seq(seq),
    };
    vec![if random.percent(20) { packet.vlan(7).build() } else { packet.build() }]
}

/// A router's word to the VIP that what a server sent to this flow's client did not arrive.
fn error(flow: &Flow, random: &mut Random) -> PacketBuilder {
    let back = Flow {
        source: flow.destination,
        destination: flow.source,
        source_port: flow.destination_port,
        destination_port: flow.source_port,
        ..*flow
    };
    let sent = of(&back).payload(&[0; 40]).build_ip();
    let (router, kind) = match flow.family {
        Family::V4 => (Address::from_v4([198, 51, 100, 1]), [3, 11, 12][random.below(3)]),
        Family::V6 => (Address(0x2001_0db8_0009_u128 << 80 | 1), [1, 2, 3, 4][random.below(4)]),
    };
    packet().ip(router, flow.destination, flow.family).icmp_error(kind, 0, 1400, &sent)
}

/// What two data planes must say alike.
type Said = (Action, Reason, Option<String>, Option<String>, [u8; 6]);

/// What a data plane says of frames, in bursts of any size.
fn judge(world: &mut World, frames: &[(usize, Vec<u8>)], random: &mut Random) -> BTreeMap<usize, Said> {
    let mut said = BTreeMap::new();
    let mut at = 0;
    while at < frames.len() {
        let burst = &frames[at..(at + 1 + random.below(64)).min(frames.len())];
        at += burst.len();
        let outcomes = world.burst(burst.iter().map(|(_, frame)| frame.clone()).collect());
        for ((number, _), outcome) in burst.iter().zip(outcomes) {
            let verdict = outcome.verdict;
            let vip = verdict.vip.and_then(|id| world.snapshot.vip(id)).map(|vip| vip.name.to_string());
            let backend = world.name_of(verdict.backend).map(str::to_owned);
            let mac = *outcome.bytes.first_chunk().unwrap();
            said.insert(*number, (verdict.action, verdict.reason, vip, backend, mac));
        }
    }
    said
}

/// Runs one case; adds what was forwarded of each kind and family.
fn agree(seed: u64, forwarded: &mut BTreeMap<(usize, bool), usize>) {
    let mut random = Random(seed);
    let wanted = Wanted::any(&mut random);
    let mut new = World::new(&wanted.shuffled(&mut random));
    let mut old = after_a_past(&wanted, &mut random);
    let mut frames = Vec::new();
    let mut kinds = Vec::new();
    for nth in 0..600 {
        let (kind, packets) = fresh(&mut random, nth);
        for packet in packets {
            frames.push((frames.len(), packet));
            kinds.push(kind);
        }
    }
    let one = judge(&mut new, &frames, &mut random);
    shuffle(&mut frames, &mut random);
    let two = judge(&mut old, &frames, &mut random);
    for (number, frame) in &frames {
        let (one, two) = (&one[number], &two[number]);
        assert_eq!(one, two, "seed {seed}: {}: {frame:02x?}", KINDS[kinds[*number]]);
        if one.0 == Action::Forward {
            *forwarded.entry((kinds[*number], is_v6(frame))).or_default() += 1;
        }
    }
}

fn is_v6(frame: &[u8]) -> bool {
    let parsed = packet::parse(frame, frame.len());
    parsed.flow.family == Family::V6
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn data_planes_of_different_pasts_and_orders_agree_on_what_maglev_decides(seed: u64) {
        agree(seed, &mut BTreeMap::new());
    }
}

/// The property above is about something: every kind is forwarded, over both families.
#[test]
fn every_kind_that_maglev_decides_is_forwarded_in_both_families() {
    let mut forwarded = BTreeMap::new();
    for seed in 0..4 {
        agree(seed, &mut forwarded);
    }
    for (kind, text) in KINDS.iter().enumerate() {
        for v6 in [false, true] {
            let count = forwarded.get(&(kind, v6)).copied().unwrap_or(0);
            assert!(count > 40, "{text}, IPv6 {v6}: {count} of {forwarded:?}");
        }
    }
}

/// The oracle can fail: another seed, or another weight, is noticed.
#[test]
fn data_planes_that_were_not_told_the_same_disagree() {
    let mut random = Random(5);
    let wanted = Wanted::any(&mut random);
    let commands = wanted.shuffled(&mut random);
    let frames: Vec<_> = (0..300).map(|nth| (nth, fresh(&mut random, nth).1.remove(0))).collect();
    let mut one = World::new(&commands);
    let said = judge(&mut one, &frames, &mut random);
    let mut seeded = World::unconfigured(engine::snapshot::Site { maglev_seed: 1, ..site() });
    seeded.commit(&commands);
    assert_ne!(judge(&mut seeded, &frames, &mut random), said);
    let mut weighted = World::new(&commands);
    let Some(Command::PutBackend { pool, name, address4, address6, mac, handles, .. }) = commands
        .iter()
        .find(|command| matches!(command, Command::PutBackend { state: BackendState::Active, .. }))
        .copied()
    else {
        panic!("no active backend");
    };
    let (weight, state) = (777, BackendState::Active);
    weighted.commit(&[Command::PutBackend { pool, name, address4, address6, mac, weight, state, handles }]);
    assert_ne!(judge(&mut weighted, &frames, &mut random), said);
}
