//! The kernel, one file per subject. The only place for unsafe code; imports nothing of ours.

pub mod clock;
pub mod disk;
pub mod fifo;
pub mod splice;
pub mod thread;
