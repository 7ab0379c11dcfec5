//! A decision in the making: the events and effects so far, and copies of the jobs they changed.
//!
//! One input may lead to a chain (a run ends, so the next is asked for), and each link must see what the
//! one before it did. The memory itself stays untouched, so changed jobs are copied: only those, because
//! copying a thousand jobs for each of a thousand ends would be a million copies.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::effect::Effect;
use super::event::{Event, Want};
use super::ids::{JobName, RunId};
use super::instance::{Instance, Link};
use super::job::Job;
use super::queue::{self, Lines, Stands};
use super::rung::Rung;
use super::spec::JobSpec;
use super::state::{Dependents, Specs, State, dependents_of};
use super::time::Stamp;
use super::{ActAnswer, Decision, Fresh};

/// Submitted jobs that are over and still listed.
pub(super) const FINISHED_MAX: usize = 200;

/// Jobs forgotten in one decision for that reason. A decision is one line of the log, which has an end.
const FORGOTTEN_AT_ONCE: usize = 1000;

pub(super) struct Draft<'a> {
    /// The memory as it was before this input.
    pub(super) base: &'a State,
    pub(super) now: Stamp,
    pub(super) fresh: &'a mut dyn Fresh,
    /// The instance as it is by now.
    pub(super) instance: Instance,
    /// Changed jobs; `None`: forgotten.
    jobs: BTreeMap<JobName, Option<Job>>,
    /// Settings that this input brought, all of them, and what depends on what by them.
    specs: Option<(Specs, Dependents)>,
    /// Settings of the job that this input submits.
    submitted: Option<Arc<JobSpec>>,
    /// When runs of a survey were last seen alive, wall clock.
    pub(super) seen_us: BTreeMap<RunId, i64>,
    /// The last rungs whose signals were sent to runs of a survey.
    pub(super) sent: BTreeMap<RunId, Rung>,
    /// Orphans as they are by now.
    orphans: BTreeMap<RunId, Option<JobName>>,
    /// Whether tasks are held instead of started.
    pub(super) holding: bool,
    /// Whether starts are left to the end of the decision.
    pub(super) putting_off: bool,
    /// What has changed in the lines.
    pub(super) lines: Lines,
    /// Runs that live or may live by now.
    live: usize,
    out: Decision,
}

impl<'a> Draft<'a> {
    pub(super) fn new(base: &'a State, now: Stamp, fresh: &'a mut dyn Fresh) -> Self {
        Self {
            base,
            now,
            fresh,
            instance: base.instance.clone(),
            jobs: BTreeMap::new(),
            specs: None,
            submitted: None,
            seen_us: BTreeMap::new(),
            sent: BTreeMap::new(),
            orphans: base.orphans.clone(),
            holding: false,
            putting_off: false,
            lines: Lines::default(),
            live: base.live.len(),
            out: Decision::default(),
        }
    }

    /// The job as it is by now.
    pub(super) fn job(&self, name: &JobName) -> Option<&Job> {
        match self.jobs.get(name) {
            Some(changed) => changed.as_ref(),
            None => self.base.job(name),
        }
    }

    /// Records an event and lets everything after it see what it did. Events of the instance come first
    /// in their decision: what they do to jobs (a shutdown ends all waiting) is seen only once committed.
    pub(super) fn record(&mut self, event: Event) {
        match &event {
            Event::OrphanFound { run, job } => drop(self.orphans.insert(*run, job.clone())),
            Event::OrphanGone { run, .. } | Event::RunRequested { run, .. } => {
                self.orphans.remove(run);
            }
            _ => {}
        }
        self.lines.note(&event);
        match event.job() {
            None => self.instance.apply(&event, self.now),
            Some(name) => self.change(&name.clone(), &event),
        }
        self.out.events.push(event);
    }

    fn change(&mut self, name: &JobName, event: &Event) {
        let mut job = match (self.job(name), event) {
            (Some(job), _) => job.clone(),
            (None, Event::JobAdded { want, .. }) => Job::new(*want, false, self.now),
            (None, Event::JobSubmitted { .. }) => Job::new(Want::Up, true, self.now),
            (None, _) => return,
        };
        let (before, stood) = (job.run().is_some(), Stands::of(name, &job));
        job.apply(event, self.now);
        let after = job.run().is_some();
        self.lines.change((stood, Stands::of(name, &job)));
        match (before, after) {
            (false, true) => self.live += 1,
            (true, false) => self.live = self.live.saturating_sub(1),
            (true, true) | (false, false) => {}
        }
        let gone = job.removed && !after;
        self.jobs.insert(name.clone(), (!gone).then_some(job));
    }

    /// The orphans as they are by now, and the jobs they say they belong to.
    pub(super) const fn orphans(&self) -> &BTreeMap<RunId, Option<JobName>> {
        &self.orphans
    }

    /// Whether an orphan says that it belongs to this job.
    pub(super) fn has_orphan(&self, name: &JobName) -> bool {
        self.orphans.values().any(|job| job.as_ref() == Some(name))
    }

    /// The number of the next place in a line.
    pub(super) const fn next_number(&mut self) -> u64 {
        self.lines.given += 1;
        let from =
            if self.base.queues.numbers > queue::FIRST { self.base.queues.numbers } else { queue::FIRST };
        from + self.lines.given
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        let again = matches!(effect, Effect::Exit { .. }) && self.out.effects.contains(&effect);
        if !again {
            self.out.effects.push(effect);
        }
    }

    pub(super) fn answer(&mut self, job: &JobName, changed: bool, text: impl Into<String>) {
        self.out.answers.push(ActAnswer { job: job.clone(), changed, ok: true, text: text.into() });
    }

    pub(super) fn refuse(&mut self, job: &JobName, text: impl Into<String>) {
        self.out.answers.push(ActAnswer { job: job.clone(), changed: false, ok: false, text: text.into() });
    }

    /// Takes new settings into use for the rest of this decision, and for the time after it.
    /// Those of jobs that `keep` names stay as they are.
    pub(super) fn bring_specs(&mut self, configured: &[JobSpec], keep: impl Fn(&JobName) -> bool) {
        let mut all: Specs = self
            .base
            .specs
            .iter()
            .filter(|(name, _)| keep(name) || self.job(name).is_some_and(|job| job.submitted || job.removed))
            .map(|(name, spec)| (name.clone(), Arc::clone(spec)))
            .collect();
        let specs: Vec<Arc<JobSpec>> = configured.iter().cloned().map(Arc::new).collect();
        for spec in &specs {
            if !self.job(&spec.name).is_some_and(|job| job.submitted) {
                all.insert(spec.name.clone(), Arc::clone(spec));
            }
        }
        let dependents = dependents_of(&all);
        self.specs = Some((all, dependents));
        self.out.specs = Some(specs);
    }

    /// A submitted job brings its settings in its event.
    pub(super) fn bring_spec(&mut self, spec: &JobSpec) {
        self.submitted = Some(Arc::new(spec.clone()));
    }

    /// The job's settings, if they are known.
    pub(super) fn spec(&self, name: &JobName) -> Option<Arc<JobSpec>> {
        if let Some(spec) = self.submitted.as_ref().filter(|spec| spec.name == *name) {
            return Some(Arc::clone(spec));
        }
        let specs = self.specs.as_ref().map_or(&self.base.specs, |(specs, _)| specs);
        specs.get(name).or_else(|| self.base.spec_at_rest(name)).cloned()
    }

    /// The jobs that name this one in `depends_on`.
    pub(super) fn dependents(&self, name: &JobName) -> Vec<JobName> {
        let all = self.specs.as_ref().map_or(&self.base.dependents, |(_, dependents)| dependents);
        all.get(name).cloned().unwrap_or_default()
    }

    /// Whether a job that depends on this one has a run.
    pub(super) fn has_live_dependents(&self, name: &JobName) -> bool {
        let all = self.specs.as_ref().map_or(&self.base.dependents, |(_, dependents)| dependents);
        let mut dependents = all.get(name).into_iter().flatten();
        dependents.any(|other| other != name && self.job(other).is_some_and(|job| job.run().is_some()))
    }

    /// The events so far.
    pub(super) fn events(&self) -> &[Event] {
        &self.out.events
    }

    /// Names of the jobs that this input has changed.
    pub(super) fn changed(&self) -> impl Iterator<Item = &JobName> {
        self.jobs.keys()
    }

    /// Names of all jobs as they are by now, but for those at rest.
    pub(super) fn names(&self) -> Vec<JobName> {
        let known = self.base.jobs.keys().filter(|name| !self.jobs.contains_key(*name));
        let changed = self.jobs.iter().filter(|(_, job)| job.is_some()).map(|(name, _)| name);
        let mut all: Vec<JobName> = known.chain(changed).cloned().collect();
        all.sort();
        all
    }

    /// Which job this run belongs to, if it is the live run of one by now.
    pub(super) fn job_of(&self, run: RunId) -> Option<JobName> {
        let name = self.base.live.get(&run)?;
        self.job(name).is_some_and(|job| job.run() == Some(run)).then(|| name.clone())
    }

    /// Whether the keeper can be asked for anything.
    pub(super) fn working(&self) -> bool {
        self.instance.link == Link::Working
    }

    pub(super) fn ending(&self) -> bool {
        self.instance.shutdown.is_some()
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn keeper_lost(&mut self) {
        if self.working() {
            self.record(Event::KeeperLost);
        }
    }

    /// Ends the decision. Submitted jobs that are over do not pile up without end.
    pub(super) fn finish(mut self) -> Decision {
        let over = |job: Option<&Job>| job.is_some_and(|job| job.submitted && job.is_finished());
        let newly = self.jobs.iter().filter(|(name, job)| over(job.as_ref()) && !over(self.base.job(name)));
        let (newly, known) = (newly.count(), self.base.finished.len());
        if newly > 0 && known + newly > FINISHED_MAX {
            let again =
                self.jobs.iter().filter(|(name, job)| over(self.base.job(name)) && !over(job.as_ref()));
            let surplus = (known + newly).saturating_sub(again.count() + FINISHED_MAX).min(FORGOTTEN_AT_ONCE);
            let still = |name: &&JobName| over(self.job(name));
            let old: Vec<JobName> =
                self.base.finished.values().filter(still).take(surplus).cloned().collect();
            for job in old {
                self.record(Event::JobRemoved { job });
            }
        }
        self.out
    }
}
