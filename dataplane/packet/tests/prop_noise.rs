//! Noise, and real packets with noise in them, never make the parser panic or contradict itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

#[path = "support/check.rs"]
mod check;
#[path = "support/strategy.rs"]
mod strategy;

use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_as_a_frame_passes_the_checks(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        check::frame(&bytes);
    }

    #[test]
    fn noise_behind_a_known_ethernet_type_passes_the_checks(
        mut bytes in prop::collection::vec(any::<u8>(), 14..256),
        ethertype in prop::sample::select(vec![0x0800_u16, 0x86dd, 0x0806, 0x8100, 0x88a8]),
    ) {
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        check::frame(&bytes);
    }

    #[test]
    fn a_packet_with_some_bytes_changed_or_cut_passes_the_checks(
        bytes in strategy::damaged(),
    ) {
        check::frame(&bytes);
    }

    #[test]
    fn an_error_that_quotes_a_packet_with_some_bytes_changed_or_cut_passes_the_checks(
        packet in strategy::packet(),
        quoted in strategy::packet(),
        message in prop::sample::select(vec![(3_u8, 4_u8), (3, 1), (11, 0), (12, 0), (1, 4), (2, 0), (4, 1), (5, 0)]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut quote = quoted.build_ip();
        for (at, byte) in changes {
            let at = at.index(quote.len());
            quote[at] = byte;
        }
        quote.truncate(cut.index(quote.len() + 1));
        check::frame(&packet.icmp_error(message.0, message.1, 1400, &quote).build());
    }

    #[test]
    fn noise_as_options_passes_the_checks(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
        check::tcp_options(&bytes);
    }

    #[test]
    fn options_of_kind_30_with_noise_inside_pass_the_checks(
        flags in prop::sample::select(vec![0x02_u8, 0x12, 0x10, 0x18, 0x14, 0x04, 0x00]),
        payload: bool,
        subtype in 0_u8..16,
        nibble in 0_u8..16,
        body in prop::collection::vec(any::<u8>(), 0..30),
        twice: bool,
    ) {
        let mut option = vec![30, u8::try_from(body.len() + 3).unwrap(), (subtype << 4) | nibble];
        option.extend(&body);
        if twice {
            option.extend(option.clone());
        }
        let mut bytes = vec![flags, u8::from(payload)];
        bytes.extend(option);
        check::tcp_options(&bytes);
    }

    #[test]
    fn handshakes_that_nearly_state_tokens_pass_the_checks(
        flags in prop_oneof![Just(0x02_u8), Just(0x12), Just(0x10), Just(0x14), any::<u8>()],
        bits in any::<u8>(),
        before in proptest::collection::vec(any::<u8>(), 0..6),
        bit in prop_oneof![Just(0x02_u8), Just(0x03), Just(0x08), Just(0x09), any::<u8>()],
        version in prop_oneof![4 => Just(1_u8), 1 => any::<u8>()],
        (len, body) in (prop_oneof![4 => Just(0_usize), 4 => Just(4), 4 => Just(8), 4 => Just(10), 4 => Just(12), 1 => 0..14_usize], any::<[u8; 14]>()),
        behind in proptest::collection::vec(any::<u8>(), 0..16),
    ) {
        let option = [&[30, u8::try_from(4 + len).unwrap(), version, bit], &body[..len]].concat();
        check::explicit(&[&[flags, bits], &before[..], &option, &behind].concat());
        check::explicit(&[&[flags, bits], &option[..], &behind].concat());
    }
}
