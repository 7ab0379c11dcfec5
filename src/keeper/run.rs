//! One run as the keeper holds it.
//!
//! ```text
//! Live ──main process ends──▶ Ending ──drained, or 2 s──▶ Ended ──tree gone, told, forgotten──▶ (removed)
//! ```
//!
//! *Ending* waits for the capture worker to take what the pipe held; a stuck disk cannot hold the record
//! of the end for longer than [`DRAIN_US`]. *Ended* stays until the supervisor has made the end durable
//! and the last process of the tree is gone.

use std::os::fd::OwnedFd;

use super::capture::Totals;
use super::listen::Listening;
use super::tree::Member;
use crate::core::identity::Identity;
use crate::core::ids::{JobName, RunId};
use crate::core::outcome::{Asked, ExitRecord, Outcome, Rusage, Source};
use crate::core::spec::OnSupervisorDeath;
use crate::core::time::Stamp;
use crate::state_dir::exit::ExitSlot;
use crate::sys::reap::Ended;

/// Longest wait for the capture worker after the end of a main process, in microseconds.
pub(super) const DRAIN_US: u64 = 2_000_000;

/// How the main process ended, and how that is known.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) outcome: Outcome,
    pub(super) source: Source,
    pub(super) rusage: Option<Rusage>,
    pub(super) at: Stamp,
}

/// Where a run is.
#[derive(Debug)]
pub(super) enum Phase {
    Live,
    Ending { end: End, deadline_us: u64 },
    Ended { record: Box<ExitRecord> },
}

/// What is left of a run whose main process has ended.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// Processes proven to belong to it, each watched for its end.
    pub(super) members: Vec<Member>,
    /// Whether somebody holds one of its FIFOs.
    pub(super) fifo_held: bool,
    /// It is left alone: nobody waits for it any more.
    pub(super) disowned: bool,
    /// Somebody was told that something is left, and is to be told when it is gone.
    pub(super) told: bool,
}

impl Leftovers {
    pub(super) fn any(&self) -> bool {
        !self.disowned && (!self.members.is_empty() || self.fifo_held)
    }
}

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) job: JobName,
    pub(super) on_supervisor_death: OnSupervisorDeath,
    pub(super) identity: Option<Identity>,
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) started: Option<Stamp>,
    pub(super) stdin: Option<OwnedFd>,
    /// What it tells, if it was given a way to.
    pub(super) listening: Option<Box<Listening>>,
    pub(super) phase: Phase,
    pub(super) leftovers: Leftovers,
    pub(super) asked: Asked,
    /// Whether SIGKILL was asked for: then an end by it is no riddle.
    pub(super) killed: bool,
    /// Whether init holds it and waits for our acknowledgement.
    pub(super) child: bool,
    /// Whether a capture worker has it.
    pub(super) captured: bool,
    /// Whether the disk refuses its output: the pipes are kept until it does not.
    pub(super) stalled: bool,
    /// Whether its end is on disk. If the disk refused it, init keeps the zombie until the supervisor has
    /// made the end durable.
    pub(super) recorded: bool,
    /// Whether everything of it has been put away.
    pub(super) put_away: bool,
    /// Whether the supervisor has made its end durable.
    pub(super) forgotten: bool,
    pub(super) slot: Option<ExitSlot>,
    /// Whether its `kill` at the supervisor's death has been done.
    pub(super) killed_for_supervisor: bool,
}

impl Run {
    pub(super) fn pid(&self) -> i32 {
        self.identity.as_ref().map_or(0, |identity| identity.pid)
    }

    pub(super) const fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// Whether the main process is alive, or a zombie that only our acknowledgement lets go.
    pub(super) const fn is_pinned(&self) -> bool {
        match self.phase {
            Phase::Live | Phase::Ending { .. } => true,
            Phase::Ended { .. } => false,
        }
    }

    pub(super) fn record(&self, end: &End, totals: Totals, complete: bool) -> ExitRecord {
        ExitRecord {
            v: 1,
            run: self.id,
            job: self.job.clone(),
            outcome: end.outcome.clone(),
            source: end.source,
            asked: self.asked.clone(),
            started: self.started,
            ended: end.at,
            rusage: end.rusage,
            stdout_bytes: totals.stdout_bytes,
            stderr_bytes: totals.stderr_bytes,
            dropped_bytes: totals.dropped,
            output_complete: complete,
        }
    }
}

/// The outcome in what the kernel said.
pub(super) fn outcome_of(ended: &Ended) -> Outcome {
    match ended.code {
        libc::CLD_EXITED => Outcome::Exited { code: ended.status },
        libc::CLD_DUMPED => Outcome::Signaled { signal: ended.status, core: true },
        _ => Outcome::Signaled { signal: ended.status, core: false },
    }
}
