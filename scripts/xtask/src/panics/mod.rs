//! The machine code of the packet path has no way to a panic, an allocation or the system.
//!
//! Lints say what the source may not write; only the compiled program says what the optimiser could not remove. So
//! the release binary is disassembled and every function that can be reached by direct calls from the worker's
//! poll is looked at. Stated limits: the walk ends at DPDK (its burst functions are C, and call the driver through
//! a pointer), and a `jmp` through a register counts as the jump table of a `match`, not as a call.

mod disassembly;
mod registers;
mod walk;

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::finding::Finding;
use disassembly::Program;

/// Where the packet path begins.
const ROOTS: &[&str] = &["weft_dataplane::worker::Worker::poll"];

/// Checks `binary`, or the release build of weft-dataplane, from `roots` or the usual ones.
pub fn run(root: &Path, binary: Option<PathBuf>, roots: &[String]) -> Result<Vec<Finding>> {
    let binary = match binary {
        Some(binary) => binary,
        None => build(root)?,
    };
    let usual: Vec<String> = ROOTS.iter().map(|root| (*root).to_owned()).collect();
    let roots = if roots.is_empty() { &usual } else { roots };
    let program = disassemble(&binary)?;
    let walk = walk::walk(&program, roots)?;
    println!(
        "{}: {} functions from {} reached, {} faults",
        binary.display(),
        walk.visited,
        roots.join(", "),
        walk.faults.len()
    );
    let name = binary.display().to_string();
    Ok(walk.faults.into_iter().map(|fault| Finding::new(&name, 0, fault)).collect())
}

fn build(root: &Path) -> Result<PathBuf> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(root)
        .args(["build", "--release", "--package", "weft-dataplane"])
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "weft-dataplane does not build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/weft-dataplane"))
}

fn disassemble(binary: &Path) -> Result<Program> {
    ensure!(binary.is_file(), "no file {}; build it first", binary.display());
    let mut program = Program::default();
    objdump(binary, &["-d", "--no-show-raw-insn", "-C"], |lines| program.read_code(lines))?;
    // Calls into shared libraries go through slots that the loader fills.
    objdump(binary, &["-R"], |lines| program.read_slots(lines))?;
    ensure!(!program.is_empty(), "{} has no symbols; build it without strip", binary.display());
    Ok(program)
}

/// Runs objdump and gives its output to `read`, line by line: it may be hundreds of megabytes.
fn objdump(
    binary: &Path,
    options: &[&str],
    read: impl FnOnce(BufReader<std::process::ChildStdout>) -> Result<()>,
) -> Result<()> {
    let mut child = Command::new("objdump")
        .args(options)
        .arg(binary)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run objdump; install the package binutils")?;
    let Some(output) = child.stdout.take() else { bail!("objdump has no output") };
    let read = read(BufReader::new(output));
    // A program without dynamic relocations is refused by -R; that is an empty list, not a fault.
    let status = child.wait()?;
    read?;
    ensure!(status.success() || options == ["-R"], "objdump failed on {}", binary.display());
    Ok(())
}
