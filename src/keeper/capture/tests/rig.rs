//! A run without a job: its FIFOs, its directory, and the events that come.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::core::ids::{JobName, RunId};
use crate::core::spec::{JobSpec, Output};
use crate::state_dir::output::{Reader, Series, scan};
use crate::sys::fifo;

use super::super::{AddRun, Capture, CaptureEvent, Totals};

/// Nothing here takes a tenth of it, even on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn settings() -> Output {
    JobSpec::new(JobName::new("t").unwrap(), vec![]).output
}

pub(super) struct Rig {
    pub(super) capture: Capture,
    pub(super) events: Receiver<CaptureEvent>,
    pub(super) dir: tempfile::TempDir,
}

/// Both ends of a run's FIFOs, as the job holds them.
pub(super) struct Job {
    pub(super) run: RunId,
    pub(super) out: OwnedFd,
    pub(super) err: OwnedFd,
    pub(super) output: PathBuf,
}

pub(super) fn run_id(n: u8) -> RunId {
    RunId::from_bytes([n; 16])
}

impl Rig {
    pub(super) fn new() -> Self {
        let (sender, events) = channel();
        let capture = Capture::new(move |event| drop(sender.send(event)));
        Self { capture, events, dir: tempfile::tempdir().unwrap() }
    }

    /// Adds a run whose output goes under `base`.
    pub(super) fn job_in(&self, n: u8, settings: Output, base: &Path) -> Job {
        let run = run_id(n);
        let fifos = self.dir.path().join(format!("fifo-{n}"));
        std::fs::create_dir_all(&fifos).unwrap();
        let ends = |name: &str| {
            let path = fifos.join(name);
            fifo::create(&path, 0o600).unwrap();
            (fifo::open_read(&path).unwrap(), fifo::open_both(&path).unwrap())
        };
        let ((stdout, out), (stderr, err)) = (ends("stdout"), ends("stderr"));
        let output = base.join(format!("runs/{run}/output"));
        let output_dir = output.clone();
        self.capture.add(AddRun { run, output_dir, settings, stdout, stderr, resumed: false }).unwrap();
        Job { run, out, err, output }
    }

    pub(super) fn job(&self, n: u8, settings: Output) -> Job {
        self.job_in(n, settings, self.dir.path())
    }

    /// Waits for an event for which `wanted` gives something; others are passed over.
    pub(super) fn wait<T>(&self, what: &str, mut wanted: impl FnMut(&CaptureEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => {
                    if let Some(found) = wanted(&event) {
                        return found;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {what} in time"),
                Err(RecvTimeoutError::Disconnected) => panic!("all workers gone before {what}"),
            }
        }
    }

    pub(super) fn drained(&self, run: RunId) -> (Totals, bool) {
        self.capture.drain(run);
        self.wait("drained", |event| match event {
            CaptureEvent::Drained { run: r, totals, complete } if *r == run => Some((*totals, *complete)),
            _ => None,
        })
    }

    pub(super) fn closed(&self, run: RunId) -> Totals {
        self.capture.remove(run);
        self.wait("closed", |event| match event {
            CaptureEvent::Closed { run: r, totals } if *r == run => Some(*totals),
            _ => None,
        })
    }
}

pub(super) fn write_all(fd: &OwnedFd, mut data: &[u8]) {
    while !data.is_empty() {
        let n = rustix::io::write(fd, data).unwrap();
        data = &data[n..];
    }
}

/// Everything in a series, by the reader.
pub(super) fn read_all(output: &Path, series: Series) -> Vec<u8> {
    let mut reader = Reader::open(output).unwrap();
    let (mut at, mut data) = (0, Vec::new());
    loop {
        let chunk = reader.read_at(series, at, 1 << 20).unwrap();
        if chunk.data.is_empty() {
            return data;
        }
        assert_eq!(chunk.offset, at, "a gap");
        at += chunk.data.len() as u64;
        data.extend(chunk.data);
    }
}

/// The names of our files in a directory, sorted.
pub(super) fn names(output: &Path) -> Vec<String> {
    let mut names: Vec<_> = scan(output)
        .unwrap()
        .into_iter()
        .map(|(_, p)| p.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// Looks again and again, each time after a short wait, until something holds.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    let (_keep, never) = channel::<()>();
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        let _ = never.recv_timeout(Duration::from_millis(5));
    }
}
