//! The stamp in a packet's last 16 bytes: when it was sent, in which trial, and as which.
//!
//! A stamp overwrites payload and nothing else: packets with less than 16 bytes of it, and those whose frame goes on
//! behind the IP packet, bear none. Checksums of TCP and UDP are then wrong; Weft forwards and does not check them.
//! Tunnels and rewritten MAC addresses leave the end of a frame where it is, so the receiver reads it there.

/// Bytes of a stamp.
pub const STAMP: usize = 16;

/// What a stamp says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The time stamp counter when the packet's burst was made.
    pub cycles: u64,
    /// Which trial: packets of an earlier one are told by it. 24 bits.
    pub trial: u32,
    /// Which packet of the trial. 40 bits.
    pub number: u64,
}

const NUMBER_BITS: u32 = 40;

impl Stamp {
    /// Writes it to the end of a frame, if that is long enough.
    #[inline]
    pub fn write(self, frame: &mut [u8]) {
        let word = u64::from(self.trial) << NUMBER_BITS | self.number & ((1 << NUMBER_BITS) - 1);
        if let Some((first, second)) = frame.last_chunk_mut::<STAMP>().map(|end| end.split_at_mut(8)) {
            first.copy_from_slice(&self.cycles.to_be_bytes());
            second.copy_from_slice(&word.to_be_bytes());
        }
    }

    /// Reads one from the end of a frame.
    #[inline]
    pub fn read(frame: &[u8]) -> Option<Self> {
        let end = frame.last_chunk::<STAMP>()?;
        let cycles = u64::from_be_bytes(*end.first_chunk()?);
        let word = u64::from_be_bytes(*end.last_chunk()?);
        let trial = u32::try_from(word >> NUMBER_BITS).unwrap_or(0);
        Some(Self { cycles, trial, number: word & ((1 << NUMBER_BITS) - 1) })
    }
}

/// Whether the last 16 bytes of a frame are payload of TCP or UDP over IPv4 or IPv6 (no extension headers, no fragment).
pub fn has_room(frame: &[u8]) -> bool {
    payload_at_end(frame).is_some_and(|length| length >= STAMP)
}

/// Length of the payload of a frame that ends where its payload does.
fn payload_at_end(frame: &[u8]) -> Option<usize> {
    let kind = frame.get(12..14)?;
    let ip = frame.get(14..)?;
    let word = |bytes: &[u8], at: usize| {
        Some(usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])))
    };
    let (protocol, header) = match kind {
        [0x08, 0x00] if word(ip, 2)? == ip.len() && word(ip, 6)? & 0x3fff == 0 => {
            (*ip.get(9)?, usize::from(ip.first()? & 0x0f) * 4)
        }
        [0x86, 0xdd] if word(ip, 4)? + 40 == ip.len() => (*ip.get(6)?, 40),
        _ => return None,
    };
    let transport = ip.get(header..)?;
    let header = match protocol {
        6 => usize::from(transport.get(12)? >> 4) * 4,
        17 => 8,
        _ => return None,
    };
    transport.len().checked_sub(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let mut frame = [7; 40];
        let stamp = Stamp { cycles: u64::MAX - 3, trial: 0xab_cdef, number: (1 << 40) - 2 };
        stamp.write(&mut frame);
        assert_eq!(Stamp::read(&frame), Some(stamp));
        assert_eq!(frame[..24], [7; 24]);
        let mut short = [7; 15];
        stamp.write(&mut short);
        assert_eq!((short, Stamp::read(&short)), ([7; 15], None));
    }

    #[test]
    fn only_payload_has_room_for_a_stamp() {
        use packet::build::packet;
        let tcp = |payload: usize| {
            packet()
                .ipv4([10, 0, 0, 1], [10, 9, 9, 9])
                .tcp(1, 2)
                .data(1, 1)
                .payload(&vec![0; payload])
                .build()
        };
        assert!(!has_room(&tcp(0)) && !has_room(&tcp(15)) && has_room(&tcp(16)));
        let mut padded = tcp(16);
        padded.push(0);
        assert!(!has_room(&padded), "the end of the frame is not the packet's");
        let six = packet().ipv6([1; 16], [2; 16]).tcp(1, 2).data(1, 1).payload(&[0; 16]).build();
        assert!(has_room(&six) && !has_room(&six[..six.len() - 1]));
        let mut fragment = tcp(64);
        fragment[20] |= 0x20;
        assert!(!has_room(&fragment));
        assert!(!has_room(&[0; 64]) && !has_room(&[]));
        for cut in 0..60 {
            let frame = tcp(40);
            assert!(!has_room(&frame[..cut]), "{cut}");
        }
    }
}
