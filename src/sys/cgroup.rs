//! Control groups, version 2: a group of its own for each run, where a tree has been delegated to us.
//!
//! A group's member list is the one complete answer to "what is left of this run": whatever a process
//! does, it and its descendants stay in it. `cgroup.kill` (Linux 5.14) ends all of them at once.
//!
//! Delegated means that our own group is not the root of the hierarchy and that we can make groups in it:
//! under systemd with `Delegate=yes`, in a user scope, in a container with a writable tree. The root group
//! belongs to the host, and is left alone.
//!
//! ```text
//! OWN/                  the delegated group, in which we are ourselves
//! OWN/outlive.runs/     no processes, only
//! OWN/outlive.runs/RUN/ one group for each run
//! ```
//!
//! Members, killing and CPU time need no controller. Limits do, and a controller reaches a run only if OWN
//! and `outlive.runs` both pass it on. The kernel lets a group with processes in it pass nothing on, so
//! limits are to be had only where OWN is empty but for groups: where our own processes are in a group
//! `outlive.roles` inside of it (under systemd `Delegate=yes` and `DelegateSubgroup=outlive.roles`), or
//! where [`VARIABLE`] names a delegated group in which nobody is. We move nobody: who else is in our group
//! is not ours to move. What cannot be had is said, and the caller does without.

use std::io;
use std::path::{Path, PathBuf};

/// The directory below our own group in which groups of runs are made.
const BASE: &str = "outlive.runs";

/// A group by this name holds our own processes, and the delegated one is around it.
const ROLES: &str = "outlive.roles";

/// The variable that overrides the search: `off`, or the directory of a group to use.
pub const VARIABLE: &str = "OUTLIVE_CGROUP";

/// The directory for the groups of runs, made if need be; `None` where nothing is delegated.
#[must_use]
pub fn base() -> Option<PathBuf> {
    let own = match std::env::var(VARIABLE) {
        Ok(text) if text == "off" => return None,
        Ok(text) if text.starts_with('/') => PathBuf::from(text),
        _ => own_group(
            &std::fs::read_to_string("/proc/self/cgroup").ok()?,
            &std::fs::read_to_string("/proc/self/mountinfo").ok()?,
        )?,
    };
    let base = own.join(BASE);
    match std::fs::create_dir(&base) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => None,
        // A cgroup directory comes with its files; anything else only looks like one.
        _ => base.join("cgroup.procs").exists().then_some(base),
    }
}

/// Where the group that is delegated to us is mounted, unless it is the root.
fn own_group(groups: &str, mounts: &str) -> Option<PathBuf> {
    let (point, below) = mounted(groups, mounts)?;
    if groups.lines().any(|line| line == "0::/") {
        return None;
    }
    let inside = below.file_name().is_some_and(|name| name == ROLES);
    let delegated = below.parent().filter(|around| inside && !around.as_os_str().is_empty());
    Some(point.join(delegated.unwrap_or(&below)))
}

/// Where the group of a process is mounted, by its `/proc/PID/cgroup` and our own mounts; also the root.
#[must_use]
pub fn of(pid: i32) -> Option<PathBuf> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounted(&groups, &mounts).map(|(point, below)| point.join(below))
}

/// Where version 2 is mounted, and the path of the group below that.
pub(super) fn mounted(groups: &str, mounts: &str) -> Option<(PathBuf, PathBuf)> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        if right.split(' ').next()? != "cgroup2" {
            return None;
        }
        let below = if root == "/" { path } else { path.strip_prefix(root)? };
        Some((PathBuf::from(point), PathBuf::from(below.trim_matches('/'))))
    })
}

/// The processes in a group; empty if it is gone.
#[must_use]
pub fn members(group: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Kills everything in a group.
///
/// # Errors
///
/// `ENOENT` where the kernel cannot, or the group is gone.
pub fn kill(group: &Path) -> io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(group.join("cgroup.kill"))?;
    io::Write::write_all(&mut &file, b"1")
}

/// What the tree of a run may use at most; `None`: as much as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Memory in bytes, cached files included. Who needs more is killed with all the rest of the group.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// CPU time in percent of one core.
    pub cpu_percent: Option<u32>,
}

/// Which of the limits that were asked for the kernel now enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// `memory.max` is set.
    pub memory: bool,
    /// `pids.max` is set.
    pub pids: bool,
    /// `cpu.max` is set.
    pub cpu: bool,
}

/// The period of `cpu.max` in microseconds: what the kernel takes by default.
const PERIOD_US: u64 = 100_000;

/// Limits a group of a run, made before by [`base`] and a name in it. Best before anybody is in it.
///
/// What cannot be had is false in the answer: the controller is not delegated, belongs to a hierarchy of
/// version 1, or the groups around this one have processes in them.
#[must_use]
pub fn limit(group: &Path, limits: Limits) -> Applied {
    let mut applied = Applied::default();
    if let Some(bytes) = limits.memory
        && has_controller(group, "memory", "memory.max")
    {
        // First, so that what the limit takes away is not swapped out instead; there may be no swap at all.
        let _ = put(&group.join("memory.swap.max"), "0");
        // One process of a run ended by the kernel leaves a run that nobody has tested.
        let _ = put(&group.join("memory.oom.group"), "1");
        applied.memory = put(&group.join("memory.max"), &bytes.to_string()).is_ok();
    }
    if let Some(most) = limits.pids
        && has_controller(group, "pids", "pids.max")
    {
        applied.pids = put(&group.join("pids.max"), &most.to_string()).is_ok();
    }
    if let Some(percent) = limits.cpu_percent
        && has_controller(group, "cpu", "cpu.max")
    {
        // The kernel takes no quota below a millisecond.
        let quota = (u64::from(percent) * PERIOD_US / 100).max(1000);
        applied.cpu = put(&group.join("cpu.max"), &format!("{quota} {PERIOD_US}")).is_ok();
    }
    applied
}

/// Limits a group that may have other limits: those that are not asked for any more are lifted. What the kernel will
/// not hold it to is not held.
pub fn limit_anew(group: &Path, limits: Limits) {
    let lift = |file: &str, nothing: &str| drop(put(&group.join(file), nothing));
    if limits.memory.is_none() {
        lift("memory.max", "max");
        lift("memory.swap.max", "max");
        lift("memory.oom.group", "0");
    }
    if limits.pids.is_none() {
        lift("pids.max", "max");
    }
    if limits.cpu_percent.is_none() {
        lift("cpu.max", "max");
    }
    let _ = limit(group, limits);
}

/// Whether a group has a controller, which is passed on to it if need be.
fn has_controller(group: &Path, controller: &str, file: &str) -> bool {
    let file = group.join(file);
    if file.exists() {
        return true;
    }
    let Some(base) = group.parent() else { return false };
    let Some(own) = base.parent() else { return false };
    // One at a time: a write that names several fails as a whole.
    let switch = format!("+{controller}");
    for around in [own, base] {
        // It may be on already, where we may not write but need not.
        let _ = put(&around.join("cgroup.subtree_control"), &switch);
    }
    file.exists()
}

/// Writes to a file of a group, which must be there.
fn put(path: &Path, text: &str) -> io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    io::Write::write_all(&mut &file, text.as_bytes())
}

/// What the kernel counts for a group, and for the groups in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupUsage {
    /// Memory charged to it in bytes, without the cached files that could be dropped at once; with the memory
    /// controller.
    pub memory_bytes: Option<u64>,
    /// CPU time in microseconds of all that was ever in it; needs no controller.
    pub cpu_us: Option<u64>,
    /// Processes and threads; with the pids controller.
    pub pids: Option<u64>,
}

/// What a group uses; `None` if there is no such group.
#[must_use]
pub fn usage(group: &Path) -> Option<GroupUsage> {
    let cpu = std::fs::read_to_string(group.join("cpu.stat")).ok()?;
    Some(GroupUsage {
        memory_bytes: memory_in(group),
        cpu_us: keyed(&cpu, "usage_usec"),
        pids: number(&group.join("pids.current")),
    })
}

/// Charged memory that is no mere cache: files that nobody has touched lately are the kernel's to drop, and a
/// run that writes much has many of them.
pub(super) fn memory_in(group: &Path) -> Option<u64> {
    let current = number(&group.join("memory.current"))?;
    let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    Some(current.saturating_sub(keyed(&stat, "inactive_file").unwrap_or(0)))
}

/// How many processes of a group the kernel has killed because there was no memory; `None` without the
/// memory controller.
#[must_use]
pub fn oom_kills(group: &Path) -> Option<u64> {
    keyed(&std::fs::read_to_string(group.join("memory.events")).ok()?, "oom_kill")
}

/// The number in a file; `None` also for `max`.
pub(super) fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind a word at the beginning of a line.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
