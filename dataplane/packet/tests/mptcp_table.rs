//! Every form of every MPTCP option as a table of bytes: those of the RFCs' figures, those seen in real traffic
//! of Linux, and those that are wrong by one thing.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use packet::{
    AddAddr, Address, Capable, CapableFlags, DataSequence, Dss, Family, Flags, Join, Key, Kind, Malformed,
    Mapping, MpPrio, Options, RemoveAddr, ResetReason, TcpRst, Token, Version, options, parse,
};

const SYN: Flags = Flags::SYN;
const SYN_ACK: Flags = Flags::SYN.with(Flags::ACK);
const ACK: Flags = Flags::ACK;
const RST: Flags = Flags::RST.with(Flags::ACK);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn key(text: &str) -> Key {
    Key(hex(text).try_into().unwrap())
}

fn read(text: &str, flags: Flags, payload: bool) -> Options {
    options(&hex(text), flags, payload)
}

fn ack(
    version: Version,
    sender: &str,
    receiver: &str,
    data_len: Option<u16>,
    checksum: Option<u16>,
) -> Capable {
    let flags = CapableFlags(if checksum.is_some() { 0x81 } else { 0x01 });
    Capable::Ack { version, flags, sender: key(sender), receiver: key(receiver), data_len, checksum }
}

#[test]
fn mp_capable_is_read_in_every_form_of_version_1() {
    let (a, b) = ("b713e0cc8e2556a5", "d1fc9be2b87d2fa3");
    let (c, d) = ("3f64e4ccdb1c1126", "c9da887e261c902f");
    let hmac = CapableFlags::HMAC;
    for (bytes, flags, payload, expected) in [
        ("1e040101", SYN, false, Capable::Syn { version: Version::V1, flags: hmac, sender: None }),
        // With data, as Fast Open sends it.
        ("1e040101", SYN, true, Capable::Syn { version: Version::V1, flags: hmac, sender: None }),
        (
            "1e040181",
            SYN,
            false,
            Capable::Syn { version: Version::V1, flags: CapableFlags(0x81), sender: None },
        ),
        (
            "1e040121",
            SYN,
            false,
            Capable::Syn { version: Version::V1, flags: CapableFlags(0x21), sender: None },
        ),
        // Future versions are answered as version 1.
        ("1e040201", SYN, false, Capable::Syn { version: Version::V1, flags: hmac, sender: None }),
        ("1e040f01", SYN, false, Capable::Syn { version: Version::V1, flags: hmac, sender: None }),
        (
            "1e0c0101d1fc9be2b87d2fa3",
            SYN_ACK,
            false,
            Capable::SynAck { version: Version::V1, flags: hmac, sender: key(b) },
        ),
        (
            "1e0c0181c9da887e261c902f",
            SYN_ACK,
            false,
            Capable::SynAck { version: Version::V1, flags: CapableFlags(0x81), sender: key(d) },
        ),
        (
            "1e0c0121804483994944c494",
            SYN_ACK,
            false,
            Capable::SynAck {
                version: Version::V1,
                flags: CapableFlags(0x21),
                sender: key("804483994944c494"),
            },
        ),
        ("1e140101b713e0cc8e2556a5d1fc9be2b87d2fa3", ACK, false, ack(Version::V1, a, b, None, None)),
        ("1e160101b713e0cc8e2556a5d1fc9be2b87d2fa30014", ACK, true, ack(Version::V1, a, b, Some(20), None)),
        (
            "1e1801813f64e4ccdb1c1126c9da887e261c902f00149cde",
            ACK.with(Flags::PSH),
            true,
            ack(Version::V1, c, d, Some(20), Some(0x9cde)),
        ),
        (
            "1e1401013cb8f11b3e247505ef24c8aad5f923e2",
            ACK,
            false,
            ack(Version::V1, "3cb8f11b3e247505", "ef24c8aad5f923e2", None, None),
        ),
    ] {
        let options = read(bytes, flags, payload);
        assert_eq!(options.capable, Some(expected), "{bytes}");
        assert_eq!((options.malformed, options.mptcp), (None, true), "{bytes}");
    }
    let third = read("1e1401813f64e4ccdb1c1126c9da887e261c902f", ACK, false);
    assert!(matches!(third.capable, Some(Capable::Ack { flags: CapableFlags(0x81), checksum: None, .. })));
}

#[test]
fn mp_capable_is_read_in_every_form_of_version_0() {
    let (a, b) = ("0102030405060708", "1122334455667788");
    let flags = CapableFlags::HMAC;
    let third = "1e14000101020304050607081122334455667788";
    for (bytes, tcp, payload, expected) in [
        (
            "1e0c00010102030405060708",
            SYN,
            false,
            Capable::Syn { version: Version::V0, flags, sender: Some(key(a)) },
        ),
        (
            "1e0c00011122334455667788",
            SYN_ACK,
            false,
            Capable::SynAck { version: Version::V0, flags, sender: key(b) },
        ),
        (third, ACK, false, ack(Version::V0, a, b, None, None)),
        // Version 0 has no other form for the first data.
        (third, ACK, true, ack(Version::V0, a, b, None, None)),
    ] {
        let options = read(bytes, tcp, payload);
        assert_eq!((options.capable, options.malformed), (Some(expected), None), "{bytes}");
    }
}

#[test]
fn mp_capable_that_is_wrong_by_one_thing_does_not_count() {
    let keys = "b713e0cc8e2556a5d1fc9be2b87d2fa3";
    let length = Some(Malformed::MptcpLength);
    let flag = Some(Malformed::MptcpFlags);
    for (bytes, tcp, payload, cause) in [
        // The odd SYNs that Linux answers with plain TCP.
        ("1e040001", SYN, false, length),
        ("1e0c01010102030405060708", SYN, false, length),
        ("1e040100", SYN, false, flag),
        ("1e040141", SYN, false, flag),
        ("1e040103", SYN, false, flag),
        ("1e040109", SYN, false, flag),
        ("1e0c00000102030405060708", SYN, false, flag),
        ("1e0c00410102030405060708", SYN, false, flag),
        ("1e05010101", SYN, false, length),
        ("1e0301", SYN, false, length),
        ("1e02", SYN, false, length),
        // A SYN's form elsewhere, and the reverse.
        ("1e040101", ACK, false, length),
        ("1e040101", SYN_ACK, false, length),
        (&format!("1e140101{keys}"), SYN, false, length),
        (&format!("1e140101{keys}"), SYN_ACK, false, length),
        (&format!("1e140101{keys}"), Flags::default(), false, flag),
        (&format!("1e140101{keys}"), RST, false, flag),
        ("1e040101", SYN.with(Flags::RST), false, flag),
        // Payload and length that do not go together.
        (&format!("1e140101{keys}"), ACK, true, length),
        (&format!("1e160101{keys}0014"), ACK, false, length),
        (&format!("1e180181{keys}00149cde"), ACK, false, length),
        (&format!("1e150101{keys}00"), ACK, true, length),
        (&format!("1e160001{keys}0014"), ACK, true, length),
        // Versions and flags after the SYN are exact.
        (&format!("1e140201{keys}"), ACK, false, flag),
        ("1e0c0201d1fc9be2b87d2fa3", SYN_ACK, false, flag),
        (&format!("1e140100{keys}"), ACK, false, flag),
        (&format!("1e140141{keys}"), ACK, false, flag),
    ] {
        let options = read(bytes, tcp, payload);
        assert_eq!((options.capable, options.malformed), (None, cause), "{bytes}");
    }
}

#[test]
fn mp_join_is_read_in_its_three_forms() {
    for (bytes, flags, expected) in [
        (
            "1e0c1001913e6c210e6642a6",
            SYN,
            Join::Syn { token: Token(0x913e_6c21), nonce: 0x0e66_42a6, address_id: 1, backup: false },
        ),
        (
            "1e0c1001f5685e7b70c73674",
            SYN.with(Flags::ECE).with(Flags::CWR),
            Join::Syn { token: Token(0xf568_5e7b), nonce: 0x70c7_3674, address_id: 1, backup: false },
        ),
        (
            "1e0c11006bbba32eb8dfa109",
            SYN,
            Join::Syn { token: Token(0x6bbb_a32e), nonce: 0xb8df_a109, address_id: 0, backup: true },
        ),
        (
            "1e1010002ed4467f41dee4ebbc2cccb5",
            SYN_ACK,
            Join::SynAck {
                hmac: 0x2ed4_467f_41de_e4eb_u64.to_be_bytes(),
                nonce: 0xbc2c_ccb5,
                address_id: 0,
                backup: false,
            },
        ),
        (
            "1e181000e05fb0e763ce8619e136df8a405112c804e3f74d",
            ACK,
            Join::Ack { hmac: hex("e05fb0e763ce8619e136df8a405112c804e3f74d").try_into().unwrap() },
        ),
    ] {
        let options = read(bytes, flags, false);
        assert_eq!((options.join, options.malformed), (Some(expected), None), "{bytes}");
        // Data on the packet makes no difference.
        assert_eq!(read(bytes, flags, true).join, Some(expected));
    }
}

#[test]
fn mp_join_of_another_length_or_on_another_packet_does_not_count() {
    for (bytes, flags, cause) in [
        ("1e101001913e6c210e6642a600000000", SYN, Malformed::MptcpLength),
        ("1e0b1001913e6c210e6642", SYN, Malformed::MptcpLength),
        ("1e0c1001913e6c210e6642a6", SYN_ACK, Malformed::MptcpLength),
        ("1e0c1001913e6c210e6642a6", ACK, Malformed::MptcpLength),
        ("1e181000e05fb0e763ce8619e136df8a405112c804e3f74d", SYN, Malformed::MptcpLength),
        ("1e181000e05fb0e763ce8619e136df8a405112c804e3f74d", Flags::PSH, Malformed::MptcpFlags),
        ("1e0c1001913e6c210e6642a6", SYN.with(Flags::RST), Malformed::MptcpFlags),
    ] {
        let options = read(bytes, flags, false);
        assert_eq!((options.join, options.malformed), (None, Some(cause)), "{bytes}");
    }
}

#[test]
fn mp_capable_and_mp_join_together_are_neither_in_either_order() {
    for bytes in ["1e0401011e0c1001913e6c210e6642a6", "1e0c1001913e6c210e6642a61e040101"] {
        let options = read(bytes, SYN, false);
        assert_eq!((options.capable, options.join), (None, None));
        assert_eq!(options.malformed, Some(Malformed::CapableAndJoin));
        assert!(options.mptcp);
    }
    // A wrong MP_CAPABLE is none, so the MP_JOIN beside it stands.
    let options = read("1e0401001e0c1001913e6c210e6642a6", SYN, false);
    assert!(options.join.is_some());
    assert_eq!(options.malformed, Some(Malformed::MptcpFlags));
}

#[test]
fn of_two_mp_capable_the_first_counts() {
    let options = read("1e0401011e040181", SYN, false);
    let flags = CapableFlags::HMAC;
    assert_eq!(options.capable, Some(Capable::Syn { version: Version::V1, flags, sender: None }));
    assert_eq!(options.malformed, None);
}

#[test]
fn dss_is_read_at_each_of_its_lengths() {
    let (short, long) = (DataSequence::Short(0x0102_0304), DataSequence::Long(0x1112_1314_1516_1718));
    let acks = [(None, 0x00, ""), (Some(short), 0x01, "01020304"), (Some(long), 0x03, "1112131415161718")];
    let maps = [(short, 0x04, "01020304"), (long, 0x0c, "1112131415161718")];
    let mut lengths = Vec::new();
    for (data_ack, ack_bits, ack_bytes) in acks {
        for (sequence, map_bits, map_bytes) in maps {
            for checksum in [None, Some(0x9cde)] {
                let bits = ack_bits | map_bits;
                let sum = if checksum.is_some() { "9cde" } else { "" };
                let body = format!("{bits:02x}{ack_bytes}{map_bytes}000000070014{sum}");
                let len = 3 + body.len() / 2;
                lengths.push(len);
                let options = read(&format!("1e{len:02x}20{body}"), ACK, true);
                let mapping = Mapping { sequence, subflow_sequence: 7, len: 20, checksum };
                let expected = Dss { data_fin: false, data_ack, mapping: Some(mapping) };
                assert_eq!((options.dss, options.malformed), (Some(expected), None));
                // One byte more or less fits nothing.
                for wrong in
                    [format!("1e{:02x}20{body}00", len + 1), format!("1e{:02x}20{}", len - 1, &body[2..])]
                {
                    assert_eq!(read(&wrong, ACK, true).malformed, Some(Malformed::MptcpLength), "{wrong}");
                }
            }
        }
    }
    assert_eq!(lengths, [14, 16, 18, 20, 18, 20, 22, 24, 22, 24, 26, 28]);
    for (bytes, data_ack) in [
        ("1e08200101020304", short),
        ("1e0c20031112131415161718", long),
        ("1e0c200315f566e8ef5ac260", DataSequence::Long(0x15f5_66e8_ef5a_c260)),
    ] {
        let expected = Dss { data_fin: false, data_ack: Some(data_ack), mapping: None };
        assert_eq!(read(bytes, ACK, false).dss, Some(expected));
    }
}

#[test]
fn dss_from_real_traffic_is_read() {
    let long = DataSequence::Long;
    let first = read("1e16200de742cdb291a336cd810dedc7000000010014", ACK, true);
    assert_eq!(
        first.dss,
        Some(Dss {
            data_fin: false,
            data_ack: Some(DataSequence::Short(0xe742_cdb2)),
            mapping: Some(Mapping {
                sequence: long(0x91a3_36cd_810d_edc7),
                subflow_sequence: 1,
                len: 20,
                checksum: None
            }),
        })
    );
    let mapping = Mapping { sequence: long(2), subflow_sequence: 0, len: 1, checksum: None };
    for (bytes, data_ack) in [
        ("1e1a201f00000000000000010000000000000002000000000001", long(1)),
        ("1e16201d000000010000000000000002000000000001", DataSequence::Short(1)),
    ] {
        let expected = Dss { data_fin: true, data_ack: Some(data_ack), mapping: Some(mapping) };
        assert_eq!(read(bytes, ACK, false).dss, Some(expected), "{bytes}");
    }
    // DATA_FIN without a mapping says nothing.
    assert_eq!(read("1e08201101020304", ACK, false).dss.map(|dss| dss.data_fin), Some(false));
    // Neither acknowledgment nor mapping.
    assert_eq!(
        read("1e042000", ACK, false).dss,
        Some(Dss { data_fin: false, data_ack: None, mapping: None })
    );
    // A checksum without a mapping fits nothing.
    assert_eq!(read("1e0a2001010203049cde", ACK, false).malformed, Some(Malformed::MptcpLength));
}

#[test]
fn add_addr_is_told_apart_by_nibble_and_length() {
    let v4 = Address::from_v4([192, 0, 2, 1]);
    let v6 = Address::from_v6(hex("20010db8000000000000000000000001").try_into().unwrap());
    let base = AddAddr {
        version: Version::V1,
        echo: false,
        address_id: 5,
        address: v4,
        family: Family::V4,
        port: None,
        hmac: None,
    };
    let hmac = |text: &str| Some(hex(text).try_into().unwrap());
    let real = Address::from_v4([10, 77, 1, 1]);
    let six = AddAddr { address: v6, family: Family::V6, address_id: 6, ..base };
    let v6_text = "20010db8000000000000000000000001";
    for (bytes, expected) in [
        ("1e103005c0000201e8e331891d7ba497".into(), AddAddr { hmac: hmac("e8e331891d7ba497"), ..base }),
        (
            "1e123005c000020120fbbb1465c49fb0a091".into(),
            AddAddr { hmac: hmac("bb1465c49fb0a091"), port: Some(8443), ..base },
        ),
        (format!("1e1c3006{v6_text}63f96cbb97a38fa8"), AddAddr { hmac: hmac("63f96cbb97a38fa8"), ..six }),
        (
            format!("1e1e3006{v6_text}20fb63f96cbb97a38fa8"),
            AddAddr { hmac: hmac("63f96cbb97a38fa8"), port: Some(8443), ..six },
        ),
        ("1e083105c0000201".into(), AddAddr { echo: true, ..base }),
        ("1e0a3105c000020120fb".into(), AddAddr { echo: true, port: Some(8443), ..base }),
        (format!("1e143106{v6_text}"), AddAddr { echo: true, ..six }),
        (format!("1e163106{v6_text}20fb"), AddAddr { echo: true, port: Some(8443), ..six }),
        ("1e083405c0000201".into(), AddAddr { version: Version::V0, ..base }),
        ("1e0a3405c000020120fb".into(), AddAddr { version: Version::V0, port: Some(8443), ..base }),
        (format!("1e143606{v6_text}"), AddAddr { version: Version::V0, ..six }),
        (format!("1e163606{v6_text}20fb"), AddAddr { version: Version::V0, port: Some(8443), ..six }),
        (
            "1e1230010a4d010122c5f7e2c00bf8e6fc1b".into(),
            AddAddr {
                address_id: 1,
                address: real,
                port: Some(8901),
                hmac: hmac("f7e2c00bf8e6fc1b"),
                ..base
            },
        ),
        (
            "1e0a31010a4d010122c5".into(),
            AddAddr { echo: true, address_id: 1, address: real, port: Some(8901), ..base },
        ),
    ] {
        let options = read(&bytes, ACK, false);
        assert_eq!((options.add_addr, options.malformed), (Some(expected), None), "{bytes}");
    }
    for wrong in
        ["1e083005c0000201", "1e103105c0000201e8e331891d7ba497", "1e093105c000020100", "1e083605c0000201"]
    {
        let options = read(wrong, ACK, false);
        assert_eq!((options.add_addr, options.malformed), (None, Some(Malformed::MptcpLength)), "{wrong}");
    }
}

#[test]
fn the_small_options_are_read() {
    assert_eq!(read("1e044001", ACK, false).remove_addr, RemoveAddr::new(&[1]));
    let eight = read("1e0b400102030405060708", ACK, false).remove_addr.unwrap();
    assert_eq!(eight.ids(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(read("1e0351", ACK, false).mp_prio, Some(MpPrio { backup: true, address_id: None }));
    assert_eq!(read("1e045009", ACK, false).mp_prio, Some(MpPrio { backup: false, address_id: Some(9) }));
    assert_eq!(read("1e0c60000000000000000102", ACK, false).mp_fail, Some(0x102));
    let fastclose = read("1e0c7000d1fc9be2b87d2fa31e048000", RST, false);
    assert_eq!(fastclose.fastclose, Some(key("d1fc9be2b87d2fa3")));
    assert_eq!(fastclose.tcprst, Some(TcpRst { transient: false, reason: ResetReason::UNSPECIFIED }));
    assert_eq!(
        read("1e048103", RST, false).tcprst,
        Some(TcpRst { transient: true, reason: ResetReason::PROHIBITED })
    );
    assert_eq!(
        read("1e048001", RST, false).tcprst,
        Some(TcpRst { transient: false, reason: ResetReason::MPTCP })
    );
    assert!(read("1e07f0deadbeef", ACK, false).experimental);
    assert!(read("1e03f0", ACK, false).experimental);
    // Unassigned: MPTCP, but nothing that is understood.
    let unassigned = read("1e0c900011223344556677aa", ACK, false);
    assert_eq!(unassigned, Options { mptcp: true, ..Options::default() });
}

#[test]
fn the_small_options_of_another_length_do_not_count() {
    for (bytes, flags, cause) in [
        ("1e0340", ACK, Malformed::MptcpLength),
        ("1e0c40010203040506070809", ACK, Malformed::MptcpLength),
        ("1e05500102", ACK, Malformed::MptcpLength),
        ("1e0b600000000000000001", ACK, Malformed::MptcpLength),
        ("1e0d7000d1fc9be2b87d2fa300", ACK, Malformed::MptcpLength),
        ("1e0380", RST, Malformed::MptcpLength),
        ("1e05800000", RST, Malformed::MptcpLength),
        // Only a RST has a reason.
        ("1e048001", ACK, Malformed::MptcpFlags),
    ] {
        let options = read(bytes, flags, false);
        let expected = Options { mptcp: true, malformed: Some(cause), ..Options::default() };
        assert_eq!(options, expected, "{bytes}");
    }
}

#[test]
fn the_walk_stops_where_linux_stops() {
    let capable = "1e040101";
    for (before, after, seen, malformed) in [
        ("", "", true, None),
        ("0101", "", true, None),
        ("020405b40402080a5dbbae39000000000103030a", "", true, None),
        // End of list.
        ("00", "", false, None),
        ("", "00ffff", true, None),
        // Length 0, length 1, length past the end, no length at all.
        ("0200", "", false, Some(Malformed::Option)),
        ("0201", "", false, Some(Malformed::Option)),
        ("02ff", "", false, Some(Malformed::Option)),
        ("1e00", "", false, Some(Malformed::Option)),
        ("", "02", true, Some(Malformed::Option)),
        ("", "1e", true, Some(Malformed::Option)),
        ("", "0203", true, Some(Malformed::Option)),
        // An unknown kind of length 2 is passed over.
        ("fd02", "fd02", true, None),
    ] {
        let options = read(&format!("{before}{capable}{after}"), SYN, false);
        assert_eq!((options.capable.is_some(), options.malformed), (seen, malformed), "{before} {after}");
    }
    assert_eq!(options(&[], SYN, false), Options::default());
}

#[test]
fn the_walk_never_goes_past_forty_bytes() {
    let mut bytes = vec![1; 40];
    bytes.extend(hex("1e040101"));
    assert_eq!(options(&bytes, SYN, false), Options::default());
}

/// Whole packets of Linux 6.18, IPv4 header on, without the data that followed.
#[test]
fn whole_packets_of_linux_are_read() {
    let ethernet = "020000000201 020000000101 0800";
    let packets = [
        (
            "450000402fa640004006f4750a4d01020a4d0101b2c4138c3c89c7be00000000b002faf016cf0000020405b40402080a5dbbae39000000000103030a1e040101",
            SYN,
            0,
        ),
        (
            "450000482fa740004006f46c0a4d01020a4d0101b2c4138c3c89c7bf937def7ad010003f16d700000101080a5dbbae391d8d4e2a1e140101b713e0cc8e2556a5d1fc9be2b87d2fa3",
            ACK,
            0,
        ),
        (
            "450000602fa840004006f4530a4d01020a4d0101b2c4138c3c89c7bf937def7ae018003f16ef00000101080a5dbbb0351d8d4e2a1e160101b713e0cc8e2556a5d1fc9be2b87d2fa300140101",
            ACK.with(Flags::PSH),
            20,
        ),
        (
            "450000483a3340004006e8e00a4d02020a4d0101ab2f138ccaa6861800000000d002faf017d70000020405b40402080a028ed238000000000103030a1e0c1001913e6c210e6642a6",
            SYN,
            0,
        ),
        (
            "4500004c3a3440004006e8db0a4d02020a4d0101ab2f138ccaa68619cc109d89e010003f17db00000101080a028ed23862d8db7f1e181000e05fb0e763ce8619e136df8a405112c804e3f74d",
            ACK,
            0,
        ),
    ];
    let mut seen = Vec::new();
    for (text, flags, data) in packets {
        let mut frame = hex(ethernet);
        frame.extend(hex(text));
        frame.extend(vec![b'C'; data]);
        let parsed = parse(&frame, frame.len());
        assert_eq!((parsed.kind, parsed.tcp.flags), (Kind::Tcp, flags));
        assert_eq!(parsed.flow.destination, Address::from_v4([10, 77, 1, 1]));
        assert_eq!(parsed.flow.destination_port, 5004);
        assert_eq!(usize::from(parsed.payload_len()), data);
        assert_eq!(packet::checksum::ipv4_header(&frame[14..34]), 0);
        let options = options(parsed.tcp_options(&frame), parsed.tcp.flags, data > 0);
        assert_eq!(options.malformed, None);
        seen.push(options);
    }
    let (a, b) = ("b713e0cc8e2556a5", "d1fc9be2b87d2fa3");
    assert!(matches!(seen[0].capable, Some(Capable::Syn { version: Version::V1, sender: None, .. })));
    assert_eq!(seen[1].capable, Some(ack(Version::V1, a, b, None, None)));
    assert_eq!(seen[2].capable, Some(ack(Version::V1, a, b, Some(20), None)));
    let token = Token::from_key(Version::V1, &key(b));
    assert!(matches!(seen[3].join, Some(Join::Syn { token: joined, .. }) if joined == token));
    assert!(matches!(seen[4].join, Some(Join::Ack { .. })));
}
