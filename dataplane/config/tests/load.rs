//! What good files mean, and that the documents say what the code does.

#![cfg(test)]

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use config::{Config, Evict, HugePages, Idle, NextHop, Ports, Prefix, schema};
use ipc::message::{BackendState, Command, Forward, Handles, Protocol, UnknownToken};
use proptest::prelude::*;

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

fn parse(text: &str) -> Config {
    Config::parse(text, "weft.toml").unwrap_or_else(|problems| panic!("{problems:?}"))
}

#[test]
fn the_example_loads_and_means_what_it_says() {
    let config = Config::load(document("weft.example.toml")).unwrap();
    let dataplane = &config.dataplane;
    assert_eq!(dataplane.workers, [1]);
    assert_eq!(parse("[dataplane]\n").dataplane.workers, [0], "without the key, lcore 0 alone");
    assert_eq!((dataplane.flows, dataplane.tokens), (1_000_000, 1_000_000));
    assert_eq!(dataplane.runtime_dir, Path::new("/run/weft"));
    let port = &dataplane.ports[0];
    assert_eq!(port.device, "net_af_packet0,iface=lb0");
    assert_eq!(port.mac, Some([2, 0, 0, 0, 2, 1]));
    assert_eq!(port.address[0], Prefix { address: "10.0.1.254".parse().unwrap(), length: 24 });
    assert_eq!(port.address[1], Prefix { address: "fd00:1::254".parse().unwrap(), length: 64 });
    assert_eq!(port.mtu, 1600);
    let pool = &config.pools[0];
    assert_eq!(pool.name.as_str(), "web-servers");
    assert_eq!(pool.backends[0].address4, Some(Ipv4Addr::new(10, 0, 1, 11)));
    assert_eq!(pool.backends[1].address6, Some("fd00:1::12".parse().unwrap()));
    assert_eq!(pool.backends[1].weight, 100, "the default");
    let vip = &config.vips[0];
    assert_eq!(vip.ports, Ports::List(vec![8000]));
    assert_eq!((vip.protocol, vip.forward), (Protocol::Tcp, Forward::L2dsr));
    assert_eq!((vip.learns(), vip.unknown_token), (true, UnknownToken::Drop));
}

#[test]
fn what_generators_run_against_needs_no_neighbour_and_has_a_probe() {
    for (name, ports, udp) in [("one-port.toml", 1, 1), ("two-port.toml", 2, 21)] {
        let config = Config::load(document("../scripts/pktgen").join(name)).unwrap();
        assert_eq!(config.dataplane.ports.len(), ports, "{name}");
        // Generators answer no ARP.
        let backends = config.pools.iter().flat_map(|pool| &pool.backends);
        assert!(
            backends.clone().count() > 3 && backends.clone().all(|backend| backend.mac.is_some()),
            "{name}"
        );
        // pktgen's probe and its rfc2544.lua are UDP, and come back with nothing in front.
        let udp_vips = config.vips.iter().filter(|vip| vip.protocol == Protocol::Udp);
        assert!(
            udp_vips.clone().all(|vip| vip.forward == Forward::L2dsr && vip.ports == Ports::Any),
            "{name}"
        );
        assert_eq!(udp_vips.map(|vip| vip.addresses.len()).sum::<usize>(), udp, "{name}");
    }
}

#[test]
fn what_is_left_out_has_the_default_the_reference_says() {
    let config = parse("[dataplane]\nworkers = [3]\n[[dataplane.port]]\ndevice = \"0000:3b:00.0\"\n");
    let dataplane = &config.dataplane;
    assert_eq!((dataplane.flows, dataplane.tokens, dataplane.memory_mb), (1_000_000, 1_000_000, 256));
    assert_eq!((dataplane.huge_pages, dataplane.mbufs), (HugePages::Auto, 0));
    assert_eq!((dataplane.tunnel_source4, dataplane.tunnel_source6), (None, None));
    assert!(dataplane.keep_tables);
    let Idle { half_open, established, closing, closing_mptcp, adopted, udp } = dataplane.idle;
    assert_eq!((half_open, established, closing, closing_mptcp), (64, 64_000, 64, 128));
    assert_eq!((adopted, udp), (320, 128));
    let Evict { half_open, adopted, closing, own, kept } = dataplane.evict;
    assert_eq!((half_open, adopted, closing, own, kept), (Some(0), Some(0), Some(0), Some(64), None));
    let port = &dataplane.ports[0];
    assert_eq!((port.mac, port.mtu, port.promiscuous), (None, 1500, false));
    assert_eq!((port.gateway4, port.gateway6, port.exception.as_deref()), (None, None, None));
    assert_eq!((port.rx_descriptors, port.tx_descriptors), (1024, 1024));
    assert!(port.address.is_empty() && config.pools.is_empty() && config.vips.is_empty());
}

#[test]
fn times_gateways_and_the_exception_path_are_read_as_given() {
    let config = parse(
        "[dataplane]\nkeep_tables = false\n[dataplane.idle]\nhalf_open = 1\nestablished = 64_000\nclosing = 2\n\
         closing_mptcp = 60\nadopted = 3\nudp = 4\n[dataplane.evict]\nhalf_open = \"never\"\nadopted = 5\n\
         closing = 6\nown = \"never\"\nkept = 64_000\n[[dataplane.port]]\ndevice = \"a\"\n\
         address = [\"10.0.1.254/24\", \"fd00:1::254/64\"]\ngateway = [\"fd00:1::1\", \"10.0.1.1\"]\n\
         exception = \"weft0.100\"\n",
    );
    let dataplane = &config.dataplane;
    assert!(!dataplane.keep_tables);
    let idle = Idle { half_open: 1, established: 64_000, closing: 2, closing_mptcp: 60, adopted: 3, udp: 4 };
    assert_eq!(dataplane.idle, idle);
    let evict = Evict { half_open: None, adopted: Some(5), closing: Some(6), own: None, kept: Some(64_000) };
    assert_eq!(dataplane.evict, evict);
    let port = &dataplane.ports[0];
    assert_eq!(port.gateway4, Some(Ipv4Addr::new(10, 0, 1, 1)));
    assert_eq!(port.gateway6, Some("fd00:1::1".parse().unwrap()));
    assert_eq!(port.exception.as_deref(), Some("weft0.100"));
}

#[test]
fn the_next_hop_is_the_backend_where_a_port_reaches_it_else_the_gateway_of_the_address_in_use() {
    let hop = |vip: &str, backend: &str, gateway: &str| {
        let config = parse(&format!(
            "[[dataplane.port]]\ndevice = \"a\"\naddress = [\"10.0.1.254/24\", \"fd00:1::254/64\"]\n{gateway}\n\
             [[pool]]\nname = \"p\"\n[[pool.backend]]\nname = \"b\"\naddress = {backend}\n\
             [[vip]]\nname = \"v\"\nport = 80\npool = \"p\"\nforward = \"ipip\"\naddress = {vip}\n",
        ));
        let pool = &config.pools[0];
        config.next_hops(pool, &pool.backends[0]).first().copied()
    };
    let direct = |address: &str| Some(NextHop { address: address.parse().unwrap(), beyond: None });
    let through = |gateway: &str, beyond: &str| {
        Some(NextHop { address: gateway.parse().unwrap(), beyond: Some(beyond.parse().unwrap()) })
    };
    let both = r#"gateway = ["10.0.1.1", "fd00:1::1"]"#;
    let (v4, v6) = (r#""10.9.9.9""#, r#""fd99::9""#);
    assert_eq!(hop(v4, r#"["10.0.1.11", "fd00:1::11"]"#, ""), direct("10.0.1.11"));
    assert_eq!(hop(v6, r#"["10.0.1.11", "fd00:1::11"]"#, ""), direct("fd00:1::11"));
    assert_eq!(hop(v6, r#""10.0.1.11""#, ""), direct("10.0.1.11"), "the other family, for want of its own");
    assert_eq!(hop(v4, r#""10.0.2.11""#, both), through("10.0.1.1", "10.0.2.11"));
    assert_eq!(hop(v4, r#""fd00:2::11""#, both), through("fd00:1::1", "fd00:2::11"));
    assert_eq!(hop(v4, r#"["10.0.1.11", "fd00:2::11"]"#, both), direct("10.0.1.11"));
    assert_eq!(hop(v6, r#"["10.0.2.11", "fd00:2::11"]"#, both), through("fd00:1::1", "fd00:2::11"));
}

#[test]
fn another_runtime_dir_gives_another_file_prefix() {
    let prefix = |dir: &str| {
        parse(&format!("[dataplane]\nworkers = [0]\nruntime_dir = \"{dir}\"\n")).dataplane.file_prefix
    };
    assert_ne!(prefix("/run/weft"), prefix("/run/weft2"));
    assert_eq!(prefix("/run/weft"), prefix("/run/weft"));
}

#[test]
fn every_number_the_schema_allows_fits_its_type() {
    let text = "[dataplane]\nworkers = [127]\nflows = 1_000_000_000\ntokens = 1_000_000_000\nmemory_mb = 1_048_576\n\
                mbufs = 100_000_000\nmaglev_seed = 9_223_372_036_854_775_807\n[[dataplane.port]]\ndevice = \"a\"\nmtu = 9600\n\
                rx_descriptors = 32768\ntx_descriptors = 32768\n[[pool]]\nname = \"p\"\n[[pool.backend]]\n\
                name = \"b\"\naddress = \"10.0.0.1\"\nweight = 1000\n";
    let config = parse(text);
    assert_eq!(config.dataplane.workers, [127]);
    assert_eq!((config.dataplane.flows, config.dataplane.tokens), (1_000_000_000, 1_000_000_000));
    assert_eq!((config.dataplane.memory_mb, config.dataplane.maglev_seed), (1_048_576, i64::MAX as u64));
    assert_eq!(config.dataplane.mbufs, 100_000_000);
    let port = &config.dataplane.ports[0];
    assert_eq!((port.mtu, port.rx_descriptors, port.tx_descriptors), (9600, 32_768, 32_768));
    assert_eq!(config.pools[0].backends[0].weight, 1000);
    // The literals above are the schema's bounds; when one moves, this test must be looked at.
    for (key, max) in [
        (schema::dataplane::WORKERS, 127),
        (schema::dataplane::FLOWS, 1_000_000_000),
        (schema::dataplane::TOKENS, 1_000_000_000),
        (schema::dataplane::MEMORY_MB, 1_048_576),
        (schema::dataplane::MBUFS, 100_000_000),
        (schema::port::MTU, 9600),
        (schema::port::RX_DESCRIPTORS, 32_768),
        (schema::port::TX_DESCRIPTORS, 32_768),
        (schema::backend::WEIGHT, 1000),
    ] {
        let (schema::Kind::Integer { max: bound, .. } | schema::Kind::Integers { max: bound, .. }) = key.kind
        else {
            panic!("{} is no number", key.name)
        };
        assert_eq!(bound, max, "{}", key.name);
    }
}

#[test]
fn every_key_of_the_schema_is_read_by_the_parser() {
    // Each key with a value of a type it cannot have: a key nobody reads would pass unnoticed.
    fn walk(section: &schema::Section, path: &str, missed: &mut Vec<String>) {
        for key in section.keys {
            let header = if section.header.is_empty() { String::new() } else { path.to_owned() };
            let text = format!("{header}\n{} = 1979-05-27\n", key.name);
            let problems = Config::parse(&text, "weft.toml").unwrap_err();
            let line = text.lines().count();
            if !problems
                .iter()
                .any(|problem| problem.line == line && !problem.message.contains("unknown key"))
            {
                missed.push(format!("{} in {}: {problems:?}", key.name, section.header));
            }
            if let schema::Kind::Table(below) | schema::Kind::Tables(below) = key.kind {
                let parents = if below.header.starts_with("[[") || below.header.matches('.').count() == 0 {
                    path.to_owned()
                } else {
                    format!("{path}\n")
                };
                walk(below, &format!("{parents}\n{}", below.header), missed);
            }
        }
    }
    let mut missed = Vec::new();
    walk(&schema::FILE, "", &mut missed);
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn backends_of_a_vips_own_make_a_pool_of_its_name() {
    let config = parse(
        "[dataplane]\nworkers = [0]\n[[vip]]\nname = \"v\"\naddress = \"10.0.0.1\"\nport = [80, 443]\n\
         mptcp = {steering = [], unknown_token = \"reset\"}\n[[vip.backend]]\nname = \"b\"\naddress = \"10.0.0.2\"\n",
    );
    assert_eq!(config.vips[0].pool, config.pools[0].name);
    assert_eq!(config.pools[0].name.as_str(), "v");
    assert_eq!((config.vips[0].learns(), config.vips[0].unknown_token), (false, UnknownToken::Reset));
}

#[test]
fn commands_are_the_desired_state_in_an_order_in_which_names_exist() {
    let config = Config::load(document("weft.example.toml")).unwrap();
    let name = |text: &str| text.parse().unwrap();
    let commands = config.commands();
    assert_eq!(commands.len(), 6);
    assert_eq!(commands[0], Command::PutPool { name: name("web-servers") });
    assert_eq!(
        commands[1],
        Command::PutBackend {
            pool: name("web-servers"),
            name: name("b1"),
            address4: Some(Ipv4Addr::new(10, 0, 1, 11)),
            address6: Some("fd00:1::11".parse().unwrap()),
            mac: Some([2, 0, 0, 0, 3, 1]),
            weight: 100,
            state: BackendState::Active,
            handles: Handles::default(),
        }
    );
    let service = Command::PutService { vip: name("web"), address: IpAddr::from([10, 9, 9, 9]), port: 8000 };
    assert_eq!(commands[4], service);
}

#[test]
fn any_is_port_zero_of_a_service() {
    let text = std::fs::read_to_string(document("weft.example.toml")).unwrap();
    let config = parse(&text.replace("port     = 8000", "port = \"any\""));
    let ports: Vec<u16> = config
        .commands()
        .iter()
        .filter_map(|command| match command {
            Command::PutService { port, .. } => Some(*port),
            _ => None,
        })
        .collect();
    assert_eq!(ports, [0, 0]);
}

#[test]
fn the_reference_page_is_what_the_code_prints() {
    let page = std::fs::read_to_string(document("configuration.md")).unwrap_or_default();
    let expected = config::reference_markdown();
    if std::env::var_os("WEFT_WRITE_DOCS").is_some() {
        std::fs::write(document("configuration.md"), &expected).unwrap();
        return;
    }
    assert!(page == expected, "docs/configuration.md is stale: run this test with WEFT_WRITE_DOCS=1");
}

#[test]
fn the_fuzzers_corpus_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/config");
    let mut files = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        support::check(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 7, "the corpus is missing");
}

#[test]
fn a_prefix_contains_its_network_and_nothing_else() {
    let prefix = Prefix { address: IpAddr::from([10, 0, 1, 254]), length: 24 };
    assert!(prefix.contains(IpAddr::from([10, 0, 1, 1])));
    assert!(!prefix.contains(IpAddr::from([10, 0, 2, 1])));
    assert!(!prefix.contains("fd00::1".parse().unwrap()));
    let host = Prefix { address: "fd00::1".parse().unwrap(), length: 128 };
    assert!(host.contains("fd00::1".parse().unwrap()) && !host.contains("fd00::2".parse().unwrap()));
}

proptest! {
    /// The example, cut and pasted at random: never a panic, never a half-accepted file.
    #[test]
    fn a_shuffled_example_is_read_or_refused(picks in prop::collection::vec((0_usize..60, 0_usize..60), 0..12)) {
        let text = std::fs::read_to_string(document("weft.example.toml")).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        for (from, to) in picks {
            let (from, to) = (from % lines.len(), to % lines.len());
            if from < to { lines.swap(from, to) } else { let line = lines[from]; lines.insert(to, line) }
        }
        support::check(lines.join("\n").as_bytes());
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        support::check(text.as_bytes());
    }
}

#[test]
fn macs_are_read_as_they_are_written() {
    let mac = [2, 0, 0xab, 0, 3, 1];
    assert_eq!(config::parse_mac(&config::format_mac(mac)), Ok(mac));
    assert!(config::parse_mac("00:00:00:00:00:00").is_err());
    assert!(config::parse_mac("02:00:00:00:03:01:04").is_err());
    assert!(config::parse_mac("+2:00:00:00:03:01").is_err());
}

#[test]
fn a_vip_is_steered_by_what_its_tokens_say() {
    use ipc::message::{Scheme, Secret, TokenMap};
    let text = std::fs::read_to_string(document("weft.example.toml")).unwrap();
    let steering = "steering = [\"token-map\", \"learn\"]\ntoken_map = \"cipher\"\n\
                    cipher_key_odd = \"1918111009080100\"\nexplicit_tokens = [\"E\"]";
    let text = text.replace("steering = [\"learn\"]", steering);
    let text = text
        .replace("weight  = 100", "number = 1")
        .replace("name    = \"b2\"", "name = \"b2\"\nnumber = 4095");
    let config = Config::parse(&text, "weft.toml").unwrap();
    let steering = config.vips[0].steering;
    assert_eq!(steering.schemes.iter().collect::<Vec<_>>(), [Scheme::TokenMap, Scheme::Learn]);
    assert_eq!((steering.application_tokens, steering.external_tokens), (false, true));
    assert_eq!(steering.token_map, TokenMap::Cipher);
    assert_eq!(steering.cipher_keys, [None, Some(Secret([0x19, 0x18, 0x11, 0x10, 9, 8, 1, 0]))]);
    let numbers: Vec<_> = config.pools[0].backends.iter().map(|backend| backend.handles.number).collect();
    assert_eq!(numbers, [Some(1), Some(4095)]);
}

#[test]
fn a_vip_hands_out_keys_of_a_secret() {
    use ipc::message::{Scheme, Secret};
    let text = std::fs::read_to_string(document("weft.example.toml")).unwrap();
    let steering = "steering = [\"chosen-key\", \"learn\"]\nexplicit_tokens = []\n\
                    key_secret = \"000102030405060708090a0b0c0d0eff\"";
    let text = text
        .replace("steering = [\"learn\"]", steering)
        .replace("forward  = \"l2dsr\"", "forward = \"gue\"")
        .replace("weight  = 100", "number = 1")
        .replace("name    = \"b2\"", "name = \"b2\"\nnumber = 2");
    let config = Config::parse(&text, "weft.toml").unwrap();
    let vip = &config.vips[0];
    assert_eq!(vip.steering.schemes.iter().collect::<Vec<_>>(), [Scheme::ChosenKey, Scheme::Learn]);
    let secret = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff];
    assert_eq!((vip.forward, vip.steering.key_secret), (Forward::Gue, Some(Secret(secret))));
}

#[test]
fn a_backend_that_joins_at_run_time_obeys_the_rules_of_the_file() {
    let config = Config::load(document("weft.example.toml")).unwrap();
    let pool = config.pools[0].name;
    let good = config::Backend {
        name: "b3".parse().unwrap(),
        address4: Some(Ipv4Addr::new(10, 0, 1, 13)),
        address6: None,
        mac: None,
        weight: 100,
        handles: Handles::default(),
    };
    let refused = |change: fn(&mut config::Backend)| {
        let mut backend = good.clone();
        change(&mut backend);
        config.check_backend(&pool, &backend).unwrap_err()
    };
    assert_eq!(config.check_backend(&pool, &good), Ok(()));
    assert!(
        config.check_backend(&"no".parse().unwrap(), &good).unwrap_err().contains("there is no pool `no`")
    );
    assert!(refused(|b| b.name = "b1".parse().unwrap()).contains("has a backend `b1` already"));
    assert!(refused(|b| b.address4 = None).contains("has no address"));
    assert!(refused(|b| b.address4 = Some(Ipv4Addr::new(10, 0, 1, 11))).contains("that of backend `b1`"));
    assert!(refused(|b| b.address4 = Some(Ipv4Addr::new(10, 9, 9, 9))).contains("VIP `web`'s"));
    assert!(refused(|b| b.address4 = Some(Ipv4Addr::new(10, 0, 1, 254))).contains("a port's own"));
    assert!(refused(|b| b.weight = 1001).contains("from 0 to 1000"));
    let far = |b: &mut config::Backend| b.address4 = Some(Ipv4Addr::new(10, 0, 2, 13));
    assert!(refused(far).contains("reaches only that; use `forward = \"ipip\"` or \"gue\""));
    let mut ipip = config.clone();
    ipip.vips[0].forward = Forward::Ipip;
    assert_eq!(ipip.check_backend(&pool, &good), Ok(()), "one family carries both");
    let mut beyond = good.clone();
    far(&mut beyond);
    assert!(ipip.check_backend(&pool, &beyond).unwrap_err().contains("no port has an IPv4 gateway"));
    ipip.dataplane.ports[0].gateway4 = Some(Ipv4Addr::new(10, 0, 1, 1));
    assert_eq!(ipip.check_backend(&pool, &beyond), Ok(()));
}

#[test]
fn without_its_table_the_data_plane_has_every_default() {
    let config = parse(
        "[[vip]]\nname = \"v\"\naddress = \"10.0.0.1\"\nport = 80\n[[vip.backend]]\nname = \"b\"\naddress = \"10.0.1.1\"\n",
    );
    assert_eq!(config.dataplane, parse("[dataplane]\n").dataplane);
    assert_eq!(config.vips.len(), 1);
}
