//! Endpoints: ports and addresses that clients see and that belong to one backend alone.
//!
//! A server that tells clients not to join the address they connected to (flag C of MP_CAPABLE, RFC 8684 section 3.1)
//! announces another one by ADD_ADDR: its own port on the VIP (Olteanu and Raiciu, "solution 2"; Beamer), or its own
//! address (Bonaventure and Duchêne). What comes there names its backend by its destination alone, so nothing is
//! remembered about it.
//!
//! Invariants:
//! - All of it follows from the configuration: appliances with one configuration agree without talking.
//! - A service of a VIP goes before an endpoint, and a present backend's endpoint before that of one that was removed:
//!   the latter keeps its endpoint, which its connections know, until it is deleted or another takes it over.

use core::hash::BuildHasherDefault;
use std::net::IpAddr;

use hashbrown::HashMap;
use ipc::id::{BackendId, VipId};
use ipc::limits::MAX_ENDPOINTS;
use ipc::message::{Protocol, Scheme};
use packet::{Address, Family};

use crate::model::{Backend, Model, Pool, Vip};
use crate::service::{ServiceHasher, ServiceKey};
use crate::way::family_of;

/// Whose endpoint it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The VIP whose clients are told of it.
    pub vip: VipId,
    /// The backend it belongs to.
    pub backend: BackendId,
}

/// Every endpoint, by address and port.
#[derive(Clone, Debug, Default)]
pub(crate) struct Endpoints {
    map: HashMap<ServiceKey, Endpoint, BuildHasherDefault<ServiceHasher>>,
    any_port: bool,
}

impl Endpoints {
    /// Those of a model. Where two VIPs of one pool have the same endpoint, it counts for the first by name.
    pub(crate) fn of_model(model: &Model) -> Self {
        let mut vips: Vec<_> = model
            .vips()
            .iter()
            .filter(|vip| vip.protocol == Protocol::Tcp && vip.steering.has(Scheme::Endpoint))
            .collect();
        vips.sort_unstable_by_key(|vip| vip.name.as_str());
        let mut all = Self::default();
        for present in [true, false] {
            for vip in &vips {
                let pool = model.pools().iter().find(|pool| pool.name == vip.pool && !pool.removed);
                pool.into_iter().for_each(|pool| all.add(vip, pool, present));
            }
        }
        all
    }

    fn add(&mut self, vip: &Vip, pool: &Pool, present: bool) {
        let known = |backend: &&Backend| backend.is_known() && backend.is_present() == present;
        for backend in pool.backends.iter().filter(known) {
            let endpoint = Endpoint { vip: vip.id, backend: backend.id };
            for (address, port) in places(vip, backend) {
                if self.map.len() >= MAX_ENDPOINTS {
                    return;
                }
                self.any_port |= port == 0;
                self.map.entry(key(address, port)).or_insert(endpoint);
            }
        }
    }

    /// Whose endpoint an address and port are, by exact port first, then by any.
    #[inline]
    pub(crate) fn at(&self, key: &ServiceKey) -> Option<Endpoint> {
        let exact = self.map.get(key);
        if exact.is_some() || !self.any_port {
            return exact.copied();
        }
        self.map.get(&ServiceKey { port: 0, ..*key }).copied()
    }

    /// Every address that has an endpoint.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (Address, Family)> {
        self.map.keys().map(|key| (key.address, key.family))
    }
}

/// Where a backend is for a VIP's clients: its port on every address of the VIP, every port of the VIP on its
/// addresses. 0 is any port. What is announced by the address that Weft itself sends to goes there past Weft.
fn places(vip: &Vip, backend: &Backend) -> impl Iterator<Item = (IpAddr, u16)> {
    let handles = backend.handles;
    let own4 = handles.endpoint4.filter(|own| backend.address4 != Some(*own));
    let own6 = handles.endpoint6.filter(|own| backend.address6 != Some(*own));
    let own = [own4.map(IpAddr::V4), own6.map(IpAddr::V6)];
    vip.services.iter().flat_map(move |(address, port)| {
        let by_port = handles.endpoint_port.map(|own| (*address, own));
        let by_address = own.into_iter().flatten().map(|own| (own, *port));
        by_port.into_iter().chain(by_address)
    })
}

fn key(address: IpAddr, port: u16) -> ServiceKey {
    ServiceKey {
        address: Address::from(address),
        port,
        protocol: Protocol::Tcp.number(),
        family: family_of(address),
    }
}
