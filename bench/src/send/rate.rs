//! How fast to send: the rate as written on the command line, and the clock that keeps it.

use std::str::FromStr;

use crate::number::{float, whole};

/// A rate as asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as the port takes packets; what it has no room for is offered again.
    Max,
    /// Packets a second.
    Pps(f64),
    /// Of what was sent at [`Rate::Max`] in a trial before.
    Percent(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no rate: write max, packets a second like 250k or 1.5M, or 50%");
        if text == "max" {
            return Ok(Self::Max);
        }
        let (digits, unit) = match text.char_indices().last() {
            Some((at, unit @ ('k' | 'K' | 'm' | 'M' | '%'))) => (text.get(..at).unwrap_or_default(), unit),
            _ => (text, ' '),
        };
        let number: f64 = digits.parse().map_err(|_| wrong())?;
        if !number.is_finite() || number <= 0.0 {
            return Err(wrong());
        }
        Ok(match unit {
            '%' => Self::Percent(number),
            'k' | 'K' => Self::Pps(number * 1e3),
            'm' | 'M' => Self::Pps(number * 1e6),
            _ => Self::Pps(number),
        })
    }
}

/// The time for which a sender that was held up may make up. Longer spells are left out and counted: a sender that
/// made up for all of them would offer bursts that nobody asked for.
const MAKE_UP_SECONDS: f64 = 20e-6;

/// Says how many packets are due.
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    /// `None`: always as many as fit.
    packets_a_cycle: Option<f64>,
    began: u64,
    most_behind: u64,
    released: u64,
    skipped: u64,
}

impl Pacer {
    /// Starts at `now`; `pps` packets a second, or as many as possible. `burst` packets may be late at any rate.
    pub fn new(pps: Option<f64>, cycles_a_second: u64, burst: u64, now: u64) -> Self {
        Self {
            packets_a_cycle: pps.map(|pps| pps / float(cycles_a_second)),
            began: now,
            most_behind: whole(pps.unwrap_or(0.0) * MAKE_UP_SECONDS).max(burst),
            released: 0,
            skipped: 0,
        }
    }

    /// How many packets are due at `now` and not released.
    #[inline]
    pub fn due(&mut self, now: u64) -> u64 {
        let Some(packets_a_cycle) = self.packets_a_cycle else { return u64::MAX };
        let total = whole(float(now.saturating_sub(self.began)) * packets_a_cycle);
        let behind = total.saturating_sub(self.released + self.skipped);
        let skipped = behind.saturating_sub(self.most_behind);
        self.skipped += skipped;
        behind - skipped
    }

    /// Notes that so many went.
    #[inline]
    pub fn release(&mut self, packets: u64) {
        self.released += packets;
    }

    /// Ends at `now`: how many were due in all this time and never went, since the sender was held up.
    pub fn end(mut self, now: u64) -> u64 {
        match self.packets_a_cycle {
            Some(_) => self.due(now) + self.skipped,
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 1_000_000_000;

    #[test]
    fn rates_are_written_in_packets_thousands_millions_and_percent() {
        let parsed = ["max", "14", "250k", "1.5M", "50%", "0.5m"].map(|text| text.parse::<Rate>().unwrap());
        let expected = [
            Rate::Max,
            Rate::Pps(14.0),
            Rate::Pps(250e3),
            Rate::Pps(1.5e6),
            Rate::Percent(50.0),
            Rate::Pps(5e5),
        ];
        assert_eq!(parsed, expected);
        for text in ["", "0", "-1", "fast", "M", "%", "1G", "inf", "nan", "1 k"] {
            assert!(text.parse::<Rate>().unwrap_err().contains("is no rate"), "{text}");
        }
    }

    #[test]
    fn a_pacer_that_is_asked_often_releases_exactly_its_rate() {
        let mut pacer = Pacer::new(Some(1e6), HZ, 32, 5);
        let mut sent = 0;
        for now in (5..=5 + HZ / 100).step_by(700) {
            let due = pacer.due(now).min(32);
            pacer.release(due);
            sent += due;
        }
        assert!((9_999..=10_000).contains(&sent), "{sent} of 10,000");
        assert_eq!(pacer.end(5 + HZ / 100), 10_000 - sent);
    }

    #[test]
    fn what_was_due_in_a_long_pause_is_left_out_and_counted() {
        let mut pacer = Pacer::new(Some(10e6), HZ, 32, 0);
        // 10 ms: 100,000 packets are due, of which 20 µs are made up for.
        assert_eq!(pacer.due(10_000_000), 200);
        pacer.release(200);
        assert_eq!(pacer.due(10_000_000), 0);
        assert_eq!(pacer.due(10_000_100), 1, "and then it goes on at its rate");
        assert_eq!(pacer.end(10_000_100), 99_801);
        // At a low rate a burst may be late.
        let mut slow = Pacer::new(Some(1000.0), HZ, 32, 0);
        assert_eq!(slow.due(HZ), 32);
        slow.release(32);
        assert_eq!(slow.end(HZ), 968);
    }

    #[test]
    fn without_a_rate_there_is_always_more() {
        let mut pacer = Pacer::new(None, HZ, 32, 0);
        assert_eq!((pacer.due(0), pacer.due(1), pacer.end(2)), (u64::MAX, u64::MAX, 0));
    }
}
