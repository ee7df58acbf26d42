//! How long each part of the start took: the gap in which nobody forwards.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// The parts so far.
#[derive(Debug)]
pub struct Phases {
    begun: Instant,
    last: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Phases {
    /// The start begins.
    pub fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, last: now, done: Vec::new() }
    }

    /// A part ends here, and the next begins.
    pub fn end(&mut self, name: &'static str) {
        let now = Instant::now();
        self.done.push((name, now.duration_since(self.last)));
        self.last = now;
    }
}

/// For the log: `812.4 ms (lock and segment 3.0, tables 40.2)`.
impl core::fmt::Display for Phases {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1000.0;
        let mut parts = String::new();
        for (name, took) in &self.done {
            let comma = if parts.is_empty() { "" } else { ", " };
            write!(parts, "{comma}{name} {:.1}", milliseconds(*took))?;
        }
        write!(f, "{:.1} ms ({parts})", milliseconds(self.last.duration_since(self.begun)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_told_in_order_and_with_their_sum() {
        let begun = Instant::now();
        let done = vec![("lock", Duration::from_micros(1500)), ("tables", Duration::from_millis(40))];
        let phases = Phases { begun, last: begun + Duration::from_micros(41_500), done };
        assert_eq!(phases.to_string(), "41.5 ms (lock 1.5, tables 40.0)");
        let mut phases = Phases::begin();
        phases.end("one");
        phases.end("two");
        let said = phases.to_string();
        assert!(said.contains("(one ") && said.contains(", two "), "{said}");
    }
}
