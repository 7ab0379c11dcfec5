//! Random histories, and what must be true of everything that is read back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::core::event::{Event, Want};
use crate::core::identity::{Epoch, Identity};
use crate::core::ids::{Generation, JobName, RunId};
use crate::core::outcome::{Asked, ExitRecord, Outcome, Source};
use crate::core::spec::{JobSpec, Kind, Restart};
use crate::core::state::State;
use crate::core::time::{Millis, Stamp};
use crate::journal::simulated::SimFs;
use crate::journal::{Entry, Journal, JournalError, Recovered, recover_on};

/// Seeded chance.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// For a disk that asks.
    pub(super) fn choose(&mut self) -> impl FnMut(usize) -> usize {
        |ways| self.below(ways as u64) as usize
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A number from the environment, to make a test longer.
pub(super) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

pub(super) fn state_dir() -> PathBuf {
    PathBuf::from("/s")
}

pub(super) fn stamp(n: u64) -> Stamp {
    Stamp { boot_us: n, wall_us: 1_763_600_000_000_000 + n as i64 }
}

/// One of a few runs, no two jobs having the same.
fn run(job: u64, rng: &mut Rng) -> RunId {
    RunId::from_bytes(u128::from(job * 100 + rng.below(5)).to_be_bytes())
}

fn epoch(n: u64) -> Epoch {
    Epoch { boot_id: "16ba941f".to_owned(), init: n }
}

/// Settings of a task: one that is over is at rest.
pub(super) fn task(job: JobName) -> JobSpec {
    let spec = JobSpec::new(job, vec!["true".to_owned()]);
    JobSpec { kind: Kind::Task, restart: Restart::Never, ..spec }
}

/// The end of a run.
pub(super) fn ended(job: JobName, run: RunId, at: Stamp, code: i32) -> ExitRecord {
    ExitRecord {
        v: 1,
        run,
        job,
        outcome: Outcome::Exited { code },
        source: Source::Wait,
        asked: Asked::Nobody,
        started: Some(at),
        ended: at,
        rusage: None,
        stdout_bytes: 5,
        stderr_bytes: 0,
        dropped_bytes: 0,
        output_complete: true,
    }
}

/// Any event; whether it makes sense is of no matter to whoever remembers it.
pub(super) fn event(rng: &mut Rng, at: Stamp) -> Event {
    let which = rng.below(4);
    let job = JobName::new(["a", "b", "web:1", "web:2"][which as usize]).unwrap();
    let identity = Identity { pid: 7, pidfs: rng.below(99), start_ticks: 1, epoch: epoch(1) };
    let run = run(which, rng);
    match rng.below(15) {
        0 => Event::JobAdded { job, want: Want::Up },
        1 => Event::JobSubmitted { spec: Box::new(task(job)), by: Asked::Nobody },
        2 => Event::JobRemoved { job },
        3 => Event::WantSet {
            job,
            want: if rng.one_in(2) { Want::Up } else { Want::Down },
            by: Asked::Operator { uid: 1000, verb: "start *J".to_owned() },
        },
        4..=6 => Event::RunRequested { job, run, attempt: rng.below(9), at },
        7 => Event::RunStarted {
            job,
            run,
            identity,
            at,
            grace: Millis(rng.below(2) * 500),
            awaits: rng.below(2) == 0,
        },
        8 => Event::StopBegun { job, run, by: Asked::Shutdown, at, then_start: rng.one_in(2) },
        9 => Event::BackedOff { job, failures: 3, until: at },
        10 => Event::OrphanFound { run, job: Some(job) },
        13 => Event::OrphanGone { run, job: Some(job) },
        11 => Event::SupervisorStarted {
            born_us: rng.below(9),
            generation: Generation(rng.below(5)),
            version: "1".to_owned(),
            epoch: epoch(rng.below(2)),
            recovery: false,
            ending: false,
        },
        12 => Event::GaveUp { job, why: "because\n\"so\" \u{1f600}".to_owned(), until: None },
        _ => {
            let record = ended(job.clone(), run, at, 3);
            let leftovers = rng.one_in(3);
            Event::RunEnded { job, record: Box::new(record), leftovers, failures: 1, interrupted: false }
        }
    }
}

pub(super) fn entry(rng: &mut Rng, n: u64) -> Entry {
    let at = stamp(n);
    let events = (0..1 + rng.below(3)).map(|_| event(rng, at)).collect();
    Entry { at, generation: Generation(3), events }
}

/// Writes a log and knows what may be read back.
pub(super) struct Rig {
    pub(super) fs: SimFs,
    pub(super) rng: Rng,
    pub(super) journal: Option<Journal>,
    /// What was decided, by number from 1 on; empty ones are marks.
    pub(super) decided: Vec<Entry>,
    /// The memory after each of them; the first is the empty one.
    pub(super) states: Vec<State>,
    pub(super) acknowledged: u64,
    pub(super) clock: u64,
    /// Whether checkpoints are made.
    pub(super) folds: bool,
}

impl Rig {
    pub(super) fn new(fs: SimFs, seed: u64) -> Self {
        Self {
            fs,
            rng: Rng::new(seed),
            journal: None,
            decided: Vec::new(),
            states: vec![State::new()],
            acknowledged: 0,
            clock: 0,
            folds: true,
        }
    }

    /// A log that is open.
    pub(super) fn begun(fs: SimFs, seed: u64) -> Self {
        let mut rig = Self::new(fs, seed);
        rig.start().unwrap();
        rig
    }

    fn decide(&mut self, entry: Entry) {
        let mut state = self.states.last().unwrap().clone();
        for event in &entry.events {
            state.apply(event, entry.at);
        }
        self.states.push(state);
        self.decided.push(entry);
    }

    fn forget_from(&mut self, seq: u64) {
        self.decided.truncate(seq as usize);
        self.states.truncate(seq as usize + 1);
    }

    pub(super) fn read(&self) -> Result<Recovered, JournalError> {
        recover_on(Arc::new(self.fs.clone()), &state_dir(), State::new(), &mut |_, _| {})
    }

    /// What has to be true of everything read after a crash: a beginning of what was decided, with all that
    /// was acknowledged in it, and no word of a loss.
    pub(super) fn judge(&self, read: &Recovered) -> Result<(), String> {
        let last = read.last_seq();
        let report = &read.report;
        if !report.lost.is_empty() || report.unreadable {
            return Err(format!("a crash is taken for a loss: {report}"));
        }
        if last < self.acknowledged || last > self.decided.len() as u64 {
            let (acknowledged, decided) = (self.acknowledged, self.decided.len());
            return Err(format!("{last} read, {acknowledged} acknowledged, {decided} decided: {report}"));
        }
        if read.state != self.states[last as usize] {
            return Err(format!("another memory at {last}: {report}"));
        }
        Ok(())
    }

    /// Reads, judges, and goes on from there.
    pub(super) fn start(&mut self) -> Result<(), String> {
        let read = self.read().map_err(|e| e.to_string())?;
        self.judge(&read)?;
        let last = read.last_seq();
        self.clock += 1;
        let (journal, _, _) = read.open(stamp(self.clock), Generation(3));
        // What was read is acted upon once there is a segment, and stays. Until then it may be lost.
        let written = journal.poisoned().is_none();
        if written {
            self.forget_from(last);
            self.acknowledged = last;
        }
        self.journal = Some(journal);
        Ok(())
    }

    /// One batch. Whether it was acknowledged.
    pub(super) fn append(&mut self, entries: u64) -> bool {
        let Some(mut journal) = self.journal.take() else { return false };
        if journal.poisoned().is_some() {
            self.journal = Some(journal);
            return false;
        }
        self.forget_from(journal.last_seq());
        let mut batch = Vec::new();
        for _ in 0..entries {
            self.clock += 1;
            let entry = entry(&mut self.rng, self.clock);
            self.decide(entry.clone());
            batch.push(entry);
        }
        let done = journal.append(&batch);
        self.journal = Some(journal);
        self.note(done.map(drop))
    }

    fn note(&mut self, done: Result<(), JournalError>) -> bool {
        let journal = self.journal.as_ref().unwrap();
        if done.is_ok() {
            self.acknowledged = journal.last_seq();
        }
        done.is_ok()
    }

    pub(super) fn mark(&mut self) -> bool {
        let Some(mut journal) = self.journal.take() else { return false };
        let wanted = journal.wants_mark();
        if wanted {
            self.forget_from(journal.last_seq());
            let (at, generation) = journal.by();
            self.decide(Entry { at, generation, events: Vec::new() });
        }
        let done = journal.mark();
        self.journal = Some(journal);
        wanted && self.note(done)
    }

    pub(super) fn rotate(&mut self) -> bool {
        self.journal.as_mut().is_some_and(|journal| journal.rotate().is_ok())
    }

    /// A checkpoint of everything so far. Whether one was made.
    pub(super) fn fold(&mut self) -> Result<bool, String> {
        let Some(journal) = &mut self.journal else { return Ok(false) };
        if journal.rotate().is_err() || journal.poisoned().is_some() || journal.last_seq() == 0 {
            return Ok(false);
        }
        let folding = journal.folding().without_history();
        match folding.run(journal.last_seq()) {
            Ok(_) => Ok(true),
            // A disk that refuses is no mistake; one that gives back something else is.
            Err(JournalError::Io { what: "fold", source, .. }) => Err(source.to_string()),
            Err(_) => Ok(false),
        }
    }

    /// Tries to write again. What had failed is void then.
    pub(super) fn heal(&mut self) -> bool {
        let Some(journal) = &mut self.journal else { return false };
        let healed = journal.heal().is_ok();
        if healed {
            let last = journal.last_seq();
            self.forget_from(last);
            self.acknowledged = last;
        }
        healed
    }

    /// Something or other.
    pub(super) fn act(&mut self) -> Result<(), String> {
        match self.rng.below(11) {
            0..=5 => {
                let entries = 1 + self.rng.below(3);
                self.append(entries);
            }
            6 => {
                self.mark();
            }
            7 => {
                self.rotate();
            }
            8 if self.folds => {
                self.fold()?;
            }
            _ => {
                self.heal();
            }
        }
        Ok(())
    }
}

/// A log of some segments, with marks, batches and checkpoints in it, closed in order.
pub(super) fn sample(seed: u64, acts: u64) -> Rig {
    made(seed, acts, true)
}

/// The same without a checkpoint.
pub(super) fn bare_sample(seed: u64, acts: u64) -> Rig {
    made(seed, acts, false)
}

fn made(seed: u64, acts: u64, folding: bool) -> Rig {
    let mut rig = Rig::begun(SimFs::default(), seed);
    rig.folds = folding;
    for act in 0..acts {
        rig.act().unwrap();
        if folding && (act == acts / 3 || act == acts * 2 / 3) {
            assert!(rig.append(2) && rig.fold().unwrap());
        }
    }
    rig.append(2);
    rig.mark();
    rig
}

/// The files that hold the log, smallest name first.
pub(super) fn log_files(fs: &SimFs) -> Vec<(PathBuf, Vec<u8>)> {
    let ours = |path: &Path| path.starts_with("/s/journal") || path.starts_with("/s/checkpoints");
    fs.files().into_iter().filter(|(path, _)| ours(path)).collect()
}
