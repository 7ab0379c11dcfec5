//! Looking at the log without being its writer: for people, for programs, and for who keeps watch over it.
//! Reading takes no lock and is fine beside a writer; words and values come from here, their looks do not.

pub(super) mod lines;
pub(super) mod repair;
pub(super) mod scrub;
pub(super) mod stats;
pub(super) mod verify;

use std::path::Path;

pub use lines::{Item, Text, lines};
pub use repair::{Mode, Repaired, repair};
pub use scrub::{Scrubbed, fingerprint, scrub};
pub use stats::{CheckpointStats, Sizes, Stats, sizes, stats};
pub use verify::{FileReport, Flaw, Verdict, Verified, What, verify};

pub use super::JournalError;
use super::fs::{Fs, RealFs};
use super::recover;
use super::segment::{Dirs, list};
use crate::core::state::State;

/// How often the log is read again because a writer took a file away meanwhile.
const TRIES: usize = 5;

/// The memory as it was after a line.
#[derive(Debug)]
pub struct Replayed {
    /// The memory.
    pub state: State,
    /// The number of the line.
    pub seq: u64,
    /// Ranges of lines that could not be read: the memory lacks what they said.
    pub lost: Vec<(u64, u64)>,
}

/// Why there is no memory of a line.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// What led to it is no longer kept.
    #[error("line {wanted} is no longer kept: the oldest that can be told is {oldest}")]
    TooOld {
        /// What was asked for.
        wanted: u64,
        /// The oldest there is.
        oldest: u64,
    },
    /// It has not happened.
    #[error("there is no line {wanted}: the newest is {newest}")]
    TooNew {
        /// What was asked for.
        wanted: u64,
        /// The newest there is.
        newest: u64,
    },
}

/// Whether there is anything of a log in a state directory.
#[must_use]
pub fn is_there(state_dir: &Path) -> bool {
    let dirs = Dirs::of(state_dir);
    names(&RealFs, &dirs).is_ok_and(|names| !names.is_empty())
}

/// What was known after line `until`, or after the newest one.
///
/// # Errors
/// If the log cannot be read, or does not reach there.
pub fn replay(state_dir: &Path, until: Option<u64>) -> Result<Replayed, ReplayError> {
    replay_on(&RealFs, state_dir, until, State::new())
}

/// The same for one who remembers so many ended runs of each job.
///
/// # Errors
/// As [`replay`].
pub fn replay_keeping(state_dir: &Path, until: u64, keep_runs: usize) -> Result<Replayed, ReplayError> {
    let mut state = State::new();
    state.keep_runs = keep_runs;
    replay_on(&RealFs, state_dir, Some(until), state)
}

pub(super) fn replay_on(
    fs: &dyn Fs,
    state_dir: &Path,
    until: Option<u64>,
    state: State,
) -> Result<Replayed, ReplayError> {
    let dirs = Dirs::of(state_dir);
    if let Some(wanted) = until {
        let oldest = oldest(fs, &dirs)?;
        if wanted < oldest {
            return Err(ReplayError::TooOld { wanted, oldest });
        }
    }
    let reading = settled(fs, &dirs, || recover::read(fs, state_dir, state.clone(), until, &mut |_, _| {}))?;
    // A lost line leaves nothing to tell it from one that never was, but for what follows it.
    match until {
        Some(wanted) if wanted > reading.applied => {
            Err(ReplayError::TooNew { wanted, newest: reading.applied })
        }
        _ => Ok(Replayed { state: reading.state, seq: reading.applied, lost: reading.report.lost }),
    }
}

/// The first line that the memory can be told of: that of the oldest checkpoint, or the first there is.
fn oldest(fs: &dyn Fs, dirs: &Dirs) -> Result<u64, JournalError> {
    let (segments, checkpoints) = (list(fs, &dirs.journal)?.0, list(fs, &dirs.checkpoints)?.0);
    let from_the_first = segments.first().is_none_or(|segment| segment.number <= 1);
    Ok(match checkpoints.first() {
        _ if from_the_first => 1,
        Some(checkpoint) => checkpoint.number,
        None => segments.first().map_or(1, |segment| segment.number),
    })
}

/// Reads while a writer may be at work: what it took away meanwhile is no loss, so it is read again.
fn settled<T>(
    fs: &dyn Fs,
    dirs: &Dirs,
    mut read: impl FnMut() -> Result<T, JournalError>,
) -> Result<T, JournalError> {
    for _ in 1..TRIES {
        let before = names(fs, dirs)?;
        let done = read();
        let after = names(fs, dirs)?;
        if before.iter().all(|name| after.contains(name)) {
            return done;
        }
    }
    read()
}

fn names(fs: &dyn Fs, dirs: &Dirs) -> Result<Vec<std::path::PathBuf>, JournalError> {
    let (segments, checkpoints) = (list(fs, &dirs.journal)?.0, list(fs, &dirs.checkpoints)?.0);
    Ok(segments.into_iter().chain(checkpoints).map(|file| file.path).collect())
}
