//! Stopping: the ladder of one run, and the order in which everything stops.
//!
//! A ladder's rungs are the job's `stop` steps and then `KILL`, repeated until the run is gone: a
//! process in an uninterruptible wait dies when the kernel lets it. The rung is remembered by an event,
//! so a new supervisor goes on at the rung the last one had reached. If its signal was sent by then, it is not sent again
//! and the time of the rung goes on; if not, both begin now. See [`super::rung`]. A stop command and the `before_stop`
//! hook go on without us, so they are asked for once more in any case, and answer for what was begun.
//!
//! While the keeper is away no rung begins. The stop itself is recorded, and the survey that follows
//! makes the ladder go on.

use super::draft::Draft;
use super::effect::Effect;
use super::event::{Event, Want};
use super::hook::{self, When};
use super::ids::{JobName, RunId};
use super::job::{Ladder, Phase, Process};
use super::life::{News, tell};
use super::outcome::Asked;
use super::rung::{Of, Rung as RungId};
use super::signal;
use super::spec::{JobSpec, KillScope, Leftovers, OnFatal, StopAct, StopStep};
use super::time::{Millis, Stamp};

/// Between one `KILL` and the next. Long enough that a large tree has gone by itself.
const KILL_AGAIN: Millis = Millis::from_secs(5);

/// Begins to stop a run, or changes who asked and what follows.
pub(super) fn begin(d: &mut Draft<'_>, name: &JobName, run: RunId, (by, then_start): (&Asked, bool)) {
    d.record(Event::StopBegun { job: name.clone(), run, by: by.clone(), at: d.now, then_start });
    if ladder(d, name).is_none() {
        go_on(d, name);
    }
}

/// Begins the ladder, or goes on at the rung it had reached. The `before_stop` hook comes before the first.
pub(super) fn go_on(d: &mut Draft<'_>, name: &JobName) {
    let Some(reached) = ladder(d, name) else {
        if !take_hook(d, name) {
            take(d, name, 0);
        }
        return;
    };
    if reached.hook {
        if !ask_hook(d, name) {
            take(d, name, reached.step);
        }
    } else if !was_sent(d, name, reached) && !ask_command(d, name, reached) {
        take(d, name, reached.step);
    }
}

/// Whether a survey has found that the signal of the rung that was reached has been sent.
fn was_sent(d: &Draft<'_>, name: &JobName, reached: Ladder) -> bool {
    let Some(target) = target(d, name).filter(|_| !reached.kill && !is_forced(d)) else { return false };
    d.sent.get(&target.run) == Some(&target.rung(reached.step))
}

fn is_forced(d: &Draft<'_>) -> bool {
    d.instance.shutdown.as_ref().is_some_and(|shutdown| shutdown.forced)
}

/// The time of a rung is over.
pub(super) fn next(d: &mut Draft<'_>, name: &JobName) {
    let next = |ladder: Ladder| if ladder.kill || ladder.hook { ladder.step } else { ladder.step + 1 };
    let step = ladder(d, name).map_or(0, next);
    take(d, name, step);
}

/// The `before_stop` hook has ended. Whether well or not makes no difference: the run is to be stopped.
pub(super) fn hook_ended(d: &mut Draft<'_>, name: &JobName) {
    if ladder(d, name).is_some_and(|ladder| ladder.hook) {
        next(d, name);
    }
}

/// Has the `before_stop` hook run, if there is one and a main process for it to talk to. When the time for an orderly
/// shutdown is over, there is none for this either.
fn take_hook(d: &mut Draft<'_>, name: &JobName) -> bool {
    let Some((run, timeout)) = hook_of(d, name) else { return false };
    let (job, until) = (name.clone(), d.now.plus(timeout));
    d.record(Event::StopStepBegun { job, run, step: 0, until, kill: false, hook: true });
    hook::run(d, name, When::BeforeStop, Some(run));
    true
}

/// Asks once more how the hook ends that was begun: its time goes on.
fn ask_hook(d: &mut Draft<'_>, name: &JobName) -> bool {
    let Some((run, _)) = hook_of(d, name) else { return false };
    hook::run(d, name, When::BeforeStop, Some(run));
    true
}

fn hook_of(d: &Draft<'_>, name: &JobName) -> Option<(RunId, Millis)> {
    let Some(Target { run, process: Some(_), .. }) = target(d, name) else { return None };
    let timeout = d.spec(name).and_then(|spec| spec.hook(When::BeforeStop).map(|hook| hook.timeout));
    Some((run, timeout.filter(|_| d.working() && !is_forced(d))?))
}

/// Asks once more how the stop command ends that was begun: its time goes on.
fn ask_command(d: &mut Draft<'_>, name: &JobName, reached: Ladder) -> bool {
    let (Some(target), Some(spec)) = (target(d, name), d.spec(name)) else { return false };
    if reached.kill || is_forced(d) || !d.working() {
        return false;
    }
    let rung = rung(Some(&spec), target.process.is_none(), reached.step);
    let (StopAct::Command(argv), Some(process)) = (&rung.act, &target.process) else { return false };
    let same = rung.step == reached.step;
    if same {
        run_command(d, name, (target.run, rung.step), (argv, rung.timeout), process, &spec);
    }
    same
}

fn run_command(
    d: &mut Draft<'_>,
    name: &JobName,
    (run, step): (RunId, u32),
    (argv, timeout): (&[String], Millis),
    process: &Process,
    spec: &JobSpec,
) {
    d.effect(Effect::RunStopCommand {
        run,
        step,
        job: name.clone(),
        pid: process.identity.pid,
        argv: argv.to_vec(),
        timeout,
        spec: Box::new(spec.clone()),
    });
}

/// A stop command has ended. One that succeeded has asked the job to end, which may take it the rest of
/// the rung's time; after one that failed there is nothing to wait for.
pub(super) fn command_ended(d: &mut Draft<'_>, name: &JobName, (step, ok): (u32, bool)) {
    let Some(at) = ladder(d, name).filter(|at| at.step == step) else { return };
    let spec = d.spec(name);
    let command = spec.as_deref().and_then(|spec| spec.stop.get(at.step as usize));
    if !ok && !at.kill && !at.hook && matches!(command, Some(StopStep { act: StopAct::Command(_), .. })) {
        next(d, name);
    }
}

fn ladder(d: &Draft<'_>, name: &JobName) -> Option<Ladder> {
    match d.job(name).map(|job| &job.phase) {
        Some(Phase::Stopping { ladder, .. } | Phase::Leftovers { ladder, .. }) => *ladder,
        _ => None,
    }
}

/// Whom a ladder is for.
struct Target {
    run: RunId,
    /// The main process; `None` once only leftovers are there.
    process: Option<Process>,
    by: Asked,
    /// Since when it is stopped.
    since: Stamp,
}

impl Target {
    const fn rung(&self, step: u32) -> RungId {
        let since_us = self.since.boot_us;
        let of = if self.process.is_some() { Of::Stop { since_us } } else { Of::Leftovers { since_us } };
        RungId { of, step }
    }
}

fn target(d: &Draft<'_>, name: &JobName) -> Option<Target> {
    let job = d.job(name)?;
    let since = job.last.as_ref().map(|last| last.ended).unwrap_or_default();
    match &job.phase {
        // Before the keeper has answered the start there is nothing to signal.
        Phase::Stopping { run, process: Some(process), stop, .. } => {
            let (process, by) = (Some(process.clone()), stop.by.clone());
            Some(Target { run: *run, process, by, since: stop.since })
        }
        Phase::Leftovers { run, stop: Some(stop), .. } => {
            Some(Target { run: *run, process: None, by: stop.by.clone(), since })
        }
        Phase::Leftovers { run, stop: None, ladder, .. } => {
            // A ladder that has begun is climbed to its end, also when the policy has changed since.
            let waited_for =
                ladder.is_none() && d.spec(name).is_some_and(|spec| spec.leftovers == Leftovers::Wait);
            let by = Asked::Policy { rule: "leftovers".to_owned() };
            (!waited_for).then_some(Target { run: *run, process: None, by, since })
        }
        _ => None,
    }
}

/// One rung, ready to be taken.
struct Rung {
    step: u32,
    act: StopAct,
    scope: KillScope,
    timeout: Millis,
    kill: bool,
}

fn take(d: &mut Draft<'_>, name: &JobName, step: u32) {
    if !d.working() {
        return;
    }
    let Some(target) = target(d, name) else { return };
    let forced = is_forced(d);
    let spec = d.spec(name);
    let rung = rung(spec.as_deref(), target.process.is_none(), if forced { u32::MAX } else { step });
    let (run, scope) = (target.run, if forced { KillScope::Tree } else { rung.scope });
    let (until, id) = (d.now.plus(rung.timeout), (!rung.kill).then(|| target.rung(rung.step)));
    d.record(Event::StopStepBegun {
        job: name.clone(),
        run,
        step: rung.step,
        until,
        kill: rung.kill,
        hook: false,
    });
    match (rung.act, target.process, spec) {
        (StopAct::Signal(signal), _, _) => {
            let cont = signal != signal::KILL;
            d.effect(Effect::Signal { run, signal, scope, cont, asked: target.by, rung: id });
        }
        (StopAct::Command(argv), Some(process), Some(spec)) => {
            run_command(d, name, (run, rung.step), (&argv, rung.timeout), &process, &spec);
        }
        // `rung` gives commands only for a main process, and only from settings.
        (StopAct::Command(_), _, _) => {}
    }
}

/// Which rung this step is. A job without settings gets the default ladder. What a main process left
/// over is reached as a tree, by signals alone: a stop command has no process to talk to any more.
fn rung(spec: Option<&JobSpec>, leftovers: bool, step: u32) -> Rung {
    let fallback = [StopStep { act: StopAct::Signal(signal::TERM), timeout: Millis::from_secs(10) }];
    let steps = spec.map_or(&fallback[..], |spec| &spec.stop);
    let scope = if leftovers { KillScope::Tree } else { spec.map_or(KillScope::Mixed, |s| s.kill_scope) };
    for (i, configured) in (0u32..).zip(steps).skip(step as usize) {
        match &configured.act {
            StopAct::Command(_) if leftovers => {}
            act => {
                let scope = if scope == KillScope::Mixed { KillScope::Process } else { scope };
                return Rung { step: i, act: act.clone(), scope, timeout: configured.timeout, kill: false };
            }
        }
    }
    Rung {
        step: u32::try_from(steps.len()).unwrap_or(u32::MAX),
        act: StopAct::Signal(signal::KILL),
        scope: if scope == KillScope::Mixed { KillScope::Tree } else { scope },
        timeout: KILL_AGAIN,
        kill: true,
    }
}

/// The instance is to end.
pub(super) fn shutdown(d: &mut Draft<'_>, keep_jobs: bool, by: &Asked) {
    let known = d.instance.shutdown.as_ref().map(|shutdown| shutdown.keep_jobs);
    if known.is_none_or(|keeps| keeps != keep_jobs) {
        d.record(Event::ShutdownBegun { keep_jobs, by: by.clone(), code: 0 });
    }
    end_all(d, keep_jobs);
}

/// A job was given up: what that means for everything else. In recovery mode, which somebody is to look
/// into, nothing.
pub(super) fn fatal(d: &mut Draft<'_>, name: &JobName) {
    let on_fatal = d.spec(name).map(|spec| spec.on_fatal).unwrap_or_default();
    if on_fatal == OnFatal::Nothing || d.instance.recovery || d.ending() {
        return;
    }
    let by = Asked::Policy { rule: format!("on_fatal of {name}") };
    if on_fatal == OnFatal::Exit {
        let last = d.job(name).and_then(|job| job.last.as_ref());
        let code = last.map_or(1, |last| last.outcome.shell_code().max(1));
        d.record(Event::ShutdownBegun { keep_jobs: false, by, code });
        end_all(d, false);
        return;
    }
    let wanted = |d: &Draft<'_>, other: &JobName| d.job(other).is_some_and(|job| job.want == Want::Up);
    let others: Vec<JobName> =
        d.names().into_iter().filter(|other| other != name && wanted(d, other)).collect();
    for other in others {
        d.record(Event::WantSet { job: other.clone(), want: Want::Down, by: by.clone() });
        tell(d, &other, &News::Halt { by: &by, then_start: false });
    }
}

/// A shutdown goes on after a survey: whatever is left of it is done, also by another supervisor than the
/// one that began it.
pub(super) fn resume(d: &mut Draft<'_>) {
    if let Some(keep_jobs) = d.instance.shutdown.as_ref().map(|shutdown| shutdown.keep_jobs) {
        end_all(d, keep_jobs);
    }
}

fn end_all(d: &mut Draft<'_>, keep_jobs: bool) {
    if keep_jobs {
        d.effect(Effect::Exit { keep_jobs: true, code: 0 });
        return;
    }
    let mut left = d.names();
    left.retain(|name| d.job(name).is_some_and(|job| job.run().is_some()));
    // Those that nothing live depends on are stopped now, the others when their dependents are gone.
    // What depends on itself in a circle would wait for ever: it is stopped now, too.
    let (mut ready, mut rest): (Vec<_>, Vec<_>) =
        left.into_iter().partition(|name| !d.has_live_dependents(name));
    ready.extend(in_circles(d, &mut rest));
    for name in &ready {
        halt(d, name);
    }
    exit_if_done(d);
}

/// Takes out of `left` what an orderly stop would never reach.
fn in_circles(d: &Draft<'_>, left: &mut Vec<JobName>) -> Vec<JobName> {
    let mut stuck: std::collections::BTreeSet<JobName> = left.drain(..).collect();
    loop {
        let free: Vec<JobName> = stuck
            .iter()
            .filter(|name| !d.dependents(name).iter().any(|other| other != *name && stuck.contains(other)))
            .cloned()
            .collect();
        if free.is_empty() {
            return stuck.into_iter().collect();
        }
        for name in &free {
            stuck.remove(name);
        }
    }
}

fn halt(d: &mut Draft<'_>, name: &JobName) {
    let stopping = match d.job(name).map(|job| &job.phase) {
        Some(Phase::Stopping { .. } | Phase::Leftovers { stop: Some(_), .. }) => true,
        Some(_) => false,
        None => return,
    };
    if !stopping {
        tell(d, name, &News::Halt { by: &Asked::Shutdown, then_start: false });
    }
}

/// A run is over during a shutdown: stop what had to wait for it.
pub(super) fn wind_down(d: &mut Draft<'_>, name: &JobName) {
    if d.instance.shutdown.as_ref().is_none_or(|shutdown| shutdown.keep_jobs) {
        return;
    }
    let deps = d.spec(name).map(|spec| spec.depends_on.clone()).unwrap_or_default();
    for dep in &deps {
        if !d.has_live_dependents(dep) {
            halt(d, dep);
        }
    }
    exit_if_done(d);
}

/// Ends the instance when nothing lives any more.
pub(super) fn exit_if_done(d: &mut Draft<'_>) {
    let orderly = d.instance.shutdown.as_ref().is_some_and(|shutdown| !shutdown.keep_jobs);
    // A survey may be about to take a run back: it asks once more when it is through.
    if orderly && d.live() == 0 && !d.putting_off {
        let code = d.instance.shutdown.as_ref().map_or(0, |shutdown| shutdown.code);
        d.effect(Effect::Exit { keep_jobs: false, code });
    }
}

/// The time for an orderly shutdown is over.
pub(super) fn force(d: &mut Draft<'_>) {
    d.record(Event::ShutdownForced);
    let left: Vec<JobName> = d.base.live.values().cloned().collect();
    for name in &left {
        let before = ladder(d, name);
        halt(d, name);
        if before.is_some() {
            go_on(d, name);
        }
    }
}
