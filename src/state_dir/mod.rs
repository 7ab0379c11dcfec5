//! Name and format of every file we keep, and how such files are written and set aside.
//!
//! | file | written by | what a crash leaves |
//! |---|---|---|
//! | `format` | whoever creates the directory | the old one or the new one |
//! | `runs/<id>/run.json` | keeper, before the spawn | none, an empty one, or all of it |
//! | `runs/<id>/pid`, `sentinel.json` | keeper, after the spawn | none, an empty sentinel, or all of it |
//! | `runs/<id>/exit.json` | keeper, at the end | `exit.tmp`, preallocated, or all of it |
//! | `runs/<id>/output/` | keeper's capture | segments are byte-exact; the index may miss its tail |
//! | `startup-marker.json`, `recovery-report.json` | supervisor, while and after it starts | the old one or the new one |
//! | `startup-log.jsonl` | supervisor, when it has started | the old one or the new one |
//! | `jobs/<name>/current` | keeper | the link to the old run or to the new one |
//! | `quarantine/` | whoever met a file it could not read | the file in one place or the other |
//!
//! Directories are made with mode 0700. What is under them is ours alone, which is why a fixed name for a
//! temporary file is safe: each file has one writer, and a left-over temporary file is simply written anew.

pub mod atomic;
pub mod exit;
pub mod layout;
pub mod output;
pub mod quarantine;
pub mod records;
pub mod startup;
mod told;

pub use exit::{ExitSlot, read_exit};
pub use layout::{RunDir, RunRuntime, RuntimeDir, StateDir};
