//! How much data the packets of a running connection carry, so that its sequence numbers at any round are known
//! without those before it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use packet::{Family, Version, ethernet, tcp, udp};

use super::MAX_FRAME;
use super::frame::Ip;

/// Sizes of frames, in bytes without the frame check sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrameSize {
    /// In every twelve 7 of 60, 4 of 566 and 1 of 1514 (the 64, 570 and 1518 of "simple IMIX" less the frame check
    /// sequence), or the smallest a header allows: an acknowledgment.
    #[default]
    Imix,
    /// The smallest the headers allow: acknowledgments.
    Min,
    /// All alike.
    Bytes(u16),
}

impl FromStr for FrameSize {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "imix" => Ok(Self::Imix),
            "min" => Ok(Self::Min),
            _ => {
                let bytes: u16 = text.parse().context("a frame size is imix, min or a number of bytes")?;
                if !(ethernet::FRAME_MIN..=MAX_FRAME).contains(&usize::from(bytes)) {
                    bail!(
                        "a frame has {} to {MAX_FRAME} bytes (the frame check sequence, 4 bytes, is not counted)",
                        ethernet::FRAME_MIN
                    );
                }
                Ok(Self::Bytes(bytes))
            }
        }
    }
}

impl fmt::Display for FrameSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Imix => f.write_str("imix"),
            Self::Min => f.write_str("min"),
            Self::Bytes(bytes) => bytes.fmt(f),
        }
    }
}

/// Rounds after which sizes come again.
const CYCLE: usize = 12;

/// The order of an IMIX's sizes; a connection begins anywhere in it.
const IMIX: [usize; CYCLE] = [60, 566, 60, 60, 1514, 60, 566, 60, 60, 566, 60, 566];

/// What carries data: its headers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Carrier {
    pub family: Family,
    pub kind: CarrierKind,
}

/// See [`Carrier`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CarrierKind {
    Plain,
    Mptcp(Version),
    Udp,
}

impl Carrier {
    const TIMESTAMPS: usize = 12;

    /// Bytes of an acknowledgment, and of the headers before data.
    fn headers(self) -> (usize, usize) {
        let ip = Ip::headers(self.family);
        let tcp = ip + tcp::HEADER_LEN + Self::TIMESTAMPS;
        match self.kind {
            CarrierKind::Udp => (ip + udp::HEADER_LEN, ip + udp::HEADER_LEN),
            CarrierKind::Plain => (tcp, tcp),
            CarrierKind::Mptcp(Version::V0) => (tcp + 8, tcp + 20),
            CarrierKind::Mptcp(Version::V1) => (tcp + 12, tcp + 28),
        }
    }

    /// Data in a frame of this size; one that is too small for any is an acknowledgment.
    fn data(self, frame: usize) -> usize {
        let (_, header) = self.headers();
        match self.kind {
            // A datagram without data would be shorter than Ethernet allows, or like no other.
            CarrierKind::Udp => frame.saturating_sub(header).max(if header < 60 { 60 - header } else { 4 }),
            _ => frame.saturating_sub(header),
        }
    }
}

/// The data of a carrier's packets, round by round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    data: [u32; CYCLE],
    /// Whether segments carry timestamps: not where the frame is too small for them.
    pub timestamps: bool,
    /// Data of a frame in the middle of a large write, which has no PSH.
    full: u32,
}

impl Sizes {
    /// The sizes of a carrier.
    pub(super) fn new(size: FrameSize, carrier: Carrier) -> anyhow::Result<Self> {
        let (ack, header) = carrier.headers();
        let mut timestamps = true;
        let data = match size {
            FrameSize::Imix => IMIX.map(|frame| carrier.data(frame)),
            FrameSize::Min => [carrier.data(0); CYCLE],
            FrameSize::Bytes(bytes) => {
                let bytes = usize::from(bytes);
                let bare = header - Carrier::TIMESTAMPS;
                let one = match carrier.kind {
                    CarrierKind::Plain if bytes < ack && bytes > bare => {
                        timestamps = false;
                        bytes - bare
                    }
                    CarrierKind::Udp if bytes > header => bytes - header,
                    CarrierKind::Plain | CarrierKind::Mptcp(_) if bytes > header || bytes == ack => {
                        bytes.saturating_sub(header)
                    }
                    _ => bail!("{}", carrier.refusal(bytes)),
                };
                [one; CYCLE]
            }
        };
        let data = data.map(|len| u32::try_from(len).unwrap_or(u32::MAX));
        let full = data.iter().copied().max().filter(|len| *len > 1000).unwrap_or(u32::MAX);
        Ok(Self { data, timestamps, full })
    }

    /// Data of this round.
    #[inline]
    pub(super) fn of(&self, phase: u64, round: u64) -> u32 {
        let at = (phase % CYCLE as u64 + round % CYCLE as u64) % CYCLE as u64;
        usize::try_from(at).ok().and_then(|at| self.data.get(at)).copied().unwrap_or_default()
    }

    /// Whether so much data fills a frame.
    pub(super) const fn is_full(&self, data: u32) -> bool {
        data >= self.full
    }

    /// Data of the first `turns` of the rounds `first`, `first + stride`, `first + 2 * stride`, ...
    #[inline]
    pub(super) fn before(&self, phase: u64, first: u64, stride: u64, turns: u64) -> u64 {
        let sum =
            |turns: u64| (0..turns).map(|turn| u64::from(self.of(phase, first + turn * stride))).sum::<u64>();
        let cycle = CYCLE as u64;
        let whole = turns / cycle;
        (if whole == 0 { 0 } else { whole * sum(cycle) }) + sum(turns % cycle)
    }
}

impl Carrier {
    fn refusal(self, bytes: usize) -> String {
        let (ack, header) = self.headers();
        let family = if self.family == Family::V4 { "IPv4" } else { "IPv6" };
        let (what, sizes) = match self.kind {
            CarrierKind::Udp => ("UDP datagram", format!("more than {header}")),
            CarrierKind::Plain => ("TCP segment", format!("more than {}", header - Carrier::TIMESTAMPS)),
            CarrierKind::Mptcp(version) => (
                if version == Version::V0 { "version 0 MPTCP segment" } else { "version 1 MPTCP segment" },
                format!("{ack} (an acknowledgment) or more than {header}"),
            ),
        };
        format!(
            "no {what} over {family} fills a frame of {bytes} bytes: {sizes} it must be, or leave --frame-size out"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: CarrierKind = CarrierKind::Mptcp(Version::V1);

    fn sizes(text: &str, family: Family, kind: CarrierKind) -> anyhow::Result<Sizes> {
        Sizes::new(text.parse().unwrap(), Carrier { family, kind })
    }

    #[test]
    fn seven_in_twelve_are_small_four_middling_and_one_is_large() {
        let imix = sizes("imix", Family::V4, V1).unwrap();
        let count = |data| (0..12).filter(|round| imix.of(0, *round) == data).count();
        assert_eq!((count(0), count(566 - 94), count(1514 - 94)), (7, 4, 1));
        assert!(imix.is_full(1420) && !imix.is_full(472));
    }

    #[test]
    fn what_was_sent_before_a_round_is_the_sum_of_the_rounds_before_it() {
        let imix = sizes("imix", Family::V6, V1).unwrap();
        for phase in 0..12 {
            for (first, stride) in [(0, 1), (0, 2), (1, 2)] {
                let mut sum = 0;
                for turn in 0..40 {
                    assert_eq!(imix.before(phase, first, stride, turn), sum);
                    sum += u64::from(imix.of(phase, first + turn * stride));
                }
            }
        }
    }

    #[test]
    fn a_frame_of_sixty_bytes_is_tcp_without_timestamps_or_no_frame_at_all() {
        let plain = sizes("60", Family::V4, CarrierKind::Plain).unwrap();
        assert_eq!((plain.of(0, 0), plain.timestamps), (6, false));
        assert!(sizes("66", Family::V4, CarrierKind::Plain).unwrap().timestamps);
        for (text, family, kind) in
            [("60", Family::V4, V1), ("90", Family::V4, V1), ("60", Family::V6, CarrierKind::Plain)]
        {
            let said = sizes(text, family, kind).unwrap_err().to_string();
            assert!(said.contains("--frame-size"), "{said}");
        }
        assert_eq!(sizes("78", Family::V4, V1).unwrap().of(3, 9), 0);
        assert!("59".parse::<FrameSize>().is_err() && "9019".parse::<FrameSize>().is_err());
    }
}
