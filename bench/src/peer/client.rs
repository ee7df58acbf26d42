//! The client's side: opens connections, sends data, joins them from other addresses, sends more, and closes.

use std::net::SocketAddr;
use std::time::Duration;

use packet::Flags;

use super::connection::{Connection, End, Signal};
use super::host::{At, Host, Tally};
use super::option::{FLAG_A, MpOption, Name};
use super::plan::{Outcome, Plan};
use super::proof;
use super::segment::Segment;
use super::subflow::{End as Ending, Nonces, State, Subflow};
use super::tls::Side;

/// How long data waits that was acknowledged as a segment only.
const REPEAT: Duration = Duration::from_millis(500);

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    Securing,
    Talking,
    Silent { until: Duration },
    Joining,
    TalkingOnAll,
    Closing,
    Done,
}

/// One connection's own.
struct Errand {
    stage: Stage,
    key: [u8; 8],
    token: u32,
    sent: Vec<u8>,
    received: Vec<u8>,
}

/// A client.
pub struct Client {
    host: Host,
    plan: Plan,
    errands: Vec<Errand>,
    side: Option<Side>,
    port: u16,
    finished: usize,
    repeated: Duration,
}

impl Client {
    /// A client whose keys follow from a seed, but for those that come from TLS.
    ///
    /// # Errors
    /// TLS is asked for and not to be had.
    pub fn new(seed: u64, plan: Plan) -> anyhow::Result<Self> {
        let side = (plan.signal != Signal::Keys).then(Side::client).transpose()?;
        Ok(Self {
            host: Host::new(seed),
            plan,
            errands: Vec::new(),
            side,
            port: 20_000,
            finished: 0,
            repeated: Duration::ZERO,
        })
    }

    /// What it has seen.
    pub fn tally(&self) -> &Tally {
        &self.host.tally
    }

    /// Notes a frame that was damaged.
    pub fn damaged(&mut self) {
        self.host.tally.damaged += 1;
    }

    /// Whether all is over.
    pub fn is_done(&self) -> bool {
        let opened = u32::try_from(self.errands.len()).unwrap_or(u32::MAX);
        opened >= self.plan.connections && self.finished == self.errands.len()
    }

    /// Connections that are over.
    pub fn done(&self) -> u64 {
        self.finished as u64
    }

    /// When [`Self::tick`] has something to do.
    pub fn due(&self) -> Option<Duration> {
        let silent = self.errands.iter().filter_map(|errand| match errand.stage {
            Stage::Silent { until } => Some(until),
            _ => None,
        });
        self.host.due().into_iter().chain(silent).min()
    }

    /// Connections that have been silent for long enough.
    fn rested(&self, now: Duration) -> Vec<usize> {
        let over = |errand: &Errand| matches!(errand.stage, Stage::Silent { until } if until <= now);
        if self.plan.hold.is_zero() {
            return Vec::new();
        }
        (0..).zip(&self.errands).filter(|(_, errand)| over(errand)).map(|(index, _)| index).collect()
    }

    /// What is to be sent.
    pub fn take_out(&mut self) -> Vec<Segment> {
        core::mem::take(&mut self.host.out)
    }

    /// Lets time go on.
    pub fn tick(&mut self, now: Duration) {
        for connection in self.host.tick(now) {
            self.progress(connection);
        }
        for index in self.rested(now) {
            self.progress(index);
        }
        self.repeat(now);
        let busy = self.errands.len() - self.finished;
        let room = usize::try_from(self.plan.at_once).unwrap_or(usize::MAX).saturating_sub(busy);
        let left =
            usize::try_from(self.plan.connections).unwrap_or(usize::MAX).saturating_sub(self.errands.len());
        for _ in 0..room.min(left) {
            self.open();
        }
    }

    /// Sends again what was acknowledged as a segment, and not as data.
    fn repeat(&mut self, now: Duration) {
        if now < self.repeated + REPEAT {
            return;
        }
        self.repeated = now;
        for (index, errand) in self.errands.iter().enumerate() {
            if !matches!(errand.stage, Stage::Closing | Stage::Done)
                && let Some(connection) = self.host.connections.get_mut(index)
            {
                connection.repeat();
                self.host.pump(index);
            }
        }
    }

    /// Takes a segment in.
    pub fn receive(&mut self, segment: &Segment, now: Duration) {
        self.host.now = now;
        let Some(at) = self.host.find(segment) else {
            self.host.tally.stray += 1;
            return self.host.deny(segment, Vec::new());
        };
        let Some(state) = self.host.subflow(at).map(|subflow| subflow.state) else { return };
        match state {
            _ if segment.flags.rst() => self.host.reset(at, segment),
            State::Closed => self.host.linger(at, segment),
            State::Opening => self.answered(at, segment),
            // Of our answer to their SYN they know nothing yet.
            State::Proving if segment.flags.syn() => self.host.prove_again(at),
            _ if segment.flags.syn() => self.host.acknowledge(at),
            _ => {
                if state == State::Proving
                    && let Some(subflow) = self.host.subflow(at)
                {
                    subflow.proven();
                    subflow.establish();
                    self.host.tally.joined += 1;
                }
                let fresh = self.host.established(at, segment);
                self.heard_of(at, fresh);
            }
        }
        self.progress(at.connection);
    }

    /// What became of all.
    pub fn outcome(&self) -> Outcome {
        let mut outcome = Outcome { asked: u64::from(self.plan.connections), ..Outcome::default() };
        for (connection, errand) in self.host.connections.iter().zip(&self.errands) {
            outcome.mptcp += u64::from(connection.mptcp);
            let back = !self.plan.echo || errand.received == errand.sent;
            outcome.whole += u64::from(connection.is_taken() && back && !errand.sent.is_empty());
            for join in connection.subflows.iter().filter(|subflow| subflow.join.is_some()) {
                outcome.joins += 1;
                match join.end {
                    end if join.established => {
                        outcome.joined += 1;
                        outcome.broken += u64::from(!matches!(end, None | Some(Ending::Finished)));
                    }
                    None => outcome.pending += 1,
                    Some(Ending::Finished | Ending::Reset) => outcome.refused += 1,
                    Some(Ending::Lost) => outcome.lost += 1,
                    Some(Ending::WrongHmac) => outcome.wrong_hmac += 1,
                    Some(Ending::NoMptcp) => outcome.no_mptcp += 1,
                }
            }
        }
        outcome
    }

    /// The next port to come from: 20000 to 59999.
    fn next_port(&mut self) -> u16 {
        let port = self.port;
        self.port = if port >= 59_999 { 20_000 } else { port + 1 };
        port
    }

    /// Where a subflow comes from.
    fn source(&mut self, path: usize) -> Option<SocketAddr> {
        let count = self.plan.addresses.len();
        let address = self.plan.addresses.get(path % count.max(1)).copied()?;
        Some(SocketAddr::new(address, self.next_port()))
    }

    /// Opens a connection.
    fn open(&mut self) {
        let Some(source) = self.source(0) else { return };
        let (key, token) = (self.host.random.key(), self.host.random.word());
        let first = Subflow::open(source, self.plan.service, self.host.random.word());
        let version = self.plan.version;
        let flags = self.plan.signal.offer() | if self.plan.checksums { FLAG_A } else { 0 };
        let sender = (version == 0).then_some(Name::Key(key));
        let at = self.host.adopt(Connection::new(version, self.plan.signal, flags, true, first));
        self.host.send(at, Flags::SYN, vec![MpOption::CapableSyn { version, flags, sender }]);
        self.errands.push(Errand {
            stage: Stage::Opening,
            key,
            token,
            sent: Vec::new(),
            received: Vec::new(),
        });
    }

    /// A SYN was answered.
    fn answered(&mut self, at: At, segment: &Segment) {
        let now = self.host.now;
        let own = self.errands.get(at.connection).map(|errand| (errand.key, errand.token));
        let (key, token) = own.unwrap_or_default();
        let Some(subflow) = self.host.subflow(at) else { return };
        let fits = segment.flags.has(Flags::SYN.with(Flags::ACK)) && subflow.acknowledge(segment.ack, now);
        if !fits || !subflow.is_acknowledged() {
            return;
        }
        subflow.heard_syn(segment);
        if let Some(nonces) = subflow.join {
            return self.welcomed(at, nonces, segment);
        }
        subflow.establish();
        let capable = segment.find(|option| match option {
            MpOption::CapableSynAck { version, flags, sender } => Some((*version, *flags, *sender)),
            _ => None,
        });
        let Some(connection) = self.host.connection(at) else { return };
        match capable.filter(|(version, ..)| *version <= connection.version) {
            Some((version, flags, sender)) => {
                connection.version = version;
                // Either side's word is enough.
                connection.flags = flags | connection.flags & FLAG_A;
                connection.checksums = connection.flags & FLAG_A != 0;
                let local = match sender {
                    Name::Key(_) => {
                        connection.signal = Signal::Keys;
                        End::of_key(version, key)
                    }
                    Name::Token(_) => {
                        connection.session = self.side.as_ref().and_then(Side::session);
                        End::of_token(token)
                    }
                };
                connection.name(local, End::of(version, sender));
                self.host.tally.connections += 1;
            }
            None => self.host.tally.plain += 1,
        }
        self.host.acknowledge(at);
    }

    /// A join was answered.
    fn welcomed(&mut self, at: At, mut nonces: Nonces, segment: &Segment) {
        let now = self.host.now;
        let answer = segment.find(|option| match option {
            MpOption::JoinSynAck { hmac, nonce, .. } => Some((*hmac, *nonce)),
            _ => None,
        });
        let Some((given, remote)) = answer else {
            return self.host.refuse(at, Ending::NoMptcp, Vec::new());
        };
        nonces.remote = remote;
        let Some(connection) = self.host.connection(at) else { return };
        let version = connection.version;
        let [local, remote] = connection.keys(nonces.slot);
        if given != proof::join_short(version, [remote, local], [nonces.remote, nonces.local]) {
            self.host.tally.wrong_hmac += 1;
            return self.host.refuse(at, Ending::WrongHmac, Vec::new());
        }
        let hmac = proof::join(version, [local, remote], [nonces.local, nonces.remote]);
        if let Some(subflow) = self.host.subflow(at) {
            subflow.join = Some(nonces);
            subflow.state = State::Proving;
            let segment = subflow.prove(vec![MpOption::JoinAck { hmac }], now);
            self.host.out.push(segment);
        }
    }

    /// Takes what the server sent.
    fn heard_of(&mut self, at: At, fresh: Vec<u8>) {
        if fresh.is_empty() {
            return;
        }
        let Some(connection) = self.host.connections.get_mut(at.connection) else { return };
        let Some(heard) = connection.hear(fresh) else {
            return self.host.refuse(at, Ending::Reset, Vec::new());
        };
        connection.send(at.subflow, &heard.out);
        if let Some(errand) = self.errands.get_mut(at.connection) {
            errand.received.extend(heard.data);
        }
    }

    /// Takes a connection a step further, where it can go.
    fn progress(&mut self, index: usize) {
        loop {
            let Some(stage) = self.errands.get(index).map(|errand| errand.stage) else { return };
            let Some(next) = self.step(index, stage) else { break };
            if let Some(errand) = self.errands.get_mut(index) {
                errand.stage = next;
                self.finished += usize::from(next == Stage::Done);
            }
        }
        self.host.pump(index);
    }

    /// What follows on this stage, if it is time.
    fn step(&mut self, index: usize, stage: Stage) -> Option<Stage> {
        let connection = self.host.connections.get(index)?;
        let state = connection.subflows.first()?.state;
        let all_closed = connection.subflows.iter().all(|subflow| subflow.state == State::Closed);
        if all_closed && stage != Stage::Done {
            return Some(Stage::Done);
        }
        match stage {
            Stage::Opening => {
                (state == State::Open).then_some(())?;
                let connection = self.host.connections.get_mut(index)?;
                if let Some(session) = &mut connection.session {
                    let hello = session.pending();
                    connection.send(0, &hello);
                    return Some(Stage::Securing);
                }
                self.say(index, 0);
                Some(Stage::Talking)
            }
            Stage::Securing => {
                (!connection.local.key.is_empty() && connection.is_taken()).then_some(())?;
                // With E both keys are proved, one after the other; with G there is one, and nothing to prove.
                let all: u8 = if connection.signal == Signal::E { 2 } else { 1 };
                if let Some(slot) = (0..all).find(|slot| !connection.is_keyed(*slot)) {
                    self.prove(index, slot);
                    return None;
                }
                self.host.tally.keyed += 1;
                self.say(index, 0);
                Some(Stage::Talking)
            }
            Stage::Talking => {
                self.heard(index).then_some(())?;
                let until = self.host.now + self.plan.hold;
                Some(Stage::Silent { until })
            }
            Stage::Silent { until } => {
                (until <= self.host.now).then_some(())?;
                if connection.mptcp && self.plan.joins > 0 {
                    (1..=self.plan.joins).for_each(|path| self.join(index, path));
                    return Some(Stage::Joining);
                }
                Some(self.close(index))
            }
            Stage::Joining => {
                let mut joins = connection.subflows.iter().skip(1);
                joins.all(|join| matches!(join.state, State::Open | State::Closed)).then_some(())?;
                for subflow in 1..connection.subflows.len() {
                    self.say(index, subflow);
                }
                Some(Stage::TalkingOnAll)
            }
            Stage::TalkingOnAll => {
                self.heard(index).then_some(())?;
                Some(self.close(index))
            }
            Stage::Closing | Stage::Done => None,
        }
    }

    /// Ends a connection.
    fn close(&mut self, index: usize) -> Stage {
        if self.plan.fastclose {
            self.host.abort(index);
        } else {
            self.host.close(index);
        }
        Stage::Closing
    }

    /// Whether all that was said has arrived, and came back where it should.
    fn heard(&self, index: usize) -> bool {
        let (Some(connection), Some(errand)) = (self.host.connections.get(index), self.errands.get(index))
        else {
            return false;
        };
        connection.is_taken() && (!self.plan.echo || errand.received.len() >= errand.sent.len())
    }

    /// Sends data over an open subflow.
    fn say(&mut self, index: usize, subflow: usize) {
        let open = |connection: &Connection| connection.subflows.get(subflow).map(|subflow| subflow.state);
        if self.host.connections.get(index).and_then(open) != Some(State::Open) {
            return;
        }
        let bytes: Vec<u8> = (0..self.plan.bytes).map(|_| self.host.random.key()[0]).collect();
        if let (Some(connection), Some(errand)) =
            (self.host.connections.get_mut(index), self.errands.get_mut(index))
        {
            connection.say(subflow, &bytes);
            errand.sent.extend(bytes);
        }
    }

    /// Proves that we hold the keys of a slot, once.
    fn prove(&mut self, index: usize, slot: u8) {
        let now = self.host.now;
        let Some(connection) = self.host.connections.get_mut(index) else { return };
        let options = connection.new_key(slot);
        let first = connection.subflows.first_mut().filter(|first| !first.is_proving());
        if let Some(segment) = first.map(|first| first.prove(options, now)) {
            self.host.out.push(segment);
        }
    }

    /// Joins a connection from another address.
    fn join(&mut self, index: usize, path: u32) {
        let Some(source) = self.source(usize::try_from(path).unwrap_or(0)) else { return };
        let (start, nonce) = (self.host.random.word(), self.host.random.word());
        let mut subflow = Subflow::open(source, self.plan.service, start);
        let Some(connection) = self.host.connections.get(index) else { return };
        let id = u8::try_from(path).unwrap_or(u8::MAX);
        // Where there are two keys, by either in turn.
        let (token, slot) = (connection.remote.token, connection.slot(id));
        subflow.join = Some(Nonces { local: nonce, remote: 0, slot });
        if let Some(at) = self.host.extend(index, subflow) {
            self.host.send(at, Flags::SYN, vec![MpOption::JoinSyn { id, token, nonce, slot }]);
        }
    }
}
