//! Metrics of recoveries, alerts and the event log.

use super::metrics::{Kind, Page, thousandths};
use crate::core::recoveries::BOUNDS_MS;
use crate::journal::inspect;
use crate::supervisor::handle::View;
use crate::wire::control::{JobStatus, StatsView};

pub(crate) fn instance(page: &mut Page, view: &View) {
    use Kind::{Counter, Gauge};
    let mut alerts = page.metric("outlive_alert", Gauge, "1 for each alert that is raised.");
    for alert in super::insight::raised(view) {
        let labels =
            [("id", &*alert.id), ("subject", &*alert.subject), ("severity", alert.severity.as_str())];
        alerts.is(&labels, 1);
    }
    let [read, lost, damaged] = view.insight.entries;
    let help = "Entries of the event log that this supervisor has read when it began.";
    page.one("outlive_journal_entries_read", Gauge, help, read);
    let help = "Entries of the event log that were missing when this supervisor began.";
    page.one("outlive_journal_entries_lost", Gauge, help, lost);
    let help = "Entries of the event log that were not what was written when this supervisor began.";
    page.one("outlive_journal_entries_damaged", Gauge, help, damaged);
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    let ratio = if lost == 0 { 0.0 } else { lost as f64 / (read + lost) as f64 };
    page.one("outlive_data_loss_ratio", Gauge, "Missing entries of all entries of the event log.", ratio);
    let help = "Writes of the event log that failed, or took longer than 10 s, since this supervisor began.";
    page.one("outlive_journal_sync_failures_total", Counter, help, view.insight.failed_writes);
    files(page, view);
    recoveries(page, view);
}

/// The files of the event log.
fn files(page: &mut Page, view: &View) {
    let sizes = inspect::sizes(std::path::Path::new(&view.instance.state_dir)).unwrap_or_default();
    page.one("outlive_journal_segments", Kind::Gauge, "Files of the event log.", sizes.segments);
    page.one(
        "outlive_journal_bytes",
        Kind::Gauge,
        "Bytes in the files of the event log.",
        sizes.segment_bytes,
    );
    let help = "How old the newest checkpoint is.";
    let mut age = page.metric("outlive_journal_checkpoint_age_seconds", Kind::Gauge, help);
    if let Some(made) = sizes.checkpoint_made_us {
        let ms = super::when::now_us().saturating_sub(made) / 1000;
        age.is(&[], thousandths(u64::try_from(ms).unwrap_or(0)));
    }
}

fn recoveries(page: &mut Page, view: &View) {
    let totals = &view.insight.recoveries.totals;
    let help = "Incidents that are over, by what they began with and what became of them.";
    let mut over = page.metric("outlive_recoveries_total", Kind::Counter, help);
    for (cause, tally) in &totals.by_cause {
        for (result, n) in [("recovered", tally.recovered), ("failed", tally.failed)] {
            over.is(&[("cause", cause.as_str()), ("result", result)], n);
        }
    }
    let help = "How long it was from the beginning of an incident until the job was up again.";
    let mut times = page.metric("outlive_recovery_seconds", Kind::Histogram, help);
    let mut sum = 0;
    for (n, count) in totals.buckets.iter().enumerate() {
        sum += count;
        let bound = BOUNDS_MS.get(n).map_or_else(|| "+Inf".to_owned(), |ms| seconds(*ms));
        times.part("_bucket", &[("le", &bound)], sum);
    }
    times.part("_sum", &[], thousandths(totals.all().sum_ms));
    times.part("_count", &[], sum);
}

/// Without needless zeros, as bounds are written.
fn seconds(ms: u64) -> String {
    let text = thousandths(ms);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(crate) fn jobs(page: &mut Page, view: &View, stats: &[(&JobStatus, StatsView)]) {
    use Kind::Gauge;
    let mut open = page.metric("outlive_job_incident", Gauge, "1 while an incident of the job is not over.");
    for (job, _) in view.insight.recoveries.open() {
        open.is(&[("job", job.as_str())], 1);
    }
    let help = "How long the service was up of the time it was wanted, since it is known.";
    let mut up = page.metric("outlive_availability_ratio", Gauge, help);
    for (job, stats) in stats {
        let Some((time_up, wanted)) = super::insight::availability(job, stats, view) else { continue };
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        up.is(&[("job", job.name.as_str())], time_up as f64 / wanted as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_as_people_do() {
        let bounds: Vec<String> = BOUNDS_MS.iter().map(|ms| seconds(*ms)).collect();
        assert_eq!(bounds, ["0.1", "0.25", "0.5", "1", "2.5", "5", "10", "30", "60", "300"]);
    }
}
