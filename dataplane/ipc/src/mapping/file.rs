//! Files of tables: their names, how one is made with all its memory, and which of them may be trusted.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::header::{Known, fnv};
use super::{Shape, Unkept};
use crate::lines::{HugePages, Lines, Region};

/// The file's name in the runtime directory; part of a hugetlbfs file's name.
const NAME: &str = "tables";

/// The file on small pages.
pub(super) fn small_name(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Where tables of a runtime directory may lie: a file on every hugetlbfs mount, then one in the directory.
pub(super) fn names(dir: &Path) -> Vec<(PathBuf, HugePages)> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let name = hugetlbfs_name(dir);
    let huge = hugetlbfs_mounts(&mounts).map(|mount| (mount.join(&name), HugePages::Hugetlbfs));
    huge.chain([(small_name(dir), HugePages::Small)]).collect()
}

/// Removes all of them but one: their memory may be what we need. The caller holds the lock, so whoever made them is
/// dead.
pub(super) fn remove_all(dir: &Path, but: Option<&Path>) {
    for (path, _) in names(dir) {
        if Some(path.as_path()) == but {
            continue;
        }
        // Mostly there is no file; any other failure shows when the file is made.
        if std::fs::remove_file(&path).is_err() {
            // An empty folder of that name; nobody makes one on purpose.
            let _removed = std::fs::remove_dir(&path);
        }
    }
}

/// Name of a hugetlbfs file: one mount serves several runtime directories, so each has a number.
pub(super) fn hugetlbfs_name(dir: &Path) -> String {
    let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    format!("weft-{NAME}-{:016x}", fnv(dir.as_os_str().as_encoded_bytes().iter().copied()))
}

/// Mount points of hugetlbfs in the text of `/proc/mounts`.
pub(super) fn hugetlbfs_mounts(mounts: &str) -> impl Iterator<Item = PathBuf> {
    mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (_, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        // The kernel writes a space in a path as \040; such a mount is passed over.
        (kind == "hugetlbfs" && !point.contains('\\')).then(|| PathBuf::from(point))
    })
}

/// A file that is not there yet.
pub(super) fn new(path: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// A file of a data plane before this one: an ordinary file that only this user could read or write.
pub(super) fn open_kept(path: &Path) -> Result<File, Unkept> {
    let not_a_file = |what| Unkept::NotAFile { path: path.to_owned(), what };
    // Without waiting: were it a pipe, opening could.
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(Errno::NOENT) => return Err(Unkept::None),
        Err(Errno::LOOP) => return Err(not_a_file("a symbolic link")),
        Err(Errno::ISDIR) => return Err(not_a_file("a directory")),
        Err(errno) => return Err(Unkept::System { path: path.to_owned(), cause: errno.into() }),
    };
    let metadata = file.metadata().map_err(|cause| Unkept::System { path: path.to_owned(), cause })?;
    if !metadata.is_file() {
        let is_pipe = metadata.file_type().is_fifo();
        return Err(not_a_file(if is_pipe { "a pipe" } else { "a device" }));
    }
    if metadata.nlink() != 1 {
        return Err(not_a_file("a file of several names"));
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(Unkept::Owner { path: path.to_owned(), owner: metadata.uid(), user });
    }
    let mode = metadata.mode() & 0o7777;
    if mode != 0o600 {
        return Err(Unkept::Mode { path: path.to_owned(), mode });
    }
    Ok(file)
}

/// Bytes of a page of the file system.
pub(super) fn page_bytes(file: &File) -> rustix::io::Result<usize> {
    let size = rustix::fs::fstatfs(file)?.f_bsize;
    usize::try_from(size).ok().filter(|size| *size > 0).ok_or(Errno::INVAL)
}

/// Whether a file is as long as its header says, and that as long as its tables need.
pub(super) fn check_size(
    file: &File,
    path: &Path,
    known: &Known,
    shape: &Shape,
    page_bytes: usize,
) -> Result<(), Unkept> {
    let needed = match page_bytes {
        4096 => Some(shape.bytes()),
        huge => shape.bytes().checked_next_multiple_of(huge),
    };
    let expected = needed.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(u64::MAX);
    let found = file.metadata().map_err(|cause| Unkept::System { path: path.to_owned(), cause })?.len();
    for size in [known.bytes, found] {
        if size != expected {
            return Err(Unkept::Size { path: path.to_owned(), found: size, expected });
        }
    }
    Ok(())
}

/// Whether the file system and the memory have this much to give: asked first, so that a slip of the pen in the
/// configuration fills neither to the brim before it fails. Memory is asked for on a disk's file system as well:
/// tables that do not fit into it would be written to the disk for minutes, and then read from it for each packet.
pub(super) fn has_room(file: &File, bytes: u64) -> bool {
    // What cannot be asked is left to the reservation.
    let Ok(volume) = rustix::fs::fstatvfs(file) else {
        return true;
    };
    volume.f_bavail.saturating_mul(volume.f_frsize) >= bytes && available_memory() >= bytes
}

/// Bytes of memory the kernel thinks it could give without swapping; all there could be where it does not say.
pub fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map_or(u64::MAX, |kilobytes| kilobytes.saturating_mul(1024))
}

/// A file of huge pages, all of them reserved and provided; `None` when that is not to be had.
pub(super) fn huge(path: &Path, bytes: usize) -> Option<(Lines, usize)> {
    let file = new(path).ok()?;
    let page_bytes = page_bytes(&file).ok()?;
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
pub(super) fn has_huge_pages(region: &Region) -> bool {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    huge_kilobytes(&smaps, region.address()) > 0
}

/// Kilobytes on huge pages of the mapping at `address`, in the text of `/proc/self/smaps`.
pub(super) fn huge_kilobytes(smaps: &str, address: usize) -> u64 {
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
