//! How a job fares, as clients see it.

use serde::{Deserialize, Serialize};

use crate::core::fault::Fault;

/// How a job fares, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is wrong with its run, as far as it is watched.
    Healthy,
    /// It runs, and does not answer its readiness probe.
    Unready,
    /// It runs, and fails in what is expected of it, or uses more than it may.
    Unwell,
    /// It runs, and hangs.
    Frozen,
    /// Its latest run has failed.
    Crashed,
    /// It runs, and what is kept of it on disk is damaged.
    Corrupted,
    /// It runs, and cannot be reached: the keeper is not there.
    Disconnected,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Healthy,
        Self::Unready,
        Self::Unwell,
        Self::Frozen,
        Self::Crashed,
        Self::Corrupted,
        Self::Disconnected,
    ];

    /// The word as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unready => "unready",
            Self::Unwell => "unwell",
            Self::Frozen => "frozen",
            Self::Crashed => "crashed",
            Self::Corrupted => "corrupted",
            Self::Disconnected => "disconnected",
        }
    }
}

/// How a job fares, and what its run has told. Fields that have nothing to say are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthView {
    /// In one word.
    pub verdict: Verdict,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Since when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The latest sign of life, of those that are watched, as of the latest look. It is not looked for before it
    /// could be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sign: Option<String>,
    /// Where it was written down what its processes do, the last time that it hung under this supervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<String>,
    /// It has said that it ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopping: bool,
    /// It has said that it reads its configuration again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reloading: bool,
    /// What it has said its main process is. Another than ours is not followed: jobs stay in the foreground.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_pid: Option<i32>,
    /// The error number that it has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// The exit status that it has told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_status: Option<i32>,
    /// Messages to its notify socket from somebody who is not of this run.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rejected: u64,
    /// Messages to its notify socket that make no sense.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ignored: u64,
}

impl HealthView {
    /// A verdict, and nothing else to say.
    #[must_use]
    pub const fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            fault: None,
            why: None,
            since: None,
            last_sign: None,
            diagnosis: None,
            stopping: false,
            reloading: false,
            main_pid: None,
            errno: None,
            exit_status: None,
            rejected: 0,
            ignored: 0,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
