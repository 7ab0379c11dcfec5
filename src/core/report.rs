//! What a start came to, as it is shown, kept and compared. Plain data; times are RFC 3339.
//!
//! Fields are only ever added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{JobName, RunId};
use super::phases::Standing;
use super::severity::Assessment;

/// Version of [`StartReport`].
pub const VERSION: u32 = 1;

/// One start of a supervisor: running, or over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartReport {
    /// Version of this layout.
    pub v: u32,
    /// Its id.
    pub id: String,
    /// How many supervisors there were, this one included; 0 while that is not known.
    pub generation: u64,
    /// When it began.
    pub began: String,
    /// When it was over.
    #[serde(default)]
    pub ended: Option<String>,
    /// How long it took, or has taken so far, in milliseconds.
    pub took_ms: u64,
    /// What became of it.
    pub result: StartResult,
    /// Why it is in recovery mode, if it is.
    #[serde(default)]
    pub recovery_mode: Option<String>,
    /// Starts within the last ten minutes, right before this one, that were aborted.
    #[serde(default)]
    pub aborted_before: usize,
    /// Its phases, in the order of their declaration.
    pub phases: Vec<PhaseReport>,
    /// What was found of runs, and what was done; `None` before that is known.
    #[serde(default)]
    pub runs: Option<RunsReport>,
    /// What was damaged or missing on disk, in words.
    #[serde(default)]
    pub damage: Vec<String>,
    /// What is worth a word and is no damage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How bad it is, and what was done about it; `None` before the event log is read.
    #[serde(default)]
    pub assessment: Option<Assessment>,
    /// Entries of the event log that were read, and that are missing.
    #[serde(default)]
    pub entries: Entries,
}

/// What became of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartResult {
    /// It is under way.
    Running,
    /// Every phase has done what it should, or was skipped on purpose.
    Done,
    /// It went on without a phase that failed.
    Degraded,
    /// A phase failed that nothing can do without.
    Failed,
    /// The process ended in the middle of it.
    Aborted,
}

impl StartResult {
    /// The word as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "under way",
            Self::Done => "done",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

/// One phase of a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// Its name.
    pub name: String,
    /// What it waits for.
    pub depends_on: Vec<String>,
    /// Whether nothing could go on without it.
    pub critical: bool,
    /// Where it is.
    pub state: Standing,
    /// Why it failed or was left out.
    #[serde(default)]
    pub why: Option<String>,
    /// How often it was begun.
    pub tries: u32,
    /// When it began, in milliseconds after the start did.
    #[serde(default)]
    pub after_ms: Option<u64>,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub took_ms: Option<u64>,
    /// Things done so far, and things to do, where that can be counted.
    #[serde(default)]
    pub count: Option<(u64, u64)>,
}

/// Entries of the event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Entries {
    /// Read and applied.
    pub read: u64,
    /// Known to be missing.
    pub lost: u64,
}

/// What a survey found, and what follows from it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunsReport {
    /// One line for each run (or job without a run) about which there is something to say.
    pub items: Vec<Item>,
    /// Lines left out, because there were too many.
    #[serde(default)]
    pub omitted: u64,
    /// How many of each class.
    pub classes: BTreeMap<Class, u64>,
    /// How many of each act.
    pub acts: BTreeMap<Act, u64>,
    /// Laws that were checked afterwards; 0: none yet.
    #[serde(default)]
    pub checks: u32,
    /// Those that do not hold, in words.
    #[serde(default)]
    pub violations: Vec<String>,
}

/// What a run, or a job without one, was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// It lives, and it is proven which process it is.
    Adoptable,
    /// Nothing of it lives, and nothing stands in the way of another run.
    Restartable,
    /// It was in the middle of something that goes on where it was: a stop, a pause before the next try.
    Resumable,
    /// It has ended while no supervisor was there, and how is known.
    EndedMeanwhile,
    /// It ran, or may have, and how it ended cannot be known.
    Lost,
    /// It lives, and no job accounts for it.
    Orphan,
    /// What was written about it cannot be read.
    Corrupt,
}

impl Class {
    /// The words as they are printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Adoptable => "adoptable",
            Self::Restartable => "restartable",
            Self::Resumable => "resumable",
            Self::EndedMeanwhile => "ended meanwhile",
            Self::Lost => "lost",
            Self::Orphan => "orphan",
            Self::Corrupt => "corrupt",
        }
    }

    /// How many starts of this class may be under way at a time. The less is known about what was there
    /// before, the more carefully it is started again.
    #[must_use]
    pub const fn starts_at_a_time(self) -> usize {
        match self {
            Self::Adoptable | Self::Restartable | Self::Resumable => 8,
            Self::EndedMeanwhile | Self::Lost => 4,
            Self::Orphan | Self::Corrupt => 1,
        }
    }
}

/// What is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// It is supervised from now on.
    Adopt,
    /// Its end is recorded.
    RecordEnd,
    /// Another run is started.
    Start,
    /// It waits for the jobs it depends on.
    Wait,
    /// Another run is started later.
    Backoff,
    /// It is stopped, or its stop goes on.
    Stop,
    /// It is held: it may have run already.
    Hold,
    /// It is not started again by itself.
    GiveUp,
    /// It is left alone.
    LeaveAlone,
}

impl Act {
    /// The words as they are printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Adopt => "adopt",
            Self::RecordEnd => "record its end",
            Self::Start => "start",
            Self::Wait => "wait",
            Self::Backoff => "start later",
            Self::Stop => "stop",
            Self::Hold => "hold",
            Self::GiveUp => "give up",
            Self::LeaveAlone => "leave alone",
        }
    }
}

/// One run or job, and what is done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The job, if one is known.
    pub job: Option<JobName>,
    /// The run that was looked for; `None`: the job had none.
    pub run: Option<RunId>,
    /// What it was found to be.
    pub class: Class,
    /// What was found, in words.
    pub found: String,
    /// What is done, in order; empty: nothing.
    pub acts: Vec<Act>,
    /// Why.
    pub why: String,
    /// The run that is started.
    #[serde(default)]
    pub next: Option<RunId>,
}

/// Most lines of a [`RunsReport`] that are kept.
pub const ITEMS_MAX: usize = 10_000;

impl RunsReport {
    /// Counts the items, and keeps as many as fit.
    #[must_use]
    pub fn of(mut items: Vec<Item>) -> Self {
        let mut report = Self::default();
        for item in &items {
            *report.classes.entry(item.class).or_default() += 1;
            for act in &item.acts {
                *report.acts.entry(*act).or_default() += 1;
            }
        }
        report.omitted = u64::try_from(items.len().saturating_sub(ITEMS_MAX)).unwrap_or(0);
        items.truncate(ITEMS_MAX);
        report.items = items;
        report
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.acts.keys().all(|act| *act == Act::LeaveAlone)
    }
}

impl StartReport {
    /// The same in short: counts instead of a line for each run.
    #[must_use]
    pub fn in_short(mut self) -> Self {
        if let Some(runs) = &mut self.runs {
            runs.omitted += u64::try_from(runs.items.len()).unwrap_or(0);
            runs.items.clear();
        }
        self
    }

    /// How much of what the event log held is missing, in percent.
    #[must_use]
    pub fn loss_percent(&self) -> f64 {
        share(self.entries.lost, self.entries.read + self.entries.lost)
    }

    /// How many of the checks afterwards held, in percent.
    #[must_use]
    pub fn integrity_percent(&self) -> f64 {
        let Some(runs) = &self.runs else { return 100.0 };
        100.0 - share(u64::try_from(runs.violations.len()).unwrap_or(0), u64::from(runs.checks))
    }
}

fn share(part: u64, of: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
    if of == 0 { 0.0 } else { part as f64 * 100.0 / of as f64 }
}
