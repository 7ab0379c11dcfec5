//! The restart policy: what follows when a run has ended by itself. Pure functions on times.

use super::circuit;
use super::draft::Draft;
use super::event::Event;
use super::ids::JobName;
use super::job::{Job, Last, Phase, STARTS_MAX};
use super::life;
use super::outcome::{Asked, ExitRecord, Outcome};
use super::spec::{JobSpec, Kind, Recovery, Restart};
use super::time::{Millis, Stamp};

/// Shortest pause before a run is asked for again that the keeper would not start although nothing was
/// wrong with the job: without one, a keeper that always refuses would be asked as fast as it can answer.
const CANCELLED_PAUSE: Millis = Millis(100);

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// Nothing.
    Rest,
    /// The next run, at once.
    Now,
    /// The next run, at this time.
    At(Stamp),
    /// Nothing, because too much was tried already.
    GiveUp(String),
}

/// A job after the end of its run.
pub(super) struct After<'a> {
    /// With the end in `last`, and counted in `failures`.
    pub(super) job: &'a Job,
    /// Whether the end was our own accident, or a reboot.
    pub(super) interrupted: bool,
    /// When somebody last saw it alive, wall clock, if that is known.
    pub(super) seen_us: Option<i64>,
    pub(super) now: Stamp,
}

/// Applies the policy. `chance` is asked only if there is something to wait for.
pub(super) fn after(spec: &JobSpec, end: &After<'_>, chance: impl FnOnce() -> f64) -> Next {
    let Some(last) = &end.job.last else { return Next::Rest };
    if last.outcome == Outcome::Cancelled {
        // It never ran, so no policy about ends applies: it is still to be run.
        let pause = spec.backoff.initial.max(CANCELLED_PAUSE);
        return if end.interrupted { Next::Now } else { Next::At(end.now.plus(pause)) };
    }
    if let Asked::Health { why, again: false, .. } = &last.asked {
        return Next::GiveUp(why.clone());
    }
    let success = well(spec, last);
    if !again(spec, success) {
        return Next::Rest;
    }
    if spec.retries.is_some_and(|retries| end.job.failures > retries) {
        return Next::Rest;
    }
    if end.interrupted {
        return accident(spec, end).map_or(Next::Now, Next::GiveUp);
    }
    let delay = match (circuit::open_for(spec, end.job.failures), delay(spec, end.job.failures)) {
        (Some(open_for), _) => open_for,
        (None, Millis(0)) => Millis(0),
        (None, delay) => with_jitter(delay, spec.backoff.jitter, chance()),
    };
    let at = end.now.plus(delay);
    match limit_reached(spec, end.job, at) {
        Some(why) => Next::GiveUp(why),
        None if delay.0 == 0 => Next::Now,
        None => Next::At(at),
    }
}

/// When a job that is given up is tried again, if it is. Not where somebody has to look: nobody knows how its run
/// ended.
pub(super) fn retry_at(spec: &JobSpec, job: &Job, d: &Draft<'_>) -> Option<Stamp> {
    let lost = job.last.as_ref().is_some_and(|last| matches!(last.outcome, Outcome::Lost { .. }));
    let may = !lost && !d.instance.recovery && !d.ending();
    spec.retry_fatal.filter(|_| may).map(|after| d.now.plus(after))
}

/// A job that was given up is tried again, if its time has come.
pub(super) fn retry(d: &mut Draft<'_>, name: &JobName) {
    let Some(Phase::Fatal { retry_at: Some(at), .. }) = d.job(name).map(|job| &job.phase) else { return };
    if at.boot_us <= d.now.boot_us {
        d.record(Event::Retried { job: name.clone() });
        life::start(d, name);
    }
}

/// A new supervisor, or the end of recovery mode: what was given up and is to be tried again gets a time for it,
/// where it has none.
pub(super) fn renew(d: &mut Draft<'_>, name: &JobName) {
    let (Some(job), Some(spec)) = (d.job(name), d.spec(name)) else { return };
    let Phase::Fatal { why, retry_at: None } = &job.phase else { return };
    let (why, until) = (why.clone(), retry_at(&spec, job, d));
    if until.is_some() {
        d.record(Event::GaveUp { job: name.clone(), why, until });
    }
}

/// Whether, after an end that was our own accident, no other run follows; in words if so.
fn accident(spec: &JobSpec, end: &After<'_>) -> Option<String> {
    let outcome = end.job.last.as_ref().map(|last| last.outcome.describe()).unwrap_or_default();
    match spec.recovery {
        Recovery::Fail => return Some(format!("{outcome}, and recovery is `fail`")),
        Recovery::Manual => return Some(format!("{outcome}: look at it, then start it again")),
        Recovery::Auto => {}
    }
    // A clock that was set back makes it look younger, never older.
    let age = end.now.wall_us.checked_sub(end.seen_us?).and_then(|us| u64::try_from(us / 1000).ok())?;
    let too_old = spec.kind == Kind::Task && age > spec.recovery_timeout.0;
    too_old.then(|| {
        let (age, limit) = (Millis(age / 1000 * 1000), spec.recovery_timeout);
        format!(
            "{outcome}; last seen alive {} ago, and recovery_timeout is {}",
            in_words(age),
            in_words(limit)
        )
    })
}

const fn again(spec: &JobSpec, success: bool) -> bool {
    match spec.restart {
        Restart::Always => true,
        Restart::OnFailure => !success,
        Restart::Never => false,
    }
}

/// How long a run lasted; 0 if it never started.
pub(super) fn lasted(started: Option<Stamp>, ended: Stamp) -> Millis {
    started.map_or(Millis(0), |started| ended.since(started))
}

/// Whether the latest run ended well.
pub(super) fn well(spec: &JobSpec, last: &Last) -> bool {
    !last.asked.is_failure() && succeeded(spec, &last.outcome, lasted(last.started, last.ended))
}

/// Whether a run ended well: a success code, and not before its start grace was over.
fn succeeded(spec: &JobSpec, outcome: &Outcome, lasted: Millis) -> bool {
    match outcome {
        Outcome::Exited { code } => spec.success_codes.contains(code) && lasted >= spec.start_grace,
        Outcome::Signaled { .. }
        | Outcome::OomKilled
        | Outcome::NotStarted { .. }
        | Outcome::Cancelled
        | Outcome::Lost { .. } => false,
    }
}

/// Failures in a row after this end; a run that lasted `reset_after` starts the series anew.
pub(super) fn failures(spec: &JobSpec, before: u32, record: &ExitRecord) -> u32 {
    let lasted = lasted(record.started, record.ended);
    if !record.asked.is_failure() && succeeded(spec, &record.outcome, lasted) {
        0
    } else if record.started.is_some() && lasted >= spec.backoff.reset_after {
        1
    } else {
        before.saturating_add(1)
    }
}

/// The delay after this many failures in a row. After a success it is that of the first failure, so that
/// a service which always exits well does not spin.
pub(super) fn delay(spec: &JobSpec, failures: u32) -> Millis {
    let backoff = &spec.backoff;
    let steps = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
    #[expect(clippy::cast_precision_loss, reason = "a delay beyond 2^53 ms is cut to the maximum anyway")]
    let grown = backoff.initial.0 as f64 * backoff.factor.max(1.0).powi(steps);
    at_most(grown, backoff.max)
}

/// The delay and up to `jitter` of it more.
fn with_jitter(delay: Millis, jitter: f64, chance: f64) -> Millis {
    let share = (jitter.clamp(0.0, 1.0) * chance.clamp(0.0, 1.0) * 1000.0).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    let thousandths = share as u64;
    Millis(delay.0.saturating_add(delay.0.saturating_mul(thousandths) / 1000))
}

fn at_most(ms: f64, max: Millis) -> Millis {
    #[expect(clippy::cast_precision_loss, reason = "compared only")]
    let beyond = !ms.is_finite() || ms >= max.0 as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below max, not negative")]
    if beyond { max } else { Millis(ms.max(0.0) as u64) }
}

/// Whether a start at this time would be one too many; in words if so.
fn limit_reached(spec: &JobSpec, job: &Job, at: Stamp) -> Option<String> {
    let limit = &spec.start_limit;
    let count = (limit.count as usize).min(STARTS_MAX);
    if count == 0 {
        return None;
    }
    let window = limit.within.0.saturating_mul(1000);
    let from = at.boot_us.saturating_sub(window);
    let starts = job.window.iter().rev().take_while(|start| **start > from).count();
    (starts >= count).then(|| format!("{starts} starts within {}", in_words(limit.within)))
}

/// A duration as people write it: `10s`, `1m30s`, `250ms`.
pub(super) fn in_words(d: Millis) -> String {
    let (secs, ms) = (d.0 / 1000, d.0 % 1000);
    match (secs, ms) {
        (0, ms) => format!("{ms}ms"),
        (secs, 0) if secs % 3600 == 0 => format!("{}h", secs / 3600),
        (secs, 0) if secs % 60 == 0 => format!("{}m", secs / 60),
        (secs, 0) if secs < 60 => format!("{secs}s"),
        (secs, 0) => format!("{}m{}s", secs / 60, secs % 60),
        (secs, ms) => format!("{secs}.{ms:03}s"),
    }
}
