//! Segment files: names, listing, header, birth.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::fs::{Appending, Fs};
use super::planted::{Fault, planted};
use super::sealed::{self, Sealed};
use super::{JournalError, VERSION, line};
use crate::core::ids::Generation;
use crate::core::time::Stamp;

/// A segment or checkpoint file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// Of a segment the number its first line has, or would have; of a checkpoint the last it covers.
    pub(super) number: u64,
    pub(super) path: PathBuf,
}

/// Where everything of ours is.
#[derive(Debug, Clone)]
pub(super) struct Dirs {
    pub(super) state: PathBuf,
    pub(super) journal: PathBuf,
    pub(super) checkpoints: PathBuf,
    pub(super) quarantine: PathBuf,
}

impl Dirs {
    pub(super) fn of(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
            journal: state.join("journal"),
            checkpoints: state.join("checkpoints"),
            quarantine: state.join("quarantine"),
        }
    }

    pub(super) fn make(&self, fs: &dyn Fs) -> Result<(), JournalError> {
        for dir in [&self.journal, &self.checkpoints, &self.quarantine] {
            fs.make_dir(dir).map_err(JournalError::io("make the directory", dir))?;
        }
        Ok(())
    }

    pub(super) fn checkpoint(&self, seq: u64) -> PathBuf {
        self.checkpoints.join(file_name(seq))
    }

    pub(super) fn segment(&self, first: u64) -> PathBuf {
        self.journal.join(file_name(first))
    }
}

fn file_name(number: u64) -> String {
    format!("{number:020}.jsonl")
}

/// Our files in a directory, in order, and the names of unfinished ones. Other names are left alone.
pub(super) fn list(fs: &dyn Fs, dir: &Path) -> Result<(Vec<Named>, Vec<PathBuf>), JournalError> {
    let names = match fs.list(dir) {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(JournalError::io("list", dir)(e)),
    };
    let (mut all, mut unfinished) = (Vec::new(), Vec::new());
    for name in names {
        let path = dir.join(&name);
        if name.strip_suffix(".tmp").and_then(number).is_some() {
            unfinished.push(path);
        } else if let Some(number) = number(&name) {
            all.push(Named { number, path });
        }
    }
    all.sort_by_key(|file| file.number);
    Ok((all, unfinished))
}

fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".jsonl")?;
    let all = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().ok()).flatten()
}

/// The highest number that a line may have had, as far as names and lengths tell: each newline in a segment
/// may have ended one.
pub(super) fn highest_number(fs: &dyn Fs, dirs: &Dirs) -> Result<u64, JournalError> {
    let mut highest = list(fs, &dirs.checkpoints)?.0.last().map_or(0, |file| file.number);
    for segment in list(fs, &dirs.journal)?.0 {
        let data = fs.read(&segment.path).unwrap_or_default();
        let header = data.split(|byte| *byte == b'\n').next().and_then(sealed::unseal);
        let header = header.and_then(|line| Header::parse(&line)).is_some();
        let lines = data.iter().filter(|byte| **byte == b'\n').count() as u64 - u64::from(header);
        highest = highest.max(segment.number.saturating_add(lines).saturating_sub(1));
    }
    Ok(highest)
}

/// Why a segment was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    /// A supervisor has started.
    Start,
    /// The one before was long enough, or old enough.
    Rotate,
    /// The disk takes writes again.
    Heal,
}

/// The first line of a segment. It is no link of the chain: its `prev` is that of the first line, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) v: u32,
    /// Number of the first line.
    pub(super) seg: u64,
    pub(super) t: i64,
    pub(super) g: Generation,
    pub(super) why: Why,
    /// Number of the last line that the segment was born with; less than `seg` if it was born empty.
    pub(super) has: u64,
    /// Which build wrote it.
    pub(super) sw: String,
    /// The lowest layout that a reader must know.
    pub(super) min_reader: u32,
    /// Length and SHA-256 of the segment before, if that was ended in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) prev_len: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) prev_sha256: Option<String>,
}

impl Header {
    pub(super) fn new(seg: u64, why: Why, (at, g): (Stamp, Generation)) -> Self {
        Self {
            v: VERSION,
            seg,
            t: at.wall_us,
            g,
            why,
            has: seg.saturating_sub(1),
            sw: env!("CARGO_PKG_VERSION").to_owned(),
            min_reader: VERSION,
            prev_len: None,
            prev_sha256: None,
        }
    }

    pub(super) fn parse(line: &Sealed<'_>) -> Option<Self> {
        serde_json::from_slice(&line::closed(line.body)).ok()
    }
}

/// Appends a serializable object as a sealed line; returns its checksum.
pub(super) fn seal_value(out: &mut Vec<u8>, value: &impl Serialize, prev: u32) -> Result<u32, JournalError> {
    let start = out.len();
    serde_json::to_writer(&mut *out, value).map_err(JournalError::Encode)?;
    out.pop();
    Ok(sealed::seal(out, start, prev))
}

/// A file that is complete before it has its name: written under another, synced, renamed, the name
/// synced. The open file goes on being appended to.
pub(super) fn be_born(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<Box<dyn Appending>, JournalError> {
    let temp = path.with_extension("jsonl.tmp");
    let born = write_and_name(fs, (&temp, path), bytes);
    if born.is_err() {
        // Space may be what is missing. The first error matters.
        let _ = fs.unlink(&temp);
    }
    born
}

fn write_and_name(
    fs: &dyn Fs,
    (temp, path): (&Path, &Path),
    bytes: &[u8],
) -> Result<Box<dyn Appending>, JournalError> {
    let mut file = fs.create(temp).map_err(JournalError::io("create", temp))?;
    file.append(bytes).map_err(JournalError::io("write", temp))?;
    if !planted(Fault::SegmentNamedUnsynced) {
        file.sync().map_err(JournalError::io("sync", temp))?;
    }
    fs.rename(temp, path).map_err(JournalError::io("rename", temp))?;
    if !planted(Fault::SegmentNameUnsynced) {
        let dir = path.parent().unwrap_or(path);
        fs.sync_dir(dir).map_err(JournalError::io("sync", dir))?;
    }
    Ok(file)
}
