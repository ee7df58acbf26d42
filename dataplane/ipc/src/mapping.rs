//! The tables' memory: a file with a name, mapped once, that outlives the process.
//!
//! Why it exists: a data plane that is killed or upgraded must break no connection, so its successor finds the
//! tables, the key they are hashed under, and the directory of what their ids mean where it left them
//! ([`Mapping::attach`]). At their size the page size is felt, so the memory is a file: on a hugetlbfs mount when
//! one has enough free pages, else in the runtime directory (a tmpfs), with transparent huge pages where the kernel
//! gives them.
//!
//! ```text
//! page 0       header: what the file is, the secret key, the heartbeat, which record counts   (mapping/header.rs)
//! 2 x 3 MiB    two records of the directory, of which one counts                              (mapping/record.rs)
//! the rest     flow table, token table
//! ```
//!
//! Invariants:
//! - all memory is there before `attach` or `create` returns, or they fail: never SIGBUS, never an allocation later;
//! - the file is 0600, and belongs to whoever holds the data plane's lock of the runtime directory;
//! - what is attached was made by this user, in this boot, with this layout, for tables of this size, and a
//!   configuration was committed to it: everything else is [`Unkept`], a sentence for the log, and the caller makes
//!   new memory. The layout's version is not the segment's, so that upgrading the rings keeps the tables;
//! - the file stays when the process is killed, and is removed when a `Mapping` is dropped that was not told to
//!   [`Mapping::keep`] it.

mod file;
mod header;
mod record;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub use self::file::available_memory;
pub use self::header::Secret;
use self::record::RECORD_LINES;
pub use self::record::{MAX_BYTES as MAX_DIRECTORY, RecordError};
use crate::boot;
pub use crate::lines::HugePages;
use crate::lines::{LINE, Lines, Region};
use crate::liveness::Lock;
use crate::segment::reserve;

/// The first eight bytes of the mapping: "WEFTTAB" and a zero.
pub const TABLE_MAGIC: u64 = u64::from_le_bytes(*b"WEFTTAB\0");

/// Version of what the header and the tables write. Raise it when an entry's form, a hash, the order of ranges or
/// the header changes: a successor of another version starts with empty tables.
pub const TABLE_LAYOUT: u64 = if crate::scramble::IS_AES { 5 } else { 0x105 };

/// Lines in front of the tables: the header's page and the records.
const HEAD_LINES: usize = header::LINES + 2 * RECORD_LINES;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// What the tables need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Lines of the flow table.
    pub flow_lines: usize,
    /// Lines of the token table.
    pub token_lines: usize,
    /// The best pages it may lie on: hugetlbfs, transparent or small ones.
    pub best: HugePages,
}

impl Shape {
    /// Bytes of the file, pages not rounded up.
    fn bytes(&self) -> usize {
        let tables = self.flow_lines.saturating_add(self.token_lines);
        tables.saturating_add(HEAD_LINES).saturating_mul(LINE)
    }
}

/// Why there is no memory for the tables.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// The file system or the memory has no room.
    #[error(
        "the tables need {} MiB and {path} has no room for them: make dataplane.flows and dataplane.tokens \
         smaller, or give the file system or the huge pages more memory",
        bytes.div_ceil(1 << 20), path = path.display()
    )]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// How much it needs.
        bytes: usize,
    },
    /// Any other error of the system.
    #[error("cannot use {path} for the tables: {cause}; check that this user may write there", path = path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// There are no random numbers for the key.
    #[error("the system gives no random numbers for the tables' key: {0}")]
    Random(io::Error),
}

/// Why there are no kept tables, or why those there are cannot be used. A clause for the log.
#[derive(Debug, thiserror::Error)]
pub enum Unkept {
    /// No file.
    #[error("no data plane before this one left any")]
    None,
    /// The name stands for something else than a file of its own.
    #[error("{path} is {what}, not a file of tables", path = path.display())]
    NotAFile {
        /// The name.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Another user made it, who could shorten it under us.
    #[error("{path} belongs to user {owner} and not to user {user}", path = path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Others may read its key or write its entries.
    #[error("{path} has mode {mode:04o} and not 0600: others may have read its key", path = path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Shorter or longer than its header says, or shorter than a header.
    #[error("{path} has {found} bytes and should have {expected}: it was cut off or never finished", path = path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// What its size should be.
        expected: u64,
    },
    /// No header of ours, or one that its checksum does not fit.
    #[error("the header of {path} is damaged or was never finished", path = path.display())]
    Header {
        /// The file.
        path: PathBuf,
    },
    /// Another version wrote it.
    #[error("{path} has table layout {theirs} and this program has {TABLE_LAYOUT}", path = path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// Its layout.
        theirs: u64,
    },
    /// The machine was started since; a time in it says nothing.
    #[error("{path} is from before the machine was last started", path = path.display())]
    Boot {
        /// The file.
        path: PathBuf,
    },
    /// `dataplane.flows` or `dataplane.tokens` changed.
    #[error("the configuration asks for tables of another size than those of {path}", path = path.display())]
    Shape {
        /// The file.
        path: PathBuf,
    },
    /// `dataplane.huge_pages` was switched off.
    #[error("{path} lies on huge pages, and the configuration wants none", path = path.display())]
    Pages {
        /// The file.
        path: PathBuf,
    },
    /// It was made and never configured, or its directory is damaged.
    #[error("the directory in {path} {cause}", path = path.display())]
    Directory {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: RecordError,
    },
    /// The system does not let us use it.
    #[error("{path} cannot be used: {cause}", path = path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// The mapping: header, directory and the memory of both tables.
#[derive(Debug)]
pub struct Mapping {
    lines: Lines,
    shape: Shape,
    pages: HugePages,
    page_bytes: usize,
    path: PathBuf,
    secret: Secret,
    last_alive: u64,
    keep: bool,
}

impl Mapping {
    /// The memory that a data plane before this one left, if it fits and is sound. The lock proves that nobody else
    /// uses it. It is kept, unless told otherwise.
    ///
    /// # Errors
    /// Why the tables must start empty; what is there is left as it is.
    pub fn attach(lock: &Lock, shape: &Shape) -> Result<Mapping, Unkept> {
        let mut unkept = Unkept::None;
        for (path, pages) in file::names(lock.dir()) {
            match Self::attach_file(&path, pages, shape) {
                Ok(mapping) => {
                    file::remove_all(lock.dir(), Some(&path));
                    return Ok(mapping);
                }
                Err(Unkept::None) => {}
                Err(reason) => unkept = reason,
            }
        }
        Err(unkept)
    }

    fn attach_file(path: &Path, pages: HugePages, shape: &Shape) -> Result<Mapping, Unkept> {
        let system = |errno: Errno| Unkept::System { path: path.to_owned(), cause: errno.into() };
        let file = file::open_kept(path)?;
        let known = header::read(&file, path)?;
        if (known.flow_lines, known.token_lines) != (shape.flow_lines, shape.token_lines) {
            return Err(Unkept::Shape { path: path.to_owned() });
        }
        if pages == HugePages::Hugetlbfs && shape.best != HugePages::Hugetlbfs {
            return Err(Unkept::Pages { path: path.to_owned() });
        }
        let page_bytes = file::page_bytes(&file).map_err(system)?;
        let page_bytes = if pages == HugePages::Hugetlbfs { page_bytes } else { 4096 };
        file::check_size(&file, path, &known, shape, page_bytes)?;
        // Its pages are there; were one not (a hole), a touch could be a SIGBUS.
        reserve(&file, known.bytes).map_err(system)?;
        let bytes = usize::try_from(known.bytes).unwrap_or(usize::MAX);
        let region = Region::shared(file.as_fd(), bytes, false).map_err(system)?;
        let small = pages != HugePages::Hugetlbfs;
        let advised = small && shape.best != HugePages::Small && region.advise_huge();
        // Refused by an old kernel: the pages are there, only their first touch costs a fault.
        let _populated = region.populate();
        let pages = match pages {
            HugePages::Hugetlbfs => HugePages::Hugetlbfs,
            _ if advised && file::has_huge_pages(&region) => HugePages::Transparent,
            _ => HugePages::Small,
        };
        let lines = Lines::from_region(region);
        let last_alive = header::last_alive(&lines);
        if last_alive < known.created_ns / SECOND || last_alive > boot::now_ns() / SECOND {
            return Err(Unkept::Header { path: path.to_owned() });
        }
        record::load(&lines).map_err(|cause| Unkept::Directory { path: path.to_owned(), cause })?;
        let (shape, path, secret) = (*shape, path.to_owned(), known.secret);
        Ok(Mapping { lines, shape, pages, page_bytes, path, secret, last_alive, keep: true })
    }

    /// Makes empty memory under a new key, in place of what may be there, on the best pages there are but no better
    /// than `shape.best`. The lock proves that nobody else uses the file of this runtime directory. It is removed
    /// with the value, unless told to [`Mapping::keep`].
    ///
    /// # Errors
    /// There is no room, or the system refuses.
    pub fn create(lock: &Lock, shape: &Shape) -> Result<Mapping, MappingError> {
        file::remove_all(lock.dir(), None);
        let secret = Secret::random().map_err(|errno| MappingError::Random(errno.into()))?;
        if shape.best == HugePages::Hugetlbfs
            && let Some(mapping) = Self::on_hugetlbfs(lock.dir(), shape, &secret)
        {
            return Ok(mapping);
        }
        let path = file::small_name(lock.dir());
        let made = Self::on_small_pages(&path, shape, &secret);
        if made.is_err() {
            // The error that made us give up says more than one about cleaning up.
            let _removed = std::fs::remove_file(&path);
        }
        made
    }

    /// On the first hugetlbfs mount that can really give the pages.
    fn on_hugetlbfs(dir: &Path, shape: &Shape, secret: &Secret) -> Option<Mapping> {
        let huge = file::names(dir).into_iter().filter(|(_, pages)| *pages == HugePages::Hugetlbfs);
        for (path, pages) in huge {
            if let Some((lines, page_bytes)) = file::huge(&path, shape.bytes()) {
                return Some(Self::made(lines, shape, pages, page_bytes, path, secret));
            }
            // The next mount, or small pages: nothing is left behind here.
            let _removed = std::fs::remove_file(&path);
        }
        None
    }

    fn on_small_pages(path: &Path, shape: &Shape, secret: &Secret) -> Result<Mapping, MappingError> {
        let system = |cause: io::Error| MappingError::System { path: path.to_owned(), cause };
        let bytes = shape.bytes();
        let no_room = || MappingError::NoRoom { path: path.to_owned(), bytes };
        let length = u64::try_from(bytes).map_err(|_| no_room())?;
        let file = file::new(path).map_err(|errno| system(errno.into()))?;
        if !file::has_room(&file, length) {
            return Err(no_room());
        }
        rustix::fs::ftruncate(&file, length).map_err(|_| no_room())?;
        let region = Region::shared(file.as_fd(), bytes, false).map_err(|errno| system(errno.into()))?;
        // Advice first: it decides what populating allocates. What populating could not give, `reserve` gives
        // or says why not; after both, every page exists.
        let advised = shape.best != HugePages::Small && region.advise_huge();
        let _populated = region.populate();
        match reserve(&file, length) {
            Err(Errno::NOSPC | Errno::NOMEM | Errno::DQUOT) => return Err(no_room()),
            result => result.map_err(|errno| system(errno.into()))?,
        }
        let pages =
            if advised && file::has_huge_pages(&region) { HugePages::Transparent } else { HugePages::Small };
        Ok(Self::made(Lines::from_region(region), shape, pages, 4096, path.to_owned(), secret))
    }

    /// Memory that is all there and all zero, with its header.
    fn made(
        lines: Lines,
        shape: &Shape,
        pages: HugePages,
        page_bytes: usize,
        path: PathBuf,
        secret: &Secret,
    ) -> Mapping {
        let now = boot::now_ns();
        header::write(&lines, shape, secret, now);
        let secret = secret.clone();
        Mapping {
            lines,
            shape: *shape,
            pages,
            page_bytes,
            path,
            secret,
            last_alive: now / SECOND,
            keep: false,
        }
    }

    /// The flow table's memory.
    pub fn flows(&self) -> Lines {
        self.table(HEAD_LINES, self.shape.flow_lines)
    }

    /// The token table's memory.
    pub fn tokens(&self) -> Lines {
        self.table(HEAD_LINES + self.shape.flow_lines, self.shape.token_lines)
    }

    fn table(&self, from: usize, count: usize) -> Lines {
        // Inside, as the file was made or found this long; were it not, an empty table is full and knows nothing.
        self.lines.part(from..from.saturating_add(count)).unwrap_or_else(|| Lines::heap(0))
    }

    /// The key both tables are hashed under.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// When the data plane that left this memory last lived, in seconds of CLOCK_BOOTTIME; when it was made, if
    /// nobody left it.
    pub fn last_alive(&self) -> u64 {
        self.last_alive
    }

    /// Says that this data plane lives, in seconds of CLOCK_BOOTTIME. Once a second; a successor reckons by it how
    /// long nobody was there.
    pub fn beat(&self, now: u64) {
        header::beat(&self.lines, now);
    }

    /// The directory as last saved.
    ///
    /// # Errors
    /// None was saved yet, or it is damaged.
    pub fn directory(&self) -> Result<Vec<u8>, RecordError> {
        record::load(&self.lines)
    }

    /// Saves the directory: killed at whatever moment, this one or the one before counts, whole.
    ///
    /// # Errors
    /// It is larger than [`MAX_DIRECTORY`]; none counts then, not even the one before.
    pub fn save_directory(&self, bytes: &[u8]) -> Result<(), RecordError> {
        record::save(&self.lines, bytes)
    }

    /// Kills the process before the store `last + 1` into this memory.
    #[cfg(weft_kill)]
    pub fn kill_after(&self, last: u64) {
        crate::sync::kill::after(&self.lines, last);
    }

    /// Whether the file stays for a successor when this value is dropped.
    pub fn keep(&mut self, keep: bool) {
        self.keep = keep;
    }

    /// The kind of pages it lies on.
    pub fn pages(&self) -> HugePages {
        self.pages
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> usize {
        self.lines.len() * LINE
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes what a data plane that is no more left in a runtime directory; gives the files and their sizes in bytes.
/// The lock proves that it is no more.
///
/// # Errors
/// The first file that cannot be removed.
pub fn forget(lock: &Lock) -> Result<Vec<(PathBuf, u64)>, MappingError> {
    let mut forgotten = Vec::new();
    for (path, _) in file::names(lock.dir()) {
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            result => result.map_err(|cause| MappingError::System { path: path.clone(), cause })?,
        }
        forgotten.push((path, metadata.len()));
    }
    Ok(forgotten)
}

/// For the log: size, pages, file.
impl core::fmt::Display for Mapping {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mebibytes = self.bytes().div_ceil(1 << 20);
        let path = self.path.display();
        match self.pages {
            HugePages::Hugetlbfs => {
                write!(f, "{mebibytes} MiB on huge pages of {} MiB in {path}", self.page_bytes >> 20)
            }
            HugePages::Transparent => write!(f, "{mebibytes} MiB on transparent huge pages in {path}"),
            HugePages::Small => {
                write!(f, "{mebibytes} MiB on 4 KiB pages in {path}: huge pages would be faster")
            }
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.keep {
            // Tables still in use keep the memory; only the name goes. It costs memory, no more, when it fails.
            let _removed = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
