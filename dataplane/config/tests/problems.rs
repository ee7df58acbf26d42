//! Every mistake a file can hold, as a table: a line of the good file, what stands there instead, and the exact
//! messages that come of it.

use std::fmt::Write as _;

use config::Config;

const GOOD: &str = include_str!("../../../docs/weft.example.toml");

/// The messages of a text, one a line.
fn problems(text: &str) -> Vec<String> {
    match Config::parse(text, "weft.toml") {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// The example with one line replaced; the line must be there, so that no row goes stale.
fn with(line: &str, instead: &str) -> String {
    assert!(GOOD.contains(line), "the example has no line {line:?}");
    GOOD.replacen(line, instead, 1)
}

#[rustfmt::skip]
const ROWS: &[(&str, &str, &[&str])] = &[
    (
        "mtu     = 1600",
        "mtuu = 1600",
        &["11:1: unknown key `mtuu` in [[dataplane.port]]; did you mean `mtu`?"],
    ),
    (
        "mtu     = 1600",
        "speed_of_light = 1600",
        &["11:1: unknown key `speed_of_light` in [[dataplane.port]]; the keys here are device, mac, address, gateway, exception, mtu, promiscuous, rx_descriptors and tx_descriptors"],
    ),
    (
        "mtu     = 1600",
        "mtu = 100",
        &["11:7: 100 is out of range for `mtu`; it goes from 1280 to 9600"],
    ),
    (
        "mtu     = 1600",
        r#"mtu = "big""#,
        &["11:7: `mtu` is a string; give a whole number from 1280 to 9600"],
    ),
    (
        "mtu     = 1600",
        "mtu = 1500.5",
        &["11:7: `mtu` is a number with a fraction; give a whole number from 1280 to 9600"],
    ),
    (
        "mtu     = 1600",
        "promiscuous = 1",
        &["11:15: `promiscuous` is a number; give true or false"],
    ),
    (
        "mtu     = 1600",
        "mtu = ",
        &["11:7: not valid TOML here: string values must be quoted, expected literal string"],
    ),
    (
        "mtu     = 1600",
        "mtu = 1600\nmtu = 1600",
        &["12:1: not valid TOML here: duplicate key"],
    ),
    (
        "workers = [1] ",
        "workers = []",
        &["2:11: `workers` is empty; name at least one lcore, as in [1]"],
    ),
    (
        "workers = [1] ",
        "workers = [1, 1]",
        &["2:15: lcore 1 stands twice in `workers`; remove one"],
    ),
    (
        "workers = [1] ",
        "workers = [1, 999]",
        &["2:15: 999 is out of range for `workers`; it goes from 0 to 127"],
    ),
    (
        "workers = [1] ",
        "workers = 1",
        &["2:11: `workers` is a number; give a list of whole numbers from 0 to 127"],
    ),
    (
        "flows   = 1_000_000",
        "flows = 10",
        &["3:9: 10 is out of range for `flows`; it goes from 1024 to 1000000000"],
    ),
    (
        r#"runtime_dir = "/run/weft""#,
        r#"runtime_dir = "run/weft""#,
        &[r#"5:15: `runtime_dir` "run/weft" is relative; give an absolute path"#],
    ),
    (
        r#"runtime_dir = "/run/weft""#,
        r#"huge_pages = "yes""#,
        &[r#"5:14: `huge_pages` "yes" is unknown; there is "auto", "on" and "off""#],
    ),
    (
        r#"runtime_dir = "/run/weft""#,
        r#"tunnel_source = "10.0.0.0/8""#,
        &[r#"5:17: "10.0.0.0/8" is a prefix: a tunnel source varied by flow is not yet available in this version; give one address of each family"#],
    ),
    (
        r#"runtime_dir = "/run/weft""#,
        r#"tunnel_source = ["10.0.0.1", "10.0.0.2"]"#,
        &["5:30: a second IPv4 address in `tunnel_source`; keep one of each family"],
    ),
    (
        r#"runtime_dir = "/run/weft""#,
        r#"file_prefix = "a b""#,
        &[r#"5:15: `file_prefix` "a b" will not do; use 1 to 48 of a-z, A-Z, 0-9, - and _"#],
    ),
    (
        r#"device  = "net_af_packet0,iface=lb0""#,
        "#",
        &["7:1: `device` is missing in [[dataplane.port]]; add `device = ...`, a PCI address such as `0000:3b:00.0`, or a vdev string as DPDK takes it"],
    ),
    (
        r#"device  = "net_af_packet0,iface=lb0""#,
        "device = \"net_af_packet0,iface=lb0\"\n[[dataplane.port]]\ndevice = \"net_af_packet0,iface=lb1\"",
        &["10:10: device net_af_packet0 is taken by a port above; give each port its own"],
    ),
    (
        r#"mac     = "02:00:00:00:02:01""#,
        r#"mac = "01:00:00:00:02:01""#,
        &[r#"9:7: "01:00:00:00:02:01" is a multicast MAC address; give the interface's own"#],
    ),
    (
        r#"mac     = "02:00:00:00:02:01""#,
        r#"mac = "02:00:00:00:02""#,
        &[r#"9:7: "02:00:00:00:02" is not a MAC address; write six hexadecimal bytes with colons, as in 02:00:00:00:02:01"#],
    ),
    (
        r#"address = ["10.0.1.254/24", "fd00:1::254/64"]"#,
        r#"address = ["10.0.1.254", "fd00:1::254/129"]"#,
        &[r#"10:12: "10.0.1.254" is not an address with a prefix length; write it as in 10.0.1.254/24 or fd00:1::254/64"#, r#"10:26: "fd00:1::254/129" has a bad prefix length; it goes from 1 to 32 for IPv4 and from 1 to 128 for IPv6"#],
    ),
    (
        r#"address = ["10.0.1.254/24", "fd00:1::254/64"]"#,
        r#"address = ["10.0.1.254/24", "10.0.1.254/25"]"#,
        &["10:29: address 10.0.1.254 is a port's already (line 10); remove one"],
    ),
    (
        "[[pool]]",
        "[[pol]]",
        &["13:3: unknown key `pol` at the top of the file; did you mean `pool`?", "16:3: a table where a list of tables is needed; write [[pool]] for each"],
    ),
    (
        "[[pool]]",
        "[pool]",
        &["13:1: a table where a list of tables is needed; write [[pool]] for each"],
    ),
    (
        r#"name = "web-servers""#,
        r#"name = "web servers""#,
        &[r#"14:8: "web servers" will not do as a name; use 1 to 63 bytes without spaces or control characters"#],
    ),
    (
        r#"name = "web-servers""#,
        r#"name = "web-server""#,
        &["32:12: there is no pool `web-servers`; did you mean `web-server`?"],
    ),
    (
        r#"name = "web-servers""#,
        "name = \"web-servers\"\n[[pool]]\nname = \"web-servers\"",
        &["13:1: pool `web-servers` has no backend; add at least one [[pool.backend]]", "16:8: there is a pool `web-servers` already (line 14); rename or remove one"],
    ),
    (
        r#"name    = "b2""#,
        r#"name = "b1""#,
        &["23:8: backend `b1` stands twice in its pool (line 17); rename or remove one"],
    ),
    (
        r#"name    = "b2""#,
        "#",
        &["22:1: `name` is missing in [[pool.backend]]; add `name = ...`, a name of 1 to 63 bytes without spaces or control characters"],
    ),
    (
        r#"address = ["10.0.1.12", "fd00:1::12"]"#,
        r#"address = ["10.0.1.11"]"#,
        &["24:12: address 10.0.1.11 is that of backend `b1` already; give each its own"],
    ),
    (
        r#"address = ["10.0.1.12", "fd00:1::12"]"#,
        r#"address = ["10.9.9.9"]"#,
        &["24:12: address 10.9.9.9 is VIP `web`'s; give the backend's own address"],
    ),
    (
        r#"address = ["10.0.1.12", "fd00:1::12"]"#,
        "address = []",
        &["24:11: `address` is empty; give an IP address, or a list of such"],
    ),
    (
        "weight  = 100",
        "weight = 1001",
        &["20:10: 1001 is out of range for `weight`; it goes from 0 to 1000"],
    ),
    (
        "weight  = 100",
        "weight = -1",
        &["20:10: -1 is out of range for `weight`; it goes from 0 to 1000"],
    ),
    (
        r#"address  = ["10.9.9.9", "fd99::9"]"#,
        r#"address = ["10.9.9.9", "fd99::9", "10.0.1.254"]"#,
        &["29:35: address 10.0.1.254 is a port's own (line 10); give the VIP an address that no port has"],
    ),
    (
        r#"address  = ["10.9.9.9", "fd99::9"]"#,
        r#"address = ["10.9.9.9", "10.9.9.9"]"#,
        &["29:24: address 10.9.9.9 stands twice in VIP `web`; remove one"],
    ),
    (
        r#"address  = ["10.9.9.9", "fd99::9"]"#,
        r#"address = "0.0.0.0""#,
        &[r#"29:11: "0.0.0.0" is the unspecified address; give one that a host has"#],
    ),
    (
        "port     = 8000",
        "port = 0",
        &[r#"30:8: 0 is no port number; they go from 1 to 65535, and "any" stands for all"#],
    ),
    (
        "port     = 8000",
        "port = 65536",
        &[r#"30:8: 65536 is no port number; they go from 1 to 65535, and "any" stands for all"#],
    ),
    (
        "port     = 8000",
        "port = []",
        &[r#"30:8: `port` is empty; give at least one port, or "any""#],
    ),
    (
        "port     = 8000",
        r#"port = [80, 80, "x"]"#,
        &["30:13: port 80 stands twice in the list; remove one", r#"30:17: `port` is a string; give a port number from 1 to 65535, a list of such, or "any""#],
    ),
    (
        "port     = 8000",
        r#"port = "all""#,
        &[r#"30:8: `port` is a string; give a port number from 1 to 65535, a list of such, or "any""#],
    ),
    (
        r#"protocol = "tcp""#,
        r#"protocol = "sctp""#,
        &[r#"31:12: `protocol` "sctp" is unknown; there is "tcp" and "udp""#],
    ),
    (
        r#"protocol = "tcp""#,
        r#"protocol = "udp""#,
        &[r#"35:1: [vip.mptcp] on a VIP with protocol "udp"; remove it, only TCP has joins to steer"#],
    ),
    (
        r#"pool     = "web-servers""#,
        "#",
        &["27:1: the VIP has neither `pool` nor [[vip.backend]]; name a pool or add backends of its own"],
    ),
    (
        r#"pool     = "web-servers""#,
        r#"pool = "nothing-like-it""#,
        &["32:8: there is no pool `nothing-like-it`; the pools are web-servers"],
    ),
    (
        r#"forward  = "l2dsr""#,
        r#"forward = "geneve""#,
        &[r#"33:11: `forward` "geneve" is unknown; there is "l2dsr", "ipip" and "gue""#],
    ),
    (
        r#"steering = ["learn"]"#,
        r#"steering = ["endpoint"]"#,
        &[
            r#"16:1: backend `b1` has no endpoint, but VIP `web` steers by "endpoint"; give it a port of its own by `endpoint_port`, or an address by `endpoint_address`"#,
            r#"22:1: backend `b2` has no endpoint, but VIP `web` steers by "endpoint"; give it a port of its own by `endpoint_port`, or an address by `endpoint_address`"#,
        ],
    ),
    (
        r#"steering = ["learn"]"#,
        r#"steering = ["learn", "token-map", "learn"]"#,
        &[r#"36:35: "learn" stands twice in `steering`; remove one"#],
    ),
    (
        r#"steering = ["learn"]"#,
        "steering = [\"token-map\"]\ntoken_map = \"cipher\"\ncipher_key_odd = \"0123\"",
        &[
            r#"16:1: backend `b1` has no `number`, which the VIP's encrypted tokens need (line 35); give it one"#,
            r#"22:1: backend `b2` has no `number`, which the VIP's encrypted tokens need (line 35); give it one"#,
            r#"38:18: `cipher_key_odd` is no secret of the right length; write 16 hexadecimal digits"#,
        ],
    ),
    (
        r#"steering = ["learn"]"#,
        "steering = [\"token-map\"]\ncipher_key_even = \"0000000000000000\"",
        &["37:19: `cipher_key_even` is all zero; draw it at random, as `openssl rand -hex 8` does"],
    ),
    (
        r#"steering = ["learn"]"#,
        r#"steering = ["chosen-key", "learn"]"#,
        &[
            r#"16:1: backend `b1` has no `number`, which the VIP's timestamps under "chosen-key" need (line 35); give it one"#,
            r#"22:1: backend `b2` has no `number`, which the VIP's timestamps under "chosen-key" need (line 35); give it one"#,
            r#"33:12: the VIP forwards by l2dsr, but steers by "chosen-key", whose keys travel in the GUE header; use `forward = "gue"`"#,
            r#"35:1: `steering` has "chosen-key" without a secret; give `key_secret`, or `key_secret_file`: 32 hexadecimal digits, as `openssl rand -hex 16` draws them"#,
        ],
    ),
    (
        r#"steering = ["learn"]"#,
        "steering = [\"token-map\", \"chosen-key\"]\nkey_secret = \"00112233445566778899aabbccddeef\"\nexplicit_tokens = [\"E\"]",
        &[
            r#"16:1: backend `b1` has no `number`, which the VIP's timestamps under "chosen-key" need (line 35); give it one"#,
            r#"22:1: backend `b2` has no `number`, which the VIP's timestamps under "chosen-key" need (line 35); give it one"#,
            r#"33:12: the VIP forwards by l2dsr, but steers by "chosen-key", whose keys travel in the GUE header; use `forward = "gue"`"#,
            r#"36:12: `steering` has "chosen-key" beside "token-map", and both say whose a token is; keep one of them"#,
            "37:14: `key_secret` is no secret of the right length; write 32 hexadecimal digits",
            r#"38:19: `explicit_tokens` beside "chosen-key", whose tokens are hashes of keys that Weft made; remove one"#,
        ],
    ),
    (
        r#"steering = ["learn"]"#,
        "steering = [\"learn\"]\ncipher_key_odd_file = \"/nonexistent/odd.key\"\nkey_secret_file = \"/dev\"\ncipher_key_even = \"0123456789abcdef\"\ncipher_key_even_file = \"even.key\"",
        &[
            "37:23: cannot read /nonexistent/odd.key: No such file or directory (os error 2); check the path, and that this user may read it",
            "38:19: /dev is no regular file; give one that holds the secret alone",
            "40:24: both `cipher_key_even` and `cipher_key_even_file`; keep one of them",
        ],
    ),
    (
        r#"unknown_token = "drop""#,
        "unknown_token = \"drop\"\n[metrics]\nlisten = \"localhost\"",
        &[r#"39:10: "localhost" is no address with a port; write it as "127.0.0.1:9464""#],
    ),
    (
        r#"mac     = "02:00:00:00:03:02""#,
        "number = 4096",
        &["25:10: 4096 is out of range for `number`; it goes from 1 to 4095"],
    ),
    (
        r#"steering = ["learn"]"#,
        r#"steering = ["lern"]"#,
        &[r#"36:13: `steering` "lern" is unknown; there is "learn", "endpoint", "token-map", "agent" and "chosen-key""#],
    ),
    (
        r#"steering = ["learn"]"#,
        r#"steering = "learn""#,
        &[r#"36:12: `steering` is a string; give a list of "learn", "endpoint", "token-map", "agent" and "chosen-key""#],
    ),
    (
        r#"unknown_token = "drop""#,
        r#"unknown_token = "reject""#,
        &[r#"37:17: `unknown_token` "reject" is unknown; there is "drop", "reset" and "hash""#],
    ),
    (
        r#"address = ["10.0.1.12", "fd00:1::12"]"#,
        r#"address = ["10.0.1.12", "10.0.1.13"]"#,
        &["24:25: a second IPv4 address in `address`; keep one of each family"],
    ),
    (
        r#"forward  = "l2dsr""#,
        "forward = \"ipip\"\n[[vip.backend]]\nname = \"x\"\naddress = \"10.0.1.13\"",
        &["32:12: the VIP has both `pool` and [[vip.backend]]; keep one of them"],
    ),
    (
        r#"address = ["10.0.1.12", "fd00:1::12"]"#,
        r#"address = "::ffff:10.0.1.12""#,
        &[r#"24:11: "::ffff:10.0.1.12" is an IPv4 address mapped into IPv6; write it as IPv4"#],
    ),
    (
        r#"address = ["10.0.1.12", "fd00:1::12"]"#,
        r#"adress = "10.0.1.12""#,
        &["22:1: `address` is missing in [[pool.backend]]; add `address = ...`, an IP address, or a list of such", "24:1: unknown key `adress` in [[pool.backend]]; did you mean `address`?"],
    ),
    (
        r#"runtime_dir = "/run/weft""#,
        "keep_tables = 1",
        &["5:15: `keep_tables` is a number; give true or false"],
    ),
    (
        r#"runtime_dir = "/run/weft""#,
        "[dataplane.idle]\nclosing_mptcp = 59\nestablished = 64_001\nhalf_open = 0\nudp = \"never\"",
        &[
            "6:17: 59 is out of range for `closing_mptcp`; it goes from 60 to 64000",
            "7:15: 64001 is out of range for `established`; it goes from 1 to 64000",
            "8:13: 0 is out of range for `half_open`; it goes from 1 to 64000",
            "9:7: `udp` is a string; give a whole number from 1 to 64000",
        ],
    ),
    (
        r#"runtime_dir = "/run/weft""#,
        "[dataplane.evict]\nown = 64_001\nkept = \"Never\"\nadopted = true\nudp = 0",
        &[
            "6:7: 64001 is out of range for `own`; it goes from 0 to 64000",
            r#"7:8: `kept` is a string; give a whole number from 0 to 64000, or "never""#,
            r#"8:11: `adopted` is a truth value; give a whole number from 0 to 64000, or "never""#,
            "9:1: unknown key `udp` in [dataplane.evict]; the keys here are half_open, adopted, closing, own and kept",
        ],
    ),
    (
        "mtu     = 1600",
        r#"gateway = ["10.0.2.1", "10.0.1.254", "fd00:1::1"]"#,
        &[
            "11:12: gateway 10.0.2.1 is in no prefix of the port's `address`; give a router of the port's own network",
            "11:24: gateway 10.0.1.254 is the port's own address; give the router's",
            "11:24: a second IPv4 address in `gateway`; keep one of each family",
        ],
    ),
    (
        "mtu     = 1600",
        r#"exception = "weft 0""#,
        &[r#"11:13: `exception` "weft 0" will not do as an interface's name; use 1 to 15 of a-z, A-Z, 0-9, ., _ and -"#],
    ),
    (
        "mtu     = 1600",
        r#"exception = "sixteen-letters-""#,
        &[r#"11:13: `exception` "sixteen-letters-" will not do as an interface's name; use 1 to 15 of a-z, A-Z, 0-9, ., _ and -"#],
    ),
    (
        "mtu     = 1600",
        r#"exception = "all""#,
        &[r#"11:13: `exception` "all" has another meaning to the kernel; use another name"#],
    ),
    (
        "mtu     = 1600",
        "exception = \"weft0\"\n[[dataplane.port]]\ndevice = \"x\"\nexception = \"weft0\"",
        &[r#"14:13: `exception` "weft0" is that of a port above; give each port its own"#],
    ),
];

#[test]
fn every_mistake_is_reported_where_it_stands_and_says_what_to_do() {
    for (line, instead, messages) in ROWS {
        let expected: Vec<String> = messages.iter().map(|message| format!("weft.toml:{message}")).collect();
        assert_eq!(problems(&with(line, instead)), expected, "{line} replaced by {instead}");
    }
}

#[test]
fn all_mistakes_of_a_file_are_reported_in_the_order_of_the_file() {
    let text =
        with("mtu     = 1600", "mtu = 1").replace("port     = 8000", "port = 0").replace("[1]  ", "[]");
    let places: Vec<String> =
        problems(&text).iter().map(|p| p.splitn(4, ':').take(3).collect::<Vec<_>>().join(":")).collect();
    assert_eq!(places, ["weft.toml:2:11", "weft.toml:11:7", "weft.toml:30:8"]);
}

#[test]
fn columns_count_characters_not_bytes() {
    let text = with(r#"runtime_dir = "/run/weft""#, r#"tunnel_source = ["ünï", "10.0.0.1"]"#);
    let text = text.replace("10.0.0.1\"", "10.0.0.256\"");
    assert_eq!(
        problems(&text),
        [
            r#"weft.toml:5:18: "ünï" is not an IP address; write it as in 10.9.9.9 or fd99::9"#,
            r#"weft.toml:5:25: "10.0.0.256" is not an IP address; write it as in 10.9.9.9 or fd99::9"#,
        ]
    );
}

#[test]
fn a_file_that_is_not_there_is_one_sentence() {
    let problems = Config::load("/nonexistent/weft.toml").unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        "/nonexistent/weft.toml: cannot be read: No such file or directory (os error 2); check the path, and that this \
         user may read it"
    );
}

/// A VIP of its own name, addresses and port, served by the example's pool.
fn another_vip(name: &str, address: &str, port: &str, rest: &str) -> String {
    format!(
        "{GOOD}\n[[vip]]\nname = \"{name}\"\naddress = {address}\nport = {port}\npool = \"web-servers\"\n{rest}\n"
    )
}

#[test]
fn two_vips_must_not_share_name_or_service() {
    assert_eq!(
        problems(&another_vip("web", r#""10.9.9.9""#, "8000", "")),
        [
            "weft.toml:40:8: VIP `web` stands twice (line 28); rename or remove one",
            "weft.toml:41:11: address 10.9.9.9, port 8000 is VIP `web`'s already (line 29); give each VIP its own",
        ]
    );
}

#[test]
fn two_vips_may_share_an_address_by_port_or_protocol() {
    assert_eq!(problems(&another_vip("https", r#""10.9.9.9""#, "8443", "")), [""; 0]);
    assert_eq!(problems(&another_vip("rest", r#""10.9.9.9""#, r#""any""#, "")), [""; 0]);
    assert_eq!(problems(&another_vip("udp", r#""10.9.9.9""#, "8000", r#"protocol = "udp""#)), [""; 0]);
}

#[test]
fn l2dsr_needs_a_family_in_common_and_tunnels_take_any_mix() {
    let one_family = with(r#"address = ["10.0.1.12", "fd00:1::12"]"#, r#"address = "10.0.1.12""#);
    assert_eq!(problems(&one_family), [""; 0]);
    for tunnel in ["ipip", "gue"] {
        assert_eq!(problems(&one_family.replace("l2dsr", tunnel)), [""; 0], "{tunnel}");
    }
    let other_family = one_family.replace(r#"["10.9.9.9", "fd99::9"]"#, r#""fd99::9""#);
    assert_eq!(
        problems(&other_family),
        ["weft.toml:22:1: backend `b2` has no address of a family of VIP `web`; add one"]
    );
    for tunnel in ["ipip", "gue"] {
        assert_eq!(problems(&other_family.replace("l2dsr", tunnel)), [""; 0], "{tunnel}");
    }
}

#[test]
fn a_backend_beyond_the_ports_networks_needs_a_tunnel_and_a_gateway_of_its_family() {
    let far = with(r#"address = ["10.0.1.12", "fd00:1::12"]"#, r#"address = "10.0.2.12""#)
        .replace(r#"mac     = "02:00:00:00:03:02""#, "");
    assert_eq!(
        problems(&far),
        [
            "weft.toml:22:1: backend `b2` is not on a port's network (10.0.2.12), but VIP `web` forwards by l2dsr, which \
          reaches only that; use `forward = \"ipip\"` or \"gue\", or give a port an address in the backend's network"
        ]
    );
    for tunnel in ["ipip", "gue"] {
        let tunnelled = far.replace("l2dsr", tunnel);
        assert_eq!(
            problems(&tunnelled),
            [
                "weft.toml:22:1: backend `b2` is not on a port's network (10.0.2.12), and no port has an IPv4 gateway; \
              add `gateway` to [[dataplane.port]]"
            ]
        );
        let of_another_family = tunnelled.replace("mtu     = 1600", r#"gateway = "fd00:1::1""#);
        assert_eq!(problems(&of_another_family), problems(&tunnelled));
        assert_eq!(problems(&tunnelled.replace("mtu     = 1600", r#"gateway = "10.0.1.1""#)), [""; 0]);
        let mac = "address = \"10.0.2.12\"\nmac = \"02:00:00:00:03:09\"";
        assert_eq!(
            problems(&tunnelled.replace(r#"address = "10.0.2.12""#, mac)),
            [""; 0],
            "its next hop is given"
        );
    }
}

#[test]
fn where_no_port_has_an_address_no_backend_is_too_far() {
    let far = with(r#"address = ["10.0.1.12", "fd00:1::12"]"#, r#"address = "10.0.2.12""#);
    let unknown = far.replace(r#"address = ["10.0.1.254/24", "fd00:1::254/64"]"#, "");
    assert_eq!(problems(&unknown), [""; 0]);
    let other_family = far.replace(r#"["10.0.1.254/24", "fd00:1::254/64"]"#, r#""fd00:1::254/64""#);
    assert_eq!(problems(&other_family), [""; 0]);
}

#[test]
fn a_mistake_in_a_ports_addresses_is_not_said_again_of_every_backend() {
    let far = with(r#"address = ["10.0.1.254/24", "fd00:1::254/64"]"#, r#"address = ["10.0.2.254/24", "x"]"#);
    assert_eq!(
        problems(&far),
        [
            r#"weft.toml:10:29: "x" is not an address with a prefix length; write it as in 10.0.1.254/24 or fd00:1::254/64"#
        ]
    );
}

#[test]
fn limits_of_the_data_plane_are_limits_of_the_file() {
    let mut text = with("workers = [1]", &format!("workers = {:?}", (0..33).collect::<Vec<_>>()));
    for index in 0..256 {
        write!(text, "\n[[pool]]\nname = \"p{index}\"\n").unwrap();
        for backend in 0..16 {
            let address = format!("10.1.{index}.{backend}");
            write!(text, "[[pool.backend]]\nname = \"b{backend}\"\naddress = \"{address}\"\n").unwrap();
        }
    }
    assert_eq!(
        problems(&text),
        [
            "weft.toml:1:1: 257 pools; Weft takes at most 256",
            "weft.toml:1:1: 4098 backends in all; Weft takes at most 4095",
            "weft.toml:2:11: 33 workers; Weft takes at most 32",
        ]
    );
    let ports = (1..=2049).collect::<Vec<_>>();
    assert_eq!(
        problems(&with("port     = 8000", &format!("port = {ports:?}"))),
        ["weft.toml:27:1: more than 4096 pairs of address and port; Weft takes no more"]
    );
}

#[test]
fn agents_are_listened_to_where_they_are_asked_for_and_by_whom_may_be_believed() {
    let steered = with(r#"steering = ["learn"]"#, r#"steering = ["learn", "agent"]"#);
    let agents = |lines: &str| problems(&format!("{steered}\n[agents]\n{lines}\n"));
    let files = "authority = \"a.pem\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n";
    assert_eq!(agents("listen = \"127.0.0.1:7443\""), [""; 0]);
    assert_eq!(agents("listen = \"[::1]:7443\""), [""; 0]);
    assert_eq!(agents(&format!("listen = \"10.0.1.254:7443\"\n{files}")), [""; 0]);
    assert_eq!(
        problems(&steered),
        [
            "weft.toml:27:1: VIP `web` is steered by \"agent\", and nobody listens to agents; add [agents] with `listen`"
        ]
    );
    assert_eq!(
        agents("listen = \"10.0.1.254:7443\""),
        [
            "weft.toml:40:10: 10.0.1.254 can be reached from elsewhere, and nothing says who may report: give `authority`, \
          `certificate` and `key`, or listen on 127.0.0.1 or ::1"
        ]
    );
    assert_eq!(
        agents("listen = \"127.0.0.1:7443\"\nkey = \"k.pem\""),
        ["weft.toml:39:1: `authority`, `certificate` and `key` go together; give all three"]
    );
    assert_eq!(
        agents("listen = \"127.0.0.1\""),
        ["weft.toml:40:10: \"127.0.0.1\" is no address with a port; write it as \"10.0.1.254:7443\""]
    );
    assert_eq!(
        agents("listen = \"127.0.0.1:7443\"\nreports_per_second = 1"),
        ["weft.toml:41:22: 1 is out of range for `reports_per_second`; it goes from 100 to 1000000"]
    );
}
