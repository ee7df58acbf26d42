//! What all runs of a comparison share: a folder that goes with them, the CPUs and who has them, the programs, the pages.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::process::{Stop, on_path};
use crate::pages;

/// Far above what a start or an answer takes: only a hang meets it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The MAC address of Weft's port, to which all traffic goes.
const PORT_MAC: &str = "02:00:00:00:02:01";

/// Bytes of memory for each mbuf on huge pages: 2,048 of frame, its headroom, the mbuf itself and the pool's ring.
const MBUF_BYTES: u64 = 2560;

/// The same on pages of 4 KiB: DPDK puts no mbuf across two of them.
const SMALL_PAGE_MBUF_BYTES: u64 = 4224;

/// How Weft hands packets on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Forward {
    /// By the backend's MAC address.
    L2dsr,
    /// In IP.
    #[default]
    Ipip,
    /// In IP, UDP and GUE.
    Gue,
}

impl Forward {
    /// As weft.toml says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::L2dsr => "l2dsr",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
        }
    }
}

/// What a comparison works in.
#[derive(Debug)]
pub struct Lab {
    folder: tempfile::TempDir,
    /// Where the programs are.
    pub programs: PathBuf,
    /// DPDK's forwarder, where it is installed.
    pub testpmd: Option<PathBuf>,
    /// The CPUs this process may use.
    pub cpus: Vec<u32>,
    /// How Weft hands packets on.
    pub forward: Forward,
    /// Descriptors of the vhost-user rings.
    pub ring: u16,
    /// Whether this process was told to end.
    pub stop: Stop,
}

/// A configuration of Weft for a measurement.
#[derive(Clone, Debug)]
pub struct Site<'a> {
    /// Its workers' CPUs.
    pub workers: &'a [u32],
    /// Flows and tokens its tables are made for.
    pub flows: u64,
    /// The port packets come from, and the one they leave by, if that is another.
    pub devices: &'a [String],
    /// mbufs beside those of rings.
    pub mbufs: u64,
    /// How many backends its pool has.
    pub backends: u32,
    /// Whether each of them is other than usual: another MAC address, another weight.
    pub changed: bool,
    /// Whether tables stay when it ends.
    pub keep_tables: bool,
    /// Whether packets lie on huge pages.
    pub huge_pages: bool,
}

impl Lab {
    /// A lab with the programs of a folder.
    ///
    /// # Errors
    /// A program is missing, or there are not CPUs enough; says what to do.
    pub fn new(programs: &Path, forward: Forward, ring: u16, stop: Stop) -> anyhow::Result<Self> {
        for name in ["weft-dataplane", "weft-ctrlplane", "weftctl"] {
            if !programs.join(name).is_file() {
                bail!(
                    "there is no {name} in {}: cargo build --release -p weft-dataplane -p weft-ctrlplane, or name its \
                     folder by --programs",
                    programs.display()
                );
            }
        }
        if !rustix::process::geteuid().is_root() {
            bail!("DPDK's memory and devices need root: run it again with sudo");
        }
        let cpus: Vec<u32> =
            crate::machine::cpus().into_iter().filter_map(|cpu| u32::try_from(cpu).ok()).collect();
        if cpus.len() < 2 {
            bail!(
                "a worker takes a CPU whole, and another is needed beside it: there is {} here",
                cpus.len()
            );
        }
        let folder =
            tempfile::Builder::new().prefix("weft-bench-").tempdir().context("no temporary folder")?;
        let testpmd = on_path("dpdk-testpmd");
        Ok(Self { folder, programs: programs.to_owned(), testpmd, cpus, forward, ring, stop })
    }

    /// A file of the lab.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The CPUs of so many workers: the last ones, since the first are busiest elsewhere.
    pub fn workers(&self, count: usize) -> &[u32] {
        let first = self.cpus.len().saturating_sub(count);
        self.cpus.get(first..).unwrap_or_default()
    }

    /// The CPU that sends, and the one that receives: another where there are CPUs for it beside the workers'.
    pub fn senders(&self, workers: usize) -> (u32, Option<u32>) {
        let at = |place: usize| self.cpus.get(place).copied();
        let receives = at(1).filter(|_| self.cpus.len() >= workers + 3);
        (at(0).unwrap_or(0), receives)
    }

    /// The CPU of a sink that is a program of its own, and whether nobody else has it.
    pub fn sink(&self) -> (u32, bool) {
        match self.cpus.get(1).filter(|_| self.cpus.len() >= 3) {
            Some(cpu) => (*cpu, true),
            None => (self.senders(1).0, false),
        }
    }

    /// DPDK's file prefix for a program of this lab.
    pub fn prefix(&self, program: &str) -> String {
        format!("weft-bench-{}-{program}", std::process::id())
    }

    /// MiB of memory for so many mbufs.
    pub fn memory_mb(mbufs: u64, huge_pages: bool) -> u32 {
        let bytes = if huge_pages { MBUF_BYTES } else { SMALL_PAGE_MBUF_BYTES };
        let mb = (mbufs * bytes).div_ceil(1 << 20) + 64;
        u32::try_from(mb.max(256)).unwrap_or(u32::MAX)
    }

    /// Whether there are huge pages for pools of so many mbufs, and for the tables beside them. Says so if not.
    pub fn has_huge_pages(pools: &[u64]) -> bool {
        let needed = pools.iter().map(|mbufs| Self::memory_mb(*mbufs, true)).sum::<u32>() + 128;
        let enough = pages::has_huge_pages(needed);
        if !enough {
            log::warn!(
                "fewer than {needed} MiB of huge pages are free: packets lie on ordinary ones, at about half the speed \
                 (echo {} > /proc/sys/vm/nr_hugepages)",
                needed.div_ceil(2)
            );
        }
        enough
    }

    /// Writes a weft.toml and gives its path.
    ///
    /// # Errors
    /// The disk is full, or the like.
    pub fn configure(&self, name: &str, site: &Site<'_>) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, self.text(site)).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn text(&self, site: &Site<'_>) -> String {
        let Site { workers, flows, mbufs, keep_tables, huge_pages, .. } = site;
        let memory_mb = Self::memory_mb(*mbufs + 16_384, *huge_pages);
        let mut text = format!(
            "[dataplane]\nruntime_dir = {:?}\nfile_prefix = {:?}\nworkers = {workers:?}\nflows = {flows}\n\
             tokens = {flows}\nmemory_mb = {memory_mb}\nmbufs = {}\nhuge_pages = \"{}\"\nkeep_tables = {keep_tables}\n",
            self.path("run"),
            self.prefix("weft"),
            (*mbufs + 16_384).max(1024),
            if *huge_pages { "on" } else { "off" },
        );
        let last = site.devices.len().saturating_sub(1);
        for (place, device) in site.devices.iter().enumerate() {
            // Writing to a String does not fail.
            let _ = write!(text, "\n[[dataplane.port]]\ndevice = {device:?}\nmtu = 1600\n");
            let mac = if place == 0 { PORT_MAC } else { "02:00:00:00:02:02" };
            let _ = writeln!(text, "mac = {mac:?}");
            if place == last {
                // The backends' network: packets leave by this port.
                text.push_str("address = [\"10.0.255.254/16\"]\n");
            }
        }
        text.push_str("\n[[pool]]\nname = \"backends\"\nbackend = [\n");
        for number in 0..site.backends {
            let (high, low) = (number / 250, number % 250 + 1);
            // Weights all changed alike would leave Maglev's table as it is.
            let (version, weight) = if site.changed { (2, 50 + number % 100) } else { (1, 100) };
            let _ = writeln!(
                text,
                "  {{ name = \"b{number}\", address = \"10.0.{high}.{low}\", \
                 mac = \"02:00:00:{version:02x}:{high:02x}:{low:02x}\", weight = {weight} }},"
            );
        }
        let forward = self.forward.name();
        let _ = write!(
            text,
            "]\n\n[[vip]]\nname = \"web\"\naddress = \"10.9.9.9\"\nport = 8000\npool = \"backends\"\nforward = \"{forward}\"\n"
        );
        text
    }
}
