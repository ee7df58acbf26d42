//! `weft-dataplane`, the real program, killed or ended and started again: connections and joins go where they went, ids
//! mean what they meant, whatever the control plane pushes then; and what cannot be taken over is said and left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod running;

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use ipc::control_link::{ControlLink, Dump};
use ipc::counter::Counter;
use ipc::counters::Gauge;
use ipc::message::{
    BackendState, Command as Change, Event, Forward, Handles, Name, Presence, Protocol, Steering,
    UnknownToken,
};
use ipc::reason::Reason;
use packet::build::{CLIENT_MAC, packet};
use packet::{Address, Family, Flow, Key, Token, Version};
use running::packets::frames;
use running::wire::Wire;
use running::{
    DataPlane, PATIENCE, PORT_MAC, Place, Setup, commands, commit, is_root, program, until, workers,
};
use rustix::process::Signal;

/// Connections, all of Multipath TCP, and a join for each.
const CONNECTIONS: u16 = 200;

// ---- packets -----------------------------------------------------------------------------------------------------

/// A flow of a client to the VIP, the family by its number.
fn flow(port: u16) -> Flow {
    let v6 = |text: &str| Address::from_v6(text.parse::<std::net::Ipv6Addr>().unwrap().octets());
    let (family, source, destination) = if port.is_multiple_of(2) {
        (Family::V4, Address::from_v4([10, 0, 2, 1]), Address::from_v4([10, 9, 9, 9]))
    } else {
        (Family::V6, v6("2001:db8::1"), v6("fd99::9"))
    };
    Flow { source, destination, source_port: port, destination_port: 8000, protocol: 6, family }
}

fn first(number: u16) -> Flow {
    flow(10_000 + number)
}

/// In the other family, so that only its token says whose it is.
fn second(number: u16) -> Flow {
    flow(20_001 + number)
}

fn key(number: u16) -> Key {
    let [high, low] = number.to_be_bytes();
    Key([high, low, 1, 2, 3, 4, 5, 6])
}

fn build(
    flow: &Flow,
    with: impl FnOnce(packet::build::PacketBuilder) -> packet::build::PacketBuilder,
) -> Vec<u8> {
    with(packet().flow(flow)).ethernet(CLIENT_MAC, PORT_MAC).build()
}

/// SYN, then the key, of every connection.
fn openings() -> Vec<Vec<u8>> {
    let open = |number| {
        let syn = build(&first(number), |packet| packet.syn(7).mp_capable_syn_v1());
        let client = Key([0xc1; 8]);
        let third = build(&first(number), |packet| {
            packet.data(8, 1).mp_capable_ack(Version::V1, client, key(number))
        });
        [syn, third]
    };
    (0..CONNECTIONS).flat_map(open).collect()
}

fn data(flow: &Flow) -> Vec<u8> {
    build(flow, |packet| packet.data(8, 1).payload(b"data"))
}

fn join(number: u16) -> Vec<u8> {
    let token = Token::from_key(Version::V1, &key(number));
    build(&second(number), |packet| packet.syn(7).mp_join_syn(token, 3, 1))
}

/// Where the frames of a capture went: the last byte of the backend's MAC address, by the client's port, which says
/// whose frame it is. A flow that went to two backends fails.
fn backends_of(sent: &Path) -> BTreeMap<u16, u8> {
    let mut backends = BTreeMap::new();
    for frame in frames(sent) {
        let ports = if frame[12..14] == [0x08, 0x00] { 34 } else { 54 };
        let port = u16::from_be_bytes([frame[ports], frame[ports + 1]]);
        let before = backends.insert(port, frame[5]);
        assert!(
            before.is_none_or(|before| before == frame[5]),
            "port {port}: backend {before:?}, then {}",
            frame[5]
        );
    }
    backends
}

/// Where Maglev alone sends these frames, by `replay`.
fn replayed(place: &Place, config: &Path, frames: &[Vec<u8>]) -> BTreeMap<u16, u8> {
    let (input, output) = (place.path("replay-in.pcap"), place.path("replay-out.pcap"));
    running::packets::write_pcap(&input, frames);
    let mut replay = Command::new(program());
    replay.arg("replay").arg("--config").arg(config).arg("--in").arg(&input).arg("--out").arg(&output);
    assert!(replay.status().unwrap().success());
    backends_of(&output)
}

// ---- what is configured ------------------------------------------------------------------------------------------

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn put(pool: &str, backend: &str, number: u8) -> Change {
    Change::PutBackend {
        pool: name(pool),
        name: name(backend),
        address4: Some([10, 0, 1, 10 + number].into()),
        address6: Some(format!("fd00:1::1{number}").parse().unwrap()),
        mac: Some([2, 0, 0, 0, 3, number]),
        weight: 100,
        state: BackendState::Active,
        handles: Handles::default(),
    }
}

fn remove(backend: &str, deadline: Option<u32>) -> Change {
    Change::RemoveBackend { pool: name("web-servers"), name: name(backend), deadline }
}

fn vip(text: &str, pool: &str) -> Change {
    Change::PutVip {
        name: name(text),
        pool: name(pool),
        protocol: Protocol::Tcp,
        forward: Forward::L2dsr,
        steering: Steering::LEARN,
        unknown_token: UnknownToken::Drop,
    }
}

/// In another order than the file's: a new pool with its VIP first, two new backends of the old pool, and one of the
/// old ones under another name.
fn rearranged() -> Vec<Change> {
    vec![
        Change::PutPool { name: name("another") },
        put("another", "b1", 8),
        vip("another", "another"),
        Change::PutService { vip: name("another"), address: [10, 9, 9, 10].into(), port: 80 },
        put("web-servers", "b5", 5),
        put("web-servers", "b4", 4),
        remove("b2", None),
        put("web-servers", "b2-new-name", 2),
        put("web-servers", "b3", 3),
        put("web-servers", "b1", 1),
        vip("web", "web-servers"),
    ]
}

/// Ids of a dump, by pool and backend, and by VIP.
fn ids(dump: &Dump) -> BTreeMap<String, u16> {
    let id = |event: &Event| match event {
        Event::Backend { id, pool, name, .. } => Some((format!("{pool}/{name}"), id.0)),
        Event::Vip { id, name, .. } => Some((format!("VIP {name}"), id.0)),
        _ => None,
    };
    dump.records.iter().filter_map(id).collect()
}

fn presence(dump: &Dump, backend: &str) -> Option<(u16, Presence, Option<u32>)> {
    dump.records.iter().find_map(|event| match event {
        Event::Backend { id, name, presence, deadline, .. } if name.as_str() == backend => {
            Some((id.0, *presence, *deadline))
        }
        _ => None,
    })
}

fn dump(link: &mut ControlLink) -> Dump {
    link.dump(PATIENCE).unwrap()
}

fn kept(workers: &[usize]) -> Setup<'_> {
    Setup { workers, keep_tables: true, ..Setup::default() }
}

// ---- restarts ----------------------------------------------------------------------------------------------------

/// Opens connections, ends the data plane, starts it again, and sends on: before a control plane is there, after it
/// attached, and after it pushed something else.
fn goes_on(huge_pages: &'static str, end: impl FnOnce(DataPlane)) {
    let place = Place::new();
    let mut wire = Wire::new(&place);
    let workers = workers(1);
    let (device, again) = (wire.device("first.pcap"), wire.device("second.pcap"));
    let config = place.configure(&Setup { huge_pages, devices: &[&device], ..kept(&workers) });
    let openings = openings();
    let expected = replayed(&place, &config, &openings);

    let mut running = DataPlane::start(&place, &config);
    let mut link = running.control(&place);
    let generation = wire.fill_while(|| commit(&mut link, &commands(&config)));
    wire.send(&openings);
    let counters = link.counters();
    // net_pcap waits until a burst is full.
    let judged = || until("packets are judged", || counters.reason(Reason::Flow) == u64::from(CONNECTIONS));
    wire.fill_while(judged);
    assert_eq!(counters.counter(Counter::TokenLearned), u64::from(CONNECTIONS));
    assert_eq!(link.gauges().unwrap().get(Gauge::TablesKept), 0);
    let before = wire.fill_while(|| dump(&mut link));
    drop(link);
    // A worker that waits for a packet sees no signal.
    wire.fill_while(|| end(running));

    wire.begin_again();
    let config = place.configure(&Setup { huge_pages, devices: &[&again], ..kept(&workers) });
    let mut running = DataPlane::start(&place, &config);
    let mut link = running.control(&place);
    assert_eq!(link.gauges().unwrap().get(Gauge::TablesKept), 1);
    // Nothing was committed to this one. The packets of all connections, and a join of each.
    let numbers = || 0..CONNECTIONS;
    wire.send(&numbers().map(|number| data(&first(number))).collect::<Vec<_>>());
    wire.send(&numbers().map(join).collect::<Vec<_>>());
    let counters = link.counters();
    let joined = || until("joins follow", || counters.reason(Reason::Token) == u64::from(CONNECTIONS));
    wire.fill_while(joined);
    assert_eq!(counters.reason(Reason::Flow), u64::from(CONNECTIONS));
    assert_eq!((counters.reason(Reason::NoConfig), counters.counter(Counter::Adopted)), (0, 0));
    let after = wire.fill_while(|| dump(&mut link));
    assert_eq!((after.generation, ids(&after)), (generation, ids(&before)));

    let next = wire.fill_while(|| commit(&mut link, &rearranged()));
    assert!(next > generation, "generations go on");
    let changed = ids(&wire.fill_while(|| dump(&mut link)));
    for (whose, id) in ids(&before) {
        assert_eq!(changed.get(&whose), Some(&id), "{whose}");
    }
    assert_eq!(changed.len(), ids(&before).len() + 5);
    wire.send(
        &numbers().flat_map(|number| [data(&first(number)), data(&second(number))]).collect::<Vec<_>>(),
    );
    let known = || until("all are known", || counters.reason(Reason::Flow) == 3 * u64::from(CONNECTIONS));
    wire.fill_while(known);
    assert_eq!(counters.counter(Counter::Adopted), 0);
    wire.end();
    let said = running.stop(Signal::TERM);
    assert!(said.contains(&format!("tables kept: {CONNECTIONS} flows and {CONNECTIONS} tokens")), "{said}");
    assert!(said.contains("0 unfinished and 0 expired"), "{said}");

    let sent = backends_of(&place.path("second.pcap"));
    assert_eq!(sent.len(), 2 * usize::from(CONNECTIONS));
    for number in numbers() {
        let owner = expected[&first(number).source_port];
        assert_eq!(sent[&first(number).source_port], owner, "connection {number}");
        assert_eq!(sent[&second(number).source_port], owner, "the join of connection {number}");
    }
    // Maglev alone would have sent joins elsewhere: it is the tables that were kept.
    let hashed = replayed(&place, &config, &numbers().map(|n| data(&second(n))).collect::<Vec<_>>());
    let elsewhere = numbers().filter(|n| hashed[&second(*n).source_port] != sent[&second(*n).source_port]);
    assert!(elsewhere.count() > usize::from(CONNECTIONS / 4));
}

#[test]
fn a_killed_data_plane_goes_on_where_it_was_and_stays_right_when_everything_is_rearranged() {
    const NAME: &str =
        "a_killed_data_plane_goes_on_where_it_was_and_stays_right_when_everything_is_rearranged";
    if is_root(NAME) {
        goes_on("off", DataPlane::kill);
    }
}

#[test]
fn a_killed_data_plane_goes_on_on_huge_pages_too() {
    if is_root("a_killed_data_plane_goes_on_on_huge_pages_too") {
        goes_on("auto", DataPlane::kill);
    }
}

#[test]
fn a_data_plane_that_was_ended_in_order_goes_on_as_well() {
    if is_root("a_data_plane_that_was_ended_in_order_goes_on_as_well") {
        goes_on("off", |running| _ = running.stop(Signal::TERM));
    }
}

#[test]
fn a_removed_backend_keeps_its_deadline_and_its_id_and_a_deleted_one_its_id_over_restarts() {
    const NAME: &str =
        "a_removed_backend_keeps_its_deadline_and_its_id_and_a_deleted_one_its_id_over_restarts";
    if !is_root(NAME) {
        return;
    }
    let place = Place::new();
    let workers = workers(1);
    let config = place.configure(&kept(&workers));
    let mut running = DataPlane::start(&place, &config);
    let mut link = running.control(&place);
    commit(&mut link, &commands(&config));
    let before = ids(&dump(&mut link));
    commit(&mut link, &[remove("b1", Some(3600)), remove("b2", Some(1)), remove("b3", Some(0))]);
    drop(link);
    running.kill();

    let mut running = DataPlane::start(&place, &config);
    let mut link = running.control(&place);
    let first = dump(&mut link);
    if let Some((id, presence, deadline)) = presence(&first, "b1") {
        assert_eq!((id, presence), (before["web-servers/b1"], Presence::Removed));
        assert!((1..=3600).contains(&deadline.unwrap()), "{deadline:?}");
    }
    // Nothing holds their ids, so two censuses later they are forgotten, deadline or not.
    until("all are forgotten", || ids(&dump(&mut link)).len() == 1);
    let generation = commit(&mut link, &[put("web-servers", "new", 9)]);
    assert_eq!(presence(&dump(&mut link), "new"), Some((1, Presence::Present, None)));
    drop(link);
    running.kill();
    let mut running = DataPlane::start(&place, &config);
    let mut link = running.control(&place);
    let last = dump(&mut link);
    assert_eq!(presence(&last, "new"), Some((1, Presence::Present, None)));
    assert!(last.generation >= generation);
    running.stop(Signal::TERM);
}

// ---- what is not taken over ---------------------------------------------------------------------------------------

/// Changes the tables' file of a killed data plane; the next one starts empty, says this, and leaves a file that the one
/// after it can use.
#[track_caller]
fn starts_empty(change: impl FnOnce(&Path), part: &str) {
    let place = Place::new();
    let workers = workers(1);
    let config = place.configure(&kept(&workers));
    let mut running = DataPlane::start(&place, &config);
    let mut link = running.control(&place);
    commit(&mut link, &commands(&config));
    drop(link);
    running.kill();
    change(&place.runtime_dir().join("tables"));

    let mut running = DataPlane::start(&place, &config);
    let mut link = running.control(&place);
    let said = running.said();
    let line = said.lines().find(|line| line.contains("tables start empty: ")).expect(&said);
    assert!(line.contains(part), "{line:?} does not say {part:?}");
    assert_eq!(link.gauges().unwrap().get(Gauge::TablesKept), 0);
    assert!(dump(&mut link).records.is_empty());
    commit(&mut link, &commands(&config));
    drop(link);
    running.stop(Signal::TERM);
    let mut running = DataPlane::start(&place, &config);
    drop(running.control(&place));
    assert!(running.stop(Signal::TERM).contains("tables kept: "));
}

fn write_word(path: &Path, word: u64, value: u64) {
    File::options().write(true).open(path).unwrap().write_all_at(&value.to_le_bytes(), 8 * word).unwrap();
}

#[test]
fn tables_that_cannot_be_used_are_told_and_the_start_is_empty() {
    if !is_root("tables_that_cannot_be_used_are_told_and_the_start_is_empty") {
        return;
    }
    starts_empty(|path| write_word(path, 1, 99), "has table layout 99");
    starts_empty(|path| write_word(path, 9, 99), "is damaged");
    starts_empty(|path| write_word(path, 6, 99), "is damaged");
    starts_empty(|path| write_word(path, 512 + 8, 0x2222_2222), "the directory in");
    starts_empty(|path| fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap(), "has mode 0644");
    starts_empty(|path| std::os::unix::fs::chown(path, Some(65534), None).unwrap(), "belongs to user 65534");
    starts_empty(
        |path| File::options().write(true).open(path).unwrap().set_len(8192).unwrap(),
        "was cut off",
    );
    starts_empty(
        |path| {
            fs::rename(path, path.with_extension("moved")).unwrap();
            symlink(path.with_extension("moved"), path).unwrap();
        },
        "is a symbolic link",
    );
    starts_empty(|path| fs::remove_file(path).unwrap(), "no data plane before this one left any");
}

#[test]
fn tables_of_another_size_and_tables_that_are_not_to_be_kept_begin_anew() {
    if !is_root("tables_of_another_size_and_tables_that_are_not_to_be_kept_begin_anew") {
        return;
    }
    let place = Place::new();
    let workers = workers(1);
    let sized = |flows, keep_tables| Setup { flows, keep_tables, ..kept(&workers) };
    for (setup, part) in [
        (sized(10_000, true), "no data plane before"),
        (sized(20_000, true), "another size"),
        (sized(20_000, false), "keep_tables is false"),
    ] {
        let config = place.configure(&setup);
        let mut running = DataPlane::start(&place, &config);
        let mut link = running.control(&place);
        commit(&mut link, &commands(&config));
        let said = running.said();
        assert!(said.lines().any(|line| line.contains("start empty") && line.contains(part)), "{said}");
        assert_ne!(place.leftovers(), [""; 0]);
        drop(link);
        running.stop(Signal::TERM);
    }
    assert_eq!(place.leftovers(), [""; 0], "what is not to be kept is removed");
}

#[test]
fn where_nothing_was_kept_packets_are_dropped_as_no_config() {
    if !is_root("where_nothing_was_kept_packets_are_dropped_as_no_config") {
        return;
    }
    let place = Place::new();
    let wire = Wire::new(&place);
    let (workers, device) = (workers(1), wire.device("out.pcap"));
    let config = place.configure(&Setup { devices: &[&device], ..kept(&workers) });
    let mut running = DataPlane::start(&place, &config);
    let link = running.control(&place);
    let counters = link.counters();
    wire.send(&openings());
    let dropped =
        || until("packets are dropped", || counters.reason(Reason::NoConfig) >= 2 * u64::from(CONNECTIONS));
    wire.fill_while(dropped);
    wire.end();
    running.stop(Signal::TERM);
    assert!(frames(&place.path("out.pcap")).is_empty());
}

#[test]
fn what_was_never_configured_leaves_nothing() {
    if !is_root("what_was_never_configured_leaves_nothing") {
        return;
    }
    let place = Place::new();
    let workers = workers(1);
    let config = place.configure(&kept(&workers));
    let mut running = DataPlane::start(&place, &config);
    drop(running.control(&place));
    running.stop(Signal::TERM);
    assert_eq!(place.leftovers(), [""; 0]);
}

/// A data plane that was configured and then killed: the generation it had.
fn configured_and_killed(place: &Place, config: &Path) -> u64 {
    let mut running = DataPlane::start(place, config);
    let mut link = running.control(place);
    let generation = commit(&mut link, &commands(config));
    drop(link);
    running.kill();
    generation
}

#[test]
fn kept_tables_survive_a_start_that_fails() {
    if !is_root("kept_tables_survive_a_start_that_fails") {
        return;
    }
    let place = Place::new();
    let workers = workers(1);
    let config = place.configure(&kept(&workers));
    let generation = configured_and_killed(&place, &config);
    let broken = place.configure(&Setup { devices: &["net_nosuch0"], ..kept(&workers) });
    assert_eq!(DataPlane::start(&place, &broken).wait().code(), Some(1));
    let config = place.configure(&kept(&workers));
    let mut running = DataPlane::start(&place, &config);
    assert_eq!(dump(&mut running.control(&place)).generation, generation);
    running.stop(Signal::TERM);
}

#[test]
fn of_two_that_start_at_once_one_runs() {
    if !is_root("of_two_that_start_at_once_one_runs") {
        return;
    }
    let place = Place::new();
    let workers = workers(1);
    let config = place.configure(&kept(&workers));
    let generation = configured_and_killed(&place, &config);
    let mut both = [DataPlane::start(&place, &config), DataPlane::start(&place, &config)];
    until("one is refused", || both.iter().any(|one| one.said().contains("is already running")));
    both.sort_by_key(|one| one.said().contains("is already running"));
    let [mut running, mut refused] = both;
    assert_eq!(refused.wait().code(), Some(1));
    assert_eq!(dump(&mut running.control(&place)).generation, generation);
    running.stop(Signal::TERM);
}

// ---- the operator's way, and what nobody may see ------------------------------------------------------------------

fn forget(config: &Path) -> (bool, String) {
    let output = Command::new(program()).arg("forget").arg("--config").arg(config).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn forgetting_is_refused_while_one_runs_and_the_next_start_is_empty_after_it() {
    if !is_root("forgetting_is_refused_while_one_runs_and_the_next_start_is_empty_after_it") {
        return;
    }
    for huge_pages in ["off", "auto"] {
        let place = Place::new();
        let workers = workers(1);
        let config = place.configure(&Setup { huge_pages, ..kept(&workers) });
        let (done, said) = forget(&config);
        assert!(done && said.starts_with("nothing to forget"), "{said}");
        let mut running = DataPlane::start(&place, &config);
        let mut link = running.control(&place);
        commit(&mut link, &commands(&config));
        let (done, said) = forget(&config);
        assert!(!done && said.contains("is already running"), "{said}");
        drop(link);
        running.stop(Signal::TERM);
        let (done, said) = forget(&config);
        assert!(done && said.starts_with("removed /") && said.contains("tables"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(place.leftovers(), [""; 0]);
        let mut running = DataPlane::start(&place, &config);
        assert!(dump(&mut running.control(&place)).records.is_empty());
        running.stop(Signal::TERM);
    }
}

#[test]
fn the_key_of_the_tables_is_in_no_log_and_no_dump() {
    if !is_root("the_key_of_the_tables_is_in_no_log_and_no_dump") {
        return;
    }
    let place = Place::new();
    let workers = workers(1);
    let config = place.configure(&kept(&workers));
    let mut all = String::new();
    for _ in 0..2 {
        // Through `env`, since the tests' log level is not that of the tests around them.
        let mut command = Command::new("env");
        command.arg("RUST_LOG=trace").arg(program()).arg("run").arg("--config").arg(&config);
        let mut running = DataPlane::spawn(&place, &mut command);
        let mut link = running.control(&place);
        commit(&mut link, &commands(&config));
        all += &format!("{:?}", dump(&mut link));
        drop(link);
        all += &running.stop(Signal::TERM);
    }
    assert!(all.contains("tables kept"), "{all}");
    let file = fs::read(place.runtime_dir().join("tables")).unwrap();
    let key = &file[64..96];
    assert!(key.iter().any(|byte| *byte != 0));
    let list = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut shown = vec![list(key), hex(key)];
    for word in key.as_chunks::<8>().0 {
        let number = u64::from_le_bytes(*word);
        shown.extend([list(word), hex(word), number.to_string(), format!("{number:x}")]);
    }
    assert_eq!(shown.iter().find(|text| all.contains(*text)), None);
}

#[test]
fn the_start_says_how_long_each_part_of_it_took() {
    if !is_root("the_start_says_how_long_each_part_of_it_took") {
        return;
    }
    let place = Place::new();
    let config = place.configure(&Setup { workers: &workers(1), ..Setup::default() });
    let mut running = DataPlane::start(&place, &config);
    drop(running.control(&place));
    until("it says so", || running.said().contains("started in "));
    let said = running.stop(Signal::TERM);
    let line = said.lines().find(|line| line.contains("started in ")).unwrap();
    for part in [" ms (lock and segment ", ", tables ", ", EAL ", ", ports ", ", workers "] {
        assert!(line.contains(part), "{line}");
    }
}
