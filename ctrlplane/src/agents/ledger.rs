//! What one backend's agent has reported and not taken back: which tokens, in which pools, and their subflows.
//!
//! It is what makes an agent bounded (so many tokens, so many subflows of each and of all), and what ends a connection's
//! subflows with it: the kernel says of most that their connection is gone, not that they are. After a dump it tells what
//! is no more. It outlives a connection of the agent.

use agent::wire::{Event, Kind, Mark};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use ipc::message::Name;
use ipc::report::{Report, Subflow};

use super::subflows::Subflows;
use super::targets::Targets;

/// Subflows of one connection that are told on at a time. Linux has eight at most.
const MAX_SUBFLOWS: usize = 16;

/// Subflows of all connections together that are told on at a time, for each token that may be: most have one or two.
const SUBFLOWS_PER_TOKEN: usize = 2;

/// What is known of a token.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Its pool's place in `pools`.
    pool: u16,
    /// Whether the dump under way, or the last one, said it.
    is_said: bool,
}

/// The reports of one backend.
#[derive(Debug)]
pub(super) struct Ledger {
    tokens: HashMap<u32, Held>,
    /// How many of these are said.
    said: usize,
    /// What was told of their subflows. Each is of a token that is held.
    subflows: Subflows,
    limit: usize,
    /// Pools by their place; few, and never taken out.
    pools: Vec<Name>,
    refused: u64,
}

impl Ledger {
    /// One that holds so many tokens at most.
    pub fn new(limit: usize) -> Self {
        let (tokens, subflows, pools) = (HashMap::new(), Subflows::default(), Vec::new());
        Self { tokens, said: 0, subflows, limit, pools, refused: 0 }
    }

    /// How many tokens there are.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// How many reports were too many.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// A dump begins or ends: what it did not say is no more.
    pub fn mark(&mut self, mark: Mark, mut tell: impl FnMut(Name, Report)) {
        match mark {
            Mark::Begin => {
                self.tokens.values_mut().for_each(|held| held.is_said = false);
                self.said = 0;
                self.subflows.begin();
            }
            Mark::End => {
                let (tokens, pools) = (&mut self.tokens, &self.pools);
                let pool = |held: &Held| pools.get(usize::from(held.pool)).copied();
                self.subflows.end(|token, subflow| {
                    if let Some(pool) = tokens.get(&token).and_then(pool) {
                        tell(pool, Report::SubflowEnded { subflow });
                    }
                });
                tokens.retain(|token, held| {
                    if let Some(pool) = pool(held).filter(|_| !held.is_said) {
                        tell(pool, Report::TokenEnded { token: *token });
                    }
                    held.is_said
                });
            }
        }
    }

    /// What the data plane is told of an event on `backend`. Events about no VIP that agents steer are nobody's.
    pub fn event(
        &mut self,
        event: &Event,
        backend: Name,
        targets: &Targets,
        mut tell: impl FnMut(Name, Report),
    ) {
        let token = event.token.0;
        if event.kind == Kind::Closed {
            return self.end(token, &mut tell);
        }
        let (Some(local), Some(remote)) = (event.local, event.remote) else { return };
        let Some(pool) = targets.pool(local, backend) else { return };
        let Some(subflow) = Subflow::new(remote, local) else { return };
        match event.kind {
            Kind::Created => {
                if self.hold(token, pool, &mut tell) {
                    tell(pool, Report::TokenLives { token });
                }
            }
            Kind::Established | Kind::SubEstablished => {
                let joined = event.kind == Kind::SubEstablished;
                if !self.hold(token, pool, &mut tell) {
                    return;
                }
                tell(pool, Report::TokenLives { token });
                if self.hold_subflow(token, &subflow) {
                    tell(pool, Report::SubflowLives { token, subflow, joined });
                }
            }
            Kind::SubClosed => {
                if self.subflows.remove(token, &subflow) {
                    tell(pool, Report::SubflowEnded { subflow });
                }
            }
            Kind::Closed => {}
        }
    }

    /// A connection is no more, nor are its subflows.
    fn end(&mut self, token: u32, tell: &mut impl FnMut(Name, Report)) {
        let Some(held) = self.tokens.remove(&token) else { return };
        self.said -= usize::from(held.is_said);
        let subflows = self.subflows.take(token);
        let Some(pool) = self.pools.get(usize::from(held.pool)) else { return };
        subflows.into_iter().for_each(|subflow| tell(*pool, Report::SubflowEnded { subflow }));
        tell(*pool, Report::TokenEnded { token });
    }

    /// A token is there now; whether there is room for it. One that was in another pool is no more there.
    fn hold(&mut self, token: u32, pool: Name, tell: &mut impl FnMut(Name, Report)) -> bool {
        let known = self.pools.iter().position(|known| *known == pool);
        let place = known.unwrap_or_else(|| {
            self.pools.push(pool);
            self.pools.len() - 1
        });
        let Ok(pool) = u16::try_from(place) else { return false };
        if self.tokens.get(&token).is_some_and(|held| held.pool != pool) {
            self.end(token, tell);
        }
        // What a dump has not said yet takes no room from what it says, up to as many again.
        let is_full = self.said >= self.limit || self.tokens.len() >= self.limit.saturating_mul(2);
        match self.tokens.entry(token) {
            Entry::Occupied(held) => {
                let was_said = std::mem::replace(&mut held.into_mut().is_said, true);
                self.said += usize::from(!was_said);
            }
            Entry::Vacant(_) if is_full => {
                self.refused += 1;
                return false;
            }
            Entry::Vacant(free) => {
                free.insert(Held { pool, is_said: true });
                self.said += 1;
            }
        }
        true
    }

    /// A subflow of a token that is held is there now; whether there is room for it.
    fn hold_subflow(&mut self, token: u32, subflow: &Subflow) -> bool {
        if self.subflows.say(token, subflow) {
            return true;
        }
        let limit = self.limit.saturating_mul(SUBFLOWS_PER_TOKEN);
        if self.subflows.len() >= limit || self.subflows.of(token) >= MAX_SUBFLOWS {
            self.refused += 1;
            return false;
        }
        self.subflows.enter(token, subflow);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent::wire::Token;
    use config::Config;
    use std::collections::HashSet;
    use std::net::SocketAddr;

    const VIP: &str = "10.9.9.9:8000";
    const CLIENT: &str = "10.0.2.1:40000";

    fn targets() -> Targets {
        let text = r#"
            [[dataplane.port]]
            device = "net_null0"
            mac = "02:00:00:00:00:01"
            address = ["10.0.1.254/24"]
            [[pool]]
            name = "servers"
            backend = [{ name = "b1", address = "10.0.1.11" }, { name = "b2", address = "10.0.1.12" }]
            [[vip]]
            name = "web"
            address = "10.9.9.9"
            port = 8000
            pool = "servers"
            mptcp.steering = ["agent"]
            [[vip]]
            name = "mail"
            address = "10.9.9.9"
            port = 25
            pool = "servers"
            [agents]
            listen = "127.0.0.1:7443"
        "#;
        Targets::of(&Config::parse(text, "test").unwrap())
    }

    fn event(kind: Kind, token: u32, local: &str) -> Event {
        let (local, remote) = (Some(local.parse().unwrap()), Some(CLIENT.parse().unwrap()));
        Event { kind, token: Token(token), local, remote }
    }

    fn closed(token: u32) -> Event {
        Event { kind: Kind::Closed, token: Token(token), local: None, remote: None }
    }

    /// What is told of events on b1.
    fn told(ledger: &mut Ledger, events: &[Event]) -> Vec<Report> {
        let mut all = Vec::new();
        for event in events {
            ledger.event(event, "b1".parse().unwrap(), &targets(), |pool, report| {
                assert_eq!(pool.as_str(), "servers");
                all.push(report);
            });
        }
        all
    }

    fn lives(token: u32) -> Report {
        Report::TokenLives { token }
    }

    fn subflow() -> Subflow {
        Subflow::new(CLIENT.parse().unwrap(), VIP.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_connection_is_told_from_its_beginning_to_its_end() {
        let mut ledger = Ledger::new(10);
        let events = [
            event(Kind::Created, 7, VIP),
            event(Kind::Established, 7, VIP),
            event(Kind::SubEstablished, 7, VIP),
            event(Kind::SubClosed, 7, VIP),
            closed(7),
        ];
        let subflow = subflow();
        let expected = [
            lives(7),
            lives(7),
            Report::SubflowLives { token: 7, subflow, joined: false },
            lives(7),
            Report::SubflowLives { token: 7, subflow, joined: true },
            Report::SubflowEnded { subflow },
            Report::TokenEnded { token: 7 },
        ];
        assert_eq!(told(&mut ledger, &events), expected);
        assert_eq!(ledger.tokens(), 0);
    }

    #[test]
    fn what_is_no_vips_that_agents_steer_is_nobodys() {
        let mut ledger = Ledger::new(10);
        for service in ["10.9.9.9:25", "10.9.9.9:8001", "10.0.1.11:8000", "[fd99::9]:8000"] {
            assert_eq!(told(&mut ledger, &[event(Kind::Established, 7, service)]), []);
        }
        assert_eq!(told(&mut ledger, &[closed(7)]), [], "nor can it be ended");
        assert_eq!(targets().pool(VIP.parse().unwrap(), "b9".parse().unwrap()), None, "of another pool");
    }

    #[test]
    fn what_a_dump_does_not_say_is_no_more() {
        let mut ledger = Ledger::new(10);
        told(&mut ledger, &[1, 2, 3].map(|token| event(Kind::Created, token, VIP)));
        ledger.mark(Mark::Begin, |_, report| panic!("{report:?}"));
        told(&mut ledger, &[event(Kind::Created, 2, VIP), event(Kind::Created, 4, VIP)]);
        let mut ended = Vec::new();
        ledger.mark(Mark::End, |_, report| ended.push(report));
        ended.sort_by_key(|report| format!("{report:?}"));
        assert_eq!(ended, [Report::TokenEnded { token: 1 }, Report::TokenEnded { token: 3 }]);
        assert_eq!(ledger.tokens(), 2);
    }

    fn subflow_of(port: u16) -> Subflow {
        Subflow::new(SocketAddr::new("10.0.2.1".parse().unwrap(), port), VIP.parse().unwrap()).unwrap()
    }

    fn event_of(kind: Kind, token: u32, port: u16) -> Event {
        Event { remote: Some(subflow_of(port).client()), ..event(kind, token, VIP) }
    }

    /// How many flows the data plane holds after these reports, if it believes them all.
    fn flows(reports: &[Report]) -> usize {
        let mut flows = HashSet::new();
        for report in reports {
            match report {
                Report::SubflowLives { subflow, .. } => drop(flows.insert(*subflow)),
                Report::SubflowEnded { subflow } => drop(flows.remove(subflow)),
                _ => {}
            }
        }
        flows.len()
    }

    #[test]
    fn a_connection_ends_with_its_subflows_though_the_kernel_does_not_say_so() {
        let mut ledger = Ledger::new(10);
        let mut reports =
            told(&mut ledger, &[event_of(Kind::Established, 7, 1), event_of(Kind::SubEstablished, 7, 2)]);
        assert_eq!(flows(&reports), 2);
        reports.extend(told(&mut ledger, &[closed(7)]));
        assert_eq!((flows(&reports), reports.last()), (0, Some(&Report::TokenEnded { token: 7 })));
    }

    #[test]
    fn subflows_that_a_dump_does_not_say_are_no_more() {
        let mut ledger = Ledger::new(10);
        let ports = [1, 2, 3].map(|port| event_of(Kind::SubEstablished, 7, port));
        let mut reports = told(&mut ledger, &ports);
        ledger.mark(Mark::Begin, |_, report| panic!("{report:?}"));
        reports.extend(told(&mut ledger, &ports[..1]));
        ledger.mark(Mark::End, |_, report| reports.push(report));
        assert_eq!((flows(&reports), ledger.tokens()), (1, 1));
    }

    #[test]
    fn a_lying_agent_holds_so_many_tokens_and_no_more() {
        let mut ledger = Ledger::new(10);
        let flood: Vec<Event> = (0..1000).map(|token| event(Kind::Created, token, VIP)).collect();
        assert_eq!(told(&mut ledger, &flood).len(), 10);
        assert_eq!((ledger.tokens(), ledger.refused()), (10, 990));
        told(&mut ledger, &[closed(3)]);
        assert_eq!(told(&mut ledger, &[event(Kind::Created, 5000, VIP)]), [lives(5000)], "room again");
    }

    /// Each way in which an agent could make its count of subflows small and leave their entries.
    #[test]
    fn a_lying_agent_holds_so_many_flows_and_no_more() {
        let fresh = |ports: std::ops::Range<u16>, token: fn(u16) -> u32| -> Vec<Event> {
            ports.map(|port| event_of(Kind::SubEstablished, token(port), port)).collect()
        };
        let nonsense = event_of(Kind::SubClosed, 7, 9);
        let mut ledger = Ledger::new(100);
        let ended: Vec<Event> =
            fresh(10..5000, |_| 7).into_iter().flat_map(|event| [event, nonsense]).collect();
        assert_eq!(flows(&told(&mut ledger, &ended)), MAX_SUBFLOWS, "ends of what never was");

        let (mut ledger, mut reports) = (Ledger::new(100), Vec::new());
        for dump in 0..100 {
            ledger.mark(Mark::Begin, |_, report| reports.push(report));
            reports.extend(told(&mut ledger, &fresh(dump * 16..dump * 16 + 16, |_| 7)));
            ledger.mark(Mark::End, |_, report| reports.push(report));
        }
        assert!(flows(&reports) <= 16, "dumps: {}", flows(&reports));

        let mut ledger = Ledger::new(100);
        let connections = fresh(0..5000, |port| u32::from(port / 16));
        let reports = told(&mut ledger, &connections);
        assert_eq!(flows(&reports), 100 * SUBFLOWS_PER_TOKEN, "all together");
        let mut ledger = Ledger::new(100);
        let closed: Vec<Event> =
            connections.into_iter().flat_map(|event| [event, closed(event.token.0)]).collect();
        assert_eq!(flows(&told(&mut ledger, &closed)), 0, "connections that come and go");
    }

    #[test]
    fn what_a_dump_has_not_said_yet_takes_no_room_from_what_it_says() {
        let mut ledger = Ledger::new(10);
        let created = |range: std::ops::Range<u32>| -> Vec<Event> {
            range.map(|token| event(Kind::Created, token, VIP)).collect()
        };
        told(&mut ledger, &created(0..10));
        ledger.mark(Mark::Begin, |_, _| {});
        assert_eq!(told(&mut ledger, &created(10..25)).len(), 10);
        ledger.mark(Mark::End, |_, _| {});
        assert_eq!((ledger.tokens(), ledger.refused()), (10, 5));
    }
}
