//! Rules for every text file: nothing that is true on one machine only, no unfinished note without a reason, no
//! link to a file that is not there.

use std::collections::BTreeSet;

use crate::finding::Finding;
use crate::source::words;
use crate::tree::File;

/// Where people keep their checkouts: such a path works for one of them. In pieces, or this file would be found.
const WORKPLACES: &[&str] = &[
    concat!("/", "home/"),
    concat!("/", "Users/"),
    concat!("/", "work/"),
    concat!("/", "farm/"),
    concat!("/", "tmp/weft/"),
];

/// Settings that point a package manager somewhere else: they belong to a machine, not to the project.
const REGISTRIES: &[&str] = &[
    concat!("[source", "."),
    concat!("[regis", "tries"),
    concat!("CARGO_REGIS", "TRIES"),
    concat!("GO", "PROXY"),
    concat!("index", "-url"),
];

/// The only registry a lock file may name.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Notes of unfinished work.
const NOTES: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

pub(super) fn check(file: &File, findings: &mut Vec<Finding>) {
    if file.path == "LICENSE" {
        return;
    }
    for (index, line) in file.text.lines().enumerate() {
        for place in WORKPLACES {
            if has_path(line, place) {
                let what = format!(
                    "names {place}, which exists on one machine only; make it relative or a parameter"
                );
                findings.push(Finding::new(&file.path, index + 1, what));
            }
        }
        for setting in REGISTRIES.iter().filter(|setting| line.contains(**setting)) {
            let what =
                format!("`{setting}` points to a registry of one machine; leave it to the environment");
            findings.push(Finding::new(&file.path, index + 1, what));
        }
        for note in NOTES {
            for at in words(line, note) {
                if !line.get(at + note.len()..).unwrap_or_default().starts_with('(') {
                    let what = format!("{note} without a reason; write {note}(why it waits), or do it");
                    findings.push(Finding::new(&file.path, index + 1, what));
                }
            }
        }
        if file.path.ends_with("Cargo.lock") && line.starts_with("source = ") && !line.contains(CRATES_IO) {
            findings.push(Finding::new(&file.path, index + 1, "a package that is not from crates.io"));
        }
    }
}

/// Whether `line` has `place` at the start of an absolute path.
fn has_path(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        !before.is_some_and(|c| c.is_alphanumeric() || "_-./~}$*".contains(c))
    })
}

/// Relative links of the documents.
pub(super) fn links(files: &[File], findings: &mut Vec<Finding>) {
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for file in files {
        known.insert(&file.path);
        for (at, _) in file.path.match_indices('/') {
            known.extend(file.path.get(..at));
        }
    }
    for file in files.iter().filter(|file| file.extension() == "md") {
        for (index, line) in file.text.lines().enumerate() {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let path = link.split('#').next().unwrap_or_default();
                if path.is_empty() || link.contains("://") || link.starts_with("mailto:") {
                    continue;
                }
                // What cannot be run, read or compiled is not listed; pictures are looked up by the reader.
                if !known.contains(resolve(&file.path, path).as_str()) {
                    findings.push(Finding::new(
                        &file.path,
                        index + 1,
                        format!("links to {path}, which is not there"),
                    ));
                }
            }
        }
    }
}

/// `link` as seen from the folder of `from`, without `.` and `..`.
fn resolve(from: &str, link: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use crate::tidy::tests::{complaints, file};

    #[test]
    fn a_path_of_one_machine_is_named_and_a_relative_one_is_not() {
        let text = concat!("see /", "work/shared/x\nand dataplane/", "work/y and $HOME/", "work/z\n");
        let found = complaints(&[file("docs/a.txt", text)]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("docs/a.txt:1: names "));
    }

    #[test]
    fn a_registry_of_one_machine_is_named() {
        let found = complaints(&[file("x/config.toml", concat!("[source", ".crates-io]\n"))]);
        assert_eq!(found.len(), 1);
        let found = complaints(&[file("Cargo.lock", "source = \"registry+https://mirror.example/index\"\n")]);
        assert_eq!(found, ["Cargo.lock:1: a package that is not from crates.io"]);
    }

    #[test]
    fn a_note_needs_a_reason() {
        let text = concat!("TO", "DO: later\nTO", "DO(issue 3): drain\n");
        let found = complaints(&[file("docs/a.txt", text)]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("docs/a.txt:1: "));
    }

    #[test]
    fn a_link_to_a_missing_file_is_named() {
        let files = [
            file(
                "docs/adr/0001-x.md",
                "[a](../b.md#part) [b](0002-y.md) [c](https://example.org) [d](../)\n",
            ),
            file("docs/b.md", "[self](#part) [up](../README.md)\n"),
            file("README.md", ""),
        ];
        assert_eq!(complaints(&files), ["docs/adr/0001-x.md:1: links to 0002-y.md, which is not there"]);
    }
}
