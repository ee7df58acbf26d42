//! The file both processes map: made by the data plane, opened by the control plane.
//!
//! Life cycle: the data plane writes a new file under a temporary name, reserves its memory, fills the header,
//! and renames it into place. The rename publishes: nobody sees a segment half made. A restarted data plane
//! makes a new file; the old one lives on, unnamed, for whoever has it mapped, and `Segment::is_replaced`
//! tells them.
//!
//! Trust: the opener reads the header once, from the file, before it maps anything, and checks owner, magic,
//! version, layout and size. Everything after goes through the checks of [`crate::ring`] and
//! [`crate::message`].
//!
//! A limit we accept: a mapped file that is made shorter ends whoever touches the lost part with SIGBUS. Only
//! this user and root can open the file for writing (0600, and the opener refuses a file of another user),
//! and they can end the processes anyhow; no code of ours shortens a segment. The kernel's remedy, sealed
//! memory, has no name in a file system, so it would need a socket to hand it over. Memory that runs out is no
//! such risk: all of it is reserved at creation.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::boot;
use crate::layout::{ABI_VERSION, LAYOUT_HASH, MAGIC, SEGMENT_BYTES};
use crate::lines::{Lines, Region};
use crate::sync::Ordering;

/// The segment's name in the runtime directory.
const NAME: &str = "segment";

/// Why a segment could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// There is none.
    #[error(
        "there is no segment in {dir}: start weft-dataplane first, with the same runtime_dir",
        dir = dir.display()
    )]
    Missing {
        /// The runtime directory.
        dir: PathBuf,
    },
    /// The file is shorter than a header or has another beginning.
    #[error("{path} is not initialised as a segment of Weft: remove it and restart weft-dataplane", path = path.display())]
    NotInitialised {
        /// The file.
        path: PathBuf,
    },
    /// Its maker speaks another version.
    #[error(
        "version mismatch: the data plane speaks version {theirs} of the segment, this program version {ours}; \
         install the same version of both and restart them"
    )]
    Version {
        /// The segment's version.
        theirs: u64,
        /// Our version.
        ours: u32,
    },
    /// Its maker speaks this version but was built otherwise.
    #[error(
        "layout mismatch: both speak version {ABI_VERSION} of the segment, but the data plane was built with \
         layout {theirs:016x} and this program with {LAYOUT_HASH:016x}; install both from one build and restart them"
    )]
    Layout {
        /// The segment's layout hash.
        theirs: u64,
    },
    /// The file's size is not what its header says, or that is not what the layout says.
    #[error("{path} has {found} bytes in place of {SEGMENT_BYTES}: it is damaged, restart weft-dataplane", path = path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
    },
    /// The file belongs to another user, who could shorten it under us.
    #[error(
        "{path} belongs to user {owner}, this program runs as user {user}: run both programs as the same user",
        path = path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// The file system has no room.
    #[error(
        "{path} needs {bytes} bytes and its file system has less: make room there, or set runtime_dir elsewhere",
        path = path.display()
    )]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// How much it needs.
        bytes: usize,
    },
    /// Any other error of the system.
    #[error("cannot use {path}: {cause}; check that this user may write there", path = path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// A mapped segment.
#[derive(Debug)]
pub struct Segment {
    lines: Lines,
    file: File,
    path: PathBuf,
}

impl Segment {
    /// Makes a fresh segment in the runtime directory, in place of one that may be there. The caller holds the
    /// data plane's lock of that directory.
    pub(crate) fn create(dir: &Path) -> Result<Segment, SegmentError> {
        let path = dir.join(NAME);
        let temporary = dir.join(format!("{NAME}.{}.tmp", std::process::id()));
        let made = make(&temporary).and_then(|(lines, file)| {
            std::fs::rename(&temporary, &path).map_err(|cause| system(&path, cause))?;
            Ok(Segment { lines, file, path })
        });
        if made.is_err() {
            // The error that made us give up says more than one about cleaning up.
            let _removed = std::fs::remove_file(&temporary);
        }
        made
    }

    /// Opens the segment of a runtime directory.
    pub(crate) fn open(dir: &Path) -> Result<Segment, SegmentError> {
        let path = dir.join(NAME);
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(Errno::NOENT) => return Err(SegmentError::Missing { dir: dir.to_owned() }),
            Err(errno) => return Err(system(&path, errno.into())),
        };
        check(&file, &path)?;
        let region = Region::shared(file.as_fd(), SEGMENT_BYTES, false)
            .map_err(|errno| system(&path, errno.into()))?;
        Ok(Segment { lines: Lines::from_region(region), file, path })
    }

    /// Its memory.
    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Whether the name now stands for another file, or for none.
    pub(crate) fn is_replaced(&self) -> bool {
        match (self.file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(ours), Ok(named)) => (ours.dev(), ours.ino()) != (named.dev(), named.ino()),
            _ => true,
        }
    }

    /// Takes the name away. The caller holds the data plane's lock.
    pub(crate) fn unlink(&self) {
        // Nothing is lost when it fails: without a living data plane nobody uses the file.
        let _removed = std::fs::remove_file(&self.path);
    }
}

fn system(path: &Path, cause: io::Error) -> SegmentError {
    SegmentError::System { path: path.to_owned(), cause }
}

/// A complete segment under a temporary name.
fn make(path: &Path) -> Result<(Lines, File), SegmentError> {
    let wrong = |errno: Errno| system(path, errno.into());
    // A leftover of a process that had our pid.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(system(path, error)),
        _ => {}
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(wrong)?);
    let bytes = u64::try_from(SEGMENT_BYTES).unwrap_or(u64::MAX);
    rustix::fs::ftruncate(&file, bytes).map_err(wrong)?;
    match reserve(&file, bytes) {
        Err(Errno::NOSPC) => {
            return Err(SegmentError::NoRoom { path: path.to_owned(), bytes: SEGMENT_BYTES });
        }
        result => result.map_err(wrong)?,
    }
    let region = Region::shared(file.as_fd(), SEGMENT_BYTES, true).map_err(wrong)?;
    let lines = Lines::from_region(region);
    let boot_id = boot::id();
    let header = [
        MAGIC,
        u64::from(ABI_VERSION),
        LAYOUT_HASH,
        bytes,
        u64::from(std::process::id()),
        boot::now_ns(),
        boot_id[0],
        boot_id[1],
    ];
    for (index, value) in header.into_iter().enumerate() {
        if let Some(word) = lines.word(index) {
            word.store(value, Ordering::Relaxed);
        }
    }
    Ok((lines, file))
}

/// Gives a file all its memory now, so that a full file system is an error here and not a SIGBUS later.
pub(crate) fn reserve(file: &File, bytes: u64) -> rustix::io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        // A file system without reservations: write it out.
        Err(Errno::OPNOTSUPP) => write_zeroes(file, bytes),
        result => result,
    }
}

fn write_zeroes(file: &File, bytes: u64) -> rustix::io::Result<()> {
    static CHUNK: [u8; 1 << 16] = [0; 1 << 16];
    let mut at = 0;
    while at < bytes {
        let rest = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(CHUNK.len());
        let written = rustix::io::pwrite(file, CHUNK.get(..rest).unwrap_or(&CHUNK), at)?;
        at += u64::try_from(written).unwrap_or(u64::MAX).max(1);
    }
    Ok(())
}

/// Whether a file is a segment of ours: owner, then header, then size, each read once.
fn check(file: &File, path: &Path) -> Result<(), SegmentError> {
    let metadata = file.metadata().map_err(|cause| system(path, cause))?;
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(SegmentError::Owner { path: path.to_owned(), owner: metadata.uid(), user });
    }
    let mut header = [0; 64];
    match file.read_exact_at(&mut header, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(SegmentError::NotInitialised { path: path.to_owned() });
        }
        result => result.map_err(|cause| system(path, cause))?,
    }
    let mut words = header.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
    let mut next = || words.next().unwrap_or_default();
    if next() != MAGIC {
        return Err(SegmentError::NotInitialised { path: path.to_owned() });
    }
    let theirs = next();
    if theirs != u64::from(ABI_VERSION) {
        return Err(SegmentError::Version { theirs, ours: ABI_VERSION });
    }
    let theirs = next();
    if theirs != LAYOUT_HASH {
        return Err(SegmentError::Layout { theirs });
    }
    let expected = u64::try_from(SEGMENT_BYTES).unwrap_or(u64::MAX);
    for found in [next(), metadata.len()] {
        if found != expected {
            return Err(SegmentError::Size { path: path.to_owned(), found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn damaged(word: usize, value: u64) -> SegmentError {
        let dir = tempfile::tempdir().unwrap();
        let segment = Segment::create(dir.path()).unwrap();
        segment.lines().word(word).unwrap().store(value, Ordering::Relaxed);
        Segment::open(dir.path()).unwrap_err()
    }

    #[test]
    fn both_sides_see_the_same_memory() {
        let dir = tempfile::tempdir().unwrap();
        let ours = Segment::create(dir.path()).unwrap();
        let theirs = Segment::open(dir.path()).unwrap();
        ours.lines().word(100).unwrap().store(5, Ordering::Relaxed);
        assert_eq!(theirs.lines().word(100).unwrap().load(Ordering::Relaxed), 5);
        assert_eq!(theirs.lines().len() * 64, SEGMENT_BYTES);
    }

    #[test]
    fn only_its_user_may_read_it_and_no_temporary_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let _segment = Segment::create(dir.path()).unwrap();
        let entries: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn no_segment_says_to_start_the_data_plane() {
        let dir = tempfile::tempdir().unwrap();
        let error = Segment::open(dir.path()).unwrap_err();
        assert!(matches!(error, SegmentError::Missing { .. }));
        assert!(error.to_string().contains("start weft-dataplane first"));
    }

    #[test]
    fn every_damage_of_the_header_has_its_own_error() {
        assert!(matches!(damaged(0, 0), SegmentError::NotInitialised { .. }));
        assert!(matches!(damaged(1, 99), SegmentError::Version { theirs: 99, ours: ABI_VERSION }));
        assert!(matches!(damaged(2, 1), SegmentError::Layout { theirs: 1 }));
        assert!(matches!(damaged(3, 64), SegmentError::Size { found: 64, .. }));
    }

    #[test]
    fn a_version_mismatch_names_both_versions() {
        let text = damaged(1, 99).to_string();
        assert!(text.contains("version 99") && text.contains(&format!("version {ABI_VERSION}")), "{text}");
    }

    #[test]
    fn a_shortened_file_is_refused_before_it_is_mapped() {
        let dir = tempfile::tempdir().unwrap();
        for length in [0, 63, 64, 4096] {
            drop(Segment::create(dir.path()).unwrap());
            File::options().write(true).open(dir.path().join(NAME)).unwrap().set_len(length).unwrap();
            let error = Segment::open(dir.path()).unwrap_err();
            match error {
                SegmentError::NotInitialised { .. } => assert!(length < 64),
                SegmentError::Size { found, .. } => assert_eq!(found, length),
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn a_new_segment_replaces_the_old_one_and_the_old_one_knows() {
        let dir = tempfile::tempdir().unwrap();
        let old = Segment::create(dir.path()).unwrap();
        assert!(!old.is_replaced());
        let new = Segment::create(dir.path()).unwrap();
        assert!(old.is_replaced());
        assert!(!new.is_replaced());
        new.unlink();
        assert!(new.is_replaced());
    }
}
