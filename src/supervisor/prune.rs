//! Run directories that nobody remembers any more are removed: each job keeps its latest runs. With the last
//! of them goes the link to it.

use std::collections::BTreeMap;

use super::main_loop::Supervisor;
use crate::core::ids::{JobName, RunId};
use crate::core::state::State;

/// The runs that each job has, but for those at rest: theirs are looked up when anything happens to one.
pub(super) fn runs_of_the_awake(state: &State) -> BTreeMap<JobName, Vec<RunId>> {
    let runs = |name: &JobName| state.runs(name).map(|run| run.run).collect();
    state.awake().map(|(name, _)| (name.clone(), runs(name))).collect()
}

impl Supervisor {
    /// Removes the directories of runs that a job had and has no longer in its history. Output that lies
    /// elsewhere goes with them.
    pub(super) fn prune(&mut self, job: &JobName) {
        let now: Vec<RunId> = self.state.runs(job).map(|run| run.run).collect();
        let before = if now.is_empty() {
            self.known_runs.remove(job)
        } else {
            self.known_runs.insert(job.clone(), now.clone())
        };
        let gone: Vec<_> = before
            .unwrap_or_default()
            .into_iter()
            .filter(|run| !now.contains(run) && self.state.job_of(*run).is_none())
            .map(|run| self.state_dir.run(run))
            .collect();
        if gone.is_empty() {
            return;
        }
        let link = self.state_dir.current(job);
        tokio::task::spawn_blocking(move || {
            // A job of the same name may have begun meanwhile: then the link is to its run, and stays.
            let to = std::fs::read_link(&link).ok();
            if gone.iter().any(|dir| to.as_ref().is_some_and(|to| to.file_name() == dir.0.file_name()))
                && std::fs::remove_file(&link).is_ok()
                && let Some(dir) = link.parent()
            {
                // Unless somebody has put something else there.
                let _ = std::fs::remove_dir(dir);
            }
            for dir in gone {
                if let Ok(elsewhere) = std::fs::read_link(dir.output()) {
                    let _ = std::fs::remove_dir_all(elsewhere);
                }
                if let Err(error) = std::fs::remove_dir_all(&dir.0) {
                    tracing::debug!(dir = %dir.0.display(), %error, "an old run directory cannot be removed");
                }
            }
        });
    }
}
