//! What survived, and what to do about it.
//!
//! The survey answers for every run that the memory holds as not ended. Nothing is started before it:
//! a run that may still live and a second one of the same job must never meet. It comes at every start of
//! a supervisor and after every loss of the keeper, and settles everything that was pending.
//!
//! What it comes to is told as data by [`plan`], before or after it is done; what must hold afterwards is in
//! [`check`].

pub mod check;
pub mod plan;

mod missing;

use std::collections::BTreeMap;

use super::draft::Draft;
use super::effect::Effect;
use super::event::{Event, Want};
use super::heal;
use super::ids::{JobName, RunId};
use super::input::{Fact, Survey, Surveyed};
use super::instance::{Life, Link};
use super::job::{Job, Phase};
use super::life::{self, News, tell};
use super::outcome::{Asked, Outcome};
use super::restart;
use super::spec::{JobSpec, Kind, Recovery};
use super::stop;

pub(super) fn surveyed(d: &mut Draft<'_>, survey: &Survey) {
    let (link, life) = (d.instance.link, d.instance.life);
    d.seen_us = survey.runs.iter().filter_map(|found| Some((found.run, found.seen_us?))).collect();
    d.sent = survey.runs.iter().filter_map(|found| Some((found.run, found.rung?))).collect();
    d.record(Event::Surveyed);
    if missing::is_unsettled(d.base) {
        d.record(Event::LossSettled { entries: d.base.instance.missing });
    }
    d.holding = link == Link::Recovering && missing::is_anything(d.base, survey);
    // What was disowned is disowned again before anything is started beside it.
    strangers(d, survey, link);
    settle(d, survey, link);
    if d.holding {
        missing::hold_tasks(d);
    }
    if d.ending() {
        stop::resume(d);
        return;
    }
    if link == Link::Recovering && !d.instance.recovery {
        revive(d, life);
    }
    resume(d);
}

/// Recovery mode is over: what it has left undone is done. Before the first survey
/// that is left to the survey; a later one starts what waits for it.
pub(super) fn leave_recovery(d: &mut Draft<'_>, by: &Asked) {
    if !d.instance.recovery {
        return;
    }
    d.record(Event::RecoveryLeft { by: by.clone() });
    if d.instance.link != Link::Recovering && !d.ending() {
        revive(d, Life::Continued);
        for job in d.names() {
            heal::go_on(d, &job);
        }
    }
}

/// Runs we hold as not ended.
fn settle(d: &mut Draft<'_>, survey: &Survey, link: Link) {
    let facts: BTreeMap<RunId, &Fact> = survey.runs.iter().map(|found| (found.run, &found.fact)).collect();
    let lost = Fact::Lost { why: "it was not found".to_owned() };
    let held: Vec<(RunId, JobName)> = d.base.live.iter().map(|(run, job)| (*run, job.clone())).collect();
    for (run, job) in held {
        let fact = match facts.get(&run) {
            Some(fact) => fact,
            None if survey.pending.contains(&run) => continue,
            // A survey without a loss before it may be older than what has been asked for since.
            None if link == Link::Working => continue,
            None => &lost,
        };
        // Nothing was lost since, so what is being done about it goes on anyway.
        if link == Link::Working && d.job(&job).is_some_and(|job| is_known(job, fact)) {
            continue;
        }
        // A later run of the job was found, and has taken its place.
        if d.job(&job).is_none_or(|job| job.run() != Some(run)) {
            continue;
        }
        tell(d, &job, &News::Found { fact, first: link == Link::Recovering });
    }
}

/// Whether a job has heard of this before.
const fn is_known(job: &Job, fact: &Fact) -> bool {
    matches!(
        (&job.phase, fact),
        (Phase::Running { .. } | Phase::Stopping { process: Some(_), .. }, Fact::Alive { .. })
            | (Phase::Leftovers { .. }, Fact::Alive { .. } | Fact::Ended { leftovers: true, .. })
    )
}

/// Runs we do not hold as alive: never adopted on a guess. A live one that the keeper proves to be of a job
/// that has no other is no guess.
fn strangers(d: &mut Draft<'_>, survey: &Survey, link: Link) {
    // Ids of runs are in the order of time, and a job's runs come one after the other.
    let mut all: Vec<&Surveyed> =
        survey.runs.iter().filter(|found| !d.base.live.contains_key(&found.run)).collect();
    all.sort_by_key(|found| found.run);
    let alive =
        |run: &RunId| all.iter().any(|found| found.run == *run && matches!(found.fact, Fact::Alive { .. }));
    let gone: Vec<RunId> = d.orphans().keys().filter(|run| !alive(run)).copied().collect();
    d.putting_off = true;
    gone.into_iter().for_each(|run| life::orphan_gone(d, run));
    d.putting_off = false;
    for found in all {
        let run = found.run;
        let may = link == Link::Recovering || missing::is_orphan_of_wanted_job(d, found);
        if may && missing::take_back(d, survey, found) {
            continue;
        }
        match &found.fact {
            Fact::Alive { .. } => {
                if !d.base.orphans.contains_key(&run) {
                    d.record(Event::OrphanFound { run, job: found.job.clone() });
                }
            }
            Fact::Ended { leftovers, .. } => {
                if *leftovers {
                    d.effect(Effect::Disown { run });
                }
                d.effect(Effect::Forget { run });
            }
            Fact::Cancelled | Fact::Lost { .. } => d.effect(Effect::Forget { run }),
        }
    }
}

/// A new supervisor starts what is wanted and was not running.
fn revive(d: &mut Draft<'_>, life: Life) {
    for name in d.names() {
        let (Some(job), Some(spec)) = (d.job(&name), d.spec(&name)) else { continue };
        if job.want == Want::Down || stays_down(d, &name, job, &spec) {
            continue;
        }
        let wanted = match (&job.phase, life) {
            (Phase::Stopped, _) => true,
            // A reboot, or an instance started anew, is a new chance for a service; a task that has
            // come to its end stays there.
            (Phase::Exited | Phase::Fatal { .. }, Life::New) => spec.kind == Kind::Service,
            _ => false,
        };
        if wanted {
            tell(d, &name, &News::Start);
        } else {
            restart::renew(d, &name);
        }
    }
}

/// Whether a lost run is not to be followed by another by itself: in this life of the instance, or at all.
fn stays_down(d: &Draft<'_>, name: &JobName, job: &Job, spec: &JobSpec) -> bool {
    let lost = job.last.as_ref().filter(|last| matches!(last.outcome, Outcome::Lost { .. }));
    let (Some(last), Phase::Fatal { .. }) = (lost, &job.phase) else { return false };
    match spec.recovery {
        Recovery::Auto | Recovery::Fail => d.base.live.get(&last.run) == Some(name),
        Recovery::Manual => true,
    }
}

/// What waited for the keeper, or fell due while it was away.
fn resume(d: &mut Draft<'_>) {
    for name in d.names() {
        let due = d.job(&name).is_some_and(|job| {
            job.phase == Phase::Waiting || job.deadline().is_some_and(|at| at.boot_us <= d.now.boot_us)
        });
        if due {
            tell(d, &name, &News::Due);
        }
    }
}
