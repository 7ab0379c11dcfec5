//! What the kernel holds runs to, in their control groups.
//!
//! The keeper sets it when it starts a run. A reload may want something else of a run that lives, and so may the
//! configuration of a supervisor that has found it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Vigils, aside};
use crate::core::ids::RunId;
use crate::core::spec::JobSpec;
use crate::supervisor::launching::group_limits;
use crate::sys::cgroup::{self, Limits};
use crate::wire::keeper::GroupLimits;

/// What live runs are to be held to, as far as this supervisor has asked for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Limited(Arc<Mutex<BTreeMap<RunId, GroupLimits>>>);

impl Limited {
    fn all(&self) -> MutexGuard<'_, BTreeMap<RunId, GroupLimits>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that is something else than before.
    fn is_new(&self, run: RunId, limits: GroupLimits) -> bool {
        self.all().insert(run, limits) != Some(limits)
    }

    pub(super) fn forget(&self, run: RunId) {
        self.all().remove(&run);
    }

    /// Who comes late has another look: what was asked for meanwhile counts.
    fn apply(&self, run: RunId, group: &Path) {
        let mut applied = None;
        loop {
            let wanted = self.all().get(&run).copied();
            let Some(limits) = wanted.filter(|_| wanted != applied) else { return };
            if group.exists() {
                let GroupLimits { memory, pids, cpu_percent } = limits;
                cgroup::lift(group);
                let _ = cgroup::limit(group, Limits { memory, pids, cpu_percent });
            }
            applied = wanted;
        }
    }
}

impl Vigils {
    /// This was asked of the keeper.
    pub(in super::super) fn launched(&self, run: RunId, limits: GroupLimits) {
        if self.groups.is_some() {
            self.limited.is_new(run, limits);
        }
    }

    /// Has the kernel hold a run to other limits, if it is to be.
    pub(super) fn limit(&self, run: RunId, spec: &JobSpec) {
        let Some(base) = &self.groups else { return };
        if self.limited.is_new(run, group_limits(spec)) {
            let (limited, group) = (self.limited.clone(), base.join(run.to_string()));
            // Who gets less memory than it has waits until the kernel has taken it away.
            aside(move || limited.apply(run, &group));
        }
    }
}
