//! The MPTCP options of RFC 8684 and RFC 6824, each matched on (subtype, exact length, version, SYN and ACK), as
//! strictly as Linux does.
//!
//! Length alone never tells which option or which form it is (12 is six different things), so the subtype comes
//! first. A form that does not fit is named a [`crate::Malformed`] and the packet goes on as plain TCP, which is what
//! the backend will do with it.

use crate::flow::{Address, Family};
use crate::token::{Key, Token, Version};

mod read;

pub(crate) use read::{Context, read};

/// The TCP option kind of MPTCP.
pub const KIND: u8 = 30;

/// The subtypes, RFC 8684 section 7.2.
pub mod subtype {
    /// Opens a connection.
    pub const CAPABLE: u8 = 0;
    /// Adds a subflow.
    pub const JOIN: u8 = 1;
    /// Maps data, acknowledges it, ends it.
    pub const DSS: u8 = 2;
    /// Announces an address.
    pub const ADD_ADDR: u8 = 3;
    /// Takes addresses back.
    pub const REMOVE_ADDR: u8 = 4;
    /// Changes a subflow's priority.
    pub const PRIO: u8 = 5;
    /// Falls back.
    pub const FAIL: u8 = 6;
    /// Ends the connection at once.
    pub const FASTCLOSE: u8 = 7;
    /// Says why a subflow was reset.
    pub const TCPRST: u8 = 8;
    /// Private use.
    pub const EXPERIMENTAL: u8 = 15;
}

/// The flag byte of an MP_CAPABLE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct CapableFlags(pub u8);

impl CapableFlags {
    /// H alone: HMAC-SHA256 in version 1, HMAC-SHA1 in version 0.
    pub const HMAC: Self = Self(0x01);
    /// A: DSS checksums are required.
    pub const CHECKSUM: Self = Self(0x80);
    /// B: an extension nobody defined yet.
    pub const EXTENSIBILITY: Self = Self(0x40);
    /// C: no subflows to this packet's source address and port.
    pub const NO_INITIAL_ADDRESS: Self = Self(0x20);

    /// DSS checksums are required.
    #[inline]
    pub const fn checksum(self) -> bool {
        self.0 & Self::CHECKSUM.0 != 0
    }

    /// The sender accepts no more subflows to this packet's source address and port.
    #[inline]
    pub const fn no_initial_address(self) -> bool {
        self.0 & Self::NO_INITIAL_ADDRESS.0 != 0
    }

    /// Linux: exactly H of the crypto bits D to H, and not B. Version 0 has no H-only rule, but needs H, the one
    /// algorithm there is.
    pub(crate) const fn valid(self, version: Version) -> bool {
        let crypto = match version {
            Version::V0 => self.0 & 0x01,
            Version::V1 => self.0 & 0x1f,
        };
        crypto == 0x01 && self.0 & Self::EXTENSIBILITY.0 == 0
    }
}

/// MP_CAPABLE, RFC 8684 section 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capable {
    /// On a SYN: 4 bytes in version 1, 12 in version 0.
    Syn {
        /// The version asked for; a number above 1 counts as 1, as the answer will be.
        version: Version,
        /// The flags.
        flags: CapableFlags,
        /// The client's key, in version 0.
        sender: Option<Key>,
    },
    /// On a SYN/ACK: 12 bytes.
    SynAck {
        /// The version granted.
        version: Version,
        /// The flags.
        flags: CapableFlags,
        /// The server's key.
        sender: Key,
    },
    /// On a later packet of the client: 20 bytes without payload; version 1 also 22 or 24 with payload.
    Ack {
        /// The version agreed.
        version: Version,
        /// The flags.
        flags: CapableFlags,
        /// The client's key.
        sender: Key,
        /// The server's key, as the client echoes it: the token's source.
        receiver: Key,
        /// How many bytes of data the mapping covers.
        data_len: Option<u16>,
        /// The DSS checksum.
        checksum: Option<u16>,
    },
}

/// MP_JOIN, RFC 8684 section 3.2; the same in both versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// On a SYN: 12 bytes.
    Syn {
        /// Names the connection of the host this goes to.
        token: Token,
        /// The sender's nonce.
        nonce: u32,
        /// The sender's address ID.
        address_id: u8,
        /// Use the subflow only when there is no other.
        backup: bool,
    },
    /// On a SYN/ACK: 16 bytes.
    SynAck {
        /// The leftmost 64 bits of the HMAC.
        hmac: [u8; 8],
        /// The sender's nonce.
        nonce: u32,
        /// The sender's address ID.
        address_id: u8,
        /// Use the subflow only when there is no other.
        backup: bool,
    },
    /// On the third packet: 24 bytes.
    Ack {
        /// The leftmost 160 bits of the HMAC.
        hmac: [u8; 20],
    },
}

/// A data sequence number or data acknowledgment, sent whole or as its lower half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSequence {
    /// The lower 32 bits.
    Short(u32),
    /// All 64 bits.
    Long(u64),
}

/// The mapping of a DSS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The data sequence number of the first byte.
    pub sequence: DataSequence,
    /// The subflow sequence number of the first byte, relative: the SYN is 0.
    pub subflow_sequence: u32,
    /// How many bytes; 0 is the infinite mapping of a fallback.
    pub len: u16,
    /// The checksum, where negotiated.
    pub checksum: Option<u16>,
}

/// DSS, RFC 8684 section 3.3; the same in both versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dss {
    /// The sender is done with the connection's data (counts only with a mapping, as Linux has it).
    pub data_fin: bool,
    /// The data acknowledgment.
    pub data_ack: Option<DataSequence>,
    /// The mapping.
    pub mapping: Option<Mapping>,
}

/// ADD_ADDR, RFC 8684 section 3.4.1, RFC 6824 section 3.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddAddr {
    /// The form it has.
    pub version: Version,
    /// The receiver's confirmation (version 1 only).
    pub echo: bool,
    /// The address ID.
    pub address_id: u8,
    /// The address announced.
    pub address: Address,
    /// Its family.
    pub family: Family,
    /// The port announced, if it is another.
    pub port: Option<u16>,
    /// The truncated HMAC (version 1, not an echo).
    pub hmac: Option<[u8; 8]>,
}

/// REMOVE_ADDR, RFC 8684 section 3.4.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoveAddr {
    ids: [u8; 8],
    count: u8,
}

impl RemoveAddr {
    /// Of one to eight address IDs, as many as Linux takes; `None` for another number.
    pub fn new(list: &[u8]) -> Option<Self> {
        let mut ids = [0; 8];
        ids.get_mut(..list.len())?.copy_from_slice(list);
        let count = u8::try_from(list.len()).ok().filter(|count| *count > 0)?;
        Some(Self { ids, count })
    }

    /// The address IDs taken back: one to eight.
    pub fn ids(&self) -> &[u8] {
        self.ids.get(..usize::from(self.count)).unwrap_or(&[])
    }
}

/// MP_PRIO, RFC 8684 section 3.3.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MpPrio {
    /// Use the subflow only when there is no other.
    pub backup: bool,
    /// The address it is about (version 0 only).
    pub address_id: Option<u8>,
}

/// Why a subflow was reset, RFC 8684 section 3.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct ResetReason(pub u8);

impl ResetReason {
    /// Unspecified.
    pub const UNSPECIFIED: Self = Self(0);
    /// An MPTCP-specific error; what Linux answers to an unknown token.
    pub const MPTCP: Self = Self(1);
    /// Not enough memory or the like.
    pub const RESOURCES: Self = Self(2);
    /// Forbidden by policy.
    pub const PROHIBITED: Self = Self(3);
    /// Too much outstanding data.
    pub const OUTSTANDING_DATA: Self = Self(4);
    /// Unacceptable performance.
    pub const PERFORMANCE: Self = Self(5);
    /// A middlebox interferes.
    pub const MIDDLEBOX: Self = Self(6);
}

/// MP_TCPRST, RFC 8684 section 3.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpRst {
    /// T: it may be tried again.
    pub transient: bool,
    /// Why.
    pub reason: ResetReason,
}

impl TcpRst {
    /// The option as bytes.
    pub const fn to_bytes(self) -> [u8; 4] {
        let transient = if self.transient { 1 } else { 0 };
        [KIND, 4, (subtype::TCPRST << 4) | transient, self.reason.0]
    }
}
