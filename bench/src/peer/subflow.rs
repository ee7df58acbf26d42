//! One subflow as TCP sees it: numbers, what waits for its acknowledgment, timestamps.
//!
//! As little of RFC 9293 as a handshake and some kilobytes need: segments are taken in order, all that is not
//! acknowledged is sent again after a second (RFC 6298), and after [`TRIES`] times the subflow is given up.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use packet::Flags;

use super::option::{Map, MpOption, Options};
use super::segment::Segment;

/// The first wait for an acknowledgment; it doubles.
pub const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How often a segment is sent at most.
const TRIES: u32 = 6;
/// Bytes under way at most: below any receiver's first window.
const UNDER_WAY: u32 = 16 * 1024;
/// Bytes of data in a segment: fits 1500 with IPv6 and all 40 bytes of options.
const SEGMENT: usize = 1380;

/// How far a subflow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// SYN sent.
    Opening,
    /// SYN received and answered.
    Answered,
    /// The proof of a join was sent, and waits for a sign that it was taken.
    Proving,
    /// Data may go both ways.
    Open,
    /// Over.
    Closed,
}

/// How a subflow ended or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// As it should.
    Finished,
    /// The other side refused or reset it.
    Reset,
    /// Nobody answered.
    Lost,
    /// The other side could not prove that it holds the keys.
    WrongHmac,
    /// The other side answered without MPTCP.
    NoMptcp,
}

/// What a join's HMACs are over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nonces {
    /// Ours.
    pub local: u32,
    /// Theirs.
    pub remote: u32,
    /// Which of the connection's keys.
    pub slot: u8,
}

/// A subflow.
#[derive(Debug)]
pub struct Subflow {
    /// Our end.
    pub local: SocketAddr,
    /// Theirs.
    pub remote: SocketAddr,
    /// How far it is.
    pub state: State,
    /// Whether it ever was [`State::Open`].
    pub established: bool,
    /// How it ended.
    pub end: Option<End>,
    /// Of a joined one.
    pub join: Option<Nonces>,
    /// The mapping that the last data came with, and whether the end of the data is behind it.
    pub map: Option<(Map, bool)>,
    /// Its data as far as it came, where checksums are used.
    pub covered: Vec<u8>,
    /// Data that is to be sent here, with its first number.
    pub queue: VecDeque<(u64, Vec<u8>)>,
    /// We sent FIN.
    pub closing: bool,
    /// They sent FIN.
    pub ended: bool,
    /// The low 12 bits of every timestamp value, where they say something.
    pub mark: Option<u16>,
    start: u32,
    next: u32,
    acknowledged: u32,
    their_start: u32,
    expected: u32,
    echo: u32,
    stamps: bool,
    waiting: VecDeque<Segment>,
    proof: Option<Segment>,
    due: Option<Duration>,
    tries: u32,
}

/// Whether `a` comes before `b` in 32-bit sequence numbers.
fn before(a: u32, b: u32) -> bool {
    b.wrapping_sub(a).wrapping_sub(1) < 1 << 31
}

impl Subflow {
    /// One that we open.
    pub fn open(local: SocketAddr, remote: SocketAddr, start: u32) -> Self {
        Self {
            local,
            remote,
            state: State::Opening,
            established: false,
            end: None,
            join: None,
            map: None,
            covered: Vec::new(),
            queue: VecDeque::new(),
            closing: false,
            ended: false,
            mark: None,
            start,
            next: start,
            acknowledged: start,
            their_start: 0,
            expected: 0,
            echo: 0,
            stamps: true,
            waiting: VecDeque::new(),
            proof: None,
            due: None,
            tries: 0,
        }
    }

    /// One that a SYN opens.
    pub fn answer(syn: &Segment, start: u32) -> Self {
        let mut subflow = Self::open(syn.to, syn.from, start);
        subflow.state = State::Answered;
        subflow.heard_syn(syn);
        subflow
    }

    /// Takes the numbers of the other side's SYN.
    pub fn heard_syn(&mut self, syn: &Segment) {
        self.their_start = syn.seq;
        self.expected = syn.seq.wrapping_add(1);
        self.stamps = syn.options.timestamps.is_some();
        self.heard(syn);
    }

    /// Takes what every segment tells: the time at the other side.
    pub fn heard(&mut self, segment: &Segment) {
        if let Some((value, _)) = segment.options.timestamps {
            self.echo = value;
        }
    }

    /// The handshake is over.
    pub fn establish(&mut self) {
        self.state = State::Open;
        self.established = true;
    }

    /// The place of a sequence number of theirs after their SYN, which has place 0.
    pub fn place(&self, seq: u32) -> u32 {
        seq.wrapping_sub(self.their_start)
    }

    /// A segment with the next numbers. One that takes up numbers is sent again until it is acknowledged.
    pub fn make(&mut self, flags: Flags, mptcp: Vec<MpOption>, payload: Vec<u8>, now: Duration) -> Segment {
        let segment = Segment {
            from: self.local,
            to: self.remote,
            seq: self.next,
            ack: if flags.ack() { self.expected } else { 0 },
            flags,
            options: Options { timestamps: self.stamps.then(|| self.stamp(now)), mptcp },
            payload,
        };
        if !segment.is_empty() {
            self.next = self.next.wrapping_add(segment.len());
            self.waiting.push_back(segment.clone());
            self.arm(now);
        }
        segment
    }

    /// A segment that takes up no numbers, and yet is sent again until [`Self::proven`].
    pub fn prove(&mut self, mptcp: Vec<MpOption>, now: Duration) -> Segment {
        let segment = self.make(Flags::ACK, mptcp, Vec::new(), now);
        self.proof = Some(segment.clone());
        self.arm(now);
        segment
    }

    /// Whether a proof waits to be taken.
    pub fn is_proving(&self) -> bool {
        self.proof.is_some()
    }

    /// The other side took the proof.
    pub fn proven(&mut self) {
        self.proof = None;
        self.settle();
    }

    /// The FIN.
    pub fn finish(&mut self, mptcp: Vec<MpOption>, now: Duration) -> Segment {
        self.closing = true;
        self.make(Flags::FIN.with(Flags::ACK), mptcp, Vec::new(), now)
    }

    /// A RST that ends it so. With timestamps, which RFC 7323 section 3.2 recommends: a balancer may need them.
    pub fn reset(&mut self, end: End, mptcp: Vec<MpOption>, now: Duration) -> Segment {
        self.stop(end);
        Segment {
            from: self.local,
            to: self.remote,
            seq: self.next,
            ack: self.expected,
            flags: Flags::RST.with(Flags::ACK),
            options: Options { timestamps: self.stamps.then(|| self.stamp(now)), mptcp },
            payload: Vec::new(),
        }
    }

    /// Ends it.
    pub fn stop(&mut self, end: End) {
        self.state = State::Closed;
        self.end.get_or_insert(end);
        self.waiting.clear();
        self.queue.clear();
        self.proof = None;
        self.due = None;
    }

    /// Milliseconds, or a coarser clock above what the low bits say; and the other side's last.
    fn stamp(&self, now: Duration) -> (u32, u32) {
        // Wraps after weeks, as timestamps do.
        let millis = u32::try_from(now.as_millis() & u128::from(u32::MAX)).unwrap_or(0).wrapping_add(1);
        let value = match self.mark {
            Some(mark) => steering::key::timestamp(millis, mark),
            None => millis,
        };
        (value, self.echo)
    }

    fn arm(&mut self, now: Duration) {
        if self.due.is_none() {
            self.tries = 1;
            self.due = Some(now + FIRST_WAIT);
        }
    }

    fn settle(&mut self) {
        if self.waiting.is_empty() && self.proof.is_none() {
            self.due = None;
        }
    }

    /// Takes an acknowledgment. `false` where it is of something that was never sent.
    pub fn acknowledge(&mut self, ack: u32, now: Duration) -> bool {
        if before(self.next, ack) {
            return false;
        }
        if before(self.acknowledged, ack) {
            self.acknowledged = ack;
            while self.waiting.front().is_some_and(|sent| !before(ack, sent.seq.wrapping_add(sent.len()))) {
                self.waiting.pop_front();
            }
            self.due = None;
            if !self.waiting.is_empty() || self.proof.is_some() {
                self.arm(now);
            }
        }
        true
    }

    /// Whether all that was sent is acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes a segment's numbers: `true` if it is the next one, whose payload and FIN count.
    pub fn take(&mut self, segment: &Segment) -> bool {
        let next = segment.seq == self.expected;
        if next {
            self.expected = self.expected.wrapping_add(segment.len());
            self.heard(segment);
        }
        next
    }

    /// Data that may go now, at most a segment's worth: its data number, the subflow's, the bytes.
    pub fn next_data(&mut self) -> Option<(u64, u32, Vec<u8>)> {
        if self.state != State::Open || self.next.wrapping_sub(self.acknowledged) >= UNDER_WAY {
            return None;
        }
        let (sequence, bytes) = self.queue.front_mut()?;
        let (first, place) = (*sequence, self.next.wrapping_sub(self.start));
        let rest = bytes.split_off(bytes.len().min(SEGMENT));
        let part = core::mem::replace(bytes, rest);
        *sequence += part.len() as u64;
        if bytes.is_empty() {
            self.queue.pop_front();
        }
        Some((first, place, part))
    }

    /// When something must be sent again.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// What must be sent again by now; none, and the subflow is over, where it was tried often enough.
    pub fn again(&mut self, now: Duration) -> Vec<Segment> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        if self.tries >= TRIES {
            self.stop(End::Lost);
            return Vec::new();
        }
        self.due = Some(now + FIRST_WAIT * (1 << self.tries));
        self.tries += 1;
        self.waiting.iter().chain(&self.proof).map(|sent| self.renewed(sent, now)).collect()
    }

    /// The proof, to be sent once more.
    pub fn proof_again(&self, now: Duration) -> Option<Segment> {
        self.proof.as_ref().map(|sent| self.renewed(sent, now))
    }

    /// A segment that was sent, with the time and the acknowledgment of now.
    fn renewed(&self, sent: &Segment, now: Duration) -> Segment {
        let mut segment = sent.clone();
        segment.options.timestamps = self.stamps.then(|| self.stamp(now));
        if segment.flags.ack() {
            segment.ack = self.expected;
        }
        segment
    }
}
