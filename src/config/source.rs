//! The text of one file, and where in it something is.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// One file that was read.
#[derive(Debug)]
pub(super) struct Source {
    /// As it is named to people: the path that was given, or found beside it.
    pub path: PathBuf,
    /// Its directory, absolute: what relative paths in it are relative to.
    pub dir: PathBuf,
    /// Its text.
    pub text: String,
    /// Whether its lines may be shown in messages. Environment files hold secrets.
    pub show: bool,
    /// The text with the lines of `stops` blanked, if there are any.
    pub patched: Option<String>,
    /// Errors at which the parser stops reading, see [`super::syntax::patch`].
    pub stops: Vec<(Range<usize>, String)>,
}

/// Line and column, both from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub line: u32,
    pub column: u32,
}

impl Source {
    /// Wraps a text read from `path`.
    pub(super) fn new(path: &Path, text: String) -> Self {
        let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let dir = full.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
        Self { path: path.to_owned(), dir, text, show: true, patched: None, stops: Vec::new() }
    }

    /// Its path from the root.
    pub(super) fn full_path(&self) -> PathBuf {
        self.path.file_name().map_or_else(|| self.path.clone(), |name| self.dir.join(name))
    }

    /// Where byte `at` is. An offset past the end, or inside a character, is moved back to one that exists.
    pub(super) fn position(&self, at: usize) -> Position {
        position(&self.text, at)
    }

    /// The line that holds byte `at`, without its end.
    pub(super) fn line(&self, at: usize) -> &str {
        let at = floor(&self.text, at);
        let start = self.text[..at].rfind('\n').map_or(0, |n| n + 1);
        let line = self.text[start..].split('\n').next().unwrap_or_default();
        line.strip_suffix('\r').unwrap_or(line)
    }

    /// How many characters of `span` are on its first line, at least 1.
    pub(super) fn width(&self, span: &Range<usize>) -> u32 {
        let (start, end) = (floor(&self.text, span.start), floor(&self.text, span.end));
        let text = self.text.get(start..end).unwrap_or_default();
        let first_line = text.split(['\n', '\r']).next().unwrap_or_default();
        u32::try_from(first_line.chars().count()).unwrap_or(u32::MAX).max(1)
    }
}

/// Where byte `at` of `text` is.
pub(super) fn position(text: &str, at: usize) -> Position {
    let before = &text[..floor(text, at)];
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Position {
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: u32::try_from(column).unwrap_or(u32::MAX),
    }
}

fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_and_survive_any_offset() {
        let source = Source::new(Path::new("a.toml"), "é = 1\r\nxy\n".into());
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.position(3), Position { line: 1, column: 3 });
        assert_eq!(source.position(1), Position { line: 1, column: 1 });
        assert_eq!(source.position(9), Position { line: 2, column: 2 });
        assert_eq!(source.position(99), Position { line: 3, column: 1 });
        assert_eq!((source.line(3), source.line(9), source.line(99)), ("é = 1", "xy", ""));
        assert_eq!((source.width(&(0..5)), source.width(&(3..9)), source.width(&(9..9))), (4, 3, 1));
        assert!(source.dir.is_absolute());
    }
}
