//! Who belongs to a run, and signals to them. Proven identity or nothing.
//!
//! The main process is held by a pidfd from birth. The rest of the tree is found by
//!
//! - the parent chain, from the main process down;
//! - its control group, where a tree is delegated to us;
//! - orphans, which init inherits: a child of init that is no run itself belongs to the run named by
//!   `OUTLIVE_RUN_ID` in the environment it was started with, or to the run whose session it is in;
//! - a full look through `/proc` where the kernel does not list children, or init is gone.
//!
//! The environment is unique to a run. A session number is not: it counts only while it is pinned, which
//! it is as long as the main process has not been reaped, or a process already proven to belong to the
//! run is still in that session.
//!
//! A listed process is opened first and compared afterwards (start time), and only the descriptor is
//! ever signalled. The process group is signalled through the main process's pidfd (Linux 6.9), which
//! stays right after it was reaped; on older kernels only while it has not been reaped.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use crate::core::ids::RunId;
use crate::core::signal::{CONT, KILL};
use crate::core::spec::KillScope;
use crate::sys::{cgroup, pidfd, proc};

/// The variable by which a process says which run it belongs to.
pub(super) const RUN_VARIABLE: &str = "OUTLIVE_RUN_ID";
/// A helper that the supervisor started about a run (a stop command) names the run too, but is no part
/// of it; this variable says so.
pub(super) const HELPER_VARIABLE: &str = "OUTLIVE_HELPER";

/// Where to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground<'a> {
    /// Init, if it lives.
    pub(super) init: Option<i32>,
    /// Processes under init that are no orphans: runs and roles.
    pub(super) known: &'a BTreeSet<i32>,
    /// Whether the kernel lists children.
    pub(super) lists_children: bool,
}

/// What is looked for.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The run.
    pub(super) run: RunId,
    /// Its main process, leader of its session and group.
    pub(super) leader: i32,
    /// Whether the leader is alive or a zombie of init: its number is pinned.
    pub(super) leader_pinned: bool,
    /// Its control group, if it has one: named by the run id, so nobody else's.
    pub(super) group: Option<PathBuf>,
}

/// A process of a run.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) session: i32,
}

/// Everything that belongs to the run, the leader excepted. `proven` are members found earlier.
pub(super) fn members(target: &Target, ground: Ground<'_>, proven: &[Member]) -> Vec<Member> {
    let session_pinned = target.leader_pinned
        || proven.iter().any(|m| m.session == target.leader && !pidfd::has_ended(m.pidfd.as_fd()));
    let proven_pids: BTreeSet<i32> =
        proven.iter().filter(|m| !pidfd::has_ended(m.pidfd.as_fd())).map(|m| m.pid).collect();
    let belongs = |stat: &proc::Stat| {
        proven_pids.contains(&stat.pid)
            || (session_pinned && stat.session == target.leader)
            || names_run(stat.pid, target.run)
    };
    let candidates = match ground.init.filter(|_| ground.lists_children) {
        Some(init) => {
            let mut roots: Vec<proc::Stat> = proc::children(init)
                .into_iter()
                .filter(|pid| !ground.known.contains(pid))
                .filter_map(proc::stat)
                .filter(|stat| belongs(stat))
                .collect();
            roots.extend(in_group(target));
            if target.leader_pinned {
                roots.extend(proc::children(target.leader).into_iter().filter_map(proc::stat));
            }
            with_descendants(roots)
        }
        None => {
            let all: Vec<proc::Stat> = proc::all().into_iter().filter_map(proc::stat).collect();
            let grouped: BTreeSet<i32> = in_group(target).map(|stat| stat.pid).collect();
            closure(all, |stat| {
                grouped.contains(&stat.pid)
                    || (target.leader_pinned && stat.parent == target.leader)
                    || belongs(stat)
            })
        }
    };
    candidates
        .into_iter()
        .filter(|stat| stat.pid != target.leader && stat.state != b'Z' && !ground.known.contains(&stat.pid))
        .filter_map(|stat| {
            let pidfd = proc::open_listed(&stat)?;
            Some(Member { pid: stat.pid, pidfd, session: stat.session })
        })
        .collect()
}

/// The most parents that are looked at; a longer line of them proves nothing.
const PARENTS_MAX: usize = 128;

/// Whether this process, be it a zombie, is of the run. The number is not pinned: it is somebody's word. The
/// line of its parents has to lead to the main process and past nobody else's, or to an orphan right below
/// init that says, by its session or environment, which run it is of. What only the process itself could have
/// made up counts for nothing below another run.
pub(super) fn is_of_run(target: &Target, pid: i32, ground: Ground<'_>) -> bool {
    if pid == target.leader {
        return target.leader_pinned;
    }
    let Some(first) = proc::stat(pid) else { return false };
    let found = target.group.as_deref().is_some_and(|group| cgroup::members(group).contains(&pid))
        || parents_prove(target, first, ground);
    // The number may have gone to another while we looked.
    found && proc::stat(pid).is_some_and(|now| now.start_ticks == first.start_ticks)
}

fn parents_prove(target: &Target, first: proc::Stat, ground: Ground<'_>) -> bool {
    let mut stat = first;
    for _ in 0..PARENTS_MAX {
        if stat.pid == target.leader || stat.session == target.leader {
            return target.leader_pinned;
        }
        if ground.known.contains(&stat.pid) || ground.known.contains(&stat.session) {
            return false;
        }
        if ground.init.map_or(stat.parent <= 1, |init| stat.parent == init) {
            return names_run(stat.pid, target.run);
        }
        let Some(parent) = proc::stat(stat.parent) else { return false };
        stat = parent;
    }
    false
}

fn in_group(target: &Target) -> impl Iterator<Item = proc::Stat> {
    target.group.as_deref().map(cgroup::members).unwrap_or_default().into_iter().filter_map(proc::stat)
}

fn names_run(pid: i32, run: RunId) -> bool {
    proc::environment_value(pid, RUN_VARIABLE).is_some_and(|value| value == run.to_string().as_bytes())
        && proc::environment_value(pid, HELPER_VARIABLE).is_none()
}

/// The given processes and all below them, by the kernel's lists of children.
fn with_descendants(roots: Vec<proc::Stat>) -> Vec<proc::Stat> {
    let mut found: BTreeMap<i32, proc::Stat> = BTreeMap::new();
    let mut open = roots;
    while let Some(stat) = open.pop() {
        if found.insert(stat.pid, stat).is_none() {
            open.extend(proc::children(stat.pid).into_iter().filter_map(proc::stat));
        }
    }
    found.into_values().collect()
}

/// Those of `all` that `belongs` picks, and their descendants.
fn closure(all: Vec<proc::Stat>, belongs: impl Fn(&proc::Stat) -> bool) -> Vec<proc::Stat> {
    let mut inside: BTreeSet<i32> = all.iter().filter(|stat| belongs(stat)).map(|stat| stat.pid).collect();
    loop {
        let more: Vec<i32> = all
            .iter()
            .filter(|stat| !inside.contains(&stat.pid) && inside.contains(&stat.parent))
            .map(|stat| stat.pid)
            .collect();
        if more.is_empty() {
            break;
        }
        inside.extend(more);
    }
    all.into_iter().filter(|stat| inside.contains(&stat.pid)).collect()
}

/// Sends a signal to the run in the given scope, `CONT` behind it if asked. `leader` is the main
/// process's descriptor. True if anybody got it.
pub(super) fn signal(
    target: &Target,
    leader: &OwnedFd,
    (number, scope, cont): (i32, KillScope, bool),
    ground: Ground<'_>,
    proven: &[Member],
) -> bool {
    let mut reached = match scope {
        KillScope::Mixed | KillScope::Process => pidfd::signal(leader.as_fd(), number).is_ok(),
        KillScope::Group => {
            // Before Linux 6.9: the leader alone.
            pidfd::signal_group(leader.as_fd(), number).is_ok()
                || pidfd::signal(leader.as_fd(), number).is_ok()
        }
        // One by one, so that nobody hears it twice; nobody hears KILL twice, and the group may hold
        // what was forked a moment ago.
        KillScope::Tree if number == KILL => {
            pidfd::signal_group(leader.as_fd(), number).is_ok()
                | pidfd::signal(leader.as_fd(), number).is_ok()
        }
        KillScope::Tree => pidfd::signal(leader.as_fd(), number).is_ok(),
    };
    let mut rest = Vec::new();
    if scope == KillScope::Tree {
        // A process may fork while it is being looked for: look again until nobody new is found.
        let mut seen = BTreeSet::new();
        for _ in 0..8 {
            let new: Vec<Member> =
                members(target, ground, proven).into_iter().filter(|m| seen.insert(m.pid)).collect();
            if new.is_empty() {
                break;
            }
            for member in &new {
                reached |= pidfd::signal(member.pidfd.as_fd(), number).is_ok();
            }
            rest.extend(new);
        }
    }
    if scope == KillScope::Tree
        && number == KILL
        && let Some(group) = &target.group
    {
        reached |= cgroup::kill(group).is_ok();
    }
    if cont {
        if matches!(scope, KillScope::Group | KillScope::Tree) {
            let _ = pidfd::signal_group(leader.as_fd(), CONT);
        }
        let _ = pidfd::signal(leader.as_fd(), CONT);
        for member in &rest {
            let _ = pidfd::signal(member.pidfd.as_fd(), CONT);
        }
    }
    reached
}
