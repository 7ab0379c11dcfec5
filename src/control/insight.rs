//! Recoveries and alerts: what has become of incidents, and what somebody should look at.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use chrono::DateTime;

use super::Shared;
use super::error::Failure;
use super::params::Params;
use super::status::known;
use super::when::now_us;
use crate::core::ids::JobName;
use crate::core::spec::Kind;
use crate::supervisor::handle::View;
use crate::wire::control::{JobStatus, StateWord, StatsView, WantWord};
use crate::wire::insight::{AlertView, AlertsView, CauseView, PatternView, RecoveryMetrics};

/// Patterns that are told.
const PATTERNS_MAX: usize = 5;

pub(crate) async fn alerts(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<AlertsView>, Failure> {
    params.only(&[])?;
    let view = known(&shared)?;
    let recent = view.insight.alerts.cleared.iter().map(AlertView::from).collect();
    Ok(Json(AlertsView { raised: raised(&view), recent }))
}

/// What is raised, recorded or not.
pub(crate) fn raised(view: &View) -> Vec<AlertView> {
    let insight = &view.insight;
    let same = |other: &crate::core::alerts::Raised| {
        insight.alerts.raised.iter().any(|raised| {
            (&raised.alert.id, &raised.alert.subject) == (&other.alert.id, &other.alert.subject)
        })
    };
    let unrecorded = insight.unrecorded.iter().filter(|other| !same(other));
    insight.alerts.raised.iter().chain(unrecorded).map(AlertView::from).collect()
}

pub(crate) async fn recovery(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<RecoveryMetrics>, Failure> {
    params.only(&[])?;
    let view = known(&shared)?;
    let start = shared.handle.start.borrow().clone();
    let integrity =
        start.assessment.as_ref().map_or_else(|| start.integrity_percent(), |all| all.integrity_percent);
    // A hundred thousand jobs are some milliseconds.
    let made = tokio::task::spawn_blocking(move || of(&view, integrity)).await;
    made.map(Json).map_err(|_| Failure::internal("the figures could not be put together"))
}

#[expect(clippy::cast_precision_loss, reason = "shares and means for people")]
fn of(view: &View, integrity_percent: f64) -> RecoveryMetrics {
    let recoveries = &view.insight.recoveries;
    let totals = &recoveries.totals;
    let all = totals.all();
    let mean = |n: u64, ms: u64| (n > 0).then(|| rounded(ms as f64 / 1000.0 / n as f64));
    let by_cause = totals.by_cause.iter().map(|(cause, tally)| {
        let mean_seconds = mean(tally.recovered, tally.sum_ms);
        (
            cause.as_str().to_owned(),
            CauseView { recovered: tally.recovered, failed: tally.failed, mean_seconds },
        )
    });
    let over = all.recovered + all.failed;
    let percentile = |percent| totals.percentile(percent).map(|ms| f64::from(ms) / 1000.0);
    let [read, lost, _] = view.insight.entries;
    let (mut up, mut wanted) = (0, 0);
    for job in view.jobs.values() {
        let Some((job_up, job_wanted)) = availability(job, &super::stats::of(view, job), view) else {
            continue;
        };
        (up, wanted) = (up + job_up, wanted + job_wanted);
    }
    RecoveryMetrics {
        recovery_success_rate: (over > 0).then(|| all.recovered as f64 / over as f64),
        by_cause: by_cause.collect(),
        mean_seconds: mean(all.recovered, all.sum_ms),
        p95_seconds: percentile(95),
        p99_seconds: percentile(99),
        recovered: all.recovered,
        failed: all.failed,
        open: recoveries.open().len() as u64,
        data_loss_percent: share(lost, read + lost),
        integrity_percent,
        availability_percent: if wanted == 0 { 100.0 } else { share(up, wanted) },
        alerts: raised(view),
        common_failure_patterns: patterns(view),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 * 100.0 / of as f64 }
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// How long a service was up and how long it was wanted, in milliseconds, since it is known. `None` for a task, whose
/// work has an end, and for what was never wanted.
pub(crate) fn availability(job: &JobStatus, stats: &StatsView, view: &View) -> Option<(u64, u64)> {
    if job.kind != Kind::Service {
        return None;
    }
    let down = stats.down_ms.saturating_add(down_now(job, view).unwrap_or(0));
    let wanted = stats.uptime_ms.saturating_add(down);
    (wanted > 0).then_some((stats.uptime_ms, wanted))
}

/// How long it has been wanted without a run by now.
fn down_now(job: &JobStatus, view: &View) -> Option<u64> {
    let down = match job.state {
        StateWord::Waiting | StateWord::Queued | StateWord::Backoff | StateWord::Held | StateWord::Fatal => {
            true
        }
        StateWord::Starting | StateWord::Stopped => job.pid.is_none(),
        StateWord::Running | StateWord::Frozen | StateWord::Stopping | StateWord::Exited => false,
    };
    if !down || job.want != WantWord::Up {
        return None;
    }
    let ended = job.outcome.as_ref()?.at.as_deref()?;
    let ended = DateTime::parse_from_rfc3339(ended).ok()?.timestamp_millis();
    let wanted = view.stats(&job.name).and_then(|stats| stats.wanted).map(|at| at.wall_us / 1000);
    let since = wanted.map_or(ended, |wanted| wanted.max(ended));
    u64::try_from(now_us() / 1000 - since).ok()
}

/// What the failures of jobs have in common, the most frequent first.
fn patterns(view: &View) -> Vec<PatternView> {
    let mut all: BTreeMap<&str, Vec<JobName>> = BTreeMap::new();
    for job in view.jobs.values() {
        for pattern in &job.patterns {
            all.entry(pattern).or_default().push(job.name.clone());
        }
    }
    let mut all: Vec<PatternView> =
        all.into_iter().map(|(pattern, jobs)| PatternView { pattern: pattern.to_owned(), jobs }).collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.jobs.len()));
    all.truncate(PATTERNS_MAX);
    all
}
