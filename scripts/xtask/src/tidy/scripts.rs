//! Shell scripts: they stop at the first error, they parse, and they can be run.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::finding::Finding;
use crate::tree::File;

const STRICT: &str = "set -euo pipefail";

pub(super) fn check(file: &File, findings: &mut Vec<Finding>) {
    if !is_shell(file) {
        return;
    }
    if !file.text.lines().any(|line| line.trim() == STRICT) {
        findings.push(Finding::new(
            &file.path,
            1,
            format!("add `{STRICT}` near the top: an error must stop the script"),
        ));
    }
    if file.text.starts_with("#!") && !file.executable {
        findings.push(Finding::new(&file.path, 1, "has a `#!` line and cannot be run; chmod +x"));
    }
}

/// What bash itself says of the scripts.
pub(super) fn syntax(root: &Path, files: &[File]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| is_shell(file)) {
        let output =
            Command::new("bash").arg("-n").arg(root.join(&file.path)).output().context("cannot run bash")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            findings.push(Finding::new(
                &file.path,
                1,
                format!("bash -n: {}", said.lines().next().unwrap_or_default()),
            ));
        }
    }
    Ok(findings)
}

fn is_shell(file: &File) -> bool {
    let first = file.text.lines().next().unwrap_or_default();
    file.extension() == "sh" || (first.starts_with("#!") && first.ends_with("sh"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::{complaints, file};

    #[test]
    fn a_script_that_runs_on_after_an_error_is_named() {
        let found = complaints(&[file("scripts/x", "#!/usr/bin/env bash\ntrue\n")]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("set -euo pipefail"));
    }

    #[test]
    fn a_script_that_cannot_be_run_is_named() {
        let script = File { executable: false, ..file("scripts/x", "#!/bin/bash\nset -euo pipefail\n") };
        assert_eq!(complaints(&[script]), ["scripts/x:1: has a `#!` line and cannot be run; chmod +x"]);
    }

    #[test]
    fn a_script_that_does_not_parse_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let text = "#!/bin/bash\nset -euo pipefail\nif true; then\n";
        std::fs::write(folder.path().join("x"), text).unwrap();
        let found = syntax(folder.path(), &[file("x", text)]).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].what.starts_with("bash -n: "));
    }
}
