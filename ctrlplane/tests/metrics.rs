//! What is counted, as Prometheus and weftctl get it from a real control plane over a real segment.

#![cfg(test)]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use ipc::counter::Counter;
use ipc::counters::{Gauge, LinkCounter, PortGauge};
use ipc::reason::Reason;
use support::{Ctrlplane, Dataplane, EXAMPLE, Place, wait_until};

/// A place whose control plane serves metrics.
fn scene() -> (Place, SocketAddr) {
    let place = Place::new();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    place.write(&format!("{EXAMPLE}\n[metrics]\nlisten = \"{address}\"\n"));
    (place, address)
}

/// Asks for a path; the head of the answer, and its body.
fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: weft\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The values of a page, by name and labels as they stand there. No two are of one name and labels.
fn values(page: &str) -> BTreeMap<String, u64> {
    let mut values = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert_eq!(values.insert(series.to_owned(), value.parse().unwrap()), None, "{series} stands twice");
    }
    values
}

/// A number for each place, none of them twice.
fn number(base: u64, index: usize) -> u64 {
    base + u64::try_from(index).unwrap()
}

fn count_everything(dataplane: &Dataplane) {
    dataplane.change(|held| {
        held.count = Counter::ALL.iter().map(|counter| (*counter, number(10_000, counter.index()))).collect();
        held.reasons = Reason::ALL.iter().map(|reason| (*reason, number(20_000, reason.index()))).collect();
        held.gauges = Gauge::ALL
            .iter()
            .filter(|gauge| !matches!(gauge, Gauge::Workers | Gauge::Ports | Gauge::TablePages))
            .map(|gauge| (*gauge, number(30_000, gauge.index())))
            .collect();
        held.links =
            LinkCounter::ALL.iter().flat_map(|link| std::iter::repeat_n(*link, 100 + link.index())).collect();
    });
}

/// What was counted before [`count_everything`] by the data plane of these tests.
fn before(name: &str) -> u64 {
    match name {
        "token_learned" => 3,
        "unknown_token" => 7,
        "not_vip" => 9,
        "token" => 5,
        _ => 0,
    }
}

fn running(place: &Place) -> (Dataplane, Ctrlplane) {
    let both = place.both();
    count_everything(&both.0);
    wait_until("everything is counted", || place.json(&["status"])["dataplane"]["tables"]["flows"] != 0);
    both
}

#[test]
fn every_counter_reason_and_gauge_is_a_metric_with_its_own_value() {
    let (place, address) = scene();
    let _both = running(&place);
    let (head, page) = get(address, "/metrics");
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(page.ends_with("# EOF\n"));
    let values = values(&page);
    let value = |series: String| *values.get(&series).unwrap_or_else(|| panic!("no {series} in {page}"));
    for counter in Counter::ALL {
        let name = counter.name();
        let counted = value(format!("weft_{name}_total{{worker=\"0\"}}"));
        assert_eq!(counted, number(10_000, counter.index()) + before(name), "{name}");
        assert!(page.contains(&format!("# HELP weft_{name} {}", counter.meaning())), "{name}");
    }
    for reason in Reason::ALL {
        let (name, verdict) = (reason.name(), if reason.is_drop() { "dropped" } else { "kept" });
        let series = format!("weft_verdicts_total{{reason=\"{name}\",verdict=\"{verdict}\",worker=\"0\"}}");
        assert_eq!(value(series), number(20_000, reason.index()) + before(name), "{name}");
    }
    for gauge in Gauge::ALL {
        match gauge {
            Gauge::Workers | Gauge::Ports => assert_eq!(value(format!("weft_{gauge}")), 1),
            Gauge::TablePages => {
                assert!(values.keys().any(|series| series.starts_with("weft_table_pages")), "{page}");
            }
            _ => assert_eq!(value(format!("weft_{gauge}")), number(30_000, gauge.index()), "{gauge}"),
        }
    }
    for link in LinkCounter::ALL {
        // The link of this test counts its own attaches, batches and so on besides.
        let counted = value(format!("weft_link_{link}_total"));
        assert!(counted >= number(100, link.index()), "{link}: {counted}");
    }
    for gauge in PortGauge::ALL {
        let series = values.iter().find(|(series, _)| {
            let name = series.split('{').next().unwrap();
            series.contains("device=\"net_null0\"")
                && name.trim_end_matches("_total") == format!("weft_port_{gauge}")
        });
        let expected = if *gauge == PortGauge::Mac { 1 } else { number(100, gauge.index()) };
        assert_eq!(series.map(|(_, value)| *value), Some(expected), "{gauge}");
    }
    let backend = "pool=\"web-servers\",backend=\"b1\",presence=\"present\",id=\"1\"";
    assert_eq!(value(format!("weft_backend_packets_total{{{backend}}}")), 40);
    assert_eq!(value(format!("weft_backend_tokens{{{backend}}}")), 4);
    assert_eq!(value("weft_vip_bytes_total{vip=\"web\"}".to_owned()), 6000);
    assert_eq!(value("weft_up".to_owned()), 1);
}

#[test]
fn every_rule_of_steering_is_told_by_weftctl_with_its_own_value() {
    let (place, _) = scene();
    let _both = running(&place);
    let rows = place.json(&["steering"]);
    let told: BTreeMap<&str, u64> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["rule"].as_str().unwrap(), row["count"].as_u64().unwrap()))
        .collect();
    assert_eq!(told.len(), rows.as_array().unwrap().len(), "no name stands for two");
    let (mut rules, mut of_others) = (0, 0);
    for counter in Counter::ALL {
        match told.get(counter.name()) {
            Some(count) => {
                assert_eq!(*count, number(10_000, counter.index()) + before(counter.name()), "{counter}");
                rules += 1;
            }
            None => of_others += 1,
        }
    }
    assert!(rules > 20 && of_others > 20, "{rules} rules, {of_others} others");
    for reason in [Reason::Token, Reason::TokenMap, Reason::Endpoint, Reason::EndpointReset, Reason::JoinRate]
    {
        let count = number(20_000, reason.index()) + before(reason.name());
        assert_eq!(told[reason.name()], count, "{reason}");
    }
    let table = place.weftctl(&["steering"]).out;
    assert!(table.starts_with("SCHEME") && table.contains("\ntoken-map "), "{table}");
}

#[test]
fn without_a_data_plane_metrics_say_so_and_nothing_else_is_served() {
    let (place, address) = scene();
    let _ctrlplane = place.ctrlplane();
    wait_until("metrics are served", || TcpStream::connect(address).is_ok());
    let (_, page) = get(address, "/metrics");
    assert_eq!(values(&page).get("weft_up"), Some(&0));
    for path in ["/", "/v1/status", "/v1/backends"] {
        assert!(get(address, path).0.starts_with("HTTP/1.1 404"), "{path}");
    }
}

#[test]
fn a_reload_says_that_metrics_need_a_restart_and_goes_on_serving_them() {
    let (place, address) = scene();
    let _both = place.both();
    place.write(EXAMPLE);
    let said = place.weftctl(&["reload"]);
    assert!(said.code == 0 && said.out.contains("[metrics] changed: restart weft-ctrlplane"), "{said:?}");
    assert_eq!(values(&get(address, "/metrics").1).get("weft_up"), Some(&1));
}
