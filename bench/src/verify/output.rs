//! What came out: every packet found again among those that went in, everything in front of it checked, its backend
//! held to that of its flow and its connection.

use std::time::Duration;

use capture::Record;
use hashbrown::HashMap;

use super::answer;
use super::dissect::{Frame, Ip, Transport, packet_bytes};
use super::failure::{At, Failures};
use super::flows::{FlowId, Opening};
use super::index::{Class, Found};
use super::input::Input;
use super::outer::{self, Entropy, Findings, OFFSETS, Outcome, Sent, Wrong};
use super::plan::{Plan, VipId};

/// Packets that nobody sent in: so many are kept, to be compared with what is missing.
const MAX_UNKNOWN: usize = 32;

/// What a backend got.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Packets.
    pub packets: u64,
    /// Bytes of those packets, as they went in, from the IP header on.
    pub bytes: u64,
}

/// A packet of the output that is none of the input.
pub struct Unknown {
    /// Where.
    pub at: At,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// A join that came out although its token was unknown when it went in.
struct LateJoin {
    at: At,
    pool: usize,
    token: u32,
    backend: u16,
    about: String,
}

/// Everything that came out.
pub struct Output<'a> {
    plan: &'a Plan,
    /// What went in.
    pub input: Input,
    /// What did not hold.
    pub failures: Failures,
    /// What each backend got, by place of its pool and in it.
    pub loads: HashMap<(usize, u16), Load>,
    /// What nobody sent in.
    pub unknown: Vec<Unknown>,
    /// Packets of the output, so far.
    pub packets: u64,
    /// Those that are answers.
    pub answers: u64,
    /// Packets that came out after a later one of their flow.
    pub reordered: u64,
    /// Joins held to their connection's backend.
    pub joins: u64,
    macs: HashMap<(usize, u16), [u8; 6]>,
    late: Vec<LateJoin>,
    /// Where the last packet was found in its frame: most are alike.
    usual: usize,
}

impl<'a> Output<'a> {
    /// Nothing came out yet of what went in.
    pub fn new(plan: &'a Plan, input: Input) -> Self {
        Self {
            plan,
            input,
            failures: Failures::default(),
            loads: HashMap::new(),
            unknown: Vec::new(),
            packets: 0,
            answers: 0,
            reordered: 0,
            joins: 0,
            macs: HashMap::new(),
            late: Vec::new(),
            usual: 0,
        }
    }

    /// Takes a packet that came out.
    pub fn take(&mut self, record: &Record) {
        self.packets += 1;
        let at = At { packet: self.packets, time: record.time };
        let Some(frame) = Frame::read(&record.bytes) else {
            return self.keep_unknown(at, record);
        };
        let Some((offset, bytes, found)) = self.find(&frame, at) else {
            if !self.answer(&frame, at) {
                self.keep_unknown(at, record);
            }
            return;
        };
        match found {
            Found::First(place) => self.came_out(at, &frame, offset, bytes, place),
            Found::Again(before) => {
                let (expected, found) = ("once".to_owned(), format!("as packet {before} before"));
                let wrong = Wrong { what: "packet came out twice", expected, found };
                self.failures.add(at, wrong, || about(bytes));
            }
            Found::Never => {}
        }
    }

    /// Where in a frame a packet lies that went in.
    fn find<'f>(&mut self, frame: &Frame<'f>, at: At) -> Option<(usize, &'f [u8], Found)> {
        let number = u32::try_from(at.packet).unwrap_or(u32::MAX);
        let others = OFFSETS.into_iter().filter(|offset| *offset != self.usual);
        for offset in std::iter::once(self.usual).chain(others) {
            let rest = frame.body.get(offset..).unwrap_or_default();
            // A frame without a packet (ARP) is known by all of it.
            let Some(bytes) = packet_bytes(rest).or((offset == 0).then_some(rest)) else { continue };
            let hash = self.input.index.hash(frame.tags, bytes);
            let found = self.input.index.claim(hash, number);
            if found != Found::Never {
                self.usual = offset;
                return Some((offset, bytes, found));
            }
        }
        None
    }

    fn came_out(&mut self, at: At, frame: &Frame<'_>, offset: usize, bytes: &[u8], place: u32) {
        let class = self.input.index.class(place);
        if !class.may_come_out() {
            let expected = "to be dropped or answered".to_owned();
            let wrong = Wrong { what: "packet forwarded", expected, found: class.absent().to_owned() };
            return self.failures.add(at, wrong, || about(bytes));
        }
        let Some(inner) = Ip::read(bytes) else { return };
        let flow = self.input.index.flow(place);
        let Some(vip) = self.vip(flow, &inner) else { return };
        let sent = Sent { frame, offset, inner: &inner, vip };
        let mut findings = Findings::default();
        let outcome = outer::check(self.plan, &sent, &mut findings);
        self.check_macs(&sent, outcome, &mut findings);
        self.load(vip, outcome, &inner);
        if let (Some(flow), Some(backend)) = (flow, outcome.backend) {
            self.note_order(flow, place);
            let related = matches!(inner.transport, Transport::Icmp { .. });
            let entropy = if related { Entropy::default() } else { outcome.entropy };
            self.follow(at, flow, (backend, entropy), related, &mut findings);
            self.note_passed(flow, &inner);
        }
        if class == Class::UnknownJoin {
            self.unknown_join(at, vip, outcome, &inner, &mut findings);
        }
        for wrong in findings.0 {
            self.failures.add(at, wrong, || about(bytes));
        }
    }

    fn vip(&self, flow: Option<FlowId>, inner: &Ip<'_>) -> Option<VipId> {
        if let Some(flow) = flow.and_then(|flow| self.input.flows.get(flow)) {
            return Some(flow.vip);
        }
        match &inner.transport {
            Transport::Icmp { payload, .. } => {
                let quoted = Ip::read(payload).and_then(|quoted| quoted.flow());
                quoted.and_then(|key| self.plan.quoted(key)).map(|(_, vip)| vip)
            }
            _ => inner.flow().and_then(|key| self.plan.vip(&key)),
        }
    }

    /// Where the configuration does not say a MAC address, it must be the same every time.
    fn check_macs(&mut self, sent: &Sent<'_>, outcome: Outcome, findings: &mut Findings) {
        let Some(backend) = outcome.backend else { return };
        let pool = self.plan.pool(sent.vip);
        let known = self.plan.backends(pool).get(usize::from(backend)).and_then(|backend| backend.mac);
        if known.is_none() {
            let first = *self.macs.entry((pool, backend)).or_insert(sent.frame.to);
            if first != sent.frame.to {
                let what = "destination MAC address";
                findings.add(what, outer::mac(first), outer::mac(sent.frame.to));
            }
        }
        let silent = self.plan.ports().iter().all(|port| port.mac.is_none());
        if silent && !self.input.macs.contains(&sent.frame.from) {
            let expected = "one that the input was sent to";
            findings.add("source MAC address", expected, outer::mac(sent.frame.from));
        }
    }

    fn load(&mut self, vip: VipId, outcome: Outcome, inner: &Ip<'_>) {
        let Some(backend) = outcome.backend else { return };
        let load = self.loads.entry((self.plan.pool(vip), backend)).or_default();
        load.packets += 1;
        load.bytes += inner.bytes.len() as u64;
    }

    fn note_order(&mut self, flow: FlowId, place: u32) {
        let Some(flow) = self.input.flows.get_mut(flow) else { return };
        self.reordered += u64::from(flow.last_place > place);
        flow.last_place = place.max(flow.last_place);
    }

    /// Every packet of a flow goes to one backend, by one path.
    fn follow(
        &mut self,
        at: At,
        id: FlowId,
        (backend, entropy): (u16, Entropy),
        related: bool,
        findings: &mut Findings,
    ) {
        let plan = self.plan;
        let Some(flow) = self.input.flows.get_mut(id) else { return };
        match flow.backend {
            Some((first, number)) if first != backend => {
                let pool = plan.pool(flow.vip);
                let name = |backend| plan.backend_name(pool, backend);
                let expected = format!("{}, as packet {number}", name(first));
                findings.add("backend of the flow", expected, name(backend));
            }
            Some(_) => {}
            // An ICMP error alone does not say where its flow is.
            None if related => {}
            None => {
                flow.backend = Some((backend, u32::try_from(at.packet).unwrap_or(u32::MAX)));
                flow.first_out = at.time;
            }
        }
        if let Some(label) = entropy.label {
            findings.expect("outer flow label", *flow.entropy.label.get_or_insert(label), label);
        }
        if let Some(port) = entropy.port {
            findings.expect("GUE source port", *flow.entropy.port.get_or_insert(port), port);
        }
    }

    /// What the connection's home hangs on has come out.
    fn note_passed(&mut self, id: FlowId, inner: &Ip<'_>) {
        let Transport::Tcp(tcp) = &inner.transport else { return };
        let teaches = self.input.flows.teaches(id, tcp);
        if let Some(flow) = self.input.flows.get_mut(id) {
            flow.passed.syn |= tcp.opens;
            flow.passed.key |= teaches;
        }
    }

    /// Right only where the token became known a moment later: another worker had its third ACK in hand.
    fn unknown_join(
        &mut self,
        at: At,
        vip: VipId,
        outcome: Outcome,
        inner: &Ip<'_>,
        findings: &mut Findings,
    ) {
        let Transport::Tcp(tcp) = &inner.transport else { return };
        let (Some(token), Some(backend)) = (tcp.mptcp.join, outcome.backend) else { return };
        let pool = self.plan.pool(vip);
        if self.input.flows.owners(pool, token).next().is_some() {
            self.late.push(LateJoin { at, pool, token, backend, about: about(inner.bytes) });
        } else {
            let found = format!("forwarded to {}", self.plan.backend_name(pool, backend));
            let expected = format!("dropped: no connection taught token {token:08x}");
            findings.add("join of an unknown token", expected, found);
        }
    }

    /// Whether the frame is an answer of Weft's own, to a question that went in.
    fn answer(&mut self, frame: &Frame<'_>, at: At) -> bool {
        let ip = frame.ip();
        let Some(exchange) = answer::answer(frame, ip.as_ref()) else { return false };
        let asked = self.input.questions.asked(&exchange);
        let index = &self.input.index;
        let Some(&place) = asked.iter().find(|place| !index.is_out(**place)) else { return false };
        self.input.index.answered(place, u32::try_from(at.packet).unwrap_or(u32::MAX));
        self.answers += 1;
        if let Some(ip) = ip
            && !answer::checksums_are_right(&ip)
        {
            let (expected, found) = ("right".to_owned(), "wrong".to_owned());
            let wrong = Wrong { what: "checksum of an answer", expected, found };
            self.failures.add(at, wrong, || about(ip.bytes));
        }
        true
    }

    fn keep_unknown(&mut self, at: At, record: &Record) {
        if self.unknown.len() < MAX_UNKNOWN {
            self.unknown.push(Unknown { at, bytes: record.bytes.clone() });
        } else {
            let (expected, found) = ("a packet of the input".to_owned(), "another".to_owned());
            let wrong = Wrong { what: "packet invented", expected, found };
            self.failures.add(at, wrong, String::new);
        }
    }

    /// Once all is read: every subflow is on the backend of its connection.
    pub fn check_connections(&mut self) {
        let joined: Vec<FlowId> = self
            .input
            .flows
            .iter()
            .filter(|(_, flow)| flow.passed.syn && flow.backend.is_some())
            .filter(|(_, flow)| matches!(flow.opening, Opening::Join(_)))
            .map(|(id, _)| id)
            .collect();
        for id in joined {
            let Some(flow) = self.input.flows.get(id) else { continue };
            let (Opening::Join(owner), Some((backend, number))) = (flow.opening, flow.backend) else {
                continue;
            };
            let (pool, time, key) = (self.plan.pool(flow.vip), flow.first_out, flow.key);
            let at = At { packet: u64::from(number), time };
            self.hold_to_owner(at, owner, pool, backend, || key.to_string());
        }
        for late in std::mem::take(&mut self.late) {
            let owner = self.input.flows.owners(late.pool, late.token).next();
            if let Some(owner) = owner {
                self.hold_to_owner(late.at, owner, late.pool, late.backend, || late.about);
            }
        }
    }

    fn hold_to_owner(
        &mut self,
        at: At,
        owner: FlowId,
        pool: usize,
        backend: u16,
        about: impl FnOnce() -> String,
    ) {
        let flows = &mut self.input.flows;
        let claimants = flows.claimants(owner);
        let token = flows.token(owner).unwrap_or_default();
        let homes: Vec<(u16, String)> = claimants
            .iter()
            .filter_map(|id| flows.get(*id))
            .filter(|flow| flow.passed.syn && flow.passed.key)
            .filter_map(|flow| Some((flow.backend?.0, flow.key.to_string())))
            .collect();
        if homes.is_empty() {
            // The connection began before this capture: its first join says where it is.
            if let Some(flow) = flows.get_mut(owner).filter(|flow| flow.passed.key) {
                flow.backend = Some((backend, u32::try_from(at.packet).unwrap_or(u32::MAX)));
            }
            return;
        }
        self.joins += 1;
        if homes.iter().any(|(home, _)| *home == backend) {
            return;
        }
        let name = |backend| self.plan.backend_name(pool, backend);
        let expected: Vec<String> = homes
            .iter()
            .map(|(home, key)| format!("{}, where {key} taught token {token:08x}", name(*home)))
            .collect();
        let wrong = Wrong {
            what: "backend of the join",
            expected: expected.join(", or "),
            found: name(backend).to_owned(),
        };
        self.failures.add(at, wrong, about);
    }
}

/// A packet in a few words.
pub fn about(bytes: &[u8]) -> String {
    let Some(ip) = Ip::read(bytes) else { return format!("{} bytes", bytes.len()) };
    match ip.flow() {
        Some(key) => key.to_string(),
        None => format!("IP protocol {} from {} to {}", ip.protocol, ip.source, ip.destination),
    }
}

/// A time as the report says it: seconds, to the microsecond.
pub fn seconds(time: Duration) -> String {
    format!("{}.{:06} s", time.as_secs(), time.subsec_micros())
}
