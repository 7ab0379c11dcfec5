//! Segment files: names, listing, birth, and the pieces of one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::JournalError;

/// A segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// The number its first line has, or would have.
    pub(super) first: u64,
    pub(super) path: PathBuf,
}

pub(super) fn dir(state_dir: &Path) -> PathBuf {
    state_dir.join("journal")
}

/// All segments, in order. Names that are none of ours are left alone.
pub(super) fn list(dir: &Path) -> Result<Vec<Segment>, JournalError> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).map_err(JournalError::io("list", dir))? {
        let path = entry.map_err(JournalError::io("list", dir))?.path();
        let digits = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jsonl"));
        let first = digits.filter(|digits| digits.len() == 20).and_then(|digits| digits.parse().ok());
        if let Some(first) = first {
            all.push(Segment { first, path });
        }
    }
    all.sort_by_key(|segment| segment.first);
    Ok(all)
}

/// A new segment whose name is durable. An empty one of that name may be there from a crash right
/// after its birth; it is taken as it is.
pub(super) fn create(dir: &Path, first: u64) -> Result<(File, Segment), JournalError> {
    let path = dir.join(format!("{first:020}.jsonl"));
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .map_err(JournalError::io("create", &path))?;
    file.sync_all().map_err(JournalError::io("sync", &path))?;
    sync_dir(dir)?;
    Ok((file, Segment { first, path }))
}

pub(super) fn open(segment: &Segment) -> Result<File, JournalError> {
    let path = &segment.path;
    OpenOptions::new().append(true).open(path).map_err(JournalError::io("open", path))
}

/// Makes the directory if it is not there, with a durable name.
pub(super) fn make_dir(dir: &Path) -> Result<(), JournalError> {
    match fs::create_dir(dir) {
        Ok(()) => dir.parent().map_or(Ok(()), sync_dir),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(JournalError::io("make the directory", dir)(e)),
    }
}

pub(super) fn sync_dir(dir: &Path) -> Result<(), JournalError> {
    let handle = File::open(dir).map_err(JournalError::io("open", dir))?;
    handle.sync_all().map_err(JournalError::io("sync", dir))
}

/// One stretch of a segment up to a newline, or up to its end.
pub(super) struct Piece<'a> {
    pub(super) offset: usize,
    /// Without the newline.
    pub(super) bytes: &'a [u8],
    /// With the newline.
    pub(super) len: usize,
    /// Whether a newline ends it.
    pub(super) whole: bool,
}

pub(super) fn pieces(data: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    let mut offset = 0;
    data.split_inclusive(|byte| *byte == b'\n').map(move |piece| {
        let (bytes, whole) = piece.strip_suffix(b"\n").map_or((piece, false), |bytes| (bytes, true));
        let this = Piece { offset, bytes, len: piece.len(), whole };
        offset += piece.len();
        this
    })
}
