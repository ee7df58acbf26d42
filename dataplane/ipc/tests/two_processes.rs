//! The link between real processes, killed at the worst moments.
//!
//! A child is this very test program, told by an environment variable to play a role; the test `child` is its
//! way in. Waits have no deadline of their own but what the link's calls take: a test that hangs has failed.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use ipc::control_link::{Answer, ControlLink, ControlLinkError, Peer};
use ipc::counters::{Gauge, LinkCounter};
use ipc::data_link::{DataLink, DataLinkError, Request};
use ipc::layout::{ABI_VERSION, COMMAND_SLOTS, EVENT_SLOTS};
use ipc::liveness::LockError;
use ipc::message::{
    BackendState, Command, Event, Forward, Handles, MAX_BATCH, Name, Protocol, Refusal, Steering,
    UnknownToken,
};
use ipc::segment::SegmentError;

/// Long enough for the slowest machine: no test passes or fails by it, but where it says so.
const PATIENCE: Duration = Duration::from_secs(60);
const ROLE: &str = "WEFT_IPC_CHILD_ROLE";
const DIR: &str = "WEFT_IPC_CHILD_DIR";
const READY: &str = "child is ready";

/// A child process, killed at the end of its test.
struct Kin(Child, #[expect(dead_code, reason = "held, or its output would break")] Output);

type Output = BufReader<std::process::ChildStdout>;

impl Kin {
    /// Starts a child and waits until it says that it is ready.
    fn start(role: &str, dir: &Path) -> Kin {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(ROLE, role)
            .env(DIR, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let ready = output.by_ref().lines().any(|line| line.unwrap().contains(READY));
        assert!(ready, "the child ended before it was ready: {:?}", child.wait());
        Kin(child, output)
    }

    /// `kill -9`, and waits for the end.
    fn kill(mut self) -> u32 {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
        self.0.id()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Kin {
    fn drop(&mut self) {
        // Already dead in most tests.
        let _killed = self.0.kill();
        let _waited = self.0.wait();
    }
}

#[test]
#[ignore = "plays a role in the other tests, which start it"]
fn child() {
    let (Ok(role), Ok(dir)) = (std::env::var(ROLE), std::env::var(DIR)) else {
        panic!("only the other tests of this file start this one");
    };
    let dir = Path::new(&dir);
    match role.split_once(' ') {
        None if role == "data" => data_plane(dir),
        None if role == "apply" => {
            let mut link = ControlLink::open(dir).unwrap();
            link.attach(PATIENCE).unwrap();
            let answer = link.apply(&pools(1), PATIENCE).unwrap();
            assert_eq!(answer, Answer::Committed { generation: 1 });
            println!("{READY}");
        }
        Some(("unfinished", messages)) => {
            let mut link = ControlLink::open(dir).unwrap();
            link.attach(PATIENCE).unwrap();
            let batch = std::iter::once(Command::Begin { batch: 1 }).chain(mixed());
            for command in batch.take(messages.parse().unwrap()) {
                link.send_raw(&command, PATIENCE).unwrap();
            }
            println!("{READY}");
            sleep_until_killed();
        }
        _ => panic!("no such role: {role}"),
    }
}

fn sleep_until_killed() -> ! {
    loop {
        std::thread::sleep(PATIENCE);
    }
}

/// A data plane that takes every batch, remembers how many commands the last one had, and shows that many pools.
fn data_plane(dir: &Path) -> ! {
    let mut link = DataLink::create(dir).unwrap();
    println!("{READY}");
    let mut last = Vec::new();
    let mut generation = 0;
    loop {
        match link.poll() {
            Some(Request::Batch(batch)) => {
                generation += 1;
                last = batch.commands;
                link.gauges().set(Gauge::Generation, generation);
                link.send(Event::Committed { batch: batch.number, generation });
            }
            Some(Request::Dump) => {
                for command in &last {
                    if let Command::PutPool { name } = command {
                        link.send(Event::Pool { name: *name });
                    }
                }
                link.send(Event::DumpEnd { generation });
            }
            Some(Request::FindToken { token }) => link.send(Event::TokenEnd { token }),
            Some(_) => {}
            None => std::thread::sleep(Duration::from_micros(100)),
        }
    }
}

fn pools(count: usize) -> Vec<Command> {
    (0..count).map(|n| Command::PutPool { name: name(n) }).collect()
}

/// Every kind of change, in two turns and a half.
fn mixed() -> Vec<Command> {
    let (pool, backend, vip) = (name(1), name(2), name(3));
    let (address, port) = ([10, 9, 9, 9].into(), 80);
    let kinds = [
        Command::PutPool { name: pool },
        Command::PutBackend {
            pool,
            name: backend,
            address4: Some([10, 0, 0, 1].into()),
            address6: None,
            mac: Some([2, 0, 0, 0, 0, 1]),
            weight: 1,
            state: BackendState::Active,
            handles: Handles::default(),
        },
        Command::PutVip {
            name: vip,
            pool,
            protocol: Protocol::Tcp,
            forward: Forward::L2dsr,
            steering: Steering::LEARN,
            unknown_token: UnknownToken::Drop,
        },
        Command::PutService { vip, address, port },
        Command::RemoveService { vip, address, port },
        Command::RemoveVip { name: vip },
        Command::RemoveBackend { pool, name: backend, deadline: Some(60) },
        Command::RemovePool { name: pool },
    ];
    kinds.into_iter().cycle().take(20).collect()
}

fn name(n: usize) -> Name {
    format!("pool-{n}").parse().unwrap()
}

fn attached(dir: &Path) -> ControlLink {
    let mut link = ControlLink::open(dir).unwrap();
    link.attach(PATIENCE).unwrap();
    link
}

/// The next request of a data plane in this process.
fn next(link: &mut DataLink) -> Request {
    loop {
        match link.poll() {
            Some(request) => return request,
            None => std::thread::sleep(Duration::from_micros(100)),
        }
    }
}

#[test]
fn a_second_data_plane_is_refused_by_pid_and_kill_9_of_the_first_frees_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let first = Kin::start("data", dir.path());
    let pid = first.0.id();
    match DataLink::create(dir.path()) {
        Err(error @ DataLinkError::Lock(LockError::Held { .. })) => {
            assert!(error.to_string().contains(&format!("pid {pid}")), "{error}");
        }
        other => panic!("a second instance: {other:?}"),
    }
    first.kill();
    DataLink::create(dir.path()).unwrap();
}

#[test]
fn a_second_control_plane_is_refused_by_pid_and_kill_9_of_the_first_frees_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut data = DataLink::create(dir.path()).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                data.poll();
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        let first = Kin::start("unfinished 0", dir.path());
        let error = ControlLink::open(dir.path()).map(drop).unwrap_err();
        assert!(error.to_string().contains(&format!("pid {}", first.0.id())), "{error}");
        first.kill();
        ControlLink::open(dir.path()).unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn death_in_the_middle_of_a_batch_abandons_it_at_every_message() {
    for messages in 1..=1 + mixed().len() {
        let dir = tempfile::tempdir().unwrap();
        let mut data = DataLink::create(dir.path()).unwrap();
        let reader = data.gauge_reader();
        let child = std::thread::scope(|scope| {
            let child = scope.spawn(|| Kin::start(&format!("unfinished {messages}"), dir.path()));
            assert!(matches!(next(&mut data), Request::Attached { .. }));
            child.join().unwrap()
        });
        let pid = child.kill();
        assert_eq!(next(&mut data), Request::Detached, "after {messages} messages of {pid}");
        assert_eq!(reader.link(LinkCounter::Abandoned), 1, "after {messages} messages");

        // The next control plane finds everything as if nothing had been.
        std::thread::scope(|scope| {
            let child = scope.spawn(|| Kin::start("apply", dir.path()));
            assert!(matches!(next(&mut data), Request::Attached { .. }));
            let Request::Batch(batch) = next(&mut data) else { panic!("a batch was due") };
            assert_eq!(batch.commands, pools(1));
            data.send(Event::Committed { batch: batch.number, generation: 1 });
            assert_eq!(next(&mut data), Request::Detached);
            child.join().unwrap();
        });
    }
}

#[test]
fn a_control_plane_that_attaches_anew_gets_fresh_rings_and_its_old_batch_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let _data = Kin::start("data", dir.path());
    let mut link = attached(dir.path());
    link.send_raw(&Command::Begin { batch: 99 }, PATIENCE).unwrap();
    for command in pools(COMMAND_SLOTS / 2) {
        link.send_raw(&command, PATIENCE).unwrap();
    }
    link.attach(PATIENCE).unwrap();
    assert_eq!(link.apply(&pools(2), PATIENCE).unwrap(), Answer::Committed { generation: 1 });
    assert_eq!(link.dump(PATIENCE).unwrap().records.len(), 2);
    let gauges = link.gauges().unwrap();
    assert_eq!(gauges.link(LinkCounter::Attached), 2);
    assert_eq!(gauges.link(LinkCounter::Committed), 1, "nothing of the old batch");
}

#[test]
fn a_batch_and_a_dump_larger_than_their_rings_arrive_whole_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let _data = Kin::start("data", dir.path());
    let mut link = attached(dir.path());
    let count = EVENT_SLOTS * 2 + 17;
    assert!(count > COMMAND_SLOTS * 2);
    assert_eq!(link.apply(&pools(count), PATIENCE).unwrap(), Answer::Committed { generation: 1 });
    let dump = link.dump(PATIENCE).unwrap();
    let expected: Vec<Event> = (0..count).map(|n| Event::Pool { name: name(n) }).collect();
    assert_eq!((dump.generation, dump.records), (1, expected));
    assert_eq!(link.find_token(7, PATIENCE).unwrap(), []);
    assert_eq!(link.gauges().unwrap().get(Gauge::Generation), 1);
}

#[test]
fn a_batch_beyond_the_limit_is_refused_by_name_and_the_link_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let _data = Kin::start("data", dir.path());
    let mut link = attached(dir.path());
    let answer = link.apply(&pools(MAX_BATCH + 1), PATIENCE).unwrap();
    assert!(matches!(answer, Answer::Refused { refusal: Refusal::BatchTooLarge, .. }), "{answer:?}");
    assert_eq!(link.apply(&pools(MAX_BATCH), PATIENCE).unwrap(), Answer::Committed { generation: 1 });
}

#[test]
fn the_death_and_the_successor_of_a_data_plane_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let data = Kin::start("data", dir.path());
    let mut link = attached(dir.path());
    assert_eq!(link.peer(), Peer::Alive);
    data.kill();
    assert_eq!(link.peer(), Peer::Gone);
    // An hour: the death ends the wait, not the deadline.
    let error = link.apply(&pools(1), Duration::from_secs(3600)).unwrap_err();
    assert!(matches!(error, ControlLinkError::Gone), "{error}");
    assert!(!link.is_attached());
    assert!(matches!(link.attach(PATIENCE), Err(ControlLinkError::NotRunning { .. })));

    let _successor = Kin::start("data", dir.path());
    assert_eq!(link.peer(), Peer::Replaced);
    link.attach(PATIENCE).unwrap();
    assert_eq!(link.peer(), Peer::Alive);
    assert_eq!(link.dump(PATIENCE).unwrap().generation, 0, "it has no configuration");
    assert_eq!(link.apply(&pools(3), PATIENCE).unwrap(), Answer::Committed { generation: 1 });
}

#[test]
fn a_data_plane_killed_while_a_batch_is_under_way_ends_the_wait() {
    let dir = tempfile::tempdir().unwrap();
    let data = Kin::start("data", dir.path());
    let mut link = attached(dir.path());
    data.signal(rustix::process::Signal::STOP);
    std::thread::scope(|scope| {
        // Larger than the ring: the sender is held up in the middle.
        let waiting = scope.spawn(|| link.apply(&pools(COMMAND_SLOTS * 3), Duration::from_secs(3600)));
        std::thread::sleep(Duration::from_millis(20));
        data.kill();
        let error = waiting.join().unwrap().unwrap_err();
        assert!(matches!(error, ControlLinkError::Gone), "{error}");
    });
}

#[test]
fn a_data_plane_that_does_not_answer_costs_the_deadline_and_a_new_attach() {
    let dir = tempfile::tempdir().unwrap();
    let data = Kin::start("data", dir.path());
    let mut link = attached(dir.path());
    data.signal(rustix::process::Signal::STOP);
    let error = link.apply(&pools(COMMAND_SLOTS * 3), Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, ControlLinkError::Deadline(_)), "{error}");
    assert!(matches!(link.dump(PATIENCE), Err(ControlLinkError::NotAttached)));
    data.signal(rustix::process::Signal::CONT);
    link.attach(PATIENCE).unwrap();
    assert_eq!(link.dump(PATIENCE).unwrap().records, [], "the half batch was forgotten");
}

#[test]
fn a_version_mismatch_is_told_from_everything_else_and_names_both() {
    let dir = tempfile::tempdir().unwrap();
    let _data = Kin::start("data", dir.path());
    let file = std::fs::File::options().write(true).open(dir.path().join("segment")).unwrap();
    file.write_all_at(&77_u64.to_le_bytes(), 8).unwrap();
    match ControlLink::open(dir.path()) {
        Err(error @ ControlLinkError::Segment(SegmentError::Version { theirs: 77, ours: ABI_VERSION })) => {
            let text = error.to_string();
            assert!(text.contains("version 77") && text.contains("same version of both"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_data_plane_the_control_plane_says_what_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let error = ControlLink::open(dir.path()).unwrap_err().to_string();
    assert!(error.starts_with("weft-dataplane is not running in "), "{error}");
    // Killed, it leaves its segment behind, which must not pass for a running one.
    Kin::start("data", dir.path()).kill();
    assert!(dir.path().join("segment").exists());
    assert!(matches!(ControlLink::open(dir.path()), Err(ControlLinkError::NotRunning { .. })));
}

#[test]
fn a_command_that_is_no_change_does_not_reach_the_ring() {
    let dir = tempfile::tempdir().unwrap();
    let _data = Kin::start("data", dir.path());
    let mut link = attached(dir.path());
    let error = link.apply(&[pools(1)[0], Command::Dump], PATIENCE).unwrap_err();
    assert!(matches!(error, ControlLinkError::NotAChange(1)), "{error}");
    assert_eq!(link.apply(&[], PATIENCE).unwrap(), Answer::Committed { generation: 1 });
}
