//! How much there is of what.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;

use super::super::fs::{Fs, RealFs};
use super::super::segment::{Dirs, list};
use super::super::{JournalError, append, recover};
use super::lines::{Item, lines_on};
use crate::core::state::State;

/// A checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CheckpointStats {
    /// The last line it covers.
    pub seq: u64,
    /// Its length.
    pub bytes: u64,
}

/// Numbers of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Stats {
    /// Segments, and their bytes.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Checkpoints, the oldest first.
    pub checkpoints: Vec<CheckpointStats>,
    /// Lines that hold a decision.
    pub decisions: u64,
    /// Lines that hold none.
    pub marks: u64,
    /// Bytes of the longest line.
    pub longest_line: u64,
    /// Number of the first line that is kept, and its time.
    pub first: Option<(u64, String)>,
    /// Number of the last line, and its time.
    pub last: Option<(u64, String)>,
    /// Most decisions within one second, and the beginning of that second.
    pub peak: Option<(u64, String)>,
    /// Events of each kind.
    pub events: BTreeMap<String, u64>,
    /// Supervisors so far.
    pub generation: u64,
    /// Jobs that are remembered.
    pub jobs: u64,
    /// Runs that live or may live.
    pub live_runs: u64,
    /// Bytes of lines that a start reads behind the newest checkpoint.
    pub unfolded_bytes: u64,
    /// Names and sizes of what is kept in `quarantine/`.
    pub quarantine: Vec<(String, u64)>,
    /// Space held back for a full disk.
    pub ballast_bytes: u64,
}

/// What a look at the directories tells, without reading a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// When the newest checkpoint was made, in microseconds since 1970, if there is one.
    pub checkpoint_made_us: Option<i64>,
}

/// Looks at names and sizes. A file that goes away meanwhile is not counted.
///
/// # Errors
/// If a directory cannot be read.
pub fn sizes(state_dir: &Path) -> Result<Sizes, JournalError> {
    let (fs, dirs) = (RealFs, Dirs::of(state_dir));
    let mut sizes = Sizes::default();
    for segment in list(&fs, &dirs.journal)?.0 {
        let Ok(bytes) = fs.size(&segment.path) else { continue };
        sizes.segments += 1;
        sizes.segment_bytes += bytes;
    }
    let newest = list(&fs, &dirs.checkpoints)?.0.pop();
    sizes.checkpoint_made_us = newest.and_then(|file| RealFs::modified_us(&file.path));
    Ok(sizes)
}

/// Counts. Writes nothing.
///
/// # Errors
/// If a file cannot be read, or was written by a later build.
pub fn stats(state_dir: &Path) -> Result<Stats, JournalError> {
    let (fs, dirs) = (RealFs, Dirs::of(state_dir));
    super::settled(&fs, &dirs, || stats_on(&fs, &dirs))
}

pub(in crate::journal) fn stats_on(fs: &dyn Fs, dirs: &Dirs) -> Result<Stats, JournalError> {
    let size = |path: &Path| fs.size(path).map_err(JournalError::io("look at", path));
    let mut stats = Stats::default();
    for segment in list(fs, &dirs.journal)?.0 {
        stats.segments += 1;
        stats.segment_bytes += size(&segment.path)?;
    }
    for checkpoint in list(fs, &dirs.checkpoints)?.0 {
        let bytes = size(&checkpoint.path)?;
        stats.checkpoints.push(CheckpointStats { seq: checkpoint.number, bytes });
    }
    let mut seconds = BTreeMap::new();
    lines_on(fs, dirs, 0, &mut |item| {
        if let Item::Line(text) = item {
            stats.longest_line = stats.longest_line.max(text.bytes.len() as u64);
            let here = (text.seq, text.at.rfc3339());
            stats.first.get_or_insert_with(|| here.clone());
            stats.last = Some(here);
            let kinds = kinds(text.bytes);
            if kinds.is_empty() {
                stats.marks += 1;
            } else {
                stats.decisions += 1;
                *seconds.entry(text.at.wall_us.div_euclid(1_000_000)).or_insert(0u64) += 1;
            }
            for kind in kinds {
                *stats.events.entry(kind).or_insert(0) += 1;
            }
        }
        ControlFlow::Continue(())
    })?;
    let most = seconds.into_iter().max_by_key(|(second, n)| (*n, -second));
    stats.peak = most.map(|(second, n)| {
        let at = crate::core::time::Stamp { boot_us: 0, wall_us: second.saturating_mul(1_000_000) };
        (n, at.rfc3339())
    });
    let read = recover::read(fs, &dirs.state, State::new(), None, &mut |_, _| {})?;
    stats.generation = read.state.instance.generation.0;
    stats.jobs = read.state.names().count() as u64;
    stats.live_runs = read.state.live_runs().count() as u64;
    stats.unfolded_bytes = read.bytes;
    let mut kept = fs.list(&dirs.quarantine).unwrap_or_default();
    kept.sort();
    for name in kept {
        let bytes = fs.size(&dirs.quarantine.join(&name)).unwrap_or(0);
        stats.quarantine.push((name, bytes));
    }
    stats.ballast_bytes = fs.size(&dirs.state.join(append::BALLAST)).unwrap_or(0);
    Ok(stats)
}

/// The kinds of the events of a line, be they known to this build or not.
fn kinds(line: &[u8]) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Kinds {
        ev: Vec<Kind>,
    }
    #[derive(serde::Deserialize)]
    struct Kind {
        k: String,
    }
    serde_json::from_slice::<Kinds>(line)
        .map(|line| line.ev.into_iter().map(|event| event.k).collect())
        .unwrap_or_default()
}
