//! What tells one process from every other: pidfs inodes, start times, the boot id.

use std::os::fd::AsFd;

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
