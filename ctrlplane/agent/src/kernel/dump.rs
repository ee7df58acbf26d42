//! What is there already: the kernel's MPTCP connections and their subflows, by socket diagnosis (linux/inet_diag.h).
//!
//! Two questions. MPTCP sockets have the token of each connection, also of one whose first subflow is gone. TCP sockets
//! have, as information of their upper layer (ULP), the token of the connection each is a subflow of and whether it joined.
//! No library has these questions: they are 56 bytes each.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::events::messages;
use super::{KernelError, attributes, number, open};
use crate::wire::{Event, Kind, Token};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// Netlink's own message types and flags.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST_DUMP: u16 = 0x1 | 0x300;
/// `NLM_F_DUMP_INTR`: the table changed while it was read.
const INTERRUPTED: u16 = 0x10;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TCP: u32 = 6;
const MPTCP: u32 = 262;

/// `INET_DIAG_REQ_PROTOCOL`: a protocol that does not fit its byte.
const REQUEST_PROTOCOL: u16 = 3;
/// `1 << (INET_DIAG_INFO - 1)`: without it, nothing of the upper layer either.
const WITH_INFO: u8 = 1 << 1;
/// `INET_DIAG_INFO`, `INET_DIAG_ULP_INFO`, and in that `INET_ULP_INFO_MPTCP`.
const INFO: u16 = 2;
const ULP: u16 = 19;
const ULP_MPTCP: u16 = 3;
/// `MPTCP_SUBFLOW_ATTR_TOKEN_LOC`, `MPTCP_SUBFLOW_ATTR_FLAGS`, and of these the two for a subflow that joined:
/// `MPTCP_SUBFLOW_FLAG_JOIN_REM` where the other end may have asked for it, `MPTCP_SUBFLOW_FLAG_JOIN_LOC` where this one did.
const TOKEN_LOCAL: u16 = 2;
const FLAGS: u16 = 8;
const JOINED: u32 = 1 << 2 | 1 << 3;
/// Where `struct mptcp_info` has the token of this end.
const INFO_TOKEN: usize = 12;

/// Connected states: ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING. The last states still get packets.
const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// Bytes of the netlink header, of the question, and of the fixed part of an answer.
const HEADER: usize = 16;
const QUESTION: usize = 56;
const ANSWER: usize = 72;

/// Shows `say` every connection and every subflow, connections first. `say` may stop it by `false`.
pub fn dump(mut say: impl FnMut(Event) -> bool) -> Result<(), KernelError> {
    for (protocol, read) in [(MPTCP, connection as fn(&[u8]) -> Option<Event>), (TCP, subflow)] {
        for family in [AF_INET, AF_INET6] {
            let socket = open(NETLINK_SOCK_DIAG)?;
            socket.send(&question(family, protocol), 0)?;
            if !answers(&socket, read, &mut say)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Reads answers to the end; `false` if `say` stopped it.
fn answers(
    socket: &Socket,
    read: fn(&[u8]) -> Option<Event>,
    say: &mut impl FnMut(Event) -> bool,
) -> Result<bool, KernelError> {
    const WHAT: &str = "the question for MPTCP sockets";
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if datagram.is_empty() {
            return Err(KernelError::Unreadable { what: WHAT, detail: "an empty answer".to_owned() });
        }
        for message in messages(&datagram) {
            match message.message_type() {
                DONE => return Ok(true),
                ERROR => {
                    let code = number(message.payload()).map_or(0, |code| code.cast_signed().wrapping_neg());
                    let error = std::io::Error::from_raw_os_error(code);
                    return Err(KernelError::Refused { what: WHAT, error });
                }
                _ => {}
            }
            if message.flags() & INTERRUPTED != 0 {
                // What came or went meanwhile is told by events.
                log::debug!("sockets changed while they were listed");
            }
            if let Some(event) = read(message.payload())
                && !say(event)
            {
                return Ok(false);
            }
        }
    }
}

/// `struct inet_diag_req_v2`, and for MPTCP, whose number does not fit a byte, the attribute that has it.
fn question(family: u8, protocol: u32) -> Vec<u8> {
    let is_mptcp = protocol == MPTCP;
    let in_byte = u8::try_from(protocol).unwrap_or(u8::MAX);
    let mut body = vec![family, in_byte, WITH_INFO, 0];
    body.extend(CONNECTED.to_ne_bytes());
    // An empty `struct inet_diag_sockid`: any.
    body.resize(QUESTION, 0);
    if is_mptcp {
        body.extend([8_u16.to_ne_bytes(), REQUEST_PROTOCOL.to_ne_bytes()].concat());
        body.extend(protocol.to_ne_bytes());
    }
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST_DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// The ends of `struct inet_diag_msg`: family, state, timer, retransmits, then `struct inet_diag_sockid`.
fn ends(answer: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let family = *answer.first()?;
    let port = |at: usize| {
        let bytes = answer.get(at..)?.first_chunk::<2>()?;
        Some(u16::from_be_bytes(*bytes))
    };
    let address = |at: usize| {
        let octets = answer.get(at..)?.first_chunk::<16>()?;
        Some(match family {
            AF_INET => IpAddr::from(*octets.first_chunk::<4>()?),
            _ => IpAddr::V6(Ipv6Addr::from(*octets)).to_canonical(),
        })
    };
    Some((SocketAddr::new(address(8)?, port(4)?), SocketAddr::new(address(24)?, port(6)?)))
}

/// A connection, from an MPTCP socket.
fn connection(answer: &[u8]) -> Option<Event> {
    let (local, remote) = ends(answer)?;
    let mut token = None;
    attributes(answer.get(ANSWER..)?, |attribute, value| {
        if attribute == INFO {
            token = value.get(INFO_TOKEN..).and_then(number);
        }
    });
    let token = Token(token.filter(|token| *token != 0)?);
    Some(Event { kind: Kind::Created, token, local: Some(local), remote: Some(remote) })
}

/// A subflow, from a TCP socket that is one.
fn subflow(answer: &[u8]) -> Option<Event> {
    let (local, remote) = ends(answer)?;
    let (mut token, mut flags) = (None, 0);
    attributes(answer.get(ANSWER..)?, |attribute, value| {
        if attribute == ULP {
            attributes(value, |layer, value| {
                if layer == ULP_MPTCP {
                    attributes(value, |attribute, value| match attribute {
                        TOKEN_LOCAL => token = number(value),
                        FLAGS => flags = number(value).unwrap_or(0),
                        _ => {}
                    });
                }
            });
        }
    });
    let token = Token(token.filter(|token| *token != 0)?);
    let kind = if flags & JOINED != 0 { Kind::SubEstablished } else { Kind::Established };
    Some(Event { kind, token, local: Some(local), remote: Some(remote) })
}

#[cfg(test)]
mod tests {
    use super::super::test_support::attribute;
    use super::*;

    /// A TCP socket with a subflow of token 913e6c21 in its upper layer.
    fn answer(flags: u32) -> Vec<u8> {
        let mut bytes = vec![AF_INET, 1, 0, 0];
        bytes.extend(8000_u16.to_be_bytes());
        bytes.extend(40_000_u16.to_be_bytes());
        bytes.extend([10, 9, 9, 9]);
        bytes.resize(24, 0);
        bytes.extend([10, 0, 2, 1]);
        bytes.resize(ANSWER, 0);
        let subflow =
            [attribute(TOKEN_LOCAL, &0x913e_6c21_u32.to_ne_bytes()), attribute(FLAGS, &flags.to_ne_bytes())];
        // Nested, as the kernel marks it.
        let layer = [attribute(1, b"mptcp\0"), attribute(ULP_MPTCP | 0x8000, &subflow.concat())];
        bytes.extend(attribute(ULP | 0x8000, &layer.concat()));
        bytes
    }

    #[test]
    fn a_subflow_is_told_by_its_flags() {
        let expected = |kind| Event {
            kind,
            token: Token(0x913e_6c21),
            local: Some("10.9.9.9:8000".parse().unwrap()),
            remote: Some("10.0.2.1:40000".parse().unwrap()),
        };
        assert_eq!(subflow(&answer(0b1_0011)), Some(expected(Kind::Established)));
        assert_eq!(subflow(&answer(0b100)), Some(expected(Kind::SubEstablished)), "accepted here");
        assert_eq!(subflow(&answer(0b1000)), Some(expected(Kind::SubEstablished)), "asked for here");
    }

    #[test]
    fn an_answer_cut_off_anywhere_is_none_or_whole() {
        let whole = answer(0b100);
        for length in 0..whole.len() {
            if let Some(event) = subflow(&whole[..length]) {
                assert_eq!(event.token, Token(0x913e_6c21), "cut at {length}");
            }
            assert_eq!(connection(&whole[..length]), None);
        }
    }

    #[test]
    fn a_question_is_as_long_as_it_says() {
        assert_eq!(question(AF_INET, TCP).len(), HEADER + QUESTION);
        assert_eq!(question(AF_INET6, MPTCP).len(), HEADER + QUESTION + 8);
        assert_eq!(question(AF_INET, MPTCP)[..4], 80_u32.to_ne_bytes());
    }
}
