//! What one backend's agent has reported and not taken back: which tokens, in which pools.
//!
//! It is what makes an agent bounded (so many tokens, so many subflows of each), and what tells, after a dump, which
//! connections are no more. It outlives a connection of the agent, and holds no more than four bytes of a connection's own.

use agent::wire::{Event, Kind, Mark};
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use ipc::message::Name;
use ipc::report::{Report, Subflow};

use super::targets::Targets;

/// Subflows of one connection that are told on at a time. Linux has eight at most.
const MAX_SUBFLOWS: u8 = 16;

/// What is known of a token.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Its pool's place in `pools`.
    pool: u16,
    /// Subflows that were told on and have not ended.
    subflows: u8,
    /// Whether the dump under way, or the last one, said it.
    is_said: bool,
}

/// The reports of one backend.
#[derive(Debug)]
pub(super) struct Ledger {
    tokens: HashMap<u32, Held>,
    limit: usize,
    /// Pools by their place; few, and never taken out.
    pools: Vec<Name>,
    refused: u64,
}

impl Ledger {
    /// One that holds so many tokens at most.
    pub fn new(limit: usize) -> Self {
        Self { tokens: HashMap::new(), limit, pools: Vec::new(), refused: 0 }
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
            Mark::Begin => self.tokens.values_mut().for_each(|held| held.is_said = false),
            Mark::End => {
                let pools = &self.pools;
                self.tokens.retain(|token, held| {
                    if !held.is_said
                        && let Some(pool) = pools.get(usize::from(held.pool))
                    {
                        tell(*pool, Report::TokenEnded { token: *token });
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
            if let Some(held) = self.tokens.remove(&token)
                && let Some(pool) = self.pools.get(usize::from(held.pool))
            {
                tell(*pool, Report::TokenEnded { token });
            }
            return;
        }
        let (Some(local), Some(remote)) = (event.local, event.remote) else { return };
        let Some(pool) = targets.pool(local, backend) else { return };
        let Some(subflow) = Subflow::new(remote, local) else { return };
        match event.kind {
            Kind::Created => {
                if self.hold(token, pool).is_some() {
                    tell(pool, Report::TokenLives { token });
                }
            }
            Kind::Established | Kind::SubEstablished => {
                let joined = event.kind == Kind::SubEstablished;
                let Some(held) = self.hold(token, pool) else { return };
                let has_room = held.subflows < MAX_SUBFLOWS;
                if has_room {
                    held.subflows += 1;
                } else {
                    self.refused += 1;
                }
                tell(pool, Report::TokenLives { token });
                if has_room {
                    tell(pool, Report::SubflowLives { token, subflow, joined });
                }
            }
            Kind::SubClosed => {
                if let Some(held) = self.tokens.get_mut(&token) {
                    held.subflows = held.subflows.saturating_sub(1);
                    tell(pool, Report::SubflowEnded { subflow });
                }
            }
            Kind::Closed => {}
        }
    }

    /// A token that is there now; `None` where there are too many.
    fn hold(&mut self, token: u32, pool: Name) -> Option<&mut Held> {
        let is_full = self.tokens.len() >= self.limit;
        match self.tokens.entry(token) {
            Entry::Occupied(held) => {
                let held = held.into_mut();
                // The first word of a dump about it: its subflows are counted anew.
                if !std::mem::replace(&mut held.is_said, true) {
                    held.subflows = 0;
                }
                Some(held)
            }
            Entry::Vacant(_) if is_full => {
                self.refused += 1;
                None
            }
            Entry::Vacant(free) => {
                let known = self.pools.iter().position(|known| *known == pool);
                let place = known.unwrap_or_else(|| {
                    self.pools.push(pool);
                    self.pools.len() - 1
                });
                let pool = u16::try_from(place).ok()?;
                Some(free.insert(Held { pool, subflows: 0, is_said: true }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent::wire::Token;
    use config::Config;

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

    #[test]
    fn a_lying_agent_holds_so_many_tokens_and_subflows_and_no_more() {
        let mut ledger = Ledger::new(10);
        let flood: Vec<Event> = (0..1000).map(|token| event(Kind::Established, token, VIP)).collect();
        assert_eq!(told(&mut ledger, &flood).len(), 20);
        assert_eq!((ledger.tokens(), ledger.refused()), (10, 990));
        let subflows = vec![event(Kind::SubEstablished, 3, VIP); 1000];
        let installed = told(&mut ledger, &subflows);
        let installed = installed.iter().filter(|report| matches!(report, Report::SubflowLives { .. }));
        assert_eq!(installed.count(), usize::from(MAX_SUBFLOWS) - 1);
        told(&mut ledger, &[closed(3)]);
        assert_eq!(told(&mut ledger, &[event(Kind::Created, 5000, VIP)]), [lives(5000)], "room again");
    }

    #[test]
    fn a_second_dump_counts_subflows_anew() {
        let mut ledger = Ledger::new(10);
        let subflows = vec![event(Kind::SubEstablished, 3, VIP); 12];
        for _ in 0..3 {
            ledger.mark(Mark::Begin, |_, _| {});
            told(&mut ledger, &subflows);
            ledger.mark(Mark::End, |_, report| panic!("{report:?}"));
        }
        assert_eq!(ledger.refused(), 0);
    }
}
