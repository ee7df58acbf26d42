//! Reads pools and backends, wherever they stand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipc::message::{Handles, Name};

use crate::model::{Backend, Pool};
use crate::problem::{At, Report, Span};
use crate::schema::{Key, backend as key, pool as pool_key};
use crate::table::Table;
use crate::value::{pair, parse_address, parse_mac, read_all, read_one};

/// A pool while the file is read: what is missing or wrong has been reported.
pub(crate) struct PoolDraft {
    pub name: Option<At<Name>>,
    pub backends: Vec<BackendDraft>,
}

/// A backend while the file is read.
pub(crate) struct BackendDraft {
    pub name: Option<At<Name>>,
    /// Empty when what was given was wrong.
    pub addresses: Vec<At<IpAddr>>,
    pub mac: Option<[u8; 6]>,
    /// Whether `mac` is given, right or wrong.
    pub has_mac: bool,
    pub weight: u32,
    /// By what else it is found; its endpoint stands apart.
    pub handles: Handles,
    /// Its own port on the addresses of VIPs.
    pub endpoint_port: Option<u16>,
    /// Its own addresses towards clients.
    pub endpoint_addresses: Vec<At<IpAddr>>,
    /// The whole table, to point at when something between tables is wrong.
    pub span: Span,
}

impl BackendDraft {
    /// Its name, for messages.
    pub fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| "without a name".to_owned(), |name| format!("`{}`", name.value))
    }
}

/// Reads `[[pool]]`.
pub(crate) fn read(table: &Table<'_>, report: &mut Report<'_>) -> PoolDraft {
    let name = read_name(table, &pool_key::NAME, report);
    let backends = read_backends(&table.tables(&pool_key::BACKEND, report), report);
    if backends.is_empty() {
        let label = name.as_ref().map_or_else(String::new, |name| format!(" `{}`", name.value));
        report.problem(&table.span, format!("pool{label} has no backend; add at least one [[pool.backend]]"));
    }
    PoolDraft { name, backends }
}

/// Reads the backends of one pool.
pub(crate) fn read_backends(tables: &[Table<'_>], report: &mut Report<'_>) -> Vec<BackendDraft> {
    let mut backends: Vec<BackendDraft> = Vec::new();
    for table in tables {
        let backend = read_backend(table, report);
        for other in &backends {
            check_apart(&backend, other, report);
        }
        backends.push(backend);
    }
    backends
}

fn read_backend(table: &Table<'_>, report: &mut Report<'_>) -> BackendDraft {
    let name = read_name(table, &key::NAME, report);
    let addresses = table.texts(&key::ADDRESS, report);
    let addresses = read_all(addresses, report, parse_address);
    pair(&addresses, key::ADDRESS.name, report);
    let has_mac = table.given(&key::MAC).is_some();
    let mac = table.text(&key::MAC, report);
    let mac = mac.and_then(|mac| read_one(mac, report, parse_mac)).map(|mac| mac.value);
    let weight = table.integer(&key::WEIGHT, report).and_then(|weight| u32::try_from(weight.value).ok());
    let number = table.given(&key::NUMBER).and_then(|_| table.integer(&key::NUMBER, report));
    let number = number.and_then(|number| u16::try_from(number.value).ok());
    let endpoint_port = table.integer(&key::ENDPOINT_PORT, report);
    let endpoint_addresses = table.texts(&key::ENDPOINT_ADDRESS, report);
    let endpoint_addresses = read_all(endpoint_addresses, report, parse_address);
    pair(&endpoint_addresses, key::ENDPOINT_ADDRESS.name, report);
    BackendDraft {
        name,
        addresses,
        mac,
        has_mac,
        weight: weight.unwrap_or_default(),
        handles: Handles { number, ..Handles::default() },
        endpoint_port: endpoint_port.and_then(|port| u16::try_from(port.value).ok()),
        endpoint_addresses,
        span: table.span.clone(),
    }
}

fn check_apart(backend: &BackendDraft, other: &BackendDraft, report: &mut Report<'_>) {
    if let (Some(name), Some(taken)) = (&backend.name, &other.name)
        && name.value == taken.value
    {
        let line = report.line(&taken.span);
        let message =
            format!("backend `{}` stands twice in its pool (line {line}); rename or remove one", name.value);
        report.problem(&name.span, message);
    }
    if let (Some(number), Some(taken)) = (backend.handles.number, other.handles.number)
        && number == taken
    {
        report.problem(
            &backend.span,
            format!("number {number} is that of backend {} already; give each its own", other.label()),
        );
    }
    for address in &backend.addresses {
        if other.addresses.iter().any(|taken| taken.value == address.value) {
            report.problem(
                &address.span,
                format!(
                    "address {} is that of backend {} already; give each its own",
                    address.value,
                    other.label()
                ),
            );
        }
    }
}

/// Reads a name of a pool, backend or VIP.
pub(crate) fn read_name(table: &Table<'_>, key: &Key, report: &mut Report<'_>) -> Option<At<Name>> {
    let text = table.text(key, report)?;
    match text.value.parse::<Name>() {
        Ok(value) => Some(At { value, span: text.span }),
        Err(_) => {
            report.problem(
                &text.span,
                format!(
                    "\"{}\" will not do as a name; use 1 to {} bytes without spaces or control characters",
                    text.value.escape_debug(),
                    ipc::limits::MAX_NAME
                ),
            );
            None
        }
    }
}

/// Makes the pool of a draft in which nothing was wrong.
pub(crate) fn build(draft: PoolDraft) -> Option<Pool> {
    let backends = draft.backends.into_iter().map(build_backend).collect::<Option<Vec<_>>>()?;
    Some(Pool { name: draft.name?.value, backends })
}

fn build_backend(draft: BackendDraft) -> Option<Backend> {
    let (address4, address6) = split(&draft.addresses);
    let (endpoint4, endpoint6) = split(&draft.endpoint_addresses);
    Some(Backend {
        name: draft.name?.value,
        address4,
        address6,
        mac: draft.mac,
        weight: draft.weight,
        handles: Handles { endpoint_port: draft.endpoint_port, endpoint4, endpoint6, ..draft.handles },
    })
}

/// The first address of each family.
fn split(addresses: &[At<IpAddr>]) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let v4 = addresses.iter().find_map(|address| match address.value {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    let v6 = addresses.iter().find_map(|address| match address.value {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    });
    (v4, v6)
}
