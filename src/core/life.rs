//! The life of one job: a function for each phase, and in each function every kind of news by name.
//!
//! News is an input as far as it concerns one job. A combination that means nothing is listed and
//! answered with nothing, so that a new kind of news does not compile before every phase has an answer.
//! News of a run that is not the job's live run never gets here, see [`news_of_run`].

use super::circuit;
use super::draft::Draft;
use super::effect::Effect;
use super::ends::{End, ended, give_up, tree_gone};
use super::event::{Event, Want};
use super::fault::Fault;
use super::heal;
use super::hook::{self, When};
use super::identity::Identity;
use super::ids::{JobName, RunId};
use super::input::Fact;
use super::job::{Job, Ladder, Phase};
use super::outcome::{Asked, ExitRecord, Outcome, Source};
use super::queue;
use super::restart;
use super::spec::{JobSpec, Kind};
use super::stop;
use super::time::{Millis, Stamp};

/// What a job is told.
#[derive(Debug)]
pub(super) enum News<'a> {
    /// It is wanted: start it if nothing of it lives.
    Start,
    /// Stop what lives of it.
    Halt { by: &'a Asked, then_start: bool },
    /// The keeper started its run.
    Launched { identity: &'a Identity, at: Stamp },
    /// The keeper will never start its run.
    Refused { outcome: &'a Outcome },
    /// The main process of its run has ended. `interrupted`: by our own accident or a reboot.
    Ended { record: &'a ExitRecord, leftovers: bool, interrupted: bool },
    /// Nothing of its run is left.
    TreeGone,
    /// The stop command in progress has ended.
    StopCommandEnded { step: u32, ok: bool },
    /// Its `before_stop` hook has ended.
    HookEnded,
    /// Its run was looked for. `first`: by a new supervisor.
    Found { fact: &'a Fact, first: bool },
    /// Its run has told that it is ready, or was found to be.
    Ready,
    /// Its run asks for more time.
    Extended { until: Stamp },
    /// Its run was found to be unwell.
    Unwell { fault: Fault, why: &'a str },
    /// What its run does has been written down, or cannot be.
    Diagnosed,
    /// Nothing is wrong with its run any more.
    Well,
    /// Its deadline has passed, or what it waits for may be there.
    Due,
}

/// Tells the job that the run belongs to. Old news, that of a run which is over or was never ours,
/// changes nothing; but the keeper may forget a run whose end it tells again.
pub(super) fn news_of_run(d: &mut Draft<'_>, run: RunId, news: &News<'_>) {
    if let Some(name) = d.job_of(run) {
        tell(d, &name, news);
        return;
    }
    match news {
        News::Ended { leftovers, .. } => {
            if *leftovers {
                d.effect(Effect::Disown { run });
            }
            d.effect(Effect::Forget { run });
            orphan_gone(d, run);
        }
        News::TreeGone | News::Refused { .. } => d.effect(Effect::Forget { run }),
        News::Start
        | News::Halt { .. }
        | News::Launched { .. }
        | News::StopCommandEnded { .. }
        | News::HookEnded
        | News::Found { .. }
        | News::Ready
        | News::Extended { .. }
        | News::Unwell { .. }
        | News::Diagnosed
        | News::Well
        | News::Due => {}
    }
}

/// What was reported as an orphan is over, if it was: a job may have waited for that.
pub(super) fn orphan_gone(d: &mut Draft<'_>, run: RunId) {
    let Some(job) = d.orphans().get(&run).cloned() else { return };
    d.record(Event::OrphanGone { run, job: job.clone() });
    if let Some(name) = job.filter(|name| d.job(name).is_some_and(|job| job.phase == Phase::Waiting)) {
        tell(d, &name, &News::Due);
    }
}

/// Tells a job.
pub(super) fn tell(d: &mut Draft<'_>, name: &JobName, news: &News<'_>) {
    let Some(phase) = d.job(name).map(|job| job.phase.clone()) else { return };
    match phase {
        Phase::Stopped | Phase::Held { .. } | Phase::Exited | Phase::Fatal { .. } => resting(d, name, news),
        Phase::Waiting => waiting(d, name, news),
        Phase::Queued => queued(d, name, news),
        Phase::Backoff { until } => backoff(d, name, until, news),
        Phase::Starting { run } => starting(d, name, run, news),
        Phase::Running { run, ready_at, .. } => running(d, name, (run, ready_at), news),
        Phase::Stopping { run, process, ladder, .. } => {
            stopping(d, name, &Stopping { run, started: process.is_some(), ladder }, news);
        }
        Phase::Leftovers { run, ladder, .. } => leftovers(d, name, (run, ladder), news),
    }
}

/// Stopped, held, exited, fatal: only a wish gets it out of there, and a retry that is configured.
fn resting(d: &mut Draft<'_>, name: &JobName, news: &News<'_>) {
    match news {
        News::Start => start(d, name),
        News::Due => restart::retry(d, name),
        News::Halt { .. }
        | News::Launched { .. }
        | News::Refused { .. }
        | News::Ended { .. }
        | News::TreeGone
        | News::StopCommandEnded { .. }
        | News::HookEnded
        | News::Found { .. }
        | News::Ready
        | News::Extended { .. }
        | News::Unwell { .. }
        | News::Diagnosed
        | News::Well => {}
    }
}

fn waiting(d: &mut Draft<'_>, name: &JobName, news: &News<'_>) {
    match news {
        News::Start | News::Due => start(d, name),
        // A stop is a changed wish, and that alone ends the waiting.
        News::Halt { .. }
        | News::Launched { .. }
        | News::Refused { .. }
        | News::Ended { .. }
        | News::TreeGone
        | News::StopCommandEnded { .. }
        | News::HookEnded
        | News::Ready
        | News::Extended { .. }
        | News::Unwell { .. }
        | News::Diagnosed
        | News::Well
        | News::Found { .. } => {}
    }
}

/// In line. Its turn comes by itself; see [`queue::give_turns`].
fn queued(d: &mut Draft<'_>, name: &JobName, news: &News<'_>) {
    match news {
        News::Start => start(d, name),
        News::Due => queue::due(d, name),
        // A stop is a changed wish, and that alone ends the waiting.
        News::Halt { .. }
        | News::Launched { .. }
        | News::Refused { .. }
        | News::Ended { .. }
        | News::TreeGone
        | News::StopCommandEnded { .. }
        | News::HookEnded
        | News::Ready
        | News::Extended { .. }
        | News::Unwell { .. }
        | News::Diagnosed
        | News::Well
        | News::Found { .. } => {}
    }
}

fn backoff(d: &mut Draft<'_>, name: &JobName, until: Stamp, news: &News<'_>) {
    match news {
        News::Start => start(d, name),
        News::Due if until.boot_us <= d.now.boot_us => start(d, name),
        News::Due
        | News::Halt { .. }
        | News::Launched { .. }
        | News::Refused { .. }
        | News::Ended { .. }
        | News::TreeGone
        | News::StopCommandEnded { .. }
        | News::HookEnded
        | News::Ready
        | News::Extended { .. }
        | News::Unwell { .. }
        | News::Diagnosed
        | News::Well
        | News::Found { .. } => {}
    }
}

fn starting(d: &mut Draft<'_>, name: &JobName, run: RunId, news: &News<'_>) {
    match news {
        // The ladder begins when the keeper has answered: before that there is nothing to signal.
        News::Halt { by, then_start } => stop::begin(d, name, run, (by, *then_start)),
        News::Launched { identity, at } => started(d, name, run, (identity, *at)),
        News::Refused { outcome } => {
            let record = never_ran(d, name, run, outcome);
            ended(d, name, &End { record: &record, leftovers: false, interrupted: false });
        }
        News::Ended { record, leftovers, interrupted } => {
            ended(d, name, &End { record, leftovers: *leftovers, interrupted: *interrupted });
        }
        News::Found { fact, first } => match fact {
            Fact::Alive { identity, started } if *first => adopted(d, name, run, (identity, *started)),
            Fact::Alive { identity, started: at } => started(d, name, run, (identity, *at)),
            Fact::Ended { .. } | Fact::Cancelled | Fact::Lost { .. } => found_over(d, name, run, fact),
        },
        // What a run tells before the keeper has answered its start is told again with the survey.
        News::Start
        | News::TreeGone
        | News::StopCommandEnded { .. }
        | News::HookEnded
        | News::Ready
        | News::Extended { .. }
        | News::Unwell { .. }
        | News::Diagnosed
        | News::Well
        | News::Due => {}
    }
}

fn running(d: &mut Draft<'_>, name: &JobName, (run, ready_at): (RunId, Option<Stamp>), news: &News<'_>) {
    match news {
        News::Halt { by, then_start } => stop::begin(d, name, run, (by, *then_start)),
        News::Ended { record, leftovers, interrupted } => {
            ended(d, name, &End { record, leftovers: *leftovers, interrupted: *interrupted });
        }
        News::Found { fact, first } => match fact {
            Fact::Alive { identity, started } if *first => {
                adopted(d, name, run, (identity, *started));
                heal::go_on(d, name);
            }
            Fact::Alive { .. } => heal::go_on(d, name),
            Fact::Ended { .. } | Fact::Cancelled | Fact::Lost { .. } => found_over(d, name, run, fact),
        },
        News::Due => {
            if ready_at.is_some_and(|at| at.boot_us <= d.now.boot_us) {
                match d.spec(name).as_ref().and_then(|spec| spec.ready()) {
                    Some(ready) => heal::not_ready(d, name, run, ready),
                    None => ready_now(d, name, run),
                }
            }
            heal::next(d, name);
            circuit::due(d, name, run);
        }
        News::Ready => {
            if ready_at.is_some() {
                ready_now(d, name, run);
            }
        }
        News::Extended { until } => {
            if ready_at.is_some() {
                d.record(Event::RunExtended { job: name.clone(), run, until: *until });
            }
        }
        News::Unwell { fault, why } => heal::unwell(d, name, run, (*fault, why)),
        News::Diagnosed => heal::diagnosed(d, name),
        News::Well => heal::well(d, name, run),
        // The keeper has answered before; a refusal now is an answer to something else.
        News::Start
        | News::Launched { .. }
        | News::Refused { .. }
        | News::TreeGone
        | News::StopCommandEnded { .. }
        | News::HookEnded => {}
    }
}

fn ready_now(d: &mut Draft<'_>, name: &JobName, run: RunId) {
    d.record(Event::RunReady { job: name.clone(), run });
    circuit::ready(d, name, run);
    release(d, name);
}

/// The phase of that name, without what no decision looks at.
struct Stopping {
    run: RunId,
    started: bool,
    ladder: Option<Ladder>,
}

fn stopping(d: &mut Draft<'_>, name: &JobName, at: &Stopping, news: &News<'_>) {
    let run = at.run;
    match news {
        News::Launched { identity, at: when } if !at.started => {
            record_started(d, name, run, (identity, *when));
            stop::go_on(d, name);
        }
        News::Refused { outcome } if !at.started => {
            let record = never_ran(d, name, run, outcome);
            ended(d, name, &End { record: &record, leftovers: false, interrupted: false });
        }
        News::Ended { record, leftovers, interrupted } => {
            ended(d, name, &End { record, leftovers: *leftovers, interrupted: *interrupted });
        }
        News::StopCommandEnded { step, ok } => stop::command_ended(d, name, (*step, *ok)),
        News::HookEnded => stop::hook_ended(d, name),
        News::Found { fact, .. } => match fact {
            Fact::Alive { identity, started } => {
                record_adopted(d, name, run, (identity, *started));
                stop::go_on(d, name);
            }
            Fact::Ended { .. } | Fact::Cancelled | Fact::Lost { .. } => found_over(d, name, run, fact),
        },
        News::Due => {
            if at.ladder.is_some_and(|ladder| ladder.until.boot_us <= d.now.boot_us) {
                stop::next(d, name);
            }
        }
        News::Extended { until } => {
            if at.ladder.is_some_and(|ladder| !ladder.kill) {
                d.record(Event::RunExtended { job: name.clone(), run, until: *until });
            }
        }
        // A wish is remembered by the event that carries it; the ladder goes on.
        News::Start
        | News::Halt { .. }
        | News::Launched { .. }
        | News::Refused { .. }
        | News::Ready
        | News::Unwell { .. }
        | News::Diagnosed
        | News::Well
        | News::TreeGone => {}
    }
}

fn leftovers(d: &mut Draft<'_>, name: &JobName, (run, ladder): (RunId, Option<Ladder>), news: &News<'_>) {
    match news {
        News::Halt { by, then_start } => stop::begin(d, name, run, (by, *then_start)),
        News::TreeGone | News::Ended { leftovers: false, .. } => tree_gone(d, name, run),
        News::Found { fact, .. } => match fact {
            Fact::Ended { leftovers: false, .. } | Fact::Cancelled | Fact::Lost { .. } => {
                tree_gone(d, name, run);
            }
            // That the main process lives contradicts what we know; what lives is at most the rest.
            Fact::Ended { leftovers: true, .. } | Fact::Alive { .. } => stop::go_on(d, name),
        },
        News::Due => match ladder {
            Some(ladder) if ladder.until.boot_us <= d.now.boot_us => stop::next(d, name),
            Some(_) => {}
            // The policy about them may have changed.
            None => stop::go_on(d, name),
        },
        News::Start
        | News::Launched { .. }
        | News::Refused { .. }
        | News::Ended { leftovers: true, .. }
        | News::Ready
        | News::Extended { .. }
        | News::Unwell { .. }
        | News::Diagnosed
        | News::Well
        | News::StopCommandEnded { .. }
        | News::HookEnded => {}
    }
}

/// Asks for a run, or waits until that is possible.
pub(super) fn start(d: &mut Draft<'_>, name: &JobName) {
    if d.ending() {
        return;
    }
    let (Some(job), Some(spec)) = (d.job(name), d.spec(name)) else { return };
    if job.removed || job.run().is_some() {
        return;
    }
    let waits = job.phase == Phase::Waiting;
    if d.holding && spec.kind == Kind::Task {
        hold(d, name);
        return;
    }
    // Who stands in line is started from there.
    let now = spec.queue.is_some() || d.instance.held.is_none() && !d.putting_off && d.working();
    if !now || !may_start_now(d, name, &spec) {
        if let Some(why) = hopeless(d, name, &spec) {
            give_up(d, name, &why);
            return;
        }
        if !waits {
            d.record(Event::WaitBegun { job: name.clone() });
        }
        return;
    }
    match &spec.queue {
        Some(queue) => queue::line_up(d, name, &spec, queue),
        None => request(d, name, &spec),
    }
}

/// Whether nothing but its turn stands in the way of a start.
pub(super) fn may_start_now(d: &Draft<'_>, name: &JobName, spec: &JobSpec) -> bool {
    let free = d.job(name).is_some_and(|job| !job.removed && job.run().is_none());
    // Beside an orphan of its own it would run twice.
    free && !d.has_orphan(name) && spec.depends_on.iter().all(|dep| is_up(d, dep))
}

/// Why a submitted task waits for something that will not come by itself. A service, and what is configured, waits all the
/// same: somebody may bring it.
fn hopeless(d: &Draft<'_>, name: &JobName, spec: &JobSpec) -> Option<String> {
    let once = spec.kind == Kind::Task && spec.retry_fatal.is_none();
    let submitted = d.job(name).is_some_and(|job| job.submitted && once);
    let mut deps = spec.depends_on.iter().filter(|_| submitted && d.working());
    deps.find_map(|dep| {
        let (job, dep_spec) = (d.job(dep)?, d.spec(dep)?);
        let task_failed =
            job.phase == Phase::Exited && dep_spec.kind == Kind::Task && !counts_as_up(job, &dep_spec);
        let given_up = matches!(job.phase, Phase::Fatal { retry_at: None, .. });
        (task_failed || given_up).then(|| format!("needs {dep}, which has failed: {}", job.why_it_rests()))
    })
}

/// Asks for a run.
pub(super) fn request(d: &mut Draft<'_>, name: &JobName, spec: &JobSpec) {
    let attempt = d.job(name).map_or(1, |job| job.attempt + 1);
    let run = d.fresh.run_id();
    d.record(Event::RunRequested { job: name.clone(), run, attempt, at: d.now });
    d.effect(Effect::Launch { run, attempt, spec: Box::new(spec.clone()) });
}

/// From here on starts wait.
pub(super) fn hold_starts(d: &mut Draft<'_>, why: &str) {
    if d.instance.held.is_none() {
        d.record(Event::StartsHeld { why: why.to_owned() });
    }
}

/// What waited only for that is started.
pub(super) fn release_starts(d: &mut Draft<'_>) {
    if d.instance.held.is_none() {
        return;
    }
    d.record(Event::StartsReleased);
    for name in d.names() {
        if d.job(&name).is_some_and(|job| job.phase == Phase::Waiting) {
            tell(d, &name, &News::Due);
        }
    }
}

/// Does not start a task of which a run may be among what is missing.
pub(super) fn hold(d: &mut Draft<'_>, name: &JobName) {
    let why = "entries of the event log are missing, perhaps those of its run; start it if it has not run";
    d.record(Event::Held { job: name.clone(), why: why.to_owned() });
}

/// Whether those that depend on it may start.
fn is_up(d: &Draft<'_>, dep: &JobName) -> bool {
    let (Some(job), Some(spec)) = (d.job(dep), d.spec(dep)) else { return false };
    counts_as_up(job, &spec)
}

/// Whether a job is up for those that depend on it: a service past its start grace, a task that has done
/// its work. A task that is still at work is what they wait for.
pub(super) fn counts_as_up(job: &Job, spec: &JobSpec) -> bool {
    match &job.phase {
        Phase::Running { ready_at, .. } => spec.kind == Kind::Service && ready_at.is_none(),
        Phase::Exited => {
            let well = job.last.as_ref().is_some_and(|last| restart::well(spec, last));
            spec.kind == Kind::Task && well
        }
        Phase::Stopped
        | Phase::Waiting
        | Phase::Queued
        | Phase::Starting { .. }
        | Phase::Stopping { .. }
        | Phase::Leftovers { .. }
        | Phase::Backoff { .. }
        | Phase::Held { .. }
        | Phase::Fatal { .. } => false,
    }
}

/// A job came up: what waits for it may start.
pub(super) fn release(d: &mut Draft<'_>, name: &JobName) {
    for other in d.dependents(name) {
        if d.job(&other).is_some_and(|job| job.phase == Phase::Waiting) {
            tell(d, &other, &News::Due);
        }
    }
}

fn started(d: &mut Draft<'_>, name: &JobName, run: RunId, process: (&Identity, Stamp)) {
    record_started(d, name, run, process);
    if d.job(name).is_some_and(|job| matches!(job.phase, Phase::Running { ready_at: None, .. })) {
        release(d, name);
    }
}

fn record_started(d: &mut Draft<'_>, name: &JobName, run: RunId, (identity, at): (&Identity, Stamp)) {
    let (grace, awaits) = coming_up(d, name);
    d.record(Event::RunStarted { job: name.clone(), run, identity: identity.clone(), at, grace, awaits });
    circuit::begin_trial(d, name, run, at);
    hook::run(d, name, When::AfterStart, Some(run));
}

fn adopted(d: &mut Draft<'_>, name: &JobName, run: RunId, process: (&Identity, Stamp)) {
    record_adopted(d, name, run, process);
    // Wished away while its start was under way or while no supervisor was there to hear it.
    if d.job(name).is_some_and(|job| job.want == Want::Down) {
        stop::begin(d, name, run, (&Asked::Policy { rule: "not wanted".to_owned() }, false));
    }
}

pub(super) fn record_adopted(
    d: &mut Draft<'_>,
    name: &JobName,
    run: RunId,
    (identity, started): (&Identity, Stamp),
) {
    let (grace, awaits) = coming_up(d, name);
    // Nobody was there when it started.
    let first_heard_of = d.job(name).is_some_and(|job| job.pid().is_none());
    let identity = identity.clone();
    d.record(Event::RunAdopted { job: name.clone(), run, identity, started, grace, awaits });
    circuit::begin_trial(d, name, run, started);
    if first_heard_of {
        hook::run(d, name, When::AfterStart, Some(run));
    }
}

/// How long a run counts as starting, and whether it has to tell that it is ready.
fn coming_up(d: &Draft<'_>, name: &JobName) -> (Millis, bool) {
    match d.spec(name) {
        Some(spec) => spec.ready().map_or((spec.start_grace, false), |ready| (ready.timeout, true)),
        None => (Millis(0), false),
    }
}

/// The survey says that a run is over.
fn found_over(d: &mut Draft<'_>, name: &JobName, run: RunId, fact: &Fact) {
    let outcome = match fact {
        Fact::Ended { record, leftovers } => {
            ended(d, name, &End { record, leftovers: *leftovers, interrupted: false });
            return;
        }
        Fact::Cancelled => Outcome::Cancelled,
        Fact::Lost { why } => Outcome::Lost { why: why.clone() },
        Fact::Alive { .. } => return,
    };
    let mut record = never_ran(d, name, run, &outcome);
    record.source = Source::None;
    record.started = match d.job(name).map(|job| &job.phase) {
        Some(Phase::Running { process, .. } | Phase::Stopping { process: Some(process), .. }) => {
            Some(process.started)
        }
        _ => None,
    };
    ended(d, name, &End { record: &record, leftovers: false, interrupted: true });
}

/// The record of a run that has none, because it never had a process or nobody could write one.
fn never_ran(d: &Draft<'_>, name: &JobName, run: RunId, outcome: &Outcome) -> ExitRecord {
    let asked = match d.job(name).map(|job| &job.phase) {
        Some(Phase::Stopping { stop, .. }) => stop.by.clone(),
        _ => Asked::Nobody,
    };
    ExitRecord {
        v: 1,
        run,
        job: name.clone(),
        outcome: outcome.clone(),
        source: Source::Keeper,
        asked,
        started: None,
        ended: d.now,
        rusage: None,
        stdout_bytes: 0,
        stderr_bytes: 0,
        dropped_bytes: 0,
        output_complete: true,
    }
}
