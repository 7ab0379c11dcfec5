//! `outlive status`.

use std::time::Duration;

use super::args::StatusArgs;
use super::error::Fail;
use super::recover::phase_lines;
use super::table::{cut, table};
use super::when::{ago, now_ms, until};
use super::{Ctx, code};
use crate::client::Error;
use crate::wire::control::{
    Instance, InstanceState, JobStatus, OutcomeView, Role, StateWord, Status, WantWord,
};
use crate::wire::health::Verdict;
use crate::wire::insight::AlertView;

/// How long a status waits for a start before it shows how far that is.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) async fn status(args: &StatusArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let client = ctx.client.clone().with_patience(PATIENCE);
    let status = match client.status(&args.jobs).await {
        Ok(status) => status,
        Err(Error::Refused { reply, .. }) if reply.code == "recovering" => {
            return recovering(args, ctx).await;
        }
        Err(e) => return Err(told(e, ctx)),
    };
    if args.json {
        ctx.out.json(&status)?;
    } else {
        let details = !args.jobs.is_empty();
        let view = Rendering { now_ms: now_ms(), width: ctx.out.width, colour: ctx.out.colour, details };
        for line in view.lines(&status) {
            ctx.out.line(&line)?;
        }
    }
    Ok(verdict(&status.jobs, !args.jobs.is_empty()))
}

/// Which jobs there are is not known yet: how far the start is, is.
async fn recovering(args: &StatusArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let start = ctx.client.recovery().await?;
    if args.json {
        return Err(Fail::Other("still recovering; `outlive recover report --json` says how far".to_owned()));
    }
    ctx.out.line(&format!("recovering for {} ms; which jobs there are is not known yet", start.took_ms))?;
    for line in phase_lines(&start.phases, ctx.out.width) {
        ctx.out.line(&line)?;
    }
    Ok(code::NOT_RUNNING)
}

/// `status` has codes of its own for what others call a failed request.
fn told(error: Error, ctx: &mut Ctx<'_>) -> Fail {
    let code = match &error {
        Error::NotRunning { .. } => code::NOT_RUNNING,
        Error::Refused { status: 404, .. } => code::NO_SUCH_JOB,
        _ => return error.into(),
    };
    for line in Fail::Client(error).lines() {
        ctx.out.note(&line);
    }
    Fail::Code(code)
}

/// Whether a job is as it should be: it runs, or it ended well.
pub(crate) fn is_well(job: &JobStatus) -> bool {
    match job.state {
        StateWord::Running => true,
        StateWord::Starting => job.pid.is_some(),
        StateWord::Exited => {
            let well = |o: &OutcomeView| o.kind == "exited" && o.code == Some(0) && !o.is_failure();
            job.outcome.as_ref().is_some_and(well)
        }
        StateWord::Stopped
        | StateWord::Frozen
        | StateWord::Waiting
        | StateWord::Queued
        | StateWord::Stopping
        | StateWord::Backoff
        | StateWord::Held
        | StateWord::Fatal => false,
    }
}

/// A job named must run or have ended well; of all jobs, those that nobody stopped.
fn verdict(jobs: &[JobStatus], named: bool) -> u8 {
    let fine = |job: &JobStatus| is_well(job) || !named && job.want == WantWord::Down;
    if jobs.iter().all(fine) { code::OK } else { code::NOT_RUNNING }
}

struct Rendering {
    now_ms: i64,
    width: Option<usize>,
    colour: bool,
    /// Whether jobs were named: then more is said about them.
    details: bool,
}

impl Rendering {
    fn lines(&self, status: &Status) -> Vec<String> {
        let mut lines = vec![self.fit(&head(&status.instance, self.now_ms))];
        let instance = &status.instance;
        if let Some(why) = &instance.recovery_mode {
            lines.push(self.fit(&format!("recovery mode because {why}; `outlive recover exit` ends it")));
        }
        lines.extend(instance.degraded.iter().map(|what| self.fit(&format!("degraded: {what}"))));
        if instance.config_changed {
            lines.push(self.fit("the configuration file has changed; `outlive reload` applies it"));
        }
        lines.extend(status.alerts.iter().map(|alert| self.fit(&alert_line(alert, self.now_ms))));
        if status.jobs.is_empty() {
            lines.push("no jobs".to_owned());
            return lines;
        }
        let rows: Vec<Vec<String>> = status.jobs.iter().map(|job| self.row(job)).collect();
        let headings = ["NAME", "STATE", "PID", "UPTIME", "RESTARTS", "NOTE"];
        let cells = table(&headings, &rows, self.width);
        for (index, mut row) in cells.into_iter().enumerate() {
            if let Some(job) = index.checked_sub(1).and_then(|i| status.jobs.get(i)) {
                row[1] = self.paint(job, &row[1]);
            }
            lines.push(row.concat().trim_end().to_owned());
        }
        for job in status.jobs.iter().filter(|_| self.details) {
            lines.extend(job.patterns.iter().map(|words| self.fit(&format!("{}: {words}", job.name))));
            // Not cut: somebody will want to open it.
            let path = job.health.as_ref().and_then(|health| health.diagnosis.as_ref());
            lines.extend(path.map(|path| format!("{}: what it was doing is in {path}", job.name)));
        }
        lines
    }

    fn fit(&self, text: &str) -> String {
        self.width.map_or_else(|| text.to_owned(), |width| cut(text, width))
    }

    fn row(&self, job: &JobStatus) -> Vec<String> {
        let up = matches!(
            job.state,
            StateWord::Running | StateWord::Frozen | StateWord::Starting | StateWord::Stopping
        );
        vec![
            job.name.to_string(),
            job.state.as_str().to_owned(),
            job.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            if up { ago(job.started.as_ref().unwrap_or(&job.since), self.now_ms) } else { "-".to_owned() },
            job.restarts.to_string(),
            self.note(job),
        ]
    }

    fn note(&self, job: &JobStatus) -> String {
        let mut words = Vec::new();
        let runs = matches!(job.state, StateWord::Running | StateWord::Frozen | StateWord::Starting);
        if let Some(outcome) = job.outcome.as_ref().filter(|_| !runs) {
            let ended = outcome.at.as_ref().unwrap_or(&job.since);
            words.push(format!("{}, {} ago", outcome.text, ago(ended, self.now_ms)));
        }
        // The outcome is said already, with its time.
        let said = job.outcome.as_ref().map_or("", |outcome| outcome.text.as_str());
        let reason = job.reason.strip_prefix(said).unwrap_or(&job.reason);
        let again = reason.strip_suffix(said).and_then(|rest| rest.strip_suffix(", the last: "));
        let reason = again.filter(|_| !said.is_empty()).unwrap_or(reason);
        let reason = reason.trim_start_matches([',', ';', ':', ' ']);
        if !reason.is_empty() {
            words.push(reason.to_owned());
        }
        // It runs, and cannot be used: nothing else tells.
        if let Some(why) = job.health.as_ref().filter(|health| health.verdict == Verdict::Unready) {
            let why = why.why.as_deref().unwrap_or("by its readiness probe");
            words.push(format!("not ready: {why}"));
        }
        if let Some(next) = job.next_try.as_ref().and_then(|at| until(at, self.now_ms)) {
            words.push(format!("next try {next}"));
        }
        if let Some(progress) = job.progress.as_ref().filter(|_| runs) {
            let percent = progress.percent.map(|percent| format!("{percent} %"));
            let said: Vec<String> = percent.into_iter().chain(progress.text.clone()).collect();
            words.extend((!said.is_empty()).then(|| said.join(", ")));
        }
        if job.adopted {
            words.push("adopted".to_owned());
        }
        words.join("; ")
    }

    fn paint(&self, job: &JobStatus, cell: &str) -> String {
        let colour = match job.state {
            _ if !self.colour => return cell.to_owned(),
            StateWord::Running => 32,
            StateWord::Exited if is_well(job) => 32,
            StateWord::Starting
            | StateWord::Stopping
            | StateWord::Waiting
            | StateWord::Queued
            | StateWord::Backoff => 33,
            StateWord::Held | StateWord::Fatal | StateWord::Exited | StateWord::Frozen => 31,
            StateWord::Stopped => 2,
        };
        format!("\x1b[{colour}m{cell}\x1b[0m")
    }
}

fn alert_line(alert: &AlertView, now_ms: i64) -> String {
    let AlertView { id, severity, message, since, .. } = alert;
    format!("alert ({}): {message} ({id}, for {})", severity.as_str(), ago(since, now_ms))
}

fn head(instance: &Instance, now_ms: i64) -> String {
    let state = match instance.state {
        InstanceState::Recovering => "recovering",
        InstanceState::Running => "running",
        InstanceState::Recovery => "in recovery mode, nothing starts by itself",
        InstanceState::ReadOnly => "read-only: nothing can be changed",
        InstanceState::ShuttingDown => "shutting down",
    };
    let pid = |role: &Role| role.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let roles = &instance.roles;
    format!(
        "outlive {}: {state} for {} (init {}, keeper {}, supervisor {}; generation {})",
        instance.version,
        ago(&instance.since, now_ms),
        pid(&roles.init),
        pid(&roles.keeper),
        pid(&roles.supervisor),
        instance.generation,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::{instance, job, outcome_view};
    use crate::core::alerts::Severity;

    fn sample() -> Status {
        let mut web = job("web", StateWord::Running);
        web.pid = Some(4711);
        web.adopted = true;
        let mut db = job("database", StateWord::Backoff);
        db.outcome = Some(outcome_view("exited", Some(3)));
        db.next_try = Some("1970-01-01T00:01:05.000Z".to_owned());
        db.restarts = 12;
        Status { instance: instance(), jobs: vec![web, db], alerts: Vec::new() }
    }

    fn lines(width: Option<usize>, colour: bool) -> Vec<String> {
        Rendering { now_ms: 62_000, width, colour, details: false }.lines(&sample())
    }

    #[test]
    fn the_table_is_aligned_and_says_why() {
        assert_eq!(
            lines(None, false),
            [
                "outlive 0.1.0: running for 1m02s (init 1, keeper 2, supervisor 3; generation 4)",
                "NAME      STATE    PID   UPTIME  RESTARTS  NOTE",
                "web       running  4711  1m02s   0         adopted",
                "database  backoff  -     -       12        exit 3, 1m02s ago; next try in 3s",
            ]
        );
    }

    #[test]
    fn alerts_are_above_the_jobs_and_patterns_below_those_that_were_named() {
        let mut status = sample();
        status.jobs[1].patterns = vec!["failed 12 times in a row in the same way: exit 3".to_owned()];
        status.alerts.push(AlertView {
            id: "CRASH_LOOP".to_owned(),
            subject: "database".to_owned(),
            severity: Severity::Critical,
            message: "database has failed 12 times in a row".to_owned(),
            value: 12.0,
            threshold: 5.0,
            since: "1970-01-01T00:01:00.000Z".to_owned(),
            until: None,
        });
        let lines =
            |details| Rendering { now_ms: 62_000, width: None, colour: false, details }.lines(&status);
        let alert = "alert (critical): database has failed 12 times in a row (CRASH_LOOP, for 2s)";
        assert_eq!((lines(false)[1].as_str(), lines(false).len()), (alert, 5));
        assert_eq!(lines(true)[5], "database: failed 12 times in a row in the same way: exit 3");
    }

    #[test]
    fn a_run_is_as_old_as_its_process_and_nothing_is_said_twice() {
        let mut hangs = job("hangs", StateWord::Frozen);
        hangs.started = Some("1970-01-01T00:00:02.000Z".to_owned());
        hangs.since = "1970-01-01T00:01:00.000Z".to_owned();
        let mut health = crate::wire::health::HealthView::new(Verdict::Frozen);
        health.diagnosis = Some("/state/runs/1/diagnosis-1.txt".to_owned());
        hangs.health = Some(Box::new(health));
        let mut dead = job("dead", StateWord::Fatal);
        dead.outcome = Some(outcome_view("exited", Some(3)));
        dead.reason = "2 starts within 1m, the last: exit 3".to_owned();
        let status = Status { instance: instance(), jobs: vec![hangs, dead], alerts: Vec::new() };
        let lines = Rendering { now_ms: 62_000, width: None, colour: false, details: true }.lines(&status);
        assert_eq!(
            lines[1..],
            [
                "NAME   STATE   PID  UPTIME  RESTARTS  NOTE",
                "hangs  frozen  -    1m00s   0",
                "dead   fatal   -    -       0         exit 3, 1m02s ago; 2 starts within 1m",
                "hangs: what it was doing is in /state/runs/1/diagnosis-1.txt",
            ]
        );
    }

    #[test]
    fn a_narrow_terminal_keeps_the_columns() {
        for width in [20, 50, 60] {
            for line in lines(Some(width), false).iter().skip(if width < 50 { 4 } else { 0 }) {
                assert!(line.chars().count() <= width, "{line:?} is wider than {width}");
            }
        }
        assert_eq!(lines(Some(55), false)[3], "database  backoff  -     -       12        exit 3, 1m0…");
        assert_eq!(lines(Some(45), false)[1], "NAME      STATE    PID   UPTIME  RESTARTS");
    }

    #[test]
    fn colours_do_not_shift_the_columns() {
        assert_eq!(lines(None, true)[2], "web       \x1b[32mrunning  \x1b[0m4711  1m02s   0         adopted");
    }

    #[test]
    fn exit_codes_follow_lsb() {
        let with = |state, want| {
            let mut job = job("a", state);
            job.want = want;
            job
        };
        let (up, down) = (WantWord::Up, WantWord::Down);
        assert_eq!(verdict(&[], false), code::OK);
        assert_eq!(verdict(&[with(StateWord::Running, up)], true), code::OK);
        assert_eq!(verdict(&[with(StateWord::Stopped, down)], false), code::OK, "stopped on purpose");
        assert_eq!(verdict(&[with(StateWord::Stopped, down)], true), code::NOT_RUNNING);
        assert_eq!(verdict(&[with(StateWord::Fatal, up)], false), code::NOT_RUNNING);
        let mut task = with(StateWord::Exited, up);
        task.outcome = Some(outcome_view("exited", Some(0)));
        assert_eq!(verdict(&[task.clone()], true), code::OK);
        task.outcome = Some(outcome_view("exited", Some(1)));
        assert_eq!(verdict(&[task], true), code::NOT_RUNNING);
    }
}
