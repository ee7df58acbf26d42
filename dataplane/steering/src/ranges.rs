//! The token space, split among the backends of a pool (Olteanu and Raiciu, "Datacenter scale load balancing for
//! Multipath TCP", HotMiddlebox 2016, solution 1, where the sources say no more than that the space is split).
//!
//! The split is our own choice. The space has [`SHARES`] shares of equal size, by a token's first twelve bits, and each
//! share goes to the backend with the highest score for it (rendezvous hashing; Thaler and Ravishankar 1998), a score
//! being a mix of the backend's name and the share. So:
//! - a backend that comes takes shares, from all alike, and nothing else moves; one that goes gives its own to all the
//!   others, and nothing else moves: no split of equal shares moves less;
//! - the answer depends on the names alone, neither on their order nor on who came first, so that two appliances with
//!   other histories agree, and a server can work its shares out from the list of names;
//! - a server that draws random keys until one has a token of its own draws as many as there are backends, on average.
//!
//! Weights have no say: a weight is changed for the sake of new connections, and must not take the joins of others away.

use ipc::id::BackendId;
use sha2::{Digest, Sha256};

/// Shares of the token space.
pub const SHARES: usize = 1 << 12;

/// Tokens of a share, as bits.
pub const SHARE_BITS: u32 = 20;

/// Who owns which part of the token space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges(Box<[Option<BackendId>; SHARES]>);

impl Ranges {
    /// The token space split among backends, by their names. Names are unique in a pool; of two that are the same the
    /// lower id counts.
    pub fn new<'a>(backends: impl IntoIterator<Item = (&'a str, BackendId)>) -> Self {
        let backends: Vec<(u64, BackendId)> =
            backends.into_iter().map(|(name, id)| (seed(name), id)).collect();
        let mut owners = Box::new([None; SHARES]);
        for (share, owner) in (0_u64..).zip(owners.iter_mut()) {
            let score = |(seed, id): &(u64, BackendId)| (mix(seed ^ mix(share)), core::cmp::Reverse(id.0));
            *owner = backends.iter().max_by_key(|backend| score(backend)).map(|(_, id)| *id);
        }
        Self(owners)
    }

    /// The backend that a token belongs to; `None` where there is none at all.
    #[inline]
    pub fn owner(&self, token: u32) -> Option<BackendId> {
        *self.0.get(usize::from(share_of(token)))?
    }

    /// The shares of a backend: the first twelve bits of its tokens, in order.
    pub fn shares(&self, backend: BackendId) -> impl Iterator<Item = u16> {
        (0_u16..)
            .zip(self.0.iter())
            .filter(move |(_, owner)| **owner == Some(backend))
            .map(|(share, _)| share)
    }
}

/// The share a token lies in.
#[inline]
pub const fn share_of(token: u32) -> u16 {
    (token >> SHARE_BITS) as u16
}

/// What a name adds to its scores.
fn seed(name: &str) -> u64 {
    let digest = Sha256::digest(name.as_bytes());
    digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// Mixes all bits into all (the finish of SplitMix64; Steele, Lea and Flood 2014). Public: who knows it knows what every
/// server must know.
const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(names: &[String]) -> Ranges {
        Ranges::new(names.iter().zip(1..).map(|(name, id)| (name.as_str(), BackendId(id))))
    }

    fn named(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("server-{n}")).collect()
    }

    #[test]
    fn nobody_owns_anything_where_there_is_nobody_and_one_owns_all() {
        assert_eq!(of(&[]).owner(7), None);
        let one = of(&named(1));
        assert!((0..=u32::from(u16::MAX)).all(|high| one.owner(high << 16) == Some(BackendId(1))));
        assert_eq!(one.shares(BackendId(1)).count(), SHARES);
    }

    #[test]
    fn the_split_of_three_names_is_the_one_that_servers_computed_yesterday() {
        // Computed once, by this code's equal in Python; a change of the split breaks every server that knows its shares.
        let ranges = Ranges::new([("a", BackendId(1)), ("b", BackendId(2)), ("c", BackendId(3))]);
        let first: Vec<u16> = (0..16).filter_map(|share| ranges.owner(share << 20)).map(|id| id.0).collect();
        assert_eq!(first, [1, 3, 2, 2, 3, 1, 1, 2, 1, 2, 3, 1, 1, 2, 3, 1]);
        let counts = [1, 2, 3].map(|id| ranges.shares(BackendId(id)).count());
        assert_eq!(counts, [1389, 1340, 1367]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn who_comes_takes_a_fair_part_and_moves_nothing_else(count in 1..64_usize) {
            let all = named(count + 1);
            let (before, after) = (of(&all[..count]), of(&all));
            let newcomer = BackendId(u16::try_from(count + 1).unwrap());
            let moved: Vec<u32> = (0..1_u32 << 12)
                .map(|share| share << SHARE_BITS)
                .filter(|token| before.owner(*token) != after.owner(*token))
                .collect();
            // The other way round it is a backend that goes.
            prop_assert!(moved.iter().all(|token| after.owner(*token) == Some(newcomer)));
            let fair = SHARES / (count + 1);
            prop_assert!(moved.len() < 2 * fair + 16 && moved.len() + 16 > fair / 2, "{} of {fair}", moved.len());
        }

        #[test]
        fn neither_order_nor_ids_matter_to_who_owns_a_token(count in 1..32_usize, token: u32) {
            let names = named(count);
            let name = |ranges: &Ranges, names: &[String]| {
                ranges.owner(token).map(|id| names[usize::from(id.0) - 1].clone())
            };
            let turned: Vec<String> = names.iter().rev().cloned().collect();
            prop_assert_eq!(name(&of(&names), &names), name(&of(&turned), &turned));
        }

        #[test]
        fn every_token_lies_in_one_of_its_owners_shares(token: u32) {
            let ranges = of(&named(9));
            let owner = ranges.owner(token).unwrap();
            prop_assert!(ranges.shares(owner).any(|share| share == share_of(token)));
        }
    }
}
