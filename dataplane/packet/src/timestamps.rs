//! The timestamps option of TCP (RFC 7323 section 3), which a balancer reads where servers put their number into it.

use crate::tcp_option;

const KIND: u8 = 8;
const LEN: u8 = 10;

/// What a timestamps option says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// TSval: the sender's clock.
    pub value: u32,
    /// TSecr: the last timestamp that the sender had from the other side. It counts only beside ACK (section 3.2).
    pub echoed: u32,
}

/// The first timestamps option among the options of a TCP header; the walk ends where [`crate::options`]' does.
#[inline]
pub fn timestamps(bytes: &[u8]) -> Option<Timestamps> {
    match bytes {
        // As nearly every stack sends it once a connection stands (RFC 7323 appendix A).
        [1, 1, KIND, LEN, a, b, c, d, e, f, g, h, ..] => Some(Timestamps {
            value: u32::from_be_bytes([*a, *b, *c, *d]),
            echoed: u32::from_be_bytes([*e, *f, *g, *h]),
        }),
        _ => find(bytes),
    }
}

#[inline(never)]
fn find(bytes: &[u8]) -> Option<Timestamps> {
    tcp_option::each(bytes).find_map(|option| match *option.ok()? {
        [KIND, LEN, a, b, c, d, e, f, g, h] => Some(Timestamps {
            value: u32::from_be_bytes([a, b, c, d]),
            echoed: u32::from_be_bytes([e, f, g, h]),
        }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMPS: [u8; 10] = [8, 10, 0, 0, 1, 2, 0x12, 0x34, 0x50, 0x07];
    const SAID: Timestamps = Timestamps { value: 0x0102, echoed: 0x1234_5007 };

    #[test]
    fn timestamps_are_found_wherever_they_stand() {
        let places: [&[u8]; 5] = [&[], &[1, 1], &[2, 4, 5, 180, 4, 2], &[30, 4, 1, 1], &[8, 4, 0, 0]];
        for before in places {
            let bytes = [before, &STAMPS, &[1, 3, 3, 7]].concat();
            assert_eq!(timestamps(&bytes), Some(SAID), "behind {before:?}");
        }
    }

    #[test]
    fn where_the_walk_ends_or_the_option_is_cut_off_there_are_none() {
        let ends: [&[u8]; 4] = [&[0], &[30, 1], &[30, 40], &[1, 1, 0]];
        for before in ends {
            let bytes = [before, &STAMPS].concat();
            assert_eq!(timestamps(&bytes), None, "behind {before:?}");
        }
        for cut in 0..STAMPS.len() {
            assert_eq!(timestamps(&STAMPS[..cut]), None);
            assert_eq!(timestamps(&[&[1, 1], &STAMPS[..cut]].concat()), None);
        }
        // What no header can hold is not read.
        assert_eq!(timestamps(&[&[1; 31][..], &STAMPS].concat()), None);
    }
}
