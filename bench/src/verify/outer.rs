//! What is in front of a packet that came out, held to what docs/packet-path.md promises: MAC addresses, the outer IP
//! header of either family with its checksum, UDP and GUE. Read by etherparse, or byte by byte; never by the code
//! that wrote it.

use std::fmt::Display;
use std::net::IpAddr;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};
use ipc::message::Forward;

use super::dissect::{Frame, Ip, UDP};
use super::plan::{Plan, Source, VipId};

/// UDP and GUE.
pub const GUE_LEN: usize = 12;
/// The port of GUE.
const GUE_PORT: u16 = 6080;
/// Source ports of GUE begin here.
const GUE_SOURCES: u16 = 49_152;
/// IP protocols of a packet in a packet.
const V4_INSIDE: u8 = 4;
const V6_INSIDE: u8 = 41;
/// TTL or hop limit of the outer header.
const TTL: u8 = 64;
/// Ethernet types by family.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// What was found wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The field.
    pub what: &'static str,
    /// What it should be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

/// The fields of one packet that are wrong. Empty costs nothing.
#[derive(Debug, Default)]
pub struct Findings(pub Vec<Wrong>);

impl Findings {
    /// Notes a field unless it is as expected.
    pub fn expect<T: PartialEq + Display>(&mut self, what: &'static str, expected: T, found: T) {
        if expected != found {
            self.add(what, expected, found);
        }
    }

    /// The same for what is read in hexadecimal.
    pub fn expect_hex(&mut self, what: &'static str, expected: u16, found: u16) {
        if expected != found {
            self.add(what, hex(expected), hex(found));
        }
    }

    /// Notes a field that is wrong.
    pub fn add(&mut self, what: &'static str, expected: impl Display, found: impl Display) {
        self.0.push(Wrong { what, expected: expected.to_string(), found: found.to_string() });
    }
}

/// Where in a frame's body a forwarded packet may begin: as it is, behind IPv4, IPv6, and either with GUE.
pub const OFFSETS: [usize; 5] = [0, 20, 40, 20 + GUE_LEN, 40 + GUE_LEN];

/// A packet that came out, and where it was found.
#[derive(Debug)]
pub struct Sent<'a> {
    /// The frame.
    pub frame: &'a Frame<'a>,
    /// Bytes before the packet that went in.
    pub offset: usize,
    /// The packet that went in.
    pub inner: &'a Ip<'a>,
    /// Its VIP.
    pub vip: VipId,
}

/// What a tunnel shows of a flow to the paths on the way: made of the flow's hash, so the same for all its packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entropy {
    /// The outer flow label, where the packet has none of its own.
    pub label: Option<u32>,
    /// GUE's source port.
    pub port: Option<u16>,
}

/// What the headers in front of a packet say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The backend's place in its pool.
    pub backend: Option<u16>,
    /// What must be the same for all packets of the flow.
    pub entropy: Entropy,
}

/// Checks everything in front of a packet.
pub fn check(plan: &Plan, sent: &Sent<'_>, findings: &mut Findings) -> Outcome {
    let forward = plan.forward(sent.vip);
    let came = match sent.offset {
        0 => Forward::L2dsr,
        20 | 40 => Forward::Ipip,
        _ => Forward::Gue,
    };
    if came != forward {
        findings.add("way of forwarding", name(forward), name(came));
        return Outcome::default();
    }
    match forward {
        Forward::L2dsr => direct(plan, sent, findings),
        Forward::Ipip | Forward::Gue => tunnelled(plan, sent, forward, findings),
    }
}

const fn name(forward: Forward) -> &'static str {
    match forward {
        Forward::L2dsr => "l2dsr",
        Forward::Ipip => "ipip",
        Forward::Gue => "gue",
    }
}

/// l2dsr: the MAC address alone says to whom.
fn direct(plan: &Plan, sent: &Sent<'_>, findings: &mut Findings) -> Outcome {
    let pool = plan.pool(sent.vip);
    let backends = plan.backends(pool);
    let found = backends.iter().zip(0..).find(|(backend, _)| backend.mac == Some(sent.frame.to));
    let ether_type = if sent.inner.is_v4() { IPV4 } else { IPV6 };
    findings.expect_hex("Ethernet type", ether_type, sent.frame.ether_type);
    let Some((backend, number)) = found else {
        findings.add("destination MAC address", "that of a backend of the VIP's pool", mac(sent.frame.to));
        return Outcome::default();
    };
    let near = backend.addresses().find(|address| address.is_ipv4() == sent.inner.is_v4());
    if let Some(address) = near.or(backend.addresses().next()) {
        source_mac(plan, address, sent, findings);
    }
    Outcome { backend: Some(number), entropy: Entropy::default() }
}

fn source_mac(plan: &Plan, towards: IpAddr, sent: &Sent<'_>, findings: &mut Findings) {
    if let Some(own) = plan.source_mac(towards)
        && own != sent.frame.from
    {
        findings.add("source MAC address", mac(own), mac(sent.frame.from));
    }
}

/// ipip and gue.
fn tunnelled(plan: &Plan, sent: &Sent<'_>, forward: Forward, findings: &mut Findings) -> Outcome {
    let v4 = matches!(sent.offset, 20 | 32);
    let ether_type = if v4 { IPV4 } else { IPV6 };
    findings.expect_hex("Ethernet type", ether_type, sent.frame.ether_type);
    let shim = if forward == Forward::Gue { GUE_LEN } else { 0 };
    let whole = sent.offset + sent.inner.bytes.len();
    findings.expect("bytes behind the outer packet", 0, sent.frame.body.len().saturating_sub(whole));
    if let Some((_, longest)) = plan.mtus()
        && whole > longest
    {
        findings.add("outer length", format!("at most the MTU, {longest}"), whole);
    }
    let outer = if v4 { v4_header(sent, shim, findings) } else { v6_header(sent, shim, findings) };
    let Some(outer) = outer else { return Outcome::default() };
    let mut outcome = addresses(plan, sent, &outer, findings);
    let inside = if sent.inner.is_v4() { V4_INSIDE } else { V6_INSIDE };
    let protocol = if forward == Forward::Gue { UDP } else { inside };
    findings.expect("outer protocol", protocol, outer.protocol);
    // The label is the packet's own where it has one (RFC 6438), else made of the flow.
    if !v4 && sent.inner.label != 0 {
        findings.expect("outer flow label", sent.inner.label, outer.label);
    } else if !v4 {
        outcome.entropy.label = Some(outer.label);
    }
    if forward == Forward::Gue {
        outcome.entropy.port = Some(gue(sent, inside, findings));
    }
    outcome
}

/// What both families have.
struct Outer {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    label: u32,
}

fn v4_header(sent: &Sent<'_>, shim: usize, findings: &mut Findings) -> Option<Outer> {
    let Ok(header) = Ipv4HeaderSlice::from_slice(sent.frame.body) else {
        findings.add("outer IPv4 header", "version 4 and a length of 20", hex_byte(sent.frame.body.first()));
        return None;
    };
    let inner = sent.inner;
    findings.expect("outer header length", 5, header.ihl());
    let tos = sent.frame.body.get(1).copied().unwrap_or_default();
    findings.expect("outer DSCP", inner.tos >> 2, tos >> 2);
    findings.expect("outer ECN", inner.tos & 3, tos & 3);
    let total = 20 + shim + inner.bytes.len();
    findings.expect("outer length", total, usize::from(header.total_len()));
    let dont_fragment = !inner.is_v4() || inner.dont_fragment;
    findings.expect("outer don't-fragment", dont_fragment, header.dont_fragment());
    if header.is_fragmenting_payload() {
        findings.add("outer fragment offset", "no fragment", header.fragments_offset().value());
    }
    // Of a packet nobody may fragment the number means nothing (RFC 6864); ipip passes it on, gue mixes the flow in.
    if inner.is_v4() && dont_fragment && shim == 0 {
        findings.expect("outer identification", inner.identification, header.identification());
    }
    findings.expect("outer TTL", TTL, header.ttl());
    let checksum = header.to_header().calc_header_checksum();
    findings.expect_hex("outer checksum", checksum, header.header_checksum());
    Some(Outer {
        source: IpAddr::V4(header.source_addr()),
        destination: IpAddr::V4(header.destination_addr()),
        protocol: header.protocol().0,
        label: 0,
    })
}

fn v6_header(sent: &Sent<'_>, shim: usize, findings: &mut Findings) -> Option<Outer> {
    let Ok(header) = Ipv6HeaderSlice::from_slice(sent.frame.body) else {
        findings.add("outer IPv6 header", "version 6", hex_byte(sent.frame.body.first()));
        return None;
    };
    let inner = sent.inner;
    findings.expect("outer DSCP", inner.tos >> 2, header.traffic_class() >> 2);
    findings.expect("outer ECN", inner.tos & 3, header.traffic_class() & 3);
    findings.expect("outer length", shim + inner.bytes.len(), usize::from(header.payload_length()));
    findings.expect("outer hop limit", TTL, header.hop_limit());
    Some(Outer {
        source: IpAddr::V6(header.source_addr()),
        destination: IpAddr::V6(header.destination_addr()),
        protocol: header.next_header().0,
        label: header.flow_label().value(),
    })
}

/// Whose the outer addresses are, and the MAC addresses with them.
fn addresses(plan: &Plan, sent: &Sent<'_>, outer: &Outer, findings: &mut Findings) -> Outcome {
    let backends = plan.backends(plan.pool(sent.vip));
    let mut all = backends.iter().zip(0..);
    let found = all.find(|(backend, _)| backend.addresses().any(|address| address == outer.destination));
    let Some((backend, number)) = found else {
        findings.add("outer destination", "a backend of the VIP's pool", outer.destination);
        return Outcome::default();
    };
    if let Some(end) = Plan::tunnel_end(backend, sent.inner.is_v4()) {
        findings.expect("outer destination", end, outer.destination);
    }
    if let Source::Is(source) = plan.tunnel_source(outer.destination, sent.inner.destination) {
        findings.expect("outer source", source, outer.source);
    }
    if let Some(own) = backend.mac
        && own != sent.frame.to
    {
        findings.add("destination MAC address", mac(own), mac(sent.frame.to));
    }
    source_mac(plan, outer.destination, sent, findings);
    Outcome { backend: Some(number), entropy: Entropy::default() }
}

/// UDP and GUE: 12 bytes before the packet. Gives the source port.
fn gue(sent: &Sent<'_>, inside: u8, findings: &mut Findings) -> u16 {
    let from = sent.offset - GUE_LEN;
    let bytes: [u8; GUE_LEN] =
        sent.frame.body.get(from..).and_then(|shim| shim.first_chunk().copied()).unwrap_or_default();
    let [a, b, c, d, e, f, g, h, gue @ ..] = bytes;
    let [source, port, len, checksum] = [[a, b], [c, d], [e, f], [g, h]].map(u16::from_be_bytes);
    findings.expect("GUE port", GUE_PORT, port);
    if source < GUE_SOURCES {
        findings.add("GUE source port", format!("{GUE_SOURCES} or above"), source);
    }
    findings.expect("UDP length", GUE_LEN + sent.inner.bytes.len(), usize::from(len));
    // Zero over IPv6 too (RFC 6935).
    findings.expect_hex("UDP checksum", 0, checksum);
    let [version, protocol, flags @ ..] = gue;
    findings.expect("GUE version and length", 0, version);
    findings.expect("GUE protocol", inside, protocol);
    findings.expect("GUE flags", 0, u16::from_be_bytes(flags));
    source
}

/// A MAC address as people write it.
pub fn mac(address: [u8; 6]) -> String {
    config::format_mac(address)
}

fn hex(word: u16) -> String {
    format!("{word:#06x}")
}

fn hex_byte(byte: Option<&u8>) -> String {
    byte.map_or_else(|| "nothing".to_owned(), |byte| format!("{byte:#04x}"))
}
