//! Which crate may use which: the arrows of docs/architecture.md, read from the Cargo.toml files.

use toml::{Table, Value};

use crate::finding::Finding;
use crate::tree::File;

/// One crate: what it may use, and what its tests may use besides.
struct Arrows {
    name: &'static str,
    uses: &'static [&'static str],
    tests_use: &'static [&'static str],
}

/// All of them.
const ARROWS: &[Arrows] = &[
    Arrows { name: "packet", uses: &[], tests_use: &["packet", "skip"] },
    Arrows { name: "ipc", uses: &[], tests_use: &["skip"] },
    Arrows { name: "steering", uses: &["packet", "ipc"], tests_use: &[] },
    Arrows { name: "engine", uses: &["packet", "ipc", "steering"], tests_use: &[] },
    Arrows { name: "config", uses: &["ipc"], tests_use: &[] },
    Arrows { name: "capture", uses: &[], tests_use: &[] },
    Arrows { name: "site", uses: &["config", "engine", "ipc", "steering"], tests_use: &["packet"] },
    Arrows { name: "dpdk-sys", uses: &[], tests_use: &[] },
    Arrows { name: "dpdk", uses: &["dpdk-sys"], tests_use: &["packet", "skip"] },
    Arrows {
        name: "weft-dataplane",
        uses: &["engine", "dpdk", "ipc", "config", "capture", "site"],
        tests_use: &["packet", "skip"],
    },
    Arrows { name: "weft-agent", uses: &[], tests_use: &[] },
    Arrows {
        name: "weft-ctrlplane",
        uses: &["ipc", "config", "steering", "weft-agent"],
        tests_use: &["skip"],
    },
    Arrows {
        name: "weft-bench",
        uses: &["engine", "packet", "ipc", "dpdk", "config", "capture", "site", "steering"],
        tests_use: &["skip"],
    },
    Arrows { name: "skip", uses: &[], tests_use: &[] },
    Arrows { name: "weft-lab", uses: &["skip"], tests_use: &[] },
    Arrows { name: "xtask", uses: &["ipc", "config"], tests_use: &[] },
];

/// What the packet path may not even link against.
const NOT_ON_THE_PACKET_PATH: &[&str] =
    &["env_logger", "libc", "log", "nix", "parking_lot", "rustix", "tokio", "tracing"];

pub(super) fn check(files: &[File], findings: &mut Vec<Finding>) {
    for file in files.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        match file.text.parse::<Table>() {
            Ok(manifest) => one(file, &manifest, findings),
            Err(error) => {
                findings.push(Finding::new(&file.path, 1, format!("not TOML: {}", error.message())))
            }
        }
    }
}

fn one(file: &File, manifest: &Table, findings: &mut Vec<Finding>) {
    let Some(name) = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str)
    else {
        return;
    };
    if file.path.ends_with("/fuzz/Cargo.toml") {
        return fuzz(file, manifest, findings);
    }
    let Some(arrows) = ARROWS.iter().find(|arrows| arrows.name == name) else {
        findings.push(Finding::new(
            &file.path,
            line_of(&file.text, name),
            format!("crate {name} has no arrows; add them to scripts/xtask/src/tidy/arrows.rs and docs/architecture.md"),
        ));
        return;
    };
    for used in dependencies(manifest, &["dependencies", "build-dependencies"]) {
        if is_ours(&used) && !arrows.uses.contains(&used.as_str()) {
            refuse(file, name, &used, "", findings);
        }
        if ["packet", "engine"].contains(&name) && NOT_ON_THE_PACKET_PATH.contains(&used.as_str()) {
            let what = format!("{name} is the packet path and may not use {used}; leave it to the caller");
            findings.push(Finding::new(&file.path, line_of(&file.text, &used), what));
        }
    }
    for used in dependencies(manifest, &["dev-dependencies"]) {
        let may = arrows.uses.contains(&used.as_str()) || arrows.tests_use.contains(&used.as_str());
        if is_ours(&used) && !may {
            refuse(file, name, &used, "'s tests", findings);
        }
    }
    let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
    if inherits != Some(true) {
        findings.push(Finding::new(
            &file.path,
            1,
            "the workspace's lints are missing; add [lints] workspace = true",
        ));
    }
}

/// A fuzz crate stands beside what it feeds, and may use that and what that uses.
fn fuzz(file: &File, manifest: &Table, findings: &mut Vec<Finding>) {
    let folder = file.path.trim_end_matches("/fuzz/Cargo.toml");
    let parent = folder.rsplit('/').next().unwrap_or(folder);
    let uses = ARROWS.iter().find(|arrows| arrows.name == parent).map_or(&[][..], |arrows| arrows.uses);
    for used in dependencies(manifest, &["dependencies"]) {
        if is_ours(&used) && used != parent && !uses.contains(&used.as_str()) {
            refuse(file, parent, &used, "'s fuzz targets", findings);
        }
    }
}

fn refuse(file: &File, name: &str, used: &str, whose: &str, findings: &mut Vec<Finding>) {
    findings.push(Finding::new(
        &file.path,
        line_of(&file.text, used),
        format!("{name}{whose} may not use {used}; the arrows are in docs/architecture.md"),
    ));
}

fn is_ours(name: &str) -> bool {
    ARROWS.iter().any(|arrows| arrows.name == name)
}

/// The packages named in the given tables, target-specific ones included.
fn dependencies(manifest: &Table, tables: &[&str]) -> Vec<String> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let places = std::iter::once(manifest)
        .chain(targets.into_iter().flat_map(Table::values).filter_map(Value::as_table));
    let mut names = Vec::new();
    for place in places {
        for table in tables.iter().filter_map(|table| place.get(*table)).filter_map(Value::as_table) {
            for (key, value) in table {
                let package = value.get("package").and_then(Value::as_str);
                names.push(package.unwrap_or(key).to_owned());
            }
        }
    }
    names
}

fn line_of(text: &str, name: &str) -> usize {
    1 + text
        .lines()
        .position(|line| line.starts_with(name) || line.contains(&format!("\"{name}\"")))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use crate::tidy::tests::{complaints, file};

    fn manifest(path: &str, name: &str, rest: &str) -> Vec<String> {
        let text = format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n{rest}");
        complaints(&[file(&format!("{path}/Cargo.toml"), &text)])
    }

    #[test]
    fn an_arrow_that_is_not_in_the_table_is_named() {
        let found =
            manifest("ctrlplane", "weft-ctrlplane", "[dependencies]\nipc = \"1\"\nengine.workspace = true\n");
        assert_eq!(
            found,
            [
                "ctrlplane/Cargo.toml:7: weft-ctrlplane may not use engine; the arrows are in docs/architecture.md"
            ]
        );
    }

    #[test]
    fn an_arrow_behind_a_target_or_another_name_is_seen() {
        let found =
            manifest("x", "engine", "[target.'cfg(unix)'.dependencies]\nfast = { package = \"dpdk\" }\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("engine may not use dpdk"), "{found:?}");
    }

    #[test]
    fn tests_have_arrows_of_their_own() {
        assert!(
            manifest("dataplane", "weft-dataplane", "[dev-dependencies]\npacket.workspace = true\n")
                .is_empty()
        );
        let found = manifest("dataplane", "weft-dataplane", "[dependencies]\npacket.workspace = true\n");
        assert_eq!(found.len(), 1);
        assert_eq!(manifest("x", "ipc", "[dev-dependencies]\nengine.workspace = true\n").len(), 1);
    }

    #[test]
    fn the_packet_path_does_not_link_a_logger() {
        let found = manifest("dataplane/engine", "engine", "[dependencies]\nlog = \"1\"\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("engine is the packet path and may not use log"));
    }

    #[test]
    fn a_new_crate_and_missing_lints_are_named() {
        assert!(manifest("x", "novelty", "")[0].contains("crate novelty has no arrows"));
        let found = complaints(&[file("x/Cargo.toml", "[package]\nname = \"ipc\"\n")]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("lints are missing"));
    }

    #[test]
    fn a_fuzz_crate_may_use_its_parent_and_nothing_further() {
        assert!(
            manifest("dataplane/packet/fuzz", "packet-fuzz", "[dependencies]\npacket = \"1\"\n").is_empty()
        );
        assert_eq!(
            manifest("dataplane/packet/fuzz", "packet-fuzz", "[dependencies]\nipc = \"1\"\n").len(),
            1
        );
    }
}
