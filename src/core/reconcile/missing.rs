//! When entries of the event log are missing: what is found all the same is taken back, and of the rest
//! nothing is started that may have run.
//!
//! That entries are missing is known from a hole in the log, or from a witness: a run that was made after
//! the end of what is remembered, and that the keeper or the files know of. Only a supervisor that begins can
//! tell: what it does not know then, it has never known.

use std::collections::BTreeMap;

use super::super::draft::Draft;
use super::super::event::{Event, Want};
use super::super::ids::{JobName, RunId};
use super::super::input::{Fact, Survey, Surveyed};
use super::super::job::{Job, Phase};
use super::super::life::{self, News, tell};
use super::super::outcome::Asked;
use super::super::spec::Kind;
use super::super::state::State;

/// Whether there are holes in the log that nobody has made up for. The survey that does says how many entries
/// it knows to be missing: a survey that stands behind a hole was made before there was one.
pub(super) const fn is_unsettled(state: &State) -> bool {
    state.instance.missing > state.instance.settled
}

/// Whether entries are missing.
pub(super) fn is_anything(state: &State, survey: &Survey) -> bool {
    let witness = |found: &Surveyed| state.is_beyond(found.run, found.job.as_ref());
    is_unsettled(state) || survey.runs.iter().any(witness)
}

/// Holds every task that would be started by itself, now or later. A service is kept up: what lives of it
/// has been found, and that it starts once more is what it is for.
pub(super) fn hold_tasks(d: &mut Draft<'_>) {
    for name in d.names() {
        let (Some(job), Some(spec)) = (d.job(&name), d.spec(&name)) else { continue };
        let starts =
            matches!(job.phase, Phase::Stopped | Phase::Waiting | Phase::Queued | Phase::Backoff { .. });
        if spec.kind == Kind::Task && job.want == Want::Up && !job.removed && starts {
            life::hold(d, &name);
        }
    }
}

/// Whether this is a live run that was an orphan so far, because nobody knew its job; meanwhile there is the
/// job, and it is to run.
pub(super) fn is_orphan_of_wanted_job(d: &Draft<'_>, found: &Surveyed) -> bool {
    let Some(name) = &found.job else { return false };
    let ours = d.base.orphans.get(&found.run) == Some(&found.job);
    let alive = matches!(found.fact, Fact::Alive { .. });
    let free = |job: &Job| job.want == Want::Up && job.run().is_none() && !job.removed;
    let over = || d.base.runs(name).any(|past| past.run == found.run);
    ours && alive && d.job(name).is_some_and(free) && !over()
}

/// Takes a run back whose request is missing. False if that cannot be: it is a stranger.
pub(super) fn take_back(d: &mut Draft<'_>, survey: &Survey, found: &Surveyed) -> bool {
    let (run, Some(name)) = (found.run, found.job.as_ref()) else { return false };
    let heard_of = d.base.has_heard_of(run, Some(name)) && !is_orphan_of_wanted_job(d, found);
    if heard_of || d.spec(name).is_none() {
        return false;
    }
    let at = match &found.fact {
        Fact::Alive { started, .. } => *started,
        Fact::Ended { record, .. } if d.base.is_beyond(run, Some(name)) => {
            record.started.unwrap_or(record.ended)
        }
        Fact::Ended { .. } | Fact::Cancelled | Fact::Lost { .. } => return false,
    };
    d.putting_off = true;
    let taken = make_room(d, survey, name);
    if taken {
        let attempt = d.job(name).map_or(1, |job| job.attempt + 1);
        d.record(Event::RunRequested { job: name.clone(), run, attempt, at });
        let down = d.job(name).is_some_and(|job| job.want == Want::Down);
        if down && matches!(found.fact, Fact::Alive { .. }) && !d.base.instance.stopped.contains(name) {
            // It was wanted after all that we know.
            let by = Asked::Policy { rule: "found running".to_owned() };
            d.record(Event::WantSet { job: name.clone(), want: Want::Up, by });
        }
        tell(d, name, &News::Found { fact: &found.fact, first: true });
    }
    d.putting_off = false;
    taken
}

/// Sees to it that the job has no run: one that we hold is over, unless it is found alive.
fn make_room(d: &mut Draft<'_>, survey: &Survey, name: &JobName) -> bool {
    let Some(job) = d.job(name) else { return false };
    if job.removed {
        return false;
    }
    let Some(held) = job.run() else { return true };
    let facts: BTreeMap<RunId, &Fact> = survey.runs.iter().map(|found| (found.run, &found.fact)).collect();
    let lost = Fact::Lost { why: "it was not found".to_owned() };
    let fact = facts.get(&held).copied().unwrap_or(&lost);
    if matches!(fact, Fact::Alive { .. }) {
        return false;
    }
    tell(d, name, &News::Found { fact, first: true });
    d.job(name).is_some_and(|job| job.run().is_none())
}
