//! Word to a sender that its packet does not fit, and what size does.

use super::{Answer, ipv4_header_len, is_header_right, is_no_pair_of_hosts, is_to_group};
use crate::flow::{Family, Flow};
use crate::parse::{Kind, Parsed};
use crate::{checksum, ethernet, icmp, icmp6, ipv4, ipv6};

/// The longest ICMP error over IPv4, its IP header included: what every host can take (RFC 1122 section 3.3.2,
/// RFC 1812 section 4.3.2.3).
const V4_MAX: usize = 576;
/// The longest ICMPv6 error, its IP header included: the smallest link MTU (RFC 4443 section 2.4(c)).
const V6_MAX: usize = ipv6::MTU_MIN as usize;
/// The longest answer of [`too_big`]: two VLAN tags and an ICMPv6 error.
pub const TOO_BIG_MAX: usize = ethernet::HEADER_LEN + ethernet::TAGS_MAX * ethernet::TAG_LEN + V6_MAX;

/// Precedence "internetwork control", which an ICMP error ought to have (RFC 1812 section 4.3.2.5).
const V4_TOS: u8 = 0xc0;

/// "Fragmentation needed" over IPv4, "packet too big" over IPv6: tells the sender of a TCP or UDP packet to a VIP
/// that `mtu` bytes, IP header included, would fit. It comes from the address the packet went to.
///
/// `None` where nothing may or need be said: another kind of packet (above all an ICMP error), a fragment but the
/// first, a packet that routers may fragment, one that fits, one to or from anything but a single host (RFC 1122
/// section 3.2.2, RFC 4443 section 2.4(e)), a wrong IPv4 header checksum; or an `mtu` that no link may have (below
/// 68, for IPv6 below 1280), which a sender would not believe. How often to tell is the caller's to limit.
pub fn too_big(frame: &[u8], parsed: &Parsed, mac: [u8; 6], mtu: u16) -> Option<Answer<TOO_BIG_MAX>> {
    let told = matches!(parsed.kind, Kind::Tcp | Kind::Udp | Kind::UdpFragment { first: true });
    let fits = parsed.packet_len() <= mtu;
    if !told || fits || !parsed.dont_fragment || is_to_group(frame) || is_no_pair_of_hosts(&parsed.flow) {
        return None;
    }
    let mut answer = Answer::to_sender(frame, parsed, mac)?;
    let packet = frame.get(usize::from(parsed.l3)..frame.len().min(usize::from(parsed.end)))?;
    match parsed.flow.family {
        Family::V4 if mtu >= ipv4::MTU_MIN && is_header_right(frame, parsed) => {
            v4(&mut answer, packet, ipv4_header_len(frame, parsed)?, &parsed.flow, mtu)?;
        }
        Family::V6 if mtu >= ipv6::MTU_MIN => v6(&mut answer, packet, &parsed.flow, mtu)?,
        _ => return None,
    }
    Some(answer.padded())
}

fn v4(
    answer: &mut Answer<TOO_BIG_MAX>,
    packet: &[u8],
    header_len: usize,
    flow: &Flow,
    mtu: u16,
) -> Option<()> {
    let quote = packet.get(..packet.len().min(V4_MAX - ipv4::HEADER_LEN - icmp::HEADER_LEN))?;
    // Without the ports its receiver could not tell which flow it is about.
    if quote.len() < header_len + 8 {
        return None;
    }
    let [mtu_high, mtu_low] = mtu.to_be_bytes();
    let mut header = [icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED, 0, 0, 0, 0, mtu_high, mtu_low];
    let sum = !checksum::fold(checksum::sum(&header) + checksum::sum(quote));
    header[2..4].copy_from_slice(&sum.to_be_bytes());
    let outer = ipv4::Outer {
        source: flow.destination.v4_octets(),
        destination: flow.source.v4_octets(),
        protocol: ipv4::ICMP,
        tos: V4_TOS,
        dont_fragment: true,
        identification: 0,
        payload_len: u16::try_from(header.len() + quote.len()).ok()?,
    };
    answer.push(&outer.to_bytes()?)?;
    answer.push(&header)?;
    answer.push(quote)
}

fn v6(answer: &mut Answer<TOO_BIG_MAX>, packet: &[u8], flow: &Flow, mtu: u16) -> Option<()> {
    let quote = packet.get(..packet.len().min(V6_MAX - ipv6::HEADER_LEN - icmp::HEADER_LEN))?;
    let len = icmp::HEADER_LEN + quote.len();
    let flow = Flow {
        source: flow.destination,
        destination: flow.source,
        protocol: icmp6::PROTOCOL,
        family: Family::V6,
        ..Flow::default()
    };
    let [mtu_high, mtu_low] = mtu.to_be_bytes();
    let mut header = [icmp::V6_PACKET_TOO_BIG, 0, 0, 0, 0, 0, mtu_high, mtu_low];
    let sum = checksum::pseudo_header(&flow, len) + checksum::sum(&header) + checksum::sum(quote);
    header[2..4].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
    let outer = ipv6::Outer {
        source: flow.source.v6_octets(),
        destination: flow.destination.v6_octets(),
        next_header: icmp6::PROTOCOL,
        traffic_class: 0,
        flow_label: 0,
        payload_len: u16::try_from(len).ok()?,
    };
    answer.push(&outer.to_bytes())?;
    answer.push(&header)?;
    answer.push(quote)
}
