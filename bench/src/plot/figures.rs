//! Which charts a run makes, and which of its rows are in which.
//!
//! Rows that differ in nothing but what the horizontal axis shows are one series. A name holds only what tells a series
//! from the others of its chart; what they share stands in the conditions below.

use std::collections::BTreeSet;

use crate::report::{Row, Run};

use super::axis::{Axis, Scale, count, decimal};
use super::chart::{Chart, Point, Series};
use super::published::{self, Published};
use super::scene::{Ink, Stroke};

/// A chart and the name of its files.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) chart: Chart,
}

/// What a horizontal axis shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Along {
    Flows,
    Tokens,
    Workers,
    Frame,
    Percentile,
}

/// All charts that a run has rows for.
pub(crate) fn all(run: &Run) -> Vec<Figure> {
    let mut figures = Vec::new();
    for case in distinct(&run.series, |row| Some(row.case.clone())) {
        figures.extend(against_flows(run, &case));
    }
    figures.extend(against_tokens(run));
    figures.extend(against_workers(run));
    figures.extend(against_frame(run));
    figures.extend(percentiles(run));
    figures
}

/// ns against flows of one case: the engine and its floor, with what peers take beside them.
fn against_flows(run: &Run, case: &str) -> Vec<Figure> {
    let rows = |burst: Option<u64>, engine: bool| {
        let ours = |row: &&Row| row.case == case && row.unit == "ns" && is_engine(row) == engine;
        pick(run, Along::Flows, |row| ours(&row) && (burst.is_none() || row.burst == burst))
    };
    let engine = rows(None, true);
    let bursts = distinct_numbers(&engine, |row| row.burst);
    // 32 is what a worker takes at once.
    let usual = if bursts.contains(&32) { Some(32) } else { bursts.first().copied() };
    let slug = slug(case);
    let mut figures = Vec::new();
    let published = published_for(case);
    let mut push = |name: String, rows: &[&Row], title: &str, references: &[Published]| {
        if rows.is_empty() {
            return;
        }
        let title = format!("{title}, {}", words(case));
        let chart = flows_chart(run, rows, title, references);
        figures.push(Figure { name, chart });
    };
    push(format!("ns-flows-{slug}"), &rows(usual, true), "ns a packet against flows", published);
    if bursts.len() > 1 {
        push(format!("ns-flows-{slug}-bursts"), &engine, "ns a packet by burst size", &[]);
    }
    push(format!("ns-flows-{slug}-ports"), &rows(None, false), "ns a packet with receive and transmit", &[]);
    figures
}

fn flows_chart(run: &Run, rows: &[&Row], title: String, references: &[Published]) -> Chart {
    let mut series: Vec<Series> = references
        .iter()
        .map(|reference| Series {
            name: reference.name.to_owned(),
            points: reference.points.iter().map(|&(x, y)| Point::exact(x, y)).collect(),
            ink: Ink::Reference,
            stroke: Stroke::Dotted,
            main: false,
        })
        .collect();
    series.extend(group(rows, Along::Flows));
    let (x, y) = (values(&series, |point| vec![point.x]), values(&series, |point| vec![point.y]));
    let mut notes = conditions(run, rows);
    if !references.is_empty() {
        notes.push(published::SOURCE.to_owned());
    }
    Chart {
        title,
        subtitle: "Both axes by ratio; lower is better.".to_owned(),
        x: Axis::at_values("flows in the table", Scale::Logarithmic, &x, count),
        y: Axis::ratios("ns a packet", &y),
        series,
        notes,
    }
}

/// ns against tokens, all cases that have it.
fn against_tokens(run: &Run) -> Option<Figure> {
    let rows = pick(run, Along::Tokens, |row| row.unit == "ns");
    let series = group(&rows, Along::Tokens);
    let (x, y) = (values(&series, |point| vec![point.x]), values(&series, |point| vec![point.y]));
    figure("ns-tokens", !rows.is_empty(), || Chart {
        title: "ns a packet against tokens".to_owned(),
        subtitle: "Horizontal axis by ratio; lower is better.".to_owned(),
        x: Axis::at_values("tokens in the table", Scale::Logarithmic, &x, count),
        y: Axis::from_zero("ns a packet", &y),
        notes: conditions(run, &rows),
        series,
    })
}

/// Mpps against workers, with a line for twice the workers at twice the rate.
fn against_workers(run: &Run) -> Option<Figure> {
    let rows = pick(run, Along::Workers, |row| row.unit == "mpps");
    let mut series = group(&rows, Along::Workers);
    let x = values(&series, |point| vec![point.x]);
    if let Some((first, last)) = series.first().and_then(|one| one.points.first().zip(one.points.last())) {
        let ideal = first.y / first.x * last.x;
        let points = vec![Point::exact(first.x, first.y), Point::exact(last.x, ideal)];
        let name = "in proportion to workers".to_owned();
        series.insert(0, Series { name, points, ink: Ink::Reference, stroke: Stroke::Dashed, main: false });
    }
    let y = values(&series, |point| vec![point.y, point.high]);
    figure("mpps-workers", !rows.is_empty(), || Chart {
        title: "Mpps against workers".to_owned(),
        subtitle: "All workers together; higher is better.".to_owned(),
        x: Axis::at_values("workers, each on a core", Scale::Linear, &x, decimal),
        y: Axis::from_zero("Mpps", &y),
        notes: conditions(run, &rows),
        series,
    })
}

/// Mpps against frame size, with what links carry.
fn against_frame(run: &Run) -> Option<Figure> {
    let rows = pick(run, Along::Frame, |row| row.unit == "mpps");
    let mut series = group(&rows, Along::Frame);
    let x = values(&series, |point| vec![point.x]);
    let sizes: BTreeSet<u64> = distinct_numbers(&rows, |row| row.frame_bytes).into_iter().collect();
    let most = values(&series, |point| vec![point.high]).into_iter().fold(0.0, f64::max);
    for gigabits in [10.0, 25.0, 40.0, 100.0] {
        #[expect(clippy::cast_precision_loss, reason = "bytes of a frame")]
        let points = sizes.iter().map(|&frame| Point::exact(frame as f64, link_mpps(gigabits, frame as f64)));
        // A link far out of reach would only press the measured lines flat.
        let points: Vec<Point> = points.filter(|point| point.y <= most * 1.6).collect();
        if points.len() < 2 {
            continue;
        }
        let name = format!("{gigabits} Gb/s link, frame + 20 bytes IPIP");
        series.insert(0, Series { name, points, ink: Ink::Reference, stroke: Stroke::Dashed, main: false });
    }
    let y = values(&series, |point| vec![point.y, point.high]);
    figure("mpps-frame", !rows.is_empty(), || Chart {
        title: "Mpps against frame size".to_owned(),
        subtitle: "Horizontal axis by ratio; higher is better.".to_owned(),
        x: Axis::at_values("bytes of a frame, without its check sequence", Scale::Logarithmic, &x, decimal),
        y: Axis::from_zero("Mpps", &y),
        notes: conditions(run, &rows),
        series,
    })
}

/// Millions of frames a second that a link carries, of frames that leave with 20 bytes more: on the wire come 4 bytes of
/// check sequence, 8 of preamble and 12 of gap.
fn link_mpps(gigabits: f64, frame: f64) -> f64 {
    let bytes = frame.max(60.0) + 20.0 + 4.0 + 8.0 + 12.0;
    gigabits * 1e3 / (bytes * 8.0)
}

/// Latency against the share of packets that had less.
fn percentiles(run: &Run) -> Option<Figure> {
    let rows = pick(run, Along::Percentile, |row| row.unit == "us");
    let mut series = group(&rows, Along::Percentile);
    let x = values(&series, |point| vec![point.x]);
    let furthest = x.iter().copied().filter(|&percent| percent < 100.0).map(nines).fold(0.0, f64::max);
    // The greatest of all has no share of packets above it: half a power of ten beyond the last.
    let place = move |percent: f64| if percent < 100.0 { nines(percent) } else { furthest + 0.5 };
    for point in series.iter_mut().flat_map(|series| &mut series.points) {
        point.x = place(point.x);
    }
    let places: Vec<f64> = x.iter().map(|&percent| place(percent)).collect();
    let name = move |at: f64| if at > furthest { "greatest".to_owned() } else { percent(at) };
    let y = values(&series, |point| vec![point.y]);
    figure("latency", !rows.is_empty(), || Chart {
        title: "Latency, there and back".to_owned(),
        subtitle: "Share of packets that took no longer; lower is better.".to_owned(),
        x: Axis::at_values("percentile", Scale::Linear, &places, name),
        y: Axis::ratios("microseconds", &y),
        notes: conditions(run, &rows),
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

fn figure(name: &str, wanted: bool, chart: impl FnOnce() -> Chart) -> Option<Figure> {
    wanted.then(|| Figure { name: name.to_owned(), chart: chart() })
}

/// Whether a row is of the engine alone, without ports: its I/O is excluded.
fn is_engine(row: &Row) -> bool {
    matches!(row.figure.as_str(), "engine" | "floor")
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

/// Where a row lies along an axis.
fn along(row: &Row, along: Along) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    let number = |value: Option<u64>| value.map(|value| value as f64);
    match along {
        Along::Flows => number(row.flows),
        Along::Tokens => number(row.tokens),
        Along::Workers => number(row.workers),
        Along::Frame => number(row.frame_bytes),
        Along::Percentile => row.percentile,
    }
}

/// The rows of a kind that are part of a line: at least one more row differs in nothing but its place on the axis.
fn pick(run: &Run, axis: Along, wanted: impl Fn(&Row) -> bool) -> Vec<&Row> {
    let drawable = |row: &&Row| wanted(row) && row.median.is_finite() && row.median > 0.0;
    let rows: Vec<&Row> =
        run.series.iter().filter(drawable).filter(|row| along(row, axis).is_some_and(|x| x > 0.0)).collect();
    let has_other = |row: &Row| {
        rows.iter()
            .any(|other| parts(other, axis) == parts(row, axis) && along(other, axis) != along(row, axis))
    };
    rows.iter().copied().filter(|row| has_other(row)).collect()
}

/// Everything that tells a row from others but its place on the axis, each with its words.
fn parts(row: &Row, axis: Along) -> Vec<String> {
    let number = |value: Option<u64>, told: &dyn Fn(String) -> String| {
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
        value.map(|value| told(count(value as f64))).unwrap_or_default()
    };
    let mut parts = vec![
        figure_name(&row.figure),
        words(&row.case),
        number(row.burst, &|burst| format!("bursts of {burst}")),
        (if row.cold { "frames not in cache" } else { "" }).to_owned(),
        row.loss_rule.clone().unwrap_or_default(),
    ];
    for (own, value, unit) in [
        (Along::Flows, row.flows, "flows"),
        (Along::Tokens, row.tokens, "tokens"),
        (Along::Workers, row.workers, "workers"),
        (Along::Frame, row.frame_bytes, "bytes"),
    ] {
        let text =
            if own == axis { String::new() } else { number(value, &|value| format!("{value} {unit}")) };
        parts.push(text);
    }
    if axis != Along::Percentile {
        parts.push(row.percentile.map(|percentile| format!("p{percentile}")).unwrap_or_default());
    }
    parts
}

/// The series of a chart, in the order their first rows come in.
fn group(rows: &[&Row], axis: Along) -> Vec<Series> {
    let mut keys: Vec<Vec<String>> = Vec::new();
    for row in rows {
        let key = parts(row, axis);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let names = names(&keys);
    let floor = figure_name("floor");
    // A floor is drawn in the colour of what stands on it.
    let above = |key: &[String]| keys.iter().position(|other| other[0] != floor && other[1..] == key[1..]);
    keys.iter()
        .enumerate()
        .map(|(index, key)| {
            let ours = rows.iter().filter(|row| parts(row, axis) == *key);
            let mut points: Vec<Point> = ours.filter_map(|row| point(row, axis)).collect();
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            Series {
                name: names[index].clone(),
                points,
                ink: Ink::Series(above(key).unwrap_or(index)),
                stroke: if key[0] == floor { Stroke::Dashed } else { Stroke::Solid },
                main: index == 0,
            }
        })
        .collect()
}

/// A name for each key, of as few parts as tell them apart.
fn names(keys: &[Vec<String>]) -> Vec<String> {
    let told_by = |parts: &[usize]| -> Vec<String> {
        let name = |key: &Vec<String>| {
            let told: Vec<&str> =
                parts.iter().map(|&part| key[part].as_str()).filter(|text| !text.is_empty()).collect();
            told.join(", ")
        };
        keys.iter().map(name).collect()
    };
    let different = |names: &[String]| names.iter().collect::<BTreeSet<_>>().len();
    let mut parts = Vec::new();
    for part in 0..keys.first().map_or(0, Vec::len) {
        let mut more = parts.clone();
        more.push(part);
        if different(&told_by(&more)) > different(&told_by(&parts)) {
            parts = more;
        }
    }
    // One series alone bears the name of its figure.
    told_by(if parts.is_empty() { &[0] } else { &parts })
}

fn point(row: &Row, axis: Along) -> Option<Point> {
    Some(Point { x: along(row, axis)?, y: row.median, low: row.min, high: row.max })
}

/// What a figure is called on a plot.
fn figure_name(figure: &str) -> String {
    match figure {
        "engine" => "Weft's engine".to_owned(),
        "floor" => "floor (minimal loop)".to_owned(),
        "weft_pcap" => "weft-dataplane, net_pcap to net_null".to_owned(),
        "testpmd_macswap" => "testpmd macswap, net_pcap to net_null".to_owned(),
        "testpmd_io" => "testpmd io, net_pcap to net_null".to_owned(),
        "vhost_pdr" => "PDR over vhost-user".to_owned(),
        "vhost_ndr" => "NDR over vhost-user".to_owned(),
        "threads" => "Weft's engine".to_owned(),
        other => words(other),
    }
}

/// The conditions, in the order a reader asks for them.
fn conditions(run: &Run, rows: &[&Row]) -> Vec<String> {
    let c = &run.conditions;
    let or =
        |text: &str, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text.to_owned() };
    let listed = |told: Vec<String>| if told.is_empty() { "not stated".to_owned() } else { told.join(", ") };
    let counts = |value: fn(&Row) -> Option<u64>| {
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
        listed(distinct_numbers(rows, value).into_iter().map(|value| count(value as f64)).collect())
    };
    let exact = |value: fn(&Row) -> Option<u64>| {
        listed(distinct_numbers(rows, value).iter().map(u64::to_string).collect())
    };
    let rules: BTreeSet<&str> = rows.iter().filter_map(|row| row.loss_rule.as_deref()).collect();
    let rule = match (rules.is_empty(), rows.iter().all(|row| is_engine(row) || row.figure == "threads")) {
        (true, true) => "none is lost, packets are in memory".to_owned(),
        (true, false) => "not stated".to_owned(),
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
            or(&c.dpdk, "not used"),
            or(&c.rustc, "compiler not stated"),
            or(&c.pages, "not stated"),
        ),
        format!(
            "Flows: {} \u{b7} tokens: {} \u{b7} bytes of a frame: {} \u{b7} burst: {} \u{b7} loss rule: {rule} \u{b7} medians of {rounds} \
             rounds or more, whiskers from least to greatest \u{b7} {}: {}",
            counts(|row| row.flows),
            counts(|row| row.tokens),
            exact(|row| row.frame_bytes),
            exact(|row| row.burst),
            run.date,
            run.command,
        ),
    ]
}

/// A name of a file as words.
fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// A case as part of a file's name.
fn slug(case: &str) -> String {
    case.chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' })
        .collect()
}

fn values(series: &[Series], of: impl Fn(&Point) -> Vec<f64>) -> Vec<f64> {
    series.iter().flat_map(|series| &series.points).flat_map(of).collect()
}

fn distinct(rows: &[Row], of: impl Fn(&Row) -> Option<String>) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for value in rows.iter().filter_map(of) {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

fn distinct_numbers(rows: &[&Row], of: impl Fn(&Row) -> Option<u64>) -> Vec<u64> {
    rows.iter().filter_map(|row| of(row)).collect::<BTreeSet<u64>>().into_iter().collect()
}
