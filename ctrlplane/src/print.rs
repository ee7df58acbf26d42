//! Tables for people, from the values of [`crate::view`].

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::deadline::say_span;
use crate::view::*;

fn table(header: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    // Plain columns: easy on the eye, on grep and on awk.
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|title| title.to_uppercase()));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Without the spaces a table has at the end of its lines.
fn text(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A line of the status: what it is about, and what there is to say.
type Line = (&'static str, String);

/// `weftctl status`.
pub fn status(status: &Status) -> String {
    let said = format!("version {}, pid {}, {}", status.version, status.pid, status.config);
    let mut lines: Vec<Line> = vec![("control plane", said)];
    lines.extend(dataplane(&status.dataplane));
    lines.extend(status.dataplane.refused.iter().map(|refused| ("refused", refused.clone())));
    lines.extend(status.reload_problem.iter().map(|problem| ("reload failed", problem.clone())));
    lines.extend(status.unresolved.iter().map(|backend| ("no MAC yet", backend.clone())));
    lines.extend(status.problems.iter().map(|problem| ("problem", problem.clone())));
    lines.extend(status.drift.iter().map(|drift| ("drift", drift.clone())));
    let mut out: String = lines.iter().map(|(about, said)| format!("{about:<15}{said}\n")).collect();
    if !status.dataplane.counters.is_empty() {
        out.push('\n');
        out.push_str(&counters(&status.dataplane.counters));
    }
    out
}

fn dataplane(dataplane: &DataplaneStatus) -> Vec<Line> {
    if !dataplane.attached {
        return vec![("data plane", dataplane.message.clone())];
    }
    let tables = &dataplane.tables;
    let sync = if dataplane.in_sync { "as configured" } else { "not as configured" };
    let said = format!("generation {}, {sync}, workers {}", dataplane.generation, dataplane.workers);
    let mut lines = vec![
        ("data plane", said),
        ("flows", format!("{} of {}", tables.flows, tables.flow_capacity)),
        ("tokens", format!("{} of {}", tables.tokens, tables.token_capacity)),
    ];
    if let Some(pages) = &tables.pages {
        let since = if tables.kept { "kept from the data plane before" } else { "begun empty" };
        lines.push((
            "tables",
            format!("{} MiB on pages of kind {pages}, {since}", tables.bytes.div_ceil(1 << 20)),
        ));
    }
    for port in &dataplane.ports {
        let link = if port.link_up { "up" } else { "down" };
        lines.push(("port", format!("{}, {}, mtu {}, link {link}", port.device, port.mac, port.mtu)));
    }
    lines
}

fn counters(rows: &[CounterRow]) -> String {
    let mut table = table(&["counter", "count", "meaning"], &[1]);
    for row in rows {
        table.add_row([row.name.clone(), row.count.to_string(), row.meaning.clone()]);
    }
    text(&table)
}

/// `weftctl vip list`.
pub fn vips(rows: &[VipRow]) -> String {
    let header =
        ["name", "address", "port", "proto", "pool", "forward", "steering", "unknown", "packets", "bytes"];
    let mut table = table(&header, &[8, 9]);
    for row in rows {
        let ports: Vec<String> = row
            .port
            .iter()
            .map(|port| if *port == 0 { "any".to_owned() } else { port.to_string() })
            .collect();
        let steering = if row.steering.is_empty() { "off".to_owned() } else { row.steering.join(",") };
        table.add_row([
            row.name.clone(),
            row.address.join(","),
            ports.join(","),
            row.protocol.clone(),
            row.pool.clone(),
            row.forward.clone(),
            steering,
            row.unknown_token.clone(),
            number(row.packets),
            number(row.bytes),
        ]);
    }
    text(&table)
}

/// `weftctl backend list`.
pub fn backends(rows: &[BackendRow]) -> String {
    let header =
        ["pool", "name", "address", "mac", "weight", "state", "flows", "tokens", "packets", "bytes", "from"];
    let has_endpoints = rows.iter().any(|row| !endpoint(row).is_empty());
    let has_numbers = rows.iter().any(|row| row.number.is_some());
    let further = has_endpoints.then_some("endpoint").into_iter().chain(has_numbers.then_some("number"));
    let header = header.into_iter().chain(further).collect::<Vec<_>>();
    let mut table = table(&header, &[4, 6, 7, 8, 9]);
    for row in rows {
        let mac = match (&row.mac, &row.via) {
            (Some(mac), Some(gateway)) => format!("{mac} (via {gateway})"),
            (Some(mac), None) if row.mac_resolved => format!("{mac} (resolved)"),
            (Some(mac), None) => mac.clone(),
            (None, _) => "not resolved".to_owned(),
        };
        let is_left = matches!(row.state.as_deref(), Some("removed" | "deleted"));
        let from = match (is_left, row.added) {
            (true, _) => "-",
            (false, true) => "weftctl",
            (false, false) => "file",
        };
        let cells = [
            row.pool.clone(),
            row.name.clone(),
            row.address.join(","),
            mac,
            row.weight.to_string(),
            state(row),
            number(row.flows),
            number(row.tokens),
            number(row.packets),
            number(row.bytes),
            from.to_owned(),
        ];
        let own_number = || row.number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let further = has_endpoints.then(|| endpoint(row)).into_iter().chain(has_numbers.then(own_number));
        table.add_row(cells.into_iter().chain(further));
    }
    text(&table)
}

/// Where a backend's joins go: `:20001`, `fd99::a1`, or both.
fn endpoint(row: &BackendRow) -> String {
    let port = row.endpoint_port.map(|port| format!(":{port}"));
    port.into_iter().chain(row.endpoint_address.iter().cloned()).collect::<Vec<_>>().join(",")
}

/// A backend's state in a word or two: `draining`, `active, no MAC`, `removed, 2m left`.
fn state(row: &BackendRow) -> String {
    let mut said = row.state.clone().unwrap_or_else(|| "-".to_owned());
    if let Some(seconds) = row.deadline_seconds {
        said.push_str(&format!(", {} left", say_span(u64::from(seconds))));
    }
    if row.mac.is_none() {
        said.push_str(", no MAC");
    }
    said
}

/// `weftctl tokens`.
pub fn tokens(summary: &TokenSummary) -> String {
    let mut out = format!(
        "{} tokens of {}, {} packets steered by token\n\n",
        summary.tokens, summary.token_capacity, summary.joins_steered
    );
    out.push_str(&counters(&summary.counters));
    out
}

/// `weftctl tokens TOKEN`.
pub fn owners(token: &str, rows: &[TokenOwner]) -> String {
    if rows.is_empty() {
        return format!("nobody owns token {token}\n");
    }
    let mut table = table(&["token", "pool", "backend", "rank", "ambiguous", "age s"], &[5]);
    for row in rows {
        let ambiguous = if row.ambiguous { "yes" } else { "no" };
        table.add_row([
            row.token.clone(),
            row.pool.clone(),
            row.backend.clone(),
            row.rank.clone(),
            ambiguous.to_owned(),
            row.age_seconds.to_string(),
        ]);
    }
    text(&table)
}

/// `weftctl agents`.
pub fn agents(summary: &AgentSummary) -> String {
    let mut out = match &summary.listen {
        Some(listen) => format!("listening for agents on {listen}\n\n"),
        None => "not listening for agents: see [agents] in the configuration\n\n".to_owned(),
    };
    let mut table =
        table(&["backend", "agent", "since s", "from", "tokens", "dumps", "refused"], &[2, 4, 5, 6]);
    for row in &summary.agents {
        let state = match (row.connected, row.peer.is_empty()) {
            (true, _) => "connected",
            (false, true) => "never seen",
            (false, false) => "gone",
        };
        table.add_row([
            row.backend.clone(),
            state.to_owned(),
            row.seconds.to_string(),
            row.peer.clone(),
            row.tokens.to_string(),
            row.dumps.to_string(),
            row.refused.to_string(),
        ]);
    }
    out.push_str(&text(&table));
    out.push('\n');
    out.push_str(&counters(&summary.counters));
    out
}

/// `weftctl steering`.
pub fn rules(rows: &[RuleRow]) -> String {
    let mut table = table(&["scheme", "rule", "count", "meaning"], &[2]);
    for row in rows {
        table.add_row([row.scheme.clone(), row.rule.clone(), row.count.to_string(), row.meaning.clone()]);
    }
    text(&table)
}

/// `weftctl doctor`.
pub fn findings(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let mark = if finding.is_problem { "!!" } else { "ok" };
        format!("{mark}  {}: {}\n", finding.about, finding.finding)
    };
    findings.iter().map(line).collect()
}

/// `weftctl drops`.
pub fn drops(rows: &[DropRow]) -> String {
    let mut table = table(&["reason", "packets", "meaning"], &[1]);
    for row in rows {
        table.add_row([row.reason.clone(), row.packets.to_string(), row.meaning.clone()]);
    }
    text(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_without_a_data_plane_says_so_and_shows_the_drift() {
        let value = Status {
            version: "1".to_owned(),
            pid: 7,
            config: "weft.toml".to_owned(),
            dataplane: DataplaneStatus {
                message: "it is not running".to_owned(),
                ..DataplaneStatus::default()
            },
            drift: vec!["backend b3 was added".to_owned()],
            ..Status::default()
        };
        assert_eq!(
            status(&value),
            "control plane  version 1, pid 7, weft.toml\n\
             data plane     it is not running\n\
             drift          backend b3 was added\n"
        );
    }

    #[test]
    fn numbers_stand_right_and_lines_end_where_their_text_ends() {
        let rows = [("unknown_token", 12), ("not_vip", 3)].map(|(reason, packets)| DropRow {
            reason: reason.to_owned(),
            meaning: "m".to_owned(),
            packets,
        });
        let printed = drops(&rows);
        assert!(printed.lines().all(|line| line == line.trim_end()), "{printed}");
        let ends: Vec<usize> = printed.lines().skip(1).map(|line| line.len()).collect();
        assert_eq!(ends[0], ends[1], "{printed}");
    }
}
