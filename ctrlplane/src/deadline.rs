//! Deadlines of removals: said as spans by people, kept as moments, told to the data plane as seconds left.
//!
//! A moment is counted by CLOCK_BOOTTIME, which nobody steps and which goes on while a machine sleeps, together
//! with the boot's id. After a reboot such a moment means nothing, and need not: the data plane's tables began
//! empty, so no connection of before waits for it.

use std::sync::OnceLock;
use std::time::Duration;

use ipc::boot;
use serde::{Deserialize, Serialize};

/// Longest span of a deadline, in seconds: longer than any flow may be silent, and far from every overflow.
pub const MAX_SPAN: u32 = 7 * 24 * 3600;

/// A moment of one boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// The boot's id, as the kernel tells it.
    boot: String,
    /// Seconds of CLOCK_BOOTTIME.
    at: u64,
}

impl Deadline {
    /// The moment `seconds` from now.
    pub fn after(seconds: u32) -> Self {
        Self { boot: boot_id().to_owned(), at: now() + u64::from(seconds) }
    }

    /// Seconds left: 0 once it is past, `None` when it belongs to another boot.
    pub fn left(&self) -> Option<u32> {
        let left = self.at.saturating_sub(now());
        (self.boot == boot_id()).then(|| u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// Whether it is so long past, or of another boot, that nobody needs to hear of it any more.
    pub fn is_history(&self) -> bool {
        self.boot != boot_id() || now().saturating_sub(self.at) > u64::from(MAX_SPAN)
    }
}

/// Seconds since the boot, sleep included.
fn now() -> u64 {
    boot::now_ns() / 1_000_000_000
}

/// Where the kernel does not tell, all boots are one: deadlines are then honoured, or past.
fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(boot::id_text)
}

/// Reads `90s`, `10m` or `2h`; a number alone is seconds. The error is half a sentence.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let form = || "write a number and s, m or h, as in 90s, 10m or 2h".to_owned();
    let split = text.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale: u32 = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(form()),
    };
    let number: u32 = number.parse().map_err(|_| form())?;
    let seconds = number.checked_mul(scale).filter(|seconds| *seconds <= MAX_SPAN);
    let seconds = seconds.ok_or_else(|| format!("at most {} h", MAX_SPAN / 3600))?;
    Ok(Duration::from_secs(u64::from(seconds)))
}

/// Writes seconds as people say them: `45s`, `2m 5s`, `3h 20m`.
pub fn say_span(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, 0) => format!("{minutes}m"),
        (0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (hours, 0, _) => format!("{hours}h"),
        (hours, minutes, _) => format!("{hours}h {minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        let seconds = |text| parse_span(text).map(|span| span.as_secs());
        for (text, expected) in [("0", 0), ("90s", 90), ("10m", 600), ("2h", 7200), ("45", 45)] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "s", "-1s", "1d", "1.5h", "10 m", "m10", "99999999999s"] {
            assert!(seconds(text).unwrap_err().contains("as in 90s, 10m or 2h"), "{text}");
        }
        assert_eq!(seconds("168h"), Ok(u64::from(MAX_SPAN)));
        assert_eq!(seconds("169h"), Err("at most 168 h".to_owned()));
        assert_eq!(seconds("4294967295h"), Err("at most 168 h".to_owned()), "no overflow");
    }

    #[test]
    fn spans_are_said_without_what_does_not_matter() {
        for (seconds, said) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (125, "2m 5s"), (7200, "2h"), (12_059, "3h 20m")]
        {
            assert_eq!(say_span(seconds), said);
        }
    }

    #[test]
    fn a_deadline_of_another_boot_means_nothing() {
        let deadline = Deadline::after(600);
        assert!(deadline.left().is_some_and(|left| left > 590), "{deadline:?}");
        assert!(!deadline.is_history());
        let other = Deadline { boot: "another".to_owned(), ..deadline };
        assert_eq!((other.left(), other.is_history()), (None, true));
        assert_eq!(Deadline { at: 0, ..Deadline::after(0) }.left(), Some(0), "past");
    }
}
