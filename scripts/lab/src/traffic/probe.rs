//! The probe: a steady stream of small UDP packets, each answered by the backend it reached.
//!
//! It shows from outside what a restart of the balancer costs: from the last packet that was answered before it to
//! the first one after it, to the interval of the stream, and whether every flow is still answered by its backend.
//! UDP, because TCP would send again what was lost and wait longer each time.
//!
//! ```text
//! client: u32 flow, u64 sequence number (big endian)
//! server: the same, then NAME
//! ```

use std::collections::BTreeSet;
use std::io::{self, BufRead as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use crate::process::Task;
use crate::topology::{Family, Lab, PROBE_PORT};
use crate::{Error, Result};

/// How long an answer may take before its packet counts as lost.
const LATE: Duration = Duration::from_millis(300);
/// Bytes before the server's name.
const HEADER: usize = 12;

/// What the probe does.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Where to send.
    #[arg(long)]
    pub service: SocketAddr,
    /// How many flows take turns.
    #[arg(long, default_value_t = 32)]
    pub flows: u16,
    /// The source port of the first flow; the others follow.
    #[arg(long, default_value_t = 20_000)]
    pub first_port: u16,
    /// Microseconds from packet to packet.
    #[arg(long, default_value_t = 1000)]
    pub interval: u64,
}

impl Options {
    /// A packet a millisecond over `family`.
    pub const fn new(family: Family) -> Self {
        let service = SocketAddr::new(family.vip(), PROBE_PORT);
        Self { service, flows: 32, first_port: 20_000, interval: 1000 }
    }

    fn arguments(&self) -> Vec<String> {
        let values = [
            ("--service", self.service.to_string()),
            ("--flows", self.flows.to_string()),
            ("--first-port", self.first_port.to_string()),
            ("--interval", self.interval.to_string()),
        ];
        let values = values.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
        std::iter::once("probe".to_owned()).chain(values).collect()
    }
}

/// A time in which no packet was answered.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    /// When the last answered packet before it was sent: milliseconds of CLOCK_BOOTTIME.
    pub from: f64,
    /// When the first answered packet after it was sent.
    pub to: f64,
    /// Packets sent meanwhile, all lost.
    pub lost: u64,
}

impl Outage {
    /// Its length in milliseconds.
    pub fn millis(&self) -> f64 {
        self.to - self.from
    }
}

/// What became of the stream so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Packets sent long enough ago to be judged.
    pub sent: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Every time without an answer, in order.
    pub outages: Vec<Outage>,
    /// The backends that answered each flow, in order of appearance; one each, unless a flow was moved.
    pub backends: Vec<Vec<String>>,
}

impl Report {
    /// Flows that more than one backend has answered, as sentences.
    pub fn moved(&self) -> Vec<String> {
        let flows = self.backends.iter().enumerate().filter(|(_, backends)| backends.len() > 1);
        flows.map(|(flow, backends)| format!("flow {flow}: {}", backends.join(", "))).collect()
    }

    /// The outage that began at `moment` or lasted then, or the first one after it.
    pub fn outage_at(&self, moment: f64) -> Option<Outage> {
        self.outages.iter().copied().find(|outage| outage.to > moment)
    }

    /// The longest outage that ended after `moment`.
    pub fn longest_since(&self, moment: f64) -> Option<Outage> {
        let since = self.outages.iter().copied().filter(|outage| outage.to > moment);
        since.max_by(|a, b| a.millis().total_cmp(&b.millis()))
    }
}

/// A probe that runs in the lab.
#[derive(Debug)]
pub struct Probe {
    task: Task,
}

impl Probe {
    /// Starts it in the client's namespace and waits until every flow was answered.
    pub fn start(lab: &Lab, options: &Options) -> Result<Self> {
        let log = lab.file("probe.log");
        let task = lab.client.task("the probe", &lab.helper, &lab.helper, &options.arguments(), &log)?;
        let mut probe = Self { task };
        let answered = |report: &Report| report.backends.iter().all(|b| !b.is_empty());
        probe.wait_for(Duration::from_secs(30), "not every flow of the probe was answered", answered)?;
        Ok(probe)
    }

    /// What became of the stream so far.
    pub fn report(&mut self) -> Result<Report> {
        self.task.tell("report")?;
        let line = self.task.next_line(Duration::from_secs(30))?;
        serde_json::from_str(&line).map_err(|e| Error::other(format!("the probe said `{line}`: {e}")))
    }

    /// Asks until `done` with the report.
    pub fn wait_for(
        &mut self,
        limit: Duration,
        what: &str,
        done: impl Fn(&Report) -> bool,
    ) -> Result<Report> {
        let answer = crate::interrupt::poll(limit, Duration::from_millis(50), || {
            let report = self.report()?;
            Ok(done(&report).then_some(report))
        })?;
        let (what, seconds) = (what.to_owned(), limit.as_secs());
        answer.ok_or(Error::Timeout { what, seconds, detail: String::new() })
    }

    /// Waits until the stream flows again after `moment`, which an outage began at or after; returns that outage.
    pub fn gap(&mut self, moment: f64, limit: Duration) -> Result<Outage> {
        let over = |report: &Report| report.outage_at(moment).is_some();
        let report = self.wait_for(limit, "the balancer did not forward again", over)?;
        report.longest_since(moment).ok_or(Error::other("the probe lost nothing"))
    }
}

/// Milliseconds of CLOCK_BOOTTIME, the same for every process of the machine.
pub fn boot_millis() -> f64 {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
        .as_secs_f64()
        * 1e3
}

/// One packet that was sent.
struct Packet {
    at: f64,
    answered: bool,
}

#[derive(Default)]
struct Stream {
    packets: Vec<Packet>,
    backends: Vec<Vec<String>>,
}

impl Stream {
    fn answer(&mut self, flow: usize, number: u64, name: &str) {
        let place = usize::try_from(number).ok().and_then(|n| self.packets.get_mut(n));
        if let Some(packet) = place {
            packet.answered = true;
        }
        if let Some(names) = self.backends.get_mut(flow)
            && !names.iter().any(|n| n == name)
        {
            names.push(name.to_owned());
        }
    }

    /// Judges what was sent before `until`, and everything up to the last answer.
    fn report(&self, until: f64) -> Report {
        let last = self.packets.iter().rposition(|p| p.answered).map_or(0, |n| n + 1);
        let judged = self.packets.iter().take_while(|p| p.at < until).count().max(last);
        let mut report = Report { backends: self.backends.clone(), ..Report::default() };
        let (mut before, mut lost) = (None, 0);
        for packet in &self.packets[..judged] {
            report.sent += 1;
            if !packet.answered {
                lost += 1;
                continue;
            }
            report.answered += 1;
            if lost > 0
                && let Some(from) = before
            {
                report.outages.push(Outage { from, to: packet.at, lost });
            }
            (before, lost) = (Some(packet.at), 0);
        }
        report
    }
}

fn hold(stream: &Mutex<Stream>) -> MutexGuard<'_, Stream> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The body of `weft-lab probe`: sends until stdin ends, and answers every line on stdin with a report.
pub fn run(options: &Options) -> Result<()> {
    let failed = |e| Error::io("the probe cannot send", e);
    let sockets: io::Result<Vec<Socket>> =
        (0..options.flows).map(|flow| flow_socket(options, flow)).collect();
    let sockets: Arc<Vec<Socket>> = Arc::new(sockets.map_err(failed)?);
    let backends = vec![Vec::new(); sockets.len()];
    let stream = Arc::new(Mutex::new(Stream { backends, ..Stream::default() }));
    let stop = Arc::new(AtomicBool::new(false));
    for flow in 0..sockets.len() {
        let (sockets, stream) = (Arc::clone(&sockets), Arc::clone(&stream));
        std::thread::spawn(move || sockets.get(flow).into_iter().for_each(|s| listen(s, &stream)));
    }
    let (interval, ended) = (Duration::from_micros(options.interval), Arc::clone(&stop));
    let sent = Arc::clone(&stream);
    let sender = std::thread::spawn(move || send(&sockets, &sent, interval, &ended));
    for _line in io::stdin().lock().lines().map_while(io::Result::ok) {
        let report = hold(&stream).report(boot_millis() - LATE.as_secs_f64() * 1e3);
        println!("{}", serde_json::to_string(&report).map_err(|e| Error::other(e.to_string()))?);
    }
    stop.store(true, Ordering::Relaxed);
    // It has nothing to say.
    let _ = sender.join();
    Ok(())
}

fn flow_socket(options: &Options, flow: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(options.service), Type::DGRAM, Some(Protocol::UDP))?;
    let [address, _] = if options.service.is_ipv4() { Family::V4 } else { Family::V6 }.client();
    socket.bind(&SocketAddr::new(address, options.first_port.saturating_add(flow)).into())?;
    socket.connect(&options.service.into())?;
    Ok(socket)
}

fn send(sockets: &[Socket], stream: &Mutex<Stream>, interval: Duration, stop: &AtomicBool) {
    let mut due = Instant::now();
    for (number, (flow, socket)) in (0u64..).zip(sockets.iter().enumerate().cycle()) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // A sender that was held up goes on from where it is: no burst makes up for what was not sent.
        due = Instant::now().max(due) + interval;
        let flow = u32::try_from(flow).unwrap_or(u32::MAX);
        let packet = [flow.to_be_bytes().as_slice(), &number.to_be_bytes()].concat();
        hold(stream).packets.push(Packet { at: boot_millis(), answered: false });
        // A packet that could not be sent is not answered either.
        let _ = socket.send(&packet);
    }
}

fn listen(mut socket: &Socket, stream: &Mutex<Stream>) {
    let mut buffer = [0; 128];
    loop {
        // An error is an ICMP message about an earlier packet; the next one may fare better.
        let Ok(length) = io::Read::read(&mut socket, &mut buffer) else { continue };
        let Some((header, name)) = buffer.get(..length).and_then(|b| b.split_at_checked(HEADER)) else {
            continue;
        };
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let (flow, sequence) = header.split_at(4);
        let flow = usize::try_from(number(flow)).unwrap_or(usize::MAX);
        hold(stream).answer(flow, number(sequence), &String::from_utf8_lossy(name));
    }
}

/// Answers the probe at `at`; returns only when the socket cannot be made.
pub fn answer(at: SocketAddr, name: &str) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind(at)?;
    // The largest datagram there is.
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let reply = [buffer.get(..length).unwrap_or_default(), name.as_bytes()].concat();
        let _ = socket.send_to(&reply, from);
    }
}

/// The names that answered at all.
pub fn names(report: &Report) -> BTreeSet<&str> {
    report.backends.iter().flatten().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(answered: &[bool]) -> Stream {
        let packet = |(n, answered): (u32, &bool)| Packet { at: f64::from(n), answered: *answered };
        Stream { packets: (0..).zip(answered).map(packet).collect(), backends: vec![Vec::new()] }
    }

    #[test]
    fn an_outage_lasts_from_the_last_answer_before_it_to_the_first_after_it() {
        let report = stream(&[true, true, false, false, true, true]).report(5.5);
        assert_eq!(report.outages, [Outage { from: 1.0, to: 4.0, lost: 2 }]);
        assert_eq!((report.sent, report.answered), (6, 4));
        assert_eq!(report.outage_at(2.0), Some(Outage { from: 1.0, to: 4.0, lost: 2 }));
        assert_eq!(report.outage_at(4.5), None);
    }

    #[test]
    fn what_was_sent_just_now_is_not_judged_yet() {
        let report = stream(&[true, true, false, false]).report(2.5);
        assert_eq!((report.sent, report.answered), (3, 2));
        assert_eq!(report.outages, [], "an outage that still lasts has no length yet");
    }

    #[test]
    fn a_flow_that_two_backends_answer_is_named() {
        let mut stream = stream(&[false, false, false]);
        stream.answer(0, 0, "b1");
        stream.answer(0, 1, "b1");
        assert_eq!(stream.report(9.0).moved(), Vec::<String>::new());
        stream.answer(0, 2, "b2");
        assert_eq!(stream.report(9.0).moved(), ["flow 0: b1, b2"]);
    }
}
