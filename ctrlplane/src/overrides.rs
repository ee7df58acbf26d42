//! Changes made at run time by `weftctl`: kept apart from the file, across restarts, and shown as drift.
//!
//! Why a file of their own: the operator's weft.toml is the operator's; a program that rewrites it loses its
//! comments and its trust. The file here is written whole beside itself and renamed, so that a kill at any
//! instant leaves the old or the new one ([`stored`]). A change that the file has caught up with is no drift any more and
//! is dropped ([`Overrides::tidy`]).

mod stored;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use config::{Backend, Config};
use ipc::limits::MAX_NUMBER;
use ipc::message::{BackendState, Handles, Name};

use crate::deadline::Deadline;
use crate::reconcile::Deadlines;
use crate::state::State;

/// One change to one backend of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The backend is not in the file, or is another there.
    Added {
        /// As it should be.
        backend: Backend,
        /// Whether it takes no new connections.
        draining: bool,
    },
    /// The backend is in the file and is not wanted now.
    Removed {
        /// When its connections end, too.
        deadline: Option<Deadline>,
    },
    /// The backend is not in the file either, and the data plane is to be told of its removal's deadline.
    Gone {
        /// When its connections end.
        deadline: Deadline,
    },
    /// The backend is in the file, but otherwise.
    Edited {
        /// Its weight, if not the file's.
        weight: Option<u32>,
        /// Whether it takes no new connections.
        draining: bool,
    },
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

impl Overrides {
    /// The configuration as changed: what the data plane should have.
    pub fn apply(&self, file: &Config) -> Config {
        let mut config = file.clone();
        for ((pool, name), change) in &self.changes {
            let Some(pool) = config.pools.iter_mut().find(|other| other.name == *pool) else {
                continue;
            };
            let existing = pool.backends.iter().position(|backend| backend.name == *name);
            match (change, existing) {
                (Change::Added { backend, .. }, Some(index)) => pool.backends[index] = backend.clone(),
                (Change::Added { backend, .. }, None) => pool.backends.push(backend.clone()),
                (Change::Removed { .. }, Some(index)) => drop(pool.backends.remove(index)),
                (Change::Edited { weight: Some(weight), .. }, Some(index)) => {
                    pool.backends[index].weight = *weight;
                }
                _ => {}
            }
        }
        config
    }

    /// Says in `state`, made of the configuration as changed, what a configuration cannot: who drains.
    pub fn mark(&self, state: &mut State) {
        for ((pool, name), change) in &self.changes {
            let (Change::Added { draining: true, .. } | Change::Edited { draining: true, .. }) = change
            else {
                continue;
            };
            if let Some(backend) = state.pools.get_mut(pool).and_then(|backends| backends.get_mut(name)) {
                backend.state = BackendState::Draining;
            }
        }
    }

    /// The removals made at run time, and in how many seconds the connections of each end.
    pub fn deadlines(&self) -> Deadlines {
        let left = |change: &Change| match change {
            Change::Removed { deadline } => Some(deadline.as_ref().and_then(Deadline::left)),
            Change::Gone { deadline } => Some(deadline.left()),
            Change::Added { .. } | Change::Edited { .. } => None,
        };
        self.changes.iter().filter_map(|(key, change)| Some((*key, left(change)?))).collect()
    }

    /// Adds a backend, which the caller has checked against the configuration as changed.
    pub fn add(&mut self, pool: Name, backend: Backend) {
        self.changes.insert((pool, backend.name), Change::Added { backend, draining: false });
    }

    /// Takes a backend out; its connections end by themselves, or at the deadline.
    pub fn remove(&mut self, pool: Name, name: Name, deadline: Option<Deadline>) {
        self.changes.insert((pool, name), Change::Removed { deadline });
    }

    /// Gives a backend another weight.
    pub fn weight(&mut self, pool: Name, name: Name, weight: u32) {
        match self.changes.get_mut(&(pool, name)) {
            Some(Change::Added { backend, .. }) => backend.weight = weight,
            Some(Change::Edited { weight: edited, .. }) => *edited = Some(weight),
            _ => {
                let change = Change::Edited { weight: Some(weight), draining: false };
                self.changes.insert((pool, name), change);
            }
        }
    }

    /// Says whether a backend drains.
    pub fn drain(&mut self, pool: Name, name: Name, drains: bool) {
        match self.changes.get_mut(&(pool, name)) {
            Some(Change::Added { draining, .. } | Change::Edited { draining, .. }) => *draining = drains,
            _ => {
                self.changes.insert((pool, name), Change::Edited { weight: None, draining: drains });
            }
        }
    }

    /// Whether a backend of a pool takes new connections, by the configuration as changed before.
    pub fn takes_new(&self, config: &Config, pool: Name) -> bool {
        let config = self.apply(config);
        let drains = |name: Name| {
            matches!(
                self.get(pool, name),
                Some(Change::Added { draining: true, .. } | Change::Edited { draining: true, .. })
            )
        };
        let mut backends =
            config.pools.iter().filter(|other| other.name == pool).flat_map(|pool| &pool.backends);
        backends.any(|backend| backend.weight > 0 && !drains(backend.name))
    }

    /// Drops changes that change nothing, now that the file is as it is, and those that would make the whole
    /// invalid. Returns a sentence for each of the latter: the operator asked for them and must hear of it.
    pub fn tidy(&mut self, file: &Config) -> Vec<String> {
        let mut notes = Vec::new();
        let mut kept = Self::default();
        for ((pool, name), change) in std::mem::take(&mut self.changes) {
            let in_file = file.pools.iter().find(|other| other.name == pool);
            let backend = in_file.and_then(|pool| pool.backends.iter().find(|backend| backend.name == name));
            let Some(change) = settle(change, backend) else { continue };
            let reason = match (&change, in_file) {
                (Change::Gone { .. }, _) => Ok(()),
                (_, None) => Err(format!("there is no pool `{pool}` any more")),
                (Change::Added { backend: added, .. }, Some(_)) => {
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
            self.changes
                .retain(|(other, _), change| *other != pool || !matches!(change, Change::Removed { .. }));
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
        self.changes.iter().flat_map(|((pool, name), change)| sentences(pool, name, change)).collect()
    }
}

fn sentences(pool: &Name, name: &Name, change: &Change) -> Vec<String> {
    let about = |what: String| format!("backend {name} of pool {pool} {what}");
    let drains = || about("drains since a change at run time".to_owned());
    let (what, draining) = match change {
        Change::Added { draining, .. } => (Some("was added at run time".to_owned()), *draining),
        Change::Removed { .. } => (Some("was removed at run time".to_owned()), false),
        // The file says the same.
        Change::Gone { .. } => (None, false),
        Change::Edited { weight, draining } => {
            (weight.map(|weight| format!("has weight {weight} since a change at run time")), *draining)
        }
    };
    what.map(about).into_iter().chain(draining.then(drains)).collect()
}

/// What is left of a change, now that the file has this backend, or has none of its name. `None` is nothing.
fn settle(change: Change, backend: Option<&Backend>) -> Option<Change> {
    match (change, backend) {
        (Change::Added { backend: added, draining }, Some(backend)) if added == *backend => {
            draining.then_some(Change::Edited { weight: None, draining })
        }
        (Change::Removed { deadline }, None) => {
            deadline.filter(|deadline| !deadline.is_history()).map(|deadline| Change::Gone { deadline })
        }
        (Change::Gone { .. }, Some(_)) => None,
        (Change::Gone { deadline }, None) if deadline.is_history() => None,
        (Change::Edited { .. }, None) => None,
        (Change::Edited { weight, draining }, Some(backend)) => {
            let weight = weight.filter(|weight| *weight != backend.weight);
            (weight.is_some() || draining).then_some(Change::Edited { weight, draining })
        }
        (change, _) => Some(change),
    }
}

/// A backend of given addresses: at most one of each family, each one that a host may have.
pub fn backend(name: Name, addresses: &[IpAddr], mac: Option<&str>, weight: u32) -> Result<Backend, String> {
    let mac =
        mac.map(|mac| config::parse_mac(mac).map_err(|reason| format!("\"{mac}\" {reason}"))).transpose()?;
    let mut backend =
        Backend { name, address4: None, address6: None, mac, weight, handles: Handles::default() };
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

/// A backend with a number, which tokens and timestamps call it by.
pub fn with_number(backend: Backend, number: Option<u16>) -> Result<Backend, String> {
    match number {
        Some(number) if number == 0 || number > MAX_NUMBER => {
            Err(format!("{number} is out of range for a number; it goes from 1 to {MAX_NUMBER}"))
        }
        _ => Ok(Backend { handles: Handles { number, ..backend.handles }, ..backend }),
    }
}

/// A backend with a port and addresses of its own for joins: at most one address of each family, each one that a host
/// may have.
pub fn with_endpoint(backend: Backend, port: Option<u16>, addresses: &[IpAddr]) -> Result<Backend, String> {
    if port == Some(0) {
        return Err("0 is no port number; they go from 1 to 65535".to_owned());
    }
    let mut handles = Handles { endpoint_port: port, ..backend.handles };
    for address in addresses {
        config::parse_address(&address.to_string()).map_err(|reason| format!("\"{address}\" {reason}"))?;
        let second = match *address {
            IpAddr::V4(v4) => handles.endpoint4.replace(v4).is_some(),
            IpAddr::V6(v6) => handles.endpoint6.replace(v6).is_some(),
        };
        if second {
            return Err("two endpoint addresses of one family; give at most one of each".to_owned());
        }
    }
    Ok(Backend { handles, ..backend })
}
