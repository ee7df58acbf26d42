//! Two appliances that do not talk, behind a router that sends each flow to one of them: what Maglev alone decides
//! they decide alike, whatever they went through and in whatever order their files are, so a route that moves breaks
//! no plain connection. Tokens are not shared, and what that costs MPTCP is counted here.
//! See tests/e2e.rs for what the tests need.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use weft_lab::balancer::{Balancer, Forward, Options};
use weft_lab::document::{Document, Member, Pool};
use weft_lab::ecmp::Ecmp;
use weft_lab::stand::{self, LIMIT, Machine};
use weft_lab::topology::{Appliance, Family, Lab};
use weft_lab::traffic::client::{self, Client, Report};
use weft_lab::traffic::probe::{self, Probe};

const CONNECTIONS: usize = 60;
const FLOWS: u16 = 200;

fn machine(test: &str) -> Option<Machine> {
    Machine::take(test, env!("CARGO_BIN_EXE_weft-lab"), env!("CARGO_TARGET_TMPDIR"))
}

/// Two appliances; dropped before the lab.
struct Site {
    first: Balancer,
    second: Balancer,
    ecmp: Ecmp,
    lab: Lab,
}

impl Site {
    /// The second appliance reads its file in another order and has seen backends come, go and change weight.
    fn new(machine: &Machine) -> Self {
        let lab = machine.lab(4, false).unwrap();
        let ecmp = Ecmp::add(&lab).unwrap();
        let options = Options::new(Forward::L2dsr, true);
        let document = Document::new(&options, &lab.file("first")).with_probe();
        let first = Balancer::start_with(&lab, &lab.balancer, &machine.binaries, &document).unwrap();
        let mut other =
            Document { appliance: Appliance::SECOND, runtime_dir: lab.file("second"), ..document };
        other.pools.insert(0, Pool { name: "another".to_owned(), backends: vec![Member::new(2)] });
        other.vips.reverse();
        other.members().unwrap().reverse();
        other.members().unwrap().insert(1, Member::new(4));
        let second = Balancer::start_with(&lab, &ecmp.peer, &machine.binaries, &other).unwrap();
        for change in [
            ["backend", "weight", "web-servers", "b1", "7"].as_slice(),
            &["backend", "remove", "web-servers", "b4"],
            &["backend", "weight", "web-servers", "b1", "100"],
        ] {
            second.weftctl(change).unwrap();
        }
        Self { first, second, ecmp, lab }
    }

    /// The backend of every flow of a probe through these appliances; each flow has one.
    fn placement(&self, through: &[Appliance]) -> Vec<Vec<String>> {
        self.ecmp.route(through).unwrap();
        let options = probe::Options { flows: FLOWS, ..probe::Options::new(Family::V4) };
        let report = Probe::start(&self.lab, &options).unwrap().report().unwrap();
        assert_eq!(report.moved(), Vec::<String>::new());
        report.backends
    }

    /// A client that moves data until it is told to finish.
    fn endless(&self, plain: bool) -> Client {
        let usual = client::Options::new(Family::V4, CONNECTIONS);
        let options = client::Options { plain, until_eof: true, bytes: 65_536, join_wait: 4, ..usual };
        Client::start(&self.lab, &options).unwrap()
    }

    /// Packets that each appliance has forwarded.
    fn forwarded(&self) -> [u64; 2] {
        [&self.first, &self.second].map(|weft| weft.counted().unwrap().counter("tx_packets"))
    }
}

fn alive(client: &mut Client) -> Report {
    let (before, after) = (client.now(LIMIT).unwrap(), client.now(LIMIT).unwrap());
    assert_eq!(after.broken(), Vec::<String>::new());
    assert_eq!(stand::alive(&before, &after), CONNECTIONS);
    after
}

const BOTH: [Appliance; 2] = [Appliance::FIRST, Appliance::SECOND];

#[test]
fn two_appliances_with_different_histories_agree_and_a_moved_route_breaks_no_plain_connection() {
    let Some(machine) = machine("two appliances, plain TCP") else {
        return;
    };
    let site = Site::new(&machine);
    let placed = site.placement(&[Appliance::FIRST]);
    assert_eq!(
        placed,
        site.placement(&[Appliance::SECOND]),
        "every flow, whichever appliance it came through"
    );
    for backend in ["b1", "b2", "b3"] {
        assert!(placed.iter().flatten().any(|name| name == backend), "{backend} got nothing");
    }

    site.ecmp.route(&BOTH).unwrap();
    let mut probe = Probe::start(&site.lab, &probe::Options::new(Family::V4)).unwrap();
    let mut before = site.forwarded();
    let mut client = site.endless(true);
    client.joined(LIMIT).unwrap();
    let quiet = stand::kernels(&site.lab).unwrap();
    for (route, carries) in [
        (BOTH.as_slice(), [true, true]),
        (&[Appliance::SECOND], [false, true]),
        (&[Appliance::FIRST], [true, false]),
        (&BOTH, [true, true]),
    ] {
        site.ecmp.route(route).unwrap();
        alive(&mut client);
        let after = site.forwarded();
        for (number, carries) in carries.into_iter().enumerate() {
            assert!(!carries || after[number] > before[number], "appliance {number} carried nothing");
        }
        before = after;
    }
    assert_eq!(stand::noise(&site.lab, &quiet).unwrap(), Vec::<String>::new());
    assert!(site.second.counted().unwrap().counter("adopted") > 0, "flows that it had not seen begin");
    assert_eq!(client.finish(LIMIT).unwrap().broken(), Vec::<String>::new());
    assert_eq!(probe.report().unwrap().moved(), Vec::<String>::new());
}

#[test]
fn tokens_are_not_shared_so_joins_through_the_other_appliance_wait_and_connections_go_on_without() {
    let Some(machine) = machine("two appliances, MPTCP") else {
        return;
    };
    let site = Site::new(&machine);
    site.ecmp.route(&BOTH).unwrap();
    let mut client = site.endless(false);
    let joined = client.joined(LIMIT).unwrap();
    let astray: u64 =
        [&site.first, &site.second].map(|w| w.counted().unwrap().drop("unknown_token")).iter().sum();
    let refused = |kernels: &[weft_lab::counters::Kernel]| -> u64 {
        kernels.iter().map(|k| k.mptcp("MPJoinNoTokenFound")).sum()
    };
    assert_eq!(
        refused(&stand::kernels(&site.lab).unwrap()),
        0,
        "a join that is not known is dropped, not misdirected"
    );
    assert!(joined < CONNECTIONS && astray > 0, "some joins come through the appliance that knows no token");
    alive(&mut client);
    site.ecmp.route(&[Appliance::SECOND]).unwrap();
    let after = alive(&mut client);
    println!(
        "two appliances: {joined} of {CONNECTIONS} connections joined, {astray} join SYNs dropped as unknown_token; \
         after the first appliance was withdrawn {} still have a second subflow, {CONNECTIONS} go on",
        after.joined()
    );
    assert_eq!(client.finish(LIMIT).unwrap().broken(), Vec::<String>::new());
}
