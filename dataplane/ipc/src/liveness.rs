//! Who runs: a lock the kernel releases when its holder dies, however it dies.
//!
//! Why it exists: a flag in shared memory says what was true once. A `flock(2)` on a file in the runtime
//! directory is true now. Each role has one file; its holder writes its pid into it, for messages to people.
//!
//! `flock` and not POSIX record locks: those vanish when the process closes any descriptor of the file, and
//! they do not exist between two ends in one process (tests, fuzzing). The price: the lock cannot be asked
//! about without trying it, so [`Watch`] takes it shared for a moment, and [`Lock::acquire`] tries again for a
//! moment before it believes that somebody else runs.
//!
//! Lock files are never removed: a removed file and a new one of its name would be two locks.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// Tries before a lock counts as held by another, and the pause between them. A [`Watch`] holds it for
/// microseconds.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// Which of the two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `weft-dataplane`.
    DataPlane,
    /// `weft-ctrlplane`.
    ControlPlane,
}

impl Role {
    /// The program's name.
    pub const fn program(self) -> &'static str {
        match self {
            Role::DataPlane => "weft-dataplane",
            Role::ControlPlane => "weft-ctrlplane",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Role::DataPlane => "dataplane.lock",
            Role::ControlPlane => "ctrlplane.lock",
        }
    }
}

/// Why a lock could not be taken or asked about.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another instance runs.
    #[error(
        "{} is already running in {dir} (pid {pid}): stop it first, or give this one another runtime_dir",
        role.program(), dir = dir.display()
    )]
    Held {
        /// Which program.
        role: Role,
        /// Where.
        dir: PathBuf,
        /// The other's pid, as it wrote it.
        pid: Pid,
    },
    /// The directory cannot be made or written.
    #[error(
        "cannot use the runtime directory {dir}: {cause}; create it, make it writable for this user, \
         or set runtime_dir",
        dir = dir.display()
    )]
    Directory {
        /// Which directory.
        dir: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// A pid as its owner wrote it; unknown when it had not written it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pid(pub Option<u32>);

impl core::fmt::Display for Pid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "{pid}"),
            None => f.write_str("unknown"),
        }
    }
}

/// Proof that this process is the only one of its role in a runtime directory, until dropped.
#[derive(Debug)]
pub struct Lock {
    dir: PathBuf,
    /// Held for its lock, which lasts as long as the descriptor.
    _file: File,
}

impl Lock {
    /// Takes the lock of a role, making the directory (0700) if need be.
    pub fn acquire(dir: &Path, role: Role) -> Result<Lock, LockError> {
        let wrong = |cause: io::Error| LockError::Directory { dir: dir.to_owned(), cause };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(wrong)?;
        let mut file = open(dir, role).map_err(|errno| wrong(errno.into()))?;
        for attempt in 1.. {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if attempt < TRIES => std::thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => {
                    return Err(LockError::Held { role, dir: dir.to_owned(), pid: pid_in(&mut file) });
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(wrong(errno.into())),
            }
        }
        file.set_len(0).map_err(wrong)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(wrong)?;
        Ok(Lock { dir: dir.to_owned(), _file: file })
    }

    /// The runtime directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Looks whether the holder of a role lives, without ever becoming it.
#[derive(Debug)]
pub struct Watch {
    file: File,
}

impl Watch {
    /// A watch on a role. Needs the right to write the directory.
    pub fn new(dir: &Path, role: Role) -> Result<Watch, LockError> {
        let file = open(dir, role)
            .map_err(|errno| LockError::Directory { dir: dir.to_owned(), cause: errno.into() })?;
        Ok(Watch { file })
    }

    /// Whether somebody holds the role now.
    pub fn is_held(&self) -> bool {
        match rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                // Unlocking a descriptor we hold cannot fail; were it to, the next look would still be right.
                let _unlocked = rustix::fs::flock(&self.file, FlockOperation::Unlock);
                false
            }
            // Also on errors that never happen here (EINTR, ENOLCK): a peer is dead only when that is certain.
            Err(_) => true,
        }
    }

    /// What the last holder wrote as its pid.
    pub fn pid(&mut self) -> Pid {
        pid_in(&mut self.file)
    }
}

fn open(dir: &Path, role: Role) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(dir.join(role.file()), flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

fn pid_in(file: &mut File) -> Pid {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(16).read_to_string(&mut text));
    Pid(read.ok().and_then(|_| text.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_is_refused_by_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::acquire(dir.path(), Role::DataPlane).unwrap();
        let error = Lock::acquire(dir.path(), Role::DataPlane).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        assert!(error.starts_with("weft-dataplane is already running in "), "{error}");
        drop(first);
        Lock::acquire(dir.path(), Role::DataPlane).unwrap();
    }

    #[test]
    fn the_two_roles_do_not_exclude_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let _data = Lock::acquire(dir.path(), Role::DataPlane).unwrap();
        Lock::acquire(dir.path(), Role::ControlPlane).unwrap();
    }

    #[test]
    fn a_watch_sees_the_holder_come_and_go_and_never_keeps_the_role() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(dir.path(), Role::ControlPlane).unwrap();
        assert!(!watch.is_held());
        let lock = Lock::acquire(dir.path(), Role::ControlPlane).unwrap();
        assert!(watch.is_held());
        assert_eq!(watch.pid(), Pid(Some(std::process::id())));
        drop(lock);
        assert!(!watch.is_held());
        Lock::acquire(dir.path(), Role::ControlPlane).unwrap();
    }

    #[test]
    fn a_runtime_dir_that_cannot_be_is_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = Lock::acquire(&file.join("weft"), Role::DataPlane).unwrap_err();
        // What the sentence says already must not be its source: who prints the chain would say it twice.
        assert!(std::error::Error::source(&error).is_none());
        let error = error.to_string();
        assert!(error.contains("set runtime_dir"), "{error}");
    }
}
