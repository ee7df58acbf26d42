//! What the tests with a real EAL share. EAL starts once in a process: each case runs in a child of its own, the same
//! test binary asked for that one test.

#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;
use std::{env, fs, process};

use dpdk::{Eal, EalConfig, Pool, PoolConfig};

const CHILD: &str = "WEFT_DPDK_CASE";
/// Far above what any case takes: only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(120);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Declares tests that each run in a process of their own.
#[macro_export]
macro_rules! cases {
    ($( $(#[$meta:meta])* fn $name:ident() $body:block )+) => {
        $( $(#[$meta])* #[test] fn $name() { $crate::support::alone(stringify!($name), || $body); } )+
    };
}

/// Runs `body` in a child, which is this test binary told to run the test `name` only.
pub fn alone(name: &str, body: impl FnOnce()) {
    if env::var_os(CHILD).is_some() {
        return body();
    }
    if !is_root() {
        return skip::skip(name, "DPDK's memory and devices need root");
    }
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(child(name, &[]), "the case failed in its own process: see its output above");
}

/// Runs the test `name` of this binary in a child with these variables, and says whether it passed.
pub fn child(name: &str, variables: &[(&str, &str)]) -> bool {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .envs(variables.iter().copied())
        .spawn()
        .unwrap();
    let mut waited = Duration::ZERO;
    let step = Duration::from_millis(10);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        if waited > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            return false;
        }
        sleep(step);
        waited += step;
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A file prefix that no other test process has.
pub fn prefix() -> String {
    format!("weft-test-{}", process::id())
}

/// EAL without huge pages, which every machine has.
pub fn eal(devices: &[&str]) -> Eal {
    start(devices, false)
}

pub fn start(devices: &[&str], huge_pages: bool) -> Eal {
    let devices: Vec<String> = devices.iter().map(|device| (*device).to_owned()).collect();
    let prefix = prefix();
    let config = EalConfig { devices: &devices, huge_pages, memory_mb: 64, ..EalConfig::new(&prefix) };
    Eal::init(&config).unwrap()
}

/// The sentence with which a start with these devices fails.
pub fn refusal(devices: &[&str]) -> String {
    let devices: Vec<String> = devices.iter().map(|device| (*device).to_owned()).collect();
    let prefix = prefix();
    let config = EalConfig { devices: &devices, huge_pages: false, memory_mb: 64, ..EalConfig::new(&prefix) };
    Eal::init(&config).unwrap_err().to_string()
}

pub fn pool(eal: &Eal) -> Pool {
    Pool::new(eal, "packets", &PoolConfig { mbufs: 4095, ..PoolConfig::default() }).unwrap()
}

/// Frames that differ in every byte from one to the next.
pub fn frame(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|place| u8::try_from((number * 31 + place * 7) % 251).unwrap()).collect()
}

pub fn captures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packet/tests/captures");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pcap"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no captures");
    files
}

/// The frames of a capture file in this machine's byte order.
pub fn frames(file: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(file).unwrap();
    let (header, mut rest) = bytes.split_at(24);
    let magic = u32::from_le_bytes(header[..4].try_into().unwrap());
    assert!([0xa1b2_c3d4, 0xa1b2_3c4d].contains(&magic), "{}: not a capture", file.display());
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        frames.push(rest[16..16 + length].to_vec());
        rest = &rest[16 + length..];
    }
    frames
}

/// Two kernel interfaces joined by a wire, up, removed with the value.
pub struct Veth(pub [String; 2]);

impl Veth {
    /// `None`, said, where the kernel or the tools have none.
    pub fn new(mtu: u16) -> Option<Self> {
        let names = ["a", "b"].map(|side| format!("wft{}{side}", process::id()));
        let mtu = mtu.to_string();
        let [left, right] = [&names[0], &names[1]];
        if !ip(&["link", "add", left, "type", "veth", "peer", "name", right]) {
            skip::skip("a test on a pair of interfaces", "`ip link add type veth` does not work here");
            return None;
        }
        let veth = Self(names.clone());
        for name in &names {
            assert!(ip(&["link", "set", "dev", name, "mtu", &mtu, "up"]));
        }
        Some(veth)
    }

    /// Both sides as DPDK devices.
    pub fn devices(&self) -> [String; 2] {
        let device = |side: usize| format!("net_af_packet{side},iface={},framecnt=512", self.0[side]);
        [device(0), device(1)]
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        // The other side goes with it.
        ip(&["link", "del", &self.0[0]]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).status().is_ok_and(|status| status.success())
}

/// A folder that goes with the value.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let path = env::temp_dir().join(prefix());
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
