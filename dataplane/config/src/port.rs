//! Reads `[dataplane]` and its ports.

use std::net::IpAddr;
use std::path::PathBuf;

use ipc::limits;

use crate::lifetimes;
use crate::model::{Dataplane, HugePages, Port, Prefix};
use crate::problem::{At, Report, Span};
use crate::schema::{dataplane as key, port as port_key};
use crate::table::Table;
use crate::value::{Pair, pair, parse_address, parse_mac, parse_prefix, read_all, read_one};

/// Longest `runtime_dir`: a Unix socket's whole path has at most 107 bytes.
const MAX_RUNTIME_DIR: usize = 80;

/// Longest name of a kernel interface: IFNAMSIZ of linux/if.h less its zero.
const MAX_INTERFACE: usize = 15;

/// An address of a port and where it stands; the VIPs are checked against these.
pub(crate) struct OwnAddress {
    pub address: IpAddr,
    pub span: Span,
}

/// Reads `[dataplane]`. What is wrong is reported and replaced, so that the rest can be checked, too.
pub(crate) fn read(table: &Table<'_>, report: &mut Report<'_>) -> (Dataplane, Vec<OwnAddress>) {
    let mut own = Vec::new();
    let workers = read_workers(table, report);
    let runtime_dir = read_runtime_dir(table, report);
    let sources = table.texts(&key::TUNNEL_SOURCE, report);
    let sources = read_all(sources, report, |text| {
        if text.contains('/') {
            return Err("is a prefix: a tunnel source varied by flow is not yet available in this version; \
                        give one address of each family");
        }
        parse_address(text)
    });
    let sources = pair(&sources, key::TUNNEL_SOURCE.name, report);
    let tables = table.tables(&key::PORT, report);
    if tables.len() > limits::MAX_PORTS {
        report.problem(
            &table.span,
            format!("{} ports; Weft takes at most {}", tables.len(), limits::MAX_PORTS),
        );
    }
    let ports = read_ports(&tables, &mut own, report);
    let (idle, evict) = lifetimes::read(table, report);
    let guard = lifetimes::read_guard(table, report);
    let dataplane = Dataplane {
        workers,
        flows: number(table.integer(&key::FLOWS, report)),
        tokens: number(table.integer(&key::TOKENS, report)),
        huge_pages: match table.choice(&key::HUGE_PAGES, report).map(|word| word.value) {
            Some("on") => HugePages::On,
            Some("off") => HugePages::Off,
            _ => HugePages::Auto,
        },
        memory_mb: number(table.integer(&key::MEMORY_MB, report)),
        mbufs: number(table.integer(&key::MBUFS, report)),
        file_prefix: read_file_prefix(table, &runtime_dir, report),
        maglev_seed: number(table.integer(&key::MAGLEV_SEED, report)),
        tunnel_source4: sources.v4,
        tunnel_source6: sources.v6,
        keep_tables: table.flag(&key::KEEP_TABLES, report),
        idle,
        evict,
        guard,
        runtime_dir,
        ports,
    };
    (dataplane, own)
}

/// Narrows a number whose range the schema has checked; a test holds the schema's ranges to the types.
fn number<T: TryFrom<u64> + Default>(value: Option<At<u64>>) -> T {
    value.and_then(|value| T::try_from(value.value).ok()).unwrap_or_default()
}

fn read_workers(table: &Table<'_>, report: &mut Report<'_>) -> Vec<u32> {
    let mut workers: Vec<u32> = Vec::new();
    let given = table.integers(&key::WORKERS, report);
    if table.given(&key::WORKERS).is_none() {
        return vec![0];
    }
    for worker in &given {
        let lcore: u32 = number(Some(worker.clone()));
        if workers.contains(&lcore) {
            report.problem(&worker.span, format!("lcore {lcore} stands twice in `workers`; remove one"));
        } else {
            workers.push(lcore);
        }
    }
    if let Some(span) = table.given(&key::WORKERS) {
        if table.is_empty_list(&key::WORKERS) {
            report.problem(&span, "`workers` is empty; name at least one lcore, as in [1]");
        }
        if workers.len() > limits::MAX_WORKERS {
            report.problem(
                &span,
                format!("{} workers; Weft takes at most {}", workers.len(), limits::MAX_WORKERS),
            );
        }
    }
    workers
}

fn read_runtime_dir(table: &Table<'_>, report: &mut Report<'_>) -> PathBuf {
    let Some(text) = table.text(&key::RUNTIME_DIR, report) else {
        return PathBuf::new();
    };
    let path = PathBuf::from(text.value);
    if !path.is_absolute() {
        report.problem(
            &text.span,
            format!("`runtime_dir` \"{}\" is relative; give an absolute path", text.value),
        );
    }
    if text.value.len() > MAX_RUNTIME_DIR || text.value.contains('\0') {
        report.problem(
            &text.span,
            format!(
                "`runtime_dir` is longer than {MAX_RUNTIME_DIR} bytes; sockets in it would have no valid path"
            ),
        );
    }
    path
}

fn read_file_prefix(table: &Table<'_>, runtime_dir: &std::path::Path, report: &mut Report<'_>) -> String {
    let Some(text) = table.text(&key::FILE_PREFIX, report) else {
        return derived_file_prefix(runtime_dir);
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if text.value.is_empty() || text.value.len() > 48 || !text.value.bytes().all(plain) {
        report.problem(
            &text.span,
            format!("`file_prefix` \"{}\" will not do; use 1 to 48 of a-z, A-Z, 0-9, - and _", text.value),
        );
    }
    text.value.to_owned()
}

/// Another directory, another prefix: FNV-1a of the path keeps two Wefts of one machine apart.
fn derived_file_prefix(runtime_dir: &std::path::Path) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in runtime_dir.as_os_str().as_encoded_bytes() {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    format!("weft-{hash:08x}")
}

fn read_ports(tables: &[Table<'_>], own: &mut Vec<OwnAddress>, report: &mut Report<'_>) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for table in tables {
        let device = table.text(&port_key::DEVICE, report);
        if let Some(device) = &device {
            check_device(device, &ports, report);
        }
        let mac = table.text(&port_key::MAC, report);
        let mac = mac.and_then(|mac| read_one(mac, report, parse_mac));
        let address = table.texts(&port_key::ADDRESS, report);
        let address = read_all(address, report, parse_prefix);
        for prefix in &address {
            check_own(prefix, own, report);
        }
        let gateways = read_gateways(table, &address, report);
        let exception = read_exception(table, &ports, report);
        ports.push(Port {
            device: device.map(|device| device.value.to_owned()).unwrap_or_default(),
            mac: mac.map(|mac| mac.value),
            address: address.into_iter().map(|prefix| prefix.value).collect(),
            gateway4: gateways.v4,
            gateway6: gateways.v6,
            exception,
            mtu: number(table.integer(&port_key::MTU, report)),
            promiscuous: table.flag(&port_key::PROMISCUOUS, report),
            rx_descriptors: number(table.integer(&port_key::RX_DESCRIPTORS, report)),
            tx_descriptors: number(table.integer(&port_key::TX_DESCRIPTORS, report)),
        });
    }
    ports
}

/// A gateway is a station of the port's own network: no other could be asked for its MAC address.
fn read_gateways(table: &Table<'_>, own: &[At<Prefix>], report: &mut Report<'_>) -> Pair {
    let gateways = read_all(table.texts(&port_key::GATEWAY, report), report, parse_address);
    for gateway in &gateways {
        let address = gateway.value;
        if own.iter().any(|prefix| prefix.value.address == address) {
            report.problem(
                &gateway.span,
                format!("gateway {address} is the port's own address; give the router's"),
            );
        } else if !own.iter().any(|prefix| prefix.value.contains(address)) {
            let message = format!(
                "gateway {address} is in no prefix of the port's `address`; give a router of the port's own network"
            );
            report.problem(&gateway.span, message);
        }
    }
    pair(&gateways, port_key::GATEWAY.name, report)
}

/// Linux refuses longer names, and `/`, `:` and spaces in them; DPDK reads a comma as the end of an argument.
fn read_exception(table: &Table<'_>, ports: &[Port], report: &mut Report<'_>) -> Option<String> {
    let name = table.text(&port_key::EXCEPTION, report)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let taken = ["lo", "all", "default", ".", ".."];
    if name.value.is_empty() || name.value.len() > MAX_INTERFACE || !name.value.bytes().all(plain) {
        report.problem(
            &name.span,
            format!(
                "`exception` \"{}\" will not do as an interface's name; use 1 to {MAX_INTERFACE} of a-z, A-Z, 0-9, ., _ \
                 and -",
                name.value.escape_debug()
            ),
        );
    } else if taken.contains(&name.value) {
        report.problem(
            &name.span,
            format!("`exception` \"{}\" has another meaning to the kernel; use another name", name.value),
        );
    } else if ports.iter().any(|port| port.exception.as_deref() == Some(name.value)) {
        report.problem(
            &name.span,
            format!("`exception` \"{}\" is that of a port above; give each port its own", name.value),
        );
    }
    Some(name.value.to_owned())
}

fn check_device(device: &At<&str>, ports: &[Port], report: &mut Report<'_>) {
    let name = |device: &str| device.split(',').next().unwrap_or_default().to_owned();
    if device.value.is_empty() || device.value.contains(char::is_whitespace) || device.value.contains('\0') {
        report.problem(
            &device.span,
            format!("\"{}\" is no device; give a PCI address or a vdev string without spaces", device.value),
        );
    } else if ports.iter().any(|port| name(&port.device) == name(device.value)) {
        report.problem(
            &device.span,
            format!("device {} is taken by a port above; give each port its own", name(device.value)),
        );
    }
}

fn check_own(prefix: &At<Prefix>, own: &mut Vec<OwnAddress>, report: &mut Report<'_>) {
    let address = prefix.value.address;
    if let Some(other) = own.iter().find(|other| other.address == address) {
        let line = report.line(&other.span);
        report.problem(
            &prefix.span,
            format!("address {address} is a port's already (line {line}); remove one"),
        );
    } else {
        own.push(OwnAddress { address, span: prefix.span.clone() });
    }
}
