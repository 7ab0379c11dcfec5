//! A configuration as a difference to the one before: only what changed is touched, and an operator's
//! stop stays a stop.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::Draft;
use super::event::{Event, Want};
use super::ids::JobName;
use super::instance::Link;
use super::job::{Job, Phase};
use super::life::{News, tell};
use super::outcome::Asked;
use super::spec::JobSpec;
use super::state::State;
use super::time::Millis;
use super::watch::Watch;

/// What a new configuration means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReloadPlan {
    /// New jobs.
    pub added: Vec<JobName>,
    /// Jobs that are stopped and forgotten.
    pub removed: Vec<JobName>,
    /// Jobs whose run is replaced, because something about the process itself changed.
    pub restarted: Vec<JobName>,
    /// Jobs whose settings change without touching the run.
    pub updated: Vec<JobName>,
    /// Configured jobs that cannot be taken over: a submitted job of that name is not over yet.
    pub blocked: Vec<JobName>,
    /// Jobs left as they are.
    pub unchanged: Vec<JobName>,
}

/// Compares new settings with those in force. A job whose settings in force are not known (a supervisor
/// has just started) counts as unchanged.
#[must_use]
pub fn plan(state: &State, new: &[JobSpec]) -> ReloadPlan {
    let mut plan = ReloadPlan::default();
    let names: BTreeSet<&JobName> = new.iter().map(|spec| &spec.name).collect();
    for spec in new {
        let name = spec.name.clone();
        let list = match state.job(&spec.name) {
            None => &mut plan.added,
            Some(job) if job.removed => &mut plan.added,
            Some(job) if job.submitted && job.is_finished() => &mut plan.added,
            Some(job) if job.submitted => &mut plan.blocked,
            Some(job) => match state.specs.get(&spec.name) {
                None => &mut plan.unchanged,
                Some(old) if **old == *spec => &mut plan.unchanged,
                Some(old) if another_process(old, spec) && is_replaced(job) => &mut plan.restarted,
                Some(_) => &mut plan.updated,
            },
        };
        list.push(name);
    }
    for (name, entry) in &state.jobs {
        let held = state.sagas.removes(name);
        if !entry.job.submitted && !entry.job.removed && !names.contains(name) && !held {
            plan.removed.push(name.clone());
        }
    }
    plan
}

/// A job that runs gets a new run; one that was given up with the old settings gets a try with the new.
fn is_replaced(job: &Job) -> bool {
    matches!(job.phase, Phase::Starting { .. } | Phase::Running { .. } | Phase::Fatal { .. })
        && job.want == Want::Up
}

/// Whether settings differ in what a running process has been given at its start. All settings are
/// named, so that a new one does not compile before it has been sorted to one side.
fn another_process(a: &JobSpec, b: &JobSpec) -> bool {
    let JobSpec {
        name: _,
        kind: _,
        command,
        env,
        inherit_env,
        cwd,
        user,
        group,
        umask,
        rlimits,
        nice,
        oom_score_adj,
        autostart: _,
        restart: _,
        success_codes: _,
        backoff: _,
        start_limit: _,
        start_grace: _,
        stop: _,
        kill_scope: _,
        leftovers: _,
        depends_on: _,
        output,
        stdin,
        on_supervisor_death,
        recovery: _,
        recovery_timeout: _,
        on_fatal: _,
        priority: _,
        watch,
        hooks: _,
        resume_command: _,
        in_group: _,
        retry_fatal: _,
        breaker: _,
        queue: _,
        retries: _,
        key: _,
    } = a;
    *command != b.command
        || *env != b.env
        || *inherit_env != b.inherit_env
        || *cwd != b.cwd
        || *user != b.user
        || *group != b.group
        || *umask != b.umask
        || *rlimits != b.rlimits
        || *nice != b.nice
        || *oom_score_adj != b.oom_score_adj
        || *output != b.output
        || *stdin != b.stdin
        || *on_supervisor_death != b.on_supervisor_death
        || told_at_start(watch.as_deref()) != told_at_start(b.watch.as_deref())
}

/// What of the watching a process has been told, or given, at its start.
fn told_at_start(watch: Option<&Watch>) -> (bool, Option<Millis>, Option<i32>) {
    watch.map_or((false, None, None), |watch| (watch.listens(), watch.heartbeat.notify, watch.ready_fd()))
}

/// Takes a configuration into force. During a shutdown nothing is: the next start reads it.
pub(super) fn configured(d: &mut Draft<'_>, specs: &[JobSpec], by: &Asked) {
    if d.ending() {
        return;
    }
    let plan = plan(d.base, specs);
    apply(d, specs, by, &plan, Removed::Forgotten);
}

/// What becomes of jobs that have left the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removed {
    /// They are forgotten when their run has ended.
    Forgotten,
    /// They are stopped, and kept until it is known whether the configuration stays.
    Held,
}

/// Does what a plan says.
pub(super) fn apply(d: &mut Draft<'_>, specs: &[JobSpec], by: &Asked, plan: &ReloadPlan, removed: Removed) {
    if *by != Asked::Nobody {
        let (verb, detail) = ("reload".to_owned(), String::new());
        d.record(Event::Acted { verb, job: None, detail, by: by.clone() });
    }
    for job in &plan.removed {
        let wanted = d.job(job).is_some_and(|job| job.want == Want::Up);
        match removed {
            Removed::Forgotten => d.record(Event::JobRemoved { job: job.clone() }),
            Removed::Held if wanted => {
                d.record(Event::WantSet { job: job.clone(), want: Want::Down, by: Asked::Reload });
            }
            Removed::Held => {}
        }
    }
    let wants = wants_of_new(specs, &plan.added);
    for (job, want) in &wants {
        if d.job(job).is_some_and(|known| known.submitted) {
            d.record(Event::JobRemoved { job: job.clone() });
        }
        d.record(Event::JobAdded { job: job.clone(), want: *want });
    }
    let base = d.base;
    d.bring_specs(specs, |job| {
        base.sagas.removes(job) || (removed == Removed::Held && plan.removed.contains(job))
    });
    for job in &plan.removed {
        tell(d, job, &News::Halt { by: &Asked::Reload, then_start: false });
    }
    // In recovery mode nothing is started by itself; a reload that somebody asked for is a request.
    let by_itself = *by == Asked::Nobody;
    if d.instance.recovery && by_itself {
        return;
    }
    for job in &plan.restarted {
        if d.job(job).is_some_and(|job| job.run().is_some()) {
            tell(d, job, &News::Halt { by: &Asked::Reload, then_start: true });
        } else {
            d.record(Event::WantSet { job: job.clone(), want: Want::Up, by: Asked::Reload });
            tell(d, job, &News::Start);
        }
    }
    // Before the first survey a wish is enough: that one starts what is wanted. A later one starts what waits.
    if d.instance.link != Link::Recovering {
        for (job, want) in &wants {
            if *want == Want::Up && !d.instance.recovery {
                tell(d, job, &News::Start);
            }
        }
    }
    if d.working() {
        look_again(d);
    }
}

/// Other settings may mean that a job waits no longer.
pub(super) fn look_again(d: &mut Draft<'_>) {
    for job in d.names() {
        let waits = |job: &Job| matches!(job.phase, Phase::Waiting | Phase::Leftovers { ladder: None, .. });
        if d.job(&job).is_some_and(waits) {
            tell(d, &job, &News::Due);
        }
    }
}

/// What is wanted of new jobs: up if they start with the instance, or if a new job that does depends on
/// them, however far away.
pub(super) fn wants_of_new<'a>(specs: &'a [JobSpec], added: &'a [JobName]) -> BTreeMap<JobName, Want> {
    let by_name: BTreeMap<&JobName, &JobSpec> = specs.iter().map(|spec| (&spec.name, spec)).collect();
    let added: BTreeSet<&JobName> = added.iter().collect();
    let mut up: BTreeSet<&JobName> = BTreeSet::new();
    let mut todo: Vec<&JobName> = specs.iter().filter(|spec| spec.autostart).map(|spec| &spec.name).collect();
    while let Some(name) = todo.pop() {
        if added.contains(name) && up.insert(name) {
            todo.extend(by_name.get(name).into_iter().flat_map(|spec| &spec.depends_on));
        }
    }
    added
        .into_iter()
        .map(|name| (name.clone(), if up.contains(name) { Want::Up } else { Want::Down }))
        .collect()
}
