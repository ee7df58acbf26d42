//! What becomes of a mapping's memory when its process ends, and which files a successor trusts.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};

use super::*;
use crate::boot;
use crate::liveness::Role;
use crate::sync::Ordering;

const SMALL: Shape = Shape { flow_lines: 60, token_lines: 40, best: HugePages::Small };
const TEXT: &[u8] = b"{\"what\":\"ids mean\"}";

fn lock() -> (tempfile::TempDir, Lock) {
    let dir = tempfile::tempdir().unwrap();
    let lock = Lock::acquire(dir.path(), Role::DataPlane).unwrap();
    (dir, lock)
}

/// Memory with a directory, a flow word and a token word, whose process was killed. Gives its file.
fn left(lock: &Lock, shape: &Shape) -> PathBuf {
    let mut mapping = Mapping::create(lock, shape).unwrap();
    mapping.save_directory(TEXT).unwrap();
    mapping.flows()[59].0[7].store(0xf10, Ordering::Relaxed);
    mapping.tokens()[39].0[7].store(0x70c, Ordering::Relaxed);
    mapping.keep(true);
    mapping.path().to_owned()
}

/// Why a file is not used, after it was changed; and that new memory can be made in its place.
#[track_caller]
fn unkept(change: impl FnOnce(&Path)) -> String {
    let (_dir, lock) = lock();
    let path = left(&lock, &SMALL);
    change(&path);
    let reason = Mapping::attach(&lock, &SMALL).unwrap_err().to_string();
    let made = Mapping::create(&lock, &SMALL).unwrap();
    assert_eq!(made.flows()[59].0[7].load(Ordering::Relaxed), 0);
    assert_eq!(made.directory(), Err(RecordError::None));
    reason
}

/// Writes a word of the file.
fn write_word(path: &Path, word: u64, value: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&value.to_le_bytes(), 8 * word).unwrap();
}

/// Writes words of the header and makes its checksum fit.
fn forge(path: &Path, changes: &[(usize, u64)]) {
    let mut words: Vec<u64> = fs::read(path).unwrap()[..96]
        .as_chunks::<8>()
        .0
        .iter()
        .map(|word| u64::from_le_bytes(*word))
        .collect();
    for (word, value) in changes {
        words[*word] = *value;
    }
    let sum = header::checksum(&words);
    for (index, word) in (0..).zip(words.into_iter().chain([sum])) {
        write_word(path, index, word);
    }
}

#[test]
fn what_a_killed_process_left_is_found_by_the_next_with_its_key_and_directory() {
    let (_dir, lock) = lock();
    let mut first = Mapping::create(&lock, &SMALL).unwrap();
    assert_eq!((first.flows().len(), first.tokens().len()), (60, 40));
    first.flows()[0].0[0].store(1, Ordering::Relaxed);
    first.flows()[59].0[7].store(2, Ordering::Relaxed);
    first.tokens()[0].0[0].store(3, Ordering::Relaxed);
    first.save_directory(TEXT).unwrap();
    let alive = boot::now_ns() / SECOND;
    first.beat(alive);
    let secret = first.secret().clone();
    // As a kill: nothing is removed, nothing is said.
    first.keep(true);
    drop(first);

    let second = Mapping::attach(&lock, &SMALL).unwrap();
    assert_eq!(second.secret(), &secret);
    assert_eq!(second.directory().unwrap(), TEXT);
    assert_eq!(second.last_alive(), alive);
    assert_eq!(second.flows()[0].0[0].load(Ordering::Relaxed), 1);
    assert_eq!(second.flows()[59].0[7].load(Ordering::Relaxed), 2);
    assert_eq!(second.tokens()[0].0[0].load(Ordering::Relaxed), 3);
    drop(second);
    assert!(Mapping::attach(&lock, &SMALL).is_ok(), "attached memory stays unless told otherwise");
}

#[test]
fn memory_that_is_not_to_be_kept_goes_with_its_process_and_stays_for_whoever_has_it() {
    let (_dir, lock) = lock();
    let mut mapping = Mapping::attach(&lock, &SMALL).or_else(|_| Mapping::create(&lock, &SMALL)).unwrap();
    mapping.keep(true);
    mapping.keep(false);
    let (table, path) = (mapping.flows(), mapping.path().to_owned());
    drop(mapping);
    assert!(!path.exists());
    table[59].0[0].store(3, Ordering::Relaxed);
    assert_eq!(table[59].0[0].load(Ordering::Relaxed), 3);
    assert!(matches!(Mapping::attach(&lock, &SMALL), Err(Unkept::None)));
}

#[test]
fn the_file_is_private_and_all_of_it_is_there() {
    let (_dir, lock) = lock();
    let shape = Shape { flow_lines: 1000, best: HugePages::Transparent, ..SMALL };
    let mapping = Mapping::create(&lock, &shape).unwrap();
    let metadata = fs::metadata(mapping.path()).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(usize::try_from(metadata.len()).unwrap(), mapping.bytes());
    assert!(metadata.blocks() * 512 >= metadata.len(), "all of it is reserved");
}

#[test]
fn every_key_is_another_and_none_is_printed() {
    let (_dir, lock) = lock();
    let first = Mapping::create(&lock, &SMALL).unwrap();
    let bytes = first.secret().bytes();
    let shown = format!("{first:?} {first} {:?}", first.secret());
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!shown.contains(&hex) && !shown.contains(&format!("{bytes:?}")), "{shown}");
    for word in bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)) {
        assert!(!shown.contains(&word.to_string()) && !shown.contains(&format!("{word:x}")), "{shown}");
    }
    drop(first);
    assert_ne!(Mapping::create(&lock, &SMALL).unwrap().secret().bytes(), bytes);
}

#[test]
fn a_file_of_another_layout_is_not_used() {
    let said = unkept(|path| write_word(path, 1, TABLE_LAYOUT + 1));
    assert!(
        said.contains(&format!("layout {} and this program has {TABLE_LAYOUT}", TABLE_LAYOUT + 1)),
        "{said}"
    );
}

#[test]
fn a_header_that_is_damaged_anywhere_is_not_used() {
    for word in [0, 2, 3, 4, 5, 6, 8, 11, 12] {
        let said = unkept(|path| write_word(path, word, 77));
        assert!(said.contains("header") && said.contains("damaged"), "word {word}: {said}");
    }
    let said = unkept(|path| fs::write(path, vec![0xff; 1 << 16]).unwrap());
    assert!(said.contains("damaged"), "{said}");
}

#[test]
fn a_heartbeat_that_cannot_be_is_a_damaged_header() {
    let now = boot::now_ns() / SECOND;
    for alive in [0, now + 60, u64::MAX] {
        // Made a minute ago, so that the first one is before that.
        let said = unkept(|path| {
            forge(path, &[(5, boot::now_ns())]);
            write_word(path, 16, alive);
        });
        assert!(said.contains("damaged"), "{alive}: {said}");
    }
}

#[test]
fn a_file_of_another_boot_is_not_used() {
    let said = unkept(|path| forge(path, &[(6, boot::id()[0] ^ 1)]));
    assert!(said.contains("before the machine was last started"), "{said}");
}

#[test]
fn tables_of_another_size_are_not_used_and_neither_is_a_file_cut_off_or_grown() {
    for change in [|length| length - 64, |length| length + 64, |_| 4096, |_| 100, |_| 0] {
        let said = unkept(|path| {
            let length = fs::metadata(path).unwrap().len();
            File::options().write(true).open(path).unwrap().set_len(change(length)).unwrap();
        });
        assert!(said.contains("was cut off"), "{said}");
    }
    let said = unkept(|path| forge(path, &[(2, 1 << 40)]));
    assert!(said.contains("was cut off"), "a header that lies about its file's size: {said}");
    let (_dir, lock) = lock();
    left(&lock, &SMALL);
    for shape in [Shape { flow_lines: 61, ..SMALL }, Shape { flow_lines: 61, token_lines: 39, ..SMALL }] {
        let said = Mapping::attach(&lock, &shape).unwrap_err().to_string();
        assert!(said.contains("another size"), "{said}");
    }
    assert!(Mapping::attach(&lock, &SMALL).is_ok(), "being asked for another size harms nothing");
}

#[test]
fn a_file_with_a_hole_is_filled_and_never_a_fault() {
    let (_dir, lock) = lock();
    let path = left(&lock, &SMALL);
    let length = fs::metadata(&path).unwrap().len();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(length - 4096).unwrap();
    file.set_len(length).unwrap();
    let mapping = Mapping::attach(&lock, &SMALL).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.blocks() * 512 >= metadata.len(), "all of it is there");
    assert_eq!(mapping.tokens()[39].0[7].load(Ordering::Relaxed), 0, "what was in the hole is gone");
}

#[test]
fn a_file_that_others_may_open_is_not_used() {
    for mode in [0o640, 0o604, 0o666, 0o400] {
        let said = unkept(|path| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap());
        assert!(said.contains(&format!("mode {mode:04o}")), "{said}");
    }
}

#[test]
fn a_file_of_another_user_is_not_used() {
    if !rustix::process::geteuid().is_root() {
        return skip::skip("a_file_of_another_user_is_not_used", "not root");
    }
    let said = unkept(|path| chown(path, Some(65534), None).unwrap());
    assert!(said.contains("belongs to user 65534"), "{said}");
}

#[test]
fn a_name_that_is_no_file_of_its_own_is_not_followed() {
    let said = unkept(|path| {
        let elsewhere = path.with_extension("elsewhere");
        fs::rename(path, &elsewhere).unwrap();
        symlink(&elsewhere, path).unwrap();
    });
    assert!(said.contains("is a symbolic link"), "{said}");
    let said = unkept(|path| fs::hard_link(path, path.with_extension("two")).unwrap());
    assert!(said.contains("several names"), "{said}");
    let said = unkept(|path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    });
    assert!(said.contains("is a directory"), "{said}");
    let said = unkept(|path| {
        fs::remove_file(path).unwrap();
        let (mode, kind) = (rustix::fs::Mode::RUSR, rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    });
    assert!(said.contains("is a pipe") || said.contains("cannot be used"), "{said}");
}

#[test]
fn without_a_directory_or_with_a_damaged_one_nothing_is_kept() {
    let first = u64::try_from(header::LINES * 8).unwrap();
    for (word, value) in [(first, 5), (first, u64::MAX), (first + 1, 5), (first + 8, 5)] {
        let said = unkept(|path| write_word(path, word, value));
        assert!(said.contains("directory") && said.contains("is damaged"), "{said}");
    }
    let said = unkept(|path| write_word(path, 24, 0));
    assert!(said.contains("was never written"), "{said}");
    // The place that does not count may hold anything.
    let (_dir, lock) = lock();
    let path = left(&lock, &SMALL);
    write_word(&path, first + u64::try_from(RECORD_LINES * 8).unwrap(), 5);
    assert_eq!(Mapping::attach(&lock, &SMALL).unwrap().directory().unwrap(), TEXT);
}

#[test]
fn the_last_directory_counts_whatever_its_length_and_after_one_too_large_none_does() {
    let (_dir, lock) = lock();
    let mapping = Mapping::create(&lock, &SMALL).unwrap();
    assert_eq!(mapping.directory(), Err(RecordError::None));
    let largest = vec![b'x'; record::MAX_BYTES];
    for text in
        [&b""[..], b"1", b"1234567", b"12345678", b"123456789", &largest, &largest, &largest[1..], b"2"]
    {
        mapping.save_directory(text).unwrap();
        assert_eq!(mapping.directory().unwrap(), text);
    }
    let more = vec![b'x'; record::MAX_BYTES + 1];
    assert_eq!(mapping.save_directory(&more), Err(RecordError::TooLarge(more.len())));
    assert_eq!(mapping.directory(), Err(RecordError::None), "nothing old is read as if it were the last");
    mapping.save_directory(TEXT).unwrap();
    assert_eq!(mapping.directory().unwrap(), TEXT);
    assert!(mapping.flows().iter().all(|line| line.0[0].load(Ordering::Relaxed) == 0), "no record runs over");
}

#[test]
fn forgetting_removes_what_is_there_and_says_what_that_was() {
    let (_dir, lock) = lock();
    assert!(forget(&lock).unwrap().is_empty());
    let path = left(&lock, &SMALL);
    let bytes = fs::metadata(&path).unwrap().len();
    assert_eq!(forget(&lock).unwrap(), [(path.clone(), bytes)]);
    assert!(!path.exists());
    fs::create_dir(&path).unwrap();
    assert!(forget(&lock).unwrap_err().to_string().contains("cannot use"), "what cannot be removed is told");
}

#[test]
fn the_kernel_says_how_much_memory_is_available() {
    assert!((1..u64::MAX).contains(&file::available_memory()));
}

#[test]
fn more_than_any_file_system_has_is_a_sentence_and_leaves_nothing() {
    let (_dir, lock) = lock();
    for flow_lines in [1 << 40, 1 << 50, usize::MAX] {
        let shape = Shape { flow_lines, best: HugePages::Hugetlbfs, ..SMALL };
        let error = Mapping::create(&lock, &shape).unwrap_err();
        assert!(error.to_string().contains("dataplane.flows"), "{error}");
        assert!(!file::small_name(lock.dir()).exists());
    }
}

#[test]
fn tables_larger_than_the_memory_are_refused_at_once_whatever_the_disk_has() {
    let (_dir, lock) = lock();
    let flow_lines = usize::try_from(file::available_memory() / 64 * 2).unwrap();
    let error = Mapping::create(&lock, &Shape { flow_lines, ..SMALL }).unwrap_err();
    assert!(matches!(error, MappingError::NoRoom { .. }), "{error}");
    assert!(!file::small_name(lock.dir()).exists());
}

/// Needs a hugetlbfs mount and a few free pages; says so where it cannot run.
#[test]
fn huge_pages_are_used_where_they_are_kept_and_never_promised_where_they_are_not() {
    let name = "huge_pages_are_used_where_they_are_kept_and_never_promised_where_they_are_not";
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let Some(mount) = file::hugetlbfs_mounts(&mounts).next() else {
        return skip::skip(name, "no hugetlbfs is mounted");
    };
    let (dir, lock) = lock();
    // More than any machine has: refused when it is made, not by a SIGBUS when it is touched.
    let probe = mount.join(file::hugetlbfs_name(dir.path()));
    assert!(file::huge(&probe, 1 << 44).is_none());
    fs::remove_file(&probe).unwrap();
    let shape = Shape { flow_lines: 40_000, token_lines: 10_000, best: HugePages::Hugetlbfs };
    let mapping = Mapping::create(&lock, &shape).unwrap();
    if mapping.pages() != HugePages::Hugetlbfs {
        return skip::skip(name, "no huge pages are free");
    }
    drop(mapping);
    let path = left(&lock, &shape);
    // A second file, of a time without huge pages, goes.
    fs::write(file::small_name(dir.path()), "old").unwrap();
    let mut successor = Mapping::attach(&lock, &shape).unwrap();
    assert_eq!((successor.pages(), successor.path()), (HugePages::Hugetlbfs, path.as_path()));
    assert_eq!(successor.flows()[59].0[7].load(Ordering::Relaxed), 0xf10);
    assert!(!file::small_name(dir.path()).exists());
    let said = Mapping::attach(&lock, &Shape { best: HugePages::Small, ..shape }).unwrap_err().to_string();
    assert!(said.contains("huge pages"), "{said}");
    successor.keep(false);
    drop(successor);
    assert!(!path.exists());
}

#[test]
fn hugetlbfs_mounts_are_found_among_others() {
    let mounts = "proc /proc proc rw 0 0\nnodev /dev/hugepages hugetlbfs rw,pagesize=2M 0 0\n\
                  tmpfs /hugetlbfs tmpfs rw 0 0\nnodev /with\\040space hugetlbfs rw 0 0\nnodev /mnt/1G hugetlbfs rw 0 0";
    let found: Vec<_> = file::hugetlbfs_mounts(mounts).collect();
    assert_eq!(found, [PathBuf::from("/dev/hugepages"), PathBuf::from("/mnt/1G")]);
}

#[test]
fn huge_pages_are_read_from_the_mapping_asked_about_and_no_other() {
    let smaps = "7f0000000000-7f0000200000 rw-s 00000000 00:19 5 /run/weft/tables\nRss: 2048 kB\n\
                 ShmemPmdMapped: 2048 kB\nVmFlags: rd wr\n\
                 7f0000200000-7f0000400000 rw-s 00000000 00:19 6 /other\nShmemPmdMapped: 0 kB\n";
    assert_eq!(file::huge_kilobytes(smaps, 0x7f00_0000_0000), 2048);
    assert_eq!(file::huge_kilobytes(smaps, 0x7f00_0020_0000), 0);
    assert_eq!(file::huge_kilobytes(smaps, 0x1000), 0);
}
