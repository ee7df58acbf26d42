//! What agents on backends report, on its way into the tables: counted, and leases kept.
//!
//! Invariant: a proven token expires by its agent's word as long as the agent is there, and like any other from the moment
//! its lease ran out; so a token whose agent died keeps working, and goes when its last subflow is gone.
//!
//! Ends may be lost: the control plane was restarted, or this process was, or the link broke. So an agent that comes back
//! tells all there is, and what it does not tell goes. Every proven token bears the mark of the round in which it was
//! told; a dump begins a round with the other mark, and once the dump has ended, the next pass removes what bears the old
//! one. A round begins only after such a pass: a dump that breaks off, or comes before the pass, goes on with the round
//! there is, and the control plane, which knows what the first part told, withdraws the difference.

use std::collections::HashMap;

use engine::Token;
use engine::reported::{Installed, Reports};
use engine::tables::Tables;
use engine::tick::Tick;
use engine::token_entry::TokenEntry;
use engine::token_table::{Proof, Vouched};
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

/// How far the present round of a backend's dumps is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nothing bears the other mark.
    #[default]
    Clean,
    /// The agent is telling.
    Begun,
    /// It has told all; a pass is to come.
    Told,
    /// The pass under way removes what bears the other mark.
    Passing,
}

/// A round of dumps.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    mark: bool,
    stage: Stage,
}

/// Leases, and the pass that renews what they cover.
#[derive(Debug, Default)]
pub struct Agents {
    leases: HashMap<BackendId, Lease>,
    rounds: HashMap<BackendId, Round>,
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
            Report::TokenLives { token } => {
                match self.of_round(backend, reports).token_lives(backend, Token(*token)) {
                    Some(Proof::New | Proof::Raised) => count(LinkCounter::AgentProven),
                    Some(Proof::Over) => {
                        count(LinkCounter::AgentProven);
                        count(LinkCounter::AgentTokenEvicted);
                    }
                    Some(Proof::Refused | Proof::Full) => count(LinkCounter::AgentRefused),
                    Some(Proof::Known) | None => {}
                }
            }
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
            Report::DumpBegins => {
                let round = self.rounds.entry(backend).or_default();
                round.mark ^= round.stage == Stage::Clean;
                round.stage = Stage::Begun;
            }
            Report::DumpEnds => {
                if let Some(round) = self.rounds.get_mut(&backend).filter(|round| round.stage == Stage::Begun)
                {
                    round.stage = Stage::Told;
                    self.next_pass = 0;
                }
            }
        }
    }

    /// The tables as the reports of a backend reach them now.
    fn of_round<'a>(&self, backend: BackendId, reports: &Reports<'a>) -> Reports<'a> {
        Reports { round: self.rounds.get(&backend).is_some_and(|round| round.mark), ..*reports }
    }

    /// Renews some of the tokens whose agents are there, and removes some that they did not tell, if it is time. Says how
    /// many went.
    pub fn renew(&mut self, tables: &Tables, now_s: u64, now: Tick) -> u64 {
        if self.line == 0 {
            if now_s < self.next_pass {
                return 0;
            }
            self.leases.retain(|_, lease| lease.until > now_s);
            self.step(Stage::Told, Stage::Passing);
        }
        let is_passing = self.rounds.values().any(|round| round.stage == Stage::Passing);
        let mut withdrawn = 0;
        if !self.leases.is_empty() || is_passing {
            let judge = |entry: &TokenEntry| self.judge(entry, tables);
            withdrawn = tables.tokens.renew(self.line, LINES_PER_TURN, now, judge);
            self.line += LINES_PER_TURN;
        } else {
            self.line = tables.tokens.lines();
        }
        if self.line >= tables.tokens.lines() {
            self.step(Stage::Passing, Stage::Clean);
            let is_told = self.rounds.values().any(|round| round.stage == Stage::Told);
            (self.line, self.next_pass) = (0, if is_told { 0 } else { now_s + PASS_SECONDS });
        }
        withdrawn
    }

    /// Takes every round from one stage to the next.
    fn step(&mut self, from: Stage, to: Stage) {
        let rounds = self.rounds.values_mut().filter(|round| round.stage == from);
        rounds.for_each(|round| round.stage = to);
    }

    /// What becomes of a proven claim.
    fn judge(&self, entry: &TokenEntry, tables: &Tables) -> Vouched {
        let round = self.rounds.get(&entry.backend).copied().unwrap_or_default();
        if round.stage == Stage::Passing && entry.closing != round.mark {
            return Vouched::Withdrawn;
        }
        let lease = self.leases.get(&entry.backend);
        lease.map_or(Vouched::Left, |lease| Vouched::Renewed(tables.token_hash(entry.token, lease.pool)))
    }

    /// A backend has this id from now on: another's lease is not its own.
    pub fn begin_backend(&mut self, id: BackendId) {
        self.leases.remove(&id);
        self.rounds.remove(&id);
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
            let reports =
                Reports { tables: &self.tables, snapshot: &self.snapshot, now, millis, round: false };
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

    /// Whether each of these tokens is there after a few seconds.
    fn there(scene: &mut Scene, tokens: &[u32]) -> Vec<bool> {
        scene.lives_after(4);
        let is_there = |token: &u32| {
            let hash = scene.tables.token_hash(Token(*token), PoolId(0));
            scene.tables.tokens.find(hash, Token(*token), |_| true) != TokenLookup::Unknown
        };
        tokens.iter().map(is_there).collect()
    }

    fn dump(scene: &mut Scene, tokens: &[u32], is_whole: bool) {
        scene.say(BACKEND, Report::Lease { seconds: u16::MAX });
        scene.say(BACKEND, Report::DumpBegins);
        for token in tokens {
            scene.say(BACKEND, Report::TokenLives { token: *token });
        }
        if is_whole {
            scene.say(BACKEND, Report::DumpEnds);
        }
    }

    #[test]
    fn what_a_dump_does_not_tell_goes_whoever_forgot_to_say_that_it_ended() {
        let mut scene = scene();
        dump(&mut scene, &[1, 2, 3], true);
        assert_eq!(there(&mut scene, &[1, 2, 3]), [true; 3]);
        for _ in 0..3 {
            dump(&mut scene, &[1, 3], true);
            assert_eq!(there(&mut scene, &[1, 2, 3]), [true, false, true]);
        }
        dump(&mut scene, &[1, 2], false);
        assert_eq!(there(&mut scene, &[1, 2, 3]), [true; 3], "a dump that breaks off ends nothing");
        dump(&mut scene, &[1, 2], true);
        assert_eq!(there(&mut scene, &[1, 2, 3]), [true, true, false]);
    }

    #[test]
    fn a_token_bears_its_round_through_traffic_and_a_silent_agents_expires_as_any_other() {
        let mut scene = scene();
        dump(&mut scene, &[1], true);
        scene.say(BACKEND, Report::Lease { seconds: 0 });
        // Its subflow goes on: the sweep touches it.
        let hash = scene.tables.token_hash(Token(1), PoolId(0));
        for _ in 0..40 {
            scene.tables.tokens.touch(hash, Token(1), BACKEND, scene.tick(), false);
            assert_eq!(there(&mut scene, &[1]), [true]);
        }
        scene.lives_after(16 * (u64::from(TOKEN_IDLE) + 2));
        assert_eq!(there(&mut scene, &[1]), [false]);
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
