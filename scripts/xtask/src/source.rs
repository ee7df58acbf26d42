//! A Rust file as the checks see it: code without comments and literals, test parts, functions.
//!
//! A lexer, not a parser: it knows what a string, a comment and a brace is, which is all that counting lines and
//! finding words needs, and it never refuses a file that the compiler takes. Invariant: `code` has the same
//! length and the same line ends as `text`, so that a place in one is a place in the other.

use std::ops::Range;

/// One Rust file.
#[derive(Debug)]
pub struct Source<'a> {
    /// Relative to the root.
    pub path: &'a str,
    /// As written.
    pub text: &'a str,
    /// As written, with spaces in place of comments and of what is inside literals.
    pub code: String,
    /// Byte ranges of items under `#[cfg(test)]`; the whole file where it is test code by its place.
    pub tests: Vec<Range<usize>>,
}

/// A function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Where `fn` stands, in bytes.
    pub start: usize,
    /// Lines from `fn` to the closing brace.
    pub lines: usize,
}

impl<'a> Source<'a> {
    /// Reads a file; `is_test` when all of it is test code.
    pub fn new(path: &'a str, text: &'a str, is_test: bool) -> Self {
        let code = mask(text);
        let tests = if is_test { std::iter::once(0..text.len()).collect() } else { test_items(&code) };
        Self { path, text, code, tests }
    }

    /// The line of a place, from 1.
    pub fn line(&self, at: usize) -> usize {
        1 + self.code.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
    }

    /// Whether a place is in test code.
    pub fn is_test(&self, at: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&at))
    }

    /// How many lines there are outside test code.
    pub fn lines_without_tests(&self) -> usize {
        let mut at = 0;
        let mut count = 0;
        for line in self.text.split_inclusive('\n') {
            count += usize::from(!self.is_test(at));
            at += line.len();
        }
        count
    }

    /// Whether the line of `at`, or one of the `above` lines before it, has a comment that contains `word`.
    /// An empty word is in every comment.
    pub fn has_comment(&self, at: usize, above: usize, word: &str) -> bool {
        let line = self.line(at);
        let first = line.saturating_sub(above + 1);
        self.text.lines().take(line).skip(first).any(|line| {
            line.split_once("//").is_some_and(|(_, comment)| comment.to_lowercase().contains(word))
        })
    }

    /// Every function that has a body.
    pub fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for start in words(&self.code, "fn") {
            let rest = self.code.get(start + 2..).unwrap_or_default();
            let name: String = rest.trim_start().chars().take_while(|c| is_word(*c)).collect();
            if name.is_empty() {
                continue;
            }
            let Some(end) = item_end(&self.code, start) else {
                continue;
            };
            if self.code.as_bytes().get(end - 1) == Some(&b'}') {
                let lines = 1 + self.line(end - 1) - self.line(start);
                functions.push(Function { name, start, lines });
            }
        }
        functions
    }
}

/// Places where `word` stands as a word of its own in `code`. The word may contain `::` and may end in `!`.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code.get(..*at).and_then(|text| text.chars().next_back());
        let after = code.get(at + word.len()..).and_then(|text| text.chars().next());
        !(before.is_some_and(is_word) || after.is_some_and(is_word) && word.ends_with(is_word))
    })
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Where the item that starts at `start` ends: just past its closing brace, or past its semicolon.
fn item_end(code: &str, start: usize) -> Option<usize> {
    let mut depth = 0_i32;
    let mut braces = 0_i32;
    for (at, c) in code.get(start..)?.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' => braces += 1,
            '}' => {
                braces -= 1;
                if braces == 0 && depth == 0 {
                    return Some(start + at + 1);
                }
            }
            ';' if depth == 0 && braces == 0 => return Some(start + at + 1),
            _ => {}
        }
    }
    None
}

/// Items under `#[cfg(test)]` or any predicate that needs `test`.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    for (start, _) in code.match_indices("#[cfg(") {
        let Some(length) = code.get(start..).and_then(|rest| rest.find("]")) else {
            continue;
        };
        let predicate = code.get(start..start + length).unwrap_or_default();
        let needs_test = words(predicate, "test").next().is_some()
            && !predicate.contains("not(test")
            && !predicate.contains("any(");
        if !needs_test {
            continue;
        }
        let mut at = start + length + 1;
        // Further attributes between this one and the item.
        loop {
            let rest = code.get(at..).unwrap_or_default();
            at += rest.len() - rest.trim_start().len();
            if !code.get(at..).unwrap_or_default().starts_with("#[") {
                break;
            }
            match code.get(at..).and_then(|rest| rest.find(']')) {
                Some(end) => at += end + 1,
                None => break,
            }
        }
        if let Some(end) = item_end(code, at) {
            ranges.push(start..end);
        }
    }
    ranges
}

/// `text` with comments and the insides of literals blanked.
fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest, 1),
            'r' | 'b' | 'c' if !is_word(previous) => prefixed(rest),
            '\'' => character(rest),
            _ => 0,
        };
        let (taken, blank) = if length == 0 { (c.len_utf8(), false) } else { (length, true) };
        let (token, after) = rest.split_at(taken);
        previous = token.chars().next_back().unwrap_or(' ');
        if blank {
            blank_out(token, &mut masked);
            previous = ' ';
        } else {
            masked.push_str(token);
        }
        rest = after;
    }
    masked
}

/// Byte for byte a space, so that places stay; line ends stay; quotes stay, so that a literal is still seen.
fn blank_out(token: &str, masked: &mut String) {
    for byte in token.bytes() {
        masked.push(match byte {
            b'\n' => '\n',
            b'"' => '"',
            _ => ' ',
        });
    }
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = rest.get(at..).unwrap_or_default();
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of a string whose opening quote ends at `open`.
fn string(rest: &str, open: usize) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip_while(|(at, _)| *at < open) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Literals that begin with a letter: `r"`, `r#"`, `b"`, `br#"`, `c"`, `b'`; 0 when it is just a word.
fn prefixed(rest: &str) -> usize {
    let letters = rest.find(|c| !matches!(c, 'r' | 'b' | 'c')).unwrap_or(rest.len());
    let after = rest.get(letters..).unwrap_or_default();
    let prefix = rest.get(..letters).unwrap_or_default();
    if prefix == "b" && after.starts_with('\'') {
        return match character(after) {
            0 => 0,
            length => letters + length,
        };
    }
    if !matches!(prefix, "r" | "b" | "c" | "br" | "cr") {
        return 0;
    }
    if !prefix.ends_with('r') {
        return if after.starts_with('"') { string(rest, letters + 1) } else { 0 };
    }
    let hashes = after.len() - after.trim_start_matches('#').len();
    if !after.get(hashes..).unwrap_or_default().starts_with('"') {
        return 0;
    }
    let open = letters + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    rest.get(open..).and_then(|body| body.find(&close)).map_or(rest.len(), |at| open + at + close.len())
}

/// The length of a character literal; 0 when the quote begins a lifetime.
fn character(rest: &str) -> usize {
    let mut letters = rest.char_indices().skip(1);
    match letters.next() {
        Some((_, '\\')) => {
            letters.next();
            letters.find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1)
        }
        Some(_) => match letters.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_places_stay() {
        let text = "let a = \"un\\\"safe\"; // unsafe\n/* a /* b */ unsafe */ let b = r#\"x\"unsafe\"#; let c = 'u';\n\
                    fn f<'a>(x: &'a str, q: char) { b'\\''; '\\u{1F600}'; 'ü' } unsafe";
        let source = Source::new("x.rs", text, false);
        assert_eq!(source.code.len(), text.len());
        assert_eq!(source.code.lines().count(), text.lines().count());
        let found: Vec<usize> = words(&source.code, "unsafe").collect();
        assert_eq!(found, [text.len() - "unsafe".len()]);
        assert_eq!(source.line(found[0]), 3);
        assert!(source.code.contains("fn f<'a>(x: &'a str, q: char)"));
    }

    #[test]
    fn a_word_is_not_found_inside_another() {
        assert_eq!(words("unsafe_code makeunsafe unsafe{", "unsafe").count(), 1);
        assert_eq!(words("println!(x) eprintln!(y)", "println!").count(), 1);
        assert_eq!(words("std::fs::read; xstd::fs", "std::fs").count(), 1);
    }

    #[test]
    fn a_function_is_counted_from_fn_to_its_brace() {
        let text =
            "trait T { fn none(&self) -> [u8; 4]; }\nfn one() {\n  if x {\n  }\n}\ntype F = fn(u8) -> u8;\n";
        let functions = Source::new("x.rs", text, false).functions();
        assert_eq!(functions.len(), 1);
        assert_eq!((functions[0].name.as_str(), functions[0].lines), ("one", 4));
    }

    #[test]
    fn test_items_do_not_count_as_lines() {
        let text = "//! x\nfn a() {}\n#[cfg(test)]\n#[allow(dead_code)]\nmod tests {\n  fn b() {}\n}\n\
                    #[cfg(all(test, not(loom)))]\nfn c() {\n}\n#[cfg(not(test))]\nfn d() {}\n";
        let source = Source::new("x.rs", text, false);
        assert_eq!(source.lines_without_tests(), 4);
        assert!(source.is_test(text.find("fn b").unwrap()));
        assert!(!source.is_test(text.find("fn d").unwrap()));
        assert_eq!(Source::new("tests/x.rs", text, true).lines_without_tests(), 0);
    }

    #[test]
    fn a_comment_is_found_on_the_line_and_above_it() {
        let text = "// Bounded by the slice.\nloop {\n}\nloop {\n}\n";
        let source = Source::new("x.rs", text, false);
        let loops: Vec<usize> = words(&source.code, "loop").collect();
        assert!(source.has_comment(loops[0], 1, "bound"));
        assert!(!source.has_comment(loops[1], 1, "bound"));
    }
}
