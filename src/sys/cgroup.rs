//! Control groups, version 2: a group of its own for each run, where a tree has been delegated to us.
//!
//! A group's member list is the one complete answer to "what is left of this run": whatever a process
//! does, it and its descendants stay in it. `cgroup.kill` (Linux 5.14) ends all of them at once.
//!
//! Delegated means that our own group is not the root of the hierarchy and that we can make groups in it:
//! under systemd with `Delegate=yes`, in a user scope, in a container with a writable tree. The root group
//! belongs to the host, and is left alone. No controllers are switched on, so it does not matter that
//! there are processes in the inner group.

use std::io;
use std::path::{Path, PathBuf};

/// The directory below our own group in which groups of runs are made.
const BASE: &str = "outlive.runs";

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

/// Where our own group is mounted, unless it is the root.
fn own_group(groups: &str, mounts: &str) -> Option<PathBuf> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    if path == "/" {
        return None;
    }
    let (root, point) = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        (right.split(' ').next()? == "cgroup2").then_some((root, point))
    })?;
    let below = if root == "/" { path } else { path.strip_prefix(root)? };
    Some(Path::new(point).join(below.trim_start_matches('/')))
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

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "24 1 0:22 / /proc rw - proc proc rw\n\
        31 1 0:27 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n";

    #[test]
    fn our_own_group_is_found_below_its_mount() {
        let found = own_group("8:pids:/x\n0::/system.slice/outlive.service\n", MOUNTS);
        assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/unified/system.slice/outlive.service")));
        let nested = "31 1 0:27 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let found = own_group("0::/docker/abc/leaf\n", nested);
        assert_eq!(found, Some(PathBuf::from("/sys/fs/cgroup/leaf")));
    }

    #[test]
    fn the_root_group_is_the_hosts() {
        assert_eq!(own_group("0::/\n", MOUNTS), None);
        assert_eq!(own_group("8:pids:/x\n", MOUNTS), None);
        assert_eq!(own_group("0::/a\n", "24 1 0:22 / /proc rw - proc proc rw\n"), None);
    }
}
