//! What was measured: the rows of a run, the conditions they were measured under, and the forms they are written in.
//!
//! One form for every figure, so that tables, CSV, plots and the documentation read the same file. A row without its
//! conditions is worth nothing: they are part of the file.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A run: everything one command measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The version of `weft-bench`.
    pub weft_bench: String,
    /// The day, `YYYY-MM-DD`.
    pub date: String,
    /// The command line that made it.
    pub command: String,
    /// What it was measured on.
    pub conditions: Conditions,
    /// The figures.
    pub series: Vec<Row>,
}

/// What a run was measured on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// The CPU, as the kernel names it.
    pub cpu: String,
    /// Megahertz of the time stamp counter; 0 where it is not known.
    pub tsc_mhz: u64,
    /// The kernel's version.
    pub kernel: String,
    /// DPDK's version; empty where no DPDK was used.
    pub dpdk: String,
    /// The compiler's version.
    pub rustc: String,
    /// Kind of the pages under the tables.
    pub pages: String,
    /// Logical CPUs of the machine.
    pub cores: u64,
}

/// One figure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What was measured: `engine`, `floor`, `weft_pcap`, `vhost_pdr`, `latency` and so on.
    pub figure: String,
    /// On which traffic: `established_v4` and so on.
    pub case: String,
    /// Flows in the table.
    pub flows: Option<u64>,
    /// Tokens in the table.
    pub tokens: Option<u64>,
    /// Bytes of a frame as received, without the frame check sequence.
    pub frame_bytes: Option<u64>,
    /// Packets judged at once.
    pub burst: Option<u64>,
    /// Workers, or threads.
    pub workers: Option<u64>,
    /// Whether frames were read from a buffer larger than the second-level cache.
    pub cold: bool,
    /// Unit of the figures: `ns`, `mpps`, `us`, `ratio`, `bytes`.
    pub unit: String,
    /// Median over the rounds.
    pub median: f64,
    /// Least of the rounds.
    pub min: f64,
    /// Greatest of the rounds.
    pub max: f64,
    /// How many rounds.
    pub rounds: u64,
    /// Median over the rounds of the ratio to the floor of the same round.
    pub floor_ratio: Option<f64>,
    /// What was aimed at, in the same unit.
    pub goal: Option<f64>,
    /// Which loss was allowed, where packets could be lost.
    pub loss_rule: Option<String>,
    /// Which percentile of a distribution this is, 0 to 100.
    pub percentile: Option<f64>,
    /// What else belongs to this figure.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

impl Run {
    /// Reads a run from a file.
    ///
    /// # Errors
    /// The file is not there, or holds no run.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} holds no run of weft-bench", path.display()))
    }

    /// As JSON, ended by a newline.
    ///
    /// # Errors
    /// None for numbers that are finite.
    pub fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self).context("a figure is not a number")? + "\n")
    }

    /// As CSV with a line of names, without the conditions.
    pub fn to_csv(&self) -> String {
        let names = "figure,case,flows,tokens,frame_bytes,burst,workers,cold,percentile,loss_rule,unit,median,min,max,rounds,floor_ratio,goal";
        let mut text = format!("{names}\n");
        for row in &self.series {
            let cells = [
                row.figure.clone(),
                row.case.clone(),
                optional(row.flows),
                optional(row.tokens),
                optional(row.frame_bytes),
                optional(row.burst),
                optional(row.workers),
                row.cold.to_string(),
                optional(row.percentile),
                quoted(row.loss_rule.as_deref().unwrap_or_default()),
                row.unit.clone(),
                format!("{:.3}", row.median),
                format!("{:.3}", row.min),
                format!("{:.3}", row.max),
                row.rounds.to_string(),
                row.floor_ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default(),
                optional(row.goal),
            ];
            // Writing to a String does not fail.
            let _ = writeln!(text, "{}", cells.join(","));
        }
        text
    }

    /// As a table for people, with the conditions in front.
    pub fn to_table(&self) -> String {
        let c = &self.conditions;
        let mut text = format!(
            "{} on {}, {} CPUs, TSC {} MHz\nLinux {}, {}, DPDK {}, {}\n\n",
            self.date,
            c.cpu,
            c.cores,
            c.tsc_mhz,
            c.kernel,
            c.rustc,
            if c.dpdk.is_empty() { "not used" } else { &c.dpdk },
            c.pages,
        );
        let _ = writeln!(
            text,
            "{:<18}{:<44}{:>10}{:>10}{:>10}{:>8}{:>8}",
            "figure", "case", "median", "min", "max", "x floor", "goal"
        );
        for row in &self.series {
            let ratio = row.floor_ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let _ = writeln!(
                text,
                "{:<18}{:<44}{:>10.2}{:>10.2}{:>10.2}{ratio:>8}{:>8} {}",
                row.figure,
                row.describe(),
                row.median,
                row.min,
                row.max,
                optional(row.goal),
                row.unit,
            );
        }
        text
    }
}

impl Row {
    /// The case with all that tells it from others of its name.
    pub fn describe(&self) -> String {
        let mut text = self.case.clone();
        let parts = [
            ("flows", self.flows),
            ("tokens", self.tokens),
            ("bytes", self.frame_bytes),
            ("burst", self.burst),
            ("workers", self.workers),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                let _ = write!(text, " {name}={}", short(value));
            }
        }
        if let Some(percentile) = self.percentile {
            let _ = write!(text, " p{percentile}");
        }
        if self.cold {
            text.push_str(" cold");
        }
        text
    }
}

/// A count with k or M where that loses nothing.
fn short(value: u64) -> String {
    match value {
        0 => "0".to_owned(),
        n if n % 1_000_000 == 0 => format!("{}M", n / 1_000_000),
        n if n % 1_000 == 0 => format!("{}k", n / 1_000),
        n => n.to_string(),
    }
}

fn optional<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// A CSV cell that may hold commas (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        let row = Row {
            figure: "engine".to_owned(),
            case: "established_v4".to_owned(),
            flows: Some(1_000_000),
            burst: Some(32),
            unit: "ns".to_owned(),
            median: 26.125,
            min: 25.0,
            max: 30.0,
            rounds: 9,
            floor_ratio: Some(1.2),
            goal: Some(26.0),
            loss_rule: Some("0.5 %, one-second trials".to_owned()),
            ..Row::default()
        };
        Run {
            weft_bench: "0.1.0".to_owned(),
            date: "2026-11-23".to_owned(),
            command: "weft-bench goals".to_owned(),
            conditions: Conditions { cpu: "a CPU".to_owned(), cores: 2, ..Conditions::default() },
            series: vec![row],
        }
    }

    #[test]
    fn a_run_comes_back_from_its_json() {
        let run = run();
        let back: Run = serde_json::from_str(&run.to_json().unwrap()).unwrap();
        assert_eq!(back, run);
    }

    #[test]
    fn every_row_has_as_many_cells_as_there_are_names() {
        let csv = run().to_csv();
        let mut lines = csv.lines();
        assert_eq!(lines.next().unwrap().split(',').count(), 17);
        let row = lines.next().unwrap();
        assert!(row.starts_with(
            "engine,established_v4,1000000,,,32,,false,,\"0.5 %, one-second trials\",ns,26.125,"
        ));
        // The loss rule's own comma is quoted.
        assert_eq!(row.split(',').count(), 18);
    }

    #[test]
    fn the_table_names_the_conditions_and_the_case() {
        let table = run().to_table();
        assert!(table.contains("a CPU") && table.contains("established_v4 flows=1M burst=32"), "{table}");
    }
}
