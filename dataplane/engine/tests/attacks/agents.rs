//! What an agent can do that lies, and what forged ends of connections can do against one that does not.

use engine::reported::Installed;
use engine::token_table::{Proof, Vouched};
use ipc::counter::Counter;
use ipc::id::BackendId;
use ipc::reason::Reason;
use ipc::report::Subflow;
use packet::build::PacketBuilder;
use packet::{Flow, Key};

use crate::support::{Random, World, backend, of};
use crate::{ENTRIES, ISN, connect, connect_to, flow_of, join, reports, send_data, token, world};

const MANY: u32 = 200;

/// Connections that opened, and where they live.
struct Connections(Vec<(Flow, Key, BackendId)>);

impl Connections {
    fn open(world: &mut World, network: u16, random: &mut Random, agents: bool) -> Self {
        let open = |number| {
            let (flow, key) = (flow_of(network, number), Key(random.next().to_be_bytes()));
            let home = connect(world, &flow, key, true).0.unwrap();
            if agents {
                assert_eq!(reports(world).token_lives(home, token(key)), Some(Proof::Raised));
            }
            (flow, key, home)
        };
        Self((0..MANY).map(open).collect())
    }

    /// How many joins find their server.
    fn joined(&self, world: &mut World, base: u32) -> usize {
        let all = self.0.iter().zip(base..);
        all.filter(|((_, key, home), nth)| join(world, *key, *nth) == (Reason::Token, Some(*home))).count()
    }
}

/// What the manager does every ten seconds while the leases of all agents run.
fn renew(world: &World) {
    let (tokens, now) = (&world.tables.tokens, world.now());
    tokens.renew(0, tokens.lines(), now, |entry| {
        let Some(known) = world.snapshot.backend(entry.backend) else { return Vouched::Left };
        Vouched::Renewed(world.tables.token_hash(entry.token, known.pool))
    });
}

/// Two hundred connections whose ends somebody forges.
#[derive(Clone, Copy)]
struct Ends {
    forged: bool,
    /// The clients send every minute afterwards.
    busy: bool,
    agents: bool,
}

impl Ends {
    /// How many joins find their server half a minute later, and after five minutes more.
    fn run(self) -> [usize; 2] {
        let mut world = world(4, ENTRIES);
        let mut random = Random(9);
        let all = Connections::open(&mut world, 1, &mut random, self.agents);
        for _ in 0..3 {
            world.wait(20);
            all.0.iter().for_each(|(flow, ..)| _ = send_data(&mut world, flow));
        }
        // The forger knows every 5-tuple, and neither sequence numbers nor keys.
        for (flow, ..) in all.0.iter().filter(|_| self.forged) {
            world.send(of(flow).rst(random.word(), random.word()));
            world.send(of(flow).fin(random.word(), random.word()));
            world.send(of(flow).data(random.word(), 1).fastclose(Key(random.next().to_be_bytes())));
        }
        world.wait(32);
        let soon = all.joined(&mut world, 0);
        for second in 0..300 {
            world.wait(1);
            if self.agents && second % 10 == 0 {
                renew(&world);
            }
            if self.busy && second % 60 == 0 {
                all.0.iter().for_each(|(flow, _, home)| assert_eq!(send_data(&mut world, flow), Some(*home)));
            }
        }
        assert_eq!(world.counters.reader().counter(Counter::TokenClosing), 0);
        [soon, all.joined(&mut world, 1000)]
    }
}

#[test]
fn forged_fin_rst_and_fastclose_end_no_token_of_a_client_that_goes_on_and_none_that_was_proven() {
    let run = |forged, busy, agents| Ends { forged, busy, agents }.run();
    for (busy, without) in [(true, [200, 200]), (false, [200, 0])] {
        let (forged, proven) = (run(true, busy, false), run(true, busy, true));
        println!(
            "| forged FIN, RST, FASTCLOSE, clients go on: {busy} | {forged:?} of {MANY} join | {proven:?} |"
        );
        assert_eq!((forged, proven), (without, [200, 200]));
        assert_eq!(run(false, busy, false), [200, 200], "without a forger");
    }
}

/// Joined subflows of as many connections, all silent for five minutes: how many go on to their server.
fn subflows(forged: bool) -> usize {
    let mut world = world(4, ENTRIES);
    let all = Connections::open(&mut world, 1, &mut Random(9), false);
    let joined: Vec<(Flow, BackendId)> = (0..)
        .zip(&all.0)
        .map(|(number, (_, key, home))| {
            let flow = flow_of(0x50, number);
            let join = world.send(of(&flow).syn(ISN).mp_join_syn(token(*key), 1, 1)).verdict;
            assert_eq!(join.backend, Some(*home));
            world.send(of(&flow).data(ISN + 1, 1).mp_join_ack([7; 20]));
            (flow, *home)
        })
        .collect();
    for (flow, _) in joined.iter().filter(|_| forged) {
        world.send(of(flow).rst(5, 5));
    }
    world.wait(300);
    joined.iter().filter(|(flow, home)| send_data(&mut world, flow) == Some(*home)).count()
}

#[test]
fn a_forged_rst_costs_a_joined_subflow_its_entry_when_it_is_silent_for_long() {
    let (forged, whole) = (subflows(true), subflows(false));
    println!(
        "| forged RST on {MANY} joined subflows, silent for five minutes | {forged} go on | {whole} without |"
    );
    // What is left of them is what Maglev would say anyway, one in four.
    assert!(whole == 200 && (20..80).contains(&forged), "{forged}, {whole}");
}

/// How many of the connections go on to their server though for each, before each of three packets of theirs, a RST was
/// forged and then this SYN; the pool has grown meanwhile, so that Maglev has other answers.
fn reopened(forged: impl Fn(&Flow, Key) -> PacketBuilder) -> usize {
    let mut world = world(4, ENTRIES);
    let all = Connections::open(&mut world, 1, &mut Random(9), false);
    let own = Key([0x66; 8]);
    connect_to(&mut world, "b4", own, 0);
    world.commit(&(5..=12).map(|n| backend("servers", &format!("b{n}"), n)).collect::<Vec<_>>());
    let mut home_all_the_time = 0;
    for (flow, _, home) in &all.0 {
        let stays = |_| {
            world.wait(16);
            world.send(of(flow).rst(5, 5));
            world.send(forged(flow, own));
            send_data(&mut world, flow) == Some(*home)
        };
        home_all_the_time += usize::from((0..3).all(stays));
    }
    home_all_the_time
}

#[test]
fn a_forged_rst_and_a_forged_syn_take_no_flow_from_its_server() {
    let syn = |flow: &Flow| of(flow).syn(0x1234_5678);
    let counts = [
        reopened(|flow, _| syn(flow)),
        reopened(|flow, _| syn(flow).mp_capable_syn_v1()),
        reopened(|flow, own| syn(flow).mp_join_syn(token(own), 1, 1)),
    ];
    println!(
        "| forged RST, then forged SYN, MP_CAPABLE, MP_JOIN, on {MANY} known 5-tuples | {counts:?} go on |"
    );
    assert_eq!(counts, [200; 3]);
}

#[test]
fn a_hostile_agent_takes_only_what_no_other_agent_proved() {
    let mut world = world(4, ENTRIES);
    let mut random = Random(4);
    let proven = Connections::open(&mut world, 1, &mut random, true);
    let learned = Connections::open(&mut world, 2, &mut random, false);
    let hostile = world.id_of("b2");
    let others = |all: &Connections| -> Vec<(Flow, Key, BackendId)> {
        all.0.iter().copied().filter(|(.., home)| *home != hostile).collect()
    };
    let count = |(flow, key, _): &(Flow, Key, BackendId), world: &World| {
        let subflow = Subflow::new(
            (flow.source.to_ip(), flow.source_port).into(),
            (flow.destination.to_ip(), flow.destination_port).into(),
        );
        let lives = reports(world).subflow_lives(hostile, token(*key), &subflow.unwrap(), true);
        let takes = reports(world).token_lives(hostile, token(*key));
        (usize::from(takes == Some(Proof::New)), usize::from(lives != Installed::Refused))
    };
    let taken = [&proven, &learned].map(|all| {
        let counts = others(all).iter().map(|one| count(one, &world)).collect::<Vec<_>>();
        (
            counts.len(),
            counts.iter().map(|(token, _)| token).sum::<usize>(),
            counts.iter().map(|(_, flow)| flow).sum::<usize>(),
        )
    });
    let [(proven_all, proven_taken, proven_flows), (learned_all, learned_taken, learned_flows)] = taken;
    println!(
        "| a hostile agent | {proven_taken} of {proven_all} proven tokens, {proven_flows} flows | {learned_taken} of {learned_all} learned tokens, \
         {learned_flows} flows |"
    );
    assert_eq!((proven_taken, proven_flows, learned_flows), (0, 0, 0));
    // A backend whose own agent is silent loses its tokens to a lying one, until the liar lets go.
    assert_eq!(learned_taken, learned_all);
    assert_eq!(proven.joined(&mut world, 0), 200);
    assert_eq!(learned.joined(&mut world, 1000), 200 - learned_taken);
    for (_, key, _) in others(&proven) {
        assert!(!reports(&world).token_ended(hostile, token(key)), "it ends what is its own only");
    }
    for (_, key, _) in others(&learned) {
        assert!(reports(&world).token_ended(hostile, token(key)));
    }
    assert_eq!(learned.joined(&mut world, 2000), 200);
    for (flow, _, home) in proven.0.iter().chain(&learned.0) {
        assert_eq!(send_data(&mut world, flow), Some(*home));
    }
    assert_eq!(world.send(of(&proven.0[0].0).syn(ISN)).verdict.backend, Some(proven.0[0].2));
}
