//! What survived: the keeper's inventory, and what lies in the run directories, as facts for the core.
//!
//! For every run that the state holds as not ended, one fact. The keeper has looked through init's table
//! and the runtime directory when it started, so what it does not list either ended and was recorded, or
//! never came into being:
//!
//! - `exit.json` is there: it ended as recorded;
//! - the run directory is missing: the request never reached a keeper, or not far. A launch makes that
//!   directory before it makes a process, so nothing ran; after a reboot a directory may be lost that was
//!   never synced, so then nothing is known;
//! - otherwise it may have run, and nobody can say how it ended.

use crate::core::freshness::Freshness;
use crate::core::identity::Epoch;
use crate::core::ids::{JobName, RunId};
use crate::core::input::{Fact, Survey, Surveyed};
use crate::core::state::State;
use crate::state_dir::exit::read_exit;
use crate::state_dir::layout::StateDir;
use crate::state_dir::quarantine;
use crate::state_dir::records::ReadError;
use crate::sys::clock;
use crate::wire::keeper::RunStatus;

/// A run the state holds as not ended.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) run: RunId,
    pub(super) job: JobName,
    /// Whether it was asked for in the epoch we live in.
    pub(super) this_epoch: bool,
}

/// The facts about `open` runs and about whatever else the keeper lists.
///
/// `set_aside`: what cannot be read goes to quarantine; otherwise nothing on disk is touched.
pub(super) fn survey(
    state: &StateDir,
    epoch: &Epoch,
    open: Vec<Open>,
    inventory: Vec<RunStatus>,
    set_aside: bool,
) -> Survey {
    let mut runs: Vec<Surveyed> = Vec::with_capacity(open.len());
    let listed: std::collections::BTreeSet<RunId> = inventory.iter().map(|status| status.run).collect();
    let owners: std::collections::BTreeMap<RunId, &JobName> = open.iter().map(|o| (o.run, &o.job)).collect();
    for mut status in inventory {
        // A keeper that died before it had written whose run this is has left that to us.
        if let Some(owner) = owners.get(&status.run) {
            status.job.clone_from(owner);
            if let Some(record) = &mut status.ended {
                record.job.clone_from(owner);
            }
        }
        runs.push(from_keeper(state, status, epoch));
    }
    for Open { run, job, this_epoch } in open.into_iter().filter(|open| !listed.contains(&open.run)) {
        runs.push(from_disk(state, (run, job), this_epoch, set_aside));
    }
    Survey { runs, ..Survey::default() }
}

/// Runs that have a directory, were made after the end of what is remembered, and are not among those found:
/// what the event log held about them is missing.
pub(super) fn beyond(dir: &StateDir, state: &State, found: &Survey, set_aside: bool) -> Vec<Surveyed> {
    let known: std::collections::BTreeSet<RunId> = found.runs.iter().map(|found| found.run).collect();
    let all = dir.list_runs().unwrap_or_default();
    let late = all.into_iter().filter(|run| !known.contains(run) && state.is_beyond(*run, None));
    let look = |run: RunId| match dir.run(run).read_run() {
        Ok(Some(record)) => from_disk(dir, (run, record.job), true, set_aside),
        Ok(None) | Err(_) => {
            Surveyed::new(run, None, Fact::Lost { why: "whose it is cannot be read".to_owned() })
        }
    };
    late.map(look).filter(|found| state.is_beyond(found.run, found.job.as_ref())).collect()
}

fn from_keeper(dir: &StateDir, status: RunStatus, epoch: &Epoch) -> Surveyed {
    let rung = status.rung;
    let fact = match (status.ended, status.identity) {
        (Some(record), _) => Fact::Ended { record, leftovers: status.leftovers },
        (None, Some(identity)) if identity.epoch == *epoch => {
            Fact::Alive { identity, started: status.started.unwrap_or_default() }
        }
        (None, _) => Fact::Lost { why: "the keeper holds it without a proven identity".to_owned() },
    };
    let alive = matches!(fact, Fact::Alive { .. });
    let seen_us = alive.then(|| dir.run(status.run).last_seen_us()).flatten();
    let freshness = seen_us.map_or(Freshness::Fresh, |seen_us| Freshness::of(seen_us, clock::wall_us()));
    if freshness != Freshness::Fresh {
        tracing::warn!(run = %status.run, job = %status.job, "{}", freshness.words());
    }
    Surveyed { freshness, rung, ..Surveyed::new(status.run, Some(status.job), fact) }
}

/// What the files say of a run that no keeper lists.
pub(super) fn from_disk(
    state: &StateDir,
    (run, job): (RunId, JobName),
    this_epoch: bool,
    set_aside: bool,
) -> Surveyed {
    let dir = state.run(run);
    let mut damage = None;
    match read_exit(&dir) {
        Ok(Some(record)) if record.run == run => {
            let fact = Fact::Ended { record: Box::new(record), leftovers: false };
            return Surveyed::new(run, Some(job), fact);
        }
        Err(ReadError::Bad { why, .. }) => {
            damage = Some(format!("its exit record cannot be read: {why}"));
            if set_aside {
                tracing::warn!(%run, "its exit record cannot be read; set aside");
                let _ = quarantine::set_aside(state, &dir.exit_json(), "not an exit record");
            }
        }
        Ok(_) | Err(_) => {}
    }
    if this_epoch && !dir.0.exists() {
        return Surveyed::new(run, Some(job), Fact::Cancelled);
    }
    let why = if this_epoch {
        "it was started, and neither a process nor a record of its end is there"
    } else {
        "the host or the container was restarted while it ran"
    };
    let seen_us = dir.last_seen_us();
    let fact = Fact::Lost { why: why.to_owned() };
    Surveyed { seen_us, damage, ..Surveyed::new(run, Some(job), fact) }
}
