//! Watching over the files while they are in use: what rots is found before somebody needs it. The supervisor
//! still knows everything then, so its memory is written down first, and the damage set aside afterwards.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::super::JournalError;
use super::super::fs::{Fs, RealFs};
use super::super::open::remove_spoilt;
use super::super::segment::Dirs;
use super::repair::copy;
use super::verify::{OddBytes, skim};
use crate::core::state::State;

/// What was found, and what is left to do.
#[derive(Debug)]
pub struct Scrubbed {
    /// Each flaw that nobody has dealt with, in words. None: all is sound.
    pub flaws: Vec<String>,
    odd: Vec<OddBytes>,
    spoilt: Vec<PathBuf>,
}

/// Reads every segment and checkpoint from the first byte to the last. Writes nothing, and is fine beside a writer.
///
/// # Errors
/// If a file cannot be read.
pub fn scrub(state_dir: &Path) -> Result<Scrubbed, JournalError> {
    scrub_on(&RealFs, &Dirs::of(state_dir))
}

pub(in crate::journal) fn scrub_on(fs: &dyn Fs, dirs: &Dirs) -> Result<Scrubbed, JournalError> {
    let found = super::settled(fs, dirs, || skim(fs, dirs))?;
    Ok(Scrubbed { flaws: found.words, odd: found.odd, spoilt: found.spoilt })
}

impl Scrubbed {
    /// Keeps copies of the damage and removes checkpoints that are of no use, once a checkpoint behind line `seq`
    /// has taken their place.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn set_aside(&self, state_dir: &Path, seq: u64) -> Result<usize, JournalError> {
        self.set_aside_on(&RealFs, &Dirs::of(state_dir), seq)
    }

    pub(in crate::journal) fn set_aside_on(
        &self,
        fs: &dyn Fs,
        dirs: &Dirs,
        seq: u64,
    ) -> Result<usize, JournalError> {
        let copies = copy(fs, dirs, &self.odd)?;
        // The new one may have the name of one of them.
        let new = dirs.checkpoint(seq);
        let spoilt: Vec<PathBuf> = self.spoilt.iter().filter(|path| **path != new).cloned().collect();
        remove_spoilt(fs, &spoilt)?;
        Ok(copies)
    }
}

/// A fingerprint of a memory without its history (how many runs that remembers is a setting) and without the
/// numbers of jobs that are over: they are an order and nothing else.
///
/// # Errors
/// If an entity is no JSON, or cannot be read from where it rests.
pub fn fingerprint(state: &State) -> Result<[u8; 32], serde_json::Error> {
    let mut sum = Sha256::new();
    state.entities(|entity| {
        let mut entity: serde_json::Value = serde_json::from_slice(entity)?;
        if let Some(fields) = entity.as_object_mut() {
            for field in ["past", "rest", "over", "overs"] {
                fields.remove(field);
            }
        }
        sum.update(serde_json::to_vec(&entity)?);
        Ok::<(), serde_json::Error>(())
    })?;
    Ok(sum.finalize().into())
}
