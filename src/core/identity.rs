//! Which process is meant. A bare pid is never trusted.
//!
//! A pid is reused, and a restarted container has the same boot id, the same low pids and, on a volume,
//! our old files. What is never reused within a boot is the inode number that pidfs gives each process
//! (Linux 6.9); the inode of PID 1 tells one container start from the next. Older kernels fall back to
//! the start time in clock ticks, which can collide only within one tick of a full pid wrap.

use serde::{Deserialize, Serialize};

/// One life of the pid namespace we run in: pids of another epoch mean nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Epoch {
    /// `/proc/sys/kernel/random/boot_id`, or empty where it cannot be read.
    pub boot_id: String,
    /// pidfs inode of PID 1, or its start time in clock ticks where the kernel has no pidfs.
    pub init: u64,
}

/// One process for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The process id, meaningful only together with the rest.
    pub pid: i32,
    /// pidfs inode; 0 where the kernel has none.
    pub pidfs: u64,
    /// Start time in clock ticks after boot (field 22 of `/proc/PID/stat`); 0 if it could not be read.
    pub start_ticks: u64,
    /// The epoch all of this belongs to.
    pub epoch: Epoch,
}
