//! Throughput beside a bare splice loop, and the cost of many quiet writers. Measurements, so they run only
//! when asked for: `OUTLIVE_TEST_CAPTURE_SPEED=1`, best with optimisation.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::core::spec::Output;
use crate::state_dir::output::Series;
use crate::sys::splice::{Moved, to_file};
use crate::sys::{disk, fifo};

use super::rig::{Rig, read_all, settings, until, write_all};

const WANTED: &str = "OUTLIVE_TEST_CAPTURE_SPEED";
const BYTES: usize = 1 << 30;
const PIPE: usize = 256 * 1024;

fn flood(to: &OwnedFd) {
    let block = b"a line of some fifty bytes, as programs like to write\n".repeat(76);
    let mut left = BYTES;
    while left > 0 {
        let n = block.len().min(left);
        write_all(to, &block[..n]);
        left -= n;
    }
}

/// The floor: one thread that waits in `poll` and splices.
fn bare(dir: &Path) -> Duration {
    let path = dir.join("bare");
    fifo::create(&path, 0o600).unwrap();
    let (from, to) = (fifo::open_read(&path).unwrap(), fifo::open_both(&path).unwrap());
    fifo::set_capacity(&from, PIPE).unwrap();
    let file = disk::create_new(&dir.join("bare.log"), 0o600).unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| flood(&to));
        let mut at = 0;
        while at < BYTES as u64 {
            match to_file(&from, &file, at, 1 << 20).unwrap() {
                Moved::Bytes(n) => at += n as u64,
                Moved::Nothing => {
                    let mut fds = [rustix::event::PollFd::new(&from, rustix::event::PollFlags::IN)];
                    rustix::event::poll(&mut fds, None).unwrap();
                }
                Moved::End => panic!("the writer is gone"),
            }
        }
    });
    let took = begun.elapsed();
    std::fs::remove_file(dir.join("bare.log")).unwrap();
    std::fs::remove_file(path).unwrap();
    took
}

fn captured(rig: &Rig, n: u8, settings: Output, base: &Path) -> Duration {
    let job = rig.job_in(n, settings, base);
    fifo::set_capacity(&job.out, PIPE).unwrap();
    let begun = Instant::now();
    flood(&job.out);
    until("all of it", || rig.drained(job.run).0.stdout_bytes == BYTES as u64);
    let took = begun.elapsed();
    rig.closed(job.run);
    std::fs::remove_dir_all(base.join("runs")).unwrap();
    took
}

#[test]
fn one_flood_is_nearly_as_fast_as_a_bare_splice_loop() {
    if std::env::var_os(WANTED).is_none() {
        println!("skipped: {WANTED} is not set");
        return;
    }
    for base in ["/dev/shm", "/var/tmp"] {
        let dir = tempfile::tempdir_in(base).unwrap();
        let rig = Rig::new();
        let (mut floor, mut ours, mut rotating) = (Duration::MAX, Duration::MAX, Duration::MAX);
        for round in 0..5 {
            floor = floor.min(bare(dir.path()));
            ours = ours.min(captured(&rig, 1 + 2 * round, Output { max_size: 0, ..settings() }, dir.path()));
            let rotate = Output { compress: false, ..settings() };
            rotating = rotating.min(captured(&rig, 2 + 2 * round, rotate, dir.path()));
        }
        let speed = |t: Duration| BYTES as f64 / 1e6 / t.as_secs_f64();
        println!(
            "{base}: bare {:.0} MB/s, captured {:.0} MB/s ({:.0} %), with rotation {:.0} MB/s ({:.0} %)",
            speed(floor),
            speed(ours),
            100.0 * speed(ours) / speed(floor),
            speed(rotating),
            100.0 * speed(rotating) / speed(floor)
        );
        assert!(speed(ours) > 0.85 * speed(floor));
    }
}

#[test]
fn a_hundred_jobs_of_a_thousand_lines_a_second_cost_little() {
    if std::env::var_os(WANTED).is_none() {
        println!("skipped: {WANTED} is not set");
        return;
    }
    let rig = Rig::new();
    let jobs: Vec<_> = (0..100).map(|n| rig.job(n, settings())).collect();
    let cpu = |clock| {
        let t = clock_gettime(clock);
        Duration::new(u64::try_from(t.tv_sec).unwrap(), u32::try_from(t.tv_nsec).unwrap())
    };
    let begun = Instant::now();
    let (cpu_before, writer_before) = (cpu(ClockId::ProcessCPUTime), cpu(ClockId::ThreadCPUTime));
    let (_keep, never) = std::sync::mpsc::channel::<()>();
    for n in 0..5_000u32 {
        for job in &jobs {
            write_all(&job.out, format!("a numbered line {n}\n").as_bytes());
        }
        let _ = never.recv_timeout(
            (begun + Duration::from_millis(u64::from(n))).saturating_duration_since(Instant::now()),
        );
    }
    let wall = begun.elapsed();
    let writer = cpu(ClockId::ThreadCPUTime) - writer_before;
    let all = cpu(ClockId::ProcessCPUTime) - cpu_before;
    for job in &jobs {
        rig.drained(job.run);
        assert_eq!(read_all(&job.output, Series::Merged).iter().filter(|&&b| b == b'\n').count(), 5_000);
    }
    let ours = all - writer;
    println!(
        "{:.0} lines/s: capture took {:.1} % of a CPU ({:.2} us a line), the writers {:.1} %",
        500_000.0 / wall.as_secs_f64(),
        100.0 * ours.as_secs_f64() / wall.as_secs_f64(),
        ours.as_secs_f64() * 2.0,
        100.0 * writer.as_secs_f64() / wall.as_secs_f64()
    );
}
