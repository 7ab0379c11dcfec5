//! Looks at the figures after turns in which something has changed, and records what the rules make of them.
//!
//! Once a second at most, and with very many jobs less often. Nothing wakes up for it while all is well: only what is
//! raised, or about to be, is looked at again by time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::main_loop::{Supervisor, Turn, now};
use crate::core::alerts::{
    AGAIN, Change, Figure, Figures, JobFigures, Raised, SHORT_WINDOW, Uptime, WINDOW, changes, judge,
};
use crate::core::event::Want;
use crate::core::ids::JobName;
use crate::core::input::Input;
use crate::core::job::{Job, Phase};
use crate::core::recoveries::seconds;
use crate::core::spec::Kind;
use crate::core::time::Stamp;
use crate::sys::clock;

/// The least time between two looks, in microseconds.
const EVERY_US: u64 = 1_000_000;
/// So much longer for each job, in microseconds: a look goes through all of them.
const EVERY_JOB_US: u64 = 100;

/// What is kept from one look to the next. What is raised is in the memory of the core.
#[derive(Debug)]
pub(super) struct Alerting {
    changed: bool,
    looked_us: u64,
    every_us: u64,
    again_us: Option<u64>,
    was_read_only: bool,
    suspects: BTreeSet<JobName>,
    uptime: Uptime,
    /// Services that were wanted at the last look.
    wanted: u64,
    /// Services that are wanted and not up.
    down: BTreeSet<JobName>,
    /// When writes of the event log failed, boot clock in microseconds.
    failed_us: VecDeque<u64>,
    /// How many have.
    pub(super) failed_writes: u64,
    /// What cannot be recorded.
    pub(super) unrecorded: Vec<Raised>,
}

impl Alerting {
    pub(super) fn new() -> Self {
        Self {
            changed: false,
            looked_us: 0,
            every_us: EVERY_US,
            again_us: None,
            was_read_only: false,
            suspects: BTreeSet::new(),
            uptime: Uptime::default(),
            wanted: 0,
            down: BTreeSet::new(),
            failed_us: VecDeque::new(),
            failed_writes: 0,
            unrecorded: Vec::new(),
        }
    }

    /// Jobs that may be in trouble.
    pub(super) const fn suspects(&self) -> &BTreeSet<JobName> {
        &self.suspects
    }

    /// There is more to look at.
    pub(super) const fn look_again(&mut self) {
        self.changed = true;
    }

    /// A write of the event log has failed, or has taken far too long.
    pub(super) fn write_failed(&mut self) {
        self.failed_writes += 1;
        self.failed_us.push_back(clock::boot_us());
        while self.failed_us.len() > 100 {
            self.failed_us.pop_front();
        }
        self.changed = true;
    }

    fn note_uptime(&mut self, now: Stamp) {
        let down = u64::try_from(self.down.len()).unwrap_or(u64::MAX);
        self.uptime.note(now.boot_us, self.wanted, self.wanted.saturating_sub(down));
    }

    /// When the figures are looked at next, boot clock in microseconds.
    fn due_us(&self) -> Option<u64> {
        let pending = self.changed.then(|| self.looked_us.saturating_add(self.every_us));
        pending.into_iter().chain(self.again_us).min()
    }
}

impl Supervisor {
    /// When the figures are looked at next; `None`: when something happens.
    pub(super) fn next_look(&self) -> Option<Stamp> {
        let boot_us = self.alerting.due_us().filter(|_| self.may_look())?;
        Some(Stamp { boot_us, wall_us: 0 })
    }

    fn may_look(&self) -> bool {
        self.state.is_settled() && self.state.instance.shutdown.is_none()
    }

    /// Looks at the figures, if something has changed or it is time to.
    pub(super) fn look_at_figures(&mut self, turn: &mut Turn) {
        let read_only = self.read_only.is_some();
        self.alerting.changed |= turn.changed
            || !turn.entries.is_empty()
            || !self.dirty.is_empty()
            || self.alerting.was_read_only != read_only;
        for name in &self.dirty {
            if self.state.rest().contains(name) {
                continue;
            }
            let tried =
                |job: &Job| job.failures > 0 || job.starts > 2 || matches!(job.phase, Phase::Fatal { .. });
            if self.state.job(name).is_some_and(tried) {
                self.alerting.suspects.insert(name.clone());
            }
        }
        let now = now();
        self.note_who_is_down(now);
        if !self.may_look() || self.alerting.due_us().is_none_or(|due| due > now.boot_us) {
            return;
        }
        self.alerting.was_read_only = read_only;
        self.alerting.changed = false;
        self.alerting.looked_us = now.boot_us;
        let figures = self.figures(now);
        let verdict = judge(self.state.alerts(), &figures, now);
        let again = verdict.again.or_else(|| (!self.alerting.down.is_empty()).then_some(AGAIN));
        self.alerting.again_us = again.map(|wait| now.plus(wait).boot_us);
        self.alerting.suspects = figures.jobs.into_keys().collect();
        if read_only {
            self.keep_unrecorded(verdict.changes, now, turn);
        } else {
            self.alerting.unrecorded.clear();
            if !verdict.changes.is_empty() {
                self.decide(&Input::Alerts { changes: verdict.changes }, turn);
            }
        }
        self.read_last_lines();
    }

    /// While nothing can be recorded, what would be raised is shown all the same.
    fn keep_unrecorded(&mut self, changes: Vec<Change>, now: Stamp, turn: &mut Turn) {
        let mut all = Vec::new();
        for change in changes {
            let Change::Raise(alert) = change else { continue };
            let mut known = self.alerting.unrecorded.iter();
            let known =
                known.find(|known| known.alert.id == alert.id && known.alert.subject == alert.subject);
            let since = known.map_or(now, |known| known.since);
            if known.is_none() {
                tracing::warn!(id = alert.id, subject = alert.subject, "alert: {}", alert.message);
                turn.changed = true;
            }
            all.push(Raised { alert, since });
        }
        self.alerting.unrecorded = all;
    }

    fn figures(&mut self, now: Stamp) -> Figures {
        let (mut wanted, mut down, mut all) = (0, BTreeSet::new(), 0);
        for (name, job) in self.state.awake() {
            all += 1;
            if self.is_wanted_service(name, job) {
                wanted += 1;
                if !is_up(job) {
                    down.insert(name.clone());
                }
            }
        }
        self.alerting.every_us = EVERY_US.saturating_add(EVERY_JOB_US * all);
        (self.alerting.wanted, self.alerting.down) = (wanted, down);
        self.alerting.note_uptime(now);
        let recent = self.state.recoveries().totals.after(seconds(now.minus(WINDOW)));
        let over = recent.recovered + recent.failed;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of an hour")]
        let seconds = recent.sum_ms as f64 / 1000.0;
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let mean = if recent.recovered == 0 { 0.0 } else { seconds / recent.recovered as f64 };
        let success =
            if over == 0 { Figure { value: 100.0, count: 0 } } else { Figure::share(recent.recovered, over) };
        let [read, lost, damaged] = self.startup.log_figures();
        let from = now.minus(SHORT_WINDOW).boot_us;
        self.alerting.failed_us.retain(|at| *at > from);
        let failed = self.alerting.failed_us.len() + usize::from(self.read_only.is_some());
        let figure = |value: f64| Figure { value, count: 1 };
        Figures {
            success_percent: Some(success),
            recovery_seconds: Some(Figure { value: mean, count: recent.recovered }),
            loss_percent: Some(Figure::share(lost, read + lost)),
            damage_percent: Some(Figure::share(damaged, read + lost)),
            up_percent: self.alerting.uptime.percent(),
            checks: self.host.figures(),
            failed_writes: Some(figure(f64::from(u32::try_from(failed).unwrap_or(u32::MAX)))),
            jobs: self.jobs_in_trouble(now),
        }
    }

    fn is_wanted_service(&self, name: &JobName, job: &Job) -> bool {
        let wanted = job.want == Want::Up && !job.removed && job.phase != Phase::Exited;
        wanted && self.state.spec(name).is_some_and(|spec| spec.kind == Kind::Service)
    }

    /// Between two looks, of those that this turn was about: how long somebody is down is known to the millisecond.
    fn note_who_is_down(&mut self, now: Stamp) {
        if self.dirty.is_empty() || !self.state.is_settled() {
            return;
        }
        for name in self.dirty.iter().filter(|name| !self.state.rest().contains(name)) {
            let down =
                self.state.job(name).is_some_and(|job| !is_up(job) && self.is_wanted_service(name, job));
            if down {
                self.alerting.down.insert(name.clone());
            } else {
                self.alerting.down.remove(name);
            }
        }
        self.alerting.note_uptime(now);
    }

    /// Those of which something was raised, and those that failed lately.
    fn jobs_in_trouble(&self, now: Stamp) -> BTreeMap<JobName, JobFigures> {
        let raised =
            self.state.alerts().raised.iter().filter_map(|raised| JobName::new(&raised.alert.subject).ok());
        let mut names: BTreeSet<JobName> = raised.collect();
        names.extend(self.alerting.suspects.iter().cloned());
        let mut all = BTreeMap::new();
        for name in names {
            if self.state.rest().contains(&name) {
                continue;
            }
            let Some(job) = self.state.job(&name) else { continue };
            let given_up = match &job.phase {
                Phase::Fatal { why, .. } => Some(why.clone()),
                _ => None,
            };
            let figures = JobFigures {
                failures: job.failures,
                given_up,
                up_for: is_up(job).then(|| now.since(job.since)),
                wanted: job.want == Want::Up && !job.removed,
                changes: changes(self.state.runs(&name), now),
            };
            if figures.failures > 0 || figures.given_up.is_some() || figures.changes > 0 {
                all.insert(name, figures);
            }
        }
        all
    }
}

/// Whether it is up: it runs, is ready, and nothing is wrong with it.
const fn is_up(job: &Job) -> bool {
    matches!(job.phase, Phase::Running { ready_at: None, ill: None, .. })
}
