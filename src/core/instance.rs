//! What there is besides the jobs: whose turn it is, whether the keeper can be asked, whether all is to end.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::event::Event;
use super::identity::Epoch;
use super::ids::{Generation, JobName, RunId};
use super::outcome::Asked;
use super::time::Stamp;

/// Whether the keeper can be asked for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// A supervisor has started and does not know yet what survived.
    #[default]
    Recovering,
    /// The keeper is gone; a survey follows.
    KeeperLost,
    /// Runs can be started and signalled.
    Working,
}

/// How this supervisor's time relates to that of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    /// It goes on where the last one was.
    #[default]
    #[serde(alias = "after_recovery")]
    Continued,
    /// After a reboot or a shutdown: services start again, whatever became of them before.
    New,
}

/// The instance is ending.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shutdown {
    /// Whether jobs are left running.
    pub keep_jobs: bool,
    /// Who asked.
    pub by: Asked,
    /// Since when.
    pub since: Stamp,
    /// What the instance exits with.
    #[serde(default)]
    pub code: u8,
    /// Whether the time for an orderly end is over.
    pub forced: bool,
}

/// What there is besides the jobs: small, a decision works on a copy.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Instance {
    /// Supervisors so far.
    pub generation: Generation,
    /// Version of the latest.
    pub version: String,
    /// Where it lives.
    pub epoch: Epoch,
    /// When it began, boot clock in microseconds; 0: an earlier build did not say.
    #[serde(default)]
    pub born_us: u64,
    /// Whether it is in recovery mode: everything is watched, nothing is started unless asked for.
    pub recovery: bool,
    /// Whether the keeper can be asked.
    pub link: Link,
    /// What came before.
    pub life: Life,
    /// Set from the beginning of a shutdown on.
    pub shutdown: Option<Shutdown>,
    /// Entries of the event log that are missing.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub missing: u64,
    /// How many of them a survey has made up for.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub settled: u64,
    /// The newest run that was ever asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<RunId>,
    /// Jobs that were stopped since this supervisor began, and before its first survey.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub stopped: BTreeSet<JobName>,
    /// Why no run is started now, if none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
}

impl Instance {
    /// Remembers an event of the instance.
    pub(super) fn apply(&mut self, event: &Event, at: Stamp) {
        match event {
            Event::Surveyed => {
                self.link = Link::Working;
                self.life = Life::Continued;
                self.stopped.clear();
            }
            Event::LossSettled { entries } => self.settled = *entries,
            Event::KeeperLost => self.link = Link::KeeperLost,
            Event::RecoveryLeft { .. } => self.recovery = false,
            Event::StartsHeld { why } => self.held = Some(why.clone()),
            Event::StartsReleased => self.held = None,
            Event::ShutdownBegun { keep_jobs, by, code } => {
                let (keep_jobs, by, code) = (*keep_jobs, by.clone(), *code);
                self.shutdown = Some(Shutdown { keep_jobs, by, since: at, code, forced: false });
            }
            Event::ShutdownForced => {
                if let Some(shutdown) = &mut self.shutdown {
                    shutdown.forced = true;
                }
            }
            _ => {}
        }
    }
}

const fn is_nought(n: &u64) -> bool {
    *n == 0
}
