//! One MPTCP connection: who its two ends are, its subflows, and the data that goes over all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use packet::Flags;

use super::option::{FLAG_E, FLAG_G, FLAG_H, Map, MpOption, Name};
use super::proof;
use super::segment::Segment;
use super::subflow::{State, Subflow};
use super::tls::{Heard, Session};

/// How the two ends are named in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// By keys, whose digests begin with the tokens.
    Keys,
    /// By tokens, with the G flag.
    G,
    /// By tokens, with the E flag.
    E,
}

impl Signal {
    /// The flags of a SYN that offers this, and keys for a server that does not know it.
    pub const fn offer(self) -> u8 {
        match self {
            Self::Keys => FLAG_H,
            Self::G => FLAG_H | FLAG_G,
            Self::E => FLAG_H | FLAG_E,
        }
    }

    /// What a server that knows all of them takes of an offer, and the flags it answers with.
    pub const fn chosen(flags: u8) -> (Self, u8) {
        if flags & FLAG_E != 0 {
            (Self::E, FLAG_E)
        } else if flags & FLAG_G != 0 {
            (Self::G, FLAG_G)
        } else {
            (Self::Keys, FLAG_H)
        }
    }
}

/// Bytes that go over one subflow before it is the next one's turn.
const PART: usize = 1000;

/// One end of a connection.
#[derive(Clone, Default)]
pub struct End {
    /// What HMACs are made with; empty as long as it is not known.
    pub key: Vec<u8>,
    /// What joins name it by.
    pub token: u32,
    /// Its first data sequence number.
    pub sequence: u64,
}

impl End {
    /// Named by a key.
    pub fn of_key(version: u8, key: [u8; 8]) -> Self {
        let (token, sequence) = (proof::token(version, &key), proof::first_sequence(version, &key));
        Self { key: key.to_vec(), token, sequence }
    }

    /// Named by a token alone.
    pub fn of_token(token: u32) -> Self {
        Self { key: Vec::new(), token, sequence: proof::first_sequence(1, &token.to_be_bytes()) }
    }

    /// As MP_CAPABLE names it.
    pub fn of(version: u8, name: Name) -> Self {
        match name {
            Name::Key(key) => Self::of_key(version, key),
            Name::Token(token) => Self::of_token(token),
        }
    }
}

/// A connection.
pub struct Connection {
    /// 0 or 1.
    pub version: u8,
    /// How its ends are named.
    pub signal: Signal,
    /// The flags of MP_CAPABLE that were agreed on.
    pub flags: u8,
    /// Whether we opened it.
    pub opened: bool,
    /// Whether it is MPTCP, and not plain TCP.
    pub mptcp: bool,
    /// Whether the other side has shown that it is, too: from now on MP_CAPABLE need not be repeated.
    pub confirmed: bool,
    /// Us.
    pub local: End,
    /// Them.
    pub remote: End,
    /// The subflows, the first one first.
    pub subflows: Vec<Subflow>,
    /// What the data is sealed with and keys come from, where tokens are explicit.
    pub session: Option<Session>,
    /// The other side has proved that it holds the keys: joins may begin.
    pub keyed: bool,
    /// They have no more data.
    pub ended: bool,
    /// The data number after the last one sent.
    next: u64,
    /// The data number they expect.
    acknowledged: u64,
    /// The data number we expect.
    expected: u64,
    early: BTreeMap<u64, Vec<u8>>,
    /// The data that was sent last, with its number.
    last: Option<(u64, Vec<u8>)>,
}

/// A number of which only the lower half was sent, near a whole one.
fn whole(number: u64, short: bool, near: u64) -> u64 {
    if !short {
        return number;
    }
    let guess = (near & !0xffff_ffff) | (number & 0xffff_ffff);
    let half = 1 << 31;
    if guess > near.saturating_add(half) {
        guess.wrapping_sub(1 << 32)
    } else if guess.saturating_add(half) < near {
        guess.wrapping_add(1 << 32)
    } else {
        guess
    }
}

impl Connection {
    /// One with its first subflow.
    pub fn new(version: u8, signal: Signal, flags: u8, opened: bool, first: Subflow) -> Self {
        Self {
            version,
            signal,
            flags,
            opened,
            mptcp: false,
            confirmed: false,
            local: End::default(),
            remote: End::default(),
            subflows: vec![first],
            session: None,
            keyed: false,
            ended: false,
            next: 0,
            acknowledged: 0,
            expected: 0,
            early: BTreeMap::new(),
            last: None,
        }
    }

    /// Both ends are known: data begins after their first numbers (RFC 8684 section 3.1).
    pub fn name(&mut self, local: End, remote: End) {
        self.next = local.sequence.wrapping_add(1);
        self.acknowledged = self.next;
        self.expected = remote.sequence.wrapping_add(1);
        (self.local, self.remote, self.mptcp) = (local, remote, true);
    }

    /// How we are named in MP_CAPABLE, and they.
    pub fn names(&self) -> [Name; 2] {
        [&self.local, &self.remote].map(|end| match (self.signal, end.key.first_chunk()) {
            (Signal::Keys, Some(key)) => Name::Key(*key),
            _ => Name::Token(end.token),
        })
    }

    /// Queues data for a subflow.
    pub fn send(&mut self, subflow: usize, data: &[u8]) {
        if let (Some(subflow), false) = (self.subflows.get_mut(subflow), data.is_empty()) {
            subflow.queue.push_back((self.next, data.to_vec()));
            self.next = self.next.wrapping_add(data.len() as u64);
        }
    }

    /// Sends data over all open subflows in turn.
    pub fn spread(&mut self, data: &[u8]) {
        let sealed = self.session.as_mut().map(|session| session.say(data));
        let data = sealed.as_deref().unwrap_or(data);
        let open = |subflow: &Subflow| subflow.state == State::Open && !subflow.closing;
        let ways: Vec<usize> =
            (0..self.subflows.len()).filter(|way| self.subflows.get(*way).is_some_and(open)).collect();
        for (part, way) in data.chunks(PART).zip(ways.into_iter().cycle()) {
            self.send(way, part);
        }
    }

    /// Whether the other side has taken all data.
    pub fn is_taken(&self) -> bool {
        let queued = self.subflows.iter().any(|subflow| !subflow.queue.is_empty());
        if self.mptcp {
            !queued && self.acknowledged == self.next
        } else {
            !queued && self.subflows.iter().all(Subflow::is_acknowledged)
        }
    }

    /// What a segment without data says of the connection.
    pub fn state_option(&self, subflow: usize) -> Vec<MpOption> {
        if !self.mptcp {
            return Vec::new();
        }
        if self.opened && !self.confirmed && subflow == 0 {
            return vec![self.capable(None)];
        }
        vec![MpOption::Dss { ack: Some((self.expected, false)), map: None, fin: false }]
    }

    /// The options of a segment by which we prove that we hold the keys.
    pub fn new_key(&self) -> Vec<MpOption> {
        let keys = [&self.local.key[..], &self.remote.key];
        let proof = proof::new_key(keys, [self.local.token, self.remote.token]);
        let ack = MpOption::Dss { ack: Some((self.expected, false)), map: None, fin: false };
        vec![ack, MpOption::NewKey { slot: 0, proof }]
    }

    /// What the other side said by these bytes, and what must be answered on the way to the keys. `None`: it does not
    /// speak the session's protocol.
    pub fn hear(&mut self, fresh: Vec<u8>) -> Option<Heard> {
        let Some(session) = &mut self.session else {
            return Some(Heard { data: fresh, out: Vec::new() });
        };
        let heard = session.hear(&fresh).ok()?;
        self.take_keys();
        Some(heard)
    }

    /// Sends what the application says, sealed where there is a session.
    pub fn say(&mut self, subflow: usize, data: &[u8]) {
        match &mut self.session {
            Some(session) => {
                let sealed = session.say(data);
                self.send(subflow, &sealed);
            }
            None => self.send(subflow, data),
        }
    }

    /// The session has come so far that there are keys: they are both ends'. With G that is all, with E they are to be
    /// proved.
    fn take_keys(&mut self) {
        if !self.local.key.is_empty() {
            return;
        }
        let Some([client, server]) = self.session.as_ref().and_then(Session::keys) else { return };
        (self.local.key, self.remote.key) = if self.opened { (client, server) } else { (server, client) };
        self.keyed = self.signal == Signal::G;
    }

    /// Takes the other side's proof that it holds the keys: whether it is right.
    pub fn take_proof(&mut self, proof: [u8; 8]) -> bool {
        let keys = [&self.remote.key[..], &self.local.key];
        let right = !self.local.key.is_empty()
            && proof == proof::new_key(keys, [self.remote.token, self.local.token]);
        self.keyed |= right;
        right
    }

    fn capable(&self, data_len: Option<u16>) -> MpOption {
        let [sender, receiver] = self.names();
        MpOption::CapableAck { version: self.version, flags: self.flags, sender, receiver, data_len }
    }

    /// The options of data: MP_CAPABLE with the first data of version 1, else a mapping.
    fn data_option(&self, subflow: usize, sequence: u64, place: u32, len: u16) -> Vec<MpOption> {
        if !self.mptcp {
            return Vec::new();
        }
        if self.opened && !self.confirmed && self.version == 1 && subflow == 0 {
            return vec![self.capable(Some(len))];
        }
        let map = Map { sequence, short: false, subflow_sequence: place, len };
        vec![MpOption::Dss { ack: Some((self.expected, false)), map: Some(map), fin: false }]
    }

    /// Everything that may be sent by now.
    pub fn pump(&mut self, now: Duration) -> Vec<Segment> {
        let mut segments = Vec::new();
        for index in 0..self.subflows.len() {
            loop {
                // The first data alone says who we are; the rest waits until that was understood.
                let unsure = self.mptcp && self.opened && !self.confirmed && self.version == 1;
                let Some(subflow) = self.subflows.get_mut(index) else { break };
                if unsure && (index > 0 || !subflow.is_acknowledged()) {
                    break;
                }
                let Some((sequence, place, data)) = subflow.next_data() else { break };
                let len = u16::try_from(data.len()).unwrap_or(u16::MAX);
                self.last = Some((sequence, data.clone()));
                let options = self.data_option(index, sequence, place, len);
                if let Some(subflow) = self.subflows.get_mut(index) {
                    segments.push(subflow.make(Flags::ACK.with(Flags::PSH), options, data, now));
                }
            }
        }
        segments
    }

    /// Sends the last data again where every subflow was acknowledged and the data was not (RFC 8684 section 3.3.6): a
    /// receiver may acknowledge a segment before it has put its data in order, and then has no reason to say more.
    pub fn repeat(&mut self) {
        let quiet = self.subflows.iter().all(|subflow| subflow.is_acknowledged() && subflow.queue.is_empty());
        if !self.mptcp || !quiet || self.is_taken() {
            return;
        }
        let open = self.subflows.iter_mut().find(|subflow| subflow.state == State::Open && !subflow.closing);
        if let (Some(open), Some(last)) = (open, &self.last) {
            open.queue.push_back(last.clone());
        }
    }

    /// Takes a data acknowledgment.
    pub fn acknowledge(&mut self, ack: u64, short: bool) {
        let ack = whole(ack, short, self.acknowledged);
        if ack > self.acknowledged && ack <= self.next {
            self.acknowledged = ack;
        }
    }

    /// Takes data that begins at this place of a subflow: what of it is next in order, whatever waited for it behind
    /// it. Empty where no mapping says what it is.
    pub fn take(&mut self, subflow: usize, place: u32, data: &[u8]) -> Vec<u8> {
        if !self.mptcp {
            return data.to_vec();
        }
        let Some(map) = self.subflows.get(subflow).and_then(|subflow| subflow.map) else {
            return Vec::new();
        };
        let within = place.wrapping_sub(map.subflow_sequence);
        if within >= u32::from(map.len) {
            return Vec::new();
        }
        let start = whole(map.sequence, map.short, self.expected).wrapping_add(u64::from(within));
        self.early.insert(start, data.to_vec());
        let mut fresh = Vec::new();
        while let Some((start, data)) = self.early.pop_first() {
            if start > self.expected {
                self.early.insert(start, data);
                break;
            }
            let known = usize::try_from(self.expected - start).unwrap_or(usize::MAX);
            let new = data.get(known..).unwrap_or_default();
            self.expected = self.expected.wrapping_add(new.len() as u64);
            fresh.extend(new);
        }
        fresh
    }

    /// Takes the end of their data, behind a mapping that covers `len` bytes and the end itself.
    pub fn take_end(&mut self, map: Map) {
        let end =
            whole(map.sequence, map.short, self.expected).wrapping_add(u64::from(map.len)).wrapping_sub(1);
        if end == self.expected && !self.ended {
            self.ended = true;
            self.expected = self.expected.wrapping_add(1);
        }
    }

    /// Ends our data, and every subflow with it: the end of the data goes with each FIN, which is sent again until it
    /// is acknowledged.
    pub fn close(&mut self, now: Duration) -> Vec<Segment> {
        let map = Map { sequence: self.next, short: false, subflow_sequence: 0, len: 1 };
        let option = MpOption::Dss { ack: Some((self.expected, false)), map: Some(map), fin: true };
        let options = if self.mptcp { vec![option] } else { Vec::new() };
        let open =
            self.subflows.iter_mut().filter(|subflow| subflow.state == State::Open && !subflow.closing);
        open.map(|subflow| subflow.finish(options.clone(), now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let [local, remote] = ["10.0.0.1:1", "10.0.0.2:2"].map(|text| text.parse().unwrap());
        let mut subflow = Subflow::open(local, remote, 0);
        subflow.state = State::Open;
        let mut connection = Connection::new(1, Signal::Keys, 1, false, subflow);
        connection.name(End::of_key(1, [1; 8]), End::of_key(1, [2; 8]));
        connection
    }

    fn map(connection: &mut Connection, offset: u64, len: u16) {
        let sequence = connection.remote.sequence.wrapping_add(1).wrapping_add(offset);
        let map = Map { sequence: sequence & 0xffff_ffff, short: true, subflow_sequence: 1, len };
        connection.subflows[0].map = Some(map);
    }

    #[test]
    fn data_that_comes_early_waits_and_what_comes_twice_counts_once() {
        let mut connection = connection();
        map(&mut connection, 3, 3);
        assert_eq!(connection.take(0, 1, b"def"), b"");
        map(&mut connection, 0, 4);
        assert_eq!(connection.take(0, 1, b"abcd"), b"abcdef");
        assert_eq!(connection.take(0, 1, b"abcd"), b"");
    }

    #[test]
    fn data_outside_of_its_mapping_is_nothing() {
        let mut connection = connection();
        map(&mut connection, 0, 3);
        assert_eq!(connection.take(0, 4, b"x"), b"");
    }

    #[test]
    fn half_a_number_is_the_whole_one_nearest_by() {
        for near in [5_u64, 0xffff_fff0, 0x1_0000_0005, 0x7_8000_0000, u64::MAX - 9] {
            for delta in [0_u64, 3, 0xffff_ffff_ffff_fffd] {
                let number = near.wrapping_add(delta);
                if delta == 0 || (number > near) == (delta == 3) {
                    assert_eq!(whole(number & 0xffff_ffff, true, near), number, "{near:x} {delta:x}");
                }
            }
        }
    }
}
