//! From what the control plane intends and the data plane counts to the rows of [`crate::view`].

use std::collections::HashMap;

use config::Config;
use ipc::counter::Counter;
use ipc::counters::{CounterReader, Gauge, GaugeReader, PortGauge, Traffic};
use ipc::id::{BackendId, VipId};
use ipc::message::{BackendState, Event, Name};
use ipc::reason::Reason;

use crate::control::Control;
use crate::session::LinkView;
use crate::view::*;

/// Counters about tokens, keys and joins, in the order they are shown.
const TOKEN_COUNTERS: [Counter; 14] = [
    Counter::CapableSyn,
    Counter::TokenLearned,
    Counter::KeyRepeated,
    Counter::KeyConflict,
    Counter::KeyRefused,
    Counter::TokenConflict,
    Counter::TokenAmbiguous,
    Counter::TokenTableFull,
    Counter::TokenSeen,
    Counter::TokenClosing,
    Counter::TokenExpired,
    Counter::JoinSyn,
    Counter::JoinEstablished,
    Counter::JoinHashed,
];

/// The part of the status that the data plane's segment tells.
pub(crate) fn fill_status(view: &LinkView, status: &mut DataplaneStatus) {
    status.counters = Counter::ALL
        .iter()
        .map(|counter| counted(&view.counters, *counter))
        .filter(|row| row.count > 0)
        .collect();
    let Some(gauges) = &view.gauges else { return };
    status.workers = gauges.get(Gauge::Workers);
    status.tables = Tables {
        flows: gauges.get(Gauge::Flows),
        flow_capacity: gauges.get(Gauge::FlowCapacity),
        tokens: gauges.get(Gauge::Tokens),
        token_capacity: gauges.get(Gauge::TokenCapacity),
        bytes: gauges.get(Gauge::TableBytes),
        pages: gauges.table_pages().map(|pages| pages.name().to_owned()),
    };
    status.ports = gauges.ports().map(|port| port_row(gauges, port)).collect();
}

fn port_row(gauges: &GaugeReader, port: ipc::id::PortId) -> PortRow {
    let value = |gauge| gauges.port(port, gauge);
    let [_, _, mac @ ..] = value(PortGauge::Mac).to_be_bytes();
    PortRow {
        device: gauges.port_name(port),
        mac: config::format_mac(mac),
        mtu: value(PortGauge::Mtu),
        link_up: value(PortGauge::LinkUp) != 0,
        rx_missed: value(PortGauge::RxMissed),
        rx_errors: value(PortGauge::RxErrors),
        rx_no_mbuf: value(PortGauge::RxNoMbuf),
        tx_errors: value(PortGauge::TxErrors),
    }
}

fn counted(counters: &CounterReader, counter: Counter) -> CounterRow {
    CounterRow {
        name: counter.name().to_owned(),
        meaning: counter.meaning().to_owned(),
        count: counters.counter(counter),
    }
}

/// Backends without a MAC, `pool/name`.
pub(crate) fn unresolved(control: &Control) -> Vec<String> {
    let config = control.effective();
    let backends =
        config.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
    backends
        .filter(|(_, backend)| backend.mac.or_else(|| control.neighbour(backend)).is_none())
        .map(|(pool, backend)| format!("{}/{}", pool.name, backend.name))
        .collect()
}

/// Every VIP that should be.
pub(crate) fn vips(config: &Config, view: Option<&LinkView>) -> Vec<VipRow> {
    let ids: HashMap<Name, VipId> = records(view)
        .iter()
        .filter_map(|event| match event {
            Event::Vip { id, name, .. } => Some((*name, *id)),
            _ => None,
        })
        .collect();
    let row = |vip: &config::Vip| {
        let traffic = view.and_then(|view| Some(view.counters.vip(*ids.get(&vip.name)?)));
        VipRow {
            name: vip.name.to_string(),
            address: vip.addresses.iter().map(ToString::to_string).collect(),
            port: vip.ports.numbers().to_vec(),
            protocol: vip.protocol.to_string(),
            pool: vip.pool.to_string(),
            forward: vip.forward.to_string(),
            steering: if vip.learn { vec!["learn".to_owned()] } else { Vec::new() },
            unknown_token: vip.unknown_token.to_string(),
            packets: traffic.map(|traffic| traffic.packets),
            bytes: traffic.map(|traffic| traffic.bytes),
        }
    };
    config.vips.iter().map(row).collect()
}

/// What the data plane says about one backend.
struct Known {
    id: BackendId,
    state: BackendState,
    flows: u64,
    tokens: u64,
}

/// Every backend that should be.
pub(crate) fn backends(control: &Control, view: Option<&LinkView>) -> Vec<BackendRow> {
    let known: HashMap<(Name, Name), Known> = records(view)
        .iter()
        .filter_map(|event| match *event {
            Event::Backend { id, pool, name, state, flows, tokens, .. } => {
                Some(((pool, name), Known { id, state, flows, tokens }))
            }
            _ => None,
        })
        .collect();
    let mut rows = Vec::new();
    for pool in &control.effective().pools {
        for backend in &pool.backends {
            let known = known.get(&(pool.name, backend.name));
            let traffic: Option<Traffic> = view.and_then(|view| Some(view.counters.backend(known?.id)));
            let resolved = if backend.mac.is_none() { control.neighbour(backend) } else { None };
            rows.push(BackendRow {
                pool: pool.name.to_string(),
                name: backend.name.to_string(),
                address: backend.addresses().map(|address| address.to_string()).collect(),
                mac: backend.mac.or(resolved).map(config::format_mac),
                mac_resolved: resolved.is_some(),
                weight: backend.weight,
                state: known.map(|known| known.state.to_string()),
                added: control.is_added(pool.name, backend.name),
                flows: known.map(|known| known.flows),
                tokens: known.map(|known| known.tokens),
                packets: traffic.map(|traffic| traffic.packets),
                bytes: traffic.map(|traffic| traffic.bytes),
            });
        }
    }
    rows
}

fn records(view: Option<&LinkView>) -> &[Event] {
    view.map_or(&[], |view| &view.dump.records)
}

/// What is known about tokens as a whole.
pub(crate) fn tokens(view: &LinkView) -> TokenSummary {
    let gauge = |gauge| view.gauges.as_ref().map_or(0, |gauges| gauges.get(gauge));
    TokenSummary {
        tokens: gauge(Gauge::Tokens),
        token_capacity: gauge(Gauge::TokenCapacity),
        joins_steered: view.counters.reason(Reason::Token),
        counters: TOKEN_COUNTERS.iter().map(|counter| counted(&view.counters, *counter)).collect(),
    }
}

/// Every reason to drop, those that happened first, most frequent first.
pub(crate) fn drops(counters: &CounterReader) -> Vec<DropRow> {
    let mut rows: Vec<DropRow> = Reason::ALL
        .iter()
        .filter(|reason| reason.is_drop())
        .map(|reason| DropRow {
            reason: reason.name().to_owned(),
            meaning: reason.meaning().to_owned(),
            packets: counters.reason(*reason),
        })
        .collect();
    // A stable sort: reasons that never happened stay in the order of the documents.
    rows.sort_by_key(|row| std::cmp::Reverse(row.packets));
    rows
}
