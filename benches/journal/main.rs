//! Measurements of the event log: how long a start takes to remember, and how many decisions a second
//! become durable.
//!
//! ```text
//! cargo bench --bench journal                     # everything
//! cargo bench --bench journal -- open 100000      # one measure, one size
//! BENCH_AGAIN=1 cargo bench --bench journal       # the tail is about tasks that were over
//! BENCH_DIR=/mnt/ssd cargo bench --bench journal  # on another disk
//! ```
//!
//! `make DIR N` leaves such a log behind for a closer look (`child DIR`).
//!
//! `open` reads a checkpoint and a tail of up to 10,000 events in a process of its own, proves every line
//! and builds the memory. `append` is a closed loop of 1, 10 and 100 threads; the floor beside it is the
//! least that makes bytes durable for many: the same hand-over to one thread, one write, one sync.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a driver that measures: what goes wrong ends it"
)]

mod append;
mod data;
mod open;

use std::path::PathBuf;
use std::time::Duration;

/// Rounds of each measure; the median is shown.
const ROUNDS: usize = 7;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["child", dir] = words[..] {
        return open::child(dir.as_ref());
    }
    if let ["make", dir, jobs] = words[..] {
        let jobs = jobs.parse().unwrap();
        return data::make(dir.as_ref(), jobs, 100, (4 * jobs).min(10_000));
    }
    let (measure, size) = (words.first().copied(), words.get(1).and_then(|n| n.parse::<u64>().ok()));
    let wanted = |name: &str| measure.is_none_or(|measure| measure == name);
    let sizes = |all: &[u64]| size.map_or_else(|| all.to_vec(), |size| vec![size]);
    if wanted("open") {
        sizes(&[105, 1000, 10_000, 100_000, 1_000_000]).into_iter().for_each(open::open);
    }
    if wanted("checkpoint") {
        sizes(&[1000, 100_000]).into_iter().for_each(open::checkpoint);
    }
    if wanted("append") {
        sizes(&[1, 10, 100]).into_iter().for_each(append::append);
    }
}

/// A directory on the disk to measure.
fn scratch() -> tempfile::TempDir {
    let base = std::env::var_os("BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::tempdir_in(base).unwrap()
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}
