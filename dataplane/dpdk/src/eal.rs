//! `Eal`: DPDK's environment, started once in a process.
//!
//! Why it exists: `rte_eal_init` takes the arguments of a command line, prints its reasons to standard error and
//! returns -1. Here the arguments are a struct, the reasons become an [`Error`] that says what to do, and the
//! process goes on.
//!
//! Invariants: at most one start in a process, for DPDK cannot be started again, not even after a failure. EAL ends
//! (`rte_eal_cleanup`, which unmaps all packets) only when the last of `Eal`, pools, ports, queues and bursts
//! is gone. Devices are opened at start, each checked; what is not named is not touched.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dpdk_sys as sys;

use crate::device::{Device, is_root};
use crate::error::{Error, last_lines, reason};
use crate::lcore::Affinity;

/// How much of DPDK's own log goes to standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Errors only: what an operator must act upon.
    #[default]
    Error,
    /// Warnings as well.
    Warning,
    /// What is found and configured.
    Info,
    /// Everything.
    Debug,
}

impl LogLevel {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// How EAL is started.
#[derive(Clone, Copy, Debug)]
pub struct EalConfig<'a> {
    /// The CPUs of the workers, each with a thread pinned to it.
    pub lcores: &'a [u32],
    /// The one of them whose thread is the calling one.
    pub main_lcore: u32,
    /// Tells processes on one machine apart; unique to each.
    pub file_prefix: &'a str,
    /// Memory for packets and rings, in MB.
    pub memory_mb: u32,
    /// False: ordinary memory, at half the rate; physical devices then need an IOMMU.
    pub huge_pages: bool,
    /// PCI addresses and virtual devices, such as `net_af_packet0,iface=eth1`. No others are touched.
    pub devices: &'a [String],
    /// True: no files are left and other DPDK processes cannot attach.
    pub in_memory: bool,
    /// How much of DPDK's own log goes to standard error.
    pub log_level: LogLevel,
}

impl<'a> EalConfig<'a> {
    /// CPU 0, 256 MB of huge pages, no devices, nothing left on disk.
    pub fn new(file_prefix: &'a str) -> Self {
        Self {
            lcores: &[0],
            main_lcore: 0,
            file_prefix,
            memory_mb: 256,
            huge_pages: true,
            devices: &[],
            in_memory: true,
            log_level: LogLevel::Error,
        }
    }
}

/// What lives as long as anything that stands on EAL.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) lcores: Vec<u32>,
    pub(crate) main_lcore: u32,
    pub(crate) devices: Vec<Device>,
    affinity: Affinity,
    claimed: Mutex<Vec<u16>>,
}

impl Inner {
    /// Takes a port for one `Port`; false when it has been taken before.
    pub(crate) fn claim(&self, port: u16) -> bool {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        if claimed.contains(&port) {
            return false;
        }
        claimed.push(port);
        true
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: EAL was started, and every pool, port, queue and burst holds this Inner: none is left. What it
        // returns tells only that devices were busy, and they are closed.
        let _ = unsafe { sys::rte_eal_cleanup() };
        remove_runtime_folder();
    }
}

/// Removes the folder that EAL makes for its files, when there are none in it.
fn remove_runtime_folder() {
    // SAFETY: takes nothing; gives a C string that EAL keeps for the life of the process, empty before it starts.
    let folder = unsafe { sys::rte_eal_get_runtime_dir() };
    if folder.is_null() {
        return;
    }
    // SAFETY: not null, ends in a zero, lives as long as the process.
    let folder = unsafe { CStr::from_ptr(folder) };
    // One with files in it stays: another process may use them.
    let _ = fs::remove_dir(Path::new(OsStr::from_bytes(folder.to_bytes())));
}

/// DPDK, running. See the crate's header for its use.
#[derive(Debug)]
pub struct Eal {
    inner: Arc<Inner>,
}

/// Set by the first start.
static STARTED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Starts DPDK in this process and opens the devices. The calling thread becomes the main lcore's: it is
    /// pinned to its CPU, and threads it starts inherit that ([`Eal::affinity`] undoes it).
    pub fn init(config: &EalConfig<'_>) -> Result<Self, Error> {
        let devices = check(config)?;
        let arguments = arguments(config, &devices)?;
        let affinity = Affinity::current()?;
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(Error::AlreadyStarted);
        }
        let log = Log::start();
        let outcome = start(&arguments).and_then(|()| {
            let inner = Inner {
                lcores: config.lcores.to_vec(),
                main_lcore: config.main_lcore,
                devices,
                affinity,
                claimed: Mutex::new(Vec::new()),
            };
            // From here on a failure ends EAL, by dropping this.
            let eal = Self { inner: Arc::new(inner) };
            eal.inner.devices.iter().try_for_each(open).map(|()| eal)
        });
        let text = log.stop();
        if config.log_level > LogLevel::Error {
            eprint!("{text}");
        }
        if outcome.is_err() {
            // The caller goes on without DPDK: on the CPUs it had.
            let _ = affinity.apply();
            if config.in_memory {
                remove_runtime_folder();
            }
        }
        outcome.map_err(|failure| failure.explain(config, &text))
    }

    /// The lcores, in the order they were given.
    pub fn lcores(&self) -> &[u32] {
        &self.inner.lcores
    }

    /// The CPUs the calling thread might use before EAL pinned it: for threads that are no workers.
    pub fn affinity(&self) -> Affinity {
        self.inner.affinity
    }

    /// DPDK's own version.
    pub fn version() -> String {
        // SAFETY: rte_version takes nothing and gives a constant C string.
        let version = unsafe { sys::rte_version() };
        // SAFETY: not null, ends in a zero, lives as long as the process.
        unsafe { CStr::from_ptr(version) }.to_string_lossy().into_owned()
    }

    pub(crate) fn inner(&self) -> Arc<Inner> {
        Arc::clone(&self.inner)
    }
}

/// The calling thread's rte_errno.
pub(crate) fn errno() -> i32 {
    // SAFETY: reads a thread-local number.
    unsafe { sys::weft_errno() }
}

/// A failure, before DPDK's log is known.
enum Failure {
    Start(i32),
    Device(Device, i32),
}

impl Failure {
    fn explain(self, config: &EalConfig<'_>, log: &str) -> Error {
        let errno = match self {
            Self::Device(device, errno) => return device.refusal(errno, last_lines(log)),
            Self::Start(errno) => errno,
        };
        if log.contains("Cannot create lock") {
            return Error::PrefixInUse(config.file_prefix.to_owned());
        }
        if let Some(device) = unparsed(log) {
            return device.refusal(errno, last_lines(log));
        }
        if !is_root() {
            return Error::NotRoot { doing: "start with these settings" };
        }
        Error::Eal { reason: reason(errno), said: last_lines(log) }
    }
}

/// The device for which EAL knows no driver, where that is why it did not start.
fn unparsed(log: &str) -> Option<Device> {
    let (_, rest) = log.split_once("Unable to parse device '")?;
    Device::parse(rest.split_once('\'')?.0).ok()
}

/// Checks what can be told before DPDK is asked.
fn check(config: &EalConfig<'_>) -> Result<Vec<Device>, Error> {
    let usable = config.file_prefix.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if config.file_prefix.is_empty() || !usable {
        return Err(Error::BadName(config.file_prefix.to_owned()));
    }
    if !config.lcores.contains(&config.main_lcore) {
        return Err(Error::Lcores(format!(
            "the main lcore {} is not one of {:?}",
            config.main_lcore, config.lcores
        )));
    }
    for (place, lcore) in config.lcores.iter().enumerate() {
        if config.lcores.iter().take(place).any(|other| other == lcore) {
            return Err(Error::Lcores(format!("{lcore} is named twice")));
        }
        if !Path::new(&format!("/sys/devices/system/cpu/cpu{lcore}")).exists() {
            return Err(Error::Lcores(format!(
                "this machine has no CPU {lcore}: `lscpu` lists those there are"
            )));
        }
    }
    let devices = config.devices.iter().map(|text| Device::parse(text)).collect::<Result<Vec<_>, _>>()?;
    devices.iter().try_for_each(Device::check_tap)?;
    if config.huge_pages {
        check_huge_pages(u64::from(config.memory_mb))?;
    }
    Ok(devices)
}

/// Checks that the kernel has huge pages to give: DPDK's own account of it is hard to read.
fn check_huge_pages(wanted_mb: u64) -> Result<(), Error> {
    let count = |folder: &Path, file: &str| -> u64 {
        fs::read_to_string(folder.join(file)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    let mut free_mb = 0;
    let mut small_used = 0;
    for entry in fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let size = name
            .to_str()
            .and_then(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok());
        let Some(size_kb) = size else { continue };
        let free = count(&entry.path(), "free_hugepages");
        free_mb += free * size_kb / 1024;
        if size_kb == 2048 {
            small_used = count(&entry.path(), "nr_hugepages").saturating_sub(free);
        }
    }
    if free_mb >= wanted_mb {
        return Ok(());
    }
    Err(Error::NoHugePages { wanted_mb, free_mb, pages: small_used + wanted_mb.div_ceil(2) })
}

/// The command line EAL is started with.
fn arguments(config: &EalConfig<'_>, devices: &[Device]) -> Result<Vec<CString>, Error> {
    let list: Vec<String> = config.lcores.iter().map(u32::to_string).collect();
    let mut words = vec![
        "weft".to_owned(),
        "-l".to_owned(),
        list.join(","),
        format!("--main-lcore={}", config.main_lcore),
        format!("--file-prefix={}", config.file_prefix),
        "-m".to_owned(),
        config.memory_mb.to_string(),
        format!("--log-level=*:{}", config.log_level.name()),
    ];
    // --in-memory is --no-shconf with huge pages of no file; EAL refuses it where there are no huge pages.
    match (config.in_memory, config.huge_pages) {
        (true, true) => words.push("--in-memory".to_owned()),
        (true, false) => words.push("--no-shconf".to_owned()),
        (false, _) => {}
    }
    if !config.huge_pages {
        words.push("--no-huge".to_owned());
    }
    // Its socket outlives EAL: it goes when the process ends, and would leave the folder it is in.
    if config.in_memory {
        words.push("--no-telemetry".to_owned());
    }
    // The other side of a vhost-user socket maps this memory, and takes only a few files of it.
    let shares_memory =
        |device: &Device| device.name.contains("virtio_user") || device.name.contains("vhost");
    if config.huge_pages && devices.iter().any(shares_memory) {
        words.push("--single-file-segments".to_owned());
    }
    if !devices.iter().any(|device| device.pci) {
        words.push("--no-pci".to_owned());
    }
    for device in devices {
        let option = if device.pci { "--allow" } else { "--vdev" };
        words.push(format!("{option}={}", device.spec));
    }
    words.into_iter().map(|word| CString::new(word.clone()).map_err(|_| Error::BadName(word))).collect()
}

/// Runs `rte_eal_init`.
fn start(arguments: &[CString]) -> Result<(), Failure> {
    // EAL reorders the array and may keep pointers into it: both stay for the life of the process.
    let words = arguments.iter().cloned().map(CString::into_raw);
    let words: &'static mut [*mut c_char] = Box::leak(words.chain([std::ptr::null_mut()]).collect());
    let count = i32::try_from(arguments.len()).map_err(|_| Failure::Start(7))?;
    // SAFETY: `words` holds `count` C strings and a null, all leaked, so writable and valid for ever.
    if unsafe { sys::rte_eal_init(count, words.as_mut_ptr()) } < 0 {
        return Err(Failure::Start(errno()));
    }
    Ok(())
}

/// Checks that a device became a port. EAL goes on when one fails, without a word in its result.
fn open(device: &Device) -> Result<(), Failure> {
    if port_of(&device.name).is_some() {
        return Ok(());
    }
    let refused = |errno| Failure::Device(device.clone(), errno);
    let Ok(spec) = CString::new(device.spec.clone()) else {
        return Err(refused(22));
    };
    // SAFETY: EAL runs; `spec` is a C string that DPDK copies. Asked again, it says why.
    let errno = unsafe { sys::rte_dev_probe(spec.as_ptr()) };
    if errno != 0 || port_of(&device.name).is_none() {
        return Err(refused(errno));
    }
    Ok(())
}

/// The number of the port of that name.
pub(crate) fn port_of(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    let mut port = 0;
    // SAFETY: `name` is a C string, `port` is written before the call returns 0.
    (unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &raw mut port) } == 0).then_some(port)
}

/// Held while DPDK's log is collected.
static LOG: Mutex<()> = Mutex::new(());

/// DPDK's log, collected from start to stop, by one thread at a time.
pub(crate) struct Log(MutexGuard<'static, ()>);

impl Log {
    pub(crate) fn start() -> Self {
        let turn = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the shim's buffer is used by one thread: the one whose turn it is. Where no stream can be made, DPDK
        // logs to standard error as always.
        let _ = unsafe { sys::weft_log_start() };
        Self(turn)
    }

    pub(crate) fn stop(self) -> String {
        let mut text = vec![0_u8; 16384];
        // SAFETY: `text` has room for its length; as in `start`.
        let length = unsafe { sys::weft_log_stop(text.as_mut_ptr().cast(), text.len()) };
        text.truncate(length);
        drop(self.0);
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(config: &EalConfig<'_>) -> Vec<String> {
        let devices: Vec<Device> = config.devices.iter().map(|text| Device::parse(text).unwrap()).collect();
        let arguments = arguments(config, &devices).unwrap();
        arguments.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn no_pci_device_is_touched_that_is_not_named() {
        let devices = ["net_null0".to_owned()];
        let config = EalConfig { devices: &devices, ..EalConfig::new("x") };
        assert!(words(&config).contains(&"--no-pci".to_owned()));
        let devices = ["03:00.0".to_owned()];
        let with_pci = words(&EalConfig { devices: &devices, ..config });
        assert!(with_pci.contains(&"--allow=0000:03:00.0".to_owned()));
        assert!(!with_pci.contains(&"--no-pci".to_owned()));
    }

    #[test]
    fn memory_shared_over_a_socket_is_in_few_files() {
        let devices = ["net_vhost0,iface=/run/v.sock".to_owned()];
        let config = EalConfig { devices: &devices, ..EalConfig::new("x") };
        assert!(words(&config).contains(&"--single-file-segments".to_owned()));
        assert!(!words(&EalConfig { devices: &[], ..config }).contains(&"--single-file-segments".to_owned()));
    }

    #[test]
    fn lcores_that_cannot_be_used_are_refused_by_name() {
        let config = EalConfig { huge_pages: false, ..EalConfig::new("x") };
        let refused = |config: &EalConfig<'_>| check(config).unwrap_err().to_string();
        assert!(refused(&EalConfig { main_lcore: 1, ..config }).contains("main lcore 1 is not one of [0]"));
        assert!(refused(&EalConfig { lcores: &[0, 0], ..config }).contains("0 is named twice"));
        assert!(refused(&EalConfig { lcores: &[0, 9999], ..config }).contains("no CPU 9999"));
    }

    #[test]
    fn more_huge_pages_than_there_are_is_an_error_that_says_how_many_to_ask_for() {
        let error = check_huge_pages(1 << 40).unwrap_err().to_string();
        assert!(error.contains("> /proc/sys/vm/nr_hugepages"), "{error}");
        assert!(error.contains("huge_pages = false"), "{error}");
    }
}
