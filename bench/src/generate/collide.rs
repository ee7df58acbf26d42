//! Pairs of keys that differ and give the same token, found as the birthday paradox finds them: among four million keys
//! some two thousand pairs.

use anyhow::bail;
use packet::{Key, Token, Version};

use super::plan::Versions;
use super::random::{Purpose, number};

/// Keys looked at together: what they take in memory, 64 MiB, is what this takes however many pairs are asked for.
const KEYS: u64 = 1 << 22;
/// Most pairs: beyond, the search takes minutes.
const PAIRS: u64 = 1_000_000;

/// So many pairs.
///
/// # Errors
/// More than [`PAIRS`], or of both versions: what collides in one does so in the other only by chance.
pub(super) fn pairs(seed: u64, count: u64, versions: Versions) -> anyhow::Result<Vec<[Key; 2]>> {
    if count > PAIRS {
        bail!("the profile collide has at most {} connections", 2 * PAIRS);
    }
    let version = match versions {
        Versions::V0 => Version::V0,
        Versions::V1 => Version::V1,
        Versions::Both => bail!("the profile collide is of one version: say --version 0 or --version 1"),
    };
    let wanted = usize::try_from(count)?;
    let mut pairs = Vec::with_capacity(wanted);
    // A few pairs need fewer keys: n keys have n squared over 2^33 pairs.
    let keys = ((count * 3) << 32).isqrt().next_power_of_two().clamp(1 << 18, KEYS);
    let mut tokens: Vec<(u32, u64)> = Vec::new();
    let mut first = 0;
    while pairs.len() < wanted {
        tokens.clear();
        tokens.extend(
            (first..first + keys).map(|index| (Token::from_key(version, &key(seed, index)).0, index)),
        );
        tokens.sort_unstable();
        // Of three alike the first two make a pair.
        let mut rest = tokens.as_slice();
        while let [(token, one), after @ ..] = rest {
            rest = after;
            if let [(other_token, other), after @ ..] = rest
                && token == other_token
            {
                pairs.push([key(seed, *one), key(seed, *other)]);
                rest = after;
            }
        }
        first += keys;
    }
    pairs.truncate(wanted);
    Ok(pairs)
}

fn key(seed: u64, index: u64) -> Key {
    Key(number(seed, Purpose::Collision, index).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_pair_differ_and_their_tokens_do_not() {
        for (versions, version) in [(Versions::V0, Version::V0), (Versions::V1, Version::V1)] {
            let pairs = pairs(5, 20, versions).unwrap();
            assert_eq!(pairs.len(), 20);
            for [one, other] in pairs {
                assert!(one != other && Token::from_key(version, &one) == Token::from_key(version, &other));
            }
        }
        assert!(pairs(5, 1, Versions::Both).is_err());
    }
}
