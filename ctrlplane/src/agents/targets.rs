//! Which pool an agent's event is about: that of the VIP whose address and port its subflow came to.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use config::{Config, Vip};
use ipc::message::{Name, Protocol, Scheme};

/// Whether agents steer a VIP.
fn is_steered(vip: &Vip) -> bool {
    vip.protocol == Protocol::Tcp && vip.steering.has(Scheme::Agent)
}

/// Whether a VIP's joins follow tokens that handshakes taught, and nothing else.
pub(super) fn learns_only(vip: &Vip) -> bool {
    vip.learns() && vip.steering.schemes.iter().count() == 1
}

/// The services of VIPs that agents steer, and the backends of their pools.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Targets {
    services: HashMap<(IpAddr, u16), Name>,
    members: BTreeSet<(Name, Name)>,
}

impl Targets {
    /// As the configuration says.
    pub fn of(config: &Config) -> Self {
        let mut targets = Self::default();
        for vip in config.vips.iter().filter(|vip| is_steered(vip)) {
            for address in &vip.addresses {
                for port in vip.ports.numbers() {
                    targets.services.insert((*address, *port), vip.pool);
                }
            }
            let pool = config.pools.iter().filter(|pool| pool.name == vip.pool);
            let members = pool.flat_map(|pool| pool.backends.iter().map(|backend| (pool.name, backend.name)));
            targets.members.extend(members);
        }
        targets
    }

    /// As the configuration says, and with backends that were removed from those pools and still serve.
    pub fn among<'a>(config: &Config, backends: impl IntoIterator<Item = &'a (Name, Name)>) -> Self {
        let mut targets = Self::of(config);
        let pools: BTreeSet<Name> = targets.services.values().copied().collect();
        let others = backends.into_iter().filter(|(pool, _)| pools.contains(pool));
        targets.members.extend(others.copied());
        targets
    }

    /// The pool behind an address and port, if `backend` is one of its: an exact port goes before any.
    pub fn pool(&self, service: SocketAddr, backend: Name) -> Option<Name> {
        let at = |port| self.services.get(&(service.ip().to_canonical(), port));
        let pool = at(service.port()).or_else(|| at(0)).copied()?;
        self.members.contains(&(pool, backend)).then_some(pool)
    }

    /// The pools that a backend is in.
    pub fn pools_of(&self, backend: Name) -> impl Iterator<Item = Name> {
        self.members.iter().filter(move |(_, member)| *member == backend).map(|(pool, _)| *pool)
    }

    /// Every backend an agent is expected on, once.
    pub fn backends(&self) -> BTreeSet<Name> {
        self.members.iter().map(|(_, backend)| *backend).collect()
    }
}
