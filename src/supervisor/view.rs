//! The view that readers see: built after each turn from what changed, never changed afterwards.

use std::sync::Arc;

use super::handle::{Insight, Usage, View};
use super::main_loop::{Supervisor, now};
use super::publish::progress_view;
use super::submit::place_view;
use crate::core::circuit::Circuit;
use crate::core::event::Want;
use crate::core::ids::JobName;
use crate::core::job::{Job, PastRun, Phase};
use crate::core::outcome::{self, Asked, Outcome};
use crate::core::rest::Rest;
use crate::core::spec::JobSpec;
use crate::core::stats::Stats;
use crate::core::time::Stamp;
use crate::core::view::{Shown, in_order};
use crate::sys::proc;
use crate::wire::control::{
    Instance, InstanceState, JobStatus, Mark, OutcomeView, Role, Roles, RunView, StateWord, WantWord,
};

impl Supervisor {
    /// Publishes what changed.
    pub(super) fn publish(&mut self) {
        self.forget_old_progress();
        let dirty = std::mem::take(&mut self.dirty);
        for name in &dirty {
            self.look_at_job(name);
        }
        let changed: Vec<_> = dirty
            .into_iter()
            .filter(|name| !self.state.rest().contains(name))
            .map(|name| {
                let shown = self.state.job(&name).map(|job| {
                    let (spec, mut reason) = (self.state.spec(&name), self.state.reason(&name));
                    if let Some(said) = self.hooks.said.get(&name).filter(|_| job.run().is_none()) {
                        reason = format!("{reason}: {said}");
                    }
                    let runs: Vec<_> = self.state.runs(&name).map(|run| run_view(&name, run)).collect();
                    let stats = self.state.stats(&name).cloned();
                    let status = JobStatus {
                        progress: self.progress_of(&name).map(progress_view),
                        health: self.health_of(job),
                        patterns: self.patterns_of(&name),
                        ..job_status(&name, job, spec, reason)
                    };
                    (Arc::new(status), Arc::new(runs), stats, self.live(job))
                });
                (name, shown)
            })
            .collect();
        let (instance, host) = (Arc::new(self.instance()), Arc::new(self.host_view()));
        let ready = self.keeper.is_some() && self.state.is_settled() && self.read_only.is_none();
        let (seq, sagas, insight) = (self.seq, self.saga_views(), self.insight());
        let (queues, slots) = (self.queue_views(), self.state.queues.settings.all);
        self.view.send_modify(|view| {
            // A reader that still looks at the last view keeps it, and we change a copy.
            let view = Arc::make_mut(view);
            for (name, shown) in changed {
                view.rest.forget(&name);
                match shown {
                    Some((status, runs, stats, live)) => {
                        view.jobs.insert(name.clone(), status);
                        match live {
                            Some(live) => drop(view.live.insert(name.clone(), live)),
                            None => drop(view.live.remove(&name)),
                        }
                        match stats {
                            Some(stats) => drop(view.stats.insert(name.clone(), stats)),
                            None => drop(view.stats.remove(&name)),
                        }
                        view.runs.insert(name, runs);
                    }
                    None => {
                        view.jobs.remove(&name);
                        view.stats.remove(&name);
                        view.live.remove(&name);
                        view.runs.remove(&name);
                    }
                }
            }
            (view.instance, view.host) = (instance, host);
            (view.queues, view.slots) = (queues, slots);
            view.sagas = sagas;
            view.insight = insight;
            view.seq = seq;
            view.ready = ready;
            view.known = true;
        });
    }

    /// Lets readers see which jobs are at rest, after the memory was read.
    pub(super) fn show_rest(&self) {
        let rest = self.state.rest().clone();
        self.view.send_modify(|view| Arc::make_mut(view).rest = rest);
    }

    fn insight(&self) -> Insight {
        Insight {
            recoveries: Arc::clone(self.state.recoveries()),
            alerts: Arc::clone(self.state.alerts()),
            unrecorded: self.alerting.unrecorded.clone(),
            entries: self.startup.log_figures(),
            failed_writes: self.alerting.failed_writes,
        }
    }

    pub(super) fn instance(&self) -> Instance {
        let state = if self.state.instance.shutdown.is_some() {
            InstanceState::ShuttingDown
        } else if self.read_only.is_some() {
            InstanceState::ReadOnly
        } else if !self.state.is_settled() {
            InstanceState::Recovering
        } else if self.state.instance.recovery {
            InstanceState::Recovery
        } else {
            InstanceState::Running
        };
        let marks = self.marks();
        let own = rustix::process::getpid().as_raw_nonzero().get();
        Instance {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state,
            roles: Roles {
                init: Role { pid: self.init.pid },
                keeper: Role { pid: self.keeper_pid },
                supervisor: Role { pid: Some(own) },
            },
            since: self.since.rfc3339(),
            generation: self.generation.0,
            state_dir: self.state_dir.0.display().to_string(),
            config: self.config_path.as_ref().map(|path| path.display().to_string()),
            config_changed: self.config_changed,
            degraded: marks.iter().map(|mark| mark.why.clone()).collect(),
            degraded_resources: marks,
            recovery_mode: self.startup.recovery_mode().filter(|_| self.recovery).map(str::to_owned),
        }
    }

    /// What does not do all it should, resource by resource.
    fn marks(&self) -> Vec<Mark> {
        let mark = |resource: String, why: &str| Mark { resource, why: why.to_owned() };
        let own = self.degraded.iter().map(|(resource, why)| mark((*resource).to_owned(), why));
        let stalled = self.stalled.iter().map(|(run, why)| mark(format!("run:{run}"), why));
        let start = self.startup.marks().into_iter().map(|(resource, why)| mark(resource, &why));
        let look = self.needs_a_look.iter().map(|(job, why)| mark(format!("job:{job}"), why));
        own.chain(stalled).chain(start).chain(look).chain(self.host_marks()).collect()
    }

    /// A job that is not started again because nobody knows how its run ended waits for somebody to look.
    fn look_at_job(&mut self, name: &JobName) {
        let why = self.state.job(name).and_then(|job| {
            let lost = job.last_end().is_some_and(|last| matches!(last.outcome, Outcome::Lost { .. }));
            match &job.phase {
                Phase::Held { why } => Some(format!("{name}: {why}")),
                Phase::Fatal { why, .. } if lost => Some(format!("{name}: {why}")),
                _ => None,
            }
        });
        match why {
            Some(why) => drop(self.needs_a_look.insert(name.clone(), why)),
            None => drop(self.needs_a_look.remove(name)),
        }
    }

    /// An empty view, until the first turn.
    pub(super) fn first_view(instance: Instance) -> View {
        View {
            instance: Arc::new(instance),
            host: Arc::default(),
            jobs: std::collections::BTreeMap::new(),
            runs: std::collections::BTreeMap::new(),
            rest: Rest::default(),
            stats: std::collections::BTreeMap::new(),
            live: std::collections::BTreeMap::new(),
            sagas: Vec::new(),
            queues: Vec::new(),
            slots: None,
            insight: Insight::default(),
            seq: 0,
            ready: false,
            known: false,
        }
    }

    /// Looks whether the file still says what is in force.
    pub(super) fn look_at_config(&mut self) {
        let Some(path) = &self.config_path else { return };
        let env = super::asks::loader_environment();
        self.config_changed =
            crate::config::load(path, &env).map_or(true, |config| config.digest != self.config.digest);
        if self.config_changed {
            let at = now().rfc3339();
            tracing::warn!(%at, "the configuration file differs from what is in force; `outlive reload` applies it");
        }
    }
}

impl View {
    /// The names of all jobs, in order.
    pub fn names(&self) -> impl Iterator<Item = &JobName> {
        in_order(self.jobs.keys(), self.rest.names())
    }

    /// What our own processes use, by role: read now, from `/proc`.
    #[must_use]
    pub fn own_processes(&self) -> Vec<(&'static str, Usage)> {
        let Roles { init, keeper, supervisor } = &self.instance.roles;
        let roles = [("init", init), ("keeper", keeper), ("supervisor", supervisor)];
        roles.iter().filter_map(|(name, role)| Some((*name, proc::usage(role.pid?)?))).collect()
    }

    /// Whether there is a job of this name.
    #[must_use]
    pub fn has(&self, name: &JobName) -> bool {
        self.jobs.contains_key(name) || self.rest.contains(name)
    }

    /// One job.
    #[must_use]
    pub fn job(&self, name: &JobName) -> Option<Arc<JobStatus>> {
        self.jobs.get(name).cloned().or_else(|| {
            let rested = self.rest.look(name)?;
            let job = rested.job();
            Some(Arc::new(JobStatus {
                progress: rested.published().map(progress_view),
                ..job_status(name, job, rested.spec(), job.why_it_rests())
            }))
        })
    }

    /// What its runs before the latest came to, if there is anything to tell.
    #[must_use]
    pub fn stats(&self, name: &JobName) -> Option<Arc<Stats>> {
        match self.jobs.get(name) {
            Some(_) => self.stats.get(name).cloned(),
            None => self.rest.look(name)?.stats().cloned(),
        }
    }

    /// Its runs, oldest first, the latest last; `None` if there is no such job.
    #[must_use]
    pub fn runs(&self, name: &JobName) -> Option<Arc<Vec<RunView>>> {
        self.runs.get(name).cloned().or_else(|| {
            let rested = self.rest.look(name)?;
            Some(Arc::new(rested.runs().map(|run| run_view(name, run)).collect()))
        })
    }
}

fn job_status(name: &JobName, job: &Job, spec: Option<&JobSpec>, reason: String) -> JobStatus {
    JobStatus {
        name: name.clone(),
        kind: spec.map(|spec| spec.kind).unwrap_or_default(),
        state: word(job.shown()),
        want: match job.want {
            Want::Up => WantWord::Up,
            Want::Down => WantWord::Down,
        },
        pid: job.pid(),
        run: job.latest_run(),
        restarts: job.restarts(),
        since: job.since.rfc3339(),
        started: job.started().map(Stamp::rfc3339),
        outcome: job.last_end().map(|last| outcome_view(&last.outcome, &last.asked, last.ended)),
        reason,
        adopted: job.adopted(),
        next_try: job.next_try().map(Stamp::rfc3339),
        depends_on: spec.map(|spec| spec.depends_on.clone()).unwrap_or_default(),
        command: spec.map(|spec| spec.command.clone()).unwrap_or_default(),
        progress: None,
        health: None,
        breaker: spec.and_then(|spec| Circuit::of(spec, job)),
        patterns: Vec::new(),
        place: job.place.as_deref().map(|place| Box::new(place_view(place))),
    }
}

const fn word(shown: Shown) -> StateWord {
    match shown {
        Shown::Stopped => StateWord::Stopped,
        Shown::Waiting => StateWord::Waiting,
        Shown::Queued => StateWord::Queued,
        Shown::Starting => StateWord::Starting,
        Shown::Running => StateWord::Running,
        Shown::Frozen => StateWord::Frozen,
        Shown::Stopping => StateWord::Stopping,
        Shown::Backoff => StateWord::Backoff,
        Shown::Held => StateWord::Held,
        Shown::Exited => StateWord::Exited,
        Shown::Fatal => StateWord::Fatal,
    }
}

fn run_view(job: &JobName, run: &PastRun) -> RunView {
    let end = run.end.as_deref();
    RunView {
        run: run.run,
        job: job.clone(),
        attempt: run.attempt,
        started: run.started.map(Stamp::rfc3339),
        ended: end.map(|end| end.at.rfc3339()),
        pid: run.pid.filter(|_| end.is_none()),
        outcome: end.map(|end| outcome_view(&end.outcome, &end.asked, end.at)),
        cause: end.and_then(|end| end.cause),
        rusage: end.and_then(|end| end.rusage),
        output_bytes: end.map_or(0, |end| end.output_bytes),
    }
}

fn outcome_view(outcome: &Outcome, asked: &Asked, at: Stamp) -> OutcomeView {
    let mut view = OutcomeView {
        kind: String::new(),
        code: None,
        signal: None,
        core: None,
        step: None,
        errno: None,
        why: None,
        asked: Some(asked.clone()),
        at: Some(at.rfc3339()),
        text: outcome::words(outcome, asked),
    };
    view.kind = match outcome {
        Outcome::Exited { code } => {
            view.code = Some(*code);
            "exited"
        }
        Outcome::Signaled { signal, core } => {
            view.signal = Some(*signal);
            view.core = Some(*core);
            "signaled"
        }
        Outcome::OomKilled => "oom_killed",
        Outcome::NotStarted { step, errno } => {
            view.step = Some(step.clone());
            view.errno = Some(*errno);
            "not_started"
        }
        Outcome::Cancelled => "cancelled",
        Outcome::Lost { why } => {
            view.why = Some(why.clone());
            "lost"
        }
    }
    .to_owned();
    view
}
