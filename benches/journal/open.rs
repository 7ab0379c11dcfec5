//! How long a start takes to remember.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use outlive::core::state::State;
use outlive::journal::recover;

use crate::{ROUNDS, data, median, scratch};

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// In a process of its own: reads, and says how long it took and how much memory it is.
pub(crate) fn child(dir: &Path) {
    let before = rss_kib();
    let begun = Instant::now();
    let read = recover(dir, State::new(), &mut |_, _| {}).unwrap();
    let took = begun.elapsed();
    assert!(!read.report.is_damaged());
    println!("{} {} {}", took.as_nanos(), rss_kib() - before, read.state.names().count());
}

pub(crate) fn open(jobs: u64) {
    let dir = scratch();
    data::make(dir.path(), jobs, 100, (4 * jobs).min(10_000));
    let mut times = Vec::new();
    let mut memory = 0;
    for _ in 0..ROUNDS {
        let said =
            Command::new(std::env::current_exe().unwrap()).arg("child").arg(dir.path()).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        let text = String::from_utf8(said.stdout).unwrap();
        let numbers: Vec<u64> = text.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!(numbers[2], jobs);
        times.push(Duration::from_nanos(numbers[0]));
        memory = memory.max(numbers[1]);
    }
    let best = *times.iter().min().unwrap();
    println!("open {jobs:>7} jobs: median {:?}, best {best:?}, {memory} KiB", median(times));
}

pub(crate) fn checkpoint(jobs: u64) {
    let (mut create, mut restore) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let dir = scratch();
        data::make(dir.path(), jobs, 100, jobs.min(10_000));
        let mut journal = data::open(dir.path());
        journal.rotate().unwrap();
        let begun = Instant::now();
        let folded = journal.folding().run(journal.last_seq()).unwrap();
        create.push(begun.elapsed());
        assert_eq!(folded.seq, journal.last_seq());
        drop(journal);
        let begun = Instant::now();
        let read = recover(dir.path(), State::new(), &mut |_, _| {}).unwrap();
        restore.push(begun.elapsed());
        assert_eq!(read.report.lines, 0);
    }
    println!("checkpoint {jobs:>7} jobs: create {:?}, restore {:?}", median(create), median(restore));
}
