//! Checks of one backend that joins a valid configuration at run time: the rules the file's backends obey.

use std::net::IpAddr;

use ipc::message::Name;

use crate::endpoint::Trouble;
use crate::model::{Backend, Config};
use crate::reach::{Way, obstacle};
use crate::schema::{Kind, backend as key};
use crate::steering::number_use;

impl Config {
    /// Whether `backend` may join `pool`. The error is one sentence that says what to do.
    pub fn check_backend(&self, pool: &Name, backend: &Backend) -> Result<(), String> {
        let Some(pool) = self.pools.iter().find(|other| other.name == *pool) else {
            return Err(format!("there is no pool `{pool}`; see `weftctl backend list`"));
        };
        let addresses: Vec<IpAddr> = backend.addresses().collect();
        if addresses.is_empty() {
            return Err("the backend has no address; give one of each family it has".to_owned());
        }
        check_weight(backend.weight)?;
        for other in &pool.backends {
            if other.name == backend.name {
                return Err(format!(
                    "pool `{}` has a backend `{}` already; remove it first",
                    pool.name, other.name
                ));
            }
            if let Some(address) = other.addresses().find(|address| addresses.contains(address)) {
                return Err(format!(
                    "address {address} is that of backend `{}` already; give each its own",
                    other.name
                ));
            }
        }
        if let Some(number) = backend.handles.number
            && let Some(other) = pool.backends.iter().find(|other| other.handles.number == Some(number))
        {
            return Err(format!(
                "number {number} is that of backend `{}` already; give each its own",
                other.name
            ));
        }
        self.check_backend_addresses(&addresses)?;
        for vip in self.vips.iter().filter(|vip| vip.pool == pool.name) {
            let way = Way::new(vip.forward, vip.addresses.iter().copied());
            let label = format!("`{}`", vip.name);
            let has_mac = backend.mac.is_some();
            if let Some(obstacle) = obstacle(&self.dataplane.ports, &label, &way, &addresses, has_mac) {
                return Err(format!("the backend {obstacle}"));
            }
            if let Some(needed_by) = number_use(&vip.steering).filter(|_| backend.handles.number.is_none()) {
                return Err(format!(
                    "the backend has no number, which {needed_by} (VIP {label}); give it one"
                ));
            }
        }
        self.check_backend_endpoint(pool.name, backend)
    }

    /// Whether its endpoint is its own, and there where it is needed. Troubles of others are none of its business.
    fn check_backend_endpoint(&self, pool: Name, backend: &Backend) -> Result<(), String> {
        let mut with = self.clone();
        for pool in with.pools.iter_mut().filter(|other| other.name == pool) {
            pool.backends.push(backend.clone());
        }
        let own = |trouble: &Trouble| trouble.pool == pool && trouble.backend == backend.name;
        // Of two that clash the later in the order of the file is blamed, which need not be the new one.
        let before = self.endpoint_troubles();
        match with.endpoint_troubles().into_iter().find(|trouble| own(trouble) || !before.contains(trouble)) {
            Some(trouble) if own(&trouble) => Err(format!("the backend {}", trouble.sentence)),
            Some(Trouble { pool, backend, sentence }) => {
                Err(format!("with it, backend `{backend}` of pool `{pool}` {sentence}"))
            }
            None => Ok(()),
        }
    }

    fn check_backend_addresses(&self, addresses: &[IpAddr]) -> Result<(), String> {
        for address in addresses {
            if let Some(vip) = self.vips.iter().find(|vip| vip.addresses.contains(address)) {
                return Err(format!(
                    "address {address} is VIP `{}`'s; give the backend's own address",
                    vip.name
                ));
            }
            let mut own = self.dataplane.ports.iter().flat_map(|port| &port.address);
            if own.any(|prefix| prefix.address == *address) {
                return Err(format!("address {address} is a port's own; give the backend's own address"));
            }
        }
        Ok(())
    }
}

/// Whether a weight is in the schema's range.
pub fn check_weight(weight: u32) -> Result<(), String> {
    match key::WEIGHT.kind {
        Kind::Integer { min, max } if !(min..=max).contains(&u64::from(weight)) => {
            Err(format!("{weight} is out of range for a weight; it goes from {min} to {max}"))
        }
        _ => Ok(()),
    }
}
