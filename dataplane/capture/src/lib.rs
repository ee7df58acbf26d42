//! Capture files: pcap and pcapng in, pcap out, one packet at a time.
//!
//! pcap-file 2.0 gives a pcapng timestamp as the raw number taken for nanoseconds; what a unit of it really is
//! stands in the interface's `if_tsresol` (microseconds where it is absent), so it is scaled here.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, Endianness, TsResolution};

/// The first bytes of a pcapng file: its section header's block type.
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Longest frame a written capture may hold.
const SNAP_LEN: u32 = 262_144;

/// One captured packet.
#[derive(Debug)]
pub struct Record {
    /// Since the epoch, as the capture says.
    pub time: Duration,
    /// Its bytes, as far as the capture holds them.
    pub bytes: Vec<u8>,
    /// Bytes of the frame beyond those: a capture may have cut it.
    pub missing: usize,
}

impl Record {
    fn new(time: Duration, data: &[u8], original_len: u32) -> Self {
        let original_len = usize::try_from(original_len).unwrap_or(usize::MAX);
        let missing = original_len.saturating_sub(data.len());
        Self { time, bytes: data.to_vec(), missing }
    }
}

/// A capture file being read.
pub struct CaptureReader {
    path: PathBuf,
    format: Format,
}

enum Format {
    Pcap(PcapReader<BufReader<File>>),
    PcapNg(PcapNgReader<BufReader<File>>),
}

impl CaptureReader {
    /// Opens a capture and reads its head.
    ///
    /// # Errors
    /// The file is not there, is no capture, or was not taken from Ethernet.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let no_capture = || format!("{} is neither a pcap nor a pcapng file", path.display());
        let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut magic = [0; 4];
        file.read_exact(&mut magic).with_context(no_capture)?;
        file.seek(SeekFrom::Start(0)).with_context(no_capture)?;
        let file = BufReader::new(file);
        let format = if magic == PCAPNG_MAGIC {
            Format::PcapNg(PcapNgReader::new(file).with_context(no_capture)?)
        } else {
            let reader = PcapReader::new(file).with_context(no_capture)?;
            expect_ethernet(reader.header().datalink, path)?;
            Format::Pcap(reader)
        };
        Ok(Self { path: path.to_owned(), format })
    }

    /// The next packet, or nothing at the end.
    ///
    /// # Errors
    /// The file is damaged or was cut off in a packet.
    pub fn read(&mut self) -> anyhow::Result<Option<Record>> {
        let damaged = || format!("{} is damaged or was cut off", self.path.display());
        match &mut self.format {
            Format::Pcap(reader) => {
                let units = match reader.header().ts_resolution {
                    TsResolution::MicroSecond => 1_000_000,
                    TsResolution::NanoSecond => 1_000_000_000,
                };
                // Raw, because the library refuses a packet that the capture's snap length cut.
                let Some(packet) = reader.next_raw_packet() else { return Ok(None) };
                let packet = packet.with_context(damaged)?;
                let fraction = scaled(Duration::from_nanos(u64::from(packet.ts_frac)), units);
                let time = Duration::from_secs(u64::from(packet.ts_sec)) + fraction;
                Ok(Some(Record::new(time, &packet.data, packet.orig_len)))
            }
            Format::PcapNg(reader) => next_of_pcapng(reader, &self.path),
        }
    }
}

/// Reads on to the next packet of a pcapng file; other blocks are passed over.
fn next_of_pcapng(reader: &mut PcapNgReader<BufReader<File>>, path: &Path) -> anyhow::Result<Option<Record>> {
    let damaged = || format!("{} is damaged or was cut off", path.display());
    loop {
        let Some(block) = reader.next_block() else { return Ok(None) };
        let (interface, raw_time, data, original_len) = match block.with_context(damaged)? {
            Block::EnhancedPacket(packet) => {
                (packet.interface_id, packet.timestamp, packet.data.into_owned(), packet.original_len)
            }
            Block::Packet(packet) => {
                let raw = Duration::from_nanos(packet.timestamp);
                (u32::from(packet.interface_id), raw, packet.data.into_owned(), packet.original_len)
            }
            Block::SimplePacket(packet) => (0, Duration::ZERO, packet.data.into_owned(), packet.original_len),
            _ => continue,
        };
        let index = usize::try_from(interface).unwrap_or(usize::MAX);
        let Some(interface) = reader.interfaces().get(index) else { bail!(damaged()) };
        expect_ethernet(interface.linktype, path)?;
        let time = scaled(raw_time, resolution(interface));
        return Ok(Some(Record::new(time, &data, original_len)));
    }
}

/// Units of an interface's timestamps in a second (pcapng, section 4.2, `if_tsresol`).
fn resolution(interface: &InterfaceDescriptionBlock<'_>) -> u128 {
    let said = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
        _ => None,
    });
    match said {
        None => 1_000_000,
        Some(power) if power & 0x80 != 0 => 1_u128.checked_shl(u32::from(power & 0x7f)).unwrap_or(u128::MAX),
        Some(power) => 10_u128.checked_pow(u32::from(power)).unwrap_or(u128::MAX),
    }
}

/// A raw timestamp, taken for nanoseconds by the library, in its true unit.
fn scaled(raw: Duration, units_per_second: u128) -> Duration {
    let nanos = raw.as_nanos().saturating_mul(1_000_000_000) / units_per_second.max(1);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

fn expect_ethernet(link: DataLink, path: &Path) -> anyhow::Result<()> {
    if link != DataLink::ETHERNET {
        bail!(
            "{} was captured on {link:?}, not on Ethernet: capture on an Ethernet interface",
            path.display()
        );
    }
    Ok(())
}

/// What a pcap file's timestamps count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolution {
    /// What every program reads.
    Microseconds,
    /// What most programs read, and packets a microsecond apart or less need.
    #[default]
    Nanoseconds,
}

/// A capture being written: pcap, Ethernet.
pub struct CaptureWriter<W: Write = BufWriter<File>> {
    writer: PcapWriter<W>,
    path: PathBuf,
}

impl CaptureWriter {
    /// Creates the file, over one that is there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Self::new(BufWriter::new(file), path, Resolution::default())
    }
}

impl<W: Write> CaptureWriter<W> {
    /// Writes to anything; errors name the file that it is or becomes.
    ///
    /// # Errors
    /// The head cannot be written.
    pub fn new(out: W, path: &Path, resolution: Resolution) -> anyhow::Result<Self> {
        let header = PcapHeader {
            snaplen: SNAP_LEN,
            datalink: DataLink::ETHERNET,
            ts_resolution: match resolution {
                Resolution::Microseconds => TsResolution::MicroSecond,
                Resolution::Nanoseconds => TsResolution::NanoSecond,
            },
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(out, header)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { writer, path: path.to_owned() })
    }

    /// Adds a packet of which `missing` bytes are not at hand.
    ///
    /// # Errors
    /// The disk is full, or the like.
    pub fn write(&mut self, time: Duration, bytes: &[u8], missing: usize) -> anyhow::Result<()> {
        let original_len = u32::try_from(bytes.len() + missing).unwrap_or(u32::MAX);
        let packet = PcapPacket::new(time, original_len, bytes);
        self.writer.write_packet(&packet).with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// The disk is full, or the like.
    pub fn finish(self) -> anyhow::Result<()> {
        self.writer.into_writer().flush().with_context(|| format!("cannot write {}", self.path.display()))
    }
}
