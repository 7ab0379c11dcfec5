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

use serde::{Deserialize, Serialize};

use super::capture::Totals;
use super::listen::Listening;
use super::tree::Member;
use crate::core::identity::Identity;
use crate::core::ids::{JobName, RunId};
use crate::core::outcome::{Asked, ExitRecord, Outcome, Rusage, Source};
use crate::core::rung::{self, Rung};
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

/// Who ends by a signal does so within this time, in microseconds.
const ENDS_BY_IT_US: u64 = 10_000_000;

/// What was sent to a run, in a file of its runtime directory: a keeper after this one says who asked for its end, too.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Signalled {
    /// Who asked for the last signal.
    pub(super) asked: Asked,
    /// When, boot clock in microseconds.
    pub(super) at_us: u64,
    /// Whether SIGKILL was asked for: then an end by it is no riddle.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) killed: bool,
    /// The last rung whose signal was sent.
    #[serde(deserialize_with = "rung::lenient", skip_serializing_if = "Option::is_none")]
    pub(super) rung: Option<Rung>,
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
    pub(super) signalled: Signalled,
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
            asked: asked_for(&self.signalled.asked, self.signalled.at_us, end.at),
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

/// Who has asked for an end at this moment. A signal may have been for something else: to read a configuration again,
/// say, a week ago.
fn asked_for(asked: &Asked, asked_us: u64, at: Stamp) -> Asked {
    let by_the_way = match asked {
        Asked::Operator { verb, .. } => verb == "signal",
        Asked::Policy { rule } => rule == "limits",
        Asked::Nobody
        | Asked::Reload
        | Asked::Shutdown
        | Asked::SupervisorDeath
        | Asked::Health { .. }
        | Asked::Group { .. } => false,
    };
    let long_ago = at.boot_us > asked_us.saturating_add(ENDS_BY_IT_US);
    if by_the_way && long_ago { Asked::Nobody } else { asked.clone() }
}

/// The outcome in what the kernel said.
pub(super) fn outcome_of(ended: &Ended) -> Outcome {
    match ended.code {
        libc::CLD_EXITED => Outcome::Exited { code: ended.status },
        libc::CLD_DUMPED => Outcome::Signaled { signal: ended.status, core: true },
        _ => Outcome::Signaled { signal: ended.status, core: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_of_long_ago_is_not_what_a_run_ends_by() {
        let by = |verb: &str| Asked::Operator { uid: 0, verb: verb.to_owned() };
        let limits = Asked::Policy { rule: "limits".to_owned() };
        let stands = |asked: &Asked, after_us| {
            asked_for(asked, 5, Stamp { boot_us: 5 + after_us, wall_us: 0 }) == *asked
        };
        for asked in [by("signal"), limits] {
            assert!(stands(&asked, ENDS_BY_IT_US), "{asked:?}");
            assert!(!stands(&asked, ENDS_BY_IT_US + 1), "{asked:?}");
        }
        assert!(stands(&by("stop"), 1000 * ENDS_BY_IT_US), "it may take its time");
    }
}
