//! Capture of real FIFOs, written by real threads.

mod rig;

mod disk_full;
mod flow;
mod kill;
mod rotation;
