//! Two-phase publication: workers share the tables but take snapshots over at their own moment.
//!
//! **Invariant:** a worker may be one snapshot behind another, and still never meets an id that it does not know or
//! that means another backend to it. The manager publishes the next snapshot only when all workers have the last.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
// A plain count between the threads of this test; loom has nothing to explore in it.
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::frames::VecFrames;
use engine::model::Model;
use engine::pipeline::{Context, Pipeline};
use engine::snapshot::{Site, Snapshot};
use engine::tables::Tables;
use engine::tick::Tick;
use engine::verdict::Verdict;
use ipc::counters::WorkerCounters;
use ipc::id::{BackendId, PortId};
use ipc::message::{BackendState, Command, Handles};
use ipc::reason::Reason;
use packet::{Family, Flow, Key, Token, Version};
use support::{
    CLIENT_KEY, FAMILIES, Random, World, backend, backend_in, backend_mac, flow, name, of, services, vip,
};

/// A worker: its own snapshot, pipeline and counters; the tables are everybody's.
struct Worker {
    snapshot: Arc<Snapshot>,
    pipeline: Pipeline,
    counters: WorkerCounters,
}

impl Worker {
    fn new(snapshot: &Arc<Snapshot>) -> Self {
        Self {
            snapshot: Arc::clone(snapshot),
            pipeline: Pipeline::default(),
            counters: WorkerCounters::heap(),
        }
    }

    /// Judges one packet; gives the verdict and the frame.
    fn send(&mut self, tables: &Tables, now: Tick, frame: Vec<u8>) -> (Verdict, Vec<u8>) {
        let mut frames = VecFrames::new(vec![frame]);
        let (snapshot, counters) = (&self.snapshot, &self.counters);
        let cx = Context { snapshot, tables, counters, now, millis: 0, port: PortId(0) };
        let verdict = self.pipeline.process(&mut frames, &cx).verdicts().next().unwrap();
        (verdict, frames.into_inner().remove(0).bytes)
    }
}

fn start() -> Vec<Command> {
    let mut commands = vec![Command::PutPool { name: name("servers") }];
    commands.extend([backend("servers", "b1", 1), backend("servers", "b2", 2), vip("web", "servers")]);
    commands.extend(services("web", 9, 8000));
    commands
}

fn remove(text: &str) -> Command {
    remove_by(text, None)
}

/// The same with a deadline, in seconds.
fn remove_by(text: &str, deadline: Option<u32>) -> Command {
    Command::RemoveBackend { pool: name("servers"), name: name(text), deadline }
}

/// New flows of a family, as many as there are ports.
fn flows(family: Family) -> impl Iterator<Item = Flow> {
    (1024..).map(move |source| flow(family, 9, source, 9, 8000))
}

#[test]
fn only_a_model_with_an_id_that_the_older_lacks_has_new_backends() {
    let old = Model::default().apply(&start()).unwrap();
    let grown = old.apply(&[backend("servers", "b3", 3)]).unwrap();
    assert!(grown.has_new_backends(&old));
    assert!(!old.has_new_backends(&grown), "fewer are not new");
    assert!(!old.has_new_backends(&old));
    let drained = old.apply(&[backend_in("servers", "b1", 1, 7, BackendState::Draining)]).unwrap();
    assert!(!drained.has_new_backends(&old), "the same backend in another state");
    let removed = old.apply(&[remove("b1")]).unwrap();
    assert!(!removed.has_new_backends(&old));
    let back = removed.apply(&[backend("servers", "b1", 1)]).unwrap();
    assert!(!back.has_new_backends(&removed), "it was never forgotten");
}

#[test]
fn a_backend_that_is_known_is_not_chosen_before_the_second_phase() {
    let mut world = World::new(&start());
    let next = world.model.apply(&[backend("servers", "b3", 3)]).unwrap();
    world.snapshot = world.snapshot.knowing(&next, &world.site, 7);
    assert_eq!(world.snapshot.generation, 7);
    let newcomer = next.pools()[0].backends[2].id;
    assert!(world.snapshot.backend(newcomer).is_some());
    for family in FAMILIES {
        for flow in flows(family).take(500) {
            assert_ne!(world.send(of(&flow).syn(1)).verdict.backend, Some(newcomer));
        }
    }
    world.model = next;
    world.publish();
    let chosen = |world: &mut World, family| {
        let new: Vec<_> = flows(family).skip(500).take(500).collect();
        new.iter().filter(|flow| world.send(of(flow).syn(1)).verdict.backend == Some(newcomer)).count()
    };
    for family in FAMILIES {
        let count = chosen(&mut world, family);
        assert!((100..250).contains(&count), "a third of 500: {count}");
    }
}

#[test]
fn before_the_first_configuration_both_phases_come_too_and_packets_wait_for_the_second() {
    let mut world = World::unconfigured(support::site());
    let model = Model::default().apply(&start()).unwrap();
    let flow = flow(Family::V4, 1, 1, 9, 8000);
    assert_eq!(world.send(of(&flow).syn(1)).verdict.reason, Reason::NoConfig);
    world.snapshot = world.snapshot.knowing(&model, &world.site, 1);
    assert_eq!(world.send(of(&flow).syn(1)).verdict.reason, Reason::NoConfig);
    world.model = model;
    world.publish();
    assert_eq!(world.send(of(&flow).syn(1)).verdict.reason, Reason::Hash);
}

/// A worker at the second phase and one still at an older snapshot: how many flows and joins of the newcomer the
/// older one sends elsewhere.
fn misdirected(older_is_known: bool) -> usize {
    let site = support::site();
    let old = Model::default().apply(&start()).unwrap();
    let new = old.apply(&[backend("servers", "b3", 3)]).unwrap();
    let first = Snapshot::of_model(&old, &site, 1);
    let known = first.knowing(&new, &site, 2);
    let behind = if older_is_known { known } else { first };
    let (mut ahead, mut behind) =
        (Worker::new(&Arc::new(Snapshot::of_model(&new, &site, 3))), Worker::new(&Arc::new(behind)));
    let (tables, now) = (Tables::on_heap(4096, 4096, &[1; 32]), Tick::from_seconds(0));
    let mut wrong = 0;
    for family in FAMILIES {
        for (number, flow) in (0_u64..300).zip(flows(family)) {
            let key = Key((number + family as u64 * 1000).to_be_bytes());
            let token = Token::from_key(Version::V1, &key);
            let syn = of(&flow).syn(9).mp_capable_syn_v1().build();
            let (opened, _) = ahead.send(&tables, now, syn);
            let ack = of(&flow).data(10, 1).mp_capable_ack(Version::V1, CLIENT_KEY, key);
            let (followed, frame) = behind.send(&tables, now, ack.build());
            let join = support::flow(family, 10, flow.source_port, 9, 8000);
            let (joined, _) = behind.send(&tables, now, of(&join).syn(9).mp_join_syn(token, 1, 1).build());
            let home = opened.backend;
            let mac = frame[..6] == backend_mac(u8::try_from(home.unwrap().0).unwrap());
            wrong += usize::from(followed.backend != home || joined.backend != home || !mac);
        }
    }
    wrong
}

#[test]
fn a_worker_one_snapshot_behind_follows_flows_and_tokens_of_a_backend_it_may_not_choose_yet() {
    assert_eq!(misdirected(true), 0);
}

/// The same without the first phase, so that the test above is known to be able to fail.
#[test]
fn without_the_first_phase_a_worker_behind_misdirects() {
    assert!(misdirected(false) > 50);
}

/// The manager, two workers, and everything in any order.
struct Interleaving {
    random: Random,
    site: Site,
    model: Model,
    tables: Tables,
    published: Arc<Snapshot>,
    /// The second phase, waiting for all workers to have the first.
    waiting: Option<Arc<Snapshot>>,
    workers: [Worker; 2],
    /// Flows with the MAC address they must leave to, and the token that joins of theirs carry.
    homes: HashMap<Flow, ([u8; 6], Option<Token>)>,
    next_port: u16,
    seconds: u64,
    /// The clock that deadlines go by: no entry ages here.
    clock: u64,
    forgotten: usize,
    reused: usize,
    joined: usize,
    deleted: usize,
    revived: usize,
    ever: HashMap<BackendId, String>,
}

impl Interleaving {
    fn new(seed: u64) -> Self {
        let site = support::site();
        let model = Model::default().apply(&start()).unwrap();
        let published = Arc::new(Snapshot::of_model(&model, &site, 1));
        let workers = [Worker::new(&published), Worker::new(&published)];
        Self {
            random: Random(seed),
            site,
            model,
            tables: Tables::on_heap(2048, 2048, &[3; 32]),
            published,
            waiting: None,
            workers,
            homes: HashMap::new(),
            next_port: 1024,
            seconds: 0,
            clock: 0,
            forgotten: 0,
            reused: 0,
            joined: 0,
            deleted: 0,
            revived: 0,
            ever: HashMap::new(),
        }
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0 | 1 => self.manage(),
            2..=4 => {
                let worker = self.random.below(2);
                self.workers[worker].snapshot = Arc::clone(&self.published);
            }
            5 | 6 => self.open(),
            7 | 8 => self.end(),
            _ => self.follow(),
        }
    }

    fn all_workers_have_it(&self) -> bool {
        self.workers.iter().all(|worker| Arc::ptr_eq(&worker.snapshot, &self.published))
    }

    /// One thing that the manager does; it waits until all workers have what it published.
    fn manage(&mut self) {
        if !self.all_workers_have_it() {
            return;
        }
        if let Some(second) = self.waiting.take() {
            self.published = second;
            return;
        }
        let number = 1 + u8::try_from(self.random.below(6)).unwrap();
        let text = format!("b{number}");
        if self.random.percent(30) {
            self.forget();
            return;
        }
        if self.random.percent(20) {
            self.expire();
            return;
        }
        let deadline = [None, None, None, Some(0), Some(2)][self.random.below(5)];
        let command = if self.random.percent(50) {
            remove_by(&text, deadline)
        } else {
            backend("servers", &text, number)
        };
        let Ok(next) = self.model.apply_at(&[command], self.clock) else {
            return;
        };
        let generation = self.published.generation;
        let second = Arc::new(Snapshot::of_model(&next, &self.site, generation + 2));
        if next.has_new_backends(&self.model) {
            self.published = Arc::new(self.published.knowing(&next, &self.site, generation + 1));
            self.waiting = Some(second);
        } else {
            self.published = second;
        }
        let was_deleted = |id| self.unknown().contains(&id);
        let all = |model: &Model| model.pools()[0].backends.clone();
        self.revived += all(&next).iter().filter(|b| b.is_known() && was_deleted(b.id)).count();
        self.model = next;
        self.bury();
        for pool in self.model.pools() {
            for backend in &pool.backends {
                let before = self.ever.insert(backend.id, backend.name.to_string());
                self.reused += usize::from(before.is_some_and(|before| before != backend.name.as_str()));
            }
        }
    }

    /// Deletes the backends whose deadline has come.
    fn expire(&mut self) {
        self.clock += 1;
        if self.model.expire(self.clock) > 0 {
            let generation = self.published.generation + 1;
            self.published = Arc::new(Snapshot::of_model(&self.model, &self.site, generation));
            self.bury();
        }
    }

    /// Ids of backends that are deleted and not yet forgotten.
    fn unknown(&self) -> Vec<BackendId> {
        let all = self.model.pools().iter().flat_map(|pool| &pool.backends);
        all.filter(|backend| !backend.is_known()).map(|backend| backend.id).collect()
    }

    /// The connections of deleted backends are no more.
    fn bury(&mut self) {
        for backend in self.model.pools().iter().flat_map(|pool| &pool.backends) {
            if !backend.is_known() {
                let before = self.homes.len();
                self.homes.retain(|_, (mac, _)| Some(*mac) != backend.mac);
                self.deleted += usize::from(self.homes.len() < before);
            }
        }
    }

    /// Forgets what no entry holds; what is forgotten is unknown from the next snapshot on.
    fn forget(&mut self) {
        if self.random.percent(20) {
            self.end_connections();
        }
        // The idle time of what nobody finds any more passes.
        let unknown = self.unknown();
        self.tables.flows.sweep(0, self.tables.flows.lines(), |entry| {
            match unknown.contains(&entry.backend) {
                true => engine::flow_table::Keep::No,
                false => engine::flow_table::Keep::Yes,
            }
        });
        let mut held = Vec::new();
        self.tables.tokens.for_each(0, self.tables.tokens.lines(), |entry| held.push(entry.backend));
        self.tables.flows.sweep(0, self.tables.flows.lines(), |entry| {
            held.push(entry.backend);
            engine::flow_table::Keep::Yes
        });
        self.forgotten += self.model.forget(|id| !held.contains(&id));
        let generation = self.published.generation + 1;
        self.published = Arc::new(Snapshot::of_model(&self.model, &self.site, generation));
    }

    fn send(&mut self, frame: Vec<u8>) -> (Verdict, Vec<u8>) {
        let worker = self.random.below(2);
        self.workers[worker].send(&self.tables, Tick::from_seconds(self.seconds), frame)
    }

    /// A new flow; of some the token is learned, by any worker.
    fn open(&mut self) {
        self.next_port += 1;
        let family = FAMILIES[self.random.below(2)];
        let flow = flow(family, 9, self.next_port, 9, 8000);
        let (verdict, frame) = self.send(of(&flow).syn(1).mp_capable_syn_v1().build());
        if verdict.backend.is_none() {
            assert_eq!(verdict.reason, Reason::NoBackend);
            return;
        }
        if verdict.backend.is_some_and(|id| self.unknown().contains(&id)) {
            // A worker behind still chose a backend that was just deleted at once.
            return;
        }
        let mac = *frame.first_chunk().unwrap();
        let token = self.random.percent(40).then(|| {
            let key = Key(u64::from(self.next_port).to_be_bytes());
            let ack = of(&flow).data(2, 1).mp_capable_ack(Version::V1, CLIENT_KEY, key);
            let (verdict, frame) = self.send(ack.build());
            assert!(verdict.learned && frame[..6] == mac, "{verdict:?}");
            Token::from_key(Version::V1, &key)
        });
        self.homes.insert(flow, (mac, token));
    }

    fn some_flow(&mut self) -> Option<Flow> {
        // In the order of ports: a HashMap's own order is not the same twice.
        let mut flows: Vec<_> = self.homes.keys().copied().collect();
        flows.sort_unstable_by_key(|flow| flow.source_port);
        (!flows.is_empty()).then(|| flows[self.random.below(flows.len())])
    }

    /// A packet of a flow, or a join of its connection, to any worker.
    fn follow(&mut self) {
        let Some(flow) = self.some_flow() else { return };
        let (mac, token) = self.homes[&flow];
        match token {
            Some(token) if self.random.percent(50) => {
                self.next_port += 1;
                let family = FAMILIES[self.random.below(2)];
                let join = support::flow(family, 10, self.next_port, 9, 8000);
                let (verdict, frame) = self.send(of(&join).syn(1).mp_join_syn(token, 1, 1).build());
                assert_eq!(verdict.reason, Reason::Token);
                assert_eq!(frame[..6], mac, "{join:?} left its connection: {verdict:?}");
                self.homes.insert(join, (mac, None));
                self.joined += 1;
            }
            _ => {
                let (verdict, frame) = self.send(of(&flow).data(2, 1).build());
                assert_eq!(verdict.reason, Reason::Flow);
                assert_eq!(frame[..6], mac, "{flow:?} was moved: {verdict:?}");
            }
        }
    }

    /// A flow ends, and its entry with it: what the sweep does after a while. Its token stays.
    fn end(&mut self) {
        let Some(flow) = self.some_flow() else { return };
        self.remove(&flow);
    }

    /// All connections with tokens end, and what they left has gone: no backend is held by a token any more.
    fn end_connections(&mut self) {
        let with_token = |(_, token): &([u8; 6], Option<Token>)| token.is_some();
        let ended: Vec<Flow> =
            self.homes.iter().filter(|(_, home)| with_token(home)).map(|(flow, _)| *flow).collect();
        ended.iter().for_each(|flow| self.remove(flow));
        let later = Tick::from_seconds(self.seconds + 600);
        self.tables.tokens.sweep(0, self.tables.tokens.lines(), later, 1);
    }

    fn remove(&mut self, flow: &Flow) {
        self.homes.remove(flow);
        let hash = self.tables.flow_hash(flow);
        let found = self.tables.flows.find(hash).unwrap();
        assert!(self.tables.flows.remove(&found));
    }
}

#[test]
fn whatever_the_order_of_manager_and_workers_a_flow_stays_where_it_is_and_joins_follow_it() {
    let (mut forgotten, mut reused, mut joined, mut deleted, mut revived) = (0, 0, 0, 0, 0);
    for seed in 0..60 {
        let mut all = Interleaving::new(seed);
        for _ in 0..1500 {
            all.step();
        }
        forgotten += all.forgotten;
        reused += all.reused;
        joined += all.joined;
        deleted += all.deleted;
        revived += all.revived;
    }
    assert!(forgotten > 50 && reused > 10, "{forgotten} forgotten, {reused} ids given again");
    assert!(joined > 1000, "{joined} joins");
    assert!(deleted > 50 && revived > 50, "{deleted} deleted with connections, {revived} came back");
}

#[test]
fn an_id_is_given_again_only_when_no_entry_holds_it() {
    for family in FAMILIES {
        let mut world = World::new(&start());
        let kept = world.flow_to("b2", family, 9, 8000, 0);
        world.send(of(&kept).syn(1).mp_capable_syn_v1());
        let key = Key([8; 8]);
        world.send(of(&kept).data(2, 1).mp_capable_ack(Version::V1, CLIENT_KEY, key));
        let old = world.id_of("b2");

        world.commit(&[remove("b2")]);
        assert!(world.model.has_removed());
        assert_eq!(world.forget_unused(), 0, "a flow and a token hold it");
        world.commit(&[backend("servers", "b3", 3)]);
        assert_ne!(world.id_of("b3"), old);

        world.send(of(&kept).rst(2, 1));
        world.wait(180);
        assert_eq!(world.held_ids(), [], "neither flow nor token is left");
        assert_eq!(world.forget_unused(), 1);
        assert!(!world.model.has_removed());
        assert!(world.snapshot.backend(old).is_none());

        world.commit(&[backend("servers", "b4", 4)]);
        assert_eq!(world.id_of("b4"), old, "given again");
        let outcome = world.send(of(&kept).data(3, 1));
        assert_eq!(outcome.verdict.reason, Reason::Hash, "nothing of the old one is left");
    }
}

#[test]
fn a_token_alone_keeps_its_backend_known() {
    for family in FAMILIES {
        let mut world = World::new(&start());
        let first = world.flow_to("b2", family, 9, 8000, 0);
        let key = Key([8; 8]);
        world.send(of(&first).syn(1).mp_capable_syn_v1());
        world.send(of(&first).data(2, 1).mp_capable_ack(Version::V1, CLIENT_KEY, key));
        world.commit(&[remove("b2")]);
        let found = world.tables.flows.find(world.tables.flow_hash(&first)).unwrap();
        world.tables.flows.remove(&found);
        assert_eq!(world.forget_unused(), 0);
        let join = flow(family, 3, 3, 9, 8000);
        let token = Token::from_key(Version::V1, &key);
        let outcome = world.send(of(&join).syn(1).mp_join_syn(token, 1, 1));
        assert_eq!(
            (outcome.verdict.reason, outcome.verdict.backend),
            (Reason::Token, Some(world.id_of("b2")))
        );
    }
}

#[test]
fn a_backend_that_comes_back_before_it_is_forgotten_gets_its_id_and_its_flows_back() {
    for family in FAMILIES {
        let mut world = World::new(&start());
        let kept = world.flow_to("b2", family, 9, 8000, 0);
        world.send(of(&kept).syn(1));
        let old = world.id_of("b2");
        world.commit(&[remove("b2")]);
        world.commit(&[backend("servers", "b2", 2)]);
        assert_eq!(world.id_of("b2"), old);
        assert_eq!(world.forget_unused(), 0);
        assert_eq!(world.send(of(&kept).data(2, 1)).verdict.backend, Some(old));
    }
}

#[test]
fn a_deleted_backend_is_a_miss_for_its_flows_and_joins_and_its_id_waits_for_them() {
    for family in FAMILIES {
        let mut world = World::new(&start());
        let [touched, quiet] = [0, 1].map(|nth| world.flow_to("b2", family, 9, 8000, nth));
        let key = Key([8; 8]);
        world.send(of(&touched).syn(1).mp_capable_syn_v1());
        world.send(of(&touched).data(2, 1).mp_capable_ack(Version::V1, CLIENT_KEY, key));
        world.send(of(&quiet).syn(1));
        let (old, other) = (world.id_of("b2"), world.id_of("b1"));
        world.commit(&[remove_by("b2", Some(0))]);
        assert!(world.snapshot.backend(old).is_none(), "no worker knows it");

        let verdict = world.send(of(&touched).data(3, 1)).verdict;
        assert_eq!((verdict.reason, verdict.backend), (Reason::Hash, Some(other)));
        let (join, token) = (flow(family, 3, 3, 9, 8000), Token::from_key(Version::V1, &key));
        let verdict = world.send(of(&join).syn(1).mp_join_syn(token, 1, 1)).verdict;
        assert_eq!((verdict.reason, verdict.backend), (Reason::UnknownToken, None));
        assert_eq!(world.forget_unused(), 0, "entries hold its id");
        world.commit(&[backend("servers", "b3", 3)]);
        assert_ne!(world.id_of("b3"), old);

        // It comes back in two phases, with its id; what nobody touched meanwhile is its own again.
        let next = world.model.apply(&[backend("servers", "b2", 2)]).unwrap();
        assert!(next.has_new_backends(&world.model));
        world.commit(&[backend("servers", "b2", 2)]);
        assert_eq!(world.id_of("b2"), old);
        let verdict = world.send(of(&quiet).data(2, 1)).verdict;
        assert_eq!((verdict.reason, verdict.backend), (Reason::Flow, Some(old)));
        assert_eq!(world.send(of(&touched).data(4, 1)).verdict.backend, Some(other), "stays where it went");
    }
}

#[test]
fn a_removed_backend_keeps_its_flows_until_its_deadline_and_for_good_if_it_comes_back_before() {
    for family in FAMILIES {
        let mut world = World::new(&start());
        let kept = world.flow_to("b2", family, 9, 8000, 0);
        world.send(of(&kept).syn(1));
        let old = world.id_of("b2");
        let go_on = |world: &mut World| world.send(of(&kept).data(2, 1)).verdict.backend;
        for comes_back in [true, false] {
            world.model = world.model.apply_at(&[remove_by("b2", Some(60))], 100).unwrap();
            world.publish();
            assert_eq!(world.model.expire(159), 0);
            assert_eq!(go_on(&mut world), Some(old));
            if comes_back {
                world.commit(&[backend("servers", "b2", 2)]);
            }
            assert_eq!(world.model.expire(160), usize::from(!comes_back));
            world.publish();
            assert_eq!(go_on(&mut world) == Some(old), comes_back);
        }
    }
}

#[test]
fn a_removed_pool_is_known_until_its_last_backend_is_forgotten_and_then_gone() {
    let mut world = World::new(&start());
    let kept = world.flow_to("b2", Family::V4, 9, 8000, 0);
    world.send(of(&kept).syn(1));
    let [four, six] = services("web", 9, 8000).map(|command| match command {
        Command::PutService { vip, address, port } => Command::RemoveService { vip, address, port },
        other => other,
    });
    let pool = name("servers");
    let removal = [four, six, Command::RemoveVip { name: name("web") }, remove("b1"), remove("b2")];
    world.commit(&removal);
    world.commit(&[Command::RemovePool { name: pool }]);
    assert_eq!(world.send(of(&kept).data(2, 1)).verdict.reason, Reason::NotVip);
    assert_eq!(world.forget_unused(), 1, "b1");
    assert_eq!(world.model.pools().len(), 1);
    world.wait(200);
    assert_eq!(world.forget_unused(), 1, "b2");
    assert!(world.model.pools().is_empty());
}

/// Backends with a MAC address each, as many as asked for.
fn many(letter: char, count: u16) -> Vec<Command> {
    let one = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Command::PutBackend {
            pool: name("servers"),
            name: name(&format!("{letter}{number}")),
            address4: Some([10, 1, high, low].into()),
            address6: Some([0xfd00, 1, 0, 0, 0, 0, 1, number].into()),
            mac: Some([2, 0, 0, u8::try_from(letter).unwrap(), high, low]),
            weight: 100,
            state: BackendState::Active,
            handles: Handles::default(),
        }
    };
    (0..count).map(one).collect()
}

fn removals(letter: char, count: u16) -> impl Iterator<Item = Command> {
    (0..count).map(move |number| remove(&format!("{letter}{number}")))
}

/// Opens flows and says where each went: its backend's name and the MAC address on the frame.
fn homes_of(worker: &mut Worker, tables: &Tables, flows: &[Flow]) -> Vec<(String, [u8; 6])> {
    let now = Tick::from_seconds(0);
    let home = |flow: &Flow| {
        let (verdict, frame) = worker.send(tables, now, of(flow).syn(1).build());
        assert_eq!(verdict.reason, Reason::Hash);
        let backend = worker.snapshot.backend(verdict.backend.unwrap()).unwrap();
        let mac = *frame.first_chunk().unwrap();
        assert_eq!(Some(mac), backend.mac);
        (backend.name.to_string(), mac)
    };
    flows.iter().map(home).collect()
}

#[test]
fn a_thousand_backends_of_a_pool_share_its_flows_and_half_of_them_change_without_moving_one() {
    let site = support::site();
    let pool = [Command::PutPool { name: name("servers") }, vip("web", "servers")];
    let commands = [&pool[..], &services("web", 9, 8000), &many('a', 1000)].concat();
    let old = Model::default().apply(&commands).unwrap();
    let first = Snapshot::of_model(&old, &site, 1);
    let tables = Tables::on_heap(100_000, 16, &[5; 32]);
    let mut worker = Worker::new(&Arc::new(first.clone()));
    let opened: Vec<Flow> = FAMILIES.into_iter().flat_map(|family| flows(family).take(10_000)).collect();
    let homes = homes_of(&mut worker, &tables, &opened);
    let mut shares: HashMap<&str, usize> = HashMap::new();
    for (backend, _) in &homes {
        *shares.entry(backend).or_default() += 1;
    }
    let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
    // 20 each on average; what chance alone does to 1,000 of them.
    assert!(shares.len() == 1000 && *least >= 4 && *most <= 45, "{} have {least} to {most}", shares.len());

    // Five hundred go and five hundred come, in one batch.
    let change: Vec<Command> = removals('a', 500).chain(many('n', 500)).collect();
    let new = old.apply(&change).unwrap();
    let mut behind = Worker::new(&Arc::new(first.knowing(&new, &site, 2)));
    let mut ahead = Worker::new(&Arc::new(Snapshot::of_model(&new, &site, 3)));
    let now = Tick::from_seconds(0);
    for (flow, (_, mac)) in opened.iter().zip(&homes) {
        for worker in [&mut ahead, &mut behind] {
            let (verdict, frame) = worker.send(&tables, now, of(flow).data(2, 1).build());
            assert!(verdict.reason == Reason::Flow && frame[..6] == *mac, "{flow:?}: {verdict:?}");
        }
    }
    let later: Vec<Flow> = flows(Family::V6).skip(20_000).take(4000).collect();
    let homes = homes_of(&mut ahead, &tables, &later);
    let newcomers = homes.iter().filter(|(backend, _)| backend.starts_with('n')).count();
    assert!((1700..2300).contains(&newcomers), "half of 4000: {newcomers}");
    for (flow, (backend, mac)) in later.iter().zip(&homes) {
        let is_removed = backend.strip_prefix('a').is_some_and(|number| number.parse::<u16>().unwrap() < 500);
        assert!(!is_removed, "{backend} was removed");
        let (verdict, frame) = behind.send(&tables, now, of(flow).data(2, 1).build());
        assert!(verdict.reason == Reason::Flow && frame[..6] == *mac, "{flow:?}: {verdict:?}");
    }
}

/// Two workers, on two snapshots that choose differently, meet the same SYN at the same time. The flow may belong to
/// either's choice, and all that follows goes there. One of the two SYNs may go elsewhere, rarely: of two entries
/// published at once the table keeps the one in the earlier place, whose worker may be the later one.
#[test]
fn two_workers_that_open_one_flow_at_once_leave_it_one_backend() {
    const FLOWS: u16 = 20_000;
    let site = support::site();
    let model = Model::default().apply(&start()).unwrap();
    let drained = model.apply(&[backend_in("servers", "b1", 1, 100, BackendState::Draining)]).unwrap();
    let snapshots = [&model, &drained].map(|model| Arc::new(Snapshot::of_model(model, &site, 1)));
    let tables = Tables::on_heap(usize::from(FLOWS), 16, &[1; 32]);
    // Each says which flow it is at, and waits for the other there.
    let at = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let meet = |me: usize, number: usize| {
        at[me].store(number, Ordering::SeqCst);
        let mut turns = 0;
        while at[1 - me].load(Ordering::SeqCst) < number {
            turns += 1;
            if turns % 1000 == 0 {
                std::thread::yield_now();
            }
        }
    };
    let sent = |me: usize| {
        let snapshot = &snapshots[me];
        let mut worker = Worker::new(snapshot);
        let mut homes = Vec::new();
        for (number, flow) in (0..FLOWS).zip(flows(Family::V6)) {
            let frame = of(&flow).syn(u32::from(number)).build();
            meet(me, usize::from(number));
            homes.push(worker.send(&tables, Tick::from_seconds(0), frame).0.backend);
        }
        homes
    };
    let [first, second] = std::thread::scope(|scope| {
        let sent = &sent;
        let threads = [0, 1].map(|me| scope.spawn(move || sent(me)));
        threads.map(|thread| thread.join().unwrap())
    });
    let mut both = Worker::new(&snapshots[0]);
    let mut apart = 0;
    for ((flow, one), two) in flows(Family::V6).zip(first).zip(second) {
        apart += usize::from(one != two);
        let after = both.send(&tables, Tick::from_seconds(0), of(&flow).data(1, 1).build()).0;
        assert_eq!(after.reason, Reason::Flow);
        assert!(after.backend == one || after.backend == two, "{flow:?}");
    }
    assert!(apart * 100 < usize::from(FLOWS), "{apart} of {FLOWS} SYNs went elsewhere");
}
