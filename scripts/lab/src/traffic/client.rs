//! The client: many MPTCP connections to the VIP at once, in step.
//!
//! Every connection opens and moves data on its first subflow; then the client waits for the second subflows, which
//! the kernel opens by itself; then all move data in rounds until every subflow has carried payload both ways (the
//! kernel's scheduler decides which data goes where, so the number of rounds is not known beforehand).
//!
//! It tells whoever started it how far it is, one line of JSON a [`Stage`].

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::subflow::{self, Subflow};
use super::{client_round, read_array, socket};
use crate::process::Task;
use crate::topology::{Family, Lab};
use crate::{Error, Result};

/// A connection that stays silent so long is broken.
const SILENCE: Duration = Duration::from_secs(30);
/// Bytes that the first subflow moves in each direction before there is a second one.
const OPENING: u64 = 16_384;
/// Rounds after which a subflow that still carried nothing is reported as it is.
const ROUNDS: u32 = 40;

/// What the client does.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where to connect.
    #[arg(long)]
    pub service: SocketAddr,
    /// How many connections.
    #[arg(long, default_value_t = 60)]
    pub connections: usize,
    /// Bytes a round moves in each direction, on each connection.
    #[arg(long, default_value_t = 262_144)]
    pub bytes: u64,
    /// How many seconds a second subflow may take.
    #[arg(long, default_value_t = 12)]
    pub join_wait: u64,
    /// Keep moving data until stdin ends, and answer every line on stdin with a report.
    #[arg(long)]
    pub until_eof: bool,
    /// Plain TCP: one flow a connection.
    #[arg(long)]
    pub plain: bool,
    /// The source port of the first connection; the others follow. 0: the kernel chooses.
    #[arg(long, default_value_t = 0)]
    pub first_port: u16,
}

impl Options {
    /// The usual run over `family`.
    pub fn new(family: Family, connections: usize) -> Self {
        Self {
            service: family.service(),
            connections,
            bytes: 262_144,
            join_wait: 12,
            until_eof: false,
            plain: false,
            first_port: 0,
        }
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["client".to_owned()];
        let values = [
            ("--service", self.service.to_string()),
            ("--connections", self.connections.to_string()),
            ("--bytes", self.bytes.to_string()),
            ("--join-wait", self.join_wait.to_string()),
            ("--first-port", self.first_port.to_string()),
        ];
        for (name, value) in values {
            arguments.extend([name.to_owned(), value]);
        }
        if self.until_eof {
            arguments.push("--until-eof".to_owned());
        }
        if self.plain {
            arguments.push("--plain".to_owned());
        }
        arguments
    }
}

/// How far the client is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "lowercase")]
pub enum Stage {
    /// Every connection was opened, moved data on its first subflow, and got its second one or waited long enough.
    Joined {
        /// Connections with more than one subflow.
        joined: usize,
    },
    /// How things are after the round in which somebody asked.
    Now(Report),
    /// All is over.
    Done(Report),
}

/// What became of one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The backend that answered.
    pub backend: String,
    /// The token its MP_JOIN carried, 8 hex digits; empty when no subflow joined.
    pub join_token: String,
    /// Where its joins went, each address and port once.
    pub joined_at: Vec<SocketAddr>,
    /// Subflows at the end, the first included.
    pub subflows: usize,
    /// Those of them that carried payload both ways.
    pub busy_subflows: usize,
    /// Rounds in which both digests were equal at both ends.
    pub rounds: u32,
    /// Why it broke, if it did.
    pub error: Option<String>,
}

/// What became of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// One entry a connection.
    pub connections: Vec<Connection>,
    /// Payload bytes sent and checked, all connections.
    pub bytes_up: u64,
    /// Payload bytes received and checked, all connections.
    pub bytes_down: u64,
    /// Bytes of `bytes_up` and `bytes_down` by the client's address: what each path carried.
    pub paths: Vec<Path>,
}

/// What one path carried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// The client's address.
    pub address: String,
    /// TCP payload sent, retransmissions included.
    pub sent: u64,
    /// TCP payload received.
    pub received: u64,
}

impl Report {
    /// Connections that broke, as sentences.
    pub fn broken(&self) -> Vec<String> {
        let errors = self.connections.iter().enumerate().filter_map(|(n, c)| Some((n, c.error.as_ref()?)));
        errors.map(|(n, e)| format!("connection {}: {e}", n + 1)).collect()
    }

    /// Connections with a second subflow.
    pub fn joined(&self) -> usize {
        self.connections.iter().filter(|c| c.subflows > 1).count()
    }

    /// Connections all of whose subflows, at least two, carried payload both ways.
    pub fn spread(&self) -> usize {
        self.connections.iter().filter(|c| c.subflows > 1 && c.busy_subflows == c.subflows).count()
    }
}

/// A client that runs in the lab.
#[derive(Debug)]
pub struct Client {
    task: Task,
}

impl Client {
    /// Starts it in the client's namespace.
    pub fn start(lab: &Lab, options: &Options) -> Result<Self> {
        let log = lab.file("client.log");
        let task = lab.client.task("the client", &lab.helper, &lab.helper, &options.arguments(), &log)?;
        Ok(Self { task })
    }

    /// Waits until the second subflows are there, or were given up; returns how many.
    pub fn joined(&mut self, limit: Duration) -> Result<usize> {
        match self.stage(limit)? {
            Stage::Joined { joined } => Ok(joined),
            _ => Err(Error::other("the client ended before it waited for second subflows")),
        }
    }

    /// How things are, once the rounds that run now are over: whoever asks twice knows that all that is alive has
    /// moved data in between.
    pub fn now(&mut self, limit: Duration) -> Result<Report> {
        self.task.tell("report")?;
        match self.stage(limit)? {
            Stage::Now(report) => Ok(report),
            _ => Err(Error::other("the client did not answer with a report")),
        }
    }

    /// Waits for the end; a client that runs until stdin ends is told to finish.
    pub fn finish(mut self, limit: Duration) -> Result<Report> {
        drop(self.task.take_stdin());
        loop {
            if let Stage::Done(report) = self.stage(limit)? {
                return Ok(report);
            }
        }
    }

    fn stage(&mut self, limit: Duration) -> Result<Stage> {
        let line = self.task.next_line(limit)?;
        serde_json::from_str(&line).map_err(|e| Error::other(format!("the client said `{line}`: {e}")))
    }
}

enum Order {
    Round { up: u64, down: u64 },
}

enum Event {
    Opened { index: usize, backend: String, local: SocketAddr },
    RoundDone { up: u64, down: u64, index: usize },
    Broken { index: usize, error: String },
}

/// The body of `weft-lab client`.
pub fn run(options: &Options) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(!options.until_eof));
    let (asked, questions) = channel();
    if options.until_eof {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            // The receiver lives as long as the rounds do.
            io::stdin().lines().map_while(io::Result::ok).for_each(|_| asked.send(()).unwrap_or_default());
            stop.store(true, Ordering::Relaxed);
        });
    }
    let mut fleet = Fleet::open(options)?;
    say(&Stage::Joined { joined: fleet.wait_for_joins(Duration::from_secs(options.join_wait))? })?;
    for round in 0.. {
        fleet.round(options.bytes, options.bytes);
        // One a round, so that between two reports there was one.
        if questions.try_recv().is_ok() {
            fleet.measure()?;
            say(&Stage::Now(fleet.report.clone()))?;
        }
        let stopped = stop.load(Ordering::Relaxed);
        if fleet.alive.is_empty() || stopped && (round >= ROUNDS || fleet.measure()? == 0) {
            break;
        }
    }
    fleet.measure()?;
    say(&Stage::Done(fleet.close()))
}

fn say(stage: &Stage) -> Result<()> {
    println!("{}", serde_json::to_string(stage).map_err(|e| Error::other(e.to_string()))?);
    Ok(())
}

/// All connections, each on a thread of its own, led by this one.
struct Fleet {
    report: Report,
    /// The client's own token of each connection that shows one, by its index.
    tokens: HashMap<u32, usize>,
    alive: HashMap<usize, Sender<Order>>,
    events: Receiver<Event>,
    threads: Vec<JoinHandle<()>>,
}

impl Fleet {
    fn open(options: &Options) -> Result<Self> {
        let (sender, events) = channel();
        let mut fleet = Self {
            report: Report {
                connections: vec![Connection::default(); options.connections],
                ..Report::default()
            },
            tokens: HashMap::new(),
            alive: HashMap::new(),
            events,
            threads: Vec::new(),
        };
        for index in 0..options.connections {
            let (order, orders) = channel();
            let (sender, options) = (sender.clone(), options.clone());
            fleet.alive.insert(index, order);
            fleet.threads.push(std::thread::spawn(move || connection(index, &options, &orders, &sender)));
        }
        let mut ports = HashMap::new();
        for _ in 0..options.connections {
            if let Some(Event::Opened { index, backend, local }) = fleet.next_event() {
                fleet.report.connections[index].backend = backend;
                fleet.report.bytes_up += OPENING;
                fleet.report.bytes_down += OPENING;
                ports.insert(local, index);
            }
        }
        for subflow in subflow::list()? {
            if let Some(index) = ports.get(&subflow.local) {
                fleet.tokens.insert(subflow.connection, *index);
            }
        }
        Ok(fleet)
    }

    /// The next event; what broke is noted here, so that callers see only what went well.
    fn next_event(&mut self) -> Option<Event> {
        match self.events.recv().ok()? {
            Event::Broken { index, error } => {
                self.report.connections[index].error = Some(error);
                self.alive.remove(&index);
                None
            }
            event => Some(event),
        }
    }

    /// Waits until every live connection has two subflows; returns how many have.
    fn wait_for_joins(&mut self, limit: Duration) -> Result<usize> {
        let start = Instant::now();
        loop {
            self.measure()?;
            let joined = self.report.joined();
            if joined >= self.alive.len() || start.elapsed() >= limit {
                return Ok(joined);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// One round on every live connection.
    fn round(&mut self, up: u64, down: u64) {
        // A thread that is gone has left its `Broken` event.
        let asked = self.alive.values().filter(|order| order.send(Order::Round { up, down }).is_ok()).count();
        for _ in 0..asked {
            if let Some(Event::RoundDone { up, down, index }) = self.next_event() {
                self.report.connections[index].rounds += 1;
                self.report.bytes_up += up;
                self.report.bytes_down += down;
            }
        }
    }

    /// Notes the state of all subflows; returns how many of joined connections have not carried payload both ways.
    fn measure(&mut self) -> Result<usize> {
        let subflows = subflow::list()?;
        let mut paths: HashMap<String, Path> = HashMap::new();
        for connection in &mut self.report.connections {
            (connection.subflows, connection.busy_subflows) = (0, 0);
        }
        for Subflow { local, peer, connection, join_token, sent, received } in subflows {
            let Some(index) = self.tokens.get(&connection) else {
                continue;
            };
            let entry = &mut self.report.connections[*index];
            entry.subflows += 1;
            entry.busy_subflows += usize::from(sent > 0 && received > 0);
            if join_token != 0 {
                entry.join_token = format!("{join_token:08x}");
                if !entry.joined_at.contains(&peer) {
                    entry.joined_at.push(peer);
                }
            }
            let address = local.ip().to_string();
            let path = paths.entry(address.clone()).or_insert(Path { address, ..Path::default() });
            path.sent += sent;
            path.received += received;
        }
        self.report.paths = paths.into_values().collect();
        self.report.paths.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(self.report.joined() - self.report.spread())
    }

    /// Closes all connections.
    fn close(mut self) -> Report {
        self.alive.clear();
        for thread in self.threads {
            // A thread that panicked left a connection without its rounds, which the report shows.
            let _ = thread.join();
        }
        self.report
    }
}

/// The life of one connection; it ends when the orders do.
fn connection(index: usize, options: &Options, orders: &Receiver<Order>, events: &Sender<Event>) {
    let result = open(options, index).and_then(|(stream, backend)| {
        // The first data, on the first subflow alone; the second one opens once it is acknowledged.
        client_round(&stream, index as u64, OPENING, OPENING)?;
        let local = stream.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no local address"))?;
        let _ = events.send(Event::Opened { index, backend, local });
        let mut seed = index as u64;
        for Order::Round { up, down } in orders {
            seed = seed.wrapping_add(1 << 32);
            client_round(&stream, seed, up, down)?;
            let _ = events.send(Event::RoundDone { up, down, index });
        }
        Ok(())
    });
    if let Err(error) = result {
        let _ = events.send(Event::Broken { index, error: error.to_string() });
    }
}

fn open(options: &Options, index: usize) -> io::Result<(Socket, String)> {
    let (service, domain) = (options.service, Domain::for_address(options.service));
    let stream = if options.plain { Socket::new(domain, Type::STREAM, None)? } else { socket(domain)? };
    if options.first_port > 0 {
        let [address, _] = if service.is_ipv4() { Family::V4 } else { Family::V6 }.client();
        let port = options.first_port.saturating_add(u16::try_from(index).unwrap_or(u16::MAX));
        stream.bind(&SocketAddr::new(address, port).into())?;
    }
    stream.connect_timeout(&service.into(), SILENCE)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let mut name = Vec::new();
    loop {
        let [byte] = read_array(&stream)?;
        if byte == b'\n' {
            break;
        }
        name.push(byte);
    }
    Ok((stream, String::from_utf8_lossy(&name).into_owned()))
}
