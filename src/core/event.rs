//! What has happened: the vocabulary of the event log. Past participles; each names its job or run.

use serde::{Deserialize, Serialize};

use super::alerts::Alert;
use super::fault::Fault;
use super::identity::{Epoch, Identity};
use super::ids::{Generation, JobName, QueueName, RunId};
use super::outcome::{Asked, ExitRecord};
use super::progress::Said;
use super::queue::Place;
use super::saga::{Broken, End, Plan};
use super::spec::JobSpec;
use super::time::{Millis, Stamp};

/// What the operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// It is to run.
    Up,
    /// It is to be stopped.
    Down,
}

/// One fact worth remembering.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k")]
pub enum Event {
    /// A supervisor began its work.
    #[serde(rename = "supervisor.started")]
    SupervisorStarted {
        /// Its generation.
        generation: Generation,
        /// Its version.
        version: String,
        /// Where it lives.
        epoch: Epoch,
        /// Whether in recovery mode.
        recovery: bool,
        /// Whether it goes on with a shutdown that its predecessor had begun.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ending: bool,
        /// When the instance began, boot clock in microseconds; absent in events of earlier builds.
        #[serde(default, skip_serializing_if = "is_never")]
        born_us: u64,
    },
    /// A configured job became known. Its settings stay in the configuration.
    #[serde(rename = "job.added")]
    JobAdded {
        /// The job.
        job: JobName,
        /// What is wanted of it from now on.
        want: Want,
    },
    /// A job was submitted at run time. Its settings are kept here, because they are nowhere else.
    #[serde(rename = "job.submitted")]
    JobSubmitted {
        /// The settings.
        spec: Box<JobSpec>,
        /// Who asked.
        by: Asked,
    },
    /// A job left the configuration; it is forgotten when its run has ended.
    #[serde(rename = "job.removed")]
    JobRemoved {
        /// The job.
        job: JobName,
    },
    /// An operator's wish. It holds over restart, reload and reboot.
    #[serde(rename = "job.want")]
    WantSet {
        /// The job.
        job: JobName,
        /// What is wanted.
        want: Want,
        /// Who asked.
        by: Asked,
    },
    /// A job stands in line for its turn, or elsewhere in it.
    #[serde(rename = "job.queued")]
    Queued {
        /// The job.
        job: JobName,
        /// Where.
        place: Box<Place>,
    },
    /// No turn is given in a queue.
    #[serde(rename = "queue.paused")]
    QueuePaused {
        /// The queue.
        queue: QueueName,
        /// Who asked.
        by: Asked,
    },
    /// Turns are given again.
    #[serde(rename = "queue.resumed")]
    QueueResumed {
        /// The queue.
        queue: QueueName,
        /// Who asked.
        by: Asked,
    },
    /// A start was decided. From here on the run may exist.
    #[serde(rename = "run.requested")]
    RunRequested {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
        /// Which try, counted from 1.
        attempt: u64,
        /// When.
        at: Stamp,
    },
    /// The main process is past `execve`.
    #[serde(rename = "run.started")]
    RunStarted {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
        /// Which process.
        identity: Identity,
        /// When.
        at: Stamp,
        /// How long it counts as starting; 0: it is up at once.
        #[serde(default, skip_serializing_if = "is_zero")]
        grace: Millis,
        /// Whether it has to tell that it is ready within that time.
        #[serde(default, skip_serializing_if = "is_false")]
        awaits: bool,
    },
    /// The start grace of a run is over and it still runs: it is up for those that depend on it.
    #[serde(rename = "run.ready")]
    RunReady {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
    },
    /// A run that survived was taken back by a new supervisor.
    #[serde(rename = "run.adopted")]
    RunAdopted {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
        /// Which process.
        identity: Identity,
        /// When it was started.
        started: Stamp,
        /// How long it counts as starting, from `started` on.
        #[serde(default, skip_serializing_if = "is_zero")]
        grace: Millis,
        /// Whether it has to tell that it is ready within that time.
        #[serde(default, skip_serializing_if = "is_false")]
        awaits: bool,
    },
    /// A run asked for more time, to come up or to end.
    #[serde(rename = "run.extended")]
    RunExtended {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
        /// Until when.
        until: Stamp,
    },
    /// A run that lives was found to be unwell.
    #[serde(rename = "run.unwell")]
    RunUnwell {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
        /// What is wrong.
        fault: Fault,
        /// The same in words.
        why: String,
    },
    /// A rung of the ladder for a run that hangs was begun: its signal follows.
    #[serde(rename = "run.heal_step")]
    HealStepBegun {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
        /// Which rung, from 0.
        step: u32,
        /// When the next one is due; `None`: there is none, it is waited for signs of life.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Stamp>,
    },
    /// Nothing is wrong any more with a run that was unwell.
    #[serde(rename = "run.well")]
    RunWell {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
    },
    /// The circuit of the job is half open, and this run is on trial.
    #[serde(rename = "run.on_trial")]
    TrialBegun {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
        /// When it has lasted long enough.
        until: Stamp,
    },
    /// A run on trial has lasted long enough, or is ready: the circuit is closed, the failures before are
    /// forgotten.
    #[serde(rename = "run.passed_trial")]
    TrialPassed {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
    },
    /// A stop was begun: the signals of the ladder follow.
    #[serde(rename = "run.stopping")]
    StopBegun {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
        /// Who asked.
        by: Asked,
        /// When.
        at: Stamp,
        /// Whether another run follows.
        then_start: bool,
    },
    /// A rung of the stop ladder was begun: its signal or command follows.
    #[serde(rename = "run.stop_step")]
    StopStepBegun {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
        /// Which rung, from 0; the one after the last configured rung is `KILL`.
        step: u32,
        /// When the next rung is due.
        until: Stamp,
        /// Whether this rung is the final `KILL`.
        #[serde(default, skip_serializing_if = "is_false")]
        kill: bool,
        /// Whether this comes before the first rung: the `before_stop` hook.
        #[serde(default, skip_serializing_if = "is_false")]
        hook: bool,
    },
    /// The main process ended. Said once for each run.
    #[serde(rename = "run.ended")]
    RunEnded {
        /// The job.
        job: JobName,
        /// All that is known.
        record: Box<ExitRecord>,
        /// Whether other processes of the run were still there.
        leftovers: bool,
        /// Failures in a row, this one included if it was one.
        #[serde(default, skip_serializing_if = "is_nought")]
        failures: u32,
        /// Whether it was cut off by our own accident or a reboot: neither its start nor its end counts
        /// against the job.
        #[serde(default, skip_serializing_if = "is_false")]
        interrupted: bool,
    },
    /// A run says how far it is, or how the next one can go on.
    #[serde(rename = "run.progress")]
    RunProgress {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
        /// What.
        #[serde(flatten)]
        said: Said,
    },
    /// The last process of a run that left something over is gone.
    #[serde(rename = "run.tree_gone")]
    TreeGone {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
    },
    /// What is left of an ended run is left alone from now on (`leftovers = "ignore"`).
    #[serde(rename = "run.disowned")]
    Disowned {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
    },
    /// The job is to run as soon as the jobs it depends on are up and the keeper is there.
    #[serde(rename = "job.waiting")]
    WaitBegun {
        /// The job.
        job: JobName,
    },
    /// A next try was scheduled.
    #[serde(rename = "job.backoff")]
    BackedOff {
        /// The job.
        job: JobName,
        /// How many failures in a row led here.
        failures: u32,
        /// When the try is due.
        until: Stamp,
    },
    /// Its restart policy would start another run; recovery mode leaves that to whoever ends it.
    #[serde(rename = "job.rests")]
    Rested {
        /// The job.
        job: JobName,
    },
    /// The job will not be started again by itself.
    #[serde(rename = "job.gave_up")]
    GaveUp {
        /// The job.
        job: JobName,
        /// Why.
        why: String,
        /// When it is tried again all the same; `None`: when somebody asks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Stamp>,
    },
    /// The failure of this job counts as a restart of the group it belongs to.
    #[serde(rename = "group.restart")]
    GroupRestart {
        /// The job.
        job: JobName,
        /// The group.
        group: String,
    },
    /// A job that was given up is tried again: its failures and starts before are forgotten.
    #[serde(rename = "job.retried")]
    Retried {
        /// The job.
        job: JobName,
    },
    /// A task that is to run was not started: entries of the event log are missing, and its run may be among
    /// them. A start by an operator releases it.
    #[serde(rename = "job.held")]
    Held {
        /// The job.
        job: JobName,
        /// Why.
        why: String,
    },
    /// A run was found that no job accounts for; it was left alone and is reported.
    #[serde(rename = "run.orphan")]
    OrphanFound {
        /// The run.
        run: RunId,
        /// The job it says it belongs to.
        job: Option<JobName>,
    },
    /// A run that was reported as an orphan has ended.
    #[serde(rename = "run.orphan_gone")]
    OrphanGone {
        /// The run.
        run: RunId,
        /// The job it said it belonged to.
        job: Option<JobName>,
    },
    /// What survived is known and settled; from here on runs are started and signalled.
    #[serde(rename = "supervisor.surveyed")]
    Surveyed,
    /// So many entries of the event log are missing by now, and nothing was started that may be among them.
    #[serde(rename = "loss.settled")]
    LossSettled {
        /// How many, from the beginning.
        entries: u64,
    },
    /// The keeper is gone; nothing is started or signalled before the next survey.
    #[serde(rename = "keeper.lost")]
    KeeperLost,
    /// An operator's verb that changes no memory: `signal`, `reload`, `recover`.
    #[serde(rename = "operator.acted")]
    Acted {
        /// The verb.
        verb: String,
        /// The job, if it was about one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        job: Option<JobName>,
        /// What exactly, in words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        detail: String,
        /// Who.
        by: Asked,
    },
    /// Recovery mode is over: what is wanted is started again.
    #[serde(rename = "recovery.left")]
    RecoveryLeft {
        /// Who asked.
        by: Asked,
    },
    /// An operation of several steps began; the rest of the decision is its steps.
    #[serde(rename = "saga.begun")]
    SagaBegun {
        /// What it is.
        plan: Box<Plan>,
    },
    /// A step of it is done: its job is up.
    #[serde(rename = "saga.step_done")]
    SagaStepDone {
        /// Which saga.
        saga: u64,
        /// The job of the step.
        step: JobName,
    },
    /// It failed, or its time is over: it is undone next.
    #[serde(rename = "saga.undoing")]
    SagaUndoing {
        /// Which saga.
        saga: u64,
        /// Why.
        #[serde(flatten)]
        broken: Broken,
    },
    /// It is over. Undone: the rest of the decision is the undo.
    #[serde(rename = "saga.ended")]
    SagaEnded {
        /// Which saga.
        saga: u64,
        /// How.
        end: End,
    },
    /// A figure is beyond its threshold: somebody should look.
    #[serde(rename = "alert.raised")]
    AlertRaised {
        /// What.
        #[serde(flatten)]
        alert: Box<Alert>,
    },
    /// It is not any more.
    #[serde(rename = "alert.cleared")]
    AlertCleared {
        /// What, with the figure as it is now.
        #[serde(flatten)]
        alert: Box<Alert>,
    },
    /// No run is started from here on.
    #[serde(rename = "starts.held")]
    StartsHeld {
        /// Why, in words.
        why: String,
    },
    /// Runs may be started again.
    #[serde(rename = "starts.released")]
    StartsReleased,
    /// The instance began to end.
    #[serde(rename = "shutdown.begun")]
    ShutdownBegun {
        /// Whether jobs are left running.
        keep_jobs: bool,
        /// Who asked.
        by: Asked,
        /// What the instance exits with in the end.
        #[serde(default, skip_serializing_if = "is_no_code")]
        code: u8,
    },
    /// The time for an orderly shutdown is over: everything left is killed.
    #[serde(rename = "shutdown.forced")]
    ShutdownForced,
}

impl Event {
    /// The job whose memory this event changes; `None` for events of the instance.
    #[must_use]
    pub fn job(&self) -> Option<&JobName> {
        match self {
            Self::JobSubmitted { spec, .. } => Some(&spec.name),
            Self::JobAdded { job, .. }
            | Self::JobRemoved { job }
            | Self::WantSet { job, .. }
            | Self::Queued { job, .. }
            | Self::RunRequested { job, .. }
            | Self::RunStarted { job, .. }
            | Self::RunReady { job, .. }
            | Self::RunAdopted { job, .. }
            | Self::RunExtended { job, .. }
            | Self::RunUnwell { job, .. }
            | Self::HealStepBegun { job, .. }
            | Self::RunWell { job, .. }
            | Self::TrialBegun { job, .. }
            | Self::TrialPassed { job, .. }
            | Self::StopBegun { job, .. }
            | Self::StopStepBegun { job, .. }
            | Self::RunEnded { job, .. }
            | Self::RunProgress { job, .. }
            | Self::TreeGone { job, .. }
            | Self::Disowned { job, .. }
            | Self::WaitBegun { job }
            | Self::BackedOff { job, .. }
            | Self::Rested { job }
            | Self::Held { job, .. }
            | Self::Retried { job }
            | Self::GroupRestart { job, .. }
            | Self::GaveUp { job, .. } => Some(job),
            Self::SupervisorStarted { .. }
            | Self::OrphanFound { .. }
            | Self::OrphanGone { .. }
            | Self::Surveyed
            | Self::LossSettled { .. }
            | Self::KeeperLost
            | Self::Acted { .. }
            | Self::RecoveryLeft { .. }
            | Self::SagaBegun { .. }
            | Self::SagaStepDone { .. }
            | Self::SagaUndoing { .. }
            | Self::SagaEnded { .. }
            | Self::AlertRaised { .. }
            | Self::AlertCleared { .. }
            | Self::StartsHeld { .. }
            | Self::StartsReleased
            | Self::QueuePaused { .. }
            | Self::QueueResumed { .. }
            | Self::ShutdownBegun { .. }
            | Self::ShutdownForced => None,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_never(us: &u64) -> bool {
    *us == 0
}

const fn is_zero(d: &Millis) -> bool {
    d.0 == 0
}

const fn is_nought(n: &u32) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_no_code(code: &u8) -> bool {
    *code == 0
}

const fn is_false(b: &bool) -> bool {
    !*b
}
