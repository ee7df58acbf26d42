//! `weft-bench merge`: several runs as one, so that a table and its plots are of one file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::report::{Conditions, Run};

/// Arguments of `merge`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The runs' JSON files.
    #[arg(value_name = "RUN.json", required = true)]
    pub runs: Vec<PathBuf>,
    /// Where the run goes, as JSON; beside it, as CSV.
    #[arg(long, value_name = "RUN.json")]
    pub out: PathBuf,
    /// The command line that made them all.
    #[arg(long, value_name = "COMMAND")]
    pub command: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// A file holds no run, the runs are of several machines, or the result cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let runs = args.runs.iter().map(|path| Run::read(path)).collect::<anyhow::Result<Vec<Run>>>()?;
    let mut whole = merged(runs)?;
    if let Some(command) = &args.command {
        whole.command.clone_from(command);
    }
    let csv = args.out.with_extension("csv");
    write(&args.out, &whole.to_json()?)?;
    write(&csv, &whole.to_csv())?;
    print!("{}", whole.to_table());
    Ok(())
}

/// A file gets its name when it is whole.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, text)
        .and_then(|()| fs::rename(&part, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// One run with the rows of all. What one says of the machine and another does not, it says.
fn merged(runs: Vec<Run>) -> anyhow::Result<Run> {
    let mut runs = runs.into_iter();
    let Some(mut whole) = runs.next() else { bail!("there is no run") };
    for run in runs {
        let (ours, theirs) = (&mut whole.conditions, run.conditions);
        if (ours.cpu.as_str(), ours.cores) != (theirs.cpu.as_str(), theirs.cores) {
            bail!(
                "the runs are of two machines: {} with {} CPUs, {} with {}",
                ours.cpu,
                ours.cores,
                theirs.cpu,
                theirs.cores
            );
        }
        whole.conditions = both(ours, theirs);
        whole.command = format!("{}; {}", whole.command, run.command);
        whole.series.extend(run.series);
    }
    Ok(whole)
}

fn both(ours: &Conditions, theirs: Conditions) -> Conditions {
    let either = |ours: &str, theirs: String| match (ours, theirs) {
        ("", theirs) => theirs,
        (ours, theirs) if theirs.is_empty() || theirs == ours => ours.to_owned(),
        (ours, theirs) => format!("{ours}; {theirs}"),
    };
    Conditions {
        cpu: ours.cpu.clone(),
        tsc_mhz: ours.tsc_mhz.max(theirs.tsc_mhz),
        kernel: either(&ours.kernel, theirs.kernel),
        dpdk: either(&ours.dpdk, theirs.dpdk),
        rustc: either(&ours.rustc, theirs.rustc),
        pages: either(&ours.pages, theirs.pages),
        cores: ours.cores,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Row;

    fn run(figure: &str, cpu: &str, dpdk: &str, pages: &str) -> Run {
        let [cpu, dpdk, pages] = [cpu, dpdk, pages].map(str::to_owned);
        Run {
            weft_bench: "1".to_owned(),
            date: "2026-11-23".to_owned(),
            command: format!("weft-bench {figure}"),
            conditions: Conditions { cpu, cores: 2, dpdk, pages, ..Conditions::default() },
            series: vec![Row { figure: figure.to_owned(), ..Row::default() }],
        }
    }

    #[test]
    fn one_run_has_the_rows_of_all_and_what_any_says_of_the_machine() {
        let whole =
            merged(vec![run("engine", "c", "", "huge"), run("latency", "c", "22.11", "small")]).unwrap();
        let figures: Vec<&str> = whole.series.iter().map(|row| row.figure.as_str()).collect();
        assert_eq!(figures, ["engine", "latency"]);
        assert_eq!(
            (whole.conditions.dpdk.as_str(), whole.conditions.pages.as_str()),
            ("22.11", "huge; small")
        );
        assert_eq!(whole.command, "weft-bench engine; weft-bench latency");
    }

    #[test]
    fn runs_of_two_machines_are_not_one() {
        let said =
            merged(vec![run("engine", "a", "", ""), run("engine", "b", "", "")]).unwrap_err().to_string();
        assert!(said.contains("two machines: a with 2 CPUs, b with 2"), "{said}");
    }
}
