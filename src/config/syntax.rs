//! Parsing TOML with all of its errors, and judging how much of a broken file can still be trusted.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::error::Report;
use super::node::join;
use super::source::Source;

/// A parsed file.
pub(super) struct Document<'a> {
    pub source: &'a Source,
    /// Its top, a table.
    pub root: DeValue<'a>,
    /// How much of it can be trusted.
    pub state: State,
}

/// What the parser has left of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// All of it.
    Whole,
    /// All but some values or keys: something may seem to be missing.
    Holes,
    /// A bracket was never closed and has swallowed what follows: nothing can be said.
    Swallowed,
}

/// Errors shown for one file; one that is no TOML at all has thousands.
const SHOWN: usize = 20;

/// A key without a value is where the parser stops. Such lines are blanked, so that what follows is read
/// too; blanks of the same length keep every offset as it is.
pub(super) fn patch(mut source: Source) -> Source {
    while source.stops.len() < SHOWN {
        let text = source.patched.as_ref().unwrap_or(&source.text);
        let (_, errors) = DeTable::parse_recoverable(text);
        let stop = errors.iter().find(|e| e.message().starts_with("key with no value"));
        let Some(span) = stop.and_then(|e| e.span()) else { break };
        let line = Lines(text).span(span.start);
        let blanks = " ".repeat(line.len());
        let patched = format!("{}{blanks}{}", &text[..line.start], &text[line.end..]);
        source.stops.push((span, stop.map(|e| e.message().to_owned()).unwrap_or_default()));
        if patched == *text {
            break;
        }
        source.patched = Some(patched);
    }
    source
}

/// Parses a file and reports its syntax errors.
pub(super) fn parse<'a>(source: &'a Source, report: &Report) -> Document<'a> {
    let (table, errors) = DeTable::parse_recoverable(source.patched.as_ref().unwrap_or(&source.text));
    let found = errors.iter().map(|e| (e.span().unwrap_or_default(), e.message().to_owned()));
    let mut errors: Vec<(Range<usize>, String)> = source.stops.iter().cloned().chain(found).collect();
    errors.sort_by_key(|(span, _)| span.start);
    let swallowed = errors.iter().any(|(_, message)| message.starts_with("unclosed "));
    // A long line of nonsense has an error for each character, and each looks for its line.
    errors.truncate(10 * SHOWN);
    if swallowed && let Some(first) = errors.iter().position(|(_, message)| runs_away(message)) {
        errors.truncate(first + 1);
    }
    let lines = Lines(&source.text);
    let repeated: Vec<Range<usize>> = errors
        .iter()
        .filter(|(span, message)| message == DUPLICATE && lines.is_header(span.start))
        .map(|(span, _)| span.clone())
        .collect();
    let holes = errors.iter().any(|(_, message)| message != DUPLICATE);
    let mut bad_lines = Vec::new();
    for (span, message) in &errors {
        let line = source.position(span.start).line;
        let header = lines.header_above(span.start);
        // The keys of a table that is there twice are there twice too.
        let echo = message == DUPLICATE && repeated.iter().any(|r| r != span && header.contains(&r.start));
        if bad_lines.contains(&line) || echo {
            continue;
        }
        bad_lines.push(line);
        if bad_lines.len() > SHOWN {
            report.at(source, span, "", "too many syntax errors; the rest is not shown", None);
            break;
        }
        let (message, suggestion) = lines.explain(source, span, message);
        report.at(source, span, &lines.key(span.start), message, suggestion);
    }
    for line in bad_lines {
        report.mute(source, line);
    }
    if holes {
        report.has_holes(source);
    }
    let state = match (swallowed, holes) {
        (true, _) => State::Swallowed,
        (false, true) => State::Holes,
        (false, false) => State::Whole,
    };
    Document { source, root: DeValue::Table(table.into_inner()), state }
}

const DUPLICATE: &str = "duplicate key";

/// What the parser says, said for people.
const PLAIN: [(&str, &str); 6] = [
    ("string values must be quoted", "a string must stand in quotes"),
    ("invalid basic string", "the string is never closed"),
    ("invalid literal string", "the string is never closed"),
    ("invalid multi-line basic string", "the string is never closed"),
    ("invalid multi-line literal string", "the string is never closed"),
    ("key with no value", "a key without a value, expected `=`"),
];

fn runs_away(message: &str) -> bool {
    ["unclosed ", "missing comma", "unexpected `"].iter().any(|start| message.starts_with(start))
}

/// The text looked at line by line: good enough to say in words where something is.
struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn span(&self, at: usize) -> Range<usize> {
        let at = self.0.floor_char_boundary(at);
        let start = self.0[..at].rfind('\n').map_or(0, |n| n + 1);
        let end = self.0[at..].find('\n').map_or(self.0.len(), |n| at + n);
        start..end
    }

    fn is_header(&self, at: usize) -> bool {
        self.0[self.span(at)].trim_start().starts_with('[')
    }

    /// The line of the table header that holds at `at`; empty at the top of the file.
    fn header_above(&self, at: usize) -> Range<usize> {
        let mut line = self.span(at);
        while !self.0[line.clone()].trim_start().starts_with('[') {
            if line.start == 0 {
                return 0..0;
            }
            line = self.span(line.start - 1);
        }
        line
    }

    /// The path in a header line, without blanks.
    fn path(&self, header: Range<usize>) -> String {
        let inside = self.0[header].trim().trim_start_matches('[');
        inside.split(']').next().unwrap_or_default().chars().filter(|c| !c.is_whitespace()).collect()
    }

    /// The key that a line sets, if it looks like one.
    fn key_of_line(&self, line: Range<usize>) -> Option<&str> {
        let key = self.0[line].split(['=', ' ', '\t', '"', '\'']).find(|word| !word.is_empty())?;
        let bare = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        bare.then_some(key)
    }

    fn key(&self, at: usize) -> String {
        let header = self.header_above(at);
        let path = self.path(header.clone());
        match self.key_of_line(self.span(at)) {
            Some(key) if !header.contains(&at) && path.is_empty() => join("", key),
            Some(key) if !header.contains(&at) => format!("{path}.{key}"),
            _ => path,
        }
    }

    /// The words for an error of the parser.
    fn explain(&self, source: &Source, span: &Range<usize>, message: &str) -> (String, Option<String>) {
        if message != DUPLICATE {
            let plain = PLAIN.iter().find(|(theirs, _)| message.starts_with(theirs)).map(|(_, ours)| *ours);
            let open = (runs_away(message) && !message.starts_with("unclosed"))
                .then(|| "is a `]` or `}` missing before this?".to_owned());
            return (plain.unwrap_or(message).to_owned(), open);
        }
        let first = if self.is_header(span.start) { self.same_header(span) } else { self.same_key(span) };
        let Some(first) = first else { return ("duplicate key".into(), None) };
        let what = if self.is_header(span.start) { "table" } else { "key" };
        (format!("duplicate {what}; the first is at line {}", source.position(first).line), None)
    }

    /// Where the header at `span` stands for the first time.
    fn same_header(&self, span: &Range<usize>) -> Option<usize> {
        let wanted = self.path(self.span(span.start));
        let mut at = 0;
        while at < self.span(span.start).start {
            let line = self.span(at);
            if self.is_header(at) && self.path(line.clone()) == wanted {
                return Some(at);
            }
            at = line.end + 1;
        }
        None
    }

    /// Where the key at `span` is set for the first time below the same header.
    fn same_key(&self, span: &Range<usize>) -> Option<usize> {
        let wanted = self.0.get(span.clone())?;
        let header = self.header_above(span.start);
        let mut at = if header.is_empty() { 0 } else { header.end + 1 };
        while at < self.span(span.start).start {
            let line = self.span(at);
            if self.key_of_line(line.clone()) == Some(wanted) {
                return Some(at);
            }
            at = line.end + 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn errors(text: &str) -> (State, Vec<String>) {
        let source = patch(Source::new(Path::new("o.toml"), text.to_owned()));
        let report = Report::default();
        let state = parse(&source, &report).state;
        let shown =
            |e: super::super::error::Error| format!("{}:{}: {}: {}", e.line, e.column, e.key, e.message);
        (state, report.finish(&[]).into_iter().map(shown).collect())
    }

    #[test]
    fn duplicates_name_the_first() {
        let text = "[job.a]\ncommand = 'x'\ncommand = 'y'\n\n[job.b]\n[ job . a ]\ncommand = 'z'\n";
        assert_eq!(
            errors(text),
            (
                State::Whole,
                vec![
                    "3:1: job.a.command: duplicate key; the first is at line 2".into(),
                    "6:9: job.a: duplicate table; the first is at line 1".into(),
                ]
            )
        );
        assert_eq!(errors("x = { a = 1, a = 2 }").1, ["1:14: x: duplicate key"]);
        assert_eq!(errors("a = 1\na = 2").1, ["2:1: a: duplicate key; the first is at line 1"]);
    }

    #[test]
    fn an_open_bracket_is_blamed_once() {
        let text = "[job.a]\ncommand = [\"x\"\nenv = { A = \"1\" }\n[job.b]\ncommand = 3\n";
        let (state, errors) = errors(text);
        assert_eq!((state, errors.len()), (State::Swallowed, 1));
        assert!(
            errors[0].starts_with("2:15: job.a.command: missing comma") || errors[0].starts_with("3:1:"),
            "{errors:?}"
        );
    }

    #[test]
    fn every_broken_line_is_named() {
        let (state, found) = errors("[job.a]\ncommand = x\nuser = \"y\nnice 3\ngroup\numask = 08\n");
        let places: Vec<&str> = found.iter().map(|e| e.split(": ").nth(1).unwrap_or_default()).collect();
        assert_eq!(
            (state, places),
            (State::Holes, vec!["job.a.command", "job.a.user", "job.a.nice", "job.a.group", "job.a.umask"])
        );
    }

    #[test]
    fn junk_is_not_endless() {
        let (_, errors) = errors(&"}{ ]\n".repeat(500));
        assert!((1..=SHOWN + 1).contains(&errors.len()), "{}", errors.len());
        for junk in
            ["[", "]", "=", "[[", "\"", "'''", "a.", "[a.", "é = [", "\0", "{", "a = {", "a={b=[{c=", "\r"]
        {
            assert!(!self::errors(junk).1.is_empty(), "{junk:?}");
        }
    }
}
