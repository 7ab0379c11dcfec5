//! One file per kernel subject. The only place with unsafe code; knows nothing of jobs.
#![allow(unsafe_code, reason = "this module is where system calls without a safe wrapper live")]

pub mod cgroup;
pub mod clock;
pub mod disk;
pub mod exec;
pub mod fifo;
pub mod flock;
pub mod host;
pub mod identity;
pub mod memory;
pub mod pidfd;
pub mod proc;
pub mod reap;
pub mod shared;
pub mod signals;
pub mod socket;
pub mod spawn;
pub mod splice;
pub mod step;
pub mod thread;
