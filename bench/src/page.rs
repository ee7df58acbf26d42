//! `weft-bench page`: the tables of docs/performance.md, made from the run that the page names.
//!
//! Why: figures that are copied by hand go stale one by one. Between a line `<!-- measured: NAME -->` and the next
//! `<!-- end -->` a page holds what a run says, and nothing else; the rest of it is prose. A test holds the page to its run.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, bail};

use crate::goals::is_met;
use crate::report::{Row, Run};

/// Arguments of `page`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The run's JSON file.
    #[arg(value_name = "RUN.json")]
    pub run: PathBuf,
    /// The page, in Markdown: its measured parts are replaced.
    #[arg(value_name = "PAGE.md")]
    pub page: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// The run or the page is not there, or the page asks for a part that is none.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let run = Run::read(&args.run)?;
    let page =
        fs::read_to_string(&args.page).with_context(|| format!("cannot read {}", args.page.display()))?;
    let part = args.page.with_extension("part");
    fs::write(&part, filled(&page, &run)?)
        .and_then(|()| fs::rename(&part, &args.page))
        .with_context(|| format!("cannot write {}", args.page.display()))
}

/// What begins a measured part, and what ends it.
const BEGIN: &str = "<!-- measured: ";
const END: &str = "<!-- end -->";

/// The page with its measured parts as the run has them.
///
/// # Errors
/// A part has a name that is none, or no end.
pub fn filled(page: &str, run: &Run) -> anyhow::Result<String> {
    let mut filled = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        filled.push_str(line);
        filled.push('\n');
        let Some(name) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        if !lines.by_ref().any(|line| line == END) {
            bail!("the part {name:?} has no line {END}");
        }
        filled.push_str(&part(name, run)?);
        filled.push_str(END);
        filled.push('\n');
    }
    Ok(filled)
}

/// One measured part.
fn part(name: &str, run: &Run) -> anyhow::Result<String> {
    Ok(match name {
        "conditions" => conditions(run),
        "goals" => goals(run),
        "ports" => ports(run),
        "floor" => floor(run),
        _ => bail!("there is no part {name:?}: parts are conditions, goals, ports and floor"),
    })
}

fn conditions(run: &Run) -> String {
    let c = &run.conditions;
    let dpdk = if c.dpdk.is_empty() { "not used" } else { &c.dpdk };
    format!(
        "Conditions: {}, {} CPUs, TSC {} MHz, Linux {}, DPDK {dpdk}, {}, {}, on {}. Command: `{}`.\n",
        c.cpu, c.cores, c.tsc_mhz, c.kernel, c.rustc, c.pages, run.date, run.command
    )
}

/// Figures that need no port, but the floor's.
const INSIDE: [&str; 6] = ["engine", "token", "swap", "gap", "threads", "memory"];

/// What was measured of the engine, beside what was aimed at. Of gaps between polls, the percentile that has a goal.
fn goals(run: &Run) -> String {
    let mut table = "| figure | at | measured (median) | rounds from, to | times the floor | goal | met |\n\
                     | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    let wanted = |row: &&Row| {
        INSIDE.contains(&row.figure.as_str()) && row.percentile.is_none_or(|p| (p - 99.9).abs() < 1e-9)
    };
    for row in run.series.iter().filter(wanted) {
        let floor = row.floor_ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let goal = row.goal.map(|goal| goal.to_string()).unwrap_or_default();
        let met = match (row.goal, is_met(row)) {
            (None, _) => "",
            (_, true) => "yes",
            (_, false) => "**no**",
        };
        // Writing to a String does not fail.
        let _ = writeln!(table, "{} | {floor} | {goal} | {met} |", measured(row));
    }
    table
}

/// What was measured with ports.
fn ports(run: &Run) -> String {
    let mut table =
        "| figure | at | measured (median) | rounds from, to |\n| --- | --- | --- | --- |\n".to_owned();
    let wanted = |row: &&Row| !INSIDE.contains(&row.figure.as_str()) && row.figure != "floor";
    for row in run.series.iter().filter(wanted) {
        let _ = writeln!(table, "{} |", measured(row));
    }
    table
}

fn floor(run: &Run) -> String {
    let mut table =
        "| floor | at | measured (median) | rounds from, to |\n| --- | --- | --- | --- |\n".to_owned();
    for row in run.series.iter().filter(|row| row.figure == "floor") {
        let _ = writeln!(table, "{} |", measured(row));
    }
    table
}

/// The cells that every table begins with.
fn measured(row: &Row) -> String {
    let [median, min, max] = [row.median, row.min, row.max].map(figure);
    let name = format!("{}: {}", row.figure, row.case).replace('_', " ");
    format!("| {name} | {} | {median} {} | {min} to {max}", at(row), row.unit)
}

/// What a figure was measured at.
fn at(row: &Row) -> String {
    let mut parts = Vec::new();
    let mut count = |value: Option<u64>, name: &str| {
        parts.extend(value.filter(|value| *value > 0).map(|value| format!("{} {name}", short(value))));
    };
    count(row.flows, "flows");
    count(row.tokens, "tokens");
    count(
        row.frame_bytes.filter(|_| !INSIDE.contains(&row.figure.as_str()) && row.figure != "floor"),
        "bytes",
    );
    parts.extend(row.burst.map(|burst| format!("bursts of {burst}")));
    parts.extend(row.workers.filter(|workers| *workers > 1).map(|workers| format!("{workers} workers")));
    parts.extend(row.cold.then(|| "cold".to_owned()));
    parts.extend(row.percentile.map(|percentile| format!("p{percentile}")));
    parts.extend(row.loss_rule.clone());
    parts.join(", ")
}

/// A count as people say it.
fn short(value: u64) -> String {
    match value {
        _ if value.is_multiple_of(1_000_000) => format!("{} M", value / 1_000_000),
        _ if value.is_multiple_of(1000) => format!("{} k", value / 1000),
        _ if value > 1_000_000 => {
            let tenths = (value + 50_000) / 100_000;
            format!("{}.{} M", tenths / 10, tenths % 10)
        }
        _ => value.to_string(),
    }
}

/// A figure with three digits that matter.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_bench::record;

    fn rows() -> Run {
        let row = |figure: &str, median, goal| Row {
            figure: figure.to_owned(),
            case: "established_v4".to_owned(),
            unit: "ns".to_owned(),
            flows: Some(65_536),
            burst: Some(32),
            median,
            goal,
            ..Row::default()
        };
        record(vec![row("engine", 19.96, Some(20.0)), row("floor", 5.0, None), row("weft_pcap", 131.0, None)])
    }

    #[test]
    fn a_page_keeps_its_prose_and_gets_the_figures_of_its_run() {
        let page = "# Page\n<!-- measured: goals -->\nold\n<!-- end -->\nprose\n<!-- measured: ports -->\n<!-- end -->\n";
        let filled = filled(page, &rows()).unwrap();
        assert!(filled.starts_with("# Page\n<!-- measured: goals -->\n| figure |"));
        assert!(filled.contains(
            "| engine: established v4 | 65536 flows, bursts of 32 | 20.0 ns | 0.00 to 0.00 |  | 20 | yes |\n\
             <!-- end -->\nprose\n"
        ));
        assert!(filled.contains("| weft pcap: established v4 | 65536 flows, bursts of 32 | 131 ns |"));
        assert!(!filled.contains("old") && !filled.contains("floor: established"));
        assert_eq!(super::filled(&filled, &rows()).unwrap(), filled, "filled again it is the same");
    }

    #[test]
    fn a_part_that_is_none_or_has_no_end_is_refused() {
        let error = |page: &str| filled(page, &rows()).unwrap_err().to_string();
        assert!(error("<!-- measured: gaols -->\n<!-- end -->\n").contains("parts are"));
        assert!(error("<!-- measured: goals -->\n").contains("no line <!-- end -->"));
    }
}
