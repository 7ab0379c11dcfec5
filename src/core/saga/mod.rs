//! Operations of several steps that are done whole or undone: a saga.
//!
//! Its intent is recorded with the decision that begins it, so whoever comes after a crash knows what was
//! under way and goes on with it: forwards while nothing has failed and there is time, else backwards. Each
//! step has its undo, which follows from what the job was before. The undo is one decision of its own.
//!
//! What was in force before a reload may hold secrets, so it is in no event: it is handed in with the
//! settings. Where it is lost, there is no way back, and the saga ends by saying so.

mod steps;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::{Event, Want};
use super::ids::JobName;
use super::outcome::Asked;
use super::spec::JobSpec;
use super::time::{Millis, Stamp};

pub(super) use steps::{due, follow, reload, start};

/// How long a run has to last to count as up: one that exits at once was never there.
pub const STEADY: Millis = Millis(1000);

/// Time for a saga whose asker gave none.
pub const WITHIN: Millis = Millis::from_secs(30);

/// Ended sagas that are remembered.
const ENDED_MAX: usize = 8;

/// Which operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// A new configuration.
    Reload,
    /// The start of several jobs.
    Start,
}

impl Verb {
    /// The word as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Start => "start",
        }
    }
}

/// What a step does to its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// It is new. Undone: it is stopped and forgotten.
    Add,
    /// It has other settings. Undone: it has the old ones, and a run that was made with the new is replaced.
    Change,
    /// It has left the configuration: stopped now, forgotten only at the end. Undone: it is as it was.
    Remove,
    /// It is started. Undone: it is stopped.
    Start,
}

/// One step, and what its undo needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    pub act: Act,
    /// Whether it has to come up.
    pub must: bool,
    /// What was wanted of it before.
    pub want: Want,
    /// Whether it ran, or was about to.
    pub active: bool,
    /// Its latest run before; those after it are of this saga.
    pub attempt: u64,
    /// Whether a run with the old settings will do as well.
    #[serde(default)]
    pub same_process: bool,
}

/// What is recorded at the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Counted from 1.
    pub id: u64,
    /// Which operation.
    pub verb: Verb,
    /// Who asked.
    pub by: Asked,
    /// When it began.
    pub at: Stamp,
    /// When it has to be done.
    pub within: Millis,
    /// Its steps.
    pub steps: BTreeMap<JobName, Step>,
}

impl Plan {
    fn until(&self) -> Stamp {
        self.at.plus(self.within)
    }
}

/// Why a saga is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// The job that broke it; `None`: the time is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// What happened, in words.
    pub why: String,
}

/// How a saga ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum End {
    /// Every step is done.
    Done,
    /// What was before is in force again.
    RolledBack(Broken),
    /// Neither: nobody can, or wants to, go on or back.
    Abandoned {
        /// Why.
        why: String,
    },
}

/// A saga under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saga {
    /// What it is.
    pub plan: Plan,
    /// Steps that are not done.
    pub pending: BTreeSet<JobName>,
    /// Set from the moment on at which it goes backwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<Broken>,
}

/// A saga that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Which.
    pub id: u64,
    /// Which operation.
    pub verb: Verb,
    /// When it was over.
    pub at: Stamp,
    /// How.
    pub end: End,
}

/// What is remembered of all of them. One is under way at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sagas {
    /// How many were begun.
    pub begun: u64,
    /// The one under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Box<Saga>>,
    /// The latest that are over, oldest first.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub ended: VecDeque<Ended>,
}

/// Which of two configurations is in force after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// The new one; the old one is kept for the undo.
    Open,
    /// The new one for good.
    New,
    /// The old one: the saga never came to be, or was undone.
    Old,
}

impl Sagas {
    /// Whether nothing was ever begun: then it is left out of checkpoints.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.begun == 0
    }

    /// Whether the saga under way holds a job that has left the configuration.
    #[must_use]
    pub fn removes(&self, job: &JobName) -> bool {
        let step = self.open.as_ref().and_then(|saga| saga.plan.steps.get(job));
        step.is_some_and(|step| step.act == Act::Remove)
    }

    /// What is in force, if the configuration before saga `id` and the one it brought are both at hand.
    #[must_use]
    pub fn in_force(&self, id: u64) -> Force {
        if self.open.as_ref().is_some_and(|saga| saga.plan.id == id) {
            return Force::Open;
        }
        let undone = |ended: &Ended| ended.id == id && matches!(ended.end, End::RolledBack(_));
        if id > self.begun || self.ended.iter().any(undone) { Force::Old } else { Force::New }
    }

    /// Remembers one event.
    pub(super) fn apply(&mut self, event: &Event, at: Stamp) {
        match event {
            Event::SagaBegun { plan } => {
                let pending = plan.steps.iter().filter(|(_, step)| step.must);
                let pending = pending.map(|(job, _)| job.clone()).collect();
                self.begun = plan.id;
                self.open = Some(Box::new(Saga { plan: (**plan).clone(), pending, broken: None }));
            }
            Event::SagaStepDone { saga, step } => {
                if let Some(open) = self.open.as_mut().filter(|open| open.plan.id == *saga) {
                    open.pending.remove(step);
                }
            }
            Event::SagaUndoing { saga, broken } => {
                if let Some(open) = self.open.as_mut().filter(|open| open.plan.id == *saga) {
                    open.broken = Some(broken.clone());
                }
            }
            Event::SagaEnded { saga, end } => {
                if let Some(open) = self.open.take_if(|open| open.plan.id == *saga) {
                    self.ended.push_back(Ended { id: *saga, verb: open.plan.verb, at, end: end.clone() });
                    if self.ended.len() > ENDED_MAX {
                        self.ended.pop_front();
                    }
                }
            }
            _ => {}
        }
    }
}

/// Settings as they are handed in.
pub(super) type Before = Option<Arc<Vec<JobSpec>>>;
