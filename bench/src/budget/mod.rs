//! `weft-bench budget`: counts that a test can hold, where times cannot be: instructions a packet, allocations, system
//! calls.
//!
//! It runs itself ([`case`], the hidden command `count`) under callgrind twice, on a few packets and on all of them, and
//! takes the difference: start-up and preparation are in both. A third run under strace shows the system calls between
//! two marks. [`file`] is what the figures are held to.

pub mod case;
pub mod file;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum as _};
use serde::Serialize;

use self::case::{BEGIN, Case, END, PACKETS};
use self::file::Budget;

/// Packets of the short run.
const FEW: u32 = 1024;

/// What `budget` is told.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The file of the budget.
    #[arg(long, value_name = "FILE", default_value = "bench/budget.toml")]
    pub file: PathBuf,
    /// Only this kind of packets; may be given more than once.
    #[arg(long, value_enum)]
    pub case: Vec<Case>,
    /// Writes what was counted into the file, instead of holding it to the file.
    #[arg(long)]
    pub renew: bool,
    /// Prints JSON.
    #[arg(long)]
    pub json: bool,
}

/// What was counted of one kind of packets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Counted {
    /// The kind.
    pub case: String,
    /// Instructions a packet.
    pub instructions: f64,
    /// Those the budget has for it.
    pub budget: Option<f64>,
    /// Those it may cost, the margin counted.
    pub most: Option<f64>,
    /// Allocations in all of the packets.
    pub allocations: u64,
    /// System calls in all of the packets: the trace's lines.
    pub system_calls: Vec<String>,
}

impl Counted {
    /// What is wrong with it, as sentences.
    fn complaints(&self) -> Vec<String> {
        let case = &self.case;
        let mut complaints = Vec::new();
        match self.most {
            None => complaints.push(format!("{case} has no budget: add it with weft-bench budget --renew")),
            Some(most) if self.instructions > most => complaints.push(format!(
                "{case} costs {:.1} instructions a packet, {most:.1} at most: see where they go with `valgrind \
                 --tool=callgrind weft-bench count {case}` and callgrind_annotate; if they are worth it, weft-bench \
                 budget --renew",
                self.instructions
            )),
            Some(_) => {}
        }
        if self.allocations > 0 {
            complaints.push(format!("{case}: {} allocations, where none may be", self.allocations));
        }
        if let Some(first) = self.system_calls.first() {
            let count = self.system_calls.len();
            complaints.push(format!("{case}: {count} system calls, where none may be; the first is {first}"));
        }
        complaints
    }

    /// The line of the table.
    fn line(&self) -> String {
        let budget = self.budget.map(|budget| format!("{budget:.1}")).unwrap_or_default();
        let change = self.budget.map(|budget| (self.instructions / budget - 1.0) * 100.0);
        format!(
            "{:<16}{:>14.1}{budget:>10}{:>9}{:>13}{:>14}",
            self.case,
            self.instructions,
            change.map(|change| format!("{change:+.1} %")).unwrap_or_default(),
            self.allocations,
            self.system_calls.len()
        )
    }
}

/// Counts everything and holds it to the budget, or renews the budget.
///
/// # Errors
/// A tool is missing, the engine did something else with the packets, or something is over its budget.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let rustc = env!("WEFT_RUSTC");
    let budget = match Budget::read(&options.file) {
        Err(_) if options.renew => Budget::default(),
        other => other?,
    };
    let cases = if options.case.is_empty() { Case::value_variants() } else { &options.case };
    let mut counted = Vec::new();
    for case in cases {
        counted.push(count(*case, &budget, rustc)?);
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&counted)?);
    } else {
        println!(
            "{:<16}{:>14}{:>10}{:>9}{:>13}{:>14}",
            "case", "instructions", "budget", "", "allocations", "system calls"
        );
        counted.iter().for_each(|counted| println!("{}", counted.line()));
    }
    if options.renew {
        return renew(options, budget, &counted, rustc);
    }
    let complaints: Vec<String> = counted.iter().flat_map(Counted::complaints).collect();
    if !complaints.is_empty() {
        bail!("{}", complaints.join("\n"));
    }
    if rustc != budget.rustc {
        eprintln!("the budget is of {}, this is built by {rustc}: a wider margin holds", budget.rustc);
    }
    Ok(())
}

fn renew(options: &Options, mut budget: Budget, counted: &[Counted], rustc: &str) -> anyhow::Result<()> {
    let figures: BTreeMap<String, f64> =
        counted.iter().map(|counted| (counted.case.clone(), counted.instructions)).collect();
    if options.case.is_empty() {
        budget.instructions = figures;
        rustc.clone_into(&mut budget.rustc);
    } else {
        budget.instructions.extend(figures);
    }
    budget.write(&options.file)
}

/// Counts one kind of packets.
fn count(case: Case, budget: &Budget, rustc: &str) -> anyhow::Result<Counted> {
    let folder = std::env::temp_dir().join(format!("weft-bench-budget-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let counted = count_in(&folder, case, budget, rustc);
    // What is left behind is small, and in the system's temporary folder.
    let _ = fs::remove_dir_all(&folder);
    counted
}

fn count_in(folder: &Path, case: Case, budget: &Budget, rustc: &str) -> anyhow::Result<Counted> {
    let name = case.name();
    let short = instructions(folder, &name, FEW)?;
    let long = instructions(folder, &name, PACKETS)?;
    #[expect(clippy::cast_precision_loss, reason = "a few million instructions")]
    let instructions = long.saturating_sub(short) as f64 / f64::from(PACKETS - FEW);
    let (allocations, system_calls) = traced(folder, &name)?;
    Ok(Counted {
        budget: budget.instructions.get(&name).copied(),
        most: budget.most(&name, rustc),
        case: name,
        instructions,
        allocations,
        system_calls,
    })
}

/// This program, to be run by another: `count` on so many packets.
fn itself(tool: &str, options: &[&OsStr], case: &str, packets: u32) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("cannot find this program itself")?;
    let mut command = Command::new(tool);
    command.args(options).arg(program).arg("count").arg(case).arg("--packets").arg(packets.to_string());
    command.stdin(Stdio::null());
    Ok(command)
}

/// Runs a command; what it said on both outputs.
fn said(tool: &str, mut command: Command) -> anyhow::Result<[String; 2]> {
    let output = command.output().with_context(|| {
        format!("cannot run {tool}: scripts/install installs it, on Debian so does apt-get install {tool}")
    })?;
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    if !output.status.success() {
        bail!("{tool} ended with {}: {}", output.status, stderr.trim_end());
    }
    Ok([stdout, stderr])
}

/// Instructions of a whole run.
fn instructions(folder: &Path, case: &str, packets: u32) -> anyhow::Result<u64> {
    let mut out = std::ffi::OsString::from("--callgrind-out-file=");
    out.push(folder.join("callgrind"));
    let tool = OsStr::new("--tool=callgrind");
    let [_, stderr] = said("valgrind", itself("valgrind", &[tool, &out], case, packets)?)?;
    let collected = stderr.lines().find_map(|line| line.split_once("Collected : "));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    count.with_context(|| format!("callgrind did not say what it collected: {stderr}"))
}

/// Allocations and system calls of a run, each between the marks.
fn traced(folder: &Path, case: &str) -> anyhow::Result<(u64, Vec<String>)> {
    let trace = folder.join("trace");
    let options = [OsStr::new("-f"), OsStr::new("-o"), trace.as_os_str()];
    let [stdout, _] = said("strace", itself("strace", &options, case, PACKETS)?)?;
    let allocations = stdout.trim().parse().context("count did not say how often memory was asked for")?;
    let trace = fs::read_to_string(&trace).context("strace left no trace")?;
    Ok((allocations, between(&trace).context("strace did not see the marks")?))
}

/// The lines of a trace between the last two marks: what came before was preparation.
fn between(trace: &str) -> Option<Vec<String>> {
    let lines: Vec<&str> = trace.lines().collect();
    let last = |mark: &str| lines.iter().rposition(|line| line.contains(mark.trim_end()));
    let (begin, end) = (last(BEGIN)?, last(END)?);
    let between = lines.get(begin + 1..end)?;
    Some(between.iter().map(|line| (*line).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_calls_between_the_last_marks_are_seen() {
        let mark = |text: &str| format!("7 write(2, \"{}\\n\", 24) = 24\n", text.trim_end());
        let quiet = [mark(BEGIN), "7 brk(0) = 1\n".to_owned(), mark(END), mark(BEGIN), mark(END)].concat();
        assert_eq!(between(&quiet), Some(vec![]));
        let loud = [mark(BEGIN), "7 brk(0) = 1\n".to_owned(), mark(END)].concat();
        assert_eq!(between(&loud), Some(vec!["7 brk(0) = 1".to_owned()]));
        assert_eq!(between("7 exit_group(0) = ?"), None);
    }

    #[test]
    fn whatever_is_over_is_said_with_what_to_do() {
        let counted = |instructions, most, allocations, calls: &[&str]| Counted {
            case: "join".to_owned(),
            instructions,
            budget: Some(500.0),
            most,
            allocations,
            system_calls: calls.iter().map(|call| (*call).to_owned()).collect(),
        };
        let said = |counted: Counted| counted.complaints().join("\n");
        assert_eq!(said(counted(510.0, Some(515.0), 0, &[])), "");
        assert!(
            said(counted(516.0, Some(515.0), 0, &[])).contains("516.0 instructions a packet, 515.0 at most")
        );
        assert!(said(counted(1.0, None, 0, &[])).contains("has no budget"));
        let both = said(counted(510.0, Some(515.0), 3, &["brk(0)"]));
        assert!(both.contains("3 allocations") && both.contains("the first is brk(0)"), "{both}");
    }
}
