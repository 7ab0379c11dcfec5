//! A value with its place in the file and its key, and tables of them. Every reader of a value goes through
//! here, so that every wrong type and every unknown key is reported the same way.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::error::Report;
use super::source::Source;
use super::suggest;

/// One value.
#[derive(Clone)]
pub(super) struct Node<'a> {
    pub source: &'a Source,
    pub report: &'a Report,
    /// The key as a path from the top of the file.
    pub key: String,
    /// Where the key is; for an element of a list, where the element is.
    pub key_span: Range<usize>,
    pub span: Range<usize>,
    pub value: &'a DeValue<'a>,
}

impl<'a> Node<'a> {
    /// Reports that this value is wrong.
    pub(super) fn error(&self, message: impl Into<String>, suggestion: Option<String>) {
        self.report.at(self.source, &self.span, &self.key, message, suggestion);
    }

    /// Reports that something is wrong about the key, not the value.
    pub(super) fn key_error(&self, message: impl Into<String>, suggestion: Option<String>) {
        self.report.at(self.source, &self.key_span, &self.key, message, suggestion);
    }

    /// Reports that a key below this one is missing.
    pub(super) fn missing(&self, what: &str, suggestion: Option<String>) {
        if self.report.may_miss(self.source) {
            self.key_error(format!("{what} is missing"), suggestion);
        }
    }

    /// Reports a message with a suggestion.
    pub(super) fn bad(&self, (message, suggestion): (String, Option<String>)) {
        self.error(message, suggestion);
    }

    /// Reports a wrong type: `expected a string, found an integer`.
    pub(super) fn wrong_type(&self, expected: &str, suggestion: Option<String>) {
        self.error(format!("expected {expected}, found {}", self.type_name()), suggestion);
    }

    /// The type of the value with its article.
    pub(super) fn type_name(&self) -> &'static str {
        match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        }
    }

    /// The string, or an error that says what was expected.
    pub(super) fn string(&self, expected: &str) -> Option<&'a str> {
        match self.value {
            DeValue::String(text) => Some(text.as_ref()),
            _ => {
                self.wrong_type(expected, None);
                None
            }
        }
    }

    /// The boolean.
    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(b) => Some(*b),
            DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => {
                self.wrong_type("a boolean", Some(format!("write {text} without quotes")));
                None
            }
            _ => {
                self.wrong_type("a boolean", None);
                None
            }
        }
    }

    /// An integer of `range`.
    pub(super) fn integer<T>(&self, range: std::ops::RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        let DeValue::Integer(number) = self.value else {
            self.wrong_type("an integer", None);
            return None;
        };
        let fits = to_i64(number).and_then(|n| T::try_from(n).ok()).filter(|n| range.contains(n));
        if fits.is_none() {
            self.error(format!("{number} is not in the range {} to {}", range.start(), range.end()), None);
        }
        fits
    }

    /// A number, whole or not.
    pub(super) fn number(&self) -> Option<f64> {
        let text = match self.value {
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Integer(number) => to_i64(number)?.to_string(),
            _ => {
                self.wrong_type("a number", None);
                return None;
            }
        };
        text.parse().ok()
    }

    /// One of the words of a choice.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let words = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let text = self.string(&format!("one of {words}"))?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let meant = suggest::did_you_mean(text, choices.iter().map(|(word, _)| *word));
            let message = format!("`{}` is not one of {words}", super::units::shorten(text));
            self.error(message, meant);
        }
        found
    }

    /// The elements of a list.
    pub(super) fn list(&self, expected: &str) -> Option<Vec<Node<'a>>> {
        let DeValue::Array(items) = self.value else {
            self.wrong_type(expected, None);
            return None;
        };
        let element = |(i, item): (usize, &'a Spanned<DeValue<'a>>)| Node {
            key: format!("{}[{i}]", self.key),
            key_span: item.span(),
            span: item.span(),
            value: item.get_ref(),
            ..self.clone()
        };
        Some(items.iter().enumerate().map(element).collect())
    }

    /// The entries of a table whose keys are free.
    pub(super) fn entries(&self, expected: &str) -> Option<Vec<(&'a str, Node<'a>)>> {
        let DeValue::Table(table) = self.value else {
            self.wrong_type(expected, None);
            return None;
        };
        Some(entries_of(self, table))
    }

    /// A table with these keys and no others; unknown ones are reported here and now.
    pub(super) fn table(&self, expected: &str, known: &'static [&'static str]) -> Option<Table<'a>> {
        Some(Table::new(self.entries(expected)?, known))
    }
}

/// A table with known keys.
#[derive(Clone)]
pub(super) struct Table<'a> {
    entries: Vec<(&'a str, Node<'a>)>,
    known: &'static [&'static str],
}

impl<'a> Table<'a> {
    /// Wraps entries and reports those whose key is not known.
    pub(super) fn new(entries: Vec<(&'a str, Node<'a>)>, known: &'static [&'static str]) -> Self {
        for (name, entry) in &entries {
            if !known.contains(name) {
                let suggestion = suggest::for_key(name, known);
                let few = || (known.len() < 12).then(|| format!("known here: {}", listed(known)));
                entry.key_error("unknown key", suggestion.or_else(few));
            }
        }
        Self { entries, known }
    }

    /// The value of a key, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<Node<'a>> {
        debug_assert!(self.known.contains(&key), "{key} is read but not known");
        self.entries.iter().find(|(name, _)| *name == key).map(|(_, node)| node.clone())
    }

    /// Whether an unknown key here was probably meant to be this one.
    pub(super) fn has_slip_of(&self, key: &str) -> bool {
        let unknown = self.entries.iter().filter(|(name, _)| !self.known.contains(name));
        unknown.into_iter().any(|(name, _)| suggest::for_key(name, &[key]).is_some())
    }

    /// As [`Table::get`], for a key that this table may be without.
    pub(super) fn get_if_known(&self, key: &str) -> Option<Node<'a>> {
        self.known.contains(&key).then(|| self.get(key)).flatten()
    }
}

/// The entries of a table in the order of the file.
pub(super) fn entries_of<'a>(parent: &Node<'a>, table: &'a DeTable<'a>) -> Vec<(&'a str, Node<'a>)> {
    let mut entries: Vec<(&'a str, Node<'a>)> = table
        .iter()
        .map(|(key, value)| {
            let name: &'a str = key.get_ref().as_ref();
            let node = Node {
                key: join(&parent.key, name),
                key_span: key.span(),
                span: value.span(),
                value: value.get_ref(),
                ..parent.clone()
            };
            (name, node)
        })
        .collect();
    entries.sort_by_key(|(_, node)| node.key_span.start);
    entries
}

/// A key below another; quoted where TOML would ask for quotes.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let key = if bare { key.to_owned() } else { format!("\"{}\"", key.escape_debug()) };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// The value of an integer literal; `None` where it is larger than 64 bits hold.
pub(super) fn to_i64(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Words in backquotes, for a message.
fn listed(words: &[&str]) -> String {
    words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
}
