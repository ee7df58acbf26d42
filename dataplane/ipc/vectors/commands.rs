//! What a batch makes, and what is refused: one table, by which the data plane's model and the control plane's idea
//! of it are both tested. Each test includes this file by its path.
//!
//! A row is what there is, a batch, and what comes of it: the configured state, as the shortest batch that makes it
//! of nothing, or the place of the refused command (the number of commands where only the whole is at fault) and why.

use std::net::{IpAddr, Ipv4Addr};

use ipc::limits::{MAX_BACKENDS, MAX_POOLS, MAX_SERVICES, MAX_VIPS, MAX_WEIGHT};
use ipc::message::{
    BackendState, Command, Forward, Handles, Name, Protocol, Refusal, Steering, UnknownToken,
};

/// What comes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The state that these commands make of nothing.
    Makes(Vec<Command>),
    /// Nothing: the command at this place is refused.
    Refused(u32, Refusal),
}

/// A row of the table.
pub struct Vector {
    /// What it shows.
    pub what: &'static str,
    /// What there is.
    pub given: Vec<Command>,
    /// What is asked for.
    pub batch: Vec<Command>,
    /// What comes of it.
    pub outcome: Outcome,
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn pool(text: &str) -> Command {
    Command::PutPool { name: name(text) }
}

fn backend(pool: &str, text: &str) -> Command {
    weighted(pool, text, 1)
}

fn weighted(pool: &str, text: &str, weight: u32) -> Command {
    Command::PutBackend {
        pool: name(pool),
        name: name(text),
        address4: Some(Ipv4Addr::new(10, 0, 1, 1)),
        address6: None,
        mac: Some([2, 0, 0, 0, 3, 1]),
        weight,
        state: BackendState::Active,
        handles: Handles::default(),
    }
}

fn reached_by(pool: &str, text: &str, handles: Handles) -> Command {
    let Command::PutBackend { pool, name, address4, address6, mac, weight, state, .. } = backend(pool, text)
    else {
        unreachable!("it is one");
    };
    Command::PutBackend { pool, name, address4, address6, mac, weight, state, handles }
}

fn drained(pool: &str, text: &str) -> Command {
    let Command::PutBackend { pool, name, address4, address6, mac, weight, .. } = backend(pool, text) else {
        unreachable!("it is one");
    };
    Command::PutBackend {
        pool,
        name,
        address4,
        address6,
        mac,
        weight,
        state: BackendState::Draining,
        handles: Handles::default(),
    }
}

fn homeless(pool: &str, text: &str) -> Command {
    let Command::PutBackend { pool, name, mac, weight, state, handles, .. } = backend(pool, text) else {
        unreachable!("it is one");
    };
    Command::PutBackend { pool, name, address4: None, address6: None, mac, weight, state, handles }
}

fn vip(text: &str, pool: &str) -> Command {
    vip_by(text, pool, Protocol::Tcp, Forward::L2dsr)
}

fn vip_by(text: &str, pool: &str, protocol: Protocol, forward: Forward) -> Command {
    let unknown_token = UnknownToken::Drop;
    Command::PutVip {
        name: name(text),
        pool: name(pool),
        protocol,
        forward,
        steering: Steering::LEARN,
        unknown_token,
    }
}

fn service(vip: &str, address: &str, port: u16) -> Command {
    Command::PutService { vip: name(vip), address: address.parse().unwrap(), port }
}

fn no_service(vip: &str, address: &str, port: u16) -> Command {
    Command::RemoveService { vip: name(vip), address: address.parse().unwrap(), port }
}

fn no_backend(pool: &str, text: &str) -> Command {
    Command::RemoveBackend { pool: name(pool), name: name(text), deadline: None }
}

fn no_vip(text: &str) -> Command {
    Command::RemoveVip { name: name(text) }
}

fn no_pool(text: &str) -> Command {
    Command::RemovePool { name: name(text) }
}

fn pool_called(before: &str, after: &str) -> Command {
    Command::RenamePool { name: name(before), to: name(after) }
}

/// A pool with a backend, and a VIP with a service on it.
fn small() -> Vec<Command> {
    vec![pool("p"), backend("p", "b"), vip("v", "p"), service("v", "10.9.9.9", 80)]
}

/// The table.
pub fn vectors() -> Vec<Vector> {
    let made = made_of_backends().into_iter().chain(made_of_vips());
    let mut rows: Vec<Vector> = made
        .map(|(what, batch, makes)| Vector { what, given: small(), batch, outcome: Outcome::Makes(makes) })
        .collect();
    let refused = refusals().into_iter().chain(limits());
    rows.extend(refused.map(|(what, given, batch, place, refusal)| {
        let outcome = Outcome::Refused(place, refusal);
        Vector { what, given, batch, outcome }
    }));
    rows
}

/// What, a batch on top of [`small`], and the batch that makes the same of nothing.
type Made = (&'static str, Vec<Command>, Vec<Command>);

/// [`small`] with another command at a place.
fn with(place: usize, command: Command) -> Vec<Command> {
    let mut all = small();
    all[place] = command;
    all
}

/// [`small`] and more.
fn and(commands: &[Command]) -> Vec<Command> {
    [small(), commands.to_vec()].concat()
}

fn made_of_backends() -> Vec<Made> {
    vec![
        ("nothing asked, nothing changed", vec![], small()),
        ("all of it again changes nothing", small(), small()),
        (
            "a backend put again is changed in place",
            vec![weighted("p", "b", 7)],
            with(1, weighted("p", "b", 7)),
        ),
        ("a backend drains", vec![drained("p", "b")], with(1, drained("p", "b"))),
        ("a second backend", vec![backend("p", "c")], and(&[backend("p", "c")])),
        (
            "one name in two pools is two backends",
            vec![pool("q"), backend("q", "b")],
            and(&[pool("q"), backend("q", "b")]),
        ),
        ("a pool may be left without backends", vec![no_backend("p", "b")], {
            let mut all = small();
            all.remove(1);
            all
        }),
        ("removed and put again in one batch", vec![no_backend("p", "b"), backend("p", "b")], small()),
    ]
}

fn made_of_vips() -> Vec<Made> {
    vec![
        (
            "a VIP put again keeps its services",
            vec![vip_by("v", "p", Protocol::Tcp, Forward::Ipip)],
            with(2, vip_by("v", "p", Protocol::Tcp, Forward::Ipip)),
        ),
        (
            "so it does with another protocol",
            vec![vip_by("v", "p", Protocol::Udp, Forward::L2dsr)],
            with(2, vip_by("v", "p", Protocol::Udp, Forward::L2dsr)),
        ),
        (
            "gue is a way to forward",
            vec![vip_by("v", "p", Protocol::Tcp, Forward::Gue)],
            with(2, vip_by("v", "p", Protocol::Tcp, Forward::Gue)),
        ),
        ("a VIP may come before its pool", vec![vip("w", "q"), pool("q")], and(&[pool("q"), vip("w", "q")])),
        (
            "one address and port of two protocols",
            vec![vip_by("u", "p", Protocol::Udp, Forward::L2dsr), service("u", "10.9.9.9", 80)],
            and(&[vip_by("u", "p", Protocol::Udp, Forward::L2dsr), service("u", "10.9.9.9", 80)]),
        ),
        ("any port beside a port", vec![service("v", "10.9.9.9", 0)], and(&[service("v", "10.9.9.9", 0)])),
        ("a service put twice is one", vec![service("v", "10.9.9.9", 80)], small()),
        (
            "a service moves from one VIP to another within the batch",
            vec![vip("w", "p"), service("w", "10.9.9.9", 80), no_service("v", "10.9.9.9", 80)],
            vec![pool("p"), backend("p", "b"), vip("v", "p"), vip("w", "p"), service("w", "10.9.9.9", 80)],
        ),
        (
            "a VIP moves to another pool, and its old one goes",
            vec![pool("q"), vip("v", "q"), no_backend("p", "b"), no_pool("p")],
            vec![pool("q"), vip("v", "q"), service("v", "10.9.9.9", 80)],
        ),
        (
            "a pool with another name keeps its backends and its VIPs",
            vec![pool_called("p", "q")],
            vec![pool("q"), backend("q", "b"), vip("v", "q"), service("v", "10.9.9.9", 80)],
        ),
        (
            "its old name is free for another",
            vec![pool_called("p", "q"), pool("p")],
            vec![pool("q"), backend("q", "b"), vip("v", "q"), service("v", "10.9.9.9", 80), pool("p")],
        ),
        (
            "everything goes",
            vec![no_service("v", "10.9.9.9", 80), no_vip("v"), no_backend("p", "b"), no_pool("p")],
            vec![],
        ),
        ("what frames a batch changes nothing", vec![Command::Dump], small()),
    ]
}

/// What, what there is, the batch, the place refused, and why.
type Refused = (&'static str, Vec<Command>, Vec<Command>, u32, Refusal);

fn refusals() -> Vec<Refused> {
    let row = |what, batch, place, refusal| (what, small(), batch, place, refusal);
    let at = |address| vec![service("v", address, 81)];
    let no_port = Handles { endpoint_port: Some(0), ..Handles::default() };
    let no_host = Handles { endpoint4: Some(Ipv4Addr::BROADCAST), ..Handles::default() };
    vec![
        row("a backend of no pool", vec![backend("q", "b")], 0, Refusal::UnknownPool),
        row("the first that cannot hold", vec![pool("q"), no_vip("w"), no_vip("x")], 1, Refusal::UnknownVip),
        row("no such backend", vec![no_backend("p", "c")], 0, Refusal::UnknownBackend),
        row("a backend of no pool, removed", vec![no_backend("q", "b")], 0, Refusal::UnknownPool),
        row("a backend of another pool", vec![pool("q"), no_backend("q", "b")], 1, Refusal::UnknownBackend),
        row("no such pool", vec![no_pool("q")], 0, Refusal::UnknownPool),
        row("no such pool, called otherwise", vec![pool_called("q", "r")], 0, Refusal::UnknownPool),
        row("a name that another pool has", vec![pool("q"), pool_called("p", "q")], 1, Refusal::PoolExists),
        row("a pool that a VIP uses", vec![no_pool("p")], 0, Refusal::PoolInUse),
        row(
            "a pool with backends",
            vec![pool("q"), backend("q", "b"), no_pool("q")],
            2,
            Refusal::PoolNotEmpty,
        ),
        row("no such VIP", vec![no_vip("w")], 0, Refusal::UnknownVip),
        row("a VIP with services", vec![no_vip("v")], 0, Refusal::VipInUse),
        row("a service of no VIP", vec![service("w", "10.9.9.9", 80)], 0, Refusal::UnknownVip),
        row("a service of no VIP, removed", vec![no_service("w", "10.9.9.9", 80)], 0, Refusal::UnknownVip),
        row("another port, removed", vec![no_service("v", "10.9.9.9", 81)], 0, Refusal::UnknownService),
        row("another address, removed", vec![no_service("v", "10.9.9.8", 80)], 0, Refusal::UnknownService),
        row("the unspecified address", at("0.0.0.0"), 0, Refusal::BadAddress),
        row("the same of IPv6", at("::"), 0, Refusal::BadAddress),
        row("a multicast address", at("224.0.0.1"), 0, Refusal::BadAddress),
        row("the same of IPv6", at("ff02::1"), 0, Refusal::BadAddress),
        row("the broadcast address", at("255.255.255.255"), 0, Refusal::BadAddress),
        row("a weight too great", vec![weighted("p", "b", MAX_WEIGHT + 1)], 0, Refusal::BadWeight),
        row("a backend without an address", vec![homeless("p", "b")], 0, Refusal::NoAddress),
        row("an endpoint of no port", vec![reached_by("p", "b", no_port)], 0, Refusal::BadAddress),
        row("an endpoint of no host", vec![reached_by("p", "b", no_host)], 0, Refusal::BadAddress),
        row("a VIP without its pool, as a whole", vec![vip("v", "q")], 1, Refusal::UnknownPool),
        row(
            "a service of two VIPs, as a whole",
            vec![vip("w", "p"), service("w", "10.9.9.9", 80)],
            2,
            Refusal::ServiceTaken,
        ),
        row(
            "another protocol makes a service another's",
            vec![
                vip_by("u", "p", Protocol::Udp, Forward::L2dsr),
                service("u", "10.9.9.9", 80),
                vip_by("v", "p", Protocol::Udp, Forward::L2dsr),
            ],
            3,
            Refusal::ServiceTaken,
        ),
    ]
}

/// One more than there may be of each.
fn limits() -> Vec<Refused> {
    let number = |count: usize| u32::try_from(count).unwrap();
    let pools = (0..=MAX_POOLS).map(|n| pool(&format!("p{n}"))).collect();
    let mut backends = vec![pool("p")];
    // Ids go from 1: one fewer than MAX_BACKENDS fit.
    backends.extend((1..=MAX_BACKENDS).map(|n| backend("p", &format!("b{n}"))));
    let mut vips = vec![pool("p")];
    vips.extend((0..=MAX_VIPS).map(|n| vip(&format!("v{n}"), "p")));
    let mut services = vec![pool("p"), vip("v", "p")];
    let address = IpAddr::from([10, 9, 9, 9]);
    let port = |n: usize| u16::try_from(n).unwrap();
    services.extend((0..=MAX_SERVICES).map(|n| Command::PutService {
        vip: name("v"),
        address,
        port: port(n),
    }));
    vec![
        ("too many pools", vec![], pools, number(MAX_POOLS), Refusal::TooManyPools),
        ("too many backends", vec![], backends, number(MAX_BACKENDS), Refusal::TooManyBackends),
        ("too many VIPs", vec![], vips, number(MAX_VIPS + 1), Refusal::TooManyVips),
        ("too many services", vec![], services, number(MAX_SERVICES + 2), Refusal::TooManyServices),
    ]
}
