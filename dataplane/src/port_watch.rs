//! What ports and the pool say of themselves, for whoever reads the gauges.

use dpdk::{Pool, Port};
use ipc::counters::{Gauge, GaugeWriter, PortGauge};
use ipc::id::PortId;

/// The ports and their pool, as the manager looks at them now and then. Workers know nothing of it.
#[derive(Debug)]
pub struct PortWatch {
    ports: Vec<Watched>,
    pool: Pool,
}

#[derive(Debug)]
struct Watched {
    port: Port,
    up: bool,
    downs: u64,
}

impl PortWatch {
    /// A watch over started ports, in the configuration's order, and the pool their packets come from.
    pub fn new(ports: Vec<Port>, pool: Pool) -> Self {
        let ports = ports.into_iter().map(|port| Watched { port, up: false, downs: 0 }).collect();
        Self { ports, pool }
    }

    /// Asks the ports and the pool, and tells what they say.
    pub fn show(&mut self, gauges: &GaugeWriter) {
        gauges.set(Gauge::MbufCapacity, u64::from(self.pool.capacity()));
        gauges.set(Gauge::MbufsInUse, u64::from(self.pool.in_use()));
        for (index, watched) in self.ports.iter_mut().enumerate() {
            let Ok(id) = u8::try_from(index).map(PortId) else { continue };
            watched.show(id, gauges);
        }
    }
}

impl Watched {
    fn show(&mut self, id: PortId, gauges: &GaugeWriter) {
        if let Ok(link) = self.port.link() {
            if link.up != self.up {
                let state = if link.up { "up" } else { "down" };
                log::warn!("port {}: the link is {state}", self.port.name());
            }
            // One that never was up has not gone down.
            self.downs += u64::from(self.up && !link.up);
            self.up = link.up;
            gauges.set_port(id, PortGauge::LinkUp, u64::from(link.up));
            gauges.set_port(id, PortGauge::LinkDowns, self.downs);
        }
        if let Ok(stats) = self.port.stats() {
            gauges.set_port(id, PortGauge::RxMissed, stats.rx_missed);
            gauges.set_port(id, PortGauge::RxErrors, stats.rx_errors);
            gauges.set_port(id, PortGauge::RxNoMbuf, stats.rx_no_mbuf);
            gauges.set_port(id, PortGauge::TxErrors, stats.tx_errors);
        }
    }
}
