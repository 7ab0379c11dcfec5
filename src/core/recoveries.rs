//! Incidents, and what became of them, counted from events alone.
//!
//! An incident of a job begins when a run of it ends that nobody had asked to end and the job is to run again, or
//! when a run that lives is found to be unwell. It is over when the job is up again (recovered), when it is given up
//! (failed), or when nobody wants it any more (dropped, and counted as neither). A run that ends before it was up
//! leaves its incident open.
//!
//! No event says that an end has no consequences: what follows is in the decision that records the end, or nothing
//! follows. So an end waits for the rest of its decision, whose events have one stamp, before it is an incident.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::{Event, Want};
use super::fault::Fault;
use super::ids::JobName;
use super::job::{Job, Phase};
use super::outcome::{Asked, ExitRecord};
use super::stats::{Cause, between};
use super::time::{Millis, Stamp};

/// Recoveries that are remembered one by one, the latest.
pub const RECENT_MAX: usize = 1000;

/// Failed incidents whose time is remembered, the latest.
const FAILED_MAX: usize = 100;

/// Upper bounds of the histogram, in milliseconds; what is beyond the last is in a bucket of its own.
pub const BOUNDS_MS: [u64; 10] = [100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000];

/// What an incident began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Trouble {
    /// The end of a run.
    End(Cause),
    /// A run that lives is unwell.
    Fault(Fault),
}

impl Trouble {
    /// The word as it is printed; no cause has that of a fault.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::End(cause) => cause.as_str(),
            Self::Fault(fault) => fault.as_str(),
        }
    }
}

/// An incident that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// What it began with.
    pub cause: Trouble,
    /// When.
    pub since: Stamp,
    /// Runs that were meant to end it and ended before they were up.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tries: u32,
    /// Whether the host was restarted since: then only the wall clock tells how long it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub crossed: bool,
}

impl Incident {
    const fn new(cause: Trouble, since: Stamp) -> Self {
        Self { cause, since, tries: 0, crossed: false }
    }

    /// How long it has lasted.
    #[must_use]
    pub fn lasted(&self, until: Stamp) -> Millis {
        if !self.crossed {
            return until.since(self.since);
        }
        Millis(u64::try_from(until.wall_us.saturating_sub(self.since.wall_us) / 1000).unwrap_or(0))
    }
}

/// What became of incidents of one cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// The job was up again.
    pub recovered: u64,
    /// It was given up.
    pub failed: u64,
    /// How long the recovered ones took together.
    pub sum_ms: u64,
}

/// A recovery that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered {
    /// How long it took.
    #[serde(rename = "d")]
    pub ms: u32,
    /// When it was over, in seconds since 1970.
    #[serde(rename = "t")]
    pub at_s: u32,
}

/// What became of all incidents of the instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// By what they began with.
    pub by_cause: BTreeMap<Trouble, Tally>,
    /// How many recoveries took so long; see [`BOUNDS_MS`].
    pub buckets: [u64; BOUNDS_MS.len() + 1],
    /// The latest recoveries, the latest last.
    pub recent: VecDeque<Recovered>,
    /// When the latest failed incidents were over, in seconds since 1970.
    pub failed_at_s: VecDeque<u32>,
}

impl Totals {
    /// Whether there was none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_cause.is_empty()
    }

    /// All causes together.
    #[must_use]
    pub fn all(&self) -> Tally {
        self.by_cause.values().fold(Tally::default(), |sum, one| Tally {
            recovered: sum.recovered.saturating_add(one.recovered),
            failed: sum.failed.saturating_add(one.failed),
            sum_ms: sum.sum_ms.saturating_add(one.sum_ms),
        })
    }

    /// The time that so many percent of the remembered recoveries do not exceed, in milliseconds: the nearest rank.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Option<u32> {
        let mut sorted: Vec<u32> = self.recent.iter().map(|one| one.ms).collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    }

    /// Recovered and failed after this moment, and how long the recovered ones took together; of those that are
    /// remembered.
    #[must_use]
    pub fn after(&self, s: u32) -> Tally {
        let mut tally = Tally::default();
        for one in self.recent.iter().filter(|one| one.at_s > s) {
            tally.recovered += 1;
            tally.sum_ms += u64::from(one.ms);
        }
        tally.failed = self.failed_at_s.iter().filter(|at| **at > s).count() as u64;
        tally
    }

    fn recovered(&mut self, incident: &Incident, at: Stamp) {
        let took = incident.lasted(at).0;
        let tally = self.by_cause.entry(incident.cause).or_default();
        tally.recovered = tally.recovered.saturating_add(1);
        tally.sum_ms = tally.sum_ms.saturating_add(took);
        let bucket = BOUNDS_MS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS_MS.len());
        self.buckets[bucket] = self.buckets[bucket].saturating_add(1);
        let one = Recovered { ms: u32::try_from(took).unwrap_or(u32::MAX), at_s: seconds(at) };
        keep(&mut self.recent, RECENT_MAX, one);
    }

    fn failed(&mut self, incident: &Incident, at: Stamp) {
        let tally = self.by_cause.entry(incident.cause).or_default();
        tally.failed = tally.failed.saturating_add(1);
        keep(&mut self.failed_at_s, FAILED_MAX, seconds(at));
    }
}

fn keep<T>(ring: &mut VecDeque<T>, max: usize, one: T) {
    while ring.len() >= max {
        ring.pop_front();
    }
    ring.push_back(one);
}

/// Seconds since 1970.
#[must_use]
pub fn seconds(at: Stamp) -> u32 {
    u32::try_from(at.wall_us / 1_000_000).unwrap_or(0)
}

/// All incidents.
#[derive(Debug, Clone, Default)]
pub struct Recoveries {
    /// Those that are over.
    pub totals: Totals,
    /// Those that are not.
    pub(super) open: BTreeMap<JobName, Incident>,
    /// Ends of which it is not known yet whether anything follows, and the stamp of their decision.
    ended: (Stamp, BTreeMap<JobName, Incident>),
}

/// What a decision has not said yet is no part of the memory.
impl PartialEq for Recoveries {
    fn eq(&self, other: &Self) -> bool {
        (&self.totals, &self.open) == (&other.totals, &other.open)
    }
}

impl Recoveries {
    /// The incidents that are not over, by job.
    pub fn open(&self) -> impl ExactSizeIterator<Item = (&JobName, &Incident)> {
        self.open.iter()
    }

    /// The one of this job that is not over.
    #[must_use]
    pub fn of(&self, job: &JobName) -> Option<&Incident> {
        self.open.get(job)
    }

    fn knows(&self, job: &JobName) -> bool {
        self.open.contains_key(job) || self.ended.1.contains_key(job)
    }

    fn drop_job(&mut self, job: &JobName) {
        self.open.remove(job);
        self.ended.1.remove(job);
    }

    /// Its run is gone: whether anything follows, the rest of the decision says.
    fn wait_for_more(&mut self, job: &JobName, at: Stamp) {
        if let Some(incident) = self.open.remove(job) {
            if self.ended.0 != at {
                self.ended = (at, BTreeMap::new());
            }
            self.ended.1.insert(job.clone(), incident);
        }
    }

    /// It is to run again.
    fn goes_on(&mut self, job: &JobName, at: Stamp) {
        if let Some(incident) = self.ended.1.remove(job).filter(|_| self.ended.0 == at) {
            self.open.insert(job.clone(), incident);
        }
    }

    fn begins(&mut self, job: &JobName, incident: Incident) {
        self.open.entry(job.clone()).or_insert(incident);
    }

    fn recovered(&mut self, job: &JobName, at: Stamp) {
        if let Some(incident) = self.open.remove(job) {
            self.totals.recovered(&incident, at);
        }
    }

    fn failed(&mut self, job: &JobName, at: Stamp) {
        self.goes_on(job, at);
        if let Some(incident) = self.open.remove(job) {
            self.totals.failed(&incident, at);
        }
    }
}

/// Remembers an event of the instance. `lives`: whether a job has a run that lives.
pub(super) fn note_instance(all: &mut Arc<Recoveries>, event: &Event, lives: impl Fn(&JobName) -> bool) {
    if all.open.is_empty() && all.ended.1.is_empty() {
        return;
    }
    match event {
        Event::ShutdownBegun { keep_jobs, .. } => {
            let all = Arc::make_mut(all);
            all.open.retain(|job, _| *keep_jobs && lives(job));
            all.ended.1.clear();
        }
        Event::SupervisorStarted { .. } | Event::RecoveryLeft { .. } => {
            Arc::make_mut(all).ended.1.clear();
        }
        _ => {}
    }
}

/// Another boot clock.
pub(super) fn meet_epoch(all: &mut Arc<Recoveries>) {
    if !all.open.is_empty() {
        Arc::make_mut(all).open.values_mut().for_each(|incident| incident.crossed = true);
    }
}

/// What has to be known of a job before an event changes it.
#[derive(Clone, Copy)]
pub(super) struct Before {
    /// Whether it was being stopped because somebody had asked for that.
    asked: bool,
    /// What was wrong with its run.
    fault: Option<Fault>,
}

impl Before {
    pub(super) fn of(job: &Job) -> Self {
        match &job.phase {
            Phase::Stopping { stop, .. } => Self { asked: !stop.by.is_failure(), fault: fault_of(&stop.by) },
            Phase::Running { ill, .. } => Self { asked: false, fault: ill.as_ref().map(|ill| ill.fault) },
            Phase::Stopped
            | Phase::Waiting
            | Phase::Queued
            | Phase::Starting { .. }
            | Phase::Leftovers { .. }
            | Phase::Backoff { .. }
            | Phase::Held { .. }
            | Phase::Exited
            | Phase::Fatal { .. } => Self { asked: false, fault: None },
        }
    }
}

const fn fault_of(asked: &Asked) -> Option<Fault> {
    match asked {
        Asked::Health { fault, .. } => Some(*fault),
        Asked::Nobody
        | Asked::Operator { .. }
        | Asked::Reload
        | Asked::Shutdown
        | Asked::SupervisorDeath
        | Asked::Group { .. }
        | Asked::Policy { .. } => None,
    }
}

/// Remembers what an event means to its job, which has remembered it already.
pub(super) fn note(
    all: &mut Arc<Recoveries>,
    name: &JobName,
    (before, job): (Before, &Job),
    event: &Event,
    at: Stamp,
) {
    let known = all.knows(name);
    match event {
        Event::RunEnded { record, failures, .. } if is_of(job, record) => {
            let cause = Cause::of(&record.outcome, &record.asked, *failures > 0);
            ended(all, name, (before, job), (record, cause), at);
        }
        Event::RunUnwell { fault, .. } if !known && job.ill().is_some() => {
            Arc::make_mut(all).begins(name, Incident::new(Trouble::Fault(*fault), at));
        }
        // Nothing is known of it, and these tell nothing new.
        _ if !known => {}
        Event::TreeGone { .. } | Event::Disowned { .. } if job.phase == Phase::Exited => {
            Arc::make_mut(all).wait_for_more(name, at);
        }
        Event::RunRequested { .. }
        | Event::Queued { .. }
        | Event::WaitBegun { .. }
        | Event::BackedOff { .. }
        | Event::Rested { .. }
        | Event::Held { .. } => Arc::make_mut(all).goes_on(name, at),
        Event::GaveUp { .. } => Arc::make_mut(all).failed(name, at),
        Event::RunStarted { at: started, .. } | Event::RunAdopted { started, .. } if is_up(job) => {
            // One that was there before the trouble began is up since it is known to be.
            let before = all.of(name).is_some_and(|open| open.crossed || open.since > *started);
            Arc::make_mut(all).recovered(name, if before { at } else { *started });
        }
        Event::RunReady { .. } | Event::RunWell { .. } if is_up(job) => {
            Arc::make_mut(all).recovered(name, at);
        }
        Event::WantSet { want: Want::Up, .. } => {
            Arc::make_mut(all).ended.1.remove(name);
        }
        Event::WantSet { want: Want::Down, .. }
        | Event::JobAdded { .. }
        | Event::JobSubmitted { .. }
        | Event::JobRemoved { .. } => Arc::make_mut(all).drop_job(name),
        _ => {}
    }
}

/// Whether this is the end that the job has remembered just now.
fn is_of(job: &Job, record: &ExitRecord) -> bool {
    job.last_end().is_some_and(|last| last.run == record.run && last.ended == record.ended)
}

fn is_up(job: &Job) -> bool {
    matches!(job.phase, Phase::Running { ready_at: None, ill: None, .. })
}

fn ended(
    all: &mut Arc<Recoveries>,
    name: &JobName,
    (before, job): (Before, &Job),
    (record, cause): (&ExitRecord, Option<Cause>),
    at: Stamp,
) {
    let known = all.knows(name);
    let bad = cause.is_some_and(|cause| cause.is_bad());
    if bad && !before.asked && job.want == Want::Up && !job.removed {
        let all = Arc::make_mut(all);
        if let Some(open) = all.open.get_mut(name) {
            // The run that is unwell is what the incident is about, and none that was to end it.
            open.tries += u32::from(before.fault.is_none());
        } else {
            let fault = fault_of(&record.asked).filter(|_| cause == Some(Cause::Unwell));
            let trouble = match (fault, cause) {
                (Some(fault), _) => Trouble::Fault(fault),
                (None, Some(cause)) => Trouble::End(cause),
                (None, None) => return,
            };
            let mut incident = Incident::new(trouble, record.ended);
            // A record of another boot: its boot clock says nothing.
            incident.crossed = between(record.ended, at).is_none();
            all.begins(name, incident);
        }
    } else if !known {
        return;
    } else if cause == Some(Cause::Ok) {
        Arc::make_mut(all).recovered(name, at);
        return;
    }
    if job.phase == Phase::Exited {
        Arc::make_mut(all).wait_for_more(name, at);
    }
}

const fn is_zero(n: &u32) -> bool {
    *n == 0
}
