//! The survival test: our own processes are killed at random moments, over and over, and afterwards every
//! line, every outcome and every process is accounted for.
//!
//! Each round kills one, two or all three of init, keeper and supervisor, and waits until all three are
//! back. What must hold afterwards depends on what was killed while a run ended:
//!
//! - anything but init and keeper together: every line of the run exactly once and in order, its outcome
//!   known and as told;
//! - init and keeper together: what was written is there without a gap up to some line, and an outcome that
//!   nobody could know is said as lost;
//! - always: one end for each run, one start for each run, never two runs of a job at once, no job dies
//!   that was not told to, nothing is left behind.
//!
//! Short by default. `CHAOS_SEED`, `CHAOS_KILLS`, `CHAOS_SECONDS` and `CHAOS_JOBS` make it another or a
//! longer one. `ROUNDS` and `ROUNDS_SEED` do so for the rounds of requests, see [`rounds`].
#![allow(missing_docs, unreachable_pub, reason = "nothing outside uses a test")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on fails")]
#![allow(dead_code, reason = "the fixture serves several test binaries")]

#[path = "../common/mod.rs"]
mod common;

mod account;
mod plan;
mod rounds;

mod table;
mod world;

use std::process::Command;
use std::time::Duration;

use common::{run, skip};
use plan::Case;
use rounds::Rounds;
use world::{Settings, World};

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn settings(seconds: u64) -> Settings {
    let seed = from_environment("CHAOS_SEED").unwrap_or_else(common::random::any_seed);
    let kills = from_environment("CHAOS_KILLS");
    let time = from_environment("CHAOS_SECONDS").or_else(|| kills.is_none().then_some(seconds));
    Settings {
        seed,
        kills,
        time: time.map(Duration::from_secs),
        jobs: usize::try_from(from_environment("CHAOS_JOBS").unwrap_or(12)).unwrap().max(4),
        wrapper: Vec::new(),
        cases: Case::ALL.to_vec(),
    }
}

#[test]
fn nothing_is_lost_whoever_of_us_is_killed() {
    World::new(settings(12)).run();
}

/// Init is PID 1 of its namespace: when it dies the kernel ends everything in there, which is the end of
/// a container. The next one finds the same directories and pids that mean nothing any more.
#[test]
fn nothing_is_lost_with_init_as_pid_1() {
    let unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if run(Command::new(unshare[0]).args(&unshare[1..]).arg("true")).code != 0 {
        return skip("a PID namespace cannot be made here");
    }
    let mut settings = settings(8);
    settings.wrapper = unshare.map(str::to_owned).to_vec();
    settings.cases = vec![Case::Supervisor, Case::Keeper, Case::SupervisorAndKeeper, Case::Namespace];
    World::new(settings).run();
}

#[test]
fn what_was_answered_holds_whoever_of_us_is_killed() {
    let seed = from_environment("ROUNDS_SEED").unwrap_or_else(common::random::any_seed);
    let count = from_environment("ROUNDS").unwrap_or(16);
    eprintln!("ROUNDS_SEED={seed}");
    let (faults, said) = Rounds::new(seed).run(count);
    assert!(faults.is_empty(), "ROUNDS_SEED={seed}: {faults:#?}\n{said}");
    eprintln!("{count} rounds: {said}");
}

/// What this is worth: an event log that has lost its end does not pass.
#[test]
fn an_event_log_that_forgets_is_found_out() {
    let faults = Rounds::new(common::random::any_seed()).forget_the_end();
    assert!(!faults.is_empty(), "nobody notices");
}
