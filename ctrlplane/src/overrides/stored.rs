//! The form of the changes on disk, and how they get there whole.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ipc::message::Name;
use serde::{Deserialize, Serialize};

use super::{Change, Overrides, OverridesError, backend, with_endpoint, with_number};
use crate::deadline::Deadline;

/// Version of the file's form that is written. Version 1 knew no draining and no deadlines; it is read, too.
const VERSION: u32 = 2;

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
    Added {
        address: Vec<IpAddr>,
        mac: Option<String>,
        weight: u32,
        #[serde(default)]
        draining: bool,
        #[serde(default)]
        number: Option<u16>,
        #[serde(default)]
        endpoint_port: Option<u16>,
        #[serde(default)]
        endpoint_address: Vec<IpAddr>,
    },
    Removed {
        #[serde(default)]
        deadline: Option<Deadline>,
    },
    Gone {
        deadline: Deadline,
    },
    /// Of version 1.
    Weight {
        weight: u32,
    },
    Edited {
        weight: Option<u32>,
        draining: bool,
    },
}

impl Overrides {
    /// Reads the file; none is no changes. A damaged file is left as it is.
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
        if stored.version == 0 || stored.version > VERSION {
            return Err(damaged(format!("version {} where {VERSION} is known", stored.version)));
        }
        let mut changes = BTreeMap::new();
        for change in stored.backends {
            let (key, change) = restore(change).map_err(damaged)?;
            changes.insert(key, change);
        }
        Ok(Self { changes })
    }

    /// Writes the file: whole and to the disk beside itself, then renamed, then the renaming to the disk, too.
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
        fs::rename(&beside, path).map_err(system)?;
        match path.parent() {
            Some(dir) => File::open(dir).and_then(|dir| dir.sync_all()).map_err(system),
            None => Ok(()),
        }
    }
}

fn store(((pool, name), change): (&(Name, Name), &Change)) -> StoredChange {
    let change = match change {
        Change::Added { backend, draining } => StoredKind::Added {
            address: backend.addresses().collect(),
            mac: backend.mac.map(config::format_mac),
            weight: backend.weight,
            draining: *draining,
            number: backend.handles.number,
            endpoint_port: backend.handles.endpoint_port,
            endpoint_address: backend.endpoint_addresses().collect(),
        },
        Change::Removed { deadline } => StoredKind::Removed { deadline: deadline.clone() },
        Change::Gone { deadline } => StoredKind::Gone { deadline: deadline.clone() },
        Change::Edited { weight, draining } => StoredKind::Edited { weight: *weight, draining: *draining },
    };
    StoredChange { pool: pool.to_string(), name: name.to_string(), change }
}

fn restore(stored: StoredChange) -> Result<((Name, Name), Change), String> {
    let name = |text: &str| text.parse::<Name>().map_err(|error| error.to_string());
    let key = (name(&stored.pool)?, name(&stored.name)?);
    let change = match stored.change {
        StoredKind::Added { address, mac, weight, draining, number, endpoint_port, endpoint_address } => {
            config::check_weight(weight)?;
            let backend = with_number(backend(key.1, &address, mac.as_deref(), weight)?, number)?;
            Change::Added { backend: with_endpoint(backend, endpoint_port, &endpoint_address)?, draining }
        }
        StoredKind::Removed { deadline } => Change::Removed { deadline },
        StoredKind::Gone { deadline } => Change::Gone { deadline },
        StoredKind::Weight { weight } => {
            config::check_weight(weight)?;
            Change::Edited { weight: Some(weight), draining: false }
        }
        StoredKind::Edited { weight, draining } => {
            weight.map_or(Ok(()), config::check_weight)?;
            Change::Edited { weight, draining }
        }
    };
    Ok((key, change))
}
