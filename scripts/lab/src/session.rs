//! One run of the lab: its name, its directory, and the removal of what killed runs left.
//!
//! A run holds an exclusive lock on a file in its directory. The kernel releases the lock when the run dies in
//! whatever way, so a directory whose lock is free belongs to nobody and [`sweep`] removes it, with every
//! namespace that carries its name and every process in them. A second lock, held only while runs are made and
//! swept, closes the gap between making a directory and locking it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
// Numbers the runs of this process.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, Result, process};

/// Where runs keep their files.
const ROOT: &str = "/run/weft-lab";
/// Where `ip netns` keeps the names of namespaces.
const NETNS: &str = "/run/netns";

static RUNS: AtomicUsize = AtomicUsize::new(0);

/// One run. Dropping it removes its directory; namespaces and tasks are gone by then.
#[derive(Debug)]
pub struct Session {
    name: String,
    dir: PathBuf,
    _lock: File,
}

impl Session {
    /// Removes what dead runs left, then makes a new run with a name that no other one has.
    pub fn new() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::other(
                "the lab makes network namespaces and needs root: run it again with sudo",
            ));
        }
        fs::create_dir_all(ROOT).map_err(|e| Error::io(format!("cannot make {ROOT}"), e))?;
        let _guard = lock(&Path::new(ROOT).join("lock"), FlockOperation::LockExclusive)?;
        sweep_locked();
        let name = format!("weft-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new(ROOT).join(&name);
        fs::create_dir(&dir).map_err(|e| Error::io(format!("cannot make {}", dir.display()), e))?;
        let lock = lock(&dir.join("lock"), FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { name, dir, _lock: lock })
    }

    /// The run's name: the prefix of its namespaces.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The run's directory, empty at first but for its lock.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        remove_files(&self.dir);
    }
}

/// What is still there of a run: its namespaces and its directory.
pub fn leftovers(run: &str) -> Vec<String> {
    let dir = Path::new(ROOT).join(run);
    let dir = dir.exists().then(|| dir.display().to_string());
    namespaces_of(run).into_iter().chain(dir).collect()
}

/// Removes what dead runs left; returns their names.
pub fn sweep() -> Result<Vec<String>> {
    if !Path::new(ROOT).exists() {
        return Ok(Vec::new());
    }
    let _guard = lock(&Path::new(ROOT).join("lock"), FlockOperation::LockExclusive)?;
    Ok(sweep_locked())
}

/// Best effort: what cannot be removed now is tried again at the next start.
fn sweep_locked() -> Vec<String> {
    let mut swept = Vec::new();
    for entry in fs::read_dir(ROOT).into_iter().flatten().flatten() {
        let dir = entry.path();
        let Some(name) = dir.is_dir().then(|| entry.file_name().to_string_lossy().into_owned()) else {
            continue;
        };
        if !name.starts_with("weft-")
            || lock(&dir.join("lock"), FlockOperation::NonBlockingLockExclusive).is_err()
        {
            continue;
        }
        for namespace in namespaces_of(&name) {
            remove_namespace(&namespace);
        }
        if namespaces_of(&name).is_empty() {
            remove_files(&dir);
            swept.push(name);
        }
    }
    swept
}

/// How long processes of a namespace may take to end by themselves: this many looks, this far apart.
const GRACE_ROUNDS: u32 = 40;
const GRACE_PAUSE: Duration = Duration::from_millis(50);

/// Ends every process in a namespace that only the lab uses, and removes it.
pub fn remove_namespace(namespace: &str) {
    // SIGTERM first: a data plane that ends itself gives its huge pages back.
    for round in 0..=GRACE_ROUNDS {
        let pids = processes_in(namespace);
        if pids.is_empty() {
            break;
        }
        if round == 0 || round == GRACE_ROUNDS {
            let signal = if round == 0 { Signal::TERM } else { Signal::KILL };
            for pid in pids {
                let _ = kill_process(pid, signal);
            }
        }
        std::thread::sleep(GRACE_PAUSE);
    }
    let _ = process::run(Command::new("ip").args(["netns", "delete", namespace]));
}

fn processes_in(namespace: &str) -> Vec<Pid> {
    let pids = process::run(Command::new("ip").args(["netns", "pids", namespace])).unwrap_or_default();
    pids.split_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(Pid::from_raw).collect()
}

/// Removes a run's directory, and the tables that a killed data plane of the run left on hugetlbfs, where they would
/// hold huge pages for good. Where they are stands in the data plane's log.
fn remove_files(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            let log = fs::read_to_string(entry.path()).unwrap_or_default();
            for tables in log.split_whitespace().filter(|word| is_tables(word)) {
                let _ = fs::remove_file(tables);
            }
        }
    }
    let _ = fs::remove_dir_all(dir);
}

/// Whether a word of the log names the file of a data plane's tables.
fn is_tables(word: &str) -> bool {
    let name = Path::new(word).file_name().map(|name| name.to_string_lossy());
    word.starts_with('/') && name.is_some_and(|name| name.starts_with("weft-tables-"))
}

fn namespaces_of(run: &str) -> Vec<String> {
    let prefix = format!("{run}-");
    let entries = fs::read_dir(NETNS).into_iter().flatten().flatten();
    let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|n| n.starts_with(&prefix)).collect()
}

fn lock(path: &Path, operation: FlockOperation) -> Result<File> {
    let failed = |e: std::io::Error| Error::io(format!("cannot lock {}", path.display()), e);
    let file = File::options().create(true).append(true).open(path).map_err(failed)?;
    flock(&file, operation).map_err(|e| failed(e.into()))?;
    Ok(file)
}
