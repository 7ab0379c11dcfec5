//! What has happened: the vocabulary of the event log. Past participles; each names its job or run.

use serde::{Deserialize, Serialize};

use super::identity::{Epoch, Identity};
use super::ids::{Generation, JobName, RunId};
use super::outcome::{Asked, ExitRecord};
use super::spec::JobSpec;
use super::time::Stamp;

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
    /// The main process ended. Said once for each run.
    #[serde(rename = "run.ended")]
    RunEnded {
        /// The job.
        job: JobName,
        /// All that is known.
        record: Box<ExitRecord>,
        /// Whether other processes of the run were still there.
        leftovers: bool,
    },
    /// The last process of a run that left something over is gone.
    #[serde(rename = "run.tree_gone")]
    TreeGone {
        /// The job.
        job: JobName,
        /// The run.
        run: RunId,
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
    /// The job will not be started again by itself.
    #[serde(rename = "job.gave_up")]
    GaveUp {
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
    /// The instance began to end.
    #[serde(rename = "shutdown.begun")]
    ShutdownBegun {
        /// Whether jobs are left running.
        keep_jobs: bool,
        /// Who asked.
        by: Asked,
    },
}
