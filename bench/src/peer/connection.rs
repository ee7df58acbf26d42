//! One MPTCP connection: who its two ends are, its subflows, and the data that goes over all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use packet::Flags;

use super::option::{FLAG_A, FLAG_E, FLAG_G, FLAG_H, Map, MpOption, Name};
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
    /// Whether data carries checksums.
    pub checksums: bool,
    /// With E the second keys, ours and theirs; the first are the ends' own.
    pub second: [Vec<u8>; 2],
    /// Which keys the other side has proved to hold: joins with these may begin.
    pub keyed: [bool; 2],
    /// They have no more data.
    pub ended: bool,
    /// They ended it by a FASTCLOSE.
    pub aborted: bool,
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

/// What came of a segment's data.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// What is next in order.
    pub fresh: Vec<u8>,
    /// A checksum was right.
    pub checked: bool,
    /// A checksum was wrong: the data number from which on data is lost.
    pub wrong: Option<u64>,
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
            checksums: flags & FLAG_A != 0,
            second: <[Vec<u8>; 2]>::default(),
            keyed: [false; 2],
            ended: false,
            aborted: false,
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

    /// Our key and theirs, of one slot; empty where there is none.
    pub fn keys(&self, slot: u8) -> [&[u8]; 2] {
        match (slot, &self.second) {
            (0, _) => [&self.local.key, &self.remote.key],
            (_, [local, remote]) => [local, remote],
        }
    }

    /// Whether joins may be proved by the keys of a slot.
    pub fn is_keyed(&self, slot: u8) -> bool {
        match self.signal {
            Signal::Keys => slot == 0,
            Signal::G | Signal::E => self.keyed.get(usize::from(slot)).copied().unwrap_or(false),
        }
    }

    /// The slot that an option names: only E has more than one.
    pub fn slot(&self, named: u8) -> u8 {
        if self.signal == Signal::E { named & 1 } else { 0 }
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
            return vec![self.capable(None, None)];
        }
        vec![MpOption::Dss { ack: Some((self.expected, false)), map: None, fin: false }]
    }

    /// The options of a segment by which we prove that we hold the keys of a slot.
    pub fn new_key(&self, slot: u8) -> Vec<MpOption> {
        let proof = proof::new_key(self.keys(slot), [self.local.token, self.remote.token]);
        let ack = MpOption::Dss { ack: Some((self.expected, false)), map: None, fin: false };
        vec![ack, MpOption::NewKey { slot, proof }]
    }

    /// What proves a FASTCLOSE: the receiver's key, where keys are external an HMAC under keys of a slot. With G, of which
    /// no such thing could be read, we do as with E.
    pub fn fastclose(&self, slot: u8) -> [u8; 8] {
        match (self.signal, self.remote.key.first_chunk()) {
            (Signal::Keys, Some(key)) => *key,
            _ => proof::fastclose(self.keys(slot), [self.local.token, self.remote.token], slot),
        }
    }

    /// Whether a FASTCLOSE of theirs is proved.
    pub fn is_fastclose(&self, proof: [u8; 8], slot: u8) -> bool {
        let slot = self.slot(slot);
        let [local, remote] = self.keys(slot);
        match self.signal {
            Signal::Keys => local == proof,
            Signal::G | Signal::E => {
                let tokens = [self.remote.token, self.local.token];
                self.is_keyed(slot) && proof == proof::fastclose([remote, local], tokens, slot)
            }
        }
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
        let keys = |slot| {
            let [client, server] = self.session.as_ref().and_then(|session| session.keys(slot))?;
            Some(if self.opened { [client, server] } else { [server, client] })
        };
        let (Some([local, remote]), Some(second)) = (keys(0), keys(1)) else { return };
        (self.local.key, self.remote.key, self.second) = (local, remote, second);
        self.keyed = [self.signal == Signal::G, false];
    }

    /// Takes the other side's proof that it holds the keys of a slot: whether it is right.
    pub fn take_proof(&mut self, slot: u8, proof: [u8; 8]) -> bool {
        let [local, remote] = self.keys(slot);
        let tokens = [self.remote.token, self.local.token];
        let right = !local.is_empty() && proof == proof::new_key([remote, local], tokens);
        if let Some(keyed) = self.keyed.get_mut(usize::from(slot)) {
            *keyed |= right;
        }
        right
    }

    fn capable(&self, data_len: Option<u16>, checksum: Option<u16>) -> MpOption {
        let [sender, receiver] = self.names();
        MpOption::CapableAck {
            version: self.version,
            flags: self.flags,
            sender,
            receiver,
            data_len,
            checksum,
        }
    }

    /// The checksum of a mapping, where there are any.
    fn checksum(&self, sequence: u64, place: u32, len: u16, data: &[u8]) -> Option<u16> {
        self.checksums.then(|| proof::checksum(sequence, place, len, data))
    }

    /// The options of data: MP_CAPABLE with the first data of version 1, else a mapping.
    fn data_option(&self, subflow: usize, sequence: u64, place: u32, data: &[u8]) -> Vec<MpOption> {
        if !self.mptcp {
            return Vec::new();
        }
        let len = u16::try_from(data.len()).unwrap_or(u16::MAX);
        let checksum = self.checksum(sequence, place, len, data);
        if self.opened && !self.confirmed && self.version == 1 && subflow == 0 {
            return vec![self.capable(Some(len), checksum)];
        }
        let map = Map { sequence, short: false, subflow_sequence: place, len, checksum };
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
                self.last = Some((sequence, data.clone()));
                let options = self.data_option(index, sequence, place, &data);
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
    /// it. Nothing where no mapping says what it is.
    pub fn take(&mut self, subflow: usize, place: u32, data: &[u8]) -> Taken {
        if !self.mptcp {
            return Taken { fresh: data.to_vec(), ..Taken::default() };
        }
        let own = self.subflows.get(subflow).and_then(|subflow| subflow.map);
        let Some((map, fin)) = own else { return Taken::default() };
        let within = place.wrapping_sub(map.subflow_sequence);
        if within >= u32::from(map.len) {
            return Taken::default();
        }
        let checked = self.check(subflow, map, fin, within, data);
        if checked.is_err() {
            let lost = whole(map.sequence, map.short, self.expected);
            return Taken { wrong: Some(lost), ..Taken::default() };
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
        Taken { fresh, checked: checked == Ok(true), wrong: None }
    }

    /// Checks data of a mapping against its checksum, as soon as all of it is there: whether it was.
    fn check(&mut self, index: usize, map: Map, fin: bool, within: u32, data: &[u8]) -> Result<bool, ()> {
        // In version 0 a checksum that was not agreed on is ignored, in version 1 the subflow is reset (section 3.3).
        if map.checksum.is_some() != self.checksums && (self.checksums || self.version > 0) {
            return Err(());
        }
        let (Some(given), true, Some(subflow)) = (map.checksum, self.checksums, self.subflows.get_mut(index))
        else {
            return Ok(false);
        };
        if within == 0 {
            subflow.covered.clear();
        }
        subflow.covered.extend(data);
        if subflow.covered.len() < usize::from(map.len - u16::from(fin)) {
            return Ok(false);
        }
        let data = core::mem::take(&mut subflow.covered);
        let sequence = whole(map.sequence, map.short, self.expected);
        let right = proof::checksum(sequence, map.subflow_sequence, map.len, &data) == given;
        right.then_some(true).ok_or(())
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
        let checksum = self.checksum(self.next, 0, 1, &[]);
        let map = Map { sequence: self.next, short: false, subflow_sequence: 0, len: 1, checksum };
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
        let sequence = sequence & 0xffff_ffff;
        let map = Map { sequence, short: true, subflow_sequence: 1, len, checksum: None };
        connection.subflows[0].map = Some((map, false));
    }

    #[test]
    fn data_that_comes_early_waits_and_what_comes_twice_counts_once() {
        let mut connection = connection();
        map(&mut connection, 3, 3);
        assert_eq!(connection.take(0, 1, b"def").fresh, b"");
        map(&mut connection, 0, 4);
        assert_eq!(connection.take(0, 1, b"abcd").fresh, b"abcdef");
        assert_eq!(connection.take(0, 1, b"abcd").fresh, b"");
    }

    #[test]
    fn a_mapping_is_checked_when_the_last_of_its_data_has_come() {
        let mut connection = connection();
        connection.checksums = true;
        let sequence = connection.remote.sequence.wrapping_add(1);
        let of = |data: &[u8]| Some(proof::checksum(sequence, 1, 6, data));
        let map = |checksum| Map { sequence, short: false, subflow_sequence: 1, len: 6, checksum };
        // Odd pieces: a sum is one of 16-bit words.
        connection.subflows[0].map = Some((map(of(b"abcdef")), false));
        assert_eq!(connection.take(0, 1, b"abc"), Taken { fresh: b"abc".to_vec(), ..Taken::default() });
        assert_eq!(
            connection.take(0, 4, b"def"),
            Taken { fresh: b"def".to_vec(), checked: true, wrong: None }
        );
        connection.subflows[0].map = Some((map(of(b"abcdeX")), false));
        assert_eq!(connection.take(0, 1, b"abcdef").wrong, Some(sequence));
        connection.subflows[0].map = Some((map(None), false));
        assert_eq!(connection.take(0, 1, b"abcdef").wrong, Some(sequence), "agreed on, and not there");
        connection.checksums = false;
        connection.subflows[0].map = Some((map(of(b"abcdef")), false));
        assert_eq!(connection.take(0, 1, b"abcdef").wrong, Some(sequence), "there, and not agreed on");
        connection.version = 0;
        assert_eq!(connection.take(0, 1, b"abcdef").wrong, None, "which version 0 ignores");
    }

    #[test]
    fn data_outside_of_its_mapping_is_nothing() {
        let mut connection = connection();
        map(&mut connection, 0, 3);
        assert_eq!(connection.take(0, 4, b"x"), Taken::default());
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
