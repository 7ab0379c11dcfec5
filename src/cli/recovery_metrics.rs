//! `outlive recover metrics`.

use super::error::Fail;
use super::table::table;
use super::{Ctx, code};
use crate::wire::insight::RecoveryMetrics;

pub(crate) async fn metrics(json: bool, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let metrics = ctx.client.recovery_metrics().await?;
    if json {
        ctx.out.json(&metrics)?;
        return Ok(code::OK);
    }
    for line in lines(&metrics, ctx.out.width) {
        ctx.out.line(&line)?;
    }
    Ok(code::OK)
}

fn lines(of: &RecoveryMetrics, width: Option<usize>) -> Vec<String> {
    let seconds = |s: Option<f64>| s.map_or_else(|| "-".to_owned(), |s| format!("{s:.3} s"));
    let rate = of.recovery_success_rate.map_or_else(String::new, |rate| format!(" ({:.1} %)", rate * 100.0));
    let mut lines = vec![
        format!("incidents: {} recovered, {} failed{rate}, {} open", of.recovered, of.failed, of.open),
        format!(
            "time to recover: mean {}, 95 % within {}, 99 % within {}",
            seconds(of.mean_seconds),
            seconds(of.p95_seconds),
            seconds(of.p99_seconds)
        ),
        format!(
            "availability {:.2} %; event log: {:.2} % lost, integrity {:.2} %",
            of.availability_percent, of.data_loss_percent, of.integrity_percent
        ),
    ];
    let row = |(cause, view): (&String, &crate::wire::insight::CauseView)| {
        let counts = [view.recovered.to_string(), view.failed.to_string()];
        [vec![cause.clone()], counts.to_vec(), vec![seconds(view.mean_seconds)]].concat()
    };
    let rows: Vec<Vec<String>> = of.by_cause.iter().map(row).collect();
    if !rows.is_empty() {
        let cells = table(&["CAUSE", "RECOVERED", "FAILED", "MEAN TIME"], &rows, width);
        lines.extend(cells.into_iter().map(|row| row.concat().trim_end().to_owned()));
    }
    lines.extend(
        of.alerts.iter().map(|alert| format!("alert ({}): {}", alert.severity.as_str(), alert.message)),
    );
    for common in &of.common_failure_patterns {
        let jobs: Vec<&str> = common.jobs.iter().map(crate::core::ids::JobName::as_str).collect();
        lines.push(format!("{}: {}", jobs.join(", "), common.pattern));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::insight::{CauseView, PatternView};

    #[test]
    fn what_became_of_incidents_is_said_in_a_few_lines() {
        let mut metrics = RecoveryMetrics {
            recovery_success_rate: None,
            by_cause: [].into(),
            mean_seconds: None,
            p95_seconds: None,
            p99_seconds: None,
            recovered: 0,
            failed: 0,
            open: 0,
            data_loss_percent: 0.0,
            integrity_percent: 100.0,
            availability_percent: 100.0,
            alerts: Vec::new(),
            common_failure_patterns: Vec::new(),
        };
        let none = lines(&metrics, None);
        assert_eq!(none[0], "incidents: 0 recovered, 0 failed, 0 open");
        assert_eq!(none[1], "time to recover: mean -, 95 % within -, 99 % within -");
        (metrics.recovered, metrics.failed, metrics.recovery_success_rate) = (3, 1, Some(0.75));
        let failed = CauseView { recovered: 3, failed: 1, mean_seconds: Some(0.25) };
        metrics.by_cause.insert("failed".to_owned(), failed);
        let jobs = vec![crate::core::ids::JobName::new("web").unwrap()];
        metrics.common_failure_patterns.push(PatternView { pattern: "dies".to_owned(), jobs });
        let some = lines(&metrics, None);
        assert_eq!(some[0], "incidents: 3 recovered, 1 failed (75.0 %), 0 open");
        let last =
            ["CAUSE   RECOVERED  FAILED  MEAN TIME", "failed  3          1       0.250 s", "web: dies"];
        assert_eq!(some[3..], last);
    }
}
