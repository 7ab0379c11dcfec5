//! SIGKILL to the capturing process, again and again, while a job writes numbered lines.
//!
//! The victim is this test program itself, started anew with an environment variable that makes one test
//! capture for ever. The FIFOs are held by us, as a job would.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::core::spec::{Output, OutputMode};
use crate::state_dir::output::{Reader, Series};
use crate::sys::fifo;

use super::super::{AddRun, Capture, CaptureEvent};
use super::rig::{PATIENCE, read_all, run_id, settings, until, write_all};

const DIR: &str = "OUTLIVE_TEST_CAPTURE_DIR";
const ROUNDS: &str = "OUTLIVE_TEST_CAPTURE_KILLS";
const VICTIM: &str = "keeper::capture::tests::kill::victim";

fn output(mode: OutputMode) -> Output {
    Output { mode, max_size: 200_000, keep: 1_000_000, compress: true, ..settings() }
}

fn mode(n: u8) -> OutputMode {
    if n == 2 { OutputMode::Separate } else { OutputMode::Merged }
}

fn resume(dir: &Path, capture: &Capture, resumed: bool) {
    for n in [1, 2] {
        let open = |name: &str| fifo::open_read(&dir.join(format!("{n}-{name}"))).unwrap();
        let output_dir = dir.join(format!("runs/{n}/output"));
        let (stdout, stderr) = (open("out"), open("err"));
        let settings = output(mode(n));
        capture.add(AddRun { run: run_id(n), output_dir, settings, stdout, stderr, resumed }).unwrap();
    }
}

/// Captures until it is killed, if started for that; otherwise there is nothing to test here but that an
/// ordinary run of the tests does not capture by mistake.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(DIR) else {
        assert!(std::env::var_os(ROUNDS).is_none_or(|v| !v.is_empty()));
        return;
    };
    let (sender, events) = channel();
    let capture = Capture::new(move |event| drop(sender.send(event)));
    resume(Path::new(&dir), &capture, true);
    println!("\ncapturing");
    let failed = events.iter().find(|e| matches!(e, CaptureEvent::Failed { .. }));
    panic!("{failed:?}");
}

fn start(dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", VICTIM, "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    assert!(said.lines().any(|line| line.unwrap() == "capturing"), "the victim ended early");
    child
}

fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// Every line of one writer, once and in order.
fn check(text: &[u8], prefix: &str, count: u64) {
    let mut expected = 0;
    for line in text.split_inclusive(|&b| b == b'\n') {
        if line.starts_with(prefix.as_bytes()) {
            assert_eq!(String::from_utf8_lossy(line), format!("{prefix} {expected}\n"));
            expected += 1;
        }
    }
    assert_eq!(expected, count, "{prefix}");
}

#[test]
fn no_kill_loses_doubles_or_tears_a_line() {
    let rounds = std::env::var(ROUNDS).ok().and_then(|v| v.parse().ok()).unwrap_or(200);
    let mut seed = 20_260;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let jobs: Vec<_> = ["1-out", "1-err", "2-out", "2-err"]
        .into_iter()
        .map(|name| {
            fifo::create(&dir.join(name), 0o600).unwrap();
            (name, fifo::open_both(&dir.join(name)).unwrap())
        })
        .collect();
    let stop = AtomicBool::new(false);
    let counts: Vec<(&str, u64)> = std::thread::scope(|scope| {
        let writers: Vec<_> = jobs
            .iter()
            .map(|(name, fd)| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) {
                        // Some lines alone, some many at a time, all shorter than PIPE_BUF.
                        let together = if n % 1000 < 100 { 1 } else { 50 };
                        let lines: String = (n..n + together).map(|n| format!("{name} {n}\n")).collect();
                        write_all(fd, lines.as_bytes());
                        n += together;
                    }
                    (*name, n)
                })
            })
            .collect();
        let (_keep, never) = channel::<()>();
        for _ in 0..rounds {
            let mut child = start(dir);
            let _ = never.recv_timeout(Duration::from_micros(next(&mut seed) % 8_000));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        // The writers may be waiting for space: a last keeper lets them go.
        let (sender, events) = channel();
        let capture = Capture::new(move |event| drop(sender.send(event)));
        resume(dir, &capture, true);
        let counts = writers.into_iter().map(|w| w.join().unwrap()).collect();
        for n in [1, 2] {
            capture.drain(run_id(n));
            let drained =
                |e: &CaptureEvent| matches!(e, CaptureEvent::Drained { run, .. } if *run == run_id(n));
            until("drained", || events.recv_timeout(PATIENCE).is_ok_and(|e| drained(&e)));
        }
        capture.finish();
        counts
    });
    let (one, two) = (dir.join("runs/1/output"), dir.join("runs/2/output"));
    let merged = read_all(&one, Series::Merged);
    check_interleaved(&one, &merged, &counts);
    check(&read_all(&two, Series::Stdout), "2-out", counts[2].1);
    check(&read_all(&two, Series::Stderr), "2-err", counts[3].1);
    let bytes: u64 = counts.iter().map(|c| c.1).sum();
    println!("{rounds} kills, {bytes} lines, none lost, doubled or torn");
}

/// In a merged series a line of one stream may be cut by the other stream, wherever a pipe was emptied in
/// the middle of a line. The index puts the streams apart again; guesses after a kill cannot. What must hold
/// without the index: the bytes of both streams are all there, in order.
fn check_interleaved(output: &Path, merged: &[u8], counts: &[(&str, u64)]) {
    let reader = Reader::open(output).unwrap();
    let records = reader.records(Series::Merged, 0, u64::MAX).unwrap();
    let mut end = 0;
    for record in &records {
        assert_eq!(record.offset, end, "the index has a gap");
        end = record.end();
    }
    assert_eq!(end, merged.len() as u64);
    check(merged, "1-out", counts[0].1);
    check(merged, "1-err", counts[1].1);
}
