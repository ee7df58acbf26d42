//! The packets that a comparison plays: long-lived MPTCP connections, their handshakes in one file, their data and
//! acknowledgments in random order in another.

use std::path::PathBuf;

use super::lab::Lab;
use crate::generate::{Families, FrameSize, Part, Plan, Profile, write};

/// Packets of a steady file, at the least.
const LEAST_PACKETS: u64 = 1024;

/// How long frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Acknowledgments of Linux's layout: 78 bytes.
    Smallest,
    /// So many bytes, without the check sequence.
    Bytes(usize),
}

/// Two captures of the same flows.
#[derive(Clone, Debug)]
pub struct Files {
    /// What establishes the flows.
    pub warm: PathBuf,
    /// What they do then; may be repeated for ever.
    pub steady: PathBuf,
    /// Packets of the first.
    pub warm_packets: u64,
    /// Packets of the second.
    pub packets: u64,
    /// How many flows there are.
    pub flows: u64,
    /// Bytes of a steady frame, on average.
    pub frame_bytes: u64,
}

impl Files {
    /// Writes them into the lab's folder, unless they are there.
    ///
    /// # Errors
    /// They cannot be written, or no packet has such a length.
    pub fn make(lab: &Lab, flows: u64, frame: Frame) -> anyhow::Result<Self> {
        let text = match frame {
            Frame::Smallest => "min".to_owned(),
            Frame::Bytes(bytes) => bytes.to_string(),
        };
        let size: FrameSize = text.parse()?;
        let plan =
            |part| Plan { part, families: Some(Families::V4), size, ..Plan::new(Profile::Bulk, flows) };
        let warm = lab.path(&format!("warm-{flows}.pcap"));
        let established = write(plan(Part::Warm), &warm)?;
        let steady = lab.path(&format!("steady-{flows}-{text}.pcap"));
        let packets = Some(flows.max(LEAST_PACKETS));
        let going = write(Plan { packets, ..plan(Part::Steady) }, &steady)?;
        lab.stop.check()?;
        Ok(Self {
            warm,
            steady,
            warm_packets: established.packets,
            packets: going.packets,
            flows,
            frame_bytes: going.frame_bytes / going.packets.max(1),
        })
    }
}
