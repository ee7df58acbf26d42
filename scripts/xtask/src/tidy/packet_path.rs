//! What may not stand between receive and transmit, as far as the text of the code shows it.
//!
//! The crates `packet` and `engine` are the packet path. `cargo xtask panics` looks at the machine code and a
//! counting allocator at the run; this check is the one that answers while the code is being written.

use crate::finding::Finding;
use crate::source::{Source, words};

/// The crates of the packet path. `packet`'s builder is for tests and generators.
const CRATES: &[&str] = &["dataplane/packet/src/", "dataplane/engine/src/"];
const BUILDER: &str = "dataplane/packet/src/build";

/// In neither crate, not even beside the packet path: each word with what to do.
const BANNED: &[(&str, &str)] = &[
    ("dyn", "dynamic dispatch; use a type parameter or an enum"),
    ("Mutex", "a lock; workers share nothing but tables of atomics"),
    ("RwLock", "a lock; workers share nothing but tables of atomics"),
    ("Condvar", "a lock; workers never wait"),
    ("log", "logging; count it in ipc::counter instead"),
    ("println!", "output; count it in ipc::counter instead"),
    ("eprintln!", "output; count it in ipc::counter instead"),
    ("print!", "output; count it in ipc::counter instead"),
    ("eprint!", "output; count it in ipc::counter instead"),
    ("std::fs", "the file system; the caller reads and writes"),
    ("std::io", "input and output; the caller reads and writes"),
    ("std::process", "a process; the caller starts it"),
    ("std::thread", "a thread; the caller owns threads"),
    ("std::time", "a clock; the caller passes a tick"),
    ("TcpStream", "a socket; the engine sees bytes"),
    ("TcpListener", "a socket; the engine sees bytes"),
    ("UdpSocket", "a socket; the engine sees bytes"),
];

/// The functions that every packet runs through.
const PIPELINE: &str = "dataplane/engine/src/pipeline/";

/// What allocates.
const ALLOCATES: &[&str] = &[
    "Arc",
    "Box",
    "HashMap",
    "Rc",
    "String",
    "Vec",
    "VecDeque",
    "collect",
    "format!",
    "to_owned",
    "to_string",
    "to_vec",
    "vec!",
    "with_capacity",
];

pub(super) fn check(source: &Source<'_>, findings: &mut Vec<Finding>) {
    if !CRATES.iter().any(|place| source.path.starts_with(place)) || source.path.starts_with(BUILDER) {
        return;
    }
    for (word, why) in BANNED {
        // `log` is a word of arithmetic too; the crate's macros are all paths.
        let path = if *word == "log" { "log::" } else { word };
        complain(source, path, why, findings);
    }
    if source.path.starts_with(PIPELINE) {
        for word in ALLOCATES {
            complain(
                source,
                word,
                "allocation on the packet path; use scratch memory that lives with the worker",
                findings,
            );
        }
    }
    for word in ["loop", "while"] {
        for at in words(&source.code, word).filter(|at| !source.is_test(*at)) {
            if !source.has_comment(at, 3, "bound") && !source.has_comment(at, 3, "each turn") {
                findings.push(Finding::new(
                    source.path,
                    source.line(at),
                    format!("`{word}` without a bound; use `for`, or say in a comment above it what it is bounded by"),
                ));
            }
        }
    }
}

fn complain(source: &Source<'_>, word: &str, why: &str, findings: &mut Vec<Finding>) {
    for at in words(&source.code, word).filter(|at| !source.is_test(*at)) {
        findings.push(Finding::new(source.path, source.line(at), format!("`{word}`: {why}")));
    }
}

#[cfg(test)]
mod tests {
    use crate::source::Source;

    fn complaints(path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        super::check(&Source::new(path, text, false), &mut findings);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_lock_or_a_clock_in_the_engine_is_named() {
        let found = complaints(
            "dataplane/engine/src/sweep.rs",
            "//! Why.\nuse std::sync::Mutex;\nuse std::time::Instant;\n",
        );
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("dataplane/engine/src/sweep.rs:2: `Mutex`: a lock"));
        assert!(complaints("ctrlplane/src/api.rs", "use std::sync::Mutex;").is_empty());
    }

    #[test]
    fn an_allocation_is_named_in_the_pipeline_and_free_in_its_tests() {
        let text = "fn a() { let v: Vec<u8> = x.collect(); }\n#[cfg(test)]\nmod tests { fn b() { vec![1].to_vec(); } }\n";
        assert_eq!(complaints("dataplane/engine/src/pipeline/decide.rs", text).len(), 2);
        assert!(complaints("dataplane/engine/src/snapshot.rs", text).is_empty());
    }

    #[test]
    fn a_loop_names_its_bound() {
        let text = "fn a() {\n\n\n\n    while x {}\n    // Bounded by PROBES.\n    while x {}\n\n\n\n    // Each turn takes a byte off.\n    loop {}\n}\n";
        let found = complaints("dataplane/packet/src/parse.rs", text);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("dataplane/packet/src/parse.rs:5: `while` without a bound"));
    }
}
