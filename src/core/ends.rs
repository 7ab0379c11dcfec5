//! The end of a run, and what follows from it: nothing, the rest of its processes, another run, or giving up.

use super::draft::Draft;
use super::effect::Effect;
use super::event::{Event, Want};
use super::group;
use super::hook::{self, When};
use super::ids::{JobName, RunId};
use super::job::{Job, Last, Phase};
use super::life::{release, start};
use super::outcome::{Asked, ExitRecord, Outcome};
use super::restart::{self, Next};
use super::spec::Leftovers;
use super::stop;

/// The end of a run, as it was told.
pub(super) struct End<'a> {
    pub(super) record: &'a ExitRecord,
    pub(super) leftovers: bool,
    pub(super) interrupted: bool,
}

/// The main process has ended: say so once, then see to the rest of it, or go on at once.
pub(super) fn ended(d: &mut Draft<'_>, name: &JobName, end: &End<'_>) {
    let Some(job) = d.job(name) else { return };
    let run = end.record.run;
    let stopping = matches!(job.phase, Phase::Stopping { .. });
    let (asked, judged) = match &job.phase {
        Phase::Stopping { stop, .. } => (!stop.by.is_failure(), Some(stop.by.clone())),
        // It was unwell once, and got a signal for it: that is not what it ended by.
        Phase::Running { ill: None, .. } if end.record.asked.is_failure() => (false, Some(Asked::Nobody)),
        _ => (false, None),
    };
    let spec = d.spec(name);
    // Who asked for its end is known here; the keeper may have been told of an earlier one, or of none.
    let record = &match judged.filter(|by| by.is_failure() || *by == Asked::Nobody) {
        Some(by) => ExitRecord { asked: by, ..end.record.clone() },
        None => end.record.clone(),
    };
    let failures = if asked {
        0
    } else if end.interrupted || end.record.outcome == Outcome::Cancelled {
        job.failures
    } else {
        spec.as_ref().map_or(0, |spec| restart::failures(spec, job.failures, record))
    };
    // The record is filed under the name we know it by; the keeper's copy says the same.
    let record = Box::new(ExitRecord { job: name.clone(), ..record.clone() });
    d.record(Event::RunEnded {
        job: name.clone(),
        record,
        leftovers: end.leftovers,
        failures,
        interrupted: end.interrupted,
    });
    if !end.leftovers {
        over(d, name, run, if asked { How::Asked } else { How::Alone { interrupted: end.interrupted } });
        return;
    }
    match spec.map_or(Leftovers::Stop, |spec| spec.leftovers) {
        Leftovers::Stop => stop::go_on(d, name),
        // Somebody who stops a job does not want to wait for what it left.
        Leftovers::Wait if stopping => stop::go_on(d, name),
        Leftovers::Wait => {}
        Leftovers::Ignore => {
            d.record(Event::Disowned { job: name.clone(), run });
            d.effect(Effect::Disown { run });
            over(d, name, run, if asked { How::Asked } else { How::Alone { interrupted: end.interrupted } });
        }
    }
}

pub(super) fn tree_gone(d: &mut Draft<'_>, name: &JobName, run: RunId) {
    let asked = d.job(name).is_some_and(|job| match &job.phase {
        Phase::Leftovers { stop, then_start, .. } => {
            stop.as_ref().is_some_and(|stop| !stop.by.is_failure()) || *then_start
        }
        _ => false,
    });
    d.record(Event::TreeGone { job: name.clone(), run });
    over(d, name, run, if asked { How::Asked } else { How::Alone { interrupted: false } });
}

/// How a run came to its end.
#[derive(Clone, Copy)]
enum How {
    /// Somebody asked for it.
    Asked,
    /// By itself, or by our own accident.
    Alone { interrupted: bool },
}

/// Nothing of the run is left: what comes next?
fn over(d: &mut Draft<'_>, name: &JobName, run: RunId, how: How) {
    d.effect(Effect::Forget { run });
    let ran = |last: &Last| !matches!(last.outcome, Outcome::Cancelled | Outcome::NotStarted { .. });
    if d.job(name).and_then(|job| job.last.as_ref()).is_some_and(ran) {
        hook::run(d, name, When::AfterExit, Some(run));
    }
    if d.ending() {
        stop::wind_down(d, name);
        return;
    }
    let Some(job) = d.job(name) else { return };
    if job.want == Want::Down {
        // A task that ended well has done its work, whatever is wanted of it next.
        release(d, name);
        return;
    }
    match how {
        // Wanted although it was stopped: a restart, or a shutdown that this supervisor knows nothing of.
        How::Asked => {
            let by_restart = d.base.job(name).is_some_and(stops_to_start);
            if by_restart || !d.instance.recovery {
                start(d, name);
            }
        }
        How::Alone { interrupted } => go_on_alone(d, name, interrupted),
    }
}

fn stops_to_start(job: &Job) -> bool {
    match &job.phase {
        Phase::Stopping { stop, .. } => stop.then_start,
        Phase::Leftovers { then_start, .. } => *then_start,
        Phase::Stopped
        | Phase::Waiting
        | Phase::Queued
        | Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Backoff { .. }
        | Phase::Held { .. }
        | Phase::Exited
        | Phase::Fatal { .. } => false,
    }
}

/// A run ended by itself: the restart policy has the word.
pub(super) fn go_on_alone(d: &mut Draft<'_>, name: &JobName, interrupted: bool) {
    let (Some(job), Some(spec)) = (d.job(name).cloned(), d.spec(name)) else { return };
    if let Some(why) = group::was_given_up(d, name) {
        give_up(d, name, &why);
        return;
    }
    let seen_us = job.last.as_ref().and_then(|last| d.seen_us.get(&last.run).copied());
    let end = restart::After { job: &job, interrupted, seen_us, now: d.now };
    let next = restart::after(&spec, &end, || d.fresh.chance());
    let again = matches!(next, Next::Now | Next::At(_));
    if again && group::member_restarts(d, name, interrupted) {
        return;
    }
    match next {
        Next::Rest => release(d, name),
        Next::Now | Next::At(_) if d.instance.recovery => {
            // No run follows by itself, but a start that somebody asked for may wait for this very end.
            d.record(Event::Rested { job: name.clone() });
            release(d, name);
        }
        Next::Now => start(d, name),
        Next::At(until) => {
            d.record(Event::BackedOff { job: name.clone(), failures: job.failures, until });
        }
        Next::GiveUp(why) => {
            give_up(d, name, &why);
        }
    }
}

/// Does not start it again by itself, but for a retry later.
pub(super) fn give_up(d: &mut Draft<'_>, name: &JobName, why: &str) {
    let (Some(job), Some(spec)) = (d.job(name), d.spec(name)) else { return };
    let until = restart::retry_at(&spec, job, d);
    d.record(Event::GaveUp { job: name.clone(), why: why.to_owned(), until });
    hook::run(d, name, When::OnFatal, None);
    stop::fatal(d, name);
    // Who waits for it is told that it waits in vain.
    release(d, name);
}
