//! Making a checkpoint out of files: the one before and the segments since, read as a start would read
//! them. The supervisor's loop has no part in it, and every checkpoint is a rehearsal of a recovery.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::checkpoint::{self, Behind};
use super::fs::Fs;
use super::planted::{Fault, planted};
use super::recover;
use super::segment::{Dirs, list};
use super::{HISTORY_BYTES, JournalError};
use crate::core::state::State;

/// What folding needs to know.
#[derive(Debug, Clone)]
pub struct Folding {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dirs: Dirs,
    /// Ranges that were missing when the log was read; any other is news.
    pub(super) lost: Vec<(u64, u64)>,
    /// Ended runs to remember for each job.
    pub(super) keep_runs: Arc<AtomicUsize>,
    /// Segments are kept up to so many bytes, needed or not.
    pub(super) history: u64,
}

/// A checkpoint that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Folded {
    /// The last line it covers.
    pub seq: u64,
    /// Its length.
    pub bytes: u64,
}

impl Folding {
    pub(super) fn new(fs: Arc<dyn Fs>, dirs: Dirs, lost: Vec<(u64, u64)>, keep_runs: usize) -> Self {
        let keep_runs = Arc::new(AtomicUsize::new(keep_runs));
        Self { fs, dirs, lost, keep_runs, history: HISTORY_BYTES }
    }

    /// The same, keeping no segment that is not needed.
    #[cfg(any(test, feature = "simulation"))]
    #[must_use]
    pub const fn without_history(mut self) -> Self {
        self.history = 0;
        self
    }

    /// Makes a checkpoint of everything up to line `upto`, which ends a segment, and removes what nobody
    /// needs any more.
    ///
    /// # Errors
    /// If the disk refuses, or if what is read back is not what was known. Nothing is removed then.
    pub fn run(&self, upto: u64) -> Result<Folded, JournalError> {
        let mut state = State::new();
        state.keep_runs = self.keep_runs.load(Ordering::Relaxed);
        let fs = &*self.fs;
        let read = recover::read(fs, &self.dirs.state, state, Some(upto), &mut |_, _| {})?;
        let before: Vec<(u64, u64)> = self.lost.iter().copied().filter(|(first, _)| *first <= upto).collect();
        let known = |range: &(u64, u64)| before.contains(range);
        if read.applied != upto || !read.report.lost.iter().all(known) {
            let why =
                std::io::Error::other(format!("it reads otherwise than it was written:\n{}", read.report));
            return Err(JournalError::io("fold", &self.dirs.journal)(why));
        }
        let mended = read.report.damage.iter().any(|damage| damage.file.starts_with(&self.dirs.checkpoints));
        if read.report.checkpoint == Some(upto) && !mended {
            let bytes = read.checkpoint_bytes;
            return Ok(Folded { seq: upto, bytes });
        }
        let behind =
            Behind { seq: upto, crc: read.crc.unwrap_or(0), at: read.at, generation: read.generation };
        let bytes = checkpoint::write(fs, &self.dirs, &read.state, &behind)?;
        self.retain(read.report.checkpoint)?;
        Ok(Folded { seq: upto, bytes })
    }

    /// Keeps the newest two checkpoints and every segment since the older one. `proved` is the one that was
    /// just read from its first byte to its last.
    fn retain(&self, proved: Option<u64>) -> Result<(), JournalError> {
        let fs = &*self.fs;
        let (checkpoints, _) = list(fs, &self.dirs.checkpoints)?;
        let keep = if planted(Fault::OneGeneration) { 1 } else { 2 };
        let Some(first_kept) = checkpoints.len().checked_sub(keep) else { return Ok(()) };
        let older = checkpoints[first_kept].number;
        if proved != Some(older) && keep == 2 {
            // Not a word about one that nobody has looked at.
            return Ok(());
        }
        let gone: Vec<&Path> = checkpoints[..first_kept].iter().map(|file| &*file.path).collect();
        self.remove(&gone, &self.dirs.checkpoints)?;
        let covered = if planted(Fault::DeletesTooEarly) {
            checkpoints.last().map_or(older, |file| file.number)
        } else {
            older
        };
        let (segments, _) = list(fs, &self.dirs.journal)?;
        let mut kept = 0;
        let mut gone = Vec::new();
        for (segment, next) in segments.iter().zip(segments.iter().skip(1)).rev() {
            kept += fs.size(&segment.path).map_err(JournalError::io("look at", &segment.path))?;
            if next.number <= covered + 1 && kept > self.history {
                gone.push(&*segment.path);
            }
        }
        gone.reverse();
        self.remove(&gone, &self.dirs.journal)
    }

    /// Removes files, the oldest first, so that what is left is always without a hole.
    fn remove(&self, paths: &[&Path], dir: &Path) -> Result<(), JournalError> {
        for path in paths {
            self.fs.unlink(path).map_err(JournalError::io("remove", path))?;
        }
        if !paths.is_empty() {
            self.fs.sync_dir(dir).map_err(JournalError::io("sync", dir))?;
        }
        Ok(())
    }
}
