//! Reading a file that somebody wrote by hand: it must be text, there, and not endless.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::source::{Position, position};

/// Largest file that is read.
const LARGEST: u64 = 16 * 1024 * 1024;

/// What may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    /// A regular file; a FIFO could keep the reader waiting for ever.
    Regular,
    /// Also what the operator names: `/dev/stdin`, `<(…)`.
    Stream,
}

/// Why a file cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unread {
    /// What is wrong.
    pub message: String,
    /// Where in the file, if it is about its content.
    pub at: Option<Position>,
}

impl Unread {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), at: None }
    }
}

/// The text of a file.
///
/// # Errors
/// It is missing, a directory, refused, too large, or not UTF-8.
pub(super) fn read(path: &Path, allowed: Allowed) -> Result<String, Unread> {
    let meta = std::fs::metadata(path).map_err(|e| refused(&e))?;
    if meta.is_dir() {
        return Err(Unread::new("it is a directory"));
    }
    if !meta.is_file() && allowed == Allowed::Regular {
        return Err(Unread::new("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| refused(&e))?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|e| refused(&e))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Unread::new("it is larger than 16 MiB"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&e.as_bytes()[..good]).into_owned();
        Unread { message: "it is not UTF-8 text".into(), at: Some(position(&text, good)) }
    })
}

fn refused(e: &io::Error) -> Unread {
    match e.kind() {
        io::ErrorKind::NotFound => Unread::new("it does not exist"),
        io::ErrorKind::PermissionDenied => Unread::new("permission denied"),
        _ => Unread::new(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn says_why_a_file_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path| read(path, Allowed::Regular).unwrap_err().message;
        assert_eq!(message(&dir.path().join("none")), "it does not exist");
        assert_eq!(message(dir.path()), "it is a directory");
        assert_eq!(message(Path::new("/dev/null")), "it is not a regular file");
        assert_eq!(read(Path::new("/dev/null"), Allowed::Stream).as_deref(), Ok(""));
        let path = dir.path().join("latin1");
        File::create(&path).unwrap().write_all(b"a = 1\nb\xe9 = 2\n").unwrap();
        let unread = read(&path, Allowed::Regular).unwrap_err();
        assert_eq!(
            (unread.message.as_str(), unread.at),
            ("it is not UTF-8 text", Some(Position { line: 2, column: 2 }))
        );
        let path = dir.path().join("huge");
        File::create(&path).unwrap().set_len(LARGEST + 1).unwrap();
        assert_eq!(message(&path), "it is larger than 16 MiB");
    }
}
