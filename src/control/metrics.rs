//! Everything that can be counted, for Prometheus.
//!
//! The text format 0.0.4, as <https://prometheus.io/docs/instrumenting/exposition_formats/> describes it. It is
//! made anew for each request, out of what readers see anyway: nobody pays for metrics that nobody reads. Names
//! end in their unit (seconds, bytes, ratio); what only grows ends in `_total`, and is counted from the event log,
//! so that it goes on over the death of any of us.

use std::fmt::{Display, Write};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use chrono::DateTime;

use super::Shared;
use super::error::Failure;
use super::metrics_of_recovery;
use super::params::Params;
use crate::core::circuit::Circuit;
use crate::supervisor::handle::{JobUsage, Usage, View};
use crate::wire::control::{InstanceState, JobStatus, StateWord, StatsView, WantWord};
use crate::wire::host::HostView;

pub(crate) async fn metrics(State(shared): State<Shared>, params: Params) -> Result<Response, Failure> {
    params.only(&[])?;
    let view = shared.view();
    // A hundred thousand jobs are some milliseconds, and /proc may be slow.
    let page = tokio::task::spawn_blocking(move || page(&view)).await;
    let text = page.map_err(|_| Failure::internal("the metrics could not be put together"))?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Gauge,
    Counter,
    Histogram,
    /// Quantiles alone: of the latest, not of all there ever were, so that a count and a sum would be of others.
    Summary,
}

/// A page in the making.
#[derive(Default)]
pub(crate) struct Page(String);

impl Page {
    /// Begins a metric; its samples follow.
    pub(crate) fn metric(&mut self, name: &'static str, kind: Kind, help: &str) -> Metric<'_> {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        };
        // Nothing refuses to be put into memory.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Metric { page: &mut self.0, name }
    }

    /// A metric of one sample.
    pub(crate) fn one(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.metric(name, kind, help).is(&[], value);
    }
}

pub(crate) struct Metric<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl Metric<'_> {
    pub(crate) fn is(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.part("", labels, value);
    }

    /// A sample whose name has an end of its own, as those of a histogram.
    pub(crate) fn part(&mut self, end: &str, labels: &[(&str, &str)], value: impl Display) {
        self.page.push_str(self.name);
        self.page.push_str(end);
        for (i, (name, text)) in labels.iter().enumerate() {
            let _ = write!(self.page, "{}{name}=\"{}\"", if i == 0 { '{' } else { ',' }, escaped(text));
        }
        let _ = writeln!(self.page, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// A label's value: backslash, quote and newline are escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn page(view: &View) -> String {
    let mut page = Page::default();
    instance(&mut page, view);
    own_processes(&mut page, view);
    metrics_of_recovery::instance(&mut page, view);
    host(&mut page, &view.host);
    if !view.known {
        // Nobody knows yet which jobs there are.
        return page.0;
    }
    jobs_by_state(&mut page, view);
    let stats: Vec<(&JobStatus, StatsView)> =
        view.jobs.values().map(|job| (&**job, super::stats::of(view, job))).collect();
    jobs(&mut page, &stats);
    runs(&mut page, &stats);
    usage(&mut page, view);
    health(&mut page, view);
    metrics_of_recovery::jobs(&mut page, view, &stats);
    page.0
}

fn instance(page: &mut Page, view: &View) {
    use Kind::{Counter, Gauge};
    let instance = &view.instance;
    page.metric("outlive_build_info", Gauge, "Always 1; the label says which build answers.")
        .is(&[("version", &instance.version)], 1);
    page.one("outlive_ready", Gauge, "Whether every wanted job has been asked for.", u8::from(view.ready));
    let mut state = page.metric("outlive_instance_state", Gauge, "1 for the state that the instance is in.");
    for (of, word) in [
        (InstanceState::Recovering, "recovering"),
        (InstanceState::Running, "running"),
        (InstanceState::Recovery, "recovery"),
        (InstanceState::ReadOnly, "read_only"),
        (InstanceState::ShuttingDown, "shutting_down"),
    ] {
        state.is(&[("state", word)], u8::from(instance.state == of));
    }
    let mut degraded =
        page.metric("outlive_degraded", Gauge, "1 for each resource that does not do all it should.");
    let mut resources: Vec<&str> = instance.degraded_resources.iter().map(|mark| &*mark.resource).collect();
    resources.sort_unstable();
    resources.dedup();
    for resource in resources {
        degraded.is(&[("resource", resource)], 1);
    }
    let help = "Whether the configuration file differs from what is in force.";
    page.one("outlive_config_changed", Gauge, help, u8::from(instance.config_changed));
    let help = "Supervisors that this state directory has seen.";
    page.one("outlive_supervisor_starts_total", Counter, help, instance.generation);
    if let Some(since) = seconds(&instance.since) {
        let help = "When this supervisor started, in seconds since 1970.";
        page.one("outlive_supervisor_start_time_seconds", Gauge, help, since);
    }
    page.one("outlive_journal_entries_total", Counter, "Entries of the event log so far.", view.seq);
}

/// The checks of the host and of ourselves.
fn host(page: &mut Page, host: &HostView) {
    use Kind::{Counter, Gauge};
    if host.status.is_empty() {
        return;
    }
    let help = "1 for the state that the check is in.";
    let mut state = page.metric("outlive_health_check", Gauge, help);
    for check in &host.checks {
        state.is(&[("check", &check.name), ("state", &check.state)], 1);
    }
    let help = "How much is in use of what the check looks at, from 0 to 1.";
    let mut value = page.metric("outlive_health_value_ratio", Gauge, help);
    for check in &host.checks {
        if let Some(percent) = check.percent {
            value.is(&[("check", &check.name)], percent / 100.0);
        }
    }
    let help = "The mean of all checks: 100 if all are well, 0 if all have failed.";
    page.one("outlive_health_score", Gauge, help, host.score);
    let help = "What this supervisor has done about failed checks.";
    let mut heals = page.metric("outlive_heals_total", Counter, help);
    for heal in &host.heals {
        let labels = [("check", &*heal.check), ("act", &*heal.act), ("result", &*heal.result)];
        heals.is(&labels, heal.count);
    }
}

/// What we cost ourselves.
fn own_processes(page: &mut Page, view: &View) {
    use Kind::{Counter, Gauge};
    let all = view.own_processes();
    let mut metric = |name, kind, help, value: &dyn Fn(&Usage) -> Option<String>| {
        let mut metric = page.metric(name, kind, help);
        for (role, usage) in &all {
            if let Some(value) = value(usage) {
                metric.is(&[("role", role)], value);
            }
        }
    };
    let help = "CPU time of our own processes.";
    metric("outlive_process_cpu_seconds_total", Counter, help, &|usage| Some(usage.cpu_seconds.to_string()));
    let help = "Resident memory of our own processes.";
    metric("outlive_process_resident_memory_bytes", Gauge, help, &|usage| Some(usage.rss_bytes.to_string()));
    let help = "Threads of our own processes.";
    metric("outlive_process_threads", Gauge, help, &|usage| Some(usage.threads.to_string()));
    let help = "Open descriptors of our own processes.";
    metric("outlive_process_open_fds", Gauge, help, &|usage| usage.open_files.map(|n| n.to_string()));
}

fn jobs_by_state(page: &mut Page, view: &View) {
    let mut metric = page.metric("outlive_jobs", Kind::Gauge, "Jobs by state.");
    for word in StateWord::ALL {
        let awake = view.jobs.values().filter(|job| job.state == word).count();
        // Those at rest are tasks that are over; they have no metrics of their own.
        let rest = if word == StateWord::Exited { view.rest.len() } else { 0 };
        metric.is(&[("state", word.as_str())], awake + rest);
    }
}

fn jobs(page: &mut Page, stats: &[(&JobStatus, StatsView)]) {
    use Kind::Gauge;
    let mut of_each = |name, help, value: &dyn Fn(&JobStatus) -> Option<String>| {
        let mut metric = page.metric(name, Gauge, help);
        for (job, _) in stats {
            if let Some(value) = value(job) {
                metric.is(&[("job", job.name.as_str())], value);
            }
        }
    };
    let number = |truth: bool| Some(u8::from(truth).to_string());
    of_each("outlive_job_up", "Whether the job is running.", &|job| number(job.state == StateWord::Running));
    of_each("outlive_job_wanted", "Whether the job is wanted.", &|job| number(job.want == WantWord::Up));
    let help = "Since when the job is in its state, in seconds since 1970.";
    of_each("outlive_job_state_since_seconds", help, &|job| Some(seconds(&job.since)?.to_string()));
    let help = "How far the run says it is, from 0 to 1.";
    of_each("outlive_job_progress_ratio", help, &|job| {
        let percent = job.progress.as_ref().filter(|_| job.pid.is_some())?.percent?;
        Some((f64::from(percent) / 100.0).to_string())
    });
    let mut state = page.metric("outlive_job_state", Gauge, "1 for the state that the job is in.");
    for (job, _) in stats {
        state.is(&[("job", job.name.as_str()), ("state", job.state.as_str())], 1);
    }
    let help = "1 for the state that the circuit breaker of the job is in.";
    let mut breaker = page.metric("outlive_job_breaker_state", Gauge, help);
    for (job, state) in stats.iter().filter_map(|(job, _)| Some((job, job.breaker?))) {
        for of in Circuit::ALL {
            breaker.is(&[("job", job.name.as_str()), ("state", of.as_str())], u8::from(of == state));
        }
    }
}

/// What live runs use.
fn usage(page: &mut Page, view: &View) {
    use Kind::{Counter, Gauge};
    let all = view.usage();
    let mut metric = |name, kind, help, value: &dyn Fn(&JobUsage) -> Option<String>| {
        let mut metric = page.metric(name, kind, help);
        for (job, usage) in &all {
            if let Some(value) = value(usage) {
                metric.is(&[("job", job.as_str())], value);
            }
        }
    };
    let help = "CPU time of all processes of the live run.";
    metric("outlive_job_cpu_seconds_total", Counter, help, &|usage| {
        let us = usage.processes.cpu_us;
        Some(format!("{}.{:06}", us / 1_000_000, us % 1_000_000))
    });
    let help = "Resident memory of all processes of the live run.";
    metric("outlive_job_resident_memory_bytes", Gauge, help, &|usage| {
        Some(usage.processes.rss_bytes.to_string())
    });
    let help = "The same, with shared pages counted once; of runs without very large processes.";
    metric("outlive_job_proportional_memory_bytes", Gauge, help, &|usage| {
        usage.processes.pss_bytes.map(|n| n.to_string())
    });
    let help = "Processes of the live run.";
    metric("outlive_job_processes", Gauge, help, &|usage| Some(usage.processes.processes.to_string()));
    let help = "Threads of all processes of the live run.";
    metric("outlive_job_threads", Gauge, help, &|usage| Some(usage.processes.threads.to_string()));
    let help = "Open descriptors of all processes of the live run.";
    metric("outlive_job_open_fds", Gauge, help, &|usage| usage.processes.open_files.map(|n| n.to_string()));
    let help = "Bytes that the live run has fetched from storage.";
    metric("outlive_job_read_bytes_total", Counter, help, &|usage| {
        usage.processes.read_bytes.map(|n| n.to_string())
    });
    let help = "Bytes that the live run has sent to storage.";
    metric("outlive_job_written_bytes_total", Counter, help, &|usage| {
        usage.processes.written_bytes.map(|n| n.to_string())
    });
    let help = "Bytes of output of the live run.";
    metric("outlive_job_output_bytes_total", Counter, help, &|usage| Some(usage.output_bytes.to_string()));
}

/// How jobs fare.
fn health(page: &mut Page, view: &View) {
    use Kind::{Counter, Gauge};
    let all = || view.jobs.values().filter_map(|job| Some((job.name.as_str(), job.health.as_deref()?)));
    let help = "1 for how the job fares; absent while it has no run and nothing has failed.";
    let mut verdict = page.metric("outlive_job_health", Gauge, help);
    for (job, health) in all() {
        verdict.is(&[("job", job), ("verdict", health.verdict.as_str())], 1);
    }
    let help = "Since the latest sign of life that is watched, as of the latest look.";
    let mut age = page.metric("outlive_job_heartbeat_age_seconds", Gauge, help);
    for (job, health) in all() {
        let at = health.last_sign.as_deref().and_then(|at| DateTime::parse_from_rfc3339(at).ok());
        if let Some(at) = at {
            let ago = super::when::now_us() / 1000 - at.timestamp_millis();
            age.is(&[("job", job)], thousandths(u64::try_from(ago).unwrap_or(0)));
        }
    }
    let help = "Messages to the notify socket of the live run from somebody who is not of it.";
    let mut rejected = page.metric("outlive_job_notify_rejected_total", Counter, help);
    for (job, health) in all().filter(|(_, health)| health.rejected > 0) {
        rejected.is(&[("job", job)], health.rejected);
    }
}

fn runs(page: &mut Page, stats: &[(&JobStatus, StatsView)]) {
    use Kind::{Counter, Gauge};
    let mut starts = page.metric("outlive_job_starts_total", Counter, "Runs of the job.");
    for (job, stats) in stats {
        starts.is(&[("job", job.name.as_str())], stats.starts);
    }
    let mut exits = page.metric("outlive_job_exits_total", Counter, "Ends of runs of the job, by cause.");
    for (job, stats) in stats {
        let by = &stats.exits;
        for (cause, n) in [
            ("ok", by.ok),
            ("failed", by.failed),
            ("signal", by.signal),
            ("oom", by.oom),
            ("asked", by.asked),
            ("unwell", by.unwell),
            ("lost", by.lost),
            ("refused", by.refused),
        ] {
            exits.is(&[("job", job.name.as_str()), ("cause", cause)], n);
        }
    }
    let help = "How long all runs of the job have lasted, the live one included.";
    let mut uptime = page.metric("outlive_job_uptime_seconds_total", Counter, help);
    for (job, stats) in stats {
        uptime.is(&[("job", job.name.as_str())], thousandths(stats.uptime_ms));
    }
    let help = "From an end, or the request for a restart, to the next start: quantiles of the last 32.";
    let mut restart = page.metric("outlive_job_restart_time_seconds", Kind::Summary, help);
    for (job, stats) in stats {
        let Some(time) = &stats.restart_time else { continue };
        for (quantile, ms) in [("0.5", time.p50_ms), ("0.95", time.p95_ms), ("0.99", time.p99_ms)] {
            let labels = [("job", job.name.as_str()), ("quantile", quantile)];
            restart.is(&labels, thousandths(u64::from(ms)));
        }
    }
    let help = "The largest resident set of an ended run.";
    let mut memory = page.metric("outlive_job_max_resident_memory_bytes", Gauge, help);
    for (job, stats) in stats {
        memory.is(&[("job", job.name.as_str())], stats.max_rss_kib.saturating_mul(1024));
    }
}

/// Milliseconds as seconds, without a rounding error.
pub(crate) fn thousandths(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// Seconds since 1970 of a time in RFC 3339.
fn seconds(time: &str) -> Option<String> {
    let ms = DateTime::parse_from_rfc3339(time).ok()?.timestamp_millis();
    Some(thousandths(u64::try_from(ms).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_what_the_format_says() {
        let mut page = Page::default();
        page.one("a_total", Kind::Counter, "Help.", 7);
        page.metric("b", Kind::Gauge, "More.").is(&[("x", "a\"b\\c\nd"), ("y", "")], thousandths(1005));
        let expected = "# HELP a_total Help.\n# TYPE a_total counter\na_total 7\n\
                        # HELP b More.\n# TYPE b gauge\nb{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 1.005\n";
        assert_eq!(page.0, expected);
    }
}
