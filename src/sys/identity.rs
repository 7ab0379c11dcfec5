//! What tells one process from every other: pidfs inodes, start times, the boot id.

use std::os::fd::{AsFd, OwnedFd};

/// The filesystem type of pidfs; before Linux 6.9 a pidfd is an anonymous inode and has no number.
const PIDFS_MAGIC: i64 = 0x5049_4446;

/// The pidfs inode of the process behind a pidfd; 0 where the kernel has no pidfs.
#[must_use]
pub fn pidfs_inode(pidfd: impl AsFd) -> u64 {
    match rustix::fs::fstatfs(&pidfd) {
        Ok(fs) if fs.f_type == PIDFS_MAGIC => rustix::fs::fstat(&pidfd).map_or(0, |stat| stat.st_ino),
        _ => 0,
    }
}

/// The kernel's id of this boot; empty without /proc.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| String::new(), |s| s.trim().to_owned())
}

/// What is unique about PID 1 of this pid namespace: its pidfs inode, else its start time in ticks.
#[must_use]
pub fn init_token() -> u64 {
    let inode = super::pidfd::open(1).map_or(0, |fd| pidfs_inode(&fd));
    if inode != 0 { inode } else { super::proc::stat(1).map_or(0, |stat| stat.start_ticks) }
}

/// Opens the process with this number, if it is there, be it as a zombie, and is the one with this pidfs inode
/// or, where the kernel had none (0), this start time in ticks.
#[must_use]
pub fn proven(pid: i32, pidfs: u64, start_ticks: u64) -> Option<OwnedFd> {
    let handle = super::pidfd::open(pid).ok()?;
    let same = if pidfs == 0 {
        start_ticks != 0 && super::proc::stat(pid).is_some_and(|stat| stat.start_ticks == start_ticks)
    } else {
        pidfs_inode(&handle) == pidfs
    };
    same.then_some(handle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_with_the_same_pid_is_not_proven() {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let inode = pidfs_inode(super::super::pidfd::open(pid).unwrap());
        let ticks = super::super::proc::stat(pid).unwrap().start_ticks;
        assert!(proven(pid, inode, ticks).is_some());
        assert!(proven(pid, inode + 1, ticks).is_none());
        assert!(proven(pid, 0, ticks + 1).is_none());
        assert!(proven(pid, 0, 0).is_none());
    }
}
