//! Where `weft-dataplane run` cannot start, it says why and what to do in one sentence, ends with code 1, and leaves
//! nothing behind: no lock, no segment, no tables, no folder of DPDK.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod running;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use running::packets::{ack, write_pcap};
use running::{DataPlane, Place, Setup, commands, commit, cpus, is_root, program, workers};
use rustix::process::Signal;

/// The user that may do nothing.
const NOBODY: u32 = 65534;

/// Waits for the end of one that cannot start, and checks that it ended well. Gives what it said, log lines left out.
#[track_caller]
fn ended(place: &Place, mut running: DataPlane, parts: &[&str]) -> String {
    let status = running.wait();
    let said = running.said();
    assert_eq!(status.code(), Some(1), "{said}");
    // What the log says before it stands in brackets.
    let sentences: Vec<&str> = said.lines().filter(|line| !line.starts_with('[')).collect();
    let [sentence] = sentences[..] else { panic!("not one sentence: {said}") };
    assert!(sentence.starts_with("weft-dataplane"), "{said}");
    for part in parts {
        assert!(sentence.contains(part), "{sentence:?} does not say {part:?}");
    }
    assert!(sentence.matches("(os error").count() <= 1, "said twice: {sentence}");
    assert!(!said.contains("panicked") && !said.contains("poll"), "{said}");
    assert_eq!(place.leftovers(), [""; 0], "{sentence}");
    sentence.to_owned()
}

/// One that cannot start with this configuration.
#[track_caller]
fn refuses(setup: &Setup<'_>, parts: &[&str]) {
    let place = Place::new();
    let config = place.configure(setup);
    ended(&place, DataPlane::start(&place, &config), parts);
}

/// Sets up a place that nobody's process can use, with a copy of the program that nobody may run.
fn for_nobody(place: &Place) -> PathBuf {
    let copy = place.path("weft-dataplane");
    fs::copy(program(), &copy).unwrap();
    fs::set_permissions(copy.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

fn as_nobody(place: &Place, program: &Path, config: &Path) -> DataPlane {
    let mut command = Command::new(program);
    command.arg("run").arg("--config").arg(config).uid(NOBODY).gid(NOBODY);
    DataPlane::spawn(place, &mut command)
}

// ---- the configuration: no root is needed to be told -----------------------------------------------------------

#[test]
fn a_configuration_that_is_not_there() {
    let place = Place::new();
    let running = DataPlane::start(&place, &place.path("nosuch.toml"));
    ended(&place, running, &["nosuch.toml: cannot be read", "No such file", "check the path"]);
}

#[test]
fn a_configuration_with_a_mistake_is_told_line_and_column() {
    refuses(&Setup { workers: &[], ..Setup::default() }, &["weft.toml:4:11: ", "workers"]);
    assert!(!Place::new().runtime_dir().exists());
}

#[test]
fn a_configuration_with_several_mistakes_is_told_all_of_them() {
    let place = Place::new();
    let setup = Setup { workers: &[], memory_mb: 1, ..Setup::default() };
    let mut running = DataPlane::start(&place, &place.configure(&setup));
    assert_eq!(running.wait().code(), Some(1));
    let said = running.said();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert_eq!(lines[0], "weft-dataplane: the configuration has 2 problems:");
    assert!(lines[1..].iter().all(|line| line.contains("weft.toml:")), "{said}");
    assert!(!place.runtime_dir().exists());
}

#[test]
fn no_port() {
    let place = Place::new();
    let config = place.configure(&Setup { devices: &[], ..Setup::default() });
    let parts = ["weft.toml has no [[dataplane.port]]", "name at least one device"];
    ended(&place, DataPlane::start(&place, &config), &parts);
    assert!(!place.runtime_dir().exists());
}

// ---- devices ---------------------------------------------------------------------------------------------------

#[test]
fn devices_that_are_not_there() {
    if !is_root("devices_that_are_not_there") {
        return;
    }
    for (device, parts) in [
        ("net_nosuch0", &["did not open the device net_nosuch0", "check its name"] as &[&str]),
        ("net_pcap0,rx_pcap=/nosuch.pcap", &["net_pcap0,rx_pcap=/nosuch.pcap", "No such file"]),
        ("ffff:ff:1f.7", &["no PCI device ffff:ff:1f.7", "lspci"]),
        ("net_af_packet0,iface=nosuch0", &["no network interface nosuch0", "ip link"]),
    ] {
        refuses(&Setup { workers: &workers(1), devices: &[device], ..Setup::default() }, parts);
        // A port that did open is closed again.
        refuses(&Setup { workers: &workers(1), devices: &["net_null0", device], ..Setup::default() }, parts);
    }
}

#[test]
fn a_device_that_the_kernel_holds() {
    if !is_root("a_device_that_the_kernel_holds") {
        return;
    }
    // Any but a network device: nothing here may disturb the machine's own.
    let devices =
        fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().map(|entry| entry.unwrap().path());
    let is_held = |path: &PathBuf| {
        let class = fs::read_to_string(path.join("class")).unwrap_or_default();
        let driver = fs::read_link(path.join("driver")).ok();
        let driver = driver.and_then(|driver| driver.file_name()?.to_str().map(str::to_owned));
        !class.starts_with("0x02")
            && driver.is_some_and(|driver| !driver.contains("vfio") && !driver.contains("uio"))
    };
    let Some(held) = devices.filter(is_held).min() else {
        println!("not provoked here: no PCI device of this machine belongs to a kernel driver");
        return;
    };
    let address = held.file_name().unwrap().to_str().unwrap();
    let parts = [address, "belongs to the kernel driver", "dpdk-devbind.py --bind=vfio-pci"];
    refuses(&Setup { workers: &workers(1), devices: &[address], ..Setup::default() }, &parts);
}

// ---- workers ---------------------------------------------------------------------------------------------------

#[test]
fn more_workers_than_queues() {
    const NAME: &str = "more_workers_than_queues";
    if !is_root(NAME) {
        return;
    }
    let two = workers(2);
    if two.len() < 2 {
        return skip::skip(NAME, "two CPUs are needed");
    }
    let input = tempfile::NamedTempFile::new().unwrap();
    write_pcap(input.path(), &[ack(1)]);
    let device = format!("net_pcap0,rx_pcap={}", input.path().display());
    let parts = ["net_pcap0", "1 receive queues and 2 are needed", "use fewer workers"];
    refuses(&Setup { workers: &two, devices: &[&device], ..Setup::default() }, &parts);
}

#[test]
fn a_worker_on_a_cpu_that_does_not_exist() {
    if !is_root("a_worker_on_a_cpu_that_does_not_exist") {
        return;
    }
    let absent = (0..128).find(|cpu| !Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}")).exists());
    let Some(absent) = absent else {
        println!("not provoked here: this machine has every CPU that a configuration may name");
        return;
    };
    let parts = [&format!("no CPU {absent}"), "lscpu"];
    refuses(&Setup { workers: &[cpus()[0], absent], ..Setup::default() }, &parts);
}

// ---- memory ----------------------------------------------------------------------------------------------------

#[test]
fn fewer_huge_pages_than_asked_for() {
    if is_root("fewer_huge_pages_than_asked_for") {
        let setup =
            Setup { workers: &workers(1), huge_pages: "on", memory_mb: 1_000_000, ..Setup::default() };
        refuses(&setup, &["huge_pages = \"on\"", "/proc/sys/vm/nr_hugepages", "huge_pages = \"auto\""]);
    }
}

#[test]
fn tables_larger_than_the_memory() {
    if !is_root("tables_larger_than_the_memory") {
        return;
    }
    let parts = ["the tables need", "make dataplane.flows and dataplane.tokens smaller"];
    for huge_pages in ["off", "auto"] {
        let flows = 1_000_000_000;
        refuses(
            &Setup { workers: &workers(1), flows, tokens: flows, huge_pages, ..Setup::default() },
            &parts,
        );
    }
}

#[test]
fn packet_buffers_larger_than_their_memory() {
    if is_root("packet_buffers_larger_than_their_memory") {
        let port_keys = "rx_descriptors = 32768\ntx_descriptors = 32768";
        let setup = Setup { workers: &workers(1), memory_mb: 32, port_keys, ..Setup::default() };
        refuses(&setup, &["packets could be made", "raise memory_mb"]);
    }
}

// ---- the runtime directory and the user ------------------------------------------------------------------------

#[test]
fn a_runtime_dir_that_cannot_be_used() {
    if !is_root("a_runtime_dir_that_cannot_be_used") {
        return;
    }
    let place = Place::new();
    let file = place.path("file");
    fs::write(&file, "").unwrap();
    for dir in [&file, &file.join("run"), Path::new("/proc/weft")] {
        let config = place.configure_in(&Setup { workers: &workers(1), ..Setup::default() }, dir);
        let parts = [&format!("cannot use the runtime directory {}", dir.display()), "set runtime_dir"];
        ended(&place, DataPlane::start(&place, &config), &parts);
    }
    assert_eq!(fs::read(&file).unwrap(), b"", "it is as it was");
}

#[test]
fn a_runtime_dir_that_this_user_may_not_write() {
    if !is_root("a_runtime_dir_that_this_user_may_not_write") {
        return;
    }
    let place = Place::new();
    let program = for_nobody(&place);
    let config = place.configure(&Setup { workers: &workers(1), ..Setup::default() });
    let parts = ["cannot use the runtime directory", "Permission denied", "make it writable for this user"];
    ended(&place, as_nobody(&place, &program, &config), &parts);
}

#[test]
fn a_user_who_may_not_open_the_device() {
    if !is_root("a_user_who_may_not_open_the_device") {
        return;
    }
    let place = Place::new();
    let program = for_nobody(&place);
    fs::create_dir(place.runtime_dir()).unwrap();
    chown(place.runtime_dir(), Some(NOBODY), Some(NOBODY)).unwrap();
    let setup = Setup { workers: &workers(1), devices: &["net_af_packet0,iface=lo"], ..Setup::default() };
    let config = place.configure(&setup);
    ended(&place, as_nobody(&place, &program, &config), &["needs root", "run as root"]);
}

#[test]
fn a_second_instance_is_told_the_pid_of_the_first_and_does_not_disturb_it() {
    if !is_root("a_second_instance_is_told_the_pid_of_the_first_and_does_not_disturb_it") {
        return;
    }
    let place = Place::new();
    let config = place.configure(&Setup { workers: &workers(1), ..Setup::default() });
    let mut first = DataPlane::start(&place, &config);
    let mut link = first.control(&place);
    let before = place.leftovers();

    let mut second = DataPlane::start(&place, &config);
    assert_eq!(second.wait().code(), Some(1));
    let said = second.said();
    assert_eq!(said.lines().count(), 1, "{said}");
    let pid = format!("(pid {})", first.pid());
    for part in ["weft-dataplane is already running in", &pid, "stop it first", "another runtime_dir"] {
        assert!(said.contains(part), "{said:?} does not say {part:?}");
    }

    assert_eq!(place.leftovers(), before);
    commit(&mut link, &commands(&config));
    drop(link);
    first.stop(Signal::TERM);
    assert_eq!(place.leftovers(), [""; 0]);
}
