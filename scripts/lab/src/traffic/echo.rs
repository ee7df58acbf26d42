//! A kernel client of a server that sends back what it gets: the simulator's servers do, which know nothing of rounds
//! and digests. One connection after the other: data on the first subflow, a second subflow, data until both brought
//! some. Which of them carries what the client sends is its kernel's choice.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket};

use super::subflow::{self, Subflow};
use super::{Noise, socket};
use crate::topology::Lab;
use crate::{Error, Result};

/// A connection that stays silent so long is broken.
const SILENCE: Duration = Duration::from_secs(20);
/// Bytes sent at once and awaited.
const BYTES: usize = 32_768;
/// Rounds after which a subflow that still carried nothing is reported as it is.
const ROUNDS: u32 = 200;

/// What is done.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where to connect.
    #[arg(long)]
    pub service: SocketAddr,
    /// How many connections.
    #[arg(long, default_value_t = 5)]
    pub connections: usize,
    /// How many seconds a second subflow may take.
    #[arg(long, default_value_t = 10)]
    pub join_wait: u64,
}

impl Options {
    /// Runs it in the client's namespace; what became of each connection.
    pub fn run(&self, lab: &Lab) -> Result<Vec<Echoed>> {
        let (service, connections) = (self.service.to_string(), self.connections.to_string());
        let wait = self.join_wait.to_string();
        let words = ["echo", "--service", &service, "--connections", &connections, "--join-wait", &wait];
        let text = lab.client.run(&lab.helper, &words)?;
        serde_json::from_str(&text).map_err(|e| Error::other(format!("the client said `{text}`: {e}")))
    }
}

/// What became of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echoed {
    /// Subflows at the end.
    pub subflows: usize,
    /// Those of them that brought payload.
    pub heard: usize,
    /// Bytes that were sent and came back as they were.
    pub bytes: usize,
}

/// The body of `weft-lab echo`: prints a JSON list.
pub fn run(options: &Options) -> Result<()> {
    let mut list = Vec::new();
    for number in 0..options.connections {
        let failed = |e| Error::io(format!("connection {}", number + 1), e);
        list.push(one(options, number as u64).map_err(failed)?);
    }
    println!("{}", serde_json::to_string(&list).map_err(|e| Error::other(e.to_string()))?);
    Ok(())
}

fn one(options: &Options, seed: u64) -> io::Result<Echoed> {
    let stream = socket(Domain::for_address(options.service))?;
    stream.connect_timeout(&options.service.into(), SILENCE)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let local = stream.local_addr()?.as_socket();
    let mut noise = Noise(seed);
    let mut bytes = round(&stream, &mut noise)?;
    let (start, limit) = (Instant::now(), Duration::from_secs(options.join_wait));
    let mut rounds = 0;
    loop {
        let own = own(local)?;
        let heard = own.iter().filter(|subflow| subflow.received > 0).count();
        let waits = own.len() < 2 && start.elapsed() < limit;
        if !waits && (heard == own.len() || rounds >= ROUNDS) {
            return Ok(Echoed { subflows: own.len(), heard, bytes });
        }
        if waits {
            std::thread::sleep(Duration::from_millis(50));
        } else {
            bytes += round(&stream, &mut noise)?;
            rounds += 1;
        }
    }
}

/// The subflows of the connection whose first one is at `local`.
fn own(local: Option<SocketAddr>) -> io::Result<Vec<Subflow>> {
    let all = subflow::list().map_err(io::Error::other)?;
    let first = all.iter().find(|subflow| Some(subflow.local) == local).map(|subflow| subflow.connection);
    Ok(all.into_iter().filter(|subflow| Some(subflow.connection) == first).collect())
}

/// Sends noise and waits for it; how many bytes.
fn round(mut stream: &Socket, noise: &mut Noise) -> io::Result<usize> {
    let mut sent = vec![0; BYTES];
    noise.fill(&mut sent);
    stream.write_all(&sent)?;
    let mut back = vec![0; BYTES];
    stream.read_exact(&mut back)?;
    if back != sent {
        return Err(io::Error::other("the bytes that came back are not the bytes sent"));
    }
    Ok(BYTES)
}
