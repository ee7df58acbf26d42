//! A stream written to a capture file: under a temporary name until it is whole, with progress, a count and a digest.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use capture::CaptureWriter;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sha2::{Digest, Sha256};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::kind::{Counts, Kind};
use super::plan::Plan;
use super::stream::Stream;

/// Bytes that are hashed and written at once.
const CHUNK: usize = 1 << 20;
/// Packets between two looks at signals and the progress bar.
const LOOK_EVERY: u64 = 1 << 16;

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The file.
    pub file: String,
    /// The profile's name.
    pub profile: String,
    /// `all`, `warm` or `steady`.
    pub part: String,
    /// The seed.
    pub seed: u64,
    /// Connections.
    pub connections: u64,
    /// Packets.
    pub packets: u64,
    /// Bytes of frames.
    pub frame_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Seconds from the first packet's timestamp to the last one's.
    pub seconds: f64,
    /// Packets by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// What became of tokens.
    pub tokens: Tokens,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}

/// Packets that teach and use tokens.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Tokens {
    /// Third packets that teach one.
    pub taught: u64,
    /// Joins of one that was taught.
    pub joins_known: u64,
    /// Joins of one that was not, or not yet.
    pub joins_unknown: u64,
}

/// Writes a plan's packets to a file, in place of any that is there.
///
/// # Errors
/// The plan contradicts itself, the file cannot be written, or SIGINT or SIGTERM came; then there is no file.
pub fn write(plan: Plan, path: &Path) -> anyhow::Result<Summary> {
    let cannot = || format!("cannot write {}", path.display());
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot watch for signals")?;
    let mut stream = Stream::new(plan.clone())?;
    // A file of its own beside the real one: whoever reads that never sees half of it.
    let mut temporary = tempfile::Builder::new()
        .prefix(".weft-bench-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .with_context(cannot)?;
    let bar = progress(stream.packets());
    let mut hashed = BufWriter::with_capacity(CHUNK, Hashed::new(temporary.as_file_mut()));
    let mut capture = CaptureWriter::new(&mut hashed, path, plan.resolution)?;
    let mut counted = Counted::default();
    while let Some(packet) = stream.next() {
        capture.write(packet.time, packet.bytes, 0)?;
        counted.add(&packet);
        if counted.packets.is_multiple_of(LOOK_EVERY) {
            bar.inc(LOOK_EVERY);
            if let Some(signal) = signals.pending().next() {
                bail!("stopped by signal {signal}: {} was not written", path.display());
            }
        }
    }
    capture.finish()?;
    let hashed = hashed.into_inner().map_err(io::IntoInnerError::into_error).with_context(cannot)?;
    let summary = counted.summary(&plan, path, hashed);
    temporary.persist(path).map_err(|error| error.error).with_context(cannot)?;
    bar.finish_and_clear();
    Ok(summary)
}

/// A progress bar, where somebody sees it.
fn progress(packets: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos} of {human_len} packets, {per_sec}, {eta} left");
    ProgressBar::new(packets).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A file that is hashed as it is written.
struct Hashed<'a> {
    file: &'a mut File,
    digest: Sha256,
    bytes: u64,
}

impl<'a> Hashed<'a> {
    fn new(file: &'a mut File) -> Self {
        Self { file, digest: Sha256::new(), bytes: 0 }
    }
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What is counted on the way.
#[derive(Default)]
struct Counted {
    packets: u64,
    bytes: u64,
    first: Option<std::time::Duration>,
    last: std::time::Duration,
    kinds: Counts,
}

impl Counted {
    fn add(&mut self, packet: &super::stream::Packet<'_>) {
        self.packets += 1;
        self.bytes += packet.bytes.len() as u64;
        self.first.get_or_insert(packet.time);
        self.last = packet.time;
        self.kinds.add(packet.kind);
    }

    fn summary(self, plan: &Plan, path: &Path, hashed: Hashed<'_>) -> Summary {
        let kinds = self.kinds;
        let tokens = Tokens {
            taught: kinds.of(Kind::ThirdAck),
            joins_known: kinds.of(Kind::JoinSyn),
            joins_unknown: kinds.of(Kind::EarlyJoinSyn)
                + kinds.of(Kind::UnknownJoinSyn)
                + kinds.of(Kind::ForgedJoinSyn),
        };
        Summary {
            file: path.display().to_string(),
            profile: plan.profile.to_string(),
            part: format!("{:?}", plan.part).to_lowercase(),
            seed: plan.seed,
            connections: plan.connections,
            packets: self.packets,
            frame_bytes: self.bytes,
            file_bytes: hashed.bytes,
            seconds: self.last.saturating_sub(self.first.unwrap_or(self.last)).as_secs_f64(),
            kinds: kinds.iter().map(|(kind, count)| (kind.name(), count)).collect(),
            tokens,
            sha256: hashed.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}
