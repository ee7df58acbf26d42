//! What is wrong with a configuration file, and where.

use core::fmt;
use core::ops::Range;
use std::path::Path;

/// One mistake, at a place of the file. Its `Display` is `NAME:LINE:COLUMN: sentence`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Name of the file as the user gave it.
    pub file: String,
    /// Line, counted from 1; 0 when the file as a whole is meant (it cannot be read).
    pub line: usize,
    /// Column in characters, counted from 1; 0 with line 0.
    pub column: usize,
    /// One sentence that says what is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.message)
        } else {
            write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
        }
    }
}

impl std::error::Error for Problem {}

/// A byte range of the file.
pub(crate) type Span = Range<usize>;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub value: T,
    pub span: Span,
}

/// Collects problems while a file is read; turns byte offsets into lines and columns.
pub(crate) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    problems: Vec<Problem>,
    secrets: Secrets,
    has_secret_inside: bool,
}

/// Whether files of secrets are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrets {
    /// They are.
    Read,
    /// They are left alone: a secret in a file is none.
    Leave,
}

impl<'t> Report<'t> {
    pub fn new(file: &'t str, text: &'t str, secrets: Secrets) -> Self {
        Self { file, text, problems: Vec::new(), secrets, has_secret_inside: false }
    }

    /// The folder of the file, where the files it names are looked for.
    pub fn folder(&self) -> &'t Path {
        Path::new(self.file).parent().unwrap_or(Path::new(""))
    }

    pub fn reads_secrets(&self) -> bool {
        self.secrets == Secrets::Read
    }

    /// Notes that the file itself holds a secret.
    pub fn note_secret_inside(&mut self) {
        self.has_secret_inside = true;
    }

    pub fn has_secret_inside(&self) -> bool {
        self.has_secret_inside
    }

    /// Notes one problem at the start of `span`.
    pub fn problem(&mut self, span: &Span, message: impl Into<String>) {
        let (line, column) = self.position(span.start);
        let problem = Problem { file: self.file.to_owned(), line, column, message: message.into() };
        // A value checked from two sides must not be reported twice.
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// The line a span starts on, to point at the other one of two that collide.
    pub fn line(&self, span: &Span) -> usize {
        self.position(span.start).0
    }

    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many problems there are so far.
    pub fn count(&self) -> usize {
        self.problems.len()
    }

    /// All problems, in the order of the file.
    pub fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        // The parser's offsets are character boundaries; anything else still gives the right line.
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = self.text.get(..end).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }
}
