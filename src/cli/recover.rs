//! `outlive recover`: what survived, what is done about it, and what the last start did.

use super::args::{RecoverArgs, RecoverWhat};
use super::error::Fail;
use super::table::table;
use super::{Ctx, code};
use crate::client::Error;
use crate::core::report::{Item, PhaseReport, RunsReport, StartReport};
use crate::core::severity::{Assessment, Finding};

pub(crate) async fn recover(args: &RecoverArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    match &args.what {
        Some(RecoverWhat::Report { json }) => report(*json, ctx).await,
        Some(RecoverWhat::Metrics { json }) => super::recovery_metrics::metrics(*json, ctx).await,
        Some(RecoverWhat::Exit) => {
            let reply = ctx.client.leave_recovery().await?;
            for job in &reply.jobs {
                ctx.out.line(&format!("{}: {}", job.name, job.text))?;
            }
            ctx.out.line("recovery mode is over")?;
            Ok(code::OK)
        }
        Some(RecoverWhat::Skip { phase }) => {
            ctx.client.skip_phase(phase).await?;
            ctx.out.line(&format!("phase {phase} is left out"))?;
            Ok(code::OK)
        }
        None => again(args, ctx).await,
    }
}

/// Looks again, and does or says what follows.
async fn again(args: &RecoverArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let asked = if args.dry_run { ctx.client.recovery_plan().await } else { ctx.client.recover().await };
    let runs = match asked {
        Err(Error::NotRunning { .. }) if args.dry_run => {
            let config = args.config.as_deref().map(std::path::absolute).transpose()?;
            (ctx.hooks.plan)(&ctx.paths.state_dir, config.as_deref()).map_err(Fail::Other)?
        }
        other => other?,
    };
    if args.json {
        ctx.out.json(&runs)?;
        return Ok(code::OK);
    }
    for line in runs_lines(&runs, ctx.out.width) {
        ctx.out.line(&line)?;
    }
    let last = match (runs.is_idle(), args.dry_run) {
        (true, _) => "nothing to do",
        (false, true) => "planned only",
        (false, false) => "done",
    };
    ctx.out.line(last)?;
    Ok(code::OK)
}

async fn report(json: bool, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let report = match ctx.client.recovery().await {
        Err(Error::NotRunning { .. }) => (ctx.hooks.report)(&ctx.paths.state_dir).map_err(Fail::Other)?,
        other => Some(other?),
    };
    let Some(report) = report else {
        let dir = ctx.paths.state_dir.display();
        return Err(Fail::Other(format!("there was no start in {dir} yet")));
    };
    if json {
        ctx.out.json(&report)?;
        return Ok(code::OK);
    }
    for line in report_lines(&report, ctx.out.width) {
        ctx.out.line(&line)?;
    }
    Ok(code::OK)
}

/// A start, for people.
pub(crate) fn report_lines(report: &StartReport, width: Option<usize>) -> Vec<String> {
    let (result, took) = (report.result.as_str(), report.took_ms);
    let mut lines =
        vec![format!("start {} of {}: {result} after {took} ms", report.generation, report.began)];
    if let Some(why) = &report.recovery_mode {
        lines.push(format!("in recovery mode: {why}"));
    }
    if report.aborted_before > 0 {
        lines.push(format!("aborted starts right before it: {}", report.aborted_before));
    }
    lines.push(String::new());
    lines.extend(phase_lines(&report.phases, width));
    lines.push(String::new());
    match &report.runs {
        None => lines.push("what survived is not known yet".to_owned()),
        Some(runs) => {
            lines.extend(runs_lines(runs, width));
            let held = runs.checks.saturating_sub(u32::try_from(runs.violations.len()).unwrap_or(u32::MAX));
            let percent = report.integrity_percent();
            lines.push(format!("checks: {held} of {} hold ({percent:.2} %)", runs.checks));
            lines.extend(runs.violations.iter().map(|violation| format!("  {violation}")));
        }
    }
    let (entries, percent) = (report.entries, report.loss_percent());
    lines.push(format!("event log: {} entries read, {} lost ({percent:.2} %)", entries.read, entries.lost));
    lines.extend(report.assessment.iter().flat_map(assessment_lines));
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    lines.extend(report.damage.iter().map(|damage| format!("damage: {damage}")));
    lines
}

/// How bad it is; nothing if all is well.
fn assessment_lines(all: &Assessment) -> Vec<String> {
    let one =
        |found: &Finding| format!("{}: {}; {}", found.severity.as_str(), found.what, found.strategy.as_str());
    let mut lines: Vec<String> = all.findings.iter().map(one).collect();
    if !lines.is_empty() {
        let (bytes, uncertain, percent) =
            (all.bytes_quarantined, all.entities_uncertain, all.integrity_percent);
        lines.push(format!(
            "integrity {percent:.2} %; {bytes} bytes in quarantine; {uncertain} runs uncertain"
        ));
    }
    if let Some(seq) = all.checkpoint_before {
        lines.push(format!("before anything was changed, a checkpoint of what was read was made ({seq})"));
    }
    lines
}

/// The phases of a start, one a line.
pub(crate) fn phase_lines(phases: &[PhaseReport], width: Option<usize>) -> Vec<String> {
    let ms = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    let row = |phase: &PhaseReport| {
        let count = phase.count.map(|(done, total)| format!("{done} of {total}"));
        let note: Vec<String> = count.into_iter().chain(phase.why.clone()).collect();
        let state = phase.state.as_str().to_owned();
        vec![phase.name.clone(), state, ms(phase.after_ms), ms(phase.took_ms), note.join("; ")]
    };
    let rows: Vec<Vec<String>> = phases.iter().map(row).collect();
    text(&["PHASE", "STATE", "AFTER", "TOOK", "NOTE"], &rows, width)
}

fn runs_lines(runs: &RunsReport, width: Option<usize>) -> Vec<String> {
    let mut lines = Vec::new();
    if !runs.items.is_empty() {
        let rows: Vec<Vec<String>> = runs.items.iter().map(row).collect();
        lines = text(&["JOB", "IS", "DONE", "FOUND AND WHY"], &rows, width);
    }
    if runs.omitted > 0 {
        lines.push(format!("and {} more", runs.omitted));
    }
    let counts = |words: Vec<(&str, u64)>| -> String {
        words.into_iter().map(|(word, n)| format!("{n} {word}")).collect::<Vec<_>>().join(", ")
    };
    if !runs.classes.is_empty() {
        lines
            .push(format!("found: {}", counts(runs.classes.iter().map(|(c, n)| (c.as_str(), *n)).collect())));
    }
    if !runs.acts.is_empty() {
        lines.push(format!("acts: {}", counts(runs.acts.iter().map(|(a, n)| (a.as_str(), *n)).collect())));
    }
    lines
}

fn row(item: &Item) -> Vec<String> {
    let acts: Vec<&str> = item.acts.iter().map(|act| act.as_str()).collect();
    let why = if item.why.is_empty() { item.found.clone() } else { format!("{}: {}", item.found, item.why) };
    vec![
        item.job.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        item.class.as_str().to_owned(),
        if acts.is_empty() { "nothing".to_owned() } else { acts.join(", ") },
        why,
    ]
}

fn text(headings: &[&str], rows: &[Vec<String>], width: Option<usize>) -> Vec<String> {
    table(headings, rows, width).into_iter().map(|row| row.concat().trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::JobName;
    use crate::core::phases::Standing;
    use crate::core::report::{Act, Class, Entries, StartResult};

    fn sample() -> StartReport {
        let item = Item {
            job: Some(JobName::new("web").unwrap()),
            run: None,
            class: Class::Lost,
            found: "no record".to_owned(),
            acts: vec![Act::RecordEnd, Act::Start],
            why: "it is wanted".to_owned(),
            next: None,
        };
        let mut runs = RunsReport::of(vec![item]);
        (runs.checks, runs.violations) = (4, vec!["job web is forgotten".to_owned()]);
        let phase = PhaseReport {
            name: "journal".to_owned(),
            depends_on: Vec::new(),
            critical: true,
            state: Standing::Done,
            why: None,
            tries: 1,
            after_ms: Some(1),
            took_ms: Some(2),
            count: Some((3, 4)),
        };
        StartReport {
            v: 1,
            id: "x".to_owned(),
            generation: 3,
            began: "1970-01-01T00:00:00.000Z".to_owned(),
            ended: None,
            took_ms: 12,
            result: StartResult::Degraded,
            recovery_mode: Some("3 starts in a row were aborted".to_owned()),
            aborted_before: 3,
            phases: vec![phase],
            runs: Some(runs),
            damage: vec!["something".to_owned()],
            assessment: None,
            notes: vec!["by the way".to_owned()],
            entries: Entries { read: 3, lost: 1 },
        }
    }

    #[test]
    fn a_report_says_what_was_found_and_done_and_why() {
        let lines = report_lines(&sample(), None);
        assert_eq!(
            lines,
            [
                "start 3 of 1970-01-01T00:00:00.000Z: degraded after 12 ms",
                "in recovery mode: 3 starts in a row were aborted",
                "aborted starts right before it: 3",
                "",
                "PHASE    STATE  AFTER  TOOK  NOTE",
                "journal  done   1 ms   2 ms  3 of 4",
                "",
                "JOB  IS    DONE                   FOUND AND WHY",
                "web  lost  record its end, start  no record: it is wanted",
                "found: 1 lost",
                "acts: 1 record its end, 1 start",
                "checks: 3 of 4 hold (75.00 %)",
                "  job web is forgotten",
                "event log: 3 entries read, 1 lost (25.00 %)",
                "note: by the way",
                "damage: something",
            ]
        );
    }
}
