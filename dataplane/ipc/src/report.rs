//! What the agent on a backend reports of it: which tokens and subflows live there, and which ended.
//!
//! A report is one command of the link ([`crate::message::Command::Report`]), outside of batches and without an answer:
//! there are as many as connections come and go, each stands alone, and what became of them is counted
//! ([`crate::counters::LinkCounter`]). The control plane has checked that the agent speaks for the backend; the data
//! plane checks the rest, so that the worst report changes its own backend's entries, takes a token that only packets taught, or a
//! flow that nobody's handshake opened here (docs/adr/0010-agents.md).

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::field::{BadMessage, Field, Reader, Writer};

/// A subflow as its packets from the client show it. Both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subflow {
    client: SocketAddr,
    service: SocketAddr,
}

impl Subflow {
    /// The subflow between a client's address and port and a VIP's; `None` where the families differ. An IPv4 address
    /// in IPv6's clothes (`::ffff:a.b.c.d`, as sockets of both families say it) is taken for what it is; scopes and flow
    /// labels are left out.
    pub fn new(client: SocketAddr, service: SocketAddr) -> Option<Self> {
        let plain = |of: SocketAddr| SocketAddr::new(of.ip().to_canonical(), of.port());
        let (client, service) = (plain(client), plain(service));
        (client.is_ipv4() == service.is_ipv4()).then_some(Self { client, service })
    }

    /// The client's address and port.
    pub const fn client(&self) -> SocketAddr {
        self.client
    }

    /// The VIP's address and port.
    pub const fn service(&self) -> SocketAddr {
        self.service
    }
}

/// What an agent says of its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The agent is there, and vouches for all it has reported, for so many seconds from now; 0 takes that back. Until
    /// then proven tokens of the backend expire by [`Report::TokenEnded`] only.
    Lease {
        /// Seconds from now.
        seconds: u16,
    },
    /// The token's connection lives on the backend.
    TokenLives {
        /// The token.
        token: u32,
    },
    /// The connection is no more.
    TokenEnded {
        /// The token.
        token: u32,
    },
    /// The subflow is established on the backend.
    SubflowLives {
        /// The token of its connection.
        token: u32,
        /// Which.
        subflow: Subflow,
        /// Whether MP_JOIN opened it; else it is its connection's first.
        joined: bool,
    },
    /// The subflow has ended.
    SubflowEnded {
        /// Which.
        subflow: Subflow,
    },
    /// The agent tells all there is from here on: every token that lives.
    DumpBegins,
    /// It has told all there is: what was proven before and not told since is no more.
    DumpEnds,
}

/// The text of all reports, for the layout hash.
pub(crate) const SCHEMA: &str = "Report kind:u8 token:u32 seconds:u16 joined:bool subflow:Option<Subflow>, Lease 1, \
    TokenLives 2, TokenEnded 3, SubflowLives 4, SubflowEnded 5, DumpBegins 6, DumpEnds 7;";

/// A kind, a token, seconds, whether joined, and, if there is one, a subflow: what a report does not have is zero.
type Form = (u8, u32, u16, bool, Option<Subflow>);

impl Report {
    const fn form(&self) -> Form {
        match *self {
            Self::Lease { seconds } => (1, 0, seconds, false, None),
            Self::TokenLives { token } => (2, token, 0, false, None),
            Self::TokenEnded { token } => (3, token, 0, false, None),
            Self::SubflowLives { token, subflow, joined } => (4, token, 0, joined, Some(subflow)),
            Self::SubflowEnded { subflow } => (5, 0, 0, false, Some(subflow)),
            Self::DumpBegins => (6, 0, 0, false, None),
            Self::DumpEnds => (7, 0, 0, false, None),
        }
    }

    const fn of_form(form: Form) -> Result<Self, BadMessage> {
        Ok(match form {
            (1, 0, seconds, false, None) => Self::Lease { seconds },
            (2, token, 0, false, None) => Self::TokenLives { token },
            (3, token, 0, false, None) => Self::TokenEnded { token },
            (4, token, 0, joined, Some(subflow)) => Self::SubflowLives { token, subflow, joined },
            (5, 0, 0, false, Some(subflow)) => Self::SubflowEnded { subflow },
            (6, 0, 0, false, None) => Self::DumpBegins,
            (7, 0, 0, false, None) => Self::DumpEnds,
            _ => return Err(BadMessage),
        })
    }
}

impl Field for Report {
    const BYTES: usize = 1 + u32::BYTES + u16::BYTES + bool::BYTES + Option::<Subflow>::BYTES;
    fn put(&self, to: &mut Writer<'_>) {
        let (kind, token, seconds, joined, subflow) = self.form();
        kind.put(to);
        token.put(to);
        seconds.put(to);
        joined.put(to);
        subflow.put(to);
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> {
        let (kind, token, seconds, joined) =
            (u8::get(from)?, u32::get(from)?, u16::get(from)?, bool::get(from)?);
        Self::of_form((kind, token, seconds, joined, Option::get(from)?))
    }
}

impl Field for Subflow {
    const BYTES: usize = 2 * (IpAddr::BYTES + u16::BYTES);
    fn put(&self, to: &mut Writer<'_>) {
        for end in [self.client, self.service] {
            end.ip().put(to);
            end.port().put(to);
        }
    }
    fn get(from: &mut Reader<'_>) -> Result<Self, BadMessage> {
        let client = SocketAddr::new(IpAddr::get(from)?, u16::get(from)?);
        let service = SocketAddr::new(IpAddr::get(from)?, u16::get(from)?);
        let subflow = Self::new(client, service).ok_or(BadMessage)?;
        // An address in another family's clothes is one that `put` does not write.
        if (subflow.client, subflow.service) == (client, service) { Ok(subflow) } else { Err(BadMessage) }
    }
}

/// What a subflow nobody has looks like, for tests and benches.
impl Default for Subflow {
    fn default() -> Self {
        let nobody = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Self { client: nobody, service: nobody }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BackendId;
    use crate::message::Command;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn decode(slot: &[u8; crate::message::SLOT]) -> Result<Command, BadMessage> {
        Command::decode(slot)
    }

    #[test]
    fn an_ipv4_address_of_an_ipv6_socket_is_an_ipv4_address() {
        let plain = Subflow::new(at("10.0.1.1:40000"), at("10.9.9.9:443")).unwrap();
        assert_eq!(Subflow::new(at("[::ffff:10.0.1.1]:40000"), at("[::ffff:10.9.9.9]:443")), Some(plain));
        assert_eq!(Subflow::new(at("10.0.1.1:40000"), at("[fd99::9]:443")), None);
    }

    #[test]
    fn a_report_with_what_its_kind_does_not_have_is_no_message() {
        let backend = BackendId(7);
        let subflow = Subflow::new(at("10.0.1.1:40000"), at("10.9.9.9:443")).unwrap();
        let lives =
            Command::Report { backend, report: Report::SubflowLives { token: 9, subflow, joined: true } };
        let slot = lives.encode();
        assert_eq!(decode(&slot), Ok(lives));
        // The kind is the byte after the message's number and the backend's id.
        for kind in (0..=u8::MAX).filter(|kind| *kind != 4) {
            let mut other = slot;
            other[3] = kind;
            assert_eq!(decode(&other), Err(BadMessage), "kind {kind}");
        }
        let ended = Command::Report { backend, report: Report::TokenEnded { token: 9 } };
        let mut with_seconds = ended.encode();
        with_seconds[8] = 1;
        assert_eq!(decode(&with_seconds), Err(BadMessage));
    }

    #[test]
    fn two_families_in_one_subflow_are_no_message() {
        let subflow = Subflow::new(at("[fd99::1]:40000"), at("[fd99::9]:443")).unwrap();
        let mut slot =
            Command::Report { backend: BackendId(7), report: Report::SubflowEnded { subflow } }.encode();
        let clothes = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];
        // The client's address follows the number, the id, kind, token, seconds, two flags and the family.
        slot[13..29].copy_from_slice(&clothes);
        assert_eq!(decode(&slot), Err(BadMessage));
    }
}
