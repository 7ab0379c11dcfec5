//! The event log: bytes and sync, nothing else. What the events mean is the core's business.
//!
//! One line is one decision and is applied whole or not at all:
//!
//! ```text
//! {"v":1,"seq":17,"t":1763600000123456,"m":8123456789,"g":3,"ev":[{"k":"run.ended",…},…]}
//! ```
//!
//! `seq` grows by one from line to line and is never reset; `t` and `m` are wall and boot clock in
//! microseconds, `g` is the generation of the supervisor that wrote it. Lines are in segments
//! `journal/<first seq, 20 digits>.jsonl`; the highest name is the open one. A batch of lines is one write
//! and one sync: when [`Journal::append`] has returned, they survive a power cut.
//!
//! After a crash the newest segment may end in the middle of a line. What follows its last whole line was
//! never acknowledged; it is copied to `quarantine/` and cut off. Anything else that cannot be read is
//! damage: it is copied, reported and skipped, and stays where it is.
//!
//! A write or sync that failed leaves unknown how much of it is on the disk (the kernel drops pages it
//! could not write and reports success the next time), so the writer refuses everything after it.

mod append;
mod line;
mod open;
mod read;
mod segment;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

pub use append::Journal;
pub use line::{Entry, Line};
pub use open::{Damage, OpenReport};
pub use read::read_since;

/// Layout of a line. 1: first.
pub const VERSION: u32 = 1;

/// A segment is closed at the first batch end after this many bytes: small enough to be read whole.
pub const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

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
    /// An earlier write or sync failed: what is on the disk is not known, nothing more is written.
    #[error("the event log cannot be written since an earlier error: {first}")]
    Poisoned {
        /// The error that did it, in words.
        first: String,
    },
    /// Written by a later build, in a layout this one does not know.
    #[error("{path} is in version {version} of the layout; this build reads up to {VERSION}", path = path.display())]
    Newer {
        /// The segment.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// An event that JSON cannot express.
    #[error("cannot encode an event")]
    Encode(#[source] serde_json::Error),
}

impl JournalError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}
