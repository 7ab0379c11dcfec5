//! Hooks: commands that run around the runs of a job.
//!
//! Two of them are waited for. Without the success of `before_start` there is no run, and before `before_stop` has
//! ended, or had its time, nothing of a run is signalled. The others tell somebody, and hold nothing up. What
//! is decided is that one is to run, at most once for each time. When a supervisor dies before one of the two has
//! ended, the next asks for the same `before_stop` and gets how that one ends; it has another run for the job, and thus
//! another `before_start`, which begins when the first has been ended.

use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::effect::Effect;
use super::ids::{JobName, RunId};
use super::job::Job;
use super::spec::JobSpec;
use super::time::Millis;

/// How long a hook may take unless configured otherwise.
pub const TIMEOUT: Millis = Millis::from_secs(30);

/// When one runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// A run was decided, and is launched when it has succeeded.
    BeforeStart,
    /// The main process is past `execve`.
    AfterStart,
    /// A stop was decided, and its ladder begins when it has ended.
    BeforeStop,
    /// Nothing of a run is left.
    AfterExit,
    /// A run was found to hang.
    OnFrozen,
    /// The job was given up.
    OnFatal,
}

impl When {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::BeforeStart,
        Self::AfterStart,
        Self::BeforeStop,
        Self::AfterExit,
        Self::OnFrozen,
        Self::OnFatal,
    ];

    /// The word as it is configured, and handed to the command.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeStart => "before_start",
            Self::AfterStart => "after_start",
            Self::BeforeStop => "before_stop",
            Self::AfterExit => "after_exit",
            Self::OnFrozen => "on_frozen",
            Self::OnFatal => "on_fatal",
        }
    }
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The command; never empty.
    pub command: Vec<String>,
    /// How long it may take.
    pub timeout: Millis,
}

/// All hooks of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hooks {
    /// See [`When::BeforeStart`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_start: Option<Hook>,
    /// See [`When::AfterStart`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_start: Option<Hook>,
    /// See [`When::BeforeStop`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_stop: Option<Hook>,
    /// See [`When::AfterExit`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_exit: Option<Hook>,
    /// See [`When::OnFrozen`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_frozen: Option<Hook>,
    /// See [`When::OnFatal`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_fatal: Option<Hook>,
}

impl Hooks {
    /// The place of one.
    pub const fn at(&mut self, when: When) -> &mut Option<Hook> {
        match when {
            When::BeforeStart => &mut self.before_start,
            When::AfterStart => &mut self.after_start,
            When::BeforeStop => &mut self.before_stop,
            When::AfterExit => &mut self.after_exit,
            When::OnFrozen => &mut self.on_frozen,
            When::OnFatal => &mut self.on_fatal,
        }
    }

    /// One of them.
    #[must_use]
    pub const fn get(&self, when: When) -> Option<&Hook> {
        match when {
            When::BeforeStart => self.before_start.as_ref(),
            When::AfterStart => self.after_start.as_ref(),
            When::BeforeStop => self.before_stop.as_ref(),
            When::AfterExit => self.after_exit.as_ref(),
            When::OnFrozen => self.on_frozen.as_ref(),
            When::OnFatal => self.on_fatal.as_ref(),
        }
    }
}

impl JobSpec {
    /// A hook of it.
    #[must_use]
    pub fn hook(&self, when: When) -> Option<&Hook> {
        self.hooks.as_ref()?.get(when)
    }
}

/// Has a hook of a job run, if there is one. `run`: which run it is about; `None`: the latest.
pub(super) fn run(d: &mut Draft<'_>, name: &JobName, when: When, run: Option<RunId>) {
    let (Some(job), Some(spec)) = (d.job(name), d.spec(name)) else { return };
    if spec.hook(when).is_none() {
        return;
    }
    let over = matches!(when, When::AfterExit | When::OnFatal);
    let effect = Effect::RunHook {
        when,
        job: name.clone(),
        run: run.or_else(|| job.latest_run()),
        pid: Job::pid(job),
        outcome: job.last.as_ref().filter(|_| over).map(|last| last.outcome.clone()),
        spec: Box::new((*spec).clone()),
    };
    d.effect(effect);
}
