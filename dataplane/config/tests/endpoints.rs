//! Endpoints in the file: what they become, and every mistake about them with its exact message.

use config::Config;
use ipc::message::{Handles, Scheme, WrongEndpoint};

const GOOD: &str = include_str!("../../../docs/weft.example.toml");

/// The example, steering by endpoint, where b1 and b2 have these lines.
fn with(b1: &str, b2: &str) -> String {
    let text = GOOD.replace("weight  = 100\n", &format!("{b1}\n"));
    let text = text
        .replace("mac     = \"02:00:00:00:03:02\"\n", &format!("mac     = \"02:00:00:00:03:02\"\n{b2}\n"));
    text.replace("steering = [\"learn\"]", "steering = [\"endpoint\", \"learn\"]")
}

fn problems(text: &str) -> Vec<String> {
    match Config::parse(text, "weft.toml") {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn ports_and_addresses_become_handles_and_the_order_of_schemes_is_kept() {
    let text = with("endpoint_port = 20001", "endpoint_address = [\"fd99::a2\", \"10.9.10.2\"]")
        .replace("unknown_token = \"drop\"", "unknown_token = \"drop\"\nwrong_endpoint = \"drop\"");
    let config = Config::parse(&text, "weft.toml").unwrap();
    let [b1, b2] = &config.pools[0].backends[..] else { panic!("two backends") };
    assert_eq!(b1.handles, Handles { endpoint_port: Some(20_001), ..Handles::default() });
    let both = Handles {
        endpoint4: Some([10, 9, 10, 2].into()),
        endpoint6: Some("fd99::a2".parse().unwrap()),
        ..Handles::default()
    };
    assert_eq!(b2.handles, both);
    let steering = config.vips[0].steering;
    assert_eq!(steering.schemes.iter().collect::<Vec<_>>(), [Scheme::Endpoint, Scheme::Learn]);
    assert_eq!(steering.wrong_endpoint, WrongEndpoint::Drop);
    assert!(config.vips[0].has_endpoints());
    let usual = Config::parse(GOOD, "weft.toml").unwrap();
    assert_eq!(usual.vips[0].steering.wrong_endpoint, WrongEndpoint::Reset, "the default");
    assert!(!usual.vips[0].has_endpoints());
}

#[test]
fn a_backend_without_an_endpoint_has_one_to_get() {
    assert_eq!(
        problems(&with("endpoint_port = 20001", "")),
        [
            "weft.toml:22:1: backend `b2` has no endpoint, but VIP `web` steers by \"endpoint\"; give it a port of its own \
          by `endpoint_port`, or an address by `endpoint_address`"
        ]
    );
    let learns = with("endpoint_port = 20001", "").replace("\"endpoint\", ", "");
    assert_eq!(problems(&learns), [""; 0], "where nobody steers by endpoint nobody needs one");
}

#[test]
fn no_two_backends_share_an_endpoint() {
    assert_eq!(
        problems(&with("endpoint_port = 20001", "endpoint_port = 20001")),
        [
            "weft.toml:22:1: backend `b2` has the `endpoint_port` of backend `b1` of pool `web-servers` (10.9.9.9, port \
          20001); give each its own"
        ]
    );
    assert_eq!(
        problems(&with("endpoint_address = \"10.9.10.1\"", "endpoint_address = \"10.9.10.1\"")),
        [
            "weft.toml:22:1: backend `b2` has the `endpoint_address` of backend `b1` of pool `web-servers` (10.9.10.1, port \
          8000); give each its own"
        ]
    );
}

#[test]
fn an_endpoint_is_neither_a_vips_nor_a_ports_nor_another_servers() {
    let good = "endpoint_port = 20002";
    let rows = [
        (
            "endpoint_port = 8000",
            "backend `b1` has `endpoint_port` 8000, which on 10.9.9.9 is a port of VIP `web`; give it a port that clients \
             do not connect to",
        ),
        (
            "endpoint_address = \"10.9.9.9\"",
            "backend `b1` has `endpoint_address` 10.9.9.9, which is VIP `web`'s; give it an address of its own, or a port \
             by `endpoint_port`",
        ),
        (
            "endpoint_address = \"10.0.1.254\"",
            "backend `b1` has `endpoint_address` 10.0.1.254, which is a port's own; give it an address that no port has",
        ),
        (
            "endpoint_address = \"10.0.1.12\"",
            "backend `b1` has `endpoint_address` 10.0.1.12, which is the address of backend `b2`; give each its own",
        ),
    ];
    for (line, message) in rows {
        assert_eq!(problems(&with(line, good)), [format!("weft.toml:16:1: {message}")], "{line}");
    }
    assert_eq!(
        problems(&with("endpoint_address = \"10.0.1.11\"", good)),
        [""; 0],
        "the server's own address"
    );
}

#[test]
fn a_vip_on_every_port_has_no_room_for_ports_and_some_for_addresses() {
    let any = |b1: &str| {
        with(b1, "endpoint_address = \"10.9.10.2\"").replace("port     = 8000", "port     = \"any\"")
    };
    assert_eq!(
        problems(&any("endpoint_port = 20001")),
        [
            "weft.toml:16:1: backend `b1` has `endpoint_port` 20001, but VIP `web` is on every port already; give it an \
          address of its own by `endpoint_address`"
        ]
    );
    assert_eq!(problems(&any("endpoint_address = \"10.9.10.1\"")), [""; 0]);
}

#[test]
fn values_that_are_no_ports_or_addresses_are_said_where_they_stand() {
    assert_eq!(
        problems(&with("endpoint_port = 0", "endpoint_address = [\"10.9.10.2\", \"10.9.10.3\", \"x\"]")),
        [
            "weft.toml:20:17: 0 is out of range for `endpoint_port`; it goes from 1 to 65535",
            "weft.toml:26:34: a second IPv4 address in `endpoint_address`; keep one of each family",
            "weft.toml:26:47: \"x\" is not an IP address; write it as in 10.9.9.9 or fd99::9",
        ]
    );
}

#[test]
fn a_backend_that_joins_at_run_time_obeys_the_same_rules() {
    let mut config =
        Config::parse(&with("endpoint_port = 20001", "endpoint_port = 20002"), "weft.toml").unwrap();
    let pool = config.pools[0].name;
    let mut b3 = config.pools[0].backends.pop().unwrap();
    let mut check = |port| {
        b3.handles.endpoint_port = port;
        config.check_backend(&pool, &b3)
    };
    assert!(check(None).unwrap_err().starts_with("the backend has no endpoint, but VIP `web`"));
    assert!(
        check(Some(20_001)).unwrap_err().starts_with("the backend has the `endpoint_port` of backend `b1`")
    );
    assert!(check(Some(8000)).unwrap_err().starts_with("the backend has `endpoint_port` 8000"));
    assert_eq!(check(Some(20_003)), Ok(()));
}

#[test]
fn a_backend_that_joins_at_run_time_takes_no_endpoint_of_a_pool_that_comes_later() {
    let later = "[[pool]]\nname = \"zeta\"\n[[pool.backend]]\nname = \"z1\"\naddress = \"10.0.1.50\"\n\
                 mac = \"02:00:00:00:03:50\"\nendpoint_port = 20009\n[[vip]]\nname = \"zeta\"\npool = \"zeta\"\n\
                 address = \"10.9.9.9\"\nport = 9443\n[vip.mptcp]\nsteering = [\"endpoint\"]\n";
    let text = with("endpoint_port = 20001", "endpoint_port = 20002");
    let mut config = Config::parse(&format!("{text}\n{later}"), "weft.toml").unwrap();
    let pool = config.pools[0].name;
    let mut b3 = config.pools[0].backends.pop().unwrap();
    b3.handles.endpoint_port = Some(20_009);
    let said = config.check_backend(&pool, &b3).unwrap_err();
    assert!(
        said.starts_with("with it, backend `z1` of pool `zeta` has the `endpoint_port` of backend"),
        "{said}"
    );
    b3.handles.endpoint_port = Some(20_010);
    assert_eq!(config.check_backend(&pool, &b3), Ok(()));
}
