//! Whether the host, and we ourselves, are well: what is checked, when that counts as failed, and what is done
//! about it.
//!
//! This file holds the settings; [`Monitor`] judges by them. Nothing here looks at anything: a driver does what
//! the monitor asks for, and tells it what came of it.

mod monitor;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::{JobName, RunId};
use super::job::Phase;
use super::state::State;
use super::time::Millis;
use super::watch::ProbeAsk;

pub use monitor::{Begin, Check, Condition, Due, Heal, Look, Monitor, Overall, Reading, Trend};

/// The verb under which an act of ours is remembered.
pub const HEAL: &str = "heal";

/// A failed check is well again this far below its limit: one that swings around the limit would act at each swing.
pub const CLEARANCE: Share = Share(200);

/// A command that heals has this long unless configured otherwise.
pub const COMMAND_TIMEOUT: Millis = Millis::from_secs(30);

/// A share in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Share(pub u32);

impl Share {
    /// All of it.
    pub const ALL: Self = Self(10_000);

    /// So many percent.
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        Self(percent.saturating_mul(100))
    }

    /// A part of a whole, rounded down; nothing of nothing. More than the whole is more than 100 %.
    #[must_use]
    pub fn of(part: u64, whole: u64) -> Self {
        if whole == 0 {
            return Self(0);
        }
        let share = u128::from(part) * u128::from(Self::ALL.0) / u128::from(whole);
        Self(u32::try_from(share).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole} %"),
            (whole, part) if part % 10 == 0 => write!(f, "{whole}.{} %", part / 10),
            (whole, part) => write!(f, "{whole}.{part:02} %"),
        }
    }
}

/// What is checked. Of some there is one check for each file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Memory of the host, or of the control group around us.
    Memory,
    /// Space of a file system that we write to.
    Disk,
    /// Files of such a file system.
    Inodes,
    /// Open files of the host.
    OpenFiles,
    /// Processes and threads.
    Pids,
    /// Time in which tasks had to wait for memory, disks or a CPU.
    Pressure,
    /// Whether files can be watched.
    Inotify,
    /// Whether our control socket answers.
    Control,
    /// Whether the disk of the event log answers.
    EventLog,
    /// Whether the keeper is connected.
    Keeper,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Memory,
        Self::Disk,
        Self::Inodes,
        Self::OpenFiles,
        Self::Pids,
        Self::Pressure,
        Self::Inotify,
        Self::Control,
        Self::EventLog,
        Self::Keeper,
    ];

    /// The word as it is configured and printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Inodes => "inodes",
            Self::OpenFiles => "open_files",
            Self::Pids => "pids",
            Self::Pressure => "pressure",
            Self::Inotify => "inotify",
            Self::Control => "control",
            Self::EventLog => "event_log",
            Self::Keeper => "keeper",
        }
    }

    /// Whether nothing else can make up for it: without a disk nothing can be recorded or captured, without the
    /// keeper nothing started or stopped.
    #[must_use]
    pub const fn is_critical(self) -> bool {
        match self {
            Self::Disk | Self::EventLog | Self::Keeper => true,
            Self::Memory
            | Self::Inodes
            | Self::OpenFiles
            | Self::Pids
            | Self::Pressure
            | Self::Inotify
            | Self::Control => false,
        }
    }

    /// What is done about it unless configured otherwise.
    #[must_use]
    pub fn usual_acts(self) -> Vec<Act> {
        match self {
            Self::Memory => vec![Act::HoldStarts],
            Self::Disk => vec![Act::Rotate, Act::Expire],
            Self::Inodes
            | Self::OpenFiles
            | Self::Pids
            | Self::Pressure
            | Self::Inotify
            | Self::Control
            | Self::EventLog
            | Self::Keeper => Vec::new(),
        }
    }
}

/// One thing that is done about a failed check.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Output of ended runs is compressed, where it is not yet.
    Rotate,
    /// Directories of ended runs are removed, the oldest first, but for the latest run of each job; and a checkpoint
    /// is made, which lets old parts of the event log go.
    Expire,
    /// No run is started while the check is failed.
    HoldStarts,
    /// The live job of the lowest priority is stopped; among equals the one that was started last.
    StopLowest,
    /// The job whose processes use most memory is restarted.
    RestartLargest,
    /// This command is run.
    Command {
        /// With its arguments.
        argv: Vec<String>,
        /// How long it may take.
        timeout: Millis,
    },
    /// This job is restarted; a name with instances means all of them.
    Restart(JobName),
}

impl Act {
    /// The word for it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Rotate => "rotate",
            Self::Expire => "expire",
            Self::HoldStarts => "hold-starts",
            Self::StopLowest => "stop-lowest",
            Self::RestartLargest => "restart-largest",
            Self::Command { .. } => "command",
            Self::Restart(_) => "restart",
        }
    }

    /// What exactly, for the audit.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Command { argv, .. } => format!("command {}", argv.join(" ")),
            Self::Restart(job) => format!("restart {job}"),
            Self::Rotate | Self::Expire | Self::HoldStarts | Self::StopLowest | Self::RestartLargest => {
                self.as_str().to_owned()
            }
        }
    }
}

/// A check that somebody has configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Custom {
    /// The question.
    pub ask: ProbeAsk,
    /// Between two of them.
    pub interval: Millis,
    /// How long an answer may take.
    pub timeout: Millis,
    /// Failures in a row before something is done, and again before it is done again.
    pub failures: u32,
    /// What is done.
    pub heal: Vec<Act>,
}

/// `[health]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Whether anything is checked.
    pub enabled: bool,
    /// Between two rounds.
    pub interval: Millis,
    /// How long a check may take.
    pub timeout: Millis,
    /// Failures in a row before something is done, and again before it is done again.
    pub heal_after: u32,
    /// From which share on a check fails; those that have none here are off.
    pub limits: BTreeMap<Kind, Share>,
    /// What is done about each.
    pub on: BTreeMap<Kind, Vec<Act>>,
    /// Checks by name.
    pub checks: BTreeMap<String, Custom>,
}

impl Default for Settings {
    fn default() -> Self {
        let usual = |kind: &Kind| match kind {
            Kind::Memory => Some(Share::percent(85)),
            Kind::Disk | Kind::Inodes | Kind::OpenFiles | Kind::Pids => Some(Share::percent(90)),
            // Waiting is what a busy host does: what is too much depends on what it is for.
            Kind::Pressure | Kind::Inotify | Kind::Control | Kind::EventLog | Kind::Keeper => None,
        };
        Self {
            enabled: true,
            interval: Millis::from_secs(30),
            timeout: Millis::from_secs(10),
            heal_after: 3,
            limits: Kind::ALL.into_iter().filter_map(|kind| Some((kind, usual(&kind)?))).collect(),
            on: Kind::ALL.into_iter().map(|kind| (kind, kind.usual_acts())).collect(),
            checks: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Whether a check of this kind is made at all.
    #[must_use]
    pub fn is_on(&self, kind: Kind) -> bool {
        match kind {
            Kind::Memory | Kind::Disk | Kind::Inodes | Kind::OpenFiles | Kind::Pids | Kind::Pressure => {
                self.limits.contains_key(&kind)
            }
            Kind::Inotify | Kind::Control | Kind::EventLog | Kind::Keeper => true,
        }
    }

    /// The jobs that acts name.
    pub fn jobs(&self) -> impl Iterator<Item = &JobName> {
        let acts = self.on.values().chain(self.checks.values().map(|check| &check.heal)).flatten();
        acts.filter_map(|act| match act {
            Act::Restart(job) => Some(job),
            Act::Rotate
            | Act::Expire
            | Act::HoldStarts
            | Act::StopLowest
            | Act::RestartLargest
            | Act::Command { .. } => None,
        })
    }
}

/// The live job that is stopped first when there is too little of something, and its run: that of the lowest
/// priority, among equals the one that was started last. One that is being stopped already is left alone.
#[must_use]
pub fn lowest(state: &State) -> Option<(JobName, RunId)> {
    let up = |name: &&JobName| {
        state.job(name).is_some_and(|job| matches!(job.phase, Phase::Starting { .. } | Phase::Running { .. }))
    };
    let live = state.live_runs().filter(|(_, name)| up(name));
    // Ids of runs are in the order of time.
    let first = live.min_by_key(|(run, name)| {
        (state.spec(name).map_or(0, |spec| spec.priority), std::cmp::Reverse(*run))
    });
    first.map(|(run, name)| (name.clone(), run))
}
