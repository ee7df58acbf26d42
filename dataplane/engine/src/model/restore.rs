//! A model that another process wrote down, taken back: checked against every rule that commands are held to.
//!
//! The tables' entries are read by these ids, so a directory that contradicts itself must not be believed in part.

use std::collections::BTreeSet;

use ipc::limits::{MAX_BACKENDS, MAX_POOLS, MAX_SERVICES, MAX_VIPS, MAX_WEIGHT};
use ipc::message::{Name, Presence, is_of_a_host};

use super::{Model, Pool, Vip};

/// What no sequence of commands could have made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The rule that does not hold, as a clause.
    pub what: &'static str,
    /// The name it is about.
    pub name: Name,
}

impl core::fmt::Display for Contradiction {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.name, self.what)
    }
}

/// Says what does not hold, and of whom.
fn must(holds: bool, what: &'static str, name: Name) -> Result<(), Contradiction> {
    if holds { Ok(()) } else { Err(Contradiction { what, name }) }
}

impl Model {
    /// The model of these pools and VIPs.
    ///
    /// # Errors
    /// The first thing that contradicts another, or a limit.
    pub fn restore(pools: Vec<Pool>, vips: Vec<Vip>) -> Result<Model, Contradiction> {
        let model = Model { pools, vips };
        model.check_pools()?;
        model.check_vips()?;
        model.check().map_err(|(refusal, name)| Contradiction { what: refusal.meaning(), name })?;
        Ok(model)
    }

    fn check_pools(&self) -> Result<(), Contradiction> {
        let (mut ids, mut names, mut backend_ids) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for pool in &self.pools {
            must(usize::from(pool.id.0) < MAX_POOLS, "a pool's id that cannot be", pool.name)?;
            must(ids.insert(pool.id), "two pools of one id", pool.name)?;
            must(names.insert(pool.name), "two pools of one name", pool.name)?;
            let mut backend_names = BTreeSet::new();
            for backend in &pool.backends {
                let id = usize::from(backend.id.0);
                must((1..MAX_BACKENDS).contains(&id), "a backend's id that cannot be", backend.name)?;
                must(backend_ids.insert(backend.id), "two backends of one id", backend.name)?;
                must(backend_names.insert(backend.name), "two backends of one name", backend.name)?;
                let is_addressed = backend.address4.is_some() || backend.address6.is_some();
                must(is_addressed, "a backend without an address", backend.name)?;
                must(backend.weight <= MAX_WEIGHT, "a weight that cannot be", backend.name)?;
                must(backend.handles.has_right_endpoint(), "an endpoint that cannot be", backend.name)?;
                let is_dated = backend.deadline.is_none() || backend.presence == Presence::Removed;
                must(is_dated, "a deadline of one that is not removed", backend.name)?;
                must(!(pool.removed && backend.is_present()), "present in a removed pool", backend.name)?;
            }
        }
        Ok(())
    }

    fn check_vips(&self) -> Result<(), Contradiction> {
        let (mut ids, mut names, mut services) = (BTreeSet::new(), BTreeSet::new(), 0);
        for vip in &self.vips {
            must(usize::from(vip.id.0) < MAX_VIPS, "a VIP's id that cannot be", vip.name)?;
            must(ids.insert(vip.id), "two VIPs of one id", vip.name)?;
            must(names.insert(vip.name), "two VIPs of one name", vip.name)?;
            let are_hosts = vip.services.iter().all(|(address, _)| is_of_a_host(*address));
            must(are_hosts, "an address that no VIP can have", vip.name)?;
            services += vip.services.len();
            must(services <= MAX_SERVICES, "more services than there can be", vip.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use ipc::id::{BackendId, PoolId, VipId};
    use ipc::message::{BackendState, Forward, Handles, Protocol, Steering, UnknownToken};

    use super::super::Backend;
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn backend(id: u16, text: &str) -> Backend {
        Backend {
            id: BackendId(id),
            name: name(text),
            address4: Some(Ipv4Addr::new(10, 0, 1, 1)),
            address6: None,
            mac: None,
            weight: 1,
            state: BackendState::Active,
            handles: Handles::default(),
            presence: Presence::Present,
            deadline: None,
        }
    }

    fn pool(id: u16, text: &str, backends: Vec<Backend>) -> Pool {
        Pool { id: PoolId(id), name: name(text), backends, removed: false }
    }

    fn vip(id: u16, text: &str, port: u16) -> Vip {
        Vip {
            id: VipId(id),
            name: name(text),
            pool: name("p"),
            protocol: Protocol::Tcp,
            forward: Forward::L2dsr,
            steering: Steering::LEARN,
            unknown_token: UnknownToken::Drop,
            services: [(IpAddr::from([10, 9, 9, 9]), port)].into(),
        }
    }

    fn sound() -> (Vec<Pool>, Vec<Vip>) {
        let pools = vec![
            pool(7, "p", vec![backend(9, "a"), backend(2, "b")]),
            pool(1, "q", vec![Backend { deadline: Some(5), presence: Presence::Removed, ..backend(1, "a") }]),
        ];
        (pools, vec![vip(3, "v", 80), vip(0, "w", 443)])
    }

    #[test]
    fn what_is_sound_comes_back_with_its_ids() {
        let (pools, vips) = sound();
        let model = Model::restore(pools.clone(), vips.clone()).unwrap();
        assert_eq!((model.pools(), model.vips()), (pools.as_slice(), vips.as_slice()));
    }

    #[test]
    fn every_contradiction_is_found() {
        type Change = fn(&mut Vec<Pool>, &mut Vec<Vip>);
        let changes: [(Change, &str); 20] = [
            (|pools, _| pools[0].id = PoolId(256), "pool's id"),
            (|pools, _| pools[0].id = PoolId(1), "two pools of one id"),
            (|pools, _| pools[1].name = pools[0].name, "two pools of one name"),
            (|pools, _| pools[0].backends[0].id = BackendId(0), "backend's id"),
            (|pools, _| pools[0].backends[0].id = BackendId(4096), "backend's id"),
            (|pools, _| pools[0].backends[0].id = BackendId(2), "two backends of one id"),
            (|pools, _| pools[0].backends[0].id = BackendId(1), "two backends of one id"),
            (|pools, _| pools[0].backends[0].name = pools[0].backends[1].name, "two backends of one name"),
            (|pools, _| pools[0].backends[0].address4 = None, "without an address"),
            (|pools, _| pools[0].backends[0].weight = MAX_WEIGHT + 1, "weight"),
            (|pools, _| pools[0].backends[0].deadline = Some(1), "deadline"),
            (
                |pools, _| (pools[1].removed, pools[1].backends[0].presence) = (true, Presence::Present),
                "deadline",
            ),
            (|_, vips| vips[0].id = VipId(256), "VIP's id"),
            (|_, vips| vips[0].id = VipId(0), "two VIPs of one id"),
            (|_, vips| vips[0].name = vips[1].name, "two VIPs of one name"),
            (|_, vips| vips[0].services = vips[1].services.clone(), "address, port and protocol"),
            (|_, vips| vips[0].services = [(Ipv4Addr::UNSPECIFIED.into(), 1)].into(), "address that no VIP"),
            (|_, vips| vips[0].services = [([255; 4].into(), 1)].into(), "address that no VIP"),
            (|_, vips| vips[0].services = [([224, 0, 0, 1].into(), 1)].into(), "address that no VIP"),
            (|_, vips| vips[0].pool = "nowhere".parse().unwrap(), "pool that does not exist"),
        ];
        for (change, what) in changes {
            let (mut pools, mut vips) = sound();
            change(&mut pools, &mut vips);
            let found = Model::restore(pools, vips).unwrap_err().to_string();
            assert!(found.contains(what), "{found} does not say {what}");
        }
    }

    #[test]
    fn a_present_backend_contradicts_its_removed_pool_and_services_have_a_limit() {
        let (mut pools, _) = sound();
        pools[0].removed = true;
        let found = Model::restore(pools, Vec::new()).unwrap_err().to_string();
        assert!(found.contains("present in a removed pool"), "{found}");
        let (pools, mut vips) = sound();
        vips[0].services = (0..).take(MAX_SERVICES).map(|port| ([10, 9, 9, 8].into(), port)).collect();
        assert!(Model::restore(pools, vips).unwrap_err().to_string().contains("more services"));
    }
}
