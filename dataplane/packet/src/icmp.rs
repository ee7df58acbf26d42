//! What an ICMP (RFC 792) or ICMPv6 (RFC 4443) message says to a balancer: somebody asks for an echo, or a packet
//! that a server sent in the VIP's name did not arrive.
//!
//! **Checksums.** [`quoted`] does not verify one. An error is forwarded as it came to the server that sent the
//! quoted packet, nothing is learned from it, and the server verifies it before it acts. What Weft answers itself
//! is verified first, in [`crate::answer`].

use crate::flow::{Address, Family, Flow};
use crate::parse::{self, Input, Kind, ParseError, Parsed};
use crate::timestamps::timestamps;
use crate::{ipv4, ipv6, tcp, udp};

/// An echo reply to an IPv4 request.
pub const ECHO_REPLY: u8 = 0;
/// IPv4: the packet could not be delivered.
pub const UNREACHABLE: u8 = 3;
/// The code of [`UNREACHABLE`] that says: too long for a link, and no router may fragment (RFC 1191).
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// An echo request over IPv4.
pub const ECHO_REQUEST: u8 = 8;
/// IPv4: the packet was under way for too long.
pub const TIME_EXCEEDED: u8 = 11;
/// IPv4: the packet's header says something wrong.
pub const PARAMETER_PROBLEM: u8 = 12;

/// ICMPv6: the packet could not be delivered.
pub const V6_UNREACHABLE: u8 = 1;
/// ICMPv6: the packet is too long for a link.
pub const V6_PACKET_TOO_BIG: u8 = 2;
/// ICMPv6: the packet was under way for too long.
pub const V6_TIME_EXCEEDED: u8 = 3;
/// ICMPv6: the packet's header says something wrong.
pub const V6_PARAMETER_PROBLEM: u8 = 4;
/// An echo request over IPv6.
pub const V6_ECHO_REQUEST: u8 = 128;
/// An echo reply to an IPv6 request.
pub const V6_ECHO_REPLY: u8 = 129;

/// What stands before an error's quote, and before an echo's data: type, code, checksum and 4 bytes by type.
pub const HEADER_LEN: usize = 8;

/// What a message is to a balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Somebody asks whether the address is there.
    EchoRequest,
    /// An error about a packet that [`quoted`] finds: destination unreachable, packet too big, time exceeded,
    /// parameter problem.
    Error,
    /// Anything else. IPv4's source quench and redirect are here too: hosts ignore the one (RFC 6633), and the
    /// other speaks to a host about its own routes.
    Other,
}

/// What a frame of this kind says; [`Message::Other`] of any that is no ICMP message.
#[inline]
pub const fn message(kind: Kind) -> Message {
    match kind {
        Kind::Icmp4 { kind: ECHO_REQUEST, code: 0 } | Kind::Icmp6 { kind: V6_ECHO_REQUEST, code: 0 } => {
            Message::EchoRequest
        }
        Kind::Icmp4 { kind: UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM, .. }
        | Kind::Icmp6 { kind: V6_UNREACHABLE..=V6_PARAMETER_PROBLEM, .. } => Message::Error,
        _ => Message::Other,
    }
}

/// The flow an ICMP error is about, as the client's own packets have it: from the client to the VIP.
///
/// The quoted packet went the other way, from the server, in the VIP's name, to the client. `None` if the frame is
/// no [`Message::Error`], or one that names no flow of the address it was sent to: the quote is no TCP or UDP
/// packet, ends before its ports, is a fragment but the first, or comes from another address than the error
/// went to.
///
/// The quoted packet's length fields are not looked at: a router has cut it, and some hosts change them.
pub fn quoted(frame: &[u8], parsed: &Parsed) -> Option<Flow> {
    quote(frame, parsed).map(|(flow, _)| flow)
}

/// The timestamp of the server's own clock (TSval) in the TCP packet that an ICMP error quotes, as far as the quote goes:
/// `None` where [`quoted`] knows no flow, and where the quote ends before the option's end, as it does at routers that
/// quote no more than RFC 792 asks for.
pub fn quoted_timestamp(frame: &[u8], parsed: &Parsed) -> Option<u32> {
    let (flow, transport) = quote(frame, parsed)?;
    let header: &[u8; tcp::HEADER_LEN] =
        transport.first_chunk().filter(|_| flow.protocol == tcp::PROTOCOL)?;
    let end = transport.len().min(usize::from(header[12] >> 4) * 4);
    timestamps(transport.get(tcp::HEADER_LEN..end)?).map(|said| said.value)
}

/// The flow that an ICMP error is about, and what is quoted of its packet from the transport header on.
fn quote<'a>(frame: &'a [u8], parsed: &Parsed) -> Option<(Flow, &'a [u8])> {
    if message(parsed.kind) != Message::Error {
        return None;
    }
    let end = frame.len().min(usize::from(parsed.end));
    let quote = frame.get(usize::from(parsed.l4) + HEADER_LEN..end)?;
    let (flow, transport) = match parsed.flow.family {
        Family::V4 => quoted_v4(quote),
        Family::V6 => quoted_v6(quote),
    }?;
    (flow.destination == parsed.flow.destination).then_some((flow, transport))
}

fn quoted_v4(quote: &[u8]) -> Option<(Flow, &[u8])> {
    let header: &[u8; ipv4::HEADER_LEN] = quote.first_chunk()?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    if header[0] >> 4 != 4 || header_len < ipv4::HEADER_LEN || fragment & ipv4::FRAGMENT_OFFSET != 0 {
        return None;
    }
    let [.., a, b, c, d, e, f, g, h] = *header;
    back(
        Address::from_v4([a, b, c, d]),
        Address::from_v4([e, f, g, h]),
        header[9],
        quote.get(header_len..)?,
        Family::V4,
    )
}

fn quoted_v6(quote: &[u8]) -> Option<(Flow, &[u8])> {
    let header: &[u8; ipv6::HEADER_LEN] = quote.first_chunk()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let (protocol, at) = walk(quote, header[6]).ok()?;
    let (addresses, _) = header[8..].as_chunks::<16>();
    let [source, destination] = addresses else {
        return None;
    };
    back(Address::from_v6(*source), Address::from_v6(*destination), protocol, quote.get(at..)?, Family::V6)
}

/// The protocol behind a quoted packet's extension headers and where its header begins. In a packet's first
/// fragment the headers go on behind the fragment header (RFC 8200 section 4.5).
fn walk(quote: &[u8], first: u8) -> Result<(u8, usize), ParseError> {
    let input = Input { frame: quote, wire_len: quote.len() };
    let mut chain = parse::extensions(input, first, ipv6::HEADER_LEN, quote.len())?;
    if chain.fragment == Some(0) {
        chain = parse::extensions(input, chain.protocol, chain.at, quote.len())?;
    }
    match chain.fragment {
        Some(_) => Err(ParseError::OtherFragment),
        None => Ok((chain.protocol, chain.at)),
    }
}

/// The flow that the quoted packet answers, and its transport header: source and destination change places. The first 8 bytes of its
/// transport header must be there: what every router quotes at least (RFC 792).
fn back(
    source: Address,
    destination: Address,
    protocol: u8,
    transport: &[u8],
    family: Family,
) -> Option<(Flow, &[u8])> {
    let [a, b, c, d, ..]: [u8; 8] = *transport.first_chunk()?;
    let flow = Flow {
        source: destination,
        destination: source,
        source_port: u16::from_be_bytes([c, d]),
        destination_port: u16::from_be_bytes([a, b]),
        protocol,
        family,
    };
    matches!(protocol, tcp::PROTOCOL | udp::PROTOCOL).then_some((flow, transport))
}
