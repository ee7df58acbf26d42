//! From what the control plane intends and the data plane counts to the rows of [`crate::view`].

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use config::Config;
use ipc::counter::Counter;
use ipc::counters::{CounterReader, Gauge, GaugeReader, LinkCounter, PortGauge, Traffic};
use ipc::id::{BackendId, VipId};
use ipc::message::{BackendState, Event, Handles, Name, Presence};
use ipc::reason::Reason;

use crate::agents::{self, Agents};
use crate::control::Control;
use crate::session::LinkView;
use crate::view::*;

/// Counters about tokens, keys and joins, in the order they are shown.
const TOKEN_COUNTERS: &[Counter] = &[
    Counter::CapableSyn,
    Counter::TokenLearned,
    Counter::KeyRepeated,
    Counter::KeyConflict,
    Counter::KeyRefused,
    Counter::TokenConflict,
    Counter::TokenAmbiguous,
    Counter::TokenTableFull,
    Counter::TokenEvicted,
    Counter::TokenSeen,
    Counter::TokenClosing,
    Counter::TokenExpired,
    Counter::JoinSyn,
    Counter::JoinEstablished,
    Counter::JoinHashed,
    Counter::EndpointJoin,
    Counter::EndpointNoJoin,
    Counter::EndpointTokenElsewhere,
    Counter::EndpointIgnored,
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
        kept: gauges.get(Gauge::TablesKept) != 0,
    };
    status.mbuf_capacity = gauges.get(Gauge::MbufCapacity);
    status.mbufs_in_use = gauges.get(Gauge::MbufsInUse);
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
        link_downs: value(PortGauge::LinkDowns),
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
    let hops = control.next_hops();
    let mut names = Vec::new();
    for pool in &control.effective().pools {
        for backend in &pool.backends {
            let hop = hops.get(&(pool.name, backend.name));
            if backend.mac.or_else(|| hop.and_then(|hop| hop.mac)).is_none() {
                names.push(format!("{}/{}", pool.name, backend.name));
            }
        }
    }
    names
}

/// The pool that had a backend of this name which is removed, if there is one and no other.
pub(crate) fn pool_of_removed(view: &LinkView, named: Option<&str>, name: Name) -> Option<Name> {
    let mut pools = view.dump.records.iter().filter_map(|event| match event {
        Event::Backend { pool, name: other, presence: Presence::Removed, .. } if *other == name => {
            named.is_none_or(|named| named == pool.as_str()).then_some(*pool)
        }
        _ => None,
    });
    pools.next().filter(|_| pools.next().is_none())
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
            steering: vip.steering.schemes.iter().map(|scheme| scheme.to_string()).collect(),
            token_map: vip.steering.token_map.to_string(),
            cipher_keys: cipher_keys(vip),
            unknown_token: vip.unknown_token.to_string(),
            packets: traffic.map(|traffic| traffic.packets),
            bytes: traffic.map(|traffic| traffic.bytes),
        }
    };
    config.vips.iter().map(row).collect()
}

/// The parities of tokens that a VIP has a key for.
fn cipher_keys(vip: &config::Vip) -> Vec<String> {
    let parities = ["even", "odd"].into_iter().zip(vip.steering.cipher_keys);
    parities.filter_map(|(parity, key)| key.map(|_| parity.to_owned())).collect()
}

/// What the data plane says about one backend.
struct Known {
    id: BackendId,
    state: BackendState,
    flows: u64,
    tokens: u64,
}

/// Every backend that should be, then those that are still about.
pub(crate) fn backends(control: &Control, view: Option<&LinkView>) -> Vec<BackendRow> {
    let known: HashMap<(Name, Name), Known> = records(view)
        .iter()
        .filter_map(|event| match *event {
            Event::Backend { id, pool, name, state, flows, tokens, presence: Presence::Present, .. } => {
                Some(((pool, name), Known { id, state, flows, tokens }))
            }
            _ => None,
        })
        .collect();
    let hops = control.next_hops();
    let mut rows = Vec::new();
    for pool in &control.effective().pools {
        for backend in &pool.backends {
            let known = known.get(&(pool.name, backend.name));
            let hop = hops.get(&(pool.name, backend.name));
            let traffic: Option<Traffic> = view.and_then(|view| Some(view.counters.backend(known?.id)));
            let resolved = hop.and_then(|hop| hop.mac);
            let gateway = hop.and_then(|hop| hop.way).filter(|way| way.beyond.is_some());
            rows.push(BackendRow {
                pool: pool.name.to_string(),
                name: backend.name.to_string(),
                address: backend.addresses().map(|address| address.to_string()).collect(),
                mac: backend.mac.or(resolved).map(config::format_mac),
                mac_resolved: resolved.is_some(),
                via: gateway.map(|way| way.address.to_string()),
                number: backend.handles.number,
                endpoint_port: backend.handles.endpoint_port,
                endpoint_address: endpoint_addresses(&backend.handles),
                weight: backend.weight,
                state: known.map(|known| known.state.to_string()),
                deadline_seconds: None,
                added: control.is_added(pool.name, backend.name),
                flows: known.map(|known| known.flows),
                tokens: known.map(|known| known.tokens),
                packets: traffic.map(|traffic| traffic.packets),
                bytes: traffic.map(|traffic| traffic.bytes),
            });
        }
    }
    rows.extend(view.into_iter().flat_map(removed));
    rows
}

/// The removed backends whose ids are still taken.
fn removed(view: &LinkView) -> impl Iterator<Item = BackendRow> {
    view.dump.records.iter().filter_map(|event| {
        let Event::Backend {
            id,
            pool,
            name,
            address4,
            address6,
            mac,
            weight,
            flows,
            tokens,
            handles,
            presence,
            deadline,
            ..
        } = *event
        else {
            return None;
        };
        let addresses = [address4.map(IpAddr::V4), address6.map(IpAddr::V6)];
        let traffic = view.counters.backend(id);
        (presence != Presence::Present).then(|| BackendRow {
            pool: pool.to_string(),
            name: name.to_string(),
            address: addresses.iter().flatten().map(ToString::to_string).collect(),
            mac: mac.map(config::format_mac),
            mac_resolved: false,
            via: None,
            number: handles.number,
            endpoint_port: handles.endpoint_port,
            endpoint_address: endpoint_addresses(&handles),
            weight,
            state: Some(presence.to_string()),
            deadline_seconds: deadline,
            added: false,
            flows: Some(flows),
            tokens: Some(tokens),
            packets: Some(traffic.packets),
            bytes: Some(traffic.bytes),
        })
    })
}

/// A backend's own addresses towards clients, IPv4 first.
fn endpoint_addresses(handles: &Handles) -> Vec<String> {
    let addresses = [handles.endpoint4.map(IpAddr::V4), handles.endpoint6.map(IpAddr::V6)];
    addresses.iter().flatten().map(ToString::to_string).collect()
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

/// Every backend that has an agent, or should have one. Who has none and should have none is nobody's business any more.
pub(crate) fn agents(control: &Control, agents: Option<&Agents>, view: Option<&LinkView>) -> AgentSummary {
    let mut rows = agents.map(Agents::rows).unwrap_or_default();
    let expected: BTreeSet<String> =
        agents::expected(&control.effective()).iter().map(ToString::to_string).collect();
    rows.retain(|row| row.connected || expected.contains(&row.backend));
    for backend in expected {
        if !rows.iter().any(|row| row.backend == backend) {
            rows.push(AgentRow { backend, ..AgentRow::default() });
        }
    }
    rows.sort_by(|one, other| one.backend.cmp(&other.backend));
    let counted = |view: &LinkView| -> Vec<CounterRow> {
        let Some(gauges) = &view.gauges else { return Vec::new() };
        let row = |counter: &LinkCounter| CounterRow {
            name: counter.name().to_owned(),
            meaning: counter.meaning().to_owned(),
            count: gauges.link(*counter),
        };
        AGENT_COUNTERS.iter().map(row).collect()
    };
    AgentSummary {
        listen: agents.map(|agents| agents.address().to_string()),
        agents: rows,
        counters: view.map(counted).unwrap_or_default(),
    }
}

/// What the data plane counts about agents' reports.
const AGENT_COUNTERS: [LinkCounter; 9] = [
    LinkCounter::AgentProven,
    LinkCounter::AgentRefused,
    LinkCounter::AgentClosed,
    LinkCounter::AgentInstalled,
    LinkCounter::AgentFlowRefused,
    LinkCounter::AgentEnded,
    LinkCounter::AgentTokenEvicted,
    LinkCounter::AgentFlowEvicted,
    LinkCounter::AgentUnknown,
];

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
