//! The UDP header (RFC 768): constants for the parser and for tunnels.

/// The protocol number of UDP.
pub const PROTOCOL: u8 = 17;
/// The whole header.
pub const HEADER_LEN: usize = 8;
