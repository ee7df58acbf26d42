//! What the kernel says about subflows, read from `ss`: the interface that needs no unsafe code.
//!
//! In `ss -tni` a subflow of MPTCP shows `tcp-ulp-mptcp flags:F token:REMOTE(id:N)/LOCAL(id:M)`, hexadecimal without
//! leading zeros. The local token is the same on every subflow of a connection; the remote one, which only joined
//! subflows show, is the token of the MP_JOIN on the wire.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use crate::{Result, process};

/// One established subflow, seen from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subflow {
    /// The client's address and port.
    pub local: SocketAddr,
    /// The address and port it goes to: the service's, or one that a server announced.
    pub peer: SocketAddr,
    /// The client's own token: the name of the connection.
    pub connection: u32,
    /// The backend's token, as MP_JOIN carries it; 0 on the first subflow.
    pub join_token: u32,
    /// TCP payload bytes sent, retransmissions included.
    pub sent: u64,
    /// TCP payload bytes received.
    pub received: u64,
}

/// The established subflows of this namespace, wherever they go.
pub fn list() -> Result<Vec<Subflow>> {
    let output =
        process::run(Command::new("ss").args(["-H", "-O", "-t", "-n", "-i", "state", "established"]))?;
    Ok(parse(&output))
}

fn parse(output: &str) -> Vec<Subflow> {
    output.lines().filter_map(subflow).collect()
}

fn subflow(line: &str) -> Option<Subflow> {
    // With one state asked for, `ss` leaves out its column: Recv-Q, Send-Q, local, peer, details.
    let mut words = line.split_whitespace().skip(2);
    let (local, peer) = (address(words.next()?)?, address(words.next()?)?);
    let details: Vec<&str> = words.collect();
    let number = |name: &str| {
        let value = details.iter().find_map(|word| word.strip_prefix(name))?;
        value.parse::<u64>().ok()
    };
    let tokens = details.iter().find_map(|word| word.strip_prefix("token:"))?;
    let (remote, own) = tokens.split_once('/')?;
    Some(Subflow {
        local,
        peer,
        connection: token(own)?,
        join_token: token(remote)?,
        sent: number("bytes_sent:").unwrap_or(0),
        received: number("bytes_received:").unwrap_or(0),
    })
}

/// `1f1709b5(id:0)`.
fn token(text: &str) -> Option<u32> {
    u32::from_str_radix(text.split('(').next()?, 16).ok()
}

/// `10.0.2.1%c1:59891` or `[fd00:2::1]%c1:59891`.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.split('%').next()?;
    let host: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    Some(SocketAddr::new(host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
0      0           10.0.1.1:60872     10.9.9.9:8000 \t ts sack bbr rtt:0.006/0.008 bytes_sent:1001000 bytes_acked:1001001 bytes_received:1001003 tcp-ulp-mptcp flags:Mmec token:0000(id:0)/e8365ae9(id:0) seq:afd2277d403b2c84
0      0        10.0.2.1%c1:59891     10.9.9.9:8000 \t ts sack bbr bytes_acked:1 tcp-ulp-mptcp flags:Jjec token:9b5(id:0)/e8365ae9(id:1) seq:afd2
0      0        [fd00:2::1]%c1:59892     [fd99::9]:8000 \t ts tcp-ulp-mptcp flags:Jjec token:9b5(id:0)/e8365ae9(id:1) seq:afd2
0      0        10.0.2.1:59893     10.9.9.9:22 \t ts sack bbr bytes_acked:1
";

    #[test]
    fn a_first_and_a_joined_subflow_share_the_local_token() {
        let subflows = parse(OUTPUT);
        assert_eq!(subflows.len(), 3, "the last line is plain TCP");
        assert_eq!(subflows[0].connection, subflows[1].connection);
        assert_eq!((subflows[0].join_token, subflows[1].join_token), (0, 0x9b5));
        assert_eq!((subflows[0].sent, subflows[0].received), (1_001_000, 1_001_003));
        assert_eq!(subflows[1].local, "10.0.2.1:59891".parse().unwrap());
        assert_eq!(subflows[1].peer, Family::V4.service());
        assert_eq!((subflows[1].sent, subflows[1].received), (0, 0));
    }

    #[test]
    fn an_ipv6_address_loses_its_brackets_and_interface() {
        let subflows = parse(OUTPUT);
        assert_eq!(subflows[2].local, "[fd00:2::1]:59892".parse().unwrap());
        assert_eq!(subflows[2].peer, Family::V6.service());
    }

    use crate::topology::Family;
}
