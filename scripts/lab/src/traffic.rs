//! The traffic: what the two ends of a connection say to each other.
//!
//! ```text
//! server: NAME '\n'                                    which backend holds the connection
//! then any number of rounds:
//! client: u64 up, u64 down (big endian), `up` bytes
//! server: SHA-256 of the bytes that came, `down` bytes, SHA-256 of the bytes it sent
//! client: SHA-256 of the bytes that came
//! server: one byte, 1 when that is what it sent
//! ```
//!
//! So each end compares a digest of what it sent with one of what the other received, in both directions.

pub mod client;
pub mod datagram;
pub mod echo;
pub mod flood;
pub mod probe;
pub mod serve;
pub mod subflow;

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};
use socket2::{Domain, Protocol, Socket, Type};

/// IPPROTO_MPTCP of Linux.
const MPTCP: i32 = 262;
/// How much is read or written at once.
const CHUNK: usize = 32 * 1024;

/// A SHA-256.
pub type Digest = [u8; 32];

/// A kernel MPTCP socket.
fn socket(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM, Some(Protocol::from(MPTCP)))
}

/// Bytes that look like noise and follow from `seed` (SplitMix64, Steele et al. 2014).
#[derive(Debug)]
struct Noise(u64);

impl Noise {
    fn fill(&mut self, buffer: &mut [u8]) {
        for word in buffer.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let bytes = (z ^ (z >> 31)).to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
    }
}

/// How much of `left` fits one chunk.
fn step(left: u64) -> usize {
    usize::try_from(left).map_or(CHUNK, |n| n.min(CHUNK))
}

/// Sends `count` bytes of noise; returns their digest.
fn send_noise(mut to: impl Write, seed: u64, count: u64) -> io::Result<Digest> {
    let (mut noise, mut hash, mut buffer) = (Noise(seed), Sha256::new(), vec![0; CHUNK]);
    let mut left = count;
    while left > 0 {
        let n = step(left);
        noise.fill(&mut buffer[..n]);
        hash.update(&buffer[..n]);
        to.write_all(&buffer[..n])?;
        left -= n as u64;
    }
    Ok(hash.finalize().into())
}

/// Receives `count` bytes; returns their digest.
fn receive(mut from: impl Read, count: u64) -> io::Result<Digest> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    let mut left = count;
    while left > 0 {
        let n = step(left);
        from.read_exact(&mut buffer[..n])?;
        hash.update(&buffer[..n]);
        left -= n as u64;
    }
    Ok(hash.finalize().into())
}

fn read_array<const N: usize>(mut from: impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The client's side of a round. An error says what differed.
fn client_round(stream: &Socket, seed: u64, up: u64, down: u64) -> io::Result<()> {
    let (mut reader, mut writer) = (stream, stream);
    writer.write_all(&[up.to_be_bytes(), down.to_be_bytes()].concat())?;
    let sent = send_noise(stream, seed, up)?;
    let arrived: Digest = read_array(stream)?;
    if arrived != sent {
        return Err(io::Error::other("the bytes that reached the backend are not the bytes sent"));
    }
    let received = receive(stream, down)?;
    let announced: Digest = read_array(stream)?;
    writer.write_all(&received)?;
    let [equal] = read_array(&mut reader)?;
    if received != announced || equal != 1 {
        return Err(io::Error::other("the bytes that came back are not the bytes the backend sent"));
    }
    Ok(())
}

/// The server's side of a round; `false` once the client has closed.
fn server_round(stream: &Socket) -> io::Result<bool> {
    let (mut reader, mut writer) = (stream, stream);
    let mut first = [0; 1];
    if reader.read(&mut first)? == 0 {
        return Ok(false);
    }
    let rest: [u8; 15] = read_array(stream)?;
    let mut header = [0; 16];
    header[0] = first[0];
    header[1..].copy_from_slice(&rest);
    let (up, down) = split(header);
    writer.write_all(&receive(stream, up)?)?;
    let sent = send_noise(stream, up ^ 0x5eed, down)?;
    writer.write_all(&sent)?;
    let arrived: Digest = read_array(stream)?;
    writer.write_all(&[u8::from(arrived == sent)])?;
    Ok(true)
}

fn split(header: [u8; 16]) -> (u64, u64) {
    let both = u128::from_be_bytes(header).to_be_bytes();
    let (mut up, mut down) = ([0; 8], [0; 8]);
    up.copy_from_slice(&both[..8]);
    down.copy_from_slice(&both[8..]);
    (u64::from_be_bytes(up), u64::from_be_bytes(down))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_received_has_the_digest_of_what_was_sent() {
        let mut wire = Vec::new();
        let sent = send_noise(&mut wire, 7, 100_001).unwrap();
        assert_eq!(wire.len(), 100_001);
        assert_eq!(receive(wire.as_slice(), 100_001).unwrap(), sent);
        wire[50_000] ^= 1;
        assert_ne!(receive(wire.as_slice(), 100_001).unwrap(), sent);
    }

    #[test]
    fn the_header_of_a_round_carries_both_lengths() {
        let mut header = [0; 16];
        header[7] = 5;
        header[15] = 9;
        assert_eq!(split(header), (5, 9));
    }

    #[test]
    fn a_round_over_sockets_ends_with_equal_digests() {
        let (ours, theirs) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        let server = std::thread::spawn(move || {
            let mut rounds = 0;
            while server_round(&theirs).unwrap() {
                rounds += 1;
            }
            rounds
        });
        client_round(&ours, 1, 70_000, 90_000).unwrap();
        client_round(&ours, 2, 0, 1).unwrap();
        drop(ours);
        assert_eq!(server.join().unwrap(), 2);
    }
}
