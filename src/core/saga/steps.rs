//! How a saga goes forward, when it is broken, and how each of its steps is undone.

use std::collections::BTreeMap;

use super::super::ask;
use super::super::draft::Draft;
use super::super::event::{Event, Want};
use super::super::ids::JobName;
use super::super::job::{Job, Phase};
use super::super::life::{News, counts_as_up, tell};
use super::super::outcome::{Asked, Outcome};
use super::super::reload::{self, ReloadPlan};
use super::super::restart::{in_words, lasted};
use super::super::spec::{JobSpec, Kind};
use super::super::state::State;
use super::super::time::{Millis, Stamp};
use super::{Act, Broken, End, Plan, STEADY, Saga, Step, Verb};

impl State {
    /// When the saga under way has to be looked at, if nothing happens before.
    pub(in super::super) fn saga_deadline(&self) -> Option<Stamp> {
        let saga = self.sagas.open.as_ref()?;
        if saga.broken.is_some() || saga.pending.is_empty() {
            return Some(Stamp::default());
        }
        let steady = |job: &JobName| {
            let step = saga.plan.steps.get(job)?;
            match rise(self.job(job), self.spec(job), step) {
                Rise::Up => Some(Stamp::default()),
                Rise::At(at) => Some(at),
                Rise::NotYet | Rise::Broken(_) => None,
            }
        };
        saga.pending.iter().filter_map(steady).chain([saga.plan.until()]).min_by_key(|at| at.boot_us)
    }
}

/// How far a job is.
enum Rise {
    Up,
    /// It is, if it lasts until then.
    At(Stamp),
    NotYet,
    Broken(String),
}

fn rise(job: Option<&Job>, spec: Option<&JobSpec>, step: &Step) -> Rise {
    // Somebody else has decided about it meanwhile: that is no failure of this.
    let Some(job) = job.filter(|job| job.want == Want::Up && !job.removed) else { return Rise::Up };
    let ours = job.attempt > step.attempt;
    match &job.phase {
        Phase::Running { ready_at: None, process, .. } if ours => Rise::At(process.started.plus(STEADY)),
        Phase::Running { ready_at: None, .. } if step.same_process => Rise::Up,
        Phase::Exited if ours && spec.is_some_and(|spec| well(job, spec)) => Rise::Up,
        Phase::Exited if ours => Rise::Broken(how_it_ended(job)),
        Phase::Fatal { why, .. } | Phase::Held { why } => Rise::Broken(why.clone()),
        Phase::Stopped
        | Phase::Waiting
        | Phase::Queued
        | Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Stopping { .. }
        | Phase::Leftovers { .. }
        | Phase::Backoff { .. }
        | Phase::Exited => Rise::NotYet,
    }
}

/// Whether a task has done its work.
fn well(job: &Job, spec: &JobSpec) -> bool {
    spec.kind == Kind::Task && counts_as_up(job, spec)
}

fn how_it_ended(job: &Job) -> String {
    let Some(last) = &job.last else { return "it ended".to_owned() };
    match last.started {
        Some(_) if !matches!(last.outcome, Outcome::NotStarted { .. }) => {
            let lasted = in_words(lasted(last.started, last.ended));
            format!("it ended after {lasted}: {}", last.outcome.describe())
        }
        _ => last.outcome.describe(),
    }
}

fn is_active(job: &Job) -> bool {
    match &job.phase {
        Phase::Waiting
        | Phase::Queued
        | Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Backoff { .. } => true,
        Phase::Stopping { stop, .. } => stop.then_start,
        Phase::Leftovers { .. } => job.want == Want::Up,
        Phase::Stopped | Phase::Held { .. } | Phase::Exited | Phase::Fatal { .. } => false,
    }
}

fn step_of(job: Option<&Job>, act: Act) -> Step {
    Step {
        act,
        must: false,
        want: job.map_or(Want::Down, |job| job.want),
        active: job.is_some_and(is_active),
        attempt: job.map_or(0, |job| job.attempt),
        same_process: false,
    }
}

/// Takes a configuration into force, or puts the one before back.
pub(in super::super) fn reload(d: &mut Draft<'_>, specs: &[JobSpec], by: &Asked, within: Millis) {
    if d.ending() || d.base.sagas.open.is_some() {
        return;
    }
    let plan = reload::plan(d.base, specs);
    let steps = reload_steps(d, specs, &plan);
    begin(d, Verb::Reload, by, within, steps);
    reload::apply(d, specs, by, &plan, reload::Removed::Held);
}

fn reload_steps(d: &Draft<'_>, specs: &[JobSpec], plan: &ReloadPlan) -> BTreeMap<JobName, Step> {
    let wants = reload::wants_of_new(specs, &plan.added);
    let step = |name: &JobName, act: Act| {
        let job = d.base.job(name);
        let mut step = step_of(job, act);
        step.must = match act {
            // A submitted job of that name that is over counts its runs from the beginning.
            Act::Add => {
                step.attempt = 0;
                wants.get(name) == Some(&Want::Up)
            }
            Act::Change => plan.restarted.contains(name) || step.active,
            Act::Remove | Act::Start => false,
        };
        step.same_process = act == Act::Change && !plan.restarted.contains(name);
        (name.clone(), step)
    };
    let changed = plan.restarted.iter().chain(&plan.updated).map(|name| step(name, Act::Change));
    let added = plan.added.iter().map(|name| step(name, Act::Add));
    let removed = plan.removed.iter().map(|name| step(name, Act::Remove));
    changed.chain(added).chain(removed).collect()
}

/// Starts jobs, or stops those again that it has started.
pub(in super::super) fn start(d: &mut Draft<'_>, jobs: &[JobName], by: &Asked, within: Millis) {
    if d.base.sagas.open.is_some() {
        return;
    }
    let mut all = true;
    for job in jobs {
        all &= ask::may_start(d, job, false);
    }
    if !all {
        return;
    }
    ask::start(d, jobs, false, by);
    let steps: BTreeMap<JobName, Step> = d
        .changed()
        .map(|name| (name.clone(), Step { must: true, ..step_of(d.base.job(name), Act::Start) }))
        .collect();
    if !steps.is_empty() {
        begin(d, Verb::Start, by, within, steps);
    }
}

fn begin(d: &mut Draft<'_>, verb: Verb, by: &Asked, within: Millis, steps: BTreeMap<JobName, Step>) {
    let id = d.base.sagas.begun + 1;
    d.record(Event::SagaBegun {
        plan: Box::new(Plan { id, verb, by: by.clone(), at: d.now, within, steps }),
    });
}

/// Looks what this decision means for the saga under way. Whether it is to be undone is only remembered here:
/// the undo is a decision of its own, on the memory that this one leaves.
pub(in super::super) fn follow(d: &mut Draft<'_>) {
    let Some(saga) = d.base.sagas.open.as_deref() else { return };
    let id = saga.plan.id;
    if let Some(why) = given_up(d, saga) {
        d.record(Event::SagaEnded { saga: id, end: End::Abandoned { why } });
        return;
    }
    let said = |event: &Event| matches!(event, Event::SagaUndoing { .. } | Event::SagaEnded { .. });
    if saga.broken.is_some() || d.events().iter().any(said) {
        return;
    }
    let broken = d.events().iter().find_map(|event| breaks(d, saga, event));
    if let Some(broken) = broken {
        d.record(Event::SagaUndoing { saga: id, broken });
    }
}

/// Why a saga can go neither on nor back.
fn given_up(d: &Draft<'_>, saga: &Saga) -> Option<String> {
    if d.ending() {
        Some("the instance is ending".to_owned())
    } else if d.events().iter().any(|event| begins_anew(d, event)) {
        Some("the host (or container) was started again; the configuration file is in force".to_owned())
    } else if saga.plan.verb == Verb::Reload && d.base.before.is_none() {
        let why =
            "the settings before it are gone, with init, which held them; the configuration file is in force";
        Some(why.to_owned())
    } else {
        None
    }
}

fn begins_anew(d: &Draft<'_>, event: &Event) -> bool {
    matches!(event, Event::SupervisorStarted { epoch, .. } if *epoch != d.base.instance.epoch)
}

/// Whether an event breaks the saga.
fn breaks(d: &Draft<'_>, saga: &Saga, event: &Event) -> Option<Broken> {
    let (job, why) = match event {
        Event::RunEnded { job, record, failures, interrupted: false, .. }
            if *failures > 0 && record.outcome != Outcome::Cancelled =>
        {
            (job, how_it_ended(d.job(job)?))
        }
        Event::GaveUp { job, why, .. } => (job, why.clone()),
        _ => return None,
    };
    let step = saga.plan.steps.get(job).filter(|step| step.must)?;
    // An end of the run before is none of ours.
    let ours = d.base.job(job).is_some_and(|job| job.attempt > step.attempt);
    ours.then(|| Broken { job: Some(job.clone()), why })
}

/// The time of the saga may have come: steps that are done, the end, the time limit, the undo.
pub(in super::super) fn due(d: &mut Draft<'_>) {
    let Some(saga) = d.base.sagas.open.as_deref() else { return };
    if given_up(d, saga).is_some() {
        return;
    }
    if let Some(broken) = &saga.broken {
        undo(d, saga, broken.clone());
        return;
    }
    let id = saga.plan.id;
    let mut left = Vec::new();
    for name in &saga.pending {
        let Some(step) = saga.plan.steps.get(name) else { continue };
        match rise(d.base.job(name), d.base.spec(name), step) {
            Rise::Up => d.record(Event::SagaStepDone { saga: id, step: name.clone() }),
            Rise::At(at) if at.boot_us <= d.now.boot_us => {
                d.record(Event::SagaStepDone { saga: id, step: name.clone() });
            }
            Rise::Broken(why) => {
                let broken = Broken { job: Some(name.clone()), why };
                d.record(Event::SagaUndoing { saga: id, broken });
                return;
            }
            Rise::At(_) | Rise::NotYet => left.push(name),
        }
    }
    if left.is_empty() {
        done(d, saga);
    } else if saga.plan.until().boot_us <= d.now.boot_us {
        let shown = |name: &&JobName| {
            let shown = d.base.job(name).map_or("gone", |job| job.shown().as_str());
            format!("{name} ({shown})")
        };
        let names: Vec<String> = left.iter().map(shown).collect();
        let why = format!("not up within {}: {}", in_words(saga.plan.within), names.join(", "));
        let job = left.first().map(|name| (*name).clone()).filter(|_| left.len() == 1);
        d.record(Event::SagaUndoing { saga: id, broken: Broken { job, why } });
    }
}

fn done(d: &mut Draft<'_>, saga: &Saga) {
    d.record(Event::SagaEnded { saga: saga.plan.id, end: End::Done });
    for (name, step) in &saga.plan.steps {
        if step.act == Act::Remove && d.job(name).is_some() {
            d.record(Event::JobRemoved { job: name.clone() });
            tell(d, name, &News::Halt { by: &Asked::Reload, then_start: false });
        }
    }
}

/// Puts back what was before. One decision: a crash leaves all of it undone, or to be undone.
fn undo(d: &mut Draft<'_>, saga: &Saga, broken: Broken) {
    let by = Asked::Policy { rule: format!("{} {} is rolled back", saga.plan.verb.as_str(), saga.plan.id) };
    d.record(Event::SagaEnded { saga: saga.plan.id, end: End::RolledBack(broken) });
    for (name, step) in &saga.plan.steps {
        if step.act == Act::Add && d.job(name).is_some_and(|job| !job.submitted) {
            d.record(Event::JobRemoved { job: name.clone() });
        }
    }
    if saga.plan.verb == Verb::Reload {
        // Without them the saga is given up, see `given_up`.
        let before = d.base.before.clone().unwrap_or_default();
        d.bring_specs(&before, |_| false);
    }
    for (name, step) in &saga.plan.steps {
        undo_step(d, name, step, &by);
    }
    reload::look_again(d);
}

fn undo_step(d: &mut Draft<'_>, name: &JobName, step: &Step, by: &Asked) {
    let Some(job) = d.job(name) else { return };
    let (wanted, lives) = (job.want == Want::Up, job.run().is_some());
    let ours = job.attempt > step.attempt;
    match step.act {
        Act::Add => tell(d, name, &News::Halt { by, then_start: false }),
        // Somebody has stopped it meanwhile: it stays so.
        Act::Change if !wanted => {}
        Act::Change if lives && ours && !step.same_process => {
            tell(d, name, &News::Halt { by, then_start: true });
        }
        Act::Change if !lives && (ours || step.active) => revive(d, name, by),
        Act::Change => {}
        Act::Remove if step.want == Want::Up && !wanted => {
            // One that was given up is not any more; one that has done its work stays where it was.
            if step.active || job.phase != Phase::Exited {
                revive(d, name, by);
            } else {
                d.record(Event::WantSet { job: name.clone(), want: Want::Up, by: by.clone() });
            }
        }
        Act::Remove => {}
        Act::Start if wanted && !step.active => {
            d.record(Event::WantSet { job: name.clone(), want: Want::Down, by: by.clone() });
            tell(d, name, &News::Halt { by, then_start: false });
        }
        Act::Start => {}
    }
}

/// Wanted again, and started as soon as nothing of it lives.
fn revive(d: &mut Draft<'_>, name: &JobName, by: &Asked) {
    d.record(Event::WantSet { job: name.clone(), want: Want::Up, by: by.clone() });
    tell(d, name, &News::Start);
}
