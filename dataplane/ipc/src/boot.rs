//! Which boot this is, and how long it lasts: the clock that both processes and what they leave behind go by.
//!
//! CLOCK_BOOTTIME, which nobody steps and which goes on while a machine sleeps. Its times mean something only beside
//! the boot's id.

/// The kernel's boot id as it tells it; empty where there is none.
pub fn id_text() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// The boot id as two words; zeroes where there is none.
pub fn id() -> [u64; 2] {
    let digits: String = id_text().chars().filter(char::is_ascii_hexdigit).collect();
    let half =
        |range| digits.get(range).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or_default();
    [half(16..32), half(0..16)]
}

/// Nanoseconds since boot, sleep included.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_id_is_one() {
        assert_ne!(id(), [0, 0]);
        assert_eq!(id(), id());
    }
}
