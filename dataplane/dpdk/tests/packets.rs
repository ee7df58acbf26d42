//! Packets through real virtual devices: what goes in comes out, and no mbuf is lost on any way.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking")]

mod support;

use std::path::{Path, PathBuf};

use dpdk::{BURST, Burst, Eal, HEADROOM, Pool, PoolConfig, Port, PortConfig, RxQueue, Transmitted, TxQueue};
use support::{Scratch, Veth, captures, eal, frame, frames, pool, start};

fn open(eal: &Eal, name: &str, pool: &Pool) -> (Port, RxQueue, TxQueue) {
    let mut port = Port::configure(eal, name, pool, &PortConfig::default()).unwrap();
    let mut queues = port.take_queues();
    assert!(port.take_queues().is_empty(), "queues can be taken once");
    let (rx, tx) = queues.pop().unwrap();
    assert!(queues.is_empty());
    (port, rx, tx)
}

/// Forwards a capture from one file to another by DPDK and gives the frames written.
fn forward(capture: &Path, huge_pages: bool, frame_room: u16) -> (Vec<Vec<u8>>, u16) {
    let scratch = Scratch::new();
    let out = scratch.file("out.pcap");
    let eal = start(&[&format!("net_pcap0,rx_pcap={},tx_pcap={out}", capture.display())], huge_pages);
    let config = PoolConfig { mbufs: 2047, frame_room, ..PoolConfig::default() };
    let pool = Pool::new(&eal, "packets", &config).unwrap();
    let (port, mut rx, mut tx) = open(&eal, "net_pcap0", &pool);
    let mut burst = Burst::with_limit(&eal, 8);
    let mut most_segments = 0;
    while rx.receive(&mut burst) > 0 {
        for index in 0..burst.len() {
            most_segments = most_segments.max(burst.segments(index));
            assert!(burst.bytes(index).len() <= burst.wire_len(index));
            assert_eq!(burst.segments(index) == 1, burst.bytes(index).len() == burst.wire_len(index));
        }
        let all = burst.held();
        assert_eq!(tx.transmit(&mut burst, all).refused, 0);
    }
    assert_eq!(pool.in_use(), 0, "an mbuf was lost");
    // The file is complete when the port is closed: by its last holder.
    drop((port, rx, tx));
    (frames(Path::new(&out)), most_segments)
}

fn one_capture() -> PathBuf {
    captures().into_iter().find(|path| path.ends_with("token_steered_join.pcap")).unwrap()
}

fn huge_pages_are_free() -> bool {
    let free = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    std::fs::read_to_string(free).is_ok_and(|text| text.trim().parse::<u64>().is_ok_and(|free| free >= 32))
}

cases! {
    fn net_null_gives_packets_and_takes_them() {
        let eal = eal(&["net_null0,size=100"]);
        let pool = pool(&eal);
        let (port, mut rx, mut tx) = open(&eal, "net_null0", &pool);
        assert_eq!(port.driver(), "net_null");
        let mut burst = Burst::new(&eal);
        for round in 1..=100_u64 {
            assert_eq!(rx.receive(&mut burst), BURST);
            assert_eq!(burst.held(), u64::MAX);
            assert_eq!((burst.wire_len(63), burst.bytes(63).len()), (100, 100));
            let all = burst.held();
            assert_eq!(tx.transmit(&mut burst, all), Transmitted { sent: 64, refused: 0 });
            assert!(burst.is_empty());
            assert_eq!(port.stats().unwrap().tx_packets, round * 64);
        }
        assert_eq!(port.stats().unwrap().rx_packets, 6400);
        assert!(port.link().unwrap().up);
        assert_eq!(pool.in_use(), 0);
    }

    fn what_a_full_queue_refuses_keeps_its_place_and_can_be_offered_again() {
        let eal = eal(&["net_ring0"]);
        let pool = pool(&eal);
        let (_port, mut rx, mut tx) = open(&eal, "net_ring0", &pool);
        let mut burst = Burst::new(&eal);
        let (mut pushed, mut sent) = (0, 0);
        // The ring holds 1023: the last burst does not fit whole.
        while burst.is_empty() {
            for _ in 0..BURST {
                assert!(burst.push(&pool, &frame(pushed, 100)));
                pushed += 1;
            }
            let all = burst.held();
            sent += usize::try_from(tx.offer(&mut burst, all)).unwrap();
        }
        assert_eq!((sent, pushed, burst.len()), (1023, 1024, BURST));
        assert_eq!(burst.held(), 1 << 63, "the first ones went, the last one is left");
        assert_eq!(burst.bytes(63), frame(1023, 100));
        let all = burst.held();
        assert_eq!(tx.offer(&mut burst, all), 0, "the ring is still full");
        assert_eq!(tx.offer(&mut burst, 0), 0);

        let mut back = Burst::new(&eal);
        let mut received = 0;
        while rx.receive(&mut back) > 0 {
            for place in 0..back.len() {
                assert_eq!(back.bytes(place), frame(received, 100));
                received += 1;
            }
            back.clear();
            let all = burst.held();
            tx.offer(&mut burst, all);
        }
        assert_eq!(received, 1024);
        assert_eq!((burst.held(), burst.len()), (0, 0));
        assert_eq!(pool.in_use(), 0);
    }

    fn a_frame_prepended_to_comes_back_with_both_parts() {
        let eal = eal(&["net_ring0"]);
        let pool = pool(&eal);
        let (_port, mut rx, mut tx) = open(&eal, "net_ring0", &pool);
        let mut burst = Burst::new(&eal);
        for number in 0..10 {
            assert!(burst.push(&pool, &frame(number, 60 + number)));
        }
        for number in 0..10 {
            let bytes = burst.prepend(number, 20).unwrap();
            assert_eq!(bytes.len(), 80 + number);
            // As an encapsulation does: the Ethernet header moves to the new start, and 20 bytes get room.
            bytes.copy_within(20..34, 0);
            bytes[14..34].fill(0xee);
            assert_eq!(burst.wire_len(number), 80 + number);
        }
        let all = burst.held();
        assert_eq!(tx.transmit(&mut burst, all), Transmitted { sent: 10, refused: 0 });
        assert_eq!(pool.in_use(), 10, "the ring holds them");
        assert_eq!(rx.receive(&mut burst), 10);
        for number in 0..10 {
            let sent = frame(number, 60 + number);
            let expected = [&sent[..14], &[0xee; 20], &sent[14..]].concat();
            assert_eq!(burst.bytes(number), expected);
            burst.prefetch(number);
        }
        drop(burst);
        assert_eq!(pool.in_use(), 0);
    }

    fn places_named_by_a_mask_are_sent_and_the_others_stay_where_they_are() {
        let eal = eal(&["net_ring0", "net_ring1"]);
        let pool = pool(&eal);
        let (_even, mut even_rx, mut even_tx) = open(&eal, "net_ring0", &pool);
        let (_odd, mut odd_rx, mut odd_tx) = open(&eal, "net_ring1", &pool);
        let mut burst = Burst::new(&eal);
        for number in 0..64 {
            assert!(burst.push(&pool, &frame(number, 64)));
        }
        assert!(!burst.push(&pool, &frame(0, 64)), "it holds 64");
        let even = 0x5555_5555_5555_5555_u64;
        assert_eq!(even_tx.transmit(&mut burst, even & !1).sent, 31);
        assert_eq!((burst.bytes(2), burst.wire_len(2), burst.segments(2)), (&[][..], 0, 0), "2 is sent");
        assert!(burst.bytes_mut(2).is_empty() && burst.prepend(2, 1).is_none() && burst.resize(2, 1).is_none());
        assert_eq!(even_tx.transmit(&mut burst, even & !1), Transmitted::default(), "nothing is sent twice");
        assert_eq!((burst.bytes(3), burst.len()), (&frame(3, 64)[..], 64));
        assert_eq!(odd_tx.transmit(&mut burst, !even).sent, 32);
        assert_eq!(burst.held(), 1, "place 0 was named by nobody");
        burst.clear();
        assert_eq!(burst.len(), 0);
        for (rx, first, count) in [(&mut even_rx, 2, 31), (&mut odd_rx, 1, 32)] {
            assert_eq!(rx.receive(&mut burst), count);
            for place in 0..count {
                assert_eq!(burst.bytes(place), frame(first + 2 * place, 64), "order is kept");
            }
            burst.clear();
        }
        assert_eq!(pool.in_use(), 0);
    }

    fn what_the_device_refuses_is_freed_and_counted() {
        let eal = eal(&["net_ring0"]);
        let pool = pool(&eal);
        let (_port, mut rx, mut tx) = open(&eal, "net_ring0", &pool);
        let mut burst = Burst::new(&eal);
        let (mut sent, mut refused) = (0, 0);
        for _ in 0..40 {
            assert!(burst.allocate(&pool, 64, 60));
            let outcome = tx.transmit(&mut burst, u64::MAX);
            assert_eq!(outcome.sent + outcome.refused, 64);
            assert!(burst.is_empty());
            sent += outcome.sent;
            refused += outcome.refused;
        }
        assert!(sent >= 1000 && refused >= 1000, "a full ring refuses: {sent} sent, {refused} refused");
        assert_eq!(pool.in_use(), sent, "the refused are free again");
        while rx.receive(&mut burst) > 0 {
            burst.clear();
        }
        assert_eq!(pool.in_use(), 0);
    }

    fn dropping_clearing_and_discarding_free_every_packet_once() {
        let eal = eal(&[]);
        let pool = pool(&eal);
        let all = pool.available();
        for round in 0..200 {
            let mut burst = Burst::new(&eal);
            assert!(burst.allocate(&pool, 64, 60));
            burst.discard(0xff);
            burst.discard(0xff);
            assert_eq!(pool.in_use(), 56);
            if round % 2 == 0 {
                burst.clear();
                burst.clear();
                assert_eq!(pool.in_use(), 0);
            }
        }
        assert_eq!((pool.in_use(), pool.available()), (0, all));
    }

    fn a_pool_that_is_empty_gives_none_or_all() {
        let eal = eal(&[]);
        let pool = Pool::new(&eal, "few", &PoolConfig { mbufs: 100, cache: 0, ..PoolConfig::default() }).unwrap();
        let mut first = Burst::new(&eal);
        let mut second = Burst::new(&eal);
        assert!(first.allocate(&pool, 64, 60));
        assert!(!second.allocate(&pool, 64, 60));
        assert!(second.is_empty());
        assert_eq!(pool.in_use(), 64);
        first.clear();
        assert!(second.allocate(&pool, 64, 60));
        assert!(!first.allocate(&pool, 1, usize::from(pool.room()) + 1), "longer than an mbuf");
    }

    fn packets_that_find_no_mbuf_are_counted_and_others_come_once_there_are_mbufs_again() {
        let capture = one_capture();
        let all = frames(&capture).len();
        let eal = eal(&[&format!("net_pcap0,rx_pcap={}", capture.display())]);
        let config = PoolConfig { mbufs: 63, cache: 0, ..PoolConfig::default() };
        let pool = Pool::new(&eal, "few", &config).unwrap();
        let (port, mut rx, _tx) = open(&eal, "net_pcap0", &pool);
        let mut held = Burst::new(&eal);
        assert!(held.allocate(&pool, 61, 60));
        let mut burst = Burst::with_limit(&eal, 8);
        assert_eq!(rx.receive(&mut burst), 2, "as many as there are mbufs");
        assert_eq!(rx.receive(&mut burst), 0);
        let lost = port.stats().unwrap().rx_no_mbuf;
        assert!(lost > 0 && pool.available() == 0, "{lost} counted");
        held.clear();
        burst.clear();
        let mut received = 2;
        while rx.receive(&mut burst) > 0 {
            received += burst.len();
            burst.clear();
        }
        assert_eq!(received + usize::try_from(lost).unwrap(), all);
        assert_eq!(port.stats().unwrap().rx_no_mbuf, lost, "none is lost any more");
        assert_eq!((pool.in_use(), pool.capacity()), (0, 63));
    }

    fn headers_grow_within_the_headroom_only() {
        let eal = eal(&[]);
        let pool = pool(&eal);
        let mut burst = Burst::new(&eal);
        assert!(burst.push(&pool, &frame(1, 60)));
        let headroom = usize::from(HEADROOM);
        assert!(burst.prepend(0, headroom + 1).is_none());
        assert!(burst.prepend(0, usize::MAX).is_none());
        assert_eq!(burst.bytes(0), frame(1, 60), "unchanged");
        assert_eq!(burst.prepend(0, headroom).unwrap().len(), headroom + 60);
        assert!(burst.prepend(0, 1).is_none());
        assert_eq!((&burst.bytes(0)[headroom..], burst.wire_len(0)), (&frame(1, 60)[..], headroom + 60));
        burst.clear();
        assert!(burst.push(&pool, &frame(1, 60)));
        assert_eq!(burst.resize(0, 42).unwrap(), &frame(1, 60)[..42]);
        assert_eq!(burst.resize(0, 2048).unwrap().len(), 2048);
        assert!(burst.resize(0, 2049).is_none());
        assert_eq!(burst.wire_len(0), 2048);
        assert!(burst.bytes(64).is_empty() && burst.bytes(usize::MAX).is_empty());
    }

    fn a_capture_passes_unchanged_without_huge_pages() {
        let capture = one_capture();
        let (passed, segments) = forward(&capture, false, 2048);
        assert_eq!(passed, frames(&capture));
        assert_eq!(segments, 1);
    }

    fn a_capture_passes_unchanged_with_huge_pages() {
        if !huge_pages_are_free() {
            let why = "64 MB of huge pages are needed: echo 64 > /proc/sys/vm/nr_hugepages";
            return skip::skip("a_capture_passes_unchanged_with_huge_pages", why);
        }
        let capture = one_capture();
        assert_eq!(forward(&capture, true, 2048).0, frames(&capture));
    }

    fn a_capture_passes_unchanged_in_several_segments() {
        let capture = one_capture();
        let (passed, segments) = forward(&capture, false, 64);
        assert_eq!(passed, frames(&capture));
        assert!(segments > 1, "frames longer than 64 bytes take several mbufs of 64");
    }

    fn the_first_segment_of_a_long_packet_is_seen_and_grows() {
        let capture = one_capture();
        let eal = eal(&[&format!("net_pcap0,rx_pcap={}", capture.display())]);
        let pool = Pool::new(&eal, "small", &PoolConfig { mbufs: 2047, frame_room: 64, ..PoolConfig::default() });
        let pool = pool.unwrap();
        let (_port, mut rx, _tx) = open(&eal, "net_pcap0", &pool);
        let mut burst = Burst::new(&eal);
        assert!(rx.receive(&mut burst) > 0);
        let whole = frames(&capture);
        let long = (0..burst.len()).find(|index| burst.segments(*index) > 1).unwrap();
        let first = burst.bytes(long).to_vec();
        assert!(first.len() < whole[long].len() && whole[long].starts_with(&first));
        assert_eq!(burst.wire_len(long), whole[long].len());
        assert_eq!(burst.prepend(long, 20).unwrap()[20..], first);
        assert_eq!(burst.wire_len(long), whole[long].len() + 20);
        assert!(burst.resize(long, 40).is_none(), "only a packet of one segment is cut");
        let (in_use, segments) = (pool.in_use(), u32::from(burst.segments(long)));
        assert!(!burst.replace(long, &[7; 4000]), "longer than the first segment's buffer");
        assert_eq!((burst.segments(long), pool.in_use()), (u16::try_from(segments).unwrap(), in_use), "unchanged");
        assert!(burst.replace(long, &[7; 40]), "but any packet is replaced");
        assert_eq!((burst.bytes(long), burst.wire_len(long), burst.segments(long)), (&[7; 40][..], 40, 1));
        assert_eq!(pool.in_use(), in_use - (segments - 1), "the other segments are free again");
        drop(burst);
        assert_eq!(pool.in_use(), 0, "a chain is freed whole");
    }

    fn a_packet_outlives_the_handles_of_what_it_stands_on() {
        let eal = eal(&["net_ring0"]);
        let pool = pool(&eal);
        let (port, mut rx, mut tx) = open(&eal, "net_ring0", &pool);
        let mut burst = Burst::new(&eal);
        assert!(burst.push(&pool, &frame(3, 60)));
        assert_eq!(tx.transmit(&mut burst, 1).sent, 1);
        drop((eal, pool, port, tx));
        assert_eq!(rx.receive(&mut burst), 1, "the port runs while a queue is held");
        drop(rx);
        assert_eq!(burst.bytes(0), frame(3, 60), "the pool's memory is there while a burst is held");
    }

    fn frames_larger_than_ethernet_s_pass_between_two_kernel_interfaces() {
        let Some(veth) = Veth::new(1600) else { return };
        let [left, right] = veth.devices();
        let eal = eal(&[&left, &right]);
        let pool = pool(&eal);
        let config = PortConfig { mtu: Some(1600), promiscuous: true, ..PortConfig::default() };
        let mut left = Port::configure(&eal, &left, &pool, &config).unwrap();
        let mut right = Port::configure(&eal, &right, &pool, &config).unwrap();
        assert_eq!((left.driver(), left.mtu()), ("net_af_packet", 1600));
        assert_eq!(left.interface(), Some(veth.0[0].as_str()));
        let (mut rx, _tx) = right.take_queues().pop().unwrap();
        let (_rx, mut tx) = left.take_queues().pop().unwrap();
        let mut burst = Burst::new(&eal);
        let sent: Vec<Vec<u8>> = (0..20).map(|number| frame(number, 1614 - number)).collect();
        for frame in &sent {
            assert!(burst.push(&pool, frame));
        }
        assert_eq!(tx.transmit(&mut burst, u64::MAX), Transmitted { sent: 20, refused: 0 });
        let mut received = Vec::new();
        // The kernel's own frames (neighbour discovery) come as well; bounded by the child's patience.
        while received.len() < sent.len() {
            rx.receive(&mut burst);
            let frames = (0..burst.len()).map(|index| burst.bytes(index).to_vec());
            received.extend(frames.filter(|frame| sent.contains(frame)));
            burst.clear();
        }
        assert_eq!(received, sent);
        drop(burst);
        assert_eq!(pool.in_use(), 0);
    }

    fn the_virtual_drivers_of_a_lab_are_in_the_build() {
        let Some(veth) = Veth::new(1500) else { return };
        let scratch = Scratch::new();
        let devices = [
            format!("net_af_xdp0,iface={},force_copy=1", veth.0[0]),
            format!("net_memif0,role=server,socket-abstract=no,socket={}", scratch.file("memif.sock")),
            format!("net_vhost0,iface={},queues=1", scratch.file("vhost.sock")),
            format!("net_tap0,iface=wft{}t", std::process::id()),
        ];
        let names: Vec<&str> = devices.iter().map(String::as_str).collect();
        let eal = eal(&names);
        let pool = pool(&eal);
        for (device, driver) in devices.iter().zip(["net_af_xdp", "net_memif", "net_vhost", "net_tap"]) {
            let port = Port::configure(&eal, device, &pool, &PortConfig::default()).unwrap();
            assert_eq!(port.driver(), driver);
        }
    }

    fn a_small_limit_bounds_what_is_received_at_once() {
        let eal = eal(&["net_null0"]);
        let pool = pool(&eal);
        let (_port, mut rx, _tx) = open(&eal, "net_null0", &pool);
        for limit in [1, 2, 32, 64] {
            let mut burst = Burst::with_limit(&eal, limit);
            assert_eq!(rx.receive(&mut burst), limit);
            assert_eq!(rx.receive(&mut burst), 0, "a full burst takes no more");
            assert_eq!(burst.held().count_ones() as usize, limit);
        }
        assert_eq!(pool.in_use(), 0);
    }
}
