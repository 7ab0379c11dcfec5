//! What the runs of jobs came to.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::DateTime;

use super::Shared;
use super::error::Failure;
use super::params::Params;
use super::status::{known, pick};
use super::when::now_us;
use crate::core::ids::JobName;
use crate::core::stats::{Cause, Ended};
use crate::core::time::Millis;
use crate::supervisor::handle::View;
use crate::wire::control::{JobStats, JobStatus, RestartTime, RunView, StatsView};

pub(crate) async fn stats(
    State(shared): State<Shared>,
    params: Params,
) -> Result<Json<Vec<JobStats>>, Failure> {
    let params = params.only(&["job"])?;
    let selectors: Vec<&str> = params.all("job").collect();
    let view = known(&shared)?;
    let names: Vec<JobName> =
        if selectors.is_empty() { view.names().cloned().collect() } else { pick(&shared, &selectors)? };
    let one = |name: JobName| Some(JobStats { stats: of(&view, &*view.job(&name)?), name });
    Ok(Json(names.into_iter().filter_map(one).collect()))
}

/// The latest run is in the history; what is counted are the runs before it.
pub(crate) fn of(view: &View, job: &JobStatus) -> StatsView {
    let runs = view.runs(&job.name).unwrap_or_default();
    let latest = runs.last();
    let mut stats = view.stats(&job.name).map(Arc::unwrap_or_clone).unwrap_or_default();
    if let Some(end) = latest.and_then(ended) {
        stats.add(end);
    } else if let Some(uptime) = latest.and_then(|run| lasted(run, now_us() / 1000)) {
        stats.uptime_ms = stats.uptime_ms.saturating_add(uptime);
        stats.longest_ms = stats.longest_ms.max(uptime);
    }
    let percentile = |percent| stats.restart_percentile(percent);
    let restart_time = percentile(50).map(|p50_ms| RestartTime {
        samples: stats.restarts_ms.len(),
        p50_ms,
        p95_ms: percentile(95).unwrap_or(p50_ms),
        p99_ms: percentile(99).unwrap_or(p50_ms),
    });
    StatsView {
        starts: if latest.is_some() { job.restarts + 1 } else { 0 },
        exits: stats.exits,
        uptime_ms: stats.uptime_ms,
        longest_uptime_ms: stats.longest_ms,
        down_ms: stats.down_ms,
        max_rss_kib: stats.max_rss_kib,
        restart_time,
    }
}

fn ended(run: &RunView) -> Option<Ended> {
    let (cause, end) = (run.cause?, run.ended.as_deref().and_then(ms)?);
    let known = !matches!(cause, Cause::Lost | Cause::Refused);
    let uptime = if known { lasted(run, end).unwrap_or(0) } else { 0 };
    Some(Ended { cause, uptime: Millis(uptime), max_rss_kib: run.rusage.map_or(0, |r| r.max_rss_kib) })
}

fn lasted(run: &RunView, until_ms: i64) -> Option<u64> {
    if run.ended.is_some() && run.cause.is_none() {
        return None;
    }
    u64::try_from(until_ms - run.started.as_deref().and_then(ms)?).ok()
}

fn ms(text: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_millis())
}
