//! Plots of a small run: every picture is whole, and says what it shows and under which conditions.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tests; pixels of a picture"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use weft_bench::plot;
use weft_bench::report::{Conditions, Row, Run};

fn row(figure: &str, case: &str, unit: &str, median: f64) -> Row {
    Row {
        figure: figure.to_owned(),
        case: case.to_owned(),
        frame_bytes: Some(86),
        burst: Some(32),
        workers: Some(1),
        unit: unit.to_owned(),
        median,
        min: median * 0.9,
        max: median * 1.2,
        rounds: 9,
        ..Row::default()
    }
}

fn run() -> Run {
    let mut series = Vec::new();
    for (flows, engine, floor) in [(1_000, 16.0, 13.0), (64_000, 20.0, 16.0), (1_000_000, 26.0, 21.0)] {
        let flows = Some(flows);
        series.push(Row { flows, ..row("engine", "established_v4", "ns", engine) });
        series.push(Row { flows, ..row("floor", "established_v4", "ns", floor) });
        series.push(Row { flows, cold: true, ..row("engine", "established_v4", "ns", engine * 1.3) });
        series.push(Row { flows, burst: Some(64), ..row("engine", "established_v4", "ns", engine * 0.9) });
        series.push(Row { flows, ..row("engine", "established_v6", "ns", engine * 1.1) });
    }
    for (tokens, hit) in [(1_000_000, 50.0), (10_000_000, 57.0)] {
        series.push(Row { tokens: Some(tokens), ..row("engine", "join_known", "ns", hit) });
    }
    for (workers, mpps) in [(1, 41.0), (2, 78.0)] {
        let flows = Some(1_000_000);
        series.push(Row { workers: Some(workers), flows, ..row("threads", "mix", "mpps", mpps) });
    }
    for (bytes, mpps) in [(60, 9.0), (1514, 2.5)] {
        for (figure, rule, share) in
            [("vhost_pdr", "0.5 % lost <1 s>", 1.0), ("vhost_ndr", "none & never", 0.7)]
        {
            let (frame_bytes, loss_rule) = (Some(bytes), Some(rule.to_owned()));
            series.push(Row { frame_bytes, loss_rule, ..row(figure, "mix", "mpps", mpps * share) });
        }
    }
    for percentile in [50.0, 90.0, 99.0, 99.9, 100.0] {
        let extra = [("loss".to_owned(), (percentile / 1e5).into())].into_iter().collect();
        series.push(Row {
            percentile: Some(percentile),
            extra,
            ..row("latency", "half of PDR", "us", percentile)
        });
    }
    Run {
        weft_bench: "0.1.0".to_owned(),
        date: "2026-11-23".to_owned(),
        command: "weft-bench goals --rounds 9".to_owned(),
        conditions: Conditions {
            cpu: "A & B <CPU> \"3\"\u{0}".to_owned(),
            tsc_mhz: 2600,
            kernel: "6.18.44".to_owned(),
            dpdk: "DPDK 22.11.11".to_owned(),
            rustc: "rustc 1.95.0".to_owned(),
            pages: "2 MiB".to_owned(),
            cores: 2,
        },
        series,
    }
}

/// All text of an SVG, as a reader sees it, with lines joined by blanks.
fn text(svg: &Path) -> String {
    let source = fs::read_to_string(svg).unwrap();
    let document =
        roxmltree::Document::parse(&source).unwrap_or_else(|error| panic!("{}: {error}", svg.display()));
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "svg", "{}", svg.display());
    let lines: Vec<&str> = document
        .descendants()
        .filter(|node| node.has_tag_name((root.tag_name().namespace().unwrap(), "text")))
        .filter_map(|node| node.text())
        .collect();
    lines.join(" ")
}

#[test]
fn every_plot_names_its_series_and_all_its_conditions() {
    let out = tempfile::tempdir().unwrap();
    let files = plot::draw(&run(), out.path()).unwrap();
    let names: BTreeSet<String> =
        files.iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let of_each_plot: [(&str, &[&str]); 7] = [
        (
            "ns-flows-established-v4",
            &[
                "Weft's engine",
                "floor (minimal loop)",
                "frames not in cache",
                "Katran (XDP), flow in its LRU",
                "DPVS, tunnel, less I/O",
                "Hollow marks are reference points, not measured in this run",
                "1 k, 64 k, 1 M",
                "none is lost",
            ],
        ),
        ("ns-flows-established-v4-bursts", &["bursts of 32", "bursts of 64", "burst: 32, 64"]),
        ("ns-flows-established-v6", &["Weft's engine", "established, IPv6"]),
        ("ns-tokens", &["tokens: 1 M, 10 M", "Weft's engine"]),
        ("mpps-workers", &["Weft's engine", "in proportion to workers", "none is lost"]),
        ("mpps-frame", &["PDR", "NDR", "10 Gb/s link", "0.5 % lost <1 s>; none & never"]),
        ("latency", &["99.9 %", "greatest", "loss rule: any loss, it was 0.1 % at most"]),
    ];
    let expected: BTreeSet<String> =
        of_each_plot.iter().flat_map(|(name, _)| [format!("{name}.svg"), format!("{name}.png")]).collect();
    assert_eq!(names, expected);
    let conditions = [
        "CPU: A & B <CPU> \"3\"",
        "2 logical CPUs",
        "TSC 2600 MHz",
        "Linux 6.18.44",
        "DPDK: 22.11.11",
        "rustc 1.95.0",
        "pages of tables: 2 MiB",
        "Flows: ",
        "tokens: ",
        "bytes of a frame: ",
        "burst: ",
        "loss rule: ",
        "medians of 9 rounds",
        "2026-11-23: weft-bench goals --rounds 9",
    ];
    for (name, own) in of_each_plot {
        let told = text(&out.path().join(format!("{name}.svg")));
        for wanted in conditions.iter().chain(own) {
            assert!(told.contains(wanted), "{name}.svg does not say {wanted:?}; it says: {told}");
        }
    }
}

#[test]
fn a_plot_without_reference_points_does_not_speak_of_them() {
    let out = tempfile::tempdir().unwrap();
    plot::draw(&run(), out.path()).unwrap();
    for name in ["ns-flows-established-v6", "ns-flows-established-v4-bursts", "mpps-workers", "latency"] {
        let told = text(&out.path().join(format!("{name}.svg")));
        assert!(!told.contains("Katran") && !told.contains("Hollow"), "{name}: {told}");
    }
}

#[test]
fn the_png_shows_what_the_svg_shows_at_twice_its_size() {
    let out = tempfile::tempdir().unwrap();
    plot::draw(&run(), out.path()).unwrap();
    let png = tiny_skia::Pixmap::load_png(out.path().join("ns-flows-established-v4.png")).unwrap();
    let source = fs::read_to_string(out.path().join("ns-flows-established-v4.svg")).unwrap();
    let document = roxmltree::Document::parse(&source).unwrap();
    let size = |name: &str| document.root_element().attribute(name).unwrap().parse::<f32>().unwrap();
    assert_eq!(
        (png.width(), png.height()),
        ((size("width") * 2.0) as u32, (size("height") * 2.0).round() as u32)
    );
    assert!(png.pixels().iter().all(|pixel| pixel.alpha() == 255), "it is read on pages of any colour");
    // The first mark of the first measured series, where the SVG has it: its colour, not paper.
    let mark =
        document.descendants().find(|node| node.attribute("class") == Some("s0") && node.has_attribute("cx"));
    let place = |name: &str| (mark.unwrap().attribute(name).unwrap().parse::<f32>().unwrap() * 2.0) as u32;
    let pixel = png.pixel(place("cx"), place("cy")).unwrap();
    assert!(pixel.blue() > 150 && pixel.red() < 60, "{pixel:?}");
}

#[test]
fn a_run_without_lines_is_refused_and_leaves_nothing() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("plots");
    let mut single = run();
    single.series.truncate(1);
    let error = plot::draw(&single, &folder).unwrap_err().to_string();
    assert!(error.contains("no rows for a plot"), "{error}");
    assert!(!folder.exists());
}

#[test]
fn a_figure_that_is_no_number_is_left_out() {
    let out = tempfile::tempdir().unwrap();
    let mut broken = run();
    for row in &mut broken.series {
        if row.case == "established_v6" {
            row.median = f64::NAN;
        }
    }
    let files = plot::draw(&broken, out.path()).unwrap();
    assert!(!files.iter().any(|file| file.to_string_lossy().contains("v6")), "{files:?}");
}
