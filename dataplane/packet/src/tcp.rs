//! The TCP header (RFC 9293 section 3.1): its place, its flags, and the fields the flow rules ask for.

/// The protocol number of TCP.
pub const PROTOCOL: u8 = 6;
/// The shortest header: no options.
pub const HEADER_LEN: usize = 20;
/// The most a header's options can take (data offset 15).
pub const OPTIONS_MAX: usize = 40;

/// The flag byte of a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Flags(pub u8);

impl Flags {
    /// The sender has no more data.
    pub const FIN: Self = Self(0x01);
    /// Opens the connection or subflow.
    pub const SYN: Self = Self(0x02);
    /// Ends it at once.
    pub const RST: Self = Self(0x04);
    /// Asks the receiver to hand the data up.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// Congestion was echoed.
    pub const ECE: Self = Self(0x40);
    /// The congestion window was reduced.
    pub const CWR: Self = Self(0x80);

    /// Both sets of flags.
    #[inline]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of the other's flags are set here.
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of the other's flags is set here.
    #[inline]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// SYN without ACK: a client opens. ECE and CWR may be set too (RFC 3168).
    #[inline]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN.0 | Self::ACK.0) == Self::SYN.0
    }

    /// SYN is set.
    #[inline]
    pub const fn syn(self) -> bool {
        self.any(Self::SYN)
    }

    /// ACK is set.
    #[inline]
    pub const fn ack(self) -> bool {
        self.any(Self::ACK)
    }

    /// RST is set.
    #[inline]
    pub const fn rst(self) -> bool {
        self.any(Self::RST)
    }

    /// FIN is set.
    #[inline]
    pub const fn fin(self) -> bool {
        self.any(Self::FIN)
    }
}

/// What [`crate::parse`] takes from a TCP header; all zero for other packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// The sequence number.
    pub seq: u32,
    /// The acknowledgment number.
    pub ack: u32,
    /// The flags.
    pub flags: Flags,
    /// Where the options begin and end in the frame.
    pub options: (u16, u16),
}
