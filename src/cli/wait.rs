//! `outlive wait`.

use std::collections::BTreeMap;

use super::args::{WaitArgs, WaitFor};
use super::error::Fail;
use super::{Ctx, code, watch};
use crate::core::ids::{JobName, RunId};
use crate::core::outcome::Outcome;
use crate::wire::control::{JobStatus, OutcomeView, StateWord};

pub(crate) async fn wait(args: &WaitArgs, ctx: &mut Ctx<'_>) -> Result<u8, Fail> {
    let mut exits = Exits::default();
    let done = |jobs: &[JobStatus]| match args.what {
        WaitFor::Running => jobs.iter().all(|job| job.state == StateWord::Running),
        WaitFor::Stopped => jobs.iter().all(|job| job.state == StateWord::Stopped),
        WaitFor::Ended => watch::has_ended(jobs),
        WaitFor::Exited => exits.all(jobs),
    };
    let jobs = watch::until(&ctx.client, &args.jobs, args.timeout, watch::Met::Never, done).await;
    if let Err(Fail::Code(code::TIMEOUT)) = jobs {
        ctx.out.note("outlive: the time is over");
    }
    match args.what {
        WaitFor::Running | WaitFor::Stopped => jobs.map(|_| code::OK),
        WaitFor::Exited | WaitFor::Ended => {
            let jobs = jobs?;
            say_what_no_code_says(&jobs, ctx);
            Ok(shell_code(&jobs))
        }
    }
}

/// Remembers which run each job had at first.
#[derive(Default)]
struct Exits(BTreeMap<JobName, Option<RunId>>);

impl Exits {
    fn all(&mut self, jobs: &[JobStatus]) -> bool {
        let mut all = true;
        for job in jobs {
            let live = matches!(
                job.state,
                StateWord::Starting
                    | StateWord::Running
                    | StateWord::Frozen
                    | StateWord::Stopping
                    | StateWord::Waiting
                    | StateWord::Queued
            );
            let first = *self.0.entry(job.name.clone()).or_insert(job.run);
            all &= !live || first.is_some() && first != job.run;
        }
        all
    }
}

/// The exit code for what became of the jobs: one job's own, or whether all ended well. Who was ended because something
/// was wrong with it has failed, also if it said 0 in the end.
pub(crate) fn shell_code(jobs: &[JobStatus]) -> u8 {
    let of = |view: &OutcomeView| match outcome(view).shell_code() {
        0 if view.is_failure() => code::FAILED,
        code => code,
    };
    let one = |job: &JobStatus| job.outcome.as_ref().map_or(125, of);
    match jobs {
        [job] => one(job),
        several if several.iter().all(|job| one(job) == 0) => code::OK,
        _ => code::FAILED,
    }
}

/// Says what became of jobs that did not end by themselves: their exit code would be taken for a program's.
pub(crate) fn say_what_no_code_says(jobs: &[JobStatus], ctx: &mut Ctx<'_>) {
    for job in jobs {
        match &job.outcome {
            Some(view) if matches!(view.kind.as_str(), "exited" | "signaled") && !view.is_failure() => {}
            Some(view) => ctx.out.note(&format!("outlive: {}: {}", job.name, view.text)),
            None => ctx.out.note(&format!("outlive: {} has never run", job.name)),
        }
    }
}

/// The outcome behind a view of it; what is not understood cannot be known.
fn outcome(view: &OutcomeView) -> Outcome {
    match (view.kind.as_str(), view.code, view.signal) {
        ("exited", Some(code), _) => Outcome::Exited { code },
        ("signaled", _, Some(signal)) => Outcome::Signaled { signal, core: view.core.unwrap_or(false) },
        ("oom_killed", ..) => Outcome::OomKilled,
        ("not_started", ..) => Outcome::NotStarted {
            step: view.step.clone().unwrap_or_default(),
            errno: view.errno.unwrap_or(0),
        },
        ("cancelled", ..) => Outcome::Cancelled,
        _ => Outcome::Lost { why: view.why.clone().unwrap_or_else(|| view.text.clone()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::is_well;
    use crate::cli::tests::{job, outcome_view};
    use crate::core::fault::Fault;
    use crate::core::outcome::Asked;

    #[test]
    fn one_job_gives_its_code_and_several_give_a_verdict() {
        let with = |kind: &str, code, signal| {
            let mut job = job("a", StateWord::Exited);
            job.outcome = Some(OutcomeView { signal, ..outcome_view(kind, code) });
            job
        };
        assert_eq!(shell_code(&[with("exited", Some(3), None)]), 3);
        assert_eq!(shell_code(&[with("signaled", None, Some(9))]), 137);
        assert_eq!(shell_code(&[with("lost", None, None)]), 125);
        assert_eq!(shell_code(&[with("something new", Some(0), None)]), 125);
        assert_eq!(shell_code(&[job("a", StateWord::Stopped)]), 125, "it never ran");
        let mut missing = with("not_started", None, None);
        missing.outcome = Some(OutcomeView {
            step: Some("exec".into()),
            errno: Some(2),
            ..outcome_view("not_started", None)
        });
        assert_eq!(shell_code(&[missing]), 127);
        let mut hung = with("exited", Some(0), None);
        let asked = Asked::Health { fault: Fault::Silent, why: "no output for 5s".into(), again: false };
        hung.outcome = hung.outcome.map(|view| OutcomeView { asked: Some(asked), ..view });
        assert_eq!(shell_code(&[hung.clone()]), 1, "it has failed, whatever its exit code");
        assert!(!is_well(&hung));
        let good = with("exited", Some(0), None);
        assert_eq!(shell_code(&[good.clone(), good.clone()]), 0);
        assert_eq!(shell_code(&[good, with("exited", Some(7), None)]), 1);
    }

    #[test]
    fn an_exit_is_seen_although_the_next_run_is_there_already() {
        let run = |n: u8| Some(RunId::from_bytes([n; 16]));
        let mut seen = Exits::default();
        let mut now = job("a", StateWord::Running);
        now.run = run(1);
        assert!(!seen.all(std::slice::from_ref(&now)));
        now.run = run(2);
        assert!(seen.all(&[now]));
        assert!(Exits::default().all(&[job("a", StateWord::Exited)]), "nothing runs");
    }
}
