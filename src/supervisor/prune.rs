//! Run directories that nobody remembers any more are removed: each job keeps its latest runs.

use super::main_loop::Supervisor;
use crate::core::ids::{JobName, RunId};

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
        tokio::task::spawn_blocking(move || {
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
