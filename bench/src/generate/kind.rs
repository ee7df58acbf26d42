//! What a packet of a file is, for counting.

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Kind {
    /// A SYN without MPTCP.
    Syn,
    /// A SYN with MP_CAPABLE.
    CapableSyn,
    /// A SYN with MP_JOIN of a token that was taught.
    JoinSyn,
    /// The same, before the token is taught.
    EarlyJoinSyn,
    /// A SYN with MP_JOIN of a token that no packet teaches.
    UnknownJoinSyn,
    /// A SYN with MP_JOIN of a token that was claimed and not taught.
    ForgedJoinSyn,
    /// A SYN with options that are wrong.
    MalformedSyn,
    /// The third packet of a handshake without MPTCP.
    HandshakeAck,
    /// The third packet, with both keys: teaches a token.
    ThirdAck,
    /// A third packet that teaches nothing.
    ForgedAck,
    /// An ACK with options that are wrong.
    MalformedAck,
    /// The last packet of a join's handshake.
    JoinAck,
    /// The same with a wrong HMAC.
    ForgedJoinAck,
    /// The client's first data.
    FirstData,
    /// Data.
    Data,
    /// An acknowledgment.
    Ack,
    /// ADD_ADDR.
    AddAddr,
    /// ADD_ADDR echoed.
    AddAddrEcho,
    /// REMOVE_ADDR.
    RemoveAddr,
    /// MP_PRIO.
    Prio,
    /// DATA_FIN.
    DataFin,
    /// FIN.
    Fin,
    /// MP_FASTCLOSE.
    Fastclose,
    /// RST without MPTCP.
    Rst,
    /// A datagram.
    Datagram,
    /// ICMP: packet too big, or fragmentation needed.
    TooBig,
    /// ICMP: destination unreachable.
    Unreachable,
    /// ICMP: time exceeded.
    TimeExceeded,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Self; 28] = [
        Self::Syn,
        Self::CapableSyn,
        Self::JoinSyn,
        Self::EarlyJoinSyn,
        Self::UnknownJoinSyn,
        Self::ForgedJoinSyn,
        Self::MalformedSyn,
        Self::HandshakeAck,
        Self::ThirdAck,
        Self::ForgedAck,
        Self::MalformedAck,
        Self::JoinAck,
        Self::ForgedJoinAck,
        Self::FirstData,
        Self::Data,
        Self::Ack,
        Self::AddAddr,
        Self::AddAddrEcho,
        Self::RemoveAddr,
        Self::Prio,
        Self::DataFin,
        Self::Fin,
        Self::Fastclose,
        Self::Rst,
        Self::Datagram,
        Self::TooBig,
        Self::Unreachable,
        Self::TimeExceeded,
    ];

    /// Its name in a summary.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::CapableSyn => "capable_syn",
            Self::JoinSyn => "join_syn",
            Self::EarlyJoinSyn => "early_join_syn",
            Self::UnknownJoinSyn => "unknown_join_syn",
            Self::ForgedJoinSyn => "forged_join_syn",
            Self::MalformedSyn => "malformed_syn",
            Self::HandshakeAck => "handshake_ack",
            Self::ThirdAck => "third_ack",
            Self::ForgedAck => "forged_ack",
            Self::MalformedAck => "malformed_ack",
            Self::JoinAck => "join_ack",
            Self::ForgedJoinAck => "forged_join_ack",
            Self::FirstData => "first_data",
            Self::Data => "data",
            Self::Ack => "ack",
            Self::AddAddr => "add_addr",
            Self::AddAddrEcho => "add_addr_echo",
            Self::RemoveAddr => "remove_addr",
            Self::Prio => "mp_prio",
            Self::DataFin => "data_fin",
            Self::Fin => "fin",
            Self::Fastclose => "fastclose",
            Self::Rst => "rst",
            Self::Datagram => "datagram",
            Self::TooBig => "icmp_too_big",
            Self::Unreachable => "icmp_unreachable",
            Self::TimeExceeded => "icmp_time_exceeded",
        }
    }
}

/// How many packets of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts([u64; Kind::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Kind::ALL.len()])
    }
}

impl Counts {
    /// One more of this kind.
    #[inline]
    pub fn add(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    /// How many of this kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    /// The kinds there are, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().map(|kind| (kind, self.of(kind))).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_in_the_order_they_are_counted_in() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "{}", kind.name());
        }
    }
}
