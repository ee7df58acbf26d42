//! Who a connection is: addresses, ports, keys, sequence numbers, clocks; all of it from the seed and its number.
//!
//! Clients live in the networks that are reserved for benchmarks, 198.18.0.0/15 (RFC 2544, RFC 6890) and 2001:2::/48
//! (RFC 5180): servers answer clients directly, and what a flood draws must not reach anybody.

use packet::{Address, Family, Key, Token, Version, initial_data_sequence};

use super::random::{Purpose, low16, low32, number, scramble};
use super::script::PathIndex;

/// Linux's range of ports: 32768 to 60999.
const PORT_FIRST: u16 = 32_768;
const PORTS: u64 = 28_232;
const HOSTS: u64 = 1 << 16;

/// Connections, or joins, a file may have: each has a 5-tuple of its own.
pub(super) const TUPLES: u64 = HOSTS * PORTS;

/// A service as clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub address: Address,
    pub port: u16,
}

/// One connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub seed: u64,
    pub index: u64,
    pub family: Family,
    pub version: Version,
    /// Whether DSS checksums are used.
    pub checksums: bool,
    pub service: Service,
    pub client: Key,
    pub server: Key,
}

/// One of its subflows, from the client's side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub address: Address,
    pub port: u16,
    pub isn: u32,
    pub server_isn: u32,
    /// What the client's timestamps begin with, and the server's.
    pub clocks: (u32, u32),
    /// The first packet's IPv4 identification; each next one counts up.
    pub id: u16,
    pub label: u32,
}

impl Connection {
    /// The token that the server is joined by.
    pub(super) fn token(&self) -> Token {
        Token::from_key(self.version, &self.server)
    }

    /// The data sequence number of the client's first byte, and of the server's.
    pub(super) fn first_data(&self) -> (u64, u64) {
        let of = |key| initial_data_sequence(self.version, key).wrapping_add(1);
        (of(&self.client), of(&self.server))
    }

    /// Both keys, the client's first.
    pub(super) const fn keys(&self) -> (&Key, &Key) {
        (&self.client, &self.server)
    }

    /// The nonces of a join with this number, the client's first.
    pub(super) fn nonces(&self, tuple: u64) -> (u32, u32) {
        let both = number(self.seed, Purpose::Nonce, tuple);
        (low32(both), low32(both >> 32))
    }

    /// A subflow. `tuple` is the connection's own number but for joins that come again and again.
    #[inline]
    pub(super) fn path(&self, path: PathIndex, tuple: u64) -> Path {
        let host = host(self.seed, tuple);
        let turn = scramble(self.seed ^ u64::from(host)).wrapping_add(tuple / HOSTS) % PORTS;
        let port = PORT_FIRST + low16(turn);
        self.subflow(
            address(self.family, host, path),
            port,
            tuple.wrapping_mul(2).wrapping_add(u64::from(path != 0)),
        )
    }

    /// A subflow from anywhere: what a flood's packet with this number says of its sender.
    #[inline]
    pub(super) fn stranger(&self, tuple: u64) -> Path {
        let random = number(self.seed, Purpose::Flood, tuple);
        let port = 1024 + low16((random >> 32) % 64_512);
        let address = match self.family {
            Family::V4 => address(Family::V4, low16(random), usize::from(random >> 16 & 1 == 1)),
            Family::V6 => {
                let [a, b, c, d, e, f, g, h] = scramble(random).to_be_bytes();
                let [high, low] = low16(random).to_be_bytes();
                Address::from_v6([0x20, 1, 0, 2, 0, 0, high, low, a, b, c, d, e, f, g, h])
            }
        };
        self.subflow(address, port, tuple ^ (1 << 63))
    }

    fn subflow(&self, address: Address, port: u16, salt: u64) -> Path {
        let sequences = number(self.seed, Purpose::Path, salt);
        let clocks = scramble(sequences);
        let rest = scramble(clocks);
        Path {
            address,
            port,
            isn: low32(sequences),
            server_isn: low32(sequences >> 32),
            clocks: (low32(clocks), low32(clocks >> 32)),
            id: low16(rest),
            label: low32(rest >> 16) & 0x000f_ffff,
        }
    }

    /// A further address of the client, on no subflow.
    pub(super) fn further_address(&self) -> Address {
        address(self.family, host(self.seed, self.index) ^ 1, 1)
    }
}

/// The client of a tuple: numbers that follow each other have different ones.
fn host(seed: u64, tuple: u64) -> u16 {
    let random = scramble(seed);
    low16(tuple).wrapping_mul(low16(random) | 1).wrapping_add(low16(random >> 16))
}

/// A client's address: 198.18.x.y on the first path, 198.19.x.y on the second; 2001:2:0:n::1, and ::2 of another
/// network.
fn address(family: Family, host: u16, path: PathIndex) -> Address {
    let second = path != 0;
    match family {
        Family::V4 => {
            let [high, low] = host.to_be_bytes();
            Address::from_v4([198, 18 + u8::from(second), high, low])
        }
        Family::V6 => {
            let [high, low] = (host ^ if second { 0x8000 } else { 0 }).to_be_bytes();
            let mut octets = [0x20, 1, 0, 2, 0, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 1];
            octets[15] += u8::from(second);
            Address::from_v6(octets)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_connections_share_an_address_and_a_port() {
        for family in [Family::V4, Family::V6] {
            let mut seen = HashSet::new();
            let zero = Key([0; 8]);
            let service = Service { address: Address::from_v4([10, 9, 9, 9]), port: 80 };
            let connection = |index| Connection {
                seed: 3,
                index,
                family,
                version: Version::V1,
                checksums: false,
                service,
                client: zero,
                server: zero,
            };
            // Across the place where hosts begin again, and at the end.
            let edges = [0, HOSTS, 2 * HOSTS, TUPLES - 1000];
            for index in edges.into_iter().flat_map(|edge| edge..edge + 1000) {
                for path in 0..2 {
                    let path = connection(index).path(path, index);
                    assert!(path.port >= PORT_FIRST && path.port < 61_000);
                    assert!(seen.insert((path.address, path.port)), "{index} {path:?}");
                }
            }
        }
    }
}
