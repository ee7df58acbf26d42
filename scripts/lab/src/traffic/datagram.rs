//! Datagrams larger than any link carries whole: sent from several source ports in turn, each answered by the server
//! behind the VIP with the same bytes and its name.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::namespace::Namespace;
use crate::topology::{Family, Lab};
use crate::{Error, Result};

/// What is sent.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where to send.
    #[arg(long)]
    pub service: SocketAddr,
    /// Payload bytes of each datagram.
    #[arg(long, default_value_t = 8000)]
    pub bytes: usize,
    /// How many source ports take turns.
    #[arg(long, default_value_t = 8)]
    pub ports: u16,
    /// How often each sends.
    #[arg(long, default_value_t = 2)]
    pub rounds: u16,
}

impl Options {
    /// Runs it in the client's namespace; returns the names of the servers that answered, one a datagram.
    pub fn send(&self, lab: &Lab, from: &Namespace) -> Result<Vec<String>> {
        let numbers = [self.bytes.to_string(), self.ports.to_string(), self.rounds.to_string()];
        let [bytes, ports, rounds] = &numbers;
        let service = self.service.to_string();
        let words = [["--service", &service], ["--bytes", bytes], ["--ports", ports], ["--rounds", rounds]];
        let arguments = [&["datagram"], words.as_flattened()].concat();
        Ok(from.run(&lab.helper, &arguments)?.lines().map(str::to_owned).collect())
    }
}

/// The first source port.
const FIRST: u16 = 30_000;
/// How long an answer may take before its datagram is sent again: nobody else sends it again on a busy machine.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a datagram is sent.
const TRIES: u32 = 6;

/// Sends once and waits.
fn answer(socket: &UdpSocket, sent: &[u8]) -> Result<Vec<u8>> {
    let failed = |e| Error::io("a datagram was not answered", e);
    socket.send(sent).map_err(failed)?;
    let mut answer = vec![0; 65_536];
    let length = socket.recv(&mut answer).map_err(failed)?;
    answer.truncate(length);
    Ok(answer)
}

/// The body of `weft-lab datagram`: prints the name of the server that answered each datagram; an error when one was
/// not answered, or with other bytes.
pub fn run(options: &Options) -> Result<()> {
    let failed = |e| Error::io("a datagram was not answered", e);
    let [address, _] = if options.service.is_ipv4() { Family::V4 } else { Family::V6 }.client();
    for _ in 0..options.rounds {
        for port in 0..options.ports {
            let socket = UdpSocket::bind((address, FIRST + port)).map_err(failed)?;
            socket.connect(options.service).map_err(failed)?;
            socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
            let sent: Vec<u8> = (0..options.bytes).map(|n| u8::try_from(n % 251).unwrap_or(0)).collect();
            let mut answers = (0..TRIES).map(|_| answer(&socket, &sent));
            let answer = match answers.find(Result::is_ok) {
                Some(answer) => answer?,
                None => return Err(failed(io::ErrorKind::TimedOut.into())),
            };
            let name = answer.strip_prefix(sent.as_slice()).ok_or(Error::other("other bytes came back"))?;
            println!("{}", String::from_utf8_lossy(name));
        }
    }
    Ok(())
}
