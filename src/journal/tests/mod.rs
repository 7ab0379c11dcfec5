//! What is written comes back, whatever happens to it.
//!
//! `JOURNAL_LIVES` and `JOURNAL_CRASH_SEEDS` make these tests longer; `JOURNAL_TABLE=1` prints which of them notices
//! which planted mistake.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "small numbers of a test")]

mod crash;
mod damage;
mod files;
mod inspect;
mod mistakes;
mod promises;
mod rig;
mod threads;
