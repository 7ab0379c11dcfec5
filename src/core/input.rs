//! What the core may be told. Every observation names its run.

use std::collections::BTreeSet;

use super::alerts::Change;
use super::fault::Fault;
use super::freshness::Freshness;
use super::identity::Epoch;
use super::identity::Identity;
use super::ids::{Generation, JobName, QueueName, RunId};
use super::outcome::{Asked, ExitRecord, Outcome};
use super::progress::Said;
use super::queue;
use super::rung::Rung;
use super::spec::{JobSpec, KillScope};
use super::time::{Millis, Stamp};

/// One thing the core is told. Fresh run ids and chance come in from outside with it, see [`super::Fresh`].
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A supervisor starts, after replay and before the survey.
    SupervisorStarted {
        /// Its generation, one more than the last.
        generation: Generation,
        /// Its version.
        version: String,
        /// The epoch it lives in.
        epoch: Epoch,
        /// Whether it was started in recovery mode.
        recovery: bool,
        /// When the instance began, boot clock in microseconds. A shutdown asked for since then is this
        /// instance's own and goes on; an earlier one ended an instance that is gone.
        born_us: u64,
    },
    /// The configured jobs, at start or by a reload: all of them, not a difference.
    Configured {
        /// The specs.
        specs: Vec<JobSpec>,
        /// Who asked; `Nobody` at start.
        by: Asked,
    },
    /// The configured jobs by a reload that is undone if a job it adds or changes does not come up.
    ReloadOrRollBack {
        /// The specs.
        specs: Vec<JobSpec>,
        /// Who asked.
        by: Asked,
        /// How long it may take.
        within: Millis,
    },
    /// `start`, undone if one of them does not come up.
    StartOrRollBack {
        /// Which jobs, resolved.
        jobs: Vec<JobName>,
        /// Who asked.
        by: Asked,
        /// How long it may take.
        within: Millis,
    },
    /// A job given at run time.
    Submitted {
        /// Its spec.
        spec: Box<JobSpec>,
        /// How it enters its queue, if it has one.
        entry: queue::Entry,
        /// Who asked.
        by: Asked,
    },
    /// `start`.
    Start {
        /// Which jobs, resolved.
        jobs: Vec<JobName>,
        /// Also where a circuit is open.
        force: bool,
        /// Who asked.
        by: Asked,
    },
    /// `stop`.
    Stop {
        /// Which jobs, resolved.
        jobs: Vec<JobName>,
        /// Who asked.
        by: Asked,
    },
    /// `restart`.
    Restart {
        /// Which jobs, resolved.
        jobs: Vec<JobName>,
        /// Who asked.
        by: Asked,
    },
    /// `move`: jobs that wait for their turn are to stand elsewhere.
    Move {
        /// Which jobs, resolved.
        jobs: Vec<JobName>,
        /// Where.
        shift: queue::Shift,
        /// Who asked.
        by: Asked,
    },
    /// `queue pause` and `queue resume`.
    PauseQueue {
        /// Which.
        queue: QueueName,
        /// Whether turns are given again.
        resume: bool,
        /// Who asked.
        by: Asked,
    },
    /// `signal`.
    Signal {
        /// Which job.
        job: JobName,
        /// Signal number.
        signal: i32,
        /// Whom it reaches.
        scope: KillScope,
        /// Who asked.
        by: Asked,
    },
    /// The instance is to end.
    Shutdown {
        /// Leave the jobs running.
        keep_jobs: bool,
        /// Who asked.
        by: Asked,
    },
    /// An operator's verb that changes nothing by itself, to be remembered.
    Noted {
        /// The verb.
        verb: String,
        /// The job, if it is about one.
        job: Option<JobName>,
        /// What exactly.
        detail: String,
        /// Who asked.
        by: Asked,
    },
    /// No run is to be started, whoever asks for it, until [`Input::ReleaseStarts`].
    HoldStarts {
        /// Why, in words.
        why: String,
    },
    /// Runs may be started again: those that waited are.
    ReleaseStarts,
    /// `recover exit`: recovery mode is over.
    LeaveRecovery {
        /// Who asked.
        by: Asked,
    },
    /// What survived: at every start of a supervisor, and whenever a keeper (re)appears.
    Surveyed(Survey),
    /// The keeper started it.
    Launched {
        /// The run.
        run: RunId,
        /// Which process.
        identity: Identity,
        /// When.
        at: Stamp,
    },
    /// The keeper will never start this run: it refused, and nothing ran.
    Refused {
        /// The run.
        run: RunId,
        /// How it counts.
        outcome: Outcome,
    },
    /// The main process of a run has ended.
    Ended {
        /// All that is known.
        record: Box<ExitRecord>,
        /// Whether other processes of the run are still there.
        leftovers: bool,
    },
    /// The last process of a run is gone.
    TreeGone {
        /// The run.
        run: RunId,
    },
    /// A stop command has ended (or could not be started): the next rung may begin.
    StopCommandEnded {
        /// The run it was to stop.
        run: RunId,
        /// Which rung of its ladder it was.
        step: u32,
        /// Whether it succeeded.
        ok: bool,
    },
    /// The `before_stop` hook of a run has ended, well or not: the ladder may begin.
    HookEnded {
        /// The run that is to be stopped.
        run: RunId,
    },
    /// A run says how far it is, or how the next one can go on.
    Published {
        /// The run.
        run: RunId,
        /// What.
        said: Said,
    },
    /// A run has told that it is ready, or it was found to be.
    Ready {
        /// The run.
        run: RunId,
    },
    /// A run asks for more time.
    Extended {
        /// The run.
        run: RunId,
        /// Until when.
        until: Stamp,
    },
    /// A run that lives was found to be unwell.
    Unwell {
        /// The run.
        run: RunId,
        /// What is wrong.
        fault: Fault,
        /// The same in words.
        why: String,
    },
    /// What the processes of a run do has been written down, or cannot be.
    Diagnosed {
        /// The run.
        run: RunId,
    },
    /// Nothing is wrong with a run any more.
    Well {
        /// The run.
        run: RunId,
    },
    /// Rules on figures have been applied.
    Alerts {
        /// What follows from them.
        changes: Vec<Change>,
    },
    /// The keeper's connection is lost; a survey follows when it is back.
    KeeperLost,
    /// Time has passed; perhaps the deadline.
    Tick,
}

/// What is known about every run that the state holds as not ended, and about runs it does not know.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Survey {
    /// The facts, one for each run.
    pub runs: Vec<Surveyed>,
    /// Runs that this supervisor has not asked the keeper for yet, and still will: nothing was looked for.
    pub pending: BTreeSet<RunId>,
}

/// One run, looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Surveyed {
    /// The run.
    pub run: RunId,
    /// Its job, if anything on disk or in the keeper says so.
    pub job: Option<JobName>,
    /// What was found.
    pub fact: Fact,
    /// When somebody last saw it alive, wall clock in microseconds, if anything says so.
    pub seen_us: Option<i64>,
    /// A file of it that could not be read, and what is wrong with it.
    pub damage: Option<String>,
    /// Whether one that lives was watched until now.
    pub freshness: Freshness,
    /// The last rung whose signal was sent to it.
    pub rung: Option<Rung>,
}

impl Surveyed {
    /// A run with nothing but its fact.
    #[must_use]
    pub const fn new(run: RunId, job: Option<JobName>, fact: Fact) -> Self {
        Self { run, job, fact, seen_us: None, damage: None, freshness: Freshness::Fresh, rung: None }
    }
}

/// What was found of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// The keeper holds it, alive, identity proven.
    Alive {
        /// Which process.
        identity: Identity,
        /// When it was started.
        started: Stamp,
    },
    /// It has ended, and the record of it was found (with the keeper, or on disk).
    Ended {
        /// The record.
        record: Box<ExitRecord>,
        /// Whether other processes of it are still there.
        leftovers: bool,
    },
    /// The start decision was won by cancelling it: it never ran and never will.
    Cancelled,
    /// It ran, or may have, and how it ended cannot be known.
    Lost {
        /// Why.
        why: String,
    },
}
