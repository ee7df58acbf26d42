//! How soon an end that is gone without a word is noticed.
//!
//! What an end sends is acknowledged, or the connection ends after [`LIMIT`] (TCP_USER_TIMEOUT, RFC 5482). The agent sends a line
//! at least every five seconds, so it notices an appliance that lost its power, or a cut network, by then. Without it TCP
//! goes on for a quarter of an hour, or until its next retransmission after the network is back, minutes later.

use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// Twice the time in which an agent says something: what the control plane takes for death, too.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Ends a connection whose other end acknowledges nothing for [`LIMIT`].
pub fn limit(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_tcp_user_timeout(Some(LIMIT))
}
