//! Which backends a port reaches, and through whom: checked when a backend is configured or joins, asked again by
//! whoever resolves the MAC address its frames go to.
//!
//! A port without addresses says nothing of its networks. Where no port has an address of a family, nothing is known
//! about that family, and nothing is refused for it.

use std::net::IpAddr;

use ipc::message::Forward;

use crate::model::{Backend, Config, Pool, Port, Vip};

/// Whose MAC address frames for a backend bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The station on the port's network.
    pub address: IpAddr,
    /// The backend's address that is reached by it, where the station is a gateway.
    pub beyond: Option<IpAddr>,
}

/// The part of a VIP that says how its backends are reached.
pub(crate) struct Way {
    pub forward: Forward,
    /// Whether the VIP has an IPv4 address, and an IPv6 address.
    pub families: [bool; 2],
}

impl Way {
    pub fn new(forward: Forward, addresses: impl Iterator<Item = IpAddr>) -> Self {
        let mut families = [false; 2];
        for address in addresses {
            let [v4, v6] = &mut families;
            *if address.is_ipv4() { v4 } else { v6 } = true;
        }
        Self { forward, families }
    }

    fn of(vip: &Vip) -> Self {
        Self::new(vip.forward, vip.addresses.iter().copied())
    }

    fn has(&self, v4: bool) -> bool {
        let [has4, has6] = self.families;
        if v4 { has4 } else { has6 }
    }

    /// The backend's addresses that packets are sent to, or by which it is found: for each family of the VIP the
    /// backend's address of that family, else its other one.
    fn used(&self, backend: &[IpAddr]) -> Vec<IpAddr> {
        let mut used = Vec::new();
        for v4 in [true, false].into_iter().filter(|v4| self.has(*v4)) {
            let own = backend.iter().find(|address| address.is_ipv4() == v4);
            let used_here = own.or(backend.first()).copied();
            used.extend(used_here.filter(|address| !used.contains(address)));
        }
        used
    }
}

fn on_link(ports: &[Port], address: IpAddr) -> bool {
    ports.iter().flat_map(|port| &port.address).any(|prefix| prefix.contains(address))
}

/// Whether any port says which addresses of this family are on its network.
fn is_known(ports: &[Port], v4: bool) -> bool {
    ports.iter().flat_map(|port| &port.address).any(|prefix| prefix.address.is_ipv4() == v4)
}

fn is_off_link(ports: &[Port], address: IpAddr) -> bool {
    is_known(ports, address.is_ipv4()) && !on_link(ports, address)
}

fn gateway(ports: &[Port], v4: bool) -> Option<IpAddr> {
    let of = |port: &Port| {
        if v4 { port.gateway4.map(IpAddr::V4) } else { port.gateway6.map(IpAddr::V6) }
    };
    ports.iter().find_map(of)
}

/// What keeps packets of a VIP from a backend, as the rest of a sentence that begins with the backend.
pub(crate) fn obstacle(
    ports: &[Port],
    vip: &str,
    way: &Way,
    backend: &[IpAddr],
    has_mac: bool,
) -> Option<String> {
    if way.families == [false; 2] || backend.is_empty() {
        return None;
    }
    if way.forward == Forward::L2dsr {
        if !backend.iter().any(|address| way.has(address.is_ipv4())) {
            return Some(format!("has no address of a family of VIP {vip}; add one"));
        }
        let first = backend.first().filter(|_| backend.iter().all(|address| is_off_link(ports, *address)))?;
        return Some(format!(
            "is not on a port's network ({first}), but VIP {vip} forwards by l2dsr, which reaches only that; use \
             `forward = \"ipip\"` or \"gue\", or give a port an address in the backend's network"
        ));
    }
    let far = |address: &IpAddr| is_off_link(ports, *address) && gateway(ports, address.is_ipv4()).is_none();
    let used = way.used(backend);
    let address = used.into_iter().find(far).filter(|_| !has_mac)?;
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    Some(format!(
        "is not on a port's network ({address}), and no port has an {family} gateway; add `gateway` to \
         [[dataplane.port]]"
    ))
}

impl Config {
    /// Whose MAC address frames for `backend` may bear, if it has none configured, the best first: its own by each of
    /// its addresses that is on a port's network (or may be, for all that is known), else that of a port's gateway.
    /// Empty where neither is to be had, which the check allows only if no VIP needs it.
    pub fn next_hops(&self, pool: &Pool, backend: &Backend) -> Vec<NextHop> {
        let ports = &self.dataplane.ports;
        let addresses: Vec<IpAddr> = backend.addresses().collect();
        let vips = self.vips.iter().filter(|vip| vip.pool == pool.name);
        let mut used: Vec<IpAddr> = Vec::new();
        // The addresses in use come first; the others belong to the same station, which may answer by them.
        for address in vips.flat_map(|vip| Way::of(vip).used(&addresses)).chain(addresses.iter().copied()) {
            if !used.contains(&address) {
                used.push(address);
            }
        }
        let near = used.iter().filter(|address| !is_off_link(ports, **address));
        let near: Vec<NextHop> = near.map(|address| NextHop { address: *address, beyond: None }).collect();
        if !near.is_empty() {
            return near;
        }
        let through = |address: &IpAddr| {
            let gateway = gateway(ports, address.is_ipv4())?;
            Some(NextHop { address: gateway, beyond: Some(*address) })
        };
        used.iter().filter_map(through).collect()
    }
}
