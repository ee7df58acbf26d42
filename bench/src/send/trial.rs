//! What a trial was and what came of it, as it is written for people and for programs.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::sink::Received;
use crate::histogram::Histogram;
use crate::number::float;

/// What does not change from trial to trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Packets of the capture.
    pub packets: usize,
    /// How many of them bear a stamp: those with 16 bytes of payload at the frame's end.
    pub stamped_packets: usize,
    /// The port that sends.
    pub device: String,
    /// The lcore that sends, and the one that receives.
    pub lcores: [u32; 2],
    /// Descriptors of a ring of the port.
    pub ring: u16,
    /// What packet buffers lie on.
    pub pages: String,
}

/// What came of one trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Packets a second asked for; `None`: as many as the port takes.
    pub asked_pps: Option<f64>,
    /// How long it sent.
    pub seconds: f64,
    /// Packets offered to the port.
    pub offered: u64,
    /// Of these, found no room in the port's ring, and are lost. At the rate "max" they were offered again instead.
    pub refused: u64,
    /// Packets that were due while the sender was held up for longer than it makes up for: never offered.
    pub skipped: u64,
    /// Packets offered a second.
    pub offered_pps: f64,
    /// What came back; `None` where nobody looked.
    pub received: Option<Back>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Back {
    /// Packets.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packets of an earlier trial, not counted above.
    pub stale: u64,
    /// Offered and not received.
    pub lost: u64,
    /// The share of the offered that was lost, 0 to 1.
    pub loss: f64,
    /// Packets received a second of sending.
    pub pps: f64,
    /// The longest time between two packets received, or between the last one and the end of sending.
    pub longest_gap_us: f64,
    /// The same without the time in which the receiver itself did not run: what is left is not its own doing.
    pub longest_silence_us: f64,
    /// The longest time for which the receiver did not run.
    pub longest_hold_us: f64,
    /// The most packets in a row that were lost, as far as stamps tell.
    pub longest_loss: u64,
    /// Of stamped packets, how many came after a later one.
    pub reordered: u64,
    /// Time from making a packet's burst to receiving it; `None` where no stamp came back.
    pub latency: Option<Latency>,
}

/// A distribution of times, in microseconds, each to better than one part in a hundred.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "percentiles name themselves")]
pub struct Latency {
    pub packets: u64,
    pub min_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Latency {
    /// Of a histogram of cycles.
    pub fn of(histogram: &Histogram, cycles_a_second: u64) -> Option<Self> {
        let us = |cycles: Option<u64>| Some(float(cycles?) * 1e6 / float(cycles_a_second));
        Some(Self {
            packets: histogram.count(),
            min_us: us(histogram.least())?,
            p50_us: us(histogram.percentile(50.0))?,
            p90_us: us(histogram.percentile(90.0))?,
            p99_us: us(histogram.percentile(99.0))?,
            p999_us: us(histogram.percentile(99.9))?,
            max_us: us(histogram.greatest())?,
        })
    }
}

impl Back {
    /// What a sink received, of so many packets offered in so many seconds.
    pub fn of(received: &Received, offered: u64, seconds: f64, cycles_a_second: u64) -> Self {
        let us = |cycles: u64| float(cycles) * 1e6 / float(cycles_a_second);
        let lost = offered.saturating_sub(received.packets);
        Self {
            packets: received.packets,
            bytes: received.bytes,
            stale: received.stale,
            lost,
            loss: if offered == 0 { 0.0 } else { float(lost) / float(offered) },
            pps: float(received.packets) / seconds,
            longest_gap_us: us(received.longest_gap),
            longest_silence_us: us(received.longest_silence),
            longest_hold_us: us(received.longest_hold),
            longest_loss: received.longest_loss,
            reordered: received.reordered,
            latency: Latency::of(&received.latency, cycles_a_second),
        }
    }
}

impl Back {
    /// What came back where another program counted it: packets, and what follows from their number.
    pub fn counted(&mut self, packets: u64, trial: &Trial) {
        self.packets = packets;
        self.lost = trial.offered.saturating_sub(packets);
        self.loss = if trial.offered == 0 { 0.0 } else { float(self.lost) / float(trial.offered) };
        self.pps = float(packets) / trial.seconds;
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = match self.asked_pps {
            Some(pps) => format!("{:.3} asked for", pps / 1e6),
            None => "as fast as it goes".to_owned(),
        };
        write!(
            f,
            "offered   {} packets in {:.3} s: {:.3} Mpps ({asked})",
            self.offered,
            self.seconds,
            self.offered_pps / 1e6
        )?;
        if self.skipped > 0 {
            write!(f, "; {} more were due while the sender was held up", self.skipped)?;
        }
        if self.refused > 0 {
            write!(f, "\nrefused   {} found the port's ring full", self.refused)?;
        }
        let Some(back) = &self.received else { return Ok(()) };
        write!(f, "\nreceived  {} packets: {:.3} Mpps; ", back.packets, back.pps / 1e6)?;
        write!(f, "{} lost, which is {:.4} %", back.lost, back.loss * 100.0)?;
        if back.reordered > 0 {
            write!(f, "; {} came after a later one", back.reordered)?;
        }
        write!(
            f,
            "\ngap       {:.1} us at most between two packets, {:.1} us without what held up the receiver",
            back.longest_gap_us, back.longest_silence_us
        )?;
        match &back.latency {
            Some(l) => write!(
                f,
                "\nlatency   p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1} us, of {} stamped packets",
                l.p50_us, l.p90_us, l.p99_us, l.p999_us, l.max_us, l.packets
            ),
            None => write!(f, "\nlatency   unknown: no stamped packet came back"),
        }
    }
}
