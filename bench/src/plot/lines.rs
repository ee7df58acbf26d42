//! Which rows of a run are one line of a chart, and what that line is called.
//!
//! Rows of one figure and case, one burst size and one way of reading frames are one line, each at its place on the
//! axis. Only where two of them would lie at the same place does what else differs part them: loss rule, frame size,
//! workers, tokens, flows. A name holds no more than tells a line from the others of its chart; what they share stands in
//! the conditions.

use std::collections::BTreeSet;

use crate::report::{Row, Run};

use super::axis::count;
use super::chart::{Point, Series};
use super::scene::{Ink, Stroke};

/// What a horizontal axis shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Along {
    Flows,
    Tokens,
    Workers,
    Frame,
    Percentile,
}

/// Rows that are one line: by ascending place, no two at one.
pub(crate) struct Line<'a> {
    key: Vec<String>,
    pub(crate) rows: Vec<&'a Row>,
}

/// Parts of a key that always part lines; the others do where they must.
const ALWAYS: usize = 5;
/// The part of a key that is the case.
const CASE: usize = 1;

/// Where a row lies along an axis.
fn place(row: &Row, along: Along) -> Option<f64> {
    let number = |value: Option<u64>| value.map(float);
    match along {
        Along::Flows => number(row.flows),
        Along::Tokens => number(row.tokens),
        Along::Workers => number(row.workers),
        Along::Frame => number(row.frame_bytes),
        Along::Percentile => row.percentile,
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(crate) fn float(value: u64) -> f64 {
    value as f64
}

/// The lines of two points or more among the rows that are wanted, in the order their first rows come in.
pub(crate) fn lines(run: &Run, along: Along, wanted: impl Fn(&Row) -> bool) -> Vec<Line<'_>> {
    let drawable = |row: &&Row| {
        wanted(row)
            && row.median.is_finite()
            && row.median > 0.0
            && place(row, along).is_some_and(|x| x > 0.0)
    };
    let mut groups: Vec<(Vec<String>, Vec<&Row>)> = Vec::new();
    for row in run.series.iter().filter(drawable) {
        let key = parts(row, along);
        match groups.iter_mut().find(|(other, _)| other[..ALWAYS] == key[..ALWAYS]) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((key, vec![row])),
        }
    }
    groups.into_iter().flat_map(|(_, rows)| parted(&rows, along)).filter(|line| line.rows.len() > 1).collect()
}

/// Parts rows until no two of a line lie at one place, if anything they differ in does that.
fn parted<'a>(rows: &[&'a Row], along: Along) -> Vec<Line<'a>> {
    let mut used = 0;
    let mut best = split(rows, along, &[]);
    let mut by: Vec<usize> = Vec::new();
    let total = parts(rows[0], along).len();
    while ALWAYS + used < total {
        let more: Vec<usize> = by.iter().copied().chain([ALWAYS + used]).collect();
        used += 1;
        let lines = split(rows, along, &more);
        if crowded(&lines, along) < crowded(&best, along) {
            (best, by) = (lines, more);
        }
    }
    for line in &mut best {
        line.rows.sort_by(|a, b| {
            place(a, along).partial_cmp(&place(b, along)).unwrap_or(std::cmp::Ordering::Equal)
        });
        // What was measured twice under the same conditions is drawn once.
        line.rows.dedup_by(|a, b| place(a, along) == place(b, along));
    }
    best
}

/// Lines by the parts that always count and those of `by`.
fn split<'a>(rows: &[&'a Row], along: Along, by: &[usize]) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'a>> = Vec::new();
    for &row in rows {
        let mut key = parts(row, along);
        for (index, part) in key.iter_mut().enumerate() {
            if index >= ALWAYS && !by.contains(&index) {
                part.clear();
            }
        }
        match lines.iter_mut().find(|line| line.key == key) {
            Some(line) => line.rows.push(row),
            None => lines.push(Line { key, rows: vec![row] }),
        }
    }
    lines
}

/// How many rows share their place with another of their line.
fn crowded(lines: &[Line<'_>], along: Along) -> usize {
    let taken = |line: &Line<'_>| {
        let places: BTreeSet<u64> =
            line.rows.iter().filter_map(|row| place(row, along)).map(f64::to_bits).collect();
        line.rows.len() - places.len()
    };
    lines.iter().map(taken).sum()
}

/// Everything that tells a row from others but its place on the axis, each with its words.
fn parts(row: &Row, axis: Along) -> Vec<String> {
    let told = |value: Option<u64>, unit: &str| {
        value.map(|value| format!("{} {unit}", count(float(value)))).unwrap_or_default()
    };
    let percentile = row.percentile.filter(|_| axis != Along::Percentile);
    let mut parts = vec![
        figure_name(&row.figure),
        words(&row.case),
        row.burst.map(|burst| format!("bursts of {burst}")).unwrap_or_default(),
        (if row.cold { "frames not in cache" } else { "" }).to_owned(),
        percentile.map(|percentile| format!("p{percentile}")).unwrap_or_default(),
        row.loss_rule.clone().unwrap_or_default(),
    ];
    for (own, value, unit) in [
        (Along::Frame, row.frame_bytes, "bytes"),
        (Along::Workers, row.workers, "workers"),
        (Along::Tokens, row.tokens, "tokens"),
        (Along::Flows, row.flows, "flows"),
    ] {
        parts.push(if own == axis { String::new() } else { told(value, unit) });
    }
    parts
}

/// The words that all cases of a chart begin with.
pub(crate) fn shared_case(lines: &[Line<'_>]) -> String {
    let cases: Vec<Vec<&str>> = lines.iter().map(|line| line.key[CASE].split(' ').collect()).collect();
    let Some(first) = cases.first() else { return String::new() };
    let same = |at: usize| cases.iter().all(|case| case.get(at) == first.get(at));
    first[..(0..first.len()).take_while(|&at| same(at)).count()].join(" ")
}

/// The lines as series: in colours, with names, the first one as what the chart is about.
pub(crate) fn series(lines: &[Line<'_>], along: Along) -> Vec<Series> {
    let shared = shared_case(lines);
    let keys: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            let mut key = line.key.clone();
            // What is said once for all needs no saying in each name.
            key[CASE] = key[CASE].strip_prefix(shared.as_str()).unwrap_or(&line.key[CASE]).trim().to_owned();
            key
        })
        .collect();
    let names = names(&keys);
    let floor = figure_name("floor");
    let engine = figure_name("engine");
    // A floor is drawn in the colour of what stands on it.
    fn colour<'k>(key: &'k [String], pair: &[&str]) -> &'k [String] {
        if pair.contains(&key[0].as_str()) { &key[1..] } else { key }
    }
    let pair = [engine.as_str(), floor.as_str()];
    let mut colours: Vec<&[String]> = Vec::new();
    for key in &keys {
        if !colours.contains(&colour(key, &pair)) {
            colours.push(colour(key, &pair));
        }
    }
    let ink = |key: &[String]| colours.iter().position(|&other| other == colour(key, &pair));
    lines
        .iter()
        .zip(&keys)
        .zip(names)
        .enumerate()
        .map(|(index, ((line, key), name))| Series {
            name,
            points: line.rows.iter().filter_map(|row| point(row, along)).collect(),
            ink: Ink::Series(ink(key).unwrap_or(index)),
            stroke: if key[0] == floor { Stroke::Dashed } else { Stroke::Solid },
            main: index == 0,
        })
        .collect()
}

fn point(row: &Row, along: Along) -> Option<Point> {
    Some(Point { x: place(row, along)?, y: row.median, low: row.min, high: row.max })
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
    // What nothing tells from others bears the name of its figure.
    told_by(&parts)
        .into_iter()
        .zip(keys)
        .map(|(name, key)| if name.is_empty() { key[0].clone() } else { name })
        .collect()
}

/// What a figure is called on a plot.
fn figure_name(figure: &str) -> String {
    match figure {
        "engine" | "threads" => "Weft's engine".to_owned(),
        "floor" => "floor (minimal loop)".to_owned(),
        "floor_hash" => "floor: parse and hash".to_owned(),
        "floor_line" => "floor: and one table line".to_owned(),
        "weft_pcap" => "weft-dataplane".to_owned(),
        "testpmd_macswap" => "testpmd macswap".to_owned(),
        "testpmd_io" => "testpmd io".to_owned(),
        "vhost_pdr" => "PDR".to_owned(),
        "vhost_ndr" => "NDR".to_owned(),
        "vhost_most" => "most that comes back".to_owned(),
        other => words(other),
    }
}

/// A case or figure as words.
pub(crate) fn words(name: &str) -> String {
    name.replace("_v4", ", IPv4").replace("_v6", ", IPv6").replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Conditions;

    #[test]
    fn a_floor_has_the_colour_of_its_engine() {
        let mut run = run(&[]);
        for (burst, figure) in
            [(32, "engine"), (32, "floor"), (64, "engine"), (64, "floor"), (64, "floor_line")]
        {
            for flows in [1000, 2000] {
                let (burst, flows) = (Some(burst), Some(flows));
                run.series.push(Row {
                    burst,
                    flows,
                    figure: figure.to_owned(),
                    median: 1.0,
                    ..Row::default()
                });
            }
        }
        let inks: Vec<Ink> = series(&lines(&run, Along::Flows, |_| true), Along::Flows)
            .iter()
            .map(|series| series.ink)
            .collect();
        assert_eq!(inks, [0, 0, 1, 1, 2].map(Ink::Series));
    }

    #[test]
    fn what_all_cases_begin_with_is_in_no_name() {
        let mut run = run(&[
            ("latency", 1, 1, 5.0),
            ("latency", 2, 1, 6.0),
            ("latency", 1, 1, 7.0),
            ("latency", 2, 1, 8.0),
        ]);
        for (row, case) in run.series.iter_mut().zip([
            "weft vhost 10 %",
            "weft vhost 10 %",
            "weft vhost 90 %",
            "weft vhost 90 %",
        ]) {
            row.case = case.to_owned();
        }
        let lines = lines(&run, Along::Flows, |_| true);
        assert_eq!(shared_case(&lines), "weft vhost");
        let names: Vec<String> = series(&lines, Along::Flows).into_iter().map(|series| series.name).collect();
        assert_eq!(names, ["10 %", "90 %"]);
    }

    fn run(rows: &[(&str, u64, u64, f64)]) -> Run {
        let row = |&(figure, flows, tokens, median): &(&str, u64, u64, f64)| Row {
            figure: figure.to_owned(),
            flows: Some(flows),
            tokens: Some(tokens),
            median,
            ..Row::default()
        };
        Run {
            weft_bench: String::new(),
            date: String::new(),
            command: String::new(),
            conditions: Conditions::default(),
            series: rows.iter().map(row).collect(),
        }
    }

    fn shapes(run: &Run, along: Along) -> Vec<(String, usize)> {
        let lines = lines(run, along, |_| true);
        series(&lines, along).into_iter().map(|series| (series.name, series.points.len())).collect()
    }

    #[test]
    fn tokens_that_grow_with_the_flows_do_not_part_a_line() {
        let run =
            run(&[("engine", 1000, 900, 16.0), ("engine", 64_000, 60_000, 20.0), ("floor", 1000, 900, 12.0)]);
        assert_eq!(shapes(&run, Along::Flows), [("Weft's engine".to_owned(), 2)]);
    }

    #[test]
    fn what_would_lie_at_one_place_is_parted_by_what_differs() {
        let rows = [("a", 1000, 1, 1.0), ("a", 2000, 1, 2.0), ("a", 1000, 2, 3.0), ("a", 2000, 2, 4.0)];
        let shapes = shapes(&run(&rows), Along::Flows);
        assert_eq!(shapes, [("1 tokens".to_owned(), 2), ("2 tokens".to_owned(), 2)]);
    }

    #[test]
    fn points_are_in_the_order_of_the_axis_and_none_is_drawn_twice() {
        let run = run(&[("a", 3000, 1, 3.0), ("a", 1000, 1, 1.0), ("a", 2000, 1, 2.0), ("a", 1000, 1, 1.5)]);
        let lines = lines(&run, Along::Flows, |_| true);
        let points: Vec<f64> = series(&lines, Along::Flows)[0].points.iter().map(|point| point.x).collect();
        assert_eq!(points, [1000.0, 2000.0, 3000.0]);
    }
}
