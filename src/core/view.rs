//! What readers see of the memory: words, reasons, times. Derived, never stored.

use std::sync::Arc;

use super::alerts::Alerts;
use super::circuit;
use super::event::Want;
use super::fault::Meaning;
use super::identity::Identity;
use super::ids::{JobName, RunId};
use super::ill::Ill;
use super::instance::Link;
use super::job::{Job, Last, PastRun, Phase};
use super::life::counts_as_up;
use super::outcome::{self, Asked};
use super::progress::Published;
use super::recoveries::Recoveries;
use super::rest::Rest;
use super::spec::JobSpec;
use super::state::{Entry, State};
use super::stats::Stats;
use super::time::Stamp;

/// Where a job is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shown {
    /// Not running, and nothing is being done about it.
    Stopped,
    /// Wanted, and waiting for the jobs it depends on, or for the keeper.
    Waiting,
    /// Standing in line for its turn.
    Queued,
    /// Asked for, or within its start grace.
    Starting,
    /// Running.
    Running,
    /// Running, but it hangs.
    Frozen,
    /// Being stopped, or what is left of its run is on its way out.
    Stopping,
    /// Waiting for the next try.
    Backoff,
    /// To be run, but perhaps it has run already: an operator's start releases it.
    Held,
    /// Ended, and not to be run again by itself.
    Exited,
    /// Given up.
    Fatal,
}

impl Shown {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Frozen => "frozen",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Held => "held",
            Self::Exited => "exited",
            Self::Fatal => "fatal",
        }
    }
}

impl Job {
    /// The word for where it is.
    #[must_use]
    pub const fn shown(&self) -> Shown {
        match &self.phase {
            Phase::Running { ill: Some(ill), .. } if matches!(ill.fault.meaning(), Meaning::Frozen) => {
                Shown::Frozen
            }
            Phase::Stopped => Shown::Stopped,
            Phase::Waiting => Shown::Waiting,
            Phase::Queued => Shown::Queued,
            Phase::Starting { .. } | Phase::Running { ready_at: Some(_), .. } => Shown::Starting,
            Phase::Running { ready_at: None, .. } => Shown::Running,
            Phase::Stopping { .. } | Phase::Leftovers { .. } => Shown::Stopping,
            Phase::Backoff { .. } => Shown::Backoff,
            Phase::Held { .. } => Shown::Held,
            Phase::Exited => Shown::Exited,
            Phase::Fatal { .. } => Shown::Fatal,
        }
    }

    /// Process id of the live main process.
    #[must_use]
    pub const fn pid(&self) -> Option<i32> {
        match self.identity() {
            Some(identity) => Some(identity.pid),
            None => None,
        }
    }

    /// The live main process.
    #[must_use]
    pub const fn identity(&self) -> Option<&Identity> {
        match &self.phase {
            Phase::Running { process, .. } | Phase::Stopping { process: Some(process), .. } => {
                Some(&process.identity)
            }
            Phase::Stopping { process: None, .. }
            | Phase::Stopped
            | Phase::Waiting
            | Phase::Queued
            | Phase::Starting { .. }
            | Phase::Leftovers { .. }
            | Phase::Backoff { .. }
            | Phase::Held { .. }
            | Phase::Exited
            | Phase::Fatal { .. } => None,
        }
    }

    /// When the live main process was started.
    #[must_use]
    pub const fn started(&self) -> Option<Stamp> {
        match &self.phase {
            Phase::Running { process, .. } | Phase::Stopping { process: Some(process), .. } => {
                Some(process.started)
            }
            _ => None,
        }
    }

    /// The live run, or the latest that ended.
    #[must_use]
    pub fn latest_run(&self) -> Option<RunId> {
        self.run().or_else(|| self.last.as_ref().map(|last| last.run))
    }

    /// How the latest ended run ended.
    #[must_use]
    pub const fn last_end(&self) -> Option<&Last> {
        self.last.as_ref()
    }

    /// How the latest ended run ended, in words; empty if there is none.
    #[must_use]
    pub fn last_words(&self) -> String {
        self.last.as_ref().map(Last::words).unwrap_or_default()
    }

    /// Why it came to its end, for people.
    #[must_use]
    pub fn why_it_rests(&self) -> String {
        match (&self.phase, self.last_words()) {
            (Phase::Fatal { why, .. }, last) if last.is_empty() => why.clone(),
            (Phase::Fatal { why, .. }, last) => format!("{why}, the last: {last}"),
            (_, last) => last,
        }
    }

    /// Starts after the first; cancelled ones do not count.
    #[must_use]
    pub const fn restarts(&self) -> u64 {
        self.starts.saturating_sub(1)
    }

    /// Whether the live run was taken over from an earlier supervisor.
    #[must_use]
    pub const fn adopted(&self) -> bool {
        matches!(self.phase, Phase::Running { adopted: true, .. })
    }

    /// What is wrong with the live run, if something is.
    #[must_use]
    pub fn ill(&self) -> Option<&Ill> {
        match &self.phase {
            Phase::Running { ill, .. } => ill.as_deref(),
            _ => None,
        }
    }

    /// When the next try is due.
    #[must_use]
    pub const fn next_try(&self) -> Option<Stamp> {
        match &self.phase {
            Phase::Backoff { until } | Phase::Fatal { retry_at: Some(until), .. } => Some(*until),
            _ => None,
        }
    }
}

impl Last {
    /// How it ended, in words.
    #[must_use]
    pub fn words(&self) -> String {
        outcome::words(&self.outcome, &self.asked)
    }
}

/// Two lists in order, without a name in common, as one.
pub fn in_order<'a>(
    a: impl Iterator<Item = &'a JobName>,
    b: impl Iterator<Item = &'a JobName>,
) -> impl Iterator<Item = &'a JobName> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(first), Some(other)) if first > other => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}

impl State {
    /// The names of all jobs, in order.
    pub fn names(&self) -> impl Iterator<Item = &JobName> {
        in_order(self.jobs.keys(), self.rest.names())
    }

    /// Jobs but for those at rest, by name.
    pub fn awake(&self) -> impl Iterator<Item = (&JobName, &Job)> {
        self.jobs.iter().map(|(name, entry)| (name, &entry.job))
    }

    /// Jobs at rest.
    #[must_use]
    pub const fn rest(&self) -> &Rest {
        &self.rest
    }

    /// All jobs, by name. Those at rest are read and kept: nothing for those who ask often.
    pub fn jobs(&self) -> impl Iterator<Item = (&JobName, &Job)> {
        self.names().filter_map(|name| Some((name, self.job(name)?)))
    }

    pub(super) fn entry(&self, name: &JobName) -> Option<&Entry> {
        self.jobs.get(name).map(|entry| &**entry).or_else(|| self.rest.get(name).map(|rested| &rested.entry))
    }

    /// One job.
    #[must_use]
    pub fn job(&self, name: &JobName) -> Option<&Job> {
        self.entry(name).map(|entry| &entry.job)
    }

    /// Its settings, if they are known.
    #[must_use]
    pub fn spec(&self, name: &JobName) -> Option<&JobSpec> {
        self.shared_spec(name).map(|spec| &**spec)
    }

    /// Its settings, to be kept.
    #[must_use]
    pub fn shared_spec(&self, name: &JobName) -> Option<&Arc<JobSpec>> {
        self.specs.get(name).or_else(|| self.spec_at_rest(name))
    }

    /// The settings of a submitted job that was at rest when the memory was read.
    pub(super) fn spec_at_rest(&self, name: &JobName) -> Option<&Arc<JobSpec>> {
        let submitted = self.jobs.get(name).is_none_or(|entry| entry.job.submitted);
        if submitted { self.rest.spec(name) } else { None }
    }

    /// Its runs, the latest last; at most [`State::keep_runs`] that have ended.
    pub fn runs(&self, name: &JobName) -> impl Iterator<Item = &PastRun> {
        self.entry(name).into_iter().flat_map(|entry| &entry.past)
    }

    /// What a job has published; `None` if nothing.
    #[must_use]
    pub fn published(&self, name: &JobName) -> Option<&Published> {
        self.entry(name)?.published.as_deref()
    }

    /// What a job's runs before the latest came to; `None` if there is nothing to tell.
    #[must_use]
    pub fn stats(&self, name: &JobName) -> Option<&Arc<Stats>> {
        self.entry(name)?.stats.as_ref()
    }

    /// What is raised, and what was.
    #[must_use]
    pub const fn alerts(&self) -> &Arc<Alerts> {
        &self.alerts
    }

    /// Incidents, and what became of them.
    #[must_use]
    pub const fn recoveries(&self) -> &Arc<Recoveries> {
        &self.recoveries
    }

    /// Every run that lives or may live, with its job: what a survey has to answer for.
    pub fn live_runs(&self) -> impl Iterator<Item = (RunId, &JobName)> {
        self.live.iter().map(|(run, job)| (*run, job))
    }

    /// The job whose live run this is.
    #[must_use]
    pub fn job_of(&self, run: RunId) -> Option<&JobName> {
        self.live.get(&run)
    }

    /// Whether what survived is known and every job that is to run has been asked for.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.instance.link != Link::Recovering
    }

    /// Why a job is where it is, for people; empty when that needs no words.
    #[must_use]
    pub fn reason(&self, name: &JobName) -> String {
        let Some(job) = self.job(name) else { return String::new() };
        match &job.phase {
            Phase::Exited | Phase::Fatal { .. } => job.why_it_rests(),
            Phase::Running { ill: Some(ill), .. } => ill.why.clone(),
            Phase::Running { ill: None, .. } => circuit::words(self.spec(name), job).unwrap_or_default(),
            Phase::Starting { .. } => match self.instance.link {
                Link::Working => circuit::words(self.spec(name), job).unwrap_or_default(),
                Link::Recovering | Link::KeeperLost => "not known yet whether it was started".to_owned(),
            },
            Phase::Stopped if job.want == Want::Up => match (self.instance.link, self.instance.recovery) {
                _ if self.instance.shutdown.is_some() => "shutting down".to_owned(),
                (_, true) => {
                    let why = "recovery mode: nothing is started unless asked for";
                    job.last
                        .as_ref()
                        .map_or_else(|| why.to_owned(), |last| format!("{}; {why}", last.outcome.describe()))
                }
                (Link::Recovering | Link::KeeperLost, false) => "not known yet what survived".to_owned(),
                (Link::Working, false) => String::new(),
            },
            Phase::Stopped => String::new(),
            Phase::Waiting => self.waits_for(name),
            Phase::Queued => self.why_queued(name, job),
            Phase::Stopping { stop, ladder, .. } => match (ladder, stop.then_start) {
                (Some(ladder), _) if ladder.kill => "killed, waiting for it to go".to_owned(),
                (Some(ladder), _) if ladder.hook => "its before_stop hook is running".to_owned(),
                _ if stop.by.is_failure() => match &stop.by {
                    Asked::Health { why, .. } | Asked::Group { why, .. } => why.clone(),
                    _ => String::new(),
                },
                (_, true) => "starts again when it has stopped".to_owned(),
                (_, false) => String::new(),
            },
            Phase::Leftovers { ladder, .. } => match ladder {
                Some(_) => "its main process ended, the rest is being stopped".to_owned(),
                None => "its main process ended, the rest has not".to_owned(),
            },
            Phase::Backoff { .. } => {
                let mut words = vec![job.last_words()];
                if job.failures > 1 {
                    words.push(format!("{} failures in a row", job.failures));
                }
                words.extend(circuit::words(self.spec(name), job));
                words.join(", ")
            }
            Phase::Held { why } => why.clone(),
        }
    }

    fn why_queued(&self, name: &JobName, job: &Job) -> String {
        let Some(place) = job.place.as_deref() else { return String::new() };
        let queue = &place.queue;
        let settings = &self.queues.settings;
        let why = if place.held {
            "held back until it is released".to_owned()
        } else if let Some(at) = place.not_before {
            format!("not before {}", at.rfc3339())
        } else if !settings.slots.contains_key(queue) {
            "there is no such queue any more".to_owned()
        } else if self.queues.paused.contains(queue) {
            "the queue is paused".to_owned()
        } else if self.instance.recovery {
            "recovery mode: no turns are given".to_owned()
        } else {
            let waits = self.waits_for(name);
            if waits.is_empty() { "waits for its turn".to_owned() } else { waits }
        };
        format!("queue {queue}: {why}")
    }

    fn waits_for(&self, name: &JobName) -> String {
        if self.instance.link != Link::Working {
            return "not known yet what survived".to_owned();
        }
        if let Some((run, _)) = self.orphans.iter().find(|(_, job)| job.as_ref() == Some(name)) {
            return format!(
                "run {run} of it lives and is not accounted for; `outlive recover` takes it back"
            );
        }
        let deps = self.spec(name).map(|spec| &spec.depends_on[..]).unwrap_or_default();
        let held = self.instance.held.as_ref().map(|why| format!("starts are held: {why}"));
        let missing: Vec<String> = deps.iter().filter_map(|dep| self.not_up(dep)).collect();
        let waits = (!missing.is_empty()).then(|| format!("waits for {}", missing.join(", ")));
        held.into_iter().chain(waits).collect::<Vec<_>>().join("; ")
    }

    /// What stands in the way of those who depend on this job.
    fn not_up(&self, dep: &JobName) -> Option<String> {
        match (self.job(dep), self.spec(dep)) {
            (Some(job), Some(spec)) if counts_as_up(job, spec) => None,
            (Some(job), _) => Some(format!("{dep} ({})", job.shown().as_str())),
            (None, _) => Some(format!("{dep} (no such job)")),
        }
    }
}
