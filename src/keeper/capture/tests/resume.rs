//! What a new keeper finds and takes up.

use std::io::Write;
use std::path::Path;
use std::sync::mpsc::Receiver;

use crate::core::spec::Output;
use crate::state_dir::output::{Reader, Series};
use crate::sys::{disk, fifo};

use super::super::{AddRun, Capture, CaptureEvent};
use super::rig::{Job, Rig, names, read_all, settings, until, write_all};

/// Ends a keeper and starts another one on the same FIFOs, which the job holds.
fn replace(rig: Rig, job: &Job, settings: Output) -> Rig {
    let Rig { capture, events, dir } = rig;
    capture.finish();
    drop::<Receiver<_>>(events);
    let next = Rig { dir, ..Rig::new() };
    add(&next.capture, next.dir.path(), job, settings);
    next
}

fn add(capture: &Capture, dir: &Path, job: &Job, settings: Output) {
    let open = |name: &str| fifo::open_read(&dir.join("fifo-1").join(name)).unwrap();
    let (stdout, stderr) = (open("stdout"), open("stderr"));
    let output_dir = job.output.clone();
    capture.add(AddRun { run: job.run, output_dir, settings, stdout, stderr, resumed: true }).unwrap();
}

fn put(path: &Path, bytes: &[u8]) {
    disk::create_or_truncate(path, 0o600).unwrap().write_all(bytes).unwrap();
}

#[test]
fn goes_on_at_the_end_and_counts_from_there() {
    let rig = Rig::new();
    let job = rig.job(1, settings());
    write_all(&job.out, b"one\n");
    rig.drained(job.run);
    let rig = replace(rig, &job, settings());
    write_all(&job.err, b"two\n");
    assert_eq!(rig.drained(job.run).0.stdout_bytes, 8);
    assert_eq!(read_all(&job.output, Series::Merged), b"one\ntwo\n");
    let records = Reader::open(&job.output).unwrap().records(Series::Merged, 0, 9).unwrap();
    assert_eq!(
        records.iter().map(|r| (r.offset, r.len, r.flags)).collect::<Vec<_>>(),
        [(0, 4, 0), (4, 4, 0)]
    );
}

#[test]
fn a_run_whose_last_process_went_unseen_is_reported() {
    let rig = Rig::new();
    let job = rig.job(1, settings());
    rig.drained(job.run);
    // Nobody reads, the job writes and ends, and a third process holds the reading end.
    let hold = fifo::open_read(&rig.dir.path().join("fifo-1/stdout")).unwrap();
    let Rig { capture, events: _events, dir } = rig;
    capture.finish();
    let Job { run, out, err, output } = job;
    write_all(&out, b"nobody looked\n");
    let job =
        Job { run, out: hold, err: fifo::open_read(&dir.path().join("fifo-1/stderr")).unwrap(), output };
    drop((out, err));
    let next = Rig { dir, ..Rig::new() };
    add(&next.capture, next.dir.path(), &job, settings());
    next.wait("the last holder's end", |e| matches!(e, CaptureEvent::HolderGone { .. }).then_some(()));
    assert!(next.drained(run).1);
    assert_eq!(read_all(&job.output, Series::Merged), b"nobody looked\n");
}

#[test]
fn unfinished_compressions_are_done_and_leftovers_removed() {
    let rig = Rig::new();
    let job = rig.job(1, settings());
    rig.drained(job.run);
    std::fs::create_dir_all(&job.output).unwrap();
    for (start, text) in [(0, "one\n"), (4, "two\n"), (8, "three\n")] {
        put(&Series::Merged.plain(&job.output, start), text.as_bytes());
    }
    put(&Series::Merged.compressing(&job.output, 0), b"half");
    put(&job.output.join("a stranger"), b"stays");
    let rig = replace(rig, &job, settings());
    until("both closed segments compressed", || {
        names(&job.output)
            == [
                "00000000000000000000.log.gz",
                "00000000000000000004.log.gz",
                "00000000000000000008.log",
                "index",
            ]
    });
    write_all(&job.out, b"four\n");
    assert_eq!(rig.drained(job.run).0.stdout_bytes, 19);
    assert_eq!(read_all(&job.output, Series::Merged), b"one\ntwo\nthree\nfour\n");
    assert!(job.output.join("a stranger").exists());
    // Someone compressed the newest one by hand: a new one follows it.
    let rig = {
        let path = Series::Merged.compressed(&job.output, 8);
        let mut gz = flate2::write::GzEncoder::new(
            disk::create_new(&path, 0o600).unwrap(),
            flate2::Compression::fast(),
        );
        gz.write_all(b"three\nfour\n").unwrap();
        gz.finish().unwrap();
        std::fs::remove_file(Series::Merged.plain(&job.output, 8)).unwrap();
        replace(rig, &job, settings())
    };
    write_all(&job.out, b"five\n");
    assert_eq!(rig.drained(job.run).0.stdout_bytes, 24);
    assert_eq!(read_all(&job.output, Series::Merged), b"one\ntwo\nthree\nfour\nfive\n");
}

#[test]
fn too_many_segments_are_deleted_also_by_the_next_keeper() {
    let rig = Rig::new();
    let job = rig.job(1, settings());
    rig.drained(job.run);
    std::fs::create_dir_all(&job.output).unwrap();
    for start in 0..10 {
        put(&Series::Merged.plain(&job.output, start * 2), b"x\n");
    }
    let _rig = replace(rig, &job, Output { keep: 2, compress: false, ..settings() });
    until("three segments", || names(&job.output).len() == 4);
    assert_eq!(Reader::open(&job.output).unwrap().first_offset(Series::Merged), 14);
}
