//! The server's side: answers handshakes, checks every proof, sends back what comes.

use std::time::Duration;

use packet::{Flags, Key};
use steering::key::{number_of, read_private_data};

use super::connection::{Connection, End, Signal};
use super::host::{At, Host, Tally, UnknownToken};
use super::issuer::Issuer;
use super::option::{FLAG_A, FLAG_H, MpOption};
use super::proof;
use super::segment::Segment;
use super::subflow::{End as Ending, Nonces, State, Subflow};
use super::tls::Side;

/// MP_TCPRST as Linux answers a join that names nothing: for good, an MPTCP-specific error.
const NO_SUCH_TOKEN: MpOption = MpOption::Reset { transient: false, reason: 1 };

/// How often a key is drawn before a server gives up and speaks plain TCP, as Linux does.
const DRAWS: u32 = 4;

/// A server.
pub struct Server {
    host: Host,
    /// The latest version it speaks.
    version: u8,
    side: Option<Side>,
    issuer: Issuer,
    checksums: bool,
}

impl Server {
    /// A server whose keys follow from a seed. With a side of TLS it takes explicit tokens, too.
    pub fn new(seed: u64, version: u8, side: Option<Side>) -> Self {
        Self { host: Host::new(seed), version, side, issuer: Issuer::Random, checksums: false }
    }

    /// The same with keys and tokens of another origin.
    #[must_use]
    pub fn with(mut self, issuer: Issuer) -> Self {
        self.issuer = issuer;
        self
    }

    /// The same, with checksums whether a client asks for them or not.
    #[must_use]
    pub fn with_checksums(mut self, checksums: bool) -> Self {
        self.checksums = checksums;
        self
    }

    /// What it has seen.
    pub fn tally(&self) -> &Tally {
        &self.host.tally
    }

    /// Notes a frame that was damaged.
    pub fn damaged(&mut self) {
        self.host.tally.damaged += 1;
    }

    /// Takes a segment in, and what the tunnel brought beside it.
    pub fn receive(&mut self, segment: &Segment, extra: &[u8], now: Duration) {
        self.host.now = now;
        let opens = segment.flags.opens();
        let known = self.host.find(segment);
        let given = self.read_numbers(segment, extra);
        let state = known.and_then(|at| self.host.subflow(at).map(|subflow| subflow.state));
        match (known, state) {
            (Some(at), Some(state)) if !opens || state != State::Closed => {
                self.known(at, state, segment, given);
            }
            _ if segment.flags.rst() => {}
            _ if opens => self.opened(segment, given),
            _ => {
                self.host.tally.stray += 1;
                self.host.deny(segment, Vec::new());
            }
        }
    }

    /// Lets time go on.
    pub fn tick(&mut self, now: Duration) {
        self.host.tick(now);
    }

    /// When [`Self::tick`] has something to do.
    pub fn due(&self) -> Option<Duration> {
        self.host.due()
    }

    /// What is to be sent.
    pub fn take_out(&mut self) -> Vec<Segment> {
        core::mem::take(&mut self.host.out)
    }

    /// Where the balancer chooses keys: the one that came with a SYN. What names another server than this is counted.
    fn read_numbers(&mut self, segment: &Segment, extra: &[u8]) -> Option<Key> {
        let own = self.issuer.mark()?;
        let tally = &mut self.host.tally;
        if segment.flags.opens() {
            let (number, key) = read_private_data(extra)?;
            tally.given_wrong += u64::from(number != own);
            return Some(key);
        }
        match segment.options.timestamps.and_then(|(_, echo)| number_of(echo)) {
            Some(number) if number == own => tally.numbered += 1,
            Some(_) => tally.numbered_wrong += 1,
            None => {}
        }
        None
    }

    fn known(&mut self, at: At, state: State, segment: &Segment, given: Option<Key>) {
        if segment.flags.rst() {
            return self.host.reset(at, segment);
        }
        if let (true, State::Answered, Some(Key(key))) = (segment.flags.opens(), state, given) {
            let first = self.host.connection(at).map(|connection| &connection.local.key);
            if let Some(first) = first.filter(|first| !first.is_empty()) {
                let same = first[..] == key;
                self.host.tally.given_again += u64::from(same);
                self.host.tally.given_wrong += u64::from(!same);
            }
        }
        if segment.flags.opens() {
            // A retransmission: what answers it is sent again by the clock.
            return;
        }
        if state == State::Closed {
            return self.host.linger(at, segment);
        }
        if state == State::Answered && !self.third(at, segment) {
            return;
        }
        let proves = |option: &MpOption| matches!(option, MpOption::JoinAck { .. }).then_some(());
        if state == State::Open && segment.find(proves).is_some() {
            // What acknowledged the proof was lost, and no clock sends it again.
            self.host.acknowledge(at);
        }
        let fresh = self.host.established(at, segment);
        self.answer(at, fresh);
        self.host.pump(at.connection);
        let ended =
            self.host.connection(at).is_some_and(|connection| connection.ended && connection.is_taken());
        if ended {
            self.host.close(at.connection);
        }
    }

    /// Sends back what came.
    fn answer(&mut self, at: At, fresh: Vec<u8>) {
        if fresh.is_empty() {
            return;
        }
        let Some(connection) = self.host.connection(at) else { return };
        let had_keys = !connection.local.key.is_empty();
        let Some(heard) = connection.hear(fresh) else {
            return self.host.refuse(at, Ending::Reset, Vec::new());
        };
        connection.send(at.subflow, &heard.out);
        if !heard.data.is_empty() {
            connection.spread(&heard.data);
        }
        let has_keys = !connection.local.key.is_empty();
        self.host.tally.keyed += u64::from(has_keys && !had_keys);
    }

    /// A SYN of a flow that is not known.
    fn opened(&mut self, syn: &Segment, given: Option<Key>) {
        let capable = syn.find(|option| match option {
            MpOption::CapableSyn { version, flags, sender } => Some((*version, *flags, *sender)),
            _ => None,
        });
        let join = syn.find(|option| match option {
            MpOption::JoinSyn { token, nonce, slot, .. } => Some((*token, *nonce, *slot)),
            _ => None,
        });
        match (capable, join) {
            (None, Some((token, nonce, slot))) => self.join(syn, token, nonce, slot),
            (Some((version, flags, _)), None) if version.min(1) <= self.version => {
                self.capable(syn, given, version.min(self.version), flags);
            }
            // Neither, or both at once, which contradict each other.
            _ => {
                let first = self.subflow(syn);
                let at = self.host.adopt(Connection::new(1, Signal::Keys, 0, false, first));
                self.host.send(at, Flags::SYN.with(Flags::ACK), Vec::new());
            }
        }
    }

    /// The subflow that a SYN opens.
    fn subflow(&mut self, syn: &Segment) -> Subflow {
        let mut subflow = Subflow::answer(syn, self.host.random.word());
        subflow.mark = self.issuer.mark();
        subflow
    }

    /// A SYN that asks for MPTCP.
    fn capable(&mut self, syn: &Segment, given: Option<Key>, version: u8, flags: u8) {
        let first = self.subflow(syn);
        let explicit = version == 1 && self.side.is_some();
        let (signal, chosen) = if explicit { Signal::chosen(flags) } else { (Signal::Keys, FLAG_H) };
        let checksums = if self.checksums { FLAG_A } else { flags & FLAG_A };
        let mut connection = Connection::new(version, signal, chosen | checksums, false, first);
        let drawn = (0..DRAWS).find_map(|_| {
            let issued = self.issuer.issue(version, signal, given, &mut self.host.random)?;
            let token = issued.end.token;
            (!self.host.tokens.contains_key(&token) && token != 0).then_some(issued)
        });
        let answer = drawn.map(|issued| {
            self.host.tally.given += u64::from(issued.given);
            connection.local = issued.end;
            let [sender, _] = connection.names();
            MpOption::CapableSynAck { version, flags: connection.flags, sender }
        });
        let at = self.host.adopt(connection);
        self.host.send(at, Flags::SYN.with(Flags::ACK), answer.into_iter().collect());
    }

    /// A SYN that joins.
    fn join(&mut self, syn: &Segment, token: u32, remote: u32, slot: u8) {
        let Some(index) = self.host.tokens.get(&token).copied() else {
            self.host
                .tally
                .unknown_tokens
                .push(UnknownToken { token: format!("{token:08x}"), from: syn.from });
            return self.host.deny(syn, vec![NO_SUCH_TOKEN]);
        };
        let connection = self.host.connections.get(index);
        let slot = connection.map_or(0, |connection| connection.slot(slot));
        if !connection.is_some_and(|connection| connection.is_keyed(slot)) {
            // Its keys are still being agreed on: it may be tried again.
            self.host.tally.early += 1;
            return self.host.deny(syn, vec![MpOption::Reset { transient: true, reason: 1 }]);
        }
        let local = self.host.random.word();
        let mut subflow = self.subflow(syn);
        subflow.join = Some(Nonces { local, remote, slot });
        let Some(at) = self.host.extend(index, subflow) else { return };
        let hmac = self
            .host
            .connection(at)
            .map(|connection| proof::join_short(connection.version, connection.keys(slot), [local, remote]));
        let answer = MpOption::JoinSynAck { id: 0, hmac: hmac.unwrap_or_default(), nonce: local };
        self.host.send(at, Flags::SYN.with(Flags::ACK), vec![answer]);
    }

    /// The answer to a SYN/ACK: `true` where the subflow is established by it.
    fn third(&mut self, at: At, segment: &Segment) -> bool {
        let now = self.host.now;
        let Some(subflow) = self.host.subflow(at) else { return false };
        if !segment.flags.ack() || !subflow.acknowledge(segment.ack, now) || !subflow.is_acknowledged() {
            return false;
        }
        subflow.heard(segment);
        match subflow.join {
            Some(nonces) => self.proved(at, nonces, segment),
            None => self.named(at, segment),
        }
    }

    /// The third packet of a join.
    fn proved(&mut self, at: At, nonces: Nonces, segment: &Segment) -> bool {
        let given = segment.find(|option| match option {
            MpOption::JoinAck { hmac } => Some(*hmac),
            _ => None,
        });
        let Some(connection) = self.host.connection(at) else { return false };
        let [local, remote] = connection.keys(nonces.slot);
        let right = proof::join(connection.version, [remote, local], [nonces.remote, nonces.local]);
        if given != Some(right) {
            self.host.tally.wrong_hmac += 1;
            self.host.refuse(at, Ending::WrongHmac, vec![NO_SUCH_TOKEN]);
            return false;
        }
        if let Some(subflow) = self.host.subflow(at) {
            subflow.establish();
        }
        self.host.tally.joined += 1;
        // Until this comes the client may not send data (RFC 8684 section 3.2).
        self.host.acknowledge(at);
        true
    }

    /// The third packet of a connection.
    fn named(&mut self, at: At, segment: &Segment) -> bool {
        let capable = segment.find(|option| match option {
            MpOption::CapableAck { version, sender, receiver, .. } => Some((*version, *sender, *receiver)),
            _ => None,
        });
        let Some(connection) = self.host.connection(at) else { return false };
        if let Some(first) = connection.subflows.first_mut() {
            first.establish();
        }
        let offered = !connection.local.key.is_empty() || connection.local.token != 0;
        let Some((version, sender, receiver)) = capable.filter(|_| offered) else {
            self.host.tally.plain += 1;
            return true;
        };
        let [own, _] = connection.names();
        let local = core::mem::take(&mut connection.local);
        let token = local.token;
        connection.name(local, End::of(version, sender));
        if connection.signal != Signal::Keys {
            connection.session = self.side.as_ref().and_then(Side::session);
        }
        self.host.tally.connections += 1;
        self.host.tally.wrong_echo += u64::from(receiver != own);
        self.host.tokens.insert(token, at.connection);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Client;
    use super::super::plan::Plan;
    use super::*;
    use steering::key::private_data;

    const SECOND: &str = "10.0.2.1";

    fn plan() -> Plan {
        Plan {
            service: "10.9.9.9:8000".parse().unwrap(),
            addresses: vec!["10.0.1.1".parse().unwrap(), SECOND.parse().unwrap()],
            connections: 1,
            at_once: 1,
            joins: 1,
            bytes: 100,
            echo: true,
            version: 1,
            signal: Signal::Keys,
            checksums: false,
            fastclose: false,
            hold: Duration::ZERO,
        }
    }

    /// A client and a server that holds number 7, between them somebody who gives each SYN this key and loses the first
    /// SYN/ACK.
    fn given(plan: Plan, keys: impl Fn(u32) -> [u8; 8]) -> (Client, Server) {
        let version = plan.version;
        let mut client = Client::new(1, plan).unwrap();
        let mut server = Server::new(2, version, None).with(Issuer::Given { number: 7 });
        let (mut syns, mut lost) = (0, 0);
        for millis in (0..30_000).step_by(100) {
            let now = Duration::from_millis(millis);
            client.tick(now);
            for segment in client.take_out() {
                let extra = if segment.flags.opens() {
                    syns += 1;
                    private_data(7, Key(keys(syns))).to_vec()
                } else {
                    Vec::new()
                };
                server.receive(&segment, &extra, now);
            }
            server.tick(now);
            for segment in server.take_out() {
                let (value, _) = segment.options.timestamps.unwrap();
                assert_eq!(value & 0xfff, 7, "every segment names the server: {segment:?}");
                if lost == 0 {
                    lost += 1;
                } else {
                    client.receive(&segment, now);
                }
            }
        }
        (client, server)
    }

    #[test]
    fn a_key_that_the_balancer_gives_is_the_servers_own_and_every_segment_comes_back_with_its_number() {
        for version in [0, 1] {
            let hold = Duration::from_secs(2);
            let (client, server) = given(Plan { version, hold, ..plan() }, |_| [9; 8]);
            assert!(client.is_done() && client.outcome().whole == 1, "{:?}", client.outcome());
            assert_eq!((client.outcome().mptcp, client.outcome().joined), (1, 1));
            let seen = server.tally();
            assert!(server.host.tokens.contains_key(&proof::token(version, &[9; 8])));
            assert_eq!((seen.given, seen.given_again, seen.given_wrong, seen.numbered_wrong), (1, 1, 0, 0));
            assert!(seen.numbered > 5, "{seen:?}");
        }
    }

    #[test]
    fn a_syn_that_comes_again_with_another_key_is_noticed() {
        let (_, server) = given(plan(), |syn| [u8::try_from(syn).unwrap(); 8]);
        assert_eq!((server.tally().given_again, server.tally().given_wrong), (0, 1));
    }

    #[test]
    fn a_given_key_whose_token_is_taken_makes_a_plain_connection_that_is_numbered_nevertheless() {
        let plan = Plan { connections: 2, joins: 0, ..plan() };
        let (client, server) = given(plan, |_| [9; 8]);
        assert_eq!((client.outcome().mptcp, client.outcome().whole, server.tally().plain), (1, 2, 1));
        assert_eq!((server.tally().numbered_wrong, server.tally().given_wrong), (0, 0));
    }

    #[test]
    fn a_number_or_an_echo_of_another_server_is_noticed() {
        let mut server = Server::new(2, 1, None).with(Issuer::Given { number: 8 });
        let mut client = Client::new(1, plan()).unwrap();
        client.tick(Duration::ZERO);
        let mut syn = client.take_out().remove(0);
        server.receive(&syn, &private_data(7, Key([9; 8])), Duration::ZERO);
        assert_eq!(server.tally().given_wrong, 1);
        (syn.flags, syn.options.timestamps) = (Flags::ACK, Some((5, 7)));
        server.receive(&syn, &[], Duration::ZERO);
        assert_eq!(server.tally().numbered_wrong, 1);
    }

    #[test]
    fn a_join_that_nobody_has_answered_yet_did_not_succeed() {
        let (mut client, mut server) = (Client::new(1, plan()).unwrap(), Server::new(2, 1, None));
        for millis in (0..1000).step_by(100) {
            let now = Duration::from_millis(millis);
            client.tick(now);
            let segments = client.take_out();
            let joins = |segment: &&Segment| segment.from.ip().to_string() != SECOND;
            segments.iter().filter(joins).for_each(|segment| server.receive(segment, &[], now));
            server.take_out().iter().for_each(|segment| client.receive(segment, now));
        }
        let outcome = client.outcome();
        assert_eq!((outcome.mptcp, outcome.joins, outcome.joined, outcome.pending), (1, 1, 0, 1));
    }

    #[test]
    fn a_join_succeeds_although_what_acknowledges_its_proof_is_lost() {
        let second: std::net::IpAddr = SECOND.parse().unwrap();
        let plan = plan();
        let (mut client, mut server) = (Client::new(1, plan).unwrap(), Server::new(2, 1, None));
        let mut lost = 0;
        for millis in (0..20_000).step_by(100) {
            let now = Duration::from_millis(millis);
            client.tick(now);
            client.take_out().iter().for_each(|segment| server.receive(segment, &[], now));
            server.tick(now);
            for segment in server.take_out() {
                if lost == 0 && segment.to.ip() == second && !segment.flags.syn() {
                    lost += 1;
                } else {
                    client.receive(&segment, now);
                }
            }
        }
        assert_eq!((lost, client.tally().joined, server.tally().joined), (1, 1, 1));
        assert!(client.is_done() && client.outcome().whole == 1, "{:?}", client.outcome());
    }
}
