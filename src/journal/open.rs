//! From what was read to a log that can be written.
//!
//! Nothing that is there is ever written to again. What cannot be read is copied to `quarantine/` first;
//! then a fresh segment is born, complete, with the lines of the newest batch in it: they may have been in
//! memory only, and from its name on it counts instead of what older segments hold. Any step may be the
//! last one before a crash: reading again gives the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::append::Journal;
use super::fold::Folding;
use super::fs::{Fs, RealFs};
use super::planted::{Fault, planted};
use super::recover::{self, Aside, Reading, Tail};
use super::report::Report;
use super::segment::{self, Dirs, Header, Why};
use super::{JournalError, Line};
use crate::core::ids::Generation;
use crate::core::state::State;
use crate::core::time::Stamp;

/// What was read. Nothing has been written yet.
#[derive(Debug)]
pub struct Recovered {
    /// The memory that it gives.
    pub state: State,
    /// What was found.
    pub report: Report,
    work: Opening,
}

/// What is left to do before the first write.
#[derive(Debug)]
pub(super) struct Opening {
    fs: Arc<dyn Fs>,
    dirs: Dirs,
    aside: Vec<(Aside, PathBuf, u64)>,
    /// Checkpoints to be removed once they are kept aside.
    spoilt: Vec<PathBuf>,
    unsynced: Option<PathBuf>,
    /// Bytes of lines since the checkpoint, and its length.
    pub(super) unfolded: u64,
    pub(super) checkpoint_bytes: u64,
    keep_runs: usize,
    lost: Vec<(u64, u64)>,
    /// Something is not what was written: a new checkpoint makes the state whole again.
    pub(super) damaged: bool,
    tail: Option<Tail>,
    /// Number and checksum of the last line there is.
    last: u64,
    crc: u32,
    /// Stamp and writer of the next line.
    pub(super) by: (Stamp, Generation),
}

/// A segment just born.
#[derive(Debug)]
pub(super) struct Born {
    pub(super) file: Box<dyn super::fs::Appending>,
    pub(super) first: u64,
    pub(super) bytes: Vec<u8>,
}

/// Reads the log in a state directory into `state`, which is empty but for what is handed in; every line
/// also goes to `on_line`, with the memory as it was before it. Writes nothing.
///
/// # Errors
/// If a file cannot be read, or was written by a later build.
pub fn recover(
    state_dir: &Path,
    state: State,
    on_line: &mut dyn FnMut(&State, &Line),
) -> Result<Recovered, JournalError> {
    recover_on(Arc::new(RealFs), state_dir, state, on_line)
}

/// The same on any file system.
///
/// # Errors
/// As [`recover`].
pub fn recover_on(
    fs: Arc<dyn Fs>,
    state_dir: &Path,
    state: State,
    on_line: &mut dyn FnMut(&State, &Line),
) -> Result<Recovered, JournalError> {
    let dirs = Dirs::of(state_dir);
    if planted(Fault::ReadingWrites) {
        drop(fs.create(&dirs.journal.join("read.jsonl.tmp")));
    }
    let mut reading = recover::read(&*fs, state_dir, state, None, on_line)?;
    if reading.report.unreadable {
        // No number is used twice, also where nobody can read which ones were.
        reading.applied = reading.applied.max(segment::highest_number(&*fs, &dirs)?);
        reading.report.last_seq = reading.applied;
        (reading.tail, reading.crc) = (None, None);
    }
    let Reading { state, report, applied, crc, at, generation, tail, aside, unsynced, spoilt, .. } = reading;
    let aside = aside.into_iter().map(|aside| {
        let damage = &report.damage[aside.damage];
        (damage.file.clone(), damage.offset, aside)
    });
    let work = Opening {
        fs,
        dirs,
        aside: aside.map(|(file, offset, aside)| (aside, file, offset)).collect(),
        spoilt,
        unsynced,
        tail,
        unfolded: reading.bytes,
        checkpoint_bytes: reading.checkpoint_bytes,
        keep_runs: state.keep_runs,
        lost: report.lost.clone(),
        damaged: report.is_damaged(),
        last: applied,
        crc: crc.unwrap_or(0),
        by: (at, generation),
    };
    Ok(Recovered { state, report, work })
}

impl Recovered {
    /// Number of the last line there is.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.work.last
    }

    /// Begins to write, as this supervisor. Where the disk refuses, the log that is returned refuses too,
    /// until [`Journal::heal`] succeeds: what was read is good all the same.
    #[must_use]
    pub fn open(self, at: Stamp, generation: Generation) -> (Journal, State, Report) {
        let Self { state, mut report, mut work } = self;
        work.by = (at, generation);
        let journal = Journal::begin(work, &mut report);
        (journal, state, report)
    }
}

impl Opening {
    pub(super) fn fs(&self) -> Arc<dyn Fs> {
        Arc::clone(&self.fs)
    }

    pub(super) fn folding(&self) -> Folding {
        Folding::new(self.fs(), self.dirs(), self.lost.clone(), self.keep_runs)
    }

    pub(super) fn dirs(&self) -> Dirs {
        self.dirs.clone()
    }

    /// Number and checksum of the last line there is.
    pub(super) const fn last(&self) -> (u64, u32) {
        (self.last, self.crc)
    }

    /// Keeps aside what has to be, and makes the first segment. May be called again after an error.
    pub(super) fn run(&mut self, report: &mut Report) -> Result<Born, JournalError> {
        self.dirs.make(&*self.fs)?;
        self.sweep()?;
        self.set_aside(report)?;
        if let Some(path) = &self.unsynced {
            self.fs.sync_file(path).map_err(JournalError::io("sync", path))?;
        }
        let tail = self.tail.clone().filter(|_| !planted(Fault::TailNotCopied));
        let first = tail.as_ref().map_or(self.last + 1, |tail| tail.first);
        let header = Header { has: self.last, ..Header::new(first, Why::Start, self.by) };
        let mut bytes = Vec::new();
        let prev = tail.as_ref().map_or(self.crc, |tail| tail.prev);
        segment::seal_value(&mut bytes, &header, prev)?;
        if let Some(tail) = &tail {
            bytes.extend_from_slice(&tail.bytes);
        }
        let file = segment::be_born(&*self.fs, &self.dirs.segment(first), &bytes)?;
        Ok(Born { file, first, bytes })
    }

    /// Removes files that a crash left without their final name.
    fn sweep(&self) -> Result<(), JournalError> {
        for dir in [&self.dirs.journal, &self.dirs.checkpoints] {
            for path in segment::list(&*self.fs, dir)?.1 {
                self.fs.unlink(&path).map_err(JournalError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    fn set_aside(&self, report: &mut Report) -> Result<(), JournalError> {
        let bytes: Vec<Odd<'_>> = self
            .aside
            .iter()
            .map(|(aside, file, offset)| Odd { file, offset: *offset, bytes: &aside.bytes })
            .collect();
        let copies = keep_aside(&*self.fs, &self.dirs, &bytes)?;
        for ((aside, ..), copy) in self.aside.iter().zip(copies) {
            if let Some(damage) = report.damage.get_mut(aside.damage) {
                damage.copy = Some(copy);
            }
        }
        remove_spoilt(&*self.fs, &self.spoilt)
    }
}

/// Bytes that are not what was written, and where they are.
pub(super) struct Odd<'a> {
    pub(super) file: &'a Path,
    pub(super) offset: u64,
    pub(super) bytes: &'a [u8],
}

impl Odd<'_> {
    /// The name of its copy. The same bytes get the same name: they are kept once, however often they are met.
    pub(super) fn copy_name(&self, dirs: &Dirs) -> String {
        let whose = self.file.file_name().and_then(|name| name.to_str()).unwrap_or("unnamed");
        let which = if self.file.starts_with(&dirs.journal) { "journal" } else { "checkpoint" };
        let (len, crc) = (self.bytes.len(), crc32c::crc32c(self.bytes));
        format!("{which}-{whose}.{}-{len}.{crc:08x}", self.offset)
    }
}

/// Copies bytes to `quarantine/`, durably; the copies, in the same order.
pub(super) fn keep_aside(fs: &dyn Fs, dirs: &Dirs, odd: &[Odd<'_>]) -> Result<Vec<PathBuf>, JournalError> {
    let dir = &dirs.quarantine;
    if odd.is_empty() || planted(Fault::NothingSetAside) {
        return Ok(odd.iter().map(|odd| dir.join(odd.copy_name(dirs))).collect());
    }
    let there = fs.list(dir).map_err(JournalError::io("list", dir))?;
    let mut copies = Vec::with_capacity(odd.len());
    for odd in odd {
        let name = odd.copy_name(dirs);
        let path = dir.join(&name);
        if !there.contains(&name) {
            let temp = dir.join(format!("{name}.tmp"));
            let mut copy = fs.create(&temp).map_err(JournalError::io("create", &temp))?;
            copy.append(odd.bytes).map_err(JournalError::io("write", &temp))?;
            copy.sync().map_err(JournalError::io("sync", &temp))?;
            fs.rename(&temp, &path).map_err(JournalError::io("rename", &temp))?;
        }
        copies.push(path);
    }
    fs.sync_dir(dir).map_err(JournalError::io("sync", dir))?;
    Ok(copies)
}

/// Removes checkpoints of which there are copies; fine if they are gone.
pub(super) fn remove_spoilt(fs: &dyn Fs, spoilt: &[PathBuf]) -> Result<(), JournalError> {
    for path in spoilt {
        match fs.unlink(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(JournalError::io("remove", path)(e));
            }
            _ => {}
        }
    }
    Ok(())
}
