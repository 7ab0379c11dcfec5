//! The event log: what was decided, durable before it has any effect, and readable after whatever happens
//! to the disk. What the events mean is the core's business.
//!
//! One line is one decision and is applied whole or not at all:
//!
//! ```text
//! {"v":2,"seq":17,"b":16,"t":1763600000123456,"m":8123456789,"g":3,"ev":[{"k":"run.ended",…},…],"prev":"…","crc":"…"}
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | `v` | layout of the line |
//! | `seq` | its number: grows by one from line to line, never reset, never used again |
//! | `b` | number of the first line of the same write and sync |
//! | `t`, `m` | wall and boot clock in microseconds |
//! | `g` | generation of the supervisor that wrote it |
//! | `ev` | the events of one decision; empty in a mark |
//! | `prev` | `crc` of the line before, over the borders of segments |
//! | `crc` | CRC-32C of all bytes before it |
//!
//! **Writing.** Lines are in segments `journal/<first seq, 20 digits>.jsonl`; the highest name is the open
//! one. A segment is complete, header and all, before it has its name, and is never opened for writing a
//! second time. Each start, each rotation and each recovery from an error begins a fresh one. From its name
//! on it counts instead of whatever older segments hold. Many wait for one write and one sync
//! ([`Writer`]); the next write begins when the one before is durable.
//!
//! **Refusals.** A write or sync that failed leaves unknown how much of it is on the disk (the kernel drops
//! pages it could not write and reports success the next time). The writer refuses everything after it,
//! until a fresh segment behind the last durable line makes what failed void ([`Journal::heal`]).
//!
//! **Reading** ([`recover`]) writes nothing. After a crash the newest segment may end in an unfinished
//! write: lines of the highest `b` in it. Those are left out. Any other damage is copied to `quarantine/`,
//! reported and skipped, and what still applies is applied. A single wrong bit is put right: the checksum
//! tells which one it is, the neighbours prove it.
//!
//! **Checkpoints** `checkpoints/<last seq, 20 digits>.jsonl` hold the memory after a line, an entity a line,
//! sealed in the same way. A thread makes them out of files ([`Folding`]): the checkpoint before and the
//! segments since, read as a start would read them, so that each is a rehearsal of one. One is due when
//! lines since the last take more than ten megabytes and more than half of it, after damage, at an orderly
//! end, and on request. The newest two are kept, and all segments since the older: what is older than the
//! newest is there twice. Beyond that, segments are kept up to [`HISTORY_BYTES`] for who asks what has
//! happened; what is older has expired ([`Since::Expired`]).
//!
//! Whoever wants to look does so beside the writer, and without one ([`inspect`]). A supervisor has the files
//! read again from time to time; while it lives, its memory is one more copy ([`Writer::checkpoint_of`]).
//!
//! A segment is ended ([`Journal::rotate`]) after [`SEAL_EVENTS`] decisions but not within a second, or
//! some time after its first: 30 seconds where much happens, up to five minutes where little does.

mod append;
mod checkpoint;
mod fold;
mod fs;
pub mod inspect;
mod line;
mod mend;
mod old;
mod open;
mod planted;
mod read;
mod recover;
mod report;
mod scan;
mod sealed;
mod segment;
#[cfg(any(test, feature = "simulation"))]
pub mod simulated;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

pub use append::Journal;
pub use fold::{Folded, Folding};
pub use fs::{Appending, Fs, ReadAt, RealFs};
pub use line::{Entry, Line};
pub use open::{Recovered, recover, recover_on};
pub use read::{Since, read_since};
pub use report::{Damage, Kind, Report};
pub use writer::{Answer, Writer};

/// Layout of a line. 1: no checksums; 2: sealed lines, headers, batches.
pub const VERSION: u32 = 2;

/// A segment is ended at the first batch end after this many bytes: small enough to be read whole.
pub const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// A segment with so many decisions is ended soon.
pub const SEAL_EVENTS: u64 = 100;

/// Segments that no recovery needs are kept up to so many bytes, for who asks what has happened.
pub const HISTORY_BYTES: u64 = 32 * 1024 * 1024;

/// A checkpoint is made when lines since the last one take more than this, and more than half of it.
pub const UNFOLDED_BYTES: u64 = 10 * 1024 * 1024;

/// Space kept back for the moment when there is none.
const BALLAST_BYTES: u64 = 4 * 1024 * 1024;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refused.
    #[error("cannot {what} {path}", path = path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The write or sync that was to carry it failed: it may be there after a crash, or not.
    #[error("it is not known whether it was recorded: {why}")]
    Indeterminate {
        /// The error, in words.
        why: String,
    },
    /// An earlier write or sync failed: what is on the disk is not known, nothing more is written.
    #[error("the event log cannot be written since an earlier error: {first}")]
    Poisoned {
        /// The error that did it, in words.
        first: String,
    },
    /// No checkpoint was made; nothing else is the worse for it.
    #[error("no checkpoint can be made: {why}")]
    Checkpoint {
        /// The error, in words.
        why: String,
    },
    /// Written by a later build, in a layout this one does not know.
    #[error("{path} needs a reader of layout {version}; this build reads up to {VERSION}", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The layout.
        version: u32,
    },
    /// An event that JSON cannot express.
    #[error("cannot encode an event")]
    Encode(#[from] serde_json::Error),
}

impl JournalError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }

    /// The error and its cause.
    fn in_words(&self) -> String {
        let source = std::error::Error::source(self).map(|source| format!(": {source}")).unwrap_or_default();
        format!("{self}{source}")
    }
}
