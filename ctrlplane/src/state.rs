//! What a data plane is told, as a value: pools, backends, VIPs, services, by name.
//!
//! Desired and actual state are of one type, so that their difference ([`crate::reconcile`]) is a pure function.
//! [`State::apply`] is the meaning of a batch: the data plane's rules, held to the engine's by the vectors both are
//! tested with (ipc/vectors/commands.rs). Ids and what is left of removed backends are the data plane's own business.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipc::limits::{MAX_BACKENDS, MAX_POOLS, MAX_SERVICES, MAX_VIPS, MAX_WEIGHT};
use ipc::message::{
    BackendState, Command, Event, Forward, Handles, Name, Presence, Protocol, Refusal, Steering,
    UnknownToken, is_of_a_host,
};

/// Everything a data plane balances by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Pools, and in each its backends.
    pub pools: BTreeMap<Name, BTreeMap<Name, Backend>>,
    /// VIPs.
    pub vips: BTreeMap<Name, Vip>,
}

/// A backend's properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its IPv4 address, if it has one.
    pub address4: Option<Ipv4Addr>,
    /// Its IPv6 address, if it has one.
    pub address6: Option<Ipv6Addr>,
    /// Where its frames go; `None` until resolved.
    pub mac: Option<[u8; 6]>,
    /// Share of new connections.
    pub weight: u32,
    /// Whether it takes new connections.
    pub state: BackendState,
    /// By what else than its name and addresses it is found.
    pub handles: Handles,
}

/// A VIP's properties and its services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Its pool.
    pub pool: Name,
    /// Its protocol.
    pub protocol: Protocol,
    /// How packets reach its backends.
    pub forward: Forward,
    /// How joins find the backend of their connection.
    pub steering: Steering,
    /// What joins of unknown tokens get.
    pub unknown_token: UnknownToken,
    /// Addresses and ports; port 0 is any.
    pub services: BTreeSet<(IpAddr, u16)>,
}

impl Backend {
    /// Whether another has the same addresses.
    pub fn is_where(&self, other: &Backend) -> bool {
        (self.address4, self.address6) == (other.address4, other.address6)
    }
}

impl State {
    /// The state that commands make of nothing.
    pub fn of(commands: impl IntoIterator<Item = Command>) -> Result<Self, Refusal> {
        let commands: Vec<Command> = commands.into_iter().collect();
        Self::default().apply(&commands).map_err(|(_, refusal)| refusal)
    }

    /// What a batch makes of a state, or the place of the command that cannot hold, and why not; the number of
    /// commands where only the whole cannot.
    pub fn apply(&self, commands: &[Command]) -> Result<Self, (u32, Refusal)> {
        let mut next = self.clone();
        for (place, command) in (0_u32..).zip(commands) {
            next.apply_one(*command).map_err(|refusal| (place, refusal))?;
        }
        let whole = u32::try_from(commands.len()).unwrap_or(u32::MAX);
        next.check().map_err(|refusal| (whole, refusal))?;
        Ok(next)
    }

    fn apply_one(&mut self, command: Command) -> Result<(), Refusal> {
        match command {
            Command::PutPool { name } => {
                if self.pools.len() >= MAX_POOLS && !self.pools.contains_key(&name) {
                    return Err(Refusal::TooManyPools);
                }
                self.pools.entry(name).or_default();
            }
            Command::PutBackend { pool, name, address4, address6, mac, weight, state, handles } => {
                self.put_backend(pool, name, Backend { address4, address6, mac, weight, state, handles })?;
            }
            Command::PutVip { name, pool, protocol, forward, steering, unknown_token } => {
                self.put_vip(
                    name,
                    Vip { pool, protocol, forward, steering, unknown_token, services: BTreeSet::new() },
                )?;
            }
            Command::PutService { vip, address, port } => self.put_service(vip, (address, port))?,
            Command::RemoveService { vip, address, port } => self.remove_service(vip, (address, port))?,
            Command::RemoveVip { name } => self.remove_vip(name)?,
            Command::RemoveBackend { pool, name, .. } => {
                let backends = self.pools.get_mut(&pool).ok_or(Refusal::UnknownPool)?;
                backends.remove(&name).ok_or(Refusal::UnknownBackend)?;
            }
            Command::RemovePool { name } => self.remove_pool(name)?,
            Command::RenamePool { name, to } => self.rename_pool(name, to)?,
            Command::Begin { .. }
            | Command::Commit { .. }
            | Command::Abandon { .. }
            | Command::Dump
            | Command::FindToken { .. }
            | Command::Report { .. } => {}
        }
        Ok(())
    }

    fn put_backend(&mut self, pool: Name, name: Name, backend: Backend) -> Result<(), Refusal> {
        if backend.address4.is_none() && backend.address6.is_none() {
            return Err(Refusal::NoAddress);
        }
        if backend.weight > MAX_WEIGHT {
            return Err(Refusal::BadWeight);
        }
        if !backend.handles.has_right_endpoint() {
            return Err(Refusal::BadAddress);
        }
        let count: usize = self.pools.values().map(BTreeMap::len).sum();
        let backends = self.pools.get_mut(&pool).ok_or(Refusal::UnknownPool)?;
        // Id 0 is never given.
        if count + 1 >= MAX_BACKENDS && !backends.contains_key(&name) {
            return Err(Refusal::TooManyBackends);
        }
        backends.insert(name, backend);
        Ok(())
    }

    fn put_vip(&mut self, name: Name, mut vip: Vip) -> Result<(), Refusal> {
        if let Some(old) = self.vips.get(&name) {
            vip.services.clone_from(&old.services);
        } else if self.vips.len() >= MAX_VIPS {
            return Err(Refusal::TooManyVips);
        }
        self.vips.insert(name, vip);
        Ok(())
    }

    fn put_service(&mut self, vip: Name, service: (IpAddr, u16)) -> Result<(), Refusal> {
        let count: usize = self.vips.values().map(|vip| vip.services.len()).sum();
        let services = &mut self.vips.get_mut(&vip).ok_or(Refusal::UnknownVip)?.services;
        if !is_of_a_host(service.0) {
            return Err(Refusal::BadAddress);
        }
        if count >= MAX_SERVICES && !services.contains(&service) {
            return Err(Refusal::TooManyServices);
        }
        services.insert(service);
        Ok(())
    }

    /// What only the whole can break.
    fn check(&self) -> Result<(), Refusal> {
        let mut taken = BTreeSet::new();
        for vip in self.vips.values() {
            if !self.pools.contains_key(&vip.pool) {
                return Err(Refusal::UnknownPool);
            }
            let mut services = vip.services.iter();
            if !services.all(|(address, port)| taken.insert((*address, *port, vip.protocol))) {
                return Err(Refusal::ServiceTaken);
            }
        }
        Ok(())
    }

    fn remove_service(&mut self, vip: Name, service: (IpAddr, u16)) -> Result<(), Refusal> {
        let vip = self.vips.get_mut(&vip).ok_or(Refusal::UnknownVip)?;
        if vip.services.remove(&service) { Ok(()) } else { Err(Refusal::UnknownService) }
    }

    fn remove_vip(&mut self, name: Name) -> Result<(), Refusal> {
        if !self.vips.get(&name).ok_or(Refusal::UnknownVip)?.services.is_empty() {
            return Err(Refusal::VipInUse);
        }
        self.vips.remove(&name);
        Ok(())
    }

    fn remove_pool(&mut self, name: Name) -> Result<(), Refusal> {
        if self.vips.values().any(|vip| vip.pool == name) {
            return Err(Refusal::PoolInUse);
        }
        if !self.pools.get(&name).ok_or(Refusal::UnknownPool)?.is_empty() {
            return Err(Refusal::PoolNotEmpty);
        }
        self.pools.remove(&name);
        Ok(())
    }

    fn rename_pool(&mut self, name: Name, to: Name) -> Result<(), Refusal> {
        if self.pools.contains_key(&to) {
            return Err(Refusal::PoolExists);
        }
        let backends = self.pools.remove(&name).ok_or(Refusal::UnknownPool)?;
        self.pools.insert(to, backends);
        for vip in self.vips.values_mut().filter(|vip| vip.pool == name) {
            vip.pool = to;
        }
        Ok(())
    }

    /// Takes up one record of a dump. Records that contradict each other are left out: the next reconciliation
    /// puts what is missing.
    pub fn observe(&mut self, event: &Event) {
        match *event {
            Event::Pool { name } => {
                self.pools.entry(name).or_default();
            }
            // What is left of one that was removed is no part of what is configured.
            Event::Backend { presence: Presence::Removed | Presence::Deleted, .. } => {}
            Event::Backend { pool, name, address4, address6, mac, weight, state, handles, .. } => {
                let backend = Backend { address4, address6, mac, weight, state, handles };
                self.pools.entry(pool).or_default().insert(name, backend);
            }
            Event::Vip { name, pool, protocol, forward, steering, unknown_token, .. } => {
                let vip = Vip { pool, protocol, forward, steering, unknown_token, services: BTreeSet::new() };
                self.vips.insert(name, vip);
            }
            Event::Service { vip, address, port } => {
                if let Some(vip) = self.vips.get_mut(&vip) {
                    vip.services.insert((address, port));
                }
            }
            _ => {}
        }
    }
}
