//! The budget: how many instructions a packet of each kind may cost, in a file that is committed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

/// What stands in front of the figures.
const HEAD: &str = "\
# Instructions a packet may cost in the engine, by kind, and the most by which a figure may be over: counted by callgrind
# in bursts of 32 on fixed traffic, so the same on every machine. Callgrind's CPU has AVX2 and AES and no SHA extensions:
# a third ACK costs less in life. `scripts/test --only budget` holds the engine to it, and to no allocation and no system
# call.
#
# `cargo run --release -p weft-bench -- budget --renew` writes this file. Think before: it was made to be in the way. What
# became dearer should be worth it, and the commit should say why; what became cheaper is renewed, or the next loss hides
# in the gap.
";

/// The budget.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The compiler the figures are of.
    pub rustc: String,
    /// Percent by which a figure may be over.
    pub margin: f64,
    /// The same where another compiler built the program.
    pub margin_of_another_rustc: f64,
    /// Instructions a packet.
    pub instructions: BTreeMap<String, f64>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            rustc: String::new(),
            margin: 3.0,
            margin_of_another_rustc: 15.0,
            instructions: BTreeMap::new(),
        }
    }
}

impl Budget {
    /// Reads the file.
    ///
    /// # Errors
    /// It is not there, or is no budget.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read {}: --file says where the budget is", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is no budget", path.display()))
    }

    /// Writes the file, at once or not at all.
    ///
    /// # Errors
    /// The disk is full, or the like.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let cannot = || format!("cannot write {}", path.display());
        let new = path.with_extension("toml.new");
        fs::write(&new, self.to_text()).with_context(cannot)?;
        fs::rename(&new, path).with_context(cannot)
    }

    /// The file's text.
    pub fn to_text(&self) -> String {
        let mut text = HEAD.to_owned();
        let Self { rustc, margin, margin_of_another_rustc, instructions } = self;
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "\nrustc = {rustc:?}\nmargin = {margin:.1}\nmargin_of_another_rustc = {margin_of_another_rustc:.1}\n\n\
             [instructions]\n"
        );
        for (case, count) in instructions {
            let _ = writeln!(text, "{case} = {count:.1}");
        }
        text
    }

    /// The most a case may cost as built by this compiler; `None` where it has no budget.
    pub fn most(&self, case: &str, rustc: &str) -> Option<f64> {
        let margin = if rustc == self.rustc { self.margin } else { self.margin_of_another_rustc };
        self.instructions.get(case).map(|count| count * (1.0 + margin / 100.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        let instructions = [("join".to_owned(), 500.0), ("established_v4".to_owned(), 200.4)];
        Budget { rustc: "rustc 1.95.0".to_owned(), instructions: instructions.into(), ..Budget::default() }
    }

    #[test]
    fn a_budget_comes_back_from_its_text() {
        assert_eq!(toml::from_str::<Budget>(&budget().to_text()).unwrap(), budget());
        assert!(toml::from_str::<Budget>("margin = 3").is_err());
    }

    #[test]
    fn a_figure_may_be_over_by_the_margin_and_by_more_for_another_compiler() {
        let budget = budget();
        let most = |rustc| budget.most("join", rustc).unwrap();
        assert!((most("rustc 1.95.0") - 515.0).abs() < 1e-9 && (most("rustc 2.0.0") - 575.0).abs() < 1e-9);
        assert_eq!(budget.most("leave", "rustc 1.95.0"), None);
    }
}
