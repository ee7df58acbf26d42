//! Services: which VIP an address, port and protocol belong to.
//!
//! Why a hash of its own: every packet asks, with an address off the wire. The map is the operator's, a few entries that
//! no stranger can add to, so the hash need not be secret, only short; a stranger who knows it can do no more than
//! look into one group of the map at will.

use core::hash::{BuildHasherDefault, Hash, Hasher};

use hashbrown::HashMap;
use ipc::id::VipId;
use packet::{Address, Family, Flow};

/// Address, port (0: any) and IP protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl ServiceKey {
    /// Where a flow's packets go.
    #[inline]
    pub fn of(flow: &Flow) -> Self {
        let (address, port) = (flow.destination, flow.destination_port);
        Self { address, port, protocol: flow.protocol, family: flow.family }
    }
}

impl Hash for ServiceKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let rest = u64::from(self.port) << 16 | u64::from(self.protocol) << 8 | self.family as u64;
        let [high, low] = self.address.halves();
        state.write_u64(high);
        state.write_u64(low);
        state.write_u64(rest);
    }
}

/// The map of services.
pub(crate) type Services = HashMap<ServiceKey, VipId, BuildHasherDefault<ServiceHasher>>;

/// A rotation, an exclusive or and a multiplication a word, as rustc's own tables use (FxHash).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ServiceHasher(u64);

impl Hasher for ServiceHasher {
    #[inline]
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        // The map goes by the lowest bits and the topmost ones; a product's lowest bits know only the lowest of its
        // factors.
        self.0 ^ self.0 >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_of_one_address_and_of_neighbouring_ones_spread_over_the_map() {
        let key = |host: u32, port| ServiceKey {
            address: Address::from_v4((0x0a09_0900 + host).to_be_bytes()),
            port,
            protocol: 6,
            family: Family::V4,
        };
        let keys: Vec<_> = (0..64).flat_map(|host| (0..64).map(move |port| key(host, port))).collect();
        let mut buckets = [0; 1024];
        for key in &keys {
            let mut hasher = ServiceHasher::default();
            key.hash(&mut hasher);
            buckets[usize::try_from(hasher.finish() % 1024).unwrap()] += 1;
        }
        assert!(buckets.iter().all(|used| *used < 20), "4 on average, {:?} at most", buckets.iter().max());
    }

    #[test]
    fn a_service_is_found_by_all_of_its_parts_and_by_nothing_less() {
        let key = ServiceKey { address: Address(7), port: 443, protocol: 6, family: Family::V6 };
        let services: Services = [(key, VipId(3))].into_iter().collect();
        assert_eq!(services.get(&key), Some(&VipId(3)));
        let others = [
            ServiceKey { address: Address(8), ..key },
            ServiceKey { port: 80, ..key },
            ServiceKey { protocol: 17, ..key },
            ServiceKey { family: Family::V4, ..key },
        ];
        assert!(others.iter().all(|other| services.get(other).is_none()));
    }
}
