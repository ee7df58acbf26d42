//! Rules for every Rust file: length, functions that fit a screen, a header that says why, unsafe and atomics
//! only where they are proved, names that say something, no file that nobody compiles.

use crate::finding::Finding;
use crate::source::{Source, words};
use crate::tree::File;

/// Lines of a file, without its tests.
const FILE_LINES: usize = 500;
/// Lines of a function.
const FUNCTION_LINES: usize = 70;

/// Where `unsafe` may stand: folders end in a slash. Each of these files proves each of its blocks.
const UNSAFE: &[&str] = &[
    "dpdk-sys/",
    "dataplane/dpdk/src/",
    "dataplane/ipc/src/lines.rs",
    "dataplane/ipc/src/ring.rs",
    // AES instructions.
    "dataplane/ipc/src/scramble.rs",
    "dataplane/ipc/src/segment.rs",
    // The allocator that counts, which proves that nothing else allocates.
    "dataplane/engine/tests/no_alloc.rs",
    "bench/src/alloc.rs",
];

/// Crates with such a place: their roots say `deny`, all others say `forbid`.
const UNSAFE_CRATES: &[&str] = &["dpdk-sys/", "dataplane/dpdk/", "dataplane/ipc/", "bench/"];

/// The loom facade.
const FACADE: &str = "dataplane/ipc/src/sync.rs";

/// Crates that loom checks.
const MODELLED: &[&str] = &["dataplane/ipc/src/", "dataplane/engine/src/"];

/// Module names that say nothing.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc"];

pub(super) fn check(source: &Source<'_>, findings: &mut Vec<Finding>) {
    lengths(source, findings);
    header(source, findings);
    unsafe_code(source, findings);
    atomics(source, findings);
    names(source, findings);
}

fn lengths(source: &Source<'_>, findings: &mut Vec<Finding>) {
    let lines = source.lines_without_tests();
    if lines > FILE_LINES {
        findings.push(Finding::new(
            source.path,
            0,
            format!("{lines} lines without tests, {FILE_LINES} at most; split it by what it knows"),
        ));
    }
    // A test that is a table of cases is one thing, however long.
    for function in source.functions().into_iter().filter(|function| !source.is_test(function.start)) {
        if function.lines > FUNCTION_LINES {
            findings.push(Finding::new(
                source.path,
                source.line(function.start),
                format!(
                    "fn {} has {} lines, {FUNCTION_LINES} at most; give its steps names",
                    function.name, function.lines
                ),
            ));
        }
    }
}

fn header(source: &Source<'_>, findings: &mut Vec<Finding>) {
    let first = source.text.lines().next().unwrap_or_default();
    // A fuzz target's first line tells the compiler that there is no main.
    let skipped = usize::from(first == "#![no_main]");
    let header = source.text.lines().nth(skipped).unwrap_or_default();
    if header.strip_prefix("//! ").is_none_or(|rest| rest.trim().is_empty()) {
        findings.push(Finding::new(source.path, 1, "no header; begin with `//!` and why this file exists"));
    }
}

fn unsafe_code(source: &Source<'_>, findings: &mut Vec<Finding>) {
    if !UNSAFE.iter().any(|place| is_in(source.path, place)) {
        for at in words(&source.code, "unsafe") {
            findings.push(Finding::new(
                source.path,
                source.line(at),
                "unsafe outside the places that may have it (dpdk-sys, dpdk, named files of ipc); \
                 use a safe function of those",
            ));
        }
    }
    if is_root(source.path) {
        let forbids = source.code.contains("#![forbid(unsafe_code)]");
        let denies = forbids || source.code.contains("#![deny(unsafe_code)]");
        let missing = if UNSAFE_CRATES.iter().any(|place| source.path.starts_with(place)) {
            // dpdk and dpdk-sys are unsafe all over; the others name their files.
            let all = ["dpdk-sys/", "dataplane/dpdk/"].iter().any(|place| source.path.starts_with(place));
            (!denies && !all).then_some("deny")
        } else {
            (!forbids).then_some("forbid")
        };
        if let Some(level) = missing {
            findings.push(Finding::new(
                source.path,
                1,
                format!("add #![{level}(unsafe_code)] below the header"),
            ));
        }
    }
}

fn atomics(source: &Source<'_>, findings: &mut Vec<Finding>) {
    if source.path == FACADE {
        return;
    }
    let modelled = MODELLED.iter().any(|place| source.path.starts_with(place));
    for at in words(&source.code, "sync::atomic") {
        let line = source.line(at);
        let import = source.code.get(at..).and_then(|rest| rest.split(';').next()).unwrap_or_default();
        if modelled && !source.is_test(at) {
            findings.push(Finding::new(
                source.path,
                line,
                "atomics come from ipc::sync here, so that loom sees them",
            ));
            continue;
        }
        let only_flags = !words(import, "*").any(|_| true)
            && import
                .split(|c: char| !(c == '_' || c.is_alphanumeric()))
                .all(|word| !word.starts_with("Atomic") || word == "AtomicBool");
        if !only_flags && !source.has_comment(at, 1, "") {
            findings.push(Finding::new(
                source.path,
                line,
                "an atomic that is no flag, outside ipc::sync; say why in a comment on the line above",
            ));
        }
    }
}

fn names(source: &Source<'_>, findings: &mut Vec<Finding>) {
    for at in words(&source.code, "mod") {
        let rest = source.code.get(at + 3..).unwrap_or_default().trim_start();
        let name: String = rest.chars().take_while(|c| *c == '_' || c.is_alphanumeric()).collect();
        if EMPTY_NAMES.contains(&name.as_str()) {
            findings.push(Finding::new(
                source.path,
                source.line(at),
                format!("a module named {name} says nothing; name it by what it knows"),
            ));
        }
    }
}

/// Files below src/ that no `mod` names: the compiler never sees them.
pub(super) fn dead_files(files: &[File], findings: &mut Vec<Finding>) {
    let rust: Vec<(&File, String)> = files
        .iter()
        .filter(|file| file.extension() == "rs")
        .map(|file| (file, Source::new(&file.path, &file.text, false).code))
        .collect();
    for (file, _) in &rust {
        let Some((package, below)) = file.path.split_once("/src/") else {
            continue;
        };
        if is_root(&file.path) {
            continue;
        }
        let module = below.strip_suffix("/mod.rs").or_else(|| below.strip_suffix(".rs")).unwrap_or(below);
        let name = module.rsplit('/').next().unwrap_or(module);
        let sources = format!("{package}/src/");
        let named = rust.iter().filter(|(other, _)| other.path.starts_with(&sources)).any(|(_, code)| {
            words(code, "mod").any(|at| {
                code.get(at + 3..).is_some_and(|rest| {
                    let rest = rest.trim_start();
                    rest.strip_prefix(name).is_some_and(|end| end.trim_start().starts_with([';', '{']))
                })
            })
        });
        if !named {
            findings.push(Finding::new(
                &file.path,
                1,
                format!("no `mod {name};` names this file; delete it or name it"),
            ));
        }
    }
}

/// The root of a crate: where crate attributes stand.
fn is_root(path: &str) -> bool {
    path.ends_with("src/lib.rs") || path.ends_with("src/main.rs") || path.contains("/src/bin/")
}

fn is_in(path: &str, place: &str) -> bool {
    if place.ends_with('/') { path.starts_with(place) } else { path == place }
}

#[cfg(test)]
mod tests {
    use crate::tidy::tests::{complaints, file};

    const HEADER: &str = "//! Why.\n";

    #[test]
    fn a_long_file_is_named_and_its_tests_do_not_count() {
        let long = format!("{HEADER}{}", "const A: u8 = 1;\n".repeat(500));
        let found = complaints(&[file("build.rs", &long)]);
        assert_eq!(found, ["build.rs:1: 501 lines without tests, 500 at most; split it by what it knows"]);
        let tests = format!("{HEADER}#[cfg(test)]\nmod tests {{\n{}}}\n", "const A: u8 = 1;\n".repeat(500));
        assert!(complaints(&[file("build.rs", &tests)]).is_empty());
        assert!(complaints(&[file("ipc/tests/x.rs", &long)]).is_empty());
    }

    #[test]
    fn a_function_longer_than_a_screen_is_named_with_its_line() {
        let text = format!("{HEADER}\nfn long() {{\n{}}}\n", "    step();\n".repeat(69));
        let found = complaints(&[file("build.rs", &text)]);
        assert_eq!(found, ["build.rs:3: fn long has 71 lines, 70 at most; give its steps names"]);
    }

    #[test]
    fn a_file_must_say_why_it_exists() {
        assert!(complaints(&[file("build.rs", "fn main() {}\n")])[0].starts_with("build.rs:1: no header"));
        assert!(complaints(&[file("x/fuzz/fuzz_targets/frame.rs", "#![no_main]\n//! Why.\n")]).is_empty());
    }

    #[test]
    fn unsafe_is_found_in_code_and_only_there() {
        let text = format!("{HEADER}// unsafe is a word here\nfn a() {{ unsafe {{ b() }} }}\n");
        let found = complaints(&[file("ctrlplane/build.rs", &text)]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("ctrlplane/build.rs:3: unsafe outside"));
        assert!(
            complaints(&[file("dataplane/dpdk/src/eal/mod.rs", &text), root("dataplane/dpdk", "mod eal;")])
                .is_empty()
        );
    }

    #[test]
    fn a_crate_root_without_the_lint_is_named() {
        let found = complaints(&[file("ctrlplane/src/main.rs", HEADER)]);
        assert_eq!(found, ["ctrlplane/src/main.rs:1: add #![forbid(unsafe_code)] below the header"]);
        assert!(
            complaints(&[file("dataplane/ipc/src/lib.rs", "//! Why.\n#![deny(unsafe_code)]\n")]).is_empty()
        );
        assert_eq!(complaints(&[file("dataplane/ipc/src/lib.rs", HEADER)]).len(), 1);
    }

    #[test]
    fn engine_takes_its_atomics_from_the_facade() {
        let text = format!("{HEADER}use core::sync::atomic::AtomicBool;\n");
        let found = complaints(&[
            file("dataplane/engine/src/place.rs", &text),
            root("dataplane/engine", "mod place;"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("place.rs:2: atomics come from ipc::sync"));
    }

    #[test]
    fn elsewhere_a_flag_is_free_and_any_other_atomic_needs_a_reason() {
        let flag = format!("{HEADER}use std::sync::atomic::{{AtomicBool, Ordering}};\n");
        assert!(complaints(&[file("ctrlplane/build.rs", &flag)]).is_empty());
        let bare = format!("{HEADER}\nuse std::sync::atomic::AtomicUsize;\n");
        assert_eq!(complaints(&[file("ctrlplane/build.rs", &bare)]).len(), 1);
        let reasoned = format!("{HEADER}\n// Numbers sessions.\nuse std::sync::atomic::AtomicUsize;\n");
        assert!(complaints(&[file("ctrlplane/build.rs", &reasoned)]).is_empty());
    }

    #[test]
    fn a_module_named_utils_is_refused() {
        let found = complaints(&[file("build.rs", "//! Why.\nmod utils {}\nmod utilisation {}\n")]);
        assert_eq!(found, ["build.rs:2: a module named utils says nothing; name it by what it knows"]);
    }

    #[test]
    fn a_file_that_nobody_compiles_is_named() {
        let found = complaints(&[
            root("ctrlplane", "mod api;\npub mod tests {}"),
            file("ctrlplane/src/api/mod.rs", HEADER),
            file("ctrlplane/src/api/old.rs", HEADER),
        ]);
        assert_eq!(
            found,
            ["ctrlplane/src/api/old.rs:1: no `mod old;` names this file; delete it or name it"]
        );
    }

    fn root(package: &str, text: &str) -> crate::tree::File {
        file(&format!("{package}/src/lib.rs"), &format!("//! Why.\n#![forbid(unsafe_code)]\n{text}\n"))
    }
}
