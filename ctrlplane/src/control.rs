//! What the control plane intends: the file, the changes made at run time, the neighbours the kernel knows.
//!
//! One lock around all of it, held for moments and never across an await. Whoever changes something raises
//! the revision and notifies; the session pushes what the latest revision says.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use config::{Config, Problem};
use ipc::message::{Name, Refusal};
use tokio::sync::Notify;

use crate::overrides::{Overrides, OverridesError};
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

    /// What the data plane should have, and the revision of it. A refusal would be a bug of ours, found before
    /// anything is pushed.
    pub fn desired(&self) -> (u64, Result<State, Refusal>) {
        let inner = self.lock();
        let mut config = inner.overrides.apply(&inner.file);
        for backend in config.pools.iter_mut().flat_map(|pool| &mut pool.backends) {
            backend.mac = backend.mac.or_else(|| inner.neighbour(backend));
        }
        (inner.revision, State::of(config.commands()))
    }

    /// Reads the file again. A bad file changes nothing. Returns what the operator should know.
    pub fn reload(&self) -> Result<Vec<String>, Vec<Problem>> {
        let file = match Config::load(&self.path) {
            Ok(file) => file,
            Err(problems) => {
                let first = problems.first().map(ToString::to_string).unwrap_or_default();
                self.lock().reload_problem = Some(first);
                return Err(problems);
            }
        };
        let mut inner = self.lock();
        let mut notes = inner.overrides.tidy(&file);
        if file.dataplane != inner.file.dataplane {
            notes.push(
                "[dataplane] changed: restart weft-dataplane and weft-ctrlplane for that part".to_owned(),
            );
        }
        if let Err(error) = inner.overrides.save(&self.overrides_path) {
            notes.push(error.to_string());
        }
        // The data plane that runs was started with the old part; the next start reads the new one.
        let dataplane = inner.file.dataplane.clone();
        inner.file = Config { dataplane, ..file };
        inner.reload_problem = None;
        self.raise(inner);
        Ok(notes)
    }

    /// Edits the changes made at run time: valid as a whole, kept on disk, or not made. Returns the changes as
    /// they were, for [`Self::restore`].
    pub fn change(
        &self,
        edit: impl FnOnce(&Config, &mut Overrides) -> Result<(), String>,
    ) -> Result<Overrides, ChangeError> {
        let mut inner = self.lock();
        let mut overrides = inner.overrides.clone();
        edit(&inner.overrides.apply(&inner.file), &mut overrides).map_err(ChangeError::Invalid)?;
        if let Some(note) = overrides.tidy(&inner.file).into_iter().next() {
            return Err(ChangeError::Invalid(note));
        }
        overrides.save(&self.overrides_path)?;
        let before = std::mem::replace(&mut inner.overrides, overrides);
        self.raise(inner);
        Ok(before)
    }

    /// Takes a change back that the data plane refused.
    pub fn restore(&self, overrides: Overrides) -> Result<(), OverridesError> {
        overrides.save(&self.overrides_path)?;
        let mut inner = self.lock();
        inner.overrides = overrides;
        self.raise(inner);
        Ok(())
    }

    /// The addresses to find in the kernel's neighbour table: those of backends without a MAC in the
    /// configuration, and whether one is known already.
    pub fn wanted_neighbours(&self) -> Vec<(IpAddr, bool)> {
        let inner = self.lock();
        let config = inner.overrides.apply(&inner.file);
        let without =
            config.pools.iter().flat_map(|pool| &pool.backends).filter(|backend| backend.mac.is_none());
        without
            .flat_map(|backend| backend.addresses())
            .map(|address| (address, inner.neighbours.contains_key(&address)))
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

    /// The MAC the kernel knows for a backend without one in the configuration.
    pub fn neighbour(&self, backend: &config::Backend) -> Option<[u8; 6]> {
        self.lock().neighbour(backend)
    }

    /// One sentence for each change made at run time.
    pub fn drift(&self) -> Vec<String> {
        self.lock().overrides.drift()
    }

    /// Whether a backend was added at run time.
    pub fn is_added(&self, pool: Name, name: Name) -> bool {
        matches!(self.lock().overrides.get(pool, name), Some(crate::overrides::Change::Added(_)))
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

impl Inner {
    /// Either address will do: a frame needs one MAC. IPv4 first, so that the choice is stable.
    fn neighbour(&self, backend: &config::Backend) -> Option<[u8; 6]> {
        backend.addresses().find_map(|address| self.neighbours.get(&address).copied())
    }
}
