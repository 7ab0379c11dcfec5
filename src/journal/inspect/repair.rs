//! What a start does to the files before its first write, done without a start: for who wants to see it
//! done, or wants to know what it would be.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::super::fs::{Fs, RealFs};
use super::super::open::{Odd, keep_aside, remove_spoilt};
use super::super::report::{Damage, Kind, Report};
use super::super::segment::{Dirs, list};
use super::super::{JournalError, recover_on};
use super::verify::{Checked, OddBytes, check, short};
use crate::core::state::State;
use crate::core::time::Stamp;

/// What was done, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Step by step, in words.
    pub steps: Vec<String>,
    /// Ranges of lines that nothing brings back.
    pub lost: Vec<(u64, u64)>,
    /// Nothing can be read at all: what that means is for a start to say.
    pub unreadable: bool,
    /// Whether it was done.
    pub done: bool,
}

/// Whether anything may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only told.
    DryRun,
    /// Done, unless something is lost.
    Careful,
    /// Done, and what is lost is given up.
    AcceptLoss,
}

/// Puts in order what can be. Whoever calls has made sure that there is no other writer.
///
/// # Errors
/// If a file cannot be read or written, or was written by a later build.
pub fn repair(state_dir: &Path, mode: Mode, at: Stamp) -> Result<Repaired, JournalError> {
    repair_on(&(Arc::new(RealFs) as Arc<dyn Fs>), state_dir, mode, at)
}

pub(in crate::journal) fn repair_on(
    fs: &Arc<dyn Fs>,
    state_dir: &Path,
    mode: Mode,
    at: Stamp,
) -> Result<Repaired, JournalError> {
    let dirs = Dirs::of(state_dir);
    let recovered = recover_on(Arc::clone(fs), state_dir, State::new(), &mut |_, _| {})?;
    let checked = check(&**fs, &dirs, &mut |_| {})?;
    let found = &recovered.report;
    let (lost, unreadable) = (found.lost.clone(), found.unreadable);
    let steps = if unreadable { Vec::new() } else { steps(&**fs, &dirs, found, &checked)? };
    let refused = unreadable || !lost.is_empty() && mode != Mode::AcceptLoss;
    let done = mode != Mode::DryRun && !refused && !steps.is_empty();
    if done {
        // The copies first: what follows may take the originals away.
        copy(&**fs, &dirs, &checked.odd)?;
        // Before the checkpoint is made: it may get the name of one of them.
        remove_spoilt(&**fs, &checked.spoilt)?;
        let generation = recovered.state.instance.generation;
        let last = recovered.last_seq();
        let (mut journal, ..) = recovered.open(at, generation);
        if let Some(why) = journal.poisoned() {
            return Err(JournalError::Poisoned { first: why.to_owned() });
        }
        journal.rotate()?;
        if last > 0 {
            journal.folding().run(last)?;
        }
    }
    Ok(Repaired { steps, lost, unreadable, done })
}

/// Keeps copies of what is not what was written.
pub(super) fn copy(fs: &dyn Fs, dirs: &Dirs, odd: &[OddBytes]) -> Result<usize, JournalError> {
    fs.make_dir(&dirs.quarantine).map_err(JournalError::io("make the directory", &dirs.quarantine))?;
    let odd: Vec<Odd<'_>> =
        odd.iter().map(|odd| Odd { file: &odd.file, offset: odd.offset, bytes: &odd.bytes }).collect();
    Ok(keep_aside(fs, dirs, &odd)?.len())
}

/// In words, what is to be done. Nothing if all is as it should be.
fn steps(fs: &dyn Fs, dirs: &Dirs, found: &Report, checked: &Checked) -> Result<Vec<String>, JournalError> {
    let mut steps = Vec::new();
    for OddBytes { file, offset, bytes, .. } in &checked.odd {
        steps.push(format!("keep {} bytes of {} at {offset} aside", bytes.len(), short(file)));
    }
    let newest = list(fs, &dirs.journal)?.0.pop().map(|segment| segment.path);
    // Those of older segments are void already.
    let torn = |damage: &&Damage| damage.kind == Kind::Torn && newest.as_ref() == Some(&damage.file);
    for damage in found.damage.iter().filter(torn) {
        let (bytes, file, offset) = (damage.bytes, short(&damage.file), damage.offset);
        steps.push(format!("keep {bytes} bytes of {file} at {offset} aside: an unfinished write"));
    }
    for path in &checked.spoilt {
        steps.push(format!("remove {}: of no use", short(path)));
    }
    for dir in [&dirs.journal, &dirs.checkpoints] {
        for path in list(fs, dir)?.1 {
            steps.push(format!("remove {}: it was never finished", short(&path)));
        }
    }
    for (first, last) in &found.lost {
        steps.push(format!("give up lines {first} to {last}"));
    }
    if !steps.is_empty() {
        let last = found.last_seq;
        steps.push(format!("begin a new segment behind line {last}"));
        if last > 0 && found.checkpoint != Some(last) {
            steps.push(format!("make a checkpoint of everything up to line {last}"));
        }
    }
    Ok(steps)
}
