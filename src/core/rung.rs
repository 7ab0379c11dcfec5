//! The name of one rung of one ladder of a run, by which a signal is sent once.
//!
//! A second `INT` means something else than the first to many programs, so that a supervisor or a keeper died must not
//! double it. The keeper remembers the last rung whose signal it has sent for a run, in a file beside the run that
//! outlives it, and tells it with its inventory: what was sent is not sent again, and its time goes on. It is
//! remembered right after it is sent: a keeper that dies between the two sends it twice rather than never, because a
//! job that was never asked to end would be killed.

use serde::{Deserialize, Serialize};

/// Which ladder, and since when it is climbed, boot clock in microseconds: where the event log has lost a stop, the next
/// one is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// The stop of a run.
    Stop {
        /// Since it was asked for.
        since_us: u64,
    },
    /// The stop of what a main process has left.
    Leftovers {
        /// Since that has ended.
        since_us: u64,
    },
    /// What is done about a run that hangs.
    Frozen {
        /// Since it is known to.
        since_us: u64,
    },
}

/// One rung of one ladder of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rung {
    /// Of which ladder.
    pub of: Of,
    /// Which, from 0.
    pub step: u32,
}

/// Reads the rung that another build may have named: one that is not understood is none.
///
/// # Errors
/// If there is no value.
pub fn lenient<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Rung>, D::Error> {
    Ok(serde_json::from_value(serde_json::Value::deserialize(from)?).ok())
}
