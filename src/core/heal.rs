//! What is done about a run that lives and is unwell.
//!
//! That a run is unwell is an observation: [`super::vigil`] makes it, and makes it again as often as it is asked,
//! so nothing of it has to survive but what was decided. What is decided is a ladder of rungs, each recorded
//! before it is taken: a new supervisor goes on at the rung that the last one had reached, and does not send again what
//! was sent ([`super::rung`]): who was told to print its stack and is told so twice may end.
//!
//! A run that is stopped for being unwell has failed, whatever its exit code says, and the restart policy has the
//! word. In recovery mode, which somebody is to look into, and during a shutdown nothing is done but to say it.

use super::draft::Draft;
use super::effect::Effect;
use super::event::Event;
use super::fault::{Fault, Meaning};
use super::hook::{self, When};
use super::ids::{JobName, RunId};
use super::ill::Ill;
use super::job::{Job, Phase};
use super::outcome::Asked;
use super::restart::in_words;
use super::rung::{Of, Rung};
use super::signal;
use super::spec::KillScope;
use super::stop;
use super::time::Millis;
use super::watch::{FrozenStep, OnExceed, Ready};

/// What a run has to show signs of life after a `CONT`, if it was not seen to be stopped: a process below its main
/// one may have been.
const MAYBE_STOPPED: Millis = Millis(250);

/// How long a snapshot may take to be written.
const WRITING: Millis = Millis(1000);

/// A run was found to be unwell. While the keeper is away nothing can be done about it: it will be found again.
pub(super) fn unwell(d: &mut Draft<'_>, name: &JobName, run: RunId, (fault, why): (Fault, &str)) {
    if !d.working() {
        return;
    }
    if let Some(ill) = ill(d, name) {
        // One thing at a time: but the worse takes the place of what was found before.
        if grave(fault) <= grave(ill.fault) {
            return;
        }
    }
    d.record(Event::RunUnwell { job: name.clone(), run, fault, why: why.to_owned() });
    if fault.meaning() == Meaning::Frozen {
        hook::run(d, name, When::OnFrozen, Some(run));
    }
    if !may_act(d) {
        return;
    }
    match fault.meaning() {
        Meaning::Frozen => take(d, name, 0),
        Meaning::Failed => end(d, name, run, true),
        Meaning::Exceeds => exceeds(d, name, run),
    }
}

/// How much there is to be done about it.
const fn grave(fault: Fault) -> u8 {
    match fault.meaning() {
        Meaning::Exceeds => 0,
        Meaning::Frozen => 1,
        Meaning::Failed => 2,
    }
}

/// It did not tell in time that it is ready. Where nothing may be done about it, it goes on waiting.
pub(super) fn not_ready(d: &mut Draft<'_>, name: &JobName, run: RunId, ready: &Ready) {
    let why = format!("not ready within {}", in_words(ready.timeout));
    unwell(d, name, run, (Fault::NotReady, &why));
    if matches!(d.job(name).map(|job| &job.phase), Some(Phase::Running { .. })) {
        let until = d.now.plus(ready.timeout.max(Millis(1000)));
        d.record(Event::RunExtended { job: name.clone(), run, until });
    }
}

/// Nothing is wrong with a run any more.
pub(super) fn well(d: &mut Draft<'_>, name: &JobName, run: RunId) {
    if ill(d, name).is_some_and(|ill| !has_only_answered(d, name, &ill)) {
        d.record(Event::RunWell { job: name.clone(), run });
    }
}

/// Whether what looks like life may be the answer to a signal of ours: who prints its stack because it was told to has
/// written something, used the CPU, and hangs as before. The ladder goes on, if it leads any further.
fn has_only_answered(d: &Draft<'_>, name: &JobName, ill: &Ill) -> bool {
    let Some(step) = ill.step.filter(|_| matches!(ill.fault, Fault::Silent | Fault::Idle)) else {
        return false;
    };
    let ladder = d.spec(name).map(|spec| spec.frozen_ladder()).unwrap_or_default();
    let (taken, left) = ladder.split_at(ladder.len().min(step as usize + 1));
    let asked = taken.iter().any(|rung| matches!(rung, FrozenStep::Dump { signal: Some(_), .. }));
    asked
        && ill.until.is_some()
        && left.iter().any(|rung| matches!(rung, FrozenStep::Stop | FrozenStep::Restart))
}

/// The time of a rung may be over.
pub(super) fn next(d: &mut Draft<'_>, name: &JobName) {
    let Some(Ill { step: Some(step), until: Some(until), .. }) = ill(d, name) else { return };
    let Some(run) = d.job(name).and_then(Job::run).filter(|_| until.boot_us <= d.now.boot_us) else { return };
    if may_act(d) {
        take(d, name, step + 1);
    } else {
        // It rests on this rung; who may act goes on from here.
        d.record(Event::HealStepBegun { job: name.clone(), run, step, until: None });
    }
}

/// A snapshot was written, or could not be.
pub(super) fn diagnosed(d: &mut Draft<'_>, name: &JobName) {
    let Some(Ill { step: Some(step), until: Some(_), .. }) = ill(d, name) else { return };
    let ladder = d.spec(name).map(|spec| spec.frozen_ladder()).unwrap_or_default();
    if let Some(FrozenStep::Dump { signal: None, .. }) = ladder.get(step as usize)
        && may_act(d)
        && d.working()
    {
        take(d, name, step + 1);
    }
}

fn ill(d: &Draft<'_>, name: &JobName) -> Option<Ill> {
    match d.job(name).map(|job| &job.phase) {
        Some(Phase::Running { ill: Some(ill), .. }) => Some((**ill).clone()),
        _ => None,
    }
}

/// Takes a rung. After the last one nothing is done but to wait for signs of life.
fn take(d: &mut Draft<'_>, name: &JobName, step: u32) {
    let Some(Phase::Running { run, process, .. }) = d.job(name).map(|job| job.phase.clone()) else { return };
    let Some(ill) = ill(d, name) else { return };
    let ladder = d.spec(name).map(|spec| spec.frozen_ladder()).unwrap_or_default();
    let rung = ladder.get(step as usize).copied();
    let wait = match rung {
        Some(FrozenStep::Continue { wait }) if ill.fault == Fault::Stopped => Some(wait),
        Some(FrozenStep::Continue { wait }) => Some(wait.min(MAYBE_STOPPED)),
        Some(FrozenStep::Dump { signal: Some(_), wait }) => Some(wait),
        Some(FrozenStep::Dump { signal: None, .. }) => Some(WRITING),
        Some(FrozenStep::Stop | FrozenStep::Restart) | None => None,
    };
    let wait = wait.map(|wait| d.now.plus(wait));
    d.record(Event::HealStepBegun { job: name.clone(), run, step, until: wait });
    let asked = || health(&ill, true);
    match rung {
        Some(FrozenStep::Continue { .. }) => d.effect(Effect::Signal {
            run,
            signal: signal::CONT,
            scope: KillScope::Tree,
            cont: false,
            asked: Asked::Nobody,
            // Once more does no harm, and may help.
            rung: None,
        }),
        Some(FrozenStep::Dump { signal, .. }) => {
            let (job, identity, why) = (name.clone(), process.identity, ill.why.clone());
            d.effect(Effect::Diagnose { run, job, identity, why });
            if let Some(signal) = signal {
                let scope = KillScope::Process;
                d.effect(Effect::Signal {
                    run,
                    signal,
                    scope,
                    cont: true,
                    asked: asked(),
                    rung: Some(rung_of(&ill, step)),
                });
            }
        }
        Some(FrozenStep::Stop) => {
            let again = ladder.iter().skip(step as usize).any(|step| *step == FrozenStep::Restart);
            end(d, name, run, again);
        }
        Some(FrozenStep::Restart) => end(d, name, run, true),
        None => {}
    }
    if wait.is_some_and(|until| until.boot_us <= d.now.boot_us) {
        take(d, name, step + 1);
    }
}

const fn rung_of(ill: &Ill, step: u32) -> Rung {
    Rung { of: Of::Frozen { since_us: ill.since.boot_us }, step }
}

fn health(ill: &Ill, again: bool) -> Asked {
    Asked::Health { fault: ill.fault, why: ill.why.clone(), again }
}

/// Ends it by the stop ladder.
fn end(d: &mut Draft<'_>, name: &JobName, run: RunId, again: bool) {
    if let Some(ill) = ill(d, name) {
        stop::begin(d, name, run, (&health(&ill, again), false));
    }
}

fn exceeds(d: &mut Draft<'_>, name: &JobName, run: RunId) {
    match on_exceed(d, name) {
        OnExceed::Restart => end(d, name, run, true),
        OnExceed::Stop => end(d, name, run, false),
        OnExceed::Signal(signal) => {
            let asked = Asked::Policy { rule: "limits".to_owned() };
            let (scope, cont) = (KillScope::Process, false);
            d.effect(Effect::Signal { run, signal, scope, cont, asked, rung: None });
        }
        OnExceed::Notify => {}
    }
}

/// After a survey, and after recovery mode: what is to be done about it is done, or goes on at the rung that was
/// reached, in case nobody took it.
pub(super) fn go_on(d: &mut Draft<'_>, name: &JobName) {
    let Some(run) = d.job(name).and_then(Job::run).filter(|_| may_act(d)) else { return };
    let Some(ill) = ill(d, name) else { return };
    match (ill.fault.meaning(), ill.step, ill.until) {
        (Meaning::Frozen, None, _) => take(d, name, 0),
        (Meaning::Frozen, Some(step), Some(until)) => {
            if d.sent.get(&run) != Some(&rung_of(&ill, step)) {
                take(d, name, step);
                return;
            }
            // Whether the snapshot was written, nobody knows.
            if let Some(identity) = d.job(name).and_then(Job::identity).cloned() {
                let (job, why) = (name.clone(), ill.why.clone());
                d.effect(Effect::Diagnose { run, job, identity, why });
            }
            if until.boot_us <= d.now.boot_us {
                // It has had its time, and whoever is to see what came of it has only begun to look.
                let until = Some(d.now.plus(MAYBE_STOPPED));
                d.record(Event::HealStepBegun { job: name.clone(), run, step, until });
            }
        }
        // One that waits for nothing is the end of the ladder, or was left to rest.
        (Meaning::Frozen, Some(step), None) => {
            let ladder = d.spec(name).map(|spec| spec.frozen_ladder()).unwrap_or_default();
            if ladder.get(step as usize).is_some() {
                take(d, name, step);
            }
        }
        (Meaning::Failed, _, _) => end(d, name, run, true),
        (Meaning::Exceeds, _, _) => match on_exceed(d, name) {
            OnExceed::Restart | OnExceed::Stop => exceeds(d, name, run),
            // It was said, or signalled, once.
            OnExceed::Signal(_) | OnExceed::Notify => {}
        },
    }
}

/// Whether anything is done but to say it.
fn may_act(d: &Draft<'_>) -> bool {
    !d.ending() && !d.instance.recovery
}

fn on_exceed(d: &Draft<'_>, name: &JobName) -> OnExceed {
    let configured = d.spec(name).and_then(|spec| Some(spec.watch.as_ref()?.limits.on_exceed));
    configured.unwrap_or(OnExceed::Notify)
}
