//! `outlive stats`.

use super::Ctx;
use super::args::StatusArgs;
use super::code;
use super::error::Fail;
use super::table::table;
use super::when::length;
use crate::core::stats::Exits;
use crate::wire::control::JobStats;

pub(crate) async fn stats(args: &StatusArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let jobs = ctx.client.stats(&args.jobs).await?;
    if args.json {
        ctx.out.json(&jobs)?;
    } else if jobs.is_empty() {
        ctx.out.line("no jobs")?;
    } else {
        for line in lines(&jobs, ctx.out.width) {
            ctx.out.line(&line)?;
        }
    }
    Ok(code::OK)
}

fn lines(jobs: &[JobStats], width: Option<usize>) -> Vec<String> {
    let headings = ["NAME", "STARTS", "UPTIME", "LONGEST", "PEAK RSS", "RESTART P50/P95/P99", "ENDS"];
    let rows: Vec<Vec<String>> = jobs.iter().map(row).collect();
    table(&headings, &rows, width).into_iter().map(|row| row.concat().trim_end().to_owned()).collect()
}

fn row(job: &JobStats) -> Vec<String> {
    let stats = &job.stats;
    let long = |ms: u64| length(i64::try_from(ms).unwrap_or(i64::MAX));
    let restarts = stats
        .restart_time
        .map_or_else(|| "-".to_owned(), |time| format!("{}/{}/{} ms", time.p50_ms, time.p95_ms, time.p99_ms));
    let rss = if stats.max_rss_kib == 0 {
        "-".to_owned()
    } else {
        format!("{}.{} MiB", stats.max_rss_kib / 1024, stats.max_rss_kib % 1024 * 10 / 1024)
    };
    vec![
        job.name.to_string(),
        stats.starts.to_string(),
        long(stats.uptime_ms),
        long(stats.longest_uptime_ms),
        rss,
        restarts,
        ends(&stats.exits),
    ]
}

/// Only what there was.
fn ends(exits: &Exits) -> String {
    let Exits { ok, failed, signal, oom, asked, unwell, lost, refused } = exits;
    let all = [
        (ok, "ok"),
        (failed, "failed"),
        (signal, "by signal"),
        (oom, "out of memory"),
        (asked, "asked for"),
        (unwell, "unwell"),
        (lost, "lost"),
        (refused, "never started"),
    ];
    let words: Vec<String> =
        all.iter().filter(|(count, _)| **count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::JobName;
    use crate::wire::control::{RestartTime, StatsView};

    #[test]
    fn one_line_a_job_and_nothing_that_never_was() {
        let stats = StatsView {
            starts: 4,
            exits: Exits { ok: 1, lost: 2, ..Exits::default() },
            uptime_ms: 61_000,
            longest_uptime_ms: 5_000,
            down_ms: 0,
            max_rss_kib: 1536,
            restart_time: Some(RestartTime { samples: 3, p50_ms: 20, p95_ms: 110, p99_ms: 110 }),
        };
        let empty = StatsView {
            starts: 0,
            exits: Exits::default(),
            uptime_ms: 0,
            longest_uptime_ms: 0,
            down_ms: 0,
            max_rss_kib: 0,
            restart_time: None,
        };
        let job = |name: &str, stats| JobStats { name: JobName::new(name).unwrap(), stats };
        assert_eq!(
            lines(&[job("a", stats), job("never", empty)], None),
            [
                "NAME   STARTS  UPTIME  LONGEST  PEAK RSS  RESTART P50/P95/P99  ENDS",
                "a      4       1m01s   5s       1.5 MiB   20/110/110 ms        1 ok, 2 lost",
                "never  0       0s      0s       -         -                    -",
            ]
        );
    }
}
