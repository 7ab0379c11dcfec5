//! What the run directories know of runs that the event log has forgotten.

use std::collections::BTreeMap;
use std::io;

use crate::core::event::{Event, Want};
use crate::core::identity::Epoch;
use crate::core::ids::{JobName, RunId};
use crate::core::outcome::Asked;
use crate::core::spec::Kind;
use crate::core::state::State;
use crate::state_dir::exit::read_exit;
use crate::state_dir::layout::StateDir;
use crate::state_dir::records::RunRecord;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Events that make the memory know of it.
    pub(super) events: Vec<Event>,
    /// Runs that are not known to have ended.
    pub(super) runs: u64,
    /// Where the latest of them were started.
    pub(super) epoch: Epoch,
}

/// Looks through the run directories. Of each job the latest run counts, if it is later than what is
/// remembered: one that may live is remembered as asked for, so that a survey finds out. A task that has ended is
/// remembered as that, and so is that an operator has stopped the job. Jobs that are not in `kinds` are left out.
pub(super) fn rebuild(
    state_dir: &StateDir,
    state: &State,
    kinds: Option<&BTreeMap<JobName, Kind>>,
) -> io::Result<Found> {
    let mut latest: BTreeMap<JobName, RunRecord> = BTreeMap::new();
    let mut runs = state_dir.list_runs()?;
    // Ids of runs are in the order of time.
    runs.sort();
    for run in runs {
        if let Ok(Some(record)) = state_dir.run(run).read_run()
            && record.run == run
            && kinds.is_none_or(|kinds| kinds.contains_key(&record.job))
        {
            latest.insert(record.job.clone(), record);
        }
    }
    let mut found = Found::default();
    let mut newest: Option<RunId> = None;
    for (job, record) in latest {
        if is_remembered(state, &job, record.run) {
            continue;
        }
        let dir = state_dir.run(record.run);
        let ended = read_exit(&dir).ok().flatten().filter(|exit| exit.run == record.run);
        let stopped = ended.as_ref().is_some_and(|exit| is_stop(&exit.asked));
        let want = if stopped { Want::Down } else { Want::Up };
        if state.job(&job).is_none() {
            found.events.push(Event::JobAdded { job: job.clone(), want });
        }
        let task = kinds.and_then(|kinds| kinds.get(&job)) == Some(&Kind::Task);
        if ended.is_some() && !task {
            continue;
        }
        let RunRecord { run, attempt, requested_at: at, .. } = record;
        found.events.push(Event::RunRequested { job: job.clone(), run, attempt, at });
        match ended {
            Some(exit) => found.events.push(Event::RunEnded {
                job,
                record: Box::new(exit),
                leftovers: false,
                failures: 0,
                interrupted: false,
            }),
            None => {
                found.runs += 1;
                if newest.is_none_or(|newest| newest < run)
                    && let Ok(Some(sentinel)) = dir.read_sentinel()
                {
                    newest = Some(run);
                    found.epoch = sentinel.identity.epoch;
                }
            }
        }
    }
    Ok(found)
}

/// Whether this run, or a later one of the job, is in the memory.
fn is_remembered(state: &State, job: &JobName, run: RunId) -> bool {
    let live = state.job(job).and_then(crate::core::job::Job::run);
    live.is_some() || state.runs(job).any(|past| past.run >= run)
}

/// Whether a run ended because an operator wanted the job to be down.
fn is_stop(asked: &Asked) -> bool {
    matches!(asked, Asked::Operator { verb, .. } if verb == "stop")
}
