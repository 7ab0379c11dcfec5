//! What the kernel holds runs to, in their control groups.
//!
//! The keeper sets it when it starts a run. A reload may want something else of a run that lives, and so may the
//! configuration of a supervisor that has found it.

use std::collections::{BTreeMap, BTreeSet};
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
pub(super) struct Limited(Arc<Mutex<Wishes>>);

#[derive(Debug, Default)]
struct Wishes {
    all: BTreeMap<RunId, GroupLimits>,
    /// Those that are not in force yet.
    open: BTreeSet<RunId>,
    /// Whether a thread is about them.
    busy: bool,
}

impl Limited {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether that is something else than before.
    fn is_new(&self, run: RunId, limits: GroupLimits) -> bool {
        self.wishes().all.insert(run, limits) != Some(limits)
    }

    pub(super) fn forget(&self, run: RunId) {
        self.wishes().all.remove(&run);
    }

    /// One thread for all: a thousand runs that are adopted are looked after one after the other.
    fn bring_into_force(&self, run: RunId, base: &Path) {
        let mut wishes = self.wishes();
        wishes.open.insert(run);
        if std::mem::replace(&mut wishes.busy, true) {
            return;
        }
        drop(wishes);
        let (limited, base) = (self.clone(), base.to_owned());
        // Who gets less memory than it has waits until the kernel has taken it away.
        if !aside(move || while limited.one(&base) {}) {
            self.wishes().busy = false;
        }
    }

    /// Does what is open for one run; false: nothing was.
    fn one(&self, base: &Path) -> bool {
        let mut wishes = self.wishes();
        let Some(run) = wishes.open.pop_first() else {
            wishes.busy = false;
            return false;
        };
        let wanted = wishes.all.get(&run).copied();
        drop(wishes);
        let group = base.join(run.to_string());
        if let Some(GroupLimits { memory, pids, cpu_percent }) = wanted.filter(|_| group.exists()) {
            cgroup::limit_anew(&group, Limits { memory, pids, cpu_percent });
        }
        true
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
            self.limited.bring_into_force(run, base);
        }
    }
}
