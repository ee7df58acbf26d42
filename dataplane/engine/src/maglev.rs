//! Weighted Maglev hashing: which backend a packet gets from its hash alone.
//!
//! Why: a SYN must find a backend without memory, evenly by weight, the same on every appliance, and few
//! flows may change backends when the pool changes (Eisenbud et al., "Maglev: A Fast and Reliable Software
//! Network Load Balancer", NSDI 2016, section 3.4).
//!
//! Every backend has a permutation of the slots, made from its *name*: start + step * k^3 for k = 0, 1, ... modulo the
//! number of slots. Cubing is a permutation there, because 3 does not divide 65,536. The paper steps by k itself;
//! then two backends that draw the same step chase each other in lockstep, and a change moves several percent more
//! than it must (measured: 5.8 % with two of 14, against 0.3 % elsewhere). In rounds, backends in the order of
//! their names take turns: a turn takes the backend's next slot that is still free. A backend of the greatest
//! weight has a turn in every round, one of half that weight in every second. So shares follow weights, only
//! their ratio counts, and neither ids nor the order of the input matter.

use ipc::id::BackendId;
use sha2::{Digest, Sha256};

use crate::hash::scale;

/// Slots: a prime, so that every step visits all of them, and a hundred times the backends one pool usually
/// has.
pub const SLOTS: usize = 65_537;

/// The table of one pool.
#[derive(Clone, PartialEq, Eq)]
pub struct Maglev(Box<[BackendId]>);

/// A backend while the table is filled.
struct Filling {
    id: BackendId,
    weight: u64,
    credit: u64,
    start: usize,
    step: usize,
    turn: usize,
}

impl Maglev {
    /// The table for these backends (name, id, weight) under a seed; `None` when none has a weight.
    pub fn build(backends: &[(&str, BackendId, u32)], seed: u64) -> Option<Self> {
        let mut order: Vec<_> = backends.iter().filter(|(_, _, weight)| *weight > 0).collect();
        order.sort_unstable_by_key(|(name, _, _)| *name);
        let mut fillings: Vec<_> =
            order.iter().map(|(name, id, weight)| Filling::new(name, *id, *weight, seed)).collect();
        let heaviest = fillings.iter().map(|filling| filling.weight).max()?;

        let mut slots: Vec<Option<BackendId>> = vec![None; SLOTS];
        let mut free = SLOTS;
        // Bounded by the slots: in each round the heaviest backend takes one.
        while free > 0 {
            for filling in &mut fillings {
                filling.credit += filling.weight;
                if filling.credit < heaviest {
                    continue;
                }
                filling.credit -= heaviest;
                filling.take(&mut slots);
                free -= 1;
                if free == 0 {
                    break;
                }
            }
        }
        slots.into_iter().collect::<Option<Box<[_]>>>().map(Self)
    }

    /// The backend of a hash.
    #[inline]
    pub fn choose(&self, hash: u64) -> BackendId {
        // The table is never empty, so the fallback is never taken; id 0 is nobody's.
        self.0.get(scale(hash, self.0.len())).copied().unwrap_or(BackendId(0))
    }

    /// The backends of all slots, in order.
    pub fn slots(&self) -> &[BackendId] {
        &self.0
    }
}

impl core::fmt::Debug for Maglev {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Maglev({} slots)", self.0.len())
    }
}

impl Filling {
    /// A backend with its permutation's first slot and step.
    fn new(name: &str, id: BackendId, weight: u32, seed: u64) -> Self {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(b"weft maglev name 1")
            .chain_update(seed.to_be_bytes())
            .chain_update(name.as_bytes())
            .finalize()
            .into();
        let word = |at: usize| {
            let bytes = digest.get(at..).and_then(|bytes| bytes.first_chunk());
            u64::from_be_bytes(bytes.copied().unwrap_or_default())
        };
        Self {
            id,
            weight: u64::from(weight),
            credit: 0,
            start: scale(word(0), SLOTS),
            step: 1 + scale(word(8), SLOTS - 1),
            turn: 0,
        }
    }

    /// Takes the next free slot of the permutation. One must be free.
    fn take(&mut self, slots: &mut [Option<BackendId>]) {
        for _ in 0..SLOTS {
            let turn = self.turn % SLOTS;
            let cube = turn * turn % SLOTS * turn % SLOTS;
            let at = (self.start + self.step * cube) % SLOTS;
            self.turn += 1;
            if let Some(slot @ None) = slots.get_mut(at) {
                *slot = Some(self.id);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("backend-{n}")).collect()
    }

    fn pool(names: &[String], weights: &[u32]) -> Vec<(String, BackendId, u32)> {
        let ids = (1..).map(BackendId);
        names.iter().zip(ids).zip(weights).map(|((name, id), weight)| (name.clone(), id, *weight)).collect()
    }

    fn build(pool: &[(String, BackendId, u32)], seed: u64) -> Option<Maglev> {
        let pool: Vec<_> = pool.iter().map(|(name, id, weight)| (name.as_str(), *id, *weight)).collect();
        Maglev::build(&pool, seed)
    }

    /// The share of slots of each id in `0..=most`.
    fn shares(table: &Maglev, most: u16) -> Vec<f64> {
        let mut counts = vec![0u32; usize::from(most) + 1];
        table.slots().iter().for_each(|id| counts[usize::from(id.0)] += 1);
        counts.into_iter().map(|count| f64::from(count) / ALL).collect()
    }

    /// The share of slots that two tables give to different backends.
    fn moved(before: &Maglev, after: &Maglev) -> f64 {
        let differ = before.slots().iter().zip(after.slots()).filter(|(a, b)| a != b).count();
        f64::from(u32::try_from(differ).unwrap()) / ALL
    }

    #[test]
    fn a_pool_without_weight_has_no_table() {
        assert!(Maglev::build(&[], 1).is_none());
        assert!(Maglev::build(&[("a", BackendId(1), 0)], 1).is_none());
    }

    #[test]
    fn one_backend_gets_everything() {
        let table = Maglev::build(&[("a", BackendId(3), 7), ("b", BackendId(4), 0)], 1).unwrap();
        assert!(table.slots().iter().all(|id| *id == BackendId(3)));
        assert_eq!(table.choose(u64::MAX), BackendId(3));
    }

    #[test]
    fn every_slot_is_reached_by_hashes() {
        let table = build(&pool(&names(3), &[1, 1, 1]), 1).unwrap();
        let step = u64::MAX / SLOTS as u64;
        for (slot, id) in table.slots().iter().enumerate() {
            assert_eq!(table.choose(slot as u64 * step + step / 2), *id);
        }
    }

    #[test]
    fn the_table_never_changes_between_releases() {
        // Pinned: two appliances of different releases must agree. A failure here is a break of
        // compatibility.
        let table = build(&pool(&names(5), &[100, 100, 50, 100, 1]), 42).unwrap();
        let sum =
            table.slots().iter().fold(0u64, |sum, id| sum.wrapping_mul(31).wrapping_add(u64::from(id.0)));
        assert_eq!(sum, PINNED);
    }

    /// All slots, to divide by.
    const ALL: f64 = 65_537.0;

    const PINNED: u64 = 12_790_078_285_618_889_276;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn shares_follow_weights(weights in prop::collection::vec(1..20u32, 1..40), seed: u64) {
            let table = build(&pool(&names(weights.len()), &weights), seed).unwrap();
            let shares = shares(&table, 40);
            let sum = f64::from(weights.iter().sum::<u32>());
            for (at, weight) in weights.iter().enumerate() {
                let due = f64::from(*weight) / sum;
                prop_assert!((shares[at + 1] - due).abs() < 0.001, "{} is due {due}", shares[at + 1]);
            }
        }

        #[test]
        fn neither_the_order_nor_the_scale_of_weights_matters(
            weights in prop::collection::vec(1..20u32, 2..20),
            seed: u64,
            turn in 0..20usize,
        ) {
            let mut pool = pool(&names(weights.len()), &weights);
            let table = build(&pool, seed).unwrap();
            pool.rotate_left(turn % weights.len());
            pool.iter_mut().for_each(|(_, _, weight)| *weight *= 1000);
            prop_assert!(build(&pool, seed).unwrap() == table);
        }

        #[test]
        fn a_backend_that_goes_or_comes_moves_little_more_than_its_share(
            weights in prop::collection::vec(1..6u32, 2..30),
            seed: u64,
            gone in 0..30usize,
        ) {
            let gone = gone % weights.len();
            let before = pool(&names(weights.len()), &weights);
            let mut after = before.clone();
            after.remove(gone);
            let sum = f64::from(weights.iter().sum::<u32>());
            let due = f64::from(weights[gone]) / sum;
            let moved = moved(&build(&before, seed).unwrap(), &build(&after, seed).unwrap());
            prop_assert!(moved >= due - 0.001, "moved {moved}, due {due}");
            prop_assert!(moved <= due + EXTRA, "moved {moved}, due {due}");
        }

        #[test]
        fn a_new_weight_moves_little_more_than_the_difference(
            weights in prop::collection::vec(1..6u32, 2..30),
            seed: u64,
            at in 0..30usize,
            weight in 1..6u32,
        ) {
            let before = pool(&names(weights.len()), &weights);
            let mut after = before.clone();
            after[at % weights.len()].2 = weight;
            let (before, after) = (build(&before, seed).unwrap(), build(&after, seed).unwrap());
            let due: f64 =
                shares(&before, 30).iter().zip(shares(&after, 30)).map(|(b, a)| (b - a).abs()).sum::<f64>() / 2.0;
            let moved = moved(&before, &after);
            prop_assert!(moved <= due + EXTRA, "moved {moved}, due {due}");
        }
    }

    #[test]
    fn two_backends_that_draw_the_same_step_do_not_chase_each_other() {
        // Under this seed the fourth and the eighth name draw the same step.
        let seed = 398_401_325_843_879_272;
        let step = |name: &str| Filling::new(name, BackendId(1), 1, seed).step;
        let names = names(14);
        assert_eq!(step(&names[3]), step(&names[7]));
        let before = pool(&names, &[1; 14]);
        let mut after = before.clone();
        after[13].2 = 3;
        let (before, after) = (build(&before, seed).unwrap(), build(&after, seed).unwrap());
        let due = 3.0 / 16.0 - 1.0 / 14.0;
        let moved = moved(&before, &after);
        assert!(moved <= due + EXTRA, "moved {moved}, due {due}");
    }

    /// What a change may move beyond what it must, as a share of all flows.
    const EXTRA: f64 = 0.015;
}
