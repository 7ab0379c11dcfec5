//! Captured output on disk.
//!
//! A run's directory `output/` holds one *series* of segments (merged: bytes of both streams in the order
//! of arrival) or two (separate). A segment is a file of raw bytes named by the offset of its first byte in
//! the series, so that an offset is a cursor that stays good for ever:
//!
//! | mode | segments | index |
//! |---|---|---|
//! | merged | `00000000000000000000.log` | `index` |
//! | separate | `stdout-….log`, `stderr-….log` | `stdout-index`, `stderr-index` |
//!
//! A closed segment may be `….log.gz`; for a moment both exist, with the same bytes. The newest is always
//! plain. Files appear with the first byte. Only the keeper writes what is captured; any number of readers follow. The size
//! of the newest segment is the truth about what was captured. The index beside it ([`index::Record`])
//! gives times and streams; it may miss its tail, and nothing but attribution depends on it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub mod index;
mod pack;
mod reader;
mod source;

pub use index::Record;
pub use pack::compress;
pub use reader::{Chunk, Reader};

/// Where bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Descriptor 1 of the run.
    Stdout,
    /// Descriptor 2 of the run.
    Stderr,
}

/// One sequence of bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Series {
    /// Both streams.
    Merged,
    /// Standard output alone.
    Stdout,
    /// Standard error output alone.
    Stderr,
}

impl Series {
    /// Every series there can be.
    pub const ALL: [Self; 3] = [Self::Merged, Self::Stdout, Self::Stderr];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Merged => "",
            Self::Stdout => "stdout-",
            Self::Stderr => "stderr-",
        }
    }

    /// The stream that bytes of this series are taken for when the index does not say.
    #[must_use]
    pub const fn usual_stream(self) -> Stream {
        match self {
            Self::Merged | Self::Stdout => Stream::Stdout,
            Self::Stderr => Stream::Stderr,
        }
    }

    /// Path of the plain segment that starts at `start`.
    #[must_use]
    pub fn plain(self, dir: &Path, start: u64) -> PathBuf {
        dir.join(format!("{}{start:020}.log", self.prefix()))
    }

    /// Path of the compressed segment that starts at `start`.
    #[must_use]
    pub fn compressed(self, dir: &Path, start: u64) -> PathBuf {
        dir.join(format!("{}{start:020}.log.gz", self.prefix()))
    }

    /// Path of a compressed segment while it is being written.
    #[must_use]
    pub fn compressing(self, dir: &Path, start: u64) -> PathBuf {
        dir.join(format!("{}{start:020}.log.gz.tmp", self.prefix()))
    }

    /// Path of the index.
    #[must_use]
    pub fn index(self, dir: &Path) -> PathBuf {
        dir.join(format!("{}index", self.prefix()))
    }
}

/// What a file name in the directory says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// A segment as written.
    Plain(Series, u64),
    /// A compressed segment.
    Compressed(Series, u64),
    /// Left over from a compression that did not end.
    Leftover(Series),
    /// An index.
    Index(Series),
}

/// Reads a file name; `None` for what is not ours.
#[must_use]
pub fn parse_name(name: &str) -> Option<Name> {
    let (series, rest) = if let Some(rest) = name.strip_prefix("stdout-") {
        (Series::Stdout, rest)
    } else if let Some(rest) = name.strip_prefix("stderr-") {
        (Series::Stderr, rest)
    } else {
        (Series::Merged, name)
    };
    if rest == "index" {
        return Some(Name::Index(series));
    }
    let (digits, kind) = rest.split_at_checked(20)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let start = digits.parse().ok()?;
    match kind {
        ".log" => Some(Name::Plain(series, start)),
        ".log.gz" => Some(Name::Compressed(series, start)),
        ".log.gz.tmp" => Some(Name::Leftover(series)),
        _ => None,
    }
}

/// One segment as found in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Offset of its first byte.
    pub start: u64,
    /// Whether the plain file is there.
    pub plain: bool,
    /// Whether the compressed file is there.
    pub compressed: bool,
}

/// All files of ours in a directory. A directory that does not exist is empty.
pub fn scan(dir: &Path) -> io::Result<Vec<(Name, PathBuf)>> {
    let entries = match dir.read_dir() {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(name) = entry.file_name().to_str().and_then(parse_name) {
            names.push((name, entry.path()));
        }
    }
    Ok(names)
}

/// The segments of one series, by offset.
#[must_use]
pub fn segments(names: &[(Name, PathBuf)], series: Series) -> Vec<Found> {
    let mut found = std::collections::BTreeMap::<u64, (bool, bool)>::new();
    for (name, _) in names {
        match *name {
            Name::Plain(s, start) if s == series => found.entry(start).or_default().0 = true,
            Name::Compressed(s, start) if s == series => found.entry(start).or_default().1 = true,
            Name::Plain(..) | Name::Compressed(..) | Name::Leftover(_) | Name::Index(_) => {}
        }
    }
    found.into_iter().map(|(start, (plain, compressed))| Found { start, plain, compressed }).collect()
}

/// The length of a compressed segment's content, in bytes; reads all of it.
pub fn unpacked_len(path: &Path) -> io::Result<u64> {
    let file = io::BufReader::new(crate::sys::disk::open_read(path)?);
    io::copy(&mut flate2::bufread::MultiGzDecoder::new(file), &mut io::sink())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_strangers_are_left_alone() {
        let dir = Path::new("/d");
        for series in Series::ALL {
            for start in [0, 7, u64::MAX] {
                let name = |p: PathBuf| parse_name(p.file_name().unwrap().to_str().unwrap());
                assert_eq!(name(series.plain(dir, start)), Some(Name::Plain(series, start)));
                assert_eq!(name(series.compressed(dir, start)), Some(Name::Compressed(series, start)));
                assert_eq!(name(series.compressing(dir, start)), Some(Name::Leftover(series)));
                assert_eq!(name(series.index(dir)), Some(Name::Index(series)));
            }
        }
        for name in
            ["", "x", "1.log", "0000000000000000000x.log", "99999999999999999999.log", "é", "ééééééééééé.log"]
        {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
