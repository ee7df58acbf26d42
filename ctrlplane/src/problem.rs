//! What is wrong, in sentences that say what to do: the part of the status an operator reads first.
//!
//! What is so now (no link, a full table) stays for as long as it is so. What happened (drops, evictions) is told by
//! how much a counter grew in the last minute, so that an old event is no problem for ever; the totals stay in the
//! counters.

use std::time::Duration;

use ipc::counter::Counter;
use ipc::counters::PortGauge;

use crate::control::Control;
use crate::sample::Sample;
use crate::session::LinkView;
use crate::table;
use crate::view::{DataplaneStatus, PortRow};

/// From this fill on, in percent, a table or the packet buffers are told to be nearly full.
const NEARLY_FULL: u64 = 90;
/// How long it is told that tables began empty.
const EMPTIED: Duration = Duration::from_secs(3600);

/// Every problem there is.
pub(crate) fn all(control: &Control, status: &DataplaneStatus, view: Option<&LinkView>) -> Vec<String> {
    let mut problems = of_control(control, status);
    let Some(view) = view else { return problems };
    if view.emptied.is_some_and(|ago| ago < EMPTIED) && control.keeps_tables() {
        problems.push(
            "weft-dataplane was started again and its tables began empty: connections that joined or moved may be \
             on other backends now; its log says why the tables were not kept"
                .to_owned(),
        );
    }
    let now = Sample::new(&view.counters, view.gauges.as_ref());
    of_dataplane(status, &now, view.before.as_ref(), &mut problems);
    problems
}

/// What the control plane knows by itself.
fn of_control(control: &Control, status: &DataplaneStatus) -> Vec<String> {
    let mut problems = Vec::new();
    if !status.attached {
        problems.push(status.message.clone());
    }
    problems.extend(status.refused.clone());
    problems.extend(
        control
            .reload_problem()
            .map(|problem| format!("the last reload changed nothing: {problem}; mend the file and reload")),
    );
    problems.extend(control.effective().exposure(control.path()));
    for backend in table::unresolved(control) {
        problems.push(format!(
            "backend {backend} has no MAC address and gets no packets: see that it or its gateway answers ARP or \
             neighbour discovery, or give its `mac`"
        ));
    }
    for pool in control.idle_pools() {
        problems.push(format!(
            "no backend of pool {pool} takes new connections, which are dropped: undrain one, or give one a weight"
        ));
    }
    problems
}

/// What the data plane tells and counts.
fn of_dataplane(status: &DataplaneStatus, now: &Sample, before: Option<&Sample>, problems: &mut Vec<String>) {
    let tables = &status.tables;
    nearly_full("flow table", tables.flows, tables.flow_capacity, "raise `flows`", problems);
    nearly_full("token table", tables.tokens, tables.token_capacity, "raise `tokens`", problems);
    let (used, there_are) = (status.mbufs_in_use, status.mbuf_capacity);
    nearly_full("memory for packet buffers", used, there_are, "raise `memory_mb`", problems);
    for (index, port) in status.ports.iter().enumerate() {
        if !port.link_up {
            problems.push(format!("port {} has no link: check its cable and its peer", port.device));
        }
        if let Some(before) = before {
            of_port(port, |gauge| now.port_grown(before, index, gauge), before.age(), problems);
        }
    }
    let Some(before) = before else { return };
    let ago = format!("in the last {} s", before.age().as_secs().max(1));
    for (counter, happened) in EVENTS {
        let count = now.grown(before, *counter);
        if count > 0 {
            problems.push(format!("{count} {}", happened.replace("{ago}", &ago)));
        }
    }
}

/// Counters whose growth is a problem, and how it is said after the number.
const EVENTS: &[(Counter, &str)] = &[
    (
        Counter::TxRefused,
        "packets dropped {ago} because a transmit queue was full: raise `tx_descriptors`, or take a faster port",
    ),
    (
        Counter::FlowTableFull,
        "flows found no place in the flow table {ago} and were balanced without an entry: raise `flows`, or look at \
         `weftctl drops` for a flood",
    ),
    (
        Counter::FlowEvictedKept,
        "joined or moved flows gave way to others {ago} and break: set `kept = \"never\"` in [dataplane.evict], or \
         raise `flows`",
    ),
    (
        Counter::FlowEvictedOwn,
        "established flows gave way to others {ago}: they hold as long as their pool does not change; raise `flows`",
    ),
    (
        Counter::TokenTableFull,
        "tokens found no place in the token table {ago}, and joins by them cannot be steered: raise `tokens`",
    ),
    (
        Counter::TokenEvicted,
        "tokens of new connections gave way to newer ones {ago}: raise `tokens`, or look for a flood of MP_CAPABLE",
    ),
    (
        Counter::ExceptionRefused,
        "packets for or from the kernel were dropped {ago} by the exception path: set its interface up (`ip link set dev \
         ... up`), or find out what floods it",
    ),
];

fn of_port(port: &PortRow, grown: impl Fn(PortGauge) -> u64, age: Duration, problems: &mut Vec<String>) {
    let ago = format!("in the last {} s", age.as_secs().max(1));
    let device = &port.device;
    let downs = grown(PortGauge::LinkDowns);
    if downs > 0 && port.link_up {
        problems
            .push(format!("port {device} lost its link {downs} time(s) {ago}: check its cable and its peer"));
    }
    let missed = grown(PortGauge::RxMissed);
    if missed > 0 {
        problems.push(format!(
            "port {device} dropped {missed} packets {ago} that no worker took in time: add a worker, or raise \
             `rx_descriptors`"
        ));
    }
    let starved = grown(PortGauge::RxNoMbuf);
    if starved > 0 {
        problems.push(format!(
            "port {device} lost {starved} packets {ago} because no packet buffer was free: raise `memory_mb`"
        ));
    }
}

fn nearly_full(what: &str, used: u64, capacity: u64, advice: &str, problems: &mut Vec<String>) {
    if capacity > 0 && used.saturating_mul(100) / capacity >= NEARLY_FULL {
        let percent = used.saturating_mul(100) / capacity;
        problems
            .push(format!("the {what} is {percent} % full ({used} of {capacity}): {advice} in [dataplane]"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::Tables;
    use ipc::counters::{GaugeWriter, WorkerCounters};
    use ipc::id::PortId;

    fn status() -> DataplaneStatus {
        DataplaneStatus {
            attached: true,
            tables: Tables { flows: 10, flow_capacity: 100, token_capacity: 100, ..Tables::default() },
            mbuf_capacity: 1000,
            ports: vec![PortRow { device: "p0".to_owned(), link_up: true, ..PortRow::default() }],
            ..DataplaneStatus::default()
        }
    }

    fn problems(status: &DataplaneStatus, now: &Sample, before: Option<&Sample>) -> Vec<String> {
        let mut problems = Vec::new();
        of_dataplane(status, now, before, &mut problems);
        problems
    }

    #[test]
    fn every_counter_of_the_list_is_told_while_it_grows_and_no_longer() {
        for (counter, _) in EVENTS {
            let writer = WorkerCounters::heap();
            let reader = writer.reader();
            let empty = Sample::new(&reader, None);
            writer.add(*counter, 3);
            let grown = Sample::new(&reader, None);
            let said = problems(&status(), &grown, Some(&empty));
            assert_eq!(said.len(), 1, "{counter:?}: {said:?}");
            assert!(said[0].starts_with("3 ") && said[0].contains("in the last 1 s"), "{said:?}");
            assert!(!said[0].contains('{') && said[0].contains(": "), "{said:?}");
            let again = Sample::new(&reader, None);
            assert_eq!(problems(&status(), &again, Some(&grown)), [""; 0], "old events are none");
            assert_eq!(problems(&status(), &again, None), [""; 0], "without a sample nothing is new");
        }
    }

    #[test]
    fn what_is_nearly_full_is_told_from_ninety_percent_on() {
        let reader = WorkerCounters::heap().reader();
        let now = Sample::new(&reader, None);
        let mut status = status();
        status.tables.flows = 89;
        assert_eq!(problems(&status, &now, None), [""; 0]);
        (status.tables.flows, status.tables.tokens, status.mbufs_in_use) = (90, 95, 1000);
        assert_eq!(
            problems(&status, &now, None),
            [
                "the flow table is 90 % full (90 of 100): raise `flows` in [dataplane]",
                "the token table is 95 % full (95 of 100): raise `tokens` in [dataplane]",
                "the memory for packet buffers is 100 % full (1000 of 1000): raise `memory_mb` in [dataplane]",
            ]
        );
    }

    #[test]
    fn a_port_is_told_of_while_it_is_down_and_a_minute_after_what_it_lost() {
        let reader = WorkerCounters::heap().reader();
        let gauges = GaugeWriter::heap();
        gauges.set_port_name(PortId(0), "p0");
        let sample = || Sample::new(&reader, Some(&gauges.reader()));
        let before = sample();
        let mut status = status();
        status.ports[0].link_up = false;
        assert_eq!(problems(&status, &before, None), ["port p0 has no link: check its cable and its peer"]);
        status.ports[0].link_up = true;
        for (gauge, said) in [
            (PortGauge::LinkDowns, "lost its link 2 time(s)"),
            (PortGauge::RxMissed, "that no worker took in time"),
            (PortGauge::RxNoMbuf, "because no packet buffer was free"),
        ] {
            let before = sample();
            gauges.set_port(PortId(0), gauge, 2);
            let told = problems(&status, &sample(), Some(&before));
            assert!(told.len() == 1 && told[0].contains(said), "{told:?}");
        }
        assert_eq!(problems(&status, &sample(), Some(&sample())), [""; 0]);
    }
}
