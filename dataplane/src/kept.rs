//! What outlives this process: the tables' file with its directory, taken over at the start, kept up to date, and left
//! behind or removed at the end.

use config::{Config, HugePages};
use engine::flow_table::FlowTable;
use engine::lifetimes::Lifetimes;
use engine::model::Model;
use engine::tables::{Attached, Tables};
use engine::token_table::TokenTable;
use ipc::counters::{Gauge, GaugeWriter};
use ipc::lines::HugePages as TablePages;
use ipc::liveness::Lock;
use ipc::mapping::{Mapping, Shape};

use crate::directory;

/// The tables' file, in the hands of the manager.
#[derive(Debug)]
pub struct Kept {
    mapping: Mapping,
    keep: bool,
}

/// What a data plane begins with.
#[derive(Debug)]
pub struct Beginning {
    /// The file.
    pub kept: Kept,
    /// The tables in it.
    pub tables: Tables,
    /// What is configured, and the generation that has; none when the tables are empty.
    pub configured: Option<(Model, u64)>,
}

/// Takes over what a data plane before this one left, or begins anew and says why. `now` is in seconds of
/// CLOCK_BOOTTIME.
///
/// # Errors
/// There is no memory for the tables, or not of the kind that is asked for.
pub fn begin(config: &Config, lock: &Lock, lifetimes: Lifetimes, now: u64) -> anyhow::Result<Beginning> {
    let dataplane = &config.dataplane;
    let shape = Shape {
        flow_lines: FlowTable::lines_for(dataplane.flows),
        token_lines: TokenTable::lines_for(dataplane.tokens),
        best: match dataplane.huge_pages {
            HugePages::Off => TablePages::Small,
            HugePages::Auto | HugePages::On => TablePages::Hugetlbfs,
        },
    };
    let found = take_over(config, lock, &shape);
    let kept = match found {
        Ok((mapping, mut model, generation)) => {
            // What became due while nobody was there, before a worker knows it.
            model.expire(now);
            Some((mapping, (model, generation)))
        }
        Err(why) => {
            log::info!("tables start empty: {why:#}");
            None
        }
    };
    let (mapping, configured) = match kept {
        Some((mapping, configured)) => (mapping, Some(configured)),
        None => (create(config, lock, &shape)?, None),
    };
    log::info!("tables for {} flows and {} tokens: {mapping}", dataplane.flows, dataplane.tokens);
    let secret = mapping.secret().bytes();
    let tables = if let Some((_, generation)) = &configured {
        let alive = mapping.last_alive();
        let (flows, tokens) = (mapping.flows(), mapping.tokens());
        let (tables, attached) = Tables::attach(flows, tokens, &secret, lifetimes, alive, now);
        // Their ages are those of now.
        mapping.beat(now);
        log::info!("tables kept: {}", account(&attached, *generation, now.saturating_sub(alive)));
        tables
    } else {
        let mut tables = Tables::new(mapping.flows(), mapping.tokens(), &secret);
        tables.lifetimes = lifetimes;
        tables
    };
    Ok(Beginning { kept: Kept { mapping, keep: dataplane.keep_tables }, tables, configured })
}

/// For the log: what was taken over.
fn account(attached: &Attached, generation: u64, pause: u64) -> String {
    let Attached { flows, tokens, busy_cleared, expired } = attached;
    format!(
        "{flows} flows and {tokens} tokens of generation {generation}, {pause} s after their data plane last lived; \
         {busy_cleared} unfinished and {expired} expired entries cleared"
    )
}

/// The file of a data plane before this one, with what its directory says.
fn take_over(config: &Config, lock: &Lock, shape: &Shape) -> anyhow::Result<(Mapping, Model, u64)> {
    let dataplane = &config.dataplane;
    if !dataplane.keep_tables {
        anyhow::bail!("dataplane.keep_tables is false");
    }
    let mapping = Mapping::attach(lock, shape)?;
    if dataplane.huge_pages == HugePages::On && mapping.pages() == TablePages::Small {
        anyhow::bail!("{} lies on pages of 4 KiB, and huge_pages is \"on\"", mapping.path().display());
    }
    let read = mapping.directory().map_err(anyhow::Error::from).and_then(|text| directory::read(&text));
    let (model, generation) = read
        .map_err(|why| why.context(format!("the directory in {} is not used", mapping.path().display())))?;
    Ok((mapping, model, generation))
}

/// Empty memory.
fn create(config: &Config, lock: &Lock, shape: &Shape) -> anyhow::Result<Mapping> {
    let mapping = Mapping::create(lock, shape)?;
    if config.dataplane.huge_pages == HugePages::On && mapping.pages() == TablePages::Small {
        anyhow::bail!(
            "huge_pages = \"on\" and there are none for {} MiB of tables: mount -t hugetlbfs hugetlbfs /dev/hugepages \
             where none is mounted, raise /proc/sys/vm/nr_hugepages, or set huge_pages = \"auto\"",
            mapping.bytes().div_ceil(1 << 20)
        );
    }
    Ok(mapping)
}

impl Beginning {
    /// Tells what the tables are.
    pub fn show(&self, config: &Config, gauges: &GaugeWriter) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let mapping = &self.kept.mapping;
        gauges.set(Gauge::Workers, count(config.dataplane.workers.len()));
        gauges.set(Gauge::FlowCapacity, count(config.dataplane.flows));
        gauges.set(Gauge::TokenCapacity, count(config.dataplane.tokens));
        gauges.set(Gauge::TableBytes, count(mapping.bytes()));
        gauges.set(Gauge::TablePages, count(mapping.pages().index()));
        gauges.set(Gauge::TablesKept, u64::from(self.configured.is_some()));
    }
}

impl Kept {
    /// Writes down a model, before anything in the tables may rely on it. From the first one on, a successor can use
    /// the file, so it stays at the end if it shall.
    pub fn save(&mut self, model: &Model, generation: u64) {
        let saved = directory::write(model, generation)
            .and_then(|text| self.mapping.save_directory(&text).map_err(anyhow::Error::from));
        match saved {
            Ok(()) => self.mapping.keep(self.keep),
            Err(error) => {
                log::error!("the next start will be empty: the directory {error:#}");
                self.mapping.keep(false);
            }
        }
    }

    /// Says that this data plane lives, in seconds of CLOCK_BOOTTIME.
    pub fn beat(&self, now: u64) {
        self.mapping.beat(now);
    }
}
