//! The headers a tunnel puts before a packet: IP in IP (RFC 2003, RFC 2473, RFC 4213) and GUE
//! (draft-ietf-intarea-gue-09), either IP version inside either.
//!
//! GUE may carry private data between its header and the packet (section 3.2 there: whatever the header's length takes in
//! beyond the fields that its flags announce). Linux's receiver skips it.
//!
//! The inner packet is not touched. The outer header has
//! - its DSCP and ECN, copied whole (RFC 6040 section 4.1, normal mode, at the tunnel's start);
//! - a TTL or hop limit of 64;
//! - don't-fragment as the inner IPv4 packet says, so that what path MTU discovery wants to learn is not hidden,
//!   and always set around IPv6, whose packets nobody on the way may fragment (RFC 4213 section 3.2.2);
//! - an IPv4 identification made of the inner one, the flow and the fragment's offset. Where don't-fragment is
//!   clear, packets of all clients share the tunnel's addresses: with the inner number alone two clients that count
//!   alike would mix up fragments at the decapsulator (RFC 4963), and so would the fragments of one datagram,
//!   which have one number;
//! - an IPv6 flow label: the inner packet's, or the flow's hash where it has none (RFC 6438).
//!
//! **The UDP checksum of GUE is zero, over IPv6 too** (RFC 6935, and RFC 6936 for when that is sound). The inner
//! packet's own checksum covers its addresses and every byte; a sum over all of it again would touch every byte of
//! every packet. Linux's fou and gue receivers take a zero checksum over IPv6 without being told
//! (`udp_sock_create6` allows it unless `use_udp6_rx_checksums` is set, and fou never sets it), unlike vxlan or
//! geneve. What is unprotected is the outer IPv6 header: a packet damaged there reaches another host or another
//! port, and is dropped where no decapsulator listens or by the inner checksum. A middlebox that drops IPv6 UDP
//! without a checksum cannot stand between Weft and its backends.

use crate::flow::Family;
use crate::parse::Parsed;
use crate::{ipv4, ipv6, udp};

/// The UDP port GUE is received on.
pub const GUE_PORT: u16 = 6080;
/// A GUE header without optional fields.
pub const GUE_HEADER_LEN: usize = 4;
/// What five bits of GUE's header can say of its length: the words behind the first four bytes.
const PRIVATE_WORDS_MAX: u8 = 31;
/// UDP and GUE.
const SHIM_LEN: usize = udp::HEADER_LEN + GUE_HEADER_LEN;

/// Bytes of IP in IP over IPv4.
pub const IP_OVER_V4: usize = ipv4::HEADER_LEN;
/// Bytes of IP in IP over IPv6.
pub const IP_OVER_V6: usize = ipv6::HEADER_LEN;
/// Bytes of GUE over IPv4.
pub const GUE_OVER_V4: usize = ipv4::HEADER_LEN + SHIM_LEN;
/// Bytes of GUE over IPv6.
pub const GUE_OVER_V6: usize = ipv6::HEADER_LEN + SHIM_LEN;

/// What the outer headers take from the packet they go before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    family: Family,
    tos: u8,
    dont_fragment: bool,
    len: u16,
    identification: u16,
    flow_label: u32,
    source_port: u16,
    /// Words of four bytes between GUE's header and the packet.
    private_words: u8,
}

impl Inner {
    /// The packet of a frame. `len` is that of the packet, its IP header included; `hash` is the flow's, the same
    /// for all of its packets. Parts of it can be read on the wire, so it is not to be a secret one.
    #[inline]
    pub fn new(frame: &[u8], parsed: &Parsed, len: u16, hash: u64) -> Self {
        let family = parsed.flow.family;
        let header = frame.get(usize::from(parsed.l3)..).and_then(<[u8]>::first_chunk::<8>).copied();
        let [a, b, c, d, e, f, g, h] = header.unwrap_or_default();
        let [label, identification] = spread(hash);
        let (identification, flow_label) = match family {
            Family::V4 => {
                let offset = u16::from_be_bytes([g, h]) & ipv4::FRAGMENT_OFFSET;
                // An odd factor: offsets of one datagram stay apart from its neighbours' numbers.
                let mixed = u16::from_be_bytes([e, f]) ^ identification ^ offset.wrapping_mul(0x9e37);
                (mixed, u32::from(label) << 4)
            }
            Family::V6 => {
                let inner = u32::from_be_bytes([a, b, c, d]) & 0x000f_ffff;
                (identification, if inner == 0 { u32::from(label) << 4 } else { inner })
            }
        };
        Self {
            family,
            tos: parsed.tos,
            dont_fragment: parsed.dont_fragment,
            len,
            identification,
            flow_label,
            source_port: gue_source_port(hash),
            private_words: 0,
        }
    }

    /// The same with private data between GUE's header and the packet: so many words of four bytes, 31 at most, which
    /// the caller puts there. IP in IP has no place for any.
    #[inline]
    pub const fn with_private(self, words: u8) -> Self {
        Self { private_words: words & PRIVATE_WORDS_MAX, ..self }
    }

    /// The header of IP in IP over IPv4; `None` if the packet would be longer than IPv4 can say.
    #[inline]
    pub fn ip_over_v4(&self, source: [u8; 4], destination: [u8; 4]) -> Option<[u8; IP_OVER_V4]> {
        self.v4(source, destination, self.protocol(), self.len)
    }

    /// The header of IP in IP over IPv6.
    #[inline]
    pub fn ip_over_v6(&self, source: [u8; 16], destination: [u8; 16]) -> [u8; IP_OVER_V6] {
        self.v6(source, destination, self.protocol(), self.len)
    }

    /// The headers of GUE over IPv4; `None` if the packet would be longer than IPv4 can say.
    #[inline]
    pub fn gue_over_v4(&self, source: [u8; 4], destination: [u8; 4]) -> Option<[u8; GUE_OVER_V4]> {
        let shim = self.shim()?;
        let ip = self.v4(source, destination, udp::PROTOCOL, self.gue_len()?)?;
        let mut bytes = [0; GUE_OVER_V4];
        bytes[..IP_OVER_V4].copy_from_slice(&ip);
        bytes[IP_OVER_V4..].copy_from_slice(&shim);
        Some(bytes)
    }

    /// The headers of GUE over IPv6; `None` if the packet would be longer than UDP can say.
    #[inline]
    pub fn gue_over_v6(&self, source: [u8; 16], destination: [u8; 16]) -> Option<[u8; GUE_OVER_V6]> {
        let shim = self.shim()?;
        let ip = self.v6(source, destination, udp::PROTOCOL, self.gue_len()?);
        let mut bytes = [0; GUE_OVER_V6];
        bytes[..IP_OVER_V6].copy_from_slice(&ip);
        bytes[IP_OVER_V6..].copy_from_slice(&shim);
        Some(bytes)
    }

    const fn protocol(&self) -> u8 {
        match self.family {
            Family::V4 => ipv4::IPV4_INSIDE,
            Family::V6 => ipv4::IPV6_INSIDE,
        }
    }

    fn gue_len(&self) -> Option<u16> {
        let private = u16::from(self.private_words) * 4;
        self.len.checked_add(u16::try_from(SHIM_LEN).ok()?)?.checked_add(private)
    }

    /// UDP without a checksum, and GUE: version 0, data, the words behind it, the inner protocol, no flags.
    fn shim(&self) -> Option<[u8; SHIM_LEN]> {
        let [source_high, source_low] = self.source_port.to_be_bytes();
        let [high, low] = GUE_PORT.to_be_bytes();
        let [len_high, len_low] = self.gue_len()?.to_be_bytes();
        let words = self.private_words;
        Some([source_high, source_low, high, low, len_high, len_low, 0, 0, words, self.protocol(), 0, 0])
    }

    fn v4(&self, source: [u8; 4], destination: [u8; 4], protocol: u8, payload_len: u16) -> Option<[u8; 20]> {
        let (tos, dont_fragment, identification) = (self.tos, self.dont_fragment, self.identification);
        ipv4::Outer { source, destination, protocol, tos, dont_fragment, identification, payload_len }
            .to_bytes()
    }

    fn v6(&self, source: [u8; 16], destination: [u8; 16], next_header: u8, payload_len: u16) -> [u8; 40] {
        let (traffic_class, flow_label) = (self.tos, self.flow_label);
        ipv6::Outer { source, destination, next_header, traffic_class, flow_label, payload_len }.to_bytes()
    }
}

/// The UDP source port of a flow's tunnel, 49152 to 65535, so that paths and queues on the way spread flows. Of the
/// hash's last bits: Maglev goes by the first, so these would be nearly the same for all flows of one backend.
#[inline]
pub fn gue_source_port(hash: u64) -> u16 {
    let [.., high, low] = hash.to_be_bytes();
    0xc000 | u16::from_be_bytes([high, low])
}

/// Two words of a hash for two purposes.
#[inline]
fn spread(hash: u64) -> [u16; 2] {
    let [_, _, a, b, c, d, ..] = hash.to_be_bytes();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}
