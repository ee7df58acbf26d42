//! Everything that is counted, in the OpenMetrics text form that Prometheus scrapes.
//!
//! One walk over the definitions of both processes (`ipc`'s counters, reasons and gauges) makes the families, so that a new
//! counter is a new metric without a line here; a test holds that none is left out. Counters are told by worker: that one
//! worker does all the work is seen here or nowhere.

use std::fmt;

use ipc::counter::Counter;
use ipc::counters::{Gauge, GaugeReader, LinkCounter, PortGauge};
use ipc::id::WorkerId;
use ipc::message::Event;
use ipc::reason::Reason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::session::LinkView;
use crate::view::AgentSummary;

/// What a scrape is answered with.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The labels of one value.
type Labels = Vec<(&'static str, String)>;

/// One metric with a value for each set of labels.
#[derive(Debug)]
struct Family {
    name: String,
    help: &'static str,
    kind: MetricType,
    values: Vec<(Labels, u64)>,
}

impl Family {
    fn encode(&self, value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
        match self.kind {
            MetricType::Counter => ConstCounter::new(value).encode(encoder),
            _ => ConstGauge::new(value).encode(encoder),
        }
    }
}

/// What is told at one moment.
#[derive(Debug)]
struct Moment(Vec<Family>);

impl Collector for Moment {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let mut metric = encoder.encode_descriptor(&family.name, family.help, None, family.kind)?;
            if let [(labels, value)] = family.values.as_slice()
                && labels.is_empty()
            {
                family.encode(*value, metric)?;
                continue;
            }
            for (labels, value) in &family.values {
                family.encode(*value, metric.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

/// The whole page. Without a data plane it says so, and what agents come to.
pub(crate) fn page(view: Option<&LinkView>, agents: &AgentSummary) -> Result<String, fmt::Error> {
    let up = [(Labels::new(), u64::from(view.is_some()))];
    let mut families = vec![gauge("up", "Whether weft-dataplane runs and answers.", up)];
    if let Some(view) = view {
        counters(view, &mut families);
        traffic(view, &mut families);
        if let Some(gauges) = &view.gauges {
            of_manager(gauges, &mut families);
            of_ports(gauges, &mut families);
        }
    }
    of_agents(agents, &mut families);
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Moment(families)));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

fn family(
    kind: MetricType,
    name: &str,
    help: &'static str,
    values: impl IntoIterator<Item = (Labels, u64)>,
) -> Family {
    Family { name: format!("weft_{name}"), help, kind, values: values.into_iter().collect() }
}

fn counter(name: &str, help: &'static str, values: impl IntoIterator<Item = (Labels, u64)>) -> Family {
    family(MetricType::Counter, name, help, values)
}

fn gauge(name: &str, help: &'static str, values: impl IntoIterator<Item = (Labels, u64)>) -> Family {
    family(MetricType::Gauge, name, help, values)
}

/// What workers count, and what became of packets.
fn counters(view: &LinkView, families: &mut Vec<Family>) {
    let count = view.gauges.as_ref().map_or(0, |gauges| gauges.get(Gauge::Workers));
    let readers = (0..u16::MAX).take(usize::try_from(count).unwrap_or(usize::MAX));
    let readers: Vec<_> =
        readers.map_while(|id| Some((id.to_string(), view.counters.worker(WorkerId(id))?))).collect();
    for named in Counter::ALL {
        let values =
            readers.iter().map(|(worker, of)| (vec![("worker", worker.clone())], of.counter(*named)));
        families.push(counter(named.name(), named.meaning(), values));
    }
    let values = readers.iter().flat_map(|(worker, of)| {
        Reason::ALL.iter().map(move |reason| {
            let verdict = if reason.is_drop() { "dropped" } else { "kept" };
            let labels = vec![
                ("reason", reason.name().to_owned()),
                ("verdict", verdict.to_owned()),
                ("worker", worker.clone()),
            ];
            (labels, of.reason(*reason))
        })
    });
    families.push(counter("verdicts", "Packets by the reason of their verdict.", values));
}

/// What came to VIPs and went to backends.
fn traffic(view: &LinkView, families: &mut Vec<Family>) {
    let mut vips = Vec::new();
    let mut backends = Vec::new();
    for event in &view.dump.records {
        match *event {
            Event::Vip { id, name, .. } => {
                vips.push((vec![("vip", name.to_string())], view.counters.vip(id)));
            }
            Event::Backend { id, pool, name, flows, tokens, presence, .. } => {
                let labels = vec![
                    ("pool", pool.to_string()),
                    ("backend", name.to_string()),
                    ("presence", presence.to_string()),
                    // Of one name there may be one that is and several that were.
                    ("id", id.0.to_string()),
                ];
                backends.push((labels, view.counters.backend(id), flows, tokens));
            }
            _ => {}
        }
    }
    let of_vips = vips.iter();
    families.extend([
        counter(
            "vip_packets",
            "Packets to a VIP.",
            of_vips.clone().map(|(of, all)| (of.clone(), all.packets)),
        ),
        counter("vip_bytes", "Bytes to a VIP.", of_vips.map(|(of, all)| (of.clone(), all.bytes))),
    ]);
    let of = backends.iter();
    families.extend([
        counter(
            "backend_packets",
            "Packets to a backend.",
            of.clone().map(|(of, all, ..)| (of.clone(), all.packets)),
        ),
        counter(
            "backend_bytes",
            "Bytes to a backend.",
            of.clone().map(|(of, all, ..)| (of.clone(), all.bytes)),
        ),
        gauge(
            "backend_flows",
            "Flow entries that hold a backend, at the last sweep.",
            of.clone().map(|(of, _, flows, _)| (of.clone(), *flows)),
        ),
        gauge(
            "backend_tokens",
            "Token entries that hold a backend, at the last sweep.",
            of.map(|(of, _, _, tokens)| (of.clone(), *tokens)),
        ),
    ]);
}

/// What the manager tells: sizes, fill, and how it goes with the control plane and agents.
fn of_manager(gauges: &GaugeReader, families: &mut Vec<Family>) {
    for named in Gauge::ALL {
        // The kind of page is a name: its number means nothing outside.
        let pages = gauges.table_pages().filter(|_| *named == Gauge::TablePages);
        let value = match pages {
            Some(pages) => (vec![("kind", pages.name().to_owned())], 1),
            None => (Labels::new(), gauges.get(*named)),
        };
        families.push(gauge(named.name(), named.meaning(), [value]));
    }
    for named in LinkCounter::ALL {
        let name = format!("link_{}", named.name());
        families.push(counter(&name, named.meaning(), [(Labels::new(), gauges.link(*named))]));
    }
}

fn of_ports(gauges: &GaugeReader, families: &mut Vec<Family>) {
    for named in PortGauge::ALL {
        let values = gauges.ports().map(|port| {
            let device = ("device", gauges.port_name(port));
            let value = gauges.port(port, *named);
            match named {
                // An address is a name, too.
                PortGauge::Mac => {
                    let [_, _, mac @ ..] = value.to_be_bytes();
                    (vec![device, ("mac", config::format_mac(mac))], 1)
                }
                _ => (vec![device], value),
            }
        });
        let kind = match named {
            PortGauge::Mac | PortGauge::Mtu | PortGauge::LinkUp => MetricType::Gauge,
            _ => MetricType::Counter,
        };
        families.push(family(kind, &format!("port_{}", named.name()), named.meaning(), values));
    }
}

fn of_agents(agents: &AgentSummary, families: &mut Vec<Family>) {
    let rows = || agents.agents.iter().map(|row| (vec![("backend", row.backend.clone())], row));
    families.extend([
        gauge(
            "agent_connected",
            "Whether a backend's agent is connected.",
            rows().map(|(of, row)| (of, u64::from(row.connected))),
        ),
        gauge("agent_tokens", "Connections that an agent reports.", rows().map(|(of, row)| (of, row.tokens))),
        counter("agent_dumps", "Times an agent told all there is.", rows().map(|(of, row)| (of, row.dumps))),
        counter(
            "agent_too_many",
            "Reports of an agent that were more than it may make.",
            rows().map(|(of, row)| (of, row.refused)),
        ),
    ]);
}
