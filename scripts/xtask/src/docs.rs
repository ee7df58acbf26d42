//! Documents that are generated from code.
//!
//! A list that people keep by hand is wrong after the second change. docs/configuration.md is printed from the
//! schema the parser reads by; docs/packet-path.md has prose around lists printed from the enums that count. The
//! prose is held too: what it writes in backticks as a snake-case name must exist.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ipc::counter::Counter;
use ipc::reason::Reason;

use crate::finding::Finding;
use crate::tree;

const CONFIGURATION: &str = "docs/configuration.md";
const PACKET_PATH: &str = "docs/packet-path.md";
const RELIABILITY: &str = "docs/reliability.md";
const MEND: &str = "run `cargo xtask docs --write` and commit the result";

/// Compares the documents with the code, or writes them.
pub fn run(root: &Path, write: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let configuration = config::reference_markdown();
    hold(root, CONFIGURATION, &configuration, write, &mut findings)?;

    let full = root.join(PACKET_PATH);
    let page = std::fs::read_to_string(&full).with_context(|| format!("cannot read {PACKET_PATH}"))?;
    let wanted =
        between(&page, "reasons", &reasons()).and_then(|page| between(&page, "counters", &counters()))?;
    hold(root, PACKET_PATH, &wanted, write, &mut findings)?;

    let known = names(root, &configuration)?;
    findings.extend(unknown_names(PACKET_PATH, &wanted, &known));

    let page = std::fs::read_to_string(root.join(RELIABILITY))
        .with_context(|| format!("cannot read {RELIABILITY}"))?;
    findings.extend(unknown_names(RELIABILITY, &page, &known.union(&tests(root)?).cloned().collect()));
    findings.extend(unknown_files(root, &page));
    Ok(findings)
}

/// The name of every test of the tree.
fn tests(root: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for file in tree::files(root)?.iter().filter(|file| file.extension() == "rs") {
        let text = std::fs::read_to_string(root.join(&file.path))
            .with_context(|| format!("cannot read {}", file.path))?;
        names.extend(test_names(&text).map(str::to_owned));
    }
    Ok(names)
}

/// The functions below a `#[test]`, whatever other attributes stand between.
fn test_names(text: &str) -> impl Iterator<Item = &str> {
    let mut marked = false;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        marked |= line == "#[test]";
        let name = line.strip_prefix("fn ")?.split('(').next()?;
        std::mem::take(&mut marked).then_some(name)
    })
}

/// Files that the page names in backticks and the tree does not have.
fn unknown_files(root: &Path, page: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in page.lines().enumerate() {
        let quoted = line.split('`').skip(1).step_by(2);
        for path in quoted.filter(|word| word.contains('/') && word.ends_with(".rs")) {
            if !root.join(path).is_file() {
                findings.push(Finding::new(
                    RELIABILITY,
                    index + 1,
                    format!("`{path}` is not in the tree; correct the path"),
                ));
            }
        }
    }
    findings
}

/// Makes the document be `wanted`, or complains about the first line that differs.
fn hold(root: &Path, path: &str, wanted: &str, write: bool, findings: &mut Vec<Finding>) -> Result<()> {
    let full = root.join(path);
    let page = std::fs::read_to_string(&full).unwrap_or_default();
    if page == wanted {
        return Ok(());
    }
    if write {
        std::fs::write(&full, wanted).with_context(|| format!("cannot write {path}"))?;
        println!("{path}: written");
        return Ok(());
    }
    let same = page.lines().zip(wanted.lines()).take_while(|(is, should)| is == should).count();
    let should = wanted.lines().nth(same).unwrap_or("the end of the file");
    findings.push(Finding::new(
        path,
        same + 1,
        format!("differs from the code, which says: {should}; {MEND}"),
    ));
    Ok(())
}

/// Replaces what stands between the markers `<!-- name -->` and `<!-- /name -->`.
fn between(page: &str, name: &str, list: &str) -> Result<String> {
    let (open, close) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let Some((before, rest)) = page.split_once(&open) else { bail!("{PACKET_PATH} has no line {open}") };
    let Some((_, after)) = rest.split_once(&close) else {
        bail!("{PACKET_PATH} has no line {close} after {open}")
    };
    Ok(format!("{before}{open}\n{list}{close}{after}"))
}

fn reasons() -> String {
    let mut list = String::from("| reason | verdict | meaning |\n| --- | --- | --- |\n");
    for reason in Reason::ALL {
        let verdict = match reason {
            Reason::Flow
            | Reason::Hash
            | Reason::Token
            | Reason::TokenMap
            | Reason::ChosenKey
            | Reason::Timestamp
            | Reason::Related
            | Reason::Fragment
            | Reason::Endpoint => "forward",
            _ if reason.is_drop() => "drop",
            _ => "local",
        };
        list.push_str(&format!("| `{}` | {verdict} | {} |\n", reason.name(), cell(reason.meaning())));
    }
    list
}

fn counters() -> String {
    let mut list = String::from("| counter | meaning |\n| --- | --- |\n");
    for counter in Counter::ALL {
        list.push_str(&format!("| `{}` | {} |\n", counter.name(), cell(counter.meaning())));
    }
    list
}

/// A cell is one line of Markdown: no bar, and no brackets that rustdoc reads as links.
fn cell(meaning: &str) -> String {
    meaning.replace('|', "\\|").replace("[`", "`").replace("`]", "`")
}

/// Every name the prose may use: reasons, counters, keys and values of the configuration, modules.
fn names(root: &Path, configuration: &str) -> Result<BTreeSet<String>> {
    let mut known: BTreeSet<String> = BTreeSet::new();
    known.extend(Reason::ALL.iter().map(|reason| reason.name().to_owned()));
    known.extend(Counter::ALL.iter().map(|counter| counter.name().to_owned()));
    known.extend(snake_words(configuration).map(str::to_owned));
    for file in tree::files(root)? {
        let stem = Path::new(&file.path).file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
        known.extend(stem.filter(|_| file.extension() == "rs"));
    }
    Ok(known)
}

fn snake_words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c == '_' || c.is_ascii_alphanumeric())).filter(|word| is_snake(word))
}

/// `two_words`, in lower case: what a reason or a counter looks like and a word of English does not.
fn is_snake(word: &str) -> bool {
    word.contains('_')
        && word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
}

fn unknown_names(path: &str, page: &str, known: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in page.lines().enumerate() {
        for quoted in line.split('`').skip(1).step_by(2) {
            let is_dpdk = quoted.starts_with("net_") || quoted.starts_with("rte_");
            if is_snake(quoted) && !is_dpdk && !known.contains(quoted) {
                findings.push(Finding::new(
                    path,
                    index + 1,
                    format!(
                        "`{quoted}` is no reason, counter, configuration key, module or test; correct the name"
                    ),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Path\n\n<!-- reasons -->\nold\n<!-- /reasons -->\nprose\n<!-- counters -->\n<!-- /counters -->\nend\n";

    #[test]
    fn a_list_is_replaced_between_its_markers_and_nowhere_else() {
        let page = between(PAGE, "reasons", "new\n").unwrap();
        assert_eq!(page, PAGE.replace("old\n", "new\n"));
        assert!(between("# Path\n", "reasons", "new\n").is_err());
    }

    #[test]
    fn every_reason_and_counter_is_listed_by_name() {
        let lists = reasons() + &counters();
        for name in Reason::ALL.iter().map(|r| r.name()).chain(Counter::ALL.iter().map(|c| c.name())) {
            assert!(lists.contains(&format!("| `{name}` |")), "{name}");
        }
    }

    #[test]
    fn a_stale_document_is_named_with_its_first_line_that_differs_and_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.md"), "one\ntwo\nthree\n").unwrap();
        let mut findings = Vec::new();
        hold(folder.path(), "x.md", "one\n2\nthree\n", false, &mut findings).unwrap();
        assert_eq!(findings.len(), 1);
        assert!(findings[0].to_string().starts_with("x.md:2: differs from the code, which says: 2;"));
        findings.clear();
        hold(folder.path(), "x.md", "one\n2\nthree\n", true, &mut findings).unwrap();
        hold(folder.path(), "x.md", "one\n2\nthree\n", false, &mut findings).unwrap();
        assert!(findings.is_empty());
    }

    #[test]
    fn tests_are_found_below_their_attributes_and_helpers_are_not() {
        let text = "fn helper() {}\n#[test]\n#[ignore]\nfn a_test() {\n}\n\nfn another() {}\n    #[test]\n    fn within(x in 0..3) {\n";
        assert_eq!(test_names(text).collect::<Vec<_>>(), ["a_test", "within"]);
    }

    #[test]
    fn a_file_that_is_gone_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.rs"), "").unwrap();
        let page = format!("`{}/x.rs` and\n`a/gone.rs`", folder.path().display());
        let found = unknown_files(folder.path(), &page);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 2);
    }

    #[test]
    fn a_name_that_does_not_exist_is_found_in_the_prose() {
        let known = BTreeSet::from(["not_vip".to_owned()]);
        let found = unknown_names(
            "x.md",
            "The drop `not_vip` on `net_af_packet`.\nThe drop `not_vup` and `burst`.\n",
            &known,
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 2);
    }
}
