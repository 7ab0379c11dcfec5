//! The circuit breaker of a job: after so many failures in a row no start is made for a while.
//!
//! Nothing is kept for it but the failures in a row, which are remembered anyway, and how long a run on trial has
//! still to last. *Open*: the job rests, for longer than its backoff would have it, and an operator who starts it
//! is told so. *Half open*: that time is over, and one run is on trial. A run that ended well, is ready, or
//! has lasted `backoff.reset_after` closes it; a run that failed opens it again.

use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::event::Event;
use super::ids::{JobName, RunId};
use super::job::{Job, Phase};
use super::spec::JobSpec;
use super::time::{Millis, Stamp};

/// When it opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// Failures in a row; at least 1.
    pub failures: u32,
    /// How long no start is made.
    pub open_for: Millis,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, open_for: Millis::from_secs(60) }
    }
}

/// Where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// Nothing stands in the way of a start.
    Closed,
    /// No start is made.
    Open,
    /// One run is on trial.
    HalfOpen,
}

impl Circuit {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word as it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }

    /// That of a job; `None`: it has none.
    #[must_use]
    pub fn of(spec: &JobSpec, job: &Job) -> Option<Self> {
        let breaker = spec.breaker.as_deref()?;
        Some(match &job.phase {
            _ if job.failures < breaker.failures => Self::Closed,
            Phase::Backoff { .. } => Self::Open,
            Phase::Waiting
            | Phase::Queued
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Leftovers { .. } => Self::HalfOpen,
            // Only an operator or a new life of the instance starts it, and that begins anew.
            Phase::Stopped | Phase::Held { .. } | Phase::Exited | Phase::Fatal { .. } => Self::Closed,
        })
    }
}

/// How long no start is made after this many failures in a row; `None`: that is left to the backoff.
pub(super) fn open_for(spec: &JobSpec, failures: u32) -> Option<Millis> {
    spec.breaker.as_ref().filter(|breaker| failures >= breaker.failures).map(|breaker| breaker.open_for)
}

/// Why an operator's start is refused, if it is.
pub(super) fn refuses(spec: &JobSpec, job: &Job, now: Stamp) -> Option<String> {
    let Phase::Backoff { until } = &job.phase else { return None };
    if Circuit::of(spec, job) != Some(Circuit::Open) || until.boot_us <= now.boot_us {
        return None;
    }
    Some(format!(
        "the circuit is open after {} in a row; the next try is due at {}, and `outlive start --force` makes it now",
        in_words(job.failures),
        until.rfc3339()
    ))
}

/// What there is to say about it, behind other words.
pub(super) fn words(spec: Option<&JobSpec>, job: &Job) -> Option<String> {
    let failures = || in_words(job.failures);
    match Circuit::of(spec?, job)? {
        Circuit::Closed => None,
        Circuit::Open => Some("the circuit is open".to_owned()),
        Circuit::HalfOpen => {
            Some(format!("the circuit is half open: on trial after {} in a row", failures()))
        }
    }
}

fn in_words(failures: u32) -> String {
    if failures == 1 { "1 failure".to_owned() } else { format!("{failures} failures") }
}

/// A run lives: it may be on trial.
pub(super) fn begin_trial(d: &mut Draft<'_>, name: &JobName, run: RunId, started: Stamp) {
    let (Some(job), Some(spec)) = (d.job(name), d.spec(name)) else { return };
    let half_open = Circuit::of(&spec, job) == Some(Circuit::HalfOpen);
    if half_open && job.trial.is_none() && matches!(job.phase, Phase::Running { .. }) {
        let until = started.plus(spec.backoff.reset_after);
        d.record(Event::TrialBegun { job: name.clone(), run, until });
    }
}

/// Its run is ready, where it has to tell.
pub(super) fn ready(d: &mut Draft<'_>, name: &JobName, run: RunId) {
    let tells = d.spec(name).is_some_and(|spec| spec.ready().is_some());
    if tells && d.job(name).is_some_and(|job| job.trial.is_some()) {
        d.record(Event::TrialPassed { job: name.clone(), run });
    }
}

/// Its run may have lasted long enough.
pub(super) fn due(d: &mut Draft<'_>, name: &JobName, run: RunId) {
    let Some(job) = d.job(name).filter(|job| matches!(job.phase, Phase::Running { .. })) else { return };
    if job.trial.is_some_and(|until| until.boot_us <= d.now.boot_us) {
        d.record(Event::TrialPassed { job: name.clone(), run });
    }
}
