//! The immutable picture of VIPs, pools and backends that workers look packets up in.
//!
//! Invariants:
//! - A snapshot never changes. The manager builds the next one, workers take it over between two bursts and
//!   hand the old one back; only the manager frees it, so a worker never does.
//! - **Two-phase publication.** A backend is first *known* to all workers ([`Snapshot::knowing`]) and only
//!   then *selectable* ([`Model::snapshot`]): tables are shared, so a worker one snapshot behind may meet an
//!   entry that another worker made, and must know its backend. Removal is the reverse: first unselectable,
//!   then, once a sweep found no entry that holds its id, unknown.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use ipc::id::{BackendId, PoolId, PortId, VipId};
use ipc::message::{BackendState, Forward, Name, UnknownToken};
use packet::{Address, Family, Flow};

use crate::hash::HashKey;
use crate::maglev::Maglev;
use crate::model::Model;
pub use crate::way::{Port, Tunnel};
use crate::way::{Ways, family_of};

/// What the packet path needs of a backend. Known backends are here whatever their state: a draining, down or
/// removed one keeps its flows and its joins.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its pool: a token found in the table is its owner's only within that pool.
    pub pool: PoolId,
    /// Its name, for what people read.
    pub name: Name,
    /// Destination MAC of what goes to it; `None` until configured or resolved.
    pub mac: Option<[u8; 6]>,
    /// How packets of each family reach it, IPv4 first.
    ways: [Ways; 2],
}

impl Backend {
    /// The port by which a packet of a family leaves as it is; `None` is the port it came from.
    #[inline]
    pub fn link(&self, family: Family) -> Option<PortId> {
        self.ways(family).link
    }

    /// The tunnel for packets of a family.
    #[inline]
    pub fn tunnel(&self, family: Family) -> Option<Tunnel> {
        self.ways(family).tunnel
    }

    #[inline]
    fn ways(&self, family: Family) -> &Ways {
        let [v4, v6] = &self.ways;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }
}

/// A set of backends that VIPs share.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Which active backend a 5-tuple belongs to; `None` when no backend may be chosen.
    pub maglev: Option<Arc<Maglev>>,
}

/// A VIP as the packet path sees it.
#[derive(Clone, Debug)]
pub struct Vip {
    /// Its name, for what people read.
    pub name: Name,
    /// The pool it names.
    pub pool: PoolId,
    /// How packets reach its backends.
    pub forward: Forward,
    /// Whether tokens are learned and joins follow them (`steering = ["learn"]`).
    pub learn: bool,
    /// What becomes of a join whose token is unknown or ambiguous.
    pub unknown_token: UnknownToken,
}

/// Address, port (0: any) and IP protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// The VIP's address.
    pub address: Address,
    /// The port, 0 for any.
    pub port: u16,
    /// 6 or 17.
    pub protocol: u8,
    /// An IPv6 packet to the v4-mapped form of a VIP's IPv4 address is not for the VIP.
    pub family: Family,
}

/// The immutable picture. See the module's header.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Grows by one with every snapshot of a data plane.
    pub generation: u64,
    configured: bool,
    services: HashMap<ServiceKey, VipId>,
    any_port: bool,
    vips: Vec<Option<Vip>>,
    pools: Vec<Option<Pool>>,
    backends: Vec<Option<Backend>>,
    ports: Vec<Port>,
    tunnel_sources: [Option<IpAddr>; 2],
    key: HashKey,
}

/// What a data plane's snapshots have in common, from its start to its end.
#[derive(Clone, Debug)]
pub struct Site {
    /// The ports, by id. Never empty: `replay` without a port has one default port.
    pub ports: Vec<Port>,
    /// Outer source addresses (IPv4, IPv6) that replace the port's own, if configured.
    pub tunnel_sources: [Option<IpAddr>; 2],
    /// Seed of the public hash: appliances that share it agree on every packet that Maglev alone decides.
    pub maglev_seed: u64,
}

impl Snapshot {
    /// The snapshot before any configuration: every packet is dropped as `no_config`.
    pub fn unconfigured(site: &Site) -> Self {
        Self {
            generation: 0,
            configured: false,
            services: HashMap::new(),
            any_port: false,
            vips: Vec::new(),
            pools: Vec::new(),
            backends: Vec::new(),
            ports: site.ports.clone(),
            tunnel_sources: site.tunnel_sources,
            key: HashKey::public(site.maglev_seed),
        }
    }

    /// The second phase: everything as the model says.
    pub fn of_model(model: &Model, site: &Site, generation: u64) -> Self {
        let mut next = Self::unconfigured(site);
        next.generation = generation;
        next.configured = true;
        next.backends = backends_of(model, site);
        for pool in model.pools() {
            let maglev = Maglev::build(&selectable(pool), site.maglev_seed).map(Arc::new);
            put(&mut next.pools, usize::from(pool.id.0), Pool { maglev });
        }
        for vip in model.vips() {
            let Some(pool) = model.pool_id(&vip.pool) else {
                continue;
            };
            for (address, port) in &vip.services {
                let key = ServiceKey {
                    address: Address::from(*address),
                    port: *port,
                    protocol: vip.protocol.number(),
                    family: family_of(*address),
                };
                next.any_port |= *port == 0;
                next.services.insert(key, vip.id);
            }
            let (forward, learn, unknown_token) = (vip.forward, vip.learn, vip.unknown_token);
            put(
                &mut next.vips,
                usize::from(vip.id.0),
                Vip { name: vip.name, pool, forward, learn, unknown_token },
            );
        }
        next
    }

    /// The first phase: this snapshot's VIPs and choices, and the model's backends known beside its own.
    pub fn knowing(&self, model: &Model, site: &Site, generation: u64) -> Self {
        let mut next = self.clone();
        next.generation = generation;
        for (id, backend) in backends_of(model, site).into_iter().enumerate() {
            if let Some(backend) = backend {
                put(&mut next.backends, id, backend);
            }
        }
        next
    }

    /// Whether a configuration was committed.
    #[inline]
    pub fn is_configured(&self) -> bool {
        self.configured
    }

    /// The VIP a flow's packets are for, by exact port first, then by any.
    #[inline]
    pub fn service(&self, flow: &Flow) -> Option<VipId> {
        let key = ServiceKey {
            address: flow.destination,
            port: flow.destination_port,
            protocol: flow.protocol,
            family: flow.family,
        };
        let exact = self.services.get(&key);
        if exact.is_some() || !self.any_port {
            return exact.copied();
        }
        self.services.get(&ServiceKey { port: 0, ..key }).copied()
    }

    /// A VIP by its id.
    #[inline]
    pub fn vip(&self, id: VipId) -> Option<&Vip> {
        self.vips.get(usize::from(id.0))?.as_ref()
    }

    /// A backend by its id, if it is known.
    #[inline]
    pub fn backend(&self, id: BackendId) -> Option<&Backend> {
        self.backends.get(usize::from(id.0))?.as_ref()
    }

    /// A port by its id.
    #[inline]
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(usize::from(id.0))
    }

    /// The backend Maglev chooses for a public hash in a pool.
    #[inline]
    pub fn choose(&self, pool: PoolId, public_hash: u64) -> Option<BackendId> {
        let pool = self.pools.get(usize::from(pool.0))?.as_ref()?;
        pool.maglev.as_ref().map(|maglev| maglev.choose(public_hash))
    }

    /// The public hash's key: stable between appliances.
    #[inline]
    pub fn public_key(&self) -> &HashKey {
        &self.key
    }

    /// Whether there is a port behind this id, not only the place of one (`replay` without a port).
    pub fn has_port(&self, id: PortId) -> bool {
        self.port(id).is_some_and(|port| port.mac.is_some())
    }

    /// The outer source address of a tunnel that leaves by `port`.
    pub fn tunnel_source(&self, port: PortId, family: Family) -> Option<Address> {
        let [v4, v6] = self.tunnel_sources;
        let configured = match family {
            Family::V4 => v4,
            Family::V6 => v6,
        };
        configured.or_else(|| self.port(port)?.tunnel_source(family)).map(Address::from)
    }
}

/// Every backend of the model, removed ones that entries may still hold included, by id.
fn backends_of(model: &Model, site: &Site) -> Vec<Option<Backend>> {
    let mut backends = Vec::new();
    for pool in model.pools() {
        for backend in &pool.backends {
            let (address4, address6) = (backend.address4.map(IpAddr::V4), backend.address6.map(IpAddr::V6));
            let known = Backend {
                pool: pool.id,
                name: backend.name,
                mac: backend.mac,
                ways: [
                    Ways::find(&site.ports, address4, address6),
                    Ways::find(&site.ports, address6, address4),
                ],
            };
            put(&mut backends, usize::from(backend.id.0), known);
        }
    }
    backends
}

/// The backends of a pool that may get new connections: active, with a weight and a MAC address.
fn selectable(pool: &crate::model::Pool) -> Vec<(&str, BackendId, u32)> {
    let chosen = |backend: &&crate::model::Backend| {
        !backend.removed
            && backend.state == BackendState::Active
            && backend.weight > 0
            && backend.mac.is_some()
    };
    pool.backends.iter().filter(chosen).map(|b| (b.name.as_str(), b.id, b.weight)).collect()
}

/// Puts a value at an index, growing the vector with nothing in between.
fn put<T>(into: &mut Vec<Option<T>>, index: usize, value: T) {
    if into.len() <= index {
        into.resize_with(index + 1, || None);
    }
    if let Some(slot) = into.get_mut(index) {
        *slot = Some(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_backends_that_are_active_weighted_and_reachable_are_chosen() {
        use crate::model::Backend;
        use std::net::Ipv4Addr;
        let make = |id: u16, change: fn(&mut Backend)| {
            let mut backend = Backend {
                id: BackendId(id),
                name: format!("b{id}").parse().unwrap(),
                address4: Some(Ipv4Addr::LOCALHOST),
                address6: None,
                mac: Some([2; 6]),
                weight: 10,
                state: BackendState::Active,
                removed: false,
            };
            change(&mut backend);
            backend
        };
        let backends = vec![
            make(1, |_| {}),
            make(2, |backend| backend.weight = 0),
            make(3, |backend| backend.mac = None),
            make(4, |backend| backend.state = BackendState::Draining),
            make(5, |backend| backend.state = BackendState::Down),
            make(6, |backend| backend.removed = true),
        ];
        let pool = crate::model::Pool { id: PoolId(0), name: "p".parse().unwrap(), backends, removed: false };
        assert_eq!(selectable(&pool), [("b1", BackendId(1), 10)]);
    }
}
