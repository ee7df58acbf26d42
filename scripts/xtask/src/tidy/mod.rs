//! The shape of the tree, held by a program.
//!
//! Each check takes the files and gives complaints; none knows of another. There is no list of exceptions: a rule
//! that needs one is wrong, or the code is.

mod arrows;
mod packet_path;
mod rust;
mod scripts;
mod text;

use std::path::Path;

use anyhow::Result;

use crate::finding::Finding;
use crate::source::Source;
use crate::tree::{self, File};

/// Runs every check over the checkout.
pub fn run(root: &Path) -> Result<Vec<Finding>> {
    let files = tree::files(root)?;
    let mut findings = check(&files);
    findings.extend(scripts::syntax(root, &files)?);
    findings.sort();
    Ok(findings)
}

/// The checks that need nothing but the text.
fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        text::check(file, &mut findings);
        scripts::check(file, &mut findings);
        if file.extension() == "rs" {
            let source = Source::new(&file.path, &file.text, file.is_test());
            rust::check(&source, &mut findings);
            packet_path::check(&source, &mut findings);
        }
    }
    text::links(files, &mut findings);
    rust::dead_files(files, &mut findings);
    arrows::check(files, &mut findings);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One file, as the checks take it.
    pub fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned(), executable: true }
    }

    /// What all checks say about a tree.
    pub fn complaints(files: &[File]) -> Vec<String> {
        check(files).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_tree_without_faults_has_no_complaint() {
        let files = [
            file("dataplane/packet/src/lib.rs", "//! Why.\n#![no_std]\n#![forbid(unsafe_code)]\nmod tcp;\n"),
            file("dataplane/packet/src/tcp.rs", "//! Why.\nfn total() {}\n"),
            file(
                "dataplane/packet/Cargo.toml",
                "[package]\nname = \"packet\"\n[lints]\nworkspace = true\n[dependencies]\nsha2 = \"1\"\n",
            ),
            file("scripts/demo", "#!/usr/bin/env bash\nset -euo pipefail\n"),
            file("README.md", "See [the parser](dataplane/packet/src/tcp.rs).\n"),
        ];
        assert_eq!(complaints(&files), Vec::<String>::new());
    }

    #[test]
    fn this_checkout_is_read_without_an_error() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let files = tree::files(&root).unwrap();
        assert!(files.iter().any(|file| file.path == "Cargo.toml"));
        check(&files);
    }
}
