//! Frames written field by field into one buffer: Ethernet, IP, TCP or UDP or ICMP, all checksums.
//!
//! Nothing is allocated, and nothing is summed twice: the payload's sum is known by its length ([`Payload`]).

use packet::{Address, Family, Flags, checksum, ethernet, icmp6, ipv4, ipv6, tcp, udp};

use super::MAX_FRAME;
use super::option::Options;
use super::payload::Payload;

/// UDP's header.
const UDP_HEADER: usize = 8;
/// The window of a segment that is no SYN: 63 times 1024, Linux's default with the scale its SYN offers.
const WINDOW: u16 = 63;

/// The two ends of a frame on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where frames come from: the client's side, a router as a rule.
    pub source: [u8; 6],
    /// Where they go: the balancer's port.
    pub destination: [u8; 6],
}

/// From whom to whom, and what an IP header says besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip {
    pub family: Family,
    pub source: Address,
    pub destination: Address,
    /// IPv4's identification.
    pub id: u16,
    /// IPv6's flow label, 20 bits.
    pub label: u32,
    pub ttl: u8,
}

/// A TCP segment but for its addresses. Its options and its payload stand apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tcp {
    pub ports: (u16, u16),
    pub seq: u32,
    pub ack: u32,
    pub flags: Flags,
    /// Payload bytes.
    pub data: usize,
}

impl Ip {
    /// Bytes of Ethernet and IP headers.
    pub(super) const fn headers(family: Family) -> usize {
        ethernet::HEADER_LEN
            + match family {
                Family::V4 => ipv4::HEADER_LEN,
                Family::V6 => ipv6::HEADER_LEN,
            }
    }

    /// The addresses' share of a transport checksum.
    #[inline]
    fn sum(&self) -> u64 {
        match self.family {
            Family::V4 => {
                checksum::sum(&self.source.v4_octets()) + checksum::sum(&self.destination.v4_octets())
            }
            Family::V6 => {
                checksum::sum(&self.source.v6_octets()) + checksum::sum(&self.destination.v6_octets())
            }
        }
    }

    /// Writes the header for so many bytes behind it.
    fn write(&self, out: &mut Cursor<'_>, protocol: u8, len: usize) {
        match self.family {
            Family::V4 => {
                let start = out.at;
                out.put([0x45, 0]);
                out.put(length(ipv4::HEADER_LEN + len).to_be_bytes());
                out.put(self.id.to_be_bytes());
                out.put(ipv4::DONT_FRAGMENT.to_be_bytes());
                out.put([self.ttl, protocol, 0, 0]);
                out.put(self.source.v4_octets());
                out.put(self.destination.v4_octets());
                let sum = checksum::ipv4_header(out.since(start));
                out.set(start + 10, sum);
            }
            Family::V6 => {
                out.put((0x6000_0000 | self.label).to_be_bytes());
                out.put(length(len).to_be_bytes());
                out.put([protocol, self.ttl]);
                out.put(self.source.v6_octets());
                out.put(self.destination.v6_octets());
            }
        }
    }
}

/// The buffer frames are written in, one after the other.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8; MAX_FRAME]>,
    len: usize,
    link: Link,
    payload: Payload,
}

impl Buffer {
    pub(super) fn new(link: Link) -> Self {
        Self { bytes: Box::new([0; MAX_FRAME]), len: 0, link, payload: Payload::default() }
    }

    /// The frame that was written last.
    pub(super) fn frame(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The partial checksum of so many bytes of payload.
    pub(super) fn payload_sum(&self, len: usize) -> u64 {
        self.payload.sum(len)
    }

    /// Writes a TCP frame.
    pub(super) fn tcp(&mut self, ip: &Ip, segment: &Tcp, options: &Options) {
        let Self { bytes, len, link, payload } = self;
        let mut out = Cursor::new(bytes.as_mut_slice());
        out.link(*link, ip.family);
        let options = options.bytes();
        let header = tcp::HEADER_LEN + options.len();
        ip.write(&mut out, tcp::PROTOCOL, header + segment.data);
        out.segment(ip, segment, options, header + segment.data, payload.sum(segment.data));
        out.bytes(payload.bytes(segment.data));
        *len = out.at;
    }

    /// Writes a UDP frame.
    pub(super) fn udp(&mut self, ip: &Ip, ports: (u16, u16), data: usize) {
        let Self { bytes, len, link, payload } = self;
        let mut out = Cursor::new(bytes.as_mut_slice());
        out.link(*link, ip.family);
        let whole = UDP_HEADER + data;
        ip.write(&mut out, udp::PROTOCOL, whole);
        let start = out.at;
        out.put(ports.0.to_be_bytes());
        out.put(ports.1.to_be_bytes());
        out.put(length(whole).to_be_bytes());
        out.put([0, 0]);
        let sum = ip.sum() + u64::from(udp::PROTOCOL) + u64::from(length(whole));
        let sum = !checksum::fold(sum + checksum::sum(out.since(start)) + payload.sum(data));
        // RFC 768: zero means none, so a sum of zero is sent as its other form.
        out.set(start + 6, if sum == 0 { u16::MAX } else { sum });
        out.bytes(payload.bytes(data));
        *len = out.at;
    }

    /// Writes an ICMP error: its type and code, the four bytes behind the checksum, and the first `quote` bytes of
    /// the TCP packet it is about.
    pub(super) fn icmp(&mut self, ip: &Ip, says: ([u8; 2], u32), about: (&Ip, &Tcp, &Options), quote: usize) {
        let Self { bytes, len, link, payload } = self;
        let mut out = Cursor::new(bytes.as_mut_slice());
        out.link(*link, ip.family);
        let (quoted, segment, options) = about;
        let header = tcp::HEADER_LEN + options.bytes().len();
        let quoted_whole = Ip::headers(ip.family) - ethernet::HEADER_LEN + header + segment.data;
        let quote = quote.min(quoted_whole);
        let protocol = if ip.family == Family::V4 { ipv4::ICMP } else { icmp6::PROTOCOL };
        ip.write(&mut out, protocol, 8 + quote);
        let start = out.at;
        out.put(says.0);
        out.put([0, 0]);
        out.put(says.1.to_be_bytes());
        let quote_from = out.at;
        quoted.write(&mut out, tcp::PROTOCOL, header + segment.data);
        out.segment(quoted, segment, options.bytes(), header + segment.data, payload.sum(segment.data));
        out.bytes(payload.bytes(segment.data));
        out.at = quote_from + quote;
        let pseudo = match ip.family {
            Family::V4 => 0,
            Family::V6 => ip.sum() + u64::from(protocol) + u64::from(length(8 + quote)),
        };
        let sum = !checksum::fold(pseudo + checksum::sum(out.since(start)));
        out.set(start + 2, sum);
        *len = out.at;
    }
}

/// A place in the buffer. What does not fit is left out: lengths are checked when a plan is made.
struct Cursor<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    #[inline]
    fn put<const N: usize>(&mut self, field: [u8; N]) {
        if let Some(place) = self.bytes.get_mut(self.at..).and_then(<[u8]>::first_chunk_mut) {
            *place = field;
            self.at += N;
        }
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.at..self.at + bytes.len()) {
            place.copy_from_slice(bytes);
            self.at += bytes.len();
        }
    }

    #[inline]
    fn set(&mut self, at: usize, word: u16) {
        if let Some(place) = self.bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = word.to_be_bytes();
        }
    }

    #[inline]
    fn since(&self, start: usize) -> &[u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    fn link(&mut self, link: Link, family: Family) {
        self.put(link.destination);
        self.put(link.source);
        self.put(match family {
            Family::V4 => ethernet::IPV4.to_be_bytes(),
            Family::V6 => ethernet::IPV6.to_be_bytes(),
        });
    }

    /// A TCP header with its checksum, for a segment of `whole` bytes whose payload sums to `payload`.
    fn segment(&mut self, ip: &Ip, segment: &Tcp, options: &[u8], whole: usize, payload: u64) {
        let start = self.at;
        let [.., words] = ((tcp::HEADER_LEN + options.len()) / 4).to_be_bytes();
        self.put(segment.ports.0.to_be_bytes());
        self.put(segment.ports.1.to_be_bytes());
        self.put(segment.seq.to_be_bytes());
        self.put(segment.ack.to_be_bytes());
        self.put([words << 4, segment.flags.0]);
        let window = match (segment.flags.syn(), ip.family) {
            (true, Family::V4) => 64_240_u16,
            (true, Family::V6) => 64_800,
            (false, _) => WINDOW,
        };
        self.put(window.to_be_bytes());
        self.put([0; 4]);
        self.bytes(options);
        let pseudo = ip.sum() + u64::from(tcp::PROTOCOL) + u64::from(length(whole));
        let sum = checksum::fold(pseudo + checksum::sum(self.since(start)) + payload);
        self.set(start + 16, !sum);
    }
}

/// A length field. Plans allow none that does not fit.
fn length(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
