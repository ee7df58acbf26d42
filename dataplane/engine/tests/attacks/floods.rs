//! Floods of ten times the tables within 32 seconds, and what each bound of `[dataplane.guard]` saves and costs.

use std::fmt;
use std::ops::Range;

use engine::limits::Limits;
use ipc::counter::Counter;
use ipc::id::BackendId;
use ipc::message::BackendState;
use ipc::reason::Reason;
use packet::{Flow, Key, Version};

use crate::support::{CLIENT_KEY, Random, World, backend, backend_in, of};
use crate::{ENTRIES, ISN, connect, connect_to, flow_of, join, reports, send_data, world};

/// How long the flood lasts, in seconds.
const LASTS: u32 = 32;

/// What a flood is made of.
#[derive(Clone, Copy, Debug)]
enum Of {
    /// SYNs alone, half of them with MP_CAPABLE.
    Syns,
    /// Whole forged handshakes, each followed by DSS traffic.
    Handshakes,
}

/// What bounds it.
#[derive(Clone, Copy, Debug)]
enum Bound {
    Off,
    /// Percent of each table.
    Shares(u8),
    /// Percent of the token table alone.
    TokenShare(u8),
    /// `new_flows`, a second.
    NewFlows(u32),
    /// `new_tokens`, a second.
    NewTokens(u32),
}

impl Bound {
    fn limits(self) -> Limits {
        let limits = Limits::default();
        match self {
            Self::Off => limits,
            Self::Shares(percent) => Limits {
                flows_per_prefix: Limits::share(ENTRIES, percent, 4, 1),
                tokens_per_prefix: Limits::token_share(ENTRIES, percent, 1),
                ..limits
            },
            Self::TokenShare(percent) => {
                Limits { tokens_per_prefix: Limits::token_share(ENTRIES, percent, 1), ..limits }
            }
            Self::NewFlows(flows_per_second) => Limits { flows_per_second, ..limits },
            Self::NewTokens(tokens_per_second) => Limits { tokens_per_second, ..limits },
        }
    }
}

/// As in docs/threat-model.md.
impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("none"),
            Self::Shares(percent) => write!(f, "shares {percent}"),
            Self::TokenShare(percent) => write!(f, "`token_share` {percent}"),
            Self::NewFlows(flows) => write!(f, "`new_flows` {flows}"),
            Self::NewTokens(tokens) => write!(f, "`new_tokens` {tokens}"),
        }
    }
}

/// One flood.
#[derive(Clone, Copy, Debug)]
struct Flood {
    of: Of,
    networks: u16,
    bound: Bound,
    agents: bool,
}

/// Honest connections that began at about the same time.
#[derive(Debug, Default)]
struct Population(Vec<(Flow, Key, BackendId)>);

/// How many of a population there are, how many of their joins found their server, and how many connections went on to theirs
/// when a backend was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fate {
    all: usize,
    joined: usize,
    kept: usize,
}

impl Fate {
    const fn is_unhurt(&self) -> bool {
        self.joined == self.all && self.kept == self.all
    }
}

/// What became of those that lasted, that began right before the flood, and that began during it.
#[derive(Debug, Default)]
struct Outcome {
    old: Fate,
    young: Fate,
    new: Fate,
    astray: usize,
}

impl Population {
    /// One more, whose agent reports it if there are agents.
    fn open(&mut self, world: &mut World, number: u32, random: &mut Random, agents: bool) {
        let flow = flow_of(200 + u16::try_from(number % 100).unwrap(), number);
        let key = Key(random.next().to_be_bytes());
        let home = connect(world, &flow, key, true).0.unwrap();
        if agents {
            reports(world).token_lives(home, crate::token(key));
        }
        self.0.push((flow, key, home));
    }

    /// So many, 32 in a second.
    fn open_slowly(&mut self, world: &mut World, numbers: Range<u32>, random: &mut Random, agents: bool) {
        for number in numbers {
            self.open(world, number, random, agents);
            if number % 32 == 31 {
                world.wait(1);
            }
        }
    }

    /// Its joins: those that found their server, and those that found another.
    fn join(&self, world: &mut World, nth: &mut u32) -> (usize, usize) {
        self.0.iter().fold((0, 0), |(found, astray), (_, key, home)| {
            *nth += 1;
            match join(world, *key, *nth) {
                (Reason::Token, Some(to)) if to == *home => (found + 1, astray),
                (Reason::Token, _) => (found, astray + 1),
                _ => (found, astray),
            }
        })
    }

    fn kept(&self, world: &mut World) -> usize {
        self.0.iter().filter(|(flow, _, home)| send_data(world, flow) == Some(*home)).count()
    }
}

impl Flood {
    fn send(&self, world: &mut World, number: u32, random: &mut Random) {
        let (network, nth) = match self.networks {
            1 => (1, number),
            all => (1000 + u16::try_from(number % u32::from(all)).unwrap(), number / u32::from(all)),
        };
        let flow = flow_of(network, nth);
        match self.of {
            Of::Handshakes => {
                connect(world, &flow, Key(random.next().to_be_bytes()), true);
            }
            Of::Syns if number.is_multiple_of(2) => {
                world.send(of(&flow).syn(ISN));
            }
            Of::Syns => {
                world.send(of(&flow).syn(ISN).mp_capable_syn_v1());
            }
        }
    }

    fn run(&self) -> Outcome {
        let mut world = world(10, ENTRIES);
        world.tables.lifetimes.limits = self.bound.limits();
        let mut random = Random(5);
        let [mut old, mut young, mut new] = [const { Population(Vec::new()) }; 3];
        old.open_slowly(&mut world, 0..1000, &mut random, self.agents);
        for _ in 0..3 {
            world.wait(40);
            assert_eq!(old.kept(&mut world), 1000);
        }
        young.open_slowly(&mut world, 2000..3024, &mut random, self.agents);
        let all = 10 * u32::try_from(ENTRIES).unwrap();
        let mut newcomer = 0;
        for number in 0..all {
            self.send(&mut world, number, &mut random);
            // One among so many of the flood, at any place: time stands still within a second.
            if number.is_multiple_of(all / 1024) {
                newcomer = number + u32::try_from(random.below(160)).unwrap();
            }
            if number == newcomer {
                new.open(&mut world, 5000 + number / (all / 1024), &mut random, self.agents);
            }
            if number.is_multiple_of(all / LASTS) {
                world.wait(1);
            }
        }
        self.judge(world, [&old, &young, &new])
    }

    /// All join; then a backend is added, and all go on.
    fn judge(&self, mut world: World, populations: [&Population; 3]) -> Outcome {
        let (mut nth, mut astray) = (0, 0);
        let joined = populations.map(|population| {
            let (found, lost) = population.join(&mut world, &mut nth);
            astray += lost;
            found
        });
        world.commit(&[backend("servers", "b11", 11)]);
        let kept = populations.map(|population| population.kept(&mut world));
        let fate = |nth: usize| Fate { all: populations[nth].0.len(), joined: joined[nth], kept: kept[nth] };
        let outcome = Outcome { old: fate(0), young: fate(1), new: fate(2), astray };
        let of_all = |fate: Fate| format!("{} / {} of {}", fate.joined, fate.kept, fate.all);
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            match self.of {
                Of::Syns => "SYNs",
                Of::Handshakes => "handshakes, DSS",
            },
            self.networks,
            self.bound,
            if self.agents { "yes" } else { "no" },
            of_all(outcome.old),
            of_all(outcome.young),
            of_all(outcome.new),
            astray,
        );
        assert_eq!(outcome.astray, 0, "{self:?}");
        assert!(outcome.old.is_unhurt(), "what lasted stays: {self:?} {outcome:?}");
        outcome
    }
}

const fn syns(networks: u16, bound: Bound) -> Flood {
    Flood { of: Of::Syns, networks, bound, agents: false }
}

const fn handshakes(networks: u16, bound: Bound) -> Flood {
    Flood { of: Of::Handshakes, networks, bound, agents: false }
}

#[test]
fn a_flood_of_syns_costs_nobody_anything_without_a_bound() {
    for networks in [1, 4000] {
        let outcome = syns(networks, Bound::Off).run();
        assert!(outcome.young.is_unhurt() && outcome.new.is_unhurt(), "{outcome:?}");
    }
}

#[test]
fn a_rate_of_new_flows_or_tokens_makes_a_flood_of_syns_cost_newcomers_their_joins() {
    for bound in [Bound::NewFlows(100), Bound::NewTokens(64)] {
        let outcome = syns(4000, bound).run();
        assert!(outcome.young.is_unhurt() && outcome.new.joined < 100, "{outcome:?}");
    }
}

#[test]
fn a_flood_of_handshakes_from_few_networks_costs_nothing_where_shares_are_bounded() {
    for (networks, percent) in [(1, 10), (1, 50), (4, 25)] {
        let outcome = handshakes(networks, Bound::Shares(percent)).run();
        assert!(outcome.young.is_unhurt() && outcome.new.is_unhurt(), "{outcome:?}");
    }
    let unbounded = handshakes(1, Bound::Off).run();
    assert!(unbounded.young.joined < 512 && unbounded.new.joined < 512, "{unbounded:?}");
    // A token's share alone keeps tokens, but no newcomer finds a place for its flow.
    let tokens = handshakes(1, Bound::TokenShare(10)).run();
    assert!(tokens.young.joined == 1024 && tokens.new.joined < 512, "{tokens:?}");
}

#[test]
fn a_flood_of_handshakes_from_all_networks_costs_newcomers_their_joins_whatever_is_bounded() {
    let shares = handshakes(4000, Bound::Shares(10)).run();
    assert!(shares.young.joined < 512 && shares.new.joined < 512, "{shares:?}");
    // The rates keep what began before the flood, and cost more of what begins in it.
    let flows = handshakes(4000, Bound::NewFlows(100)).run();
    assert!(flows.young.is_unhurt() && flows.new.joined < shares.new.joined, "{flows:?}");
    let tokens = handshakes(4000, Bound::NewTokens(64)).run();
    assert!(tokens.young.joined == 1024 && tokens.new.joined < shares.new.joined, "{tokens:?}");
}

#[test]
fn agents_keep_every_join_in_a_flood_of_handshakes() {
    for bound in [Bound::Off, Bound::NewFlows(100)] {
        let outcome = Flood { agents: true, ..handshakes(4000, bound) }.run();
        assert_eq!((outcome.young.joined, outcome.new.joined), (1024, 1024));
    }
}

/// What an honest network of many clients loses to a bound: so many connections a second for two minutes, nine of ten over after
/// two seconds. Joins a second after the handshake; at the end a backend is added, and those that are not over go on.
fn crowd(a_second: u32, bound: Bound) -> [Fate; 2] {
    const SECONDS: u32 = 120;
    let mut world = world(10, ENTRIES);
    world.tables.lifetimes.limits = bound.limits();
    let mut random = Random(6);
    let (mut living, mut joins) = (Vec::new(), Fate::default());
    let mut before: [Vec<(Flow, Key, BackendId)>; 2] = [Vec::new(), Vec::new()];
    for second in 0..SECONDS {
        let open = |nth| {
            let flow = flow_of(1, second * a_second + nth);
            let key = Key(random.next().to_be_bytes());
            let home = connect(&mut world, &flow, key, true).0.unwrap();
            (flow, key, home)
        };
        let new: Vec<_> = (0..a_second).map(open).collect();
        let [last, last_but_one] = &mut before;
        for (nth, (_, key, home)) in (second * a_second..).zip(&*last) {
            joins.all += 1;
            joins.joined += usize::from(join(&mut world, *key, nth) == (Reason::Token, Some(*home)));
        }
        for (nth, (flow, _, home)) in last_but_one.drain(..).enumerate() {
            if nth % 10 == 0 {
                living.push((flow, home));
            } else {
                world.send(of(&flow).data(ISN + 5, 1).data_fin(1, 5));
                world.send(of(&flow).fin(ISN + 5, 1));
            }
        }
        before = [new, std::mem::take(last)];
        world.wait(1);
    }
    world.commit(&[backend("servers", "b11", 11)]);
    joins.kept = joins.joined;
    let kept = living.iter().filter(|(flow, home)| send_data(&mut world, flow) == Some(*home)).count();
    let lives = Fate { all: living.len(), joined: kept, kept };
    println!(
        "| {a_second} | {bound} | {} of {} | {} of {} |",
        joins.joined, joins.all, lives.kept, lives.all
    );
    [joins, lives]
}

#[test]
fn a_share_costs_an_honest_network_joins_that_it_has_without_one() {
    for bound in [Bound::Off, Bound::Shares(50), Bound::Shares(25), Bound::Shares(10)] {
        let outcome = [50, 100, 200].map(|a_second| crowd(a_second, bound));
        let lost = outcome.map(|[joins, lives]| (joins.all - joins.joined, lives.all - lives.kept));
        // What finds no entry as a SYN gets one with its next packet, so a change of the pool breaks none of these.
        assert_eq!(lost.map(|(_, broken)| broken), [0; 3]);
        match bound {
            Bound::Off => assert_eq!(lost, [(0, 0); 3]),
            _ => assert!(lost[2].0 > 10_000, "{bound:?}: {lost:?}"),
        }
    }
}

#[test]
fn what_the_guard_refuses_is_balanced_without_state_and_counted() {
    let mut world = world(4, ENTRIES);
    world.tables.lifetimes.limits =
        Limits { flows_per_prefix: 10, tokens_per_prefix: 4, tokens_per_second: 3, ..Limits::default() };
    let mut learned = 0;
    for number in 0..30 {
        let flow = flow_of(1, number);
        let expected = world.hashed(&flow);
        let (home, new) = connect(&mut world, &flow, Key([number as u8; 8]), true);
        assert_eq!(home, expected, "Maglev's answer either way");
        learned += usize::from(new);
    }
    let count = |counter| world.counters.reader().counter(counter);
    assert_eq!((learned, count(Counter::TokenLearned)), (3, 3));
    assert_eq!((count(Counter::FlowOverShare), count(Counter::TokenOverShare)), (20, 6));
    assert_eq!((count(Counter::FlowOverRate), count(Counter::TokenOverRate)), (0, 1));
    // Another network is not meant, but for the rate of all together, which a second brings back.
    world.wait(16);
    assert!(connect(&mut world, &flow_of(2, 0), Key([99; 8]), false).1);
}

#[test]
fn a_network_beyond_its_shares_takes_nothing_from_the_rates_of_all() {
    let mut world = world(4, ENTRIES);
    world.tables.lifetimes.limits = Limits {
        flows_per_prefix: 10,
        tokens_per_prefix: 10,
        flows_per_second: 30,
        tokens_per_second: 20,
        ..Limits::default()
    };
    for number in 0..1000 {
        world.send(of(&flow_of(1, number)).syn(ISN).mp_capable_syn_v1());
    }
    let one = |number: &u8| connect(&mut world, &flow_of(2, u32::from(*number)), Key([*number; 8]), false).1;
    assert_eq!((0..10).filter(one).count(), 10, "all of another network's, within the same second");
    let count = |counter| world.counters.reader().counter(counter);
    assert_eq!((count(Counter::FlowOverRate), count(Counter::TokenOverRate)), (0, 0));
    assert_eq!(count(Counter::FlowOverShare), 990);
}

#[test]
fn a_flow_that_has_an_entry_is_opened_again_whatever_the_guard_says_and_stays_in_one_place() {
    let mut world = world(4, ENTRIES);
    world.tables.lifetimes.limits = Limits { flows_per_prefix: 1, tokens_per_prefix: 1, ..Limits::default() };
    let key = Key([7; 8]);
    let ended = connect_to(&mut world, "b1", key, 0);
    world.send(of(&ended).fin(ISN + 5, 1));
    // Maglev gives it to another now.
    world.commit(&[backend_in("servers", "b1", 1, 100, BackendState::Draining)]);
    let again = |world: &mut World| {
        let syn = world.send(of(&ended).syn(ISN + 70_000).mp_capable_syn_v1()).verdict;
        let ack = of(&ended).data(ISN + 70_001, 1).mp_capable_ack(Version::V1, CLIENT_KEY, Key([8; 8]));
        let ack = world.send(ack).verdict;
        assert_eq!(ack.backend, syn.backend, "the handshake goes to one server");
        assert_ne!(world.name_of(syn.backend), Some("b1"));
        ack.learned
    };
    assert!(!again(&mut world), "the network has had its one key");
    let count = |counter| world.counters.reader().counter(counter);
    assert_eq!((count(Counter::FlowOverShare), count(Counter::TokenOverShare)), (0, 1));
}
