//! From text to [`Config`]: syntax, then every table, then what holds between tables.

use std::collections::HashMap;
use std::path::Path;

use ipc::limits;
use ipc::message::Name;
use toml::de::DeTable;

use crate::endpoint::Trouble;
use crate::model::Config;
use crate::pool::{self, PoolDraft};
use crate::problem::{At, Problem, Report, Secrets, Span};
use crate::schema;
use crate::table::Table;
use crate::{agents, metrics, port, vip};

/// Longest file: far more than the largest configuration the limits allow needs.
const MAX_FILE: u64 = 16 << 20;

impl Config {
    /// Reads a file. `Err` holds every problem found, in the order of the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Vec<Problem>> {
        Self::load_with(path.as_ref(), Secrets::Read)
    }

    /// Reads a file but for the files of secrets that it names, which this user need not be allowed to read.
    pub fn load_without_secrets(path: impl AsRef<Path>) -> Result<Self, Vec<Problem>> {
        Self::load_with(path.as_ref(), Secrets::Leave)
    }

    fn load_with(path: &Path, secrets: Secrets) -> Result<Self, Vec<Problem>> {
        let name = path.display().to_string();
        let whole = |message: String| vec![Problem { file: name.clone(), line: 0, column: 0, message }];
        let unreadable = |error: std::io::Error| {
            whole(format!("cannot be read: {error}; check the path, and that this user may read it"))
        };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > MAX_FILE {
            return Err(whole(format!("{size} bytes are no configuration; is this the right file?")));
        }
        let bytes = std::fs::read(path).map_err(unreadable)?;
        let text =
            String::from_utf8(bytes).map_err(|_| whole("is not UTF-8 text; save it as UTF-8".to_owned()))?;
        parse(&text, &name, secrets)
    }

    /// Reads a text as that of the file `name`: the name stands in front of each problem, and the files it names are
    /// looked for beside it.
    pub fn parse(text: &str, name: &str) -> Result<Self, Vec<Problem>> {
        parse(text, name, Secrets::Read)
    }
}

fn parse(text: &str, name: &str, secrets: Secrets) -> Result<Config, Vec<Problem>> {
    let mut report = Report::new(name, text, secrets);
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What the parser recovered is a guess; complaints about a guess would only confuse.
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            report.problem(&span, format!("not valid TOML here: {}", error.message().trim_end()));
        }
        return Err(report.into_problems());
    }
    let config = read(document.get_ref(), &mut report);
    match config {
        Some(config) if report.is_clean() => Ok(config),
        _ => Err(report.into_problems()),
    }
}

fn read<'t>(document: &'t DeTable<'t>, report: &mut Report<'_>) -> Option<Config> {
    let root = Table::root(&schema::FILE, document, report);
    let mut trusted = report.is_clean();
    let absent = DeTable::new();
    let dataplane = match root.given(&schema::DATAPLANE_KEY) {
        Some(_) => root.table(&schema::DATAPLANE_KEY, report),
        None => Some(Table::root(&schema::dataplane::SECTION, &absent, report)),
    };
    let before = report.count();
    let dataplane = dataplane.map(|table| port::read(&table, report));
    let ports_are_clean = report.count() == before;
    let before = report.count();
    let tables = root.tables(&schema::POOL_KEY, report);
    trusted &= report.count() == before;
    let mut pools: Vec<PoolDraft> = tables.iter().map(|table| pool::read(table, report)).collect();
    let mut vips = Vec::new();
    for table in root.tables(&schema::VIP_KEY, report) {
        let (vip, own) = vip::read(&table, report);
        vips.push(vip);
        pools.extend(own);
    }
    check_pools(&pools, report);
    // Where a pool's own header or name is wrong, "there is no such pool" would be an echo of that mistake.
    trusted &= pools.iter().all(|pool| pool.name.is_some());
    let (dataplane, own) = dataplane.unzip();
    let before = report.count();
    vip::check_addresses(&vips, own.as_deref().unwrap_or_default(), &pools, report);
    // A wrong address, or a wrong gateway, would be said again of every backend behind it.
    let trusted_ports = dataplane.as_ref().filter(|_| ports_are_clean && report.count() == before);
    let ports = trusted_ports.map_or(&[][..], |dataplane| &dataplane.ports);
    for vip in &vips {
        vip::check_pool(vip, &pools, ports, trusted, report);
    }
    vip::check_apart(&vips, report);
    if vips.len() > limits::MAX_VIPS {
        report.problem(&(0..0), format!("{} VIPs; Weft takes at most {}", vips.len(), limits::MAX_VIPS));
    }
    let agents = agents::read(&root, report);
    if root.given(&schema::AGENTS_KEY).is_none() {
        vip::check_agents(&vips, report);
    }
    let metrics = metrics::read(&root, report);
    let spans = spans(&pools);
    let pools = pools.into_iter().map(pool::build).collect::<Option<_>>()?;
    let vips = vips.into_iter().map(vip::build).collect::<Option<_>>()?;
    let has_secret_inside = report.has_secret_inside();
    let config = Config { dataplane: dataplane?, pools, vips, agents, metrics, has_secret_inside };
    if report.is_clean() {
        for Trouble { pool, backend, sentence } in config.endpoint_troubles() {
            let span = spans.get(&(pool, backend)).cloned().unwrap_or_default();
            report.problem(&span, format!("backend `{backend}` {sentence}"));
        }
    }
    Some(config)
}

/// Where each backend stands.
fn spans(pools: &[PoolDraft]) -> HashMap<(Name, Name), Span> {
    let named = |name: &Option<At<Name>>| name.as_ref().map(|name| name.value);
    let all = pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
    all.filter_map(|(pool, backend)| {
        Some(((named(&pool.name)?, named(&backend.name)?), backend.span.clone()))
    })
    .collect()
}

fn check_pools(pools: &[PoolDraft], report: &mut Report<'_>) {
    let mut names: HashMap<&Name, &Span> = HashMap::new();
    for name in pools.iter().filter_map(|pool| pool.name.as_ref()) {
        if let Some(other) = names.get(&name.value) {
            let line = report.line(other);
            // Two VIPs of one name, each with its own backends, are two VIPs of one name: said once, there.
            report.problem(
                &name.span,
                format!("there is a pool `{}` already (line {line}); rename or remove one", name.value),
            );
        } else {
            names.insert(&name.value, &name.span);
        }
    }
    if pools.len() > limits::MAX_POOLS {
        report.problem(&(0..0), format!("{} pools; Weft takes at most {}", pools.len(), limits::MAX_POOLS));
    }
    let backends: usize = pools.iter().map(|pool| pool.backends.len()).sum();
    if backends >= limits::MAX_BACKENDS {
        report.problem(
            &(0..0),
            format!("{backends} backends in all; Weft takes at most {}", limits::MAX_BACKENDS - 1),
        );
    }
}
