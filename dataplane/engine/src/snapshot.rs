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

use hashbrown::{HashMap, HashSet};
use ipc::id::{BackendId, PoolId, PortId, VipId};
use ipc::message::{Forward, Name, Protocol, Scheme, Secret, Steering, UnknownToken};
use packet::{Address, Drafts, Family, Flow};
use steering::cipher::Ciphers;
use steering::key::KeyMaker;

pub use crate::endpoint::Endpoint;
use crate::endpoint::Endpoints;
use crate::hash::HashKey;
use crate::model::Model;
use crate::pool::{Pool, TakesNew};
use crate::route::{RouteSet, Routes};
pub use crate::service::ServiceKey;
use crate::service::Services;
use crate::tick::TICK_SECONDS;
use crate::token_map::TokenMap;
pub use crate::way::{Port, Tunnel};
use crate::way::{Ways, family_of, of_family};

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
        of_family(&self.ways, family)
    }
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
    /// How joins find the backend of their connection.
    pub steering: Steering,
    /// Whether tokens are learned from the handshakes that pass by.
    pub learn: bool,
    plain: bool,
    ciphers: Ciphers,
    keys: Option<KeyMaker>,
    drafts: Drafts,
    /// What becomes of a join whose token is unknown or ambiguous.
    pub unknown_token: UnknownToken,
    /// The finished headers of its way of forwarding, IPv4 first.
    routes: [Option<RouteSet>; 2],
}

impl Vip {
    /// The VIP as the model says; its pool has this id.
    fn of_model(vip: &crate::model::Vip, pool: PoolId) -> Self {
        let (steering, learn) = (vip.steering, vip.steering.has(Scheme::Learn));
        Self {
            name: vip.name,
            pool,
            forward: vip.forward,
            steering,
            learn,
            plain: steering == Steering::learning(learn),
            ciphers: Ciphers::new(steering.cipher_keys.map(|key| key.map(|Secret(bytes)| bytes))),
            keys: keys_of(vip),
            drafts: Drafts::new(steering.application_tokens, steering.external_tokens),
            unknown_token: vip.unknown_token,
            routes: [None; 2],
        }
    }

    /// Whether its joins are steered by tokens learned from handshakes of the usual form, or not at all: no other
    /// scheme has a say in any of its packets.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// Which handshakes with explicit tokens it understands.
    #[inline]
    pub(crate) fn drafts(&self) -> Drafts {
        self.drafts
    }

    /// The keys of encrypted tokens.
    #[inline]
    pub(crate) fn ciphers(&self) -> &Ciphers {
        &self.ciphers
    }

    /// What makes its servers' keys, where Weft chooses them.
    #[inline]
    pub(crate) fn key_maker(&self) -> Option<&KeyMaker> {
        self.keys.as_ref()
    }

    /// Whether Weft chooses its servers' keys.
    #[inline]
    pub(crate) fn chooses_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Whether joins are told from other SYNs.
    #[inline]
    pub fn steers(&self) -> bool {
        !self.steering.schemes.is_empty()
    }

    /// Which finished headers its packets of a family take, if any are finished.
    #[inline]
    pub(crate) fn routes(&self, family: Family) -> Option<RouteSet> {
        *of_family(&self.routes, family)
    }
}

/// What makes the keys of a VIP's servers, where it asks for that and they can be told: only GUE has a place for keys.
fn keys_of(vip: &crate::model::Vip) -> Option<KeyMaker> {
    let Secret(secret) = vip.steering.key_secret.filter(|_| vip.steering.has(Scheme::ChosenKey))?;
    (vip.forward == Forward::Gue).then(|| KeyMaker::new(secret))
}

/// The immutable picture. See the module's header.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Grows by one with every snapshot of a data plane.
    pub generation: u64,
    configured: bool,
    services: Services,
    any_port: bool,
    /// Whether a VIP's keys are chosen: nothing is asked about it as long as none's are.
    chooses_keys: bool,
    /// What belongs to one backend alone.
    endpoints: Endpoints,
    /// Every address of a VIP or of an endpoint, whatever the ports.
    addresses: HashSet<(Address, Family)>,
    /// Where UDP fragments to an address go: they have no ports. `None` where its UDP VIPs differ in pool or way of
    /// forwarding, so that nobody can tell.
    fragments: HashMap<(Address, Family), Option<VipId>>,
    vips: Vec<Option<Vip>>,
    pools: Vec<Option<Pool>>,
    /// Of the pools of VIPs that ask it: which backend a token names.
    token_maps: Vec<Option<Arc<TokenMap>>>,
    backends: Vec<Option<Backend>>,
    /// How each is reached: made of the backends, the ports and the tunnels' sources.
    routes: Routes,
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
            services: Services::default(),
            any_port: false,
            chooses_keys: false,
            endpoints: Endpoints::default(),
            addresses: HashSet::new(),
            fragments: HashMap::new(),
            vips: Vec::new(),
            pools: Vec::new(),
            token_maps: Vec::new(),
            backends: Vec::new(),
            routes: Routes::default(),
            ports: site.ports.clone(),
            tunnel_sources: site.tunnel_sources,
            key: HashKey::public(site.maglev_seed),
        }
    }

    /// Everything as the model says, for a data plane that begins with it and with empty tables. One that goes on, or
    /// took tables over, uses [`Snapshot::following`].
    pub fn of_model(model: &Model, site: &Site, generation: u64) -> Self {
        Self::unconfigured(site).following(model, site, generation, 0)
    }

    /// The second phase: everything as the model says, after this snapshot. `now_ms` is the data plane's clock: pools
    /// whose Maglev table is another one now answer as they do since then.
    pub fn following(&self, model: &Model, site: &Site, generation: u64, now_ms: u64) -> Self {
        let mut next = Self::unconfigured(site);
        next.generation = generation;
        next.configured = true;
        next.backends = backends_of(model, site);
        for pool in model.pools() {
            let before = self.pools.get(usize::from(pool.id.0)).and_then(Option::as_ref);
            put(&mut next.pools, usize::from(pool.id.0), Pool::of_model(pool, site, before, now_ms));
        }
        // In the order of their names: which VIP fragments count for must not depend on who came first.
        let mut vips: Vec<_> = model.vips().iter().collect();
        vips.sort_unstable_by_key(|vip| vip.name.as_str());
        for vip in vips {
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
                next.addresses.insert((key.address, key.family));
                if vip.protocol == Protocol::Udp {
                    next.add_fragments(&key, vip.id, (pool, vip.forward));
                }
            }
            let known = Vip::of_model(vip, pool);
            next.chooses_keys |= known.chooses_keys();
            put(&mut next.vips, usize::from(vip.id.0), known);
            next.map_tokens(self, model, vip, pool);
        }
        next.endpoints = Endpoints::of_model(model);
        next.addresses.extend(next.endpoints.addresses());
        next.note_moved_services(self, now_ms);
        next.find_routes();
        next
    }

    /// Makes the map of a VIP's pool, if the VIP asks it, or takes it over from the snapshot before.
    fn map_tokens(&mut self, before: &Snapshot, model: &Model, vip: &crate::model::Vip, id: PoolId) {
        let asks = vip.steering.has(Scheme::TokenMap) || vip.steering.has(Scheme::ChosenKey);
        let pool = model.pools().iter().find(|pool| pool.id == id && asks && self.token_map(id).is_none());
        if let Some(pool) = pool {
            let same = before.token_maps.get(usize::from(id.0)).cloned().flatten();
            let map = same.filter(|map| map.is_of(pool)).unwrap_or_else(|| Arc::new(TokenMap::new(pool)));
            put(&mut self.token_maps, usize::from(id.0), map);
        }
    }

    /// A pool whose service is another pool's now, or nobody's, still has the service's flows, and no longer Maglev's
    /// answer for them: that changed as it does with the pool's table.
    fn note_moved_services(&mut self, before: &Snapshot, now_ms: u64) {
        let keys = before.services.keys().chain(self.services.keys());
        let moved = |key| before.pool_of(key).filter(|pool| self.pool_of(key) != Some(*pool));
        let left: HashSet<PoolId> = keys.filter_map(moved).collect();
        for id in left {
            if let Some(Some(pool)) = self.pools.get_mut(usize::from(id.0)) {
                pool.since_ms = now_ms;
            }
        }
    }

    /// The pool that serves an address and port.
    fn pool_of(&self, key: &ServiceKey) -> Option<PoolId> {
        Some(self.vip(self.service_at(key)?)?.pool)
    }

    /// Notes that fragments to a service's address are for a VIP, or that nobody can tell. `sends` is all that
    /// matters to a fragment: pool and way of forwarding.
    fn add_fragments(&mut self, key: &ServiceKey, vip: VipId, sends: (PoolId, Forward)) {
        let same = |other: VipId| other == vip || self.vip(other).map(|v| (v.pool, v.forward)) == Some(sends);
        let now = match self.fragments.get(&(key.address, key.family)) {
            None => Some(vip),
            Some(Some(other)) if same(*other) => Some(*other),
            Some(_) => None,
        };
        self.fragments.insert((key.address, key.family), now);
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
        for pool in model.pools() {
            if let Some(Some(map)) = next.token_maps.get_mut(usize::from(pool.id.0))
                && !map.is_of(pool)
            {
                *map = Arc::new(map.knowing(pool));
            }
        }
        next.find_routes();
        next
    }

    /// Finishes the headers for all backends, and tells the VIPs where they are: that goes by how many backends there
    /// are.
    fn find_routes(&mut self) {
        let routes = Routes::new(&self.backends, &self.ports, self.tunnel_sources);
        for vip in self.vips.iter_mut().flatten() {
            vip.routes = [Family::V4, Family::V6].map(|family| routes.set(vip.forward, family));
        }
        self.routes = routes;
    }

    /// The finished headers for backends.
    #[inline(always)]
    pub(crate) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Whether a configuration was committed.
    #[inline]
    pub fn is_configured(&self) -> bool {
        self.configured
    }

    /// The VIP a flow's packets are for, by exact port first, then by any.
    #[inline]
    pub fn service(&self, flow: &Flow) -> Option<VipId> {
        self.service_at(&ServiceKey::of(flow))
    }

    #[inline]
    pub(crate) fn service_at(&self, key: &ServiceKey) -> Option<VipId> {
        let exact = self.services.get(key);
        if exact.is_some() || !self.any_port {
            return exact.copied();
        }
        self.services.get(&ServiceKey { port: 0, ..*key }).copied()
    }

    /// Whose endpoint a flow's packets are for, where they are for no service.
    pub fn endpoint(&self, flow: &Flow) -> Option<Endpoint> {
        self.endpoints.at(&ServiceKey::of(flow))
    }

    /// Whether a flow's packets are addressed to a VIP, on whatever port.
    pub fn is_vip_address(&self, flow: &Flow) -> bool {
        self.has_vip_address(flow.destination, flow.family)
    }

    /// Whether a VIP has this address, or a backend has it towards a VIP's clients.
    pub fn has_vip_address(&self, address: Address, family: Family) -> bool {
        self.addresses.contains(&(address, family))
    }

    /// The VIP that a UDP fragment is for, by its destination address alone.
    pub fn fragment_service(&self, flow: &Flow) -> Option<VipId> {
        *self.fragments.get(&(flow.destination, flow.family))?
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

    /// Which backend of a pool a token names, where a VIP of the pool asks.
    #[inline]
    pub(crate) fn token_map(&self, pool: PoolId) -> Option<&TokenMap> {
        self.token_maps.get(usize::from(pool.0))?.as_deref()
    }

    /// Whether a backend is known and of this pool: a token found in the table is its owner's only within that pool.
    #[inline]
    pub fn is_of_pool(&self, id: BackendId, pool: PoolId) -> bool {
        self.backend(id).is_some_and(|known| known.pool == pool)
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

    /// What there is to know of a pool's backend, if it takes new connections.
    #[inline]
    pub(crate) fn takes_new(&self, pool: PoolId, backend: BackendId) -> Option<TakesNew> {
        self.pools.get(usize::from(pool.0))?.as_ref()?.takes_new(backend)
    }

    /// Whether Weft chooses the keys of any VIP's servers.
    #[inline]
    pub(crate) fn chooses_keys(&self) -> bool {
        self.chooses_keys
    }

    /// Whether a pool's Maglev table has changed since an entry was last seen, `age` ticks ago, or a service has left the
    /// pool: then nobody knows what is answered for the entry's flow now. In doubt, within the tick of the change, it has.
    pub fn has_changed_since(&self, pool: PoolId, age: u16, now_ms: u64) -> bool {
        let Some(pool) = self.pools.get(usize::from(pool.0)).and_then(Option::as_ref) else {
            return true;
        };
        let tick_of = |ms: u64| ms / 1000 / TICK_SECONDS;
        u64::from(age) >= tick_of(now_ms).saturating_sub(tick_of(pool.since_ms))
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
        let own = || self.port(port)?.tunnel_source(family);
        of_family(&self.tunnel_sources, family).or_else(own).map(Address::from)
    }
}

/// Every backend of the model that is not deleted, by id.
fn backends_of(model: &Model, site: &Site) -> Vec<Option<Backend>> {
    let mut backends = Vec::new();
    for pool in model.pools() {
        for backend in pool.backends.iter().filter(|backend| backend.is_known()) {
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
    use ipc::message::BackendState;

    #[test]
    fn a_maglev_table_stays_as_long_as_the_backends_that_may_be_chosen_do() {
        use ipc::message::{Command, Handles};
        let name = |text: &str| -> Name { text.parse().unwrap() };
        let put = |pool: &str, text: &str, weight, state| Command::PutBackend {
            pool: name(pool),
            name: name(text),
            address4: Some([10, 0, 1, 1].into()),
            address6: None,
            mac: Some([2; 6]),
            weight,
            state,
            handles: Handles::default(),
        };
        let active = |pool: &str, text: &str| put(pool, text, 1, BackendState::Active);
        let pool = |text: &str| Command::PutPool { name: name(text) };
        let site = Site { ports: vec![Port::default()], tunnel_sources: [None, None], maglev_seed: 1 };
        let mut model = Model::default();
        let mut snapshot = Snapshot::unconfigured(&site);
        let mut step = |commands: &[Command], now_s: u64| {
            model = model.apply(commands).unwrap();
            snapshot = snapshot.following(&model, &site, snapshot.generation + 1, now_s * 1000);
            let of =
                |id: usize| snapshot.pools[id].as_ref().map(|pool| pool.maglev.as_ref().map(Arc::as_ptr));
            // How long ago each pool changed, in ticks: the youngest age that is from before it.
            let since = |id| (0..200).find(|age| snapshot.has_changed_since(PoolId(id), *age, now_s * 1000));
            ([of(0), of(1)], [since(0), since(1)])
        };
        let all = [pool("p"), active("p", "a"), active("p", "b"), pool("q"), active("q", "c")];
        let (first, ages) = step(&all, 160);
        assert_eq!(ages, [Some(0), Some(0)]);
        let (again, ages) = step(&[], 320);
        assert_eq!((again, ages), (first, [Some(10), Some(10)]), "nothing changed");
        let (other, ages) = step(&[put("p", "new", 5, BackendState::Draining)], 480);
        assert_eq!((other, ages), (first, [Some(20), Some(20)]), "nobody who may be chosen came");
        let (drained, ages) = step(&[put("p", "b", 1, BackendState::Draining)], 640);
        assert!(drained[0] != first[0] && drained[1] == first[1]);
        assert_eq!(ages, [Some(0), Some(30)]);
        let (weighed, ages) = step(&[put("q", "c", 2, BackendState::Active)], 800);
        assert!(weighed[0] == drained[0] && weighed[1] != first[1]);
        assert_eq!(ages, [Some(10), Some(0)]);
    }

    #[test]
    fn a_pool_that_a_service_leaves_changed_then_and_the_one_it_goes_to_did_not() {
        use ipc::message::Command;
        let name = |text: &str| -> Name { text.parse().unwrap() };
        let vip = |text: &str, pool: &str| Command::PutVip {
            name: name(text),
            pool: name(pool),
            protocol: Protocol::Tcp,
            forward: Forward::L2dsr,
            steering: Steering::LEARN,
            unknown_token: UnknownToken::Drop,
        };
        let service =
            |vip: &str, port| Command::PutService { vip: name(vip), address: [10, 9, 9, 9].into(), port };
        let gone =
            |vip: &str, port| Command::RemoveService { vip: name(vip), address: [10, 9, 9, 9].into(), port };
        let pools = ["p", "q"].map(|pool| Command::PutPool { name: name(pool) });
        let site = Site { ports: vec![Port::default()], tunnel_sources: [None, None], maglev_seed: 1 };
        let mut model = Model::default().apply(&pools).unwrap();
        let mut snapshot = Snapshot::unconfigured(&site);
        let mut step = |commands: &[Command], now_s: u64| {
            model = model.apply(commands).unwrap();
            snapshot = snapshot.following(&model, &site, snapshot.generation + 1, now_s * 1000);
            [0, 1].map(|id| (0..200).find(|age| snapshot.has_changed_since(PoolId(id), *age, now_s * 1000)))
        };
        step(&[vip("v", "p"), service("v", 0), vip("w", "q"), service("w", 443)], 160);
        assert_eq!(step(&[vip("v", "p"), service("v", 80)], 320), [Some(10), Some(10)], "as before");
        // Port 25 was the port that stands for any.
        assert_eq!(step(&[service("w", 25)], 480), [Some(0), Some(20)], "taken by an exact port");
        assert_eq!(step(&[vip("w", "p")], 640), [Some(10), Some(0)], "another pool");
        assert_eq!(step(&[gone("v", 0)], 800), [Some(0), Some(10)], "nobody's");
        assert_eq!(step(&[], 960), [Some(10), Some(20)]);
    }
}
