//! From the configuration's ports to what the engine knows of them.

use std::net::IpAddr;

use config::Config;
use engine::snapshot::{Port, Site};

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
