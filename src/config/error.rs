//! What is wrong with a configuration: every error at once, each with its place.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::source::{Position, Source};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1; 0 when the file as a whole is meant.
    pub line: u32,
    /// The column in that line, from 1, in characters; 0 when the file as a whole is meant.
    pub column: u32,
    /// The key, as a path (`job.web.stop[0].signal`); empty when no key is meant.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it, if there is something to say.
    pub suggestion: Option<String>,
    /// The text of the line, if it may be shown.
    pub source_line: Option<String>,
    /// How many characters are meant, from the column on.
    pub width: u32,
}

/// Everything that is wrong, in the order of files and lines; never empty when it is returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors(pub Vec<Error>);

/// Most errors that are kept. Nobody reads more, and finding the line of each takes time.
const MOST: usize = 500;

/// Longest piece of a source line that is shown.
const SHOWN: usize = 160;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; {suggestion}")?;
        }
        match &self.source_line {
            Some(line) if self.line > 0 => self.draw(f, line),
            _ => Ok(()),
        }
    }
}

impl Error {
    /// The source line with carets below the place. Tabs are kept in both lines, so that they agree
    /// however wide a tab is; other control characters must not reach a terminal.
    fn draw(&self, f: &mut fmt::Formatter<'_>, line: &str) -> fmt::Result {
        let column = usize::try_from(self.column).unwrap_or(usize::MAX).max(1) - 1;
        let skip = if column > SHOWN - 20 { column - SHOWN / 2 } else { 0 };
        let shown: String = line
            .chars()
            .skip(skip)
            .take(SHOWN)
            .map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c })
            .collect();
        let number = self.line.to_string();
        let pad: String =
            shown.chars().take(column - skip).map(|c| if c == '\t' { c } else { ' ' }).collect();
        let room = shown.chars().count().saturating_sub(column - skip).max(1);
        let carets = "^".repeat(usize::try_from(self.width).unwrap_or(usize::MAX).clamp(1, room));
        write!(f, "\n  {number} | {shown}\n  {:1$} | {pad}{carets}", "", number.len())
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Where errors are collected while reading. One place says one thing once: defaults are read again for
/// each job that uses them.
#[derive(Debug, Default)]
pub(super) struct Report {
    errors: RefCell<Vec<Error>>,
    /// Errors beyond [`MOST`]: counted, not kept.
    more: Cell<usize>,
    seen: RefCell<BTreeSet<(PathBuf, u32, u32, String)>>,
    /// Lines with a syntax error: what is said about their values would only be an echo.
    muted: RefCell<BTreeSet<(PathBuf, u32)>>,
    /// Files of which the parser has left something out: nothing is called missing in them.
    holes: RefCell<BTreeSet<PathBuf>>,
}

impl Report {
    /// How many errors there are by now.
    pub(super) fn count(&self) -> usize {
        self.errors.borrow().len() + self.more.get()
    }

    /// Adds an error about a place in a file.
    pub(super) fn at(
        &self,
        source: &Source,
        span: &Range<usize>,
        key: &str,
        message: impl Into<String>,
        suggestion: Option<String>,
    ) {
        if self.errors.borrow().len() >= MOST {
            self.more.set(self.more.get() + 1);
            return;
        }
        let position = source.position(span.start);
        if self.muted.borrow().contains(&(source.path.clone(), position.line)) {
            return;
        }
        self.add(Error {
            file: source.path.clone(),
            line: position.line,
            column: position.column,
            key: key.to_owned(),
            message: message.into(),
            suggestion,
            source_line: source.show.then(|| source.line(span.start).to_owned()),
            width: source.width(span),
        });
    }

    /// Says nothing more about this line.
    pub(super) fn mute(&self, source: &Source, line: u32) {
        self.muted.borrow_mut().insert((source.path.clone(), line));
    }

    /// Says of nothing in this file that it is missing.
    pub(super) fn has_holes(&self, source: &Source) {
        self.holes.borrow_mut().insert(source.path.clone());
    }

    /// Whether something missing from this file may be called so.
    pub(super) fn may_miss(&self, source: &Source) -> bool {
        !self.holes.borrow().contains(&source.path)
    }

    /// Adds an error about a file as a whole, or about a place in a text that cannot be shown.
    pub(super) fn file(&self, file: &Path, message: impl Into<String>, at: Option<Position>) {
        self.add(Error {
            file: file.to_owned(),
            line: at.map_or(0, |at| at.line),
            column: at.map_or(0, |at| at.column),
            key: String::new(),
            message: message.into(),
            suggestion: None,
            source_line: None,
            width: 0,
        });
    }

    /// Adds an error that is already complete.
    fn add(&self, error: Error) {
        let place = (error.file.clone(), error.line, error.column, error.message.clone());
        if self.seen.borrow_mut().insert(place) {
            self.errors.borrow_mut().push(error);
        }
    }

    /// All errors; those of a file are in the order of its lines, files in the order they were read.
    pub(super) fn finish(self, files: &[PathBuf]) -> Vec<Error> {
        let mut errors = self.errors.into_inner();
        let rank = |file: &Path| files.iter().position(|f| f == file).unwrap_or(files.len());
        errors.sort_by_key(|e| (rank(&e.file), e.line, e.column));
        if let (Some(last), more @ 1..) = (errors.last().cloned(), self.more.get()) {
            let message = format!("{more} more errors are not shown");
            errors.push(Error {
                line: 0,
                column: 0,
                key: String::new(),
                suggestion: None,
                source_line: None,
                message,
                ..last
            });
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str, column: u32, width: u32) -> Error {
        Error {
            file: "outlive.toml".into(),
            line: 12,
            column,
            key: "job.web.comand".into(),
            message: "unknown key".into(),
            suggestion: Some("did you mean `command`?".into()),
            source_line: Some(line.into()),
            width,
        }
    }

    #[test]
    fn an_error_shows_its_place() {
        assert_eq!(
            error("\tcomand = 1", 2, 6).to_string(),
            "outlive.toml:12:2: job.web.comand: unknown key; did you mean `command`?\n  \
             12 | \tcomand = 1\n     | \t^^^^^^"
        );
    }

    #[test]
    fn carets_stay_within_a_long_or_hostile_line() {
        let long = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let shown = error(&long, 501, 900).to_string();
        let mut lines = shown.lines().skip(1);
        let (text, carets) = (lines.next().unwrap(), lines.next().unwrap());
        assert_eq!(text.find('X'), carets.find('^'));
        assert!(text.len() < 200 && carets.len() < 200, "{shown}");
        assert!(!error("a\u{1b}[31m", 1, 1).to_string().contains('\u{1b}'));
        assert!(error("", 7, 3).to_string().ends_with('^'));
    }

    #[test]
    fn the_same_is_said_once_and_in_order() {
        let report = Report::default();
        for line in [5, 2, 5] {
            report.add(Error { line, ..error("", 1, 1) });
        }
        report.file(Path::new("z.toml"), "gone", None);
        report.file(Path::new("outlive.toml"), "odd", None);
        let lines: Vec<u32> = report.finish(&["outlive.toml".into()]).iter().map(|e| e.line).collect();
        assert_eq!(lines, [0, 2, 5, 0]);
    }
}
