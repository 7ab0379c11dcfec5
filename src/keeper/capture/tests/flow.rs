//! Bytes in, the same bytes out; who holds the FIFOs; what a drain promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::core::spec::{Output, OutputMode};
use crate::state_dir::output::{Reader, Series, Stream};

use super::super::{CaptureEvent, Totals};
use super::rig::{Rig, names, read_all, run_id, settings, until, write_all};

#[test]
fn many_flooding_runs_are_captured_byte_by_byte() {
    let rig = Rig::new();
    let jobs: Vec<_> =
        (1..=12).map(|n| rig.job(n, Output { max_size: 300_000, keep: 1000, ..settings() })).collect();
    let text = |n: usize| -> Vec<u8> {
        (0..20_000).flat_map(|i| format!("run {n} line {i} {}\n", "x".repeat(i % 90)).into_bytes()).collect()
    };
    std::thread::scope(|scope| {
        for (n, job) in jobs.iter().enumerate() {
            scope.spawn(move || text(n).chunks(4000 + n).for_each(|part| write_all(&job.out, part)));
        }
    });
    for (n, job) in jobs.iter().enumerate() {
        let (totals, complete) = rig.drained(job.run);
        assert!(!complete, "the job still holds its FIFOs");
        assert!(read_all(&job.output, Series::Merged) == text(n), "run {n} differs");
        assert_eq!(totals, Totals { stdout_bytes: text(n).len() as u64, stderr_bytes: 0, dropped: 0 });
        assert_eq!(rig.capture.totals(job.run), totals);
    }
}

#[test]
fn merged_output_keeps_the_order_of_arrival_and_knows_the_stream() {
    let rig = Rig::new();
    let job = rig.job(1, settings());
    let mut expected = Vec::new();
    for n in 0..20 {
        let (fd, name) = if n % 3 == 0 { (&job.err, "err") } else { (&job.out, "out") };
        let line = format!("{name} {n}\n");
        write_all(fd, line.as_bytes());
        expected.extend(line.into_bytes());
        until("the line on disk", || rig.capture.totals(job.run).stdout_bytes == expected.len() as u64);
    }
    rig.drained(job.run);
    assert_eq!(read_all(&job.output, Series::Merged), expected);
    assert_eq!(names(&job.output), ["00000000000000000000.log", "index"]);
    let reader = Reader::open(&job.output).unwrap();
    let records = reader.records(Series::Merged, 0, u64::MAX).unwrap();
    let mut end = 0;
    for record in records {
        assert_eq!(record.offset, end);
        end = record.end();
        let bytes = &expected[usize::try_from(record.offset).unwrap()..usize::try_from(end).unwrap()];
        let word = if record.stream == Stream::Stderr { "err" } else { "out" };
        assert!(String::from_utf8_lossy(bytes).lines().all(|l| l.starts_with(word)));
        assert_eq!(record.flags, 0);
    }
    assert_eq!(end, expected.len() as u64);
}

#[test]
fn separate_output_has_a_series_for_each_stream() {
    let rig = Rig::new();
    let job = rig.job(1, Output { mode: OutputMode::Separate, ..settings() });
    write_all(&job.out, b"to out\n");
    let (totals, _) = rig.drained(job.run);
    assert_eq!(names(&job.output), ["stdout-00000000000000000000.log", "stdout-index"]);
    assert_eq!(totals, Totals { stdout_bytes: 7, ..Totals::default() });
    write_all(&job.err, b"and err\n");
    let (totals, _) = rig.drained(job.run);
    assert_eq!(totals, Totals { stdout_bytes: 7, stderr_bytes: 8, dropped: 0 });
    assert_eq!(read_all(&job.output, Series::Stdout), b"to out\n");
    assert_eq!(read_all(&job.output, Series::Stderr), b"and err\n");
    let reader = Reader::open(&job.output).unwrap();
    assert_eq!(reader.series(), [Series::Stdout, Series::Stderr]);
    assert_eq!(reader.records(Series::Stderr, 0, 8).unwrap()[0].stream, Stream::Stderr);
}

#[test]
fn nothing_is_created_before_the_first_byte() {
    let rig = Rig::new();
    let job = rig.job(1, settings());
    let (totals, complete) = rig.drained(job.run);
    assert_eq!((totals, complete), (Totals::default(), false));
    assert!(!job.output.exists());
}

#[test]
fn the_last_holder_is_told_and_a_drain_is_then_complete() {
    let rig = Rig::new();
    let job = rig.job(1, settings());
    write_all(&job.out, b"last words");
    drop((job.out, job.err));
    let gone = |event: &CaptureEvent| (*event == CaptureEvent::HolderGone { run: run_id(1) }).then_some(());
    rig.wait("the last holder's end", gone);
    assert_eq!(rig.drained(job.run), (Totals { stdout_bytes: 10, ..Totals::default() }, true));
    // Somebody opens a FIFO again by its path, writes, and goes.
    let late = crate::sys::fifo::open_both(&rig.dir.path().join("fifo-1/stderr")).unwrap();
    write_all(&late, b", and more");
    until("what came late", || rig.capture.totals(job.run).stdout_bytes == 20);
    drop(late);
    rig.wait("the second end", gone);
    assert_eq!(rig.closed(job.run).stdout_bytes, 20);
    assert_eq!(read_all(&job.output, Series::Merged), b"last words, and more");
}

#[test]
fn a_job_that_never_opened_its_fifos_is_complete_when_drained() {
    let rig = Rig::new();
    let job = rig.job(1, settings());
    drop((job.out, job.err));
    assert!(rig.drained(job.run).1);
}

#[test]
fn a_flooding_left_over_process_cannot_hold_up_a_drain() {
    let rig = Rig::new();
    let job = rig.job(1, Output { max_size: 1 << 20, keep: 2, compress: false, ..settings() });
    let stop = Arc::new(AtomicBool::new(false));
    let (out, flag) = (job.out.try_clone().unwrap(), stop.clone());
    let flood = std::thread::spawn(move || {
        let data = b"flood\n".repeat(1000);
        while !flag.load(Ordering::Relaxed) {
            write_all(&out, &data);
        }
    });
    for _ in 0..50 {
        assert!(!rig.drained(job.run).1);
    }
    // Meanwhile another run is served.
    let other = rig.job(2, settings());
    write_all(&other.out, b"hello\n");
    until("the other run's line", || rig.capture.totals(other.run).stdout_bytes == 6);
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
}

#[test]
fn a_directory_that_vanishes_comes_back_and_only_what_was_deleted_is_missing() {
    let rig = Rig::new();
    let (job, other) = (rig.job(1, settings()), rig.job(2, settings()));
    write_all(&job.out, b"before\n");
    rig.drained(job.run);
    std::fs::remove_dir_all(&job.output).unwrap();
    let mut n = 0;
    until("a new directory", || {
        write_all(&job.out, b"after\n");
        n += 1;
        rig.drained(job.run);
        job.output.exists()
    });
    write_all(&other.out, b"fine\n");
    rig.drained(other.run);
    assert_eq!(read_all(&other.output, Series::Merged), b"fine\n");
    let mut reader = Reader::open(&job.output).unwrap();
    let first = reader.first_offset(Series::Merged);
    let chunk = reader.read_at(Series::Merged, first, 1 << 20).unwrap();
    // Up to the deletion it may be gone; everything after is here.
    let all = [&b"before\n"[..], &b"after\n".repeat(n)].concat();
    assert!(first <= 7, "{first}");
    assert!(all.ends_with(&chunk.data) && chunk.data.len() as u64 == all.len() as u64 - first);
    assert_eq!(reader.indexed_end(Series::Merged).unwrap(), all.len() as u64);
}

#[test]
fn unknown_runs_are_answered() {
    let rig = Rig::new();
    assert_eq!(rig.drained(run_id(9)), (Totals::default(), false));
    assert_eq!(rig.closed(run_id(9)), Totals::default());
    assert_eq!(rig.capture.totals(run_id(9)), Totals::default());
}

#[test]
fn everything_ends_when_asked() {
    let rig = Rig::new();
    let job = rig.job(1, settings());
    write_all(&job.out, b"x\n");
    rig.drained(job.run);
    let Rig { capture, events, dir: _dir } = rig;
    capture.finish();
    assert!(events.iter().count() < 10, "all senders are gone");
}
