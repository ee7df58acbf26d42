//! Reads one TOML table by its [`Section`]: unknown keys, types, ranges and defaults, all from the schema.
//!
//! Every getter notes what is wrong and goes on, so that one pass finds all mistakes. `None` from a getter
//! means "absent without a default" or "wrong, and reported"; the caller needs no third case, because a
//! report that is not clean yields no configuration.

use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

use crate::problem::{At, Report, Span};
use crate::schema::{Key, Kind, Section, Without};

/// A table of the file and the section that says what may stand in it.
pub(crate) struct Table<'t> {
    pub section: &'static Section,
    entries: &'t DeTable<'t>,
    pub span: Span,
}

impl<'t> Table<'t> {
    /// The file itself.
    pub fn root(section: &'static Section, entries: &'t DeTable<'t>, report: &mut Report<'_>) -> Self {
        let table = Self { section, entries, span: 0..0 };
        table.reject_unknown(report);
        table
    }

    fn open(
        section: &'static Section,
        value: &'t Spanned<DeValue<'t>>,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let Some(entries) = value.get_ref().as_table() else {
            let found = kind_of(value.get_ref());
            report.problem(
                &value.span(),
                format!("{found} where a table is needed; write it as {}", section.header),
            );
            return None;
        };
        let table = Self { section, entries, span: value.span() };
        table.reject_unknown(report);
        Some(table)
    }

    fn reject_unknown(&self, report: &mut Report<'_>) {
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if self.section.keys.iter().any(|known| known.name == name) {
                continue;
            }
            let place =
                if self.section.header.is_empty() { "at the top of the file" } else { self.section.header };
            let advice = match nearest(name, self.section.keys.iter().map(|known| known.name)) {
                Some(known) => format!("did you mean `{known}`?"),
                None => {
                    format!(
                        "the keys here are {}",
                        list(self.section.keys.iter().map(|known| known.name), "and")
                    )
                }
            };
            report.problem(&key.span(), format!("unknown key `{name}` {}; {advice}", preposition(place)));
        }
    }

    /// Where a key's value stands, if the key is given.
    pub fn given(&self, key: &Key) -> Option<Span> {
        self.entries.get(key.name).map(Spanned::span)
    }

    /// Whether a key's value is the empty list.
    pub fn is_empty_list(&self, key: &Key) -> bool {
        let value = self.entries.get(key.name).map(Spanned::get_ref);
        value.and_then(DeValue::as_array).is_some_and(|items| items.is_empty())
    }

    fn value(&self, key: &Key, report: &mut Report<'_>) -> Option<&'t Spanned<DeValue<'t>>> {
        let value = self.entries.get(key.name);
        if value.is_none() && matches!(key.default, Without::Required) {
            self.missing(key, report);
        }
        value
    }

    fn missing(&self, key: &Key, report: &mut Report<'_>) {
        let place = if self.section.header.is_empty() { "the file" } else { self.section.header };
        let form = match key.kind {
            Kind::Table(section) | Kind::Tables(section) => format!("add {}", section.header),
            kind => format!("add `{} = ...`, {}", key.name, describe(kind)),
        };
        report.problem(&self.span, format!("`{}` is missing in {place}; {form}", key.name));
    }

    /// A number in the key's range.
    pub fn integer(&self, key: &Key, report: &mut Report<'_>) -> Option<At<u64>> {
        let (Kind::Integer { min, max } | Kind::Integers { min, max }) = key.kind else {
            return None;
        };
        match self.value(key, report) {
            Some(value) => number(key, value, min, max, report),
            None => match key.default {
                Without::Integer(number) => Some(At { value: number, span: self.span.clone() }),
                _ => None,
            },
        }
    }

    /// A list of numbers in the key's range; those that are wrong are reported and left out.
    pub fn integers(&self, key: &Key, report: &mut Report<'_>) -> Vec<At<u64>> {
        let Kind::Integers { min, max } = key.kind else {
            return Vec::new();
        };
        let Some(value) = self.value(key, report) else {
            return Vec::new();
        };
        let Some(items) = array(key, value, report) else {
            return Vec::new();
        };
        items.iter().filter_map(|item| number(key, item, min, max, report)).collect()
    }

    /// Seconds, or `None` for "never". Something wrong is reported and stands as "never", too.
    pub fn seconds_or_never(&self, key: &Key, report: &mut Report<'_>) -> Option<u64> {
        let Kind::SecondsOrNever(max) = key.kind else {
            return None;
        };
        let Some(value) = self.value(key, report) else {
            return match key.default {
                Without::Integer(seconds) => Some(seconds),
                _ => None,
            };
        };
        match value.get_ref() {
            DeValue::String(word) if word == "never" => None,
            _ => number(key, value, 0, max, report).map(|seconds| seconds.value),
        }
    }

    /// A truth.
    pub fn flag(&self, key: &Key, report: &mut Report<'_>) -> bool {
        let default = matches!(key.default, Without::Flag(true));
        let Some(value) = self.value(key, report) else {
            return default;
        };
        match value.get_ref() {
            DeValue::Boolean(flag) => *flag,
            other => {
                mismatch(key, other, value.span(), report);
                default
            }
        }
    }

    /// A string.
    pub fn text(&self, key: &Key, report: &mut Report<'_>) -> Option<At<&'t str>> {
        match self.value(key, report) {
            Some(value) => string(key, value, report),
            None => match key.default {
                Without::Text(text) => Some(At { value: text, span: self.span.clone() }),
                _ => None,
            },
        }
    }

    /// A string or a list of strings, never an empty list.
    pub fn texts(&self, key: &Key, report: &mut Report<'_>) -> Vec<At<&'t str>> {
        let Some(value) = self.value(key, report) else {
            return Vec::new();
        };
        match value.get_ref() {
            DeValue::String(_) => string(key, value, report).into_iter().collect(),
            DeValue::Array(items) => {
                if items.is_empty() {
                    report.problem(
                        &value.span(),
                        format!("`{}` is empty; give {}", key.name, describe(key.kind)),
                    );
                }
                items.iter().filter_map(|item| string(key, item, report)).collect()
            }
            other => {
                mismatch(key, other, value.span(), report);
                Vec::new()
            }
        }
    }

    /// One of the key's words.
    pub fn choice(&self, key: &Key, report: &mut Report<'_>) -> Option<At<&'t str>> {
        let Kind::Choice(words) = key.kind else {
            return None;
        };
        let text = self.text(key, report)?;
        one_of(key, words, &text, report).then_some(text)
    }

    /// A list of the key's words, each at most once.
    pub fn choices(&self, key: &Key, report: &mut Report<'_>) -> Vec<At<&'t str>> {
        let Kind::Choices(words) = key.kind else {
            return Vec::new();
        };
        let Some(value) = self.value(key, report) else {
            return match key.default {
                Without::List(word) => vec![At { value: word, span: self.span.clone() }],
                _ => Vec::new(),
            };
        };
        let Some(items) = array(key, value, report) else {
            return Vec::new();
        };
        let mut chosen: Vec<At<&'t str>> = Vec::new();
        for item in items {
            let Some(text) = string(key, item, report) else {
                continue;
            };
            if !one_of(key, words, &text, report) {
                continue;
            }
            if chosen.iter().any(|other| other.value == text.value) {
                report.problem(
                    &text.span,
                    format!("\"{}\" stands twice in `{}`; remove one", text.value, key.name),
                );
                continue;
            }
            chosen.push(text);
        }
        chosen
    }

    /// The raw value of a key whose form is its own (`port` of a VIP).
    pub fn raw(&self, key: &Key, report: &mut Report<'_>) -> Option<&'t Spanned<DeValue<'t>>> {
        self.value(key, report)
    }

    /// A table below this one, or an empty one in its place, so that its defaults are read.
    pub fn table_or_empty(
        &self,
        key: &Key,
        empty: &'t DeTable<'t>,
        report: &mut Report<'_>,
    ) -> Option<Table<'t>> {
        match key.kind {
            Kind::Table(section) if self.given(key).is_none() => Some(Table::root(section, empty, report)),
            _ => self.table(key, report),
        }
    }

    /// A table below this one.
    pub fn table(&self, key: &Key, report: &mut Report<'_>) -> Option<Table<'t>> {
        let Kind::Table(section) = key.kind else {
            return None;
        };
        let value = self.value(key, report)?;
        Table::open(section, value, report)
    }

    /// The tables of a list below this one.
    pub fn tables(&self, key: &Key, report: &mut Report<'_>) -> Vec<Table<'t>> {
        let Kind::Tables(section) = key.kind else {
            return Vec::new();
        };
        let Some(value) = self.entries.get(key.name) else {
            return Vec::new();
        };
        let Some(items) = value.get_ref().as_array() else {
            let found = kind_of(value.get_ref());
            report.problem(
                &value.span(),
                format!("{found} where a list of tables is needed; write {} for each", section.header),
            );
            return Vec::new();
        };
        items.iter().filter_map(|item| Table::open(section, item, report)).collect()
    }
}

/// `in [dataplane]`, but `at the top of the file` as it is.
fn preposition(place: &str) -> String {
    if place.starts_with('[') { format!("in {place}") } else { place.to_owned() }
}

/// What a key holds, in words that fit after "add", "give" and "needs".
pub(crate) fn describe(kind: Kind) -> String {
    match kind {
        Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Kind::SecondsOrNever(max) => format!("a whole number from 0 to {max}, or \"never\""),
        Kind::Integers { min, max } => format!("a list of whole numbers from {min} to {max}"),
        Kind::Flag => "true or false".to_owned(),
        Kind::Text(form) => form.to_owned(),
        Kind::Texts(form) => format!("{form}, or a list of such"),
        Kind::Choice(words) => list(quoted(words).iter().map(String::as_str), "or"),
        Kind::Choices(words) => {
            format!("a list of {}", list(quoted(words).iter().map(String::as_str), "and"))
        }
        Kind::Ports => "a port number from 1 to 65535, a list of such, or \"any\"".to_owned(),
        Kind::Table(section) => format!("a table {}", section.header),
        Kind::Tables(section) => format!("tables {}", section.header),
    }
}

fn quoted(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| format!("\"{word}\"")).collect()
}

/// `a, b and c`.
pub(crate) fn list<'a>(words: impl Iterator<Item = &'a str>, last: &str) -> String {
    let words: Vec<&str> = words.collect();
    match words.split_last() {
        None => String::new(),
        Some((only, [])) => (*only).to_owned(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
    }
}

/// The known word closest to a mistyped one, if one is close.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = word.to_lowercase().replace('-', "_");
    known
        .map(|candidate| (strsim::damerau_levenshtein(&plain, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A value's type with its article.
pub(crate) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a truth value",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Reports a value of the wrong type.
pub(crate) fn mismatch(key: &Key, found: &DeValue<'_>, span: Span, report: &mut Report<'_>) {
    report.problem(&span, format!("`{}` is {}; give {}", key.name, kind_of(found), describe(key.kind)));
}

/// The value of an integer literal of any base; `None` when it is negative or does not fit.
pub(crate) fn to_u64(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn number(
    key: &Key,
    value: &Spanned<DeValue<'_>>,
    min: u64,
    max: u64,
    report: &mut Report<'_>,
) -> Option<At<u64>> {
    let DeValue::Integer(integer) = value.get_ref() else {
        mismatch(key, value.get_ref(), value.span(), report);
        return None;
    };
    match to_u64(integer) {
        Some(number) if (min..=max).contains(&number) => Some(At { value: number, span: value.span() }),
        _ => {
            report.problem(
                &value.span(),
                format!("{integer} is out of range for `{}`; it goes from {min} to {max}", key.name),
            );
            None
        }
    }
}

fn string<'t>(key: &Key, value: &'t Spanned<DeValue<'t>>, report: &mut Report<'_>) -> Option<At<&'t str>> {
    match value.get_ref() {
        DeValue::String(text) => Some(At { value: text, span: value.span() }),
        other => {
            mismatch(key, other, value.span(), report);
            None
        }
    }
}

fn array<'t>(key: &Key, value: &'t Spanned<DeValue<'t>>, report: &mut Report<'_>) -> Option<&'t DeArray<'t>> {
    let items = value.get_ref().as_array();
    if items.is_none() {
        mismatch(key, value.get_ref(), value.span(), report);
    }
    items
}

fn one_of(key: &Key, words: &[&str], text: &At<&str>, report: &mut Report<'_>) -> bool {
    let known = words.contains(&text.value);
    if !known {
        let available = list(quoted(words).iter().map(String::as_str), "and");
        let message = format!("`{}` \"{}\" is unknown; there is {available}", key.name, text.value);
        report.problem(&text.span, message);
    }
    known
}
