//! `weftctl doctor`: what is wrong, or will be, and what to do about it.
//!
//! The status says what is broken; this also says what cannot work: joins that come through an appliance that did not see
//! their connection's handshake, agents that are expected and not there. Each finding is a sentence from facts that
//! Weft has counted; what it cannot know (whether there is a second appliance) is asked, not asserted.

use config::{Config, Vip};
use ipc::counter::Counter;
use ipc::message::Protocol;
use ipc::reason::Reason;

use crate::sample::Sample;
use crate::session::LinkView;
use crate::view::{AgentSummary, Finding, Status};

/// Everything that was looked at.
pub(crate) fn findings(
    config: &Config,
    status: &Status,
    agents: &AgentSummary,
    view: Option<&LinkView>,
) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        status.problems.iter().map(|problem| problem_of("status", problem.clone())).collect();
    if findings.is_empty() {
        findings.push(fine("status", "both processes run and the configuration is in force".to_owned()));
    }
    findings.extend(of_agents(agents));
    findings.push(of_steering(config));
    if let Some((view, before)) = view.and_then(|view| Some((view, view.before.as_ref()?))) {
        let now = Sample::new(&view.counters, view.gauges.as_ref());
        findings.push(of_joins(&Joins::between(before, &now), has_all(agents)));
    }
    findings
}

/// What became of SYNs with MP_JOIN in the last minute: one that was forged long ago is no problem for ever.
struct Joins {
    seconds: u64,
    seen: u64,
    /// Those that went where their token, or the backend's own address or port, says.
    steered: u64,
    /// Those whose token says nothing, or two things, whatever the VIP's policy made of them.
    unknown: u64,
}

impl Joins {
    fn between(before: &Sample, now: &Sample) -> Self {
        let reasons = |of: &[Reason]| of.iter().map(|reason| now.reason_grown(before, *reason)).sum::<u64>();
        let lost = [Reason::UnknownToken, Reason::TokenReset, Reason::AmbiguousToken];
        Self {
            seconds: before.age().as_secs().max(1),
            seen: now.grown(before, Counter::JoinSyn),
            // What goes to an endpoint is counted by packet; its joins have a counter.
            steered: reasons(&[Reason::Token, Reason::TokenMap]) + now.grown(before, Counter::EndpointJoin),
            unknown: reasons(&lost) + now.grown(before, Counter::JoinHashed),
        }
    }
}

fn problem_of(about: &str, finding: String) -> Finding {
    Finding { is_problem: true, about: about.to_owned(), finding }
}

fn fine(about: &str, finding: String) -> Finding {
    Finding { is_problem: false, about: about.to_owned(), finding }
}

/// Whether every backend that should have an agent has one.
fn has_all(agents: &AgentSummary) -> bool {
    !agents.agents.is_empty() && agents.agents.iter().all(|row| row.connected)
}

fn of_agents(agents: &AgentSummary) -> Vec<Finding> {
    if agents.agents.is_empty() {
        return Vec::new();
    }
    if agents.listen.is_none() {
        let finding =
            "VIPs are steered by agents, and nobody listens to them: add [agents] and restart weft-ctrlplane";
        return vec![problem_of("agents", finding.to_owned())];
    }
    let missing: Vec<&str> =
        agents.agents.iter().filter(|row| !row.connected).map(|row| row.backend.as_str()).collect();
    let mut findings = Vec::new();
    if missing.is_empty() {
        findings.push(fine("agents", format!("all {} are connected", agents.agents.len())));
    } else {
        findings.push(problem_of(
            "agents",
            format!(
                "no agent on {}: joins to connections there are steered only where this appliance saw the handshake; \
                 look at the log of weft-agent on it",
                missing.join(", ")
            ),
        ));
    }
    for row in agents.agents.iter().filter(|row| row.refused > 0) {
        findings.push(problem_of(
            "agents",
            format!(
                "the agent on {} made {} reports too many: if it has more than `tokens` of [agents], raise that and \
                 restart weft-ctrlplane; if a connection there has more than 16 subflows, find out whose it is",
                row.backend, row.refused
            ),
        ));
    }
    findings
}

fn of_steering(config: &Config) -> Finding {
    let alone: Vec<&str> =
        config.vips.iter().filter(|vip| knows_by_itself_only(vip)).map(|vip| vip.name.as_str()).collect();
    if alone.is_empty() {
        return fine("steering", "no VIP depends on this appliance having seen the handshake".to_owned());
    }
    fine(
        "steering",
        format!(
            "VIP {} learns tokens from the handshakes that pass here: enough where this is the only appliance; beside \
             another one it needs `agent` or `endpoint` in `steering`",
            alone.join(", ")
        ),
    )
}

/// Whether joins find their backend only by what this appliance saw.
fn knows_by_itself_only(vip: &Vip) -> bool {
    vip.protocol == Protocol::Tcp && crate::agents::learns_only(vip)
}

fn of_joins(joins: &Joins, has_all_agents: bool) -> Finding {
    let Joins { seconds, seen, steered, unknown } = joins;
    if *unknown == 0 {
        return fine(
            "joins",
            format!("{steered} of {seen} SYNs with MP_JOIN in the last {seconds} s found their backend"),
        );
    }
    // The report of a connection takes a moment longer than its client, and TCP sends the SYN again.
    if has_all_agents && unknown <= steered {
        let said = format!(
            "{steered} of {seen} SYNs with MP_JOIN in the last {seconds} s found their backend, {unknown} came before \
             their token was reported and are sent again"
        );
        return fine("joins", said);
    }
    let advice = if has_all_agents {
        "every backend has an agent, so these were forged, too early, or of connections that had ended: see \
         `weftctl agents`"
    } else {
        "where another appliance serves the same VIPs, their handshakes passed it: give the VIPs `steering = [\"learn\", \
         \"agent\"]` and run weft-agent on every backend, or steer by `endpoint`"
    };
    problem_of(
        "joins",
        format!(
            "{unknown} of {seen} SYNs with MP_JOIN in the last {seconds} s named a token that is not known here, or claimed \
             twice, and their clients stay on one path: {advice}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::AgentRow;
    use ipc::counters::WorkerCounters;

    fn agent(backend: &str, connected: bool) -> AgentRow {
        AgentRow { backend: backend.to_owned(), connected, ..AgentRow::default() }
    }

    fn summary(agents: Vec<AgentRow>) -> AgentSummary {
        AgentSummary { listen: Some("10.0.1.254:7443".to_owned()), agents, counters: Vec::new() }
    }

    #[test]
    fn an_agent_that_is_expected_and_missing_is_named() {
        let missing = of_agents(&summary(vec![agent("b1", true), agent("b2", false)]));
        assert!(missing[0].is_problem && missing[0].finding.starts_with("no agent on b2:"), "{missing:?}");
        let all = of_agents(&summary(vec![agent("b1", true), agent("b2", true)]));
        assert_eq!((all.len(), all[0].is_problem), (1, false));
        assert!(of_agents(&summary(Vec::new())).is_empty(), "none expected");
        let deaf = AgentSummary { listen: None, ..summary(vec![agent("b1", false)]) };
        assert!(of_agents(&deaf)[0].finding.contains("nobody listens"));
    }

    #[test]
    fn joins_of_unknown_tokens_are_told_with_what_helps() {
        let joins = |unknown| Joins { seconds: 60, seen: 100, steered: 100 - unknown, unknown };
        assert!(!of_joins(&joins(0), false).is_problem);
        let alone = of_joins(&joins(1), false);
        assert!(alone.is_problem && alone.finding.contains("weft-agent on every backend"), "{alone:?}");
        assert!(!of_joins(&joins(50), true).is_problem, "reports take a moment");
        let forged = of_joins(&joins(51), true);
        assert!(forged.is_problem && forged.finding.contains("forged"), "{forged:?}");
    }

    #[test]
    fn joins_of_every_scheme_and_policy_are_counted_while_they_come_and_no_longer() {
        let writer = WorkerCounters::heap();
        let reader = writer.reader();
        let before = Sample::new(&reader, None);
        for reason in [Reason::Token, Reason::TokenMap, Reason::Endpoint] {
            writer.reason(reason, 5);
        }
        writer.add(Counter::EndpointJoin, 2);
        for reason in [Reason::UnknownToken, Reason::TokenReset, Reason::AmbiguousToken] {
            writer.reason(reason, 1);
        }
        writer.add(Counter::JoinHashed, 10);
        writer.add(Counter::JoinSyn, 25);
        let now = Sample::new(&reader, None);
        let joins = Joins::between(&before, &now);
        assert_eq!((joins.seen, joins.steered, joins.unknown), (25, 12, 13));
        let later = Joins::between(&now, &Sample::new(&reader, None));
        assert_eq!((later.seen, later.unknown), (0, 0));
        assert!(!of_joins(&later, false).is_problem, "what is over is no problem");
    }
}
