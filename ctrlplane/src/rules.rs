//! What each rule of steering came to: counters and reasons, by the scheme they are of.
//!
//! The scheme follows from the name, so that what a scheme counts anew shows here by itself. A test holds that every
//! counter about joins, tokens, keys and endpoints has a scheme.

use ipc::counter::Counter;
use ipc::counters::{GaugeReader, LinkCounter};
use ipc::reason::Reason;

use crate::session::LinkView;
use crate::view::RuleRow;

/// Beginnings of names, and whose they are; the first that fits counts.
const SCHEMES: &[(&str, &str)] = &[
    ("chosen_key", "chosen-key"),
    ("timestamp", "chosen-key"),
    ("token_map", "token-map"),
    ("explicit_", "explicit tokens"),
    ("endpoint", "endpoint"),
    ("wrong_endpoint", "endpoint"),
    ("agent_", "agent"),
    ("flow_over_", "guard"),
    ("token_over_", "guard"),
    ("join_rate", "guard"),
    ("unknown_token", "no scheme"),
    ("ambiguous_token", "no scheme"),
    ("token_reset", "no scheme"),
    ("join_hashed", "no scheme"),
    ("join_", "all"),
    ("capable_syn", "all"),
    ("token", "learn"),
    ("key_", "learn"),
];

/// The order schemes are shown in.
const ORDER: &[&str] = &[
    "all",
    "learn",
    "endpoint",
    "token-map",
    "explicit tokens",
    "chosen-key",
    "agent",
    "guard",
    "no scheme",
];

/// The scheme that a counter or reason is of, if it is about steering.
fn scheme(name: &str) -> Option<&'static str> {
    SCHEMES.iter().find(|(start, _)| name.starts_with(start)).map(|(_, scheme)| *scheme)
}

fn row(name: &str, meaning: &str, count: u64) -> Option<RuleRow> {
    Some(RuleRow {
        scheme: scheme(name)?.to_owned(),
        rule: name.to_owned(),
        count,
        meaning: meaning.to_owned(),
    })
}

/// Every rule, by scheme; what packets were kept and dropped for first.
pub(crate) fn all(view: &LinkView) -> Vec<RuleRow> {
    let reasons = Reason::ALL
        .iter()
        .filter_map(|reason| row(reason.name(), reason.meaning(), view.counters.reason(*reason)));
    let counters = Counter::ALL
        .iter()
        .filter_map(|counter| row(counter.name(), counter.meaning(), view.counters.counter(*counter)));
    let of_link = |gauges: &GaugeReader| -> Vec<RuleRow> {
        LinkCounter::ALL
            .iter()
            .filter_map(|link| row(link.name(), link.meaning(), gauges.link(*link)))
            .collect()
    };
    let links = view.gauges.as_ref().map(of_link).unwrap_or_default();
    let mut rows: Vec<RuleRow> = reasons.chain(counters).chain(links).collect();
    // A stable sort: reasons stay before counters.
    rows.sort_by_key(|row| ORDER.iter().position(|scheme| *scheme == row.scheme));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_of_steering_has_a_scheme_and_every_scheme_a_place() {
        let names = Counter::ALL.iter().map(|counter| counter.name());
        let names = names.chain(Reason::ALL.iter().map(|reason| reason.name()));
        let about = ["join", "token", "key", "endpoint", "explicit", "capable", "over_", "timestamp"];
        for name in names.filter(|name| about.iter().any(|word| name.contains(word))) {
            // What a packet cannot be is told with other damage, by `weftctl status`.
            if !name.starts_with("mptcp_") {
                assert!(scheme(name).is_some(), "{name}");
            }
        }
        for (_, scheme) in SCHEMES {
            assert!(ORDER.contains(scheme), "{scheme}");
        }
        let found =
            ["token", "token_map", "token_map_miss", "token_learned", "join_syn", "join_hashed"].map(scheme);
        let expected = ["learn", "token-map", "token-map", "learn", "all", "no scheme"].map(Some);
        assert_eq!(found, expected);
        assert_eq!(scheme("flow_inserted"), None);
    }
}
