//! Several VIPs on one pool: a connection that began on one of them is joined on another port and over the other
//! family. Nothing is crafted: the servers' kernels signal the further addresses (ADD_ADDR with a port, RFC 8684
//! section 3.4.1) and the client's kernel opens the subflows. See tests/e2e.rs for what the test needs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use weft_lab::balancer::{Forward, Options};
use weft_lab::document::Vip;
use weft_lab::stand::{self, LIMIT, Machine, Stand};
use weft_lab::topology::{Family, MIXED_PORT};
use weft_lab::traffic::client::{self, Client};

const CONNECTIONS: usize = 30;
const TLS: u16 = 443;

/// Established subflows of the client's kernel towards an address.
fn subflows(stand: &Stand, to: SocketAddr) -> usize {
    let words = ["-H", "-O", "-t", "-n", "-i", "state", "established", "dst", &to.to_string()];
    let lines = stand.lab.client.run("ss", &words).unwrap();
    lines.lines().filter(|line| line.contains("tcp-ulp-mptcp")).count()
}

#[test]
fn a_connection_over_ipv4_is_joined_on_port_443_and_over_ipv6() {
    let test = "several VIPs on one pool";
    let Some(machine) = Machine::take(test, env!("CARGO_BIN_EXE_weft-lab"), env!("CARGO_TARGET_TMPDIR"))
    else {
        return;
    };
    let options = Options::new(Forward::L2dsr, true);
    let (stand, _) = Stand::with(&machine, 3, &options, |document| {
        document.vips.push(Vip::new("tls", "tcp", TLS, Forward::L2dsr));
        document.vips.push(Vip::new("mixed", "tcp", MIXED_PORT, Forward::L2dsr));
    })
    .unwrap();
    stand.lab.remove_second_path().unwrap();
    // An IPv6 address with a port takes 32 of the 40 bytes of a header's options: timestamps would leave 28.
    stand.lab.client.sysctl(&["net.ipv4.tcp_timestamps=0"]).unwrap();
    stand.lab.client.ip("mptcp limits set subflow 8 add_addr_accepted 8\n").unwrap();
    let further = [Family::V4, Family::V6].map(|family| SocketAddr::new(family.vip(), TLS));
    for backend in &stand.lab.backends {
        for (at, id) in further.into_iter().zip([11, 12]) {
            let endpoint = format!("mptcp endpoint add {} id {id} port {TLS} signal\n", at.ip());
            backend.namespace.ip(&endpoint).unwrap();
        }
    }
    // The kernel mixes families only on sockets of IPv6; the packets are IPv4's.
    let IpAddr::V4(vip) = Family::V4.vip() else { unreachable!("the VIP of IPv4") };
    let service = SocketAddr::new(vip.to_ipv6_mapped().into(), MIXED_PORT);
    let usual = client::Options::new(Family::V4, CONNECTIONS);
    let asked = client::Options { service, join_wait: 0, until_eof: true, bytes: 65_536, ..usual };
    let mut client = Client::start(&stand.lab, &asked).unwrap();
    client.joined(LIMIT).unwrap();
    let count = CONNECTIONS as u64;
    for _ in 0..300 {
        if stand.backends("MPJoinAckRx").unwrap().iter().sum::<u64>() >= 2 * count {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    let (before, now) = (client.now(LIMIT).unwrap(), client.now(LIMIT).unwrap());
    assert_eq!(now.broken(), Vec::<String>::new());
    assert_eq!(stand::alive(&before, &now), CONNECTIONS);
    assert_eq!(further.map(|to| subflows(&stand, to)), [CONNECTIONS; 2]);
    assert_eq!(stand.backends("MPJoinNoTokenFound").unwrap(), [0, 0, 0]);
    let twice: Vec<u64> = stand::owned(&stand.lab, &now).iter().map(|n| 2 * n).collect();
    assert_eq!(stand.backends("MPJoinAckRx").unwrap(), twice);
    assert!(stand.weft.counted().unwrap().joins_by_token >= 2 * count);
    assert_eq!(client.finish(LIMIT).unwrap().broken(), Vec::<String>::new());
}
