//! Floods: packets of the lab's own making from addresses that do not exist, through a raw socket of the client's
//! kernel, as a liar on the network would send them. IPv4 only.
//!
//! Servers have no route to those addresses, so a flood costs them little and no answer ever comes.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::Noise;
use crate::topology::{Family, Lab, PORT};
use crate::{Error, Result};

/// IPPROTO_RAW: the packet brings its own IP header.
const RAW: i32 = 255;
/// The kernel's queue of the interface is full: wait for it (ENOBUFS).
const NO_BUFFERS: i32 = 105;
/// The first source address; sources are random in its /9, which nobody in the lab has.
const SOURCES: u32 = 0x0a80_0000;

/// What a flood is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// SYNs without MPTCP.
    Syn,
    /// SYNs with MP_CAPABLE (RFC 8684 section 3.1).
    Capable,
    /// SYNs with MP_JOIN (RFC 8684 section 3.2), all with one token.
    Join,
    /// ACKs of connections that nobody opened.
    Ack,
}

impl Kind {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Capable => "capable",
            Self::Join => "join",
            Self::Ack => "ack",
        }
    }
}

/// What the flood does.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Its packets.
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// How many.
    #[arg(long)]
    pub packets: u64,
    /// The token of the joins, 8 hex digits.
    #[arg(long, default_value = "00000000")]
    pub token: String,
    /// Seed of addresses, ports and sequence numbers.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Packets that the client's kernel took.
    pub packets: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Sends a flood from the client's namespace to the VIP and waits until it is sent.
pub fn send(lab: &Lab, kind: Kind, packets: u64, token: &str, seed: u64) -> Result<Sent> {
    let (packets, seed) = (packets.to_string(), seed.to_string());
    let token = if token.is_empty() { "00000000" } else { token };
    let words = ["flood", "--kind", kind.name(), "--packets", &packets, "--token", token, "--seed", &seed];
    let said = lab.client.run(&lab.helper, &words)?;
    serde_json::from_str(&said).map_err(|e| Error::other(format!("the flood said `{said}`: {e}")))
}

/// The body of `weft-lab flood`.
pub fn run(options: &Options) -> Result<()> {
    let failed = |e| Error::io("the flood cannot send", e);
    let token = u32::from_str_radix(&options.token, 16)
        .map_err(|_| Error::other(format!("{} is no token of 8 hex digits", options.token)))?;
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW))).map_err(failed)?;
    let std::net::IpAddr::V4(vip) = Family::V4.vip() else {
        return Err(Error::other("the VIP has no IPv4 address"));
    };
    let to = SocketAddrV4::new(vip, 0).into();
    let (mut noise, start) = (Noise(options.seed), Instant::now());
    for _ in 0..options.packets {
        let packet = packet(options.kind, vip, token, &mut noise);
        while let Err(error) = socket.send_to(&packet, &to) {
            if error.raw_os_error() != Some(NO_BUFFERS) {
                return Err(failed(error));
            }
            std::thread::yield_now();
        }
    }
    let sent = Sent { packets: options.packets, seconds: start.elapsed().as_secs_f64() };
    println!("{}", serde_json::to_string(&sent).map_err(|e| Error::other(e.to_string()))?);
    Ok(())
}

/// One packet of the flood: IPv4 and TCP headers and the option, with both checksums.
fn packet(kind: Kind, vip: Ipv4Addr, token: u32, noise: &mut Noise) -> Vec<u8> {
    let mut random = [0; 24];
    noise.fill(&mut random);
    let [a, b, c, d, e, f, ..] = random;
    let word = |at: usize| [random[at], random[at + 1], random[at + 2], random[at + 3]];
    let source = (SOURCES | u32::from_be_bytes([0, a & 0x7f, b, c])).to_be_bytes();
    let port = (u16::from_be_bytes([d, e]) | 1024).to_be_bytes();
    let options: Vec<u8> = match kind {
        Kind::Syn | Kind::Ack => Vec::new(),
        // Kind 30; version 1, no key yet; checksum not required, HMAC-SHA256.
        Kind::Capable => vec![30, 4, 0x01, 0x01],
        // Kind 30; subtype 1, an address id, the token, a random number.
        Kind::Join => [&[30, 12, 0x10, f], token.to_be_bytes().as_slice(), &word(16)].concat(),
    };
    let (flags, acknowledged) = if kind == Kind::Ack { (0x10, word(12)) } else { (0x02, [0; 4]) };
    let header = 20 + u8::try_from(options.len()).unwrap_or(0);
    let mut tcp = [&port, PORT.to_be_bytes().as_slice(), &word(8), &acknowledged].concat();
    tcp.extend([header << 2, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    tcp.extend(options);
    let length = [0, header];
    let sum = checksum(&[&source, vip.octets().as_slice(), &[0, 6], &length, &tcp].concat());
    tcp[16..18].copy_from_slice(&sum);
    // The kernel writes the total length, the identification and the checksum (raw(7)).
    let ip = [&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0], source.as_slice(), &vip.octets()].concat();
    [ip, tcp].concat()
}

/// RFC 1071; every packet here has an even length.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [.., high, low] = (!sum).to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_of_the_flood_is_a_syn_with_its_token_and_a_right_checksum() {
        let vip = Ipv4Addr::new(10, 9, 9, 9);
        let packet = packet(Kind::Join, vip, 0x0102_0304, &mut Noise(7));
        assert_eq!(packet.len(), 20 + 32);
        assert_eq!(packet[12..14], [10, 0x80 | packet[13] & 0x7f]);
        assert_eq!(packet[20 + 13], 0x02);
        assert_eq!(packet[40..43], [30, 12, 0x10]);
        assert_eq!(packet[44..48], [1, 2, 3, 4]);
        let pseudo = [&packet[12..20], &[0, 6, 0, 32], &packet[20..]].concat();
        assert_eq!(checksum(&pseudo), [0, 0]);
    }
}
