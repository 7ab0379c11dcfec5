//! The writer.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::line::{Entry, Line, encode};
use super::open::{self, OpenReport};
use super::{JournalError, SEGMENT_BYTES, segment};

/// The open log. There is one writer, held off from a second by the lock of the state directory.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    file: File,
    path: PathBuf,
    /// Bytes in the open segment.
    len: u64,
    last_seq: u64,
    /// Bytes after which the open segment is followed by another.
    pub(super) segment_bytes: u64,
    /// The first error, once there was one.
    poisoned: Option<String>,
}

impl Journal {
    /// Opens the log in `journal/` of a state directory, or begins one, and hands every line in it to
    /// `on_line`, in order. What a crash left unfinished is cut off, see [`OpenReport::torn`].
    ///
    /// # Errors
    /// If a file cannot be read, copied, cut or synced, or was written by a later build. Nothing has
    /// been cut then that is not in `quarantine/`.
    pub fn open(
        state_dir: &Path,
        mut on_line: impl FnMut(&Line),
    ) -> Result<(Self, OpenReport), JournalError> {
        open::open(state_dir, &mut on_line)
    }

    pub(super) fn new(dir: PathBuf, file: File, path: PathBuf, (len, last_seq): (u64, u64)) -> Self {
        Self { dir, file, path, len, last_seq, segment_bytes: SEGMENT_BYTES, poisoned: None }
    }

    /// Number of the last durable line; 0 if there is none.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The error that ended writing, if one has.
    #[must_use]
    pub fn poisoned(&self) -> Option<&str> {
        self.poisoned.as_deref()
    }

    /// Appends decisions with one write and one sync, and returns the number of the last line. When this
    /// returns, they survive a power cut.
    ///
    /// # Errors
    /// After any error but [`JournalError::Encode`] it is unknown whether the lines will be there when
    /// the log is opened again; every later call is answered with [`JournalError::Poisoned`].
    pub fn append(&mut self, entries: &[Entry]) -> Result<u64, JournalError> {
        if let Some(first) = &self.poisoned {
            return Err(JournalError::Poisoned { first: first.clone() });
        }
        if entries.is_empty() {
            return Ok(self.last_seq);
        }
        let mut bytes = Vec::with_capacity(entries.len() * 256);
        let mut last = self.last_seq;
        for entry in entries {
            last += 1;
            encode(&mut bytes, last, entry)?;
        }
        match self.put(&bytes) {
            Ok(()) => {
                self.last_seq = last;
                Ok(last)
            }
            Err(e) => {
                self.poisoned = Some(in_words(&e));
                Err(e)
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), JournalError> {
        if self.len >= self.segment_bytes {
            let (file, segment) = segment::create(&self.dir, self.last_seq + 1)?;
            (self.file, self.path, self.len) = (file, segment.path, 0);
        }
        self.file.write_all(bytes).map_err(JournalError::io("write", &self.path))?;
        self.file.sync_data().map_err(JournalError::io("sync", &self.path))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Puts another file in the place of the open segment: a test's way to a disk that refuses.
    #[cfg(test)]
    pub(super) fn write_to(&mut self, file: File) {
        self.file = file;
    }
}

fn in_words(error: &JournalError) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}
