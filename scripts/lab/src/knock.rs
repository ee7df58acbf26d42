//! Hand-made tunnel packets: asks a decapsulator, without any balancer, whether it understands a form.
//!
//! A knock is an ICMP echo request (RFC 792, RFC 4443) from this machine to the VIP, in the outer headers that the
//! balancer would write. Who takes them off and has the VIP answers, past the balancer, as servers do. The headers
//! are written here a second time, from the RFCs, so that an error in the balancer's own is not made twice.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{Error, Result};

/// The UDP port of GUE.
pub const GUE_PORT: u16 = 6080;
/// A port outside the range the kernel gives out.
const SOURCE_PORT: u16 = 51_000;
const PATIENCE: Duration = Duration::from_millis(700);

const ICMP: u8 = 1;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// How a packet is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// IP in IP: protocol 4 or 41 (RFC 2003, RFC 2473, RFC 4213).
    Ipip,
    /// Generic UDP encapsulation, variant 0, with a UDP checksum of zero.
    Gue,
    /// The same with a computed UDP checksum.
    GueChecked,
}

impl Form {
    /// Every form.
    pub const ALL: [Self; 3] = [Self::Ipip, Self::Gue, Self::GueChecked];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::GueChecked => "gue-checked",
        }
    }
}

/// One knock.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How the packet is wrapped.
    #[arg(long, value_enum)]
    pub form: Form,
    /// The decapsulator's address: the outer destination.
    #[arg(long)]
    pub door: IpAddr,
    /// The own address of the door's family: the outer source.
    #[arg(long)]
    pub outer_source: IpAddr,
    /// The VIP that is to answer: the inner destination.
    #[arg(long)]
    pub vip: IpAddr,
    /// The own address of the VIP's family: the inner source.
    #[arg(long)]
    pub source: IpAddr,
    /// How often a knock is sent before nobody is said to answer.
    #[arg(long, default_value_t = 10)]
    pub tries: u16,
}

impl Options {
    /// The arguments of `weft-lab`.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["knock".to_owned(), "--form".to_owned(), self.form.name().to_owned()];
        let values = [
            ("--door", self.door.to_string()),
            ("--outer-source", self.outer_source.to_string()),
            ("--vip", self.vip.to_string()),
            ("--source", self.source.to_string()),
            ("--tries", self.tries.to_string()),
        ];
        for (name, value) in values {
            arguments.extend([name.to_owned(), value]);
        }
        arguments
    }
}

/// The body of `weft-lab knock`: an error when nobody answers.
pub fn knock(options: &Options) -> Result<()> {
    let failed = |e| Error::io("cannot knock", e);
    // Unique enough among the knocks of one namespace, and no other program's ping.
    let identifier = u16::try_from(std::process::id() & 0xffff).unwrap_or(1);
    let listener = listen(options.vip, options.source).map_err(failed)?;
    for sequence in 1..=options.tries {
        let echo = echo_request(options.source, options.vip, identifier, sequence)?;
        send(options, &echo).map_err(failed)?;
        if answered(&listener, options.vip, identifier).map_err(failed)? {
            println!("answered {sequence}");
            return Ok(());
        }
    }
    Err(Error::other(format!(
        "{} at {} did not let {} through to {}",
        options.form.name(),
        options.door,
        options.source,
        options.vip
    )))
}

fn listen(vip: IpAddr, source: IpAddr) -> io::Result<Socket> {
    let (domain, protocol) = match vip {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    Ok(socket)
}

/// Waits for the echo reply. A raw IPv4 socket hands over the IP header, an IPv6 one does not.
fn answered(mut listener: &Socket, vip: IpAddr, identifier: u16) -> io::Result<bool> {
    let (skip, reply) = if vip.is_ipv4() { (20, 0) } else { (0, 129) };
    let start = Instant::now();
    let mut packet = [0; 2048];
    while let Some(left) = PATIENCE.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        listener.set_read_timeout(Some(left))?;
        let length = match listener.read(&mut packet) {
            Ok(length) => length,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Err(e) => return Err(e),
        };
        let message = packet.get(skip..length).unwrap_or_default();
        if message.first() == Some(&reply) && message.get(4..6) == Some(&identifier.to_be_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Sends the inner packet in its wrapping; the kernel writes the outer IP header.
fn send(options: &Options, inner: &[u8]) -> io::Result<()> {
    let protocol = if options.vip.is_ipv4() { 4 } else { 41 };
    let (outer, payload) = match options.form {
        Form::Ipip => (protocol, inner.to_vec()),
        Form::Gue => (UDP, gue(options, protocol, inner, false)),
        Form::GueChecked => (UDP, gue(options, protocol, inner, true)),
    };
    let domain = Domain::for_address(SocketAddr::new(options.door, 0));
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(outer))))?;
    socket.bind(&SocketAddr::new(options.outer_source, 0).into())?;
    socket.send_to(&payload, &SocketAddr::new(options.door, 0).into())?;
    Ok(())
}

/// A UDP header, the four bytes of GUE variant 0 (no optional fields), and the inner packet.
fn gue(options: &Options, protocol: u8, inner: &[u8], checked: bool) -> Vec<u8> {
    let length = u16::try_from(inner.len() + 12).unwrap_or(u16::MAX);
    let mut datagram = Vec::new();
    for word in [SOURCE_PORT, GUE_PORT, length, 0] {
        datagram.extend(word.to_be_bytes());
    }
    datagram.extend([0, protocol, 0, 0]);
    datagram.extend(inner);
    if checked {
        let sum = transport_checksum(options.outer_source, options.door, UDP, &datagram);
        // Zero would say that there is none.
        put(&mut datagram, 6, if sum == 0 { 0xffff } else { sum });
    }
    datagram
}

/// An IP packet with an ICMP echo request in it.
fn echo_request(source: IpAddr, vip: IpAddr, identifier: u16, sequence: u16) -> Result<Vec<u8>> {
    let mut message = vec![if vip.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(*b"is anybody in? ");
    match (source, vip) {
        (IpAddr::V4(source), IpAddr::V4(vip)) => {
            let sum = checksum(&message);
            put(&mut message, 2, sum);
            Ok([&header4(source, vip, message.len())[..], &message].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let sum = transport_checksum(source, vip, ICMP6, &message);
            put(&mut message, 2, sum);
            Ok([&header6(from, to, message.len())[..], &message].concat())
        }
        _ => Err(Error::other("the source is not of the VIP's family")),
    }
}

/// RFC 791, without options.
fn header4(source: Ipv4Addr, to: Ipv4Addr, payload: usize) -> Vec<u8> {
    let total = u16::try_from(payload + 20).unwrap_or(u16::MAX);
    let mut header = vec![0x45, 0];
    header.extend(total.to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, ICMP, 0, 0]);
    header.extend(source.octets());
    header.extend(to.octets());
    let sum = checksum(&header);
    put(&mut header, 10, sum);
    header
}

/// RFC 8200, section 3.
fn header6(source: Ipv6Addr, to: Ipv6Addr, payload: usize) -> Vec<u8> {
    let length = u16::try_from(payload).unwrap_or(u16::MAX);
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(length.to_be_bytes());
    header.extend([ICMP6, 64]);
    header.extend(source.octets());
    header.extend(to.octets());
    header
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Over the pseudo-header of either family (RFC 768; RFC 8200, section 8.1) and the message.
fn transport_checksum(source: IpAddr, to: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut all = [octets(source), octets(to)].concat();
    all.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    all.extend([0, 0, 0, protocol]);
    all.extend(message);
    checksum(&all)
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        u32::from(pair.first().copied().unwrap_or(0)) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        // The example of section 3: the sum is ddf2.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn an_echo_request_checks_itself() {
        let source: Ipv4Addr = "10.0.1.1".parse().unwrap();
        let packet = echo_request(source.into(), "10.9.9.9".parse().unwrap(), 7, 1).unwrap();
        assert_eq!(checksum(&packet[..20]), 0);
        assert_eq!(checksum(&packet[20..]), 0);
        let (source, to): (IpAddr, IpAddr) = ("fd00::1".parse().unwrap(), "fd99::9".parse().unwrap());
        let packet = echo_request(source, to, 7, 1).unwrap();
        assert_eq!(transport_checksum(source, to, ICMP6, &packet[40..]), 0);
    }

    #[test]
    fn the_header_of_gue_is_variant_zero_with_the_inner_protocol() {
        let options = Options {
            form: Form::GueChecked,
            door: "fd00::2".parse().unwrap(),
            outer_source: "fd00::1".parse().unwrap(),
            vip: "10.9.9.9".parse().unwrap(),
            source: "10.0.1.1".parse().unwrap(),
            tries: 1,
        };
        let datagram = gue(&options, 4, &[1, 2, 3], true);
        assert_eq!(datagram[2..6], [0x17, 0xc0, 0, 15]);
        assert_eq!(datagram[8..], [0, 4, 0, 0, 1, 2, 3]);
        assert_eq!(transport_checksum(options.outer_source, options.door, UDP, &datagram), 0);
    }
}
