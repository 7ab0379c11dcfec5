//! What a survey comes to, as data: printed before it is done, or kept after it was.
//!
//! There is no second set of rules: the plan is the decision itself, told run by run.

use std::collections::BTreeMap;

use super::super::event::{Event, Want};
use super::super::ids::{JobName, RunId};
use super::super::input::{Fact, Input, Survey, Surveyed};
use super::super::instance::Link;
use super::super::job::Phase;
use super::super::report::{Act, Class, Item, RunsReport};
use super::super::state::State;
use super::super::time::Stamp;
use super::super::view::Shown;
use super::super::{Fresh, decide};

/// What there was before a survey was settled: as much of it as a report and the checks need.
#[derive(Debug, Clone, Default)]
pub struct Before {
    pub(super) link: Link,
    pub(in super::super) live: BTreeMap<RunId, JobName>,
    pub(super) jobs: BTreeMap<JobName, JobBefore>,
}

#[derive(Debug, Clone)]
pub(super) struct JobBefore {
    pub(super) want: Want,
    pub(super) starts: u64,
    pub(super) attempt: u64,
    pub(super) shown: Shown,
    /// Whether it has left a token for its next run.
    pub(super) token: bool,
}

impl Before {
    /// Looks at the memory.
    #[must_use]
    pub fn of(state: &State) -> Self {
        let job = |name: &JobName| {
            state.job(name).map(|job| JobBefore {
                want: job.want,
                starts: job.starts,
                attempt: job.attempt,
                shown: job.shown(),
                token: state.published(name).is_some_and(|known| known.said.resume.is_some()),
            })
        };
        Self {
            link: state.instance.link,
            live: state.live.clone(),
            jobs: state.jobs.keys().filter_map(|name| Some((name.clone(), job(name)?))).collect(),
        }
    }
}

impl Before {
    /// Whether a job has had a run.
    #[must_use]
    pub fn has_run(&self, job: &JobName) -> bool {
        self.jobs.get(job).is_some_and(|job| job.attempt > 0)
    }
}

/// What would be done about this survey. Changes nothing.
#[must_use]
pub fn plan(state: &State, survey: &Survey, now: Stamp) -> RunsReport {
    let decision = decide(state, &Input::Surveyed(survey.clone()), now, &mut Nobody);
    let mut items = told(&Before::of(state), survey, &decision.events);
    for item in &mut items {
        // Which run it would be, nobody knows yet.
        item.next = None;
    }
    RunsReport::of(items)
}

/// For plans: no run of one ever comes to be.
#[derive(Debug)]
pub struct Nobody;

impl Fresh for Nobody {
    fn run_id(&mut self) -> RunId {
        RunId::from_bytes([0; 16])
    }

    fn chance(&mut self) -> f64 {
        0.0
    }
}

/// Tells a decision about a survey run by run. Runs and jobs with which all is as it was are left out.
#[must_use]
pub fn told(before: &Before, survey: &Survey, events: &[Event]) -> Vec<Item> {
    let mut about: BTreeMap<&JobName, Vec<&Event>> = BTreeMap::new();
    let facts: BTreeMap<RunId, &Surveyed> = survey.runs.iter().map(|found| (found.run, found)).collect();
    let (mut orphans, mut taken_back) = (Vec::new(), Vec::new());
    for event in events {
        match event {
            Event::OrphanFound { run, .. } => orphans.push(*run),
            // No start: it was there.
            Event::RunRequested { run, .. } if facts.contains_key(run) => taken_back.push(*run),
            _ => {
                if let Some(job) = event.job() {
                    about.entry(job).or_default().push(event);
                }
            }
        }
    }
    let mut items = Vec::new();
    for found in &survey.runs {
        match before.live.get(&found.run) {
            Some(job) => {
                if let Some(events) = about.remove(job) {
                    items.push(of_run(before, (job, found.run), Some(found), &events));
                }
            }
            None if orphans.contains(&found.run) => items.push(orphan(found)),
            None if taken_back.contains(&found.run) => items.push(beyond(found)),
            None => {}
        }
    }
    for (run, job) in &before.live {
        if !facts.contains_key(run)
            && before.link != Link::Working
            && let Some(events) = about.remove(job)
        {
            items.push(of_run(before, (job, *run), None, &events));
        }
    }
    items.extend(about.into_iter().filter_map(|(job, events)| without_run(before, job, &events)));
    items
}

fn orphan(found: &Surveyed) -> Item {
    Item {
        job: found.job.clone(),
        run: Some(found.run),
        class: Class::Orphan,
        found: words(&found.fact),
        acts: vec![Act::LeaveAlone],
        why: "no job accounts for it".to_owned(),
        next: None,
    }
}

/// A run whose request is missing.
fn beyond(found: &Surveyed) -> Item {
    let (class, act) = match found.fact {
        Fact::Alive { .. } => (Class::Adoptable, Act::Adopt),
        _ => (Class::EndedMeanwhile, Act::RecordEnd),
    };
    Item {
        job: found.job.clone(),
        run: Some(found.run),
        class,
        found: words(&found.fact),
        acts: vec![act],
        why: "entries of the event log are missing; it is known from elsewhere".to_owned(),
        next: None,
    }
}

fn of_run(
    before: &Before,
    (job, run): (&JobName, RunId),
    found: Option<&Surveyed>,
    events: &[&Event],
) -> Item {
    let stopping = before.jobs.get(job).is_some_and(|job| job.shown == Shown::Stopping);
    let damage = found.and_then(|found| found.damage.clone());
    let class = match found.map(|found| &found.fact) {
        _ if damage.is_some() => Class::Corrupt,
        Some(Fact::Alive { .. }) if stopping => Class::Resumable,
        Some(Fact::Alive { .. }) => Class::Adoptable,
        Some(Fact::Ended { leftovers: true, .. }) if stopping => Class::Resumable,
        Some(Fact::Ended { .. }) => Class::EndedMeanwhile,
        // Another run goes on where this one was.
        Some(Fact::Cancelled | Fact::Lost { .. }) | None if resumes(before, job, events) => Class::Resumable,
        Some(Fact::Cancelled) => Class::Restartable,
        Some(Fact::Lost { .. }) | None => Class::Lost,
    };
    let mut what = found.map_or_else(|| "it was not found".to_owned(), |found| words(&found.fact));
    let unwatched = found.map_or("", |found| found.freshness.words());
    for more in damage.iter().map(String::as_str).chain((!unwatched.is_empty()).then_some(unwatched)) {
        what = format!("{what}; {more}");
    }
    Item {
        job: Some(job.clone()),
        run: Some(run),
        class,
        found: what,
        acts: acts(events),
        why: why(before, job, events),
        next: next(events),
    }
}

/// A job of which nothing lived: only what leads to a run is worth a line.
fn without_run(before: &Before, job: &JobName, events: &[&Event]) -> Option<Item> {
    let acts = acts(events);
    if acts.is_empty() {
        return None;
    }
    let shown = before.jobs.get(job).map_or(Shown::Stopped, |job| job.shown);
    let class = match shown {
        Shown::Backoff | Shown::Waiting => Class::Resumable,
        _ if resumes(before, job, events) => Class::Resumable,
        _ => Class::Restartable,
    };
    let found = format!("not running ({})", shown.as_str());
    let why = why(before, job, events);
    Some(Item { job: Some(job.clone()), run: None, class, found, acts, why, next: next(events) })
}

fn words(fact: &Fact) -> String {
    match fact {
        Fact::Alive { identity, .. } => format!("alive, process {}", identity.pid),
        Fact::Ended { record, leftovers: false } => format!("ended: {}", record.outcome.describe()),
        Fact::Ended { record, leftovers: true } => {
            format!("ended: {}; processes of it are left", record.outcome.describe())
        }
        Fact::Cancelled => "it never ran".to_owned(),
        Fact::Lost { why } => why.clone(),
    }
}

pub(in super::super) fn acts(events: &[&Event]) -> Vec<Act> {
    let mut acts: Vec<Act> = Vec::new();
    for event in events {
        let act = match event {
            Event::RunAdopted { .. } | Event::RunStarted { .. } => Act::Adopt,
            Event::RunEnded { .. } | Event::TreeGone { .. } => Act::RecordEnd,
            Event::RunRequested { .. } => Act::Start,
            Event::WaitBegun { .. } => Act::Wait,
            Event::BackedOff { .. } => Act::Backoff,
            Event::StopBegun { .. } | Event::StopStepBegun { .. } => Act::Stop,
            Event::Held { .. } => Act::Hold,
            Event::GaveUp { .. } => Act::GiveUp,
            Event::Disowned { .. } => Act::LeaveAlone,
            _ => continue,
        };
        if !acts.contains(&act) {
            acts.push(act);
        }
    }
    acts
}

fn next(events: &[&Event]) -> Option<RunId> {
    events.iter().find_map(|event| match event {
        Event::RunRequested { run, .. } => Some(*run),
        _ => None,
    })
}

/// Whether a run follows that gets the token of one before it.
fn resumes(before: &Before, job: &JobName, events: &[&Event]) -> bool {
    let follows = acts(events).iter().any(|act| matches!(act, Act::Start | Act::Wait | Act::Backoff));
    follows && before.jobs.get(job).is_some_and(|job| job.token)
}

fn why(before: &Before, job: &JobName, events: &[&Event]) -> String {
    let why = why_alone(before, job, events);
    if resumes(before, job, events) { format!("{why}; the next run gets its resume token") } else { why }
}

fn why_alone(before: &Before, job: &JobName, events: &[&Event]) -> String {
    let wanted = before.jobs.get(job).is_none_or(|job| job.want == Want::Up);
    for event in events.iter().rev() {
        return match event {
            Event::GaveUp { why, .. } | Event::Held { why, .. } => why.clone(),
            Event::RunRequested { .. } => "it is wanted, and nothing of it lives".to_owned(),
            Event::WaitBegun { .. } => "it is wanted, and waits for the jobs it depends on".to_owned(),
            Event::BackedOff { until, .. } => format!("its restart policy: next try at {}", until.rfc3339()),
            Event::Rested { .. } => "recovery mode: it is started when that is left".to_owned(),
            Event::StopBegun { .. } => "it is not wanted".to_owned(),
            Event::StopStepBegun { .. } => "it was being stopped".to_owned(),
            Event::RunAdopted { .. } | Event::RunStarted { .. } => {
                "it lives, and it is proven which process it is".to_owned()
            }
            Event::RunEnded { .. } | Event::TreeGone { .. } if !wanted => "it is not wanted".to_owned(),
            Event::RunEnded { .. } | Event::TreeGone { .. } => {
                "nothing asks for another run of it".to_owned()
            }
            _ => continue,
        };
    }
    String::new()
}

/// Whether a job of this phase is in the middle of a start. Kept here, beside what is said about it.
pub(super) const fn is_starting(phase: &Phase) -> bool {
    matches!(phase, Phase::Starting { .. })
}
