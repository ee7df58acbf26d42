//! How a server comes to its key and its token: where a balancer's steering asks the servers for help, it is here.
//!
//! Both ends of a scheme share its arithmetic, crate `steering`; the tests of the loop hold the tokens to another
//! implementation of it.

use std::sync::Arc;

use ipc::id::BackendId;
use packet::Key;
use steering::cipher::Ciphers;
use steering::ranges::Ranges;

use super::connection::{End, Signal};
use super::host::Random;

/// Draws until a server gives up. A share of a 4096th is missed by so many once in 10^17 times.
const SEARCH: u32 = 160_000;

/// Where keys and tokens come from.
#[derive(Clone, Default)]
pub enum Issuer {
    /// Any, as kernels do.
    #[default]
    Random,
    /// Keys are drawn until the token lies in a share of the server's own (Olteanu and Raiciu split the token space;
    /// the search is how a server can follow, since no key can be computed from its token).
    Ranges {
        /// Whose which share is.
        ranges: Arc<Ranges>,
        /// This server.
        own: BackendId,
    },
    /// The token is the server's number, encrypted (Paasch, Greenway, Ford). Explicit tokens only.
    Cipher {
        /// The keys, as the balancer has them. Where there are two, as during a rotation, either serves.
        ciphers: Ciphers,
        /// This server.
        number: u16,
    },
    /// The balancer sends the key along with the SYN (Olteanu and Raiciu, solution 1).
    Given {
        /// This server, as the timestamps of all its subflows name it.
        number: u16,
    },
}

/// What a server answers a SYN with.
#[derive(Clone)]
pub struct Issued {
    /// Its key and token.
    pub end: End,
    /// Whether the balancer chose them.
    pub given: bool,
}

impl Issuer {
    /// A key with its token, or a token alone. `given` is the key that came with the SYN. `None`: there is none to be
    /// had, and the connection will be plain TCP.
    pub fn issue(
        &self,
        version: u8,
        signal: Signal,
        given: Option<Key>,
        random: &mut Random,
    ) -> Option<Issued> {
        let mut draw = || match signal {
            Signal::Keys => End::of_key(version, random.key()),
            Signal::G | Signal::E => End::of_token(random.word()),
        };
        let plain = |end| Issued { end, given: false };
        match self {
            Self::Random => Some(plain(draw())),
            Self::Ranges { ranges, own } => {
                (0..SEARCH).map(|_| draw()).find(|end| ranges.owner(end.token) == Some(*own)).map(plain)
            }
            Self::Cipher { .. } if signal == Signal::Keys => None,
            Self::Cipher { ciphers, number } => {
                let (odd, serial) = (random.word() & 1 == 1, random.word() >> 12);
                let mut tokens =
                    [odd, !odd].into_iter().filter_map(|odd| ciphers.token(odd, *number, serial));
                tokens.next().map(|(token, _)| plain(End::of_token(token)))
            }
            // None for those that the balancer does not choose for: clients without timestamps.
            Self::Given { .. } => Some(match given {
                Some(key) => Issued { end: End::of_key(version, key.0), given: true },
                None => plain(draw()),
            }),
        }
    }

    /// What the low bits of the timestamps of every connection say, plain ones too.
    pub fn mark(&self) -> Option<u16> {
        match self {
            Self::Given { number } => Some(*number),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::proof;

    const NAMES: [&str; 3] = ["b1", "b2", "b3"];

    #[test]
    fn a_searched_key_has_a_token_in_a_share_of_its_server_in_either_version() {
        let backends = [0, 1, 2].map(|n: u16| (NAMES[usize::from(n)], BackendId(n)));
        let ranges = Arc::new(Ranges::new(backends));
        let mut random = Random::new(1);
        for (_, own) in backends {
            let issuer = Issuer::Ranges { ranges: Arc::clone(&ranges), own };
            for version in [0, 1] {
                let end = issuer.issue(version, Signal::Keys, None, &mut random).unwrap().end;
                assert_eq!(proof::token(version, end.key.first_chunk().unwrap()), end.token);
                assert!(ranges.shares(own).any(|share| u32::from(share) == end.token >> 20));
            }
        }
    }

    #[test]
    fn an_encrypted_token_has_the_parity_of_its_key_and_needs_a_handshake_that_carries_tokens() {
        let mut random = Random::new(1);
        for odd in [false, true] {
            let keys = if odd { [None, Some([3; 8])] } else { [Some([3; 8]), None] };
            let ciphers = Ciphers::new(keys);
            let issuer = Issuer::Cipher { ciphers, number: 77 };
            for _ in 0..100 {
                let token = issuer.issue(1, Signal::E, None, &mut random).unwrap().end.token;
                assert_eq!((token % 2 == 1, ciphers.number(token)), (odd, Some(77)));
            }
            assert!(issuer.issue(1, Signal::Keys, None, &mut random).is_none());
        }
    }
}
