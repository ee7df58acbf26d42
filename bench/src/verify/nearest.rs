//! Packets that came out and never went in: which of the missing ones they were before something changed them, and
//! where.

use std::path::Path;

use capture::CaptureReader;

use super::dissect::{Frame, Ip, Transport, packet_bytes};
use super::failure::Failures;
use super::index::Index;
use super::outer::{OFFSETS, Wrong};
use super::output::{Unknown, about};

/// Missing packets that are compared.
const MAX_COMPARED: u32 = 200_000;
/// A packet is taken for a changed one if not more than one byte in so many differs.
const ALIKE: usize = 4;

/// The missing packet that is most like an unknown one.
struct Nearest {
    place: u32,
    differing: usize,
    packet: Vec<u8>,
    tags: Vec<u8>,
    offset: usize,
}

/// Explains what nobody sent in. `input` is read once more, for what has not come out.
///
/// # Errors
/// The input cannot be read any more.
pub fn explain(
    input: &Path,
    index: &mut Index,
    unknown: &[Unknown],
    failures: &mut Failures,
) -> anyhow::Result<()> {
    if unknown.is_empty() {
        return Ok(());
    }
    let mut nearest: Vec<Option<Nearest>> = unknown.iter().map(|_| None).collect();
    let mut reader = CaptureReader::open(input)?;
    let (mut place, mut compared) = (0, 0);
    while let Some(record) = reader.read()?
        && compared < MAX_COMPARED
    {
        if !index.is_out(place) {
            compared += 1;
            if let Some(frame) = Frame::read(&record.bytes) {
                for (unknown, nearest) in unknown.iter().zip(&mut nearest) {
                    compare(place, &frame, unknown, nearest);
                }
            }
        }
        place += 1;
    }
    for (unknown, nearest) in unknown.iter().zip(nearest) {
        let nearest = nearest.filter(|nearest| !index.is_out(nearest.place));
        let (wrong, about) = match &nearest {
            Some(nearest) => {
                index.answered(nearest.place, u32::try_from(unknown.at.packet).unwrap_or(u32::MAX));
                (changed(unknown, nearest), about(&nearest.packet))
            }
            None => {
                let found = "one that never went in".to_owned();
                let expected = "a packet of the input".to_owned();
                (Wrong { what: "packet invented", expected, found }, describe(unknown))
            }
        };
        failures.add(unknown.at, wrong, || about);
    }
    Ok(())
}

fn describe(unknown: &Unknown) -> String {
    Frame::read(&unknown.bytes).map_or_else(|| about(&unknown.bytes), |frame| about(frame.body))
}

/// Keeps a missing packet if it is more like the unknown one than any before.
fn compare(place: u32, missing: &Frame<'_>, unknown: &Unknown, nearest: &mut Option<Nearest>) {
    let Some(came) = Frame::read(&unknown.bytes) else { return };
    let packet = packet_bytes(missing.body).unwrap_or(missing.body);
    for offset in OFFSETS {
        let rest = came.body.get(offset..).unwrap_or_default();
        let tags = usize::from(came.tags != missing.tags) * 4;
        let differing = packet.len().abs_diff(rest.len().min(packet.len())) + tags;
        let most = nearest.as_ref().map_or(packet.len() / ALIKE, |nearest| nearest.differing);
        if differing >= most {
            continue;
        }
        let unlike = packet.iter().zip(rest).filter(|(a, b)| a != b).take(most).count();
        if differing + unlike < most {
            let (packet, tags) = (packet.to_vec(), missing.tags.to_vec());
            *nearest = Some(Nearest { place, differing: differing + unlike, packet, tags, offset });
        }
    }
}

/// What changed: the first byte, and what it belongs to.
fn changed(unknown: &Unknown, nearest: &Nearest) -> Wrong {
    let number = nearest.place + 1;
    let expected = format!("packet {number} of the input, unchanged");
    let frame = Frame::read(&unknown.bytes);
    let rest = frame.as_ref().and_then(|frame| frame.body.get(nearest.offset..)).unwrap_or_default();
    let found = if frame.as_ref().is_some_and(|frame| frame.tags != nearest.tags) {
        "other VLAN tags".to_owned()
    } else if let Some(at) = nearest.packet.iter().zip(rest).position(|(a, b)| a != b) {
        let byte = |bytes: &[u8]| bytes.get(at).copied().unwrap_or_default();
        let (was, is) = (byte(&nearest.packet), byte(rest));
        let more = match nearest.differing {
            1 => String::new(),
            n => format!(", and {} more", n - 1),
        };
        format!("byte {at} ({}) is {is:#04x}, was {was:#04x}{more}", part(&nearest.packet, at))
    } else {
        format!("{} of {} bytes", rest.len(), nearest.packet.len())
    };
    Wrong { what: "packet changed", expected, found }
}

/// Which part of a packet a byte belongs to.
fn part(packet: &[u8], at: usize) -> String {
    let Some(ip) = Ip::read(packet) else { return "not IP".to_owned() };
    let name = match (at.checked_sub(ip.header_len), &ip.transport) {
        (None, _) => "IP header",
        (Some(0..20), Transport::Tcp(_)) => "TCP header",
        (Some(at), Transport::Tcp(tcp)) => return tcp_part(tcp.options, at - 20),
        (Some(0..8), Transport::Udp { .. }) => "UDP header",
        (Some(0..8), Transport::Icmp { .. }) => "ICMP header",
        _ => "payload",
    };
    name.to_owned()
}

/// The option that a byte behind the first twenty of TCP belongs to.
fn tcp_part(options: &[u8], at: usize) -> String {
    let mut from = 0;
    while from < options.len() && at < options.len() {
        let (kind, len) = match options.get(from..) {
            Some([kind @ (0 | 1), ..]) => (*kind, 1),
            Some([kind, len, ..]) if *len >= 2 => (*kind, usize::from(*len)),
            _ => break,
        };
        if at < from + len {
            return format!("TCP option of kind {kind}");
        }
        from += len;
    }
    if at < options.len() { "TCP options" } else { "payload" }.to_owned()
}
