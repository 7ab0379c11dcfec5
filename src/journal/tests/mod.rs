//! What is written comes back, whatever happens to it.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "small numbers of a test")]

mod crash;
mod damage;
mod files;
mod inspect;
mod mistakes;
mod rig;
mod threads;
