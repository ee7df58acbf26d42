//! The tables' memory: a file with a name, mapped once, cut into ranges of lines.
//!
//! Why it exists: the tables must be able to outlive the process (a later data plane re-attaches them), and
//! at their size the page size is felt. So the memory is a file: on a hugetlbfs mount when one has enough free
//! pages, else in the runtime directory (a tmpfs), with transparent huge pages where the kernel gives them.
//!
//! Invariants:
//! - all memory is there before `create` returns, or it fails: never SIGBUS, never an allocation later;
//! - the file is 0600, and belongs to whoever holds the data plane's lock of the runtime directory;
//! - line 0 is the header: magic, [`TABLE_LAYOUT`], size, boot id, time of creation, and a checksum over them.
//!   The layout version of the tables is not the segment's, so that upgrading the rings keeps the tables.
//!
//! Not yet: re-attaching. `create` always begins with empty memory, and dropping the mapping removes the file.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub use crate::lines::HugePages;
use crate::lines::{LINE, Lines, Region};
use crate::liveness::Lock;
use crate::segment::{boot_id, boottime_ns, reserve};
use crate::sync::Ordering;

/// The first eight bytes of the mapping: "WEFTTAB" and a zero.
pub const TABLE_MAGIC: u64 = u64::from_le_bytes(*b"WEFTTAB\0");

/// Version of what the tables write. Raise it when an entry's form, a hash, or the order of ranges changes.
pub const TABLE_LAYOUT: u64 = 1;

/// Lines in front of the tables: the header's, and the rest of its page.
const HEAD_LINES: usize = 4096 / LINE;

/// The file's name in the runtime directory; part of a hugetlbfs file's name.
const NAME: &str = "tables";

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
    /// The caller took more than it asked for.
    #[error("the tables' mapping has {left} lines left, {asked} were asked for")]
    Spent {
        /// Lines left.
        left: usize,
        /// Lines asked for.
        asked: usize,
    },
}

/// The mapping, given out piece by piece.
#[derive(Debug)]
pub struct Mapping {
    lines: Lines,
    taken: usize,
    pages: HugePages,
    page_bytes: usize,
    path: PathBuf,
}

impl Mapping {
    /// Makes an empty mapping with room for `lines` lines, on the best pages there are but no better than
    /// `best`. The lock proves that nobody else uses the file of this runtime directory.
    pub fn create(lock: &Lock, lines: usize, best: HugePages) -> Result<Mapping, MappingError> {
        let bytes = lines.saturating_add(HEAD_LINES).saturating_mul(LINE);
        remove_leftovers(lock.dir());
        if best == HugePages::Hugetlbfs
            && let Some(mapping) = Self::on_hugetlbfs(lock.dir(), bytes)
        {
            return Ok(mapping);
        }
        let path = lock.dir().join(NAME);
        let made = Self::on_small_pages(&path, bytes, best != HugePages::Small);
        if made.is_err() {
            // The error that made us give up says more than one about cleaning up.
            let _removed = std::fs::remove_file(&path);
        }
        made
    }

    /// On the first hugetlbfs mount that can really give the pages.
    fn on_hugetlbfs(dir: &Path, bytes: usize) -> Option<Mapping> {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        for mount in hugetlbfs_mounts(&mounts) {
            let path = mount.join(hugetlbfs_name(dir));
            if let Some((lines, page_bytes)) = huge_file(&path, bytes) {
                write_header(&lines);
                return Some(Mapping {
                    lines,
                    taken: HEAD_LINES,
                    pages: HugePages::Hugetlbfs,
                    page_bytes,
                    path,
                });
            }
            // The next mount, or small pages: nothing is left behind here.
            let _removed = std::fs::remove_file(&path);
        }
        None
    }

    fn on_small_pages(path: &Path, bytes: usize, transparent: bool) -> Result<Mapping, MappingError> {
        let system = |cause: io::Error| MappingError::System { path: path.to_owned(), cause };
        let no_room = || MappingError::NoRoom { path: path.to_owned(), bytes };
        let length = u64::try_from(bytes).map_err(|_| no_room())?;
        let file = new_file(path).map_err(|errno| system(errno.into()))?;
        if !has_room(&file, length) {
            return Err(no_room());
        }
        rustix::fs::ftruncate(&file, length).map_err(|_| no_room())?;
        let region = Region::shared(file.as_fd(), bytes, false).map_err(|errno| system(errno.into()))?;
        // Advice first: it decides what populating allocates. What populating could not give, `reserve` gives
        // or says why not; after both, every page exists.
        let advised = transparent && region.advise_huge();
        let _populated = region.populate();
        match reserve(&file, length) {
            Err(Errno::NOSPC | Errno::NOMEM | Errno::DQUOT) => return Err(no_room()),
            result => result.map_err(|errno| system(errno.into()))?,
        }
        let pages =
            if advised && has_huge_pages(&region) { HugePages::Transparent } else { HugePages::Small };
        let lines = Lines::from_region(region);
        write_header(&lines);
        Ok(Mapping { lines, taken: HEAD_LINES, pages, page_bytes: 4096, path: path.to_owned() })
    }

    /// The next `count` lines. Ranges follow each other in the order they are taken, which is part of
    /// [`TABLE_LAYOUT`].
    pub fn take(&mut self, count: usize) -> Result<Lines, MappingError> {
        let left = self.lines.len().saturating_sub(self.taken);
        let spent = MappingError::Spent { left, asked: count };
        let end = self.taken.checked_add(count);
        let part = end.and_then(|end| self.lines.part(self.taken..end)).ok_or(spent)?;
        self.taken += count;
        Ok(part)
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
        // Tables still in use keep the memory; only the name goes. It costs memory, no more, when it fails.
        let _removed = std::fs::remove_file(&self.path);
    }
}

/// Removes the files of a predecessor that was killed: their memory may be what we need. The caller holds the
/// lock, so the predecessor is dead.
fn remove_leftovers(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let huge = hugetlbfs_mounts(&mounts).map(|mount| mount.join(hugetlbfs_name(dir)));
    for path in huge.chain([dir.join(NAME)]) {
        // Mostly there is no file; any other failure shows when the file is made.
        let _removed = std::fs::remove_file(path);
    }
}

/// Whether the file system and the memory have this much to give: asked first, so that a slip of the pen in the
/// configuration fills neither to the brim before it fails. Memory is asked for on a disk's file system as well:
/// tables that do not fit into it would be written to the disk for minutes, and then read from it for each packet.
fn has_room(file: &File, bytes: u64) -> bool {
    // What cannot be asked is left to the reservation.
    let Ok(volume) = rustix::fs::fstatvfs(file) else {
        return true;
    };
    volume.f_bavail.saturating_mul(volume.f_frsize) >= bytes && available_memory() >= bytes
}

/// Bytes of memory the kernel thinks it could give without swapping.
fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map_or(u64::MAX, |kilobytes| kilobytes.saturating_mul(1024))
}

fn new_file(path: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// Name of a hugetlbfs file: one mount serves several runtime directories, so each has a number.
fn hugetlbfs_name(dir: &Path) -> String {
    let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    format!("weft-{NAME}-{:016x}", fnv(dir.as_os_str().as_encoded_bytes().iter().copied()))
}

/// Mount points of hugetlbfs in the text of `/proc/mounts`.
fn hugetlbfs_mounts(mounts: &str) -> impl Iterator<Item = PathBuf> {
    mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (_, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        // The kernel writes a space in a path as \040; such a mount is passed over.
        (kind == "hugetlbfs" && !point.contains('\\')).then(|| PathBuf::from(point))
    })
}

/// A file of huge pages, all of them reserved and provided; `None` when that is not to be had.
fn huge_file(path: &Path, bytes: usize) -> Option<(Lines, usize)> {
    let file = new_file(path).ok()?;
    let page_bytes =
        usize::try_from(rustix::fs::fstatfs(&file).ok()?.f_bsize).ok().filter(|size| *size > 0)?;
    let whole = bytes.checked_next_multiple_of(page_bytes)?;
    let length = u64::try_from(whole).ok()?;
    rustix::fs::ftruncate(&file, length).ok()?;
    // Mapping reserves all pages or fails at once; allocating them makes sure (a cgroup may still refuse), and
    // populating makes them present. A mapping made on a promise would be a SIGBUS later.
    let region = Region::shared(file.as_fd(), whole, false).ok()?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length).ok()?;
    // Refused by an old kernel: the pages are there, only their first touch costs a fault.
    let _populated = region.populate();
    Some((Lines::from_region(region), page_bytes))
}

/// Whether the kernel has put huge pages under any part of it.
fn has_huge_pages(region: &Region) -> bool {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    huge_kilobytes(&smaps, region.address()) > 0
}

/// Kilobytes on huge pages of the mapping at `address`, in the text of `/proc/self/smaps`.
fn huge_kilobytes(smaps: &str, address: usize) -> u64 {
    let first = format!("{address:x}-");
    let of_mapping =
        smaps.lines().skip_while(|line| !line.trim_start_matches('0').starts_with(&first)).skip(1);
    // Its lines have the form "Name: value kB"; the next mapping's begins with an address.
    of_mapping
        .take_while(|line| line.split_once(':').is_some_and(|(name, _)| !name.contains('-')))
        .filter(|line| line.starts_with("ShmemPmdMapped:") || line.starts_with("FilePmdMapped:"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

/// The header, checksum last.
fn write_header(lines: &Lines) {
    let boot = boot_id();
    let bytes = u64::try_from(lines.len() * LINE).unwrap_or(u64::MAX);
    let fields = [TABLE_MAGIC, TABLE_LAYOUT, bytes, boottime_ns(), boot[0], boot[1], 0];
    for (index, value) in fields.into_iter().chain([checksum(&fields)]).enumerate() {
        if let Some(word) = lines.word(index) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

/// Of the header's words: against a header half written, not against an adversary.
fn checksum(words: &[u64]) -> u64 {
    fnv(words.iter().flat_map(|word| word.to_le_bytes()))
}

/// FNV-1a.
fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::Role;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_kernel_says_how_much_memory_is_available() {
        assert!((1..u64::MAX).contains(&available_memory()));
    }

    fn lock() -> (tempfile::TempDir, Lock) {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::acquire(dir.path(), Role::DataPlane).unwrap();
        (dir, lock)
    }

    #[test]
    fn ranges_follow_each_other_and_end_where_the_mapping_ends() {
        let (_dir, lock) = lock();
        let mut mapping = Mapping::create(&lock, 100, HugePages::Small).unwrap();
        assert_eq!(mapping.pages(), HugePages::Small);
        let first = mapping.take(60).unwrap();
        let second = mapping.take(40).unwrap();
        first[59].0[7].store(1, Ordering::Relaxed);
        second[0].0[0].store(2, Ordering::Relaxed);
        assert_eq!(first[59].0[7].load(Ordering::Relaxed), 1);
        assert!(matches!(mapping.take(1), Err(MappingError::Spent { left: 0, asked: 1 })));
        assert!(mapping.take(usize::MAX).is_err());
    }

    #[test]
    fn the_file_is_private_whole_and_goes_with_the_mapping_but_the_memory_stays() {
        let (dir, lock) = lock();
        let mut mapping = Mapping::create(&lock, 1000, HugePages::Transparent).unwrap();
        let metadata = std::fs::metadata(mapping.path()).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        assert_eq!(usize::try_from(metadata.len()).unwrap(), mapping.bytes());
        use std::os::unix::fs::MetadataExt;
        assert!(metadata.blocks() * 512 >= metadata.len(), "all of it is reserved");
        let table = mapping.take(1000).unwrap();
        drop(mapping);
        assert!(!dir.path().join(NAME).exists());
        table[999].0[0].store(3, Ordering::Relaxed);
        assert_eq!(table[999].0[0].load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_leftover_of_a_killed_predecessor_is_replaced_by_empty_memory() {
        let (dir, lock) = lock();
        std::fs::write(dir.path().join(NAME), vec![0xff; 1 << 16]).unwrap();
        let mut mapping = Mapping::create(&lock, 100, HugePages::Hugetlbfs).unwrap();
        let table = mapping.take(100).unwrap();
        assert!(table.iter().flat_map(|line| &line.0).all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn the_header_names_layout_size_and_boot_under_a_checksum() {
        let (_dir, lock) = lock();
        let mapping = Mapping::create(&lock, 10, HugePages::Small).unwrap();
        let bytes = std::fs::read(mapping.path()).unwrap();
        let words: Vec<u64> =
            bytes[..64].as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        assert_eq!(words[..3], [TABLE_MAGIC, TABLE_LAYOUT, u64::try_from(mapping.bytes()).unwrap()]);
        assert_eq!(words[4..6], boot_id());
        assert_eq!(words[7], checksum(&words[..7]));
        assert_ne!(words[7], checksum(&words[..6]));
    }

    #[test]
    fn more_than_any_file_system_has_is_a_sentence_and_leaves_nothing() {
        let (dir, lock) = lock();
        for lines in [1 << 40, 1 << 50, usize::MAX] {
            let error = Mapping::create(&lock, lines, HugePages::Hugetlbfs).unwrap_err();
            assert!(error.to_string().contains("dataplane.flows"), "{error}");
            assert!(!dir.path().join(NAME).exists());
        }
    }

    /// Needs a hugetlbfs mount and two free pages; says so where it cannot run.
    #[test]
    fn huge_pages_are_used_where_they_are_and_never_promised_where_they_are_not() {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let Some(mount) = hugetlbfs_mounts(&mounts).next() else {
            println!("skipped: no hugetlbfs is mounted");
            return;
        };
        let (dir, lock) = lock();
        // More than any machine has: refused when it is made, not by a SIGBUS when it is touched.
        let probe = mount.join(hugetlbfs_name(dir.path()));
        assert!(huge_file(&probe, 1 << 44).is_none());
        std::fs::remove_file(&probe).unwrap();
        let mut mapping = Mapping::create(&lock, 40_000, HugePages::Hugetlbfs).unwrap();
        if mapping.pages() != HugePages::Hugetlbfs {
            println!("skipped: no huge pages are free");
            return;
        }
        let file = mapping.path().to_owned();
        let table = mapping.take(40_000).unwrap();
        for line in table.iter() {
            line.0[0].store(1, Ordering::Relaxed);
        }
        // Killed without a drop: the successor finds the file and begins anew, with the same pages.
        std::mem::forget(mapping);
        drop(table);
        assert!(file.exists());
        let mut successor = Mapping::create(&lock, 40_000, HugePages::Hugetlbfs).unwrap();
        let table = successor.take(40_000).unwrap();
        assert!(table.iter().all(|line| line.0[0].load(Ordering::Relaxed) == 0));
        drop(successor);
        assert!(!file.exists());
    }

    #[test]
    fn tables_larger_than_the_memory_are_refused_at_once_whatever_the_disk_has() {
        let (dir, lock) = lock();
        let lines = usize::try_from(available_memory() / 64 * 2).unwrap();
        let error = Mapping::create(&lock, lines, HugePages::Small).unwrap_err();
        assert!(matches!(error, MappingError::NoRoom { .. }), "{error}");
        assert!(!dir.path().join(NAME).exists());
    }

    #[test]
    fn hugetlbfs_mounts_are_found_among_others() {
        let mounts = "proc /proc proc rw 0 0\nnodev /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n\
                      tmpfs /hugetlbfs tmpfs rw 0 0\nnodev /with\\040space hugetlbfs rw 0 0\nnodev /mnt/1G hugetlbfs rw 0 0";
        let found: Vec<_> = hugetlbfs_mounts(mounts).collect();
        assert_eq!(found, [PathBuf::from("/dev/hugepages"), PathBuf::from("/mnt/1G")]);
    }

    #[test]
    fn huge_pages_are_read_from_the_mapping_asked_about_and_no_other() {
        let smaps = "7f0000000000-7f0000200000 rw-s 00000000 00:19 5 /run/weft/tables\nRss: 2048 kB\n\
                     ShmemPmdMapped: 2048 kB\nVmFlags: rd wr\n\
                     7f0000200000-7f0000400000 rw-s 00000000 00:19 6 /other\nShmemPmdMapped: 0 kB\n";
        assert_eq!(huge_kilobytes(smaps, 0x7f00_0000_0000), 2048);
        assert_eq!(huge_kilobytes(smaps, 0x7f00_0020_0000), 0);
        assert_eq!(huge_kilobytes(smaps, 0x1000), 0);
    }
}
