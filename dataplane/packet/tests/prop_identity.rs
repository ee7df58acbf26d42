//! What is written is what is read: every MPTCP option, and every header, through the builder and back.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "support/strategy.rs"]
mod strategy;

use packet::build::packet;
use packet::{Family, Flow, Kind, Options, checksum, options, parse};
use proptest::prelude::*;
use strategy::MptcpOption;

fn expected(option: &MptcpOption) -> Options {
    let mut options = Options { mptcp: true, ..Options::default() };
    match option {
        MptcpOption::Capable(capable) => options.capable = Some(*capable),
        MptcpOption::Join(join) => options.join = Some(*join),
        MptcpOption::Dss(dss) => options.dss = Some(*dss),
        MptcpOption::AddAddr(add) => options.add_addr = Some(*add),
        MptcpOption::RemoveAddr(remove) => options.remove_addr = Some(*remove),
        MptcpOption::MpPrio(prio) => options.mp_prio = Some(*prio),
        MptcpOption::MpFail(sequence) => options.mp_fail = Some(*sequence),
        MptcpOption::Fastclose(key) => options.fastclose = Some(*key),
        MptcpOption::TcpRst(reset) => options.tcprst = Some(*reset),
    }
    options
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_option_written_is_the_option_read(option in strategy::option(), timestamps: bool, seq: u32, ack: u32) {
        let (flags, data) = option.context();
        let mut packet = packet().tcp(1, 2).flags(flags).seq(seq).ack(ack);
        packet = packet.payload(if data { b"data" } else { b"" });
        // With the handshake's other options there is no room for the longest of them, as in life.
        let long = matches!(option, MptcpOption::AddAddr(add) if add.hmac.is_some() && add.port.is_some());
        if timestamps && !long {
            packet = packet.timestamps(7, 8);
        }
        let frame = option.put(packet).build();
        let parsed = parse(&frame, frame.len());
        prop_assert_eq!(parsed.kind, Kind::Tcp);
        prop_assert_eq!((parsed.tcp.seq, parsed.tcp.ack, parsed.tcp.flags), (seq, ack, flags));
        prop_assert_eq!(parsed.payload_len() > 0, data);
        let read = options(parsed.tcp_options(&frame), flags, data);
        prop_assert_eq!(read, expected(&option));
    }

    #[test]
    fn a_flow_written_is_the_flow_read(
        source: u128, destination: u128, ports: (u16, u16), udp: bool, v6: bool,
    ) {
        let mut flow = Flow {
            source: packet::Address(source),
            destination: packet::Address(destination),
            source_port: ports.0,
            destination_port: ports.1,
            protocol: if udp { 17 } else { 6 },
            family: if v6 { Family::V6 } else { Family::V4 },
        };
        if !v6 {
            flow.source = packet::Address::from_v4(flow.source.v4_octets());
            flow.destination = packet::Address::from_v4(flow.destination.v4_octets());
        }
        let frame = packet().flow(&flow).build();
        prop_assert_eq!(parse(&frame, frame.len()).flow, flow);
    }

    #[test]
    fn every_checksum_written_is_right(packet in strategy::packet()) {
        let frame = packet.build();
        let parsed = parse(&frame, frame.len());
        let (l3, l4, end) = (usize::from(parsed.l3), usize::from(parsed.l4), usize::from(parsed.end));
        if parsed.flow.family == Family::V4 {
            prop_assert_eq!(checksum::ipv4_header(&frame[l3..l4]), 0);
        }
        let sum = match parsed.kind {
            Kind::Icmp4 { .. } => checksum::ipv4_header(&frame[l4..end]),
            _ => checksum::transport(&parsed.flow, &frame[l4..end]),
        };
        prop_assert_eq!(sum, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_fragments_of_a_datagram_have_one_flow_without_ports_and_make_it_whole(
        ports: (u16, u16), payload in prop::collection::vec(any::<u8>(), 0..6000), mtu in 128..1500_usize, v6: bool,
    ) {
        let packet = packet().udp(ports.0, ports.1).payload(&payload).identification(9);
        let packet = if v6 { packet.ipv6([1; 16], [2; 16]).vlan(3) } else { packet };
        let datagram = packet.build();
        let whole = parse(&datagram, datagram.len());
        let mut bytes = Vec::new();
        let frames = packet.build_fragments(mtu);
        for (index, frame) in frames.iter().enumerate() {
            let parsed = parse(frame, frame.len());
            prop_assert!(usize::from(parsed.packet_len()) <= mtu);
            if frames.len() == 1 {
                // An atomic fragment, or no fragment at all.
                prop_assert_eq!((parsed.kind, parsed.flow), (Kind::Udp, whole.flow));
            } else {
                prop_assert_eq!(parsed.kind, Kind::UdpFragment { first: index == 0 });
                prop_assert_eq!(parsed.flow, Flow { source_port: 0, destination_port: 0, ..whole.flow });
            }
            bytes.extend_from_slice(&frame[usize::from(parsed.l4)..usize::from(parsed.end)]);
        }
        prop_assert_eq!(&bytes[..], &datagram[usize::from(whole.l4)..usize::from(whole.end)]);
    }
}

#[test]
fn the_builders_data_checksum_is_that_of_real_traffic() {
    // Linux 6.18 with net.mptcp.checksum_enabled=1.
    let sum = packet::build::dss_checksum(0x70e0_67f3_9f06_4a91, 1, 20, &[b'C'; 20]);
    assert_eq!(sum, 0x9cde);
    let (sender, receiver) = (0x3f64_e4cc_db1c_1126_u64, 0xc9da_887e_261c_902f_u64);
    let frame = packet()
        .tcp(1, 2)
        .data(1, 1)
        .mp_capable_data_checksum(
            packet::Key(sender.to_be_bytes()),
            packet::Key(receiver.to_be_bytes()),
            &[b'C'; 20],
        )
        .build();
    let parsed = parse(&frame, frame.len());
    let expected: Vec<u8> = [0x1e18_0181_3f64_e4cc_u64, 0xdb1c_1126_c9da_887e, 0x261c_902f_0014_9cde]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
    assert_eq!(parsed.tcp_options(&frame)[12..], expected);
}

#[test]
fn a_syn_and_a_third_ack_have_linuxs_option_bytes() {
    let key = |number: u64| packet::Key(number.to_be_bytes());
    let options = |packet: packet::build::PacketBuilder| {
        let frame = packet.build();
        parse(&frame, frame.len()).tcp_options(&frame).to_vec()
    };
    let syn = options(packet().tcp(1, 2).syn(1).timestamps(0x5dbb_ae39, 0).mp_capable_syn_v1());
    let head = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0x5d, 0xbb, 0xae, 0x39, 0, 0, 0, 0, 1, 3, 3, 10];
    assert_eq!(syn[..20], head);
    assert_eq!(syn[20..], [0x1e, 4, 1, 1]);
    let data = packet().tcp(1, 2).data(1, 1).mp_capable_data(key(1), key(2), b"0123456789");
    let data = options(data);
    assert_eq!(data[..4], [1, 1, 8, 10]);
    assert_eq!(data[12..16], [0x1e, 22, 1, 1]);
    assert_eq!(data[32..], [0, 10, 1, 1]);
}
