//! The name of one rung of one ladder of a run, by which a signal is sent once.
//!
//! A second `INT` means something else than the first to many programs, so that a supervisor or a keeper died must not
//! double it. The keeper remembers the last rung whose signal it has sent for a run, in a file beside the run that
//! outlives it, and tells it with its inventory: what was sent is not sent again, and its time goes on. It is
//! remembered right after it is sent: a keeper that dies between the two sends it twice rather than never, because a
//! job that was never asked to end would be killed.

use serde::{Deserialize, Serialize};

/// Which ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// The stop of a run, which begins once at most.
    Stop,
    /// The stop of what a main process has left, which begins once at most.
    Leftovers,
    /// What is done about a run that hangs.
    Frozen {
        /// Since when it is known to, boot clock in microseconds.
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
