//! The internet checksum (RFC 1071), whole and incremental (RFC 1624).
//!
//! A partial sum is a `u64` of 16-bit words in network order, not yet folded; partial sums over parts that begin
//! at even offsets may be added.

use crate::flow::{Family, Flow};

/// Adds the 16-bit words of these bytes; an odd last byte counts as the high half of a word.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let mut total: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
    if let [last] = rest {
        total += u64::from(u16::from_be_bytes([*last, 0]));
    }
    total
}

/// Folds a partial sum into 16 bits, end-around carries included.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "after four folds the sum fits 16 bits")]
pub const fn fold(total: u64) -> u16 {
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    total as u16
}

/// The checksum of these bytes, whose own checksum field must be zero. Over a whole correct header it is zero.
#[inline]
pub fn ipv4_header(header: &[u8]) -> u16 {
    !fold(sum(header))
}

/// The partial sum of the pseudo-header of RFC 9293 section 3.1 (IPv4) or RFC 8200 section 8.1 (IPv6).
#[inline]
pub fn pseudo_header(flow: &Flow, len: usize) -> u64 {
    let addresses = match flow.family {
        Family::V4 => sum(&flow.source.v4_octets()) + sum(&flow.destination.v4_octets()),
        Family::V6 => sum(&flow.source.v6_octets()) + sum(&flow.destination.v6_octets()),
    };
    let len = u64::try_from(len).unwrap_or(u64::MAX) & 0xffff_ffff;
    addresses + u64::from(flow.protocol) + (len >> 16) + (len & 0xffff)
}

/// The checksum of a TCP segment, UDP datagram or ICMPv6 message (by `flow.protocol`) whose own checksum field is
/// zero; with the field filled in, zero means it is right. UDP's rule that 0 is sent as 0xffff is the caller's.
#[inline]
pub fn transport(flow: &Flow, segment: &[u8]) -> u16 {
    !fold(pseudo_header(flow, segment.len()) + sum(segment))
}

/// The checksum after one of the 16-bit words it covers changed (RFC 1624 equation 3). Where all that is covered is
/// zero after the change the checksum ought to be 0xffff, and this gives 0.
#[inline]
pub const fn update16(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(!checksum as u64 + !old as u64 + new as u64)
}

/// The checksum after two adjacent 16-bit words it covers changed.
#[inline]
pub const fn update32(checksum: u16, old: u32, new: u32) -> u16 {
    !fold(!checksum as u64 + !old as u64 + new as u64)
}

/// The checksum after bytes it covers, at an even offset and of equal length, changed.
#[inline]
pub fn update(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let kept = !fold(sum(old));
    !fold(u64::from(!checksum) + u64::from(kept) + sum(new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Address;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn the_example_of_rfc_1071_folds_to_its_sum() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_does_not_become_minus_zero() {
        assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn a_real_header_sums_to_its_own_checksum() {
        let mut header =
            [0x45, 0, 0, 0x40, 0x2f, 0xa6, 0x40, 0, 0x40, 6, 0xf4, 0x75, 10, 77, 1, 2, 10, 77, 1, 1];
        assert_eq!(ipv4_header(&header), 0);
        header[10..12].fill(0);
        assert_eq!(ipv4_header(&header), 0xf475);
    }

    #[test]
    fn the_pseudo_header_is_the_familys() {
        let flow = Flow {
            source: Address::from_v4([10, 0, 0, 1]),
            destination: Address::from_v4([10, 0, 0, 2]),
            protocol: 6,
            ..Flow::default()
        };
        assert_eq!(pseudo_header(&flow, 20), 0x0a00 + 1 + 0x0a00 + 2 + 6 + 20);
        // The same value as IPv6 addresses has the mapping's words besides.
        let flow = Flow { family: Family::V6, ..flow };
        assert_eq!(pseudo_header(&flow, 20), 0x0a00 + 1 + 0x0a00 + 2 + 6 + 20 + 2 * 0xffff);
    }

    proptest! {
        #[test]
        fn an_incremental_update_equals_the_full_sum(
            mut bytes in proptest::collection::vec(any::<u8>(), 4..128),
            at: prop::sample::Index,
            new: [u8; 4],
        ) {
            // A real header is never all zero, the one case where the two forms of zero differ.
            bytes[0] |= 1;
            let before = ipv4_header(&bytes);
            let at = (at.index(bytes.len() - 3)) & !1;
            prop_assume!(at > 0);
            let old: Vec<u8> = bytes[at..at + 4].to_vec();
            bytes[at..at + 4].copy_from_slice(&new);
            let full = ipv4_header(&bytes);
            let (old32, new32) = (u32::from_be_bytes([old[0], old[1], old[2], old[3]]), u32::from_be_bytes(new));
            prop_assert_eq!(update32(before, old32, new32), full);
            prop_assert_eq!(update(before, &old, &new), full);
            let half = update16(before, u16::from_be_bytes([old[0], old[1]]), u16::from_be_bytes([new[0], new[1]]));
            let both = update16(half, u16::from_be_bytes([old[2], old[3]]), u16::from_be_bytes([new[2], new[3]]));
            prop_assert_eq!(both, full);
        }

        #[test]
        fn sums_of_parts_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut: prop::sample::Index) {
            let cut = if bytes.is_empty() { 0 } else { cut.index(bytes.len()) & !1 };
            prop_assert_eq!(sum(&bytes[..cut]) + sum(&bytes[cut..]), sum(&bytes));
        }

        #[test]
        fn folding_is_the_remainder_of_65535(total: u64) {
            // fold(x) = x mod 65535, but for the two forms of zero.
            prop_assert_eq!(u64::from(fold(total)) % 65535, total % 65535);
            prop_assert_eq!(fold(total) == 0, total == 0);
        }
    }
}
