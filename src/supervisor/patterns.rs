//! What may help whoever looks for a cause: the last lines of failed runs, and memory that only ever grows.
//!
//! Read beside the loop, and told when it is known. The memory of all live runs is looked at once a minute, in one
//! go, whether somebody watches them or not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::sync::mpsc;

use super::main_loop::Supervisor;
use super::vigils::aside;
use crate::core::ids::{JobName, RunId};
use crate::core::job::{PastRun, Phase};
use crate::core::patterns::{LastLine, MemoryTrend, patterns};
use crate::state_dir::layout::StateDir;
use crate::state_dir::output::{Reader, Series};
use crate::sys::clock;
use crate::sys::sample::{self, Wanted};

/// Failures in a row from which on the last line of output is read.
const LINES_FROM: u32 = 3;
/// Runs of a job whose last line is read at a time, and jobs.
const LINES_RUNS: usize = 3;
const LINES_JOBS: usize = 8;
/// Last lines that are kept for each job.
const LINES_KEPT: usize = 20;
/// How much of the end of the output is looked at for a line.
const LINE_BYTES: usize = 4096;
/// Between two looks at the memory of live runs, in microseconds.
const MEMORY_EVERY_US: u64 = 60_000_000;

/// What was read.
#[derive(Debug)]
pub(super) enum Learned {
    /// The last lines of runs.
    Lines { job: JobName, lines: Vec<LastLine> },
    /// The resident memory of live runs, in KiB.
    Memory(Vec<(RunId, u64)>),
}

/// What is known so far.
#[derive(Debug)]
pub(super) struct Patterns {
    lines: BTreeMap<JobName, VecDeque<LastLine>>,
    /// Jobs whose lines are being read.
    reading: BTreeSet<JobName>,
    trends: BTreeMap<RunId, MemoryTrend>,
    /// When memory is looked at next, boot clock in microseconds; `None`: it is being looked at.
    due_us: Option<u64>,
    tell: mpsc::Sender<Learned>,
}

impl Patterns {
    /// Nothing yet, and where what is read comes from.
    pub(super) fn new() -> (Self, mpsc::Receiver<Learned>) {
        let (tell, learned) = mpsc::channel(64);
        let none = Self {
            lines: BTreeMap::new(),
            reading: BTreeSet::new(),
            trends: BTreeMap::new(),
            due_us: Some(clock::boot_us().saturating_add(MEMORY_EVERY_US)),
            tell,
        };
        (none, learned)
    }
}

impl Supervisor {
    /// What the failures of a job have in common, and how its memory goes, in words.
    pub(super) fn patterns_of(&self, name: &JobName) -> Vec<String> {
        let Some(job) = self.state.job(name) else { return Vec::new() };
        let past: Vec<&PastRun> = self.state.runs(name).collect();
        let failing = job.failures > 0 || matches!(job.phase, Phase::Fatal { .. });
        let lines: Vec<LastLine> = self.patterns.lines.get(name).into_iter().flatten().cloned().collect();
        let mut words = if past.len() < 3 { Vec::new() } else { patterns(&past, failing, &lines) };
        words.extend(job.run().and_then(|run| self.patterns.trends.get(&run)?.words()));
        words
    }

    /// When the memory of live runs is looked at next; `None` while nobody lives.
    pub(super) fn next_look_at_memory(&self) -> Option<u64> {
        self.patterns.due_us.filter(|_| self.state.live_runs().next().is_some())
    }

    /// Looks at it, if it is time to.
    pub(super) fn look_at_memory(&mut self) {
        let now_us = clock::boot_us();
        if self.next_look_at_memory().is_none_or(|due_us| due_us > now_us) {
            return;
        }
        let wanted = |(run, name)| Some((run, self.wanted(run, self.state.job(name)?)?));
        let (runs, wanted): (Vec<RunId>, Vec<Wanted>) = self.state.live_runs().filter_map(wanted).unzip();
        let tell = self.patterns.tell.clone();
        let begun = aside(move || {
            let samples = sample::sample(&wanted, false);
            let sizes = runs.into_iter().zip(samples);
            let sizes = sizes.filter_map(|(run, sample)| Some((run, sample?.rss_bytes / 1024))).collect();
            let _ = tell.blocking_send(Learned::Memory(sizes));
        });
        // Until it is told, nobody looks again.
        self.patterns.due_us = (!begun).then(|| now_us.saturating_add(MEMORY_EVERY_US));
    }

    /// Something was read.
    pub(super) fn learned(&mut self, learned: Learned) {
        match learned {
            Learned::Lines { job, lines } => {
                self.patterns.reading.remove(&job);
                let known = self.patterns.lines.entry(job.clone()).or_default();
                known.extend(lines);
                known.drain(..known.len().saturating_sub(LINES_KEPT));
                self.dirty.insert(job);
                // Others may have waited for it.
                self.alerting.look_again();
            }
            Learned::Memory(sizes) => {
                self.patterns.due_us = Some(clock::boot_us().saturating_add(MEMORY_EVERY_US));
                // Who has ended, or could not be seen, begins anew.
                let mut before = std::mem::take(&mut self.patterns.trends);
                for (run, kib) in sizes {
                    let Some(job) = self.state.job_of(run) else { continue };
                    let mut trend = before.remove(&run).unwrap_or_default();
                    if trend.note(kib) {
                        self.dirty.insert(job.clone());
                    }
                    self.patterns.trends.insert(run, trend);
                }
            }
        }
    }

    /// Reads the last lines of runs of jobs that fail over and over, and of which they are not known yet.
    pub(super) fn read_last_lines(&mut self) {
        let (state, suspects, known) = (&self.state, self.alerting.suspects(), &mut self.patterns);
        known.lines.retain(|job, _| suspects.contains(job));
        let failing: Vec<JobName> = suspects
            .iter()
            .filter(|name| !known.reading.contains(*name))
            .filter(|name| state.job(name).is_some_and(|job| job.failures >= LINES_FROM))
            .cloned()
            .collect();
        for job in failing {
            let lines = known.lines.get(&job);
            let is_known = |run: RunId| lines.is_some_and(|lines| lines.iter().any(|line| line.run == run));
            let past: Vec<&PastRun> = state.runs(&job).collect();
            let ended = past.into_iter().rev().filter(|run| run.end.is_some()).take(LINES_RUNS);
            let runs: Vec<RunId> = ended.map(|run| run.run).filter(|run| !is_known(*run)).collect();
            if runs.is_empty() {
                continue;
            }
            // The others have their turn when these have been read. On a disk that hangs, that is never.
            if known.reading.len() >= LINES_JOBS {
                return;
            }
            known.reading.insert(job.clone());
            let (dir, tell) = (self.state_dir.clone(), known.tell.clone());
            let name = job.clone();
            let begun = aside(move || {
                let lines = runs.iter().rev().map(|run| LastLine { run: *run, line: last_line(&dir, *run) });
                let _ = tell.blocking_send(Learned::Lines { job, lines: lines.collect() });
            });
            if !begun {
                known.reading.remove(&name);
                return;
            }
        }
    }
}

/// The last line that a run wrote that says anything; empty if there is none.
fn last_line(dir: &StateDir, run: RunId) -> String {
    let Ok(mut reader) = Reader::open(&dir.run(run).output()) else { return String::new() };
    for series in [Series::Stderr, Series::Merged, Series::Stdout] {
        if !reader.series().contains(&series) {
            continue;
        }
        let from = reader.end_offset(series).saturating_sub(LINE_BYTES as u64);
        let from = from.max(reader.first_offset(series));
        let Ok(chunk) = reader.read_at(series, from, LINE_BYTES) else { continue };
        let text = String::from_utf8_lossy(&chunk.data);
        if let Some(line) = text.lines().rev().map(str::trim).find(|line| !line.is_empty()) {
            return line.chars().filter(|c| !c.is_control()).collect();
        }
    }
    String::new()
}
