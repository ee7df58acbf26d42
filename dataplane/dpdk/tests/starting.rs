//! Starting: what goes wrong is said in a sentence, and the process goes on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail by panicking")]

mod support;

use dpdk::{Affinity, Eal, EalConfig, Error, PoolConfig, Port, PortConfig};
use support::{Veth, child, eal, pool, prefix, refusal};

/// The sentence with which a port fails.
fn port_refusal(eal: &Eal, name: &str, config: &PortConfig) -> String {
    Port::configure(eal, name, &pool(eal), config).unwrap_err().to_string()
}

/// Asserts that a sentence has each of these parts.
#[track_caller]
fn says(sentence: &str, parts: &[&str]) {
    for part in parts {
        assert!(sentence.contains(part), "{sentence:?} does not say {part:?}");
    }
}

cases! {
    fn a_driver_that_does_not_exist_is_named() {
        says(&refusal(&["net_nosuch0"]), &["did not open the device net_nosuch0", "check its name"]);
    }

    fn arguments_that_a_driver_refuses_are_repeated() {
        says(&refusal(&["net_null0,nosuch=1"]), &["net_null0,nosuch=1", "its arguments"]);
    }

    fn an_interface_that_is_not_there_is_named() {
        let sentence = refusal(&["net_null0", "net_af_packet0,iface=nosuch0"]);
        says(&sentence, &["net_af_packet0", "no network interface nosuch0", "ip link"]);
    }

    fn a_pci_device_that_is_not_there_is_named() {
        says(&refusal(&["ff:1f.7"]), &["no PCI device 0000:ff:1f.7", "lspci"]);
    }

    fn a_failed_start_leaves_the_process_and_its_cpus_as_they_were() {
        let before = Affinity::current().unwrap().count();
        says(&refusal(&["net_nosuch0"]), &["net_nosuch0"]);
        assert_eq!(Affinity::current().unwrap().count(), before);
        says(&refusal(&[]), &["once in a process", "start a new process"]);
    }

    fn a_prefix_in_use_is_said_to_be_so() {
        const SECOND: &str = "WEFT_DPDK_SECOND";
        let prefix = std::env::var(SECOND).unwrap_or_else(|_| prefix());
        let config = EalConfig { huge_pages: false, in_memory: false, memory_mb: 64, ..EalConfig::new(&prefix) };
        if std::env::var_os(SECOND).is_some() {
            assert_eq!(Eal::init(&config).unwrap_err(), Error::PrefixInUse(prefix));
            return;
        }
        let eal = Eal::init(&config).unwrap();
        assert!(child("a_prefix_in_use_is_said_to_be_so", &[(SECOND, &prefix)]));
        drop(eal);
        let _ = std::fs::remove_dir_all(format!("/var/run/dpdk/{prefix}"));
    }

    fn too_few_queues_for_the_workers_say_what_to_write() {
        let eal = eal(&["net_af_packet0,iface=lo", "net_ring0"]);
        let config = PortConfig { rx_queues: 2, tx_queues: 2, ..PortConfig::default() };
        let sentence = port_refusal(&eal, "net_af_packet0", &config);
        says(&sentence, &["net_af_packet0 (net_af_packet)", "1 receive queues", "2 are needed", "qpairs=2"]);
    }

    fn a_device_that_was_not_named_at_start_is_no_port() {
        let eal = eal(&["net_null0"]);
        says(&port_refusal(&eal, "net_null7", &PortConfig::default()), &["net_null7", "started with"]);
    }

    fn one_device_is_one_port() {
        let eal = eal(&["net_null0"]);
        let pool = pool(&eal);
        let first = Port::configure(&eal, "net_null0,copy=1", &pool, &PortConfig::default()).unwrap();
        let second = Port::configure(&eal, "net_null0", &pool, &PortConfig::default()).unwrap_err();
        assert_eq!(second, Error::PortInUse("net_null0".to_owned()));
        assert_eq!(first.name(), "net_null0");
    }

    fn a_pool_too_large_for_the_memory_says_how_much_it_needs() {
        let eal = eal(&[]);
        let config = PoolConfig { mbufs: 1_000_000, ..PoolConfig::default() };
        let sentence = dpdk::Pool::new(&eal, "large", &config).unwrap_err().to_string();
        says(&sentence, &["1000000 packets", "MB", "raise memory_mb"]);
    }

    fn an_mtu_that_the_kernel_interface_lacks_says_how_to_set_it() {
        let Some(veth) = Veth::new(1500) else { return };
        let [left, right] = veth.devices();
        let eal = eal(&[&left, &right]);
        let pool = pool(&eal);
        let config = PortConfig { mtu: Some(1528), ..PortConfig::default() };
        let sentence = Port::configure(&eal, &left, &pool, &config).unwrap_err().to_string();
        says(&sentence, &["an MTU of 1528", &format!("ip link set dev {} mtu 1528", veth.0[0])]);
        let own = Port::configure(&eal, &right, &pool, &PortConfig::default()).unwrap();
        assert_eq!(own.mtu(), 1500);
    }

    fn a_file_too_large_to_be_received_for_ever_says_what_to_do() {
        let capture = support::captures().into_iter().find(|path| path.ends_with("token_steered_join.pcap")).unwrap();
        let eal = eal(&[&format!("net_pcap0,rx_pcap={},infinite_rx=1", capture.display())]);
        let pool = dpdk::Pool::new(&eal, "few", &PoolConfig { mbufs: 7, ..PoolConfig::default() }).unwrap();
        let sentence = Port::configure(&eal, "net_pcap0", &pool, &PortConfig::default()).unwrap_err().to_string();
        says(&sentence, &["infinite_rx holds the whole file", "raise mbufs", "cut the file", "DPDK says: "]);
        says(&sentence, &["Not enough mbufs"]);
    }

    fn a_tap_that_cannot_be_is_refused_before_dpdk_is_asked() {
        let sentence = refusal(&["net_tap0,iface=sixteen-letters0"]);
        says(&sentence, &["\"sixteen-letters0\" is too long", "15 characters at most"]);
        let sentence = refusal(&["net_tap0,iface=lo"]);
        says(&sentence, &["net_tap0: there is a network interface lo already", "ip link del lo"]);
        // The environment was never started: it can be now.
        let eal = eal(&["net_null0"]);
        assert_eq!(Port::limits(&eal, "net_null0").unwrap().mtu, u16::MAX);
    }

    fn a_device_that_takes_a_frame_in_one_piece_wants_mbufs_of_its_size() {
        let eal = eal(&["net_null0", "net_ring0"]);
        let pool = pool(&eal);
        assert!(!Port::limits(&eal, "net_null0").unwrap().receives_segments);
        let config = PortConfig { mtu: Some(9000), ..PortConfig::default() };
        let sentence = Port::configure(&eal, "net_null0", &pool, &config).unwrap_err().to_string();
        says(&sentence, &["net_null0", "an MTU of 9000", "one mbuf, of 9022 bytes"]);
        assert!(Port::limits(&eal, "net_ring0").unwrap().receives_segments);
        assert_eq!(Port::configure(&eal, "net_ring0", &pool, &config).unwrap().mtu(), 9000);
    }

    fn nothing_is_left_on_disk() {
        let folder = std::path::PathBuf::from(format!("/var/run/dpdk/{}", prefix()));
        let eal = eal(&["net_null0"]);
        assert!(folder.exists(), "EAL makes it; has it moved?");
        drop(eal);
        assert!(!folder.exists());
    }

    fn an_mtu_and_a_mac_address_are_taken() {
        let eal = eal(&["net_null0", "net_ring0"]);
        let pool = pool(&eal);
        let mac = Some([2, 0, 0, 0, 2, 1]);
        let config = PortConfig { mtu: Some(1600), mac, promiscuous: true, ..PortConfig::default() };
        let port = Port::configure(&eal, "net_null0", &pool, &config).unwrap();
        assert_eq!(port.mtu(), 1600);
        assert_eq!(port.mac(), [2, 0, 0, 0, 2, 1]);
        let port = Port::configure(&eal, "net_ring0", &pool, &PortConfig::default()).unwrap();
        assert_eq!(port.mtu(), 1500);
    }

    fn jobs_run_on_their_own_cpus_and_a_manager_gets_all_of_them_back() {
        let before = Affinity::current().unwrap().count();
        if before < 2 {
            let name = "jobs_run_on_their_own_cpus_and_a_manager_gets_all_of_them_back";
            return skip::skip(name, "two CPUs are needed");
        }
        let prefix = prefix();
        let lcores = [1, 0];
        let config = EalConfig { lcores: &lcores, huge_pages: false, memory_mb: 64, ..EalConfig::new(&prefix) };
        let eal = Eal::init(&config).unwrap();
        assert_eq!(eal.lcores(), [1, 0]);
        assert_eq!(Affinity::current().unwrap().count(), 1, "EAL pins the thread that starts it");
        let all = eal.affinity();
        let manager = std::thread::spawn(move || {
            all.apply().unwrap();
            Affinity::current().unwrap().count()
        });
        assert_eq!(manager.join().unwrap(), before);
        assert_eq!(all.without(&[0]).count(), before - 1);
        let borrowed = "borrowed".to_owned();
        for _ in 0..3 {
            let jobs: Vec<_> = (0..2).map(|job| {
                let borrowed = &borrowed;
                move || (job, rustix::thread::sched_getcpu(), borrowed.len(), Affinity::current().unwrap().count())
            }).collect();
            assert_eq!(eal.run(jobs).unwrap(), [(0, 1, 8, 1), (1, 0, 8, 1)]);
        }
        let none: Vec<fn()> = vec![|| (); 3];
        assert!(matches!(eal.run(none), Err(Error::Launch(_))));
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| eal.run(vec![|| ()])).join().unwrap());
        assert!(matches!(elsewhere, Err(Error::Launch(_))), "only the thread that started EAL starts jobs");
    }

    fn a_job_that_panics_is_waited_for_and_panics_in_its_starter() {
        let eal = eal(&[]);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| eal.run(vec![|| panic!("on purpose")])));
        assert!(outcome.is_err());
        assert_eq!(eal.run(vec![|| 7]).unwrap(), [7], "the lcore is free again");
    }
}
