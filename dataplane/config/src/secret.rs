//! Reads secrets: from the file itself, or from a file that the configuration names, so that weft.toml may be read by
//! everybody.
//!
//! No sentence about a secret says a byte of it. A file of a secret is refused unless it keeps others out: a warning would
//! be read after the secret was.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ipc::message::Secret;

use crate::model::Config;
use crate::problem::Report;
use crate::schema::Key;
use crate::table::Table;

/// Longest file of a secret: far more than the longest secret and its line end.
const MAX_FILE: u64 = 4096;

/// What a file's mode must not allow: its group to write, others anything.
const FORBIDDEN: u32 = 0o027;

impl Config {
    /// A sentence, if the file of this configuration holds a secret and everybody may read it.
    pub fn exposure(&self, path: &Path) -> Option<String> {
        let mode = std::fs::metadata(path).ok().filter(|_| self.has_secret_inside)?.mode();
        (mode & 0o004 != 0).then(|| {
            format!(
                "{} holds a secret, and its mode {:04o} lets everybody read it: run chmod o-rwx on it, or put the secret \
                 into a file of its own (`key_secret_file`, `cipher_key_even_file`, `cipher_key_odd_file`)",
                path.display(),
                mode & 0o7777
            )
        })
    }
}

/// The key of a secret, and the key of the name of a file that holds it.
pub(crate) struct SecretKey {
    pub inside: &'static Key,
    pub file: &'static Key,
}

impl SecretKey {
    /// Whether the secret is given in either way.
    pub fn is_given(&self, table: &Table<'_>) -> bool {
        table.given(self.inside).is_some() || table.given(self.file).is_some()
    }

    /// Reads a secret of `N` bytes, if it is given. What is wrong is reported.
    pub fn read<const N: usize>(&self, table: &Table<'_>, report: &mut Report<'_>) -> Option<Secret<N>> {
        if let (Some(_), Some(span)) = (table.given(self.inside), table.given(self.file)) {
            let message = format!("both `{}` and `{}`; keep one of them", self.inside.name, self.file.name);
            report.problem(&span, message);
            return None;
        }
        let (key, wrong) = match (table.given(self.inside), table.given(self.file)) {
            (None, None) => return None,
            (Some(_), _) => {
                report.note_secret_inside();
                let text = table.text(self.inside, report)?;
                let read = parse(text.value).map_err(|reason| format!("`{}` {reason}", self.inside.name));
                (read, text.span)
            }
            (None, Some(_)) => {
                let text = table.text(self.file, report)?;
                if !report.reads_secrets() {
                    return None;
                }
                let path = report.folder().join(text.value);
                (read_file(&path), text.span)
            }
        };
        match key {
            Ok(bytes) => Some(Secret(bytes)),
            Err(message) => {
                report.problem(&wrong, message);
                None
            }
        }
    }
}

/// The secret of a file. The error is a sentence.
fn read_file<const N: usize>(path: &Path) -> Result<[u8; N], String> {
    let shown = path.display();
    let unreadable = |error: io::Error| {
        format!("cannot read {shown}: {error}; check the path, and that this user may read it")
    };
    // Before it is opened: to open a pipe waits for who writes to it.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("{shown} is no regular file; give one that holds the secret alone"));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    if mode & FORBIDDEN != 0 {
        return Err(format!(
            "{shown} holds a secret, and its mode {:04o} lets others at it; run chmod 600 (or 640) on it, and draw \
             another secret if somebody may have read this one",
            mode & 0o7777
        ));
    }
    let mut text = String::new();
    let long = file.take(MAX_FILE).read_to_string(&mut text).map_err(unreadable)?;
    if u64::try_from(long).is_ok_and(|long| long >= MAX_FILE) {
        return Err(format!("{shown} is too long for a secret; is it the right file?"));
    }
    parse(text.trim()).map_err(|reason| format!("what {shown} holds {reason}"))
}

/// Reads `N` bytes as hexadecimal digits; refuses all zeroes, which are no secret. The error is half a sentence.
fn parse<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let form = || format!("is no secret of the right length; write {} hexadecimal digits", 2 * N);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return Err(form());
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let digits = core::str::from_utf8(pair).ok().filter(|digits| !digits.starts_with('+'));
        *byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(form)?;
    }
    if bytes == [0; N] {
        Err(format!("is all zero; draw it at random, as `openssl rand -hex {N}` does"))
    } else {
        Ok(bytes)
    }
}
