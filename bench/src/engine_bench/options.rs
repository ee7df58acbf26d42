//! The command line of `engine` and `floor`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use packet::Family;

use super::openings::Kind;
use crate::traffic::Shape;

/// What to measure on, and how.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Configuration; without one, one VIP of each family before 100 backends in IPIP tunnels.
    #[arg(long, value_name = "weft.toml")]
    pub config: Option<PathBuf>,
    /// Replay this capture from memory.
    #[arg(long, value_name = "FILE", requires = "config", conflicts_with_all = ["flows", "family", "frames", "case", "tokens"])]
    pub pcap: Option<PathBuf>,
    /// Replay this one first, once, unmeasured: it establishes the flows.
    #[arg(long, value_name = "FILE", requires = "pcap")]
    pub warm: Option<PathBuf>,
    /// Without a capture: as many established MPTCP connections, each of whose tokens is known.
    #[arg(long, default_value = "1M", value_parser = count)]
    pub flows: u32,
    /// Without a capture: what is measured.
    #[arg(long, value_enum, default_value = "established")]
    pub case: CaseName,
    /// Without a capture: tokens in the table. By default as many as flows.
    #[arg(long, value_parser = count)]
    pub tokens: Option<u32>,
    /// Threads on the same tables, with mixed traffic, against one of them alone.
    #[arg(long, conflicts_with_all = ["case", "pcap", "cold"])]
    pub threads: Option<usize>,
    /// Without a capture: the family of the packets.
    #[arg(long, value_enum, default_value = "4")]
    pub family: FamilyName,
    /// Without a capture: what the packets are.
    #[arg(long, value_enum, default_value = "dss")]
    pub frames: FramesName,
    /// Packets judged at once, 1 to 64.
    #[arg(long, default_value = "32", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub burst: u8,
    /// How often everything is measured.
    #[arg(long, default_value = "9", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Packets in a round. By default a million; of a capture, as many turns as make a million.
    #[arg(long, value_parser = count)]
    pub packets: Option<u32>,
    /// Read frames from an arena larger than the second-level cache, in random order, instead of copying them in.
    #[arg(long)]
    pub cold: bool,
    /// Other seeds give other clients and another order.
    #[arg(long, default_value = "1")]
    pub seed: u64,
    /// The CPU to run on. By default the last one.
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// An IP version, as a word of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FamilyName {
    /// IPv4.
    #[value(name = "4")]
    V4,
    /// IPv6.
    #[value(name = "6")]
    V6,
}

/// What is measured, as a word of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CaseName {
    /// Packets of established connections.
    Established,
    /// Packets of joined subflows, to a port of each backend's own.
    Endpoint,
    /// SYNs with MP_CAPABLE of new connections.
    CapableSyn,
    /// SYNs with MP_JOIN of known tokens.
    Join,
    /// SYNs with MP_JOIN of unknown tokens.
    JoinUnknown,
    /// Third ACKs, which teach tokens.
    ThirdAck,
    /// The token table alone: look-ups that find something.
    TokenHit,
    /// The token table alone: look-ups that find nothing.
    TokenMiss,
}

impl CaseName {
    /// What is opened, where something is.
    pub const fn opening(self) -> Option<Kind> {
        Some(match self {
            Self::CapableSyn => Kind::CapableSyn,
            Self::Join => Kind::Join,
            Self::JoinUnknown => Kind::JoinUnknown,
            Self::ThirdAck => Kind::ThirdAck,
            Self::Established | Self::Endpoint | Self::TokenHit | Self::TokenMiss => return None,
        })
    }
}

/// What established connections send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FramesName {
    /// Timestamps and DSS, in the three sizes Linux sends.
    Dss,
    /// Timestamps alone.
    Timestamps,
    /// No options: frames of 60 bytes over IPv4.
    Bare,
}

impl FamilyName {
    /// The family.
    pub const fn family(self) -> Family {
        match self {
            Self::V4 => Family::V4,
            Self::V6 => Family::V6,
        }
    }
}

impl FramesName {
    /// The packets.
    pub const fn shapes(self) -> &'static [Shape] {
        match self {
            Self::Dss => &Shape::DSS,
            Self::Timestamps => &[Shape::Timestamps],
            Self::Bare => &[Shape::Bare],
        }
    }

    /// What a figure on them is called.
    pub const fn case(self) -> &'static str {
        match self {
            Self::Dss => "established",
            Self::Timestamps => "established_timestamps",
            Self::Bare => "established_bare",
        }
    }
}

/// A number, with k or M for thousands and millions.
///
/// # Errors
/// It is none, is zero, or does not fit.
pub fn count(text: &str) -> Result<u32, String> {
    let (digits, times) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1000),
        None => text.strip_suffix(['m', 'M']).map_or((text, 1), |digits| (digits, 1_000_000)),
    };
    let number = digits.replace('_', "").parse::<u32>().ok().and_then(|number| number.checked_mul(times));
    number
        .filter(|number| *number > 0)
        .ok_or_else(|| "not a number from 1 to 4 thousand million; 64k and 10M are numbers too".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_and_millions_have_letters() {
        assert_eq!(count("1"), Ok(1));
        assert_eq!(
            ["64k", "10M", "1_000", "4000000000"].map(|text| count(text).unwrap()),
            [64_000, 10_000_000, 1000, 4_000_000_000]
        );
        assert!(["", "0", "k", "-1", "5000M", "1.5M", "1kk"].iter().all(|text| count(text).is_err()));
    }
}
