//! Changes made at run time by `weftctl`: kept apart from the file, across restarts, and shown as drift.
//!
//! Why a file of their own: the operator's weft.toml is the operator's; a program that rewrites it loses its
//! comments and its trust. The file here is written whole beside itself and renamed, so that a kill at any
//! instant leaves the old or the new one. A change that the file has caught up with is no drift any more and
//! is dropped ([`Overrides::tidy`]).

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use config::{Backend, Config};
use ipc::message::Name;
use serde::{Deserialize, Serialize};

/// Version of the file's form.
const VERSION: u32 = 1;

/// One change to one backend of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The backend is not in the file, or is another there.
    Added(Backend),
    /// The backend is in the file and is not wanted now.
    Removed,
    /// The backend is in the file with another weight.
    Weight(u32),
}

/// All changes, by pool and backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    changes: BTreeMap<(Name, Name), Change>,
}

/// Why the file of changes could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum OverridesError {
    /// The file system refused.
    #[error("cannot use {path}: {source}; check that this user may write there", path = path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else wrote it.
    #[error("{path} holds no run-time changes of Weft ({reason}): repair it, or remove it to go by weft.toml alone",
            path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The file, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    backends: Vec<StoredChange>,
}

#[derive(Serialize, Deserialize)]
struct StoredChange {
    pool: String,
    name: String,
    #[serde(flatten)]
    change: StoredKind,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
enum StoredKind {
    Added { address: Vec<IpAddr>, mac: Option<String>, weight: u32 },
    Removed,
    Weight { weight: u32 },
}

impl Overrides {
    /// Reads the file; none is no changes.
    pub fn load(path: &Path) -> Result<Self, OverridesError> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                return Err(OverridesError::System { path: path.to_owned(), source });
            }
        };
        let damaged = |reason: String| OverridesError::Damaged { path: path.to_owned(), reason };
        let stored: Stored = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if stored.version != VERSION {
            return Err(damaged(format!("version {} where {VERSION} is known", stored.version)));
        }
        let mut changes = BTreeMap::new();
        for change in stored.backends {
            let (key, change) = restore(change).map_err(damaged)?;
            changes.insert(key, change);
        }
        Ok(Self { changes })
    }

    /// Writes the file: whole, beside itself, then renamed.
    pub fn save(&self, path: &Path) -> Result<(), OverridesError> {
        let stored = Stored { version: VERSION, backends: self.changes.iter().map(store).collect() };
        let system = |source: io::Error| OverridesError::System { path: path.to_owned(), source };
        let mut text = serde_json::to_vec_pretty(&stored).map_err(|error| system(error.into()))?;
        text.push(b'\n');
        let beside = path.with_extension("json.new");
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(system)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(system)?;
        fs::rename(&beside, path).map_err(system)
    }

    /// The configuration as changed: what the data plane should have.
    pub fn apply(&self, file: &Config) -> Config {
        let mut config = file.clone();
        for ((pool, name), change) in &self.changes {
            let Some(pool) = config.pools.iter_mut().find(|other| other.name == *pool) else {
                continue;
            };
            let existing = pool.backends.iter().position(|backend| backend.name == *name);
            match (change, existing) {
                (Change::Added(backend), Some(index)) => pool.backends[index] = backend.clone(),
                (Change::Added(backend), None) => pool.backends.push(backend.clone()),
                (Change::Removed, Some(index)) => drop(pool.backends.remove(index)),
                (Change::Weight(weight), Some(index)) => pool.backends[index].weight = *weight,
                (Change::Removed | Change::Weight(_), None) => {}
            }
        }
        config
    }

    /// Adds a backend, which the caller has checked against the configuration as changed.
    pub fn add(&mut self, pool: Name, backend: Backend) {
        self.changes.insert((pool, backend.name), Change::Added(backend));
    }

    /// Takes a backend out.
    pub fn remove(&mut self, pool: Name, name: Name) {
        self.changes.insert((pool, name), Change::Removed);
    }

    /// Gives a backend another weight.
    pub fn weight(&mut self, pool: Name, name: Name, weight: u32) {
        match self.changes.get_mut(&(pool, name)) {
            Some(Change::Added(backend)) => backend.weight = weight,
            _ => drop(self.changes.insert((pool, name), Change::Weight(weight))),
        }
    }

    /// Drops changes that change nothing, now that the file is as it is, and those that would make the whole
    /// invalid. Returns a sentence for each of the latter: the operator asked for them and must hear of it.
    pub fn tidy(&mut self, file: &Config) -> Vec<String> {
        let mut notes = Vec::new();
        let mut kept = Self::default();
        for ((pool, name), change) in std::mem::take(&mut self.changes) {
            let in_file = file.pools.iter().find(|other| other.name == pool);
            let backend = in_file.and_then(|pool| pool.backends.iter().find(|backend| backend.name == name));
            let same = match &change {
                Change::Added(added) => backend == Some(added),
                Change::Removed => backend.is_none(),
                Change::Weight(weight) => backend.is_none_or(|backend| backend.weight == *weight),
            };
            if same {
                continue;
            }
            let reason = match (&change, in_file) {
                (_, None) => Err(format!("there is no pool `{pool}` any more")),
                (Change::Added(added), Some(_)) => {
                    let mut others = kept.apply(file);
                    for other in others.pools.iter_mut().filter(|other| other.name == pool) {
                        other.backends.retain(|backend| backend.name != name);
                    }
                    others.check_backend(&pool, added)
                }
                _ => Ok(()),
            };
            match reason {
                Ok(()) => drop(kept.changes.insert((pool, name), change)),
                Err(reason) => notes.push(format!("run-time change to backend `{name}` dropped: {reason}")),
            }
        }
        *self = kept;
        self.keep_pools_alive(file, &mut notes);
        notes
    }

    /// A pool without backends would serve nobody; the file may have lost all but those taken out by hand.
    fn keep_pools_alive(&mut self, file: &Config, notes: &mut Vec<String>) {
        let empty = |config: Config| -> Vec<Name> {
            config.pools.iter().filter(|pool| pool.backends.is_empty()).map(|pool| pool.name).collect()
        };
        for pool in empty(self.apply(file)) {
            self.changes.retain(|(other, _), change| *other != pool || *change != Change::Removed);
            notes.push(format!(
                "run-time removals in pool `{pool}` dropped: they would leave it without backends"
            ));
        }
    }

    /// Whether a change exists for a backend.
    pub fn get(&self, pool: Name, name: Name) -> Option<&Change> {
        self.changes.get(&(pool, name))
    }

    /// One sentence for each change, in order.
    pub fn drift(&self) -> Vec<String> {
        self.changes
            .iter()
            .map(|((pool, name), change)| match change {
                Change::Added(_) => format!("backend {name} of pool {pool} was added at run time"),
                Change::Removed => format!("backend {name} of pool {pool} was removed at run time"),
                Change::Weight(weight) => {
                    format!("backend {name} of pool {pool} has weight {weight} since a change at run time")
                }
            })
            .collect()
    }
}

fn store(((pool, name), change): (&(Name, Name), &Change)) -> StoredChange {
    let change = match change {
        Change::Added(backend) => StoredKind::Added {
            address: backend.addresses().collect(),
            mac: backend.mac.map(config::format_mac),
            weight: backend.weight,
        },
        Change::Removed => StoredKind::Removed,
        Change::Weight(weight) => StoredKind::Weight { weight: *weight },
    };
    StoredChange { pool: pool.to_string(), name: name.to_string(), change }
}

fn restore(stored: StoredChange) -> Result<((Name, Name), Change), String> {
    let name = |text: &str| text.parse::<Name>().map_err(|error| error.to_string());
    let key = (name(&stored.pool)?, name(&stored.name)?);
    let change = match stored.change {
        StoredKind::Added { address, mac, weight } => {
            config::check_weight(weight)?;
            Change::Added(backend(key.1, &address, mac.as_deref(), weight)?)
        }
        StoredKind::Removed => Change::Removed,
        StoredKind::Weight { weight } => {
            config::check_weight(weight)?;
            Change::Weight(weight)
        }
    };
    Ok((key, change))
}

/// A backend of given addresses: at most one of each family, each one that a host may have.
pub fn backend(name: Name, addresses: &[IpAddr], mac: Option<&str>, weight: u32) -> Result<Backend, String> {
    let mac =
        mac.map(|mac| config::parse_mac(mac).map_err(|reason| format!("\"{mac}\" {reason}"))).transpose()?;
    let mut backend = Backend { name, address4: None, address6: None, mac, weight };
    for address in addresses {
        config::parse_address(&address.to_string()).map_err(|reason| format!("\"{address}\" {reason}"))?;
        let second = match *address {
            IpAddr::V4(v4) => backend.address4.replace(v4).is_some(),
            IpAddr::V6(v6) => backend.address6.replace(v6).is_some(),
        };
        if second {
            return Err("two addresses of one family; give at most one of each".to_owned());
        }
    }
    Ok(backend)
}
