//! What agents on backends report, on its way into the tables: counted, and leases kept.
//!
//! Invariant: a proven token expires by its agent's word as long as the agent is there, and like any other from the moment
//! its lease ran out; so a token whose agent died keeps working, and goes when its last subflow is gone.

use std::collections::HashMap;

use engine::Token;
use engine::reported::{Installed, Reports};
use engine::tables::Tables;
use engine::tick::Tick;
use engine::token_entry::TokenEntry;
use engine::token_table::Proof;
use ipc::counters::LinkCounter;
use ipc::id::{BackendId, PoolId};
use ipc::report::Report;

/// Lines of the token table renewed in one turn: a turn takes well below a millisecond.
const LINES_PER_TURN: usize = 4096;

/// Seconds between two passes that renew: a tick, of which a token lives six.
const PASS_SECONDS: u64 = 16;

/// An agent vouches for its backend's tokens.
#[derive(Clone, Copy, Debug)]
struct Lease {
    /// Until when, in seconds of the data plane's clock.
    until: u64,
    /// The backend's pool, which is the tokens'.
    pool: PoolId,
}

/// Leases, and the pass that renews what they cover.
#[derive(Debug, Default)]
pub struct Agents {
    leases: HashMap<BackendId, Lease>,
    /// The next line to renew.
    line: usize,
    /// When the next pass begins.
    next_pass: u64,
}

impl Agents {
    /// Goes by a report, and counts what it came to, if to anything.
    pub fn apply(
        &mut self,
        backend: BackendId,
        report: &Report,
        reports: &Reports<'_>,
        now_s: u64,
        mut count: impl FnMut(LinkCounter),
    ) {
        let Some(known) = reports.snapshot.backend(backend) else {
            return count(LinkCounter::AgentUnknown);
        };
        match report {
            Report::Lease { seconds: 0 } => {
                self.leases.remove(&backend);
            }
            Report::Lease { seconds } => {
                let until = now_s + u64::from(*seconds);
                self.leases.insert(backend, Lease { until, pool: known.pool });
            }
            Report::TokenLives { token } => match reports.token_lives(backend, Token(*token)) {
                Some(Proof::New | Proof::Raised) => count(LinkCounter::AgentProven),
                Some(Proof::Over) => {
                    count(LinkCounter::AgentProven);
                    count(LinkCounter::AgentTokenEvicted);
                }
                Some(Proof::Refused | Proof::Full) => count(LinkCounter::AgentRefused),
                Some(Proof::Known) | None => {}
            },
            Report::TokenEnded { token } => {
                if reports.token_ended(backend, Token(*token)) {
                    count(LinkCounter::AgentClosed);
                }
            }
            Report::SubflowLives { token, subflow, joined } => {
                match reports.subflow_lives(backend, Token(*token), subflow, *joined) {
                    Installed::New => count(LinkCounter::AgentInstalled),
                    Installed::Over => {
                        count(LinkCounter::AgentInstalled);
                        count(LinkCounter::AgentFlowEvicted);
                    }
                    Installed::Known => {}
                    Installed::Refused | Installed::Full => count(LinkCounter::AgentFlowRefused),
                }
            }
            Report::SubflowEnded { subflow } => {
                if reports.subflow_ended(backend, subflow) {
                    count(LinkCounter::AgentEnded);
                }
            }
        }
    }

    /// Renews some of the tokens whose agents are there, if it is time.
    pub fn renew(&mut self, tables: &Tables, now_s: u64, now: Tick) {
        if now_s < self.next_pass {
            return;
        }
        if self.line == 0 {
            self.leases.retain(|_, lease| lease.until > now_s);
        }
        if !self.leases.is_empty() {
            let hash_of = |entry: &TokenEntry| {
                let lease = self.leases.get(&entry.backend)?;
                Some(tables.token_hash(entry.token, lease.pool))
            };
            tables.tokens.renew(self.line, LINES_PER_TURN, now, hash_of);
            self.line += LINES_PER_TURN;
        }
        if self.leases.is_empty() || self.line >= tables.tokens.lines() {
            (self.line, self.next_pass) = (0, now_s + PASS_SECONDS);
        }
    }

    /// A backend has this id from now on: another's lease is not its own.
    pub fn begin_backend(&mut self, id: BackendId) {
        self.leases.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use engine::model::Model;
    use engine::snapshot::{Port, Site, Snapshot};
    use engine::token_table::{TOKEN_IDLE, TokenLookup};
    use ipc::message::{BackendState, Command, Handles, Name};

    use super::*;

    const BACKEND: BackendId = BackendId(1);
    const TOKEN: u32 = 0x913e_6c21;

    struct Scene {
        snapshot: Snapshot,
        tables: Tables,
        agents: Agents,
        now: u64,
    }

    fn scene() -> Scene {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let commands = [
            Command::PutPool { name: name("p") },
            Command::PutBackend {
                pool: name("p"),
                name: name("b1"),
                address4: Some([10, 0, 1, 11].into()),
                address6: None,
                mac: None,
                weight: 1,
                state: BackendState::Active,
                handles: Handles::default(),
            },
        ];
        let model = Model::default().apply(&commands).unwrap();
        let site = Site { ports: vec![Port::default()], tunnel_sources: [None, None], maglev_seed: 1 };
        // More lines than a turn renews.
        let tables = Tables::on_heap(16, 40_000, &[7; 32]);
        assert!(tables.tokens.lines() > LINES_PER_TURN);
        Scene { snapshot: Snapshot::of_model(&model, &site, 1), tables, agents: Agents::default(), now: 1000 }
    }

    impl Scene {
        fn tick(&self) -> Tick {
            Tick::from_seconds(self.now)
        }

        fn say(&mut self, backend: BackendId, report: Report) -> Option<LinkCounter> {
            let (now, millis) = (self.tick(), self.now * 1000);
            let reports = Reports { tables: &self.tables, snapshot: &self.snapshot, now, millis };
            let mut counted = None;
            self.agents.apply(backend, &report, &reports, self.now, |counter| counted = Some(counter));
            counted
        }

        /// Whether the token is still there after so many seconds, in each of which the manager takes a few turns and
        /// workers expire what is silent.
        fn lives_after(&mut self, seconds: u64) -> bool {
            for _ in 0..seconds {
                self.now += 1;
                for _ in 0..3 {
                    self.agents.renew(&self.tables, self.now, self.tick());
                }
                self.tables.tokens.sweep(0, self.tables.tokens.lines(), self.tick(), TOKEN_IDLE);
            }
            let hash = self.tables.token_hash(Token(TOKEN), PoolId(0));
            self.tables.tokens.find(hash, Token(TOKEN), |_| true) != TokenLookup::Unknown
        }
    }

    #[test]
    fn a_token_lives_while_its_agent_is_there_and_ends_by_its_word() {
        let mut scene = scene();
        assert_eq!(scene.say(BACKEND, Report::TokenLives { token: TOKEN }), Some(LinkCounter::AgentProven));
        assert_eq!(scene.say(BACKEND, Report::TokenLives { token: TOKEN }), None);
        for _ in 0..30 {
            scene.say(BACKEND, Report::Lease { seconds: 60 });
            assert!(scene.lives_after(20));
        }
        assert_eq!(scene.say(BACKEND, Report::TokenEnded { token: TOKEN }), Some(LinkCounter::AgentClosed));
        assert!(!scene.lives_after(1));
    }

    #[test]
    fn a_token_whose_agent_is_gone_expires_as_any_other_without_a_subflow() {
        for last_word in [None, Some(Report::Lease { seconds: 0 })] {
            let mut scene = scene();
            scene.say(BACKEND, Report::TokenLives { token: TOKEN });
            scene.say(BACKEND, Report::Lease { seconds: 60 });
            if let Some(report) = last_word {
                scene.say(BACKEND, report);
            }
            assert!(scene.lives_after(60));
            assert!(!scene.lives_after(60 + 16 * (u64::from(TOKEN_IDLE) + 2)));
        }
    }

    #[test]
    fn a_lease_is_not_inherited_with_an_id() {
        let mut scene = scene();
        scene.say(BACKEND, Report::TokenLives { token: TOKEN });
        scene.say(BACKEND, Report::Lease { seconds: u16::MAX });
        scene.agents.begin_backend(BACKEND);
        assert!(!scene.lives_after(16 * (u64::from(TOKEN_IDLE) + 2)));
    }

    #[test]
    fn a_backend_that_is_not_known_is_counted_and_nothing_else() {
        let mut scene = scene();
        for report in [Report::TokenLives { token: TOKEN }, Report::Lease { seconds: 60 }] {
            assert_eq!(scene.say(BackendId(9), report), Some(LinkCounter::AgentUnknown));
        }
        assert!(scene.agents.leases.is_empty() && !scene.lives_after(0));
    }
}
