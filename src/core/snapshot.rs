//! The memory as lines, and back: what a checkpoint holds.
//!
//! One line is one JSON object and one entity: a job with its history, the instance, an orphan. What the
//! state can work out again (indexes, deadlines) is in none. A state that was folded from events and one
//! restored from its lines are equal, but for what is handed in beside the events.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ids::{JobName, RunId};
use super::job::{Job, PastRun};
use super::spec::JobSpec;
use super::state::{Entry, Instance, State};

/// Fields in the order of how often they are needed; the settings, the longest part, come last.
#[derive(Serialize)]
struct JobOut<'a> {
    job: &'a JobName,
    s: &'a Job,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    earlier: bool,
    #[serde(skip_serializing_if = "VecDeque::is_empty")]
    past: &'a VecDeque<PastRun>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<&'a JobSpec>,
}

#[derive(Serialize)]
struct InstanceOut<'a> {
    instance: &'a Instance,
    finished: &'a VecDeque<JobName>,
}

#[derive(Serialize)]
struct OrphanOut<'a> {
    orphan: &'a RunId,
}

/// Any line. Fields that a later build adds are ignored.
#[derive(Deserialize)]
struct In {
    job: Option<JobName>,
    s: Option<Job>,
    #[serde(default)]
    earlier: bool,
    #[serde(default)]
    past: VecDeque<PastRun>,
    spec: Option<Box<JobSpec>>,
    instance: Option<Instance>,
    finished: Option<VecDeque<JobName>>,
    orphan: Option<RunId>,
}

/// Why a line cannot be taken back.
#[derive(Debug, thiserror::Error)]
pub enum BadEntity {
    /// No such JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Nothing that this build knows.
    #[error("it is no entity")]
    Unknown,
}

impl State {
    /// Hands every entity to `line`, as a JSON object, in an order that depends on nothing but the state.
    ///
    /// # Errors
    /// Those of `line`.
    pub fn entities<E: From<serde_json::Error>>(
        &self,
        mut line: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut bytes = Vec::new();
        let mut put = |bytes: &mut Vec<u8>| {
            let done = line(bytes);
            bytes.clear();
            done
        };
        serde_json::to_writer(
            &mut bytes,
            &InstanceOut { instance: &self.instance, finished: &self.finished },
        )?;
        put(&mut bytes)?;
        for (job, entry) in &self.jobs {
            let out = JobOut {
                job,
                s: &entry.job,
                earlier: entry.job.run().is_some_and(|run| self.earlier.contains(&run)),
                past: &entry.past,
                spec: self.specs.get(job).filter(|_| entry.job.submitted).map(|spec| &**spec),
            };
            serde_json::to_writer(&mut bytes, &out)?;
            put(&mut bytes)?;
        }
        for orphan in &self.orphans {
            serde_json::to_writer(&mut bytes, &OrphanOut { orphan })?;
            put(&mut bytes)?;
        }
        Ok(())
    }

    /// Takes one entity back.
    ///
    /// # Errors
    /// If the line is none. The state is as it was then.
    pub fn restore(&mut self, line: &[u8]) -> Result<(), BadEntity> {
        let In { job, s, earlier, mut past, spec, instance, finished, orphan } =
            serde_json::from_slice(line)?;
        match (job, s, instance, orphan) {
            (Some(name), Some(mut job), None, None) => {
                // Most of them will never grow again.
                past.shrink_to_fit();
                job.window.shrink_to_fit();
                self.instance.newest = self.instance.newest.max(past.iter().map(|past| past.run).max());
                if let Some(run) = job.run() {
                    self.live.insert(run, name.clone());
                    if earlier {
                        self.earlier.insert(run);
                    }
                }
                if let Some(at) = job.deadline() {
                    self.deadlines.insert((at, name.clone()));
                }
                if let Some(spec) = spec {
                    self.insert_spec(Arc::new(*spec));
                }
                self.jobs.insert(name, Entry { job, past });
            }
            (None, None, Some(instance), None) => {
                self.instance = instance;
                self.finished = finished.unwrap_or_default();
            }
            (None, None, None, Some(orphan)) => {
                self.orphans.insert(orphan);
            }
            _ => return Err(BadEntity::Unknown),
        }
        Ok(())
    }
}
