//! Checks of endpoints: a backend's own port or address must be its own, and where it is needed it must be there.
//!
//! Asked of a whole configuration, so that a file and a backend that joins at run time obey one set of rules.

use std::collections::HashMap;
use std::net::IpAddr;

use ipc::limits::MAX_ENDPOINTS;
use ipc::message::{Name, Protocol, Scheme};

use crate::model::{Backend, Config, Pool, Vip};

/// What is wrong with one backend's endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// The backend's pool.
    pub pool: Name,
    /// The backend.
    pub backend: Name,
    /// The rest of a sentence that begins with the backend.
    pub sentence: String,
}

/// Whose an address and port are.
type Owner<'c> = (&'c Pool, &'c Backend);

impl Vip {
    /// Whether joins come to ports or addresses of the backends' own.
    pub fn has_endpoints(&self) -> bool {
        self.protocol == Protocol::Tcp && self.steering.has(Scheme::Endpoint)
    }
}

impl Backend {
    /// Its own addresses towards clients, at most one of each family, IPv4 first.
    pub fn endpoint_addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let handles = self.handles;
        handles.endpoint4.map(IpAddr::V4).into_iter().chain(handles.endpoint6.map(IpAddr::V6))
    }

    /// Whether it has a port or an address of its own.
    pub fn has_endpoint(&self) -> bool {
        self.handles.endpoint_port.is_some() || self.endpoint_addresses().next().is_some()
    }
}

impl Config {
    /// The VIPs of a pool whose joins come to the backends' own ports or addresses.
    pub fn endpoint_vips(&self, pool: &Name) -> impl Iterator<Item = &Vip> {
        self.vips.iter().filter(move |vip| vip.pool == *pool && vip.has_endpoints())
    }

    /// What is wrong with the endpoints of all backends, in their order.
    pub(crate) fn endpoint_troubles(&self) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let mut taken: HashMap<(IpAddr, u16), Owner<'_>> = HashMap::new();
        for pool in &self.pools {
            let vips: Vec<&Vip> = self.endpoint_vips(&pool.name).collect();
            for backend in &pool.backends {
                // One sentence for a backend is enough: the next is mostly an echo.
                let sentence = self
                    .wrong_address(backend)
                    .or_else(|| vips.iter().find_map(|vip| missing(vip, backend)))
                    .or_else(|| vips.iter().find_map(|vip| self.clash(vip, (pool, backend), &mut taken)));
                if let Some(sentence) = sentence {
                    troubles.push(Trouble { pool: pool.name, backend: backend.name, sentence });
                }
            }
        }
        troubles
    }

    /// An endpoint's address that is somebody else's.
    fn wrong_address(&self, backend: &Backend) -> Option<String> {
        let others = self.pools.iter().flat_map(|pool| &pool.backends);
        for address in backend.endpoint_addresses() {
            let own = || backend.addresses().any(|own| own == address);
            if let Some(vip) = self.vips.iter().find(|vip| vip.addresses.contains(&address)) {
                return Some(format!(
                    "has `endpoint_address` {address}, which is VIP `{}`'s; give it an address of its own, or a \
                     port by `endpoint_port`",
                    vip.name
                ));
            }
            let mut prefixes = self.dataplane.ports.iter().flat_map(|port| &port.address);
            if prefixes.any(|prefix| prefix.address == address) {
                return Some(format!(
                    "has `endpoint_address` {address}, which is a port's own; give it an address that no port has"
                ));
            }
            let of_other = |other: &&Backend| other.addresses().any(|taken| taken == address);
            if let Some(other) = others.clone().find(of_other).filter(|_| !own()) {
                return Some(format!(
                    "has `endpoint_address` {address}, which is the address of backend `{}`; give each its own",
                    other.name
                ));
            }
        }
        None
    }

    /// An endpoint that another backend has, or a VIP.
    fn clash<'c>(
        &'c self,
        vip: &Vip,
        owner: Owner<'c>,
        taken: &mut HashMap<(IpAddr, u16), Owner<'c>>,
    ) -> Option<String> {
        let (pool, backend) = owner;
        for place @ (address, port) in places(vip, backend) {
            if taken.len() >= MAX_ENDPOINTS && !taken.contains_key(&place) {
                return Some(format!(
                    "has an endpoint too many: all together are more than {MAX_ENDPOINTS} pairs of address and port; \
                     Weft takes no more"
                ));
            }
            if let Some(vip) = self.service(address, port) {
                return Some(format!(
                    "has `endpoint_port` {port}, which on {address} is a port of VIP `{}`; give it a port that \
                     clients do not connect to",
                    vip.name
                ));
            }
            let (other_pool, other) = *taken.entry(place).or_insert(owner);
            if (other_pool.name, other.name) != (pool.name, backend.name) {
                let what = if backend.handles.endpoint_port == Some(port) { "port" } else { "address" };
                return Some(format!(
                    "has the `endpoint_{what}` of backend `{}` of pool `{}` ({address}, {}); give each its own",
                    other.name,
                    other_pool.name,
                    if port == 0 { "any port".to_owned() } else { format!("port {port}") }
                ));
            }
        }
        None
    }

    /// The TCP VIP that clients reach at an address and port.
    fn service(&self, address: IpAddr, port: u16) -> Option<&Vip> {
        self.vips.iter().find(|vip| {
            let ports = vip.ports.numbers();
            vip.protocol == Protocol::Tcp
                && vip.addresses.contains(&address)
                && (ports.contains(&port) || ports == [0])
        })
    }
}

/// An endpoint that a VIP needs and a backend has not.
fn missing(vip: &Vip, backend: &Backend) -> Option<String> {
    if !backend.has_endpoint() {
        return Some(format!(
            "has no endpoint, but VIP `{}` steers by \"endpoint\"; give it a port of its own by `endpoint_port`, or an \
             address by `endpoint_address`",
            vip.name
        ));
    }
    if let (Some(port), [0]) = (backend.handles.endpoint_port, vip.ports.numbers()) {
        return Some(format!(
            "has `endpoint_port` {port}, but VIP `{}` is on every port already; give it an address of its own by \
             `endpoint_address`",
            vip.name
        ));
    }
    None
}

/// Where a backend is for a VIP's clients. Its own address is not Weft's business: what goes there passes Weft by.
fn places(vip: &Vip, backend: &Backend) -> Vec<(IpAddr, u16)> {
    let port = backend.handles.endpoint_port;
    let by_port = vip.addresses.iter().filter_map(|address| Some((*address, port?)));
    let foreign = |address: &IpAddr| backend.addresses().all(|own| own != *address);
    let by_address = backend
        .endpoint_addresses()
        .filter(foreign)
        .flat_map(|address| vip.ports.numbers().iter().map(move |port| (address, *port)));
    by_port.chain(by_address).collect()
}
