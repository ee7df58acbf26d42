//! The profiles by name, and which kind of connection the connections of a profile are.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;

use super::malformed;
use super::random::{Purpose, number};
use super::script::{Flavour, Script};

/// What a file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Profile {
    /// Connections without MPTCP.
    Plain,
    /// MPTCP connections of one subflow.
    Capable,
    /// Long-lived MPTCP connections that carry DSS.
    Bulk,
    /// Connections of two subflows.
    Join,
    /// Nothing but joins of known tokens.
    JoinSyn,
    /// Nothing but third packets of handshakes.
    ThirdAck,
    /// Joins of connections nobody saw begin.
    Unknown,
    /// Claims to tokens that were never given.
    Forged,
    /// Pairs of connections with one token.
    Collide,
    /// Joins that arrive before the token they name.
    Overtake,
    /// What subflows tell each other about addresses.
    Signals,
    /// Connections that end at once.
    Fastclose,
    /// Options that contradict themselves.
    Malformed,
    /// ICMP errors about joined subflows.
    Icmp,
    /// A bit of everything.
    Mix,
    /// SYNs.
    SynFlood,
    /// SYNs with MP_CAPABLE.
    CapableFlood,
    /// SYNs with MP_JOIN.
    JoinFlood,
    /// Datagrams.
    Udp,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Plain,
        Self::Capable,
        Self::Bulk,
        Self::Join,
        Self::JoinSyn,
        Self::ThirdAck,
        Self::Unknown,
        Self::Forged,
        Self::Collide,
        Self::Overtake,
        Self::Signals,
        Self::Fastclose,
        Self::Malformed,
        Self::Icmp,
        Self::Mix,
        Self::SynFlood,
        Self::CapableFlood,
        Self::JoinFlood,
        Self::Udp,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Capable => "capable",
            Self::Bulk => "bulk",
            Self::Join => "join",
            Self::JoinSyn => "join-syn",
            Self::ThirdAck => "third-ack",
            Self::Unknown => "unknown",
            Self::Forged => "forged",
            Self::Collide => "collide",
            Self::Overtake => "overtake",
            Self::Signals => "signals",
            Self::Fastclose => "fastclose",
            Self::Malformed => "malformed",
            Self::Icmp => "icmp",
            Self::Mix => "mix",
            Self::SynFlood => "syn-flood",
            Self::CapableFlood => "capable-flood",
            Self::JoinFlood => "join-flood",
            Self::Udp => "udp",
        }
    }

    /// What is in it, in one sentence.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Plain => "TCP without MPTCP, from SYN to FIN; --frame-size 60 leaves the timestamps out.",
            Self::Capable => {
                "MPTCP connections of one subflow, three in four with the client speaking first (its key is seen \
                 twice), from SYN to DATA_FIN and FIN."
            }
            Self::Bulk => {
                "Long-lived MPTCP connections: the warm part establishes them, the steady part is their DSS data \
                 and acknowledgments in random order."
            }
            Self::Join => {
                "Connections joined from a second address of the client, data on both subflows, DATA_FIN and FIN \
                 on both."
            }
            Self::JoinSyn => {
                "The warm part teaches tokens, the steady part is SYNs with MP_JOIN of those, each from an address \
                 and port of its own."
            }
            Self::ThirdAck => {
                "The warm part is SYNs with MP_CAPABLE, the steady part is their third packets, which bring the keys."
            }
            Self::Unknown => {
                "Joins of tokens no packet of the file taught, each sent again once, as TCP does."
            }
            Self::Forged => {
                "Keys claimed without a SYN, far behind its sequence number, of the other version, or twice on one \
                 flow, each followed by a join; and a join with a known token and a wrong HMAC."
            }
            Self::Collide => {
                "Pairs of connections whose keys differ and give the same token, and a join of it from each."
            }
            Self::Overtake => {
                "A join that arrives before the third packet of its connection, and again after it."
            }
            Self::Signals => {
                "Joined connections with ADD_ADDR, its echo, MP_PRIO and REMOVE_ADDR among their first packets."
            }
            Self::Fastclose => {
                "Joined connections that end by RST with MP_FASTCLOSE and MP_TCPRST on both subflows (version 0: \
                 MP_FASTCLOSE on an ACK, RST on the other subflow)."
            }
            Self::Malformed => {
                "TCP and MPTCP options that are cut off or contradict themselves, on SYNs and ACKs."
            }
            Self::Icmp => {
                "Joined connections, and ICMP errors (too big, unreachable, time exceeded) that quote what the \
                 server sent on the joined subflow."
            }
            Self::Mix => {
                "Plain TCP, MPTCP with and without joins, unknown and early joins, address signals, FASTCLOSE, \
                 malformed options and ICMP errors, from SYN to FIN; and UDP where a UDP VIP is given."
            }
            Self::SynFlood => "SYNs without MPTCP, each from another address and port.",
            Self::CapableFlood => "SYNs with MP_CAPABLE, each from another address and port.",
            Self::JoinFlood => "SYNs with MP_JOIN of unknown tokens, each from another address and port.",
            Self::Udp => "Datagrams of so many flows to a UDP VIP.",
        }
    }

    /// What the connection with this number is.
    #[inline]
    pub(super) fn flavour(self, seed: u64, index: u64, udp: bool) -> Flavour {
        match self {
            Self::Plain => Flavour::Plain,
            Self::Capable if number(seed, Purpose::Kind, index).is_multiple_of(4) => Flavour::Greeted,
            Self::Capable => Flavour::Capable,
            Self::Bulk => Flavour::Bulk,
            Self::Join => Flavour::Join,
            Self::JoinSyn => Flavour::JoinSyn,
            Self::ThirdAck => Flavour::ThirdAck,
            Self::Unknown => Flavour::Unknown,
            Self::Forged => Flavour::FORGED[place(index, Flavour::FORGED.len())],
            Self::Collide => Flavour::Collide,
            Self::Overtake => Flavour::Overtake,
            Self::Signals => Flavour::Signals,
            Self::Fastclose => Flavour::Fastclose,
            Self::Malformed => Flavour::Malformed(place(index, malformed::CASES.len())),
            Self::Icmp => Flavour::Icmp,
            Self::Mix => mixed(seed, index, udp),
            Self::SynFlood => Flavour::SynFlood,
            Self::CapableFlood => Flavour::CapableFlood,
            Self::JoinFlood => Flavour::JoinFlood,
            Self::Udp => Flavour::Udp,
        }
    }

    /// Whether it is made of datagrams.
    pub(super) const fn is_udp(self) -> bool {
        matches!(self, Self::Udp)
    }

    /// Every kind of connection it has.
    pub(super) fn flavours(self) -> Vec<Flavour> {
        match self {
            Self::Capable => vec![Flavour::Capable, Flavour::Greeted],
            Self::Forged => Flavour::FORGED.to_vec(),
            Self::Malformed => (0..malformed::CASES.len()).map(Flavour::Malformed).collect(),
            Self::Mix => (0..100).map(|percent| shared_out(percent, true, 0)).collect(),
            _ => vec![self.flavour(0, 0, true)],
        }
    }

    /// Whether it has a part that establishes flows.
    pub fn has_warm_part(self) -> bool {
        self.flavours().iter().any(|flavour| !flavour.script().open.is_empty())
    }

    /// Whether it has a part that goes on with them.
    pub fn has_steady_part(self) -> bool {
        self.flavours().into_iter().any(|flavour| Script::runs(flavour.script()))
    }
}

/// A place in a list of so many, in turn.
fn place(index: u64, len: usize) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX) % len
}

/// One connection of [`Profile::Mix`].
#[inline]
fn mixed(seed: u64, index: u64, udp: bool) -> Flavour {
    let number = number(seed, Purpose::Kind, index);
    shared_out(number % 100, udp, number >> 8)
}

/// The mix, in hundredths of its connections. Not what any network measured: enough of everything, mostly plain.
fn shared_out(percent: u64, udp: bool, other: u64) -> Flavour {
    match percent {
        0..40 => Flavour::Plain,
        40..58 => Flavour::Capable,
        58..66 => Flavour::Greeted,
        66..82 => Flavour::Join,
        82..84 => Flavour::Overtake,
        84..86 => Flavour::Unknown,
        86..89 => Flavour::Signals,
        89..91 => Flavour::Fastclose,
        91..93 => Flavour::Malformed(place(other, malformed::CASES.len())),
        93..95 => Flavour::Icmp,
        _ if udp => Flavour::Udp,
        _ => Flavour::Plain,
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        let Some(profile) = Self::ALL.into_iter().find(|profile| profile.name() == name) else {
            bail!("no profile is called {name:?}; weft-bench gen --list names them all");
        };
        Ok(profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_has_a_name_of_its_own_and_a_sentence() {
        for profile in Profile::ALL {
            assert_eq!(profile.name().parse::<Profile>().unwrap(), profile);
            assert!(profile.sentence().ends_with('.'), "{profile}");
        }
        assert!("plein".parse::<Profile>().unwrap_err().to_string().contains("--list"));
    }

    #[test]
    fn what_a_profile_says_it_has_is_what_its_connections_are() {
        for profile in Profile::ALL {
            let mut seen: Vec<Flavour> = (0..5000).map(|index| profile.flavour(1, index, true)).collect();
            seen.sort_unstable();
            seen.dedup();
            let mut said = profile.flavours();
            if profile == Profile::Mix {
                said.retain(|flavour| !matches!(flavour, Flavour::Malformed(_)));
                seen.retain(|flavour| !matches!(flavour, Flavour::Malformed(_)));
            }
            said.sort_unstable();
            said.dedup();
            assert_eq!(seen, said, "{profile}");
        }
    }
}
