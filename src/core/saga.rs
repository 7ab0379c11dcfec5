//! Operations of several steps that are done whole or undone: a saga.
//!
//! Its intent is recorded with the decision that begins it, so whoever comes after a crash knows what was
//! under way and goes on with it: forwards while nothing has failed and there is time, else backwards. Each
//! step has its undo, which follows from what the job was before. The undo is one decision of its own.
//!
//! What was in force before a reload may hold secrets, so it is in no event: it is handed in with the
//! settings. Where it is lost, there is no way back, and the saga ends by saying so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ask;
use super::draft::Draft;
use super::event::{Event, Want};
use super::ids::JobName;
use super::job::{Job, Phase};
use super::life::{News, counts_as_up, tell};
use super::outcome::{Asked, Outcome};
use super::reload::{self, ReloadPlan};
use super::restart::{in_words, lasted};
use super::spec::{JobSpec, Kind};
use super::state::State;
use super::time::{Millis, Stamp};

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
    pub pending: std::collections::BTreeSet<JobName>,
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

impl State {
    /// When the saga under way has to be looked at, if nothing happens before.
    pub(super) fn saga_deadline(&self) -> Option<Stamp> {
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
        Phase::Fatal { why } => Rise::Broken(why.clone()),
        Phase::Stopped
        | Phase::Waiting
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
        Phase::Waiting | Phase::Starting { .. } | Phase::Running { .. } | Phase::Backoff { .. } => true,
        Phase::Stopping { stop, .. } => stop.then_start,
        Phase::Leftovers { .. } => job.want == Want::Up,
        Phase::Stopped | Phase::Exited | Phase::Fatal { .. } => false,
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
pub(super) fn reload(d: &mut Draft<'_>, specs: &[JobSpec], by: &Asked, within: Millis) {
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
pub(super) fn start(d: &mut Draft<'_>, jobs: &[JobName], by: &Asked, within: Millis) {
    if d.base.sagas.open.is_some() {
        return;
    }
    let mut all = true;
    for job in jobs {
        all &= ask::may_start(d, job);
    }
    if !all {
        return;
    }
    ask::start(d, jobs, by);
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
pub(super) fn follow(d: &mut Draft<'_>) {
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
        Event::GaveUp { job, why } => (job, why.clone()),
        _ => return None,
    };
    let step = saga.plan.steps.get(job).filter(|step| step.must)?;
    // An end of the run before is none of ours.
    let ours = d.base.job(job).is_some_and(|job| job.attempt > step.attempt);
    ours.then(|| Broken { job: Some(job.clone()), why })
}

/// The time of the saga may have come: steps that are done, the end, the time limit, the undo.
pub(super) fn due(d: &mut Draft<'_>) {
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

/// Settings as they are handed in.
pub(super) type Before = Option<Arc<Vec<JobSpec>>>;
