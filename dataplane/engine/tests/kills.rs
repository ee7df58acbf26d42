//! A data plane that is killed between any two stores into its tables, or into the directory beside them, leaves what
//! its successor can use.
//!
//! A child process runs the real pipeline over a real mapping, in tables so small and full that entries move, overflow
//! and are evicted, and is killed before the store number N, for every N. It says on its standard output which step it
//! begins, so that it is known what it had completed. The parent takes the tables over and compares them with an
//! undisturbed run, entry by entry: what was completed is there and unchanged, what was under way is there as before
//! the step or as after it (or, where its own slot was being rewritten, not at all), nothing is busy or there twice,
//! and the rest of the scenario goes on.
//!
//! `RUSTFLAGS="--cfg weft_kill" cargo test -p engine --test kills` (`scripts/test --only kills`).
#![cfg(all(weft_kill, not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod support;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command as Process, Stdio};

use engine::flow_entry::FlowEntry;
use engine::tables::{Attached, Tables};
use engine::token_entry::TokenEntry;
use ipc::counter::Counter;
use ipc::id::BackendId;
use ipc::lines::HugePages;
use ipc::liveness::{Lock, Role};
use ipc::mapping::{Mapping, RecordError, Shape, Unkept};
use ipc::message::Command;
use packet::{Family, Flow, Key, Token, Version};
use support::{CLIENT_KEY, World, backend, flow, name, of, services, vip};

/// Five lines and one of overflow: 24 flows. Six and one: 56 tokens.
const SHAPE: Shape = Shape { flow_lines: 6, token_lines: 7, best: HugePages::Small };
const BEFORE: &[u8] = b"the directory before";
const AFTER: &[u8] = b"and the one after it, which is longer than that";
/// When everything begins, in seconds.
const BEGAN: u64 = 16_000;

/// What the child is told to do, and how many stores it may make.
const TASK: &str = "WEFT_KILL_TASK";
const STORES: &str = "WEFT_KILL_AFTER";
const FOLDER: &str = "WEFT_KILL_FOLDER";

// ---- the scenario ------------------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Step {
    /// A packet, and its flow.
    Packet(Flow, Vec<u8>),
    /// A second passes, with its part of the sweep.
    Second,
}

fn configuration() -> Vec<Command> {
    let mut commands = vec![Command::PutPool { name: name("servers") }];
    commands.extend((1..=3).map(|number| backend("servers", &format!("b{number}"), number)));
    commands.extend([vip("web", "servers"), vip("tls", "servers")]);
    commands.extend(services("web", 9, 8000));
    commands.extend(services("tls", 9, 443));
    commands
}

/// A data plane over the tables of a mapping, at a time.
fn world(tables: Tables, seconds: u64) -> World {
    let mut world = World::new(&configuration());
    world.tables = tables;
    (world.seconds, world.began) = (seconds, BEGAN);
    world
}

fn key(number: u8) -> Key {
    Key([number; 8])
}

fn token(number: u8) -> Token {
    Token::from_key(Version::V1, &key(number))
}

fn client(number: u16) -> Flow {
    let family = if number.is_multiple_of(2) { Family::V4 } else { Family::V6 };
    flow(family, number, 5000 + number, 9, 8000)
}

fn joiner(number: u16) -> Flow {
    let family = if number.is_multiple_of(2) { Family::V6 } else { Family::V4 };
    flow(family, 1000 + number, 6000 + number, 9, 443)
}

/// What a connection sends, one after the other: opened, learned, alive, joined, again, and its end.
fn connection(number: u8) -> Vec<Step> {
    let (first, second) = (client(u16::from(number)), joiner(u16::from(number)));
    let segment = || of(&first).data(8, 1);
    let packets = [
        (first, of(&first).syn(7).mp_capable_syn_v1()),
        (first, of(&first).syn(7).mp_capable_syn_v1()),
        (first, segment().mp_capable_ack(Version::V1, CLIENT_KEY, key(number))),
        (first, segment().dss_data(1, 1, 1, b"data")),
        (second, of(&second).syn(9).mp_join_syn(token(number), 3, 1)),
        (second, of(&second).data(10, 1).mp_join_ack([4; 20])),
        (second, of(&second).data(10, 1).dss_data(1, 1, 1, b"data")),
        (first, of(&first).fin(8, 1)),
        // The port is used again while the old entry is closing.
        (first, of(&first).syn(77).mp_capable_syn_v1()),
    ];
    packets.into_iter().map(|(flow, packet)| Step::Packet(flow, packet.build())).collect()
}

/// Connections, others that nobody knows the beginning of, time, and ends.
fn steps() -> Vec<Step> {
    let mut steps = Vec::new();
    for round in 0..6_u8 {
        steps.extend(connection(1 + round));
        for number in 0..4 {
            let number = 100 + u16::from(round) * 4 + number;
            let flow = client(number);
            let packet = if number.is_multiple_of(2) { of(&flow).syn(3) } else { of(&flow).data(3, 1) };
            steps.push(Step::Packet(flow, packet.build()));
        }
        steps.extend(vec![Step::Second; 20]);
    }
    // Half-open and adopted ones expire, and entries come home.
    steps.extend(vec![Step::Second; 90]);
    steps
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::Packet(_, bytes) => _ = world.send(bytes.clone()),
        Step::Second => world.wait(1),
    }
}

// ---- what tables hold --------------------------------------------------------------------------------------------

/// Everything in both tables, by whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    flows: BTreeMap<String, (Flow, FlowEntry)>,
    tokens: BTreeMap<(u32, u16), TokenEntry>,
}

fn everybody() -> impl Iterator<Item = Flow> {
    (0..200).map(client).chain((0..20).map(joiner))
}

fn view(world: &World) -> View {
    let mut view = View::default();
    for flow in everybody() {
        if let Some(found) = world.tables.flows.find(world.tables.flow_hash(&flow)) {
            view.flows.insert(format!("{flow:?}"), (flow, found.entry));
        }
    }
    let pool = world.model.pools()[0].id;
    for token in (0..60).map(token) {
        world.tables.tokens.claims(world.tables.token_hash(token, pool), token, |entry| {
            let twice = view.tokens.insert((token.0, entry.backend.0), *entry);
            assert!(twice.is_none(), "{token:?} is claimed twice for {:?}", entry.backend);
        });
    }
    view
}

impl View {
    /// Without what has expired by the time of a data plane.
    fn live(&self, world: &World) -> View {
        let mut view = self.clone();
        view.flows.retain(|_, (_, entry)| !world.tables.lifetimes.idle.is_expired(entry, world.now()));
        view.tokens.retain(|_, entry| world.now().age_of(entry.tick) <= engine::token_table::TOKEN_IDLE);
        view
    }
}

/// Live entries of the flow table, counted slot by slot. A sweep brings entries home, where it may meet them again; so
/// it is made until every entry is where it stays, and then counted.
fn live(world: &World) -> usize {
    let mut count = 0;
    for _ in 0..world.tables.flows.capacity() {
        count = 0;
        world.tables.flows.sweep(0, world.tables.flows.lines(), |entry| {
            count += usize::from(!world.tables.lifetimes.idle.is_expired(entry, world.now()));
            engine::flow_table::Keep::Yes
        });
    }
    count
}

// ---- child and parent --------------------------------------------------------------------------------------------

fn attach(mapping: &Mapping, seconds: u64) -> (Tables, Attached) {
    let secret = mapping.secret().bytes();
    let lifetimes = engine::lifetimes::Lifetimes::default();
    Tables::attach(mapping.flows(), mapping.tokens(), &secret, lifetimes, seconds, seconds)
}

/// Not a test of its own: what the others run in a process that is killed.
#[test]
fn child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let folder = std::env::var(FOLDER).unwrap();
    let last: u64 = std::env::var(STORES).unwrap().parse().unwrap();
    let lock = Lock::acquire(Path::new(&folder), Role::DataPlane).unwrap();
    if task == "first directory" {
        let mut mapping = Mapping::create(&lock, &SHAPE).unwrap();
        mapping.keep(true);
        mapping.kill_after(last);
        mapping.save_directory(AFTER).unwrap();
        return;
    }
    let mapping = Mapping::attach(&lock, &SHAPE).unwrap();
    if task == "directory" {
        mapping.kill_after(last);
        mapping.save_directory(AFTER).unwrap();
        return;
    }
    let (tables, _) = attach(&mapping, BEGAN);
    let mut world = world(tables, BEGAN);
    let mut said = std::fs::File::create(Path::new(&folder).join("steps")).unwrap();
    mapping.kill_after(last);
    for step in steps() {
        said.write_all(b".").unwrap();
        take(&mut world, &step);
    }
}

/// Runs the child; whether it was killed.
fn is_killed(task: &str, folder: &Path, last: u64) -> bool {
    let mut child = Process::new(std::env::current_exe().unwrap());
    child.args(["--exact", "child", "--test-threads=1", "--nocapture"]);
    child.env(TASK, task).env(FOLDER, folder).env(STORES, last.to_string());
    let output = child.stdin(Stdio::null()).output().unwrap();
    match (output.status.signal(), output.status.code()) {
        (Some(9), None) => true,
        (None, Some(0)) => false,
        _ => panic!("after {last} stores: {output:?}"),
    }
}

/// A folder with tables that are half full, nobody's child's doing, and the lock's proof.
fn prepared() -> (tempfile::TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let lock = Lock::acquire(folder.path(), Role::DataPlane).unwrap();
    let mut mapping = Mapping::create(&lock, &SHAPE).unwrap();
    mapping.save_directory(BEFORE).unwrap();
    let (tables, _) = attach(&mapping, BEGAN);
    let mut world = world(tables, BEGAN);
    for number in 180..192 {
        let flow = client(number);
        world.send(of(&flow).syn(1).mp_capable_syn_v1());
        let learned = u8::try_from(number - 160).unwrap();
        world.send(of(&flow).data(2, 1).mp_capable_ack(Version::V1, CLIENT_KEY, key(learned)));
    }
    let pool = world.model.pools()[0].id;
    for number in 32..60 {
        let hash = world.tables.token_hash(token(number), pool);
        world.tables.tokens.learn(hash, token(number), BackendId(1), world.now(), |_| true);
    }
    mapping.keep(true);
    let path = mapping.path().to_owned();
    drop(mapping);
    let bytes = std::fs::read(&path).unwrap();
    (folder, bytes)
}

/// Puts the tables back as they were prepared.
fn restore(folder: &Path, bytes: &[u8]) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = folder.join("tables");
    let mut file =
        std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// The undisturbed run: what the tables hold before the first step and after each, and the time then.
fn undisturbed(folder: &Path) -> (Vec<(View, u64)>, World) {
    let lock = Lock::acquire(folder, Role::DataPlane).unwrap();
    let mapping = Mapping::attach(&lock, &SHAPE).unwrap();
    let (tables, attached) = attach(&mapping, BEGAN);
    assert_eq!((attached.busy_cleared, attached.expired), (0, 0));
    let mut world = world(tables, BEGAN);
    let mut views = vec![(view(&world), BEGAN)];
    for step in steps() {
        take(&mut world, &step);
        views.push((view(&world), world.seconds));
    }
    (views, world)
}

#[test]
fn tables_left_at_any_store_are_taken_over_whole() {
    let (folder, bytes) = prepared();
    let folder = folder.path();
    let (views, done) = undisturbed(folder);
    let counted = |counter| done.counters.reader().counter(counter);
    let all = [
        Counter::TokenLearned,
        Counter::JoinEstablished,
        Counter::FlowExpired,
        Counter::FlowEvictedHalfOpen,
        Counter::FlowEvictedAdopted,
    ];
    println!("{:?}", all.map(|counter| (counter, counted(counter))));
    assert!(counted(Counter::TokenLearned) >= 6 && counted(Counter::JoinEstablished) >= 4);
    assert!(counted(Counter::FlowExpired) > 0, "nothing expires: the tables are too large");
    let mut kills = 0;
    let mut cleared = 0;
    loop {
        restore(folder, &bytes);
        if !is_killed("tables", folder, kills) {
            break;
        }
        let begun = std::fs::metadata(folder.join("steps")).unwrap().len();
        let begun = usize::try_from(begun).unwrap();
        cleared += taken_over(folder, &views, begun, kills);
        kills += 1;
    }
    println!("killed at each of {kills} stores; {cleared} unfinished entries cleared");
    assert!(kills > 300, "only {kills} stores: the scenario does nothing");
    assert!(cleared > 20, "only {cleared} unfinished entries: nothing was ever under way");
}

/// Takes over the tables of a child that was killed in a step, checks them, and goes on. How many unfinished entries
/// were cleared.
fn taken_over(folder: &Path, views: &[(View, u64)], begun: usize, kills: u64) -> u64 {
    let steps = steps();
    let step = begun.checked_sub(1).map(|index| &steps[index]);
    let ((before, _), (after, seconds)) = (&views[begun.saturating_sub(1)], &views[begun]);
    let lock = Lock::acquire(folder, Role::DataPlane).unwrap();
    let mapping = Mapping::attach(&lock, &SHAPE).unwrap();
    assert_eq!(mapping.directory().unwrap(), BEFORE);
    let (tables, attached) = attach(&mapping, *seconds);
    let mut world = world(tables, *seconds);
    let held = [before, after, &view(&world)].map(|view| view.live(&world));
    let [before, after, found] = held.each_ref();
    let at = format!("killed after {kills} stores, in step {begun} ({step:?})");

    for (whose, (flow, entry)) in before.flows.iter().chain(&after.flows) {
        let is = |view: &View| view.flows.get(whose).map(|(_, entry)| *entry);
        let now = is(found);
        let own = matches!(step, Some(Step::Packet(own, _)) if own == flow);
        let is_excused = own && now.is_none() && is(before) != is(after);
        assert!(now == is(before) || now == is(after) || is_excused, "{at}: {whose} {entry:?} is {now:?}");
    }
    for (whose, _) in before.tokens.iter().chain(&after.tokens) {
        let is = |view: &View| view.tokens.get(whose).copied();
        let now = is(found);
        assert!(
            now == is(before) || now == is(after),
            "{at}: {now:?} is neither {:?} nor {:?}",
            is(before),
            is(after)
        );
    }
    let strange = found
        .flows
        .keys()
        .find(|whose| !before.flows.contains_key(*whose) && !after.flows.contains_key(*whose));
    assert_eq!(strange, None, "{at}");
    assert_eq!(
        live(&world),
        found.flows.len(),
        "{at}: an entry that nobody finds, or one that is there twice"
    );
    assert_eq!(attached.flows, found.flows.len() as u64, "{at}");
    assert_eq!(attached.tokens, found.tokens.len() as u64, "{at}");

    // Sound: nothing is left to be cleared, and the counts are those of the memory.
    let spilled = (world.tables.flows.spilled(), world.tables.tokens.spilled());
    let (again, second) = attach(&mapping, *seconds);
    assert_eq!(second, Attached { busy_cleared: 0, expired: 0, ..attached }, "{at}");
    assert_eq!((again.flows.spilled(), again.tokens.spilled()), spilled, "{at}");

    // And it works on: the packet that was lost comes again, and all after it; nobody changes backends.
    for step in &steps[begun.saturating_sub(1)..] {
        take(&mut world, step);
    }
    let (last, _) = &views[views.len() - 1];
    let end = view(&world).live(&world);
    for (whose, (_, entry)) in &end.flows {
        let expected = last.flows.get(whose).map_or(entry.backend, |(_, entry)| entry.backend);
        assert_eq!(entry.backend, expected, "{at}: {whose}");
    }
    assert_eq!(live(&world), end.flows.len(), "{at}: at the end");
    attached.busy_cleared
}

#[test]
fn a_directory_left_at_any_store_is_the_one_before_or_the_one_after() {
    let (folder, bytes) = prepared();
    let folder = folder.path();
    let mut kills = 0;
    loop {
        restore(folder, &bytes);
        let killed = is_killed("directory", folder, kills);
        let lock = Lock::acquire(folder, Role::DataPlane).unwrap();
        let mapping = Mapping::attach(&lock, &SHAPE).unwrap();
        let expected = if killed { BEFORE } else { AFTER };
        assert_eq!(mapping.directory().unwrap(), expected, "killed after {kills} stores");
        if !killed {
            break;
        }
        // And the next one is written over what was left.
        mapping.save_directory(AFTER).unwrap();
        assert_eq!(mapping.directory().unwrap(), AFTER);
        kills += 1;
    }
    println!("killed at each of {kills} stores");
    assert!(kills > 6, "only {kills} stores");
}

#[test]
fn a_first_directory_left_at_any_store_is_none_or_whole() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for kills in 0.. {
        let killed = is_killed("first directory", folder, kills);
        let lock = Lock::acquire(folder, Role::DataPlane).unwrap();
        match Mapping::attach(&lock, &SHAPE) {
            Ok(mapping) => {
                assert_eq!(mapping.directory().unwrap(), AFTER);
                assert!(!killed && kills > 6);
                break;
            }
            Err(Unkept::Directory { cause, .. }) => assert_eq!(cause, RecordError::None),
            Err(other) => panic!("after {kills} stores: {other}"),
        }
    }
}
