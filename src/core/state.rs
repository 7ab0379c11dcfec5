//! The memory of the whole supervisor, and how events change it.
//!
//! Everything in [`State`] follows from the events of the log, with two exceptions that are handed in:
//! the settings of configured jobs, those before a reload under way included (they may hold secrets, so they
//! are never in the log), and [`State::shutdown_timeout`]. Both are read when something is decided, never by [`State::apply`]:
//! a replay before the configuration is read gives the same memory as living through it did. How many
//! ended runs are remembered ([`State::keep_runs`]) is handed in before the replay; it decides nothing.
//!
//! Three indexes are kept beside the jobs so that one input costs the same with a thousand jobs as with
//! ten: which job a live run belongs to, which jobs depend on a job, and which deadline is next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Decision;
use super::alerts::{self, Alerts};
use super::event::{Event, Want};
use super::identity::Epoch;
use super::ids::{Generation, JobName, RunId};
use super::instance::{Instance, Life, Link};
use super::job::{Job, PastRun, Phase};
use super::past::note_past;
use super::progress::{self, Published};
use super::queue::{self, Queues, Stands};
use super::recoveries::{self, Recoveries};
use super::rest::Rest;
use super::saga::{Before, Sagas, Verb};
use super::spec::JobSpec;
use super::stats::{self, Stats};
use super::time::{Millis, Stamp};

/// Settings of jobs by name.
pub type Specs = BTreeMap<JobName, Arc<JobSpec>>;

/// Jobs that depend on a job.
pub(super) type Dependents = BTreeMap<JobName, Vec<JobName>>;

/// A job and its history.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) job: Job,
    pub(super) past: VecDeque<PastRun>,
    /// Its place among the submitted jobs that are over, if it is one.
    pub(super) over: Option<u64>,
    /// What the runs before the latest came to; shared with readers.
    pub(super) stats: Option<Arc<Stats>>,
    pub(super) published: Option<Box<Published>>,
}

/// The memory.
#[derive(Debug, Clone)]
pub struct State {
    /// What there is besides the jobs.
    pub instance: Instance,
    /// How long an orderly shutdown may take before everything left is killed.
    pub shutdown_timeout: Millis,
    /// Ended runs remembered for each job; handed in before the replay.
    pub keep_runs: usize,
    /// Jobs, but for those at rest.
    pub(super) jobs: BTreeMap<JobName, Box<Entry>>,
    /// Jobs at rest.
    pub(super) rest: Rest,
    pub(super) specs: Specs,
    /// Operations of several steps.
    pub sagas: Sagas,
    /// The configured settings before the reload under way.
    pub(super) before: Before,
    pub(super) dependents: Dependents,
    /// Runs that live or may live.
    pub(super) live: BTreeMap<RunId, JobName>,
    /// Those of them that were asked for before the boot (or container start) the last supervisor met.
    pub(super) earlier: BTreeSet<RunId>,
    pub(super) deadlines: BTreeSet<(Stamp, JobName)>,
    /// Submitted jobs that are over, in the order in which they came to their end.
    pub(super) finished: BTreeMap<u64, JobName>,
    /// How many have come to an end so far.
    pub(super) overs: u64,
    /// Runs that were reported as orphans, and live; and the jobs they say they belong to.
    pub(super) orphans: BTreeMap<RunId, Option<JobName>>,
    /// Incidents; shared with readers.
    pub(super) recoveries: Arc<Recoveries>,
    /// Alerts; shared with readers.
    pub(super) alerts: Arc<Alerts>,
    /// Who stands in which line, and what is said of queues.
    pub queues: Queues,
}

impl Default for State {
    fn default() -> Self {
        Self {
            instance: Instance::default(),
            shutdown_timeout: Millis::from_secs(60),
            keep_runs: super::job::KEEP_RUNS,
            jobs: BTreeMap::new(),
            rest: Rest::default(),
            specs: BTreeMap::new(),
            sagas: Sagas::default(),
            before: None,
            dependents: BTreeMap::new(),
            live: BTreeMap::new(),
            earlier: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            finished: BTreeMap::new(),
            overs: 0,
            orphans: BTreeMap::new(),
            recoveries: Arc::default(),
            alerts: Arc::default(),
            queues: Queues::default(),
        }
    }
}

impl State {
    /// An empty memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers one event. `at` is the stamp of its line in the log. Never fails: what does not fit is
    /// ignored, because a supervisor that cannot read its past must still look after its jobs.
    pub fn apply(&mut self, event: &Event, at: Stamp) {
        self.note_incidents(event);
        match event {
            Event::SupervisorStarted { generation, version, epoch, recovery, ending, born_us } => {
                self.began(*generation, version, (epoch, *born_us), (*recovery, *ending), at);
            }
            Event::OrphanFound { run, job } => {
                self.orphans.insert(*run, job.clone());
            }
            Event::OrphanGone { run, .. } => drop(self.orphans.remove(run)),
            Event::ShutdownBegun { .. } => {
                self.instance.apply(event, at);
                self.rest_all(|phase| matches!(phase, Phase::Waiting | Phase::Backoff { .. }), at);
                self.no_retries();
            }
            Event::Surveyed
            | Event::LossSettled { .. }
            | Event::KeeperLost
            | Event::RecoveryLeft { .. }
            | Event::StartsHeld { .. }
            | Event::StartsReleased
            | Event::ShutdownForced => self.instance.apply(event, at),
            Event::Acted { .. } => {}
            Event::AlertRaised { .. } | Event::AlertCleared { .. } => {
                alerts::note(&mut self.alerts, event, at);
            }
            Event::SagaBegun { .. }
            | Event::SagaStepDone { .. }
            | Event::SagaUndoing { .. }
            | Event::SagaEnded { .. } => self.sagas.apply(event, at),
            Event::JobSubmitted { spec, .. } => {
                self.wake(&spec.name);
                self.insert_spec(Arc::new((**spec).clone()));
                self.job_event(&spec.name, event, at);
            }
            Event::WantSet { job, want, .. } => {
                self.wished(job, *want);
                self.job_event(job, event, at);
            }
            Event::QueuePaused { .. } | Event::QueueResumed { .. } => self.queues.note(event),
            Event::RunRequested { job, run, .. } => {
                self.instance.newest = self.instance.newest.max(Some(*run));
                self.job_event(job, event, at);
            }
            Event::JobAdded { job, .. }
            | Event::JobRemoved { job }
            | Event::Queued { job, .. }
            | Event::RunStarted { job, .. }
            | Event::RunReady { job, .. }
            | Event::RunAdopted { job, .. }
            | Event::RunExtended { job, .. }
            | Event::RunUnwell { job, .. }
            | Event::HealStepBegun { job, .. }
            | Event::RunWell { job, .. }
            | Event::TrialBegun { job, .. }
            | Event::TrialPassed { job, .. }
            | Event::StopBegun { job, .. }
            | Event::StopStepBegun { job, .. }
            | Event::RunEnded { job, .. }
            | Event::RunProgress { job, .. }
            | Event::TreeGone { job, .. }
            | Event::Disowned { job, .. }
            | Event::WaitBegun { job }
            | Event::BackedOff { job, .. }
            | Event::Rested { job }
            | Event::Held { job, .. }
            | Event::Retried { job }
            | Event::GroupRestart { job, .. }
            | Event::GaveUp { job, .. } => self.job_event(job, event, at),
        }
    }

    /// Before the survey, a wish is remembered beside the job: what is found may belong to one that is not known.
    fn wished(&mut self, job: &JobName, want: Want) {
        if self.instance.link == Link::Recovering {
            match want {
                Want::Down => self.instance.stopped.insert(job.clone()),
                Want::Up => self.instance.stopped.remove(job),
            };
        }
    }

    fn note_incidents(&mut self, event: &Event) {
        let jobs = &self.jobs;
        let lives = |job: &JobName| jobs.get(job).is_some_and(|entry| entry.job.run().is_some());
        recoveries::note_instance(&mut self.recoveries, event, lives);
    }

    /// Remembers that entries are missing here. Called by the reader of the event log, in the place of what
    /// it cannot read: a hole is as much a part of the log as what is around it.
    pub const fn missed(&mut self, entries: u64) {
        self.instance.missing = self.instance.missing.saturating_add(entries);
    }

    /// Whether this run was asked for after all that are remembered: what there was about it is missing. The ids of
    /// runs are in the order of time; where the clock was set back this says no.
    #[must_use]
    pub fn is_beyond(&self, run: RunId, job: Option<&JobName>) -> bool {
        self.instance.newest.is_none_or(|newest| run > newest) && !self.has_heard_of(run, job)
    }

    /// Whether anything is remembered of a run.
    pub(super) fn has_heard_of(&self, run: RunId, job: Option<&JobName>) -> bool {
        let past = job.and_then(|job| self.entry(job)).map(|entry| &entry.past);
        self.live.contains_key(&run)
            || self.orphans.contains_key(&run)
            || past.is_some_and(|past| past.iter().any(|past| past.run == run))
    }

    /// Remembers a decision: its events, and the settings it brought. The driver calls this once for
    /// each decision, with the stamp that goes into the log line.
    pub fn commit(&mut self, decision: &Decision, at: Stamp) {
        let begun = |event: &Event| matches!(event, Event::SagaBegun { plan } if plan.verb == Verb::Reload);
        if decision.events.iter().any(begun) {
            self.before = Some(Arc::new(self.configured_specs()));
        }
        for event in &decision.events {
            self.apply(event, at);
        }
        if let Some(specs) = &decision.specs {
            self.set_specs(specs);
        }
        if self.sagas.open.is_none() {
            self.before = None;
        }
    }

    fn configured_specs(&self) -> Vec<JobSpec> {
        let theirs = |name: &JobName| {
            self.jobs.get(name).is_some_and(|entry| entry.job.submitted || entry.job.removed)
        };
        self.specs.iter().filter(|(name, _)| !theirs(name)).map(|(_, spec)| (**spec).clone()).collect()
    }

    /// Hands in the settings before the reload under way, right after a replay and before
    /// [`State::set_specs`].
    pub fn set_before(&mut self, specs: Vec<JobSpec>) {
        self.before = Some(Arc::new(specs));
    }

    /// Puts the configured settings in the place of the earlier ones. Submitted jobs keep theirs, and so
    /// does a removed job whose run still lives. Called by [`State::commit`]; by the driver itself only
    /// right after a replay, with the settings its predecessor had accepted, if they are known.
    pub fn set_specs(&mut self, specs: &[Arc<JobSpec>]) {
        let (jobs, sagas) = (&self.jobs, &self.sagas);
        self.specs.retain(|name, _| {
            jobs.get(name).is_some_and(|entry| entry.job.submitted || entry.job.removed)
                || sagas.removes(name)
        });
        for spec in self.before.iter().flat_map(|before| &**before) {
            if sagas.removes(&spec.name) {
                self.specs.entry(spec.name.clone()).or_insert_with(|| Arc::new(spec.clone()));
            }
        }
        for spec in specs {
            let theirs = self.rest.contains(&spec.name)
                || jobs.get(&spec.name).is_some_and(|entry| entry.job.submitted);
            if !theirs {
                self.specs.insert(spec.name.clone(), Arc::clone(spec));
            }
        }
        self.dependents = dependents_of(&self.specs);
    }

    /// The next moment at which [`super::decide`] wants an `Input::Tick`, if nothing happens before.
    /// `None` while the keeper is away: a survey ends that, and settles what fell due meanwhile.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Stamp> {
        if self.instance.link != Link::Working {
            return None;
        }
        let job = self.deadlines.first().map(|(at, _)| *at);
        [job, self.forced_at(), self.saga_deadline()].into_iter().flatten().min()
    }

    /// When an orderly shutdown turns into killing, if one is under way and has not yet.
    pub(super) fn forced_at(&self) -> Option<Stamp> {
        let shutdown = self.instance.shutdown.as_ref()?;
        let pending = !shutdown.forced && !shutdown.keep_jobs && !self.live.is_empty();
        pending.then(|| shutdown.since.plus(self.shutdown_timeout))
    }

    /// The jobs with a deadline at or before `now`.
    pub(super) fn due(&self, now: Stamp) -> impl Iterator<Item = &JobName> {
        self.deadlines.iter().take_while(move |(at, _)| at.boot_us <= now.boot_us).map(|(_, job)| job)
    }

    /// Whether a run that lives or may live was asked for in an earlier epoch: its process is gone.
    #[must_use]
    pub fn is_of_earlier_epoch(&self, run: RunId) -> bool {
        self.earlier.contains(&run)
    }

    fn began(
        &mut self,
        generation: Generation,
        version: &str,
        (epoch, born_us): (&Epoch, u64),
        (recovery, ending): (bool, bool),
        at: Stamp,
    ) {
        let old = &self.instance;
        let same_epoch = old.epoch == *epoch;
        let life = if !same_epoch || old.shutdown.is_some() {
            Life::New
        } else {
            // A survey that never came leaves its task to this supervisor.
            if old.link == Link::Recovering { old.life } else { Life::Continued }
        };
        if !same_epoch {
            self.earlier.extend(self.live.keys().copied());
        }
        self.instance = Instance {
            generation,
            version: version.to_owned(),
            epoch: epoch.clone(),
            born_us,
            recovery,
            link: Link::Recovering,
            life,
            shutdown: if ending { old.shutdown.clone() } else { None },
            missing: old.missing,
            settled: old.settled,
            newest: old.newest,
            stopped: old.stopped.clone(),
            // What it was for is looked for anew after a reboot.
            held: old.held.clone().filter(|_| same_epoch),
        };
        if !same_epoch {
            self.rest.meet_epoch();
            recoveries::meet_epoch(&mut self.recoveries);
        }
        for (name, entry) in &mut self.jobs {
            let before = entry.job.deadline();
            entry.job.met_supervisor((same_epoch, recovery), at);
            move_deadline(&mut self.deadlines, name, before, entry.job.deadline());
        }
    }

    /// Whether the supervisor before was in recovery mode, of this very instance, and nobody has ended that. Another
    /// instance begins as usual, however this one ended.
    #[must_use]
    pub fn stays_in_recovery(&self, epoch: &Epoch, born_us: u64) -> bool {
        let old = &self.instance;
        old.recovery && born_us != 0 && (&old.epoch, old.born_us) == (epoch, born_us)
    }

    /// Ends all phases of one sort that lead to a start.
    fn rest_all(&mut self, which: impl Fn(&Phase) -> bool, at: Stamp) {
        for (name, entry) in &mut self.jobs {
            if which(&entry.job.phase) {
                let before = entry.job.deadline();
                entry.job.phase = Phase::Stopped;
                entry.job.since = at;
                move_deadline(&mut self.deadlines, name, before, None);
            }
        }
    }

    /// What was given up is not tried again in this life of the instance.
    fn no_retries(&mut self) {
        for (name, entry) in &mut self.jobs {
            let before = entry.job.deadline();
            entry.job.no_retry();
            move_deadline(&mut self.deadlines, name, before, entry.job.deadline());
        }
    }

    fn job_event(&mut self, name: &JobName, event: &Event, at: Stamp) {
        let new = match event {
            Event::JobAdded { want, .. } => Some(Job::new(*want, false, at)),
            Event::JobSubmitted { .. } => Some(Job::new(Want::Up, true, at)),
            _ => None,
        };
        self.queues.note(event);
        self.wake(name);
        if let Some(job) = new {
            let entry =
                || Box::new(Entry { job, past: VecDeque::new(), over: None, stats: None, published: None });
            self.jobs.entry(name.clone()).or_insert_with(entry);
        }
        let Some(entry) = self.jobs.get_mut(name) else { return };
        stats::note(&mut entry.stats, &entry.job, entry.past.back(), event, at);
        progress::note(&mut entry.published, &entry.job, entry.past.back(), event, at);
        let job = &mut entry.job;
        let (run, deadline, stood) = (job.run(), job.deadline(), Stands::of(name, job));
        let finished = job.submitted && job.is_finished();
        let before = recoveries::Before::of(job);
        job.apply(event, at);
        recoveries::note(&mut self.recoveries, name, (before, job), event, at);
        note_past(&mut entry.past, event, self.keep_runs);
        if run != job.run() {
            if let Some(run) = run {
                self.live.remove(&run);
                self.earlier.remove(&run);
            }
            if let Some(run) = job.run() {
                self.live.insert(run, name.clone());
                self.orphans.remove(&run);
            }
        }
        self.queues.change((stood, Stands::of(name, job)));
        let gone = job.removed && job.run().is_none();
        let deadline_now = if gone { None } else { job.deadline() };
        let finished_now = !gone && job.submitted && job.is_finished();
        move_deadline(&mut self.deadlines, name, deadline, deadline_now);
        if finished && !finished_now {
            if let Some(over) = entry.over.take() {
                self.finished.remove(&over);
            }
        } else if finished_now && entry.over.is_none() {
            self.overs += 1;
            entry.over = Some(self.overs);
            self.finished.insert(self.overs, name.clone());
        }
        if gone {
            self.jobs.remove(name);
            if let Some(spec) = self.specs.remove(name) {
                self.unlink(&spec);
            }
        }
    }

    /// Takes a job at rest into memory: something happens to it.
    fn wake(&mut self, name: &JobName) {
        // Most of what happens is about a job that is awake, and to look there is cheaper.
        if self.jobs.contains_key(name) {
            return;
        }
        if let Some(rested) = self.rest.wake(name) {
            if let Some(spec) = rested.spec {
                self.insert_spec(spec);
            }
            self.jobs.insert(name.clone(), Box::new(rested.entry));
        }
    }

    pub(super) fn insert_spec(&mut self, spec: Arc<JobSpec>) {
        if let Some(old) = self.specs.remove(&spec.name) {
            self.unlink(&old);
        }
        for dep in &spec.depends_on {
            // In the order in which all of them are found at once.
            let list = self.dependents.entry(dep.clone()).or_default();
            let at = list.partition_point(|name| *name < spec.name);
            list.insert(at, spec.name.clone());
        }
        self.specs.insert(spec.name.clone(), spec);
    }

    fn unlink(&mut self, spec: &JobSpec) {
        for dep in &spec.depends_on {
            if let Some(list) = self.dependents.get_mut(dep) {
                list.retain(|name| *name != spec.name);
                if list.is_empty() {
                    self.dependents.remove(dep);
                }
            }
        }
    }
}

/// Two memories are equal that say the same, whatever of it is at rest.
impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        // The numbers of jobs that are over are an order, and nothing else.
        let job = |state: &Self, name: &JobName| {
            let known =
                state.entry(name).map(|entry| (entry.job.clone(), entry.past.clone(), entry.stats.clone()));
            (known, state.spec(name).cloned())
        };
        self.instance == other.instance
            && (self.shutdown_timeout, self.keep_runs) == (other.shutdown_timeout, other.keep_runs)
            && (&self.live, &self.earlier) == (&other.live, &other.earlier)
            && (&self.deadlines, &self.orphans) == (&other.deadlines, &other.orphans)
            && self.sagas == other.sagas
            && (&self.recoveries, &self.alerts) == (&other.recoveries, &other.alerts)
            && self.queues == other.queues
            && self.finished.values().eq(other.finished.values())
            && self.names().eq(other.names())
            && self.names().all(|name| job(self, name) == job(other, name))
    }
}

impl Job {
    /// A new supervisor looks at a job it remembers.
    fn met_supervisor(&mut self, (same_epoch, recovery): (bool, bool), now: Stamp) {
        if !same_epoch {
            // The boot clock began anew: stamps of the old one mean nothing, so what waited is due.
            self.window.clear();
            self.group_restarts.clear();
            self.trial = None;
        }
        match &mut self.phase {
            Phase::Waiting => self.phase = Phase::Stopped,
            Phase::Backoff { .. } if recovery => self.phase = Phase::Stopped,
            Phase::Fatal { .. } if recovery => self.no_retry(),
            Phase::Fatal { retry_at: Some(until), .. } if !same_epoch => *until = Stamp::default(),
            Phase::Backoff { until } if !same_epoch => *until = Stamp::default(),
            Phase::Running { ready_at, ill, .. } if !same_epoch => {
                let rung = ill.as_mut().and_then(|ill| ill.until.as_mut());
                ready_at.iter_mut().chain(rung).for_each(|at| *at = Stamp::default());
            }
            Phase::Stopping { ladder: Some(ladder), .. } | Phase::Leftovers { ladder: Some(ladder), .. }
                if !same_epoch =>
            {
                ladder.until = Stamp::default();
            }
            Phase::Queued if !same_epoch => {
                let later = self.place.as_ref().and_then(|place| place.not_before);
                if let (Some(place), Some(at)) = (&mut self.place, later) {
                    place.not_before = Some(queue::later(now, at.wall_us).unwrap_or(now));
                }
            }
            Phase::Stopped
            | Phase::Queued
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Leftovers { .. }
            | Phase::Backoff { .. }
            | Phase::Held { .. }
            | Phase::Exited
            | Phase::Fatal { .. } => {}
        }
    }
}

fn move_deadline(
    deadlines: &mut BTreeSet<(Stamp, JobName)>,
    job: &JobName,
    before: Option<Stamp>,
    after: Option<Stamp>,
) {
    if before == after {
        return;
    }
    if let Some(at) = before {
        deadlines.remove(&(at, job.clone()));
    }
    if let Some(at) = after {
        deadlines.insert((at, job.clone()));
    }
}

/// Turns `depends_on` around.
pub(super) fn dependents_of(specs: &Specs) -> Dependents {
    let mut all = Dependents::new();
    for spec in specs.values() {
        for dep in &spec.depends_on {
            all.entry(dep.clone()).or_default().push(spec.name.clone());
        }
    }
    all
}
