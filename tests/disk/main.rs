//! Real processes on real disks that fill up, fail, hang, and lose their power.
//!
//! What must hold, who shows it on the real executable, and how one can tell that this test can fail:
//!
//! | what must hold | shown by | and fails when |
//! |---|---|---|
//! | what was answered survives the death of any of us | `chaos` (`rounds`) | the event log has lost its end (`an_event_log_that_forgets_is_found_out`) |
//! | what was answered survives a power failure | `power` | a batch is answered before its sync (`an_answer_before_the_sync_does_not_outlive_the_power`) |
//! | the same at each moment at which it may fail, and with a part of the last blocks | `blocks` | the same (`an_answer_before_the_sync_is_found_on_the_disk`) |
//! | the power did fail | `power`: a file written without a sync is gone | it is there |
//! | a sync that failed is never believed afterwards | `broken`, a thin device | the sync is tried again on the same file (`a_sync_tried_again_is_found_out`) |
//! | nothing is recorded, so nothing is started | `full`, `broken`: no new mark while changes are refused | a run marks its start |
//! | no run is started twice, no two runs of a job at once | all: each run marks its start and holds a lock | a second mark, or an `.overlap` file |
//! | every end is recorded once, also one during which the disk is full | `full`, `inject` | there is none, or a second `run.ended` |
//! | whichever call fails, nothing answered is lost and nobody panics | `inject` | a number is missing in the log, or "panicked" is said |
//! | room is made by removing the oldest ended runs, and no more than needed | `freed` | others are left than the newest, or the check stays failed |
//! | a file system that is read-only is said to be, and jobs go on | `broken` | the answer lacks the kernel's words, or the ticker stands still |
//! | a disk that hangs stops neither status nor capture, and a slow one no reaping | `hang` | the status does not come, the ticker stands still, or a zombie stays |
//! | one writer, whoever else believes to be it | `it::writers` | a line of an older generation follows one of a newer |
//! | a recovery that dies is finished by the next one, to the same end | `it::repeat` | the two ends differ |
//!
//! The event log alone, with every operation of a simulated disk and every planted mistake: `src/journal`.
//!
//! Disks are loop devices and memory, mounted where nobody else sees them ([`machine`]); that takes root, and
//! is said loudly where it cannot be had. Longer than by default: `POWER_CYCLES`, `BLOCKS_IMAGES`,
//! `INJECT_FULL`; the same again: `POWER_SEED`, `BLOCKS_SEED`, `INJECT_SEED`.
#![allow(missing_docs, unreachable_pub, reason = "nothing outside uses a test")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "the fixture serves several test binaries")]

#[path = "../common/mod.rs"]
mod common;

mod blocks;
mod broken;
mod freed;
mod full;
mod hang;
mod inject;
mod machine;
mod power;
mod recorder;
mod site;

/// A number that the environment gives.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}
