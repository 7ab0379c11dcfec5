//! One job's memory: what is wanted of it, where it is, and what its past runs were.
//!
//! `want` is the operator's wish, `phase` is where the job is, with exactly what is valid there: without a
//! live run there is no pid. All of it comes from events, never from settings, which are not in the log.
//!
//! ```text
//! stopped ──► waiting ──► starting ──► running ──► (leftovers) ──► exited, backoff, fatal, or starting again
//!    ▲                        └──────────┴──► stopping ──► (leftovers) ──┐
//!    └───────────────────────────────────────────────────────────────────┘
//! ```

use std::collections::VecDeque;

use super::event::{Event, Want};
use super::identity::Identity;
use super::ids::RunId;
use super::ill::Ill;
use super::outcome::{Asked, ExitRecord, Outcome};
use super::queue::Place;
use super::time::{Millis, Stamp};

pub use super::past::{PastEnd, PastRun};

/// Start stamps remembered for the start limit. A crash loop at full speed stays within 8 KiB a job;
/// a configured count above this acts as this.
pub const STARTS_MAX: usize = 1024;

/// How long a run that was found may take to tell, or to be asked, whether it is ready, though its time is over.
const HEARING: Millis = Millis::from_secs(10);

/// Ended runs remembered for each job unless configured otherwise.
pub const KEEP_RUNS: usize = 20;

/// Where a job is, with what is known there.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not running, and nothing is being done about it.
    Stopped,
    /// It starts as soon as the jobs it depends on are up and the keeper is there.
    Waiting,
    /// It stands in line, see [`super::queue`]: where, its place says.
    Queued,
    /// Asked of the keeper, which has not answered yet.
    Starting {
        /// The run.
        run: RunId,
    },
    /// Its main process lives.
    Running {
        /// The run.
        run: RunId,
        /// Its process.
        process: Process,
        /// Whether it was taken over from an earlier supervisor.
        adopted: bool,
        /// When its start grace is over, or when it has to be ready; `None`: it is.
        ready_at: Option<Stamp>,
        /// What is wrong with it, if something is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ill: Option<Box<Ill>>,
    },
    /// Being stopped; its main process lives, or may yet come to life.
    Stopping {
        /// The run.
        run: RunId,
        /// Its process; `None` until the keeper has answered the start.
        process: Option<Process>,
        /// Who asked, and what follows.
        stop: Stop,
        /// The rung in progress; `None` if none was begun yet.
        ladder: Option<Ladder>,
    },
    /// Its main process has ended, other processes of the run have not.
    Leftovers {
        /// The run.
        run: RunId,
        /// Set if it was, or is, being stopped on request.
        stop: Option<Stop>,
        /// Whether another run was asked for meanwhile. That alone stops nothing.
        then_start: bool,
        /// The rung in progress; `None`: they are waited for, or the ladder has not begun.
        ladder: Option<Ladder>,
    },
    /// The next try comes by itself.
    Backoff {
        /// When.
        until: Stamp,
    },
    /// To be run, but perhaps it has run: what would tell is missing. An operator's start releases it.
    Held {
        /// Why.
        why: String,
    },
    /// Ended, and not to be run again by itself.
    Exited,
    /// Given up.
    Fatal {
        /// Why.
        why: String,
        /// When it is tried again all the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at: Option<Stamp>,
    },
}

/// A live main process.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Process {
    /// Which one.
    pub identity: Identity,
    /// When it was started.
    pub started: Stamp,
}

/// A stop in progress.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Stop {
    /// Who asked.
    pub by: Asked,
    /// Since when it is being stopped, whoever has asked again since; absent in checkpoints of earlier builds.
    #[serde(default)]
    pub since: Stamp,
    /// Whether another run follows.
    pub then_start: bool,
}

/// A rung of the stop ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ladder {
    /// Which, from 0.
    pub step: u32,
    /// When the next is due.
    pub until: Stamp,
    /// Whether this is the final `KILL`.
    pub kill: bool,
    /// Whether this is the `before_stop` hook, and the ladder has yet to begin.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hook: bool,
}

/// How the latest ended run ended.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Last {
    /// The run.
    pub run: RunId,
    /// How.
    pub outcome: Outcome,
    /// Who asked for it.
    pub asked: Asked,
    /// When it started, if it did.
    pub started: Option<Stamp>,
    /// When it ended.
    pub ended: Stamp,
}

/// What decisions about a job need to know. Small, because a decision works on a copy.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Job {
    /// The operator's wish.
    pub want: Want,
    /// Whether it was submitted at run time rather than configured.
    pub submitted: bool,
    /// Whether it left the configuration and is forgotten when its run is over.
    pub removed: bool,
    /// Where it is.
    pub phase: Phase,
    /// Since when.
    pub since: Stamp,
    /// Number of the latest run, counted from 1; 0 before the first.
    pub attempt: u64,
    /// Runs asked for and not cancelled.
    pub starts: u64,
    /// Failures in a row.
    pub failures: u32,
    /// Boot clock of the starts that count for the start limit, oldest first.
    pub window: VecDeque<u64>,
    /// The latest end.
    pub last: Option<Last>,
    /// When a run that is on trial (see [`super::circuit`]) has lasted long enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Stamp>,
    /// Boot clock of its failures that count as restarts of its group, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub group_restarts: Vec<u64>,
    /// Where it stands in line, or stood when its turn came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Box<Place>>,
}

impl Job {
    /// A job nobody has seen yet.
    pub(super) fn new(want: Want, submitted: bool, at: Stamp) -> Self {
        Self {
            want,
            submitted,
            removed: false,
            phase: Phase::Stopped,
            since: at,
            attempt: 0,
            starts: 0,
            failures: 0,
            window: VecDeque::new(),
            last: None,
            trial: None,
            group_restarts: Vec::new(),
            place: None,
        }
    }

    /// The run that lives or may live, the leftovers of one included.
    #[must_use]
    pub const fn run(&self) -> Option<RunId> {
        match &self.phase {
            Phase::Starting { run }
            | Phase::Running { run, .. }
            | Phase::Stopping { run, .. }
            | Phase::Leftovers { run, .. } => Some(*run),
            Phase::Stopped
            | Phase::Waiting
            | Phase::Queued
            | Phase::Backoff { .. }
            | Phase::Held { .. }
            | Phase::Exited
            | Phase::Fatal { .. } => None,
        }
    }

    /// When something has to be done about it, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Stamp> {
        match &self.phase {
            Phase::Running { ready_at, ill, .. } => {
                let rung = ill.as_ref().and_then(|ill| ill.until);
                [*ready_at, rung, self.trial].into_iter().flatten().min_by_key(|at| at.boot_us)
            }
            Phase::Stopping { ladder: Some(ladder), .. } | Phase::Leftovers { ladder: Some(ladder), .. } => {
                Some(ladder.until)
            }
            Phase::Backoff { until } | Phase::Fatal { retry_at: Some(until), .. } => Some(*until),
            Phase::Queued => self.place.as_ref()?.not_before,
            Phase::Stopping { ladder: None, .. }
            | Phase::Leftovers { ladder: None, .. }
            | Phase::Starting { .. }
            | Phase::Stopped
            | Phase::Waiting
            | Phase::Held { .. }
            | Phase::Exited
            | Phase::Fatal { retry_at: None, .. } => None,
        }
    }

    /// Whether nothing more will happen to it unless somebody asks.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Stopped | Phase::Exited | Phase::Fatal { retry_at: None, .. })
    }

    /// Remembers one event of this job. `at` is the stamp of its line in the log.
    pub(super) fn apply(&mut self, event: &Event, at: Stamp) {
        let before = (self.shown(), self.run());
        match event {
            Event::JobAdded { .. } | Event::JobSubmitted { .. } | Event::JobRemoved { .. } => {
                self.came_or_went(event)
            }
            Event::WantSet { want, by, .. } => self.wished(*want, by),
            Event::RunRequested { run, attempt, at, .. } => self.requested(*run, *attempt, *at),
            Event::RunStarted { run, identity, at: started, grace, awaits, .. }
            | Event::RunAdopted { run, identity, started, grace, awaits, .. } => {
                let process = Process { identity: identity.clone(), started: *started };
                let adopted = matches!(event, Event::RunAdopted { .. });
                let ready_at = up_at((*started, *grace), (*awaits, adopted), at);
                self.came_to_life(*run, process, adopted, ready_at);
            }
            Event::RunReady { .. }
            | Event::RunExtended { .. }
            | Event::RunUnwell { .. }
            | Event::HealStepBegun { .. }
            | Event::TrialBegun { .. }
            | Event::TrialPassed { .. }
            | Event::RunWell { .. } => self.fares(event, at),
            Event::StopBegun { run, by, then_start, at, .. } => {
                self.stop_begun(*run, Stop { by: by.clone(), since: *at, then_start: *then_start });
            }
            Event::StopStepBegun { run, step, until, kill, hook, .. } => {
                self.climbed(*run, Ladder { step: *step, until: *until, kill: *kill, hook: *hook });
            }
            Event::RunEnded { record, leftovers, failures, interrupted, .. } => {
                self.ended(record, *leftovers, *failures, *interrupted);
            }
            Event::TreeGone { run, .. } | Event::Disowned { run, .. } => self.tree_over(*run),
            Event::WaitBegun { .. }
            | Event::Queued { .. }
            | Event::BackedOff { .. }
            | Event::Rested { .. }
            | Event::Held { .. }
            | Event::GaveUp { .. }
            | Event::GroupRestart { .. }
            | Event::Retried { .. } => self.has_no_run(event, at),
            Event::RunProgress { .. }
            | Event::SupervisorStarted { .. }
            | Event::OrphanFound { .. }
            | Event::OrphanGone { .. }
            | Event::Surveyed
            | Event::LossSettled { .. }
            | Event::KeeperLost
            | Event::Acted { .. }
            | Event::RecoveryLeft { .. }
            | Event::SagaBegun { .. }
            | Event::SagaStepDone { .. }
            | Event::SagaUndoing { .. }
            | Event::SagaEnded { .. }
            | Event::AlertRaised { .. }
            | Event::AlertCleared { .. }
            | Event::StartsHeld { .. }
            | Event::StartsReleased
            | Event::QueuePaused { .. }
            | Event::QueueResumed { .. }
            | Event::ShutdownBegun { .. }
            | Event::ShutdownForced => {}
        }
        if before != (self.shown(), self.run()) {
            self.since = at;
        }
    }

    fn came_or_went(&mut self, event: &Event) {
        match event {
            Event::JobAdded { want, .. } => {
                self.removed = false;
                self.set_want(*want);
            }
            Event::JobSubmitted { .. } => {
                self.submitted = true;
                self.removed = false;
                self.want = Want::Up;
                self.calm();
            }
            Event::JobRemoved { .. } => {
                self.removed = true;
                self.set_want(Want::Down);
            }
            other => debug_assert!(false, "{other:?} neither brings nor takes a job"),
        }
    }

    /// What becomes of it between two runs.
    fn has_no_run(&mut self, event: &Event, at: Stamp) {
        match event {
            Event::WaitBegun { .. } => self.wanted_in(Phase::Waiting),
            Event::Queued { place, .. } => {
                self.place = Some(place.clone());
                self.wanted_in(Phase::Queued);
            }
            Event::BackedOff { failures, until, .. } => self.backed_off(*failures, *until),
            Event::Rested { .. } => self.wanted_in(Phase::Stopped),
            Event::Held { why, .. } => self.wanted_in(Phase::Held { why: why.clone() }),
            Event::GaveUp { why, until, .. } => {
                self.wanted_in(Phase::Fatal { why: why.clone(), retry_at: *until });
            }
            Event::GroupRestart { .. } => {
                if self.group_restarts.len() >= STARTS_MAX {
                    self.group_restarts.remove(0);
                }
                self.group_restarts.push(at.boot_us);
            }
            Event::Retried { .. } => {
                self.calm();
                self.wanted_in(Phase::Stopped);
            }
            other => debug_assert!(false, "{other:?} is not about a job without a run"),
        }
    }

    fn backed_off(&mut self, failures: u32, until: Stamp) {
        self.failures = failures;
        self.wanted_in(Phase::Backoff { until });
    }

    /// One that was given up stays there until somebody asks.
    pub(super) const fn no_retry(&mut self) {
        if let Phase::Fatal { retry_at, .. } = &mut self.phase {
            *retry_at = None;
        }
    }

    /// Forgets what speaks against another start.
    fn calm(&mut self) {
        self.failures = 0;
        self.window.clear();
        self.group_restarts.clear();
        self.trial = None;
        // Who is asked for again gets in line again.
        if self.run().is_none() && self.phase != Phase::Queued {
            self.place = None;
        }
    }

    fn wished(&mut self, want: Want, by: &Asked) {
        // A wish takes the place of what was judged: what becomes of the job is known now.
        if let Phase::Stopping { stop, .. } | Phase::Leftovers { stop: Some(stop), .. } = &mut self.phase
            && stop.by.is_failure()
        {
            stop.by = by.clone();
        }
        self.set_want(want);
    }

    fn set_want(&mut self, want: Want) {
        self.want = want;
        let up = want == Want::Up;
        if up {
            self.calm();
        }
        match &mut self.phase {
            Phase::Stopping { stop, .. } => stop.then_start = up,
            Phase::Leftovers { stop, then_start, .. } => {
                *then_start = up;
                if let Some(stop) = stop {
                    stop.then_start = up;
                }
            }
            Phase::Waiting
            | Phase::Queued
            | Phase::Backoff { .. }
            | Phase::Held { .. }
            | Phase::Fatal { .. }
                if !up =>
            {
                self.phase = Phase::Stopped;
            }
            Phase::Stopped
            | Phase::Waiting
            | Phase::Queued
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Backoff { .. }
            | Phase::Held { .. }
            | Phase::Exited
            | Phase::Fatal { .. } => {}
        }
    }

    fn requested(&mut self, run: RunId, attempt: u64, at: Stamp) {
        self.attempt = attempt;
        self.starts += 1;
        self.window.push_back(at.boot_us);
        if self.window.len() > STARTS_MAX {
            self.window.pop_front();
        }
        self.phase = Phase::Starting { run };
    }

    fn came_to_life(&mut self, news: RunId, process: Process, adopted: bool, ready_at: Option<Stamp>) {
        match &mut self.phase {
            Phase::Starting { run } if *run == news => {
                self.phase = Phase::Running { run: news, process, adopted, ready_at, ill: None };
            }
            Phase::Running { run, ready_at: known, ill, .. } if *run == news => {
                // It may have been given more time meanwhile.
                let ready_at = known.zip(ready_at).map(|(known, now)| known.max(now));
                let ill = ill.take();
                self.phase = Phase::Running { run: news, process, adopted, ready_at, ill };
            }
            Phase::Stopping { run, process: known, .. } if *run == news => *known = Some(process),
            Phase::Stopped
            | Phase::Waiting
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

    fn stop_begun(&mut self, news: RunId, new: Stop) {
        match &mut self.phase {
            Phase::Starting { run } if *run == news => {
                self.phase = Phase::Stopping { run: news, process: None, stop: new, ladder: None };
            }
            Phase::Running { run, process, .. } if *run == news => {
                let process = Some(process.clone());
                self.phase = Phase::Stopping { run: news, process, stop: new, ladder: None };
            }
            Phase::Stopping { run, stop, .. } if *run == news => {
                *stop = Stop { since: stop.since, ..new };
            }
            Phase::Leftovers { run, stop, then_start, .. } if *run == news => {
                *then_start = new.then_start;
                *stop = Some(new);
            }
            Phase::Stopped
            | Phase::Waiting
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

    fn climbed(&mut self, news: RunId, rung: Ladder) {
        if let Phase::Stopping { run, ladder, .. } | Phase::Leftovers { run, ladder, .. } = &mut self.phase
            && *run == news
        {
            *ladder = Some(rung);
        }
    }

    fn ended(&mut self, record: &ExitRecord, leftovers: bool, failures: u32, interrupted: bool) {
        if self.run() != Some(record.run) || matches!(self.phase, Phase::Leftovers { .. }) {
            return;
        }
        self.last = Some(Last {
            run: record.run,
            outcome: record.outcome.clone(),
            asked: record.asked.clone(),
            started: record.started,
            ended: record.ended,
        });
        self.failures = failures;
        self.trial = None;
        if interrupted {
            self.window.pop_back();
        }
        if record.outcome == Outcome::Cancelled {
            self.starts = self.starts.saturating_sub(1);
        }
        let (stop, ladder) = match &self.phase {
            Phase::Stopping { stop, ladder, .. } => (Some(stop.clone()), *ladder),
            _ => (None, None),
        };
        self.phase = match (leftovers, stop) {
            // A rung that was meant for the main process is none for the rest, unless it was the last.
            (true, stop) => Phase::Leftovers {
                run: record.run,
                then_start: stop.as_ref().is_some_and(|stop| stop.then_start),
                stop,
                ladder: ladder.filter(|ladder| ladder.kill),
            },
            (false, Some(stop)) if !stop.by.is_failure() => Phase::Stopped,
            (false, Some(_) | None) => Phase::Exited,
        };
    }

    fn tree_over(&mut self, news: RunId) {
        if let Phase::Leftovers { run, stop, then_start, .. } = &self.phase
            && *run == news
        {
            let asked = stop.as_ref().is_some_and(|stop| !stop.by.is_failure()) || *then_start;
            self.phase = if asked { Phase::Stopped } else { Phase::Exited };
        }
    }

    /// A phase that leads to a start, or stands in the way of one. Only a job that is wanted comes to it: where
    /// a wish says otherwise, the one after it is missing from the log.
    fn wanted_in(&mut self, phase: Phase) {
        if self.run().is_none() && !self.removed {
            self.want = Want::Up;
        }
        self.rest_in(phase);
    }

    /// A phase without a run; refused while one may live, so that no event can make us lose a run.
    fn rest_in(&mut self, phase: Phase) {
        if self.run().is_none() {
            self.phase = phase;
        }
    }
}

/// When a run is up, or has to be; `None`: it is.
fn up_at((started, grace): (Stamp, Millis), (awaits, adopted): (bool, bool), at: Stamp) -> Option<Stamp> {
    match (awaits, adopted) {
        (false, _) => after(started, grace, at),
        (true, false) => Some(started.plus(grace)),
        // What it told while nobody was there is yet to be heard.
        (true, true) => Some(started.plus(grace).max(at.plus(HEARING.min(grace)))),
    }
}

/// The end of the grace of a run, if it lies ahead.
fn after(started: Stamp, grace: Millis, at: Stamp) -> Option<Stamp> {
    let end = started.plus(grace);
    (grace.0 > 0 && end.boot_us > at.boot_us).then_some(end)
}
