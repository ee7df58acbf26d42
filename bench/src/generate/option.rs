//! TCP options in the order, the sizes and the padding of a Linux client (6.18 for version 1, the out-of-tree kernel
//! of RFC 6824 for version 0), in one fixed array.

use packet::{Family, Flags, Key, Token, Version, tcp};

use super::random::low32;

const NOP: u8 = 1;
const MPTCP: u8 = 30;

/// The options of one segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    bytes: [u8; tcp::OPTIONS_MAX],
    len: usize,
}

/// A DSS: what it acknowledges, and what it maps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dss {
    pub ack: u64,
    pub map: Option<Map>,
    pub data_fin: bool,
}

/// What a DSS maps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Map {
    pub sequence: u64,
    pub subflow_sequence: u32,
    pub len: u16,
    /// The checksum over the mapping, where the connection uses them.
    pub checksum: Option<u16>,
}

impl Options {
    pub(super) const fn none() -> Self {
        Self { bytes: [NOP; tcp::OPTIONS_MAX], len: 0 }
    }

    /// The options, padded to whole words as Linux pads them: with NOPs.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.next_multiple_of(4)).unwrap_or(&self.bytes)
    }

    /// A SYN's: MSS, SACK permitted, timestamps, window scale 10. Without timestamps two NOPs stand in their place
    /// before SACK permitted.
    pub(super) fn syn(family: Family, timestamps: Option<(u32, u32)>) -> Self {
        let mut options = Self::none();
        let [high, low] = match family {
            Family::V4 => 1460_u16,
            Family::V6 => 1440,
        }
        .to_be_bytes();
        options.put([2, 4, high, low]);
        match timestamps {
            Some((value, echo)) => {
                options.put([4, 2, 8, 10]);
                options.put(value.to_be_bytes());
                options.put(echo.to_be_bytes());
            }
            None => options.put([NOP, NOP, 4, 2]),
        }
        options.put([NOP, 3, 3, 10]);
        options
    }

    /// Any other segment's: NOP, NOP, timestamps.
    pub(super) fn segment(timestamps: Option<(u32, u32)>) -> Self {
        let mut options = Self::none();
        if let Some((value, echo)) = timestamps {
            options.put([NOP, NOP, 8, 10]);
            options.put(value.to_be_bytes());
            options.put(echo.to_be_bytes());
        }
        options
    }

    #[inline]
    fn put<const N: usize>(&mut self, field: [u8; N]) {
        if let Some(place) = self.bytes.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut) {
            *place = field;
            self.len += N;
        }
    }

    /// Bytes as they are, whatever they mean.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    /// The first four bytes of an MPTCP option.
    fn head(&mut self, len: u8, subtype: u8, nibble: u8, fourth: u8) {
        self.put([MPTCP, len, (subtype << 4) | nibble, fourth]);
    }

    /// MP_CAPABLE on a SYN (RFC 8684 section 3.1): 4 bytes, in version 0 12 with the client's key.
    pub(super) fn capable_syn(&mut self, version: Version, flags: u8, client: &Key) {
        match version {
            Version::V0 => {
                self.head(12, 0, 0, flags);
                self.put(client.0);
            }
            Version::V1 => self.head(4, 0, 1, flags),
        }
    }

    /// MP_CAPABLE of the third packet: 20 bytes.
    pub(super) fn capable_ack(&mut self, version: Version, flags: u8, keys: (&Key, &Key)) {
        self.head(20, 0, version as u8, flags);
        self.put(keys.0.0);
        self.put(keys.1.0);
    }

    /// MP_CAPABLE with the first data, version 1: 22 bytes, 24 with a checksum.
    pub(super) fn capable_data(&mut self, flags: u8, keys: (&Key, &Key), len: u16, checksum: Option<u16>) {
        self.head(if checksum.is_some() { 24 } else { 22 }, 0, 1, flags);
        self.put(keys.0.0);
        self.put(keys.1.0);
        self.put(len.to_be_bytes());
        if let Some(checksum) = checksum {
            self.put(checksum.to_be_bytes());
        }
    }

    /// MP_JOIN on a SYN (RFC 8684 section 3.2): 12 bytes.
    pub(super) fn join_syn(&mut self, address_id: u8, token: Token, nonce: u32) {
        self.head(12, 1, 0, address_id);
        self.put(token.0.to_be_bytes());
        self.put(nonce.to_be_bytes());
    }

    /// MP_JOIN of the third packet: 24 bytes.
    pub(super) fn join_ack(&mut self, hmac: [u8; 20]) {
        self.head(24, 1, 0, 0);
        self.put(hmac);
    }

    /// DSS (RFC 8684 section 3.3): 64-bit numbers in version 1, as Linux writes them, 32-bit ones in version 0.
    pub(super) fn dss(&mut self, version: Version, dss: &Dss) {
        let (long, width) = match version {
            Version::V0 => (0, 4),
            Version::V1 => (0x0a, 8),
        };
        let fin = if dss.data_fin { 0x10 } else { 0 };
        let Some(map) = dss.map else {
            self.head(4 + width, 2, 0, fin | 0x01 | (long & 0x02));
            return self.sequence(version, dss.ack);
        };
        let checksum = if map.checksum.is_some() { 2 } else { 0 };
        self.head(4 + 2 * width + 6 + checksum, 2, 0, fin | 0x05 | long);
        self.sequence(version, dss.ack);
        self.sequence(version, map.sequence);
        self.put(map.subflow_sequence.to_be_bytes());
        self.put(map.len.to_be_bytes());
        if let Some(checksum) = map.checksum {
            self.put(checksum.to_be_bytes());
        }
    }

    fn sequence(&mut self, version: Version, number: u64) {
        match version {
            Version::V0 => self.put(low32(number).to_be_bytes()),
            Version::V1 => self.put(number.to_be_bytes()),
        }
    }

    /// ADD_ADDR (RFC 8684 section 3.4.1, RFC 6824 section 3.4.1) without a port: with an HMAC in version 1, and there
    /// without one where it echoes.
    pub(super) fn add_addr(&mut self, version: Version, id: u8, address: &[u8], hmac: Option<[u8; 8]>) {
        let nibble = match (version, address.len()) {
            (Version::V0, 4) => 4,
            (Version::V0, _) => 6,
            (Version::V1, _) => u8::from(hmac.is_none()),
        };
        let [.., len] = (4 + address.len() + if hmac.is_some() { 8 } else { 0 }).to_be_bytes();
        self.head(len, 3, nibble, id);
        self.raw(address);
        if let Some(hmac) = hmac {
            self.put(hmac);
        }
    }

    /// REMOVE_ADDR of one address.
    pub(super) fn remove_addr(&mut self, id: u8) {
        self.head(4, 4, 0, id);
    }

    /// MP_PRIO: 3 bytes and a NOP.
    pub(super) fn prio(&mut self, backup: bool) {
        self.head(3, 5, u8::from(backup), NOP);
    }

    /// MP_FASTCLOSE with the server's key.
    pub(super) fn fastclose(&mut self, server: &Key) {
        self.head(12, 7, 0, 0);
        self.put(server.0);
    }

    /// MP_TCPRST.
    pub(super) fn tcprst(&mut self, transient: bool, reason: u8) {
        self.head(4, 8, u8::from(transient), reason);
    }
}

/// The flags of a segment that carries so much data: a client's write ends with PSH, a full segment in the middle of
/// one does not.
pub(super) fn data_flags(data: u32, is_full: bool) -> Flags {
    if data == 0 || is_full { Flags::ACK } else { Flags::ACK.with(Flags::PSH) }
}
