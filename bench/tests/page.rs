//! docs/performance.md says what the run it was made from says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

use std::fs;
use std::path::Path;

use weft_bench::page::filled;
use weft_bench::report::Run;

#[test]
fn the_tables_of_the_performance_page_are_those_of_the_run_whose_plot_it_shows() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let page = fs::read_to_string(docs.join("performance.md")).unwrap();
    let (_, link) = page.split_once("](../bench/runs/").expect("the page shows a plot of its run");
    let (recorded, _) = link.split_once('/').expect("a run is a folder");
    let run = Run::read(&docs.join("../bench/runs").join(recorded).join("run.json")).unwrap();
    let expected = filled(&page, &run).unwrap();
    assert!(
        page == expected,
        "made again by: weft-bench page bench/runs/{recorded}/run.json docs/performance.md"
    );
}
