//! A pool as the packet path sees it: who gets new connections, by Maglev or by number.
//!
//! Invariant: of the same backends under the same seed every appliance makes the same pool, whatever it was told before.

use std::sync::Arc;

use hashbrown::HashMap;
use ipc::id::BackendId;
use ipc::message::{BackendState, Name};

use crate::maglev::Maglev;
use crate::snapshot::Site;

/// A set of backends that VIPs share.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Which active backend a 5-tuple belongs to; `None` when no backend may be chosen.
    pub maglev: Option<Arc<Maglev>>,
    /// What it was built from. As long as this stays, so does the table.
    chosen: Vec<(Name, BackendId, u32)>,
    /// The same, by id, as it is asked for one backend.
    newcomers: Vec<(BackendId, TakesNew)>,
    /// Since when it answers as it does for every service it has, in milliseconds of the data plane's clock.
    pub(crate) since_ms: u64,
}

/// Of a backend that takes new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TakesNew {
    /// What it is called in timestamps.
    pub(crate) number: Option<u16>,
    pub(crate) weight: u32,
    /// The greatest weight in its pool.
    pub(crate) most: u32,
}

impl Pool {
    /// The pool as the model says. A table is built only where the backends that may be chosen are other ones.
    pub(crate) fn of_model(
        pool: &crate::model::Pool,
        site: &Site,
        before: Option<&Pool>,
        now_ms: u64,
    ) -> Self {
        let chosen = selectable(pool);
        let newcomers = by_id(pool, &chosen);
        if let Some(before) = before.filter(|before| before.chosen == chosen) {
            return Self { newcomers, ..before.clone() };
        }
        let backends: Vec<_> =
            chosen.iter().map(|(name, id, weight)| (name.as_str(), *id, *weight)).collect();
        let maglev = Maglev::build(&backends, site.maglev_seed).map(Arc::new);
        Self { maglev, chosen, newcomers, since_ms: now_ms }
    }

    /// What there is to know of a backend, if it takes new connections.
    #[inline]
    pub(crate) fn takes_new(&self, backend: BackendId) -> Option<TakesNew> {
        let place = self.newcomers.binary_search_by_key(&backend.0, |(id, _)| id.0).ok()?;
        self.newcomers.get(place).map(|(_, takes)| *takes)
    }
}

/// The backends of a pool that may get new connections: active, with a weight and a MAC address. In the order of
/// their names: that in which they came does not matter to Maglev either.
fn selectable(pool: &crate::model::Pool) -> Vec<(Name, BackendId, u32)> {
    let chosen = |backend: &&crate::model::Backend| {
        backend.is_present()
            && backend.state == BackendState::Active
            && backend.weight > 0
            && backend.mac.is_some()
    };
    let mut backends: Vec<_> =
        pool.backends.iter().filter(chosen).map(|b| (b.name, b.id, b.weight)).collect();
    backends.sort_unstable_by(|(one, ..), (other, ..)| one.as_str().cmp(other.as_str()));
    backends
}

/// The chosen backends, by id.
fn by_id(pool: &crate::model::Pool, chosen: &[(Name, BackendId, u32)]) -> Vec<(BackendId, TakesNew)> {
    let most = chosen.iter().map(|(.., weight)| *weight).max().unwrap_or(0);
    let numbers: HashMap<u16, u16> =
        pool.backends.iter().filter_map(|backend| Some((backend.id.0, backend.handles.number?))).collect();
    let of = |(_, id, weight): &(Name, BackendId, u32)| {
        let number = numbers.get(&id.0).copied();
        (*id, TakesNew { number, weight: *weight, most })
    };
    let mut newcomers: Vec<_> = chosen.iter().map(of).collect();
    newcomers.sort_unstable_by_key(|(id, _)| id.0);
    newcomers
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::id::PoolId;

    #[test]
    fn only_backends_that_are_active_weighted_and_reachable_are_chosen() {
        use crate::model::Backend;
        use ipc::message::{Handles, Presence};
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
                handles: Handles::default(),
                presence: Presence::Present,
                deadline: None,
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
            make(6, |backend| backend.presence = Presence::Removed),
            make(7, |backend| backend.presence = Presence::Deleted),
        ];
        let pool = crate::model::Pool { id: PoolId(0), name: "p".parse().unwrap(), backends, removed: false };
        assert_eq!(selectable(&pool), [("b1".parse().unwrap(), BackendId(1), 10)]);
    }
}
