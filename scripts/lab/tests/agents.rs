//! Two appliances behind a router that sends each flow to one of them, with agents on the backends and without: whether a
//! join finds its backend through the appliance that did not see its connection's handshake. See tests/e2e.rs for what the
//! tests need; the agents run with one capability.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::time::Duration;

use weft_lab::agents_demo::{BOTH, Site, doctor};
use weft_lab::balancer::{Balancer, Forward, Role};
use weft_lab::interrupt;
use weft_lab::process;
use weft_lab::stand::{self, LIMIT, Machine};
use weft_lab::topology::Family;
use weft_lab::traffic::client::{self, Client};

const CONNECTIONS: usize = 40;

fn machine(test: &str) -> Option<Machine> {
    Machine::take(test, env!("CARGO_BIN_EXE_weft-lab"), env!("CARGO_TARGET_TMPDIR"))
}

fn site(machine: &Machine, with_agents: bool) -> Site {
    let helper = env!("CARGO_BIN_EXE_weft-lab").into();
    Site::new(helper, &machine.binaries, Forward::L2dsr, with_agents).unwrap()
}

fn client(site: &Site) -> Client {
    site.client(Family::V4, CONNECTIONS).unwrap()
}

fn counted(weft: &Balancer, counter: &str) -> u64 {
    Site::counted(weft, counter).unwrap()
}

fn alive(client: &mut Client) -> client::Report {
    let (before, after) = (client.now(LIMIT).unwrap(), client.now(LIMIT).unwrap());
    assert_eq!(after.broken(), Vec::<String>::new());
    assert_eq!(stand::alive(&before, &after), CONNECTIONS);
    after
}

#[test]
fn with_agents_joins_and_moved_subflows_reach_their_server_through_either_appliance() {
    let Some(machine) = machine("two appliances with agents") else {
        return;
    };
    let site = site(&machine, true);
    let quiet = stand::kernels(&site.lab).unwrap();
    let mut client = client(&site);
    let joined = client.joined(LIMIT).unwrap();
    let steered: Vec<u64> = site.weft.iter().map(|weft| weft.counted().unwrap().joins_by_token).collect();
    let proven: Vec<u64> = site.weft.iter().map(|weft| counted(weft, "agent_proven")).collect();
    println!(
        "two appliances with agents: {joined} of {CONNECTIONS} connections joined; packets steered by token {steered:?}, \
         tokens proven {proven:?}"
    );
    assert_eq!(joined, CONNECTIONS);
    assert!(steered.iter().all(|count| *count > 0), "joins came through both");
    assert_eq!(proven, [CONNECTIONS as u64; 2], "each appliance knows every connection");

    // Every subflow on one appliance, then on the other: half of them it never saw.
    for route in [&BOTH[1..], &BOTH[..1]] {
        site.ecmp.route(route).unwrap();
        let after = alive(&mut client);
        assert_eq!(after.joined(), CONNECTIONS, "no subflow was lost by the move");
    }
    assert_eq!(stand::noise(&site.lab, &quiet).unwrap(), Vec::<String>::new());
    for weft in &site.weft {
        let said = doctor(weft);
        assert!(said.contains("ok  agents: all 3 are connected"), "{said}");
    }

    assert_eq!(client.finish(LIMIT).unwrap().broken(), Vec::<String>::new());
    for weft in &site.weft {
        let closed = interrupt::poll(LIMIT, Duration::from_millis(100), || {
            Ok((counted(weft, "agent_closed") == CONNECTIONS as u64).then_some(()))
        });
        assert!(closed.unwrap().is_some(), "every token went when its connection ended");
    }
}

#[test]
fn without_agents_joins_through_the_other_appliance_fail_and_doctor_says_so() {
    let Some(machine) = machine("two appliances without agents") else {
        return;
    };
    let site = site(&machine, false);
    assert!(site.agents.is_empty());
    let mut client = client(&site);
    let joined = client.joined(LIMIT).unwrap();
    let astray: Vec<u64> =
        site.weft.iter().map(|weft| weft.counted().unwrap().drop("unknown_token")).collect();
    println!(
        "two appliances without agents: {joined} of {CONNECTIONS} connections joined, join SYNs dropped as \
         unknown_token {astray:?}"
    );
    assert!(joined < CONNECTIONS, "half of the joins come through the appliance that knows no token");
    for (weft, _) in site.weft.iter().zip(&astray).filter(|(_, astray)| **astray > 0) {
        let said = doctor(weft);
        assert!(said.contains("!!  joins:") && said.contains("run weft-agent on every backend"), "{said}");
    }
    assert_eq!(client.finish(LIMIT).unwrap().broken(), Vec::<String>::new());
}

#[test]
fn a_data_plane_that_lost_its_tables_is_told_all_again() {
    let Some(machine) = machine("a data plane that lost its tables, with agents") else {
        return;
    };
    let mut site = site(&machine, true);
    site.ecmp.route(&BOTH[..1]).unwrap();
    let mut client = client(&site);
    assert_eq!(client.joined(LIMIT).unwrap(), CONNECTIONS);
    let quiet = stand::kernels(&site.lab).unwrap();
    // The second appliance has seen none of it. It dies, loses what it was told, and comes back, and the route moves to it.
    site.weft[1].kill(Role::Dataplane);
    let config = site.weft[1].config.display().to_string();
    let forgotten =
        process::run(Command::new(&machine.binaries.dataplane).args(["forget", "--config", &config]));
    assert!(forgotten.unwrap().contains("removed"), "it left tables");
    site.weft[1].start_again(Role::Dataplane).unwrap();
    site.weft[1].wait_until_ready(LIMIT).unwrap();
    let told = interrupt::poll(LIMIT, Duration::from_millis(100), || {
        Ok((counted(&site.weft[1], "agent_installed") >= CONNECTIONS as u64).then_some(()))
    });
    let counters = || site.weft[1].ask(&["agents"]).unwrap();
    assert!(told.unwrap().is_some(), "not every joined subflow was told: {}", counters());
    site.ecmp.route(&BOTH[1..]).unwrap();
    let after = alive(&mut client);
    assert_eq!(after.joined(), CONNECTIONS);
    assert_eq!(stand::noise(&site.lab, &quiet).unwrap(), Vec::<String>::new());
    assert_eq!(client.finish(LIMIT).unwrap().broken(), Vec::<String>::new());
}
