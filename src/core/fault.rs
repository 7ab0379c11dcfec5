//! What can be wrong with a run that lives.

use serde::{Deserialize, Serialize};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// No `WATCHDOG=1` in time.
    Watchdog,
    /// It said itself that it is in trouble: `WATCHDOG=trigger`.
    Trigger,
    /// No output in time.
    Silent,
    /// No use of the CPU in time.
    Idle,
    /// Its heartbeat file was not touched in time.
    File,
    /// It said nothing about its progress in time.
    NoProgress,
    /// Its liveness probe failed.
    Liveness,
    /// It is stopped (process state `T`).
    Stopped,
    /// It has been waiting for the kernel (process state `D`) for too long.
    Blocked,
    /// Its startup probe failed.
    Startup,
    /// It was not ready in time.
    NotReady,
    /// It took longer than it may.
    MaxRuntime,
    /// It uses more memory than it may.
    Memory,
    /// It uses more CPU than it may.
    Cpu,
    /// It has more processes than it may.
    Pids,
}

/// What a fault means, and with it what is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It hangs: the frozen ladder.
    Frozen,
    /// It has failed: it is stopped.
    Failed,
    /// It uses too much: `on_exceed`.
    Exceeds,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Watchdog,
        Self::Trigger,
        Self::Silent,
        Self::Idle,
        Self::File,
        Self::NoProgress,
        Self::Liveness,
        Self::Stopped,
        Self::Blocked,
        Self::Startup,
        Self::NotReady,
        Self::MaxRuntime,
        Self::Memory,
        Self::Cpu,
        Self::Pids,
    ];

    /// The word as it is written and printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Watchdog => "watchdog",
            Self::Trigger => "trigger",
            Self::Silent => "silent",
            Self::Idle => "idle",
            Self::File => "file",
            Self::NoProgress => "no_progress",
            Self::Liveness => "liveness",
            Self::Stopped => "stopped",
            Self::Blocked => "blocked",
            Self::Startup => "startup",
            Self::NotReady => "not_ready",
            Self::MaxRuntime => "max_runtime",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
        }
    }

    /// What it means.
    #[must_use]
    pub const fn meaning(self) -> Meaning {
        match self {
            Self::Watchdog
            | Self::Trigger
            | Self::Silent
            | Self::Idle
            | Self::File
            | Self::NoProgress
            | Self::Liveness
            | Self::Stopped
            | Self::Blocked => Meaning::Frozen,
            Self::Startup | Self::NotReady | Self::MaxRuntime => Meaning::Failed,
            Self::Memory | Self::Cpu | Self::Pids => Meaning::Exceeds,
        }
    }
}
