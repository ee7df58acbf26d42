//! From what was filled in to the bytes of a frame: lengths, order, padding, checksums.

use alloc::vec::Vec;

use super::{NO_OPERATION, Network, PacketBuilder, Transport};
use crate::flow::{Address, Family, Flow};
use crate::{checksum, ethernet, icmp6, ipv4, ipv6, tcp, udp};

/// Putting it together.
impl PacketBuilder {
    /// The frame.
    ///
    /// # Panics
    /// If the options do not fit 40 bytes, or the packet not 65535.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut frame = self.link();
        match self.network {
            Network::Arp(arp) => {
                frame.extend(ethernet::ARP.to_be_bytes());
                frame.extend(arp.to_bytes());
            }
            Network::Raw(ethertype) => {
                frame.extend(ethertype.to_be_bytes());
                frame.extend_from_slice(&self.payload);
            }
            Network::Ip { source, destination, family } => {
                let flow = self.flow_of(source, destination, family);
                self.push_ip(&mut frame, &flow, &self.segment(&flow));
            }
        }
        frame.resize(frame.len() + self.trailer, 0);
        frame
    }

    /// The IP packet alone: no Ethernet header, no VLAN tags, no trailer. What an ICMP error quotes.
    ///
    /// # Panics
    /// As [`Self::build`].
    #[must_use]
    pub fn build_ip(&self) -> Vec<u8> {
        let mut frame = self.build();
        frame.truncate(frame.len() - self.trailer);
        frame.split_off(ethernet::HEADER_LEN + self.tags.len() * ethernet::TAG_LEN)
    }

    /// The packet in fragments of at most `mtu` bytes, IP header included, in order; each as a frame. IPv6
    /// extension headers go into every one. None of what is no IP packet.
    ///
    /// # Panics
    /// As [`Self::build`], or if `mtu` leaves no room for 8 bytes.
    #[must_use]
    pub fn build_fragments(&self, mtu: usize) -> Vec<Vec<u8>> {
        let Network::Ip { source, destination, family } = self.network else {
            return Vec::new();
        };
        let flow = self.flow_of(source, destination, family);
        let segment = self.segment(&flow);
        let bare = self.clone().fragment(0, true).protocol(0).payload(&[]).build_ip();
        let step = (mtu - bare.len()) / 8 * 8;
        assert!(step > 0, "an MTU of {mtu}");
        let mut frames = Vec::new();
        for (index, part) in segment.chunks(step).enumerate() {
            let offset = index * step;
            let more = offset + part.len() < segment.len();
            let mut frame = self.link();
            self.clone().fragment(length(offset / 8), more).push_ip(&mut frame, &flow, part);
            frame.resize(frame.len() + self.trailer, 0);
            frames.push(frame);
        }
        frames
    }

    fn link(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.destination_mac);
        frame.extend(self.source_mac);
        for (kind, id) in &self.tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        frame
    }

    fn flow_of(&self, source: Address, destination: Address, family: Family) -> Flow {
        let (source_port, destination_port) = self.ports;
        let protocol = self.protocol_number(family);
        Flow { source, destination, source_port, destination_port, protocol, family }
    }

    fn push_ip(&self, frame: &mut Vec<u8>, flow: &Flow, segment: &[u8]) {
        match flow.family {
            Family::V4 => self.push_ipv4(frame, flow, segment),
            Family::V6 => self.push_ipv6(frame, flow, segment),
        }
    }

    fn protocol_number(&self, family: Family) -> u8 {
        match (self.transport, family) {
            (Transport::Tcp, _) => tcp::PROTOCOL,
            (Transport::Udp, _) => udp::PROTOCOL,
            (Transport::Icmp { .. }, Family::V4) => ipv4::ICMP,
            (Transport::Icmp { .. }, Family::V6) => icmp6::PROTOCOL,
            (Transport::Raw(protocol), _) => protocol,
        }
    }

    fn push_ipv4(&self, frame: &mut Vec<u8>, flow: &Flow, segment: &[u8]) {
        let header_len = ipv4::HEADER_LEN + self.ipv4_options.len();
        assert!(header_len <= 60, "an IPv4 header of {header_len} bytes");
        let words = u8::try_from(header_len / 4).unwrap_or(15);
        let (offset, more) = self.fragment.unwrap_or((0, false));
        let fragment = offset
            | if more { ipv4::MORE_FRAGMENTS } else { 0 }
            | if self.dont_fragment { ipv4::DONT_FRAGMENT } else { 0 };
        let mut header = Vec::from([0x40 | words, self.tos]);
        header.extend(length(header_len + segment.len()).to_be_bytes());
        header.extend(self.identification.to_be_bytes());
        header.extend(fragment.to_be_bytes());
        header.extend([self.ttl, flow.protocol, 0, 0]);
        header.extend(flow.source.v4_octets());
        header.extend(flow.destination.v4_octets());
        header.extend_from_slice(&self.ipv4_options);
        let checksum = checksum::ipv4_header(&header);
        put(&mut header, 10, checksum);
        frame.extend(ethernet::IPV4.to_be_bytes());
        frame.extend(header);
        frame.extend_from_slice(segment);
    }

    fn push_ipv6(&self, frame: &mut Vec<u8>, flow: &Flow, segment: &[u8]) {
        let mut extensions = self.extensions.clone();
        if let Some((offset, more)) = self.fragment {
            let mut body = ((offset << 3) | u16::from(more)).to_be_bytes().to_vec();
            body.extend([0, 0]);
            body.extend(self.identification.to_be_bytes());
            extensions.push((ipv6::FRAGMENT, body));
        }
        let kinds = extensions.iter().map(|(kind, _)| *kind).chain([flow.protocol]);
        let mut chain = Vec::new();
        for ((kind, body), next) in extensions.iter().zip(kinds.clone().skip(1)) {
            let len = match *kind {
                ipv6::FRAGMENT => 0,
                ipv6::AUTHENTICATION => (body.len() + 2) / 4 - 2,
                _ => (body.len() + 2) / 8 - 1,
            };
            chain.extend([next, u8::try_from(len).unwrap_or(u8::MAX)]);
            chain.extend_from_slice(body);
        }
        let header = ipv6::Outer {
            source: flow.source.v6_octets(),
            destination: flow.destination.v6_octets(),
            next_header: kinds.clone().next().unwrap_or(flow.protocol),
            traffic_class: self.tos,
            flow_label: self.flow_label,
            payload_len: length(chain.len() + segment.len()),
        };
        frame.extend(ethernet::IPV6.to_be_bytes());
        let start = frame.len();
        frame.extend(header.to_bytes());
        if let Some(hop_limit) = frame.get_mut(start + 7) {
            *hop_limit = self.ttl;
        }
        frame.extend(chain);
        frame.extend_from_slice(segment);
    }

    /// What IP carries, checksum included.
    fn segment(&self, flow: &Flow) -> Vec<u8> {
        let mut segment = Vec::new();
        let checksum_at = match self.transport {
            Transport::Tcp => {
                self.push_tcp(&mut segment);
                16
            }
            Transport::Udp => {
                segment.extend(self.ports.0.to_be_bytes());
                segment.extend(self.ports.1.to_be_bytes());
                segment.extend(length(8 + self.payload.len()).to_be_bytes());
                segment.extend([0, 0]);
                6
            }
            Transport::Icmp { kind, code } => {
                segment.extend([kind, code, 0, 0]);
                2
            }
            Transport::Raw(_) => return self.payload.clone(),
        };
        segment.extend_from_slice(&self.payload);
        let checksum = match (self.transport, flow.family) {
            (Transport::Icmp { .. }, Family::V4) => checksum::ipv4_header(&segment),
            _ => checksum::transport(flow, &segment),
        };
        // RFC 768: zero means none, so a sum of zero is sent as its other form.
        let udp = matches!(self.transport, Transport::Udp);
        put(&mut segment, checksum_at, if udp && checksum == 0 { 0xffff } else { checksum });
        segment
    }

    fn push_tcp(&self, segment: &mut Vec<u8>) {
        let options = self.tcp_options();
        let words = u8::try_from((tcp::HEADER_LEN + options.len()) / 4).unwrap_or(15);
        segment.extend(self.ports.0.to_be_bytes());
        segment.extend(self.ports.1.to_be_bytes());
        segment.extend(self.seq.to_be_bytes());
        segment.extend(self.ack.to_be_bytes());
        segment.extend([words << 4, self.flags.0]);
        segment.extend(64_240_u16.to_be_bytes());
        segment.extend([0; 4]);
        segment.extend(options);
    }

    /// Linux's order: on a SYN MSS, SACK permitted, timestamps, NOP, window scale; else NOP, NOP, timestamps.
    /// MPTCP comes last, padded with NOPs.
    fn tcp_options(&self) -> Vec<u8> {
        let mut options = Vec::new();
        let syn = self.flags.syn() && self.timestamps.is_some();
        if syn {
            options.extend([2, 4, 0x05, 0xb4, 4, 2]);
        }
        if let Some((value, echo)) = self.timestamps {
            if !syn {
                options.extend([NO_OPERATION, NO_OPERATION]);
            }
            options.extend([8, 10]);
            options.extend(value.to_be_bytes());
            options.extend(echo.to_be_bytes());
        }
        if syn {
            options.extend([NO_OPERATION, 3, 3, 10]);
        }
        options.extend_from_slice(&self.options);
        options.resize(options.len().next_multiple_of(4), NO_OPERATION);
        assert!(options.len() <= tcp::OPTIONS_MAX, "{} bytes of TCP options", options.len());
        options
    }
}

pub(super) fn length(len: usize) -> u16 {
    assert!(len <= usize::from(u16::MAX), "a packet of {len} bytes");
    u16::try_from(len).unwrap_or(u16::MAX)
}

fn put(bytes: &mut [u8], at: usize, word: u16) {
    if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = word.to_be_bytes();
    }
}
