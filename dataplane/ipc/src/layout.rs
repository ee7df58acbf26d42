//! The layout of the shared segment: the contract between the two processes.
//!
//! Why it exists: the processes are built and upgraded apart. The structs here are never made; they are the
//! map from which every offset is computed, with the offsets and sizes that others rely on asserted under
//! them. The memory itself is [`crate::lines::Lines`]: words that are read and written atomically.
//!
//! Two numbers guard it. [`ABI_VERSION`] is raised by hand with every change; [`LAYOUT_HASH`] is computed from
//! all offsets, all messages and all names, so that a change nobody thought of does not pass for the same
//! layout. A test holds them together. The tables' mapping has a layout version of its own
//! ([`crate::mapping`]), so that an upgrade of the rings keeps the tables.
//!
//! | who writes            | what                                                                        |
//! |-----------------------|-----------------------------------------------------------------------------|
//! | data plane, once      | header                                                                      |
//! | control plane         | control line, `commands.filled`, its slots, `events.freed`                  |
//! | data plane's manager  | data line, `commands.freed`, `events.filled`, its slots, gauges             |
//! | worker *n*            | worker block *n*                                                            |

use core::mem::offset_of;
use core::ops::Range;

use crate::counter::Counter;
use crate::counters::{Gauge, LinkCounter, PortGauge};
use crate::limits::{MAX_BACKENDS, MAX_NAME, MAX_PORTS, MAX_VIPS, MAX_WORKERS};
use crate::lines::LINE;
use crate::message::{self, SLOT};
use crate::reason::Reason;

/// The first eight bytes of a segment: "WEFTSEG" and a zero.
pub const MAGIC: u64 = u64::from_le_bytes(*b"WEFTSEG\0");

/// The version of everything here. Raise it with every change of the layout or of a message.
pub const ABI_VERSION: u32 = 2;

/// Commands that may be under way at once. A batch may be longer: the data plane takes it piece by piece.
pub const COMMAND_SLOTS: usize = 256;

/// Events that may be under way at once. A dump may be longer: it follows piece by piece.
pub const EVENT_SLOTS: usize = 1024;

/// Words of a slot.
pub const SLOT_WORDS: usize = SLOT / WORD;

/// Bytes of a word.
const WORD: usize = 8;

/// Words on cache lines of their own.
#[repr(C, align(64))]
pub struct Words<const N: usize>([u64; N]);

/// Who made the segment, and which layout it has. Written before the file gets its name, never after.
#[repr(C, align(64))]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`ABI_VERSION`].
    pub abi_version: u64,
    /// [`LAYOUT_HASH`].
    pub layout_hash: u64,
    /// [`SEGMENT_BYTES`].
    pub bytes: u64,
    /// Process id of the data plane.
    pub pid: u64,
    /// When it was made: nanoseconds of CLOCK_BOOTTIME.
    pub created_ns: u64,
    /// The kernel's boot id, low half, then high half.
    pub boot_id: [u64; 2],
}
const _: () = assert!(size_of::<Header>() == LINE);
const _: () = assert!(offset_of!(Header, abi_version) == 8);
const _: () = assert!(offset_of!(Header, layout_hash) == 16);
const _: () = assert!(offset_of!(Header, bytes) == 24);

/// What the control plane asks.
#[repr(C, align(64))]
pub struct ControlLine {
    /// Fresh rings, under this number: not zero and not the last grant.
    pub attach_request: u64,
    /// Process id of the control plane, for messages to people only.
    pub pid: u64,
}
const _: () = assert!(size_of::<ControlLine>() == LINE);

/// What the data plane answers.
#[repr(C, align(64))]
pub struct DataLine {
    /// The last request whose rings are ready.
    pub attach_grant: u64,
    /// 0 while the link is open, else 1 + the index of the [`crate::link::Violation`] that closed it.
    pub closed: u64,
}
const _: () = assert!(size_of::<DataLine>() == LINE);

/// A ring as [`crate::ring`] uses it.
#[repr(C, align(64))]
pub struct Ring<const SLOTS: usize> {
    /// The producer's cursor.
    pub filled: Words<1>,
    /// The consumer's cursor.
    pub freed: Words<1>,
    /// The records.
    pub slots: [[u8; SLOT]; SLOTS],
}
const _: () = assert!(offset_of!(Ring<COMMAND_SLOTS>, freed) == LINE);
const _: () = assert!(offset_of!(Ring<COMMAND_SLOTS>, slots) == 2 * LINE);
const _: () =
    assert!(size_of::<Ring<COMMAND_SLOTS>>() / LINE == crate::ring::lines_for::<SLOT_WORDS>(COMMAND_SLOTS));
const _: () =
    assert!(size_of::<Ring<EVENT_SLOTS>>() / LINE == crate::ring::lines_for::<SLOT_WORDS>(EVENT_SLOTS));
const _: () = assert!(COMMAND_SLOTS.is_power_of_two() && EVENT_SLOTS.is_power_of_two());

/// What is known of a port.
#[repr(C, align(64))]
pub struct Port {
    /// The device's name, UTF-8, then zeroes.
    pub name: [u8; MAX_NAME + 1],
    /// Values by [`PortGauge`].
    pub values: Words<{ PortGauge::COUNT }>,
}
const _: () = assert!(offset_of!(Port, values) == LINE);

/// What the manager last saw.
#[repr(C, align(64))]
pub struct Gauges {
    /// Values by [`Gauge`].
    pub values: Words<{ Gauge::COUNT }>,
    /// Values by [`LinkCounter`].
    pub link: Words<{ LinkCounter::COUNT }>,
    /// By [`crate::id::PortId`].
    pub ports: [Port; MAX_PORTS],
    /// Flow entries by [`crate::id::BackendId`].
    pub backend_flows: Words<MAX_BACKENDS>,
    /// Token entries by [`crate::id::BackendId`].
    pub backend_tokens: Words<MAX_BACKENDS>,
    /// By [`crate::id::VipId`]: packets, then bytes that were counted under the id before it was this VIP's.
    pub vip_bases: Words<{ 2 * MAX_VIPS }>,
    /// By [`crate::id::BackendId`], in the same way.
    pub backend_bases: Words<{ 2 * MAX_BACKENDS }>,
}

/// What one worker counts. Blocks are whole pages, so that two workers never share a line nor a prefetch.
#[repr(C, align(4096))]
pub struct Worker {
    /// By [`Counter`].
    pub counters: Words<{ Counter::COUNT }>,
    /// By [`Reason`].
    pub reasons: Words<{ Reason::COUNT }>,
    /// By [`crate::id::VipId`]: packets, then bytes.
    pub vips: Words<{ 2 * MAX_VIPS }>,
    /// By [`crate::id::BackendId`]: packets, then bytes.
    pub backends: Words<{ 2 * MAX_BACKENDS }>,
}

/// All of it.
#[repr(C, align(4096))]
pub struct Segment {
    /// Who and which layout.
    pub header: Header,
    /// From the control plane.
    pub control: ControlLine,
    /// From the data plane.
    pub data: DataLine,
    /// Commands, from the control plane to the data plane.
    pub commands: Ring<COMMAND_SLOTS>,
    /// Events, from the data plane to the control plane.
    pub events: Ring<EVENT_SLOTS>,
    /// From the manager.
    pub gauges: Gauges,
    /// From the workers, by [`crate::id::WorkerId`].
    pub workers: [Worker; MAX_WORKERS],
}
const _: () = assert!(offset_of!(Segment, control) == 64);
const _: () = assert!(offset_of!(Segment, data) == 128);
const _: () = assert!(offset_of!(Segment, commands) == 192);
const _: () = assert!(offset_of!(Segment, events) == 192 + 128 + COMMAND_SLOTS * SLOT);

/// Bytes of the segment, whole pages.
pub const SEGMENT_BYTES: usize = size_of::<Segment>();
/// Lines of the segment.
pub const SEGMENT_LINES: usize = SEGMENT_BYTES / LINE;
const _: () = assert!(SEGMENT_BYTES.is_multiple_of(4096));
const _: () = assert!(SEGMENT_BYTES < 8 << 20, "a segment lies in a small tmpfs");

/// The lines of a part at `offset` of `bytes` bytes.
const fn lines(offset: usize, bytes: usize) -> Range<usize> {
    assert!(offset.is_multiple_of(LINE) && bytes.is_multiple_of(LINE), "a part begins and ends on a line");
    offset / LINE..(offset + bytes) / LINE
}

pub(crate) const COMMANDS: Range<usize> =
    lines(offset_of!(Segment, commands), size_of::<Ring<COMMAND_SLOTS>>());
pub(crate) const EVENTS: Range<usize> = lines(offset_of!(Segment, events), size_of::<Ring<EVENT_SLOTS>>());
pub(crate) const GAUGES: Range<usize> = lines(offset_of!(Segment, gauges), size_of::<Gauges>());
/// Lines of one worker block.
pub(crate) const WORKER_LINES: usize = size_of::<Worker>() / LINE;

/// The lines of the block of worker `index`; past the segment when there is no such worker.
pub(crate) const fn worker(index: usize) -> Range<usize> {
    let first = offset_of!(Segment, workers) / LINE + index * WORKER_LINES;
    first..first + WORKER_LINES
}

/// Word of the attach request, in the segment.
pub(crate) const ATTACH_REQUEST: usize = offset_of!(Segment, control.attach_request) / WORD;
/// Word of the control plane's pid.
pub(crate) const CONTROL_PID: usize = offset_of!(Segment, control.pid) / WORD;
/// Word of the attach grant.
pub(crate) const ATTACH_GRANT: usize = offset_of!(Segment, data.attach_grant) / WORD;
/// Word of the link's state.
pub(crate) const CLOSED: usize = offset_of!(Segment, data.closed) / WORD;

/// First words of the parts of a worker block, within the block.
pub(crate) mod worker_words {
    use super::{WORD, Worker, offset_of};
    pub(crate) const COUNTERS: usize = offset_of!(Worker, counters) / WORD;
    pub(crate) const REASONS: usize = offset_of!(Worker, reasons) / WORD;
    pub(crate) const VIPS: usize = offset_of!(Worker, vips) / WORD;
    pub(crate) const BACKENDS: usize = offset_of!(Worker, backends) / WORD;
    // Packets and bytes of a backend are neighbours in one line.
    const _: () = assert!(BACKENDS.is_multiple_of(2));
}

/// First words of the parts of the gauges, within the gauges.
pub(crate) mod gauge_words {
    use super::{Gauges, Port, WORD, offset_of};
    pub(crate) const VALUES: usize = offset_of!(Gauges, values) / WORD;
    pub(crate) const LINK: usize = offset_of!(Gauges, link) / WORD;
    pub(crate) const PORTS: usize = offset_of!(Gauges, ports) / WORD;
    pub(crate) const PORT: usize = size_of::<Port>() / WORD;
    pub(crate) const PORT_VALUES: usize = offset_of!(Port, values) / WORD;
    pub(crate) const BACKEND_FLOWS: usize = offset_of!(Gauges, backend_flows) / WORD;
    pub(crate) const BACKEND_TOKENS: usize = offset_of!(Gauges, backend_tokens) / WORD;
    pub(crate) const VIP_BASES: usize = offset_of!(Gauges, vip_bases) / WORD;
    pub(crate) const BACKEND_BASES: usize = offset_of!(Gauges, backend_bases) / WORD;
}

/// A line of the layout's table: part, offset in bytes, size in bytes. For the documents and the hash.
pub type Row = (&'static str, usize, usize);

/// The parts of the segment, in order.
pub const TABLE: &[Row] = &[
    ("header", offset_of!(Segment, header), size_of::<Header>()),
    ("header.magic", offset_of!(Segment, header.magic), WORD),
    ("header.abi_version", offset_of!(Segment, header.abi_version), WORD),
    ("header.layout_hash", offset_of!(Segment, header.layout_hash), WORD),
    ("header.bytes", offset_of!(Segment, header.bytes), WORD),
    ("header.pid", offset_of!(Segment, header.pid), WORD),
    ("header.created_ns", offset_of!(Segment, header.created_ns), WORD),
    ("header.boot_id", offset_of!(Segment, header.boot_id), 2 * WORD),
    ("control", offset_of!(Segment, control), size_of::<ControlLine>()),
    ("control.attach_request", offset_of!(Segment, control.attach_request), WORD),
    ("control.pid", offset_of!(Segment, control.pid), WORD),
    ("data", offset_of!(Segment, data), size_of::<DataLine>()),
    ("data.attach_grant", offset_of!(Segment, data.attach_grant), WORD),
    ("data.closed", offset_of!(Segment, data.closed), WORD),
    ("commands", offset_of!(Segment, commands), size_of::<Ring<COMMAND_SLOTS>>()),
    ("events", offset_of!(Segment, events), size_of::<Ring<EVENT_SLOTS>>()),
    ("gauges", offset_of!(Segment, gauges), size_of::<Gauges>()),
    ("gauges.values", offset_of!(Segment, gauges.values), size_of::<Words<{ Gauge::COUNT }>>()),
    ("gauges.link", offset_of!(Segment, gauges.link), size_of::<Words<{ LinkCounter::COUNT }>>()),
    ("gauges.ports", offset_of!(Segment, gauges.ports), MAX_PORTS * size_of::<Port>()),
    ("gauges.backend_flows", offset_of!(Segment, gauges.backend_flows), MAX_BACKENDS * WORD),
    ("gauges.backend_tokens", offset_of!(Segment, gauges.backend_tokens), MAX_BACKENDS * WORD),
    ("gauges.vip_bases", offset_of!(Segment, gauges.vip_bases), 2 * MAX_VIPS * WORD),
    ("gauges.backend_bases", offset_of!(Segment, gauges.backend_bases), 2 * MAX_BACKENDS * WORD),
    ("workers", offset_of!(Segment, workers), MAX_WORKERS * size_of::<Worker>()),
    ("worker.counters", offset_of!(Worker, counters), size_of::<Words<{ Counter::COUNT }>>()),
    ("worker.reasons", offset_of!(Worker, reasons), size_of::<Words<{ Reason::COUNT }>>()),
    ("worker.vips", offset_of!(Worker, vips), 2 * MAX_VIPS * WORD),
    ("worker.backends", offset_of!(Worker, backends), 2 * MAX_BACKENDS * WORD),
];

/// A hash of everything that two builds must agree on: offsets, sizes, messages, and the order of all names.
pub const LAYOUT_HASH: u64 = layout_hash();

/// FNV-1a: not against an adversary, only against oversight. Const, so no library's.
const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

/// Mixes in the names of an enum, in order.
macro_rules! hash_names {
    ($hash:ident, $($name:ty),+) => { $(
        let mut i = 0;
        while i < <$name>::COUNT {
            $hash = fnv(fnv($hash, <$name>::ALL[i].name().as_bytes()), b",");
            i += 1;
        }
        $hash = fnv($hash, b";");
    )+ };
}

const fn layout_hash() -> u64 {
    let mut hash = fnv(0xcbf2_9ce4_8422_2325, &MAGIC.to_le_bytes());
    let mut i = 0;
    while i < message::SCHEMA.len() {
        hash = fnv(hash, message::SCHEMA[i].as_bytes());
        i += 1;
    }
    hash_names!(
        hash,
        message::BackendState,
        message::Presence,
        message::Forward,
        message::Protocol,
        message::UnknownToken
    );
    hash_names!(hash, message::Scheme, message::TokenMap, message::WrongEndpoint);
    hash_names!(hash, message::TokenRank, message::Refusal, crate::link::Violation, crate::lines::HugePages);
    hash_names!(hash, Counter, Reason, Gauge, PortGauge, LinkCounter);
    let mut i = 0;
    while i < TABLE.len() {
        let (name, offset, bytes) = TABLE[i];
        hash = fnv(hash, name.as_bytes());
        hash = fnv(hash, &(offset as u64).to_le_bytes());
        hash = fnv(hash, &(bytes as u64).to_le_bytes());
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The versions that were, each with its hash; the last is this one.
    const RECORDED: &[(u32, u64)] = &[(1, 0xab84_ee2a_1e37_0074), (2, 0x401f_aa2e_99af_1733)];

    #[test]
    fn the_layout_hash_moves_only_with_the_abi_version() {
        let now = (ABI_VERSION, LAYOUT_HASH);
        assert_eq!(
            RECORDED.last(),
            Some(&now),
            "the layout changed: raise ABI_VERSION (once a release) and record ({}, {:#018x})",
            ABI_VERSION,
            LAYOUT_HASH
        );
        assert!(RECORDED.iter().rev().skip(1).all(|(version, hash)| *version != now.0 && *hash != now.1));
    }

    #[test]
    fn parts_follow_each_other_without_overlap() {
        let parts: Vec<&Row> = TABLE.iter().filter(|row| !row.0.contains('.')).collect();
        for pair in parts.windows(2) {
            assert!(pair[0].1 + pair[0].2 <= pair[1].1, "{} runs into {}", pair[0].0, pair[1].0);
        }
        assert_eq!(parts.last().map(|row| row.1 + row.2), Some(SEGMENT_BYTES));
    }
}
