//! From a configuration to what the engine works with: its site, its tables' lifetimes, a snapshot, and the way of a
//! snapshot to a worker and back ([`publish`]).
//!
//! Why apart: `weft-dataplane` needs it to run and to replay captures, `weft-bench` to measure the same engine with the
//! same configuration; and neither `config` nor `engine` may know the other.
#![forbid(unsafe_code)]

mod lifetimes;
pub mod publish;

use std::net::IpAddr;

use anyhow::bail;
use config::Config;
use engine::model::Model;
use engine::snapshot::{Port, Site, Snapshot};
use ipc::message::Command;

pub use self::lifetimes::of as lifetimes;

/// The site of a configuration whose ports have these MAC addresses and drivers, in order.
pub fn of_ports(config: &Config, ports: Vec<Port>) -> Site {
    let dataplane = &config.dataplane;
    let tunnel_sources = [dataplane.tunnel_source4.map(IpAddr::V4), dataplane.tunnel_source6.map(IpAddr::V6)];
    Site { ports, tunnel_sources, maglev_seed: dataplane.maglev_seed }
}

/// A port as configured. `mac` and `kernel_sees_frames` are what the driver said.
pub fn port(port: &config::Port, mac: Option<[u8; 6]>, kernel_sees_frames: bool) -> Port {
    Port {
        mac,
        addresses: port.address.iter().map(|prefix| (prefix.address, prefix.length)).collect(),
        gateway4: port.gateway4,
        gateway6: port.gateway6,
        mtu: Some(port.mtu),
        kernel_sees_frames,
        exception: port.exception.is_some(),
    }
}

/// The site without devices: the configured ports with their configured MAC addresses, or one that takes any frame for
/// its own where none is configured.
pub fn offline(config: &Config) -> Site {
    let ports: Vec<Port> =
        config.dataplane.ports.iter().map(|configured| port(configured, configured.mac, false)).collect();
    of_ports(config, if ports.is_empty() { vec![Port::default()] } else { ports })
}

/// The configuration's VIPs and backends, through the model, as one snapshot.
///
/// # Errors
/// The engine refuses what the configuration says: names the object and why.
pub fn configured(config: &Config, site: &Site) -> anyhow::Result<Snapshot> {
    Ok(Snapshot::of_model(&model(config)?, site, 1))
}

/// The configuration's VIPs and backends, as the model has them.
///
/// # Errors
/// The engine refuses what the configuration says: names the object and why.
pub fn model(config: &Config) -> anyhow::Result<Model> {
    let commands: Vec<Command> = config.commands().into_iter().map(with_mac).collect();
    match Model::default().apply(&commands) {
        Ok(model) => Ok(model),
        Err(refused) => {
            bail!("the configuration is refused at {}: {}", refused.name, refused.refusal.meaning())
        }
    }
}

/// A replay has no neighbour table to ask: a backend without a MAC address gets one that is nobody's.
fn with_mac(command: Command) -> Command {
    match command {
        Command::PutBackend { pool, name, address4, address6, mac: None, weight, state, handles } => {
            log::warn!("backend {name} has no mac in the configuration: 02:00:00:00:00:00 stands for it");
            let mac = Some([2, 0, 0, 0, 0, 0]);
            Command::PutBackend { pool, name, address4, address6, mac, weight, state, handles }
        }
        other => other,
    }
}
