//! Huge pages: whether there are any for a DPDK program.

/// Whether so many MiB of huge pages are free.
pub fn has_huge_pages(needed_mb: u32) -> bool {
    free_mb(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()) >= u64::from(needed_mb)
}

/// What to call the pages packets lie on.
pub fn name(huge: bool) -> &'static str {
    if huge { "huge pages" } else { "4 KiB pages" }
}

/// MiB of free huge pages, of the default size, as /proc/meminfo tells.
fn free_mb(meminfo: &str) -> u64 {
    let field = |name: &str| -> u64 {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    field("HugePages_Free:").saturating_mul(field("Hugepagesize:")) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_huge_pages_are_counted_in_mib() {
        let meminfo = "HugePages_Total:     512\nHugePages_Free:      100\nHugepagesize:       2048 kB\n";
        assert_eq!((free_mb(meminfo), free_mb("MemTotal: 3 kB\n")), (200, 0));
    }
}
