//! The answer to an echo request, made of the request itself.

use super::{is_header_right, is_no_pair_of_hosts, is_to_group};
use crate::flow::Family;
use crate::icmp::{self, Message};
use crate::parse::Parsed;
use crate::{checksum, ethernet, ipv4, ipv6};

/// Turns an echo request into its reply in place: addresses exchanged, type and TTL or hop limit set, everything
/// else as it was (RFC 1122 section 3.2.2.6: with all of the request's data). `false`, and the frame is as it was,
/// if it is no request that Weft answers.
///
/// `mac` is the port's. The message must be in the buffer as a whole, and its checksum and the IPv4 header's
/// must be right. Requests with IPv4 options or IPv6 extension headers are not answered: their reply would have
/// to be routed and recorded by them.
pub fn echo_reply(frame: &mut [u8], parsed: &Parsed, mac: [u8; 6]) -> bool {
    is_answered(frame, parsed) && reply(frame, parsed, mac).is_some()
}

fn is_answered(frame: &[u8], parsed: &Parsed) -> bool {
    let (l3, l4) = (usize::from(parsed.l3), usize::from(parsed.l4));
    let Some(message) = frame.get(l4..usize::from(parsed.end)) else {
        return false;
    };
    let (header_len, sum) = match parsed.flow.family {
        Family::V4 => (ipv4::HEADER_LEN, checksum::ipv4_header(message)),
        Family::V6 => (ipv6::HEADER_LEN, checksum::transport(&parsed.flow, message)),
    };
    // 65535 stands for all ends beyond it.
    let is_whole = parsed.end < u16::MAX && message.len() >= icmp::HEADER_LEN;
    icmp::message(parsed.kind) == Message::EchoRequest
        && is_whole
        && l4 == l3 + header_len
        && sum == 0
        && !is_to_group(frame)
        && ethernet::source(frame).is_some_and(|[first, ..]| first & 1 == 0)
        && !is_no_pair_of_hosts(&parsed.flow)
        && is_header_right(frame, parsed)
}

fn reply(frame: &mut [u8], parsed: &Parsed, mac: [u8; 6]) -> Option<()> {
    let asker = ethernet::source(frame)?;
    let (link, packet) = frame.split_at_mut_checked(usize::from(parsed.l3))?;
    let (header, message) = packet.split_at_mut_checked(usize::from(parsed.l4.checked_sub(parsed.l3)?))?;
    let kind = match parsed.flow.family {
        Family::V4 => {
            reverse_v4(header.first_chunk_mut()?, parsed);
            icmp::ECHO_REPLY
        }
        Family::V6 => {
            reverse_v6(header.first_chunk_mut()?, parsed);
            icmp::V6_ECHO_REPLY
        }
    };
    let [old, code, high, low, ..]: &mut [u8; icmp::HEADER_LEN] = message.first_chunk_mut()?;
    // The exchanged addresses of the pseudo-header sum up to what they did.
    let sum = checksum::update16(
        u16::from_be_bytes([*high, *low]),
        u16::from_be_bytes([*old, *code]),
        u16::from_be_bytes([kind, *code]),
    );
    *old = kind;
    // A reply of type 0 without anything in it sums to nothing, and the sum that is updated cannot tell that zero
    // from the other one (RFC 1624 section 3). 0xffff is right for both.
    [*high, *low] = if sum == 0 { u16::MAX } else { sum }.to_be_bytes();
    link.first_chunk_mut::<12>()?.as_chunks_mut::<6>().0.copy_from_slice(&[asker, mac]);
    Some(())
}

fn reverse_v4(header: &mut [u8; ipv4::HEADER_LEN], parsed: &Parsed) {
    header[8] = ipv4::TTL;
    header[10..12].fill(0);
    header[12..16].copy_from_slice(&parsed.flow.destination.v4_octets());
    header[16..].copy_from_slice(&parsed.flow.source.v4_octets());
    let [high, low] = checksum::ipv4_header(header).to_be_bytes();
    header[10] = high;
    header[11] = low;
}

fn reverse_v6(header: &mut [u8; ipv6::HEADER_LEN], parsed: &Parsed) {
    header[7] = ipv6::HOP_LIMIT;
    header[8..24].copy_from_slice(&parsed.flow.destination.v6_octets());
    header[24..].copy_from_slice(&parsed.flow.source.v6_octets());
}
