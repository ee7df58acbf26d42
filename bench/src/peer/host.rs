//! What both roles share: connections by their ends and tokens, established subflows, timers, counts.

use std::net::SocketAddr;
use std::time::Duration;

use hashbrown::HashMap;
use packet::Flags;
use serde::Serialize;

use super::connection::{Connection, Taken};
use super::option::{Map, MpOption};
use super::segment::Segment;
use super::subflow::{End, State, Subflow};
use crate::generate::random::scramble;

/// A subflow of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Which connection.
    pub connection: usize,
    /// Which of its subflows.
    pub subflow: usize,
}

/// A join that named no connection here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnknownToken {
    /// The token, 8 hexadecimal digits.
    pub token: String,
    /// Who asked.
    pub from: SocketAddr,
}

/// What a host has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// MPTCP connections whose handshake is complete.
    pub connections: u64,
    /// Connections without MPTCP.
    pub plain: u64,
    /// Subflows that joined, both HMACs right.
    pub joined: u64,
    /// Joins that named no connection here: each one.
    pub unknown_tokens: Vec<UnknownToken>,
    /// Joins whose HMAC was wrong.
    pub wrong_hmac: u64,
    /// Handshakes whose third packet named us by what we had not said.
    pub wrong_echo: u64,
    /// Joins of connections that had no keys yet.
    pub early: u64,
    /// Mappings whose checksum was right.
    pub checksums: u64,
    /// Mappings whose checksum was wrong, or not there, or there without having been agreed on.
    pub wrong_checksum: u64,
    /// Connections that the other side ended by a FASTCLOSE.
    pub fastclosed: u64,
    /// FASTCLOSEs that did not prove what they should.
    pub wrong_fastclose: u64,
    /// Connections whose keys came from a TLS session.
    pub keyed: u64,
    /// Connections whose key the balancer chose.
    pub given: u64,
    /// SYNs that came again, and with the key they had brought at first.
    pub given_again: u64,
    /// SYNs that came again with another key, or brought one that names another server.
    pub given_wrong: u64,
    /// Segments whose echoed timestamp names this server.
    pub numbered: u64,
    /// Segments whose echoed timestamp names another.
    pub numbered_wrong: u64,
    /// Segments of no flow that is known here.
    pub stray: u64,
    /// Resets received.
    pub resets: u64,
    /// Segments sent again.
    pub again: u64,
    /// Frames with a wrong checksum.
    pub damaged: u64,
    /// Bytes of data received in order.
    pub bytes: u64,
}

impl Tally {
    /// Adds another host's.
    pub fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.plain += other.plain;
        self.joined += other.joined;
        self.unknown_tokens.extend(other.unknown_tokens.iter().cloned());
        self.wrong_hmac += other.wrong_hmac;
        self.wrong_echo += other.wrong_echo;
        self.early += other.early;
        self.checksums += other.checksums;
        self.wrong_checksum += other.wrong_checksum;
        self.fastclosed += other.fastclosed;
        self.wrong_fastclose += other.wrong_fastclose;
        self.keyed += other.keyed;
        self.given += other.given;
        self.given_again += other.given_again;
        self.given_wrong += other.given_wrong;
        self.numbered += other.numbered;
        self.numbered_wrong += other.numbered_wrong;
        self.stray += other.stray;
        self.resets += other.resets;
        self.again += other.again;
        self.damaged += other.damaged;
        self.bytes += other.bytes;
    }
}

/// Numbers that look random and follow from a seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn long(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.0)
    }

    /// The next 32 bits.
    pub fn word(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.long().to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// The next key.
    pub fn key(&mut self) -> [u8; 8] {
        self.long().to_be_bytes()
    }
}

/// A host.
pub struct Host {
    /// The time, from any beginning.
    pub now: Duration,
    /// Every connection there ever was.
    pub connections: Vec<Connection>,
    /// What is to be sent.
    pub out: Vec<Segment>,
    /// What happened.
    pub tally: Tally,
    /// Keys, nonces, first numbers.
    pub random: Random,
    /// Connections by our token.
    pub tokens: HashMap<u32, usize>,
    flows: HashMap<(SocketAddr, SocketAddr), At>,
    /// Connections with subflows that are not over.
    live: Vec<usize>,
}

impl Host {
    /// A host whose keys follow from a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            connections: Vec::new(),
            out: Vec::new(),
            tally: Tally::default(),
            random: Random::new(seed),
            tokens: HashMap::new(),
            flows: HashMap::new(),
            live: Vec::new(),
        }
    }

    /// Whose a segment is.
    pub fn find(&self, segment: &Segment) -> Option<At> {
        self.flows.get(&(segment.to, segment.from)).copied()
    }

    /// Takes a connection in with its first subflow.
    pub fn adopt(&mut self, connection: Connection) -> At {
        let at = At { connection: self.connections.len(), subflow: 0 };
        if let Some(first) = connection.subflows.first() {
            self.flows.insert((first.local, first.remote), at);
        }
        self.live.push(at.connection);
        self.connections.push(connection);
        at
    }

    /// Takes a further subflow in.
    pub fn extend(&mut self, connection: usize, subflow: Subflow) -> Option<At> {
        let ends = (subflow.local, subflow.remote);
        let subflows = &mut self.connections.get_mut(connection)?.subflows;
        let at = At { connection, subflow: subflows.len() };
        subflows.push(subflow);
        if !self.live.contains(&connection) {
            self.live.push(connection);
        }
        self.flows.insert(ends, at);
        Some(at)
    }

    /// A connection.
    pub fn connection(&mut self, at: At) -> Option<&mut Connection> {
        self.connections.get_mut(at.connection)
    }

    /// A subflow.
    pub fn subflow(&mut self, at: At) -> Option<&mut Subflow> {
        self.connection(at)?.subflows.get_mut(at.subflow)
    }

    /// Sends a segment of a subflow.
    pub fn send(&mut self, at: At, flags: Flags, mptcp: Vec<MpOption>) {
        let now = self.now;
        if let Some(segment) = self.subflow(at).map(|subflow| subflow.make(flags, mptcp, Vec::new(), now)) {
            self.out.push(segment);
        }
    }

    /// Acknowledges, with what MPTCP has to say.
    pub fn acknowledge(&mut self, at: At) {
        let option = self.connection(at).map(|connection| connection.state_option(at.subflow));
        self.send(at, Flags::ACK, option.unwrap_or_default());
    }

    /// Sends the proof of a join again.
    pub fn prove_again(&mut self, at: At) {
        let now = self.now;
        if let Some(segment) = self.subflow(at).and_then(|subflow| subflow.proof_again(now)) {
            self.out.push(segment);
        }
    }

    /// What comes for a subflow that is over: the FIN again where our acknowledgment of it was lost.
    pub fn linger(&mut self, at: At, segment: &Segment) {
        let ended = self.subflow(at).is_some_and(|subflow| subflow.end == Some(End::Finished));
        if ended && segment.flags.fin() {
            self.acknowledge(at);
        }
    }

    /// Refuses a subflow.
    pub fn refuse(&mut self, at: At, end: End, mptcp: Vec<MpOption>) {
        let now = self.now;
        if let Some(segment) = self.subflow(at).map(|subflow| subflow.reset(end, mptcp, now)) {
            self.out.push(segment);
        }
    }

    /// Answers a segment of nobody with RST (RFC 9293 section 3.10.7.1).
    pub fn deny(&mut self, segment: &Segment, mptcp: Vec<MpOption>) {
        if segment.flags.rst() {
            return;
        }
        let (seq, ack, flags) = if segment.flags.ack() {
            (segment.ack, 0, Flags::RST)
        } else {
            (0, segment.seq.wrapping_add(segment.len()), Flags::RST.with(Flags::ACK))
        };
        let options = super::option::Options { timestamps: None, mptcp };
        let (from, to) = (segment.to, segment.from);
        self.out.push(Segment { from, to, seq, ack, flags, options, payload: Vec::new() });
    }

    /// Takes a reset in.
    pub fn reset(&mut self, at: At, segment: &Segment) {
        self.tally.resets += 1;
        let fastclose = segment.find(fastclose);
        let Some(connection) = self.connections.get_mut(at.connection) else { return };
        let proved = fastclose.map(|(proof, slot)| connection.is_fastclose(proof, slot));
        self.tally.wrong_fastclose += u64::from(proved == Some(false));
        if proved == Some(true) {
            // The whole connection ends (RFC 8684 section 3.5).
            self.tally.fastclosed += u64::from(!connection.aborted);
            (connection.ended, connection.aborted) = (true, true);
            connection.subflows.iter_mut().for_each(|subflow| subflow.stop(End::Finished));
        } else if let Some(subflow) = connection.subflows.get_mut(at.subflow) {
            let end = if subflow.closing { End::Finished } else { End::Reset };
            subflow.stop(end);
        }
    }

    /// Takes a segment of an established subflow in; what of its data is new and in order.
    pub fn established(&mut self, at: At, segment: &Segment) -> Vec<u8> {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(at.connection) else { return Vec::new() };
        let Some(subflow) = connection.subflows.get_mut(at.subflow) else { return Vec::new() };
        if !subflow.acknowledge(segment.ack, now) {
            return Vec::new();
        }
        let place = subflow.place(segment.seq);
        let is_next = subflow.take(segment);
        let mut end = None;
        for option in &segment.options.mptcp {
            end = end.or(said(connection, at.subflow, option, segment, is_next));
        }
        let mut taken = Taken::default();
        if is_next && !segment.payload.is_empty() {
            taken = connection.take(at.subflow, place, &segment.payload);
        }
        self.tally.checksums += u64::from(taken.checked);
        if let Some(sequence) = taken.wrong {
            self.tally.wrong_checksum += 1;
            self.refuse(at, End::Reset, vec![MpOption::Fail { sequence }]);
            return Vec::new();
        }
        let fresh = taken.fresh;
        if let Some(map) = end {
            connection.take_end(map);
        }
        self.tally.bytes += fresh.len() as u64;
        if let Some((slot, proof)) = segment.find(new_key) {
            self.proved(at, slot, proof);
        }
        let is_end = end.is_some();
        if !segment.is_empty() || is_end {
            self.acknowledge(at);
        }
        if is_next && segment.flags.fin() {
            self.finish(at);
        }
        self.settle(at);
        fresh
    }

    /// They prove that they hold the keys: we do the same where they began, and are content where they answered.
    fn proved(&mut self, at: At, slot: u8, proof: [u8; 8]) {
        let Some(connection) = self.connection(at) else { return };
        if !connection.take_proof(slot, proof) {
            self.tally.wrong_hmac += 1;
        } else if connection.opened {
            if let Some(subflow) = connection.subflows.get_mut(at.subflow) {
                subflow.proven();
            }
        } else {
            let options = connection.new_key(slot);
            self.send(at, Flags::ACK, options);
        }
    }

    /// They are done with a subflow: so are we, with the connection too where they have said so.
    fn finish(&mut self, at: At) {
        let now = self.now;
        let Some(connection) = self.connection(at) else { return };
        if let Some(subflow) = connection.subflows.get_mut(at.subflow) {
            subflow.ended = true;
        }
        let closes = connection.ended || !connection.mptcp;
        let segments = if closes {
            connection.close(now)
        } else {
            let option = connection.state_option(at.subflow);
            let subflow = connection.subflows.get_mut(at.subflow).filter(|subflow| !subflow.closing);
            subflow.map(|subflow| subflow.finish(option, now)).into_iter().collect()
        };
        self.out.extend(segments);
    }

    /// Ends a subflow that both sides are done with.
    fn settle(&mut self, at: At) {
        if let Some(subflow) = self.subflow(at).filter(|subflow| subflow.ended && subflow.closing)
            && subflow.is_acknowledged()
        {
            subflow.stop(End::Finished);
        }
    }

    /// Sends what data may go now.
    pub fn pump(&mut self, connection: usize) {
        let now = self.now;
        if let Some(connection) = self.connections.get_mut(connection) {
            let segments = connection.pump(now);
            self.out.extend(segments);
        }
    }

    /// Ends a connection at once: RST with MP_FASTCLOSE on every subflow (RFC 8684 section 3.5).
    pub fn abort(&mut self, connection: usize) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(connection) else { return };
        // Where there are two keys, by the second.
        let slot = connection.slot(1);
        let proof = connection.fastclose(slot);
        let open = connection.subflows.iter_mut().filter(|subflow| subflow.state == State::Open);
        let options = connection.mptcp.then_some(MpOption::Fastclose { proof, slot });
        self.out.extend(open.map(|subflow| subflow.reset(End::Finished, options.into_iter().collect(), now)));
    }

    /// Ends a connection.
    pub fn close(&mut self, connection: usize) {
        let now = self.now;
        if let Some(connection) = self.connections.get_mut(connection) {
            let segments = connection.close(now);
            self.out.extend(segments);
        }
    }

    /// Lets time go on: sends again what was not acknowledged. The connections where something changed.
    pub fn tick(&mut self, now: Duration) -> Vec<usize> {
        self.now = now;
        let mut changed = Vec::new();
        let Self { connections, live, tally, out, .. } = self;
        live.retain(|index| {
            let Some(connection) = connections.get_mut(*index) else { return false };
            for subflow in &mut connection.subflows {
                if subflow.due().is_some_and(|due| due <= now) {
                    let again = subflow.again(now);
                    tally.again += again.len() as u64;
                    out.extend(again);
                    changed.push(*index);
                }
            }
            connection.subflows.iter().any(|subflow| subflow.state != State::Closed)
        });
        changed.dedup();
        changed
    }

    /// When [`Self::tick`] has something to do.
    pub fn due(&self) -> Option<Duration> {
        let live = self.live.iter().filter_map(|index| self.connections.get(*index));
        live.flat_map(|connection| &connection.subflows).filter_map(Subflow::due).min()
    }
}

fn fastclose(option: &MpOption) -> Option<([u8; 8], u8)> {
    match option {
        MpOption::Fastclose { proof, slot } => Some((*proof, *slot)),
        _ => None,
    }
}

fn new_key(option: &MpOption) -> Option<(u8, [u8; 8])> {
    match option {
        MpOption::NewKey { slot, proof } => Some((*slot, *proof)),
        _ => None,
    }
}

/// Takes what an option says of the connection; the mapping with which their data ends, if it does.
fn said(
    connection: &mut Connection,
    index: usize,
    option: &MpOption,
    segment: &Segment,
    is_next: bool,
) -> Option<Map> {
    match *option {
        MpOption::Dss { ack, map, fin } if connection.mptcp => {
            connection.confirmed = true;
            if let Some((ack, short)) = ack {
                connection.acknowledge(ack, short);
            }
            let subflow = connection.subflows.get_mut(index)?;
            // What comes a second time must not speak for what comes next.
            if let (Some(map), true, false) = (map, is_next, segment.payload.is_empty()) {
                subflow.map = Some((map, fin));
            }
            map.filter(|_| fin)
        }
        MpOption::CapableAck { data_len: Some(len), checksum, .. }
            if is_next && !segment.payload.is_empty() =>
        {
            let sequence = connection.remote.sequence.wrapping_add(1);
            let subflow = connection.subflows.get_mut(index)?;
            subflow.map = Some((Map { sequence, short: false, subflow_sequence: 1, len, checksum }, false));
            None
        }
        // ADD_ADDR: only who holds the connection sends one.
        MpOption::Other(3) => {
            connection.confirmed = true;
            None
        }
        _ => None,
    }
}
