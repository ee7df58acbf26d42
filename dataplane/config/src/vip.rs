//! Reads VIPs and checks them against each other, the pools and the ports' own addresses.

use std::collections::HashMap;
use std::net::IpAddr;

use ipc::limits;
use ipc::message::{Forward, Name, Protocol, Scheme, UnknownToken};
use toml::Spanned;
use toml::de::DeValue;

use crate::model::{Port, Ports, Vip};
use crate::pool::{self, PoolDraft};
use crate::port::OwnAddress;
use crate::problem::{At, Report, Span};
use crate::reach::{Way, obstacle};
use crate::schema::{mptcp, vip as key};
use crate::steering::{self, SteeringDraft};
use crate::table::{self, Table};
use crate::value::{parse_address, read_all};

/// A VIP while the file is read: what is missing or wrong has been reported.
pub(crate) struct VipDraft {
    name: Option<At<Name>>,
    addresses: Vec<At<IpAddr>>,
    ports: Option<Ports>,
    protocol: Protocol,
    pool: Option<At<Name>>,
    forward: At<Forward>,
    steering: SteeringDraft,
    unknown_token: UnknownToken,
    span: Span,
}

/// Reads `[[vip]]`. The second is the pool of its own, if it has one.
pub(crate) fn read(table: &Table<'_>, report: &mut Report<'_>) -> (VipDraft, Option<PoolDraft>) {
    let name = pool::read_name(table, &key::NAME, report);
    let addresses = table.texts(&key::ADDRESS, report);
    let addresses = read_all(addresses, report, parse_address);
    let ports = read_ports(table, report);
    let protocol = match table.choice(&key::PROTOCOL, report).map(|word| word.value) {
        Some("udp") => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    let word = table.choice(&key::FORWARD, report);
    let forward = At {
        value: match word.as_ref().map(|word| word.value) {
            Some("ipip") => Forward::Ipip,
            Some("gue") => Forward::Gue,
            _ => Forward::L2dsr,
        },
        span: word.map_or_else(|| table.span.clone(), |word| word.span),
    };
    let (steering, unknown_token) = read_mptcp(table, protocol, report);
    let (pool, own) = read_pool(table, name.as_ref(), report);
    let span = table.span.clone();
    (VipDraft { name, addresses, ports, protocol, pool, forward, steering, unknown_token, span }, own)
}

fn read_mptcp(vip: &Table<'_>, protocol: Protocol, report: &mut Report<'_>) -> (SteeringDraft, UnknownToken) {
    if let (Some(span), Protocol::Udp) = (vip.given(&key::MPTCP), protocol) {
        report.problem(
            &span,
            "[vip.mptcp] on a VIP with protocol \"udp\"; remove it, only TCP has joins to steer",
        );
    }
    let Some(table) = vip.table(&key::MPTCP, report) else {
        return (SteeringDraft::usual(protocol == Protocol::Tcp), UnknownToken::Drop);
    };
    let steering = steering::read(&table, report);
    let unknown_token = match table.choice(&mptcp::UNKNOWN_TOKEN, report).map(|word| word.value) {
        Some("reset") => UnknownToken::Reset,
        Some("hash") => UnknownToken::Hash,
        _ => UnknownToken::Drop,
    };
    (steering, unknown_token)
}

fn read_pool(
    table: &Table<'_>,
    vip: Option<&At<Name>>,
    report: &mut Report<'_>,
) -> (Option<At<Name>>, Option<PoolDraft>) {
    let named = table.given(&key::POOL).and_then(|_| pool::read_name(table, &key::POOL, report));
    let Some(span) = table.given(&key::BACKEND) else {
        if table.given(&key::POOL).is_none() {
            report.problem(
                &table.span,
                "the VIP has neither `pool` nor [[vip.backend]]; name a pool or add backends of its own",
            );
        }
        return (named, None);
    };
    if let Some(pool) = table.given(&key::POOL) {
        report.problem(&pool, "the VIP has both `pool` and [[vip.backend]]; keep one of them");
    }
    let backends = pool::read_backends(&table.tables(&key::BACKEND, report), report);
    if backends.is_empty() {
        report.problem(&span, "the VIP's own pool has no backend; add at least one [[vip.backend]]");
    }
    let own = PoolDraft { name: vip.cloned(), backends };
    (vip.cloned(), Some(own))
}

fn read_ports(table: &Table<'_>, report: &mut Report<'_>) -> Option<Ports> {
    let value = table.raw(&key::PORT, report)?;
    match value.get_ref() {
        DeValue::String(text) if text == "any" => Some(Ports::Any),
        DeValue::Integer(_) => Some(Ports::List(vec![read_port(value, report)?])),
        DeValue::Array(items) => {
            if items.is_empty() {
                report.problem(&value.span(), "`port` is empty; give at least one port, or \"any\"");
                return None;
            }
            let mut ports: Vec<u16> = Vec::new();
            for item in items {
                let Some(port) = read_port(item, report) else {
                    continue;
                };
                if ports.contains(&port) {
                    report.problem(&item.span(), format!("port {port} stands twice in the list; remove one"));
                } else {
                    ports.push(port);
                }
            }
            Some(Ports::List(ports))
        }
        other => {
            table::mismatch(&key::PORT, other, value.span(), report);
            None
        }
    }
}

fn read_port(value: &Spanned<DeValue<'_>>, report: &mut Report<'_>) -> Option<u16> {
    let DeValue::Integer(integer) = value.get_ref() else {
        table::mismatch(&key::PORT, value.get_ref(), value.span(), report);
        return None;
    };
    let port = table::to_u64(integer).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    if port.is_none() {
        report.problem(
            &value.span(),
            format!("{integer} is no port number; they go from 1 to 65535, and \"any\" stands for all"),
        );
    }
    port
}

/// Checks a VIP against its pool. A pool that is not there is reported only if the pools are `trusted`.
pub(crate) fn check_pool(
    vip: &VipDraft,
    pools: &[PoolDraft],
    ports: &[Port],
    trusted: bool,
    report: &mut Report<'_>,
) {
    let Some(name) = &vip.pool else { return };
    let named = |pool: &&PoolDraft| pool.name.as_ref().is_some_and(|other| other.value == name.value);
    match pools.iter().find(named) {
        Some(pool) => {
            check_backends(vip, pool, ports, report);
            steering::check(&vip.steering, &vip.forward, pool, report);
        }
        None if trusted => no_such_pool(name, pools, report),
        None => {}
    }
}

fn no_such_pool(name: &At<Name>, pools: &[PoolDraft], report: &mut Report<'_>) {
    let known: Vec<String> =
        pools.iter().filter_map(|pool| pool.name.as_ref()).map(|name| name.value.to_string()).collect();
    let advice = match table::nearest(name.value.as_str(), known.iter().map(String::as_str)) {
        Some(known) => format!("did you mean `{known}`?"),
        None if known.is_empty() => "add a [[pool]] of that name".to_owned(),
        None => format!("the pools are {}", table::list(known.iter().map(String::as_str), "and")),
    };
    report.problem(&name.span, format!("there is no pool `{}`; {advice}", name.value));
}

fn check_backends(vip: &VipDraft, pool: &PoolDraft, ports: &[Port], report: &mut Report<'_>) {
    let way = Way::new(vip.forward.value, vip.addresses.iter().map(|address| address.value));
    for backend in &pool.backends {
        let addresses: Vec<IpAddr> = backend.addresses.iter().map(|address| address.value).collect();
        if let Some(obstacle) = obstacle(ports, &vip.label(), &way, &addresses, backend.has_mac) {
            report.problem(&backend.span, format!("backend {} {obstacle}", backend.label()));
        }
    }
}

impl VipDraft {
    fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| "without a name".to_owned(), |name| format!("`{}`", name.value))
    }
}

/// Checks that somebody listens to the agents that VIPs ask for.
pub(crate) fn check_agents(vips: &[VipDraft], report: &mut Report<'_>) {
    for vip in vips.iter().filter(|vip| vip.steering.steering.has(Scheme::Agent)) {
        report.problem(
            &vip.span,
            format!(
                "VIP {} is steered by \"agent\", and nobody listens to agents; add [agents] with `listen`",
                vip.label()
            ),
        );
    }
}

/// Checks VIPs against each other: names, and address with port and protocol.
pub(crate) fn check_apart(vips: &[VipDraft], report: &mut Report<'_>) {
    let mut names: HashMap<&Name, &Span> = HashMap::new();
    let mut services: HashMap<(IpAddr, u16, u8), (usize, &Span)> = HashMap::new();
    let mut count = 0;
    for (index, vip) in vips.iter().enumerate() {
        if let Some(name) = &vip.name {
            if let Some(other) = names.get(&name.value) {
                let line = report.line(other);
                report.problem(
                    &name.span,
                    format!("VIP `{}` stands twice (line {line}); rename or remove one", name.value),
                );
            } else {
                names.insert(&name.value, &name.span);
            }
        }
        let ports = vip.ports.as_ref().map_or(&[][..], Ports::numbers);
        for address in &vip.addresses {
            for port in ports {
                count += 1;
                let service = (address.value, *port, u8::from(vip.protocol == Protocol::Udp));
                let Some((owner, span)) = services.get(&service) else {
                    services.insert(service, (index, &address.span));
                    continue;
                };
                let port = if *port == 0 { "any port".to_owned() } else { format!("port {port}") };
                let message = if *owner == index {
                    format!("address {} stands twice in VIP {}; remove one", address.value, vip.label())
                } else {
                    let (line, owner) =
                        (report.line(span), vips.get(*owner).map_or_else(String::new, VipDraft::label));
                    format!(
                        "address {}, {port} is VIP {owner}'s already (line {line}); give each VIP its own",
                        address.value
                    )
                };
                report.problem(&address.span, message);
            }
        }
        if count > limits::MAX_SERVICES {
            report.problem(
                &vip.span,
                format!("more than {} pairs of address and port; Weft takes no more", limits::MAX_SERVICES),
            );
            return;
        }
    }
}

/// Checks VIPs' addresses against those of ports and backends: an address has one meaning.
pub(crate) fn check_addresses(
    vips: &[VipDraft],
    own: &[OwnAddress],
    pools: &[PoolDraft],
    report: &mut Report<'_>,
) {
    let mut taken: HashMap<IpAddr, &VipDraft> = HashMap::new();
    for vip in vips {
        for address in &vip.addresses {
            taken.entry(address.value).or_insert(vip);
            if let Some(port) = own.iter().find(|port| port.address == address.value) {
                let line = report.line(&port.span);
                report.problem(
                    &address.span,
                    format!(
                        "address {} is a port's own (line {line}); give the VIP an address that no port has",
                        address.value
                    ),
                );
            }
        }
    }
    for backend in pools.iter().flat_map(|pool| &pool.backends) {
        for address in &backend.addresses {
            if let Some(vip) = taken.get(&address.value) {
                report.problem(
                    &address.span,
                    format!(
                        "address {} is VIP {}'s; give the backend's own address",
                        address.value,
                        vip.label()
                    ),
                );
            } else if own.iter().any(|port| port.address == address.value) {
                report.problem(
                    &address.span,
                    format!("address {} is a port's own; give the backend's own address", address.value),
                );
            }
        }
    }
}

/// Makes the VIP of a draft in which nothing was wrong.
pub(crate) fn build(draft: VipDraft) -> Option<Vip> {
    Some(Vip {
        name: draft.name?.value,
        addresses: draft.addresses.into_iter().map(|address| address.value).collect(),
        ports: draft.ports?,
        protocol: draft.protocol,
        pool: draft.pool?.value,
        forward: draft.forward.value,
        steering: draft.steering.steering,
        unknown_token: draft.unknown_token,
    })
}
