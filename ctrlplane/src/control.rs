//! What the control plane intends: the file, the changes made at run time, the neighbours the kernel knows.
//!
//! One lock around all of it, held for moments and never across an await. Whoever changes something raises
//! the revision and notifies; the session pushes what the latest revision says.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use config::{Config, NextHop, Problem};
use ipc::message::{Command, Name, Refusal};
use tokio::sync::Notify;

use crate::overrides::{Overrides, OverridesError};
use crate::reconcile::{Deadlines, renames};
use crate::state::State;

/// Name of the file of run-time changes, in the runtime directory.
const OVERRIDES: &str = "overrides.json";

/// How it stands with the data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkStatus {
    /// Whether the link is up.
    pub attached: bool,
    /// Why it is not; empty when it is.
    pub message: String,
    /// Generation of the configuration it last acknowledged.
    pub generation: u64,
    /// The revision it has.
    pub revision: u64,
    /// Why it refused the last batch, if it did.
    pub refused: Option<String>,
}

/// How a backend without a MAC in the configuration is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Through whom; `None` where no port reaches it.
    pub way: Option<NextHop>,
    /// The next hop's MAC, once the kernel knows it.
    pub mac: Option<[u8; 6]>,
}

/// Everything the control plane knows.
pub struct Control {
    path: PathBuf,
    overrides_path: PathBuf,
    inner: Mutex<Inner>,
    changed: Notify,
}

struct Inner {
    file: Config,
    overrides: Overrides,
    neighbours: HashMap<IpAddr, [u8; 6]>,
    revision: u64,
    link: LinkStatus,
    reload_problem: Option<String>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It would make the configuration invalid.
    #[error("{0}")]
    Invalid(String),
    /// It could not be kept.
    #[error(transparent)]
    NotKept(#[from] OverridesError),
}

impl Control {
    /// Takes a configuration, read from `path`, and the changes kept in its runtime directory. The second are
    /// sentences about changes that no longer fit the file.
    pub fn new(path: &Path, file: Config) -> Result<(Self, Vec<String>), OverridesError> {
        let overrides_path = file.dataplane.runtime_dir.join(OVERRIDES);
        let mut overrides = Overrides::load(&overrides_path)?;
        let notes = overrides.tidy(&file);
        if !notes.is_empty() {
            overrides.save(&overrides_path)?;
        }
        let inner = Inner {
            file,
            overrides,
            neighbours: HashMap::new(),
            revision: 1,
            link: LinkStatus::default(),
            reload_problem: None,
        };
        let control =
            Self { path: path.to_owned(), overrides_path, inner: Mutex::new(inner), changed: Notify::new() };
        Ok((control, notes))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock cannot leave a half-made change: every change is one assignment.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration as changed at run time.
    pub fn effective(&self) -> Config {
        let inner = self.lock();
        inner.overrides.apply(&inner.file)
    }

    /// What the data plane should have, the revision of it, and the deadlines of what it should not have. A refusal
    /// would be a bug of ours, found before anything is pushed.
    pub fn desired(&self) -> (u64, Result<State, Refusal>, Deadlines) {
        let inner = self.lock();
        let mut config = inner.overrides.apply(&inner.file);
        let hops = inner.next_hops(&config);
        for pool in &mut config.pools {
            for backend in &mut pool.backends {
                let hop = hops.get(&(pool.name, backend.name));
                backend.mac = backend.mac.or_else(|| hop.and_then(|hop| hop.mac));
            }
        }
        let state = State::of(config.commands()).map(|mut state| {
            inner.overrides.mark(&mut state);
            state
        });
        (inner.revision, state, inner.overrides.deadlines())
    }

    /// Reads the file again. A bad file changes nothing, nor does one that `accept` refuses, for what it names. Returns
    /// what the operator should know.
    pub fn reload(
        &self,
        accept: impl FnOnce(&Config) -> Result<Vec<String>, String>,
    ) -> Result<Vec<String>, Vec<Problem>> {
        let whole =
            |message| vec![Problem { file: self.path.display().to_string(), line: 0, column: 0, message }];
        let accepted = |file: Config| accept(&file).map(|notes| (file, notes)).map_err(whole);
        let (file, accepted) = match Config::load(&self.path).and_then(accepted) {
            Ok(accepted) => accepted,
            Err(problems) => {
                let first = problems.first().map(ToString::to_string).unwrap_or_default();
                self.lock().reload_problem = Some(first);
                return Err(problems);
            }
        };
        let mut inner = self.lock();
        let mut notes = accepted;
        notes.extend(renamed(&inner.file, &file));
        notes.extend(other_pools(&inner.file, &file));
        notes.extend(inner.overrides.tidy(&file));
        if file.dataplane != inner.file.dataplane {
            notes.push(
                "[dataplane] changed: restart weft-dataplane and weft-ctrlplane for that part".to_owned(),
            );
        }
        if file.metrics != inner.file.metrics {
            notes.push("[metrics] changed: restart weft-ctrlplane for that part".to_owned());
        }
        if let Err(error) = inner.overrides.save(&self.overrides_path) {
            notes.push(error.to_string());
        }
        // The data plane that runs was started with the old part; the next start reads the new one.
        let (dataplane, metrics) = (inner.file.dataplane.clone(), inner.file.metrics);
        inner.file = Config { dataplane, metrics, ..file };
        inner.reload_problem = None;
        self.raise(inner);
        Ok(notes)
    }

    /// Edits the changes made at run time: valid as a whole, kept on disk, or not made. Returns the changes as
    /// they were, for [`Self::restore`], and what the edit says.
    pub fn change<T>(
        &self,
        edit: impl FnOnce(&Config, &mut Overrides) -> Result<T, String>,
    ) -> Result<(Overrides, T), ChangeError> {
        let mut inner = self.lock();
        let mut overrides = inner.overrides.clone();
        let said = edit(&inner.overrides.apply(&inner.file), &mut overrides).map_err(ChangeError::Invalid)?;
        if let Some(note) = overrides.tidy(&inner.file).into_iter().next() {
            return Err(ChangeError::Invalid(note));
        }
        overrides.save(&self.overrides_path)?;
        let before = std::mem::replace(&mut inner.overrides, overrides);
        self.raise(inner);
        Ok((before, said))
    }

    /// Takes a change back that the data plane refused.
    pub fn restore(&self, overrides: Overrides) -> Result<(), OverridesError> {
        overrides.save(&self.overrides_path)?;
        let mut inner = self.lock();
        inner.overrides = overrides;
        self.raise(inner);
        Ok(())
    }

    /// The addresses to find in the kernel's neighbour table: next hops to backends without a MAC in the
    /// configuration, and whether each is known already.
    pub fn wanted_neighbours(&self) -> BTreeMap<IpAddr, bool> {
        let inner = self.lock();
        let config = inner.overrides.apply(&inner.file);
        let backends =
            config.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
        let without = backends.filter(|(_, backend)| backend.mac.is_none());
        without
            .flat_map(|(pool, backend)| config.next_hops(pool, backend))
            .map(|hop| (hop.address, inner.neighbours.contains_key(&hop.address)))
            .collect()
    }

    /// Notes what the kernel says about a neighbour. True when that is news.
    pub fn learn_neighbour(&self, address: IpAddr, mac: [u8; 6]) -> bool {
        let mut inner = self.lock();
        let news = inner.neighbours.insert(address, mac) != Some(mac);
        if news {
            self.raise(inner);
        }
        news
    }

    /// How each backend without a MAC in the configuration is reached.
    pub fn next_hops(&self) -> HashMap<(Name, Name), Hop> {
        let inner = self.lock();
        inner.next_hops(&inner.overrides.apply(&inner.file))
    }

    /// One sentence for each change made at run time.
    pub fn drift(&self) -> Vec<String> {
        self.lock().overrides.drift()
    }

    /// Whether the data plane is to keep its tables from one start to the next.
    pub fn keeps_tables(&self) -> bool {
        self.lock().file.dataplane.keep_tables
    }

    /// Pools none of whose backends takes new connections.
    pub fn idle_pools(&self) -> Vec<Name> {
        let inner = self.lock();
        let config = inner.overrides.apply(&inner.file);
        let pools = config.pools.iter().map(|pool| pool.name);
        pools.filter(|pool| !inner.overrides.takes_new(&config, *pool)).collect()
    }

    /// Whether a backend was added at run time.
    pub fn is_added(&self, pool: Name, name: Name) -> bool {
        matches!(self.lock().overrides.get(pool, name), Some(crate::overrides::Change::Added { .. }))
    }

    /// The first problem of the last reload, if it failed.
    pub fn reload_problem(&self) -> Option<String> {
        self.lock().reload_problem.clone()
    }

    /// How it stands with the data plane.
    pub fn link(&self) -> LinkStatus {
        self.lock().link.clone()
    }

    /// Notes how it stands with the data plane.
    pub fn set_link(&self, link: LinkStatus) {
        self.lock().link = link;
    }

    /// The latest revision.
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// Waits for the next change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn raise(&self, mut inner: MutexGuard<'_, Inner>) {
        inner.revision += 1;
        drop(inner);
        self.changed.notify_waiters();
    }
}

/// A sentence for each backend that came back under another name: to Weft that is another backend.
fn renamed(before: &Config, after: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    for pool in &after.pools {
        let Some(old) = before.pools.iter().find(|old| old.name == pool.name) else { continue };
        let in_both = |name: Name| {
            let has = |pool: &config::Pool| pool.backends.iter().any(|backend| backend.name == name);
            has(old) && has(pool)
        };
        for backend in pool.backends.iter().filter(|backend| !in_both(backend.name)) {
            let same = |other: &&config::Backend| {
                !in_both(other.name)
                    && (other.address4, other.address6) == (backend.address4, backend.address6)
            };
            if let Some(other) = old.backends.iter().find(same) {
                notes.push(format!(
                    "backend `{}` of pool `{}` has the addresses that `{}` had: a renamed backend is another one, \
                     `{}` keeps its connections until their end and `{}` gets new ones",
                    backend.name, pool.name, other.name, other.name, backend.name
                ));
            }
        }
    }
    notes
}

/// A sentence for each pool that has another name, and for each VIP that went to another pool: tokens belong to
/// pools.
fn other_pools(before: &Config, after: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    let mut renamed = Vec::new();
    if let (Ok(old), Ok(new)) = (State::of(before.commands()), State::of(after.commands())) {
        for command in renames(&new, &old, &[]) {
            if let Command::RenamePool { name, to } = command {
                notes.push(format!(
                    "pool `{name}` is called `{to}` now: it keeps its connections and their tokens"
                ));
                renamed.push((name, to));
            }
        }
    }
    for vip in after.vips.iter().filter(|vip| vip.learns()) {
        let Some(old) = before.vips.iter().find(|old| old.name == vip.name) else { continue };
        if old.pool != vip.pool && !renamed.contains(&(old.pool, vip.pool)) {
            notes.push(format!(
                "VIP `{}` went from pool `{}` to pool `{}`: its connections go on where they are, but are joined \
                 through it no more",
                vip.name, old.pool, vip.pool
            ));
        }
    }
    notes
}

impl Inner {
    fn next_hops(&self, config: &Config) -> HashMap<(Name, Name), Hop> {
        let mut hops = HashMap::new();
        for pool in &config.pools {
            for backend in pool.backends.iter().filter(|backend| backend.mac.is_none()) {
                let ways = config.next_hops(pool, backend);
                let resolved = ways.iter().find_map(|way| Some((*way, *self.neighbours.get(&way.address)?)));
                let (way, mac) = match resolved {
                    Some((way, mac)) => (Some(way), Some(mac)),
                    None => (ways.first().copied(), None),
                };
                hops.insert((pool.name, backend.name), Hop { way, mac });
            }
        }
        hops
    }
}
