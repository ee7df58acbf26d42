//! Options that are wrong, and what Weft counts for each. Linux answers every one of these SYNs as plain TCP, and
//! never resets for one.

/// One way to be wrong.
#[derive(Debug)]
pub struct Case {
    /// What is wrong.
    pub name: &'static str,
    /// Option bytes of the SYN, behind Linux's own; an honest MP_CAPABLE of version 1 where there are none.
    pub syn: Option<&'static [u8]>,
    /// Option bytes of the ACK behind it, where those are wrong.
    pub ack: Option<&'static [u8]>,
    /// The counter it moves, once.
    pub counter: &'static str,
}

const fn on_syn(name: &'static str, syn: &'static [u8], counter: &'static str) -> Case {
    Case { name, syn: Some(syn), ack: None, counter }
}

const fn on_ack(name: &'static str, ack: &'static [u8], counter: &'static str) -> Case {
    Case { name, syn: None, ack: Some(ack), counter }
}

/// All of them; a file takes them in turn.
pub const CASES: &[Case] = &[
    on_syn("an option of length 0", &[30, 0, 0, 0], "option_malformed"),
    on_syn("an option that ends behind the header", &[30, 40, 1, 1], "option_malformed"),
    on_syn("MP_CAPABLE of 12 bytes in version 1", b"\x1e\x0c\x01\x01wefttraf", "mptcp_bad_length"),
    on_syn("MP_CAPABLE of 4 bytes in version 0", &[30, 4, 0x00, 0x01], "mptcp_bad_length"),
    on_syn("MP_CAPABLE without any HMAC", &[30, 4, 0x01, 0x00], "mptcp_bad_flags"),
    on_syn("MP_CAPABLE with the extensibility bit", &[30, 4, 0x01, 0x41], "mptcp_bad_flags"),
    on_syn("MP_JOIN of 16 bytes", b"\x1e\x10\x10\x01wefttraffic!", "mptcp_bad_length"),
    on_syn(
        "MP_CAPABLE and MP_JOIN at once",
        b"\x1e\x04\x01\x01\x1e\x0c\x10\x01wefttraf",
        "mptcp_capable_and_join",
    ),
    on_ack("keys of 19 bytes", b"\x1e\x13\x01\x01weftweftraftraf\x01", "mptcp_bad_length"),
    on_ack("MP_CAPABLE of an ACK without flags", b"\x1e\x14\x01\x00weftweftraftraf!", "mptcp_bad_flags"),
    on_ack("a DSS shorter than its flags say", b"\x1e\x08\x20\x03weft", "mptcp_bad_length"),
    on_ack("an MPTCP option without a subtype", &[30, 2, 1, 1], "mptcp_bad_length"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_fits_its_header_and_has_a_counter() {
        for case in CASES {
            assert!(case.syn.is_none_or(|bytes| bytes.len() <= 20), "{}", case.name);
            assert!(case.ack.is_none_or(|bytes| bytes.len() <= 28), "{}", case.name);
            assert!(case.syn.is_some() != case.ack.is_some(), "{}", case.name);
        }
    }
}
