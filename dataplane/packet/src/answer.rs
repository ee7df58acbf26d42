//! The few frames Weft sends in its own name, each an answer to one it received: an ARP reply (RFC 826), a
//! neighbour advertisement (RFC 4861), a RST to a SYN (RFC 9293 section 3.5.2, RFC 8684 section 3.6), an echo reply
//! (RFC 792, RFC 4443 section 4.2) and word of the size that fits (RFC 1191 section 4, RFC 4443 section 3.2).
//!
//! An answer goes back to where the frame came from, under the same VLAN tags. Nothing is answered to a broadcast
//! or multicast MAC or IP source, so no answer can be made to fan out. The checksums that vouch for whom an answer
//! goes to are verified first; a TCP checksum is not, since a host may leave it to its network card.

mod echo;
mod too_big;

use crate::arp::{self, Arp};
use crate::flow::{Address, Family, Flow};
use crate::icmp6::{self, Solicitation};
use crate::mptcp::TcpRst;
use crate::parse::{Kind, Parsed};
use crate::tcp::{self, Flags};
use crate::{checksum, ethernet, ipv4, ipv6};

pub use echo::echo_reply;
pub use too_big::{TOO_BIG_MAX, too_big};

/// The longest answer but [`too_big`]'s: two VLAN tags, IPv6 and a neighbour advertisement.
pub const ANSWER_MAX: usize = ethernet::HEADER_LEN
    + ethernet::TAGS_MAX * ethernet::TAG_LEN
    + ipv6::HEADER_LEN
    + icmp6::MESSAGE_LEN
    + LINK_LAYER_OPTION_LEN;

const LINK_LAYER_OPTION_LEN: usize = 8;

/// Bytes of a TCP segment that is nothing but a header.
const RESET_LEN: usize = 20;

/// Bytes of MP_TCPRST.
const TCPRST_LEN: usize = 4;

/// A whole frame, padded to the shortest Ethernet allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<const MAX: usize = ANSWER_MAX> {
    bytes: [u8; MAX],
    len: usize,
}

impl<const MAX: usize> Answer<MAX> {
    /// The frame, ready to be sent.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }

    /// An Ethernet header back to the sender of `frame`, with its VLAN tags.
    fn to_sender(frame: &[u8], parsed: &Parsed, mac: [u8; 6]) -> Option<Self> {
        let destination = ethernet::source(frame)?;
        if destination[0] & 1 != 0 {
            return None;
        }
        let mut answer = Self { bytes: [0; MAX], len: 0 };
        answer.push(&destination)?;
        answer.push(&mac)?;
        answer.push(frame.get(ethernet::ETHERTYPE..usize::from(parsed.l3))?)?;
        Some(answer)
    }

    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len + bytes.len();
        self.bytes.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    fn padded(mut self) -> Self {
        self.len = self.len.max(ethernet::FRAME_MIN);
        self
    }
}

/// The reply to an ARP request for an address that `mac` has; `None` if the frame is no such request.
pub fn arp_reply(frame: &[u8], parsed: &Parsed, mac: [u8; 6]) -> Option<Answer> {
    let request = Arp::read(frame, parsed)?;
    if request.operation != arp::REQUEST {
        return None;
    }
    let reply = Arp {
        operation: arp::REPLY,
        sender_mac: mac,
        sender: request.target,
        target_mac: request.sender_mac,
        target: request.sender,
    };
    let mut answer = Answer::to_sender(frame, parsed, mac)?;
    answer.push(&reply.to_bytes())?;
    Some(answer.padded())
}

/// The advertisement that answers a neighbour solicitation for an address that `mac` has; `None` if the frame is
/// no valid solicitation.
pub fn neighbour_advertisement(frame: &[u8], parsed: &Parsed, mac: [u8; 6]) -> Option<Answer> {
    const SOLICITED: u8 = 0x40;
    const OVERRIDE: u8 = 0x20;
    const ALL_NODES: Address = Address(0xff02_0000_0000_0000_0000_0000_0000_0001);
    const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

    let solicitation = Solicitation::read(frame, parsed)?;
    // RFC 4861 section 7.2.4: who looks for duplicates has no address yet, so everybody is told.
    let search = solicitation.source.0 == 0;
    let (destination, flags) =
        if search { (ALL_NODES, OVERRIDE) } else { (solicitation.source, SOLICITED | OVERRIDE) };
    let flow = Flow {
        source: solicitation.target,
        destination,
        protocol: icmp6::PROTOCOL,
        family: Family::V6,
        ..Flow::default()
    };
    let mut message = [0; icmp6::MESSAGE_LEN + LINK_LAYER_OPTION_LEN];
    message[0] = icmp6::NEIGHBOUR_ADVERTISEMENT;
    message[4] = flags;
    message[8..24].copy_from_slice(&solicitation.target.v6_octets());
    message[24] = icmp6::TARGET_LINK_LAYER;
    message[25] = 1;
    message[26..].copy_from_slice(&mac);
    let checksum = checksum::transport(&flow, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let header = ipv6::Outer {
        source: flow.source.v6_octets(),
        destination: flow.destination.v6_octets(),
        next_header: icmp6::PROTOCOL,
        traffic_class: 0,
        flow_label: 0,
        payload_len: u16::try_from(message.len()).ok()?,
    };
    let mut header = header.to_bytes();
    header[7] = icmp6::HOP_LIMIT;
    let mut answer = Answer::to_sender(frame, parsed, mac)?;
    if search {
        answer.bytes[..6].copy_from_slice(&ALL_NODES_MAC);
    }
    answer.push(&header)?;
    answer.push(&message)?;
    Some(answer.padded())
}

/// The RST that answers a SYN, with what is `told` in an MP_TCPRST; `None` if the frame is no SYN.
///
/// Who opened no subflow is told nothing: the option is MPTCP's.
pub fn tcp_reset(frame: &[u8], parsed: &Parsed, mac: [u8; 6], told: Option<TcpRst>) -> Option<Answer> {
    if parsed.kind != Kind::Tcp || !parsed.tcp.flags.opens() || parsed.tcp.flags.rst() {
        return None;
    }
    if is_to_group(frame) || is_no_pair_of_hosts(&parsed.flow) {
        return None;
    }
    let flow = Flow {
        source: parsed.flow.destination,
        destination: parsed.flow.source,
        source_port: parsed.flow.destination_port,
        destination_port: parsed.flow.source_port,
        ..parsed.flow
    };
    // The SYN takes one number, its data and FIN the rest (RFC 9293 section 3.10.7.1).
    let fin = u32::from(parsed.tcp.flags.fin());
    let ack = parsed.tcp.seq.wrapping_add(1).wrapping_add(u32::from(parsed.payload_len())).wrapping_add(fin);
    let mut segment = [0; RESET_LEN + TCPRST_LEN];
    segment[12] = 5 << 4;
    let mut len = RESET_LEN;
    if let Some(told) = told {
        segment[12] = 6 << 4;
        segment[RESET_LEN..].copy_from_slice(&told.to_bytes());
        len += TCPRST_LEN;
    }
    segment[..2].copy_from_slice(&flow.source_port.to_be_bytes());
    segment[2..4].copy_from_slice(&flow.destination_port.to_be_bytes());
    segment[8..12].copy_from_slice(&ack.to_be_bytes());
    segment[13] = Flags::RST.with(Flags::ACK).0;
    let checksum = checksum::transport(&flow, segment.get(..len)?);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());

    let payload_len = u16::try_from(len).ok()?;
    let mut answer = Answer::to_sender(frame, parsed, mac)?;
    match flow.family {
        Family::V4 => {
            let header = ipv4::Outer {
                source: flow.source.v4_octets(),
                destination: flow.destination.v4_octets(),
                protocol: tcp::PROTOCOL,
                tos: 0,
                dont_fragment: true,
                identification: 0,
                payload_len,
            };
            answer.push(&header.to_bytes()?)?;
        }
        Family::V6 => {
            let header = ipv6::Outer {
                source: flow.source.v6_octets(),
                destination: flow.destination.v6_octets(),
                next_header: tcp::PROTOCOL,
                traffic_class: 0,
                flow_label: 0,
                payload_len,
            };
            answer.push(&header.to_bytes())?;
        }
    }
    answer.push(segment.get(..len)?)?;
    Some(answer.padded())
}

/// A source or destination that is no single host (RFC 1122 sections 3.2.1.3, 3.2.2 and 4.2.3.10: this network,
/// loopback, multicast, class E with broadcast; RFC 4443 section 2.4(e)), or both the same.
fn is_no_pair_of_hosts(flow: &Flow) -> bool {
    let no_host = |address: Address| match flow.family {
        Family::V4 => matches!(address.v4_octets(), [0 | 127 | 224.., ..]),
        Family::V6 => address.0 <= 1 || matches!(address.v6_octets(), [0xff, ..]),
    };
    flow.source == flow.destination || no_host(flow.source) || no_host(flow.destination)
}

/// Whether the frame was sent to more stations than one.
fn is_to_group(frame: &[u8]) -> bool {
    ethernet::destination(frame).is_none_or(|[first, ..]| first & 1 != 0)
}

/// Whether the IPv4 header in a frame sums up; there is nothing to verify in an IPv6 header.
fn is_header_right(frame: &[u8], parsed: &Parsed) -> bool {
    parsed.flow.family == Family::V6
        || ipv4_header_len(frame, parsed)
            .and_then(|len| frame.get(usize::from(parsed.l3)..)?.get(..len))
            .is_some_and(|header| checksum::ipv4_header(header) == 0)
}

/// How long the IPv4 header is, options included.
fn ipv4_header_len(frame: &[u8], parsed: &Parsed) -> Option<usize> {
    frame.get(usize::from(parsed.l3)).map(|first| usize::from(first & 0x0f) * 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{CLIENT_MAC, PacketBuilder, packet};
    use crate::mptcp::ResetReason;
    use crate::parse;
    use crate::tcp_option::options;
    use crate::token::Token;

    const MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
    const TRANSIENT: Option<TcpRst> = Some(TcpRst { transient: true, reason: ResetReason::MPTCP });
    const ASKER: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const PORT: [u8; 16] = [0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x54];

    fn ask<T>(packet: &PacketBuilder, answer: impl Fn(&[u8], &Parsed) -> T) -> T {
        let frame = packet.build();
        answer(&frame, &parse(&frame, frame.len()))
    }

    #[test]
    fn an_arp_request_is_answered_to_its_sender() {
        let request = packet().arp_request([10, 0, 1, 1], [10, 0, 1, 254]);
        let answer = ask(&request, |frame, parsed| arp_reply(frame, parsed, MAC)).unwrap();
        let mut expected = [0; 60];
        expected[..14].copy_from_slice(&ethernet::header(CLIENT_MAC, MAC, ethernet::ARP));
        expected[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
        expected[22..28].copy_from_slice(&MAC);
        expected[28..32].copy_from_slice(&[10, 0, 1, 254]);
        expected[32..38].copy_from_slice(&CLIENT_MAC);
        expected[38..42].copy_from_slice(&[10, 0, 1, 1]);
        assert_eq!(answer.bytes(), expected);
    }

    #[test]
    fn an_arp_reply_is_not_answered() {
        let reply = Arp {
            operation: arp::REPLY,
            sender_mac: CLIENT_MAC,
            sender: [1; 4],
            target_mac: MAC,
            target: [2; 4],
        };
        assert_eq!(ask(&packet().arp(reply), |frame, parsed| arp_reply(frame, parsed, MAC)), None);
    }

    #[test]
    fn a_multicast_sender_is_not_answered() {
        let request = packet().ethernet([1, 0, 0, 0, 0, 1], MAC).arp_request([10, 0, 1, 1], [10, 0, 1, 254]);
        assert_eq!(ask(&request, |frame, parsed| arp_reply(frame, parsed, MAC)), None);
    }

    #[test]
    fn answers_keep_the_vlan_tags() {
        let request = packet().qinq(7, 8).arp_request([10, 0, 1, 1], [10, 0, 1, 254]);
        let answer = ask(&request, |frame, parsed| arp_reply(frame, parsed, MAC)).unwrap();
        assert_eq!(answer.bytes()[12..22], [0x88, 0xa8, 0, 7, 0x81, 0, 0, 8, 8, 6]);
        assert_eq!(parse(answer.bytes(), answer.bytes().len()).kind, Kind::Arp);
    }

    #[test]
    fn a_solicitation_is_answered_with_the_target_link_layer_address() {
        let question = packet().vlan(9).neighbour_solicitation(ASKER, PORT);
        let answer = ask(&question, |frame, parsed| neighbour_advertisement(frame, parsed, MAC)).unwrap();
        let bytes = answer.bytes();
        let parsed = parse(bytes, bytes.len());
        assert_eq!((parsed.kind, parsed.ttl), (Kind::Icmp6 { kind: 136, code: 0 }, 255));
        assert_eq!(parsed.flow.source, Address::from_v6(PORT));
        assert_eq!(parsed.flow.destination, Address::from_v6(ASKER));
        assert_eq!(ethernet::destination(bytes), Some(CLIENT_MAC));
        assert_eq!(ethernet::source(bytes), Some(MAC));
        let message = &bytes[usize::from(parsed.l4)..usize::from(parsed.end)];
        assert_eq!(message[..2], [136, 0]);
        assert_eq!(message[4..8], [0x60, 0, 0, 0]);
        assert_eq!(message[8..24], PORT);
        assert_eq!(message[24..], [2, 1, 2, 0, 0, 0, 2, 1]);
        assert_eq!(checksum::transport(&parsed.flow, message), 0);
    }

    #[test]
    fn a_search_for_duplicates_is_answered_to_all_nodes_unsolicited() {
        let question = packet().neighbour_solicitation([0; 16], PORT);
        let answer = ask(&question, |frame, parsed| neighbour_advertisement(frame, parsed, MAC)).unwrap();
        let bytes = answer.bytes();
        let parsed = parse(bytes, bytes.len());
        assert_eq!(ethernet::destination(bytes), Some([0x33, 0x33, 0, 0, 0, 1]));
        assert_eq!(parsed.flow.destination.v6_octets(), [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(bytes[usize::from(parsed.l4) + 4], 0x20);
    }

    #[test]
    fn a_join_is_reset_with_its_reason_in_both_families() {
        let join = |packet: PacketBuilder| packet.tcp(40_000, 8000).syn(u32::MAX).mp_join_syn(Token(1), 2, 3);
        for packet in [packet().ipv4([192, 0, 2, 7], [10, 9, 9, 9]), packet().vlan(4).ipv6(ASKER, PORT)] {
            let packet = join(packet);
            let asked = ask(&packet, |_, parsed| *parsed);
            let answer = ask(&packet, |frame, parsed| tcp_reset(frame, parsed, MAC, TRANSIENT)).unwrap();
            let bytes = answer.bytes();
            let parsed = parse(bytes, bytes.len());
            assert_eq!(parsed.kind, Kind::Tcp);
            assert_eq!(
                parsed.flow,
                Flow {
                    source: asked.flow.destination,
                    destination: asked.flow.source,
                    source_port: 8000,
                    destination_port: 40_000,
                    ..asked.flow
                }
            );
            assert_eq!((parsed.tcp.seq, parsed.tcp.ack), (0, 0));
            assert_eq!(parsed.tcp.flags, Flags::RST.with(Flags::ACK));
            assert_eq!(parsed.tcp_options(bytes), [0x1e, 4, 0x81, 1]);
            let read = options(parsed.tcp_options(bytes), parsed.tcp.flags, false);
            assert_eq!(read.tcprst, Some(TcpRst { transient: true, reason: ResetReason::MPTCP }));
            let segment = &bytes[usize::from(parsed.l4)..usize::from(parsed.end)];
            assert_eq!(checksum::transport(&parsed.flow, segment), 0);
            assert_eq!(ethernet::destination(bytes), Some(CLIENT_MAC));
        }
    }

    #[test]
    fn a_reset_acknowledges_the_syns_data_too() {
        let syn = packet().tcp(1, 2).syn(1000).payload(&[0; 15]);
        let told = Some(TcpRst { transient: false, reason: ResetReason::RESOURCES });
        let answer = ask(&syn, |frame, parsed| tcp_reset(frame, parsed, MAC, told)).unwrap();
        let parsed = parse(answer.bytes(), answer.bytes().len());
        assert_eq!(parsed.tcp.ack, 1016);
        assert_eq!(parsed.tcp_options(answer.bytes()), [0x1e, 4, 0x80, 2]);
    }

    #[test]
    fn who_speaks_no_mptcp_is_reset_without_an_option() {
        let syn = packet().tcp(1, 2).syn(1000);
        let answer = ask(&syn, |frame, parsed| tcp_reset(frame, parsed, MAC, None)).unwrap();
        let bytes = answer.bytes();
        let parsed = parse(bytes, bytes.len());
        assert_eq!((parsed.kind, parsed.tcp.ack), (Kind::Tcp, 1001));
        assert_eq!(parsed.tcp_options(bytes), []);
        let segment = &bytes[usize::from(parsed.l4)..usize::from(parsed.end)];
        assert_eq!((segment.len(), checksum::transport(&parsed.flow, segment)), (20, 0));
    }

    #[test]
    fn only_a_syn_from_one_host_to_one_host_is_reset() {
        let reset = |packet: &PacketBuilder| {
            ask(packet, |frame, parsed| tcp_reset(frame, parsed, MAC, TRANSIENT)).is_some()
        };
        let tcp = packet().tcp(1, 2);
        assert!(reset(&tcp.clone().syn(1)));
        assert!(!reset(&tcp.clone().syn_ack(1, 1)));
        assert!(!reset(&tcp.clone().data(1, 1)));
        assert!(!reset(&tcp.clone().rst(1, 1)));
        assert!(!reset(&tcp.clone().syn(1).flags(Flags::SYN.with(Flags::RST))));
        assert!(!reset(&packet().udp(1, 2)));
        assert!(!reset(&tcp.clone().ipv4([224, 0, 0, 1], [10, 9, 9, 9]).syn(1)));
        assert!(!reset(&tcp.clone().ipv4([10, 0, 0, 1], [255; 4]).syn(1)));
        assert!(!reset(&tcp.ipv6([0xff; 16], PORT).syn(1)));
    }
}
