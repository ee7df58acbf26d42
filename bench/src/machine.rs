//! The machine a measurement runs on: its conditions for the record, and one CPU for the measuring thread.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rustix::thread::CpuSet;

use crate::report::Conditions;

/// Binds this thread to a CPU.
///
/// # Errors
/// There is no such CPU, or this process may not use it.
pub fn pin(cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    if cpu >= CpuSet::MAX_CPU {
        anyhow::bail!("there is no CPU {cpu}");
    }
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set)
        .with_context(|| format!("cannot run on CPU {cpu}: choose another with --cpu"))
}

/// The CPUs this process may use, in order.
pub fn cpus() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// What this machine is; `pages` is what the tables lie on.
pub fn conditions(pages: &str) -> Conditions {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Conditions {
        cpu: field("model name").unwrap_or_default(),
        tsc_mhz: tsc_mhz(&field("bogomips").unwrap_or_default()),
        kernel: release.trim().to_owned(),
        dpdk: String::new(),
        rustc: env!("WEFT_RUSTC").to_owned(),
        pages: pages.to_owned(),
        // Not those of the affinity: the measuring thread has one.
        cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count() as u64,
    }
}

/// The TSC's frequency from the kernel's calibration of its delay loop by it: twice the megahertz. 0 where it is not said.
fn tsc_mhz(bogomips: &str) -> u64 {
    let whole = bogomips.split('.').next().and_then(|whole| whole.parse::<u64>().ok());
    whole.map_or(0, |bogomips| bogomips / 2)
}

/// Today, `YYYY-MM-DD` in UTC.
pub fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(i64::try_from(seconds / 86_400).unwrap_or(0));
    format!("{year:04}-{month:02}-{day:02}")
}

/// The date of a day counted from 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
const fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + if month <= 2 { 1 } else { 0 }, month, day)
}

/// The command line, as it would be typed.
pub fn command() -> String {
    let mut words = std::env::args();
    let program = words.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default().to_owned();
    core::iter::once(name).chain(words).collect::<Vec<_>>().join(" ")
}

/// Kilobytes of this process that lie on transparent huge pages.
fn huge_kilobytes() -> u64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// What pages so many bytes of tables lie on, as far as the kernel says it of the process they are most of.
pub fn table_pages(bytes: usize) -> &'static str {
    let huge = usize::try_from(huge_kilobytes()).unwrap_or(0) * 1024;
    if huge >= bytes / 10 * 9 { "2 MiB pages (transparent)" } else { "4 KiB pages" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(
            [0, 59, 60, 20_780].map(civil),
            [(1970, 1, 1), (1970, 3, 1), (1970, 3, 2), (2026, 11, 23)]
        );
        assert_eq!(civil(11_016), (2000, 2, 29));
    }

    #[test]
    fn a_tsc_is_half_its_bogomips() {
        assert_eq!(["5200.00", "", "x"].map(tsc_mhz), [2600, 0, 0]);
    }

    #[test]
    fn a_thread_is_bound_to_a_cpu_it_may_use_and_to_no_other() {
        std::thread::spawn(|| {
            let last = *cpus().last().unwrap();
            pin(last).unwrap();
            assert_eq!(cpus(), [last]);
            assert!(pin(100_000).is_err() && pin(1023).is_err());
        })
        .join()
        .unwrap();
    }
}
