//! TCP in fragments: what a balancer reads from the first may be overwritten by a later one at the server (RFC 1858, RFC 3128), and
//! what it does not see at all may be an option. So nothing is read from any, and nothing is forwarded.

use engine::flow_entry::FlowEntry;
use engine::flow_table::Keep;
use engine::token_entry::TokenEntry;
use ipc::counter::Counter;
use ipc::reason::Reason;
use packet::build::PacketBuilder;
use packet::{Family, Flow, Key, Version};

use crate::support::{CLIENT_KEY, Counts, FAMILIES, World, of};
use crate::{ENTRIES, ISN, connect, send_data, token, world};

const KEY: Key = Key([0x42; 8]);
const OTHER: Key = Key([0x43; 8]);

/// What a forger would like to have read, on a flow.
fn wishes(flow: &Flow) -> Vec<PacketBuilder> {
    let segment = || of(flow).data(ISN + 1, 1);
    vec![
        of(flow).syn(ISN),
        of(flow).syn(ISN).mp_capable_syn_v1(),
        of(flow).syn(ISN + 9).mp_capable_syn_v0(OTHER),
        of(flow).syn(ISN).mp_join_syn(token(KEY), 1, 1),
        segment().mp_capable_ack(Version::V1, CLIENT_KEY, OTHER),
        segment().mp_capable_data(
            CLIENT_KEY,
            OTHER,
            b"some data that is longer than its headers are, in fragments",
        ),
        segment().mp_join_ack([7; 20]),
        segment().data_fin(1, 1),
        segment().fastclose(KEY),
        of(flow).fin(ISN + 1, 1),
        of(flow).rst(ISN + 1, 1).fastclose(KEY),
    ]
}

/// A packet in fragments of so many bytes of TCP each.
fn cut(packet: &PacketBuilder, family: Family, step: usize) -> Vec<Vec<u8>> {
    let header = match family {
        Family::V4 => 20,
        Family::V6 => 48,
    };
    packet.build_fragments(header + step)
}

/// Fragments in order, in reverse, the first alone with all of its segment, and such that a later one says again, otherwise, what an
/// earlier one said.
fn ways(packet: &PacketBuilder, other: &PacketBuilder, family: Family) -> Vec<Vec<Vec<u8>>> {
    let mut ways = Vec::new();
    // What fits into one piece is whole.
    for pieces in
        [8, 16, 24, 32].map(|step| cut(packet, family, step)).into_iter().filter(|all| all.len() > 1)
    {
        ways.push(pieces.iter().rev().cloned().collect());
        ways.push(pieces);
    }
    ways.push(vec![packet.clone().fragment(0, true).build()]);
    // From the ninth byte on the other packet: ports of one, flags and options of the other, whichever a server prefers.
    let (first, rest) = (cut(packet, family, 24), cut(other, family, 8));
    let mut overlapping = first.clone();
    overlapping.extend(rest.iter().skip(1).cloned());
    ways.push(overlapping);
    ways.push(rest.into_iter().skip(1).chain(first).collect());
    ways
}

/// All entries of both tables.
fn entries(world: &World) -> (Vec<FlowEntry>, Vec<TokenEntry>) {
    let (mut flows, mut tokens) = (Vec::new(), Vec::new());
    world.tables.flows.sweep(0, world.tables.flows.lines(), |entry| {
        flows.push(*entry);
        Keep::Yes
    });
    world.tables.tokens.for_each(0, world.tables.tokens.lines(), |entry| tokens.push(*entry));
    (flows, tokens)
}

#[test]
fn no_fragment_of_tcp_is_forwarded_or_leaves_anything_in_a_table() {
    let mut world = world(4, ENTRIES);
    let mut sent = 0;
    for family in FAMILIES {
        let known = world.flow_to("b2", family, 9, 8000, 0);
        let unknown = world.flow_to("b3", family, 9, 8000, 1);
        connect(&mut world, &known, KEY, true);
        let (before, table) = (Counts::of(&world.counters.reader()), entries(&world));
        let mut here = 0;
        for flow in [known, unknown] {
            let wishes = wishes(&flow);
            let others = wishes.iter().cycle().skip(3);
            for (packet, other) in wishes.iter().zip(others) {
                for fragments in ways(packet, other, family) {
                    here += fragments.len() as u64;
                    for burst in fragments.chunks(32) {
                        let outcomes = world.burst(burst.to_vec());
                        assert!(outcomes.iter().all(|outcome| outcome.verdict.reason == Reason::TcpFragment));
                    }
                }
            }
        }
        assert_eq!(entries(&world), table, "{family:?}");
        let after = Counts::of(&world.counters.reader());
        let moved = after.moved_since(&before).into_iter().map(|(counter, _)| counter);
        assert_eq!(moved.collect::<Vec<_>>(), [Counter::RxPackets, Counter::RxBytes]);
        assert_eq!(after.reasons_since(&before), [(Reason::TcpFragment, here)]);
        assert_eq!(send_data(&mut world, &known), Some(world.id_of("b2")));
        sent += here;
    }
    println!("| {sent} fragments of TCP | all dropped, no entry of a table changed |");
    assert!(sent > 2000, "{sent}");
}

#[test]
fn fragments_among_the_packets_of_a_burst_are_dropped_and_the_others_are_not() {
    for family in FAMILIES {
        let mut world = world(4, ENTRIES);
        let flow = world.flow_to("b2", family, 9, 8000, 0);
        connect(&mut world, &flow, KEY, true);
        let data = of(&flow).data(ISN + 1, 1).dss_data(1, 1, 1, &[7; 200]);
        let (whole, fragments) = (data.build(), cut(&data, family, 16));
        let frames: Vec<Vec<u8>> =
            fragments.iter().flat_map(|fragment| [whole.clone(), fragment.clone()]).take(32).collect();
        assert!(frames.len() >= 24);
        for (nth, outcome) in world.burst(frames).into_iter().enumerate() {
            let expected = if nth % 2 == 0 { Reason::Flow } else { Reason::TcpFragment };
            assert_eq!(outcome.verdict.reason, expected, "{nth}");
        }
    }
}

#[test]
fn an_ipv6_fragment_header_that_fragments_nothing_hides_nothing() {
    // RFC 6946: such a packet is whole, and a server takes it as it stands.
    let mut world = world(4, ENTRIES);
    let flow = world.flow_to("b2", Family::V6, 9, 8000, 0);
    let atomic = |packet: PacketBuilder| packet.fragment(0, false);
    assert_eq!(world.send(atomic(of(&flow).syn(ISN).mp_capable_syn_v1())).verdict.reason, Reason::Hash);
    let third = of(&flow).data(ISN + 1, 1).mp_capable_ack(Version::V1, CLIENT_KEY, KEY);
    assert!(world.send(atomic(third)).verdict.learned);
    let joins = Flow { source_port: 999, ..flow };
    let join = world.send(atomic(of(&joins).syn(7).mp_join_syn(token(KEY), 1, 1))).verdict;
    assert_eq!((join.reason, join.backend), (Reason::Token, Some(world.id_of("b2"))));
}
