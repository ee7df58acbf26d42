//! The configuration as last committed: pools, backends, VIPs, and the directory of their ids.
//!
//! Commands of one batch are applied to a copy; the copy replaces the model only if all of them hold, so
//! nothing is ever half applied ([`Model::apply`]). Names are what operators and the control plane speak; ids
//! are what tables hold. An id belongs to one pool and one name for as long as any table entry may hold it: a
//! backend that is removed keeps its flows and joins until its deadline ([`Model::expire`]); from then on it is
//! deleted, workers no longer know it, and it stays in the model until [`Model::forget`], which the manager calls
//! only after a full sweep found no entry of it. One that comes back meanwhile gets its old id.
//!
//! A model outlives the process: [`Model::restore`] takes back what another process wrote down, and believes none
//! of it.

mod restore;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipc::id::{BackendId, PoolId, VipId};
use ipc::limits::{MAX_BACKENDS, MAX_POOLS, MAX_SERVICES, MAX_VIPS, MAX_WEIGHT};
use ipc::message::{
    BackendState, Command, Forward, Handles, Name, Presence, Protocol, Refusal, Steering, UnknownToken,
    is_of_a_host,
};

pub use self::restore::Contradiction;

/// A backend of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its id.
    pub id: BackendId,
    /// Its name, unique in its pool.
    pub name: Name,
    /// Its IPv4 address, if it has one.
    pub address4: Option<Ipv4Addr>,
    /// Its IPv6 address, if it has one.
    pub address6: Option<Ipv6Addr>,
    /// Its MAC address, configured or resolved.
    pub mac: Option<[u8; 6]>,
    /// Its share of new connections, relative to its pool.
    pub weight: u32,
    /// Whether it gets new connections.
    pub state: BackendState,
    /// By what else than its name and addresses it is found.
    pub handles: Handles,
    /// Whether it is configured, and what is left of it when it is not.
    pub presence: Presence,
    /// When a removed one is deleted, if it has a deadline: in seconds of the caller's clock.
    pub deadline: Option<u64>,
}

impl Backend {
    /// Whether it is configured.
    pub fn is_present(&self) -> bool {
        self.presence == Presence::Present
    }

    /// Whether its deadline has come.
    fn is_due(&self, now: u64) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Whether workers know it: its flows and joins reach it.
    pub fn is_known(&self) -> bool {
        self.presence != Presence::Deleted
    }
}

/// A pool of the model. It stays, empty of present backends, while removed ones are still known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its id.
    pub id: PoolId,
    /// Its name.
    pub name: Name,
    /// Its backends, removed and deleted ones included.
    pub backends: Vec<Backend>,
    /// Removed by the operator; goes with its last backend.
    pub removed: bool,
}

/// A VIP of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// Its id.
    pub id: VipId,
    /// Its name.
    pub name: Name,
    /// The pool it names.
    pub pool: Name,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How packets reach its backends.
    pub forward: Forward,
    /// How joins find the backend of their connection.
    pub steering: Steering,
    /// What becomes of joins with an unknown or ambiguous token.
    pub unknown_token: UnknownToken,
    /// Its addresses and ports; port 0 is any.
    pub services: BTreeSet<(IpAddr, u16)>,
}

/// Why a batch was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The command's place in the batch; the number of commands where the whole is at fault.
    pub command: u32,
    /// The cause.
    pub refusal: Refusal,
    /// The name it is about.
    pub name: Name,
}

/// See the module's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pools: Vec<Pool>,
    vips: Vec<Vip>,
}

impl Model {
    /// All pools, removed ones that still have known backends included.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// All VIPs.
    pub fn vips(&self) -> &[Vip] {
        &self.vips
    }

    /// The id of a pool that is not removed.
    pub fn pool_id(&self, name: &Name) -> Option<PoolId> {
        self.pools.iter().find(|pool| pool.name == *name && !pool.removed).map(|pool| pool.id)
    }

    /// Whether `self` has known backends, or numbers of theirs, that `older` has not: workers must know them before they
    /// may choose.
    pub fn has_new_backends(&self, older: &Model) -> bool {
        let ids = |model: &Model| -> BTreeSet<(BackendId, Option<u16>)> {
            let all = model.pools.iter().flat_map(|pool| &pool.backends);
            all.filter(|backend| backend.is_known()).map(|known| (known.id, known.handles.number)).collect()
        };
        ids(self).difference(&ids(older)).next().is_some()
    }

    /// As [`Model::apply_at`], for whoever knows no time: deadlines count from second 0.
    ///
    /// # Errors
    /// As there.
    pub fn apply(&self, commands: &[Command]) -> Result<Model, Refused> {
        self.apply_at(commands, 0)
    }

    /// Applies a batch to a copy and gives the copy, or says which command was refused and why. `now` is in seconds;
    /// deadlines count from it.
    ///
    /// # Errors
    /// The first command that cannot hold; the model is as it was.
    pub fn apply_at(&self, commands: &[Command], now: u64) -> Result<Model, Refused> {
        let mut next = self.clone();
        for (place, command) in (0_u32..).zip(commands) {
            next.apply_one(command, self, now).map_err(|(refusal, name)| Refused {
                command: place,
                refusal,
                name,
            })?;
        }
        let whole = u32::try_from(commands.len()).unwrap_or(u32::MAX);
        next.check().map_err(|(refusal, name)| Refused { command: whole, refusal, name })?;
        Ok(next)
    }

    /// Whether a removed backend's deadline has come.
    pub fn has_due(&self, now: u64) -> bool {
        self.pools.iter().flat_map(|pool| &pool.backends).any(|backend| backend.is_due(now))
    }

    /// Deletes removed backends whose deadline has come; how many.
    pub fn expire(&mut self, now: u64) -> usize {
        let mut deleted = 0;
        for backend in self.pools.iter_mut().flat_map(|pool| &mut pool.backends) {
            if backend.is_due(now) {
                (backend.presence, backend.deadline) = (Presence::Deleted, None);
                deleted += 1;
            }
        }
        deleted
    }

    /// Goes on with removed backends whose ids no table entry holds: a removed one is deleted, so that workers know it no
    /// longer; a deleted one is forgotten, and its id is free. Not both at once: until every worker goes by a snapshot
    /// without it, a join may still make an entry with its id. Pools that are removed and empty are gone, too. Returns how
    /// many backends were forgotten.
    pub fn forget(&mut self, unused: impl Fn(BackendId) -> bool) -> usize {
        let mut forgotten = 0;
        for pool in &mut self.pools {
            let before = pool.backends.len();
            pool.backends.retain(|backend| backend.presence != Presence::Deleted || !unused(backend.id));
            forgotten += before - pool.backends.len();
            let removed = pool.backends.iter_mut().filter(|backend| backend.presence == Presence::Removed);
            for backend in removed.filter(|backend| unused(backend.id)) {
                (backend.presence, backend.deadline) = (Presence::Deleted, None);
            }
        }
        self.pools.retain(|pool| !(pool.removed && pool.backends.is_empty()));
        forgotten
    }

    /// Whether a removed or deleted backend waits to be forgotten.
    pub fn has_removed(&self) -> bool {
        self.pools.iter().any(|pool| pool.removed || !pool.backends.iter().all(Backend::is_present))
    }

    fn apply_one(&mut self, command: &Command, before: &Model, now: u64) -> Result<(), (Refusal, Name)> {
        match *command {
            Command::PutPool { name } => self.put_pool(name),
            Command::PutBackend { pool, name, address4, address6, mac, weight, state, handles } => {
                let spec = Backend {
                    id: BackendId(0),
                    name,
                    address4,
                    address6,
                    mac,
                    weight,
                    state,
                    handles,
                    presence: Presence::Present,
                    deadline: None,
                };
                self.put_backend(pool, spec)
            }
            Command::PutVip { name, pool, protocol, forward, steering, unknown_token } => {
                let services = BTreeSet::new();
                let spec =
                    Vip { id: VipId(0), name, pool, protocol, forward, steering, unknown_token, services };
                self.put_vip(spec, before)
            }
            Command::PutService { vip, address, port } => self.put_service(vip, address, port),
            Command::RemoveService { vip, address, port } => {
                let vip = self.vip_mut(vip)?;
                if vip.services.remove(&(address, port)) {
                    Ok(())
                } else {
                    Err((Refusal::UnknownService, vip.name))
                }
            }
            Command::RemoveVip { name } => {
                if !self.vip_mut(name)?.services.is_empty() {
                    return Err((Refusal::VipInUse, name));
                }
                self.vips.retain(|vip| vip.name != name);
                Ok(())
            }
            Command::RemoveBackend { pool, name, deadline } => {
                let backends = &mut self.pool_mut(pool)?.backends;
                let present =
                    backends.iter_mut().find(|backend| backend.name == name && backend.is_present());
                let backend = present.ok_or((Refusal::UnknownBackend, name))?;
                (backend.presence, backend.deadline) = match deadline {
                    Some(0) => (Presence::Deleted, None),
                    after => (Presence::Removed, after.map(|after| now.saturating_add(u64::from(after)))),
                };
                Ok(())
            }
            Command::RemovePool { name } => self.remove_pool(name),
            Command::RenamePool { name, to } => self.rename_pool(name, to),
            // Begin, Commit and the rest frame a batch or ask a question; they change no configuration.
            _ => Ok(()),
        }
    }

    fn pool_mut(&mut self, name: Name) -> Result<&mut Pool, (Refusal, Name)> {
        let found = self.pools.iter_mut().find(|pool| pool.name == name && !pool.removed);
        found.ok_or((Refusal::UnknownPool, name))
    }

    fn vip_mut(&mut self, name: Name) -> Result<&mut Vip, (Refusal, Name)> {
        self.vips.iter_mut().find(|vip| vip.name == name).ok_or((Refusal::UnknownVip, name))
    }

    fn put_pool(&mut self, name: Name) -> Result<(), (Refusal, Name)> {
        if let Some(pool) = self.pools.iter_mut().find(|pool| pool.name == name) {
            pool.removed = false;
            return Ok(());
        }
        let used = |id: u16| self.pools.iter().any(|pool| pool.id.0 == id);
        let id = lowest_free(0, MAX_POOLS, used).ok_or((Refusal::TooManyPools, name))?;
        self.pools.push(Pool { id: PoolId(id), name, backends: Vec::new(), removed: false });
        Ok(())
    }

    fn remove_pool(&mut self, name: Name) -> Result<(), (Refusal, Name)> {
        if self.vips.iter().any(|vip| vip.pool == name) {
            return Err((Refusal::PoolInUse, name));
        }
        let pool = self.pool_mut(name)?;
        if pool.backends.iter().any(Backend::is_present) {
            return Err((Refusal::PoolNotEmpty, name));
        }
        pool.removed = true;
        Ok(())
    }

    /// Gives a pool another name. Its id stays, and so do its tokens, its flows, and the VIPs that name it.
    fn rename_pool(&mut self, name: Name, to: Name) -> Result<(), (Refusal, Name)> {
        // A removed pool of that name counts: two of one name would mix their backends.
        if self.pools.iter().any(|pool| pool.name == to) {
            return Err((Refusal::PoolExists, to));
        }
        self.pool_mut(name)?.name = to;
        for vip in self.vips.iter_mut().filter(|vip| vip.pool == name) {
            vip.pool = to;
        }
        Ok(())
    }

    /// Adds a backend, or changes one in place. One that was removed or deleted and not yet forgotten keeps its id.
    fn put_backend(&mut self, pool: Name, spec: Backend) -> Result<(), (Refusal, Name)> {
        if spec.address4.is_none() && spec.address6.is_none() {
            return Err((Refusal::NoAddress, spec.name));
        }
        if spec.weight > MAX_WEIGHT {
            return Err((Refusal::BadWeight, spec.name));
        }
        if !spec.handles.has_right_endpoint() {
            return Err((Refusal::BadAddress, spec.name));
        }
        let ids: BTreeSet<u16> =
            self.pools.iter().flat_map(|pool| pool.backends.iter().map(|backend| backend.id.0)).collect();
        let pool = self.pool_mut(pool)?;
        if let Some(known) = pool.backends.iter_mut().find(|backend| backend.name == spec.name) {
            *known = Backend { id: known.id, ..spec };
            return Ok(());
        }
        let free = lowest_free(1, MAX_BACKENDS, |id| ids.contains(&id));
        let id = BackendId(free.ok_or((Refusal::TooManyBackends, spec.name))?);
        pool.backends.push(Backend { id, ..spec });
        Ok(())
    }

    /// Adds a VIP, or changes one in place; its services stay. A new one takes no id that another had `before` this
    /// batch, as long as there are others: until the batch is adopted, workers count the other's packets under it.
    fn put_vip(&mut self, spec: Vip, before: &Model) -> Result<(), (Refusal, Name)> {
        if let Some(known) = self.vips.iter_mut().find(|vip| vip.name == spec.name) {
            let services = core::mem::take(&mut known.services);
            *known = Vip { id: known.id, services, ..spec };
            return Ok(());
        }
        let used = |id: u16| self.vips.iter().any(|vip| vip.id.0 == id);
        let fresh = |id: u16| used(id) || before.vips.iter().any(|vip| vip.id.0 == id);
        let free = lowest_free(0, MAX_VIPS, fresh).or_else(|| lowest_free(0, MAX_VIPS, used));
        let id = free.ok_or((Refusal::TooManyVips, spec.name))?;
        self.vips.push(Vip { id: VipId(id), ..spec });
        Ok(())
    }

    fn put_service(&mut self, vip: Name, address: IpAddr, port: u16) -> Result<(), (Refusal, Name)> {
        let count: usize = self.vips.iter().map(|vip| vip.services.len()).sum();
        let vip = self.vip_mut(vip)?;
        if !is_of_a_host(address) {
            return Err((Refusal::BadAddress, vip.name));
        }
        if count >= MAX_SERVICES && !vip.services.contains(&(address, port)) {
            return Err((Refusal::TooManyServices, vip.name));
        }
        vip.services.insert((address, port));
        Ok(())
    }

    /// What only the whole can break: a VIP without a pool, a service of two VIPs.
    fn check(&self) -> Result<(), (Refusal, Name)> {
        let mut taken = BTreeSet::new();
        for vip in &self.vips {
            if self.pool_id(&vip.pool).is_none() {
                return Err((Refusal::UnknownPool, vip.pool));
            }
            for (address, port) in &vip.services {
                if !taken.insert((*address, *port, vip.protocol.number())) {
                    return Err((Refusal::ServiceTaken, vip.name));
                }
            }
        }
        Ok(())
    }
}

/// The lowest number in a range that is not used.
fn lowest_free(from: u16, below: usize, used: impl Fn(u16) -> bool) -> Option<u16> {
    (from..=u16::MAX).take_while(|id| usize::from(*id) < below).find(|id| !used(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn pool(text: &str) -> Command {
        Command::PutPool { name: name(text) }
    }

    fn backend(pool: &str, text: &str) -> Command {
        Command::PutBackend {
            pool: name(pool),
            name: name(text),
            address4: Some(Ipv4Addr::new(10, 0, 1, 1)),
            address6: None,
            mac: None,
            weight: 1,
            state: BackendState::Active,
            handles: Handles::default(),
        }
    }

    fn vip_by(text: &str, pool: &str, forward: Forward) -> Command {
        let (protocol, unknown_token) = (Protocol::Tcp, UnknownToken::Drop);
        Command::PutVip {
            name: name(text),
            pool: name(pool),
            protocol,
            forward,
            steering: Steering::LEARN,
            unknown_token,
        }
    }

    fn vip(text: &str, pool: &str) -> Command {
        vip_by(text, pool, Forward::L2dsr)
    }

    fn service(vip: &str, address: &str, port: u16) -> Command {
        Command::PutService { vip: name(vip), address: address.parse().unwrap(), port }
    }

    /// A pool with a backend, and a VIP with a service on it.
    fn small() -> Model {
        let commands = [pool("p"), backend("p", "b"), vip("v", "p"), service("v", "10.9.9.9", 80)];
        Model::default().apply(&commands).unwrap()
    }

    fn refused(commands: &[Command]) -> (u32, Refusal, String) {
        let refused = small().apply(commands).unwrap_err();
        (refused.command, refused.refusal, refused.name.to_string())
    }

    #[test]
    fn a_batch_is_refused_at_the_first_command_that_cannot_hold() {
        let with = |change: fn(&mut Backend)| {
            let mut spec = small().pools()[0].backends[0].clone();
            change(&mut spec);
            let Backend { name, address4, address6, mac, weight, state, handles, .. } = spec;
            Command::PutBackend {
                pool: self::name("p"),
                name,
                address4,
                address6,
                mac,
                weight,
                state,
                handles,
            }
        };
        let gone = |vip: &str, port| Command::RemoveService {
            vip: name(vip),
            address: "10.9.9.9".parse().unwrap(),
            port,
        };
        let cases = [
            (backend("q", "b"), Refusal::UnknownPool, "q"),
            (
                Command::RemoveBackend { pool: name("p"), name: name("c"), deadline: None },
                Refusal::UnknownBackend,
                "c",
            ),
            (
                Command::RemoveBackend { pool: name("q"), name: name("b"), deadline: None },
                Refusal::UnknownPool,
                "q",
            ),
            (Command::RemovePool { name: name("q") }, Refusal::UnknownPool, "q"),
            (Command::RemovePool { name: name("p") }, Refusal::PoolInUse, "p"),
            (Command::RemoveVip { name: name("w") }, Refusal::UnknownVip, "w"),
            (Command::RemoveVip { name: name("v") }, Refusal::VipInUse, "v"),
            (gone("w", 80), Refusal::UnknownVip, "w"),
            (gone("v", 81), Refusal::UnknownService, "v"),
            (service("w", "10.9.9.9", 80), Refusal::UnknownVip, "w"),
            (service("v", "0.0.0.0", 80), Refusal::BadAddress, "v"),
            (service("v", "::", 80), Refusal::BadAddress, "v"),
            (service("v", "224.0.0.1", 80), Refusal::BadAddress, "v"),
            (service("v", "ff02::1", 80), Refusal::BadAddress, "v"),
            (service("v", "255.255.255.255", 80), Refusal::BadAddress, "v"),
            (with(|backend| backend.weight = MAX_WEIGHT + 1), Refusal::BadWeight, "b"),
            (with(|backend| backend.address4 = None), Refusal::NoAddress, "b"),
            (with(|backend| backend.handles.endpoint_port = Some(0)), Refusal::BadAddress, "b"),
            (with(|backend| backend.handles.endpoint4 = Some(Ipv4Addr::BROADCAST)), Refusal::BadAddress, "b"),
            (
                with(|backend| backend.handles.endpoint6 = Some(Ipv6Addr::UNSPECIFIED)),
                Refusal::BadAddress,
                "b",
            ),
        ];
        for (command, refusal, about) in cases {
            let batch = [pool("other"), command, pool("p")];
            assert_eq!(refused(&batch), (1, refusal, about.to_owned()), "{command:?}");
        }
    }

    #[test]
    fn what_only_the_whole_can_break_is_refused_past_the_last_command() {
        assert_eq!(refused(&[vip("w", "q")]), (1, Refusal::UnknownPool, "q".to_owned()));
        let taken = [vip("w", "p"), service("w", "10.9.9.9", 80)];
        assert_eq!(refused(&taken), (2, Refusal::ServiceTaken, "w".to_owned()));
        let not_empty = [pool("q"), backend("q", "c")];
        let model = small().apply(&not_empty).unwrap();
        let refused = model.apply(&[Command::RemovePool { name: name("q") }]).unwrap_err();
        assert_eq!((refused.command, refused.refusal), (0, Refusal::PoolNotEmpty));
    }

    #[test]
    fn a_batch_may_pass_through_what_it_must_not_end_in() {
        // The service changes its VIP, and the VIP its pool, whatever the order of commands.
        let commands = [
            vip("w", "q"),
            service("w", "10.9.9.9", 80),
            Command::RemoveService { vip: name("v"), address: "10.9.9.9".parse().unwrap(), port: 80 },
            pool("q"),
        ];
        assert!(small().apply(&commands).is_ok());
    }

    #[test]
    fn a_refused_batch_changes_nothing() {
        let model = small();
        let before = (model.pools().to_vec(), model.vips().to_vec());
        let batch = [pool("q"), backend("p", "c"), service("v", "10.9.9.9", 443), backend("nowhere", "d")];
        assert!(model.apply(&batch).is_err());
        assert_eq!((model.pools().to_vec(), model.vips().to_vec()), before);
    }

    #[test]
    fn limits_hold_to_the_last_and_not_beyond() {
        let many = |count: usize, make: &dyn Fn(usize) -> Command| -> Vec<Command> {
            (0..count).map(make).collect()
        };
        let pools = many(MAX_POOLS, &|n| pool(&format!("p{n}")));
        let full = Model::default().apply(&pools).unwrap();
        assert_eq!(full.apply(&[pool("one-more")]).unwrap_err().refusal, Refusal::TooManyPools);

        let backends = many(MAX_BACKENDS - 1, &|n| backend("p", &format!("b{n}")));
        let full = Model::default().apply(&[pool("p")]).unwrap().apply(&backends).unwrap();
        let ids: BTreeSet<_> = full.pools()[0].backends.iter().map(|backend| backend.id.0).collect();
        assert_eq!((ids.len(), ids.first().copied()), (MAX_BACKENDS - 1, Some(1)), "id 0 is nobody's");
        assert_eq!(full.apply(&[backend("p", "one-more")]).unwrap_err().refusal, Refusal::TooManyBackends);
        let removal = Command::RemoveBackend { pool: name("p"), name: name("b7"), deadline: None };
        let removed = full.apply(&[removal]).unwrap();
        let still = removed.apply(&[backend("p", "one-more")]).unwrap_err();
        assert_eq!(still.refusal, Refusal::TooManyBackends, "its id is not free yet");

        let mut vips = vec![pool("p")];
        vips.extend(many(MAX_VIPS, &|n| vip(&format!("v{n}"), "p")));
        let full = Model::default().apply(&vips).unwrap();
        assert_eq!(full.apply(&[vip("one-more", "p")]).unwrap_err().refusal, Refusal::TooManyVips);

        let port = |n: usize| u16::try_from(n).unwrap();
        let services = many(MAX_SERVICES, &|n| service("v0", "10.9.9.9", port(n)));
        let full = full.apply(&services).unwrap();
        let more = service("v1", "10.9.9.8", 1);
        assert_eq!(full.apply(&[more]).unwrap_err().refusal, Refusal::TooManyServices);
        assert!(full.apply(&[service("v0", "10.9.9.9", 5)]).is_ok(), "one that is there already");
    }

    #[test]
    fn a_vip_that_is_put_again_keeps_its_id_and_its_services() {
        let model = small().apply(&[pool("q"), vip_by("v", "q", Forward::Gue)]).unwrap();
        let [changed] = model.vips() else { panic!("one VIP") };
        assert_eq!((changed.id, changed.services.len()), (VipId(0), 1));
        assert_eq!((changed.pool, changed.forward), (name("q"), Forward::Gue));
    }

    #[test]
    fn a_removed_pool_that_is_put_again_has_its_id_and_its_removed_backends() {
        let model = Model::default().apply(&[pool("p"), backend("p", "b")]).unwrap();
        let gone = [Command::RemoveBackend { pool: name("p"), name: name("b"), deadline: None }, {
            Command::RemovePool { name: name("p") }
        }];
        let model = model.apply(&gone).unwrap();
        assert_eq!(model.pool_id(&name("p")), None);
        let refused = model.apply(&[backend("p", "c")]).unwrap_err();
        assert_eq!(refused.refusal, Refusal::UnknownPool);
        let model = model.apply(&[pool("p"), backend("p", "b")]).unwrap();
        assert_eq!(model.pool_id(&name("p")), Some(PoolId(0)));
        assert_eq!(model.pools()[0].backends[0].id, BackendId(1));
        assert!(!model.has_removed());
    }

    fn remove(text: &str, deadline: Option<u32>) -> Command {
        Command::RemoveBackend { pool: name("p"), name: name(text), deadline }
    }

    #[test]
    fn a_removed_backend_is_deleted_at_its_deadline_and_at_once_when_that_is_now() {
        let put = [pool("p"), backend("p", "a"), backend("p", "b"), backend("p", "c"), backend("p", "d")];
        let removals = [remove("a", None), remove("b", Some(60)), remove("c", Some(0))];
        let mut model = Model::default().apply(&put).unwrap().apply_at(&removals, 1000).unwrap();
        let states = |model: &Model| -> Vec<(Presence, Option<u64>)> {
            model.pools()[0].backends.iter().map(|backend| (backend.presence, backend.deadline)).collect()
        };
        let (present, removed) = ((Presence::Present, None), (Presence::Removed, None));
        let deleted = (Presence::Deleted, None);
        assert_eq!(states(&model), [removed, (Presence::Removed, Some(1060)), deleted, present]);
        assert_eq!(model.expire(1059), 0);
        assert!(!model.has_due(1059) && model.has_due(1060));
        assert_eq!(model.expire(1060), 1);
        assert_eq!(states(&model), [removed, deleted, deleted, present]);
        assert_eq!(model.expire(u64::MAX), 0, "without a deadline, only its last flow ends it");
        assert!(model.has_removed());
        let again = model.apply(&[remove("b", None)]).unwrap_err();
        assert_eq!(again.refusal, Refusal::UnknownBackend);
        assert_eq!(model.forget(|id| id == BackendId(3)), 1);
        assert_eq!(states(&model), [removed, deleted, present]);
    }

    #[test]
    fn an_id_is_free_only_once_a_count_found_it_unused_after_the_workers_knew_it_no_longer() {
        let put = [pool("p"), backend("p", "a"), backend("p", "b")];
        let mut model = Model::default().apply(&put).unwrap().apply(&[remove("a", None)]).unwrap();
        assert_eq!(model.forget(|_| true), 0);
        assert_eq!(model.pools()[0].backends[0].presence, Presence::Deleted, "unknown to workers");
        let newcomer = model.apply(&[backend("p", "c")]).unwrap();
        assert_eq!(newcomer.pools()[0].backends[2].id, BackendId(3), "the first id is not free yet");
        // An entry that a worker made meanwhile keeps it.
        assert_eq!(model.forget(|_| false), 0);
        assert_eq!(model.forget(|_| true), 1);
        let newcomer = model.apply(&[backend("p", "c")]).unwrap();
        assert_eq!(newcomer.pools()[0].backends[1].id, BackendId(1));
    }

    #[test]
    fn a_deleted_backend_that_comes_back_has_its_old_id_and_is_new_to_the_workers() {
        let model = Model::default().apply(&[pool("p"), backend("p", "a"), backend("p", "b")]).unwrap();
        let deleted = model.apply(&[remove("a", Some(0))]).unwrap();
        assert!(model.has_new_backends(&deleted), "one that was deleted");
        assert!(!deleted.has_new_backends(&model));
        let full = deleted.apply(&[backend("p", "c")]).unwrap();
        assert_eq!(full.pools()[0].backends[2].id, BackendId(3), "the deleted one's id is not free");
        let back = deleted.apply(&[backend("p", "a")]).unwrap();
        assert!(back.has_new_backends(&deleted));
        assert_eq!(back.pools()[0].backends[0], model.pools()[0].backends[0]);
        assert!(!back.has_removed());
    }

    #[test]
    fn a_vip_takes_no_id_that_another_gives_up_in_the_same_batch_while_there_are_others() {
        let gone = [
            Command::RemoveService { vip: name("v"), address: "10.9.9.9".parse().unwrap(), port: 80 },
            Command::RemoveVip { name: name("v") },
        ];
        let model = small().apply(&[&gone[..], &[vip("w", "p")]].concat()).unwrap();
        assert_eq!(model.vips()[0].id, VipId(1));
        let next = model.apply(&[vip("x", "p")]).unwrap();
        assert_eq!(next.vips()[1].id, VipId(0), "in the next one it does");
        // All at once: then there are no others.
        let all: Vec<Command> = (0..MAX_VIPS).map(|n| vip(&format!("v{n}"), "p")).collect();
        let full = Model::default().apply(&[pool("p")]).unwrap().apply(&all).unwrap();
        let swap = [Command::RemoveVip { name: name("v7") }, vip("new", "p")];
        assert_eq!(full.apply(&swap).unwrap().vips()[MAX_VIPS - 1].id, VipId(7));
    }
}
