//! What must hold after a survey was settled, whatever was found. A law that does not hold is said, never
//! a reason to stop: jobs are looked after all the same.

use super::super::event::Want;
use super::super::input::{Fact, Survey};
use super::super::instance::Link;
use super::super::job::Phase;
use super::super::spec::Kind;
use super::super::state::State;
use super::super::view::Shown;
use super::plan::{Before, is_starting};

/// What came of the checks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// How many were made.
    pub checks: u32,
    /// Those that failed, in words.
    pub violations: Vec<String>,
}

impl Checked {
    fn law(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        self.checks = self.checks.saturating_add(1);
        if !holds {
            self.violations.push(otherwise());
        }
    }
}

/// Compares the memory before and after a survey was settled.
#[must_use]
pub fn check(before: &Before, survey: &Survey, after: &State) -> Checked {
    let mut all = Checked::default();
    all.law(after.instance.link == Link::Working, || "what survived is not settled".to_owned());
    jobs(&mut all, before, after);
    runs(&mut all, before, survey, after);
    live(&mut all, after);
    if before.link == Link::Recovering && !after.instance.recovery && after.instance.shutdown.is_none() {
        wanted(&mut all, after);
    }
    all
}

/// No job is forgotten, no wish is changed, no count goes back.
fn jobs(all: &mut Checked, before: &Before, after: &State) {
    for (name, old) in &before.jobs {
        let Some(job) = after.job(name) else {
            // One that has left the configuration is forgotten when its run has ended.
            all.law(old.want == Want::Down || old.shown == Shown::Exited, || {
                format!("job {name} is forgotten")
            });
            continue;
        };
        // One that was found running, and nothing was known of that, is wanted.
        let found = job.want == Want::Up && job.attempt > old.attempt;
        all.law(job.want == old.want || found, || format!("job {name}: what is wanted of it has changed"));
        // A run that never ran is not counted any more.
        all.law(job.starts + 1 >= old.starts && job.attempt >= old.attempt, || {
            format!("job {name}: its runs are counted anew")
        });
    }
}

/// Every run that was held as alive is alive or has an end, and what was found alive is not let go.
fn runs(all: &mut Checked, before: &Before, survey: &Survey, after: &State) {
    for (run, job) in &before.live {
        if after.live.contains_key(run) {
            continue;
        }
        let known = after.job(job).is_some();
        let ended = after.runs(job).any(|past| past.run == *run && past.end.is_some());
        let recorded =
            ended || after.job(job).and_then(|job| job.last.as_ref()).is_some_and(|l| l.run == *run);
        all.law(!known || recorded, || format!("run {run} of {job} is gone without an end"));
    }
    for found in &survey.runs {
        let (Fact::Alive { .. }, Some(job)) = (&found.fact, before.live.get(&found.run)) else { continue };
        let held = after.live.get(&found.run) == Some(job);
        let over = before.jobs.get(job).is_some_and(|job| job.shown == Shown::Stopping);
        all.law(held || over, || format!("run {} of {job} lives, and was let go", found.run));
        let waits = after.job(job).is_some_and(|job| is_starting(&job.phase) && job.run() == Some(found.run));
        all.law(!waits, || format!("run {} of {job} lives, and is still taken for a start", found.run));
    }
}

/// A live run belongs to one job, and that job says so.
fn live(all: &mut Checked, after: &State) {
    for (run, job) in &after.live {
        let held = after.job(job).is_some_and(|job| job.run() == Some(*run));
        all.law(held, || format!("run {run} is held for {job}, which knows nothing of it"));
    }
    let held = after.jobs.values().filter(|entry| entry.job.run().is_some()).count();
    all.law(held == after.live.len(), || {
        format!("{held} jobs have a run, and {} runs live", after.live.len())
    });
}

/// A service that is wanted is not left lying.
fn wanted(all: &mut Checked, after: &State) {
    for (name, entry) in &after.jobs {
        let job = &entry.job;
        let service = after.spec(name).is_some_and(|spec| spec.kind == Kind::Service);
        if service && job.want == Want::Up && !job.removed {
            all.law(job.phase != Phase::Stopped, || format!("job {name} is wanted, and nothing is done"));
        }
    }
}
