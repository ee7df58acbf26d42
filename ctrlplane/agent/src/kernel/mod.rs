//! The kernel's side: generic-netlink events and socket diagnosis, both without a write.

pub mod dump;
pub mod events;

use std::io;

use netlink_packet_core::{NlaBuffer, NlasIterator};
use netlink_sys::{Socket, SocketAddr};

/// Why the kernel cannot be listened to.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The netlink socket failed.
    #[error("the kernel's netlink socket failed: {0}")]
    Socket(#[from] io::Error),
    /// There is no path manager.
    #[error(
        "this kernel has no MPTCP path manager: it needs CONFIG_MPTCP, Linux 5.12 or later (net.mptcp.enabled)"
    )]
    NoMptcp,
    /// The capability is missing.
    #[error(
        "{what} needs CAP_NET_ADMIN in this network namespace: run as root, or grant that one capability"
    )]
    NotPermitted {
        /// What was tried.
        what: &'static str,
    },
    /// The kernel said no.
    #[error("the kernel refused {what}: {error}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its answer.
        error: io::Error,
    },
    /// An answer that is none.
    #[error("the kernel's answer to {what} cannot be read: {detail}")]
    Unreadable {
        /// What was asked.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

/// A netlink socket of a protocol, bound to a port of the kernel's choice.
fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Gives a socket's queue room for so many bytes; more than the system's limit needs the capability, so less may come of
/// it.
fn make_room(socket: &Socket, bytes: usize) {
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, bytes).is_err() {
        let _less_will_do = socket.set_rx_buf_sz(bytes);
    }
}

/// Shows `visit` each attribute: its kind, without flags, and its value. What comes after a damaged one is left out.
fn attributes(bytes: &[u8], mut visit: impl FnMut(u16, &[u8])) {
    for attribute in NlasIterator::new(bytes) {
        let Ok(attribute): Result<NlaBuffer<&[u8]>, _> = attribute else { return };
        visit(attribute.kind(), attribute.value());
    }
}

/// A number in the machine's byte order.
fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// What the tests of both kinds of messages build theirs from.
#[cfg(test)]
mod test_support {
    /// An attribute, padded to four bytes.
    pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}
