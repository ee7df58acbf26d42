//! What a data plane is told, as a value: pools, backends, VIPs, services, by name.
//!
//! Desired and actual state are of one type, so that their difference ([`crate::reconcile`]) is a pure function.
//! [`State::apply`] is the meaning of a command: the data plane's rules, in the order of a batch.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipc::message::{BackendState, Command, Event, Forward, Name, Protocol, Refusal, UnknownToken};

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
    /// Whether tokens are learned.
    pub learn: bool,
    /// What joins of unknown tokens get.
    pub unknown_token: UnknownToken,
    /// Addresses and ports; port 0 is any.
    pub services: BTreeSet<(IpAddr, u16)>,
}

impl State {
    /// The state that commands make of nothing.
    pub fn of(commands: impl IntoIterator<Item = Command>) -> Result<Self, Refusal> {
        let mut state = Self::default();
        commands.into_iter().try_for_each(|command| state.apply(command))?;
        Ok(state)
    }

    /// Does what a command says, or says why not. Commands that change nothing (`Begin`, `Dump`) are ignored.
    pub fn apply(&mut self, command: Command) -> Result<(), Refusal> {
        match command {
            Command::PutPool { name } => {
                self.pools.entry(name).or_default();
            }
            Command::PutBackend { pool, name, address4, address6, mac, weight, state } => {
                if address4.is_none() && address6.is_none() {
                    return Err(Refusal::NoAddress);
                }
                let backends = self.pools.get_mut(&pool).ok_or(Refusal::UnknownPool)?;
                backends.insert(name, Backend { address4, address6, mac, weight, state });
            }
            Command::PutVip { name, pool, protocol, forward, learn, unknown_token } => {
                self.put_vip(
                    name,
                    Vip { pool, protocol, forward, learn, unknown_token, services: BTreeSet::new() },
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
            Command::Begin { .. }
            | Command::Commit { .. }
            | Command::Abandon { .. }
            | Command::Dump
            | Command::FindToken { .. } => {}
        }
        Ok(())
    }

    fn put_vip(&mut self, name: Name, mut vip: Vip) -> Result<(), Refusal> {
        if !self.pools.contains_key(&vip.pool) {
            return Err(Refusal::UnknownPool);
        }
        if let Some(old) = self.vips.get(&name) {
            // Its services would change meaning under it, and might be another VIP's.
            if old.protocol != vip.protocol && !old.services.is_empty() {
                return Err(Refusal::VipInUse);
            }
            vip.services.clone_from(&old.services);
        }
        self.vips.insert(name, vip);
        Ok(())
    }

    fn put_service(&mut self, vip: Name, service: (IpAddr, u16)) -> Result<(), Refusal> {
        let protocol = self.vips.get(&vip).ok_or(Refusal::UnknownVip)?.protocol;
        let taken = |(name, other): (&Name, &Vip)| {
            *name != vip && other.protocol == protocol && other.services.contains(&service)
        };
        if self.vips.iter().any(taken) {
            return Err(Refusal::ServiceTaken);
        }
        self.vips.get_mut(&vip).ok_or(Refusal::UnknownVip)?.services.insert(service);
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

    /// Takes up one record of a dump. Records that contradict each other are left out: the next reconciliation
    /// puts what is missing.
    pub fn observe(&mut self, event: &Event) {
        match *event {
            Event::Pool { name } => {
                self.pools.entry(name).or_default();
            }
            Event::Backend { pool, name, address4, address6, mac, weight, state, .. } => {
                let backend = Backend { address4, address6, mac, weight, state };
                self.pools.entry(pool).or_default().insert(name, backend);
            }
            Event::Vip { name, pool, protocol, forward, learn, unknown_token, .. } => {
                let vip = Vip { pool, protocol, forward, learn, unknown_token, services: BTreeSet::new() };
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
