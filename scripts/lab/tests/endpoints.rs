//! Steering by endpoint with real Linux at both ends: servers that set flag C and announce a port or an address of
//! their own, told by nothing but `weftctl backend commands`; what is asserted comes from the kernels' counters.
//!
//! They run as the tests of `e2e.rs` do, and need the same.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use weft_lab::balancer::{self, Counted, Forward};
use weft_lab::endpoints::{self, Endpoint};
use weft_lab::stand::{LIMIT, Machine, Stand, owned};
use weft_lab::topology::{Backend, Family};
use weft_lab::traffic::client::{self, Client, Report};

const CONNECTIONS: usize = 30;

/// A stand whose servers and clients follow announcements, or nothing after saying why this test cannot run here.
fn stand(
    test: &str,
    backends: u8,
    forward: Forward,
    endpoint: Endpoint,
    schemes: &[&'static str],
) -> Option<(Stand, Machine)> {
    let machine = Machine::take(test, env!("CARGO_BIN_EXE_weft-lab"), env!("CARGO_TARGET_TMPDIR"))?;
    let options = balancer::Options::new(forward, true);
    let (stand, _) = Stand::with(&machine, backends, &options, |document| {
        document.steer_by(schemes, endpoint);
    })
    .unwrap();
    for backend in stand.lab.backends.iter().take(3) {
        endpoints::tell(&stand.weft, backend).unwrap();
    }
    stand.lab.follow_announcements().unwrap();
    Some((stand, machine))
}

fn client(stand: &Stand, family: Family) -> Report {
    Client::start(&stand.lab, &client::Options::new(family, CONNECTIONS)).unwrap().finish(LIMIT).unwrap()
}

/// Every connection has a second subflow that carried data, at the endpoint of the backend that answered it. A socket of
/// IPv6 may have more, since it follows announcements of both families.
fn assert_joined_at_own(report: &Report, family: Family, endpoint: Endpoint) {
    assert_eq!(report.broken(), Vec::<String>::new());
    assert_eq!(report.spread(), report.connections.len());
    for connection in &report.connections {
        let number = connection.backend.trim_start_matches('b').parse().unwrap();
        let own = [Family::V4, Family::V6].map(|family| endpoint.of(family, number));
        assert!(connection.joined_at.iter().all(|at| own.contains(at)), "{connection:?}");
        assert!(connection.joined_at.contains(&endpoint.of(family, number)), "{connection:?}");
    }
}

/// How many subflows joined the connections of each backend.
fn joined(stand: &Stand, report: &Report) -> Vec<u64> {
    let of = |name: &str| -> u64 {
        let connections = report.connections.iter().filter(|connection| connection.backend == name);
        connections.map(|connection| connection.subflows as u64 - 1).sum()
    };
    stand.lab.backends.iter().map(|backend| of(&backend.name)).collect()
}

/// What Weft counted, and no join by token or hash among it.
fn counted(stand: &Stand) -> Counted {
    let counted = stand.weft.counted().unwrap();
    assert_eq!((counted.joins_by_token, counted.joins_astray()), (0, 0));
    assert_eq!(counted.counter("token_learned"), 0);
    counted
}

fn every_join_goes_to_its_own_backend(family: Family, forward: Forward, endpoint: Endpoint) {
    let name = format!("endpoint {endpoint:?} with {} over {family}", forward.name());
    let Some((stand, _machine)) = stand(&name, 3, forward, endpoint, &["endpoint"]) else {
        return;
    };
    let report = client(&stand, family);
    assert_joined_at_own(&report, family, endpoint);
    let joins = joined(&stand, &report);
    assert_eq!(stand.backends("MPJoinAckRx").unwrap(), joins);
    assert_eq!(stand.backends("MPJoinNoTokenFound").unwrap(), [0, 0, 0]);
    let at_port = stand.backends("MPJoinPortAckRx").unwrap();
    match endpoint {
        Endpoint::Port => assert_eq!(at_port, joins),
        Endpoint::Address => assert_eq!(at_port, [0, 0, 0]),
    }
    let counted = counted(&stand);
    assert_eq!(counted.counter("endpoint_join"), joins.iter().sum::<u64>());
    assert_eq!(
        counted.counter("flow_inserted"),
        CONNECTIONS as u64,
        "first subflows have entries, joins none"
    );
}

#[test]
fn every_join_goes_to_its_backends_port_with_l2dsr_over_ipv4() {
    every_join_goes_to_its_own_backend(Family::V4, Forward::L2dsr, Endpoint::Port);
}

#[test]
fn every_join_goes_to_its_backends_port_with_gue_over_ipv4() {
    every_join_goes_to_its_own_backend(Family::V4, Forward::Gue, Endpoint::Port);
}

#[test]
fn every_join_goes_to_its_backends_address_with_ipip_over_ipv4() {
    every_join_goes_to_its_own_backend(Family::V4, Forward::Ipip, Endpoint::Address);
}

#[test]
fn every_join_goes_to_its_backends_address_with_l2dsr_over_ipv6() {
    every_join_goes_to_its_own_backend(Family::V6, Forward::L2dsr, Endpoint::Address);
}

#[test]
fn a_port_over_ipv6_is_announced_only_without_tcp_timestamps() {
    let Some((stand, _machine)) =
        stand("endpoint port over IPv6", 3, Forward::Ipip, Endpoint::Port, &["endpoint"])
    else {
        return;
    };
    let commands = stand.weft.weftctl(&["backend", "commands", "b1"]).unwrap();
    assert!(commands.contains("sysctl -w net.ipv4.tcp_timestamps=0"), "the operator is told: {commands}");
    let short = client::Options { join_wait: 2, ..client::Options::new(Family::V6, CONNECTIONS) };
    let with = Client::start(&stand.lab, &short).unwrap().finish(LIMIT).unwrap();
    assert_eq!(with.broken(), Vec::<String>::new());
    assert!(with.connections.iter().flat_map(|connection| &connection.joined_at).all(SocketAddr::is_ipv4));
    for backend in &stand.lab.backends {
        backend.namespace.sysctl(&["net.ipv4.tcp_timestamps=0"]).unwrap();
    }
    let without = client(&stand, Family::V6);
    assert_eq!(without.broken(), Vec::<String>::new());
    assert_joined_at_own(&without, Family::V6, Endpoint::Port);
}

#[test]
fn strangers_at_an_endpoint_are_refused_before_a_server_sees_them() {
    let Some((stand, _machine)) =
        stand("strangers", 3, Forward::L2dsr, Endpoint::Port, &["endpoint", "learn"])
    else {
        return;
    };
    for family in [Family::V4, Family::V6] {
        assert!(endpoints::is_refused(&stand.lab, Endpoint::Port.of(family, 2)).unwrap());
    }
    // MPTCP at an endpoint: the kernel falls back to plain TCP after some tries, and is refused each time.
    let usual = client::Options::new(Family::V4, 1);
    let options = client::Options { service: Endpoint::Port.of(Family::V4, 2), join_wait: 0, ..usual };
    let report = Client::start(&stand.lab, &options).unwrap().finish(LIMIT).unwrap();
    assert!(report.broken()[0].contains("refused"), "{:?}", report.broken());
    assert_eq!(stand.backends("MPCapableEndpAttempt").unwrap(), [0, 0, 0]);
    assert_eq!(stand.backends("MPCapableSYNRX").unwrap(), [0, 0, 0]);
    let counted = counted(&stand);
    assert_eq!(counted.counter("endpoint_no_join"), 3);
    assert_eq!(counted.counter("flow_inserted"), 0);
}

#[test]
fn backends_come_and_go_and_every_endpoint_stays_its_backends() {
    let Some((stand, _machine)) =
        stand("endpoints that come and go", 4, Forward::L2dsr, Endpoint::Port, &["endpoint"])
    else {
        return;
    };
    let options =
        client::Options { until_eof: true, bytes: 65_536, ..client::Options::new(Family::V4, CONNECTIONS) };
    let mut old = Client::start(&stand.lab, &options).unwrap();
    assert_eq!(old.joined(LIMIT).unwrap(), CONNECTIONS);
    let before = old.now(LIMIT).unwrap();

    let (four, six) = Backend::addresses(4);
    let add = [
        "backend",
        "add",
        "web-servers",
        "b4",
        "--address",
        &four.to_string(),
        "--address",
        &six.to_string(),
        "--mac",
        &Backend::mac(4),
        "--endpoint-port",
        "20004",
    ];
    stand.weft.weftctl(&add).unwrap();
    endpoints::tell(&stand.weft, &stand.lab.backends[3]).unwrap();
    stand.weft.weftctl(&["backend", "remove", "web-servers", "b3"]).unwrap();

    let new = client(&stand, Family::V4);
    assert_joined_at_own(&new, Family::V4, Endpoint::Port);
    let of_new = owned(&stand.lab, &new);
    assert!(of_new[3] > 0 && of_new[2] == 0, "the pool changed: {of_new:?}");

    // The old connections move data over both subflows all the while, on the removed backend, too.
    let old = old.finish(LIMIT).unwrap();
    assert_joined_at_own(&old, Family::V4, Endpoint::Port);
    assert!(old.connections.iter().zip(&before.connections).all(|(now, then)| now.rounds > then.rounds));
    let of_old = owned(&stand.lab, &before);
    assert!(of_old[2] > 0, "some connections began on the backend that was removed");
    let expected: Vec<u64> = of_old.iter().zip(&of_new).map(|(old, new)| old + new).collect();
    assert_eq!(stand.backends("MPJoinAckRx").unwrap(), expected);
    assert_eq!(stand.backends("MPJoinNoTokenFound").unwrap(), [0, 0, 0, 0]);
    counted(&stand);
}

#[test]
fn a_client_that_ignores_flag_c_is_served_by_learned_tokens() {
    let Some((stand, _machine)) =
        stand("a client that ignores flag C", 3, Forward::L2dsr, Endpoint::Port, &["endpoint", "learn"])
    else {
        return;
    };
    stand.lab.ignore_announcements().unwrap();
    for family in [Family::V4, Family::V6] {
        let report = client(&stand, family);
        assert_eq!(report.broken(), Vec::<String>::new());
        assert_eq!(report.spread(), CONNECTIONS);
        assert!(report.connections.iter().all(|connection| connection.joined_at == [family.service()]));
    }
    assert_eq!(stand.backends("MPJoinNoTokenFound").unwrap(), [0, 0, 0]);
    assert_eq!(stand.backends("MPJoinPortSynRx").unwrap(), [0, 0, 0]);
    let counted = stand.weft.counted().unwrap();
    assert_eq!(counted.joins_by_token, 2 * CONNECTIONS as u64);
    assert_eq!(counted.counter("endpoint_ignored"), 2 * CONNECTIONS as u64);
    assert_eq!(counted.counter("endpoint_join"), 0);
}

#[test]
fn a_client_that_ignores_flag_c_is_turned_away_where_nothing_else_steers() {
    let Some((stand, _machine)) =
        stand("flag C without learn", 3, Forward::L2dsr, Endpoint::Port, &["endpoint"])
    else {
        return;
    };
    stand.lab.ignore_announcements().unwrap();
    let usual = client::Options::new(Family::V4, CONNECTIONS);
    let report =
        Client::start(&stand.lab, &client::Options { join_wait: 2, ..usual }).unwrap().finish(LIMIT).unwrap();
    assert_eq!((report.broken(), report.joined()), (vec![], 0));
    assert_eq!(
        stand.backends("MPJoinSynRx").unwrap(),
        [0, 0, 0],
        "no join reached a server of Maglev's choice"
    );
    assert!(stand.weft.counted().unwrap().drop("unknown_token") >= CONNECTIONS as u64);
}
