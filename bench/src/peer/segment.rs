//! A TCP segment as an endpoint sees it: ends, numbers, flags, options, payload; and the frames it travels in.
//!
//! Headers are read by the parser of `packet`, whose oracle is etherparse; MPTCP options by [`super::option`]. The TCP
//! checksum is checked: a balancer that damages a packet must not be told that all is well.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use packet::tunnel::GUE_PORT;
use packet::{Address, Family, Flags, Kind, checksum, ethernet, udp};

use super::option::{self, MpOption, Options};

/// IP in IP: IPv4 within (RFC 2003).
const IPV4_WITHIN: u8 = 4;
/// IP in IP: IPv6 within (RFC 2473).
const IPV6_WITHIN: u8 = 41;

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Who sends it.
    pub from: SocketAddr,
    /// Who is to have it.
    pub to: SocketAddr,
    /// The sequence number.
    pub seq: u32,
    /// The acknowledgment number.
    pub ack: u32,
    /// The flags.
    pub flags: Flags,
    /// Timestamps and MPTCP.
    pub options: Options,
    /// The data.
    pub payload: Vec<u8>,
}

/// Why a frame holds no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSegment {
    /// It holds something else.
    Other,
    /// Its checksum is wrong.
    Damaged,
}

/// An address of `packet` as one of the standard library's.
pub fn ip(address: Address, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(address.v4_octets()).into(),
        Family::V6 => Ipv6Addr::from(address.v6_octets()).into(),
    }
}

/// The family of an address.
pub fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

impl Segment {
    /// Takes a frame apart.
    ///
    /// # Errors
    /// It is no TCP segment, or a damaged one.
    pub fn read(frame: &[u8]) -> Result<Self, NoSegment> {
        let parsed = packet::parse(frame, frame.len());
        if parsed.kind != Kind::Tcp {
            return Err(NoSegment::Other);
        }
        let whole = frame.get(usize::from(parsed.l4)..usize::from(parsed.end)).ok_or(NoSegment::Other)?;
        // Over a segment with its checksum in place the sum is zero (RFC 9293 section 3.1).
        if checksum::transport(&parsed.flow, whole) != 0 {
            return Err(NoSegment::Damaged);
        }
        let flow = &parsed.flow;
        let flags = parsed.tcp.flags;
        Ok(Self {
            from: SocketAddr::new(ip(flow.source, flow.family), flow.source_port),
            to: SocketAddr::new(ip(flow.destination, flow.family), flow.destination_port),
            seq: parsed.tcp.seq,
            ack: parsed.tcp.ack,
            flags,
            options: option::read(parsed.tcp_options(frame), flags.syn(), flags.ack()),
            payload: frame
                .get(usize::from(parsed.payload)..usize::from(parsed.end))
                .unwrap_or_default()
                .to_vec(),
        })
    }

    /// The frame from one station to another.
    pub fn frame(&self, source: [u8; 6], destination: [u8; 6]) -> Vec<u8> {
        let mut packet = packet::build::packet()
            .ethernet(source, destination)
            .ip(self.from.ip().into(), self.to.ip().into(), family(self.to.ip()))
            .tcp(self.from.port(), self.to.port())
            .flags(self.flags)
            .seq(self.seq)
            .ack(self.ack)
            .payload(&self.payload);
        if let Some((value, echo)) = self.options.timestamps {
            packet = packet.timestamps(value, echo);
        }
        let mut bytes = Vec::new();
        self.options.mptcp.iter().for_each(|option| option.write(&mut bytes));
        packet.option(&bytes).build()
    }

    /// The first option that `wanted` takes.
    pub fn find<T>(&self, wanted: impl FnMut(&MpOption) -> Option<T>) -> Option<T> {
        self.options.mptcp.iter().find_map(wanted)
    }

    /// Sequence numbers it takes up.
    pub fn len(&self) -> u32 {
        let flags = u32::from(self.flags.syn()) + u32::from(self.flags.fin());
        u32::try_from(self.payload.len()).unwrap_or(u32::MAX).saturating_add(flags)
    }

    /// Whether it takes up none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A packet taken out of its tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inner {
    /// The frame without the outer headers; the Ethernet addresses are the outer frame's.
    pub frame: Vec<u8>,
    /// Whom the outer header named, where there was one.
    pub tunnel: Option<IpAddr>,
    /// What stands behind the fixed GUE header: its optional fields and private data.
    pub extra: Vec<u8>,
}

/// Takes IP in IP and GUE off a frame; a frame without a tunnel stays as it is.
pub fn decapsulate(frame: &[u8]) -> Inner {
    let parsed = packet::parse(frame, frame.len());
    let whole = |extra: Vec<u8>| Inner { frame: frame.to_vec(), tunnel: None, extra };
    let (start, extra) = match parsed.kind {
        Kind::OtherIp if matches!(parsed.flow.protocol, IPV4_WITHIN | IPV6_WITHIN) => {
            (usize::from(parsed.l4), Vec::new())
        }
        Kind::Udp if parsed.flow.destination_port == GUE_PORT => {
            let gue = usize::from(parsed.l4) + udp::HEADER_LEN;
            let Some(header) = frame.get(gue..).and_then(<[u8]>::first_chunk::<4>) else {
                return whole(Vec::new());
            };
            // draft-ietf-intarea-gue-09 section 3.2: the length of what is optional, in words of four bytes.
            let optional = usize::from(header[0] & 0x1f) * 4;
            let extra = frame.get(gue + 4..gue + 4 + optional).unwrap_or_default().to_vec();
            (gue + 4 + optional, extra)
        }
        _ => return whole(Vec::new()),
    };
    let Some(packet) = frame.get(start..usize::from(parsed.end)).filter(|packet| !packet.is_empty()) else {
        return whole(extra);
    };
    let kind =
        if packet.first().is_some_and(|first| first >> 4 == 4) { ethernet::IPV4 } else { ethernet::IPV6 };
    let link = frame.get(..2 * 6).unwrap_or_default();
    let inner = [link, &kind.to_be_bytes(), packet].concat();
    Inner { frame: inner, tunnel: Some(ip(parsed.flow.destination, parsed.flow.family)), extra }
}

/// The destination MAC address of a frame.
pub fn destination(frame: &[u8]) -> [u8; 6] {
    frame.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> Segment {
        Segment {
            from: "10.0.1.1:40000".parse().unwrap(),
            to: "10.9.9.9:8000".parse().unwrap(),
            seq: 7,
            ack: 9,
            flags: Flags::ACK,
            options: Options {
                timestamps: Some((1, 2)),
                mptcp: vec![MpOption::Dss { ack: Some((5, false)), map: None, fin: false }],
            },
            payload: b"abc".to_vec(),
        }
    }

    #[test]
    fn a_segment_written_to_a_frame_is_read_from_it_again() {
        let frame = segment().frame([1; 6], [2; 6]);
        assert_eq!(Segment::read(&frame), Ok(segment()));
        assert_eq!(destination(&frame), [2; 6]);
    }

    #[test]
    fn every_checksum_of_a_linux_session_is_what_we_compute() {
        use super::super::proof;
        let captures = concat!(env!("CARGO_MANIFEST_DIR"), "/../dataplane/packet/tests/captures");
        let file = std::path::Path::new(captures).join("dss_checksum.pcap");
        let mut reader = capture::CaptureReader::open(&file).unwrap();
        let (mut mapped, mut ends) = (0, 0);
        while let Some(record) = reader.read().unwrap() {
            let parsed = packet::parse(&record.bytes, record.bytes.len());
            let options = option::read(parsed.tcp_options(&record.bytes), parsed.tcp.flags.syn(), true);
            let payload = &record.bytes[usize::from(parsed.payload)..usize::from(parsed.end)];
            for option in options.mptcp {
                let (sequence, place, len, checksum) = match option {
                    MpOption::Dss { map: Some(map), fin, .. } if map.short => panic!("half a number: {fin}"),
                    MpOption::Dss { map: Some(map), fin, .. } => {
                        (mapped, ends) = (mapped + 1, ends + u32::from(fin));
                        (map.sequence, map.subflow_sequence, map.len, map.checksum)
                    }
                    _ => continue,
                };
                // Every mapping of that session is one segment.
                assert_eq!(Some(proof::checksum(sequence, place, len, payload)), checksum, "{option:?}");
            }
        }
        assert_eq!((mapped, ends), (20, 5));
    }

    #[test]
    fn a_damaged_segment_is_told_from_none() {
        let mut frame = segment().frame([1; 6], [2; 6]);
        let last = frame.len() - 1;
        frame[last] ^= 1;
        assert_eq!(Segment::read(&frame), Err(NoSegment::Damaged));
        assert_eq!(Segment::read(&frame[..20]), Err(NoSegment::Other));
    }

    #[test]
    fn a_packet_comes_out_of_either_tunnel_as_it_went_in() {
        let frame = segment().frame([1; 6], [2; 6]);
        let packet = &frame[14..];
        let outer = packet::build::packet().ethernet([1; 6], [2; 6]).ipv4([10, 0, 0, 1], [10, 0, 1, 12]);
        let ipip = outer.clone().protocol(4).payload(packet).build();
        let gue = outer
            .udp(50_000, 6080)
            .payload(&[&[1, 4, 0, 0, 0xaa, 0xbb, 0xcc, 0xdd], packet].concat())
            .build();
        let tunnel = Some("10.0.1.12".parse().unwrap());
        assert_eq!(decapsulate(&ipip), Inner { frame: frame.clone(), tunnel, extra: vec![] });
        let extra = vec![0xaa, 0xbb, 0xcc, 0xdd];
        assert_eq!(decapsulate(&gue), Inner { frame: frame.clone(), tunnel, extra });
        assert_eq!(decapsulate(&frame), Inner { frame: frame.clone(), tunnel: None, extra: vec![] });
    }
}
