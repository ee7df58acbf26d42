//! What went in: every packet classified, every flow followed, before anything that came out is looked at.

use std::time::Duration;

use anyhow::bail;
use capture::Record;
use etherparse::{LaxNetSlice, LaxSlicedPacket};
use hashbrown::HashSet;

use super::answer::{self, Exchange, Questions};
use super::dissect::{FlowKey, Frame, Ip, TCP, Transport, UDP, packet_bytes};
use super::flows::{Certainty, FlowId, Flows, Passed};
use super::index::{Class, Index};
use super::plan::{Plan, VipId};

/// ICMP errors (RFC 792: unreachable, time exceeded, parameter problem; RFC 4443: 1 to 4).
const ERRORS4: [u8; 3] = [3, 11, 12];
const ERRORS6: [u8; 4] = [1, 2, 3, 4];
/// Destination MAC addresses of the input that are remembered.
const MAX_MACS: usize = 64;

/// Everything that went in.
#[derive(Default)]
pub struct Input {
    /// The packets, by their bytes.
    pub index: Index,
    /// The flows they are of.
    pub flows: Flows,
    /// What Weft may answer.
    pub questions: Questions,
    /// Where the frames were sent to: without a configured MAC address, the source of what comes out.
    pub macs: HashSet<[u8; 6]>,
}

/// What a packet is, and what follows from it.
struct Judged {
    class: Class,
    flow: Option<FlowId>,
    question: Option<Exchange>,
}

impl Judged {
    fn of(class: Class) -> Self {
        Self { class, flow: None, question: None }
    }
}

impl Input {
    /// Takes a packet in that went in before the ones that are verified: it may open flows and teach tokens.
    pub fn warm(&mut self, plan: &Plan, record: &Record) -> Option<()> {
        let frame = Frame::read(&record.bytes)?;
        let ip = frame.ip()?;
        let flow = self.judge(plan, &frame, Some(&ip), record.time)?.flow?;
        // Nobody saw it come out; it is taken for granted.
        self.flows.get_mut(flow)?.passed = Passed { syn: true, key: true };
        Some(())
    }

    /// Takes a packet in.
    ///
    /// # Errors
    /// There are more packets or flows than 32 bits can number.
    pub fn take(&mut self, plan: &Plan, record: &Record) -> anyhow::Result<()> {
        let parts = Frame::read(&record.bytes);
        let ip = parts.as_ref().and_then(Frame::ip);
        let judged = match &parts {
            Some(frame) => self.judge(plan, frame, ip.as_ref(), record.time),
            None => Some(Judged::of(Class::Foreign)),
        };
        let (tags, packet) = match &parts {
            Some(frame) => (frame.tags, packet_bytes(frame.body).unwrap_or(frame.body)),
            None => (&[][..], record.bytes.as_slice()),
        };
        let hash = self.index.hash(tags, packet);
        let added = judged.and_then(|judged| {
            let place = self.index.add(hash, judged.flow, judged.class)?;
            if let Some(question) = judged.question {
                self.questions.ask(question, place);
            }
            Some(())
        });
        if added.is_none() {
            bail!("more packets than can be numbered: split the capture");
        }
        if let Some(frame) = &parts
            && self.macs.len() < MAX_MACS
        {
            self.macs.insert(frame.to);
        }
        Ok(())
    }

    /// What a packet is. `None` only where there are too many flows.
    fn judge(
        &mut self,
        plan: &Plan,
        frame: &Frame<'_>,
        ip: Option<&Ip<'_>>,
        time: Duration,
    ) -> Option<Judged> {
        if let Some(question) = answer::question(frame, ip) {
            return Some(Judged { class: Class::Question, flow: None, question: Some(question) });
        }
        let Some(ip) = ip.filter(|_| plan.takes(frame.to)) else {
            return Some(Judged::of(Class::Foreign));
        };
        let judged = match &ip.transport {
            Transport::Icmp { kind: [kind, _], payload, .. } => {
                let errors = if ip.is_v4() { &ERRORS4[..] } else { &ERRORS6[..] };
                if errors.contains(kind) {
                    self.related(plan, ip, payload)
                } else {
                    Judged::of(Class::Foreign)
                }
            }
            Transport::Fragment if ip.protocol == TCP && plan.is_vip_address(ip.destination) => {
                Judged::of(Class::TcpFragment)
            }
            _ => {
                let Some((key, vip)) = ip.flow().and_then(|key| Some((key, service(plan, ip, &key)?))) else {
                    return Some(Judged::of(Class::Foreign));
                };
                self.of_vip(plan, ip, key, vip, time)?
            }
        };
        Some(judged)
    }

    /// A TCP or UDP packet to a VIP.
    fn of_vip(
        &mut self,
        plan: &Plan,
        ip: &Ip<'_>,
        key: FlowKey,
        vip: VipId,
        time: Duration,
    ) -> Option<Judged> {
        let too_long =
            plan.mtus().is_some_and(|(least, _)| ip.bytes.len() + plan.overhead(vip, ip.is_v4()) > least);
        let Transport::Tcp(tcp) = &ip.transport else {
            let flow = Some(self.flows.datagram(key, vip, time)?);
            let class = if too_long { Class::TooBig } else { Class::Forwarded };
            return Some(Judged { class, flow, question: too_big(ip, too_long) });
        };
        let step = self.flows.tcp(key, tcp, plan.steering(vip), time)?;
        let class = match step.join {
            _ if too_long => Class::TooBig,
            _ if step.unknown_join => Class::UnknownJoin,
            Some(Certainty::Certain) => Class::Join,
            Some(Certainty::Doubtful) => Class::Doubtful,
            None => Class::Forwarded,
        };
        let reset = matches!(class, Class::UnknownJoin | Class::Doubtful) && plan.resets(vip);
        let segment = u32::try_from(tcp.data).unwrap_or_default().wrapping_add(1);
        let reset = reset.then(|| Exchange::Reset(key, tcp.sequence.wrapping_add(segment)));
        Some(Judged { class, flow: step.flow, question: reset.or(too_big(ip, too_long)) })
    }

    /// An ICMP error: it goes where the flow goes that it quotes a packet of.
    fn related(&self, plan: &Plan, ip: &Ip<'_>, quote: &[u8]) -> Judged {
        let Ok(lax) = LaxSlicedPacket::from_ip(quote) else {
            return Judged::of(Class::Foreign);
        };
        let Some((net, payload)) = lax.net.as_ref().and_then(|net| Some((net, net.ip_payload_ref()?))) else {
            return Judged::of(Class::Foreign);
        };
        let [source, destination] = match net {
            LaxNetSlice::Ipv4(ip) => {
                [ip.header().source_addr().into(), ip.header().destination_addr().into()]
            }
            LaxNetSlice::Ipv6(ip) => {
                [ip.header().source_addr().into(), ip.header().destination_addr().into()]
            }
            LaxNetSlice::Arp(_) => return Judged::of(Class::Foreign),
        };
        let Some([a, b, c, d]) = payload.payload.first_chunk().copied() else {
            return Judged::of(Class::Foreign);
        };
        let [source_port, destination_port] = [[a, b], [c, d]].map(u16::from_be_bytes);
        let protocol = payload.ip_number.0;
        let key = FlowKey { source, destination, source_port, destination_port, protocol };
        let Some((flow, _)) = plan.quoted(key).filter(|_| source == ip.destination) else {
            return Judged::of(if payload.fragmented { Class::Doubtful } else { Class::Foreign });
        };
        let class = if payload.fragmented { Class::Doubtful } else { Class::Related };
        Judged { class, flow: self.flows.now(&flow), question: None }
    }
}

/// The VIP a packet is for.
fn service(plan: &Plan, ip: &Ip<'_>, key: &FlowKey) -> Option<VipId> {
    match ip.transport {
        Transport::Fragment if ip.protocol == UDP => plan.fragment_vip(ip.destination),
        _ => plan.vip(key),
    }
}

fn too_big(ip: &Ip<'_>, too_long: bool) -> Option<Exchange> {
    ip.bytes.first_chunk().copied().filter(|_| too_long).map(Exchange::TooBig)
}
