//! The subflows that were told on of one backend's connections: what has to be ended with their connection, and what
//! bounds how many flows an agent holds.
//!
//! As small as it can be, since there are as many as the backend has connections: a token, both ends and whether the last
//! dump said it, 17 bytes for IPv4 and 41 for IPv6, in the nodes of a tree; of one connection they are neighbours.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipc::report::Subflow;

/// Both ends of an IPv4 subflow: the client's address and port, and the service's.
type Ends4 = (Ipv4Addr, u16, Ipv4Addr, u16);
/// The same of IPv6.
type Ends6 = (Ipv6Addr, u16, Ipv6Addr, u16);

/// Of every end the least, and the greatest.
const ALL4: [Ends4; 2] = [(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::UNSPECIFIED, 0), {
    (Ipv4Addr::BROADCAST, u16::MAX, Ipv4Addr::BROADCAST, u16::MAX)
}];
const LAST6: Ipv6Addr = Ipv6Addr::from_bits(u128::MAX);
const ALL6: [Ends6; 2] =
    [(Ipv6Addr::UNSPECIFIED, 0, Ipv6Addr::UNSPECIFIED, 0), (LAST6, u16::MAX, LAST6, u16::MAX)];

/// Subflows by their connection's token.
#[derive(Debug, Default)]
pub(super) struct Subflows {
    v4: BTreeMap<(u32, Ends4), bool>,
    v6: BTreeMap<(u32, Ends6), bool>,
}

enum Ends {
    V4(Ends4),
    V6(Ends6),
}

impl Subflows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// How many a connection has.
    pub fn of(&self, token: u32) -> usize {
        self.v4.range(around(token, ALL4)).count() + self.v6.range(around(token, ALL6)).count()
    }

    /// Notes that one was said; whether it was known.
    pub fn say(&mut self, token: u32, subflow: &Subflow) -> bool {
        let known = match ends(subflow) {
            Ends::V4(ends) => self.v4.get_mut(&(token, ends)),
            Ends::V6(ends) => self.v6.get_mut(&(token, ends)),
        };
        known.map(|is_said| *is_said = true).is_some()
    }

    /// Enters one that was said.
    pub fn enter(&mut self, token: u32, subflow: &Subflow) {
        match ends(subflow) {
            Ends::V4(ends) => self.v4.insert((token, ends), true),
            Ends::V6(ends) => self.v6.insert((token, ends), true),
        };
    }

    /// Takes one out; whether it was known.
    pub fn remove(&mut self, token: u32, subflow: &Subflow) -> bool {
        let known = match ends(subflow) {
            Ends::V4(ends) => self.v4.remove(&(token, ends)),
            Ends::V6(ends) => self.v6.remove(&(token, ends)),
        };
        known.is_some()
    }

    /// Takes out all of a connection.
    pub fn take(&mut self, token: u32) -> Vec<Subflow> {
        let of4: Vec<_> = self.v4.range(around(token, ALL4)).map(|(key, _)| *key).collect();
        let of6: Vec<_> = self.v6.range(around(token, ALL6)).map(|(key, _)| *key).collect();
        let mut taken = Vec::new();
        for key in of4 {
            self.v4.remove(&key);
            taken.extend(subflow4(&key.1));
        }
        for key in of6 {
            self.v6.remove(&key);
            taken.extend(subflow6(&key.1));
        }
        taken
    }

    /// A dump begins: nothing was said.
    pub fn begin(&mut self) {
        self.v4.values_mut().chain(self.v6.values_mut()).for_each(|is_said| *is_said = false);
    }

    /// A dump ends: shows `gone` what it did not say, and takes that out.
    pub fn end(&mut self, mut gone: impl FnMut(u32, Subflow)) {
        self.v4.retain(|(token, ends), is_said| {
            subflow4(ends).filter(|_| !*is_said).into_iter().for_each(|subflow| gone(*token, subflow));
            *is_said
        });
        self.v6.retain(|(token, ends), is_said| {
            subflow6(ends).filter(|_| !*is_said).into_iter().for_each(|subflow| gone(*token, subflow));
            *is_said
        });
    }
}

/// Every key of a token.
fn around<E>(token: u32, [first, last]: [E; 2]) -> std::ops::RangeInclusive<(u32, E)> {
    (token, first)..=(token, last)
}

fn ends(subflow: &Subflow) -> Ends {
    let (client, service) = (subflow.client(), subflow.service());
    match (client.ip(), service.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Ends::V4((from, client.port(), to, service.port())),
        (from, to) => {
            let v6 = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            Ends::V6((v6(from), client.port(), v6(to), service.port()))
        }
    }
}

fn subflow4((client, client_port, service, service_port): &Ends4) -> Option<Subflow> {
    let client = SocketAddr::from((*client, *client_port));
    Subflow::new(client, SocketAddr::from((*service, *service_port)))
}

fn subflow6((client, client_port, service, service_port): &Ends6) -> Option<Subflow> {
    let client = SocketAddr::from((*client, *client_port));
    Subflow::new(client, SocketAddr::from((*service, *service_port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subflow(client: &str, service: &str) -> Subflow {
        Subflow::new(client.parse().unwrap(), service.parse().unwrap()).unwrap()
    }

    #[test]
    fn subflows_of_both_families_come_back_as_they_were_and_by_their_connection_only() {
        let mut subflows = Subflows::default();
        let of_7 = [
            subflow("0.0.0.0:0", "10.9.9.9:443"),
            subflow("255.255.255.255:65535", "255.255.255.255:65535"),
            subflow("[::]:0", "[::]:0"),
            subflow("[fd00:2::1]:40000", "[fd99::9]:443"),
        ];
        let of_8 = subflow("10.0.2.1:40000", "10.9.9.9:443");
        of_7.iter().for_each(|of_7| subflows.enter(7, of_7));
        for token in [6, 8] {
            subflows.enter(token, &of_8);
        }
        assert_eq!((subflows.of(7), subflows.len()), (4, 6));
        assert!(subflows.say(7, &of_7[2]) && !subflows.say(7, &of_8));
        assert_eq!(subflows.take(7), of_7);
        assert_eq!((subflows.of(7), subflows.of(6), subflows.len()), (0, 1, 2));
        assert!(subflows.remove(6, &of_8) && !subflows.remove(6, &of_8));
    }

    #[test]
    fn what_a_dump_did_not_say_is_shown_and_gone() {
        let mut subflows = Subflows::default();
        let one = |port: u16| subflow(&format!("10.0.2.1:{port}"), "10.9.9.9:443");
        let two = |port: u16| subflow(&format!("[fd00::1]:{port}"), "[fd99::9]:443");
        for port in 1..=2 {
            subflows.enter(7, &one(port));
            subflows.enter(8, &two(port));
        }
        subflows.begin();
        subflows.say(7, &one(2));
        subflows.enter(9, &one(3));
        let mut gone = Vec::new();
        subflows.end(|token, subflow| gone.push((token, subflow)));
        assert_eq!(gone, [(7, one(1)), (8, two(1)), (8, two(2))]);
        assert_eq!(subflows.len(), 2);
    }
}
