//! Which charts a run makes, which of its rows are in which, and the conditions under each.

use std::collections::BTreeSet;

use crate::report::{Row, Run};

use super::axis::{Axis, Scale, count, decimal};
use super::chart::{Chart, Point, Series};
use super::lines::{Along, Line, float, lines, series, shared_case, words};
use super::published::{self, Published};
use super::scene::{Ink, Stroke};

/// A chart and the name of its files.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) chart: Chart,
}

/// All charts that a run has rows for.
pub(crate) fn all(run: &Run) -> Vec<Figure> {
    let mut cases: Vec<&str> = Vec::new();
    for row in &run.series {
        if !cases.contains(&row.case.as_str()) {
            cases.push(&row.case);
        }
    }
    let mut figures: Vec<Figure> = cases.into_iter().flat_map(|case| against_flows(run, case)).collect();
    figures.extend(against_tokens(run));
    figures.extend(against_workers(run));
    figures.extend(against_frame(run));
    figures.extend(percentiles(run));
    figures
}

/// ns against flows of one case: the engine and its floor, with what peers take beside them; all bursts; the floor's
/// depths; and with ports.
fn against_flows(run: &Run, case: &str) -> Vec<Figure> {
    let of_case = |row: &Row| row.case == case && row.unit == "ns";
    let pair = |row: &Row| matches!(row.figure.as_str(), "engine" | "floor");
    let bursts: BTreeSet<u64> =
        run.series.iter().filter(|row| of_case(row) && pair(row)).filter_map(|row| row.burst).collect();
    // 32 is what a worker takes at once.
    let usual = if bursts.contains(&32) { Some(32) } else { bursts.first().copied() };
    let usually = |row: &Row| of_case(row) && (usual.is_none() || row.burst == usual);
    let all = [
        ("", "against flows", published_for(case), lines(run, Along::Flows, |row| usually(row) && pair(row))),
        ("-bursts", "by burst size", &[][..], lines(run, Along::Flows, |row| of_case(row) && pair(row))),
        ("-floor", "down to the floor", &[], lines(run, Along::Flows, |row| usually(row) && in_memory(row))),
        (
            "-ports",
            "with receive and transmit",
            &[],
            lines(run, Along::Flows, |row| of_case(row) && !in_memory(row)),
        ),
    ];
    let [most, others @ ..] = &all;
    let worth = |ending: &str, lines: &[Line<'_>]| match ending {
        // What shows the same lines once more is left out.
        "-bursts" | "-floor" => lines.len() > most.3.len(),
        _ => !lines.is_empty(),
    };
    [most]
        .into_iter()
        .chain(others)
        .filter(|(ending, _, _, lines)| worth(ending, lines))
        .map(|(ending, what, references, lines)| Figure {
            name: format!("ns-flows-{}{ending}", slug(case)),
            chart: flows_chart(run, lines, format!("ns a packet {what}, {}", words(case)), references),
        })
        .collect()
}

fn flows_chart(run: &Run, lines: &[Line<'_>], title: String, references: &[Published]) -> Chart {
    let mut all: Vec<Series> = references
        .iter()
        .map(|reference| {
            let points = reference.points.iter().map(|&(x, y)| Point::exact(x, y)).collect();
            Series { stroke: Stroke::Dotted, ..guide(reference.name.to_owned(), points) }
        })
        .collect();
    all.extend(series(lines, Along::Flows));
    let mut notes = conditions(run, lines);
    if !references.is_empty() {
        notes.push(published::SOURCE.to_owned());
    }
    Chart {
        title,
        subtitle: "Both axes by ratio; lower is better.".to_owned(),
        x: Axis::at_values("flows in the table", Scale::Logarithmic, &values(&all, |point| point.x), count),
        y: Axis::ratios("ns a packet", &values(&all, |point| point.y)),
        series: all,
        notes,
    }
}

/// ns against tokens, all cases that have it.
fn against_tokens(run: &Run) -> Option<Figure> {
    // Where the tokens only follow the flows, the plot against flows shows it.
    let lines = lines(run, Along::Tokens, |row| row.unit == "ns");
    let lines: Vec<Line<'_>> = lines.into_iter().filter(|line| !follows_flows(line)).collect();
    let series = series(&lines, Along::Tokens);
    figure("ns-tokens", !lines.is_empty(), || Chart {
        title: "ns a packet against tokens".to_owned(),
        subtitle: subtitle(&lines, "Horizontal axis by ratio; lower is better."),
        x: Axis::at_values(
            "tokens in the table",
            Scale::Logarithmic,
            &values(&series, |point| point.x),
            count,
        ),
        y: Axis::from_zero("ns a packet", &values(&series, |point| point.high)),
        notes: conditions(run, &lines),
        series,
    })
}

fn follows_flows(line: &Line<'_>) -> bool {
    let flows: BTreeSet<Option<u64>> = line.rows.iter().map(|row| row.flows).collect();
    flows.len() == line.rows.len() && line.rows.iter().all(|row| row.tokens <= row.flows)
}

/// Mpps against workers, with a line for twice the workers at twice the rate.
fn against_workers(run: &Run) -> Option<Figure> {
    let run = &with_rates(run);
    let lines = lines(run, Along::Workers, |row| row.unit == "mpps");
    let mut series = series(&lines, Along::Workers);
    let first = series.first().and_then(|one| one.points.first().copied().zip(one.points.last().copied()));
    if let Some((first, last)) = first {
        let points = vec![Point::exact(first.x, first.y), Point::exact(last.x, first.y / first.x * last.x)];
        series.insert(0, guide("in proportion to workers".to_owned(), points));
    }
    figure("mpps-workers", !lines.is_empty(), || Chart {
        title: "Mpps against workers".to_owned(),
        subtitle: subtitle(&lines, "All workers together; higher is better."),
        x: Axis::at_values(
            "workers, each on a core",
            Scale::Linear,
            &values(&series, |point| point.x),
            decimal,
        ),
        y: Axis::from_zero("Mpps", &values(&series, |point| point.high)),
        notes: conditions(run, &lines),
        series,
    })
}

/// The run with the engine's ns a packet of each of so many threads as Mpps of all of them.
fn with_rates(run: &Run) -> Run {
    let rate = |row: &Row| {
        let threads = float(row.workers.filter(|_| row.figure == "engine" && row.unit == "ns")?);
        let mpps = |ns: f64| threads * 1e3 / ns;
        let (median, min, max) = (mpps(row.median), mpps(row.max), mpps(row.min));
        Some(Row { unit: "mpps".to_owned(), median, min, max, ..row.clone() })
    };
    let rates = run.series.iter().filter_map(rate);
    Run { series: run.series.iter().cloned().chain(rates).collect(), ..run.clone() }
}

/// Mpps against frame size, with what links carry.
fn against_frame(run: &Run) -> Option<Figure> {
    let lines = lines(run, Along::Frame, |row| row.unit == "mpps");
    let mut series = series(&lines, Along::Frame);
    let sizes: BTreeSet<u64> =
        lines.iter().flat_map(|line| &line.rows).filter_map(|row| row.frame_bytes).collect();
    let most = values(&series, |point| point.high).into_iter().fold(0.0, f64::max);
    for gigabits in [10.0, 25.0, 40.0, 100.0] {
        let points = sizes.iter().map(|&size| Point::exact(float(size), link_mpps(gigabits, float(size))));
        // A link far out of reach would only press the measured lines flat.
        let points: Vec<Point> = points.filter(|point| point.y <= most * 1.6).collect();
        if points.len() > 1 {
            series.insert(0, guide(format!("{gigabits} Gb/s link, frame + 20 bytes IPIP"), points));
        }
    }
    let x = values(&series, |point| point.x);
    figure("mpps-frame", !lines.is_empty(), || Chart {
        title: "Mpps against frame size".to_owned(),
        subtitle: subtitle(&lines, "Horizontal axis by ratio; higher is better."),
        x: Axis::at_values("bytes of a frame, without its check sequence", Scale::Logarithmic, &x, decimal),
        y: Axis::from_zero("Mpps", &values(&series, |point| point.high)),
        notes: conditions(run, &lines),
        series,
    })
}

/// Millions of frames a second that a link carries, of frames that leave with 20 bytes more: on the wire come 4 bytes of
/// check sequence, 8 of preamble and 12 of gap.
fn link_mpps(gigabits: f64, frame: f64) -> f64 {
    let bytes = frame.max(60.0) + 20.0 + 4.0 + 8.0 + 12.0;
    gigabits * 1e3 / (bytes * 8.0)
}

/// Latency, and what lies between two polls of a worker, against the share that had less.
fn percentiles(run: &Run) -> Vec<Figure> {
    let latency = lines(run, Along::Percentile, |row| row.unit == "us");
    let gap = lines(run, Along::Percentile, |row| row.unit == "ns" && row.figure == "gap");
    [
        distribution(run, "latency", "Latency, there and back", "packets that took", &latency),
        distribution(run, "gaps", "Time between two polls of a worker", "polls that waited", &gap),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn distribution(run: &Run, file: &str, title: &str, what: &str, lines: &[Line<'_>]) -> Option<Figure> {
    let mut series = series(lines, Along::Percentile);
    // Nanoseconds come from one histogram of all rounds: their least and greatest are those of the whole.
    if lines.iter().flat_map(|line| &line.rows).any(|row| row.unit == "ns") {
        for point in series.iter_mut().flat_map(|series| &mut series.points) {
            *point = Point::exact(point.x, point.y / 1e3);
        }
    }
    let x = values(&series, |point| point.x);
    let furthest = x.iter().copied().filter(|&percent| percent < 100.0).map(nines).fold(0.0, f64::max);
    // The greatest of all has no share above it: half a power of ten beyond the last.
    let place = move |percent: f64| if percent < 100.0 { nines(percent) } else { furthest + 0.5 };
    for point in series.iter_mut().flat_map(|series| &mut series.points) {
        point.x = place(point.x);
    }
    let places: Vec<f64> = x.iter().map(|&percent| place(percent)).collect();
    let name = move |at: f64| if at > furthest { "greatest".to_owned() } else { percent(at) };
    figure(file, !lines.is_empty(), || Chart {
        title: title.to_owned(),
        subtitle: subtitle(lines, &format!("Share of {what} no longer; lower is better.")),
        x: Axis::at_values("percentile", Scale::Linear, &places, name),
        y: Axis::ratios("microseconds", &values(&series, |point| point.y)),
        notes: conditions(run, lines),
        series,
    })
}

/// How many nines: 90 is 1, 99 is 2, 99.9 is 3.
fn nines(percent: f64) -> f64 {
    -(1.0 - percent / 100.0).log10()
}

fn percent(nines: f64) -> String {
    let digits = (nines - 2.0).max(0.0).ceil();
    let value = 100.0 * (1.0 - 10_f64.powf(-nines));
    let rounded = (value * 10_f64.powf(digits)).round() / 10_f64.powf(digits);
    format!("{rounded} %")
}

/// What all cases of a chart have in common, and how to read it.
fn subtitle(lines: &[Line<'_>], reading: &str) -> String {
    let shared = shared_case(lines);
    let shared = shared.trim_end_matches(',');
    if shared.is_empty() { reading.to_owned() } else { format!("{shared}. {reading}") }
}

/// A line to compare with, which this run did not measure.
fn guide(name: String, points: Vec<Point>) -> Series {
    Series { name, points, ink: Ink::Reference, stroke: Stroke::Dashed, main: false }
}

fn figure(name: &str, wanted: bool, chart: impl FnOnce() -> Chart) -> Option<Figure> {
    wanted.then(|| Figure { name: name.to_owned(), chart: chart() })
}

/// Whether a row is of what runs in memory, without ports: its I/O is excluded, and it can lose nothing.
fn in_memory(row: &Row) -> bool {
    matches!(row.figure.as_str(), "engine" | "threads" | "receive" | "gap") || row.figure.starts_with("floor")
}

fn published_for(case: &str) -> &'static [Published] {
    if case.contains("v6") {
        &[]
    } else if case.contains("established") {
        published::ESTABLISHED
    } else if case.contains("capable") && case.contains("syn") {
        published::SYN
    } else {
        &[]
    }
}

/// The conditions, in the order a reader asks for them.
fn conditions(run: &Run, lines: &[Line<'_>]) -> Vec<String> {
    let rows: Vec<&Row> = lines.iter().flat_map(|line| line.rows.iter().copied()).collect();
    let c = &run.conditions;
    let or =
        |text: &str, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text.to_owned() };
    let listed = |of: fn(&Row) -> Option<u64>, told: fn(u64) -> String| {
        let values: BTreeSet<u64> = rows.iter().filter_map(|row| of(row)).collect();
        let mut told: Vec<String> = values.into_iter().map(told).collect();
        told.dedup();
        if told.is_empty() { "not stated".to_owned() } else { told.join(", ") }
    };
    let counted = |value: u64| count(float(value));
    let rules: BTreeSet<&str> = rows.iter().filter_map(|row| row.loss_rule.as_deref()).collect();
    let rule = match (rules.is_empty(), rows.iter().all(|row| in_memory(row))) {
        (true, true) => "none is lost, packets are in memory".to_owned(),
        (true, false) => lost(&rows),
        (false, _) => rules.into_iter().collect::<Vec<_>>().join("; "),
    };
    let rounds = rows.iter().map(|row| row.rounds).min().unwrap_or(0);
    vec![
        format!(
            "CPU: {}, {} logical CPUs, TSC {} MHz \u{b7} Linux {} \u{b7} DPDK: {} \u{b7} {} \u{b7} pages of tables: {}",
            or(&c.cpu, "not stated"),
            c.cores,
            c.tsc_mhz,
            or(&c.kernel, "not stated"),
            or(c.dpdk.trim_start_matches("DPDK "), "not used"),
            or(&c.rustc, "compiler not stated"),
            or(&c.pages, &pages(&rows)),
        ),
        format!(
            "Flows: {} \u{b7} tokens: {} \u{b7} bytes of a frame: {} \u{b7} burst: {} \u{b7} loss rule: {rule} \u{b7} medians of \
             {rounds} rounds or more, whiskers from least to greatest \u{b7} {}: {}",
            listed(|row| row.flows, counted),
            listed(|row| row.tokens, counted),
            listed(|row| row.frame_bytes, |bytes| bytes.to_string()),
            listed(|row| row.burst, |burst| burst.to_string()),
            run.date,
            run.command,
        ),
    ]
}

/// Without a rule any loss was allowed: how much there was, where the rows say.
fn lost(rows: &[&Row]) -> String {
    let shares = rows.iter().filter_map(|row| row.extra.get("loss")?.as_f64());
    shares.reduce(f64::max).map_or_else(
        || "not stated".to_owned(),
        |most| format!("any loss, it was {} % at most", decimal(most * 100.0)),
    )
}

/// What the rows say of their tables' pages, where the run does not.
fn pages(rows: &[&Row]) -> String {
    let told = rows
        .iter()
        .filter_map(|row| row.extra.get("table_pages").or_else(|| row.extra.get("pages"))?.as_str());
    let kinds: BTreeSet<&str> = told.collect();
    if kinds.is_empty() { "not stated".to_owned() } else { kinds.into_iter().collect::<Vec<_>>().join(", ") }
}

/// A case as part of a file's name: runs of other characters than letters and digits are one hyphen.
fn slug(case: &str) -> String {
    let lower = case.to_ascii_lowercase();
    let words = lower.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

fn values(series: &[Series], of: impl Fn(&Point) -> f64) -> Vec<f64> {
    series.iter().flat_map(|series| &series.points).map(of).collect()
}
