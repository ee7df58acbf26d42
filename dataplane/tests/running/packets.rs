//! Packets and capture files of these tests.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};

use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};

use super::PORT_MAC;

/// One of the captures of real MPTCP connections.
pub fn capture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packet/tests/captures").join(name)
}

/// The frames of a capture file.
pub fn frames(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(BufReader::new(File::open(path).unwrap())).unwrap();
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet.unwrap().data.into_owned());
    }
    frames
}

/// A capture file's head, then these frames.
pub fn to_pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = PcapWriter::new(Vec::new()).unwrap();
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap();
        writer.write_packet(&PcapPacket::new(std::time::Duration::ZERO, length, frame)).unwrap();
    }
    writer.into_writer()
}

/// Writes a capture file.
pub fn write_pcap(path: &Path, frames: &[Vec<u8>]) {
    File::create(path).unwrap().write_all(&to_pcap(frames)).unwrap();
}

/// A frame to another MAC address: dropped as no_config, or as not_our_mac once there is a configuration.
pub fn filler() -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0xff, 0xff]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 1, 1]);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame
}

/// A TCP packet of the middle of a connection from `port` to the VIP: no options, ACK only. Checksums are left out,
/// for a layer-4 balancer passes them on unread.
pub fn ack(port: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(60);
    frame.extend(PORT_MAC);
    frame.extend([2, 0, 0, 0, 1, 1, 0x08, 0x00]);
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 1, 1, 10, 9, 9, 9]);
    frame.extend(port.to_be_bytes());
    frame.extend(8000_u16.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(60, 0);
    frame
}
