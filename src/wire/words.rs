//! Words for where a job is and what is wanted of it.

use serde::{Deserialize, Serialize};

/// What the operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WantWord {
    /// It is to run.
    Up,
    /// It is to be stopped.
    Down,
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateWord {
    /// Not running because nobody wants it to.
    Stopped,
    /// Wanted, and waiting for the jobs it depends on.
    Waiting,
    /// Standing in line for its turn.
    Queued,
    /// Asked for, or within its start grace.
    Starting,
    /// Running.
    Running,
    /// Running, but it hangs.
    Frozen,
    /// Being stopped.
    Stopping,
    /// Waiting for the next try.
    Backoff,
    /// To be run, but perhaps it has run already: entries of the event log are missing. A start releases it.
    Held,
    /// Ended, and not to be run again by itself.
    Exited,
    /// Given up.
    Fatal,
}

impl StateWord {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Stopped,
        Self::Waiting,
        Self::Queued,
        Self::Starting,
        Self::Running,
        Self::Frozen,
        Self::Stopping,
        Self::Backoff,
        Self::Held,
        Self::Exited,
        Self::Fatal,
    ];

    /// The word as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Frozen => "frozen",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Held => "held",
            Self::Exited => "exited",
            Self::Fatal => "fatal",
        }
    }
}
