//! The files the checks look at: what git tracks and what it would track, so that a file is checked before it
//! is committed and nothing that is built is checked at all.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// One text file.
#[derive(Clone, Debug)]
pub struct File {
    /// Relative to the root.
    pub path: String,
    /// Its content.
    pub text: String,
    /// Whether it may be run.
    pub executable: bool,
}

impl File {
    /// The end of the name, without the dot; empty where there is none.
    pub fn extension(&self) -> &str {
        Path::new(&self.path).extension().and_then(|end| end.to_str()).unwrap_or_default()
    }

    /// Whether the whole file is test code.
    pub fn is_test(&self) -> bool {
        let mut folders = self.path.split('/');
        let name = folders.next_back().unwrap_or_default();
        name == "tests.rs" || folders.any(|folder| folder == "tests")
    }
}

/// All text files of the checkout at `root`, in order of their paths.
pub fn files(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for path in listed(root)? {
        let full = root.join(&path);
        // A path may be listed and gone: deleted, not yet committed. A link is checked where it points.
        let Ok(about) = full.symlink_metadata() else {
            continue;
        };
        if !about.is_file() {
            continue;
        }
        let bytes = std::fs::read(&full).with_context(|| format!("cannot read {}", full.display()))?;
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        if text.contains('\0') {
            continue;
        }
        files.push(File { path, text, executable: about.permissions().mode() & 0o111 != 0 });
    }
    Ok(files)
}

/// Tracked and untracked files; where there is no git (an unpacked archive), every file but what is built.
fn listed(root: &Path) -> Result<Vec<String>> {
    let mut paths = if root.join(".git").exists() {
        let output = Command::new("git")
            // The checkout may belong to another user than the one who runs the checks, as in a container.
            .arg("-c")
            .arg(format!("safe.directory={}", root.display()))
            .arg("-C")
            .arg(root)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output()
            .context("cannot run git; install the package git")?;
        if !output.status.success() {
            bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let list = String::from_utf8(output.stdout).context("a path that is not UTF-8")?;
        list.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect()
    } else {
        let mut found = Vec::new();
        walk(root, Path::new(""), &mut found)?;
        found
    };
    paths.sort();
    paths.dedup();
    Ok(paths)
}

fn walk(root: &Path, below: &Path, found: &mut Vec<String>) -> Result<()> {
    let folder = root.join(below);
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let path: PathBuf = below.join(entry.file_name());
        if entry.file_name() == "target" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            walk(root, &path, found)?;
        } else if let Some(path) = path.to_str() {
            found.push(path.to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_without_git_lists_what_is_not_built() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("target/debug")).unwrap();
        std::fs::create_dir_all(folder.path().join("src")).unwrap();
        std::fs::write(folder.path().join("target/debug/x.rs"), "built").unwrap();
        std::fs::write(folder.path().join("src/b.rs"), "text").unwrap();
        std::fs::write(folder.path().join("src/a.pcap"), [0, 159, 146, 150]).unwrap();
        let files = files(folder.path()).unwrap();
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["src/b.rs"]);
    }

    #[test]
    fn test_code_is_known_by_its_place() {
        let file = |path: &str| File { path: path.to_owned(), text: String::new(), executable: false };
        assert!(file("dataplane/ipc/tests/loom_ring.rs").is_test());
        assert!(file("dataplane/ipc/src/ring/tests.rs").is_test());
        assert!(!file("scripts/test").is_test());
        assert!(!file("dataplane/ipc/src/ring.rs").is_test());
    }
}
