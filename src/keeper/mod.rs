//! The keeper: spawns runs, captures their output, holds their descriptors, beats their sentinels, hears what
//! they tell, and records how they end. It decides nothing, and goes on without a supervisor.
//!
//! One thread does everything but moving bytes and starting runs: a loop over init's socket, the
//! supervisors' connections, the news of the threads that do, and its own deadlines. It never waits for a
//! disk that output goes to, nor for a supervisor.
//!
//! # What survives its death
//!
//! Runs are init's children, so their outcomes are safe. Their output waits in FIFOs that the runs
//! themselves and init hold open. What the keeper knew is on disk (`run.json`, the claim, `exit.json`)
//! and in init's table; `survive` reads it back. An end that the dead keeper had not recorded is told
//! again by init; one that it had recorded is found by the supervisor in `exit.json`.

mod capture_link;
mod end;
mod hand_over;
mod init_link;
mod launch;
mod launcher;
mod launching;
mod link;
mod listen;
mod main_loop;
mod requests;
mod run;
mod survive;
mod told;
mod tree;

pub mod capture;

pub use main_loop::{Options, newest_generation, run};
