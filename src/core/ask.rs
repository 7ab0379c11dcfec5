//! What operators ask for, and the words they get back.

use std::collections::BTreeSet;

use super::circuit;
use super::draft::Draft;
use super::effect::Effect;
use super::event::{Event, Want};
use super::ids::JobName;
use super::job::Phase;
use super::life::{News, tell};
use super::outcome::Asked;
use super::queue;
use super::spec::{JobSpec, KillScope};
use super::view::Shown;

pub(super) fn start(d: &mut Draft<'_>, jobs: &[JobName], force: bool, by: &Asked) {
    for job in jobs {
        if may_start(d, job, force) {
            start_one(d, job, by);
        }
    }
}

pub(super) fn restart(d: &mut Draft<'_>, jobs: &[JobName], by: &Asked) {
    for job in jobs {
        if !may_start(d, job, false) {
            continue;
        }
        let lives = d.job(job).is_some_and(|job| {
            matches!(job.phase, Phase::Starting { .. } | Phase::Running { .. } | Phase::Leftovers { .. })
        });
        if lives {
            want(d, job, Want::Up, by);
            tell(d, job, &News::Halt { by, then_start: true });
            d.answer(job, true, "restarting");
        } else {
            start_one(d, job, by);
        }
    }
}

pub(super) fn stop(d: &mut Draft<'_>, jobs: &[JobName], by: &Asked) {
    for job in jobs {
        let Some(known) = d.job(job) else {
            d.refuse(job, "no such job");
            continue;
        };
        let (shown, wanted) = (known.shown(), known.want == Want::Up);
        if wanted {
            want(d, job, Want::Down, by);
        }
        match shown {
            Shown::Stopped | Shown::Exited => d.answer(job, wanted, "not running"),
            Shown::Waiting | Shown::Queued | Shown::Backoff | Shown::Held | Shown::Fatal => {
                d.answer(job, true, "stopped");
            }
            Shown::Stopping => d.answer(job, wanted, "already stopping"),
            Shown::Starting | Shown::Running | Shown::Frozen => {
                tell(d, job, &News::Halt { by, then_start: false });
                d.answer(job, true, "stopping");
            }
        }
        // Leftovers that are only waited for show as stopping, but nothing stops them yet.
        if d.job(job).is_some_and(|job| matches!(job.phase, Phase::Leftovers { ladder: None, .. })) {
            tell(d, job, &News::Halt { by, then_start: false });
        }
    }
}

pub(super) fn signal(d: &mut Draft<'_>, job: &JobName, (signal, scope): (i32, KillScope), by: &Asked) {
    let Some(known) = d.job(job) else {
        d.refuse(job, "no such job");
        return;
    };
    let (run, rest) = match &known.phase {
        Phase::Running { run, .. } | Phase::Stopping { run, process: Some(_), .. } => (*run, false),
        Phase::Leftovers { run, .. } => (*run, true),
        Phase::Starting { .. } | Phase::Stopping { process: None, .. } => {
            d.refuse(job, "still starting, try again");
            return;
        }
        Phase::Stopped
        | Phase::Waiting
        | Phase::Queued
        | Phase::Backoff { .. }
        | Phase::Held { .. }
        | Phase::Exited
        | Phase::Fatal { .. } => {
            d.refuse(job, "not running");
            return;
        }
    };
    if !d.working() {
        d.refuse(job, "still recovering, try again");
        return;
    }
    let scope = match scope {
        KillScope::Tree | KillScope::Group => scope,
        KillScope::Mixed | KillScope::Process if rest => KillScope::Tree,
        KillScope::Mixed | KillScope::Process => KillScope::Process,
    };
    let name = super::signal::name(signal).map_or_else(|| signal.to_string(), str::to_owned);
    let (verb, job_name) = ("signal".to_owned(), Some(job.clone()));
    d.record(Event::Acted { verb, job: job_name, detail: name, by: by.clone() });
    d.effect(Effect::Signal { run, signal, scope, cont: false, asked: by.clone(), rung: None });
    d.answer(job, true, "signalled");
}

/// A job given at run time. Its name may be that of an earlier submitted job which is over.
pub(super) fn submit(d: &mut Draft<'_>, spec: &JobSpec, entry: queue::Entry, by: &Asked) {
    let job = &spec.name;
    if d.ending() {
        d.refuse(job, "the instance is shutting down");
        return;
    }
    if let Some(known) = d.job(job) {
        let over = known.submitted && !known.removed && known.is_finished();
        if !over {
            d.refuse(
                job,
                format!("there is a job {job} already; the name of a submitted job is free again when that is over"),
            );
            return;
        }
    }
    d.record(Event::JobSubmitted { spec: Box::new(spec.clone()), by: by.clone() });
    d.bring_spec(spec);
    queue::enter(d, spec, entry);
    pull_up(d, job, by);
    tell(d, job, &News::Start);
    queue::give_turns(d);
    say_started(d, job);
}

/// Whether an operator may start it. `force`: also while its circuit is open.
pub(super) fn may_start(d: &mut Draft<'_>, job: &JobName, force: bool) -> bool {
    let spec = d.spec(job);
    let why = match (d.job(job), &spec) {
        (None, _) => "no such job".to_owned(),
        (Some(_), _) if d.ending() => "the instance is shutting down".to_owned(),
        (Some(known), _) if known.removed => "it has left the configuration".to_owned(),
        (Some(_), None) => "its settings are not known yet".to_owned(),
        (Some(known), Some(spec)) => match circuit::refuses(spec, known, d.now).filter(|_| !force) {
            Some(why) => why,
            None => return true,
        },
    };
    d.refuse(job, why);
    false
}

fn start_one(d: &mut Draft<'_>, job: &JobName, by: &Asked) {
    let Some(known) = d.job(job) else { return };
    match known.shown() {
        Shown::Running | Shown::Frozen => d.answer(job, false, "already running"),
        Shown::Starting => d.answer(job, false, "already starting"),
        Shown::Queued => d.answer(job, false, "already queued"),
        Shown::Stopping => {
            want(d, job, Want::Up, by);
            d.answer(job, true, "starts again when it has stopped");
        }
        Shown::Waiting => {
            pull_up(d, job, by);
            say_started(d, job);
        }
        Shown::Stopped | Shown::Backoff | Shown::Held | Shown::Exited | Shown::Fatal => {
            want(d, job, Want::Up, by);
            pull_up(d, job, by);
            tell(d, job, &News::Start);
            // What is said of it is what becomes of it.
            queue::give_turns(d);
            say_started(d, job);
        }
    }
}

/// Starts what the job depends on, however far away, unless it is wanted already.
fn pull_up(d: &mut Draft<'_>, job: &JobName, by: &Asked) {
    let mut seen = BTreeSet::from([job.clone()]);
    let mut todo: Vec<JobName> = d.spec(job).map(|spec| spec.depends_on.clone()).unwrap_or_default();
    let mut found = Vec::new();
    while let Some(dep) = todo.pop() {
        if !seen.insert(dep.clone()) {
            continue;
        }
        todo.extend(d.spec(&dep).map(|spec| spec.depends_on.clone()).unwrap_or_default());
        found.push(dep);
    }
    for dep in &found {
        let down = d
            .job(dep)
            .is_some_and(|job| !job.removed && (job.want == Want::Down || job.phase == Phase::Stopped));
        if down && d.spec(dep).is_some() {
            want(d, dep, Want::Up, by);
            tell(d, dep, &News::Start);
        }
    }
}

fn want(d: &mut Draft<'_>, job: &JobName, want: Want, by: &Asked) {
    d.record(Event::WantSet { job: job.clone(), want, by: by.clone() });
}

fn say_started(d: &mut Draft<'_>, job: &JobName) {
    let phase = d.job(job).map(|job| &job.phase);
    if phase == Some(&Phase::Queued) {
        d.answer(job, true, "queued");
        return;
    }
    let waits = phase == Some(&Phase::Waiting);
    let text = match (waits, d.working()) {
        (false, _) => "starting".to_owned(),
        (true, false) => "starts when it is known what survived".to_owned(),
        (true, true) => {
            let deps = d.spec(job).map(|spec| spec.depends_on.clone()).unwrap_or_default();
            let names: Vec<&str> = deps.iter().map(JobName::as_str).collect();
            if let Some(why) = &d.instance.held {
                format!("starts are held: {why}")
            } else if d.has_orphan(job) {
                "waiting for the end of a run that is not accounted for".to_owned()
            } else {
                format!("waiting for {}", names.join(", "))
            }
        }
    };
    d.answer(job, true, text);
}
