//! The Ethernet header and its VLAN tags (IEEE 802.1Q, 802.1ad).

/// Destination, source, type.
pub const HEADER_LEN: usize = 14;
/// One VLAN tag.
pub const TAG_LEN: usize = 4;
/// How many VLAN tags a frame may have: an outer service tag and an inner customer tag.
pub const TAGS_MAX: usize = 2;
/// The shortest frame on a wire, without its check sequence.
pub const FRAME_MIN: usize = 60;

/// Where the destination MAC address stands.
pub const DESTINATION: usize = 0;
/// Where the source MAC address stands.
pub const SOURCE: usize = 6;
/// Where the type (or the first VLAN tag) stands.
pub const ETHERTYPE: usize = 12;

/// IPv4.
pub const IPV4: u16 = 0x0800;
/// ARP.
pub const ARP: u16 = 0x0806;
/// IPv6.
pub const IPV6: u16 = 0x86dd;
/// A customer VLAN tag.
pub const VLAN: u16 = 0x8100;
/// A service VLAN tag, the outer of two.
pub const QINQ: u16 = 0x88a8;

/// The MAC address that names every station.
pub const BROADCAST: [u8; 6] = [0xff; 6];

/// A header without VLAN tags, as bytes.
#[inline]
pub const fn header(destination: [u8; 6], source: [u8; 6], ethertype: u16) -> [u8; HEADER_LEN] {
    let [a, b, c, d, e, f] = destination;
    let [g, h, i, j, k, l] = source;
    let [m, n] = ethertype.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n]
}

/// The destination MAC address of a frame.
#[inline]
pub fn destination(frame: &[u8]) -> Option<[u8; 6]> {
    frame.first_chunk().copied()
}

/// The source MAC address of a frame.
#[inline]
pub fn source(frame: &[u8]) -> Option<[u8; 6]> {
    frame.get(SOURCE..)?.first_chunk().copied()
}
