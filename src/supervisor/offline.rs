//! What the next start would do, told without an instance and without changing a byte: from the event log,
//! the run directories and `/proc`.
//!
//! What only a keeper can find out is not in it: how a run ended that was never recorded is taken as lost.

use std::collections::BTreeMap;
use std::path::Path;

use super::main_loop::now;
use super::survey::{beyond, from_disk};
use super::words;
use crate::config;
use crate::core::decide;
use crate::core::identity::{Epoch, Identity};
use crate::core::ids::{Generation, JobName, RunId};
use crate::core::input::{Fact, Input, Survey, Surveyed};
use crate::core::outcome::Asked;
use crate::core::reconcile::plan;
use crate::core::report::{RunsReport, StartReport};
use crate::core::spec::JobSpec;
use crate::core::state::State;
use crate::journal::{
    self,
    inspect::{self, Mode, Repaired},
};
use crate::state_dir::layout::StateDir;
use crate::sys::{flock, identity, pidfd};

/// What `outlive up` would do with what survived.
///
/// # Errors
/// In words: the event log or the configuration cannot be read.
pub fn plan(state_dir: &Path, config: Option<&Path>) -> Result<RunsReport, String> {
    let state_dir = StateDir(state_dir.to_owned());
    let epoch = Epoch { boot_id: identity::boot_id(), init: identity::init_token() };
    let specs = specs(config)?;
    let recovered = journal::recover(&state_dir.0, State::new(), &mut |_, _| {});
    let mut state = recovered.map_err(|e| format!("the event log: {e}"))?.state;
    let at = now();
    let started = Input::SupervisorStarted {
        generation: Generation(state.instance.generation.0 + 1),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: epoch.clone(),
        recovery: false,
        born_us: at.boot_us,
    };
    for input in [started, Input::Configured { specs, by: Asked::Nobody }] {
        let decision = decide(&state, &input, at, &mut plan::Nobody);
        state.commit(&decision, at);
    }
    let live: BTreeMap<RunId, JobName> = state.live_runs().map(|(run, job)| (run, job.clone())).collect();
    let look = |(run, job)| look(&state_dir, &epoch, (run, job), !state.is_of_earlier_epoch(run));
    let mut survey = Survey { runs: live.into_iter().map(look).collect(), ..Survey::default() };
    survey.runs.extend(beyond(&state_dir, &state, &survey, false));
    Ok(plan::plan(&state, &survey, at))
}

/// The report of the last start, if there was one.
///
/// # Errors
/// In words: it cannot be read.
pub fn report(state_dir: &Path) -> Result<Option<StartReport>, String> {
    StateDir(state_dir.to_owned()).read_report().map_err(|error| error.to_string())
}

/// Why this build cannot work with a state directory, by its file `format`.
///
/// # Errors
/// In words: it is missing or makes no sense, or a later build has written there.
pub fn format(state_dir: &Path) -> Result<(), String> {
    StateDir(state_dir.to_owned()).look_at_format().map_err(|error| words(&error))
}

/// Puts the event log in order, as a start would, unless an instance lives there. A dry run takes no lock.
///
/// # Errors
/// In words: somebody else writes there, or a file cannot be read or written.
pub fn repair(state_dir: &Path, mode: Mode) -> Result<Repaired, String> {
    let state_dir = StateDir(state_dir.to_owned());
    let work = || inspect::repair(&state_dir.0, mode, now()).map_err(|error| words(&error));
    if mode == Mode::DryRun {
        return work();
    }
    // The lock of the instance keeps the next `outlive up` waiting; a supervisor may live without its init.
    let _locks = [exclusively(&state_dir.lock())?, exclusively(&state_dir.supervisor_lock())?];
    work()
}

fn exclusively(path: &Path) -> Result<flock::Lock, String> {
    match flock::open(path) {
        Ok(flock::Tried::Held(lock)) => Ok(lock),
        Ok(flock::Tried::Busy(_, holder)) => {
            Err(format!("an instance lives there (process {} holds {})", holder.pid, path.display()))
        }
        Err(error) => Err(format!("cannot lock {}: {error}", path.display())),
    }
}

fn specs(config: Option<&Path>) -> Result<Vec<JobSpec>, String> {
    let env = super::asks::loader_environment();
    let found = config.map(Path::to_owned).or_else(|| config::find_default(&env));
    let Some(path) = found else { return Ok(config::empty().jobs) };
    config::load(&path, &env).map(|config| config.jobs).map_err(|errors| errors.to_string())
}

fn look(state: &StateDir, epoch: &Epoch, (run, job): (RunId, JobName), this_epoch: bool) -> Surveyed {
    if let Ok(Some(sentinel)) = state.run(run).read_sentinel()
        && sentinel.run == run
        && sentinel.identity.epoch == *epoch
        && is_alive(&sentinel.identity)
    {
        let fact = Fact::Alive { identity: sentinel.identity, started: sentinel.started };
        return Surveyed::new(run, Some(job), fact);
    }
    from_disk(state, (run, job), this_epoch, false)
}

/// Whether exactly this process lives.
fn is_alive(identity: &Identity) -> bool {
    let Identity { pid, pidfs, start_ticks, .. } = *identity;
    identity::proven(pid, pidfs, start_ticks).is_some_and(|handle| !pidfd::has_ended(&handle))
}
