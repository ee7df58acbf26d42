//! Reads `[agents]`.

use std::path::PathBuf;

use crate::model::{AgentFiles, Agents};
use crate::problem::Report;
use crate::schema::{self, agents as key};
use crate::table::Table;
use crate::value::read_socket;

/// Reads `[agents]`, if it is there. What is wrong is reported.
pub(crate) fn read(root: &Table<'_>, report: &mut Report<'_>) -> Option<Agents> {
    root.given(&schema::AGENTS_KEY)?;
    let table = root.table(&schema::AGENTS_KEY, report)?;
    let listen = table.text(&key::LISTEN, report);
    let address = listen.as_ref().and_then(|text| read_socket(text, "10.0.1.254:7443", report));
    let [authority, certificate, own_key, revoked] =
        [&key::AUTHORITY, &key::CERTIFICATE, &key::KEY, &key::REVOKED]
            .map(|key| table.text(key, report).map(|text| PathBuf::from(text.value)));
    let files = match (authority, certificate, own_key) {
        (Some(authority), Some(certificate), Some(key)) => {
            Some(AgentFiles { authority, certificate, key, revoked })
        }
        (None, None, None) => {
            if let Some(span) = table.given(&key::REVOKED) {
                report.problem(
                    &span,
                    "`revoked` without certificates; give `authority`, `certificate` and `key`, too",
                );
            }
            if let (Some(text), Some(address)) = (&listen, address.filter(|at| !at.ip().is_loopback())) {
                report.problem(
                    &text.span,
                    format!(
                        "{} can be reached from elsewhere, and nothing says who may report: give `authority`, \
                         `certificate` and `key`, or listen on 127.0.0.1 or ::1",
                        address.ip()
                    ),
                );
            }
            None
        }
        _ => {
            report.problem(&table.span, "`authority`, `certificate` and `key` go together; give all three");
            None
        }
    };
    let number = |key, report: &mut Report<'_>| table.integer(key, report).map(|number| number.value);
    let tokens = number(&key::TOKENS, report)?;
    let reports_per_second = number(&key::REPORTS, report)?;
    Some(Agents {
        listen: address?,
        files,
        tokens: usize::try_from(tokens).unwrap_or(usize::MAX),
        reports_per_second: u32::try_from(reports_per_second).unwrap_or(u32::MAX),
    })
}
